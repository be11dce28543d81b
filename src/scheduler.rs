//! The scheduler: a value that regroups events by stream, hands out work, and knows how far each tranche is handled.
//!
//! Inputs in, work out, `now` passed in: there is no task, clock, channel, randomness or log in it.

mod report;

use std::time::Duration;

use crate::clock::Timestamp;
use crate::event::{Event, Indexes};
use crate::position::{Position, Progress, TrancheId};
use crate::work::{Streams, Work, WorkId};

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
    /// Next indexes of interest that a store knows of streams of this batch (C13); they only ever raise what is known here.
    pub write_positions: Vec<(Box<str>, i64)>,
}

/// What became of a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything below this next index is handled. Must be greater than the work's first index, or the work has
    /// unfolds and this is the index of those.
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
        "event {index} of stream `{stream}` came from tranche `{from}`, but tranche `{other}` has passed that index already"
    )]
    StreamInTwoTranches { stream: String, index: i64, from: TrancheId, other: TrancheId },
    #[error("tranche `{tranche}` went back from ordinal {last} to {at}")]
    OrdinalsDescend { tranche: TrancheId, last: crate::position::Ordinal, at: crate::position::Ordinal },
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Scheduler {
    options: Options,
}

impl Scheduler {
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// Begins a tranche, from the progress that was committed for it. What its set covers is never offered (C12).
    pub fn open(&mut self, _tranche: &TrancheId, _progress: Option<Progress>) {
        todo!()
    }

    /// Marks a stream as parked from `first` on, as the parked store knows it; before the tranche's first batch.
    pub fn restore_parked(&mut self, _tranche: &TrancheId, _stream: &str, _first: crate::position::Ordinal) {
        todo!()
    }

    /// Takes a batch in.
    pub fn ingest(&mut self, _batch: IngestBatch, _now: Timestamp) -> Result<(), BrokenFeed> {
        todo!()
    }

    /// Forgets a tranche and its streams (C7). Work that is out keeps its streams busy until it is finished (C6), and
    /// counts for nothing then.
    pub fn revoke(&mut self, _tranche: &TrancheId) {
        todo!()
    }

    /// Returns the next call to make, if any stream is ready: the oldest batch first, within it the longest queue.
    pub fn take_call(&mut self, _now: Timestamp) -> Option<Streams> {
        todo!()
    }

    /// Returns whether the work's tranche is still held: what was decided for one that is not must not be written (C10).
    pub fn is_held(&self, _work: WorkId) -> bool {
        todo!()
    }

    /// Takes a piece of work back. Its events must be those that were handed out, in order.
    pub fn finish(&mut self, _work: Work, _outcome: Outcome, _now: Timestamp) {
        todo!()
    }

    /// Returns the progress of a tranche as it is.
    pub fn progress(&self, _tranche: &TrancheId) -> Option<Progress> {
        todo!()
    }

    /// Returns the progress, as it will be once these pieces of work are done up to these next indexes, of each tranche
    /// that they touch (C9).
    pub fn progress_with(&mut self, _done: &[(WorkId, i64)]) -> Vec<(TrancheId, Progress)> {
        todo!()
    }

    /// Stops (or starts again) the clocks of `stuck_after` while nothing can be offered: paused, or behind a breaker (C20).
    pub fn set_held(&mut self, _held: bool, _now: Timestamp) {
        todo!()
    }

    /// Returns streams that have been offered without progress for at least `after` (C20), with whether a call of theirs runs.
    pub fn stuck(&self, _after: Duration, _now: Timestamp) -> Vec<StreamReport> {
        todo!()
    }

    /// Lets a parked stream's events through again; the first that was not handed out for parking goes to the handler.
    pub fn unpark(&mut self, _stream: &str, _now: Timestamp) {
        todo!()
    }

    /// Forgets idle streams. Late duplicates of theirs are handled again. Returns how many.
    pub fn purge(&mut self) -> usize {
        todo!()
    }

    /// Returns when something becomes ready by the mere passing of time.
    pub fn next_wake(&self) -> Option<Timestamp> {
        todo!()
    }

    /// Returns how each tranche stands: what it holds, how far it is.
    pub fn tranches(&self) -> Vec<TrancheReport> {
        todo!()
    }

    /// Returns how one tranche stands. Cheap: it is asked before every read.
    pub fn tranche(&self, _tranche: &TrancheId) -> Option<TrancheReport> {
        todo!()
    }

    /// Says why a stream is where it is.
    pub fn explain(&self, _stream: &str, _now: Timestamp) -> Explanation {
        todo!()
    }

    /// Returns totals by state, and up to `most` streams of each state that needs attention, the oldest first.
    pub fn snapshot(&self, _most: usize, _now: Timestamp) -> Snapshot {
        todo!()
    }
}
