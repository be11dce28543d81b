//! A checkpoint store in a format that people can read: a directory with one JSON file per key.
//!
//! A commit replaces a file as a whole: it writes a new file, syncs it, renames it, and syncs the directory. A file holds
//! the fence of its claim. A lock file keeps two processes from changing the directory at the same time, so that an older
//! claim cannot overwrite a newer one. The store holds neither write positions nor parked events, because every commit
//! would rewrite all of them.

mod document;
pub mod inspect;
mod kind;
mod log;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{
    CheckpointError, CheckpointErrorKind, CheckpointKey, CheckpointStore, Claimed, Commit, CommitOrder, Fence, Listed,
    LogEntry, MAX_SET_BYTES, Owner,
};
use crate::config::scalar::Text;
use crate::connector::Context;
use crate::position::Progress;
use crate::runtime::blocking;

use document::Document;

/// The longest wait for another process's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two attempts to lock. A file lock cannot wake a waiting task.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// `[checkpoint.file]`: progress in a directory, in one JSON file per tranche, which people can read.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "FileCheckpoint")]
pub struct Settings {
    /// The directory, within the data directory unless absolute.
    pub path: Text,
}

impl Default for Settings {
    fn default() -> Self {
        Self { path: Text::literal("checkpoints") }
    }
}

/// Keeps progress in a directory.
///
/// A commit that breaks the chain (C11) has an unknown outcome: the driver reads the key before it commits again.
#[derive(Debug)]
pub struct FileCheckpoints {
    directory: Arc<Path>,
    /// Held during a change, so that only the changes of other processes meet the lock file.
    changing: tokio::sync::Mutex<()>,
}

impl FileCheckpoints {
    /// Creates nothing yet. A directory that cannot be used fails the requests that need it.
    pub fn new(settings: &Settings, context: &Context) -> Self {
        Self { directory: context.output(&settings.path).into(), changing: tokio::sync::Mutex::default() }
    }

    /// Runs `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&Path) -> Result<T, CheckpointError> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let directory = Arc::clone(&self.directory);
        blocking::start(move || work(&directory)).result().await.unwrap_or_else(|error| {
            Err(CheckpointError::new(CheckpointErrorKind::OutcomeUnknown, doing).caused_by(error))
        })
    }

    /// Runs `work` while no other task or process changes the directory.
    async fn changing<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&Path) -> Result<T, CheckpointError> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let _changing = self.changing.lock().await;
        let lock = self.lock(&doing).await?;
        let work = move |directory: &Path| {
            // The work outlives a cancelled caller, and so must the lock.
            let _lock = lock;
            work(directory)
        };
        self.blocking(doing, work).await
    }

    async fn lock(&self, doing: &str) -> Result<File, CheckpointError> {
        let lock = self.blocking(doing.to_owned(), open_lock).await?;
        let mut waited = Duration::ZERO;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if waited < LOCK_TIMEOUT => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                    waited += LOCK_PAUSE;
                }
                Err(error) => {
                    let path = self.directory.join(LOCK);
                    let cause = match error {
                        TryLockError::WouldBlock => anyhow::anyhow!("another process holds `{}`", path.display()),
                        TryLockError::Error(error) => anyhow::Error::new(error).context(path.display().to_string()),
                    };
                    return Err(unavailable(doing, cause));
                }
            }
        }
    }

    fn doing(&self, what: &str, key: &CheckpointKey, preposition: &str) -> String {
        format!("cannot {what} {key} {preposition} `{}`", self.directory.display())
    }
}

#[async_trait]
impl CheckpointStore for FileCheckpoints {
    fn max_set_bytes(&self) -> Option<usize> {
        Some(MAX_SET_BYTES)
    }

    async fn load(&self, key: &CheckpointKey) -> Result<Option<Progress>, CheckpointError> {
        let (doing, wanted) = (self.doing("load", key, "from"), key.clone());
        let load = move |directory: &Path| Ok(read(directory, &wanted)?.and_then(|document| document.progress()));
        self.blocking(doing, load).await
    }

