//! The periodic log lines of a pipeline: its work since the last ones, and its condition.
//!
//! | line | level | contents |
//! |---|---|---|
//! | `stats` | info | handled events and their rate, calls, work in flight, backlog, the stored position of a single tranche |
//! | `stats: stalled`, `stats: failing` | error, warning | number, ages, and the oldest streams |
//! | `stats: calls` | debug | for each kind of result: the number of calls, and the seconds of those in the last minute |
//! | `stats: loop` | debug | the seconds that the driver worked |
//! | `stats: streams` | debug | streams by state, and those with most bytes in their backlog |
//! | `stats: active`, `stats: parked` | debug | number, ages, and the oldest streams |
//! | `stats: tranche` | debug | read and stored positions, time spent reading, backlog |
//!
//! A running pipeline thus logs one line an interval at the default level, and an idle and healthy one none. A stream is
//! shown as `name@index×events`: its first queued index and the number of queued events. Most fields are left out if
//! they are 0.

use std::time::Duration;

use super::view::{Standing, TrancheView, View};
use crate::clock::Timestamp;
use crate::scheduler::{Snapshot, StateTotals, StreamReport, StreamState};
use crate::source::LagUnit;
use crate::telemetry::metrics::{Activity, KindTotals, OK, Totals, TrancheTotals};

/// The target of the lines, so that `info,propulsiond::stats=off` does without them.
const TARGET: &str = "propulsiond::stats";

/// The number of streams, and of tranches, that a line names.
const STREAMS: usize = 5;
const TRANCHES: usize = 16;

/// The condition and the counts of a pipeline at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    pub at: Timestamp,
    pub totals: Totals,
    pub standing: Standing,
    /// `None`: it has not run yet.
    pub view: Option<View>,
}

/// Logs the stats of one pipeline.
#[derive(Debug)]
pub struct Stats {
    last: Reading,
}

impl Stats {
    /// Begins with the counts so far.
    pub fn new(first: Reading) -> Self {
        Self { last: first }
    }

    /// Logs the work since the last reading, unless the pipeline is idle and healthy.
    pub fn log(&mut self, now: Reading) {
        let last = std::mem::replace(&mut self.last, now);
        let Reading { at, totals, standing, view } = &self.last;
        let Some(view) = view else { return };
        let since = Since { before: &last.totals, now: totals, seconds: at.since(last.at).as_secs_f64() };
        if since.nothing() && last.standing.state == standing.state && !needs_attention(view) {
            return;
        }
        since.log_summary(standing, view);
        since.log_calls();
        since.log_loop();
        log_streams(&view.streams);
        log_busy(&view.streams);
        since.log_tranches(view);
    }
}

fn needs_attention(view: &View) -> bool {
    let streams = &view.streams;
    view.outage.is_some()
        || view.checkpoint_failing.is_some()
        || [&streams.failing, &streams.stalled, &streams.active].iter().any(|state| state.streams > 0)
        || view.tranches.iter().any(|tranche| tranche.trouble.is_some())
}

/// The counts between two readings.
struct Since<'a> {
    before: &'a Totals,
    now: &'a Totals,
    seconds: f64,
}

