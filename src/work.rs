//! Units of work, which the scheduler hands out and handlers and sinks pass on.

use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::event::{Event, category, stream_id};
use crate::trace::Traced;

/// The identity of a piece of work in flight: one stream of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkId {
    pub slot: u32,
    /// The number of the slot's use, so that a late answer is never taken for another's.
    pub generation: u32,
}

/// The treatment that a piece of work needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// Offer the work to the handler, then the sink.
    Handle,
    /// Append the work to the parked store: its stream is parked.
    Park,
    /// Offer parked events again, as with `Handle`. The progress passed them when they were parked, and stays as it is (R6).
    Retry,
    /// Apply the error policy: its source could not read the record.
    Malformed,
}

/// A contiguous run of one stream's events, which are handled together.
#[derive(Debug)]
pub struct Work {
    pub id: WorkId,
    pub kind: WorkKind,
    /// The events in index order, unfolds last. In orders other than `stream`: in read order.
    pub events: Vec<Event>,
    /// The next index of interest once all of this is handled.
    pub next: i64,
    /// The number of earlier failures of the first of these events.
    pub failures: u32,
    /// The time at which the oldest of these events was read.
    pub read_at: Timestamp,
    /// The events came below the write position of their stream, in a gap (C5).
    pub late: bool,
    /// The open spans, if traces are exported and this work is sampled.
    pub trace: Option<Box<Traced>>,
}

impl Work {
    /// Returns the name of the stream; empty only for malformed records.
    pub fn stream(&self) -> &str {
        self.events[0].stream()
    }

    pub fn category(&self) -> &str {
        category(self.stream())
    }

    pub fn stream_id(&self) -> &str {
        stream_id(self.stream())
    }

    /// Returns the index of the first event.
    pub fn first(&self) -> i64 {
        self.events[0].index()
    }

    /// Returns whether the work is one event, alone or with its unfolds, so that a failure is that event's.
    pub fn is_single(&self) -> bool {
        self.events[1..].iter().all(Event::is_unfold)
    }

    /// Returns the progress of the events before `position` alone: see [`cut_before`].
    pub fn cut_before(&self, position: usize) -> Option<(usize, i64)> {
        cut_before(&self.events, position)
    }

    pub fn has_unfolds(&self) -> bool {
        self.events.last().is_some_and(Event::is_unfold)
    }
}

/// Returns the progress of the events before `position` alone: their number, and the next index of interest after them.
/// `None` if no event comes before, or if indexes in read order say nothing about the events before.
///
/// Unfolds share the fate of the last event, so that a cut before an unfold leaves that event out, too.
pub fn cut_before(events: &[Event], position: usize) -> Option<(usize, i64)> {
    let event = events[..=position].iter().rposition(|event| !event.is_unfold())?;
    let is_ascending = events[..=event].is_sorted_by(|a, b| a.index() < b.index());
    (event > 0 && is_ascending).then(|| (event, events[event].index()))
}

/// The argument of a handler: the work of `streams_per_call` streams, usually one.
pub type Streams = SmallVec<[Work; 1]>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Assembler, Kind};
    use crate::position::Ordinal;

    fn cut_before(events: &[(Kind, i64)], position: usize) -> Option<(usize, i64)> {
        let build = |&(kind, index)| Assembler::new("a-1", "T").build(kind, Ordinal::default(), index).unwrap();
        let (id, kind, read_at) = (WorkId { slot: 0, generation: 0 }, WorkKind::Handle, Timestamp::ZERO);
        let events = events.iter().map(build).collect();
        Work { id, kind, events, next: 0, failures: 0, read_at, late: false, trace: None }.cut_before(position)
    }

    #[test]
    fn a_cut_handles_the_events_before_it() {
        let events = [(Kind::Event, 5), (Kind::Event, 7), (Kind::Event, 8)];
        assert_eq!([0, 1, 2].map(|at| cut_before(&events, at)), [None, Some((1, 7)), Some((2, 8))]);
    }

    #[test]
    fn a_cut_before_an_unfold_leaves_the_event_before_it_out() {
        let events = [(Kind::Event, 5), (Kind::Event, 6), (Kind::Unfold, 7), (Kind::Unfold, 7)];
        assert_eq!([2, 3].map(|at| cut_before(&events, at)), [Some((1, 6)); 2]);
        assert_eq!(cut_before(&[(Kind::Event, 5), (Kind::Unfold, 6)], 1), None);
        assert_eq!(cut_before(&[(Kind::Unfold, 6), (Kind::Unfold, 6)], 1), None);
    }

    #[test]
    fn indexes_in_read_order_say_nothing_about_the_events_before() {
        assert_eq!(cut_before(&[(Kind::Event, 7), (Kind::Event, 5)], 1), None);
        assert_eq!(cut_before(&[(Kind::Event, 7), (Kind::Event, 7)], 1), None);
    }
}
