//! The assigned tranches: their claims, their readers, and the room that each has for reading.
//!
//! A claim in flight holds its tranche: a tranche that is revoked, lost or assigned again meanwhile waits until the answer is
//! there, and the answer is released (C26). So a key has at most one claim in flight (C27).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::messages::PendingCommit;
use crate::checkpoint::{CheckpointKey, Claimed, Fence};
use crate::clock::Timestamp;
use crate::position::{OrdinalSet, Position, Progress, TrancheId};
use crate::source::{Lag, Room};

mod room;

use room::CREDITS;
pub(super) use room::Limits;

/// An assigned tranche.
#[derive(Debug)]
pub(super) struct Tranche {
    pub(super) key: CheckpointKey,
    /// The number of the assignment.
    pub(super) epoch: u64,
    /// The start, if nothing was ever committed.
    pub(super) origin: Option<Position>,
    pub(super) phase: Phase,
    pub(super) claim: Claim,
    pub(super) reader: Option<ReaderHandle>,
    pub(super) credits_out: usize,
    pub(super) at_tail: bool,
    pub(super) lag: Option<Lag>,
    /// The position behind the last read.
    pub(super) read: Option<Position>,
    /// Failures in a row of its claim, or of its reader.
    pub(super) failures: u32,
    /// The error that keeps it from being claimed or read, and its begin.
    pub(super) trouble: Option<(String, Timestamp)>,
    /// Its share of the bytes in [`Tranches::bytes`], and the size of its last batch.
    bytes: usize,
    batch_bytes: usize,
}

/// The phase of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The claim is in flight, or due at this time.
    Claiming {
        due: Option<Timestamp>,
    },
    Reading,
    /// No event can follow. The rest is handled and stored.
    Ended,
    /// The tranche is revoked: running calls finish and commit until the deadline.
    Leaving {
        deadline: Timestamp,
    },
    /// A newer claim of another process fenced this one (C15).
    Fenced {
        by: String,
    },
}

impl Phase {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Claiming { .. } => "claiming",
            Self::Reading => "reading",
            Self::Ended => "ended",
            Self::Leaving { .. } => "leaving",
            Self::Fenced { .. } => "fenced",
        }
    }
}

/// The driver's end of a reader.
#[derive(Debug)]
pub(super) struct ReaderHandle {
    pub(super) opening: u64,
    pub(super) credits: mpsc::Sender<Room>,
    pub(super) stop: CancellationToken,
}

impl Drop for ReaderHandle {
    fn drop(&mut self) {
        // A tranche that is forgotten is not read any more (C29).
        self.stop.cancel();
    }
}

/// The commit chain of a claim (C11).
#[derive(Debug, Default)]
pub(super) struct Claim {
    pub(super) fence: Option<Fence>,
    /// The number of the stored commit.
    pub(super) sequence: u64,
    /// The stored progress, and the scheduler's version of it.
    pub(super) committed: Option<Progress>,
    pub(super) version: u64,
    /// The stored ordinals that a later commit must cover, where effects and progress commit together.
    pub(super) needed: OrdinalSet,
    pub(super) committed_at: Option<Timestamp>,
    /// A commit with unknown outcome. The driver repeats it unchanged before the next commit.
    pub(super) unsure: Option<PendingCommit>,
    /// Sixteen times the encoded size of a run of the set, at the last commit.
    pub(super) run_size: usize,
}

