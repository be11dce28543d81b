//! The promises of a pipeline for each event, and the cost of a crash.

use serde::Serialize;

use super::errors;
use super::subject::Subject;
use crate::connector::prose::sentences;
use crate::event::Indexes;
use crate::spec::Order;

/// The guarantee about the effect of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Guarantee {
    ExactlyOnce,
    AtLeastOnce,
    /// At least once while the process runs. Its end loses the waiting events.
    WhileItRuns,
}

/// The contract, in words. Serialises to `delivery` of `explain --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Delivery {
    pub guarantee: Guarantee,
    /// The guarantee, its reason, and the reason why there is no better one.
    pub why: String,
    pub order: String,
    /// The events that a crash of the process or the machine repeats or loses.
    pub crash: String,
    pub failing_event: String,
    pub malformed_event: String,
    /// The reaction to an unavailable sink, store or source.
    pub outage: String,
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
            ("outage", self.outage.clone()),
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
        outage: errors::outage(subject),
        stuck_stream: errors::stuck(subject),
    }
}

/// Returns whether no effect is written twice. That takes one transaction of effects and progress, and a progress that
/// identifies handled events by ordinal or by stream and index. A sparse stream's write position covers its newest event only.
fn is_once(subject: &Subject<'_>) -> bool {
    let by_index = subject.keeps_write_positions() && subject.indexes() == Indexes::Dense;
    subject.sink_holds_progress() && (subject.has_ordinals() || by_index)
}

fn why(subject: &Subject<'_>) -> String {
    let together = "effects and progress are one transaction";
    let once = if is_once(subject) {
        let logs = match subject.has_script {
            true => "This holds for effects: the logs and counts of a script may repeat.",
            false => "",
        };
        sentences([
            &*format!("exactly once: {together}, so that a crash leaves both or neither."),
            &*repeats(subject),
            logs,
        ])
    } else if subject.sink_holds_progress() {
        format!(
            "at least once: {together}, but the progress is a position alone. After a restart, events that were handled beyond an \
             unhandled one are handled again."
        )
    } else {
        sentences([
            "at least once: an event counts as handled once the sink has accepted its effects, and progress is committed after \
             that.",
            &*why_not_once(subject),
        ])
    };
    if !subject.source_is_durable() {
        return format!(
            "Only while the process runs: its end loses the received events that are not handled yet. Until then, {once}"
        );
    }
    let mut chars = once.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Describes the effect of events that the feed itself repeats, if effects and progress are one transaction (C13).
fn repeats(subject: &Subject<'_>) -> String {
    let schedule = &subject.spec().schedule;
    if !subject.repeats() {
        return subject.source.once.to_owned();
    }
    if subject.keeps_write_positions() {
        return "A duplicate in the feed is recognised by its stream and index: the same transaction keeps the position of each stream \
                (`write_positions`)."
            .to_owned();
    }
    let why = match schedule.order {
        Order::Stream => {
            "`write_positions` is off, so a duplicate in the feed may have its effect again after a restart."
        }
        Order::Tranche | Order::None => {
            "A duplicate in the feed has its effect again: only `order = \"stream\"` could recognise it."
        }
    };
    format!("This holds for each place in the feed, not for each event. {why}")
}

fn why_not_once(subject: &Subject<'_>) -> String {
    let sink = &subject.definition.sink;
    let exactly = if !subject.definition.names_sink() {
        "It cannot be exactly once: there is no sink that could hold the progress.".to_owned()
    } else if sink.transactional().is_some() {
        "It would be exactly once with `checkpoint = \"sink\"`: this sink can hold the progress.".to_owned()
    } else {
        format!(
            "It cannot be exactly once: the `{sink}` sink cannot hold the progress, so effects and progress are two steps."
        )
    };
    sentences([&*exactly, subject.sink.repeat])
}

fn order(subject: &Subject<'_>) -> String {
    let schedule = &subject.spec().schedule;
    let (lead, rest) = match schedule.order {
        Order::Stream => (
            "The events of a stream are handled one after the other, by index. Streams do not wait for each other.",
            match (schedule.require_all, subject.indexes()) {
                (true, _) => {
                    "A stream waits for each missing index, from 0 on, without limit. The position of each stream is stored with \
                     the progress. A stream that was handled in part before `require_all` was set waits for ever: give the \
                     pipeline another `group` then."
                }
                (false, Indexes::Dense) => {
                    "A stream does not wait for a missing index. A late event, with an index below a handled one, is handled on arrival, in \
                     a call of its own."
                }
                (false, Indexes::Sparse) => {
                    "A late event, with an index below a handled one, is handled on arrival, in a call of its own."
                }
            },
        ),
        Order::Tranche => (
            "All events of a tranche are handled one call after the other, in read order. A failing event therefore holds up all \
             later ones.",
            if schedule.require_all { "This order does not wait for missing indexes." } else { "" },
        ),
        Order::None => ("There is none: every event is handled by itself and may overtake any other.", ""),
    };
    sentences([lead, rest])
}

fn crash(subject: &Subject<'_>, guarantee: Guarantee) -> String {
    let lost = match guarantee {
        Guarantee::WhileItRuns => "Received events that are not handled yet are lost.",
        _ => "",
    };
    sentences([lost, &*again(subject, guarantee), &*power(subject)])
}

fn again(subject: &Subject<'_>, guarantee: Guarantee) -> String {
    if subject.sink_holds_progress() {
        return match guarantee {
            Guarantee::WhileItRuns => "A transaction in flight is rolled back.",
            _ => "A transaction in flight is rolled back, and its events are handled again. No event is left out.",
        }
        .to_owned();
    }
    if guarantee == Guarantee::WhileItRuns {
        return "Handled events are not repeated. If the pipeline alone fails and restarts in the same process, it repeats the events \
                that were handled since the last commit, or beyond an unhandled event."
            .to_owned();
    }
    if !subject.progress_is_durable() {
        return "All events are handled again, from the origin. The same holds after every other stop, and after a failure of the \
                pipeline."
            .to_owned();
    }
    let interval = subject.duration(&["schedule", "commit_interval"], subject.spec().schedule.commit_interval);
    format!(
        "Events that were handled since the last commit are handled again. Commits are {interval} apart \
         (`schedule.commit_interval`), or more while the store is unavailable. Writes in flight are repeated as well. \
         `propulsiond_replay_exposure_events` is the number of these events. A stop by signal commits progress first and repeats \
         nothing, if the drain ends within the daemon's `drain`."
    )
}

/// Describes the acknowledged writes that a power failure can lose. A process crash loses none.
fn power(subject: &Subject<'_>) -> String {
    let of_sink = subject.sink.power_failure.as_ref().filter(|_| !subject.sink_holds_progress());
    of_sink.or(subject.store.power_failure.as_ref()).cloned().unwrap_or_default()
}
