//! The files that a sink has open.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;

use super::appender::Appender;
use super::{Fsync, Settings};
use crate::formats::encode::Format;
use crate::handler::{HandlerError, HandlerErrorKind};

/// Why lines are not in their file.
#[derive(Debug)]
pub(super) struct FileError {
    kind: HandlerErrorKind,
    message: String,
}

impl FileError {
    fn new(doing: &str, path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            // Another try would have the same name. All else is for the machine's keeper to mend.
            io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => HandlerErrorKind::Permanent,
            _ => HandlerErrorKind::Unavailable,
        };
        Self { kind, message: format!("{doing} `{}`: {error}", path.display()) }
    }

    /// Nobody was there to do the work.
    pub(super) fn gave_up(why: &dyn Display) -> Self {
        Self { kind: HandlerErrorKind::Unavailable, message: format!("write files: {why}") }
    }

    pub(super) fn to_handler_error(&self) -> HandlerError {
        HandlerError::new(self.kind, self.message.as_str())
    }
}

/// Opens files as they are needed and closes those not used for longest. All of it blocks.
#[derive(Debug)]
pub(super) struct Files {
    open: HashMap<PathBuf, Open>,
    max_open: usize,
    format: Format,
    fsync: Fsync,
    writes: u64,
    /// What went wrong while nobody asked, to be told with the next write.
    untold: Option<FileError>,
}

#[derive(Debug)]
struct Open {
    appender: Appender,
    /// Something was written since it was last synced.
    dirty: bool,
    /// The number of the write that used it last.
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
            untold: None,
        }
    }

    /// Appends whole lines. After an error none of them is in the file, or the next write cuts off what is.
    pub(super) fn append(&mut self, path: &Path, lines: &[u8]) -> Result<(), FileError> {
        if let Some(error) = self.untold.take() {
            return Err(error);
        }
        self.leave_if_rotated(path)?;
        let sync = self.fsync == Fsync::Batch;
        let file = self.opened(path)?;
        file.dirty |= !sync;
        if let Err(error) = file.appender.append(lines, sync) {
            // Opened again, it is mended first.
            self.open.remove(path);
            return Err(FileError::new("append to", path, &error));
        }
        Ok(())
    }

    fn leave_if_rotated(&mut self, path: &Path) -> Result<(), FileError> {
        if self.open.get(path).is_some_and(|file| !file.appender.is_at(path)) {
            tracing::info!(path = %path.display(), "the file was moved away, a new one begins");
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
        let file = self.open.get_mut(path).expect("it was just put there");
        file.used = self.writes;
        Ok(file)
    }

    fn make_room(&mut self) -> Result<(), FileError> {
        while self.open.len() >= self.max_open {
            let oldest = self.open.iter().min_by_key(|(_, file)| file.used).map(|(path, _)| path.clone());
            self.leave(&oldest.expect("at least one may be open, and so many are"))?;
        }
        Ok(())
    }

    /// Makes durable what is not yet; what fails is told with the next write.
    pub(super) fn sync_at_interval(&mut self) {
        let dirty: Vec<_> = self.open.iter().filter(|(_, file)| file.dirty).map(|(path, _)| path.clone()).collect();
        for path in dirty {
            let file = self.open.get_mut(&path).expect("it was there just now");
            file.dirty = false;
            if let Err(error) = file.appender.sync() {
                let error = FileError::new("sync", &path, &error);
                tracing::warn!(error = error.message, "what was written may not be durable");
                self.open.remove(&path);
                self.untold = Some(error);
            }
        }
    }

    /// Makes durable what is not yet, and closes everything.
    pub(super) fn close(&mut self) -> Result<(), FileError> {
        let paths: Vec<_> = self.open.keys().cloned().collect();
        let mut closed = self.untold.take().map_or(Ok(()), Err);
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
