//! The scheduler: a value that regroups events by stream, hands out work, and computes the progress of each tranche.
//!
//! Inputs and `now` go in, work comes out. The scheduler has no task, clock, channel, randomness or log.
//!
//! Invariants, asserted in release builds where a check is cheap:
//! * A stream has at most one call in flight. In read order, a tranche has at most one.
//! * The events of a stream are offered in index order, late ones (C5) apart.
//! * An ordinal counts as handled once. The position of a tranche passes a batch only when the batch and all earlier
//!   ones are handled. Batches are ordered by arrival; positions are never compared.
//!
//! An assertion guards the scheduler's own bookkeeping. No feed can break one: a feed that breaks its source's contract
//! is a [`BrokenFeed`], and repeats or odd indexes are ordinary input.
//!
//! Structure: a batch (`batch`) is a bit for each ordinal and a counter. Its events stay where they were read
//! (`store`). A known but idle stream takes a few bytes (`known`, `streams`). A singleton (`singleton`), the only event
//! that its stream has to offer, takes a word there and one in its batch. This is the usual case, and costs little more
//! than finding the stream. Any other stream has a lane of nodes that know their events and bits (`lane`), so that
//! finishing a call searches nothing. The next lane is found by the age of its oldest batch and by its length
//! (`ready`). The rare needs of a lane (trouble, gaps, late events) are kept apart (`lane_extras`), so that most lanes
//! do not carry them.

mod lane_extras;
mod batch;
mod belonging;
mod finish;
mod ingest;
mod inspect;
mod known;
mod lane;
mod leave;
mod ledger;
mod singleton;
mod conflicts;
mod dirty_streams;
mod names;
mod offer;
mod in_flight;
mod placeholders;
mod preview;
mod progress;
mod read_order;
mod ready;
mod report;
mod resolve;
mod settle;
mod slab;
mod store;
mod stream_table;
mod streams;
mod assignment;
#[cfg(test)]
mod tests;
mod timers;
mod tranche;
mod unfolds;

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::event::{Event, Indexes};
use crate::position::{Ordinal, Position, Progress, TrancheId, WritePosition};
use crate::work::{self, Work, WorkId};

use belonging::FormerTranches;
use in_flight::{HeldClock, InFlightTable};
use ingest::Arrival;
use lane::{Lanes, Nodes};
use lane_extras::ExtrasSlab;
use ledger::Ledger;
use ready::Ready;
use store::Store;
use streams::Streams;
use timers::Timers;

pub use report::{Conflict, Explanation, Occurrence, Snapshot, StateTotals, StreamReport, StreamState, TrancheReport};

/// The unit of ordering: events within a unit are handled one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The stream: its events are handled one after the other, streams independently.
    Stream,
    /// The tranche: one call at a time, in read order.
    Tranche,
    /// The event: each is handled by itself (C8).
    None,
}

/// The scheduling settings of a pipeline.
#[derive(Clone, Debug)]
pub struct Options {
    pub order: Order,
    pub indexes: Indexes,
    /// Whether a stream is offered only without a gap: from index 0 or the known write position on.
    pub require_all: bool,
    /// The number of streams that one call may hold.
    pub streams_per_call: usize,
    /// The limits, in events and in bytes, of one stream in a call. One event (with its unfolds) is always offered.
    pub max_events: usize,
    pub max_bytes: usize,
    /// The seed of the hashes of names. It differs between processes, and is fixed where a run must be repeatable.
    pub hash_seed: u64,
}

/// The result of one read of a tranche.
#[derive(Debug)]
pub struct IngestBatch {
    pub tranche: TrancheId,
    pub events: Vec<Event>,
    pub resume_at: Position,
    /// The write positions that a store holds for streams of this batch (C13). The greater of the stored and the known
    /// one counts.
    pub write_positions: Vec<(Box<str>, WritePosition)>,
}

