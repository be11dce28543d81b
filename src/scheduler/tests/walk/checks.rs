//! The checks of a walk: each piece of work, each preview and all progress against the naive model.

use super::super::super::Order;
use super::super::super::slab::NONE;
use super::Walk;
use crate::event::{Event, Indexes, Kind};
use crate::position::{Ordinal, Position, Progress, TrancheId};
use crate::work::{Work, WorkKind};

impl Walk {
    /// Returns the index up to which everything of a stream is handled.
    pub(super) fn next_of(&self, stream: &str) -> i64 {
        (0..)
            .find(|&index| !self.is_passed(stream, index) && !self.placeholders.contains(&(stream.to_owned(), index)))
            .unwrap()
    }

    pub(super) fn check_work(&self, work: &Work) {
        let log = self.logs.iter().find(|log| work.stream().starts_with(&format!("s-{}.", &log.id.as_str()[1..])));
        let log = log.expect("streams are named after their tranche");
        assert!(log.held && self.scheduler.is_held(work.id));
        if self.options.order == Order::Stream
            && work.kind != WorkKind::Malformed
            && work.events[0].kind() != Kind::Malformed
        {
            let same = |other: &&Work| other.stream() == work.stream() && other.events[0].kind() != Kind::Malformed;
            let other = self.in_flight.iter().find(same);
            assert!(other.is_none(), "one call at a time: {other:?} and {work:?}");
        }
        if self.options.order == Order::Tranche {
            let other = self
                .in_flight
                .iter()
                .filter(|other| self.scheduler.is_held(other.id) && other.stream() == work.stream());
            assert_eq!(other.count(), 0);
        }
        assert!(!work.late || work.is_single());
        let mut last: Option<&Event> = None;
        for event in &work.events {
            assert!(event.kind() != Kind::Placeholder && event.stream() == work.stream());
            assert!(!log.opened.handled.contains(event.at()), "a recovered event is never offered: {event:?}");
            assert!(
                !log.handled.contains(&event.at()) || event.is_unfold(),
                "a handled event is not offered again: {event:?}"
            );
            if self.options.order == Order::Stream && self.options.indexes == Indexes::Dense {
                let (from, to) = last.map_or((event.index(), event.index()), |last| (last.next_index(), event.index()));
                let recovered = |index: i64| {
                    let mut same =
                        log.events.iter().filter(|event| event.stream() == work.stream() && event.index() == index);
                    same.any(|event| log.opened.handled.contains(event.at()))
                };
                let filled = |index| self.placeholders.contains(&(work.stream().to_owned(), index)) || recovered(index);
                let filled = (from..to).all(filled);
                assert!(filled && from <= to || event.is_unfold(), "a run is contiguous: {work:?}");
            }
            last = Some(event);
        }
        let kinds = work.events.iter().map(Event::kind).collect::<Vec<_>>();
        assert!(self.options.order != Order::Stream || kinds.is_sorted_by_key(|kind| *kind == Kind::Unfold));
        assert_eq!(work.kind == WorkKind::Malformed, kinds[0] == Kind::Malformed && work.kind != WorkKind::Park);
    }

    /// Returns the progress with this work done, if its tranche is held, and checks that asking changes nothing.
    pub(super) fn preview(&mut self, tranche: &TrancheId, work: &Work, next: i64) -> Option<Progress> {
        let before = self.scheduler.progress(tranche);
        let mut with = self.scheduler.progress_with(&[(work.id, next)]);
        assert_eq!(self.scheduler.progress(tranche), before);
        assert_eq!(with.len(), usize::from(self.scheduler.is_held(work.id)));
        with.pop().map(|(of, progress)| {
            assert_eq!(&of, tranche);
            progress
        })
    }

