//! The marker beside a database that held progress (C17).
//!
//! A database that propulsiond created is never empty. An empty file beside a marker was truncated, for example by a
//! failed restore. SQLite would take it for a new database, and its pipelines would handle every event again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::errors::Failure;
use super::open::path_of_log;

/// Refuses a database file that lost its contents.
pub(super) fn refuse_emptied(path: &Path) -> Result<(), Failure> {
    let marker = path_of_marker(path);
    match fs::metadata(path) {
        Ok(file) if file.is_file() && file.len() == 0 => {}
        // The operator deleted the database to begin at the origin. A marker that stays would refuse the new database
        // after a crash before its first write.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // No marker, or one that cannot be deleted: neither stands in the way of the new database.
            let _deleted = fs::remove_file(marker);
            return Ok(());
        }
        _ => return Ok(()),
    }
    // SQLite deletes the log of an empty file, so the log shows earlier commits, too.
    let has_log = fs::metadata(path_of_log(path)).is_ok_and(|log| log.len() > 0);
    if !has_log && !marker.exists() {
        return Ok(());
    }
    Err(Failure::unreadable(format!(
        "the file is empty, but it held progress before: its pipelines would handle every event again. Restore it from \
         a backup; to begin at the origin, delete it together with `{}`",
        if has_log { path_of_log(path) } else { marker }.display()
    )))
}

/// Writes the marker of a database, unless it exists.
pub(super) fn write(path: &Path) {
    let marker = path_of_marker(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = format!("`{name}` holds progress of propulsiond. To begin at the origin, delete both files.\n");
    let written = fs::File::create_new(&marker).and_then(|mut file| {
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        // The marker only guards against a later loss of the file. Progress does not depend on it.
        Err(error) => tracing::warn!(%error, marker = %marker.display(), "cannot write the marker of the database"),
    }
}

/// Returns the path of the marker of a database.
pub(super) fn path_of_marker(path: &Path) -> PathBuf {
    let mut marker = path.as_os_str().to_owned();
    marker.push("-held");
    marker.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c17_an_empty_file_with_a_log_or_a_marker_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.db");
        fs::write(&path, "").unwrap();
        assert!(refuse_emptied(&path).is_ok(), "nothing shows earlier progress");
        let (log, marker) = (path_of_log(&path), path_of_marker(&path));
        fs::write(&log, "").unwrap();
        assert!(refuse_emptied(&path).is_ok(), "an empty log holds no commit");
        fs::write(&log, "a commit").unwrap();
        assert!(refuse_emptied(&path).unwrap_err().why.contains("p.db-wal"));
        fs::write(&log, "").unwrap();
        fs::write(&marker, "").unwrap();
        assert!(refuse_emptied(&path).unwrap_err().why.contains("p.db-held"));
    }

    #[test]
    fn c17_the_marker_of_a_deleted_database_is_deleted_before_a_new_one_is_created() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.db");
        write(&path);
        assert!(path_of_marker(&path).exists());
        assert!(refuse_emptied(&path).is_ok(), "the operator deleted the database");
        // The process crashes before its first write to the new database.
        fs::write(&path, "").unwrap();
        assert!(refuse_emptied(&path).is_ok(), "the new database never held progress");
    }
}