/// The result of a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything below this next index is handled. The index must be greater than the work's first one, unless the
    /// work has unfolds only: then it is theirs.
    Done { next: i64 },
    /// A planned later visit: offer the work again at `until`, even if nothing else arrives.
    Defer { until: Timestamp },
    /// The call made no progress, or no sink was available: offer the work again at `until`. Spends no attempt.
    Wait { until: Timestamp },
    /// The call failed: offer the work again at `until`. Spends an attempt. Its events are then offered singly, until
    /// all of them are handled. If the failure named an event, those before it are offered without it (C19).
    Failed { until: Timestamp, at_index: Option<i64> },
    /// `then = "skip"`: pass the first event (with unfolds if it came alone with them), and offer the later ones again.
    Skip,
    /// `then = "park"`: hand out the stream's events as [`WorkKind::Park`](crate::work::WorkKind::Park), from the first
    /// event on.
    Park,
    /// Return the work as if it had never been offered (a handler was swapped, a transaction rolled back).
    Return,
    /// Return the work, and offer its events singly: together they had no room. Spends no attempt.
    Singly,
}

/// A feed that breaks its source's contract. This is a permanent error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenFeed {
    #[error(
        "event {index} of stream `{stream}` came from tranche `{from}` after tranche `{other}` had brought this event or a later one"
    )]
    StreamInTwoTranches { stream: String, index: i64, from: TrancheId, other: TrancheId },
    #[error("tranche `{tranche}` went back from ordinal {last} to {at}")]
    OrdinalsDescend { tranche: TrancheId, last: Ordinal, at: Ordinal },
}

/// The scheduler of one pipeline: see the module's documentation.
pub struct Scheduler {
    options: Options,
    ledger: Ledger,
    streams: Streams,
    former: FormerTranches,
    lanes: Lanes,
    nodes: Nodes,
    store: Store,
    lane_extras: ExtrasSlab,
    in_flight: InFlightTable,
    ready: Ready,
    timers: Timers,
    clock: HeldClock,
    /// Whether some tranche is about to be released.
    leaving: bool,
    late_events: u64,
    duplicates: u64,
    conflicts: u64,
    first_conflict: Option<Conflict>,
    /// The end of the streams that were searched for those of released tranches.
    swept: u32,
    /// Streams that moved since the store was last told; noted only with `require_all`.
    dirty_streams: hashbrown::HashSet<u32>,
    /// Containers of returned events, for the next calls.
    pool: Vec<Vec<Event>>,
    /// Buffers that batches and previews reuse.
    arrivals: Vec<Arrival>,
    hashes: Vec<u64>,
    handled: Vec<(u32, u32)>,
}

impl Scheduler {
    pub fn new(options: Options) -> Self {
        Self {
            streams: Streams::new(options.hash_seed),
            options,
            former: FormerTranches::default(),
            ledger: Ledger::default(),
            lanes: Lanes::new(),
            nodes: Nodes::new(),
            store: Store::new(),
            lane_extras: ExtrasSlab::new(),
            in_flight: InFlightTable::default(),
            ready: Ready::new(),
            timers: Timers::default(),
            clock: HeldClock::default(),
            leaving: false,
            late_events: 0,
            duplicates: 0,
            conflicts: 0,
            first_conflict: None,
            swept: 0,
            dirty_streams: hashbrown::HashSet::new(),
            pool: Vec::new(),
            arrivals: Vec::new(),
            hashes: Vec::new(),
            handled: Vec::new(),
        }
    }

    /// Begins the assignment of a tranche, from its committed progress. Events in the progress' set are never offered
    /// (C12). An earlier assignment of the tranche ends first.
    pub fn open(&mut self, tranche: &TrancheId, progress: Option<Progress>) {
        self.begin_assignment(tranche, progress);
        if let Some(tranche) = self.ledger.held(tranche) {
            self.ledger.note_change(tranche);
        }
    }

    /// Marks a stream as parked from `first` on, as the parked store records it. The driver calls this before the
    /// tranche's first batch. With `order = "none"` events park by themselves, and this does nothing.
    pub fn restore_parked(&mut self, tranche: &TrancheId, stream: &str, first: Ordinal) {
        self.park_from(tranche, stream, first);
    }

    /// Admits a batch. A batch of a tranche that is not held is dropped. After an error the batch never completes, so
    /// that no progress passes it.
    pub fn ingest(&mut self, batch: IngestBatch, now: Timestamp) -> Result<(), BrokenFeed> {
        if let Some(tranche) = self.ledger.held(&batch.tranche) {
            self.ledger.note_change(tranche);
        }
        self.take_in(batch, now)
    }

