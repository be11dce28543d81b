//! Sources: feeds of events, in one or more tranches that come and go.
//!
//! A source implements [`Source`] and [`TrancheReader`]. The pipeline owns every retry, delay and limit; a connector makes
//! one attempt per call and reports the outcome.
//!
//! | the source | the pipeline |
//! |---|---|
//! | [`watch`](Source::watch) reports [`Added`](TrancheChange::Added) | claims the tranche, then calls [`open`](Source::open) |
//! | [`next`](TrancheReader::next) returns a batch | schedules the events; stores the position once all of them are handled |
//! | `watch` reports [`Removed`](TrancheChange::Removed) | drops the reader, finishes, commits, calls [`left`](Source::left) with [`Left::Released`] |
//! | `watch` reports [`Lost`](TrancheChange::Lost) | drops the reader and the results of running calls, commits nothing |
//! | `next` returns [`Next::End`] | handles the rest, commits, calls `left` with [`Left::Completed`] |
//!
//! A tranche can come and go many times. Each [`Added`](TrancheChange::Added) begins an assignment with a number of its
//! own, and one call of `left` ends it, unless the tranche was lost. `watch` and `left` run independently of each other: the
//! source can report the next assignment of a tranche before the pipeline has left the last one. The pipeline then opens
//! the tranche after that `left`.
//!
//! `connector/memory/source.rs` is the reference implementation. The settings of a source implement
//! [`SourceKind`](crate::connector::kind::SourceKind), and `tests/it/contract/source.rs` tests every source.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::event::{Event, Indexes};
use crate::position::{Ahead, Position, StartAt, TrancheId};

/// The properties that a source promises of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Events carry ordinals that never change their meaning (C1). Without them, progress is a plain position.
    pub ordinals: bool,
    pub indexes: Indexes,
    /// The feed may deliver the same (stream, index) again under another ordinal (C13).
    pub repeats: bool,
}

/// A feed of events.
///
/// A pipeline builds one source per run and shares it between its tasks.
#[async_trait]
pub trait Source: Send + Sync {
    /// Returns the promises of the source. MUST NOT change during a run.
    fn contract(&self) -> Contract;

    /// Reports changes of the assigned tranches, in a task of its own.
    ///
    /// MUST report each existing tranche, then [`TrancheChange::Settled`], then later changes. Returns `Ok` only if no
    /// change can follow; otherwise it waits. MUST NOT wait for the pipeline to finish anything: the end of a removed
    /// tranche arrives through [`left`](Self::left). An `Ok` ends no pipeline: the assigned tranches go on.
    ///
    /// # Errors
    /// The pipeline reports the error, waits, and calls again; opened tranches go on meanwhile. The delay grows from
    /// 100 ms to 30 s unless the error carries `retry_after`. A later call reports only changes that no earlier call
    /// reported, or repeats an assignment under the same epoch. It reports [`TrancheChange::Settled`] again as soon as it
    /// reaches the source: the pipeline then forgets the error. [`PositionLost`](SourceErrorKind::PositionLost)
    /// halts the pipeline.
    ///
    /// # Cancel safety
    /// The pipeline drops the future when it stops, and never calls again after that. Other callers may: the source notes a
    /// change as reported after [`Changes::report`] has returned.
    async fn watch(&self, changes: &Changes) -> Result<(), SourceError>;

    /// Opens an assigned tranche. `ahead`: events above `from` that are already handled.
    ///
    /// MUST NOT perform I/O: the pipeline calls it from its loop. The reader connects in its first
    /// [`next`](TrancheReader::next).
    ///
    /// A source whose store guarantees that an ordinal keeps its meaning (C1) ignores `ahead`. One that numbers the parts of
    /// a tranche itself gives no new part a number that `ahead` may cover. One whose events can be edited compares them up
    /// to the end of `ahead`: the handled ordinals would otherwise cover events that no handler has seen.
    fn open(&self, tranche: &TrancheId, from: StartAt, ahead: Option<Ahead>) -> Box<dyn TrancheReader>;

