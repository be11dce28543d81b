//! A pipeline from its start to its end: its parts are built anew for each run, and a run that fails is followed by another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::driver::Driver;
use super::observe::Observer;
use super::questions::{CONNECTING, Listener};
use super::{Assemble, Identity, OUTAGE, Options, Parts};
use crate::runtime::retry::rounded;
use crate::runtime::supervise::{Group, Restarts, panic_message, pipeline_span};
use crate::telemetry::health::State;

/// How a pipeline ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything there was is handled.
    Finished,
    /// It was told to.
    Stopped,
    /// Its error policy says so; it stays stopped until a person acts.
    Halted(String),
    /// Another process owns its progress.
    Fenced(String),
    /// Something broke; it starts over.
    Failed(String),
    /// It was to stop, and this still ran when its time was up.
    DeadlinePassed(Vec<String>),
}

/// A pipeline, to be run.
pub struct Pipeline {
    pub identity: Identity,
    pub options: Options,
    pub assemble: Arc<dyn Assemble>,
    pub observer: Observer,
}

/// A run of this length makes the next failure the first of its row.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(60);

impl Pipeline {
    /// Runs until it finishes, halts, is fenced or is stopped; starts over when it fails.
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
            let ended = match catch_unwind(AssertUnwindSafe(|| self.assemble.assemble())) {
                Ok(Ok(parts)) => self.run_once(parts, listener, daemon, &stop, &mut random).await,
                Ok(Err(error)) => Ended::Failed(format!("{error:#}")),
                Err(panic) => Ended::Failed(format!("the start panicked: {}", panic_message(&*panic))),
            };
            let Ended::Failed(why) = ended else {
                listener.shared().end(&ended);
                return ended;
            };
            let now = clock.now();
            let delay = restarts.failed(started, now, &mut random);
            self.observer.restarted();
            listener.shared().restarts(restarts.in_a_row(started, now));
            tracing::error!(error = %why, retry_in = ?rounded(delay), "pipeline failed, it will start over");
            listener.shared().enter(State::Restarting, &why);
            if !listener.wait(delay, &stop).await {
                listener.shared().end(&Ended::Stopped);
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
    ) -> Ended {
        let group = daemon.pipeline(&self.identity.name);
        let mut driver = Driver::new(self, parts, listener, &group, random.fork());
        // A panic ends this run only: the daemon and the other pipelines go on (S14).
        let ended = match AssertUnwindSafe(driver.run(listener, stop)).catch_unwind().await {
            Ok(ended) => ended,
            Err(panic) => Ended::Failed(format!("the driver panicked: {}", panic_message(&*panic))),
        };
        drop(driver);
        // Its time is up already: what still runs is given up, not waited for once more.
        let within = if matches!(ended, Ended::DeadlinePassed(_)) { Duration::ZERO } else { self.options.drain };
        match group.join(within).await {
            Ok(()) => ended,
            Err(_) if matches!(ended, Ended::DeadlinePassed(_)) => ended,
            Err(still) if matches!(ended, Ended::Failed(_)) => {
                tracing::warn!(tasks = ?still, "tasks of the failed pipeline still run");
                ended
            }
            Err(still) => Ended::DeadlinePassed(still.names),
        }
    }
}
