//! The effective error policy in words (R18). It describes `pipeline::policy`.

use super::subject::Subject;
use crate::connector::kind::Malformed;
use crate::connector::prose::{counted, sentences};
use crate::spec::{Attempts, Order, Then};

/// The delays after failed reads, claims and commits.
const OUTAGE: &str = "after 100 milliseconds at first and 30 seconds at most";

pub(super) fn failing(subject: &Subject<'_>) -> String {
    if !can_fail(subject) {
        if matches!(subject.source.malformed, Malformed::Never(_)) {
            return "No event can fail: there is no handler, this sink accepts everything, and this source delivers no malformed \
                    events."
                .to_owned();
        }
        return sentences([
            "Only a malformed event can fail. There is no handler, and this sink accepts everything.",
            meaning_of_then(subject),
        ]);
    }
    let attempts = match subject.spec().errors.retry.attempts {
        Attempts::AtMost(attempts) => {
            format!("Once an event has failed {}, {}.", counted(attempts.get().into(), "time"), then(subject))
        }
        Attempts::Unlimited => format!(
            "A failing event is retried without limit. The other streams go on until reading is {} ahead of it.",
            counted(subject.spec().schedule.max_ahead_events.get() as u64, "event")
        ),
    };
    let permanent = permanent(subject).map(|errors| {
        let then = then(subject);
        format!("On a permanent error {then} without a retry. Permanent errors are {errors}.")
    });
    sentences([&*again(subject), &*attempts, &*permanent.unwrap_or_default(), meaning_of_then(subject)])
}

fn can_fail(subject: &Subject<'_>) -> bool {
    subject.has_script || subject.definition.sink.can_fail()
}

fn again(subject: &Subject<'_>) -> String {
    let retry = &subject.spec().errors.retry;
    let initial = subject.duration(&["errors", "retry", "initial"], retry.initial);
    let max = subject.duration(&["errors", "retry", "max"], retry.max);
    let failed = if subject.has_script { "A failed call or write" } else { "A failed write" };
    let one_by_one = match subject.spec().schedule.order {
        Order::None => "",
        Order::Stream | Order::Tranche => {
            " After a failure, the events of the stream are offered one by one, so that only the event at fault fails."
        }
    };
    format!(
        "{failed} holds up {} and is retried after {initial}. The delay doubles with each retry, up to {max}, and is shortened \
         at random by up to half.{one_by_one}",
        subject.held_up()
    )
}

/// Names the permanent errors, if there can be any.
fn permanent(subject: &Subject<'_>) -> Option<String> {
    match (subject.has_script, subject.sink.permanent) {
        (true, Some(error)) => {
            Some(format!("mistakes in the script, its `malformed(..)` and permanent `throw`, and {error}"))
        }
        (true, None) => Some("mistakes in the script, and its `malformed(..)` and permanent `throw`".to_owned()),
        (false, error) => error.map(str::to_owned),
    }
}

