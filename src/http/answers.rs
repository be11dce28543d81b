//! The JSON forms of pipelines, tranches and streams.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::daemon::assembly::config_hash;
use crate::daemon::parked::{ListWanted, Selected};
use crate::daemon::registry::Registered;
use crate::pipeline::{Standing, StreamFailure, View};
use crate::position::TrancheId;
use crate::scheduler::{Explanation, StreamReport, StreamState};
use crate::source::LagUnit;
use crate::telemetry::health::{Outage, PipelineStatus, State};

/// The time without a handled event, despite a backlog, above which `/health` reports it.
const MAX_QUIET_TIME: Duration = Duration::from_secs(30);

/// Updates the gauges of a pipeline.
pub(super) async fn refresh(pipeline: &Registered) {
    let (standing, defined) = (pipeline.handle.standing(), pipeline.defined());
    defined.gauges.state(standing.state);
    if let Some(view) = pipeline.handle.view().await {
        crate::pipeline::counts::show(&defined.gauges, &view);
    }
    if let Some(script) = &defined.script {
        script.drain(|name, by| defined.gauges.script(name, by));
    }
}

/// Returns the facts that `/health` judges.
pub(super) async fn status(pipeline: &Registered) -> PipelineStatus {
    let standing = pipeline.handle.standing();
    let view = pipeline.handle.view().await;
    let reason = reason(&standing, view.as_ref());
    let mut status = PipelineStatus::new(pipeline.name.as_ref(), standing.state, reason, standing.since);
    status.restarts = standing.restarts;
    let Some(view) = view else { return status };
    status.answered = view.at.max(standing.since);
    status.failing_streams = view.streams.failing.streams;
    status.last_failure = view.longest_failure().map(|failure| in_words(failure, pipeline.handle.clock().now()));
    status.missing.clone_from(&view.missing);
    status.stalled_streams = view.streams.stalled.streams;
    status.parked_streams = view.streams.parked.streams;
    let outage = |(why, since): &(String, Timestamp)| Outage { since: *since, why: why.clone() };
    status.source_failing = source_failing(&view).map(outage);
    // The trouble of a tranche that is not read yet is one of its claim, and so of the checkpoint store.
    status.checkpoint_failing = view.checkpoint_failing.as_ref().or_else(|| trouble(&view, false)).map(outage);
    let is_idle = view.unhandled() == 0;
    let (failing, unavailable) = if view.outage_answers { (view.outage, None) } else { (None, view.outage) };
    status.calls_failing = failing.as_ref().map(outage);
    status.breaker_open = unavailable.as_ref().map(outage);
    if !is_idle && pipeline.handle.clock().now().since(view.handled_at) > MAX_QUIET_TIME {
        status.no_progress = Some(view.handled_at);
    }
    status
}

/// Returns the error that keeps the source from being read, and its begin.
fn source_failing(view: &View) -> Option<&(String, Timestamp)> {
    view.source_failing.as_ref().or_else(|| trouble(view, true))
}

/// Returns the oldest trouble of the tranches that are read, or of the others.
fn trouble(view: &View, is_read: bool) -> Option<&(String, Timestamp)> {
    let tranches = view.tranches.iter().filter(|tranche| (tranche.phase == "reading") == is_read);
    tranches.filter_map(|tranche| tranche.trouble.as_ref()).min_by_key(|(_, since)| *since)
}

/// Returns the last failure of a stream in words.
fn in_words(failure: &StreamFailure, now: Timestamp) -> String {
    let StreamFailure { stream, index, class, error, attempts, next_try, .. } = failure;
    let next = match next_try {
        Some(at) => format!("next try in {:.1}s", at.since(now).as_secs_f64()),
        None => "no retry".to_owned(),
    };
    format!("event {index} of stream `{stream}` failed, attempt {attempts} ({class}), {next}: {error}")
}

