//! The cause of a failure while it lasts: `/health`, the list of streams, `why` and the log name it. Exit codes of jobs that
//! cannot finish.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Daemon, Place, check, handled, text};

fn event(stream: &str, index: i64) -> String {
    format!("{{\"stream\":\"{stream}\",\"index\":{index},\"type\":\"A\",\"data\":{{\"n\":{index}}}}}\n")
}

const THROWS: &str = "fn handle(stream, events) { throw \"no such customer: 17\"; }";

fn failing(retry: &str) -> Place {
    let pipeline = format!(
        "[source.json]\npath = \"events.jsonl\"\n[handler.rhai]\nscript = \"p.rhai\"\n[sink.null]\n[errors]\nthen = \"halt\"\nretry = {retry}\n"
    );
    Place::new(&[("p.toml", &pipeline), ("p.rhai", THROWS), ("events.jsonl", &event("order-1", 0))])
}

fn why(daemon: &Daemon, stream: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/pipelines/p/streams/{stream}/why");
    let body = daemon.until(&path, |status, body| status == 200 && is_wanted(&serde_json::from_str(body).unwrap()));
    serde_json::from_str(&body).unwrap()
}

#[test]
fn w1_a_failing_stream_shows_its_error_class_attempts_and_next_try_while_it_fails() {
    let place = failing("{ initial = \"1h\", max = \"1h\" }");
    let daemon = place.start(&[]);
    let line = daemon.wait_for("call failed, retrying");
    for part in
        ["stream=\"order-1\"", "index=0", "class=\"exception\"", "attempt=1", "no such customer: 17", "retry_in="]
    {
        assert!(line.contains(part), "`{part}` is missing in {line}");
    }
    let health = daemon.until("/health", |_, body| body.contains("streams failing: 1"));
    assert!(health.contains("event 0 of stream `order-1` failed, attempt 1 (exception), next try in "), "{health}");
    assert!(health.contains("no such customer: 17"), "{health}");
    let answer = why(&daemon, "order-1", |answer| !answer["failure"].is_null());
    let (_, listed) = daemon.get("/pipelines/p/streams?state=failing");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    for failure in [&answer["failure"], &listed["streams"][0]["failure"]] {
        assert_eq!((&failure["class"], &failure["attempts"]), (&"exception".into(), &1.into()), "{failure}");
        assert!(failure["error"].as_str().unwrap().contains("no such customer: 17"), "{failure}");
        assert!(failure["next_try_in_seconds"].as_f64().unwrap() > 0.0, "{failure}");
    }
}

#[test]
fn w1_a_halted_pipeline_still_explains_the_stream_that_halted_it() {
    let place = failing("{ initial = \"1ms\", attempts = 2 }");
    place.write("other.toml", "[source.memory]\n[sink.null]\n");
    let daemon = place.start(&[]);
    daemon.until("/health", |status, _| status == 503);
    let answer = why(&daemon, "order-1", |_| true);
    assert_eq!(answer["failure"]["attempts"], 2, "{answer}");
    assert!(answer["failure"]["error"].as_str().unwrap().contains("no such customer: 17"), "{answer}");
    assert!(answer["failure"]["next_try_in_seconds"].is_null(), "{answer}");
    assert_eq!(answer["pipeline"]["state"], "halted", "{answer}");
    let (status, body) = daemon.get("/pipelines/p/streams/other-1/why");
    assert_eq!(status, 503);
    assert!(body.contains("halted: event 0"), "{body}");
}

#[test]
fn s18_a_service_names_the_missing_event_of_require_all() {
    let pipeline = "[source.json]\npath = \"events.jsonl\"\n[schedule]\nrequire_all = true\n[sink.null]\n";
    let events = [event("a-1", 0), event("a-1", 2)].concat();
    let place = Place::new(&[("p.toml", pipeline), ("events.jsonl", &events)]);
    let daemon = place.start(&[]);
    let answer = why(&daemon, "a-1", |answer| !answer["details"].is_null());
    assert_eq!(answer["details"]["missing"], 1, "{answer}");
    let health = daemon.until("/health", |_, body| body.contains("missing"));
    assert!(health.contains("event 1 of stream `a-1` is missing"), "{health}");
}

