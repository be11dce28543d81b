//! Invariants that only a whole run shows: claims, parking, clocks and pauses.

use std::collections::HashSet;
use std::sync::Mutex;

use super::parking::mark;
use super::*;
use crate::checkpoint::{CheckpointError, Claimed, Commit, Fence, Listed, LogEntry, Parked};
use crate::clock::Timestamp;
use crate::event::Indexes;
use crate::position::Progress;
use crate::sink::{ParkedChange, TransactionError};

#[tokio::test(start_paused = true)]
async fn c21_streams_that_were_parked_earlier_stay_parked_after_a_start() {
    let rig = Rig::new(Stop::Tail);
    let store = rig.store.clone();
    let fence = store.claim_all(&[key()], &Owner("earlier".into())).await.pop().unwrap().unwrap().fence;
    let (parked, first) = (store.parked().unwrap(), event(0));
    let mark = mark("no such customer");
    let append = Parked { event: &first, from: first.at(), mark: &mark };
    parked.append(&key(), fence, &[append]).await.unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let parts = rig.parts(AtOnce(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        NextIndex::All
    }));
    assert_eq!(rig.run_once(parts).await, Ended::Finished);
    assert_eq!(calls.load(Ordering::Relaxed), 0, "no event of the stream is offered");
    assert_eq!(parked.load(&key()).await.unwrap()[0].events, 2);
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

/// A handler that emits one effect for each span, and counts its calls.
#[derive(Default)]
struct Emits(Arc<AtomicU32>);

impl Handler for Emits {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        self.0.fetch_add(1, Ordering::Relaxed);
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
    let parts = Parts { sink: AnySink::Plain(Arc::new(Slow)), ..rig.parts(Emits::default()) };
    assert_eq!(rig.run_once(parts).await, Ended::Finished);
}

/// The number of looks for a state before a test fails.
const MAX_LOOKS: usize = 1_000;

