//! Parked streams as rows beside the progress that passes them.
//!
//! `propulsiond_parked_streams` holds the mark of each stream, and the number and size of its events. `propulsiond_parked`
//! holds the events, and `propulsiond_parked_jobs` the requests of operators.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;
use time::OffsetDateTime;

use super::database::Database;
use super::errors::Failure;
use super::open::Open;
use super::parked_streams::{Filter, Grown};
use super::worker::Access;
use super::{Synchronous, parked_events, parked_streams, progress};
use crate::checkpoint::{
    CheckpointError, CheckpointKey, DueStream, Fence, NewBody, Parked, ParkedAction, ParkedJob, ParkedMark, ParkedPage,
    ParkedQuery, ParkedRequest, ParkedSelection, ParkedStore, ParkedStream, ParkedUpdate, QueuePage, QueueRead,
    QueuedId,
};
use crate::event::Event;
use crate::position::Ordinal;
use crate::sink::ParkedChange;

/// Changes of a tranche's parked streams that can go to the database's thread.
#[derive(Debug)]
pub(super) struct StoredChange {
    pub(super) key: CheckpointKey,
    fence: Fence,
    events: Vec<StoredEvent>,
    updates: Vec<StoredUpdate>,
}

#[derive(Debug)]
struct StoredEvent {
    event: Event,
    from: Ordinal,
    mark: ParkedMark,
}

#[derive(Debug)]
enum StoredUpdate {
    Remove { stream: Box<str>, events: Vec<QueuedId> },
    Mark { stream: Box<str>, mark: ParkedMark },
    Unpark { stream: Box<str> },
}

impl StoredChange {
    pub(super) fn new(change: &ParkedChange<'_>) -> Self {
        let event = |parked: &Parked<'_>| StoredEvent {
            event: parked.event.clone(),
            from: parked.from,
            mark: parked.mark.clone(),
        };
        let update = |update: &ParkedUpdate<'_>| match *update {
            ParkedUpdate::Remove { stream, events } => {
                StoredUpdate::Remove { stream: stream.into(), events: events.to_vec() }
            }
            ParkedUpdate::Mark { stream, mark } => StoredUpdate::Mark { stream: stream.into(), mark: mark.clone() },
            ParkedUpdate::Unpark { stream } => StoredUpdate::Unpark { stream: stream.into() },
        };
        Self {
            key: change.key.clone(),
            fence: change.fence,
            events: change.events.iter().map(event).collect(),
            updates: change.updates.iter().map(update).collect(),
        }
    }

    /// Applies the change. The caller has begun a transaction, and rolls it back after a failure.
    pub(super) fn apply(&self, connection: &Connection) -> Result<(), Failure> {
        progress::check_fence(connection, &self.key, self.fence)?;
        self.append(connection)?;
        for update in &self.updates {
            match update {
                StoredUpdate::Remove { stream, events } => {
                    let removed = parked_events::remove(connection, &self.key, stream, events)?;
                    parked_streams::shrink(connection, &self.key, stream, removed)?;
                }
                StoredUpdate::Mark { stream, mark } => parked_streams::mark(connection, &self.key, stream, mark)?,
                StoredUpdate::Unpark { stream } => parked_streams::unpark(connection, &self.key, stream)?,
            }
        }
        Ok(())
    }

    fn append(&self, connection: &Connection) -> Result<(), Failure> {
        // One write per stream, whatever the number of its events.
        let mut streams: BTreeMap<&str, Grown<'_>> = BTreeMap::new();
        for StoredEvent { event, from, mark } in &self.events {
            let added = parked_events::append(connection, &self.key, event)?;
            let new = || Grown { from: *from, mark, added: parked_events::Size::default() };
            let grown = streams.entry(event.stream()).or_insert_with(new);
            grown.from = grown.from.min(*from);
            grown.added.events += added.events;
            grown.added.bytes += added.bytes;
        }
        streams.iter().try_for_each(|(stream, grown)| parked_streams::grow(connection, &self.key, stream, grown))
    }
}

/// A request that can go to the database's thread.
#[derive(Debug)]
pub(super) struct StoredRequest {
    pub(super) action: ParkedAction,
    pub(super) job: Box<str>,
    pub(super) by: Box<str>,
    pub(super) at: OffsetDateTime,
}

/// Keeps parked streams in the checkpoint store's database.
#[derive(Debug)]
pub(super) struct SqliteParked {
    pub(super) database: Arc<Database>,
    pub(super) synchronous: Synchronous,
}

#[async_trait]
impl ParkedStore for SqliteParked {
    async fn load(&self, key: &CheckpointKey) -> Result<Vec<ParkedStream>, CheckpointError> {
        let wanted = key.clone();
        let streams = self.read_rows(move |connection| parked_streams::load(connection, &wanted)).await;
        streams.map_err(|failure| self.error(failure, format_args!("cannot load the parked streams of {key} from")))
    }

