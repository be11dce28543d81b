//! What a pipeline counts as it goes. Counts of calls are kept here and shown ten times a second, not once a call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::driver::Driver;
use super::questions::View;
use crate::clock::Timestamp;
use crate::handler::HandlerErrorKind;
use crate::position::TrancheId;
use crate::source::{Batch, Lag};
use crate::telemetry::metrics::{Activity, LocalMetrics, PageRead, PipelineMetrics, Stage, TrancheMetrics};
use crate::trace::Recorder;
use crate::work::Work;

/// How often what was counted is shown.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Where a pipeline's counts go, and its spans.
#[derive(Clone, Debug)]
pub struct Observer {
    metrics: PipelineMetrics,
    source: Arc<str>,
    recorder: Option<Recorder>,
}

impl Observer {
    /// `source` names the origin of the events, as checkpoints do.
    pub fn new(metrics: PipelineMetrics, source: Arc<str>) -> Self {
        Self { metrics, source, recorder: None }
    }

    /// Records spans, too, if there is something that takes them.
    pub fn tracing(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    pub(super) fn recorder(&self) -> Option<Recorder> {
        self.recorder.clone()
    }

    pub(super) fn restarted(&self) {
        self.metrics.restarted();
    }

    /// Begins to count for one run.
    pub(super) fn start(&self) -> Counts {
        Counts {
            local: self.metrics.local(),
            metrics: self.metrics.clone(),
            source: Arc::clone(&self.source),
            tranches: BTreeMap::new(),
            flushed: Timestamp::ZERO,
            parked: 0,
        }
    }
}

/// What one run of a pipeline counts.
pub(super) struct Counts {
    local: LocalMetrics,
    metrics: PipelineMetrics,
    source: Arc<str>,
    tranches: BTreeMap<TrancheId, Counted>,
    flushed: Timestamp,
    parked: u64,
}

/// What is counted of a tranche.
struct Counted {
    metrics: TrancheMetrics,
    /// When it last had room for a batch.
    room_at: Option<Timestamp>,
    waited: Duration,
    /// Events that were handled when progress was last stored.
    stored_events: u64,
}

impl Counts {
    pub(super) fn tranche_added(&mut self, tranche: &TrancheId) {
        let metrics = self.metrics.tranche(&self.source, tranche);
        let counted = Counted { metrics, room_at: None, waited: Duration::ZERO, stored_events: 0 };
        self.tranches.insert(tranche.clone(), counted);
    }

    pub(super) fn tranche_gone(&mut self, tranche: &TrancheId) {
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

    /// A batch was taken in, with this many held then.
    pub(super) fn ingested(&mut self, tranche: &TrancheId, batches: usize, took: Duration) {
        self.local.worked(Activity::Ingest, took);
        if let Some(counted) = self.tranches.get_mut(tranche) {
            counted.metrics.ingested(std::mem::take(&mut counted.waited), batches);
        }
    }

    /// Says whether the limits leave room for reading: what is waited for it is what `ingest_seconds` measures.
    pub(super) fn room(&mut self, tranche: &TrancheId, room: bool, lag: Option<Lag>, now: Timestamp) {
        let Some(counted) = self.tranches.get_mut(tranche) else { return };
        match (room, counted.room_at) {
            (false, None) => counted.room_at = Some(now),
            (true, Some(since)) => {
                counted.waited += now.since(since);
                counted.room_at = None;
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
            HandlerErrorKind::Transient | HandlerErrorKind::TimedOut | HandlerErrorKind::Permanent => {}
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
        }
    }

    pub(super) fn checkpoint_failed(&self, tranche: &TrancheId, since: Timestamp) {
        if let Some(counted) = self.tranches.get(tranche) {
            counted.metrics.commit_failed();
            counted.metrics.uncommitted_since(Some(since));
        }
    }

    pub(super) fn skipped(&self) {
        self.metrics.skipped(1);
    }

    pub(super) fn parked(&mut self, events: usize) {
        self.parked += events as u64;
        self.metrics.parked(self.parked);
    }

    pub(super) fn threads_replaced(&self, threads: usize) {
        (0..threads).for_each(|_| self.metrics.thread_replaced());
    }

    pub(super) fn dispatched(&mut self, took: Duration) {
        self.local.worked(Activity::Dispatch, took);
    }

    pub(super) fn took_results(&mut self, took: Duration) {
        self.local.worked(Activity::Results, took);
    }
}

impl Driver {
    /// Shows what was counted, now and then.
    pub(super) fn flush_counts(&mut self) {
        if self.now.since(self.counts.flushed) < FLUSH_EVERY && self.draining.is_none() {
            return;
        }
        self.counts.flushed = self.now;
        self.counts.local.flush();
        for (tranche, counted) in &self.counts.tranches {
            if let Some(report) = self.scheduler.tranche(tranche) {
                counted.metrics.replay_exposure(report.completed_events.saturating_sub(counted.stored_events));
                counted.metrics.show(&report);
            }
        }
    }
}

/// Brings what is shown of a pipeline up to date: when it is scraped.
pub fn show(metrics: &PipelineMetrics, view: &View) {
    metrics.show(&view.streams);
    metrics.breaker(view.outage.is_some());
}
