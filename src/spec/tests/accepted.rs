//! Valid files and their parsed values.

use std::path::Path;

use expect_test::expect;
use proptest::prelude::*;

use super::{Files, PipelineSpec, ScheduleSpec, load, load_file};
use crate::config::document::{Document, Format};

pub(crate) const TOML: &str = r#"
group = "orders-v1"
stop = { after = "10m" }
checkpoint = "sink"

[source.json]
path = "${PROPULSIOND_TEST_UNSET:-events}"
index = "line"

[filter]
categories = ["order"]
exclude_events = ["/Viewed$/"]

[schedule]
order = "tranche"
concurrency = 64
max_bytes = "1MiB"
purge = "1h"

[errors]
retry = { initial = "1s", attempts = "unlimited" }
then = "skip"

[handler.rhai]
script = "ok.rhai"
params = { vat = 0.2, names = ["a", "b"], nested = { on = true, n = 3 } }

[sink.sqlite]
path = "orders.db"
init = ["CREATE TABLE orders (id)"]
"#;

pub(crate) const YAML: &str = r#"
group: orders-v1
stop: { after: 10m }
checkpoint: sink
source:
  json: { path: "${PROPULSIOND_TEST_UNSET:-events}", index: line }
filter:
  categories: [order]
  exclude_events:
    - /Viewed$/
schedule:
  order: tranche
  concurrency: 64
  max_bytes: 1MiB
  purge: 1h
errors:
  retry: { initial: 1s, attempts: unlimited }
  then: skip
handler:
  rhai:
    script: ok.rhai
    params: { vat: 0.2, names: [a, b], nested: { on: true, n: 3 } }
sink:
  sqlite:
    path: orders.db
    init: [CREATE TABLE orders (id)]
"#;

fn spec(text: &str, format: Format) -> PipelineSpec {
    Document::parse(Path::new("a"), text.to_owned(), format).unwrap().deserialize().unwrap()
}

