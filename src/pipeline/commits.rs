//! The commit chain: the progress to store next, and the consequences of a commit's outcome.
//!
//! Commits of a tranche form a chain (C11). An idle pipeline commits nothing (R68). After a failed commit, the driver commits the
//! newest progress, without a limit of attempts (R8).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::messages::PendingCommit;
use super::set_room::{self, RESERVED_BYTES};
use super::tranches::{Claim, Phase, Tranche, Tranches};
use crate::clock::Timestamp;
use crate::event::{Event, Indexes};
use crate::position::{Ordinal, OrdinalSet, Progress, TrancheId, WritePosition};
use crate::scheduler::Scheduler;
use crate::sink::Decided;
use crate::work::{Work, WorkId};

/// The rules of the store that holds the progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// The store or the source knows no ordinals: progress is a plain position.
    pub(super) plain_positions: bool,
    /// The size that a set of handled ordinals may have (C14).
    pub(super) max_set: Option<usize>,
    /// Effects and progress commit together.
    pub(super) with_effects: bool,
    pub(super) write_positions: bool,
    pub(super) require_all: bool,
    /// Decides the name under which a stream's write position is stored (C4).
    pub(super) indexes: Indexes,
    pub(super) interval: Duration,
}

/// The work that a transaction is about to finish.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Each piece, with its next index.
    work: Vec<(WorkId, i64)>,
    /// The ordinals of its events, by tranche.
    ordinals: BTreeMap<TrancheId, Vec<Ordinal>>,
    /// Tranches that the transaction concerns without moving their progress.
    touched: BTreeSet<TrancheId>,
}

impl Done {
    pub(super) fn add(&mut self, scheduler: &Scheduler, work: &Work, next: i64) {
        let Some(tranche) = scheduler.tranche_of(work.id) else { return };
        self.work.push((work.id, next));
        self.ordinals.entry(tranche).or_default().extend(work.events.iter().map(Event::at));
    }

    /// Adds a tranche whose parked events are handled. Its progress stays, but its next commit shows whether the transaction
    /// happened (C11).
    pub(super) fn touch(&mut self, tranche: &TrancheId) {
        self.touched.insert(tranche.clone());
    }
}

/// The commits of a pipeline.
#[derive(Debug)]
pub(super) struct Commits {
    rules: Rules,
    /// The time of the next commit.
    at: Timestamp,
    /// Tranches whose progress can differ from the stored one.
    dirty: BTreeSet<TrancheId>,
    /// The tranches of the commit or transaction in flight, if one is.
    in_flight: Option<BTreeSet<TrancheId>>,
    failures: u32,
    /// The error that keeps progress from being stored, and its begin.
    failing: Option<(String, Timestamp)>,
}

impl Commits {
    pub(super) fn new(rules: Rules, now: Timestamp) -> Self {
        let at = now + rules.interval;
        Self { rules, at, dirty: BTreeSet::new(), in_flight: None, failures: 0, failing: None }
    }

    /// Notes tranches whose progress may have changed.
    pub(super) fn changed(&mut self, tranche: TrancheId) {
        self.dirty.insert(tranche);
    }

    pub(super) fn forget(&mut self, tranche: &TrancheId) {
        self.dirty.remove(tranche);
    }

    /// Makes a commit due at once.
    pub(super) fn hurry(&mut self, now: Timestamp) {
        self.at = self.at.min(now);
    }

    pub(super) fn delay(&mut self, until: Timestamp) {
        self.at = until;
    }

