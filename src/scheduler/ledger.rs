//! How far each tranche is handled: its batches in read order, and the progress that follows from them.

use std::collections::{HashMap, VecDeque};

use crate::clock::Timestamp;
use crate::position::{Ordinal, OrdinalSet, Position, Progress, TrancheId};

use super::batch::Batch;
use super::slab::NONE;

/// A tranche, held or not: what it is called stays, so that a stream of it is known again while a call of it runs.
#[derive(Debug)]
pub(super) struct Tranche {
    pub(super) id: TrancheId,
    /// The opening that holds it; `NONE` while it is not held.
    pub(super) epoch: u32,
    /// Nothing more of it is offered.
    pub(super) leaving: bool,
    /// What is queued in read order, with `order = "tranche"`.
    pub(super) lane: u32,
    /// Parked streams, with `order = "tranche"`.
    pub(super) parked: HashMap<Box<[u8]>, Ordinal>,
    pub(super) position: Option<Position>,
    /// What was handled before it was opened, from the first run that may not have been read again.
    recovered: OrdinalSet,
    recovered_from: usize,
    /// The ordinal read last.
    last: Option<Ordinal>,
    /// Batches that are not complete, or behind one that is not.
    pub(super) queue: VecDeque<u32>,
    begun: u64,
    /// The tranche is in [`Ledger::changed`].
    changed: bool,
    pub(super) counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Batches with something that could be handled.
    pub(super) busy: usize,
    pub(super) bytes: u64,
    pub(super) ahead: u64,
    pub(super) unhandled: u64,
    /// Pieces of work that are out.
    pub(super) out: usize,
    /// Runs of handled ordinals in the queue.
    pub(super) runs: usize,
    pub(super) version: u64,
    pub(super) completed_batches: u64,
    pub(super) completed_events: u64,
}

impl Tranche {
    pub(super) fn is_held(&self) -> bool {
        self.epoch != NONE
    }

    /// Returns whether an ordinal was handled before the tranche was opened. They are asked for in read order.
    #[inline]
    pub(super) fn covers(&mut self, at: Ordinal) -> bool {
        let runs = self.recovered.runs();
        if self.recovered_from == runs.len() {
            return false;
        }
        while runs.get(self.recovered_from).is_some_and(|run| run.1 < at) {
            self.recovered_from += 1;
        }
        runs.get(self.recovered_from).is_some_and(|run| run.0 <= at)
    }

    /// Returns the recovered runs that were not read again yet, and whether the first of them was begun.
    pub(super) fn remaining(&self) -> (&[(Ordinal, Ordinal)], bool) {
        let runs = &self.recovered.runs()[self.recovered_from..];
        match self.last {
            None => (runs, false),
            Some(last) => {
                let runs = &runs[usize::from(runs.first().is_some_and(|run| run.1 <= last))..];
                (runs, runs.first().is_some_and(|run| run.0 <= last))
            }
        }
    }

    pub(super) fn set_runs(&self) -> usize {
        let (remaining, begun) = self.remaining();
        self.counts.runs + remaining.len() - usize::from(begun && !self.queue.is_empty())
    }

    pub(super) fn batches(&self) -> &VecDeque<u32> {
        &self.queue
    }
}

/// One opening of a tranche.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) tranche: u32,
    pub(super) open: bool,
    /// Streams that belong to it.
    pub(super) streams: usize,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) tranches: Vec<Tranche>,
    ids: HashMap<TrancheId, u32>,
    pub(super) epochs: Vec<Epoch>,
    pub(super) batches: Vec<Batch>,
    unused: Vec<u32>,
    /// Batches that are done with; whoever refers to them forgets them before they are used again.
    retired: Vec<u32>,
    begun: u64,
    /// Tranches that changed since they were last asked for.
    changed: Vec<u32>,
}

impl Ledger {
    pub(super) fn find(&self, id: &TrancheId) -> Option<u32> {
        self.ids.get(id).copied()
    }

