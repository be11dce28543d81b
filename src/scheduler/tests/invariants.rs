//! The conditions that hold after every step, counted anew.

use std::collections::{HashMap, HashSet};

use super::super::known::Busy;
use super::super::lane::{Body, Node, chain};
use super::super::slab::NONE;
use super::super::{Indexes, Order, Scheduler};
use crate::event::Kind;

/// The references to the events of one batch.
#[derive(Default)]
struct Referred {
    events: u32,
    waiting: u32,
}

/// Checks every counter and every link against a count from scratch.
pub(super) fn check(scheduler: &Scheduler) {
    let mut batches: HashMap<u32, Referred> = HashMap::new();
    let mut bytes: HashMap<u32, u64> = HashMap::new();
    let mut seen = HashSet::new();
    let refer = |batches: &mut HashMap<u32, Referred>, batch: u32, waiting: bool| {
        let referred = batches.entry(batch).or_default();
        referred.events += 1;
        referred.waiting += u32::from(waiting);
    };
    for lane_id in 0..scheduler.lanes.bound() {
        let lane = &scheduler.lanes[lane_id];
        if lane.free {
            continue;
        }
        let queued = scheduler.queued(lane_id);
        assert_eq!(queued.len() as u32, lane.len, "a lane knows its length");
        let mut held = 0;
        for id in queued {
            let node = &scheduler.nodes[id];
            assert!(seen.insert(id), "a node is in one place");
            held += scheduler.store.bytes(node);
            *bytes.entry(scheduler.ledger.tranche_of(node.batch)).or_default() += scheduler.store.bytes(node);
            if !node.has(Node::RECOVERED) {
                refer(&mut batches, node.batch, node.has(Node::WAITING));
            }
        }
        assert_eq!(held, lane.bytes, "a lane knows its bytes");
        check_order(scheduler, lane_id);
        let mut sibling = lane.in_flight;
        while sibling != NONE {
            let call = scheduler.in_flight.get(sibling);
            sibling = call.sibling;
            assert_eq!(call.lane, lane_id, "work in flight knows its lane");
            for id in chain(&scheduler.nodes, call.head) {
                assert!(seen.insert(id), "a node is in one place");
                if !call.revoked && !scheduler.nodes[id].has(Node::RECOVERED) {
                    let node = &scheduler.nodes[id];
                    refer(&mut batches, node.batch, node.has(Node::WAITING));
                }
            }
            if !call.revoked {
                *bytes.entry(call.tranche).or_default() += call.bytes;
            }
        }
        if lane.extras != NONE {
            let extras = &scheduler.lane_extras[lane.extras];
            assert_eq!(extras.lane, lane_id);
            for dependent in &extras.dependents {
                assert_eq!(dependent.waiting, extras.waiting);
                refer(&mut batches, dependent.batch, dependent.waiting);
            }
        }
        check_ready(scheduler, lane_id);
    }
    assert_eq!(scheduler.nodes.used() as usize, seen.len(), "no node is lost");
    for (batch, stream, slot, held) in singleton(scheduler) {
        refer(&mut batches, batch, false);
        *bytes.entry(scheduler.ledger.tranche_of(batch)).or_default() += held;
        assert!(slot < scheduler.ledger.batch(batch).ordinals.len() && stream < scheduler.streams.bound());
    }
    check_store(scheduler);
    check_epochs(scheduler);
    check_ledger(scheduler, &batches, &bytes);
}

/// Returns the singletons, queued and in flight: batch, stream, place of the ordinal, bytes.
fn singleton(scheduler: &Scheduler) -> Vec<(u32, u32, u32, u64)> {
    let mut singleton = Vec::new();
    for &batch in scheduler.ledger.tranches.iter().flat_map(|tranche| tranche.batches()) {
        for (at, of) in scheduler.ready.singletons(batch) {
            assert_eq!(scheduler.streams.get(of.stream).busy(), Busy::Singleton { batch, at });
            singleton.push((batch, of.stream, of.slot, scheduler.store.read(batch, at).held_bytes() as u64));
        }
    }
    for id in scheduler.in_flight.singletons() {
        let call = scheduler.in_flight.get(id);
        assert_eq!(scheduler.streams.get(call.singleton).busy(), Busy::SingletonInFlight(id));
        singleton.push((call.batch, call.singleton, call.slot, call.bytes));
    }
    let busy = |stream: &u32| {
        let known = scheduler.streams.get(*stream);
        !known.free && matches!(known.busy(), Busy::Singleton { .. } | Busy::SingletonInFlight(_))
    };
    assert_eq!(
        (0..scheduler.streams.bound()).filter(busy).count(),
        singleton.len(),
        "a singleton event is known to its stream"
    );
    singleton
}

/// Every epoch knows how many streams refer to it, and none is kept that nothing refers to.
fn check_epochs(scheduler: &Scheduler) {
    let mut streams: HashMap<u32, usize> = HashMap::new();
    let known = (0..scheduler.streams.bound()).map(|stream| scheduler.streams.get(stream)).filter(|known| !known.free);
    for known in known {
        *streams.entry(known.epoch).or_default() += 1;
    }
    for (id, epoch) in (0_u32..).zip(&scheduler.ledger.epochs) {
        let referred = streams.remove(&id).unwrap_or(0);
        assert_eq!(epoch.streams + epoch.anonymous, referred, "an epoch knows its streams");
    }
    assert!(streams.is_empty(), "a stream belongs to an epoch");
}

