//! A sink that stores effects beside the progress, under the same lock.

use std::sync::Arc;

use async_trait::async_trait;

use super::faults::{Fault, InjectedFault, Operation};
use super::{MemoryCheckpoints, State};
use crate::checkpoint::{CheckpointError, CheckpointErrorKind, CheckpointKey, CheckpointStore, Commit, CommitOrder};
use crate::effect::Value;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::position::Ordinal;
use crate::sink::{Decided, Effects, ParkedChange, Sink, Transaction, TransactionError, TransactionalSink, Written};

/// The most decisions of one write.
const MAX_BATCH: usize = 1_000;

/// The effect of one decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub stream: Box<str>,
    /// The index and ordinal of each event below the decision's next index.
    pub events: Vec<(i64, Ordinal)>,
    pub next: i64,
    /// The emitted values. Without a handler the events themselves are the effect.
    pub emitted: Vec<Value>,
}

impl Effect {
    fn of(decided: &Decided) -> Self {
        let covered = decided.work.events.iter().filter(|event| event.next_index() <= decided.next);
        Self {
            stream: decided.work.stream().into(),
            events: covered.map(|event| (event.index(), event.at())).collect(),
            next: decided.next,
            emitted: match &decided.effects {
                Effects::Events => Vec::new(),
                Effects::Emitted(values) => values.to_vec(),
            },
        }
    }
}

/// Stores effects in memory, alone or with the progress.
#[derive(Clone, Debug)]
pub struct MemorySink {
    checkpoints: MemoryCheckpoints,
}

impl MemorySink {
    pub(super) fn over(checkpoints: MemoryCheckpoints) -> Self {
        Self { checkpoints }
    }

    /// Returns the store that holds the progress beside the effects, and that injects faults.
    pub fn checkpoints(&self) -> &MemoryCheckpoints {
        &self.checkpoints
    }

    /// Returns all effects so far, in the order of their commits.
    pub fn effects(&self) -> Vec<Effect> {
        self.checkpoints.shared.state().effects.clone()
    }

    /// Accepts or refuses each decision. Appends the effects of the accepted ones to `accepted`.
    async fn accept(&self, decided: &[Decided], accepted: &mut Vec<Effect>) -> Vec<Result<Written, HandlerError>> {
        let mut results = Vec::with_capacity(decided.len());
        for decision in decided {
            let operation = Operation::Write(decision);
            let kind = match self.checkpoints.shared.faults.decide(&operation) {
                Some(Fault::Refuse(kind)) => Some(kind),
                Some(Fault::Slow(delay)) => {
                    tokio::time::sleep(delay).await;
                    None
                }
                Some(_) => Some(HandlerErrorKind::Unavailable),
                None => None,
            };
            results.push(match kind {
                Some(kind) => Err(HandlerError::new(kind, format!("`{}` was refused", decision.work.stream()))),
                None => {
                    accepted.push(Effect::of(decision));
                    Ok(Written::All)
                }
            });
        }
        results
    }

    fn unavailable() -> HandlerError {
        HandlerError::new(HandlerErrorKind::Unavailable, "the memory sink was told to fail")
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        let mut accepted = Vec::new();
        let results = self.accept(decided, &mut accepted).await;
        let fault = self.checkpoints.shared.faults.due(&Operation::Transaction).await;
        if matches!(fault, InjectedFault::Go | InjectedFault::FailAfterwards) {
            self.checkpoints.shared.state().effects.append(&mut accepted);
        }
        if fault == InjectedFault::Go { results } else { decided.iter().map(|_| Err(Self::unavailable())).collect() }
    }
}

#[async_trait]
impl TransactionalSink for MemorySink {
    fn checkpoints(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.checkpoints.clone())
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, HandlerError> {
        match self.checkpoints.shared.faults.due(&Operation::Begin).await {
            InjectedFault::Go => Ok(Box::new(MemoryTransaction { sink: self.clone(), effects: Vec::new() })),
            _ => Err(Self::unavailable()),
        }
    }
}

/// The effects of a transaction before its commit.
struct MemoryTransaction {
    sink: MemorySink,
    effects: Vec<Effect>,
}

#[async_trait]
impl Transaction for MemoryTransaction {
    async fn write(&mut self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        self.sink.accept(decided, &mut self.effects).await
    }

    async fn commit(
        self: Box<Self>,
        commits: &[Commit<'_>],
        parked: &[ParkedChange<'_>],
    ) -> Result<(), TransactionError> {
        let shared = &self.sink.checkpoints.shared;
        let unknown =
            || TransactionError::OutcomeUnknown(anyhow::anyhow!("the memory sink was told to lose its answer"));
        let fault = shared.faults.due(&Operation::Transaction).await;
        match fault {
            InjectedFault::Reject => return Err(TransactionError::Failed(MemorySink::unavailable())),
            InjectedFault::Unknown => return Err(unknown()),
            InjectedFault::Go | InjectedFault::FailAfterwards => {}
        }
        shared.state().commit(self.effects, commits, parked)?;
        if fault == InjectedFault::FailAfterwards { Err(unknown()) } else { Ok(()) }
    }
}

impl State {
    /// Stores all or nothing.
    fn commit(
        &mut self,
        mut effects: Vec<Effect>,
        commits: &[Commit<'_>],
        parked: &[ParkedChange<'_>],
    ) -> Result<(), TransactionError> {
        let mut fenced = Vec::new();
        for commit in commits {
            match self.check(commit) {
                Ok(CommitOrder::Next) => {}
                Ok(CommitOrder::Repeat) => {
                    let why = format!("the commit of {} is already stored", commit.key);
                    return Err(TransactionError::OutcomeUnknown(anyhow::Error::msg(why)));
                }
                Err(error) => fenced.push(fenced_or(commit.key, error)?),
            }
        }
        for change in parked {
            if let Err(error) = self.owned(change.key, change.fence) {
                fenced.push(fenced_or(change.key, error)?);
            }
        }
        if !fenced.is_empty() {
            return Err(TransactionError::Fenced(fenced));
        }
        commits.iter().for_each(|commit| self.store(commit));
        for change in parked {
            self.append(change.key, change.events);
            self.update(change.key, change.updates);
        }
        self.effects.append(&mut effects);
        Ok(())
    }
}

fn fenced_or(
    key: &CheckpointKey,
    error: CheckpointError,
) -> Result<(CheckpointKey, CheckpointError), TransactionError> {
    match error.kind {
        CheckpointErrorKind::Fenced { .. } => Ok((key.clone(), error)),
        CheckpointErrorKind::OutcomeUnknown => Err(TransactionError::OutcomeUnknown(error.into())),
        _ => Err(failed(&error)),
    }
}

fn failed(error: &CheckpointError) -> TransactionError {
    let cause = error.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    let kind = match error.kind {
        CheckpointErrorKind::TooLarge => HandlerErrorKind::Unusable,
        _ => HandlerErrorKind::Unavailable,
    };
    TransactionError::Failed(HandlerError::new(kind, format!("{error}{cause}")))
}
