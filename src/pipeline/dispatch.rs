//! The driver's dealings with handlers: hand out ready work, take back what was decided.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::driver::{Driver, Event};
use super::life::Ended;
use super::policy::{Then, Verdict, Victim};
use super::traces;
use super::workers::{Called, Workers};
use crate::clock::{Clock, Period};
use crate::handler::{AnyHandler, Call, Decision, Decisions, Handler, HandlerError, HandlerErrorKind, NextIndex};
use crate::runtime::retry::rounded;
use crate::runtime::supervise::{Group, TaskKind, panic_message};
use crate::scheduler::{Order, Outcome};
use crate::sink::{AnySink, Decided, Effects};
use crate::telemetry::logging::AUDIT;
use crate::work::{Streams, Work, WorkKind};

/// Who decides.
pub(super) enum Deciders {
    /// Nobody: the events themselves go to the sink.
    Nobody,
    Async {
        handler: Arc<dyn Handler>,
        deciding: usize,
    },
    Blocking {
        workers: Workers,
        deciding: usize,
    },
}

impl Deciders {
    pub(super) fn start(
        handler: Option<AnyHandler>,
        threads: usize,
        clock: Clock,
        events: &mpsc::Sender<Event>,
        group: &Group,
    ) -> Self {
        match handler {
            None => Self::Nobody,
            Some(AnyHandler::Async(handler)) => Self::Async { handler, deciding: 0 },
            Some(AnyHandler::Blocking(factory)) => {
                Self::Blocking { workers: Workers::start(factory, threads, clock, events.clone(), group), deciding: 0 }
            }
        }
    }

    /// Returns how many calls are being decided.
    pub(super) fn deciding(&self) -> usize {
        match self {
            Self::Nobody => 0,
            Self::Async { deciding, .. } | Self::Blocking { deciding, .. } => *deciding,
        }
    }

    fn came_back(&mut self, calls: usize) {
        match self {
            Self::Nobody => {}
            Self::Async { deciding, .. } | Self::Blocking { deciding, .. } => *deciding -= calls,
        }
    }

    /// Uses another handler from the next call on.
    pub(super) fn swap(&mut self, new: AnyHandler) {
        match (self, new) {
            (Self::Async { handler, .. }, AnyHandler::Async(new)) => *handler = new,
            (Self::Blocking { workers, .. }, AnyHandler::Blocking(new)) => workers.swap(new),
            _ => unreachable!("a handler of another sort means other threads: the pipeline restarts"),
        }
    }
}

impl Driver {
    /// Offers what is ready, as far as there is room. Returns whether anything was offered.
    pub(super) fn dispatch(&mut self) -> bool {
        if self.paused || self.draining.is_some() {
            return false;
        }
        let mut offered = false;
        // What is judged on the spot may halt the pipeline, and comes back to the scheduler then.
        while self.draining.is_none() && self.has_room() {
            let Some(streams) = self.scheduler.take_call(self.now) else { break };
            offered = true;
            match streams[0].kind {
                WorkKind::Handle => self.offer(streams),
                WorkKind::Park => self.to_park.extend(streams),
                WorkKind::Malformed => streams.into_iter().for_each(|work| self.on_malformed(work)),
            }
        }
        if let Deciders::Blocking { workers, .. } = &mut self.deciders {
            workers.hand_over(&mut self.run);
        }
        offered
    }

    /// Returns whether one more call may begin.
    fn has_room(&self) -> bool {
        let limit = self.gate.limit(self.now);
        if limit == 0 {
            return false;
        }
        let one_by_one = self.max_batch() == 1;
        let deciding = self.deciders.deciding();
        if self.gate.outage().is_some() {
            return deciding + self.decided.len() + self.writing == 0;
        }
        let decided = self.decided.len() + self.writing;
        match &self.deciders {
            // Without a handler, taking work is gathering it for the sink.
            Deciders::Nobody if one_by_one => decided < limit,
            Deciders::Nobody => self.decided.len() < self.max_batch(),
            Deciders::Async { .. } => deciding + if one_by_one { decided } else { 0 } < limit,
            // Threads limit how much is decided at once; what waits for them is no call yet.
            Deciders::Blocking { workers, .. } if one_by_one => {
                decided < limit && deciding < workers.capacity().min(limit)
            }
            Deciders::Blocking { workers, .. } => deciding < workers.capacity(),
        }
    }

    pub(super) fn max_batch(&self) -> usize {
        match &self.sink {
            AnySink::Plain(sink) => sink.max_batch(),
            AnySink::Transactional(sink) => sink.max_batch(),
        }
    }

    fn offer(&mut self, mut streams: Streams) {
        self.counts.offered(&streams, self.now);
        if self.recorder.is_some() {
            self.trace_call(&mut streams);
        }
        match &mut self.deciders {
            Deciders::Nobody => {
                let decided = streams.into_iter().map(|work| Decided {
                    next: work.next,
                    effects: Effects::Events,
                    work,
                    accepted: 0,
                });
                self.decided.extend(decided);
            }
            Deciders::Blocking { deciding, .. } => {
                *deciding += 1;
                self.run.push(streams);
            }
            Deciders::Async { handler, deciding } => {
                *deciding += 1;
                let call = Arc::new(Call { streams });
                let handler = Arc::clone(handler);
                self.call(&handler, call);
            }
        }
    }

