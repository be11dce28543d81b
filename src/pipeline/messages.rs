//! Messages between the driver, its tasks and its handle: plain data that every part may use.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::view::View;
use crate::checkpoint::{
    CheckpointError, CheckpointKey, Claimed, Commit, DueStream, Fence, Parked, ParkedMark, ParkedStream, ParkedUpdate,
    QueueRead, QueuedId,
};
use crate::clock::{Period, Timestamp};
use crate::config::filter::Filter;
use crate::handler::{AnyHandler, Call, Decisions, HandlerError};
use crate::position::{Ordinal, OrdinalSet, Progress, TrancheId, WritePosition};
use crate::scheduler::Explanation;
use crate::sink::{Decided, TransactionError, Written};
use crate::source::{Batch, Lag, Left, SourceError};
use crate::work::{Streams, Work};

/// A message that wakes the driver.
pub(super) enum Event {
    /// The watch of the source failed. `retry_in` is `None` if no retry follows.
    WatchFailed {
        error: SourceError,
        failures: u32,
        retry_in: Option<Duration>,
    },
    Claimed(Vec<ClaimResult>),
    Read(Read),
    /// Finished calls of a blocking handler.
    Called(Called),
    /// A finished call of an async handler that had to wait. `None`: it exceeded its time limit.
    Waited {
        call: Arc<Call>,
        decisions: Option<Decisions>,
        period: Period,
    },
    Delivered(Delivered),
    /// The parked store's answer to an append.
    Appended {
        parks: Vec<ToPark>,
        result: Result<(), CheckpointError>,
    },
    /// The parked streams that are due, by tranche and number of its assignment.
    Due(Vec<(TrancheId, u64, Result<Vec<DueStream>, CheckpointError>)>),
    /// A page of the queue of a parked stream.
    QueueRead {
        tranche: TrancheId,
        epoch: u64,
        stream: Box<str>,
        result: Result<QueueRead, CheckpointError>,
    },
    /// The parked store's answer to changes of these streams.
    ParkedUpdated {
        tranche: TrancheId,
        epoch: u64,
        streams: Vec<Box<str>>,
        result: Result<(), CheckpointError>,
    },
    /// The effects of a transaction are written; it waits for its progress.
    EffectsWritten(WrittenEffects),
    Committed(Committed),
    /// A claim is released, and with it an assignment has ended.
    Released {
        tranche: TrancheId,
        assignment: Option<Assignment>,
    },
    /// The backlog of a tranche, apart from reading.
    Lag {
        tranche: TrancheId,
        lag: Lag,
    },
}

/// The end of an assignment, to be reported to the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assignment {
    pub(super) epoch: u64,
    pub(super) left: Left,
}

/// The answer to one claim.
pub(super) struct ClaimResult {
    pub(super) key: CheckpointKey,
    /// The number of the assignment that the claim was made for.
    pub(super) epoch: u64,
    pub(super) result: Result<(Claimed, Vec<ParkedStream>), CheckpointError>,
}

/// The answer of a reader to one credit, or its last message.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) tranche: TrancheId,
    /// The number of the opening. Messages of an older opening do not count.
    pub(super) opening: u64,
    pub(super) result: ReadResult,
}

#[derive(Debug)]
pub(super) enum ReadResult {
    Batch {
        batch: Batch,
        write_positions: Vec<(Box<str>, WritePosition)>,
        took: Duration,
        read_at: Timestamp,
    },
    /// The tranche is closed; the reader has ended.
    End,
    /// A read failed; the reader retries after the delay.
    Failed {
        error: SourceError,
        failures: u32,
        retry_in: Duration,
    },
    /// A read failed for good; the reader has ended.
    Lost(SourceError),
    /// The reader was cancelled and has ended (C29).
    Stopped,
}

/// Finished calls of one thread.
#[derive(Debug, Default)]
pub(super) struct Called {
    pub(super) calls: Vec<Streams>,
    /// The decisions about all their streams, in order.
    pub(super) decisions: Decisions,
    /// The time of each call.
    pub(super) periods: Vec<Period>,
}

/// A finished write of a sink that does not hold the progress.
pub(super) struct Delivered {
    pub(super) decided: Vec<Decided>,
    pub(super) results: Vec<Result<Written, HandlerError>>,
    pub(super) period: Period,
}

/// A transaction whose effects are written.
pub(super) struct WrittenEffects {
    pub(super) decided: Vec<Decided>,
    pub(super) results: Vec<Result<Written, HandlerError>>,
    pub(super) parks: Vec<Work>,
    pub(super) began: Timestamp,
    /// Receives the plan to commit. Dropped, the transaction rolls back.
    pub(super) go: oneshot::Sender<Plan>,
}

