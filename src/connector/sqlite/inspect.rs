//! Inspects a database file, also while a daemon uses it. Reads rows one by one. Changes the file only to repair it.

use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags, Row};

use super::errors::Failure;
use super::open::{APPLICATION_ID, VERSION, path_of_log};
use super::{marker, progress};
use crate::checkpoint::CheckpointKey;
use crate::connector::diagnosis::{Bounded, Diagnosis, MAX_LISTED, Remedy, Severity};
use crate::position::{Position, TrancheId};

/// The progress under one group and source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub group: String,
    pub source: String,
    pub tranches: u64,
    /// The name of one of the tranches.
    pub tranche: String,
    /// The time of the newest commit, RFC 3339; `None`: another program wrote it.
    pub last_commit: Option<String>,
}

/// The result of an inspection.
#[derive(Debug, Default)]
pub struct Inspected {
    pub diagnoses: Vec<Diagnosis>,
    /// The progress in the file.
    pub kept: Vec<Kept>,
}

/// Returns whether a file is a database with the daemon's tables.
pub fn is_ours(path: &Path) -> bool {
    let Ok(connection) = open(path) else { return false };
    number(&connection, "PRAGMA application_id").is_ok_and(|id| id == i64::from(APPLICATION_ID))
        || has_table(&connection, "propulsiond_schema")
}

/// Inspects a file. `in_use`: a daemon may be writing to it, so that a log beside it is normal. `repair`: repairs the
/// problems that need no decision.
pub fn inspect(path: &Path, in_use: bool, repair: bool) -> Inspected {
    let mut inspected = Inspected::default();
    if !path.exists() {
        return inspected;
    }
    if let Err(failure) = marker::refuse_emptied(path) {
        inspected.diagnoses.push(cannot_be_read(path, &failure));
        return inspected;
    }
    let log = path_of_log(path);
    let left = (!in_use).then(|| std::fs::metadata(&log).map_or(0, |log| log.len())).filter(|bytes| *bytes > 0);
    let connection = match open(path) {
        Ok(connection) => connection,
        Err(failure) => {
            inspected.diagnoses.push(cannot_be_read(path, &failure));
            return inspected;
        }
    };
    let damage = integrity(&connection, path);
    let is_whole = damage.is_empty();
    inspected.diagnoses.extend(damage);
    if is_whole {
        match look(&connection, path) {
            Ok((diagnoses, kept)) => {
                inspected.diagnoses.extend(diagnoses);
                inspected.kept = kept;
            }
            Err(failure) => inspected.diagnoses.push(cannot_be_read(path, &failure)),
        }
    }
    drop(connection);
    if let Some(bytes) = left {
        inspected.diagnoses.push(log_left(path, &log, bytes, is_whole, repair));
    }
    inspected
}

/// Returns the progress that a database holds, by group and source. An unreadable database holds none: [`inspect`] reports
/// it.
pub fn kept_in(path: &Path) -> Vec<Kept> {
    if !path.exists() {
        return Vec::new();
    }
    open(path).and_then(|connection| kept(&connection)).unwrap_or_default()
}

/// Calls `f` with the positions that the first `most` tranches of a group and source depend on, as
/// [`positions`](crate::connector::stored::Repository::positions) says. Skips unreadable rows, which
/// [`inspect`] reports.
pub fn positions(path: &Path, group: &str, source: &str, most: usize, f: &mut dyn FnMut(&str, &Position)) {
    let Ok(connection) = open(path) else { return };
    let keys = keys(&connection, "WHERE consumer_group = ?1 AND source = ?2", &[&group, &source], most);
    for (group, source, tranche) in keys.unwrap_or_default() {
        let key =
            CheckpointKey { group: group.into(), source: source.into(), tranche: TrancheId::new(tranche.as_str()) };
        if let Ok(Some(progress)) = progress::load(&connection, &key) {
            [progress.position, progress.read_to].iter().flatten().for_each(|position| f(&tranche, position));
        }
    }
}