    /// Polls a call where it is; it gets a task and a timer of its own only if it has to wait.
    fn call(&mut self, handler: &Arc<dyn Handler>, call: Arc<Call>) {
        let began = self.moment();
        let mut deciding = guarded(Arc::clone(handler), Arc::clone(&call));
        let mut context = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(decisions) = deciding.poll_unpin(&mut context) {
            drop(deciding);
            let period = Period { began, ended: self.moment() };
            self.on_waited(call, Some(decisions), period);
            return;
        }
        let (events, clock, limit) = (self.events_in.clone(), self.clock, self.options.handler_timeout);
        self.group.spawn(TaskKind::Call, "call", async move {
            let decisions = tokio::time::timeout(limit, deciding).await.ok();
            let period = clock.since(began);
            // If the driver is gone, its scheduler is too.
            drop(events.send(Event::Waited { call, decisions, period }).await);
            Ok(())
        });
    }

    pub(super) fn on_waited(&mut self, call: Arc<Call>, decisions: Option<Decisions>, period: Period) {
        self.deciders.came_back(1);
        // A handler that kept the call gets a copy of its own.
        let streams = Arc::try_unwrap(call).map_or_else(|shared| copy(&shared.streams), |call| call.streams);
        let limit = self.options.handler_timeout;
        let decisions = decisions.unwrap_or_else(|| {
            let late =
                || HandlerError::new(HandlerErrorKind::TimedOut, format!("the handler took longer than {limit:?}"));
            streams.iter().map(|_| Err(late())).collect()
        });
        self.on_decisions(streams, decisions, period);
    }

    pub(super) fn on_called(&mut self, called: Called) {
        let Called { calls, decisions, periods } = called;
        self.deciders.came_back(calls.len());
        let mut decisions = decisions.into_iter();
        for (streams, period) in calls.into_iter().zip(periods) {
            for (work, decision) in streams.into_iter().zip(decisions.by_ref()) {
                self.on_result(work, decision, period);
            }
        }
    }

    fn on_decisions(&mut self, streams: Streams, decisions: Decisions, period: Period) {
        if decisions.len() != streams.len() {
            // A handler that answers for fewer streams than it was asked about leaves none of them behind (D-10).
            let why = format!("the handler decided about {} of {} streams", decisions.len(), streams.len());
            for work in streams {
                self.judge(work, &HandlerError::new(HandlerErrorKind::Permanent, why.as_str()));
            }
            return;
        }
        for (work, decision) in streams.into_iter().zip(decisions) {
            self.on_result(work, decision, period);
        }
    }

    fn on_result(&mut self, mut work: Work, decision: Result<Decision, HandlerError>, period: Period) {
        traces::leave(&mut work, "handle", period, decision.as_ref().err());
        let took = period.took();
        match decision {
            Ok(decision) => self.on_decision(work, decision, took),
            Err(error) => {
                self.counts.called(error.kind().as_str(), took);
                self.judge(work, &error);
            }
        }
    }

    fn on_decision(&mut self, work: Work, decision: Decision, took: Duration) {
        let tag = decision.tag.as_deref().unwrap_or("ok");
        self.counts.called(tag, took);
        let next = match decision.next {
            NextIndex::All => work.next,
            NextIndex::Upto(next) => next,
            NextIndex::Defer(delay) => {
                if !decision.effects.is_empty() {
                    return self.judge(work, &without_progress());
                }
                self.finish(work, Outcome::Defer { until: self.now + delay });
                return;
            }
        };
        if next > work.next
            && let Some(why) = self.why_not_beyond()
        {
            let error = HandlerError::new(
                HandlerErrorKind::Permanent,
                format!("`upto({next})` lies beyond the last event read: {why}"),
            );
            return self.judge(work, &error);
        }
        if !makes_progress(&work, next) {
            if !decision.effects.is_empty() {
                return self.judge(work, &without_progress());
            }
            let outcome = self.options.errors.no_progress(self.now, &mut self.random);
            self.finish(work, outcome);
            return;
        }
        if decision.effects.is_empty() {
            self.gate.passed(self.now);
            self.done(work, next);
            return;
        }
        self.decided.push(Decided { work, next, effects: Effects::Emitted(decision.effects), accepted: 0 });
    }

