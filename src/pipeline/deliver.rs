//! The driver's dealings with sinks that do not hold the progress: write what was decided, take back how it went.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;

use super::dispatch::Deciders;
use super::driver::{Driver, Event};
use super::traces;
use crate::clock::Period;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::supervise::TaskKind;
use crate::scheduler::Outcome;
use crate::sink::{AnySink, Decided, Sink, Written};

/// How a write went.
pub(super) struct Delivered {
    pub(super) decided: Vec<Decided>,
    pub(super) results: Vec<Result<Written, HandlerError>>,
    pub(super) period: Period,
}

impl Driver {
    /// Hands the sink what was decided, as far as it takes it. Returns whether anything came of it at once.
    pub(super) fn deliver(&mut self) -> bool {
        self.drop_what_is_not_ours();
        let parks = !self.to_park.is_empty() && matches!(self.sink, AnySink::Transactional(_));
        if self.decided.is_empty() && !parks {
            return false;
        }
        if self.gate.is_closed(self.now) {
            if self.draining.is_some() {
                // Nobody waits for a back end that is away: whoever comes next decides again.
                for decided in std::mem::take(&mut self.decided) {
                    self.finish(decided.work, Outcome::Return);
                }
            }
            return false;
        }
        let sink = match &self.sink {
            AnySink::Plain(sink) => Arc::clone(sink),
            AnySink::Transactional(sink) => {
                let sink = Arc::clone(sink);
                return self.begin_transaction(&sink);
            }
        };
        if sink.max_batch() == 1 {
            let mut at_once = false;
            for decided in std::mem::take(&mut self.decided) {
                at_once |= self.write(&sink, vec![decided]);
            }
            return at_once;
        }
        if self.writing > 0 {
            return false;
        }
        let batch = if self.decided.len() <= sink.max_batch() {
            std::mem::take(&mut self.decided)
        } else {
            self.decided.drain(..sink.max_batch()).collect()
        };
        self.write(&sink, batch)
    }

    /// A decision about a tranche that is no longer ours must not be written (C10).
    pub(super) fn drop_what_is_not_ours(&mut self) {
        if self.decided.iter().all(|decided| self.scheduler.is_held(decided.work.id)) {
            return;
        }
        let (held, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.decided).into_iter().partition(|decided| self.scheduler.is_held(decided.work.id));
        self.decided = held;
        for decided in gone {
            self.finish(decided.work, Outcome::Return);
        }
    }

    /// Polls a write where it is; it gets a task only if it has to wait. Returns whether it is done.
    fn write(&mut self, sink: &Arc<dyn Sink>, mut batch: Vec<Decided>) -> bool {
        self.writing += batch.len();
        let (sink, began, clock) = (Arc::clone(sink), self.moment(), self.clock);
        if self.recorder.is_some() {
            traces::enter(batch.iter_mut().map(|decided| &mut decided.work), began);
        }
        let mut write = async move {
            let results = sink.write(&batch).await;
            (batch, results)
        }
        .boxed();
        let mut context = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready((decided, results)) = write.poll_unpin(&mut context) {
            let period = Period { began, ended: self.moment() };
            self.on_delivered(Delivered { decided, results, period });
            return true;
        }
        let events = self.events_in.clone();
        self.group.spawn(TaskKind::Writer, "write", async move {
            let (decided, results) = write.await;
            let period = clock.since(began);
            drop(events.send(Event::Delivered(Delivered { decided, results, period })).await);
            Ok(())
        });
        false
    }

    pub(super) fn on_delivered(&mut self, mut delivered: Delivered) {
        if self.recorder.is_some() {
            traces::written(&mut delivered.decided, delivered.period, &delivered.results);
        }
        self.writing -= delivered.decided.len();
        let (asked, answered) = (delivered.decided.len(), delivered.results.len());
        let mut results = delivered.results.into_iter();
        // Without a handler, writing is what handling comes to.
        let counts = matches!(self.deciders, Deciders::Nobody);
        for decided in delivered.decided {
            let result = results.next().unwrap_or_else(|| {
                let why = format!("the sink answered for {answered} of {asked} decisions");
                Err(HandlerError::new(HandlerErrorKind::Transient, why))
            });
            if counts {
                let kind =
                    result.as_ref().map_or_else(|error| error.kind().as_str(), |_| crate::telemetry::metrics::OK);
                self.counts.called(kind, delivered.period.took());
            }
            self.settle(decided, result);
        }
    }

    fn settle(&mut self, decided: Decided, result: Result<Written, HandlerError>) {
        let Decided { work, next, .. } = decided;
        match result {
            Ok(Written::All) => {
                self.gate.passed(self.now);
                self.done(work, next);
            }
            Ok(Written::Upto(next)) if next > work.first() => {
                self.gate.passed(self.now);
                self.done(work, next);
            }
            Ok(Written::Upto(_) | Written::Waiting | Written::Later) => {
                let outcome = self.options.errors.no_progress(self.now, &mut self.random);
                self.finish(work, outcome);
            }
            Err(error) => self.judge(work, &error),
        }
    }
}
