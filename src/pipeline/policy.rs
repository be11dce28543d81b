//! What follows from an error: the one place that knows the table of design.md §3.4.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::retry::Backoff;
use crate::scheduler::Outcome;
use crate::source::{SourceError, SourceErrorKind};

/// How a pipeline deals with errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorPolicy {
    pub backoff: Backoff,
    /// How often an event is tried before `then` acts on it. `None`: without end.
    pub attempts: Option<u32>,
    pub then: Then,
    /// How long a stream may be offered without progress before `then` acts on it.
    pub stuck_after: Duration,
}

/// Returns the delay before the next attempt after a source's error.
pub(super) fn source_delay(
    error: &SourceError,
    failures: u32,
    backoff: &Backoff,
    random: &mut fastrand::Rng,
) -> Duration {
    error.retry_after.unwrap_or_else(|| match error.kind {
        SourceErrorKind::Unavailable | SourceErrorKind::Throttled => backoff.delay(failures, random),
        // Rights, settings and lost data change by an operator's hand only.
        SourceErrorKind::Denied | SourceErrorKind::Refused | SourceErrorKind::PositionLost => backoff.max,
    })
}

/// What becomes of an event that cannot be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It and all later events of its stream queue durably, and the progress passes them.
    Park,
    /// The pipeline drains, leaves its group and stays stopped until a person acts.
    Halt,
    /// The event is passed, counted and listed.
    Skip,
}

/// What a failing piece of work was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    /// The index of its first event.
    pub(super) first: i64,
    /// It was one event, alone or with its unfolds.
    pub(super) single: bool,
    /// How often that event failed before.
    pub(super) failures: u32,
}

/// What the driver is to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Tell the scheduler, and go on.
    Again(Outcome),
    /// The back end is away: open the breaker for this long, and offer the work again when it closes.
    Unavailable(Duration),
    /// The back end wants to be called less: ease off, wait this long.
    Throttled(Duration),
    /// The policy's `then` acts on the first event.
    Then(Then),
}

impl ErrorPolicy {
    /// Says what follows from `error`. `outages` counts how often in a row the back end was found away or throttling.
    pub(super) fn judge(
        &self,
        error: &HandlerError,
        victim: Victim,
        outages: u32,
        now: Timestamp,
        random: &mut fastrand::Rng,
    ) -> Verdict {
        let delay = |failures, random: &mut fastrand::Rng| {
            error.delay().unwrap_or_else(|| self.backoff.delay(failures, random))
        };
        match error.kind() {
            HandlerErrorKind::Unavailable => Verdict::Unavailable(delay(outages + 1, random)),
            HandlerErrorKind::Throttled => Verdict::Throttled(delay(outages + 1, random)),
            kind => {
                let hopeless = matches!(kind, HandlerErrorKind::Permanent | HandlerErrorKind::Malformed);
                let failures = victim.failures.saturating_add(1);
                let spent = hopeless || self.attempts.is_some_and(|attempts| failures >= attempts);
                // `then` acts on one event, and only once it is certain which: the others get their chance first (C19).
                let certain = victim.single || error.index() == Some(victim.first);
                if spent && certain {
                    return Verdict::Then(self.then);
                }
                // To find the event at fault costs no time: what is hopeless need not be waited for.
                let wait = if hopeless { Duration::ZERO } else { delay(failures, random) };
                Verdict::Again(Outcome::Failed {
                    until: now + wait,
                    at_index: error.index().filter(|index| !victim.single && *index > victim.first),
                })
            }
        }
    }

    /// Says what follows from a call that succeeded without progress: it waits, and spends no attempt (C20).
    pub(super) fn no_progress(&self, now: Timestamp, random: &mut fastrand::Rng) -> Outcome {
        Outcome::Wait { until: now + self.backoff.delay(1, random) }
    }
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
        };
        let mut error = HandlerError::new(kind, "why").retry_after(Duration::from_millis(7));
        if let Some(index) = index {
            error = error.at_index(index);
        }
        let victim = Victim { first: 10, single, failures };
        format!("{:?}", policy.judge(&error, victim, 0, Timestamp::ZERO, &mut fastrand::Rng::with_seed(0)))
    }

    #[test]
    fn back_ends_that_are_away_or_throttle_spend_no_attempt() {
        expect!["Unavailable(7ms)"].assert_eq(&check(HandlerErrorKind::Unavailable, None, true, 9));
        expect!["Throttled(7ms)"].assert_eq(&check(HandlerErrorKind::Throttled, None, true, 9));
    }

    #[test]
    fn c19_then_acts_on_an_event_only_once_it_is_known_to_be_the_one() {
        use HandlerErrorKind::{Permanent, Transient};
        // A span fails: its events are to be tried singly, at once if it will never work.
        expect!["Again(Failed { until: Timestamp(7000000), at_index: None })"]
            .assert_eq(&check(Transient, None, false, 0));
        expect!["Again(Failed { until: Timestamp(0), at_index: None })"].assert_eq(&check(Permanent, None, false, 0));
        // The error names an event inside the span: those before it go first.
        expect!["Again(Failed { until: Timestamp(0), at_index: Some(12) })"].assert_eq(&check(
            Permanent,
            Some(12),
            false,
            0,
        ));
        // It names the first: that is the one.
        expect!["Then(Park)"].assert_eq(&check(Permanent, Some(10), false, 0));
        // One event alone: attempts count.
        expect!["Again(Failed { until: Timestamp(7000000), at_index: None })"]
            .assert_eq(&check(Transient, None, true, 1));
        expect!["Then(Park)"].assert_eq(&check(Transient, None, true, 2));
        expect!["Then(Park)"].assert_eq(&check(HandlerErrorKind::TimedOut, None, true, 2));
        expect!["Then(Park)"].assert_eq(&check(HandlerErrorKind::Malformed, None, true, 0));
    }
}
