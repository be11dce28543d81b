//! `diff` and the gate of a reload: two handlers are compared over the last events of a source.

use std::io::Write as _;
use std::process::Output;

use serde_json::{Value, json};

use crate::daemon::{Daemon, Place, check, program, run};

/// A pipeline over `feed.jsonl`.
fn pipeline() -> String {
    "[source.json]\npath = \"feed.jsonl\"\npoll = \"10ms\"\n[schedule]\ncommit_interval = \"50ms\"\n\
     [handler.rhai]\nscript = \"p.rhai\"\n[sink.file]\npath = \"out.jsonl\"\n"
        .to_owned()
}

/// A script that emits a line for each event, and throws at an index.
fn script(word: &str, fails_at: i64) -> String {
    format!(
        "fn handle_event(stream, event) {{\n    if event.index == {fails_at} {{ throw \"no\"; }}\n    \
         emit(#{{ word: \"{word}\", stream: stream.name, index: event.index }});\n}}\n"
    )
}

fn feed(streams: usize, indexes: std::ops::Range<usize>) -> String {
    let line = |stream: usize, index: usize| {
        format!("{{\"stream\":\"s-{stream}\",\"index\":{index},\"type\":\"A\",\"data\":{{}}}}\n")
    };
    indexes.flat_map(|index| (1..=streams).map(move |stream| line(stream, index))).collect()
}

fn place() -> Place {
    Place::new(&[("p.toml", &pipeline()), ("p.rhai", &script("one", 9)), ("feed.jsonl", &feed(2, 0..3))])
}

fn diff(place: &Place, arguments: &[&str]) -> Output {
    let mut command = program();
    command.args(["diff", "p", "--config"]).arg(place.path("pipelines")).arg("--data-dir").arg(place.path("data"));
    run(command.args(arguments).current_dir(place.path("")))
}

#[test]
fn equal_handlers_exit_with_0_and_touch_nothing() {
    let place = place();
    place.write("other.rhai", &script("one", 9));
    let output = diff(&place, &["--against", "pipelines/other.rhai"]);
    check(&output, 0, &["p against pipelines/other.rhai: the last 6 events of 2 streams", "the effects are equal"]);
    assert!(!place.path("data").exists());
    assert!(!place.path("pipelines/out.jsonl").exists());
}

#[test]
fn differences_are_shown_by_stream_and_event_and_exit_with_1() {
    let place = place();
    place.write(
        "other.rhai",
        "fn handle_event(stream, event) {\n    if event.index == 1 { throw \"no\"; }\n    \
         if stream.id == \"2\" && event.index == 2 { return; }\n    \
         emit(#{ word: \"one\", stream: stream.name, index: event.index });\n}\n",
    );
    let output = diff(&place, &["--against", "pipelines/other.rhai"]);
    let removed = "- 1: {\"index\":1,\"stream\":\"s-1\",\"word\":\"one\"}";
    check(&output, 1, &["s-1\n", removed, "new error at index 1 (transient): other.rhai:2:", "no (stream `s-1`"]);
    check(&output, 1, &["differences in 2 streams: 3 lines removed, 0 added, 2 new errors, 0 gone"]);
    let output = diff(&place, &["--against", "pipelines/other.rhai", "--json", "--last", "1"]);
    check(&output, 1, &[]);
    let compared: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&compared["equal"], &compared["comparison"]["events"]), (&json!(false), &json!(1)));
    assert_eq!(compared["comparison"]["differences"][0]["stream"], "s-2");
    assert_eq!(compared["comparison"]["differences"][0]["removed"].as_array().unwrap().len(), 1);
}

#[test]
fn another_pipeline_file_brings_its_own_filter_and_parameters() {
    let place = place();
    place.write("q.toml", &[&pipeline(), "[filter]\nexclude_streams = [\"s-2\"]\n"].concat());
    let output = diff(&place, &["--against", "pipelines/q.toml"]);
    check(&output, 1, &["s-2\n", "differences in 1 stream: 3 lines removed, 0 added, 0 new errors, 0 gone"]);
}

#[test]
fn wrong_files_exit_with_2_and_unreadable_sources_with_3() {
    let place = place();
    place.write("other.rhai", "fn handle_event(stream, event) { emit(event.index; }\n");
    check(&diff(&place, &["--against", "pipelines/other.rhai"]), 2, &["other.rhai:1:50"]);
    check(&diff(&place, &["--against", "pipelines/none.rhai"]), 2, &["there is no such file"]);
    check(&diff(&place, &["--against", "pipelines/feed.jsonl"]), 2, &["neither a pipeline file nor a script"]);
    place.write("q.toml", "[source.json]\npath = \"feed.jsonl\"\n[sink.null]\n");
    check(&diff(&place, &["--against", "pipelines/q.toml"]), 2, &["this pipeline has no script"]);
    place.write("other.rhai", &script("one", 9));
    std::fs::remove_file(place.path("pipelines/feed.jsonl")).unwrap();
    check(&diff(&place, &["--against", "pipelines/other.rhai"]), 3, &["feed.jsonl"]);
    place.write("p.toml", "[source.memory]\n[handler.rhai]\nscript = \"p.rhai\"\n[sink.null]\n");
    check(&diff(&place, &["--against", "pipelines/other.rhai"]), 3, &["source `memory` delivers each event only once"]);
}

