//! The fate of every event: settled, skipped, parked, or lost.

use std::collections::BTreeMap;
use std::fmt::Write;

use propulsiond::checkpoint::{CheckpointKey, ParkedState, QueuedEvent};
use propulsiond::event::{Event, Indexes, Kind};
use propulsiond::pipeline::Then;
use propulsiond::position::Progress;
use propulsiond::scheduler::Order;
use propulsiond::work::Work;

use super::feed::{is_poison, is_spoiling, place, stream_of, tranche_of};
use super::plan::FeedTrials;
use super::store::ParkedQueue;
use super::world::{Inner, Item};

impl Inner {
    /// Checks stored progress: every event that it covers is handled, filtered, skipped or parked (C9).
    pub(super) fn check_progress(&mut self, key: &CheckpointKey, progress: &Progress) {
        let tranche = key.tranche.as_str();
        let unsettled = self.logs[tranche].covered(progress).find(|event| !self.is_settled(tranche, event)).cloned();
        let Some(event) = unsettled else { return };
        let stream: Vec<_> = self.logs[tranche].events().filter(|other| other.stream() == event.stream()).collect();
        let what = format!("progress {progress:?} of `{tranche}` covers {event:?} of {stream:?}");
        self.demand(false, || what);
    }

    /// Checks events that left the parked store: each was handled, discarded, or superseded.
    pub(super) fn check_removed(&mut self, removed: &[QueuedEvent]) {
        for QueuedEvent { event, discarded } in removed {
            let place = (tranche_of(event).to_owned(), place(event));
            let jumped = self.jumped.get(&stream_of(event)).is_some_and(|next| event.next_index() <= *next);
            let gone = *discarded
                || event.is_unfold()
                || jumped
                || self.settled.contains(&place)
                || self.plan.then == Then::Skip && self.may_be_skipped(event);
            self.demand(gone, || format!("{event:?} left the parked store unhandled (C21)"));
        }
    }

    /// Checks the parked streams at the end: each waits for its operator, or for its due time.
    fn check_parked_at_the_end(&mut self) {
        if !self.plan.parking.cures {
            return;
        }
        let may_stay = |stream: &str, queue: &ParkedQueue| {
            stream.is_empty()
                || queue.mark.state == ParkedState::Deferred
                || queue.events.iter().any(|queued| self.stalls(&queued.event) || self.spoils(&queued.event))
        };
        let left = self.parked.iter().find(|((_, stream), queue)| !may_stay(stream, queue));
        let what = left.map(|(place, queue)| format!("{place:?} is still parked: {queue:?} (C32)"));
        self.demand(what.is_none(), || what.unwrap_or_default());
    }

    /// Returns an event of the work's parked stream that comes before the work, if one is not handled.
    pub(super) fn parked_before(&self, work: &Work) -> Option<Event> {
        let tranche = tranche_of(&work.events[0]);
        let mut queues =
            self.parked.iter().filter(|((key, stream), _)| key.tranche.as_str() == tranche && *stream == work.stream());
        let (_, queue) = queues.next()?;
        let is_before = |event: &&Event| event.kind() == Kind::Event && event.index() < work.first();
        let events = queue.events.iter().filter(|queued| !queued.discarded).map(|queued| &queued.event);
        let is_handled = |event: &Event| {
            self.settled.contains(&(tranche.to_owned(), place(event)))
                || self.jumped.get(&stream_of(event)).is_some_and(|next| event.next_index() <= *next)
        };
        events.filter(is_before).find(|event| !is_handled(event)).cloned()
    }

