//! Calls of the handler: the deciders, the slots, and the reaction to a decision.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::workers::Workers;
use crate::handler::{AnyHandler, Call, Decision, Decisions, Handler, HandlerError, HandlerErrorKind, NextIndex};
use crate::runtime::supervise::panic_message;
use crate::scheduler::Order;
use crate::sink::{Decided, Effects};
use crate::work::{Streams, Work};

/// The decider about events.
pub(super) enum Decider {
    /// No handler: the events themselves go to the sink.
    Events,
    Async(Arc<dyn Handler>),
    Blocking(Workers),
}

/// The calls of a pipeline.
pub(super) struct Calls {
    pub(super) decider: Decider,
    /// Calls that are not decided yet, including those that wait for a thread.
    deciding: usize,
    /// Calls to be handed to the threads. Reused by each pass.
    run: Vec<Streams>,
}

/// The step that follows an offer.
pub(super) enum Offered {
    Decided(Vec<Decided>),
    /// The call waits for a thread.
    Queued,
    /// The call is to be made.
    Call(Arc<dyn Handler>, Arc<Call>),
}

impl Calls {
    pub(super) fn new(decider: Decider) -> Self {
        Self { decider, deciding: 0, run: Vec::new() }
    }

    /// Returns the number of calls that are not decided yet.
    pub(super) fn deciding(&self) -> usize {
        self.deciding
    }

    pub(super) fn has_handler(&self) -> bool {
        !matches!(self.decider, Decider::Events)
    }

    /// Returns whether calls may wait for a back end. Scripts compute only.
    pub(super) fn may_wait(&self) -> bool {
        matches!(self.decider, Decider::Async(_))
    }

    /// Returns whether one more call may begin. `limit` bounds the calls, and the writes where each carries one decision;
    /// `probing` allows one at a time in all.
    pub(super) fn has_room(&self, limit: usize, probing: bool, writes: usize, queued: usize, max_batch: usize) -> bool {
        if limit == 0 {
            return false;
        }
        if probing {
            return self.deciding + writes == 0;
        }
        match self.decider {
            Decider::Events if max_batch == 1 => writes < limit,
            // Without a handler, an offer gathers decisions for the sink.
            Decider::Events => queued < max_batch,
            _ if max_batch == 1 => self.deciding + writes < limit,
            _ => self.deciding < limit,
        }
    }

    /// Takes an offer of the scheduler.
    pub(super) fn offer(&mut self, streams: Streams) -> Offered {
        match &self.decider {
            Decider::Events => Offered::Decided(
                streams
                    .into_iter()
                    .map(|work| Decided { next: work.next, effects: Effects::Events, work, accepted: 0 })
                    .collect(),
            ),
            Decider::Blocking(_) => {
                self.deciding += 1;
                self.run.push(streams);
                Offered::Queued
            }
            Decider::Async(handler) => {
                self.deciding += 1;
                Offered::Call(Arc::clone(handler), Arc::new(Call { streams }))
            }
        }
    }

    /// Hands the queued calls over to the threads.
    pub(super) fn hand_over(&mut self) {
        if let Decider::Blocking(workers) = &mut self.decider {
            workers.hand_over(&mut self.run);
        }
    }

    /// Takes back the calls that no thread has begun.
    pub(super) fn take_back(&mut self) -> Vec<Streams> {
        let mut calls = std::mem::take(&mut self.run);
        if let Decider::Blocking(workers) = &mut self.decider {
            calls.extend(workers.take_back());
        }
        self.deciding -= calls.len();
        calls
    }

    /// Notes that calls are decided.
    pub(super) fn decided(&mut self, calls: usize) {
        self.deciding -= calls;
    }

    /// Uses another handler from the next call on.
    pub(super) fn swap(&mut self, new: AnyHandler) {
        match (&mut self.decider, new) {
            (Decider::Async(handler), AnyHandler::Async(new)) => *handler = new,
            (Decider::Blocking(workers), AnyHandler::Blocking(new)) => workers.swap(new),
            _ => tracing::error!("a handler of another sort takes other threads: the pipeline restarts"),
        }
    }
}

