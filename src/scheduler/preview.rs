//! Previews of the progress, as if calls in flight were done (C9).

use crate::event::Indexes;
use crate::position::{Progress, TrancheId, WritePosition};
use crate::work::WorkId;

use super::Scheduler;
use super::in_flight::InFlight;
use super::known::Known;
use super::lane::{Body, Lane, LaneKind, Node, chain};
use super::lane_extras::{Gaps, On};
use super::slab::NONE;

impl Scheduler {
    pub(super) fn preview(&mut self, done: &[(WorkId, i64)]) -> Vec<(TrancheId, Progress)> {
        let mut handled = std::mem::take(&mut self.handled);
        handled.clear();
        for &(work, next) in done {
            if let Some(call) = self.in_flight.find(work).filter(|call| !call.revoked) {
                self.collect(call, next, &mut handled);
            }
        }
        let progress = self.ledger.progress_with(&handled);
        self.handled = handled;
        let named = |(tranche, progress): (u32, _)| (self.ledger.tranches[tranche as usize].id.clone(), progress);
        progress.into_iter().map(named).collect()
    }

    /// Returns the write position to store for the work's stream, once the work is done up to `next`.
    ///
    /// It leaves trailing placeholders out, unless `require_all` depends on them.
    pub(super) fn preview_write_position(&self, work: WorkId, next: i64) -> Option<WritePosition> {
        let call = self.in_flight.find(work).filter(|call| !call.revoked)?;
        if call.is_singleton() {
            return call
                .ends_by(next)
                .then(|| self.kept_of(call, call.singleton, None, Gaps::default(), next, next))?;
        }
        let lane = &self.lanes[call.lane];
        if lane.kind != LaneKind::Stream {
            return None;
        }
        let taken =
            chain(&self.nodes, call.head).map(|id| &self.nodes[id]).take_while(|node| node.next_index() <= next);
        let events = taken.filter(|node| node.is_out() && !node.is_unfold());
        let real = events.map(Node::next_index).max();
        let real = if next > call.next { Some(next) } else { real }?;
        let gaps = if lane.extras == NONE { Gaps::default() } else { self.lane_extras[lane.extras].gaps.clone() };
        let rest = chain(&self.nodes, call.head).find(|&id| !call.ends_by(next) && self.nodes[id].next_index() > next);
        self.kept_of(call, lane.stream, Some(rest.unwrap_or(NONE)), gaps, next, real)
    }

    /// Previews the write position of a stream. `rest` is the unfinished part of the work's chain, if the work has a
    /// lane.
    fn kept_of(
        &self,
        call: &InFlight,
        stream: u32,
        rest: Option<u32>,
        mut gaps: Gaps,
        next: i64,
        real: i64,
    ) -> Option<WritePosition> {
        let mut known = *self.streams.get(stream);
        if self.options.indexes == Indexes::Dense {
            gaps.remove(call.first, next);
            if let Some((from, next)) = known.advance(call.first, next, real) {
                gaps.add(from, next);
            }
        } else {
            let last = match next > call.next {
                true if call.is_singleton() => call.first,
                // A call of unfolds alone has no real event.
                true => call.real_next.saturating_sub(1).max(call.first),
                false => real - 1,
            };
            known.advance_sparse(call.first, last, self.write_after(call, next), real);
        }
        if self.options.require_all {
            if let Some(rest) = rest {
                self.pass_queued(&self.lanes[call.lane], rest, &mut known, |_| {});
            }
            return known.position(gaps.ranges());
        }
        let (first, next) = (known.first(), known.superseded_below().min(known.write()));
        let gaps = gaps.ranges().iter().filter(|gap| gap.0 < next).map(|gap| (gap.0, gap.1.min(next))).collect();
        (first < next).then_some(WritePosition { first, next, gaps })
    }

