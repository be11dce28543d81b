//! Compares the effects of two handlers over the same events, without a sink and a checkpoint.
//!
//! The events of a stream are offered in order, in calls of at most `max_events`, as if all of them had been read before the
//! first call. A running pipeline may divide them into other calls. An event that fails is noted and passed, as `skip` does.
//! A stream whose handler waits, by `defer` or by `upto` of its first event, ends there.

mod report;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use hashbrown::HashMap;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::apart::Sample;
use crate::config::filter::{Filter, FilterMatch};
use crate::event::Event;
use crate::handler::{BlockingHandler, Decisions, HandlerError, HandlerErrorKind};
use crate::position::TrancheId;
use crate::script::{Entry, STACK_BYTES, Script};
use crate::spec::{Checked, Order};
use crate::work::Work;
pub(crate) use report::{Comparison, Difference};
use stream::{Outcome, Queue};

/// A handler, with the settings that decide about its calls.
#[derive(Clone)]
pub(crate) struct Side {
    script: Script,
    filter: Arc<Filter>,
    max_events: usize,
    streams_per_call: usize,
}

impl Side {
    /// Returns the handler of a pipeline; `None` if the pipeline has no script.
    pub(crate) fn new(checked: &Checked) -> Option<Self> {
        let (script, filter) = checked.script_and_filter();
        let schedule = &checked.definition.spec().schedule;
        Some(Self {
            script: script?,
            filter,
            max_events: if schedule.order == Order::None { 1 } else { schedule.max_events.get() },
            streams_per_call: schedule.streams_per_call.get(),
        })
    }

    /// Returns whether the handler is offered the event.
    pub(crate) fn takes(&self, event: &Event) -> bool {
        self.filter.decide(event) == FilterMatch::Keep
    }
}

/// Compares two handlers over the events of a sample. The scripts run on a thread of their own, and neither log nor count
/// anything.
///
/// # Errors
/// The thread cannot be started, or the comparison is dropped meanwhile.
pub(crate) async fn compare(old: Side, new: Side, sample: Sample, now: OffsetDateTime) -> anyhow::Result<Comparison> {
    let (reply, result) = oneshot::channel();
    let is_dropped = Arc::new(AtomicBool::new(false));
    let _dropped = SetOnDrop(Arc::clone(&is_dropped));
    let run = move || {
        let silent = tracing::subscriber::NoSubscriber::new();
        let compared = tracing::subscriber::with_default(silent, || {
            let streams = streams(&sample);
            let old_outcomes = outcomes(&old, &streams, now, &is_dropped)?;
            let new_outcomes = outcomes(&new, &streams, now, &is_dropped)?;
            let by_event = [&old, &new].iter().all(|side| side.script.entry() == Entry::HandleEvent);
            let names = streams.iter().map(|stream| (stream.tranche, stream.name));
            Some(Comparison::new(&sample, names, old_outcomes, new_outcomes, by_event))
        });
        // The receiver is gone if the comparison was dropped.
        drop(reply.send(compared));
    };
    let thread = std::thread::Builder::new().name("compare".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(run).context("start a thread for the comparison")?;
    result.await.ok().flatten().context("the comparison ended without a result")
}

/// Sets a flag when the comparison is dropped. Its thread ends after the running call.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The events of a stream, in read order.
struct Stream<'a> {
    /// `None`: the name alone identifies the stream.
    tranche: Option<&'a TrancheId>,
    name: &'a str,
    events: Vec<&'a Event>,
}

impl Stream<'_> {
    /// Returns the events that a handler is offered.
    fn offered(&self, side: &Side) -> Vec<Event> {
        self.events.iter().filter(|event| side.takes(event)).map(|event| (*event).clone()).collect()
    }
}

/// Groups events by their streams, in the order of the first ones.
fn streams(sample: &Sample) -> Vec<Stream<'_>> {
    let mut places: HashMap<(Option<&TrancheId>, &str), usize> = HashMap::new();
    let mut streams: Vec<Stream<'_>> = Vec::new();
    for (tranche, event) in &sample.events {
        let tranche = sample.indexes.identify_by_tranche().then_some(tranche);
        let place = *places.entry((tranche, event.stream())).or_insert(streams.len());
        if place == streams.len() {
            streams.push(Stream { tranche, name: event.stream(), events: Vec::new() });
        }
        streams[place].events.push(event);
    }
    streams
}

/// Offers the events of all streams to a handler. `None`: the comparison was dropped.
fn outcomes(side: &Side, streams: &[Stream<'_>], now: OffsetDateTime, is_dropped: &AtomicBool) -> Option<Vec<Outcome>> {
    let mut handler = side.script.apart(now).factory().make();
    let mut outcomes = Vec::with_capacity(streams.len());
    for group in streams.chunks(side.streams_per_call) {
        let mut queues: Vec<_> = group.iter().map(|stream| Queue::new(stream.offered(side), side.max_events)).collect();
        while queues.iter().any(Queue::is_open) {
            if is_dropped.load(Ordering::Relaxed) {
                return None;
            }
            call(&mut *handler, &mut queues);
        }
        outcomes.extend(queues.into_iter().map(Queue::into_outcome));
    }
    Some(outcomes)
}

/// Makes one call over the open streams. A stream whose last call failed is called alone, so that the failure is its own.
fn call(handler: &mut dyn BlockingHandler, queues: &mut [Queue]) {
    let alone = queues.iter().position(|queue| queue.is_open() && queue.is_alone());
    let called: Vec<_> = match alone {
        Some(place) => vec![place],
        None => (0..queues.len()).filter(|&place| queues[place].is_open()).collect(),
    };
    let mut works: Vec<Work> = called.iter().map(|&place| queues[place].offer()).collect();
    let mut decisions = Decisions::new();
    handler.handle(&mut works, &mut decisions);
    let mut decisions = decisions.into_iter();
    for (&place, work) in called.iter().zip(&works) {
        let silent = || Err(HandlerError::new(HandlerErrorKind::Permanent, "the script decided nothing"));
        queues[place].take(&work.events, decisions.next().unwrap_or_else(silent));
    }
}

#[cfg(test)]
mod tests;
