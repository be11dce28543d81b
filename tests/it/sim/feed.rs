//! The log that every life reads, and a source over it whose tranches come and go.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use propulsiond::config::filter::{self, Filter};
use propulsiond::config::scalar::Text;
use propulsiond::event::{Assembler, Event, Indexes, Kind, malformed};
use propulsiond::position::{Ordinal, Position, Progress, StartAt, TrancheId};
use propulsiond::source::{
    Batch, Changes, Contract, Left, Next, Room, Source, SourceError, SourceErrorKind, TrancheChange, TrancheReader,
};

use super::group::Coming;
use super::plan::Plan;
use super::world::World;

/// Everything that a tranche will ever hold. The ordinal of an event is its place.
pub(super) struct Log(Vec<Event>);

impl Log {
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.0.iter()
    }

    /// Returns the events that a progress says are handled.
    pub(super) fn covered<'a>(&'a self, progress: &'a Progress) -> impl Iterator<Item = &'a Event> {
        let below = match &progress.position {
            None => 0,
            Some(Position::Number(number)) => usize::try_from(*number).unwrap(),
            Some(Position::Token(token)) => panic!("`{token}` is no position of this log"),
        };
        self.0
            .iter()
            .enumerate()
            .filter(move |(at, event)| *at < below || progress.handled.contains(event.at()))
            .map(|(_, event)| event)
    }
}

/// Returns whether every attempt at the event fails for good.
pub(super) fn is_poison(event: &Event) -> bool {
    event.event_type() == "Poison"
}

/// Returns whether the event's effect spoils the transaction that it is in, which shows at the commit only.
pub(super) fn is_spoiling(index: i64) -> bool {
    index == 9
}

pub(super) fn is_filtered(plan: &Plan, event: &Event) -> bool {
    plan.filtered && event.kind() != Kind::Malformed && event.event_type() == "Viewed"
}

pub(super) fn filter(excludes: bool) -> Filter {
    let exclude_events = if excludes { vec![Text::literal("Viewed")] } else { Vec::new() };
    Filter::compile(&filter::Settings { exclude_events, ..filter::Settings::default() }).unwrap()
}

/// Makes the tranches' logs: streams interleaved, with gaps, duplicates, events out of order, unfolds, poison and junk.
pub(super) fn logs(random: &mut fastrand::Rng, plan: &Plan) -> BTreeMap<String, Log> {
    let tranches = random.usize(1..4);
    (0..tranches).map(|tranche| (format!("t{tranche}"), log(random, plan, tranche))).collect()
}

fn log(random: &mut fastrand::Rng, plan: &Plan, tranche: usize) -> Log {
    let streams = random.usize(1..15);
    let mut next = vec![0_i64; streams];
    let mut written: Vec<(usize, i64, &str)> = Vec::new();
    let total = random.usize(0..200);
    while written.len() < total {
        let stream = random.usize(0..streams);
        let index = next[stream];
        let kind = match random.u32(0..100) {
            0 => "Poison",
            1..10 => "Viewed",
            _ => "Moved",
        };
        if kind == "Poison" && plan.indexes == Indexes::Dense && random.bool() {
            // It arrives after the event that follows it: it is parked, and that one was read before (C21).
            next[stream] += 1;
            written.push((stream, index + 1, "Moved"));
        }
        next[stream] += if random.u32(0..30) == 0 && !plan.require_all { random.i64(2..4) } else { 1 };
        written.push((stream, index, kind));
        if random.u32(0..12) == 0 {
            written.push((stream, next[stream], "unfold"));
        }
        if random.u32(0..60) == 0 {
            written.push((stream, 0, "junk"));
        }
        let dense = plan.indexes == Indexes::Dense;
        if dense && random.u32(0..25) == 0 {
            let again = written[random.usize(0..written.len())];
            written.push(again);
        }
        if dense && random.u32(0..15) == 0 && written.len() > 3 {
            let last = written.len() - 1;
            written.swap(last, last - random.usize(1..3));
        }
    }
    Log(written
        .into_iter()
        .enumerate()
        .map(|(at, (stream, index, kind))| event(tranche, stream, at, index, kind))
        .collect())
}

fn event(tranche: usize, stream: usize, at: usize, index: i64, kind: &str) -> Event {
    let at = Ordinal::new(at as u64, 0);
    let name = format!("t{tranche}s-{stream}");
    match kind {
        "junk" => malformed(at, None, b"{", "cut short"),
        "unfold" => Assembler::new(&name, "State").build(Kind::Unfold, at, index).unwrap(),
        kind => Assembler::new(&name, kind).build(Kind::Event, at, index).unwrap(),
    }
}

