//! Checkpoint stores: where progress is kept, by whom it may be moved, and the parked events beside it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use time::OffsetDateTime;

use crate::event::Event;
use crate::position::{Ordinal, Progress, TrancheId, WritePosition};

/// What progress is kept under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckpointKey {
    /// The consumer group.
    pub group: Arc<str>,
    /// The origin of the events.
    pub source: Arc<str>,
    pub tranche: TrancheId,
}

impl fmt::Display for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.group, self.source, self.tranche)
    }
}

/// A claim on a key. A later claim's fence is greater, and makes commits under the older one fail (C15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// Who claims, for people to read: host, process, pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(pub Arc<str>);

/// What a claim found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub fence: Fence,
    /// `None`: never committed.
    pub progress: Option<Progress>,
    /// The number of the stored commit; the next one carries the number after it.
    pub sequence: u64,
}

/// One step of the chain of commits under a key (C11).
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    pub key: &'a CheckpointKey,
    pub fence: Fence,
    /// One more than that of the commit before it.
    pub sequence: u64,
    /// A position of `None` is the tranche's origin: nothing before the set is handled yet.
    pub progress: &'a Progress,
    /// How far the streams that moved are, where the feed may repeat events (C13). Kept in the same transaction.
    pub write_positions: &'a [(Box<str>, WritePosition)],
}

/// The most bytes of an encoded set that a store without a tighter limit keeps (C14).
pub const MAX_SET_BYTES: usize = 64 * 1_024;

/// The owner that a fenced error names for a key without a claim.
pub const NEVER_CLAIMED: &str = "no owner: the key was never claimed here";
/// The owner that a fenced error names for a key whose later owner has gone.
pub const RELEASED: &str = "a later owner, which has released the key";
/// The owner that a fenced error names for a position that does not come from a commit (C12).
pub const MOVED: &str = "another program, which moved the position";

/// The place of a commit in the chain of its key (C11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOrder {
    /// The commit follows the stored one.
    Next,
    /// The commit is the stored one.
    Repeat,
}

impl CommitOrder {
    /// Returns the place of commit `sequence` after commit `stored`; `None` if it breaks the chain. Commits are numbered
    /// from 1, so that 0 is never a repeat.
    pub fn of(sequence: u64, stored: u64) -> Option<Self> {
        match sequence {
            0 => None,
            repeated if repeated == stored => Some(Self::Repeat),
            next if Some(next) == stored.checked_add(1) => Some(Self::Next),
            _ => None,
        }
    }
}

/// Keeps the progress of tranches.
///
/// Commits under one fence come one after the other; a store makes each conditional on (fence, sequence − 1).
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Returns how many bytes an encoded set may have (C14). `None`: only plain positions can be kept.
    fn max_set_bytes(&self) -> Option<usize>;

    /// Looks without claiming. `None`: never committed.
    async fn load(&self, key: &CheckpointKey) -> Result<Option<Progress>, CheckpointError>;

    /// Takes the key over: older fences fail from here on.
    async fn claim(&self, key: &CheckpointKey, owner: &Owner) -> Result<Claimed, CheckpointError>;

    /// Stores progress; one result per commit, in order. Durable when it returns.
    ///
    /// A repeat of the stored commit (same fence and sequence) is harmless.
    async fn commit(&self, commits: &[Commit<'_>]) -> Vec<Result<(), CheckpointError>>;

    /// Returns the fence that holds the key and the number of the stored commit: what tells whether a commit whose outcome is
    /// unknown happened (C11). `None`: never claimed.
    async fn last_commit(&self, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, CheckpointError>;

    /// Gives the key up, so that a look at it shows no owner. The progress stays.
    async fn release(&self, key: &CheckpointKey, fence: Fence) -> Result<(), CheckpointError>;

    /// Returns how far each stream is, as last committed under the key's group and source; `None` where nothing is kept.
    /// One answer per stream, in order.
    async fn write_positions(
        &self,
        key: &CheckpointKey,
        streams: &[&str],
    ) -> Result<Vec<Option<WritePosition>>, CheckpointError> {
        let _ = key;
        Ok(vec![None; streams.len()])
    }

    /// Returns where parked events can be kept beside the progress, if they can.
    fn parked(&self) -> Option<Arc<dyn ParkedStore>> {
        None
    }
}

/// Keeps the events of parked streams, in order (design.md §3.5).
#[async_trait]
pub trait ParkedStore: Send + Sync {
    /// Returns which streams of the tranche are parked, so that their events can be held from the first read on, and since
    /// which ordinal: the smallest [`Parked::from`] that is kept of each.
    async fn load(&self, key: &CheckpointKey) -> Result<Vec<ParkedStream>, CheckpointError>;

    /// Appends events to their streams' queues. One that is there already (by ordinal) stays as it is (C21).
    /// Durable when it returns.
    async fn append(&self, key: &CheckpointKey, fence: Fence, events: &[Parked<'_>]) -> Result<(), CheckpointError>;

    /// Returns the parked events of one stream, in order.
    async fn read(&self, key: &CheckpointKey, stream: &str) -> Result<Vec<Event>, CheckpointError>;
}

/// A stream that is parked, and since which of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedStream {
    /// Empty for malformed records, which have none.
    pub stream: Box<str>,
    /// What is read again below it was handled (C21). It may be below every event that is kept yet.
    pub first: Ordinal,
    pub events: u64,
    pub why: Arc<str>,
}

/// An event on its way into the parked store.
#[derive(Clone, Debug)]
pub struct Parked<'a> {
    pub event: &'a Event,
    /// The smallest ordinal of its stream that was not handled when that was parked. Of events that arrived out of order, the
    /// one that has it may be appended last.
    pub from: Ordinal,
    /// Why the stream was parked; what only queues behind the event that failed repeats that.
    pub why: &'a str,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct CheckpointError {
    pub kind: CheckpointErrorKind,
    /// What was being done, and to what: `commit shop/events/0 to data/propulsiond.db`.
    pub doing: String,
    #[source]
    pub cause: Option<anyhow::Error>,
}

/// What is to be done about a [`CheckpointError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointErrorKind {
    /// Try again later.
    Unavailable,
    /// Somebody else owns the key now (C15).
    Fenced { by: String, since: Option<OffsetDateTime> },
    /// What is stored cannot be read: a person decides.
    Unreadable,
    /// It is not known whether the commit happened: read the key under the fence before anything is retried (C11).
    OutcomeUnknown,
}

impl CheckpointError {
    pub fn new(kind: CheckpointErrorKind, doing: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), cause: None }
    }

    pub fn caused_by(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}
