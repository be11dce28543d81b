//! Restarts of a pipeline that fails to start, in paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use propulsiond::checkpoint::Owner;
use propulsiond::clock::Clock;
use propulsiond::config::filter::Filter;
use propulsiond::connector::memory::source::MemoryFeed;
use propulsiond::connector::memory::store::MemoryCheckpoints;
use propulsiond::connector::null::NullSink;
use propulsiond::pipeline::counts::Observer;
use propulsiond::pipeline::{
    Assemble, Ended, ErrorPolicy, Handle, Identity, Options, ParkLimits, Parts, Pipeline, Stop, Then,
};
use propulsiond::runtime::retry::Backoff;
use propulsiond::runtime::supervise::Group;
use propulsiond::scheduler::Order;
use propulsiond::sink::AnySink;
use propulsiond::telemetry::health::State;
use propulsiond::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

/// Parts whose first builds fail.
struct Failing {
    left: AtomicU32,
    feed: MemoryFeed,
}

impl Assemble for Failing {
    fn assemble(&self) -> anyhow::Result<Parts> {
        let one_less = |left: u32| left.checked_sub(1);
        let failed = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        anyhow::ensure!(!failed, "out of luck");
        Ok(Parts {
            source: Arc::new(self.feed.source()),
            checkpoints: Arc::new(MemoryCheckpoints::default()),
            handler: None,
            sink: AnySink::Plain(Arc::new(NullSink)),
            filter: Arc::new(Filter::default()),
            version: "none".into(),
        })
    }
}

pub(crate) fn options() -> Options {
    Options {
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
        errors: ErrorPolicy {
            backoff: Backoff { initial: Duration::from_millis(10), max: Duration::from_secs(1) },
            attempts: Some(3),
            then: Then::Halt,
            stuck_after: Duration::from_secs(60),
            outage: Default::default(),
            parked: ParkLimits { events: 1_000_000, bytes: 1 << 30 },
        },
        handler_timeout: Duration::from_secs(30),
        threads: 1,
        stop: Stop::Never,
        drain: Duration::from_secs(30),
        seed: 7,
    }
}

fn pipeline(failures: u32) -> Pipeline {
    let name: Arc<str> = "p".into();
    let metrics = Metrics::new(Clock::start()).pipeline(&name, &name);
    Pipeline {
        identity: Identity {
            name: Arc::clone(&name),
            group: Arc::clone(&name),
            source: Arc::clone(&name),
            owner: Owner(Arc::clone(&name)),
        },
        options: options(),
        assemble: Arc::new(Failing { left: AtomicU32::new(failures), feed: MemoryFeed::dense() }),
        observer: Observer::new(metrics, name),
    }
}

#[tokio::test(start_paused = true)]
async fn r36_failures_are_counted_with_their_reason_and_forgotten_once_it_has_run_well() {
    let (handle, listener) = Handle::new(Clock::start());
    let (stop, daemon) = (CancellationToken::new(), Group::daemon());
    let running = pipeline(5).run(listener, &daemon, stop.clone());
    let watching = async {
        let standing = handle.reaches(|state| state == State::Restarting).await;
        assert_eq!((standing.reason.as_str(), standing.restarts), ("out of luck", 1));
        let standing = handle.reaches(|state| state == State::Running).await;
        assert_eq!(standing.restarts, 5, "it may fail again at once");
        let began = handle.clock().now();
        while handle.standing().restarts > 0 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(handle.view().await.is_some());
            assert!(handle.clock().now().since(began) < Duration::from_secs(90));
        }
        assert!(handle.clock().now().since(began) >= Duration::from_secs(59));
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(running, watching);
    assert_eq!(ended, Ended::Stopped);
}
