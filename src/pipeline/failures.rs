//! The latest failures of streams that made no progress since, for views.

use std::collections::BTreeMap;

use super::view::StreamFailure;
use crate::clock::Timestamp;
use crate::position::TrancheId;
use crate::work::Work;

/// The number of failing streams that are kept.
const MAX_FAILURES: usize = 100;

/// The failures, by tranche and stream.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<(TrancheId, Box<str>), StreamFailure>);

/// A failed attempt.
#[derive(Clone, Debug)]
pub(super) struct Attempt<'a> {
    pub(super) tranche: TrancheId,
    pub(super) class: &'static str,
    pub(super) error: &'a str,
    /// The attempts so far, this one included.
    pub(super) attempts: u32,
    pub(super) next_try: Option<Timestamp>,
}

impl Failures {
    /// Notes a failed attempt at a stream's work.
    pub(super) fn note(&mut self, work: &Work, attempt: Attempt<'_>, now: Timestamp) {
        let Attempt { tranche, class, error, attempts, next_try } = attempt;
        let key = (tranche.clone(), work.stream().into());
        let since = self.0.get(&key).map_or(now, |failure| failure.since);
        if self.0.len() >= MAX_FAILURES && !self.0.contains_key(&key) {
            return;
        }
        let (index, stream, error) = (work.first(), work.stream().to_owned(), error.to_owned());
        self.0.insert(key, StreamFailure { tranche, stream, index, class, error, attempts, since, next_try });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets the failure of a stream that makes progress.
    pub(super) fn clear(&mut self, tranche: TrancheId, stream: &str) {
        self.0.remove(&(tranche, stream.into()));
    }

    /// Forgets the failures of a tranche that is gone.
    pub(super) fn forget(&mut self, tranche: &TrancheId) {
        self.0.retain(|(of, _), _| of != tranche);
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

    fn attempt<'a>(tranche: &str, error: &'a str, attempts: u32) -> Attempt<'a> {
        Attempt { tranche: TrancheId::new(tranche), class: "exception", error, attempts, next_try: None }
    }

    fn shown(failures: &Failures) -> Vec<String> {
        let shown = |failure: &StreamFailure| {
            let since = failure.since.as_nanos() / 1_000_000;
            format!(
                "{} {}/{} {} {} since {since}",
                failure.tranche, failure.stream, failure.index, failure.error, failure.attempts
            )
        };
        failures.list().iter().map(shown).collect()
    }

    #[test]
    fn a_failing_stream_shows_its_last_error_since_its_first_failure_until_it_makes_progress() {
        let mut failures = Failures::default();
        failures.note(&work("a-1"), attempt("t0", "first", 1), Timestamp::from_millis(1));
        failures.note(&work("a-1"), attempt("t0", "second", 2), Timestamp::from_millis(2));
        assert_eq!(shown(&failures), ["t0 a-1/3 second 2 since 1"]);
        failures.clear(TrancheId::new("t0"), "a-1");
        assert!(failures.is_empty());
    }

    #[test]
    fn c4_streams_of_one_name_in_two_tranches_fail_apart() {
        let mut failures = Failures::default();
        failures.note(&work("a-1"), attempt("t0", "first", 1), Timestamp::from_millis(1));
        failures.note(&work("a-1"), attempt("t1", "second", 1), Timestamp::from_millis(2));
        failures.clear(TrancheId::new("t0"), "a-1");
        assert_eq!(shown(&failures), ["t1 a-1/3 second 1 since 2"]);
        failures.note(&work("a-1"), attempt("t0", "third", 1), Timestamp::from_millis(3));
        failures.forget(&TrancheId::new("t1"));
        assert_eq!(shown(&failures), ["t0 a-1/3 third 1 since 3"]);
    }

    #[test]
    fn the_number_of_kept_failures_is_limited() {
        let mut failures = Failures::default();
        for number in 0..MAX_FAILURES + 5 {
            failures.note(&work(&format!("a-{number}")), attempt("t0", "why", 1), Timestamp::ZERO);
        }
        assert_eq!(failures.list().len(), MAX_FAILURES);
    }
}
