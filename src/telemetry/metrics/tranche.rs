//! The metrics of one tranche.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter};
use time::OffsetDateTime;

use super::families::Families;
use super::local::Stage;
use super::series::{Age, Reading, WallAge};
use super::summary::CoarseSummary;
use super::totals::TrancheTotals;
use crate::clock::Timestamp;
use crate::position::{Position, TrancheId};
use crate::scheduler::TrancheReport;
use crate::source::{Lag, LagUnit};

/// A page returned by a read.
#[derive(Clone, Copy, Debug)]
pub struct PageRead<'a> {
    pub events: usize,
    /// The duration of the read.
    pub took: Duration,
    /// The position at which reading resumes.
    pub resume_at: &'a Position,
    /// The timestamp of its newest event, if the event carries one.
    pub newest: Option<OffsetDateTime>,
    /// The size of the backlog, if the source knows it.
    pub lag: Option<Lag>,
}

/// The metrics of one tranche. Clones share them.
#[derive(Clone)]
pub struct TrancheMetrics {
    shared: Arc<Shared>,
}

struct Shared {
    tranche: TrancheId,
    read: Histogram,
    read_stage: Histogram,
    read_age: Age,
    read_summary: CoarseSummary,
    ingest: Histogram,
    ingest_summary: CoarseSummary,
    position: Reading,
    queue: Gauge,
    pages: IntCounter,
    items: IntCounter,
    lag_events: Reading,
    lag_bytes: Reading,
    lag_valid: Gauge,
    event_age: WallAge,
    read_failures: IntCounter,
    ahead_events: Gauge,
    ahead_bytes: Gauge,
    uncommitted: Age,
    commits: IntCounter,
    commit_failures: IntCounter,
    gap_events: Gauge,
    blocked: Age,
    exposure: Gauge,
    set_bytes: Gauge,
}

impl TrancheMetrics {
    pub(super) fn new(families: &Families, pipeline: &str, source: &str, tranche: &TrancheId) -> Self {
        let (feed, checkpoint) = (&families.feed, &families.checkpoint);
        let (of_feed, of_tranche) = ([pipeline, source, tranche.as_str()], [pipeline, tranche.as_str()]);
        let lag = |unit| feed.lag.get(&[pipeline, tranche.as_str(), unit]);
        let shared = Shared {
            tranche: tranche.clone(),
            read: feed.read.get(&of_feed),
            read_stage: families.pipeline.stage.get(&[pipeline, Stage::Read.as_str()]),
            read_age: feed.read_age.get(&of_tranche),
            read_summary: feed.read_summary.get(&of_feed),
            ingest: feed.ingest.get(&of_feed),
            ingest_summary: feed.ingest_summary.get(&of_feed),
            position: feed.position.get(&of_feed),
            queue: feed.queue.get(&of_feed),
            pages: feed.pages.get(&of_feed),
            items: feed.items.get(&of_feed),
            lag_events: lag("events"),
            lag_bytes: lag("bytes"),
            lag_valid: feed.lag_valid.get(&of_tranche),
            event_age: feed.event_age.get(&of_tranche),
            read_failures: feed.failures.get(&of_tranche),
            ahead_events: feed.ahead_events.get(&of_tranche),
            ahead_bytes: feed.ahead_bytes.get(&of_tranche),
            uncommitted: checkpoint.age.get(&of_tranche),
            commits: checkpoint.commits.get(&of_tranche),
            commit_failures: checkpoint.failures.get(&of_tranche),
            gap_events: checkpoint.gap_events.get(&of_tranche),
            blocked: checkpoint.blocked.get(&of_tranche),
            exposure: checkpoint.exposure.get(&of_tranche),
            set_bytes: checkpoint.set_bytes.get(&of_tranche),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Counts a page, also as the stage `read`. An empty page is neither counted nor timed, because such a read mostly
    /// waits at the tail.
    pub fn page_read(&self, page: PageRead<'_>) {
        self.shared.read_age.restart();
        self.lag(page.lag);
        self.shared.position.set(match page.resume_at {
            Position::Number(number) => Some(*number as f64),
            Position::Token(_) => None,
        });
        if let Some(newest) = page.newest {
            self.shared.event_age.raise(newest);
        }
        if page.events > 0 {
            self.shared.pages.inc();
            self.shared.items.inc_by(page.events as u64);
            self.shared.read.observe(page.took.as_secs_f64());
            self.shared.read_stage.observe(page.took.as_secs_f64());
            self.shared.read_summary.0.observe(page.took);
        }
    }

    /// Sets the lag and the ages to 0 at the end of the tranche (R25).
    pub fn closed(&self) {
        self.shared.read_age.set(None);
    }

    /// Counts the hand-over of a page: `waited` for room, and `queue` batches in memory afterwards.
    pub fn ingested(&self, waited: Duration, queue: usize) {
        self.shared.ingest.observe(waited.as_secs_f64());
        self.shared.ingest_summary.0.observe(waited);
        self.shared.queue.set(queue as f64);
    }

    /// Sets the lag. An unknown lag is absent: it is neither 0 nor the last known value (R69).
    pub fn lag(&self, lag: Option<Lag>) {
        let amount = |unit| lag.filter(|lag| lag.unit == unit).map(|lag| lag.amount as f64);
        self.shared.lag_events.set(amount(LagUnit::Events));
        self.shared.lag_bytes.set(amount(LagUnit::Bytes));
        self.shared.lag_valid.set(if lag.is_some() { 1.0 } else { 0.0 });
    }

    /// Counts a failed read. The lag is unknown until the next successful one.
    pub fn read_failed(&self) {
        self.shared.read_failures.inc();
        self.lag(None);
    }

    /// Shows the scheduler's report on the tranche (R11).
    pub fn show(&self, report: &TrancheReport) {
        self.shared.ahead_events.set(report.ahead as f64);
        self.shared.ahead_bytes.set(report.bytes as f64);
        self.shared.gap_events.set(report.ahead.saturating_sub(report.unhandled) as f64);
        self.shared.blocked.set(report.blocked_since);
    }

    /// Returns the counts so far.
    pub(super) fn totals(&self) -> TrancheTotals {
        let of = &self.shared;
        TrancheTotals {
            pages: of.pages.get(),
            events: of.items.get(),
            read_seconds: of.read.get_sample_sum(),
            waited_seconds: of.ingest.get_sample_sum(),
            read_failures: of.read_failures.get(),
            commits: of.commits.get(),
            commit_failures: of.commit_failures.get(),
        }
    }

    /// Counts a commit of progress.
    pub fn committed(&self) {
        self.shared.commits.inc();
    }

    /// Counts a failed commit of progress (R8).
    pub fn commit_failed(&self) {
        self.shared.commit_failures.inc();
    }

    /// Sets the time since which progress has been uncommitted; `None` if all of it is committed. An idle tranche
    /// commits nothing (R68), and its age stays 0.
    pub fn uncommitted_since(&self, since: Option<Timestamp>) {
        self.shared.uncommitted.set(since);
    }

    /// Sets the number of handled events that a crash now would replay.
    pub fn replay_exposure(&self, events: u64) {
        self.shared.exposure.set(events as f64);
    }

    /// Sets the encoded size of the set of handled ordinals (C14, R14).
    pub fn set_bytes(&self, bytes: usize) {
        self.shared.set_bytes.set(bytes as f64);
    }
}

impl fmt::Debug for TrancheMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrancheMetrics").field(&self.shared.tranche).finish()
    }
}
