//! Which file comes next, and whether the ones before are what they were. Blocks: runs where that does no harm.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Options;
use super::files::{self, Listed};
use super::input::{Broken, Input};
use super::lines::{Batches, Lines};
use super::numbers::Numbers;
use super::place::{Head, Past, Place};
use crate::position::StartAt;
use crate::source::{Batch, SourceError, SourceErrorKind};

/// The lines of a file, or of the files of a folder one after the other.
#[derive(Debug)]
pub(super) struct Log {
    options: Arc<Options>,
    /// What is read: a file, or a folder. Known once the first file was opened.
    path: PathBuf,
    /// The file that is a tranche, if each is one. It ends when it is deleted.
    file: Option<String>,
    start: Option<Place>,
    numbers: Numbers,
    is_folder: bool,
    current: Option<Current>,
    /// How many bytes of the files behind the current one are unread, as far as that is known.
    later: Option<u64>,
    /// The last read came to the end of the file (or there was none yet): look around before the next one.
    look_around: bool,
}

#[derive(Debug)]
struct Current {
    input: Input,
    lines: Lines,
}

/// What one read brought.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) batches: Vec<Batch>,
    /// There is nothing behind the last of the batches.
    pub(super) at_tail: bool,
    /// And nothing ever will be.
    pub(super) ended: bool,
}

/// What follows when the current file has nothing more.
enum Follow {
    /// The file may grow.
    Wait,
    Next(Candidate),
    /// A copy of the file is in its place: reading goes on there.
    Copied(Box<Current>),
    /// The file was replaced and is to be read again.
    Again,
    End,
    Fail(SourceError),
}

/// What became of the file to begin with.
enum First {
    Opened,
    NothingYet,
    Gone,
}

/// A file to be read next.
struct Candidate {
    name: String,
    /// How far it was read already, before lines were added to it.
    read: Option<Past>,
}

impl Log {
    /// Starts without looking at any file. `file` is the one to be read, where each is a tranche.
    pub(super) fn new(options: Arc<Options>, file: Option<&str>, from: &StartAt) -> Result<Self, SourceError> {
        Ok(Self {
            path: options.path.clone(),
            numbers: Numbers::new(options.numbers.join(file.unwrap_or(super::WHOLE))),
            file: file.map(str::to_owned),
            start: Place::of(from)?,
            is_folder: false,
            current: None,
            later: None,
            look_around: true,
            options,
        })
    }

    /// Reads a chunk, or comes to the tail.
    ///
    /// An error leaves everything as it was: the next step goes on from there.
    pub(super) fn step(&mut self) -> Result<Step, SourceError> {
        let mut batches = Batches::default();
        loop {
            if self.current.is_none() {
                match self.open_first()? {
                    First::Opened => {}
                    First::NothingYet => return Ok(self.tail(batches)),
                    First::Gone => return Ok(Step { batches: Vec::new(), at_tail: true, ended: true }),
                }
            }
            // First a look around, then the read: what was written to this file before the next one appeared is seen.
            let follow = if self.look_around { Some(self.look()?) } else { None };
            let read = self.read(&mut batches)?;
            self.look_around = read == 0;
            if !batches.whole.is_empty() {
                return Ok(Step { batches: batches.whole, at_tail: false, ended: false });
            }
            let (0, Some(follow)) = (read, follow) else { continue };
            match follow {
                Follow::Fail(error) => return Err(error),
                Follow::Wait => {
                    self.finish_if_nothing_follows(&mut batches);
                    return Ok(self.tail(batches));
                }
                Follow::End => {
                    self.finish(&mut batches);
                    return Ok(Step { batches: batches.whole, at_tail: true, ended: true });
                }
                Follow::Copied(copy) => self.current = Some(*copy),
                Follow::Again => self.read_again(&mut batches)?,
                Follow::Next(candidate) => self.advance(candidate, &mut batches)?,
            }
            if batches.whole.iter().any(|batch| !batch.events.is_empty()) {
                return Ok(Step { batches: batches.whole, at_tail: false, ended: false });
            }
            batches = Batches::default();
        }
    }

