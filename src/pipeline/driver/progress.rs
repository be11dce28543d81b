//! Commits and transactions.

use std::sync::Arc;
use std::time::Duration;

use super::super::breaker::BackEnd;
use super::super::commits::{self, Done};
use super::super::drain::Ended;
use super::super::messages::{Accepted, Committed, Event, PendingCommit, Plan, WrittenEffects};
use super::super::policy::{self, BackEndReaction, OUTAGE};
use super::super::{set_room, spans, transaction};
use super::Driver;
use super::delivery::answers;
use crate::checkpoint::{CheckpointError, CheckpointKey, Fence};
use crate::clock::Period;
use crate::formats::words::chain;
use crate::handler::HandlerError;
use crate::position::TrancheId;
use crate::runtime::retry::rounded;
use crate::runtime::supervise::TaskKind;
use crate::scheduler::Outcome;
use crate::sink::{AnySink, Decided, Effects, TransactionError, TransactionalSink, Written};
use crate::source::Left;
use crate::work::{Work, WorkKind};

/// The delay before the retry of decisions without room in the stored set. Moving progress ends it earlier.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

impl Driver {
    /// Begins a commit of the progress, if one is due.
    pub(super) fn commit(&mut self) {
        if !self.commits.is_due(self.now) {
            return;
        }
        self.commits.schedule(self.now, self.drain.is_begun());
        if let AnySink::Transactional(sink) = &self.sink {
            let sink = Arc::clone(sink);
            if !self.breaker.is_open(self.now) && self.commits.are_wanted(&mut self.scheduler, &mut self.tranches) {
                self.writes.began(0);
                self.start_transaction(&sink, Vec::new(), Vec::new());
            }
            return;
        }
        let mut pending = self.commits.collect(&mut self.scheduler, &mut self.tranches, &Done::default());
        if pending.is_empty() {
            return;
        }
        self.commits.add_dirty_streams(&mut self.scheduler, &mut pending);
        self.commits.begin(pending.iter().map(|commit| commit.tranche().clone()));
        let (store, events, clock, began) = (Arc::clone(&self.store), self.events_in.clone(), self.clock, self.now);
        self.group.spawn(TaskKind::Committer, "commit", async move {
            let commits: Vec<_> = pending.iter().map(PendingCommit::commit).collect();
            let results = store.commit(&commits).await;
            let period = clock.since(began);
            // Without a driver, the next run reads the outcome from the store.
            drop(events.send(Event::Committed(Committed::Plain { commits: pending, results, period })).await);
            Ok(())
        });
    }

    pub(super) fn on_committed(&mut self, committed: Committed) {
        match committed {
            Committed::Plain { commits, results, period } => self.on_plain_commit(commits, results, period),
            Committed::Transaction { plan, result, period } => self.on_transaction_ended(plan, result, period),
            Committed::NotBegun { mut decided, parks, began, error } => {
                self.end_transaction();
                self.writes.answered(decided.len());
                parks.into_iter().for_each(|work| self.finish(work, Outcome::Return));
                if self.spans.are_recorded() {
                    let period = Period { began, ended: self.now };
                    decided
                        .iter_mut()
                        .for_each(|decided| spans::leave(&mut decided.work, "write", period, Some(&error)));
                }
                self.on_sink_failed(decided, &error);
            }
        }
    }

    fn on_plain_commit(
        &mut self,
        commits: Vec<PendingCommit>,
        results: Vec<Result<(), CheckpointError>>,
        period: Period,
    ) {
        self.commits.end();
        self.counts.committed(period.took());
        let why = results.iter().find_map(|result| result.as_ref().err()).map(|error| chain(error));
        self.spans.commit(period, commits.len(), &[], why.as_deref().map(|why| ("checkpoint", why)));
        for (commit, result) in commits.into_iter().zip(results) {
            match result {
                Ok(()) => self.stored(commit),
                // The tranche was lost during the commit, and may be assigned again.
                Err(_) if !self.is_claimed(commit.tranche(), commit.fence) => {}
                Err(error) => {
                    let tranche = commit.tranche().clone();
                    // Before the reaction, which can forget the tranche and its claim.
                    commits::keep_unsure(&mut self.tranches, commit);
                    self.on_commit_failed(&tranche, &error);
                }
            }
        }
    }

