//! Checkpoint stores: durable progress, its owner, and the parked events beside it.
//!
//! A store implements [`CheckpointStore`], and [`ParkedStore`] if it can hold events. The pipeline claims a key, commits
//! under the claim's fence in a chain of numbers (C11), and releases the key. It owns every retry: a store makes one
//! attempt per call. `connector/memory/store.rs` is the reference implementation.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use crate::event::{Event, category};
use crate::position::{Ordinal, Progress, TrancheId, WritePosition};

/// The key of a tranche's progress.
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

/// The number of a claim on a key. A later claim's fence is greater, and commits under the older one fail (C15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// The claiming process, as an operator reads it: host, process, pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(pub Arc<str>);

/// A successful claim, with the progress that it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub fence: Fence,
    /// `None`: never committed.
    pub progress: Option<Progress>,
    /// The number of the stored commit. The next commit carries the number after it.
    pub sequence: u64,
}

/// A commit in the chain of its key (C11).
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    pub key: &'a CheckpointKey,
    pub fence: Fence,
    /// The number of the commit, one more than its predecessor's.
    pub sequence: u64,
    /// The progress. A position of `None` is the tranche's origin: nothing below the set is handled.
    pub progress: &'a Progress,
    /// The write positions of the streams that moved, where the feed may repeat events (C13). Stored in the same
    /// transaction.
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
/// Calls about one key never overlap, except that several processes may claim it. Each write MUST compare fence and
/// sequence in its own statement or transaction.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Returns the limit of an encoded set in bytes (C14). `None`: the store keeps plain positions only.
    fn max_set_bytes(&self) -> Option<usize>;

    /// Returns the progress without a claim; `None` if nothing was ever committed.
    async fn load(&self, key: &CheckpointKey) -> Result<Option<Progress>, CheckpointError>;

    /// Claims keys: commits under older fences fail from here on. Returns one result per key, in order.
    ///
    /// SHOULD take one round trip for all keys. MUST void the set and the write positions of a tranche if another program
    /// moved its position (C12). MUST give each claim a fence greater than each earlier one of its key.
    /// The pipeline retries a failed key with back-off, and has at most one claim in flight per key (C27).
    ///
    /// # Cancel safety
    /// A dropped future may have claimed the keys. A later claim fences that one.
    async fn claim_all(&self, keys: &[CheckpointKey], owner: &Owner) -> Vec<Result<Claimed, CheckpointError>>;

    /// Claims one key.
    async fn claim(&self, key: &CheckpointKey, owner: &Owner) -> Result<Claimed, CheckpointError> {
        let mut results = self.claim_all(std::slice::from_ref(key), owner).await;
        let unanswered =
            || CheckpointError::new(CheckpointErrorKind::Unavailable, format!("claim {key}: the store did not answer"));
        results.pop().unwrap_or_else(|| Err(unanswered()))
    }

    /// Stores progress; returns one result per commit, in order. MUST be durable when it returns.
    ///
    /// MUST refuse a set beyond [`max_set_bytes`](Self::max_set_bytes) as `TooLarge`.
    /// Each commit is conditional on the stored (fence, sequence − 1). A repeat of the stored commit (same fence and
    /// sequence) MUST succeed without effect.
    async fn commit(&self, commits: &[Commit<'_>]) -> Vec<Result<(), CheckpointError>>;

    /// Returns the fence that holds the key and the number of the stored commit; `None` if the key was never claimed.
    ///
    /// The pipeline learns from it whether a commit with unknown outcome happened (C11).
    async fn last_commit(&self, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, CheckpointError>;

    /// Ends a claim, so that the key shows no owner. The progress stays.
    ///
    /// MUST do nothing under an older fence. The pipeline does not retry it: an unreleased claim is fenced by the next.
    async fn release(&self, key: &CheckpointKey, fence: Fence) -> Result<(), CheckpointError>;

    /// Returns the write positions of streams, as last committed under the key's group and source. One answer per
    /// stream, in order; `None` where nothing is kept.
    async fn write_positions(
        &self,
        key: &CheckpointKey,
        streams: &[&str],
    ) -> Result<Vec<Option<WritePosition>>, CheckpointError> {
        let _ = key;
        Ok(vec![None; streams.len()])
    }

    /// Returns the tranches of a group and source that were ever claimed or committed, by name.
    async fn list(&self, group: &str, source: &str) -> Result<Vec<Listed>, CheckpointError>;

    /// Replaces the progress of a claimed key, as an operator decides. `None`: as if nothing was ever committed.
    ///
    /// MUST check the fence, void the write positions of the tranche (C12), and log the replaced progress as
    /// [`LogReason::Replaced`].
    async fn set(&self, key: &CheckpointKey, fence: Fence, progress: Option<&Progress>) -> Result<(), CheckpointError>;

    /// Returns the logged progress of a key, the newest first, at most [`MAX_LOG_ENTRIES`].
    ///
    /// A durable store logs a commit if the newest entry is older than [`LOG_INTERVAL`], and deletes the oldest entries.
    async fn log(&self, key: &CheckpointKey) -> Result<Vec<LogEntry>, CheckpointError>;

    /// Returns the store of parked events beside the progress, if there is one.
    fn parked(&self) -> Option<Arc<dyn ParkedStore>> {
        None
    }
}

/// The most entries of the log of a key.
pub const MAX_LOG_ENTRIES: usize = 1_000;
/// The time between two logged commits of a key.
pub const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The progress of a tranche, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: CheckpointKey,
    /// `None`: never committed.
    pub progress: Option<Progress>,
    /// The owner of the latest claim; `None` once it is released.
    pub owner: Option<Owner>,
    /// The time of the latest commit. `None`: another program wrote the progress, or the store keeps no times.
    pub committed_at: Option<OffsetDateTime>,
}

/// A logged state of a key's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Grows with each entry of the key.
    pub number: u64,
    pub at: OffsetDateTime,
    pub reason: LogReason,
    /// `None`: nothing was committed. A commit is logged with its position alone, without the set.
    pub progress: Option<Progress>,
}

