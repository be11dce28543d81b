//! The counts of a pipeline. The driver counts calls locally, and shows them ten times a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::view::View;
use crate::clock::Timestamp;
use crate::handler::HandlerErrorKind;
use crate::position::TrancheId;
use crate::scheduler::Scheduler;
use crate::source::{Batch, Lag};
use crate::telemetry::metrics::{Activity, LocalMetrics, PageRead, PipelineMetrics, Stage, TrancheMetrics};
use crate::trace::Recorder;
use crate::work::Work;

/// The interval at which counts are shown.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// The receivers of a pipeline's counts and spans.
#[derive(Clone, Debug)]
pub struct Observer {
    metrics: PipelineMetrics,
    source: Arc<str>,
    recorder: Option<Recorder>,
}

impl Observer {
    /// Makes an observer. `source` names the origin of the events, as checkpoint keys do.
    pub fn new(metrics: PipelineMetrics, source: Arc<str>) -> Self {
        Self { metrics, source, recorder: None }
    }

    /// Adds a receiver of spans.
    pub fn tracing(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    pub(super) fn recorder(&self) -> Option<Recorder> {
        self.recorder.clone()
    }

    pub(super) fn restarted(&self) {
        self.metrics.restarted();
    }

    /// Begins the counts of one run.
    pub(super) fn start(&self) -> Counts {
        Counts {
            local: self.metrics.local(),
            metrics: self.metrics.clone(),
            source: Arc::clone(&self.source),
            tranches: BTreeMap::new(),
            flushed: Timestamp::ZERO,
            changed: BTreeSet::new(),
            skipped: 0,
            parked: 0,
        }
    }
}

/// The counts of one run of a pipeline.
pub(super) struct Counts {
    local: LocalMetrics,
    metrics: PipelineMetrics,
    source: Arc<str>,
    tranches: BTreeMap<TrancheId, Counted>,
    flushed: Timestamp,
    /// Tranches whose gauges are out of date.
    changed: BTreeSet<TrancheId>,
    pub(super) skipped: u64,
    pub(super) parked: u64,
}

/// The counts of a tranche.
struct Counted {
    metrics: TrancheMetrics,
    /// The time since when it has no room for a batch.
    full_since: Option<Timestamp>,
    waited: Duration,
    /// The handled events that the stored progress covers.
    stored_events: u64,
}

impl Counts {
    pub(super) fn tranche_added(&mut self, tranche: &TrancheId) {
        let metrics = self.metrics.tranche(&self.source, tranche);
        let counted = Counted { metrics, full_since: None, waited: Duration::ZERO, stored_events: 0 };
        self.tranches.insert(tranche.clone(), counted);
    }

    pub(super) fn tranche_gone(&mut self, tranche: &TrancheId) {
        self.changed.remove(tranche);
        self.tranches.remove(tranche);
        self.metrics.remove_tranche(tranche);
    }

    pub(super) fn tranche_ended(&self, tranche: &TrancheId) {
        if let Some(counted) = self.tranches.get(tranche) {
            counted.metrics.closed();
        }
    }

    pub(super) fn batch_read(
        &mut self,
        tranche: &TrancheId,
        batch: &Batch,
        newest: Option<time::OffsetDateTime>,
        took: Duration,
    ) {
        if let Some(counted) = self.tranches.get(tranche) {
            let page =
                PageRead { events: batch.events.len(), took, resume_at: &batch.resume_at, newest, lag: batch.lag };
            counted.metrics.page_read(page);
        }
    }

    pub(super) fn read_failed(&self, tranche: &TrancheId) {
        if let Some(counted) = self.tranches.get(tranche) {
            counted.metrics.read_failed();
        }
    }

    /// Counts an ingested batch, with the number of batches held then. An empty one only costs time.
    pub(super) fn ingested(&mut self, tranche: &TrancheId, events: usize, batches: usize, took: Duration) {
        self.local.worked(Activity::Ingest, took);
        if let Some(counted) = self.tranches.get_mut(tranche).filter(|_| events > 0) {
            counted.metrics.ingested(std::mem::take(&mut counted.waited), batches);
        }
    }

