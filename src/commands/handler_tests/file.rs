//! The form of a test file.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::scalar::duration;
use crate::handler::HandlerErrorKind;

/// The tests of the pipeline `NAME`, in `NAME.test.toml` or `NAME.test.yaml` beside its file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "propulsiond handler tests")]
pub(crate) struct TestFile {
    /// The tests, each a call of the script with its expected result.
    #[serde(default)]
    pub(super) test: Vec<TestSpec>,
}

/// A test: the events of a call, and the expected result. It holds the keys of its stream if it has a single one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Test")]
pub(super) struct TestSpec {
    /// The expectation in words, unique in its file.
    pub(super) name: String,
    /// The result of `time.now()`, as in RFC 3339. Default: `2026-01-01T00:00:00Z`. Time stands still.
    #[serde(default)]
    pub(super) now: Option<Now>,
    /// The stream's name, such as `order-1001`.
    #[serde(default)]
    pub(super) stream: Option<String>,
    /// The index of the first event. Default: 0.
    #[serde(default)]
    first_index: Option<i64>,
    /// The events of the call, in order.
    #[serde(default)]
    pub(super) events: Option<Vec<EventSpec>>,
    /// Raw text in place of `events`, which the source's `map` reads as it reads a file.
    #[serde(default)]
    record: Option<String>,
    /// Raw texts in place of `events`, one after the other.
    #[serde(default)]
    records: Option<Vec<String>>,
    /// Exactly the emitted effects, in this order. Default: none.
    #[serde(default)]
    emits: Option<Vec<Value>>,
    /// In place of `emits`: some of the emitted effects, in this order. A table gives some of its keys.
    #[serde(default)]
    emits_some: Option<Vec<Value>>,
    /// The result of the call. Default: `"all"`.
    #[serde(default)]
    returns: Option<Returns>,
    /// In place of `returns`: the failure of the call.
    #[serde(default)]
    fails: Option<Fails>,
    /// The streams of the call, in a pipeline with `streams_per_call` over 1. Each has keys of its own.
    #[serde(default)]
    pub(super) streams: Option<Vec<StreamSpec>>,
}

impl TestSpec {
    /// Returns whether the case has keys of a single stream.
    pub(super) fn has_own_stream(&self) -> bool {
        self.stream.is_some()
            || self.first_index.is_some()
            || self.events.is_some()
            || self.has_records()
            || self.emits.is_some()
            || self.emits_some.is_some()
            || self.returns.is_some()
            || self.fails.is_some()
    }

    /// Returns whether raw records take the place of events.
    pub(super) fn has_records(&self) -> bool {
        self.record.is_some() || self.records.is_some()
    }

    /// Takes the keys of its single stream.
    pub(super) fn take_own_stream(&mut self) -> StreamSpec {
        StreamSpec {
            stream: self.stream.take(),
            first_index: self.first_index.take().unwrap_or_default(),
            events: self.events.take(),
            record: self.record.take(),
            records: self.records.take(),
            emits: self.emits.take(),
            emits_some: self.emits_some.take(),
            returns: self.returns.take(),
            fails: self.fails.take(),
        }
    }
}

/// A stream of a call: the offered events, and the expected result.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TestStream")]
pub(super) struct StreamSpec {
    /// The stream's name, such as `order-1001`. Chooses the events of `record` or `records`; needed with `events`.
    #[serde(default)]
    pub(super) stream: Option<String>,
    /// The index of the first event. Default: 0.
    #[serde(default)]
    pub(super) first_index: i64,
    /// The events of the stream, in order.
    #[serde(default)]
    pub(super) events: Option<Vec<EventSpec>>,
    /// Raw text in place of `events`, which the source's `map` reads as it reads a file.
    #[serde(default)]
    pub(super) record: Option<String>,
    /// Raw texts in place of `events`, one after the other.
    #[serde(default)]
    pub(super) records: Option<Vec<String>>,
    /// Exactly the emitted effects, in this order. Default: none.
    #[serde(default)]
    pub(super) emits: Option<Vec<Value>>,
    /// In place of `emits`: some of the emitted effects, in this order. A table gives some of its keys.
    #[serde(default)]
    pub(super) emits_some: Option<Vec<Value>>,
    /// The result for the stream. Default: `"all"`.
    #[serde(default)]
    pub(super) returns: Option<Returns>,
    /// In place of `returns`: the failure of the stream.
    #[serde(default)]
    pub(super) fails: Option<Fails>,
}

/// An event of a test.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TestEvent")]
pub(super) struct EventSpec {
    /// The event's type.
    #[serde(rename = "type")]
    pub(super) event_type: String,
    /// The event's index. Default: one more than that of the event before.
    #[serde(default)]
    pub(super) index: Option<i64>,
    /// The event's data, any value. `{ "$json" = "null" }` stands for the value of its text. Default: nothing.
    #[serde(default)]
    pub(super) data: Option<Value>,
    /// In place of `data`: the body as it is, also one that is not JSON.
    #[serde(default)]
    pub(super) raw: Option<String>,
    /// The event's metadata, any value. Default: nothing.
    #[serde(default)]
    pub(super) meta: Option<Value>,
    /// The event's time, as in RFC 3339.
    #[serde(default)]
    pub(super) timestamp: Option<String>,
    /// The event's identifier.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// The correlation identifier of the event.
    #[serde(default)]
    pub(super) correlation: Option<String>,
    /// The identifier of the event that caused this one.
    #[serde(default)]
    pub(super) causation: Option<String>,
    /// The event is a snapshot. It comes after the events and takes no index.
    #[serde(default)]
    pub(super) unfold: bool,
}