    /// Records events that a decision without effects has handled.
    pub(super) fn settle<'a>(&mut self, work: &Work, next: i64, events: impl Iterator<Item = &'a Event>) {
        let first = &work.events[0];
        for event in events {
            self.settled.insert((tranche_of(first).to_owned(), place(event)));
            self.handled_items.insert(Item::of(event));
        }
        if next > work.next {
            let jumped = self.jumped.entry(stream_of(first)).or_insert(0);
            *jumped = (*jumped).max(next);
        }
    }

    /// Returns an unhandled event of the work's stream with a smaller index, if there is one.
    pub(super) fn missing_before(&self, work: &Work) -> Option<Event> {
        let tranche = tranche_of(&work.events[0]);
        let before = |event: &&Event| {
            event.stream() == work.stream() && event.kind() == Kind::Event && event.index() < work.first()
        };
        self.logs[tranche].events().filter(before).find(|event| !self.is_settled(tranche, event)).cloned()
    }

    /// Returns an unhandled event of the work's stream that was read before it and has a smaller index, if there is one.
    pub(super) fn overtaken_by(&self, work: &Work) -> Option<Event> {
        let tranche = tranche_of(&work.events[0]);
        let read_at = work.events.iter().map(place).min()?;
        let before = |event: &&Event| {
            event.stream() == work.stream()
                && event.kind() == Kind::Event
                && event.index() < work.first()
                && event.at() < read_at
        };
        self.logs[tranche].events().filter(before).find(|event| !self.is_settled(tranche, event)).cloned()
    }

    fn is_settled(&self, tranche: &str, event: &Event) -> bool {
        let item = Item::of(event);
        if self.plan.then == Then::Skip && (event.kind() == Kind::Malformed || self.is_poisoned(tranche, event)) {
            return true;
        }
        if event.kind() == Kind::Malformed {
            let is_parked = self.parked.iter().any(|((key, stream), queue)| {
                key.tranche.as_str() == tranche && stream.is_empty() && queue.holds(event.at())
            });
            return is_parked || self.discarded.contains(&(tranche.to_owned(), event.at()));
        }
        event.kind() == Kind::Placeholder
            || super::feed::is_filtered(&self.plan, event)
            || self.settled.contains(&(tranche.to_owned(), event.at()))
            || self.handled_items.contains(&item)
            || self
                .jumped
                .get(&item.stream)
                .is_some_and(|next| event.next_index() <= *next && !(event.is_unfold() && event.index() == *next))
            || (event.is_unfold() && self.is_superseded(tranche, event))
            || self.parked.iter().any(|((key, stream), queue)| {
                key.tranche.as_str() == tranche && *stream == event.stream() && queue.holds(event.at())
            })
    }

    /// Returns whether the handler never makes progress at an event.
    pub(super) fn stalls(&self, event: &Event) -> bool {
        self.plan.trials.stalls && event.kind() == Kind::Event && event.index() == 7
    }

    /// Returns whether the commit of an event's effect always fails.
    fn spoils(&self, event: &Event) -> bool {
        self.plan.transactional && event.kind() == Kind::Event && is_spoiling(event.index())
    }

    /// Returns whether every attempt at an event, or at the commit of its effect, fails.
    fn may_be_skipped(&self, event: &Event) -> bool {
        is_poison(event) || self.spoils(event) || self.stalls(event)
    }

    /// Returns whether the event is poison, or an unfold in the call of poison. Such a call begins at the last event before
    /// the unfold that the filter keeps. The operator changes filters, so any event up to that one counts.
    fn is_poisoned(&self, tranche: &str, event: &Event) -> bool {
        let in_read_order = self.plan.order == Order::Tranche;
        let is_before = |other: &&Event| match in_read_order {
            true => other.at() < event.at(),
            false => other.index() < event.index(),
        };
        let is_event = |other: &&Event| other.stream() == event.stream() && other.kind() == Kind::Event;
        let carried = || {
            let mut before: Vec<_> = self.logs[tranche].events().filter(is_event).filter(is_before).collect();
            before.sort_by_key(|other| std::cmp::Reverse((if in_read_order { 0 } else { other.index() }, other.at())));
            let last = before.iter().position(|other| !super::feed::is_filtered(&self.plan, other));
            before[..last.map_or(before.len(), |last| last + 1)].iter().any(|carrier| self.may_be_skipped(carrier))
        };
        self.may_be_skipped(event) || event.is_unfold() && carried()
    }

    /// Returns whether newer state of the unfold's stream is handled (C3).
    fn is_superseded(&self, tranche: &str, unfold: &Event) -> bool {
        let (stream, name) = (stream_of(unfold), unfold.stream());
        let newer = |item: &Item| item.stream == stream && (item.index >= unfold.index());
        let skipped = |event: &Event| {
            self.plan.then == Then::Skip
                && self.may_be_skipped(event)
                && event.stream() == name
                && event.index() >= unfold.index()
        };
        self.handled_items.iter().any(newer)
            || self.jumped.get(&stream).is_some_and(|next| *next > unfold.index())
            || self.logs[tranche].events().any(skipped)
    }

    pub(super) fn unhandled_events(&self) -> String {
        let mut left = String::new();
        for (tranche, log) in &self.logs {
            for event in log.events().filter(|event| !self.is_settled(tranche, event)) {
                write!(left, " {tranche}:{event:?}").expect("strings take all");
            }
        }
        format!("seed {}, plan {:?}, not handled:{left}\nkept: {:?}", self.seed, self.plan, self.kept)
    }

    /// Returns whether two tranches bring the same event of a dense source.
    fn is_broken(&self) -> bool {
        let is_stray =
            |tranche: &str, event: &Event| event.kind() != Kind::Malformed && !event.stream().starts_with(tranche);
        self.logs.iter().any(|(tranche, log)| log.events().any(|event| is_stray(tranche, event)))
    }

    /// Checks that everything is handled at least once, and exactly once if the sink holds the progress (C13).
    pub(super) fn check_the_end(&mut self) {
        let all = || self.logs.iter().flat_map(|(tranche, log)| log.events().map(move |event| (tranche, event)));
        let mut lost = all().filter(|(tranche, event)| !self.is_settled(tranche, event));
        let complaint = match &self.halted {
            _ if self.plan.feed.broken && self.is_broken() => {
                self.halted.is_none().then(|| "no halt reports a broken feed (C4)".to_owned())
            }
            Some(why) => {
                (!all().any(|(_, event)| self.is_to_blame(event, why))).then(|| format!("it halted over {why}"))
            }
            None => lost.next().map(|lost| format!("{lost:?} was lost")),
        };
        drop(lost);
        self.check_parked_at_the_end();
        let repeated = if self.plan.transactional { self.written_twice() } else { None };
        for complaint in [complaint, repeated].into_iter().flatten() {
            self.demand(false, || complaint);
        }
    }

    /// Returns whether a halt names this event, and the event can never be handled.
    fn is_to_blame(&self, event: &Event, why: &str) -> bool {
        let (stream, index, event_type) = (event.stream(), event.index(), event.event_type());
        let is_named =
            why.starts_with(&format!("event {index} (`{event_type}`) of stream `{stream}` cannot be handled"));
        let is_stuck = self.stalls(event) && why.starts_with(&format!("stream `{stream}` has made no progress"));
        event.kind() == Kind::Malformed && why.starts_with("cut short; ")
            || self.may_be_skipped(event) && is_named
            || is_stuck
    }

    /// Names an effect that the sink holds twice.
    fn written_twice(&self) -> Option<String> {
        let mut ordinals = BTreeMap::new();
        let mut items = BTreeMap::new();
        for (tranche, at, item) in &self.effects {
            *ordinals.entry((tranche, at, item.index, item.unfold.is_some())).or_insert(0) += 1;
            *items.entry(item).or_insert(0) += 1;
        }
        let FeedTrials { without_ordinals, repeats, .. } = self.plan.feed;
        let ordinal = ordinals.iter().find(|(_, times)| **times > 1).filter(|_| !without_ordinals);
        // A write position of a sparse stream covers the stream's newest event only, so a redelivered older event counts as
        // late. Without ordinals, a restart redelivers older events. A small set can leave out the ordinal of a repeat.
        let is_sparse = self.plan.indexes == Indexes::Sparse;
        let is_limited = self.plan.max_set_bytes < 64 * 1024;
        let by_index = self.plan.write_positions && !(is_sparse && (without_ordinals || repeats && is_limited));
        let item = items.iter().find(|(item, times)| **times > 1 && item.unfold.is_none()).filter(|_| by_index);
        let ordinal = ordinal.map(|(ordinal, times)| format!("{ordinal:?} was written {times} times (C13)"));
        ordinal.or_else(|| item.map(|(item, times)| format!("{item:?} was written {times} times (C13)")))
    }
}
