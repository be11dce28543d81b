//! A checkpoint store that people can read: a folder with one JSON file per key.
//!
//! A file is replaced as a whole: written beside, made durable, renamed, and the folder made durable. A claim's number
//! stands in the file, and a lock file keeps two processes from changing the same folder at the same time, so that an
//! older claim cannot overwrite a newer one. Write positions and parked events are not kept: each would make every
//! commit rewrite all of them.

mod document;
pub mod inspect;
mod kind;

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
    CheckpointError, CheckpointErrorKind, CheckpointKey, CheckpointStore, Claimed, Commit, Fence, Owner,
};
use crate::config::scalar::Text;
use crate::connector::Context;
use crate::position::Progress;

use document::{Document, Step};

/// How large an encoded set may be (C14).
const MAX_SET_BYTES: usize = 64 * 1_024;
/// How long to wait for another process's change, and how often to look.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// `[checkpoint.file]`: progress in a folder, a JSON file for each tranche, that people can read.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "FileCheckpoint")]
pub struct Settings {
    /// The folder, in the data directory unless absolute.
    pub path: Text,
}

impl Default for Settings {
    fn default() -> Self {
        Self { path: Text::literal("checkpoints") }
    }
}

/// Keeps progress in a folder.
///
/// A break in the chain of commits (C11) is reported as an unknown outcome: the key is to be read before it goes on.
#[derive(Debug)]
pub struct FileCheckpoints {
    folder: Arc<Path>,
    /// Held while something changes, so that only other processes have to be waited for by looking again.
    changing: tokio::sync::Mutex<()>,
}

impl FileCheckpoints {
    /// Makes nothing yet; what is wrong with the folder fails the requests that need it.
    pub fn new(settings: &Settings, context: &Context) -> Self {
        Self { folder: context.output(&settings.path).into(), changing: tokio::sync::Mutex::default() }
    }

    /// Runs `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&Path) -> Result<T, CheckpointError> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let folder = Arc::clone(&self.folder);
        tokio::task::spawn_blocking(move || work(&folder)).await.unwrap_or_else(|error| {
            Err(CheckpointError::new(CheckpointErrorKind::OutcomeUnknown, doing).caused_by(error))
        })
    }

    /// Runs `work` while nobody else, in this process or another, changes the folder.
    async fn changing<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&Path) -> Result<T, CheckpointError> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let _changing = self.changing.lock().await;
        let lock = self.lock(&doing).await?;
        let work = move |folder: &Path| {
            // Held until the work has ended, also if nobody waits for it any more.
            let _lock = lock;
            work(folder)
        };
        self.blocking(doing, work).await
    }

    async fn lock(&self, doing: &str) -> Result<File, CheckpointError> {
        let lock = self.blocking(doing.to_owned(), open_lock).await?;
        let mut waited = Duration::ZERO;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if waited < PATIENCE => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    waited += LOOK_AGAIN;
                }
                Err(error) => {
                    let path = self.folder.join(LOCK);
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
        format!("cannot {what} {key} {preposition} `{}`", self.folder.display())
    }
}

#[async_trait]
impl CheckpointStore for FileCheckpoints {
    fn max_set_bytes(&self) -> Option<usize> {
        Some(MAX_SET_BYTES)
    }

    async fn load(&self, key: &CheckpointKey) -> Result<Option<Progress>, CheckpointError> {
        let (doing, wanted) = (self.doing("load", key, "from"), key.clone());
        let load = move |folder: &Path| Ok(read(folder, &wanted)?.and_then(|document| document.progress()));
        self.blocking(doing, load).await
    }

    async fn claim_all(&self, keys: &[CheckpointKey], owner: &Owner) -> Vec<Result<Claimed, CheckpointError>> {
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            let (doing, key, owner) = (self.doing("claim", key, "in"), key.clone(), owner.clone());
            let claim = move |folder: &Path| {
                let mut document = read(folder, &key)?.unwrap_or_else(|| Document::new(&key));
                let claimed = document.claim(&owner);
                write(folder, &key, &document).map(|()| claimed)
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
            let store = move |folder: &Path| {
                let mut document = read(folder, &key)?.unwrap_or_else(|| Document::new(&key));
                match document.commit(&named, fence, sequence, &progress)? {
                    Step::Next => write(folder, &key, &document),
                    Step::Repeat => Ok(()),
                }
            };
            results.push(self.changing(doing, store).await);
        }
        results
    }

    async fn last_commit(&self, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, CheckpointError> {
        let (doing, wanted) = (self.doing("look up", key, "in"), key.clone());
        let look = move |folder: &Path| Ok(read(folder, &wanted)?.map(|document| document.last_commit()));
        self.blocking(doing, look).await
    }

    async fn release(&self, key: &CheckpointKey, fence: Fence) -> Result<(), CheckpointError> {
        let (doing, key) = (self.doing("release", key, "in"), key.clone());
        let named = doing.clone();
        let release = move |folder: &Path| {
            let mut document = read(folder, &key)?.unwrap_or_else(|| Document::new(&key));
            document.release(&named, fence)?;
            write(folder, &key, &document)
        };
        self.changing(doing, release).await
    }
}

const LOCK: &str = ".lock";

fn open_lock(folder: &Path) -> Result<File, CheckpointError> {
    let open = || -> anyhow::Result<File> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        let path = folder.join(LOCK);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        options.open(&path).with_context(|| format!("cannot open `{}`", path.display()))
    };
    open().map_err(|cause| unavailable(&format!("cannot lock `{}`", folder.display()), cause))
}

fn read(folder: &Path, key: &CheckpointKey) -> Result<Option<Document>, CheckpointError> {
    let path = folder.join(document::file_name(key));
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

fn write(folder: &Path, key: &CheckpointKey, document: &Document) -> Result<(), CheckpointError> {
    let path = folder.join(document::file_name(key));
    let beside = path.with_extension("tmp");
    let doing = format!("cannot write `{}`", path.display());
    let text = document.render().map_err(|error| unavailable(&doing, error.into()))?;
    write_durably(&beside, &text).map_err(|error| unavailable(&doing, error.into()))?;
    // From here on the new one may be what a reader finds, now or after the power was lost.
    std::fs::rename(&beside, &path)
        .and_then(|()| sync_folder(folder))
        .map_err(|error| CheckpointError::new(CheckpointErrorKind::OutcomeUnknown, doing).caused_by(error))
}

fn write_durably(path: &PathBuf, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

fn unavailable(doing: &str, cause: anyhow::Error) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::Unavailable, doing).caused_by(cause)
}
