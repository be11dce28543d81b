//! The log that a file, or the files of a directory, make up: reads it, finds the next file, and verifies the earlier ones.
//! Performs blocking I/O; call it from a blocking thread.

mod open;

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Options;
use super::earlier::{self, EarlierFiles};
use super::files::{self, Listed};
use super::gzip::Broken;
use super::input::{self, Bytes, Input};
use super::lines::{Batches, Lines};
use super::position::{FilePosition, LeftFile};
use super::registry::Registry;
use crate::position::{Ahead, StartAt};
use crate::source::{Batch, SourceError, SourceErrorKind};

/// The lines of a file, or of the files of a directory one after the other.
#[derive(Debug)]
pub(super) struct Log {
    options: Arc<Options>,
    /// The file or directory. Known once the first file was opened.
    path: PathBuf,
    /// The file that is a tranche, if each one is. The tranche ends when its file is deleted.
    file: Option<String>,
    start: Option<FilePosition>,
    /// The end of the last read that brought a handled line, until the files were compared up to there.
    read_to: Option<FilePosition>,
    registry: Registry,
    /// Whether a file that was replaced is read again. If not, it is a lost position.
    rereads: bool,
    is_directory: bool,
    current: Option<Current>,
    earlier: EarlierFiles,
    /// The registry knows fewer earlier files than the position, and the listing did not make up for it.
    is_record_lost: bool,
    /// The files that follow the current one, as the last listing showed them.
    following: VecDeque<Candidate>,
    /// The number of files to take from `following` before the directory is listed again.
    relist_after: usize,
    /// The number of unread bytes in the files behind the current one, as far as it is known.
    later: Option<u64>,
    /// The last read came to the end of the file (or there was none yet): look around before the next one.
    look_around: bool,
    /// The number of times that the directory was listed.
    listings: u64,
}

#[derive(Debug)]
struct Current {
    input: Input,
    lines: Lines,
}

/// The result of one read of the log.
#[derive(Debug)]
pub(super) struct LogRead {
    pub(super) batches: Vec<Batch>,
    pub(super) end: LogEnd,
}

/// The reason why a read of the log returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogEnd {
    /// More may follow at once.
    More,
    /// A pipe has nothing at present, but its writer may go on.
    Pending,
    /// Nothing follows the last batch at present.
    Tail,
    /// Nothing will ever follow.
    Ended,
}

/// The step that follows when the current file has nothing more.
enum Continuation {
    /// The file may grow.
    Wait,
    /// The next file is known.
    Next,
    /// A copy of the file is in its place: reading goes on there.
    Copied(Box<Current>),
    /// The file was replaced and is to be read again.
    Again,
    End,
    Fail(SourceError),
}

/// The outcome of opening the first file.
enum First {
    Opened,
    NothingYet,
    Deleted,
}

/// A file to be read next.
#[derive(Debug)]
struct Candidate {
    name: String,
    /// The state in which it was left before lines were added to it.
    left: Option<LeftFile>,
    /// Its unread bytes; `None` of a compressed file.
    unread: Option<u64>,
}

impl Log {
    /// Returns the log without looking at any file. `file` is the one to be read if each is a tranche.
    pub(super) fn new(
        options: Arc<Options>,
        file: Option<&str>,
        from: &StartAt,
        ahead: Option<&Ahead>,
    ) -> Result<Self, SourceError> {
        let floor = ahead.map(|ahead| ahead.last.major >> super::mapped::LINE_BITS);
        let read_to = ahead.and_then(|ahead| ahead.read_to.as_ref()).map(FilePosition::parse).transpose()?;
        let mut registry = Registry::new(options.registry.join(file.unwrap_or(super::WHOLE)), floor);
        registry.is_read_only = options.is_apart;
        Ok(Self {
            // The bytes of a pipe cannot be read again.
            read_to: read_to.filter(|read_to| !read_to.pipe && !read_to.file.is_empty()),
            path: options.path.clone(),
            registry,
            file: file.map(str::to_owned),
            start: FilePosition::of(from)?,
            rereads: options.restart,
            is_directory: false,
            current: None,
            earlier: EarlierFiles::default(),
            is_record_lost: false,
            following: VecDeque::new(),
            relist_after: 0,
            later: None,
            look_around: true,
            listings: 0,
            options,
        })
    }

