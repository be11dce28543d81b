//! The exchange of a database for a rebuilt one: it is closed for certain, and the two are compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use rusqlite::{Connection, OpenFlags};

use super::errors::{Failure, FailureKind};
use super::{inspect, marker};

/// Writes the log of a database back and deletes it. Proves that no other connection is open.
///
/// # Errors
/// Another process has the database open, or it cannot be read.
pub(super) fn settle(path: &Path, busy_timeout: Duration) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    close(path, busy_timeout).map_err(|failure| {
        let remedy = match failure.kind {
            FailureKind::Unreadable => "move it away to go on without it",
            _ => "close the programs that have it open",
        };
        anyhow!("cannot close the database `{}`: {} ({remedy})", path.display(), failure.why)
    })
}

fn close(path: &Path, busy_timeout: Duration) -> Result<(), Failure> {
    marker::refuse_emptied(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    // A transaction rolls back the journal that a crash of another program may have left, and proves that none writes now.
    connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
    // A log belongs to a database by its name alone: left behind, it would be replayed into the database that gets the
    // name next. A program that has the old file open would do the same later, through the log that both then share. To
    // leave the mode, SQLite writes the log back and deletes it, and refuses that while another connection is open. The
    // next pipeline that opens the file turns the log on again.
    let mode: String = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    if mode != "delete" {
        return Err(Failure::unavailable("another process has it open"));
    }
    connection.close().map_err(|(_, error)| error.into())
}

/// Returns the tables, views, indexes and triggers that exist in `present` and whose names `rebuilt` lacks. A table and a view
/// of one name count as the same, as their readers use them alike.
///
/// # Errors
/// A database cannot be read.
pub(super) fn missing(present: &Path, rebuilt: &Path) -> anyhow::Result<Vec<String>> {
    let rebuilt = objects(rebuilt)?;
    let missing = objects(present)?.into_iter().filter(|(name, _)| !rebuilt.contains_key(name));
    Ok(missing.map(|(name, kind)| format!("the {kind} `{name}`")).collect())
}

/// Returns the name and kind of each object of a database, apart from those of SQLite and the daemon, which no setting makes.
fn objects(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let listed = || -> Result<_, Failure> {
        let connection = inspect::open(path)?;
        let mut statement = connection.prepare(
            "SELECT name, type FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*' AND name NOT GLOB 'propulsiond_*'",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    listed().map_err(|failure| {
        anyhow!("cannot read the database `{}`: {} (move it away to go on without it)", path.display(), failure.why)
    })
}

#[cfg(test)]
mod tests {
    use super::super::open::path_of_log;
    use super::*;

    const NO_WAIT: Duration = Duration::ZERO;

    /// Creates a database with a log, and returns its open connection.
    fn database(path: &Path, statements: &str) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(&format!("PRAGMA journal_mode = WAL; {statements}")).unwrap();
        connection
    }

    fn open_and_run(path: &Path, statements: &str) {
        Connection::open(path).unwrap().execute_batch(statements).unwrap();
    }

    #[test]
    fn a_database_is_settled_once_no_other_connection_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        settle(&path, NO_WAIT).unwrap();
        assert!(!path.exists(), "nothing is created");

        let open = database(&path, "CREATE TABLE t (a); INSERT INTO t VALUES (7)");
        let error = format!("{:#}", settle(&path, NO_WAIT).unwrap_err());
        assert!(error.contains("a.db`: database is locked (close the programs"), "{error}");
        assert!(path_of_log(&path).exists());

        drop(open);
        settle(&path, NO_WAIT).unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN IMMEDIATE").unwrap();
        settle(&path, NO_WAIT).unwrap_err();
        reader.execute_batch("ROLLBACK").unwrap();
        settle(&path, NO_WAIT).expect("a reader does not matter any more: it shares no log with the next database");
        assert!(!path_of_log(&path).exists());
        assert_eq!(reader.query_row("SELECT a FROM t", [], |row| row.get::<_, i64>(0)), Ok(7));
    }

    #[test]
    fn a_corrupt_database_is_named_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        std::fs::write(&path, [0x5a; 4096]).unwrap();
        for error in [settle(&path, NO_WAIT).unwrap_err(), missing(&path, &path).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("a.db`: file is not a database (move it away"), "{error}");
        }
    }

    #[test]
    fn a_log_that_a_crash_left_is_written_back() {
        let directory = tempfile::tempdir().unwrap();
        let (path, copy) = (directory.path().join("a.db"), directory.path().join("copy.db"));
        let open = database(&path, "PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (a); INSERT INTO t VALUES (7)");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(path_of_log(&path), path_of_log(&copy)).unwrap();
        drop(open);
        settle(&copy, NO_WAIT).unwrap();
        assert!(!path_of_log(&copy).exists());
        assert_eq!(missing(&path, &copy).unwrap(), [""; 0]);
    }

    #[test]
    fn objects_that_a_rebuilt_database_lacks_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let (present, rebuilt) = (directory.path().join("a.db"), directory.path().join("b.db"));
        assert_eq!(missing(&present, &rebuilt).unwrap(), [""; 0]);
        let made = "CREATE TABLE t (a PRIMARY KEY);";
        drop(database(
            &present,
            &format!(
                "{made} CREATE TABLE propulsiond_x (a); CREATE VIEW v AS SELECT a FROM t; CREATE INDEX i ON t (a)"
            ),
        ));
        drop(database(&rebuilt, &format!("{made} CREATE TABLE more (a)")));
        assert_eq!(missing(&present, &rebuilt).unwrap(), ["the index `i`", "the view `v`"]);
        assert_eq!(missing(&rebuilt, &present).unwrap(), ["the table `more`"]);
        open_and_run(&rebuilt, "CREATE TABLE v (a); CREATE INDEX i ON more (a)");
        assert_eq!(missing(&present, &rebuilt).unwrap(), [""; 0], "a table takes the place of a view");
    }
}
