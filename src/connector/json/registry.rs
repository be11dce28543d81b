//! The registry of a log's files: their numbers, and the state in which the reader left them.
//!
//! It is an append-only file in the data directory, under the group, as the progress is. Each line names its log by the
//! path of the feed, as two pipelines of a group may have different feeds.
//!
//! Events ahead of the position may be handled in files that the position cannot name. If such a file were deleted before a
//! restart, the next file would get its number, and the stored set would cover lines that no handler has seen (C1). The
//! registry therefore stores a number durably before the first line under it is read. A copy of a file gets the number of
//! its original once the files were compared up to the last handled line.
//!
//! If the registry is lost, new numbers begin above every number that the stored set knows, and the position's digest
//! tells whether the earlier files are still the same.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::position::LeftFile;
use super::proof::Hash;

/// The path of a registry, and its path in earlier versions of the daemon.
#[derive(Clone, Debug)]
pub(super) struct RegistryPath {
    pub(super) current: PathBuf,
    pub(super) legacy: PathBuf,
}

#[derive(Debug)]
pub(super) struct Registry {
    path: RegistryPath,
    /// The highest number that the stored set may cover.
    floor: Option<u64>,
    /// The hash of the feed's path.
    log: Option<Hash>,
    /// Nothing is written: the log is only inspected, or read apart from the running pipeline.
    pub(super) is_read_only: bool,
    /// `None` until the first use.
    records: Option<Records>,
}

/// The content of a registry.
#[derive(Debug, Default)]
struct Records {
    by_name: HashMap<String, Vec<Numbered>>,
    left: BTreeMap<u64, Vec<LeftFile>>,
    last: Option<u64>,
}

/// A line of the registry: a file got a number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Numbered {
    pub(super) number: u64,
    /// Absent in lines that an earlier version wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<Hash>,
    file: String,
    inode: u64,
    /// The file's time of birth in milliseconds, if the file system knows it: inodes are reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born: Option<u64>,
}

/// A line of the registry: the reader left the file of a number.
#[derive(Debug, Deserialize, Serialize)]
struct Left {
    left: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<Hash>,
    state: LeftFile,
}

/// Any line of the registry.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Record {
    Numbered(Numbered),
    Left(Left),
}

impl Record {
    fn log(&self) -> Option<Hash> {
        match self {
            Self::Numbered(numbered) => numbered.log,
            Self::Left(left) => left.log,
        }
    }
}

/// Parses a line into its log and the number that it assigns, if it assigns one.
pub(super) fn parse_line(line: &[u8]) -> serde_json::Result<Option<(Option<Hash>, u64)>> {
    Ok(match serde_json::from_slice(line)? {
        Record::Numbered(numbered) => Some((numbered.log, numbered.number)),
        Record::Left(_) => None,
    })
}

impl RegistryPath {
    /// Returns the path of a tranche's registry in these directories.
    pub(super) fn join(&self, tranche: &str) -> Self {
        Self { current: self.current.join(tranche), legacy: self.legacy.join(tranche) }
    }
}

impl Registry {
    /// Returns the registry at a path. No new number is `floor` or less.
    pub(super) fn new(path: RegistryPath, floor: Option<u64>) -> Self {
        Self { path, floor, log: None, is_read_only: false, records: None }
    }

    /// Says which feed the log is about.
    pub(super) fn identify(&mut self, feed: &Path) {
        // A pipe without a name, such as the target of `/dev/stdin`, has no other path.
        let path = feed.canonicalize().unwrap_or_else(|_| feed.to_owned());
        self.log = Some(Hash::of(path.as_os_str().as_bytes()));
    }

    pub(super) fn path(&self) -> &Path {
        &self.path.current
    }

    /// Returns the names of the files that ever got a number, and whether another file had the name before.
    pub(super) fn names(&mut self) -> io::Result<impl Iterator<Item = (&str, bool)>> {
        // A copy keeps the number of its original, and a file that is read again is the same one.
        let differ = |a: &Numbered, b: &Numbered| a.number != b.number && !a.is_same_file(b);
        let had_another = move |files: &[Numbered]| files.windows(2).any(|pair| differ(&pair[0], &pair[1]));
        Ok(self.load()?.by_name.iter().map(move |(name, files)| (name.as_str(), had_another(files))))
    }

    /// Returns whether the registry says that `number` belongs to another file: then it is the registry of another log.
    pub(super) fn contradicts(&mut self, file: &str, number: u64) -> io::Result<bool> {
        let records = self.load()?;
        let holds = |name: &str| records.by_name.get(name).into_iter().flatten().any(|known| known.number == number);
        Ok(!holds(file) && records.by_name.keys().any(|name| holds(name)))
    }

    /// Forgets all files, because they are not those of this log any more. Their numbers are not given again.
    pub(super) fn forget(&mut self) {
        let last = self.records.as_ref().and_then(|records| records.last);
        self.records = Some(Records { last, ..Records::default() });
    }

    /// Returns the last number above `after` that a file already has. A file gets several if new files come before it, or if
    /// it is read again.
    pub(super) fn known(&mut self, file: &str, metadata: &Metadata, after: Option<u64>) -> io::Result<Option<u64>> {
        let wanted = Numbered::of(file, metadata, 0, self.log);
        let records = self.load()?;
        let known = records.by_name.get(file).into_iter().flatten();
        let same = known.filter(|known| known.is_same_file(&wanted) && after.is_none_or(|after| known.number > after));
        Ok(same.map(|known| known.number).max())
    }

