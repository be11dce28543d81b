//! The bytes of one file, decompressed where necessary, and the check that the file still holds the bytes before them.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::files;
use super::gzip::{Broken, Members};
use super::proof::{PrefixHash, Proof, WINDOW};

/// The number of bytes read at once.
const CHUNK: usize = 512 * 1024;

/// `O_NONBLOCK` on Linux: opening a pipe must not wait for its writer, nor reading for its data.
const NONBLOCK: i32 = 0o4000;

/// An open file, read from front to back.
#[derive(Debug)]
pub(super) struct Input {
    path: PathBuf,
    file: File,
    inode: u64,
    /// The bytes (decompressed) that were read or passed.
    offset: u64,
    /// The first bytes of the file and the last ones before the offset, as they were read. Not kept of a pipe, and only
    /// the first ones of a compressed file.
    first: Vec<u8>,
    last: Vec<u8>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Plain,
    Gzip(Box<Gzip>),
    Pipe(Pipe),
}

#[derive(Debug)]
struct Gzip {
    decoder: Members,
    /// The file's size when decompressing began.
    size: u64,
    broken: Option<Broken>,
    ended: bool,
}

/// A pipe, a terminal or another file without a size.
#[derive(Debug)]
struct Pipe {
    /// It has a name of its own, so that its first writer may still come.
    is_named: bool,
    /// Something was read from it.
    had_data: bool,
    has_writer: bool,
}

/// The result of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    Read(usize),
    /// Nothing more at present.
    End,
    /// A pipe whose writer exists, or may still come, has nothing at present.
    Pending,
    /// The bytes before the offset have changed, in this way. Nothing was read.
    Changed(&'static str),
}

impl Input {
    /// Opens a file to be read from `offset` on; `None` if it ends before that.
    pub(super) fn open(path: &Path, offset: u64) -> io::Result<Option<Self>> {
        let mut input = Self::open_at_start(path)?;
        Ok(input.pass(offset, |_| {})?.then_some(input))
    }

    /// As [`Self::open`], and returns the proof of the bytes before `offset`, all of which are read.
    pub(super) fn open_with_proof(path: &Path, offset: u64) -> io::Result<Option<(Self, Proof)>> {
        let mut input = Self::open_at_start(path)?;
        let mut proof = Proof::new();
        if matches!(input.form, Form::Plain) {
            let mut rest = Read::by_ref(&mut input.file).take(offset);
            if copy(&mut rest, |bytes| proof.extend(bytes))? < offset {
                return Ok(None);
            }
        }
        Ok(input.pass(offset, |bytes| proof.extend(bytes))?.then_some((input, proof)))
    }

    /// Opens standard input, or another file that is read like a pipe whatever it is.
    pub(super) fn open_as_pipe(path: &Path) -> io::Result<(Self, Proof)> {
        let mut input = Self::open_at_start(path)?;
        if !input.is_pipe() {
            input.form = Form::Pipe(Pipe { is_named: false, had_data: false, has_writer: false });
        }
        Ok((input, Proof::new()))
    }

    fn open_at_start(path: &Path) -> io::Result<Self> {
        let is_pipe = |metadata: &Metadata| {
            let kind = metadata.file_type();
            kind.is_fifo() || kind.is_char_device() || kind.is_socket()
        };
        let flags = if is_pipe(&std::fs::metadata(path)?) { NONBLOCK } else { 0 };
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        let form = if is_pipe(&metadata) {
            // The target of `/dev/stdin` has no path unless it is a pipe with a name.
            let is_named = metadata.file_type().is_fifo() && path.canonicalize().is_ok();
            Form::Pipe(Pipe { is_named, had_data: false, has_writer: false })
        } else if is_compressed(path) {
            let decoder = Members::new(file.try_clone()?);
            Form::Gzip(Box::new(Gzip { decoder, size: metadata.len(), broken: None, ended: false }))
        } else {
            Form::Plain
        };
        let inode = metadata.ino();
        Ok(Self { path: path.to_owned(), file, inode, offset: 0, first: Vec::new(), last: Vec::new(), form })
    }

