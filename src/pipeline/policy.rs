//! The error policy: maps each class of error to a reaction. Only this module branches on a class (design.md §3.4).

use std::time::Duration;

use crate::checkpoint::{CheckpointError, CheckpointErrorKind};
use crate::clock::Timestamp;
use crate::formats::words::chain;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::retry::Backoff;
use crate::scheduler::Outcome;
use crate::source::{SourceError, SourceErrorKind};

/// The delays between attempts at reads, claims, commits and restarts.
pub(super) const OUTAGE: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(30) };

/// The bounds of the parked store for one pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkLimits {
    pub events: u64,
    pub bytes: u64,
}

/// The reactions of a pipeline to errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorPolicy {
    pub backoff: Backoff,
    /// Attempts at an event before `then` acts on it. `None`: unlimited.
    pub attempts: Option<u32>,
    pub then: Then,
    /// The longest time that a stream may be offered without progress before `then` acts on its first event.
    pub stuck_after: Duration,
    pub outage: OutageRule,
    /// The bounds of the parked store. A full one halts the pipeline.
    pub parked: ParkLimits,
}

/// The failures in a row that count as an outage of the back end, and not as failures of their events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutageRule {
    pub calls: usize,
    /// The number of different streams that these calls must be of.
    pub streams: usize,
}

impl Default for OutageRule {
    fn default() -> Self {
        Self { calls: 20, streams: 5 }
    }
}

/// The reaction to an event that cannot be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The event and all later ones of its stream queue durably, and the progress passes them.
    Park,
    /// The pipeline drains, leaves its group, and stays stopped until the operator acts.
    Halt,
    /// The event is passed, counted and listed.
    Skip,
}

/// The failed piece of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    /// The index of its first event.
    pub(super) first: i64,
    /// It is one event, alone or with its unfolds.
    pub(super) single: bool,
    /// Earlier failures of the first event.
    pub(super) failures: u32,
}

/// The reaction to a failed call or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Retry after the delay. `spent`: no attempt is left for the work as it is, so that its events are tried singly.
    Retry { delay: Duration, at_index: Option<i64>, spent: bool },
    /// The back end is unavailable: open the breaker for this long, and offer the work again when it closes.
    Unavailable(Duration),
    /// The back end throttles: lower the concurrency and wait this long.
    Throttled(Duration),
    /// The policy's `then` acts on the first event.
    Then(Then),
    /// No call can succeed: the pipeline halts, and no event is at fault.
    Halt,
}

impl ErrorPolicy {
    /// Returns the reaction to a failed call or write. `outages` counts the outages and throttles in a row.
    pub(super) fn react(
        &self,
        error: &HandlerError,
        victim: Victim,
        outages: u32,
        random: &mut fastrand::Rng,
    ) -> Reaction {
        let mut delay = |failures| error.delay().unwrap_or_else(|| self.backoff.delay(failures, random));
        match error.kind() {
            HandlerErrorKind::Unavailable => Reaction::Unavailable(delay(outages + 1)),
            HandlerErrorKind::Throttled => Reaction::Throttled(delay(outages + 1)),
            HandlerErrorKind::Unusable => Reaction::Halt,
            kind => {
                let permanent = matches!(kind, HandlerErrorKind::Permanent | HandlerErrorKind::Malformed);
                let failures = victim.failures.saturating_add(1);
                let spent = permanent || self.attempts.is_some_and(|attempts| failures >= attempts);
                // `then` acts on one event, and only once that event is known: the others are tried without it (C19).
                let known = victim.single || error.index() == Some(victim.first);
                if spent && known {
                    return Reaction::Then(self.then);
                }
                let at_index = error.index().filter(|index| !victim.single && *index >= victim.first);
                // A permanent error of a span costs no wait: the search for its event begins at once.
                let delay = if permanent { Duration::ZERO } else { delay(failures) };
                Reaction::Retry { delay, at_index, spent }
            }
        }
    }

    /// Returns the outcome of a call that succeeded without progress: it waits, and spends no attempt (C20).
    pub(super) fn no_progress(&self, now: Timestamp, random: &mut fastrand::Rng) -> Outcome {
        Outcome::Wait { until: now + self.backoff.delay(1, random) }
    }
}

/// Returns whether a failed attempt says that the back end answered: a class that no outage explains.
pub(super) fn is_answer(error: &HandlerError) -> bool {
    !matches!(error.kind(), HandlerErrorKind::Unavailable | HandlerErrorKind::TimedOut)
}

/// Returns whether a failure can be part of an outage of calls that fail alike.
pub(super) fn may_be_outage(error: &HandlerError) -> bool {
    matches!(error.kind(), HandlerErrorKind::Transient | HandlerErrorKind::TimedOut)
}

/// Returns whether a transaction failed over its effects, and not over its back end.
pub(super) fn is_of_the_effects(error: &HandlerError) -> bool {
    matches!(error.kind(), HandlerErrorKind::Permanent | HandlerErrorKind::Malformed)
}

/// Returns whether no later transaction can succeed, whatever its effects.
pub(super) fn is_unusable(error: &HandlerError) -> bool {
    error.kind() == HandlerErrorKind::Unusable
}

/// The reaction to an error of a store or a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BackEndReaction {
    Retry(Duration),
    /// Another process owns the tranche.
    GiveUp {
        by: String,
        since: Option<time::OffsetDateTime>,
    },
    Halt,
}

