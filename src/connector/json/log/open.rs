//! Opens the files of a log: at their start, at a stored position, or behind the part that was read before.

use std::{fs, io};

use super::*;
use crate::connector::json::proof::Proof;

/// The most files that get their numbers with one write to the disk.
const NUMBERED_AT_ONCE: usize = 256;

impl Log {
    /// Opens the file that reading begins with.
    pub(super) fn open_first(&mut self) -> Result<First, SourceError> {
        self.is_directory = files::is_directory(&self.options.path)?;
        self.registry.identify(&self.options.path);
        if let Some(file) = self.file.as_ref().filter(|_| self.is_directory) {
            self.path = self.options.path.join(file);
            self.is_directory = false;
            if files::metadata_if_present(&self.path)?.is_none() {
                return Ok(First::Deleted);
            }
        }
        let changed_ahead = self.compare_ahead()?;
        let opened = match self.start.clone() {
            Some(position) if changed_ahead => Some(self.restart(position)?),
            Some(position) => Some(self.resume(position)?),
            None if self.is_directory => {
                let files = files::list(&self.path, &self.options.names)?;
                files.into_iter().next().map(|file| self.begin(file.name, None)).transpose()?
            }
            None => Some(self.begin(files::name_of(&self.path), None)?),
        };
        let Some(opened) = opened else { return Ok(First::NothingYet) };
        self.switch_to(opened);
        Ok(First::Opened)
    }

    /// Compares the files with what they were when the last handled line was read. Copies keep the numbers of their originals.
    /// Returns whether a file has changed and is to be read again.
    fn compare_ahead(&mut self) -> Result<bool, SourceError> {
        let Some(read_to) = &self.read_to else { return Ok(false) };
        let (read_to, start) = (read_to.clone(), StartAt::Position(read_to.encode()));
        let mut then = Self::inspecting(Arc::clone(&self.options), self.file.as_deref(), &start)?;
        let is_changed = match then.look_for_loss()? {
            None => {
                let kept = self.keep_numbers(&then, &read_to);
                kept.map_err(|error| files::failed("record files in", self.registry.path(), error))?;
                false
            }
            Some(error) if self.rereads => {
                let error = anyhow::Error::new(error);
                tracing::warn!(%error, "lines that were handled above the position have changed, reading them again");
                // New numbers lie above all of those that the stored set covers.
                self.registry.forget();
                true
            }
            Some(error) => {
                let FilePosition { file, line, .. } = read_to;
                let doing = format!("{error}; lines up to `{file}` line {line} were handled ahead of the position");
                return Err(SourceError::new(SourceErrorKind::PositionLost, doing));
            }
        };
        self.read_to = None;
        Ok(is_changed)
    }

    /// Records the present files of a log under the numbers that they had when `read_to` was its position.
    fn keep_numbers(&mut self, then: &Self, read_to: &FilePosition) -> io::Result<()> {
        let Some(current) = &then.current else { return Ok(()) };
        self.registry.keep_number(&read_to.file, &current.input.metadata()?, read_to.number)?;
        for name in then.earlier.names() {
            // A file that was deleted since the listing needs no number.
            if let (Some(number), Ok(metadata)) =
                (self.registry.last_number(name, read_to.number)?, fs::metadata(self.path_of(name)))
            {
                self.registry.keep_number(name, &metadata, number)?;
            }
        }
        Ok(())
    }

    fn path_of(&self, name: &str) -> PathBuf {
        if self.is_directory { self.path.join(name) } else { self.path.clone() }
    }

    /// Opens a file at its first line, to be read after number `after`.
    fn begin(&mut self, name: String, after: Option<u64>) -> Result<Current, SourceError> {
        let path = self.path_of(&name);
        let metadata = files::metadata(&path)?;
        if !metadata.is_file() || self.options.is_stdin {
            // Each opening of a pipe brings other bytes.
            let number = self.new_number(&name, after)?;
            return self.begin_as(name, number);
        }
        let failed = |error, registry: &Registry| files::failed("record files in", registry.path(), error);
        let known = self.registry.known(&name, &metadata, after).map_err(|error| failed(error, &self.registry))?;
        let number = match known {
            Some(number) => number,
            None => {
                let mut unnumbered = vec![(name.as_str(), metadata)];
                for candidate in self.following.iter().take(NUMBERED_AT_ONCE) {
                    // A file that was deleted since the listing needs no number.
                    if let Some(metadata) = files::metadata_if_present(&self.path.join(&candidate.name))? {
                        unnumbered.push((candidate.name.as_str(), metadata));
                    }
                }
                self.registry.new_numbers(&unnumbered, after).map_err(|error| failed(error, &self.registry))?
            }
        };
        self.begin_as(name, number)
    }

