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

    pub fn has_unfolds(&self) -> bool {
        self.events.last().is_some_and(Event::is_unfold)
    }
}

/// The argument of a handler: the work of `streams_per_call` streams, usually one.
pub type Streams = SmallVec<[Work; 1]>;
