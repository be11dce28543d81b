//! Hot reload: compares the pipeline files with the running pipelines, and applies the difference (design.md §3.7).
//!
//! A reload is a [`Plan`] with an entry for each pipeline, made from the files alone, and its application through the
//! keepers. A file that fails `check` changes nothing: its running pipeline goes on.

mod carry;
mod first_seen;
mod gate;
mod plan;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::assembly::{self, Prepared, Surroundings};
use super::keeper::{Redefined, Redefinition};
use super::registry::{self, Defined, Registered, Registry};
use crate::clock::Clock;
use crate::config::document::Problem;
use crate::runtime::blocking;
use crate::runtime::supervise::{Group, pipeline_span};
use crate::spec::Checked;
use crate::telemetry::health::{Command, RefusedFile};
use crate::telemetry::metrics::ReloadMetrics;
pub(crate) use first_seen::Seen;
pub(crate) use plan::{Change, Plan};
pub(crate) use watch::watch;

/// Reloads the pipelines of the daemon.
pub(crate) struct Reloader {
    paths: Vec<PathBuf>,
    surroundings: Surroundings,
    registry: Arc<Registry>,
    clock: Clock,
    group: Group,
    metrics: ReloadMetrics,
    /// Held during a reload: two at a time would undo each other's changes.
    turn: tokio::sync::Mutex<Turn>,
    /// Ends the comparisons of the gate when the daemon stops.
    stop: CancellationToken,
    refused: Mutex<Vec<RefusedFile>>,
}

/// The right to reload. A daemon that stops ends it.
#[derive(Debug, Default)]
struct Turn {
    is_over: bool,
}

/// The result of a reload, or of its dry run.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub dry_run: bool,
    /// Every pipeline, by name.
    pub pipelines: Vec<Reloaded>,
    /// The mistakes that belong to no pipeline. If there are any, nothing was changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// The result for one pipeline.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Reloaded {
    pub pipeline: String,
    pub action: Action,
    /// The tables of the file that changed; `script` for the script and its modules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// The event types that the new script names and the old one did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_event_types: Vec<String>,
    /// The handled events of these types, in a dry run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handled_before: Vec<Seen>,
    /// The reason for which a dry run does not know them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_before_unknown: Option<String>,
    /// The reason of a refusal or a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The effect of a reload on a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// The file is new: the pipeline starts.
    Start,
    /// The file is gone: the pipeline drains and ends.
    Stop,
    /// Handler or filter are exchanged while the pipeline runs.
    InPlace,
    /// The pipeline drains, and starts with the new definition.
    Restart,
    /// Nothing changed.
    Keep,
    /// The file is wrong: the running pipeline goes on.
    Refuse,
    /// The old definition did not drain in time, and goes on.
    Failed,
}

impl Report {
    /// Returns whether a file was refused, or a change failed.
    pub(crate) fn has_failures(&self) -> bool {
        let failed = |reloaded: &Reloaded| matches!(reloaded.action, Action::Refuse | Action::Failed);
        !self.problems.is_empty() || self.pipelines.iter().any(failed)
    }
}

impl Reloader {
    pub(crate) fn new(
        paths: Vec<PathBuf>,
        surroundings: Surroundings,
        registry: Arc<Registry>,
        clock: Clock,
        group: Group,
    ) -> Self {
        let metrics = surroundings.metrics.reloads();
        let (turn, stop, refused) = Default::default();
        Self { paths, surroundings, registry, clock, group, metrics, turn, stop, refused }
    }

    /// Compares the files with the running pipelines, and applies the difference unless it is a dry run. Returns once every
    /// change is applied, or has failed.
    pub(crate) async fn reload(&self, dry_run: bool) -> Report {
        let turn = self.turn.lock().await;
        if turn.is_over {
            let problem = Problem::new(&self.paths[0], "the daemon is draining: its files are read at the next start");
            return self.refuse_all(dry_run, &[problem]);
        }
        // A dry run changes nothing: no other reload need wait for its comparisons.
        let _turn = (!dry_run).then_some(turn);
        let plan = match self.plan().await {
            Ok(plan) => plan,
            Err(problems) => return self.refuse_all(dry_run, &problems),
        };
        let mut pipelines = plan.shown();
        if dry_run {
            self.look_back(&plan, &mut pipelines).await;
        }
        if !dry_run {
            for advice in &plan.advice {
                tracing::warn!(help = advice.help.as_deref(), "{advice}");
            }
            *self.refused() = plan.refused();
            for (name, change) in plan.changes {
                let failed = self.apply(&name, change).await.err();
                if let Some(why) = failed
                    && let Some(shown) = pipelines.iter_mut().find(|shown| shown.pipeline == name)
                {
                    (shown.action, shown.why) = (Action::Failed, Some(why));
                }
            }
            self.log(&pipelines);
        }
        let report = Report { dry_run, pipelines, problems: Vec::new() };
        if !dry_run {
            self.count(&report);
        }
        report
    }

