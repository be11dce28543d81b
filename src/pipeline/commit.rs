//! The driver's dealings with progress: what is to be stored, when, and what follows from how that went.
//!
//! Commits of a tranche come one after the other (C11). Nothing is stored while nothing changes (R68), and a commit that
//! fails is tried again, with the newest progress, for ever (R8).

use std::sync::Arc;

use super::OUTAGE;
use super::driver::{Driver, Event};
use super::life::Ended;
use super::traces;
use super::transaction::Plan;
use crate::checkpoint::{CheckpointError, CheckpointErrorKind, CheckpointKey, Commit, Fence};
use crate::clock::{Period, Timestamp};
use crate::formats::words::chain;
use crate::handler::HandlerError;
use crate::position::{Progress, TrancheId, WritePosition};
use crate::runtime::retry::rounded;
use crate::runtime::supervise::TaskKind;
use crate::sink::{AnySink, Decided, TransactionError};
use crate::source::Left;
use crate::work::Work;

/// What is under way at a checkpoint store that is no sink.
#[derive(Debug, Default)]
pub(super) struct PlainCommit {
    under_way: bool,
    releasing: usize,
}

impl PlainCommit {
    pub(super) fn under_way(&self) -> bool {
        self.under_way
    }

    pub(super) fn releasing(&self) -> usize {
        self.releasing
    }
}

/// Progress on its way into a store.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) tranche: TrancheId,
    pub(super) key: CheckpointKey,
    pub(super) fence: Fence,
    pub(super) sequence: u64,
    pub(super) progress: Progress,
    /// The scheduler's version of it.
    pub(super) version: u64,
    pub(super) write_positions: Vec<(Box<str>, WritePosition)>,
    /// It was tried before: nothing of it may change (C11).
    pub(super) is_repeated: bool,
}

impl Step {
    pub(super) fn commit(&self) -> Commit<'_> {
        Commit {
            key: &self.key,
            fence: self.fence,
            sequence: self.sequence,
            progress: &self.progress,
            write_positions: &self.write_positions,
        }
    }
}

/// What a commit came to.
pub(super) enum Committed {
    Plain {
        steps: Vec<Step>,
        results: Vec<Result<(), CheckpointError>>,
        period: Period,
    },
    Transaction {
        plan: Plan,
        result: Result<(), TransactionError>,
        period: Period,
    },
    /// The transaction could not even be begun.
    NotBegun {
        decided: Vec<Decided>,
        parks: Vec<Work>,
        began: Timestamp,
        error: HandlerError,
    },
    Released,
}

impl Driver {
    /// Returns whether the progress of any tranche may have changed since it was stored.
    pub(super) fn commit_is_wanted(&self) -> bool {
        self.tranches.iter().any(|(tranche, state)| {
            state.claim.unsure.is_some()
                || state.claim.fence.is_some()
                    && self.scheduler.tranche(tranche).is_some_and(|report| report.version != state.claim.version)
        })
    }

    /// Returns whether the progress of any tranche differs from what is stored.
    pub(super) fn has_uncommitted_progress(&mut self) -> bool {
        self.tranches.values().any(|state| state.claim.unsure.is_some()) || !self.steps(&[]).is_empty()
    }

    /// Stores progress when that is due.
    pub(super) fn commit(&mut self) {
        if self.now < self.commit_at || self.plain_commit.under_way || self.in_transaction {
            return;
        }
        if self.draining.is_none() {
            self.commit_at = self.now + self.options.commit_interval;
        }
        if let AnySink::Transactional(sink) = &self.sink {
            let sink = Arc::clone(sink);
            if !self.gate.is_closed(self.now) && self.has_uncommitted_progress() {
                self.start_transaction(&sink, Vec::new());
            }
            return;
        }
        let mut steps = self.steps(&[]);
        if steps.is_empty() {
            return;
        }
        self.add_moved(&mut steps);
        self.plain_commit.under_way = true;
        let (store, events, clock, began) = (Arc::clone(&self.store), self.events_in.clone(), self.clock, self.now);
        self.group.spawn(TaskKind::Committer, "commit", async move {
            let commits: Vec<_> = steps.iter().map(Step::commit).collect();
            let results = store.commit(&commits).await;
            let period = clock.since(began);
            drop(events.send(Event::Committed(Committed::Plain { steps, results, period })).await);
            Ok(())
        });
    }