/// Opens a file for reading. A file without a log is opened as immutable, so that SQLite creates no files beside it.
pub(super) fn open(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let path = std::path::absolute(path).map_err(|error| Failure::unavailable(error.to_string()))?;
    let immutable = if path_of_log(&path).exists() { "" } else { "?immutable=1" };
    let connection = Connection::open_with_flags(format!("file:{}{immutable}", escaped(&path)), flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    // SQLite reads the file only now, and it may not be a database.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    if has_table(&connection, "propulsiond_progress") && !has_column(&connection, "propulsiond_progress", "read_to") {
        // Tables of an earlier version are upgraded by their next user. Until then, a view of this name stands in for them.
        connection.execute_batch(
            "CREATE TEMP VIEW propulsiond_progress AS SELECT *, NULL AS read_to FROM main.propulsiond_progress",
        )?;
    }
    if has_table(&connection, "propulsiond_parked") && !has_table(&connection, "propulsiond_parked_streams") {
        connection.execute_batch(
            "CREATE TEMP VIEW propulsiond_parked_streams AS
                 SELECT consumer_group, source, stream, 'parked' AS state, count(*) AS events
                 FROM main.propulsiond_parked GROUP BY consumer_group, source, tranche, stream",
        )?;
    }
    Ok(connection)
}

fn has_column(connection: &Connection, table: &str, column: &str) -> bool {
    let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
    connection.query_row(sql, [table, column], |row| row.get(0)).is_ok_and(|count: i64| count > 0)
}

fn escaped(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    percent_encode(path.as_os_str().as_bytes(), ESCAPED).to_string()
}

/// The bytes of a path that are escaped in a URI.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const RESTORE: &str = "restore the file from a backup; without one, move it away with the files beside it (`-wal`, `-shm`): \
    its pipelines then start at their origins. `sqlite3 FILE .recover` shows the rows that can still be read";

fn cannot_be_read(path: &Path, failure: &Failure) -> Diagnosis {
    let means = "the pipelines that keep progress or results in it cannot run";
    Diagnosis::new(Severity::Error, path, format!("the database cannot be read: {}", failure.why), means)
        .operator(RESTORE)
}

fn integrity(connection: &Connection, path: &Path) -> Vec<Diagnosis> {
    let mut found = Bounded::default();
    let damaged = |why: &str| {
        let means = "the rows in the corrupt part are lost, and reading them fails";
        Diagnosis::new(Severity::Error, path, format!("the database is corrupt: {}", why.replace('\n', ", ")), means)
            .operator(RESTORE)
    };
    let checked = connection.prepare("PRAGMA integrity_check(20)").and_then(|mut statement| {
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let said: String = row.get(0)?;
            if said != "ok" {
                found.push(|| damaged(&said));
            }
        }
        Ok(())
    });
    if let Err(error) = checked {
        found.push(|| damaged(&Failure::from(error).why));
    }
    found.finish()
}

fn look(connection: &Connection, path: &Path) -> Result<(Vec<Diagnosis>, Vec<Kept>), Failure> {
    let mut diagnoses = Vec::new();
    if !has_table(connection, "propulsiond_schema") {
        return Ok((diagnoses, Vec::new()));
    }
    let version = number(connection, "SELECT coalesce(max(version), 0) FROM propulsiond_schema")?;
    if version > VERSION {
        let what =
            format!("a newer propulsiond wrote it: its tables have version {version}, this program knows {VERSION}");
        let means = "this program does not change it, and the pipelines that need it cannot run";
        diagnoses.push(
            Diagnosis::new(Severity::Error, path, what, means)
                .operator("run the newer program, or restore an older backup"),
        );
        return Ok((diagnoses, Vec::new()));
    }
    if version < VERSION {
        let what = format!("its tables have version {version}, the current version is {VERSION}");
        diagnoses.push(Diagnosis::new(Severity::Note, path, what, "the next pipeline that uses them upgrades them"));
    }
    diagnoses.extend(unreadable(connection, path)?);
    diagnoses.extend(write_positions(connection, path)?);
    diagnoses.extend(parked(connection, path)?);
    Ok((diagnoses, kept(connection)?))
}

