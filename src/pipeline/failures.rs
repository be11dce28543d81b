//! The latest failures of streams that made no progress since, for views.

use std::collections::BTreeMap;

use super::view::StreamFailure;
use crate::clock::Timestamp;
use crate::work::Work;

/// The number of failing streams that are kept.
const MAX_FAILURES: usize = 100;

/// The failures, by stream.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<String, StreamFailure>);

/// A failed attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    pub(super) class: &'static str,
    pub(super) error: &'a str,
    /// The attempts so far, this one included.
    pub(super) attempts: u32,
    pub(super) next_try: Option<Timestamp>,
}

impl Failures {
    /// Notes a failed attempt at a stream's work.
    pub(super) fn note(&mut self, work: &Work, attempt: Attempt<'_>, now: Timestamp) {
        let Attempt { class, error, attempts, next_try } = attempt;
        let stream = work.stream();
        let since = self.0.get(stream).map_or(now, |failure| failure.since);
        if self.0.len() >= MAX_FAILURES && !self.0.contains_key(stream) {
            return;
        }
        let index = work.first();
        let (stream, error) = (stream.to_owned(), error.to_owned());
        let failure = StreamFailure { stream: stream.clone(), index, class, error, attempts, since, next_try };
        self.0.insert(stream, failure);
    }

    /// Forgets the failure of a stream that makes progress.
    pub(super) fn clear(&mut self, stream: &str) {
        if !self.0.is_empty() {
            self.0.remove(stream);
        }
    }

    pub(super) fn list(&self) -> Vec<StreamFailure> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Assembler, Kind};
    use crate::position::Ordinal;
    use crate::work::{WorkId, WorkKind};

    fn work(stream: &str) -> Work {
        let event = Assembler::new(stream, "T").build(Kind::Event, Ordinal::default(), 3).unwrap();
        let id = WorkId { slot: 0, generation: 0 };
        let (events, read_at) = (vec![event], Timestamp::ZERO);
        Work { id, kind: WorkKind::Handle, events, next: 4, failures: 0, read_at, late: false, trace: None }
    }

    #[test]
    fn a_failing_stream_shows_its_last_error_since_its_first_failure_until_it_makes_progress() {
        let mut failures = Failures::default();
        let attempt = |error, attempts| Attempt { class: "exception", error, attempts, next_try: None };
        failures.note(&work("a-1"), attempt("first", 1), Timestamp::from_millis(1));
        failures.note(&work("a-1"), attempt("second", 2), Timestamp::from_millis(2));
        let failure = &failures.list()[0];
        assert_eq!((failure.index, &*failure.error, failure.attempts), (3, "second", 2));
        assert_eq!(failure.since, Timestamp::from_millis(1));
        failures.clear("a-1");
        assert_eq!(failures.list(), []);
    }

    #[test]
    fn the_number_of_kept_failures_is_limited() {
        let mut failures = Failures::default();
        for number in 0..MAX_FAILURES + 5 {
            let attempt = Attempt { class: "exception", error: "why", attempts: 1, next_try: None };
            failures.note(&work(&format!("a-{number}")), attempt, Timestamp::ZERO);
        }
        assert_eq!(failures.list().len(), MAX_FAILURES);
    }
}
