//! What a pipeline promises of each event, and what a crash costs.

use serde::Serialize;

use super::errors;
use super::subject::Subject;
use crate::connector::prose::sentences;
use crate::event::Indexes;
use crate::spec::Order;

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

pub(super) fn delivery(subject: &Subject<'_>) -> Delivery {
    let guarantee = if !subject.source_is_durable() {
        Guarantee::WhileItRuns
    } else if is_once(subject) {
        Guarantee::ExactlyOnce
    } else {
        Guarantee::AtLeastOnce
    };
    Delivery {
        guarantee,
        why: why(subject),
        order: order(subject),
        crash: crash(subject, guarantee),
        failing_event: errors::failing(subject),
        malformed_event: errors::malformed(subject),
        away: errors::away(subject),
        stuck_stream: errors::stuck(subject),
    }
}

/// Returns whether no effect is written twice: effects and progress are one, and that tells of each event whether it was
/// handled, by its ordinal or by its stream and index.
fn is_once(subject: &Subject<'_>) -> bool {
    subject.sink_holds_progress() && (subject.has_ordinals() || subject.keeps_write_positions())
}

fn why(subject: &Subject<'_>) -> String {
    let together = "what is written, and how far the events were read, are one transaction";
    let once = if is_once(subject) {
        let logs = match subject.has_script {
            true => "This is about what is written: what a script logs or counts may happen twice.",
            false => "",
        };
        sentences([
            &*format!("exactly once: {together}: after a crash both are there, or neither."),
            &*repeats(subject),
            logs,
        ])
    } else if subject.sink_holds_progress() {
        format!(
            "at least once: {together}, but that tells no more than a position. When the pipeline fails and starts over, what was \
             handled behind an event that was not is handled again."
        )
    } else {
        sentences([
            "at least once: an event counts as handled once the sink has taken what follows from it, and progress is stored after \
             that.",
            &*why_not_once(subject),
        ])
    };
    if !subject.source_is_durable() {
        return format!(
            "Only while the process runs: what was posted and is not handled when it ends is gone. Until then, {once}"
        );
    }
    let mut chars = once.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Says what becomes of events that the feed itself repeats, where effects and progress are one (C13).
fn repeats(subject: &Subject<'_>) -> String {
    let schedule = &subject.spec().schedule;
    if !subject.repeats() {
        return subject.source.once.to_owned();
    }
    if subject.keeps_write_positions() {
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

fn why_not_once(subject: &Subject<'_>) -> String {
    let sink = &subject.definition.sink;
    let exactly = if !subject.definition.names_sink() {
        "It cannot be exactly once: there is no sink that could hold the progress.".to_owned()
    } else if sink.transactional().is_some() {
        "It would be exactly once with `checkpoint = \"sink\"`: this sink can hold the progress.".to_owned()
    } else {
        format!(
            "It cannot be exactly once: the `{sink}` sink cannot hold the progress, so what it takes and what is stored of it are two steps."
        )
    };
    sentences([&*exactly, subject.sink.repeat])
}

fn order(subject: &Subject<'_>) -> String {
    let schedule = &subject.spec().schedule;
    let (lead, rest) = match schedule.order {
        Order::Stream => (
            "The events of a stream are handled one after the other, by index; streams do not wait for each other.",
            match (schedule.require_all, subject.indexes()) {
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

fn crash(subject: &Subject<'_>, guarantee: Guarantee) -> String {
    let lost = match guarantee {
        Guarantee::WhileItRuns => "Events that were posted and are not handled yet are lost.",
        _ => "",
    };
    sentences([lost, &*again(subject, guarantee), &*power(subject)])
}

fn again(subject: &Subject<'_>, guarantee: Guarantee) -> String {
    if subject.sink_holds_progress() {
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
    if !subject.progress_is_durable() {
        return "All that was handled is handled again, from the beginning. So it is after every other stop, and after a failure of the \
                pipeline."
            .to_owned();
    }
    let interval = subject.duration(&["schedule", "commit_interval"], subject.spec().schedule.commit_interval);
    format!(
        "What was handled since progress was last stored is handled again: what comes in about {interval} \
         (`schedule.commit_interval`), or for as long as the store could not be reached, and what the sink was writing at that moment. \
         `propulsiond_replay_exposure_events` says how many that is now. A stop by signal stores progress first and repeats nothing, \
         if it ends within the daemon's `drain`."
    )
}

/// Describes the acknowledged writes that a power failure can lose. A process crash loses none.
fn power(subject: &Subject<'_>) -> String {
    let of_sink = subject.sink.power_failure.as_ref().filter(|_| !subject.sink_holds_progress());
    of_sink.or(subject.store.power_failure.as_ref()).cloned().unwrap_or_default()
}
