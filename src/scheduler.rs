//! The scheduler: a value that regroups events by stream, hands out work, and knows how far each tranche is handled.
//!
//! Inputs in, work out, `now` passed in: there is no task, clock, channel, randomness or log in it.
//!
//! What holds at every moment, and is asserted where it could break, in release builds too:
//! * a stream has at most one call (a tranche in read order has one call) that has not ended;
//! * a stream's events are offered in index order, late ones (C5) apart;
//! * an ordinal is counted as handled once, and a tranche's position passes a batch only when all of it, and of those
//!   before it, is handled. Batches are ordered by arrival; positions are never compared.
//!
//! How it is made: a batch (`batch`) is a bit for each ordinal and a counter. Its events stay where they were read (`store`).
//! A stream that is known but idle is a few bytes (`known`, `streams`). One event that is all its stream has to do (`lone`)
//! takes a word there, and one in its batch: that is the usual case, and costs little more than finding the stream. Anything
//! else is a lane, of nodes that know their events and bits (`lane`), so that finishing a call searches nothing. What is next
//! is found by the age of its oldest batch and its length (`ready`). What few lanes have (trouble, gaps, late events) is kept
//! apart (`aside`), so that the many do not carry it.

mod aside;
mod batch;
mod belonging;
mod finish;
mod ingest;
mod inspect;
mod known;
mod lane;
mod leave;
mod ledger;
mod lone;
mod moved;
mod names;
mod offer;
mod out;
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
mod streams;
mod tenure;
#[cfg(test)]
mod tests;
mod timers;
mod unfolds;

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::event::{Event, Indexes};
use crate::position::{Ordinal, Position, Progress, TrancheId, WritePosition};
use crate::work::{self, Work, WorkId};

use aside::Asides;
use lane::{Lanes, Nodes};
use ledger::Ledger;
use out::{HeldClock, Outs};
use ready::Ready;
use resolve::Resolved;
use store::Store;
use streams::Streams;
use timers::Timers;

pub use report::{Explanation, Snapshot, StateTotals, StreamReport, StreamState, TrancheReport};

/// What may be handled at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The events of a stream one after the other, streams independently.
    Stream,
    /// One call at a time for each tranche, in read order.
    Tranche,
    /// Every event by itself (C8).
    None,
}

/// What the scheduler is to know of its pipeline.
#[derive(Clone, Debug)]
pub struct Options {
    pub order: Order,
    pub indexes: Indexes,
    /// Offer a stream only where nothing is missing before it: from index 0 or the known write position on.
    pub require_all: bool,
    /// How many streams one call may hold.
    pub streams_per_call: usize,
    /// How many events, and bytes of them, one stream of a call may be offered at a time. One event (with its unfolds)
    /// is always offered.
    pub max_events: usize,
    pub max_bytes: usize,
    /// Makes the hashing of names differ between processes; fixed where a run must be repeatable.
    pub hash_seed: u64,
}

/// What one read of a tranche brought.
#[derive(Debug)]
pub struct IngestBatch {
    pub tranche: TrancheId,
    pub events: Vec<Event>,
    pub resume_at: Position,
    /// What a store knows of streams of this batch (C13); it counts where it is further than what is known here.
    pub write_positions: Vec<(Box<str>, WritePosition)>,
}

/// What became of a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything below this next index is handled. Must be greater than the work's first index, or the work has
    /// unfolds only and this is the index of those.
    Done { next: i64 },
    /// A planned later visit: offer it again at `until`, also if nothing else arrives.
    Defer { until: Timestamp },
    /// It succeeded without progress, or nobody was there to take it: offer it again at `until`; spends no attempt.
    Wait { until: Timestamp },
    /// It failed: offer it again at `until`; spends an attempt. From then on the events are offered singly, until all
    /// that failed together are handled; or, if the failure named an event, those before it are offered without it (C19).
    Failed { until: Timestamp, at_index: Option<i64> },
    /// `then = "skip"`: pass the first event (with unfolds if it came alone with them); what follows is offered again.
    Skip,
    /// `then = "park"`: from the first event on, the stream's events are handed out as [`WorkKind::Park`](crate::work::WorkKind::Park).
    Park,
    /// Give it back as if it had never been offered (a handler was swapped, a transaction rolled back).
    Return,
}

