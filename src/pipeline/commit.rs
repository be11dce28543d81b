//! The driver's dealings with progress: store it beside the sink, or in one transaction with what the sink writes.
//!
//! Commits of a tranche come one after the other (C11). Nothing is stored while nothing changes (R68), and a commit that
//! fails is tried again, with the newest progress, for ever (R8).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::OUTAGE;
use super::driver::{Driver, Ended, Event};
use super::intake::chain;
use crate::checkpoint::{CheckpointError, CheckpointErrorKind, CheckpointKey, Commit, Fence, Parked};
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::position::{Progress, TrancheId};
use crate::scheduler::Outcome;
use crate::sink::{Decided, ParkedChange, TransactionError, TransactionalSink, Written};
use crate::source::Drained;
use crate::supervise::TaskKind;
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
    tranche: TrancheId,
    key: CheckpointKey,
    fence: Fence,
    sequence: u64,
    progress: Progress,
    /// The scheduler's version of it.
    version: u64,
    write_positions: Vec<(Box<str>, i64)>,
}

impl Step {
    fn commit(&self) -> Commit<'_> {
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
        took: Duration,
    },
    Transaction {
        plan: Plan,
        result: Result<(), TransactionError>,
        took: Duration,
    },
    /// The transaction could not even be begun.
    NotBegun {
        decided: Vec<Decided>,
        parks: Vec<Work>,
        error: HandlerError,
    },
    Released,
}

/// A transaction whose effects are written and that waits for its progress.
pub(super) struct InTransaction {
    decided: Vec<Decided>,
    results: Vec<Result<Written, HandlerError>>,
    parks: Vec<Work>,
    go: oneshot::Sender<Plan>,
}

/// What a transaction is to commit beside its effects.
pub(super) struct Plan {
    accepted: Vec<(Work, i64)>,
    steps: Vec<Step>,
    parks: Vec<ParkedWork>,
}

struct ParkedWork {
    key: CheckpointKey,
    fence: Fence,
    work: Vec<(Work, Arc<str>)>,
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
        if let crate::sink::AnySink::Transactional(sink) = &self.sink {
            let sink = Arc::clone(sink);
            if !self.gate.is_closed(self.now) && self.has_uncommitted_progress() {
                self.start_transaction(&sink, Vec::new());
            }
            return;
        }
        let steps = self.steps(&[]);
        if steps.is_empty() {
            return;
        }
        self.plain_commit.under_way = true;
        let (store, events, clock, began) = (Arc::clone(&self.store), self.events_in.clone(), self.clock, self.now);
        self.group.spawn(TaskKind::Committer, "commit", async move {
            let commits: Vec<_> = steps.iter().map(Step::commit).collect();
            let results = store.commit(&commits).await;
            let took = clock.now().since(began);
            drop(events.send(Event::Committed(Committed::Plain { steps, results, took })).await);
            Ok(())
        });
    }

    /// Returns the next commit of each tranche whose progress, with `done`, is not what is stored.
    fn steps(&mut self, done: &[(crate::work::WorkId, i64)]) -> Vec<Step> {
        let ahead = self.scheduler.progress_with(done);
        let plain_positions = self.store.max_set_bytes().is_none() || !self.ordinals;
        let mut steps = Vec::new();
        for (tranche, state) in &mut self.tranches {
            let (Some(fence), Some(report)) = (state.claim.fence, self.scheduler.tranche(tranche)) else { continue };
            if let Some(step) = state.claim.unsure.take() {
                steps.push(step);
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
            });
        }
        steps
    }

    pub(super) fn on_committed(&mut self, committed: Committed) {
        match committed {
            Committed::Plain { steps, results, took } => {
                self.plain_commit.under_way = false;
                self.counts.committed(took);
                for (step, result) in steps.into_iter().zip(results) {
                    match result {
                        Ok(()) => self.stored(step),
                        Err(error) => {
                            self.on_commit_failed(&step.tranche, &error);
                            if let Some(state) = self.tranches.get_mut(&step.tranche) {
                                state.claim.unsure = Some(step);
                            }
                        }
                    }
                }
            }
            Committed::Transaction { plan, result, took } => self.on_transaction_ended(plan, result, took),
            Committed::NotBegun { decided, parks, error } => {
                self.in_transaction = false;
                self.writing -= decided.len();
                self.give_back(parks);
                self.judge_all(decided.into_iter().map(|decided| decided.work).collect(), &error);
                self.commit_at = self.now + OUTAGE.delay(1, &mut self.random);
            }
            Committed::Released => self.plain_commit.releasing -= 1,
        }
    }

    fn stored(&mut self, step: Step) {
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

    fn on_commit_failed(&mut self, tranche: &TrancheId, error: &CheckpointError) {
        let why = chain(error);
        let since = self.commit_failing.take().map_or(self.now, |(_, since)| since);
        self.commit_failing = Some((why.clone(), since));
        self.counts.checkpoint_failed(tranche, since);
        match &error.kind {
            CheckpointErrorKind::Fenced { by, since } => self.on_fenced(tranche, by, *since),
            CheckpointErrorKind::Unreadable => self.drain(Ended::Halted(why.clone()), &why),
            CheckpointErrorKind::Unavailable | CheckpointErrorKind::OutcomeUnknown => {
                self.commit_failures += 1;
                let delay = OUTAGE.delay(self.commit_failures, &mut self.random);
                self.commit_at = self.now + delay;
                tracing::warn!(pipeline = %self.identity.name, %tranche, error = %why, retry_in = ?delay, "progress could not be stored, retrying");
            }
        }
    }

    /// Somebody else owns the progress now: what is under way counts for nothing, and nothing is claimed back (C15).
    fn on_fenced(&mut self, tranche: &TrancheId, by: &str, since: Option<time::OffsetDateTime>) {
        let since = since.map_or_else(String::new, |since| format!(" since {since}"));
        let why = format!("tranche `{tranche}` is owned by {by}{since}");
        tracing::error!(pipeline = %self.identity.name, %tranche, by, "fenced: another process owns the progress");
        self.forget_tranche(tranche);
        if self.tranches.is_empty() {
            self.drain(Ended::Fenced(why.clone()), &why);
        }
    }

    pub(super) fn release(&mut self, key: CheckpointKey, fence: Fence, drained: Option<Drained>) {
        self.plain_commit.releasing += 1;
        let (store, events) = (Arc::clone(&self.store), self.events_in.clone());
        self.group.spawn(TaskKind::Committer, "release", async move {
            if let Err(error) = store.release(&key, fence).await {
                tracing::debug!(%key, error = %chain(&error), "the key could not be released");
            }
            drop(drained);
            drop(events.send(Event::Committed(Committed::Released)).await);
            Ok(())
        });
    }

    pub(super) fn release_keys(&mut self) {
        let held: Vec<_> =
            self.tranches.values().filter_map(|state| Some((state.key.clone(), state.claim.fence?))).collect();
        for (key, fence) in held {
            self.release(key, fence, None);
        }
    }

    /// Groups work by the claim it is under.
    pub(super) fn by_tranche(&self, work: &[Work]) -> Vec<(CheckpointKey, Fence, Vec<usize>)> {
        let mut groups: Vec<(CheckpointKey, Fence, Vec<usize>)> = Vec::new();
        for (at, work) in work.iter().enumerate() {
            let Some(tranche) = self.scheduler.tranche_of(work.id) else { continue };
            let Some(state) = self.tranches.get(&tranche) else { continue };
            let Some(fence) = state.claim.fence else { continue };
            match groups.iter_mut().find(|(key, _, _)| key.tranche == tranche) {
                Some((_, _, indexes)) => indexes.push(at),
                None => groups.push((state.key.clone(), fence, vec![at])),
            }
        }
        groups
    }
}

