//! Reports and explanations.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::event::category;

use super::in_flight::InFlight;
use super::known::Busy;
use super::lane::{Lane, LaneKind, Node, chain};
use super::lane_extras::{LaneExtras, Trouble};
use super::ready::Singleton;
use super::report::{Explanation, Snapshot, StateTotals, StreamReport, StreamState, TrancheReport};
use super::slab::NONE;
use super::{Order, Scheduler};
use crate::work::{Work, WorkKind};

impl Scheduler {
    pub(super) fn report_tranche(&self, tranche: u32) -> TrancheReport {
        let of = &self.ledger.tranches[tranche as usize];
        let counts = &of.counts;
        let blocked = self.ledger.blocked_at(tranche).map(|(batch, slot)| (self.ledger.batch(batch), slot));
        TrancheReport {
            tranche: of.id.clone(),
            batches: counts.busy,
            batches_held: of.batches().len(),
            bytes: usize::try_from(counts.bytes).unwrap_or(usize::MAX),
            ahead: counts.ahead,
            unhandled: counts.unhandled,
            in_flight: counts.in_flight,
            set_runs: of.set_runs(),
            version: counts.version,
            completed_batches: counts.completed_batches,
            completed_events: counts.completed_events,
            blocked_at: blocked.map(|(batch, slot)| batch.ordinals.get(slot)),
            blocked_since: blocked.map(|(batch, _)| batch.read_at),
        }
    }

    pub(super) fn find_stuck(&self, after: Duration, now: Timestamp) -> Vec<StreamReport> {
        let mut stuck = Vec::new();
        for lane_id in self.lane_ids() {
            let spent = self.spent(&self.lanes[lane_id], now);
            if spent > Duration::ZERO && spent >= after {
                stuck.push((spent, self.report_lane(lane_id, now)));
            }
        }
        for call in self.in_flight.singletons().map(|slot| self.in_flight.get(slot)) {
            let spent = call.spent(self.clock.read(now));
            if spent > Duration::ZERO && spent >= after {
                stuck.push((spent, self.report_singleton_in_flight(call, now)));
            }
        }
        stuck.sort_by_key(|(spent, _)| Reverse(*spent));
        stuck.into_iter().map(|(_, report)| report).collect()
    }

    /// Returns the time that a lane's first event was offered without progress, the call in flight included. An event
    /// that was never tried has spent none.
    fn spent(&self, lane: &Lane, now: Timestamp) -> Duration {
        let clock = |from| self.clock.since(from, now);
        let calls = std::iter::successors(self.call(lane.in_flight), |call| self.call(call.sibling));
        let running =
            calls.filter(|call| !call.revoked && call.kind != WorkKind::Park).min_by_key(|call| call.first_at);
        let victim = match running {
            Some(call) => call.first_at,
            None if lane.in_flight != NONE || lane.len == 0 => return Duration::ZERO,
            None => self.store.at(&self.nodes[self.first_node_of(lane)]),
        };
        let extras = self.extras(lane);
        let before = extras.map_or(Duration::ZERO, |extras| extras.spent_on(victim, clock));
        let counts = extras.is_some_and(|extras| extras.victim == Some(victim) && extras.counts_from.is_some());
        // While the victim's clock runs on between its calls, it covers the call in flight, too.
        before + running.filter(|_| !counts).map_or(Duration::ZERO, |call| call.spent(self.clock.read(now)))
    }

    pub(super) fn take_stuck_work(&mut self, after: Duration, now: Timestamp) -> Vec<(StreamReport, Work)> {
        let mut stuck = Vec::new();
        for lane_id in self.lane_ids().collect::<Vec<_>>() {
            let lane = &self.lanes[lane_id];
            let spent = self.spent(lane, now);
            // A call that does not return keeps its stream (C6).
            if lane.in_flight == NONE && spent > Duration::ZERO && spent >= after {
                let report = self.report_lane(lane_id, now);
                stuck.push((report, self.offer_first(lane_id, now)));
            }
        }
        stuck
    }

