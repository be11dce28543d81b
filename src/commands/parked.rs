//! `parked`: lists the parked streams of a pipeline, shows their events, and retries, discards or edits them.
//!
//! The commands ask the running daemon. Without one they work on the store itself: the pipeline acts on the request at its
//! next start.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::Client;
use crate::checkpoint::{Owner, ParkedAction};
use crate::config::settings::{DaemonSettings, Listen};
use crate::connector::Context;
use crate::connector::kind::StorePlace;
use crate::connector::prose::counted;
use crate::daemon::data_dir::{self, DataDir};
use crate::daemon::parked::{
    EditWanted, Job, JobList, ListWanted, ParkedDesk, ParkedEntry, ParkedList, QueueList, RequestWanted, Requested,
    ShowWanted,
};
use crate::spec::{self, Definition};
use crate::telemetry::health::State;

/// The parked streams of a pipeline: in the running daemon, or in their store.
pub(crate) enum Parked<'a> {
    Daemon { client: Client<'a>, name: String },
    Store { desk: ParkedDesk, _lock: Option<DataDir> },
}

impl<'a> Parked<'a> {
    /// Finds the parked streams of a pipeline.
    ///
    /// # Errors
    /// The store cannot be opened, or cannot hold parked events.
    pub(crate) fn open(settings: &'a DaemonSettings, definition: &Definition) -> anyhow::Result<Self> {
        let data = settings.data_dir();
        let is_running = data_dir::holder(&data)?.is_some();
        if is_running && settings.listen != Listen::Off {
            return Ok(Self::Daemon { client: Client::new(settings)?, name: definition.name().to_owned() });
        }
        let facts = definition.progress.facts();
        anyhow::ensure!(
            facts.parked && facts.place != StorePlace::Process,
            "the checkpoint store of `{}` keeps no parked events outside the daemon",
            definition.name()
        );
        // A daemon that does not listen has the lock. It finds a request by itself within seconds.
        let lock = if is_running { None } else { Some(DataDir::lock(&data)?) };
        let context = Context {
            group: definition.group().into(),
            owner: Owner(format!("{}/parked", std::process::id()).into()),
            ..Context::new(definition.name(), definition.loaded.directory(), data)
        };
        let store = match &definition.progress {
            spec::Progress::Store(store) => store.build(&context),
            spec::Progress::Sink(sink) => sink.build(&context).map(|sink| sink.checkpoints()),
        };
        let parked =
            store.context("open the checkpoint store")?.parked().context("the store holds no parked events")?;
        Ok(Self::Store { desk: ParkedDesk::new(parked, definition.group(), &definition.source_id()), _lock: lock })
    }

    /// # Errors
    /// The selection is wrong, or daemon or store do not answer. The same holds for the other commands.
    pub(crate) async fn list(&self, wanted: &ListWanted) -> anyhow::Result<ParkedList> {
        match self {
            Self::Daemon { client, name } => get(client, name, "", wanted).await,
            Self::Store { desk, .. } => desk.list(wanted).await,
        }
    }

    pub(crate) async fn show(&self, wanted: &ShowWanted) -> anyhow::Result<QueueList> {
        match self {
            Self::Daemon { client, name } => get(client, name, "/events", wanted).await,
            Self::Store { desk, .. } => desk.show(wanted).await,
        }
    }

    pub(crate) async fn jobs(&self) -> anyhow::Result<JobList> {
        match self {
            Self::Daemon { client, name } => get(client, name, "/jobs", &json!({})).await,
            Self::Store { desk, .. } => desk.jobs().await,
        }
    }

    pub(crate) async fn request(&self, action: ParkedAction, wanted: &RequestWanted) -> anyhow::Result<Requested> {
        match self {
            Self::Daemon { client, name } => {
                let verb = if action == ParkedAction::Retry { "retry" } else { "discard" };
                client.post(&format!("/pipelines/{name}/parked/{verb}"), &json!(wanted)).await
            }
            Self::Store { desk, .. } => desk.request(action, wanted).await,
        }
    }

