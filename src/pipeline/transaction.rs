//! Group commit: one transaction at a time takes all that is decided, and the progress of what it accepted (C9–C11).

use std::sync::Arc;

use tokio::sync::oneshot;

use super::OUTAGE;
use super::commit::{Committed, Step};
use super::driver::{Driver, Event};
use super::intake::chain;
use super::traces;
use crate::checkpoint::{CheckpointError, CheckpointErrorKind, CheckpointKey, Fence, Parked};
use crate::clock::{Period, Timestamp};
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::retry::rounded;
use crate::scheduler::Outcome;
use crate::sink::{Decided, ParkedChange, TransactionError, TransactionalSink, Written};
use crate::supervise::TaskKind;
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
    parks: Vec<ParkedWork>,
    /// When all of it was known.
    made: Timestamp,
}

struct ParkedWork {
    key: CheckpointKey,
    fence: Fence,
    work: Vec<(Work, Arc<str>)>,
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
            let result = commit(&*sink, transaction, &plan).await;
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
                Ok(Written::Upto(_) | Written::Waiting) => {
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
        if self.options.write_positions {
            self.add_write_positions(&mut steps, &accepted);
        }
        let parks = self.parked_work(parks);
        if let Err(plan) = go.send(Plan { accepted, steps, parks, made: self.now }) {
            self.in_transaction = false;
            self.give_back(plan.accepted.into_iter().map(|(work, _)| work).collect());
        }
    }

    fn add_write_positions(&self, steps: &mut [Step], accepted: &[(Work, i64)]) {
        for (work, next) in accepted {
            let Some(tranche) = self.scheduler.tranche_of(work.id) else { continue };
            let Some(position) = self.scheduler.write_position_with(work.id, *next) else { continue };
            if let Some(step) = steps.iter_mut().find(|step| step.tranche == tranche) {
                step.write_positions.push((work.stream().into(), position));
            }
        }
    }

    fn parked_work(&self, parks: Vec<Work>) -> Vec<ParkedWork> {
        let mut groups: Vec<ParkedWork> = Vec::new();
        for work in parks {
            let claim = self.scheduler.tranche_of(work.id).and_then(|tranche| {
                let state = self.tranches.get(&tranche)?;
                Some((state.key.clone(), state.claim.fence?))
            });
            let (key, fence) = claim.expect("work of a tranche that is held has a claim");
            let why = self.why_parked(work.stream());
            match groups.iter_mut().find(|group| group.key == key) {
                Some(group) => group.work.push((work, why)),
                None => groups.push(ParkedWork { key, fence, work: vec![(work, why)] }),
            }
        }
        groups
    }

    pub(super) fn on_transaction_ended(&mut self, plan: Plan, result: Result<(), TransactionError>, period: Period) {
        self.in_transaction = false;
        self.counts.committed(period.took());
        let Plan { accepted, steps, parks, made } = plan;
        let why = result.as_ref().err().map(ToString::to_string);
        let failed = why.as_deref().map(|why| ("transaction", why));
        self.trace_commit(Period { began: made, ..period }, steps.len(), &accepted, failed);
        let parks: Vec<Work> = parks.into_iter().flat_map(|group| group.work).map(|(work, _)| work).collect();
        let result = match result {
            Ok(()) => {
                self.gate.passed(self.now);
                for (work, next) in accepted {
                    self.done(work, next);
                }
                for work in parks {
                    let next = work.next;
                    self.done(work, next);
                }
                steps.into_iter().for_each(|step| self.stored(step));
                return;
            }
            Err(error) => error,
        };
        self.give_back(parks);
        let work: Vec<Work> = accepted.into_iter().map(|(work, _)| work).collect();
        match result {
            TransactionError::Fenced(fenced) => {
                self.give_back(work);
                for (key, error) in fenced {
                    self.on_commit_failed(&key.tranche, &error);
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
    sink: &dyn TransactionalSink,
    transaction: Box<dyn crate::sink::Transaction>,
    plan: &Plan,
) -> Result<(), TransactionError> {
    let commits: Vec<_> = plan.steps.iter().map(Step::commit).collect();
    let parked: Vec<Vec<Parked<'_>>> = plan
        .parks
        .iter()
        .map(|group| {
            group
                .work
                .iter()
                .flat_map(|(work, why)| work.events.iter().map(move |event| Parked { event, why }))
                .collect()
        })
        .collect();
    let changes: Vec<_> = plan
        .parks
        .iter()
        .zip(&parked)
        .map(|(group, events)| ParkedChange { key: &group.key, fence: group.fence, events })
        .collect();
    match transaction.commit(&commits, &changes).await {
        Err(TransactionError::OutcomeUnknown(cause)) => {
            tracing::warn!(error = %cause, "it is not known whether a transaction was committed, looking");
            let step = plan.steps.first().expect("a transaction commits progress");
            look_up_outcome(sink, step).await
        }
        result => result,
    }
}

async fn look_up_outcome(sink: &dyn TransactionalSink, step: &Step) -> Result<(), TransactionError> {
    let mut random = fastrand::Rng::with_seed(step.sequence);
    let mut failures = 0;
    loop {
        match sink.last_commit(&step.key).await {
            Ok(Some((fence, sequence))) if (fence, sequence) == (step.fence, step.sequence) => return Ok(()),
            Ok(Some((fence, _))) if fence > step.fence => {
                // Whoever claimed it since has seen what was committed before.
                let kind = CheckpointErrorKind::Fenced { by: "another process".to_owned(), since: None };
                return Err(TransactionError::Fenced(vec![(
                    step.key.clone(),
                    CheckpointError::new(kind, format!("commit {}", step.key)),
                )]));
            }
            Ok(_) => {
                return Err(TransactionError::Failed(HandlerError::new(
                    HandlerErrorKind::Unavailable,
                    "the transaction was not committed",
                )));
            }
            Err(error) => {
                failures += 1;
                let delay = OUTAGE.delay(failures, &mut random);
                tracing::warn!(key = %step.key, error = %chain(&error), retry_in = ?rounded(delay), "the last commit could not be read, retrying");
                tokio::time::sleep(delay).await;
            }
        }
    }
}