/// Returns the reaction to a store's error after that many failures in a row.
pub(super) fn react_to_store(error: &CheckpointError, failures: u32, random: &mut fastrand::Rng) -> BackEndReaction {
    match &error.kind {
        CheckpointErrorKind::Unavailable | CheckpointErrorKind::Throttled | CheckpointErrorKind::OutcomeUnknown => {
            BackEndReaction::Retry(error.retry_after.unwrap_or_else(|| OUTAGE.delay(failures, random)))
        }
        CheckpointErrorKind::Fenced { by, since } => BackEndReaction::GiveUp { by: by.clone(), since: *since },
        CheckpointErrorKind::Unreadable | CheckpointErrorKind::TooLarge => BackEndReaction::Halt,
    }
}

/// Returns the reaction to a source's error after that many failures in a row.
pub(super) fn react_to_source(error: &SourceError, failures: u32, random: &mut fastrand::Rng) -> BackEndReaction {
    match error.kind {
        SourceErrorKind::PositionLost => BackEndReaction::Halt,
        SourceErrorKind::Unavailable | SourceErrorKind::Throttled => {
            BackEndReaction::Retry(error.retry_after.unwrap_or_else(|| OUTAGE.delay(failures, random)))
        }
        // Rights and settings change by an operator's hand only.
        SourceErrorKind::Denied | SourceErrorKind::Refused => {
            BackEndReaction::Retry(error.retry_after.unwrap_or(OUTAGE.max))
        }
    }
}

/// Returns the error of a store as that of a transaction: the back end failed, and no decision is at fault.
pub(super) fn as_unavailable(error: &HandlerError) -> HandlerError {
    let shared = HandlerError::new(HandlerErrorKind::Unavailable, error.message());
    match error.delay() {
        Some(delay) => shared.retry_after(delay),
        None => shared,
    }
}

/// Returns a store's error in words, with its causes.
pub(super) fn words(error: &CheckpointError) -> String {
    chain(error)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn check(kind: HandlerErrorKind, index: Option<i64>, single: bool, failures: u32) -> String {
        let policy = ErrorPolicy {
            backoff: Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(30) },
            attempts: Some(3),
            then: Then::Park,
            stuck_after: Duration::from_secs(300),
            outage: OutageRule::default(),
            parked: ParkLimits { events: 10, bytes: 1_000 },
        };
        let mut error = HandlerError::new(kind, "why").retry_after(Duration::from_millis(7));
        if let Some(index) = index {
            error = error.at_index(index);
        }
        let victim = Victim { first: 10, single, failures };
        format!("{:?}", policy.react(&error, victim, 0, &mut fastrand::Rng::with_seed(0)))
    }

    #[test]
    fn an_unavailable_or_throttling_back_end_spends_no_attempt() {
        expect!["Unavailable(7ms)"].assert_eq(&check(HandlerErrorKind::Unavailable, None, true, 9));
        expect!["Throttled(7ms)"].assert_eq(&check(HandlerErrorKind::Throttled, None, true, 9));
    }

    #[test]
    fn s19_an_unusable_sink_halts_the_pipeline_and_blames_no_event() {
        for (index, single) in [(None, false), (None, true), (Some(10), true)] {
            expect!["Halt"].assert_eq(&check(HandlerErrorKind::Unusable, index, single, 0));
        }
    }

    #[test]
    fn c19_then_acts_on_an_event_only_if_that_event_is_known() {
        use HandlerErrorKind::{Permanent, Transient};
        // A span fails: its events are tried singly, at once if the error is permanent.
        expect!["Retry { delay: 7ms, at_index: None, spent: false }"].assert_eq(&check(Transient, None, false, 0));
        expect!["Retry { delay: 0ns, at_index: None, spent: true }"].assert_eq(&check(Permanent, None, false, 0));
        // The error names an event inside the span: those before it go first.
        expect!["Retry { delay: 0ns, at_index: Some(12), spent: true }"].assert_eq(&check(
            Permanent,
            Some(12),
            false,
            0,
        ));
        // The error names the first event: the others are not tried singly.
        expect!["Retry { delay: 7ms, at_index: Some(10), spent: false }"].assert_eq(&check(
            Transient,
            Some(10),
            false,
            0,
        ));
        expect!["Then(Park)"].assert_eq(&check(Permanent, Some(10), false, 0));
        // One event alone: attempts count.
        expect!["Retry { delay: 7ms, at_index: None, spent: false }"].assert_eq(&check(Transient, None, true, 1));
        expect!["Then(Park)"].assert_eq(&check(Transient, None, true, 2));
        expect!["Then(Park)"].assert_eq(&check(HandlerErrorKind::TimedOut, None, true, 2));
        expect!["Then(Park)"].assert_eq(&check(HandlerErrorKind::Malformed, None, true, 0));
    }

    #[test]
    fn a_back_end_says_itself_when_to_retry() {
        let mut random = fastrand::Rng::with_seed(0);
        let wait = Duration::from_secs(77);
        let throttled = SourceError::new(SourceErrorKind::Throttled, "read").retry_after(wait);
        assert_eq!(react_to_source(&throttled, 1, &mut random), BackEndReaction::Retry(wait));
        let denied = SourceError::new(SourceErrorKind::Denied, "read");
        assert_eq!(react_to_source(&denied, 1, &mut random), BackEndReaction::Retry(OUTAGE.max));
        let throttled = CheckpointError::new(CheckpointErrorKind::Throttled, "commit").retry_after(wait);
        assert_eq!(react_to_store(&throttled, 1, &mut random), BackEndReaction::Retry(wait));
        for kind in [CheckpointErrorKind::Unreadable, CheckpointErrorKind::TooLarge] {
            let error = CheckpointError::new(kind, "commit");
            assert_eq!(react_to_store(&error, 1, &mut random), BackEndReaction::Halt, "{error:?}");
        }
    }
}