    /// Returns the last number, at most `most`, that a file of this name got.
    pub(super) fn last_number(&mut self, file: &str, most: u64) -> io::Result<Option<u64>> {
        let known = self.load()?.by_name.get(file).into_iter().flatten();
        Ok(known.map(|known| known.number).filter(|&number| number <= most).max())
    }

    /// Records that a file has a number: it is a copy of the one that got it, or the record was lost.
    pub(super) fn keep_number(&mut self, file: &str, metadata: &Metadata, number: u64) -> io::Result<()> {
        let wanted = Numbered::of(file, metadata, number, self.log);
        let mut known = self.load()?.by_name.get(file).into_iter().flatten();
        if known.any(|known| known.number == number && known.is_same_file(&wanted)) {
            return Ok(());
        }
        if !self.is_read_only {
            let mut lines = Vec::new();
            push_line(&mut lines, &wanted)?;
            self.append(&lines)?.sync_data()?;
        }
        if let Some(records) = &mut self.records {
            records.add(Record::Numbered(wanted));
        }
        Ok(())
    }

    /// Gives files numbers that no file ever had, with one write to the disk; returns the first.
    pub(super) fn new_numbers(&mut self, files: &[(&str, Metadata)], after: Option<u64>) -> io::Result<u64> {
        let last = self.load()?.last.max(after).max(self.floor);
        let first = last.map_or(0, |last| last + 1);
        let numbered: Vec<_> = files
            .iter()
            .zip(first..)
            .map(|((file, metadata), number)| Numbered::of(file, metadata, number, self.log))
            .collect();
        if !self.is_read_only {
            let mut lines = Vec::new();
            numbered.iter().try_for_each(|numbered| push_line(&mut lines, numbered))?;
            self.append(&lines)?.sync_data()?;
        }
        if let Some(records) = &mut self.records {
            numbered.into_iter().for_each(|numbered| records.add(Record::Numbered(numbered)));
        }
        Ok(first)
    }

    /// Stores the state in which the file of a number was left.
    ///
    /// The write is not synchronised: if a power failure loses it, the digest in the position stands in for it.
    pub(super) fn leave(&mut self, number: u64, state: LeftFile) -> io::Result<()> {
        let left = Left { left: number, log: self.log, state };
        self.load()?;
        if !self.is_read_only {
            let mut lines = Vec::new();
            push_line(&mut lines, &left)?;
            self.append(&lines)?;
        }
        if let Some(records) = &mut self.records {
            records.add(Record::Left(left));
        }
        Ok(())
    }

    /// Returns the last state of each file that was left under a number below `number`.
    pub(super) fn left_before(&mut self, number: u64) -> io::Result<Vec<LeftFile>> {
        Ok(self.load()?.left.range(..number).flat_map(|(_, left)| left).cloned().collect())
    }

    fn append(&self, lines: &[u8]) -> io::Result<File> {
        if let Some(directory) = self.path.current.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut kept = File::options().append(true).create(true).open(&self.path.current)?;
        kept.write_all(lines)?;
        Ok(kept)
    }

    fn load(&mut self) -> io::Result<&Records> {
        if self.records.is_none() {
            let mut records = Records::default();
            if let Some(text) = self.read()? {
                // A truncated line belongs to a file of which nothing was read yet.
                let parsed = text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok());
                // Records of another feed of the group are of no concern here.
                let own = parsed.filter(|record| record.log().is_none_or(|log| Some(log) == self.log));
                own.for_each(|record| records.add(record));
            }
            self.records = Some(records);
        }
        Ok(self.records.get_or_insert_default())
    }

    /// Returns the text of the registry. One at the legacy path is moved.
    fn read(&self) -> io::Result<Option<String>> {
        let RegistryPath { current, legacy } = &self.path;
        if !current.exists() && legacy.exists() {
            if self.is_read_only {
                return fs::read_to_string(legacy).map(Some);
            }
            if let Some(directory) = current.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::rename(legacy, current)?;
        }
        match fs::read_to_string(current) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Records {
    fn add(&mut self, record: Record) {
        match record {
            Record::Numbered(numbered) => {
                self.last = self.last.max(Some(numbered.number));
                self.by_name.entry(numbered.file.clone()).or_default().push(numbered);
            }
            Record::Left(Left { left, state, .. }) => self.left.entry(left).or_default().push(state),
        }
    }
}

impl Numbered {
    fn of(file: &str, metadata: &Metadata, number: u64, log: Option<Hash>) -> Self {
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| u64::try_from(since.as_millis()).ok());
        Self { number, log, file: file.to_owned(), inode: metadata.ino(), born }
    }

    fn is_same_file(&self, other: &Self) -> bool {
        (&self.file, self.inode, self.born) == (&other.file, other.inode, other.born)
    }
}

/// Appends a line. A newline also stands before it, in case an earlier line was truncated.
fn push_line(lines: &mut Vec<u8>, record: &impl Serialize) -> io::Result<()> {
    lines.push(b'\n');
    serde_json::to_writer(&mut *lines, record)?;
    lines.push(b'\n');
    Ok(())
}
