//! Foreign records, from raw files to a read model and to a web service; standard input; posted records.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use expect_test::{Expect, expect};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::contract::sink::server::Server;
use crate::daemon::{Place, check, handled, program, run, text};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/foreign")
}

/// Returns the rows of a table as text.
fn rows(database: &Path, query: &str) -> String {
    let database = Connection::open(database).unwrap();
    let mut statement = database.prepare(query).unwrap();
    let count = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        let columns = (0..count).map(|column| match row.get_ref(column).unwrap() {
            ValueRef::Null => "-".to_owned(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).replace('\n', "\\n"),
            other => panic!("{other:?}"),
        });
        Ok(columns.collect::<Vec<_>>().join(" | "))
    };
    statement.query_map([], row).unwrap().map(Result::unwrap).collect::<Vec<_>>().join("\n")
}

/// Runs a sample twice, and compares its read model: the second run repeats nothing.
fn check_table(name: &str, database: &str, query: &str, expected: &Expect) {
    let data = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut command = program();
        command.arg("--config").arg(samples().join(name)).arg("--data-dir").arg(data.path());
        check(&run(command.args(["--until-tail", "--listen", "off"])), 0, &["finished"]);
        expected.assert_eq(&rows(&data.path().join(database), query));
    }
}

#[test]
fn webhooks_of_a_forge_become_a_table_of_issues() {
    check_table(
        "forge.toml",
        "issues.db",
        "SELECT * FROM issues ORDER BY 1, 2",
        &expect![[r#"
        harbour/crane | 17 | Crane stops above 40 °C | closed | bug | 1 | 2026-02-03T07:00:00Z
        harbour/docs | 3 | Explain the limits | open | docs, good first issue | 0 | 2026-02-02T09:00:00Z"#]],
    );
}

#[test]
fn changes_of_a_database_become_a_copy_of_a_table() {
    check_table(
        "changes.toml",
        "customers.db",
        "SELECT * FROM customers ORDER BY 1",
        &expect![[r#"
        2 | Jonas Lind | Malmö | 2026-02-02T08:00:04Z
        3 | Mei Tan | Penang | 2026-02-02T08:00:02Z"#]],
    );
}

#[test]
fn batches_of_cloudevents_become_the_states_of_parcels() {
    check_table(
        "cloudevents.toml",
        "parcels.db",
        "SELECT * FROM parcels ORDER BY 1",
        &expect![[r#"
        4711 | delivered | Oslo | 2026-02-04T11:05:00+01:00
        4712 | accepted | Bergen | 2026-02-04T06:01:00Z"#]],
    );
}

#[test]
fn structured_logs_become_counts_of_errors() {
    check_table(
        "logs.toml",
        "errors.db",
        "SELECT * FROM errors ORDER BY 1, 2",
        &expect![[r#"
        checkout | payment provider timed out | 2 | 2026-02-04T08:01:01.5Z | r-3
        stock | deadlock detected | 1 | 2026-02-04T08:03:20.75Z | r-9"#]],
    );
}

#[test]
fn a_csv_export_becomes_a_table_of_orders() {
    check_table(
        "export.toml",
        "orders.db",
        "SELECT * FROM orders ORDER BY 1",
        &expect![[r#"
        A-1001 | Okafor, Amara | paid | 1990 |  | 2026-02-01T09:15:00Z
        A-1002 | Jonas Lind | refunded | 24000 | leave at the door\n"blue" house | 2026-02-03T08:00:00Z
        A-1003 | Mei Tan | open | 525 |  | 2026-02-02T16:40:00Z"#]],
    );
}

/// Returns a sample with its events sent to a web service in place of its script and its table.
fn posting(name: &str) -> String {
    let sample = std::fs::read_to_string(samples().join(name)).unwrap();
    let (source, _) = sample.split_once("[handler.rhai]").unwrap();
    let source = source.replace("checkpoint = \"sink\"\n", "");
    let directory = samples().display().to_string();
    let source = source.replace("path = \"", &format!("path = \"{directory}/"));
    format!("{source}\n[sink.http]\nurl = \"${{WEBHOOK_URL}}\"\npath = \"/events\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_records_reach_a_web_service_with_their_bodies_unchanged() {
    let server = Server::start().await;
    let names = ["forge", "changes", "cloudevents", "logs", "export"];
    let files: Vec<_> = names.map(|name| (format!("{name}.toml"), posting(&format!("{name}.toml")))).into();
    let files: Vec<_> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
    let place = Place::new(&files);
    let mut command = place.command(&["--until-tail"]);
    command.env("WEBHOOK_URL", &server.url);
    check(&tokio::task::block_in_place(|| run(&mut command)), 0, &["finished"]);
    let mut lines: Vec<_> = server
        .arrived()
        .iter()
        .map(|request| {
            let event: serde_json::Value = serde_json::from_str(&request.body).unwrap();
            let of = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", of("stream"), of("type"), of("timestamp"), event["data"].to_string().len())
        })
        .collect();
    lines.sort();
    expect![[r#"
        customers-1 d 2026-02-02T08:00:06Z 45
        customers-1 r 2026-02-02T08:00:00Z 45
        customers-2 r 2026-02-02T08:00:00.001Z 45
        customers-2 u 2026-02-02T08:00:04Z 44
        customers-3 c 2026-02-02T08:00:02Z 41
        issue-harbour/crane-17 closed 2026-02-03T07:00:00Z 492
        issue-harbour/crane-17 created 2026-02-02T10:00:00Z 556
        issue-harbour/crane-17 labeled 2026-02-02T08:05:00Z 522
        issue-harbour/crane-17 opened 2026-02-02T08:00:00Z 451
        issue-harbour/crane-19 deleted 2026-02-03T08:01:00Z 447
        issue-harbour/crane-19 opened 2026-02-03T08:00:00Z 446
        issue-harbour/docs-3 opened 2026-02-02T09:00:00Z 535
        order-A-1001 paid 2026-02-01T09:15:00Z 123
        order-A-1002 paid 2026-02-01T10:02:00Z 154
        order-A-1002 refunded 2026-02-03T08:00:00Z 125
        order-A-1003 open 2026-02-02T16:40:00Z 116
        parcel-4711 com.example.parcel.accepted 2026-02-04T06:00:00Z 33
        parcel-4711 com.example.parcel.delivered 2026-02-04T11:05:00+01:00 23
        parcel-4711 com.example.parcel.loaded 2026-02-04T07:30:00Z 14
        parcel-4712 com.example.parcel.accepted 2026-02-04T06:01:00Z 34
        service-checkout error 2026-02-04T08:00:01.5Z 192
        service-checkout error 2026-02-04T08:01:01.5Z 192
        service-stock error 2026-02-04T08:03:20.75Z 155"#]]
    .assert_eq(&lines.join("\n"));
    let forge = std::fs::read_to_string(samples().join("forge/deliveries.jsonl")).unwrap();
    let opened = forge.lines().nth(1).unwrap();
    assert!(server.arrived().iter().any(|request| request.body.contains(opened)), "the record is not encoded again");
}

const PIPED: &str = "[source.stdin]\n[source.stdin.map]\nstream = \"host-{/host}\"\ntype = \"Seen\"\n[sink.stdout]\n";

/// Runs a pipeline over some standard input. Returns the exit code and the output.
fn piped(place: &Place, input: &str) -> (Option<i32>, String) {
    let mut command = place.command(&[]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), text(&output))
}

#[test]
fn standard_input_is_a_job_that_ends_with_it() {
    let place = Place::new(&[("p.toml", PIPED)]);
    let (code, said) = piped(&place, "{\"host\":\"a\"}\n{\"host\":\"b\"}");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(r#"{"stream":"host-a","index":1,"type":"Seen","data":{"host":"a"}}"#), "{said}");
    assert!(said.contains(r#"{"stream":"host-b","index":2,"#) && said.contains("finished: 2 events"), "{said}");
    // The next input is another one: nothing of it counts as handled, and no index repeats.
    let (code, said) = piped(&place, "{\"host\":\"a\"}\n");
    let index = (1_i64 << 40) + 1;
    assert!(code == Some(0) && said.contains(&format!(r#"{{"stream":"host-a","index":{index},"#)), "{said}");
}

#[test]
fn a_record_of_standard_input_that_does_not_fit_ends_the_job_with_1() {
    let place = Place::new(&[("p.toml", PIPED)]);
    let (code, said) = piped(&place, "{\"host\":\"a\"}\n{\"hast\":\"b\"}\n");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/dev/stdin:2: `stream` needs `/host`, which the record lacks"), "{said}");
}

#[test]
fn a_regular_file_as_standard_input_is_read_from_its_start_each_time() {
    let place = Place::new(&[("p.toml", PIPED)]);
    std::fs::write(place.path("input"), "{\"host\":\"a\"}\n").unwrap();
    for _ in 0..2 {
        let mut command = place.command(&[]);
        command.stdin(std::fs::File::open(place.path("input")).unwrap());
        check(&run(&mut command), 0, &["host-a", "finished: 1 event"]);
    }
}

#[test]
fn posted_records_go_through_the_mapping() {
    let pipeline = "[source.memory.map]\neach = \"/items\"\nstream = \"order-{^/shop}-{/id}\"\ntype = \"/kind\"\n\
        [sink.file]\npath = \"out.jsonl\"\n";
    let place = Place::new(&[("p.toml", pipeline)]);
    let daemon = place.start(&[]);
    let headers = [("content-type", "application/json")];
    let post = |body: &str| daemon.request("POST /pipelines/p/events", &headers, body);
    let (status, body) = post(r#"{"shop":"n","items":[{"id":1,"kind":"Placed"},{"id":2,"kind":"Paid"}]}"#);
    assert_eq!((status, &*body), (202, r#"{"taken":2}"#));
    let (status, body) = post(r#"{"shop":"n","items":[{"id":3}]}"#);
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("line 1: item 1 of `/items`: `type` needs `/kind`, which the record lacks"), "{body}");
    daemon.until("/metrics", |_, page| handled(page, "p") == 2);
    daemon.stop("TERM");
    let written = place.read("data/out.jsonl");
    assert!(
        written.contains(r#""stream":"order-n-1""#) && written.contains(r#""type":"Paid","data":{"id":2,"#),
        "{written}"
    );
}

#[test]
fn a_misfit_is_subject_to_the_error_policy() {
    let pipeline = "[errors]\nthen = \"skip\"\n[source.json]\npath = \"in.jsonl\"\n[source.json.map]\nstream = \"s-{/s}\"\n\
        type = \"/t\"\n[sink.stdout]\n";
    let place = Place::new(&[("p.toml", pipeline), ("in.jsonl", "{\"s\":1}\n{\"s\":1,\"t\":\"T\"}\n")]);
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &["in.jsonl:1: `type` needs `/t`, which the record lacks", r#""index":2,"type":"T""#]);
}

#[test]
fn a_mapping_is_proposed_and_tried() {
    let file = samples().join("logs/app.jsonl");
    let output = run(program().args(["map", "--try"]).arg(&file));
    check(
        &output,
        0,
        &["[source.json.map]\n", "stream = \"service-{/service}\"\n", "time = \"/ts\"\n", "# 7 events of `"],
    );
    let output = run(program().args(["map", "logs", "--config"]).arg(samples()).arg("--try").arg(&file));
    check(&output, 0, &["# 3 events of `", "#   service-stock  error  2026-02-04T08:03:20.75Z  {\"level\""]);
    let export = samples().join("export/orders-2026-02.csv");
    let output = run(program().args(["map", "logs", "--json", "--config"]).arg(samples()).arg("--try").arg(&export));
    check(&output, 1, &[r#""misfit_count":7"#, r#""why":"expected a value at byte 1""#]);
}