    /// As [`Self::new`], for a log that is only inspected: nothing is written, and every replaced file is a lost position.
    pub(super) fn inspecting(options: Arc<Options>, file: Option<&str>, from: &StartAt) -> Result<Self, SourceError> {
        let mut log = Self::new(options, file, from, None)?;
        log.registry.is_read_only = true;
        log.rereads = false;
        Ok(log)
    }

    #[cfg(test)]
    pub(super) fn listings(&self) -> u64 {
        self.listings
    }

    /// Reads a chunk, or comes to the tail. An error changes nothing: the next read goes on from the same place.
    pub(super) fn read(&mut self) -> Result<LogRead, SourceError> {
        let mut batches = Batches::default();
        loop {
            if self.current.is_none() {
                match self.open_first()? {
                    First::Opened => {}
                    First::NothingYet => return Ok(self.tail(batches, LogEnd::Tail)),
                    First::Deleted => return Ok(LogRead { batches: Vec::new(), end: LogEnd::Ended }),
                }
            }
            // Look before reading: the bytes written to this file before the next one appeared are then read first.
            let continuation = if self.look_around { Some(self.look()?) } else { None };
            let read = match self.read_chunk(&mut batches)? {
                Ok(read) => read,
                Err(continuation) => {
                    self.follow(continuation, &mut batches)?;
                    batches = Batches::default();
                    continue;
                }
            };
            self.look_around = !matches!(read, Bytes::Read(_));
            if !batches.complete.is_empty() {
                return Ok(LogRead { batches: batches.complete, end: LogEnd::More });
            }
            let (false, Some(continuation)) = (matches!(read, Bytes::Read(_)), continuation) else { continue };
            match continuation {
                Continuation::Wait if read == Bytes::Pending && self.options.finite => {
                    return Ok(LogRead { batches: Vec::new(), end: LogEnd::Pending });
                }
                Continuation::Wait => {
                    self.finish_if_nothing_follows(&mut batches);
                    // Nothing can follow the end of standard input.
                    let end = if self.options.is_stdin { LogEnd::Ended } else { LogEnd::Tail };
                    return Ok(self.tail(batches, end));
                }
                Continuation::End => {
                    self.finish(&mut batches);
                    return Ok(LogRead { batches: batches.complete, end: LogEnd::Ended });
                }
                other => self.follow(other, &mut batches)?,
            }
            if batches.complete.iter().any(|batch| !batch.events.is_empty()) {
                return Ok(LogRead { batches: batches.complete, end: LogEnd::More });
            }
            batches = Batches::default();
        }
    }

    /// Goes on in another file, or in the same one from its start.
    fn follow(&mut self, continuation: Continuation, batches: &mut Batches) -> Result<(), SourceError> {
        match continuation {
            Continuation::Fail(error) => return Err(error),
            Continuation::Copied(copy) => self.current = Some(*copy),
            Continuation::Again => self.read_again(batches)?,
            Continuation::Next => self.advance(batches)?,
            Continuation::Wait | Continuation::End => {}
        }
        Ok(())
    }

    /// Returns the reason why reading cannot resume at its position, if there is one. Reads no lines.
    pub(super) fn look_for_loss(&mut self) -> Result<Option<SourceError>, SourceError> {
        let looked = match self.open_first() {
            Ok(First::Opened) => self.look().map(|continuation| match continuation {
                Continuation::Fail(error) => Some(error),
                _ => None,
            }),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        };
        match looked {
            Err(error) if error.kind == SourceErrorKind::PositionLost => Ok(Some(error)),
            other => other,
        }
    }

    /// Reads from the current file. The inner error is the continuation of a file whose read part has changed.
    fn read_chunk(&mut self, batches: &mut Batches) -> Result<Result<Bytes, Continuation>, SourceError> {
        let Some(Current { input, lines }) = &mut self.current else { return Ok(Ok(Bytes::End)) };
        let size = input.stored_size().map_err(|error| files::failed("look at", input.path(), error))?;
        lines.end = self.later.filter(|_| input.is_plain()).map(|later| later + size);
        let mut buffer = lines.take_partial();
        let read = match input.read(&mut buffer) {
            Ok(read) => read,
            Err(error) => {
                lines.put_back(buffer);
                return Err(files::failed("read", input.path(), error));
            }
        };
        let Bytes::Changed(why) = read else {
            lines.absorb(buffer, batches);
            return Ok(Ok(read));
        };
        lines.put_back(buffer);
        let path = input.path().to_owned();
        Ok(Err(if self.rereads { Continuation::Again } else { Continuation::Fail(lost(&path, why)) }))
    }

