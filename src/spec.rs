//! Pipeline files: their form ([`PipelineSpec`]), their search, and their checks.
//!
//! One file is one pipeline, parsed from its own text alone: no inheritance, no defaults from elsewhere. A type judges its
//! values while the file is read. [`check`] judges rules of two values or two files, and returns [`Checked`] pipelines.

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
pub(crate) use check::bad_setting;
pub use check::{Outcome, check, define};
pub use definition::{Checked, Definition, Progress};
pub use load::{Loaded, NAMES, find, is_name, load, load_file, parse, scan, subdirectories};
pub use scripts::compile_script;

/// A pipeline, as its file describes it.
///
/// Two specs compare by their values, references resolved. A spec serialises to its display form: every default filled in,
/// references as the file writes them, secrets masked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = schema::pipeline)]
pub struct PipelineSpec {
    /// The consumer group, part of the key of the progress. Another group starts at the origin. Left out: the pipeline's
    /// name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Text>,
    /// The source part of the key of the progress. Left out: the source's kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_id: Option<Text>,
    /// The pipeline of the same daemon and the same source that goes first: an event is handled once that pipeline has handled
    /// it and all earlier ones of its tranche.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Text>,
    /// The time at which the pipeline ends by itself.
    pub stop: Stop,
    /// The source of the events.
    pub source: SourceSpec,
    /// The store of the progress. Left out: the SQLite file `propulsiond.db` of the data directory.
    pub checkpoint: Checkpoint,
    /// The streams and events that pass. Left out: all.
    pub filter: filter::Settings,
    /// The limits of simultaneous work and of reading ahead.
    pub schedule: ScheduleSpec,
    /// The reaction to failures.
    pub errors: ErrorsSpec,
    /// The handler that decides about events. Left out: the events themselves go to the sink.
    pub handler: HandlerSpec,
    /// The sink of the effects. Left out: effects are discarded.
    pub sink: SinkSpec,
}

impl PipelineSpec {
    /// Returns the script, relative to the pipeline's directory.
    pub fn script(&self) -> Option<&Text> {
        Some(&self.handler.rhai.as_ref()?.script)
    }

    /// Returns whether a stream with a missing index waits for it.
    pub fn waits_for_all(&self) -> bool {
        self.schedule.require_all && self.schedule.order == Order::Stream
    }
}

/// `[handler.…]`: the handler that decides about events.
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

/// The time at which a pipeline ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Never: it follows new events.
    #[default]
    Never,
    /// At the tail of each tranche.
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
                Err(E::custom(format_args!("expected a table for a time, such as `{{ after = \"{text}\" }}`")))
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

/// The place of the progress.
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
                Err(E::custom(format_args!("expected a table for a store, such as `checkpoint.{text}`")))
            }
            text => Err(other_word(text, &["sink"], &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Checkpoint, A::Error> {
        CheckpointSpec::deserialize(MapAccessDeserializer::new(map)).map(Checkpoint::Store)
    }
}

/// `[schedule]`: the limits of simultaneous work and of reading ahead.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSpec {
    /// The order that the pipeline keeps.
    pub order: Order,
    /// The streams of one handler call. With more than one, the script has `handle_batch`.
    pub streams_per_call: NonZeroUsize,
    /// The most simultaneous calls.
    pub concurrency: NonZeroUsize,
    /// The most batches with unhandled events, for each tranche.
    pub read_ahead: NonZeroUsize,
    /// The most bytes of unhandled events, for each tranche.
    #[serde(with = "size")]
    #[schemars(with = "SizeText")]
    pub read_ahead_bytes: u64,
    /// The most events between a tranche's position and its newest read event. While one stream is stuck, the others go on
    /// this far.
    pub max_ahead_events: NonZeroUsize,
    /// The most events of one stream in a call.
    pub max_events: NonZeroUsize,
    /// The most bytes of one stream's events in a call; one event is always offered. Left out: no limit.
    #[serde(with = "optional_size", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SizeText")]
    pub max_bytes: Option<u64>,
    /// The interval of commits. A crash repeats the events that were handled since the last commit, unless the sink holds
    /// the progress.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub commit_interval: Duration,
    /// Offers an event only after all earlier ones of its stream, from index 0 on. The position of each stream is kept
    /// beside the progress, which must be in SQLite or in the sink.
    pub require_all: bool,
    /// Keeps the position of each stream beside the progress, so that a duplicate in the feed has no second effect. Only if
    /// the sink holds the progress and `order` is `"stream"`. Left out: true there if the feed may repeat events.
    /// `require_all` keeps positions in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_positions: Option<bool>,
    /// The interval at which idle streams are forgotten, to save memory. Later duplicates of their events are handled again.
    /// Left out: never.
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

/// The order that a pipeline keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The events of a stream; streams are independent.
    Stream,
    /// All events of a tranche: one call at a time, in read order.
    Tranche,
    /// No order: every event is handled by itself.
    None,
}

/// `[errors]`: the reaction to failures.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorsSpec {
    /// The number and the delays of retries.
    pub retry: RetrySpec,
    /// The action for an event whose retries are spent. Left out, it is `park` if the checkpoint store keeps parked events
    /// durably and the source numbers its events for good, else `halt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<Then>,
    /// The longest time for which a stream may be offered without progress. After it, `then` applies.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub stuck_after: Duration,
    /// The failures in a row that count as an outage: its calls wait, and spend no attempt.
    pub outage: OutageSpec,
    /// The most parked events of the pipeline. A full store halts the pipeline.
    pub max_parked_events: NonZeroUsize,
    /// The most bytes of parked events of the pipeline.
    #[serde(with = "size")]
    #[schemars(with = "SizeText")]
    pub max_parked_bytes: u64,
}

impl Default for ErrorsSpec {
    fn default() -> Self {
        Self {
            retry: RetrySpec::default(),
            then: None,
            stuck_after: Duration::from_secs(300),
            outage: OutageSpec::default(),
            max_parked_events: NonZeroUsize::new(1_000_000).expect("no default is zero"),
            max_parked_bytes: 1 << 30,
        }
    }
}

/// `errors.outage`: the failures in a row, without a success between, that count as an outage.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutageSpec {
    /// The number of failed calls, or of failed writes.
    pub calls: NonZeroUsize,
    /// The number of different streams among them. One failing stream alone is never an outage if this exceeds 1.
    pub streams: NonZeroUsize,
}

impl Default for OutageSpec {
    fn default() -> Self {
        let number = |number| NonZeroUsize::new(number).expect("no default is zero");
        Self { calls: number(20), streams: number(5) }
    }
}

/// `errors.retry`: the number and the delays of retries.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySpec {
    /// The delay after the first failure. It doubles from then on, and each delay is shortened at random by up to half.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub initial: Duration,
    /// The longest delay.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub max: Duration,
    /// The attempts before `errors.then` acts, the first included; or `"unlimited"`.
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

/// The number of attempts.
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

/// Returns the error of an unknown word, if another type of value is allowed as well.
fn other_word<E: de::Error>(text: &str, words: &'static [&'static str], expected: &dyn de::Expected) -> E {
    match closest(text, words) {
        Some(_) => E::unknown_variant(text, words),
        None => E::invalid_type(de::Unexpected::Str(text), expected),
    }
}

/// The action for an event whose retries are spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The event and all later ones of its stream are kept aside, and the rest goes on.
    Park,
    /// The pipeline stops until the operator acts.
    Halt,
    /// The event is skipped, counted and listed.
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
