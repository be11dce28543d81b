//! An open database file: the connection's settings, and the daemon's own tables in the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::database::Tuning;
use super::errors::{self, Failure, FailureKind};
use super::{Synchronous, marker};
use crate::clock::{Clock, Timestamp};

/// The mark of a file that propulsiond created: `prop` in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x7072_6f70;
/// The version of the daemon's tables.
pub(super) const VERSION: i64 = 6;

/// The statement that creates the table of parked events. The upgrade from version 5 repeats it.
macro_rules! parked_table {
    () => {
        "CREATE TABLE IF NOT EXISTS propulsiond_parked (
    consumer_group TEXT NOT NULL,
    source TEXT NOT NULL,
    tranche TEXT NOT NULL,
    stream TEXT NOT NULL,
    major INTEGER NOT NULL,
    minor INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    unfold INTEGER NOT NULL,
    discarded INTEGER NOT NULL DEFAULT 0,
    kind INTEGER NOT NULL,
    type TEXT NOT NULL,
    id TEXT NOT NULL,
    correlation TEXT NOT NULL,
    causation TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    data BLOB NOT NULL,
    meta BLOB NOT NULL,
    data_format INTEGER NOT NULL DEFAULT 0,
    meta_format INTEGER NOT NULL DEFAULT 0,
    headers BLOB,
    tombstone INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer_group, source, tranche, stream, major, minor, idx, unfold)
);"
    };
}

const SCHEMA: &str = concat!(
    "
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
    read_to,
    PRIMARY KEY (source, tranche, consumer_group)
);
CREATE TABLE IF NOT EXISTS propulsiond_log (
    entry INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    tranche TEXT NOT NULL,
    consumer_group TEXT NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    committed INTEGER NOT NULL,
    position,
    handled BLOB,
    read_to
);
CREATE INDEX IF NOT EXISTS propulsiond_log_of_key ON propulsiond_log (source, tranche, consumer_group, at);
CREATE TABLE IF NOT EXISTS propulsiond_write_positions (
    consumer_group TEXT NOT NULL,
    source TEXT NOT NULL,
    stream TEXT NOT NULL,
    next INTEGER NOT NULL,
    first INTEGER NOT NULL DEFAULT 0,
    gaps TEXT,
    tranche TEXT,
    PRIMARY KEY (consumer_group, source, stream)
) WITHOUT ROWID;
",
    parked_table!(),
    "
CREATE TABLE IF NOT EXISTS propulsiond_parked_streams (
    consumer_group TEXT NOT NULL,
    source TEXT NOT NULL,
    tranche TEXT NOT NULL,
    stream TEXT NOT NULL,
    from_major INTEGER NOT NULL,
    from_minor INTEGER NOT NULL,
    events INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    state TEXT NOT NULL,
    class TEXT NOT NULL,
    why TEXT NOT NULL,
    idx INTEGER NOT NULL,
    type TEXT NOT NULL,
    since INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    version TEXT NOT NULL,
    due INTEGER,
    job TEXT,
    PRIMARY KEY (consumer_group, source, tranche, stream)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS propulsiond_parked_due ON propulsiond_parked_streams (consumer_group, source, tranche, due, stream)
    WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS propulsiond_parked_of_job ON propulsiond_parked_streams (consumer_group, source, job, due)
    WHERE job IS NOT NULL;
CREATE TABLE IF NOT EXISTS propulsiond_parked_jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer_group TEXT NOT NULL,
    source TEXT NOT NULL,
    job TEXT NOT NULL,
    action TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    at INTEGER NOT NULL,
    streams INTEGER NOT NULL,
    UNIQUE (consumer_group, source, job)
);
"
);

/// The upgrade from version 1, which kept no gaps: every index below `next` was handled.
const FROM_VERSION_1: &str = "
ALTER TABLE propulsiond_write_positions ADD COLUMN first INTEGER NOT NULL DEFAULT 0;
ALTER TABLE propulsiond_write_positions ADD COLUMN gaps TEXT;
";

/// The upgrade from version 2, which parked a stream from the smallest ordinal among its rows.
const FROM_VERSION_2: &str = "
ALTER TABLE propulsiond_parked ADD COLUMN from_major INTEGER NOT NULL DEFAULT 0;
ALTER TABLE propulsiond_parked ADD COLUMN from_minor INTEGER NOT NULL DEFAULT 0;
UPDATE propulsiond_parked SET from_major = major, from_minor = minor;
";