/// The result of `time.now()`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now(pub(super) OffsetDateTime);

impl<'de> Deserialize<'de> for Now {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = OffsetDateTime::parse(&text, &Rfc3339);
        parsed.map(Self).map_err(|_| de::Error::custom("expected a time such as \"2026-01-31T12:00:00Z\""))
    }
}

/// The expected end of the call.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Returns {
    /// Everything is handled, under any tag.
    #[default]
    All,
    Done(String),
    Upto {
        next: i64,
        tag: Option<String>,
    },
    Defer(Duration),
    Malformed(String),
}

impl<'de> Deserialize<'de> for Returns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReturnsVisitor)
    }
}

struct ReturnsVisitor;

impl<'de> Visitor<'de> for ReturnsVisitor {
    type Value = Returns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`\"all\"` or a table as in `{ upto = 3 }`, `{ defer = \"5s\" }`, `{ done = \"tag\" }` or `{ malformed = \"why\" }`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Returns, E> {
        match text {
            "all" => Ok(Returns::All),
            _ => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Returns, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(default)]
            upto: Option<i64>,
            #[serde(default)]
            tag: Option<String>,
            #[serde(default)]
            defer: Option<Delay>,
            #[serde(default)]
            done: Option<String>,
            #[serde(default)]
            malformed: Option<String>,
        }
        #[derive(Deserialize)]
        struct Delay(#[serde(with = "duration")] Duration);
        match Table::deserialize(MapAccessDeserializer::new(map))? {
            Table { upto: Some(next), tag, defer: None, done: None, malformed: None } => {
                Ok(Returns::Upto { next, tag })
            }
            Table { upto: None, tag: None, defer: Some(delay), done: None, malformed: None } => {
                Ok(Returns::Defer(delay.0))
            }
            Table { upto: None, tag: None, defer: None, done: Some(tag), malformed: None } => Ok(Returns::Done(tag)),
            Table { upto: None, tag: None, defer: None, done: None, malformed: Some(why) } => {
                Ok(Returns::Malformed(why))
            }
            _ => Err(de::Error::custom(
                "expected one of `upto`, `defer`, `done` and `malformed` (`tag` goes with `upto`)",
            )),
        }
    }
}

impl JsonSchema for Now {
    fn schema_name() -> Cow<'static, str> {
        "Now".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "time", "description": "A time as in RFC 3339.", "type": "string" })
    }
}

impl JsonSchema for Returns {
    fn schema_name() -> Cow<'static, str> {
        "Returns".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let table = |key: &str, description: &str, value: Value| {
            json!({
                "type": "object",
                "description": description,
                "properties": { key: value },
                "required": [key],
                "additionalProperties": false,
            })
        };
        let text = |description: &str| json!({ "type": "string", "description": description });
        let next = json!({ "type": "integer", "description": "The next index of interest." });
        let mut upto = table("upto", "The events below an index are handled.", next);
        upto["properties"]["tag"] = text("The tag of the result, which metrics count.");
        json_schema!({
            "title": "result",
            "description": "The result of a call, or of one stream of it.",
            "oneOf": [
                { "const": "all", "description": "All events are handled." },
                upto,
                table("defer", "The events are offered again later.", text("The delay, such as `\"5s\"`.")),
                table("done", "All events are handled, and the result has a tag.", text("The tag.")),
                table("malformed", "The events cannot be handled.", text("The reason.")),
            ],
        })
    }
}

/// The expected failure. A key that is left out matches anything.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Fails {
    /// The class of the failure.
    pub(super) class: Option<Class>,
    /// A part of the message.
    pub(super) why: Option<String>,
    /// The index of the event that the failure names.
    pub(super) index: Option<i64>,
}

/// The class of a failure, as scripts name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Class {
    Transient,
    Permanent,
    Malformed,
    Throttled,
    Unavailable,
    TimedOut,
}

impl Class {
    pub(super) fn of(kind: HandlerErrorKind) -> Self {
        match kind {
            HandlerErrorKind::Transient => Self::Transient,
            HandlerErrorKind::Permanent => Self::Permanent,
            HandlerErrorKind::Malformed => Self::Malformed,
            HandlerErrorKind::Throttled => Self::Throttled,
            // A script cannot throw `Unusable`, which is a sink's.
            HandlerErrorKind::Unavailable | HandlerErrorKind::Unusable => Self::Unavailable,
            HandlerErrorKind::TimedOut => Self::TimedOut,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Malformed => "malformed",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
        }
    }
}
