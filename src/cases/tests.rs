use std::path::Path;

use expect_test::{Expect, expect};
use tempfile::TempDir;

use super::*;
use crate::document::Style;

const PIPELINE: &str = "[source.memory]\n[filter]\nexclude_events = [\"Viewed\"]\nexclude_categories = [\"cart\"]\n\
    [handler.rhai]\nscript = \"p.rhai\"\nparams = { vat = 0.5 }\n[sink.http]\nurl = \"${PROPULSIOND_TEST_UNSET}\"\n";

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

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn said(root: &Path, result: &Result<Report, Vec<Problem>>) -> String {
    let said = match result {
        Ok(report) => report.render(Style::Plain),
        Err(problems) => problems.iter().map(|problem| problem.render(Style::Plain)).collect(),
    };
    said.replace(&format!("{}/", root.display()), "")
}

/// Runs the tests of one pipeline, and compares what is said of them.
fn check(tests: &str, expected: Expect) {
    let folder = folder(&[("p.toml", PIPELINE), ("p.rhai", SCRIPT), ("p.test.toml", tests)]);
    let result = run(&[folder.path().to_owned()], None);
    expected.assert_eq(&said(folder.path(), &result));
    assert_eq!(super::check(&[folder.path().to_owned()]), result.err().unwrap_or_default(), "`check` says the same");
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
fn what_a_call_ends_with_is_compared() {
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
                expected a failure (transient, index 7, saying `it is bad`), but it failed so (permanent, index 0): p.rhai:11:22: it is bad (stream `o-1`, index 0, type `Bad`)
        FAILED  p: 13
                --> p.test.toml:69:8
                expected a failure (permanent), but it returned nothing (all handled)
        8 passed, 6 failed
    "#]],
    );
}

