//! The views of a running pipeline.

use std::time::Duration;

use super::super::drain::HEALTHY_AFTER;
use super::super::tranches::{Phase, Tranche};
use super::super::view::{TrancheView, View};
use super::Driver;
use crate::position::TrancheId;
use crate::scheduler::{Snapshot, StreamState};

/// The number of streams in need of attention that a view lists.
const STREAMS_LISTED: usize = 100;
/// The interval at which the view of a pipeline that does not answer is renewed.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

impl Driver {
    /// Publishes a view, for the time when the driver does not answer.
    pub(super) fn publish(&mut self) {
        let is_due = self.shared.last().as_ref().is_none_or(|view| self.now.since(view.at) >= PUBLISH_EVERY);
        if !is_due && !self.drain.is_begun() {
            return;
        }
        let view = self.view();
        *self.shared.last() = Some(view);
        if self.now.since(self.started) >= HEALTHY_AFTER {
            self.shared.recovered();
        }
    }

    pub(super) fn view(&self) -> View {
        View {
            at: self.now,
            tranches: self.tranches.iter().map(|(tranche, state)| self.tranche_view(tranche, state)).collect(),
            streams: self.snapshot(),
            outage: self.breaker.outage().cloned(),
            outage_answers: self.breaker.outage_answers(),
            checkpoint_failing: self.commits.failing().cloned(),
            source_failing: self.source_failing.clone(),
            missing: self.options.require_all.then(|| self.missing_event()).flatten(),
            failures: self.failures.list(),
            skipped: self.counts.skipped,
            parked: self.counts.parked,
            handled_at: self.handled_at,
            rate: self.rate.clone(),
            calls: self.calls.deciding(),
            writing: self.writes.active() + self.writes.retries(),
            settled: self.settled,
        }
    }

    /// Returns the snapshot of the streams. To the scheduler, a stream that a handler deferred for long is parked.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.scheduler.snapshot(STREAMS_LISTED, self.now);
        let deferred = self.parks.deferred().min(snapshot.parked.streams);
        snapshot.parked.streams -= deferred;
        snapshot.deferred.streams += deferred;
        for report in snapshot.streams.iter_mut().filter(|report| report.state == StreamState::Parked) {
            if self.parks.is_deferred(&report.tranche, &report.stream) {
                report.state = StreamState::Deferred;
            }
        }
        snapshot
    }

    fn tranche_view(&self, tranche: &TrancheId, state: &Tranche) -> TrancheView {
        let trouble = match &state.phase {
            Phase::Fenced { by } => Some((format!("owned by {by}"), self.now)),
            _ => state.trouble.clone(),
        };
        let waits_for = self.follow.as_ref().and_then(|follow| follow.waits_for(tranche));
        let stored = state.claim.committed.as_ref().and_then(|progress| progress.position.as_ref());
        TrancheView {
            tranche: tranche.to_string(),
            phase: state.phase.name(),
            at_tail: state.at_tail && waits_for.is_none(),
            lag: waits_for.as_ref().and_then(|(_, lag)| *lag).or(state.lag),
            read: state.read.clone(),
            committed: state.claim.committed.clone(),
            stored_at: stored.map(|position| self.source.describe(position)),
            committed_at: state.claim.committed_at,
            report: self.scheduler.tranche(tranche),
            trouble,
            waits_for: waits_for.map(|(why, _)| why),
        }
    }
}
