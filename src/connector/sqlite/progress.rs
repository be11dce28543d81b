//! Claims and commits as rows.
//!
//! `propulsion_checkpoint` is the row of the .NET library. `propulsiond_progress` stands beside it. It holds the claim,
//! the number of the last commit, and the set of handled ordinals with the position that the set belongs to and the end of
//! the read that brought its last ordinal. If the two positions differ, another program moved the first one. The set is then void, and so are the write positions of the
//! tranche (C12).

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::errors::{Failure, FailureKind};
use super::log;
use crate::checkpoint::{
    CheckpointKey, Claimed, Commit, CommitOrder, Fence, Listed, MAX_SET_BYTES, MOVED, NEVER_CLAIMED, Owner, RELEASED,
};
use crate::clock;
use crate::position::{OrdinalSet, Position, Progress, TrancheId, WritePosition};

/// A commit that can go to the database's thread.
#[derive(Debug)]
pub(super) struct StoredCommit {
    pub(super) key: CheckpointKey,
    pub(super) fence: Fence,
    sequence: u64,
    position: Option<Position>,
    /// The encoded set; empty if the set is.
    handled: Vec<u8>,
    read_to: Option<Position>,
    /// The names of all streams that advanced, concatenated.
    streams: String,
    write_positions: Vec<StoredStream>,
}

/// The write position of a stream.
#[derive(Debug)]
struct StoredStream {
    name_len: usize,
    first: i64,
    next: i64,
    gaps: Option<String>,
}

impl StoredCommit {
    pub(super) fn new(commit: &Commit<'_>) -> Self {
        let mut streams = String::with_capacity(commit.write_positions.iter().map(|(stream, _)| stream.len()).sum());
        let write_positions = commit.write_positions.iter().map(|(stream, position)| {
            streams.push_str(stream);
            let gaps = (!position.gaps.is_empty()).then(|| position.gaps_as_text());
            StoredStream { name_len: stream.len(), first: position.first, next: position.next, gaps }
        });
        Self {
            key: commit.key.clone(),
            fence: commit.fence,
            sequence: commit.sequence,
            position: commit.progress.position.clone(),
            handled: encode(&commit.progress.handled),
            read_to: commit.progress.read_to.clone(),
            write_positions: write_positions.collect(),
            streams,
        }
    }
}

pub(super) fn encode(set: &OrdinalSet) -> Vec<u8> {
    if set.is_empty() { Vec::new() } else { set.encode() }
}

/// The rows of a key.
struct Stored {
    claim: Option<Claim>,
    /// The position of the .NET row; `None` if there is no such row.
    row: Option<Option<Position>>,
}

struct Claim {
    fence: u64,
    sequence: u64,
    owner: Option<String>,
    since: String,
    updated_at: String,
    handled: Vec<u8>,
    read_to: Option<Position>,
    /// The .NET row as the claim, or its last commit, left it.
    expected: Option<Option<Position>>,
}

impl Claim {
    fn committed_at(&self) -> Option<OffsetDateTime> {
        self.expected.as_ref()?;
        OffsetDateTime::parse(&self.updated_at, &Rfc3339).ok()
    }
}

impl Stored {
    /// Returns whether another program stored the position, so that nothing else of the tranche belongs to it (C12).
    fn is_moved(&self) -> bool {
        self.claim.as_ref().map_or(self.row.is_some(), |claim| claim.expected != self.row)
    }

    fn progress(&self) -> Result<Option<Progress>, Failure> {
        let Some(position) = self.row.clone() else { return Ok(None) };
        let (handled, read_to) = match &self.claim {
            Some(claim) if !self.is_moved() && !claim.handled.is_empty() => {
                let set = OrdinalSet::decode(&claim.handled);
                (set.map_err(|error| Failure::unreadable(error.to_string()))?, claim.read_to.clone())
            }
            _ => (OrdinalSet::new(), None),
        };
        Ok(Some(Progress { position, handled, read_to }))
    }
}

/// Returns the progress of a key; `None` if it was never committed.
pub(super) fn load(connection: &Connection, key: &CheckpointKey) -> Result<Option<Progress>, Failure> {
    read(connection, key)?.progress()
}

