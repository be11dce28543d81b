//! The lane of parked streams that are offered again: after a request, with another handler, or at the end of a long
//! deferral.
//!
//! The lane stands beside the scheduler and never touches the progress (R6): the progress passed the events when they were
//! parked. The lane reads a page of a stream's queue, offers runs of it, one at a time (C6), and removes what is handled.
//!
//! A stream is unparked once its queue is empty. From the moment at which the lane knows the rest of a queue, it holds later
//! events of the stream instead of letting them be appended (it is *closing*). So nothing can join the queue, and the held
//! events go to the scheduler after the last parked one.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};

use hashbrown::HashMap;

use super::messages::Update;
use crate::checkpoint::{DueStream, ParkedMark, QueueOrder, QueuePage, QueueRead, QueuedEvent, QueuedId};
use crate::clock::Timestamp;
use crate::event::{Event, Indexes, Kind};
use crate::position::TrancheId;
use crate::scheduler::Order;
use crate::work::{Work, WorkId, WorkKind};

/// The slots of the lane's work begin here. The scheduler's never reach it, so that neither takes the other's work for its own.
const FIRST_SLOT: u32 = 1 << 31;

/// The most events of a page of a queue.
const PAGE_EVENTS: usize = 100;

/// The numbers of the lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneRules {
    pub(super) order: Order,
    pub(super) indexes: Indexes,
    /// The limits of one call.
    pub(super) max_events: usize,
    pub(super) max_bytes: usize,
    /// The most bytes of a page of a queue.
    pub(super) page_bytes: usize,
    /// The number of streams that the lane holds at a time, and of its calls.
    pub(super) streams: usize,
    pub(super) calls: usize,
}

/// The parked streams that are being offered again.
#[derive(Debug)]
pub(super) struct ParkedLane {
    rules: LaneRules,
    tranches: BTreeMap<TrancheId, BTreeMap<Box<str>, Entry>>,
    entries: usize,
    /// Tranches that are about to leave: nothing of them is offered or read.
    stopped: BTreeSet<TrancheId>,
    /// Streams that can be offered, in order. An entry may be out of date.
    ready: VecDeque<Key>,
    /// Streams that wait for a retry, and a running number.
    timers: BTreeMap<(Timestamp, u64), Key>,
    number: u64,
    /// The stream of each call, by slot; `None` if its tranche is gone.
    in_flight: HashMap<u32, (u32, Option<Key>)>,
    /// Calls of tranches that are gone. Until they end, no stream of these tranches may be offered again (C6).
    gone: Vec<(WorkId, TrancheId)>,
    unused: Vec<u32>,
    slots: u32,
}

type Key = (TrancheId, Box<str>);

/// A stream in the lane.
#[derive(Debug)]
struct Entry {
    mark: ParkedMark,
    stage: Stage,
    /// Events that were read and are not handled.
    page: VecDeque<Event>,
    /// The events of the page that the call in flight has.
    taken: usize,
    /// The place from which the next page is read: after events that stay parked.
    after: Option<QueuedId>,
    /// The page is the rest of the queue.
    exhausted: bool,
    /// An event may have joined the queue since the last page was read.
    joined: bool,
    /// Work to be parked that is held until the stream is unparked.
    held: Option<Work>,
    /// The mark of an event that failed and stays parked while later events are offered.
    left_behind: Option<ParkedMark>,
    failures: u32,
    /// Events are offered singly, since one of them failed (C19).
    singly: bool,
    /// Events below this index are handled (`upto`).
    passed: i64,
    stalled_since: Option<Timestamp>,
    updates: Vec<Update>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A page is to be read, or is being read.
    Read,
    Reading,
    Ready,
    Waiting,
    Offered(WorkId),
    /// Changes are to be stored, or are being stored.
    Update,
    Updating,
}

/// The end of a stream's time in the lane.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) tranche: TrancheId,
    pub(super) stream: Box<str>,
    /// Its queue is empty: the scheduler unparks it.
    pub(super) unparked: bool,
    /// Work that was held meanwhile.
    pub(super) held: Option<Work>,
}

/// Changes of one stream, to be stored.
#[derive(Debug)]
pub(super) struct StreamUpdates {
    pub(super) stream: Box<str>,
    pub(super) updates: Vec<Update>,
}

