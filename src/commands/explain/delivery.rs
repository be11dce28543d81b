//! What a pipeline promises of each event, and what a crash costs.

use serde::Serialize;

use super::errors;
use super::voice::{Voice, sentences};
use crate::connector::{file, http, json, sqlite};
use crate::event::Indexes;
use crate::spec::{Checkpoint, CheckpointSpec, Order};

/// How often an event has its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    ExactlyOnce,
    AtLeastOnce,
    /// At least once as long as the process runs; what waits when it ends is gone.
    WhileItRuns,
}

/// The contract, in words. Serialises to `delivery` of `explain --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    pub guarantee: Guarantee,
    /// The guarantee, why it holds, and why there is no better one.
    pub why: String,
    pub order: String,
    /// What is repeated, or lost, after the process or the machine ended without warning.
    pub crash: String,
    pub failing_event: String,
    pub malformed_event: String,
    /// What the sink, the store or the source writes to or reads from cannot be reached.
    pub away: String,
    pub stuck_stream: String,
}

impl Delivery {
    pub(super) fn promises(&self) -> Vec<(&'static str, String)> {
        vec![("delivery", self.why.clone()), ("order", self.order.clone()), ("a crash", self.crash.clone())]
    }

    pub(super) fn failures(&self) -> Vec<(&'static str, String)> {
        vec![
            ("failing event", self.failing_event.clone()),
            ("malformed event", self.malformed_event.clone()),
            ("away", self.away.clone()),
            ("stuck stream", self.stuck_stream.clone()),
        ]
    }
}

pub(super) fn delivery(voice: &Voice<'_>) -> Delivery {
    let guarantee = if voice.source_is_in_memory() {
        Guarantee::WhileItRuns
    } else if is_once(voice) {
        Guarantee::ExactlyOnce
    } else {
        Guarantee::AtLeastOnce
    };
    Delivery {
        guarantee,
        why: why(voice),
        order: order(voice),
        crash: crash(voice, guarantee),
        failing_event: errors::failing(voice),
        malformed_event: errors::malformed(voice),
        away: errors::away(voice),
        stuck_stream: errors::stuck(voice),
    }
}

/// Returns whether no effect is written twice: effects and progress are one, and that tells of each event whether it was
/// handled, by its ordinal or by its stream and index.
fn is_once(voice: &Voice<'_>) -> bool {
    voice.sink_holds_progress() && (voice.spec.contract().ordinals || voice.spec.keeps_write_positions())
}

