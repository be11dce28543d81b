//! Opening a database file: how the connection is set up, and the tables of our own in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::Synchronous;
use super::database::Tuning;
use super::failure::{self, Failure, Trouble};

/// Marks a file as ours: `prop` in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x7072_6f70;
/// The version of our tables.
pub(super) const VERSION: i64 = 3;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS propulsiond_schema (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS propulsion_checkpoint (
    source TEXT NOT NULL,
    tranche TEXT NOT NULL,
    consumer_group TEXT NOT NULL,
    position,
    PRIMARY KEY (source, tranche, consumer_group)
);
CREATE TABLE IF NOT EXISTS propulsiond_progress (
    source TEXT NOT NULL,
    tranche TEXT NOT NULL,
    consumer_group TEXT NOT NULL,
    fence INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    owner TEXT,
    since TEXT NOT NULL,
    committed INTEGER NOT NULL,
    position,
    handled BLOB,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (source, tranche, consumer_group)
);
CREATE TABLE IF NOT EXISTS propulsiond_write_positions (
    consumer_group TEXT NOT NULL,
    source TEXT NOT NULL,
    stream TEXT NOT NULL,
    next INTEGER NOT NULL,
    first INTEGER NOT NULL DEFAULT 0,
    gaps TEXT,
    PRIMARY KEY (consumer_group, source, stream)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS propulsiond_parked (
    consumer_group TEXT NOT NULL,
    source TEXT NOT NULL,
    tranche TEXT NOT NULL,
    stream TEXT NOT NULL,
    major INTEGER NOT NULL,
    minor INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    type TEXT NOT NULL,
    id TEXT NOT NULL,
    correlation TEXT NOT NULL,
    causation TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    data BLOB NOT NULL,
    meta BLOB NOT NULL,
    why TEXT NOT NULL,
    from_major INTEGER NOT NULL DEFAULT 0,
    from_minor INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer_group, source, tranche, stream, major, minor, idx, kind)
);
";

/// What version 1 lacks: it knew no gaps, and kept a position only where all below it was handled.
const FROM_VERSION_1: &str = "
ALTER TABLE propulsiond_write_positions ADD COLUMN first INTEGER NOT NULL DEFAULT 0;
ALTER TABLE propulsiond_write_positions ADD COLUMN gaps TEXT;
";

/// What version 2 lacks: it took a stream as parked from the smallest ordinal among its rows.
const FROM_VERSION_2: &str = "
ALTER TABLE propulsiond_parked ADD COLUMN from_major INTEGER NOT NULL DEFAULT 0;
ALTER TABLE propulsiond_parked ADD COLUMN from_minor INTEGER NOT NULL DEFAULT 0;
UPDATE propulsiond_parked SET from_major = major, from_minor = minor;
";

/// What a sink wants done before its first write.
#[derive(Debug, Default)]
pub(super) struct Setup {
    pub(super) init: Vec<String>,
    /// Makes the table of events.
    pub(super) create: String,
    /// Puts one event into it.
    pub(super) insert: Arc<str>,
}

/// An open connection, and what has been seen to on it.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) connection: Connection,
    path: PathBuf,
    synchronous: Synchronous,
    has_schema: bool,
    set_up: Vec<Arc<Setup>>,
}

