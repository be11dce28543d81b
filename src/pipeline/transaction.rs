//! Group commit: one transaction at a time takes all that is decided, and the progress of what it accepted (C9–C11).

use std::sync::Arc;

use tokio::sync::oneshot;

use super::OUTAGE;
use super::commit::{Committed, Step};
use super::driver::{Driver, Event};
use super::parking::ToPark;
use super::traces;
use crate::checkpoint::{CheckpointError, CheckpointErrorKind, CheckpointKey, CheckpointStore, Fence, Parked};
use crate::clock::{Period, Timestamp};
use crate::formats::words::chain;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::retry::rounded;
use crate::runtime::supervise::TaskKind;
use crate::scheduler::Outcome;
use crate::sink::{Decided, ParkedChange, TransactionError, TransactionalSink, Written};
use crate::work::Work;

/// A transaction whose effects are written and that waits for its progress.
pub(super) struct InTransaction {
    decided: Vec<Decided>,
    results: Vec<Result<Written, HandlerError>>,
    parks: Vec<Work>,
    began: Timestamp,
    go: oneshot::Sender<Plan>,
}

/// What a transaction is to commit beside its effects.
pub(super) struct Plan {
    accepted: Vec<(Work, i64)>,
    steps: Vec<Step>,
    parks: Vec<ToPark>,
    /// When all of it was known.
    made: Timestamp,
}

impl Driver {
    /// Begins a transaction with what was decided, if none is under way. Never done at once.
    pub(super) fn begin_transaction(&mut self, sink: &Arc<dyn TransactionalSink>) -> bool {
        if self.in_transaction {
            return false;
        }
        let most = if self.alone > 0 { 1 } else { sink.max_batch() };
        self.alone = self.alone.saturating_sub(1);
        let batch = if self.decided.len() <= most {
            std::mem::take(&mut self.decided)
        } else {
            self.decided.drain(..most).collect()
        };
        self.start_transaction(sink, batch);
        false
    }

    pub(super) fn start_transaction(&mut self, sink: &Arc<dyn TransactionalSink>, mut decided: Vec<Decided>) {
        self.in_transaction = true;
        self.writing += decided.len();
        let parks = std::mem::take(&mut self.to_park);
        let (sink, events, clock, began) = (Arc::clone(sink), self.events_in.clone(), self.clock, self.now);
        if self.recorder.is_some() {
            traces::enter(decided.iter_mut().map(|decided| &mut decided.work), began);
        }
        self.group.spawn(TaskKind::Committer, "transaction", async move {
            let mut transaction = match sink.begin().await {
                Ok(transaction) => transaction,
                Err(error) => {
                    drop(events.send(Event::Committed(Committed::NotBegun { decided, parks, began, error })).await);
                    return Ok(());
                }
            };
            let results = if decided.is_empty() { Vec::new() } else { transaction.write(&decided).await };
            let (go, plan) = oneshot::channel();
            drop(events.send(Event::Written(InTransaction { decided, results, parks, began, go })).await);
            // Without a plan there is nothing to commit: dropping the transaction rolls it back.
            let Ok(plan) = plan.await else { return Ok(()) };
            let result = commit(&*sink.checkpoints(), transaction, &plan).await;
            let period = clock.since(began);
            drop(events.send(Event::Committed(Committed::Transaction { plan, result, period })).await);
            Ok(())
        });
    }

    pub(super) fn on_written(&mut self, transaction: InTransaction) {
        let InTransaction { mut decided, results, parks, began, go } = transaction;
        if self.recorder.is_some() {
            traces::written(&mut decided, Period { began, ended: self.now }, &results);
        }
        self.writing -= decided.len();
        let (asked, answered) = (decided.len(), results.len());
        let mut results = results.into_iter();
        let mut accepted = Vec::with_capacity(asked);
        for Decided { work, next, .. } in decided {
            let result = results.next().unwrap_or_else(|| {
                Err(HandlerError::new(
                    HandlerErrorKind::Transient,
                    format!("the sink answered for {answered} of {asked} decisions"),
                ))
            });
            match result {
                Ok(Written::All) => accepted.push((work, next)),
                Ok(Written::Upto(next)) if next > work.first() => accepted.push((work, next)),
                Ok(Written::Upto(_) | Written::Waiting | Written::Later) => {
                    let outcome = self.options.errors.no_progress(self.now, &mut self.random);
                    self.finish(work, outcome);
                }
                Err(error) => self.judge(work, &error),
            }
        }
        // An effect of a tranche that is no longer ours is in the transaction: none of it may be committed (C10).
        let ours = accepted.iter().map(|(work, _)| work).chain(&parks).all(|work| self.scheduler.is_held(work.id));
        let mut done: Vec<_> = accepted.iter().map(|(work, next)| (work.id, *next)).collect();
        done.extend(parks.iter().map(|work| (work.id, work.next)));
        let mut steps = if ours { self.steps(&done) } else { Vec::new() };
        if steps.is_empty() {
            self.in_transaction = false;
            self.give_back(accepted.into_iter().map(|(work, _)| work).collect());
            self.give_back(parks);
            return;
        }
        self.add_moved(&mut steps);
        if self.options.write_positions {
            self.add_write_positions(&mut steps, accepted.iter().map(|(work, next)| (work, *next)));
            self.add_write_positions(&mut steps, parks.iter().map(|work| (work, work.next)));
        }
        let parks = self.mark(parks);
        if let Err(plan) = go.send(Plan { accepted, steps, parks, made: self.now }) {
            self.in_transaction = false;
            self.give_back(plan.accepted.into_iter().map(|(work, _)| work).collect());
            self.give_parks_back(plan.parks);
        }
    }

