//! A pipeline whose handler is written in Rust: `cargo run --example rust_handler`.
//!
//! The library crate has what the daemon is made of. Here events are generated, counted by stream, and written nowhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use propulsiond::checkpoint::Owner;
use propulsiond::clock::Clock;
use propulsiond::config::filter::Filter;
use propulsiond::connector::{Context, generate, memory, null};
use propulsiond::handler::{AnyHandler, Call, Decision, Decisions, Handler};
use propulsiond::pipeline::counts::Observer;
use propulsiond::pipeline::{self, Assemble, ErrorPolicy, Identity, Options, ParkLimits, Parts, Pipeline, Stop, Then};
use propulsiond::runtime::retry::Backoff;
use propulsiond::runtime::supervise::Group;
use propulsiond::scheduler::Order;
use propulsiond::sink::AnySink;
use propulsiond::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

/// Counts events. Calls for different streams run at the same time, those for one stream one after the other.
#[derive(Default)]
struct Count {
    events: AtomicU64,
    calls: AtomicU64,
}

impl Handler for Count {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        async move {
            // A handler may wait, for another service for example; other streams go on meanwhile.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.events.fetch_add(call.single().events.len() as u64, Ordering::Relaxed);
            vec![Ok(Decision::handled())]
        }
        .boxed()
    }
}

struct Generated {
    count: Arc<Count>,
    context: Context,
}

impl Assemble for Generated {
    fn assemble(&self) -> anyhow::Result<Parts> {
        let settings =
            generate::Settings { count: Some(20_000), streams: 100.try_into()?, ..generate::Settings::default() };
        Ok(Parts {
            source: Arc::new(generate::source(&settings, &self.context)?),
            checkpoints: Arc::new(memory::store::MemoryCheckpoints::default()),
            handler: Some(AnyHandler::Async(Arc::clone(&self.count) as Arc<dyn Handler>)),
            sink: AnySink::Plain(Arc::new(null::NullSink::new(&null::Settings::default(), &self.context)?)),
            filter: Arc::new(Filter::default()),
            version: "none".into(),
        })
    }
}

#[tokio::main]
async fn main() {
    let count = Arc::new(Count::default());
    let context = Context::new("counting", ".", "data");
    let clock = Clock::start();
    let (_handle, listener) = pipeline::Handle::new(clock);
    let pipeline = Pipeline {
        identity: Identity {
            name: "counting".into(),
            group: "counting".into(),
            source: "generate".into(),
            owner: Owner("example".into()),
        },
        options: options(),
        assemble: Arc::new(Generated { count: Arc::clone(&count), context }),
        observer: Observer::new(Metrics::new(clock).pipeline("counting", "counting"), "generate".into()),
    };
    let ended = pipeline.run(listener, &Group::daemon(), CancellationToken::new()).await;
    let (events, calls) = (count.events.load(Ordering::Relaxed), count.calls.load(Ordering::Relaxed));
    eprintln!(
        "{ended:?}: {events} events in {calls} calls, in {:?}",
        clock.now().since(propulsiond::clock::Timestamp::ZERO)
    );
}

fn options() -> Options {
    Options {
        order: Order::Stream,
        require_all: false,
        streams_per_call: 1,
        concurrency: 64,
        read_ahead: 10,
        read_ahead_bytes: 64 << 20,
        max_ahead_events: 1_000_000,
        max_events: 1_000,
        max_bytes: usize::MAX,
        commit_interval: Duration::from_secs(5),
        purge: None,
        write_positions: false,
        errors: ErrorPolicy {
            backoff: Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(30) },
            attempts: Some(10),
            then: Then::Halt,
            stuck_after: Duration::from_secs(300),
            outage: Default::default(),
            parked: ParkLimits { events: 1_000_000, bytes: 1 << 30 },
        },
        handler_timeout: Duration::from_secs(30),
        threads: 1,
        stop: Stop::Tail,
        drain: Duration::from_secs(25),
        seed: 1,
    }
}
