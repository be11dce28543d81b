//! The log of commits: a position a minute for each key, and each progress that an operator replaced.

use rusqlite::{Connection, OptionalExtension, Row, params};
use time::OffsetDateTime;

use super::errors::Failure;
use super::progress::{Cell, encode, position};
use crate::checkpoint::{CheckpointKey, LOG_INTERVAL, LogEntry, LogReason, MAX_LOG_ENTRIES};
use crate::clock;
use crate::position::{OrdinalSet, Position, Progress};

/// Logs a commit, unless the newest entry is too young.
pub(super) fn note_commit(
    connection: &Connection,
    key: &CheckpointKey,
    position: Option<&Position>,
) -> Result<(), Failure> {
    let now = clock::wall().unix_timestamp();
    let newest: Option<i64> = connection
        .prepare_cached(
            "SELECT at FROM propulsiond_log WHERE source = ?1 AND tranche = ?2 AND consumer_group = ?3
             ORDER BY at DESC LIMIT 1",
        )?
        .query_row(params![&*key.source, key.tranche.as_str(), &*key.group], |row| row.get(0))
        .optional()?;
    // After the clock went back, the newest entry lies in the future for a while.
    let is_due = newest.is_none_or(|newest| now.abs_diff(newest) >= LOG_INTERVAL.as_secs());
    if is_due {
        let progress = Progress { position: position.cloned(), ..Progress::default() };
        note(connection, key, now, LogReason::Commit, Some(&progress))?;
    }
    Ok(())
}

/// Logs the progress that an operator replaces.
pub(super) fn note_replaced(
    connection: &Connection,
    key: &CheckpointKey,
    progress: Option<&Progress>,
) -> Result<(), Failure> {
    note(connection, key, clock::wall().unix_timestamp(), LogReason::Replaced, progress)
}

fn note(
    connection: &Connection,
    key: &CheckpointKey,
    at: i64,
    reason: LogReason,
    progress: Option<&Progress>,
) -> Result<(), Failure> {
    let handled = progress.map(|progress| encode(&progress.handled)).filter(|handled| !handled.is_empty());
    connection
        .prepare_cached(
            "INSERT INTO propulsiond_log (source, tranche, consumer_group, at, reason, committed, position, handled, read_to)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            &*key.source,
            key.tranche.as_str(),
            &*key.group,
            at,
            reason.as_str(),
            progress.is_some(),
            Cell(progress.and_then(|progress| progress.position.as_ref())),
            handled,
            Cell(progress.and_then(|progress| progress.read_to.as_ref())),
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM propulsiond_log WHERE source = ?1 AND tranche = ?2 AND consumer_group = ?3 AND entry NOT IN (
                 SELECT entry FROM propulsiond_log WHERE source = ?1 AND tranche = ?2 AND consumer_group = ?3
                 ORDER BY entry DESC LIMIT ?4)",
        )?
        .execute(params![&*key.source, key.tranche.as_str(), &*key.group, MAX_LOG_ENTRIES as i64])?;
    Ok(())
}

/// Returns the entries of a key, the newest first.
pub(super) fn entries(connection: &Connection, key: &CheckpointKey) -> Result<Vec<LogEntry>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT entry, at, reason, committed, position, handled, read_to FROM propulsiond_log
         WHERE source = ?1 AND tranche = ?2 AND consumer_group = ?3 ORDER BY entry DESC",
    )?;
    let mut rows = statement.query(params![&*key.source, key.tranche.as_str(), &*key.group])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(entry(row)?);
    }
    Ok(entries)
}

fn entry(row: &Row<'_>) -> Result<LogEntry, Failure> {
    let corrupt = |what: &str| Failure::unreadable(format!("an entry of the log of commits is corrupt: its {what}"));
    let reason: String = row.get(2)?;
    let progress = match row.get(3)? {
        false => None,
        true => {
            let handled: Option<Vec<u8>> = row.get(5)?;
            let handled = handled.map_or(Ok(OrdinalSet::new()), |handled| OrdinalSet::decode(&handled));
            Some(Progress {
                position: position(row, 4)?,
                handled: handled.map_err(|_| corrupt("set"))?,
                read_to: position(row, 6)?,
            })
        }
    };
    Ok(LogEntry {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        at: OffsetDateTime::from_unix_timestamp(row.get(1)?).map_err(|_| corrupt("time"))?,
        reason: LogReason::parse(&reason).ok_or_else(|| corrupt("reason"))?,
        progress,
    })
}
