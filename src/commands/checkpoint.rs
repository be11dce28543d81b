//! `checkpoint`: shows the stored progress of a pipeline and its log, and moves it.

mod again;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::again::{Again, Counting};
use super::client::Client;
use crate::checkpoint::{CheckpointKey, CheckpointStore, Listed, LogEntry, LogReason, Owner};
use crate::clock;
use crate::config::scalar::duration;
use crate::config::settings::DaemonSettings;
use crate::connector::Context;
use crate::connector::kind::StorePlace;
use crate::connector::prose::counted;
use crate::daemon::data_dir::{self, DataDir};
use crate::position::{Position, Progress, TrancheId};
use crate::source::Source;
use crate::spec::{self, Definition};
use crate::telemetry::health::State;

/// The progress of a pipeline in its store.
pub(crate) struct Checkpoints<'a> {
    settings: &'a DaemonSettings,
    definition: Definition,
    context: Context,
    store: Arc<dyn CheckpointStore>,
    source: Arc<dyn Source>,
}

/// The new progress of tranches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    /// The start of the source, as if nothing was ever committed.
    Origin,
    /// A position that the operator gives.
    At(Position),
    /// The newest logged commit that is not younger.
    Time(OffsetDateTime),
    /// An entry of the log.
    Entry(u64),
    /// The progress that the latest change by an operator replaced.
    Undo,
}

/// The way in which tranches are changed.
#[derive(Clone, Debug)]
pub(crate) struct Change<'a> {
    pub target: Target,
    /// `None`: all tranches.
    pub tranche: Option<&'a str>,
    pub dry_run: bool,
    /// Change the progress of a running pipeline, which fences it.
    pub force: bool,
}

/// The change of a tranche.
#[derive(Debug)]
pub(crate) struct Changed {
    tranche: TrancheId,
    from: String,
    to: String,
    /// `None`: the progress stays the same.
    again: Option<Again>,
}

impl Target {
    /// Reads a time: RFC 3339, or a duration before now.
    ///
    /// # Errors
    /// The text is neither.
    pub(crate) fn time(text: &str) -> anyhow::Result<Self> {
        if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
            return Ok(Self::Time(at));
        }
        let ago = duration::parse(text).ok().and_then(|ago| clock::wall().checked_sub(ago.try_into().ok()?));
        let ago = ago.with_context(|| {
            format!("`{text}` is neither a time such as `2026-11-28T07:00:00Z` nor a duration before now such as `2h`")
        })?;
        Ok(Self::Time(ago))
    }

    /// Reads a position: a number, or any other text as a token.
    pub(crate) fn position(text: &str) -> Self {
        Self::At(text.parse().map_or_else(|_| Position::token(text), Position::Number))
    }
}

impl<'a> Checkpoints<'a> {
    /// Opens the store of a pipeline's file. Connects to nothing yet.
    ///
    /// # Errors
    /// The store cannot be opened, or it is the memory of the daemon.
    pub(crate) fn open(settings: &'a DaemonSettings, definition: Definition) -> anyhow::Result<Self> {
        ensure!(
            definition.progress.facts().place != StorePlace::Process,
            "the progress of `{}` is in the memory of the daemon, and ends with it",
            definition.name()
        );
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let context = Context {
            group: definition.group().into(),
            owner: Owner(format!("{}/{}/checkpoint", host.trim(), std::process::id()).into()),
            ..Context::new(definition.name(), definition.loaded.directory(), settings.data_dir())
        };
        let store = match &definition.progress {
            spec::Progress::Store(store) => store.build(&context),
            spec::Progress::Sink(sink) => sink.build(&context).map(|sink| sink.checkpoints()),
        };
        let store = store.context("open the checkpoint store")?;
        let source = definition.source.build(&context).context("open the source")?;
        Ok(Self { settings, definition, context, store, source })
    }

    fn source_id(&self) -> String {
        self.definition.source_id()
    }

