//! The life of a pipeline: a run, and after a failure another one, with parts built anew.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::counts::Observer;
use super::drain::{Ended, HEALTHY_AFTER};
use super::driver::{Driver, Run};
use super::handle::{CONNECTING, Listener};
use super::options::{Assemble, Identity, Options, Parts};
use super::policy::OUTAGE;
use crate::runtime::retry::rounded;
use crate::runtime::supervise::{Group, Restarts, panic_message, pipeline_span};
use crate::telemetry::health::State;

/// A pipeline, to be run.
pub struct Pipeline {
    pub identity: Identity,
    pub options: Options,
    pub assemble: Arc<dyn Assemble>,
    pub observer: Observer,
}

impl Pipeline {
    /// Runs until the pipeline finishes, halts, is fenced or is stopped. Restarts after a failure.
    ///
    /// `stop` asks it to drain. Commands come from the [`Handle`](super::Handle) that belongs to `listener`.
    pub async fn run(self, mut listener: Listener, daemon: &Group, stop: CancellationToken) -> Ended {
        self.run_again(&mut listener, daemon, stop).await
    }

    /// Like [`run`](Self::run). The keeper of the pipeline can start it again afterwards.
    pub(crate) async fn run_again(&self, listener: &mut Listener, daemon: &Group, stop: CancellationToken) -> Ended {
        let span = pipeline_span(&self.identity.name);
        self.run_until_it_ends(listener, daemon, stop).instrument(span).await
    }

    async fn run_until_it_ends(&self, listener: &mut Listener, daemon: &Group, stop: CancellationToken) -> Ended {
        let mut random = fastrand::Rng::with_seed(self.options.seed);
        let mut restarts = Restarts::new(OUTAGE, HEALTHY_AFTER);
        let clock = listener.clock();
        loop {
            listener.shared().enter(State::Starting, CONNECTING);
            let started = clock.now();
            let parts = async {
                self.assemble.prepare().await?;
                self.assemble.assemble()
            };
            let (ended, reason) = match AssertUnwindSafe(parts).catch_unwind().await {
                Ok(Ok(parts)) => self.run_once(parts, listener, daemon, &stop, &mut random).await,
                Ok(Err(error)) => failed(format!("{error:#}")),
                Err(panic) => failed(format!("the start panicked: {}", panic_message(&*panic))),
            };
            let Ended::Failed(why) = ended else {
                listener.shared().end(&ended, &reason);
                return ended;
            };
            let now = clock.now();
            let delay = restarts.failed(started, now, &mut random);
            self.observer.restarted();
            listener.shared().restarts(restarts.in_a_row(started, now));
            tracing::error!(error = %why, retry_in = ?rounded(delay), "pipeline failed, restarting");
            listener.shared().enter(State::Restarting, &why);
            if !listener.wait(delay, &stop).await {
                listener.shared().end(&Ended::Stopped, "told to stop");
                return Ended::Stopped;
            }
        }
    }

    async fn run_once(
        &self,
        parts: Parts,
        listener: &mut Listener,
        daemon: &Group,
        stop: &CancellationToken,
        random: &mut fastrand::Rng,
    ) -> (Ended, String) {
        let group = daemon.pipeline(&self.identity.name);
        let run = Run {
            identity: &self.identity,
            options: &self.options,
            observer: &self.observer,
            listener,
            group: &group,
            random: random.fork(),
            links: self.assemble.links(),
        };
        let mut driver = Driver::new(run, parts);
        // A panic of the driver is a failure of this pipeline alone: the daemon goes on.
        let running = AssertUnwindSafe(driver.run(listener, stop)).catch_unwind().await;
        let (ended, reason) =
            running.unwrap_or_else(|panic| failed(format!("the driver panicked: {}", panic_message(&*panic))));
        drop(driver);
        // After a missed deadline, running tasks are given up, not waited for once more.
        let is_late = matches!(ended, Ended::DeadlinePassed(_));
        let within = if is_late { Duration::ZERO } else { self.options.drain };
        match (group.join(within).await, ended) {
            (Err(still), Ended::Finished | Ended::Stopped) => (Ended::DeadlinePassed(still.names), reason),
            (Err(still), ended) if !is_late => {
                tracing::warn!(tasks = ?still.names, "tasks of the ended pipeline still run");
                (ended, reason)
            }
            (_, ended) => (ended, reason),
        }
    }
}

fn failed(why: String) -> (Ended, String) {
    (Ended::Failed(why.clone()), why)
}
