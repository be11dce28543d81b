//! A checkpoint store and a sink with faults. The world keeps their contents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use propulsiond::checkpoint::{
    CheckpointError, CheckpointErrorKind, CheckpointKey, CheckpointStore, Claimed, Commit, DueStream, Fence, Listed,
    LogEntry, NewBody, Owner, Parked, ParkedAction, ParkedJob, ParkedMark, ParkedPage, ParkedQuery, ParkedRequest,
    ParkedSelection, ParkedStore, ParkedStream, ParkedUpdate, QueuePage, QueueRead, QueuedEvent, QueuedId,
};
use propulsiond::event::Event;
use propulsiond::handler::{HandlerError, HandlerErrorKind};
use propulsiond::position::{Ordinal, Progress, WritePosition};
use propulsiond::sink::{
    Decided, Effects, ParkedChange, Sink, Transaction, TransactionError, TransactionalSink, Written,
};

use super::feed::{is_spoiling, place, stream_of, tranche_of};
use super::group::process_of;
use super::world::{Inner, Item, World};

/// The stored state of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    fence: u64,
    owner: String,
    /// The owner of each claim.
    pub(super) claims: BTreeMap<u64, String>,
    sequence: u64,
    progress: Option<Progress>,
    write_positions: BTreeMap<String, WritePosition>,
    /// The released claims.
    pub(super) released: BTreeSet<u64>,
}

impl Kept {
    pub(super) fn claim(&mut self, owner: &str) -> Fence {
        self.fence += 1;
        self.owner = owner.to_owned();
        self.claims.insert(self.fence, self.owner.clone());
        Fence(self.fence)
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    pub(super) fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }
}

/// A parked stream with its events.
#[derive(Clone, Debug)]
pub(super) struct ParkedQueue {
    pub(super) events: Vec<QueuedEvent>,
    /// The first parked ordinal (C21).
    pub(super) from: Ordinal,
    pub(super) mark: ParkedMark,
}

impl ParkedQueue {
    /// Returns whether an event of this ordinal is parked.
    pub(super) fn holds(&self, at: Ordinal) -> bool {
        self.events.iter().any(|queued| place(&queued.event) == at)
    }
}

#[derive(Clone)]
pub(super) struct SimStore {
    pub(super) world: World,
}

fn unavailable(doing: &str) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::Unavailable, doing)
}

