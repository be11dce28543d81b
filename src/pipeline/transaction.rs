//! One transaction of a sink that holds the progress: effects first, then progress, then the commit (C9–C11).

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::messages::{Committed, Event, PendingCommit, Plan, ToPark, ToRemove, WrittenEffects};
use super::policy::{self, OUTAGE};
use crate::checkpoint::{CheckpointError, CheckpointErrorKind, CheckpointStore, Fence, Parked, ParkedUpdate};
use crate::clock::{Clock, Timestamp};
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::retry::rounded;
use crate::sink::{Decided, ParkedChange, Transaction, TransactionError, TransactionalSink};
use crate::work::Work;

/// Runs a transaction: writes the effects, waits for the plan, commits it.
pub(super) async fn run(
    sink: Arc<dyn TransactionalSink>,
    decided: Vec<Decided>,
    parks: Vec<Work>,
    events: mpsc::Sender<Event>,
    clock: Clock,
    began: Timestamp,
) -> anyhow::Result<()> {
    let mut transaction = match sink.begin().await {
        Ok(transaction) => transaction,
        Err(error) => {
            // Without a driver, its scheduler is gone, too: no one needs the work back.
            drop(events.send(Event::Committed(Committed::NotBegun { decided, parks, began, error })).await);
            return Ok(());
        }
    };
    let results = if decided.is_empty() { Vec::new() } else { transaction.write(&decided).await };
    let (go, plan) = oneshot::channel();
    drop(events.send(Event::EffectsWritten(WrittenEffects { decided, results, parks, began, go })).await);
    // Without a plan there is nothing to commit: dropping the transaction rolls it back.
    let Ok(plan) = plan.await else { return Ok(()) };
    let result = commit(&*sink.checkpoints(), transaction, &plan).await;
    let period = clock.since(began);
    drop(events.send(Event::Committed(Committed::Transaction { plan, result, period })).await);
    Ok(())
}

/// Commits. After an unknown outcome, reads the keys until the outcome is known (C11).
async fn commit(
    store: &dyn CheckpointStore,
    transaction: Box<dyn Transaction>,
    plan: &Plan,
) -> Result<(), TransactionError> {
    let commits: Vec<_> = plan.commits.iter().map(PendingCommit::commit).collect();
    let parked: Vec<Vec<Parked<'_>>> = plan.parks.iter().map(ToPark::events).collect();
    let removed: Vec<Vec<ParkedUpdate<'_>>> = plan.removals.iter().map(ToRemove::updates).collect();
    let appends = plan.parks.iter().zip(&parked);
    let appends =
        appends.map(|(group, events)| ParkedChange { key: &group.key, fence: group.fence, events, updates: &[] });
    let removals = plan.removals.iter().zip(&removed);
    let removals = removals.map(|(of, updates)| ParkedChange { key: &of.key, fence: of.fence, events: &[], updates });
    let changes: Vec<_> = appends.chain(removals).collect();
    match transaction.commit(&commits, &changes).await {
        Err(TransactionError::OutcomeUnknown(cause)) => {
            tracing::warn!(error = %cause, "outcome of a transaction unknown, reading its keys");
            look_up_outcome(store, &plan.commits).await
        }
        result => result,
    }
}

