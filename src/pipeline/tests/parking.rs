//! Parked streams over whole runs: retries, deferrals, and requests of operators.

use std::sync::Mutex;

use time::OffsetDateTime;

use super::*;
use crate::checkpoint::{
    ParkedAction, ParkedJob, ParkedMark, ParkedRequest, ParkedSelection, ParkedState, ParkedStream,
};
use crate::position::Progress;

pub(super) fn mark(why: &str) -> ParkedMark {
    ParkedMark {
        state: ParkedState::Failed,
        class: "permanent".into(),
        why: why.into(),
        index: 0,
        event_type: "T".into(),
        since: OffsetDateTime::UNIX_EPOCH,
        attempts: 1,
        version: "v1".into(),
        due: None,
        job: None,
    }
}

/// A decision of a test's handler about one event.
enum Verdict {
    Handled,
    Permanent,
    Defer(Duration),
}

/// A handler that judges the first event of each call, and emits `stream/index` for each event.
struct Judge<F>(F);

impl<F: Fn(&Event) -> Verdict + Send + Sync + 'static> Handler for Judge<F> {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        let decide = |work: &crate::work::Work| {
            let judged: Vec<_> = work.events.iter().map(|event| (event.index(), (self.0)(event))).collect();
            for (index, verdict) in judged {
                match verdict {
                    Verdict::Handled => {}
                    Verdict::Permanent => {
                        return Err(HandlerError::new(HandlerErrorKind::Permanent, "no such customer").at_index(index));
                    }
                    Verdict::Defer(delay) if index == work.first() => {
                        return Ok(Decision { next: NextIndex::Defer(delay), ..Decision::handled() });
                    }
                    Verdict::Defer(_) => {
                        let effects = effects(work, index);
                        return Ok(Decision { next: NextIndex::Upto(index), effects, tag: None });
                    }
                }
            }
            Ok(Decision { effects: effects(work, i64::MAX), ..Decision::handled() })
        };
        std::future::ready(call.streams.iter().map(decide).collect()).boxed()
    }
}

fn effects(work: &crate::work::Work, below: i64) -> crate::effect::Emitted {
    let events = work.events.iter().filter(|event| event.index() < below);
    let values: Vec<_> = events.map(|event| Value::from(&*format!("{}/{}", event.stream(), event.index()))).collect();
    values.into()
}

impl Rig {
    fn parking(stop: Stop) -> Self {
        let mut rig = Self::new(stop);
        rig.options.errors.then = Then::Park;
        rig.options.read_ahead = 10;
        rig
    }

    /// Returns another run over the same feed and store.
    pub(super) fn again(&self) -> Self {
        let (handle, listener) = Handle::new(Clock::start());
        let (feed, store, options) = (self.feed.clone(), self.store.clone(), self.options.clone());
        Self { feed, store, options, handle, listener, stop: CancellationToken::new() }
    }

    fn written(&self) -> Vec<String> {
        written(&self.store)
    }
}

pub(super) fn written(store: &MemoryCheckpoints) -> Vec<String> {
    let effects = store.sink().effects();
    effects.iter().flat_map(|effect| &effect.emitted).filter_map(Value::as_text).map(str::to_owned).collect()
}

async fn parked(store: &MemoryCheckpoints) -> Vec<ParkedStream> {
    store.parked().unwrap().load(&key()).await.unwrap()
}

async fn request(store: &MemoryCheckpoints, action: ParkedAction, job: &str) -> u64 {
    let request = ParkedRequest { action, job, by: "operator", at: crate::clock::wall() };
    store.parked().unwrap().request("p", "p", &ParkedSelection::default(), &request).await.unwrap()
}

async fn jobs(store: &MemoryCheckpoints) -> Vec<ParkedJob> {
    store.parked().unwrap().jobs("p", "p").await.unwrap()
}

