//! Inspects a directory of checkpoints.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::document::{self, Document};
use crate::checkpoint::CheckpointKey;
use crate::connector::diagnosis::{Bounded, Diagnosis, Remedy, Severity};
use crate::position::Position;

/// The size above which a file is no checkpoint, because its set is bounded.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A readable checkpoint.
#[derive(Clone, Debug)]
pub struct Kept {
    pub key: CheckpointKey,
    /// The positions that it depends on: where reading resumes, and the end of the read that brought the last handled ordinal.
    pub positions: Vec<Position>,
    /// The time of the last commit, RFC 3339.
    pub last_commit: Option<String>,
}

/// Inspects a directory, and calls `kept` with each checkpoint in it. `in_use`: a daemon may be writing to it.
/// `repair`: deletes the files that incomplete writes left.
pub fn inspect(directory: &Path, in_use: bool, repair: bool, kept: &mut dyn FnMut(&Path, &Kept)) -> Vec<Diagnosis> {
    let mut damaged = Bounded::default();
    let mut left = Bounded::default();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => match read(&path) {
                Ok(found) => kept(&path, &found),
                Err(error) => damaged.push(|| cannot_be_read(&path, &error)),
            },
            Some("tmp") if !in_use => left.push(|| unfinished(&path, repair)),
            _ => {}
        }
    }
    let mut diagnoses = damaged.finish();
    diagnoses.extend(left.finish());
    diagnoses
}

fn read(path: &Path) -> anyhow::Result<Kept> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    anyhow::ensure!(text.len() as u64 <= MAX_FILE_BYTES, "it is larger than a checkpoint can be");
    let document = Document::parse_any(&text)?;
    let key = document.key();
    let name = document::file_name(&key);
    anyhow::ensure!(path.file_name().is_some_and(|file| *file == *name), "it belongs to {key}, whose file is `{name}`");
    let positions = document.progress().map(|progress| [progress.position, progress.read_to]);
    let positions = positions.into_iter().flatten().flatten().collect();
    Ok(Kept { key, positions, last_commit: document.updated_at().map(str::to_owned) })
}

fn cannot_be_read(path: &Path, error: &anyhow::Error) -> Diagnosis {
    let means = "its pipeline does not run, because it cannot know its position";
    Diagnosis::new(Severity::Error, path, format!("the checkpoint cannot be read: {error:#}"), means).operator(
        "decide: restore the file from a backup, or delete it while no daemon uses it, which starts its pipeline at the \
         origin",
    )
}

fn unfinished(path: &Path, repair: bool) -> Diagnosis {
    let means = "a commit was interrupted; the checkpoint beside it is whole, and uncommitted events are redelivered";
    let diagnosis = Diagnosis::new(Severity::Warning, path, "an interrupted write left this file", means);
    if !repair {
        return diagnosis.remedy(Remedy::Fix("deletes it".to_owned()));
    }
    match fs::remove_file(path) {
        Ok(()) => diagnosis.remedy(Remedy::Fixed("it was deleted".to_owned())),
        Err(error) => diagnosis.operator(format!("it could not be deleted: {error}")),
    }
}
