//! Keys that nobody knows, and values of the wrong kind.

use expect_test::expect;

use super::{Case, check};

#[test]
fn r59_keys_one_letter_off() {
    check(
        Case::toml("[source.json]\npth = \"events.jsonl\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: unknown key `pth`
         --> pipelines/p.toml:2:1 (source.json.pth)
        2 | pth = "events.jsonl"
          | ^^^
          = help: did you mean `path`?
    "#]],
    );
    check(
        Case::toml("[sorce.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: unknown key `sorce`
         --> pipelines/p.toml:1:2 (sorce)
        1 | [sorce.memory]
          |  ^^^^^
          = help: did you mean `source`?
    "#]],
    );
    check(
        Case::toml("[source.jsn]\npath = \"events.jsonl\"\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: unknown key `jsn`
         --> pipelines/p.toml:1:9 (source.jsn)
        1 | [source.jsn]
          |         ^^^
          = help: did you mean `json`?
    "#]],
    );
    check(
        Case::yaml("source: {memory: }\nsink: {null: }\nschedule: {maxEvents: 5}\n"),
        expect![[r#"
        exit 2
        error: unknown key `maxEvents`
         --> pipelines/p.yaml:3:12 (schedule.maxEvents)
        3 | schedule: {maxEvents: 5}
          |            ^^^^^^^^^
          = help: did you mean `max_events`?
    "#]],
    );
}

#[test]
fn keys_in_the_wrong_table() {
    check(
        Case::toml("concurrency = 5\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: unknown key `concurrency`
         --> pipelines/p.toml:1:1 (concurrency)
        1 | concurrency = 5
          | ^^^^^^^^^^^
          = help: `concurrency` belongs in `schedule`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nthen = \"halt\"\n"),
        expect![[r#"
        exit 2
        error: unknown key `then`
         --> pipelines/p.toml:4:1 (schedule.then)
        4 | then = "halt"
          | ^^^^
          = help: `then` belongs in `errors`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\ngroup = \"a\"\n"),
        expect![[r#"
        exit 2
        error: unknown key `group`
         --> pipelines/p.toml:4:1 (filter.group)
        4 | group = "a"
          | ^^^^^
          = help: `group` stands at the top of the file, before the first table
    "#]],
    );
    check(
        Case::toml("[source.kafka]\nbrokers = \"localhost\"\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: unknown key `kafka`
         --> pipelines/p.toml:1:9 (source.kafka)
        1 | [source.kafka]
          |         ^^^^^
          = help: the keys known here are `json`, `generate` and `memory`
    "#]],
    );
}

#[test]
fn tables_values_and_lists_in_each_others_places() {
    check(
        Case::toml("source = \"events.jsonl\"\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: expected a table, found text
         --> pipelines/p.toml:1:10 (source)
        1 | source = "events.jsonl"
          |          ^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = { file = \"events.jsonl\" }\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: expected a string, found a table
         --> pipelines/p.toml:2:8 (source.json.path)
        2 | path = { file = "events.jsonl" }
          |        ^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[[source.json]]\npath = \"events.jsonl\"\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: expected a table, found a list
         --> pipelines/p.toml:1:1 (source.json)
        1 | [[source.json]]
          | ^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\ncategories = \"order\"\n"),
        expect![[r#"
        exit 2
        error: expected a list, found text
         --> pipelines/p.toml:4:14 (filter.categories)
        4 | categories = "order"
          |              ^^^^^^^
    "#]],
    );
    check(
        Case::yaml("source:\n  - json: {path: a}\nsink: {null: }\n"),
        expect![[r#"
        exit 2
        error: expected a table, found a list
         --> pipelines/p.yaml:1:1 (source)
        1 | source:
          | ^^^^^^
    "#]],
    );
    check(
        Case::toml("sink = \"stdout\"\n[source.memory]\n"),
        expect![[r#"
        exit 2
        error: expected a table, found text
         --> pipelines/p.toml:1:8 (sink)
        1 | sink = "stdout"
          |        ^^^^^^^^
    "#]],
    );
}

#[test]
fn numbers() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nconcurrency = \"16\"\n"),
        expect![[r#"
        exit 2
        error: expected a whole number from 1 up, found text
         --> pipelines/p.toml:4:15 (schedule.concurrency)
        4 | concurrency = "16"
          |               ^^^^
          = help: write `16`, without quotes
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nconcurrency = 0\n"),
        expect![[r#"
        exit 2
        error: expected a whole number from 1 up, found the number 0
         --> pipelines/p.toml:4:15 (schedule.concurrency)
        4 | concurrency = 0
          |               ^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nconcurrency = -1\n"),
        expect![[r#"
        exit 2
        error: expected a whole number from 1 up, found the number -1
         --> pipelines/p.toml:4:15 (schedule.concurrency)
        4 | concurrency = -1
          |               ^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nconcurrency = 1.5\n"),
        expect![[r#"
        exit 2
        error: expected a whole number from 1 up, found the number 1.5
         --> pipelines/p.toml:4:15 (schedule.concurrency)
        4 | concurrency = 1.5
          |               ^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nconcurrency = 16.0\n"),
        expect![[r#"
        exit 2
        error: expected a whole number from 1 up, found the number 16.0
         --> pipelines/p.toml:4:15 (schedule.concurrency)
        4 | concurrency = 16.0
          |               ^^^^
          = help: write `16`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nconcurrency = 99999999999999999999999\n"),
        expect![[r#"
        exit 2
        error: expected a whole number from 1 up, found a number that is far too large
         --> pipelines/p.toml:4:15 (schedule.concurrency)
        4 | concurrency = 99999999999999999999999
          |               ^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nconcurrency = 9999999999\n"),
        expect![[r#"
        exit 2
        error: `concurrency` must be from 1 to 100000
         --> pipelines/p.toml:4:15 (schedule.concurrency)
        4 | concurrency = 9999999999
          |               ^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nmax_events = 0x\n"),
        expect![[r#"
            exit 2
            error: the number has no digits
             --> pipelines/p.toml:4:14
            4 | max_events = 0x
              |              ^^
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nread_ahead = 10_000_000_000\n"),
        expect![[r#"
        exit 2
        error: `read_ahead` must be from 1 to 1000000
         --> pipelines/p.toml:4:14 (schedule.read_ahead)
        4 | read_ahead = 10_000_000_000
          |              ^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[errors]\nretry = { attempts = 0 }\n"),
        expect![[r#"
        exit 2
        error: expected a whole number from 1 up, or "unlimited", found the number 0
         --> pipelines/p.toml:4:22 (errors.retry.attempts)
        4 | retry = { attempts = 0 }
          |                      ^
    "#]],
    );
    check(
        Case::toml("[source.generate]\nduplicates = 1.5\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: `duplicates` is a share: expected 0 to 0.99
         --> pipelines/p.toml:2:14 (source.generate.duplicates)
        2 | duplicates = 1.5
          |              ^^^
    "#]],
    );
    check(
        Case::toml("[source.generate]\nsize = 1_000_000_000_000\nbatch = 5_000_000\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: `size` is at most 16777216, which is 16 MiB
         --> pipelines/p.toml:2:8 (source.generate.size)
        2 | size = 1_000_000_000_000
          |        ^^^^^^^^^^^^^^^^^

        error: `batch` is at most 1000000
         --> pipelines/p.toml:3:9 (source.generate.batch)
        3 | batch = 5_000_000
          |         ^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.generate]\nduplicates = nan\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: `duplicates` is a share: expected 0 to 0.99
         --> pipelines/p.toml:2:14 (source.generate.duplicates)
        2 | duplicates = nan
          |              ^^^
    "#]],
    );
}

#[test]
fn durations() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\ncommit_interval = \"5 s\"\npurge = \"5\"\n"),
        expect![[r#"
        exit 2
        error: `5` is not a duration such as "5s", "250ms" or "1h 30m"
         --> pipelines/p.toml:5:9 (schedule.purge)
        5 | purge = "5"
          |         ^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\ncommit_interval = 5\n"),
        expect![[r#"
        exit 2
        error: expected a duration such as "5s", found the number 5
         --> pipelines/p.toml:4:19 (schedule.commit_interval)
        4 | commit_interval = 5
          |                   ^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\ncommit_interval = \"-5s\"\n"),
        expect![[r#"
        exit 2
        error: `-5s` is not a duration such as "5s", "250ms" or "1h 30m"
         --> pipelines/p.toml:4:19 (schedule.commit_interval)
        4 | commit_interval = "-5s"
          |                   ^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\ncommit_interval = \"0s\"\n"),
        expect![[r#"
        exit 2
        error: `commit_interval` must be more than nothing
         --> pipelines/p.toml:4:19 (schedule.commit_interval)
        4 | commit_interval = "0s"
          |                   ^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\ncommit_interval = \"1.5s\"\n"),
        expect![[r#"
        exit 0
        no problems found
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\ncommit_interval = \"999999999999h\"\n"),
        expect![[r#"
        exit 2
        error: `999999999999h` is longer than 100 years
         --> pipelines/p.toml:4:19 (schedule.commit_interval)
        4 | commit_interval = "999999999999h"
          |                   ^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\ncommit_interval = \"5 parsecs\"\n"),
        expect![[r#"
        exit 2
        error: `5 parsecs` is not a duration such as "5s", "250ms" or "1h 30m"
         --> pipelines/p.toml:4:19 (schedule.commit_interval)
        4 | commit_interval = "5 parsecs"
          |                   ^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("stop = \"10m\"\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: expected `{ after = "10m" }`: a time stands in a table
         --> pipelines/p.toml:1:8 (stop)
        1 | stop = "10m"
          |        ^^^^^
    "#]],
    );
    check(
        Case::toml("stop = { after = 10 }\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: expected a duration such as "5s", found the number 10
         --> pipelines/p.toml:1:18 (stop.after)
        1 | stop = { after = 10 }
          |                  ^^
    "#]],
    );
    check(
        Case::toml("stop = \"tial\"\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: `tial` is not one of `never` or `tail`
         --> pipelines/p.toml:1:8 (stop)
        1 | stop = "tial"
          |        ^^^^^^
          = help: did you mean `tail`?
    "#]],
    );
}

#[test]
fn sizes() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nread_ahead_bytes = \"64\"\nmax_bytes = \"64 mb\"\n"),
        expect![[r#"
        exit 2
        error: `64 mb` is not a size such as "64MiB", "500kB" or "1000B"
         --> pipelines/p.toml:5:13 (schedule.max_bytes)
        5 | max_bytes = "64 mb"
          |             ^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nread_ahead_bytes = 64\n"),
        expect![[r#"
        exit 2
        error: expected a size such as "64MiB", found the number 64
         --> pipelines/p.toml:4:20 (schedule.read_ahead_bytes)
        4 | read_ahead_bytes = 64
          |                    ^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nread_ahead_bytes = \"-1MiB\"\n"),
        expect![[r#"
        exit 2
        error: `-1MiB` is not a size such as "64MiB", "500kB" or "1000B"
         --> pipelines/p.toml:4:20 (schedule.read_ahead_bytes)
        4 | read_ahead_bytes = "-1MiB"
          |                    ^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nread_ahead_bytes = \"99999999999GiB\"\n"),
        expect![[r#"
        exit 2
        error: `99999999999GiB` is not a size such as "64MiB", "500kB" or "1000B"
         --> pipelines/p.toml:4:20 (schedule.read_ahead_bytes)
        4 | read_ahead_bytes = "99999999999GiB"
          |                    ^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nread_ahead_bytes = \"1.5MiB\"\n"),
        expect![[r#"
        exit 2
        error: `1.5MiB` is not a size such as "64MiB", "500kB" or "1000B"
         --> pipelines/p.toml:4:20 (schedule.read_ahead_bytes)
        4 | read_ahead_bytes = "1.5MiB"
          |                    ^^^^^^^^
    "#]],
    );
}

#[test]
fn words() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n[errors]\nthen = \"prak\"\n"),
        expect![[r#"
        exit 2
        error: `prak` is not one of `park`, `halt` or `skip`
         --> pipelines/p.toml:4:8 (errors.then)
        4 | then = "prak"
          |        ^^^^^^
          = help: did you mean `park`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\norder = \"none \"\nrequire_all = \"yes\"\n"),
        expect![[r#"
        exit 2
        error: `none ` is not one of `stream`, `tranche` or `none`
         --> pipelines/p.toml:4:9 (schedule.order)
        4 | order = "none "
          |         ^^^^^^^
          = help: did you mean `none`?

        error: expected `true` or `false`, found text
         --> pipelines/p.toml:5:15 (schedule.require_all)
        5 | require_all = "yes"
          |               ^^^^^
          = help: write `true`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[errors]\nretry = { attempts = \"forever\" }\n"),
        expect![[r#"
        exit 2
        error: expected a whole number from 1 up, or "unlimited", found text
         --> pipelines/p.toml:4:22 (errors.retry.attempts)
        4 | retry = { attempts = "forever" }
          |                      ^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("group = true\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: expected a string, found `true`
         --> pipelines/p.toml:1:9 (group)
        1 | group = true
          |         ^^^^
          = help: put it in quotes
    "#]],
    );
    check(
        Case::yaml("group: no\nsource: {memory: }\nsink: {null: }\n"),
        expect![[r#"
        exit 0
        no problems found
    "#]],
    );
    check(
        Case::yaml("group: 7\nsource: {memory: }\nsink: {null: }\n"),
        expect![[r#"
        exit 2
        error: expected a string, found a number
         --> pipelines/p.yaml:1:8 (group)
        1 | group: 7
          |        ^
          = help: put it in quotes
    "#]],
    );
    check(
        Case::toml("group = 2026-11-24\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: expected a string, found a date
         --> pipelines/p.toml:1:9 (group)
        1 | group = 2026-11-24
          |         ^^^^^^^^^^
          = help: put it in quotes
    "#]],
    );
    check(
        Case::toml("checkpoint = \"sqlite\"\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: a store is a table with settings of its own: `checkpoint.sqlite`
         --> pipelines/p.toml:1:14 (checkpoint)
        1 | checkpoint = "sqlite"
          |              ^^^^^^^^
    "#]],
    );
    check(
        Case::toml("checkpoint = \"snik\"\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: `snik` is not `sink`
         --> pipelines/p.toml:1:14 (checkpoint)
        1 | checkpoint = "snik"
          |              ^^^^^^
          = help: did you mean `sink`?
    "#]],
    );
}

#[test]
fn names_of_groups() {
    check(
        Case::toml("group = \"orders/v1\"\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: `group` must be 1 to 255 bytes, without `/`, control characters and outer spaces
         --> pipelines/p.toml:1:9 (group)
        1 | group = "orders/v1"
          |         ^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("group = \"\"\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: `group` must be 1 to 255 bytes, without `/`, control characters and outer spaces
         --> pipelines/p.toml:1:9 (group)
        1 | group = ""
          |         ^^
    "#]],
    );
    check(
        Case::toml("group = \"🦀\"\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 0
        no problems found
    "#]],
    );
}

#[test]
fn what_is_missing() {
    check(
        Case::toml("[source.json]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: the key `path` is missing
         --> pipelines/p.toml:1:1 (source.json)
        1 | [source.json]
          | ^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\n"),
        expect![[r#"
        exit 2
        error: the key `url` is missing
         --> pipelines/p.toml:2:1 (sink.http)
        2 | [sink.http]
          | ^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[handler.rhai]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: the key `script` is missing
         --> pipelines/p.toml:2:1 (handler.rhai)
        2 | [handler.rhai]
          | ^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\nauth = { basic = { user = \"u\" } }\n"),
        expect![[r#"
            exit 2
            error: the key `password` is missing
             --> pipelines/p.toml:4:18 (sink.http.auth.basic)
            4 | auth = { basic = { user = "*" } }
              |                  ^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn more_than_one_mistake() {
    check(
        Case::toml(
            "grup = \"a\"\n[source.json]\npath = 5\nbatch = \"many\"\n[sink.stdot]\n[schedule]\norder = \"stram\"\n",
        ),
        expect![[r#"
        exit 2
        error: unknown key `grup`
         --> pipelines/p.toml:1:1 (grup)
        1 | grup = "a"
          | ^^^^
          = help: did you mean `group`?

        error: expected a string, found a number
         --> pipelines/p.toml:3:8 (source.json.path)
        3 | path = 5
          |        ^
          = help: put it in quotes

        error: expected a whole number from 1 up, found text
         --> pipelines/p.toml:4:9 (source.json.batch)
        4 | batch = "many"
          |         ^^^^^^

        error: unknown key `stdot`
         --> pipelines/p.toml:5:7 (sink.stdot)
        5 | [sink.stdot]
          |       ^^^^^
          = help: did you mean `stdout`?

        error: `stram` is not one of `stream`, `tranche` or `none`
         --> pipelines/p.toml:7:9 (schedule.order)
        7 | order = "stram"
          |         ^^^^^^^
          = help: did you mean `stream`?
    "#]],
    );
}

#[test]
fn settings_of_the_daemon_in_a_pipeline() {
    check(
        Case::toml("listen = \"off\"\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: unknown key `listen`
         --> pipelines/p.toml:1:1 (listen)
        1 | listen = "off"
          | ^^^^^^
          = help: `listen` is the daemon's: it belongs in `config/propulsiond.toml`
    "#]],
    );
}
