//! The limits of simultaneous work and of memory.

use super::subject::Subject;
use crate::connector::prose::{counted, sentences, thousands};
use crate::spec::Order;

pub(super) fn limits(subject: &Subject<'_>) -> String {
    sentences([&*calls(subject), subject.sink.overlap, &*per_call(subject), &*ahead(subject), &*purge(subject)])
}

fn calls(subject: &Subject<'_>) -> String {
    let schedule = &subject.spec().schedule;
    let concurrency = schedule.concurrency.get() as u64;
    let tranche = match schedule.order {
        Order::Tranche => " Each tranche has one call at a time.",
        Order::Stream | Order::None => "",
    };
    match &subject.spec().handler.rhai {
        Some(rhai) => {
            let threads = match rhai.threads {
                Some(threads) => counted(threads.get() as u64, "thread"),
                None => "as many threads as there are cores".to_owned(),
            };
            format!("The script runs on {threads}, at most {concurrency} (`schedule.concurrency`).{tranche}")
        }
        None => tranche.trim_start().to_owned(),
    }
}

fn per_call(subject: &Subject<'_>) -> String {
    let schedule = &subject.spec().schedule;
    if schedule.order == Order::None {
        return "A call gets one event of a stream.".to_owned();
    }
    let bytes = schedule.max_bytes.map(|bytes| {
        let bytes = subject.size(&["schedule", "max_bytes"], bytes);
        format!(", and at most {bytes} of them unless one event alone is larger")
    });
    let events = counted(schedule.max_events.get() as u64, "event");
    format!("A call gets at most {events} of a stream{}.", bytes.unwrap_or_default())
}

fn ahead(subject: &Subject<'_>) -> String {
    let schedule = &subject.spec().schedule;
    format!(
        "Reading of a tranche pauses while it holds {} or {} of unhandled events, or is {} ahead of its position.",
        batches(schedule.read_ahead.get() as u64),
        subject.size(&["schedule", "read_ahead_bytes"], schedule.read_ahead_bytes),
        counted(schedule.max_ahead_events.get() as u64, "event")
    )
}

fn batches(number: u64) -> String {
    if number == 1 { "1 batch".to_owned() } else { format!("{} batches", thousands(number)) }
}

fn purge(subject: &Subject<'_>) -> String {
    let Some(purge) = subject.spec().schedule.purge else { return String::new() };
    let purge = subject.interval(&["schedule", "purge"], purge);
    format!("Every {purge}, idle streams are forgotten; later duplicates of their events are not recognised.")
}