/// Group commit: one transaction at a time takes all that is decided.
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

    fn start_transaction(&mut self, sink: &Arc<dyn TransactionalSink>, decided: Vec<Decided>) {
        self.in_transaction = true;
        self.writing += decided.len();
        let parks = std::mem::take(&mut self.to_park);
        let (sink, events, clock, began) = (Arc::clone(sink), self.events_in.clone(), self.clock, self.now);
        self.group.spawn(TaskKind::Committer, "transaction", async move {
            let mut transaction = match sink.begin().await {
                Ok(transaction) => transaction,
                Err(error) => {
                    drop(events.send(Event::Committed(Committed::NotBegun { decided, parks, error })).await);
                    return Ok(());
                }
            };
            let results = if decided.is_empty() { Vec::new() } else { transaction.write(&decided).await };
            let (go, plan) = oneshot::channel();
            drop(events.send(Event::Written(InTransaction { decided, results, parks, go })).await);
            // Without a plan there is nothing to commit: dropping the transaction rolls it back.
            let Ok(plan) = plan.await else { return Ok(()) };
            let result = commit(&*sink, transaction, &plan).await;
            let took = clock.now().since(began);
            drop(events.send(Event::Committed(Committed::Transaction { plan, result, took })).await);
            Ok(())
        });
    }

    pub(super) fn on_written(&mut self, transaction: InTransaction) {
        let InTransaction { decided, results, parks, go } = transaction;
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
                    self.scheduler.finish(work, outcome, self.now);
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
        if let Err(plan) = go.send(Plan { accepted, steps, parks }) {
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

    fn on_transaction_ended(&mut self, plan: Plan, result: Result<(), TransactionError>, took: Duration) {
        self.in_transaction = false;
        self.counts.committed(took);
        let Plan { accepted, steps, parks } = plan;
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
    fn judge_all(&mut self, work: Vec<Work>, error: &HandlerError) {
        let shared = HandlerError::new(HandlerErrorKind::Unavailable, error.message());
        if work.is_empty() {
            let delay = OUTAGE.delay(self.gate.outages() + 1, &mut self.random);
            self.gate.unavailable(delay, error.message(), self.now);
        }
        for work in work {
            self.judge(work, &shared);
        }
    }

    fn give_back(&mut self, work: Vec<Work>) {
        for work in work {
            self.scheduler.finish(work, Outcome::Return, self.now);
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
                tracing::warn!(key = %step.key, error = %chain(&error), retry_in = ?delay, "the last commit could not be read, retrying");
                tokio::time::sleep(delay).await;
            }
        }
    }
}
