//! The queue of work on its way into the parked store.

use std::sync::Arc;

use hashbrown::HashMap;

use super::messages::{MarkedWork, ToPark};
use super::tranches::Tranches;
use crate::event::Event;
use crate::position::TrancheId;
use crate::scheduler::Scheduler;
use crate::work::Work;

/// The work of parked streams that is not stored yet, and the reasons of the parked streams.
#[derive(Debug, Default)]
pub(super) struct ParkQueue {
    queue: Vec<Work>,
    /// Pieces of work that are being appended.
    appending: usize,
    /// The reason of each stream that this process parked, by tranche.
    reasons: HashMap<TrancheId, HashMap<Box<str>, Arc<str>>>,
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

    /// Notes the reason for which a stream is parked. Its later events repeat it.
    pub(super) fn parked(&mut self, tranche: TrancheId, stream: &str, why: &str) {
        self.reasons.entry(tranche).or_default().insert(stream.into(), why.into());
    }

    /// Forgets the reasons of a tranche that is gone.
    pub(super) fn forget(&mut self, tranche: &TrancheId) {
        self.reasons.remove(tranche);
    }

    pub(super) fn take(&mut self) -> Vec<Work> {
        std::mem::take(&mut self.queue)
    }

    /// Notes the begin of an append.
    pub(super) fn began(&mut self, parks: &[ToPark]) {
        self.appending = parks.iter().map(|group| group.work.len()).sum();
    }

    pub(super) fn ended(&mut self) {
        self.appending = 0;
    }

    /// Groups work to be parked by checkpoint key. Returns the work of revoked tranches apart.
    pub(super) fn mark(&self, work: Vec<Work>, scheduler: &Scheduler, tranches: &Tranches) -> (Vec<ToPark>, Vec<Work>) {
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
            let reason = self.reasons.get(&key.tranche).and_then(|reasons| reasons.get(work.stream())).cloned();
            let why = reason.unwrap_or_else(|| "its stream was parked earlier".into());
            let marked = MarkedWork { work, from, why };
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

    fn shown(parks: &[ToPark]) -> Vec<String> {
        let group = |park: &ToPark| {
            let events = park
                .events()
                .into_iter()
                .map(|parked| format!("{:?} from {} {}", parked.event, parked.from, parked.why));
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
        queue.parked(TrancheId::new("a"), "a-1", "no such customer");
        first.into_iter().chain(second).for_each(|work| queue.push(work));
        assert!(!queue.is_empty() && !queue.is_idle());
        let work = queue.take();
        let (parks, unowned) = queue.mark(work, &scheduler, &tranches);
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
        let (parks, unowned) = queue.mark(revoked.into_iter().chain(fenced).collect(), &scheduler, &tranches);
        assert_eq!((parks.len(), unowned.len()), (0, 2));
    }

    #[test]
    fn c7_the_reasons_of_a_tranche_that_left_are_forgotten() {
        let (mut scheduler, mut tranches, mut queue) = (scheduler(), Tranches::default(), ParkQueue::default());
        queue.parked(TrancheId::new("a"), "a-1", "no such customer");
        queue.forget(&TrancheId::new("a"));
        open(&mut scheduler, &mut tranches, "a", 3, &[(1, 0)]);
        let work = park(&mut scheduler);
        let (parks, _) = queue.mark(work, &scheduler, &tranches);
        assert_eq!(shown(&parks), ["a Fence(3): a-1/e0@1.0 from 1.0 its stream was parked earlier"]);
    }
}
