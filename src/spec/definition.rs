//! Pipelines whose files passed the checks: their parts as values.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::resolved;
use super::{Loaded, Order, PipelineSpec, Stop, Then};
use crate::config::filter::Filter;
use crate::connector::kind::{StoreFacts, StorePlace, TransactionalKind};
use crate::connector::prose::Prose;
use crate::connector::stored::Repository;
use crate::connector::{Chosen, SinkKind, SourceKind, StoreKind};
use crate::script::Script;

/// A pipeline with exactly one source, store and sink. Its script is not compiled.
#[derive(Clone, Debug)]
pub struct Definition {
    pub loaded: Loaded,
    pub source: Chosen<dyn SourceKind>,
    /// The file's sink. One that discards everything, if the file has only a handler.
    pub sink: Chosen<dyn SinkKind>,
    pub progress: Progress,
    pub filter: Arc<Filter>,
}

/// The place of the progress.
#[derive(Clone, Debug)]
pub enum Progress {
    /// `[checkpoint.…]`, or the default store.
    Store(Chosen<dyn StoreKind>),
    /// `checkpoint = "sink"`: effects and progress are one transaction.
    Sink(Arc<dyn TransactionalKind>),
}

impl Progress {
    /// Returns the abilities of the store, or of the sink as a store.
    pub fn facts(&self) -> StoreFacts {
        match self {
            Self::Store(store) => store.facts(),
            Self::Sink(sink) => sink.facts(),
        }
    }

    /// Returns the local repository of the progress.
    pub fn repository(&self, data: &Path) -> Option<Arc<dyn Repository>> {
        match self {
            Self::Store(store) => store.repository(data),
            Self::Sink(sink) => sink.repository(data),
        }
    }

    pub fn is_sink(&self) -> bool {
        matches!(self, Self::Sink(_))
    }
}

impl Definition {
    pub fn spec(&self) -> &PipelineSpec {
        &self.loaded.spec
    }

    pub fn name(&self) -> &str {
        &self.loaded.name
    }

    /// Returns the consumer group.
    pub fn group(&self) -> &str {
        self.loaded.group()
    }

    /// Returns the name of the pipeline that this one comes after.
    pub fn after(&self) -> Option<&str> {
        self.spec().after.as_deref()
    }

    /// Returns a text that identifies the source with all its settings: equal texts are one feed, as far as this process can
    /// tell. References are as the file writes them.
    pub fn feed(&self) -> String {
        let source = serde_json::to_string(&self.spec().source).expect("a spec is a tree of plain values");
        let files = self.source.files(self.name());
        let files: Vec<_> = files.iter().map(|file| resolved(&self.loaded.directory().join(&file.path))).collect();
        format!("{source} {files:?}")
    }

    /// Returns the source part of the key of the progress.
    pub fn source_id(&self) -> String {
        match &self.spec().source_id {
            Some(id) => id.identity().to_owned(),
            None => self.source.default_source_id().unwrap_or_else(|| self.source.key.to_owned()),
        }
    }

    /// Returns the source part of the key as the file writes it.
    pub fn written_source_id(&self) -> String {
        self.spec().source_id.as_ref().map_or_else(|| self.source_id(), |id| id.written().to_owned())
    }

    /// Returns the time at which the pipeline ends by itself.
    pub fn stop(&self) -> Stop {
        match self.spec().stop {
            Stop::Never if self.source.ends() => Stop::Tail,
            stop => stop,
        }
    }

    /// Returns whether the file names a sink.
    pub fn names_sink(&self) -> bool {
        !self.spec().sink.given().is_empty()
    }

    /// Returns whether (stream, next index) is kept beside the progress: see `keeps_write_positions`.
    pub fn keeps_write_positions(&self) -> bool {
        keeps_write_positions(self.spec(), &*self.source, &self.progress)
    }

    /// Returns the action for an event whose retries are spent. Left out, it is `park` where parked events outlive the
    /// process.
    pub fn then(&self) -> Then {
        let facts = self.progress.facts();
        let can_park = facts.parked && facts.is_durable() && self.source.contract().ordinals;
        self.spec().errors.then.unwrap_or(if can_park { Then::Park } else { Then::Halt })
    }

    /// Returns the version of the handler, which the marks of parked streams carry (C32): a hash of the script with its
    /// modules and parameters.
    pub fn handler_version(&self, script: Option<&Script>) -> String {
        use std::hash::BuildHasher;
        let Some(script) = script else { return "none".to_owned() };
        let params = self.spec().handler.rhai.as_ref().map(|rhai| format!("{:?}", rhai.params));
        let hash = foldhash::quality::FixedState::default().hash_one((script.hash(), params));
        format!("{:08x}", hash >> 32)
    }

    /// Returns the local place of the progress, in the data directory.
    pub fn local_store(&self, data: &Path) -> Option<PathBuf> {
        match self.progress.facts().place {
            StorePlace::Local(path) => Some(data.join(path)),
            StorePlace::Process => None,
        }
    }

    /// Returns the wording of the pipeline's values.
    pub fn prose<'a>(&'a self, table: &'a [&'a str]) -> Prose<'a> {
        Prose {
            document: &self.loaded.document,
            table,
            pipeline: self.name(),
            directory: self.loaded.directory(),
            has_script: self.spec().handler.rhai.is_some(),
            by_event: false,
        }
    }
}

/// Returns whether (stream, next index) is kept beside the progress: in the sink's transaction, so that events that the
/// feed repeats are recognised (C13), or in a durable store, so that `require_all` resumes after a restart.
pub(super) fn keeps_write_positions(spec: &PipelineSpec, source: &dyn SourceKind, progress: &Progress) -> bool {
    let schedule = &spec.schedule;
    match progress {
        Progress::Store(store) => spec.waits_for_all() && store.facts().write_positions,
        Progress::Sink(_) => {
            let wanted = source.contract().repeats || schedule.require_all;
            schedule.order == Order::Stream && schedule.write_positions.unwrap_or(wanted)
        }
    }
}

/// A pipeline that can run: its script is compiled as well.
#[derive(Clone, Debug)]
pub struct Checked {
    pub definition: Definition,
    /// `None`: the events themselves go to the sink.
    pub script: Option<Script>,
}

impl Checked {
    /// Returns the files that the pipeline is made of: its own, its script's, and those that references name.
    pub fn files(&self) -> Vec<PathBuf> {
        let Loaded { document, .. } = &self.definition.loaded;
        let mut files = vec![document.file.clone()];
        files.extend(self.script.iter().flat_map(Script::files));
        files.extend(self.definition.loaded.referenced_files());
        files
    }
}

impl Checked {
    /// Returns the script of the handler and the filter of the reader. A script that upcasts filters by type itself.
    pub fn script_and_filter(&self) -> (Option<Script>, Arc<Filter>) {
        let filter = &self.definition.filter;
        match &self.script {
            None => (None, Arc::clone(filter)),
            Some(script) => {
                let (script, filter) = script.with_filter(filter);
                (Some(script), filter)
            }
        }
    }
}

/// Two pipelines are equal if a run of one cannot be told from a run of the other. References compare by their values, so
/// that a rotated secret is a change; a script compares with its modules.
impl PartialEq for Checked {
    fn eq(&self, other: &Self) -> bool {
        let definition = |checked: &Self| {
            let Loaded { name, document, spec } = checked.definition.loaded.clone();
            (name, document.file, spec)
        };
        let script = |checked: &Self| checked.script.as_ref().map(Script::hash);
        definition(self) == definition(other) && script(self) == script(other)
    }
}
