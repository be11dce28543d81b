//! The definition of a pipeline: its identity, its parts and its numbers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::after::Links;
use super::policy::ErrorPolicy;
use crate::checkpoint::{CheckpointStore, Owner};
use crate::config::filter::Filter;
use crate::handler::AnyHandler;
use crate::scheduler::Order;
use crate::sink::AnySink;
use crate::source::Source;

/// The names of a pipeline.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: Arc<str>,
    /// The consumer group.
    pub group: Arc<str>,
    /// The origin of the events, a part of each checkpoint key.
    pub source: Arc<str>,
    pub owner: Owner,
}

/// The connectors and the handler of one run.
pub struct Parts {
    pub source: Arc<dyn Source>,
    /// The store of the progress. A transactional sink brings its own:
    /// [`checkpoints`](crate::sink::TransactionalSink::checkpoints).
    pub checkpoints: Arc<dyn CheckpointStore>,
    pub handler: Option<AnyHandler>,
    /// The version of the handler, which marks of parked streams carry (C32).
    pub version: Arc<str>,
    pub sink: AnySink,
    pub filter: Arc<Filter>,
}

/// Builds the parts of a pipeline, for each run anew.
#[async_trait]
pub trait Assemble: Send + Sync {
    /// Prepares the files of the pipeline, which no run of this process uses at that time.
    ///
    /// # Errors
    /// The error names the file. The pipeline fails with it and retries later.
    async fn prepare(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// # Errors
    /// The error names the missing or wrong part. The pipeline fails with it and retries later.
    fn assemble(&self) -> anyhow::Result<Parts>;

    /// Returns the place of the pipeline among the others of its process. By default it has none.
    fn links(&self) -> Links {
        Links::default()
    }
}

/// The condition under which a pipeline ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Never,
    /// Every existing event is handled.
    Tail,
    After(Duration),
}

/// The numbers of a pipeline.
#[derive(Clone, Debug)]
pub struct Options {
    pub order: Order,
    pub require_all: bool,
    pub streams_per_call: usize,
    /// Simultaneous calls, including those that wait for a script thread, and writes of a sink that takes one decision each.
    pub concurrency: usize,
    /// Batches with unhandled events, per tranche.
    pub read_ahead: usize,
    /// Bytes of unhandled events, over all tranches. Each tranche may hold one batch regardless.
    pub read_ahead_bytes: usize,
    /// Events between the position and the newest event read, per tranche.
    pub max_ahead_events: u64,
    pub max_events: usize,
    pub max_bytes: usize,
    pub commit_interval: Duration,
    /// The interval at which idle streams are forgotten.
    pub purge: Option<Duration>,
    /// Stores (stream, next index) with the progress, as the feed may repeat events (C13).
    pub write_positions: bool,
    pub errors: ErrorPolicy,
    pub handler_timeout: Duration,
    /// Threads of a blocking handler.
    pub threads: usize,
    pub stop: Stop,
    /// The limit of a drain.
    pub drain: Duration,
    /// The seed of delays and of the hash of names.
    pub seed: u64,
}
