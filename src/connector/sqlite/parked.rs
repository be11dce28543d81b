//! Parked events as rows beside the progress that passes them.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::Synchronous;
use super::database::Database;
use super::errors::Failure;
use super::progress;
use super::worker::Access;
use crate::checkpoint::{CheckpointError, CheckpointKey, Fence, Parked, ParkedStore, ParkedStream};
use crate::event::{Assembler, Event, Format, Headers, Kind, Text};
use crate::position::Ordinal;

/// An event to park that can go to the database's thread.
#[derive(Debug)]
pub(super) struct ParkedRow {
    pub(super) key: CheckpointKey,
    fence: Fence,
    event: Event,
    from: Ordinal,
    why: Box<str>,
}

impl ParkedRow {
    pub(super) fn new(key: &CheckpointKey, fence: Fence, parked: &Parked<'_>) -> Self {
        Self { key: key.clone(), fence, event: parked.event.clone(), from: parked.from, why: parked.why.into() }
    }
}

/// Keeps parked events in the checkpoint store's database.
#[derive(Debug)]
pub(super) struct SqliteParked {
    pub(super) database: Arc<Database>,
    pub(super) synchronous: Synchronous,
}

#[async_trait]
impl ParkedStore for SqliteParked {
    async fn load(&self, key: &CheckpointKey) -> Result<Vec<ParkedStream>, CheckpointError> {
        let wanted = key.clone();
        let streams = self.database.ask(Access::Read, move |open| load(&open.with_schema()?.connection, &wanted)).await;
        streams.map_err(|failure| self.error(failure, "cannot load the parked streams of", key))
    }

    async fn append(&self, key: &CheckpointKey, fence: Fence, events: &[Parked<'_>]) -> Result<(), CheckpointError> {
        let rows: Vec<_> = events.iter().map(|parked| ParkedRow::new(key, fence, parked)).collect();
        let synchronous = self.synchronous;
        let appended = self.database.ask(Access::Change, move |open| {
            open.with_schema()?
                .transaction(synchronous, |connection| rows.iter().try_for_each(|row| append(connection, row)))
        });
        appended.await.map_err(|failure| self.error(failure, "cannot park events of", key))
    }

    async fn read(&self, key: &CheckpointKey, stream: &str) -> Result<Vec<Event>, CheckpointError> {
        let (wanted, name) = (key.clone(), Box::<str>::from(stream));
        let events =
            self.database.ask(Access::Read, move |open| read(&open.with_schema()?.connection, &wanted, &name)).await;
        events.map_err(|failure| self.error(failure, "cannot read parked events of", key))
    }
}

impl SqliteParked {
    fn error(&self, failure: Failure, doing: &str, key: &CheckpointKey) -> CheckpointError {
        failure.into_checkpoint_error(format_args!("{doing} {key}, in"), self.path())
    }

    fn path(&self) -> &Path {
        self.database.path()
    }
}

/// Appends an event, unless the same event is stored (C21).
pub(super) fn append(connection: &Connection, row: &ParkedRow) -> Result<(), Failure> {
    let ParkedRow { key, fence, event, from, why } = row;
    progress::check_fence(connection, key, *fence)?;
    connection
        .prepare_cached(
            "INSERT INTO propulsiond_parked
             (consumer_group, source, tranche, stream, major, minor, idx, kind, type, id, correlation, causation, timestamp, data, meta, why,
              from_major, from_minor, data_format, meta_format, headers, tombstone)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            &*key.group,
            &*key.source,
            key.tranche.as_str(),
            event.stream(),
            ordered(event.at().major),
            event.at().minor,
            event.index(),
            code(event.kind()),
            event.event_type(),
            event.text(Text::Id),
            event.text(Text::Correlation),
            event.text(Text::Causation),
            event.time_text(),
            event.data(),
            event.meta(),
            &**why,
            ordered(from.major),
            from.minor,
            event.data_format().code(),
            event.meta_format().code(),
            Some(event.headers().encoded()).filter(|headers| !headers.is_empty()),
            event.is_tombstone(),
        ])?;
    Ok(())
}

