//! The rare needs of a lane: trouble, parking, jumped gaps, late events, and dependents.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::position::Ordinal;
use crate::work::WorkKind;

use super::in_flight::InFlight;
use super::slab::{Link, NONE, Slab};

pub(super) type ExtrasSlab = Slab<LaneExtras, 64>;

/// The reason why a lane's first event is not handled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    Failing,
    Stalled,
    Deferred,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) first: Ordinal,
    pub(super) since: Timestamp,
}

/// An ordinal that is handled when another event is: that of a duplicate, or of superseded unfolds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dependent {
    pub(super) on: On,
    pub(super) batch: u32,
    pub(super) slot: u32,
    /// Whether its batch counts it as waiting.
    pub(super) waiting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// The event at this index, queued or in flight.
    Event(i64),
    /// The unfolds that are queued.
    Queued,
    /// The unfolds in flight.
    InFlight,
}

#[derive(Debug)]
pub(super) struct LaneExtras {
    pub(super) gaps: Gaps,
    pub(super) dependents: Vec<Dependent>,
    /// Late events, by index.
    pub(super) late: u32,
    pub(super) parked: Option<Parked>,
    pub(super) trouble: Trouble,
    /// The time of the last progress, or of the first call that then failed or stalled (D-14).
    pub(super) since: Option<Timestamp>,
    pub(super) deferred_at: Timestamp,
    pub(super) until: Timestamp,
    /// The alarm that it waits for; 0 if it does not wait.
    pub(super) ticket: u64,
    /// The number of consecutive failures of the event at `failed_at`.
    pub(super) failures: u32,
    pub(super) failed_at: Ordinal,
    /// The ordinal of the event that was tried last without progress. `stuck_after` acts on this event alone.
    pub(super) victim: Option<Ordinal>,
    /// The time that the victim was offered without progress (C20), apart from the time since `counts_from`.
    pub(super) spent: Duration,
    /// The reading of the held clock when a call returned without progress. Time counts from then on, until a call
    /// fails or is deferred.
    pub(super) counts_from: Option<u64>,
    /// Whether its events count as waiting, and are copied out of their read buffers.
    pub(super) waiting: bool,
    pub(super) lane: u32,
    next: u32,
}

impl LaneExtras {
    pub(super) fn new(lane: u32) -> Self {
        Self {
            gaps: Gaps::default(),
            dependents: Vec::new(),
            late: NONE,
            parked: None,
            trouble: Trouble::None,
            since: None,
            deferred_at: Timestamp::ZERO,
            until: Timestamp::ZERO,
            ticket: 0,
            failures: 0,
            failed_at: Ordinal::default(),
            victim: None,
            spent: Duration::ZERO,
            counts_from: None,
            waiting: false,
            lane,
            next: NONE,
        }
    }

    /// Returns whether a lane without events can do without these extras.
    pub(super) fn is_void(&self) -> bool {
        self.gaps.is_empty() && self.parked.is_none() && self.late == NONE && self.trouble == Trouble::None
    }

    /// Adds the time of a call without progress to its victim's clock, which starts anew for each new victim (C20).
    /// `shown` is the reading of the held clock.
    pub(super) fn count_victim(&mut self, call: &InFlight, trouble: Trouble, shown: u64) {
        let counts_from = self.counts_from.take();
        // Work to be parked waits for the store. The store's delay is no fault of the stream.
        if call.kind == WorkKind::Park {
            return;
        }
        let is_same = self.victim == Some(call.first_at);
        if !is_same {
            (self.victim, self.spent) = (Some(call.first_at), Duration::ZERO);
        }
        self.spent += match counts_from.filter(|_| is_same) {
            Some(from) => Duration::from_nanos(shown.saturating_sub(from)),
            None => call.spent(shown),
        };
        if trouble == Trouble::Stalled && call.kind == WorkKind::Handle {
            self.counts_from = Some(shown);
        }
    }

    /// Stops the clock that runs on between a victim's calls, and so covers its call in flight. Returns whether it ran.
    pub(super) fn stop_clock(&mut self, victim: Ordinal, shown: u64) -> bool {
        let Some(from) = self.counts_from.filter(|_| self.victim == Some(victim)) else { return false };
        self.spent += Duration::from_nanos(shown.saturating_sub(from));
        self.counts_from = None;
        true
    }

