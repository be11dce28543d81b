//! Assignments, claims and reads.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::super::commits;
use super::super::drain::Ended;
use super::super::messages::{Assignment, ClaimResult, Event, Read, ReadResult};
use super::super::options::Stop;
use super::super::policy::{self, BackEndReaction};
use super::super::reader::{Reader, newest_timestamp};
use super::super::tranches::{Step, Tranches};
use super::{Driver, PROBE_EVERY};
use crate::checkpoint::{
    CheckpointError, CheckpointKey, CheckpointStore, Claimed, Fence, Owner, ParkedStore, ParkedStream,
};
use crate::clock::Timestamp;
use crate::formats::words::chain;
use crate::position::{Ahead, Position, Progress, StartAt, TrancheId, WritePosition};
use crate::runtime::retry::rounded;
use crate::runtime::supervise::TaskKind;
use crate::scheduler::{IngestBatch, Outcome};
use crate::source::{Batch, Lag, Left, SourceError};

/// The limit of one question to a probe.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) fn add_tranche(&mut self, tranche: TrancheId, origin: Option<Position>, epoch: u64) {
        let (group, source) = (Arc::clone(&self.identity.group), Arc::clone(&self.identity.source));
        let key = CheckpointKey { group, source, tranche };
        tracing::debug!(tranche = %key.tranche, "tranche added");
        let steps = self.tranches.added(key, origin, epoch, self.now);
        self.perform(steps);
    }

    pub(super) fn remove_tranche(&mut self, tranche: &TrancheId, within: Duration) {
        tracing::info!(%tranche, ?within, "tranche revoked");
        let steps = self.tranches.removed(tranche, within, self.now);
        self.perform(steps);
    }

    pub(super) fn lose_tranche(&mut self, tranche: &TrancheId) {
        tracing::warn!(%tranche, "tranche lost to another process");
        let steps = self.tranches.lost(tranche);
        self.perform(steps);
    }

    fn perform(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Begin(tranche) => self.counts.tranche_added(&tranche),
                Step::StopOffering(tranche) => {
                    self.scheduler.stop_offering(&tranche);
                    for work in self.lane.stop(&tranche) {
                        self.finish(work, Outcome::Return);
                    }
                    self.take_back_calls();
                    self.commits.hurry(self.now);
                }
                Step::Forget(tranche) => self.forget_tranche(&tranche),
                Step::Release { key, epoch, fence } => {
                    self.forget_tranche(&key.tranche);
                    self.release(key, fence, Some(Assignment { epoch, left: Left::Released }));
                }
                Step::ReleaseClaim { key, fence } => self.release(key, Some(fence), None),
            }
        }
    }

    /// Forgets a tranche and its work that is not in flight (C7, C10).
    fn forget_tranche(&mut self, tranche: &TrancheId) {
        self.scheduler.revoke(tranche);
        self.counts.tranche_gone(tranche);
        self.commits.forget(tranche);
        self.forget_parked(tranche);
        self.failures.forget(tranche);
        self.changed.remove(tranche);
        self.take_back_calls();
    }

    /// Releases a claim, if there is one, and then reports the end of its assignment.
    pub(super) fn release(&mut self, key: CheckpointKey, fence: Option<Fence>, assignment: Option<Assignment>) {
        let tranche = key.tranche.clone();
        let Some(fence) = fence else {
            if let Some(assignment) = assignment {
                self.source.left(&tranche, assignment.epoch, assignment.left);
            }
            return;
        };
        self.releases += 1;
        let (store, events) = (Arc::clone(&self.store), self.events_in.clone());
        self.group.spawn(TaskKind::Committer, "release", async move {
            // The next claim of the key fences this one in any case.
            if let Err(error) = store.release(&key, fence).await {
                tracing::debug!(%key, error = %chain(&error), "claim not released");
            }
            // Without a driver, the source is gone, too.
            drop(events.send(Event::Released { tranche, assignment }).await);
            Ok(())
        });
    }

    pub(super) fn on_released(&mut self, tranche: &TrancheId, assignment: Option<Assignment>) {
        self.releases -= 1;
        if let Some(Assignment { epoch, left }) = assignment {
            self.source.left(tranche, epoch, left);
        }
    }

    /// Claims the tranches that are due, all in one call of the store.
    pub(super) fn claim_tranches(&mut self) {
        if self.drain.is_begun() {
            return;
        }
        let (commits, lane) = (&self.commits, &self.lane);
        let is_busy = |tranche: &TrancheId| commits.concerns(tranche) || lane.still_runs(tranche);
        let due = self.tranches.take_due_claims(self.now, is_busy);
        if due.is_empty() {
            return;
        }
        let (store, parked, owner) = (Arc::clone(&self.store), self.parked.clone(), self.identity.owner.clone());
        let events = self.events_in.clone();
        // A claim is waited for: a restart must not overtake it, and so fence itself (C27).
        self.group.spawn(TaskKind::Committer, "claim", async move {
            let results = claim(&*store, parked.as_deref(), due, &owner).await;
            drop(events.send(Event::Claimed(results)).await);
            Ok(())
        });
    }

    pub(super) fn on_claimed(&mut self, claim: ClaimResult) {
        let ClaimResult { key, epoch, result } = claim;
        let wanted = self.tranches.claim_returned(&key.tranche, epoch) && !self.drain.is_begun();
        match result {
            Ok((claimed, _)) if !wanted => self.perform(vec![Step::ReleaseClaim { key, fence: claimed.fence }]),
            Ok((claimed, parked)) => self.open_tranche(&key.tranche, &claimed, &parked),
            Err(error) if wanted => self.on_claim_failed(&key.tranche, &error),
            Err(_) => {}
        }
    }

    fn open_tranche(&mut self, tranche: &TrancheId, claimed: &Claimed, parked: &[ParkedStream]) {
        let progress = self.tranches.claimed(tranche, claimed, self.now);
        let from = match progress.as_ref().and_then(|progress| progress.position.clone()) {
            Some(position) => StartAt::Position(position),
            None => StartAt::Origin,
        };
        let ahead = progress.as_ref().and_then(Progress::ahead);
        let shown = match &from {
            StartAt::Origin => "origin".to_owned(),
            StartAt::Position(position) => self.source.describe(position),
        };
        let streams_parked = (!parked.is_empty()).then_some(parked.len());
        tracing::info!(%tranche, from = shown, streams_parked, "tranche opened");
        self.scheduler.open(tranche, progress);
        for parked in parked {
            self.scheduler.restore_parked(tranche, &parked.stream, parked.first);
        }
        self.parks.opened(tranche, parked);
        self.count_parked();
        if !parked.is_empty() {
            self.look_for_changed();
        }
        let version = self.scheduler.tranche(tranche).map_or(0, |report| report.version);
        if let Some(state) = self.tranches.get_mut(tranche) {
            state.claim.version = version;
        }
        self.counts.tranche_opened(tranche);
        self.open_reader(tranche, from, ahead);
    }

    fn open_reader(&mut self, tranche: &TrancheId, from: StartAt, ahead: Option<Ahead>) {
        let Some((opening, credits, stop)) = self.tranches.opened(tranche) else { return };
        let key = self.tranches.get(tranche).map(|state| state.key.clone());
        let known = key.filter(|_| self.options.write_positions).map(|key| (Arc::clone(&self.store), key));
        let reader = Reader {
            tranche: tranche.clone(),
            opening,
            reader: self.source.open(tranche, from, ahead),
            filter: Arc::clone(&self.filter),
            known,
            indexes: self.indexes,
            of_placeholders: self.options.require_all,
            follow: self.follow.clone(),
            clock: self.clock,
            credits,
            stop,
            events: self.events_in.clone(),
            seed: self.random.u64(..),
        };
        self.changed.insert(tranche.clone());
        let span = tranche_span(tranche);
        self.group.spawn(TaskKind::Reader, format!("reader-{tranche}"), reader.run().instrument(span));
    }

    fn on_claim_failed(&mut self, tranche: &TrancheId, error: &CheckpointError) {
        let why = chain(error);
        let attempt = self.tranches.count_failure(tranche);
        let delay = match policy::react_to_store(error, attempt, &mut self.random) {
            BackEndReaction::Retry(delay) => delay,
            BackEndReaction::Halt => return self.begin_drain(Ended::Halted(why.clone()), &why),
            // No claim can be fenced; a store that says so is asked again.
            BackEndReaction::GiveUp { .. } => policy::OUTAGE.max,
        };
        tracing::warn!(%tranche, attempt, error = %why, retry_in = ?rounded(delay), "claim failed, retrying");
        let since = self.tranches.claim_failed(tranche, why, self.now + delay, self.now);
        self.counts.checkpoint_failed(tranche, since);
    }

    pub(super) fn on_read(&mut self, read: Read) {
        let Read { tranche, opening, result } = read;
        if matches!(result, ReadResult::End | ReadResult::Lost(_) | ReadResult::Stopped) {
            let is_current = self.tranches.reading(&tranche, opening).is_some();
            self.tranches.reader_ended(&tranche, opening);
            self.changed.insert(tranche.clone());
            if is_current {
                self.on_reader_ended(&tranche, result);
            }
            return;
        }
        // Messages of an older opening do not count (R91).
        let Some(state) = self.tranches.reading(&tranche, opening) else { return };
        match result {
            ReadResult::Batch { batch, write_positions, took, read_at } => {
                Tranches::batch_read(state, batch.events.iter().map(crate::event::Event::held_bytes).sum());
                state.at_tail = batch.at_tail;
                state.lag = batch.lag;
                state.read = Some(batch.resume_at.clone());
                self.counts.batch_read(&tranche, &batch, newest_timestamp(&batch), took);
                self.ingest(tranche, batch, write_positions, read_at);
            }
            ReadResult::Failed { error, failures, retry_in } => {
                let why = chain(&error);
                tracing::warn!(%tranche, attempt = failures, error = %why, retry_in = ?rounded(retry_in), "read failed, retrying");
                Tranches::read_failed(state, why.clone(), failures, self.now);
                self.counts.read_failed(&tranche);
                self.give_up_job(&why, failures);
            }
            ReadResult::End | ReadResult::Lost(_) | ReadResult::Stopped => {}
        }
    }

    fn on_reader_ended(&mut self, tranche: &TrancheId, result: ReadResult) {
        match result {
            ReadResult::End => {
                if let Some(state) = self.tranches.get_mut(tranche) {
                    state.phase = super::super::tranches::Phase::Ended;
                    state.trouble = None;
                }
                self.counts.tranche_ended(tranche);
                tracing::debug!(%tranche, "tranche ended");
            }
            ReadResult::Lost(error) => {
                let why = format!(
                    "{}; restore the data that was read, or start over: another `group` in the pipeline's file has no progress, and \
                     every event is handled again",
                    chain(&error)
                );
                self.begin_drain(Ended::Halted(why.clone()), &why);
            }
            ReadResult::Batch { .. } | ReadResult::Failed { .. } | ReadResult::Stopped => {}
        }
    }

    fn ingest(
        &mut self,
        tranche: TrancheId,
        batch: Batch,
        write_positions: Vec<(Box<str>, WritePosition)>,
        read_at: Timestamp,
    ) {
        let began = self.clock.now();
        let (name, events) = (tranche.clone(), batch.events.len());
        let batch = IngestBatch { tranche, events: batch.events, resume_at: batch.resume_at, write_positions };
        if let Err(broken) = self.scheduler.ingest(batch, read_at) {
            let why = broken.to_string();
            self.begin_drain(Ended::Halted(why.clone()), &why);
        }
        if let Some(conflict) = self.scheduler.take_conflict() {
            tracing::warn!(stream = conflict.stream, index = conflict.index, "{conflict}; later ones are only counted");
        }
        let batches = self.scheduler.tranche(&name).map_or(0, |report| report.batches);
        self.counts.ingested(&name, events, batches, self.clock.now().since(began));
    }

    pub(super) fn on_watch_failed(&mut self, error: &SourceError, failures: u32, retry_in: Option<Duration>) {
        let why = chain(error);
        let Some(delay) = retry_in else { return self.begin_drain(Ended::Halted(why.clone()), &why) };
        tracing::warn!(attempt = failures, error = %why, retry_in = ?rounded(delay), "source failed, retrying");
        let since = self.source_failing.take().map_or(self.now, |(_, since)| since);
        self.source_failing = Some((why.clone(), since));
        self.give_up_job(&why, failures);
    }

    /// Ends a finite job whose source stays unreachable. A service goes on waiting.
    fn give_up_job(&mut self, why: &str, failures: u32) {
        let is_spent = self.options.errors.attempts.is_some_and(|attempts| failures >= attempts);
        if self.options.stop == Stop::Tail && is_spent {
            let why = format!("the source cannot be reached after {failures} attempts: {why}");
            self.begin_drain(Ended::Unavailable(why.clone()), &why);
        }
    }

    /// Grants credits to the readers of the tranches that changed.
    pub(super) fn grant_credits(&mut self) {
        // The changes stay noted for the resume.
        if self.drain.is_begun() || self.paused {
            return;
        }
        let mut due = std::mem::take(&mut self.changed);
        due.extend(self.tranches.take_starved(&self.limits));
        for tranche in due {
            let Some(report) = self.scheduler.tranche(&tranche) else { continue };
            self.tranches.grant(&tranche, &report, &self.limits, self.writes.waiting(&tranche));
            if let Some(state) = self.tranches.get(&tranche) {
                self.counts.room(&tranche, state.credits_out > 0, state.lag, self.now);
            }
        }
    }

    /// Releases the revoked tranches that are quiet and stored, or whose time is up.
    pub(super) fn leave_tranches(&mut self) {
        for work in self.lane.drop_stopped() {
            self.finish(work, Outcome::Return);
        }
        let (scheduler, commits, lane) = (&self.scheduler, &self.commits, &self.lane);
        let is_quiet = |tranche: &TrancheId, state: &super::super::tranches::Tranche| {
            !commits.concerns(tranche) && !lane.concerns(tranche) && commits::is_quiet(scheduler, state, tranche)
        };
        let steps = self.tranches.take_left(self.now, is_quiet);
        self.perform(steps);
    }

    /// Lets go of tranches that have ended, once they are handled and stored: a deleted file leaves nothing behind.
    pub(super) fn complete_tranches(&mut self) {
        if self.drain.is_begun() {
            return;
        }
        let completed = |tranche: &&TrancheId| {
            // Its parked streams may be offered again, by its owner alone.
            !self.commits.concerns(tranche)
                && !self.parks.may_have_parked(tranche)
                && commits::is_completed(&self.scheduler, &self.tranches, tranche)
        };
        let completed: Vec<_> = self.changed.iter().filter(completed).cloned().collect();
        for tranche in completed {
            let Some((key, epoch, fence)) = self.tranches.take_ended(&tranche) else { continue };
            tracing::debug!(%tranche, "tranche completed");
            self.forget_tranche(&tranche);
            self.release(key, fence, Some(Assignment { epoch, left: Left::Completed }));
        }
    }

    /// Asks for the backlog of tranches that have no room for reading: their batches do not tell.
    pub(super) fn probe(&mut self) {
        if self.probe_at > self.now || self.drain.is_begun() {
            return;
        }
        self.probe_at = self.now + PROBE_EVERY;
        let Some(probe) = self.source.probe() else { return };
        let full = self.tranches.iter().filter(|(_, state)| state.reader.is_some() && state.credits_out == 0);
        let full: Vec<_> = full.map(|(tranche, state)| (tranche.clone(), state.read.clone())).collect();
        if full.is_empty() {
            return;
        }
        let events = self.events_in.clone();
        self.group.spawn(TaskKind::Reader, "probe", async move {
            for (tranche, read) in full {
                let asked = tokio::time::timeout(PROBE_LIMIT, probe.lag(&tranche, read.as_ref())).await;
                // An error leaves the last known value; the next round asks again.
                let Ok(Ok(lag)) = asked else { continue };
                drop(events.send(Event::Lag { tranche, lag }).await);
            }
            Ok(())
        });
    }

    pub(super) fn on_lag(&mut self, tranche: &TrancheId, lag: Lag) {
        if let Some(state) = self.tranches.get_mut(tranche) {
            state.lag = Some(lag);
        }
    }
}