/// Returns the outcome of a transaction: all of it was committed, or nothing. A key that another process has claimed since
/// does not show it; a key that is still held does.
async fn look_up_outcome(store: &dyn CheckpointStore, commits: &[PendingCommit]) -> Result<(), TransactionError> {
    let mut fenced = Vec::new();
    for step in commits {
        match last_commit(store, step).await {
            Some((fence, sequence)) if (fence, sequence) == (step.fence, step.sequence) => return Ok(()),
            Some((fence, _)) if fence > step.fence => {
                // The new owner has seen all that was committed before its claim.
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

/// Reads the last commit of a key, until the store answers.
async fn last_commit(store: &dyn CheckpointStore, step: &PendingCommit) -> Option<(Fence, u64)> {
    let mut random = fastrand::Rng::with_seed(step.sequence);
    let mut failures = 0;
    loop {
        match store.last_commit(&step.key).await {
            Ok(last) => return last,
            Err(error) => {
                failures += 1;
                let delay = OUTAGE.delay(failures, &mut random);
                let why = policy::words(&error);
                tracing::warn!(key = %step.key, error = %why, retry_in = ?rounded(delay), "last commit unreadable, retrying");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::checkpoint::{CheckpointKey, Claimed, Commit, Listed, LogEntry, Owner};
    use crate::position::{OrdinalSet, Position, Progress, TrancheId};
    use async_trait::async_trait;

    /// A store that cannot be reached at first.
    struct Claims {
        /// The fence and the last commit of each tranche.
        held: BTreeMap<TrancheId, (Fence, u64)>,
        /// The number of requests that fail.
        failures: usize,
        clock: Clock,
        /// The times of the requests.
        asked: Mutex<Vec<Timestamp>>,
    }

    impl Claims {
        fn new(held: BTreeMap<TrancheId, (Fence, u64)>, failures: usize) -> Self {
            Self { held, failures, clock: Clock::start(), asked: Mutex::default() }
        }
    }

    #[async_trait]
    impl CheckpointStore for Claims {
        fn max_set_bytes(&self) -> Option<usize> {
            None
        }

        async fn load(&self, _key: &CheckpointKey) -> Result<Option<Progress>, CheckpointError> {
            unreachable!("the test does not ask")
        }

        async fn claim_all(&self, _keys: &[CheckpointKey], _owner: &Owner) -> Vec<Result<Claimed, CheckpointError>> {
            unreachable!("the test does not ask")
        }

        async fn commit(&self, _commits: &[Commit<'_>]) -> Vec<Result<(), CheckpointError>> {
            unreachable!("the test does not ask")
        }

        async fn last_commit(&self, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, CheckpointError> {
            let mut asked = self.asked.lock().unwrap();
            asked.push(self.clock.now());
            if asked.len() <= self.failures {
                return Err(CheckpointError::new(CheckpointErrorKind::Unavailable, format!("read {key}")));
            }
            Ok(self.held.get(&key.tranche).copied())
        }

        async fn release(&self, _key: &CheckpointKey, _fence: Fence) -> Result<(), CheckpointError> {
            unreachable!("the test does not ask")
        }

        async fn list(&self, _group: &str, _source: &str) -> Result<Vec<Listed>, CheckpointError> {
            unreachable!("the test does not ask")
        }

        async fn set(&self, _: &CheckpointKey, _: Fence, _: Option<&Progress>) -> Result<(), CheckpointError> {
            unreachable!("the test does not ask")
        }

        async fn log(&self, _key: &CheckpointKey) -> Result<Vec<LogEntry>, CheckpointError> {
            unreachable!("the test does not ask")
        }
    }

    fn step(tranche: &str) -> PendingCommit {
        let tranche = TrancheId::new(tranche);
        PendingCommit {
            key: CheckpointKey { group: "g".into(), source: "s".into(), tranche },
            fence: Fence(3),
            sequence: 8,
            progress: Progress::at(Position::Number(1)),
            needed: OrdinalSet::new(),
            version: 0,
            completed: 0,
            write_positions: Vec::new(),
            is_repeated: false,
        }
    }

    /// Looks up a transaction of two tranches, after other processes claimed some of them.
    async fn check(committed: bool, claimed_again: &[&str]) -> String {
        let steps = [step("0"), step("1")];
        let sequence = if committed { 8 } else { 7 };
        let mut claims: BTreeMap<_, _> =
            steps.iter().map(|step| (step.tranche().clone(), (step.fence, sequence))).collect();
        for tranche in claimed_again {
            claims.insert(TrancheId::new(*tranche), (Fence(4), sequence));
        }
        match look_up_outcome(&Claims::new(claims, 0), &steps).await {
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

    #[tokio::test(start_paused = true)]
    async fn c11_an_unreachable_store_is_asked_for_the_last_commit_with_growing_delays_until_it_answers() {
        const FAILURES: usize = 12;
        let step = step("0");
        let held = BTreeMap::from([(step.tranche().clone(), (step.fence, step.sequence))]);
        let store = Claims::new(held, FAILURES);
        assert_eq!(last_commit(&store, &step).await, Some((Fence(3), 8)));
        let asked = store.asked.into_inner().unwrap();
        assert_eq!(asked.len(), FAILURES + 1);
        for (failures, pair) in asked.windows(2).enumerate() {
            let (full, delay) = (OUTAGE.initial * (1 << failures), pair[1].since(pair[0]));
            let full = full.min(OUTAGE.max);
            // Each delay is shortened by up to half. The clock rounds it up to a millisecond.
            let latest = full + Duration::from_millis(1);
            assert!((full / 2..=latest).contains(&delay), "{delay:?} after {} failures", failures + 1);
        }
    }
}
