//! Derives the health of pipelines, and of the daemon, from facts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::State;
use crate::clock::Timestamp;

/// The health of a pipeline or of the daemon. The worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Healthy,
    /// The daemon copes, or the pipeline is paused. The operator need not act.
    Degraded,
    /// Work is not done, and will not be done unless the operator acts.
    Failed,
}

/// A failing dependency: a source, a store or a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    pub since: Timestamp,
    /// The latest error, without secrets.
    pub why: String,
}

/// The facts of one pipeline. A `since` is the time at which a condition began that still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineStatus {
    pub name: Arc<str>,
    pub state: State,
    /// The reason of the state; never empty (R34).
    pub reason: String,
    pub since: Timestamp,
    /// The time of the driver's latest answer or report.
    pub answered: Timestamp,
    /// Consecutive failures, each followed by a restart.
    pub restarts: u32,
    /// The failure to read from the source.
    pub source_failing: Option<Outage>,
    /// The failure to commit progress (R8).
    pub checkpoint_failing: Option<Outage>,
    /// The outage for which the circuit breaker is open.
    pub breaker_open: Option<Outage>,
    /// The outage of a back end that answers: calls of several streams fail alike.
    pub calls_failing: Option<Outage>,
    /// The time since which nothing was handled, although the source or the scheduler has events (R28).
    pub no_progress: Option<Timestamp>,
    /// Streams whose last call failed.
    pub failing_streams: usize,
    /// The last failure of the stream that has failed for the longest time, in words.
    pub last_failure: Option<String>,
    /// The event that `require_all` waits for although the source is read to its tail, in words.
    pub missing: Option<String>,
    /// Streams whose calls succeed without progress.
    pub stalled_streams: usize,
    pub parked_streams: usize,
}

impl PipelineStatus {
    /// Returns the status of a healthy pipeline.
    pub fn new(name: impl Into<Arc<str>>, state: State, reason: impl Into<String>, since: Timestamp) -> Self {
        Self {
            name: name.into(),
            state,
            reason: reason.into(),
            since,
            answered: since,
            restarts: 0,
            source_failing: None,
            checkpoint_failing: None,
            breaker_open: None,
            calls_failing: None,
            no_progress: None,
            failing_streams: 0,
            last_failure: None,
            missing: None,
            stalled_streams: 0,
            parked_streams: 0,
        }
    }
}

/// The limits above which a condition is a failure rather than a degradation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest silence of a healthy driver. After `stuck`, the pipeline has failed.
    pub answer: Duration,
    /// The longest outage, or time without progress, that counts as a degradation.
    pub stuck: Duration,
    /// Consecutive restarts that count as a failure.
    pub restarts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), stuck: Duration::from_secs(5 * 60), restarts: 3 }
    }
}

/// The health of one pipeline, as `/health` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct PipelineHealth {
    pub name: String,
    pub health: Health,
    /// The pipeline works, or has nothing left to do.
    pub ready: bool,
    pub state: State,
    /// Seconds since the state was entered.
    pub state_seconds: u64,
    /// The reason of the state, then all complaints, the worst first. Never empty.
    pub reasons: Vec<String>,
}

/// The health of the daemon, as `/health` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Judgement {
    pub health: Health,
    pub ready: bool,
    pub pipelines: Vec<PipelineHealth>,
    /// The files that the latest reload refused. Their pipelines go on as before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedFile>,
}

/// A pipeline file that a reload refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RefusedFile {
    pub file: String,
    /// The first mistake, with its place.
    pub why: String,
}

impl Judgement {
    /// Adds the files that the latest reload refused. The daemon copes with them.
    pub fn with_refused(self, refused: Vec<RefusedFile>) -> Self {
        let health = if refused.is_empty() { self.health } else { self.health.max(Health::Degraded) };
        Self { health, refused, ..self }
    }

    /// Returns the status code of `/health`: 200, or 503 if anything has failed.
    pub fn status_code(&self) -> u16 {
        if self.health == Health::Failed { 503 } else { 200 }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        })
    }
}

/// Writes a line for each pipeline, and one for each of its complaints.
impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.pipelines.iter().map(|pipeline| pipeline.name.chars().count()).max().unwrap_or(0);
        for PipelineHealth { name, health, reasons, .. } in &self.pipelines {
            let mut reasons = reasons.iter();
            writeln!(f, "{name:width$}  {health:8}  {}", reasons.next().map_or("", String::as_str))?;
            for reason in reasons {
                writeln!(f, "{:width$}            {reason}", "")?;
            }
        }
        for RefusedFile { why, .. } in &self.refused {
            writeln!(f, "refused: {why}")?;
        }
        let ready = if self.ready { "ready" } else { "not ready" };
        writeln!(f, "{} and {ready}", self.health)
    }
}

