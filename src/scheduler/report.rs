//! The scheduler's reports.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::position::{Ordinal, TrancheId};

/// The state of a tranche.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrancheReport {
    pub tranche: TrancheId,
    /// Batches with an event that is neither handled nor waiting. An event waits if its stream is in trouble, parked,
    /// or misses an earlier event.
    pub batches: usize,
    /// Incomplete batches, and complete ones behind an incomplete one.
    pub batches_held: usize,
    /// Bytes of the events that are held unhandled.
    pub bytes: usize,
    /// Events read since the position: the distance by which reading is ahead.
    pub ahead: u64,
    /// The unhandled events among those.
    pub unhandled: u64,
    /// Pieces of work in flight.
    pub in_flight: usize,
    /// The number of runs in the set of handled ordinals. The set's encoded size follows from it (C14).
    pub set_runs: usize,
    /// The number of changes of the progress since the tranche was opened. Equal numbers mean equal progress.
    pub version: u64,
    /// Batches completed in order since the tranche was opened.
    pub completed_batches: u64,
    /// Events that became handled since the tranche was opened, by whatever means.
    pub completed_events: u64,
    /// The first unhandled ordinal.
    pub blocked_at: Option<Ordinal>,
    /// The time at which the batch of that ordinal was read.
    pub blocked_since: Option<Timestamp>,
}

/// The state of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamState {
    /// No event of the stream was seen, or the stream was purged.
    Unknown,
    /// Every event that was seen is handled.
    Idle,
    /// The stream is offered as soon as a slot is free.
    Ready,
    /// The stream has events, but earlier ones are missing (`require_all`).
    Waiting,
    /// A call of the stream runs.
    Active,
    /// The last call failed.
    Failing,
    /// The last call succeeded without progress.
    Stalled,
    /// The handler asked for a later visit.
    Deferred,
    Parked,
}

/// A stream in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamReport {
    pub stream: String,
    pub tranche: TrancheId,
    pub state: StreamState,
    /// Whether a call of it runs.
    pub running: bool,
    /// The index of its first queued event. Events in flight are not queued.
    pub head: Option<i64>,
    pub events: usize,
    pub bytes: usize,
    /// The number of consecutive failures of its first event.
    pub failures: u32,
    /// The time in its state. Failing and stalled streams: the time since the last progress (D-14).
    pub age: Duration,
    /// The time until which it is not offered.
    pub until: Option<Timestamp>,
    /// The index that must come before its first event is offered (`require_all`).
    pub missing: Option<i64>,
}

/// The explanation of a stream's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub state: StreamState,
    /// `None` if the stream is unknown.
    pub report: Option<StreamReport>,
    /// The next index of interest.
    pub write_position: Option<i64>,
    /// Jumped indexes, as half-open ranges. Their events could still come late.
    pub gaps: Vec<(i64, i64)>,
    /// The first ordinal of its tranche that this stream holds back, if it does.
    pub blocks: Option<Ordinal>,
}

/// A repeat that was dropped although it differs from the event of the same stream and index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub stream: String,
    pub index: i64,
    /// The event that is handled.
    pub kept: Occurrence,
    /// The event that differs, and counts as its repeat.
    pub dropped: Occurrence,
}

/// The tranche and the ordinal of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    pub tranche: TrancheId,
    pub at: Ordinal,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, index, kept, dropped } = self;
        write!(
            f,
            "event {index} of stream `{stream}` has two contents: ordinal {} of tranche `{}` is handled, and ordinal {} of \
             tranche `{}` is dropped as its repeat",
            kept.at, kept.tranche, dropped.at, dropped.tranche
        )
    }
}

/// Totals of one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateTotals {
    pub streams: usize,
    pub events: usize,
    pub bytes: usize,
    pub categories: usize,
    /// The ages of the stream longest and shortest in the state.
    pub oldest: Duration,
    pub newest: Duration,
}

/// The state of all streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub idle: usize,
    pub ready: StateTotals,
    pub waiting: StateTotals,
    pub active: StateTotals,
    pub failing: StateTotals,
    pub stalled: StateTotals,
    pub deferred: StateTotals,
    pub parked: StateTotals,
    /// Late events offered so far (C5), and duplicates dropped.
    pub late_events: u64,
    pub duplicates: u64,
    /// The dropped duplicates that were found to differ from the events that they repeat.
    pub conflicts: u64,
    /// The streams that need attention: failing, stalled, active for long, parked, or without an earlier event that
    /// `require_all` asks for; the oldest first.
    pub streams: Vec<StreamReport>,
    /// The few streams that most bytes wait of to be handled, ready or not; the largest first.
    pub largest: Vec<StreamReport>,
}