    pub(super) fn find_missing(&self, now: Timestamp) -> Vec<StreamReport> {
        if !self.options.require_all {
            return Vec::new();
        }
        let is_missing = |&lane: &u32| self.misses_index(lane).is_some();
        let mut missing: Vec<_> = self.lane_ids().filter(is_missing).map(|lane| self.report_lane(lane, now)).collect();
        missing.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.stream.cmp(&b.stream)));
        missing
    }

    fn lane_ids(&self) -> impl Iterator<Item = u32> {
        (0..self.lanes.bound()).filter(|&lane| !self.lanes[lane].free)
    }

    fn extras(&self, lane: &Lane) -> Option<&LaneExtras> {
        (lane.extras != NONE).then(|| &self.lane_extras[lane.extras])
    }

    fn state(&self, lane_id: u32) -> StreamState {
        let lane = &self.lanes[lane_id];
        let extras = self.extras(lane);
        if extras.is_some_and(|extras| extras.parked.is_some()) {
            return StreamState::Parked;
        }
        match extras.map_or(Trouble::None, |extras| extras.trouble) {
            Trouble::Failing => StreamState::Failing,
            Trouble::Stalled => StreamState::Stalled,
            Trouble::Deferred => StreamState::Deferred,
            Trouble::None if lane.in_flight != NONE => StreamState::Active,
            Trouble::None if lane.len == 0 => StreamState::Idle,
            Trouble::None if self.misses_events(lane_id) => StreamState::Waiting,
            Trouble::None => StreamState::Ready,
        }
    }

    fn report_lane(&self, lane_id: u32, now: Timestamp) -> StreamReport {
        let lane = &self.lanes[lane_id];
        let extras = self.extras(lane);
        let calls = || std::iter::successors(self.call(lane.in_flight), |call| self.call(call.sibling));
        let state = self.state(lane_id);
        let since = match (state, extras) {
            (StreamState::Parked, Some(extras)) => extras.parked.map(|parked| parked.since),
            (StreamState::Failing | StreamState::Stalled, Some(extras)) => extras.since,
            (StreamState::Deferred, Some(extras)) => Some(extras.deferred_at),
            (StreamState::Active, _) => calls().map(|call| call.taken).min(),
            _ => Some(lane.since),
        };
        let epoch = self.streams.get(lane.stream).epoch;
        let first = self.first_node(lane_id);
        StreamReport {
            stream: self.streams.text(lane.stream).to_owned(),
            tranche: self.ledger.tranches[self.ledger.epochs[epoch as usize].tranche as usize].id.clone(),
            state,
            running: lane.in_flight != NONE,
            head: (first != NONE).then(|| self.nodes[first].index),
            events: lane.len as usize + calls().map(|call| call.events as usize).sum::<usize>(),
            bytes: usize::try_from(lane.bytes + calls().map(|call| call.bytes).sum::<u64>()).unwrap_or(usize::MAX),
            failures: extras.map_or(0, |extras| extras.failures),
            age: now.since(since.unwrap_or(now)),
            until: extras.filter(|extras| extras.ticket != 0).map(|extras| extras.until),
            missing: self.misses_index(lane_id),
        }
    }

    fn call(&self, slot: u32) -> Option<&InFlight> {
        (slot != NONE).then(|| self.in_flight.get(slot))
    }

    pub(super) fn explain_stream(&self, name: &str, now: Timestamp) -> Explanation {
        let streams = match self.options.order {
            Order::Stream => self.all_named(name.as_bytes()),
            _ => Vec::new(),
        };
        // Several tranches of a sparse source can have a stream of this name. One with work is explained.
        let has_work = |&stream: &u32| self.streams.get(stream).busy() != Busy::Nothing;
        let Some(stream) = streams.into_iter().filter(|&stream| self.is_current(stream)).max_by_key(has_work) else {
            return self.explain_other(name, now);
        };
        let known = self.streams.get(stream);
        let write_position = (known.write() >= 0).then(|| known.write());
        match known.busy() {
            Busy::Nothing => self.explain_idle(stream, write_position),
            Busy::Lane(lane) => {
                let gaps =
                    self.extras(&self.lanes[lane]).map(|extras| extras.gaps.ranges().to_vec()).unwrap_or_default();
                Explanation { write_position, gaps, ..self.explain_lane(lane, now) }
            }
            Busy::Singleton { batch, at } => {
                let singleton = self.ready.singleton_at(batch, at);
                let explained =
                    self.explain_singleton(self.report_singleton(singleton, batch, at, now), batch, singleton.slot);
                Explanation { write_position, ..explained }
            }
            Busy::SingletonInFlight(slot) => {
                let call = self.in_flight.get(slot);
                let explained =
                    self.explain_singleton(self.report_singleton_in_flight(call, now), call.batch, call.slot);
                Explanation { write_position, ..explained }
            }
        }
    }

    fn explain_singleton(&self, report: StreamReport, batch: u32, slot: u32) -> Explanation {
        let blocks = self.blocks(batch, slot).then(|| self.ledger.batch(batch).ordinals.get(slot));
        Explanation { state: report.state, report: Some(report), write_position: None, gaps: Vec::new(), blocks }
    }

    /// Reports a queued singleton.
    fn report_singleton(&self, singleton: Singleton, batch: u32, at: u32, now: Timestamp) -> StreamReport {
        let event = self.store.read(batch, at);
        StreamReport {
            head: Some(event.index()),
            events: 1,
            bytes: event.held_bytes(),
            age: now.since(self.ledger.batch(batch).read_at),
            ..self.report_stream(singleton.stream, StreamState::Ready)
        }
    }

    /// Reports a singleton in flight.
    fn report_singleton_in_flight(&self, call: &InFlight, now: Timestamp) -> StreamReport {
        StreamReport {
            running: true,
            events: 1,
            bytes: usize::try_from(call.bytes).unwrap_or(usize::MAX),
            age: now.since(call.taken),
            ..self.report_stream(call.singleton, StreamState::Active)
        }
    }

    /// Reports a stream without work.
    fn report_stream(&self, stream: u32, state: StreamState) -> StreamReport {
        let tranche = self.ledger.epochs[self.streams.get(stream).epoch as usize].tranche;
        StreamReport {
            stream: self.streams.text(stream).to_owned(),
            tranche: self.ledger.tranches[tranche as usize].id.clone(),
            state,
            running: false,
            head: None,
            events: 0,
            bytes: 0,
            failures: 0,
            age: Duration::ZERO,
            until: None,
            missing: None,
        }
    }

    /// Returns whether the knowledge of a stream is current, that is, not of a released tranche.
    fn is_current(&self, stream: u32) -> bool {
        let known = self.streams.get(stream);
        self.ledger.epochs[known.epoch as usize].open || !known.has_nothing_to_do()
    }

    fn explain_idle(&self, stream: u32, write_position: Option<i64>) -> Explanation {
        let report = self.report_stream(stream, StreamState::Idle);
        Explanation { state: StreamState::Idle, report: Some(report), write_position, gaps: Vec::new(), blocks: None }
    }

    fn explain_lane(&self, lane: u32, now: Timestamp) -> Explanation {
        let report = self.report_lane(lane, now);
        Explanation {
            state: report.state,
            report: Some(report),
            write_position: None,
            gaps: Vec::new(),
            blocks: self.blocked_by(lane),
        }
    }

    /// Explains the events queued under a name in orders that do not separate streams, by the first event.
    fn explain_other(&self, name: &str, now: Timestamp) -> Explanation {
        let is_it = |&lane: &u32| {
            let lane = &self.lanes[lane];
            let by_name =
                lane.kind != LaneKind::Stream && self.streams.name(lane.stream) == name.as_bytes() && !lane.is_idle();
            by_name || chain(&self.nodes, lane.head).any(|id| self.store.event(&self.nodes[id]).stream() == name)
        };
        match self.lane_ids().find(is_it) {
            Some(lane) => self.explain_lane(lane, now),
            None => Explanation {
                state: StreamState::Unknown,
                report: None,
                write_position: None,
                gaps: Vec::new(),
                blocks: None,
            },
        }
    }

    /// Returns the first unhandled ordinal of a tranche, if a lane has it.
    fn blocked_by(&self, lane_id: u32) -> Option<crate::position::Ordinal> {
        let lane = &self.lanes[lane_id];
        let calls = std::iter::successors(self.call(lane.in_flight), |call| self.call(call.sibling))
            .filter(|call| !call.revoked);
        let in_flight = calls.flat_map(|call| chain(&self.nodes, call.head));
        // A recovered event may have outlived its batch.
        let nodes = self.queued(lane_id).into_iter().chain(in_flight).map(|id| &self.nodes[id]);
        let nodes = nodes.filter(|node| !node.has(Node::RECOVERED)).map(|node| (node.batch, node.slot));
        let dependents = self
            .extras(lane)
            .into_iter()
            .flat_map(|extras| &extras.dependents)
            .map(|dependent| (dependent.batch, dependent.slot));
        let mut places = nodes.chain(dependents);
        places
            .find(|&(batch, slot)| self.blocks(batch, slot))
            .map(|(batch, slot)| self.ledger.batch(batch).ordinals.get(slot))
    }

    pub(super) fn holds_oldest(&self, call: &InFlight) -> bool {
        match call.is_singleton() {
            true => self.blocks(call.batch, call.slot),
            false => !call.revoked && self.blocked_by(call.lane).is_some(),
        }
    }

    /// Returns whether an ordinal is the one that holds its tranche back.
    fn blocks(&self, batch: u32, slot: u32) -> bool {
        self.ledger.blocked_at(self.ledger.tranche_of(batch)) == Some((batch, slot))
    }

    pub(super) fn take_snapshot(&self, most: usize, now: Timestamp) -> Snapshot {
        let known: usize = self.ledger.epochs.iter().filter(|epoch| epoch.open).map(|epoch| epoch.streams).sum();
        let mut snapshot = Snapshot {
            late_events: self.late_events,
            duplicates: self.duplicates,
            conflicts: self.conflicts,
            ..Snapshot::default()
        };
        let mut totals = Totals::default();
        let mut attention: [Vec<(Duration, Busy)>; 5] = Default::default();
        let mut largest = Vec::with_capacity(LARGEST + 1);
        let mut busy = self.add_singleton(&mut totals, &mut attention[2], &mut largest, now);
        for lane_id in self.lane_ids() {
            let report = self.report_lane(lane_id, now);
            let lane = &self.lanes[lane_id];
            if report.state == StreamState::Idle {
                continue;
            }
            let is_current = self.ledger.epochs[self.streams.get(lane.stream).epoch as usize].open;
            busy += usize::from(lane.kind == LaneKind::Stream && is_current);
            let list = match report.state {
                StreamState::Failing => Some(0),
                StreamState::Stalled => Some(1),
                StreamState::Active => Some(2),
                StreamState::Parked => Some(3),
                StreamState::Waiting => Some(4),
                _ => None,
            };
            if let Some(list) = list {
                attention[list].push((report.age, Busy::Lane(lane_id)));
            }
            if matches!(report.state, StreamState::Ready | StreamState::Waiting) {
                keep_largest(&mut largest, &report);
            }
            let name = self.streams.text(lane.stream);
            totals.add(report.state, &report, name);
            if report.running && report.state != StreamState::Active {
                let taken = self.call(lane.in_flight).map_or(now, |call| call.taken);
                totals.add(StreamState::Active, &StreamReport { age: now.since(taken), ..report }, name);
            }
        }
        for list in &mut attention {
            list.sort_by_key(|(age, _)| Reverse(*age));
            list.truncate(most);
        }
        let listed = attention.concat().into_iter().filter_map(|(_, busy)| match busy {
            Busy::Lane(lane) => Some(self.report_lane(lane, now)),
            Busy::SingletonInFlight(call) => Some(self.report_singleton_in_flight(self.in_flight.get(call), now)),
            Busy::Nothing | Busy::Singleton { .. } => None,
        });
        let mut streams: Vec<_> = listed.collect();
        streams.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.stream.cmp(&b.stream)));
        snapshot.idle = known.saturating_sub(busy);
        snapshot.streams = streams;
        snapshot.largest = largest;
        totals.write(&mut snapshot);
        snapshot
    }

    /// Adds the singletons to the totals, and those in flight to the active streams. Returns their number.
    fn add_singleton<'a>(
        &'a self,
        totals: &mut Totals<'a>,
        active: &mut Vec<(Duration, Busy)>,
        largest: &mut Vec<StreamReport>,
        now: Timestamp,
    ) -> usize {
        let mut streams = 0;
        for &batch in self.ledger.tranches.iter().flat_map(|tranche| tranche.batches()) {
            for (at, singleton) in self.ready.singletons(batch) {
                let report = self.report_singleton(singleton, batch, at, now);
                keep_largest(largest, &report);
                totals.add(report.state, &report, self.streams.text(singleton.stream));
                streams += 1;
            }
        }
        for slot in self.in_flight.singletons() {
            let call = self.in_flight.get(slot);
            let report = self.report_singleton_in_flight(call, now);
            totals.add(report.state, &report, self.streams.text(call.singleton));
            active.push((report.age, Busy::SingletonInFlight(slot)));
            streams += 1;
        }
        streams
    }
}

