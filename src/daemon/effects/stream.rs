//! The events of one stream on their way through a handler, and their outcome.

use std::collections::BTreeMap;

use super::report::Failure;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::handler::{Decision, HandlerError, NextIndex};
use crate::work::{Work, WorkId, WorkKind};

/// The unhandled events of a stream.
pub(super) struct Queue {
    /// In the order of their indexes. The unfolds come last.
    events: Vec<Event>,
    max_events: usize,
    /// The number of events to be offered singly, because a call with all of them failed (C19).
    singles: usize,
    outcome: Outcome,
}

/// The outcome of a stream.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) lines: Vec<Line>,
    /// The failures, by the index of their event.
    pub(super) failures: BTreeMap<i64, Failure>,
}

/// An emitted value, or the reason for which the stream ended early.
#[derive(Debug)]
pub(super) struct Line {
    /// The event that it belongs to, if that is known.
    pub(super) index: Option<i64>,
    pub(super) text: String,
}

impl Queue {
    pub(super) fn new(events: Vec<Event>, max_events: usize) -> Self {
        let (mut unfolds, mut events): (Vec<_>, Vec<_>) = events.into_iter().partition(Event::is_unfold);
        // The feed may repeat events, and those of a stream may arrive out of order (C5).
        events.sort_by_key(Event::index);
        events.dedup_by_key(|event| event.index());
        // Later events and later unfolds supersede an unfold (C3).
        let newest = unfolds.last().map(Event::at);
        let next = events.last().map_or(i64::MIN, Event::next_index);
        unfolds.retain(|unfold| Some(unfold.at()) == newest && unfold.index() >= next);
        events.extend(unfolds);
        Self { events, max_events, singles: 0, outcome: Outcome::default() }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn is_alone(&self) -> bool {
        self.singles > 0
    }

    pub(super) fn into_outcome(self) -> Outcome {
        self.outcome
    }

    /// Returns the next run of events. The unfolds share the call of the last event.
    pub(super) fn offer(&self) -> Work {
        let most = if self.singles > 0 { 1 } else { self.max_events };
        let facts = self.events.iter().take_while(|event| !event.is_unfold()).count();
        let end = if facts <= most { self.events.len() } else { most };
        let events = self.events[..end].to_vec();
        Work {
            id: WorkId { slot: 0, generation: 0 },
            kind: WorkKind::Handle,
            next: events.last().map_or(0, Event::next_index),
            events,
            failures: 0,
            read_at: Timestamp::ZERO,
            late: false,
            trace: None,
        }
    }

    /// Takes the decision about offered events.
    pub(super) fn take(&mut self, offered: &[Event], decision: Result<Decision, HandlerError>) {
        match decision {
            Ok(decision) => self.decided(offered, decision),
            Err(error) => self.failed(offered, &error),
        }
    }

    fn decided(&mut self, offered: &[Event], decision: Decision) {
        for (number, value) in decision.effects.iter().enumerate() {
            let event = decision.effects.event_of(number).and_then(|position| offered.get(position));
            let text = serde_json::to_string(value).unwrap_or_else(|_| format!("{value:?}"));
            self.outcome.lines.push(Line { index: event.map(Event::index), text });
        }
        let first = offered[0].index();
        match decision.next {
            NextIndex::All => self.pass(offered.len()),
            NextIndex::Upto(next) => {
                let before = self.events.len();
                self.events.retain(|event| event.is_unfold() || event.index() >= next);
                if self.events.iter().all(Event::is_unfold) {
                    self.events.clear();
                }
                self.singles = self.singles.saturating_sub(before - self.events.len());
                if self.events.len() == before {
                    self.wait(first, "waits for later events".to_owned());
                }
            }
            NextIndex::Defer(delay) => self.wait(first, format!("waits for {}", humantime::format_duration(delay))),
        }
    }

    fn failed(&mut self, offered: &[Event], error: &HandlerError) {
        let first = offered[0].index();
        let is_single = offered[1..].iter().all(Event::is_unfold);
        if !is_single && error.index() != Some(first) {
            self.singles = offered.len();
            return;
        }
        self.outcome.failures.insert(first, Failure::new(first, error));
        self.pass(if is_single { offered.len() } else { 1 });
    }

    /// Removes handled or failed events.
    fn pass(&mut self, count: usize) {
        self.events.drain(..count);
        self.singles = self.singles.saturating_sub(count);
    }

    /// Ends the stream at an event.
    fn wait(&mut self, index: i64, text: String) {
        self.outcome.lines.push(Line { index: Some(index), text });
        self.events.clear();
    }
}
