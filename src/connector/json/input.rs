//! The bytes of one file, decompressed if need be.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::files;
use super::place::Head;

/// How much is read at once.
const CHUNK: usize = 512 * 1024;

/// An open file, read from front to back.
#[derive(Debug)]
pub(super) struct Input {
    path: PathBuf,
    file: File,
    inode: u64,
    /// How many bytes (decompressed) were read or passed.
    offset: u64,
    gzip: Option<Gzip>,
}

#[derive(Debug)]
struct Gzip {
    decoder: MultiGzDecoder<File>,
    /// The file's size when decompressing began.
    size: u64,
    broken: Option<Broken>,
    ended: bool,
}

/// Why a compressed file cannot be read further.
#[derive(Clone, Debug)]
pub(super) enum Broken {
    /// Its rest may be on its way.
    Cut,
    Corrupt(String),
}

impl Input {
    /// Opens a file to be read from `offset` on; `None` if it ends before that.
    pub(super) fn open(path: &Path, offset: u64) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let gzip = if path.extension().is_some_and(|ending| ending == "gz") { Some(Gzip::new(&file)?) } else { None };
        let mut input = Self { path: path.to_owned(), file, inode: metadata.ino(), offset: 0, gzip };
        Ok(input.pass(offset)?.then_some(input))
    }

    fn pass(&mut self, offset: u64) -> io::Result<bool> {
        match &mut self.gzip {
            None => {
                if self.file.metadata()?.len() < offset {
                    return Ok(false);
                }
                self.file.seek(SeekFrom::Start(offset))?;
            }
            Some(gzip) => {
                let passed = io::copy(&mut (&mut gzip.decoder).take(offset), &mut io::sink());
                match passed {
                    Ok(passed) if passed == offset => {}
                    Err(error) if Broken::of(&error).is_none() => return Err(error),
                    _ => return Ok(false),
                }
            }
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

    pub(super) fn is_gzip(&self) -> bool {
        self.gzip.is_some()
    }

    /// Returns the file's size as it is stored.
    pub(super) fn stored_size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Returns the size of what was decompressed; `None` if nothing was.
    pub(super) fn decompressed_size(&self) -> Option<u64> {
        self.gzip.as_ref().map(|gzip| gzip.size)
    }

    /// Returns the hash of the first `len` bytes as they are stored, if there are so many.
    pub(super) fn head(&self, len: u64) -> io::Result<Option<Head>> {
        files::head(&self.file, len)
    }

    /// Returns what keeps a compressed file from being read to its end.
    pub(super) fn broken(&self) -> Option<&Broken> {
        self.gzip.as_ref().and_then(|gzip| gzip.broken.as_ref())
    }

    /// Appends what comes next, at most a chunk; returns how much that was: 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if self.gzip.as_ref().is_some_and(|gzip| gzip.ended) && !self.decompress_again()? {
            return Ok(0);
        }
        let before = buffer.len();
        buffer.reserve(CHUNK);
        let read = match &mut self.gzip {
            None => (&mut self.file).take(CHUNK as u64).read_to_end(buffer).map(|_| ()),
            Some(gzip) => gzip.read(buffer),
        };
        // What came before an error was read all the same.
        let count = buffer.len() - before;
        self.offset += count as u64;
        read.map(|()| count)
    }

    /// A compressed file that has grown is read from its start again, up to where reading ended.
    fn decompress_again(&mut self) -> io::Result<bool> {
        let Some(gzip) = &self.gzip else { return Ok(false) };
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

impl Gzip {
    fn new(file: &File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { decoder: MultiGzDecoder::new(file.try_clone()?), size, broken: None, ended: false })
    }

    fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let read = (&mut self.decoder).take(CHUNK as u64).read_to_end(buffer);
        match read {
            Ok(count) => self.ended = count < CHUNK,
            Err(error) => {
                self.ended = true;
                let Some(broken) = Broken::of(&error) else {
                    // Nobody knows where the decoder is now: begin again, as if the file had grown.
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

impl Broken {
    fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Some(Self::Cut),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Some(Self::Corrupt(error.to_string())),
            _ => None,
        }
    }
}
