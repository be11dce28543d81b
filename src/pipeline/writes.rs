//! Decisions on their way to the sink: queued, in flight, or waiting for a retry.
//!
//! A failed write is retried as it was decided: the same effects, without a call of the handler (C28). Its stream has no other
//! call meanwhile. A decision that waits for its retry takes no part in the concurrency, so that failing streams do not
//! hold up the others.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use crate::clock::Timestamp;
use crate::position::TrancheId;
use crate::sink::Decided;
use crate::work::WorkId;

/// The number of decisions per write, and of writes that may overlap.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteLimits {
    pub(super) max_batch: usize,
    pub(super) window: usize,
}

/// The decisions of a pipeline that the sink has not accepted yet.
#[derive(Debug)]
pub(super) struct Writes {
    limits: WriteLimits,
    queue: VecDeque<Decided>,
    /// Failed writes by the time of their retry, and a running number.
    retries: BTreeMap<(Timestamp, u64), (TrancheId, Decided)>,
    number: u64,
    /// Decisions without room in the stored set, and the time of their next attempt.
    aside: Vec<(TrancheId, Decided)>,
    aside_until: Timestamp,
    /// Failed attempts at each decision that has failed.
    failures: HashMap<WorkId, u32>,
    /// Retries that wait, by tranche.
    waiting: HashMap<TrancheId, usize>,
    /// Decisions, and writes, in flight.
    in_flight: usize,
    writes: usize,
    /// The number of writes that carry one decision each, to find the one that spoils a transaction.
    singly: usize,
    /// No write begins before: the sink had no room for any decision.
    held_until: Option<Timestamp>,
}

impl Writes {
    pub(super) fn new(limits: WriteLimits) -> Self {
        Self {
            limits,
            queue: VecDeque::new(),
            retries: BTreeMap::new(),
            number: 0,
            aside: Vec::new(),
            aside_until: Timestamp::ZERO,
            failures: HashMap::new(),
            waiting: HashMap::new(),
            in_flight: 0,
            writes: 0,
            singly: 0,
            held_until: None,
        }
    }

    pub(super) fn max_batch(&self) -> usize {
        self.limits.max_batch
    }

