//! The metric families: names, help texts, labels and buckets.

use prometheus::core::Collector;
use prometheus::{Counter, Gauge, Histogram, IntCounter, Registry};

use super::family::{AnyFamily, Family};
use super::process::Process;
use super::series::{Age, Description, Reading, Series, StateGauge, WallAge};
use super::summary::{CoarseSummary, Summary};
use crate::clock::Clock;

/// Upper bounds of handler latencies: one millisecond, doubled 15 times.
const HANDLER_SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384, 32.768];

/// Upper bounds of feed latencies.
const FEED_SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];

/// Upper bounds of the time an event spends in each stage: a tenth of a millisecond, quadrupled 10 times.
const STAGE_SECONDS: &[f64] =
    &[0.0001, 0.0004, 0.0016, 0.0064, 0.0256, 0.1024, 0.4096, 1.6384, 6.5536, 26.2144, 104.8576];

/// The families with series per pipeline or tranche.
pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) scheduler: Scheduler,
    pub(super) feed: Feed,
    pub(super) checkpoint: Checkpoint,
    pub(super) pipeline: Pipeline,
    pub(super) spans: Spans,
    pub(super) reloads: Reloads,
    all: Vec<Box<dyn AnyFamily>>,
}

/// The families of exported traces.
pub(super) struct Spans {
    pub(super) exported: Family<IntCounter>,
    pub(super) dropped: Family<IntCounter>,
}

/// The families of reloads.
pub(super) struct Reloads {
    pub(super) reloads: Family<IntCounter>,
    pub(super) refused: Family<Gauge>,
}

/// Propulsion's scheduler metrics.
pub(super) struct Scheduler {
    pub(super) categories: Family<StateGauge>,
    pub(super) streams: Family<StateGauge>,
    pub(super) events: Family<StateGauge>,
    pub(super) bytes: Family<StateGauge>,
    pub(super) busy_count: Family<StateGauge>,
    pub(super) busy_seconds: Family<StateGauge>,
    pub(super) cpu: Family<Counter>,
    pub(super) handler: Family<Histogram>,
    pub(super) handler_summary: Family<Summary>,
}

/// Propulsion's feed metrics, and ours about reading.
pub(super) struct Feed {
    pub(super) read: Family<Histogram>,
    pub(super) read_summary: Family<CoarseSummary>,
    pub(super) ingest: Family<Histogram>,
    pub(super) ingest_summary: Family<CoarseSummary>,
    pub(super) position: Family<Reading>,
    pub(super) queue: Family<Gauge>,
    pub(super) pages: Family<IntCounter>,
    pub(super) items: Family<IntCounter>,
    pub(super) lag: Family<Reading>,
    pub(super) lag_valid: Family<Gauge>,
    pub(super) event_age: Family<WallAge>,
    pub(super) failures: Family<IntCounter>,
    pub(super) read_age: Family<Age>,
    pub(super) ahead_events: Family<Gauge>,
    pub(super) ahead_bytes: Family<Gauge>,
}

/// The families of positions and commits.
pub(super) struct Checkpoint {
    pub(super) age: Family<Age>,
    pub(super) commits: Family<IntCounter>,
    pub(super) failures: Family<IntCounter>,
    pub(super) gap_events: Family<Gauge>,
    pub(super) blocked: Family<Age>,
    pub(super) exposure: Family<Gauge>,
    pub(super) set_bytes: Family<Gauge>,
}

/// The families with one series per pipeline.
pub(super) struct Pipeline {
    pub(super) state: Family<StateGauge>,
    pub(super) config_hash: Family<Gauge>,
    pub(super) restarts: Family<IntCounter>,
    pub(super) stage: Family<Histogram>,
    pub(super) handled: Family<IntCounter>,
    pub(super) late: Family<IntCounter>,
    pub(super) duplicates: Family<IntCounter>,
    pub(super) skipped: Family<IntCounter>,
    pub(super) parked: Family<Gauge>,
    pub(super) parked_bytes: Family<Gauge>,
    pub(super) retried: Family<IntCounter>,
    pub(super) malformed: Family<IntCounter>,
    pub(super) throttled: Family<IntCounter>,
    pub(super) unavailable: Family<IntCounter>,
    pub(super) breaker_open: Family<Gauge>,
    pub(super) script: Family<IntCounter>,
    pub(super) replaced_threads: Family<IntCounter>,
}

const PIPELINE: &[&str] = &["pipeline"];
const TRANCHE: &[&str] = &["pipeline", "tranche"];
const GROUP_STATE: &[&str] = &["pipeline", "group", "state"];
const GROUP_KIND: &[&str] = &["pipeline", "group", "kind"];
const FEED: &[&str] = &["pipeline", "source", "tranche"];