/// The reason of a log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogReason {
    /// The pipeline committed this position.
    Commit,
    /// An operator replaced this progress.
    Replaced,
}

impl LogReason {
    /// Returns the name in stores and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Replaced => "replaced",
        }
    }

    /// Reads a name that [`as_str`](Self::as_str) returned.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Commit, Self::Replaced].into_iter().find(|reason| reason.as_str() == name)
    }
}

/// Keeps the events of parked streams, in order (design.md §3.5).
///
/// The owner of a tranche appends, removes and marks under its fence. An operator, who has no fence, only reads, edits and
/// leaves [requests](ParkedRequest), which the owner finds by their due time. So a request reaches the owner in whatever
/// process it runs, or waits for the next one.
#[async_trait]
pub trait ParkedStore: Send + Sync {
    /// Returns the parked streams of the tranche, by name. A stream stays parked without events until it is unparked.
    ///
    /// The pipeline calls it after a claim and before the first read.
    async fn load(&self, key: &CheckpointKey) -> Result<Vec<ParkedStream>, CheckpointError>;

    /// Appends events to their streams' queues. MUST leave an event that is already there (by ordinal) as it is (C21),
    /// MUST keep the mark of a stream that has one, MUST check the fence, and MUST be durable when it returns.
    async fn append(&self, key: &CheckpointKey, fence: Fence, events: &[Parked<'_>]) -> Result<(), CheckpointError>;

    /// Performs updates in order, all or none. MUST check the fence, and MUST be durable when it returns.
    async fn update(
        &self,
        key: &CheckpointKey,
        fence: Fence,
        updates: &[ParkedUpdate<'_>],
    ) -> Result<(), CheckpointError>;

    /// Returns a page of the queue of one stream.
    async fn read(&self, key: &CheckpointKey, stream: &str, page: &QueuePage) -> Result<QueueRead, CheckpointError>;

    /// Returns the streams of the tranche that are due by then, the earliest first, at most `most`.
    async fn due(
        &self,
        key: &CheckpointKey,
        until: OffsetDateTime,
        most: usize,
    ) -> Result<Vec<DueStream>, CheckpointError>;

    /// Returns a page of the parked streams of a group and source, by tranche and name.
    async fn list(&self, group: &str, source: &str, query: &ParkedQuery<'_>) -> Result<ParkedPage, CheckpointError>;

    /// Makes the selected streams due at `request.at` under the request's job, and keeps the job if there are any. Returns the
    /// number of streams. A deferred stream is selected by [`ParkedState::Deferred`] only.
    async fn request(
        &self,
        group: &str,
        source: &str,
        selection: &ParkedSelection<'_>,
        request: &ParkedRequest<'_>,
    ) -> Result<u64, CheckpointError>;

    /// Returns the kept jobs, the newest first. A store keeps at least the last [`KEPT_JOBS`].
    async fn jobs(&self, group: &str, source: &str) -> Result<Vec<ParkedJob>, CheckpointError>;

    /// Replaces the body of an event. `None` leaves data or meta as they are. Returns whether there is such an event.
    ///
    /// A replaced body is plain JSON: its format is [`Format::default`](crate::event::Format).
    async fn edit(
        &self,
        key: &CheckpointKey,
        stream: &str,
        id: &QueuedId,
        body: NewBody<'_>,
    ) -> Result<bool, CheckpointError>;
}

/// A parked stream, as its owner restores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedStream {
    /// The stream's name; empty for malformed records, which have none.
    pub stream: Box<str>,
    /// The ordinal from which the stream is parked. An event below it was handled (C21). It can lie below every kept event.
    pub first: Ordinal,
    pub events: u64,
    /// The size of the events' data, meta and headers.
    pub bytes: u64,
    pub mark: ParkedMark,
}

/// The reason of a parked stream, and the time at which its owner offers it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedMark {
    pub state: ParkedState,
    /// The class of the error (`permanent`, `exception`, …); `deferred` if a handler deferred the stream.
    pub class: Arc<str>,
    pub why: Arc<str>,
    /// The index and type of the event at fault.
    pub index: i64,
    pub event_type: Arc<str>,
    /// The time at which the stream was parked. Stores keep milliseconds.
    pub since: OffsetDateTime,
    /// The number of failures at the event at fault.
    pub attempts: u32,
    /// The version of the handler that failed or deferred (C32).
    pub version: Arc<str>,
    /// The time from which the owner offers the events again. `None`: until an operator or another handler asks for it.
    pub due: Option<OffsetDateTime>,
    /// The job that made the stream due, or that failed last.
    pub job: Option<Arc<str>>,
}

/// The state of a parked stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedState {
    /// An event failed, and the operator decides.
    Failed,
    /// The handler deferred an event for long.
    Deferred,
}

impl ParkedState {
    /// Returns the name in stores and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "parked",
            Self::Deferred => "deferred",
        }
    }

    /// Reads a name that [`as_str`](Self::as_str) returned.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Failed, Self::Deferred].into_iter().find(|state| state.as_str() == name)
    }
}

