//! Batches: one read of a tranche each, with a bit for each handled ordinal.

use crate::clock::Timestamp;
use crate::position::{Ordinal, OrdinalSet, Position};

/// The part of a batch that is held until everything before its end is handled.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) tranche: u32,
    /// Its number among the tranche's batches.
    pub(super) nth: u64,
    pub(super) read_at: Timestamp,
    pub(super) resume_at: Position,
    /// The number of its events, and of the unhandled ones.
    pub(super) events: u32,
    pub(super) outstanding: u32,
    /// The number of unhandled events whose lane waits: in trouble, parked, or for a missing event.
    pub(super) waiting: u32,
    /// Empty reads that followed it.
    pub(super) followers: u32,
    pub(super) ordinals: Ordinals,
    /// A bit for each ordinal: whether it is handled.
    bits: Vec<u64>,
    /// The first word that is not full.
    low: u32,
    /// Ordinals that several events have (the unfolds of a document).
    pub(super) shared: Vec<Shared>,
}

impl Batch {
    pub(super) fn new(tranche: u32, nth: u64, read_at: Timestamp, resume_at: Position, events: u32) -> Self {
        Self {
            tranche,
            nth,
            read_at,
            resume_at,
            events,
            outstanding: events,
            waiting: 0,
            followers: 0,
            ordinals: Ordinals::default(),
            bits: vec![0; events.div_ceil(64) as usize],
            low: 0,
            shared: Vec::new(),
        }
    }

    /// Returns whether it has an event that is neither handled nor waiting.
    pub(super) fn is_busy(&self) -> bool {
        self.outstanding > self.waiting
    }

    /// Adds an event to the ordinal that was numbered last.
    pub(super) fn share_last(&mut self) -> u32 {
        let slot = self.ordinals.len() - 1;
        match self.shared.last_mut() {
            Some(last) if last.slot == slot => (last.events, last.unhandled) = (last.events + 1, last.unhandled + 1),
            _ => self.shared.push(Shared { slot, events: 2, unhandled: 2 }),
        }
        slot
    }

    /// Counts one event of this ordinal as handled. Returns whether all events of the ordinal are.
    pub(super) fn settle_shared(&mut self, slot: u32) -> bool {
        let Ok(at) = self.shared.binary_search_by_key(&slot, |shared| shared.slot) else { return true };
        self.shared[at].unhandled -= 1;
        self.shared[at].unhandled == 0
    }

    pub(super) fn unsettle_shared(&mut self, slot: u32) {
        if let Ok(at) = self.shared.binary_search_by_key(&slot, |shared| shared.slot) {
            self.shared[at].unhandled += 1;
        }
    }

    #[inline]
    pub(super) fn is_handled(&self, slot: u32) -> bool {
        self.bits[slot as usize / 64] & 1 << (slot % 64) != 0
    }

    /// Returns whether any ordinal is handled.
    pub(super) fn has_handled(&self) -> bool {
        self.bits.iter().any(|&word| word != 0)
    }

    /// Returns how many of an ordinal's two neighbours are handled, unless one of them may be in another batch.
    #[inline]
    pub(super) fn neighbours(&self, slot: u32) -> Option<usize> {
        if slot == 0 || slot + 1 >= self.ordinals.len() {
            return None;
        }
        // In the middle of a word one read serves both.
        let near = match slot % 64 {
            0 | 63 => u64::from(self.is_handled(slot - 1)) + u64::from(self.is_handled(slot + 1)),
            bit => {
                let around = self.bits[slot as usize / 64] >> (bit - 1);
                (around & 1) + (around >> 2 & 1)
            }
        };
        Some(near as usize)
    }

    /// Sets the bit of one ordinal, which is set once.
    #[inline]
    pub(super) fn set_one(&mut self, slot: u32) {
        let (bits, mask) = (&mut self.bits[slot as usize / 64], 1 << (slot % 64));
        assert_eq!(*bits & mask, 0, "an ordinal is handled once");
        *bits |= mask;
        if *bits == u64::MAX {
            self.raise_low();
        }
    }

