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
use crate::connector::{BadSetting, Context};
use crate::event::{Event, Indexes};
use crate::formats::jsonlines::{Indexing, parse_body};
use crate::position::TrancheId;
use crate::source::{Contract, Inbox, SourceError, SourceErrorKind};

/// `[source.memory]`: events that are posted to `/pipelines/NAME/events`. Accepted events that are not handled yet are lost
/// with the process.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "MemorySource")]
pub struct Settings {
    /// The origin of the events' indexes.
    pub index: Index,
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
    let is_nothing = settings.max_bytes == 0;
    let bad = is_nothing.then(|| BadSetting::new(&["max_bytes"], "`max_bytes` is 0: no event would fit"));
    bad.into_iter().collect()
}

impl Settings {
    /// Returns the contract of the source. It has no ordinals (C1): after a restart of the process, other events have the
    /// same positions.
    pub fn contract(&self) -> Contract {
        let (indexes, repeats) = match self.index {
            Index::Field => (Indexes::Dense, true),
            Index::Arrival => (Indexes::Sparse, false),
        };
        Contract { ordinals: false, indexes, repeats }
    }
}

/// Makes the source and its inbox.
pub fn source(settings: &Settings, context: &Context) -> anyhow::Result<(MemorySource, Arc<dyn Inbox>)> {
    if let Some(bad) = check(settings).into_iter().next() {
        return Err(bad.into());
    }
    let inbox = MemoryInbox::new(settings, &context.pipeline);
    Ok((inbox.source(), Arc::new(inbox)))
}

/// The bounded feed of posted events.
#[derive(Clone)]
pub struct MemoryInbox {
    feed: MemoryFeed,
    tranche: TrancheId,
    pipeline: Arc<str>,
    indexing: Indexing,
    max_events: usize,
    max_bytes: u64,
}

impl fmt::Debug for MemoryInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryInbox({})", self.pipeline)
    }
}

impl MemoryInbox {
    pub fn new(settings: &Settings, pipeline: &Arc<str>) -> Self {
        let indexing = match settings.index {
            Index::Field => Indexing::Field,
            Index::Arrival => Indexing::Line,
        };
        let feed = MemoryFeed::new(settings.contract());
        let tranche = TrancheId::new("0");
        feed.add(&tranche);
        feed.tranche(&tranche, |tranche| tranche.counts_from_start = true);
        let pipeline = Arc::clone(pipeline);
        Self { feed, tranche, pipeline, indexing, max_events: settings.max_events.get(), max_bytes: settings.max_bytes }
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
        let lines = parse_body(body, first, self.indexing, &mut events)
            .map_err(|bad| self.error(SourceErrorKind::Refused, bad))?;
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

#[async_trait]
impl Inbox for MemoryInbox {
    async fn push(&self, lines: &[u8]) -> Result<usize, SourceError> {
        let body = Bytes::copy_from_slice(lines);
        let mut taken = Ok(0);
        self.feed.tranche(&self.tranche, |tranche| taken = self.put(tranche, &body));
        taken
    }
}
