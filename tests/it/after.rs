//! `after`: a pipeline that reads no further than another one has handled, through the program.

use std::io::Write as _;

use serde_json::Value;

use crate::daemon::{Daemon, Place, check, program, run, text};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn copying(to: &str, top: &str) -> String {
    format!("{top}[source.json]\npath = \"feed.jsonl\"\npoll = \"10ms\"\n[sink.file]\npath = \"{to}\"\n")
}

fn event(index: usize) -> String {
    format!("{{\"stream\":\"s-1\",\"index\":{index},\"type\":\"A\",\"data\":{{}}}}\n")
}

/// A place with the pipelines `first` and `second`, and two events.
fn place() -> Place {
    let feed = event(0) + event(1).as_str();
    let second = copying("second.jsonl", "after = \"first\"\n");
    Place::new(&[("first.toml", &copying("first.jsonl", "")), ("second.toml", &second), ("feed.jsonl", &feed)])
}

fn append(place: &Place, index: usize) {
    let mut feed = std::fs::File::options().append(true).open(place.path("pipelines/feed.jsonl")).unwrap();
    feed.write_all(event(index).as_bytes()).unwrap();
}

fn lines(place: &Place, name: &str) -> usize {
    std::fs::read_to_string(place.path(&format!("data/{name}.jsonl"))).unwrap_or_default().lines().count()
}

fn until_lines(place: &Place, daemon: &Daemon, name: &str, count: usize) {
    daemon.until("/livez", |_, _| lines(place, name) >= count);
    assert_eq!(lines(place, name), count, "{name}");
}

/// Waits until the pipeline `second` waits for this reason, and returns its details.
fn until_waiting(daemon: &Daemon, why: &str) -> Value {
    let body = daemon.until("/pipelines/second", |_, body| body.contains(why));
    serde_json::from_str(&body).unwrap()
}

#[test]
fn a_pipeline_waits_for_a_paused_one_and_says_so() {
    let place = place();
    let daemon = place.start(&[]);
    until_lines(&place, &daemon, "second", 2);
    let (status, body) = daemon.request("POST /pipelines/first/pause", &JSON, "{\"wait\":true}");
    assert_eq!(status, 200, "{body}");
    // A batch that was asked for before the pause is read, and handled after it.
    (2..10).for_each(|index| append(&place, index));
    let details = until_waiting(&daemon, "waits for the pipeline `first`");
    let waits_for = "tranche `0` waits for the pipeline `first`, which has handled this tranche up to feed.jsonl line 2; it is \
        paused: paused by the operator";
    assert_eq!(details["tranches"][0]["waits_for"], waits_for, "{details}");
    assert_eq!((&details["state"], &details["work"]["at_tail"]), (&"running".into(), &false.into()), "{details}");
    assert!(details["reason"].as_str().unwrap().ends_with(waits_for), "{details}");
    assert_eq!(lines(&place, "second"), 2);
    let health: Value = serde_json::from_str(&daemon.get("/health").1).unwrap();
    let second = health["pipelines"].as_array().unwrap().iter().find(|pipeline| pipeline["name"] == "second");
    assert_eq!(second.unwrap()["health"], "healthy", "{health}");
    let status = run(program().args(["--listen", &daemon.address, "status"]));
    check(&status, 0, &[&format!("\n  {waits_for}\n")]);
    daemon.request("POST /pipelines/first/resume", &JSON, "{}");
    until_lines(&place, &daemon, "second", 10);
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    // The first pipeline reads nothing after this start, and does not hold the second one's new group.
    place.write("second.toml", &copying("third.jsonl", "after = \"first\"\ngroup = \"third\"\n"));
    let daemon = place.start(&[]);
    until_lines(&place, &daemon, "third", 10);
}

#[test]
fn a_pipeline_whose_predecessor_is_removed_waits_until_it_is_back() {
    let place = place();
    let mut command = place.command(&[]);
    command.env("PROPULSIOND__WATCH", "off");
    let daemon = Daemon::start(command);
    until_lines(&place, &daemon, "second", 2);
    std::fs::remove_file(place.path("pipelines/first.toml")).unwrap();
    let reload = || -> Value { serde_json::from_str(&daemon.request("POST /reload", &JSON, "{}").1).unwrap() };
    let report = reload();
    let action = |report: &Value| -> Vec<Value> {
        report["pipelines"].as_array().unwrap().iter().map(|pipeline| pipeline["action"].clone()).collect()
    };
    assert_eq!(action(&report), ["stop", "refuse"], "{report}");
    assert!(report["pipelines"][1]["why"].as_str().unwrap().contains("there is no pipeline `first`"), "{report}");
    append(&place, 2);
    until_waiting(&daemon, "waits for the pipeline `first`, which does not run in this daemon");
    place.write("first.toml", &copying("first.jsonl", ""));
    let report = reload();
    assert_eq!(action(&report), ["start", "keep"], "{report}");
    until_lines(&place, &daemon, "second", 3);
    // Another order is a restart of the one pipeline.
    place.write("second.toml", &copying("second.jsonl", ""));
    let report = reload();
    assert_eq!(action(&report), ["keep", "restart"], "{report}");
    assert_eq!(report["pipelines"][1]["changed"], serde_json::json!(["after"]), "{report}");
}

#[test]
fn a_job_waits_for_the_other_one_and_ends_with_a_reason_without_it() {
    let place = place();
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &["finished: 2 events handled"]);
    assert_eq!(lines(&place, "second"), 2);
    append(&place, 2);
    let mut alone = program();
    alone.arg("--config").arg(place.path("pipelines/second.toml")).arg("--data-dir").arg(place.path("data"));
    let output = run(alone.args(["--listen", "off", "--until-tail"]));
    check(&output, 3, &["waits for the pipeline `first`, which does not run in this daemon"]);
    assert_eq!(lines(&place, "second"), 2, "{}", text(&output));
}