/// Claims keys, and loads the parked streams of each.
async fn claim(
    store: &dyn CheckpointStore,
    parked: Option<&dyn ParkedStore>,
    due: Vec<(CheckpointKey, u64)>,
    owner: &Owner,
) -> Vec<ClaimResult> {
    let keys: Vec<_> = due.iter().map(|(key, _)| key.clone()).collect();
    let mut answers = store.claim_all(&keys, owner).await.into_iter();
    let mut results = Vec::with_capacity(due.len());
    for (key, epoch) in due {
        let answer = answers.next().unwrap_or_else(|| Err(unanswered(&key)));
        let result = match (answer, parked) {
            (Ok(claimed), Some(parked)) => parked.load(&key).await.map(|streams| (claimed, streams)),
            (Ok(claimed), None) => Ok((claimed, Vec::new())),
            (Err(error), _) => Err(error),
        };
        results.push(ClaimResult { key, epoch, result });
    }
    results
}

fn unanswered(key: &CheckpointKey) -> CheckpointError {
    let doing = format!("claim {key}: the store answered for fewer keys");
    CheckpointError::new(crate::checkpoint::CheckpointErrorKind::Unavailable, doing)
}

/// Returns the span of a tranche's reader; above it is the pipeline's.
fn tranche_span(tranche: &TrancheId) -> tracing::Span {
    tracing::error_span!("tranche", %tranche)
}
