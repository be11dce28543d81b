//! Looking a folder of checkpoints over.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::document::{self, Document};
use crate::checkpoint::CheckpointKey;
use crate::connector::diagnosis::{Bounded, Finding, Remedy, Severity};
use crate::position::Position;

/// Larger files are none of ours: the set in one is bounded.
const LARGEST: u64 = 1 << 20;

/// A checkpoint that can be read.
#[derive(Clone, Debug)]
pub struct Kept {
    pub key: CheckpointKey,
    pub position: Option<Position>,
    /// When it was last committed to, RFC 3339.
    pub last_commit: Option<String>,
}

/// Looks a folder over, and calls `kept` with each checkpoint in it. `in_use`: somebody may be writing to it. `mend`:
/// remove what a write that did not come to its end left.
pub fn inspect(folder: &Path, in_use: bool, mend: bool, kept: &mut dyn FnMut(&Path, &Kept)) -> Vec<Finding> {
    let mut damaged = Bounded::default();
    let mut left = Bounded::default();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => match read(&path) {
                Ok(found) => kept(&path, &found),
                Err(error) => damaged.push(|| cannot_be_read(&path, &error)),
            },
            Some("tmp") if !in_use => left.push(|| unfinished(&path, mend)),
            _ => {}
        }
    }
    let mut findings = damaged.finish();
    findings.extend(left.finish());
    findings
}

fn read(path: &Path) -> anyhow::Result<Kept> {
    let mut text = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut text)?;
    anyhow::ensure!(text.len() as u64 <= LARGEST, "it is larger than a checkpoint can be");
    let document = Document::parse_any(&text)?;
    let key = document.key();
    let name = document::file_name(&key);
    anyhow::ensure!(path.file_name().is_some_and(|file| *file == *name), "it belongs to {key}, whose file is `{name}`");
    let position = document.progress().and_then(|progress| progress.position);
    Ok(Kept { key, position, last_commit: document.updated_at().map(str::to_owned) })
}

fn cannot_be_read(path: &Path, error: &anyhow::Error) -> Finding {
    let means = "its pipeline does not go on: it does not guess where it was";
    Finding::new(Severity::Error, path, format!("the checkpoint cannot be read: {error:#}"), means)
        .person("decide: restore the file from a backup, or remove it while no daemon uses it, which starts its pipeline at the origin")
}

fn unfinished(path: &Path, mend: bool) -> Finding {
    let means =
        "a commit did not come to its end; the checkpoint beside it is whole, and what was not committed comes again";
    let finding =
        Finding::new(Severity::Warning, path, "a file was left by a write that did not come to its end", means);
    if !mend {
        return finding.remedy(Remedy::Fix("removes it".to_owned()));
    }
    match fs::remove_file(path) {
        Ok(()) => finding.remedy(Remedy::Fixed("it was removed".to_owned())),
        Err(error) => finding.person(format!("it could not be removed: {error}")),
    }
}
