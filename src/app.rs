//! The composition root: settings and pipeline files in, a running daemon out. This module alone knows every other one.
//!
//! [`App::build`] makes everything and can fail; [`App::run`] then only runs. An unavailable store fails its own pipeline,
//! later and repeatedly, and not the start.

mod progress;
mod stats;
mod traces;
pub mod output;
pub mod signals;
pub mod commands;
mod rebuild;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cli::{ExitStatus, RunArgs};
use crate::clock::Clock;
use crate::config::secret::Secret;
use crate::config::settings::{DaemonSettings, Listen};
use crate::connector::Clients;
pub use crate::daemon::NotStarted;
use crate::daemon::assembly::{Prepared, Surroundings};
use crate::daemon::data_dir::DataDir;
use crate::daemon::keeper::Keeper;
use crate::daemon::registry::{self, HowEnded, Registry};
use crate::daemon::reload::{self, Reloader};
use crate::http::Api;
use crate::pipeline::{Ended, Leaders};
use crate::runtime::supervise::{Group, TaskKind};
use crate::spec::{Checked, Outcome};
use crate::telemetry::health::Limits;
use crate::telemetry::logging::Logs;
use crate::telemetry::metrics::Metrics;
pub use rebuild::run as rebuild;

/// The time for answers in flight once everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// The time for databases to write their logs back once their pipelines have ended.
const DATABASES_TO_CLOSE: Duration = Duration::from_secs(10);

/// The end of a run.
struct Run {
    status: ExitStatus,
    /// Every pipeline has handled everything up to its tail.
    is_finished: bool,
    /// The number of handled events.
    events: u64,
}

/// A daemon, ready to run.
pub struct App {
    api: Arc<Api>,
    listener: Option<TcpListener>,
    keepers: Vec<Keeper>,
    /// The interval of the looks for changed files.
    watch: Option<Duration>,
    /// Every pipeline ends by itself: a job, not a service.
    finite: bool,
    drain: Duration,
    stats_interval: Option<Duration>,
    tracing: traces::Tracing,
    group: Group,
    _data: DataDir,
}

impl App {
    /// Reads and checks the pipeline files, locks the data directory, binds the port.
    pub async fn build(settings: &DaemonSettings, args: &RunArgs) -> Result<Self, NotStarted> {
        Self::of(load(settings, args)?, args.paths.all(), settings, args.until_tail).await
    }

