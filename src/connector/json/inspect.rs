//! Inspects the source's registries for `doctor`, and whether the source could resume at a position.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;

use super::log::Log;
use super::position::FilePosition;
use super::registry::{self, Registry};
use super::{OnReplaced, Options, Settings, tranches};
use crate::connector::Context;
use crate::connector::diagnosis::{Bounded, Diagnosis, Severity};
use crate::position::{Position, StartAt};

/// The longest line that is read of a registry.
const LONGEST: u64 = 64 * 1_024;

/// Returns the directory of the registries, with a directory in it for each group.
pub fn registries(data: &Path) -> PathBuf {
    data.join("json")
}

/// Returns the name of the directory of a group's registries.
pub fn registry_name(group: &str) -> String {
    // A group of dots alone would lead out of the directory.
    if group.bytes().all(|byte| byte == b'.') { group.replace('.', "%2E") } else { group.to_owned() }
}

/// Returns the reason why the source could not resume at a position (C2), if there is one. Reads no events and writes
/// nothing.
pub fn lost(settings: &Settings, context: &Context, tranche: &str, position: &Position) -> Option<String> {
    if settings.on_replaced == OnReplaced::Restart {
        return None;
    }
    let start = StartAt::Position(position.clone());
    // There is nothing to verify at the origin, and the bytes of a pipe cannot be read again.
    if FilePosition::of(&start).is_ok_and(|parsed| parsed.is_none_or(|parsed| parsed.pipe)) {
        return None;
    }
    // Settings that cannot be used are an error of `check`.
    let options = Arc::new(Options::new(settings, context, true).ok()?);
    let file = settings.tranche_per_file.then_some(tranche);
    let looked = Log::inspecting(options, file, &start).and_then(|mut log| log.look_for_loss());
    match looked {
        Ok(None) => None,
        Ok(Some(error)) | Err(error) => Some(format!("{:#}", anyhow::Error::new(error))),
    }
}

/// Returns the files of the feed that have a number and do not exist any more, in words. Reads names only: a file that was
/// rewritten in place is not among them.
pub fn vanished(settings: &Settings, context: &Context) -> Vec<String> {
    // Settings that cannot be used are an error of `check`, and a feed that cannot be read one of the run.
    let Ok(options) = Options::new(settings, context, true) else { return Vec::new() };
    let Ok(present) = tranches(&options) else { return Vec::new() };
    let mut vanished = BTreeSet::new();
    for entry in std::fs::read_dir(&options.registry.current).into_iter().flatten().flatten() {
        let Some(tranche) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let mut registry = Registry::new(options.registry.join(&tranche), None);
        registry.is_read_only = true;
        registry.identify(&options.path);
        // `doctor` reports a registry that cannot be read.
        let Ok(names) = registry.names() else { continue };
        for (name, had_another) in names {
            if !present.iter().any(|present| present == name) {
                vanished.insert(format!("the file `{name}`"));
            } else if had_another {
                vanished.insert(format!("the file `{name}` before it was replaced"));
            }
        }
    }
    vanished.into_iter().collect()
}

/// Reports the registries of groups that no longer exist.
pub fn leftovers(registries: &Path, is_owner: &dyn Fn(&str) -> bool) -> Vec<Diagnosis> {
    let mut found = Bounded::default();
    for entry in std::fs::read_dir(registries).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(is_owner) {
            continue;
        }
        found.push(|| {
            let what = format!("file numbers are kept for `{}`, which is no pipeline that reads files", name.display());
            let means =
                "they are needed if the pipeline comes back: remove the directory only together with its checkpoints";
            Diagnosis::new(Severity::Note, &entry.path(), what, means)
        });
    }
    found.finish()
}

/// Inspects the registries in a directory.
pub fn inspect(directory: &Path) -> Vec<Diagnosis> {
    let mut found = Bounded::default();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_file() {
            continue;
        }
        match read(&path) {
            Ok(Numbers::Intact) => {}
            Ok(Numbers::Truncated(line)) => found.push(|| truncated(&path, line)),
            Ok(Numbers::Corrupt(line)) => found.push(|| corrupt(&path, &format!("line {line} cannot be read"))),
            Ok(Numbers::Unordered(line)) => {
                found.push(|| corrupt(&path, &format!("the number in line {line} is not above those before it")))
            }
            Err(error) => found.push(|| corrupt(&path, &error.to_string())),
        }
    }
    found.finish()
}

/// The state of a registry; lines count from 1.
#[derive(Debug, PartialEq, Eq)]
enum Numbers {
    Intact,
    /// The last line has no end.
    Truncated(usize),
    Corrupt(usize),
    Unordered(usize),
}

fn read(path: &Path) -> io::Result<Numbers> {
    let mut lines = BufReader::new(File::open(path)?);
    let (mut line, mut number, mut last) = (Vec::new(), 0, HashMap::new());
    loop {
        line.clear();
        if lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(Numbers::Intact);
        }
        number += 1;
        let is_last = !line.ends_with(b"\n");
        match registry::parse_line(&line) {
            _ if line.trim_ascii().is_empty() => {}
            Ok(None) => {}
            Ok(Some((log, assigned))) => {
                if last.insert(log, assigned).is_some_and(|last| last >= assigned) {
                    return Ok(Numbers::Unordered(number));
                }
            }
            Err(_) if is_last && (line.len() as u64) < LONGEST => return Ok(Numbers::Truncated(number)),
            Err(_) => return Ok(Numbers::Corrupt(number)),
        }
    }
}

fn truncated(path: &Path, line: usize) -> Diagnosis {
    let means =
        "nothing is lost: no line of that file was read under its number yet, and the next number begins on a new line";
    Diagnosis::new(Severity::Note, path, format!("line {line}, the last one, is truncated"), means)
}

fn corrupt(path: &Path, why: &str) -> Diagnosis {
    let means = "a file may get a number that another one had, so that its lines are taken for handled ones";
    Diagnosis::new(Severity::Error, path, format!("the registry of the source's files is corrupt: {why}"), means)
        .operator("restore the file from a backup, or decide: `on_replaced = \"restart\"` in the pipeline's `[source.json]` reads files again")
}
