//! The types of a single series.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus::core::Metric as _;
use prometheus::proto::{self, MetricType};
use prometheus::{Counter, Gauge, Histogram, HistogramOpts, IntCounter};
use time::OffsetDateTime;

use crate::clock::{Clock, Timestamp, wall};

/// The common parts of all series of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    /// The upper bounds of a histogram; empty for other types.
    pub(super) buckets: &'static [f64],
}

/// One series of a family.
pub(super) trait Series: Clone + Send + Sync + 'static {
    const TYPE: MetricType;

    fn make(description: &Description, clock: Clock) -> Self;

    /// Returns the current value without labels; `None` while there is none.
    fn sample(&self) -> Option<proto::Metric>;

    /// Returns the number of observed durations; `None` for other types of series.
    fn observations(&self) -> Option<u64> {
        None
    }
}

const VALID: &str = "descriptions are constants, and a test makes one of each";

impl Series for IntCounter {
    const TYPE: MetricType = MetricType::COUNTER;

    fn make(description: &Description, _: Clock) -> Self {
        Self::new(description.name, description.help).expect(VALID)
    }

    fn sample(&self) -> Option<proto::Metric> {
        Some(self.metric())
    }
}

impl Series for Counter {
    const TYPE: MetricType = MetricType::COUNTER;

    fn make(description: &Description, _: Clock) -> Self {
        Self::new(description.name, description.help).expect(VALID)
    }

    /// Seconds of work: absent until there are some. No alert watches their increase.
    fn sample(&self) -> Option<proto::Metric> {
        (self.get() > 0.0).then(|| self.metric())
    }
}

impl Series for Gauge {
    const TYPE: MetricType = MetricType::GAUGE;

    fn make(description: &Description, _: Clock) -> Self {
        Self::new(description.name, description.help).expect(VALID)
    }

    fn sample(&self) -> Option<proto::Metric> {
        Some(self.metric())
    }
}

impl Series for Histogram {
    const TYPE: MetricType = MetricType::HISTOGRAM;

    fn make(description: &Description, _: Clock) -> Self {
        let options = HistogramOpts::new(description.name, description.help).buckets(description.buckets.to_vec());
        Self::with_opts(options).expect(VALID)
    }

    fn sample(&self) -> Option<proto::Metric> {
        Some(self.metric())
    }

    fn observations(&self) -> Option<u64> {
        Some(self.get_sample_count())
    }
}

/// A gauge for one of many states. It is absent until it has a value other than 0, and then stays.
#[derive(Clone, Debug)]
pub(super) struct StateGauge(Reading);

impl StateGauge {
    pub(super) fn set(&self, value: f64) {
        if value != 0.0 || self.0.get().is_some() {
            self.0.set(Some(value));
        }
    }
}

impl Series for StateGauge {
    const TYPE: MetricType = MetricType::GAUGE;

    fn make(description: &Description, clock: Clock) -> Self {
        Self(Reading::make(description, clock))
    }

    fn sample(&self) -> Option<proto::Metric> {
        self.0.sample()
    }
}

/// A gauge that can be absent.
#[derive(Clone, Debug)]
pub(super) struct Reading(Arc<AtomicU64>);

impl Reading {
    pub(super) fn set(&self, value: Option<f64>) {
        self.0.store(value.unwrap_or(f64::NAN).to_bits(), Ordering::Relaxed);
    }

    fn get(&self) -> Option<f64> {
        Some(f64::from_bits(self.0.load(Ordering::Relaxed))).filter(|value| !value.is_nan())
    }
}

impl Series for Reading {
    const TYPE: MetricType = MetricType::GAUGE;

    fn make(_: &Description, _: Clock) -> Self {
        Self(Arc::new(AtomicU64::new(f64::NAN.to_bits())))
    }

    fn sample(&self) -> Option<proto::Metric> {
        self.get().map(gauge)
    }
}

/// The age of something that began at a time of the monotonic clock; 0 before it begins.
#[derive(Clone, Debug)]
pub(super) struct Age {
    clock: Clock,
    /// Nanoseconds; `u64::MAX` means absent.
    since: Arc<AtomicU64>,
}

impl Age {
    /// Sets the beginning to now.
    pub(super) fn restart(&self) {
        self.set(Some(self.clock.now()));
    }

    pub(super) fn set(&self, since: Option<Timestamp>) {
        self.since.store(since.map_or(u64::MAX, Timestamp::as_nanos), Ordering::Relaxed);
    }
}

impl Series for Age {
    const TYPE: MetricType = MetricType::GAUGE;

    fn make(_: &Description, clock: Clock) -> Self {
        Self { clock, since: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    fn sample(&self) -> Option<proto::Metric> {
        let since = Timestamp::from_nanos(self.since.load(Ordering::Relaxed));
        Some(gauge(self.clock.now().since(since).as_secs_f64()))
    }
}

/// The age of something by the time of day; absent before it exists.
#[derive(Clone, Debug)]
pub(super) struct WallAge {
    /// Milliseconds since 1970; `i64::MIN` means absent.
    millis: Arc<AtomicI64>,
}

impl WallAge {
    /// Keeps the later of `at` and the stored time.
    pub(super) fn raise(&self, at: OffsetDateTime) {
        self.millis.fetch_max(millis(at), Ordering::Relaxed);
    }
}

impl Series for WallAge {
    const TYPE: MetricType = MetricType::GAUGE;

    fn make(_: &Description, _: Clock) -> Self {
        Self { millis: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    fn sample(&self) -> Option<proto::Metric> {
        let at = self.millis.load(Ordering::Relaxed);
        // A source's clock can run ahead of ours; an age is never negative.
        (at != i64::MIN).then(|| gauge(millis(wall()).saturating_sub(at).max(0) as f64 / 1_000.0))
    }
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn gauge(value: f64) -> proto::Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    proto::Metric::from_gauge(gauge)
}
