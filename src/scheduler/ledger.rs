//! The ledger of tranches: their batches in read order, and the progress that follows from them.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::position::{Ordinal, OrdinalSet, Position, Progress, TrancheId};

use super::batch::Batch;
use super::slab::NONE;
use super::tranche::{Counts, Tranche};

/// One assignment of a tranche.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    /// `NONE` while the epoch is unused.
    pub(super) tranche: u32,
    pub(super) open: bool,
    /// Streams that belong to it.
    pub(super) streams: usize,
    /// Streams of it that cannot be found by name: of single events, and of its read order.
    pub(super) anonymous: usize,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) tranches: Vec<Tranche>,
    ids: HashMap<TrancheId, u32>,
    pub(super) epochs: Vec<Epoch>,
    /// Epochs and tranches without references, for reuse. Sources add and end tranches for as long as the process runs.
    unused_epochs: Vec<u32>,
    unused_tranches: Vec<u32>,
    pub(super) batches: Vec<Batch>,
    unused: Vec<u32>,
    /// Finished batches. All references to them are cleared before they are reused.
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
        let epoch = self.add_epoch(tranche);
        let progress = progress.unwrap_or_default();
        let opened = &mut self.tranches[tranche as usize];
        assert!(!opened.is_held(), "a tranche is opened once");
        (opened.epoch, opened.position, opened.last) = (epoch, progress.position, None);
        opened.leaving = false;
        (opened.recovered, opened.recovered_from) = (progress.handled, 0);
        opened.recovered_read_to = progress.read_to;
        (opened.counts, opened.passed_events) = (Counts::default(), 0);
        tranche
    }

    fn add_epoch(&mut self, tranche: u32) -> u32 {
        self.tranches[tranche as usize].epochs += 1;
        let new = Epoch { tranche, open: true, streams: 0, anonymous: 0 };
        match self.unused_epochs.pop() {
            Some(epoch) => {
                self.epochs[epoch as usize] = new;
                epoch
            }
            None => {
                self.epochs.push(new);
                u32::try_from(self.epochs.len() - 1).expect("fewer than 2^32 epochs are referred to")
            }
        }
    }

    /// Notes that a stream that is found by its name no longer belongs to an epoch.
    #[inline]
    pub(super) fn leave_epoch(&mut self, epoch: u32) {
        self.epochs[epoch as usize].streams -= 1;
        self.release_epoch(epoch);
    }

    /// Notes that an anonymous stream no longer belongs to an epoch.
    pub(super) fn leave_epoch_anonymously(&mut self, epoch: u32) {
        self.epochs[epoch as usize].anonymous -= 1;
        self.release_epoch(epoch);
    }

    /// Reuses an epoch once its tranche is closed and no stream refers to it, and the tranche once it has no epoch.
    #[inline]
    pub(super) fn release_epoch(&mut self, epoch: u32) {
        let Epoch { tranche, open, streams, anonymous } = self.epochs[epoch as usize];
        if open || streams > 0 || anonymous > 0 || tranche == NONE {
            return;
        }
        self.epochs[epoch as usize].tranche = NONE;
        self.unused_epochs.push(epoch);
        let of = &mut self.tranches[tranche as usize];
        of.epochs -= 1;
        if of.epochs == 0 {
            assert_eq!(of.lane, NONE, "a tranche that nothing refers to has no lane");
            self.ids.remove(&of.id);
            self.unused_tranches.push(tranche);
        }
    }

    fn add(&mut self, id: &TrancheId) -> u32 {
        let new = Tranche::new(id);
        let tranche = match self.unused_tranches.pop() {
            Some(tranche) => {
                self.tranches[tranche as usize] = new;
                tranche
            }
            None => {
                self.tranches.push(new);
                u32::try_from(self.tranches.len() - 1).expect("fewer than 2^32 tranches are referred to")
            }
        };
        self.ids.insert(id.clone(), tranche);
        tranche
    }

    /// Closes a tranche, and retires all of its batches.
    pub(super) fn close(&mut self, tranche: u32) {
        let closed = &mut self.tranches[tranche as usize];
        self.epochs[closed.epoch as usize].open = false;
        closed.epoch = NONE;
        closed.parked.clear();
        closed.recovered = OrdinalSet::new();
        closed.recovered_from = 0;
        closed.recovered_read_to = None;
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

    /// Notes an empty read.
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

    /// Begins a batch. Returns it, and its age among all batches.
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

    /// Returns the means to number the events of a batch.
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

    /// Marks a singleton in flight that held so many bytes. Returns whether its batch has nothing left.
    #[inline]
    pub(super) fn mark_singleton(&mut self, tranche: u32, batch_id: u32, slot: u32, bytes: u64) -> bool {
        let batch = &mut self.batches[batch_id as usize];
        let counts = &mut self.tranches[tranche as usize].counts;
        counts.in_flight -= 1;
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

    /// Sets bits, and counts the runs that this creates, joins or lengthens.
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

    /// Returns whether the nearest ordinal of a batch's neighbour is handled.
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

    /// Returns the ordinal that was read last.
    pub(super) fn last_read(&self, tranche: u32) -> Option<Ordinal> {
        self.tranches[tranche as usize].last
    }

    /// Reverts the reading of a batch's ordinals from place `slot` on, because a broken feed left them unadmitted.
    /// `before` is the last ordinal read before the batch. The batch keeps its events, and so never completes.
    pub(super) fn unread(&mut self, tranche: u32, batch: u32, slot: u32, before: Option<Ordinal>) {
        let last = match slot {
            0 => before,
            slot => Some(self.batches[batch as usize].ordinals.get(slot - 1)),
        };
        let of = &mut self.tranches[tranche as usize];
        of.last = last;
        // A recovered run that only the unadmitted ordinals began is unread again: progress names it by itself.
        of.recovered_from = of.recovered.runs().partition_point(|run| last.is_some_and(|last| run.1 < last));
    }

    /// Completes the leading handled batches, in read order. They are then [`retired`](Self::retire).
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
            of.passed_events += u64::from(batch.events);
            of.counts.completed_batches += 1 + u64::from(batch.followers);
            of.counts.version += 1;
            of.position = Some(std::mem::replace(&mut batch.resume_at, Position::Number(0)));
            self.retired.push(front);
        }
    }

    /// Returns a finished batch, once. Its place may be reused.
    #[inline]
    pub(super) fn retire(&mut self) -> Option<u32> {
        let batch = self.retired.pop()?;
        self.unused.push(batch);
        Some(batch)
    }

    /// Counts one event more, or one less, as waiting.
    pub(super) fn wait(&mut self, batch: u32, more: bool) {
        let batch = &mut self.batches[batch as usize];
        let was_busy = batch.is_busy();
        if more {
            batch.waiting += 1;
        } else {
            batch.waiting -= 1;
        }
        assert!(batch.waiting <= batch.outstanding, "a waiting event is not handled");
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

/// Numbers the events of a batch.
pub(super) struct Numbers<'a> {
    pub(super) tranche: &'a mut Tranche,
    batch: &'a mut Batch,
}

impl Numbers<'_> {
    /// Gives an event its place. Returns the last ordinal as an error if the event's does not ascend. Unfolds may share
    /// the ordinal of the event or unfold before them (C3).
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