    /// Returns the batches with the last one at the tail, and an empty one if there are none.
    fn tail(&self, batches: Batches, end: LogEnd) -> LogRead {
        let mut batches = batches.complete;
        if batches.is_empty() {
            let position = self.current.as_ref().map(|current| &current.lines.position);
            let resume_at = position.unwrap_or(&FilePosition::default()).encode();
            let lag = self.current.as_ref().and_then(|current| current.lines.lag());
            batches.push(Batch { events: Vec::new(), resume_at, at_tail: true, lag });
        }
        if let Some(last) = batches.last_mut() {
            last.at_tail = true;
        }
        LogRead { batches, end }
    }

    fn finish_if_nothing_follows(&mut self, batches: &mut Batches) {
        let is_final = self.current.as_ref().is_some_and(|Current { input, lines }| {
            matches!(input.broken(), Some(Broken::Corrupt(_))) || lines.has_whole_document()
        });
        if self.options.finite || is_final {
            self.finish(batches);
        }
    }

    fn finish(&mut self, batches: &mut Batches) {
        if let Some(Current { input, lines }) = &mut self.current {
            lines.finish(input.broken(), batches);
        }
    }

    /// Leaves the current file for the next one.
    fn advance(&mut self, batches: &mut Batches) -> Result<(), SourceError> {
        let Some(candidate) = self.following.pop_front() else { return Ok(()) };
        let next = self.open_candidate(candidate);
        // A file that cannot be opened must not be passed: the next listing shows it again.
        let next = next.inspect_err(|_| self.relist_after = 0)?;
        self.relist_after = self.relist_after.saturating_sub(1);
        self.finish(batches);
        self.leave_current()?;
        self.switch_to(next);
        Ok(())
    }

    /// Reads the current file from its start, under a new number.
    fn read_again(&mut self, batches: &mut Batches) -> Result<(), SourceError> {
        let Some(current) = &self.current else { return Ok(()) };
        let (file, number) = (current.lines.position.file.clone(), current.lines.position.number);
        tracing::warn!(file = ?current.input.path(), "file was replaced or truncated, reading it again under a new number");
        let next = self.begin_anew(file, number)?;
        self.finish(batches);
        self.switch_to(next);
        Ok(())
    }

    /// Records the state in which the current file is left.
    fn leave_current(&mut self) -> Result<(), SourceError> {
        let Some(Current { input, lines }) = &self.current else { return Ok(()) };
        let FilePosition { file, number, inode, offset, line, open, head, sum, tail, .. } = lines.position.clone();
        // The size at the last read, not the present one: lines added since then must be noticed.
        let size = input.decompressed_size().unwrap_or(offset);
        let left = LeftFile { file, inode, size, offset, line, open, head: Some(head), sum, tail };
        let recorded = self.registry.leave(number, left.clone());
        recorded.map_err(|error| files::failed("record files in", self.registry.path(), error))?;
        self.earlier.insert(left);
        Ok(())
    }

    fn switch_to(&mut self, mut next: Current) {
        self.earlier.remove(&next.lines.position.file);
        next.lines.position.earlier = self.earlier.digest();
        self.current = Some(next);
        self.look_around = true;
    }