    /// Sets the bits of `count` ordinals. Each is set once.
    pub(super) fn set(&mut self, slot: u32, count: u32) {
        let (mut at, end) = (slot, slot + count);
        while at < end {
            let (word, from) = (at / 64, at % 64);
            let width = (64 - from).min(end - at);
            let mask = (u64::MAX >> (64 - width)) << from;
            let bits = &mut self.bits[word as usize];
            assert_eq!(*bits & mask, 0, "an ordinal is handled once");
            *bits |= mask;
            at += width;
        }
    }

    /// Moves the start of the search for the first unhandled ordinal forward.
    #[inline]
    pub(super) fn raise_low(&mut self) {
        while self.bits.get(self.low as usize) == Some(&u64::MAX) {
            self.low += 1;
        }
    }

    pub(super) fn clear(&mut self, slot: u32) {
        self.bits[slot as usize / 64] &= !(1 << (slot % 64));
    }

    /// Returns the first unhandled ordinal.
    pub(super) fn first_unhandled(&self) -> Option<u32> {
        let words = &self.bits[self.low as usize..];
        let word = words.iter().position(|&word| word != u64::MAX)?;
        let slot = (self.low as usize + word) as u32 * 64 + words[word].trailing_ones();
        (slot < self.ordinals.len()).then_some(slot)
    }

    /// Returns how many events have an ordinal in a set.
    pub(super) fn count_in(&self, set: &OrdinalSet) -> u64 {
        let slots = set.runs().iter().map(|&(first, last)| {
            let (from, to) = (self.ordinals.count_below(first), self.ordinals.count_up_to(last));
            let shared = self.shared.iter().filter(|shared| (from..to).contains(&shared.slot));
            u64::from(to - from) + shared.map(|shared| u64::from(shared.events) - 1).sum::<u64>()
        });
        slots.sum()
    }

    /// Calls `run` with the ends of each run of handled ordinals.
    pub(super) fn handled_runs(&self, mut run: impl FnMut(u32, u32)) {
        let mut open = None;
        for (at, &word) in self.bits.iter().enumerate() {
            let base = at as u32 * 64;
            let (mut rest, mut bit) = (word, 0);
            while bit < 64 {
                let same = if open.is_some() { rest.trailing_ones() } else { rest.trailing_zeros() }.min(64 - bit);
                bit += same;
                if bit == 64 {
                    break;
                }
                rest = rest.checked_shr(same).unwrap_or(0);
                match open.take() {
                    Some(from) => run(from, base + bit - 1),
                    None => open = Some(base + bit),
                }
            }
        }
        if let Some(from) = open {
            run(from, self.bits.len() as u32 * 64 - 1);
        }
    }
}

/// An ordinal that several events have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared {
    slot: u32,
    events: u32,
    unhandled: u32,
}

/// Ordinals in read order. Most follow each other, so that they are kept as stretches.
#[derive(Debug, Default)]
pub(super) struct Ordinals {
    stretches: Vec<Stretch>,
    len: u32,
    last: Ordinal,
    /// The step of the last stretch, and its next ordinal.
    step: Step,
    expected: Option<Ordinal>,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: Ordinal,
    slot: u32,
    step: Step,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Unknown,
    Major,
    Minor,
}

impl Ordinals {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Appends an ordinal, which is greater than all before, and returns its place.
    #[inline]
    pub(super) fn push(&mut self, at: Ordinal) -> u32 {
        let slot = self.len;
        self.len += 1;
        if Some(at) != self.expected {
            self.begin_stretch(at, slot);
        }
        self.last = at;
        self.expected = match self.step {
            Step::Unknown => None,
            // The greatest ordinals have no successor.
            Step::Major => at.major.checked_add(1).map(|major| Ordinal { major, ..at }),
            Step::Minor => at.minor.checked_add(1).map(|minor| Ordinal { minor, ..at }),
        };
        slot
    }

