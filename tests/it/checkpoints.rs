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
        check(&dry, 0, &["0: feed.jsonl line 2 would become nothing committed", "would be handled again"]);
        check(&checkpoint(&place, &["reset", "p"]), 0, &["0: feed.jsonl line 2 became nothing committed", "--undo"]);
        check(&checkpoint(&place, &["show", "p"]), 0, &["0: nothing committed"]);
        check(&checkpoint(&place, &["rewind", "p", "--undo"]), 0, &["0: nothing committed became feed.jsonl line 2"]);
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
