//! Runs each sample below `pipelines/` unchanged.

use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::{Expect, expect};
use propulsiond::clock::wall;
use rusqlite::Connection;

use crate::contract::sink::server::Server;
use crate::daemon::{Daemon, copy_directory, handled, program, run, text};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")
}

/// A sample and its data directory.
struct Sample {
    file: PathBuf,
    data: tempfile::TempDir,
}

impl Sample {
    fn new(name: &str) -> Self {
        Self { file: shipped().join(name), data: tempfile::tempdir().unwrap() }
    }

    fn command(&self) -> Command {
        let mut command = program();
        command.arg("--config").arg(&self.file).arg("--data-dir").arg(self.data.path());
        // Variables of the environment must not change the result.
        command.current_dir(self.data.path());
        command
    }

    fn job(&self) -> Command {
        let mut command = self.command();
        command.args(["--until-tail", "--listen", "off"]);
        command
    }

    /// Runs the sample to its tail, and returns its standard output and error.
    fn run(&self) -> (String, String) {
        self.run_with(&mut self.job())
    }

    fn run_with(&self, command: &mut Command) -> (String, String) {
        let output = run(command);
        assert_eq!(output.status.code(), Some(0), "{}: {}", self.file.display(), text(&output));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.data.path().join(name)).unwrap()
    }

    fn count(&self, database: &str, table: &str) -> i64 {
        let database = Connection::open(self.data.path().join(database)).unwrap();
        database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }
}