/// The rules for decisions.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecisionRules {
    pub(super) order: Order,
    pub(super) holds_progress: bool,
    pub(super) write_positions: bool,
}

/// The reaction to a decision.
#[derive(Debug)]
pub(super) enum Reaction {
    /// The events below this index are handled, and nothing is to be written.
    Done(i64),
    /// The effects are to be written.
    Write(i64),
    Defer(Duration),
    NoProgress,
    Refuse(HandlerError),
}

impl DecisionRules {
    /// Returns the reaction to a decision about a piece of work.
    pub(super) fn react(&self, work: &Work, decision: &Decision) -> Reaction {
        let is_empty = decision.effects.is_empty();
        let next = match decision.next {
            NextIndex::All => work.next,
            NextIndex::Upto(next) => next,
            NextIndex::Defer(_) if !is_empty => return Reaction::Refuse(without_progress()),
            NextIndex::Defer(delay) => return Reaction::Defer(delay),
        };
        if next > work.next
            && let Some(why) = self.why_not_beyond()
        {
            let why = format!("`upto({next})` lies beyond the last event read: {why}");
            return Reaction::Refuse(HandlerError::new(HandlerErrorKind::Permanent, why));
        }
        // All of the work is progress in any case: it may be an unfold with the same index, or events in read order, whose
        // indexes can go back.
        let makes_progress = next > work.first() || next == work.next;
        match (makes_progress, is_empty) {
            (true, true) => Reaction::Done(next),
            (true, false) => Reaction::Write(next),
            (false, true) => Reaction::NoProgress,
            (false, false) => Reaction::Refuse(without_progress()),
        }
    }

    fn why_not_beyond(&self) -> Option<&'static str> {
        if self.order == Order::None {
            return Some("with `order = \"none\"` an event has no successor");
        }
        (self.holds_progress && !self.write_positions)
            .then_some("with `checkpoint = \"sink\"` that needs `write_positions = true`")
    }
}

fn without_progress() -> HandlerError {
    HandlerError::new(
        HandlerErrorKind::Permanent,
        "the handler emitted effects in a call that makes no progress: they would be written again each time",
    )
}

/// Returns the error of a call that exceeded its time limit, for each of its streams.
pub(super) fn timed_out(streams: usize, limit: Duration) -> Decisions {
    let error = || HandlerError::new(HandlerErrorKind::TimedOut, format!("the handler took longer than {limit:?}"));
    (0..streams).map(|_| Err(error())).collect()
}

/// Returns the decisions, one per stream. A handler that answers for another number of streams has decided about none (D-10).
pub(super) fn one_per_stream(decisions: Decisions, streams: usize) -> Decisions {
    if decisions.len() == streams {
        return decisions;
    }
    let why = format!("the handler decided about {} of {streams} streams", decisions.len());
    (0..streams).map(|_| Err(HandlerError::new(HandlerErrorKind::Permanent, why.as_str()))).collect()
}

/// Calls a handler. Its panic is a failure of the call, also if it comes before there is a future.
pub(super) fn guarded(handler: Arc<dyn Handler>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
    let streams = call.streams.len();
    let failed = move |panic: Box<dyn std::any::Any + Send>| -> Decisions {
        let why = format!("the handler panicked: {}", panic_message(&*panic));
        (0..streams).map(|_| Err(HandlerError::new(HandlerErrorKind::Permanent, why.as_str()))).collect()
    };
    match std::panic::catch_unwind(AssertUnwindSafe(|| handler.handle(call))) {
        Ok(future) => AssertUnwindSafe(future).catch_unwind().map(move |result| result.unwrap_or_else(failed)).boxed(),
        Err(panic) => std::future::ready(failed(panic)).boxed(),
    }
}

