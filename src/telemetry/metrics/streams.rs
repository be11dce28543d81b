//! The number of streams in each state, under Propulsion's state names.

use super::families::Scheduler;
use super::series::StateGauge;
use crate::scheduler::{Snapshot, StateTotals};

type Totals = fn(&Snapshot) -> &StateTotals;

/// The states of streams with events. `failing`, `stalled` and `deferred` are new: Propulsion counts such streams as
/// `ready`, because it offers them again at once. Propulsion's `malformed`, a stream held back for good, is a parked
/// stream here.
const STATES: [(&str, Totals); 7] = [
    ("active", |snapshot| &snapshot.active),
    ("ready", |snapshot| &snapshot.ready),
    ("buffering", |snapshot| &snapshot.waiting),
    ("malformed", |snapshot| &snapshot.parked),
    ("failing", |snapshot| &snapshot.failing),
    ("stalled", |snapshot| &snapshot.stalled),
    ("deferred", |snapshot| &snapshot.deferred),
];

const BUSY: [(&str, Totals); 3] = [
    ("active", |snapshot| &snapshot.active),
    ("failing", |snapshot| &snapshot.failing),
    ("stalled", |snapshot| &snapshot.stalled),
];

/// The gauges of one pipeline's scheduler. Each appears with its first stream.
pub(super) struct Streams {
    synced: StateGauge,
    states: Vec<(Totals, State)>,
    busy: Vec<(Totals, Busy)>,
}

struct State {
    categories: StateGauge,
    streams: StateGauge,
    events: StateGauge,
    bytes: StateGauge,
}

struct Busy {
    count: StateGauge,
    oldest: StateGauge,
    newest: StateGauge,
}

impl Streams {
    pub(super) fn new(families: &Scheduler, pipeline: &str, group: &str) -> Self {
        let state = |(name, totals): (&str, Totals)| {
            let labels = [pipeline, group, name];
            let gauges = State {
                categories: families.categories.get(&labels),
                streams: families.streams.get(&labels),
                events: families.events.get(&labels),
                bytes: families.bytes.get(&labels),
            };
            (totals, gauges)
        };
        let busy = |(name, totals): (&str, Totals)| {
            let gauges = Busy {
                count: families.busy_count.get(&[pipeline, group, name]),
                oldest: families.busy_seconds.get(&[pipeline, "oldest", group, name]),
                newest: families.busy_seconds.get(&[pipeline, "newest", group, name]),
            };
            (totals, gauges)
        };
        Self {
            synced: families.streams.get(&[pipeline, group, "synced"]),
            states: STATES.into_iter().map(state).collect(),
            busy: BUSY.into_iter().map(busy).collect(),
        }
    }

    pub(super) fn show(&self, snapshot: &Snapshot) {
        self.synced.set(snapshot.idle as f64);
        for (totals, gauges) in &self.states {
            let totals = totals(snapshot);
            gauges.categories.set(totals.categories as f64);
            gauges.streams.set(totals.streams as f64);
            gauges.events.set(totals.events as f64);
            gauges.bytes.set(totals.bytes as f64);
        }
        for (totals, gauges) in &self.busy {
            let totals = totals(snapshot);
            gauges.count.set(totals.streams as f64);
            gauges.oldest.set(totals.oldest.as_secs_f64());
            gauges.newest.set(totals.newest.as_secs_f64());
        }
    }
}
