//! The names that dashboards and alerts rely on (R71), and the rules that Prometheus has for names.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use expect_test::{expect, expect_file};
use propulsiond::clock::{Clock, wall};
use propulsiond::position::{Position, TrancheId};
use propulsiond::scheduler::{Snapshot, StateTotals};
use propulsiond::source::{Lag, LagUnit};
use propulsiond::telemetry::health::State;
use propulsiond::telemetry::metrics::{Activity, Metrics, OK, PageRead, Stage};

use crate::tools::tool;

const MOMENT: Duration = Duration::from_millis(1);

/// Returns the exposition of a registry in which every series that has fixed labels has a value.
fn everything() -> String {
    let metrics = Metrics::new(Clock::start());
    let pipeline = metrics.pipeline("orders", "orders-v1");
    let tranche = pipeline.tranche("shop", &TrancheId::new("0"));
    let spans = metrics.spans();
    spans.exported(1);
    spans.dropped(1);
    let reloads = metrics.reloads();
    reloads.reloaded(true);
    reloads.refused(1);
    State::ALL.into_iter().for_each(|state| pipeline.state(state));
    pipeline.config_hash("0123abcd");
    let busy = StateTotals { streams: 1, events: 1, bytes: 1, categories: 1, oldest: MOMENT, newest: MOMENT };
    pipeline.show(&Snapshot {
        idle: 1,
        ready: busy,
        waiting: busy,
        active: busy,
        failing: busy,
        stalled: busy,
        deferred: busy,
        parked: busy,
        ..Snapshot::default()
    });
    let mut local = pipeline.local();
    local.handled(OK, MOMENT);
    for stage in [Stage::Queue, Stage::Handle, Stage::Commit] {
        local.spent(stage, MOMENT);
    }
    for activity in [Activity::Merge, Activity::Ingest, Activity::Dispatch, Activity::Results, Activity::Stats] {
        local.worked(activity, MOMENT);
    }
    drop(local);
    pipeline.script("orders_seen", 1);
    tranche.ingested(MOMENT, 1);
    for unit in [LagUnit::Bytes, LagUnit::Events] {
        tranche.page_read(PageRead {
            events: 1,
            took: MOMENT,
            resume_at: &Position::Number(1),
            newest: Some(wall()),
            lag: Some(Lag { amount: 1, unit }),
        });
    }
    metrics.encode()
}

/// Omits the values, which other tests check.
fn without_values(exposition: &str) -> String {
    let name = |line: &str| {
        let name = if line.starts_with('#') { line } else { line.rsplit_once(' ').unwrap().0 };
        format!("{}\n", name.replace(env!("CARGO_PKG_VERSION"), "VERSION"))
    };
    exposition.lines().map(name).collect()
}

#[test]
fn r71_every_name_type_help_label_and_bucket_is_unchanged() {
    expect_file!["metrics.golden"].assert_eq(&without_values(&everything()));
}

/// Returns the output of `promtool check metrics`, and whether it could parse its input; `None` if the tool is not
/// named by `PROPULSIOND_TEST_PROMTOOL`.
pub(crate) fn promtool(exposition: &str) -> Option<(bool, Vec<String>)> {
    let mut command = tool("promtool")?;
    let piped = Stdio::piped;
    let mut child = command
        .args(["check", "metrics"])
        .stdin(piped())
        .stdout(piped())
        .stderr(piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    // Exit code 1: the input cannot be parsed. 3: the linter complains.
    Some((output.status.code() != Some(1), said.lines().map(str::to_owned).collect()))
}

#[test]
fn prometheus_own_linter_complains_of_the_kept_names_only() {
    let Some((parsed, said)) = promtool(&everything()) else { return };
    assert!(parsed, "{said:?}");
    expect![[r#"
        propulsion_feed_ingest_summary_seconds metric name should not include type 'summary'
        propulsion_feed_read_summary_seconds metric name should not include type 'summary'
        propulsion_scheduler_busy_count non-histogram and non-summary metrics should not have "_count" suffix
        propulsion_scheduler_cpu counter metrics should have "_total" suffix
        propulsion_scheduler_handler_summary_seconds metric name should not include type 'summary'"#]]
    .assert_eq(&said.join("\n"));
}

#[derive(Default)]
struct Family {
    help: Option<String>,
    kind: Option<String>,
    labels: Vec<String>,
}

fn families(exposition: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in exposition.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            assert!(!families.contains_key(name), "{name} comes twice");
            families.entry(current.clone()).or_default().help = Some(help.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "TYPE without HELP");
            families.entry(current.clone()).or_default().kind = Some(kind.to_owned());
        } else {
            assert!(line.starts_with(&current), "{line} stands under {current}");
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
            let names = labels.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.to_owned());
            let known = &mut families.entry(current.clone()).or_default().labels;
            known.extend(names);
            known.sort();
            known.dedup();
        }
    }
    families
}

/// Returns the faults of a family by those rules of Prometheus' linter that concern names.
fn complaints(name: &str, family: &Family) -> Vec<String> {
    let mut found = Vec::new();
    let kind = family.kind.as_deref().unwrap_or("none");
    let has_part = |part: &str| name.split('_').any(|one| one == part);
    if family.help.as_deref().unwrap_or_default().is_empty() {
        found.push("no help".to_owned());
    }
    if (kind == "counter") != name.ends_with("_total") {
        found.push(format!("{kind}, and `_total`: {}", name.ends_with("_total")));
    }
    if !matches!(kind, "histogram" | "summary") {
        let suffixes = ["_count", "_sum", "_bucket"].into_iter().filter(|suffix| name.ends_with(suffix));
        found.extend(suffixes.map(|suffix| format!("{kind} ends in `{suffix}`")));
    }
    for unit in ["milliseconds", "ms", "minutes", "hours", "days", "us", "ns", "kilobytes", "kb", "mb", "percent"] {
        if has_part(unit) {
            found.push(format!("`{unit}` is no base unit"));
        }
    }
    for kind in ["gauge", "counter", "histogram", "summary"] {
        if has_part(kind) {
            found.push(format!("`{kind}` is a type"));
        }
    }
    let is_snake = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !is_snake(name) || !family.labels.iter().all(|label| is_snake(label)) {
        found.push("not snake case".to_owned());
    }
    found
}

#[test]
fn new_names_follow_the_rules_and_the_kept_ones_break_a_fixed_list() {
    let mut kept = Vec::new();
    for (name, family) in families(&everything()) {
        let found = complaints(&name, &family);
        if name.starts_with("propulsion_") {
            kept.extend(found.into_iter().map(|complaint| format!("{name}: {complaint}")));
        } else {
            assert!(found.is_empty(), "{name}: {found:?}");
        }
    }
    let allowed = [
        "propulsion_feed_ingest_summary_seconds: `summary` is a type",
        "propulsion_feed_read_summary_seconds: `summary` is a type",
        "propulsion_scheduler_busy_count: gauge ends in `_count`",
        "propulsion_scheduler_cpu: counter, and `_total`: false",
        "propulsion_scheduler_handler_summary_seconds: `summary` is a type",
    ];
    assert_eq!(kept, allowed);
}

#[test]
fn r76_no_stream_is_a_label() {
    for (name, family) in families(&everything()) {
        for label in &family.labels {
            let known = [
                "pipeline", "group", "state", "kind", "activity", "le", "quantile", "source", "tranche", "unit",
                "stage", "hash", "name", "version", "outcome",
            ];
            assert!(known.contains(&label.as_str()), "{name} has the label `{label}`");
        }
    }
}
