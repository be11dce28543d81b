//! Parked streams: the commands over them, and a daemon that is killed while it retries them.

use std::process::Output;

use propulsiond::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Place, check, program, run, signal, text};

/// Streams of the kill test, each with ten events. `PROPULSIOND_PARKED=10000` takes more.
const STREAMS: usize = 1_000;
/// Kills while the streams are retried.
const KILLS: usize = 10;

const PIPELINE: &str = "
[source.json]
path = 'feed.jsonl'
poll = '10ms'

[schedule]
commit_interval = '50ms'

[errors]
retry = { initial = '1ms', max = '2ms', attempts = 2 }

[handler.rhai]
script = 'p.rhai'

[sink.file]
path = 'out.jsonl'
";

/// Fails at an event without a total.
const SCRIPT: &str = "
fn handle_event(stream, event) {
    if event.data.total == () { throw #{ class: \"permanent\", why: \"the total is missing\" }; }
    emit(`${stream.name}/${event.index}: ${event.data.total}`);
}
";

const FEED: &str = r#"{"stream":"order-1","index":0,"type":"Placed","data":{"total":1}}
{"stream":"order-2","index":0,"type":"Placed","data":{}}
{"stream":"order-2","index":1,"type":"Paid","data":{"total":2}}
{"stream":"item-1","index":0,"type":"Listed","data":{}}
"#;

fn place() -> Place {
    Place::new(&[("p.toml", PIPELINE), ("p.rhai", SCRIPT), ("feed.jsonl", FEED)])
}

/// Runs `parked` beside a running daemon, or on the store itself.
fn parked(place: &Place, daemon: Option<&Daemon>, arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("parked").args(arguments).arg("--config").arg(place.path("pipelines"));
    command.arg("--data-dir").arg(place.path("data")).current_dir(place.path("")).env("USER", "olga");
    if let Some(daemon) = daemon {
        command.args(["--listen", &daemon.address]);
    }
    run(&mut command)
}

fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

fn written(place: &Place) -> Vec<String> {
    let lines = std::fs::read_to_string(place.path("data/out.jsonl")).unwrap_or_default();
    lines.lines().map(|line| line.trim_matches('"').to_owned()).collect()
}

fn total(place: &Place, daemon: Option<&Daemon>) -> u64 {
    answer(&parked(place, daemon, &["list", "p", "--json"]))["total_streams"].as_u64().unwrap()
}

/// Waits for a condition.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let clock = Clock::start();
    while !holds() {
        assert!(clock.now().since(Timestamp::ZERO) < LIMIT, "{what} never held");
        std::thread::yield_now();
    }
}

#[test]
fn r38_r43_a_failing_stream_is_parked_by_default_and_the_others_go_on() {
    let place = place();
    // A job that leaves events parked has not handled everything.
    let said = ["stream parked", "the total is missing", "streams are parked: 2", "1 event handled", "3 parked"];
    check(&place.run(&["--until-tail"]), 1, &said);
    assert_eq!(written(&place), ["order-1/0: 1"]);
    let list = answer(&parked(&place, None, &["list", "p", "--json"]));
    assert_eq!((&list["total_streams"], &list["total_events"]), (&json!(2), &json!(3)));
    let item = &list["streams"][0];
    assert_eq!(
        (&item["stream"], &item["type"], &item["class"]),
        (&json!("item-1"), &json!("Listed"), &json!("permanent"))
    );
    check(
        &parked(&place, None, &["list", "p"]),
        0,
        &["order-2  parked since", "at event 0 (`Placed`)", "the total is missing"],
    );
}

#[test]
fn r40_the_filters_select_streams_by_what_is_known_of_them() {
    let place = place();
    check(&place.run(&["--until-tail"]), 1, &["finished: "]);
    for (filter, streams) in [
        (&["--stream", "order-2"][..], 1),
        (&["--category", "order"], 1),
        (&["--category", "nothing"], 0),
        (&["--type", "Listed"], 1),
        (&["--type", "Paid"], 0),
        (&["--error", "total is missing"], 2),
        (&["--error", "permanent"], 2),
        (&["--error", "timeout"], 0),
        (&["--older-than", "1h"], 0),
        (&["--state", "deferred"], 0),
        (&["--tranche", "0"], 2),
    ] {
        let list = answer(&parked(&place, None, &[&["list", "p", "--json"], filter].concat()));
        assert_eq!(list["total_streams"], json!(streams), "{filter:?}");
    }
    check(&parked(&place, None, &["list", "p", "--state", "broken"]), 1, &["expected `parked` or `deferred`"]);
    check(&parked(&place, None, &["list", "p", "--older-than", "soon"]), 1, &["`older_than`"]);
    let first = answer(&parked(&place, None, &["list", "p", "--json", "--limit", "1"]));
    assert_eq!((first["streams"].as_array().unwrap().len(), &first["more"]), (1, &json!(true)));
    let after = ["list", "p", "--json", "--after-tranche", "0", "--after-stream", "item-1"];
    assert_eq!(answer(&parked(&place, None, &after))["streams"][0]["stream"], json!("order-2"));
}

