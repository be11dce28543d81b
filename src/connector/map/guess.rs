//! A proposal of a mapping, from a few records.
//!
//! The proposal is a start and not an answer: it knows CloudEvents, change records of databases, and the usual names of
//! keys. Everything else becomes a constant, which the user replaces.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::Value;

use super::Settings;
use crate::config::scalar::Text;
use crate::formats::jsonlines::parts;
use crate::formats::map::is_time;
use crate::formats::records::{self, Format, RecordFormat};

/// The most records that are looked at.
const MAX_RECORDS: usize = 1_000;

/// Names of keys, in the order of preference.
const TYPES: [&str; 11] = [
    "type",
    "event_type",
    "eventType",
    "event",
    "event_name",
    "eventName",
    "action",
    "op",
    "kind",
    "level",
    "severity",
];
const TIMES: [&str; 14] = [
    "time",
    "timestamp",
    "@timestamp",
    "ts",
    "ts_ms",
    "occurred_at",
    "occurredAt",
    "created_at",
    "createdAt",
    "date",
    "datetime",
    "created",
    "updated_at",
    "updatedAt",
];
/// Endings of keys that hold a time, and words of keys whose time is not that of the event.
const TIME_ENDINGS: [&str; 10] =
    ["_at", "At", "_time", "Time", "_timestamp", "Timestamp", "_ts", "_date", "Date", "_on"];
const OTHER_TIMES: [&str; 6] = ["expir", "due", "valid", "birth", "until", "schedul"];
const IDS: [&str; 16] = [
    "event_id",
    "eventId",
    "message_id",
    "messageId",
    "delivery_id",
    "deliveryId",
    "request_id",
    "requestId",
    "record_id",
    "recordId",
    "uuid",
    "guid",
    "id",
    "_id",
    "Id",
    "ID",
];
/// Keys that name other records, and not the subject of this one.
const REFERENCES: [&str; 5] = ["correlation_id", "causation_id", "trace_id", "span_id", "parent_id"];
const STREAMS: [&str; 5] = ["stream", "stream_name", "streamName", "stream_id", "streamId"];
const SOURCES: [&str; 7] = ["service", "host", "hostname", "logger", "app", "source", "user"];
const ARRAYS: [&str; 9] = ["items", "records", "events", "results", "data", "value", "entries", "rows", "messages"];
/// Nested objects that say where a record comes from, and not what it is about.
const SURROUNDINGS: [&str; 7] = ["repository", "sender", "organization", "installation", "user", "actor", "source"];

/// Proposes a mapping for the records of a text. `name` is the name of its file without endings.
pub fn guess(text: &Bytes, name: &str) -> Settings {
    let (format, delimiter) = format(text);
    let mut settings = Settings { format, delimiter: delimiter.map(Text::literal), ..Settings::default() };
    let delimiter = settings.delimiter.as_ref().map_or(b',', |text| text.as_bytes()[0]);
    let read = RecordFormat { format, delimiter, columns: Vec::new() };
    let found = records::records(text, &read).into_iter().filter_map(|record| record.json.ok());
    let mut values: Vec<Value> =
        found.take(MAX_RECORDS).filter_map(|json| serde_json::from_slice(&json).ok()).collect();
    if let Some(each) = array_of(&values) {
        let items = values.iter_mut().filter_map(|value| value.pointer_mut(&each)).filter_map(Value::as_array_mut);
        values = items.flat_map(std::mem::take).take(MAX_RECORDS).collect();
        settings.each = Some(Text::literal(&each));
    }
    let sample = Sample(values);
    sample.cloud_event(&mut settings);
    sample.change(&mut settings);
    sample.usual(&mut settings, name);
    settings
}

/// Returns the form of a text, and the separator if it is CSV with another one than the comma.
fn format(text: &Bytes) -> (Format, Option<&'static str>) {
    let json = RecordFormat { format: Format::Json, delimiter: b',', columns: Vec::new() };
    let lines = records::records(text, &json);
    let is_json = |record: &records::Record| {
        record
            .json
            .as_ref()
            .is_ok_and(|json| parts::value(json).is_ok_and(|range| matches!(json[range.start], b'{' | b'[')))
    };
    match text.trim_ascii_start().first() {
        // The text may end within its last line.
        Some(b'{' | b'[') if lines.first().is_some_and(is_json) => return (Format::Json, None),
        Some(b'{' | b'[') if !lines.first().is_some_and(|line| line.raw.starts_with(b"[20")) => {
            return (Format::Document, None);
        }
        _ => {}
    }
    for (delimiter, written) in [(b',', None), (b';', Some(";")), (b'\t', Some("\t"))] {
        let csv = RecordFormat { format: Format::Csv, delimiter, columns: Vec::new() };
        let is_header = lines.first().is_some_and(|line| {
            let line = line.raw.trim_ascii();
            line.contains(&delimiter) && !line.contains(&b':') && !line.starts_with(b"#")
        });
        let rows = records::records(text, &csv);
        if is_header && rows.first().is_some_and(|row| row.json.is_ok()) {
            return (Format::Csv, written);
        }
    }
    (Format::Text, None)
}

