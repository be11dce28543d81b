//! `rebuild`: runs the pipeline as a finite job in a data directory of its own, then exchanges the files.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::Value;

use super::App;
use super::commands::find;
use super::output::Output;
use crate::cli::{ExitStatus, RebuildArgs};
use crate::clock::{Clock, Timestamp};
use crate::commands::client::Client;
use crate::commands::control;
use crate::commands::rebuild::{FileSizes, Outcome, Plan, Refused, Work};
use crate::config::scalar::Text;
use crate::config::settings::{DaemonSettings, Listen, OtlpSettings};
use crate::daemon::assembly::config_hash;
use crate::daemon::exchange::Direction;
use crate::spec;
use crate::spec::Then;
use crate::telemetry::logging::Logs;

/// Runs the command.
pub async fn run(
    settings: &DaemonSettings,
    args: &RebuildArgs,
    output: Output,
    logs: Logs,
    signals: impl Future<Output = u8> + Send,
) -> ExitStatus {
    match rebuild(settings, args, output, logs, signals).await {
        Ok(status) => status,
        Err(Refused::Files(problems)) => output.problems(&problems),
        Err(Refused::Environment(error)) => output.environment(&error),
        Err(Refused::Failed(why)) => output.failure(&why),
    }
}

async fn rebuild(
    settings: &DaemonSettings,
    args: &RebuildArgs,
    output: Output,
    logs: Logs,
    signals: impl Future<Output = u8> + Send,
) -> Result<ExitStatus, Refused> {
    let plan = plan(settings, args)?;
    if args.dry_run {
        plan.check_feed(args.yes)?;
        output.result(|| plan.to_json(), |_| plan.render());
        return Ok(ExitStatus::Ok);
    }
    let work = plan.open()?;
    let outcome = if let Some(intent) = work.plan.workspace.interrupted()? {
        exchange(settings, &work, Exchange::Rest(intent.direction)).await?;
        Outcome::Completed(intent.direction)
    } else if args.undo {
        work.prepare_undo()?;
        Outcome::Undone { files: exchange(settings, &work, Exchange::Whole(Direction::Former)).await? }
    } else {
        work.plan.check_feed(args.yes)?;
        if !output.json {
            output.result(|| work.plan.to_json(), |_| work.plan.render());
        }
        let clock = Clock::start();
        match job(settings, &work, logs, signals).await? {
            Ok(events) => {
                if !args.yes {
                    work.check_results()?;
                }
                let files = exchange(settings, &work, Exchange::Whole(Direction::Rebuilt)).await?;
                Outcome::Rebuilt { events, took: clock.now().since(Timestamp::ZERO), files }
            }
            Err(status) => return Ok(unfinished(&work, status, output)),
        }
    };
    output.result(|| outcome.to_json(&work.plan), |_| outcome.render(&work.plan));
    Ok(ExitStatus::Ok)
}

fn plan(settings: &DaemonSettings, args: &RebuildArgs) -> Result<Plan, Refused> {
    let directories = args.directories();
    let file = find(&directories, &args.pipeline).map_err(|problem| Refused::Files(vec![problem]))?;
    // The pipelines beside a file that was named by its path share the data directory as well.
    let beside = file.parent().map(PathBuf::from);
    let beside = beside.map(|parent| if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent });
    let mut files = Vec::new();
    for directory in directories.into_iter().filter(|directory| directory.exists()).chain(beside) {
        files.extend(spec::scan(&directory).map_err(Refused::Files)?);
    }
    Plan::new(&settings.data_dir(), &file, &files, args.fresh)
}

/// Runs the job to the tail of the source. Returns the number of handled events; the inner error is the status of a job that
/// did not reach it.
async fn job(
    settings: &DaemonSettings,
    work: &Work,
    logs: Logs,
    signals: impl Future<Output = u8> + Send,
) -> Result<Result<u64, ExitStatus>, Refused> {
    let directory = work.prepare()?;
    let settings = DaemonSettings {
        listen: Listen::Off,
        data_dir: Text::literal(&directory.display().to_string()),
        // The traces of the daemon, which handles the same events, are those of the pipeline.
        otlp: OtlpSettings::default(),
        ..settings.clone()
    };
    let mut checked = work.plan.checked.clone();
    // A projection with parked streams lacks their events, so that it must not take over.
    checked.definition.loaded.spec.errors.then.get_or_insert(Then::Halt);
    let app = App::of(vec![checked], Vec::new(), &settings, true).await?;
    // A finite job reloads no files.
    let run = app.run_to_end(logs, Arc::default(), signals).await;
    Ok(if run.is_finished { Ok(run.events) } else { Err(run.status) })
}

