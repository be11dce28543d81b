//! The events of parked streams as rows.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::errors::Failure;
use super::parked::{ordered, unordered};
use crate::checkpoint::{
    CheckpointKey, NewBody, QueueOrder, QueuePage, QueueRead, QueuedEvent, QueuedId, parked_bytes,
};
use crate::event::{Assembler, Event, Format, Headers, Kind, Text};
use crate::position::Ordinal;

/// The number and size of events, or a change of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) events: i64,
    pub(super) bytes: i64,
}

/// The condition that selects the rows of one stream.
const OF_STREAM: &str = "consumer_group = ?1 AND source = ?2 AND tranche = ?3 AND stream = ?4";
/// The condition that selects one row of a stream, after [`OF_STREAM`].
const OF_ID: &str = "major = ?5 AND minor = ?6 AND idx = ?7 AND unfold = ?8";

/// Appends an event, unless the same event is stored (C21). Returns the growth of its stream.
pub(super) fn append(connection: &Connection, key: &CheckpointKey, event: &Event) -> Result<Size, Failure> {
    let appended = connection
        .prepare_cached(
            "INSERT INTO propulsiond_parked
             (consumer_group, source, tranche, stream, major, minor, idx, unfold, kind, type, id, correlation, causation, timestamp,
              data, meta, data_format, meta_format, headers, tombstone)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
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
            event.is_unfold(),
            code(event.kind()),
            event.event_type(),
            event.text(Text::Id),
            event.text(Text::Correlation),
            event.text(Text::Causation),
            event.time_text(),
            event.data(),
            event.meta(),
            event.data_format().code(),
            event.meta_format().code(),
            Some(event.headers().encoded()).filter(|headers| !headers.is_empty()),
            event.is_tombstone(),
        ])?;
    let is_new = appended > 0;
    Ok(if is_new { Size { events: 1, bytes: parked_bytes(event) as i64 } } else { Size::default() })
}

/// Removes events. Returns the number and size of those that were there.
pub(super) fn remove(
    connection: &Connection,
    key: &CheckpointKey,
    stream: &str,
    events: &[QueuedId],
) -> Result<Size, Failure> {
    let mut statement = connection.prepare_cached(&format!(
        "DELETE FROM propulsiond_parked WHERE {OF_STREAM} AND {OF_ID}
         RETURNING length(data) + length(meta) + coalesce(length(headers), 0)"
    ))?;
    let mut removed = Size::default();
    for id in events {
        let bytes: Option<i64> = statement
            .query_row(
                params![
                    &*key.group,
                    &*key.source,
                    key.tranche.as_str(),
                    stream,
                    ordered(id.at.major),
                    id.at.minor,
                    id.index,
                    id.is_unfold
                ],
                |row| row.get(0),
            )
            .optional()?;
        removed.events += i64::from(bytes.is_some());
        removed.bytes += bytes.unwrap_or(0);
    }
    Ok(removed)
}