/// Parks the stream `a-1` from its first event on, and handles `b-1`.
async fn park_first(rig: &Rig) {
    rig.feed.push(&tranche(), vec![event_of("b-1", 2, 0)]);
    let run = rig.again();
    let parts =
        run.parts(Judge(|event: &Event| if event.stream() == "a-1" { Verdict::Permanent } else { Verdict::Handled }));
    assert_eq!(run.run_once(parts).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0"]);
    let streams = parked(&rig.store).await;
    let [stream] = &streams[..] else { panic!("one stream is parked: {streams:?}") };
    assert_eq!((&*stream.stream, stream.events, &*stream.mark.why), ("a-1", 2, "no such customer"));
}

#[tokio::test(start_paused = true)]
async fn r39_r40_a_requested_retry_offers_the_parked_events_in_order_and_the_stream_flows_again() {
    let rig = Rig::parking(Stop::Tail);
    park_first(&rig).await;
    assert_eq!(request(&rig.store, ParkedAction::Retry, "job-1").await, 1);
    rig.feed.push(&tranche(), vec![event_of("a-1", 3, 2)]);
    let run = rig.again();
    assert_eq!(run.run_once(rig.parts(Judge(|_: &Event| Verdict::Handled))).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0", "a-1/0", "a-1/1", "a-1/2"]);
    assert_eq!(parked(&rig.store).await, []);
    let [job] = &jobs(&rig.store).await[..] else { panic!("one job is kept") };
    assert_eq!((job.streams, job.left, job.failed), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn r6_a_retry_leaves_the_progress_as_it_is() {
    let rig = Rig::parking(Stop::Tail);
    park_first(&rig).await;
    let before = CheckpointStore::load(&rig.store, &key()).await.unwrap();
    assert!(before.as_ref().is_some_and(|progress: &Progress| progress.handled.is_empty()), "{before:?}");
    request(&rig.store, ParkedAction::Retry, "job-1").await;
    let run = rig.again();
    assert_eq!(run.run_once(rig.parts(Judge(|_: &Event| Verdict::Handled))).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0", "a-1/0", "a-1/1"]);
    assert_eq!(CheckpointStore::load(&rig.store, &key()).await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn r41_a_retry_of_nothing_and_a_repeated_one_are_harmless() {
    let rig = Rig::parking(Stop::Tail);
    assert_eq!(request(&rig.store, ParkedAction::Retry, "job-0").await, 0);
    park_first(&rig).await;
    request(&rig.store, ParkedAction::Retry, "job-1").await;
    request(&rig.store, ParkedAction::Retry, "job-2").await;
    let run = rig.again();
    assert_eq!(run.run_once(rig.parts(Judge(|_: &Event| Verdict::Handled))).await, Ended::Finished);
    assert_eq!(request(&rig.store, ParkedAction::Retry, "job-3").await, 0);
    let run = rig.again();
    assert_eq!(run.run_once(rig.parts(Judge(|_: &Event| Verdict::Handled))).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0", "a-1/0", "a-1/1"]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_fails_stays_parked_from_the_failed_event_and_its_job_says_so() {
    let rig = Rig::parking(Stop::Tail);
    park_first(&rig).await;
    request(&rig.store, ParkedAction::Retry, "job-1").await;
    let run = rig.again();
    let judge = Judge(|event: &Event| if event.index() == 1 { Verdict::Permanent } else { Verdict::Handled });
    assert_eq!(run.run_once(rig.parts(judge)).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0", "a-1/0"]);
    let streams = parked(&rig.store).await;
    assert_eq!((streams[0].events, streams[0].mark.index, streams[0].mark.due), (1, 1, None));
    assert_eq!(streams[0].mark.job.as_deref(), Some("job-1"));
    let [job] = &jobs(&rig.store).await[..] else { panic!("one job is kept") };
    assert_eq!((job.left, job.failed), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn c32_r95_another_version_of_the_handler_retries_parked_streams_first() {
    let rig = Rig::parking(Stop::Tail);
    park_first(&rig).await;
    // The same version leaves them parked.
    let run = rig.again();
    assert_eq!(run.run_once(rig.parts(Judge(|_: &Event| Verdict::Handled))).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0"]);
    let run = rig.again();
    let parts = Parts { version: "v2".into(), ..rig.parts(Judge(|_: &Event| Verdict::Permanent)) };
    assert_eq!(run.run_once(parts).await, Ended::Finished);
    assert_eq!(*parked(&rig.store).await[0].mark.version, *"v2", "a failed retry is of the new version");
    let run = rig.again();
    let parts = Parts { version: "v3".into(), ..rig.parts(Judge(|_: &Event| Verdict::Handled)) };
    assert_eq!(run.run_once(parts).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0", "a-1/0", "a-1/1"]);
}

#[tokio::test(start_paused = true)]
async fn a_swapped_handler_retries_parked_streams_while_the_pipeline_runs() {
    let rig = Rig::parking(Stop::Never);
    let (store, handle, stop, feed) = (rig.store.clone(), rig.handle.clone(), rig.stop.clone(), rig.feed.clone());
    let parts = rig.parts(Judge(|_: &Event| Verdict::Permanent));
    let operator = async {
        wait_for(async || parked(&store).await.first().is_some_and(|stream| stream.events == 2)).await;
        handle.swap(AnyHandler::Async(Arc::new(Judge(|_: &Event| Verdict::Handled))), "v2".into()).await;
        wait_for(async || written(&store).len() == 2).await;
        feed.push(&tranche(), vec![event_of("a-1", 3, 2)]);
        wait_for(async || written(&store).len() == 3).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(rig.run_once(parts), operator);
    assert_eq!(ended, Ended::Stopped);
    assert_eq!(written(&store), ["a-1/0", "a-1/1", "a-1/2"]);
    assert_eq!(parked(&store).await, []);
}

/// Waits for a condition, for at most an hour of paused time.
async fn wait_for(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..36_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the condition never held");
}

type OfEvent = fn(&Event) -> Verdict;

/// A judge whose calls wait until they are let go.
struct Slow {
    arrived: Arc<Notify>,
    released: Arc<Notify>,
    judge: Arc<Judge<OfEvent>>,
}

impl Handler for Slow {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        async move {
            self.arrived.notify_one();
            self.released.notified().await;
            Arc::clone(&self.judge).handle(call).await
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn r39_events_that_arrive_during_a_retry_are_handled_after_the_parked_ones() {
    let rig = Rig::parking(Stop::Tail);
    park_first(&rig).await;
    request(&rig.store, ParkedAction::Retry, "job-1").await;
    let (arrived, released): (Arc<Notify>, Arc<Notify>) = Default::default();
    let (feed, handle) = (rig.feed.clone(), rig.handle.clone());
    let judge = Arc::new(Judge((|_: &Event| Verdict::Handled) as OfEvent));
    let slow = Slow { arrived: Arc::clone(&arrived), released: Arc::clone(&released), judge };
    let (parts, store) = (rig.parts(slow), rig.store.clone());
    let operator = async {
        arrived.notified().await;
        // While the call of the parked events runs, another event of the stream is read.
        feed.push(&tranche(), vec![event_of("a-1", 3, 2)]);
        let is_read = async || {
            let view = handle.view().await;
            view.is_some_and(|view| view.unhandled() == 1)
        };
        wait_for(is_read).await;
        released.notify_one();
        arrived.notified().await;
        released.notify_one();
    };
    let (ended, ()) = tokio::join!(rig.run_once(parts), operator);
    assert_eq!(ended, Ended::Finished);
    assert_eq!(written(&store), ["b-1/0", "a-1/0", "a-1/1", "a-1/2"]);
    assert_eq!(parked(&store).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_discarded_event_is_passed_and_the_others_are_handled() {
    let rig = Rig::parking(Stop::Tail);
    park_first(&rig).await;
    request(&rig.store, ParkedAction::DiscardFirst, "job-1").await;
    let run = rig.again();
    assert_eq!(run.run_once(rig.parts(Judge(|_: &Event| Verdict::Handled))).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0", "a-1/1"]);
    assert_eq!(parked(&rig.store).await, []);
}

#[tokio::test(start_paused = true)]
async fn discarding_all_events_of_a_stream_lets_its_next_one_through() {
    let rig = Rig::parking(Stop::Tail);
    park_first(&rig).await;
    request(&rig.store, ParkedAction::DiscardAll, "job-1").await;
    rig.feed.push(&tranche(), vec![event_of("a-1", 3, 2)]);
    let run = rig.again();
    assert_eq!(run.run_once(rig.parts(Judge(|_: &Event| Verdict::Handled))).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0", "a-1/2"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_parked_store_halts_the_pipeline_and_names_the_limit() {
    let rig = Rig::parking(Stop::Tail);
    park_first(&rig).await;
    let mut run = rig.again();
    run.options.errors.parked.events = 2;
    rig.feed.push(&tranche(), vec![event_of("c-1", 3, 0)]);
    let ended = run.run_once(rig.parts(Judge(|_: &Event| Verdict::Permanent))).await;
    let Ended::Halted(why) = ended else { panic!("{ended:?}") };
    assert!(why.contains("max_parked_events") && why.contains("2 events"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_long_deferral_is_stored_and_ends_at_its_due_time_in_a_later_run() {
    let rig = Rig::parking(Stop::Tail);
    let noon = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let at = |hours: i64| {
        let (handle, listener) = Handle::new(Clock::start_at(noon + time::Duration::hours(hours)));
        Rig { handle, listener, ..rig.again() }
    };
    let once = Arc::new(Mutex::new(true));
    let defers = Arc::clone(&once);
    let judge = Judge(move |event: &Event| match event.index() {
        0 if std::mem::take(&mut *defers.lock().unwrap()) => Verdict::Defer(Duration::from_secs(24 * 3_600)),
        _ => Verdict::Handled,
    });
    rig.feed.push(&tranche(), vec![event_of("b-1", 2, 0)]);
    assert_eq!(at(0).run_once(rig.parts(judge)).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0"], "the progress passes the deferred stream");
    let streams = parked(&rig.store).await;
    assert_eq!((streams[0].events, streams[0].mark.state), (2, ParkedState::Deferred));
    assert_eq!(streams[0].mark.due, Some(noon + time::Duration::hours(24)));
    assert_eq!(at(23).run_once(rig.parts(Judge(|_: &Event| Verdict::Handled))).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0"], "it is not due yet");
    assert_eq!(at(25).run_once(rig.parts(Judge(|_: &Event| Verdict::Handled))).await, Ended::Finished);
    assert_eq!(rig.written(), ["b-1/0", "a-1/0", "a-1/1"]);
    assert_eq!(parked(&rig.store).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_long_deferral_ends_while_the_pipeline_runs() {
    let rig = Rig::parking(Stop::Never);
    let (handle, listener) = Handle::new(Clock::start_at(OffsetDateTime::UNIX_EPOCH));
    let rig = Rig { handle, listener, ..rig };
    let (store, stop, clock) = (rig.store.clone(), rig.stop.clone(), rig.handle.clock());
    let once = Mutex::new(true);
    let judge = Judge(move |_: &Event| match std::mem::take(&mut *once.lock().unwrap()) {
        true => Verdict::Defer(Duration::from_secs(600)),
        false => Verdict::Handled,
    });
    let parts = rig.parts(judge);
    let operator = async {
        wait_for(async || written(&store).len() == 2).await;
        let took = clock.now().since(crate::clock::Timestamp::ZERO);
        assert!((600..602).contains(&took.as_secs()), "{took:?}");
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(rig.run_once(parts), operator);
    assert_eq!(ended, Ended::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_holds_the_progress_writes_a_retry_and_its_removal_together() {
    let rig = Rig::parking(Stop::Tail);
    let transactional =
        |rig: &Rig, judge| Parts { sink: AnySink::Transactional(Arc::new(rig.store.sink())), ..rig.parts(judge) };
    let poison =
        Judge((|event: &Event| if event.index() == 0 { Verdict::Permanent } else { Verdict::Handled }) as OfEvent);
    let run = rig.again();
    assert_eq!(run.run_once(transactional(&rig, poison)).await, Ended::Finished);
    assert_eq!(parked(&rig.store).await[0].events, 2);
    request(&rig.store, ParkedAction::Retry, "job-1").await;
    // The first transaction happens, and its answer is lost: its outcome is looked up (C11).
    let mut lost = true;
    rig.store.inject(move |operation| match operation {
        Operation::Transaction if std::mem::take(&mut lost) => Some(Fault::FailAfterWrite),
        _ => None,
    });
    let well = Judge((|_: &Event| Verdict::Handled) as OfEvent);
    let run = rig.again();
    assert_eq!(run.run_once(transactional(&rig, well)).await, Ended::Finished);
    assert_eq!(rig.written(), ["a-1/0", "a-1/1"], "each event has its effect once");
    assert_eq!(parked(&rig.store).await, []);
}
