//! The driver's dealings with tranches: claim, open, read as far ahead as the limits allow, let go.

use std::sync::Arc;

use std::time::Duration;

use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::driver::{Driver, Event};
use super::life::Ended;
use super::reader::{Came, Read, Reader, newest_timestamp};
use super::tranches::{Claim, Phase, Tranche};
use super::{OUTAGE, Stop};
use crate::checkpoint::{CheckpointError, CheckpointErrorKind, CheckpointKey, Claimed, ParkedStream};
use crate::clock::Timestamp;
use crate::formats::words::chain;
use crate::position::{Ordinal, Position, Progress, StartAt, TrancheId, WritePosition};
use crate::runtime::retry::rounded;
use crate::runtime::supervise::TaskKind;
use crate::scheduler::IngestBatch;
use crate::source::{Batch, Room, SourceError, SourceErrorKind};

/// Batches that a reader may read before the driver has taken the first of them: enough that neither waits until the other is
/// awake.
const CREDITS: usize = 4;

impl Driver {
    pub(super) fn add_tranche(&mut self, tranche: TrancheId, origin: Option<Position>, epoch: u64) {
        if self.tranches.get(&tranche).is_some_and(|state| state.epoch == epoch) {
            return;
        }
        let key = CheckpointKey {
            group: Arc::clone(&self.identity.group),
            source: Arc::clone(&self.identity.source),
            tranche: tranche.clone(),
        };
        tracing::debug!(%tranche, "tranche added");
        self.counts.tranche_added(&tranche);
        self.tranches.insert(tranche.clone(), Tranche::new(key.clone(), origin, epoch));
        self.claim(tranche, key);
    }

    fn claim(&mut self, tranche: TrancheId, key: CheckpointKey) {
        let (store, parked, owner) = (Arc::clone(&self.store), self.parked.clone(), self.identity.owner.clone());
        let events = self.events_in.clone();
        let (name, span) = (format!("claim-{tranche}"), tranche_span(&tranche));
        let claim = async move {
            let result = async {
                let claimed = store.claim(&key, &owner).await?;
                let parked = match parked {
                    Some(parked) => parked.load(&key).await?,
                    None => Vec::new(),
                };
                Ok((claimed, parked))
            };
            let result = result.await;
            // The driver may be gone: then nobody wants to know.
            drop(events.send(Event::Claimed { tranche, result }).await);
            Ok(())
        };
        self.group.spawn(TaskKind::Reader, name, claim.instrument(span));
    }

    pub(super) fn on_claimed(
        &mut self,
        tranche: &TrancheId,
        result: Result<(Claimed, Vec<ParkedStream>), CheckpointError>,
    ) {
        let Some(state) = self.tranches.get_mut(tranche) else { return };
        if !matches!(state.phase, Phase::Claiming { .. }) {
            return;
        }
        let (claimed, parked) = match result {
            Ok(claimed) => claimed,
            Err(error) => return self.on_claim_failed(tranche, &error),
        };
        state.trouble = None;
        state.failures = 0;
        state.claim = Claim {
            fence: Some(claimed.fence),
            sequence: claimed.sequence,
            committed: claimed.progress.clone(),
            version: 0,
            committed_at: Some(self.now),
            unsure: None,
            run_size: 0,
        };
        let progress = claimed.progress.or_else(|| state.origin.clone().map(Progress::at));
        let from = match progress.as_ref().and_then(|progress| progress.position.clone()) {
            Some(position) => StartAt::Position(position),
            None => StartAt::Origin,
        };
        let handled = progress.as_ref().and_then(|progress| progress.handled.last());
        tracing::info!(%tranche, from = %show(&from), parked = parked.len(), "tranche opened");
        self.scheduler.open(tranche, progress);
        for parked in &parked {
            self.scheduler.restore_parked(tranche, &parked.stream, parked.first);
        }
        state.claim.version = self.scheduler.tranche(tranche).map_or(0, |report| report.version);
        self.open(tranche, from, handled);
    }

