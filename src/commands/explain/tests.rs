mod delivery;
mod errors;
mod flow;

use std::path::Path;

use expect_test::{Expect, ExpectFile, expect, expect_file};

use super::*;
use crate::spec::{check, load_file};

/// Explains a file `a.toml` of a directory with a script `ok.rhai` in it; paths are relative to that directory.
fn explained(text: &str) -> (Explanation, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.toml");
    std::fs::write(&file, text).unwrap();
    let script =
        if text.contains("streams_per_call") { "fn handle_batch(spans) {}" } else { "fn handle(stream, events) {}" };
    std::fs::write(directory.path().join("ok.rhai"), script).unwrap();
    std::fs::write(directory.path().join("event.rhai"), "fn handle_event(stream, event) {}").unwrap();
    let upcast = "fn upcast(event) { event }\nfn handle_event(stream, event) {}";
    std::fs::write(directory.path().join("upcast.rhai"), upcast).unwrap();
    std::fs::write(directory.path().join("in.jsonl"), "").unwrap();
    let loaded = load_file(&file).unwrap();
    let outcome = check(vec![loaded], &directory.path().join("data")).unwrap_or_else(|problems| panic!("{problems:?}"));
    let (definition, script) = outcome.scripts().next().unwrap();
    let explanation = explain(definition, script);
    let shown = explanation.render().replace(&format!("{}/", directory.path().display()), "");
    (explanation, shown)
}

/// Compares a whole explanation with a file.
fn check_whole(text: &str, expected: ExpectFile) {
    expected.assert_eq(&explained(text).1);
}

fn check_values(text: &str, expected: Expect) {
    let (_, shown) = explained(text);
    expected.assert_eq(&outdented(shown.split("their origin\n").nth(1).unwrap()));
}

/// Snapshots lose the indent that all their lines have in common.
fn outdented(lines: &str) -> String {
    lines.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect()
}

/// Returns one part of an explanation, by its name.
fn part(text: &str, about: &str) -> String {
    let (explanation, _) = explained(text);
    let json: serde_json::Value = serde_json::from_str(&explanation.to_json()).unwrap();
    let words = json["words"].as_array().unwrap().iter().find(|paragraph| paragraph["about"] == about);
    let text = words.map_or(&json["delivery"][about], |paragraph| &paragraph["text"]);
    text.as_str().unwrap_or_else(|| panic!("there is no `{about}`")).to_owned()
}

fn check_part(text: &str, about: &str, expected: Expect) {
    let mut lines = String::new();
    wrap("", &part(text, about), &mut lines);
    expected.assert_eq(&outdented(&lines));
}

const JSON: &str = "[source.json]\npath = 'in.jsonl'\n";
const SCRIPT: &str = "[handler.rhai]\nscript = 'ok.rhai'\n";

#[test]
fn the_defaults_are_explained() {
    check_whole(&format!("{JSON}[sink.stdout]\n"), expect_file!["tests/defaults.txt"]);
}