/// Derives the daemon's health: that of its worst pipeline. It is ready if all pipelines are (R66).
pub fn judge(pipelines: &[PipelineStatus], limits: &Limits, now: Timestamp) -> Judgement {
    let pipelines: Vec<_> = pipelines.iter().map(|status| health_of(status, limits, now)).collect();
    Judgement {
        health: pipelines.iter().map(|pipeline| pipeline.health).max().unwrap_or(Health::Healthy),
        ready: pipelines.iter().all(|pipeline| pipeline.ready),
        pipelines,
        refused: Vec::new(),
    }
}

fn health_of(status: &PipelineStatus, limits: &Limits, now: Timestamp) -> PipelineHealth {
    let mut complaints = complaints(status, limits, now);
    complaints.sort_by_key(|(health, _)| std::cmp::Reverse(*health));
    let worst = complaints.first().map_or(Health::Healthy, |(health, _)| *health);
    let health = of_state(status.state).max(worst);
    let mut reasons = vec![format!("{}: {}", status.state, status.reason)];
    reasons.extend(complaints.into_iter().map(|(_, reason)| reason));
    PipelineHealth {
        name: status.name.to_string(),
        health,
        ready: is_ready(status.state) && health < Health::Failed,
        state: status.state,
        state_seconds: now.since(status.since).as_secs(),
        reasons,
    }
}

fn of_state(state: State) -> Health {
    match state {
        State::Running | State::Finished | State::Stopped => Health::Healthy,
        State::Starting | State::Paused | State::Draining | State::Restarting | State::Fenced => Health::Degraded,
        State::Halted => Health::Failed,
    }
}

fn is_ready(state: State) -> bool {
    match state {
        State::Running | State::Paused | State::Fenced | State::Finished | State::Stopped => true,
        State::Starting | State::Draining | State::Restarting | State::Halted => false,
    }
}

/// Returns whether a driver runs in this state, so that it could answer.
fn has_driver(state: State) -> bool {
    matches!(state, State::Running | State::Paused | State::Draining)
}

fn complaints(status: &PipelineStatus, limits: &Limits, now: Timestamp) -> Vec<(Health, String)> {
    let mut found = Vec::new();
    let silence = now.since(status.answered);
    if has_driver(status.state) && silence > limits.answer {
        found.push((by_age(silence, limits), format!("the driver has not answered for {}", words(silence))));
    }
    let outages = [
        (&status.source_failing, "reading has failed for"),
        (&status.checkpoint_failing, "progress could not be committed for"),
        (&status.breaker_open, "the sink, or a store of the handler, has been unavailable for"),
        (&status.calls_failing, "calls of several streams have failed alike, so that one at a time is tried, for"),
    ];
    for (outage, text) in outages {
        if let Some(Outage { since, why }) = outage {
            let age = now.since(*since);
            found.push((by_age(age, limits), format!("{text} {}: {why}", words(age))));
        }
    }
    if let Some(since) = status.no_progress {
        let age = now.since(since);
        found.push((by_age(age, limits), format!("there is work, but nothing has been handled for {}", words(age))));
    }
    if status.restarts > 0 {
        let health = if status.restarts >= limits.restarts { Health::Failed } else { Health::Degraded };
        found.push((health, format!("failures in a row: {}", status.restarts)));
    }
    found.extend(status.missing.iter().map(|missing| (Health::Degraded, missing.clone())));
    let last_failure = status.last_failure.iter().map(|failure| format!("; {failure}")).collect::<String>();
    let streams = [
        (status.failing_streams, "failing", &*last_failure),
        (status.stalled_streams, "handled without progress", ""),
        (status.parked_streams, "parked", ""),
    ];
    for (count, text, detail) in streams {
        if count > 0 {
            found.push((Health::Degraded, format!("streams {text}: {count}{detail}")));
        }
    }
    found
}

fn by_age(age: Duration, limits: &Limits) -> Health {
    if age > limits.stuck { Health::Failed } else { Health::Degraded }
}

