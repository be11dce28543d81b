//! The directories of rebuilds, which hold whole databases.

use std::path::Path;

use indicatif::HumanBytes;

use crate::connector::diagnosis::{Bounded, Diagnosis, Severity};
use crate::daemon::exchange::{Workspace, disk_usage};

/// Reports what rebuilds have left in the data directory.
pub(super) fn inspect(data: &Path) -> Vec<Diagnosis> {
    let mut found = Bounded::default();
    for (pipeline, workspace) in Workspace::all(data) {
        match workspace.interrupted() {
            Ok(None) => {}
            Ok(Some(_)) => found.push(|| interrupted(&pipeline, workspace.root())),
            Err(error) => found.push(|| unreadable(&pipeline, workspace.root(), &error)),
        }
        let (rebuilt, former) = (workspace.rebuilt(), workspace.former());
        if rebuilt.is_dir() {
            found.push(|| {
                let what = format!("a rebuild of `{pipeline}` was not finished, or undone; it holds {}", HumanBytes(disk_usage(&rebuilt)));
                let means = format!(
                    "`propulsiond rebuild {pipeline}` resumes or discards it; if none is under way, the directory can be deleted"
                );
                Diagnosis::new(Severity::Note, &rebuilt, what, means)
            });
        }
        if former.is_dir() {
            found.push(|| {
                let what = format!(
                    "the files before the rebuild of `{pipeline}` are kept; they hold {}",
                    HumanBytes(disk_usage(&former))
                );
                let means =
                    format!("`propulsiond rebuild {pipeline} --undo` returns to them; the directory can be deleted");
                Diagnosis::new(Severity::Note, &former, what, means)
            });
        }
    }
    found.finish()
}

fn interrupted(pipeline: &str, root: &Path) -> Diagnosis {
    let what = format!("the exchange of the files of `{pipeline}` for those of a rebuild was interrupted");
    let means = "some of its files are of the rebuild already, and the others are not";
    let remedy = format!("start the daemon, or run `propulsiond rebuild {pipeline}`: both complete the exchange first");
    Diagnosis::new(Severity::Warning, root, what, means).operator(remedy)
}

fn unreadable(pipeline: &str, root: &Path, error: &anyhow::Error) -> Diagnosis {
    let what = format!("it is unknown whether an exchange of the files of `{pipeline}` was interrupted: {error:#}");
    let means = "the daemon does not start with this pipeline";
    Diagnosis::new(Severity::Error, root, what, means).operator(
        "restore the access to the file; if it is corrupt, write `new` or `old` into it, the directory to use",
    )
}