/// Returns a page of a stream's events.
pub(super) fn read(
    connection: &Connection,
    key: &CheckpointKey,
    stream: &str,
    page: &QueuePage,
) -> Result<QueueRead, Failure> {
    let (after, order) = match (page.order, page.after.is_some()) {
        (QueueOrder::Ordinal, false) => ("", "major, minor, idx, unfold"),
        (QueueOrder::Ordinal, true) => {
            ("AND (major, minor, idx, unfold) > (?6, ?7, ?8, ?9)", "major, minor, idx, unfold")
        }
        (QueueOrder::Index, false) => ("", "idx, unfold DESC, major, minor"),
        // The first comparison lets SQLite seek in the index, which a mix of directions alone does not.
        (QueueOrder::Index, true) => (
            "AND idx >= ?8 AND (idx > ?8 OR unfold < ?9 OR (unfold = ?9 AND (major, minor) > (?6, ?7)))",
            "idx, unfold DESC, major, minor",
        ),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT stream, type, id, correlation, causation, timestamp, data, meta, kind, major, minor, idx, data_format, meta_format,
             headers, tombstone, discarded
         FROM propulsiond_parked WHERE {OF_STREAM} {after} ORDER BY {order} LIMIT ?5"
    ))?;
    let max_events = page.max_events.max(1);
    // One more tells whether events follow.
    let most = i64::try_from(max_events).unwrap_or(i64::MAX).saturating_add(1);
    let (group, source, tranche) = (&*key.group, &*key.source, key.tranche.as_str());
    let mut rows = match page.after {
        None => statement.query(params![group, source, tranche, stream, most])?,
        Some(QueuedId { at, index, is_unfold }) => statement.query(params![
            group,
            source,
            tranche,
            stream,
            most,
            ordered(at.major),
            at.minor,
            index,
            is_unfold
        ])?,
    };
    let (mut read, mut bytes) = (QueueRead::default(), 0);
    while let Some(row) = rows.next()? {
        let event = event(row)?;
        bytes += parked_bytes(&event);
        if read.events.len() == max_events || bytes > page.max_bytes && !read.events.is_empty() {
            read.more = true;
            break;
        }
        read.events.push(QueuedEvent { event, discarded: row.get(16)? });
    }
    Ok(read)
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

/// Marks the event at fault of a stream as discarded, with all unfolds if it is the only event.
pub(super) fn discard_first(connection: &Connection, key: &CheckpointKey, stream: &str) -> Result<(), Failure> {
    let (group, source, tranche) = (&*key.group, &*key.source, key.tranche.as_str());
    let mut first = connection.prepare_cached(&format!(
        "SELECT major, minor, idx FROM propulsiond_parked WHERE {OF_STREAM} AND unfold = 0
         ORDER BY idx, unfold DESC, major, minor LIMIT 2"
    ))?;
    let rows = first.query_map(params![group, source, tranche, stream], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    })?;
    if let [(major, minor, index), _] = rows.collect::<Result<Vec<_>, _>>()?[..] {
        connection
            .prepare_cached(&format!("UPDATE propulsiond_parked SET discarded = 1 WHERE {OF_STREAM} AND {OF_ID}"))?
            .execute(params![group, source, tranche, stream, major, minor, index, false])?;
    } else {
        connection
            .prepare_cached(&format!("UPDATE propulsiond_parked SET discarded = 1 WHERE {OF_STREAM}"))?
            .execute(params![group, source, tranche, stream])?;
    }
    Ok(())
}

/// Replaces parts of an event's body. Returns the growth of its stream in bytes; `None` if there is no such event.
pub(super) fn edit(
    connection: &Connection,
    key: &CheckpointKey,
    stream: &str,
    id: &QueuedId,
    body: NewBody<'_>,
) -> Result<Option<i64>, Failure> {
    let (group, source, tranche) = (&*key.group, &*key.source, key.tranche.as_str());
    let (major, is_unfold) = (ordered(id.at.major), id.is_unfold);
    let lens = connection
        .prepare_cached(&format!(
            "SELECT length(data), length(meta) FROM propulsiond_parked WHERE {OF_STREAM} AND {OF_ID}"
        ))?
        .query_row(params![group, source, tranche, stream, major, id.at.minor, id.index, is_unfold], |row| {
            Ok([row.get::<_, i64>(0)?, row.get(1)?])
        })
        .optional()?;
    let Some(lens) = lens else { return Ok(None) };
    let mut growth = 0;
    for ((part, old), new) in ["data", "meta"].into_iter().zip(lens).zip([body.data, body.meta]) {
        let Some(new) = new else { continue };
        connection
            .prepare_cached(&format!(
                "UPDATE propulsiond_parked SET {part} = ?9, {part}_format = ?10 WHERE {OF_STREAM} AND {OF_ID}"
            ))?
            .execute(params![
                group,
                source,
                tranche,
                stream,
                major,
                id.at.minor,
                id.index,
                is_unfold,
                new,
                Format::default().code()
            ])?;
        growth += new.len() as i64 - old;
    }
    Ok(Some(growth))
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