/// The contents of a transaction, to be committed with its effects.
pub(super) struct Plan {
    pub(super) accepted: Vec<Accepted>,
    pub(super) commits: Vec<PendingCommit>,
    pub(super) parks: Vec<ToPark>,
    pub(super) removals: Vec<ToRemove>,
    pub(super) made: Timestamp,
}

/// A decision whose effects a transaction holds.
pub(super) struct Accepted {
    pub(super) decided: Decided,
    /// The next index of the written share.
    pub(super) next: i64,
}

/// The outcome of a commit.
pub(super) enum Committed {
    Plain {
        commits: Vec<PendingCommit>,
        results: Vec<Result<(), CheckpointError>>,
        period: Period,
    },
    Transaction {
        plan: Plan,
        result: Result<(), TransactionError>,
        period: Period,
    },
    /// The transaction did not begin.
    NotBegun {
        decided: Vec<Decided>,
        parks: Vec<Work>,
        began: Timestamp,
        error: HandlerError,
    },
}

/// A commit on its way into a store.
#[derive(Debug)]
pub(super) struct PendingCommit {
    pub(super) key: CheckpointKey,
    pub(super) fence: Fence,
    pub(super) sequence: u64,
    pub(super) progress: Progress,
    /// The ordinals above the position whose effects committed with their progress: a later commit must cover them.
    pub(super) needed: OrdinalSet,
    /// The scheduler's version of the progress.
    pub(super) version: u64,
    /// The events handled since the tranche was opened that this progress covers.
    pub(super) completed: u64,
    pub(super) write_positions: Vec<(Box<str>, WritePosition)>,
    /// An earlier attempt has an unknown outcome. The retry must not differ from it (C11).
    pub(super) is_repeated: bool,
}

impl PendingCommit {
    pub(super) fn tranche(&self) -> &TrancheId {
        &self.key.tranche
    }

    pub(super) fn commit(&self) -> Commit<'_> {
        Commit {
            key: &self.key,
            fence: self.fence,
            sequence: self.sequence,
            progress: &self.progress,
            write_positions: &self.write_positions,
        }
    }
}

/// Work of one claim on its way into the parked store.
pub(super) struct ToPark {
    pub(super) key: CheckpointKey,
    pub(super) fence: Fence,
    pub(super) work: Vec<MarkedWork>,
}

/// Work to be parked, with the facts that the store keeps of its events.
pub(super) struct MarkedWork {
    pub(super) work: Work,
    pub(super) from: Ordinal,
    pub(super) mark: Arc<ParkedMark>,
}

/// Changes of parked streams of one claim, on their way into the store.
pub(super) struct ToRemove {
    pub(super) key: CheckpointKey,
    pub(super) fence: Fence,
    pub(super) updates: Vec<Update>,
}

impl ToRemove {
    pub(super) fn updates(&self) -> Vec<ParkedUpdate<'_>> {
        self.updates.iter().map(Update::borrowed).collect()
    }
}

/// A [`ParkedUpdate`] that can go to a task.
#[derive(Clone, Debug)]
pub(super) enum Update {
    Remove { stream: Box<str>, events: Vec<QueuedId> },
    Mark { stream: Box<str>, mark: ParkedMark },
    Unpark { stream: Box<str> },
}

impl Update {
    pub(super) fn borrowed(&self) -> ParkedUpdate<'_> {
        match self {
            Self::Remove { stream, events } => ParkedUpdate::Remove { stream, events },
            Self::Mark { stream, mark } => ParkedUpdate::Mark { stream, mark },
            Self::Unpark { stream } => ParkedUpdate::Unpark { stream },
        }
    }
}

impl ToPark {
    pub(super) fn events(&self) -> Vec<Parked<'_>> {
        self.work.iter().flat_map(MarkedWork::events).collect()
    }

    pub(super) fn into_work(self) -> impl Iterator<Item = Work> {
        self.work.into_iter().map(|marked| marked.work)
    }
}

impl MarkedWork {
    fn events(&self) -> impl Iterator<Item = Parked<'_>> {
        self.work.events.iter().map(|event| Parked { event, from: self.from, mark: &self.mark })
    }
}

/// A command to a running pipeline.
pub(super) enum Command {
    Pause,
    Resume,
    /// Another handler of the same sort, and its version. Calls in flight end with the old one.
    Swap(AnyHandler, Arc<str>),
    /// Another filter, from the next read on (C18).
    Filter(Arc<Filter>),
    /// An operator has left a request in the parked store.
    LookAtParked,
    Ask(Question),
}

/// A question to a running pipeline.
pub(super) enum Question {
    View(oneshot::Sender<View>),
    Explain { stream: String, answer: oneshot::Sender<Explanation> },
}
