//! Limits repeated log lines, and counts the ones that are not shown.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::Level;
use tracing::callsite::Identifier;

use crate::clock::Timestamp;

/// For how long the lines of one kind are counted together.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The lines of one kind that are shown in a window.
const SHOWN: u32 = 5;

/// The most kinds that are counted apart at a time.
const KINDS: usize = 512;

/// The kind of a line: its call site, and its pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    pub callsite: Identifier,
    pub pipeline: Option<Arc<str>>,
}

/// Lines of one kind that were not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub level: Level,
    pub pipeline: Option<Arc<str>>,
    /// The message of the first of them.
    pub message: String,
    pub count: u64,
}

/// Counts lines by kind. Pure, and bounded in memory: of more kinds than it can tell apart the oldest is closed early.
#[derive(Debug, Default)]
pub struct Repeats {
    windows: HashMap<Kind, Window>,
    /// Closed windows whose summary waits to be written.
    closed: Vec<Summary>,
}

#[derive(Debug)]
struct Window {
    began: Timestamp,
    shown: u32,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    level: Level,
    message: String,
    count: u64,
}

impl Repeats {
    /// Counts a line; returns whether it is to be shown. Asks for its message only if it is the first that is not.
    pub fn admit(&mut self, kind: Kind, level: Level, message: impl FnOnce() -> String, now: Timestamp) -> bool {
        if self.windows.get(&kind).is_some_and(|window| window.is_over(now)) {
            self.close(&kind);
        }
        if self.windows.len() >= KINDS && !self.windows.contains_key(&kind) {
            self.make_room(now);
        }
        let window = self.windows.entry(kind).or_insert(Window { began: now, shown: 0, held: None });
        if window.shown < SHOWN {
            window.shown += 1;
            return true;
        }
        window.held.get_or_insert_with(|| Held { level, message: message(), count: 0 }).count += 1;
        false
    }

    /// Takes the summaries of windows that are over.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<Summary> {
        self.close_where(|window| window.is_over(now));
        std::mem::take(&mut self.closed)
    }

    /// Takes the summaries of everything.
    pub fn take_all(&mut self) -> Vec<Summary> {
        self.close_where(|_| true);
        std::mem::take(&mut self.closed)
    }

    fn make_room(&mut self, now: Timestamp) {
        self.close_where(|window| window.is_over(now));
        if self.windows.len() >= KINDS
            && let Some(oldest) =
                self.windows.iter().min_by_key(|(_, window)| window.began).map(|(kind, _)| kind.clone())
        {
            self.close(&oldest);
        }
    }

    fn close_where(&mut self, over: impl Fn(&Window) -> bool) {
        let mut kinds: Vec<_> =
            self.windows.iter().filter(|(_, w)| over(w)).map(|(kind, w)| (w.began, kind.clone())).collect();
        kinds.sort_by_key(|(began, _)| *began);
        for (_, kind) in kinds {
            self.close(&kind);
        }
    }

    fn close(&mut self, kind: &Kind) {
        let Some(held) = self.windows.remove(kind).and_then(|window| window.held) else { return };
        let pipeline = kind.pipeline.clone();
        let same = |summary: &&mut Summary| summary.message == held.message && summary.pipeline == pipeline;
        if let Some(known) = self.closed.iter_mut().find(same) {
            known.count += held.count;
        } else if self.closed.len() < KINDS {
            let Held { level, message, count } = held;
            self.closed.push(Summary { level, pipeline, message, count });
        } else if let Some(last) = self.closed.last_mut() {
            // The summaries are not taken in time: counting is all that is left.
            last.count += held.count;
        }
    }

    #[cfg(test)]
    fn size(&self) -> usize {
        self.windows.len() + self.closed.len()
    }
}

impl Window {
    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.began) >= WINDOW
    }
}

#[cfg(test)]
mod tests {
    use tracing::callsite::Callsite;
    use tracing::subscriber::Interest;
    use tracing::{Metadata, metadata};

    use super::*;

    struct Place;

    impl Callsite for Place {
        fn set_interest(&self, _: Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            &METADATA
        }
    }

    static PLACE: Place = Place;
    static METADATA: Metadata<'static> = metadata! {
        name: "place", target: "tests", level: Level::WARN, fields: &[], callsite: &PLACE,
        kind: metadata::Kind::EVENT
    };

    fn kind(pipeline: &str) -> Kind {
        Kind { callsite: Identifier(&PLACE), pipeline: Some(pipeline.into()) }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn log(repeats: &mut Repeats, pipeline: &str, times: usize, now: Timestamp) -> usize {
        (0..times).filter(|_| repeats.admit(kind(pipeline), Level::WARN, || "read failed".into(), now)).count()
    }

    fn summaries(summaries: Vec<Summary>) -> Vec<(String, u64)> {
        summaries.into_iter().map(|s| (s.pipeline.unwrap().to_string(), s.count)).collect()
    }

    #[test]
    fn a_few_are_shown_and_the_rest_counted_when_the_window_ends() {
        let mut repeats = Repeats::default();
        assert_eq!(log(&mut repeats, "orders", 47, at(0)), 5);
        assert_eq!(summaries(repeats.take_due(at(9))), []);
        assert_eq!(summaries(repeats.take_due(at(10))), [("orders".into(), 42)]);
        assert_eq!(summaries(repeats.take_due(at(11))), []);
        assert_eq!(log(&mut repeats, "orders", 1, at(12)), 1);
    }

    #[test]
    fn pipelines_are_counted_apart() {
        let mut repeats = Repeats::default();
        log(&mut repeats, "orders", 6, at(0));
        assert_eq!(log(&mut repeats, "billing", 5, at(0)), 5);
        assert_eq!(summaries(repeats.take_all()), [("orders".into(), 1)]);
    }

    #[test]
    fn a_new_window_opens_by_the_next_line_and_loses_no_count() {
        let mut repeats = Repeats::default();
        log(&mut repeats, "orders", 8, at(0));
        assert_eq!(log(&mut repeats, "orders", 9, at(20)), 5);
        assert_eq!(summaries(repeats.take_due(at(21))), [("orders".into(), 3)]);
        assert_eq!(summaries(repeats.take_all()), [("orders".into(), 4)]);
    }

    #[test]
    fn memory_is_bounded_and_every_line_is_shown_or_counted() {
        let mut repeats = Repeats::default();
        let (mut shown, mut logged) = (0, 0);
        for pipeline in 0..5_000 {
            shown += log(&mut repeats, &pipeline.to_string(), 7, at(0));
            logged += 7;
            assert!(repeats.size() <= 2 * KINDS);
        }
        let counted: u64 = repeats.take_all().iter().map(|summary| summary.count).sum();
        assert_eq!(shown as u64 + counted, logged);
    }
}
