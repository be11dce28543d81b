//! The condition of a pipeline, as its handle shows it.

use super::rate::Rate;
use crate::clock::Timestamp;
use crate::position::{Position, Progress, TrancheId};
use crate::scheduler::{Snapshot, TrancheReport};
use crate::source::{Lag, LagUnit};
use crate::telemetry::health::State;

/// The condition of a pipeline at one moment.
#[derive(Clone, Debug)]
pub struct View {
    pub at: Timestamp,
    pub tranches: Vec<TrancheView>,
    pub streams: Snapshot,
    /// The latest error of the back end that all calls wait for, and the begin of its outage.
    pub outage: Option<(String, Timestamp)>,
    /// That back end answers, but its calls fail alike.
    pub outage_answers: bool,
    /// The error that keeps progress from being committed, and its begin.
    pub checkpoint_failing: Option<(String, Timestamp)>,
    /// The error that keeps the source from reporting its tranches, and its begin.
    pub source_failing: Option<(String, Timestamp)>,
    /// The event that `require_all` waits for although everything is read, in words.
    pub missing: Option<String>,
    /// The latest failures of streams that made no progress since, at most a hundred.
    pub failures: Vec<StreamFailure>,
    /// The events of this run that were skipped, and that were parked.
    pub skipped: u64,
    pub parked: u64,
    /// The time at which events were last handled.
    pub handled_at: Timestamp,
    /// The rate of handled events.
    pub rate: Rate,
    pub calls: usize,
    pub writing: usize,
    /// Every existing tranche was reported.
    pub settled: bool,
}

impl View {
    /// Returns the sum of the lags that are known in a unit. `None`: no tranche knows one.
    pub fn lag(&self, unit: LagUnit) -> Option<u64> {
        let lags = self.tranches.iter().filter_map(|tranche| tranche.lag).filter(|lag| lag.unit == unit);
        lags.map(|lag| lag.amount).reduce(|a, b| a + b)
    }

    /// Returns the number of events that were read and are not handled.
    pub fn unhandled(&self) -> u64 {
        self.reports().map(|report| report.unhandled).sum()
    }

    /// Returns the reports of the open tranches.
    pub fn reports(&self) -> impl Iterator<Item = &TrancheReport> {
        self.tranches.iter().filter_map(|tranche| tranche.report.as_ref())
    }

    /// Returns the reason for which a tranche waits for the pipeline that this one comes after.
    pub fn waits_for(&self) -> Option<&str> {
        self.tranches.iter().find_map(|tranche| tranche.waits_for.as_deref())
    }

    /// Returns the last failure of the stream that has failed for the longest time.
    pub fn longest_failure(&self) -> Option<&StreamFailure> {
        self.failures.iter().min_by_key(|failure| failure.since)
    }
}

/// The last failure of a stream's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFailure {
    /// On a sparse source, tranche and name together identify a stream (C4).
    pub tranche: TrancheId,
    pub stream: String,
    pub index: i64,
    pub class: &'static str,
    pub error: String,
    pub attempts: u32,
    pub since: Timestamp,
    /// `None`: no attempt follows.
    pub next_try: Option<Timestamp>,
}

/// The condition of one tranche.
#[derive(Clone, Debug)]
pub struct TrancheView {
    pub tranche: String,
    pub phase: &'static str,
    pub at_tail: bool,
    pub lag: Option<Lag>,
    /// The position behind the last read; `None` before the first one.
    pub read: Option<Position>,
    /// The stored progress.
    pub committed: Option<Progress>,
    /// The stored position as a short text.
    pub stored_at: Option<String>,
    pub committed_at: Option<Timestamp>,
    /// `None` before it is opened.
    pub report: Option<TrancheReport>,
    /// The error that keeps it from being claimed or read, and its begin.
    pub trouble: Option<(String, Timestamp)>,
    /// The reason for which read events wait for the pipeline that this one comes after. It names both.
    pub waits_for: Option<String>,
}

/// The state of a pipeline, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    pub reason: String,
    pub since: Timestamp,
    /// Failures in a row, each followed by a restart.
    pub restarts: u32,
}
