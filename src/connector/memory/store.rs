//! Progress, parked events and effects in memory: for simulations, tests, and pipelines without durable progress.
//!
//! One lock guards everything, so that effects and progress are stored together or not at all. Clones share the contents,
//! so that a restarted pipeline finds them. Without a [`Fault`] nothing here waits or starts threads, and only an operator's
//! change reads a clock: the same calls of a pipeline give the same results.

mod faults;
mod kind;
mod parked;
mod sink;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{
    CheckpointError, CheckpointErrorKind, CheckpointKey, CheckpointStore, Claimed, Commit, CommitOrder, Fence, Listed,
    LogEntry, LogReason, MAX_SET_BYTES, MOVED, NEVER_CLAIMED, Owner, ParkedStore, RELEASED,
};
use crate::clock;
use crate::connector::Context;
use crate::position::{Progress, TrancheId, WritePosition};

pub use faults::{Fault, Operation};
use faults::{Faults, InjectedFault};
pub use sink::{Effect, MemorySink};

/// `[checkpoint.memory]`: progress that ends with the process. It has no settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "MemoryCheckpoint")]
pub struct Settings {}

/// Keeps progress in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryCheckpoints {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    faults: Faults,
}

#[derive(Debug, Default)]
struct State {
    /// By group, source and tranche.
    rows: BTreeMap<Names, Row>,
    /// By group, source and stream, with the tranche that stored it.
    write_positions: BTreeMap<Names, (TrancheId, WritePosition)>,
    parked: BTreeMap<Names, parked::Streams>,
    /// The requests of operators, by group and source.
    jobs: BTreeMap<[Arc<str>; 2], parked::Jobs>,
    effects: Vec<Effect>,
}

type Names = [Arc<str>; 3];

#[derive(Debug, Default)]
struct Row {
    fence: u64,
    owner: Option<Arc<str>>,
    sequence: u64,
    progress: Option<Progress>,
    /// The progress that an operator replaced. Commits are not logged, because they end with the process.
    log: Vec<LogEntry>,
    /// Whether another program moved the position since the claim.
    moved: bool,
}

impl MemoryCheckpoints {
    pub fn new(_settings: &Settings, _context: &Context) -> Self {
        Self::default()
    }

    /// Returns a sink that stores its effects beside this store's progress.
    pub fn sink(&self) -> MemorySink {
        MemorySink::over(self.clone())
    }