/// The number of streams in the list of those with most bytes.
const LARGEST: usize = 5;

fn keep_largest(largest: &mut Vec<StreamReport>, report: &StreamReport) {
    let at = largest.partition_point(|other| other.bytes >= report.bytes);
    if at < LARGEST {
        largest.insert(at, report.clone());
        largest.truncate(LARGEST);
    }
}

/// Totals by state, while they are added up.
#[derive(Default)]
struct Totals<'a> {
    states: [(StateTotals, HashSet<&'a str>); 7],
}

impl<'a> Totals<'a> {
    fn add(&mut self, state: StreamState, report: &StreamReport, name: &'a str) {
        let at = match state {
            StreamState::Ready => 0,
            StreamState::Waiting => 1,
            StreamState::Active => 2,
            StreamState::Failing => 3,
            StreamState::Stalled => 4,
            StreamState::Deferred => 5,
            StreamState::Parked => 6,
            StreamState::Unknown | StreamState::Idle => return,
        };
        let (totals, categories) = &mut self.states[at];
        totals.newest = if totals.streams == 0 { report.age } else { totals.newest.min(report.age) };
        totals.oldest = totals.oldest.max(report.age);
        totals.streams += 1;
        totals.events += report.events;
        totals.bytes += report.bytes;
        categories.insert(category(name));
    }

    fn write(self, snapshot: &mut Snapshot) {
        let [ready, waiting, active, failing, stalled, deferred, parked] =
            self.states.map(|(totals, categories)| StateTotals { categories: categories.len(), ..totals });
        (snapshot.ready, snapshot.waiting, snapshot.active) = (ready, waiting, active);
        (snapshot.failing, snapshot.stalled, snapshot.deferred, snapshot.parked) = (failing, stalled, deferred, parked);
    }
}