    fn why_not_beyond(&self) -> Option<&'static str> {
        match (&self.sink, self.options.order) {
            (_, Order::None) => Some("with `order = \"none\"` an event has no successor"),
            (AnySink::Transactional(_), _) if !self.options.write_positions => {
                Some("with `checkpoint = \"sink\"` that needs `write_positions = true`")
            }
            _ => None,
        }
    }

    pub(super) fn done(&mut self, work: Work, next: i64) {
        self.counts.handled(&work);
        self.handled_at = self.now;
        self.finish(work, Outcome::Done { next });
    }

    /// Does what the error policy says about a failed piece of work.
    pub(super) fn judge(&mut self, mut work: Work, error: &HandlerError) {
        traces::failed(&mut work, error);
        let victim = Victim { first: work.first(), single: work.is_single(), failures: work.failures };
        let outages = self.gate.outages();
        match self.options.errors.judge(error, victim, outages, self.now, &mut self.random) {
            Verdict::Again(outcome) => {
                tracing::debug!(stream = work.stream(), index = work.first(), failures = work.failures + 1, error = %error, "call failed, it will be made again");
                self.counts.failed(error.kind());
                self.finish(work, outcome);
            }
            Verdict::Unavailable(delay) => {
                if !self.gate.is_closed(self.now) {
                    tracing::warn!(error = %error, retry_in = ?rounded(delay), "the back end is away, everything waits for it");
                }
                self.counts.failed(error.kind());
                self.gate.unavailable(delay, error.message(), self.now);
                self.finish(work, Outcome::Return);
            }
            Verdict::Throttled(delay) => {
                self.counts.failed(error.kind());
                self.gate.throttled(delay, self.now);
                self.finish(work, Outcome::Return);
            }
            Verdict::Then(then) => {
                self.counts.failed(error.kind());
                self.act(work, then, error.message());
            }
        }
    }

    fn on_malformed(&mut self, work: Work) {
        let why = String::from_utf8_lossy(work.events[0].meta()).into_owned();
        self.counts.failed(HandlerErrorKind::Malformed);
        self.act(work, self.options.errors.then, &why);
    }

    /// `then`: what becomes of an event that cannot be handled. It acts on the work's first event alone (C19).
    pub(super) fn act(&mut self, work: Work, then: Then, why: &str) {
        let event = &work.events[0];
        let (stream, index, event_type) = (event.stream().to_owned(), event.index(), event.event_type().to_owned());
        match then {
            Then::Skip => {
                tracing::warn!(target: AUDIT, %stream, index, event_type, at = %event.at(), reason = why, "event skipped");
                self.counts.skipped();
                self.finish(work, Outcome::Skip);
            }
            Then::Park => {
                tracing::warn!(target: AUDIT, %stream, index, event_type, at = %event.at(), reason = why, "stream parked");
                self.why_parked.insert(stream.into(), why.into());
                self.finish(work, Outcome::Park);
            }
            Then::Halt => {
                let what = match event.kind() {
                    crate::event::Kind::Malformed => why.to_owned(),
                    _ => format!("event {index} (`{event_type}`) of stream `{stream}` cannot be handled: {why}"),
                };
                self.finish(work, Outcome::Return);
                self.drain(Ended::Halted(what.clone()), &what);
            }
        }
    }

    /// Looks once a second for streams that are offered without progress, and for threads that do not come back (C6, C20).
    pub(super) fn look_for_stuck_streams(&mut self) {
        if self.check_stuck_at > self.now {
            return;
        }
        self.check_stuck_at = self.now + Duration::from_secs(1);
        let limit = self.options.errors.stuck_after;
        if let Deciders::Blocking { workers, .. } = &mut self.deciders {
            let replaced = workers.replace_stuck(limit, self.now, &self.group);
            if replaced > 0 {
                tracing::error!(threads = replaced, "handler threads did not come back and were replaced");
                self.counts.threads_replaced(replaced);
            }
        }
        if self.draining.is_some() {
            return;
        }
        let stuck = self.scheduler.stuck(limit, self.now);
        if let Some(first) = stuck.first() {
            let why = format!(
                "stream `{}` has made no progress for {:?} ({} streams in all)",
                first.stream,
                first.age,
                stuck.len()
            );
            match self.options.errors.then {
                Then::Halt => self.drain(Ended::Halted(why.clone()), &why),
                then => {
                    for report in stuck.iter().filter(|report| !report.running) {
                        if let Some(work) = self.scheduler.take_stream(&report.stream, self.now) {
                            self.act(work, then, &format!("no progress for {:?}", report.age));
                        }
                    }
                }
            }
        }
    }
}

/// Returns whether going to `next` gets the work's stream anywhere. All of it is always progress, also where that is an unfold
/// with the same index, or events in read order whose indexes go back.
fn makes_progress(work: &Work, next: i64) -> bool {
    next > work.first() || next == work.next
}

fn without_progress() -> HandlerError {
    HandlerError::new(
        HandlerErrorKind::Permanent,
        "the handler emitted effects in a call that makes no progress: they would be written again each time",
    )
}

/// A handler's panic is a failure of its call, also if it comes before there is a future.
fn guarded(handler: Arc<dyn Handler>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
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

fn copy(streams: &Streams) -> Streams {
    let copy = |work: &Work| Work { events: work.events.clone(), trace: work.trace.clone(), ..*work };
    streams.iter().map(copy).collect()
}