impl Open {
    pub(super) fn new(path: &Path, tuning: Tuning) -> Result<Self, Failure> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| {
                Failure::unavailable(error.to_string())
                    .while_doing(format_args!("cannot make the folder `{}`", folder.display()))
            })?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(tuning.busy_timeout.min(std::time::Duration::from_secs(3_600)))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(Failure::unavailable(format!("its file system cannot hold a write-ahead log (`{mode}`)")));
        }
        let page: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0))?.max(512).into();
        // SQLite takes 32 bits, and nothing below its own defaults makes sense.
        let kibibytes = (tuning.cache / 1_024).clamp(2_000, 1 << 30);
        let pages = (tuning.log / page).clamp(1_000, 1 << 30);
        connection.execute_batch(&format!(
            "PRAGMA cache_size = -{kibibytes}; PRAGMA wal_autocheckpoint = {pages};
             PRAGMA temp_store = MEMORY; PRAGMA synchronous = FULL;"
        ))?;
        connection.set_prepared_statement_cache_capacity(256);
        let path = path.to_owned();
        Ok(Self { connection, path, synchronous: Synchronous::Full, has_schema: false, set_up: Vec::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a transaction of its own.
    pub(super) fn transaction<T>(
        &mut self,
        synchronous: Synchronous,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.begin(synchronous)?;
        match work(&self.connection) {
            Ok(done) => self.commit().map(|()| done),
            Err(failure) => {
                self.rollback();
                Err(failure)
            }
        }
    }

    pub(super) fn begin(&mut self, synchronous: Synchronous) -> Result<(), Failure> {
        if self.synchronous != synchronous {
            let level = match synchronous {
                Synchronous::Normal => "PRAGMA synchronous = NORMAL",
                Synchronous::Full => "PRAGMA synchronous = FULL",
            };
            self.connection.execute_batch(level)?;
            self.synchronous = synchronous;
        }
        run(&self.connection, "BEGIN IMMEDIATE")
    }

    pub(super) fn commit(&mut self) -> Result<(), Failure> {
        let committed = match self.connection.prepare_cached("COMMIT") {
            Ok(mut statement) => statement.raw_execute().map_err(failure::of_commit),
            Err(error) => Err(error.into()),
        };
        if committed.is_err() {
            self.rollback();
        }
        committed.map(|_| ())
    }

    /// Ends a transaction, if SQLite has not done that already.
    pub(super) fn rollback(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(failure) = run(&self.connection, "ROLLBACK")
        {
            tracing::error!(error = %failure.why, "cannot roll back");
        }
    }

    /// Sees to it that our tables are there, and ours to read.
    pub(super) fn with_schema(&mut self) -> Result<&mut Self, Failure> {
        if !self.has_schema {
            self.create_schema()?;
            self.has_schema = true;
        }
        Ok(self)
    }

    fn create_schema(&mut self) -> Result<(), Failure> {
        self.transaction(Synchronous::Full, |connection| {
            let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(Failure::from);
            let is_ours = number("PRAGMA application_id")? == i64::from(APPLICATION_ID);
            if is_ours {
                refuse_newer(number("PRAGMA user_version")?)?;
            }
            let mut stored = VERSION;
            if number("SELECT count(*) FROM sqlite_schema WHERE name = 'propulsiond_schema'")? > 0 {
                stored = number("SELECT coalesce(max(version), 0) FROM propulsiond_schema")?;
                refuse_newer(stored)?;
            } else if number("SELECT count(*) FROM sqlite_schema")? == 0 {
                // Other people's databases keep their own numbers.
                connection.execute_batch(&format!(
                    "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
                ))?;
            }
            connection.execute_batch(SCHEMA)?;
            let steps: &[&str] = match stored {
                1 => &[FROM_VERSION_1, FROM_VERSION_2],
                2 => &[FROM_VERSION_2],
                _ => &[],
            };
            if !steps.is_empty() {
                steps.iter().try_for_each(|step| connection.execute_batch(step))?;
                connection.execute_batch(&format!("UPDATE propulsiond_schema SET version = {VERSION};"))?;
                if is_ours {
                    connection.execute_batch(&format!("PRAGMA user_version = {VERSION};"))?;
                }
            }
            connection.execute_batch(&format!(
                "INSERT INTO propulsiond_schema (version) SELECT {VERSION} WHERE NOT EXISTS (SELECT 1 FROM propulsiond_schema)"
            ))?;
            Ok(())
        })
    }

    /// Runs a sink's statements, the first time that it is seen on this connection.
    pub(super) fn set_up(&mut self, setup: &Arc<Setup>) -> Result<(), Failure> {
        if self.set_up.iter().any(|done| Arc::ptr_eq(done, setup)) {
            return Ok(());
        }
        self.transaction(Synchronous::Full, |connection| {
            setup.init.iter().try_for_each(|sql| {
                connection.execute_batch(sql).map_err(|error| {
                    let failure = Failure::from(error).while_doing(format_args!(
                        "the statement `{}` of `init` does not work",
                        super::statement::shorten(sql)
                    ));
                    // A table that cannot be made is no event's fault: everything waits until somebody mends it.
                    Failure { trouble: Trouble::Unavailable, ..failure }
                })
            })
        })?;
        self.set_up.retain(|setup| Arc::strong_count(setup) > 1);
        self.set_up.push(Arc::clone(setup));
        Ok(())
    }
}

fn refuse_newer(version: i64) -> Result<(), Failure> {
    if version > VERSION {
        return Err(Failure::unreadable(format!(
            "it was written by a newer propulsiond (its tables have version {version}, this one knows {VERSION})"
        )));
    }
    Ok(())
}

/// Runs a statement that is used again and again.
pub(super) fn run(connection: &Connection, sql: &str) -> Result<(), Failure> {
    connection.prepare_cached(sql)?.raw_execute()?;
    Ok(())
}
