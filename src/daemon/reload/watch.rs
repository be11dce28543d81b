//! The watch for changed files: a look at intervals.
//!
//! A look compares the names, sizes, times and inodes of the files that pipelines depend on. Links are followed, so that it
//! finds an atomic rename, an editor's swap file and the exchange of a Kubernetes ConfigMap alike, on every file system. It
//! needs no notifications, which network file systems and some mounts do not send.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Reloader;
use crate::config::document::Format;
use crate::runtime::blocking;

/// The identity of a file's content: device, inode, size, and time of change in seconds and nanoseconds.
type Mark = (u64, u64, u64, i64, i64);

/// The files of a look, each with its mark.
type Marks = BTreeMap<PathBuf, Mark>;

/// Reloads when files change, and when `asked`, until `stop`. Without an interval, only when asked.
pub(crate) async fn watch(
    reloader: Arc<Reloader>,
    every: Option<Duration>,
    asked: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut loaded = look(&reloader).await;
    // A change counts once two looks in a row agree: a file may be half written.
    let mut seen = loaded.clone();
    loop {
        let pause = async {
            match every {
                Some(every) => tokio::time::sleep(every).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = asked.notified() => {
                loaded = look(&reloader).await;
                reloader.reload_unasked().await;
            }
            () = pause => {
                let now = look(&reloader).await;
                if now != loaded && now == seen {
                    loaded = now.clone();
                    reloader.reload_unasked().await;
                }
                seen = now;
            }
        }
    }
}

/// Returns the marks of all files that the pipelines depend on. A file that cannot be seen has none.
async fn look(reloader: &Reloader) -> Marks {
    let paths = reloader.paths.clone();
    let pipelines = reloader.registry.pipelines();
    let named: Vec<_> = pipelines.iter().flat_map(|pipeline| pipeline.defined().checked.files()).collect();
    let mut looking = blocking::start(move || {
        let found = paths.iter().flat_map(|path| candidates(path));
        found.chain(named).filter_map(|file| Some((mark(&file)?, file))).map(|(mark, file)| (file, mark)).collect()
    });
    looking.result().await.unwrap_or_default()
}

/// Returns the pipeline files and scripts at a path: the file itself, or those in the directory.
fn candidates(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let counts = |file: &PathBuf| Format::of(file).is_some() || file.extension().is_some_and(|ending| ending == "rhai");
    entries.filter(counts).collect()
}

fn mark(file: &Path) -> Option<Mark> {
    let found = std::fs::metadata(file).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}
