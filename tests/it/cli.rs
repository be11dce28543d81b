//! Runs, stops and resumes the daemon by its command line.

use std::path::Path;

use rusqlite::Connection;

use crate::daemon::{Daemon, Place, check, copy_directory, program, run, text};

fn sample() -> Place {
    let place = Place::new(&[]);
    copy_directory(&Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines"), &place.path("pipelines"));
    place
}

fn rows<T: rusqlite::types::FromSql>(place: &Place, sql: &str) -> Vec<T> {
    let database = Connection::open(place.path("data/shop.db")).unwrap();
    let mut statement = database.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_sample_runs_to_its_tail_and_a_second_start_has_nothing_left_to_do() {
    let place = sample();
    let first = place.run(&["--until-tail"]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first));
    let notices = String::from_utf8(first.stdout.clone()).unwrap();
    assert_eq!(
        notices.lines().filter(|line| line.contains("left with") || line.contains("was cancelled")).count(),
        39,
        "{notices}"
    );
    assert_eq!(rows::<i64>(&place, "SELECT count(*) FROM orders"), [48]);
    let before = rows::<i64>(&place, "SELECT sum(quantity) FROM sold");
    assert!(text(&first).contains("finished: "), "{}", text(&first));

    let second = place.run(&["--until-tail"]);
    assert_eq!(second.status.code(), Some(0), "{}", text(&second));
    assert_eq!(String::from_utf8(second.stdout).unwrap(), "");
    assert_eq!(rows::<i64>(&place, "SELECT sum(quantity) FROM sold"), before);
}

#[test]
fn a_daemon_serves_drains_on_a_signal_and_resumes_at_its_progress() {
    let place = sample();
    let daemon = place.start(&[]);
    let health = daemon.until("/health", |status, body| status == 200 && body.matches("\"running\"").count() >= 2);
    assert!(health.contains("\"health\":\"healthy\""), "{health}");
    daemon.until("/metrics", |_, body| body.contains(r#"propulsiond_handled_events_total{pipeline="orders""#));
    let orders = daemon
        .until("/pipelines/orders", |_, body| body.contains("\"at_tail\":true") && body.contains("\"unhandled\":0"));
    assert!(orders.contains("\"state\":\"running\""), "{orders}");
    for (path, wanted) in [("/livez", "ok"), ("/readyz", "\"ready\":true"), ("/version", env!("CARGO_PKG_VERSION"))] {
        let (status, body) = daemon.get(path);
        assert!(status == 200 && body.contains(wanted), "{path}: {status} {body}");
    }
    let (code, said) = daemon.stop("INT");
    assert_eq!(code, Some(0), "{said}");

    // New lines are handled, old ones are not.
    let shop = place.path("pipelines/shop/2026-11-20.jsonl");
    let mut lines = std::fs::read_to_string(&shop).unwrap();
    lines.push_str(r#"{"stream":"order-2000","index":0,"type":"OrderCancelled","timestamp":"2026-11-24T08:00:00Z","data":{"reason":"test"}}"#);
    lines.push('\n');
    std::fs::write(&shop, lines).unwrap();
    let again = place.run(&["--until-tail"]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "order 2000 was cancelled: test\n", "{}", text(&again));
}

/// Starts a daemon with a call in flight that never ends.
fn busy(arguments: &[&str]) -> (Place, Daemon) {
    let handler =
        "[handler.rhai]\nscript = \"slow.rhai\"\ntimeout = \"1h\"\nlimits = { operations = 1_000_000_000_000_000 }\n";
    let place = Place::new(&[
        ("slow.toml", &format!("[source.memory]\n{handler}[sink.null]\n")),
        ("slow.rhai", "fn handle(stream, events) { let x = 0; loop { x += 1; } }"),
    ]);
    let daemon = place.start(arguments);
    let event = r#"{"stream":"a-1","index":0,"type":"A","data":{}}"#;
    let (status, body) = daemon.request("POST /pipelines/slow/events", &[("content-type", "application/json")], event);
    assert_eq!(status, 202, "{body}");
    daemon.until("/pipelines/slow", |_, body| body.contains("\"calls\":1"));
    (place, daemon)
}

#[test]
fn a_second_signal_ends_the_daemon_at_once() {
    let (_place, daemon) = busy(&["--drain", "1h"]);
    crate::daemon::signal(daemon.id(), "TERM");
    daemon.wait_for("stopping");
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(128 + 15), "{said}");
}

#[test]
fn simultaneous_signals_count_as_one() {
    let place = Place::new(&[("idle.toml", "[source.memory]\n[sink.null]\n")]);
    let daemon = place.start(&[]);
    for name in ["STOP", "TERM", "INT", "CONT"] {
        crate::daemon::signal(daemon.id(), name);
    }
    daemon.wait_for("pipeline drains");
    daemon.wait_for("stopped: 0 events handled");
}

#[test]
fn r56_a_drain_past_its_deadline_names_the_running_calls_and_exits_with_4() {
    let (_place, daemon) = busy(&["--drain", "300ms"]);
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("1 calls being decided"), "{said}");
}

#[test]
fn the_version_is_that_of_the_package() {
    let output = run(program().arg("--version"));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), concat!("propulsiond ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn files_and_directories_run_together_whether_named_alone_or_by_a_flag() {
    let place = Place::new(&[
        ("a.yml", "source:\n  json: {path: events.jsonl}\nsink:\n  stdout:\n"),
        ("events.jsonl", "{\"stream\":\"a-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n"),
    ]);
    std::fs::create_dir(place.path("more")).unwrap();
    std::fs::write(place.path("more/b.toml"), "[source.json]\npath = \"../pipelines/events.jsonl\"\n[sink.stdout]\n")
        .unwrap();
    let lines: [&[&str]; 3] = [
        &["pipelines/a.yml", "more"],
        &["run", "more/b.toml", "pipelines"],
        &["--config", "more", "--config", "pipelines"],
    ];
    for (number, arguments) in lines.iter().enumerate() {
        let mut command = program();
        command.args(*arguments).args(["--until-tail", "--listen", "off", "--data-dir", &format!("data-{number}")]);
        let output = run(command.current_dir(place.path("")));
        check(&output, 0, &["pipeline=a", "pipeline=b"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2, "{}", text(&output));
    }
    place.write("b.toml", "[source.memory]\n[sink.stdout]\n");
    let mut command = program();
    let twice = run(command.args(["more", "pipelines", "--until-tail"]).current_dir(place.path("")));
    check(&twice, 2, &["the file `more/b.toml` describes the pipeline `b`, too"]);
}