/// An event on its way into the parked store.
#[derive(Clone, Debug)]
pub struct Parked<'a> {
    pub event: &'a Event,
    /// The smallest unhandled ordinal of the stream when it was parked. After out-of-order arrival, the event with this
    /// ordinal can be appended last.
    pub from: Ordinal,
    /// The mark of the stream, if it has none yet.
    pub mark: &'a ParkedMark,
}

/// A change of a parked stream by its owner.
#[derive(Clone, Copy, Debug)]
pub enum ParkedUpdate<'a> {
    /// Removes handled events. Those that are not there are ignored.
    Remove { stream: &'a str, events: &'a [QueuedId] },
    /// Replaces the mark of a stream that has one.
    Mark { stream: &'a str, mark: &'a ParkedMark },
    /// Removes the mark of a stream without events. MUST do nothing while there are events.
    Unpark { stream: &'a str },
}

/// The identity of an event in its stream's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueuedId {
    pub at: Ordinal,
    pub index: i64,
    pub is_unfold: bool,
}

impl QueuedId {
    pub fn of(event: &Event) -> Self {
        Self { at: event.at(), index: event.index(), is_unfold: event.is_unfold() }
    }
}

/// The order of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOrder {
    /// By index, an unfold before the event of the same index (which supersedes it), then by ordinal.
    Index,
    /// By ordinal, then by index, an unfold after the event of the same index.
    Ordinal,
}

