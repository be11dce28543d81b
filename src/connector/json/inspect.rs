//! Looking over what the source keeps, and whether it could go on from a position.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::Log;
use super::numbers::Numbered;
use super::{OnReplaced, Options, Settings};
use crate::connector::Context;
use crate::connector::diagnosis::{Bounded, Finding, Severity};
use crate::position::{Position, StartAt};

/// The longest line that is read of a file of numbers.
const LONGEST: u64 = 64 * 1_024;

/// Returns the folder in which the numbers of files are kept, one folder in it for each pipeline.
pub fn numbers_folder(data: &Path) -> PathBuf {
    data.join("json")
}

/// Returns why the source could not go on at a position (C2), if it could not. Reads no events, keeps no numbers.
pub fn lost(settings: &Settings, context: &Context, tranche: &str, position: &Position) -> Option<String> {
    if settings.on_replaced == OnReplaced::Restart {
        return None;
    }
    let start = StartAt::Position(position.clone());
    if super::place::Place::of(&start).is_ok_and(|place| place.is_none()) {
        return None;
    }
    let options = Arc::new(Options::new(settings, context, true));
    let file = settings.tranche_per_file.then_some(tranche);
    let looked = Log::new(options, file, &start).and_then(|mut log| log.look_for_loss());
    match looked {
        Ok(None) => None,
        Ok(Some(error)) | Err(error) => Some(format!("{:#}", anyhow::Error::new(error))),
    }
}

/// Reports the file numbers of pipelines that no longer exist.
pub fn leftovers(data: &Path, is_owner: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut found = Bounded::default();
    for entry in std::fs::read_dir(numbers_folder(data)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(is_owner) {
            continue;
        }
        found.push(|| {
            let what = format!("file numbers are kept for `{}`, which is no pipeline that reads files", name.display());
            let means =
                "they are of use if it comes back, and harmless otherwise: the folder can be removed with its checkpoints";
            Finding::new(Severity::Note, &entry.path(), what, means)
        });
    }
    found.finish()
}

/// Looks over the files of numbers of one pipeline.
pub fn inspect(folder: &Path) -> Vec<Finding> {
    let mut found = Bounded::default();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_file() {
            continue;
        }
        match read(&path) {
            Ok(Numbers::Whole) => {}
            Ok(Numbers::Torn(line)) => found.push(|| torn(&path, line)),
            Ok(Numbers::Damaged(line)) => found.push(|| damaged(&path, &format!("line {line} cannot be read"))),
            Ok(Numbers::Unordered(line)) => {
                found.push(|| damaged(&path, &format!("the number in line {line} is not above those before it")))
            }
            Err(error) => found.push(|| damaged(&path, &error.to_string())),
        }
    }
    found.finish()
}

/// What a file of numbers looks like; lines count from 1.
#[derive(Debug, PartialEq, Eq)]
enum Numbers {
    Whole,
    /// The last line has no end.
    Torn(usize),
    Damaged(usize),
    Unordered(usize),
}

fn read(path: &Path) -> io::Result<Numbers> {
    let mut lines = BufReader::new(File::open(path)?);
    let (mut line, mut number, mut last) = (Vec::new(), 0, None);
    loop {
        line.clear();
        if lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(Numbers::Whole);
        }
        number += 1;
        let is_last = !line.ends_with(b"\n");
        match serde_json::from_slice::<Numbered>(&line) {
            _ if line.trim_ascii().is_empty() => {}
            Ok(numbered) if last.is_none_or(|last| numbered.number > last) => last = Some(numbered.number),
            Ok(_) => return Ok(Numbers::Unordered(number)),
            Err(_) if is_last && (line.len() as u64) < LONGEST => return Ok(Numbers::Torn(number)),
            Err(_) => return Ok(Numbers::Damaged(number)),
        }
    }
}

fn torn(path: &Path, line: usize) -> Finding {
    let means =
        "nothing is lost: no line of that file was read under its number yet, and the next number begins on a new line";
    Finding::new(Severity::Note, path, format!("line {line}, the last one, is torn"), means)
}

fn damaged(path: &Path, why: &str) -> Finding {
    let means = "a file may get a number that another one had, so that its lines are taken for handled ones";
    Finding::new(Severity::Error, path, format!("the numbers of the source's files are damaged: {why}"), means)
        .person("restore the file from a backup, or decide: `on_replaced = \"restart\"` in the pipeline's `[source.json]` reads files again")
}
