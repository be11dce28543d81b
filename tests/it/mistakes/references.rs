//! Variables and files that values refer to.

use expect_test::expect;

use super::{Case, check};

fn bytes(bytes: &[u8]) -> std::ffi::OsString {
    <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes).to_owned()
}

#[test]
fn variables_that_are_not_set() {
    check(
        Case::toml("[source.json]\npath = \"${FEEDS}/a.jsonl\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: the variable `FEEDS` is not set (write `${FEEDS:-default}` to give it a default)
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${FEEDS}/a.jsonl"
          |         ^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"${FEEDS}/a.jsonl\"\n[sink.stdout]\n")
            .arguments(&["check", "--allow-missing-env"]),
        expect![[r#"
        exit 0
        no problems found
    "#]],
    );
}

#[test]
fn references_that_are_none() {
    check(
        Case::toml("[source.json]\npath = \"${A${B}}\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: `${A${B}` is not a reference: write `${NAME}`, `${NAME:-default}` or `${file:/path}`
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${A${B}}"
          |         ^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"${A\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: `${A` is not a reference: write `${NAME}`, `${NAME:-default}` or `${file:/path}`
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${A"
          |         ^^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"${}\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: `${}` is not a reference: write `${NAME}`, `${NAME:-default}` or `${file:/path}`
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${}"
          |         ^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"${a b}\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: `${a b}` is not a reference: write `${NAME}`, `${NAME:-default}` or `${file:/path}`
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${a b}"
          |         ^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"${A-b}\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: `${A-b}` is not a reference: write `${NAME}`, `${NAME:-default}` or `${file:/path}`
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${A-b}"
          |         ^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"${A:b}\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: `${A:b}` is not a reference: write `${NAME}`, `${NAME:-default}` or `${file:/path}`
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${A:b}"
          |         ^^^^^^
    "#]],
    );
}

#[test]
fn what_variables_hold_changes_no_structure() {
    check(
        Case::toml("[source.json]\npath = \"${A}\"\n[sink.stdout]\n").variable("A", "x\"\n[sink.null]\n"),
        expect![[r#"
        exit 0
        warning: there is no such file or folder yet
         --> pipelines/p.toml:2:8 (source.json.path)
        2 | path = "${A}"
          |        ^^^^^^
          = help: it is looked for in the pipeline's folder, as `pipelines/${A}`, and waited for
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\ncommit_interval = \"${A}\"\n")
            .variable("A", "5s\nconcurrency = 1"),
        expect![[r#"
        exit 2
        error: what `${A}` stands for is not a duration such as "5s"
         --> pipelines/p.toml:4:19 (schedule.commit_interval)
        4 | commit_interval = "${A}"
          |                   ^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[schedule]\nconcurrency = \"${A}\"\n").variable("A", "5"),
        expect![[r#"
        exit 2
        error: expected a whole number from 1 up, found text
         --> pipelines/p.toml:4:15 (schedule.concurrency)
        4 | concurrency = "${A}"
          |               ^^^^^^
          = help: `${…}` stands for text only; write the number itself
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.http]\nurl = \"http://h\"\nheaders = { X = \"${A}\" }\n")
            .variable("A", "a\r\nEvil: b"),
        expect![[r#"
        exit 2
        error: the value of `x` has characters that a header cannot hold, such as a line end
         --> pipelines/p.toml:4:13 (sink.http.headers.X)
        4 | headers = { X = "${A}" }
          |             ^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"${A}\"\n[sink.stdout]\n").variable("A", bytes(b"\xff")),
        expect![[r#"
        exit 2
        error: the variable `A` is not UTF-8
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${A}"
          |         ^^^^
    "#]],
    );
}

#[test]
fn files_that_cannot_be_read() {
    check(
        Case::toml("[source.json]\npath = \"${file:/run/secrets/none}\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: cannot read the file `/run/secrets/none`: no such file or directory
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${file:/run/secrets/none}"
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"${file:/}\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: cannot read the file `/`: it is a folder
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${file:/}"
          |         ^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"${file:/dev/zero}\"\n[sink.stdout]\n"),
        expect![[r#"
        exit 2
        error: cannot read the file `/dev/zero`: it is not a regular file
         --> pipelines/p.toml:2:9 (source.json.path)
        2 | path = "${file:/dev/zero}"
          |         ^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"${file:/proc/self/exe}\"\n[sink.stdout]\n"),
        expect![[r#"
            exit 2
            error: cannot read the file `/proc/self/exe`: it is larger than 64KiB
             --> pipelines/p.toml:2:9 (source.json.path)
            2 | path = "${file:/proc/self/exe}"
              |         ^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}
