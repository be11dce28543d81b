//! The inbox of a pipeline: posted events go into a bounded feed.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MemoryFeed, MemorySource, Tranche};
use crate::clock;
use crate::config::scalar;
use crate::connector::{BadSetting, Context, map};
use crate::event::{Event, Indexes};
use crate::formats::jsonlines::{BadLine, Indexing, parse_body};
use crate::formats::map::{EventPlace, RecordMap};
use crate::position::{Ordinal, TrancheId};
use crate::source::{Contract, Inbox, SourceError, SourceErrorKind};

/// `[source.memory]`: events that are posted to `/pipelines/NAME/events`. Accepted events that are not handled yet are lost
/// with the process.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "MemorySource")]
pub struct Settings {
    /// The origin of the events' indexes. Not with `map`, which has its own `index`.
    pub index: Index,
    /// The mapping of posted records to events. Left out: each line is an event, or an Equinox document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<map::Settings>,
    /// The most waiting events. The inbox refuses more until there is room.
    pub max_events: NonZeroUsize,
    /// The most bytes of waiting events.
    #[serde(with = "scalar::size")]
    #[schemars(with = "scalar::SizeText")]
    pub max_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            index: Index::Field,
            map: None,
            max_events: const { NonZeroUsize::new(100_000).expect("it is not zero") },
            max_bytes: 64 << 20,
        }
    }
}

/// The origin of the events' indexes. A line that contradicts it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "MemoryIndex")]
pub enum Index {
    /// The field `index` of each line: streams are dense.
    Field,
    /// The time of arrival in microseconds, or one more than the last index; lines have no index: streams are sparse.
    Arrival,
}

/// Returns the invalid settings.
pub fn check(settings: &Settings) -> Vec<BadSetting> {
    let mut bad = settings.map.as_ref().map(map::Settings::check).unwrap_or_default();
    if settings.map.is_some() && settings.index == Index::Arrival {
        let help = "remove it: without `map.index`, the time of arrival is the index";
        bad.push(BadSetting::new(&["index"], "`index` cannot be combined with `map`").help(help));
    }
    if settings.max_bytes == 0 {
        bad.push(BadSetting::new(&["max_bytes"], "`max_bytes` is 0: no event would fit"));
    }
    bad
}

impl Settings {
    /// Returns the contract of the source. It has no ordinals (C1): after a restart of the process, other events have the
    /// same positions.
    pub fn contract(&self) -> Contract {
        let (indexes, repeats) = match (&self.map, self.index) {
            (Some(map), _) => (map.indexes(), map.index.is_some()),
            (None, Index::Field) => (Indexes::Dense, true),
            (None, Index::Arrival) => (Indexes::Sparse, false),
        };
        Contract { ordinals: false, indexes, repeats }
    }
}

/// Makes the source and its inbox.
pub fn source(settings: &Settings, context: &Context) -> anyhow::Result<(MemorySource, Arc<dyn Inbox>)> {
    if let Some(bad) = check(settings).into_iter().next() {
        return Err(bad.into());
    }
    let inbox = MemoryInbox::new(settings, &context.pipeline)?;
    Ok((inbox.source(), Arc::new(inbox)))
}

/// The bounded feed of posted events.
#[derive(Clone)]
pub struct MemoryInbox {
    feed: MemoryFeed,
    tranche: TrancheId,
    pipeline: Arc<str>,
    indexing: Indexing,
    map: Option<RecordMap>,
    max_events: usize,
    max_bytes: u64,
}

impl fmt::Debug for MemoryInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryInbox({})", self.pipeline)
    }
}

impl MemoryInbox {
    /// Makes an empty inbox.
    ///
    /// # Errors
    /// The mapping is invalid.
    pub fn new(settings: &Settings, pipeline: &Arc<str>) -> Result<Self, BadSetting> {
        let map = settings.map.as_ref().map(map::Settings::compile).transpose()?;
        let indexing = match settings.index {
            Index::Field => Indexing::Field,
            Index::Arrival => Indexing::Line,
        };
        let feed = MemoryFeed::new(settings.contract());
        let tranche = TrancheId::new("0");
        feed.add(&tranche);
        feed.tranche(&tranche, |tranche| tranche.counts_from_start = true);
        let pipeline = Arc::clone(pipeline);
        let (max_events, max_bytes) = (settings.max_events.get(), settings.max_bytes);
        Ok(Self { feed, tranche, pipeline, indexing, map, max_events, max_bytes })
    }