    /// Returns the next commit of each tranche whose progress, with `done`, is not what is stored.
    pub(super) fn steps(&mut self, done: &[(crate::work::WorkId, i64)]) -> Vec<Step> {
        let ahead = self.scheduler.progress_with(done);
        let plain_positions = self.store.max_set_bytes().is_none() || !self.ordinals;
        // What is written together with its effects must be known to be handled, however much that is.
        let with_effects = matches!(self.sink, AnySink::Transactional(_));
        let max_set = self.store.max_set_bytes().filter(|_| !with_effects);
        let mut steps = Vec::new();
        for (tranche, state) in &mut self.tranches {
            let (Some(fence), Some(report)) = (state.claim.fence, self.scheduler.tranche(tranche)) else { continue };
            if let Some(step) = state.claim.unsure.take() {
                steps.push(Step { is_repeated: true, ..step });
                continue;
            }
            let touched = ahead.iter().find(|(touched, _)| touched == tranche).map(|(_, progress)| progress.clone());
            if touched.is_none() && report.version == state.claim.version {
                continue;
            }
            let Some(mut progress) = touched.or_else(|| self.scheduler.progress(tranche)) else { continue };
            if plain_positions {
                progress.handled = crate::position::OrdinalSet::new();
            }
            if let Some(max) = max_set {
                progress.handled.fit(max);
            }
            let unknown = progress.position.is_none() && progress.handled.is_empty();
            if unknown || state.claim.committed.as_ref() == Some(&progress) {
                state.claim.version = report.version;
                continue;
            }
            steps.push(Step {
                tranche: tranche.clone(),
                key: state.key.clone(),
                fence,
                sequence: state.claim.sequence + 1,
                progress,
                version: report.version,
                write_positions: Vec::new(),
                is_repeated: false,
            });
        }
        steps
    }

    /// Adds how far streams are that have moved, for `require_all` to know after a restart. A step that is repeated has them.
    pub(super) fn add_moved(&mut self, steps: &mut [Step]) {
        if !self.options.require_all || !self.options.write_positions {
            return;
        }
        for step in steps.iter_mut().filter(|step| !step.is_repeated) {
            step.write_positions = self.scheduler.take_moved(&step.tranche);
        }
    }

    pub(super) fn on_committed(&mut self, committed: Committed) {
        match committed {
            Committed::Plain { steps, results, period } => {
                self.plain_commit.under_way = false;
                self.counts.committed(period.took());
                let why = results.iter().find_map(|result| result.as_ref().err()).map(|error| chain(error));
                self.trace_commit(period, steps.len(), &[], why.as_deref().map(|why| ("checkpoint", why)));
                for (step, result) in steps.into_iter().zip(results) {
                    match result {
                        Ok(()) => self.stored(step),
                        // It was lost meanwhile, and perhaps claimed again.
                        Err(_) if !self.is_claimed(&step.tranche, step.fence) => {}
                        Err(error) => {
                            self.on_commit_failed(&step.tranche, &error);
                            if let Some(state) = self.tranches.get_mut(&step.tranche) {
                                state.claim.unsure = Some(step);
                            }
                        }
                    }
                }
            }
            Committed::Transaction { plan, result, period } => self.on_transaction_ended(plan, result, period),
            Committed::NotBegun { mut decided, parks, began, error } => {
                self.in_transaction = false;
                self.writing -= decided.len();
                self.give_back(parks);
                if self.recorder.is_some() {
                    let period = Period { began, ended: self.now };
                    decided
                        .iter_mut()
                        .for_each(|decided| traces::leave(&mut decided.work, "write", period, Some(&error)));
                }
                self.judge_all(decided.into_iter().map(|decided| decided.work).collect(), &error);
                self.commit_at = self.now + OUTAGE.delay(1, &mut self.random);
            }
            Committed::Released => self.plain_commit.releasing -= 1,
        }
    }

