//! The knowledge about one stream: its write position, and the place of its work.

use crate::position::WritePosition;

use super::slab::{Link, NONE};

/// The handled indexes of one stream, and the place of its work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    write: [u32; 2],
    pub(super) name: u32,
    /// The number of indexes below the write position that were offered or passed. It saturates, which makes more
    /// events late, never fewer.
    offered: u32,
    /// The epoch that it belongs to.
    pub(super) epoch: u32,
    /// The place of its work, or the next free entry: see [`Busy`].
    busy: u32,
    singleton: u32,
    pub(super) name_len: u16,
    /// The distance from the index below which unfolds are superseded to the write position. It is positive if placeholders are
    /// directly below the write position (C3), and negative if unfolds were handled ahead of the events of a sparse stream.
    trailing: i8,
    pub(super) free: bool,
}

const _: () = assert!(size_of::<Known>() == 32);

/// The work that a stream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    Nothing,
    Lane(u32),
    /// One event, which needs no lane: at this place of a batch.
    Singleton {
        batch: u32,
        at: u32,
    },
    /// One event, which is in flight.
    SingletonInFlight(u32),
}

/// In place of the batch: the singleton is in flight.
const OUT: u32 = NONE - 1;

/// An unknown write position: smaller than any index.
pub(super) const UNKNOWN: i64 = -1;

impl Known {
    #[inline]
    pub(super) fn new(name: u32, name_len: u16, epoch: u32) -> Self {
        Self {
            write: [u32::MAX; 2],
            name,
            offered: 0,
            epoch,
            busy: NONE,
            singleton: NONE,
            name_len,
            trailing: 0,
            free: false,
        }
    }

    #[inline]
    pub(super) fn busy(&self) -> Busy {
        match (self.busy, self.singleton) {
            (NONE, NONE) => Busy::Nothing,
            (lane, NONE) => Busy::Lane(lane),
            (in_flight, OUT) => Busy::SingletonInFlight(in_flight),
            (at, batch) => Busy::Singleton { batch, at },
        }
    }

    #[inline]
    pub(super) fn set_busy(&mut self, busy: Busy) {
        (self.busy, self.singleton) = match busy {
            Busy::Nothing => (NONE, NONE),
            Busy::Lane(lane) => (lane, NONE),
            Busy::SingletonInFlight(in_flight) => (in_flight, OUT),
            Busy::Singleton { batch, at } => (at, batch),
        };
    }

    #[inline]
    pub(super) fn has_nothing_to_do(&self) -> bool {
        self.busy == NONE
    }

    /// Returns its lane; `NONE` if it has nothing to do.
    ///
    /// # Panics
    /// If it has a singleton: the caller treats that as such, or gives it a lane first.
    #[inline]
    pub(super) fn lane(&self) -> u32 {
        assert_eq!(self.singleton, NONE, "a singleton gets a lane before it is treated as one");
        self.busy
    }

    /// Returns the next index of interest, or [`UNKNOWN`].
    #[inline]
    pub(super) fn write(&self) -> i64 {
        (u64::from(self.write[0]) | u64::from(self.write[1]) << 32).cast_signed()
    }

    #[inline]
    fn set_write(&mut self, write: i64) {
        let bits = write.cast_unsigned();
        self.write = [bits as u32, (bits >> 32) as u32];
    }

    /// Returns the first index of the offered or passed range.
    #[inline]
    pub(super) fn first(&self) -> i64 {
        self.write() - i64::from(self.offered)
    }

    #[inline]
    fn set_first(&mut self, first: i64) {
        self.offered = u32::try_from(self.write() - first).unwrap_or(u32::MAX);
    }

    /// Returns the index up to which real events or unfolds were handled. Unfolds below it are superseded.
    #[inline]
    pub(super) fn superseded_below(&self) -> i64 {
        if self.trailing == i8::MAX { 0 } else { self.write() - i64::from(self.trailing) }
    }

    /// Sets the index below which unfolds are superseded. A distance that does not fit becomes a smaller index, so that unfolds
    /// are redelivered and none is lost.
    fn set_superseded_below(&mut self, real: i64) {
        let trailing = self.write().saturating_sub(real).clamp(i8::MIN.into(), i8::MAX.into());
        self.trailing = i8::try_from(trailing).expect("the distance was clamped");
    }