#[test]
fn both_formats_say_the_same() {
    let toml = spec(TOML, Format::Toml);
    assert_eq!(toml, spec(YAML, Format::Yaml));
    expect![[r#"
        {
          "group": "orders-v1",
          "stop": {
            "after": "10m"
          },
          "source": {
            "json": {
              "path": "${PROPULSIOND_TEST_UNSET:-events}",
              "pattern": null,
              "sort": "name",
              "tranche_per_file": false,
              "index": "line",
              "skip": 0,
              "on_replaced": "fail",
              "batch": 1000,
              "poll": "500ms"
            }
          },
          "checkpoint": "sink",
          "filter": {
            "categories": [
              "order"
            ],
            "exclude_events": [
              "/Viewed$/"
            ],
            "system": false
          },
          "schedule": {
            "order": "tranche",
            "streams_per_call": 1,
            "concurrency": 64,
            "read_ahead": 10,
            "read_ahead_bytes": "64MiB",
            "max_ahead_events": 1000000,
            "max_events": 1000,
            "max_bytes": "1MiB",
            "commit_interval": "5s",
            "require_all": false,
            "purge": "1h"
          },
          "errors": {
            "retry": {
              "initial": "1s",
              "max": "30s",
              "attempts": "unlimited"
            },
            "then": "skip",
            "stuck_after": "5m",
            "outage": {
              "calls": 20,
              "streams": 5
            },
            "max_parked_events": 1000000,
            "max_parked_bytes": "1GiB"
          },
          "handler": {
            "rhai": {
              "script": "ok.rhai",
              "params": {
                "names": [
                  "a",
                  "b"
                ],
                "nested": {
                  "n": 3,
                  "on": true
                },
                "vat": 0.2
              },
              "timeout": "30s",
              "threads": null,
              "limits": {
                "operations": 10000000,
                "memory_bytes": 268435456,
                "call_depth": 32,
                "expression_depth": 64,
                "string_bytes": 16777216,
                "array_items": 100000,
                "map_entries": 100000,
                "variables": 1000,
                "functions": 1000,
                "modules": 64,
                "emitted_bytes": 67108864
              }
            }
          },
          "sink": {
            "sqlite": {
              "path": "orders.db",
              "synchronous": "full",
              "init": [
                "CREATE TABLE orders (id)"
              ],
              "table": "events",
              "busy_timeout": "5s",
              "cache": "64MiB",
              "log": "128MiB"
            }
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&toml).unwrap());
}

#[test]
fn r49_the_normalised_form_reads_back_as_the_same() {
    for (text, format) in [(TOML, Format::Toml), ("", Format::Toml), ("sink: {stdout: }", Format::Yaml)] {
        let spec = spec(text, format);
        let again = serde_json::from_str::<PipelineSpec>(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }
}

#[test]
fn the_defaults_are_those_of_the_design() {
    expect![[r#"
        {
          "stop": "never",
          "source": {},
          "checkpoint": {},
          "filter": {
            "system": false
          },
          "schedule": {
            "order": "stream",
            "streams_per_call": 1,
            "concurrency": 16,
            "read_ahead": 10,
            "read_ahead_bytes": "64MiB",
            "max_ahead_events": 1000000,
            "max_events": 1000,
            "commit_interval": "5s",
            "require_all": false
          },
          "errors": {
            "retry": {
              "initial": "100ms",
              "max": "30s",
              "attempts": 10
            },
            "stuck_after": "5m",
            "outage": {
              "calls": 20,
              "streams": 5
            },
            "max_parked_events": 1000000,
            "max_parked_bytes": "1GiB"
          },
          "handler": {},
          "sink": {}
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&spec("", Format::Toml)).unwrap());
    assert_eq!(ScheduleSpec::default(), spec("[schedule]", Format::Toml).schedule);
}

#[test]
fn an_empty_yaml_value_chooses_a_kind_with_its_defaults() {
    let spec = spec("source:\n  memory:\nsink:\n  null:\nfilter:\n", Format::Yaml);
    assert!(spec.source.memory.is_some() && spec.sink.null.is_some());
}

#[test]
fn durations_and_sizes_may_hold_spaces() {
    let schedule = spec("schedule:\n  commit_interval: 1m 5 s\n  max_bytes: 2 MiB\n", Format::Yaml).schedule;
    assert_eq!((schedule.commit_interval.as_secs(), schedule.max_bytes), (65, Some(2 << 20)));
}

#[test]
fn words_that_older_yaml_takes_for_booleans_are_words() {
    assert_eq!(spec("group: no", Format::Yaml).group.as_deref(), Some("no"));
    assert_eq!(spec("group: 'on'", Format::Yaml).group.as_deref(), Some("on"));
}

#[test]
fn anchors_and_merges_are_followed() {
    let yaml = "source:\n  json: &json {path: a}\nsink:\n  file:\n    <<: *json\n    fsync: never\n";
    let spec = spec(yaml, Format::Yaml);
    assert_eq!(spec.sink.file.unwrap().path.unwrap().written(), "a");
}

#[test]
fn a_pipeline_is_named_by_its_file_and_keyed_by_group_and_source() {
    let files = Files::new(&[
        ("a.toml", b"[source.generate]\n[sink.null]\n"),
        ("b.toml", b"group = 'g'\nsource_id = 's'\n[source.generate]\n[sink.null]\n"),
    ]);
    let loaded = load(&[files.directory()]).unwrap();
    let defined: Vec<_> = loaded.into_iter().map(|loaded| crate::spec::define(loaded).unwrap()).collect();
    let keys: Vec<_> = defined.iter().map(|it| (it.name(), it.group(), it.source_id())).collect();
    assert_eq!(keys, [("a", "a", "generate".to_owned()), ("b", "g", "s".to_owned())]);
    assert_eq!(defined[0].loaded.directory(), files.directory());
}

#[test]
fn r61_missing_variables_leave_holes_where_that_is_asked_for() {
    let text = "group = '${PROPULSIOND_TEST_UNSET}'\n[source.json]\npath = 'x${PROPULSIOND_TEST_UNSET}'\n\
        poll = '${PROPULSIOND_TEST_UNSET}'\n[handler.rhai]\nscript = '${PROPULSIOND_TEST_UNSET}'\n";
    let files = Files::new(&[("a.toml", text.as_bytes())]);
    assert_eq!(files.problems(&files.directory()).len(), 4, "one for each that refers to it");
    crate::config::scalar::allowing_missing(|| {
        assert_eq!(files.problems(&files.directory()), []);
        std::fs::write(files.directory().join("b.toml"), text.replace("group = '${", "group = '${OTHER_")).unwrap();
        assert_eq!(files.problems(&files.directory()), [], "two unknown groups are not the same one");
        let loaded = load_file(&files.directory().join("a.toml")).unwrap();
        assert!(loaded.normalised().contains("x${PROPULSIOND_TEST_UNSET}"), "r63: shown as written");
    });
}

#[test]
fn r64_the_value_of_a_reference_never_changes_the_structure() {
    let files = Files::new(&[("secret", b"a'\nstop = 'tail'\n[sink.stdout]")]);
    let reference = format!("${{file:{}}}", files.directory().join("secret").display());
    for (text, format) in
        [(format!("group = '{reference}'"), Format::Toml), (format!("group: {reference}"), Format::Yaml)]
    {
        let spec = spec(&text, format);
        assert_eq!(spec.group.as_deref(), Some("a'\nstop = 'tail'\n[sink.stdout]"));
        assert!(spec.stop == super::Stop::Never && spec.sink.stdout.is_none());
    }
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "[\\PC\n\t]{0,80}", cut in 0..900_usize, yaml: bool) {
        let format = if yaml { Format::Yaml } else { Format::Toml };
        let valid = if yaml { YAML } else { TOML };
        let at = (0..=cut.min(valid.len())).rev().find(|at| valid.is_char_boundary(*at)).unwrap_or(0);
        for text in [text.clone(), format!("{}{text}{}", &valid[..at], &valid[at..])] {
            let Ok(document) = Document::parse(Path::new("a"), text, format) else { continue };
            if let Err(problems) = document.deserialize::<PipelineSpec>() {
                prop_assert!(!problems.is_empty());
                problems.iter().for_each(|problem| drop(problem.render(crate::config::document::Style::Colour)));
            }
        }
    }
}
