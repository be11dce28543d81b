//! The data folder: made if it is not there, and held by one daemon at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use crate::formats::words::io_error;

/// A data folder that nobody else may use while this lives.
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// The file that is locked. It stays when its holder ends: only the lock on it counts.
const LOCK: &str = "propulsiond.lock";

/// Returns who holds the folder, as far as that is known: `process 17`. Makes nothing, and holds the lock for as long as
/// it takes to look.
///
/// # Errors
/// The lock cannot be looked at.
pub fn holder(path: &Path) -> io::Result<Option<String>> {
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

/// Only a hint: what cannot be read is left out.
fn written_holder(lock: &mut File) -> String {
    let mut holder = String::new();
    let _read = lock.take(64).read_to_string(&mut holder);
    match holder.trim() {
        "" => "another process".to_owned(),
        id => format!("process {id}"),
    }
}

impl DataFolder {
    /// Takes the folder, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made or written to, or somebody holds it.
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        if path.exists() && !path.is_dir() {
            bail!("the data folder `{}` is a file (set `data_dir` to a folder)", path.display());
        }
        std::fs::create_dir_all(path)
            .map_err(|error| anyhow!("cannot make the data folder `{}`: {}", path.display(), io_error(&error)))?;
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK)).map_err(
                |error| anyhow!("the data folder `{}` cannot be written to: {}", path.display(), io_error(&error)),
            )?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = written_holder(&mut lock);
                bail!("the data folder `{}` is in use by another propulsiond ({holder})", path.display());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock the data folder `{}`", path.display()));
            }
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .with_context(|| format!("the data folder `{}` cannot be written to", path.display()))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Tries whether the folder can be written to. Leaves nothing behind.
///
/// # Errors
/// It cannot.
pub fn try_writing(path: &Path) -> io::Result<()> {
    let probe = path.join(format!(".propulsiond-probe-{}", std::process::id()));
    File::create_new(&probe)?.write_all(b"?")?;
    std::fs::remove_file(probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_folder_is_known_while_it_is_held() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        assert_eq!(holder(&path).unwrap(), None, "it is not there");
        let folder = DataFolder::take(&path).unwrap();
        let process = format!("process {}", std::process::id());
        assert_eq!(holder(&path).unwrap(), Some(process.clone()));
        let Err(error) = DataFolder::take(&path) else { panic!("taken twice") };
        assert!(error.to_string().ends_with(&format!("is in use by another propulsiond ({process})")), "{error}");
        drop(folder);
        assert_eq!(holder(&path).unwrap(), None, "the file that is left means nothing");
    }

    #[test]
    fn trying_to_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        try_writing(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(try_writing(&folder.path().join("missing")).is_err());
    }
}