/// Returns the fence of the key's owner and the number of the stored commit.
pub(super) fn last_commit(connection: &Connection, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, Failure> {
    Ok(read(connection, key)?.claim.map(|claim| (Fence(claim.fence), claim.sequence)))
}

/// Claims a key for `owner` under the next fence.
pub(super) fn claim(connection: &Connection, key: &CheckpointKey, owner: &Owner) -> Result<Claimed, Failure> {
    let stored = read(connection, key)?;
    let progress = stored.progress()?;
    let (fence, sequence) = stored.claim.as_ref().map_or((0, 0), |claim| (claim.fence, claim.sequence));
    let fence = Fence(fence + 1);
    // The claim adopts a position that another program stored. `progress` voided the set that belongs to the old one.
    let handled = progress.as_ref().map(|progress| encode(&progress.handled)).unwrap_or_default();
    if stored.is_moved() {
        void_write_positions(connection, key)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO propulsiond_progress
                 (source, tranche, consumer_group, fence, sequence, owner, since, committed, position, handled, updated_at, read_to)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?7, ?11)
             ON CONFLICT (source, tranche, consumer_group) DO UPDATE SET
                 fence = excluded.fence, owner = excluded.owner, since = excluded.since, committed = excluded.committed,
                 position = excluded.position, handled = excluded.handled, updated_at = excluded.updated_at,
                 read_to = excluded.read_to",
        )?
        .execute(params![
            &*key.source,
            key.tranche.as_str(),
            &*key.group,
            signed(fence.0)?,
            signed(sequence)?,
            &*owner.0,
            now(),
            progress.is_some(),
            Cell(progress.as_ref().and_then(|progress| progress.position.as_ref())),
            Some(handled).filter(|handled| !handled.is_empty()),
            Cell(progress.as_ref().and_then(|progress| progress.read_to.as_ref())),
        ])?;
    Ok(Claimed { fence, progress, sequence })
}

/// Removes the write positions of a tranche: they tell events as handled that another program wants handled again (C12).
fn void_write_positions(connection: &Connection, key: &CheckpointKey) -> Result<(), Failure> {
    let removed = delete_write_positions(connection, key)?;
    tracing::warn!(%key, write_positions = removed, "another program moved the position, what was handled above it is void");
    Ok(())
}

fn delete_write_positions(connection: &Connection, key: &CheckpointKey) -> Result<usize, Failure> {
    // A row of version 3 names no tranche, so it can be one of this tranche's.
    let removed = connection
        .prepare_cached(
            "DELETE FROM propulsiond_write_positions
             WHERE consumer_group = ?1 AND source = ?2 AND (tranche = ?3 OR tranche IS NULL)",
        )?
        .execute(params![&*key.group, &*key.source, key.tranche.as_str()])?;
    Ok(removed)
}

/// Returns the place of a commit in its key's chain.
///
/// # Errors
/// The commit may not be stored: another owner, a break in the chain, a set that is too large.
pub(super) fn check(connection: &Connection, commit: &StoredCommit) -> Result<CommitOrder, Failure> {
    if commit.handled.len() > MAX_SET_BYTES {
        let size = commit.handled.len();
        let why = format!("the set of handled ordinals has {size} bytes, the limit is {MAX_SET_BYTES}");
        return Err(Failure::new(FailureKind::TooLarge, why));
    }
    let stored = read(connection, &commit.key)?;
    let claim = owned(&stored, commit.fence)?;
    if claim.expected != stored.row {
        return Err(fenced(MOVED, None));
    }
    CommitOrder::of(commit.sequence, claim.sequence).ok_or_else(|| {
        Failure::new(
            FailureKind::OutcomeUnknown,
            format!("commit {} does not follow the stored commit {}", commit.sequence, claim.sequence),
        )
    })
}

/// Stores a commit that [`check`] placed after the stored one.
pub(super) fn store(connection: &Connection, commit: &StoredCommit) -> Result<(), Failure> {
    let key = &commit.key;
    let position = Cell(commit.position.as_ref());
    connection
        .prepare_cached(
            "INSERT INTO propulsion_checkpoint (source, tranche, consumer_group, position) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (source, tranche, consumer_group) DO UPDATE SET position = excluded.position",
        )?
        .execute(params![&*key.source, key.tranche.as_str(), &*key.group, position])?;
    connection
        .prepare_cached(
            "UPDATE propulsiond_progress SET sequence = ?4, committed = 1, position = ?5, handled = ?6, updated_at = ?7,
                 read_to = ?8
             WHERE source = ?1 AND tranche = ?2 AND consumer_group = ?3",
        )?
        .execute(params![
            &*key.source,
            key.tranche.as_str(),
            &*key.group,
            signed(commit.sequence)?,
            position,
            Some(&commit.handled).filter(|handled| !handled.is_empty()),
            now(),
            Cell(commit.read_to.as_ref()),
        ])?;
    log::note_commit(connection, key, commit.position.as_ref())?;
    store_write_positions(connection, commit)
}