    /// Returns why reading cannot go on where it was, if it cannot. Reads no lines.
    pub(super) fn look_for_loss(&mut self) -> Result<Option<SourceError>, SourceError> {
        let looked = match self.open_first() {
            Ok(First::Opened) => self.look().map(|follow| match follow {
                Follow::Fail(error) => Some(error),
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

    fn read(&mut self, batches: &mut Batches) -> Result<usize, SourceError> {
        let Some(Current { input, lines }) = &mut self.current else { return Ok(0) };
        let size = input.stored_size().map_err(|error| files::failed("look at", input.path(), error))?;
        lines.end = self.later.filter(|_| !input.is_gzip()).map(|later| later + size);
        let mut buffer = lines.take_partial();
        match input.read(&mut buffer) {
            Ok(read) => {
                lines.absorb(buffer, batches);
                Ok(read)
            }
            Err(error) => {
                lines.put_back(buffer);
                Err(files::failed("read", input.path(), error))
            }
        }
    }

    /// Returns what there is, the last of it at the tail; an empty batch if there is nothing.
    fn tail(&self, batches: Batches) -> Step {
        let mut batches = batches.whole;
        if batches.is_empty() {
            let resume_at =
                self.current.as_ref().map_or_else(|| Place::default().position(), |c| c.lines.place.position());
            let lag = self.current.as_ref().and_then(|current| current.lines.lag());
            batches.push(Batch { events: Vec::new(), resume_at, at_tail: true, lag });
        }
        if let Some(last) = batches.last_mut() {
            last.at_tail = true;
        }
        Step { batches, at_tail: true, ended: false }
    }

    fn finish_if_nothing_follows(&mut self, batches: &mut Batches) {
        let corrupt = self.current.as_ref().is_some_and(|c| matches!(c.input.broken(), Some(Broken::Corrupt(_))));
        if self.options.finite || corrupt {
            self.finish(batches);
        }
    }

    fn finish(&mut self, batches: &mut Batches) {
        if let Some(Current { input, lines }) = &mut self.current {
            lines.finish(input.broken(), batches);
        }
    }

    /// Opens the file to begin with.
    fn open_first(&mut self) -> Result<First, SourceError> {
        self.is_folder = files::is_folder(&self.options.path)?;
        if let Some(file) = self.file.as_ref().filter(|_| self.is_folder) {
            self.path = self.options.path.join(file);
            self.is_folder = false;
            if files::look(&self.path)?.is_none() {
                return Ok(First::Gone);
            }
        }
        let opened = match self.start.clone() {
            Some(place) => Some(self.resume(place)?),
            None if self.is_folder => {
                let files = files::list(&self.path, &self.options.names)?;
                files.into_iter().next().map(|file| self.begin(file.name, None)).transpose()?
            }
            None => Some(self.begin(files::name_of(&self.path), None)?),
        };
        self.current = opened;
        self.look_around = true;
        Ok(if self.current.is_some() { First::Opened } else { First::NothingYet })
    }

    fn path_of(&self, name: &str) -> PathBuf {
        if self.is_folder { self.path.join(name) } else { self.path.clone() }
    }

    /// Opens a file at its first line, to be read behind number `after`.
    fn begin(&mut self, name: String, after: Option<u64>) -> Result<Current, SourceError> {
        let path = self.path_of(&name);
        let metadata = self.metadata(&path)?;
        let number = self.numbers.known_or_new(&name, &metadata, after);
        let number = number.map_err(|error| files::failed("keep numbers in", self.numbers.path(), error))?;
        self.begin_as(name, number)
    }

    /// Opens a file at its first line again, as if it were another one.
    fn begin_anew(&mut self, name: String, after: u64) -> Result<Current, SourceError> {
        let number = self.new_number(&name, after)?;
        self.begin_as(name, number)
    }

    fn begin_as(&self, name: String, number: u64) -> Result<Current, SourceError> {
        let path = self.path_of(&name);
        self.open(Place { file: name, number, head: Head::of(&[]), ..Place::default() })?
            .ok_or_else(|| SourceError::new(SourceErrorKind::Unavailable, format!("open `{}`", path.display())))
    }

    fn new_number(&mut self, name: &str, after: u64) -> Result<u64, SourceError> {
        let metadata = self.metadata(&self.path_of(name))?;
        let number = self.numbers.new_number(name, &metadata, Some(after));
        number.map_err(|error| files::failed("keep numbers in", self.numbers.path(), error))
    }

    fn metadata(&self, path: &Path) -> Result<std::fs::Metadata, SourceError> {
        std::fs::metadata(path).map_err(|error| files::failed("open", path, error))
    }

    /// Opens the file of a place behind what was read of it; `None` if it ends before that. Whether it is the same file
    /// is not looked at.
    fn open(&self, mut place: Place) -> Result<Option<Current>, SourceError> {
        let path = self.path_of(&place.file);
        let failed = |error| files::failed("open", &path, error);
        let Some(input) = Input::open(&path, place.offset).map_err(failed)? else { return Ok(None) };
        place.inode = input.inode();
        let len = if input.is_gzip() { input.stored_size().map_err(failed)? } else { place.offset };
        let Some(head) = input.head(len).map_err(failed)? else { return Ok(None) };
        place.head = head;
        let lines = Lines::new(Arc::clone(&self.options), path.display().to_string(), place, !input.is_gzip());
        Ok(Some(Current { input, lines }))
    }

    /// Opens the file of a place where that says, if it is still what it was, or a copy of that; else returns how it differs.
    fn reopen(&self, place: &Place) -> Result<Result<Current, &'static str>, SourceError> {
        let Some(mut current) = self.open(place.clone())? else { return Ok(Err("it is shorter than it was")) };
        if let Some(why) = changed(place, &current.input)? {
            let is_it = place.inode == current.input.inode();
            return Ok(Err(if is_it { why } else { "it was replaced by another file" }));
        }
        // The head of a compressed file covers what was there when it was first opened.
        if current.input.is_gzip() {
            current.lines.place.head = place.head;
        }
        Ok(Ok(current))
    }

    /// Goes on where a position says, if the file is still what it was.
    fn resume(&mut self, place: Place) -> Result<Current, SourceError> {
        let path = self.path_of(&place.file);
        let why = if !self.is_folder && place.file != files::name_of(&self.path) {
            format!("the position is in another file, `{}`", place.file)
        } else {
            match files::look(&path)? {
                None if !self.is_folder || files::list(&self.path, &self.options.names)?.is_empty() => {
                    return Err(SourceError::new(SourceErrorKind::Unavailable, format!("open `{}`", path.display()))
                        .caused_by(anyhow::anyhow!("the file is missing")));
                }
                None => format!("it was deleted; byte {} is as far as it was read", place.offset),
                Some(_) => match self.reopen(&place)? {
                    Ok(current) => return Ok(current),
                    Err(why) => why.to_owned(),
                },
            }
        };
        if !self.options.restart {
            return Err(lost(&path, &why));
        }
        let mut current = if files::look(&path)?.is_some() || !self.is_folder {
            let name = if self.is_folder { place.file } else { files::name_of(&self.path) };
            self.begin_anew(name, place.number)?
        } else {
            let files = files::list(&self.path, &self.options.names)?;
            let unread = files.into_iter().find(|file| !place.past.iter().any(|past| past.file == file.name));
            let missing = || SourceError::new(SourceErrorKind::Unavailable, format!("open `{}`", path.display()));
            self.begin(unread.ok_or_else(missing)?.name, Some(place.number))?
        };
        current.lines.place.past = place.past;
        Ok(current)
    }

    /// Leaves the current file for the next one.
    fn advance(&mut self, candidate: Candidate, batches: &mut Batches) -> Result<(), SourceError> {
        let Some(current) = &self.current else { return Ok(()) };
        let after = current.lines.place.number;
        let next = match candidate.read {
            Some(Past { file, offset, line, open, .. }) => {
                let number = self.new_number(&file, after)?;
                let place = Place { file: file.clone(), number, offset, line, open, ..Place::default() };
                match self.open(place)? {
                    Some(current) => current,
                    None => self.begin_as(file, number)?,
                }
            }
            None => self.begin(candidate.name, Some(after))?,
        };
        self.finish(batches);
        self.switch_to(next, true);
        Ok(())
    }

    /// Reads the current file from its start, under a new number.
    fn read_again(&mut self, batches: &mut Batches) -> Result<(), SourceError> {
        let Some(current) = &self.current else { return Ok(()) };
        let place = &current.lines.place;
        let (file, number) = (place.file.clone(), place.number);
        let next = self.begin_anew(file, number)?;
        self.finish(batches);
        self.switch_to(next, false);
        Ok(())
    }

    /// `remember`: whether the file that is left is to be known as read.
    fn switch_to(&mut self, mut next: Current, remember: bool) {
        if let Some(Current { input, lines }) = self.current.take() {
            let mut past = lines.place.past;
            past.retain(|past| past.file != next.lines.place.file);
            if remember {
                let Place { file, inode, offset, line, open, head, .. } = lines.place;
                // Not what it is now: what was added since the last read would never be seen.
                let size = input.decompressed_size().unwrap_or(offset);
                past.push(Past { file, inode, size, offset, line, open, head: Some(head) });
            }
            next.lines.place.past = past;
        }
        self.current = Some(next);
        self.look_around = true;
    }

    /// Looks at what is there now.
    fn look(&mut self) -> Result<Follow, SourceError> {
        let Some(current) = &self.current else { return Ok(Follow::Wait) };
        let path = current.input.path().to_owned();
        let seen = files::look(&path)?;
        let place = &current.lines.place;
        let follow = match seen {
            None if self.file.is_some() => return Ok(Follow::End),
            None if !self.is_folder => {
                let gone = SourceError::new(SourceErrorKind::Unavailable, format!("read `{}`", path.display()));
                return Ok(Follow::Fail(gone.caused_by(anyhow::anyhow!("the file is gone"))));
            }
            None => Follow::Wait,
            Some(metadata) if metadata.ino() != current.input.inode() => {
                match if metadata.is_file() { self.reopen(place)?.ok() } else { None } {
                    Some(copy) => Follow::Copied(Box::new(copy)),
                    None if self.options.restart => Follow::Again,
                    None => Follow::Fail(lost(&path, "it was replaced by another file")),
                }
            }
            Some(metadata) => match changed_at(place, &current.input, &metadata)? {
                None => Follow::Wait,
                Some(_) if self.options.restart => Follow::Again,
                Some(why) => Follow::Fail(lost(&path, why)),
            },
        };
        let (follow, later) = match follow {
            Follow::Wait if self.is_folder => self.look_at_others()?,
            follow => (follow, Some(0)),
        };
        self.later = later;
        Ok(follow)
    }

    /// Looks at the other files of the folder; returns also how many bytes of them are unread, if that is known.
    fn look_at_others(&mut self) -> Result<(Follow, Option<u64>), SourceError> {
        let listed = files::list(&self.path, &self.options.names)?;
        let Some(current) = &mut self.current else { return Ok((Follow::Wait, None)) };
        let place = &mut current.lines.place;
        place.past.retain(|past| listed.iter().any(|file| file.name == past.file));
        let mut later = Some(0);
        let mut next = None;
        for file in &listed {
            if file.name == place.file {
                continue;
            }
            let read = place.past.iter_mut().find(|past| past.file == file.name);
            let read = read.map(|past| changed_since(past, file, &self.path).map(|why| (past, why))).transpose()?;
            let candidate = match read {
                Some((_, None)) => continue,
                Some((_, Some(why))) if !self.options.restart => {
                    return Ok((Follow::Fail(lost(&self.path.join(&file.name), why)), None));
                }
                Some((past, Some(_))) => {
                    let grew = past.inode == file.inode && past.size < file.size;
                    Candidate { name: file.name.clone(), read: grew.then(|| past.clone()) }
                }
                None if file.name < place.file && !self.options.restart => {
                    let why = format!("it is new, and sorts before `{}`, which is being read", place.file);
                    return Ok((Follow::Fail(lost(&self.path.join(&file.name), &why)), None));
                }
                None => Candidate { name: file.name.clone(), read: None },
            };
            let unread = file.size - candidate.read.as_ref().map_or(0, |read| read.offset.min(file.size));
            later = later.filter(|_| !file.name.ends_with(".gz")).map(|later: u64| later + unread);
            next.get_or_insert(candidate);
        }
        Ok((next.map_or(Follow::Wait, Follow::Next), later))
    }
}

/// Returns how an open file differs from what a place says of it. A copy does not.
fn changed(place: &Place, input: &Input) -> Result<Option<&'static str>, SourceError> {
    let failed = |error| files::failed("read", input.path(), error);
    Ok(match input.head(place.head.len).map_err(failed)? {
        None => Some("it is shorter than it was"),
        Some(head) if head != place.head => Some("its first bytes are not what they were"),
        Some(_) => None,
    })
}

/// Returns how what is at a file's path now differs from the file that is being read.
fn changed_at(place: &Place, input: &Input, metadata: &std::fs::Metadata) -> Result<Option<&'static str>, SourceError> {
    if !input.is_gzip() && metadata.len() < place.offset {
        return Ok(Some("it is shorter than it was"));
    }
    changed(place, input)
}

/// Returns how a file differs from what it was when it was left. A copy is known as such from then on.
fn changed_since(past: &mut Past, file: &Listed, folder: &Path) -> Result<Option<&'static str>, SourceError> {
    if past.inode != file.inode {
        if !is_copy(past, &folder.join(&file.name))? {
            return Ok(Some("it was replaced by another file after it was read"));
        }
        past.inode = file.inode;
    }
    Ok(match file.size.cmp(&past.size) {
        std::cmp::Ordering::Less => Some("it is shorter than when it was read"),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some("lines were added to it after the next file was begun"),
    })
}

/// Returns whether a file begins as one that was read did.
fn is_copy(past: &Past, path: &Path) -> Result<bool, SourceError> {
    let Some(wanted) = past.head else { return Ok(false) };
    let failed = |error| files::failed("read", path, error);
    let file = std::fs::File::open(path).map_err(failed)?;
    Ok(files::head(&file, wanted.len).map_err(failed)? == Some(wanted))
}

fn lost(path: &Path, why: &str) -> SourceError {
    SourceError::new(SourceErrorKind::PositionLost, format!("go on with `{}`: {why}", path.display()))
}
