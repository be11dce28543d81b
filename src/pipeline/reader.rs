//! Reads one tranche: a batch for each credit of the driver, filtered, with the write positions that the store has of its
//! streams.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::HashSet;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::after::Follow;
use super::messages::{Event, Read, ReadResult};
use super::policy::{self, BackEndReaction};
use crate::checkpoint::{CheckpointError, CheckpointKey, CheckpointStore};
use crate::clock::{Clock, Timestamp};
use crate::config::filter::{Filter, FilterMatch};
use crate::event::{self, Indexes, Kind};
use crate::position::{TrancheId, WritePosition};
use crate::source::{Batch, Next, Room, SourceError, SourceErrorKind, TrancheReader};

/// The number of streams whose look-up a reader remembers.
const MAX_LOOKED_UP: usize = 100_000;

/// A task that reads one tranche.
pub(super) struct Reader {
    pub(super) tranche: TrancheId,
    pub(super) opening: u64,
    pub(super) reader: Box<dyn TrancheReader>,
    pub(super) filter: Arc<RwLock<Arc<Filter>>>,
    /// The store of write positions, if the feed may repeat events (C13).
    pub(super) known: Option<(Arc<dyn CheckpointStore>, CheckpointKey)>,
    /// Decides the name under which a stream's write position is stored (C4).
    pub(super) indexes: Indexes,
    /// Looks up streams that have placeholders only, too: with `require_all` these wait as well.
    pub(super) of_placeholders: bool,
    /// Holds batches back, if the pipeline comes after another one.
    pub(super) follow: Option<Arc<Follow>>,
    pub(super) clock: Clock,
    pub(super) credits: mpsc::Receiver<Room>,
    pub(super) stop: CancellationToken,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) seed: u64,
}

/// A batch that was read, while its write positions are looked up.
struct Unfinished {
    batch: Batch,
    took: Duration,
    read_at: Timestamp,
}

impl Reader {
    /// Reads until the tranche ends, its position is lost, or the driver cancels it. The last message says so (C29).
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        let last = tokio::select! {
            biased;
            () = stop.cancelled() => ReadResult::Stopped,
            last = self.read_all() => last,
        };
        let Self { tranche, opening, events, reader, .. } = self;
        // The connector's reader is gone before the driver learns that reading has ended.
        drop(reader);
        // Without a driver, no one waits for the message.
        drop(events.send(Event::Read(Read { tranche, opening, result: last })).await);
        Ok(())
    }

    async fn read_all(&mut self) -> ReadResult {
        let mut random = fastrand::Rng::with_seed(self.seed);
        // The store's write position of a stream only lags behind this process, so that one look-up is enough.
        let mut looked_up = HashSet::new();
        while let Some(room) = self.credits.recv().await {
            let mut failures = 0;
            let mut unfinished = None;
            let result = loop {
                let error = match self.read(room, &mut unfinished, &mut looked_up).await {
                    Ok(result) => break result,
                    Err(error) => error,
                };
                failures += 1;
                let BackEndReaction::Retry(retry_in) = policy::react_to_source(&error, failures, &mut random) else {
                    return ReadResult::Lost(error);
                };
                self.tell(ReadResult::Failed { error, failures, retry_in }).await;
                tokio::time::sleep(retry_in).await;
            };
            if matches!(result, ReadResult::End) {
                return result;
            }
            self.tell(result).await;
        }
        ReadResult::Stopped
    }

    async fn read(
        &mut self,
        room: Room,
        unfinished: &mut Option<Unfinished>,
        looked_up: &mut HashSet<Box<str>>,
    ) -> Result<ReadResult, SourceError> {
        // A batch whose look-up failed is kept: the connector's reader has moved past it.
        let read = match unfinished.take() {
            Some(read) => read,
            None => match self.read_batch(room).await? {
                Some(read) => read,
                None => return Ok(ReadResult::End),
            },
        };
        match self.write_positions(&read.batch, looked_up).await {
            Ok(write_positions) => {
                let Unfinished { batch, took, read_at } = read;
                Ok(ReadResult::Batch { batch, write_positions, took, read_at })
            }
            Err(error) => {
                *unfinished = Some(read);
                Err(error)
            }
        }
    }

    async fn read_batch(&mut self, room: Room) -> Result<Option<Unfinished>, SourceError> {
        let started = self.clock.now();
        let mut batch = match self.reader.next(room).await? {
            Next::Batch(batch) => batch,
            Next::End => return Ok(None),
        };
        let took = self.clock.since(started).took();
        if let Some(follow) = &self.follow {
            follow.wait(&self.tranche, &batch).await;
        }
        let read_at = self.clock.now();
        let filter = Arc::clone(&self.filter.read().unwrap_or_else(PoisonError::into_inner));
        exclude(&filter, &mut batch);
        Ok(Some(Unfinished { batch, took, read_at }))
    }

    async fn write_positions(
        &mut self,
        batch: &Batch,
        looked_up: &mut HashSet<Box<str>>,
    ) -> Result<Vec<(Box<str>, WritePosition)>, SourceError> {
        let Some((store, key)) = &self.known else { return Ok(Vec::new()) };
        let is_wanted = |event: &&event::Event| {
            event.kind() == Kind::Event || event.is_unfold() || self.of_placeholders && !event.stream().is_empty()
        };
        look_up(&**store, key, self.indexes, batch.events.iter().filter(is_wanted), looked_up).await
    }

    async fn tell(&mut self, result: ReadResult) {
        let read = Read { tranche: self.tranche.clone(), opening: self.opening, result };
        // Without a driver, the next wait for a credit ends the reader.
        drop(self.events.send(Event::Read(read)).await);
    }
}

