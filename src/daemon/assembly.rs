//! From a pipeline's file to its parts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::NotStarted;
use crate::checkpoint::CheckpointStore;
use crate::config::filter::Filter;
use crate::config::settings::Settings;
use crate::connector::{Context, file, generate, http, json, memory, null, sqlite, stats, stdout};
use crate::handler::AnyHandler;
use crate::pipeline::counts::Observer;
use crate::pipeline::{Assemble, ErrorPolicy, Identity, Options, Parts, Pipeline, Stop, Then};
use crate::scheduler;
use crate::script::{self, Script};
use crate::sink::{AnySink, Sink};
use crate::source::{Inbox, Source};
use crate::spec::{self, Checkpoint, Loaded, PipelineSpec};
use crate::telemetry::metrics::{Metrics, PipelineMetrics};
use crate::trace::Recorder;

/// A pipeline that can be run, and what else is to know of it.
pub struct Prepared {
    pub pipeline: Pipeline,
    pub inbox: Option<Arc<dyn Inbox>>,
    pub gauges: PipelineMetrics,
    pub script: Option<Arc<script::ScriptMetrics>>,
}

impl Prepared {
    pub fn new(
        loaded: Loaded,
        settings: &Settings,
        data: &std::path::Path,
        until_tail: bool,
        metrics: &Metrics,
        recorder: Option<Recorder>,
    ) -> Result<Self, NotStarted> {
        let name: Arc<str> = loaded.name.as_str().into();
        let group: Arc<str> = loaded.group().into();
        let script = spec::compile_script(&loaded).map_err(NotStarted::Files)?;
        let gauges = metrics.pipeline(&name, &group);
        gauges.config_hash(&format!("{:016x}", hash(&loaded, script.as_ref())));
        let context = Context {
            pipeline: Arc::clone(&name),
            group: Arc::clone(&group),
            folder: loaded.folder().to_owned(),
            data: data.to_owned(),
        };
        let counters = script.as_ref().map(Script::metrics);
        let source_id: Arc<str> = loaded.source_id().into();
        let options = options(&loaded.spec, settings, until_tail);
        let filter = Filter::compile(&loaded.spec.filter).map_err(|_| not_checked())?;
        let memory = loaded.spec.source.memory.as_ref();
        let inbox = memory.map(|settings| Arc::new(memory::source::MemoryInbox::new(settings, &context.pipeline)));
        let finite = options.stop == Stop::Tail;
        let parts =
            FromSpec { spec: loaded.spec, script, context, filter: Arc::new(filter), finite, inbox: inbox.clone() };
        let pipeline = Pipeline {
            identity: Identity { owner: super::owner(&name), source: Arc::clone(&source_id), name, group },
            options,
            assemble: Arc::new(parts),
            observer: Observer::new(gauges.clone(), source_id).tracing(recorder),
        };
        Ok(Self { pipeline, inbox: inbox.map(|inbox| inbox as Arc<dyn Inbox>), gauges, script: counters })
    }
}

/// What passed the checks compiles.
fn not_checked() -> NotStarted {
    NotStarted::Environment(anyhow::anyhow!("the pipeline was not checked"))
}

/// Distinguishes what the pipeline is made of from what it was made of before: its spec, its script and what that imports.
fn hash(loaded: &Loaded, script: Option<&Script>) -> u64 {
    use std::hash::BuildHasher;
    let script = script.map_or(0, Script::hash);
    foldhash::fast::FixedState::with_seed(0).hash_one((loaded.normalised(), script))
}

