//! The command `parked`.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::super::output::Output;
use super::{asked, find, no_answer};
use crate::checkpoint::ParkedAction;
use crate::cli::{ExitStatus, ParkedArgs, ParkedVerb};
use crate::commands::checkpoint::definition;
use crate::commands::parked::{self, Parked};
use crate::config::settings::DaemonSettings;
use crate::daemon::parked::{EditWanted, ListWanted, RequestWanted, ShowWanted};

pub(super) fn run(settings: &DaemonSettings, args: &ParkedArgs, output: Output) -> ExitStatus {
    let of = args.verb.of();
    let file = find(&of.directories(), &of.pipeline).map_err(|problem| vec![problem]);
    let definition = match file.and_then(|file| definition(&file)) {
        Ok(definition) => definition,
        Err(problems) => return output.problems(&problems),
    };
    let act = async || {
        let streams = Parked::open(settings, &definition)?;
        let succeeded = perform(&streams, &args.verb, output).await?;
        // An open file is written back by its next user.
        let _open = parked::close(streams).await;
        Ok(succeeded)
    };
    match asked(act) {
        Ok(true) => ExitStatus::Ok,
        Ok(false) => ExitStatus::Failed,
        Err(error) => no_answer(&error, output),
    }
}

/// Performs a command, and returns whether it succeeded.
async fn perform(streams: &Parked<'_>, verb: &ParkedVerb, output: Output) -> anyhow::Result<bool> {
    match verb {
        ParkedVerb::List { of, selection, limit, after_stream, after_tranche } => {
            let (after_tranche, after_stream) = (after_tranche.clone(), after_stream.clone());
            let first = ListWanted::of(selection.selected(of));
            let wanted = ListWanted { after_tranche, after_stream, limit: *limit, ..first };
            let list = streams.list(&wanted).await?;
            output.result(|| json!(list), |_| parked::render_list(&list));
            Ok(true)
        }
        ParkedVerb::Show { of, stream, limit, after } => {
            let (stream, tranche) = (stream.clone(), of.tranche.clone());
            let list = streams.show(&ShowWanted { stream, tranche, after: after.clone(), limit: *limit }).await?;
            output.result(|| json!(list), |_| parked::render_queue(&list));
            Ok(true)
        }
        ParkedVerb::Retry { of, selection, wait, dry_run } => {
            let (select, by) = (selection.selected(of), Some(by()));
            let wanted = RequestWanted { select, by, whole_stream: false, dry_run: *dry_run };
            request(streams, ParkedAction::Retry, &wanted, *wait, output).await
        }
        ParkedVerb::Discard { of, selection, all, whole_stream, wait, dry_run } => {
            let select = selection.selected(of);
            anyhow::ensure!(
                *all || !select.is_empty(),
                "name the streams by a filter such as `--stream`, or discard in all parked streams with `--all`"
            );
            let action = if *whole_stream { ParkedAction::DiscardAll } else { ParkedAction::DiscardFirst };
            let wanted = RequestWanted { select, by: Some(by()), whole_stream: *whole_stream, dry_run: *dry_run };
            request(streams, action, &wanted, *wait, output).await
        }
        ParkedVerb::Edit { of, stream, event, data, meta } => {
            let read = |file: &Option<std::path::PathBuf>| file.as_deref().map(read_json).transpose();
            let wanted = EditWanted {
                stream: stream.clone(),
                tranche: of.tranche.clone(),
                event: event.clone(),
                data: read(data)?,
                meta: read(meta)?,
                by: Some(by()),
            };
            let edited = streams.edit(&wanted).await?;
            let retry =
                format!("edited; retry it with `propulsiond parked retry {} --stream '{stream}'`\n", of.pipeline);
            output.result(|| edited, |_| retry);
            Ok(true)
        }
        ParkedVerb::Jobs(_) => {
            let list = streams.jobs().await?;
            output.result(|| json!(list), |_| parked::render_jobs(&list));
            Ok(true)
        }
    }
}

async fn request(
    streams: &Parked<'_>,
    action: ParkedAction,
    wanted: &RequestWanted,
    wait: bool,
    output: Output,
) -> anyhow::Result<bool> {
    anyhow::ensure!(
        !wait || streams.is_running(),
        "no daemon answers that could act on the request: without `--wait`, it is left for the next start of the pipeline"
    );
    let requested = streams.request(action, wanted).await?;
    let job = requested.job.as_deref().filter(|_| wait);
    let Some(job) = job else {
        let render = || parked::render_requested(&requested, wanted.dry_run, streams.is_running());
        output.result(|| json!(requested), |_| render());
        return Ok(true);
    };
    let done = streams.wait_for(job).await?;
    output.result(|| json!(done), |_| parked::render_job(&done));
    Ok(done.failed == 0)
}

fn read_json(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))
}

/// Returns the name of the user, for the audit log.
fn by() -> String {
    std::env::var("USER").unwrap_or_else(|_| "unknown user".to_owned())
}