impl Since<'_> {
    fn nothing(&self) -> bool {
        let tranches = |totals: &Totals| {
            let counts = |of: &TrancheTotals| (of.pages, of.read_failures, of.commits, of.commit_failures);
            totals.tranches.iter().map(|(id, of)| (id.clone(), counts(of))).collect::<Vec<_>>()
        };
        let calls = |totals: &Totals| totals.calls.iter().map(|kind| kind.calls).sum::<u64>();
        let counts =
            |totals: &Totals| (totals.events, totals.skipped, totals.restarts, calls(totals), tranches(totals));
        counts(self.before) == counts(self.now)
    }

    fn calls(&self, kind: &KindTotals) -> u64 {
        let before = self.before.calls.iter().find(|before| before.kind == kind.kind);
        kind.calls - before.map_or(0, |before| before.calls)
    }

    fn log_summary(&self, standing: &Standing, view: &View) {
        let events = self.now.events - self.before.events;
        let not_ok = self.now.calls.iter().filter(|kind| *kind.kind != *OK).map(|kind| self.calls(kind)).sum();
        let lag = |unit| view.lag(unit).and_then(some);
        let stored_at = match &*view.tranches {
            [tranche] => tranche.stored_at.as_deref(),
            _ => None,
        };
        tracing::info!(
            target: TARGET,
            state = %standing.state,
            handled = events,
            per_second = (events as f64 / self.seconds.max(0.001)).round() as u64,
            calls = self.now.calls.iter().map(|kind| self.calls(kind)).sum::<u64>(),
            not_ok = some(not_ok),
            skipped = some(self.now.skipped - self.before.skipped),
            restarts = some(self.now.restarts - self.before.restarts),
            running = some(view.calls as u64),
            writing = some(view.writing as u64),
            unhandled = some(view.unhandled()),
            lag_events = lag(LagUnit::Events),
            lag_bytes = lag(LagUnit::Bytes),
            parked = some(view.streams.parked.streams as u64),
            stored_at,
            waits_for = view.outage.as_ref().map(|(why, _)| why.as_str()),
            cannot_store = view.checkpoint_failing.as_ref().map(|(why, _)| why.as_str()),
            "stats"
        );
    }

    fn log_calls(&self) {
        for kind in &self.now.calls {
            let (calls, Some(recent)) = (self.calls(kind), kind.recent) else { continue };
            if calls == 0 {
                continue;
            }
            tracing::debug!(
                target: TARGET,
                kind = &*kind.kind,
                calls,
                max = precise(recent.max),
                p99 = precise(recent.p99),
                p95 = precise(recent.p95),
                p50 = precise(recent.p50),
                min = precise(recent.min),
                mean = precise(recent.mean),
                stddev = precise(recent.stddev),
                "stats: calls"
            );
        }
    }

    fn log_loop(&self) {
        let spent = |activity: Activity| {
            let of = |totals: &Totals| {
                totals.loop_seconds.iter().find(|(other, _)| *other == activity).map_or(0.0, |(_, seconds)| *seconds)
            };
            of(self.now) - of(self.before)
        };
        let (ingest, dispatch, results) =
            (spent(Activity::Ingest), spent(Activity::Dispatch), spent(Activity::Results));
        tracing::debug!(
            target: TARGET,
            ingest = rounded(ingest),
            dispatch = rounded(dispatch),
            results = rounded(results),
            busy_percent = ((ingest + dispatch + results) / self.seconds.max(0.001) * 100.0).round() as u64,
            "stats: loop"
        );
    }

    /// Logs the tranches that changed, those farthest ahead of their stored position first.
    fn log_tranches(&self, view: &View) {
        let mut tranches: Vec<_> = view.tranches.iter().filter(|tranche| self.is_worth_a_line(tranche)).collect();
        let ahead = |tranche: &TrancheView| tranche.report.as_ref().map_or(0, |report| report.ahead);
        tranches.sort_by(|a, b| ahead(b).cmp(&ahead(a)).then_with(|| a.tranche.cmp(&b.tranche)));
        for tranche in tranches.iter().take(TRANCHES) {
            self.log_tranche(tranche, view.at);
        }
        if let Some(rest @ 1..) = tranches.len().checked_sub(TRANCHES) {
            tracing::debug!(target: TARGET, tranches = rest, "stats: other tranches");
        }
    }

    fn counted(&self, tranche: &TrancheView) -> TrancheTotals {
        let id = crate::position::TrancheId::new(tranche.tranche.as_str());
        let now = self.now.tranches.get(&id).copied().unwrap_or_default();
        let before = self.before.tranches.get(&id).copied().unwrap_or_default();
        // A tranche that was assigned again counts from 0.
        let since = |now: u64, before: u64| if now >= before { now - before } else { now };
        let seconds = |now: f64, before: f64| if now >= before { now - before } else { now };
        TrancheTotals {
            pages: since(now.pages, before.pages),
            events: since(now.events, before.events),
            read_seconds: seconds(now.read_seconds, before.read_seconds),
            waited_seconds: seconds(now.waited_seconds, before.waited_seconds),
            read_failures: since(now.read_failures, before.read_failures),
            commits: since(now.commits, before.commits),
            commit_failures: since(now.commit_failures, before.commit_failures),
        }
    }

    fn is_worth_a_line(&self, tranche: &TrancheView) -> bool {
        let counted = self.counted(tranche);
        counted.pages + counted.read_failures + counted.commits + counted.commit_failures > 0
            || tranche.trouble.is_some()
            || tranche.waits_for.is_some()
            || tranche.report.as_ref().is_some_and(|report| report.unhandled > 0)
    }

    fn log_tranche(&self, tranche: &TrancheView, now: Timestamp) {
        let counted = self.counted(tranche);
        let report = tranche.report.as_ref();
        let lag = |unit| tranche.lag.filter(|lag| lag.unit == unit).map(|lag| lag.amount);
        tracing::debug!(
            target: TARGET,
            tranche = tranche.tranche.as_str(),
            state = state_of(tranche),
            read = tranche.read.as_ref().map(tracing::field::display),
            stored = tranche.stored_at.as_deref(),
            lag_events = lag(LagUnit::Events),
            lag_bytes = lag(LagUnit::Bytes),
            pages = counted.pages,
            events = counted.events,
            read_seconds = rounded(counted.read_seconds),
            waited_seconds = rounded(counted.waited_seconds),
            unhandled = report.map(|report| report.unhandled),
            ahead = report.map(|report| report.ahead),
            batches = report.map(|report| report.batches_held),
            bytes = report.map(|report| report.bytes),
            blocked_seconds = report.and_then(|report| report.blocked_since).map(|since| whole(now.since(since))),
            commits = counted.commits,
            commit_failures = some(counted.commit_failures),
            read_failures = some(counted.read_failures),
            trouble = tranche.trouble.as_ref().map(|(why, _)| why.as_str()),
            waits_for = tranche.waits_for.as_deref(),
            "stats: tranche"
        );
    }
}

