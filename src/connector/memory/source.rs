//! Source `memory`: events that arrive in this process, from Rust ([`MemoryFeed`]) or over HTTP ([`source`]).
//!
//! It is the reference implementation of a source, and the source of the simulation. It has no clock, no randomness and
//! no task, and a fault occurs only where a test injects it. A position is the number of earlier events in the tranche.
//!
//! A feed made from Rust keeps all its events. The inbox of a pipeline is bounded. It keeps a read event until it needs the
//! room, so that a restarted pipeline reads the unhandled events again. All events are lost with the process.

mod inbox;
mod kind;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::event::{Event, Indexes};
use crate::position::{Ahead, Position, StartAt, TrancheId};
use crate::source::{
    Batch, Changes, Contract, Lag, LagUnit, Left, Next, Probe, Room, Source, SourceError, SourceErrorKind,
    TrancheChange, TrancheReader,
};

pub use inbox::{Index, MemoryInbox, Settings, check, source};

/// A feed of events. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryFeed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    contract: Contract,
    state: Mutex<State>,
    /// Wakes every waiting task after a change.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Ordered, so that two runs of a test are equal.
    tranches: BTreeMap<TrancheId, Tranche>,
    changes: Vec<TrancheChange>,
    /// The fault of the next wait for a change.
    next_failure: Option<SourceErrorKind>,
}

#[derive(Debug, Default)]
struct Tranche {
    held: bool,
    /// The number of the newest assignment.
    epoch: u64,
    /// The end of the newest assignment, once its holder reported it.
    left: Option<Left>,
    origin: Option<Position>,
    /// The position of the first kept event.
    first: u64,
    /// The position behind the last read event.
    read: u64,
    /// Whether the first read sets the first position. An inbox continues from the stored position of an earlier process.
    counts_from_start: bool,
    /// The bytes of the kept events of an inbox.
    bytes: u64,
    /// The major of the ordinal of an inbox's next line.
    next_major: u64,
    events: VecDeque<Event>,
    /// The positions at which batches end.
    ends: VecDeque<u64>,
    closed: bool,
    /// The faults of the next reads.
    failures: VecDeque<SourceErrorKind>,
    /// Whether reads wait although there are events.
    on_hold: bool,
}

impl Tranche {
    fn assign(&mut self, tranche: &TrancheId, origin: Option<Position>) -> TrancheChange {
        self.epoch += 1;
        self.left = None;
        TrancheChange::Added { tranche: tranche.clone(), origin, epoch: self.epoch }
    }

    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn append(&mut self, events: Vec<Event>) {
        self.events.extend(events);
        self.ends.push_back(self.end());
    }

    fn forget_first(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.first += 1;
        if self.ends.front() == Some(&self.first) {
            self.ends.pop_front();
        }
        Some(event)
    }
}

impl MemoryFeed {
    /// Makes a feed without tranches. The pushed events must keep the contract; they carry their ordinals.
    pub fn new(contract: Contract) -> Self {
        Self { shared: Arc::new(Shared { contract, state: Mutex::default(), changed: Notify::new() }) }
    }

    /// Makes a feed like that of an event store: dense indexes, ordinals, no repeats.
    pub fn dense() -> Self {
        Self::new(Contract { ordinals: true, indexes: Indexes::Dense, repeats: false })
    }

    /// Returns a source that reports the existing tranches, and later changes. A second source of the feed acts as another
    /// process that claims them.
    pub fn source(&self) -> MemorySource {
        let mut state = self.shared.lock();
        let mut ahead: VecDeque<_> = state
            .tranches
            .iter_mut()
            .filter(|(_, tranche)| tranche.held)
            .map(|(id, tranche)| tranche.assign(id, tranche.origin.clone()))
            .collect();
        ahead.push_back(TrancheChange::Settled);
        // The process that had to release these tranches has ended.
        state.tranches.values_mut().filter(|tranche| !tranche.held).for_each(|tranche| {
            tranche.left.get_or_insert(Left::Released);
        });
        let seen = state.changes.len();
        drop(state);
        self.shared.changed.notify_waiters();
        MemorySource { shared: Arc::clone(&self.shared), pending: Mutex::new(Pending { ahead, seen }) }
    }

    /// Adds a tranche, or assigns a revoked one again. Its events are kept meanwhile.
    pub fn add(&self, tranche: &TrancheId) {
        self.add_from(tranche, None);
    }

