//! Handlers: what decides about events. What is decided, a sink writes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::effect::Value;
use crate::work::{Streams, Work};

/// What a handler is called with: one or more streams, each with a run of its events.
#[derive(Debug)]
pub struct Call {
    pub streams: Streams,
}

impl Call {
    /// Returns the one stream of a call of a pipeline with `streams_per_call = 1`.
    pub fn single(&self) -> &Work {
        &self.streams[0]
    }
}

/// What a handler decided about one stream of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub next: NextIndex,
    /// For the sink, in order.
    pub effects: Vec<Value>,
    /// What the statistics count this call as; `ok` if absent.
    pub tag: Option<Arc<str>>,
}

impl Decision {
    /// Everything offered is handled, and nothing is to be written.
    pub fn handled() -> Self {
        Self { next: NextIndex::All, effects: Vec::new(), tag: None }
    }
}

/// How far a decision gets its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextIndex {
    /// Over everything that was offered.
    All,
    /// To this next index of interest. It may lie before the end of what was offered (the rest comes again) or beyond
    /// it (what is below it never comes).
    Upto(i64),
    /// Nowhere: the same comes again after the delay, also if nothing else arrives. Must carry no effects (C13).
    Defer(Duration),
}

/// One decision, or failure, per stream of the call, in order.
pub type Decisions = Vec<Result<Decision, HandlerError>>;

/// Decides. May wait; is polled where it is, and moved to a task of its own only if it does wait.
///
/// The same events may be offered again: after a failure, a crash, or with newer ones behind them.
pub trait Handler: Send + Sync {
    /// Dropping the future ends the call: after a time-out nothing it does may still take effect.
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions>;
}

/// A handler that computes and never waits (scripts): one per dedicated thread.
pub trait BlockingHandler: Send {
    /// Appends one decision, or failure, per stream of the call, in order. Keeps its own time limit. The work is as it was
    /// when this returns; until then its events may be elsewhere.
    fn handle(&mut self, streams: &mut [Work], decisions: &mut Decisions);
}

/// Makes the [`BlockingHandler`]s of a pipeline's threads.
pub trait BlockingHandlerFactory: Send + Sync {
    fn make(&self) -> Box<dyn BlockingHandler>;
}

/// A pipeline's handler, of either sort.
#[derive(Clone)]
pub enum AnyHandler {
    Async(Arc<dyn Handler>),
    Blocking(Arc<dyn BlockingHandlerFactory>),
}

impl fmt::Debug for AnyHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async(_) => "Async",
            Self::Blocking(_) => "Blocking",
        })
    }
}

/// Why a handler or a sink did not do its part. Small, as most calls carry none.
#[derive(thiserror::Error)]
#[error("{}", .0.message)]
pub struct HandlerError(Box<Details>);

#[derive(Debug)]
struct Details {
    kind: HandlerErrorKind,
    message: String,
    index: Option<i64>,
    retry_after: Option<Duration>,
}

/// What became of a call, as design.md §3.4 has it. `pipeline::policy` alone says what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandlerErrorKind {
    /// The sink or store cannot be reached.
    Unavailable,
    /// It asks to be called less often.
    Throttled,
    /// This call failed; another may not.
    Transient,
    /// This call took too long.
    TimedOut,
    /// It will never work.
    Permanent,
    /// The event is not what it should be: it will never work.
    Malformed,
}

impl HandlerErrorKind {
    /// Returns the name by which metrics and logs know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Throttled => "rateLimited",
            Self::Transient => "exception",
            Self::TimedOut => "timeout",
            Self::Permanent => "permanent",
            Self::Malformed => "malformed",
        }
    }
}

impl HandlerError {
    /// The message says what went wrong and where, chain of causes included; it never holds a secret.
    pub fn new(kind: HandlerErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Details { kind, message: message.into(), index: None, retry_after: None }))
    }

    /// Names the event at fault: those before it are offered again without it (C19).
    pub fn at_index(mut self, index: i64) -> Self {
        self.0.index = Some(index);
        self
    }

    /// Says when trying again may be of use (`Retry-After`).
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    pub fn kind(&self) -> HandlerErrorKind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn index(&self) -> Option<i64> {
        self.0.index
    }

    pub fn delay(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for HandlerError {
    fn eq(&self, other: &Self) -> bool {
        (self.kind(), self.message(), self.index(), self.delay())
            == (other.kind(), other.message(), other.index(), other.delay())
    }
}