    fn on_claim_failed(&mut self, tranche: &TrancheId, error: &CheckpointError) {
        let why = format!("{:#}", anyhow::Error::msg(chain(error)));
        let Some(state) = self.tranches.get_mut(tranche) else { return };
        if error.kind == CheckpointErrorKind::Unreadable {
            self.drain(Ended::Halted(why.clone()), &why);
            return;
        }
        state.failures += 1;
        let delay = OUTAGE.delay(state.failures, &mut self.random);
        state.phase = Phase::Claiming { retry_at: Some(self.now + delay) };
        let since = state.trouble.take().map_or(self.now, |(_, since)| since);
        tracing::warn!(%tranche, error = %why, retry_in = ?rounded(delay), "claim failed");
        state.trouble = Some((why, since));
        self.counts.checkpoint_failed(tranche, since);
    }

    pub(super) fn claim_again(&mut self) {
        if self.draining.is_some() {
            return;
        }
        let mut due = Vec::new();
        for (tranche, state) in &mut self.tranches {
            if let Phase::Claiming { retry_at: Some(at) } = state.phase
                && at <= self.now
            {
                state.phase = Phase::Claiming { retry_at: None };
                due.push((tranche.clone(), state.key.clone()));
            }
        }
        for (tranche, key) in due {
            self.claim(tranche, key);
        }
    }

    fn open(&mut self, tranche: &TrancheId, from: StartAt, handled: Option<Ordinal>) {
        self.openings += 1;
        let (credits, granted) = mpsc::channel(CREDITS);
        let Some(state) = self.tranches.get_mut(tranche) else { return };
        let known = self.options.write_positions.then(|| (Arc::clone(&self.store), state.key.clone()));
        let reader = Reader {
            tranche: tranche.clone(),
            opening: self.openings,
            reader: self.source.open_above(tranche, from, handled),
            filter: Arc::clone(&self.filter),
            known,
            indexes: self.indexes,
            of_placeholders: self.options.require_all,
            clock: self.clock,
            credits: granted,
            events: self.events_in.clone(),
            seed: self.random.u64(..),
        };
        state.phase = Phase::Reading { opening: self.openings, credits };
        state.credits_out = 0;
        state.at_tail = false;
        let span = tranche_span(tranche);
        self.group.spawn(TaskKind::Reader, format!("reader-{tranche}"), reader.run().instrument(span));
    }