    async fn append(&self, key: &CheckpointKey, fence: Fence, events: &[Parked<'_>]) -> Result<(), CheckpointError> {
        let appended = self.change(&ParkedChange { key, fence, events, updates: &[] }).await;
        appended.map_err(|failure| self.error(failure, format_args!("cannot park events of {key} in")))
    }

    async fn update(
        &self,
        key: &CheckpointKey,
        fence: Fence,
        updates: &[ParkedUpdate<'_>],
    ) -> Result<(), CheckpointError> {
        let updated = self.change(&ParkedChange { key, fence, events: &[], updates }).await;
        updated.map_err(|failure| self.error(failure, format_args!("cannot update the parked streams of {key} in")))
    }

    async fn read(&self, key: &CheckpointKey, stream: &str, page: &QueuePage) -> Result<QueueRead, CheckpointError> {
        let (wanted, name, page) = (key.clone(), Box::<str>::from(stream), *page);
        let events = self.read_rows(move |connection| parked_events::read(connection, &wanted, &name, &page)).await;
        events.map_err(|failure| self.error(failure, format_args!("cannot read parked events of {key} from")))
    }

    async fn due(
        &self,
        key: &CheckpointKey,
        until: OffsetDateTime,
        most: usize,
    ) -> Result<Vec<DueStream>, CheckpointError> {
        let wanted = key.clone();
        let due = self.read_rows(move |connection| parked_streams::due(connection, &wanted, until, most)).await;
        due.map_err(|failure| self.error(failure, format_args!("cannot look for due streams of {key} in")))
    }

    async fn list(&self, group: &str, source: &str, query: &ParkedQuery<'_>) -> Result<ParkedPage, CheckpointError> {
        let filter = Filter::new(group, source, &query.selection);
        let after = query.after.map(|(tranche, stream)| [tranche, stream].map(str::to_owned));
        let (order, most) = (query.order, query.most);
        let page = self.read_rows(move |connection| parked_streams::list(connection, filter, after, order, most)).await;
        page.map_err(|failure| {
            self.error(failure, format_args!("cannot list the parked streams of {group}/{source} in"))
        })
    }

    async fn request(
        &self,
        group: &str,
        source: &str,
        selection: &ParkedSelection<'_>,
        request: &ParkedRequest<'_>,
    ) -> Result<u64, CheckpointError> {
        let filter = Filter::new(group, source, &selection.for_request());
        let ParkedRequest { action, job, by, at } = *request;
        let request = StoredRequest { action, job: job.into(), by: by.into(), at };
        let (of_group, of_source) = (Box::<str>::from(group), Box::<str>::from(source));
        let work = move |connection: &Connection| {
            parked_streams::request(connection, &of_group, &of_source, &filter, &request)
        };
        self.write_rows(Synchronous::Full, work).await.map_err(|failure| {
            self.error(failure, format_args!("cannot request a change of the parked streams of {group}/{source} in"))
        })
    }

    async fn jobs(&self, group: &str, source: &str) -> Result<Vec<ParkedJob>, CheckpointError> {
        let (of_group, of_source) = (Box::<str>::from(group), Box::<str>::from(source));
        let jobs = self.read_rows(move |connection| parked_streams::jobs(connection, &of_group, &of_source)).await;
        jobs.map_err(|failure| {
            self.error(failure, format_args!("cannot list the requests for parked streams of {group}/{source} in"))
        })
    }

    async fn edit(
        &self,
        key: &CheckpointKey,
        stream: &str,
        id: &QueuedId,
        body: NewBody<'_>,
    ) -> Result<bool, CheckpointError> {
        let (wanted, name, id) = (key.clone(), Box::<str>::from(stream), *id);
        let [data, meta] = [body.data, body.meta].map(|part| part.map(<[u8]>::to_vec));
        let work = move |connection: &Connection| {
            let body = NewBody { data: data.as_deref(), meta: meta.as_deref() };
            let Some(grown) = parked_events::edit(connection, &wanted, &name, &id, body)? else { return Ok(false) };
            parked_streams::resize(connection, &wanted, &name, grown)?;
            Ok(true)
        };
        let edited = self.write_rows(Synchronous::Full, work).await;
        edited.map_err(|failure| self.error(failure, format_args!("cannot edit a parked event of {key} in")))
    }
}

impl SqliteParked {
    async fn change(&self, change: &ParkedChange<'_>) -> Result<(), Failure> {
        let change = StoredChange::new(change);
        self.write_rows(self.synchronous, move |connection| change.apply(connection)).await
    }

    async fn read_rows<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.database.ask(Access::Read, move |open: &mut Open| work(&open.with_schema()?.connection)).await
    }

    async fn write_rows<T: Send + 'static>(
        &self,
        synchronous: Synchronous,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let change = move |open: &mut Open| open.with_schema()?.transaction(synchronous, work);
        self.database.ask(Access::Change, change).await
    }

    fn error(&self, failure: Failure, doing: std::fmt::Arguments<'_>) -> CheckpointError {
        failure.into_checkpoint_error(doing, self.path())
    }

    fn path(&self) -> &Path {
        self.database.path()
    }
}

/// Converts a major to a signed integer of SQLite. The shift by half the range keeps the order of all majors.
pub(super) fn ordered(major: u64) -> i64 {
    (major ^ (1 << 63)).cast_signed()
}

/// Reverses [`ordered`].
pub(super) fn unordered(stored: i64) -> u64 {
    stored.cast_unsigned() ^ (1 << 63)
}
