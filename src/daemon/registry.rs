//! The pipelines of this process: the handles that the API, the statistics and the progress display borrow.
//!
//! Each pipeline is kept by a [`Keeper`](super::keeper::Keeper) task. The registry holds that task's address, and how the
//! latest run of each pipeline ended.

use std::sync::Arc;

use tokio::sync::watch;

use super::assembly::Prepared;
use super::keeper::{Keeper, KeeperHandle, Outcome};
use crate::clock::Clock;
use crate::pipeline::{Ended, Handle};
use crate::runtime::supervise::{Group, TaskKind};
use crate::script::ScriptMetrics;
use crate::source::Inbox;
use crate::telemetry::health::Command;
use crate::telemetry::metrics::PipelineMetrics;

/// The name of a pipeline, and the end of its latest run.
pub(crate) type HowEnded = (Arc<str>, Ended);

/// A pipeline, as everything outside its keeper sees it.
pub(crate) struct Registered {
    pub name: Arc<str>,
    pub handle: Handle,
    pub keeper: KeeperHandle,
    /// The inbox for pushed events, if the source has one.
    pub inbox: Option<Arc<dyn Inbox>>,
    pub gauges: PipelineMetrics,
    /// The counters of the script.
    pub script: Option<Arc<ScriptMetrics>>,
}

/// All pipelines of this process, in the order of their files.
pub(crate) struct Registry {
    pipelines: Vec<Registered>,
    outcomes: Vec<watch::Receiver<Option<Ended>>>,
}

impl Registry {
    /// Makes the registry, and the keepers for [`start`].
    pub(crate) fn new(prepared: Vec<Prepared>, clock: Clock) -> (Self, Vec<Keeper>) {
        let (mut pipelines, mut outcomes, mut keepers) = (Vec::new(), Vec::new(), Vec::new());
        for Prepared { pipeline, inbox, gauges, script } in prepared {
            let name = Arc::clone(&pipeline.identity.name);
            let (handle, listener) = Handle::new(clock);
            let (outcome, ended) = Outcome::new();
            let (keeper, own) = Keeper::new(pipeline, handle.clone(), listener, outcome);
            pipelines.push(Registered { name, handle, keeper: own, inbox, gauges, script });
            outcomes.push(ended);
            keepers.push(keeper);
        }
        (Self { pipelines, outcomes }, keepers)
    }

    pub(crate) fn pipelines(&self) -> &[Registered] {
        &self.pipelines
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Registered> {
        self.pipelines.iter().find(|pipeline| &*pipeline.name == name)
    }

    /// Tells every pipeline to stop. Returns once each keeper has taken the command, not once the pipelines have drained.
    pub(crate) async fn stop(&self) {
        futures_util::future::join_all(self.pipelines.iter().map(|pipeline| pipeline.keeper.obey(Command::Stop))).await;
    }

    /// Waits until no pipeline runs; returns how the latest run of each ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn all_ended(&self) -> Vec<HowEnded> {
        loop {
            for outcome in &self.outcomes {
                // A keeper outlives its pipeline's runs. It is gone only if the daemon's group has failed, and then
                // the caller learns of that failure instead.
                if outcome.clone().wait_for(Option::is_some).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            // A pipeline may have been started again while others were waited for.
            let ended: Option<Vec<_>> = self.outcomes.iter().map(|outcome| outcome.borrow().clone()).collect();
            if let Some(ended) = ended {
                return self.pipelines.iter().map(|pipeline| Arc::clone(&pipeline.name)).zip(ended).collect();
            }
        }
    }
}

/// Starts the keepers, each in a task of its own.
pub(crate) fn start(keepers: Vec<Keeper>, group: &Group) {
    for keeper in keepers {
        let daemon = group.clone();
        group.spawn(TaskKind::Keeper, keeper.name(), async move {
            keeper.keep(&daemon).await;
            Ok(())
        });
    }
}