/// Returns the streams of a finished call. A handler that kept the call leaves a copy.
pub(super) fn streams_of(call: Arc<Call>) -> Streams {
    let copy = |work: &Work| Work { events: work.events.clone(), trace: work.trace.clone(), ..*work };
    Arc::try_unwrap(call).map_or_else(|shared| shared.streams.iter().map(copy).collect(), |call| call.streams)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::effect::Value;
    use crate::event::{Assembler, Kind};
    use crate::position::Ordinal;
    use crate::work::{WorkId, WorkKind};

    /// Returns work of the events 5 and 6.
    fn work() -> Work {
        let event = |index| Assembler::new("a-1", "T").build(Kind::Event, Ordinal::default(), index).unwrap();
        Work {
            id: WorkId { slot: 0, generation: 0 },
            kind: WorkKind::Handle,
            events: vec![event(5), event(6)],
            next: 7,
            failures: 0,
            read_at: Timestamp::ZERO,
            late: false,
            trace: None,
        }
    }

    fn check(rules: DecisionRules, next: NextIndex, effects: usize) -> String {
        let decision = Decision { next, effects: vec![Value::Null; effects].into(), tag: None };
        match rules.react(&work(), &decision) {
            Reaction::Refuse(error) => format!("{:?}", error.kind()),
            other => format!("{other:?}"),
        }
    }

    const RULES: DecisionRules = DecisionRules { order: Order::Stream, holds_progress: true, write_positions: false };

    #[test]
    fn c13_effects_without_progress_are_a_permanent_error() {
        assert_eq!(check(RULES, NextIndex::Defer(Duration::from_secs(1)), 0), "Defer(1s)");
        assert_eq!(check(RULES, NextIndex::Defer(Duration::from_secs(1)), 1), "Permanent");
        assert_eq!(check(RULES, NextIndex::Upto(5), 0), "NoProgress");
        assert_eq!(check(RULES, NextIndex::Upto(5), 1), "Permanent");
        assert_eq!(check(RULES, NextIndex::Upto(6), 1), "Write(6)");
        assert_eq!(check(RULES, NextIndex::All, 0), "Done(7)");
    }

    #[test]
    fn c13_upto_beyond_the_last_event_needs_write_positions_if_the_sink_holds_the_progress() {
        assert_eq!(check(RULES, NextIndex::Upto(8), 0), "Permanent");
        assert_eq!(check(DecisionRules { write_positions: true, ..RULES }, NextIndex::Upto(8), 1), "Write(8)");
        assert_eq!(check(DecisionRules { holds_progress: false, ..RULES }, NextIndex::Upto(8), 0), "Done(8)");
        let unordered = DecisionRules { order: Order::None, holds_progress: false, write_positions: false };
        assert_eq!(check(unordered, NextIndex::Upto(8), 0), "Permanent");
    }

    #[test]
    fn concurrency_bounds_calls_and_the_writes_that_carry_one_decision_each() {
        let mut calls = Calls::new(Decider::Async(Arc::new(Never)));
        assert!(matches!(calls.offer(Streams::from_iter([work()])), Offered::Call(..)));
        assert!(calls.has_room(2, false, 0, 0, 1));
        assert!(!calls.has_room(2, false, 1, 0, 1), "a write takes a slot, too");
        assert!(calls.has_room(2, false, 1, 0, 100), "a batch does not");
        assert!(!calls.has_room(2, true, 0, 0, 100), "one probe at a time");
        assert!(!calls.has_room(0, false, 0, 0, 100), "the breaker is open");
        calls.decided(1);
        assert!(calls.has_room(2, true, 0, 0, 100));
    }

    struct Never;

    impl Handler for Never {
        fn handle(self: Arc<Self>, _call: Arc<Call>) -> BoxFuture<'static, Decisions> {
            std::future::pending().boxed()
        }
    }

    #[test]
    fn a_handler_that_decides_about_too_few_streams_has_decided_about_none() {
        let decisions = one_per_stream(vec![Ok(Decision::handled())], 2);
        assert_eq!(decisions.len(), 2);
        assert!(decisions.iter().all(Result::is_err));
    }
}
