//! All series of one metric name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily};

use super::series::{Description, Series};
use crate::clock::Clock;

/// The series of one metric name, keyed by their label values.
///
/// The library's own vectors do not serve here. They identify a series by a hash over the concatenated values, so that
/// (`orders`, `11`) and (`orders1`, `1`) are the same series, and they sort the labels.
pub(super) struct Family<S>(Arc<Inner<S>>);

struct Inner<S> {
    description: Description,
    desc: Desc,
    clock: Clock,
    series: RwLock<BTreeMap<Vec<Box<str>>, S>>,
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
        series.entry(key).or_insert_with(|| S::make(&self.0.description, self.0.clock)).clone()
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
        let sample = |(values, one): (&Vec<Box<str>>, &S)| Some(self.labelled(values, one.sample()?));
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