    /// Returns the tranches with progress.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn list(&self) -> anyhow::Result<Vec<Listed>> {
        Ok(self.store.list(self.definition.group(), &self.source_id()).await?)
    }

    /// Returns the log of each tranche, the newest entries first, at most `most` of each.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn log(
        &self,
        tranche: Option<&str>,
        most: usize,
    ) -> anyhow::Result<Vec<(TrancheId, Vec<LogEntry>)>> {
        let mut logs = Vec::new();
        for key in self.keys(tranche).await? {
            let mut entries = self.store.log(&key).await?;
            entries.truncate(most);
            logs.push((key.tranche, entries));
        }
        Ok(logs)
    }

    async fn keys(&self, tranche: Option<&str>) -> anyhow::Result<Vec<CheckpointKey>> {
        let listed = self.list().await?;
        let known: Vec<_> = listed.into_iter().map(|listed| listed.key).collect();
        let Some(tranche) = tranche else {
            ensure!(!known.is_empty(), "there is no progress of `{}` yet", self.definition.name());
            return Ok(known);
        };
        let found = known.iter().find(|key| key.tranche.as_str() == tranche).cloned();
        let found = found.with_context(|| {
            let names: Vec<_> = known.iter().map(|key| format!("`{}`", key.tranche)).collect();
            format!("there is no progress of the tranche `{tranche}`; there are {}", names.join(", "))
        })?;
        Ok(vec![found])
    }

    /// Moves the progress of tranches. All targets are found before any tranche changes.
    ///
    /// # Errors
    /// The pipeline runs, a target does not exist, or the store fails.
    pub(crate) async fn change(&self, change: &Change<'_>) -> anyhow::Result<Vec<Changed>> {
        let lock = if change.dry_run { None } else { self.permission(change.force).await? };
        let keys = self.keys(change.tranche).await?;
        ensure!(
            keys.len() == 1 || !matches!(change.target, Target::At(_) | Target::Entry(_)),
            "`{}` has {}: name one with `--tranche`",
            self.definition.name(),
            counted(keys.len() as u64, "tranche")
        );
        let mut planned = Vec::new();
        for key in keys {
            let target = self.target(&key, &change.target).await?;
            planned.push((self.store.load(&key).await?, target, key));
        }
        for (now, target, key) in planned.iter().filter(|_| !change.dry_run) {
            if now != target {
                let claimed = self.store.claim(key, &self.context.owner).await?;
                self.store.set(key, claimed.fence, target.as_ref()).await?;
                self.store.release(key, claimed.fence).await?;
            }
        }
        // A count can take seconds, and needs no lock: a daemon may start meanwhile.
        drop(lock);
        let mut counting = Counting::start(&self.definition, &self.context);
        let mut changed = Vec::new();
        for (now, target, key) in planned {
            let (now, target) = (now.as_ref(), target.as_ref());
            let again = if now == target { None } else { Some(counting.count(&key.tranche, now, target).await) };
            changed.push(Changed { tranche: key.tranche, from: self.describe(now), to: self.describe(target), again });
        }
        Ok(changed)
    }

    /// Makes sure that the pipeline does not run meanwhile. Returns the lock of the data directory, if no daemon has it.
    async fn permission(&self, force: bool) -> anyhow::Result<Option<DataDir>> {
        let data = self.settings.data_dir();
        if data_dir::holder(&data)?.is_none() {
            return DataDir::lock(&data).map(Some);
        }
        if force {
            return Ok(None);
        }
        let name = self.definition.name();
        let advice = format!(
            "drain it with `propulsiond drain {name} --wait`, and start it afterwards with `propulsiond start {name}`; or add \
             `--force`, which fences it"
        );
        let answer: anyhow::Result<Value> = match Client::new(self.settings) {
            Ok(client) => client.get(&format!("/pipelines/{name}")).await,
            Err(error) => Err(error),
        };
        let answer =
            answer.with_context(|| format!("a daemon uses the data directory, and `{name}` may run: {advice}"))?;
        let state: State =
            serde_json::from_value(answer["state"].clone()).context("the daemon's answer has no state")?;
        if matches!(state, State::Stopped | State::Halted | State::Finished | State::Fenced) {
            return Ok(None);
        }
        bail!("the pipeline `{name}` is {state}: {advice}")
    }

    async fn target(&self, key: &CheckpointKey, target: &Target) -> anyhow::Result<Option<Progress>> {
        let entry = match target {
            Target::Origin => return Ok(None),
            Target::At(position) => {
                let lost = self.definition.source.lost(&self.context, key.tranche.as_str(), position);
                if let Some(lost) = lost {
                    bail!("the source could not resume there: {}", lost.why);
                }
                return Ok(Some(Progress::at(position.clone())));
            }
            Target::Time(at) => {
                let log = self.store.log(key).await?;
                let oldest = log
                    .last()
                    .map_or_else(|| "is empty".to_owned(), |oldest| format!("begins at {}", shown(oldest.at)));
                let found = log.into_iter().find(|entry| entry.reason == LogReason::Commit && entry.at <= *at);
                found.with_context(|| {
                    format!(
                        "the log of the tranche `{}` {oldest}: `propulsiond checkpoint reset` goes back to the origin",
                        key.tranche
                    )
                })?
            }
            Target::Entry(number) => {
                let found = self.store.log(key).await?.into_iter().find(|entry| entry.number == *number);
                found.with_context(|| format!("the log of the tranche `{}` has no entry {number}", key.tranche))?
            }
            Target::Undo => {
                let found = self.store.log(key).await?.into_iter().find(|entry| entry.reason == LogReason::Replaced);
                found.with_context(|| format!("no progress of the tranche `{}` was replaced", key.tranche))?
            }
        };
        Ok(entry.progress)
    }

    fn describe(&self, progress: Option<&Progress>) -> String {
        let Some(progress) = progress else { return "nothing committed".to_owned() };
        let position = progress.position.as_ref().map_or_else(|| "origin".to_owned(), |at| self.source.describe(at));
        match progress.handled.runs().len() {
            0 => position,
            runs => format!("{position} and {} above", counted(runs as u64, "handled run")),
        }
    }

    /// Renders the progress of each tranche.
    pub(crate) fn render(&self, listed: &[Listed]) -> String {
        if listed.is_empty() {
            return "nothing committed yet\n".to_owned();
        }
        let line = |listed: &Listed| {
            let at = listed.committed_at.map_or_else(String::new, |at| format!(", committed {}", shown(at)));
            let owner = listed.owner.as_ref().map_or_else(String::new, |owner| format!(", claimed by {}", owner.0));
            format!("{}: {}{at}{owner}\n", listed.key.tranche, self.describe(listed.progress.as_ref()))
        };
        listed.iter().map(line).collect()
    }

    /// Returns the progress of each tranche as JSON.
    pub(crate) fn to_json(&self, listed: &[Listed]) -> Value {
        let described = listed.iter().map(|listed| {
            json!({
                "tranche": listed.key.tranche.as_str(),
                "group": &*listed.key.group,
                "source": &*listed.key.source,
                "position": position(listed.progress.as_ref()),
                "handled_above_position": listed.progress.as_ref().map(|progress| progress.handled.runs().len()),
                "committed_at": listed.committed_at.map(shown),
                "owner": listed.owner.as_ref().map(|owner| &*owner.0),
            })
        });
        described.collect()
    }

    /// Renders logs, a line for each entry.
    pub(crate) fn render_log(&self, logs: &[(TrancheId, Vec<LogEntry>)]) -> String {
        let lines = logs.iter().flat_map(|(tranche, entries)| entries.iter().map(move |entry| (tranche, entry)));
        let line = |(tranche, entry): (&TrancheId, &LogEntry)| {
            let LogEntry { number, at, reason, progress } = entry;
            format!(
                "{number:>6}  {}  {:8}  {tranche}  {}\n",
                shown(*at),
                reason.as_str(),
                self.describe(progress.as_ref())
            )
        };
        lines.map(line).collect()
    }
}