    /// Passes bytes up to an offset; returns whether there are that many.
    fn pass(&mut self, offset: u64, each: impl FnMut(&[u8])) -> io::Result<bool> {
        match &mut self.form {
            Form::Plain => {
                if self.file.metadata()?.len() < offset {
                    return Ok(false);
                }
                self.file.seek(SeekFrom::Start(offset))?;
                let window = offset.min(WINDOW as u64) as usize;
                let windows = (
                    files::bytes_at(&self.file, 0, window)?,
                    files::bytes_at(&self.file, offset - window as u64, window)?,
                );
                let (Some(first), Some(last)) = windows else { return Ok(false) };
                (self.first, self.last) = (first, last);
            }
            Form::Gzip(gzip) => {
                let window = gzip.size.min(WINDOW as u64) as usize;
                let Some(first) = files::bytes_at(&self.file, 0, window)? else { return Ok(false) };
                self.first = first;
                match copy(&mut Read::by_ref(&mut gzip.decoder).take(offset), each) {
                    Ok(passed) if passed == offset => {}
                    Err(error) if Broken::of(&error).is_none() => return Err(error),
                    _ => return Ok(false),
                }
            }
            // The bytes of a pipe are read once only.
            Form::Pipe(_) => return Ok(offset == 0),
        }
        self.offset = offset;
        Ok(true)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.form, Form::Plain)
    }

    pub(super) fn is_gzip(&self) -> bool {
        matches!(self.form, Form::Gzip(_))
    }

    pub(super) fn is_pipe(&self) -> bool {
        matches!(self.form, Form::Pipe(_))
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Returns the file's stored size.
    pub(super) fn stored_size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Returns the stored size at which decompressing began; `None` for other files.
    pub(super) fn decompressed_size(&self) -> Option<u64> {
        match &self.form {
            Form::Gzip(gzip) => Some(gzip.size),
            Form::Plain | Form::Pipe(_) => None,
        }
    }

    /// Returns the hash of the first `len` stored bytes, if there are so many.
    pub(super) fn head(&self, len: u64) -> io::Result<Option<PrefixHash>> {
        files::head(&self.file, len)
    }

    /// Returns the last bytes before the offset, at most a window of them.
    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    /// Returns the defect that keeps a compressed file from being read to its end.
    pub(super) fn broken(&self) -> Option<&Broken> {
        match &self.form {
            Form::Gzip(gzip) => gzip.broken.as_ref(),
            Form::Plain | Form::Pipe(_) => None,
        }
    }

    /// Appends the next bytes, at most a chunk of them.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<Bytes> {
        let ended = matches!(&self.form, Form::Gzip(gzip) if gzip.ended);
        if ended && !self.decompress_again()? {
            return Ok(Bytes::End);
        }
        let before = buffer.len();
        let read = match &mut self.form {
            Form::Plain => {
                // The events keep the whole buffer alive, and an idle reader keeps it between looks.
                let rest = self.file.metadata()?.len().saturating_sub(self.offset).min(CHUNK as u64);
                buffer.reserve_exact(rest as usize);
                Read::by_ref(&mut self.file).take(CHUNK as u64).read_to_end(buffer).map(|_| Bytes::End)
            }
            Form::Gzip(gzip) => gzip.read(buffer).map(|()| Bytes::End),
            Form::Pipe(pipe) => pipe.read(&mut self.file, buffer),
        };
        // After the read, and before any of its bytes count: the file may have been rewritten in place since the last
        // look, and the bytes then belong to another text (C2). A later rewrite is found by the next check.
        if let Some(why) = self.changed()? {
            buffer.truncate(before);
            if self.is_plain() {
                self.file.seek(SeekFrom::Start(self.offset))?;
            }
            return Ok(Bytes::Changed(why));
        }
        // The bytes before an error count.
        let count = buffer.len() - before;
        self.offset += count as u64;
        self.remember(&buffer[before..]);
        Ok(if count > 0 { read.map(|_| Bytes::Read(count))? } else { read? })
    }

    fn remember(&mut self, bytes: &[u8]) {
        if !self.is_plain() {
            return;
        }
        let missing = WINDOW.saturating_sub(self.first.len()).min(bytes.len());
        self.first.extend_from_slice(&bytes[..missing]);
        let kept = WINDOW.saturating_sub(bytes.len());
        self.last.drain(..self.last.len().saturating_sub(kept));
        self.last.extend_from_slice(&bytes[bytes.len().saturating_sub(WINDOW)..]);
    }

    /// Returns how the open file differs from the bytes that were read; `None` if both ends of the read part are still
    /// the same.
    pub(super) fn changed(&self) -> io::Result<Option<&'static str>> {
        let size = match &self.form {
            Form::Plain => self.offset,
            // A smaller size than at the start of decompressing; a failed read sets it to the maximum.
            Form::Gzip(gzip) => {
                if gzip.size == u64::MAX {
                    0
                } else {
                    gzip.size
                }
            }
            Form::Pipe(_) => return Ok(None),
        };
        if self.file.metadata()?.len() < size {
            return Ok(Some(SHORTER));
        }
        let Some(first) = files::bytes_at(&self.file, 0, self.first.len())? else { return Ok(Some(SHORTER)) };
        if first != self.first {
            return Ok(Some(OTHER_HEAD));
        }
        let start = self.offset.saturating_sub(self.last.len() as u64);
        let Some(last) = files::bytes_at(&self.file, start, self.last.len())? else { return Ok(Some(SHORTER)) };
        Ok((last != self.last).then_some(OTHER_TAIL))
    }

    /// Decompresses a file that has grown from its start again, up to the offset.
    fn decompress_again(&mut self) -> io::Result<bool> {
        let Form::Gzip(gzip) = &self.form else { return Ok(false) };
        if self.file.metadata()?.len() == gzip.size {
            return Ok(false);
        }
        let Some(again) = Self::open(&self.path, self.offset)? else { return Ok(false) };
        if again.inode != self.inode {
            return Ok(false);
        }
        *self = again;
        Ok(true)
    }
}