fn load(connection: &Connection, key: &CheckpointKey) -> Result<Vec<ParkedStream>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT stream, from_major, from_minor, events, first_why FROM
             (SELECT stream, from_major, from_minor, count(*) OVER (PARTITION BY stream) AS events,
                  first_value(why) OVER (PARTITION BY stream ORDER BY major, minor, idx, kind) AS first_why,
                  row_number() OVER (PARTITION BY stream ORDER BY from_major, from_minor) AS place
              FROM propulsiond_parked WHERE consumer_group = ?1 AND source = ?2 AND tranche = ?3)
         WHERE place = 1 ORDER BY stream",
    )?;
    let rows = statement.query_map(params![&*key.group, &*key.source, key.tranche.as_str()], |row| {
        Ok(ParkedStream {
            stream: row.get::<_, String>(0)?.into(),
            first: Ordinal::new(unordered(row.get(1)?), row.get(2)?),
            events: row.get::<_, i64>(3)?.unsigned_abs(),
            why: row.get::<_, String>(4)?.into(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read(connection: &Connection, key: &CheckpointKey, stream: &str) -> Result<Vec<Event>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT stream, type, id, correlation, causation, timestamp, data, meta, kind, major, minor, idx, data_format, meta_format,
             headers, tombstone
         FROM propulsiond_parked WHERE consumer_group = ?1 AND source = ?2 AND tranche = ?3 AND stream = ?4
         ORDER BY major, minor, idx, kind",
    )?;
    let mut rows = statement.query(params![&*key.group, &*key.source, key.tranche.as_str(), stream])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(event(row)?);
    }
    Ok(events)
}

fn event(row: &Row<'_>) -> Result<Event, Failure> {
    let text = |column| row.get_ref(column).and_then(|value| Ok(value.as_str()?));
    let blob = |column| row.get_ref(column).and_then(|value| Ok(value.as_blob()?));
    let kind = kind(row.get(8)?).ok_or_else(|| Failure::unreadable("a parked event has an unknown kind"))?;
    let format = |column| row.get(column).map(Format::of_code);
    let headers = row.get_ref(14)?.as_blob_or_null().map_err(rusqlite::Error::from)?.unwrap_or_default();
    let headers =
        Headers::decode(headers).ok_or_else(|| Failure::unreadable("the headers of a parked event are corrupt"))?;
    let mut assembler = Assembler::new(text(0)?, text(1)?);
    for (name, value) in headers {
        assembler = assembler.header(name, value);
    }
    if row.get(15)? {
        assembler = assembler.tombstone();
    }
    assembler
        .text(Text::Id, text(2)?)
        .text(Text::Correlation, text(3)?)
        .text(Text::Causation, text(4)?)
        .text(Text::Timestamp, text(5)?)
        .data(blob(6)?)
        .meta(blob(7)?)
        .formats(format(12)?, format(13)?)
        .build(kind, Ordinal::new(unordered(row.get(9)?), row.get(10)?), row.get(11)?)
        .map_err(|error| Failure::unreadable(format!("a parked event is corrupt: {error}")))
}

/// Converts a major to a signed integer of SQLite. The shift by half the range keeps the order of all majors.
fn ordered(major: u64) -> i64 {
    (major ^ (1 << 63)).cast_signed()
}

/// Reverses [`ordered`].
fn unordered(stored: i64) -> u64 {
    stored.cast_unsigned() ^ (1 << 63)
}

fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Event => 0,
        Kind::Unfold => 1,
        Kind::Placeholder => 2,
        Kind::Malformed => 3,
    }
}

fn kind(code: u8) -> Option<Kind> {
    [Kind::Event, Kind::Unfold, Kind::Placeholder, Kind::Malformed].into_iter().nth(code.into())
}
