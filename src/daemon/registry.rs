//! The pipelines of this process: the handles that the API, the statistics and the progress display borrow.
//!
//! Each pipeline is kept by a [`Keeper`](super::keeper::Keeper) task. The registry holds that task's address, and how the
//! latest run of each pipeline ended. A reload adds and removes pipelines.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::watch;

use super::assembly::{Assembly, Prepared};
use super::keeper::{Keeper, KeeperHandle, Outcome};
use super::parked::ParkedDesk;
use crate::clock::Clock;
use crate::pipeline::{Ended, Handle};
use crate::runtime::supervise::{Group, TaskKind};
use crate::script::ScriptMetrics;
use crate::source::Inbox;
use crate::spec::Checked;
use crate::telemetry::health::Command;
use crate::telemetry::metrics::PipelineMetrics;

/// The name of a pipeline, and the end of its latest run.
pub(crate) type HowEnded = (Arc<str>, Ended);

/// A pipeline, as everything outside its keeper sees it.
pub(crate) struct Registered {
    pub name: Arc<str>,
    pub handle: Handle,
    pub keeper: KeeperHandle,
    outcome: watch::Receiver<Option<Ended>>,
    defined: RwLock<Arc<Defined>>,
}

/// The parts of a pipeline that its definition makes.
pub(crate) struct Defined {
    pub checked: Checked,
    /// The inbox for pushed events, if the source has one.
    pub inbox: Option<Arc<dyn Inbox>>,
    pub gauges: PipelineMetrics,
    /// The counters of the script.
    pub script: Option<Arc<ScriptMetrics>>,
    pub assembly: Arc<Assembly>,
}

impl Registered {
    /// Returns what the present definition made.
    pub(crate) fn defined(&self) -> Arc<Defined> {
        Arc::clone(&self.defined.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the parked store: that of the present run, else one that is opened for this question. `None`: the store of the
    /// pipeline's progress cannot hold parked events.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) fn parked_desk(&self) -> anyhow::Result<Option<ParkedDesk>> {
        let defined = self.defined();
        let definition = &defined.checked.definition;
        let store = match self.handle.parked_store() {
            Some(store) => Some(store),
            None => defined.assembly.checkpoints()?.parked(),
        };
        Ok(store.map(|store| ParkedDesk::new(store, definition.group(), &definition.source_id())))
    }

    /// Has a running pipeline look for requests in its parked store. Waits for a moment only: a busy pipeline looks later.
    pub(crate) async fn look_at_parked(&self) {
        const WITHIN: Duration = Duration::from_secs(1);
        // Without an answer, the pipeline looks by itself within seconds.
        let _told = tokio::time::timeout(WITHIN, self.handle.look_at_parked()).await;
    }

    pub(crate) fn redefine(&self, defined: Defined) {
        *self.defined.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(defined);
    }
}

/// All pipelines of this process, by name.
#[derive(Default)]
pub(crate) struct Registry {
    pipelines: RwLock<Vec<Arc<Registered>>>,
}

impl Registry {
    /// Adds a pipeline. The keeper is for [`start`].
    pub(crate) fn add(&self, prepared: Prepared, clock: Clock) -> Keeper {
        let Prepared { pipeline, defined } = prepared;
        let name = Arc::clone(&pipeline.identity.name);
        let (handle, listener) = Handle::new(clock);
        defined.assembly.attach(&handle);
        let (outcome, ended) = Outcome::new();
        let (keeper, own) = Keeper::new(pipeline, handle.clone(), listener, outcome);
        let defined = RwLock::new(Arc::new(defined));
        let registered = Registered { name, handle, keeper: own, outcome: ended, defined };
        let mut pipelines = self.pipelines.write().unwrap_or_else(PoisonError::into_inner);
        let at = pipelines.partition_point(|known| known.name < registered.name);
        pipelines.insert(at, Arc::new(registered));
        keeper
    }

    pub(crate) fn remove(&self, name: &str) {
        self.pipelines.write().unwrap_or_else(PoisonError::into_inner).retain(|pipeline| &*pipeline.name != name);
    }

    pub(crate) fn pipelines(&self) -> Vec<Arc<Registered>> {
        self.read().clone()
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Registered>> {
        self.read().iter().find(|pipeline| &*pipeline.name == name).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Arc<Registered>>> {
        self.pipelines.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every pipeline to stop. Returns once each keeper has taken the command, not once the pipelines have drained.
    pub(crate) async fn stop(&self) {
        let pipelines = self.pipelines();
        futures_util::future::join_all(pipelines.iter().map(|pipeline| pipeline.keeper.obey(Command::Stop))).await;
    }

    /// Waits until no pipeline runs; returns how the latest run of each ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn all_ended(&self) -> Vec<HowEnded> {
        loop {
            let pipelines = self.pipelines();
            for pipeline in &pipelines {
                // A keeper outlives its pipeline's runs. It is gone only if the daemon's group has failed, and then
                // the caller learns of that failure instead.
                if pipeline.outcome.clone().wait_for(Option::is_some).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            // A pipeline may have been started again while others were waited for.
            let ended: Option<Vec<_>> = pipelines.iter().map(|pipeline| pipeline.outcome.borrow().clone()).collect();
            if let Some(ended) = ended {
                return pipelines.iter().map(|pipeline| Arc::clone(&pipeline.name)).zip(ended).collect();
            }
        }
    }
}

/// Starts a keeper, in a task of its own.
pub(crate) fn start(keeper: Keeper, group: &Group) {
    let daemon = group.clone();
    group.spawn(TaskKind::Keeper, keeper.name(), async move {
        keeper.keep(&daemon).await;
        Ok(())
    });
}
