//! Invariants that only a whole run shows: claims, parking, clocks and pauses.

use super::*;
use crate::checkpoint::Parked;
use crate::event::Indexes;

#[tokio::test(start_paused = true)]
async fn c21_streams_that_were_parked_earlier_stay_parked_after_a_start() {
    let rig = Rig::new(Stop::Tail);
    let store = rig.store.clone();
    let fence = store.claim_all(&[key()], &Owner("earlier".into())).await.pop().unwrap().unwrap().fence;
    let (parked, first) = (store.parked().unwrap(), event(0));
    let append = Parked { event: &first, from: first.at(), why: "no such customer" };
    parked.append(&key(), fence, &[append]).await.unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let parts = rig.parts(AtOnce(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        NextIndex::All
    }));
    assert_eq!(rig.run_once(parts).await, Ended::Finished);
    assert_eq!(calls.load(Ordering::Relaxed), 0, "no event of the stream is offered");
    assert_eq!(parked.read(&key(), "a-1").await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_paused_pipeline_offers_nothing_until_it_resumes() {
    let rig = Rig::new(Stop::Tail);
    let (arrived, released): (Arc<Notify>, Arc<Notify>) = Default::default();
    rig.feed.push(&tranche(), vec![event_of("b-1", 2, 0)]);
    let (store, handle) = (rig.store.clone(), rig.handle.clone());
    let rig = Rig { options: Options { read_ahead: 2, ..rig.options.clone() }, ..rig };
    let parts = rig.parts(Waits { arrived: Arc::clone(&arrived), released: Arc::clone(&released) });
    let operator = async {
        arrived.notified().await;
        handle.pause().await;
        released.notify_one();
        // The call that was in flight ends. The other stream is ready.
        let quiet = tokio::time::timeout(Duration::from_secs(60), arrived.notified()).await;
        assert!(quiet.is_err(), "a call began while the pipeline was paused");
        assert_eq!(store.sink().effects().len(), 1);
        handle.resume().await;
        arrived.notified().await;
        released.notify_one();
    };
    let (ended, ()) = tokio::join!(rig.run_once(parts), operator);
    assert_eq!(ended, Ended::Finished);
}

/// A handler that holds the stream `a-1` until it is released.
struct HoldsFirst(Arc<Notify>);

impl Handler for HoldsFirst {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        async move {
            if call.streams[0].stream() == "a-1" {
                self.0.notified().await;
            }
            call.streams.iter().map(|_| Ok(Decision::handled())).collect()
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn c1_no_set_is_stored_for_a_source_without_ordinals() {
    for ordinals in [false, true] {
        let rig = Rig::new(Stop::Tail);
        let feed = MemoryFeed::new(Contract { ordinals, indexes: Indexes::Dense, repeats: false });
        feed.add(&tranche());
        feed.push(&tranche(), vec![event(0), event_of("b-1", 1, 0)]);
        let (store, released) = (rig.store.clone(), Arc::new(Notify::new()));
        let rig = Rig { feed, options: Options { concurrency: 2, ..rig.options.clone() }, ..rig };
        let look = async {
            // The second event is handled, and several commits are due.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let stored = store.load(&key()).await.unwrap();
            assert_eq!(stored.is_some_and(|progress| !progress.handled.is_empty()), ordinals);
            released.notify_one();
        };
        let parts = rig.parts(HoldsFirst(Arc::clone(&released)));
        let (ended, ()) = tokio::join!(rig.run_once(parts), look);
        assert_eq!(ended, Ended::Finished);
        assert!(store.load(&key()).await.unwrap().is_some_and(|progress| progress.position.is_some()));
    }
}

/// A handler that emits one effect for each span.
struct Emits;

impl Handler for Emits {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        let decide = |_| Ok(Decision { effects: vec![Value::from("done")].into(), ..Decision::handled() });
        std::future::ready(call.streams.iter().map(decide).collect()).boxed()
    }
}

/// A sink that takes a second for each write.
struct Slow;

#[async_trait]
impl Sink for Slow {
    fn max_batch(&self) -> usize {
        1
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        decided.iter().map(|_| Ok(Written::All)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn c20_a_decision_that_queues_behind_other_writes_is_not_stuck() {
    let mut rig = Rig::new(Stop::Tail);
    // The last of these waits far longer than the limit.
    rig.feed.push(&tranche(), (0..20).map(|number| event_of(&format!("b-{number}"), 2 + number, 0)).collect());
    rig.options.errors = ErrorPolicy { then: Then::Halt, stuck_after: Duration::from_secs(5), ..rig.options.errors };
    rig.options.read_ahead = 2;
    rig.options.concurrency = 30;
    let parts = Parts { sink: AnySink::Plain(Arc::new(Slow)), ..rig.parts(Emits) };
    assert_eq!(rig.run_once(parts).await, Ended::Finished);
}
