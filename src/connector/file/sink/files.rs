//! The open files of a sink.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;

use super::appender::Appender;
use super::{Fsync, Settings};
use crate::formats::encode::Format;
use crate::handler::{HandlerError, HandlerErrorKind};

/// The failure of an operation on a file.
#[derive(Debug)]
pub(super) struct FileError {
    kind: HandlerErrorKind,
    message: String,
}

impl FileError {
    fn new(doing: &str, path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            // A retry would have the same name. The operator can correct all other causes.
            io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => HandlerErrorKind::Permanent,
            _ => HandlerErrorKind::Unavailable,
        };
        Self { kind, message: format!("{doing} `{}`: {error}", path.display()) }
    }

    /// The thread for blocking work panicked or was not there.
    pub(super) fn no_thread(why: &dyn Display) -> Self {
        Self { kind: HandlerErrorKind::Unavailable, message: format!("write files: {why}") }
    }

    pub(super) fn to_handler_error(&self) -> HandlerError {
        HandlerError::new(self.kind, self.message.as_str())
    }
}

/// Opens files on demand and closes the least recently used ones. All methods block.
#[derive(Debug)]
pub(super) struct Files {
    open: HashMap<PathBuf, Open>,
    max_open: usize,
    format: Format,
    fsync: Fsync,
    writes: u64,
    /// A failure between two writes, which the next write reports.
    unreported: Option<FileError>,
}

/// An open file.
#[derive(Debug)]
struct Open {
    appender: Appender,
    /// Whether it holds writes that are not synced.
    dirty: bool,
    /// The number of its last write.
    used: u64,
}

impl Files {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            open: HashMap::new(),
            max_open: settings.max_open.get(),
            format: settings.format,
            fsync: settings.fsync,
            writes: 0,
            unreported: None,
        }
    }

    /// Appends whole lines. After an error the file holds none of them, or the next write cuts them off.
    pub(super) fn append(&mut self, path: &Path, lines: &[u8]) -> Result<(), FileError> {
        if let Some(error) = self.unreported.take() {
            return Err(error);
        }
        self.leave_if_rotated(path)?;
        let sync = self.fsync == Fsync::Batch;
        let file = self.opened(path)?;
        file.dirty |= !sync;
        if let Err(error) = file.appender.append(lines, sync) {
            // Opening the file again repairs its end.
            self.open.remove(path);
            return Err(FileError::new("append to", path, &error));
        }
        Ok(())
    }

    fn leave_if_rotated(&mut self, path: &Path) -> Result<(), FileError> {
        if self.open.get(path).is_some_and(|file| !file.appender.is_at(path)) {
            tracing::info!(path = %path.display(), "the file was renamed or removed, a new one begins");
            self.leave(path)?;
        }
        Ok(())
    }

    fn leave(&mut self, path: &Path) -> Result<(), FileError> {
        match self.open.remove(path) {
            Some(file) if file.dirty && self.fsync != Fsync::Never => {
                file.appender.sync().map_err(|error| FileError::new("sync", path, &error))
            }
            _ => Ok(()),
        }
    }

    fn opened(&mut self, path: &Path) -> Result<&mut Open, FileError> {
        self.writes += 1;
        if !self.open.contains_key(path) {
            self.make_room()?;
            let appender = Appender::open(path, self.format, self.fsync != Fsync::Never)
                .map_err(|error| FileError::new("open", path, &error))?;
            self.open.insert(path.to_owned(), Open { appender, dirty: false, used: 0 });
        }
        let file = self.open.get_mut(path).expect("the file was inserted above");
        file.used = self.writes;
        Ok(file)
    }

    fn make_room(&mut self) -> Result<(), FileError> {
        while self.open.len() >= self.max_open {
            let oldest = self.open.iter().min_by_key(|(_, file)| file.used).map(|(path, _)| path.clone());
            self.leave(&oldest.expect("`max_open` is at least 1, and that many files are open"))?;
        }
        Ok(())
    }

    /// Syncs all dirty files. The next write reports a failure.
    pub(super) fn sync_at_interval(&mut self) {
        let dirty: Vec<_> = self.open.iter().filter(|(_, file)| file.dirty).map(|(path, _)| path.clone()).collect();
        for path in dirty {
            let file = self.open.get_mut(&path).expect("the path comes from this map");
            file.dirty = false;
            if let Err(error) = file.appender.sync() {
                let error = FileError::new("sync", &path, &error);
                tracing::warn!(error = error.message, "sync failed, recent lines may not be durable");
                // After a failed sync the kernel may report later ones as successful, so the file is opened anew.
                self.open.remove(&path);
                self.unreported = Some(error);
            }
        }
    }

    /// Syncs and closes all files.
    pub(super) fn close(&mut self) -> Result<(), FileError> {
        let paths: Vec<_> = self.open.keys().cloned().collect();
        let mut closed = self.unreported.take().map_or(Ok(()), Err);
        for path in paths {
            closed = closed.and(self.leave(&path));
        }
        closed
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    #[cfg(test)]
    pub(super) fn is_dirty(&self) -> bool {
        self.open.values().any(|file| file.dirty)
    }
}
