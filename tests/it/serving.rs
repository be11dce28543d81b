//! The HTTP endpoints: their answers, the clients that they answer, and the commands that ask them.

use std::io::Write;

use crate::daemon::{Daemon, Place, check as said, handled, program, run};
use crate::metrics::promtool;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const EVENT: &str = r#"{"stream":"a-1","index":0,"type":"A","data":{}}"#;

fn place() -> Place {
    Place::new(&[("inbox.toml", "[source.memory]\n[sink.file]\npath = \"out.jsonl\"\n")])
}

/// Asserts the status of an answer, and a part of its body.
fn check((status, body): (u16, String), wanted: u16, said: &str) {
    assert!(status == wanted && body.contains(said), "expected {wanted} and `{said}`, got {status}: {body}");
}

#[test]
fn events_can_be_pushed_and_a_bad_line_is_named() {
    let place = place();
    let daemon = place.start(&[]);
    let good = format!("{EVENT}\n{}\n", EVENT.replace(":0,", ":1,"));
    check(daemon.request("POST /pipelines/inbox/events", &JSON, &good), 202, r#"{"taken":2}"#);
    let bad = format!("{EVENT}\n{{\"stream\":");
    check(daemon.request("POST /pipelines/inbox/events", &JSON, &bad), 400, "line 2");
    daemon.until("/metrics", |_, body| handled(body, "inbox") == 2);
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.read("data/out.jsonl").lines().count(), 2);
}

