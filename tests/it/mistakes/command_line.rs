//! Command lines.

use expect_test::expect;

use super::{Case, check};

#[test]
fn verbs() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["chek"]),
        expect![[r#"
        exit 2
        error: there is no verb `chek`
         --> command line:1:13
        1 | propulsiond chek
          |             ^^^^
          = help: did you mean `check`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["chekc", "pipelines"]),
        expect![[r#"
        exit 2
        error: there is no verb `chekc`
         --> command line:1:13
        1 | propulsiond chekc pipelines
          |             ^^^^^
          = help: did you mean `check`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["frobnicate"]),
        expect![[r#"
        exit 2
        error: there is no verb `frobnicate`
         --> command line:1:13
        1 | propulsiond frobnicate
          |             ^^^^^^^^^^
          = help: `propulsiond --help` lists verbs and flags
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["pipelines/p.toml"]),
        expect![[r#"
            exit 2
            error: there is no verb `pipelines/p.toml`
             --> command line:1:13
            1 | propulsiond pipelines/p.toml
              |             ^^^^^^^^^^^^^^^^
              = help: did you mean `--config pipelines/p.toml`?
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["run", "pipelines"]),
        expect![[r#"
            exit 2
            error: `pipelines` is one word too many
             --> command line:1:17
            1 | propulsiond run pipelines
              |                 ^^^^^^^^^
              = help: did you mean `--config pipelines`?
        "#]],
    );
}

#[test]
fn flags() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--confg", "pipelines"]),
        expect![[r#"
        exit 2
        error: there is no flag `--confg`
         --> command line:1:13
        1 | propulsiond --confg pipelines
          |             ^^^^^^^
          = help: did you mean `--config`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["check", "--alow-missing-env"]),
        expect![[r#"
        exit 2
        error: there is no flag `--alow-missing-env`
         --> command line:1:19
        1 | propulsiond check --alow-missing-env
          |                   ^^^^^^^^^^^^^^^^^^
          = help: did you mean `--allow-missing-env`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["-c", "pipelines"]),
        expect![[r#"
        exit 2
        error: there is no flag `-c`
         --> command line:1:13
        1 | propulsiond -c pipelines
          |             ^^
          = help: `propulsiond --help` lists verbs and flags
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--config"]),
        expect![[r#"
            exit 2
            error: `--config` takes a value
             --> command line:1:13
            1 | propulsiond --config
              |             ^^^^^^^^
              = help: `propulsiond --help` lists verbs and flags
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--config", "a", "--config", "b"]),
        expect![[r#"
            exit 2
            error: `--config` is written twice
             --> command line:1:24
            1 | propulsiond --config a --config b
              |                        ^^^^^^^^
              = help: `propulsiond --help` lists verbs and flags
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--until-tail=yes"]),
        expect![[r#"
            exit 2
            error: `--until-tail` takes no value
             --> command line:1:13
            1 | propulsiond --until-tail=yes
              |             ^^^^^^^^^^^^^^^^
              = help: `propulsiond --help` lists verbs and flags
        "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--frobnicate"]),
        expect![[r#"
        exit 2
        error: there is no flag `--frobnicate`
         --> command line:1:13
        1 | propulsiond --frobnicate
          |             ^^^^^^^^^^^^
          = help: `propulsiond --help` lists verbs and flags
    "#]],
    );
}

#[test]
fn values_of_flags() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--listen", "foo"]),
        expect![[r#"
        exit 2
        error: `foo` is not an address such as "127.0.0.1:9464", nor "off"
         --> command line:1:22 (--listen)
        1 | propulsiond --listen foo
          |                      ^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--drain", "5"]),
        expect![[r#"
        exit 2
        error: `5` is not a duration such as "5s", "250ms" or "1h 30m"
         --> command line:1:21 (--drain)
        1 | propulsiond --drain 5
          |                     ^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--drain=-5s"]),
        expect![[r#"
        exit 2
        error: `-5s` is not a duration such as "5s", "250ms" or "1h 30m"
         --> command line:1:13 (--drain)
        1 | propulsiond --drain=-5s
          |             ^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--log-level", "inf"]),
        expect![[r#"
        exit 2
        error: `inf` is no level: expected `error`, `warn`, `info`, `debug`, `trace`, `off`
         --> command line:1:25 (--log-level)
        1 | propulsiond --log-level inf
          |                         ^^^
          = help: did you mean `info`?
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--log-format", "xml"]),
        expect![[r#"
        exit 2
        error: `--log-format` cannot be `xml`
         --> command line:1:26
        1 | propulsiond --log-format xml
          |                          ^^^
          = help: it is one of `text`, `json`
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["check", "--data-dir", ""]),
        expect![[r#"
        exit 2
        error: `data_dir` must not be empty
         --> command line:1:30 (--data-dir)
        1 | propulsiond check --data-dir ''
          |                              ^^
    "#]],
    );
}

#[test]
fn paths() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--config", "nowhere"]),
        expect![[r#"
        exit 2
        error: there is no such file or folder
         --> nowhere
          = help: begin a pipeline with `propulsiond new NAME`, or name a file or a folder of them
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["check", "nowhere.toml"]),
        expect![[r#"
        exit 2
        error: there is no such file or folder
         --> nowhere.toml
          = help: begin a pipeline with `propulsiond new NAME`, or name a file or a folder of them
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["check", "pipelines/ok.rhai"]),
        expect![[r#"
        exit 2
        error: a pipeline file ends in `.toml` or `.yaml`
         --> pipelines/ok.rhai
          = help: this is a script: name the pipeline that it belongs to
    "#]],
    );
    check(
        Case::new(&[]).arguments(&["check"]),
        expect![[r#"
        exit 2
        error: there is no pipeline in this folder
         --> pipelines
          = help: a pipeline is a file `NAME.toml` or `NAME.yaml`, directly in the folder
    "#]],
    );
    check(
        Case::new(&[]),
        expect![[r#"
        exit 2
        error: there is no pipeline in this folder
         --> pipelines
          = help: a pipeline is a file `NAME.toml` or `NAME.yaml`, directly in the folder
    "#]],
    );
    check(
        Case::new(&[]).with(|root| std::fs::remove_dir(root.join("pipelines")).unwrap()),
        expect![[r#"
        exit 2
        error: there is no such file or folder
         --> pipelines
          = help: begin a pipeline with `propulsiond new NAME`, or name a file or a folder of them
    "#]],
    );
    check(
        Case::new(&[("config/propulsiond.toml", "")]).arguments(&["--config", "config/propulsiond.toml"]),
        expect![[r#"
        exit 2
        error: the file is empty
         --> config/propulsiond.toml
          = help: a pipeline has at least a source and a sink, such as `source.json` and `sink.stdout`
    "#]],
    );
}

#[test]
fn machines_get_the_same() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["chek", "--json"]),
        expect![[r#"
        exit 2
        [{"column":13,"file":"command line","help":"did you mean `check`?","line":1,"message":"there is no verb `chek`","path":null,"severity":"error","span_len":4}]
    "#]],
    );
    check(
        Case::toml("[source.json]\npth = \"events.jsonl\"\n[sink.stdout]\n").arguments(&["check", "--json"]),
        expect![[r#"
        exit 2
        [{"column":1,"file":"pipelines/p.toml","help":"did you mean `path`?","line":2,"message":"unknown key `pth`","path":"source.json.pth","severity":"error","span_len":3}]
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"event.jsonl\"\n[sink.stdout]\n").arguments(&["check", "--json"]),
        expect![[r#"
        exit 0
        [{"column":8,"file":"pipelines/p.toml","help":"it is looked for in the pipeline's folder, as `pipelines/event.jsonl`, and waited for","line":2,"message":"there is no such file or folder yet","path":"source.json.path","severity":"warning","span_len":13}]
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["--listen", "foo", "--json"]),
        expect![[r#"
        exit 2
        [{"column":22,"file":"command line","help":null,"line":1,"message":"`foo` is not an address such as \"127.0.0.1:9464\", nor \"off\"","path":"--listen","severity":"error","span_len":3}]
    "#]],
    );
}

#[test]
fn a_file_that_is_named_twice_is_one_pipeline() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").arguments(&["check", "pipelines", "pipelines/p.toml"]),
        expect![[r#"
        exit 0
        no problems found
    "#]],
    );
}