impl Entry {
    fn new(mark: ParkedMark) -> Self {
        Self {
            mark,
            stage: Stage::Read,
            page: VecDeque::new(),
            taken: 0,
            after: None,
            exhausted: false,
            joined: false,
            held: None,
            left_behind: None,
            failures: 0,
            singly: false,
            passed: i64::MIN,
            stalled_since: None,
            updates: Vec::new(),
        }
    }

    /// Returns the number of leading events of the page that are handled if the call's events below `next` are.
    fn handled(&self, work: &Work, next: i64) -> usize {
        if next >= work.next {
            return self.taken;
        }
        let below = |event: &&Event| event.next_index() <= next;
        self.page.iter().take(self.taken).take_while(below).count()
    }

    /// Returns the changes that remove the leading events of the page, and unpark the stream if its queue is empty then.
    fn removal(&self, stream: &str, events: usize) -> Vec<Update> {
        let ids: Vec<_> = self.page.iter().take(events).map(QueuedId::of).collect();
        let mut updates = Vec::new();
        if !ids.is_empty() {
            updates.push(Update::Remove { stream: stream.into(), events: ids });
        }
        if events == self.page.len() && self.exhausted {
            match &self.left_behind {
                None => updates.push(Update::Unpark { stream: stream.into() }),
                Some(mark) => updates.push(Update::Mark { stream: stream.into(), mark: mark.clone() }),
            }
        }
        updates
    }

    /// Returns whether its stored changes end its time in the lane.
    fn ends(updates: &[Update]) -> bool {
        updates.iter().any(|update| matches!(update, Update::Unpark { .. } | Update::Mark { .. }))
    }

    fn progressed(&mut self) {
        self.failures = 0;
        self.stalled_since = None;
    }
}