/// A feed that breaks what its source promised; retrying cannot mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenFeed {
    #[error(
        "event {index} of stream `{stream}` came from tranche `{from}`, but tranche `{other}` has brought this index already"
    )]
    StreamInTwoTranches { stream: String, index: i64, from: TrancheId, other: TrancheId },
    #[error("tranche `{tranche}` went back from ordinal {last} to {at}")]
    OrdinalsDescend { tranche: TrancheId, last: Ordinal, at: Ordinal },
}

/// See the module's documentation.
pub struct Scheduler {
    options: Options,
    ledger: Ledger,
    streams: Streams,
    lanes: Lanes,
    nodes: Nodes,
    store: Store,
    asides: Asides,
    outs: Outs,
    ready: Ready,
    timers: Timers,
    clock: HeldClock,
    /// Some tranche is to be let go.
    leaving: bool,
    late_events: u64,
    duplicates: u64,
    /// Up to where streams of tranches that were let go are forgotten.
    swept: u32,
    /// Streams that have moved since they were last asked for; noted only with `require_all`.
    moved: hashbrown::HashSet<u32>,
    /// Containers of events that came back, for the next calls.
    pool: Vec<Vec<Event>>,
    /// Space that batches and previews use again.
    resolved: Vec<Resolved>,
    handled: Vec<(u32, u32)>,
}

impl Scheduler {
    pub fn new(options: Options) -> Self {
        Self {
            streams: Streams::new(options.hash_seed),
            options,
            ledger: Ledger::default(),
            lanes: Lanes::new(),
            nodes: Nodes::new(),
            store: Store::new(),
            asides: Asides::new(),
            outs: Outs::default(),
            ready: Ready::new(),
            timers: Timers::default(),
            clock: HeldClock::default(),
            leaving: false,
            late_events: 0,
            duplicates: 0,
            swept: 0,
            moved: hashbrown::HashSet::new(),
            pool: Vec::new(),
            resolved: Vec::new(),
            handled: Vec::new(),
        }
    }

    /// Begins a tranche, from the progress that was committed for it. What its set covers is never offered (C12).
    /// One that is held already is let go first.
    pub fn open(&mut self, tranche: &TrancheId, progress: Option<Progress>) {
        self.begin_tenure(tranche, progress);
        if let Some(tranche) = self.ledger.held(tranche) {
            self.ledger.note_change(tranche);
        }
    }

    /// Marks a stream as parked from `first` on, as the parked store knows it; before the tranche's first batch.
    /// With `order = "none"` events park by themselves, and this does nothing.
    pub fn restore_parked(&mut self, tranche: &TrancheId, stream: &str, first: Ordinal) {
        self.park_from(tranche, stream, first);
    }

    /// Takes a batch in; one of a tranche that is not held is dropped. After an error the batch never completes, so that no
    /// progress passes it.
    pub fn ingest(&mut self, batch: IngestBatch, now: Timestamp) -> Result<(), BrokenFeed> {
        if let Some(tranche) = self.ledger.held(&batch.tranche) {
            self.ledger.note_change(tranche);
        }
        self.take_in(batch, now)
    }

    /// Forgets a tranche and its streams (C7). Work that is out keeps its streams busy until it is finished (C6), and
    /// counts for nothing then.
    pub fn revoke(&mut self, tranche: &TrancheId) {
        self.end_tenure(tranche);
    }

    /// Offers nothing more of a tranche that somebody else is to have; work that is out is finished as usual.
    pub fn stop_offering(&mut self, tranche: &TrancheId) {
        self.stop_offering_of(tranche);
    }

    /// Takes the first event of a stream that no call is out for, as work, whatever keeps it from being offered.
    pub fn take_stream(&mut self, stream: &str, now: Timestamp) -> Option<Work> {
        self.offer_stream(stream, now)
    }

    /// Returns from which ordinal on the stream of work that is to be parked is parked: the smallest that is not handled, which
    /// is not that of its first event if they arrived out of order. A store must keep it (C21): what is read again below is
    /// taken as handled.
    pub fn parked_from(&self, work: &Work) -> Option<Ordinal> {
        self.find_parked_from(work)
    }

    /// Returns the tranche that a piece of work is of, if it is still held.
    pub fn tranche_of(&self, work: WorkId) -> Option<TrancheId> {
        self.find_tranche_of(work)
    }

    /// Returns the next call to make, if any stream is ready: the oldest batch first, within it the longest queue.
    pub fn take_call(&mut self, now: Timestamp) -> Option<work::Streams> {
        self.offer(now)
    }