    /// Forgets a tranche and its streams (C7). Work in flight keeps its streams busy until it is finished (C6), and
    /// then counts for nothing.
    pub fn revoke(&mut self, tranche: &TrancheId) {
        self.end_assignment(tranche);
    }

    /// Stops offering events of a tranche that moves to another owner. Work in flight is finished as usual.
    pub fn stop_offering(&mut self, tranche: &TrancheId) {
        self.stop_offering_of(tranche);
    }

    /// Returns the ordinal from which the stream is parked: its smallest unhandled ordinal. After out-of-order arrival
    /// it can differ from the first event's ordinal. A store must keep it (C21): events that are read again below it
    /// count as handled.
    pub fn parked_from(&self, work: &Work) -> Option<Ordinal> {
        self.find_parked_from(work)
    }

    /// Returns the tranche of a piece of work, if the tranche is still held.
    pub fn tranche_of(&self, work: WorkId) -> Option<TrancheId> {
        self.find_tranche_of(work)
    }

    /// Returns the next call, if any stream is ready: the oldest batch first, within it the longest queue.
    pub fn take_call(&mut self, now: Timestamp) -> Option<work::Streams> {
        self.offer(now)
    }

    /// Returns whether the work's tranche is still held. A decision for a tranche that is not held must not be written
    /// (C10).
    pub fn is_held(&self, work: WorkId) -> bool {
        self.in_flight.find(work).is_some_and(|call| !call.revoked)
    }

    /// Finishes a piece of work. Its events must be those that were handed out, in order.
    ///
    /// # Panics
    /// If the work was finished already, has other events, or is done without any of them.
    pub fn finish(&mut self, work: Work, outcome: Outcome, now: Timestamp) {
        self.finish_work(work, outcome, now);
    }

    /// Returns the tranches that changed since the last call: a batch came, or work returned. Nothing else changes progress,
    /// or makes room for reading.
    pub fn take_changed(&mut self) -> Vec<TrancheId> {
        self.ledger.take_changed()
    }

    /// Returns the current progress of a tranche; `None` if it is not held.
    pub fn progress(&self, tranche: &TrancheId) -> Option<Progress> {
        self.ledger.held(tranche).map(|tranche| self.ledger.progress(tranche))
    }

    /// Returns the position of a tranche's progress: every event before it is handled. The outer `None`: the tranche is not
    /// held.
    pub fn handled_to(&self, tranche: &TrancheId) -> Option<Option<Position>> {
        self.ledger.held(tranche).map(|tranche| self.ledger.position(tranche).cloned())
    }

    /// Returns how many of the events handled since a tranche was opened `progress` covers. A restart from it would
    /// replay the rest. `progress` is the tranche's current progress, or a preview of it, perhaps cut to fit a store.
    pub fn covered_events(&self, tranche: &TrancheId, progress: &Progress) -> u64 {
        self.ledger.held(tranche).map_or(0, |tranche| self.ledger.covered_events(tranche, progress))
    }

    /// Returns the progress of each touched tranche, as it will be once these pieces of work are done up to these next
    /// indexes (C9).
    pub fn progress_with(&mut self, done: &[(WorkId, i64)]) -> Vec<(TrancheId, Progress)> {
        self.preview(done)
    }

    /// Returns the write position to store for the work's stream once the work is done up to `next` (C13), if there is
    /// one.
    pub fn write_position_with(&self, work: WorkId, next: i64) -> Option<WritePosition> {
        self.preview_write_position(work, next)
    }

    /// With `require_all`, returns the write positions of the tranche's dirty streams: those that moved since the last
    /// call of this function, by whatever means. A store keeps them with the progress, for the time after a restart.
    pub fn take_dirty_streams(&mut self, tranche: &TrancheId) -> Vec<(Box<str>, WritePosition)> {
        self.take_dirty_streams_of(tranche)
    }

    /// Restores dirty streams whose write positions were not stored: the next
    /// [`take_dirty_streams`](Self::take_dirty_streams) returns their positions at that time.
    pub fn restore_dirty_streams(&mut self, tranche: &TrancheId, positions: &[(Box<str>, WritePosition)]) {
        self.restore_dirty_streams_of(tranche, positions);
    }

    /// Holds or releases the clocks of `stuck_after`. They stand still while nothing can be offered: paused, or behind
    /// a breaker (C20).
    pub fn set_held(&mut self, held: bool, now: Timestamp) {
        self.clock.hold(held, now);
    }

