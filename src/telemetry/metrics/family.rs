//! All series of one metric name.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily};

use super::series::{Description, Series};
use crate::clock::{Clock, Timestamp};

/// The time without an observation after which a scrape leaves a histogram or summary out. One of them has up to 19
/// lines, so that hundreds of idle pipelines would fill most of a page with numbers that do not change. The next
/// observation brings it back with its former counts.
const MAX_IDLE: Duration = Duration::from_secs(300);

/// The series of one metric name, keyed by their label values.
///
/// The library's own vectors do not serve here. They identify a series by a hash over the concatenated values, so that
/// (`orders`, `11`) and (`orders1`, `1`) are the same series, and they sort the labels.
pub(super) struct Family<S>(Arc<Inner<S>>);

struct Inner<S> {
    description: Description,
    desc: Desc,
    clock: Clock,
    series: RwLock<BTreeMap<Vec<Box<str>>, Entry<S>>>,
}

/// A series, and its observations at the latest scrape that found new ones.
struct Entry<S> {
    series: S,
    observations: AtomicU64,
    /// The time of that scrape in nanoseconds.
    seen_at: AtomicU64,
}

impl<S: Series> Entry<S> {
    fn new(series: S) -> Self {
        Self { series, observations: AtomicU64::new(0), seen_at: AtomicU64::new(0) }
    }

    fn sample(&self, now: Timestamp) -> Option<proto::Metric> {
        let observations = self.series.observations();
        if observations.is_some_and(|observations| self.is_idle(observations, now)) {
            return None;
        }
        self.series.sample()
    }

    /// Returns whether there are no observations, or none since `MAX_IDLE`. Scrapes alone measure that time, so that an
    /// observation costs nothing more. Two scrapes at once see the same.
    fn is_idle(&self, observations: u64, now: Timestamp) -> bool {
        if self.observations.swap(observations, Ordering::Relaxed) != observations {
            self.seen_at.store(now.as_nanos(), Ordering::Relaxed);
        }
        let seen_at = Timestamp::from_nanos(self.seen_at.load(Ordering::Relaxed));
        observations == 0 || now.since(seen_at) >= MAX_IDLE
    }
}

impl<S: Series> Family<S> {
    pub(super) fn new(description: Description, clock: Clock) -> Self {
        let labels = description.labels.iter().map(ToString::to_string).collect();
        let desc = Desc::new(description.name.into(), description.help.into(), labels, HashMap::new())
            .expect("descriptions are constants, and a test makes one of each");
        Self(Arc::new(Inner { description, desc, clock, series: RwLock::default() }))
    }

    /// Returns the series with these values, in the order of the labels, and creates it if necessary.
    pub(super) fn get(&self, values: &[&str]) -> S {
        assert_eq!(values.len(), self.0.description.labels.len(), "{} has other labels", self.0.description.name);
        let key = values.iter().map(|&value| value.into()).collect();
        let mut series = self.0.series.write().unwrap_or_else(PoisonError::into_inner);
        let made = || Entry::new(S::make(&self.0.description, self.0.clock));
        series.entry(key).or_insert_with(made).series.clone()
    }

    fn labelled(&self, values: &[Box<str>], mut metric: proto::Metric) -> proto::Metric {
        let pairs = self.0.description.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.to_string());
            pair
        });
        metric.set_label(pairs.collect());
        metric
    }
}

impl<S> Clone for Family<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Series> Collector for Family<S> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let series = self.0.series.read().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.clock.now();
        let sample = |(values, one): (&Vec<Box<str>>, &Entry<S>)| Some(self.labelled(values, one.sample(now)?));
        let mut family = MetricFamily::default();
        family.set_name(self.0.description.name.to_owned());
        family.set_help(self.0.description.help.to_owned());
        family.set_field_type(S::TYPE);
        family.set_metric(series.iter().filter_map(sample).collect());
        vec![family]
    }
}

/// A family of any type of series.
pub(super) trait AnyFamily: Send + Sync {
    /// Removes the series with these label values. Removes none if the family lacks one of the labels.
    fn remove(&self, labels: &[(&str, &str)]);
}

impl<S: Series> AnyFamily for Family<S> {
    fn remove(&self, labels: &[(&str, &str)]) {
        let place = |&(name, value)| {
            let index = self.0.description.labels.iter().position(|&label| label == name);
            index.map(|index| (index, value))
        };
        let Some(wanted) = labels.iter().map(place).collect::<Option<Vec<_>>>() else { return };
        let mut series = self.0.series.write().unwrap_or_else(PoisonError::into_inner);
        series.retain(|values, _| !wanted.iter().all(|&(index, value): &(usize, &str)| *values[index] == *value));
    }
}