    /// Notes whether the limits leave room for reading. `ingest_seconds` measures the waits for it.
    pub(super) fn room(&mut self, tranche: &TrancheId, room: bool, lag: Option<Lag>, now: Timestamp) {
        let Some(counted) = self.tranches.get_mut(tranche) else { return };
        match (room, counted.full_since) {
            (false, None) => counted.full_since = Some(now),
            (true, Some(since)) => {
                counted.waited += now.since(since);
                counted.full_since = None;
                counted.metrics.lag(lag);
            }
            _ => {}
        }
    }

    pub(super) fn offered(&mut self, streams: &[Work], now: Timestamp) {
        for work in streams {
            self.local.spent(Stage::Queue, now.since(work.read_at));
        }
    }

    pub(super) fn called(&mut self, kind: &str, took: Duration) {
        self.local.handled(kind, took);
        self.local.spent(Stage::Handle, took);
    }

    pub(super) fn handled(&mut self, work: &Work) {
        self.local.events_handled(work.events.len());
    }

    pub(super) fn failed(&mut self, kind: HandlerErrorKind) {
        match kind {
            HandlerErrorKind::Unavailable => self.metrics.unavailable(),
            HandlerErrorKind::Throttled => self.metrics.throttled(),
            HandlerErrorKind::Malformed => self.metrics.malformed(),
            HandlerErrorKind::Transient
            | HandlerErrorKind::TimedOut
            | HandlerErrorKind::Permanent
            | HandlerErrorKind::Unusable => {}
        }
    }

    pub(super) fn committed(&mut self, took: Duration) {
        self.local.spent(Stage::Commit, took);
    }

    pub(super) fn checkpoint_stored(&mut self, tranche: &TrancheId, handled: u64, set_bytes: usize) {
        if let Some(counted) = self.tranches.get_mut(tranche) {
            counted.stored_events = handled;
            counted.metrics.committed();
            counted.metrics.uncommitted_since(None);
            counted.metrics.set_bytes(set_bytes);
            self.changed.insert(tranche.clone());
        }
    }

    /// Notes that progress is stored as it was when the tranche was opened.
    pub(super) fn tranche_opened(&mut self, tranche: &TrancheId) {
        if let Some(counted) = self.tranches.get_mut(tranche) {
            counted.stored_events = 0;
        }
    }

    pub(super) fn checkpoint_failed(&self, tranche: &TrancheId, since: Timestamp) {
        if let Some(counted) = self.tranches.get(tranche) {
            counted.metrics.commit_failed();
            counted.metrics.uncommitted_since(Some(since));
        }
    }

    pub(super) fn event_skipped(&mut self) {
        self.skipped += 1;
        self.metrics.skipped(1);
    }

    pub(super) fn events_parked(&mut self, events: usize) {
        self.parked += events as u64;
    }

    /// Counts parked events that were handled after all.
    pub(super) fn events_retried(&self, events: usize) {
        self.metrics.retried(events as u64);
    }

    /// Shows the size of the parked store.
    pub(super) fn parked_size(&self, events: u64, bytes: u64) {
        self.metrics.parked(events, bytes);
    }

    pub(super) fn threads_replaced(&self, threads: usize) {
        (0..threads).for_each(|_| self.metrics.thread_replaced());
    }

    pub(super) fn dispatched(&mut self, took: Duration) {
        self.local.worked(Activity::Dispatch, took);
    }

    /// Notes that a tranche changed, so that its gauges are shown again.
    pub(super) fn changed(&mut self, tranche: TrancheId) {
        self.changed.insert(tranche);
    }

    /// Shows the counts, at most ten times a second unless `force` says so. Costs by the tranches that changed.
    pub(super) fn flush(&mut self, scheduler: &Scheduler, now: Timestamp, force: bool) {
        if now.since(self.flushed) < FLUSH_EVERY && !force {
            return;
        }
        self.flushed = now;
        self.local.flush();
        for tranche in std::mem::take(&mut self.changed) {
            let (Some(counted), Some(report)) = (self.tranches.get(&tranche), scheduler.tranche(&tranche)) else {
                continue;
            };
            counted.metrics.replay_exposure(report.completed_events.saturating_sub(counted.stored_events));
            counted.metrics.show(&report);
        }
    }

    pub(super) fn took_results(&mut self, took: Duration) {
        self.local.worked(Activity::Results, took);
    }
}

/// Brings the gauges of a pipeline up to date, for a scrape.
pub fn show(metrics: &PipelineMetrics, view: &View) {
    metrics.show(&view.streams);
    metrics.breaker(view.outage.is_some());
}
