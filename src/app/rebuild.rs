//! `rebuild`: runs the pipeline as a finite job in a data directory of its own, then exchanges the files.

use std::path::PathBuf;
use std::sync::Arc;

use super::App;
use super::commands::find;
use super::output::Output;
use crate::cli::{ExitStatus, RebuildArgs};
use crate::clock::{Clock, Timestamp};
use crate::commands::rebuild::{Outcome, Plan, Refused, Work};
use crate::config::scalar::Text;
use crate::config::settings::{DaemonSettings, Listen, OtlpSettings};
use crate::spec;
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
    let outcome = if let Some(direction) = work.complete()? {
        Outcome::Completed(direction)
    } else if args.undo {
        Outcome::Undone { files: work.undo()? }
    } else {
        work.plan.check_feed(args.yes)?;
        if !output.json {
            output.result(|| work.plan.to_json(), |_| work.plan.render());
        }
        let clock = Clock::start();
        match job(settings, &work, logs, signals).await? {
            Ok(events) => {
                let files = work.exchange(args.yes)?;
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
    let app = App::of(vec![work.plan.checked.clone()], Vec::new(), &settings, true).await?;
    // A finite job reloads no files.
    let run = app.run_to_end(logs, Arc::default(), signals).await;
    Ok(if run.is_finished { Ok(run.events) } else { Err(run.status) })
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
