//! The process metrics, under the names of Prometheus' own client libraries. They exist on Linux only, from `/proc`.

use std::collections::HashMap;
use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};

/// `/proc` counts time in this unit on every architecture that this program is built for.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct Process {
    descs: Vec<Desc>,
    /// Seconds since 1970.
    started: Option<f64>,
}

const FAMILIES: [(&str, &str, MetricType); 4] = [
    ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", MetricType::COUNTER),
    ("process_open_fds", "Number of open file descriptors.", MetricType::GAUGE),
    ("process_resident_memory_bytes", "Resident memory size in bytes.", MetricType::GAUGE),
    ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", MetricType::GAUGE),
];

impl Process {
    pub(super) fn new() -> Self {
        let desc = |(name, help, _): (&str, &str, _)| {
            Desc::new(name.into(), help.into(), Vec::new(), HashMap::new()).expect("the names are constants")
        };
        Self { descs: FAMILIES.map(desc).into(), started: started() }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let values = [cpu_seconds(), open_files(), resident_bytes(), self.started];
        FAMILIES.iter().zip(values).filter_map(|(family, value)| Some(family_of(*family, value?))).collect()
    }
}

fn family_of((name, help, kind): (&str, &str, MetricType), value: f64) -> MetricFamily {
    let mut metric = proto::Metric::default();
    if kind == MetricType::COUNTER {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

/// Returns a field of `/proc/self/stat` by its number in proc(5), which counts from 1.
fn stat(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in brackets that can hold any character.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS_PER_SECOND)
}

fn open_files() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes: f64 = field(&status, "VmRSS:")?.parse().ok()?;
    Some(kilobytes * 1_024.0)
}

fn started() -> Option<f64> {
    let boot: f64 = field(&fs::read_to_string("/proc/stat").ok()?, "btime")?.parse().ok()?;
    Some(boot + stat(22)? / TICKS_PER_SECOND)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_used_time_and_memory_and_was_started_not_long_ago() {
        assert!(cpu_seconds().unwrap() < 1e6);
        assert!(open_files().unwrap() >= 3.0);
        assert!(resident_bytes().unwrap() > 1e6);
        let age = crate::clock::wall().unix_timestamp() as f64 - started().unwrap();
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }

    #[test]
    fn all_four_are_collected() {
        assert_eq!(Process::new().collect().len(), 4);
    }
}
