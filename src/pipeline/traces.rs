//! The spans of calls and commits, where traces are exported.
//!
//! A stream of a call has one, `call`, from when its oldest event was read (a repetition: from when it was offered) to
//! when its work came back, in the trace that the first of its events with one carries. Below it stand `queue` (until it
//! was offered), `handle`, `write`, and, where the sink holds the progress, `commit`. A commit has a span of its own, too,
//! in a trace of its own: most carry the progress of many calls.

use super::dispatch::Deciders;
use super::driver::Driver;
use crate::clock::{Period, Timestamp};
use crate::handler::HandlerError;
use crate::scheduler::Outcome;
use crate::sink::{Decided, Written};
use crate::trace::{Context, Kind, Open, Propagation, Recorder, Traced};
use crate::work::{Streams, Work};

/// How many other traces, or calls of a commit, a span names.
const MOST_LINKS: usize = 32;

impl Driver {
    /// Returns when something begins that may be over in this very pass: only spans tell that apart from the pass.
    pub(super) fn moment(&self) -> Timestamp {
        if self.recorder.is_some() { self.clock.now() } else { self.now }
    }

    /// Opens a span for each stream of a call that is recorded, and one below it for the handler, if there is one.
    pub(super) fn trace_call(&self, streams: &mut Streams) {
        let Some(recorder) = &self.recorder else { return };
        let count = i64::try_from(streams.len()).unwrap_or(i64::MAX);
        for work in &mut *streams {
            work.trace = self.open_span(recorder, work).map(|mut call| {
                call.set("propulsiond.streams", count);
                Box::new(Traced::new(call))
            });
        }
        if !matches!(self.deciders, Deciders::Nobody) {
            enter(streams, self.now);
        }
    }

    fn open_span(&self, recorder: &Recorder, work: &Work) -> Option<Open> {
        let mut found = work.events.iter().filter_map(|event| Propagation::from_meta(event.meta()));
        let first = found.next();
        if !recorder.samples(first.as_ref()) {
            return None;
        }
        let began = if work.failures == 0 { work.read_at } else { self.now };
        let trace = first.as_ref().map(|first| first.context.trace_id);
        let others = found.map(|other| other.context).filter(|other| Some(other.trace_id) != trace);
        let links = others.take(MOST_LINKS).collect();
        let mut call = Open::root(recorder, first, Kind::Consumer, began).links(links);
        self.describe(&mut call, work);
        if work.failures == 0 {
            call.child(Kind::Internal, began).end("queue", self.now);
        }
        Some(call)
    }

    fn describe(&self, call: &mut Open, work: &Work) {
        call.set("propulsiond.pipeline", &*self.identity.name);
        call.set("propulsiond.stream", work.stream());
        call.set("propulsiond.first_index", work.first());
        call.set("propulsiond.next_index", work.next);
        call.set("propulsiond.event_type", work.events[0].event_type());
        call.set("propulsiond.attempt", i64::from(work.failures) + 1);
    }

    /// Takes work back into the scheduler, and ends its span.
    pub(super) fn finish(&mut self, mut work: Work, outcome: Outcome) {
        if let Some(mut traced) = work.trace.take() {
            traced.call().set("propulsiond.outcome", name_of(&outcome));
            traced.end("call", self.moment());
        }
        self.scheduler.finish(work, outcome, self.now);
    }

    /// Records a commit of the progress of so many tranches, by chance, and below the calls that are part of it.
    pub(super) fn trace_commit(
        &self,
        period: Period,
        tranches: usize,
        calls: &[(Work, i64)],
        failed: Option<(&str, &str)>,
    ) {
        let Some(recorder) = &self.recorder else { return };
        let open = calls.iter().filter_map(|(work, _)| work.trace.as_deref());
        let mut links: Vec<Context> = Vec::new();
        for traced in open {
            end(traced.current().child(Kind::Internal, period.began), period, failed);
            links.push(traced.current().context());
        }
        links.truncate(MOST_LINKS);
        if recorder.samples(None) {
            let mut commit = Open::root(recorder, None, Kind::Internal, period.began).links(links);
            commit.set("propulsiond.pipeline", &*self.identity.name);
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

/// Opens the span of what is done with calls next.
pub(super) fn enter<'a>(work: impl IntoIterator<Item = &'a mut Work>, began: Timestamp) {
    for traced in work.into_iter().filter_map(|work| work.trace.as_deref_mut()) {
        traced.enter(began);
    }
}

/// Ends the span of what was done with a call last.
pub(super) fn leave(work: &mut Work, name: &'static str, period: Period, error: Option<&HandlerError>) {
    if let Some(traced) = work.trace.as_deref_mut() {
        traced.leave(name, period, error.map(|error| (error.kind().as_str(), error.message())));
    }
}

/// Ends the spans of decisions that were written.
pub(super) fn written(decided: &mut [Decided], period: Period, results: &[Result<Written, HandlerError>]) {
    for (decided, result) in decided.iter_mut().zip(results) {
        leave(&mut decided.work, "write", period, result.as_ref().err());
    }
}

/// Says in the span of a call why it failed.
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
        Outcome::Return => "given back",
    }
}