    /// Returns the time that a victim was offered without progress, apart from a call in flight. `clock` returns the
    /// time since a reading.
    pub(super) fn spent_on(&self, victim: Ordinal, clock: impl Fn(u64) -> Duration) -> Duration {
        match self.victim {
            Some(tried) if tried == victim => self.spent + self.counts_from.map_or(Duration::ZERO, clock),
            _ => Duration::ZERO,
        }
    }

    /// Clears all trouble after progress.
    pub(super) fn recover(&mut self) {
        self.trouble = Trouble::None;
        (self.since, self.ticket, self.failures) = (None, 0, 0);
        (self.victim, self.spent, self.counts_from) = (None, Duration::ZERO, None);
    }
}

impl Link for LaneExtras {
    fn vacant() -> Self {
        Self::new(NONE)
    }

    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, next: u32) {
        (self.next, self.lane) = (next, NONE);
    }
}

/// The jumped indexes of a stream, as ascending half-open ranges. An event that arrives in a gap is late; any other
/// below the write position is a duplicate (C5).
///
/// There are at most [`Gaps::MOST`]: beyond that, the two nearest become one, with the handled indexes between them. A
/// duplicate among these is offered again as a late event. No event is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps(Vec<(i64, i64)>);

impl Gaps {
    pub(super) const MOST: usize = 64;

    /// Creates gaps from ascending ranges.
    pub(super) fn new(ranges: &[(i64, i64)]) -> Self {
        let mut gaps = Self::default();
        ranges.iter().for_each(|gap| gaps.add(gap.0, gap.1));
        gaps
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn ranges(&self) -> &[(i64, i64)] {
        &self.0
    }

    pub(super) fn contains(&self, index: i64) -> bool {
        let at = self.0.partition_point(|gap| gap.1 <= index);
        self.0.get(at).is_some_and(|gap| gap.0 <= index)
    }

    pub(super) fn add(&mut self, from: i64, next: i64) {
        if from >= next {
            return;
        }
        let at = self.0.partition_point(|gap| gap.0 < from);
        self.0.insert(at, (from, next));
        if self.0.len() > Self::MOST {
            let distance = |at: &usize| self.0[at + 1].0 - self.0[*at].1;
            let nearest = (0..self.0.len() - 1).min_by_key(distance).expect("there is more than one gap");
            self.0[nearest].1 = self.0[nearest + 1].1;
            self.0.remove(nearest + 1);
        }
    }

    /// Removes indexes that were handled after all.
    pub(super) fn remove(&mut self, from: i64, next: i64) {
        let mut at = self.0.partition_point(|gap| gap.1 <= from);
        while let Some(&(start, end)) = self.0.get(at).filter(|gap| gap.0 < next) {
            self.0.remove(at);
            if end > next {
                self.0.insert(at, (next, end));
            }
            if start < from {
                self.0.insert(at, (start, from));
                at += 1;
            }
            if end > next {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn too_many_gaps_become_wider_and_lose_nothing() {
        let mut gaps = Gaps::default();
        for number in 0..100 {
            gaps.add(number * 10, number * 10 + if number % 2 == 0 { 5 } else { 8 });
        }
        assert_eq!(gaps.ranges().len(), Gaps::MOST);
        assert!((0..100).all(|number| (0..5).all(|index| gaps.contains(number * 10 + index))));
    }

    proptest! {
        #[test]
        fn gaps_are_a_set_of_indexes(steps in prop::collection::vec((0..40_i64, 0..12_i64, any::<bool>()), 0..40)) {
            let (mut gaps, mut naive, mut end) = (Gaps::default(), BTreeSet::new(), 0);
            for (from, len, add) in steps {
                if add {
                    // A new gap never overlaps an earlier one.
                    gaps.add(end + from, end + from + len);
                    naive.extend(end + from..end + from + len);
                    end += from + len;
                } else {
                    gaps.remove(from * 5, from * 5 + len);
                    naive.retain(|index| !(from * 5..from * 5 + len).contains(index));
                }
                for index in 0..end + 2 {
                    prop_assert_eq!(gaps.contains(index), naive.contains(&index));
                }
            }
        }
    }
}
