//! The progress that a local store holds, as `doctor` and `check` see it.

use std::path::{Path, PathBuf};

use super::diagnosis::Diagnosis;
use super::kind::Scope;
use crate::position::Position;

/// A file or directory that holds the progress of any number of pipelines.
pub trait Repository: Send + Sync {
    /// Returns the file or directory.
    fn path(&self) -> &Path;

    /// Inspects the repository, and repairs it if the scope asks for that.
    fn inspect(&self, scope: Scope) -> Vec<Diagnosis>;

    /// Returns the readable progress by group and source. Unreadable progress is a matter for [`inspect`](Self::inspect).
    fn kept(&self) -> Vec<Kept>;

    /// Calls `f` with each position that the progress under a group and source depends on, for the first `most` tranches:
    /// where reading resumes, and the end of the read that brought the last handled ordinal above.
    fn positions(&self, group: &str, source: &str, most: usize, f: &mut dyn FnMut(&str, &Position));
}

/// The progress under one group and source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub group: String,
    pub source: String,
    pub tranches: u64,
    /// One of the tranches.
    pub tranche: String,
    /// The time of the latest commit, RFC 3339. `None`: another program wrote the progress.
    pub last_commit: Option<String>,
    /// The file that holds it.
    pub path: PathBuf,
    /// The way to remove it by hand.
    pub removal: String,
}