    fn add_write_positions<'a>(&self, steps: &mut [Step], done: impl Iterator<Item = (&'a Work, i64)>) {
        for (work, next) in done {
            let Some(tranche) = self.scheduler.tranche_of(work.id) else { continue };
            let Some(position) = self.scheduler.write_position_with(work.id, next) else { continue };
            if let Some(step) = steps.iter_mut().find(|step| step.tranche == tranche) {
                step.write_positions.push((work.stream().into(), position));
            }
        }
    }

    pub(super) fn on_transaction_ended(&mut self, plan: Plan, result: Result<(), TransactionError>, period: Period) {
        self.in_transaction = false;
        self.counts.committed(period.took());
        let Plan { accepted, steps, parks, made } = plan;
        let why = result.as_ref().err().map(ToString::to_string);
        let failed = why.as_deref().map(|why| ("transaction", why));
        self.trace_commit(Period { began: made, ..period }, steps.len(), &accepted, failed);
        let result = match result {
            Ok(()) => {
                self.gate.passed(self.now);
                for (work, next) in accepted {
                    self.done(work, next);
                }
                self.were_parked(parks);
                steps.into_iter().for_each(|step| self.stored(step));
                return;
            }
            Err(error) => error,
        };
        for step in &steps {
            self.scheduler.untake_moved(&step.tranche, &step.write_positions);
        }
        let claims = steps.iter().map(|step| (step.key.clone(), step.fence));
        let claims: Vec<_> = claims.chain(parks.iter().map(|group| (group.key.clone(), group.fence))).collect();
        self.give_parks_back(parks);
        let work: Vec<Work> = accepted.into_iter().map(|(work, _)| work).collect();
        match result {
            TransactionError::Fenced(fenced) => {
                self.give_back(work);
                for (key, error) in fenced {
                    // What was lost meanwhile, and perhaps claimed again, is fenced under the old claim only.
                    let is_it =
                        |claim: &(CheckpointKey, Fence)| claim.0 == key && self.is_claimed(&key.tranche, claim.1);
                    if claims.iter().any(is_it) {
                        self.on_commit_failed(&key.tranche, &error);
                    }
                }
            }
            // A constraint that is checked at the commit: whose effects break it is found by giving each a transaction.
            TransactionError::Failed(error) if is_of_the_effects(&error) => {
                if let Ok([work]) = <[Work; 1]>::try_from(work).map_err(|work| {
                    self.alone = work.len();
                    self.give_back(work);
                }) {
                    self.judge(work, &error);
                }
            }
            TransactionError::Failed(error) => {
                self.commit_at = self.now + OUTAGE.delay(1, &mut self.random);
                self.judge_all(work, &error);
            }
            TransactionError::OutcomeUnknown(_) => unreachable!("the outcome was looked up"),
        }
    }

    /// A shared transaction failed as a whole: that is nobody's own failure.
    pub(super) fn judge_all(&mut self, work: Vec<Work>, error: &HandlerError) {
        let shared = HandlerError::new(HandlerErrorKind::Unavailable, error.message());
        if work.is_empty() {
            let delay = OUTAGE.delay(self.gate.outages() + 1, &mut self.random);
            self.gate.unavailable(delay, error.message(), self.now);
        }
        for work in work {
            self.judge(work, &shared);
        }
    }

    pub(super) fn give_back(&mut self, work: Vec<Work>) {
        for work in work {
            self.finish(work, Outcome::Return);
        }
    }
}

/// Returns whether a transaction failed by what was written in it.
fn is_of_the_effects(error: &HandlerError) -> bool {
    matches!(error.kind(), HandlerErrorKind::Permanent | HandlerErrorKind::Malformed)
}

