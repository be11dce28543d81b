//! Pipelines whose script has `handle_event`: the effects of an event share its fate, and no other event's.

use crate::contract::sink::server::{Reply, Server};
use crate::daemon::{Place, check, text};

fn events(count: usize) -> String {
    (0..count).map(|index| format!("{{\"stream\":\"a-1\",\"index\":{index},\"type\":\"A\",\"data\":{{}}}}\n")).collect()
}

const SOURCE: &str =
    "[source.json]\npath = \"events.jsonl\"\n[handler.rhai]\nscript = \"p.rhai\"\n[errors]\nthen = \"skip\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn c24_requests_are_named_by_their_event_and_a_refused_one_repeats_those_of_its_event_only() {
    let server = Server::start().await;
    let place = Place::new(&[
        ("p.toml", &format!("{SOURCE}[sink.http]\nurl = \"{}\"\n", server.url)),
        ("p.rhai", "fn handle_event(stream, event) { emit(#{ body: \"a\" }); emit(#{ body: \"b\" }); }"),
        ("events.jsonl", &events(4)),
    ]);
    // The second request of event 1 is refused whenever it comes.
    server.reply([200, 200, 200, 400, 200, 400].map(Reply::Status));
    check(
        &place.run(&["--until-tail"]),
        0,
        &["finished: 3 events handled in", ", 1 skipped", "event skipped", "index=1"],
    );
    let arrived = server.arrived();
    let keys: Vec<_> = arrived.iter().map(|request| request.header("idempotency-key")).collect();
    let expected = ["0#0", "0#1", "1#0", "1#1", "1#0", "1#1", "2#0", "2#1", "3#0", "3#1"];
    assert_eq!(keys, expected.map(|key| format!("p/a-1:{key}")));
}

/// Runs a script over five events before a sink that holds the progress, and returns the indexes that it stored.
fn stored(script: &str) -> (Vec<i64>, String) {
    let init = "init = [\"CREATE TABLE IF NOT EXISTS t (n INTEGER CHECK (n <> 2))\"]\n";
    let place = Place::new(&[
        ("p.toml", &format!("checkpoint = \"sink\"\n{SOURCE}[sink.sqlite]\npath = \"t.db\"\n{init}")),
        ("p.rhai", script),
        ("events.jsonl", &events(5)),
    ]);
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &["finished: 4 events handled in", ", 1 skipped", "event skipped", "index=2"]);
    let database = rusqlite::Connection::open(place.path("data/t.db")).unwrap();
    let mut statement = database.prepare("SELECT n FROM t ORDER BY rowid").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    (rows, text(&output))
}

#[test]
fn c19_a_statement_that_fails_costs_its_event_alone() {
    let script =
        "fn handle_event(stream, event) { emit(#{ sql: \"INSERT INTO t VALUES (?)\", params: [event.index] }); }";
    let (rows, said) = stored(script);
    assert_eq!(rows, [0, 1, 3, 4]);
    assert_eq!(said.matches("event skipped").count(), 1, "{said}");
}

#[test]
fn c19_an_event_that_throws_costs_itself_alone() {
    let script = "fn handle_event(stream, event) {\n\
                  if event.index == 2 { throw #{ class: \"permanent\", why: \"no\" } }\n\
                  emit(#{ sql: \"INSERT INTO t VALUES (?)\", params: [event.index] });\n}";
    assert_eq!(stored(script).0, [0, 1, 3, 4]);
}