impl Claim {
    fn new(claimed: &Claimed, now: Timestamp) -> Self {
        Self {
            fence: Some(claimed.fence),
            sequence: claimed.sequence,
            committed: claimed.progress.clone(),
            committed_at: Some(now),
            // An earlier owner does not say which of its ordinals have effects.
            needed: claimed.progress.as_ref().map(|progress| progress.handled.clone()).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Returns the estimated size of a set with that many runs.
    pub(super) fn set_bytes(&self, runs: usize) -> usize {
        runs * self.run_size.max(64) / 16
    }
}

impl Tranche {
    fn new(key: CheckpointKey, origin: Option<Position>, epoch: u64, now: Timestamp) -> Self {
        Self {
            key,
            epoch,
            origin,
            phase: Phase::Claiming { due: Some(now) },
            claim: Claim::default(),
            reader: None,
            credits_out: 0,
            at_tail: false,
            lag: None,
            read: None,
            failures: 0,
            trouble: None,
            bytes: 0,
            batch_bytes: 0,
        }
    }

    /// Returns whether a run that ends at the tail has read all of it.
    pub(super) fn is_read_to_its_end(&self) -> bool {
        matches!(self.phase, Phase::Ended | Phase::Fenced { .. }) || (self.at_tail && self.phase == Phase::Reading)
    }

    fn fail(&mut self, why: String, now: Timestamp) -> Timestamp {
        let since = self.trouble.take().map_or(now, |(_, since)| since);
        self.trouble = Some((why, since));
        since
    }
}

/// The step that follows a change of assignments.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The tranche is new: begin to count it.
    Begin(TrancheId),
    /// Stop offering its events.
    StopOffering(TrancheId),
    /// Forget the tranche, release the claim if there is one, then report the assignment's end as released.
    Release { key: CheckpointKey, epoch: u64, fence: Option<Fence> },
    /// Forget the tranche. The source knows.
    Forget(TrancheId),
    /// Release a claim that no assignment wants any more.
    ReleaseClaim { key: CheckpointKey, fence: Fence },
}

/// All tranches, by name, so that every walk has the same order.
#[derive(Debug, Default)]
pub(super) struct Tranches {
    all: BTreeMap<TrancheId, Tranche>,
    /// Claims in flight, by the assignment that they were made for.
    claims: BTreeMap<TrancheId, u64>,
    /// Assignments that begin when an earlier one of their tranche has ended.
    successors: BTreeMap<TrancheId, (Option<Position>, u64)>,
    /// Tranches in the phase `Claiming` or `Leaving`: only these have steps that are due by time.
    pending: BTreeSet<TrancheId>,
    /// Tranches that had no room, as the bytes of all tranches exceed their limit.
    starved: BTreeSet<TrancheId>,
    /// Bytes held unhandled, over all tranches.
    bytes: usize,
    /// Readers that have not sent their last message.
    readers: usize,
    openings: u64,
}

impl Tranches {
    pub(super) fn get(&self, tranche: &TrancheId) -> Option<&Tranche> {
        self.all.get(tranche)
    }

    pub(super) fn get_mut(&mut self, tranche: &TrancheId) -> Option<&mut Tranche> {
        self.all.get_mut(tranche)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TrancheId, &Tranche)> {
        self.all.iter()
    }

    /// Returns the number of claims in flight and of readers that have not ended.
    pub(super) fn claims_and_readers(&self) -> usize {
        self.claims.len() + self.readers
    }

    /// Returns whether every tranche is read to its end, and none is to come.
    pub(super) fn are_read_to_their_end(&self) -> bool {
        self.successors.is_empty() && self.all.values().all(Tranche::is_read_to_its_end)
    }

    /// Returns the fenced tranches, each with its new owner.
    pub(super) fn fenced(&self) -> impl Iterator<Item = (&TrancheId, &str)> {
        self.all.iter().filter_map(|(tranche, state)| match &state.phase {
            Phase::Fenced { by } => Some((tranche, by.as_str())),
            _ => None,
        })
    }

    /// Returns whether every tranche is fenced, and there is one.
    pub(super) fn are_all_fenced(&self) -> bool {
        !self.all.is_empty()
            && self.successors.is_empty()
            && self.all.values().all(|state| matches!(state.phase, Phase::Fenced { .. }))
    }

    /// Notes a new assignment.
    pub(super) fn added(
        &mut self,
        key: CheckpointKey,
        origin: Option<Position>,
        epoch: u64,
        now: Timestamp,
    ) -> Vec<Step> {
        let tranche = key.tranche.clone();
        let mut steps = Vec::new();
        match self.all.get(&tranche) {
            // The source repeats an assignment.
            Some(state) if state.epoch >= epoch => return steps,
            // The old assignment still finishes and commits. The new one must not fence it.
            Some(state) if matches!(state.phase, Phase::Leaving { .. }) => {
                self.successors.insert(tranche, (origin, epoch));
                return steps;
            }
            Some(_) => steps.extend(self.lost(&tranche)),
            None => {}
        }
        self.pending.insert(tranche.clone());
        self.all.insert(tranche.clone(), Tranche::new(key, origin, epoch, now));
        steps.push(Step::Begin(tranche));
        steps
    }