fn words(age: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(age.as_secs()))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn ago(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 - seconds * 1_000)
    }

    fn outage(seconds: u64) -> Outage {
        Outage { since: ago(seconds), why: "connection refused".to_owned() }
    }

    fn running() -> PipelineStatus {
        PipelineStatus { answered: NOW, ..PipelineStatus::new("orders", State::Running, "started", ago(900)) }
    }

    fn check(status: &PipelineStatus, expected: &Expect) {
        let judged = judge(std::slice::from_ref(status), &Limits::default(), NOW);
        let pipeline = &judged.pipelines[0];
        expected.assert_eq(&format!(
            "{:?} {} {}: {}",
            judged.health,
            if judged.ready { "ready" } else { "unready" },
            judged.status_code(),
            pipeline.reasons.join("; ")
        ));
    }

    #[test]
    fn a_running_pipeline_without_complaints_is_healthy() {
        check(&running(), &expect!["Healthy ready 200: running: started"]);
    }

    #[test]
    fn r67_a_hanging_driver_is_detected_by_its_silence() {
        check(
            &PipelineStatus { answered: ago(11), ..running() },
            &expect!["Degraded ready 200: running: started; the driver has not answered for 11s"],
        );
        check(
            &PipelineStatus { answered: ago(301), ..running() },
            &expect!["Failed unready 503: running: started; the driver has not answered for 5m 1s"],
        );
    }

    #[test]
    fn r67_a_pipeline_without_a_driver_may_be_silent() {
        let status = PipelineStatus { answered: ago(900), ..running() };
        check(
            &PipelineStatus { state: State::Finished, reason: "at its tail".into(), ..status },
            &expect!["Healthy ready 200: finished: at its tail"],
        );
    }

    #[test]
    fn r8_failing_commits_degrade_then_fail_the_pipeline() {
        check(
            &PipelineStatus { checkpoint_failing: Some(outage(30)), ..running() },
            &expect![
                "Degraded ready 200: running: started; progress could not be committed for 30s: connection refused"
            ],
        );
        check(
            &PipelineStatus { checkpoint_failing: Some(outage(301)), ..running() },
            &expect![
                "Failed unready 503: running: started; progress could not be committed for 5m 1s: connection refused"
            ],
        );
    }

    #[test]
    fn r28_a_pipeline_without_progress_fails_in_the_end() {
        check(
            &PipelineStatus { no_progress: Some(ago(600)), ..running() },
            &expect!["Failed unready 503: running: started; there is work, but nothing has been handled for 10m"],
        );
    }

    #[test]
    fn r36_a_pipeline_that_restarts_repeatedly_has_failed() {
        let status = PipelineStatus { state: State::Restarting, reason: "`reader 0` panicked".into(), ..running() };
        check(
            &PipelineStatus { restarts: 1, ..status.clone() },
            &expect!["Degraded unready 200: restarting: `reader 0` panicked; failures in a row: 1"],
        );
        check(
            &PipelineStatus { restarts: 3, ..status },
            &expect!["Failed unready 503: restarting: `reader 0` panicked; failures in a row: 3"],
        );
    }

    #[test]
    fn a_halted_pipeline_has_failed_and_the_worst_complaint_comes_first() {
        let status = PipelineStatus {
            state: State::Halted,
            reason: "event 4 of stream `a-1` cannot be handled".into(),
            failing_streams: 2,
            breaker_open: Some(outage(400)),
            ..running()
        };
        check(
            &status,
            &expect![
                "Failed unready 503: halted: event 4 of stream `a-1` cannot be handled; the sink, or a store of the handler, has been unavailable for 6m 40s: connection refused; streams failing: 2"
            ],
        );
    }

    #[test]
    fn r66_the_daemon_has_the_health_of_its_worst_pipeline_and_each_has_a_reason() {
        let halted = PipelineStatus::new("billing", State::Halted, "told to halt", ago(5));
        let judged = judge(&[running(), halted], &Limits::default(), NOW);
        expect![[r#"
            {
              "health": "failed",
              "ready": false,
              "pipelines": [
                {
                  "name": "orders",
                  "health": "healthy",
                  "ready": true,
                  "state": "running",
                  "state_seconds": 900,
                  "reasons": [
                    "running: started"
                  ]
                },
                {
                  "name": "billing",
                  "health": "failed",
                  "ready": false,
                  "state": "halted",
                  "state_seconds": 5,
                  "reasons": [
                    "halted: told to halt"
                  ]
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&judged).unwrap());
        assert_eq!(judge(&[], &Limits::default(), NOW).health, Health::Healthy);
    }

    #[test]
    fn r66_text_has_a_line_for_each_pipeline_and_one_for_each_complaint() {
        let billing = PipelineStatus {
            failing_streams: 2,
            breaker_open: Some(outage(30)),
            ..PipelineStatus::new("billing", State::Halted, "told to halt", ago(5))
        };
        let judged = judge(&[running(), billing], &Limits::default(), NOW);
        expect![[r#"
            orders   healthy   running: started
            billing  failed    halted: told to halt
                               the sink, or a store of the handler, has been unavailable for 30s: connection refused
                               streams failing: 2
            failed and not ready
        "#]]
        .assert_eq(&judged.to_string());
        let read = serde_json::from_str::<Judgement>(&serde_json::to_string(&judged).unwrap()).unwrap();
        assert_eq!(read, judged, "the JSON form is complete");
    }

    #[test]
    fn every_state_has_a_health_and_a_readiness() {
        let table: Vec<_> = State::ALL
            .map(|state| format!("{state} {:?} {}", of_state(state), if is_ready(state) { "ready" } else { "unready" }))
            .into();
        expect![[r#"
            starting Degraded unready
            running Healthy ready
            paused Degraded ready
            draining Degraded unready
            restarting Degraded unready
            fenced Degraded ready
            halted Failed unready
            finished Healthy ready
            stopped Healthy ready"#]]
        .assert_eq(&table.join("\n"));
    }
}
