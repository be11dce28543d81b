//! The objects of a script: `stream`, `events`, `e`, the `span`s of a batch, and times.

use std::fmt;

use rhai::{Dynamic, Engine, ImmutableString};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::api;
use super::call::{Call, Failure, Handle, Part, Seen, current, misuse};
use super::document::Document;
use super::methods;
use crate::event::{Text, category, stream_id};

/// A stream, with `.name`, `.category`, `.id` and `.ids`.
#[derive(Clone, Copy)]
pub(super) struct StreamObject(pub(super) Handle);

/// The events of a stream, in order.
#[derive(Clone, Copy)]
pub(super) struct EventsObject(pub(super) Handle);

/// One event.
#[derive(Clone, Copy)]
pub(super) struct EventObject(pub(super) Handle);

/// A stream of a batch, with its events and the decisions about it.
#[derive(Clone, Copy)]
pub(super) struct SpanObject(pub(super) Handle);

/// A point in time.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct TimeObject(pub(super) OffsetDateTime);

impl EventsObject {
    pub(super) fn handles(&self, call: &mut Call) -> Result<Vec<EventObject>, Failure> {
        let count = call.events_in(self.0)?;
        let handle = |position| call.event_of(self.0, position as i64).map(|found| found.map(EventObject));
        (0..count).map(handle).filter_map(Result::transpose).collect()
    }
}

/// An iterator over the events of a stream. Each step marks its event as the one read last.
pub(super) struct EventsIterator {
    events: Handle,
    position: i64,
}

impl IntoIterator for EventsObject {
    type Item = Result<EventObject, Failure>;
    type IntoIter = EventsIterator;

    fn into_iter(self) -> EventsIterator {
        EventsIterator { events: self.0, position: 0 }
    }
}

impl Iterator for EventsIterator {
    type Item = Result<EventObject, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = current(|call| call.event_of(self.events, self.position));
        self.position += 1;
        found.map(|found| found.map(EventObject)).transpose()
    }
}

impl fmt::Display for TimeObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

/// Parses an RFC 3339 text.
pub(super) fn parse_time(text: &str) -> Result<TimeObject, Failure> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map(TimeObject)
        .map_err(|_| misuse(format!("`{text}` is not a time such as \"2026-11-24T10:00:00Z\"")))
}

/// Registers the objects and their properties.
pub(super) fn register(engine: &mut Engine) {
    register_stream(engine);
    register_events(engine);
    register_event(engine);
    register_span(engine);
    register_time(engine);
}

/// A function that reads a property of an event or a stream.
pub(super) type Getter = fn(Handle) -> Result<Dynamic, Failure>;

const OF_STREAM: [(&str, Getter); 4] = [
    ("name", |stream| part_of(stream, |name| name).map(Dynamic::from)),
    ("category", |stream| part_of(stream, category).map(Dynamic::from)),
    ("id", |stream| part_of(stream, stream_id).map(Dynamic::from)),
    ("ids", |stream| {
        let id = part_of(stream, stream_id)?;
        Ok(Dynamic::from_array(id.split('_').map(|part| part.into()).collect()))
    }),
];

const OF_EVENT: [(&str, Getter); 11] = [
    ("type", |event| current(|call| call.event_type(event)).map(Dynamic::from)),
    ("index", |event| current(|call| call.event(event).map(|event| event.index().into()))),
    ("is_unfold", |event| current(|call| call.event(event).map(|event| event.is_unfold().into()))),
    ("data", |event| document(event, Part::Data)),
    ("meta", |event| document(event, Part::Meta)),
    ("raw", |event| current(|call| call.event(event).map(|event| raw(event.data())))),
    ("timestamp", time),
    ("id", |event| text(event, Text::Id)),
    ("correlation", |event| text(event, Text::Correlation)),
    ("causation", |event| text(event, Text::Causation)),
    ("stream", |event| current(|call| Ok(Dynamic::from(StreamObject(call.span_of(event)))))),
];

/// Returns the getter of a property of streams.
pub(super) fn of_stream(property: &str) -> Option<Getter> {
    OF_STREAM.iter().find(|(name, _)| *name == property).map(|(_, get)| *get)
}

/// Returns the getter of a property of events.
pub(super) fn of_event(property: &str) -> Option<Getter> {
    OF_EVENT.iter().find(|(name, _)| *name == property).map(|(_, get)| *get)
}

fn register_stream(engine: &mut Engine) {
    engine.register_type_with_name::<StreamObject>("stream");
    for (name, get) in OF_STREAM {
        engine.register_get(name, move |stream: &mut StreamObject| get(stream.0));
    }
    for print in ["to_string", "print", "to_debug", "debug"] {
        engine.register_fn(print, |stream: &mut StreamObject| part_of(stream.0, |name| name));
    }
}

