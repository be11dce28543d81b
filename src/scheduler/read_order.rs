//! `order = "tranche"`: one call at a time for a tranche, in read order (C8).

use crate::clock::Timestamp;
use crate::event::Kind;
use crate::work::{Streams, WorkKind};

use super::Scheduler;
use super::in_flight::InFlight;
use super::lane::Node;
use super::offer::Span;
use super::slab::NONE;

impl Scheduler {
    /// Fills a call with runs of neighbouring events of the same stream, each stream once. A parked, failed or
    /// malformed event comes alone.
    pub(super) fn offer_in_read_order(&mut self, lane: u32, now: Timestamp, call: &mut Streams) {
        assert_eq!(self.lanes[lane].in_flight, NONE, "a tranche in read order has one call at a time");
        self.lanes[lane].ready_batch = NONE;
        while call.len() < self.options.streams_per_call.max(1) {
            let head = self.lanes[lane].head;
            if head == NONE {
                break;
            }
            let (kind, single) = (self.read_order_kind(head), self.nodes[head].has(Node::SINGLE));
            let name = self.store.event(&self.nodes[head]).stream_bytes();
            let repeats = call.iter().any(|work| work.events[0].stream_bytes() == name);
            let alone = single || kind != WorkKind::Handle;
            if !call.is_empty() && (alone || repeats) {
                break;
            }
            let mut span = Span::new(self.pool.pop().unwrap_or_default(), self.options.max_bytes);
            self.take_neighbours(lane, kind, &mut span);
            if call.is_empty() {
                let stream = self.lanes[lane].stream;
                self.streams.rename(stream, span.events[0].stream_bytes());
            }
            let in_flight = InFlight::new(lane, NONE, kind, now, self.clock.read(now));
            call.push(self.hand_out(in_flight, span));
            if alone {
                break;
            }
        }
    }

    pub(super) fn read_order_kind(&self, node: u32) -> WorkKind {
        let node = &self.nodes[node];
        let tranche = &self.ledger.tranches[self.ledger.tranche_of(node.batch) as usize];
        match node.kind {
            Kind::Malformed if node.has(Node::PARK) => WorkKind::Park,
            Kind::Malformed => WorkKind::Malformed,
            _ if tranche.parked.contains_key(self.store.event(node).stream_bytes()) => WorkKind::Park,
            _ => WorkKind::Handle,
        }
    }

    /// Takes the leading events of one stream, and the placeholders among and after them.
    fn take_neighbours(&mut self, lane_id: u32, kind: WorkKind, span: &mut Span) {
        let (mut id, mut last, mut taken) = (self.lanes[lane_id].head, NONE, 0);
        let alone = self.nodes[id].has(Node::SINGLE) || kind == WorkKind::Malformed || self.nodes[id].has(Node::PARK);
        while id != NONE {
            let node = &mut self.nodes[id];
            let is_placeholder = node.is_placeholder();
            if last != NONE && !is_placeholder {
                let event = self.store.event(node);
                let fits = span.events.len() < self.options.max_events && span.fits(&self.store, node);
                let is_same = event.stream_bytes() == span.events[0].stream_bytes() && event.kind() != Kind::Malformed;
                if alone || !fits || !is_same || node.has(Node::SINGLE) {
                    break;
                }
            }
            if !is_placeholder {
                span.event(&mut self.store, node);
            }
            let next = node.next;
            if last == NONE {
                span.head = id;
            }
            (last, id, taken) = (id, next, taken + 1);
        }
        span.last = last;
        self.nodes[last].next = NONE;
        let lane = &mut self.lanes[lane_id];
        lane.head = id;
        lane.len -= taken;
        if id == NONE {
            lane.tail = NONE;
        }
    }
}