    /// Returns whether a claim is the one that is held.
    pub(super) fn is_claimed(&self, tranche: &TrancheId, fence: Fence) -> bool {
        self.tranches.get(tranche).is_some_and(|state| state.claim.fence == Some(fence))
    }

    pub(super) fn stored(&mut self, step: Step) {
        self.commit_failures = 0;
        self.commit_failing = None;
        let set_bytes = step.progress.handled.encode().len();
        let handled = self.scheduler.tranche(&step.tranche).map_or(0, |report| report.completed_events);
        self.counts.checkpoint_stored(&step.tranche, handled, set_bytes);
        let Some(state) = self.tranches.get_mut(&step.tranche) else { return };
        if state.claim.fence != Some(step.fence) {
            return;
        }
        if let Some(size) = (set_bytes * 16).checked_div(step.progress.handled.runs().len()) {
            state.claim.run_size = size;
        }
        state.claim.sequence = step.sequence;
        state.claim.version = step.version;
        state.claim.committed = Some(step.progress);
        state.claim.committed_at = Some(self.now);
    }

    pub(super) fn on_commit_failed(&mut self, tranche: &TrancheId, error: &CheckpointError) {
        let why = chain(error);
        let since = self.commit_failing.take().map_or(self.now, |(_, since)| since);
        self.commit_failing = Some((why.clone(), since));
        self.counts.checkpoint_failed(tranche, since);
        match &error.kind {
            CheckpointErrorKind::Fenced { by, since } => self.on_fenced(tranche, by, *since),
            CheckpointErrorKind::Unreadable => self.drain(Ended::Halted(why.clone()), &why),
            CheckpointErrorKind::Unavailable | CheckpointErrorKind::Throttled | CheckpointErrorKind::OutcomeUnknown => {
                self.commit_failures += 1;
                let backoff = OUTAGE.delay(self.commit_failures, &mut self.random);
                let delay = error.retry_after.unwrap_or(backoff);
                self.commit_at = self.now + delay;
                tracing::warn!(%tranche, error = %why, retry_in = ?rounded(delay), "progress could not be stored, retrying");
            }
        }
    }

    /// Somebody else owns the progress now: what is under way counts for nothing, and nothing is claimed back (C15).
    fn on_fenced(&mut self, tranche: &TrancheId, by: &str, since: Option<time::OffsetDateTime>) {
        let since = since.map_or_else(String::new, |since| format!(" since {since}"));
        let why = format!("tranche `{tranche}` is owned by {by}{since}");
        tracing::error!(%tranche, by, "fenced: another process owns the progress");
        if let Some(state) = self.tranches.get(tranche) {
            self.source.left(tranche, state.epoch, Left::Fenced);
        }
        self.forget_tranche(tranche);
        if self.tranches.is_empty() {
            self.drain(Ended::Fenced(why.clone()), &why);
        }
    }

    pub(super) fn release(&mut self, key: CheckpointKey, fence: Fence, epoch: u64) {
        self.plain_commit.releasing += 1;
        let (store, events, source) = (Arc::clone(&self.store), self.events_in.clone(), Arc::clone(&self.source));
        self.group.spawn(TaskKind::Committer, "release", async move {
            if let Err(error) = store.release(&key, fence).await {
                tracing::debug!(%key, error = %chain(&error), "the key could not be released");
            }
            source.left(&key.tranche, epoch, Left::Released);
            drop(events.send(Event::Committed(Committed::Released)).await);
            Ok(())
        });
    }

    pub(super) fn release_keys(&mut self) {
        let held: Vec<_> = self
            .tranches
            .values()
            .filter_map(|state| Some((state.key.clone(), state.claim.fence?, state.epoch)))
            .collect();
        for (key, fence, epoch) in held {
            self.release(key, fence, epoch);
        }
    }
}
