//! Sinks: what writes the effects that were decided.

use std::sync::Arc;

use async_trait::async_trait;

use crate::checkpoint::{CheckpointError, CheckpointKey, CheckpointStore, Commit, Fence, Parked};
use crate::effect::Value;
use crate::handler::HandlerError;
use crate::work::Work;

/// A decision that makes progress, on its way to the sink.
#[derive(Debug)]
pub struct Decided {
    pub work: Work,
    /// The next index of interest once the effects are written.
    pub next: i64,
    pub effects: Effects,
}

/// What a sink is to write.
#[derive(Debug)]
pub enum Effects {
    /// There is no handler: the events of the work themselves.
    Events,
    /// What the handler emitted, in order; possibly nothing.
    Emitted(Vec<Value>),
}

impl Effects {
    /// Returns whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Emitted(values) if values.is_empty())
    }
}

/// How much of a decision was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    All,
    /// Up to this next index of interest, below the decision's own. Only a sink that writes events can say that.
    Upto(i64),
    /// Nothing, and that is no failure: what must come before it is not there yet.
    Waiting,
}

/// Writes what was decided.
///
/// Calls may overlap, but never for one stream. The same effects may come again: after a failure that this or a later
/// call of the group met, or after a crash.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Returns how many decisions one `write` may carry. 1 keeps calls independent (HTTP); more is one round trip for
    /// many, and then `write` is not called again before it has returned.
    fn max_batch(&self) -> usize;

    /// Writes effects in order; one result per decision, in order. What it reports as written is as durable as the
    /// sink's settings say.
    ///
    /// # Cancel safety
    /// Dropping the future leaves unknown what was written; everything is offered again.
    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>>;

    /// Makes durable what was written, once the pipeline has drained.
    async fn close(&self) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// A sink that can hold the progress: effects and progress in one transaction, or neither.
#[async_trait]
pub trait TransactionalSink: Sink + CheckpointStore {
    async fn begin(&self) -> Result<Box<dyn Transaction>, HandlerError>;
}

/// A transaction of a [`TransactionalSink`]. Dropped without `commit`, it rolls back.
#[async_trait]
pub trait Transaction: Send {
    /// Writes effects in order; one result per decision, in order. A decision that fails leaves nothing behind and
    /// spoils no other.
    async fn write(&mut self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>>;

    /// Writes the progress (computed after `write`, for what that accepted: C9) and what is parked, checks every fence
    /// (C10), and commits.
    async fn commit(
        self: Box<Self>,
        commits: &[Commit<'_>],
        parked: &[ParkedChange<'_>],
    ) -> Result<(), TransactionError>;
}

/// Events that are parked in the transaction that passes the progress over them.
#[derive(Clone, Copy, Debug)]
pub struct ParkedChange<'a> {
    pub key: &'a CheckpointKey,
    pub fence: Fence,
    pub events: &'a [Parked<'a>],
}

/// Why a transaction was not committed, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// These keys are somebody else's now; nothing was committed.
    #[error("{} of the transaction's tranches are fenced", .0.len())]
    Fenced(Vec<(CheckpointKey, CheckpointError)>),
    /// Nothing was committed.
    #[error(transparent)]
    Failed(HandlerError),
    /// The connection broke at the commit: read each key under its fence before anything is retried (C11).
    #[error("it is not known whether the transaction was committed")]
    OutcomeUnknown(#[source] anyhow::Error),
}

/// A pipeline's sink, and whether it holds the progress.
#[derive(Clone)]
pub enum AnySink {
    Plain(Arc<dyn Sink>),
    /// `checkpoint = "sink"`: exactly once.
    Transactional(Arc<dyn TransactionalSink>),
}