    /// Opens a file at its first line again, as if it were another one.
    pub(super) fn begin_anew(&mut self, name: String, after: u64) -> Result<Current, SourceError> {
        let number = self.new_number(&name, Some(after))?;
        self.begin_as(name, number)
    }

    fn begin_as(&self, name: String, number: u64) -> Result<Current, SourceError> {
        let path = self.path_of(&name);
        if self.options.is_apart && !files::metadata(&path)?.is_file() {
            let doing = format!("read `{}`: a pipe keeps no events, and the pipeline needs them", path.display());
            return Err(SourceError::new(SourceErrorKind::Refused, doing));
        }
        self.open(FilePosition::start(name, number))?
            .ok_or_else(|| files::unavailable("open", &path, "it became shorter meanwhile"))
    }

    fn new_number(&mut self, name: &str, after: Option<u64>) -> Result<u64, SourceError> {
        let metadata = files::metadata(&self.path_of(name))?;
        let number = self.registry.new_numbers(&[(name, metadata)], after);
        number.map_err(|error| files::failed("record files in", self.registry.path(), error))
    }

    /// Opens a file that follows the current one.
    pub(super) fn open_candidate(&mut self, candidate: Candidate) -> Result<Current, SourceError> {
        let after = self.current.as_ref().map(|current| current.lines.position.number);
        let Some(LeftFile { file, offset, line, open, .. }) = candidate.left else {
            return self.begin(candidate.name, after);
        };
        let number = self.new_number(&file, after)?;
        let position = FilePosition { offset, line, open, ..FilePosition::start(file.clone(), number) };
        match self.open(position)? {
            Some(current) => Ok(current),
            None => self.begin_as(file, number),
        }
    }

    /// Opens the file of a position behind its read part; `None` if it ends before that. Reads the whole part for its
    /// proof, and compares nothing.
    fn open(&self, position: FilePosition) -> Result<Option<Current>, SourceError> {
        let path = self.path_of(&position.file);
        let failed = |error| files::failed("open", &path, error);
        let opened = match self.options.is_stdin {
            true => Input::open_as_pipe(&path).map(Some),
            false => Input::open_with_proof(&path, position.offset),
        };
        let Some((input, proof)) = opened.map_err(failed)? else { return Ok(None) };
        self.current_at(position, input, proof).map(Some)
    }

    fn current_at(&self, mut position: FilePosition, input: Input, proof: Proof) -> Result<Current, SourceError> {
        let shown = input.path().display().to_string();
        position.inode = input.inode();
        position.pipe = input.is_pipe();
        // The head of a compressed file covers the bytes that were stored when it was opened first.
        if !input.is_gzip() {
            position.head = proof.head();
        } else if position.offset == 0 {
            let head = input.stored_size().and_then(|size| input.head(size));
            let head = head.map_err(|error| files::failed("read", input.path(), error))?;
            position.head = head.unwrap_or(position.head);
        }
        (position.sum, position.tail) = (Some(proof.sum()), Some(proof.tail()));
        let is_plain = !input.is_gzip();
        let mut lines = Lines::new(Arc::clone(&self.options), shown, position, proof, is_plain);
        lines.restore_header(input.path()).map_err(|error| files::failed("read", input.path(), error))?;
        Ok(Current { input, lines })
    }

