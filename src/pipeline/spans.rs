//! The spans of calls and commits, where traces are exported.
//!
//! Each stream of a call has a span `call`. It begins when the oldest event was read (a retry: when it was offered) and ends
//! when the work returns to the scheduler. It belongs to the trace that the first of its events carries. Its children are
//! `queue` (until the offer), `handle`, `write`, and `commit` if the sink holds the progress. A commit also has a span of its
//! own, in its own trace, as most carry the progress of many calls.

use std::sync::Arc;

use super::messages::Accepted;
use crate::clock::{Clock, Period, Timestamp};
use crate::handler::HandlerError;
use crate::scheduler::Outcome;
use crate::sink::{Decided, Written};
use crate::trace::{Context, Kind, Open, Propagation, Recorder, Traced};
use crate::work::{Streams, Work};

/// The largest number of other traces, or calls of a commit, that a span names.
const MOST_LINKS: usize = 32;

/// The recorder of a pipeline's spans, if traces are exported.
pub(super) struct Spans {
    recorder: Option<Recorder>,
    pipeline: Arc<str>,
    clock: Clock,
}

impl Spans {
    pub(super) fn new(recorder: Option<Recorder>, pipeline: Arc<str>, clock: Clock) -> Self {
        Self { recorder, pipeline, clock }
    }

    pub(super) fn are_recorded(&self) -> bool {
        self.recorder.is_some()
    }

    /// Returns the time, exact only if spans are recorded: nothing else distinguishes steps within one pass.
    pub(super) fn moment(&self, now: Timestamp) -> Timestamp {
        if self.recorder.is_some() { self.clock.now() } else { now }
    }

    /// Opens a span for each recorded stream of a call, and one below it for the handler, if there is one.
    pub(super) fn begin_call(&self, streams: &mut Streams, has_handler: bool, now: Timestamp) {
        let Some(recorder) = &self.recorder else { return };
        let count = i64::try_from(streams.len()).unwrap_or(i64::MAX);
        for work in &mut *streams {
            work.trace = self.open_span(recorder, work, now).map(|mut call| {
                call.set("propulsiond.streams", count);
                Box::new(Traced::new(call))
            });
        }
        if has_handler {
            enter(streams, now);
        }
    }

    fn open_span(&self, recorder: &Recorder, work: &Work, now: Timestamp) -> Option<Open> {
        let mut found = work.events.iter().filter_map(|event| Propagation::from_meta(event.meta()));
        let first = found.next();
        if !recorder.samples(first.as_ref()) {
            return None;
        }
        let began = if work.failures == 0 { work.read_at } else { now };
        let trace = first.as_ref().map(|first| first.context.trace_id);
        let others = found.map(|other| other.context).filter(|other| Some(other.trace_id) != trace);
        let links = others.take(MOST_LINKS).collect();
        let mut call = Open::root(recorder, first, Kind::Consumer, began).links(links);
        self.describe(&mut call, work);
        if work.failures == 0 {
            call.child(Kind::Internal, began).end("queue", now);
        }
        Some(call)
    }

    fn describe(&self, call: &mut Open, work: &Work) {
        call.set("propulsiond.pipeline", &*self.pipeline);
        call.set("propulsiond.stream", work.stream());
        call.set("propulsiond.first_index", work.first());
        call.set("propulsiond.next_index", work.next);
        call.set("propulsiond.event_type", work.events[0].event_type());
        call.set("propulsiond.attempt", i64::from(work.failures) + 1);
    }

    /// Ends the span of work that returns to the scheduler.
    pub(super) fn finish(&self, work: &mut Work, outcome: &Outcome, now: Timestamp) {
        if let Some(mut traced) = work.trace.take() {
            traced.call().set("propulsiond.outcome", name_of(outcome));
            traced.end("call", self.moment(now));
        }
    }

    /// Records a commit of that many tranches, if it is sampled, and below each of its recorded calls.
    pub(super) fn commit(&self, period: Period, tranches: usize, calls: &[Accepted], failed: Option<(&str, &str)>) {
        let Some(recorder) = &self.recorder else { return };
        let open = calls.iter().filter_map(|accepted| accepted.decided.work.trace.as_deref());
        let mut links: Vec<Context> = Vec::new();
        for traced in open {
            end(traced.current().child(Kind::Internal, period.began), period, failed);
            links.push(traced.current().context());
        }
        links.truncate(MOST_LINKS);
        if recorder.samples(None) {
            let mut commit = Open::root(recorder, None, Kind::Internal, period.began).links(links);
            commit.set("propulsiond.pipeline", &*self.pipeline);
            commit.set("propulsiond.tranches", i64::try_from(tranches).unwrap_or(i64::MAX));
            end(commit, period, failed);
        }
    }
}

fn end(mut commit: Open, period: Period, failed: Option<(&str, &str)>) {
    if let Some((kind, why)) = failed {
        commit.fail(kind, why);
    }
    commit.end("commit", period.ended);
}

/// Opens the span of the next stage of calls.
pub(super) fn enter<'a>(work: impl IntoIterator<Item = &'a mut Work>, began: Timestamp) {
    for traced in work.into_iter().filter_map(|work| work.trace.as_deref_mut()) {
        traced.enter(began);
    }
}

/// Ends the span of the current stage of a call.
pub(super) fn leave(work: &mut Work, name: &'static str, period: Period, error: Option<&HandlerError>) {
    if let Some(traced) = work.trace.as_deref_mut() {
        traced.leave(name, period, error.map(|error| (error.kind().as_str(), error.message())));
    }
}

/// Ends the spans of written decisions.
pub(super) fn written(decided: &mut [Decided], period: Period, results: &[Result<Written, HandlerError>]) {
    for (decided, result) in decided.iter_mut().zip(results) {
        leave(&mut decided.work, "write", period, result.as_ref().err());
    }
}

/// Notes the error of a call in its span.
pub(super) fn failed(work: &mut Work, error: &HandlerError) {
    if let Some(traced) = work.trace.as_deref_mut() {
        traced.call().fail(error.kind().as_str(), error.message());
    }
}

fn name_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Defer { .. } => "deferred",
        Outcome::Wait { .. } => "no progress",
        Outcome::Failed { .. } => "failed",
        Outcome::Skip => "skipped",
        Outcome::Park => "parked",
        Outcome::Return | Outcome::Singly => "given back",
    }
}
