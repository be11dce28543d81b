//! Latencies: a histogram and a summary of the same durations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram as Values;
use prometheus::Histogram;
use prometheus::local::LocalHistogram;
use prometheus::proto::{self, MetricType};

use super::series::{Description, Series};
use crate::clock::Clock;

const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];

/// Quantiles cover the last minute, in steps of a fifth of it.
const WINDOW_SECONDS: u64 = 60;
const STEPS: usize = 5;

/// Durations are stored in microseconds. A duration over an hour counts as an hour.
const LONGEST: u64 = 3_600_000_000;

/// The quantiles of the last minute's durations, and the sum and number of all durations.
///
/// Memory is bounded. Each step counts durations by size: to two digits in a summary of a pipeline (at most 14 KB), and
/// to one digit in a summary of a tranche (2 KB), because there can be thousands of tranches.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    clock: Clock,
    recorded: Arc<Mutex<Recorded>>,
}

#[derive(Debug)]
struct Recorded {
    digits: u8,
    steps: [Option<Step>; STEPS],
    count: u64,
    micros: u64,
}

#[derive(Debug)]
struct Step {
    /// The number of the step since the clock's start.
    number: u64,
    values: Values<u32>,
}

impl Summary {
    fn new(clock: Clock, digits: u8) -> Self {
        let recorded = Recorded { digits, steps: Default::default(), count: 0, micros: 0 };
        Self { clock, recorded: Arc::new(Mutex::new(recorded)) }
    }

    pub(super) fn observe(&self, took: Duration) {
        let number = self.step();
        self.recorded().record(number, micros(took));
    }

    /// Records all durations of the list and empties it.
    fn drain(&self, micros: &mut Vec<u32>) {
        let number = self.step();
        let mut recorded = self.recorded();
        micros.drain(..).for_each(|value| recorded.record(number, value));
    }