    /// Compares the files with the running pipelines. A file whose handler the gate refuses counts as a wrong one.
    ///
    /// # Errors
    /// Mistakes that belong to no single pipeline.
    async fn plan(&self) -> Result<Plan, Vec<Problem>> {
        let running: BTreeMap<_, _> = self
            .registry
            .pipelines()
            .iter()
            .map(|pipeline| (pipeline.name.to_string(), pipeline.defined().checked.clone()))
            .collect();
        let mut gated = BTreeMap::new();
        loop {
            let (old, known) = (running.clone(), gated.clone());
            let (paths, data) = (self.paths.clone(), self.surroundings.data.clone());
            let planned = blocking::start(move || Plan::make(&old, &paths, &data, known)).result().await;
            let plan = planned.map_err(|lost| vec![Problem::new(&self.paths[0], lost.to_string())])??;
            let refused = self.gate(&running, &plan).await;
            if refused.is_empty() {
                return Ok(plan);
            }
            // The present definitions of these pipelines take part in the checks of the others.
            gated.extend(refused);
        }
    }

    /// Finds the handled events of the types that the changed scripts name for the first time.
    async fn look_back(&self, plan: &Plan, pipelines: &mut [Reloaded]) {
        for shown in pipelines.iter_mut().filter(|shown| !shown.new_event_types.is_empty()) {
            let Some(Change::InPlace { new, .. } | Change::Restart { new, .. }) = plan.changes.get(&shown.pipeline)
            else {
                continue;
            };
            let Some(pipeline) = self.registry.find(&shown.pipeline) else { continue };
            let old = pipeline.defined();
            let context = assembly::context(&old.checked, &self.surroundings);
            match first_seen::find(&old.checked, new, &context, &shown.new_event_types).await {
                Ok(seen) => shown.handled_before = seen,
                Err(error) => shown.handled_before_unknown = Some(format!("{error:#}")),
            }
        }
    }

    /// Returns the pipelines whose changed handlers the gate refuses, with the reasons.
    async fn gate(&self, running: &BTreeMap<String, Checked>, plan: &Plan) -> BTreeMap<String, Vec<Problem>> {
        let mut refused = BTreeMap::new();
        for (name, change) in &plan.changes {
            let Some(old) = running.get(name) else { continue };
            let context = assembly::context(old, &self.surroundings);
            let judged = gate::judge(&self.surroundings.reload, old, change, &context, &self.stop);
            if let Err(problems) = judged.instrument(pipeline_span(name)).await {
                refused.insert(name.clone(), problems);
            }
        }
        refused
    }

    /// Reloads without a caller: files changed, or a signal came.
    async fn reload_unasked(&self) {
        if !self.turn.lock().await.is_over {
            self.reload(false).await;
        }
    }

