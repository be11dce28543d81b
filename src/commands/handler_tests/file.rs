//! The form of a test file.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::scalar::duration;
use crate::handler::HandlerErrorKind;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestFile {
    #[serde(default)]
    pub(super) test: Vec<TestSpec>,
}

/// One case. It holds the keys of its stream if it has a single one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestSpec {
    pub(super) name: String,
    #[serde(default)]
    pub(super) now: Option<Now>,
    #[serde(default)]
    pub(super) stream: Option<String>,
    #[serde(default)]
    first_index: Option<i64>,
    #[serde(default)]
    pub(super) events: Option<Vec<EventSpec>>,
    #[serde(default)]
    emits: Option<Vec<Value>>,
    #[serde(default)]
    emits_some: Option<Vec<Value>>,
    #[serde(default)]
    returns: Option<Returns>,
    #[serde(default)]
    fails: Option<Fails>,
    #[serde(default)]
    pub(super) streams: Option<Vec<StreamSpec>>,
}

impl TestSpec {
    /// Returns whether the case has keys of a single stream.
    pub(super) fn has_own_stream(&self) -> bool {
        self.stream.is_some()
            || self.first_index.is_some()
            || self.events.is_some()
            || self.emits.is_some()
            || self.emits_some.is_some()
            || self.returns.is_some()
            || self.fails.is_some()
    }

    /// Takes the keys of its single stream.
    pub(super) fn take_own_stream(&mut self) -> Option<StreamSpec> {
        Some(StreamSpec {
            stream: self.stream.take()?,
            first_index: self.first_index.take().unwrap_or_default(),
            events: self.events.take()?,
            emits: self.emits.take(),
            emits_some: self.emits_some.take(),
            returns: self.returns.take(),
            fails: self.fails.take(),
        })
    }
}

/// A stream of a case: the offered events, and the expected result.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamSpec {
    pub(super) stream: String,
    #[serde(default)]
    pub(super) first_index: i64,
    pub(super) events: Vec<EventSpec>,
    #[serde(default)]
    pub(super) emits: Option<Vec<Value>>,
    #[serde(default)]
    pub(super) emits_some: Option<Vec<Value>>,
    #[serde(default)]
    pub(super) returns: Option<Returns>,
    #[serde(default)]
    pub(super) fails: Option<Fails>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventSpec {
    #[serde(rename = "type")]
    pub(super) event_type: String,
    #[serde(default)]
    pub(super) index: Option<i64>,
    #[serde(default)]
    pub(super) data: Option<Value>,
    #[serde(default)]
    pub(super) raw: Option<String>,
    #[serde(default)]
    pub(super) meta: Option<Value>,
    #[serde(default)]
    pub(super) timestamp: Option<String>,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) correlation: Option<String>,
    #[serde(default)]
    pub(super) causation: Option<String>,
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

/// The expected failure. A key that is left out matches anything.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Fails {
    pub(super) class: Option<Class>,
    /// A part of the message.
    pub(super) why: Option<String>,
    /// The index of the event that the failure names.
    pub(super) index: Option<i64>,
}

/// The kinds of failures, as scripts name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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
