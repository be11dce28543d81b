//! Source `generate`: synthetic events. The event at a place is a function of the seed and the place alone, so that reading
//! resumes exactly and runs repeat.
//!
//! Events come in rounds. A round has the next event of every stream of the tranche, in an order of its own, and then the
//! round's duplicates. A position is the number of earlier events.

mod kind;

use std::io::Write as _;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::connector::{BadSetting, Context, MAX_BATCH};
use crate::event::{Event, EventBuilder, Indexes, Kind, Text};
use crate::position::{Ahead, Ordinal, Position, StartAt, TrancheId};
use crate::source::{
    Batch, Changes, Contract, Lag, LagUnit, Next, Room, Source, SourceError, SourceErrorKind, TrancheChange,
    TrancheReader,
};

/// `[source.generate]`: synthetic events, the same ones for the same settings. For trials and measurements.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "GenerateSource")]
pub struct Settings {
    /// The seed. Another one gives other events.
    pub seed: u64,
    /// The number of streams, in all tranches together.
    pub streams: NonZeroU64,
    /// The number of tranches. A stream belongs to one of them.
    pub tranches: NonZeroU32,
    /// The number of events, in all tranches together. Left out: they never end.
    pub count: Option<u64>,
    /// The events per second, in all tranches together. Left out: as fast as they are read.
    pub rate: Option<NonZeroU64>,
    /// The bytes of an event's body. A body that needs more is larger.
    pub size: usize,
    /// The share of events that repeat an earlier one, from 0 to 0.99.
    #[schemars(range(min = 0.0, max = 0.99))]
    pub duplicates: f64,
    /// The share of a stream's indexes that are missing, from 0 to 0.99.
    #[schemars(range(min = 0.0, max = 0.99))]
    pub gaps: f64,
    /// The category: the part of stream names before the first `-`.
    pub category: String,
    /// The types of events.
    pub types: Vec<String>,
    /// The events of a batch.
    pub batch: NonZeroUsize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            streams: const { NonZeroU64::new(1_000).expect("it is not zero") },
            tranches: NonZeroU32::MIN,
            count: None,
            rate: None,
            size: 100,
            duplicates: 0.0,
            gaps: 0.0,
            category: "sample".to_owned(),
            types: vec!["Sampled".to_owned()],
            batch: const { NonZeroUsize::new(1_000).expect("it is not zero") },
        }
    }
}

/// Returns the settings that are invalid.
pub fn check(settings: &Settings) -> Vec<BadSetting> {
    const LARGEST: usize = 16 << 20;
    let mut bad = Vec::new();
    let mut expect = |is_so: bool, key: &str, why: &str| {
        if !is_so {
            bad.push(BadSetting::new(&[key], format!("`{key}` {why}")));
        }
    };
    let is_share = |share: f64| (0.0..=0.99).contains(&share);
    expect(is_share(settings.duplicates), "duplicates", "must be from 0 to 0.99");
    expect(is_share(settings.gaps), "gaps", "must be from 0 to 0.99");
    expect(!settings.types.is_empty(), "types", "must name at least one type");
    expect(!settings.category.is_empty(), "category", "must not be empty");
    let is_short = |name: &String| name.len() <= 65_000;
    expect(is_short(&settings.category), "category", "must be at most 65,000 bytes long");
    expect(settings.types.iter().all(is_short), "types", "must be at most 65,000 bytes long");
    expect(settings.size <= LARGEST, "size", "must be at most 16777216 (16 MiB)");
    expect(settings.batch.get() <= MAX_BATCH, "batch", "must be at most 1000000");
    let has_streams = u64::from(settings.tranches.get()) <= settings.streams.get();
    expect(has_streams, "tranches", "exceeds `streams`: each tranche needs at least one");
    expect(settings.tranches.get() <= 10_000, "tranches", "must be at most 10000");
    bad
}

impl Settings {
    /// Returns the promises of the source.
    pub fn contract(&self) -> Contract {
        Contract { ordinals: true, indexes: Indexes::Dense, repeats: self.duplicates > 0.0 }
    }
}

/// Makes the source.
pub fn source(settings: &Settings, _context: &Context) -> anyhow::Result<GenerateSource> {
    if let Some(bad) = check(settings).into_iter().next() {
        return Err(bad.into());
    }
    Ok(GenerateSource { settings: settings.clone(), clock: Clock::start() })
}

/// See the module's documentation.
#[derive(Debug)]
pub struct GenerateSource {
    settings: Settings,
    clock: Clock,
}