#[tokio::test(start_paused = true)]
async fn c15_a_fenced_commit_of_an_earlier_claim_does_not_fence_the_new_assignment() {
    for transactional in [false, true] {
        let rig = Rig::new(Stop::Never);
        let (feed, store, handle, stop) = (rig.feed.clone(), rig.store.clone(), rig.handle.clone(), rig.stop.clone());
        let held = Arc::new(Notify::new());
        let (arrived, mut is_first) = (Arc::clone(&held), true);
        store.inject(move |operation| {
            let is_commit = match operation {
                Operation::Transaction => transactional,
                operation => matches!(operation, Operation::Commit(_)),
            };
            (is_commit && std::mem::take(&mut is_first)).then(|| {
                arrived.notify_one();
                Fault::Hold
            })
        });
        let sink = match transactional {
            true => AnySink::Transactional(Arc::new(store.sink())),
            false => AnySink::Plain(Arc::new(store.sink())),
        };
        let parts = Parts { sink, ..rig.parts(AtOnce(|| NextIndex::All)) };
        let others = async {
            held.notified().await;
            // The tranche comes back while the commit under its first claim is in flight.
            feed.lose(&tranche());
            feed.add(&tranche());
            let is_back =
                |view: View| view.tranches.iter().any(|tranche| tranche.phase == "claiming" && tranche.read.is_none());
            while !handle.view().await.is_some_and(is_back) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            store.claim_all(&[key()], &Owner("other".into())).await.pop().unwrap().unwrap();
            store.release_held();
            for _ in 0..MAX_LOOKS {
                if store.owner(&key()).as_deref() == Some("p") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(rig.run_once(parts), others);
        assert_eq!(ended, Ended::Stopped);
    }
}

/// The room for a set in [`Tight`].
const TIGHT: usize = 64;

/// A sink whose store has little room for a set. Notes the size of the largest one.
#[derive(Clone)]
struct Tight {
    store: MemoryCheckpoints,
    largest: Arc<AtomicU32>,
}

#[async_trait]
impl CheckpointStore for Tight {
    fn max_set_bytes(&self) -> Option<usize> {
        Some(TIGHT)
    }

    async fn load(&self, key: &CheckpointKey) -> Result<Option<Progress>, CheckpointError> {
        self.store.load(key).await
    }

    async fn claim_all(&self, keys: &[CheckpointKey], owner: &Owner) -> Vec<Result<Claimed, CheckpointError>> {
        self.store.claim_all(keys, owner).await
    }

    async fn commit(&self, commits: &[Commit<'_>]) -> Vec<Result<(), CheckpointError>> {
        self.store.commit(commits).await
    }

    async fn last_commit(&self, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, CheckpointError> {
        self.store.last_commit(key).await
    }

    async fn release(&self, key: &CheckpointKey, fence: Fence) -> Result<(), CheckpointError> {
        self.store.release(key, fence).await
    }

    async fn list(&self, group: &str, source: &str) -> Result<Vec<Listed>, CheckpointError> {
        self.store.list(group, source).await
    }

    async fn set(&self, key: &CheckpointKey, fence: Fence, progress: Option<&Progress>) -> Result<(), CheckpointError> {
        self.store.set(key, fence, progress).await
    }

    async fn log(&self, key: &CheckpointKey) -> Result<Vec<LogEntry>, CheckpointError> {
        self.store.log(key).await
    }
}

#[async_trait]
impl Sink for Tight {
    fn max_batch(&self) -> usize {
        1_000
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        self.store.sink().write(decided).await
    }
}

#[async_trait]
impl TransactionalSink for Tight {
    fn checkpoints(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.clone())
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, HandlerError> {
        let inner = self.store.sink().begin().await?;
        Ok(Box::new(TightTransaction { inner, largest: Arc::clone(&self.largest) }))
    }
}

struct TightTransaction {
    inner: Box<dyn Transaction>,
    largest: Arc<AtomicU32>,
}

#[async_trait]
impl Transaction for TightTransaction {
    async fn write(&mut self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        self.inner.write(decided).await
    }

    async fn commit(
        self: Box<Self>,
        commits: &[Commit<'_>],
        parked: &[ParkedChange<'_>],
    ) -> Result<(), TransactionError> {
        for handled in commits.iter().map(|commit| &commit.progress.handled).filter(|handled| !handled.is_empty()) {
            self.largest.fetch_max(handled.encode().len() as u32, Ordering::Relaxed);
        }
        self.inner.commit(commits, parked).await
    }
}

#[tokio::test(start_paused = true)]
async fn c14_a_transaction_that_the_sink_accepts_in_part_stores_no_set_beyond_the_limit() {
    const EVENTS: u64 = 40;
    let rig = Rig::new(Stop::Tail);
    let feed = MemoryFeed::dense();
    feed.add(&tranche());
    feed.push(&tranche(), (0..EVENTS).map(|number| event_of(&format!("b-{number}"), number, 0)).collect());
    // Handled together, the events move the position. Without every second one they are 20 runs.
    let mut refused = HashSet::new();
    rig.store.inject(move |operation| match operation {
        Operation::Write(decided) if decided.work.events[0].at().major % 2 == 0 => {
            let is_first = refused.insert(decided.work.events[0].at());
            is_first.then_some(Fault::Refuse(HandlerErrorKind::Transient))
        }
        _ => None,
    });
    let options = Options { concurrency: 100, ..rig.options.clone() };
    let rig = Rig { feed, options, ..rig };
    let sink = Tight { store: rig.store.clone(), largest: Arc::default() };
    let (store, largest, handler) = (rig.store.clone(), Arc::clone(&sink.largest), Emits::default());
    let calls = Arc::clone(&handler.0);
    let parts = Parts {
        checkpoints: Arc::new(sink.clone()),
        sink: AnySink::Transactional(Arc::new(sink)),
        ..rig.parts(handler)
    };
    assert_eq!(rig.run_once(parts).await, Ended::Finished);
    assert_eq!(store.sink().effects().len() as u64, EVENTS, "each event is written once");
    assert_eq!(u64::from(calls.load(Ordering::Relaxed)), EVENTS, "each decision is written as it was decided (C28)");
    let largest = largest.load(Ordering::Relaxed);
    assert!(largest > 0 && largest as usize <= TIGHT, "a set of {largest} bytes");
}

/// A sink that stops before the first event of each decision in its first writes.
#[derive(Clone)]
struct StopsShort {
    store: MemoryCheckpoints,
    clock: Clock,
    /// The times of the writes that stopped.
    stops: Arc<Mutex<Vec<Timestamp>>>,
}

impl StopsShort {
    /// The number of writes that stop. It is finite, so that a pipeline that counts them as progress ends as well.
    const STOPS: usize = 5;

    fn stop(&self, decided: &[Decided]) -> Option<Vec<Result<Written, HandlerError>>> {
        let mut stops = self.stops.lock().unwrap();
        if stops.len() == Self::STOPS {
            return None;
        }
        stops.push(self.clock.now());
        Some(decided.iter().map(|decided| Ok(Written::Upto(decided.work.first()))).collect())
    }
}

#[async_trait]
impl Sink for StopsShort {
    fn max_batch(&self) -> usize {
        1_000
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        match self.stop(decided) {
            Some(stopped) => stopped,
            None => self.store.sink().write(decided).await,
        }
    }
}

#[async_trait]
impl TransactionalSink for StopsShort {
    fn checkpoints(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.store.clone())
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, HandlerError> {
        let inner = self.store.sink().begin().await?;
        Ok(Box::new(StoppingTransaction { inner, sink: self.clone() }))
    }
}

struct StoppingTransaction {
    inner: Box<dyn Transaction>,
    sink: StopsShort,
}

#[async_trait]
impl Transaction for StoppingTransaction {
    async fn write(&mut self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        match self.sink.stop(decided) {
            Some(stopped) => stopped,
            None => self.inner.write(decided).await,
        }
    }

    async fn commit(
        self: Box<Self>,
        commits: &[Commit<'_>],
        parked: &[ParkedChange<'_>],
    ) -> Result<(), TransactionError> {
        self.inner.commit(commits, parked).await
    }
}

/// Runs a pipeline over a sink that stops short, and checks that its writes are repeated after a delay (C20).
async fn check_stops(transactional: bool) {
    let rig = Rig::new(Stop::Tail);
    let sink = StopsShort { store: rig.store.clone(), clock: rig.handle.clock(), stops: Arc::default() };
    let (store, stops) = (rig.store.clone(), Arc::clone(&sink.stops));
    let least = rig.options.errors.backoff.initial / 2;
    let parts = rig.parts(AtOnce(|| NextIndex::All));
    let sink = match transactional {
        true => AnySink::Transactional(Arc::new(sink)),
        false => AnySink::Plain(Arc::new(sink)),
    };
    let parts = Parts { sink, handler: None, ..parts };
    // Events that count as handled too early are never offered again, and the pipeline waits for them.
    let ended = tokio::time::timeout(Duration::from_secs(60), rig.run_once(parts)).await;
    assert_eq!(ended, Ok(Ended::Finished));
    let stops = stops.lock().unwrap();
    assert_eq!(stops.len(), StopsShort::STOPS);
    for pair in stops.windows(2) {
        let delay = pair[1].since(pair[0]);
        assert!(delay >= least, "the write was repeated after {delay:?}");
    }
    let written: Vec<_> = store.sink().effects().into_iter().flat_map(|effect| effect.events).collect();
    assert_eq!(written, [(0, Ordinal::new(0, 0)), (1, Ordinal::new(1, 0))]);
}

#[tokio::test(start_paused = true)]
async fn c9_a_write_that_stops_before_its_first_event_is_no_progress() {
    check_stops(false).await;
}

#[tokio::test(start_paused = true)]
async fn c9_a_transaction_that_stops_before_its_first_event_is_no_progress() {
    check_stops(true).await;
}
