//! The metrics of the daemon, for Prometheus.
//!
//! [`Metrics::pipeline`] returns the [`PipelineMetrics`] of a pipeline, and that a [`TrancheMetrics`] for each tranche.
//! Both resolve their series once, so that call sites name no metric and no label. A stream name is never a label
//! (R76). A driver counts single calls in a [`LocalMetrics`] and flushes it per batch.
//!
//! `propulsion_*` are Propulsion's metrics under their own names, labels and buckets, with the label `pipeline` before
//! them. `propulsiond_*` are new. `tests/it/metrics.golden` fixes all of them (R71). An operator's questions:
//!
//! | question | answer |
//! |---|---|
//! | does it run? | `propulsiond_pipeline_state`, `propulsiond_restarts_total`, `propulsiond_config_hash` |
//! | how large is the lag? | `propulsiond_lag` where `propulsiond_lag_valid`, `propulsiond_event_age_seconds`,
//! `propulsiond_read_age_seconds` |
//! | how busy is it? | `propulsion_scheduler_*`, `propulsiond_ahead_events`, `propulsiond_stage_seconds`, `propulsiond_handled_events_total` |
//! | what is stuck or failing? | `propulsion_scheduler_busy_*`, `propulsiond_parked_events`, `propulsiond_breaker_open`, `propulsiond_*_total` |
//! | are positions committed? | `propulsiond_checkpoint_*`, `propulsiond_replay_exposure_events` |
//! | do traces arrive? | `propulsiond_spans_exported_total`, `propulsiond_spans_dropped_total`, if spans are exported |
//!
//! A scrape computes each age, so that an age also grows while its pipeline stands still. An unknown value is absent
//! rather than 0 (R69).
//!
//! Counters are present from the start, as `increase()` does not see the step from absent to 1. The other series appear
//! with their first value: a state of streams with its first stream, a latency with its first duration. A latency is
//! absent again while it has had no duration for five minutes.

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

/// The kind of a call whose decision carries no tag.
pub const OK: &str = "ok";

/// All metrics of the process. Clones share them.
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

    /// Counts lost spans: the queue was full, or the collector rejected them.
    pub fn dropped(&self, spans: usize) {
        self.dropped.inc_by(spans as u64);
    }
}

/// The metrics of reloads.
#[derive(Clone)]
pub struct ReloadMetrics {
    applied: prometheus::IntCounter,
    refused: prometheus::IntCounter,
    files: prometheus::Gauge,
}

impl ReloadMetrics {
    /// Counts a reload. `applied`: every change took effect.
    pub fn reloaded(&self, applied: bool) {
        if applied { &self.applied } else { &self.refused }.inc();
    }

    /// Sets the number of files that the latest reload refused.
    pub fn refused(&self, files: usize) {
        self.files.set(files as f64);
    }
}

struct Shared {
    families: Arc<Families>,
    pipelines: Mutex<BTreeMap<String, PipelineMetrics>>,
}

impl Metrics {
    /// Creates all families. `clock` measures the ages, and every timestamp passed in must come from it.
    pub fn new(clock: Clock) -> Self {
        let families = Arc::new(Families::register(clock));
        Self { shared: Arc::new(Shared { families, pipelines: Mutex::default() }) }
    }

    /// Returns the metrics of a pipeline. The same name and group return the same metrics, so that counters outlive a
    /// restart. Another group starts new ones.
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

    /// Returns the metrics of reloads.
    pub fn reloads(&self) -> ReloadMetrics {
        let of = &self.shared.families.reloads;
        let outcome = |name| of.reloads.get(&[name]);
        ReloadMetrics { applied: outcome("applied"), refused: outcome("refused"), files: of.refused.get(&[]) }
    }

    /// Removes all series of a pipeline. Its tasks must have ended: their handles count for nothing afterwards.
    pub fn remove_pipeline(&self, name: &str) {
        let mut pipelines = self.shared.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        pipelines.remove(name);
        self.shared.families.remove(&[("pipeline", name)]);
    }

    /// Returns all metrics in Prometheus' text format.
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
