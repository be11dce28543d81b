//! Failures while the program runs: its messages, exit codes, and the recovery.

use std::process::Command;

use crate::daemon::{Place, check, program, run};

const SCRIPT: &str = "fn handle(stream, events) { for e in events { emit(e.index); } }";
const EVENTS: &str = "{\"stream\":\"a-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n{\"stream\":\"b-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n";

fn place(pipeline: &str) -> Place {
    Place::new(&[("p.toml", pipeline), ("p.rhai", SCRIPT), ("events.jsonl", EVENTS)])
}

const PIPELINE: &str =
    "[source.json]\npath = \"events.jsonl\"\n[handler.rhai]\nscript = \"p.rhai\"\n[sink.file]\npath = \"out.jsonl\"\n";

#[test]
fn wrong_files_are_explained_with_line_and_column_and_end_with_2() {
    let cases: &[(&str, &[&str])] = &[
        ("[source.json]\npth = \"events.jsonl\"\n[sink.null]\n", &["p.toml:2:1", "pth", "path"]),
        ("[source.json]\npath = 7\n[sink.null]\n", &["p.toml:2:8"]),
        ("[source.json]\npath = \"events.jsonl\"\n[source.memory]\n[sink.null]\n", &["p.toml", "json", "memory"]),
        (
            "[source.json]\npath = \"${PROPULSIOND_TEST_UNSET}\"\n[sink.null]\n",
            &["p.toml:2:9", "PROPULSIOND_TEST_UNSET"],
        ),
        (
            "[source.json]\npath = \"events.jsonl\"\n[handler.rhai]\nscript = \"missing.rhai\"\n[sink.null]\n",
            &["missing.rhai"],
        ),
    ];
    for (pipeline, said) in cases {
        check(&place(pipeline).run(&["--until-tail"]), 2, said);
    }
}

#[test]
fn a_script_that_does_not_compile_names_its_line() {
    let place = place(PIPELINE);
    place.write("p.rhai", "fn handle(stream, events) {\n    let x = ;\n}\n");
    check(&place.run(&["--until-tail"]), 2, &["p.rhai:2:"]);
}

#[test]
fn check_finds_the_same_without_running_anything() {
    let place = place("[source.json]\npth = \"events.jsonl\"\n[sink.null]\n");
    let output = run(program().arg("check").arg(place.path("pipelines")));
    check(&output, 2, &["p.toml:2:1"]);
    let output = run(program().args(["check", "--json"]).arg(place.path("pipelines")));
    let problems: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(problems[0]["line"], 2, "{problems}");
}

#[test]
fn a_corrupt_line_halts_if_asked_to_and_is_named() {
    let place = place(&format!("{PIPELINE}[errors]\nthen = \"halt\"\n"));
    place.write("events.jsonl", &format!("{EVENTS}{{\"stream\":\"a-1\",\"index\":1,\"ty\n{EVENTS}"));
    let remedies = ["`then = \"skip\"` in `[errors]` passes this record", "do not edit what was read"];
    check(&place.run(&["--until-tail"]), 1, &[&["events.jsonl:3"], &remedies[..]].concat());
}

#[test]
fn a_corrupt_line_can_be_skipped_and_nothing_else_is_lost() {
    let place = place(&format!("{PIPELINE}[errors]\nthen = \"skip\"\n"));
    let after = "{\"stream\":\"a-1\",\"index\":1,\"type\":\"A\",\"data\":{}}\n";
    place.write("events.jsonl", &format!("{EVENTS}{{\"stream\":\"a-1\",\"index\":1,\"ty\n{after}"));
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &["event skipped at=3.0 reason=", "events.jsonl:3", "3 events handled in", ", 1 skipped"]);
    assert_eq!(place.read("data/out.jsonl").lines().count(), 3);
}

#[test]
fn a_script_error_names_file_line_stream_index_and_type() {
    let place = place(&format!("{PIPELINE}[errors]\nthen = \"halt\"\nretry = {{ attempts = 2, initial = \"1ms\" }}\n"));
    place.write("events.jsonl", EVENTS.lines().next().unwrap());
    place.write("p.rhai", "fn handle(stream, events) {\n    for e in events {\n        throw \"no good\";\n    }\n}\n");
    check(&place.run(&["--until-tail"]), 1, &["p.rhai:3:9", "stream `a-1`", "index 0", "type `A`", "no good"]);
}

#[test]
fn a_source_that_is_not_there_is_waited_for_and_named() {
    let place = place("[source.json]\npath = \"later.jsonl\"\n[sink.file]\npath = \"out.jsonl\"\n");
    let daemon = place.start(&[]);
    daemon.wait_for("later.jsonl");
    daemon.until("/health", |_, body| body.contains("reading has failed for") && body.contains("/later.jsonl`: "));
    place.write("later.jsonl", EVENTS);
    daemon.until("/health", |status, body| status == 200 && body.contains("\"healthy\""));
    daemon.until("/pipelines/p", |_, body| body.contains("\"at_tail\":true") && body.contains("\"unhandled\":0"));
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.read("data/out.jsonl").lines().count(), 2);
}