    /// Returns whether the tranche is held under the claim of this fence.
    fn is_claimed(&self, tranche: &TrancheId, fence: Fence) -> bool {
        self.tranches.get(tranche).is_some_and(|state| state.claim.fence == Some(fence))
    }

    fn stored(&mut self, commit: PendingCommit) {
        let set_bytes = commit.progress.handled.encode().len();
        let (tranche, completed) = (commit.tranche().clone(), commit.completed);
        if self.commits.stored(&mut self.tranches, commit, set_bytes, self.now) {
            self.counts.checkpoint_stored(&tranche, completed, set_bytes);
            self.changed.insert(tranche);
        }
    }

    fn on_commit_failed(&mut self, tranche: &TrancheId, error: &CheckpointError) {
        let why = chain(error);
        let (failures, since) = self.commits.failed(why.clone(), self.now);
        self.counts.checkpoint_failed(tranche, since);
        match policy::react_to_store(error, failures, &mut self.random) {
            BackEndReaction::GiveUp { by, since } => self.on_fenced(tranche, by, since),
            BackEndReaction::Halt => self.begin_drain(Ended::Halted(why.clone()), &why),
            BackEndReaction::Retry(delay) => {
                self.commits.delay(self.now + delay);
                tracing::warn!(%tranche, attempt = failures, error = %why, retry_in = ?rounded(delay), "progress not stored, retrying");
            }
        }
    }

    /// Gives up a tranche that another process owns. The results of its work in flight are dropped, and it is not claimed again
    /// (C15).
    pub(super) fn on_fenced(&mut self, tranche: &TrancheId, by: String, since: Option<time::OffsetDateTime>) {
        let since = since.map_or_else(String::new, |since| format!(" since {since}"));
        tracing::error!(%tranche, by, "fenced: another process owns the progress");
        let Some(epoch) = self.tranches.fenced_by(tranche, format!("{by}{since}")) else { return };
        self.scheduler.revoke(tranche);
        self.commits.forget(tranche);
        self.forget_parked(tranche);
        self.failures.forget(tranche);
        self.take_back_calls();
        self.source.left(tranche, epoch, Left::Fenced);
        if self.tranches.are_all_fenced() {
            let why = self.why_fenced();
            self.begin_drain(Ended::Fenced(why.clone()), &why);
        }
    }

    /// Names the fenced tranches and their owners.
    pub(super) fn why_fenced(&self) -> String {
        let owners = self.tranches.fenced().map(|(tranche, by)| format!("tranche `{tranche}` is owned by {by}"));
        owners.collect::<Vec<_>>().join("; ")
    }

    /// Begins a transaction with the queued decisions, if none is in flight.
    pub(super) fn begin_transaction(&mut self, sink: &Arc<dyn TransactionalSink>) {
        if self.commits.is_in_flight() {
            return;
        }
        let mut decided = match self.take_batch() {
            Some(decided) => decided,
            None if self.parks.is_empty() => return,
            None => {
                self.writes.began(0);
                Vec::new()
            }
        };
        let parks = match self.parks.is_empty() || self.halts_over_full_store() {
            true => Vec::new(),
            false => self.parks.take(),
        };
        // The stored progress covers retried events since they were parked.
        let retries: Vec<_> = decided.extract_if(.., |decided| decided.work.kind == WorkKind::Retry).collect();
        // An event must be covered when it is parked: if it came again after its retry, it would have its effect twice (C13).
        let without_effects = |work: Work| Decided { next: work.next, effects: Effects::Events, work, accepted: 0 };
        decided.extend(parks.into_iter().map(without_effects));
        for unfit in self.commits.split_off_unfit(&mut self.scheduler, &self.tranches, &mut decided) {
            let is_park = unfit.work.kind == WorkKind::Park;
            if !is_park {
                self.writes.answered(1);
            }
            if decided.is_empty() && retries.is_empty() && set_room::can_be_split(&self.scheduler, &unfit) {
                self.finish(unfit.work, Outcome::Singly);
            } else if is_park {
                self.finish(unfit.work, Outcome::Wait { until: self.now + NO_ROOM_PAUSE });
            } else if let Some(tranche) = self.scheduler.tranche_of(unfit.work.id) {
                self.scheduler.cancel_clock(unfit.work.id);
                self.writes.set_aside(unfit, tranche, self.now + NO_ROOM_PAUSE);
            } else {
                self.finish(unfit.work, Outcome::Return);
            }
        }
        let parks: Vec<_> = decided.extract_if(.., |decided| decided.work.kind == WorkKind::Park).collect();
        let parks: Vec<_> = parks.into_iter().map(|parked| parked.work).collect();
        decided.extend(retries);
        if decided.is_empty() && parks.is_empty() {
            self.writes.ended();
            self.parks.ended();
            return;
        }
        self.start_transaction(sink, decided, parks);
    }