    /// Notes that a tranche changed.
    #[inline]
    pub(super) fn note_change(&mut self, tranche: u32) {
        let of = &mut self.tranches[tranche as usize];
        if !of.changed {
            of.changed = true;
            self.changed.push(tranche);
        }
    }

    /// Returns the held tranches that changed since the last call.
    pub(super) fn take_changed(&mut self) -> Vec<TrancheId> {
        let mut ids = Vec::with_capacity(self.changed.len());
        for tranche in std::mem::take(&mut self.changed) {
            let of = &mut self.tranches[tranche as usize];
            of.changed = false;
            if of.is_held() {
                ids.push(of.id.clone());
            }
        }
        ids
    }

    /// Finds a tranche that is held.
    pub(super) fn held(&self, id: &TrancheId) -> Option<u32> {
        self.find(id).filter(|&tranche| self.tranches[tranche as usize].is_held())
    }

    pub(super) fn open(&mut self, id: &TrancheId, progress: Option<Progress>) -> u32 {
        let tranche = self.find(id).unwrap_or_else(|| self.add(id));
        let epoch = u32::try_from(self.epochs.len()).expect("tranches are opened fewer than 2^32 times");
        self.epochs.push(Epoch { tranche, open: true, streams: 0 });
        let (position, recovered) =
            progress.map_or_else(Default::default, |progress| (progress.position, progress.handled));
        let opened = &mut self.tranches[tranche as usize];
        assert!(!opened.is_held(), "a tranche is opened once");
        (opened.epoch, opened.position, opened.last) = (epoch, position, None);
        opened.leaving = false;
        (opened.recovered, opened.recovered_from) = (recovered, 0);
        opened.counts = Counts::default();
        tranche
    }

    fn add(&mut self, id: &TrancheId) -> u32 {
        let tranche = u32::try_from(self.tranches.len()).expect("there are fewer than 2^32 tranches");
        self.ids.insert(id.clone(), tranche);
        self.tranches.push(Tranche {
            id: id.clone(),
            epoch: NONE,
            leaving: false,
            lane: NONE,
            parked: HashMap::new(),
            position: None,
            recovered: OrdinalSet::new(),
            recovered_from: 0,
            last: None,
            queue: VecDeque::new(),
            begun: 0,
            changed: false,
            counts: Counts::default(),
        });
        tranche
    }

    /// Lets a tranche go, with all of its batches.
    pub(super) fn close(&mut self, tranche: u32) {
        let closed = &mut self.tranches[tranche as usize];
        self.epochs[closed.epoch as usize].open = false;
        closed.epoch = NONE;
        closed.parked.clear();
        closed.recovered = OrdinalSet::new();
        closed.recovered_from = 0;
        self.retired.extend(closed.queue.drain(..));
    }

    pub(super) fn batch(&self, batch: u32) -> &Batch {
        &self.batches[batch as usize]
    }

    #[inline]
    pub(super) fn tranche_of(&self, batch: u32) -> u32 {
        self.batches[batch as usize].tranche
    }

    pub(super) fn tranche_mut(&mut self, tranche: u32) -> &mut Tranche {
        &mut self.tranches[tranche as usize]
    }

    /// Notes a read that brought nothing.
    pub(super) fn pass(&mut self, tranche: u32, resume_at: Position) {
        let passed = &mut self.tranches[tranche as usize];
        match passed.queue.back() {
            Some(&last) => {
                let last = &mut self.batches[last as usize];
                last.resume_at = resume_at;
                last.followers += 1;
            }
            None => {
                if passed.position.as_ref() != Some(&resume_at) {
                    passed.position = Some(resume_at);
                    passed.counts.version += 1;
                }
                passed.counts.completed_batches += 1;
            }
        }
    }

