//! Logs the statistics of all pipelines at intervals. A pipeline that hangs does not delay the lines of the others.

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

/// The statistics of every pipeline, in the order of the registry.
pub(super) struct StatsLog {
    api: Arc<Api>,
    state: Mutex<State>,
}

struct State {
    pipelines: Vec<Stats>,
    /// An interval has passed. Before that, the summary of a short job is enough.
    began: bool,
}

impl StatsLog {
    pub(super) fn new(api: Arc<Api>) -> Self {
        let pipelines = api.registry.pipelines().iter().map(|pipeline| Stats::new(reading(pipeline, None))).collect();
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
            for (index, (pipeline, view)) in pipelines.iter().zip(views).enumerate() {
                self.log(index, pipeline, view);
            }
        }
    }

    /// Logs the statistics since the latest interval, before the daemon ends.
    pub(super) fn finish(&self) {
        if !self.state().began {
            return;
        }
        for (index, pipeline) in self.api.registry.pipelines().iter().enumerate() {
            self.log(index, pipeline, pipeline.handle.last_view());
        }
    }

    fn log(&self, index: usize, pipeline: &Registered, view: Option<View>) {
        let reading = reading(pipeline, view);
        pipeline_span(&pipeline.name).in_scope(|| self.state().pipelines[index].log(reading));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reading(pipeline: &Registered, view: Option<View>) -> Reading {
    Reading {
        at: pipeline.handle.clock().now(),
        totals: pipeline.gauges.totals(),
        standing: pipeline.handle.standing(),
        view,
    }
}