#[test]
fn r40_an_operator_shows_edits_retries_and_discards_beside_a_running_daemon() {
    let place = place();
    let daemon = place.start(&[]);
    until("two streams are parked", || total(&place, Some(&daemon)) == 2);
    let shown = parked(&place, Some(&daemon), &["show", "p", "order-2"]);
    check(&shown, 0, &["order-2  parked", "Placed", "Paid", r#"{"total":2}"#]);
    // A retry without a repair fails again, and says so.
    let failed = parked(&place, Some(&daemon), &["retry", "p", "--stream", "order-2", "--wait"]);
    check(&failed, 1, &["0 of 1 flow again, 0 left, 1 failed again", "by olga"]);
    place.write("fixed.json", r#"{"total": 7}"#);
    let fixed = place.path("pipelines/fixed.json").display().to_string();
    check(&parked(&place, Some(&daemon), &["edit", "p", "order-2", "--data", &fixed]), 0, &["edited; retry it"]);
    let retried = parked(&place, Some(&daemon), &["retry", "p", "--stream", "order-2", "--wait"]);
    check(&retried, 0, &["1 of 1 flow again"]);
    assert_eq!(written(&place), ["order-1/0: 1", "order-2/0: 7", "order-2/1: 2"]);
    let discarded = parked(&place, Some(&daemon), &["discard", "p", "--category", "item", "--wait"]);
    check(&discarded, 0, &["1 of 1 flow again"]);
    assert_eq!(total(&place, Some(&daemon)), 0);
    daemon.until("/metrics", |_, page| {
        page.contains("propulsiond_parked_events{pipeline=\"p\"} 0")
            && page.contains("propulsiond_retried_events_total{pipeline=\"p\"} 2")
    });
    check(&parked(&place, Some(&daemon), &["jobs", "p"]), 0, &["discard-", "retry-", "done, by olga"]);
    check(&parked(&place, Some(&daemon), &["show", "p", "order-2"]), 1, &["the stream `order-2` is not parked"]);
    check(&parked(&place, Some(&daemon), &["discard", "p"]), 1, &["--all"]);
    let (status, body) = daemon.request("GET /pipelines/p/parked?limt=3", &[], "");
    assert_eq!(status, 400);
    assert!(body.starts_with("{\"error\":") && body.contains("unknown field `limt`"), "{body}");
}

#[test]
fn r41_a_wait_for_a_job_ends_if_its_pipeline_does_not_run() {
    let place = place();
    let daemon = place.start(&[]);
    until("two streams are parked", || total(&place, Some(&daemon)) == 2);
    let headers = [("content-type", "application/json")];
    assert_eq!(daemon.request("POST /pipelines/p/pause", &headers, "{\"wait\": true}").0, 200);
    let waits = parked(&place, Some(&daemon), &["retry", "p", "--wait"]);
    check(&waits, 1, &["the pipeline `p` is paused", "goes on once it runs again"]);
}

#[test]
fn r41_a_request_without_a_daemon_is_acted_on_at_the_next_start() {
    let place = place();
    check(&place.run(&["--until-tail"]), 1, &["finished: "]);
    let dry = parked(&place, None, &["discard", "p", "--stream", "order-2", "--dry-run"]);
    check(&dry, 0, &["discard would concern 1 stream with 2 events"]);
    let requested = parked(&place, None, &["discard", "p", "--stream", "order-2"]);
    check(&requested, 0, &["at the next start of the pipeline"]);
    check(&parked(&place, None, &["retry", "p", "--wait"]), 1, &["no daemon answers"]);
    check(
        &place.run(&["--until-tail"]),
        0,
        &["parked event discarded", "job=\"discard-", "stream unparked", "finished: "],
    );
    assert_eq!(written(&place), ["order-1/0: 1", "order-2/1: 2"]);
    check(&parked(&place, None, &["retry", "p", "--stream", "order-2"]), 0, &["nothing is selected"]);
}

#[test]
fn c32_a_corrected_script_retries_the_parked_streams_by_itself() {
    let place = place();
    let daemon = place.start(&[]);
    until("two streams are parked", || total(&place, Some(&daemon)) == 2);
    place
        .write("p.rhai", &SCRIPT.replace("throw #{ class: \"permanent\", why: \"the total is missing\" };", "return;"));
    until("nothing is parked", || total(&place, Some(&daemon)) == 0);
    until("the later event is written", || written(&place) == ["order-1/0: 1", "order-2/1: 2"]);
}

#[test]
fn a_handler_that_defers_for_long_is_listed_by_its_due_time_and_is_no_trouble() {
    let place = place();
    let script = "
fn handle(stream, events) {
    if stream.name == \"order-2\" { return defer(\"2h\"); }
    if stream.name == \"item-1\" { return defer(\"1h\"); }
}
";
    place.write("p.rhai", script);
    let daemon = place.start(&[]);
    let deferred = || {
        let (status, body) = daemon.request("GET /pipelines/p/streams?state=deferred", &[], "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    until("two streams are deferred", || deferred()["total_streams"] == json!(2));
    let names = deferred()["streams"].as_array().unwrap().iter().map(|of| of["stream"].clone()).collect::<Vec<_>>();
    assert_eq!(names, [json!("item-1"), json!("order-2")], "the earliest due comes first");
    daemon.until("/health", |status, body| status == 200 && body.contains("\"health\":\"healthy\""));
    // The progress passes them, and a request names their state.
    check(&parked(&place, Some(&daemon), &["retry", "p"]), 0, &["nothing is selected"]);
    place.write("p.rhai", "fn handle_event(stream, event) { emit(`${stream.name}/${event.index}`); }");
    check(&parked(&place, Some(&daemon), &["list", "p", "--state", "deferred"]), 0, &["due 20"]);
    daemon.wait_for("pipeline changed while it runs");
    let retried = parked(&place, Some(&daemon), &["retry", "p", "--state", "deferred", "--wait"]);
    check(&retried, 0, &["2 of 2 flow again"]);
}

/// Returns a feed of many streams, of which each fails at its first event.
fn many(streams: usize) -> String {
    let events = (0..10).flat_map(|index| (0..streams).map(move |stream| (stream, index)));
    let line =
        |(stream, index)| format!("{{\"stream\":\"s-{stream}\",\"index\":{index},\"type\":\"T\",\"data\":{{}}}}\n");
    events.map(line).collect()
}

const TABLE: &str = "
checkpoint = 'sink'

[source.json]
path = 'feed.jsonl'
poll = '10ms'

[handler.rhai]
script = 'p.rhai'

[sink.sqlite]
path = 'table.db'
init = ['CREATE TABLE IF NOT EXISTS effects (number INTEGER PRIMARY KEY, stream TEXT NOT NULL, idx INTEGER NOT NULL)']
";

#[test]
fn c21_a_daemon_that_is_killed_while_it_retries_loses_and_doubles_nothing() {
    let streams = std::env::var("PROPULSIOND_PARKED").map_or(STREAMS, |text| text.parse().expect("a number"));
    let place = Place::new(&[
        ("p.toml", TABLE),
        ("p.rhai", "fn handle_event(stream, event) { throw #{ class: \"permanent\", why: \"not yet\" }; }"),
        ("feed.jsonl", &many(streams)),
    ]);
    check(&place.run(&["--until-tail"]), 1, &["finished: "]);
    assert_eq!(total(&place, None), streams as u64);
    place.write(
        "p.rhai",
        "fn handle_event(stream, event) {
            emit(#{ sql: \"INSERT INTO effects (stream, idx) VALUES (?1, ?2)\", params: [stream.name, event.index] });
        }",
    );
    let rows = || {
        let database = rusqlite::Connection::open(place.path("data/table.db")).unwrap();
        let mut statement = database.prepare("SELECT stream, idx FROM effects ORDER BY number").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..KILLS {
        let before = rows().len();
        if before == streams * 10 {
            break;
        }
        let daemon = place.start(&[]);
        let more = before + random.usize(1..streams);
        until("more effects are written", || rows().len() >= more.min(streams * 10));
        signal(daemon.id(), "KILL");
        drop(daemon);
    }
    check(&place.run(&["--until-tail"]), 0, &["finished: "]);
    let rows = rows();
    let mut next = std::collections::BTreeMap::new();
    for (stream, index) in &rows {
        let expected = next.entry(stream.clone()).or_insert(0);
        assert_eq!(index, expected, "the effects of `{stream}` are in order, and each is there once");
        *expected += 1;
    }
    assert_eq!(rows.len(), streams * 10);
    assert_eq!(total(&place, None), 0);
}