/// Replaces the progress of a claimed key, and logs the replaced one.
pub(super) fn set(
    connection: &Connection,
    key: &CheckpointKey,
    fence: Fence,
    progress: Option<&Progress>,
) -> Result<(), Failure> {
    let stored = read(connection, key)?;
    owned(&stored, fence)?;
    log::note_replaced(connection, key, stored.progress()?.as_ref())?;
    let names = params![&*key.source, key.tranche.as_str(), &*key.group];
    connection.execute(
        "DELETE FROM propulsion_checkpoint WHERE source = ?1 AND tranche = ?2 AND consumer_group = ?3",
        names,
    )?;
    if let Some(progress) = progress {
        connection.execute(
            "INSERT INTO propulsion_checkpoint (source, tranche, consumer_group, position) VALUES (?1, ?2, ?3, ?4)",
            params![&*key.source, key.tranche.as_str(), &*key.group, Cell(progress.position.as_ref())],
        )?;
    }
    let handled = progress.map(|progress| encode(&progress.handled)).filter(|handled| !handled.is_empty());
    connection.execute(
        "UPDATE propulsiond_progress SET sequence = sequence + 1, committed = ?4, position = ?5, handled = ?6, read_to = ?7,
             updated_at = ?8
         WHERE source = ?1 AND tranche = ?2 AND consumer_group = ?3",
        params![
            &*key.source,
            key.tranche.as_str(),
            &*key.group,
            progress.is_some(),
            Cell(progress.and_then(|progress| progress.position.as_ref())),
            handled,
            Cell(progress.and_then(|progress| progress.read_to.as_ref())),
            now(),
        ],
    )?;
    delete_write_positions(connection, key)?;
    Ok(())
}

/// Returns the tranches of a group and source, by name.
pub(super) fn list(connection: &Connection, group: &str, source: &str) -> Result<Vec<Listed>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT tranche FROM propulsiond_progress WHERE source = ?1 AND consumer_group = ?2
         UNION SELECT tranche FROM propulsion_checkpoint WHERE source = ?1 AND consumer_group = ?2 ORDER BY 1",
    )?;
    let tranches: Vec<String> = statement.query_map([source, group], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let listed = tranches.into_iter().map(|tranche| {
        let key = CheckpointKey { group: group.into(), source: source.into(), tranche: TrancheId::new(tranche) };
        let stored = read(connection, &key)?;
        let (owner, committed_at) = match &stored.claim {
            Some(claim) => (claim.owner.as_deref().map(|owner| Owner(owner.into())), claim.committed_at()),
            None => (None, None),
        };
        Ok(Listed { progress: stored.progress()?, owner, committed_at, key })
    });
    listed.collect()
}

fn store_write_positions(connection: &Connection, commit: &StoredCommit) -> Result<(), Failure> {
    if commit.write_positions.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO propulsiond_write_positions (consumer_group, source, stream, next, first, gaps, tranche)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (consumer_group, source, stream)
         DO UPDATE SET next = excluded.next, first = excluded.first, gaps = excluded.gaps, tranche = excluded.tranche",
    )?;
    let mut rest = &*commit.streams;
    for StoredStream { name_len, first, next, gaps } in &commit.write_positions {
        let (stream, others) = rest.split_at(*name_len);
        rest = others;
        let CheckpointKey { group, source, tranche } = &commit.key;
        statement.execute(params![&**group, &**source, stream, next, first, gaps, tranche.as_str()])?;
    }
    Ok(())
}

/// Removes the owner of a key. Its progress stays.
pub(super) fn release(connection: &Connection, key: &CheckpointKey, fence: Fence) -> Result<(), Failure> {
    owned(&read(connection, key)?, fence)?;
    connection
        .prepare_cached(
            "UPDATE propulsiond_progress SET owner = NULL, updated_at = ?4
             WHERE source = ?1 AND tranche = ?2 AND consumer_group = ?3",
        )?
        .execute(params![&*key.source, key.tranche.as_str(), &*key.group, now()])?;
    Ok(())
}

/// Returns the write position of each stream, in order.
pub(super) fn write_positions(
    connection: &Connection,
    key: &CheckpointKey,
    streams: &[Box<str>],
) -> Result<Vec<Option<WritePosition>>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT first, next, coalesce(gaps, '') FROM propulsiond_write_positions WHERE consumer_group = ?1 AND source = ?2 AND stream = ?3",
    )?;
    let mut look_up = |stream: &str| {
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?));
        let row = statement.query_row(params![&*key.group, &*key.source, stream], read).optional()?;
        row.map(|(first, next, gaps)| write_position(stream, first, next, &gaps)).transpose()
    };
    streams.iter().map(|stream| look_up(stream)).collect()
}