    /// Adds a tranche that begins at a position.
    pub fn add_from(&self, tranche: &TrancheId, origin: Option<Position>) {
        self.change(|state| {
            let held = state.tranches.entry(tranche.clone()).or_default();
            held.held = true;
            held.origin.clone_from(&origin);
            let added = held.assign(tranche, origin);
            state.changes.push(added);
        });
    }

    /// Revokes a tranche, with a limit for its drain.
    pub fn remove(&self, tranche: &TrancheId, within: Duration) {
        self.change(|state| {
            state.tranches.entry(tranche.clone()).or_default().held = false;
            state.changes.push(TrancheChange::Removed { tranche: tranche.clone(), within });
        });
    }

    /// Waits until the newest assignment of a tranche has ended, and returns how.
    pub async fn left(&self, tranche: &TrancheId) -> Left {
        self.shared.wait_for(|state| state.tranches.get(tranche)?.left).await
    }

    /// Loses a tranche at once.
    pub fn lose(&self, tranche: &TrancheId) {
        self.change(|state| {
            state.tranches.entry(tranche.clone()).or_default().held = false;
            state.changes.push(TrancheChange::Lost { tranche: tranche.clone() });
        });
    }

    /// Appends events, which are read as one batch.
    pub fn push(&self, tranche: &TrancheId, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.tranche(tranche, |tranche| tranche.append(events));
    }

    /// Ends a tranche: no event will follow.
    pub fn close(&self, tranche: &TrancheId) {
        self.tranche(tranche, |tranche| tranche.closed = true);
    }

    /// Deletes the events below a position, as retention does. Reading can no longer start there.
    pub fn forget_before(&self, tranche: &TrancheId, position: u64) {
        self.tranche(tranche, |tranche| while tranche.first < position && tranche.forget_first().is_some() {});
    }

    /// Injects the fault `reject`: the next read that does not wait yet fails. Faults queue up.
    pub fn fail_next_read(&self, tranche: &TrancheId, kind: SourceErrorKind) {
        self.tranche(tranche, |tranche| tranche.failures.push_back(kind));
    }

    /// Injects the fault `reject` into the next wait for changes.
    pub fn fail_next_change(&self, kind: SourceErrorKind) {
        self.change(|state| state.next_failure = Some(kind));
    }

    /// Injects the fault `hold`: reads of the tranche wait until [`release`](Self::release).
    pub fn hold(&self, tranche: &TrancheId) {
        self.tranche(tranche, |tranche| tranche.on_hold = true);
    }

    pub fn release(&self, tranche: &TrancheId) {
        self.tranche(tranche, |tranche| tranche.on_hold = false);
    }

    fn tranche(&self, tranche: &TrancheId, f: impl FnOnce(&mut Tranche)) {
        self.change(|state| f(state.tranches.entry(tranche.clone()).or_default()));
    }

    fn change(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.shared.lock());
        self.shared.changed.notify_waiters();
    }
}

impl Shared {
    /// Locks the state. A panic of another holder leaves it consistent, as every change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds something.
    async fn wait_for<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            // Registers before it looks, so that no change between the two is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }
}

/// The source of a [`MemoryFeed`]. See the module's documentation.
#[derive(Debug)]
pub struct MemorySource {
    shared: Arc<Shared>,
    pending: Mutex<Pending>,
}

/// The unreported changes.
#[derive(Debug)]
struct Pending {
    /// The assignments at the source's start.
    ahead: VecDeque<TrancheChange>,
    /// The number of reported changes of the feed.
    seen: usize,
}

impl Pending {
    fn next(&mut self, state: &mut State) -> Option<Result<TrancheChange, SourceError>> {
        if let Some(kind) = state.next_failure.take() {
            self.ahead.push_back(TrancheChange::Settled);
            return Some(Err(SourceError::new(kind, "wait for changes of a feed in memory")));
        }
        if let Some(change) = self.ahead.pop_front() {
            return Some(Ok(change));
        }
        let change = state.changes.get(self.seen)?.clone();
        self.seen += 1;
        Some(Ok(change))
    }
}

#[async_trait]
impl Source for MemorySource {
    fn contract(&self) -> Contract {
        self.shared.contract
    }

    async fn watch(&self, changes: &Changes) -> Result<(), SourceError> {
        loop {
            let next = |state: &mut State| self.pending.lock().unwrap_or_else(PoisonError::into_inner).next(state);
            changes.report(self.shared.wait_for(next).await?).await;
        }
    }

