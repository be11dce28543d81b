//! One open file, to which whole lines are appended or nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::mend::{Mended, mend};
use crate::formats::encode::Format;

/// An open and locked file.
#[derive(Debug)]
pub(super) struct Appender {
    file: File,
    /// It has an end that can be cut: not a device or a pipe.
    regular: bool,
}

impl Appender {
    /// Opens the file, or makes it and the folders above it; locks it; mends its end. With `durable`, a file that is
    /// new is known to its folder before it returns.
    pub(super) fn open(path: &Path, format: Format, durable: bool) -> io::Result<Self> {
        const ATTEMPTS: usize = 3;
        let folder = path.parent().unwrap_or(Path::new(""));
        make_folder(folder, durable)?;
        for _ in 0..ATTEMPTS {
            let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            lock(&file)?;
            let metadata = file.metadata()?;
            let mut appender = Self { file, regular: metadata.is_file() };
            // It may have been rotated between the two.
            if !appender.is_at(path) {
                continue;
            }
            if appender.regular {
                appender.mend(path, format)?;
            }
            if durable && appender.regular && metadata.len() == 0 {
                sync_folder(folder)?;
            }
            return Ok(appender);
        }
        Err(io::Error::other("it is replaced faster than it can be opened"))
    }

    fn mend(&mut self, path: &Path, format: Format) -> io::Result<()> {
        let path = path.display();
        match mend(&mut self.file, format)? {
            Mended::Nothing => {}
            Mended::Completed => tracing::warn!(%path, "the last line had no end, it has one now"),
            Mended::Cut { bytes } => tracing::warn!(%path, bytes, "the last line was torn, it is cut off"),
        }
        Ok(())
    }

    /// Returns whether this is the file that `path` names.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        match (fs::metadata(path), self.file.metadata()) {
            (Ok(there), Ok(here)) => (there.dev(), there.ino()) == (here.dev(), here.ino()),
            _ => false,
        }
    }

    /// Appends whole lines, durably if `sync`. After an error none of them is in the file, or it is to be mended.
    pub(super) fn append(&mut self, lines: &[u8], sync: bool) -> io::Result<()> {
        if self.regular { append_or_undo(&mut self.file, lines, sync) } else { self.file.write_all(lines) }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        if self.regular { self.file.sync_data() } else { Ok(()) }
    }
}

fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::other("another pipeline or process is writing it"),
        TryLockError::Error(error) => error,
    })
}

fn make_folder(folder: &Path, durable: bool) -> io::Result<()> {
    let missing: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(folder)?;
    if durable {
        missing.iter().filter_map(|folder| folder.parent()).try_for_each(sync_folder)?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(here)?.sync_all()
}

/// What can be appended to, and cut.
trait Tail: Write {
    fn end(&self) -> io::Result<u64>;
    fn sync(&self) -> io::Result<()>;
    fn cut(&self, end: u64) -> io::Result<()>;
}

impl Tail for File {
    fn end(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, end: u64) -> io::Result<()> {
        self.set_len(end)
    }
}

fn append_or_undo(file: &mut impl Tail, lines: &[u8], sync: bool) -> io::Result<()> {
    let end = file.end()?;
    let appended = file.write_all(lines).and_then(|()| if sync { file.sync() } else { Ok(()) });
    appended.map_err(|error| match file.cut(end) {
        Ok(()) => error,
        Err(uncut) => {
            io::Error::new(error.kind(), format!("{error}; and what was written could not be cut off: {uncut}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A disk with room for so many bytes, whose sync can be made to fail.
    struct Disk {
        room: usize,
        bytes: RefCell<Vec<u8>>,
        syncs: bool,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = bytes.len().min(self.room - self.bytes.borrow().len());
            self.bytes.get_mut().extend_from_slice(&bytes[..written]);
            if written == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(written) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Tail for Disk {
        fn end(&self) -> io::Result<u64> {
            Ok(self.bytes.borrow().len() as u64)
        }

        fn sync(&self) -> io::Result<()> {
            if self.syncs { Ok(()) } else { Err(io::Error::other("the cable is out")) }
        }

        fn cut(&self, end: u64) -> io::Result<()> {
            self.bytes.borrow_mut().truncate(end as usize);
            Ok(())
        }
    }

    #[test]
    fn a_line_that_the_disk_has_no_room_for_leaves_nothing_behind() {
        let mut disk = Disk { room: 10, bytes: RefCell::default(), syncs: true };
        append_or_undo(&mut disk, b"{\"a\":1}\n", true).unwrap();
        let error = append_or_undo(&mut disk, b"{\"b\":2}\n", true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.bytes.borrow().as_slice(), b"{\"a\":1}\n");
        disk.room = 100;
        append_or_undo(&mut disk, b"{\"b\":2}\n", true).unwrap();
        assert_eq!(disk.bytes.borrow().as_slice(), b"{\"a\":1}\n{\"b\":2}\n");
    }

    #[test]
    fn a_line_that_is_not_durable_was_not_written() {
        let mut disk = Disk { room: 100, bytes: RefCell::default(), syncs: false };
        append_or_undo(&mut disk, b"1\n", true).unwrap_err();
        assert!(disk.bytes.borrow().is_empty());
        append_or_undo(&mut disk, b"1\n", false).unwrap();
        assert_eq!(disk.bytes.borrow().as_slice(), b"1\n");
    }
}
