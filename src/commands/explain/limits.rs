//! How much happens at the same time, and how much is held in memory.

use super::voice::{Voice, counted, sentences};
use crate::spec::Order;

pub(super) fn limits(voice: &Voice<'_>) -> String {
    sentences([&*calls(voice), writes(voice), &*per_call(voice), &*ahead(voice), &*purge(voice)])
}

fn calls(voice: &Voice<'_>) -> String {
    let schedule = &voice.spec.schedule;
    let concurrency = schedule.concurrency.get() as u64;
    let tranche = match schedule.order {
        Order::Tranche => " There is one call at a time for each tranche.",
        Order::Stream | Order::None => "",
    };
    match &voice.spec.handler.rhai {
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

fn writes(voice: &Voice<'_>) -> &'static str {
    match voice.spec.sink.given().next() {
        Some("http") => "At most `schedule.concurrency` of what was decided is being sent at the same time.",
        Some("sqlite") => "One transaction at a time takes what has gathered.",
        Some("stdout" | "file" | "stats") => "One write at a time takes what has gathered.",
        _ => "",
    }
}

fn per_call(voice: &Voice<'_>) -> String {
    let schedule = &voice.spec.schedule;
    if schedule.order == Order::None {
        return "A call gets one event of a stream.".to_owned();
    }
    let bytes = schedule.max_bytes.map(|bytes| {
        let bytes = voice.size(&["schedule", "max_bytes"], bytes);
        format!(", and no more than {bytes} of them unless one alone is larger")
    });
    let events = counted(schedule.max_events.get() as u64, "event");
    format!("A call gets at most {events} of a stream{}.", bytes.unwrap_or_default())
}

fn ahead(voice: &Voice<'_>) -> String {
    let schedule = &voice.spec.schedule;
    format!(
        "For each tranche, reading pauses while {} or {} of events are held that are not handled, or it is {} ahead of the position.",
        batches(schedule.read_ahead.get() as u64),
        voice.size(&["schedule", "read_ahead_bytes"], schedule.read_ahead_bytes),
        counted(schedule.max_ahead_events.get() as u64, "event")
    )
}

fn batches(number: u64) -> String {
    if number == 1 { "1 batch".to_owned() } else { format!("{} batches", super::voice::thousands(number)) }
}

fn purge(voice: &Voice<'_>) -> String {
    let Some(purge) = voice.spec.schedule.purge else { return String::new() };
    let purge = voice.interval(&["schedule", "purge"], purge);
    format!(
        "Every {purge}, streams without work are forgotten; an event that the feed repeats after that is not known as one."
    )
}
