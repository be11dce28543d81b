//! A sink whose close never ends: the pipeline stops at its deadline. In paused time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use propulsiond::checkpoint::Owner;
use propulsiond::clock::Clock;
use propulsiond::config::filter::Filter;
use propulsiond::connector::memory::source::MemoryFeed;
use propulsiond::connector::memory::store::MemoryCheckpoints;
use propulsiond::connector::null::NullSink;
use propulsiond::event::{Assembler, Kind};
use propulsiond::handler::HandlerError;
use propulsiond::pipeline::counts::Observer;
use propulsiond::pipeline::{Assemble, Ended, Handle, Identity, Parts, Pipeline};
use propulsiond::position::{Ordinal, TrancheId};
use propulsiond::runtime::supervise::Group;
use propulsiond::sink::{AnySink, Decided, Sink, Written};
use propulsiond::telemetry::health::State;
use propulsiond::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use crate::restarts::options;

struct Fixed {
    feed: MemoryFeed,
    sink: Arc<dyn Sink>,
}

impl Assemble for Fixed {
    fn assemble(&self) -> anyhow::Result<Parts> {
        Ok(Parts {
            source: Arc::new(self.feed.source()),
            checkpoints: Arc::new(MemoryCheckpoints::default()),
            handler: None,
            sink: AnySink::Plain(Arc::clone(&self.sink)),
            filter: Arc::new(Filter::default()),
            version: "none".into(),
        })
    }
}

/// Runs a pipeline over one event until `is_time` returns, then stops it.
async fn run(sink: Arc<dyn Sink>, is_time: impl AsyncFnOnce(&Handle)) -> Ended {
    let (feed, tranche) = (MemoryFeed::dense(), TrancheId::new("0"));
    feed.add(&tranche);
    feed.push(&tranche, vec![Assembler::new("a-1", "A").build(Kind::Event, Ordinal::new(1, 0), 0).unwrap()]);
    let name: Arc<str> = "p".into();
    let metrics = Metrics::new(Clock::start()).pipeline(&name, &name);
    let pipeline = Pipeline {
        identity: Identity {
            name: Arc::clone(&name),
            group: Arc::clone(&name),
            source: Arc::clone(&name),
            owner: Owner(Arc::clone(&name)),
        },
        options: options(),
        assemble: Arc::new(Fixed { feed, sink }),
        observer: Observer::new(metrics, name),
    };
    let (handle, listener) = Handle::new(Clock::start());
    let (stop, daemon) = (CancellationToken::new(), Group::daemon());
    let stopping = async {
        handle.reaches(|state| state == State::Running).await;
        is_time(&handle).await;
        stop.cancel();
    };
    tokio::join!(pipeline.run(listener, &daemon, stop.clone()), stopping).0
}

/// A sink whose connection never closes.
struct NeverCloses;

#[async_trait]
impl Sink for NeverCloses {
    fn max_batch(&self) -> usize {
        1
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        NullSink.write(decided).await
    }

    async fn close(&self) -> Result<(), HandlerError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn s21_a_sink_that_never_closes_is_given_up_at_the_drain_deadline() {
    let is_time = async |handle: &Handle| {
        while handle.view().await.is_none_or(|view| view.tranches.iter().all(|tranche| tranche.report.is_none())) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let ended = run(Arc::new(NeverCloses), is_time).await;
    assert_eq!(ended, Ended::DeadlinePassed(vec!["the close of the sink or the source".to_owned()]));
}