/// Returns the pointer of the array whose items are the records, if there is one.
fn array_of(records: &[Value]) -> Option<String> {
    let is_list = |value: &Value| value.as_array().is_some_and(|items| items.first().is_some_and(Value::is_object));
    if !records.is_empty() && records.iter().all(Value::is_array) {
        return Some(String::new());
    }
    let name = ARRAYS.iter().find(|name| records.iter().all(|record| record.get(**name).is_some_and(is_list)))?;
    (!records.is_empty()).then(|| format!("/{name}"))
}

/// The records of a sample.
struct Sample(Vec<Value>);

impl Sample {
    fn values<'a>(&'a self, pointer: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter_map(move |record| record.pointer(pointer)).filter(|value| !is_absent(value))
    }

    /// Returns whether most records have a value that suits.
    fn most(&self, pointer: &str, suits: impl Fn(&Value) -> bool) -> bool {
        let count = self.values(pointer).filter(|value| suits(value)).count();
        count > 0 && count * 2 > self.0.len()
    }

    fn all(&self, pointer: &str) -> bool {
        self.values(pointer).count() == self.0.len()
    }

    /// Returns the pointer of the first of some keys that most records have with a suitable value.
    fn first(&self, prefix: &str, names: &[&str], suits: impl Fn(&Value) -> bool) -> Option<String> {
        names.iter().map(|name| format!("{prefix}/{name}")).find(|pointer| self.most(pointer, &suits))
    }

    /// Fills in the attributes of CloudEvents.
    fn cloud_event(&self, settings: &mut Settings) {
        if !self.most("/specversion", Value::is_string) {
            return;
        }
        let stream = if self.values("/subject").next().is_some() { "{/subject|/source}" } else { "{/source}" };
        settings.stream = Text::literal(&format!("subject-{stream}"));
        settings.event_type = Text::literal("/type");
        settings.id = Some(Text::literal("/id"));
        settings.time = self.all("/time").then(|| Text::literal("/time"));
        settings.data = self.all("/data").then(|| Text::literal("/data"));
    }

    /// Fills in the envelope of a changed row: before, after, op, source.
    fn change(&self, settings: &mut Settings) {
        let is_change = |prefix: &&str| {
            self.most(&format!("{prefix}/op"), Value::is_string)
                && ["before", "after"].iter().any(|side| self.values(&format!("{prefix}/{side}")).any(Value::is_object))
        };
        let Some(prefix) = ["", "/payload"].into_iter().find(is_change) else { return };
        let rows = ["after", "before"].map(|side| format!("{prefix}/{side}"));
        let row = rows.iter().flat_map(|pointer| self.values(pointer)).find_map(Value::as_object);
        let keys: Vec<_> = row.into_iter().flat_map(|row| row.keys().map(String::as_str)).collect();
        let key = ["id"].into_iter().chain(keys.iter().copied().filter(|key| key.ends_with("id")));
        let key = key.chain(keys.iter().copied()).find(|key| keys.contains(key)).unwrap_or("id");
        let table = match self.most(&format!("{prefix}/source/table"), Value::is_string) {
            true => format!("{{{prefix}/source/table}}"),
            false => "row".to_owned(),
        };
        let [after, before] = &rows;
        settings.stream = Text::literal(&format!("{table}-{{{after}/{key}|{before}/{key}}}"));
        settings.event_type = Text::literal(&format!("{prefix}/op"));
        settings.time = self.first(prefix, &["ts_ms"], is_time_value).map(|pointer| Text::literal(&pointer));
        settings.data = Some(Text::literal(&format!("{after}|{before}")));
    }

    /// Fills in everything that is still open, by the usual names of keys.
    fn usual(&self, settings: &mut Settings, name: &str) {
        if settings.stream.is_empty() {
            settings.stream = Text::literal(&self.stream(settings.format, name));
        }
        if settings.event_type.is_empty() {
            let event_type = match self.first("", &TYPES, Value::is_string) {
                Some(pointer) if self.all(&pointer) => pointer,
                Some(pointer) => format!("{{{pointer}|unknown}}"),
                None => match settings.format {
                    Format::Csv => "RowRead".to_owned(),
                    Format::Text => "LineRead".to_owned(),
                    Format::Json | Format::Document => "RecordRead".to_owned(),
                },
            };
            settings.event_type = Text::literal(&event_type);
        }
        let optional = |pointer: String| match self.all(&pointer) {
            true => Text::literal(&pointer),
            false => Text::literal(&format!("{{{pointer}|}}")),
        };
        if settings.time.is_none() {
            settings.time = self.time().map(optional);
        }
        if settings.id.is_none() {
            settings.id = self.id(&settings.stream).map(optional);
        }
    }

    /// Returns the pointer of the time: of a usual key, or else of one that ends like a time, those of all records first.
    fn time(&self) -> Option<String> {
        let ending = || {
            let ends = |key: &&String| {
                let lower = key.to_ascii_lowercase();
                TIME_ENDINGS.iter().any(|ending| key.ends_with(ending))
                    && !OTHER_TIMES.iter().any(|word| lower.contains(word))
            };
            let pointers = self.keys().into_iter().filter(ends).map(|key| format!("/{}", escaped(key)));
            let times: Vec<_> = pointers.filter(|pointer| self.most(pointer, is_time_value)).collect();
            times.iter().find(|pointer| self.all(pointer)).or(times.first()).cloned()
        };
        self.first("", &TIMES, is_time_value).or_else(ending)
    }

    /// Returns the pointer of the first usual key whose values are distinct. The key of the stream names the stream, and not the
    /// event.
    fn id(&self, stream: &str) -> Option<String> {
        let pointers = IDS.iter().map(|name| format!("/{name}"));
        let is_id = |pointer: &String| {
            !stream.contains(&format!("{{{pointer}}}")) && self.most(pointer, is_scalar) && self.is_distinct(pointer)
        };
        pointers.into_iter().find(is_id)
    }

    fn keys(&self) -> BTreeSet<&String> {
        self.0.iter().filter_map(Value::as_object).flat_map(|record| record.keys()).collect()
    }

    /// Returns the template of the stream's name.
    fn stream(&self, format: Format, name: &str) -> String {
        if let Some(pointer) = self.first("", &STREAMS, Value::is_string) {
            return pointer;
        }
        let keys = self.keys();
        let nested = keys.iter().filter(|key| !SURROUNDINGS.contains(&key.as_str()));
        for key in nested {
            let Some(pointer) = self.first(&format!("/{}", escaped(key)), &["number", "id"], is_scalar) else {
                continue;
            };
            let repository = "/repository/full_name";
            return match self.most(repository, Value::is_string) {
                true => format!("{key}-{{{repository}}}-{{{pointer}}}"),
                false => format!("{key}-{{{pointer}}}"),
            };
        }
        let subject = |key: &str| {
            let subject = ["_id", "Id", "_ID", "_no", "_number"].iter().find_map(|ending| key.strip_suffix(ending))?;
            (!subject.is_empty() && !IDS.contains(&key) && !REFERENCES.contains(&key)).then(|| subject.to_owned())
        };
        for key in &keys {
            let pointer = format!("/{}", escaped(key));
            if let Some(subject) = subject(key)
                && self.most(&pointer, is_scalar)
            {
                return format!("{subject}-{{{pointer}}}");
            }
        }
        if self.most("/id", is_scalar) {
            return format!("{name}-{{/id}}");
        }
        if let Some(pointer) = self.first("", &SOURCES, is_scalar) {
            return format!("{}-{{{pointer}}}", &pointer[1..]);
        }
        match format {
            Format::Text => format!("lines-{name}"),
            _ => format!("records-{name}"),
        }
    }

    fn is_distinct(&self, pointer: &str) -> bool {
        let values: BTreeSet<String> = self.values(pointer).map(Value::to_string).collect();
        values.len() == self.values(pointer).count()
    }
}

