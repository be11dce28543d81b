//! The progress that follows from a tranche's batches: a position, and runs of handled ordinals above it.

use crate::position::{Ordinal, OrdinalSet, Position, Progress};

use super::batch::Batch;
use super::ledger::Ledger;

impl Ledger {
    /// Returns the current progress of a tranche.
    pub(super) fn progress(&self, tranche: u32) -> Progress {
        let of = &self.tranches[tranche as usize];
        let complete = self.complete_batches(tranche);
        let position = self.position(tranche).cloned();
        let mut runs = Runs::default();
        for &batch in of.queue.range(complete..) {
            runs.batch(&self.batches[batch as usize]);
        }
        let (remaining, begun) = of.remaining();
        // A recovered run that reading has not passed lies above everything that was read since.
        let read_to = match remaining {
            [] => self.read_to(of.queue.range(complete..)),
            _ => of.recovered_read_to.clone(),
        };
        let mut remaining = remaining.iter();
        if begun && complete < of.queue.len() {
            // The part of the run that was read is handled, so it is the last run of the queue.
            let &(_, last) = remaining.next().expect("the run that was begun is there");
            runs.lengthen(last);
        }
        runs.flush();
        remaining.for_each(|&(first, last)| runs.set.push(first, last));
        Progress { position, handled: runs.set, read_to }
    }

    /// Returns the position of a tranche: the end of its last batch before which no event is unhandled.
    pub(super) fn position(&self, tranche: u32) -> Option<&Position> {
        let of = &self.tranches[tranche as usize];
        match self.complete_batches(tranche) {
            0 => of.position.as_ref(),
            complete => Some(&self.batches[of.queue[complete - 1] as usize].resume_at),
        }
    }

    fn complete_batches(&self, tranche: u32) -> usize {
        let queue = self.tranches[tranche as usize].queue.iter();
        queue.take_while(|&&batch| self.batches[batch as usize].outstanding == 0).count()
    }

    /// Returns the end of the last batch that has a handled ordinal.
    fn read_to<'a>(&self, batches: impl DoubleEndedIterator<Item = &'a u32>) -> Option<Position> {
        let mut batches = batches.rev().map(|&batch| &self.batches[batch as usize]);
        batches.find(|batch| batch.has_handled()).map(|batch| batch.resume_at.clone())
    }

    /// Returns how many events since the tranche was opened `progress` covers: those of the batches that its position
    /// passed, and those of later batches whose ordinals it names.
    pub(super) fn covered_events(&self, tranche: u32, progress: &Progress) -> u64 {
        let of = &self.tranches[tranche as usize];
        let batches = || of.queue.iter().map(|&batch| &self.batches[batch as usize]);
        // A position is never compared by size. If no batch ends at this one, it lies before the first of them.
        let passed = batches().rposition(|batch| Some(&batch.resume_at) == progress.position.as_ref());
        let passed = passed.map_or(0, |at| at + 1);
        let before: u64 = batches().take(passed).map(|batch| u64::from(batch.events)).sum();
        let named: u64 = batches().skip(passed).map(|batch| batch.count_in(&progress.handled)).sum();
        of.passed_events + before + named
    }

    /// Returns the progress of tranches as if these ordinals were handled, too.
    pub(super) fn progress_with(&mut self, handled: &[(u32, u32)]) -> Vec<(u32, Progress)> {
        let mut set = Vec::new();
        let mut tranches = Vec::new();
        for &(batch, slot) in handled {
            let batch_id = batch;
            let batch = &mut self.batches[batch as usize];
            batch.outstanding -= 1;
            if batch.settle_shared(slot) {
                batch.set(slot, 1);
                set.push((batch_id, slot));
            }
            if !tranches.contains(&batch.tranche) {
                tranches.push(batch.tranche);
            }
        }
        let progress = tranches.into_iter().map(|tranche| (tranche, self.progress(tranche))).collect();
        for (batch, slot) in set {
            self.batches[batch as usize].clear(slot);
        }
        for &(batch, slot) in handled {
            let batch = &mut self.batches[batch as usize];
            batch.outstanding += 1;
            batch.unsettle_shared(slot);
        }
        progress
    }
}

/// Joins runs over the bounds of batches.
#[derive(Default)]
struct Runs {
    set: OrdinalSet,
    /// The run that is not in the set yet, and whether it reaches the end of the batches seen so far.
    open: Option<(Ordinal, Ordinal)>,
    touches: bool,
}

impl Runs {
    fn batch(&mut self, batch: &Batch) {
        let len = batch.ordinals.len();
        if batch.outstanding == 0 {
            self.run(batch.ordinals.get(0), batch.ordinals.get(len - 1), true);
            return;
        }
        let mut end = None;
        batch.handled_runs(|from, to| {
            self.run(batch.ordinals.get(from), batch.ordinals.get(to), from == 0);
            end = Some(to);
        });
        self.touches = end.is_some_and(|end| end + 1 == len);
    }

    fn run(&mut self, first: Ordinal, last: Ordinal, at_start: bool) {
        match &mut self.open {
            Some(open) if at_start && self.touches => open.1 = last,
            _ => {
                self.flush();
                self.open = Some((first, last));
            }
        }
        self.touches = true;
    }

    fn lengthen(&mut self, last: Ordinal) {
        if let Some(open) = &mut self.open {
            open.1 = open.1.max(last);
        }
    }

    fn flush(&mut self) {
        if let Some((first, last)) = self.open.take() {
            self.set.push(first, last);
        }
    }
}