#[test]
fn what_is_emitted_is_compared_line_by_line() {
    check_one(
        r#"events = [{ type = "Placed", data = { total = 10 } }, { type = "Placed", data = { total = 2 } }]
        emits = [
            { id = "1", total = 15.0, at = "2026-01-01T00:00:00Z" },
            { id = "1", total = 3, at = "2026-01-01T00:00:00Z" },
        ]"#,
        expect![[r#"
            FAILED  p: a
                    --> p.test.toml:2:8
                    what it emitted is not what was expected (-: expected, +: emitted)
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
                what it emitted is not what was expected (-: expected, +: emitted)
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
                value 2 of `emits_some` was not emitted, or not behind those before it in `emits_some`
                  {
                    "total": 15.0
                  }
                emitted was
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
                emitted was
                  nothing
        0 passed, 1 failed
    "#]],
    );
}

#[test]
fn what_the_filter_excludes_is_not_offered_and_said() {
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
    let folder = folder(&[("p.toml", &pipeline), ("p.rhai", script), ("p.test.toml", tests)]);
    let result = run(&[folder.path().join("p.toml")], None);
    expect![[r#"
        ok      p: two
        FAILED  p: one that is not as expected
                --> p.test.toml:9:16
                the pipeline's filter excludes the event at index 0 (stream `cart-1`)
                of stream `o-2`: the call failed (transient): p.rhai: no (stream `o-2`, index 0, type `A`)
        ok      p: one alone
        2 passed, 1 failed
    "#]]
    .assert_eq(&said(folder.path(), &result));
}

#[test]
fn r59_mistakes_in_a_test_are_pointed_at() {
    check(
        "",
        expect![[r#"
        error: there are no tests in this file
         --> p.test.toml
          = help: a test is a table `[[test]]` with `name`, `stream`, `events` and `emits`
    "#]],
    );
    check(
        "[[tests]]\nname = \"a\"\n",
        expect![[r#"
        error: unknown key `tests`
         --> p.test.toml:1:3 (tests)
        1 | [[tests]]
          |   ^^^^^
          = help: did you mean `test`?
    "#]],
    );
    check(
        "[[test]]\nname = \"a\"\n",
        expect![[r#"
        error: the key `stream` is missing in this test
         --> p.test.toml:2:8 (test[0].name)
        2 | name = "a"
          |        ^^^
    "#]],
    );
    check_one(
        "evnts = []",
        expect![[r#"
        error: unknown key `evnts`
         --> p.test.toml:4:1 (test[0].evnts)
        4 | evnts = []
          | ^^^^^
          = help: did you mean `events`?
    "#]],
    );
    check_one(
        "events = []",
        expect![[r#"
        error: a call has at least one event
         --> p.test.toml:4:10 (test[0].events)
        4 | events = []
          |          ^^
    "#]],
    );
    check_one(
        "events = [{ typ = \"A\" }]",
        expect![[r#"
        error: unknown key `typ`
         --> p.test.toml:4:13 (test[0].events[0].typ)
        4 | events = [{ typ = "A" }]
          |             ^^^
          = help: did you mean `type`?
    "#]],
    );
    check_one(
        "events = [{ type = \"A\" }]\nreturns = \"none\"",
        expect![[r#"
        error: expected `"all"` or a table as in `{ upto = 3 }`, `{ defer = "5s" }`, `{ done = "tag" }` or `{ malformed = "why" }`, found text
         --> p.test.toml:5:11 (test[0].returns)
        5 | returns = "none"
          |           ^^^^^^
    "#]],
    );
    check_one(
        "events = [{ type = \"A\" }]\nreturns = { upto = 1, defer = \"5s\" }",
        expect![[r#"
        error: expected one of `upto`, `defer`, `done` and `malformed` (`tag` goes with `upto`)
         --> p.test.toml:5:11 (test[0].returns)
        5 | returns = { upto = 1, defer = "5s" }
          |           ^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check_one(
        "events = [{ type = \"A\" }]\nreturns = { defer = \"5 parsecs\" }",
        expect![[r#"
        error: `5 parsecs` is not a duration such as "5s", "250ms" or "1h 30m"
         --> p.test.toml:5:21 (test[0].returns.defer)
        5 | returns = { defer = "5 parsecs" }
          |                     ^^^^^^^^^^^
    "#]],
    );
    check_one(
        "events = [{ type = \"A\" }]\nfails = { class = \"permnent\" }",
        expect![[r#"
        error: `permnent` is not one of `transient`, `permanent`, `malformed`, `throttled`, `unavailable` or `timed_out`
         --> p.test.toml:5:19 (test[0].fails.class)
        5 | fails = { class = "permnent" }
          |                   ^^^^^^^^^^
          = help: did you mean `permanent`?
    "#]],
    );
    check_one(
        "events = [{ type = \"A\" }]\nnow = \"noon\"",
        expect![[r#"
        error: expected a time such as "2026-01-31T12:00:00Z"
         --> p.test.toml:5:7 (test[0].now)
        5 | now = "noon"
          |       ^^^^^^
    "#]],
    );
    check_one(
        "events = [{ type = \"A\" }]\nemits = [1]\nfails = {}",
        expect![[r#"
        error: nothing that a failed call emitted reaches a sink
         --> p.test.toml:5:9 (test[0].emits)
        5 | emits = [1]
          |         ^^^
          = help: remove it
    "#]],
    );
    check_one(
        "events = [{ type = \"A\" }]\nemits = [1]\nreturns = { malformed = \"x\" }",
        expect![[r#"
        error: nothing that a failed call emitted reaches a sink
         --> p.test.toml:5:9 (test[0].emits)
        5 | emits = [1]
          |         ^^^
          = help: remove it
    "#]],
    );
    check_one(
        "events = [{ type = \"A\" }]\nreturns = \"all\"\nfails = {}",
        expect![[r#"
        error: `fails` stands in place of `returns`
         --> p.test.toml:6:9 (test[0].fails)
        6 | fails = {}
          |         ^^
          = help: remove one of the two
    "#]],
    );
    check_one(
        "events = [{ type = \"A\" }]\nemits = []\nemits_some = []",
        expect![[r#"
        error: `emits_some` stands in place of `emits`
         --> p.test.toml:6:14 (test[0].emits_some)
        6 | emits_some = []
          |              ^^
          = help: remove one of the two
    "#]],
    );
    check_one(
        "events = [{ type = \"A\" }]\nemits = [{ \"$json\" = \"{\" }]",
        expect![[r#"
        error: what `$json` holds is not JSON: EOF while parsing an object at line 1 column 1
         --> p.test.toml:5:10 (test[0].emits[0])
        5 | emits = [{ "$json" = "{" }]
          |          ^^^^^^^^^^^^^^^^^
    "#]],
    );
    check_one(
        "events = [{ type = \"A\", index = 2 }, { type = \"B\", index = 1 }]",
        expect![[r#"
        error: its index, 1, is not above that of the event before
         --> p.test.toml:4:38 (test[0].events[1])
        4 | events = [{ type = "A", index = 2 }, { type = "B", index = 1 }]
          |                                      ^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check_one(
        "events = [{ type = \"A\", index = -1 }]",
        expect![[r#"
        error: the index -1 is negative
         --> p.test.toml:4:11 (test[0].events[0])
        4 | events = [{ type = "A", index = -1 }]
          |           ^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check_one(
        "events = [{ type = \"A\", raw = \"\", data = 1 }]",
        expect![[r#"
        error: `raw` stands in place of `data`: remove one of the two
         --> p.test.toml:4:11 (test[0].events[0])
        4 | events = [{ type = "A", raw = "", data = 1 }]
          |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check_one(
        "events = [{ type = \"A\", unfold = true }, { type = \"B\" }]",
        expect![[r#"
        error: an unfold comes after the events
         --> p.test.toml:4:42 (test[0].events[1])
        4 | events = [{ type = "A", unfold = true }, { type = "B" }]
          |                                          ^^^^^^^^^^^^^^
    "#]],
    );
    check_one(
        "streams = []",
        expect![[r#"
        error: `streams` stands in place of `stream`, `events` and the like
         --> p.test.toml:4:11 (test[0].streams)
        4 | streams = []
          |           ^^
          = help: remove one of the two
    "#]],
    );
    let twice = "[[test]]\nname = \"a\"\nstream = \"o-1\"\nevents = [{ type = \"A\" }]\n";
    check(
        &format!("{twice}{twice}"),
        expect![[r#"
        error: the test in line 2 has this name as well
         --> p.test.toml:6:8 (test[1].name)
        6 | name = "a"
          |        ^^^
    "#]],
    );
    check(
        "[[test]]\nname = \"a\"\nstreams = [{ stream = \"a\", events = [] }, { stream = \"b\", events = [] }]",
        expect![[r#"
            error: a call of this pipeline has one stream (`schedule.streams_per_call`), not 2
             --> p.test.toml:3:11 (test[0].streams)
            3 | streams = [{ stream = "a", events = [] }, { stream = "b", events = [] }]
              |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_test_without_a_pipeline_or_a_script_is_a_mistake() {
    let test = "[[test]]\nname = \"a\"\nstream = \"o-1\"\nevents = [{ type = \"A\" }]\n";
    let check = |files: &[(&str, &str)], path: &str, expected: Expect| {
        let folder = folder(files);
        let result = run(&[folder.path().join(path)], None);
        expected.assert_eq(&said(folder.path(), &result));
    };
    let plain = "[source.memory]\n[sink.null]\n";
    check(
        &[("orders.toml", PIPELINE), ("order.test.toml", test)],
        "",
        expect![[r#"
        error: there is no pipeline `order` beside this file of tests
         --> order.test.toml
          = help: did you mean `orders.test`?
    "#]],
    );
    check(
        &[("x.test.yaml", "test: []\n")],
        "x.test.yaml",
        expect![[r#"
        error: there is no pipeline `x` beside this file of tests
         --> x.test.yaml
          = help: it is looked for as `x.toml` and `x.yaml`
    "#]],
    );
    check(
        &[("p.toml", plain), ("p.test.toml", test)],
        "p.toml",
        expect![[r#"
        error: the pipeline `p` has no script that could be tested
         --> p.test.toml
    "#]],
    );
    check(
        &[("p.toml", PIPELINE), ("p.test.toml", test), ("p.test.yaml", test)],
        "p.toml",
        expect![[r#"
        error: the tests of this pipeline stand in `p.test.toml` as well
         --> p.test.yaml
          = help: put them into one of the files
    "#]],
    );
    check(
        &[("p.toml", PIPELINE), ("p.test.toml", test), ("p.rhai", "fn handle(stream) {}")],
        "",
        expect![[r#"
            error: `handle` is called as `fn handle(stream, events)`; this one has 1 parameter
             --> p.rhai:1:19
            1 | fn handle(stream) {}
              |                   ^
        "#]],
    );
    check(
        &[("p.toml", plain)],
        "",
        expect![[r#"
        no tests found; without tests: p
    "#]],
    );
    check(
        &[],
        "nowhere",
        expect![[r#"
        error: there is no such file or folder
         --> nowhere
          = help: name a pipeline file, or a folder of them, with `--config`
    "#]],
    );
}

#[test]
fn parameters_that_the_script_needs_must_be_known() {
    let pipeline = PIPELINE.replace("0.5", "\"${PROPULSIOND_TEST_UNSET}\"");
    let test = "[[test]]\nname = \"a\"\nstream = \"o-1\"\nevents = [{ type = \"A\" }]\n";
    let folder = folder(&[("p.toml", &pipeline), ("p.rhai", SCRIPT), ("p.test.toml", test)]);
    let result = run(&[folder.path().to_owned()], None);
    expect![[r#"
        error: the script under test needs it: the variable `PROPULSIOND_TEST_UNSET` is not set (write `${PROPULSIOND_TEST_UNSET:-default}` to give it a default)
         --> p.toml:7:10 (handler.rhai.params)
        7 | params = { vat = "${PROPULSIOND_TEST_UNSET}" }
          |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]].assert_eq(&said(folder.path(), &result));
}

#[test]
fn a_filter_chooses_by_the_name_of_test_or_pipeline() {
    let test = |name: &str| format!("[[test]]\nname = \"{name}\"\nstream = \"o-1\"\nevents = [{{ type = \"A\" }}]\n");
    let tests = [test("one"), test("two")].concat();
    let folder = folder(&[("p.toml", PIPELINE), ("p.rhai", SCRIPT), ("p.test.toml", &tests)]);
    let names = |filter| -> Vec<_> {
        run(&[folder.path().to_owned()], Some(filter)).unwrap().tests.into_iter().map(|test| test.name).collect()
    };
    assert_eq!(
        (names("tw"), names("p"), names("x")),
        (vec!["two".to_owned()], vec!["one".to_owned(), "two".to_owned()], vec![])
    );
}