/// Checks that batches still hold the queued events, and no others.
fn check_store(scheduler: &Scheduler) {
    let mut queued: HashMap<u32, usize> = HashMap::new();
    for lane in (0..scheduler.lanes.bound()).filter(|&lane| !scheduler.lanes[lane].free) {
        let mut sibling = scheduler.lanes[lane].in_flight;
        let mut ids = scheduler.queued(lane);
        while sibling != NONE {
            let call = scheduler.in_flight.get(sibling);
            ids.extend(chain(&scheduler.nodes, call.head));
            sibling = call.sibling;
        }
        // Placeholders stay in their batch while the span around them is in flight.
        for node in ids.into_iter().map(|id| &scheduler.nodes[id]) {
            if let Body::Read(_) = node.body {
                *queued.entry(node.batch).or_default() += 1;
            }
        }
    }
    for &batch in scheduler.ledger.tranches.iter().flat_map(|tranche| tranche.batches()) {
        let held = queued.remove(&batch).unwrap_or(0) + scheduler.ready.singletons(batch).count();
        assert_eq!(scheduler.store.left(batch), held, "a batch holds queued events only");
    }
    assert!(queued.is_empty(), "a queued event is held");
}

fn check_order(scheduler: &Scheduler, lane_id: u32) {
    let lane = &scheduler.lanes[lane_id];
    let events: Vec<_> =
        chain(&scheduler.nodes, lane.head).map(|id| scheduler.store.event(&scheduler.nodes[id])).collect();
    if scheduler.options.order == Order::Tranche {
        assert!(events.is_sorted_by(|a, b| a.at() <= b.at()), "a tranche is in read order: {events:?}");
        return;
    }
    assert!(events.is_sorted_by(|a, b| a.index() < b.index()), "a stream is in index order: {events:?}");
    let write = scheduler.streams.get(lane.stream).write();
    if scheduler.options.order == Order::Stream
        && lane.in_flight == NONE
        && events.iter().all(|event| event.kind() != Kind::Malformed)
    {
        assert!(events.first().is_none_or(|event| event.index() >= write), "a queued event was not passed");
    }
    assert_eq!(lane.head == NONE, lane.tail == NONE);
    if let Some(last) =
        events.last().filter(|event| event.kind() != Kind::Malformed && scheduler.options.order == Order::Stream)
    {
        assert_eq!(last.index(), lane.last);
    }
    let unfolds = chain(&scheduler.nodes, lane.unfolds).map(|id| scheduler.store.event(&scheduler.nodes[id]));
    let unfolds: Vec<_> = unfolds.collect();
    assert!(
        unfolds.windows(2).all(|pair| pair[0].at() == pair[1].at() && pair[0].index() == pair[1].index()),
        "{unfolds:?}"
    );
}

fn check_ready(scheduler: &Scheduler, lane_id: u32) {
    let lane = &scheduler.lanes[lane_id];
    let is_ready = lane.in_flight == NONE && lane.len > 0 && scheduler.may_go(lane_id);
    assert_eq!(lane.ready_batch != NONE, is_ready, "lane {lane_id} is ready when it should be");
    if is_ready {
        let tranche = &scheduler.ledger.tranches[scheduler.ledger.tranche_of(lane.ready_batch) as usize];
        assert!(tranche.batches().contains(&lane.ready_batch), "a ready lane can be found");
    }
    if lane.in_flight == NONE && lane.len > 0 {
        let ticket = if lane.extras == NONE { 0 } else { scheduler.lane_extras[lane.extras].ticket };
        let misses = scheduler.misses_events(lane_id);
        assert!(is_ready || ticket != 0 || misses, "a lane waits for something");
    }
}

fn check_ledger(scheduler: &Scheduler, referred: &HashMap<u32, Referred>, bytes: &HashMap<u32, u64>) {
    for (tranche_id, tranche) in (0_u32..).zip(&scheduler.ledger.tranches) {
        if !tranche.is_held() {
            assert!(tranche.batches().is_empty());
            continue;
        }
        let (mut busy, mut ahead, mut unhandled) = (0, 0, 0);
        for &id in tranche.batches() {
            let batch = scheduler.ledger.batch(id);
            let (events, waiting) = referred.get(&id).map_or((0, 0), |referred| (referred.events, referred.waiting));
            assert_eq!(
                (batch.outstanding, batch.waiting),
                (events, waiting),
                "every unhandled event is somewhere, once"
            );
            busy += usize::from(batch.is_busy());
            ahead += u64::from(batch.events);
            unhandled += u64::from(batch.outstanding);
        }
        let counts = &tranche.counts;
        assert_eq!((counts.busy, counts.ahead, counts.unhandled), (busy, ahead, unhandled));
        assert_eq!(counts.bytes, bytes.get(&tranche_id).copied().unwrap_or(0), "a tranche knows its bytes");
        assert_eq!(tranche.set_runs(), scheduler.ledger.progress(tranche_id).handled.runs().len());
    }
    let live: HashSet<_> = scheduler.ledger.tranches.iter().flat_map(|tranche| tranche.batches()).collect();
    assert!(referred.keys().all(|batch| live.contains(batch)), "nothing refers to a batch that is gone");
    if let Some(alarm) = scheduler.timers.first() {
        let extras = scheduler.lanes[alarm.lane].extras;
        assert!(extras != NONE && scheduler.lane_extras[extras].ticket == alarm.ticket, "the first alarm counts");
    }
    for lane in (0..scheduler.lanes.bound()).filter(|&lane| !scheduler.lanes[lane].free) {
        assert!(scheduler.queued(lane).into_iter().all(|id| !scheduler.nodes[id].is_out()));
    }
    if scheduler.options.indexes == Indexes::Sparse {
        assert!((0..scheduler.lanes.bound()).all(|lane| !scheduler.lanes[lane].mixed));
    }
}
