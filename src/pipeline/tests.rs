//! Whole runs of a pipeline on memory connectors, in paused time.

mod after;
mod invariants;
mod parking;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::counts::Observer;
use super::*;
use crate::checkpoint::{CheckpointKey, CheckpointStore, Owner};
use crate::clock::Clock;
use crate::config::filter::Filter;
use crate::connector::memory::source::{MemoryFeed, MemorySource};
use crate::connector::memory::store::{Fault, MemoryCheckpoints, Operation};
use crate::effect::Value;
use crate::event::{Assembler, Event, Kind};
use crate::handler::{AnyHandler, Call, Decision, Decisions, Handler, HandlerError, HandlerErrorKind, NextIndex};
use crate::position::{Ahead, Ordinal, StartAt, TrancheId};
use crate::runtime::retry::Backoff;
use crate::runtime::supervise::Group;
use crate::scheduler::Order;
use crate::sink::{AnySink, Decided, Sink, Transaction, TransactionalSink, Written};
use crate::source::{Changes, Contract, Left, Source, SourceError, TrancheReader};
use crate::telemetry::health::State;
use crate::telemetry::metrics::Metrics;

/// A feed of one tranche, and a store. Pipelines over them are built by [`Rig::run`].
struct Rig {
    feed: MemoryFeed,
    store: MemoryCheckpoints,
    options: Options,
    handle: Handle,
    listener: Listener,
    stop: CancellationToken,
}

fn tranche() -> TrancheId {
    TrancheId::new("0")
}

fn key() -> CheckpointKey {
    CheckpointKey { group: "p".into(), source: "p".into(), tranche: tranche() }
}

fn event(index: i64) -> Event {
    event_of("a-1", index.unsigned_abs(), index)
}

fn event_of(stream: &str, at: u64, index: i64) -> Event {
    Assembler::new(stream, "T").build(Kind::Event, Ordinal::new(at, 0), index).unwrap()
}

impl Rig {
    fn new(stop: Stop) -> Self {
        let (handle, listener) = Handle::new(Clock::start());
        let feed = MemoryFeed::dense();
        feed.add(&tranche());
        feed.push(&tranche(), vec![event(0), event(1)]);
        let errors = ErrorPolicy {
            backoff: Backoff { initial: Duration::from_millis(10), max: Duration::from_secs(1) },
            attempts: Some(3),
            then: Then::Skip,
            stuck_after: Duration::from_secs(60),
            outage: OutageRule::default(),
            parked: ParkLimits { events: 1_000, bytes: 1 << 20 },
        };
        let options = Options {
            order: Order::Stream,
            require_all: false,
            streams_per_call: 1,
            concurrency: 1,
            read_ahead: 1,
            read_ahead_bytes: 1 << 20,
            max_ahead_events: 100,
            max_events: 10,
            max_bytes: 1 << 20,
            commit_interval: Duration::from_secs(1),
            purge: None,
            write_positions: false,
            errors,
            handler_timeout: Duration::from_secs(3_600),
            threads: 1,
            stop,
            drain: Duration::from_secs(30),
            seed: 7,
        };
        let (store, stop) = (MemoryCheckpoints::default(), CancellationToken::new());
        Self { feed, store, options, handle, listener, stop }
    }

    fn parts(&self, handler: impl Handler + 'static) -> Parts {
        Parts {
            source: Arc::new(self.feed.source()),
            checkpoints: Arc::new(self.store.clone()),
            handler: Some(AnyHandler::Async(Arc::new(handler))),
            sink: AnySink::Plain(Arc::new(self.store.sink())),
            filter: Arc::new(Filter::default()),
            version: "v1".into(),
        }
    }

    /// Runs a pipeline of these parts to its end.
    async fn run(self, assemble: impl Fn() -> Parts + Send + Sync + 'static) -> Ended {
        let name: Arc<str> = "p".into();
        let pipeline = Pipeline {
            identity: Identity {
                name: Arc::clone(&name),
                group: Arc::clone(&name),
                source: Arc::clone(&name),
                owner: Owner(Arc::clone(&name)),
            },
            options: self.options,
            assemble: Arc::new(Assembly(assemble)),
            observer: Observer::new(Metrics::new(self.handle.clock()).pipeline("p", "p"), name),
        };
        pipeline.run(self.listener, &Group::daemon(), self.stop).await
    }

