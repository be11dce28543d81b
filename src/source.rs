//! Sources: feeds of events, in one or more tranches that come and go.

use std::cmp::Ordering;
use std::fmt;

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::event::{Event, Indexes};
use crate::position::{Ordinal, Position, StartAt, TrancheId};

/// What a source promises of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Events carry ordinals that never change their meaning (C1). Without them progress is a plain position.
    pub ordinals: bool,
    pub indexes: Indexes,
    /// The feed may deliver the same (stream, index) again under another ordinal (C13).
    pub repeats: bool,
}

/// A feed of events.
#[async_trait]
pub trait Source: Send {
    fn contract(&self) -> Contract;

    /// Waits for the next change in what this process may read: each tranche once at start, then
    /// [`TrancheChange::Settled`], then rebalances, splits and new ones. Never returns if nothing changes.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    async fn next_change(&mut self) -> Result<TrancheChange, SourceError>;

    /// Opens a tranche without IO: a slow open must not delay a removal, so the first `next` connects.
    fn open(&mut self, tranche: &TrancheId, from: StartAt) -> Box<dyn TrancheReader>;

    /// As [`Source::open`], for a tranche whose stored set covers ordinals up to `handled`. A source that numbers the parts
    /// of a tranche itself gives no new part a number that the set may cover (C1).
    fn open_above(&mut self, tranche: &TrancheId, from: StartAt, _handled: Option<Ordinal>) -> Box<dyn TrancheReader> {
        self.open(tranche, from)
    }

    /// Compares two positions of one tranche; `None` if that has no meaning.
    fn compare(&self, a: &Position, b: &Position) -> Option<Ordering>;
}

/// A change in what this process may read.
#[derive(Debug)]
pub enum TrancheChange {
    Added {
        tranche: TrancheId,
        /// Where a tranche that was never committed begins: a child of a split where its parent ended.
        origin: Option<Position>,
    },
    /// Every tranche that exists at the moment has been named: a finite run knows what it has to finish.
    Settled,
    /// Somebody else is to read it: stop reading, drain, commit, then drop `drained`, all before `deadline`.
    Removed { tranche: TrancheId, drained: Drained, deadline: Timestamp },
    /// Somebody else reads it already: abandon it without a commit.
    Lost { tranche: TrancheId },
}

/// Tells a source, when dropped, that a tranche it wants back has been let go of.
#[derive(Debug)]
pub struct Drained {
    _dropped: oneshot::Sender<()>,
}

impl Drained {
    /// Returns the token and what resolves (with an error) once it is dropped.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (dropped, seen) = oneshot::channel();
        (Self { _dropped: dropped }, seen)
    }
}

/// Reads one tranche.
#[async_trait]
pub trait TrancheReader: Send {
    /// Returns the next batch. At the tail it waits a while for more, then returns an empty one with `at_tail`.
    ///
    /// One attempt: who calls it owns retries and back-off, and calls again after an error, to go on where the
    /// last batch ended. A position that no longer exists is [`SourceErrorKind::PositionLost`], never a silent restart.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    async fn next(&mut self) -> Result<Next, SourceError>;
}

/// What a [`TrancheReader`] came to.
#[derive(Debug)]
pub enum Next {
    Batch(Batch),
    /// The tranche is closed: no event will ever follow.
    End,
}

/// Events in read order, and where reading goes on once all of them are handled.
#[derive(Debug)]
pub struct Batch {
    /// Ordinals ascend strictly, but for the unfolds of one document, which share one.
    pub events: Vec<Event>,
    pub resume_at: Position,
    /// There is nothing more right now. An empty batch need not be at the tail, and one at the tail need not be empty.
    pub at_tail: bool,
    /// What is known of how much follows.
    pub lag: Option<Lag>,
}

/// How much of a tranche is still unread.
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

/// Takes events that are pushed into a running pipeline.
#[async_trait]
pub trait Inbox: Send + Sync + fmt::Debug {
    /// Takes all of the lines (JSON objects, one a line, as `jsonlines` reads them) or none. Returns how many.
    ///
    /// # Errors
    /// [`SourceErrorKind::Refused`] names the first line that cannot be taken; [`SourceErrorKind::Unavailable`] says
    /// that the inbox is full.
    async fn push(&self, lines: &[u8]) -> Result<usize, SourceError>;
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct SourceError {
    pub kind: SourceErrorKind,
    /// What was being done, and to what: `read orders.jsonl`.
    pub doing: String,
    #[source]
    pub cause: Option<anyhow::Error>,
}

/// What is to be done about a [`SourceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// Try again later.
    Unavailable,
    /// Try again when told to.
    Throttled,
    /// Trying again is of no use before somebody changes rights or settings.
    Denied,
    /// What was asked for is wrong.
    Refused,
    /// The stored position no longer exists: a person decides where to go on (R82).
    PositionLost,
}

impl SourceError {
    pub fn new(kind: SourceErrorKind, doing: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), cause: None }
    }

    pub fn caused_by(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}
