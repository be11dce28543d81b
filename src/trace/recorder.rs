//! The recorder, which takes the spans that have ended.

use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::{Propagation, Span};
use crate::clock::{Clock, Timestamp, wall};

/// Takes spans and never waits. Clones are handles on the same queue.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    clock: Clock,
    sample: f64,
    queue: mpsc::Sender<Span>,
    on_drop: Box<dyn Fn() + Send + Sync>,
}

impl Recorder {
    /// Creates a recorder. `sample` is the sampling ratio of work that carries no trace. `clock` times the spans.
    /// `on_drop` is called for each span that finds no room in the queue.
    pub fn new(
        clock: Clock,
        sample: f64,
        queue: mpsc::Sender<Span>,
        on_drop: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { clock, sample, queue, on_drop: Box::new(on_drop) }))
    }

    /// Returns whether to record: work that carries a trace follows its sender's decision, other work is sampled.
    pub fn samples(&self, propagation: Option<&Propagation>) -> bool {
        match propagation {
            Some(propagation) => propagation.context.is_sampled(),
            None => fastrand::f64() < self.0.sample,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Returns the times of day of moments, by the time of day now.
    pub(super) fn walls<const N: usize>(&self, moments: [Timestamp; N]) -> [OffsetDateTime; N] {
        let (now, time) = (self.now(), wall());
        moments.map(|at| time - now.since(at))
    }

    pub(super) fn record(&self, span: Span) {
        if self.0.queue.try_send(span).is_err() {
            (self.0.on_drop)();
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("sample", &self.0.sample).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::clock::Period;
    use crate::trace::{Context, Kind, Open, Parent, Traced};

    fn recorder(sample: f64, room: usize) -> (Recorder, mpsc::Receiver<Span>, Arc<AtomicU64>) {
        let (queue, spans) = mpsc::channel(room);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        let on_drop = move || _ = count.fetch_add(1, Ordering::Relaxed);
        (Recorder::new(Clock::start(), sample, queue, on_drop), spans, dropped)
    }

    fn propagation(flags: &str) -> Propagation {
        let context = Context::parse(&format!("00-{:032x}-{:016x}-{flags}", 7, 9)).unwrap();
        Propagation { context, state: Some("a=1".into()) }
    }

    #[tokio::test(start_paused = true)]
    async fn spans_join_the_carried_trace_as_parents_and_children() {
        let (recorder, mut spans, _) = recorder(0.0, 9);
        let began = recorder.now();
        tokio::time::advance(Duration::from_secs(9)).await;
        let mut traced = Traced::new(Open::root(&recorder, Some(propagation("01")), Kind::Consumer, began));
        traced.enter(began + Duration::from_secs(1));
        let request = traced.current().child(Kind::Client, began + Duration::from_secs(2));
        request.end("request", began + Duration::from_secs(3));
        let period = Period { began: began + Duration::from_secs(1), ended: began + Duration::from_secs(4) };
        traced.leave("write", period, Some(("timeout", "too slow")));
        traced.call().set("n", 3);
        traced.end("call", began + Duration::from_secs(5));
        let [request, write, call] = std::array::from_fn(|_| spans.try_recv().unwrap());
        let below = |parent: &Span| Some(Parent { span_id: parent.context.span_id, is_remote: false });
        assert_eq!((request.parent, write.parent), (below(&write), below(&call)));
        assert_eq!(call.parent, Some(Parent { span_id: 9, is_remote: true }));
        assert!(
            [&request, &write, &call]
                .iter()
                .all(|span| span.context.trace_id == 7 && span.state.as_deref() == Some("a=1"))
        );
        assert_eq!((write.failed.as_deref(), &write.attributes[0].1), (Some("too slow"), &"timeout".into()));
        assert_eq!((call.failed, call.attributes), (None, vec![("n", 3.into())]));
        let took = |span: &Span| (span.ended - span.began).whole_milliseconds();
        assert_eq!((took(&request), took(&write)), (1_000, 3_000));
    }

    #[test]
    fn a_carried_trace_follows_its_sender_and_other_work_is_sampled() {
        let decisions = |sample| {
            let (recorder, ..) = recorder(sample, 1);
            [Some(propagation("01")), Some(propagation("00")), None]
                .map(|propagation| recorder.samples(propagation.as_ref()))
        };
        assert_eq!(decisions(0.0), [true, false, false]);
        assert_eq!(decisions(1.0), [true, false, true]);
    }

    #[test]
    fn a_span_without_room_in_the_queue_is_dropped_and_counted() {
        let (recorder, spans, dropped) = recorder(1.0, 2);
        let record = || Open::root(&recorder, None, Kind::Internal, recorder.now()).end_now("call");
        (0..5).for_each(|_| record());
        assert_eq!((spans.len(), dropped.load(Ordering::Relaxed)), (2, 3));
        drop(spans);
        record();
        assert_eq!(dropped.load(Ordering::Relaxed), 4);
    }
}