    /// Forgets the write position.
    pub(super) fn forget(&mut self) {
        self.set_write(UNKNOWN);
        (self.offered, self.trailing) = (0, 0);
    }

    /// Handles the usual case of [`advance`](Self::advance): the next index, or the first one. Returns `false`, and
    /// does nothing, in other cases.
    #[inline]
    pub(super) fn advance_by(&mut self, from: i64, next: i64, real: i64) -> bool {
        let write = self.write();
        if write != from && write != UNKNOWN || real != next || next <= from {
            return false;
        }
        let first = if write == UNKNOWN { from } else { self.first() };
        self.set_write(next);
        self.set_first(first);
        self.trailing = 0;
        true
    }

    /// Marks `[from, next)` as handled, with real events up to `real`. Returns the gap that this leaves, if any.
    #[inline]
    pub(super) fn advance(&mut self, from: i64, next: i64, real: i64) -> Option<(i64, i64)> {
        if self.advance_by(from, next, real) { None } else { self.advance_anyhow(from, next, real) }
    }

    fn advance_anyhow(&mut self, from: i64, next: i64, real: i64) -> Option<(i64, i64)> {
        let (write, first) = (self.write(), self.first());
        let real = real.max(self.superseded_below()).max(0);
        self.set_write(write.max(next));
        self.set_superseded_below(real);
        if write == UNKNOWN {
            self.set_first(from);
            return None;
        }
        self.set_first(first.min(from));
        match () {
            () if from > write => Some((write, from)),
            () if next < first => Some((next, first)),
            () => None,
        }
    }

    /// Advances as [`advance`](Self::advance), for indexes with holes. Keeps the last stretch that was certainly
    /// offered as a whole. A `next` of `i64::MIN` leaves the write position: only unfolds were handled.
    pub(super) fn advance_sparse(&mut self, from: i64, last: i64, next: i64, real: i64) {
        let (write, first) = (self.write(), self.first());
        let real = real.max(self.superseded_below()).max(0);
        self.set_write(write.max(next));
        self.set_superseded_below(real);
        if from == write && last == from {
            self.set_first(first);
        } else if next > write {
            self.set_first(last);
        } else {
            self.set_first(first);
        }
    }

    /// Raises the write position to one that a store knows, with real events up to `real`. Returns whether it was
    /// greater.
    pub(super) fn raise(&mut self, first: i64, next: i64, real: i64) -> bool {
        // A store's row is outside input: its numbers may be anything.
        let (first, real) = (first.max(0), real.clamp(0, next.max(0)));
        if next <= self.write() || first > next {
            return false;
        }
        let real = real.max(self.superseded_below());
        self.set_write(next);
        self.set_first(first);
        self.set_superseded_below(real);
        true
    }

    /// Returns the write position to store. Trailing placeholders are a gap of their own, as they supersede no unfolds
    /// (C3).
    pub(super) fn position(&self, gaps: &[(i64, i64)]) -> Option<WritePosition> {
        let (first, next) = (self.first(), self.write());
        let real = self.superseded_below().max(first);
        let below = gaps.iter().filter(|gap| gap.0 < real).map(|gap| (gap.0, gap.1.min(real)));
        let gaps = below.chain((real < next).then_some((real, next))).collect();
        (first < next).then_some(WritePosition { first, next, gaps })
    }
}

impl Link for Known {
    fn vacant() -> Self {
        Self { free: true, ..Self::new(0, 0, NONE) }
    }

    fn link(&self) -> u32 {
        self.busy
    }

    fn set_link(&mut self, next: u32) {
        self.busy = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offered_indexes_are_a_stretch_and_a_jump_leaves_a_gap() {
        let mut known = Known::new(0, 0, 0);
        let mut seen = Vec::new();
        for (from, next) in [(5, 7), (7, 8), (10, 12), (8, 9), (2, 3)] {
            let gap = known.advance(from, next, next);
            seen.push((known.first(), known.write(), gap));
        }
        assert_eq!(seen, [(5, 7, None), (5, 8, None), (5, 12, Some((8, 10))), (5, 12, None), (2, 12, Some((3, 5)))]);
    }
}
