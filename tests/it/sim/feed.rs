//! The log that every life reads, and a source over it whose tranches come and go.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use propulsiond::config::filter::{self, Filter};
use propulsiond::config::scalar::Text;
use propulsiond::event::{Assembler, Event, Indexes, Kind, malformed};
use propulsiond::position::{Ahead, Ordinal, Position, Progress, StartAt, TrancheId};
use propulsiond::source::{
    Batch, Changes, Contract, Left, Next, Room, Source, SourceError, SourceErrorKind, TrancheChange, TrancheReader,
};

use super::group::Coming;
use super::plan::Plan;
use super::world::World;

/// Everything that a tranche will ever hold. The ordinal of an event is its place.
pub(super) struct Log {
    tranche: String,
    written: Vec<Written>,
    events: Vec<Event>,
}

/// An event before it has a place.
#[derive(Clone)]
struct Written {
    stream: String,
    index: i64,
    kind: &'static str,
}

/// The distance between the ordinals of two openings, where the source has none of its own.
const RENUMBERED: u64 = 1_000_000;

impl Log {
    fn new(tranche: String, written: Vec<Written>) -> Self {
        let mut log = Self { tranche, written, events: Vec::new() };
        log.events = (0..log.written.len()).map(|at| log.event(at, 0)).collect();
        log
    }

    /// Makes the event at a place, numbered from `first`.
    fn event(&self, at: usize, first: u64) -> Event {
        let Written { stream, index, kind } = &self.written[at];
        let at = Ordinal::new(first + at as u64, 0);
        let meta = self.tranche.as_bytes();
        let (kind, event_type) = match *kind {
            "junk" => return malformed(at, None, b"{", "cut short"),
            "unfold" => (Kind::Unfold, "State"),
            event_type => (Kind::Event, event_type),
        };
        Assembler::new(stream, event_type).meta(meta).build(kind, at, *index).unwrap()
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// Returns the events that a progress says are handled.
    pub(super) fn covered<'a>(&'a self, progress: &'a Progress) -> impl Iterator<Item = &'a Event> {
        let below = match &progress.position {
            None => 0,
            Some(Position::Number(number)) => usize::try_from(*number).unwrap(),
            Some(Position::Token(token)) => panic!("`{token}` is no position of this log"),
        };
        self.events
            .iter()
            .enumerate()
            .filter(move |(at, event)| *at < below || progress.handled.contains(event.at()))
            .map(|(_, event)| event)
    }
}

/// Returns the tranche that brought an event.
pub(super) fn tranche_of(event: &Event) -> &str {
    std::str::from_utf8(event.meta()).unwrap()
}

/// Returns the identity of a stream: its tranche and its name.
pub(super) fn stream_of(event: &Event) -> String {
    format!("{}/{}", tranche_of(event), event.stream())
}

/// Returns the place of an event in its log, however an opening numbered it.
pub(super) fn place(event: &Event) -> Ordinal {
    Ordinal::new(event.at().major % RENUMBERED, event.at().minor)
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
    let mut logs: Vec<_> = (0..tranches).map(|tranche| log(random, plan, tranche)).collect();
    if plan.feed.broken && tranches > 1 {
        stray(random, &mut logs);
    }
    let logs = (0..).zip(logs).map(|(tranche, written)| Log::new(format!("t{tranche}"), written));
    logs.map(|log| (log.tranche.clone(), log)).collect()
}

/// Lets the second tranche bring an event of the first one's again (C4).
fn stray(random: &mut fastrand::Rng, logs: &mut [Vec<Written>]) {
    let of_first: Vec<_> = logs[0].iter().filter(|written| written.kind == "Moved").cloned().collect();
    if !of_first.is_empty() {
        let again = of_first[random.usize(0..of_first.len())].clone();
        let at = random.usize(0..=logs[1].len());
        logs[1].insert(at, again);
    }
}

fn log(random: &mut fastrand::Rng, plan: &Plan, tranche: usize) -> Vec<Written> {
    let streams = random.usize(1..15);
    let mut next = vec![0_i64; streams];
    let mut written: Vec<(usize, i64, &'static str)> = Vec::new();
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
        if plan.feed.repeats && random.u32(0..25) == 0 {
            // A sparse source knows no gaps. An older event that comes again is late, and is offered.
            let stream = random.usize(0..streams);
            let is_last = |(of, _, kind): &&(usize, i64, &str)| *of == stream && !["unfold", "junk"].contains(kind);
            let again = written.iter().rev().find(is_last).copied();
            written.extend(again);
        }
        if dense && random.u32(0..15) == 0 && written.len() > 3 {
            let last = written.len() - 1;
            written.swap(last, last - random.usize(1..3));
        }
    }
    let prefix = if plan.feed.same_names { "s".to_owned() } else { format!("t{tranche}s") };
    let name = |stream| format!("{prefix}-{stream}");
    written.into_iter().map(|(stream, index, kind)| Written { stream: name(stream), index, kind }).collect()
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
        let plan = &self.world.lock().plan;
        Contract { ordinals: !plan.feed.without_ordinals, indexes: plan.indexes, repeats: true }
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

    fn open(&self, tranche: &TrancheId, from: StartAt, ahead: Option<Ahead>) -> Box<dyn TrancheReader> {
        let at = match from {
            StartAt::Origin => 0,
            StartAt::Position(position) => log_index(&position),
        };
        if let Some(ahead) = ahead {
            let mut inner = self.world.lock();
            let read_to = ahead.read_to.as_ref().map(log_index);
            let events = &inner.logs[tranche.as_str()].events;
            let covers =
                read_to.is_some_and(|end| events[at.min(end)..end].iter().any(|event| event.at() == ahead.last));
            let last = ahead.last;
            inner.demand(covers, || format!("{tranche}: the end of the last read, {read_to:?}, is behind {last} (C2)"));
        }
        let (epoch, first) = {
            let mut inner = self.world.lock();
            inner.openings += u64::from(inner.plan.feed.without_ordinals);
            (inner.epoch(&self.process, tranche.as_str()).unwrap_or(0), inner.openings * RENUMBERED)
        };
        let (world, process) = (self.world.clone(), self.process.clone());
        Box::new(FeedReader { world, process, tranche: tranche.to_string(), epoch, at, first })
    }

    fn left(&self, tranche: &TrancheId, epoch: u64, how: Left) {
        self.world.lock().leave(&self.process, tranche.as_str(), epoch, how);
        self.world.notify();
    }
}

/// Returns the index in the log at which a position lies.
fn log_index(position: &Position) -> usize {
    match position {
        Position::Number(number) => usize::try_from(*number).unwrap(),
        Position::Token(token) => panic!("`{token}` is no position of this log"),
    }
}

struct FeedReader {
    world: World,
    process: String,
    tranche: String,
    epoch: u64,
    at: usize,
    /// The ordinal of the log's first event.
    first: u64,
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
        let log = &inner.logs[&self.tranche];
        let end = (self.at + size).min(log.events.len());
        let events = match self.first {
            0 => log.events[self.at..end].to_vec(),
            first => (self.at..end).map(|at| log.event(at, first)).collect(),
        };
        let at_tail = end == log.events.len();
        self.at = end;
        Ok(Next::Batch(Batch { events, resume_at: Position::Number(end as i64), at_tail, lag: None }))
    }
}
