//! Reads one tranche: a batch for each credit that the driver grants, filtered, and with the write positions that a store
//! knows of its streams.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use hashbrown::HashSet;
use tokio::sync::mpsc;

use super::OUTAGE;
use super::driver::Event;
use super::policy;
use crate::checkpoint::{CheckpointKey, CheckpointStore};
use crate::clock::{Clock, Timestamp};
use crate::config::filter::{Filter, FilterMatch};
use crate::event::{self, Indexes, Kind};
use crate::position::{TrancheId, WritePosition};
use crate::source::{Batch, Next, Room, SourceError, SourceErrorKind, TrancheReader};

/// How many streams a reader remembers to have looked up.
const REMEMBERED: usize = 100_000;

/// What a reader brought back for a credit.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) tranche: TrancheId,
    /// Distinguishes this opening of the tranche from earlier ones, whose last words may still come.
    pub(super) opening: u64,
    pub(super) came: Came,
}

#[derive(Debug)]
pub(super) enum Came {
    Batch {
        batch: Batch,
        write_positions: Vec<(Box<str>, WritePosition)>,
        took: Duration,
        read_at: Timestamp,
    },
    End,
    /// The reader goes on trying after this delay.
    Failed {
        error: SourceError,
        retry_in: Duration,
    },
    /// It does not: trying again is of no use.
    Lost(SourceError),
}

/// A task that reads one tranche.
pub(super) struct Reader {
    pub(super) tranche: TrancheId,
    pub(super) opening: u64,
    pub(super) reader: Box<dyn TrancheReader>,
    pub(super) filter: Arc<RwLock<Arc<Filter>>>,
    /// Where the write positions of streams are known, if the feed may repeat events (C13).
    pub(super) known: Option<(Arc<dyn CheckpointStore>, CheckpointKey)>,
    /// Says under which name a store keeps the write position of a stream (C4).
    pub(super) indexes: Indexes,
    /// Also of streams of which only placeholders came: with `require_all` those wait their turn, too.
    pub(super) of_placeholders: bool,
    pub(super) clock: Clock,
    pub(super) credits: mpsc::Receiver<Room>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) seed: u64,
}

impl Reader {
    /// Reads until the tranche ends, its position is lost, or the driver lets go of it.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut failures = 0;
        // Streams that were looked up: what is known here of a stream only grows while this process reads its tranche, so
        // that looking up one again changes nothing.
        let mut looked_up = HashSet::new();
        while let Some(room) = self.credits.recv().await {
            let came = loop {
                match self.read(room, &mut looked_up).await {
                    Ok(came) => {
                        failures = 0;
                        break came;
                    }
                    Err(error) => {
                        failures += 1;
                        if error.kind == SourceErrorKind::PositionLost {
                            break Came::Lost(error);
                        }
                        let retry_in = policy::source_delay(&error, failures, &OUTAGE, &mut random);
                        if !self.tell(Came::Failed { error, retry_in }).await {
                            return Ok(());
                        }
                        tokio::time::sleep(retry_in).await;
                    }
                }
            };
            let last = !matches!(came, Came::Batch { .. });
            if !self.tell(came).await || last {
                break;
            }
        }
        Ok(())
    }

    async fn read(&mut self, room: Room, looked_up: &mut HashSet<Box<str>>) -> Result<Came, SourceError> {
        let started = self.clock.now();
        let mut batch = match self.reader.next(room).await? {
            Next::Batch(batch) => batch,
            Next::End => return Ok(Came::End),
        };
        let read_at = self.clock.now();
        let filter = Arc::clone(&self.filter.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        exclude(&filter, &mut batch);
        let write_positions = match &self.known {
            Some((store, key)) => {
                let is_wanted = |event: &&event::Event| {
                    event.kind() == Kind::Event
                        || event.is_unfold()
                        || self.of_placeholders && !event.stream().is_empty()
                };
                look_up(&**store, key, self.indexes, batch.events.iter().filter(is_wanted), looked_up).await?
            }
            None => Vec::new(),
        };
        Ok(Came::Batch { batch, write_positions, took: read_at.since(started), read_at })
    }

    /// Returns whether the driver still listens.
    async fn tell(&mut self, came: Came) -> bool {
        let read = Read { tranche: self.tranche.clone(), opening: self.opening, came };
        self.events.send(Event::Read(read)).await.is_ok()
    }
}

/// Turns what the filter excludes into placeholders, so that it counts as handled.
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
    let positions = store.write_positions(key, &names).await.map_err(|error| {
        SourceError::new(SourceErrorKind::Unavailable, format!("look up the write positions of {} streams", new.len()))
            .caused_by(error)
    })?;
    let known =
        new.iter().zip(positions).filter_map(|(stream, position)| Some(((*stream).into(), position?))).collect();
    if looked_up.len() >= REMEMBERED {
        looked_up.clear();
    }
    looked_up.extend(new.into_iter().map(Box::from));
    Ok(known)
}

/// Returns a batch's newest creation time, for the age metric.
pub(super) fn newest_timestamp(batch: &Batch) -> Option<time::OffsetDateTime> {
    batch.events.iter().rev().find(|event| event.kind() == Kind::Event).and_then(event::Event::timestamp)
}
