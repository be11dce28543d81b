use std::path::Path;

use expect_test::{Expect, expect};
use tempfile::TempDir;

use super::*;
use crate::config::document::Style;

const PIPELINE: &str = "[source.memory]\n[filter]\nexclude_events = [\"Viewed\"]\nexclude_categories = [\"cart\"]\n\
    [handler.rhai]\nscript = \"p.rhai\"\nparams = { vat = 0.5 }\n[sink.file]\npath = \"${PROPULSIOND_TEST_UNSET}\"\n";

const SCRIPT: &str = r#"
fn handle(stream, events) {
    for e in events {
        switch e.type {
            "Placed" => emit(#{ id: stream.id, total: e.data.total * (1.0 + params.vat), at: time.now() }),
            "Seen" => emit(#{ meta: e.meta, by: e.causation, raw: e.raw, unfold: e.is_unfold, index: e.index }),
            "Wait" => return defer("5s"),
            "Part" => return upto(e.index, "part"),
            "Tag" => return done("seen"),
            "Odd" => return malformed("it is odd", e.index),
            "Bad" => throw #{ class: "permanent", why: "it is bad", index: e.index },
            "Body" => emit(e.data.x),
        }
    }
}
"#;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn said(root: &Path, result: &Result<Report, Vec<Problem>>) -> String {
    let said = match result {
        Ok(report) => report.render(Style::Plain),
        Err(problems) => problems.iter().map(|problem| problem.render(Style::Plain)).collect(),
    };
    said.replace(&format!("{}/", root.display()), "")
}

/// Runs the tests of one pipeline, and compares the report.
fn check(tests: &str, expected: Expect) {
    let directory = directory(&[("p.toml", PIPELINE), ("p.rhai", SCRIPT), ("p.test.toml", tests)]);
    let result = run(&[directory.path().to_owned()], None);
    expected.assert_eq(&said(directory.path(), &result));
    assert_eq!(
        super::check(&[directory.path().to_owned()]).1,
        result.err().unwrap_or_default(),
        "`check` says the same"
    );
}

/// Like [`check`], of one test that is otherwise in order.
fn check_one(rest: &str, expected: Expect) {
    check(&format!("[[test]]\nname = \"a\"\nstream = \"order-1\"\n{rest}\n"), expected);
}

#[test]
fn r78_time_stands_still_where_a_test_says_so() {
    check(
        r#"
        [[test]]
        name = "at its own time"
        now = "2026-01-31T12:00:00Z"
        stream = "order-1"
        events = [{ type = "Placed", data = { total = 10 } }]
        emits = [{ id = "1", total = 15.0, at = "2026-01-31T12:00:00Z" }]
        [[test]]
        name = "at the usual time"
        stream = "order-1"
        events = [{ type = "Placed", data = { total = 10 } }]
        emits_some = [{ at = "2026-01-01T00:00:00Z" }]
        "#,
        expect![[r#"
            ok      p: at its own time
            ok      p: at the usual time
            2 passed
        "#]],
    );
}

#[test]
fn everything_an_event_can_have_reaches_the_script() {
    check_one(
        r#"events = [
            { type = "Seen", index = 3, raw = "{ }", meta = { a = [1, { "$json" = "null" }] }, causation = "c" },
            { type = "Seen" },
            { type = "Seen", unfold = true, data = { "$json" = "18446744073709551616" } },
        ]
        emits = [
            { meta = { a = [1, { "$json" = "null" }] }, by = "c", raw = "{ }", unfold = false, index = 3 },
            { meta = { "$json" = "null" }, by = { "$json" = "null" }, raw = "", unfold = false, index = 4 },
            { meta = { "$json" = "null" }, by = { "$json" = "null" }, raw = "18446744073709551616", unfold = true, index = 5 },
        ]"#,
        expect![[r#"
            ok      p: a
            1 passed
        "#]],
    );
}

#[test]
fn the_end_of_a_call_is_compared() {
    let cases = [
        ("Wait", "returns = { defer = \"5s\" }"),
        ("Part", "first_index = 4\nreturns = { upto = 4, tag = \"part\" }"),
        ("Tag", "returns = { done = \"seen\" }"),
        ("Tag", "returns = \"all\""),
        ("Odd", "returns = { malformed = \"it is odd\" }"),
        ("Odd", "fails = { class = \"malformed\", index = 0 }"),
        ("Bad", "fails = { class = \"permanent\", why = \"it is bad\" }"),
        ("Bad", "fails = {}"),
        ("Wait", "returns = { defer = \"6s\" }"),
        ("Part", "first_index = 4\nreturns = { upto = 5 }"),
        ("Tag", "returns = { done = \"other\" }"),
        ("Odd", ""),
        ("Bad", "fails = { class = \"transient\", why = \"it is bad\", index = 7 }"),
        ("Placed", "fails = { class = \"permanent\" }"),
    ];
    let tests = cases.iter().enumerate().map(|(number, (event_type, rest))| {
        format!("[[test]]\nname = \"{number}\"\nstream = \"o-1\"\nevents = [{{ type = \"{event_type}\", data = {{ total = 1 }} }}]\n{rest}\n")
    });
    check(
        &tests.collect::<String>(),
        expect![[r#"
            ok      p: 0
            ok      p: 1
            ok      p: 2
            ok      p: 3
            ok      p: 4
            ok      p: 5
            ok      p: 6
            ok      p: 7
            FAILED  p: 8
                    --> p.test.toml:43:8
                    expected to return `defer("6s")`, but it returned `defer("5s")`
            FAILED  p: 9
                    --> p.test.toml:48:8
                    expected to return `upto(5)`, but it returned `upto(4, "part")`
            FAILED  p: 10
                    --> p.test.toml:54:8
                    expected to return `done("other")`, but it returned `done("seen")`
            FAILED  p: 11
                    --> p.test.toml:59:8
                    the call failed (malformed): p.rhai: malformed: it is odd (stream `o-1`, index 0, type `Odd`)
            FAILED  p: 12
                    --> p.test.toml:64:8
                    expected a failure (transient, index 7, saying `it is bad`), but it failed otherwise (permanent, index 0): p.rhai:11:22: it is bad (stream `o-1`, index 0, type `Bad`)
            FAILED  p: 13
                    --> p.test.toml:69:8
                    expected a failure (permanent), but it returned nothing (all handled)
            8 passed, 6 failed
        "#]],
    );
}

#[test]
fn emitted_values_are_compared_line_by_line() {
    check_one(
        r#"events = [{ type = "Placed", data = { total = 10 } }, { type = "Placed", data = { total = 2 } }]
        emits = [
            { id = "1", total = 15.0, at = "2026-01-01T00:00:00Z" },
            { id = "1", total = 3, at = "2026-01-01T00:00:00Z" },
        ]"#,
        expect![[r#"
            FAILED  p: a
                    --> p.test.toml:2:8
                    the emitted effects are not the expected ones (-: expected, +: emitted)
                      …
                      {
                        "at": "2026-01-01T00:00:00Z",
                        "id": "1",
                    -   "total": 3
                    +   "total": 3.0
                      }
            0 passed, 1 failed
        "#]],
    );
    check_one(
        "events = [{ type = \"Body\", data = { x = 1 } }]",
        expect![[r#"
            FAILED  p: a
                    --> p.test.toml:2:8
                    the emitted effects are not the expected ones (-: expected, +: emitted)
                    + 1
            0 passed, 1 failed
        "#]],
    );
}

#[test]
fn some_of_what_is_emitted_is_looked_for_in_order() {
    let events = r#"events = [{ type = "Placed", data = { total = 10 } }, { type = "Placed", data = { total = 2 } }]"#;
    check_one(
        &format!("{events}\nemits_some = [{{ total = 3.0 }}]"),
        expect![[r#"
        ok      p: a
        1 passed
    "#]],
    );
    check_one(
        &format!("{events}\nemits_some = [{{ total = 3.0 }}, {{ total = 15.0 }}]"),
        expect![[r#"
            FAILED  p: a
                    --> p.test.toml:2:8
                    value 2 of `emits_some` was not emitted, or not after those before it in `emits_some`
                      {
                        "total": 15.0
                      }
                    the emitted effects are
                      {
                        "at": "2026-01-01T00:00:00Z",
                        "id": "1",
                        "total": 15.0
                      }
                      {
                        "at": "2026-01-01T00:00:00Z",
                        "id": "1",
                        "total": 3.0
                      }
            0 passed, 1 failed
        "#]],
    );
    check_one(
        "events = [{ type = \"Tag\" }]\nemits_some = [\"x\"]",
        expect![[r#"
            FAILED  p: a
                    --> p.test.toml:2:8
                    value 1 of `emits_some` was not emitted
                      "x"
                    the emitted effects are
                      nothing
            0 passed, 1 failed
        "#]],
    );
}

#[test]
fn excluded_events_are_reported_and_not_offered() {
    check(
        r#"
        [[test]]
        name = "a type"
        stream = "order-1"
        events = [{ type = "Viewed" }, { type = "Tag" }]
        [[test]]
        name = "a stream"
        stream = "cart-1"
        events = [{ type = "Tag" }]
        returns = { done = "seen" }
        "#,
        expect![[r#"
            ok      p: a type
                    the pipeline's filter excludes the event at index 0 (type `Viewed`)
            FAILED  p: a stream
                    --> p.test.toml:7:16
                    the pipeline's filter excludes the event at index 0 (stream `cart-1`)
                    the script was not called: the pipeline's filter excludes every event of the stream
            1 passed, 1 failed
        "#]],
    );
}

#[test]
fn a_batch_is_called_once_with_all_streams_of_a_test() {
    let pipeline = format!("{PIPELINE}[schedule]\nstreams_per_call = 2\n");
    let script = r#"fn handle_batch(spans) {
        for s in spans { if s.stream.id == "2" { s.fail("no") } else { s.emit(spans.len()); } }
    }"#;
    let tests = r#"
        [[test]]
        name = "two"
        streams = [
            { stream = "o-1", events = [{ type = "A" }], emits = [2] },
            { stream = "o-2", events = [{ type = "A" }], fails = { class = "transient" } },
        ]
        [[test]]
        name = "one that is not as expected"
        streams = [
            { stream = "o-2", events = [{ type = "A" }] },
            { stream = "cart-1", events = [{ type = "A" }] },
        ]
        [[test]]
        name = "one alone"
        stream = "o-3"
        events = [{ type = "A" }]
        emits = [1]
    "#;
    let directory = directory(&[("p.toml", &pipeline), ("p.rhai", script), ("p.test.toml", tests)]);
    let result = run(&[directory.path().join("p.toml")], None);
    expect![[r#"
        ok      p: two
        FAILED  p: one that is not as expected
                --> p.test.toml:9:16
                the pipeline's filter excludes the event at index 0 (stream `cart-1`)
                of stream `o-2`: the call failed (transient): p.rhai: no (stream `o-2`, index 0, type `A`)
        ok      p: one alone
        2 passed, 1 failed
    "#]]
    .assert_eq(&said(directory.path(), &result));
}

#[test]
fn handle_event_is_called_until_an_event_is_not_handled() {
    let script = r#"fn handle_event(stream, event) {
        switch event.type {
            "Wait" => return defer("5s"),
            "Bad" => throw #{ class: "permanent", why: "it is bad" },
        }
        emit(event.index);
        done("seen")
    }"#;
    let test = |name: &str, types: [&str; 3], rest: &str| {
        let events = types.map(|name| format!("{{ type = \"{name}\" }}")).join(", ");
        format!("[[test]]\nname = \"{name}\"\nstream = \"o-1\"\nevents = [{events}]\n{rest}\n")
    };
    let tests = [
        test("all", ["A", "A", "A"], "emits = [0, 1, 2]\nreturns = { done = \"seen\" }"),
        test("the last is deferred", ["A", "A", "Wait"], "emits = [0, 1]\nreturns = { defer = \"5s\" }"),
        test(
            "the second fails",
            ["A", "Bad", "A"],
            "fails = { class = \"permanent\", why = \"it is bad\", index = 1 }",
        ),
        test("another fails", ["A", "A", "Bad"], "fails = { index = 1 }"),
        test("fewer effects", ["A", "Wait", "Bad"], "emits = [0, 1]\nreturns = { defer = \"5s\" }"),
    ];
    let directory = directory(&[("p.toml", PIPELINE), ("p.rhai", script), ("p.test.toml", &tests.concat())]);
    expect![[r#"
        ok      p: all
        ok      p: the last is deferred
        ok      p: the second fails
        FAILED  p: another fails
                --> p.test.toml:19:8
                expected a failure (index 1), but it failed otherwise (permanent, index 2): p.rhai:4:22: it is bad (stream `o-1`, index 2, type `Bad`)
        FAILED  p: fewer effects
                --> p.test.toml:24:8
                the emitted effects are not the expected ones (-: expected, +: emitted)
                  0
                - 1
        3 passed, 2 failed
    "#]].assert_eq(&said(directory.path(), &run(&[directory.path().join("p.toml")], None)));
}

#[test]
fn a_filter_chooses_by_the_name_of_test_or_pipeline() {
    let test = |name: &str| format!("[[test]]\nname = \"{name}\"\nstream = \"o-1\"\nevents = [{{ type = \"A\" }}]\n");
    let tests = [test("one"), test("two")].concat();
    let directory = directory(&[("p.toml", PIPELINE), ("p.rhai", SCRIPT), ("p.test.toml", &tests)]);
    let names = |filter| -> Vec<_> {
        run(&[directory.path().to_owned()], Some(filter)).unwrap().tests.into_iter().map(|test| test.name).collect()
    };
    assert_eq!(
        (names("tw"), names("p"), names("x")),
        (vec!["two".to_owned()], vec!["one".to_owned(), "two".to_owned()], vec![])
    );
}

/// Runs one test of a script that emits something, before a sink.
fn check_emitted(sink: &str, emitted: &str, expected: Expect) {
    let pipeline = format!("[source.memory]\n[handler.rhai]\nscript = \"p.rhai\"\n{sink}");
    let script = format!("fn handle(stream, events) {{ emit({emitted}); }}");
    let test = "[[test]]\nname = \"a\"\nstream = \"o-1\"\nevents = [{ type = \"A\" }]\nemits_some = []\n";
    let directory = directory(&[("p.toml", &pipeline), ("p.rhai", &script), ("p.test.toml", test)]);
    let result = run(&[directory.path().to_owned()], None);
    let said = said(directory.path(), &result);
    let told = said.lines().map(str::trim).find(|line| line.starts_with("the sink would") || line.contains("passed"));
    expected.assert_eq(told.unwrap_or(&said));
}

#[test]
fn the_sink_must_accept_the_emitted_values() {
    let sqlite = "[sink.sqlite]\ninit = ['CREATE TABLE t (a, b)']\n";
    let check = |emitted: &str, expected: Expect| check_emitted(sqlite, emitted, expected);
    check("#{ sql: \"INSERT INTO t VALUES (?1, ?2)\", params: [1, 2] }", expect!["1 passed"]);
    check(
        "\"text\"",
        expect![[
            r#"the sink would refuse the emitted effects: the `sqlite` sink expects `#{ sql: "...", params: [...] }`, not a string"#
        ]],
    );
    check(
        "#{ sql: \"INSERT INTO t VALUES (?1, ?2)\", params: [1] }",
        expect![
            "the sink would refuse the emitted effects: cannot run `INSERT INTO t VALUES (?1, ?2)`: it has 2 parameters, but `params` gives 1"
        ],
    );
    check(
        "#{ sql: \"INSERT INTO u VALUES (1)\" }",
        expect![
            "the sink would refuse the emitted effects: cannot run `INSERT INTO u VALUES (1)`: no such table: u (correct the statement, or create the table in `init`)"
        ],
    );
    check(
        "#{ sql: \"INSERT INTO t (c) VALUES (1)\" }",
        expect![
            "the sink would refuse the emitted effects: cannot run `INSERT INTO t (c) VALUES (1)`: table t has no column named c (correct the statement, or declare the column in `init` and run `propulsiond rebuild`)"
        ],
    );
    check(
        "#{ sql: \"INSRT INTO t VALUES (1, 2)\" }",
        expect![
            "the sink would refuse the emitted effects: cannot run `INSRT INTO t VALUES (1, 2)`: `insrt` is not allowed in effects"
        ],
    );
    check(
        "#{ sql: \"CREATE TABLE u (a)\" }); emit(#{ sql: \"INSERT INTO u VALUES (:a)\", params: #{ a: 1 } }",
        expect!["1 passed"],
    );
    // The tables are unknown: another program creates them.
    check_emitted("[sink.sqlite]\n", "#{ sql: \"INSERT INTO t VALUES (1, 2)\" }", expect!["1 passed"]);
    check_emitted(
        "[sink.sqlite]\n",
        "#{ sql: \"SELECT 1\" }",
        expect![
            "the sink would refuse the emitted effects: cannot run `SELECT 1`: it only reads, and its result would go nowhere"
        ],
    );
    let http = "[sink.http]\nurl = \"${PROPULSIOND_TEST_UNSET}\"\n";
    check_emitted(http, "#{ body: 1, headers: #{ a: \"b\" } }", expect!["1 passed"]);
    check_emitted(
        http,
        "#{ bdy: 1 }",
        expect![
            "the sink would refuse the emitted effects: effect 0 of stream `o-1` is not a valid request: unknown key `bdy`, expected `body`, `path`, `method` or `headers`"
        ],
    );
    check_emitted(
        http,
        "#{ headers: #{ \"a b\": 1 } }",
        expect![
            "the sink would refuse the emitted effects: effect 0 of stream `o-1` is not a valid request: `a b` is not a valid header name"
        ],
    );
    check_emitted("[sink.stdout]\n", "1", expect!["1 passed"]);
}

const MAPPED: &str = "[source.json]\npath = \"in\"\n[source.json.map]\nwhen = [\"/n\"]\nstream = \"order-{/n}\"\ntype = \"/t\"\n\
    [handler.rhai]\nscript = \"p.rhai\"\n[sink.stdout]\n";

/// Runs tests whose records go through a mapping.
fn check_records(tests: &str, expected: Expect) {
    let script = "fn handle(stream, events) { for e in events { emit(#{ of: stream.id, t: e.type, i: e.index }); } }";
    let directory = directory(&[("p.toml", MAPPED), ("p.rhai", script), ("p.test.toml", tests)]);
    expected.assert_eq(&said(directory.path(), &run(&[directory.path().to_owned()], None)));
}

#[test]
fn raw_records_go_through_the_mapping_of_the_source() {
    check_records(
        r#"
[[test]]
name = "one stream"
first_index = 7
records = ['{"n":1,"t":"A"}', '{"n":1,"t":"B"}']
emits = [{ of = "1", t = "A", i = 7 }, { of = "1", t = "B", i = 8 }]
[[test]]
name = "a chosen stream"
stream = "order-2"
record = """
{"n":1,"t":"A"}
{"n":2,"t":"B"}
"""
emits = [{ of = "2", t = "B", i = 1 }]
[[test]]
name = "a record that is left out"
record = '{"t":"A"}'
"#,
        expect![[r#"
            ok      p: one stream
            ok      p: a chosen stream
            ok      p: a record that is left out
                    the pipeline's filter excludes every record (`map.when`)
            3 passed
        "#]],
    );
}

#[test]
fn records_that_make_no_call_are_named() {
    check_records(
        r#"
[[test]]
name = "a misfit"
records = ['{"n":1,"t":"A"}', '{"n":1}']
[[test]]
name = "two streams"
records = ['{"n":1,"t":"A"}', '{"n":2,"t":"A"}']
[[test]]
name = "another stream"
stream = "order-3"
record = '{"n":1,"t":"A"}'
[[test]]
name = "events as well"
stream = "order-1"
record = '{"n":1,"t":"A"}'
events = [{ type = "A" }]
[[test]]
name = "both"
record = "{}"
records = ["{}"]
"#,
        expect![[r#"
            error: line 2: `type` needs `/t`, which the record lacks
             --> p.test.toml:4:11
              |
            4 | records = ['{"n":1,"t":"A"}', '{"n":1}']
              |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ test[0].records
            error: the records are of several streams: `order-1` and `order-2`
             --> p.test.toml:7:11
              |
            7 | records = ['{"n":1,"t":"A"}', '{"n":2,"t":"A"}']
              |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ test[1].records
              |
              = help: choose one by `stream`
            error: no record is of the stream `order-3`: they are of `order-1`
              --> p.test.toml:11:10
               |
            11 | record = '{"n":1,"t":"A"}'
               |          ^^^^^^^^^^^^^^^^^ test[2].record
            error: `record` cannot be combined with `events`
              --> p.test.toml:15:10
               |
            15 | record = '{"n":1,"t":"A"}'
               |          ^^^^^^^^^^^^^^^^^ test[3].record
               |
               = help: remove one of the two
            error: `records` cannot be combined with `record`
              --> p.test.toml:20:11
               |
            20 | records = ["{}"]
               |           ^^^^^^ test[4].records
               |
               = help: remove one of the two
        "#]],
    );
    check_one(
        "record = \"{}\"",
        expect![[r#"
        error: the source of this pipeline has no `map` that could read records
         --> p.test.toml:4:10
          |
        4 | record = "{}"
          |          ^^^^ test[0].record
    "#]],
    );
}
