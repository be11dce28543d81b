//! The composition root: settings and pipeline files in, a running daemon out. The one place that knows everything.
//!
//! [`App::build`] makes everything and can fail; [`App::run`] then only runs. A store that cannot be reached fails its own
//! pipeline, later and repeatedly, not the start.

mod ask;
mod progress;
mod stats;
mod traces;
pub mod verbs;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::{CheckArgs, ExitStatus, RunArgs};
use crate::clock::Clock;
use crate::config::document::Problem;
use crate::config::secret::Secret;
use crate::config::settings::Settings;
pub use crate::daemon::NotStarted;
use crate::daemon::assembly;
use crate::daemon::data_dir::DataFolder;
use crate::http::{Api, Registered};
use crate::pipeline::{Ended, Handle, Listener, Pipeline};
use crate::runtime::supervise::{Group, TaskKind};
use crate::spec::Loaded;
use crate::telemetry::logging::Logs;
use crate::telemetry::metrics::Metrics;

/// How long answers that are under way may take once everything else has ended.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long databases may take to write their logs back once their pipelines have ended.
const CLOSING: Duration = Duration::from_secs(10);

pub use ask::health;

/// Which pipeline ended, and how.
type HowEnded = (Arc<str>, Ended);

/// A daemon, ready to run.
pub struct App {
    api: Arc<Api>,
    listener: Option<TcpListener>,
    pipelines: Vec<(Pipeline, Listener)>,
    /// Every pipeline ends by itself: a job, not a service.
    finite: bool,
    drain: Duration,
    stats_interval: Option<Duration>,
    tracing: traces::Tracing,
    _data: DataFolder,
}

impl App {
    /// Reads and checks the pipeline files, takes the data folder, binds the port.
    pub async fn build(settings: &Settings, args: &RunArgs) -> Result<Self, NotStarted> {
        let loaded = load(settings, args)?;
        let data = DataFolder::take(&settings.data_dir()).map_err(NotStarted::Environment)?;
        let listener = bind(&settings.listen).await.map_err(NotStarted::Environment)?;
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new(clock));
        let tracing = traces::start(&settings.otlp, clock, &metrics).map_err(NotStarted::Environment)?;
        let mut registered = Vec::new();
        let mut pipelines = Vec::new();
        let finite = args.until_tail || loaded.iter().all(|loaded| loaded.spec.stop != crate::spec::Stop::Never);
        for loaded in loaded {
            let prepared =
                assembly::Prepared::new(loaded, settings, data.path(), args.until_tail, &metrics, tracing.recorder())?;
            let (handle, listener) = Handle::new(clock);
            registered.push(Registered {
                name: Arc::clone(&prepared.pipeline.identity.name),
                handle,
                inbox: prepared.inbox,
                gauges: prepared.gauges,
                script: prepared.script,
            });
            pipelines.push((prepared.pipeline, listener));
        }
        let api = Arc::new(Api {
            pipelines: registered,
            metrics,
            token: settings.http.token.as_ref().map(|token| Secret::new(token.expose().to_owned())),
            address: address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            limits: crate::telemetry::health::Limits::default(),
            stopping: AtomicBool::new(false),
        });
        let (drain, stats_interval) = (settings.drain, settings.log.stats_interval);
        Ok(Self { api, listener, pipelines, finite, drain, stats_interval, tracing, _data: data })
    }

    /// Returns where the API listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().map(|_| self.api.address)
    }

    /// Runs until every pipeline of a finite job has ended, or until told to stop. `logs` is looked after meanwhile.
    pub async fn run(mut self, logs: Logs, signals: impl Future<Output = u8> + Send) -> ExitStatus {
        let (stop, serving) = (CancellationToken::new(), CancellationToken::new());
        let group = Group::daemon();
        self.serve(&group, serving.clone());
        let stats = self.start_chores(&group, logs);
        let told = self.start_pipelines(&group, &stop);
        let report = progress::Report::start(self.finite);
        let ended = tokio::select! {
            biased;
            failure = group.failed() => {
                tracing::error!(error = %failure, "the daemon cannot go on");
                return ExitStatus::Failed;
            }
            ended = self.until_all_have_ended(told, &report, signals, &stop) => ended,
        };
        stats.finish();
        report.finish(&self.api, &ended);
        serving.cancel();
        if let Err(still) = group.join(GOODBYE).await {
            tracing::debug!(tasks = ?still, "not everything ended by itself");
        }
        for database in crate::connector::sqlite::closed(CLOSING).await {
            let database = database.display();
            tracing::warn!(%database, "the database is not closed yet: its log is written back when it is next used");
        }
        exit_status(&ended)
    }

    fn serve(&mut self, group: &Group, serving: CancellationToken) {
        let Some(listener) = self.listener.take() else { return };
        tracing::info!(address = %self.api.address, "serving metrics and health");
        let api = Arc::clone(&self.api);
        group.spawn(TaskKind::Http, "http", async move {
            crate::http::serve(listener, api, serving).await.context("serve http")
        });
    }

    /// Starts what looks after logs, traces and statistics.
    fn start_chores(&mut self, group: &Group, logs: Logs) -> Arc<stats::StatsLog> {
        group.spawn(TaskKind::Chore, "log summaries", logs.summarise_until(group.token().clone()).map(Ok));
        std::mem::take(&mut self.tracing).run(group);
        let stats = Arc::new(stats::StatsLog::new(Arc::clone(&self.api)));
        if let Some(every) = self.stats_interval {
            let (stats, stop) = (Arc::clone(&stats), group.token().clone());
            group.spawn(TaskKind::Chore, "stats", async move {
                stats.log_until(every, stop).await;
                Ok(())
            });
        }
        stats
    }

    /// Starts every pipeline, each in a task of its own. Returns where they tell how they ended.
    fn start_pipelines(&mut self, group: &Group, stop: &CancellationToken) -> mpsc::Receiver<HowEnded> {
        let (tell, told) = mpsc::channel(self.pipelines.len().max(1));
        for (pipeline, listener) in self.pipelines.drain(..) {
            let name = Arc::clone(&pipeline.identity.name);
            let (stop, tell, daemon) = (stop.child_token(), tell.clone(), group.clone());
            group.spawn(TaskKind::Keeper, Arc::clone(&name), async move {
                let ended = pipeline.run(listener, &daemon, stop).await;
                tell.send((name, ended)).await.context("tell how the pipeline ended")
            });
        }
        told
    }

    /// Waits until all pipelines have ended and, unless the job is a finite one, somebody has asked for that.
    async fn until_all_have_ended(
        &self,
        mut told: mpsc::Receiver<HowEnded>,
        report: &progress::Report,
        signals: impl Future<Output = u8> + Send,
        stop: &CancellationToken,
    ) -> Vec<HowEnded> {
        let mut ended = Vec::new();
        let mut signals = std::pin::pin!(signals);
        let mut stopping = false;
        while ended.len() < self.api.pipelines.len() || !(stopping || self.finite) {
            tokio::select! {
                biased;
                signal = &mut signals, if !stopping => {
                    tracing::info!(signal, drain = ?self.drain, "stopping: what runs is finished first; a second signal ends at once");
                    stopping = true;
                    self.api.stopping.store(true, Ordering::Relaxed);
                    stop.cancel();
                }
                Some(result) = told.recv() => ended.push(result),
                () = report.tick(&self.api) => {}
            }
        }
        ended
    }
}