#[test]
fn s18_a_job_names_the_missing_event_and_ends_with_1() {
    let pipeline = "[source.json]\npath = \"events.jsonl\"\n[schedule]\nrequire_all = true\n[sink.null]\n";
    let events = [event("a-1", 0), event("a-1", 2)].concat();
    let place = Place::new(&[("p.toml", pipeline), ("events.jsonl", &events)]);
    check(&place.run(&["--until-tail"]), 1, &["halted: event 1 of stream `a-1` is missing"]);
}

#[test]
fn s17_a_pipeline_whose_time_is_up_counts_the_events_that_it_did_not_handle() {
    let pipeline = "stop = { after = \"2s\" }\n[source.json]\npath = \"events.jsonl\"\n[handler.rhai]\nscript = \"p.rhai\"\n[sink.null]\n";
    let place = Place::new(&[
        ("p.toml", pipeline),
        // A deferral of a minute or more would be stored, and the progress would pass it.
        ("p.rhai", "fn handle(stream, events) { return defer(\"50s\"); }"),
        ("events.jsonl", &[event("a-1", 0), event("a-1", 1)].concat()),
    ]);
    let output = place.run(&[]);
    check(&output, 0, &["its time is up; events read but not handled: 2"]);
    assert!(!text(&output).contains("everything is handled"), "{}", text(&output));
}

#[test]
fn s23_a_job_whose_feed_is_missing_ends_with_3_after_the_attempts() {
    let retry = "[errors]\nretry = { initial = \"1ms\", max = \"1ms\", attempts = 3 }\n";
    for source in ["path = \"nowhere.jsonl\"\n", "path = \"nowhere\"\ntranche_per_file = true\n"] {
        let place = Place::new(&[("p.toml", &format!("[source.json]\n{source}[sink.null]\n{retry}"))]);
        check(&place.run(&["--until-tail"]), 3, &["cannot be reached after 3 attempts", "nowhere"]);
    }
}

#[test]
fn a_feed_that_is_removed_is_reported_until_it_is_back() {
    for (file, removed, source) in [
        ("feed.jsonl", "feed.jsonl", "path = \"feed.jsonl\"\n"),
        ("feed/a.jsonl", "feed", "path = \"feed\"\n"),
        ("feed/a.jsonl", "feed/a.jsonl", "path = \"feed\"\n"),
        ("feed/a.jsonl", "feed", "path = \"feed\"\ntranche_per_file = true\n"),
    ] {
        let place = Place::new(&[("p.toml", &format!("[source.json]\npoll = \"10ms\"\n{source}[sink.null]\n"))]);
        let [path, removed] = [file, removed].map(|name| place.path("pipelines").join(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, event("a-1", 0)).unwrap();
        let daemon = place.start(&[]);
        daemon.until("/health", |_, body| body.contains("everything is handled"));
        let away = place.path("away");
        std::fs::rename(&removed, &away).unwrap();
        let health = daemon.until("/health", |_, body| body.contains("reading has failed for"));
        assert!(health.contains("\"degraded\"") && health.contains("feed"), "{source}: {health}");
        assert!(!health.contains("everything is handled"), "{source}: {health}");
        let status = daemon.until("/pipelines", |_, body| body.contains("source_failing"));
        assert!(!status.contains("\"source_failing\":null"), "{source}: {status}");
        std::fs::rename(&away, &removed).unwrap();
        daemon.until("/health", |_, body| body.contains("everything is handled") && !body.contains("degraded"));
    }
}

/// Answers requests with 200, one after another. Sends each body to the test, and waits for its permission to answer.
fn server() -> (String, mpsc::Receiver<String>, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ((bodies, arrived), (go, told)) = (mpsc::channel(), mpsc::channel());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut reader = BufReader::new(connection.unwrap());
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            if bodies.send(String::from_utf8(body).unwrap()).is_err() || told.recv().is_err() {
                break;
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
        }
    });
    (url, arrived, go)
}