/// Turns excluded events into placeholders, so that they count as handled.
fn exclude(filter: &Filter, batch: &mut Batch) {
    for event in &mut batch.events {
        if event.kind() == Kind::Malformed {
            continue;
        }
        match filter.decide(event) {
            FilterMatch::Keep => {}
            FilterMatch::DropType if event.is_unfold() => event.forget(),
            FilterMatch::DropType => event.exclude(),
            FilterMatch::DropStream => event.forget(),
        }
    }
}

async fn look_up<'a>(
    store: &dyn CheckpointStore,
    key: &CheckpointKey,
    indexes: Indexes,
    events: impl Iterator<Item = &'a event::Event> + Send,
    looked_up: &mut HashSet<Box<str>>,
) -> Result<Vec<(Box<str>, WritePosition)>, SourceError> {
    let mut new: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    for event in events {
        let stream = event.stream();
        if !looked_up.contains(stream) && seen.insert(stream) {
            new.push(stream);
        }
    }
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = new.iter().map(|stream| indexes.stored_name(&key.tranche, stream)).collect();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let positions = store.write_positions(key, &names).await.map_err(|error| as_source_error(error, new.len()))?;
    let known =
        new.iter().zip(positions).filter_map(|(stream, position)| Some(((*stream).into(), position?))).collect();
    if looked_up.len() >= MAX_LOOKED_UP {
        looked_up.clear();
    }
    looked_up.extend(new.into_iter().map(Box::from));
    Ok(known)
}

fn as_source_error(error: CheckpointError, streams: usize) -> SourceError {
    let retry_after = error.retry_after;
    let doing = format!("look up the write positions of {streams} streams");
    let error = SourceError::new(SourceErrorKind::Unavailable, doing).caused_by(error);
    SourceError { retry_after, ..error }
}

/// Returns a batch's newest creation time, for the age metric.
pub(super) fn newest_timestamp(batch: &Batch) -> Option<time::OffsetDateTime> {
    batch.events.iter().rev().find(|event| event.kind() == Kind::Event).and_then(event::Event::timestamp)
}

#[cfg(test)]
mod tests;
