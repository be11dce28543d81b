//! Logs the statistics of all pipelines at intervals. A pipeline that hangs does not delay the lines of the others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::daemon::registry::Registered;
use crate::http::Api;
use crate::pipeline::View;
use crate::pipeline::stats::{Reading, Stats};
use crate::runtime::supervise::pipeline_span;

/// The statistics of every pipeline.
pub(super) struct StatsLog {
    api: Arc<Api>,
    state: Mutex<State>,
}

struct State {
    /// By name. A pipeline that a reload added has its first line an interval later.
    pipelines: BTreeMap<Arc<str>, Stats>,
    /// An interval has passed. Before that, the summary of a short job is enough.
    began: bool,
}

impl StatsLog {
    pub(super) fn new(api: Arc<Api>) -> Self {
        let pipelines = api.registry.pipelines();
        let pipelines =
            pipelines.iter().map(|pipeline| (Arc::clone(&pipeline.name), Stats::new(reading(pipeline, None))));
        let pipelines = pipelines.collect();
        Self { api, state: Mutex::new(State { pipelines, began: false }) }
    }

    /// Logs at each interval until `stop` is cancelled.
    pub(super) async fn log_until(&self, every: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is immediate.
        ticks.tick().await;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.state().began = true;
            // A wedged driver costs a second. All pipelines are asked at once, so several cost no more.
            let pipelines = self.api.registry.pipelines();
            let views = join_all(pipelines.iter().map(|pipeline| pipeline.handle.view())).await;
            pipelines.iter().zip(views).for_each(|(pipeline, view)| self.log(pipeline, view));
            self.state().pipelines.retain(|name, _| pipelines.iter().any(|pipeline| pipeline.name == *name));
        }
    }

    /// Logs the statistics since the latest interval, before the daemon ends.
    pub(super) fn finish(&self) {
        if !self.state().began {
            return;
        }
        self.api.registry.pipelines().iter().for_each(|pipeline| self.log(pipeline, pipeline.handle.last_view()));
    }

    fn log(&self, pipeline: &Registered, view: Option<View>) {
        let reading = reading(pipeline, view);
        let mut state = self.state();
        match state.pipelines.entry(Arc::clone(&pipeline.name)) {
            Entry::Occupied(mut known) => pipeline_span(&pipeline.name).in_scope(|| known.get_mut().log(reading)),
            Entry::Vacant(new) => drop(new.insert(Stats::new(reading))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reading(pipeline: &Registered, view: Option<View>) -> Reading {
    Reading {
        at: pipeline.handle.clock().now(),
        totals: pipeline.defined().gauges.totals(),
        standing: pipeline.handle.standing(),
        view,
    }
}