fn has_table(connection: &Connection, name: &str) -> bool {
    let count = "SELECT count(*) FROM (SELECT name FROM sqlite_schema UNION ALL SELECT name FROM sqlite_temp_schema) WHERE name = ?1";
    let count = connection.query_row(count, [name], |row| row.get(0));
    count.is_ok_and(|count: i64| count > 0)
}

fn number(connection: &Connection, sql: &str) -> Result<i64, Failure> {
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Group, source and tranche.
type Names = (String, String, String);

const KEYS: &str = "(SELECT consumer_group, source, tranche FROM propulsiond_progress
    UNION SELECT consumer_group, source, tranche FROM propulsion_checkpoint)";

fn keys(
    connection: &Connection,
    condition: &str,
    values: &[&dyn rusqlite::ToSql],
    most: usize,
) -> Result<Vec<Names>, Failure> {
    if !has_table(connection, "propulsiond_progress") || !has_table(connection, "propulsion_checkpoint") {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare(&format!("SELECT * FROM {KEYS} {condition} LIMIT {most}"))?;
    let rows = statement.query_map(values, names)?;
    Ok(rows.filter_map(Result::ok).collect())
}

fn names(row: &Row<'_>) -> rusqlite::Result<Names> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// Finds rows of progress that no pipeline can resume from (R82).
fn unreadable(connection: &Connection, path: &Path) -> Result<Vec<Diagnosis>, Failure> {
    let mut found = Bounded::default();
    if !has_table(connection, "propulsiond_progress") || !has_table(connection, "propulsion_checkpoint") {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare(&format!("SELECT * FROM {KEYS}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (group, source, tranche) = match names(row) {
            Ok(names) => names,
            Err(error) => {
                found.push(|| damaged_row(path, "a row of progress has a name that is not text", &error.to_string()));
                continue;
            }
        };
        let key = CheckpointKey { group: group.into(), source: source.into(), tranche: TrancheId::new(tranche) };
        if let Err(failure) = progress::load(connection, &key) {
            found.push(|| {
                let what = format!("the progress of `{key}` cannot be read: {}", failure.why);
                let means = "its pipeline does not run, because it cannot know its position";
                let filter = row_filter(&key);
                Diagnosis::new(Severity::Error, path, what, means).operator(format!(
                    "decide, and run the statement in this file while no daemon uses it. To keep the position and repeat \
                     the handled events above it: UPDATE propulsiond_progress SET handled = NULL WHERE {filter}; to start \
                     at the origin: DELETE FROM propulsiond_progress WHERE {filter}; DELETE FROM propulsion_checkpoint \
                     WHERE {filter}"
                ))
            });
        }
    }
    Ok(found.finish())
}

fn damaged_row(path: &Path, what: &str, why: &str) -> Diagnosis {
    let means = "every read of it fails";
    Diagnosis::new(Severity::Error, path, format!("{what}: {why}"), means).operator(RESTORE)
}

fn row_filter(key: &CheckpointKey) -> String {
    let CheckpointKey { group, source, tranche } = key;
    format!(
        "consumer_group = {} AND source = {} AND tranche = {}",
        quoted(group),
        quoted(source),
        quoted(tranche.as_str())
    )
}

/// Quotes a text as SQL.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn write_positions(connection: &Connection, path: &Path) -> Result<Vec<Diagnosis>, Failure> {
    let mut found = Bounded::default();
    if !has_table(connection, "propulsiond_write_positions") {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare(
        "SELECT CAST(consumer_group AS TEXT), CAST(source AS TEXT), CAST(stream AS TEXT) FROM propulsiond_write_positions
         WHERE typeof(next) <> 'integer' OR next < 0 OR typeof(stream) <> 'text'",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (group, source, stream) = names(row).unwrap_or_default();
        found.push(|| {
            let what = format!("the write position of stream `{stream}` of `{group}/{source}` cannot be read");
            let means = "the pipeline fails at the next event of that stream";
            let filter = format!(
                "consumer_group = {} AND source = {} AND stream = {}",
                quoted(&group),
                quoted(&source),
                quoted(&stream)
            );
            Diagnosis::new(Severity::Error, path, what, means).operator(format!(
                "decide, and run the statement in this file while no daemon uses it. A redelivered event may then take \
                 effect twice: DELETE FROM propulsiond_write_positions WHERE {filter}"
            ))
        });
    }
    Ok(found.finish())
}

fn parked(connection: &Connection, path: &Path) -> Result<Vec<Diagnosis>, Failure> {
    if !has_table(connection, "propulsiond_parked_streams") {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare(&format!(
        "SELECT consumer_group, source, stream, events, count(*) OVER (), sum(events) OVER ()
         FROM propulsiond_parked_streams WHERE state = 'parked' ORDER BY events DESC, stream LIMIT {MAX_LISTED}"
    ))?;
    let mut rows = statement.query([])?;
    let (mut streams, mut totals) = (Vec::new(), (0, 0));
    while let Some(row) = rows.next()? {
        let (group, source, stream) = names(row).unwrap_or_default();
        let events: i64 = row.get(3)?;
        streams.push(format!("{events} of stream `{stream}` ({group}/{source})"));
        totals = (row.get::<_, i64>(4)?, row.get::<_, i64>(5)?);
    }
    let (all, events) = totals;
    if all == 0 {
        return Ok(Vec::new());
    }
    let more = usize::try_from(all).unwrap_or(usize::MAX).saturating_sub(streams.len());
    let more = if more > 0 { format!(" and {more} streams more") } else { String::new() };
    let what = format!("{events} events of {all} streams are parked: {}{more}", streams.join(", "));
    let means = "each failed, or queues behind a failed event of its stream; the other streams advance without them";
    let remedy = "list the streams of each pipeline with their errors (`propulsiond parked list NAME`), correct the cause, then \
        retry or discard them; they stay parked until then";
    Ok(vec![Diagnosis::new(Severity::Warning, path, what, means).operator(remedy)])
}

fn kept(connection: &Connection) -> Result<Vec<Kept>, Failure> {
    if !has_table(connection, "propulsiond_progress") || !has_table(connection, "propulsion_checkpoint") {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare(&format!(
        "SELECT k.consumer_group, k.source, count(*), min(k.tranche), max(p.updated_at) FROM {KEYS} k
         LEFT JOIN propulsiond_progress p USING (consumer_group, source, tranche)
         GROUP BY k.consumer_group, k.source ORDER BY 1, 2 LIMIT 10000"
    ))?;
    let rows = statement.query_map([], |row| {
        Ok(Kept {
            group: row.get(0)?,
            source: row.get(1)?,
            tranches: row.get::<_, i64>(2)?.unsigned_abs(),
            tranche: row.get(3)?,
            last_commit: row.get(4)?,
        })
    })?;
    Ok(rows.filter_map(Result::ok).collect())
}

fn log_left(path: &Path, log: &Path, bytes: u64, is_whole: bool, repair: bool) -> Diagnosis {
    let what = format!("a write-ahead log of {bytes} bytes is left: the database was not closed");
    let means = "nothing is lost: the log counts, and the next use of the database writes it back";
    let diagnosis = Diagnosis::new(Severity::Note, log, what, means);
    match (is_whole, repair) {
        (false, _) => {
            diagnosis.operator("leave it beside its database, which is corrupt: it may hold the missing rows")
        }
        (true, false) => diagnosis.remedy(Remedy::Fix("writes it back into the database".to_owned())),
        (true, true) => match write_back(path) {
            Ok(()) => diagnosis.remedy(Remedy::Fixed("it was written back into the database".to_owned())),
            Err(failure) => Diagnosis { severity: Severity::Warning, ..diagnosis }
                .operator(format!("it could not be written back: {}", failure.why)),
        },
    }
}

fn write_back(path: &Path) -> Result<(), Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        return Err(Failure::unavailable("another process uses the database"));
    }
    connection.close().map_err(|(_, error)| error.into())
}
