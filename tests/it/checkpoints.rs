//! `checkpoint`: the progress of a pipeline is shown, moved, and moved back.

use std::process::Output;

use serde_json::Value;

use crate::daemon::{Place, check, program, run, text};

const FEED: &str = "{\"stream\":\"a-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n\
    {\"stream\":\"a-2\",\"index\":0,\"type\":\"A\",\"data\":{}}\n";

/// A place in which the pipeline `p` has written a line for each of two events. `store` chooses the store.
fn after_a_run(store: &str) -> Place {
    let file =
        format!("{store}[source.json]\npath = \"feed.jsonl\"\npoll = \"10ms\"\n[sink.file]\npath = \"out.jsonl\"\n");
    let place = Place::new(&[("p.toml", &file), ("feed.jsonl", FEED)]);
    check(&place.run(&["--until-tail"]), 0, &["finished: "]);
    assert_eq!(written(&place), 2);
    place
}

fn written(place: &Place) -> usize {
    place.read("data/out.jsonl").lines().count()
}

fn checkpoint(place: &Place, arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("checkpoint").args(arguments).arg("--config").arg(place.path("pipelines"));
    run(command.arg("--data-dir").arg(place.path("data")).current_dir(place.path("")))
}

/// The stores that outlive a process.
const STORES: [&str; 2] = ["", "[checkpoint.file]\n"];

#[test]
fn progress_is_reset_and_the_reset_undone() {
    for store in STORES {
        let place = after_a_run(store);
        check(&checkpoint(&place, &["show", "p"]), 0, &["0: feed.jsonl line 2, committed 20"]);
        let dry = checkpoint(&place, &["reset", "p", "--dry-run"]);
        check(
            &dry,
            0,
            &["0: feed.jsonl line 2 would become nothing committed", "2 events of 2 streams would be handled again"],
        );
        check(&checkpoint(&place, &["reset", "p"]), 0, &["0: feed.jsonl line 2 became nothing committed", "--undo"]);
        check(&checkpoint(&place, &["show", "p"]), 0, &["0: nothing committed"]);
        check(
            &checkpoint(&place, &["rewind", "p", "--undo"]),
            0,
            &["0: nothing committed became feed.jsonl line 2", "no events are handled again"],
        );
        check(&place.run(&["--until-tail"]), 0, &["finished: "]);
        assert_eq!(written(&place), 2, "nothing is handled again");
        check(&checkpoint(&place, &["reset", "p"]), 0, &[]);
        check(&place.run(&["--until-tail"]), 0, &["finished: "]);
        assert_eq!(written(&place), 4, "everything is handled again");
        let log = text(&checkpoint(&place, &["log", "p"]));
        assert_eq!(log.matches("replaced").count(), 3, "{log}");
        check(
            &run(program().args(["doctor"]).arg(place.path("pipelines")).arg("--data-dir").arg(place.path("data"))),
            0,
            &[],
        );
    }
}

#[test]
fn progress_is_rewound_to_a_time_and_to_an_entry_of_the_log() {
    for store in STORES {
        let place = after_a_run(store);
        let log: Value = serde_json::from_slice(&checkpoint(&place, &["log", "p", "--json"]).stdout).unwrap();
        let entry =
            log.as_array().unwrap().iter().find(|entry| entry["reason"] == "commit").unwrap()["entry"].to_string();
        check(&checkpoint(&place, &["reset", "p"]), 0, &[]);
        check(&checkpoint(&place, &["rewind", "p", "--entry", &entry]), 0, &["became feed.jsonl line "]);
        check(&checkpoint(&place, &["rewind", "p", "--to", "0s"]), 0, &["feed.jsonl line "]);
        let early = checkpoint(&place, &["rewind", "p", "--to", "1h"]);
        check(&early, 1, &["the log of the tranche `0` begins at 20", "`propulsiond checkpoint reset`"]);
        check(&checkpoint(&place, &["rewind", "p", "--entry", "999"]), 1, &["has no entry 999"]);
        check(&checkpoint(&place, &["rewind", "p", "--to", "yesterday"]), 1, &["neither a time such as"]);
        check(&checkpoint(&place, &["rewind", "p"]), 2, &["--to"]);
    }
}

#[test]
fn a_position_is_set_and_one_that_does_not_exist_is_refused() {
    let place = after_a_run("");
    let shown: Value = serde_json::from_slice(&checkpoint(&place, &["show", "p", "--json"]).stdout).unwrap();
    let position = shown[0]["position"].as_str().unwrap();
    check(&checkpoint(&place, &["reset", "p"]), 0, &[]);
    check(&checkpoint(&place, &["set", "p", position]), 0, &["became feed.jsonl line 2"]);
    let beyond = position.replace("\"offset\":", "\"offset\":9");
    check(&checkpoint(&place, &["set", "p", &beyond]), 1, &["the source could not resume there", "shorter"]);
    check(&checkpoint(&place, &["set", "p", "17"]), 1, &["the source could not resume there"]);
    check(&checkpoint(&place, &["show", "p", "--tranche", "0"]), 0, &["feed.jsonl line 2"]);
    check(
        &checkpoint(&place, &["set", "p", position, "--tranche", "9"]),
        1,
        &["there is no progress of the tranche `9`; there are `0`"],
    );
    check(&checkpoint(&place, &["show", "q"]), 2, &["there is no pipeline `q`"]);
}

