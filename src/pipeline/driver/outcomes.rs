//! Offers, decisions, and failures.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;

use super::super::breaker::BackEnd;
use super::super::calls::{self, Decider, Offered};
use super::super::drain::Ended;
use super::super::failures::Attempt;
use super::super::messages::{Called, Event};
use super::super::policy::{self, Reaction, Then, Victim};
use super::super::{calls::Reaction as DecisionReaction, spans};
use super::parking::Cause;
use super::{Driver, pieces};
use crate::clock::{Period, Timestamp};
use crate::event::Kind;
use crate::handler::{Call, Decision, Decisions, Handler, HandlerError, HandlerErrorKind};
use crate::runtime::retry::rounded;
use crate::runtime::supervise::TaskKind;
use crate::scheduler::{Order, Outcome};
use crate::sink::{Decided, Effects};
use crate::telemetry::logging::AUDIT;
use crate::work::{Streams, Work, WorkKind};

/// The remedy for a halt over a record that its source cannot read.
const PASS_RECORD: &str = "correct its producer; `then = \"skip\"` in `[errors]` passes this record and every other event that \
                           fails; do not edit what was read";

/// The class of a stream that was offered without progress for too long.
const STUCK: &str = "stuck";

impl Driver {
    /// Offers ready work as far as there is room. Returns whether any was offered.
    pub(super) fn dispatch(&mut self, budget: &mut usize) -> bool {
        if self.paused {
            return false;
        }
        let mut offered = false;
        // A decision that is judged at once can begin a drain.
        while !self.drain.is_begun() && *budget > 0 && self.has_room() {
            // In read order a tranche has one call at a time: retries and new events take turns.
            let is_alone = self.options.order == Order::Tranche && self.lane.wants_a_turn();
            if is_alone && self.is_calling() {
                break;
            }
            let Some(streams) = self.next_call() else { break };
            offered = true;
            *budget -= 1;
            match streams[0].kind {
                WorkKind::Retry if streams[0].events[0].kind() == Kind::Malformed => {
                    streams.into_iter().for_each(|work| self.on_malformed(work));
                }
                WorkKind::Handle | WorkKind::Retry => self.offer(streams),
                WorkKind::Park => streams.into_iter().for_each(|work| self.park(work)),
                WorkKind::Malformed => streams.into_iter().for_each(|work| self.on_malformed(work)),
            }
        }
        self.calls.hand_over();
        offered
    }

    /// Returns the next call. Parked and new events take turns, so that neither holds up the other.
    fn next_call(&mut self) -> Option<Streams> {
        let now = self.now;
        let is_lane_first = !std::mem::replace(&mut self.lane_had_its_turn, false);
        if is_lane_first && let Some(work) = self.lane.offer(now) {
            self.lane_had_its_turn = true;
            return Some(Streams::from_iter([work]));
        }
        self.scheduler.take_call(now).or_else(|| self.lane.offer(now).map(|work| Streams::from_iter([work])))
    }

    fn is_calling(&self) -> bool {
        self.calls.deciding() + self.writes.active() > 0
    }

    fn has_room(&self) -> bool {
        let (limit, probing) = (self.breaker.limit(self.now), self.breaker.is_probing());
        self.calls.has_room(limit, probing, self.writes.active(), self.writes.queued(), self.writes.max_batch())
    }

    fn offer(&mut self, mut streams: Streams) {
        self.counts.offered(&streams, self.now);
        self.spans.begin_call(&mut streams, self.calls.has_handler(), self.now);
        match self.calls.offer(streams) {
            Offered::Decided(decided) => decided.into_iter().for_each(|decided| self.writes.push(decided)),
            Offered::Queued => {}
            Offered::Call(handler, call) => self.call(handler, call),
        }
    }

