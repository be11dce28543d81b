//! Files of tests that are wrong.

use expect_test::{Expect, expect};

use super::*;

#[test]
fn r59_mistakes_in_a_file_of_tests_are_pointed_at() {
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
        "events = [{ type = \"A\" }]\nreturns = \"none\"",
        expect![[r#"
        error: expected `"all"` or a table as in `{ upto = 3 }`, `{ defer = "5s" }`, `{ done = "tag" }` or `{ malformed = "why" }`, found text
         --> p.test.toml:5:11 (test[0].returns)
        5 | returns = "none"
          |           ^^^^^^
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
fn r59_mistakes_in_the_events_of_a_test_are_pointed_at() {
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
}

#[test]
fn r59_mistakes_in_what_a_test_expects_are_pointed_at() {
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
          = help: begin a pipeline with `propulsiond new NAME`, or name a file or a folder of them
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