    /// Returns whether a commit may begin: it is due, and none is in flight.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.at <= now && self.in_flight.is_none() && !self.dirty.is_empty()
    }

    /// Sets the next commit's time, except while the pipeline drains: that goes on without a pause.
    pub(super) fn schedule(&mut self, now: Timestamp, draining: bool) {
        if !draining {
            self.at = now + self.rules.interval;
        }
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Returns whether a commit in flight concerns the tranche.
    pub(super) fn concerns(&self, tranche: &TrancheId) -> bool {
        self.in_flight.as_ref().is_some_and(|tranches| tranches.contains(tranche))
    }

    /// Notes the begin of a commit or transaction.
    pub(super) fn begin(&mut self, tranches: impl IntoIterator<Item = TrancheId>) {
        self.in_flight = Some(tranches.into_iter().collect());
    }

    /// Notes the end of the commit or transaction in flight.
    pub(super) fn end(&mut self) {
        self.in_flight = None;
    }

    pub(super) fn failing(&self) -> Option<&(String, Timestamp)> {
        self.failing.as_ref()
    }

    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        (!self.dirty.is_empty() && self.in_flight.is_none()).then_some(self.at)
    }

    /// Returns whether the progress of any tranche differs from the stored one.
    pub(super) fn are_wanted(&mut self, scheduler: &mut Scheduler, tranches: &mut Tranches) -> bool {
        let commits = self.collect(scheduler, tranches, &Done::default());
        let wanted = !commits.is_empty();
        // This only looks. `collect` takes a repeated commit out, so that is put back.
        for commit in commits.into_iter().filter(|commit| commit.is_repeated) {
            keep_unsure(tranches, commit);
        }
        wanted
    }

    /// Returns the next commit of each tranche whose progress, with `done`, differs from the stored one. A tranche of `done` has
    /// one in any case, so that the transaction checks its fence (C10).
    pub(super) fn collect(
        &mut self,
        scheduler: &mut Scheduler,
        tranches: &mut Tranches,
        done: &Done,
    ) -> Vec<PendingCommit> {
        let mut ahead = scheduler.progress_with(&done.work);
        for tranche in &done.touched {
            if !ahead.iter().any(|(of, _)| of == tranche)
                && let Some(progress) = scheduler.progress(tranche)
            {
                ahead.push((tranche.clone(), progress));
            }
        }
        let touched = ahead.iter().map(|(tranche, _)| tranche.clone());
        let candidates: BTreeSet<TrancheId> = self.dirty.iter().cloned().chain(touched).collect();
        let mut commits = Vec::new();
        for tranche in candidates {
            let with_done = ahead.iter().find(|(touched, _)| *touched == tranche).map(|(_, progress)| progress);
            let ordinals = done.ordinals.get(&tranche).map_or(&[][..], Vec::as_slice);
            match self.next_commit(scheduler, tranches, &tranche, with_done, ordinals) {
                Some(commit) => commits.push(commit),
                None => _ = self.dirty.remove(&tranche),
            }
        }
        commits
    }

    fn next_commit(
        &self,
        scheduler: &Scheduler,
        tranches: &mut Tranches,
        tranche: &TrancheId,
        with_done: Option<&Progress>,
        done: &[Ordinal],
    ) -> Option<PendingCommit> {
        let state = tranches.get_mut(tranche)?;
        let fence = state.claim.fence?;
        let report = scheduler.tranche(tranche)?;
        if let Some(commit) = state.claim.unsure.take() {
            return Some(PendingCommit { is_repeated: true, ..commit });
        }
        if with_done.is_none() && report.version == state.claim.version {
            return None;
        }
        let mut progress = match with_done {
            Some(progress) => progress.clone(),
            None => scheduler.progress(tranche)?,
        };
        if self.rules.plain_positions {
            (progress.handled, progress.read_to) = (OrdinalSet::new(), None);
        }
        let mut needed = OrdinalSet::new();
        if let Some(max) = self.rules.max_set {
            if self.rules.with_effects {
                // Progress must cover the effects that commit with it, and those that did before.
                needed = set_room::smallest_cover(&progress.handled, &state.claim.needed, done);
                if set_room::set_bytes(&progress.handled) + RESERVED_BYTES > max {
                    progress.handled = needed.clone();
                }
            } else {
                progress.handled.fit(max);
            }
        }
        let is_nothing = progress.position.is_none() && progress.handled.is_empty();
        if with_done.is_none() && (is_nothing || state.claim.committed.as_ref() == Some(&progress)) {
            state.claim.version = report.version;
            return None;
        }
        let completed = scheduler.covered_events(tranche, &progress);
        Some(PendingCommit {
            key: state.key.clone(),
            fence,
            sequence: state.claim.sequence + 1,
            progress,
            needed,
            version: report.version,
            completed,
            write_positions: Vec::new(),
            is_repeated: false,
        })
    }

    /// Splits off the decisions whose ordinals have no room in the stored sets (C14).
    pub(super) fn split_off_unfit(
        &self,
        scheduler: &mut Scheduler,
        tranches: &Tranches,
        decided: &mut Vec<Decided>,
    ) -> Vec<Decided> {
        match self.rules.max_set {
            Some(max) if self.rules.with_effects && !self.rules.plain_positions => {
                set_room::split_off_unfit(scheduler, tranches, max, decided)
            }
            _ => Vec::new(),
        }
    }

    /// Returns whether the store has room for the sets of these commits.
    pub(super) fn fit(&self, commits: &[PendingCommit]) -> bool {
        let max = self.rules.max_set.unwrap_or(usize::MAX);
        commits.iter().all(|commit| set_room::set_bytes(&commit.progress.handled) <= max)
    }

    /// Adds the write positions of the streams that moved, which `require_all` needs after a restart. A repeated commit has
    /// them.
    pub(super) fn add_dirty_streams(&self, scheduler: &mut Scheduler, commits: &mut [PendingCommit]) {
        if !self.rules.require_all || !self.rules.write_positions {
            return;
        }
        for commit in commits.iter_mut().filter(|commit| !commit.is_repeated) {
            commit.write_positions = scheduler.take_dirty_streams(&commit.key.tranche);
        }
    }

    /// Adds the write positions of the streams whose effects commit.
    pub(super) fn add_write_positions<'a>(
        &self,
        scheduler: &Scheduler,
        commits: &mut [PendingCommit],
        done: impl Iterator<Item = (&'a Work, i64)>,
    ) {
        if !self.rules.write_positions {
            return;
        }
        for (work, next) in done {
            let Some(tranche) = scheduler.tranche_of(work.id) else { continue };
            let Some(position) = scheduler.write_position_with(work.id, next) else { continue };
            if let Some(commit) = commits.iter_mut().find(|commit| *commit.tranche() == tranche) {
                let name = self.rules.indexes.stored_name(&tranche, work.stream());
                let moved: (Box<str>, WritePosition) = (name.into(), position);
                commit.write_positions.push(moved);
            }
        }
    }

    /// Notes a stored commit. Returns whether its claim is still held.
    pub(super) fn stored(
        &mut self,
        tranches: &mut Tranches,
        commit: PendingCommit,
        set_bytes: usize,
        now: Timestamp,
    ) -> bool {
        self.failures = 0;
        self.failing = None;
        let tranche = commit.tranche().clone();
        let Some(claim) = held_claim(tranches, &commit) else { return false };
        if let Some(size) = (set_bytes * 16).checked_div(commit.progress.handled.runs().len()) {
            claim.run_size = size;
        }
        claim.sequence = commit.sequence;
        claim.version = commit.version;
        claim.needed = commit.needed;
        claim.committed = Some(commit.progress);
        claim.committed_at = Some(now);
        // The progress may have changed during the commit.
        self.dirty.insert(tranche);
        true
    }

    /// Notes a failed commit. Returns the number of failures in a row, and their begin.
    pub(super) fn failed(&mut self, why: String, now: Timestamp) -> (u32, Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let since = self.failing.take().map_or(now, |(_, since)| since);
        self.failing = Some((why, since));
        (self.failures, since)
    }
}