    /// Lets a reload that is under way end, and refuses all later ones.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.turn.lock().await.is_over = true;
    }

    /// Returns the files that the latest reload refused.
    pub(crate) fn refused(&self) -> MutexGuard<'_, Vec<RefusedFile>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves everything as it is, because of mistakes that belong to no single pipeline.
    fn refuse_all(&self, dry_run: bool, problems: &[Problem]) -> Report {
        let kept = self.registry.pipelines();
        let pipelines = kept.iter().map(|pipeline| Reloaded::new(&pipeline.name, Action::Keep)).collect();
        let report = Report { dry_run, pipelines, problems: problems.iter().map(Problem::with_help).collect() };
        if !dry_run {
            *self.refused() = problems.iter().map(plan::refused_file).collect();
            for problem in problems {
                tracing::error!("reload refused: {}", problem.with_help());
            }
            self.count(&report);
        }
        report
    }

    fn count(&self, report: &Report) {
        self.metrics.reloaded(!report.has_failures());
        self.metrics.refused(self.refused().len());
    }

    fn log(&self, pipelines: &[Reloaded]) {
        for Reloaded { pipeline, action, changed, why, .. } in pipelines {
            let changed = changed.join(", ");
            pipeline_span(pipeline).in_scope(|| match action {
                Action::Keep => {}
                Action::Start => tracing::info!("pipeline added"),
                Action::Stop => tracing::info!("pipeline removed"),
                Action::InPlace => tracing::info!(changed, "pipeline changed while it runs"),
                Action::Restart => tracing::info!(changed, "pipeline changed, it starts again"),
                Action::Refuse | Action::Failed => {
                    tracing::error!(
                        "change refused, the pipeline goes on as before: {}",
                        why.as_deref().unwrap_or_default()
                    );
                }
            });
        }
    }

    /// Applies a change.
    ///
    /// # Errors
    /// The change did not take effect; the pipeline goes on as before.
    async fn apply(&self, name: &str, change: Change) -> Result<(), String> {
        let registered = self.registry.find(name);
        match (change, registered) {
            (Change::Keep | Change::Refuse(_), _) => Ok(()),
            (Change::Start(checked), _) => {
                let prepared = Prepared::new(*checked, &self.surroundings);
                registry::start(self.registry.add(prepared, self.clock), &self.group);
                Ok(())
            }
            (Change::Stop, Some(pipeline)) => {
                // The pipeline stays visible while it drains.
                pipeline.keeper.retire().await;
                self.registry.remove(name);
                drop(pipeline);
                self.surroundings.metrics.remove_pipeline(name);
                Ok(())
            }
            (Change::InPlace { new, .. }, Some(pipeline)) => self.swap(&pipeline, *new).await,
            (Change::Restart { new, .. }, Some(pipeline)) => self.redefine(&pipeline, *new).await,
            // The registry is changed by reloads alone, and one at a time.
            (_, None) => Err("the pipeline is gone".to_owned()),
        }
    }

    /// Exchanges handler and filter. Calls in flight end with the old ones, and the next start uses the new ones.
    async fn swap(&self, pipeline: &Registered, new: Checked) -> Result<(), String> {
        let old = pipeline.defined();
        let (script, filter) = new.script_and_filter();
        let handler = script.as_ref().map(assembly::handler);
        old.assembly.replace(new.clone());
        let told = async {
            if let Some(handler) = handler {
                let version = new.definition.handler_version(script.as_ref());
                pipeline.handle.swap(handler, version.into()).await;
            }
            pipeline.handle.filter(filter).await;
            // A pipeline that ended because of the old handler starts with the new one.
            pipeline.keeper.obey(Command::Reload).await;
        };
        // A wedged driver takes no commands. Its next start uses the new definition.
        let is_told = tokio::time::timeout(self.surroundings.drain, told).await.is_ok();
        old.gauges.config_hash(&assembly::config_hash(&new));
        pipeline.redefine(Defined {
            script: new.script.as_ref().map(crate::script::Script::metrics),
            checked: new,
            inbox: old.inbox.clone(),
            gauges: old.gauges.clone(),
            assembly: Arc::clone(&old.assembly),
        });
        if is_told { Ok(()) } else { Err("the pipeline does not answer: its next start uses the new files".to_owned()) }
    }

    async fn redefine(&self, pipeline: &Registered, new: Checked) -> Result<(), String> {
        let old = pipeline.defined();
        let between = carry::between(&old.checked, &new, |checked| assembly::context(checked, &self.surroundings));
        let Prepared { pipeline: definition, defined } = Prepared::new(new, &self.surroundings);
        let answer = pipeline.keeper.redefine(Redefinition { pipeline: definition, between }).await;
        if !matches!(answer, Some(Redefined::Starts | Redefined::Rests)) {
            // The metrics of another group are new ones: those of the old definition come back.
            let context = assembly::context(&old.checked, &self.surroundings);
            let gauges = self.surroundings.metrics.pipeline(&context.pipeline, &context.group);
            gauges.config_hash(&assembly::config_hash(&old.checked));
        }
        match answer {
            Some(Redefined::Starts | Redefined::Rests) => {
                pipeline.redefine(defined);
                Ok(())
            }
            Some(Redefined::Failed(why)) => Err(format!("{why}; it goes on with the old definition")),
            Some(Redefined::DrainTimedOut(tasks)) => {
                let limit = self.surroundings.drain;
                let tasks = tasks.join(", ");
                Err(format!("it did not drain within {limit:?} ({tasks}), and started again with the old definition"))
            }
            None => Err("its keeper is gone".to_owned()),
        }
    }
}

impl Reloaded {
    fn new(pipeline: &str, action: Action) -> Self {
        let (changed, new_event_types, handled_before) = Default::default();
        let pipeline = pipeline.to_owned();
        Self { pipeline, action, changed, new_event_types, handled_before, handled_before_unknown: None, why: None }
    }
}
