//! Conversion of script values to effects, and their texts in messages.

use std::borrow::Cow;

use rhai::Dynamic;

use super::call::{Call, Failure, Fault, Part, Seen, current, misuse};
use super::document::Document;
use super::json;
use super::objects::{EventObject, EventsObject, StreamObject, TimeObject};
use crate::effect::Value;
use crate::event::Text;

/// The size of a value without its text.
pub(super) const VALUE_BYTES: usize = size_of::<Value>();

/// Converts an emitted value. Equal texts (keys, SQL) are shared.
pub(super) fn to_value(call: &mut Call, value: &Dynamic) -> Result<Value, Failure> {
    convert(call, value, 0)
}

/// Converts a value that lies `depth` levels deep in an emitted value.
pub(super) fn to_value_at(call: &mut Call, value: &Dynamic, depth: usize) -> Result<Value, Failure> {
    convert(call, value, depth)
}

fn convert(call: &mut Call, value: &Dynamic, depth: usize) -> Result<Value, Failure> {
    if depth > json::MAX_DEPTH {
        return Err(misuse(format!("a value is nested more than {} levels deep", json::MAX_DEPTH)));
    }
    call.emitted_bytes += VALUE_BYTES;
    if let Ok(text) = value.as_immutable_string_ref() {
        call.emitted_bytes += text.len();
        return Ok(Value::Text(call.texts.get(&text)));
    }
    if let Ok(number) = value.as_int() {
        return Ok(Value::Int(number));
    }
    if let Ok(map) = value.as_map_ref() {
        let mut entries = Vec::with_capacity(map.len());
        for (key, value) in map.iter() {
            call.emitted_bytes += key.len();
            entries.push((call.texts.get(key), convert(call, value, depth + 1)?));
        }
        return Ok(Value::Map(entries));
    }
    if let Ok(items) = value.as_array_ref() {
        let items: Result<_, _> = items.iter().map(|item| convert(call, item, depth + 1)).collect();
        return items.map(Value::List);
    }
    convert_rarer(call, value, depth)
}

fn convert_rarer(call: &mut Call, value: &Dynamic, depth: usize) -> Result<Value, Failure> {
    if value.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(value) = value.as_bool() {
        return Ok(Value::Bool(value));
    }
    if let Ok(number) = value.as_float() {
        // JSON and SQL have no such numbers. A sink would write null instead.
        if !number.is_finite() {
            return Err(misuse(format!("{number} cannot be emitted: it is not a finite number")));
        }
        return Ok(Value::Float(number));
    }
    if let Ok(char) = value.as_char() {
        return Ok(Value::Text(call.texts.get(char.encode_utf8(&mut [0; 4]))));
    }
    if let Ok(blob) = value.as_blob_ref() {
        call.emitted_bytes += blob.len();
        return Ok(Value::Bytes(bytes::Bytes::copy_from_slice(&blob)));
    }
    if let Some(document) = value.read_lock::<Document>() {
        let whole = document.whole(call)?;
        return convert(call, &whole, depth);
    }
    if let Some(event) = value.read_lock::<EventObject>() {
        return event_value(call, *event, depth);
    }
    if let Some(events) = value.read_lock::<EventsObject>() {
        let handles = events.handles(call)?;
        let items: Result<_, _> = handles.into_iter().map(|event| event_value(call, event, depth + 1)).collect();
        return items.map(Value::List);
    }
    if let Some(time) = value.read_lock::<TimeObject>() {
        return Ok(time.to_string().as_str().into());
    }
    Err(misuse(format!("{} cannot be emitted", kind(value))))
}

/// Converts an event to a map of `stream`, `index`, `type`, `data` and its other fields.
fn event_value(call: &mut Call, object: EventObject, depth: usize) -> Result<Value, Failure> {
    let event = call.event(object.0)?.clone();
    let event_type = call.event_type(object.0)?;
    let event_type = call.texts.get(&event_type);
    let mut entries = vec![
        (call.texts.get("stream"), Value::Text(call.texts.get(event.stream()))),
        (call.texts.get("index"), Value::Int(event.index())),
        (call.texts.get("type"), Value::Text(event_type)),
    ];
    for (name, text) in [("id", event.text(Text::Id)), ("timestamp", &*event.time_text())] {
        if !text.is_empty() {
            entries.push((call.texts.get(name), text.into()));
        }
    }
    for (name, part, bytes) in [("data", Part::Data, event.data()), ("meta", Part::Meta, event.meta())] {
        let whole = match call.document(object.0, part)? {
            Seen::Object => call.whole(object.0, part)?,
            Seen::Plain(value) if value.is_unit() && bytes.is_empty() => continue,
            Seen::Plain(value) => value,
        };
        entries.push((call.texts.get(name), convert(call, &whole, depth + 1)?));
    }
    call.emitted_bytes += event.size();
    Ok(Value::Map(entries))
}

/// Formats a value for logs and messages. rhai formats the values inside lists and maps.
pub(super) fn display(value: &Dynamic) -> String {
    if let Some(fault) = value.read_lock::<Fault>() {
        return fault.message.clone();
    }
    if let Some(time) = value.read_lock::<TimeObject>() {
        return time.to_string();
    }
    let found = current(|call| {
        if let Some(document) = value.read_lock::<Document>() {
            return document.whole(call).ok().map(|whole| whole.to_string());
        }
        if let Some(stream) = value.read_lock::<StreamObject>() {
            return call.first_event(stream.0).ok().map(|event| event.stream().to_owned());
        }
        let event = value.read_lock::<EventObject>()?;
        call.event(event.0).ok().map(|event| format!("{event:?}"))
    });
    found.unwrap_or_else(|| value.to_string())
}

/// Names a type of the engine, as its errors write it.
pub(super) fn kind_of_type(name: &str) -> Cow<'_, str> {
    let known = match name {
        "()" => "an absent value",
        "event" => "an event",
        "events" => "a list of events",
        "stream" | "span" | "time" | "range" => return Cow::Owned(format!("a {name}")),
        name => plain_kind(name),
    };
    if known.is_empty() { Cow::Owned(format!("a value of type `{name}`")) } else { Cow::Borrowed(known) }
}

/// Names a type of the language; empty for others.
fn plain_kind(name: &str) -> &'static str {
    match name {
        "bool" => "a bool",
        "i64" => "an integer",
        "f64" => "a float",
        "char" => "a character",
        "string" => "a string",
        "array" => "an array",
        "map" => "a map",
        "blob" => "a blob",
        "Fn" => "a function",
        "timestamp" => "a timestamp",
        _ => "",
    }
}

/// Names the type of a value for messages.
pub(super) fn kind(value: &Dynamic) -> &'static str {
    match value.type_name() {
        "()" => "nothing",
        name if !plain_kind(name).is_empty() => plain_kind(name),
        name if name == std::any::type_name::<Document>() => "a map",
        name if name == std::any::type_name::<EventObject>() => "an event",
        name if name == std::any::type_name::<EventsObject>() => "a list of events",
        name if name == std::any::type_name::<TimeObject>() => "a time",
        _ => "a value of this type",
    }
}
