//! The fate of every event: settled, skipped, parked, or lost.

use std::collections::BTreeMap;
use std::fmt::Write;

use propulsiond::checkpoint::CheckpointKey;
use propulsiond::event::{Event, Indexes, Kind};
use propulsiond::pipeline::Then;
use propulsiond::position::Progress;
use propulsiond::work::Work;

use super::feed::{is_poison, is_spoiling};
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

    /// A handler was done with these events, and had nothing to write.
    pub(super) fn settle<'a>(&mut self, work: &Work, next: i64, events: impl Iterator<Item = &'a Event>) {
        let tranche = work.stream()[..2].to_owned();
        for event in events {
            self.settled.insert((tranche.clone(), event.at()));
            self.handled_items.insert(Item::of(event));
        }
        if next > work.next {
            let jumped = self.jumped.entry(work.stream().to_owned()).or_insert(0);
            *jumped = (*jumped).max(next);
        }
    }

    /// Returns an event of the work's stream that lies before it and is not done, if there is one.
    pub(super) fn missing_before(&self, work: &Work) -> Option<Event> {
        let tranche = &work.stream()[..2];
        let before = |event: &&Event| {
            event.stream() == work.stream() && event.kind() == Kind::Event && event.index() < work.first()
        };
        self.logs[tranche].events().filter(before).find(|event| !self.is_settled(tranche, event)).cloned()
    }

    /// Returns an event of the work's stream that was read before it, belongs before it, and is not done.
    pub(super) fn overtaken_by(&self, work: &Work) -> Option<Event> {
        let tranche = &work.stream()[..2];
        let read_at = work.events.iter().map(Event::at).min()?;
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
            return self.parked.iter().any(|((key, stream), events)| {
                key.tranche.as_str() == tranche
                    && stream.is_empty()
                    && events.iter().any(|parked| parked.at() == event.at())
            });
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
            || self.parked.iter().any(|((key, stream), events)| {
                key.tranche.as_str() == tranche
                    && *stream == item.stream
                    && events.iter().any(|parked| parked.at() == event.at())
            })
    }

    /// Returns whether the handler makes no progress at an event, however often it is asked.
    pub(super) fn stalls(&self, event: &Event) -> bool {
        self.plan.trials.stalls && event.kind() == Kind::Event && event.index() == 7
    }

    /// Returns whether an event can never be handled, or its effect never be committed.
    fn may_be_skipped(&self, event: &Event) -> bool {
        let spoils = self.plan.transactional && event.kind() == Kind::Event && is_spoiling(event.index());
        is_poison(event) || spoils || self.stalls(event)
    }

    /// Returns whether the event is poison, or an unfold that travels with it: with the last event before it that was not
    /// filtered, and filters come and go.
    fn is_poisoned(&self, tranche: &str, event: &Event) -> bool {
        let before =
            |other: &&Event| other.stream() == event.stream() && !other.is_unfold() && other.index() < event.index();
        let carried = || {
            let mut before: Vec<_> = self.logs[tranche].events().filter(before).collect();
            before.sort_by_key(|other| std::cmp::Reverse(other.index()));
            let last = before.iter().position(|other| !super::feed::is_filtered(&self.plan, other));
            before[..last.map_or(before.len(), |last| last + 1)].iter().any(|carrier| self.may_be_skipped(carrier))
        };
        self.may_be_skipped(event) || event.is_unfold() && carried()
    }

    /// An unfold is done when newer state of its stream was handled (C3).
    fn is_superseded(&self, tranche: &str, unfold: &Event) -> bool {
        let stream = unfold.stream();
        let newer = |item: &Item| item.stream == stream && (item.index >= unfold.index());
        let skipped = |event: &Event| {
            self.plan.then == Then::Skip
                && self.may_be_skipped(event)
                && event.stream() == stream
                && event.index() >= unfold.index()
        };
        self.handled_items.iter().any(newer)
            || self.jumped.get(stream).is_some_and(|next| *next > unfold.index())
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

    /// At the end everything is handled at least once, and exactly once where the sink holds the progress (C13).
    pub(super) fn check_the_end(&self) {
        let all = || self.logs.iter().flat_map(|(tranche, log)| log.events().map(move |event| (tranche, event)));
        let mut lost = all().filter(|(tranche, event)| !self.is_settled(tranche, event));
        if self.halted {
            let victim = lost.find(|(_, event)| self.may_be_skipped(event) || event.kind() == Kind::Malformed);
            assert!(victim.is_some(), "seed {}: it halted over nothing", self.seed);
        } else {
            let lost = lost.next();
            assert!(lost.is_none(), "seed {}: {lost:?} was lost", self.seed);
        }
        if !self.plan.transactional {
            return;
        }
        let mut ordinals = BTreeMap::new();
        let mut items = BTreeMap::new();
        for (tranche, at, item) in &self.effects {
            *ordinals.entry((tranche, at, item.index, item.unfold.is_some())).or_insert(0) += 1;
            *items.entry(item).or_insert(0) += 1;
        }
        for (ordinal, times) in ordinals {
            assert_eq!(times, 1, "seed {}: {ordinal:?} was written {times} times", self.seed);
        }
        if self.plan.write_positions && self.plan.indexes == Indexes::Dense {
            for (item, times) in items.iter().filter(|(item, _)| item.unfold.is_none()) {
                assert_eq!(*times, 1, "seed {}: {item:?} was written {times} times", self.seed);
            }
        }
    }
}
