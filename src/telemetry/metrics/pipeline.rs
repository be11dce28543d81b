//! The metrics of one pipeline.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{Counter, Gauge, Histogram, IntCounter};

use super::families::Families;
use super::family::AnyFamily;
use super::local::{Activity, LocalMetrics, Stage};
use super::series::StateGauge;
use super::streams::Streams;
use super::summary::Latency;
use super::totals::{KindTotals, Totals};
use super::tranche::TrancheMetrics;
use crate::position::TrancheId;
use crate::scheduler::Snapshot;
use crate::telemetry::health::State;

/// The maximum number of result kinds, and of a script's counters. Further ones count as [`OTHER`].
const MOST_KINDS: usize = 32;
const MOST_NAMES: usize = 100;
const OTHER: &str = "other";

/// The metrics of one pipeline. Clones share them.
#[derive(Clone)]
pub struct PipelineMetrics {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    group: Arc<str>,
    families: Arc<Families>,
    streams: Streams,
    cpu: [Counter; Activity::ALL.len()],
    stages: [Histogram; Stage::ALL.len()],
    states: [StateGauge; State::ALL.len()],
    counters: Counters,
    kinds: Mutex<BTreeSet<Arc<str>>>,
    tranches: Mutex<BTreeMap<TrancheId, TrancheMetrics>>,
    script: Mutex<HashMap<String, IntCounter>>,
    /// The late events and duplicates in the snapshot that was shown last.
    shown: Mutex<(u64, u64)>,
}

struct Counters {
    restarts: IntCounter,
    handled: IntCounter,
    late: IntCounter,
    duplicates: IntCounter,
    skipped: IntCounter,
    parked: Gauge,
    parked_bytes: Gauge,
    retried: IntCounter,
    malformed: IntCounter,
    throttled: IntCounter,
    unavailable: IntCounter,
    breaker_open: Gauge,
    replaced_threads: IntCounter,
}