    /// Notes that the pipeline gave up an assignment.
    ///
    /// The pipeline calls it once per assignment that it began, except after [`TrancheChange::Lost`]. Its reader is dropped
    /// and its claim released before. MUST NOT block. `epoch` tells an old assignment from a newer one that the pipeline
    /// has not seen yet. A removal that reaches the pipeline before it has begun that newer one cancels it without a call.
    fn left(&self, tranche: &TrancheId, epoch: u64, how: Left) {
        let _ = (tranche, epoch, how);
    }

    /// Returns a short text of a position for operators, such as `orders.jsonl line 120`.
    fn describe(&self, position: &Position) -> String {
        position.to_string()
    }

    /// Compares two positions of a tranche in read order. Pipelines of different groups may have stored them, over sources of
    /// equal settings. `None`: unknown. A pipeline that comes after another one then waits for ever, so a kind whose positions
    /// cannot be compared says so ([`SourceKind::incomparable`](crate::connector::kind::SourceKind::incomparable)).
    fn compare(&self, one: &Position, other: &Position) -> Option<Ordering> {
        (one == other).then_some(Ordering::Equal)
    }

    /// Returns access to tail and lag that is independent of reading; `None` if the source cannot look ahead.
    fn probe(&self) -> Option<Arc<dyn Probe>> {
        None
    }

    /// Leaves the group and closes connections, after the last [`left`](Self::left).
    ///
    /// The pipeline waits until its drain deadline at most, then drops the future.
    async fn close(&self) {}
}

/// A source's sender of changes to its pipeline.
#[derive(Clone, Debug)]
pub struct Changes(mpsc::Sender<TrancheChange>);

/// The number of changes that wait for the driver before [`Changes::report`] waits.
const PENDING_CHANGES: usize = 64;

impl Changes {
    /// Returns a sender and the receiver of its changes.
    pub fn channel() -> (Self, mpsc::Receiver<TrancheChange>) {
        let (sender, receiver) = mpsc::channel(PENDING_CHANGES);
        (Self(sender), receiver)
    }

    /// Reports a change. Waits while too many earlier ones are pending.
    pub async fn report(&self, change: TrancheChange) {
        // The receiver is gone only when the pipeline has stopped, which also drops the caller's task.
        drop(self.0.send(change).await);
    }
}

/// A change of the tranches that this process may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrancheChange {
    /// This process may read the tranche. A newer assignment of a held tranche means that the earlier one was lost.
    Added {
        tranche: TrancheId,
        /// The start of a tranche without progress: a child of a split starts at its parent's end.
        origin: Option<Position>,
        /// The number of the assignment, greater than that of each earlier one of the tranche. A repeat is ignored.
        epoch: u64,
    },
    /// Every existing tranche was reported, and the source can be reached. A finite run ends when all assigned tranches are
    /// handled: it does not wait for one that comes later.
    Settled,
    /// Another process takes the tranche over. The pipeline drains and commits it within the limit, then calls
    /// [`Source::left`]. After the limit it gives up running calls, and their events belong to the next assignment. For a
    /// tranche that is not assigned, or has left already, it changes nothing.
    Removed { tranche: TrancheId, within: Duration },
    /// Another process reads the tranche already. The pipeline abandons it without a commit.
    Lost { tranche: TrancheId },
}

/// The way in which an assignment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The reader reported [`Next::End`], all events are handled, and the last position is stored. The children of a split
    /// may open. The end itself is not stored: a later process assigns the tranche again, and its reader reports the end.
    Completed,
    /// The tranche was removed, or the pipeline stops. The progress so far is stored; another process may go on.
    Released,
    /// A newer claim of another process fenced this one (C15). The source gives its lease back.
    Fenced,
}