/// Returns the reason of the state, or the current work of a running pipeline.
fn reason(standing: &Standing, view: Option<&View>) -> String {
    match view {
        Some(view) if standing.state == State::Running && view.at >= standing.since => doing(view),
        _ => standing.reason.clone(),
    }
}

fn doing(view: &View) -> String {
    let lag = |unit| view.lag(unit).unwrap_or(0);
    let work: [(u64, _, _); 4] = [
        (view.tranches.iter().map(|tranche| u64::from(tranche.phase == "claiming")).sum(), "tranche", "claimed"),
        (view.unhandled(), "event", "handled"),
        (lag(LagUnit::Events), "event", "read"),
        (lag(LagUnit::Bytes), "byte", "read"),
    ];
    let work: Vec<_> = (work.iter().filter(|(count, ..)| *count > 0))
        .map(|(count, noun, done)| format!("{count} {noun}{} to be {done}", if *count == 1 { "" } else { "s" }))
        .chain(view.waits_for().map(str::to_owned))
        .collect();
    match work.as_slice() {
        [] if is_at_tail(view) && source_failing(view).is_some() => "everything that was read is handled".to_owned(),
        [] if is_at_tail(view) => "everything is handled".to_owned(),
        [] => "reading".to_owned(),
        _ => work.join(", "),
    }
}

/// Returns whether every tranche is read to its tail. Before all of them are known, none counts.
fn is_at_tail(view: &View) -> bool {
    view.settled && view.tranches.iter().all(|tranche| tranche.at_tail)
}

/// Returns the summaries of pipelines. All are asked at once, so that several wedged ones cost no more than one.
pub(super) async fn summaries(pipelines: &[Arc<Registered>]) -> Vec<Value> {
    let summary = async |pipeline: &Arc<Registered>| summary(pipeline, pipeline.handle.view().await.as_ref());
    join_all(pipelines.iter().map(summary)).await
}

fn summary(pipeline: &Registered, view: Option<&View>) -> Value {
    let standing = pipeline.handle.standing();
    let now = pipeline.handle.clock().now();
    json!({
        "name": &*pipeline.name,
        "state": standing.state,
        "reason": reason(&standing, view),
        "state_seconds": now.since(standing.since).as_secs(),
        "work": view.map(|view| work(view, now)),
    })
}

/// Returns the backlog, the speed and the failures of a pipeline.
fn work(view: &View, now: Timestamp) -> Value {
    let oldest = view.longest_failure();
    json!({
        "at_tail": is_at_tail(view),
        "lag": { "events": view.lag(LagUnit::Events), "bytes": view.lag(LagUnit::Bytes) },
        "unhandled": view.unhandled(),
        "source_failing": source_failing(view).map(|(why, since)| {
            json!({ "error": why, "seconds": now.since(*since).as_secs_f64() })
        }),
        "waits_for": view.waits_for(),
        "handled_per_second": view.rate.per_second(now),
        "failing_streams": view.streams.failing.streams,
        "oldest_failing": oldest.map(|oldest| {
            let mut described = failure(Some(view), Some(&oldest.tranche), &oldest.stream, now);
            described["stream"] = json!(oldest.stream);
            described
        }),
    })
}

pub(super) async fn details(pipeline: &Registered) -> Value {
    let view = pipeline.handle.view().await;
    let mut details = summary(pipeline, view.as_ref());
    details["config_hash"] = json!(config_hash(&pipeline.defined().checked));
    if let Some(view) = view {
        let now = pipeline.handle.clock().now();
        details["as_of_seconds"] = json!(now.since(view.at).as_secs_f64());
        details["calls"] = json!(view.calls);
        details["writing"] = json!(view.writing);
        details["checkpoint_trouble"] = json!(view.checkpoint_failing.as_ref().map(|(why, _)| why));
        details["outage"] = json!(view.outage.as_ref().map(|(why, _)| why));
        details["tranches"] = tranches(&view, now);
        details["streams"] = totals(&view);
    }
    details
}