/// Returns a key as a part of a pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn is_absent(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

fn is_time_value(value: &Value) -> bool {
    match value {
        Value::String(text) => is_time(text),
        // A small number is rather a counter.
        Value::Number(number) => number.as_f64().is_some_and(|number| number > 1e8) && is_time(&number.to_string()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let settings = guess(&Bytes::copy_from_slice(text.as_bytes()), "orders");
        assert_eq!(settings.check(), [], "a proposal is valid");
        let shown = toml::to_string(&settings).unwrap();
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_webhook_is_about_its_nested_object() {
        let text = r#"{"action":"opened","issue":{"number":7,"id":1},"repository":{"full_name":"a/b","id":2},"sender":{"id":1}}"#;
        check(
            text,
            &[
                r#"format = "json""#,
                r#"stream = "issue-{/repository/full_name}-{/issue/number}""#,
                r#"type = "/action""#,
            ],
        );
    }

    #[test]
    fn known_envelopes_are_recognised() {
        check(
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-31T12:00:00Z","data":{}}"#,
            &[
                r#"format = "json""#,
                r#"stream = "subject-{/source}""#,
                r#"type = "/type""#,
                r#"time = "/time""#,
                r#"id = "/id""#,
                r#"data = "/data""#,
            ],
        );
        let text = r#"{"payload":{"op":"c","before":null,"after":{"customer_id":1},"source":{"table":"t"},"ts_ms":1769860800250}}"#;
        check(
            text,
            &[
                r#"format = "json""#,
                r#"stream = "{/payload/source/table}-{/payload/after/customer_id|/payload/before/customer_id}""#,
                r#"type = "/payload/op""#,
                r#"time = "/payload/ts_ms""#,
                r#"data = "/payload/after|/payload/before""#,
            ],
        );
    }

    #[test]
    fn a_time_is_recognised_by_the_ending_of_its_key() {
        for (key, time) in [
            ("sent_at", "\"2026-01-31T12:00:00Z\""),
            ("sentAt", "\"2026-01-31T12:00:00Z\""),
            ("eventTime", "1769860800250"),
            ("logged_time", "1769860800"),
            ("order_date", "\"2026-01-31\""),
        ] {
            let text =
                format!("{{\"kind\":\"x\",\"{key}\":{time},\"expires_at\":\"2027-01-31T12:00:00Z\",\"format\":1}}");
            let time = format!("time = \"/{key}\"");
            check(&text, &[r#"format = "json""#, r#"stream = "records-orders""#, r#"type = "/kind""#, &time]);
        }
        // A key that every record has comes before one that most have.
        let text = "{\"a_at\":\"2026-01-31T12:00:00Z\",\"b_at\":\"2026-01-31T12:00:00Z\"}\n{\"b_at\":\"2026-01-31T12:00:00Z\"}\n\
                    {\"a_at\":\"2026-01-31T12:00:00Z\",\"b_at\":\"2026-01-31T12:00:00Z\"}\n";
        check(
            text,
            &[r#"format = "json""#, r#"stream = "records-orders""#, r#"type = "RecordRead""#, r#"time = "/b_at""#],
        );
    }

    #[test]
    fn an_id_is_unique_and_does_not_name_the_stream() {
        let expected = |id: &str| {
            let mut lines = vec![r#"format = "json""#.to_owned(), r#"stream = "order-{/order_id}""#.to_owned()];
            lines.push(r#"type = "RecordRead""#.to_owned());
            lines.extend((!id.is_empty()).then(|| format!("id = \"/{id}\"")));
            lines
        };
        let cases = [
            // The first usual key repeats, another one does not.
            ("request_id\":\"r\",\"uuid\":\"u1", "request_id\":\"r\",\"uuid\":\"u2", "uuid"),
            ("id\":\"e1", "id\":\"e2", "id"),
            ("id\":\"e1", "id\":\"e1", ""),
            ("trace_id\":\"e1", "trace_id\":\"e2", ""),
        ];
        for (first, second, id) in cases {
            let text = format!("{{\"order_id\":1,\"{first}\"}}\n{{\"order_id\":1,\"{second}\"}}\n");
            let expected = expected(id);
            check(&text, &expected.iter().map(String::as_str).collect::<Vec<_>>());
        }
        // Without another subject, the id names the stream.
        check(
            "{\"id\":1}\n{\"id\":2}\n",
            &[r#"format = "json""#, r#"stream = "orders-{/id}""#, r#"type = "RecordRead""#],
        );
    }

    #[test]
    fn the_form_of_a_text_is_recognised() {
        check(
            "{\n \"items\": [{\"id\": 1, \"kind\": \"x\"}, {\"id\": 2}, {\"id\": 3, \"kind\": \"y\"}]\n}",
            &[
                r#"format = "document""#,
                r#"each = "/items""#,
                r#"stream = "orders-{/id}""#,
                r#"type = "{/kind|unknown}""#,
            ],
        );
        check(
            "[{\"order_id\": 1}]",
            &[r#"format = "json""#, r#"each = """#, r#"stream = "order-{/order_id}""#, r#"type = "RecordRead""#],
        );
        check(
            "id;created_at\n1;2026-01-31 12:00:00\n",
            &[
                r#"format = "csv""#,
                r#"delimiter = ";""#,
                r#"stream = "orders-{/id}""#,
                r#"type = "RowRead""#,
                r#"time = "/created_at""#,
            ],
        );
        check(
            "2026-01-31 12:00:00, up\n[2026] {",
            &[r#"format = "text""#, r#"stream = "lines-orders""#, r#"type = "LineRead""#],
        );
    }
}