/// The part of an exchange that is to be performed.
#[derive(Clone, Copy)]
enum Exchange {
    Whole(Direction),
    /// The exchange was declared before.
    Rest(Direction),
}

/// Exchanges the files: by itself, or through the daemon that uses them. Returns their sizes before and after.
async fn exchange(settings: &DaemonSettings, work: &Work, part: Exchange) -> anyhow::Result<Vec<FileSizes>> {
    let before = work.sizes();
    match (work.holder()?, part) {
        (Some(holder), _) => exchange_in_daemon(settings, work, part, &holder).await?,
        (None, Exchange::Whole(direction)) => work.exchange(direction)?,
        (None, Exchange::Rest(_)) => work.complete()?,
    }
    Ok(FileSizes::paired(before, work.sizes()))
}

/// Declares the exchange, and has the daemon restart the pipeline, which performs it.
async fn exchange_in_daemon(
    settings: &DaemonSettings,
    work: &Work,
    part: Exchange,
    holder: &str,
) -> anyhow::Result<()> {
    let (Exchange::Whole(direction) | Exchange::Rest(direction)) = part;
    let workspace = &work.plan.workspace;
    let name = work.plan.definition().name();
    // The daemon is asked before anything is declared: if it cannot answer, everything stays as it is.
    let client = willing(settings, &work.plan, direction).await.with_context(|| {
        format!(
            "the files in `{}` are complete, and the daemon that uses the present ones ({holder}) does not exchange them",
            workspace.directory(direction).display()
        )
    })?;
    if let Exchange::Whole(direction) = part {
        work.declare(direction)?;
    }
    let restarted = control::command(&client, name, "restart", true).await;
    if workspace.has_ended(direction)? {
        return Ok(());
    }
    if workspace.interrupted()?.is_none() {
        anyhow::bail!(
            "the daemon goes on with the present files of `{name}`, because the exchange fails (its log has the reason; most \
             often another program has a file open: close it and run the command again)"
        );
    }
    let why = match restarted {
        Ok(answer) => answer["reason"].as_str().unwrap_or_default().to_owned(),
        Err(error) => format!("{error:#}"),
    };
    let rest = "the exchange is declared and not performed yet (the next start of the pipeline performs it)";
    Err(anyhow::Error::msg(why).context(rest))
}

/// Returns a client of a daemon that answers and has the pipeline. For an exchange for the rebuilt files, the daemon runs the
/// definition of the rebuild, or reloads its files: with another one, the next events would not fit the rebuilt tables.
async fn willing<'a>(settings: &'a DaemonSettings, plan: &Plan, direction: Direction) -> anyhow::Result<Client<'a>> {
    let unasked = "it cannot be asked (stop it and run the command again)";
    let client = Client::new(settings).context(unasked)?;
    let path = format!("/pipelines/{}", plan.definition().name());
    let is_same = async || -> anyhow::Result<bool> {
        let pipeline = client.get::<Value>(&path).await.context(unasked)?;
        Ok(direction == Direction::Former || pipeline["config_hash"] == config_hash(&plan.checked))
    };
    // The daemon looks at its files at intervals only, or never.
    if is_same().await? || control::reload(&client, false).await.is_ok() && is_same().await? {
        return Ok(client);
    }
    anyhow::bail!("it runs another definition of the pipeline, or does not read `{}`", plan.file().display())
}

/// Reports a job that did not reach the tail, and returns the exit status of the command.
fn unfinished(work: &Work, status: ExitStatus, output: Output) -> ExitStatus {
    let plan = &work.plan;
    // A job that a signal stopped ends in order, and yet the projection is not rebuilt.
    let status = if status == ExitStatus::Ok { ExitStatus::Failed } else { status };
    let _failed = output.failure(&format!(
        "the rebuild of `{}` is not finished, and nothing was exchanged (the same command resumes it in `{}`)",
        plan.definition().name(),
        plan.workspace.rebuilt().display()
    ));
    status
}