    /// Notes that a tranche is revoked.
    pub(super) fn removed(&mut self, tranche: &TrancheId, within: Duration, now: Timestamp) -> Vec<Step> {
        if self.successors.remove(tranche).is_some() {
            return Vec::new();
        }
        let Some(state) = self.all.get_mut(tranche) else { return Vec::new() };
        match state.phase {
            Phase::Leaving { .. } => Vec::new(),
            Phase::Fenced { .. } => vec![self.release(tranche)],
            Phase::Claiming { .. } if !self.claims.contains_key(tranche) => vec![self.release(tranche)],
            Phase::Claiming { .. } | Phase::Reading | Phase::Ended => {
                state.phase = Phase::Leaving { deadline: now + within };
                // The reader ends before the claim is released (C29).
                if let Some(reader) = &state.reader {
                    reader.stop.cancel();
                }
                self.pending.insert(tranche.clone());
                vec![Step::StopOffering(tranche.clone())]
            }
        }
    }

    /// Notes that another process reads the tranche already.
    pub(super) fn lost(&mut self, tranche: &TrancheId) -> Vec<Step> {
        self.successors.remove(tranche);
        if self.all.contains_key(tranche) {
            self.forget(tranche);
            return vec![Step::Forget(tranche.clone())];
        }
        Vec::new()
    }

    /// Notes that a newer claim fenced this one. The tranche stays visible (C15). Returns the number of the assignment.
    pub(super) fn fenced_by(&mut self, tranche: &TrancheId, by: String) -> Option<u64> {
        let state = self.all.get_mut(tranche)?;
        state.phase = Phase::Fenced { by };
        state.claim = Claim::default();
        state.reader = None;
        state.trouble = None;
        self.bytes -= std::mem::take(&mut state.bytes);
        self.pending.remove(tranche);
        self.starved.remove(tranche);
        Some(state.epoch)
    }

    fn release(&mut self, tranche: &TrancheId) -> Step {
        let state = self.all.get(tranche).expect("a tranche is released once");
        let (key, epoch, fence) = (state.key.clone(), state.epoch, state.claim.fence);
        self.forget(tranche);
        Step::Release { key, epoch, fence }
    }

    fn forget(&mut self, tranche: &TrancheId) {
        if let Some(state) = self.all.remove(tranche) {
            self.bytes -= state.bytes;
        }
        self.pending.remove(tranche);
        self.starved.remove(tranche);
    }

    /// Returns the claims that are due, which are in flight from then on. A key that a commit in flight concerns waits: its
    /// answer would be fenced by this process's own claim.
    pub(super) fn take_due_claims(
        &mut self,
        now: Timestamp,
        is_committing: impl Fn(&TrancheId) -> bool,
    ) -> Vec<(CheckpointKey, u64)> {
        let mut claims = Vec::new();
        for tranche in &self.pending {
            let Some(state) = self.all.get_mut(tranche) else { continue };
            let Phase::Claiming { due: Some(due) } = state.phase else { continue };
            if due <= now && !self.claims.contains_key(tranche) && !is_committing(tranche) {
                state.phase = Phase::Claiming { due: None };
                claims.push((state.key.clone(), state.epoch));
            }
        }
        self.claims.extend(claims.iter().map(|(key, epoch)| (key.tranche.clone(), *epoch)));
        claims
    }

    /// Notes the answer to a claim. Returns whether the assignment that it was made for wants it.
    pub(super) fn claim_returned(&mut self, tranche: &TrancheId, epoch: u64) -> bool {
        self.claims.remove(tranche);
        let wanted = |state: &Tranche| state.epoch == epoch && state.phase == Phase::Claiming { due: None };
        self.all.get(tranche).is_some_and(wanted)
    }

    /// Notes a successful claim that is wanted. Returns the progress to go on from.
    pub(super) fn claimed(&mut self, tranche: &TrancheId, claimed: &Claimed, now: Timestamp) -> Option<Progress> {
        let state = self.all.get_mut(tranche)?;
        state.trouble = None;
        state.failures = 0;
        state.claim = Claim::new(claimed, now);
        claimed.progress.clone().or_else(|| state.origin.clone().map(Progress::at))
    }

    /// Notes a failed claim that is wanted. Returns the begin of the failures.
    pub(super) fn claim_failed(
        &mut self,
        tranche: &TrancheId,
        why: String,
        retry_at: Timestamp,
        now: Timestamp,
    ) -> Timestamp {
        let Some(state) = self.all.get_mut(tranche) else { return now };
        state.phase = Phase::Claiming { due: Some(retry_at) };
        state.fail(why, now)
    }

