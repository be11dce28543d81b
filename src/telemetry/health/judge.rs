//! From the facts of pipelines to an answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::State;
use crate::clock::Timestamp;

/// How well a pipeline, or all of them together, is. Ordered: the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Healthy,
    /// It copes, or is told to wait; nobody has to get up.
    Degraded,
    /// Work is not being done, and will not be without a person.
    Failed,
}

/// Something outside that does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    pub since: Timestamp,
    /// What was said when it was last tried, without secrets.
    pub why: String,
}

/// The facts of one pipeline. A `since` is when a condition began that still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineStatus {
    pub name: Arc<str>,
    pub state: State,
    /// Why it is in that state, in words; never empty (R34).
    pub reason: String,
    pub since: Timestamp,
    /// When its loop last answered a question or reported by itself.
    pub answered: Timestamp,
    /// How often in a row it failed and was started again.
    pub restarts: u32,
    /// Reading fails.
    pub source_failing: Option<Outage>,
    /// Progress cannot be committed (R8).
    pub checkpoint_failing: Option<Outage>,
    /// The sink or store that handlers need cannot be reached.
    pub breaker_open: Option<Outage>,
    /// There is more to read or to handle, as the source or the scheduler says, and nothing has been handled (R28).
    pub no_progress: Option<Timestamp>,
    /// Streams whose last call failed, and that succeed without progress.
    pub failing_streams: usize,
    pub stalled_streams: usize,
    pub parked_streams: usize,
}

impl PipelineStatus {
    /// Returns the status of a pipeline that has nothing to complain of.
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
            no_progress: None,
            failing_streams: 0,
            stalled_streams: 0,
            parked_streams: 0,
        }
    }
}

/// From when on a condition counts as a failure rather than something that is coped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A running loop that has not answered for this long is not well, and after `stuck` has failed.
    pub answer: Duration,
    /// A source, checkpoint store or sink that could not be reached for this long; work that made no progress.
    pub stuck: Duration,
    /// Restarts in a row.
    pub restarts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), stuck: Duration::from_secs(5 * 60), restarts: 3 }
    }
}

/// What is said about one pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Verdict {
    pub name: String,
    pub health: Health,
    /// It does what it is for, or is done with it.
    pub ready: bool,
    pub state: State,
    /// Seconds that it has been in that state.
    pub state_seconds: u64,
    /// Why the state, then all that is wrong, the worst first. Never empty.
    pub reasons: Vec<String>,
}

/// What is said about the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Judgement {
    pub health: Health,
    pub ready: bool,
    pub pipelines: Vec<Verdict>,
}

impl Judgement {
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

/// For people: a line for each pipeline, and one for each thing that is wrong with it.
impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.pipelines.iter().map(|verdict| verdict.name.chars().count()).max().unwrap_or(0);
        for Verdict { name, health, reasons, .. } in &self.pipelines {
            let mut reasons = reasons.iter();
            writeln!(f, "{name:width$}  {health:8}  {}", reasons.next().map_or("", String::as_str))?;
            for reason in reasons {
                writeln!(f, "{:width$}            {reason}", "")?;
            }
        }
        let ready = if self.ready { "ready" } else { "not ready" };
        writeln!(f, "{} and {ready}", self.health)
    }
}

/// Judges pipelines by their facts: the daemon is as well as the worst of them, and ready when all are (R66).
pub fn judge(pipelines: &[PipelineStatus], limits: &Limits, now: Timestamp) -> Judgement {
    let pipelines: Vec<_> = pipelines.iter().map(|status| verdict(status, limits, now)).collect();
    Judgement {
        health: pipelines.iter().map(|verdict| verdict.health).max().unwrap_or(Health::Healthy),
        ready: pipelines.iter().all(|verdict| verdict.ready),
        pipelines,
    }
}

