//! Values, and files, that do not go together.

use expect_test::{Expect, expect};

use super::{Files, check_toml, check_yaml};

#[test]
fn a_pipeline_has_one_source() {
    check_toml(
        "[sink.stdout]\n",
        expect![[r#"
            error: a pipeline needs a source
             --> pipelines/a.toml (source)
              = help: add one of `source.json`, `source.generate`, `source.memory`
        "#]],
    );
    check_toml(
        "[source]\n[sink.stdout]\n",
        expect![[r#"
            error: a pipeline needs a source
             --> pipelines/a.toml:1:2 (source)
            1 | [source]
              |  ^^^^^^
              = help: add one of `source.json`, `source.generate`, `source.memory`
        "#]],
    );
    check_toml(
        "[source.json]\npath = 'a'\n\n[source.generate]\n[sink.stdout]\n",
        expect![[r#"
            error: a pipeline has one source, not 2: `json` in line 1 and `generate` in line 4
             --> pipelines/a.toml:4:9 (source.generate)
            4 | [source.generate]
              |         ^^^^^^^^
              = help: keep one of them; write the others into files of their own
        "#]],
    );
    check_yaml(
        "source:\n  memory:\n  json: {path: a}\n  generate:\nsink:\n  null:\n",
        expect![[r#"
            error: a pipeline has one source, not 3: `memory` in line 2 and `json` in line 3 and `generate` in line 4
             --> pipelines/a.yaml:4:3 (source.generate)
            4 |   generate:
              |   ^^^^^^^^
              = help: keep one of them; write the others into files of their own
        "#]],
    );
}

#[test]
fn a_pipeline_has_something_to_do() {
    check_toml(
        "[source.memory]\n",
        expect![[r#"
            error: a pipeline needs a sink or a handler, or both
             --> pipelines/a.toml (sink)
              = help: add one of `sink.stdout`, `sink.file`, `sink.sqlite`, `sink.http`, `sink.stats`, `sink.null`
        "#]],
    );
    check_toml(
        "[source.memory]\n[sink]\n[handler.rhai]\nscript = 'ok.rhai'\n",
        expect![[r#"
            error: this names no sink
             --> pipelines/a.toml:2:2 (sink)
            2 | [sink]
              |  ^^^^
              = help: add one of `sink.stdout`, `sink.file`, `sink.sqlite`, `sink.http`, `sink.stats`, `sink.null`
        "#]],
    );
    check_toml(
        "[source.memory]\n[sink.null]\n[sink.stdout]\n[handler]\n",
        expect![[r#"
            error: a pipeline has one sink, not 2: `null` in line 2 and `stdout` in line 3
             --> pipelines/a.toml:3:7 (sink.stdout)
            3 | [sink.stdout]
              |       ^^^^^^
              = help: keep one of them; write the others into files of their own
            error: this names no handler
             --> pipelines/a.toml:4:2 (handler)
            4 | [handler]
              |  ^^^^^^^
              = help: add one of `handler.rhai`
        "#]],
    );
    check_toml(
        "[source.memory]\n[sink.null]\n[checkpoint.memory]\n[checkpoint.file]\n",
        expect![[r#"
        error: a pipeline has one checkpoint, not 2: `memory` in line 3 and `file` in line 4
         --> pipelines/a.toml:4:13 (checkpoint.file)
        4 | [checkpoint.file]
          |             ^^^^
          = help: keep one of them; write the others into files of their own
    "#]],
    );
}

#[test]
fn progress_is_kept_only_where_it_can_be() {
    check_toml(
        "checkpoint = 'sink'\n[source.memory]\n[sink.stdout]\n",
        expect![[r#"
            error: a `stdout` sink cannot hold the progress
             --> pipelines/a.toml:1:14 (checkpoint)
            1 | checkpoint = 'sink'
              |              ^^^^^^
              = help: `checkpoint = "sink"` goes with `sink.sqlite`; otherwise choose a store, such as `checkpoint.sqlite`
        "#]],
    );
    check_toml(
        "checkpoint = 'sink'\n[source.memory]\n[handler.rhai]\nscript = 'ok.rhai'\n",
        expect![[r#"
            error: there is no sink to hold the progress
             --> pipelines/a.toml:1:14 (checkpoint)
            1 | checkpoint = 'sink'
              |              ^^^^^^
              = help: `checkpoint = "sink"` goes with `sink.sqlite`; otherwise choose a store, such as `checkpoint.sqlite`
        "#]],
    );
}

#[test]
fn filters_that_cannot_be_used() {
    check_toml(
        "[source.memory]\n[sink.null]\n[filter]\ncategories = ['order-1', '/ok/']\nexclude_events = [\n  '/[a/',\n  'Order.*',\n  '/x',\n]\n",
        expect![[r#"
            error: a category ends before the first `-` of a stream's name, so this matches nothing
             --> pipelines/a.toml:4:15 (filter.categories[0])
            4 | categories = ['order-1', '/ok/']
              |               ^^^^^^^^^
              = help: the category of `order-1` is `order`
            error: the regular expression does not compile: unclosed character class
             --> pipelines/a.toml:6:3 (filter.exclude_events[0])
            6 |   '/[a/',
              |   ^^^^^^
            error: this is taken for an exact name, but looks like a regular expression
             --> pipelines/a.toml:7:3 (filter.exclude_events[1])
            7 |   'Order.*',
              |   ^^^^^^^^^
              = help: put a regular expression between slashes: `/Order.*/`
            error: this is no complete regular expression
             --> pipelines/a.toml:8:3 (filter.exclude_events[2])
            8 |   '/x',
              |   ^^^^
              = help: a regular expression stands between two slashes: `/regex/`
        "#]],
    );
    check_yaml(
        "source: {memory: }\nsink: {stats: }\nfilter:\n  events:\n    - /(a/\n    - ''\n",
        expect![[r#"
        error: the regular expression does not compile: unclosed group
         --> pipelines/a.yaml:5:7 (filter.events[0])
        5 |     - /(a/
          |       ^^^^
        error: an empty name matches nothing
         --> pipelines/a.yaml:6:7 (filter.events[1])
        6 |     - ''
          |       ^^
    "#]],
    );
}

#[test]
fn require_all_needs_an_order_that_is_remembered() {
    check_toml(
        "[source.json]\npath = 'a'\nindex = 'line'\n[sink.null]\n[schedule]\norder = 'none'\nrequire_all = true\npurge = '1h'\n",
        expect![[r#"
            error: `require_all` waits for the events before, and `order = "none"` knows no before
             --> pipelines/a.toml:7:15 (schedule.require_all)
            7 | require_all = true
              |               ^^^^
              = help: remove one of the two
            error: `require_all` waits for every index, and this source leaves indexes out
             --> pipelines/a.toml:7:15 (schedule.require_all)
            7 | require_all = true
              |               ^^^^
              = help: remove it, or read indexes that follow each other: `index = "field"`
            error: `purge` forgets how far a stream is, which is what `require_all` has to know
             --> pipelines/a.toml:8:1 (schedule.purge)
            8 | purge = '1h'
              | ^^^^^
              = help: remove one of the two
        "#]],
    );
}

#[test]
fn require_all_needs_a_store_that_keeps_how_far_each_stream_is() {
    let source = "[source.json]\npath = 'a'\n";
    for (store, expected) in [
        (
            "file",
            expect![[r#"
        error: `require_all` has to know after a restart how far each stream is, which a `file` checkpoint store does not keep
         --> pipelines/a.toml:6:15 (schedule.require_all)
        6 | require_all = true
          |               ^^^^
          = help: keep the progress in `[checkpoint.sqlite]`, or in the sink where it can hold it: `checkpoint = "sink"`
    "#]],
        ),
        (
            "memory",
            expect![[r#"
        error: `require_all` has to know after a restart how far each stream is, which a `memory` checkpoint store does not keep
         --> pipelines/a.toml:6:15 (schedule.require_all)
        6 | require_all = true
          |               ^^^^
          = help: keep the progress in `[checkpoint.sqlite]`, or in the sink where it can hold it: `checkpoint = "sink"`
    "#]],
        ),
    ] {
        check_toml(&format!("[checkpoint.{store}]\n{source}[sink.null]\n[schedule]\nrequire_all = true\n"), expected);
    }
    let sink = format!("checkpoint = 'sink'\n{source}[sink.sqlite]\n[schedule]\nrequire_all = true\n");
    check_toml(
        &format!("{sink}write_positions = false\n"),
        expect![[r#"
        error: `require_all` has to know after a restart how far each stream is, which `write_positions = false` keeps nowhere
         --> pipelines/a.toml:6:15 (schedule.require_all)
        6 | require_all = true
          |               ^^^^
          = help: remove one of the two
    "#]],
    );
    check_toml(&sink, expect![[r#""#]]);
    check_toml(&format!("{source}[sink.null]\n[schedule]\nrequire_all = true\n"), expect![[r#""#]]);
    // It waits for nothing there.
    let by_tranche =
        format!("[checkpoint.file]\n{source}[sink.null]\n[schedule]\norder = 'tranche'\nrequire_all = true\n");
    check_toml(&by_tranche, expect![[r#""#]]);
}

#[test]
fn streams_are_not_forgotten_where_a_repeat_must_have_no_effect() {
    check_toml(
        "checkpoint = 'sink'\n[source.json]\npath = 'a'\n[sink.sqlite]\npath = 'a.db'\n[schedule]\npurge = '1h'\n",
        expect![[r#"
            error: `purge` forgets how far a stream is, which `write_positions` has to know
             --> pipelines/a.toml:7:1 (schedule.purge)
            7 | purge = '1h'
              | ^^^^^
              = help: remove it, or write `write_positions = false` if an event that the feed repeats may have its effect twice
        "#]],
    );
}

#[test]
fn require_all_needs_indexes_that_follow_each_other() {
    check_toml(
        "[source.memory]\nindex = 'arrival'\n[sink.null]\n[schedule]\nrequire_all = true\n",
        expect![[r#"
        error: `require_all` waits for every index, and this source leaves indexes out
         --> pipelines/a.toml:5:15 (schedule.require_all)
        5 | require_all = true
          |               ^^^^
          = help: remove it, or read indexes that follow each other: `index = "field"`
    "#]],
    );
}

#[test]
fn zero_is_no_interval() {
    check_toml(
        "[source.memory]\n[sink.null]\n[schedule]\ncommit_interval = '0s'\npurge = '0s'\nread_ahead_bytes = '0B'\nmax_bytes = '0B'\n\
         [errors]\nstuck_after = '0s'\nretry = { initial = '1m', max = '1s' }\n",
        expect![[r#"
            error: `commit_interval` must be more than nothing
             --> pipelines/a.toml:4:19 (schedule.commit_interval)
            4 | commit_interval = '0s'
              |                   ^^^^
            error: `purge` must be more than nothing
             --> pipelines/a.toml:5:9 (schedule.purge)
            5 | purge = '0s'
              |         ^^^^
            error: `read_ahead_bytes` must be more than nothing
             --> pipelines/a.toml:6:20 (schedule.read_ahead_bytes)
            6 | read_ahead_bytes = '0B'
              |                    ^^^^
            error: `max_bytes` must be more than nothing
             --> pipelines/a.toml:7:13 (schedule.max_bytes)
            7 | max_bytes = '0B'
              |             ^^^^
            error: `stuck_after` must be more than nothing
             --> pipelines/a.toml:9:15 (errors.stuck_after)
            9 | stuck_after = '0s'
              |               ^^^^
            error: the first delay is longer than the longest, `max`
              --> pipelines/a.toml:10:21 (errors.retry.initial)
            10 | retry = { initial = '1m', max = '1s' }
               |                     ^^^^
        "#]],
    );
}

#[test]
fn events_are_parked_only_where_they_can_be() {
    let then = "[source.memory]\n[sink.null]\n[errors]\nthen = 'park'\n";
    check_toml(
        then,
        expect![[r#"
            error: a `sqlite` checkpoint store cannot hold parked events yet
             --> pipelines/a.toml:4:8 (errors.then)
            4 | then = 'park'
              |        ^^^^^^
              = help: write `then = "halt"`; only `checkpoint.memory` can park so far
        "#]],
    );
    check_toml(
        &format!("{then}[checkpoint.file]\n"),
        expect![[r#"
            error: a `file` checkpoint store cannot hold parked events yet
             --> pipelines/a.toml:4:8 (errors.then)
            4 | then = 'park'
              |        ^^^^^^
              = help: write `then = "halt"`; only `checkpoint.memory` can park so far
        "#]],
    );
    check_toml(&format!("{then}[checkpoint.memory]\n"), expect![[""]]);
    check_toml(
        "checkpoint = 'sink'\nerrors = { then = 'park' }\n[source.memory]\n[sink.sqlite]\npath = 'a.db'\n",
        expect![[r#"
            error: the sink that holds the progress cannot hold parked events yet
             --> pipelines/a.toml:2:19 (errors.then)
            2 | errors = { then = 'park' }
              |                   ^^^^^^
              = help: write `then = "halt"`; only `checkpoint.memory` can park so far
        "#]],
    );
}

#[test]
fn scripts_must_be_there() {
    check_toml(
        "[source.memory]\n[handler.rhai]\nscript = 'missing.rhai'\n",
        expect![[r#"
        error: there is no such script
         --> pipelines/a.toml:3:10 (handler.rhai.script)
        3 | script = 'missing.rhai'
          |          ^^^^^^^^^^^^^^
          = help: it is looked for in the pipeline's folder, as `pipelines/missing.rhai`
    "#]],
    );
    check_toml(
        "[source.memory]\n[handler.rhai]\nscript = ''\n",
        expect![[r#"
            error: `script` must not be empty
             --> pipelines/a.toml:3:10 (handler.rhai.script)
            3 | script = ''
              |          ^^
        "#]],
    );
    check_toml(
        "[source.memory]\n[handler.rhai]\nscript = '.'\n",
        expect![[r#"
        error: the script is not a file
         --> pipelines/a.toml:3:10 (handler.rhai.script)
        3 | script = '.'
          |          ^^^
    "#]],
    );
}

#[test]
fn a_pipeline_does_not_read_what_it_writes() {
    check_toml(
        "[source.json]\npath = '../data/x/../out.jsonl'\n[sink.file]\npath = 'out.jsonl'\n",
        expect![[r#"
        error: the sink writes the file that the source reads
         --> pipelines/a.toml:4:8 (sink.file.path)
        4 | path = 'out.jsonl'
          |        ^^^^^^^^^^^
    "#]],
    );
    check_toml(
        "[source.json]\npath = '../data'\n[sink.file]\npath = 'out.jsonl'\n",
        expect![[r#"
        error: the sink writes into the folder that the source reads
         --> pipelines/a.toml:4:8 (sink.file.path)
        4 | path = 'out.jsonl'
          |        ^^^^^^^^^^^
    "#]],
    );
    check_toml("[source.json]\npath = 'events'\n[sink.file]\npath = 'out.jsonl'\n", expect![""]);
}

#[test]
fn names_that_cannot_be_keys() {
    check_toml(
        "group = ''\nsource_id = 'a/b'\n[source.memory]\n[sink.null]\n",
        expect![[r#"
        error: `group` must be 1 to 255 bytes, without `/`, control characters and outer spaces
         --> pipelines/a.toml:1:9 (group)
        1 | group = ''
          |         ^^
        error: `source_id` must be 1 to 255 bytes, without `/`, control characters and outer spaces
         --> pipelines/a.toml:2:13 (source_id)
        2 | source_id = 'a/b'
          |             ^^^^^
    "#]],
    );
    check_toml(
        "group = ' a'\nsource_id = \"a\\nb\"\n[source.memory]\n[sink.null]\n",
        expect![[r#"
        error: `group` must be 1 to 255 bytes, without `/`, control characters and outer spaces
         --> pipelines/a.toml:1:9 (group)
        1 | group = ' a'
          |         ^^^^
        error: `source_id` must be 1 to 255 bytes, without `/`, control characters and outer spaces
         --> pipelines/a.toml:2:13 (source_id)
        2 | source_id = "a\nb"
          |             ^^^^^^
    "#]],
    );
}

#[test]
fn what_is_required_is_not_empty() {
    check_toml(
        "[source.json]\npath = ''\n[sink.http]\nurl = \"\"\n",
        expect![[r#"
        error: `path` must not be empty
         --> pipelines/a.toml:2:8 (source.json.path)
        2 | path = ''
          |        ^^
        error: `url` must not be empty
         --> pipelines/a.toml:4:7 (sink.http.url)
        4 | url = ""
          |       ^^
    "#]],
    );
}

fn check_two(first: &str, second: &str, expected: Expect) {
    let files = Files::new(&[("a.toml", first.as_bytes()), ("b.toml", second.as_bytes())]);
    expected.assert_eq(&files.render(&files.problems(&files.folder())));
}

#[test]
fn two_pipelines_never_share_a_key() {
    let generate = "[source.generate]\n[sink.null]\n";
    let grouped = format!("group = 'g'\n{generate}");
    check_two(
        &grouped,
        &grouped,
        expect![[r#"
        error: the pipeline `a` keeps its progress under the same group and source, in the same store
         --> pipelines/b.toml:1:9 (group)
        1 | group = 'g'
          |         ^^^
          = help: give one of them another `group`, or a `source_id` other than `generate`
    "#]],
    );
    check_two(
        generate,
        &format!("group = 'a'\n{generate}"),
        expect![[r#"
        error: the pipeline `a` keeps its progress under the same group and source, in the same store
         --> pipelines/b.toml:1:9 (group)
        1 | group = 'a'
          |         ^^^
          = help: give one of them another `group`, or a `source_id` other than `generate`
    "#]],
    );
    check_two(generate, generate, expect![[""]]);
    check_two(&grouped, &format!("source_id = 'other'\n{grouped}"), expect![[""]]);
    check_two(&grouped, &format!("{grouped}[checkpoint.sqlite]\npath = 'other.db'\n"), expect![[""]]);
    check_two(
        &grouped,
        &format!("{grouped}[checkpoint.sqlite]\npath = './x/../propulsiond.db'\n"),
        expect![[r#"
        error: the pipeline `a` keeps its progress under the same group and source, in the same store
         --> pipelines/b.toml:1:9 (group)
        1 | group = 'g'
          |         ^^^
          = help: give one of them another `group`, or a `source_id` other than `generate`
    "#]],
    );
    check_two(&format!("{grouped}[checkpoint.memory]\n"), &format!("{grouped}[checkpoint.memory]\n"), expect![[""]]);
    let sink = "checkpoint = 'sink'\ngroup = 'g'\n[source.generate]\n[sink.sqlite]\npath = 'p.db'\n";
    check_two(
        sink,
        sink,
        expect![[r#"
        error: the pipeline `a` keeps its progress under the same group and source, in the same store
         --> pipelines/b.toml:2:9 (group)
        2 | group = 'g'
          |         ^^^
          = help: give one of them another `group`, or a `source_id` other than `generate`
    "#]],
    );
}