fn why(voice: &Voice<'_>) -> String {
    let together = "what is written, and how far the events were read, are one transaction";
    let once = if is_once(voice) {
        let logs = match voice.has_script() {
            true => "This is about what is written: what a script logs or counts may happen twice.",
            false => "",
        };
        sentences([
            &*format!("exactly once: {together}: after a crash both are there, or neither."),
            &*repeats(voice),
            logs,
        ])
    } else if voice.sink_holds_progress() {
        format!(
            "at least once: {together}, but that tells no more than a position. When the pipeline fails and starts over, what was \
             handled behind an event that was not is handled again."
        )
    } else {
        sentences([
            "at least once: an event counts as handled once the sink has taken what follows from it, and progress is stored after \
             that.",
            &*why_not_once(voice),
        ])
    };
    if voice.source_is_in_memory() {
        return format!(
            "Only while the process runs: what was posted and is not handled when it ends is gone. Until then, {once}"
        );
    }
    let mut chars = once.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Says what becomes of events that the feed itself repeats, where effects and progress are one (C13).
fn repeats(voice: &Voice<'_>) -> String {
    let schedule = &voice.spec.schedule;
    if !voice.spec.contract().repeats {
        return once_in_the_feed(voice).to_owned();
    }
    if voice.spec.keeps_write_positions() {
        return "If the feed has an event twice, the second is known by its stream and index, as the place of each stream is kept in \
                the same transaction (`write_positions`)."
            .to_owned();
    }
    let why = match schedule.order {
        Order::Stream => {
            "`write_positions` is off, so if the feed has an event twice, the second may have its effect again after a \
                          restart."
        }
        Order::Tranche | Order::None => {
            "If the feed has an event twice, the second has its effect again: only with `order = \"stream\"` could it be known."
        }
    };
    format!("That is for each place in the feed, not for each event. {why}")
}

/// Says why a feed that does not repeat events does not.
fn once_in_the_feed(voice: &Voice<'_>) -> &'static str {
    match &voice.spec.source.json {
        Some(json) if json.on_replaced == json::OnReplaced::Restart => {
            "Each line is an event of its own, even if another says the same; a file that is read again, as `on_replaced` asks \
             for, is new events, which have their effect again."
        }
        Some(_) => "Each line is an event of its own, even if another says the same.",
        None => "The source has every event once.",
    }
}

fn why_not_once(voice: &Voice<'_>) -> String {
    let sink = &voice.spec.sink;
    let kind = sink.given().next();
    let exactly = match kind {
        Some("sqlite") => {
            "It would be exactly once with `checkpoint = \"sink\"`: this sink can hold the progress.".to_owned()
        }
        Some(kind) => format!(
            "It cannot be exactly once: the `{kind}` sink cannot hold the progress, so what it takes and what is stored of it are two steps."
        ),
        None => "It cannot be exactly once: there is no sink that could hold the progress.".to_owned(),
    };
    sentences([&*exactly, harmless(voice)])
}

/// Says what a repeat does to what the sink writes to.
fn harmless(voice: &Voice<'_>) -> &'static str {
    let sink = &voice.spec.sink;
    match (voice.has_script(), sink.given().next()) {
        (true, Some("sqlite")) => {
            "Write statements that may run twice, such as `INSERT … ON CONFLICT …` or `UPDATE … SET total = ?`."
        }
        (false, Some("sqlite")) => {
            "A repeat does no harm here: a row is known by its stream and index, and written over."
        }
        (_, Some("http")) => match sink.http.as_ref().map(|http| http.per) {
            Some(http::Per::Event) if !voice.has_script() => {
                "A receiver that heeds the idempotency key handles an event once."
            }
            _ => "A receiver that heeds the idempotency key can drop most repeats.",
        },
        (_, Some("stdout" | "file")) => "After a repeat the same line is there twice.",
        (_, Some("stats")) => "What comes again is counted again.",
        _ => "",
    }
}

fn order(voice: &Voice<'_>) -> String {
    let schedule = &voice.spec.schedule;
    let (lead, rest) = match schedule.order {
        Order::Stream => (
            "The events of a stream are handled one after the other, by index; streams do not wait for each other.",
            match (schedule.require_all, voice.spec.contract().indexes) {
                (true, _) => {
                    "Where an index is missing, from 0 on, the stream waits until it comes, as long as that takes. How far each \
                     stream was is known after a restart: it is kept beside the progress. A stream that was handled in part \
                     before `require_all` was set waits for ever: give the pipeline another `group` then."
                }
                (false, Indexes::Dense) => {
                    "Where an index is missing, the stream does not wait for it; an event that comes late, below one that was handled, is handled \
                     then, by itself."
                }
                (false, Indexes::Sparse) => {
                    "An event that comes late, below one that was handled, is handled then, by itself."
                }
            },
        ),
        Order::Tranche => (
            "All events of a tranche are handled one call after the other, in the order in which they are read, so a failing one \
             holds up all that follow.",
            if schedule.require_all { "Missing indexes are not waited for in this order." } else { "" },
        ),
        Order::None => ("There is none: every event is handled by itself, and any may overtake any.", ""),
    };
    sentences([lead, rest])
}

fn crash(voice: &Voice<'_>, guarantee: Guarantee) -> String {
    let lost = match guarantee {
        Guarantee::WhileItRuns => "Events that were posted and are not handled yet are lost.",
        _ => "",
    };
    sentences([lost, &*again(voice, guarantee), &*power(voice)])
}

fn again(voice: &Voice<'_>, guarantee: Guarantee) -> String {
    if voice.sink_holds_progress() {
        return match guarantee {
            Guarantee::WhileItRuns => "A transaction that was under way is undone.",
            _ => {
                "A transaction that was under way is undone, and what it was about is decided again. Nothing is left out."
            }
        }
        .to_owned();
    }
    if guarantee == Guarantee::WhileItRuns {
        return "What was handled is not offered again after that. When only the pipeline fails and starts over in the same \
                process, what was handled since progress was last stored, or behind an event that was not handled, is handled again."
            .to_owned();
    }
    if voice.progress_is_in_memory() {
        return "All that was handled is handled again, from the beginning. So it is after every other stop, and after a failure of the \
                pipeline."
            .to_owned();
    }
    let interval = voice.duration(&["schedule", "commit_interval"], voice.spec.schedule.commit_interval);
    format!(
        "What was handled since progress was last stored is handled again: what comes in about {interval} \
         (`schedule.commit_interval`), or for as long as the store could not be reached, and what the sink was writing at that moment. \
         `propulsiond_replay_exposure_events` says how many that is now. A stop by signal stores progress first and repeats nothing, \
         if it ends within the daemon's `drain`."
    )
}

/// Says what the loss of power takes that was reported as written. The end of the process alone takes nothing of it.
fn power(voice: &Voice<'_>) -> String {
    let sink = &voice.spec.sink;
    if let Some(file::sink::Settings { fsync, .. }) = &sink.file {
        return match fsync {
            file::sink::Fsync::Batch => String::new(),
            file::sink::Fsync::Never => lost_with_power("`fsync = \"never\"`", "lines that were written"),
            file::sink::Fsync::Every(interval) => {
                let interval = voice.duration(&["sink", "file", "fsync", "every"], *interval);
                lost_with_power(&format!("`fsync = {{ every = … }}`, {interval},"), "the last lines")
            }
        };
    }
    let Some(sqlite) = &sink.sqlite else { return progress_lost_with_power(voice) };
    if sqlite.synchronous == sqlite::Synchronous::Full {
        return progress_lost_with_power(voice);
    }
    if voice.sink_holds_progress() {
        return "With `synchronous = \"normal\"` the last transactions may be undone if the machine loses power, effects and progress \
                together: then their events come again."
            .to_owned();
    }
    lost_with_power("`synchronous = \"normal\"`", "the last rows")
}

fn lost_with_power(setting: &str, what: &str) -> String {
    format!(
        "If the machine loses power, {setting} lets {what} be lost, and they do not come again where progress was stored meanwhile."
    )
}

fn progress_lost_with_power(voice: &Voice<'_>) -> String {
    match &voice.spec.checkpoint {
        Checkpoint::Store(CheckpointSpec { sqlite: Some(store), .. }) if store.synchronous == sqlite::Synchronous::Normal => {
            "If the machine loses power, the last progress may be lost too (`synchronous = \"normal\"`), and more is repeated."
        }
        _ => "",
    }
    .to_owned()
}