    fn open(&self, tranche: &TrancheId, from: StartAt, _ahead: Option<Ahead>) -> Box<dyn TrancheReader> {
        let shared = Arc::clone(&self.shared);
        Box::new(Reader { shared, tranche: tranche.clone(), from, at: None, told_tail: false })
    }

    fn left(&self, tranche: &TrancheId, epoch: u64, how: Left) {
        if let Some(tranche) = self.shared.lock().tranches.get_mut(tranche)
            && tranche.epoch == epoch
        {
            tranche.left = Some(how);
        }
        self.shared.changed.notify_waiters();
    }

    fn compare(&self, one: &Position, other: &Position) -> Option<std::cmp::Ordering> {
        one.compare_numbers(other)
    }

    fn probe(&self) -> Option<Arc<dyn Probe>> {
        Some(Arc::clone(&self.shared) as Arc<dyn Probe>)
    }
}

#[async_trait]
impl Probe for Shared {
    async fn lag(&self, tranche: &TrancheId, behind: Option<&Position>) -> Result<Lag, SourceError> {
        let state = self.lock();
        let amount = state.tranches.get(tranche).map_or(0, |tranche| {
            let read = match behind {
                Some(Position::Number(number)) => u64::try_from(*number).unwrap_or_default(),
                _ => tranche.first,
            };
            tranche.end().saturating_sub(read)
        });
        Ok(Lag { amount, unit: LagUnit::Events })
    }
}

struct Reader {
    shared: Arc<Shared>,
    tranche: TrancheId,
    from: StartAt,
    /// The next position; `None` before the first batch.
    at: Option<u64>,
    told_tail: bool,
}

#[async_trait]
impl TrancheReader for Reader {
    /// Reports the tail once, and then waits without a limit.
    async fn next(&mut self, room: Room) -> Result<Next, SourceError> {
        let Self { shared, tranche, from, at, told_tail } = self;
        shared
            .wait_for(|state| {
                let feed = state.tranches.entry(tranche.clone()).or_default();
                if let Some(kind) = feed.failures.pop_front() {
                    return Some(Err(SourceError::new(kind, format!("read tranche `{tranche}` of a feed in memory"))));
                }
                if feed.on_hold {
                    return None;
                }
                feed.read(tranche, from, at, told_tail, room).transpose()
            })
            .await
    }
}

impl Tranche {
    fn read(
        &mut self,
        name: &TrancheId,
        from: &StartAt,
        at: &mut Option<u64>,
        told_tail: &mut bool,
        room: Room,
    ) -> Result<Option<Next>, SourceError> {
        let next = match *at {
            Some(next) => next,
            None => self.start(name, from)?,
        };
        if std::mem::take(&mut self.counts_from_start) {
            self.first += next;
            self.ends.iter_mut().for_each(|end| *end += next);
        }
        if next < self.first || next > self.end() {
            return Err(self.lost(name, &next));
        }
        *at = Some(next);
        let end = self.ends.iter().copied().find(|end| *end > next).unwrap_or(self.end());
        let end = end.min(next.saturating_add(room.events.max(1) as u64));
        if end == next && *told_tail {
            return Ok(self.closed.then_some(Next::End));
        }
        let range = (next - self.first) as usize..(end - self.first) as usize;
        let events: Vec<_> = self.events.range(range).cloned().collect();
        let lag = Lag { amount: self.end() - end, unit: LagUnit::Events };
        *at = Some(end);
        self.read = self.read.max(end);
        *told_tail = lag.amount == 0;
        let resume_at = Position::Number(i64::try_from(end).unwrap_or(i64::MAX));
        Ok(Some(Next::Batch(Batch { events, resume_at, at_tail: *told_tail, lag: Some(lag) })))
    }

    fn start(&self, name: &TrancheId, from: &StartAt) -> Result<u64, SourceError> {
        let position = match from {
            StartAt::Position(position) => position,
            StartAt::Origin => match &self.origin {
                Some(origin) => origin,
                None => return Ok(self.first),
            },
        };
        match position {
            Position::Number(number) => u64::try_from(*number).map_err(|_| self.lost(name, number)),
            Position::Token(token) => Err(self.lost(name, token)),
        }
    }

    fn lost(&self, name: &TrancheId, position: &impl std::fmt::Display) -> SourceError {
        let (first, end) = (self.first, self.end());
        let doing = format!("read tranche `{name}` at {position}: it holds {first} to {end}");
        SourceError::new(SourceErrorKind::PositionLost, doing)
    }
}