pub(super) const SHORTER: &str = "it is shorter than it was";
pub(super) const OTHER_HEAD: &str = "its first bytes are not what they were";
pub(super) const OTHER_TAIL: &str = "the bytes before the position are not what they were";

impl Gzip {
    fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let read = Read::by_ref(&mut self.decoder).take(CHUNK as u64).read_to_end(buffer);
        match read {
            Ok(count) => self.ended = count < CHUNK,
            Err(error) => {
                self.ended = true;
                let Some(broken) = Broken::of(&error) else {
                    // The decoder's state is unknown after such an error. A size that no file has makes the next read
                    // decompress from the start.
                    self.size = u64::MAX;
                    return Err(error);
                };
                // A file without a byte is an empty one.
                self.broken = (self.size > 0).then_some(broken);
            }
        }
        Ok(())
    }
}

impl Pipe {
    fn read(&mut self, file: &mut File, buffer: &mut Vec<u8>) -> io::Result<Bytes> {
        let before = buffer.len();
        let read = file.take(CHUNK as u64).read_to_end(buffer);
        self.had_data |= buffer.len() > before;
        match read {
            Ok(_) => self.has_writer = false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.has_writer = true,
            Err(error) => return Err(error),
        }
        // Without a writer, a pipe reads as ended. One with a name may not have had its first writer yet.
        let is_awaited = self.has_writer || (self.is_named && !self.had_data);
        Ok(if is_awaited { Bytes::Pending } else { Bytes::End })
    }
}

pub(super) fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "gz")
}

/// Hands out bytes to the end; returns their number.
fn copy(from: &mut impl Read, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut copied = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(read) => {
                each(&buffer[..read]);
                copied += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
