//! Sinks: write the decided effects.
//!
//! A sink implements [`Sink`]; one that can hold progress also implements [`TransactionalSink`]. The pipeline owns every
//! retry: a sink makes one attempt per call, and reports for each decision how much of it was written. The settings of a
//! sink implement [`SinkKind`](crate::connector::kind::SinkKind), and `tests/it/contract/sink.rs` tests every sink.
//!
//! | result of a decision | reaction of the pipeline |
//! |---|---|
//! | [`Written::All`] | the events are handled |
//! | [`Written::Upto`] | the events below are handled; the rest is decided again |
//! | [`Written::Later`] | offered again, unchanged, in the next write |
//! | [`Written::Waiting`] | decided again after a delay; a stall after `stuck_after` |
//! | `Unavailable` | the circuit breaker opens; the same decision is written again when the sink answers (C28) |
//! | `Throttled` | fewer calls; the same decision is written again after the delay (C28) |
//! | `Transient`, `TimedOut` | the same decision is written again with back-off, up to `attempts` (C28) |
//! | `Permanent`, `Malformed` | `then` acts on the event at fault (C19) |

use std::sync::Arc;

use async_trait::async_trait;

use crate::checkpoint::{CheckpointError, CheckpointKey, CheckpointStore, Commit, Fence, Parked, ParkedUpdate};
use crate::effect::Emitted;
use crate::event::Event;
use crate::handler::HandlerError;
use crate::work::Work;

/// A decision that makes progress, on its way to the sink.
#[derive(Debug)]
pub struct Decided {
    pub work: Work,
    /// The next index of interest once the effects are written.
    pub next: i64,
    pub effects: Effects,
    /// The number of effects that an earlier, failed write of this decision accepted. A sink MUST NOT write them again,
    /// and numbers the others as if it did (C24, C28).
    pub accepted: usize,
}

/// The event that an effect belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    pub event: &'a Event,
    /// The number of the effect among those of its event. The unfolds of a call count as one.
    pub number: usize,
}

impl Decided {
    /// Returns the event that effect `number` belongs to. `None` if it belongs to all events of the decision.
    pub fn cause(&self, number: usize) -> Option<Cause<'_>> {
        let Effects::Emitted(values) = &self.effects else { return None };
        let position = values.event_of(number)?;
        let events = &self.work.events;
        let is_unfold = events[position].is_unfold();
        let first = if is_unfold { events.iter().position(Event::is_unfold) } else { None };
        let start = values.start_of(first.unwrap_or(position));
        Some(Cause { event: &events[position], number: number - start })
    }

    /// Returns the index of the event that effect `number` belongs to, for the error of that effect (C19). An unfold has no
    /// index of its own.
    pub fn index_of(&self, number: usize) -> Option<i64> {
        self.cause(number).filter(|cause| !cause.event.is_unfold()).map(|cause| cause.event.index())
    }

    /// Returns the next index of interest after the events whose effects are all accepted. `None` if there is no such
    /// event, or if the effects belong to all events together.
    pub fn accepted_next(&self) -> Option<i64> {
        let Effects::Emitted(values) = &self.effects else { return None };
        let position = values.event_of(self.accepted)?;
        self.work.cut_before(position).map(|(_, next)| next)
    }
}

/// The effects of a decision.
#[derive(Debug)]
pub enum Effects {
    /// The events of the work themselves: the pipeline has no handler. A sink passes over unfolds.
    Events,
    /// The values that the handler emitted, in order; possibly none.
    Emitted(Emitted),
}

impl Effects {
    /// Returns whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Emitted(values) if values.is_empty())
    }
}

/// The written share of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    All,
    /// The events below this index, which lies below the decision's own. Only a sink that writes events may return it.
    Upto(i64),
    /// Nothing, as this write had no room for it. The next write offers it again, unchanged; that is no stall.
    Later,
    /// Nothing, as an earlier event is missing. The pipeline decides it again after a delay; a stall if it lasts.
    Waiting,
}

/// Writes decided effects.
///
/// The same effects may come again: after a failure that this or another decision of the write met, or after a crash.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Returns the number of decisions that one `write` may carry. 1 keeps calls independent (HTTP).
    fn max_batch(&self) -> usize;

    /// Returns the number of writes that may overlap, never two of one stream. `concurrency` limits them as well if
    /// [`max_batch`](Self::max_batch) is 1.
    fn window(&self) -> usize {
        1
    }

    /// Writes effects in order; returns one result per decision, in order. A written effect is as durable as the sink's
    /// settings say.
    ///
    /// # Errors
    /// An error that names the number of [accepted effects](HandlerError::after_effects) spares their repetition.
    ///
    /// # Cancel safety
    /// After a drop the outcome is unknown; the pipeline offers the decisions again in its next run.
    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>>;

    /// Makes written effects durable and closes connections, once the pipeline has drained. The pipeline waits until its
    /// drain deadline at most, then drops the future.
    ///
    /// # Errors
    /// The pipeline logs the error. Progress over the written effects is committed already: an effect that only `close`
    /// writes is lost.
    async fn close(&self) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// A sink that can hold the progress: effects and progress in one transaction, or neither.