    /// Returns whether the stream of work in flight (or its tranche, in read order) holds the oldest unhandled event of
    /// its tranche, at any place of its queue.
    pub fn leads_to_oldest(&self, work: WorkId) -> bool {
        self.in_flight.find(work).is_some_and(|call| self.holds_oldest(call))
    }

    /// Stops the clock of `stuck_after` of work in flight. Its decision waits for other writes, for a retry, or for room:
    /// no fault of its events (C20).
    pub fn stop_clock(&mut self, work: WorkId, now: Timestamp) {
        self.stop_clock_of(work, now);
    }

    /// Stops the clock of work in flight, and forgets the time since it last began to run: a write failed for a reason
    /// that is not this work's.
    pub fn cancel_clock(&mut self, work: WorkId) {
        if let Some(call) = self.in_flight.find_mut(work) {
            call.clock = None;
        }
    }

    /// Lets the clock of work in flight run again.
    pub fn start_clock(&mut self, work: WorkId, now: Timestamp) {
        let shown = self.clock.read(now);
        if let Some(call) = self.in_flight.find_mut(work) {
            call.clock.get_or_insert(shown);
        }
    }

    /// Returns the streams that were offered without progress for at least `after` (C20), the longest first, and
    /// whether a call of each runs. The clock runs from the first call without progress, also between calls that return
    /// at once. It stands still during back-off after a failure, during deferral, while it is
    /// [held](Self::set_held), and while it is [stopped](Self::stop_clock).
    pub fn stuck(&self, after: Duration, now: Timestamp) -> Vec<StreamReport> {
        self.find_stuck(after, now)
    }

    /// Hands out the first event of each [stuck](Self::stuck) stream without a call in flight, for `then` to act on.
    /// Each of these events was tried before, because the clock starts anew for each new first event.
    pub fn take_stuck(&mut self, after: Duration, now: Timestamp) -> Vec<(StreamReport, Work)> {
        self.take_stuck_work(after, now)
    }

    /// Returns the streams that wait for a missing event (`require_all`), the oldest first. Each report names the
    /// missing index.
    pub fn missing(&self, now: Timestamp) -> Vec<StreamReport> {
        self.find_missing(now)
    }

    /// Forgets the failures of streams, and offers those that wait for a retry at once: another handler may succeed (C32).
    pub fn forgive_failures(&mut self, now: Timestamp) {
        self.retry_failing(now);
    }

    /// Unparks a stream of a tranche. The first event that was not handed out for parking goes to the handler.
    pub fn unpark(&mut self, tranche: &TrancheId, stream: &str) {
        self.release_parked(tranche, stream);
    }

    /// Forgets idle streams, and returns their number. Late duplicates of their events are handled again.
    pub fn purge(&mut self) -> usize {
        self.forget_idle()
    }

    /// Returns the time at which something becomes ready without an input.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.timers.first().map(|alarm| alarm.at)
    }

    /// Returns a report of each held tranche.
    pub fn tranches(&self) -> Vec<TrancheReport> {
        let held = (0..).zip(&self.ledger.tranches).filter(|(_, tranche)| tranche.is_held());
        held.map(|(tranche, _)| self.report_tranche(tranche)).collect()
    }

    /// Returns a report of one tranche. It is cheap, because the driver asks for it before every read.
    pub fn tranche(&self, tranche: &TrancheId) -> Option<TrancheReport> {
        self.ledger.held(tranche).map(|tranche| self.report_tranche(tranche))
    }

    /// Explains the state of a stream.
    pub fn explain(&self, stream: &str, now: Timestamp) -> Explanation {
        self.explain_stream(stream, now)
    }

    /// Returns, once, the first dropped repeat that differs from the event of the same stream and index.
    pub fn take_conflict(&mut self) -> Option<Conflict> {
        self.first_conflict.take()
    }

    /// Returns totals by state, and up to `most` streams of each state that needs attention, the oldest first. A
    /// failing, stalled or parked stream with a call in flight also counts as active.
    pub fn snapshot(&self, most: usize, now: Timestamp) -> Snapshot {
        self.take_snapshot(most, now)
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("options", &self.options).finish_non_exhaustive()
    }
}
