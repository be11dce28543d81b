//! Handlers: decide about events. A sink writes the decided effects.
//!
//! A handler implements [`Handler`] if it may wait, or [`BlockingHandler`] if it only computes. The pipeline owns retries,
//! delays and limits; a handler decides once per call and returns.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::effect::Emitted;
use crate::work::{Streams, Work};

/// The input of a call: one or more streams, each with a run of its events.
#[derive(Debug)]
pub struct Call {
    pub streams: Streams,
}

impl Call {
    /// Returns the only stream of a call if `streams_per_call` is 1.
    pub fn single(&self) -> &Work {
        &self.streams[0]
    }
}

/// A handler's decision about one stream of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub next: NextIndex,
    /// Effects for the sink, in order.
    pub effects: Emitted,
    /// The label of this call in the statistics; `ok` if absent.
    pub tag: Option<Arc<str>>,
}

impl Decision {
    /// Returns the decision that all offered events are handled without an effect.
    pub fn handled() -> Self {
        Self { next: NextIndex::All, effects: Emitted::default(), tag: None }
    }
}

/// The progress of a decision's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextIndex {
    /// All offered events are handled.
    All,
    /// The events below this index are handled. It may lie below the last offered event (the rest is offered again) or
    /// above it (events below it are never offered).
    Upto(i64),
    /// Nothing is handled; the same events are offered again after the delay. MUST carry no effects (C13).
    Defer(Duration),
}

/// One decision, or error, per stream of the call, in order.
pub type Decisions = Vec<Result<Decision, HandlerError>>;

/// Decides about events, and may wait. The driver polls it in place, and moves it to a task of its own if it waits.
///
/// The same events may be offered again: after a failure or a crash, or with newer ones behind them. After a failed write
/// the pipeline writes the decision again, and does not call the handler (C28).
pub trait Handler: Send + Sync {
    /// Returns one decision, or error, per stream of the call, in order.
    ///
    /// # Cancel safety
    /// Dropping the future ends the call: after a time-out, the call MUST take no further effect.
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions>;
}

/// A handler that computes and never waits (scripts). Each dedicated thread has its own.
pub trait BlockingHandler: Send {
    /// Appends one decision, or error, per stream of the call, in order. MUST keep its own time limit, and MUST leave the
    /// work as it was; meanwhile its events may be elsewhere.
    fn handle(&mut self, streams: &mut [Work], decisions: &mut Decisions);
}

/// Makes the [`BlockingHandler`] of each thread of a pipeline.
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

/// An error of a handler or a sink. One pointer wide, as most results carry none.
#[derive(thiserror::Error)]
#[error("{}", .0.message)]
pub struct HandlerError(Box<Details>);

#[derive(Debug)]
struct Details {
    kind: HandlerErrorKind,
    message: String,
    index: Option<i64>,
    accepted: usize,
    retry_after: Option<Duration>,
}

/// The class of an error (design.md §3.4). Only `pipeline::policy` maps it to a reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandlerErrorKind {
    /// The sink or store cannot be reached.
    Unavailable,
    /// The sink or store asks for fewer calls.
    Throttled,
    /// This call failed, and a retry may succeed.
    Transient,
    /// This call exceeded its time limit, and a retry may succeed.
    TimedOut,
    /// No retry can succeed.
    Permanent,
    /// The event is not well-formed: no retry can succeed.
    Malformed,
    /// No call can succeed before the operator acts, whatever its events: a closed standard output. The pipeline halts, and
    /// no event is at fault.
    Unusable,
}

impl HandlerErrorKind {
    /// Returns the name of the class in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Throttled => "rateLimited",
            Self::Transient => "exception",
            Self::TimedOut => "timeout",
            Self::Permanent => "permanent",
            Self::Malformed => "malformed",
            Self::Unusable => "unusable",
        }
    }
}

impl HandlerError {
    /// Makes an error. The message includes the chain of causes and MUST NOT hold a secret.
    pub fn new(kind: HandlerErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Details { kind, message: message.into(), index: None, accepted: 0, retry_after: None }))
    }

    /// Names the event at fault. The events before it are offered again without it (C19).
    pub fn at_index(mut self, index: i64) -> Self {
        self.0.index = Some(index);
        self
    }

    /// Names the event at fault, if it is known.
    pub fn at_known_index(self, index: Option<i64>) -> Self {
        match index {
            Some(index) => self.at_index(index),
            None => self,
        }
    }

    /// Sets the number of the decision's effects that the sink accepted before the error, earlier writes included. The
    /// retry carries the others only (C28).
    pub fn after_effects(mut self, accepted: usize) -> Self {
        self.0.accepted = accepted;
        self
    }

    /// Sets the delay that the back end asked for (`Retry-After`).
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

    /// Returns the number of accepted effects.
    pub fn accepted_effects(&self) -> usize {
        self.0.accepted
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