    /// Opens the file of a position behind its read part if it is the same file, or a copy of it. The inner error is the
    /// difference.
    pub(super) fn reopen(&self, position: &FilePosition) -> Result<Result<Current, &'static str>, SourceError> {
        let path = self.path_of(&position.file);
        let failed = |error| files::failed("open", &path, error);
        let is_same_file = position.inode == files::metadata(&path)?.ino();
        let opened = match position.sum {
            // The same file needs no proof of every byte: both ends of the read part suffice.
            Some(sum) if is_same_file && !input::is_compressed(&path) => {
                Input::open(&path, position.offset).map_err(failed)?.map(|input| {
                    let proof = Proof::resumed(position.head, sum, input.last().to_vec(), position.offset);
                    (input, proof)
                })
            }
            _ => Input::open_with_proof(&path, position.offset).map_err(failed)?,
        };
        let Some((input, proof)) = opened else { return Ok(Err(input::SHORTER)) };
        let why = match changed(position, &input)? {
            Some(why) => Some(why),
            None => {
                let is_proven = position.tail.is_none_or(|tail| tail == proof.tail())
                    && position.sum.is_none_or(|sum| sum == proof.sum());
                (!is_proven).then_some(input::OTHER_TAIL)
            }
        };
        if let Some(why) = why {
            return Ok(Err(if is_same_file { why } else { "it was replaced by another file" }));
        }
        self.current_at(position.clone(), input, proof).map(Ok)
    }

    /// Goes on at a stored position if its file is still the same.
    fn resume(&mut self, position: FilePosition) -> Result<Current, SourceError> {
        if position.pipe {
            // The bytes before the position are gone, and those that come now are new.
            return self.begin_anew(position.file, position.number);
        }
        self.restore_earlier(&position)?;
        let path = self.path_of(&position.file);
        let why = if !self.is_directory && position.file != files::name_of(&self.path) {
            format!("the position is in another file, `{}`", position.file)
        } else {
            match files::metadata_if_present(&path)? {
                None if !self.is_directory || files::list(&self.path, &self.options.names)?.is_empty() => {
                    return Err(files::unavailable("open", &path, "the file is missing"));
                }
                None => format!("it was deleted; it had been read up to byte {}", position.offset),
                Some(_) => match self.reopen(&position)? {
                    Ok(current) => return Ok(current),
                    Err(why) => why.to_owned(),
                },
            }
        };
        if !self.rereads {
            return Err(lost(&path, &why));
        }
        self.restart(position)
    }

    /// Begins the file of a position again, or the next unread one if it was deleted.
    fn restart(&mut self, position: FilePosition) -> Result<Current, SourceError> {
        let path = self.path_of(&position.file);
        if files::metadata_if_present(&path)?.is_some() || !self.is_directory {
            let name = if self.is_directory { position.file } else { files::name_of(&self.path) };
            return self.begin_anew(name, position.number);
        }
        let files = files::list(&self.path, &self.options.names)?;
        let unread = files.into_iter().find(|file| !self.earlier.contains(&file.name));
        let unread = unread.ok_or_else(|| files::unavailable("open", &path, "no unread file is left"))?;
        self.begin(unread.name, Some(position.number))
    }

    /// Finds out which files were read before the position.
    fn restore_earlier(&mut self, position: &FilePosition) -> Result<(), SourceError> {
        let failed = |error, registry: &Registry| files::failed("read the record of files in", registry.path(), error);
        let contradicts = self.registry.contradicts(&position.file, position.number);
        if contradicts.map_err(|error| failed(error, &self.registry))? {
            tracing::warn!(registry = ?self.registry.path(), "the record of files is not of this position, ignored");
            self.registry.forget();
        }
        let left = self.registry.left_before(position.number);
        let left = left.map_err(|error| failed(error, &self.registry))?;
        self.earlier = EarlierFiles::default();
        left.into_iter().for_each(|left| self.earlier.insert(left));
        if !position.past.is_empty() {
            // A position in the old form carries the list itself.
            for left in &position.past {
                let number = position.number.saturating_sub(1);
                let recorded = self.registry.leave(number, left.clone());
                recorded.map_err(|error| files::failed("record files in", self.registry.path(), error))?;
                self.earlier.insert(left.clone());
            }
        } else if self.is_directory && !position.earlier.is_empty() {
            let listed = files::list(&self.path, &self.options.names)?;
            let lacks_records = self.earlier.digest().count() < position.earlier.count();
            self.earlier.retain_listed(&listed);
            let unknown = |file: &&Listed| {
                file.name != position.file
                    && !self.earlier.contains(&file.name)
                    && self.options.names.compare(&file.name, &position.file).is_lt()
            };
            let unknown: Vec<_> = listed.iter().filter(unknown).collect();
            self.is_record_lost = !self.earlier.adopt(&unknown, position.earlier) && lacks_records;
        }
        Ok(())
    }
}
