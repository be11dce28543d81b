//! What takes more than one value, or more than one file, to be judged.

mod files;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};

use super::connectors::Role;
use super::{Checkpoint, HandlerSpec, Loaded, Order, SinkSpec, SourceSpec, Then};
use crate::config::document::{Problem, clear_secrets};
use crate::config::filter::{BadEntry, Filter};
use crate::config::scalar::Text;
use crate::connector::json;
use crate::event::Indexes;
use crate::script;

/// Returns everything that is wrong with pipelines that could be read, each by itself and all together. `data` is the
/// daemon's data directory.
///
/// Where missing variables are allowed ([`setting::allowing_missing`](crate::config::scalar::allowing_missing)), what refers to
/// any is not judged.
pub fn check(pipelines: &[Loaded], data: &Path) -> Vec<Problem> {
    let mut problems: Vec<_> = pipelines.iter().flat_map(|pipeline| Check { pipeline, data }.all()).collect();
    problems.extend(shared_keys(pipelines, data));
    problems.extend(files::shared(pipelines, data));
    problems
}

struct Check<'a> {
    pipeline: &'a Loaded,
    data: &'a Path,
}

impl Check<'_> {
    fn all(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(self.names());
        problems.extend(self.kinds());
        problems.extend(self.required());
        problems.extend(self.connectors());
        problems.extend(self.checkpoint_in_sink());
        problems.extend(self.filter());
        problems.extend(self.schedule());
        problems.extend(self.bounds());
        problems.extend(self.errors());
        problems.extend(self.script());
        problems.extend(self.own_output());
        problems.extend(self.absent_input());
        problems.extend(self.misordered_input());
        problems.extend(clear_secrets(&self.pipeline.document));
        // What has to be changed needs no advice besides.
        let wrong: Vec<_> =
            problems.iter().filter(|problem| problem.is_error()).map(|problem| problem.path.clone()).collect();
        problems.retain(|problem| problem.is_error() || !wrong.contains(&problem.path));
        problems.sort_by_key(|problem| problem.place.as_ref().map(|place| (place.line, place.column)));
        problems
    }

    fn problem(&self, path: &[&str], message: impl Into<String>) -> Problem {
        self.pipeline.document.problem(path, message)
    }

    fn problem_of_key(&self, path: &[&str], message: impl Into<String>) -> Problem {
        self.pipeline.document.problem_of_key(path, message)
    }

    fn names(&self) -> Vec<Problem> {
        let spec = &self.pipeline.spec;
        let named = [("group", &spec.group), ("source_id", &spec.source_id)];
        named
            .into_iter()
            .filter_map(|(key, name)| Some((key, &**name.as_ref().filter(|name| !name.is_hole())?)))
            .filter(|(_, name)| {
                name.trim() != *name
                    || name.is_empty()
                    || name.len() > 255
                    || name.contains('/')
                    || name.contains(char::is_control)
            })
            .map(|(key, _)| {
                self.problem(
                    &[key],
                    format!("`{key}` must be 1 to 255 bytes, without `/`, control characters and outer spaces"),
                )
            })
            .collect()
    }

    /// One source, one store, one handler and one sink at most, and something to do.
    fn kinds(&self) -> Vec<Problem> {
        let spec = &self.pipeline.spec;
        let mut problems = Vec::new();
        let sources: Vec<_> = spec.source.given().collect();
        problems.extend(self.more_than_one("source", &sources));
        if sources.is_empty() {
            problems.push(self.absent("source", SourceSpec::KINDS, "a pipeline needs a source"));
        }
        if let Checkpoint::Store(store) = &spec.checkpoint {
            problems.extend(self.more_than_one("checkpoint", &store.given().collect::<Vec<_>>()));
        }
        let handlers: Vec<_> = spec.handler.given().collect();
        problems.extend(self.more_than_one("handler", &handlers));
        let sinks: Vec<_> = spec.sink.given().collect();
        problems.extend(self.more_than_one("sink", &sinks));
        if sinks.is_empty() && handlers.is_empty() {
            problems.push(self.absent("sink", SinkSpec::KINDS, "a pipeline needs a sink or a handler, or both"));
        } else if sinks.is_empty() && self.pipeline.document.node(&["sink"]).is_some() {
            problems.push(self.absent("sink", SinkSpec::KINDS, "this names no sink"));
        } else if handlers.is_empty() && self.pipeline.document.node(&["handler"]).is_some() {
            problems.push(self.absent("handler", HandlerSpec::KINDS, "this names no handler"));
        }
        problems
    }

    fn absent(&self, table: &str, kinds: &[&str], why: &str) -> Problem {
        let choice: Vec<_> = kinds.iter().map(|kind| format!("`{table}.{kind}`")).collect();
        self.problem_of_key(&[table], why).help(format!("add one of {}", choice.join(", ")))
    }

    fn more_than_one(&self, table: &str, kinds: &[&str]) -> Option<Problem> {
        let mut places: Vec<_> = kinds.iter().map(|kind| (self.line_of(&[table, kind]), *kind)).collect();
        places.sort_unstable();
        let (_, last) = (places.len() > 1).then(|| places[places.len() - 1])?;
        let listed: Vec<_> = places.iter().map(|(line, kind)| format!("`{kind}` in line {line}")).collect();
        let problem = self.problem_of_key(
            &[table, last],
            format!("a pipeline has one {table}, not {}: {}", places.len(), listed.join(" and ")),
        );
        Some(problem.help("keep one of them; write the others into files of their own"))
    }

    fn line_of(&self, path: &[&str]) -> usize {
        self.pipeline.document.line_of(path).unwrap_or_default()
    }

    fn required(&self) -> Vec<Problem> {
        let empty = self.pipeline.spec.required().into_iter().filter(|(_, text)| text.is_empty() && !text.is_hole());
        empty
            .map(|(path, _)| match self.pipeline.document.node(&path) {
                Some(_) => self.problem(&path, format!("`{}` must not be empty", path[2])),
                None => self.problem(&path[..2], format!("the key `{}` is missing", path[2])),
            })
            .collect()
    }

    fn connectors(&self) -> Vec<Problem> {
        let document = &self.pipeline.document;
        let bad = self.pipeline.spec.bad_settings();
        bad.into_iter()
            .map(|(path, bad)| {
                let keys: Vec<_> = path.iter().map(String::as_str).collect();
                let problem = match keys.split_last() {
                    Some((index, list)) if index.parse::<usize>().is_ok() => {
                        let index = index.parse().unwrap_or_default();
                        let problem = document.problem_of_item(list, index, bad.why);
                        Problem { path: format!("{}[{index}]", list.join(".")), ..problem }
                    }
                    // The name of a header is what is wrong with it, its value is not shown.
                    _ if keys.contains(&"headers") => document.problem_of_key(&keys, bad.why),
                    _ => document.problem(&keys, bad.why),
                };
                Problem { help: bad.help, ..problem }
            })
            .collect()
    }

    fn checkpoint_in_sink(&self) -> Option<Problem> {
        let spec = &self.pipeline.spec;
        if spec.checkpoint != Checkpoint::Sink || spec.has_transactional_sink() {
            return None;
        }
        let why = match spec.sink.given().next() {
            Some(kind) => format!("a `{kind}` sink cannot hold the progress"),
            None => "there is no sink to hold the progress".to_owned(),
        };
        Some(self.problem(&["checkpoint"], why).help(
            "`checkpoint = \"sink\"` goes with `sink.sqlite`; otherwise choose a store, such as `checkpoint.sqlite`",
        ))
    }

    fn filter(&self) -> Vec<Problem> {
        let settings = &self.pipeline.spec.filter;
        let of_entry = |bad: BadEntry| {
            let problem = self.pipeline.document.problem_of_item(&["filter", bad.list], bad.index, bad.why);
            Problem { help: bad.help, path: format!("filter.{}[{}]", bad.list, bad.index), ..problem }
        };
        let filter = match Filter::compile(settings) {
            Ok(filter) => filter,
            Err(bad) => return bad.into_iter().map(of_entry).collect(),
        };
        let mut problems = Vec::new();
        for (_, dead) in filter.dead_entries(settings) {
            let nothing_passes = dead.iter().all(Option::is_some);
            for mut bad in dead.into_iter().flatten() {
                if nothing_passes {
                    bad.why.push_str(": the pipeline would handle no event");
                    problems.push(of_entry(bad));
                } else {
                    problems.push(of_entry(bad).as_warning());
                }
            }
        }
        problems
    }

    fn schedule(&self) -> Vec<Problem> {
        let spec = &self.pipeline.spec;
        let schedule = &spec.schedule;
        let mut problems = Vec::new();
        if schedule.require_all {
            let at = &["schedule", "require_all"];
            if schedule.order == Order::None {
                let why = "`require_all` waits for the events before, and `order = \"none\"` knows no before";
                problems.push(self.problem(at, why).help("remove one of the two"));
            }
            if spec.contract().indexes == Indexes::Sparse {
                let why = "`require_all` waits for every index, and this source leaves indexes out";
                problems.push(
                    self.problem(at, why)
                        .help("remove it, or read indexes that follow each other: `index = \"field\"`"),
                );
            }
            if spec.waits_for_all() && !spec.keeps_write_positions() {
                problems.push(self.forgets_streams());
            }
            if schedule.purge.is_some() {
                let why = "`purge` forgets how far a stream is, which is what `require_all` has to know";
                problems.push(self.problem_of_key(&["schedule", "purge"], why).help("remove one of the two"));
            }
        }
        if schedule.purge.is_some() && !schedule.require_all && spec.keeps_write_positions() {
            let why = "`purge` forgets how far a stream is, which `write_positions` has to know";
            problems.push(self.problem_of_key(&["schedule", "purge"], why).help(
                "remove it, or write `write_positions = false` if an event that the feed repeats may have its effect twice",
            ));
        }
        problems.extend(self.not_zero(&["schedule", "commit_interval"], schedule.commit_interval.is_zero()));
        problems.extend(self.not_zero(&["schedule", "purge"], schedule.purge.is_some_and(|purge| purge.is_zero())));
        problems.extend(self.not_zero(&["schedule", "read_ahead_bytes"], schedule.read_ahead_bytes == 0));
        problems.extend(self.not_zero(&["schedule", "max_bytes"], schedule.max_bytes == Some(0)));
        problems
    }

    /// A stream of which nothing is known would wait for its index 0, which was handled before the restart.
    fn forgets_streams(&self) -> Problem {
        let at = &["schedule", "require_all"];
        let needs = "`require_all` has to know after a restart how far each stream is";
        match &self.pipeline.spec.checkpoint {
            Checkpoint::Sink => self
                .problem(at, format!("{needs}, which `write_positions = false` keeps nowhere"))
                .help("remove one of the two"),
            Checkpoint::Store(store) => {
                let kind = store.given().next().unwrap_or("sqlite");
                self.problem(at, format!("{needs}, which a `{kind}` checkpoint store does not keep"))
                    .help("keep the progress in `[checkpoint.sqlite]`, or in the sink where it can hold it: `checkpoint = \"sink\"`")
            }
        }
    }

    fn not_zero(&self, path: &[&str], is_zero: bool) -> Option<Problem> {
        is_zero.then(|| self.problem(path, format!("`{}` must be more than nothing", path[path.len() - 1])))
    }

    /// Numbers that no machine could do anything with, or that would break what they are a limit of.
    fn bounds(&self) -> Vec<Problem> {
        let spec = &self.pipeline.spec;
        let schedule = &spec.schedule;
        let mut given = vec![
            (vec!["schedule", "concurrency"], schedule.concurrency.get(), 1, 100_000),
            (vec!["schedule", "streams_per_call"], schedule.streams_per_call.get(), 1, 100_000),
            (vec!["schedule", "read_ahead"], schedule.read_ahead.get(), 1, 1_000_000),
        ];
        if let Some(rhai) = &spec.handler.rhai {
            let limits = |key| vec!["handler", "rhai", "limits", key];
            given.extend([
                (vec!["handler", "rhai", "threads"], rhai.threads.map_or(1, NonZeroUsize::get), 1, 1_024),
                // What the stack of a thread that runs scripts has room for.
                (limits("call_depth"), rhai.limits.call_depth, 1, script::MAX_CALL_DEPTH),
                (limits("expression_depth"), rhai.limits.expression_depth, 8, script::MAX_EXPRESSION_DEPTH),
            ]);
        }
        let wrong = given.into_iter().filter(|(_, number, least, most)| !(*least..=*most).contains(number));
        let mut problems: Vec<_> = wrong
            .map(|(path, _, least, most)| {
                let key = path[path.len() - 1];
                self.problem(&path, format!("`{key}` must be from {least} to {most}"))
            })
            .collect();
        let rhai = spec.handler.rhai.as_ref();
        problems.extend(rhai.and_then(|rhai| self.not_zero(&["handler", "rhai", "timeout"], rhai.timeout.is_zero())));
        let stats = spec.sink.stats.as_ref();
        problems
            .extend(stats.and_then(|stats| self.not_zero(&["sink", "stats", "interval"], stats.interval.is_zero())));
        problems
    }

    fn errors(&self) -> Vec<Problem> {
        let spec = &self.pipeline.spec;
        let errors = &spec.errors;
        let mut problems = Vec::new();
        if errors.retry.initial > errors.retry.max {
            problems.push(
                self.problem(&["errors", "retry", "initial"], "the first delay is longer than the longest, `max`"),
            );
        }
        problems.extend(self.not_zero(&["errors", "retry", "initial"], errors.retry.initial.is_zero()));
        problems.extend(self.not_zero(&["errors", "stuck_after"], errors.stuck_after.is_zero()));
        if errors.then == Then::Park && !self.can_park() {
            let why = match &spec.checkpoint {
                Checkpoint::Sink => "the sink that holds the progress cannot hold parked events yet".to_owned(),
                Checkpoint::Store(store) => {
                    format!(
                        "a `{}` checkpoint store cannot hold parked events yet",
                        store.given().next().unwrap_or("sqlite")
                    )
                }
            };
            problems.push(
                self.problem(&["errors", "then"], why)
                    .help("write `then = \"halt\"`; only `checkpoint.memory` can park so far"),
            );
        }
        problems
    }

    fn can_park(&self) -> bool {
        matches!(&self.pipeline.spec.checkpoint, Checkpoint::Store(store) if store.holds_parked_events())
    }

    fn script(&self) -> Option<Problem> {
        let script = self.pipeline.spec.script().filter(|script| !script.is_hole() && !script.is_empty())?;
        let at = &["handler", "rhai", "script"];
        match std::fs::metadata(self.pipeline.folder().join(&**script)) {
            Ok(metadata) if metadata.is_file() => None,
            Ok(_) => Some(self.problem(at, "the script is not a file")),
            Err(_) => {
                let path = self.pipeline.folder().join(script.written());
                let help = format!("it is looked for in the pipeline's folder, as `{}`", path.display());
                Some(self.problem(at, "there is no such script").help(help))
            }
        }
    }

    /// A feed may come later, but most often its name is wrong.
    fn absent_input(&self) -> Option<Problem> {
        let input = self.pipeline.spec.input().filter(|input| !input.is_hole() && !input.is_empty())?;
        let feed = self.pipeline.folder().join(&**input);
        // What another pipeline is to write is not there before it ran.
        if feed.exists() || lexical(&feed).starts_with(lexical(self.data)) {
            return None;
        }
        let path = self.pipeline.folder().join(input.written());
        let help = format!("it is looked for in the pipeline's folder, as `{}`, and waited for", path.display());
        Some(self.problem(&["source", "json", "path"], "there is no such file or folder yet").help(help).as_warning())
    }

    /// Warns about file names that are read in another order than that of their numbers.
    fn misordered_input(&self) -> Option<Problem> {
        let settings = self.pipeline.spec.source.json.as_ref().filter(|settings| !settings.path.is_hole())?;
        let (first, second) = json::misordered(settings, self.pipeline.folder())?;
        let why = format!("`{first}` sorts before `{second}`, as names are compared as text");
        let help = "`sort = \"natural\"` compares the numbers in names by their value";
        Some(self.problem(&["source", "json", "path"], why).help(help).as_warning())
    }

    /// A pipeline that reads what it writes never ends.
    fn own_output(&self) -> Option<Problem> {
        let spec = &self.pipeline.spec;
        let input = spec.input().filter(|input| !input.is_hole())?;
        let output = spec.written(&self.pipeline.name).into_iter().find(|file| file.role == Role::Lines)?;
        let source = lexical(&self.pipeline.folder().join(&**input));
        let sink = lexical(&self.data.join(&output.path));
        let at = &*output.at;
        if source == sink {
            Some(self.problem(at, "the sink writes the file that the source reads"))
        } else if sink.parent() == Some(&source) {
            Some(self.problem(at, "the sink writes into the folder that the source reads"))
        } else {
            None
        }
    }
}