    /// Polls a call in place. It gets a task and a timer of its own only if it waits.
    fn call(&mut self, handler: Arc<dyn Handler>, call: Arc<Call>) {
        let began = self.spans.moment(self.now);
        let mut deciding = calls::guarded(handler, Arc::clone(&call));
        let mut context = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(decisions) = deciding.poll_unpin(&mut context) {
            drop(deciding);
            let period = Period { began, ended: self.spans.moment(self.now) };
            self.on_waited(call, Some(decisions), period);
            return;
        }
        let (events, clock, limit) = (self.events_in.clone(), self.clock, self.options.handler_timeout);
        self.group.spawn(TaskKind::Call, "call", async move {
            let decisions = tokio::time::timeout(limit, deciding).await.ok();
            let period = clock.since(began);
            // Without a driver, its scheduler is gone, too.
            drop(events.send(Event::Waited { call, decisions, period }).await);
            Ok(())
        });
    }

    pub(super) fn on_waited(&mut self, call: Arc<Call>, decisions: Option<Decisions>, period: Period) {
        self.calls.decided(1);
        let streams = calls::streams_of(call);
        let limit = self.options.handler_timeout;
        let decisions = decisions.unwrap_or_else(|| calls::timed_out(streams.len(), limit));
        let decisions = calls::one_per_stream(decisions, streams.len());
        for (work, decision) in streams.into_iter().zip(decisions) {
            self.on_result(work, decision, period);
        }
    }

    pub(super) fn on_called(&mut self, called: Called) {
        let Called { calls, decisions, periods } = called;
        self.calls.decided(calls.len());
        let mut decisions = decisions.into_iter();
        for (streams, period) in calls.into_iter().zip(periods) {
            for (work, decision) in streams.into_iter().zip(decisions.by_ref()) {
                self.on_result(work, decision, period);
            }
        }
    }

    /// Takes back the calls that have not begun.
    pub(super) fn take_back_calls(&mut self) {
        for work in pieces(self.calls.take_back()) {
            self.finish(work, Outcome::Return);
        }
    }

    fn on_result(&mut self, mut work: Work, decision: Result<Decision, HandlerError>, period: Period) {
        spans::leave(&mut work, "handle", period, decision.as_ref().err());
        let took = period.took();
        match decision {
            Ok(decision) => self.on_decision(work, decision, took),
            Err(error) => {
                self.counts.called(error.kind().as_str(), took);
                self.on_call_failed(work, &error);
            }
        }
    }

    fn on_decision(&mut self, work: Work, decision: Decision, took: Duration) {
        self.counts.called(decision.tag.as_deref().unwrap_or("ok"), took);
        self.breaker.passed(BackEnd::Handler, self.now);
        match self.rules.react(&work, &decision) {
            DecisionReaction::Done(next) => self.done(work, next),
            DecisionReaction::Write(next) => {
                // In the queue it waits for others.
                self.scheduler.stop_clock(work.id, self.now);
                self.writes.push(Decided { work, next, effects: Effects::Emitted(decision.effects), accepted: 0 });
            }
            DecisionReaction::Defer(delay) => self.defer(work, delay),
            DecisionReaction::NoProgress => self.no_progress(work),
            DecisionReaction::Refuse(error) => self.on_call_failed(work, &error),
        }
    }

    pub(super) fn no_progress(&mut self, work: Work) {
        if work.kind == WorkKind::Retry {
            let age = self.now.since(self.lane.stalled(work.id, self.now));
            if age >= self.options.errors.stuck_after {
                let why = format!("no progress for {age:?}");
                return self.act(work, self.options.errors.then, STUCK, &why);
            }
        }
        let outcome = self.options.errors.no_progress(self.now, &mut self.random);
        self.finish(work, outcome);
    }

    pub(super) fn done(&mut self, work: Work, next: i64) {
        self.handled_at = self.now;
        // Parked events were counted when they were parked.
        if work.kind != WorkKind::Retry {
            self.counts.handled(&work);
            self.rate.add(self.now, work.events.len());
        }
        self.finish(work, Outcome::Done { next });
    }