    /// Makes a source that continues where the former one ended, so that a restart of the pipeline loses nothing.
    pub fn source(&self) -> MemorySource {
        self.feed.source()
    }

    fn error(&self, kind: SourceErrorKind, why: impl fmt::Display) -> SourceError {
        SourceError::new(kind, format!("accept events for pipeline `{}`: {why}", self.pipeline))
    }

    /// Makes room by deleting read events.
    ///
    /// # Errors
    /// The unread events leave too little room.
    fn make_room(&self, tranche: &mut Tranche, events: usize, bytes: u64) -> Result<(), SourceError> {
        let is_full = |tranche: &Tranche| {
            tranche.events.len() + events > self.max_events || tranche.bytes + bytes > self.max_bytes
        };
        while is_full(tranche) && tranche.first < tranche.read {
            if let Some(event) = tranche.forget_first() {
                tranche.bytes = tranche.bytes.saturating_sub(event.held_bytes() as u64);
            }
        }
        if is_full(tranche) {
            let why = format!("{} events of {} bytes already wait", tranche.events.len(), tranche.bytes);
            return Err(self.error(SourceErrorKind::Unavailable, why));
        }
        Ok(())
    }

    fn put(&self, tranche: &mut Tranche, body: &Bytes) -> Result<usize, SourceError> {
        let now = u64::try_from(clock::wall().unix_timestamp_nanos() / 1_000).unwrap_or_default();
        let first = now.max(tranche.next_major);
        let mut events: Vec<Event> = Vec::new();
        let lines = match &self.map {
            None => parse_body(body, first, self.indexing, &mut events).map_err(|bad| bad.to_string()),
            Some(map) => map_body(map, body, first, &mut events),
        };
        let lines = lines.map_err(|bad| self.error(SourceErrorKind::Refused, bad))?;
        let bytes = events.iter().map(|event| event.held_bytes() as u64).sum();
        if events.len() > self.max_events || bytes > self.max_bytes {
            let why = format!("at most {} events of {} bytes fit", self.max_events, self.max_bytes);
            return Err(self.error(SourceErrorKind::Refused, why));
        }
        self.make_room(tranche, events.len(), bytes)?;
        tranche.next_major = first + lines as u64;
        tranche.bytes += bytes;
        if !events.is_empty() {
            tranche.append(events);
        }
        Ok(lines)
    }
}

/// Appends the events of the records of a body, which get the majors from `first` on. Returns the number of events.
///
/// # Errors
/// A record does not fit. The message names its first line.
fn map_body(map: &RecordMap, body: &Bytes, first: u64, events: &mut Vec<Event>) -> Result<usize, String> {
    let mut majors = first..;
    let mut bad = None;
    let place = |_| {
        let major = majors.next().unwrap_or(u64::MAX);
        let index = i64::try_from(major).map_err(|_| BadLine::new("the time of arrival is too large for an index"))?;
        Ok(EventPlace { at: Ordinal::new(major, 0), index })
    };
    map.each_event(body, place, |line, result| match result {
        Ok(event) => events.push(event),
        Err(misfit) => drop(bad.get_or_insert_with(|| format!("line {line}: {}", misfit.why))),
    });
    // A body with a misfit is refused as a whole: each event has the next major.
    bad.map_or(Ok(events.len()), Err)
}

#[async_trait]
impl Inbox for MemoryInbox {
    async fn push(&self, lines: &[u8]) -> Result<usize, SourceError> {
        let body = Bytes::copy_from_slice(lines);
        let mut taken = Ok(0);
        self.feed.tranche(&self.tranche, |tranche| taken = self.put(tranche, &body));
        taken
    }
}
