//! The metrics of the daemon, for Prometheus.
//!
//! Call sites speak in words of ours: [`Metrics::pipeline`] gives a [`PipelineMetrics`], that a [`TrancheMetrics`] per
//! tranche, and both have resolved their series once. No name and no label is written outside this module, and no stream
//! name is ever a label (R76). What is counted per call goes through a [`LocalMetrics`], which its owner flushes per batch.
//!
//! `propulsion_*` are Propulsion's metrics under their own names, labels and buckets, with the label `pipeline` before
//! them; `propulsiond_*` are new. All are held by `tests/it/metrics.golden` (R71). What an operator asks:
//!
//! | question | answer |
//! |---|---|
//! | does it run? | `propulsiond_pipeline_state`, `propulsiond_restarts_total`, `propulsiond_config_hash` |
//! | how far behind is it? | `propulsiond_lag` where `propulsiond_lag_valid`, `propulsiond_event_age_seconds`, `propulsiond_read_age_seconds` |
//! | how busy is it? | `propulsion_scheduler_*`, `propulsiond_ahead_events`, `propulsiond_stage_seconds`, `propulsiond_handled_events_total` |
//! | what is stuck or failing? | `propulsion_scheduler_busy_*`, `propulsiond_parked_events`, `propulsiond_breaker_open`, `propulsiond_*_total` |
//! | are positions committed? | `propulsiond_checkpoint_*`, `propulsiond_replay_exposure_events` |
//! | do traces arrive? | `propulsiond_spans_exported_total`, `propulsiond_spans_dropped_total`, where they are exported |
//!
//! An age is computed when it is scraped: it grows also if what it is the age of stands still. A value that is not known
//! is not there, rather than 0 (R69).

mod families;
mod family;
mod local;
mod pipeline;
mod process;
mod series;
mod streams;
mod summary;
mod totals;
mod tranche;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::TextEncoder;

use crate::clock::Clock;
use families::Families;

pub use local::{Activity, LocalMetrics, Stage};
pub use pipeline::PipelineMetrics;
pub use summary::Recent;
pub use totals::{KindTotals, Totals, TrancheTotals};
pub use tranche::{PageRead, TrancheMetrics};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The kind that a call counts as if its decision carries no tag.
pub const OK: &str = "ok";

/// All metrics of the process. Clones are handles on the same ones.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

/// The metrics of the export of spans.
#[derive(Clone)]
pub struct SpanMetrics {
    exported: prometheus::IntCounter,
    dropped: prometheus::IntCounter,
}

impl SpanMetrics {
    pub fn exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    /// Counts spans that were lost: no room in the queue, or the collector did not want them.
    pub fn dropped(&self, spans: usize) {
        self.dropped.inc_by(spans as u64);
    }
}

struct Shared {
    families: Arc<Families>,
    pipelines: Mutex<BTreeMap<String, PipelineMetrics>>,
}

impl Metrics {
    /// Ages are by this clock, from which the moments that are passed in must come, too.
    pub fn new(clock: Clock) -> Self {
        let families = Arc::new(Families::register(clock));
        Self { shared: Arc::new(Shared { families, pipelines: Mutex::default() }) }
    }

    /// Returns the metrics of a pipeline: the same ones each time, so that counters outlive its restarts. Under another
    /// group than before they begin anew.
    pub fn pipeline(&self, name: &str, group: &str) -> PipelineMetrics {
        let mut pipelines = self.shared.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pipelines.get(name) {
            if known.group() == group {
                return known.clone();
            }
            self.shared.families.remove(&[("pipeline", name)]);
        }
        let made = PipelineMetrics::new(&self.shared.families, name, group);
        pipelines.insert(name.to_owned(), made.clone());
        made
    }

    /// Returns the metrics of the export of spans.
    pub fn spans(&self) -> SpanMetrics {
        let of = &self.shared.families.spans;
        SpanMetrics { exported: of.exported.get(&[]), dropped: of.dropped.get(&[]) }
    }

    /// Removes everything about a pipeline, once its tasks have ended: what they still held counts for nothing.
    pub fn remove_pipeline(&self, name: &str) {
        let mut pipelines = self.shared.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        pipelines.remove(name);
        self.shared.families.remove(&[("pipeline", name)]);
    }

    /// Returns everything in Prometheus' text format.
    pub fn encode(&self) -> String {
        let gathered = self.shared.families.registry.gather();
        TextEncoder::new().encode_to_string(&gathered).expect("families without series are left out by the registry")
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