fn part_of(stream: Handle, part: impl Fn(&str) -> &str) -> Result<ImmutableString, Failure> {
    current(|call| Ok(part(call.first_event(stream)?.stream()).into()))
}

fn register_events(engine: &mut Engine) {
    engine.register_type_with_name::<EventsObject>("events");
    engine.register_iterator_result::<EventsObject, EventObject>();
    engine.register_indexer_get(|events: &mut EventsObject, position: i64| {
        let found = current(|call| call.event_of(events.0, position))?.map(EventObject);
        found.ok_or_else(|| misuse(format!("there is no event at `events[{position}]`")))
    });
    engine.register_get("len", |events: &mut EventsObject| count(events.0));
    engine.register_fn("len", |events: &mut EventsObject| count(events.0));
    engine.register_fn("is_empty", |events: &mut EventsObject| count(events.0).map(|count| count == 0));
}

fn count(events: Handle) -> Result<i64, Failure> {
    current(|call| call.events_in(events)).map(|count| count as i64)
}

fn register_event(engine: &mut Engine) {
    engine.register_type_with_name::<EventObject>("event");
    for (name, get) in OF_EVENT {
        engine.register_get(name, move |event: &mut EventObject| get(event.0));
    }
    for (name, own) in [("data", Part::Data), ("meta", Part::Meta)] {
        engine.register_set(name, move |event: &mut EventObject, value: Dynamic| -> Result<(), Failure> {
            // rhai writes a property back after each method call, such as `e.data.contains("x")`.
            let unchanged =
                |document: &Document| matches!(document, Document::Event(of, part) if (*of, *part) == (event.0, own));
            match value.read_lock::<Document>().is_some_and(|document| unchanged(&document)) {
                true => Ok(()),
                false => Err(misuse("events cannot be changed: copy the map first (`let data = e.data;`)")),
            }
        });
    }
    for print in ["to_string", "print", "to_debug", "debug"] {
        engine.register_fn(print, |event: &mut EventObject| {
            current(|call| call.event(event.0).map(|event| ImmutableString::from(format!("{event:?}"))))
        });
    }
}

fn document(event: Handle, part: Part) -> Result<Dynamic, Failure> {
    methods::note_property(true);
    Ok(match current(|call| call.document(event, part))? {
        Seen::Object => Dynamic::from(Document::Event(event, part)),
        Seen::Plain(value) => value,
    })
}

/// Returns the body unchanged: as a string, or as a blob if it is not UTF-8.
fn raw(data: &[u8]) -> Dynamic {
    match std::str::from_utf8(data) {
        Ok(text) => text.into(),
        Err(_) => Dynamic::from_blob(data.to_vec()),
    }
}

fn text(event: Handle, field: Text) -> Result<Dynamic, Failure> {
    current(|call| {
        let text = call.event(event)?.text(field);
        Ok(if text.is_empty() { Dynamic::UNIT } else { text.into() })
    })
}

fn time(event: Handle) -> Result<Dynamic, Failure> {
    current(|call| {
        let text = call.event(event)?.time_text();
        Ok(if text.is_empty() { Dynamic::UNIT } else { text.as_ref().into() })
    })
}

fn register_span(engine: &mut Engine) {
    engine.register_type_with_name::<SpanObject>("span");
    engine.register_get("stream", |span: &mut SpanObject| StreamObject(span.0));
    engine.register_get("events", |span: &mut SpanObject| EventsObject(span.0));
    api::register_for_spans(engine);
}

fn register_time(engine: &mut Engine) {
    engine.register_type_with_name::<TimeObject>("time");
    engine.register_fn("unix", |time: &mut TimeObject| time.0.unix_timestamp());
    engine.register_fn("unix_ms", |time: &mut TimeObject| (time.0.unix_timestamp_nanos() / 1_000_000) as i64);
    engine.register_fn("seconds_since", |time: &mut TimeObject, earlier: TimeObject| {
        (time.0 - earlier.0).as_seconds_f64()
    });
    engine.register_fn("seconds_since", |time: &mut TimeObject, earlier: ImmutableString| {
        parse_time(&earlier).map(|earlier| (time.0 - earlier.0).as_seconds_f64())
    });
    for print in ["to_string", "print", "to_debug", "debug"] {
        engine.register_fn(print, |time: &mut TimeObject| time.to_string());
    }
    engine.register_fn("<", |a: TimeObject, b: TimeObject| a < b);
    engine.register_fn("<=", |a: TimeObject, b: TimeObject| a <= b);
    engine.register_fn(">", |a: TimeObject, b: TimeObject| a > b);
    engine.register_fn(">=", |a: TimeObject, b: TimeObject| a >= b);
    engine.register_fn("==", |a: TimeObject, b: TimeObject| a == b);
    engine.register_fn("!=", |a: TimeObject, b: TimeObject| a != b);
}