    /// Begins a stretch, or determines the step of the current one.
    fn begin_stretch(&mut self, at: Ordinal, slot: u32) {
        let (last, step) = (self.last, self.step);
        self.step = match self.stretches.last_mut() {
            Some(_) if step != Step::Unknown => Step::Unknown,
            Some(stretch) if at.major == last.major && Some(at.minor) == last.minor.checked_add(1) => {
                stretch.step = Step::Minor;
                return self.step = Step::Minor;
            }
            Some(stretch) if at.minor == last.minor && Some(at.major) == last.major.checked_add(1) => {
                stretch.step = Step::Major;
                return self.step = Step::Major;
            }
            _ => Step::Unknown,
        };
        self.stretches.push(Stretch { first: at, slot, step: Step::Unknown });
    }

    /// Returns how many ordinals are below one.
    pub(super) fn count_below(&self, at: Ordinal) -> u32 {
        self.partition(|ordinal| ordinal < at)
    }

    /// Returns how many ordinals are at or below one.
    pub(super) fn count_up_to(&self, at: Ordinal) -> u32 {
        self.partition(|ordinal| ordinal <= at)
    }

    fn partition(&self, is_before: impl Fn(Ordinal) -> bool) -> u32 {
        let (mut from, mut to) = (0, self.len);
        while from < to {
            let middle = from + (to - from) / 2;
            if is_before(self.get(middle)) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    pub(super) fn get(&self, slot: u32) -> Ordinal {
        let stretch = &self.stretches[self.stretches.partition_point(|stretch| stretch.slot <= slot) - 1];
        let (Ordinal { major, minor }, steps) = (stretch.first, slot - stretch.slot);
        match stretch.step {
            Step::Unknown => stretch.first,
            Step::Major => Ordinal::new(major + u64::from(steps), minor),
            Step::Minor => Ordinal::new(major, minor + steps),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ordinals_of_any_steps_are_stored_unchanged(steps in prop::collection::vec((0..3_u64, 0..3_u32), 1..200)) {
            let (mut at, mut all, mut ordinals) = (Ordinal::default(), Vec::new(), Ordinals::default());
            for (major, minor) in steps {
                at = if major == 0 { Ordinal::new(at.major, at.minor + minor + 1) } else { Ordinal::new(at.major + major, minor) };
                prop_assert_eq!(ordinals.push(at), all.len() as u32);
                all.push(at);
            }
            for (slot, &at) in all.iter().enumerate() {
                prop_assert_eq!(ordinals.get(slot as u32), at);
            }
        }

        #[test]
        fn runs_are_the_bits_that_are_set(len in 1..300_u32, seed in any::<u64>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut batch = Batch::new(0, 0, Timestamp::ZERO, Position::Number(0), len);
            (0..len).for_each(|slot| { batch.ordinals.push(Ordinal::new(u64::from(slot), 0)); });
            let mut naive = vec![false; len as usize];
            for _ in 0..random.u32(0..40) {
                let from = random.u32(0..len);
                let count = random.u32(1..=len - from);
                if naive[from as usize..][..count as usize].iter().all(|set| !set) {
                    naive[from as usize..][..count as usize].fill(true);
                    batch.set(from, count);
                }
            }
            batch.raise_low();
            let mut seen = vec![false; len as usize];
            let mut last_end = None;
            batch.handled_runs(|from, to| {
                assert!(last_end.is_none_or(|end| from > end + 1), "runs are apart");
                last_end = Some(to);
                seen[from as usize..=to as usize].fill(true);
            });
            prop_assert_eq!(&seen, &naive);
            prop_assert_eq!(batch.first_unhandled(), naive.iter().position(|set| !set).map(|at| at as u32));
        }
    }
}