    /// Looks at the current file and its neighbours.
    fn look(&mut self) -> Result<Continuation, SourceError> {
        let Some(current) = &self.current else { return Ok(Continuation::Wait) };
        if current.input.is_pipe() {
            return Ok(Continuation::Wait);
        }
        let path = current.input.path().to_owned();
        let position = &current.lines.position;
        let metadata = files::metadata_if_present(&path)?;
        let is_gone = metadata.is_none();
        let continuation = match metadata {
            None if self.file.is_some() => return Ok(Continuation::End),
            None if !self.is_directory => {
                return Ok(Continuation::Fail(files::unavailable("read", &path, "the file is gone")));
            }
            None => Continuation::Wait,
            Some(metadata) if metadata.ino() != current.input.inode() => {
                match if metadata.is_file() { self.reopen(position)?.ok() } else { None } {
                    Some(copy) => Continuation::Copied(Box::new(copy)),
                    None if self.rereads => Continuation::Again,
                    None => Continuation::Fail(lost(&path, "it was replaced by another file")),
                }
            }
            Some(_) => match changed(position, &current.input)? {
                None => Continuation::Wait,
                Some(_) if self.rereads => Continuation::Again,
                Some(why) => Continuation::Fail(lost(&path, why)),
            },
        };
        if !matches!(continuation, Continuation::Wait) || !self.is_directory {
            self.later = Some(0);
            return Ok(continuation);
        }
        if (self.following.is_empty() || self.relist_after == 0)
            && let Some(error) = self.list_following()?
        {
            return Ok(Continuation::Fail(error));
        }
        let unread: Option<Vec<u64>> = self.following.iter().map(|candidate| candidate.unread).collect();
        self.later = unread.map(|unread| unread.iter().sum());
        Ok(match self.following.is_empty() {
            false => Continuation::Next,
            // A restart could not resume in this file, either. A job has read it and needs it no more.
            true if is_gone && !self.options.finite => {
                Continuation::Fail(files::unavailable("read", &path, "the file is gone, and none follows"))
            }
            true => Continuation::Wait,
        })
    }

    /// Lists the directory, compares the earlier files with it, and finds those that follow. Returns the error that a
    /// changed or misplaced file is.
    fn list_following(&mut self) -> Result<Option<SourceError>, SourceError> {
        let listed = files::list(&self.path, &self.options.names)?;
        let Some(current) = &mut self.current else { return Ok(None) };
        self.following.clear();
        self.listings += 1;
        // Each listing looks at all files. With one for every switch, a directory of n files would cost n² looks.
        self.relist_after = (listed.len() / 32).max(1);
        self.earlier.retain_listed(&listed);
        let position = &mut current.lines.position;
        position.earlier = self.earlier.digest();
        for file in listed {
            if file.name == position.file {
                continue;
            }
            let left = match self.earlier.get_mut(&file.name) {
                Some(left) => match earlier::changed_since(left, &file, &self.path)? {
                    None => continue,
                    Some(why) if !self.rereads => return Ok(Some(lost(&self.path.join(&file.name), why))),
                    Some(_) => {
                        let grew = left.inode == file.inode && left.size < file.size;
                        grew.then(|| left.clone())
                    }
                },
                None if self.options.names.compare(&file.name, &position.file).is_lt() && !self.rereads => {
                    if self.is_record_lost {
                        return Ok(Some(lost(&self.path.join(&file.name), RECORD_LOST)));
                    }
                    return Ok(Some(misplaced(&self.path, &file.name, &position.file, &self.options)));
                }
                None => None,
            };
            let read = left.as_ref().map_or(0, |left| left.offset.min(file.size));
            let unread = (!file.name.ends_with(".gz")).then_some(file.size - read);
            self.following.push_back(Candidate { name: file.name, left, unread });
        }
        Ok(None)
    }
}

/// Returns how an open file differs from the description in a position. A copy does not differ.
fn changed(position: &FilePosition, input: &Input) -> Result<Option<&'static str>, SourceError> {
    let failed = |error| files::failed("read", input.path(), error);
    if let Some(why) = input.changed().map_err(failed)? {
        return Ok(Some(why));
    }
    Ok(match input.head(position.head.len).map_err(failed)? {
        None => Some(input::SHORTER),
        Some(head) if head != position.head => Some(input::OTHER_HEAD),
        Some(_) => None,
    })
}

const RECORD_LOST: &str = "the record of the files that were read before it is lost from the data directory, and the files \
                           are not all as they were, so that it may be new";

fn lost(path: &Path, why: &str) -> SourceError {
    let doing = format!(
        "resume in `{}`: {why}; `on_replaced = \"restart\"` in `[source.json]` reads it from its start",
        path.display()
    );
    SourceError::new(SourceErrorKind::PositionLost, doing)
}

fn misplaced(directory: &Path, file: &str, current: &str, options: &Options) -> SourceError {
    let why = format!("it is new, and sorts before `{current}`, which is being read");
    let path = directory.join(file);
    match options.names.sort_advice(file, current) {
        Some(remedy) => {
            let doing = format!("resume in `{}`: {why}; {remedy}", path.display());
            SourceError::new(SourceErrorKind::PositionLost, doing)
        }
        None => lost(&path, &why),
    }
}
