//! One tranche in the ledger: its assignment, its queue of batches, and its counts.

use std::collections::{HashMap, VecDeque};

use crate::position::{Ordinal, OrdinalSet, Position, TrancheId};

use super::slab::NONE;

/// A tranche, held or not. The entry stays while any stream refers to it, so that a call in flight keeps its stream.
#[derive(Debug)]
pub(super) struct Tranche {
    pub(super) id: TrancheId,
    /// The epoch of its assignment; `NONE` while it is not held.
    pub(super) epoch: u32,
    /// The number of its epochs that are open or have streams.
    pub(super) epochs: u32,
    /// Whether it is about to be released: none of its events is offered.
    pub(super) leaving: bool,
    /// The lane of its read order, with `order = "tranche"`.
    pub(super) lane: u32,
    /// Parked streams, with `order = "tranche"`.
    pub(super) parked: HashMap<Box<[u8]>, Ordinal>,
    pub(super) position: Option<Position>,
    /// The ordinals that were handled before it was opened, from the first run that reading may not have passed.
    pub(super) recovered: OrdinalSet,
    pub(super) recovered_from: usize,
    /// The end of the read that brought the last of them.
    pub(super) recovered_read_to: Option<Position>,
    /// The ordinal read last.
    pub(super) last: Option<Ordinal>,
    /// Incomplete batches, and complete ones behind an incomplete one.
    pub(super) queue: VecDeque<u32>,
    /// Events of the batches that the position has passed since the tranche was opened.
    pub(super) passed_events: u64,
    /// The number of batches begun.
    pub(super) begun: u64,
    /// Whether the ledger lists it as changed.
    pub(super) changed: bool,
    pub(super) counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Batches with an event that is neither handled nor waiting.
    pub(super) busy: usize,
    pub(super) bytes: u64,
    pub(super) ahead: u64,
    pub(super) unhandled: u64,
    /// Pieces of work in flight.
    pub(super) in_flight: usize,
    /// Runs of handled ordinals in the queue.
    pub(super) runs: usize,
    pub(super) version: u64,
    pub(super) completed_batches: u64,
    pub(super) completed_events: u64,
}

impl Tranche {
    pub(super) fn new(id: &TrancheId) -> Self {
        Self {
            id: id.clone(),
            epoch: NONE,
            epochs: 0,
            leaving: false,
            lane: NONE,
            parked: HashMap::new(),
            position: None,
            recovered: OrdinalSet::new(),
            recovered_from: 0,
            recovered_read_to: None,
            last: None,
            queue: VecDeque::new(),
            passed_events: 0,
            begun: 0,
            changed: false,
            counts: Counts::default(),
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.epoch != NONE
    }

    /// Returns whether an ordinal was handled before the tranche was opened. The caller asks in read order.
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

    /// Returns the recovered runs that reading has not passed, and whether reading has begun the first of them.
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
