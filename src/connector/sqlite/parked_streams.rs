//! Parked streams and the requests of operators as rows.

use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};
use time::OffsetDateTime;

use super::errors::Failure;
use super::parked::{StoredRequest, ordered, unordered};
use super::parked_events::{self, Size};
use crate::checkpoint::{
    CheckpointKey, DueStream, KEPT_JOBS, ParkedAction, ParkedJob, ParkedMark, ParkedOrder, ParkedPage, ParkedSelection,
    ParkedState, ParkedStream,
};
use crate::position::{Ordinal, TrancheId};

/// The condition that selects the row of one stream.
const OF_STREAM: &str = "consumer_group = ?1 AND source = ?2 AND tranche = ?3 AND stream = ?4";
/// The columns of a [`ParkedStream`], in the order in which [`stream`] reads them.
const COLUMNS: &str =
    "tranche, stream, from_major, from_minor, events, bytes, state, class, why, idx, type, since, attempts,
    version, due, job";
/// The category of a stream, as [`category`](crate::event::category) computes it.
const CATEGORY: &str = "CASE instr(stream, '-') WHEN 0 THEN stream WHEN 1 THEN substr(stream, 2)
    ELSE substr(stream, 1, instr(stream, '-') - 1) END";

/// The growth of a stream by appended events.
#[derive(Debug)]
pub(super) struct Grown<'a> {
    pub(super) from: Ordinal,
    /// The mark of a stream that has none yet.
    pub(super) mark: &'a ParkedMark,
    pub(super) added: Size,
}

/// Adds appended events to the row of their stream, or creates the row.
pub(super) fn grow(
    connection: &Connection,
    key: &CheckpointKey,
    stream: &str,
    grown: &Grown<'_>,
) -> Result<(), Failure> {
    let Grown { from, mark, added } = grown;
    connection
        .prepare_cached(
            "INSERT INTO propulsiond_parked_streams
                 (consumer_group, source, tranche, stream, from_major, from_minor, events, bytes, state, class, why, idx, type,
                  since, attempts, version, due, job)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
             ON CONFLICT DO UPDATE SET events = events + excluded.events, bytes = bytes + excluded.bytes,
                 from_major = min(from_major, excluded.from_major),
                 from_minor = CASE WHEN excluded.from_major < from_major THEN excluded.from_minor
                     WHEN excluded.from_major = from_major THEN min(from_minor, excluded.from_minor) ELSE from_minor END",
        )?
        .execute(params![
            &*key.group,
            &*key.source,
            key.tranche.as_str(),
            stream,
            ordered(from.major),
            from.minor,
            added.events,
            added.bytes,
            mark.state.as_str(),
            &*mark.class,
            &*mark.why,
            mark.index,
            &*mark.event_type,
            millis(mark.since),
            mark.attempts,
            &*mark.version,
            mark.due.map(millis),
            mark.job.as_deref(),
        ])?;
    Ok(())
}

/// Takes removed events off the row of their stream.
pub(super) fn shrink(connection: &Connection, key: &CheckpointKey, stream: &str, removed: Size) -> Result<(), Failure> {
    connection
        .prepare_cached(&format!(
            "UPDATE propulsiond_parked_streams SET events = events - ?5, bytes = bytes - ?6 WHERE {OF_STREAM}"
        ))?
        .execute(params![&*key.group, &*key.source, key.tranche.as_str(), stream, removed.events, removed.bytes])?;
    Ok(())
}

/// Adds the growth of an edited event to the row of its stream.
pub(super) fn resize(connection: &Connection, key: &CheckpointKey, stream: &str, bytes: i64) -> Result<(), Failure> {
    shrink(connection, key, stream, Size { events: 0, bytes: -bytes })
}

/// Replaces the mark of a stream that has one.
pub(super) fn mark(
    connection: &Connection,
    key: &CheckpointKey,
    stream: &str,
    mark: &ParkedMark,
) -> Result<(), Failure> {
    connection
        .prepare_cached(&format!(
            "UPDATE propulsiond_parked_streams SET state = ?5, class = ?6, why = ?7, idx = ?8, type = ?9, since = ?10,
                 attempts = ?11, version = ?12, due = ?13, job = ?14
             WHERE {OF_STREAM}"
        ))?
        .execute(params![
            &*key.group,
            &*key.source,
            key.tranche.as_str(),
            stream,
            mark.state.as_str(),
            &*mark.class,
            &*mark.why,
            mark.index,
            &*mark.event_type,
            millis(mark.since),
            mark.attempts,
            &*mark.version,
            mark.due.map(millis),
            mark.job.as_deref(),
        ])?;
    Ok(())
}

/// Removes the row of a stream without events.
pub(super) fn unpark(connection: &Connection, key: &CheckpointKey, stream: &str) -> Result<(), Failure> {
    connection
        .prepare_cached(&format!(
            "DELETE FROM propulsiond_parked_streams
             WHERE {OF_STREAM} AND NOT EXISTS (SELECT 1 FROM propulsiond_parked WHERE {OF_STREAM})"
        ))?
        .execute(params![&*key.group, &*key.source, key.tranche.as_str(), stream])?;
    Ok(())
}