    /// Returns the number of decisions that are queued or in flight.
    pub(super) fn active(&self) -> usize {
        self.queue.len() + self.in_flight
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns whether no decision is queued, in flight or waiting.
    pub(super) fn is_idle(&self) -> bool {
        self.active() == 0 && self.retries() == 0
    }

    /// Returns the number of decisions that wait for a retry or for room.
    pub(super) fn retries(&self) -> usize {
        self.retries.len() + self.aside.len()
    }

    /// Returns the number of retries of a tranche that wait.
    pub(super) fn waiting(&self, tranche: &TrancheId) -> usize {
        self.waiting.get(tranche).copied().unwrap_or(0)
    }

    pub(super) fn push(&mut self, decided: Decided) {
        self.queue.push_back(decided);
    }

    /// Puts decisions back before all others, unchanged. That is no failure.
    pub(super) fn put_back(&mut self, decided: Vec<Decided>) {
        decided.into_iter().rev().for_each(|decided| self.queue.push_front(decided));
    }

    /// Lets each of the next decisions have a write of its own.
    pub(super) fn write_singly(&mut self, decisions: usize) {
        self.singly = decisions;
    }

    /// Begins no write before this time.
    pub(super) fn hold(&mut self, until: Timestamp) {
        self.held_until = Some(until);
    }

    /// Returns the failed attempts at a decision.
    pub(super) fn failures(&self, work: WorkId) -> u32 {
        self.failures.get(&work).copied().unwrap_or(0)
    }

    /// Counts a failed attempt at a decision.
    pub(super) fn count_failure(&mut self, work: WorkId) {
        *self.failures.entry(work).or_default() += 1;
    }

    /// Forgets the attempts at a decision that is done with.
    pub(super) fn done(&mut self, work: WorkId) {
        if !self.failures.is_empty() {
            self.failures.remove(&work);
        }
    }

    /// Retries a decision at a later time.
    pub(super) fn retry(&mut self, decided: Decided, tranche: TrancheId, at: Timestamp) {
        self.number += 1;
        *self.waiting.entry(tranche.clone()).or_default() += 1;
        self.retries.insert((at, self.number), (tranche, decided));
    }

    /// Sets a decision aside that has no room in the stored set (C14). It takes no slot meanwhile.
    pub(super) fn set_aside(&mut self, decided: Decided, tranche: TrancheId, until: Timestamp) {
        *self.waiting.entry(tranche.clone()).or_default() += 1;
        self.aside.push((tranche, decided));
        self.aside_until = until;
    }

    /// Queues the decisions that were set aside: the stored set has changed.
    pub(super) fn wake_set_aside(&mut self) {
        for (tranche, decided) in std::mem::take(&mut self.aside) {
            self.requeue(&tranche, decided);
        }
    }

    /// Moves the retries that are due into the queue, at most `most` of them, and the decisions that were set aside for
    /// long enough.
    pub(super) fn wake(&mut self, most: usize, now: Timestamp) {
        if self.aside_until <= now {
            self.wake_set_aside();
        }
        for _ in 0..most {
            let Some(first) = self.retries.first_entry().filter(|first| first.key().0 <= now) else { break };
            let (tranche, decided) = first.remove();
            self.requeue(&tranche, decided);
        }
    }

    fn requeue(&mut self, tranche: &TrancheId, decided: Decided) {
        self.unwait(tranche);
        self.queue.push_back(decided);
    }

    fn unwait(&mut self, tranche: &TrancheId) {
        if let Some(count) = self.waiting.get_mut(tranche) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(tranche);
            }
        }
    }

    /// Returns the decisions of the next write, at most `most`, if one may begin. They are in flight from then on.
    pub(super) fn take_batch(&mut self, most: usize, now: Timestamp) -> Option<Vec<Decided>> {
        if self.queue.is_empty()
            || self.writes >= self.limits.window
            || self.held_until.is_some_and(|until| now < until)
        {
            return None;
        }
        let most = if self.singly > 0 { 1 } else { most.min(self.limits.max_batch) };
        if most == 0 {
            return None;
        }
        self.singly = self.singly.saturating_sub(1);
        let batch: Vec<_> = self.queue.drain(..most.min(self.queue.len())).collect();
        self.began(batch.len());
        Some(batch)
    }

    /// Notes the begin of a write, which may carry no decision.
    pub(super) fn began(&mut self, decisions: usize) {
        self.writes += 1;
        self.in_flight += decisions;
    }

    /// Notes the answer to a write about that many decisions.
    pub(super) fn answered(&mut self, decisions: usize) {
        self.in_flight -= decisions;
    }

    /// Notes the end of a write.
    pub(super) fn ended(&mut self) {
        self.writes -= 1;
    }

    /// Takes out the decisions of tranches that are not owned any more (C10).
    pub(super) fn take_unowned(&mut self, is_owned: impl Fn(WorkId) -> bool) -> Vec<Decided> {
        let mut gone = Vec::new();
        if self.queue.iter().any(|decided| !is_owned(decided.work.id)) {
            let (kept, unowned): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.queue).into_iter().partition(|decided| is_owned(decided.work.id));
            self.queue = kept.into();
            gone = unowned;
        }
        let aside = std::mem::take(&mut self.aside);
        let (kept, unowned): (Vec<_>, Vec<_>) = aside.into_iter().partition(|(_, decided)| is_owned(decided.work.id));
        self.aside = kept;
        for (tranche, decided) in unowned {
            self.unwait(&tranche);
            gone.push(decided);
        }
        let waiting: Vec<_> =
            self.retries.iter().filter(|(_, (_, decided))| !is_owned(decided.work.id)).map(|(at, _)| *at).collect();
        for at in waiting {
            if let Some((tranche, decided)) = self.retries.remove(&at) {
                self.unwait(&tranche);
                gone.push(decided);
            }
        }
        gone
    }

    /// Takes out every decision that is not in flight.
    pub(super) fn take_all(&mut self) -> Vec<Decided> {
        let queued = std::mem::take(&mut self.queue);
        queued.into_iter().chain(self.take_retries()).collect()
    }

    /// Takes out the decisions that wait for a retry or for room.
    pub(super) fn take_retries(&mut self) -> Vec<Decided> {
        self.waiting.clear();
        let retries = std::mem::take(&mut self.retries).into_values();
        retries.chain(std::mem::take(&mut self.aside)).map(|(_, decided)| decided).collect()
    }

    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        let retry = self.retries.first_key_value().map(|((at, _), _)| *at);
        let aside = (!self.aside.is_empty()).then_some(self.aside_until);
        [retry, aside, self.held_until].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Assembler, Kind};
    use crate::position::Ordinal;
    use crate::sink::Effects;
    use crate::work::{Work, WorkKind};

    fn decided(number: u32) -> Decided {
        let event = Assembler::new(&format!("a-{number}"), "T").build(Kind::Event, Ordinal::default(), 0).unwrap();
        let id = WorkId { slot: number, generation: 0 };
        let work = Work {
            id,
            kind: WorkKind::Handle,
            events: vec![event],
            next: 1,
            failures: 0,
            read_at: Timestamp::ZERO,
            late: false,
            trace: None,
        };
        Decided { work, next: 1, effects: Effects::Emitted(Vec::new().into()), accepted: 0 }
    }

    fn writes(max_batch: usize, window: usize) -> Writes {
        let mut writes = Writes::new(WriteLimits { max_batch, window });
        (0..5).for_each(|number| writes.push(decided(number)));
        writes
    }

    fn take(writes: &mut Writes, now: u64) -> Option<Vec<u32>> {
        let batch = writes.take_batch(usize::MAX, Timestamp::from_millis(now))?;
        Some(batch.iter().map(|decided| decided.work.id.slot).collect())
    }

    #[test]
    fn writes_overlap_up_to_the_window_of_the_sink() {
        let mut writes = writes(2, 2);
        assert_eq!(take(&mut writes, 0), Some(vec![0, 1]));
        assert_eq!(take(&mut writes, 0), Some(vec![2, 3]));
        assert_eq!(take(&mut writes, 0), None, "two writes are in flight");
        writes.answered(2);
        writes.ended();
        assert_eq!(take(&mut writes, 0), Some(vec![4]));
        assert_eq!((writes.active(), writes.queued()), (3, 0));
    }

    #[test]
    fn c28_a_failed_write_is_retried_as_decided_and_takes_no_slot_meanwhile() {
        let mut writes = writes(1, 9);
        let Some(mut batch) = writes.take_batch(usize::MAX, Timestamp::ZERO) else { panic!("there are decisions") };
        writes.answered(1);
        writes.ended();
        let mut failed = batch.pop().unwrap();
        failed.accepted = 2;
        let tranche = TrancheId::new("0");
        writes.count_failure(failed.work.id);
        writes.retry(failed, tranche.clone(), Timestamp::from_millis(10));
        assert_eq!((writes.active(), writes.waiting(&tranche)), (4, 1));
        assert_eq!(writes.next_wake(), Some(Timestamp::from_millis(10)));
        writes.wake(usize::MAX, Timestamp::from_millis(9));
        assert_eq!(writes.queued(), 4, "it is not due yet");
        writes.wake(usize::MAX, Timestamp::from_millis(10));
        assert_eq!((writes.queued(), writes.waiting(&tranche)), (5, 0));
        for _ in 0..4 {
            take(&mut writes, 10);
        }
        let retried = writes.take_batch(usize::MAX, Timestamp::from_millis(10)).unwrap().pop().unwrap();
        assert_eq!((retried.work.id.slot, retried.accepted, writes.failures(retried.work.id)), (0, 2, 1));
        writes.done(retried.work.id);
        assert_eq!(writes.failures(retried.work.id), 0);
    }

    #[test]
    fn a_probe_wakes_the_oldest_retry_alone() {
        let mut writes = writes(9, 1);
        writes.take_batch(usize::MAX, Timestamp::ZERO);
        writes.retry(decided(7), TrancheId::new("0"), Timestamp::from_millis(2));
        writes.retry(decided(8), TrancheId::new("0"), Timestamp::from_millis(1));
        writes.wake(1, Timestamp::from_millis(2));
        assert_eq!((writes.queued(), writes.retries()), (1, 1));
        writes.answered(5);
        writes.ended();
        assert_eq!(take(&mut writes, 2), Some(vec![8]));
    }

    #[test]
    fn a_spoilt_transaction_is_repeated_with_one_decision_each() {
        let mut writes = writes(1_000, 1);
        let batch = writes.take_batch(usize::MAX, Timestamp::ZERO).unwrap();
        writes.answered(5);
        writes.ended();
        writes.write_singly(batch.len());
        writes.put_back(batch);
        for number in 0..5 {
            assert_eq!(take(&mut writes, 0), Some(vec![number]));
            writes.answered(1);
            writes.ended();
        }
        writes.push(decided(5));
        writes.push(decided(6));
        assert_eq!(take(&mut writes, 0), Some(vec![5, 6]));
    }

    #[test]
    fn c10_decisions_of_a_tranche_that_is_not_owned_are_taken_out_wherever_they_wait() {
        let mut writes = writes(2, 1);
        writes.retry(decided(7), TrancheId::new("0"), Timestamp::from_millis(1));
        writes.retry(decided(8), TrancheId::new("1"), Timestamp::from_millis(1));
        let gone = writes.take_unowned(|work| ![1, 7].contains(&work.slot));
        let mut gone: Vec<_> = gone.iter().map(|decided| decided.work.id.slot).collect();
        gone.sort_unstable();
        assert_eq!(gone, [1, 7]);
        assert_eq!((writes.queued(), writes.retries()), (4, 1));
        assert_eq!(writes.waiting(&TrancheId::new("0")), 0);
    }

    #[test]
    fn c14_a_decision_without_room_takes_no_slot_until_the_stored_set_changes() {
        let mut writes = writes(9, 1);
        let tranche = TrancheId::new("0");
        for unfit in writes.take_batch(2, Timestamp::ZERO).unwrap() {
            writes.answered(1);
            writes.set_aside(unfit, tranche.clone(), Timestamp::from_millis(5));
        }
        writes.ended();
        assert_eq!((writes.active(), writes.retries(), writes.waiting(&tranche)), (3, 2, 2));
        writes.wake(usize::MAX, Timestamp::from_millis(4));
        assert_eq!(writes.queued(), 3);
        writes.wake_set_aside();
        assert_eq!((writes.queued(), writes.waiting(&tranche)), (5, 0));
    }

    #[test]
    fn a_sink_without_room_is_asked_again_after_a_pause() {
        let mut writes = writes(9, 1);
        writes.hold(Timestamp::from_millis(5));
        assert_eq!(take(&mut writes, 4), None);
        assert!(take(&mut writes, 5).is_some());
    }
}