/// Keeps a commit with unknown outcome, to be repeated unchanged (C11).
pub(super) fn keep_unsure(tranches: &mut Tranches, commit: PendingCommit) {
    if let Some(claim) = held_claim(tranches, &commit) {
        claim.unsure = Some(commit);
    }
}

/// Returns the claim that a commit was made under, if it is still held: the tranche may have been lost, and claimed again.
fn held_claim<'a>(tranches: &'a mut Tranches, commit: &PendingCommit) -> Option<&'a mut Claim> {
    let state = tranches.get_mut(commit.tranche())?;
    (state.claim.fence == Some(commit.fence)).then_some(&mut state.claim)
}

/// Returns whether a tranche has neither a call in flight nor progress to store.
pub(super) fn is_quiet(scheduler: &Scheduler, state: &Tranche, tranche: &TrancheId) -> bool {
    let Some(report) = scheduler.tranche(tranche) else { return true };
    report.in_flight == 0 && report.version == state.claim.version && state.claim.unsure.is_none()
}

/// Returns whether a tranche that has ended is handled and stored completely.
pub(super) fn is_completed(scheduler: &Scheduler, tranches: &Tranches, tranche: &TrancheId) -> bool {
    let Some(state) = tranches.get(tranche) else { return false };
    state.phase == Phase::Ended
        && scheduler.tranche(tranche).is_some_and(|report| report.unhandled == 0)
        && is_quiet(scheduler, state, tranche)
}

#[cfg(test)]
mod tests;