    /// Counts a failure of the claim or the reader. Returns the number in a row.
    pub(super) fn count_failure(&mut self, tranche: &TrancheId) -> u32 {
        let Some(state) = self.all.get_mut(tranche) else { return 0 };
        state.failures = state.failures.saturating_add(1);
        state.failures
    }

    /// Begins to read a claimed tranche. Returns the number of the opening, and the reader's end of its credits.
    pub(super) fn opened(&mut self, tranche: &TrancheId) -> Option<(u64, mpsc::Receiver<Room>, CancellationToken)> {
        let state = self.all.get_mut(tranche)?;
        self.openings += 1;
        self.readers += 1;
        let (credits, granted) = mpsc::channel(CREDITS);
        let stop = CancellationToken::new();
        state.reader = Some(ReaderHandle { opening: self.openings, credits, stop: stop.clone() });
        state.phase = Phase::Reading;
        state.credits_out = 0;
        state.at_tail = false;
        self.pending.remove(tranche);
        Some((self.openings, granted, stop))
    }

    /// Notes that a reader has ended.
    pub(super) fn reader_ended(&mut self, tranche: &TrancheId, opening: u64) {
        self.readers -= 1;
        if let Some(state) = self.all.get_mut(tranche)
            && state.reader.as_ref().is_some_and(|reader| reader.opening == opening)
        {
            state.reader = None;
        }
    }

    /// Returns the tranche of a message from a reader, if the opening is its current one and it still reads (R91).
    pub(super) fn reading(&mut self, tranche: &TrancheId, opening: u64) -> Option<&mut Tranche> {
        let state = self.all.get_mut(tranche)?;
        let current = state.reader.as_ref().is_some_and(|reader| reader.opening == opening);
        (current && state.phase == Phase::Reading).then_some(state)
    }

    /// Notes a batch, and its size.
    pub(super) fn batch_read(state: &mut Tranche, bytes: usize) {
        state.credits_out -= 1;
        state.trouble = None;
        state.failures = 0;
        // An empty batch says nothing about the next one.
        if bytes > 0 {
            state.batch_bytes = bytes;
        }
    }

    /// Notes a failed read. Returns the begin of the failures.
    pub(super) fn read_failed(state: &mut Tranche, why: String, failures: u32, now: Timestamp) -> Timestamp {
        state.failures = failures;
        state.fail(why, now)
    }

    /// Cancels all readers.
    pub(super) fn stop_reading(&mut self) {
        for state in self.all.values_mut() {
            if state.phase == Phase::Reading {
                state.phase = Phase::Ended;
            }
            if let Some(reader) = &state.reader {
                reader.stop.cancel();
            }
        }
        self.successors.clear();
    }

    /// Returns the revoked tranches whose time is up, or that are quiet: no call runs and all progress is stored.
    pub(super) fn take_left(&mut self, now: Timestamp, is_quiet: impl Fn(&TrancheId, &Tranche) -> bool) -> Vec<Step> {
        let ready = self.pending.iter().filter(|tranche| {
            let Some(state) = self.all.get(*tranche) else { return false };
            let Phase::Leaving { deadline } = state.phase else { return false };
            let free = state.reader.is_none() && !self.claims.contains_key(*tranche);
            free && (deadline <= now || is_quiet(tranche, state))
        });
        let ready: Vec<_> = ready.cloned().collect();
        let mut steps = Vec::new();
        for tranche in ready {
            let key = self.all[&tranche].key.clone();
            steps.push(self.release(&tranche));
            if let Some((origin, epoch)) = self.successors.remove(&tranche) {
                steps.extend(self.added(key, origin, epoch, now));
            }
        }
        steps
    }

    /// Forgets a tranche that has ended, once all of it is stored. Returns its key, assignment and fence.
    pub(super) fn take_ended(&mut self, tranche: &TrancheId) -> Option<(CheckpointKey, u64, Option<Fence>)> {
        let state = self.all.get(tranche)?;
        if state.phase != Phase::Ended || state.reader.is_some() {
            return None;
        }
        match self.release(tranche) {
            Step::Release { key, epoch, fence } => Some((key, epoch, fence)),
            _ => None,
        }
    }

    /// Returns the time of the next step that is due by time.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        let due = self.pending.iter().filter_map(|tranche| match self.all.get(tranche)?.phase {
            Phase::Claiming { due } => due,
            Phase::Leaving { deadline } => Some(deadline),
            _ => None,
        });
        due.min()
    }
}

#[cfg(test)]
mod tests;