#[async_trait]
impl Source for GenerateSource {
    fn contract(&self) -> Contract {
        self.settings.contract()
    }

    async fn watch(&self, changes: &Changes) -> Result<(), SourceError> {
        for tranche in 0..self.settings.tranches.get() {
            let tranche = TrancheId::new(tranche.to_string());
            changes.report(TrancheChange::Added { tranche, origin: None, epoch: 0 }).await;
        }
        changes.report(TrancheChange::Settled).await;
        Ok(())
    }

    fn open(&self, tranche: &TrancheId, from: StartAt, _ahead: Option<Ahead>) -> Box<dyn TrancheReader> {
        let tranche: u64 = tranche.as_str().parse().unwrap_or_default();
        Box::new(Reader {
            sequence: Sequence::new(&self.settings, tranche),
            pace: self.settings.rate.map(|rate| Pace::new(rate, &self.settings)),
            batch: self.settings.batch.get() as u64,
            from,
            at: None,
            told_end: false,
            clock: self.clock,
        })
    }

    fn compare(&self, one: &Position, other: &Position) -> Option<std::cmp::Ordering> {
        one.compare_numbers(other)
    }
}

struct Reader {
    sequence: Sequence,
    pace: Option<Pace>,
    batch: u64,
    from: StartAt,
    /// The number of the next event; `None` before the first batch.
    at: Option<u64>,
    told_end: bool,
    clock: Clock,
}

/// The pace of events.
struct Pace {
    nanos_per_event: f64,
    /// The time at which the first event of this reader was due.
    began: Option<Timestamp>,
    given: u64,
    told_tail: bool,
}

impl Pace {
    fn new(rate: NonZeroU64, settings: &Settings) -> Self {
        let nanos_per_event = 1e9 / rate.get() as f64 * f64::from(settings.tranches.get());
        Self { nanos_per_event, began: None, given: 0, told_tail: false }
    }

    /// Returns the number of due events that were not delivered.
    fn due(&mut self, now: Timestamp) -> u64 {
        let began = *self.began.get_or_insert(now);
        let due = (now.since(began).as_nanos() as f64 / self.nanos_per_event) as u64;
        due.saturating_sub(self.given)
    }

    fn next_due(&self) -> Timestamp {
        let after = Duration::from_nanos(((self.given + 1) as f64 * self.nanos_per_event).ceil() as u64);
        // At a high rate, events come in batches and not one by one.
        let least = Duration::from_millis(10).as_nanos() as f64;
        self.began.unwrap_or_default()
            + after.max(Duration::from_nanos((self.given as f64 * self.nanos_per_event + least) as u64))
    }
}

#[async_trait]
impl TrancheReader for Reader {
    async fn next(&mut self, room: Room) -> Result<Next, SourceError> {
        let at = match self.at {
            Some(at) => at,
            None => *self.at.insert(start(&self.from)?),
        };
        let left = self.sequence.count.map(|count| count.saturating_sub(at));
        if left == Some(0) {
            return Ok(self.end(at));
        }
        let mut wanted = self.batch.min(left.unwrap_or(u64::MAX)).min(room.events.max(1) as u64);
        if let Some(pace) = &mut self.pace {
            let mut due = pace.due(self.clock.now());
            if due == 0 {
                if pace.told_tail || left.is_some() {
                    tokio::time::sleep_until(self.clock.instant(pace.next_due())).await;
                    due = pace.due(self.clock.now());
                }
                pace.told_tail = left.is_none();
            }
            wanted = wanted.min(due);
            pace.given += wanted;
        }
        let events = self.sequence.batch(at, wanted);
        self.at = Some(at + wanted);
        // The tail lies behind the last event if their number is known, else at the first event that is not due.
        let at_tail = match left {
            Some(left) => left == wanted,
            None => self.pace.is_some() && wanted < self.batch.min(room.events.max(1) as u64),
        };
        self.told_end = left == Some(wanted);
        Ok(self.batch_of(events, at + wanted, at_tail))
    }
}

impl Reader {
    /// The tail was reported. An empty tranche reports it once as well, and then ends.
    fn end(&mut self, at: u64) -> Next {
        if std::mem::replace(&mut self.told_end, true) {
            return Next::End;
        }
        self.batch_of(Vec::new(), at, true)
    }

    fn batch_of(&self, events: Vec<Event>, next: u64, at_tail: bool) -> Next {
        let left = self.sequence.count.map(|count| count.saturating_sub(next));
        let resume_at = Position::Number(i64::try_from(next).unwrap_or(i64::MAX));
        let lag = left.map(|amount| Lag { amount, unit: LagUnit::Events });
        Next::Batch(Batch { events, resume_at, at_tail, lag })
    }
}