    /// Returns work to the scheduler.
    pub(super) fn finish(&mut self, mut work: Work, outcome: Outcome) {
        self.spans.finish(&mut work, &outcome, self.now);
        self.writes.done(work.id);
        if matches!(outcome, Outcome::Done { .. } | Outcome::Skip | Outcome::Park) {
            self.forget_failure(&work);
        }
        match work.kind {
            WorkKind::Retry => self.finish_retry(work, outcome),
            _ => self.scheduler.finish(work, outcome, self.now),
        }
    }

    /// Forgets the failure of a stream that makes progress.
    pub(super) fn forget_failure(&mut self, work: &Work) {
        if !self.failures.is_empty()
            && let Some(tranche) = self.tranche_of(work.id)
        {
            self.failures.clear(tranche, work.stream());
        }
    }

    fn victim(&self, work: &Work) -> Victim {
        let failures = work.failures.saturating_add(self.writes.failures(work.id));
        Victim { first: work.first(), single: work.is_single(), failures }
    }

    fn note_failure(&mut self, work: &Work, error: &HandlerError, delay: Duration) {
        self.note_attempt(work, error, Some(self.now + delay));
    }

    /// Notes the failure that ends the attempts at an event.
    fn note_last_failure(&mut self, work: &Work, error: &HandlerError) {
        self.note_attempt(work, error, None);
    }

    fn note_attempt(&mut self, work: &Work, error: &HandlerError, next_try: Option<Timestamp>) {
        // A revoked tranche shows nothing.
        let Some(tranche) = self.tranche_of(work.id) else { return };
        let attempts = self.victim(work).failures.saturating_add(1);
        let attempt = Attempt { tranche, class: error.kind().as_str(), error: error.message(), attempts, next_try };
        self.failures.note(work, attempt, self.now);
    }

    /// Logs a failure that spends an attempt. An outage is logged once, when it begins.
    fn log_retry(&self, work: &Work, error: &HandlerError, delay: Duration, message: &'static str) {
        let (stream, index) = (work.stream(), work.first());
        let (class, attempt) = (error.kind().as_str(), self.victim(work).failures.saturating_add(1));
        tracing::warn!(stream, index, class, attempt, error = %error, retry_in = ?rounded(delay), "{message}");
    }

    /// Reacts to a failed call.
    pub(super) fn on_call_failed(&mut self, mut work: Work, error: &HandlerError) {
        spans::failed(&mut work, error);
        self.counts.failed(error.kind());
        let victim = self.victim(&work);
        let reaction = self.options.errors.react(error, victim, self.breaker.outages(), &mut self.random);
        let outcome = match reaction {
            Reaction::Unavailable(delay) => {
                self.open_breaker(BackEnd::Handler, delay, error);
                self.note_failure(&work, error, delay);
                Outcome::Return
            }
            Reaction::Throttled(delay) => {
                self.breaker.throttled(delay, self.now);
                self.note_failure(&work, error, delay);
                Outcome::Return
            }
            Reaction::Then(then) => {
                self.note_last_failure(&work, error);
                return self.act(work, then, error.kind().as_str(), error.message());
            }
            Reaction::Halt => return self.halt_without_blame(work, error),
            Reaction::Retry { delay, at_index, .. } => {
                self.note_failure(&work, error, delay);
                // A script reaches no back end: its errors are about its events.
                if self.calls.may_wait() && self.is_outage(BackEnd::Handler, &work, error, delay) {
                    // One delay longer than the breaker stays open, so that the next probe is another stream's, if one has work.
                    Outcome::Wait { until: self.now + delay + delay }
                } else {
                    self.log_retry(&work, error, delay, "call failed, retrying");
                    Outcome::Failed { until: self.now + delay, at_index }
                }
            }
        };
        self.finish(work, outcome);
    }