#[test]
fn r63_references_are_shown_as_written_and_secrets_are_masked() {
    let text = "group = '${PROPULSIOND_TEST_UNSET:-resolved-secret}'\n\
        [source.json]\npath = '${PROPULSIOND_TEST_UNSET:-in}.jsonl'\n\
        [schedule]\ncommit_interval = '${PROPULSIOND_TEST_UNSET:-7s}'\n\
        [handler.rhai]\nscript = 'ok.rhai'\n\
        params = { api_key = 'literal-secret', list = ['https://u:literal-secret@h/', 'plain'], a.token = '${PROPULSIOND_TEST_UNSET:-}' }\n\
        [sink.http]\nurl = 'http://h/?key=literal-secret'\nheaders = { X-Key = 'literal-secret' }\n\
        auth = { basic = { user = 'u', password = 'literal-secret' } }\nproxy = 'http://u:literal-secret@p'\n";
    let (explanation, shown) = explained(text);
    let json = explanation.to_json();
    for all in [&shown, &json] {
        assert!(!all.contains("literal-secret") && !all.contains("7 seconds"), "{all}");
        assert!(all.contains("every `${PROPULSIOND_TEST_UNSET:-7s}`"), "{all}");
    }
    check_values(
        text,
        expect![[r#"
            group = "${PROPULSIOND_TEST_UNSET:-resolved-secret}"         # a.toml:1
            source_id = "json"                                           # default: the source's kind
            stop = "never"                                               # default
            source.json.path = "${PROPULSIOND_TEST_UNSET:-in}.jsonl"     # a.toml:3
            source.json.pattern = none                                   # default: those that end in `.jsonl` or `.ndjson`, also with `.gz` behind
            source.json.sort = "name"                                    # default
            source.json.tranche_per_file = false                         # default
            source.json.index = "field"                                  # default
            source.json.skip = 0                                         # default
            source.json.on_replaced = "fail"                             # default
            source.json.batch = 1000                                     # default
            source.json.poll = "500ms"                                   # default
            checkpoint.sqlite.path = "propulsiond.db"                    # default: no store is named
            checkpoint.sqlite.synchronous = "full"                       # default
            checkpoint.sqlite.busy_timeout = "5s"                        # default
            filter.categories = []                                       # default: any
            filter.exclude_categories = []                               # default: none
            filter.streams = []                                          # default: any
            filter.exclude_streams = []                                  # default: none
            filter.events = []                                           # default: any
            filter.exclude_events = []                                   # default: none
            filter.system = false                                        # default
            schedule.order = "stream"                                    # default
            schedule.streams_per_call = 1                                # default
            schedule.concurrency = 16                                    # default
            schedule.read_ahead = 10                                     # default
            schedule.read_ahead_bytes = "64MiB"                          # default
            schedule.max_ahead_events = 1000000                          # default
            schedule.max_events = 1000                                   # default
            schedule.max_bytes = none                                    # default: no limit
            schedule.commit_interval = "${PROPULSIOND_TEST_UNSET:-7s}"   # a.toml:5
            schedule.require_all = false                                 # default
            schedule.write_positions = false                             # default: kept only where the sink holds the progress
            schedule.purge = none                                        # default: never
            errors.retry.initial = "100ms"                               # default
            errors.retry.max = "30s"                                     # default
            errors.retry.attempts = 10                                   # default
            errors.then = "park"                                         # default: `park` if the store keeps parked events durably
            errors.stuck_after = "5m"                                    # default
            errors.outage.calls = 20                                     # default
            errors.outage.streams = 5                                    # default
            errors.max_parked_events = 1000000                           # default
            errors.max_parked_bytes = "1GiB"                             # default
            handler.rhai.script = "ok.rhai"                              # a.toml:7
            handler.rhai.params.a.token = "${PROPULSIOND_TEST_UNSET:-}"  # a.toml:8
            handler.rhai.params.api_key = "**************"               # a.toml:8
            handler.rhai.params.list = ["https://u:**************@h/","plain"]  # a.toml:8
            handler.rhai.timeout = "30s"                                 # default
            handler.rhai.threads = none                                  # default: as many as there are cores, at most `schedule.concurrency`
            handler.rhai.limits.operations = 10000000                    # default
            handler.rhai.limits.memory_bytes = 268435456                 # default
            handler.rhai.limits.call_depth = 32                          # default
            handler.rhai.limits.expression_depth = 64                    # default
            handler.rhai.limits.string_bytes = 16777216                  # default
            handler.rhai.limits.array_items = 100000                     # default
            handler.rhai.limits.map_entries = 100000                     # default
            handler.rhai.limits.variables = 1000                         # default
            handler.rhai.limits.functions = 1000                         # default
            handler.rhai.limits.modules = 64                             # default
            handler.rhai.limits.emitted_bytes = 67108864                 # default
            sink.http.url = "http://h/?…"                                # a.toml:10
            sink.http.path = none                                        # default: the url's own path alone
            sink.http.per = "event"                                      # default
            sink.http.method = "POST"                                    # default
            sink.http.headers.X-Key = "<secret>"                         # a.toml:11
            sink.http.auth.basic.user = "u"                              # a.toml:12
            sink.http.auth.basic.password = "<secret>"                   # a.toml:12
            sink.http.timeout = "30s"                                    # default
            sink.http.connect_timeout = "5s"                             # default
            sink.http.success = ["2xx"]                                  # default
            sink.http.permanent = ["4xx"]                                # default
            sink.http.max_body = "10MiB"                                 # default
            sink.http.trace_context = true                               # default
            sink.http.proxy = "<secret>"                                 # a.toml:13
        "#]],
    );
}

#[test]
fn every_value_of_the_normalised_form_has_its_line() {
    let text = format!(
        "{JSON}tranche_per_file = true\n{SCRIPT}params = {{ vat = 0.2 }}\n[sink.sqlite]\ninit = ['CREATE TABLE a (b)']\n[schedule]\nwrite_positions = true\n"
    );
    check_values(
        &text,
        expect![[r#"
            group = "a"                                   # default: the pipeline's name
            source_id = "json"                            # default: the source's kind
            stop = "never"                                # default
            source.json.path = "in.jsonl"                 # a.toml:2
            source.json.pattern = none                    # default: those that end in `.jsonl` or `.ndjson`, also with `.gz` behind
            source.json.sort = "name"                     # default
            source.json.tranche_per_file = true           # a.toml:3
            source.json.index = "field"                   # default
            source.json.skip = 0                          # default
            source.json.on_replaced = "fail"              # default
            source.json.batch = 1000                      # default
            source.json.poll = "500ms"                    # default
            checkpoint.sqlite.path = "propulsiond.db"     # default: no store is named
            checkpoint.sqlite.synchronous = "full"        # default
            checkpoint.sqlite.busy_timeout = "5s"         # default
            filter.categories = []                        # default: any
            filter.exclude_categories = []                # default: none
            filter.streams = []                           # default: any
            filter.exclude_streams = []                   # default: none
            filter.events = []                            # default: any
            filter.exclude_events = []                    # default: none
            filter.system = false                         # default
            schedule.order = "stream"                     # default
            schedule.streams_per_call = 1                 # default
            schedule.concurrency = 16                     # default
            schedule.read_ahead = 10                      # default
            schedule.read_ahead_bytes = "64MiB"           # default
            schedule.max_ahead_events = 1000000           # default
            schedule.max_events = 1000                    # default
            schedule.max_bytes = none                     # default: no limit
            schedule.commit_interval = "5s"               # default
            schedule.require_all = false                  # default
            schedule.write_positions = true               # a.toml:10: without effect: kept only where the sink holds the progress, with `order = "stream"`
            schedule.purge = none                         # default: never
            errors.retry.initial = "100ms"                # default
            errors.retry.max = "30s"                      # default
            errors.retry.attempts = 10                    # default
            errors.then = "park"                          # default: `park` if the store keeps parked events durably
            errors.stuck_after = "5m"                     # default
            errors.outage.calls = 20                      # default
            errors.outage.streams = 5                     # default
            errors.max_parked_events = 1000000            # default
            errors.max_parked_bytes = "1GiB"              # default
            handler.rhai.script = "ok.rhai"               # a.toml:5
            handler.rhai.params.vat = 0.2                 # a.toml:6
            handler.rhai.timeout = "30s"                  # default
            handler.rhai.threads = none                   # default: as many as there are cores, at most `schedule.concurrency`
            handler.rhai.limits.operations = 10000000     # default
            handler.rhai.limits.memory_bytes = 268435456  # default
            handler.rhai.limits.call_depth = 32           # default
            handler.rhai.limits.expression_depth = 64     # default
            handler.rhai.limits.string_bytes = 16777216   # default
            handler.rhai.limits.array_items = 100000      # default
            handler.rhai.limits.map_entries = 100000      # default
            handler.rhai.limits.variables = 1000          # default
            handler.rhai.limits.functions = 1000          # default
            handler.rhai.limits.modules = 64              # default
            handler.rhai.limits.emitted_bytes = 67108864  # default
            sink.sqlite.path = "projections.db"           # default
            sink.sqlite.synchronous = "full"              # default
            sink.sqlite.init = ["CREATE TABLE a (b)"]     # a.toml:8
            sink.sqlite.table = "events"                  # default
            sink.sqlite.busy_timeout = "5s"               # default
            sink.sqlite.cache = "64MiB"                   # default
            sink.sqlite.log = "128MiB"                    # default
        "#]],
    );
    let (explanation, _) = explained(&text);
    let json: serde_json::Value = serde_json::from_str(&explanation.to_json()).unwrap();
    assert_eq!((&json["name"], &json["delivery"]["guarantee"]), (&"a".into(), &"at_least_once".into()));
    let value =
        |path: &str| json["values"].as_array().unwrap().iter().find(|value| value["path"] == path).unwrap().clone();
    assert_eq!(value("source.json.tranche_per_file")["from"]["line"], 3);
    assert_eq!(
        value("schedule.concurrency"),
        serde_json::json!({ "path": "schedule.concurrency", "value": 16, "from": "default" })
    );
    let params = value("handler.rhai.params.vat");
    assert_eq!((&params["value"], &params["from"]["line"]), (&0.2.into(), &6.into()));
}

#[test]
fn the_shipped_pipelines_are_explained() {
    for name in ["orders", "notices"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("pipelines/{name}.toml"));
        let outcome = check(vec![load_file(&file).unwrap()], Path::new("data")).map_err(|_| name).unwrap();
        let (definition, script) = outcome.scripts().next().unwrap();
        let shown = explain(definition, script).render().replace(&format!("{}/", env!("CARGO_MANIFEST_DIR")), "");
        expect_file![format!("tests/{name}.txt")].assert_eq(&shown);
    }
}
