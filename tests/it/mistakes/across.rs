//! Values, and files, that do not go together.

use expect_test::expect;

use super::{Case, check};

use super::FEED;

#[test]
fn one_source_one_sink_and_something_to_do() {
    check(
        Case::toml("[sink.null]\n"),
        expect![[r#"
        exit 2
        error: a pipeline needs a source
         --> pipelines/p.toml (source)
          = help: add one of `source.json`, `source.generate`, `source.memory`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n"),
        expect![[r#"
        exit 2
        error: a pipeline needs a sink or a handler, or both
         --> pipelines/p.toml (sink)
          = help: add one of `sink.stdout`, `sink.file`, `sink.sqlite`, `sink.http`, `sink.stats`, `sink.null`
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"events.jsonl\"\n\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: a pipeline has one source, not 2: `json` in line 1 and `memory` in line 4
         --> pipelines/p.toml:4:9 (source.memory)
        4 | [source.memory]
          |         ^^^^^^
          = help: keep one of them; write the others into files of their own
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: a pipeline has one sink, not 2: `null` in line 2 and `stdout` in line 3
         --> pipelines/p.toml:3:7 (sink.stdout)
        3 | [sink.stdout]
          |       ^^^^^^
          = help: keep one of them; write the others into files of their own
    "#]],
    );
    check(
        Case::toml("source = {}\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: a pipeline needs a source
         --> pipelines/p.toml:1:1 (source)
        1 | source = {}
          | ^^^^^^
          = help: add one of `source.json`, `source.generate`, `source.memory`
    "#]],
    );
}

#[test]
fn exactly_once_needs_a_sink_that_holds_the_progress() {
    check(
        Case::toml("checkpoint = \"sink\"\n[source.memory]\n[sink.http]\nurl = \"http://h\"\n"),
        expect![[r#"
        exit 2
        error: a `http` sink cannot hold the progress
         --> pipelines/p.toml:1:14 (checkpoint)
        1 | checkpoint = "sink"
          |              ^^^^^^
          = help: `checkpoint = "sink"` goes with `sink.sqlite`; otherwise choose a store, such as `checkpoint.sqlite`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.sqlite]\npath = \"propulsiond.db\"\n"),
        expect![[r#"
        exit 0
        warning: this database holds the progress as well, but not in the same transactions
         --> pipelines/p.toml:3:8 (sink.sqlite.path)
        3 | path = "propulsiond.db"
          |        ^^^^^^^^^^^^^^^^
          = help: write `checkpoint = "sink"`, and every event has its effect exactly once
    "#]],
    );
}

#[test]
fn require_all_needs_indexes_that_follow_each_other() {
    check(
        Case::toml(
            "[source.json]\npath = \"events.jsonl\"\nindex = \"line\"\n[sink.null]\n[schedule]\nrequire_all = true\n",
        ),
        expect![[r#"
        exit 2
        error: `require_all` waits for every index, and this source leaves indexes out
         --> pipelines/p.toml:6:15 (schedule.require_all)
        6 | require_all = true
          |               ^^^^
          = help: remove it, or read indexes that follow each other: `index = "field"`
    "#]],
    );
    check(
        Case::toml("[source.memory]\nindex = \"arrival\"\n[sink.null]\n[schedule]\nrequire_all = true\n"),
        expect![[r#"
        exit 2
        error: `require_all` waits for every index, and this source leaves indexes out
         --> pipelines/p.toml:5:15 (schedule.require_all)
        5 | require_all = true
          |               ^^^^
          = help: remove it, or read indexes that follow each other: `index = "field"`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nrequire_all = true\norder = \"none\"\n"),
        expect![[r#"
        exit 2
        error: `require_all` waits for the events before, and `order = "none"` knows no before
         --> pipelines/p.toml:4:15 (schedule.require_all)
        4 | require_all = true
          |               ^^^^
          = help: remove one of the two
    "#]],
    );
}

#[test]
fn parking_needs_a_store() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n[errors]\nthen = \"park\"\n"),
        expect![[r#"
        exit 2
        error: a `sqlite` checkpoint store cannot hold parked events yet
         --> pipelines/p.toml:4:8 (errors.then)
        4 | then = "park"
          |        ^^^^^^
          = help: write `then = "halt"`; only `checkpoint.memory` can park so far
    "#]],
    );
}

#[test]
fn filters_that_match_nothing() {
    check(
        Case::toml(
            "[source.memory]\n[sink.null]\n[filter]\ncategories = [\"order\"]\nexclude_categories = [\"order\"]\n",
        ),
        expect![[r#"
        exit 2
        error: `order` is excluded by `exclude_categories` as well: the pipeline would handle no event
         --> pipelines/p.toml:4:15 (filter.categories[0])
        4 | categories = ["order"]
          |               ^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\ncategories = [\"order\"]\nstreams = [\"cart-1\"]\n"),
        expect![[r#"
        exit 2
        error: its category `cart` is not among those that pass: the pipeline would handle no event
         --> pipelines/p.toml:5:12 (filter.streams[0])
        5 | streams = ["cart-1"]
          |            ^^^^^^^^
    "#]],
    );
    check(
        Case::toml(
            "[source.memory]\n[sink.null]\n[filter]\ncategories = [\"order\"]\nstreams = [\"cart-1\", \"order-1\"]\n",
        ),
        expect![[r#"
        exit 0
        warning: its category `cart` is not among those that pass
         --> pipelines/p.toml:5:12 (filter.streams[0])
        5 | streams = ["cart-1", "order-1"]
          |            ^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\ncategories = [\"order-1\"]\n"),
        expect![[r#"
        exit 2
        error: a category ends before the first `-` of a stream's name, so this matches nothing
         --> pipelines/p.toml:4:15 (filter.categories[0])
        4 | categories = ["order-1"]
          |               ^^^^^^^^^
          = help: the category of `order-1` is `order`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\nevents = [\"\"]\n"),
        expect![[r#"
        exit 2
        error: an empty name matches nothing
         --> pipelines/p.toml:4:11 (filter.events[0])
        4 | events = [""]
          |           ^^
    "#]],
    );
    check(
        Case::toml(
            "[source.memory]\n[sink.null]\n[filter]\ncategories = [\"/order/\"]\nexclude_categories = [\"/order/\"]\n",
        ),
        expect![[r#"
        exit 2
        error: `/order/` is excluded by `exclude_categories` as well: the pipeline would handle no event
         --> pipelines/p.toml:4:15 (filter.categories[0])
        4 | categories = ["/order/"]
          |               ^^^^^^^^^
    "#]],
    );
}

#[test]
fn regular_expressions() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\nstreams = [\"/[a-/\"]\n"),
        expect![[r#"
        exit 2
        error: the regular expression does not compile: unclosed character class
         --> pipelines/p.toml:4:12 (filter.streams[0])
        4 | streams = ["/[a-/"]
          |            ^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\nstreams = [\"/(a/\"]\n"),
        expect![[r#"
        exit 2
        error: the regular expression does not compile: unclosed group
         --> pipelines/p.toml:4:12 (filter.streams[0])
        4 | streams = ["/(a/"]
          |            ^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\nstreams = [\"/(a+)+$(?=b)/\"]\n"),
        expect![[r#"
        exit 2
        error: the regular expression does not compile: look-around, including look-ahead and look-behind, is not supported
         --> pipelines/p.toml:4:12 (filter.streams[0])
        4 | streams = ["/(a+)+$(?=b)/"]
          |            ^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\nstreams = [\"/(\\\\w{1000}){1000}/\"]\n"),
        expect![[r#"
        exit 2
        error: the regular expression does not compile: it is too large once compiled
         --> pipelines/p.toml:4:12 (filter.streams[0])
        4 | streams = ["/(\\w{1000}){1000}/"]
          |            ^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\nevents = [\"Order.*\"]\n"),
        expect![[r#"
        exit 2
        error: this is taken for an exact name, but looks like a regular expression
         --> pipelines/p.toml:4:11 (filter.events[0])
        4 | events = ["Order.*"]
          |           ^^^^^^^^^
          = help: put a regular expression between slashes: `/Order.*/`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[filter]\nevents = [\"/\"]\n"),
        expect![[r#"
        exit 2
        error: this is no complete regular expression
         --> pipelines/p.toml:4:11 (filter.events[0])
        4 | events = ["/"]
          |           ^^^
          = help: a regular expression stands between two slashes: `/regex/`
    "#]],
    );
}

#[test]
fn delays_and_limits() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n[errors]\nretry = { initial = \"1m\", max = \"1s\" }\n"),
        expect![[r#"
        exit 2
        error: the first delay is longer than the longest, `max`
         --> pipelines/p.toml:4:21 (errors.retry.initial)
        4 | retry = { initial = "1m", max = "1s" }
          |                     ^^^^
    "#]],
    );
    check(
        Case::toml(
            "[source.memory]\n[handler.rhai]\nscript = \"ok.rhai\"\nthreads = 5000\ntimeout = \"0s\"\n[handler.rhai.limits]\ncall_depth = 100000\nexpression_depth = 100000\n[sink.null]\n",
        ),
        expect![[r#"
        exit 2
        error: `threads` must be from 1 to 1024
         --> pipelines/p.toml:4:11 (handler.rhai.threads)
        4 | threads = 5000
          |           ^^^^

        error: `timeout` must be longer than zero
         --> pipelines/p.toml:5:11 (handler.rhai.timeout)
        5 | timeout = "0s"
          |           ^^^^

        error: `call_depth` must be from 1 to 64
         --> pipelines/p.toml:7:14 (handler.rhai.limits.call_depth)
        7 | call_depth = 100000
          |              ^^^^^^

        error: `expression_depth` must be from 8 to 64
         --> pipelines/p.toml:8:20 (handler.rhai.limits.expression_depth)
        8 | expression_depth = 100000
          |                    ^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.stats]\ninterval = \"0s\"\n"),
        expect![[r#"
        exit 2
        error: `interval` must be more than nothing
         --> pipelines/p.toml:3:12 (sink.stats.interval)
        3 | interval = "0s"
          |            ^^^^
    "#]],
    );
}

#[test]
fn scripts_that_are_not_there() {
    check(
        Case::toml("[source.memory]\n[handler.rhai]\nscript = \"missing.rhai\"\n"),
        expect![[r#"
            exit 2
            error: there is no such script
             --> pipelines/p.toml:3:10 (handler.rhai.script)
            3 | script = "missing.rhai"
              |          ^^^^^^^^^^^^^^
              = help: it is looked for in the pipeline's folder, as `pipelines/missing.rhai`
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[handler.rhai]\nscript = \".\"\n"),
        expect![[r#"
            exit 2
            error: the script is not a file
             --> pipelines/p.toml:3:10 (handler.rhai.script)
            3 | script = "."
              |          ^^^
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[handler.rhai]\nscript = \"\"\n"),
        expect![[r#"
            exit 2
            error: `script` must not be empty
             --> pipelines/p.toml:3:10 (handler.rhai.script)
            3 | script = ""
              |          ^^
        "#]],
    );
}

#[test]
fn feeds() {
    check(
        Case::toml("[source.json]\npath = \"event.jsonl\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 0
        warning: there is no such file or folder yet
         --> pipelines/p.toml:2:8 (source.json.path)
        2 | path = "event.jsonl"
          |        ^^^^^^^^^^^^^
          = help: it is looked for in the pipeline's folder, as `pipelines/event.jsonl`, and waited for
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \".\"\npattern = \"feeds/*.jsonl\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: a pattern is for names of files, which hold no `/`
         --> pipelines/p.toml:3:11 (source.json.pattern)
        3 | pattern = "feeds/*.jsonl"
          |           ^^^^^^^^^^^^^^^
          = help: name the folder with `path`; files in folders below it are not read
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \".\"\npattern = \"\"\npoll = \"0s\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: this pattern matches no file: names that start with a dot are not read
         --> pipelines/p.toml:3:11 (source.json.pattern)
        3 | pattern = ""
          |           ^^

        error: `poll` must be more than nothing
         --> pipelines/p.toml:4:8 (source.json.poll)
        4 | poll = "0s"
          |        ^^^^
    "#]],
    );
}

#[test]
fn where_requests_go() {
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"example.com/hook\"\n"),
        expect![[r#"
            exit 2
            error: `url` must begin with http:// or https://
             --> pipelines/p.toml:3:7 (sink.http.url)
            3 | url = "example.com/hook"
              |       ^^^^^^^^^^^^^^^^^^
              = help: write it as in "https://example.com/hook"
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"ftp://example.com\"\n"),
        expect![[r#"
        exit 2
        error: `url` must begin with http:// or https://
         --> pipelines/p.toml:3:7 (sink.http.url)
        3 | url = "ftp://example.com"
          |       ^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://exa mple.com\"\n"),
        expect![[r#"
            exit 2
            error: `url` is not a url: invalid international domain name
             --> pipelines/p.toml:3:7 (sink.http.url)
            3 | url = "http://exa mple.com"
              |       ^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://user:hunter2@example.com\"\n"),
        expect![[r#"
            exit 2
            error: `url` must not hold a user and password: `auth` has those
             --> pipelines/p.toml:3:7 (sink.http.url)
            3 | url = "http://user:*******@example.com"
              |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              = help: write `auth = { basic = { user = "…", password = "${PASSWORD}" } }`
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\nmethod = \"psot\"\n"),
        expect![[r#"
        exit 2
        error: `method` must be a word in capital letters, such as "POST"
         --> pipelines/p.toml:4:10 (sink.http.method)
        4 | method = "psot"
          |          ^^^^^^
          = help: did you mean "POST"?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\nmethod = \"P O S T\"\n"),
        expect![[r#"
        exit 2
        error: `method` must be a word in capital letters, such as "POST"
         --> pipelines/p.toml:4:10 (sink.http.method)
        4 | method = "P O S T"
          |          ^^^^^^^^^
          = help: did you mean "POST"?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\npath = \"orders/{id}\"\n"),
        expect![[r#"
        exit 2
        error: `path` must begin with a slash
         --> pipelines/p.toml:4:8 (sink.http.path)
        4 | path = "orders/{id}"
          |        ^^^^^^^^^^^^^
          = help: write `/orders/{id}`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\npath = \"/{stream}\"\n"),
        expect![[r#"
        exit 2
        error: `/{stream}` must begin with a literal folder, such as `orders/`, so that no stream's name can lead elsewhere
         --> pipelines/p.toml:4:8 (sink.http.path)
        4 | path = "/{stream}"
          |        ^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\npath = \"/orders/{stram}\"\n"),
        expect![[r#"
        exit 2
        error: `{stram}` is not known: a path may hold `{stream}`, `{category}` and `{id}`
         --> pipelines/p.toml:4:8 (sink.http.path)
        4 | path = "/orders/{stram}"
          |        ^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\nsuccess = [99]\npermanent = [\"9xx\"]\n"),
        expect![[r#"
        exit 2
        error: expected a status such as 404 or a class of them such as "4xx", found the number 99
         --> pipelines/p.toml:4:12 (sink.http.success[0])
        4 | success = [99]
          |            ^^

        error: expected a status such as 404 or a class of them such as "4xx", found text
         --> pipelines/p.toml:5:14 (sink.http.permanent[0])
        5 | permanent = ["9xx"]
          |              ^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\nheaders = { \"X Y\" = \"a\" }\n"),
        expect![[r#"
        exit 2
        error: `X Y` is not a valid header name
         --> pipelines/p.toml:4:13 (sink.http.headers.X Y)
        4 | headers = { "X Y" = "*" }
          |             ^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\nheaders = { Host = \"a\" }\n"),
        expect![[r#"
        exit 2
        error: the header `host` cannot be set by a pipeline
         --> pipelines/p.toml:4:13 (sink.http.headers.Host)
        4 | headers = { Host = "*" }
          |             ^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\nheaders = { X-Name = \"a\\nb\" }\n"),
        expect![[r#"
        exit 2
        error: the value of `x-name` has characters that a header cannot hold, such as a line end
         --> pipelines/p.toml:4:13 (sink.http.headers.X-Name)
        4 | headers = { X-Name = "****" }
          |             ^^^^^^
    "#]],
    );
    check(
        Case::toml(
            "[source.memory]\n[sink.http]\nurl = \"http://h\"\nheaders = { authorization = \"${A:-b}\" }\nauth = { bearer = \"${A:-b}\" }\n",
        ),
        expect![[r#"
        exit 2
        error: both `auth` and `headers` set `Authorization`
         --> pipelines/p.toml:4:13 (sink.http.headers.authorization)
        4 | headers = { authorization = "${A:-b}" }
          |             ^^^^^^^^^^^^^
          = help: remove one of the two
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\nproxy = \"::\"\n"),
        expect![[r#"
        exit 2
        error: `proxy` is not a url
         --> pipelines/p.toml:4:9 (sink.http.proxy)
        4 | proxy = "::"
          |         ^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\ntimeout = \"0s\"\n"),
        expect![[r#"
        exit 2
        error: `timeout` must be longer than zero
         --> pipelines/p.toml:4:11 (sink.http.timeout)
        4 | timeout = "0s"
          |           ^^^^
    "#]],
    );
}

#[test]
fn statements_that_are_not_sql() {
    check(
        Case::toml(
            "[source.memory]\n[sink.sqlite]\npath = \"shop.db\"\ninit = [\"CREATE TABLE a (b)\", \"CRATE TABLE c (d)\", \"CREATE INDEX e ON f (g)\", \"SELECT '\"]\n",
        ),
        expect![[r#"
        exit 2
        error: invalid SQL: near "CRATE": syntax error
         --> pipelines/p.toml:4:31 (sink.sqlite.init[1])
        4 | init = ["CREATE TABLE a (b)", "CRATE TABLE c (d)", "CREATE INDEX e ON f (g)", "SELECT '"]
          |                               ^^^^^^^^^^^^^^^^^^^

        error: invalid SQL: unrecognized token: "'"
         --> pipelines/p.toml:4:79 (sink.sqlite.init[3])
        4 | init = ["CREATE TABLE a (b)", "CRATE TABLE c (d)", "CREATE INDEX e ON f (g)", "SELECT '"]
          |                                                                               ^^^^^^^^^^
    "#]],
    );
}

#[test]
fn a_pipeline_that_reads_what_it_writes() {
    check(
        Case::toml("[source.json]\npath = \"../data/out.jsonl\"\n[sink.file]\npath = \"out.jsonl\"\n"),
        expect![[r#"
            exit 2
            error: the sink writes the file that the source reads
             --> pipelines/p.toml:4:8 (sink.file.path)
            4 | path = "out.jsonl"
              |        ^^^^^^^^^^^
        "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"../data\"\n[sink.file]\n"),
        expect![[r#"
            exit 2
            error: the sink writes into the folder that the source reads
             --> pipelines/p.toml:3:1 (sink.file)
            3 | [sink.file]
              | ^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn two_pipelines_and_one_key() {
    check(
        Case::new(&[
            ("pipelines/a.toml", "group = \"g\"\n[source.memory]\n[sink.null]\n"),
            ("pipelines/b.toml", "group = \"g\"\n[source.memory]\n[sink.null]\n"),
            FEED,
        ]),
        expect![[r#"
        exit 2
        error: the pipeline `a` keeps its progress under the same group and source, in the same store
         --> pipelines/b.toml:1:9 (group)
        1 | group = "g"
          |         ^^^
          = help: give one of them another `group`, or a `source_id` other than `memory`
    "#]],
    );
}

#[test]
fn two_pipelines_and_one_file() {
    check(
        Case::new(&[
            ("pipelines/a.toml", "[source.memory]\n[sink.file]\npath = \"out.jsonl\"\n"),
            ("pipelines/b.toml", "[source.memory]\n[sink.file]\npath = \"./out.jsonl\"\n"),
            FEED,
        ]),
        expect![[r#"
        exit 2
        error: the pipeline `a` appends to this file, and one alone may
         --> pipelines/b.toml:3:8 (sink.file.path)
        3 | path = "./out.jsonl"
          |        ^^^^^^^^^^^^^
          = help: give each a file of its own; one source reads several if they stand in one folder
    "#]],
    );
    check(
        Case::new(&[
            ("pipelines/a.toml", "[source.memory]\n[sink.file]\npath = \"shop.db\"\n"),
            ("pipelines/b.toml", "[source.memory]\n[sink.sqlite]\npath = \"shop.db\"\n"),
            FEED,
        ]),
        expect![[r#"
        exit 2
        error: this file is the database of the pipeline `b`, not one of lines
         --> pipelines/a.toml:3:8 (sink.file.path)
        3 | path = "shop.db"
          |        ^^^^^^^^^
    "#]],
    );
    check(
        Case::new(&[
            ("pipelines/a.toml", "[source.memory]\n[sink.sqlite]\npath = \"shop.db\"\n"),
            ("pipelines/b.toml", "[source.memory]\n[sink.null]\n[checkpoint.sqlite]\npath = \"shop.db\"\n"),
            FEED,
        ]),
        expect![[r#"
        exit 0
        warning: this database holds the progress of the pipeline `b` as well: who removes one removes both
         --> pipelines/a.toml:3:8 (sink.sqlite.path)
        3 | path = "shop.db"
          |        ^^^^^^^^^
          = help: give the tables a file of their own
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.file]\npath = \"propulsiond.lock\"\n"),
        expect![[r#"
        exit 2
        error: this is the file that the daemon holds as its lock
         --> pipelines/p.toml:3:8 (sink.file.path)
        3 | path = "propulsiond.lock"
          |        ^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.file]\npath = \"propulsiond.db\"\n"),
        expect![[r#"
        exit 2
        error: this file is the checkpoint database, not one of lines
         --> pipelines/p.toml:3:8 (sink.file.path)
        3 | path = "propulsiond.db"
          |        ^^^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn paths_that_lead_elsewhere() {
    check(
        Case::toml("[source.memory]\n[sink.file]\npath = \"{stream}.jsonl\"\n"),
        expect![[r#"
        exit 2
        error: `{stream}.jsonl` must begin with a literal folder, such as `orders/`, so that no stream's name can lead elsewhere
         --> pipelines/p.toml:3:8 (sink.file.path)
        3 | path = "{stream}.jsonl"
          |        ^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.file]\npath = \"a/{stream\"\n"),
        expect![[r#"
        exit 2
        error: `a/{stream` has a brace without its counterpart
         --> pipelines/p.toml:3:8 (sink.file.path)
        3 | path = "a/{stream"
          |        ^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.file]\npath = \"a/{name}\"\n"),
        expect![[r#"
        exit 2
        error: `{name}` is not known: a path may hold `{stream}`, `{category}` and `{id}`
         --> pipelines/p.toml:3:8 (sink.file.path)
        3 | path = "a/{name}"
          |        ^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.file]\npath = \"a/../{id}\"\n"),
        expect![[r#"
        exit 2
        error: `a/../{id}` must not hold `.` or `..` as folders
         --> pipelines/p.toml:3:8 (sink.file.path)
        3 | path = "a/../{id}"
          |        ^^^^^^^^^^^
    "#]],
    );
}