fn start(from: &StartAt) -> Result<u64, SourceError> {
    match from {
        StartAt::Origin => Ok(0),
        StartAt::Position(Position::Number(number)) if *number >= 0 => Ok(*number as u64),
        StartAt::Position(position) => Err(SourceError::new(
            SourceErrorKind::PositionLost,
            format!("resume at `{position}`, which is no number of generated events"),
        )),
    }
}

/// The sequence of events of a tranche.
#[derive(Debug)]
struct Sequence {
    seed: u64,
    /// The tranche's streams are this one and every `step`th after it.
    first_stream: u64,
    step: u64,
    streams: u64,
    count: Option<u64>,
    /// The average duplicates and skipped indexes of a round, in 2^32nds.
    duplicates: u128,
    gaps: u64,
    size: usize,
    category: String,
    types: Vec<String>,
}

/// An event before its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Drawn {
    stream: u64,
    index: u64,
    /// Chooses type and body. All copies of an event have the same.
    random: u64,
}

impl Sequence {
    fn new(settings: &Settings, tranche: u64) -> Self {
        let step = u64::from(settings.tranches.get());
        let share = |whole: u64| whole / step + u64::from(tranche < whole % step);
        let streams = share(settings.streams.get()).max(1);
        let ratio = |share: f64| share / (1.0 - share) * (1_u64 << 32) as f64;
        Self {
            seed: mix(settings.seed ^ mix(tranche)),
            first_stream: tranche,
            step,
            streams,
            count: settings.count.map(share),
            duplicates: u128::from(ratio(settings.duplicates) as u64) * u128::from(streams),
            gaps: ratio(settings.gaps) as u64,
            size: settings.size,
            category: settings.category.clone(),
            types: settings.types.clone(),
        }
    }

    /// Returns the number of the first event of a round.
    fn round_start(&self, round: u64) -> u64 {
        let duplicates = (u128::from(round) * self.duplicates) >> 32;
        round.saturating_mul(self.streams).saturating_add(u64::try_from(duplicates).unwrap_or(u64::MAX))
    }

    fn round_of(&self, number: u64) -> u64 {
        let per_round = (u128::from(self.streams) << 32) + self.duplicates;
        let estimate = u64::try_from((u128::from(number) << 32) / per_round).unwrap_or(u64::MAX);
        let mut round = estimate.saturating_sub(1);
        while self.round_start(round + 1) <= number {
            round += 1;
        }
        round
    }

    fn draw(&self, number: u64) -> Drawn {
        let round = self.round_of(number);
        let mut place = number - self.round_start(round);
        if place >= self.streams {
            place = mix(self.seed ^ mix(number)) % self.streams;
        }
        // Each round passes every stream once, from a random start in a random direction.
        let chance = mix(self.seed ^ mix(!round));
        let turned = (place + chance % self.streams) % self.streams;
        let slot = if chance >> 63 == 1 { self.streams - 1 - turned } else { turned };
        let stream = self.first_stream + slot * self.step;
        let skipped = (u128::from(round) * u128::from(self.gaps) + u128::from(mix(self.seed ^ stream) >> 32)) >> 32;
        let index = round + u64::try_from(skipped).unwrap_or(u64::MAX >> 2);
        Drawn { stream, index, random: mix(self.seed ^ mix(stream) ^ index) }
    }

    /// Encodes events into one shared buffer.
    fn batch(&self, first: u64, count: u64) -> Vec<Event> {
        let mut buffer = Vec::with_capacity(count as usize * (self.size + self.category.len() + 48));
        let mut places = Vec::with_capacity(count as usize);
        for number in first..first + count {
            let drawn = self.draw(number);
            let start = buffer.len();
            let stream_len = self.write_stream(drawn, &mut buffer);
            let case = &self.types[(drawn.random % self.types.len() as u64) as usize];
            buffer.extend_from_slice(case.as_bytes());
            let data = buffer.len();
            self.write_body(drawn, &mut buffer);
            places.push((number, drawn, start, stream_len, data, buffer.len()));
        }
        let buffer = Bytes::from(buffer);
        let events = places.into_iter().map(|(number, drawn, start, stream_len, data, end)| {
            let record = buffer.slice(start..end);
            let (data, end) = (data - start, end - start);
            EventBuilder::new(record)
                .text(Text::Stream, 0, stream_len)
                .text(Text::Type, stream_len, data - stream_len)
                .data(data, end - data)
                .build(Kind::Event, Ordinal::new(number, 0), i64::try_from(drawn.index).unwrap_or(i64::MAX))
                .expect("names were checked when the source was made")
        });
        events.collect()
    }