    pub(super) fn note(&mut self, log: usize, work: &Work, next: i64) {
        let (stream, id) = (work.stream().to_owned(), self.logs[log].id.clone());
        for event in &work.events {
            if event.next_index() > next && next < work.next {
                break;
            }
            self.logs[log].handled.insert(event.at());
            self.handled.records.insert((id.clone(), event.at()));
            let supersedes = self.handled.unfolds.entry(stream.clone()).or_insert(i64::MIN);
            *supersedes = (*supersedes).max(event.next_index());
            if event.kind() == Kind::Event {
                self.handled.indexes.insert((stream.clone(), event.index()));
            }
        }
        if self.options.order == Order::Stream && work.events[0].kind() != Kind::Malformed && next > work.next {
            self.handled.passed.push((stream.clone(), work.first(), next));
            let supersedes = self.handled.unfolds.entry(stream).or_insert(i64::MIN);
            *supersedes = (*supersedes).max(next);
        }
    }

    /// Notes the ordinal from which a stream is parked, as a parked store would.
    pub(super) fn note_parked(&mut self, id: &TrancheId, name: &str) {
        let Some(tranche) = self.scheduler.ledger.held(id) else { return };
        let first = match self.options.order {
            Order::None => None,
            Order::Tranche => self.scheduler.ledger.tranches[tranche as usize].parked.get(name.as_bytes()).copied(),
            Order::Stream => self.scheduler.find(name.as_bytes(), self.scheduler.scope(tranche)).and_then(|stream| {
                let lane = self.scheduler.find_lane(stream);
                let extras = if lane == NONE { NONE } else { self.scheduler.lanes[lane].extras };
                (extras != NONE).then(|| self.scheduler.lane_extras[extras].parked.map(|parked| parked.first)).flatten()
            }),
        };
        if let Some(first) = first {
            self.parked.insert((id.clone(), name.to_owned()), first);
        }
    }

    pub(super) fn is_passed(&self, stream: &str, index: i64) -> bool {
        let passed = |(of, from, to): &(String, i64, i64)| of == stream && (*from..*to).contains(&index);
        self.handled.indexes.contains(&(stream.to_owned(), index)) || self.handled.passed.iter().any(passed)
    }

    /// Whether the model knows a reason why this counts as handled.
    pub(super) fn may_be_covered(&self, tranche: &TrancheId, event: &Event) -> bool {
        if self.handled.records.contains(&(tranche.clone(), event.at())) {
            return true;
        }
        match event.kind() {
            Kind::Placeholder => true,
            Kind::Malformed => false,
            Kind::Event => self.is_passed(event.stream(), event.index()),
            Kind::Unfold => self.handled.unfolds.get(event.stream()).is_some_and(|&handled| handled >= event.index()),
        }
    }

    /// Checks that only handled events are covered, that covered ones stay so, and that the set is as short as can be.
    pub(super) fn check_progress(&self) {
        for log in self.logs.iter().filter(|log| log.held) {
            let progress = self.scheduler.progress(&log.id).unwrap();
            let resume = match progress.position {
                Some(Position::Number(at)) => at as usize,
                _ => 0,
            };
            let mut runs = Vec::new();
            let mut before = false;
            for (at, event) in log.events[..log.read].iter().enumerate() {
                let covered = at < resume || progress.handled.contains(event.at());
                assert!(!covered || self.may_be_covered(&log.id, event), "{event:?} is covered by {progress:?}");
                let was_covered = log.opened.handled.contains(event.at());
                assert!(covered || !was_covered, "{event:?} was covered, and is not by {progress:?}");
                if at >= resume && covered {
                    match runs.last_mut() {
                        Some((_, last)) if before => *last = event.at(),
                        _ => runs.push((event.at(), event.at())),
                    }
                }
                before = at >= resume && covered;
            }
            let last_read = log.events[..log.read].last().map_or(Ordinal::default(), Event::at);
            let read: Vec<_> = progress.handled.runs().iter().copied().filter(|run| run.0 <= last_read).collect();
            let unread = |run: &(Ordinal, Ordinal)| {
                runs.last().is_some_and(|last: &(_, _)| run.0 == last.0) && run.1 > last_read
            };
            for (run, naive) in read.iter().zip(&runs) {
                assert!(run == naive || run.0 == naive.0 && unread(run), "{progress:?} is not {runs:?}");
            }
            // A run that lies before the position altogether may remain until reading has passed it.
            assert!(read.len() >= runs.len(), "{progress:?} is not {runs:?}");
        }
    }
}