/// The upgrade from version 3, which kept no tranche with a write position.
const FROM_VERSION_3: &str = "
ALTER TABLE propulsiond_write_positions ADD COLUMN tranche TEXT;
";

/// The upgrade from version 4, which kept neither the end of the read that brought the last handled ordinal, nor the headers
/// and formats of a parked event.
const FROM_VERSION_4: &str = "
ALTER TABLE propulsiond_progress ADD COLUMN read_to;
ALTER TABLE propulsiond_parked ADD COLUMN data_format INTEGER NOT NULL DEFAULT 0;
ALTER TABLE propulsiond_parked ADD COLUMN meta_format INTEGER NOT NULL DEFAULT 0;
ALTER TABLE propulsiond_parked ADD COLUMN headers BLOB;
ALTER TABLE propulsiond_parked ADD COLUMN tombstone INTEGER NOT NULL DEFAULT 0;
";

/// The upgrade from version 5, which kept the reason and the first ordinal of a parked stream with each of its events. The
/// first event of a stream tells the reason. The time is unknown: a stream counts as parked at the upgrade.
const FROM_VERSION_5: &str = concat!(
    "
ALTER TABLE propulsiond_parked RENAME TO propulsiond_parked_5;
",
    parked_table!(),
    "
INSERT OR IGNORE INTO propulsiond_parked
    (consumer_group, source, tranche, stream, major, minor, idx, unfold, kind, type, id, correlation, causation, timestamp,
     data, meta, data_format, meta_format, headers, tombstone)
    SELECT consumer_group, source, tranche, stream, major, minor, idx, kind = 1, kind, type, id, correlation, causation, timestamp,
        data, meta, data_format, meta_format, headers, tombstone
    FROM propulsiond_parked_5 ORDER BY consumer_group, source, tranche, stream, major, minor, idx, kind;
INSERT INTO propulsiond_parked_streams
    (consumer_group, source, tranche, stream, from_major, from_minor, events, bytes, state, class, why, idx, type, since,
     attempts, version)
    SELECT consumer_group, source, tranche, stream, from_major, from_minor, 0, 0, 'parked', 'permanent', why, idx, type,
        unixepoch() * 1000, 1, ''
    FROM (SELECT consumer_group, source, tranche, stream, why, idx, type,
              first_value(from_major) OVER by_from AS from_major, first_value(from_minor) OVER by_from AS from_minor,
              row_number() OVER by_ordinal AS place
          FROM propulsiond_parked_5
          WINDOW by_from AS (PARTITION BY consumer_group, source, tranche, stream ORDER BY from_major, from_minor),
              by_ordinal AS (PARTITION BY consumer_group, source, tranche, stream ORDER BY major, minor, idx, kind))
    WHERE place = 1;
UPDATE propulsiond_parked_streams AS s SET (events, bytes) =
    (SELECT count(*), coalesce(sum(length(data) + length(meta) + coalesce(length(headers), 0)), 0) FROM propulsiond_parked p
     WHERE p.consumer_group = s.consumer_group AND p.source = s.source AND p.tranche = s.tranche AND p.stream = s.stream);
DROP TABLE propulsiond_parked_5;
"
);

/// The upgrades, each from the version that is its place from 1 on.
const UPGRADES: [&str; VERSION as usize - 1] =
    [FROM_VERSION_1, FROM_VERSION_2, FROM_VERSION_3, FROM_VERSION_4, FROM_VERSION_5];

/// The indexes over columns that earlier versions lack.
const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS propulsiond_parked_by_index ON propulsiond_parked
    (consumer_group, source, tranche, stream, idx, unfold DESC, major, minor);
";

/// The longest busy timeout that SQLite's 32 bits of milliseconds hold with room to spare.
const MAX_BUSY_TIMEOUT: Duration = Duration::from_secs(3_600);
/// The number of compiled statements that a connection keeps.
const STATEMENT_CACHE: usize = 256;

/// The statements of a sink.
#[derive(Debug, Default)]
pub(super) struct Setup {
    /// The statements that run before the first write.
    pub(super) init: Vec<String>,
    /// The statement that creates the table of events.
    pub(super) create: String,
    /// The statement that stores one event.
    pub(super) insert: Arc<str>,
}

