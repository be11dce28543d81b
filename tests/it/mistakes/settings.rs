//! The daemon's own settings: its file and its variables.

use expect_test::expect;

use super::{Case, check};

#[test]
fn r59_keys_of_the_file() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "listn = \"off\"\n"),
        expect![[r#"
        exit 2
        error: unknown key `listn`
         --> config/propulsiond.toml:1:1 (listn)
        1 | listn = "off"
          | ^^^^^
          = help: did you mean `listen`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "[log]\nlevl = \"info\"\n"),
        expect![[r#"
        exit 2
        error: unknown key `levl`
         --> config/propulsiond.toml:2:1 (log.levl)
        2 | levl = "info"
          | ^^^^
          = help: did you mean `level`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "level = \"info\"\n"),
        expect![[r#"
        exit 2
        error: unknown key `level`
         --> config/propulsiond.toml:1:1 (level)
        1 | level = "info"
          | ^^^^^
          = help: `level` belongs in `log`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: unknown key `source`
         --> config/propulsiond.toml:1:2 (source)
        1 | [source.memory]
          |  ^^^^^^
          = help: `source` belongs in a pipeline's file, such as `pipelines/NAME.toml`

        error: unknown key `sink`
         --> config/propulsiond.toml:2:2 (sink)
        2 | [sink.null]
          |  ^^^^
          = help: `sink` belongs in a pipeline's file, such as `pipelines/NAME.toml`
    "#]],
    );
}

#[test]
fn values_of_the_file() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "listen = \"localhost\"\n"),
        expect![[r#"
        exit 2
        error: `localhost` is not an address such as "127.0.0.1:9464", nor "off"
         --> config/propulsiond.toml:1:10 (listen)
        1 | listen = "localhost"
          |          ^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "listen = 9464\n"),
        expect![[r#"
        exit 2
        error: expected an address such as "127.0.0.1:9464", or "off", found the number 9464
         --> config/propulsiond.toml:1:10 (listen)
        1 | listen = 9464
          |          ^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "listen = \"127.0.0.1:99999\"\n"),
        expect![[r#"
        exit 2
        error: `127.0.0.1:99999` is not an address such as "127.0.0.1:9464", nor "off"
         --> config/propulsiond.toml:1:10 (listen)
        1 | listen = "127.0.0.1:99999"
          |          ^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "drain = 25\n"),
        expect![[r#"
        exit 2
        error: expected a duration such as "5s", found the number 25
         --> config/propulsiond.toml:1:9 (drain)
        1 | drain = 25
          |         ^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "drain = \"25\"\n"),
        expect![[r#"
        exit 2
        error: `25` is not a duration such as "5s", "250ms" or "1h 30m"
         --> config/propulsiond.toml:1:9 (drain)
        1 | drain = "25"
          |         ^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "data_dir = \"\"\n"),
        expect![[r#"
        exit 2
        error: `data_dir` must not be empty
         --> config/propulsiond.toml:1:12 (data_dir)
        1 | data_dir = ""
          |            ^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "[log]\nformat = \"xml\"\n"),
        expect![[r#"
        exit 2
        error: expected one of `text` or `json`
         --> config/propulsiond.toml:2:10 (log.format)
        2 | format = "xml"
          |          ^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "[log]\nlevel = \"inf\"\n"),
        expect![[r#"
        exit 2
        error: `inf` is no level: expected `error`, `warn`, `info`, `debug`, `trace`, `off`
         --> config/propulsiond.toml:2:9 (log.level)
        2 | level = "inf"
          |         ^^^^^
          = help: did you mean `info`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n")
            .and("config/propulsiond.toml", "[log]\nlevel = \"info,propulsiond=verbose\"\n"),
        expect![[r#"
        exit 2
        error: `verbose` is no level: expected `error`, `warn`, `info`, `debug`, `trace`, `off`
         --> config/propulsiond.toml:2:9 (log.level)
        2 | level = "info,propulsiond=verbose"
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^^
          = help: write a level, or one for a target as in `info,propulsiond::pipeline=debug`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "[http]\ntoken = 12345\n"),
        expect![[r#"
        exit 2
        error: expected a string, found a number
         --> config/propulsiond.toml:2:9 (http.token)
        2 | token = *****
          |         ^^^^^
          = help: put it in quotes
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "[http]\ntoken = \"${TOKEN}\"\n"),
        expect![[r#"
        exit 2
        error: the variable `TOKEN` is not set (write `${TOKEN:-default}` to give it a default)
         --> config/propulsiond.toml:2:10 (http.token)
        2 | token = "${TOKEN}"
          |          ^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "[http]\ntoken = \"\"\n"),
        expect![[r#"
        exit 2
        error: the token is empty: leave it out, or give it a value that nobody can guess
         --> config/propulsiond.toml:2:9 (http.token)
        2 | token = ""
          |         ^^
    "#]],
    );
}

#[test]
fn files_of_settings() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["check", "--settings", "none.toml"]),
        expect![[r#"
        exit 2
        error: cannot read the file: no such file or directory
         --> none.toml
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["check", "--settings", "pipelines"]),
        expect![[r#"
        exit 2
        error: expected a file, but this is a folder
         --> pipelines
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("config/propulsiond.toml", "listen = [\n"),
        expect![[r#"
        exit 2
        error: unclosed array, expected `]`
         --> config/propulsiond.toml:1:11
        1 | listen = [
          |           ^
    "#]],
    );
}

#[test]
fn variables() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable("PROPULSIOND__LISTN", "off"),
        expect![[r#"
        exit 2
        error: no setting has this name
         --> PROPULSIOND__LISTN
          = help: did you mean `PROPULSIOND__LISTEN`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable("PROPULSIOND__LISTEN", "9464"),
        expect![[r#"
        exit 2
        error: `9464` is not an address such as "127.0.0.1:9464", nor "off"
         --> PROPULSIOND__LISTEN
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable("PROPULSIOND__LOG__LEVL", "info"),
        expect![[r#"
        exit 2
        error: no setting has this name
         --> PROPULSIOND__LOG__LEVL
          = help: did you mean `PROPULSIOND__LOG__LEVEL`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable("PROPULSIOND__LOG", "info"),
        expect![[r#"
        exit 2
        error: expected keys of its own: the name of a section takes no value
         --> PROPULSIOND__LOG
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable("PROPULSIOND__LOG_LEVEL", "info"),
        expect![[r#"
            exit 2
            error: no setting has this name
             --> PROPULSIOND__LOG_LEVEL
              = help: did you mean `PROPULSIOND__LOG__LEVEL`?
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable("PROPULSIOND__LOG__FORMAT", "xml"),
        expect![[r#"
            exit 2
            error: expected one of `text` or `json`
             --> PROPULSIOND__LOG__FORMAT
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable("PROPULSIOND__LOG__LEVEL", "lots"),
        expect![[r#"
        exit 2
        error: `lots` is no level: expected `error`, `warn`, `info`, `debug`, `trace`, `off`
         --> PROPULSIOND__LOG__LEVEL
          = help: write a level, or one for a target as in `info,propulsiond::pipeline=debug`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable("PROPULSIOND__DRAIN", "5"),
        expect![[r#"
        exit 2
        error: `5` is not a duration such as "5s", "250ms" or "1h 30m"
         --> PROPULSIOND__DRAIN
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable("PROPULSIOND__", "x"),
        expect![[r#"
            exit 2
            error: no setting has this name
             --> PROPULSIOND__
              = help: did you mean `PROPULSIOND__DRAIN`?
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable(
            "PROPULSIOND__DATA_DIR",
            <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff").to_owned(),
        ),
        expect![[r#"
        exit 2
        error: its value is not UTF-8
         --> PROPULSIOND__DATA_DIR
    "#]],
    );
}

#[test]
fn variables_with_one_underscore_are_not_read() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n")
            .variable("PROPULSIOND_LISTEN", "off")
            .variable("PROPULSIOND_SERVICE_HOST", "10.0.0.1"),
        expect![[r#"
        exit 0
        warning: this variable is not read
         --> PROPULSIOND_LISTEN
          = help: did you mean `PROPULSIOND__LISTEN`, with two underscores?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").variable("PROPULSIOND_HTTP_TOKEN", "secret"),
        expect![[r#"
        exit 0
        warning: this variable is not read
         --> PROPULSIOND_HTTP_TOKEN
          = help: did you mean `PROPULSIOND__HTTP__TOKEN`, with two underscores?
    "#]],
    );
}