#[test]
fn s6_a_job_that_is_fenced_on_one_of_its_tranches_ends_with_1() {
    let (url, arrived, go) = server();
    let pipeline = format!(
        "[source.json]\npath = \"feed\"\ntranche_per_file = true\nbatch = 1\n[checkpoint.sqlite]\npath = \"cp.db\"\n\
         [schedule]\ncommit_interval = \"10ms\"\nmax_events = 1\nconcurrency = 1\n[sink.http]\nurl = \"{url}\"\n"
    );
    let place = Place::new(&[("p.toml", &pipeline)]);
    std::fs::create_dir(place.path("pipelines/feed")).unwrap();
    for file in ["a", "b"] {
        let events: String = (0..3).map(|index| event(&format!("{file}-1"), index)).collect();
        place.write(&format!("feed/{file}.jsonl"), &events);
    }
    let mut command = place.command(&["--until-tail"]);
    let job = std::thread::spawn(move || crate::daemon::run(&mut command));
    let mut is_moved = false;
    while !job.is_finished() {
        let Ok(body) = arrived.recv_timeout(Duration::from_millis(10)) else { continue };
        // The first event of `b` is stored before the second one is answered. A locked database is retried.
        if body.contains("b-1") && body.contains("\"n\":1") && !is_moved {
            let database = rusqlite::Connection::open(place.path("data/cp.db")).unwrap();
            let moved = "UPDATE propulsion_checkpoint SET position = position || ' ' WHERE tranche = 'b.jsonl'";
            while !database.execute(moved, []).is_ok_and(|rows| rows == 1) {
                std::thread::yield_now();
            }
            is_moved = true;
        }
        go.send(()).unwrap();
    }
    drop((arrived, go));
    let output = job.join().unwrap();
    check(&output, 1, &["fenced: tranche `b.jsonl` is owned by another program, which moved the position"]);
    // The fenced commit can be the last one: all events are handled, and the job still has not finished.
    assert!(!text(&output).contains("finished: "), "{}", text(&output));
}

#[test]
fn l11_a_position_that_another_program_moved_back_is_handled_again_exactly_once() {
    let pipeline = "checkpoint = \"sink\"\n[source.json]\npath = \"events.jsonl\"\n[handler.rhai]\nscript = \"p.rhai\"\n\
                    [sink.sqlite]\npath = \"out.db\"\ninit = [\"CREATE TABLE IF NOT EXISTS got (n INTEGER)\"]\n";
    let script = "fn handle(stream, events) { for e in events { emit(#{ sql: \"INSERT INTO got VALUES (?1)\", params: [e.data.n] }); } }";
    let events: String = (0..5).map(|index| event("a-1", index)).collect();
    let place = Place::new(&[("p.toml", pipeline), ("p.rhai", script), ("events.jsonl", &events)]);
    let rows = |sql: &str| {
        let database = rusqlite::Connection::open(place.path("data/out.db")).unwrap();
        database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    check(&place.run(&["--until-tail"]), 0, &["finished: 5 events handled"]);
    let database = rusqlite::Connection::open(place.path("data/out.db")).unwrap();
    database.execute_batch("DELETE FROM got; UPDATE propulsion_checkpoint SET position = NULL").unwrap();
    drop(database);
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &["finished: 5 events handled", "another program moved the position"]);
    assert_eq!(rows("SELECT count(*) FROM got"), 5);
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &["finished: 0 events handled"]);
    assert!(!text(&output).contains("moved the position"), "{}", text(&output));
    assert_eq!(rows("SELECT count(*) FROM got"), 5);
}

#[test]
fn s24_the_exposure_counts_the_events_that_the_stored_progress_lacks() {
    let pipeline = "[source.memory]\n[sink.null]\n[checkpoint.sqlite]\nbusy_timeout = \"10ms\"\n[schedule]\ncommit_interval = \"50ms\"\n";
    let place = Place::new(&[("p.toml", pipeline)]);
    let daemon = place.start(&[]);
    let push = |events: std::ops::Range<i64>| {
        let body: String = events.map(|index| event("a-1", index)).collect();
        let answer = daemon.request("POST /pipelines/p/events", &[("content-type", "application/json")], &body);
        assert_eq!(answer.0, 202, "{}", answer.1);
    };
    let exposure = |page: &str| {
        let line = page.lines().find(|line| line.starts_with("propulsiond_replay_exposure_events{")).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    push(0..3);
    daemon.until("/metrics", |_, page| handled(page, "p") == 3 && exposure(page) == 0.0);
    let database = rusqlite::Connection::open(place.path("data/propulsiond.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    push(3..7);
    daemon.until("/metrics", |_, page| handled(page, "p") == 7 && exposure(page) == 4.0);
    daemon.wait_for("progress not stored, retrying");
    push(7..8);
    daemon.until("/metrics", |_, page| handled(page, "p") == 8 && exposure(page) == 5.0);
    database.execute_batch("ROLLBACK").unwrap();
    daemon.until("/metrics", |_, page| exposure(page) == 0.0);
}