    async fn claim_all(&self, keys: &[CheckpointKey], owner: &Owner) -> Vec<Result<Claimed, CheckpointError>> {
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            let (doing, key, owner) = (self.doing("claim", key, "in"), key.clone(), owner.clone());
            let claim = move |directory: &Path| {
                let mut document = read(directory, &key)?.unwrap_or_else(|| Document::new(&key));
                let claimed = document.claim(&owner);
                write(directory, &key, &document).map(|()| claimed)
            };
            results.push(self.changing(doing, claim).await);
        }
        results
    }

    async fn commit(&self, commits: &[Commit<'_>]) -> Vec<Result<(), CheckpointError>> {
        let mut results = Vec::with_capacity(commits.len());
        for commit in commits {
            let doing = self.doing("commit", commit.key, "to");
            let (key, fence, sequence) = (commit.key.clone(), commit.fence, commit.sequence);
            let (named, progress) = (doing.clone(), commit.progress.clone());
            let store = move |directory: &Path| {
                let mut document = read(directory, &key)?.unwrap_or_else(|| Document::new(&key));
                match document.commit(&named, fence, sequence, &progress)? {
                    CommitOrder::Next => {
                        write(directory, &key, &document)?;
                        // Without its entry, the log is thinner, and nothing else.
                        if let Err(error) = log::note_commit(directory, &key, &progress) {
                            tracing::warn!(%error, %key, "the log of commits cannot be written");
                        }
                        Ok(())
                    }
                    CommitOrder::Repeat => Ok(()),
                }
            };
            results.push(self.changing(doing, store).await);
        }
        results
    }

    async fn last_commit(&self, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, CheckpointError> {
        let (doing, wanted) = (self.doing("look up", key, "in"), key.clone());
        let look = move |directory: &Path| Ok(read(directory, &wanted)?.map(|document| document.last_commit()));
        self.blocking(doing, look).await
    }

    async fn list(&self, group: &str, source: &str) -> Result<Vec<Listed>, CheckpointError> {
        let doing = format!("cannot list the progress of {group}/{source} in `{}`", self.directory.display());
        let (named, group, source) = (doing.clone(), group.to_owned(), source.to_owned());
        let list = move |directory: &Path| {
            let mut listed = Vec::new();
            for path in document_files(directory).map_err(|error| unavailable(&named, error.into()))? {
                let text = std::fs::read(&path).map_err(|error| unavailable(&named, error.into()))?;
                let document = Document::parse_any(&text).map_err(|cause| {
                    let doing = format!("cannot read `{}`", path.display());
                    CheckpointError::new(CheckpointErrorKind::Unreadable, doing).caused_by(cause)
                })?;
                listed
                    .extend(Some(document.listed()).filter(|of| *of.key.group == *group && *of.key.source == *source));
            }
            listed.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(listed)
        };
        self.blocking(doing, list).await
    }

    async fn set(&self, key: &CheckpointKey, fence: Fence, progress: Option<&Progress>) -> Result<(), CheckpointError> {
        let (doing, key, progress) = (self.doing("set", key, "in"), key.clone(), progress.cloned());
        let named = doing.clone();
        let set = move |directory: &Path| {
            let mut document = read(directory, &key)?.unwrap_or_else(|| Document::new(&key));
            let replaced = document.set_progress(&named, fence, progress.as_ref())?;
            // The entry comes first: a progress that is replaced without one could not be restored.
            log::note_replaced(directory, &key, replaced.as_ref())
                .map_err(|error| unavailable(&named, error.into()))?;
            write(directory, &key, &document)
        };
        self.changing(doing, set).await
    }

    async fn log(&self, key: &CheckpointKey) -> Result<Vec<LogEntry>, CheckpointError> {
        let (doing, key) = (self.doing("read the log of", key, "in"), key.clone());
        let named = doing.clone();
        self.blocking(doing, move |directory| {
            let mut entries = log::entries(directory, &key).map_err(|error| unavailable(&named, error.into()))?;
            entries.reverse();
            Ok(entries)
        })
        .await
    }

    async fn release(&self, key: &CheckpointKey, fence: Fence) -> Result<(), CheckpointError> {
        let (doing, key) = (self.doing("release", key, "in"), key.clone());
        let named = doing.clone();
        let release = move |directory: &Path| {
            let mut document = read(directory, &key)?.unwrap_or_else(|| Document::new(&key));
            document.release(&named, fence)?;
            write(directory, &key, &document)
        };
        self.changing(doing, release).await
    }
}

const LOCK: &str = ".lock";

/// Returns the files of keys in a directory; none if it does not exist yet.
fn document_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let files: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    Ok(files?.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect())
}

fn open_lock(directory: &Path) -> Result<File, CheckpointError> {
    let open = || -> anyhow::Result<File> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create the directory `{}`", directory.display()))?;
        let path = directory.join(LOCK);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        options.open(&path).with_context(|| format!("cannot open `{}`", path.display()))
    };
    open().map_err(|cause| unavailable(&format!("cannot lock `{}`", directory.display()), cause))
}

fn read(directory: &Path, key: &CheckpointKey) -> Result<Option<Document>, CheckpointError> {
    let path = directory.join(document::file_name(key));
    let doing = || format!("cannot read `{}`", path.display());
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unavailable(&doing(), error.into())),
    };
    Document::parse(&text, key)
        .map(Some)
        .map_err(|cause| CheckpointError::new(CheckpointErrorKind::Unreadable, doing()).caused_by(cause))
}

fn write(directory: &Path, key: &CheckpointKey, document: &Document) -> Result<(), CheckpointError> {
    let path = directory.join(document::file_name(key));
    let beside = path.with_extension("tmp");
    let doing = format!("cannot write `{}`", path.display());
    let text = document.render().map_err(|error| unavailable(&doing, error.into()))?;
    write_durably(&beside, &text).map_err(|error| unavailable(&doing, error.into()))?;
    // After the rename a reader, or a recovery from a power failure, may find the new file (C11).
    std::fs::rename(&beside, &path)
        .and_then(|()| sync_directory(directory))
        .map_err(|error| CheckpointError::new(CheckpointErrorKind::OutcomeUnknown, doing).caused_by(error))
}

fn write_durably(path: &PathBuf, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_folder: &Path) -> io::Result<()> {
    Ok(())
}

fn unavailable(doing: &str, cause: anyhow::Error) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::Unavailable, doing).caused_by(cause)
}
