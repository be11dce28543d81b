//! Counts of single calls, collected without synchronisation.

use std::sync::Arc;
use std::time::Duration;

use prometheus::local::LocalHistogram;

use super::PipelineMetrics;
use super::summary::LocalLatency;

/// The activities on which a driver spends its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Regrouping events by stream.
    Merge,
    /// Taking batches in.
    Ingest,
    /// Finding work and handing it out.
    Dispatch,
    /// Taking results back.
    Results,
    /// Keeping statistics.
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

/// A stage on an event's way (R79).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Being read, as a page.
    Read,
    /// From having been read to the call.
    Queue,
    /// The call, its effects included.
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

/// The counts of one driver. They become visible when they are flushed; dropping the value flushes them, too.
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
        // A script that makes up tags without end has them counted together, and is found here under that name.
        if let Some(known) = self.kinds.iter().position(|(known, _)| *known == kind) {
            return known;
        }
        self.kinds.push((kind, latency.local()));
        self.kinds.len() - 1
    }

    /// Counts events that are handled.
    pub fn events_handled(&mut self, events: usize) {
        self.events += events as u64;
    }

    /// Takes note of what an event, or the oldest of a run, spent in a stage.
    pub fn spent(&mut self, stage: Stage, took: Duration) {
        self.stages[stage as usize].observe(took.as_secs_f64());
    }

    /// Takes note of the loop's own time.
    pub fn worked(&mut self, activity: Activity, took: Duration) {
        self.cpu[activity as usize] += took;
    }

    /// Makes everything visible.
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