impl QueueOrder {
    /// Compares two events of a queue.
    pub fn compare(self, a: &QueuedId, b: &QueuedId) -> Ordering {
        let by_index = |id: &QueuedId| (id.index, !id.is_unfold, id.at);
        match self {
            Self::Index => by_index(a).cmp(&by_index(b)),
            Self::Ordinal => a.cmp(b),
        }
    }
}

/// Returns the size of an event in [`ParkedStream::bytes`] and [`QueuePage::max_bytes`]: its data, meta and headers.
pub fn parked_bytes(event: &Event) -> usize {
    event.data().len() + event.meta().len() + event.headers().encoded().len()
}

/// A page of a queue: its events after a place, up to limits. It holds at least one event if there is one.
#[derive(Clone, Copy, Debug)]
pub struct QueuePage {
    pub order: QueueOrder,
    pub after: Option<QueuedId>,
    pub max_events: usize,
    pub max_bytes: usize,
}

/// The events of a [`QueuePage`].
#[derive(Clone, Debug, Default)]
pub struct QueueRead {
    pub events: Vec<QueuedEvent>,
    /// More events follow. The owner unparks a stream only if none does.
    pub more: bool,
}

/// An event in a stream's queue.
#[derive(Clone, Debug)]
pub struct QueuedEvent {
    pub event: Event,
    /// An operator discarded the event: its owner removes it without offering it.
    pub discarded: bool,
}

/// A stream that its owner offers again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueStream {
    pub stream: Box<str>,
    pub mark: ParkedMark,
}

/// A selection of parked streams. A field that is `None` selects all.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParkedSelection<'a> {
    pub state: Option<ParkedState>,
    pub tranche: Option<&'a str>,
    pub stream: Option<&'a str>,
    /// The part of the name before the first `-`, or the whole name.
    pub category: Option<&'a str>,
    /// The type of the event at fault.
    pub event_type: Option<&'a str>,
    /// A part of the error, or its class.
    pub error: Option<&'a str>,
    /// Parked at this time or earlier.
    pub until: Option<OffsetDateTime>,
    /// Parked by another version of the handler than this one (C32).
    pub other_version_than: Option<&'a str>,
}

impl ParkedSelection<'_> {
    /// Returns the selection of a request, which selects deferred streams only if it names their state.
    pub fn for_request(self) -> Self {
        Self { state: Some(self.state.unwrap_or(ParkedState::Failed)), ..self }
    }

    /// Returns whether a stream is selected.
    pub fn selects(&self, tranche: &str, stream: &str, mark: &ParkedMark) -> bool {
        self.state.is_none_or(|state| state == mark.state)
            && self.tranche.is_none_or(|wanted| wanted == tranche)
            && self.stream.is_none_or(|wanted| wanted == stream)
            && self.category.is_none_or(|wanted| wanted == category(stream))
            && self.event_type.is_none_or(|wanted| *wanted == *mark.event_type)
            && self.error.is_none_or(|part| mark.why.contains(part) || *mark.class == *part)
            && self.until.is_none_or(|until| mark.since <= until)
            && self.other_version_than.is_none_or(|version| *version != *mark.version)
    }
}

/// A page of parked streams.
#[derive(Clone, Copy, Debug)]
pub struct ParkedQuery<'a> {
    pub selection: ParkedSelection<'a>,
    /// The tranche and stream of the last entry of the page before.
    pub after: Option<(&'a str, &'a str)>,
    pub order: ParkedOrder,
    pub most: usize,
}

