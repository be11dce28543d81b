//! The commands that change a running daemon: `pause`, `resume`, `restart`, `start`, `drain` and `reload`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Client;
use crate::connector::prose::counted;
use crate::daemon::reload::{Action, Reloaded, Report, Seen};
use crate::telemetry::health::State;

/// The answer to a command.
#[derive(Debug, Deserialize)]
pub(crate) struct Obeyed {
    pipeline: String,
    was: State,
    state: State,
    reason: String,
    reached: Option<bool>,
}

/// Has a pipeline obey a command.
///
/// # Errors
/// The daemon does not answer, or has no such pipeline.
pub(crate) async fn command(client: &Client<'_>, pipeline: &str, command: &str, wait: bool) -> anyhow::Result<Value> {
    client.post(&format!("/pipelines/{pipeline}/{command}"), &json!({ "wait": wait })).await
}

/// Renders an answer, and returns whether the command has reached its end.
pub(crate) fn render(answer: &Value) -> anyhow::Result<(String, bool)> {
    let Obeyed { pipeline, was, state, reason, reached } = Obeyed::deserialize(answer)?;
    let change = if was == state { format!("{state}") } else { format!("{was} -> {state}") };
    let (late, reached) = match reached {
        Some(false) => (", the wait timed out", false),
        _ => ("", true),
    };
    Ok((format!("{pipeline}: {change} ({reason}{late})\n"), reached))
}

/// Reloads the pipeline files.
///
/// # Errors
/// The daemon does not answer, or runs a finite job.
pub(crate) async fn reload(client: &Client<'_>, dry_run: bool) -> anyhow::Result<Report> {
    client.post("/reload", &json!({ "dry_run": dry_run })).await
}

/// Renders a line for each pipeline that changes, and its mistakes below it.
pub(crate) fn render_reload(report: &Report) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        text.push_str(&format!("refused: {problem}\n"));
    }
    let changed = report.pipelines.iter().filter(|reloaded| reloaded.action != Action::Keep);
    changed.for_each(|reloaded| text.push_str(&line(reloaded, report.dry_run)));
    let kept = report.pipelines.iter().filter(|reloaded| reloaded.action == Action::Keep).count();
    match (kept, report.pipelines.len()) {
        (0, _) => {}
        (kept, all) if kept == all => text.push_str("nothing changed\n"),
        (kept, _) => text.push_str(&format!("{kept} unchanged\n")),
    }
    text
}

/// Renders the handled events of a new type.
fn of_type(seen: &Seen) -> String {
    let Seen { event_type, tranche, since, stream, index, events, more, .. } = seen;
    let (more, events) = (if *more { "at least " } else { "" }, counted(*events, "handled event"));
    format!(
        "  `{event_type}`: {more}{events} in tranche {tranche} since {since}, the first in `{stream}` at index {index}\n"
    )
}

fn line(reloaded: &Reloaded, dry_run: bool) -> String {
    let Reloaded { pipeline, action, changed, new_event_types, handled_before, handled_before_unknown, why } = reloaded;
    let (will, done) = match action {
        Action::Start => ("starts", "started"),
        Action::Stop => ("drains and stops", "stopped"),
        Action::InPlace => ("changes while it runs", "changed while it runs"),
        Action::Restart => ("drains and starts again", "started again"),
        Action::Keep => ("stays", "stayed"),
        Action::Refuse => ("is refused", "refused, the running pipeline goes on"),
        Action::Failed => ("fails", "failed"),
    };
    let mut text = format!("{pipeline}: {}", if dry_run { will } else { done });
    if !changed.is_empty() {
        text.push_str(&format!(" ({})", changed.join(", ")));
    }
    text.push('\n');
    if matches!(action, Action::InPlace | Action::Restart) && dry_run {
        let replay = if changed.iter().any(|part| ["group", "source_id", "source"].contains(&part.as_str())) {
            "another key of the progress begins at the origin of the source: its events are handled again"
        } else {
            "no event is handled again"
        };
        text.push_str(&format!("  {replay}\n"));
    }
    if !new_event_types.is_empty() {
        let types: Vec<_> = new_event_types.iter().map(|name| format!("`{name}`")).collect();
        text.push_str(&format!(
            "  new in the script: {}; handled events of such types stay handled\n",
            types.join(", ")
        ));
        handled_before.iter().for_each(|seen| text.push_str(&of_type(seen)));
        if let Some(why) = handled_before_unknown {
            text.push_str(&format!("  the number of such events is unknown: {why}\n"));
        } else if dry_run && handled_before.is_empty() {
            text.push_str("  no handled event has such a type\n");
        }
    }
    for line in why.iter().flat_map(|why| why.lines()) {
        text.push_str(&format!("  {line}\n"));
    }
    text
}