fn write_position(stream: &str, first: i64, next: i64, gaps: &str) -> Result<WritePosition, Failure> {
    let read = WritePosition::gaps_from_text(gaps).map(|gaps| WritePosition { first, next, gaps });
    read.ok_or_else(|| Failure::unreadable(format!("the gaps `{gaps}` of stream `{stream}` are not ranges of indexes")))
}

/// Refuses a fence that does not own the key, or no longer does.
pub(super) fn check_fence(connection: &Connection, key: &CheckpointKey, fence: Fence) -> Result<(), Failure> {
    owned(&read(connection, key)?, fence).map(|_| ())
}

fn owned(stored: &Stored, fence: Fence) -> Result<&Claim, Failure> {
    match &stored.claim {
        Some(claim) if claim.fence == fence.0 => Ok(claim),
        Some(claim) => {
            let by = claim.owner.as_deref().unwrap_or(RELEASED);
            Err(fenced(by, OffsetDateTime::parse(&claim.since, &Rfc3339).ok()))
        }
        None => Err(fenced(NEVER_CLAIMED, None)),
    }
}

fn fenced(by: &str, since: Option<OffsetDateTime>) -> Failure {
    Failure::new(FailureKind::Fenced { by: by.to_owned(), since }, format!("the owner is {by}"))
}

fn read(connection: &Connection, key: &CheckpointKey) -> Result<Stored, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT p.fence, p.sequence, p.owner, p.since, p.handled, p.committed, p.position, c.source IS NOT NULL, c.position,
             p.read_to, p.updated_at
         FROM (SELECT 1)
         LEFT JOIN propulsiond_progress p ON p.source = ?1 AND p.tranche = ?2 AND p.consumer_group = ?3
         LEFT JOIN propulsion_checkpoint c ON c.source = ?1 AND c.tranche = ?2 AND c.consumer_group = ?3",
    )?;
    let mut rows = statement.query(params![&*key.source, key.tranche.as_str(), &*key.group])?;
    // The query starts from `SELECT 1`, so it always has one row.
    let row = rows.next()?.ok_or_else(|| Failure::unreadable("the progress query returned no row"))?;
    read_row(row).map_err(|error| match error {
        rusqlite::Error::SqliteFailure(..) => error.into(),
        // Another program stored a value of another type, or a number out of range.
        other => Failure::unreadable(other.to_string()),
    })
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let claim = match row.get::<_, Option<i64>>(0)? {
        None => None,
        Some(fence) => Some(Claim {
            fence: unsigned(0, fence)?,
            sequence: unsigned(1, row.get(1)?)?,
            owner: row.get(2)?,
            since: row.get(3)?,
            handled: row.get::<_, Option<Vec<u8>>>(4)?.unwrap_or_default(),
            read_to: position(row, 9)?,
            updated_at: row.get(10)?,
            expected: row.get::<_, bool>(5)?.then(|| position(row, 6)).transpose()?,
        }),
    };
    let row = row.get::<_, bool>(7)?.then(|| position(row, 8)).transpose()?;
    Ok(Stored { claim, row })
}

pub(super) fn position(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Position>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(number) => Ok(Some(Position::Number(number))),
        ValueRef::Text(_) => Ok(Some(Position::token(row.get_ref(column)?.as_str()?))),
        other => Err(rusqlite::Error::InvalidColumnType(column, "position".to_owned(), other.data_type())),
    }
}

/// The stored form of a position: an integer, text, or NULL for the origin.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a>(pub(super) Option<&'a Position>);

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            None => ToSqlOutput::Owned(Value::Null),
            Some(Position::Number(number)) => ToSqlOutput::Owned(Value::Integer(*number)),
            Some(Position::Token(token)) => ToSqlOutput::Borrowed(ValueRef::Text(token.as_bytes())),
        })
    }
}

fn signed(number: u64) -> Result<i64, Failure> {
    i64::try_from(number).map_err(|_| Failure::unavailable(format!("the number {number} exceeds SQLite's integers")))
}

fn unsigned(column: usize, stored: i64) -> rusqlite::Result<u64> {
    u64::try_from(stored).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, stored))
}

fn now() -> String {
    clock::wall().format(&Rfc3339).unwrap_or_default()
}