    fn step(&self) -> u64 {
        self.clock.now().as_nanos() / (WINDOW_SECONDS * 1_000_000_000 / STEPS as u64)
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorded {
    fn record(&mut self, number: u64, micros: u32) {
        self.count += 1;
        self.micros += u64::from(micros);
        let digits = self.digits;
        let slot = &mut self.steps[(number % STEPS as u64) as usize];
        let step = slot.get_or_insert_with(|| Step { number, values: values(digits) });
        if step.number != number {
            step.number = number;
            step.values.reset();
        }
        // The histogram grows on demand up to the longest duration.
        step.values.record(u64::from(micros)).expect("a duration of at most an hour fits");
    }

    fn recent(&self, number: u64) -> Values<u32> {
        let mut all = values(self.digits);
        for step in self.steps.iter().flatten() {
            if step.number + STEPS as u64 > number {
                all.add(&step.values).expect("histograms of the same precision add up");
            }
        }
        all
    }
}

fn values(digits: u8) -> Values<u32> {
    Values::new(digits).expect("one and two significant digits are valid")
}

fn micros(took: Duration) -> u32 {
    took.as_micros().min(u128::from(LONGEST)) as u32
}

/// A description of the last minute's durations, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recent {
    pub min: f64,
    pub mean: f64,
    pub stddev: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Summary {
    /// Describes the last minute's durations; `None` if there are none.
    pub(super) fn describe(&self) -> Option<Recent> {
        let recent = self.recorded().recent(self.step());
        let seconds = |micros: f64| micros / 1e6;
        let quantile = |quantile| seconds(recent.value_at_quantile(quantile) as f64);
        (!recent.is_empty()).then(|| Recent {
            min: seconds(recent.min() as f64),
            mean: seconds(recent.mean()),
            stddev: seconds(recent.stdev()),
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
            max: seconds(recent.max() as f64),
        })
    }
}

/// A summary with one digit, for series that exist per tranche.
#[derive(Clone, Debug)]
pub(super) struct CoarseSummary(pub(super) Summary);

impl Series for Summary {
    const TYPE: MetricType = MetricType::SUMMARY;

    fn make(_: &Description, clock: Clock) -> Self {
        Self::new(clock, 2)
    }

    fn sample(&self) -> Option<proto::Metric> {
        let number = self.step();
        let recorded = self.recorded();
        let recent = recorded.recent(number);
        let quantile = |quantile| {
            let mut one = proto::Quantile::default();
            one.set_quantile(quantile);
            let value = if recent.is_empty() { f64::NAN } else { recent.value_at_quantile(quantile) as f64 / 1e6 };
            one.set_value(value);
            one
        };
        let mut summary = proto::Summary::default();
        summary.set_sample_count(recorded.count);
        summary.set_sample_sum(recorded.micros as f64 / 1e6);
        summary.set_quantile(QUANTILES.map(quantile).into());
        let mut metric = proto::Metric::default();
        metric.set_summary(summary);
        Some(metric)
    }

    fn observations(&self) -> Option<u64> {
        Some(self.recorded().count)
    }
}

impl Series for CoarseSummary {
    const TYPE: MetricType = MetricType::SUMMARY;

    fn make(_: &Description, clock: Clock) -> Self {
        Self(Summary::new(clock, 1))
    }

    fn sample(&self) -> Option<proto::Metric> {
        self.0.sample()
    }

    fn observations(&self) -> Option<u64> {
        self.0.observations()
    }
}

/// A histogram and a summary of the same durations.
#[derive(Clone, Debug)]
pub(super) struct Latency {
    pub(super) histogram: Histogram,
    pub(super) summary: Summary,
}

impl Latency {
    pub(super) fn local(&self) -> LocalLatency {
        LocalLatency { histogram: self.histogram.local(), summary: self.summary.clone(), micros: Vec::new() }
    }
}

/// Collects durations without synchronization until the next flush.
#[derive(Debug)]
pub(super) struct LocalLatency {
    histogram: LocalHistogram,
    summary: Summary,
    micros: Vec<u32>,
}

/// The number of collected durations that triggers a flush.
const COLLECTED: usize = 4_096;

impl LocalLatency {
    pub(super) fn observe(&mut self, took: Duration) {
        self.histogram.observe(took.as_secs_f64());
        self.micros.push(micros(took));
        if self.micros.len() >= COLLECTED {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        self.histogram.flush();
        if !self.micros.is_empty() {
            self.summary.drain(&mut self.micros);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantiles(summary: &Summary) -> Vec<f64> {
        summary.sample().unwrap().get_summary().get_quantile().iter().map(proto::Quantile::value).collect()
    }

    fn assert_near(actual: &[f64], expected: &[f64], share: f64) {
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual - expected).abs() <= expected * share, "{actual} is not near {expected}");
        }
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn quantiles_describe_the_observed_durations() {
        for (digits, share) in [(2, 0.01), (1, 0.07)] {
            let summary = Summary::new(Clock::start(), digits);
            (1..=1_000).rev().for_each(|millis| summary.observe(Duration::from_millis(millis)));
            assert_near(&quantiles(&summary), &[0.5, 0.95, 0.99], share);
            let sample = summary.sample().unwrap();
            assert_eq!(sample.get_summary().sample_count(), 1_000);
            assert_near(&[sample.get_summary().sample_sum()], &[500.5], 1e-9);
        }
    }

    #[test]
    fn the_last_minute_is_described_in_seconds() {
        let summary = Summary::new(Clock::start(), 2);
        assert_eq!(summary.describe(), None);
        (1..=3).for_each(|seconds| summary.observe(Duration::from_secs(seconds)));
        let Recent { min, mean, stddev, p50, p95, p99, max } = summary.describe().unwrap();
        assert_near(&[min, mean, stddev, p50, p95, p99, max], &[1.0, 2.0, 0.816, 2.0, 3.0, 3.0, 3.0], 0.01);
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_slides_in_steps_while_sum_and_count_remain() {
        let summary = Summary::new(Clock::start(), 2);
        summary.observe(Duration::from_secs(8));
        pass(12).await;
        summary.observe(Duration::from_secs(1));
        pass(47).await;
        assert_near(&quantiles(&summary), &[1.0, 8.0, 8.0], 0.01);
        pass(1).await;
        assert_near(&quantiles(&summary), &[1.0, 1.0, 1.0], 0.01);
        pass(12).await;
        assert!(quantiles(&summary).iter().all(|value| value.is_nan()));
        assert_eq!(summary.sample().unwrap().get_summary().sample_count(), 2);
        assert_near(&[summary.sample().unwrap().get_summary().sample_sum()], &[9.0], 1e-9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_step_replaces_the_oldest_one() {
        let summary = Summary::new(Clock::start(), 2);
        summary.observe(Duration::from_secs(8));
        pass(60).await;
        summary.observe(Duration::from_secs(1));
        assert_near(&quantiles(&summary), &[1.0, 1.0, 1.0], 0.01);
    }

    #[test]
    fn any_duration_fits_and_memory_is_bounded() {
        for (digits, bytes) in [(2, 14 << 10), (1, 2 << 10)] {
            let summary = Summary::new(Clock::start(), digits);
            for took in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(3_600), Duration::MAX] {
                summary.observe(took);
            }
            assert_near(&quantiles(&summary)[1..], &[3_600.0, 3_600.0], 0.07);
            let recorded = summary.recorded();
            let held = recorded.steps.iter().flatten().map(|step| step.values.distinct_values() * 4).max();
            assert!(held.unwrap() <= bytes, "{held:?}");
        }
    }

    #[test]
    fn a_flush_publishes_locally_collected_durations() {
        let description = Description { name: "a", help: "b", labels: &[], buckets: &[0.1, 1.0] };
        let clock = Clock::start();
        let latency =
            Latency { histogram: Histogram::make(&description, clock), summary: Summary::make(&description, clock) };
        let mut local = latency.local();
        local.observe(Duration::from_millis(50));
        local.observe(Duration::from_millis(500));
        assert_eq!(latency.histogram.get_sample_count(), 0);
        assert_eq!(latency.summary.recorded().count, 0);
        local.flush();
        assert_eq!(latency.histogram.get_sample_count(), 2);
        assert_eq!(latency.summary.recorded().count, 2);
        (0..COLLECTED).for_each(|_| local.observe(Duration::ZERO));
        assert_eq!(latency.summary.recorded().count, 2 + COLLECTED as u64);
    }
}