#[test]
fn a_running_pipeline_keeps_its_progress_unless_forced() {
    let place = after_a_run("");
    let daemon = place.start(&[]);
    daemon.until("/pipelines/p", |_, body| body.contains("\"running\""));
    let ask = |arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().copied().chain(["--listen", &daemon.address]).collect();
        checkpoint(&place, &arguments)
    };
    check(&ask(&["reset", "p"]), 1, &["the pipeline `p` is running", "`propulsiond drain p --wait`", "--force"]);
    check(&ask(&["show", "p"]), 0, &["0: feed.jsonl line 2", "claimed by "]);
    daemon.request("POST /pipelines/p/drain", &[("content-type", "application/json")], "{\"wait\":true}");
    check(&ask(&["reset", "p"]), 0, &["became nothing committed"]);
    daemon.request("POST /pipelines/p/start", &[("content-type", "application/json")], "");
    daemon.until("/livez", |_, _| written(&place) == 4);
    daemon.until("/pipelines/p", |_, body| body.contains(r#"\"line\":2"#));
    check(&ask(&["reset", "p", "--force"]), 0, &["became nothing committed"]);
    // The claim of the command fences the running pipeline at its next commit.
    std::fs::write(place.path("pipelines/feed.jsonl"), FEED.to_owned() + &*FEED.replace("a-", "b-")).unwrap();
    daemon.until("/pipelines/p", |_, body| body.contains("\"fenced\""));
    daemon.request("POST /pipelines/p/start", &[("content-type", "application/json")], "");
    daemon.until("/livez", |_, _| written(&place) >= 8);
}

/// Returns the events and streams that a change of the only tranche would have handled again.
fn again(place: &Place, arguments: &[&str]) -> Value {
    let arguments: Vec<_> = arguments.iter().copied().chain(["--dry-run", "--json"]).collect();
    let output = checkpoint(place, &arguments);
    check(&output, 0, &[]);
    let changed: Value = serde_json::from_slice(&output.stdout).unwrap();
    changed[0]["handled_again"].clone()
}

#[test]
fn the_events_that_a_change_has_handled_again_are_counted_behind_the_filter_and_up_to_the_progress() {
    let line = |stream: &str, index: usize, kind: &str| {
        format!("{{\"stream\":\"{stream}\",\"index\":{index},\"type\":\"{kind}\",\"data\":{{}}}}\n")
    };
    let feed: String = (0..3).flat_map(|index| [line("a-1", index, "A"), line("a-2", index, "B")]).collect();
    let file = "[source.json]\npath = \"feed.jsonl\"\nbatch = 2\n[filter]\nexclude_events = [\"B\"]\n[sink.null]\n";
    let place = Place::new(&[("p.toml", file), ("feed.jsonl", &feed)]);
    check(&place.run(&["--until-tail"]), 0, &["finished: "]);
    let later: String = (3..6).map(|index| line("a-1", index, "A")).collect();
    std::fs::write(place.path("pipelines/feed.jsonl"), [feed, later].concat()).unwrap();
    assert_eq!(again(&place, &["reset", "p"]), serde_json::json!({ "events": 3, "streams": 1, "more": false }));
    // The unhandled events behind the stored progress do not count, and the command records no file for the pipeline.
    let registry = || {
        let files = std::fs::read_dir(place.path("data/json/p")).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect::<Vec<_>>()
    };
    let before = registry();
    check(&checkpoint(&place, &["reset", "p"]), 0, &["3 events of 1 stream are handled again"]);
    assert_eq!(registry(), before);
}

#[test]
fn events_count_from_the_new_position_to_the_old_one_alone() {
    let file = "[source.generate]\ncount = 20\nstreams = 4\n[checkpoint.file]\n[sink.null]\n";
    let place = Place::new(&[("q.toml", file)]);
    check(&place.run(&["--until-tail"]), 0, &["finished: "]);
    // The pace of the source does not slow the count.
    place.write("q.toml", &file.replace("streams", "rate = 1\nstreams"));
    assert_eq!(again(&place, &["set", "q", "15"]), serde_json::json!({ "events": 5, "streams": 4, "more": false }));
    check(&checkpoint(&place, &["set", "q", "5"]), 0, &["15 events of 4 streams are handled again"]);
    // A move forwards has nothing handled again.
    assert_eq!(again(&place, &["set", "q", "10"]), serde_json::json!({ "events": 0, "streams": 0, "more": false }));
    assert_eq!(again(&place, &["reset", "q"]), serde_json::json!({ "events": 5, "streams": 4, "more": false }));
}

#[test]
fn the_number_of_events_is_unknown_if_the_source_cannot_be_read() {
    let place = after_a_run("");
    std::fs::remove_file(place.path("pipelines/feed.jsonl")).unwrap();
    check(&checkpoint(&place, &["reset", "p", "--dry-run"]), 0, &["handled again is unknown: ", "feed.jsonl"]);
    let place = Place::new(&[("p.toml", "[source.stdin]\n[sink.null]\n"), ("feed.jsonl", FEED)]);
    let feed = std::fs::File::open(place.path("pipelines/feed.jsonl")).unwrap();
    check(&run(place.command(&[]).stdin(feed)), 0, &["finished: "]);
    let of_stdin = checkpoint(&place, &["reset", "p", "--dry-run"]);
    check(&of_stdin, 0, &["handled again is unknown: the source delivers each event only once"]);
}