#[async_trait]
pub trait TransactionalSink: Sink {
    /// Returns the store of the progress that the transactions write.
    fn checkpoints(&self) -> Arc<dyn CheckpointStore>;

    /// Begins a transaction. The pipeline has one at a time.
    ///
    /// # Errors
    /// Each error is taken as `Unavailable`, as no decision is at fault.
    async fn begin(&self) -> Result<Box<dyn Transaction>, HandlerError>;
}

/// A transaction of a [`TransactionalSink`]. Dropped without `commit`, it rolls back.
#[async_trait]
pub trait Transaction: Send {
    /// Writes effects in order; returns one result per decision, in order. MUST leave nothing of a failed decision, and
    /// MUST keep the others intact.
    async fn write(&mut self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>>;

    /// Writes the progress and the parked events, checks every fence (C10), and commits. The pipeline computes the
    /// progress after `write`, from the accepted decisions (C9).
    async fn commit(
        self: Box<Self>,
        commits: &[Commit<'_>],
        parked: &[ParkedChange<'_>],
    ) -> Result<(), TransactionError>;
}

/// Changes of parked events in a transaction: events that are parked as the progress passes them, and events that are
/// removed as their effects are written.
#[derive(Clone, Copy, Debug)]
pub struct ParkedChange<'a> {
    pub key: &'a CheckpointKey,
    pub fence: Fence,
    pub events: &'a [Parked<'a>],
    pub updates: &'a [ParkedUpdate<'a>],
}

/// An error of a transaction: not committed, or perhaps committed.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// Other processes own these keys; nothing was committed.
    #[error("{} of the transaction's tranches are fenced", .0.len())]
    Fenced(Vec<(CheckpointKey, CheckpointError)>),
    /// Nothing was committed. A set beyond the limit of the store (C14) is `Unusable`.
    #[error(transparent)]
    Failed(HandlerError),
    /// The connection broke at the commit. The pipeline reads each key under its fence before it retries (C11).
    #[error("the outcome of the transaction is unknown")]
    OutcomeUnknown(#[source] anyhow::Error),
}

/// A pipeline's sink, of either sort.
#[derive(Clone)]
pub enum AnySink {
    Plain(Arc<dyn Sink>),
    /// `checkpoint = "sink"`: exactly once.
    Transactional(Arc<dyn TransactionalSink>),
}

impl AnySink {
    /// Returns the part that both sorts share.
    pub fn as_sink(&self) -> &dyn Sink {
        match self {
            Self::Plain(sink) => &**sink,
            Self::Transactional(sink) => &**sink,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::effect::{Ends, Value};
    use crate::event::{Assembler, Kind};
    use crate::position::Ordinal;
    use crate::work::{WorkId, WorkKind};

    /// Returns a decision about events with these indexes and an unfold, of which each emitted two values.
    fn decided(indexes: &[i64], is_by_event: bool) -> Decided {
        let build = |kind, index| Assembler::new("a-1", "T").build(kind, Ordinal::default(), index).unwrap();
        let mut events: Vec<_> = indexes.iter().map(|&index| build(Kind::Event, index)).collect();
        let next = events.last().map_or(0, Event::next_index);
        events.push(build(Kind::Unfold, next));
        let ends: Ends = (1..=events.len() as u32).map(|number| number * 2).collect();
        let values: Vec<_> = (0..events.len() as i64 * 2).map(Value::Int).collect();
        let effects = if is_by_event { Emitted::by_event(values, ends) } else { values.into() };
        let (id, kind, read_at) = (WorkId { slot: 0, generation: 0 }, WorkKind::Handle, Timestamp::ZERO);
        let work = Work { id, kind, events, next, failures: 0, read_at, late: false, trace: None };
        Decided { work, next, effects: Effects::Emitted(effects), accepted: 0 }
    }

    fn accepted(decided: Decided, accepted: usize) -> Option<i64> {
        Decided { accepted, ..decided }.accepted_next()
    }

    #[test]
    fn c19_events_whose_effects_are_accepted_are_progress() {
        let next = |count| accepted(decided(&[5, 6, 8], true), count);
        assert_eq!([0, 1, 2, 3, 4, 5].map(next), [None, None, Some(6), Some(6), Some(8), Some(8)]);
        // An unfold shares the fate of the event before it.
        assert_eq!([6, 7].map(next), [Some(8), Some(8)]);
        assert_eq!(next(8), None, "all effects are accepted");
        assert_eq!(accepted(decided(&[5, 6], false), 2), None, "effects of all events together");
        assert_eq!(accepted(decided(&[6, 5], true), 2), None, "indexes in read order say nothing");
    }

    #[test]
    fn c19_an_error_names_the_event_of_its_effect() {
        let decided_by_event = decided(&[5, 6], true);
        assert_eq!([1, 2, 4].map(|number| decided_by_event.index_of(number)), [Some(5), Some(6), None]);
        assert_eq!(decided(&[5, 6], false).index_of(1), None);
    }
}