    pub(super) fn on_read(&mut self, read: Read) {
        let Some(state) = self.tranches.get_mut(&read.tranche) else { return };
        if !matches!(state.phase, Phase::Reading { opening, .. } if opening == read.opening) {
            return;
        }
        match read.came {
            Came::Batch { batch, write_positions, took, read_at } => {
                state.credits_out -= 1;
                state.trouble = None;
                state.at_tail = batch.at_tail;
                state.lag = batch.lag;
                state.read = Some(batch.resume_at.clone());
                self.counts.batch_read(&read.tranche, &batch, newest_timestamp(&batch), took);
                self.ingest(read.tranche, batch, write_positions, read_at);
            }
            Came::End => {
                state.phase = Phase::Ended;
                state.trouble = None;
                self.counts.tranche_ended(&read.tranche);
                tracing::debug!(tranche = %read.tranche, "tranche ended");
            }
            Came::Failed { error, retry_in } => {
                let why = chain(&error);
                tracing::warn!(tranche = %read.tranche, error = %why, retry_in = ?rounded(retry_in), "read failed, retrying");
                let since = state.trouble.take().map_or(self.now, |(_, since)| since);
                state.trouble = Some((why, since));
                self.counts.read_failed(&read.tranche);
            }
            Came::Lost(error) => {
                let why = format!(
                    "{}; put back what was read, or start over: another `group` in the pipeline's file has no progress, and \
                     everything is handled again",
                    chain(&error)
                );
                self.drain(Ended::Halted(why.clone()), &why);
            }
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
        let name = tranche.clone();
        let batch = IngestBatch { tranche, events: batch.events, resume_at: batch.resume_at, write_positions };
        if let Err(broken) = self.scheduler.ingest(batch, read_at) {
            let why = broken.to_string();
            self.drain(Ended::Halted(why.clone()), &why);
        }
        if let Some(conflict) = self.scheduler.take_conflict() {
            tracing::warn!(stream = conflict.stream, index = conflict.index, "{conflict}; later ones are only counted");
        }
        let batches = self.scheduler.tranche(&name).map_or(0, |report| report.batches);
        self.counts.ingested(&name, batches, self.clock.now().since(began));
    }

    /// Lets readers go on as far as the limits allow.
    pub(super) fn grant_credits(&mut self) {
        if self.draining.is_some() || self.paused {
            return;
        }
        let finite = self.options.stop == Stop::Tail;
        let max_set = self.store.max_set_bytes();
        for (tranche, state) in &mut self.tranches {
            let Phase::Reading { credits, .. } = &state.phase else { continue };
            if state.at_tail && finite {
                continue;
            }
            let Some(report) = self.scheduler.tranche(tranche) else { continue };
            let set_bytes = report.set_runs * state.claim.run_size.max(64) / 16;
            // Of what an earlier process handled the set may lie ahead of what was read: only reading makes that smaller.
            let set_fits = max_set.is_none_or(|max| set_bytes < max) || report.unhandled == 0;
            let fits = report.bytes < self.options.read_ahead_bytes
                && report.ahead < self.options.max_ahead_events
                && set_fits;
            while fits && state.credits_out < CREDITS && report.batches + state.credits_out < self.options.read_ahead {
                if credits.try_send(Room::UNLIMITED).is_err() {
                    break; // The reader ends; its last word is on its way.
                }
                state.credits_out += 1;
            }
            self.counts.room(tranche, state.credits_out > 0, state.lag, self.now);
        }
    }

    /// Lets go of all readers.
    pub(super) fn stop_reading(&mut self) {
        for state in self.tranches.values_mut() {
            if matches!(state.phase, Phase::Reading { .. }) {
                state.phase = Phase::Ended;
            }
        }
    }

    pub(super) fn remove_tranche(&mut self, tranche: &TrancheId, within: Duration) {
        tracing::info!(%tranche, "tranche is to be let go of");
        let Some(state) = self.tranches.get_mut(tranche) else { return };
        if !state.is_open() {
            let epoch = state.epoch;
            self.forget_tranche(tranche);
            self.source.left(tranche, epoch, crate::source::Left::Released);
            return;
        }
        state.phase = Phase::Leaving { deadline: self.now + within };
        self.scheduler.stop_offering(tranche);
        self.commit_at = self.now;
    }

    pub(super) fn lose_tranche(&mut self, tranche: &TrancheId) {
        tracing::warn!(%tranche, "tranche was taken away");
        self.forget_tranche(tranche);
    }

    /// Forgets a tranche and everything of it that is not under way (C7, C10).
    pub(super) fn forget_tranche(&mut self, tranche: &TrancheId) {
        self.scheduler.revoke(tranche);
        self.counts.tranche_gone(tranche);
        self.tranches.remove(tranche);
    }

    /// Lets go of tranches that somebody else is to have, once what runs of them is done and stored, or their time is up.
    pub(super) fn let_go_of_tranches(&mut self) {
        let mut gone = Vec::new();
        for (tranche, state) in &self.tranches {
            let Phase::Leaving { deadline } = &state.phase else { continue };
            let quiet = self
                .scheduler
                .tranche(tranche)
                .is_none_or(|report| report.in_flight == 0 && report.version == state.claim.version);
            if *deadline <= self.now || (quiet && !self.plain_commit.under_way() && !self.in_transaction) {
                gone.push((tranche.clone(), state.key.clone(), state.claim.fence, state.epoch));
            }
        }
        for (tranche, key, fence, epoch) in gone {
            self.forget_tranche(&tranche);
            if let Some(fence) = fence {
                self.release(key, fence, epoch);
            }
        }
    }

    pub(super) fn on_watch_failed(&mut self, error: &SourceError, retry_in: Duration, failures: u32) {
        let why = chain(error);
        if error.kind == SourceErrorKind::PositionLost {
            self.drain(Ended::Halted(why.clone()), &why);
            return;
        }
        tracing::warn!(attempt = failures, error = %why, retry_in = ?rounded(retry_in), "source failed, retrying");
    }
}

/// Returns the span of what a source or a store logs while it reads or claims the tranche; above it is the pipeline's.
fn tranche_span(tranche: &TrancheId) -> tracing::Span {
    tracing::error_span!("tranche", %tranche)
}

fn show(from: &StartAt) -> String {
    match from {
        StartAt::Origin => "its origin".to_owned(),
        StartAt::Position(position) => position.to_string(),
    }
}
