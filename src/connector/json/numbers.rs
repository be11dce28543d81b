//! The numbers of files, kept in the data directory.
//!
//! A position cannot tell all of them. What is handled ahead of it may lie in files that were not there when it was made:
//! were one of those deleted before a restart, the next file would get its number, and what is covered of the one would
//! be taken for the other (C1). So a number is written down, durably, before the first line under it is read.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

#[derive(Debug)]
pub(super) struct Numbers {
    path: PathBuf,
    /// `None` until the first number is needed.
    known: Option<Vec<Numbered>>,
}

/// A file that has a number: one line of what is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Numbered {
    pub(super) number: u64,
    file: String,
    inode: u64,
    /// When the file was made, in milliseconds, where the file system knows: inodes are used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born: Option<u64>,
}

impl Numbers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, known: None }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Returns the number under which a file is read behind number `after`: the one it has, else a new one.
    pub(super) fn known_or_new(&mut self, file: &str, metadata: &Metadata, after: Option<u64>) -> io::Result<u64> {
        let wanted = Numbered::of(file, metadata, 0);
        let known = self.load()?.iter().filter(|known| after.is_none_or(|after| known.number > after));
        let same = known.filter(|known| Numbered { number: 0, ..(*known).clone() } == wanted);
        match same.map(|known| known.number).min() {
            Some(number) => Ok(number),
            None => self.new_number(file, metadata, after),
        }
    }

    /// Gives a file a number that no file ever had.
    pub(super) fn new_number(&mut self, file: &str, metadata: &Metadata, after: Option<u64>) -> io::Result<u64> {
        let last = self.load()?.iter().map(|known| known.number).max().max(after);
        let numbered = Numbered::of(file, metadata, last.map_or(0, |last| last + 1));
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut line = serde_json::to_vec(&numbered)?;
        // A newline on both sides, should an earlier line have been cut.
        line.insert(0, b'\n');
        line.push(b'\n');
        let mut kept = File::options().append(true).create(true).open(&self.path)?;
        kept.write_all(&line)?;
        kept.sync_data()?;
        let number = numbered.number;
        self.known.get_or_insert_default().push(numbered);
        Ok(number)
    }

    fn load(&mut self) -> io::Result<&[Numbered]> {
        if self.known.is_none() {
            let text = match fs::read_to_string(&self.path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error),
            };
            // A line that was cut is that of a file nothing was read of yet.
            self.known = Some(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect());
        }
        Ok(self.known.as_deref().unwrap_or_default())
    }
}

impl Numbered {
    fn of(file: &str, metadata: &Metadata, number: u64) -> Self {
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| u64::try_from(since.as_millis()).ok());
        Self { number, file: file.to_owned(), inode: metadata.ino(), born }
    }
}