    /// Runs a pipeline that is built once.
    async fn run_once(self, parts: Parts) -> Ended {
        let parts = std::sync::Mutex::new(Some(parts));
        self.run(move || parts.lock().unwrap().take().expect("it is built once")).await
    }
}

struct Assembly<F>(F);

impl<F: Fn() -> Parts + Send + Sync> Assemble for Assembly<F> {
    fn assemble(&self) -> anyhow::Result<Parts> {
        Ok((self.0)())
    }
}

/// A handler that decides at once.
struct AtOnce<F>(F);

impl<F: Fn() -> NextIndex + Send + Sync> Handler for AtOnce<F> {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        let decide = || Ok(Decision { next: (self.0)(), ..Decision::handled() });
        std::future::ready(call.streams.iter().map(|_| decide()).collect()).boxed()
    }
}

/// A handler that waits until it is released, and then emits an effect.
struct Waits {
    arrived: Arc<Notify>,
    released: Arc<Notify>,
}

impl Handler for Waits {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        async move {
            self.arrived.notify_one();
            self.released.notified().await;
            let decide = |_| Ok(Decision { effects: vec![Value::from("done")].into(), ..Decision::handled() });
            call.streams.iter().map(decide).collect()
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn s9_a_stop_is_heard_while_a_handler_defers_at_once() {
    /// Far more calls than the driver makes between two looks for a stop.
    const MANY: u32 = 20_000;
    let rig = Rig::new(Stop::Never);
    let (calls, stop) = (Arc::new(AtomicU32::new(0)), rig.stop.clone());
    let counted = Arc::clone(&calls);
    let parts = rig.parts(AtOnce(move || {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        if number == 10 {
            stop.cancel();
        }
        if number < MANY { NextIndex::Defer(Duration::ZERO) } else { NextIndex::All }
    }));
    assert_eq!(rig.run_once(parts).await, Ended::Stopped);
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls < MANY / 2, "{calls} calls after the stop");
}

/// A sink that no transaction can use before the operator acts.
struct Closed(MemoryCheckpoints);

fn closed() -> HandlerError {
    HandlerError::new(HandlerErrorKind::Unusable, "its output is closed")
}

#[async_trait]
impl Sink for Closed {
    fn max_batch(&self) -> usize {
        10
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        decided.iter().map(|_| Err(closed())).collect()
    }
}

#[async_trait]
impl TransactionalSink for Closed {
    fn checkpoints(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.0.clone())
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, HandlerError> {
        Err(closed())
    }
}

#[tokio::test(start_paused = true)]
async fn s19_a_transactional_sink_that_is_unusable_halts_the_pipeline_and_blames_no_event() {
    let rig = Rig::new(Stop::Tail);
    let (arrived, released, store) = (Arc::default(), Arc::new(Notify::new()), rig.store.clone());
    released.notify_one();
    let sink = AnySink::Transactional(Arc::new(Closed(store.clone())));
    let parts = Parts { sink, ..rig.parts(Waits { arrived, released }) };
    // `then = "skip"` would pass the events.
    assert_eq!(rig.run_once(parts).await, Ended::Halted("its output is closed".to_owned()));
    assert_eq!(store.load(&key()).await.unwrap(), None, "nothing is handled");
}

#[tokio::test(start_paused = true)]
async fn c15_a_job_whose_last_commit_is_fenced_has_not_finished() {
    let rig = Rig::new(Stop::Tail);
    let (store, held) = (rig.store.clone(), Arc::new(Notify::new()));
    let arrived = Arc::clone(&held);
    store.inject(move |operation| {
        matches!(operation, Operation::Commit(_)).then(|| {
            arrived.notify_one();
            Fault::Hold
        })
    });
    let thief = async {
        held.notified().await;
        store.claim_all(&[key()], &Owner("thief".into())).await.pop().unwrap().unwrap();
        store.release_held();
    };
    let parts = rig.parts(AtOnce(|| NextIndex::All));
    let (ended, ()) = tokio::join!(rig.run_once(parts), thief);
    let owner = matches!(&ended, Ended::Fenced(why) if why.contains("thief"));
    assert!(owner, "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn c10_a_drain_hears_of_a_lost_tranche_and_drops_its_decisions() {
    let rig = Rig::new(Stop::Never);
    let (arrived, released): (Arc<Notify>, Arc<Notify>) = Default::default();
    let (feed, store, handle, stop) = (rig.feed.clone(), rig.store.clone(), rig.handle.clone(), rig.stop.clone());
    let parts = rig.parts(Waits { arrived: Arc::clone(&arrived), released: Arc::clone(&released) });
    let meddle = async {
        arrived.notified().await;
        stop.cancel();
        handle.reaches(|state| state == State::Draining).await;
        feed.lose(&tranche());
        // The last view is published while the driver drains.
        while handle.last_view().is_none_or(|view| !view.tranches.is_empty()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        released.notify_one();
    };
    let (ended, ()) = tokio::join!(rig.run_once(parts), meddle);
    assert_eq!(ended, Ended::Stopped);
    assert!(store.sink().effects().is_empty(), "another process handles the event");
}

#[tokio::test(start_paused = true)]
async fn c29_a_drain_releases_a_revoked_tranche_at_its_own_deadline() {
    let rig = Rig::new(Stop::Never);
    let (arrived, released): (Arc<Notify>, Arc<Notify>) = Default::default();
    let (feed, handle, stop) = (rig.feed.clone(), rig.handle.clone(), rig.stop.clone());
    let parts = rig.parts(Waits { arrived: Arc::clone(&arrived), released: Arc::clone(&released) });
    let meddle = async {
        arrived.notified().await;
        stop.cancel();
        handle.reaches(|state| state == State::Draining).await;
        feed.remove(&tranche(), Duration::from_secs(2));
        assert_eq!(feed.left(&tranche()).await, Left::Released);
        handle.clock().now()
    };
    let (ended, left_at) = tokio::join!(rig.run_once(parts), meddle);
    // The call never returns: the drain itself takes its 30 s.
    assert!(matches!(ended, Ended::DeadlinePassed(_)), "{ended:?}");
    assert!(left_at < crate::clock::Timestamp::from_millis(10_000), "{left_at:?}");
}

/// A source whose first opening panics, in the driver.
struct Panics {
    source: MemorySource,
    left: Arc<AtomicU32>,
}

#[async_trait]
impl Source for Panics {
    fn contract(&self) -> Contract {
        self.source.contract()
    }

    async fn watch(&self, changes: &Changes) -> Result<(), SourceError> {
        self.source.watch(changes).await
    }

    fn open(&self, tranche: &TrancheId, from: StartAt, ahead: Option<Ahead>) -> Box<dyn TrancheReader> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            // A panic without a message on the screen.
            std::panic::resume_unwind(Box::new("out of ideas"));
        }
        self.source.open(tranche, from, ahead)
    }

    fn left(&self, tranche: &TrancheId, epoch: u64, how: Left) {
        self.source.left(tranche, epoch, how);
    }
}

#[tokio::test(start_paused = true)]
async fn s14_a_panic_of_the_driver_restarts_its_pipeline_only() {
    let rig = Rig::new(Stop::Tail);
    let (feed, store, handle, left) =
        (rig.feed.clone(), rig.store.clone(), rig.handle.clone(), Arc::new(AtomicU32::new(1)));
    let parts = move |rig: &MemoryFeed| Panics { source: rig.source(), left: Arc::clone(&left) };
    let sink = store.clone();
    let running = rig.run(move || Parts {
        version: "v1".into(),
        source: Arc::new(parts(&feed)),
        checkpoints: Arc::new(sink.clone()),
        handler: None,
        sink: AnySink::Plain(Arc::new(sink.sink())),
        filter: Arc::new(Filter::default()),
    });
    let watching = handle.reaches(|state| state == State::Restarting);
    let (ended, standing) = tokio::join!(running, watching);
    assert_eq!(standing.reason, "the driver panicked: out of ideas");
    assert_eq!(ended, Ended::Finished);
    assert!(store.load(&key()).await.unwrap().is_some_and(|progress| progress.position.is_some()));
}