/// Returns everything that is wrong with pipeline files and their scripts. Touches no network.
pub fn check(settings: &Settings, args: &CheckArgs) -> Vec<Problem> {
    let check = || {
        let mut loaded: Vec<Loaded> = Vec::new();
        let mut problems = Vec::new();
        for path in args.paths.iter().filter(|path| !crate::commands::handler_tests::is_test(path)) {
            match crate::spec::load(path) {
                Ok(found) => loaded.extend(found),
                Err(wrong) => problems.extend(wrong),
            }
        }
        // A file may be named twice, as itself and by its folder.
        let mut seen = std::collections::BTreeSet::new();
        loaded.retain(|loaded| seen.insert(loaded.file().canonicalize().unwrap_or_else(|_| loaded.file().to_owned())));
        problems.extend(problems_of(settings, &loaded));
        for problem in crate::commands::handler_tests::check(&args.paths) {
            // A pipeline that cannot be read was told of already.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems
    };
    if args.allow_missing_env { crate::config::scalar::allowing_missing(check) } else { check() }
}

fn problems_of(settings: &Settings, loaded: &[Loaded]) -> Vec<Problem> {
    let mut problems = crate::spec::check(loaded, &settings.data_dir());
    problems.extend(loaded.iter().flat_map(crate::spec::check_script));
    problems
}

fn load(settings: &Settings, args: &RunArgs) -> Result<Vec<Loaded>, NotStarted> {
    let loaded = crate::spec::load(&args.config).map_err(NotStarted::Files)?;
    let problems = problems_of(settings, &loaded);
    if problems.iter().any(Problem::is_error) {
        return Err(NotStarted::Files(problems));
    }
    for advice in problems {
        tracing::warn!(help = advice.help.as_deref(), "{advice}");
    }
    Ok(loaded)
}

async fn bind(listen: &crate::config::settings::Listen) -> anyhow::Result<Option<TcpListener>> {
    let crate::config::settings::Listen::At(address) = listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let why = crate::formats::words::io_error(&error);
        anyhow::anyhow!("cannot listen on `{address}`: {why} (set `listen` to another address, or to \"off\")")
    })?;
    Ok(Some(listener))
}

fn exit_status(ended: &[HowEnded]) -> ExitStatus {
    let worst = |status: ExitStatus, ended: &Ended| match (status, ended) {
        (_, Ended::DeadlinePassed(_)) | (ExitStatus::DrainTimedOut, _) => ExitStatus::DrainTimedOut,
        (status, Ended::Unavailable(_)) if status != ExitStatus::Failed => ExitStatus::BadEnvironment,
        (_, Ended::Unavailable(_) | Ended::Halted(_) | Ended::Failed(_) | Ended::Fenced(_)) => ExitStatus::Failed,
        (status, Ended::Finished | Ended::Stopped) => status,
    };
    ended.iter().fold(ExitStatus::Ok, |status, (_, ended)| worst(status, ended))
}
