//! One running pipeline: a source read tranche by tranche, a scheduler, a handler, a sink, and the progress.
//!
//! A pipeline is a driver task that owns the scheduler and everything that changes, and tasks around it that
//! wait for what the driver never waits for: readers, handlers, sinks, the checkpoint store. They talk to it through
//! one channel; what it sends out never blocks (C25). [`Pipeline::run`] builds the parts, drives them, and starts over with
//! a growing delay when they fail (R36).
//!
//! All of it logs in the pipeline's span. A line about one tranche names it: by the span of the task that deals with that
//! tranche alone, or by a field where the driver speaks.

mod commit;
mod deliver;
mod dispatch;
mod driver;
mod ending;
mod gate;
mod intake;
mod life;
mod parking;
mod policy;
mod questions;
mod reader;
mod traces;
mod transaction;
mod tranches;
mod watch;
mod workers;

pub mod observe;
pub mod stats;

use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::{CheckpointStore, Owner};
use crate::config::filter::Filter;
use crate::handler::AnyHandler;
use crate::scheduler::Order;
use crate::sink::AnySink;
use crate::source::Source;

pub use life::{Ended, Pipeline};
pub use policy::{ErrorPolicy, Then};
pub use questions::{Handle, Listener, Standing, TrancheView, View};

/// Who a pipeline is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: Arc<str>,
    /// The consumer group.
    pub group: Arc<str>,
    /// The origin of the events, as checkpoints are kept under.
    pub source: Arc<str>,
    pub owner: Owner,
}

/// What a pipeline is made of. Built anew at each start.
pub struct Parts {
    pub source: Arc<dyn Source>,
    /// `None`: the sink holds the progress.
    pub checkpoints: Option<Arc<dyn CheckpointStore>>,
    pub handler: Option<AnyHandler>,
    pub sink: AnySink,
    pub filter: Arc<Filter>,
}

/// Builds the parts of a pipeline.
pub trait Assemble: Send + Sync {
    /// # Errors
    /// Says what is missing or wrong; the pipeline fails with it and tries again later.
    fn assemble(&self) -> anyhow::Result<Parts>;
}

/// When a pipeline ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Never,
    /// Once everything that exists is handled.
    Tail,
    After(Duration),
}

/// The numbers of a pipeline.
#[derive(Clone, Debug)]
pub struct Options {
    pub order: Order,
    pub require_all: bool,
    pub streams_per_call: usize,
    /// Calls that are being decided (or, where the sink writes them one by one, written) at the same time.
    pub concurrency: usize,
    /// Batches held unhandled, for each tranche.
    pub read_ahead: usize,
    /// Bytes of events held unhandled, for each tranche.
    pub read_ahead_bytes: usize,
    /// Events between the position and the newest one read, for each tranche.
    pub max_ahead_events: u64,
    pub max_events: usize,
    pub max_bytes: usize,
    pub commit_interval: Duration,
    /// How often idle streams are forgotten.
    pub purge: Option<Duration>,
    /// Keep (stream, next index) beside the progress, as the feed may repeat events (C13).
    pub write_positions: bool,
    pub errors: ErrorPolicy,
    pub handler_timeout: Duration,
    /// Threads for a blocking handler.
    pub threads: usize,
    pub stop: Stop,
    /// How long a stop may take.
    pub drain: Duration,
    /// Decides the jitter of delays, and how names are hashed.
    pub seed: u64,
}

/// How long delays around failing back ends (reads, claims, commits, restarts) grow.
const OUTAGE: crate::runtime::retry::Backoff =
    crate::runtime::retry::Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(30) };
