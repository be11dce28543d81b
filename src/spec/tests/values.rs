//! Values that are not what their key wants.

use expect_test::expect;

use super::{check_toml, check_yaml};

#[test]
fn numbers_of_the_wrong_kind() {
    check_toml(
        "[schedule]\nconcurrency = 64.0\n",
        expect![[r#"
        error: expected a whole number from 1 up, found the number 64.0
         --> pipelines/a.toml:2:15 (schedule.concurrency)
        2 | concurrency = 64.0
          |               ^^^^
          = help: write `64`
    "#]],
    );
    check_toml(
        "[schedule]\nconcurrency = '64'\n",
        expect![[r#"
        error: expected a whole number from 1 up, found text
         --> pipelines/a.toml:2:15 (schedule.concurrency)
        2 | concurrency = '64'
          |               ^^^^
          = help: write `64`, without quotes
    "#]],
    );
    check_toml(
        "[schedule]\nconcurrency = '${N}'\n",
        expect![[r#"
        error: expected a whole number from 1 up, found text
         --> pipelines/a.toml:2:16 (schedule.concurrency)
        2 | concurrency = '${N}'
          |                ^^^^
          = help: `${…}` stands for text only; write the number itself
    "#]],
    );
    check_toml(
        "[schedule]\nmax_events = 18446744073709551616\n",
        expect![[r#"
        error: expected a whole number from 1 up, found a number that is far too large
         --> pipelines/a.toml:2:14 (schedule.max_events)
        2 | max_events = 18446744073709551616
          |              ^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check_toml(
        "[sink.http]\nurl = 'http://h'\npermanent = [400, 70000]\n",
        expect![[r#"
            error: expected a status such as 404 or a class of them such as "4xx", found the number 70000
             --> pipelines/a.toml:3:19 (sink.http.permanent[1])
            3 | permanent = [400, 70000]
              |                   ^^^^^
        "#]],
    );
    check_toml(
        "[source.generate]\nrate = 'fast'\nseed = -1\n",
        expect![[r#"
            error: expected a whole number from 1 up, found text
             --> pipelines/a.toml:2:8 (source.generate.rate)
            2 | rate = 'fast'
              |        ^^^^^^
            error: expected a whole number that is not negative, found the number -1
             --> pipelines/a.toml:3:8 (source.generate.seed)
            3 | seed = -1
              |        ^^
        "#]],
    );
    check_toml(
        "errors = { retry = { attempts = 0 } }\n",
        expect![[r#"
        error: expected a whole number from 1 up, or "unlimited", found the number 0
         --> pipelines/a.toml:1:33 (errors.retry.attempts)
        1 | errors = { retry = { attempts = 0 } }
          |                                 ^
    "#]],
    );
    check_toml(
        "errors = { retry = { attempts = 2.5 } }\n",
        expect![[r#"
        error: expected a whole number from 1 up, or "unlimited", found the number 2.5
         --> pipelines/a.toml:1:33 (errors.retry.attempts)
        1 | errors = { retry = { attempts = 2.5 } }
          |                                 ^^^
    "#]],
    );
    check_yaml(
        "schedule:\n  concurrency: .inf\n",
        expect![[r#"
        error: value `.inf` is not a finite number
         --> pipelines/a.yaml:2:16
        2 |   concurrency: .inf
          |                ^^^^
    "#]],
    );
    check_yaml(
        "schedule:\n  concurrency:\n",
        expect![[r#"
        error: expected a whole number from 1 up, found nothing
         --> pipelines/a.yaml:2:3 (schedule.concurrency)
        2 |   concurrency:
          |   ^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn durations_and_sizes() {
    check_toml(
        "[schedule]\ncommit_interval = '-5s'\n",
        expect![[r#"
            error: `-5s` is not a duration such as "5s", "250ms" or "1h 30m"
             --> pipelines/a.toml:2:19 (schedule.commit_interval)
            2 | commit_interval = '-5s'
              |                   ^^^^^
        "#]],
    );
    check_toml(
        "[schedule]\ncommit_interval = '5'\n",
        expect![[r#"
            error: `5` is not a duration such as "5s", "250ms" or "1h 30m"
             --> pipelines/a.toml:2:19 (schedule.commit_interval)
            2 | commit_interval = '5'
              |                   ^^^
        "#]],
    );
    check_toml(
        "[schedule]\ncommit_interval = ''\n",
        expect![[r#"
            error: `` is not a duration such as "5s", "250ms" or "1h 30m"
             --> pipelines/a.toml:2:19 (schedule.commit_interval)
            2 | commit_interval = ''
              |                   ^^
        "#]],
    );
    check_toml(
        "[schedule]\npurge = 'never'\n",
        expect![[r#"
            error: `never` is not a duration such as "5s", "250ms" or "1h 30m"
             --> pipelines/a.toml:2:9 (schedule.purge)
            2 | purge = 'never'
              |         ^^^^^^^
        "#]],
    );
    check_toml(
        "[schedule]\nread_ahead_bytes = 1024\n",
        expect![[r#"
        error: expected a size such as "64MiB", found the number 1024
         --> pipelines/a.toml:2:20 (schedule.read_ahead_bytes)
        2 | read_ahead_bytes = 1024
          |                    ^^^^
    "#]],
    );
    check_toml(
        "[schedule]\nmax_bytes = '1.5MiB'\n",
        expect![[r#"
        error: `1.5MiB` is not a size such as "64MiB", "500kB" or "1000B"
         --> pipelines/a.toml:2:13 (schedule.max_bytes)
        2 | max_bytes = '1.5MiB'
          |             ^^^^^^^^
    "#]],
    );
    check_yaml(
        "schedule:\n  commit_interval: 2026-01-01\n",
        expect![[r#"
            error: `2026-01-01` is not a duration such as "5s", "250ms" or "1h 30m"
             --> pipelines/a.yaml:2:20 (schedule.commit_interval)
            2 |   commit_interval: 2026-01-01
              |                    ^^^^^^^^^^
        "#]],
    );
    check_toml(
        "[schedule]\ncommit_interval = 2026-01-01\n",
        expect![[r#"
        error: expected a duration such as "5s", found a date
         --> pipelines/a.toml:2:19 (schedule.commit_interval)
        2 | commit_interval = 2026-01-01
          |                   ^^^^^^^^^^
    "#]],
    );
}

#[test]
fn tables_lists_and_names_in_each_others_places() {
    check_toml(
        "source = 'json'\n",
        expect![[r#"
        error: expected a table, found text
         --> pipelines/a.toml:1:10 (source)
        1 | source = 'json'
          |          ^^^^^^
    "#]],
    );
    check_toml(
        "sink = ['stdout']\n",
        expect![[r#"
        error: expected a table, found a list
         --> pipelines/a.toml:1:8 (sink)
        1 | sink = ['stdout']
          |        ^^^^^^^^^^
    "#]],
    );
    check_toml(
        "[[sink.stdout]]\n",
        expect![[r#"
        error: expected a table, found a list
         --> pipelines/a.toml:1:1 (sink.stdout)
        1 | [[sink.stdout]]
          | ^^^^^^^^^^^^^^^
    "#]],
    );
    check_toml(
        "[filter]\ncategories = 'order'\n",
        expect![[r#"
        error: expected a list, found text
         --> pipelines/a.toml:2:14 (filter.categories)
        2 | categories = 'order'
          |              ^^^^^^^
    "#]],
    );
    check_toml(
        "[filter]\nevents = ['a', 3]\n",
        expect![[r#"
            error: expected a string, found a number
             --> pipelines/a.toml:2:16 (filter.events[1])
            2 | events = ['a', 3]
              |                ^
              = help: put it in quotes
        "#]],
    );
}

#[test]
fn what_is_a_word_or_a_table_says_which_words_and_tables_it_can_be() {
    check_toml(
        "checkpoint = 'sqlite'\n",
        expect![[r#"
            error: a store is a table with settings of its own: `checkpoint.sqlite`
             --> pipelines/a.toml:1:14 (checkpoint)
            1 | checkpoint = 'sqlite'
              |              ^^^^^^^^
        "#]],
    );
    check_toml(
        "checkpoint = 'snk'\n",
        expect![[r#"
        error: `snk` is not `sink`
         --> pipelines/a.toml:1:14 (checkpoint)
        1 | checkpoint = 'snk'
          |              ^^^^^
          = help: did you mean `sink`?
    "#]],
    );
    check_toml(
        "checkpoint = true\n",
        expect![[r#"
            error: expected `"sink"`, or a table such as `checkpoint.sqlite`, found `true`
             --> pipelines/a.toml:1:14 (checkpoint)
            1 | checkpoint = true
              |              ^^^^
        "#]],
    );
    check_toml(
        "stop = '10m'\n",
        expect![[r#"
        error: expected `{ after = "10m" }`: a time stands in a table
         --> pipelines/a.toml:1:8 (stop)
        1 | stop = '10m'
          |        ^^^^^
    "#]],
    );
    check_toml(
        "stop = { after = 10 }\n",
        expect![[r#"
        error: expected a duration such as "5s", found the number 10
         --> pipelines/a.toml:1:18 (stop.after)
        1 | stop = { after = 10 }
          |                  ^^
    "#]],
    );
    check_toml(
        "stop = { before = '10m' }\n",
        expect![[r#"
            error: unknown key `before`
             --> pipelines/a.toml:1:10 (stop.before)
            1 | stop = { before = '10m' }
              |          ^^^^^^
              = help: the one key known here is `after`
        "#]],
    );
    check_toml(
        "stop = {}\n",
        expect![[r#"
        error: the key `after` is missing
         --> pipelines/a.toml:1:8 (stop)
        1 | stop = {}
          |        ^^
    "#]],
    );
    check_toml(
        "schedule = { order = { stream = true } }\n",
        expect![[r#"
        error: `stream` stands alone, without a value
         --> pipelines/a.toml:1:24 (schedule.order)
        1 | schedule = { order = { stream = true } }
          |                        ^^^^^^
    "#]],
    );
    check_toml(
        "schedule = { order = 5 }\n",
        expect![[r#"
        error: expected one of `stream`, `tranche` or `none`, found the number 5
         --> pipelines/a.toml:1:22 (schedule.order)
        1 | schedule = { order = 5 }
          |                      ^
    "#]],
    );
    check_yaml(
        "stop: yes\nschedule: {require_all: yes}\n",
        expect![[r#"
            error: expected `"never"`, `"tail"` or a table as in `{ after = "10m" }`, found text
             --> pipelines/a.yaml:1:7 (stop)
            1 | stop: yes
              |       ^^^
            error: expected `true` or `false`, found text
             --> pipelines/a.yaml:2:25 (schedule.require_all)
            2 | schedule: {require_all: yes}
              |                         ^^^
              = help: write `true`
        "#]],
    );
}