/// Reads one tranche.
#[async_trait]
pub trait TrancheReader: Send {
    /// Returns the next batch, and continues behind it in the next call.
    ///
    /// Makes one attempt. It MUST report the tail once, by a batch with `at_tail`, before it waits at the tail. It then waits
    /// for new events, and may return an empty batch with `at_tail` after a while. It SHOULD keep a batch within `room`, but
    /// MUST return at least one event if there is one; a reader whose pages have a fixed size may exceed it.
    ///
    /// # Errors
    /// The pipeline reports the error, waits, and calls again; the next call continues behind the last batch. A
    /// position that no longer exists is [`SourceErrorKind::PositionLost`], never a silent restart elsewhere.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event: the next call returns what this one would have returned. The pipeline drops
    /// the reader itself as soon as its tranche is removed or lost, or the pipeline drains (C29).
    async fn next(&mut self, room: Room) -> Result<Next, SourceError>;
}

/// The room that the pipeline has for one more batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub events: usize,
    pub bytes: usize,
}

impl Room {
    /// No limit.
    pub const UNLIMITED: Self = Self { events: usize::MAX, bytes: usize::MAX };
}

/// The result of one read.
#[derive(Debug)]
pub enum Next {
    Batch(Batch),
    /// The tranche is closed: no event can follow. The tail was reported before. The pipeline does not call again.
    End,
}

/// Events in read order, and the position behind them.
#[derive(Debug)]
pub struct Batch {
    /// Ordinals ascend strictly, except that the unfolds of one document share one.
    pub events: Vec<Event>,
    /// Reading resumes here once all events of this batch are handled.
    pub resume_at: Position,
    /// No further event is available now. An empty batch need not be at the tail, and one at the tail need not be empty.
    pub at_tail: bool,
    /// The backlog behind this batch, if known.
    pub lag: Option<Lag>,
}

/// The backlog of a tranche: its unread events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    pub amount: u64,
    pub unit: LagUnit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagUnit {
    Events,
    Bytes,
}

/// Answers questions about a tranche apart from reading, also while backpressure stops its reader.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Returns the tranche's backlog behind a position, `None` being its origin.
    ///
    /// # Errors
    /// The pipeline shows the last known value instead, and asks again later.
    ///
    /// # Cancel safety
    /// The pipeline drops the future after a few seconds.
    async fn lag(&self, tranche: &TrancheId, behind: Option<&Position>) -> Result<Lag, SourceError>;
}

/// Accepts events that are pushed into a running pipeline.
#[async_trait]
pub trait Inbox: Send + Sync + fmt::Debug {
    /// Accepts all of the lines or none: JSON objects as `jsonlines` reads them, or records that the source maps. Returns
    /// their number.
    ///
    /// # Errors
    /// [`SourceErrorKind::Refused`] names the first line that is not acceptable. [`SourceErrorKind::Unavailable`] says
    /// that the inbox is full.
    async fn push(&self, lines: &[u8]) -> Result<usize, SourceError>;
}

/// An error of a source.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct SourceError {
    pub kind: SourceErrorKind,
    /// The attempted operation and its object: `read orders.jsonl`.
    pub doing: String,
    #[source]
    pub cause: Option<anyhow::Error>,
    /// The delay that the back end asked for.
    pub retry_after: Option<Duration>,
}

/// The next step after a [`SourceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The source cannot be reached: the pipeline retries with back-off.
    Unavailable,
    /// The source asks for fewer requests: the pipeline retries after `retry_after`, else with back-off.
    Throttled,
    /// Rights or settings must change first: the pipeline retries at the longest delay.
    Denied,
    /// The request is wrong: the pipeline retries at the longest delay.
    Refused,
    /// The stored position no longer exists: the pipeline halts, and the operator decides (R82).
    PositionLost,
}

impl SourceErrorKind {
    /// Returns the name of the class in logs and views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::PositionLost => "position lost",
        }
    }
}

impl SourceError {
    pub fn new(kind: SourceErrorKind, doing: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), cause: None, retry_after: None }
    }

    pub fn caused_by(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Sets the delay that the back end asked for.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}