impl Families {
    /// Creates all families, and a registry that also holds the metrics of the process and the build.
    pub(super) fn register(clock: Clock) -> Self {
        let mut maker = Maker { registry: Registry::new(), clock, all: Vec::new() };
        let (scheduler, feed) = (Scheduler::make(&mut maker), Feed::make(&mut maker));
        let (checkpoint, pipeline) = (Checkpoint::make(&mut maker), Pipeline::make(&mut maker));
        let spans = Spans {
            exported: maker.make("propulsiond_spans_exported_total", "Spans that a collector accepted", &[]),
            dropped: maker.make(
                "propulsiond_spans_dropped_total",
                "Spans lost because the queue was full or the collector rejected them",
                &[],
            ),
        };
        let reloads = Reloads {
            reloads: maker.make(
                "propulsiond_reloads_total",
                "Reloads of the pipeline files, by whether every change took effect",
                &["outcome"],
            ),
            refused: maker.make("propulsiond_refused_files", "Pipeline files that the latest reload refused", &[]),
        };
        let build: Family<Gauge> = maker.make("propulsiond_build_info", "Version of this program", &["version"]);
        build.get(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        maker.register(Process::new());
        let Maker { registry, all, .. } = maker;
        Self { registry, scheduler, feed, checkpoint, pipeline, spans, reloads, all }
    }

    /// Removes the series with these label values from every family that has the labels.
    pub(super) fn remove(&self, labels: &[(&str, &str)]) {
        self.all.iter().for_each(|family| family.remove(labels));
    }
}

struct Maker {
    registry: Registry,
    clock: Clock,
    all: Vec<Box<dyn AnyFamily>>,
}

impl Maker {
    fn make<S: Series>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Family<S> {
        self.make_with_buckets(name, help, labels, &[])
    }

    fn make_with_buckets<S: Series>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        buckets: &'static [f64],
    ) -> Family<S> {
        let family = Family::new(Description { name, help, labels, buckets }, self.clock);
        self.register(family.clone());
        self.all.push(Box::new(family.clone()));
        family
    }

    fn register(&self, collector: impl Collector + 'static) {
        self.registry.register(Box::new(collector)).expect("names are constants, and a test registers all of them");
    }
}

impl Scheduler {
    fn make(maker: &mut Maker) -> Self {
        let latency = "Propulsion Scheduler Handler action latency";
        Self {
            categories: maker.make("propulsion_scheduler_cats", "Propulsion Scheduler Current categories", GROUP_STATE),
            streams: maker.make("propulsion_scheduler_streams", "Propulsion Scheduler Current streams", GROUP_STATE),
            events: maker.make("propulsion_scheduler_events", "Propulsion Scheduler Current events", GROUP_STATE),
            bytes: maker.make("propulsion_scheduler_bytes", "Propulsion Scheduler Current bytes", GROUP_STATE),
            busy_count: maker.make(
                "propulsion_scheduler_busy_count",
                "Propulsion Scheduler Current Busy Streams count",
                GROUP_STATE,
            ),
            busy_seconds: maker.make(
                "propulsion_scheduler_busy_seconds",
                "Propulsion Scheduler Busy Streams age, seconds",
                &["pipeline", "kind", "group", "state"],
            ),
            cpu: maker.make(
                "propulsion_scheduler_cpu",
                "Propulsion Scheduler Processing Time Breakdown",
                &["pipeline", "group", "activity"],
            ),
            handler: maker.make_with_buckets(
                "propulsion_scheduler_handler_seconds",
                latency,
                GROUP_KIND,
                HANDLER_SECONDS,
            ),
            handler_summary: maker.make("propulsion_scheduler_handler_summary_seconds", latency, GROUP_KIND),
        }
    }
}

