//! Encodes events and values as JSON text for sinks.
//!
//! A JSON body is embedded unchanged, without parsing it into a tree. Another text becomes a JSON string, and binary
//! data a `data:;base64,…` string, so that nothing is lost.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::effect::Value;
use crate::event::{Event, Kind, Text};

/// The form of emitted values in lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Every value as JSON, strings in quotes.
    Json,
    /// Strings unquoted, everything else as JSON.
    Text,
}

/// Appends the event as one line for a JSON-lines source, without the newline. The keys are `stream`, `index`, `type`,
/// and those of `data`, `meta`, `id`, `correlation`, `causation`, `timestamp` that the event has.
pub fn event_line(event: &Event, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b"{\"stream\":");
    json(event.stream(), out);
    out.extend_from_slice(b",\"index\":");
    json(&event.index(), out);
    out.extend_from_slice(b",\"type\":");
    json(event.event_type(), out);
    for (key, bytes) in [("data", event.data()), ("meta", event.meta())] {
        if !bytes.is_empty() {
            name(key, out);
            body(bytes, out);
        }
    }
    let texts = [
        ("id", event.text(Text::Id)),
        ("correlation", event.text(Text::Correlation)),
        ("causation", event.text(Text::Causation)),
        ("timestamp", &*event.time_text()),
    ];
    for (key, text) in texts {
        if !text.is_empty() {
            name(key, out);
            json(text, out);
        }
    }
    out.push(b'}');
    join_lines(&mut out[start..]);
}

/// Appends a line for each event. Unfolds, placeholders and malformed records have none.
pub fn event_lines(events: &[Event], out: &mut Vec<u8>) {
    for event in events.iter().filter(|event| event.kind() == Kind::Event) {
        event_line(event, out);
        out.push(b'\n');
    }
}

/// Appends a line for each value.
///
/// # Errors
/// A value contains a number that JSON cannot express. Nothing is appended.
pub fn value_lines(values: &[Value], format: Format, out: &mut Vec<u8>) -> Result<(), String> {
    values.iter().try_for_each(Value::check_numbers)?;
    for value in values {
        match (value, format) {
            (Value::Text(text), Format::Text) => out.extend_from_slice(text.as_bytes()),
            _ => json(value, out),
        }
        out.push(b'\n');
    }
    Ok(())
}

/// Appends a value as JSON.
pub fn value(value: &Value, out: &mut Vec<u8>) {
    json(value, out);
}

/// Splits events into runs of consecutive indexes, each of which can be one span. Omits other records.
pub fn runs(events: &[Event]) -> impl Iterator<Item = &[Event]> {
    events
        .chunk_by(|a, b| a.kind() == Kind::Event && b.kind() == Kind::Event && b.index() == a.next_index())
        .filter(|run| run[0].kind() == Kind::Event)
}

/// Appends a run (see [`runs`]) as a RenderedSpan (spec/kafka.md §1), in the form that the .NET codec writes. `m` is
/// absent without metadata, and `t` is absent without a readable timestamp.
///
/// # Panics
/// The run is empty.
/// If the run is empty.
pub fn span(run: &[Event], out: &mut Vec<u8>) {
    let first = &run[0];
    out.extend_from_slice(b"{\"s\":");
    dotnet_string(first.stream(), out);
    out.extend_from_slice(b",\"i\":");
    json(&first.index(), out);
    out.extend_from_slice(b",\"e\":[");
    for (place, event) in run.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        span_event(event, out);
    }
    out.extend_from_slice(b"]}");
}

fn span_event(event: &Event, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"c\":");
    dotnet_string(event.event_type(), out);
    if let Some(timestamp) = event.timestamp() {
        name("t", out);
        out.push(b'"');
        dotnet_timestamp(timestamp, out);
        out.push(b'"');
    }
    name("d", out);
    body(event.data(), out);
    if !event.meta().is_empty() {
        name("m", out);
        body(event.meta(), out);
    }
    out.push(b'}');
}

fn name(key: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

fn json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("memory can be written to, and our values have text for keys");
}

fn body(bytes: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(bytes) {
        Ok("") => out.extend_from_slice(b"null"),
        Ok(text) if is_json(text) => out.extend_from_slice(bytes),
        Ok(text) => json(text, out),
        Err(_) => {
            out.extend_from_slice(b"\"data:;base64,");
            base64(bytes, out);
            out.push(b'"');
        }
    }
}

/// Returns whether the text is one whole JSON document, without building a tree and without recursion.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Joins encoded JSON into one line. JSON strings have no raw line ends, so each line end is white space between
/// tokens.
fn join_lines(json: &mut [u8]) {
    let mut from = 0;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', &json[from..]) {
        json[from + at] = b' ';
        from += at + 1;
    }
}

/// Encodes a string as Newtonsoft does, which also escapes line separators that JSON allows.
fn dotnet_string(text: &str, out: &mut Vec<u8>) {
    const SEPARATORS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];
    if text.is_ascii() || !text.contains(SEPARATORS) {
        return json(text, out);
    }
    out.push(b'"');
    for piece in text.split_inclusive(SEPARATORS) {
        let plain = piece.trim_end_matches(SEPARATORS);
        let start = out.len();
        json(plain, out);
        out.pop();
        out.remove(start);
        for separator in piece[plain.len()..].chars() {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(separator)).as_bytes());
        }
    }
    out.push(b'"');
}

/// Writes local time and offset: up to seven digits of a second without trailing zeros, `+00:00` for UTC.
fn dotnet_timestamp(at: OffsetDateTime, out: &mut Vec<u8>) {
    let (hours, minutes, _) = at.offset().as_hms();
    let sign = if at.offset().is_negative() { '-' } else { '+' };
    let fraction = match at.nanosecond() / 100 {
        0 => String::new(),
        ticks => format!(".{ticks:07}").trim_end_matches('0').to_owned(),
    };
    write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{fraction}{sign}{:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        hours.unsigned_abs(),
        minutes.unsigned_abs()
    )
    .expect("memory can be written to");
}

/// Appends bytes as base64.
pub fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let length = base64::encoded_len(bytes.len(), true).expect("memory holds the bytes and a third more");
    out.resize(start + length, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("there is room for the encoded bytes");
}

#[cfg(test)]
mod tests;
