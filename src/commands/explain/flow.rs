//! The path of an event: source, filter, handler, sink.

use super::subject::Subject;
use crate::config::scalar::Text;
use crate::connector::prose::{counted, names, sentences};
use crate::script::Entry;
use crate::spec::Stop;

pub(super) fn source(subject: &Subject<'_>) -> String {
    let end = match subject.definition.stop() {
        Stop::Never => "It follows new events and never ends by itself.".to_owned(),
        Stop::Tail => "It ends once all existing events are handled.".to_owned(),
        Stop::After(limit) => {
            format!("It ends {} after its start, even if events are left.", subject.duration(&["stop", "after"], limit))
        }
    };
    let after = match &subject.spec().after {
        Some(after) => format!(
            "It comes after the pipeline `{}` of the same daemon: it gets the events of a read once that pipeline has handled \
             them and all earlier ones of their tranche, and waits until then.",
            after.written()
        ),
        None => String::new(),
    };
    sentences([&*subject.source.reads, &*after, &*end])
}

pub(super) fn filter(subject: &Subject<'_>) -> String {
    let filter = &subject.spec().filter;
    let said = |entries: &[Text], word| names(entries.iter().map(Text::written), word);
    let of = |kinds: [(&[Text], &str); 2]| -> String {
        let kinds = kinds.iter().filter(|(entries, _)| !entries.is_empty());
        kinds.map(|(entries, which)| format!("{which} {}", said(entries, "or"))).collect::<Vec<_>>().join(", ")
    };
    let wanted = of([(&filter.categories, "in the category"), (&filter.streams, "with the name")]);
    let excluded = of([(&filter.exclude_categories, "in the category"), (&filter.exclude_streams, "with the name")]);
    let streams = match (wanted.is_empty(), excluded.is_empty()) {
        (true, true) => "all streams".to_owned(),
        (false, true) => format!("the streams {wanted}"),
        (true, false) => format!("all streams but those {excluded}"),
        (false, false) => format!("the streams {wanted}, but none {excluded}"),
    };
    let mut events = Vec::new();
    if !filter.events.is_empty() {
        events.push(format!("those of the type {}", said(&filter.events, "or")));
    }
    if !filter.exclude_events.is_empty() {
        events.push(format!("none of the type {}", said(&filter.exclude_events, "or")));
    }
    let takes = match (wanted.is_empty() && excluded.is_empty(), events.is_empty()) {
        (true, true) => "All streams and all events are taken.".to_owned(),
        (false, true) => format!("It takes {streams}, and all events of them."),
        (_, false) => format!("It takes {streams}, and of their events {}.", events.join(", but ")),
    };
    let system = match filter.system {
        true => "System streams, whose names begin with `$`, pass like others.",
        false => "System streams, whose names begin with `$`, are left out unless an entry names them with their `$`.",
    };
    sentences([&*takes, "Excluded events count as handled.", system])
}

pub(super) fn handler(subject: &Subject<'_>) -> String {
    let Some(rhai) = &subject.spec().handler.rhai else {
        return "There is none: the events themselves go to the sink.".to_owned();
    };
    let gets = match (subject.entry, subject.spec().schedule.streams_per_call.get()) {
        (Some(Entry::HandleEvent), _) => "`handle_event` gets one event after the other of one stream".to_owned(),
        (_, 1) => "`handle` gets one stream and its next events".to_owned(),
        (_, streams) => {
            format!("`handle_batch` gets up to {} and the next events of each", counted(streams as u64, "stream"))
        }
    };
    let by_event = match subject.by_event {
        true => " An event that fails keeps back neither the events before it nor their effects.",
        false => "",
    };
    let upcast = match subject.upcasts {
        true => " Its `upcast` brings each event into the newest form first, and the filter by type judges that form.",
        false => "",
    };
    format!(
        "The script `{}` decides: {gets}.{upcast} The effects of a call reach the sink only if the call succeeds. A call that takes longer \
         than {} fails.{by_event}",
        rhai.script.written(),
        subject.duration(&["handler", "rhai", "timeout"], rhai.timeout)
    )
}

pub(super) fn sink(subject: &Subject<'_>) -> String {
    if subject.definition.names_sink() {
        subject.sink.writes.clone()
    } else {
        "There is none: the effects of the script are discarded.".to_owned()
    }
}