    /// Reacts to a failed write. The retry carries the decision as it is, from the first effect that was not accepted (C28).
    pub(super) fn on_write_failed(&mut self, mut decided: Decided, error: &HandlerError) {
        spans::failed(&mut decided.work, error);
        self.counts.failed(error.kind());
        decided.accepted = decided.accepted.max(error.accepted_effects());
        let Some(tranche) = self.tranche_of(decided.work.id) else {
            return self.finish(decided.work, Outcome::Return);
        };
        let victim = self.victim(&decided.work);
        let reaction = self.options.errors.react(error, victim, self.breaker.outages(), &mut self.random);
        // Only the decision's own failure counts for `stuck_after`; in back-off the clock stands still (C20).
        let mut is_its_own = false;
        let retry_at = match reaction {
            Reaction::Unavailable(delay) => {
                self.open_breaker(BackEnd::Sink, delay, error);
                self.note_failure(&decided.work, error, delay);
                self.breaker.next_wake()
            }
            Reaction::Throttled(delay) => {
                self.breaker.throttled(delay, self.now);
                self.note_failure(&decided.work, error, delay);
                self.breaker.next_wake()
            }
            Reaction::Then(then) => {
                self.breaker.answered(BackEnd::Sink, self.now);
                self.note_last_failure(&decided.work, error);
                return self.act(decided.work, then, error.kind().as_str(), error.message());
            }
            Reaction::Halt => return self.halt_without_blame(decided.work, error),
            Reaction::Retry { delay, at_index, spent } => {
                self.note_failure(&decided.work, error, delay);
                if self.is_outage(BackEnd::Sink, &decided.work, error, delay) {
                    self.breaker.next_wake()
                } else if spent && let Some(next) = decided.accepted_next() {
                    // The events before the failed one keep their effects. The failed one comes first in the next call, so
                    // that a later failure is known to be its own (C19).
                    return self.done(decided.work, next);
                } else if spent {
                    self.log_retry(&decided.work, error, delay, "write failed, its events are decided singly");
                    // The attempts at the decision are spent: its events are decided singly, to find the one at fault (C19).
                    let outcome = Outcome::Failed { until: self.now + delay, at_index };
                    return self.finish(decided.work, outcome);
                } else {
                    self.log_retry(&decided.work, error, delay, "write failed, retrying");
                    self.writes.count_failure(decided.work.id);
                    is_its_own = true;
                    Some(self.now + delay)
                }
            }
        };
        self.changed.insert(tranche.clone());
        match is_its_own {
            true => self.scheduler.stop_clock(decided.work.id, self.now),
            false => self.scheduler.cancel_clock(decided.work.id),
        }
        self.writes.retry(decided, tranche, retry_at.unwrap_or(self.now));
    }

    /// Halts for an error that no event caused. The work returns unhandled, and the next run offers it again.
    fn halt_without_blame(&mut self, work: Work, error: &HandlerError) {
        self.finish(work, Outcome::Return);
        self.begin_drain(Ended::Halted(error.message().to_owned()), error.message());
    }

    fn open_breaker(&mut self, of: BackEnd, delay: Duration, error: &HandlerError) {
        if !self.breaker.is_open(self.now) {
            let subject = if of == BackEnd::Sink { "sink" } else { "back end of the handler" };
            tracing::warn!(error = %error, retry_in = ?rounded(delay), "{subject} unavailable, circuit breaker opened");
        }
        self.breaker.unavailable(of, delay, error.message(), self.now);
    }

    /// Returns whether a failure belongs to an outage, and so spends no attempt.
    fn is_outage(&mut self, of: BackEnd, work: &Work, error: &HandlerError, delay: Duration) -> bool {
        if !policy::may_be_outage(error) {
            self.breaker.answered(of, self.now);
            return false;
        }
        let was_open = self.breaker.is_open(self.now);
        let answered = policy::is_answer(error);
        let is_outage = self.breaker.failed(of, work.stream(), answered, delay, error.message(), self.now);
        if is_outage && !was_open {
            tracing::warn!(error = %error, retry_in = ?rounded(delay), "calls of several streams fail alike, circuit breaker opened");
        }
        is_outage
    }

