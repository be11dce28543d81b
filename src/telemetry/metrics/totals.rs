//! A pipeline's counts so far. A periodic log line shows their difference to earlier ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::local::Activity;
use super::summary::Recent;
use crate::position::TrancheId;

/// The counts of a pipeline since the start of the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Handled events.
    pub events: u64,
    pub skipped: u64,
    pub restarts: u64,
    /// Results by kind: [`OK`](super::OK) first, then by name.
    pub calls: Vec<KindTotals>,
    /// Seconds that the loop spent in each activity.
    pub loop_seconds: Vec<(Activity, f64)>,
    /// The tranches that this process reads.
    pub tranches: BTreeMap<TrancheId, TrancheTotals>,
}

/// The results of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct KindTotals {
    pub kind: Arc<str>,
    pub calls: u64,
    /// The durations of the last minute; `None` if there are none.
    pub recent: Option<Recent>,
}

/// The counts of a tranche.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrancheTotals {
    /// Pages with events, and their events.
    pub pages: u64,
    pub events: u64,
    /// Seconds spent on reading pages, and seconds that read pages waited for room.
    pub read_seconds: f64,
    pub waited_seconds: f64,
    pub read_failures: u64,
    pub commits: u64,
    pub commit_failures: u64,
}
