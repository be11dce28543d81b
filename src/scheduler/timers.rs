//! Timers: lanes that become ready at a later time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Timestamp;

/// An alarm of a lane. It is void unless the lane still waits for its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alarm {
    pub(super) at: Timestamp,
    pub(super) ticket: u64,
    pub(super) lane: u32,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    alarms: BinaryHeap<Reverse<Alarm>>,
    tickets: u64,
}

impl Timers {
    /// Sets an alarm and returns its ticket, which is never 0.
    pub(super) fn set(&mut self, at: Timestamp, lane: u32) -> u64 {
        self.tickets += 1;
        self.alarms.push(Reverse(Alarm { at, ticket: self.tickets, lane }));
        self.tickets
    }

    pub(super) fn first(&self) -> Option<Alarm> {
        self.alarms.peek().map(|alarm| alarm.0)
    }

    pub(super) fn remove_first(&mut self) {
        self.alarms.pop();
    }
}