/// An open connection and its state.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) connection: Connection,
    path: PathBuf,
    busy_timeout: Duration,
    /// The level that the connection is set to.
    synchronous: Synchronous,
    has_schema: bool,
    clock: Clock,
    /// The time since when the log may hold pages that the file lacks.
    log_since: Option<Timestamp>,
    /// The sinks whose `init` ran on this connection.
    set_up: Vec<Arc<Setup>>,
}

impl Open {
    /// Opens a file, or creates it with its directory.
    ///
    /// # Errors
    /// A file that is empty, but held progress before, is unreadable (C17).
    pub(super) fn new(path: &Path, tuning: Tuning) -> Result<Self, Failure> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| {
                Failure::unavailable(error.to_string())
                    .while_doing(format_args!("cannot create the directory `{}`", directory.display()))
            })?;
        }
        marker::refuse_emptied(path)?;
        let clock = Clock::start();
        let has_log = std::fs::metadata(path_of_log(path)).is_ok_and(|log| log.len() > 0);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let busy_timeout = tuning.busy_timeout.min(MAX_BUSY_TIMEOUT);
        connection.busy_timeout(busy_timeout)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(Failure::unavailable(format!("its file system cannot hold a write-ahead log (`{mode}`)")));
        }
        let page: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0))?.max(512).into();
        // The lower limits are SQLite's defaults. The upper ones fit its 32 bits.
        let kibibytes = (tuning.cache / 1_024).clamp(2_000, 1 << 30);
        let pages = (tuning.log / page).clamp(1_000, 1 << 30);
        connection.execute_batch(&format!(
            "PRAGMA cache_size = -{kibibytes}; PRAGMA wal_autocheckpoint = {pages};
             PRAGMA temp_store = MEMORY; PRAGMA synchronous = FULL;"
        ))?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        Ok(Self {
            connection,
            path: path.to_owned(),
            busy_timeout,
            synchronous: Synchronous::Full,
            has_schema: false,
            clock,
            log_since: has_log.then(|| clock.now()),
            set_up: Vec::new(),
        })
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

    /// Begins a transaction whose commit is as durable as `synchronous` says.
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
            Ok(mut statement) => statement.raw_execute().map_err(errors::of_commit),
            Err(error) => Err(error.into()),
        };
        self.log_since.get_or_insert_with(|| self.clock.now());
        if committed.is_err() {
            self.rollback();
        }
        committed.map(|_| ())
    }

    /// Returns whether the log may hold pages that the file lacks.
    pub(super) fn has_log(&self) -> bool {
        self.log_since.is_some()
    }

    /// Writes the log back into the file and truncates it, as far as the transactions of other processes allow. Does not wait
    /// for them.
    pub(super) fn write_back(&mut self) {
        let written = self.connection.busy_timeout(Duration::ZERO).and_then(|()| {
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        });
        // A failure costs nothing: the log counts, and the next idle time or the close of the file writes it back.
        match written {
            Ok(0) => self.log_since = None,
            Ok(_busy) => {}
            Err(error) => tracing::debug!(%error, "the log could not be written back"),
        }
        if let Err(error) = self.connection.busy_timeout(self.busy_timeout) {
            tracing::warn!(%error, "the busy timeout could not be restored");
        }
    }

    /// Writes back a log older than `max_age`, as far as that is possible without waiting. The next commits overwrite it. This is
    /// for databases that are never idle.
    pub(super) fn write_back_old_log(&mut self, max_age: Duration) {
        let now = self.clock.now();
        if self.log_since.is_none_or(|since| now.since(since) < max_age) {
            return;
        }
        // As above, a failure costs nothing. The next attempt follows after the same time.
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::debug!(%error, "the log could not be written back");
        }
        self.log_since = Some(now);
    }

    /// Frees the memory that only makes the next requests faster: pages and compiled statements.
    pub(super) fn release_memory(&self) {
        self.connection.flush_prepared_statement_cache();
        if let Err(error) = self.connection.execute_batch("PRAGMA shrink_memory") {
            tracing::debug!(%error, "the memory of an idle database could not be freed");
        }
    }

    /// Rolls a transaction back, unless SQLite did so already.
    pub(super) fn rollback(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(failure) = run(&self.connection, "ROLLBACK")
        {
            tracing::error!(error = %failure.why, "cannot roll back");
        }
    }

    /// Creates the daemon's tables, or upgrades them, once per connection.
    pub(super) fn with_schema(&mut self) -> Result<&mut Self, Failure> {
        if !self.has_schema {
            self.create_schema()?;
            marker::write(&self.path);
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
                // A database of another program keeps its own numbers.
                connection.execute_batch(&format!(
                    "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
                ))?;
            }
            connection.execute_batch(SCHEMA)?;
            // A table of versions without a row has version 0. It was created just now.
            let upgrades = usize::try_from(stored - 1).ok().and_then(|from| UPGRADES.get(from..)).unwrap_or_default();
            if !upgrades.is_empty() {
                upgrades.iter().try_for_each(|upgrade| connection.execute_batch(upgrade))?;
                connection.execute_batch(&format!("UPDATE propulsiond_schema SET version = {VERSION};"))?;
                if is_ours {
                    connection.execute_batch(&format!("PRAGMA user_version = {VERSION};"))?;
                }
            }
            connection.execute_batch(INDEXES)?;
            connection.execute_batch(&format!(
                "INSERT INTO propulsiond_schema (version) SELECT {VERSION} WHERE NOT EXISTS (SELECT 1 FROM propulsiond_schema)"
            ))?;
            Ok(())
        })
    }

    /// Runs a sink's `init` statements, once per connection.
    pub(super) fn set_up(&mut self, setup: &Arc<Setup>) -> Result<(), Failure> {
        if self.set_up.iter().any(|done| Arc::ptr_eq(done, setup)) {
            return Ok(());
        }
        self.transaction(Synchronous::Full, |connection| {
            setup.init.iter().try_for_each(|sql| {
                connection.execute_batch(sql).map_err(|error| {
                    let failure = Failure::from(error).while_doing(format_args!(
                        "the statement `{}` of `init` failed",
                        super::statement::shorten(sql)
                    ));
                    // No event is at fault for a table that cannot be created. All writes wait until it can.
                    Failure { kind: FailureKind::Unavailable, ..failure }
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
            "a newer propulsiond wrote it (its tables have version {version}, this program knows {VERSION})"
        )));
    }
    Ok(())
}

/// Returns the path of a database's write-ahead log.
pub(super) fn path_of_log(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Runs a statement without parameters, compiled once.
pub(super) fn run(connection: &Connection, sql: &str) -> Result<(), Failure> {
    connection.prepare_cached(sql)?.raw_execute()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn open(directory: &Path) -> Open {
        // Long enough that a write back that waits for a reader exceeds the limit of the test.
        let tuning = Tuning { busy_timeout: MAX_BUSY_TIMEOUT, cache: 0, log: 0 };
        Open::new(&directory.join("p.db"), tuning).unwrap()
    }

    fn run_in_transaction(open: &mut Open, sql: &str) {
        open.transaction(Synchronous::Normal, |connection| Ok(connection.execute_batch(sql)?)).unwrap();
    }

    #[test]
    fn w2_a_write_back_waits_for_no_reader_and_stays_due_until_the_reader_ends() {
        let directory = tempfile::tempdir().unwrap();
        let mut open = open(directory.path());
        assert!(!open.has_log(), "nothing was written yet");
        run_in_transaction(&mut open, "CREATE TABLE t (a); INSERT INTO t VALUES (1)");
        let reader = Connection::open(open.path()).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM t;").unwrap();
        run_in_transaction(&mut open, "INSERT INTO t VALUES (2)");

        let (written_back, done) = mpsc::channel();
        std::thread::spawn(move || {
            open.write_back();
            written_back.send(open).unwrap();
        });
        let mut open = done.recv_timeout(Duration::from_secs(60)).expect("the write back waits for the reader");
        assert!(open.has_log(), "the reader needs the old version of the file");
        let timeout: u32 = open.connection.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap();
        assert_eq!(u128::from(timeout), MAX_BUSY_TIMEOUT.as_millis(), "later requests wait for other writers again");

        reader.execute_batch("COMMIT").unwrap();
        open.write_back();
        assert!(!open.has_log());
        assert_eq!(std::fs::metadata(path_of_log(open.path())).unwrap().len(), 0);
    }

    #[test]
    fn w2_an_old_log_of_a_busy_database_is_written_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut open = open(directory.path());
        let rows_without_log = |open: &Open| {
            let copy = directory.path().join("copy.db");
            std::fs::copy(open.path(), &copy).unwrap();
            let count = "SELECT count(*) FROM t";
            Connection::open(copy).unwrap().query_row(count, [], |row| row.get::<_, i64>(0)).ok()
        };
        run_in_transaction(&mut open, "CREATE TABLE t (a); INSERT INTO t VALUES (1)");
        open.write_back_old_log(Duration::from_secs(3_600));
        assert_eq!(rows_without_log(&open), None, "the log is young");
        open.write_back_old_log(Duration::ZERO);
        assert_eq!(rows_without_log(&open), Some(1));
        assert!(open.has_log(), "the idle database truncates it");
    }

    /// Undoes the upgrade from each version, from 1 on.
    const DOWNGRADES: [&str; UPGRADES.len()] = [
        "ALTER TABLE propulsiond_write_positions DROP COLUMN first;
         ALTER TABLE propulsiond_write_positions DROP COLUMN gaps;",
        "ALTER TABLE propulsiond_parked DROP COLUMN from_major;
         ALTER TABLE propulsiond_parked DROP COLUMN from_minor;",
        "ALTER TABLE propulsiond_write_positions DROP COLUMN tranche;",
        "ALTER TABLE propulsiond_progress DROP COLUMN read_to;
         ALTER TABLE propulsiond_parked DROP COLUMN data_format;
         ALTER TABLE propulsiond_parked DROP COLUMN meta_format;
         ALTER TABLE propulsiond_parked DROP COLUMN headers;
         ALTER TABLE propulsiond_parked DROP COLUMN tombstone;",
        "DROP TABLE propulsiond_parked; DROP TABLE propulsiond_parked_streams; DROP TABLE propulsiond_parked_jobs;
         CREATE TABLE propulsiond_parked (
             consumer_group TEXT NOT NULL, source TEXT NOT NULL, tranche TEXT NOT NULL, stream TEXT NOT NULL,
             major INTEGER NOT NULL, minor INTEGER NOT NULL, idx INTEGER NOT NULL, kind INTEGER NOT NULL, type TEXT NOT NULL,
             id TEXT NOT NULL, correlation TEXT NOT NULL, causation TEXT NOT NULL, timestamp TEXT NOT NULL,
             data BLOB NOT NULL, meta BLOB NOT NULL, why TEXT NOT NULL, from_major INTEGER NOT NULL DEFAULT 0,
             from_minor INTEGER NOT NULL DEFAULT 0, data_format INTEGER NOT NULL DEFAULT 0,
             meta_format INTEGER NOT NULL DEFAULT 0, headers BLOB, tombstone INTEGER NOT NULL DEFAULT 0,
             PRIMARY KEY (consumer_group, source, tranche, stream, major, minor, idx, kind)
         );",
    ];

    #[test]
    fn tables_of_each_earlier_version_gain_the_columns_that_they_lack() {
        let columns = |open: &Open| -> String {
            let all = "SELECT group_concat(m.name || '.' || c.name, ' ' ORDER BY m.name, c.name)
                FROM sqlite_schema m, pragma_table_info(m.name) c";
            open.connection.query_row(all, [], |row| row.get(0)).unwrap()
        };
        for stored in 1..VERSION {
            let directory = tempfile::tempdir().unwrap();
            let mut old = open(directory.path());
            old.with_schema().unwrap();
            let expected = columns(&old);
            for downgrade in DOWNGRADES[usize::try_from(stored).unwrap() - 1..].iter().rev() {
                old.connection.execute_batch(downgrade).unwrap();
            }
            assert_ne!(columns(&old), expected, "version {stored}");
            let rest = "INSERT INTO propulsiond_write_positions (consumer_group, source, stream, next)
                VALUES ('g', 's', 'a-1', 5);";
            let version = format!("UPDATE propulsiond_schema SET version = {stored}; PRAGMA user_version = {stored};");
            old.connection.execute_batch(&format!("{rest} {version}")).unwrap();
            drop(old);
            let mut open = open(directory.path());
            open.with_schema().unwrap();
            assert_eq!(columns(&open), expected, "version {stored}");
            let number = |sql: &str| open.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
            // An old row names no tranche (C12).
            let kept = "SELECT count(*) FROM propulsiond_write_positions WHERE next = 5 AND tranche IS NULL";
            assert_eq!(number(kept), 1, "version {stored}");
            assert_eq!([number("SELECT version FROM propulsiond_schema"), number("PRAGMA user_version")], [VERSION; 2]);
        }
    }
}
