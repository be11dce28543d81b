//! What follows from failures: the effective error policy in words (R18). `pipeline::policy` is what it describes.

use super::progress;
use super::voice::{Voice, counted, sentences};
use crate::spec::{Attempts, Checkpoint, Order, Then};

/// How long the delays around reads, claims and commits that fail grow.
const OUTAGE: &str = "after 100 milliseconds at first and 30 seconds at most";

pub(super) fn failing(voice: &Voice<'_>) -> String {
    if !can_fail(voice) {
        return sentences([
            "None can fail but one that is malformed: there is no handler, and this sink takes everything.",
            what_then_means(voice),
        ]);
    }
    let attempts = match voice.spec.errors.retry.attempts {
        Attempts::AtMost(attempts) => {
            format!("Once an event has failed {}, {}.", counted(attempts.get().into(), "time"), then(voice))
        }
        Attempts::Unlimited => format!(
            "It is tried without end, while the rest goes on until reading is {} ahead of it.",
            counted(voice.spec.schedule.max_ahead_events.get() as u64, "event")
        ),
    };
    let hopeless = hopeless(voice).map(|what| {
        let then = then(voice);
        format!("At the first failure that trying again cannot mend, {then} without more attempts: {what}.")
    });
    sentences([&*again(voice), &*attempts, &*hopeless.unwrap_or_default(), what_then_means(voice)])
}

fn can_fail(voice: &Voice<'_>) -> bool {
    voice.has_script() || !matches!(voice.spec.sink.given().next(), Some("null" | "stats"))
}

fn again(voice: &Voice<'_>) -> String {
    let retry = &voice.spec.errors.retry;
    let initial = voice.duration(&["errors", "retry", "initial"], retry.initial);
    let max = voice.duration(&["errors", "retry", "max"], retry.max);
    let what = if voice.has_script() { "A call or a write" } else { "A write" };
    let one_by_one = match voice.spec.schedule.order {
        Order::None => "",
        Order::Stream | Order::Tranche => {
            " From then on its events come one by one, so that the others do not suffer for the one at fault."
        }
    };
    format!(
        "{what} that fails holds up {}, and is made again after {initial}, then after twice as long each time up to {max}, each \
         delay shortened at random by up to half.{one_by_one}",
        voice.held_up()
    )
}

/// Says which errors are permanent, where any can be.
fn hopeless(voice: &Voice<'_>) -> Option<&'static str> {
    Some(match (voice.has_script(), voice.spec.sink.given().next()) {
        (true, Some("http")) => {
            "a mistake in the script, its `malformed` or `throw` of that class, or an answer that `permanent` names"
        }
        (true, Some("sqlite")) => {
            "a mistake in the script, its `malformed` or `throw` of that class, or a statement that cannot work"
        }
        (true, _) => "a mistake in the script, or its `malformed` or `throw` of that class",
        (false, Some("http")) => "an answer that `permanent` names",
        (false, Some("sqlite")) => "a row that the table does not take",
        (false, Some("file")) => "a stream whose name makes no path",
        (false, _) => return None,
    })
}

/// Says what `then` does, after "then".
fn then(voice: &Voice<'_>) -> &'static str {
    match voice.spec.errors.then {
        Then::Halt => "the pipeline halts",
        Then::Skip => "it is skipped",
        Then::Park => "its stream is parked",
    }
}

fn what_then_means(voice: &Voice<'_>) -> &'static str {
    match (voice.spec.errors.then, voice.spec.schedule.order) {
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

pub(super) fn malformed(voice: &Voice<'_>) -> String {
    if voice.spec.source.json.is_none() {
        let why = match voice.source_is_in_memory() {
            true => "None gets in: a post with a line that cannot be read is refused as a whole.",
            false => "This source makes none.",
        };
        return why.to_owned();
    }
    let then = match voice.spec.errors.then {
        Then::Halt => "the pipeline halts",
        Then::Skip => "it is skipped",
        Then::Park => "it is parked",
    };
    format!(
        "A line that cannot be read is an event that cannot be handled: {then} at once, with its file and line named."
    )
}

pub(super) fn away(voice: &Voice<'_>) -> String {
    sentences([&*sink(voice), throttled(voice), &*store(voice), &*source(voice)])
}

fn sink(voice: &Voice<'_>) -> String {
    let what = match voice.spec.sink.given().next() {
        Some("http") => "the server cannot be reached, or answers 401, 407, 502, 503 or 504",
        Some("sqlite") => "the sink's database cannot be written",
        Some("file") => "the sink's file cannot be written",
        Some("stdout") => "standard output is closed",
        _ => return String::new(),
    };
    let retry = &voice.spec.errors.retry;
    format!(
        "Where {what}, no event is to blame and no attempt is spent: everything waits, and one call at a time tries again, with delays \
         from {} to {}. `/health` says so.",
        voice.duration(&["errors", "retry", "initial"], retry.initial),
        voice.duration(&["errors", "retry", "max"], retry.max)
    )
}

fn throttled(voice: &Voice<'_>) -> &'static str {
    match voice.spec.sink.http {
        Some(_) => {
            "An answer of 429 spends no attempt either: everything pauses, for as long as `Retry-After` says, and then half as many \
             requests go out at the same time, more again as they succeed."
        }
        None => "",
    }
}

fn store(voice: &Voice<'_>) -> String {
    match &voice.spec.checkpoint {
        Checkpoint::Sink => String::new(),
        Checkpoint::Store(_) if voice.progress_is_in_memory() => String::new(),
        Checkpoint::Store(_) => format!(
            "Where progress cannot be stored {}, handling goes on, storing is tried again {OUTAGE}, and what a crash would repeat grows.",
            progress::store(voice)
        ),
    }
}

fn source(voice: &Voice<'_>) -> String {
    if voice.spec.source.json.is_none() {
        return String::new();
    }
    format!("Where the files cannot be read, reading is tried again {OUTAGE}, for ever.")
}

pub(super) fn stuck(voice: &Voice<'_>) -> String {
    let limit = voice.duration(&["errors", "stuck_after"], voice.spec.errors.stuck_after);
    let then = match voice.spec.errors.then {
        Then::Halt => "the pipeline halts",
        Then::Skip => "its first event is skipped, once no call of it runs any more",
        Then::Park => "it is parked, once no call of it runs any more",
    };
    let thread = match voice.has_script() {
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
