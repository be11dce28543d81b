//! The reasons for which a pipeline is not rebuilt.

use std::path::{Component, Path, PathBuf};

use super::Refused;
use crate::config::document::Problem;
use crate::connector::kind::{StorePlace, Usage};
use crate::connector::prose::listed;
use crate::daemon::exchange::{context, own_files};
use crate::formats::words::io_error;
use crate::spec::{self, Definition, Progress};

/// The way without the command, which the page on rebuilding describes.
const BY_HAND: &str = "build the results under another `group` and another name, and let the readers switch over: \
    docs/src/how-to/rebuild.md";

/// Refuses a pipeline whose kinds cannot be rebuilt.
///
/// # Errors
/// The first reason.
pub(super) fn of_kind(definition: &Definition, data: &Path) -> Result<(), Problem> {
    let document = &definition.loaded.document;
    let (source, sink) = (&definition.source, &definition.sink);
    let Progress::Sink(transactional) = &definition.progress else {
        return Err(match sink.transactional() {
            Some(_) => {
                let why =
                    "a rebuild exchanges results and progress together, and this pipeline keeps its progress elsewhere";
                document.problem(&["checkpoint"], why).help(format!("write `checkpoint = \"sink\"`; or {BY_HAND}"))
            }
            None => {
                let why =
                    format!("a rebuild exchanges results and progress together, and a `{sink}` sink holds no progress");
                document.problem_of_key(&["sink", sink.key], why).help(BY_HAND)
            }
        });
    };
    if let Some(after) = definition.after() {
        let why = format!("a rebuild runs by itself, and this pipeline reads no further than the pipeline `{after}`");
        return Err(document.problem(&["after"], why).help(BY_HAND));
    }
    if !source.is_durable() {
        let why = "this source keeps no events, and a rebuild reads all of them again";
        return Err(document.problem_of_key(&["source", source.key], why));
    }
    let files = sink.own_files(&context(definition, data));
    if transactional.facts().place == StorePlace::Process || files.is_empty() {
        let why = format!("a `{sink}` sink has no files that a rebuild could exchange");
        return Err(document.problem_of_key(&["sink", sink.key], why).help(BY_HAND));
    }
    let is_inside =
        |file: &PathBuf| file.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !files.iter().all(is_inside) {
        let why = "a rebuild has a data directory of its own, and this path leads out of the data directory";
        return Err(document
            .problem(&["sink", sink.key, "path"], why)
            .help("write a path relative to the data directory"));
    }
    Ok(())
}

/// Refuses a pipeline whose files another pipeline uses: the exchange would take the results of that one away.
///
/// # Errors
/// Another pipeline uses one of the files, or a pipeline file is wrong, so that its pipeline might.
pub(super) fn of_sharing(definition: &Definition, files: &[PathBuf], data: &Path) -> Result<(), Vec<Problem>> {
    let own: Vec<_> = own_files(definition, data).iter().map(|file| resolved(&data.join(file))).collect();
    for file in files.iter().filter(|file| resolved(file) != resolved(definition.loaded.file())) {
        let other = spec::load_file(file).and_then(spec::define)?;
        let Some(shared) = written_files(&other, data).into_iter().find(|path| own.contains(&resolved(path))) else {
            continue;
        };
        let why = format!(
            "the pipeline `{}` uses `{}`, too: an exchange would take its results or its state away",
            other.name(),
            shared.display()
        );
        let problem = Problem::new(definition.loaded.file(), why);
        return Err(vec![problem.help("give each pipeline a `group` and a file of its own")]);
    }
    Ok(())
}

/// Returns the files that a pipeline keeps in the data directory.
fn written_files(definition: &Definition, data: &Path) -> Vec<PathBuf> {
    let mut named = definition.sink.files(definition.name());
    if let Progress::Store(store) = &definition.progress {
        named.extend(store.files(definition.name()));
    }
    let is_written = |usage| !matches!(usage, Usage::Input | Usage::Stdin);
    let named = named.into_iter().filter(|file| is_written(file.usage)).map(|file| PathBuf::from(file.path));
    // The components leave out a `.` of the setting.
    named.chain(own_files(definition, data)).map(|file| data.join(file).components().collect()).collect()
}

/// Returns the target of a path, as far as that exists.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

/// Refuses a feed that cannot bring the earlier events again.
///
/// # Errors
/// The feed is missing, or parts that were read are.
pub(super) fn of_feed(definition: &Definition, data: &Path, accepts_loss: bool) -> Result<(), Refused> {
    let inputs = definition.source.files(definition.name()).into_iter().filter(|file| file.usage == Usage::Input);
    for input in inputs {
        let feed = definition.loaded.directory().join(&input.path);
        let why = match feed.metadata() {
            Ok(found) if found.is_file() || found.is_dir() => continue,
            Ok(_) => "is a pipe, which keeps no events: the rebuilt results would lack the earlier ones".to_owned(),
            Err(error) => format!("cannot be read: {}", io_error(&error)),
        };
        return Err(Refused::Environment(anyhow::anyhow!("the feed `{}` {why}", feed.display())));
    }
    let vanished = definition.source.vanished(&context(definition, data));
    if vanished.is_empty() || accepts_loss {
        return Ok(());
    }
    Err(Refused::Failed(format!(
        "the feed lacks parts that were read earlier: {}. The rebuilt results would lack their events (restore them; or \
         accept the loss with `--yes`)",
        first_of(&vanished)
    )))
}

/// Refuses rebuilt results that lack tables of the present ones.
///
/// # Errors
/// Something is missing.
pub(super) fn of_missing(missing: &[String], definition: &Definition, rebuilt: &Path) -> Result<(), String> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the rebuilt results of `{}` in `{}` lack {}, and nothing was exchanged (create them in the pipeline's file and \
         run the command again; or accept the loss with `--yes`)",
        definition.name(),
        rebuilt.display(),
        first_of(missing)
    ))
}

/// The most names in a message.
const MAX_NAMED: usize = 10;

/// Lists the first names, and the number of the others.
fn first_of(names: &[String]) -> String {
    let mut shown: Vec<_> = names.iter().take(MAX_NAMED).cloned().collect();
    if names.len() > shown.len() {
        shown.push(format!("{} more", names.len() - shown.len()));
    }
    listed(&shown, "and")
}