fn verdict(status: &PipelineStatus, limits: &Limits, now: Timestamp) -> Verdict {
    let mut complaints = complaints(status, limits, now);
    complaints.sort_by_key(|(health, _)| std::cmp::Reverse(*health));
    let worst = complaints.first().map_or(Health::Healthy, |(health, _)| *health);
    let health = of_state(status.state).max(worst);
    let mut reasons = vec![format!("{}: {}", status.state, status.reason)];
    reasons.extend(complaints.into_iter().map(|(_, reason)| reason));
    Verdict {
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

/// States in which a loop runs that could answer.
fn has_loop(state: State) -> bool {
    matches!(state, State::Running | State::Paused | State::Draining)
}

fn complaints(status: &PipelineStatus, limits: &Limits, now: Timestamp) -> Vec<(Health, String)> {
    let mut found = Vec::new();
    let silence = now.since(status.answered);
    if has_loop(status.state) && silence > limits.answer {
        found.push((by_age(silence, limits), format!("its loop has not answered for {}", words(silence))));
    }
    let outages = [
        (&status.source_failing, "reading has failed for"),
        (&status.checkpoint_failing, "progress could not be committed for"),
        (&status.breaker_open, "what its handlers need could not be reached for"),
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
    let streams = [
        (status.failing_streams, "failing"),
        (status.stalled_streams, "handled without progress"),
        (status.parked_streams, "parked"),
    ];
    for (count, text) in streams {
        if count > 0 {
            found.push((Health::Degraded, format!("streams {text}: {count}")));
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
        let verdict = &judged.pipelines[0];
        expected.assert_eq(&format!(
            "{:?} {} {}: {}",
            judged.health,
            if judged.ready { "ready" } else { "unready" },
            judged.status_code(),
            verdict.reasons.join("; ")
        ));
    }

    #[test]
    fn a_running_pipeline_without_complaints_is_healthy() {
        check(&running(), &expect!["Healthy ready 200: running: started"]);
    }

    #[test]
    fn r67_a_loop_that_stands_still_is_found_by_its_silence() {
        check(
            &PipelineStatus { answered: ago(11), ..running() },
            &expect!["Degraded ready 200: running: started; its loop has not answered for 11s"],
        );
        check(
            &PipelineStatus { answered: ago(301), ..running() },
            &expect!["Failed unready 503: running: started; its loop has not answered for 5m 1s"],
        );
    }

    #[test]
    fn r67_a_pipeline_without_a_loop_is_not_blamed_for_silence() {
        let status = PipelineStatus { answered: ago(900), ..running() };
        check(
            &PipelineStatus { state: State::Finished, reason: "at its tail".into(), ..status },
            &expect!["Healthy ready 200: finished: at its tail"],
        );
    }

    #[test]
    fn r8_commits_that_fail_turn_yellow_then_red() {
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
    fn r28_work_without_progress_is_a_failure_in_the_end() {
        check(
            &PipelineStatus { no_progress: Some(ago(600)), ..running() },
            &expect!["Failed unready 503: running: started; there is work, but nothing has been handled for 10m"],
        );
    }

    #[test]
    fn r36_a_pipeline_that_restarts_again_and_again_has_failed() {
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
                "Failed unready 503: halted: event 4 of stream `a-1` cannot be handled; what its handlers need could not be reached for 6m 40s: connection refused; streams failing: 2"
            ],
        );
    }

    #[test]
    fn r66_the_daemon_is_as_well_as_the_worst_pipeline_and_each_has_its_reason() {
        let halted = PipelineStatus::new("billing", State::Halted, "it was told so", ago(5));
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
                    "halted: it was told so"
                  ]
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&judged).unwrap());
        assert_eq!(judge(&[], &Limits::default(), NOW).health, Health::Healthy);
    }

    #[test]
    fn r66_people_get_a_line_for_each_pipeline_and_one_for_each_complaint() {
        let billing = PipelineStatus {
            failing_streams: 2,
            breaker_open: Some(outage(30)),
            ..PipelineStatus::new("billing", State::Halted, "it was told so", ago(5))
        };
        let judged = judge(&[running(), billing], &Limits::default(), NOW);
        expect![[r#"
            orders   healthy   running: started
            billing  failed    halted: it was told so
                               what its handlers need could not be reached for 30s: connection refused
                               streams failing: 2
            failed and not ready
        "#]]
        .assert_eq(&judged.to_string());
        let read = serde_json::from_str::<Judgement>(&serde_json::to_string(&judged).unwrap()).unwrap();
        assert_eq!(read, judged, "what is served is what is read");
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