    /// Lets `decide` choose a fault for every operation from here on.
    pub fn inject(&self, decide: impl FnMut(&Operation<'_>) -> Option<Fault> + Send + 'static) {
        self.shared.faults.inject(decide);
    }

    /// Resumes every operation that is held now.
    pub fn release_held(&self) {
        self.shared.faults.release_held();
    }

    /// Moves a position as another program does, which knows neither sets nor fences (C12).
    pub fn move_position(&self, key: &CheckpointKey, progress: Option<crate::position::Position>) {
        let mut state = self.shared.state();
        let row = state.rows.entry(names(key)).or_default();
        row.progress = Some(Progress { position: progress, ..Progress::default() });
        row.moved = true;
    }

    /// Returns the owner of a key, if it has one.
    pub fn owner(&self, key: &CheckpointKey) -> Option<Arc<str>> {
        self.shared.state().rows.get(&names(key)).and_then(|row| row.owner.clone())
    }

    /// Runs `work` on the state, with the fault that is due.
    async fn operate<T>(
        &self,
        operation: Operation<'_>,
        doing: &str,
        work: impl FnOnce(&mut State) -> Result<T, CheckpointError>,
    ) -> Result<T, CheckpointError> {
        let unavailable = |kind| CheckpointError::new(kind, format!("cannot {doing} in memory"));
        match self.shared.faults.due(&operation).await {
            InjectedFault::Go => work(&mut self.shared.state()),
            InjectedFault::Reject => {
                Err(unavailable(CheckpointErrorKind::Unavailable).caused_by(anyhow::anyhow!("rejected")))
            }
            InjectedFault::FailAfterwards => {
                work(&mut self.shared.state())?;
                let kind = if matches!(operation, Operation::Commit(_)) {
                    CheckpointErrorKind::OutcomeUnknown
                } else {
                    CheckpointErrorKind::Unavailable
                };
                Err(unavailable(kind).caused_by(anyhow::anyhow!("failed after the write")))
            }
            InjectedFault::Unknown => {
                let cause = anyhow::anyhow!("failed before the write, with an unknown outcome");
                Err(unavailable(CheckpointErrorKind::OutcomeUnknown).caused_by(cause))
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn claim(&mut self, key: &CheckpointKey, owner: &Owner) -> Claimed {
        let row = self.rows.entry(names(key)).or_default();
        row.fence += 1;
        row.owner = Some(Arc::clone(&owner.0));
        let claimed = Claimed { fence: Fence(row.fence), progress: row.progress.clone(), sequence: row.sequence };
        if std::mem::take(&mut row.moved) {
            self.void_write_positions(key);
        }
        claimed
    }

    /// Removes the write positions of a tranche: they belong to a position that was replaced (C12).
    fn void_write_positions(&mut self, key: &CheckpointKey) {
        let is_of_key = |[group, source, _]: &Names| *group == key.group && *source == key.source;
        self.write_positions.retain(|names, (tranche, _)| !is_of_key(names) || *tranche != key.tranche);
    }

    fn owned(&mut self, key: &CheckpointKey, fence: Fence) -> Result<&mut Row, CheckpointError> {
        let fenced = |by: &str| {
            let kind = CheckpointErrorKind::Fenced { by: by.to_owned(), since: None };
            CheckpointError::new(kind, format!("cannot change {key} in memory"))
                .caused_by(anyhow::anyhow!("the owner is {by}"))
        };
        match self.rows.get_mut(&names(key)) {
            Some(row) if row.fence != fence.0 => Err(fenced(row.owner.as_deref().unwrap_or(RELEASED))),
            Some(row) if row.moved => Err(fenced(MOVED)),
            Some(row) => Ok(row),
            None => Err(fenced(NEVER_CLAIMED)),
        }
    }

    fn check(&mut self, commit: &Commit<'_>) -> Result<CommitOrder, CheckpointError> {
        let refuse = |kind, why: String| {
            let doing = format!("cannot commit {} in memory", commit.key);
            Err(CheckpointError::new(kind, doing).caused_by(anyhow::Error::msg(why)))
        };
        let size = if commit.progress.handled.is_empty() { 0 } else { commit.progress.handled.encode().len() };
        if size > MAX_SET_BYTES {
            let why = format!("the set of handled ordinals has {size} bytes, the limit is {MAX_SET_BYTES}");
            return refuse(CheckpointErrorKind::TooLarge, why);
        }
        let stored = self.owned(commit.key, commit.fence)?.sequence;
        CommitOrder::of(commit.sequence, stored).map_or_else(
            || {
                let why = format!("commit {} does not follow the stored commit {stored}", commit.sequence);
                refuse(CheckpointErrorKind::OutcomeUnknown, why)
            },
            Ok,
        )
    }

    fn store(&mut self, commit: &Commit<'_>) {
        let key = commit.key;
        if let Some(row) = self.rows.get_mut(&names(key)) {
            row.sequence = commit.sequence;
            row.progress = Some(commit.progress.clone());
        }
        for (stream, position) in commit.write_positions {
            let names = [Arc::clone(&key.group), Arc::clone(&key.source), Arc::from(&**stream)];
            self.write_positions.insert(names, (key.tranche.clone(), position.clone()));
        }
    }
}

#[async_trait]
impl CheckpointStore for MemoryCheckpoints {
    fn max_set_bytes(&self) -> Option<usize> {
        Some(MAX_SET_BYTES)
    }

    async fn load(&self, key: &CheckpointKey) -> Result<Option<Progress>, CheckpointError> {
        let load = |state: &mut State| Ok(state.rows.get(&names(key)).and_then(|row| row.progress.clone()));
        self.operate(Operation::Load(key), &format!("load {key}"), load).await
    }

    async fn claim_all(&self, keys: &[CheckpointKey], owner: &Owner) -> Vec<Result<Claimed, CheckpointError>> {
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            let claim = |state: &mut State| Ok(state.claim(key, owner));
            results.push(self.operate(Operation::Claim(key), &format!("claim {key}"), claim).await);
        }
        results
    }

    async fn commit(&self, commits: &[Commit<'_>]) -> Vec<Result<(), CheckpointError>> {
        let mut results = Vec::with_capacity(commits.len());
        for commit in commits {
            let store = |state: &mut State| {
                if state.check(commit)? == CommitOrder::Next {
                    state.store(commit);
                }
                Ok(())
            };
            let operation = Operation::Commit(commit.key);
            results.push(self.operate(operation, &format!("commit {}", commit.key), store).await);
        }
        results
    }

    async fn last_commit(&self, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, CheckpointError> {
        let look = |state: &mut State| Ok(state.rows.get(&names(key)).map(|row| (Fence(row.fence), row.sequence)));
        self.operate(Operation::Load(key), &format!("look up {key}"), look).await
    }

    async fn list(&self, group: &str, source: &str) -> Result<Vec<Listed>, CheckpointError> {
        let state = self.shared.state();
        let of_source = state.rows.iter().filter(|(names, _)| *names[0] == *group && *names[1] == *source);
        let mut listed: Vec<_> = of_source
            .map(|([group, source, tranche], row)| Listed {
                key: CheckpointKey {
                    group: Arc::clone(group),
                    source: Arc::clone(source),
                    tranche: TrancheId::new(Arc::clone(tranche)),
                },
                progress: row.progress.clone(),
                owner: row.owner.clone().map(Owner),
                committed_at: None,
            })
            .collect();
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    async fn set(&self, key: &CheckpointKey, fence: Fence, progress: Option<&Progress>) -> Result<(), CheckpointError> {
        let mut state = self.shared.state();
        let row = state.owned(key, fence)?;
        let replaced = std::mem::replace(&mut row.progress, progress.cloned());
        row.sequence += 1;
        let number = row.log.len() as u64 + 1;
        row.log.push(LogEntry { number, at: clock::wall(), reason: LogReason::Replaced, progress: replaced });
        state.void_write_positions(key);
        Ok(())
    }

    async fn log(&self, key: &CheckpointKey) -> Result<Vec<LogEntry>, CheckpointError> {
        let state = self.shared.state();
        Ok(state.rows.get(&names(key)).map(|row| row.log.iter().rev().cloned().collect()).unwrap_or_default())
    }

    async fn release(&self, key: &CheckpointKey, fence: Fence) -> Result<(), CheckpointError> {
        let release = |state: &mut State| {
            state.owned(key, fence)?.owner = None;
            Ok(())
        };
        self.operate(Operation::Release(key), &format!("release {key}"), release).await
    }

    async fn write_positions(
        &self,
        key: &CheckpointKey,
        streams: &[&str],
    ) -> Result<Vec<Option<WritePosition>>, CheckpointError> {
        let look_up = |state: &mut State| {
            let position = |stream: &&str| {
                let names = [Arc::clone(&key.group), Arc::clone(&key.source), Arc::from(*stream)];
                state.write_positions.get(&names).map(|(_, position)| position.clone())
            };
            Ok(streams.iter().map(position).collect())
        };
        self.operate(Operation::WritePositions(key), &format!("look up streams of {key}"), look_up).await
    }

    fn parked(&self) -> Option<Arc<dyn ParkedStore>> {
        Some(Arc::new(self.clone()))
    }
}

fn names(key: &CheckpointKey) -> Names {
    [Arc::clone(&key.group), Arc::clone(&key.source), key.tranche.as_str().into()]
}