    /// Locks the data directory and binds the port. A service reads changed pipelines from `paths`. `until_tail`: every
    /// pipeline ends at its tail.
    async fn of(
        checked: Vec<Checked>,
        paths: Vec<PathBuf>,
        settings: &DaemonSettings,
        until_tail: bool,
    ) -> Result<Self, NotStarted> {
        let data = DataDir::lock(&settings.data_dir()).map_err(NotStarted::Environment)?;
        let listener = bind(&settings.listen).await.map_err(NotStarted::Environment)?;
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new(clock));
        let tracing = traces::start(&settings.otlp, clock, &metrics).map_err(NotStarted::Environment)?;
        let ends = |checked: &Checked| checked.definition.stop() != crate::spec::Stop::Never;
        let finite = until_tail || checked.iter().all(ends);
        let group = Group::daemon();
        let surroundings = Surroundings {
            drain: settings.drain,
            data: data.path().to_owned(),
            metrics: Arc::clone(&metrics),
            clients: Clients::default(),
            tasks: group.clone(),
            recorder: tracing.recorder(),
            leaders: Leaders::default(),
            until_tail,
            reload: settings.reload.clone(),
        };
        let registry = Arc::new(Registry::default());
        let prepared = checked.into_iter().map(|checked| Prepared::new(checked, &surroundings));
        let keepers = prepared.map(|prepared| registry.add(prepared, clock)).collect();
        let reloader = (!finite)
            .then(|| Arc::new(Reloader::new(paths, surroundings, Arc::clone(&registry), clock, group.clone())));
        let api = Arc::new(Api {
            registry,
            reloader,
            metrics,
            token: settings.http.token.as_ref().map(|token| Secret::new(token.expose().to_owned())),
            address: address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            limits: Limits::default(),
            stopping: AtomicBool::new(false),
        });
        let (drain, watch, stats_interval) = (settings.drain, settings.watch, settings.log.stats_interval);
        Ok(Self { api, listener, keepers, watch, finite, drain, stats_interval, tracing, group, _data: data })
    }

    /// Runs until every pipeline of a finite job has ended, or until the first signal and the drain that follows. `logs`
    /// are summarised meanwhile. `reload` asks for a reload of the files.
    pub async fn run(self, logs: Logs, reload: Arc<Notify>, signals: impl Future<Output = u8> + Send) -> ExitStatus {
        self.run_to_end(logs, reload, signals).await.status
    }

    async fn run_to_end(mut self, logs: Logs, reload: Arc<Notify>, signals: impl Future<Output = u8> + Send) -> Run {
        let serving = CancellationToken::new();
        let group = self.group.clone();
        self.serve(&group, serving.clone());
        let stats = self.start_chores(&group, logs);
        std::mem::take(&mut self.keepers).into_iter().for_each(|keeper| registry::start(keeper, &group));
        self.watch(&group, reload);
        let report = progress::Report::start(self.finite);
        let ended = tokio::select! {
            biased;
            failure = group.failed() => {
                tracing::error!(error = %failure, "the daemon cannot go on");
                return Run { status: ExitStatus::Failed, is_finished: false, events: 0 };
            }
            ended = self.until_all_have_ended(&report, signals) => ended,
        };
        stats.finish();
        let events = report.finish(&self.api.registry, &ended);
        serving.cancel();
        if let Err(still) = group.join(LAST_ANSWERS).await {
            tracing::debug!(tasks = ?still, "tasks were aborted");
        }
        for database in crate::connector::closed(DATABASES_TO_CLOSE).await {
            let database = database.display();
            tracing::warn!(%database, "the database is still open: its log is written back at its next use");
        }
        let is_finished = ended.iter().all(|(_, ended)| matches!(ended, Ended::Finished));
        let status = match exit_status(&ended) {
            // A job that leaves events parked has not handled everything.
            ExitStatus::Ok if self.finite && self.has_parked() => ExitStatus::Failed,
            status => status,
        };
        Run { status, is_finished, events }
    }

    /// Returns whether a run of this process has parked failing events.
    fn has_parked(&self) -> bool {
        let views = self.api.registry.pipelines();
        views.iter().filter_map(|pipeline| pipeline.handle.last_view()).any(|view| view.parked > 0)
    }

    fn serve(&mut self, group: &Group, serving: CancellationToken) {
        let Some(listener) = self.listener.take() else { return };
        tracing::info!(address = %self.api.address, "serving metrics and health");
        let api = Arc::clone(&self.api);
        group.spawn(TaskKind::Http, "http", async move {
            crate::http::serve(listener, api, serving).await.context("serve http")
        });
    }

    /// Starts the watch for changed files. A finite job reads its files once.
    fn watch(&self, group: &Group, asked: Arc<Notify>) {
        let (every, stop) = (self.watch, group.token().clone());
        match self.api.reloader.clone() {
            Some(reloader) => group.spawn(TaskKind::Chore, "watch", async move {
                reload::watch(reloader, every, asked, stop).await;
                Ok(())
            }),
            None => group.spawn(TaskKind::Chore, "watch", async move {
                while stop.run_until_cancelled(asked.notified()).await.is_some() {
                    tracing::warn!("SIGHUP has no effect: a finite job reads its files once");
                }
                Ok(())
            }),
        }
    }

    /// Starts the tasks for logs, traces and statistics.
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

    /// Waits until all pipelines have ended. A service also waits for a signal.
    async fn until_all_have_ended(
        &self,
        report: &progress::Report,
        signals: impl Future<Output = u8> + Send,
    ) -> Vec<HowEnded> {
        let registry = &self.api.registry;
        let mut signals = std::pin::pin!(signals);
        let signal = loop {
            tokio::select! {
                biased;
                signal = &mut signals => break signal,
                ended = registry.all_ended(), if self.finite => return ended,
                () = report.tick(registry) => {}
            }
        };
        tracing::info!(signal, drain = ?self.drain, "stopping: calls in flight finish first; a second signal ends at once");
        self.api.stopping.store(true, Ordering::Relaxed);
        // A reload must start no pipeline behind the stop.
        if let Some(reloader) = &self.api.reloader {
            reloader.close().await;
        }
        let ended = async {
            // In this order: a pipeline that rests counts as ended before it has taken the command.
            registry.stop().await;
            registry.all_ended().await
        };
        let mut ended = std::pin::pin!(ended);
        loop {
            tokio::select! {
                biased;
                ended = &mut ended => return ended,
                () = report.tick(registry) => {}
            }
        }
    }
}

fn load(settings: &DaemonSettings, args: &RunArgs) -> Result<Vec<Checked>, NotStarted> {
    let loaded = crate::spec::load(&args.paths.all()).map_err(NotStarted::Files)?;
    let Outcome { checked, advice, .. } =
        crate::spec::check(loaded, &settings.data_dir()).map_err(NotStarted::Files)?;
    for advice in advice {
        tracing::warn!(help = advice.help.as_deref(), "{advice}");
    }
    Ok(checked)
}

async fn bind(listen: &Listen) -> anyhow::Result<Option<TcpListener>> {
    let Listen::At(address) = listen else { return Ok(None) };
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
