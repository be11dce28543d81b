//! The queue of work on its way into the parked store, the marks of the parked streams, and the room in the store.

use std::collections::HashSet;
use std::sync::Arc;

use hashbrown::HashMap;

use super::messages::{MarkedWork, ToPark};
use super::tranches::Tranches;
use crate::checkpoint::{ParkedMark, ParkedState, ParkedStream, parked_bytes};
use crate::event::Event;
use crate::position::TrancheId;
use crate::scheduler::Scheduler;
use crate::work::Work;

/// The work of parked streams that is not stored yet, and the marks of the parked streams.
#[derive(Debug, Default)]
pub(super) struct ParkQueue {
    queue: Vec<Work>,
    /// Pieces of work that are being appended, and the names of their streams.
    appending: usize,
    names: HashSet<Box<str>>,
    /// The mark of each stream that this process parked, by tranche.
    marks: HashMap<TrancheId, HashMap<Box<str>, Arc<ParkedMark>>>,
    /// The stored events and bytes, by tranche.
    stored: HashMap<TrancheId, (u64, u64)>,
    /// The streams that a handler deferred, by tranche. They are no trouble.
    deferred: HashMap<TrancheId, HashSet<Box<str>>>,
}

impl ParkQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn appending(&self) -> usize {
        self.appending
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.appending == 0
    }

    pub(super) fn push(&mut self, work: Work) {
        self.queue.push(work);
    }

    /// Notes the mark under which a stream is parked. Its later events repeat it.
    pub(super) fn parked(&mut self, tranche: TrancheId, stream: &str, mark: ParkedMark) {
        self.marked(&tranche, stream, mark.state);
        self.marks.entry(tranche).or_default().insert(stream.into(), Arc::new(mark));
    }

    /// Notes the state of a parked stream.
    pub(super) fn marked(&mut self, tranche: &TrancheId, stream: &str, state: ParkedState) {
        match state {
            ParkedState::Deferred => _ = self.deferred.entry(tranche.clone()).or_default().insert(stream.into()),
            ParkedState::Failed => self.not_deferred(tranche, stream),
        }
    }

    fn not_deferred(&mut self, tranche: &TrancheId, stream: &str) {
        if let Some(streams) = self.deferred.get_mut(tranche) {
            streams.remove(stream);
        }
    }

    pub(super) fn is_deferred(&self, tranche: &TrancheId, stream: &str) -> bool {
        self.deferred.get(tranche).is_some_and(|streams| streams.contains(stream))
    }

    /// Returns the number of streams that a handler deferred.
    pub(super) fn deferred(&self) -> usize {
        self.deferred.values().map(HashSet::len).sum()
    }

    /// Notes the streams that are parked when a tranche is opened.
    pub(super) fn opened(&mut self, tranche: &TrancheId, streams: &[ParkedStream]) {
        for stream in streams {
            self.marked(tranche, &stream.stream, stream.mark.state);
        }
        if !streams.is_empty() {
            self.marks.entry(tranche.clone()).or_default();
        }
        let sum = |of: fn(&ParkedStream) -> u64| streams.iter().map(of).sum();
        self.stored.insert(tranche.clone(), (sum(|stream| stream.events), sum(|stream| stream.bytes)));
    }

    /// Returns whether any tranche may have parked streams.
    pub(super) fn have_parked(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Returns whether a tranche may have parked streams.
    pub(super) fn may_have_parked(&self, tranche: &TrancheId) -> bool {
        self.marks.contains_key(tranche)
    }

    /// Forgets the marks of a tranche that is gone.
    pub(super) fn forget(&mut self, tranche: &TrancheId) {
        self.marks.remove(tranche);
        self.stored.remove(tranche);
        self.deferred.remove(tranche);
    }

    /// Forgets the mark of a stream that is parked no more.
    pub(super) fn unparked(&mut self, tranche: &TrancheId, stream: &str) {
        if let Some(marks) = self.marks.get_mut(tranche) {
            marks.remove(stream);
        }
        self.not_deferred(tranche, stream);
    }

    /// Notes events that the store has got.
    pub(super) fn stored<'a>(&mut self, tranche: &TrancheId, events: impl Iterator<Item = &'a Event>) {
        let of = self.stored.entry(tranche.clone()).or_default();
        for event in events {
            *of = (of.0 + 1, of.1 + parked_bytes(event) as u64);
        }
    }

    /// Notes events that were removed from the store.
    pub(super) fn removed(&mut self, tranche: &TrancheId, events: &[Event]) {
        if let Some(of) = self.stored.get_mut(tranche) {
            let bytes: u64 = events.iter().map(|event| parked_bytes(event) as u64).sum();
            *of = (of.0.saturating_sub(events.len() as u64), of.1.saturating_sub(bytes));
        }
    }

    /// Returns the number of stored events and bytes, over all tranches that are held.
    pub(super) fn size(&self) -> (u64, u64) {
        self.stored.values().fold((0, 0), |(events, bytes), of| (events + of.0, bytes + of.1))
    }

    /// Returns whether events of a stream are on their way into the store.
    pub(super) fn is_appending(&self, stream: &str) -> bool {
        self.names.contains(stream) || self.queue.iter().any(|work| work.stream() == stream)
    }

    /// Takes the queued work. It is on its way into the store until [`ended`](Self::ended).
    pub(super) fn take(&mut self) -> Vec<Work> {
        let work = std::mem::take(&mut self.queue);
        self.names.extend(work.iter().map(|work| work.stream().into()));
        work
    }

    /// Notes the begin of an append.
    pub(super) fn began(&mut self, parks: &[ToPark]) {
        self.appending = parks.iter().map(|group| group.work.len()).sum();
    }

    pub(super) fn ended(&mut self) {
        self.appending = 0;
        self.names.clear();
    }

    /// Groups work to be parked by checkpoint key. Returns the work of revoked tranches apart. `late` is the mark of streams
    /// that an earlier run parked; the store keeps the mark that it has.
    pub(super) fn mark(
        &self,
        work: Vec<Work>,
        scheduler: &Scheduler,
        tranches: &Tranches,
        late: &Arc<ParkedMark>,
    ) -> (Vec<ToPark>, Vec<Work>) {
        let mut groups: Vec<ToPark> = Vec::new();
        let mut unowned = Vec::new();
        for work in work {
            let claim = scheduler.tranche_of(work.id).and_then(|tranche| {
                let state = tranches.get(&tranche)?;
                Some((state.key.clone(), state.claim.fence?))
            });
            let Some((key, fence)) = claim else {
                unowned.push(work);
                continue;
            };
            let own = work.events.iter().map(Event::at).min().unwrap_or_default();
            let from = scheduler.parked_from(&work).unwrap_or(own);
            let mark = self.marks.get(&key.tranche).and_then(|marks| marks.get(work.stream()));
            let marked = MarkedWork { from, mark: Arc::clone(mark.unwrap_or(late)), work };
            match groups.iter_mut().find(|group| group.key == key) {
                Some(group) => group.work.push(marked),
                None => groups.push(ToPark { key, fence, work: vec![marked] }),
            }
        }
        (groups, unowned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{CheckpointKey, Claimed, Fence};
    use crate::clock::Timestamp;
    use crate::event::{Assembler, Indexes, Kind};
    use crate::position::{Ordinal, Position};
    use crate::scheduler::{self, IngestBatch, Order, Outcome};
    use crate::work::WorkKind;

    fn scheduler() -> Scheduler {
        Scheduler::new(scheduler::Options {
            order: Order::Stream,
            indexes: Indexes::Dense,
            require_all: false,
            streams_per_call: 1,
            max_events: 10,
            max_bytes: usize::MAX,
            hash_seed: 0,
        })
    }

    /// Opens a tranche under a claim, with the events of one stream: ordinals and indexes.
    fn open(scheduler: &mut Scheduler, tranches: &mut Tranches, tranche: &str, fence: u64, events: &[(u64, i64)]) {
        let id = TrancheId::new(tranche);
        let key = CheckpointKey { group: "g".into(), source: "s".into(), tranche: id.clone() };
        tranches.added(key, None, 1, Timestamp::ZERO);
        tranches.take_due_claims(Timestamp::ZERO, |_| false);
        tranches.claim_returned(&id, 1);
        tranches.claimed(&id, &Claimed { fence: Fence(fence), progress: None, sequence: 0 }, Timestamp::ZERO);
        scheduler.open(&id, None);
        let event = |&(at, index): &(u64, i64)| {
            Assembler::new(&format!("{tranche}-1"), "T").build(Kind::Event, Ordinal::new(at, 0), index).unwrap()
        };
        let events = events.iter().map(event).collect();
        let resume_at = Position::Number(100);
        scheduler
            .ingest(IngestBatch { tranche: id, events, resume_at, write_positions: Vec::new() }, Timestamp::ZERO)
            .unwrap();
    }

    /// Parks the next stream, and takes its work for the parked store.
    fn park(scheduler: &mut Scheduler) -> Vec<Work> {
        let work = scheduler.take_call(Timestamp::ZERO).unwrap().pop().unwrap();
        scheduler.finish(work, Outcome::Park, Timestamp::ZERO);
        let parked = scheduler.take_call(Timestamp::ZERO).unwrap();
        assert!(parked.iter().all(|work| work.kind == WorkKind::Park));
        parked.into_iter().collect()
    }

    fn mark(why: &str) -> ParkedMark {
        ParkedMark {
            state: ParkedState::Failed,
            class: "permanent".into(),
            why: why.into(),
            index: 0,
            event_type: "T".into(),
            since: time::OffsetDateTime::UNIX_EPOCH,
            attempts: 1,
            version: "v1".into(),
            due: None,
            job: None,
        }
    }

    fn earlier() -> Arc<ParkedMark> {
        Arc::new(mark("its stream was parked earlier"))
    }

    fn shown(parks: &[ToPark]) -> Vec<String> {
        let group = |park: &ToPark| {
            let events = park
                .events()
                .into_iter()
                .map(|parked| format!("{:?} from {} {}", parked.event, parked.from, parked.mark.why));
            format!("{} {:?}: {}", park.key.tranche, park.fence, events.collect::<Vec<_>>().join(", "))
        };
        parks.iter().map(group).collect()
    }

    #[test]
    fn c21_work_is_parked_by_claim_from_the_smallest_unhandled_ordinal_of_its_stream() {
        let (mut scheduler, mut tranches, mut queue) = (scheduler(), Tranches::default(), ParkQueue::default());
        // The first event of `b-1` arrived after the second one.
        open(&mut scheduler, &mut tranches, "a", 3, &[(1, 0)]);
        let first = park(&mut scheduler);
        open(&mut scheduler, &mut tranches, "b", 4, &[(7, 1), (8, 0)]);
        let second = park(&mut scheduler);
        queue.parked(TrancheId::new("a"), "a-1", mark("no such customer"));
        first.into_iter().chain(second).for_each(|work| queue.push(work));
        assert!(!queue.is_empty() && !queue.is_idle());
        let work = queue.take();
        let (parks, unowned) = queue.mark(work, &scheduler, &tranches, &earlier());
        assert!(unowned.is_empty());
        let expected = [
            "a Fence(3): a-1/e0@1.0 from 1.0 no such customer",
            "b Fence(4): b-1/e0@8.0 from 7.0 its stream was parked earlier, b-1/e1@7.0 from 7.0 its stream was parked earlier",
        ];
        assert_eq!(shown(&parks), expected);
        queue.began(&parks);
        assert_eq!((queue.appending(), queue.is_idle()), (2, false));
        queue.ended();
        assert!(queue.is_idle());
    }

    #[test]
    fn c10_work_of_a_revoked_or_fenced_tranche_is_not_parked() {
        let (mut scheduler, mut tranches, queue) = (scheduler(), Tranches::default(), ParkQueue::default());
        open(&mut scheduler, &mut tranches, "a", 3, &[(1, 0)]);
        let revoked = park(&mut scheduler);
        scheduler.revoke(&TrancheId::new("a"));
        open(&mut scheduler, &mut tranches, "b", 4, &[(1, 0)]);
        let fenced = park(&mut scheduler);
        tranches.fenced_by(&TrancheId::new("b"), "thief".to_owned());
        let (parks, unowned) =
            queue.mark(revoked.into_iter().chain(fenced).collect(), &scheduler, &tranches, &earlier());
        assert_eq!((parks.len(), unowned.len()), (0, 2));
    }

    #[test]
    fn c7_the_reasons_of_a_tranche_that_left_are_forgotten() {
        let (mut scheduler, mut tranches, mut queue) = (scheduler(), Tranches::default(), ParkQueue::default());
        queue.parked(TrancheId::new("a"), "a-1", mark("no such customer"));
        queue.forget(&TrancheId::new("a"));
        open(&mut scheduler, &mut tranches, "a", 3, &[(1, 0)]);
        let work = park(&mut scheduler);
        let (parks, _) = queue.mark(work, &scheduler, &tranches, &earlier());
        assert_eq!(shown(&parks), ["a Fence(3): a-1/e0@1.0 from 1.0 its stream was parked earlier"]);
    }
}