impl ParkedLane {
    pub(super) fn new(rules: LaneRules) -> Self {
        Self {
            rules,
            tranches: BTreeMap::new(),
            entries: 0,
            stopped: BTreeSet::new(),
            ready: VecDeque::new(),
            timers: BTreeMap::new(),
            number: 0,
            in_flight: HashMap::new(),
            gone: Vec::new(),
            unused: Vec::new(),
            slots: FIRST_SLOT,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0 && self.in_flight.is_empty()
    }

    /// Returns how many more streams the lane takes.
    pub(super) fn room(&self) -> usize {
        self.rules.streams.saturating_sub(self.entries)
    }

    /// Returns whether a call or a change of the tranche is out, or is to be stored.
    pub(super) fn concerns(&self, tranche: &TrancheId) -> bool {
        let mut entries = self.tranches.get(tranche).into_iter().flat_map(BTreeMap::values);
        entries.any(|entry| matches!(entry.stage, Stage::Offered(_) | Stage::Update | Stage::Updating))
    }

    /// Returns whether a call of an earlier assignment of the tranche still runs (C6).
    pub(super) fn still_runs(&self, tranche: &TrancheId) -> bool {
        self.gone.iter().any(|(_, of)| of == tranche)
    }

    /// Returns the number of changes that are to be stored, or are being stored.
    pub(super) fn unstored(&self) -> usize {
        let entries = self.tranches.values().flat_map(BTreeMap::values);
        entries.filter(|entry| matches!(entry.stage, Stage::Update | Stage::Updating)).count()
    }

    /// Takes a stream into the lane, unless it is there.
    pub(super) fn admit(&mut self, tranche: &TrancheId, due: DueStream) {
        let streams = self.tranches.entry(tranche.clone()).or_default();
        if let btree_map::Entry::Vacant(place) = streams.entry(due.stream) {
            place.insert(Entry::new(due.mark));
            self.entries += 1;
        }
    }

    /// Forgets a tranche that is gone. Its calls end without consequence. Returns the work that was held.
    pub(super) fn forget(&mut self, tranche: &TrancheId) -> Vec<Work> {
        self.stopped.remove(tranche);
        let Some(streams) = self.tranches.remove(tranche) else { return Vec::new() };
        self.entries -= streams.len();
        for (slot, (generation, key)) in &mut self.in_flight {
            if key.take_if(|key| key.0 == *tranche).is_some() {
                self.gone.push((WorkId { slot: *slot, generation: *generation }, tranche.clone()));
            }
        }
        streams.into_values().filter_map(|entry| entry.held).collect()
    }

    /// Stops offering the streams of a tranche. Running calls end as usual. Returns the work that was held of the others.
    pub(super) fn stop(&mut self, tranche: &TrancheId) -> Vec<Work> {
        self.stopped.insert(tranche.clone());
        self.drop_idle_of(tranche)
    }

    /// Drops the streams of stopped tranches whose calls have ended since. Returns the work that was held of them.
    pub(super) fn drop_stopped(&mut self) -> Vec<Work> {
        let stopped: Vec<_> = self.stopped.iter().cloned().collect();
        stopped.iter().flat_map(|tranche| self.drop_idle_of(tranche)).collect()
    }

    fn drop_idle_of(&mut self, tranche: &TrancheId) -> Vec<Work> {
        let Some(streams) = self.tranches.get_mut(tranche) else { return Vec::new() };
        let all = streams.len();
        let is_out = |entry: &Entry| matches!(entry.stage, Stage::Offered(_) | Stage::Update | Stage::Updating);
        let (kept, dropped): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(streams).into_iter().partition(|(_, entry)| is_out(entry));
        *streams = kept;
        self.entries -= all - streams.len();
        dropped.into_values().filter_map(|entry| entry.held).collect()
    }

    fn entry(&mut self, tranche: &TrancheId, stream: &str) -> Option<&mut Entry> {
        self.tranches.get_mut(tranche)?.get_mut(stream)
    }

    /// Takes work that is to be parked, if its stream is closing. Otherwise returns it to be appended.
    pub(super) fn hold(&mut self, tranche: &TrancheId, work: Work) -> Option<Work> {
        let is_alone = self.is_alone(work.stream());
        let Some(entry) = self.entry(tranche, work.stream()) else { return Some(work) };
        if entry.exhausted && !is_alone && entry.held.is_none() {
            entry.held = Some(work);
            return None;
        }
        (entry.joined, entry.exhausted) = (true, false);
        Some(work)
    }

    /// Returns whether the events of a stream are parked each by itself: a failing one holds up no other.
    fn is_alone(&self, stream: &str) -> bool {
        self.rules.order == Order::None || stream.is_empty()
    }

    /// Returns the pages to read. `is_appending` tells whether events of a stream are on their way into its queue.
    pub(super) fn take_reads(
        &mut self,
        mut is_appending: impl FnMut(&TrancheId, &str) -> bool,
    ) -> Vec<(TrancheId, Box<str>, QueuePage)> {
        let mut reads = Vec::new();
        let rules = self.rules;
        let stopped = &self.stopped;
        for (tranche, streams) in self.tranches.iter_mut().filter(|(tranche, _)| !stopped.contains(*tranche)) {
            for (stream, entry) in streams.iter_mut().filter(|(_, entry)| entry.stage == Stage::Read) {
                entry.stage = Stage::Reading;
                entry.joined = is_appending(tranche, stream);
                let page = QueuePage {
                    order: if rules.order == Order::Stream { QueueOrder::Index } else { QueueOrder::Ordinal },
                    after: entry.after,
                    max_events: rules.max_events.min(PAGE_EVENTS),
                    max_bytes: rules.page_bytes,
                };
                reads.push((tranche.clone(), stream.clone(), page));
            }
        }
        reads
    }

    /// Takes a page. Returns the events that an operator discarded.
    pub(super) fn page_read(&mut self, tranche: &TrancheId, stream: &str, read: QueueRead) -> Vec<Event> {
        let is_stream_order = self.rules.order == Order::Stream;
        let Some(entry) = self.entry(tranche, stream).filter(|entry| entry.stage == Stage::Reading) else {
            return Vec::new();
        };
        // The page is the rest of the queue, unless an event joined behind it.
        entry.exhausted = !read.more && !entry.joined;
        let (mut discarded, mut passed) = (Vec::new(), Vec::new());
        for QueuedEvent { event, discarded: is_discarded } in read.events {
            if is_discarded {
                discarded.push(event);
            } else if is_stream_order && event.next_index() <= entry.passed && !event.is_unfold() {
                passed.push(QueuedId::of(&event));
            } else {
                entry.page.push_back(event);
            }
        }
        let removed: Vec<_> = discarded.iter().map(QueuedId::of).chain(passed).collect();
        if !removed.is_empty() {
            entry.updates.push(Update::Remove { stream: stream.into(), events: removed });
        }
        if !entry.updates.is_empty() || entry.page.is_empty() && entry.exhausted {
            if entry.page.is_empty() && entry.exhausted {
                let ending = entry.removal(stream, 0);
                entry.updates.extend(ending);
            }
            entry.stage = Stage::Update;
        } else {
            self.go_on(tranche, stream);
        }
        discarded
    }

    /// Reads or writes of the store failed: the stream waits.
    pub(super) fn store_failed(&mut self, tranche: &TrancheId, stream: &str, until: Timestamp) {
        if let Some(entry) = self.entry(tranche, stream) {
            entry.stage = Stage::Waiting;
            self.set_timer(tranche, stream, until);
        }
    }

    fn set_timer(&mut self, tranche: &TrancheId, stream: &str, until: Timestamp) {
        self.number += 1;
        self.timers.insert((until, self.number), (tranche.clone(), stream.into()));
    }

    /// Lets a stream take its next step.
    fn go_on(&mut self, tranche: &TrancheId, stream: &str) {
        let Some(entry) = self.entry(tranche, stream) else { return };
        entry.stage = if !entry.updates.is_empty() {
            Stage::Update
        } else if !entry.page.is_empty() {
            Stage::Ready
        } else if entry.exhausted {
            entry.updates = entry.removal(stream, 0);
            Stage::Update
        } else {
            Stage::Read
        };
        if entry.stage == Stage::Ready {
            self.ready.push_back((tranche.clone(), stream.into()));
        }
    }

    /// Lets the streams go on whose time has come.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some(first) = self.timers.first_entry().filter(|first| first.key().0 <= now) {
            let (tranche, stream) = first.remove();
            if self.entry(&tranche, &stream).is_some_and(|entry| entry.stage == Stage::Waiting) {
                self.go_on(&tranche, &stream);
            }
        }
    }

    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Returns whether a call of the lane is out, or can be.
    pub(super) fn wants_a_turn(&self) -> bool {
        !self.in_flight.is_empty() || !self.ready.is_empty()
    }

    /// Returns the next call, if there is one and the lane may have another one.
    pub(super) fn offer(&mut self, now: Timestamp) -> Option<Work> {
        if self.in_flight.len() >= self.rules.calls {
            return None;
        }
        loop {
            let (tranche, stream) = self.ready.pop_front()?;
            if self.stopped.contains(&tranche) {
                continue;
            }
            let is_alone = self.is_alone(&stream);
            let rules = self.rules;
            let (slot, generation) = self.next_slot();
            let Some(entry) = self.entry(&tranche, &stream).filter(|entry| entry.stage == Stage::Ready) else {
                self.unused.push(slot);
                continue;
            };
            let id = WorkId { slot, generation };
            entry.stage = Stage::Offered(id);
            let (taken, events) = run(&entry.page, &rules, entry.singly || is_alone);
            entry.taken = taken;
            let next = events.iter().map(Event::next_index).max().unwrap_or_default();
            let failures = entry.failures;
            self.in_flight.insert(slot, (generation, Some((tranche, stream))));
            return Some(Work {
                id,
                kind: WorkKind::Retry,
                events,
                next,
                failures,
                read_at: now,
                late: false,
                trace: None,
            });
        }
    }

    fn next_slot(&mut self) -> (u32, u32) {
        self.number += 1;
        let slot = self.unused.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        // The running number distinguishes the uses of a slot.
        (slot, self.number as u32)
    }

    fn key_of(&self, work: WorkId) -> Option<&Key> {
        let (generation, key) = self.in_flight.get(&work.slot)?;
        if *generation == work.generation { key.as_ref() } else { None }
    }

    /// Returns the tranche of a call, if it is still held.
    pub(super) fn tranche_of(&self, work: WorkId) -> Option<&TrancheId> {
        self.key_of(work).map(|key| &key.0)
    }

    /// Returns the mark of a call's stream.
    pub(super) fn mark_of(&self, work: WorkId) -> Option<&ParkedMark> {
        let (tranche, stream) = self.key_of(work)?;
        self.tranches.get(tranche)?.get(stream).map(|entry| &entry.mark)
    }

    /// Returns the job that made a stream due.
    pub(super) fn job(&self, tranche: &TrancheId, stream: &str) -> Option<&str> {
        self.tranches.get(tranche)?.get(stream)?.mark.job.as_deref()
    }

    /// Returns the changes that belong to the effects of a call that is done up to `next`.
    pub(super) fn removal(&self, work: &Work, next: i64) -> Vec<Update> {
        let Some((tranche, stream)) = self.key_of(work.id) else { return Vec::new() };
        let Some(entry) = self.tranches.get(tranche).and_then(|streams| streams.get(stream)) else { return Vec::new() };
        entry.removal(stream, entry.handled(work, next))
    }

    /// Ends a call. Returns its stream, unless the tranche is gone.
    fn end(&mut self, work: WorkId) -> Option<Key> {
        let (generation, _) = self.in_flight.get(&work.slot)?;
        if *generation != work.generation {
            return None;
        }
        let (_, key) = self.in_flight.remove(&work.slot)?;
        self.unused.push(work.slot);
        self.gone.retain(|(id, _)| *id != work);
        key
    }

    /// Notes that a call is done up to `next`. `stored`: the sink removed its events together with its effects. Returns the
    /// stream if its time in the lane is over.
    pub(super) fn done(&mut self, work: &Work, next: i64, stored: bool) -> Option<Left> {
        let (tranche, stream) = self.end(work.id)?;
        let entry = self.entry(&tranche, &stream)?;
        let handled = entry.handled(work, next);
        let updates = entry.removal(&stream, handled);
        entry.page.drain(..handled);
        entry.taken = 0;
        entry.progressed();
        if next > work.next {
            entry.passed = entry.passed.max(next);
        }
        if stored {
            return self.stored(&tranche, &stream, &updates);
        }
        entry.updates.extend(updates);
        self.go_on(&tranche, &stream);
        None
    }

    /// Skips the first event of a call.
    pub(super) fn skip(&mut self, work: &Work) {
        let Some((tranche, stream)) = self.end(work.id) else { return };
        let Some(entry) = self.entry(&tranche, &stream) else { return };
        let skipped = if work.is_single() { entry.taken } else { 1 };
        let updates = entry.removal(&stream, skipped);
        entry.page.drain(..skipped);
        entry.taken = 0;
        entry.progressed();
        entry.updates.extend(updates);
        self.go_on(&tranche, &stream);
    }

    /// Takes a call back: its events are offered again.
    pub(super) fn give_back(&mut self, work: WorkId, singly: bool) {
        let Some((tranche, stream)) = self.end(work) else { return };
        let Some(entry) = self.entry(&tranche, &stream) else { return };
        entry.singly |= singly;
        entry.taken = 0;
        self.go_on(&tranche, &stream);
    }

    /// Offers the events of a call again at `until`. A failure counts, and from then on they are offered singly (C19).
    pub(super) fn wait(&mut self, work: WorkId, until: Timestamp, failed: bool) {
        let Some((tranche, stream)) = self.end(work) else { return };
        let Some(entry) = self.entry(&tranche, &stream) else { return };
        if failed {
            entry.failures = entry.failures.saturating_add(1);
            entry.singly = true;
        }
        entry.taken = 0;
        entry.stage = Stage::Waiting;
        self.set_timer(&tranche, &stream, until);
    }

    /// Notes a call without progress. Returns the time since when the stream makes none.
    pub(super) fn stalled(&mut self, work: WorkId, now: Timestamp) -> Timestamp {
        let Some((tranche, stream)) = self.key_of(work).cloned() else { return now };
        self.entry(&tranche, &stream).map_or(now, |entry| *entry.stalled_since.get_or_insert(now))
    }

    /// Leaves the events of a call parked under another mark. Events that are parked each by itself let the others go on.
    pub(super) fn leave_parked(&mut self, work: &Work, mark: ParkedMark) {
        let Some((tranche, stream)) = self.end(work.id) else { return };
        let goes_on = self.is_alone(&stream) && mark.due.is_none();
        let Some(entry) = self.entry(&tranche, &stream) else { return };
        if goes_on {
            entry.after = entry.page.iter().take(entry.taken).map(QueuedId::of).last();
            entry.page.drain(..entry.taken);
            entry.left_behind = Some(mark);
            entry.progressed();
        } else {
            entry.updates.push(Update::Mark { stream: stream.clone(), mark });
        }
        entry.taken = 0;
        self.go_on(&tranche, &stream);
    }

    /// Returns the changes to store, by tranche.
    pub(super) fn take_updates(&mut self) -> Vec<(TrancheId, Vec<StreamUpdates>)> {
        let mut all = Vec::new();
        for (tranche, streams) in &mut self.tranches {
            let due = streams.iter_mut().filter(|(_, entry)| entry.stage == Stage::Update);
            let updates: Vec<_> = due
                .map(|(stream, entry)| {
                    entry.stage = Stage::Updating;
                    StreamUpdates { stream: stream.clone(), updates: entry.updates.clone() }
                })
                .collect();
            if !updates.is_empty() {
                all.push((tranche.clone(), updates));
            }
        }
        all
    }

    /// Notes stored changes. Returns the stream if its time in the lane is over.
    pub(super) fn updated(&mut self, tranche: &TrancheId, stream: &str) -> Option<Left> {
        let entry = self.entry(tranche, stream).filter(|entry| entry.stage == Stage::Updating)?;
        let updates = std::mem::take(&mut entry.updates);
        self.stored(tranche, stream, &updates)
    }

    fn stored(&mut self, tranche: &TrancheId, stream: &str, updates: &[Update]) -> Option<Left> {
        if !Entry::ends(updates) {
            self.go_on(tranche, stream);
            return None;
        }
        let (stream, entry) = self.tranches.get_mut(tranche)?.remove_entry(stream)?;
        self.entries -= 1;
        let unparked = updates.iter().any(|update| matches!(update, Update::Unpark { .. }));
        Some(Left { tranche: tranche.clone(), stream, unparked, held: entry.held })
    }
}

