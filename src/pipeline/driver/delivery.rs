//! Writes of sinks that do not hold the progress.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;

use super::super::breaker::BackEnd;
use super::super::messages::{Delivered, Event};
use super::super::policy::OUTAGE;
use super::super::spans;
use super::Driver;
use crate::clock::Period;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::supervise::TaskKind;
use crate::scheduler::Outcome;
use crate::sink::{AnySink, Decided, Sink, Written};
use crate::telemetry::metrics::OK;

impl Driver {
    /// Hands decisions to the sink, as far as it takes them. Returns whether a write has ended at once.
    pub(super) fn deliver(&mut self) -> bool {
        self.drop_unowned();
        if self.breaker.is_open(self.now) {
            if self.drain.is_begun() {
                // A drain does not wait for an unavailable sink: the next owner decides again.
                self.give_back_decisions();
            }
            return false;
        }
        let sink = match &self.sink {
            AnySink::Plain(sink) => Arc::clone(sink),
            AnySink::Transactional(sink) => {
                let sink = Arc::clone(sink);
                self.begin_transaction(&sink);
                return false;
            }
        };
        let mut ended = false;
        while let Some(batch) = self.take_batch() {
            ended |= self.write(&sink, batch);
            if self.breaker.is_open(self.now) {
                break;
            }
        }
        ended
    }

    /// Takes the decisions of the next write. Their clocks run from now on, as they did in their calls (C20).
    pub(super) fn take_batch(&mut self) -> Option<Vec<Decided>> {
        let batch = self.writes.take_batch(self.write_size(), self.now)?;
        batch.iter().for_each(|decided| self.scheduler.start_clock(decided.work.id, self.now));
        Some(batch)
    }

    /// Puts decisions back that had no room, or whose transaction failed for another reason.
    pub(super) fn put_back(&mut self, decided: Vec<Decided>) {
        decided.iter().for_each(|decided| self.scheduler.cancel_clock(decided.work.id));
        self.writes.put_back(decided);
    }

    /// Returns the number of decisions that the next write may carry: one probe at a time during an outage.
    pub(super) fn write_size(&self) -> usize {
        match self.breaker.is_probing() {
            true => usize::from(self.writes.in_flight() == 0),
            false => usize::MAX,
        }
    }

    fn give_back_decisions(&mut self) {
        for decided in self.writes.take_all() {
            self.finish(decided.work, Outcome::Return);
        }
    }

    /// Drops decisions about tranches that are not owned any more (C10).
    pub(super) fn drop_unowned(&mut self) {
        let (scheduler, lane) = (&self.scheduler, &self.lane);
        for decided in self.writes.take_unowned(|work| lane.tranche_of(work).is_some() || scheduler.is_held(work)) {
            self.finish(decided.work, Outcome::Return);
        }
    }

    /// Polls a write in place. It gets a task only if it waits. Returns whether it has ended.
    fn write(&mut self, sink: &Arc<dyn Sink>, mut batch: Vec<Decided>) -> bool {
        let (sink, began, clock) = (Arc::clone(sink), self.spans.moment(self.now), self.clock);
        if self.spans.are_recorded() {
            spans::enter(batch.iter_mut().map(|decided| &mut decided.work), began);
        }
        let mut write = async move {
            let results = sink.write(&batch).await;
            (batch, results)
        }
        .boxed();
        let mut context = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready((decided, results)) = write.poll_unpin(&mut context) {
            let period = Period { began, ended: self.spans.moment(self.now) };
            self.on_delivered(Delivered { decided, results, period });
            return true;
        }
        let events = self.events_in.clone();
        self.group.spawn(TaskKind::Writer, "write", async move {
            let (decided, results) = write.await;
            let period = clock.since(began);
            // Without a driver, its scheduler is gone, too.
            drop(events.send(Event::Delivered(Delivered { decided, results, period })).await);
            Ok(())
        });
        false
    }

    pub(super) fn on_delivered(&mut self, mut delivered: Delivered) {
        if self.spans.are_recorded() {
            spans::written(&mut delivered.decided, delivered.period, &delivered.results);
        }
        self.writes.answered(delivered.decided.len());
        self.writes.ended();
        let took = delivered.period.took();
        let mut later = Vec::new();
        let all = delivered.decided.len();
        for (decided, result) in answers(delivered.decided, delivered.results) {
            // Without a handler, the write is the call.
            if !self.calls.has_handler() {
                self.counts.called(result.as_ref().map_or_else(|error| error.kind().as_str(), |_| OK), took);
            }
            match result {
                Ok(Written::Later) => later.push(decided),
                result => self.on_written(decided, result),
            }
        }
        self.put_back_later(later, all);
    }

    /// Offers decisions in the next write that had no room in this one.
    pub(super) fn put_back_later(&mut self, later: Vec<Decided>, all: usize) {
        if later.is_empty() {
            return;
        }
        if later.len() == all {
            // The write had room for none. A pause keeps the next one from being a busy loop.
            self.writes.hold(self.now + OUTAGE.initial);
        }
        self.put_back(later);
    }

    fn on_written(&mut self, decided: Decided, result: Result<Written, HandlerError>) {
        match result {
            Ok(Written::All) => {
                self.breaker.passed(BackEnd::Sink, self.now);
                self.done(decided.work, decided.next);
            }
            Ok(Written::Upto(next)) if next > decided.work.first() => {
                self.breaker.passed(BackEnd::Sink, self.now);
                self.done(decided.work, next);
            }
            Ok(Written::Upto(_) | Written::Waiting | Written::Later) => self.no_progress(decided.work),
            Err(error) => self.on_write_failed(decided, &error),
        }
    }
}

/// Returns each decision with its result. A sink that answers for fewer leaves the others failed.
pub(super) fn answers(
    decided: Vec<Decided>,
    results: Vec<Result<Written, HandlerError>>,
) -> impl Iterator<Item = (Decided, Result<Written, HandlerError>)> {
    let (asked, answered) = (decided.len(), results.len());
    let mut results = results.into_iter();
    decided.into_iter().map(move |decided| {
        let result = results.next().unwrap_or_else(|| {
            let why = format!("the sink answered for {answered} of {asked} decisions");
            Err(HandlerError::new(HandlerErrorKind::Transient, why))
        });
        (decided, result)
    })
}
