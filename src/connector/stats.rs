//! Sink `stats`: counts events or effects by category and type, and writes nothing.
//!
//! Without a handler, the sink counts events and their stored bytes, but no unfolds. With a handler, it counts effects, in
//! bytes of JSON, by their `type`, else their `tag`, else the sort of value. Counts begin with the sink. It logs them at
//! the end of each interval with events, and at its end; they can be read at any time. Repeated events count again.
//!
//! ```toml
//! [sink.stats]
//! interval = "1m"     # the time between two logs of the counts
//! ```

mod kind;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hashbrown::HashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Context;
use crate::clock;
use crate::config::scalar;
use crate::effect::Value;
use crate::event::Kind;
use crate::handler::HandlerError;
use crate::runtime::ticker::Ticker;
use crate::sink::{Decided, Effects, Sink, Written};

/// The most pairs of category and type that are counted apart. All others count as [`OTHER`].
pub const MAX_ROWS: usize = 10_000;
/// The category and type of all other events.
pub const OTHER: &str = "(other)";

/// `[sink.stats]`: counts events or effects by category and type, and writes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "StatsSink")]
pub struct Settings {
    /// The interval of the logs.
    #[serde(with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60) }
    }
}

/// Counts events or effects. See the module's documentation.
#[derive(Debug)]
pub struct StatsSink {
    counts: Arc<Mutex<Counts>>,
    _logging: Ticker,
}

/// The counts of one type in one category.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub category: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub events: u64,
    pub bytes: u64,
    /// The times of the first and the last of them.
    #[serde(serialize_with = "rfc3339")]
    pub first_seen: OffsetDateTime,
    #[serde(serialize_with = "rfc3339")]
    pub last_seen: OffsetDateTime,
}

impl StatsSink {
    pub fn new(settings: &Settings, context: &Context) -> anyhow::Result<Self> {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let logging = {
            let counts = Arc::clone(&counts);
            Ticker::start(&format!("stats {}", context.pipeline), settings.interval, move || log(&counts))?
        };
        Ok(Self { counts, _logging: logging })
    }

    /// Returns the counts, by category, then type.
    pub fn snapshot(&self) -> Vec<Row> {
        lock(&self.counts).rows()
    }
}

#[async_trait]
impl Sink for StatsSink {
    fn max_batch(&self) -> usize {
        1024
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        let now = clock::wall();
        let mut counts = lock(&self.counts);
        for decided in decided {
            counts.count(decided, now);
        }
        decided.iter().map(|_| Ok(Written::All)).collect()
    }

    async fn close(&self) -> Result<(), HandlerError> {
        log(&self.counts);
        Ok(())
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    // A panic while counting leaves the counts usable, so a poisoned lock is no reason to lose them.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Logs the counts if they changed since the last log.
fn log(counts: &Mutex<Counts>) {
    let rows = {
        let mut counts = lock(counts);
        if !std::mem::take(&mut counts.changed) {
            return;
        }
        counts.rows()
    };
    let events = rows.iter().map(|row| row.events).sum::<u64>();
    tracing::info!(events, "counts by category and type");
    // One event for each row: a line break within an event is escaped, as it may come from the data.
    for row in table::table(&rows).lines() {
        tracing::info!("{row}");
    }
}

#[derive(Clone, Copy, Debug)]
struct Count {
    events: u64,
    bytes: u64,
    first_seen: OffsetDateTime,
    last_seen: OffsetDateTime,
}

#[derive(Debug, Default)]
struct Counts {
    categories: HashMap<String, HashMap<String, Count>>,
    rows: usize,
    other: Option<Count>,
    changed: bool,
}

impl Counts {
    fn count(&mut self, decided: &Decided, now: OffsetDateTime) {
        let category = decided.work.category();
        match &decided.effects {
            Effects::Events => {
                for event in decided.work.events.iter().filter(|event| event.kind() == Kind::Event) {
                    self.add(category, event.event_type(), event.size() as u64, now);
                }
            }
            Effects::Emitted(values) => {
                for value in values {
                    self.add(category, label(value), json_size(value), now);
                }
            }
        }
    }

    fn add(&mut self, category: &str, event_type: &str, bytes: u64, now: OffsetDateTime) {
        self.changed = true;
        let new = Count { events: 0, bytes: 0, first_seen: now, last_seen: now };
        let known = self.categories.get_mut(category).and_then(|types| types.get_mut(event_type));
        let count = match known {
            Some(count) => count,
            None if self.rows == MAX_ROWS => self.other.get_or_insert(new),
            None => {
                self.rows += 1;
                self.categories.entry_ref(category).or_default().entry_ref(event_type).or_insert(new)
            }
        };
        count.events += 1;
        count.bytes += bytes;
        count.last_seen = now;
    }

    fn rows(&self) -> Vec<Row> {
        let row = |category: &str, event_type: &str, count: &Count| Row {
            category: category.to_owned(),
            event_type: event_type.to_owned(),
            events: count.events,
            bytes: count.bytes,
            first_seen: count.first_seen,
            last_seen: count.last_seen,
        };
        let known = self.categories.iter().flat_map(|(category, types)| {
            types.iter().map(move |(event_type, count)| row(category, event_type, count))
        });
        let mut rows: Vec<_> = known.collect();
        rows.sort_unstable_by(|a, b| (&a.category, &a.event_type).cmp(&(&b.category, &b.event_type)));
        rows.extend(self.other.iter().map(|count| row(OTHER, OTHER, count)));
        rows
    }
}

fn label(value: &Value) -> &str {
    ["type", "tag"].iter().find_map(|key| value.get(key)?.as_text()).unwrap_or_else(|| value.kind())
}

fn json_size(value: &Value) -> u64 {
    struct Size(u64);

    impl std::io::Write for Size {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut size = Size(0);
    serde_json::to_writer(&mut size, value).expect("counting cannot fail, and our values have text for keys");
    size.0
}

fn rfc3339<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.format(&Rfc3339).map_err(serde::ser::Error::custom)?)
}

#[cfg(test)]
mod tests;
