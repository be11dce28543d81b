//! The choice of a pipeline's parts: one source, one store, one sink, and a handler or none.

use super::super::{Checkpoint, CheckpointSpec, HandlerSpec, Loaded, Progress, SinkSpec, SourceSpec};
use crate::config::document::Problem;
use crate::connector::prose::listed;
use crate::connector::{self, Chosen, SinkKind, SourceKind};

/// The parts of a pipeline. `None`: the file does not choose exactly one.
pub(super) struct Parts {
    pub(super) source: Option<Chosen<dyn SourceKind>>,
    pub(super) sink: Option<Chosen<dyn SinkKind>>,
    pub(super) progress: Option<Progress>,
}

/// Chooses the parts that a file names, and returns everything that prevents a choice.
pub(super) fn choose(loaded: &Loaded) -> (Parts, Vec<Problem>) {
    let mut choice = Choice { loaded, problems: Vec::new() };
    let source = choice.source();
    let sink = choice.sink();
    let progress = choice.progress(sink.as_ref());
    (Parts { source, sink, progress }, choice.problems)
}

struct Choice<'a> {
    loaded: &'a Loaded,
    problems: Vec<Problem>,
}

impl Choice<'_> {
    fn source(&mut self) -> Option<Chosen<dyn SourceKind>> {
        let given = self.loaded.spec.source.given();
        if given.is_empty() {
            self.absent("source", SourceSpec::KINDS, "a pipeline needs a source");
        }
        self.only("source", given)
    }

    fn sink(&mut self) -> Option<Chosen<dyn SinkKind>> {
        let given = self.loaded.spec.sink.given();
        let names = |table: &str| self.loaded.document.node(&[table]).is_some();
        let (has_handler, names_sink, names_handler) =
            (self.loaded.spec.handler.rhai.is_some(), names("sink"), names("handler"));
        if given.is_empty() && !has_handler {
            self.absent("sink", SinkSpec::KINDS, "a pipeline needs a sink or a handler, or both");
        } else if given.is_empty() && names_sink {
            self.absent("sink", SinkSpec::KINDS, "this table names no sink");
        } else if !has_handler && names_handler {
            self.absent("handler", HandlerSpec::KINDS, "this table names no handler");
        }
        if given.is_empty() && has_handler { Some(connector::no_sink()) } else { self.only("sink", given) }
    }

    fn progress(&mut self, sink: Option<&Chosen<dyn SinkKind>>) -> Option<Progress> {
        let stores = match &self.loaded.spec.checkpoint {
            Checkpoint::Store(stores) => stores.given(),
            Checkpoint::Sink => return self.progress_in_sink(sink),
        };
        let stores = if stores.is_empty() { connector::default_store().given() } else { stores };
        self.only("checkpoint", stores).map(Progress::Store)
    }

    fn progress_in_sink(&mut self, sink: Option<&Chosen<dyn SinkKind>>) -> Option<Progress> {
        let transactional = sink.and_then(|sink| sink.transactional()).map(Progress::Sink);
        if transactional.is_none() {
            let named = self.loaded.spec.sink.given();
            let why = match named.first() {
                Some(sink) => format!("a `{sink}` sink cannot hold the progress"),
                None => "there is no sink to hold the progress".to_owned(),
            };
            let able = SinkSpec::defaults().into_iter().filter(|sink| sink.transactional().is_some());
            let able = listed(&able.map(|sink| format!("`sink.{sink}`")).collect::<Vec<_>>(), "or");
            let store = CheckpointSpec::KINDS[0];
            let help = format!(
                "`checkpoint = \"sink\"` goes with {able}; otherwise choose a store, such as `checkpoint.{store}`"
            );
            self.problems.push(self.loaded.document.problem(&["checkpoint"], why).help(help));
        }
        transactional
    }

    fn absent(&mut self, table: &str, kinds: &[&str], why: &str) {
        let choice: Vec<_> = kinds.iter().map(|kind| format!("`{table}.{kind}`")).collect();
        let problem = self.loaded.document.problem_of_key(&[table], why);
        self.problems.push(problem.help(format!("add one of {}", choice.join(", "))));
    }

    /// Returns the only kind that a table gives.
    fn only<K: ?Sized>(&mut self, table: &str, mut given: Vec<Chosen<K>>) -> Option<Chosen<K>> {
        let line_of = |kind| self.loaded.document.line_of(&[table, kind]).unwrap_or_default();
        let mut places: Vec<_> = given.iter().map(|chosen| (line_of(chosen.key), chosen.key)).collect();
        places.sort_unstable();
        if let [_, .., (_, last)] = places[..] {
            let listed: Vec<_> = places.iter().map(|(line, kind)| format!("`{kind}` in line {line}")).collect();
            let why = format!("a pipeline has one {table}, not {}: {}", places.len(), listed.join(" and "));
            let problem = self.loaded.document.problem_of_key(&[table, last], why);
            self.problems.push(problem.help("keep one of them; write the others into files of their own"));
            return None;
        }
        given.pop()
    }
}