fn tranches(view: &View, now: Timestamp) -> Value {
    let tranches = view.tranches.iter().map(|tranche| {
        let report = tranche.report.as_ref();
        json!({
            "tranche": tranche.tranche,
            "phase": tranche.phase,
            "at_tail": tranche.at_tail,
            "position": tranche.committed.as_ref().and_then(|progress| progress.position.as_ref()).map(ToString::to_string),
            "handled_above_position": tranche.committed.as_ref().map(|progress| progress.handled.runs().len()),
            "committed_seconds_ago": tranche.committed_at.map(|at| now.since(at).as_secs_f64()),
            "lag": tranche.lag.map(|lag| json!({ "amount": lag.amount, "unit": format!("{:?}", lag.unit).to_lowercase() })),
            "batches": report.map(|report| report.batches),
            "bytes": report.map(|report| report.bytes),
            "ahead": report.map(|report| report.ahead),
            "unhandled": report.map(|report| report.unhandled),
            "blocked_at": report.and_then(|report| report.blocked_at).map(|at| at.to_string()),
            "trouble": tranche.trouble.as_ref().map(|(why, _)| why),
            "waits_for": tranche.waits_for,
        })
    });
    tranches.collect()
}

fn totals(view: &View) -> Value {
    let streams = &view.streams;
    let states = [
        ("ready", &streams.ready),
        ("waiting", &streams.waiting),
        ("active", &streams.active),
        ("failing", &streams.failing),
        ("stalled", &streams.stalled),
        ("deferred", &streams.deferred),
        ("parked", &streams.parked),
    ];
    let mut totals = json!({ "idle": streams.idle });
    for (name, state) in states {
        totals[name] = json!({ "streams": state.streams, "events": state.events, "bytes": state.bytes });
    }
    totals
}

pub(super) async fn streams(pipeline: &Registered, wanted: Option<StreamState>) -> Value {
    let view = pipeline.handle.view().await;
    let streams = view.iter().flat_map(|view| &view.streams.streams);
    let now = pipeline.handle.clock().now();
    let described = |report: &StreamReport| {
        let mut described = stream(report);
        described["failure"] = failure(view.as_ref(), Some(&report.tranche), &report.stream, now);
        described
    };
    let streams: Vec<_> =
        streams.filter(|report| wanted.is_none_or(|wanted| report.state == wanted)).map(described).collect();
    json!({ "streams": streams })
}

fn stream(report: &StreamReport) -> Value {
    json!({
        "stream": report.stream,
        "tranche": report.tranche.to_string(),
        "state": state_name(report.state),
        "running": report.running,
        "head": report.head,
        "events": report.events,
        "bytes": report.bytes,
        "failures": report.failures,
        "missing": report.missing,
        "age_seconds": report.age.as_secs_f64(),
    })
}

/// Returns the last failure of a stream; `null` if it has made progress since. Without a tranche, the first stream of that
/// name counts.
fn failure(view: Option<&View>, tranche: Option<&TrancheId>, stream: &str, now: Timestamp) -> Value {
    let failures = view.iter().flat_map(|view| &view.failures);
    let is_it = |failure: &&StreamFailure| {
        failure.stream == stream && tranche.is_none_or(|tranche| failure.tranche == *tranche)
    };
    let of_stream = failures.into_iter().find(is_it);
    of_stream.map_or(Value::Null, |failure| {
        json!({
            "index": failure.index,
            "class": failure.class,
            "error": failure.error,
            "attempts": failure.attempts,
            "seconds": now.since(failure.since).as_secs_f64(),
            "next_try_in_seconds": failure.next_try.map(|at| at.since(now).as_secs_f64()),
        })
    })
}

