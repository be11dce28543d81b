//! The repositories of progress in the data directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::connector::CheckpointSpec;
use crate::connector::stored::Repository;
use crate::spec::Definition;

/// Returns every repository of progress once: those that pipelines use, and those of each kind in the data directory that
/// no file names.
pub(super) fn repositories(data: &Path, pipelines: &[Definition]) -> Vec<Arc<dyn Repository>> {
    let unnamed = CheckpointSpec::defaults().into_iter().flat_map(|store| store.discover(data));
    let used = pipelines.iter().flat_map(|pipeline| {
        // A sink that could hold progress may hold that of another time.
        let sink = pipeline.sink.transactional().and_then(|sink| sink.repository(data));
        [pipeline.progress.repository(data), sink].into_iter().flatten()
    });
    let all: BTreeMap<PathBuf, _> = unnamed.chain(used).map(|found| (found.path().to_owned(), found)).collect();
    let mut once = BTreeMap::new();
    for (path, found) in all {
        once.entry(resolved(&path)).or_insert(found);
    }
    let mut once: Vec<_> = once.into_values().collect();
    once.sort_by(|a, b| a.path().cmp(b.path()));
    once
}

/// Returns the target of a path, as far as that exists.
pub(super) fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}
