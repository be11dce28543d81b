//! Where something of ours may lie.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Pipelines;
use crate::connector::diagnosis::{Bounded, Finding, Severity};
use crate::connector::{file, json, sqlite};
use crate::spec::{Checkpoint, Loaded};

/// What every SQLite database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The files and folders to be looked at, each once.
pub(super) struct Places {
    pub(super) databases: BTreeSet<PathBuf>,
    /// Folders with a file for each checkpoint.
    pub(super) checkpoints: BTreeSet<PathBuf>,
}

impl Places {
    /// Those that pipelines name, those that they use without naming them, and databases of ours beside them.
    pub(super) fn of(data: &Path, pipelines: &[Loaded]) -> Self {
        let mut databases = BTreeSet::from([data.join(&*sqlite::CheckpointSettings::default().path)]);
        let mut checkpoints = BTreeSet::from([data.join(&*file::store::Settings::default().path)]);
        for loaded in pipelines {
            databases.extend(loaded.spec.sink.sqlite.as_ref().map(|sink| data.join(&*sink.path)));
            if let Checkpoint::Store(store) = &loaded.spec.checkpoint {
                databases.extend(store.sqlite.as_ref().map(|store| data.join(&*store.path)));
                checkpoints.extend(store.file.as_ref().map(|store| data.join(&*store.path)));
            }
        }
        for entry in fs::read_dir(data).into_iter().flatten().flatten() {
            let path = entry.path();
            if is_database(&path) && sqlite::inspect::is_ours(&path) {
                databases.insert(path);
            }
        }
        Self { databases: once(databases), checkpoints: once(checkpoints) }
    }
}

/// Numbers of files that were kept for pipelines that are no more.
pub(super) fn numbers_of_nobody(data: &Path, pipelines: &Pipelines) -> Vec<Finding> {
    let mut found = Bounded::default();
    if pipelines.unsure.is_some() {
        return Vec::new();
    }
    for entry in fs::read_dir(json::inspect::numbers_folder(data)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_known = pipelines
            .loaded
            .iter()
            .any(|loaded| loaded.spec.source.json.is_some() && *json::inspect::registry_name(loaded.group()) == *name);
        if !is_known {
            found.push(|| {
                let what = format!("file numbers are kept for `{}`, which is no pipeline that reads files", name.display());
                let means = "they are of use if it comes back, and harmless otherwise: the folder can be removed with its checkpoints";
                Finding::new(Severity::Note, &entry.path(), what, means)
            });
        }
    }
    found.finish()
}

fn is_database(path: &Path) -> bool {
    let mut first = [0; MAGIC.len()];
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == *MAGIC
}

/// Drops paths that lead to the same place as another.
fn once(paths: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut seen = BTreeSet::new();
    paths.into_iter().filter(|path| seen.insert(resolved(path))).collect()
}

/// Returns what a path leads to, as far as that exists.
pub(super) fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}