    /// Collects the places of all events that are handled once this work is done up to `next`.
    fn collect(&self, call: &InFlight, next: i64, handled: &mut Vec<(u32, u32)>) {
        if call.is_singleton() {
            if call.ends_by(next) {
                handled.push((call.batch, call.slot));
            }
            return;
        }
        let (mut id, mut real) = (call.head, i64::MIN);
        while id != NONE && (call.ends_by(next) || self.nodes[id].next_index() <= next) {
            let node = &self.nodes[id];
            if !node.has(Node::RECOVERED) {
                handled.push((node.batch, node.slot));
            }
            if !node.is_placeholder() {
                real = real.max(node.next_index());
            }
            id = node.next;
        }
        let lane = &self.lanes[call.lane];
        match lane.kind {
            LaneKind::Single => {}
            LaneKind::Tranche => self.collect_placeholders(call, id, handled),
            LaneKind::Stream if id == call.head => {}
            LaneKind::Stream => {
                let real = if next > call.next { next } else { real };
                self.collect_passed(call, id, next, real, handled);
            }
        }
    }

    /// Collects the placeholders that become a tranche's first, and so are passed at once.
    fn collect_placeholders(&self, call: &InFlight, rest: u32, handled: &mut Vec<(u32, u32)>) {
        let lane = &self.lanes[call.lane];
        let is_only = call.sibling == NONE && self.in_flight.get(lane.in_flight).head == call.head;
        if !is_only {
            return;
        }
        let first = if rest == NONE { lane.head } else { rest };
        let leading = chain(&self.nodes, first).map(|id| &self.nodes[id]).take_while(|node| node.is_placeholder());
        handled.extend(leading.map(|node| (node.batch, node.slot)));
    }

    /// Collects the queued events of a stream that become handled with work that is done.
    fn collect_passed(&self, call: &InFlight, rest: u32, next: i64, real: i64, handled: &mut Vec<(u32, u32)>) {
        let lane = &self.lanes[call.lane];
        let mut known = *self.streams.get(lane.stream);
        self.look_ahead(&mut known, call.first, self.write_after(call, next), real);
        self.pass_queued(lane, rest, &mut known, |node| {
            if !node.has(Node::RECOVERED) {
                handled.push((node.batch, node.slot));
            }
        });
        let unfolds_pass = lane.unfolds != NONE && self.nodes[lane.unfolds].index < known.superseded_below();
        if unfolds_pass {
            handled.extend(chain(&self.nodes, lane.unfolds).map(|id| (self.nodes[id].batch, self.nodes[id].slot)));
        }
        if lane.extras == NONE {
            return;
        }
        let extras = &self.lane_extras[lane.extras];
        let passed = |index: i64| (call.first..next).contains(&index);
        let late = || chain(&self.nodes, extras.late).map(|id| &self.nodes[id]);
        handled.extend(late().filter(|node| passed(node.index)).map(|node| (node.batch, node.slot)));
        let is_late = |index| late().any(|node| node.index == index && !passed(index));
        let dependents = extras.dependents.iter().filter(|dependent| match dependent.on {
            On::Event(index) => index < known.write() && !is_late(index),
            On::Queued => lane.unfolds == NONE || unfolds_pass,
            On::InFlight => {
                let is_out = |id: u32| self.nodes[id].is_out() && self.nodes[id].is_unfold();
                !chain(&self.nodes, rest).any(is_out)
            }
        });
        handled.extend(dependents.map(|dependent| (dependent.batch, dependent.slot)));
    }

    /// Passes the queued events that will need no offer once the work is done except for `rest`, as
    /// [`settle_head`](Self::settle_head) will.
    fn pass_queued(&self, lane: &Lane, rest: u32, known: &mut Known, mut passed: impl FnMut(&Node)) {
        for node in chain(&self.nodes, rest).chain(chain(&self.nodes, lane.head)).map(|id| &self.nodes[id]) {
            match node.body {
                Body::Read(_) | Body::Kept(_) => {}
                Body::InFlight if node.is_unfold() => continue,
                Body::InFlight | Body::Unused => break,
            }
            let (index, write) = (node.index, known.write());
            if index >= write {
                if !node.is_placeholder() || self.options.require_all && index > write.max(0) {
                    break;
                }
                self.look_ahead(known, index, index.saturating_add(1), 0);
            }
            passed(node);
        }
    }

    /// Advances the write position in a preview. With holes between indexes, a preview needs no exact offered range.
    fn look_ahead(&self, known: &mut Known, from: i64, next: i64, real: i64) {
        match self.options.indexes {
            Indexes::Dense => _ = known.advance(from, next, real),
            Indexes::Sparse => known.advance_sparse(from, from, next, real),
        }
    }
}