    fn write_stream(&self, drawn: Drawn, buffer: &mut Vec<u8>) -> usize {
        let start = buffer.len();
        write!(buffer, "{}-{}", self.category, drawn.stream).expect("writing to memory cannot fail");
        buffer.len() - start
    }

    fn write_body(&self, drawn: Drawn, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        let amount = drawn.random >> 48;
        write!(buffer, "{{\"index\":{},\"amount\":{amount},\"note\":\"", drawn.index)
            .expect("writing to memory cannot fail");
        let filled = self.size.saturating_sub(buffer.len() - start + 2);
        buffer.resize(buffer.len() + filled, b'.');
        buffer.extend_from_slice(b"\"}");
    }
}

/// Spreads a number's bits (SplitMix64's last steps).
const fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn settings(streams: u64) -> Settings {
        Settings { streams: NonZeroU64::new(streams).unwrap(), ..Settings::default() }
    }

    fn drawn(settings: &Settings, tranche: u64, count: u64) -> Vec<Drawn> {
        let sequence = Sequence::new(settings, tranche);
        (0..count).map(|number| sequence.draw(number)).collect()
    }

    #[test]
    fn each_stream_has_its_indexes_one_after_the_other() {
        let mut next = HashMap::new();
        for drawn in drawn(&settings(7), 0, 700) {
            let index: &mut u64 = next.entry(drawn.stream).or_default();
            assert_eq!(drawn.index, *index);
            *index += 1;
        }
        assert_eq!((next.len(), next.into_values().collect::<HashSet<_>>()), (7, HashSet::from([100])));
    }

    #[test]
    fn the_share_of_duplicates_is_what_was_asked_for_and_each_repeats_an_event() {
        let settings = Settings { duplicates: 0.2, ..settings(7) };
        let mut seen = HashMap::new();
        let mut repeated = 0;
        for drawn in drawn(&settings, 0, 10_000) {
            if let Some(before) = seen.insert((drawn.stream, drawn.index), drawn) {
                assert_eq!(before, drawn);
                repeated += 1;
            }
        }
        assert!((1_990..=2_010).contains(&repeated), "{repeated}");
    }

    #[test]
    fn the_share_of_gaps_is_what_was_asked_for() {
        let settings = Settings { gaps: 0.25, ..settings(10) };
        let last = drawn(&settings, 0, 10_000).into_iter().map(|drawn| drawn.index).max().unwrap();
        assert!((1_330..=1_335).contains(&last), "{last}");
    }

    #[test]
    fn c4_a_stream_belongs_to_one_tranche() {
        let settings = Settings { tranches: NonZeroU32::new(3).unwrap(), count: Some(100), ..settings(8) };
        let mut owners = HashMap::new();
        for tranche in 0..3 {
            for drawn in drawn(&settings, tranche, 50) {
                assert_eq!(*owners.entry(drawn.stream).or_insert(tranche), tranche);
            }
        }
        assert_eq!(owners.len(), 8);
        let counts: u64 = (0..3).filter_map(|tranche| Sequence::new(&settings, tranche).count).sum();
        assert_eq!(counts, 100);
    }

    #[test]
    fn bodies_are_json_of_the_size_asked_for() {
        let sequence = Sequence::new(&settings(3), 0);
        let event = &sequence.batch(5, 1)[0];
        assert_eq!(event.data().len(), 100);
        serde_json::from_slice::<serde_json::Value>(event.data()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_says_when_none_is_due() {
        let settings = Settings { rate: NonZeroU64::new(1_000), ..settings(10) };
        let context = Context::new("p", "", "");
        let source = source(&settings, &context).unwrap();
        let mut reader = source.open(&TrancheId::new("0"), StartAt::Origin, None);
        let (mut events, mut batches) = (0, 0);
        let clock = Clock::start();
        while events < 5_000 {
            let Next::Batch(batch) = reader.next(Room::UNLIMITED).await.unwrap() else { panic!("it never ends") };
            assert!(batch.at_tail && batch.lag.is_none());
            events += batch.events.len();
            batches += 1;
        }
        let took = clock.now().since(Timestamp::ZERO).as_millis();
        assert!((5_000..5_100).contains(&took), "{took}");
        assert!((100..1_000).contains(&batches), "{batches}");
    }
}