/// Waits for a random time, like a request to another machine.
async fn travel(world: &World) {
    let delay = {
        let mut inner = world.lock();
        if inner.random.bool() { Some(inner.random.u64(0..30)) } else { None }
    };
    if let Some(delay) = delay {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
}

fn check_fence(inner: &Inner, key: &CheckpointKey, fence: Fence) -> Result<(), CheckpointError> {
    let kept = &inner.kept[key];
    if kept.fence == fence.0 {
        return Ok(());
    }
    let kind = CheckpointErrorKind::Fenced { by: kept.owner.clone(), since: None };
    Err(CheckpointError::new(kind, format!("commit {key}")))
}

/// Checks the fence of a commit. A newer claim of its own process is a violation (C27), and so is its own release (C29).
fn check_commit_fence(inner: &mut Inner, commit: &Commit<'_>) -> Result<(), CheckpointError> {
    let kept = &inner.kept[commit.key];
    let claimant = kept.claims.get(&commit.fence.0).cloned();
    let is_own = kept.fence != commit.fence.0 && claimant.as_ref() == Some(&kept.owner);
    inner.demand(!is_own, || format!("{claimant:?} fenced its own commit of {} (C27)", commit.key));
    let was_released = kept_was_released(inner, commit);
    inner.demand(!was_released, || format!("a commit of {} follows the release of its claim (C29)", commit.key));
    check_fence(inner, commit.key, commit.fence)
}

fn kept_was_released(inner: &Inner, commit: &Commit<'_>) -> bool {
    inner.kept[commit.key].released.contains(&commit.fence.0)
}

fn store(inner: &mut Inner, commit: &Commit<'_>) -> Result<(), CheckpointError> {
    check_commit_fence(inner, commit)?;
    let set = &commit.progress.handled;
    let fits = set.is_empty() || set.encode().len() <= inner.plan.max_set_bytes;
    inner.demand(fits, || format!("a stored set of {} bytes exceeds the limit (C14)", set.encode().len()));
    let is_plain = inner.plan.feed.without_ordinals;
    inner.demand(!is_plain || set.is_empty(), || "a set is stored for a source without ordinals (C1)".to_owned());
    inner.check_progress(commit.key, commit.progress);
    let line = format!("stored {} {} {:?}", commit.key, commit.sequence, commit.progress);
    inner.note(&line);
    let kept = inner.kept.get_mut(commit.key).expect("a commit follows its claim");
    let (last, next) = (kept.sequence, commit.sequence);
    let is_next = next == last + 1;
    let is_repeat = next == last && kept.progress.as_ref() == Some(commit.progress);
    if !is_next {
        inner.demand(is_repeat, || format!("commit {next} follows {last}, or differs from it (C11)"));
        return Ok(());
    }
    kept.sequence = commit.sequence;
    kept.progress = Some(commit.progress.clone());
    let positions = commit.write_positions.iter().map(|(stream, position)| (stream.to_string(), position.clone()));
    kept.write_positions.extend(positions);
    Ok(())
}

fn park(inner: &mut Inner, key: &CheckpointKey, fence: Fence, events: &[Parked<'_>]) {
    for parked in events {
        let stream = parked.event.stream().to_owned();
        inner.parked_under.entry((key.clone(), stream.clone())).or_insert(fence.0);
        inner.handled_items.insert(Item::of(parked.event));
        let new = || ParkedQueue { events: Vec::new(), from: parked.from, mark: parked.mark.clone() };
        let queue = inner.parked.entry((key.clone(), stream)).or_insert_with(new);
        queue.from = parked.from.min(queue.from);
        let id = QueuedId::of(parked.event);
        if queue.events.iter().all(|queued| QueuedId::of(&queued.event) != id) {
            queue.events.push(QueuedEvent { event: parked.event.clone(), discarded: false });
        }
        let line = format!("parked {key} {:?}", parked.event);
        inner.note(&line);
    }
}

fn update(inner: &mut Inner, key: &CheckpointKey, updates: &[ParkedUpdate<'_>]) {
    for update in updates {
        let line = format!("parked streams of {key}: {update:?}");
        inner.note(&line);
        match update {
            ParkedUpdate::Remove { stream, events } => {
                let place = (key.clone(), (*stream).to_owned());
                let Some(queue) = inner.parked.get_mut(&place) else { continue };
                let (removed, kept) = std::mem::take(&mut queue.events)
                    .into_iter()
                    .partition(|queued| events.contains(&QueuedId::of(&queued.event)));
                queue.events = kept;
                inner.check_removed(&removed);
            }
            ParkedUpdate::Mark { stream, mark } => {
                if let Some(queue) = inner.parked.get_mut(&(key.clone(), (*stream).to_owned())) {
                    queue.mark = (*mark).clone();
                }
            }
            ParkedUpdate::Unpark { stream } => {
                let place = (key.clone(), (*stream).to_owned());
                let left = inner.parked.get(&place).map_or(0, |queue| queue.events.len());
                // Events that are parked each by itself can be parked meanwhile.
                let is_alone = stream.is_empty() || inner.plan.order == propulsiond::scheduler::Order::None;
                inner.demand(left == 0 || is_alone, || format!("`{stream}` is unparked with {left} events (C21)"));
                if left == 0 {
                    inner.parked.remove(&place);
                    inner.parked_under.remove(&place);
                }
            }
        }
    }
}

#[async_trait]
impl CheckpointStore for SimStore {
    fn max_set_bytes(&self) -> Option<usize> {
        Some(self.world.lock().plan.max_set_bytes)
    }

    async fn load(&self, key: &CheckpointKey) -> Result<Option<Progress>, CheckpointError> {
        Ok(self.world.lock().kept.get(key).and_then(|kept| kept.progress.clone()))
    }

    async fn claim_all(&self, keys: &[CheckpointKey], owner: &Owner) -> Vec<Result<Claimed, CheckpointError>> {
        for key in keys {
            self.world.lock().check_claim(process_of(&owner.0), key);
        }
        travel(&self.world).await;
        // A claim can take longer than the next change of its tranche.
        let delay = {
            let mut inner = self.world.lock();
            if inner.strikes(3) { inner.random.u64(0..600) } else { 0 }
        };
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let mut inner = self.world.lock();
        let mut results = Vec::new();
        for key in keys {
            if inner.strikes(10) {
                results.push(Err(unavailable("claim")));
                continue;
            }
            let kept = inner.kept.entry(key.clone()).or_default();
            results.push(Ok(Claimed {
                fence: kept.claim(&owner.0),
                progress: kept.progress.clone(),
                sequence: kept.sequence,
            }));
        }
        results
    }

    async fn commit(&self, commits: &[Commit<'_>]) -> Vec<Result<(), CheckpointError>> {
        travel(&self.world).await;
        let mut inner = self.world.lock();
        let mut results = Vec::new();
        for commit in commits {
            if inner.strikes(8) {
                results.push(Err(unavailable("commit")));
                continue;
            }
            let result = store(&mut inner, commit);
            // The commit is stored, and its answer is lost.
            let lost = result.is_ok() && inner.strikes(12);
            results.push(if lost { Err(unavailable("commit")) } else { result });
        }
        results
    }

    async fn last_commit(&self, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, CheckpointError> {
        travel(&self.world).await;
        let mut inner = self.world.lock();
        if inner.strikes(4) {
            return Err(unavailable("look"));
        }
        Ok(inner.kept.get(key).map(|kept| (Fence(kept.fence), kept.sequence)))
    }

    async fn release(&self, key: &CheckpointKey, fence: Fence) -> Result<(), CheckpointError> {
        self.world.lock().release(key, fence.0);
        travel(&self.world).await;
        Ok(())
    }

    async fn list(&self, _group: &str, _source: &str) -> Result<Vec<Listed>, CheckpointError> {
        unreachable!("an operator asks, and no pipeline")
    }

    async fn set(&self, _: &CheckpointKey, _: Fence, _: Option<&Progress>) -> Result<(), CheckpointError> {
        unreachable!("an operator asks, and no pipeline")
    }

    async fn log(&self, _key: &CheckpointKey) -> Result<Vec<LogEntry>, CheckpointError> {
        unreachable!("an operator asks, and no pipeline")
    }

    async fn write_positions(
        &self,
        key: &CheckpointKey,
        streams: &[&str],
    ) -> Result<Vec<Option<WritePosition>>, CheckpointError> {
        let inner = self.world.lock();
        let kept = inner.kept.get(key);
        Ok(streams.iter().map(|stream| kept.and_then(|kept| kept.write_positions.get(*stream).cloned())).collect())
    }

    fn parked(&self) -> Option<Arc<dyn ParkedStore>> {
        Some(Arc::new(self.clone()))
    }
}

#[async_trait]
impl ParkedStore for SimStore {
    async fn load(&self, key: &CheckpointKey) -> Result<Vec<ParkedStream>, CheckpointError> {
        let inner = self.world.lock();
        let of_key = inner.parked.iter().filter(|((of, _), _)| of == key);
        let parked = of_key.map(|((_, stream), queue)| ParkedStream {
            stream: stream.as_str().into(),
            first: queue.from,
            events: queue.events.len() as u64,
            bytes: 0,
            mark: queue.mark.clone(),
        });
        Ok(parked.collect())
    }

    async fn append(&self, key: &CheckpointKey, fence: Fence, events: &[Parked<'_>]) -> Result<(), CheckpointError> {
        travel(&self.world).await;
        let mut inner = self.world.lock();
        if inner.strikes(8) {
            return Err(unavailable("park"));
        }
        check_fence(&inner, key, fence)?;
        park(&mut inner, key, fence, events);
        Ok(())
    }

    async fn update(
        &self,
        key: &CheckpointKey,
        fence: Fence,
        updates: &[ParkedUpdate<'_>],
    ) -> Result<(), CheckpointError> {
        travel(&self.world).await;
        let mut inner = self.world.lock();
        if inner.strikes(12) {
            return Err(unavailable("update"));
        }
        check_fence(&inner, key, fence)?;
        update(&mut inner, key, updates);
        // The changes are stored, and the answer is lost.
        if inner.strikes(12) { Err(unavailable("update")) } else { Ok(()) }
    }

    async fn read(&self, key: &CheckpointKey, stream: &str, page: &QueuePage) -> Result<QueueRead, CheckpointError> {
        travel(&self.world).await;
        let mut inner = self.world.lock();
        if inner.strikes(12) {
            return Err(unavailable("read"));
        }
        let queue = inner.parked.get(&(key.clone(), stream.to_owned()));
        let mut events = queue.map(|queue| queue.events.clone()).unwrap_or_default();
        let id = |queued: &QueuedEvent| QueuedId::of(&queued.event);
        events.sort_by(|a, b| page.order.compare(&id(a), &id(b)));
        events.retain(|queued| page.after.is_none_or(|after| page.order.compare(&id(queued), &after).is_gt()));
        // The limit of bytes can end a page anywhere.
        let most = inner.parking.usize(1..=page.max_events);
        let more = events.len() > most;
        events.truncate(most);
        Ok(QueueRead { events, more })
    }

    async fn due(
        &self,
        key: &CheckpointKey,
        until: time::OffsetDateTime,
        most: usize,
    ) -> Result<Vec<DueStream>, CheckpointError> {
        travel(&self.world).await;
        let mut inner = self.world.lock();
        if inner.strikes(12) {
            return Err(unavailable("look"));
        }
        let of_key =
            inner.parked.iter().filter(|((of, _), queue)| of == key && queue.mark.due.is_some_and(|at| at <= until));
        let mut due: Vec<_> = of_key
            .map(|((_, stream), queue)| DueStream { stream: stream.as_str().into(), mark: queue.mark.clone() })
            .collect();
        due.sort_by_key(|stream| stream.mark.due);
        due.truncate(most);
        Ok(due)
    }

    async fn list(&self, _: &str, _: &str, _: &ParkedQuery<'_>) -> Result<ParkedPage, CheckpointError> {
        unreachable!("an operator asks, and no pipeline")
    }

    async fn request(
        &self,
        _group: &str,
        _source: &str,
        selection: &ParkedSelection<'_>,
        request: &ParkedRequest<'_>,
    ) -> Result<u64, CheckpointError> {
        let mut inner = self.world.lock();
        let selection = selection.for_request();
        let mut discarded = Vec::new();
        let mut streams = 0;
        for ((key, stream), queue) in &mut inner.parked {
            if !selection.selects(key.tranche.as_str(), stream, &queue.mark) {
                continue;
            }
            streams += 1;
            queue.mark.due = Some(request.at);
            queue.mark.job = Some(request.job.into());
            if request.action == ParkedAction::DiscardAll {
                for queued in &mut queue.events {
                    queued.discarded = true;
                    discarded.push((key.tranche.to_string(), place(&queued.event)));
                }
            }
        }
        inner.discarded.extend(discarded);
        let line = format!("requested {request:?} of {streams} streams");
        inner.note(&line);
        Ok(streams)
    }

    async fn jobs(&self, _group: &str, _source: &str) -> Result<Vec<ParkedJob>, CheckpointError> {
        unreachable!("an operator asks, and no pipeline")
    }

    async fn edit(
        &self,
        _key: &CheckpointKey,
        _stream: &str,
        _id: &QueuedId,
        _body: NewBody<'_>,
    ) -> Result<bool, CheckpointError> {
        unreachable!("an operator asks, and no pipeline")
    }
}

pub(super) struct SimSink {
    pub(super) world: World,
    pub(super) process: String,
}

/// An effect in the sink.
type Effect = (String, Ordinal, Item);

fn effects(decided: &Decided) -> Vec<Effect> {
    let Effects::Emitted(values) = &decided.effects else { panic!("the handler decides") };
    let emitted: Vec<_> = values.iter().filter_map(|value| value.as_text()).collect();
    let of = |event: &&Event| emitted.contains(&format!("{event:?}").as_str());
    decided
        .work
        .events
        .iter()
        .filter(of)
        .map(|event| (tranche_of(event).to_owned(), place(event), Item::of(event)))
        .collect()
}

fn fault(inner: &mut Inner, decided: &Decided) -> Option<HandlerError> {
    let error = |kind| Some(HandlerError::new(kind, "the sink failed"));
    if inner.strikes(30) {
        return error(HandlerErrorKind::Unavailable);
    }
    if inner.strikes(40) {
        return error(HandlerErrorKind::Throttled);
    }
    // Once for each event and life: `then` acts on an event whose write fails as often as that of poison.
    let first = (stream_of(&decided.work.events[0]), decided.work.first());
    if decided.work.failures == 0 && !inner.refused.contains(&first) && inner.strikes(30) {
        inner.refused.insert(first);
        return error(HandlerErrorKind::Transient);
    }
    None
}

fn hold(inner: &mut Inner, effects: Vec<Effect>) {
    for effect in effects {
        let line = format!("wrote {effect:?}");
        inner.note(&line);
        inner.handled_items.insert(effect.2.clone());
        inner.settled.insert((effect.0.clone(), effect.1));
        inner.effects.push(effect);
    }
}

#[async_trait]
impl Sink for SimSink {
    fn max_batch(&self) -> usize {
        let mut random = fastrand::Rng::with_seed(self.world.lock().seed);
        [1, 3, 1000][random.usize(0..3)]
    }

    fn window(&self) -> usize {
        if self.max_batch() == 1 { usize::MAX } else { 1 }
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        let epochs: Vec<_> = decided.iter().map(|decided| self.begin_write(decided)).collect();
        travel(&self.world).await;
        let mut inner = self.world.lock();
        let mut results = Vec::new();
        for (decided, epoch) in decided.iter().zip(epochs) {
            if let Some(error) = fault(&mut inner, decided) {
                results.push(Err(error));
                continue;
            }
            if decided.next > decided.work.next {
                let jumped = inner.jumped.entry(stream_of(&decided.work.events[0])).or_insert(0);
                *jumped = (*jumped).max(decided.next);
            }
            hold(&mut inner, effects(decided));
            let lost = inner.strikes(40);
            if let Some(epoch) = epoch.filter(|_| !lost) {
                for (tranche, at, _) in effects(decided) {
                    inner.acknowledge(&self.process, &tranche, epoch, at);
                }
            }
            results.push(if lost {
                Err(HandlerError::new(HandlerErrorKind::Unavailable, "the answer was lost"))
            } else {
                Ok(Written::All)
            });
        }
        results
    }
}

impl SimSink {
    /// Checks that the tranche of a write is its process's own (C10). Returns the number of the assignment.
    fn begin_write(&self, decided: &Decided) -> Option<u64> {
        let mut inner = self.world.lock();
        let tranche = tranche_of(&decided.work.events[0]);
        let (process, is_foreign) = (&self.process, inner.is_foreign(&self.process, tranche));
        inner.demand(!is_foreign, || format!("{process} writes {:?} of a lost tranche (C10)", decided.work.events));
        inner.epoch(process, tranche)
    }

    fn store(&self) -> SimStore {
        SimStore { world: self.world.clone() }
    }
}

#[async_trait]
impl TransactionalSink for SimSink {
    fn checkpoints(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.store())
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, HandlerError> {
        travel(&self.world).await;
        if self.world.lock().strikes(20) {
            return Err(HandlerError::new(HandlerErrorKind::Unavailable, "no connection"));
        }
        Ok(Box::new(SimTransaction { world: self.world.clone(), effects: Vec::new(), jumped: Vec::new() }))
    }
}

struct SimTransaction {
    world: World,
    effects: Vec<Effect>,
    jumped: Vec<(String, i64)>,
}

#[async_trait]
impl Transaction for SimTransaction {
    async fn write(&mut self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        travel(&self.world).await;
        let mut results = Vec::new();
        for decided in decided {
            if let Some(error) = fault(&mut self.world.lock(), decided) {
                results.push(Err(error));
                continue;
            }
            self.effects.extend(effects(decided));
            if decided.next > decided.work.next {
                self.jumped.push((stream_of(&decided.work.events[0]), decided.next));
            }
            results.push(Ok(Written::All));
        }
        results
    }

    async fn commit(
        self: Box<Self>,
        commits: &[Commit<'_>],
        parked: &[ParkedChange<'_>],
    ) -> Result<(), TransactionError> {
        travel(&self.world).await;
        let mut inner = self.world.lock();
        if self.effects.iter().any(|(_, _, item)| item.unfold.is_none() && is_spoiling(item.index)) {
            let error = HandlerError::new(HandlerErrorKind::Permanent, "a constraint fails at the commit");
            return Err(TransactionError::Failed(error));
        }
        if inner.strikes(15) {
            return Err(TransactionError::Failed(HandlerError::new(
                HandlerErrorKind::Unavailable,
                "the commit failed",
            )));
        }
        let unknown =
            |inner: &mut Inner| inner.strikes(20).then(|| TransactionError::OutcomeUnknown(anyhow::anyhow!("cut off")));
        if let Some(error) = unknown(&mut inner) {
            return Err(error); // Nothing is committed.
        }
        let mut fenced = Vec::new();
        for (key, fence) in commits
            .iter()
            .map(|commit| (commit.key, commit.fence))
            .chain(parked.iter().map(|change| (change.key, change.fence)))
        {
            if let Err(error) = check_fence(&inner, key, fence) {
                fenced.push((key.clone(), error));
            }
        }
        if !fenced.is_empty() {
            return Err(TransactionError::Fenced(fenced));
        }
        for (stream, next) in self.jumped {
            let jumped = inner.jumped.entry(stream).or_insert(0);
            *jumped = (*jumped).max(next);
        }
        hold(&mut inner, self.effects);
        for change in parked {
            park(&mut inner, change.key, change.fence, change.events);
            update(&mut inner, change.key, change.updates);
        }
        for commit in commits {
            store(&mut inner, commit).map_err(|error| {
                TransactionError::Failed(HandlerError::new(HandlerErrorKind::Permanent, error.to_string()))
            })?;
        }
        match unknown(&mut inner) {
            Some(error) => Err(error), // Everything is committed.
            None => Ok(()),
        }
    }
}