/// Returns the parked streams of a tranche, by name.
pub(super) fn load(connection: &Connection, key: &CheckpointKey) -> Result<Vec<ParkedStream>, Failure> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM propulsiond_parked_streams
         WHERE consumer_group = ?1 AND source = ?2 AND tranche = ?3 ORDER BY stream"
    ))?;
    let mut rows = statement.query(params![&*key.group, &*key.source, key.tranche.as_str()])?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next()? {
        streams.push(stream(row)?.1);
    }
    Ok(streams)
}

/// Returns the streams of a tranche that are due, the earliest first.
pub(super) fn due(
    connection: &Connection,
    key: &CheckpointKey,
    until: OffsetDateTime,
    most: usize,
) -> Result<Vec<DueStream>, Failure> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM propulsiond_parked_streams
         WHERE consumer_group = ?1 AND source = ?2 AND tranche = ?3 AND due <= ?4 ORDER BY due, stream LIMIT ?5"
    ))?;
    let mut rows =
        statement.query(params![&*key.group, &*key.source, key.tranche.as_str(), millis(until), limit(most)])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        let (_, ParkedStream { stream, mark, .. }) = stream(row)?;
        due.push(DueStream { stream, mark });
    }
    Ok(due)
}

/// A selection of streams as a condition with its values.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    condition: String,
    values: Vec<Value>,
}

impl Filter {
    pub(super) fn new(group: &str, source: &str, selection: &ParkedSelection<'_>) -> Self {
        let mut filter = Self { condition: String::from("consumer_group = ? AND source = ?"), values: Vec::new() };
        filter.values.extend([group, source].map(|name| Value::Text(name.to_owned())));
        let category = format!("{CATEGORY} = ?");
        let texts = [
            ("state = ?", selection.state.map(ParkedState::as_str)),
            ("tranche = ?", selection.tranche),
            ("stream = ?", selection.stream),
            (&*category, selection.category),
            ("type = ?", selection.event_type),
            ("version <> ?", selection.other_version_than),
        ];
        for (condition, text) in texts {
            if let Some(text) = text {
                filter.and(condition, [Value::Text(text.to_owned())]);
            }
        }
        if let Some(error) = selection.error {
            filter.and("(instr(why, ?) > 0 OR class = ?)", [error; 2].map(|text| Value::Text(text.to_owned())));
        }
        if let Some(until) = selection.until {
            filter.and("since <= ?", [Value::Integer(millis(until))]);
        }
        filter
    }

    fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.condition.push_str(" AND ");
        self.condition.push_str(condition);
        self.values.extend(values);
    }
}

/// Returns a page of the selected streams, with the totals over all of them.
pub(super) fn list(
    connection: &Connection,
    mut filter: Filter,
    after: Option<[String; 2]>,
    order: ParkedOrder,
    most: usize,
) -> Result<ParkedPage, Failure> {
    let totals = format!(
        "SELECT count(*), coalesce(sum(events), 0), coalesce(sum(bytes), 0) FROM propulsiond_parked_streams WHERE {}",
        filter.condition
    );
    let [total_streams, total_events, total_bytes] =
        connection.prepare_cached(&totals)?.query_row(params_from_iter(&filter.values), |row| {
            Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?].map(i64::unsigned_abs))
        })?;
    let order = match order {
        ParkedOrder::Name => {
            if let Some(place) = after {
                filter.and("(tranche, stream) > (?, ?)", place.map(Value::Text));
            }
            "tranche, stream"
        }
        ParkedOrder::Due => "due IS NULL, due, tranche, stream",
    };
    // One row more than the page tells whether another page follows.
    filter.values.push(Value::Integer(limit(most).saturating_add(1)));
    let page =
        format!("SELECT {COLUMNS} FROM propulsiond_parked_streams WHERE {} ORDER BY {order} LIMIT ?", filter.condition);
    let mut statement = connection.prepare_cached(&page)?;
    let mut rows = statement.query(params_from_iter(&filter.values))?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next()? {
        streams.push(stream(row)?);
    }
    let more = streams.len() > most;
    streams.truncate(most);
    Ok(ParkedPage { streams, more, total_streams, total_events, total_bytes })
}

