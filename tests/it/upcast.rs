//! Pipelines whose script has `upcast`: filters and handlers see the newest form of each event.

use std::path::Path;

use crate::daemon::{Place, check, program, run, text};

/// Events of `a-1` in two forms, and one of another type.
const EVENTS: &str = r#"{"stream":"a-1","index":0,"type":"Old","data":{"n":1}}
{"stream":"a-1","index":1,"type":"New","data":{"count":2}}
{"stream":"a-1","index":2,"type":"Seen","data":{}}
{"stream":"a-1","index":3,"type":"Old","data":{"n":"x"}}
{"stream":"a-1","index":4,"type":"Old","data":{"n":5}}
{"stream":"b-1","index":0,"type":"Seen","data":{}}
"#;

/// A module that makes `New` of `Old`. It fails at a text.
const FORMS: &str = "fn upcast(event) {
    if event.type != \"Old\" { return event; }
    #{ type: \"New\", data: #{ count: event.data.n * 1 } }
}
";

const PIPELINE: &str = "checkpoint = \"sink\"\n[source.json]\npath = \"events.jsonl\"\n[filter]\nevents = [\"New\"]\n\
    [handler.rhai]\nscript = \"p.rhai\"\n[errors]\nthen = \"skip\"\n[sink.sqlite]\npath = \"t.db\"\n\
    init = [\"CREATE TABLE IF NOT EXISTS t (stream TEXT, n INTEGER, type TEXT, count INTEGER)\"]\n";

const INSERT: &str =
    "emit(#{ sql: \"INSERT INTO t VALUES (?, ?, ?, ?)\", params: [e.stream.name, e.index, e.type, e.data.count] });";

/// Runs a script twice, and returns its rows. The second run repeats nothing.
fn rows(pipeline: &str, script: &str) -> (Vec<String>, String) {
    let script = format!("import \"forms\" as forms;\n{script}");
    let place =
        Place::new(&[("p.toml", pipeline), ("p.rhai", &script), ("forms.rhai", FORMS), ("events.jsonl", EVENTS)]);
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &[", 1 skipped"]);
    check(&place.run(&["--until-tail"]), 0, &["finished: 0 events handled"]);
    let database = rusqlite::Connection::open(place.path("data/t.db")).unwrap();
    let mut statement = database.prepare("SELECT stream || n || type || count FROM t ORDER BY rowid").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    (rows, text(&output))
}

#[test]
fn c19_the_newest_type_is_filtered_and_an_event_that_cannot_be_upcast_fails_alone() {
    let by_event = format!("fn handle_event(stream, e) {{ {INSERT} }}");
    let by_span = format!("fn handle(stream, events) {{ for e in events {{ {INSERT} }} }}");
    let in_batch = format!("fn handle_batch(spans) {{ for s in spans {{ for e in s.events {{ {} }} }} }}", {
        INSERT.replace("emit(", "s.emit(")
    });
    let with = |schedule: &str| format!("{PIPELINE}[schedule]\n{schedule}\n");
    let [batches, read_order, no_order] =
        ["streams_per_call = 4", "order = \"tranche\"", "order = \"none\"\nconcurrency = 1"].map(with);
    let cases = [
        (PIPELINE, &by_event),
        (PIPELINE, &by_span),
        (&batches, &in_batch),
        (&read_order, &by_event),
        (&read_order, &by_span),
        (&no_order, &by_span),
    ];
    for (pipeline, script) in cases {
        let (rows, said) = rows(pipeline, script);
        assert_eq!(rows, ["a-10New1", "a-11New2", "a-14New5"], "{script}\n{said}");
        assert_eq!(said.matches("event skipped").count(), 1, "{said}");
        let skipped = said.lines().find(|line| line.contains("event skipped")).unwrap();
        for part in [
            "stream=\"a-1\"",
            "index=3",
            "event_type=\"Old\"",
            "forms.rhai:3:",
            "`*` cannot multiply a string by an integer",
        ] {
            assert!(skipped.contains(part), "`{part}` is missing in {skipped}");
        }
    }
}

#[test]
fn handler_tests_upcast_their_events() {
    let test = "[[test]]\nname = \"old\"\nstream = \"a-1\"\nevents = [{ type = \"Old\", data = { n = 1 } }, { type = \"Seen\" }]\n\
                emits = [\"New\"]\n\
                [[test]]\nname = \"bad\"\nstream = \"a-1\"\nevents = [{ type = \"New\" }, { type = \"Old\", data = { n = \"x\" } }]\n\
                fails = { class = \"permanent\", index = 1, why = \"forms.rhai:3\" }\n";
    for entry in ["fn handle_event(stream, e) { emit(e.type) }", "fn handle(stream, events) { emit(events[0].type) }"] {
        let script = format!("import \"forms\" as forms;\n{entry}\n");
        let place = Place::new(&[
            ("p.toml", PIPELINE.split_once("checkpoint = \"sink\"\n").unwrap().1.split("[sink").next().unwrap()),
            ("p.rhai", &script),
            ("forms.rhai", FORMS),
            ("p.test.toml", test),
        ]);
        let output = run(program().arg("test").arg(place.path("pipelines")));
        let excluded = "the pipeline's filter excludes the event at index 1 (type `Seen`)";
        check(&output, 0, &["ok      p: old", excluded, "ok      p: bad", "2 passed"]);
    }
}

#[test]
fn the_sample_is_tested_and_explained() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/handlers");
    check(&run(program().arg("test").arg(samples.join("upcast.toml"))), 0, &["1 passed"]);
    let explained = run(program().arg("explain").arg(samples.join("upcast.toml")));
    check(&explained, 0, &["Its `upcast` brings each event into the newest form first"]);
}
