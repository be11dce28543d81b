//! Logs the stats of all pipelines at intervals, beside them: a pipeline that is stuck does not keep the others' lines.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::http::{Api, Registered};
use crate::pipeline::View;
use crate::pipeline::stats::{Reading, Stats};
use crate::runtime::supervise::pipeline_span;

/// The stats of every pipeline, in the order of the API's list.
pub(super) struct StatsLog {
    api: Arc<Api>,
    state: Mutex<State>,
}

struct State {
    pipelines: Vec<Stats>,
    /// An interval has passed: a short job's summary says all that stats would.
    began: bool,
}

impl StatsLog {
    pub(super) fn new(api: Arc<Api>) -> Self {
        let pipelines = api.pipelines.iter().map(|pipeline| Stats::new(reading(pipeline, None))).collect();
        Self { api, state: Mutex::new(State { pipelines, began: false }) }
    }

    /// Logs at each interval until told to stop.
    pub(super) async fn log_until(&self, every: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is at once.
        ticks.tick().await;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.state().began = true;
            for (index, pipeline) in self.api.pipelines.iter().enumerate() {
                let view = pipeline.handle.view().await;
                self.log(index, pipeline, view);
            }
        }
    }

    /// Logs what happened since the last interval: before the daemon ends.
    pub(super) fn finish(&self) {
        if !self.state().began {
            return;
        }
        for (index, pipeline) in self.api.pipelines.iter().enumerate() {
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
