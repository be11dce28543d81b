//! One open file. An append writes all its lines or none.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::repair::{Repair, repair};
use crate::formats::encode::Format;

/// An open and locked file.
#[derive(Debug)]
pub(super) struct Appender {
    file: File,
    /// Whether it has an end to cut, unlike a device or a pipe.
    regular: bool,
}

impl Appender {
    /// Opens or creates the file, locks it, and repairs its end. `durable`: syncs the directory of a new file.
    pub(super) fn open(path: &Path, format: Format, durable: bool) -> io::Result<Self> {
        // A rotation can replace the file between its opening and its locking, but hardly three times in a row.
        const ATTEMPTS: usize = 3;
        let directory = path.parent().unwrap_or(Path::new(""));
        make_directory(directory, durable)?;
        for _ in 0..ATTEMPTS {
            let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            lock(&file)?;
            let metadata = file.metadata()?;
            let mut appender = Self { file, regular: metadata.is_file() };
            if !appender.is_at(path) {
                continue;
            }
            if appender.regular {
                appender.repair(path, format)?;
            }
            if durable && appender.regular && metadata.len() == 0 {
                sync_directory(directory)?;
            }
            return Ok(appender);
        }
        Err(io::Error::other("another program replaces it faster than it can be opened"))
    }

    fn repair(&mut self, path: &Path, format: Format) -> io::Result<()> {
        let path = path.display();
        match repair(&mut self.file, format)? {
            Repair::Nothing => {}
            Repair::Completed => tracing::warn!(%path, "the last line lacked its newline, which was added"),
            Repair::Cut { bytes } => tracing::warn!(%path, bytes, "the last line was truncated, and was removed"),
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

    /// Appends whole lines, durably if `sync`. After an error the file holds none of them, or needs a repair.
    pub(super) fn append(&mut self, lines: &[u8], sync: bool) -> io::Result<()> {
        if self.regular { append_or_undo(&mut self.file, lines, sync) } else { self.file.write_all(lines) }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        if self.regular { self.file.sync_data() } else { Ok(()) }
    }
}

fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::other("another pipeline or process writes to it"),
        TryLockError::Error(error) => error,
    })
}

fn make_directory(directory: &Path, durable: bool) -> io::Result<()> {
    let missing: Vec<_> = directory.ancestors().take_while(|directory| !directory.exists()).collect();
    fs::create_dir_all(directory)?;
    if durable {
        missing.iter().filter_map(|directory| directory.parent()).try_for_each(sync_directory)?;
    }
    Ok(())
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(here)?.sync_all()
}

/// A file whose end can grow and be cut.
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
        Err(uncut) => io::Error::new(error.kind(), format!("{error}; the written part could not be removed: {uncut}")),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A disk with a limited size, whose sync can fail.
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
    fn a_line_beyond_the_disks_size_leaves_nothing_behind() {
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
    fn a_line_whose_sync_fails_is_removed() {
        let mut disk = Disk { room: 100, bytes: RefCell::default(), syncs: false };
        append_or_undo(&mut disk, b"1\n", true).unwrap_err();
        assert!(disk.bytes.borrow().is_empty());
        append_or_undo(&mut disk, b"1\n", false).unwrap();
        assert_eq!(disk.bytes.borrow().as_slice(), b"1\n");
    }
}
