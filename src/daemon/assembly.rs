//! From a checked pipeline to its running parts.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;

use super::exchange::{self, AtStart};
use super::registry::Defined;
use crate::checkpoint::CheckpointStore;
use crate::config::settings::ReloadSettings;
use crate::connector::{Clients, Context};
use crate::handler::AnyHandler;
use crate::pipeline::counts::Observer;
use crate::pipeline::{
    Assemble, ErrorPolicy, Handle, Identity, Leaders, Links, Options, OutageRule, ParkLimits, Parts, Pipeline, Stop,
    Then,
};
use crate::runtime::supervise::Group;
use crate::scheduler;
use crate::script::Script;
use crate::sink::AnySink;
use crate::spec::{self, Checked, Definition, Progress};
use crate::telemetry::metrics::Metrics;
use crate::trace::Recorder;

/// The parts of the daemon that its pipelines share.
pub(crate) struct Surroundings {
    pub drain: Duration,
    pub data: PathBuf,
    pub metrics: Arc<Metrics>,
    pub clients: Clients,
    pub tasks: Group,
    pub recorder: Option<Recorder>,
    pub leaders: Leaders,
    /// Every pipeline ends at its tail.
    pub until_tail: bool,
    /// The conditions of reloads.
    pub reload: ReloadSettings,
}

/// A pipeline that can run, and the handles on it.
pub(crate) struct Prepared {
    pub pipeline: Pipeline,
    pub defined: Defined,
}

impl Prepared {
    /// Prepares a pipeline. Its parts are built at each start.
    pub(crate) fn new(checked: Checked, daemon: &Surroundings) -> Self {
        let Checked { definition, script } = &checked;
        let name: Arc<str> = definition.name().into();
        let group: Arc<str> = definition.group().into();
        let source: Arc<str> = definition.source_id().into();
        let owner = super::owner(&name);
        let gauges = daemon.metrics.pipeline(&name, &group);
        gauges.config_hash(&config_hash(&checked));
        let options = options(definition, daemon.drain, daemon.until_tail);
        let context = context(&checked, daemon);
        let inbox = definition.source.inbox(&context);
        let counters = script.as_ref().map(Script::metrics);
        let assembly =
            Arc::new(Assembly { context, checked: RwLock::new(checked.clone()), leaders: daemon.leaders.clone() });
        let pipeline = Pipeline {
            identity: Identity { owner, source: Arc::clone(&source), name, group },
            options,
            assemble: Arc::clone(&assembly) as Arc<dyn Assemble>,
            observer: Observer::new(gauges.clone(), source).tracing(daemon.recorder.clone()),
        };
        Self { pipeline, defined: Defined { checked, inbox, gauges, script: counters, assembly } }
    }
}

/// Returns the surroundings in which the parts of a pipeline are built.
pub(crate) fn context(checked: &Checked, daemon: &Surroundings) -> Context {
    let definition = &checked.definition;
    Context {
        group: definition.group().into(),
        clients: daemon.clients.clone(),
        tasks: daemon.tasks.clone(),
        metrics: Metrics::clone(&daemon.metrics),
        owner: super::owner(definition.name()),
        finite: daemon.until_tail || definition.stop() == spec::Stop::Tail,
        ..Context::new(definition.name(), definition.loaded.directory(), &daemon.data)
    }
}

/// Returns a hash of the pipeline's definition: its spec, its script and the modules of that. The hash is public, so it
/// covers references as the file writes them and no secret.
pub(crate) fn config_hash(checked: &Checked) -> String {
    use std::hash::BuildHasher;
    let script = checked.script.as_ref().map_or(0, Script::hash);
    let spec = checked.definition.loaded.normalised();
    format!("{:016x}", foldhash::fast::FixedState::with_seed(0).hash_one((spec, script)))
}