/// The order of a list of parked streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedOrder {
    /// By tranche and name. Pages continue after an entry.
    Name,
    /// By due time, the earliest first; those without one last. It has one page only.
    Due,
}

/// The answer to a [`ParkedQuery`].
#[derive(Clone, Debug, Default)]
pub struct ParkedPage {
    /// Each with its tranche.
    pub streams: Vec<(TrancheId, ParkedStream)>,
    /// More streams are selected than the page holds.
    pub more: bool,
    /// The totals over all selected streams.
    pub total_streams: u64,
    pub total_events: u64,
    pub total_bytes: u64,
}

/// The number of jobs of a group and source that a store keeps.
pub const KEPT_JOBS: usize = 100;

/// An operator's request to the owner of parked streams.
#[derive(Clone, Copy, Debug)]
pub struct ParkedRequest<'a> {
    pub action: ParkedAction,
    pub job: &'a str,
    /// The person or program that asks.
    pub by: &'a str,
    pub at: OffsetDateTime,
}

/// The action of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedAction {
    /// Offer the events again.
    Retry,
    /// Discard the event at fault, and offer the others again. The event at fault is the first by [`QueueOrder::Index`] that
    /// is no unfold. If it is the only event, all unfolds are discarded with it. A repeated request discards no second
    /// event, as long as the owner has not removed the first.
    DiscardFirst,
    /// Discard all events that are parked now.
    DiscardAll,
}

impl ParkedAction {
    /// Returns the name in stores and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::DiscardFirst => "discard",
            Self::DiscardAll => "discard-all",
        }
    }

    /// Reads a name that [`as_str`](Self::as_str) returned.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Retry, Self::DiscardFirst, Self::DiscardAll].into_iter().find(|action| action.as_str() == name)
    }
}

/// A request and how far its owner is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedJob {
    pub id: Box<str>,
    pub action: ParkedAction,
    pub by: Box<str>,
    pub at: OffsetDateTime,
    /// The number of selected streams.
    pub streams: u64,
    /// Streams of the job that are still due.
    pub left: u64,
    /// Streams of the job that failed again, and are parked without a due time.
    pub failed: u64,
}

/// The new body of an event.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewBody<'a> {
    pub data: Option<&'a [u8]>,
    pub meta: Option<&'a [u8]>,
}

/// An error of a store.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct CheckpointError {
    pub kind: CheckpointErrorKind,
    /// The attempted operation and its object: `commit shop/events/0 to data/propulsiond.db`.
    pub doing: String,
    #[source]
    pub cause: Option<anyhow::Error>,
    /// The delay that the back end asked for.
    pub retry_after: Option<Duration>,
}

/// The next step after a [`CheckpointError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointErrorKind {
    /// The store cannot be reached: the pipeline retries with back-off. Nothing was stored, or a repeat is harmless.
    Unavailable,
    /// The store asks for fewer requests: the pipeline retries after `retry_after`, else with back-off.
    Throttled,
    /// Another process owns the key (C15): the pipeline gives the tranche up.
    Fenced { by: String, since: Option<OffsetDateTime> },
    /// The stored data cannot be read: the pipeline halts, and the operator decides.
    Unreadable,
    /// The encoded set exceeds [`CheckpointStore::max_set_bytes`]; nothing was stored. The pipeline fits each set first
    /// (C14), and a retry carries the same set: the pipeline halts.
    TooLarge,
    /// The commit may have happened: the pipeline reads the key under the fence before it goes on (C11).
    OutcomeUnknown,
}

impl CheckpointErrorKind {
    /// Returns the name of the class in logs and views.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Fenced { .. } => "fenced",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too large",
            Self::OutcomeUnknown => "outcome unknown",
        }
    }
}

impl CheckpointError {
    pub fn new(kind: CheckpointErrorKind, doing: impl Into<String>) -> Self {
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