    fn on_malformed(&mut self, work: Work) {
        let why = String::from_utf8_lossy(work.events[0].meta()).into_owned();
        self.counts.failed(HandlerErrorKind::Malformed);
        self.act(work, self.options.errors.then, HandlerErrorKind::Malformed.as_str(), &why);
    }

    /// Performs `then` on the first event of the work alone (C19).
    pub(super) fn act(&mut self, work: Work, then: Then, class: &str, why: &str) {
        let cause = Cause { class, why, attempts: self.victim(&work).failures.saturating_add(1) };
        let event = &work.events[0];
        let (at, index) = (event.at(), event.index());
        let (stream, event_type) = (event.stream().to_owned(), event.event_type().to_owned());
        // An unreadable record has no stream, index and type: its reason names its place.
        let is_known = event.kind() != Kind::Malformed;
        let (known_stream, known_index) = (is_known.then_some(&*stream), is_known.then_some(index));
        let known_type = is_known.then_some(&*event_type);
        match then {
            Then::Skip => {
                tracing::warn!(
                    target: AUDIT, stream = known_stream, index = known_index, event_type = known_type, %at, reason = why,
                    version = &*self.version, "event skipped"
                );
                self.counts.event_skipped();
                self.finish(work, Outcome::Skip);
            }
            Then::Park if work.kind == WorkKind::Retry => self.stay_parked(work, cause),
            Then::Park => {
                tracing::warn!(
                    target: AUDIT, stream = known_stream, index = known_index, event_type = known_type, %at, reason = why,
                    version = &*self.version, "stream parked"
                );
                if let Some(tranche) = self.scheduler.tranche_of(work.id) {
                    let mark = self.failed_mark(event, cause, None);
                    self.parks.parked(tranche, &stream, mark);
                }
                self.finish(work, Outcome::Park);
            }
            Then::Halt => {
                let what = match is_known {
                    false => format!("{why}; {PASS_RECORD}"),
                    true => format!("event {index} (`{event_type}`) of stream `{stream}` cannot be handled: {why}"),
                };
                self.finish(work, Outcome::Return);
                self.begin_drain(Ended::Halted(what.clone()), &what);
            }
        }
    }

    /// Looks once a second for streams that are offered without progress, and for threads that are stuck (C6, C20).
    pub(super) fn look_for_stuck_streams(&mut self) {
        if self.check_stuck_at > self.now {
            return;
        }
        self.check_stuck_at = self.now + Duration::from_secs(1);
        let limit = self.options.errors.stuck_after;
        self.replace_stuck_threads(limit);
        if self.drain.is_begun() {
            return;
        }
        let stuck = self.scheduler.stuck(limit, self.now);
        let Some(first) = stuck.first() else { return };
        let why = format!(
            "stream `{}` has made no progress for {:?} ({} streams in all)",
            first.stream,
            first.age,
            stuck.len()
        );
        match self.options.errors.then {
            Then::Halt => self.begin_drain(Ended::Halted(why.clone()), &why),
            then => {
                for (report, work) in self.scheduler.take_stuck(limit, self.now) {
                    self.act(work, then, STUCK, &format!("no progress for {:?}", report.age));
                }
            }
        }
    }

    fn replace_stuck_threads(&mut self, limit: Duration) {
        let Decider::Blocking(workers) = &mut self.calls.decider else { return };
        let mut results = workers.take_held_results(self.now);
        let (replaced, held) = workers.replace_stuck(limit, self.now, &self.group);
        results.extend(held);
        if replaced > 0 {
            tracing::error!(threads = replaced, "handler threads stuck in a call, replaced");
            self.counts.threads_replaced(replaced);
        }
        results.into_iter().for_each(|called| self.on_called(called));
    }
}
