//! Counts of single calls, collected without synchronization.

use std::sync::Arc;
use std::time::Duration;

use prometheus::local::LocalHistogram;

use super::PipelineMetrics;
use super::summary::LocalLatency;

/// The activities of a driver's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Regrouping events by stream.
    Merge,
    /// Admitting batches.
    Ingest,
    /// Finding work and dispatching it.
    Dispatch,
    /// Processing results.
    Results,
    /// Maintaining statistics.
    Stats,
}

impl Activity {
    pub(super) const ALL: [Self; 5] = [Self::Merge, Self::Ingest, Self::Dispatch, Self::Results, Self::Stats];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Ingest => "ingest",
            Self::Dispatch => "dispatch",
            Self::Results => "results",
            Self::Stats => "stats",
        }
    }
}

/// A stage of an event's processing (R79).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The read of the event's page.
    Read,
    /// The time between the read and the call.
    Queue,
    /// The call, including the write of its effects.
    Handle,
    /// A commit of progress.
    Commit,
}

impl Stage {
    pub(super) const ALL: [Self; 4] = [Self::Read, Self::Queue, Self::Handle, Self::Commit];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Queue => "queue",
            Self::Handle => "handle",
            Self::Commit => "commit",
        }
    }
}

/// The counts of one driver. A flush or a drop publishes them.
#[derive(Debug)]
pub struct LocalMetrics {
    pipeline: PipelineMetrics,
    kinds: Vec<(Arc<str>, LocalLatency)>,
    stages: [LocalHistogram; Stage::ALL.len()],
    cpu: [Duration; Activity::ALL.len()],
    events: u64,
}

impl LocalMetrics {
    pub(super) fn new(pipeline: PipelineMetrics) -> Self {
        let stages = Stage::ALL.map(|stage| pipeline.stage_histogram(stage).local());
        Self { pipeline, kinds: Vec::new(), stages, cpu: Default::default(), events: 0 }
    }

    /// Counts a result of a kind: [`OK`](super::OK), a decision's tag, or the name of an error's kind.
    pub fn handled(&mut self, kind: &str, took: Duration) {
        // There are few kinds, and nearly all results are of the first.
        let known = self.kinds.iter().position(|(known, _)| **known == *kind);
        let index = known.unwrap_or_else(|| self.add_kind(kind));
        self.kinds[index].1.observe(took);
    }

    fn add_kind(&mut self, kind: &str) -> usize {
        let (kind, latency) = self.pipeline.handler_latency(kind);
        // A script with too many tags has the further ones counted together, under the name in `kind`.
        if let Some(known) = self.kinds.iter().position(|(known, _)| *known == kind) {
            return known;
        }
        self.kinds.push((kind, latency.local()));
        self.kinds.len() - 1
    }

    /// Counts handled events.
    pub fn events_handled(&mut self, events: usize) {
        self.events += events as u64;
    }

    /// Records the time that an event, or the oldest of a run, spent in a stage.
    pub fn spent(&mut self, stage: Stage, took: Duration) {
        self.stages[stage as usize].observe(took.as_secs_f64());
    }

    /// Records the loop's own time.
    pub fn worked(&mut self, activity: Activity, took: Duration) {
        self.cpu[activity as usize] += took;
    }

    /// Publishes all counts.
    pub fn flush(&mut self) {
        self.kinds.iter_mut().for_each(|(_, latency)| latency.flush());
        self.stages.iter().for_each(LocalHistogram::flush);
        for activity in Activity::ALL {
            let took = std::mem::take(&mut self.cpu[activity as usize]);
            if !took.is_zero() {
                self.pipeline.add_cpu(activity, took);
            }
        }
        self.pipeline.add_events(std::mem::take(&mut self.events));
    }
}

impl Drop for LocalMetrics {
    fn drop(&mut self) {
        self.flush();
    }
}