pub(super) struct Feed {
    world: World,
    process: String,
    coming: Mutex<VecDeque<Coming>>,
}

impl Feed {
    pub(super) fn new(world: World, process: &str) -> Self {
        let coming = Mutex::new(world.lock().start_source(process));
        world.notify();
        Self { world, process: process.to_owned(), coming }
    }

    async fn until_left(&self, tranche: &TrancheId) {
        let Some(epoch) = self.world.lock().epoch(&self.process, tranche.as_str()) else { return };
        while !self.world.lock().has_left(&self.process, tranche.as_str(), epoch) {
            self.world.changed().await;
        }
    }

    fn next(&self) -> Option<Coming> {
        let own = self.coming.lock().unwrap().pop_front();
        own.or_else(|| self.world.lock().next_change(&self.process))
    }
}

#[async_trait]
impl Source for Feed {
    fn contract(&self) -> Contract {
        let inner = self.world.lock();
        Contract { ordinals: true, indexes: inner.plan.indexes, repeats: true }
    }

    async fn watch(&self, changes: &Changes) -> Result<(), SourceError> {
        let (world, process) = (&self.world, self.process.as_str());
        loop {
            let change = match self.next() {
                None if world.lock().shares_tranches() => {
                    world.changed().await;
                    continue;
                }
                None => return Ok(()),
                Some(Coming::Added(tranche)) => world.lock().assign(process, tranche),
                Some(Coming::Settled) => TrancheChange::Settled,
                Some(Coming::Lost(tranche)) => world.lock().lose(process, tranche),
                Some(Coming::Removed(tranche, within)) => world.lock().revoke(process, tranche, within),
                Some(Coming::Pause(delay)) => {
                    tokio::time::sleep(delay).await;
                    continue;
                }
                Some(Coming::Move(tranche)) => {
                    // A limit that is too short gives running calls up, and their events come again.
                    let change = {
                        let mut inner = world.lock();
                        let millis = if inner.random.bool() { inner.random.u64(0..100) } else { 1_000_000 };
                        inner.revoke(process, tranche.clone(), Duration::from_millis(millis))
                    };
                    changes.report(change).await;
                    self.until_left(&tranche).await;
                    world.lock().assign(process, tranche)
                }
            };
            changes.report(change).await;
        }
    }

    fn open(&self, tranche: &TrancheId, from: StartAt) -> Box<dyn TrancheReader> {
        let at = match from {
            StartAt::Origin => 0,
            StartAt::Position(Position::Number(number)) => usize::try_from(number).unwrap(),
            StartAt::Position(Position::Token(token)) => panic!("`{token}` is no position of this log"),
        };
        let epoch = self.world.lock().epoch(&self.process, tranche.as_str()).unwrap_or(0);
        let (world, process) = (self.world.clone(), self.process.clone());
        Box::new(FeedReader { world, process, tranche: tranche.to_string(), epoch, at })
    }

    fn left(&self, tranche: &TrancheId, epoch: u64, how: Left) {
        self.world.lock().leave(&self.process, tranche.as_str(), epoch, how);
        self.world.notify();
    }
}

struct FeedReader {
    world: World,
    process: String,
    tranche: String,
    epoch: u64,
    at: usize,
}

#[async_trait]
impl TrancheReader for FeedReader {
    async fn next(&mut self, room: Room) -> Result<Next, SourceError> {
        let (delay, fails) = {
            let mut inner = self.world.lock();
            let has_left = inner.has_left(&self.process, &self.tranche, self.epoch);
            inner.demand(!has_left, || format!("{} reads {} after it left (C29)", self.process, self.tranche));
            if inner.breaks(40) {
                drop(inner);
                // A panic without a message on the screen.
                std::panic::resume_unwind(Box::new("the reader broke"));
            }
            (inner.random.u64(0..20), inner.strikes(15))
        };
        tokio::time::sleep(Duration::from_millis(delay)).await;
        if fails {
            return Err(SourceError::new(SourceErrorKind::Unavailable, "read the log"));
        }
        let mut inner = self.world.lock();
        let size = inner.random.usize(1..30).min(room.events.max(1));
        let log = &inner.logs[&self.tranche].0;
        let end = (self.at + size).min(log.len());
        let events = log[self.at..end].to_vec();
        let at_tail = end == log.len();
        self.at = end;
        Ok(Next::Batch(Batch { events, resume_at: Position::Number(end as i64), at_tail, lag: None }))
    }
}