#[test]
fn a_data_directory_that_cannot_be_written_ends_with_3() {
    let place = place(PIPELINE);
    // No user, not even root, can write to a directory below a file.
    std::fs::write(place.path("data"), "a file").unwrap();
    check(&place.run(&["--until-tail"]), 3, &["data"]);
}

#[test]
fn a_data_directory_in_use_ends_with_3_and_names_the_process() {
    let place = place("[source.memory]\n[sink.null]\n");
    let daemon = place.start(&[]);
    check(&place.run(&[]), 3, &["in use", &daemon.id().to_string()]);
}

#[test]
fn a_port_in_use_ends_with_3_and_says_what_to_set() {
    let place = place(PIPELINE);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check(&place.run(&["--listen", &address]), 3, &[&address, "`listen`"]);
}

#[test]
fn a_checkpoint_database_of_a_newer_version_is_refused() {
    let place = place(PIPELINE);
    check(&place.run(&["--until-tail"]), 0, &["finished"]);
    let database = rusqlite::Connection::open(place.path("data/propulsiond.db")).unwrap();
    database.pragma_update(None, "user_version", 999).unwrap();
    drop(database);
    check(&place.run(&["--until-tail"]), 1, &["propulsiond.db", "newer propulsiond"]);
}

#[test]
fn r8_progress_that_cannot_be_stored_is_said_with_its_reason_and_stored_later() {
    let checkpoint = "[checkpoint.sqlite]\nbusy_timeout = \"10ms\"\n[schedule]\ncommit_interval = \"50ms\"\n";
    let place = place(&format!("[source.memory]\n[sink.null]\n{checkpoint}"));
    let daemon = place.start(&[]);
    let push = |index: u64| {
        let event = format!("{{\"stream\":\"a-1\",\"index\":{index},\"type\":\"A\",\"data\":{{}}}}");
        let answer = daemon.request("POST /pipelines/p/events", &[("content-type", "application/json")], &event);
        assert_eq!(answer.0, 202, "{}", answer.1);
    };
    push(0);
    daemon.until("/pipelines/p", |_, body| body.contains("\"position\":\"1\""));
    let database = rusqlite::Connection::open(place.path("data/propulsiond.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    push(1);
    daemon.wait_for("progress not stored, retrying");
    let health = daemon.until("/health", |_, body| body.contains("progress could not be committed for"));
    assert!(health.contains("propulsiond.db") && health.contains("locked"), "{health}");
    assert!(!health.contains("reading has failed"), "{health}");
    database.execute_batch("ROLLBACK").unwrap();
    daemon.until("/pipelines/p", |_, body| body.contains("\"position\":\"2\""));
    daemon.until("/health", |status, body| status == 200 && !body.contains("could not be committed"));
}

#[test]
fn a_file_that_is_no_database_is_refused_and_named() {
    let place = place(PIPELINE);
    std::fs::create_dir(place.path("data")).unwrap();
    std::fs::write(place.path("data/propulsiond.db"), "this is no database at all, not even a small one").unwrap();
    check(&place.run(&["--until-tail"]), 1, &["propulsiond.db"]);
}

#[test]
fn a_full_disk_loses_nothing_and_the_job_goes_on_once_there_is_room() {
    let place = place(PIPELINE);
    let lines: String = (0..5_000)
        .map(|index| format!("{{\"stream\":\"a-1\",\"index\":{index},\"type\":\"A\",\"data\":{{}}}}\n"))
        .collect();
    place.write("events.jsonl", &lines);
    place.write("p.rhai", "fn handle(stream, events) { for e in events { emit(`${e.index} xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx`); } }");
    // No file may grow beyond 100 KiB: writing more fails as it does on a full disk.
    let mut command = Command::new("bash");
    let inner = place.command(&["--log-level", "debug"]);
    command
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"")
        .arg(inner.get_program())
        .args(inner.get_args());
    let daemon = crate::daemon::Daemon::start(command);
    daemon.wait_for("circuit breaker opened");
    daemon.until("/health", |_, body| body.contains("has been unavailable for"));
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    check(&place.run(&["--until-tail"]), 0, &["finished"]);
    let out = place.read("data/out.jsonl");
    let mut last = -1;
    for line in out.lines() {
        let index: i64 = line.trim_start_matches('"').split(' ').next().unwrap().parse().unwrap();
        assert!(index <= last + 1, "{index} follows {last}");
        last = last.max(index);
    }
    assert_eq!(last, 4_999);
}