    fn start_transaction(&mut self, sink: &Arc<dyn TransactionalSink>, mut decided: Vec<Decided>, parks: Vec<Work>) {
        let work = decided.iter().map(|decided| decided.work.id).chain(parks.iter().map(|work| work.id));
        let tranches: Vec<_> = work.filter_map(|work| self.tranche_of(work)).collect();
        self.commits.begin(tranches);
        if self.spans.are_recorded() {
            spans::enter(decided.iter_mut().map(|decided| &mut decided.work), self.now);
        }
        let run = transaction::run(Arc::clone(sink), decided, parks, self.events_in.clone(), self.clock, self.now);
        self.group.spawn(TaskKind::Committer, "transaction", run);
    }

    fn end_transaction(&mut self) {
        self.commits.end();
        self.writes.ended();
        self.parks.ended();
    }

    /// Plans the commit of a transaction, from the decisions that it accepted (C9).
    pub(super) fn on_effects_written(&mut self, effects: WrittenEffects) {
        let WrittenEffects { mut decided, results, parks, began, go } = effects;
        if self.spans.are_recorded() {
            spans::written(&mut decided, Period { began, ended: self.now }, &results);
        }
        self.writes.answered(decided.len());
        let accepted = self.accept(decided, results);
        // A transaction with an effect of a lost tranche must not commit (C10).
        let work = accepted.iter().map(|accepted| &accepted.decided.work).chain(&parks);
        let is_owned = work.clone().all(|work| self.is_held(work.id));
        let mut done = Done::default();
        accepted.iter().for_each(|accepted| done.add(&self.scheduler, &accepted.decided.work, accepted.next));
        parks.iter().for_each(|work| done.add(&self.scheduler, work, work.next));
        let removals = self.removals(accepted.iter().map(|accepted| (&accepted.decided.work, accepted.next)));
        removals.iter().for_each(|of| done.touch(&of.key.tranche));
        let mut pending = match is_owned {
            true => self.commits.collect(&mut self.scheduler, &mut self.tranches, &done),
            false => Vec::new(),
        };
        // All decisions together had room. The sink may have accepted a part of them that needs a larger set (C14).
        if pending.is_empty() || !self.commits.fit(&pending) {
            // Without a plan the transaction rolls back.
            drop(go);
            self.end_transaction();
            self.put_back_accepted(accepted);
            let until = self.now + NO_ROOM_PAUSE;
            parks.into_iter().for_each(|work| self.finish(work, Outcome::Wait { until }));
            return;
        }
        self.commits.add_dirty_streams(&mut self.scheduler, &mut pending);
        let moved = accepted.iter().map(|accepted| (&accepted.decided.work, accepted.next));
        let moved = moved.chain(parks.iter().map(|work| (work, work.next)));
        self.commits.add_write_positions(&self.scheduler, &mut pending, moved);
        self.commits.begin(pending.iter().map(|commit| commit.tranche().clone()));
        let (parks, unowned) = self.parks.mark(parks, &self.scheduler, &self.tranches, &self.late_mark());
        unowned.into_iter().for_each(|work| self.finish(work, Outcome::Return));
        if let Err(plan) = go.send(Plan { accepted, commits: pending, parks, removals, made: self.now }) {
            // The transaction's task has ended, and the transaction was rolled back with it.
            self.end_transaction();
            self.put_back(plan.accepted.into_iter().map(|accepted| accepted.decided).collect());
            self.give_parks_back(plan.parks);
        }
    }

    /// Puts back the decisions of a transaction that rolled back.
    fn put_back_accepted(&mut self, accepted: Vec<Accepted>) {
        let mut whole = Vec::with_capacity(accepted.len());
        for Accepted { decided, next } in accepted {
            // If the sink accepts the same part in the next transaction, that one rolls back, too. So the events are decided singly.
            match next < decided.next {
                true => self.finish(decided.work, Outcome::Singly),
                false => whole.push(decided),
            }
        }
        self.put_back(whole);
    }

