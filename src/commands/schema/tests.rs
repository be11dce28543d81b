mod validate;

use std::collections::BTreeSet;
use std::path::Path;

use expect_test::{Expect, expect};

use super::*;
use crate::config::document::{Document, Format};
use crate::connector::SourceSpec;
use crate::spec::tests::accepted;
use validate::validate;

/// Calls `f` with every object schema's path, name and value of each property.
fn each_property(at: &str, schema: &Value, f: &mut impl FnMut(&str, &str, &Value)) {
    if let Some(Value::Object(properties)) = schema.get("properties") {
        properties.iter().for_each(|(name, value)| f(at, name, value));
    }
    match schema {
        Value::Object(entries) => {
            entries.iter().for_each(|(key, value)| each_property(&format!("{at}/{key}"), value, f));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| each_property(&format!("{at}/{index}"), value, f));
        }
        _ => {}
    }
}

fn each_object(at: &str, schema: &Value, f: &mut impl FnMut(&str, &serde_json::Map<String, Value>)) {
    match schema {
        Value::Object(entries) => {
            f(at, entries);
            entries.iter().for_each(|(key, value)| each_object(&format!("{at}/{key}"), value, f));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| each_object(&format!("{at}/{index}"), value, f));
        }
        _ => {}
    }
}

/// Every schema but that of tests, which belongs to another command.
fn both() -> [(&'static str, Value); 2] {
    [("pipeline", pipeline()), ("settings", settings())]
}

#[test]
fn every_setting_is_described_in_words_that_stand_alone() {
    for (name, schema) in both() {
        let mut seen = 0;
        each_property(name, &schema, &mut |at, key, value| {
            let text = value["description"].as_str().unwrap_or_default();
            assert!(text.len() > 10, "{at}: `{key}` is not described: {value}");
            // Links of rustdoc lead nowhere in an editor.
            assert!(!text.contains("](") && !text.contains("[`") && !text.contains("\n "), "{at}: `{key}`: {text}");
            assert!(text.ends_with(['.', '`']), "{at}: `{key}`: {text}");
            seen += 1;
        });
        assert!(seen > if name == "pipeline" { 80 } else { 7 }, "{name}: {seen} settings only");
    }
}

#[test]
fn r59_no_table_takes_keys_that_are_not_known() {
    for (name, schema) in both() {
        each_object(name, &schema, &mut |at, object| {
            if object.contains_key("properties") {
                assert_eq!(object.get("additionalProperties"), Some(&Value::Bool(false)), "{at}");
            }
        });
    }
}

#[test]
fn every_definition_has_a_name_of_its_own_and_is_used() {
    for (name, schema) in both() {
        let text = schema.to_string();
        for key in schema["$defs"].as_object().unwrap().keys() {
            assert!(!key.ends_with(|c: char| c.is_ascii_digit()) && key != "Settings", "{name}: {key}");
            assert!(text.contains(&format!("\"#/$defs/{key}\"")), "{name}: {key} is not used");
        }
        each_object(name, &schema, &mut |at, object| {
            if let Some(choices) = object.get("oneOf").or(object.get("enum")) {
                let is_described = |one: &Value| one.get("description").is_some() || one.get("$ref").is_some();
                let is_shape =
                    |one: &Value| one.get("required").is_some() || !one.is_object() || one.get("type").is_some();
                let choices = choices.as_array().unwrap();
                assert!(choices.iter().all(|one| is_described(one) || is_shape(one)), "{at}: {object:?}");
            }
            let nulls = object.get("default").is_some_and(Value::is_null);
            assert!(!nulls, "{at}");
        });
    }
}

/// Returns the names of the definitions that hold the settings of connectors.
fn connectors(schema: &Value) -> BTreeSet<&str> {
    let roles = ["SourceSpec", "CheckpointSpec", "SinkSpec"].iter();
    let kinds =
        roles.filter_map(|role| schema["$defs"][*role]["properties"].as_object()).flat_map(|kinds| kinds.values());
    kinds.filter_map(|kind| kind["$ref"].as_str()?.strip_prefix("#/$defs/")).collect()
}

/// Shows the defaults of a schema, without those of connectors: the reference pages show them.
fn check_defaults(schema: &Value, expected: Expect) {
    let (mut lines, connectors) = (BTreeSet::new(), connectors(schema));
    each_property("", schema, &mut |at, key, value| {
        let definition = at.trim_start_matches("/$defs/");
        if let Some(default) = value.get("default").filter(|_| !connectors.contains(definition)) {
            lines.insert(format!("{definition}.{key} = {default}\n"));
        }
    });
    expected.assert_eq(&lines.into_iter().collect::<String>());
}

#[test]
fn defaults_are_shown_as_a_file_has_them() {
    check_defaults(
        &settings(),
        expect![[r#"
            .data_dir = "data"
            .drain = "25s"
            .listen = "127.0.0.1:9464"
            .watch = "1s"
            LogSettings.format = "text"
            LogSettings.level = "info"
            LogSettings.stats_interval = "1m"
            OtlpSettings.sample = 0.01
            OtlpSettings.service_name = "propulsiond"
            OtlpSettings.timeout = "10s"
            ReloadSettings.gate = "none"
            ReloadSettings.gate_events = 1000
        "#]],
    );
    check_defaults(
        &pipeline(),
        expect![[r#"
            .stop = "never"
            ErrorsSpec.max_parked_bytes = "1GiB"
            ErrorsSpec.max_parked_events = 1000000
            ErrorsSpec.stuck_after = "5m"
            Filter.system = false
            Map.format = "json"
            OutageSpec.calls = 20
            OutageSpec.streams = 5
            RetrySpec.attempts = 10
            RetrySpec.initial = "100ms"
            RetrySpec.max = "30s"
            RhaiHandler.timeout = "30s"
            ScheduleSpec.commit_interval = "5s"
            ScheduleSpec.concurrency = 16
            ScheduleSpec.max_ahead_events = 1000000
            ScheduleSpec.max_events = 1000
            ScheduleSpec.order = "stream"
            ScheduleSpec.read_ahead = 10
            ScheduleSpec.read_ahead_bytes = "64MiB"
            ScheduleSpec.require_all = false
            ScheduleSpec.streams_per_call = 1
            ScriptLimits.array_items = 100000
            ScriptLimits.call_depth = 32
            ScriptLimits.emitted_bytes = 67108864
            ScriptLimits.expression_depth = 64
            ScriptLimits.functions = 1000
            ScriptLimits.map_entries = 100000
            ScriptLimits.memory_bytes = 268435456
            ScriptLimits.modules = 64
            ScriptLimits.operations = 10000000
            ScriptLimits.string_bytes = 16777216
            ScriptLimits.variables = 1000
        "#]],
    );
}

#[test]
fn a_source_is_exactly_one_and_words_may_stand_for_tables() {
    let schema = pipeline();
    let kinds: BTreeSet<_> = SourceSpec::KINDS.iter().copied().collect();
    let choices: Vec<_> = kinds.into_iter().map(|kind| serde_json::json!({ "required": [kind] })).collect();
    assert_eq!(schema["$defs"]["SourceSpec"]["oneOf"], Value::Array(choices));
    expect![[r##"
        {
          "description": "The store of the progress.",
          "oneOf": [
            {
              "const": "sink",
              "description": "In the sink's own transactions: exactly once. It goes with `sink.sqlite`."
            },
            {
              "$ref": "#/$defs/CheckpointSpec"
            }
          ],
          "title": "checkpoint"
        }"##]]
    .assert_eq(&serde_json::to_string_pretty(&schema["$defs"]["Checkpoint"]).unwrap());
    expect![[r##"
        {
          "description": "The time at which the pipeline ends by itself.",
          "oneOf": [
            {
              "const": "never",
              "description": "Never: it follows new events."
            },
            {
              "const": "tail",
              "description": "At the tail of each tranche: a finite job."
            },
            {
              "additionalProperties": false,
              "description": "After a time, as in `{ after = \"10m\" }`.",
              "properties": {
                "after": {
                  "$ref": "#/$defs/Duration",
                  "description": "The running time."
                }
              },
              "required": [
                "after"
              ],
              "type": "object"
            }
          ],
          "title": "stop"
        }"##]]
    .assert_eq(&serde_json::to_string_pretty(&schema["$defs"]["Stop"]).unwrap());
    expect![[r##"
        {
          "batch": {
            "default": 1000,
            "description": "The number of events in a batch.",
            "minimum": 1,
            "type": "integer"
          },
          "index": {
            "$ref": "#/$defs/JsonIndex",
            "default": "field",
            "description": "The origin of the events' indexes. Not with `map`, which has its own `index`."
          },
          "map": {
            "$ref": "#/$defs/Map",
            "description": "The mapping of foreign records to events. Left out: each line is an event, or an Equinox document."
          },
          "on_replaced": {
            "$ref": "#/$defs/OnReplaced",
            "default": "fail",
            "description": "The reaction to a file that was replaced, truncated or rewritten."
          },
          "path": {
            "$ref": "#/$defs/Text",
            "description": "The file, or the directory of files, relative to the pipeline's file. Files that end in `.gz` are decompressed. A named pipe or `/dev/stdin` is read once: it keeps no events for a restart.",
            "examples": [
              "events.jsonl"
            ]
          },
          "pattern": {
            "$ref": "#/$defs/Text",
            "description": "The names of the files in a directory to read, with `*` and `?`. Default: names that end in `.jsonl` or `.ndjson`, or in the usual endings of `map.format`, also with `.gz` behind. Names that start with a dot are never read."
          },
          "poll": {
            "$ref": "#/$defs/Duration",
            "default": "500ms",
            "description": "The time between two looks for more at the end."
          },
          "skip": {
            "default": 0,
            "description": "The number of lines to pass at the start of each file.",
            "minimum": 0,
            "type": "integer"
          },
          "sort": {
            "$ref": "#/$defs/JsonSort",
            "default": "name",
            "description": "The order of the files of a directory."
          },
          "tranche_per_file": {
            "default": false,
            "description": "Reads the files of a directory at the same time and independently of each other, instead of as one log. Each stream must be in one file.",
            "type": "boolean"
          }
        }"##]].assert_eq(&serde_json::to_string_pretty(&schema["$defs"]["JsonSource"]["properties"]).unwrap());
}

fn check_valid(schema: &Value, name: &str, text: &str, format: Format) {
    let document = Document::parse(Path::new(name), text.to_owned(), format).unwrap();
    let value = serde_json::to_value(&document.root).unwrap();
    assert_eq!(validate(schema, &value), Vec::<String>::new(), "{name}");
}

#[test]
fn the_files_that_are_accepted_and_their_normalised_forms_are_valid() {
    let schema = pipeline();
    for (name, text, format) in [("toml", accepted::TOML, Format::Toml), ("yaml", accepted::YAML, Format::Yaml)] {
        check_valid(&schema, name, text, format);
        let document = Document::parse(Path::new(name), text.to_owned(), format).unwrap();
        let mut normalised = serde_json::to_value(document.deserialize::<PipelineSpec>().unwrap()).unwrap();
        remove_nulls(&mut normalised);
        assert_eq!(validate(&schema, &normalised), Vec::<String>::new(), "{name}, normalised");
    }
    check_valid(&schema, "empty tables", "source:\n  memory:\nsink:\n  null:\nfilter:\n", Format::Yaml);
}

/// A default is `null` in the normalized form, and absent in a file.
fn remove_nulls(value: &mut Value) {
    if let Value::Object(entries) = value {
        entries.values_mut().for_each(remove_nulls);
        // A file either names a handler or has no such table.
        let is_empty = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
        entries.retain(|key, value| !(value.is_null() || key == "handler" && is_empty(value)));
    }
}

#[test]
fn every_shipped_file_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    let mut directories = vec![root.join("pipelines")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            match Format::of(&path) {
                _ if path.is_dir() => directories.push(path),
                Some(format) if !name.contains(".test.") => {
                    check_valid(&pipeline(), &name, &std::fs::read_to_string(&path).unwrap(), format);
                    seen += 1;
                }
                _ => {}
            }
        }
    }
    assert!(seen >= 2, "{seen} files only");
    let shipped = std::fs::read_to_string(root.join("config/propulsiond.toml")).unwrap();
    let is_setting = |rest: &&str| !rest.starts_with(' ');
    let all = shipped.lines().map(|line| line.strip_prefix('#').filter(is_setting).unwrap_or(line));
    check_valid(&settings(), "config", &all.collect::<Vec<_>>().join("\n"), Format::Toml);
    let defaults = serde_json::to_value(DaemonSettings::default()).unwrap();
    assert_eq!(validate(&settings(), &defaults), Vec::<String>::new());
}

#[test]
fn every_default_is_valid_where_it_stands() {
    for (name, schema) in both() {
        each_property(name, &schema, &mut |at, key, value| {
            let Some(default) = value.get("default") else { return };
            let mut root = value.clone();
            root["$defs"] = schema["$defs"].clone();
            assert_eq!(validate(&root, default), Vec::<String>::new(), "{at}: {key}");
        });
    }
}

#[test]
fn an_invalid_file_fails_the_schema() {
    for (text, why) in [
        ("[sink.null]", "required"),
        ("[source.memory]", "anyOf"),
        ("[source.memory]\n[source.generate]\n[sink.null]", "oneOf"),
        ("stop = 'now'\n[source.memory]\n[sink.null]", "oneOf"),
        ("[source.memory]\n[sink.null]\n[schedule]\ncommit_interval = '5 parsecs'", "pattern"),
        ("[source.memory]\n[sink.null]\n[schedule]\nconcurrency = 0", "minimum"),
        ("[source.memory]\n[sink.null]\n[scheduling]", "`scheduling` is not known"),
    ] {
        let document = Document::parse(Path::new("a"), text.to_owned(), Format::Toml).unwrap();
        let errors = validate(&pipeline(), &serde_json::to_value(&document.root).unwrap());
        assert!(errors.iter().any(|error| error.contains(why)), "{text}: {errors:?}");
    }
}
