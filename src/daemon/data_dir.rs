//! The data directory: created if it is missing, and locked by one daemon at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use crate::formats::words::io_error;

/// A data directory that no other process may use during this value's life.
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// The locked file. It stays when its holder ends: only the lock on it counts.
const LOCK: &str = "propulsiond.lock";

/// Returns the holder of the directory, as in `process 17`. Creates nothing, and releases its own lock at once.
///
/// # Errors
/// The lock file cannot be opened or locked.
pub(crate) fn holder(path: &Path) -> io::Result<Option<String>> {
    let mut lock = match File::open(path.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(written_holder(&mut lock))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn written_holder(lock: &mut File) -> String {
    let mut holder = String::new();
    // The number is only a hint for the message: the holder may be writing it, or be an older program.
    let _read = lock.take(64).read_to_string(&mut holder);
    match holder.trim() {
        "" => "another process".to_owned(),
        id => format!("process {id}"),
    }
}

impl DataDir {
    /// Locks the directory, and creates it if it is missing.
    ///
    /// # Errors
    /// The directory cannot be created or written to, or another process holds it.
    pub(crate) fn lock(path: &Path) -> anyhow::Result<Self> {
        if path.exists() && !path.is_dir() {
            bail!("the data directory `{}` is a file (set `data_dir` to a directory)", path.display());
        }
        std::fs::create_dir_all(path)
            .map_err(|error| anyhow!("cannot create the data directory `{}`: {}", path.display(), io_error(&error)))?;
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK)).map_err(
                |error| anyhow!("cannot write to the data directory `{}`: {}", path.display(), io_error(&error)),
            )?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = written_holder(&mut lock);
                bail!("the data directory `{}` is in use by another propulsiond ({holder})", path.display());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock the data directory `{}`", path.display()));
            }
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .with_context(|| format!("cannot write to the data directory `{}`", path.display()))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Checks that the directory can be written to. Leaves nothing behind.
///
/// # Errors
/// A file cannot be created, written or removed.
pub(crate) fn try_writing(path: &Path) -> io::Result<()> {
    let probe = path.join(format!(".propulsiond-probe-{}", std::process::id()));
    File::create_new(&probe)?.write_all(b"?")?;
    std::fs::remove_file(probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_directory_is_known_while_it_holds_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        assert_eq!(holder(&path).unwrap(), None, "the directory is missing");
        let directory = DataDir::lock(&path).unwrap();
        let process = format!("process {}", std::process::id());
        assert_eq!(holder(&path).unwrap(), Some(process.clone()));
        let Err(error) = DataDir::lock(&path) else { panic!("locked twice") };
        assert!(error.to_string().ends_with(&format!("is in use by another propulsiond ({process})")), "{error}");
        drop(directory);
        assert_eq!(holder(&path).unwrap(), None, "the remaining file means nothing");
    }

    #[test]
    fn a_write_probe_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        try_writing(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(try_writing(&directory.path().join("missing")).is_err());
    }
}
