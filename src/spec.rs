//! Pipeline files: what they may say ([`PipelineSpec`]), how they are found and read, and what is wrong with them.
//!
//! One file is one pipeline, parsed from its own text alone: no inheritance, no defaults from elsewhere. What a type can
//! say about a value, it says while the file is read; what takes two values, or two files, is [`check`].

mod check;
mod definition;
mod load;
mod scripts;
mod schema;

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::config::document::closest;
use crate::config::filter;
use crate::config::scalar::{DurationText, SizeText, Text, duration, size};
use crate::runtime::retry;
use crate::script;

pub use crate::connector::{CheckpointSpec, SinkSpec, SourceSpec};
pub use check::{Outcome, check, define};
pub use definition::{Checked, Definition, Progress};
pub use load::{Loaded, NAMES, is_name, load, load_file, parse, scan};
pub use scripts::compile_script;

/// A pipeline, as its file describes it.
///
/// Two specs compare by their values, references resolved. A spec serialises to its display form: every default filled in,
/// references as the file writes them, secrets masked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = schema::pipeline)]
pub struct PipelineSpec {
    /// The consumer group: what progress is kept under. Another group starts at the beginning. Left out: the pipeline's
    /// name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Text>,
    /// The source part of the key that progress is kept under. Left out: the source's kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_id: Option<Text>,
    /// When the pipeline ends by itself.
    pub stop: Stop,
    /// Where events come from.
    pub source: SourceSpec,
    /// Where progress is kept. Left out: in the SQLite file `propulsiond.db` of the data directory.
    pub checkpoint: Checkpoint,
    /// Which streams and events are taken. Left out: all.
    pub filter: filter::Settings,
    /// What may be handled at the same time, and how far reading runs ahead of it.
    pub schedule: ScheduleSpec,
    /// What follows from a failure.
    pub errors: ErrorsSpec,
    /// What decides about the events. Left out: the events themselves go to the sink.
    pub handler: HandlerSpec,
    /// What is written to. Left out: nothing is written; the handler does it all.
    pub sink: SinkSpec,
}

impl PipelineSpec {
    /// Returns the script, relative to the pipeline's folder.
    pub fn script(&self) -> Option<&Text> {
        Some(&self.handler.rhai.as_ref()?.script)
    }

    /// Returns whether a stream with a missing index waits for it.
    pub fn waits_for_all(&self) -> bool {
        self.schedule.require_all && self.schedule.order == Order::Stream
    }
}

/// `[handler.…]`: what decides about events.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("oneOf" = [{ "required": ["rhai"] }]))]
pub struct HandlerSpec {
    /// A script in rhai.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rhai: Option<script::Settings>,
}

impl HandlerSpec {
    /// The keys of all kinds.
    pub const KINDS: &'static [&'static str] = &["rhai"];
}

/// When a pipeline ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Never: it follows what is added.
    #[default]
    Never,
    /// At the tail, as each tranche comes to it.
    Tail,
    /// After a time.
    After(#[serde(with = "duration")] Duration),
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopVisitor)
    }
}

struct StopVisitor;

impl<'de> Visitor<'de> for StopVisitor {
    type Value = Stop;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`\"never\"`, `\"tail\"` or a table as in `{ after = \"10m\" }`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Stop, E> {
        match text {
            "never" => Ok(Stop::Never),
            "tail" => Ok(Stop::Tail),
            text if duration::parse(text).is_ok() => {
                Err(E::custom(format_args!("expected `{{ after = \"{text}\" }}`: a time stands in a table")))
            }
            text => Err(other_word(text, &["never", "tail"], &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Stop, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct After {
            #[serde(with = "duration")]
            after: Duration,
        }
        After::deserialize(MapAccessDeserializer::new(map)).map(|stop| Stop::After(stop.after))
    }
}

/// Where progress is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Checkpoint {
    /// `checkpoint = "sink"`: in the sink's transactions.
    Sink,
    /// `[checkpoint.…]`; without one, SQLite in the data directory.
    Store(CheckpointSpec),
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self::Store(CheckpointSpec::default())
    }
}

impl Serialize for Checkpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Sink => serializer.serialize_str("sink"),
            Self::Store(store) => store.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Checkpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CheckpointVisitor)
    }
}

struct CheckpointVisitor;