/// Makes the selected streams due, discards their events as requested, and keeps the job.
pub(super) fn request(
    connection: &Connection,
    group: &str,
    source: &str,
    filter: &Filter,
    request: &StoredRequest,
) -> Result<u64, Failure> {
    match request.action {
        ParkedAction::Retry => {}
        ParkedAction::DiscardFirst => {
            for (tranche, stream) in names(connection, filter)? {
                let tranche = TrancheId::new(tranche);
                let key = CheckpointKey { group: group.into(), source: source.into(), tranche };
                parked_events::discard_first(connection, &key, &stream)?;
            }
        }
        ParkedAction::DiscardAll => {
            let discard = format!(
                "UPDATE propulsiond_parked SET discarded = 1 WHERE (consumer_group, source, tranche, stream) IN
                     (SELECT consumer_group, source, tranche, stream FROM propulsiond_parked_streams WHERE {})",
                filter.condition
            );
            connection.prepare_cached(&discard)?.execute(params_from_iter(&filter.values))?;
        }
    }
    let due = format!("UPDATE propulsiond_parked_streams SET due = ?, job = ? WHERE {}", filter.condition);
    let values = [Value::Integer(millis(request.at)), Value::Text(request.job.to_string())];
    let streams =
        connection.prepare_cached(&due)?.execute(params_from_iter(values.iter().chain(&filter.values)))? as u64;
    if streams > 0 {
        keep_job(connection, group, source, request, streams)?;
    }
    Ok(streams)
}

fn names(connection: &Connection, filter: &Filter) -> Result<Vec<(String, String)>, Failure> {
    let names = format!("SELECT tranche, stream FROM propulsiond_parked_streams WHERE {}", filter.condition);
    let mut statement = connection.prepare_cached(&names)?;
    let rows = statement.query_map(params_from_iter(&filter.values), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Stores a job, and deletes the oldest jobs of the group and source.
fn keep_job(
    connection: &Connection,
    group: &str,
    source: &str,
    request: &StoredRequest,
    streams: u64,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO propulsiond_parked_jobs (consumer_group, source, job, action, requested_by, at, streams)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            group,
            source,
            &*request.job,
            request.action.as_str(),
            &*request.by,
            millis(request.at),
            streams.cast_signed(),
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM propulsiond_parked_jobs WHERE consumer_group = ?1 AND source = ?2 AND number <=
                 (SELECT number FROM propulsiond_parked_jobs WHERE consumer_group = ?1 AND source = ?2
                  ORDER BY number DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute(params![group, source, limit(KEPT_JOBS)])?;
    Ok(())
}

/// Returns the kept jobs of a group and source, the newest first.
pub(super) fn jobs(connection: &Connection, group: &str, source: &str) -> Result<Vec<ParkedJob>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT j.job, j.action, j.requested_by, j.at, j.streams,
             (SELECT count(*) FROM propulsiond_parked_streams s WHERE s.consumer_group = j.consumer_group
              AND s.source = j.source AND s.job = j.job AND s.due IS NOT NULL),
             (SELECT count(*) FROM propulsiond_parked_streams s WHERE s.consumer_group = j.consumer_group
              AND s.source = j.source AND s.job = j.job AND s.due IS NULL)
         FROM propulsiond_parked_jobs j WHERE j.consumer_group = ?1 AND j.source = ?2 ORDER BY j.number DESC",
    )?;
    let mut rows = statement.query(params![group, source])?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        let action = ParkedAction::parse(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?);
        let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        jobs.push(ParkedJob {
            id: row.get::<_, String>(0)?.into(),
            action: action.ok_or_else(|| Failure::unreadable("a request for parked streams has an unknown action"))?,
            by: row.get::<_, String>(2)?.into(),
            at: moment(row.get(3)?)?,
            streams: count(4)?,
            left: count(5)?,
            failed: count(6)?,
        });
    }
    Ok(jobs)
}

/// Reads the row of a stream, with its tranche.
fn stream(row: &Row<'_>) -> Result<(TrancheId, ParkedStream), Failure> {
    let text = |column| -> Result<Arc<str>, Failure> {
        Ok(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?.into())
    };
    let state = ParkedState::parse(&text(6)?);
    let job = row.get_ref(15)?.as_str_or_null().map_err(rusqlite::Error::from)?;
    let stream = ParkedStream {
        stream: Box::from(&*text(1)?),
        first: Ordinal::new(unordered(row.get(2)?), row.get(3)?),
        events: row.get::<_, i64>(4)?.unsigned_abs(),
        bytes: row.get::<_, i64>(5)?.unsigned_abs(),
        mark: ParkedMark {
            state: state.ok_or_else(|| Failure::unreadable("a parked stream has an unknown state"))?,
            class: text(7)?,
            why: text(8)?,
            index: row.get(9)?,
            event_type: text(10)?,
            since: moment(row.get(11)?)?,
            attempts: row.get(12)?,
            version: text(13)?,
            due: row.get::<_, Option<i64>>(14)?.map(moment).transpose()?,
            job: job.map(Arc::from),
        },
    };
    Ok((TrancheId::new(text(0)?), stream))
}

/// Returns the milliseconds since 1970 of a time. The range of years of a time fits.
fn millis(time: OffsetDateTime) -> i64 {
    (time.unix_timestamp_nanos().div_euclid(1_000_000)) as i64
}

/// Reverses [`millis`].
fn moment(millis: i64) -> Result<OffsetDateTime, Failure> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .map_err(|_| Failure::unreadable("a time of a parked stream is out of range"))
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