fn options(definition: &Definition, drain: Duration, until_tail: bool) -> Options {
    let spec = definition.spec();
    let schedule = &spec.schedule;
    let handler_timeout = spec.handler.rhai.as_ref().map_or(Duration::from_secs(30), |rhai| rhai.timeout);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let threads = spec.handler.rhai.as_ref().and_then(|rhai| rhai.threads).map_or(cores, std::num::NonZeroUsize::get);
    Options {
        order: match schedule.order {
            spec::Order::Stream => scheduler::Order::Stream,
            spec::Order::Tranche => scheduler::Order::Tranche,
            spec::Order::None => scheduler::Order::None,
        },
        require_all: schedule.require_all,
        streams_per_call: schedule.streams_per_call.get(),
        concurrency: schedule.concurrency.get(),
        read_ahead: schedule.read_ahead.get(),
        read_ahead_bytes: usize::try_from(schedule.read_ahead_bytes).unwrap_or(usize::MAX),
        max_ahead_events: schedule.max_ahead_events.get() as u64,
        max_events: schedule.max_events.get(),
        max_bytes: schedule.max_bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX),
        commit_interval: schedule.commit_interval,
        purge: schedule.purge,
        write_positions: definition.keeps_write_positions(),
        errors: ErrorPolicy {
            backoff: spec.errors.retry.backoff(),
            attempts: match spec.errors.retry.attempts {
                spec::Attempts::Unlimited => None,
                spec::Attempts::AtMost(attempts) => Some(attempts.get()),
            },
            then: match definition.then() {
                spec::Then::Park => Then::Park,
                spec::Then::Halt => Then::Halt,
                spec::Then::Skip => Then::Skip,
            },
            stuck_after: spec.errors.stuck_after,
            outage: OutageRule { calls: spec.errors.outage.calls.get(), streams: spec.errors.outage.streams.get() },
            parked: ParkLimits {
                events: spec.errors.max_parked_events.get() as u64,
                bytes: spec.errors.max_parked_bytes,
            },
        },
        handler_timeout,
        threads: threads.min(schedule.concurrency.get()),
        stop: match definition.stop() {
            _ if until_tail => Stop::Tail,
            spec::Stop::Never => Stop::Never,
            spec::Stop::Tail => Stop::Tail,
            spec::Stop::After(limit) => Stop::After(limit),
        },
        drain,
        seed: fastrand::u64(..),
    }
}

/// The parts of a pipeline, built together in one context, so that they can share a client.
pub(crate) struct Assembly {
    context: Context,
    checked: RwLock<Checked>,
    leaders: Leaders,
}

impl Assembly {
    /// Opens the checkpoint store of the definition.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) fn checkpoints(&self) -> anyhow::Result<Arc<dyn CheckpointStore>> {
        let checked = self.checked.read().unwrap_or_else(PoisonError::into_inner).clone();
        match &checked.definition.progress {
            Progress::Sink(sink) => Ok(sink.build(&self.context).context("open the sink")?.checkpoints()),
            Progress::Store(store) => store.build(&self.context).context("open the checkpoint store"),
        }
    }

    /// Notes that the pipeline exists, for those that come after it.
    pub(crate) fn attach(&self, handle: &Handle) {
        self.leaders.attach(&self.context.pipeline, handle.standings());
    }

    /// Builds the parts from another definition from the next start on.
    pub(crate) fn replace(&self, checked: Checked) {
        *self.checked.write().unwrap_or_else(PoisonError::into_inner) = checked;
    }
}

#[async_trait]
impl Assemble for Assembly {
    async fn prepare(&self) -> anyhow::Result<()> {
        let definition = self.checked.read().unwrap_or_else(PoisonError::into_inner).definition.clone();
        match exchange::complete_at_start(definition, self.context.data.clone()).await? {
            AtStart::Nothing => {}
            AtStart::Exchanged => tracing::info!("the files were exchanged for those of a rebuild"),
            AtStart::Withdrawn(error) => {
                let error = format!("{error:#}");
                tracing::error!(
                    error,
                    "the files of a rebuild were not taken over, the pipeline goes on with the present ones"
                );
            }
        }
        Ok(())
    }

    fn assemble(&self) -> anyhow::Result<Parts> {
        let checked = self.checked.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (script, filter) = checked.script_and_filter();
        let Definition { source, sink, progress, .. } = &checked.definition;
        let context = &self.context;
        let source = source.build(context).context("open the source")?;
        let (sink, checkpoints) = match progress {
            Progress::Sink(sink) => {
                let sink = sink.build(context).context("open the sink")?;
                let checkpoints = sink.checkpoints();
                (AnySink::Transactional(sink), checkpoints)
            }
            Progress::Store(store) => {
                let sink = sink.build(context).context("open the sink")?;
                (AnySink::Plain(sink), store.build(context).context("open the checkpoint store")?)
            }
        };
        let handler = script.as_ref().map(handler);
        let version = checked.definition.handler_version(script.as_ref()).into();
        Ok(Parts { source, checkpoints, handler, version, sink, filter })
    }

    fn links(&self) -> Links {
        let checked = self.checked.read().unwrap_or_else(PoisonError::into_inner);
        let definition = &checked.definition;
        self.leaders.links(definition.name(), &definition.feed(), definition.after())
    }
}

/// Returns the handler that a script makes.
pub(crate) fn handler(script: &Script) -> AnyHandler {
    AnyHandler::Blocking(script.factory())
}