/// Returns logs as JSON.
pub(crate) fn log_to_json(logs: &[(TrancheId, Vec<LogEntry>)]) -> Value {
    let lines = logs.iter().flat_map(|(tranche, entries)| entries.iter().map(move |entry| (tranche, entry)));
    let described = lines.map(|(tranche, entry)| {
        json!({
            "tranche": tranche.as_str(),
            "entry": entry.number,
            "at": shown(entry.at),
            "reason": entry.reason.as_str(),
            "position": position(entry.progress.as_ref()),
        })
    });
    described.collect()
}

impl Changed {
    /// Renders the change of each tranche.
    pub(crate) fn render(changed: &[Self], dry_run: bool) -> String {
        let (becomes, are) = if dry_run { ("would become", "would be") } else { ("became", "are") };
        let lines = |changed: &Self| {
            let Self { tranche, from, to, again } = changed;
            match again {
                None => format!("{tranche}: stays at {to}\n"),
                Some(again) => format!("{tranche}: {from} {becomes} {to}\n{}", again.render(are)),
            }
        };
        let mut text: String = changed.iter().map(lines).collect();
        if !dry_run && changed.iter().any(|changed| changed.again.is_some()) {
            text.push_str("`propulsiond checkpoint rewind --undo` restores the old progress\n");
        }
        text
    }

    pub(crate) fn to_json(changed: &[Self]) -> Value {
        let described = changed.iter().map(|changed| {
            json!({
                "tranche": changed.tranche.as_str(),
                "from": changed.from,
                "to": changed.to,
                "changed": changed.again.is_some(),
                "handled_again": changed.again.as_ref().map(Again::to_json),
            })
        });
        described.collect()
    }
}

fn position(progress: Option<&Progress>) -> Value {
    match progress.and_then(|progress| progress.position.as_ref()) {
        None => Value::Null,
        Some(Position::Number(number)) => json!(number),
        Some(Position::Token(token)) => json!(**token),
    }
}

fn shown(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// Waits until the store's files are closed, so that no log of theirs stays.
pub(crate) async fn close(checkpoints: Checkpoints<'_>) -> Vec<std::path::PathBuf> {
    const WITHIN: Duration = Duration::from_secs(10);
    drop(checkpoints);
    crate::connector::closed(WITHIN).await
}

/// Returns the definition of a pipeline's file.
///
/// # Errors
/// The file is wrong.
pub(crate) fn definition(file: &Path) -> Result<Definition, Vec<crate::config::document::Problem>> {
    spec::define(spec::load_file(file)?)
}