/// Explains the state of a stream, with its last failure. `None`: neither the pipeline nor its last view knows the stream.
/// Returns the parked streams of a name, of each tranche.
async fn parked(pipeline: &Registered, stream: &str) -> Value {
    let selected = Selected { stream: Some(stream.to_owned()), ..Selected::default() };
    let Ok(Some(desk)) = pipeline.parked_desk() else { return json!([]) };
    match desk.list(&ListWanted::of(selected)).await {
        Ok(list) => json!(list.streams),
        // The rest of the answer does not depend on the store.
        Err(error) => json!({ "error": format!("{error:#}") }),
    }
}

pub(super) async fn why(pipeline: &Registered, name: &str) -> Option<Value> {
    let now = pipeline.handle.clock().now();
    let explanation = pipeline.handle.explain(name).await;
    let view = pipeline.handle.last_view();
    let report = explanation.as_ref().and_then(|explanation| explanation.report.as_ref());
    let failure = failure(view.as_ref(), report.map(|report| &report.tranche), name, now);
    let mut answer = match &explanation {
        Some(explanation) => described(name, explanation),
        // A pipeline that ended, or is between two runs, is explained by its last view.
        None => {
            let report = view.as_ref()?.streams.streams.iter().find(|report| report.stream == name);
            if report.is_none() && failure.is_null() {
                return None;
            }
            let state = report.map_or_else(|| "failing".to_owned(), |report| state_name(report.state));
            json!({ "stream": name, "state": state, "details": report.map(stream) })
        }
    };
    answer["failure"] = failure;
    answer["parked"] = parked(pipeline, name).await;
    answer["pipeline"] = summary(pipeline, view.as_ref());
    Some(answer)
}

fn described(name: &str, explanation: &Explanation) -> Value {
    json!({
        "stream": name,
        "state": state_name(explanation.state),
        "write_position": explanation.write_position,
        "gaps": explanation.gaps,
        "blocks": explanation.blocks.map(|at| at.to_string()),
        "details": explanation.report.as_ref().map(stream),
    })
}

fn state_name(state: StreamState) -> String {
    format!("{state:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Rate, TrancheView};
    use crate::scheduler::Snapshot;
    use crate::source::Lag;

    fn tranche(phase: &'static str, at_tail: bool, lag: Option<(u64, LagUnit)>) -> TrancheView {
        TrancheView {
            tranche: "0".to_owned(),
            phase,
            at_tail,
            lag: lag.map(|(amount, unit)| Lag { amount, unit }),
            read: None,
            committed: None,
            stored_at: None,
            committed_at: None,
            report: None,
            trouble: None,
            waits_for: None,
        }
    }

    fn check(tranches: Vec<TrancheView>, expected: &str) {
        check_when(true, tranches, expected);
    }

    fn check_when(settled: bool, tranches: Vec<TrancheView>, expected: &str) {
        let view = View {
            at: Timestamp::ZERO,
            tranches,
            streams: Snapshot::default(),
            outage: None,
            outage_answers: false,
            checkpoint_failing: None,
            source_failing: None,
            missing: None,
            failures: Vec::new(),
            skipped: 0,
            parked: 0,
            handled_at: Timestamp::ZERO,
            rate: Rate::new(Timestamp::ZERO),
            calls: 0,
            writing: 0,
            settled,
        };
        assert_eq!(doing(&view), expected);
    }

    #[test]
    fn a_running_pipeline_names_its_remaining_work() {
        check(vec![tranche("reading", true, None), tranche("ended", true, None)], "everything is handled");
        check(vec![tranche("reading", true, None), tranche("reading", false, None)], "reading");
        let behind = |amount, unit| tranche("reading", false, Some((amount, unit)));
        check(
            vec![behind(3, LagUnit::Events), behind(9, LagUnit::Events), behind(1, LagUnit::Bytes)],
            "12 events to be read, 1 byte to be read",
        );
        check(vec![tranche("claiming", false, None)], "1 tranche to be claimed");
        check(vec![], "everything is handled");
        check_when(false, vec![], "reading");
    }
}