fn stored(tranche: &TrancheView) -> Option<&crate::position::Position> {
    tranche.committed.as_ref().and_then(|progress| progress.position.as_ref())
}

/// Returns the state of reading. `complete`: at the tail, and all of it is handled and stored.
fn state_of(tranche: &TrancheView) -> &'static str {
    match tranche.phase {
        "reading" if tranche.at_tail && tranche.read.as_ref() == stored(tranche) => "complete",
        "reading" if tranche.at_tail => "tail",
        "reading" => "busy",
        phase => phase,
    }
}

fn log_streams(streams: &Snapshot) {
    let queued = [&streams.ready, &streams.waiting, &streams.failing, &streams.stalled, &streams.deferred];
    tracing::debug!(
        target: TARGET,
        idle = streams.idle,
        ready = streams.ready.streams,
        active = streams.active.streams,
        waiting = some(streams.waiting.streams as u64),
        deferred = some(streams.deferred.streams as u64),
        failing = some(streams.failing.streams as u64),
        stalled = some(streams.stalled.streams as u64),
        parked = some(streams.parked.streams as u64),
        late = some(streams.late_events),
        duplicates = some(streams.duplicates),
        events = queued.iter().map(|state| state.events).sum::<usize>(),
        bytes = queued.iter().map(|state| state.bytes).sum::<usize>(),
        largest = list(&streams.largest, |stream| format!("{} {} bytes", label(stream), stream.bytes)),
        "stats: streams"
    );
}

/// Logs the states in which streams should not stay: as an error or a warning if an operator must act, else as a detail.
fn log_busy(streams: &Snapshot) {
    macro_rules! line {
        ($level:ident, $state:expr, $totals:expr, $message:literal) => {
            let totals: &StateTotals = $totals;
            if totals.streams > 0 {
                let longest: Vec<_> = streams.streams.iter().filter(|stream| stream.state == $state).collect();
                tracing::$level!(
                    target: TARGET,
                    streams = totals.streams,
                    events = totals.events,
                    oldest_seconds = whole(totals.oldest),
                    newest_seconds = whole(totals.newest),
                    attempts = some(longest.iter().map(|stream| u64::from(stream.failures)).max().unwrap_or(0)),
                    longest = list(longest, |stream| format!("{} {}s", label(stream), whole(stream.age))),
                    $message
                );
            }
        };
    }
    line!(error, StreamState::Stalled, &streams.stalled, "stats: stalled");
    line!(warn, StreamState::Failing, &streams.failing, "stats: failing");
    line!(debug, StreamState::Active, &streams.active, "stats: active");
    line!(debug, StreamState::Parked, &streams.parked, "stats: parked");
}

fn label(stream: &StreamReport) -> String {
    match stream.head {
        Some(head) => format!("{}@{head}×{}", stream.stream, stream.events),
        None => format!("{}×{}", stream.stream, stream.events),
    }
}

fn list<'a>(
    streams: impl IntoIterator<Item = &'a StreamReport>,
    show: impl Fn(&StreamReport) -> String,
) -> Option<String> {
    let shown: Vec<_> = streams.into_iter().take(STREAMS).map(show).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// Leaves out a count of 0.
fn some(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

/// Rounds seconds to milliseconds.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

/// Rounds seconds to microseconds: many calls take less than a millisecond.
fn precise(seconds: f64) -> f64 {
    (seconds * 1_000_000.0).round() / 1_000_000.0
}

fn whole(age: Duration) -> u64 {
    age.as_secs()
}

#[cfg(test)]
mod tests;