    fn accept(&mut self, decided: Vec<Decided>, results: Vec<Result<Written, HandlerError>>) -> Vec<Accepted> {
        let all = decided.len();
        let (mut accepted, mut later) = (Vec::with_capacity(all), Vec::new());
        for (decided, result) in answers(decided, results) {
            match result {
                Ok(Written::All) => accepted.push(Accepted { next: decided.next, decided }),
                Ok(Written::Upto(next)) if next > decided.work.first() => accepted.push(Accepted { next, decided }),
                Ok(Written::Later) => later.push(decided),
                Ok(Written::Upto(_) | Written::Waiting) => self.no_progress(decided.work),
                Err(error) => self.on_write_failed(decided, &error),
            }
        }
        self.put_back_later(later, all);
        accepted
    }

    fn on_transaction_ended(&mut self, plan: Plan, result: Result<(), TransactionError>, period: Period) {
        self.end_transaction();
        self.counts.committed(period.took());
        let Plan { accepted, commits, parks, removals: _, made } = plan;
        let why = result.as_ref().err().map(ToString::to_string);
        let failed = why.as_deref().map(|why| ("transaction", why));
        self.spans.commit(Period { began: made, ..period }, commits.len(), &accepted, failed);
        let error = match result {
            Ok(()) => {
                self.breaker.passed(BackEnd::Sink, self.now);
                for Accepted { decided, next } in accepted {
                    match decided.work.kind {
                        WorkKind::Retry => self.retry_committed(decided.work, next),
                        _ => self.done(decided.work, next),
                    }
                }
                self.were_parked(parks);
                commits.into_iter().for_each(|commit| self.stored(commit));
                self.writes.wake_set_aside();
                return;
            }
            Err(error) => error,
        };
        for commit in &commits {
            self.scheduler.restore_dirty_streams(commit.tranche(), &commit.write_positions);
        }
        let claims = commits.iter().map(|commit| (commit.key.clone(), commit.fence));
        let claims: Vec<_> = claims.chain(parks.iter().map(|group| (group.key.clone(), group.fence))).collect();
        self.give_parks_back(parks);
        let decided: Vec<_> = accepted.into_iter().map(|accepted| accepted.decided).collect();
        self.on_transaction_failed(error, decided, &claims);
    }

    fn on_transaction_failed(
        &mut self,
        error: TransactionError,
        decided: Vec<Decided>,
        claims: &[(CheckpointKey, Fence)],
    ) {
        match error {
            TransactionError::Fenced(fenced) => {
                self.put_back(decided);
                for (key, error) in fenced {
                    // Of a tranche that was lost during the commit, only the earlier claim is fenced.
                    let is_held =
                        |claim: &(CheckpointKey, Fence)| claim.0 == key && self.is_claimed(&key.tranche, claim.1);
                    if claims.iter().any(is_held) {
                        self.on_commit_failed(&key.tranche, &error);
                    }
                }
            }
            // A constraint failed at the commit. A transaction for each decision finds the one that violates it.
            TransactionError::Failed(error) if policy::is_of_the_effects(&error) => {
                match <[Decided; 1]>::try_from(decided) {
                    Ok([decided]) => self.on_write_failed(decided, &error),
                    Err(decided) => {
                        self.writes.write_singly(decided.len());
                        self.put_back(decided);
                    }
                }
            }
            TransactionError::Failed(error) => self.on_sink_failed(decided, &error),
            TransactionError::OutcomeUnknown(_) => unreachable!("the outcome was looked up"),
        }
    }

    /// Reacts to a transaction that failed as a whole: no decision is at fault.
    fn on_sink_failed(&mut self, decided: Vec<Decided>, error: &HandlerError) {
        self.commits.delay(self.now + OUTAGE.delay(1, &mut self.random));
        if policy::is_unusable(error) {
            decided.into_iter().for_each(|decided| self.finish(decided.work, Outcome::Return));
            return self.begin_drain(Ended::Halted(error.message().to_owned()), error.message());
        }
        let shared = policy::as_unavailable(error);
        if decided.is_empty() {
            let delay = OUTAGE.delay(self.breaker.outages() + 1, &mut self.random);
            self.breaker.unavailable(BackEnd::Sink, delay, error.message(), self.now);
        }
        for decided in decided {
            self.on_write_failed(decided, &shared);
        }
    }
}