    /// Begins a batch; returns it with its age among all batches.
    pub(super) fn begin(&mut self, tranche: u32, events: usize, resume_at: Position, now: Timestamp) -> (u32, u64) {
        let events = u32::try_from(events).expect("a batch has fewer than 2^32 events");
        let of = &mut self.tranches[tranche as usize];
        let new = Batch::new(tranche, of.begun, now, resume_at, events);
        let batch = match self.unused.pop() {
            Some(unused) => {
                self.batches[unused as usize] = new;
                unused
            }
            None => {
                self.batches.push(new);
                u32::try_from(self.batches.len() - 1).expect("fewer than 2^32 batches are held")
            }
        };
        of.queue.push_back(batch);
        of.begun += 1;
        of.counts.busy += 1;
        of.counts.ahead += u64::from(events);
        of.counts.unhandled += u64::from(events);
        self.begun += 1;
        (batch, self.begun)
    }

    /// Returns what gives the events of a batch their places.
    pub(super) fn numbers(&mut self, tranche: u32, batch: u32) -> Numbers<'_> {
        Numbers { tranche: &mut self.tranches[tranche as usize], batch: &mut self.batches[batch as usize] }
    }

    /// Notes that `count` events with successive places are handled, `waiting` of which were counted as waiting.
    #[inline]
    pub(super) fn mark(&mut self, batch_id: u32, slot: u32, count: u32, waiting: u32) {
        self.note_change(self.batches[batch_id as usize].tranche);
        let batch = &mut self.batches[batch_id as usize];
        assert!(batch.outstanding >= count && batch.waiting >= waiting, "an event is handled once");
        let was_busy = batch.is_busy();
        batch.outstanding -= count;
        batch.waiting -= waiting;
        let is_busy = batch.is_busy();
        let counts = &mut self.tranches[batch.tranche as usize].counts;
        if was_busy != is_busy {
            counts.busy = if is_busy { counts.busy + 1 } else { counts.busy - 1 };
        }
        counts.unhandled -= u64::from(count);
        counts.completed_events += u64::from(count);
        counts.version += 1;
        if batch.shared.is_empty() {
            self.set(batch_id, slot, count);
        } else {
            for slot in slot..slot + count {
                if self.batches[batch_id as usize].settle_shared(slot) {
                    self.set(batch_id, slot, 1);
                }
            }
        }
    }

    /// Marks an event that was out by itself and held so many bytes. Returns whether its batch has nothing left.
    #[inline]
    pub(super) fn mark_lone(&mut self, tranche: u32, batch_id: u32, slot: u32, bytes: u64) -> bool {
        let batch = &mut self.batches[batch_id as usize];
        let counts = &mut self.tranches[tranche as usize].counts;
        counts.out -= 1;
        counts.bytes = counts.bytes.saturating_sub(bytes);
        let near = batch.neighbours(slot);
        let Some(near) = near.filter(|_| batch.outstanding > 1 && batch.waiting == 0 && batch.shared.is_empty()) else {
            self.mark(batch_id, slot, 1, 0);
            return self.batches[batch_id as usize].outstanding == 0;
        };
        batch.outstanding -= 1;
        batch.set_one(slot);
        counts.runs = counts.runs + 1 - near;
        counts.unhandled -= 1;
        counts.completed_events += 1;
        counts.version += 1;
        false
    }

    /// Sets bits, and counts the runs that this makes, joins or lengthens.
    #[inline]
    fn set(&mut self, batch_id: u32, slot: u32, count: u32) {
        let batch = &mut self.batches[batch_id as usize];
        batch.set(slot, count);
        batch.raise_low();
        let (batch, end) = (&self.batches[batch_id as usize], slot + count);
        let left = if slot > 0 { batch.is_handled(slot - 1) } else { self.ends_handled(batch.tranche, batch.nth, -1) };
        let right = if end < batch.ordinals.len() {
            batch.is_handled(end)
        } else {
            self.ends_handled(batch.tranche, batch.nth, 1)
        };
        let counts = &mut self.tranches[batch.tranche as usize].counts;
        counts.runs = counts.runs + 1 - usize::from(left) - usize::from(right);
    }

    /// Returns whether the neighbour of a batch has its nearest ordinal handled.
    fn ends_handled(&self, tranche: u32, nth: u64, towards: i64) -> bool {
        let tranche = &self.tranches[tranche as usize];
        let front = tranche.begun - tranche.queue.len() as u64;
        let neighbour = (nth - front).checked_add_signed(towards).and_then(|at| tranche.queue.get(at as usize));
        neighbour.is_some_and(|&batch| {
            let batch = &self.batches[batch as usize];
            let len = batch.ordinals.len();
            len > 0 && batch.is_handled(if towards < 0 { len - 1 } else { 0 })
        })
    }

    /// Completes what is complete, in read order. Batches that are done with are then [`retired`](Self::retire).
    #[inline]
    pub(super) fn complete(&mut self, tranche: u32) {
        let front = self.tranches[tranche as usize].queue.front();
        if front.is_some_and(|&front| self.batches[front as usize].outstanding == 0) {
            self.complete_front(tranche);
        }
    }

    fn complete_front(&mut self, tranche: u32) {
        let of = &mut self.tranches[tranche as usize];
        while let Some(&front) = of.queue.front() {
            let batch = &mut self.batches[front as usize];
            if batch.outstanding > 0 {
                break;
            }
            of.queue.pop_front();
            let goes_on = of.queue.front().is_some_and(|&next| {
                let next = &self.batches[next as usize];
                next.ordinals.len() > 0 && next.is_handled(0)
            });
            let batch = &mut self.batches[front as usize];
            of.counts.runs -= usize::from(!goes_on);
            of.counts.ahead -= u64::from(batch.events);
            of.counts.completed_batches += 1 + u64::from(batch.followers);
            of.counts.version += 1;
            of.position = Some(std::mem::replace(&mut batch.resume_at, Position::Number(0)));
            self.retired.push(front);
        }
    }

    /// Returns a batch that is done with, once; the place may be used again.
    #[inline]
    pub(super) fn retire(&mut self) -> Option<u32> {
        let batch = self.retired.pop()?;
        self.unused.push(batch);
        Some(batch)
    }

    /// Counts events as waiting, or no longer so.
    pub(super) fn wait(&mut self, batch: u32, more: bool) {
        let batch = &mut self.batches[batch as usize];
        let was_busy = batch.is_busy();
        if more {
            batch.waiting += 1;
        } else {
            batch.waiting -= 1;
        }
        assert!(batch.waiting <= batch.outstanding, "what waits is not handled");
        let counts = &mut self.tranches[batch.tranche as usize].counts;
        counts.busy -= usize::from(was_busy && !batch.is_busy());
        counts.busy += usize::from(!was_busy && batch.is_busy());
    }

    #[inline]
    pub(super) fn drop_bytes(&mut self, batch: u32, bytes: u64) {
        self.drop_tranche_bytes(self.batches[batch as usize].tranche, bytes);
    }

    #[inline]
    pub(super) fn drop_tranche_bytes(&mut self, tranche: u32, bytes: u64) {
        let held = &mut self.tranches[tranche as usize].counts.bytes;
        *held = held.saturating_sub(bytes);
    }

    /// Returns the first ordinal that holds a tranche back: its batch and place.
    pub(super) fn blocked_at(&self, tranche: u32) -> Option<(u32, u32)> {
        let &front = self.tranches[tranche as usize].queue.front()?;
        Some((front, self.batches[front as usize].first_unhandled()?))
    }
}

/// Gives the events of a batch that is read their places.
pub(super) struct Numbers<'a> {
    pub(super) tranche: &'a mut Tranche,
    batch: &'a mut Batch,
}

impl Numbers<'_> {
    /// Gives an event its place, or returns the ordinal read last if that does not ascend. Unfolds may share the ordinal of what
    /// was before them (C3).
    #[inline]
    pub(super) fn number(&mut self, at: Ordinal, is_unfold: bool) -> Result<u32, Ordinal> {
        match self.tranche.last {
            Some(last) if at <= last => {
                let shares = at == last && is_unfold && self.batch.ordinals.len() > 0;
                if shares { Ok(self.batch.share_last()) } else { Err(last) }
            }
            _ => {
                self.tranche.last = Some(at);
                Ok(self.batch.ordinals.push(at))
            }
        }
    }
}