/// Two pipelines that keep progress under one key would fence each other, or skip what the other handled.
fn shared_keys(pipelines: &[Loaded], data: &Path) -> Vec<Problem> {
    let mut seen: BTreeMap<(&str, PathBuf, String, String), &Loaded> = BTreeMap::new();
    let mut problems = Vec::new();
    for pipeline in pipelines {
        let Some((kind, path)) = pipeline.spec.shared_store() else { continue };
        let key = (kind, lexical(&data.join(path)), pipeline.group().to_owned(), pipeline.source_id().to_owned());
        if let Some(first) = seen.get(&key) {
            let path: &[&str] = if pipeline.spec.group.is_some() { &["group"] } else { &["source"] };
            let why = format!(
                "the pipeline `{}` keeps its progress under the same group and source, in the same store",
                first.name
            );
            let problem = pipeline.document.problem(path, why);
            problems.push(problem.help(format!(
                "give one of them another `group`, or a `source_id` other than `{}`",
                pipeline.spec.source_id.as_ref().map_or_else(|| pipeline.source_id(), Text::written)
            )));
        } else {
            seen.insert(key, pipeline);
        }
    }
    problems
}

/// Returns an absolute path without `.` and `..`, whether it exists or not; symbolic links are followed where it does.
fn lexical(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut out = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            component => out.push(component),
        }
    }
    // The file need not exist yet, but its folder may.
    match (out.parent().and_then(|folder| folder.canonicalize().ok()), out.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => out,
    }
}