    /// Waits until a job is done, and returns it. A job may take as long as its events do.
    ///
    /// # Errors
    /// The pipeline does not run, so that the job makes no progress; or the daemon does not answer.
    pub(crate) async fn wait_for(&self, job: &str) -> anyhow::Result<Job> {
        const EVERY: Duration = Duration::from_millis(200);
        loop {
            let jobs = self.jobs().await?.jobs;
            let found = jobs.into_iter().find(|known| known.job == job);
            let found = found.with_context(|| format!("the job `{job}` is not kept any more"))?;
            if found.left == 0 {
                return Ok(found);
            }
            self.makes_progress(job).await?;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Makes sure that the pipeline works on its jobs.
    async fn makes_progress(&self, job: &str) -> anyhow::Result<()> {
        let Self::Daemon { client, name } = self else { return Ok(()) };
        let answer: Value = client.get(&format!("/pipelines/{name}")).await?;
        let state: State =
            serde_json::from_value(answer["state"].clone()).context("the daemon's answer has no state")?;
        let works = matches!(state, State::Starting | State::Running | State::Restarting | State::Draining);
        anyhow::ensure!(works, "the pipeline `{name}` is {state}: the job `{job}` goes on once it runs again");
        Ok(())
    }

    /// Returns whether the pipeline can act on a request now.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Daemon { .. })
    }

    pub(crate) async fn edit(&self, wanted: &EditWanted) -> anyhow::Result<Value> {
        match self {
            Self::Daemon { client, name } => {
                client.post(&format!("/pipelines/{name}/parked/edit"), &json!(wanted)).await
            }
            Self::Store { desk, .. } => Ok(json!({ "event": desk.edit(wanted).await? })),
        }
    }
}

async fn get<T: DeserializeOwned>(
    client: &Client<'_>,
    name: &str,
    path: &str,
    wanted: &impl serde::Serialize,
) -> anyhow::Result<T> {
    client.get_with(&format!("/pipelines/{name}/parked{path}"), wanted).await
}

/// Waits until the store's files are closed, so that no log of theirs stays.
pub(crate) async fn close(parked: Parked<'_>) -> Vec<PathBuf> {
    const WITHIN: Duration = Duration::from_secs(10);
    drop(parked);
    crate::connector::closed(WITHIN).await
}

/// Renders a list, a line for each stream.
pub(crate) fn render_list(list: &ParkedList) -> String {
    if list.total_streams == 0 {
        return "nothing is parked\n".to_owned();
    }
    let mut text: String = list.streams.iter().map(entry).collect();
    let (streams, events) = (counted(list.total_streams, "stream"), counted(list.total_events, "event"));
    text.push_str(&format!("{streams}, {events}, {} bytes\n", list.total_bytes));
    if let Some(last) = list.streams.last().filter(|_| list.more) {
        text.push_str(&format!("more with --after-tranche '{}' --after-stream '{}'\n", last.tranche, last.stream));
    }
    text
}

fn entry(parked: &ParkedEntry) -> String {
    let ParkedEntry { tranche, stream, state, class, error, index, event_type, since, due, events, .. } = parked;
    let (name, event) = match stream.is_empty() {
        true => ("(malformed records)", "an unreadable record".to_owned()),
        false => (&**stream, format!("event {index} (`{event_type}`)")),
    };
    let due = due.as_ref().map_or_else(String::new, |due| format!(", due {due}"));
    let events = counted(*events, "event");
    format!("{name}  {state} since {since}{due}, {events}, tranche {tranche}\n  at {event}: {error} ({class})\n")
}

/// Renders the events of a stream.
pub(crate) fn render_queue(list: &QueueList) -> String {
    let mut text = entry(&list.parked);
    for event in &list.events {
        let discarded = if event.discarded { ", discarded" } else { "" };
        text.push_str(&format!("  {}  {} {}{discarded}  {}\n", event.event, event.event_type, event.time, event.data));
    }
    if let Some(last) = list.events.last().filter(|_| list.more) {
        text.push_str(&format!("  more with --after {}\n", last.event));
    }
    text
}

/// Renders the answer to a request.
pub(crate) fn render_requested(requested: &Requested, dry_run: bool, is_running: bool) -> String {
    let Requested { job, action, streams, events } = requested;
    let (streams_text, events) = (counted(*streams, "stream"), counted(*events, "event"));
    match job {
        _ if *streams == 0 => "nothing is selected\n".to_owned(),
        None if dry_run => format!("{action} would concern {streams_text} with {events}\n"),
        None => format!("{action} concerns {streams_text} with {events}\n"),
        Some(job) if is_running => format!("{job}: {streams_text} with {events}; see `propulsiond parked jobs`\n"),
        Some(job) => format!("{job}: {streams_text} with {events}, at the next start of the pipeline\n"),
    }
}

/// Renders jobs, a line for each.
pub(crate) fn render_jobs(list: &JobList) -> String {
    if list.jobs.is_empty() {
        return "no requests yet\n".to_owned();
    }
    list.jobs.iter().map(render_job).collect()
}

pub(crate) fn render_job(job: &Job) -> String {
    let Job { job, by, at, state, streams, done, left, failed, .. } = job;
    format!("{job}  {state}, by {by} at {at}: {done} of {streams} flow again, {left} left, {failed} failed again\n")
}