/// Returns the action of `then`.
fn then(subject: &Subject<'_>) -> &'static str {
    match subject.definition.then() {
        Then::Halt => "the pipeline halts",
        Then::Skip => "it is skipped",
        Then::Park => "its stream is parked",
    }
}

fn meaning_of_then(subject: &Subject<'_>) -> &'static str {
    let is_durable = subject.definition.progress.facts().is_durable();
    match (subject.definition.then(), subject.spec().schedule.order) {
        (Then::Halt, _) => {
            "A halted pipeline finishes its running calls, commits its progress and stops, with the event unhandled. `/health` \
             names the reason and answers 503. Other pipelines go on, and a finite job ends with exit code 1. The next start meets \
             the same event."
        }
        (Then::Skip, _) => {
            "A skipped event has no effect and counts as handled. `propulsiond_skipped_total` counts it, and the log names it \
             (target `propulsiond::audit`)."
        }
        (Then::Park, Order::None) if is_durable => {
            "A parked event is kept aside while the rest goes on. It is stored beside the progress, as durably, until another \
             version of the handler succeeds, or an operator retries or discards it."
        }
        (Then::Park, _) if is_durable => {
            "A parked event and all later ones of its stream are kept aside while the rest goes on. They are stored beside the \
             progress, as durably, until another version of the handler succeeds, or an operator retries or discards them."
        }
        (Then::Park, Order::None) => {
            "A parked event is kept aside while the rest goes on. It is in memory beside the progress, and the end of the process \
             loses both."
        }
        (Then::Park, _) => {
            "A parked event and all later ones of its stream are kept aside while the rest goes on. They are in memory beside \
             the progress, and the end of the process loses both."
        }
    }
}

pub(super) fn malformed(subject: &Subject<'_>) -> String {
    let (record, place) = match subject.source.malformed {
        Malformed::Never(why) => return why.to_owned(),
        Malformed::Delivered { record, place } => (record, place),
    };
    let then = match subject.definition.then() {
        Then::Halt => "the pipeline halts",
        Then::Skip => "it is skipped",
        Then::Park => "it is parked",
    };
    format!("{record} is a malformed event: {then} at once, and the message names {place}.")
}

pub(super) fn outage(subject: &Subject<'_>) -> String {
    let parts = [&*sink(subject), &*alike(subject), subject.sink.throttled, &*store(subject), &*source(subject)];
    match sentences(parts) {
        none if none.is_empty() => "Nothing that this pipeline uses can be unavailable.".to_owned(),
        some => some,
    }
}

fn sink(subject: &Subject<'_>) -> String {
    let Some(condition) = subject.sink.unavailable else { return String::new() };
    let retry = &subject.spec().errors.retry;
    format!(
        "If {condition}, no event is at fault and no attempt is spent. The circuit breaker opens: all calls wait, and one call at a \
         time probes the sink, with delays from {} to {}. `/health` reports the outage.",
        subject.duration(&["errors", "retry", "initial"], retry.initial),
        subject.duration(&["errors", "retry", "max"], retry.max)
    )
}

/// Describes the outage of a sink that answers. A script reaches no back end: its errors are about its events.
fn alike(subject: &Subject<'_>) -> String {
    if !subject.definition.sink.can_fail() {
        return String::new();
    }
    let outage = &subject.spec().errors.outage;
    format!(
        "{} of writes in a row, of at least {}, are an outage as well. The circuit breaker opens, and later failures spend no attempt \
         until a write succeeds.",
        counted(outage.calls.get() as u64, "transient failure"),
        counted(outage.streams.get() as u64, "stream")
    )
}

fn store(subject: &Subject<'_>) -> String {
    if subject.sink_holds_progress() || !subject.progress_is_durable() {
        return String::new();
    }
    format!(
        "If progress cannot be committed {}, handling goes on and the commit is retried {OUTAGE}. Until it succeeds, more and more \
         events would be repeated after a crash.",
        subject.store.place
    )
}

fn source(subject: &Subject<'_>) -> String {
    let Some(condition) = subject.source.unavailable else { return String::new() };
    format!("If {condition}, reading is retried {OUTAGE}, without limit.")
}

pub(super) fn stuck(subject: &Subject<'_>) -> String {
    let limit = subject.duration(&["errors", "stuck_after"], subject.spec().errors.stuck_after);
    let then = match subject.definition.then() {
        Then::Halt => "the pipeline halts",
        Then::Skip => "its first event is skipped as soon as no call of it runs",
        Then::Park => "it is parked as soon as no call of it runs",
    };
    let thread = match subject.has_script {
        true => "A thread whose call does not return for that long is abandoned and replaced.",
        false => "",
    };
    sentences([
        &*format!(
            "If a stream makes no progress for {limit} while it is offered, {then}. The clock stands still while the stream is \
             deferred, in back-off, paused or behind an open circuit breaker."
        ),
        thread,
    ])
}