    /// Returns whether the work's tranche is still held: what was decided for one that is not must not be written (C10).
    pub fn is_held(&self, work: WorkId) -> bool {
        self.outs.find(work).is_some_and(|out| !out.revoked)
    }

    /// Takes a piece of work back. Its events must be those that were handed out, in order.
    ///
    /// # Panics
    /// If it came back already, with other events, or as done without any of them.
    pub fn finish(&mut self, work: Work, outcome: Outcome, now: Timestamp) {
        if let Some(out) = self.outs.find(work.id) {
            let tranche = out.tranche;
            self.ledger.note_change(tranche);
        }
        self.take_back(work, outcome, now);
    }

    /// Returns the tranches that changed since the last call: a batch came, or work returned. Nothing else changes progress, or
    /// makes room for reading.
    pub fn take_changed(&mut self) -> Vec<TrancheId> {
        self.ledger.take_changed()
    }

    /// Returns the progress of a tranche as it is; `None` if it is not held.
    pub fn progress(&self, tranche: &TrancheId) -> Option<Progress> {
        self.ledger.held(tranche).map(|tranche| self.ledger.progress(tranche))
    }

    /// Returns the progress, as it will be once these pieces of work are done up to these next indexes, of each tranche
    /// that they touch (C9).
    pub fn progress_with(&mut self, done: &[(WorkId, i64)]) -> Vec<(TrancheId, Progress)> {
        self.preview(done)
    }

    /// Returns what a store may keep of how far the work's stream is, once it is done up to `next` (C13); `None` if there is
    /// nothing to keep.
    pub fn write_position_with(&self, work: WorkId, next: i64) -> Option<WritePosition> {
        self.preview_write_position(work, next)
    }

    /// With `require_all`, returns how far the streams of a tranche are that have moved since this was last asked, by whatever
    /// means: what a store is to keep with the progress as it is now, and to know of them after a restart.
    pub fn take_moved(&mut self, tranche: &TrancheId) -> Vec<(Box<str>, WritePosition)> {
        self.take_moved_of(tranche)
    }

    /// Says that these were not stored: the next [`take_moved`](Self::take_moved) returns them again, as they are then.
    pub fn untake_moved(&mut self, tranche: &TrancheId, positions: &[(Box<str>, WritePosition)]) {
        self.untake_moved_of(tranche, positions);
    }

    /// Stops (or starts again) the clocks of `stuck_after` while nothing can be offered: paused, or behind a breaker (C20).
    pub fn set_held(&mut self, held: bool, now: Timestamp) {
        self.clock.hold(held, now);
    }

    /// Returns streams that were offered without progress for at least `after` (C20), the longest first, with whether a call of
    /// theirs runs at the moment. It counts from the first call that made none, also between calls that return at once; the
    /// back-off after a failure and deferral do not count, nor what is [held](Self::set_held).
    pub fn stuck(&self, after: Duration, now: Timestamp) -> Vec<StreamReport> {
        self.find_stuck(after, now)
    }

    /// Lets a parked stream's events through again; the first that was not handed out for parking goes to the handler.
    pub fn unpark(&mut self, stream: &str, _now: Timestamp) {
        self.release_parked(stream);
    }

    /// Forgets idle streams. Late duplicates of theirs are handled again. Returns how many.
    pub fn purge(&mut self) -> usize {
        self.forget_idle()
    }

    /// Returns when something becomes ready by the mere passing of time.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.timers.first().map(|alarm| alarm.at)
    }

    /// Returns how each tranche stands: what it holds, how far it is.
    pub fn tranches(&self) -> Vec<TrancheReport> {
        let held = (0..).zip(&self.ledger.tranches).filter(|(_, tranche)| tranche.is_held());
        held.map(|(tranche, _)| self.report_tranche(tranche)).collect()
    }

    /// Returns how one tranche stands. Cheap: it is asked before every read.
    pub fn tranche(&self, tranche: &TrancheId) -> Option<TrancheReport> {
        self.ledger.held(tranche).map(|tranche| self.report_tranche(tranche))
    }

    /// Says why a stream is where it is.
    pub fn explain(&self, stream: &str, now: Timestamp) -> Explanation {
        self.explain_stream(stream, now)
    }

    /// Returns totals by state, and up to `most` streams of each state that needs attention, the oldest first.
    /// A stream that failed, stalled or is parked, and of which a call runs, counts as active, too.
    pub fn snapshot(&self, most: usize, now: Timestamp) -> Snapshot {
        self.take_snapshot(most, now)
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("options", &self.options).finish_non_exhaustive()
    }
}