#[test]
fn x6_a_gzip_body_is_taken_and_a_large_one_refused_in_json() {
    let place = place();
    let daemon = place.start(&[]);
    let push = "POST /pipelines/inbox/events";
    let large = " ".repeat((16 << 20) + 1);
    check(daemon.request(push, &JSON, &large), 413, r#"{"error":"the body is larger than 16 MiB"#);
    check(daemon.request(push, &[JSON[0], ("content-encoding", "gzip")], EVENT), 400, "not valid gzip");
    check(daemon.request(push, &[JSON[0], ("content-encoding", "br")], EVENT), 415, "`gzip`");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(EVENT.as_bytes()).unwrap();
    let headers = [JSON[0], ("content-encoding", "gzip")];
    check(daemon.request_with(push, &headers, &encoder.finish().unwrap()), 202, r#"{"taken":1}"#);
}

#[test]
fn a_web_page_can_neither_push_events_nor_read_data() {
    let place = place();
    let daemon = place.start(&[]);
    let push = "POST /pipelines/inbox/events";
    check(daemon.request(push, &[("content-type", "text/plain")], EVENT), 415, "application/json");
    let evil = ("host", "evil.example:9464");
    check(daemon.request(push, &[JSON[0], evil], EVENT), 403, "host");
    for path in ["/pipelines", "/pipelines/inbox", "/pipelines/inbox/streams", "/pipelines/inbox/streams/a-1/why"] {
        check(daemon.get(path), 200, "");
        check(daemon.request(&format!("GET {path}"), &[evil], ""), 403, "host");
        let port = daemon.address.rsplit(':').next().unwrap();
        check(daemon.request(&format!("GET {path}"), &[("host", &format!("localhost:{port}"))], ""), 200, "");
    }
    // Health shows no data, and answers every client.
    check(daemon.request("GET /health", &[evil], ""), 200, "running");
}

#[test]
fn an_unknown_path_or_name_is_answered_with_the_known_ones() {
    let place = place();
    let daemon = place.start(&[]);
    check(daemon.request("POST /pipelines/other/events", &JSON, EVENT), 404, "`inbox`");
    check(daemon.get("/pipelines/other"), 404, "`inbox`");
    check(daemon.get("/nothing"), 404, "/health");
    check(daemon.get("/pipelines/inbox/streams?state=odd"), 400, "`failing`");
}

#[test]
fn bound_elsewhere_without_a_token_only_metrics_and_health_answer() {
    let place = place();
    let daemon = place.start(&["--listen", "0.0.0.0:0"]);
    for path in ["/health", "/metrics", "/livez", "/readyz", "/version"] {
        check(daemon.get(path), 200, "");
    }
    check(daemon.get("/pipelines"), 403, "http.token");
    check(daemon.request("POST /pipelines/inbox/events", &JSON, EVENT), 403, "http.token");
}

#[test]
fn r63_a_token_opens_the_api_and_a_wrong_one_learns_nothing() {
    let place = place();
    std::fs::write(place.path("settings.toml"), "[http]\ntoken = \"${PROPULSIOND_TEST_TOKEN}\"\n").unwrap();
    let mut command = place.command(&["--listen", "0.0.0.0:0", "--settings", "settings.toml"]);
    command.env("PROPULSIOND_TEST_TOKEN", "open-sesame-17");
    let daemon = Daemon::start(command);
    check(daemon.get("/health"), 200, "");
    let refused = daemon.get("/pipelines");
    for given in ["Bearer open-sesame-18", "Bearer open-sesame-1", "Bearer ", "Basic open-sesame-17", "open-sesame-17"]
    {
        let answer = daemon.request("GET /pipelines", &[("authorization", given)], "");
        assert_eq!(answer, refused, "{given}");
    }
    check(refused, 401, "http.token");
    let opened = [("authorization", "Bearer open-sesame-17"), JSON[0], ("host", "propulsiond.internal:9464")];
    check(daemon.request("GET /pipelines", &opened, ""), 200, "inbox");
    check(daemon.request("POST /pipelines/inbox/events", &opened, EVENT), 202, "\"taken\":1");
    daemon.until("/metrics", |_, body| handled(body, "inbox") == 1);
    let (code, said) = daemon.stop("TERM");
    assert!(code == Some(0) && !said.contains("sesame"), "{said}");
}

#[test]
fn health_is_503_with_a_reason_for_each_halted_pipeline_and_the_rest_goes_on() {
    let halting = "[source.memory]\n[handler.rhai]\nscript = \"fails.rhai\"\n[sink.null]\n";
    let place = place();
    place.write("first.toml", halting);
    place.write("second.toml", halting);
    let throw = "throw #{ class: \"permanent\", why: `no ${stream.name}` };";
    place.write("fails.rhai", &format!("fn handle(stream, events) {{ {throw} }}"));
    let daemon = place.start(&[]);
    daemon.until("/health", |status, body| status == 200 && body.matches("\"running\"").count() == 3);
    check(daemon.get("/readyz"), 200, "\"ready\":true");
    for name in ["first", "second"] {
        let event = EVENT.replace("a-1", &format!("{name}-1"));
        check(daemon.request(&format!("POST /pipelines/{name}/events"), &JSON, &event), 202, "");
    }
    let health = daemon.until("/health", |status, body| status == 503 && body.matches("\"halted\"").count() == 2);
    for name in ["first", "second"] {
        let reason = format!("event 0 (`A`) of stream `{name}-1` cannot be handled: fails.rhai:1:");
        assert!(health.contains(&reason) && health.contains(&format!("no {name}-1")), "{health}");
    }
    check(daemon.get("/readyz"), 503, "\"ready\":false");
    check(daemon.get("/livez"), 200, "ok");
    check(daemon.get("/metrics"), 200, r#"propulsiond_pipeline_state{pipeline="first",state="halted"} 1"#);
    check(daemon.request("POST /pipelines/inbox/events", &JSON, EVENT), 202, "");
    daemon.until("/metrics", |_, body| handled(body, "inbox") == 1);
    // The daemon stopped as asked, but a halted pipeline is a failure.
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(1), "{said}");
}

/// Runs `health`, as an operator or a probe does.
fn ask_health(place: &Place, arguments: &[&str]) -> std::process::Output {
    let mut command = program();
    command.arg("health").args(arguments).current_dir(place.path(""));
    run(&mut command)
}

#[test]
fn r66_health_prints_the_daemons_answer_and_fails_if_a_pipeline_has_failed() {
    let place = place();
    place.write("halting.toml", "[source.memory]\n[handler.rhai]\nscript = \"fails.rhai\"\n[sink.null]\n");
    place.write("fails.rhai", "fn handle(stream, events) { throw #{ class: \"permanent\", why: \"no\" }; }");
    let daemon = place.start(&[]);
    let listen = ["--listen", &daemon.address];
    daemon.until("/health", |_, body| body.matches("running: everything is handled").count() == 2);
    let healthy = [
        "halting  healthy   running: everything is handled\n",
        "inbox    healthy   running: everything is handled\n",
        "healthy and ready\n",
    ];
    said(&ask_health(&place, &listen), 0, &healthy);
    // The daemon listens on all addresses: the command asks on loopback.
    said(&ask_health(&place, &["--listen", &daemon.address.replace("127.0.0.1", "0.0.0.0")]), 0, &healthy);

    check(daemon.request("POST /pipelines/halting/events", &JSON, EVENT), 202, "");
    daemon.until("/health", |status, _| status == 503);
    said(
        &ask_health(&place, &listen),
        1,
        &["halting  failed    halted: event 0 (`A`) of stream `a-1`", "failed and not ready"],
    );
    let output = ask_health(&place, &[listen[0], listen[1], "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["health"], &answer["pipelines"][1]["name"]), (&"failed".into(), &"inbox".into()), "{answer}");
}

#[test]
fn health_fails_without_a_daemon_and_names_the_address() {
    let place = place();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = ask_health(&place, &["--listen", &port]);
    said(&output, 1, &[&format!("error: the daemon does not answer at `{port}`, the address of `listen`: ")]);
    let output = ask_health(&place, &["--listen", &port, "--json"]);
    said(&output, 1, &[r#"{"error":"the daemon does not answer at "#]);
    let output = ask_health(&place, &["--listen", "off"]);
    said(&output, 1, &["error: `listen` is \"off\": the daemon cannot answer"]);
}

#[test]
fn prometheus_parses_the_metrics_of_a_busy_daemon() {
    let source = "[source.generate]\nstreams = 500\ntranches = 4\nduplicates = 0.1\n";
    let script = "fn handle(stream, events) { metric.inc(\"seen\", events.len()); for e in events { emit(e.index); } }";
    let place = Place::new(&[
        ("events.toml", &format!("{source}[sink.null]\n")),
        ("scripted.toml", &format!("{source}[handler.rhai]\nscript = \"s.rhai\"\n[sink.file]\nfsync = \"never\"\n")),
        ("s.rhai", script),
    ]);
    let daemon = place.start(&[]);
    let mut before = (0, 0);
    for _ in 0..3 {
        let page = daemon.until("/metrics", |_, page| {
            handled(page, "events") > before.0 + 10_000 && handled(page, "scripted") > before.1 + 1_000
        });
        before = (handled(&page, "events"), handled(&page, "scripted"));
        let Some((parsed, said)) = promtool(&page) else { continue };
        assert!(parsed, "{said:?}");
        for complaint in &said {
            assert!(complaint.starts_with("propulsion_"), "{complaint}");
        }
    }
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn stats_of_a_running_pipeline_are_logged_at_their_interval() {
    let place = Place::new(&[("pushed.toml", "[source.memory]\n[sink.null]\n")]);
    std::fs::write(place.path("settings.toml"), "[log]\nstats_interval = \"50ms\"\n").unwrap();
    let daemon = place.start(&["--settings", &place.path("settings.toml").to_string_lossy()]);
    check(daemon.request("POST /pipelines/pushed/events", &JSON, EVENT), 202, "");
    let line = daemon.wait_for(" handled=1 ");
    assert!(line.contains(" stats state=running handled=1 ") && line.ends_with("pipeline=pushed"), "{line}");
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
}

fn status(place: &Place, daemon: &Daemon, arguments: &[&str]) -> std::process::Command {
    let mut command = program();
    command.args(["status", "--listen", &daemon.address]).args(arguments).current_dir(place.path(""));
    command
}

#[test]
fn status_shows_the_work_of_each_pipeline_and_its_oldest_failing_stream() {
    let place = place();
    place.write("failing.toml", "[source.memory]\n[handler.rhai]\nscript = \"fails.rhai\"\n[sink.null]\n[errors.retry]\ninitial = \"1h\"\nmax = \"1h\"\n");
    place.write("fails.rhai", "fn handle(stream, events) { throw `no ${stream.name}`; }");
    let daemon = place.start(&[]);
    check(daemon.request("POST /pipelines/inbox/events", &JSON, EVENT), 202, "");
    check(daemon.request("POST /pipelines/failing/events", &JSON, EVENT), 202, "");
    let answer =
        daemon.until("/pipelines", |_, body| body.contains("\"failing_streams\":1") && body.contains("no a-1"));
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let (failing, inbox) = (&answer["pipelines"][0]["work"], &answer["pipelines"][1]["work"]);
    assert_eq!((&failing["unhandled"], &failing["at_tail"]), (&1.into(), &true.into()), "{answer}");
    let oldest = &failing["oldest_failing"];
    assert_eq!((&oldest["stream"], &oldest["index"], &oldest["attempts"]), (&"a-1".into(), &0.into(), &1.into()));
    assert!(oldest["next_try_in_seconds"].as_f64().unwrap() > 60.0, "{oldest}");
    assert!(inbox["oldest_failing"].is_null(), "{answer}");
    daemon.until("/pipelines/inbox", |_, body| {
        let inbox: serde_json::Value = serde_json::from_str(body).unwrap();
        inbox["work"]["handled_per_second"].as_f64().is_some_and(|rate| rate > 0.0)
    });
    let output = run(&mut status(&place, &daemon, &[]));
    said(
        &output,
        0,
        &[
            "PIPELINE  STATE    LAG   UNHANDLED",
            "failing   running  none  1 ",
            "stream `a-1` fails at event 0 for",
            "no a-1",
        ],
    );
    let output = run(&mut status(&place, &daemon, &["--json"]));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["pipelines"][1]["name"], "inbox");
    assert_eq!(daemon.stop("TERM").0, Some(0));
}

#[test]
fn status_watches_until_its_reader_leaves_and_needs_a_daemon_that_answers() {
    use std::io::BufRead as _;
    let place = place();
    let daemon = place.start(&[]);
    let mut child = status(&place, &daemon, &["--watch"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let heads = lines.by_ref().map(Result::unwrap).filter(|line| line.starts_with("PIPELINE")).take(2).count();
    assert_eq!(heads, 2);
    drop(lines);
    assert!(child.wait().unwrap().success());
    let mut elsewhere = status(&place, &daemon, &[]);
    assert_eq!(daemon.stop("TERM").0, Some(0));
    said(&run(&mut elsewhere), 1, &["error: the daemon does not answer at `127.0.0.1:"]);
    said(&run(program().args(["status", "--listen", "off"])), 1, &["`listen` is \"off\""]);
}

#[test]
fn r63_status_sends_the_token_of_the_settings() {
    let place = place();
    std::fs::write(place.path("settings.toml"), "[http]\ntoken = \"${TOKEN:-open-sesame-17}\"\n").unwrap();
    let daemon = place.start(&["--listen", "0.0.0.0:0", "--settings", "settings.toml"]);
    let refused = run(&mut status(&place, &daemon, &[]));
    said(&refused, 1, &["refuses: send the token of `http.token`"]);
    said(&run(&mut status(&place, &daemon, &["--settings", "settings.toml"])), 0, &["inbox"]);
}

#[test]
fn w2_another_program_reads_the_sinks_database_while_the_daemon_is_idle() {
    let place = Place::new(&[
        (
            "shop.toml",
            "checkpoint = \"sink\"\n[source.memory]\n[handler.rhai]\nscript = \"shop.rhai\"\n[sink.sqlite]\npath = \"shop.db\"\n\
             init = [\"CREATE TABLE IF NOT EXISTS seen (stream TEXT, n INTEGER)\"]\n",
        ),
        (
            "shop.rhai",
            "fn handle_event(stream, event) {\n\
                 emit(#{ sql: \"INSERT INTO seen VALUES (?, ?)\", params: [stream.name, event.index] });\n\
             }\n",
        ),
    ]);
    let daemon = place.start(&[]);
    for round in 1..=2_u64 {
        let event = EVENT.replace(":0,", &format!(":{},", round - 1));
        check(daemon.request("POST /pipelines/shop/events", &JSON, &event), 202, "");
        daemon.until("/metrics", |_, body| handled(body, "shop") == round);
        // An idle daemon writes its log back. The file then holds everything, and the log is empty.
        let log = place.path("data/shop.db-wal");
        daemon.until("/health", |_, _| std::fs::metadata(&log).is_ok_and(|log| log.len() == 0));
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let shop = rusqlite::Connection::open_with_flags(place.path("data/shop.db"), flags).unwrap();
        let seen: u32 = shop.query_row("SELECT count(*) FROM seen", [], |row| row.get(0)).unwrap();
        assert_eq!(u64::from(seen), round);
    }
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
}