/// Asserts the content of lines, with the streams in any order.
fn check(lines: &str, expected: &Expect) {
    let mut lines: Vec<_> = lines.lines().collect();
    lines.sort_unstable();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn each_file_of_tills_is_a_tranche_and_loses_its_header_line() {
    let (out, _) = Sample::new("sources/tills.toml").run();
    let amount = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("{}/{} {}\n", event["stream"].as_str().unwrap(), event["index"], event["data"]["amount_cents"])
    };
    check(
        &out.lines().map(amount).collect::<String>(),
        &expect![[r#"
        till-1/1 1250
        till-1/2 4900
        till-1/3 1590
        till-2/1 3400
        till-2/2 980
        till-3/1 7300
        till-3/2 1250
        till-3/3 2200
        till-3/4 640"#]],
    );
}

#[test]
fn documents_are_split_into_events_and_unfolds() {
    check(
        &Sample::new("sources/documents.toml").run().0,
        &expect![[r#"
        7 now holds {"plant-fern":1}
        7/0 ItemAdded mug-enamel
        7/1 ItemAdded plant-fern
        7/2 ItemRemoved mug-enamel
        9 now holds {"lamp-desk":1}
        9/0 ItemAdded lamp-desk"#]],
    );
}

#[test]
fn lines_without_an_index_are_numbered_by_line() {
    check(
        &Sample::new("sources/arrivals.toml").run().0,
        &expect![[r#"
        sensor-2 was at 22.2 degrees (line 6)
        sensor-2 was at 22.8 degrees (line 8)
        sensor-2 was at 23.4 degrees (line 10)"#]],
    );
}

#[test]
fn generated_events_are_the_same_in_each_run() {
    let counts = || {
        let (_, log) = Sample::new("sources/generated.toml").run();
        assert!(log.contains("finished: 5,000 events handled"), "{log}");
        let rows = log.lines().filter_map(|line| Some(&line[line.find(" meter ")?..]));
        let counts = rows.map(|row| row.split_whitespace().take(3).collect::<Vec<_>>().join(" ") + "\n");
        counts.collect::<String>()
    };
    let first = counts();
    assert!(first.contains("MeterRead") && first.contains("MeterSealed"), "{first}");
    assert_eq!(first, counts());
}

#[test]
fn pushed_events_without_an_index_are_handled() {
    let sample = Sample::new("sources/pushed.toml");
    sample.run();
    let mut command = sample.command();
    command.args(["--listen", "127.0.0.1:0"]);
    let daemon = Daemon::start(command);
    let line = r#"{"stream":"door-3","type":"DoorOpened","data":{"by":"u-17"}}"#;
    let headers = [("content-type", "application/x-ndjson")];
    let (status, body) = daemon.request("POST /pipelines/pushed/events", &headers, line);
    assert_eq!(status, 202, "{body}");
    daemon.until("/metrics", |_, page| handled(page, "pushed") == 1);
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    assert!(sample.read("pushed.jsonl").contains(r#""data":{"by":"u-17"}"#));
}

/// Returns the number of handled events of a run.
fn handled_by(log: &str) -> &str {
    let line = log.lines().find_map(|line| line.split_once("finished: ")).unwrap();
    line.1.split_once(" events").unwrap().0
}

#[test]
fn a_second_run_resumes_from_sqlite_and_files_and_not_from_memory() {
    for (name, again) in [("sqlite", "0"), ("file", "0"), ("memory", "172")] {
        let sample = Sample::new(&format!("checkpoints/{name}.toml"));
        assert_eq!(handled_by(&sample.run().1), "172", "{name}");
        assert_eq!(handled_by(&sample.run().1), again, "{name}");
    }
}

#[test]
fn each_sample_keeps_progress_in_the_store_that_it_names() {
    let sample = Sample::new("checkpoints/sqlite.toml");
    sample.run();
    let database = Connection::open(sample.data.path().join("counts.checkpoints.db")).unwrap();
    let group: String =
        database.query_row("SELECT consumer_group FROM propulsiond_progress", [], |row| row.get(0)).unwrap();
    assert_eq!(group, "shop-counts");
    let sample = Sample::new("checkpoints/file.toml");
    sample.run();
    let files = std::fs::read_dir(sample.data.path().join("progress")).unwrap();
    let documents: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    assert!(documents.iter().any(|text| text.contains("2026-11-20.jsonl")), "{documents:?}");
}

#[test]
fn a_file_for_each_stream_holds_its_events_in_order() {
    let sample = Sample::new("sinks/files.toml");
    sample.run();
    let files = std::fs::read_dir(sample.data.path().join("orders")).unwrap();
    assert_eq!(files.count(), 9);
    let indexes: Vec<_> = sample
        .read("orders/1005.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_table_holds_each_event_once_after_several_runs() {
    let sample = Sample::new("sinks/table.toml");
    for _ in 0..2 {
        sample.run();
        assert_eq!(sample.count("events.db", "events"), 172);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_receives_each_event_with_its_key_and_token() {
    let server = Server::start().await;
    let sample = Sample::new("sinks/webhook.toml");
    let mut command = sample.job();
    command.env("WEBHOOK_URL", &server.url).env("WEBHOOK_TOKEN", "sesame-17");
    let (_, log) = tokio::task::block_in_place(|| sample.run_with(&mut command));
    assert!(!log.contains("sesame"), "{log}");
    let arrived = server.arrived();
    assert_eq!(arrived.len(), 33);
    for request in arrived {
        let event: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        let stream = event["stream"].as_str().unwrap();
        assert_eq!((&*request.method, event["type"].as_str()), ("POST", Some("OrderShipped")));
        assert_eq!(request.path, format!("/shipments/{}", stream.strip_prefix("order-").unwrap()));
        assert_eq!(request.header("authorization"), "Bearer sesame-17");
        assert_eq!(request.header("idempotency-key"), format!("webhook/{stream}:{}", event["index"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_receives_spans_from_a_yaml_pipeline() {
    let server = Server::start().await;
    let sample = Sample::new("sinks/webhook_runs.yaml");
    let mut command = sample.job();
    command.env("WEBHOOK_URL", &server.url);
    tokio::task::block_in_place(|| sample.run_with(&mut command));
    let mut events = 0;
    for request in server.arrived() {
        let span: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!((&*request.method, &*request.path), ("PUT", "/runs"));
        events += span["e"].as_array().unwrap_or_else(|| panic!("{span}")).len();
    }
    assert_eq!(events, 172);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_emits_requests_of_its_own() {
    let server = Server::start().await;
    let sample = Sample::new("sinks/requests.toml");
    let mut command = sample.job();
    command.env("WEBHOOK_URL", &server.url);
    tokio::task::block_in_place(|| sample.run_with(&mut command));
    let arrived = server.arrived();
    let count = |method: &str| arrived.iter().filter(|request| request.method == method).count();
    assert_eq!((count("PUT"), count("DELETE"), arrived.len()), (48, 6, 54));
    let put = arrived.iter().find(|request| request.method == "PUT" && request.path == "/orders/1031").unwrap();
    assert_eq!(put.header("x-placed-at"), "2026-11-16T08:17:37Z");
    assert_eq!(put.body, r#"{"cents":17880,"customer":"Margaret Tanaka"}"#);
}

#[test]
fn a_duplicate_in_the_feed_has_no_second_effect() {
    let sample = Sample::new("handlers/tuning.toml");
    assert_eq!(handled_by(&sample.run().1), "10,000");
    assert_eq!(handled_by(&sample.run().1), "0");
    assert_eq!(sample.count("meters.db", "meters"), 500);
    assert_eq!(sample.count("meters.db", "meters WHERE events <> last + 1"), 0);
}

#[test]
fn the_summary_names_the_speed_of_a_script() {
    let (_, log) = Sample::new("sinks/speed.toml").run();
    assert!(log.contains("finished: 50,000 events handled in ") && log.contains("/s)"), "{log}");
}

#[test]
fn transient_errors_are_retried_and_permanent_ones_skipped() {
    let sample = Sample::new("handlers/errors.toml");
    let (out, log) = sample.run();
    check(
        &out,
        &expect![[r#"
        1044: damaged in transit
        1047: damaged in transit"#]],
    );
    assert!(log.contains("event skipped"), "{log}");
}

#[test]
fn a_script_handles_one_event_a_call_and_defers_events_until_they_are_due() {
    let directory = tempfile::tempdir().unwrap();
    copy_directory(&shipped().join("handlers"), directory.path());
    let sample = Sample { file: directory.path().join("waiting.toml"), ..Sample::new("") };
    check(
        &sample.run().0,
        &expect![[r#"
        1/0: water the fern
        1/1: water it again
        2/0: call the carrier"#]],
    );

    let due = wall() + std::time::Duration::from_secs(2);
    let due_text = due.format(&time::format_description::well_known::Rfc3339).unwrap();
    let line = format!(
        "{{\"stream\":\"reminder-3\",\"index\":0,\"type\":\"ReminderSet\",\"data\":{{\"due\":\"{due_text}\",\"text\":\"lunch\"}}}}\n"
    );
    let feed = directory.path().join("reminders.jsonl");
    std::fs::write(&feed, std::fs::read_to_string(&feed).unwrap() + line.as_str()).unwrap();
    let (out, log) = sample.run();
    assert_eq!(out, "3/0: lunch\n", "{log}");
    assert!(wall() >= due, "it was handled before its time");
}

#[test]
fn a_price_in_an_older_form_is_upcast() {
    let sample = Sample::new("handlers/upcast.toml");
    sample.run();
    let mut lines: Vec<_> = sample.read("prices.txt").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["espresso: 240 EUR", "espresso: 260 EUR", "latte: 390 EUR", "latte: 410 EUR"]);
}

#[test]
fn a_script_with_a_module_writes_text_lines_and_counts() {
    let sample = Sample::new("handlers/modules.toml");
    let (_, log) = sample.run();
    check(
        &sample.read("large-orders.txt"),
        &expect![[r#"
        large order 1004: 550.90 EUR on 2026-11-19T20:32:08Z
        large order 1005: 756.00 EUR on 2026-11-20T18:45:22Z
        large order 1006: 378.00 EUR on 2026-11-18T23:00:00Z
        large order 1010: 307.00 EUR on 2026-11-20T05:33:09Z
        large order 1012: 452.90 EUR on 2026-11-18T21:54:05Z
        large order 1016: 433.60 EUR on 2026-11-17T12:03:03Z
        large order 1017: 307.00 EUR on 2026-11-21T13:06:51Z
        large order 1018: 395.50 EUR on 2026-11-17T22:39:02Z
        large order 1020: 454.00 EUR on 2026-11-17T17:12:57Z
        large order 1022: 734.20 EUR on 2026-11-21T21:03:28Z
        large order 1027: 369.50 EUR on 2026-11-18T15:05:35Z
        large order 1032: 930.60 EUR on 2026-11-19T17:49:33Z
        large order 1040: 421.90 EUR on 2026-11-17T22:25:07Z
        large order 1041: 595.50 EUR on 2026-11-18T13:27:23Z"#]],
    );
    assert!(log.contains("order-1017 is large"), "{log}");
}

#[test]
fn one_call_decides_on_several_streams() {
    let (out, _) = Sample::new("handlers/batches.toml").run();
    assert_eq!(out.lines().filter(|line| line.contains("\"cents\":")).count(), 48, "{out}");
}

#[test]
fn an_audit_log_holds_every_event_in_feed_order() {
    let sample = Sample::new("handlers/in_order.toml");
    sample.run();
    let mut wanted = Vec::new();
    for file in ["2026-11-16", "2026-11-20"] {
        let feed = std::fs::read_to_string(shipped().join(format!("shop/{file}.jsonl"))).unwrap();
        wanted.extend(
            feed.lines()
                .map(key)
                .filter(|(stream, _, kind)| stream != "order-1015" && kind != "OrderPacked" && kind != "OrderReturned"),
        );
    }
    assert_eq!(sample.read("audit.jsonl").lines().map(key).collect::<Vec<_>>(), wanted);
}

/// Returns the stream, the index and the type of an event.
fn key(line: &str) -> (String, u64, String) {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    (text("stream"), event["index"].as_u64().unwrap(), text("type"))
}