#[test]
fn the_last_events_are_read_from_a_stored_position_near_the_tail() {
    let place = place();
    check(&place.run(&["--until-tail"]), 0, &["finished: "]);
    place.write("feed.jsonl", &feed(2, 0..5));
    place.write("other.rhai", &script("two", 9));
    let output = diff(&place, &["--against", "pipelines/other.rhai", "--last", "4", "--json"]);
    let compared: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&compared["comparison"]["events"], &compared["comparison"]["read"]), (&json!(4), &json!(4)));
    let output = diff(&place, &["--against", "pipelines/other.rhai", "--last", "3"]);
    check(&output, 1, &["the last 3 events of 2 streams of 4 events read"]);
    check(
        &diff(&place, &["--against", "pipelines/other.rhai", "--last", "10"]),
        1,
        &["the last 10 events of 2 streams\n"],
    );
}

fn gated(gate: &str) -> (Place, Daemon) {
    let place = place();
    let mut command = place.command(&[]);
    command.env("PROPULSIOND__WATCH", "off").env("PROPULSIOND__RELOAD__GATE", gate);
    let daemon = Daemon::start(command);
    daemon.until("/livez", |_, _| lines(&place) == 6);
    (place, daemon)
}

fn lines(place: &Place) -> usize {
    std::fs::read_to_string(place.path("data/out.jsonl")).unwrap_or_default().lines().count()
}

fn reload(daemon: &Daemon, body: &str) -> (u16, Value) {
    let (status, body) = daemon.request("POST /reload", &[("content-type", "application/json")], body);
    let report: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    (status, report["pipelines"][0].clone())
}

#[test]
fn a_gate_refuses_a_handler_with_new_errors_and_lets_other_effects_pass() {
    let (place, daemon) = gated("no-new-errors");
    place.write("p.rhai", &script("two", 1));
    let (status, planned) = reload(&daemon, "{\"dry_run\":true}");
    assert_eq!((status, &planned["action"]), (422, &json!("refuse")), "{planned}");
    let (status, refused) = reload(&daemon, "");
    assert_eq!((status, &refused["action"]), (422, &json!("refuse")), "{refused}");
    let why = refused["why"].as_str().unwrap();
    assert!(
        why.contains("the gate `no-new-errors` refuses the changed handler: stream `s-1` fails at index 1"),
        "{why}"
    );
    daemon.until("/health", |_, body| body.contains("\"degraded\"") && body.contains("the gate `no-new-errors`"));
    daemon.wait_for("change refused, the pipeline goes on as before");
    // The running pipeline goes on with its own handler.
    let mut more = std::fs::File::options().append(true).open(place.path("pipelines/feed.jsonl")).unwrap();
    more.write_all(feed(2, 3..4).as_bytes()).unwrap();
    daemon.until("/livez", |_, _| lines(&place) == 8);
    assert!(!place.read("data/out.jsonl").contains("two"));
    place.write("p.rhai", &script("two", 9));
    let (status, report) = reload(&daemon, "");
    assert_eq!((status, &report["action"]), (200, &json!("in_place")), "{report}");
    daemon.until("/health", |_, body| !body.contains("the gate"));
}

#[test]
fn a_gate_refuses_other_effects_also_if_the_pipeline_would_restart() {
    let (place, daemon) = gated("effects-equal");
    place.write("p.rhai", &script("two", 9));
    place.write("p.toml", &pipeline().replace("50ms", "60ms"));
    let (status, report) = reload(&daemon, "");
    assert_eq!((status, &report["action"]), (422, &json!("refuse")), "{report}");
    assert!(report["why"].as_str().unwrap().contains("stream `s-1` no longer emits `0: {"), "{report}");
    // A change of other settings is not compared, and equal effects pass.
    place.write("p.rhai", &script("one", 9));
    assert_eq!(reload(&daemon, "").1["action"], "restart");
    place.write("p.rhai", &[&script("one", 9), "fn unused() {}\n"].concat());
    assert_eq!(reload(&daemon, "").1["action"], "in_place");
}

#[test]
fn a_gate_that_cannot_read_the_source_refuses_the_handler() {
    let (place, daemon) = gated("no-new-errors");
    std::fs::rename(place.path("pipelines/feed.jsonl"), place.path("feed.jsonl")).unwrap();
    place.write("p.rhai", &script("two", 9));
    let (status, report) = reload(&daemon, "");
    assert_eq!(status, 422, "{report}");
    assert!(report["why"].as_str().unwrap().contains("the gate cannot compare the handlers"), "{report}");
}

#[test]
fn a_gate_lets_handlers_pass_whose_events_come_once_and_logs_it() {
    let place = Place::new(&[
        ("p.toml", "[source.memory]\n[handler.rhai]\nscript = \"p.rhai\"\n[sink.null]\n"),
        ("p.rhai", &script("one", 9)),
    ]);
    let mut command = place.command(&[]);
    command.env("PROPULSIOND__WATCH", "off").env("PROPULSIOND__RELOAD__GATE", "effects-equal");
    let daemon = Daemon::start(command);
    place.write("p.rhai", &script("two", 9));
    assert_eq!(reload(&daemon, "").1["action"], "in_place");
    daemon.wait_for("the gate lets the changed handler pass");
}