/// Returns the next run of a page: the number of its events, and those of them to offer. Unfolds that a later event of the
/// run supersedes are not offered.
fn run(page: &VecDeque<Event>, rules: &LaneRules, singly: bool) -> (usize, Vec<Event>) {
    let (mut taken, mut bytes) = (0, 0);
    let mut events: Vec<Event> = Vec::new();
    let mut unfolds: Vec<Event> = Vec::new();
    for event in page {
        if event.is_unfold() {
            // The unfolds of one document share an ordinal; a later document supersedes them.
            unfolds.retain(|unfold| unfold.at() == event.at());
            unfolds.push(event.clone());
            taken += 1;
            continue;
        }
        if let Some(last) = events.last() {
            let follows = match (rules.order, rules.indexes) {
                (Order::Stream, Indexes::Dense) => event.index() == last.next_index(),
                (Order::Stream, Indexes::Sparse) => event.index() >= last.next_index(),
                (Order::Tranche | Order::None, _) => true,
            };
            let is_malformed = event.kind() == Kind::Malformed || last.kind() == Kind::Malformed;
            let is_full = events.len() >= rules.max_events || bytes + event.held_bytes() > rules.max_bytes;
            if singly || is_full || is_malformed || !follows {
                break;
            }
        }
        unfolds.clear();
        bytes += event.held_bytes();
        events.push(event.clone());
        taken += 1;
    }
    events.extend(unfolds);
    (taken, events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::ParkedState;
    use crate::event::Assembler;
    use crate::position::Ordinal;

    const RULES: LaneRules = LaneRules {
        order: Order::Stream,
        indexes: Indexes::Dense,
        max_events: 3,
        max_bytes: usize::MAX,
        page_bytes: usize::MAX,
        streams: 2,
        calls: 1,
    };

    fn built(kind: Kind, at: u64, index: i64) -> Event {
        Assembler::new("a-1", "T").build(kind, Ordinal::new(at, 0), index).unwrap()
    }

    fn event(index: i64) -> Event {
        built(Kind::Event, index.unsigned_abs(), index)
    }

    fn mark() -> ParkedMark {
        ParkedMark {
            state: ParkedState::Failed,
            class: "permanent".into(),
            why: "no such customer".into(),
            index: 0,
            event_type: "T".into(),
            since: time::OffsetDateTime::UNIX_EPOCH,
            attempts: 1,
            version: "v1".into(),
            due: None,
            job: None,
        }
    }

    fn tranche() -> TrancheId {
        TrancheId::new("0")
    }

    fn read(events: impl IntoIterator<Item = Event>, more: bool) -> QueueRead {
        let events = events.into_iter().map(|event| QueuedEvent { event, discarded: false }).collect();
        QueueRead { events, more }
    }

    /// Returns a lane with the stream `a-1`, whose first page is read.
    fn lane(rules: LaneRules, page: QueueRead) -> ParkedLane {
        let mut lane = ParkedLane::new(rules);
        lane.admit(&tranche(), DueStream { stream: "a-1".into(), mark: mark() });
        assert_eq!(lane.take_reads(|_, _| false).len(), 1);
        assert!(lane.page_read(&tranche(), "a-1", page).is_empty());
        lane
    }

    fn parking(event: Event) -> Work {
        let id = WorkId { slot: 0, generation: 0 };
        let next = event.next_index();
        let (events, read_at) = (vec![event], Timestamp::ZERO);
        Work { id, kind: WorkKind::Park, events, next, failures: 0, read_at, late: false, trace: None }
    }

    fn shown(events: &[Event]) -> String {
        events.iter().map(|event| format!("{event:?}")).collect::<Vec<_>>().join(" ")
    }

    fn updates(lane: &mut ParkedLane) -> String {
        let updates = lane.take_updates().into_iter().flat_map(|(_, updates)| updates).flat_map(|of| of.updates);
        let name = |update: Update| match update {
            Update::Remove { events, .. } => format!("remove {}", events.len()),
            Update::Mark { mark, .. } => format!("mark {}", mark.index),
            Update::Unpark { .. } => "unpark".to_owned(),
        };
        updates.map(name).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_run_ends_at_a_hole_and_at_the_limits_of_a_call() {
        let run_of = |indexes: &[i64], rules: LaneRules, singly| {
            let page = indexes.iter().map(|&index| event(index)).collect();
            let (taken, events) = run(&page, &rules, singly);
            (taken, events.len())
        };
        assert_eq!(run_of(&[0, 1, 3], RULES, false), (2, 2), "a hole of a dense stream");
        assert_eq!(run_of(&[0, 1, 3], LaneRules { indexes: Indexes::Sparse, ..RULES }, false), (3, 3));
        assert_eq!(run_of(&[0, 1, 2, 3], RULES, false), (3, 3), "three events a call");
        assert_eq!(run_of(&[0, 1, 2], LaneRules { max_bytes: 1, ..RULES }, false), (1, 1), "one event always goes");
        assert_eq!(run_of(&[0, 1, 2], RULES, true), (1, 1), "singly");
    }

    #[test]
    fn c3_superseded_unfolds_are_removed_with_their_run_and_not_offered() {
        let page =
            [event(0), built(Kind::Unfold, 5, 1), event(1), built(Kind::Unfold, 6, 2), built(Kind::Unfold, 6, 2)];
        let (taken, events) = run(&page.into(), &RULES, false);
        assert_eq!((taken, shown(&events).as_str()), (5, "a-1/e0@0.0 a-1/e1@1.0 a-1/u2@6.0 a-1/u2@6.0"));
    }

    #[test]
    fn c21_events_are_held_once_the_rest_of_the_queue_is_known_and_go_on_after_it() {
        let mut lane = lane(RULES, read([event(0), event(1)], false));
        let work = lane.offer(Timestamp::ZERO).unwrap();
        assert!(lane.offer(Timestamp::ZERO).is_none(), "one call at a time");
        assert!(lane.hold(&tranche(), parking(event(2))).is_none(), "it is held");
        assert!(lane.done(&work, 2, false).is_none());
        assert_eq!(updates(&mut lane), "remove 2, unpark");
        let left = lane.updated(&tranche(), "a-1").unwrap();
        assert!(left.unparked && left.held.is_some_and(|work| work.first() == 2));
        assert!(lane.is_empty());
    }

    #[test]
    fn c21_a_queue_that_an_event_joined_is_read_to_its_end_before_its_stream_is_unparked() {
        let mut lane = lane(RULES, read([event(0)], true));
        let work = lane.offer(Timestamp::ZERO).unwrap();
        assert!(lane.hold(&tranche(), parking(event(2))).is_some(), "it is appended");
        lane.done(&work, 1, false);
        assert_eq!(updates(&mut lane), "remove 1");
        assert!(lane.updated(&tranche(), "a-1").is_none());
        // An append is on its way while the page is read.
        assert_eq!(lane.take_reads(|_, _| true).len(), 1);
        lane.page_read(&tranche(), "a-1", read([event(1)], false));
        let work = lane.offer(Timestamp::ZERO).unwrap();
        lane.done(&work, 2, false);
        assert_eq!(updates(&mut lane), "remove 1", "the queue may hold the appended event");
    }

    #[test]
    fn a_failed_event_stays_parked_and_later_ones_wait_behind_it() {
        let mut lane = lane(RULES, read([event(0), event(1), event(2)], false));
        let work = lane.offer(Timestamp::ZERO).unwrap();
        lane.wait(work.id, Timestamp::from_millis(5), true);
        lane.wake(Timestamp::from_millis(4));
        assert!(lane.offer(Timestamp::ZERO).is_none());
        lane.wake(Timestamp::from_millis(5));
        let work = lane.offer(Timestamp::ZERO).unwrap();
        assert_eq!((work.events.len(), work.failures), (1, 1), "events are offered singly after a failure");
        lane.done(&work, 1, false);
        assert_eq!(updates(&mut lane), "remove 1");
        lane.updated(&tranche(), "a-1");
        let work = lane.offer(Timestamp::ZERO).unwrap();
        assert!(lane.hold(&tranche(), parking(event(3))).is_none());
        lane.leave_parked(&work, ParkedMark { index: 1, ..mark() });
        assert_eq!(updates(&mut lane), "mark 1");
        let left = lane.updated(&tranche(), "a-1").unwrap();
        assert!(!left.unparked && left.held.is_some(), "the held event is appended behind the others");
    }

    #[test]
    fn c8_events_that_are_parked_each_by_itself_do_not_wait_for_each_other() {
        let mut lane = lane(LaneRules { order: Order::None, ..RULES }, read([event(0), event(1)], false));
        let work = lane.offer(Timestamp::ZERO).unwrap();
        assert_eq!(work.events.len(), 1);
        lane.leave_parked(&work, ParkedMark { index: 0, ..mark() });
        let work = lane.offer(Timestamp::ZERO).unwrap();
        assert_eq!(work.first(), 1);
        lane.done(&work, 2, false);
        assert_eq!(updates(&mut lane), "remove 1, mark 0");
    }

    #[test]
    fn c10_c29_a_tranche_that_leaves_stops_its_retries_and_its_calls_end_without_consequence() {
        let mut stopped = lane(RULES, read([event(0)], false));
        let work = stopped.offer(Timestamp::ZERO).unwrap();
        assert!(stopped.stop(&tranche()).is_empty() && stopped.concerns(&tranche()));
        stopped.give_back(work.id, false);
        assert!(stopped.offer(Timestamp::ZERO).is_none(), "nothing of it is offered again");
        let mut lost = lane(RULES, read([event(0)], false));
        let work = lost.offer(Timestamp::ZERO).unwrap();
        lost.forget(&tranche());
        assert!(lost.tranche_of(work.id).is_none() && lost.still_runs(&tranche()));
        assert!(lost.done(&work, 1, false).is_none());
        assert_eq!((updates(&mut lost).as_str(), lost.still_runs(&tranche())), ("", false));
    }

    #[test]
    fn discarded_events_are_removed_without_being_offered() {
        let mut lane = ParkedLane::new(RULES);
        lane.admit(&tranche(), DueStream { stream: "a-1".into(), mark: mark() });
        lane.take_reads(|_, _| false);
        let events = [(event(0), true), (event(1), false)];
        let events = events.into_iter().map(|(event, discarded)| QueuedEvent { event, discarded }).collect();
        let discarded = lane.page_read(&tranche(), "a-1", QueueRead { events, more: false });
        assert_eq!(shown(&discarded), "a-1/e0@0.0");
        assert_eq!(updates(&mut lane), "remove 1");
        lane.updated(&tranche(), "a-1");
        assert_eq!(lane.offer(Timestamp::ZERO).unwrap().first(), 1);
    }
}