impl<'de> Visitor<'de> for CheckpointVisitor {
    type Value = Checkpoint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`\"sink\"`, or a table such as `checkpoint.{}`", CheckpointSpec::KINDS[0])
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Checkpoint, E> {
        match text {
            "sink" => Ok(Checkpoint::Sink),
            text if CheckpointSpec::KINDS.contains(&text) => {
                Err(E::custom(format_args!("a store is a table with settings of its own: `checkpoint.{text}`")))
            }
            text => Err(other_word(text, &["sink"], &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Checkpoint, A::Error> {
        CheckpointSpec::deserialize(MapAccessDeserializer::new(map)).map(Checkpoint::Store)
    }
}

/// `[schedule]`: what may be handled at the same time, and how far reading runs ahead of it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSpec {
    /// What keeps its order.
    pub order: Order,
    /// How many streams one call of the handler gets. More than one: the script has `handle_batch`.
    pub streams_per_call: NonZeroUsize,
    /// How many calls may run at the same time.
    pub concurrency: NonZeroUsize,
    /// How many batches may be held unhandled, for each tranche.
    pub read_ahead: NonZeroUsize,
    /// How many bytes of events may be held unhandled, for each tranche.
    #[serde(with = "size")]
    #[schemars(with = "SizeText")]
    pub read_ahead_bytes: u64,
    /// How many events reading may be ahead of the position of its tranche: how far the others may go on while one stream
    /// is stuck.
    pub max_ahead_events: NonZeroUsize,
    /// How many events of one stream one call gets at most.
    pub max_events: NonZeroUsize,
    /// How many bytes of one stream's events one call gets at most; one event is always offered. Left out: no limit.
    #[serde(with = "optional_size", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SizeText")]
    pub max_bytes: Option<u64>,
    /// How often progress is stored. What was handled since is handled again after a crash, unless the sink holds the
    /// progress.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub commit_interval: Duration,
    /// Offers the events of a stream only where none is missing before them, from index 0 on. How far each stream is is
    /// kept beside the progress, which must be in SQLite or in the sink.
    pub require_all: bool,
    /// Keeps how far each stream is beside the progress, so that an event that the feed repeats has no effect again.
    /// Only where the sink holds the progress, and `order` is `"stream"`. Left out: there, if the feed may repeat events.
    /// `require_all` keeps it in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_positions: Option<bool>,
    /// How often streams without work are forgotten, to save memory; events that the feed repeats later are then handled
    /// again. Left out: never.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DurationText")]
    pub purge: Option<Duration>,
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        let number = |number| NonZeroUsize::new(number).expect("no default is zero");
        Self {
            order: Order::Stream,
            streams_per_call: NonZeroUsize::MIN,
            concurrency: number(16),
            read_ahead: number(10),
            read_ahead_bytes: 64 << 20,
            max_ahead_events: number(1_000_000),
            max_events: number(1_000),
            max_bytes: None,
            commit_interval: Duration::from_secs(5),
            require_all: false,
            write_positions: None,
            purge: None,
        }
    }
}

/// What keeps its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The events of a stream; streams are independent.
    Stream,
    /// All events of a tranche: one call at a time, in read order.
    Tranche,
    /// Nothing: every event is by itself.
    None,
}

/// `[errors]`: what follows from a failure.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorsSpec {
    /// How often a failing event is tried again, and after which delays.
    pub retry: RetrySpec,
    /// What becomes of an event that no retry helped.
    pub then: Then,
    /// How long a stream may be offered without progress before `then` applies.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub stuck_after: Duration,
}

impl Default for ErrorsSpec {
    fn default() -> Self {
        Self { retry: RetrySpec::default(), then: Then::Halt, stuck_after: Duration::from_secs(300) }
    }
}

/// `errors.retry`: how often, and after which delays.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySpec {
    /// The delay after the first failure; it doubles from then on. Each is shortened at random, by up to half.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub initial: Duration,
    /// The longest delay.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub max: Duration,
    /// How often an event may fail, the first time included, before `errors.then` acts; or `"unlimited"`.
    pub attempts: Attempts,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(30),
            attempts: Attempts::AtMost(NonZeroU32::new(10).expect("ten is not zero")),
        }
    }
}

impl RetrySpec {
    pub fn backoff(&self) -> retry::Backoff {
        retry::Backoff { initial: self.initial, max: self.max }
    }
}

/// How often an event may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    Unlimited,
    AtMost(NonZeroU32),
}

impl Serialize for Attempts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unlimited => serializer.serialize_str("unlimited"),
            Self::AtMost(number) => number.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Attempts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AttemptsVisitor)
    }
}

struct AttemptsVisitor;

impl Visitor<'_> for AttemptsVisitor {
    type Value = Attempts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 1 up, or \"unlimited\"")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Attempts, E> {
        u32::try_from(number)
            .ok()
            .and_then(NonZeroU32::new)
            .map(Attempts::AtMost)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Attempts, E> {
        i64::try_from(number)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            .and_then(|number| self.visit_i64(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Attempts, E> {
        match text {
            "unlimited" => Ok(Attempts::Unlimited),
            text => Err(other_word(text, &["unlimited"], &self)),
        }
    }
}

/// A word that is none of those that are known, where something else than a word may stand as well.
fn other_word<E: de::Error>(text: &str, words: &'static [&'static str], expected: &dyn de::Expected) -> E {
    match closest(text, words) {
        Some(_) => E::unknown_variant(text, words),
        None => E::invalid_type(de::Unexpected::Str(text), expected),
    }
}

/// What becomes of an event that no retry helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It and what follows in its stream is kept aside, and the rest goes on.
    Park,
    /// The pipeline stops until a person acts.
    Halt,
    /// It is passed over, counted and listed.
    Skip,
}

/// A duration that may be absent.
mod optional_duration {
    use super::{Deserialize, Deserializer, Duration, Serializer, duration};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Present(#[serde(with = "duration")] Duration);
        Option::<Present>::deserialize(deserializer).map(|value| value.map(|value| value.0))
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => duration::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }
}

/// A size that may be absent.
mod optional_size {
    use super::{Deserialize, Deserializer, Serializer, size};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        #[derive(Deserialize)]
        struct Present(#[serde(with = "size")] u64);
        Option::<Present>::deserialize(deserializer).map(|value| value.map(|value| value.0))
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => size::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
