//! What follows from failures: the effective error policy in words (R18). `pipeline::policy` is what it describes.

use super::subject::Subject;
use crate::connector::kind::Malformed;
use crate::connector::prose::{counted, sentences};
use crate::spec::{Attempts, Order, Then};

/// How long the delays around reads, claims and commits that fail grow.
const OUTAGE: &str = "after 100 milliseconds at first and 30 seconds at most";

pub(super) fn failing(subject: &Subject<'_>) -> String {
    if !can_fail(subject) {
        return sentences([
            "None can fail but one that is malformed: there is no handler, and this sink takes everything.",
            what_then_means(subject),
        ]);
    }
    let attempts = match subject.spec().errors.retry.attempts {
        Attempts::AtMost(attempts) => {
            format!("Once an event has failed {}, {}.", counted(attempts.get().into(), "time"), then(subject))
        }
        Attempts::Unlimited => format!(
            "It is tried without end, while the rest goes on until reading is {} ahead of it.",
            counted(subject.spec().schedule.max_ahead_events.get() as u64, "event")
        ),
    };
    let permanent = permanent(subject).map(|errors| {
        let then = then(subject);
        format!("On a permanent error {then} without a retry: {errors}.")
    });
    sentences([&*again(subject), &*attempts, &*permanent.unwrap_or_default(), what_then_means(subject)])
}

fn can_fail(subject: &Subject<'_>) -> bool {
    subject.has_script || subject.definition.sink.can_fail()
}

fn again(subject: &Subject<'_>) -> String {
    let retry = &subject.spec().errors.retry;
    let initial = subject.duration(&["errors", "retry", "initial"], retry.initial);
    let max = subject.duration(&["errors", "retry", "max"], retry.max);
    let what = if subject.has_script { "A call or a write" } else { "A write" };
    let one_by_one = match subject.spec().schedule.order {
        Order::None => "",
        Order::Stream | Order::Tranche => {
            " From then on its events come one by one, so that the others do not suffer for the one at fault."
        }
    };
    format!(
        "{what} that fails holds up {}, and is made again after {initial}, then after twice as long each time up to {max}, each \
         delay shortened at random by up to half.{one_by_one}",
        subject.held_up()
    )
}

/// Names the permanent errors, if there can be any.
fn permanent(subject: &Subject<'_>) -> Option<String> {
    match (subject.has_script, subject.sink.permanent) {
        (true, Some(error)) => {
            Some(format!("a mistake in the script, its `malformed` or `throw` of that class, or {error}"))
        }
        (true, None) => Some("a mistake in the script, or its `malformed` or `throw` of that class".to_owned()),
        (false, error) => error.map(str::to_owned),
    }
}

/// Says what `then` does, after "then".
fn then(subject: &Subject<'_>) -> &'static str {
    match subject.spec().errors.then {
        Then::Halt => "the pipeline halts",
        Then::Skip => "it is skipped",
        Then::Park => "its stream is parked",
    }
}

fn what_then_means(subject: &Subject<'_>) -> &'static str {
    match (subject.spec().errors.then, subject.spec().schedule.order) {
        (Then::Halt, _) => {
            "To halt is to finish what runs, store the progress and stop, with the event not handled: `/health` says why and answers \
             503, other pipelines go on, a finite job ends with exit code 1. The next start meets the same event."
        }
        (Then::Skip, _) => {
            "To skip is to pass that one event without effect: it counts as handled, `propulsiond_skipped_total` counts it, and the \
             log names it (target `propulsiond::audit`)."
        }
        (Then::Park, Order::None) => {
            "To park is to keep the event aside, in memory with the progress, while the rest goes on; it is gone with the process, \
             and so is the progress."
        }
        (Then::Park, _) => {
            "To park is to keep the event and all later ones of its stream aside, in memory with the progress, while the rest goes \
             on; they are gone with the process, and so is the progress."
        }
    }
}

pub(super) fn malformed(subject: &Subject<'_>) -> String {
    let (record, place) = match subject.source.malformed {
        Malformed::Never(why) => return why.to_owned(),
        Malformed::Delivered { record, place } => (record, place),
    };
    let then = match subject.spec().errors.then {
        Then::Halt => "the pipeline halts",
        Then::Skip => "it is skipped",
        Then::Park => "it is parked",
    };
    format!("{record} is an event that cannot be handled: {then} at once, with {place} named.")
}

pub(super) fn away(subject: &Subject<'_>) -> String {
    sentences([&*sink(subject), subject.sink.throttled, &*store(subject), &*source(subject)])
}

fn sink(subject: &Subject<'_>) -> String {
    let Some(what) = subject.sink.unavailable else { return String::new() };
    let retry = &subject.spec().errors.retry;
    format!(
        "Where {what}, no event is to blame and no attempt is spent: everything waits, and one call at a time tries again, with delays \
         from {} to {}. `/health` says so.",
        subject.duration(&["errors", "retry", "initial"], retry.initial),
        subject.duration(&["errors", "retry", "max"], retry.max)
    )
}

fn store(subject: &Subject<'_>) -> String {
    if subject.sink_holds_progress() || !subject.progress_is_durable() {
        return String::new();
    }
    format!(
        "Where progress cannot be stored {}, handling goes on, storing is tried again {OUTAGE}, and what a crash would repeat grows.",
        subject.store.place
    )
}

fn source(subject: &Subject<'_>) -> String {
    let Some(when) = subject.source.unavailable else { return String::new() };
    format!("Where {when}, reading is tried again {OUTAGE}, for ever.")
}

pub(super) fn stuck(subject: &Subject<'_>) -> String {
    let limit = subject.duration(&["errors", "stuck_after"], subject.spec().errors.stuck_after);
    let then = match subject.spec().errors.then {
        Then::Halt => "the pipeline halts",
        Then::Skip => "its first event is skipped, once no call of it runs any more",
        Then::Park => "it is parked, once no call of it runs any more",
    };
    let thread = match subject.has_script {
        true => "A thread whose call does not come back for that long is given up and replaced.",
        false => "",
    };
    sentences([
        &*format!(
            "If a stream has been offered for {limit} without progress, from the first such call on, {then}. While it waits (after a \
             failure, deferred, paused, or for a sink that is away) that time does not count."
        ),
        thread,
    ])
}