impl PipelineMetrics {
    pub(super) fn new(families: &Arc<Families>, name: &str, group: &str) -> Self {
        let of = &families.pipeline;
        let counters = Counters {
            restarts: of.restarts.get(&[name]),
            handled: of.handled.get(&[name]),
            late: of.late.get(&[name]),
            duplicates: of.duplicates.get(&[name]),
            skipped: of.skipped.get(&[name]),
            parked: of.parked.get(&[name]),
            parked_bytes: of.parked_bytes.get(&[name]),
            retried: of.retried.get(&[name]),
            malformed: of.malformed.get(&[name]),
            throttled: of.throttled.get(&[name]),
            unavailable: of.unavailable.get(&[name]),
            breaker_open: of.breaker_open.get(&[name]),
            replaced_threads: of.replaced_threads.get(&[name]),
        };
        let cpu = &families.scheduler.cpu;
        let shared = Shared {
            name: name.into(),
            group: group.into(),
            families: Arc::clone(families),
            streams: Streams::new(&families.scheduler, name, group),
            cpu: Activity::ALL.map(|activity| cpu.get(&[name, group, activity.as_str()])),
            stages: Stage::ALL.map(|stage| of.stage.get(&[name, stage.as_str()])),
            states: State::ALL.map(|state| of.state.get(&[name, state.as_str()])),
            counters,
            kinds: Mutex::default(),
            tranches: Mutex::default(),
            script: Mutex::default(),
            shown: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn group(&self) -> &str {
        &self.shared.group
    }

    /// Returns the metrics of one tranche. `source_id` is the source's name in checkpoints.
    pub fn tranche(&self, source_id: &str, tranche: &TrancheId) -> TrancheMetrics {
        let metrics = TrancheMetrics::new(&self.shared.families, &self.shared.name, source_id, tranche);
        lock(&self.shared.tranches).insert(tranche.clone(), metrics.clone());
        metrics
    }

    /// Removes all series of a tranche. The pipeline must not read the tranche any more.
    pub fn remove_tranche(&self, tranche: &TrancheId) {
        lock(&self.shared.tranches).remove(tranche);
        self.shared.families.remove(&[("pipeline", &self.shared.name), ("tranche", tranche.as_str())]);
    }

    /// Returns the counts so far.
    pub fn totals(&self) -> Totals {
        let (counters, families) = (&self.shared.counters, &self.shared.families.scheduler);
        let kind = |kind: &Arc<str>| {
            let labels = [&*self.shared.name, &*self.shared.group, &**kind];
            let calls = families.handler.get(&labels).get_sample_count();
            KindTotals { kind: Arc::clone(kind), calls, recent: families.handler_summary.get(&labels).describe() }
        };
        let mut calls: Vec<_> = lock(&self.shared.kinds).iter().map(kind).collect();
        calls.sort_by_key(|total| *total.kind != *super::OK);
        Totals {
            events: counters.handled.get(),
            skipped: counters.skipped.get(),
            restarts: counters.restarts.get(),
            calls,
            loop_seconds: Activity::ALL.map(|activity| (activity, self.shared.cpu[activity as usize].get())).into(),
            tranches: lock(&self.shared.tranches).iter().map(|(id, metrics)| (id.clone(), metrics.totals())).collect(),
        }
    }

    /// Returns a collector for one driver's single calls.
    pub fn local(&self) -> LocalMetrics {
        LocalMetrics::new(self.clone())
    }

    /// Shows a snapshot of the scheduler. An empty one shows that there is no scheduler.
    pub fn show(&self, snapshot: &Snapshot) {
        self.shared.streams.show(snapshot);
        let mut shown = lock(&self.shared.shown);
        // A new scheduler counts from 0.
        let since = |now: u64, before: u64| if now >= before { now - before } else { now };
        self.shared.counters.late.inc_by(since(snapshot.late_events, shown.0));
        self.shared.counters.duplicates.inc_by(since(snapshot.duplicates, shown.1));
        *shown = (snapshot.late_events, snapshot.duplicates);
    }

    pub fn state(&self, current: State) {
        for state in State::ALL {
            self.shared.states[state as usize].set(if state == current { 1.0 } else { 0.0 });
        }
    }

    /// Sets the hash of the pipeline's files.
    pub fn config_hash(&self, hash: &str) {
        let (name, family) = (&*self.shared.name, &self.shared.families.pipeline.config_hash);
        family.remove(&[("pipeline", name)]);
        family.get(&[name, hash]).set(1.0);
    }

    /// Records the time that an event, or the oldest of a run, spent in a stage.
    pub fn spent(&self, stage: Stage, took: Duration) {
        self.shared.stages[stage as usize].observe(took.as_secs_f64());
    }

    pub fn restarted(&self) {
        self.shared.counters.restarts.inc();
    }

    pub fn skipped(&self, events: usize) {
        self.shared.counters.skipped.inc_by(events as u64);
    }

    /// Sets the number of events in the parked store, and their size.
    pub fn parked(&self, events: u64, bytes: u64) {
        self.shared.counters.parked.set(events as f64);
        self.shared.counters.parked_bytes.set(bytes as f64);
    }

    /// Counts parked events that were handled after a retry.
    pub fn retried(&self, events: u64) {
        self.shared.counters.retried.inc_by(events);
    }

    pub fn malformed(&self) {
        self.shared.counters.malformed.inc();
    }

    pub fn throttled(&self) {
        self.shared.counters.throttled.inc();
    }

    pub fn unavailable(&self) {
        self.shared.counters.unavailable.inc();
    }

    pub fn breaker(&self, open: bool) {
        self.shared.counters.breaker_open.set(if open { 1.0 } else { 0.0 });
    }

    pub fn thread_replaced(&self) {
        self.shared.counters.replaced_threads.inc();
    }

    /// Counts `by` in a script's own counter. A counter beyond the limit of names counts as `other`.
    pub fn script(&self, name: &str, by: u64) {
        let mut known = lock(&self.shared.script);
        let name = if known.contains_key(name) || known.len() < MOST_NAMES { name } else { OTHER };
        if let Some(counter) = known.get(name) {
            counter.inc_by(by);
            return;
        }
        let counter = self.shared.families.pipeline.script.get(&[&self.shared.name, name]);
        counter.inc_by(by);
        known.insert(name.to_owned(), counter);
    }

    /// Returns the latency of a result kind, and the name that it counts under.
    pub(super) fn handler_latency(&self, kind: &str) -> (Arc<str>, Latency) {
        let mut kinds = lock(&self.shared.kinds);
        let kind: Arc<str> = match kinds.get(kind) {
            Some(known) => Arc::clone(known),
            None if kinds.len() < MOST_KINDS => kind.into(),
            None => OTHER.into(),
        };
        if kinds.len() < MOST_KINDS {
            kinds.insert(Arc::clone(&kind));
        }
        drop(kinds);
        let (of, labels) = (&self.shared.families.scheduler, [&*self.shared.name, &*self.shared.group, &*kind]);
        let latency = Latency { histogram: of.handler.get(&labels), summary: of.handler_summary.get(&labels) };
        (kind, latency)
    }

    pub(super) fn stage_histogram(&self, stage: Stage) -> &Histogram {
        &self.shared.stages[stage as usize]
    }

    pub(super) fn add_cpu(&self, activity: Activity, took: Duration) {
        self.shared.cpu[activity as usize].inc_by(took.as_secs_f64());
    }

    pub(super) fn add_events(&self, events: u64) {
        self.shared.counters.handled.inc_by(events);
    }
}

impl fmt::Debug for PipelineMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PipelineMetrics").field(&self.shared.name).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