fn options(spec: &PipelineSpec, settings: &Settings, until_tail: bool) -> Options {
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
        write_positions: spec.keeps_write_positions(),
        errors: ErrorPolicy {
            backoff: spec.errors.retry.backoff(),
            attempts: match spec.errors.retry.attempts {
                spec::Attempts::Unlimited => None,
                spec::Attempts::AtMost(attempts) => Some(attempts.get()),
            },
            then: match spec.errors.then {
                spec::Then::Park => Then::Park,
                spec::Then::Halt => Then::Halt,
                spec::Then::Skip => Then::Skip,
            },
            stuck_after: spec.errors.stuck_after,
        },
        handler_timeout,
        threads: threads.min(schedule.concurrency.get()),
        stop: match spec.stop {
            _ if until_tail => Stop::Tail,
            spec::Stop::Never => Stop::Never,
            spec::Stop::Tail => Stop::Tail,
            spec::Stop::After(limit) => Stop::After(limit),
        },
        drain: settings.drain,
        seed: fastrand::u64(..),
    }
}

/// Builds a pipeline's parts from its spec, at each start anew.
struct FromSpec {
    spec: PipelineSpec,
    script: Option<Script>,
    context: Context,
    filter: Arc<Filter>,
    finite: bool,
    /// What was pushed outlives a restart of the pipeline.
    inbox: Option<Arc<memory::source::MemoryInbox>>,
}

impl Assemble for FromSpec {
    fn assemble(&self) -> anyhow::Result<Parts> {
        let source = self.source().context("open the source")?;
        let sink = self.sink().context("open the sink")?;
        let checkpoints = match &self.spec.checkpoint {
            Checkpoint::Sink => None,
            Checkpoint::Store(store) => Some(self.store(store).context("open the checkpoint store")?),
        };
        let handler = self.script.as_ref().map(|script| AnyHandler::Blocking(script.factory()));
        Ok(Parts { source, checkpoints, handler, sink, filter: Arc::clone(&self.filter) })
    }
}

impl FromSpec {
    fn source(&self) -> anyhow::Result<Arc<dyn Source>> {
        let source = &self.spec.source;
        if let Some(settings) = &source.json {
            return Ok(Arc::new(json::source(settings, &self.context, self.finite)?));
        }
        if let Some(settings) = &source.generate {
            return Ok(Arc::new(generate::source(settings, &self.context)?));
        }
        let inbox = self.inbox.as_ref().context("a checked spec has a source")?;
        Ok(Arc::new(inbox.source()))
    }

    fn store(&self, store: &spec::CheckpointSpec) -> anyhow::Result<Arc<dyn CheckpointStore>> {
        if let Some(settings) = &store.memory {
            return Ok(Arc::new(memory::store::MemoryCheckpoints::new(settings, &self.context)));
        }
        if let Some(settings) = &store.file {
            return Ok(Arc::new(file::store::FileCheckpoints::new(settings, &self.context)));
        }
        let settings = store.sqlite.clone().unwrap_or_default();
        Ok(Arc::new(sqlite::SqliteCheckpoints::new(&settings, &self.context)))
    }

    fn sink(&self) -> anyhow::Result<AnySink> {
        let (sink, context) = (&self.spec.sink, &self.context);
        if let Some(settings) = &sink.sqlite {
            let sink = Arc::new(sqlite::SqliteSink::new(settings, context));
            let transactional = self.spec.checkpoint == Checkpoint::Sink;
            return Ok(if transactional { AnySink::Transactional(sink) } else { AnySink::Plain(sink) });
        }
        let plain: Arc<dyn Sink> = if let Some(settings) = &sink.stdout {
            Arc::new(stdout::StdoutSink::new(settings, context)?)
        } else if let Some(settings) = &sink.file {
            Arc::new(file::sink::FileSink::new(settings, context)?)
        } else if let Some(settings) = &sink.http {
            Arc::new(http::HttpSink::new(settings, context)?)
        } else if let Some(settings) = &sink.stats {
            Arc::new(stats::StatsSink::new(settings, context)?)
        } else {
            // A handler alone writes nothing; what it emits all the same goes nowhere.
            Arc::new(null::NullSink::new(&sink.null.clone().unwrap_or_default(), context)?)
        };
        Ok(AnySink::Plain(plain))
    }
}