/// Commits, and finds out what happened if that does not say (C11).
async fn commit(
    store: &dyn CheckpointStore,
    transaction: Box<dyn crate::sink::Transaction>,
    plan: &Plan,
) -> Result<(), TransactionError> {
    let commits: Vec<_> = plan.steps.iter().map(Step::commit).collect();
    let parked: Vec<Vec<Parked<'_>>> = plan.parks.iter().map(ToPark::events).collect();
    let changes: Vec<_> = plan
        .parks
        .iter()
        .zip(&parked)
        .map(|(group, events)| ParkedChange { key: &group.key, fence: group.fence, events })
        .collect();
    match transaction.commit(&commits, &changes).await {
        Err(TransactionError::OutcomeUnknown(cause)) => {
            tracing::warn!(error = %cause, "it is not known whether a transaction was committed, looking");
            look_up_outcome(store, &plan.steps).await
        }
        result => result,
    }
}

/// Finds out whether a transaction was committed: all of it was, or nothing. A key that was claimed since does not tell:
/// another one that is still ours does.
async fn look_up_outcome(store: &dyn CheckpointStore, steps: &[Step]) -> Result<(), TransactionError> {
    let mut fenced = Vec::new();
    for step in steps {
        match last_commit(store, step).await {
            Some((fence, sequence)) if (fence, sequence) == (step.fence, step.sequence) => return Ok(()),
            Some((fence, _)) if fence > step.fence => {
                // Whoever claimed it since has seen what was committed before.
                let kind = CheckpointErrorKind::Fenced { by: "another process".to_owned(), since: None };
                fenced.push((step.key.clone(), CheckpointError::new(kind, format!("commit {}", step.key))));
            }
            _ => {
                let why = "the transaction was not committed";
                return Err(TransactionError::Failed(HandlerError::new(HandlerErrorKind::Unavailable, why)));
            }
        }
    }
    Err(TransactionError::Fenced(fenced))
}

/// Asks until there is an answer.
async fn last_commit(store: &dyn CheckpointStore, step: &Step) -> Option<(Fence, u64)> {
    let mut random = fastrand::Rng::with_seed(step.sequence);
    let mut failures = 0;
    loop {
        match store.last_commit(&step.key).await {
            Ok(last) => return last,
            Err(error) => {
                failures += 1;
                let delay = OUTAGE.delay(failures, &mut random);
                tracing::warn!(key = %step.key, error = %chain(&error), retry_in = ?rounded(delay), "the last commit could not be read, retrying");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use async_trait::async_trait;

    use super::*;
    use crate::checkpoint::{Claimed, Commit, Owner};
    use crate::position::{Position, Progress, TrancheId};

    /// Who has claimed which tranche, and what was committed last.
    #[derive(Default)]
    struct Claims(BTreeMap<TrancheId, (Fence, u64)>);

    #[async_trait]
    impl CheckpointStore for Claims {
        fn max_set_bytes(&self) -> Option<usize> {
            None
        }

        async fn load(&self, _key: &CheckpointKey) -> Result<Option<Progress>, CheckpointError> {
            unreachable!("nobody asks")
        }

        async fn claim_all(&self, _keys: &[CheckpointKey], _owner: &Owner) -> Vec<Result<Claimed, CheckpointError>> {
            unreachable!("nobody asks")
        }

        async fn commit(&self, _commits: &[Commit<'_>]) -> Vec<Result<(), CheckpointError>> {
            unreachable!("nobody asks")
        }

        async fn last_commit(&self, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, CheckpointError> {
            Ok(self.0.get(&key.tranche).copied())
        }

        async fn release(&self, _key: &CheckpointKey, _fence: Fence) -> Result<(), CheckpointError> {
            unreachable!("nobody asks")
        }
    }

    fn step(tranche: &str) -> Step {
        let tranche = TrancheId::new(tranche);
        Step {
            key: CheckpointKey { group: "g".into(), source: "s".into(), tranche: tranche.clone() },
            tranche,
            fence: Fence(3),
            sequence: 8,
            progress: Progress::at(Position::Number(1)),
            version: 0,
            write_positions: Vec::new(),
            is_repeated: false,
        }
    }

    /// Looks up a transaction of two tranches, of which these were claimed again since.
    async fn check(committed: bool, claimed_again: &[&str]) -> String {
        let steps = [step("0"), step("1")];
        let sequence = if committed { 8 } else { 7 };
        let mut claims: BTreeMap<_, _> =
            steps.iter().map(|step| (step.tranche.clone(), (step.fence, sequence))).collect();
        for tranche in claimed_again {
            claims.insert(TrancheId::new(*tranche), (Fence(4), sequence));
        }
        match look_up_outcome(&Claims(claims), &steps).await {
            Ok(()) => "committed".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn c11_one_key_that_is_still_held_tells_whether_a_transaction_was_committed() {
        for claimed_again in [&[][..], &["0"], &["1"]] {
            assert_eq!(check(true, claimed_again).await, "committed", "{claimed_again:?}");
            let failed = check(false, claimed_again).await;
            assert!(failed.contains("the transaction was not committed"), "{claimed_again:?}: {failed}");
        }
        assert_eq!(check(true, &["0", "1"]).await, "2 of the transaction's tranches are fenced");
    }
}