impl Feed {
    fn make(maker: &mut Maker) -> Self {
        let (read, ingest) = ("Propulsion Feed: Source Read latency", "Propulsion Feed: Source Ingest latency");
        Self {
            read: maker.make_with_buckets("propulsion_feed_read_seconds", read, FEED, FEED_SECONDS),
            read_summary: maker.make("propulsion_feed_read_summary_seconds", read, FEED),
            ingest: maker.make_with_buckets("propulsion_feed_ingest_seconds", ingest, FEED, FEED_SECONDS),
            ingest_summary: maker.make("propulsion_feed_ingest_summary_seconds", ingest, FEED),
            position: maker.make(
                "propulsion_feed_position_token",
                "Propulsion Feed: Source Feed Token of most recent Page observed",
                FEED,
            ),
            queue: maker.make("propulsion_feed_ingest_queue", "Propulsion Feed: Source Ingest queue length", FEED),
            pages: maker.make("propulsion_feed_pages_total", "Propulsion Feed: Source Observed page count", FEED),
            items: maker.make("propulsion_feed_items_total", "Propulsion Feed: Source Observed item count", FEED),
            lag: maker.make(
                "propulsiond_lag",
                "Backlog of a tranche, in the unit of its source, if known",
                &["pipeline", "tranche", "unit"],
            ),
            lag_valid: maker.make("propulsiond_lag_valid", "1 if the lag is known, else 0", TRANCHE),
            event_age: maker.make(
                "propulsiond_event_age_seconds",
                "Age of the newest event read, by its own timestamp",
                TRANCHE,
            ),
            failures: maker.make("propulsiond_read_failures_total", "Reads that failed", TRANCHE),
            read_age: maker.make(
                "propulsiond_read_age_seconds",
                "Time since the last successful read, with or without events; 0 at the end of a finite tranche",
                TRANCHE,
            ),
            ahead_events: maker.make(
                "propulsiond_ahead_events",
                "Events read after the position, handled or unhandled",
                TRANCHE,
            ),
            ahead_bytes: maker.make("propulsiond_ahead_bytes", "Bytes of the unhandled events in memory", TRANCHE),
        }
    }
}

impl Checkpoint {
    fn make(maker: &mut Maker) -> Self {
        Self {
            age: maker.make(
                "propulsiond_checkpoint_age_seconds",
                "Age of the oldest uncommitted progress; 0 if all is committed",
                TRANCHE,
            ),
            commits: maker.make("propulsiond_checkpoint_commits_total", "Commits of progress", TRANCHE),
            failures: maker.make("propulsiond_checkpoint_failures_total", "Commits of progress that failed", TRANCHE),
            gap_events: maker.make(
                "propulsiond_checkpoint_gap_events",
                "Handled events after the unhandled event that holds back the position",
                TRANCHE,
            ),
            blocked: maker.make(
                "propulsiond_checkpoint_blocked_seconds",
                "Time since the event that holds back the position was read; 0 if there is none",
                TRANCHE,
            ),
            exposure: maker.make(
                "propulsiond_replay_exposure_events",
                "Handled events that a crash now would replay",
                TRANCHE,
            ),
            set_bytes: maker.make(
                "propulsiond_set_bytes",
                "Encoded size of the committed set of events handled after the position",
                TRANCHE,
            ),
        }
    }
}

impl Pipeline {
    fn make(maker: &mut Maker) -> Self {
        Self {
            state: maker.make(
                "propulsiond_pipeline_state",
                "1 for the current state of a pipeline, 0 for its former ones",
                &["pipeline", "state"],
            ),
            config_hash: maker.make(
                "propulsiond_config_hash",
                "Hash of the files of a pipeline",
                &["pipeline", "hash"],
            ),
            restarts: maker.make("propulsiond_restarts_total", "Restarts after a failure", PIPELINE),
            stage: maker.make_with_buckets(
                "propulsiond_stage_seconds",
                "Time spent in each stage: read, queue, handle, commit",
                &["pipeline", "stage"],
                STAGE_SECONDS,
            ),
            handled: maker.make("propulsiond_handled_events_total", "Events handled", PIPELINE),
            late: maker.make(
                "propulsiond_late_events_total",
                "Events that arrived below their stream's write position and were offered",
                PIPELINE,
            ),
            duplicates: maker.make("propulsiond_duplicates_total", "Redelivered events that were dropped", PIPELINE),
            skipped: maker.make("propulsiond_skipped_total", "Failed events that were skipped", PIPELINE),
            parked: maker.make("propulsiond_parked_events", "Events in the parked store", PIPELINE),
            parked_bytes: maker.make("propulsiond_parked_bytes", "Bytes of the events in the parked store", PIPELINE),
            retried: maker.make(
                "propulsiond_retried_events_total",
                "Parked events that were handled after a retry",
                PIPELINE,
            ),
            malformed: maker.make(
                "propulsiond_malformed_total",
                "Events that their source or handler could not decode",
                PIPELINE,
            ),
            throttled: maker.make("propulsiond_throttled_total", "Calls that were throttled", PIPELINE),
            unavailable: maker.make(
                "propulsiond_unavailable_total",
                "Calls whose sink or store was unavailable",
                PIPELINE,
            ),
            breaker_open: maker.make(
                "propulsiond_breaker_open",
                "1 while the circuit breaker is open, else 0",
                PIPELINE,
            ),
            script: maker.make("propulsiond_script_total", "What a script counts", &["pipeline", "name"]),
            replaced_threads: maker.make(
                "propulsiond_replaced_threads_total",
                "Script threads replaced because they hung",
                PIPELINE,
            ),
        }
    }
}
