//! Documents that are no pipeline.

use expect_test::expect;

use super::{check_toml, check_yaml};

#[test]
fn r59_unknown_keys_come_with_what_was_meant() {
    check_toml(
        "grup = 'a'\n[source.memory]\n[sink.stdout]\n",
        expect![[r#"
        error: unknown key `grup`
         --> pipelines/a.toml:1:1 (grup)
        1 | grup = 'a'
          | ^^^^
          = help: did you mean `group`?
    "#]],
    );
    check_toml(
        "[source.jsonl]\npath = 'a'\n[sink.stdout]\n",
        expect![[r#"
        error: unknown key `jsonl`
         --> pipelines/a.toml:1:9 (source.jsonl)
        1 | [source.jsonl]
          |         ^^^^^
          = help: did you mean `json`?
    "#]],
    );
    check_toml(
        "[source.memory]\n[sink.kafka]\ntopic = 'a'\n",
        expect![[r#"
        error: unknown key `kafka`
         --> pipelines/a.toml:2:7 (sink.kafka)
        2 | [sink.kafka]
          |       ^^^^^
          = help: the keys known here are `stdout`, `file`, `sqlite`, `http`, `stats` and `null`
    "#]],
    );
    check_toml(
        "[source.memory]\n[sink.stdout]\ncolour = true\n",
        expect![[r#"
            error: unknown key `colour`
             --> pipelines/a.toml:3:1 (sink.stdout.colour)
            3 | colour = true
              | ^^^^^^
              = help: the one key known here is `format`
        "#]],
    );
    check_toml(
        "[source.json]\npath = 'a'\nfile = 'b'\n[sink.stdout]\n",
        expect![[r#"
            error: unknown key `file`
             --> pipelines/a.toml:3:1 (source.json.file)
            3 | file = 'b'
              | ^^^^
              = help: the keys known here are `path`, `pattern`, `sort`, `tranche_per_file`, `index`, `skip`, `on_replaced`, `batch` and `poll`
        "#]],
    );
    check_toml(
        "[schedule]\nmaxEvents = 3\nread-ahead = 4\n",
        expect![[r#"
        error: unknown key `maxEvents`
         --> pipelines/a.toml:2:1 (schedule.maxEvents)
        2 | maxEvents = 3
          | ^^^^^^^^^
          = help: did you mean `max_events`?
        error: unknown key `read-ahead`
         --> pipelines/a.toml:3:1 (schedule.read-ahead)
        3 | read-ahead = 4
          | ^^^^^^^^^^
          = help: did you mean `read_ahead`?
    "#]],
    );
    check_yaml(
        "handler:\n  rhai:\n    script: ok.rhai\n    limits: {operation: 5}\n",
        expect![[r#"
        error: unknown key `operation`
         --> pipelines/a.yaml:4:14 (handler.rhai.limits.operation)
        4 |     limits: {operation: 5}
          |              ^^^^^^^^^
          = help: did you mean `operations`?
    "#]],
    );
}

#[test]
fn keys_in_the_wrong_table_are_shown_the_right_one() {
    check_toml(
        "concurrency = 3\n[source.memory]\nstop = 'tail'\n[sink.null]\nthen = 'skip'\nexclude_events = []\n",
        expect![[r#"
            error: unknown key `concurrency`
             --> pipelines/a.toml:1:1 (concurrency)
            1 | concurrency = 3
              | ^^^^^^^^^^^
              = help: `concurrency` belongs in `schedule`
            error: unknown key `stop`
             --> pipelines/a.toml:3:1 (source.memory.stop)
            3 | stop = 'tail'
              | ^^^^
              = help: `stop` stands at the top of the file, before the first table
            error: unknown key `then`
             --> pipelines/a.toml:5:1 (sink.null.then)
            5 | then = 'skip'
              | ^^^^
              = help: `then` belongs in `errors`
            error: unknown key `exclude_events`
             --> pipelines/a.toml:6:1 (sink.null.exclude_events)
            6 | exclude_events = []
              | ^^^^^^^^^^^^^^
              = help: `exclude_events` belongs in `filter`
        "#]],
    );
}

#[test]
fn r60_every_wrong_value_is_reported_with_its_path() {
    check_toml(
        "group = 5\nstop = 'tial'\n[schedule]\nconcurrency = 0\nread_ahead = -1\nmax_events = 1.5\nrequire_all = 'yes'\n\
         commit_interval = 5\n[errors]\nthen = 'ignore'\nretry = { attempts = 'forever', initial = '5 parsecs' }\n",
        expect![[r#"
            error: expected a string, found a number
             --> pipelines/a.toml:1:9 (group)
            1 | group = 5
              |         ^
              = help: put it in quotes
            error: `tial` is not one of `never` or `tail`
             --> pipelines/a.toml:2:8 (stop)
            2 | stop = 'tial'
              |        ^^^^^^
              = help: did you mean `tail`?
            error: expected a whole number from 1 up, found the number 0
             --> pipelines/a.toml:4:15 (schedule.concurrency)
            4 | concurrency = 0
              |               ^
            error: expected a whole number from 1 up, found the number -1
             --> pipelines/a.toml:5:14 (schedule.read_ahead)
            5 | read_ahead = -1
              |              ^^
            error: expected a whole number from 1 up, found the number 1.5
             --> pipelines/a.toml:6:14 (schedule.max_events)
            6 | max_events = 1.5
              |              ^^^
            error: expected `true` or `false`, found text
             --> pipelines/a.toml:7:15 (schedule.require_all)
            7 | require_all = 'yes'
              |               ^^^^^
              = help: write `true`
            error: expected a duration such as "5s", found the number 5
             --> pipelines/a.toml:8:19 (schedule.commit_interval)
            8 | commit_interval = 5
              |                   ^
            error: expected one of `park`, `halt` or `skip`
              --> pipelines/a.toml:10:8 (errors.then)
            10 | then = 'ignore'
               |        ^^^^^^^^
            error: expected a whole number from 1 up, or "unlimited", found text
              --> pipelines/a.toml:11:22 (errors.retry.attempts)
            11 | retry = { attempts = 'forever', initial = '5 parsecs' }
               |                      ^^^^^^^^^
            error: `5 parsecs` is not a duration such as "5s", "250ms" or "1h 30m"
              --> pipelines/a.toml:11:43 (errors.retry.initial)
            11 | retry = { attempts = 'forever', initial = '5 parsecs' }
               |                                           ^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn what_is_missing_is_told_where_it_should_be() {
    check_toml(
        "[source.json]\nskip = 3\n[sink.stdout]\n",
        expect![[r#"
        error: the key `path` is missing
         --> pipelines/a.toml:1:1 (source.json)
        1 | [source.json]
          | ^^^^^^^^^^^^^
    "#]],
    );
    check_yaml(
        "source:\n  json:\nsink:\n  http: {per: event}\n",
        expect![[r#"
        error: the key `path` is missing
         --> pipelines/a.yaml:2:3 (source.json)
        2 |   json:
          |   ^^^^
        error: the key `url` is missing
         --> pipelines/a.yaml:4:9 (sink.http)
        4 |   http: {per: event}
          |         ^
    "#]],
    );
    // What is wrong, or misspelt, is not missing as well.
    check_toml(
        "[source.json]\npth = 'a'\n[sink.stdout]\n",
        expect![[r#"
        error: unknown key `pth`
         --> pipelines/a.toml:2:1 (source.json.pth)
        2 | pth = 'a'
          | ^^^
          = help: did you mean `path`?
    "#]],
    );
    check_toml(
        "[source.json]\npath = 3\n[sink.stdout]\n",
        expect![[r#"
            error: expected a string, found a number
             --> pipelines/a.toml:2:8 (source.json.path)
            2 | path = 3
              |        ^
              = help: put it in quotes
        "#]],
    );
}

#[test]
fn references_that_do_not_resolve_are_pointed_at() {
    check_toml(
        "group = 'a-${PROPULSIOND_TEST_UNSET}-b'\n[source.json]\npath = '${file:/no/such/secret}'\n",
        expect![[r#"
            error: the variable `PROPULSIOND_TEST_UNSET` is not set (write `${PROPULSIOND_TEST_UNSET:-default}` to give it a default)
             --> pipelines/a.toml:1:12 (group)
            1 | group = 'a-${PROPULSIOND_TEST_UNSET}-b'
              |            ^^^^^^^^^^^^^^^^^^^^^^^^^
            error: cannot read the file `/no/such/secret`: no such file or directory
             --> pipelines/a.toml:3:9 (source.json.path)
            3 | path = '${file:/no/such/secret}'
              |         ^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
    check_toml(
        "group = '${A${B}}'\n",
        expect![[r#"
        error: `${A${B}` is not a reference: write `${NAME}`, `${NAME:-default}` or `${file:/path}`
         --> pipelines/a.toml:1:10 (group)
        1 | group = '${A${B}}'
          |          ^^^^^^^
    "#]],
    );
    check_toml(
        "group = 'a${'\n",
        expect![[r#"
        error: `${` is not a reference: write `${NAME}`, `${NAME:-default}` or `${file:/path}`
         --> pipelines/a.toml:1:11 (group)
        1 | group = 'a${'
          |           ^^^
    "#]],
    );
    check_toml(
        "group = '${1A}'\n",
        expect![[r#"
        error: `${1A}` is not a reference: write `${NAME}`, `${NAME:-default}` or `${file:/path}`
         --> pipelines/a.toml:1:10 (group)
        1 | group = '${1A}'
          |          ^^^^^
    "#]],
    );
    check_yaml(
        "sink:\n  http:\n    url: http://h/${PROPULSIOND_TEST_UNSET}\n    headers: {X: '${PROPULSIOND_TEST_UNSET}'}\n",
        expect![[r#"
            error: the variable `PROPULSIOND_TEST_UNSET` is not set (write `${PROPULSIOND_TEST_UNSET:-default}` to give it a default)
             --> pipelines/a.yaml:3:19 (sink.http.url)
            3 |     url: http://h/${PROPULSIOND_TEST_UNSET}
              |                   ^^^^^^^^^^^^^^^^^^^^^^^^^
            error: the variable `PROPULSIOND_TEST_UNSET` is not set (write `${PROPULSIOND_TEST_UNSET:-default}` to give it a default)
             --> pipelines/a.yaml:4:19 (sink.http.headers.X)
            4 |     headers: {X: '${PROPULSIOND_TEST_UNSET}'}
              |                   ^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn r63_what_a_reference_stands_for_is_never_shown() {
    // PATH is set wherever tests run, and is no duration.
    check_toml(
        "[schedule]\ncommit_interval = '${PATH}'\n",
        expect![[r#"
            error: what `${PATH}` stands for is not a duration such as "5s"
             --> pipelines/a.toml:2:19 (schedule.commit_interval)
            2 | commit_interval = '${PATH}'
              |                   ^^^^^^^^^
        "#]],
    );
    check_toml(
        "stop = '${PATH}'\n",
        expect![[r#"
            error: expected `"never"`, `"tail"` or a table as in `{ after = "10m" }`, found text
             --> pipelines/a.toml:1:8 (stop)
            1 | stop = '${PATH}'
              |        ^^^^^^^^^
        "#]],
    );
}

#[test]
fn secrets_in_clear_are_not_repeated() {
    check_toml(
        "[sink.http]\nurl = 'http://user:hunter2@h/'\nheaders = { Authorization = ['Bearer hunter2'], x-api-key = 3 }\n\
         auth = { token = 'hunter2', pasword = true }\n",
        expect![[r#"
            error: expected a string, found a list
             --> pipelines/a.toml:3:29 (sink.http.headers.Authorization)
            3 | headers = { Authorization = ['****** *******'], x-api-key = * }
              |                             ^^^^^^^^^^^^^^^^^^
            error: expected a string, found a number
             --> pipelines/a.toml:3:61 (sink.http.headers.x-api-key)
            3 | headers = { Authorization = ['****** *******'], x-api-key = * }
              |                                                             ^
              = help: put it in quotes
            error: expected one of `bearer` or `basic`, found a table
             --> pipelines/a.toml:4:8 (sink.http.auth)
            4 | auth = { token = '*******', pasword = **** }
              |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
    check_yaml(
        "sink:\n  http:\n    url: [http://user:hunter2@h/]\n    headers:\n      Authorization: [Bearer hunter2]\n",
        expect![[r#"
            error: expected a string, found a list
             --> pipelines/a.yaml:3:10 (sink.http.url)
            3 |     url: [http://user:*******@h/]
              |          ^
            error: expected a string, found a list
             --> pipelines/a.yaml:5:22 (sink.http.headers.Authorization)
            5 |       Authorization: [****** *******]
              |                      ^
        "#]],
    );
}

#[test]
fn a_secret_of_digits_is_not_repeated() {
    check_toml(
        "[sink.http]\nurl = 'http://h'\nauth = { token = 123456 }\n",
        expect![[r#"
            error: expected one of `bearer` or `basic`
             --> pipelines/a.toml:3:10 (sink.http.auth.token)
            3 | auth = { token = ****** }
              |          ^^^^^
        "#]],
    );
}

#[test]
fn long_lines_are_cut_around_the_mistake() {
    check_toml(
        &format!("filter = {{ events = ['{}'], evnts = ['{}'] }}\n", "a".repeat(200), "b".repeat(200)),
        expect![[r#"
            error: unknown key `evnts`
             --> pipelines/a.toml:1:227 (filter.evnts)
            1 | … aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'], evnts = ['bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb …
              |                                                               ^^^^^
              = help: did you mean `events`?
        "#]],
    );
}

#[test]
fn carriage_returns_and_a_byte_order_mark_do_not_move_columns() {
    check_toml(
        "\u{feff}grup = 'a'\r\n[sink.stdout]\r\ncolour = 1\r\n",
        expect![[r#"
            error: unknown key `grup`
             --> pipelines/a.toml:1:1 (grup)
            1 | grup = 'a'
              | ^^^^
              = help: did you mean `group`?
            error: unknown key `colour`
             --> pipelines/a.toml:3:1 (sink.stdout.colour)
            3 | colour = 1
              | ^^^^^^
              = help: the one key known here is `format`
        "#]],
    );
    check_yaml(
        "\u{feff}grup: a\r\nsink:\r\n  stdout:\r\n    colour: 1\r\n",
        expect![[r#"
            error: unknown key `grup`
             --> pipelines/a.yaml:1:1 (grup)
            1 | grup: a
              | ^^^^
              = help: did you mean `group`?
            error: unknown key `colour`
             --> pipelines/a.yaml:4:5 (sink.stdout.colour)
            4 |     colour: 1
              |     ^^^^^^
              = help: the one key known here is `format`
        "#]],
    );
}

#[test]
fn columns_count_characters() {
    check_toml(
        "filter = { events = ['Zahlungseingang überfällig 🔑'], x = 1 }\n",
        expect![[r#"
        error: unknown key `x`
         --> pipelines/a.toml:1:55 (filter.x)
        1 | filter = { events = ['Zahlungseingang überfällig 🔑'], x = 1 }
          |                                                       ^
          = help: the keys known here are `categories`, `exclude_categories`, `streams`, `exclude_streams`, `events`, `exclude_events` and `system`
    "#]],
    );
    check_yaml(
        "filter: { events: ['überfällig 🔑'], x: 1 }\n",
        expect![[r#"
        error: unknown key `x`
         --> pipelines/a.yaml:1:37 (filter.x)
        1 | filter: { events: ['überfällig 🔑'], x: 1 }
          |                                     ^
          = help: the keys known here are `categories`, `exclude_categories`, `streams`, `exclude_streams`, `events`, `exclude_events` and `system`
    "#]],
    );
}
