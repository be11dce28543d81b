//! Files that are none of ours, or cannot be read.

use expect_test::expect;

use super::{Case, check};

use std::os::unix::fs::symlink;
use std::path::Path;

fn bomb() -> String {
    let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (name, before) in "bcdefghi".chars().zip("abcdefgh".chars()) {
        text.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(",")));
    }
    text
}

fn utf16(text: &str) -> Vec<u8> {
    [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

/// Makes a large file that takes no room.
fn large(path: &Path) {
    std::fs::File::create(path).unwrap().set_len(100_000_000).unwrap();
}

fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_tab_in_yaml() {
    check(
        Case::yaml("source:\n\tjson:\n\t\tpath: events.jsonl\n"),
        expect![[r#"
        exit 2
        error: a tab cannot stand here
         --> pipelines/p.yaml:2:2
        2 | 	json:
          | 	^
          = help: YAML is indented by spaces, never by tabs
    "#]],
    );
}

#[test]
fn keys_and_tables_written_twice() {
    check(
        Case::toml("group = \"a\"\ngroup = \"b\"\n[source.memory]\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: `group` is written twice
         --> pipelines/p.toml:2:1
        2 | group = "b"
          | ^^^^^
          = help: every key and every table is written once
    "#]],
    );
    check(
        Case::toml("[source.memory]\n[sink.null]\n[source.memory]\n"),
        expect![[r#"
        exit 2
        error: `memory` is written twice
         --> pipelines/p.toml:3:9
        3 | [source.memory]
          |         ^^^^^^
          = help: every key and every table is written once
    "#]],
    );
    check(
        Case::yaml("source: {memory: }\nsink: {null: }\ngroup: a\ngroup: b\n"),
        expect![[r#"
        exit 2
        error: the key `group` is written twice
         --> pipelines/p.yaml:4:1
        4 | group: b
          | ^^^^^
          = help: every key is written once; join the two
    "#]],
    );
}

#[test]
fn carriage_returns_and_byte_order_marks_are_no_mistake() {
    check(
        Case::toml("﻿[source.json]\r\npath = \"events.jsonl\"\r\n[sink.null]\r\n"),
        expect![[r#"
        exit 0
        no problems found
    "#]],
    );
    check(
        Case::toml("﻿[source.json]\r\npth = \"events.jsonl\"\r\n[sink.null]\r\n"),
        expect![[r#"
        exit 2
        error: unknown key `pth`
         --> pipelines/p.toml:2:1 (source.json.pth)
        2 | pth = "events.jsonl"
          | ^^^
          = help: did you mean `path`?
    "#]],
    );
}

#[test]
fn an_alias_bomb() {
    check(
        Case::yaml(&bomb()),
        expect![[r#"
        exit 2
        error: the document is larger, or deeper nested, than any pipeline is once its aliases are followed
         --> pipelines/p.yaml:1:16
        1 | a: &a [x,x,x,x,x,x,x,x,x]
          |                ^
    "#]],
    );
}

#[test]
fn several_documents() {
    check(
        Case::yaml("source: {memory: }\n---\nsink: {null: }\n"),
        expect![[r#"
        exit 2
        error: a file holds one document
         --> pipelines/p.yaml:3:1
        3 | sink: {null: }
          | ^
          = help: write the other into a file of its own
    "#]],
    );
}

#[test]
fn bytes_that_are_not_utf8() {
    check(
        Case::new(&[]).and("pipelines/p.toml", b"group = \"\xff\"\n"),
        expect![[r#"
        exit 2
        error: the byte 0xff is not UTF-8
         --> pipelines/p.toml:1:10
        1 | group = "�"
          |          ^
          = help: save the file as UTF-8
    "#]],
    );
    check(
        Case::new(&[]).and("pipelines/p.toml", utf16("[sink.null]\n")),
        expect![[r#"
            exit 2
            error: the file is UTF-16, not UTF-8
             --> pipelines/p.toml
              = help: save the file as UTF-8
        "#]],
    );
}

#[test]
fn empty_files() {
    check(
        Case::toml(""),
        expect![[r#"
        exit 2
        error: the file is empty
         --> pipelines/p.toml
          = help: a pipeline has at least a source and a sink, such as `source.json` and `sink.stdout`
    "#]],
    );
    check(
        Case::toml("# nothing\n\n# yet\n"),
        expect![[r#"
        exit 2
        error: the file is empty
         --> pipelines/p.toml
          = help: a pipeline has at least a source and a sink, such as `source.json` and `sink.stdout`
    "#]],
    );
    check(
        Case::yaml("# nothing\n"),
        expect![[r#"
        exit 2
        error: the file is empty
         --> pipelines/p.yaml
          = help: a pipeline has at least a source and a sink, such as `source.json` and `sink.stdout`
    "#]],
    );
    check(
        Case::yaml("---\n"),
        expect![[r#"
        exit 2
        error: the file is empty
         --> pipelines/p.yaml
          = help: a pipeline has at least a source and a sink, such as `source.json` and `sink.stdout`
    "#]],
    );
}

#[test]
fn a_folder_named_like_a_file() {
    check(
        Case::new(&[]).with(|root| std::fs::create_dir(root.join("pipelines/p.toml")).unwrap()),
        expect![[r#"
        exit 2
        error: expected a file, but this is a folder
         --> pipelines/p.toml
    "#]],
    );
}

#[test]
fn links_that_lead_nowhere_or_round() {
    check(
        Case::new(&[]).with(|root| symlink("p.toml", root.join("pipelines/p.toml")).unwrap()),
        expect![[r#"
        exit 2
        error: cannot read the file: too many levels of symbolic links
         --> pipelines/p.toml
    "#]],
    );
    check(
        Case::new(&[]).with(|root| symlink("gone.toml", root.join("pipelines/p.toml")).unwrap()),
        expect![[r#"
        exit 2
        error: cannot read the file: no such file or directory
         --> pipelines/p.toml
    "#]],
    );
}

#[test]
fn a_pipe_is_not_waited_for() {
    check(
        Case::new(&[]).with(|root| pipe(&root.join("pipelines/p.toml"))),
        expect![[r#"
        exit 2
        error: expected a file, but this is not a regular file
         --> pipelines/p.toml
    "#]],
    );
}

#[test]
fn endings() {
    check(
        Case::new(&[("pipelines/p.yml", "source: {memory: }\n")]),
        expect![[r#"
        exit 2
        error: a pipeline file ends in `.toml` or `.yaml`
         --> pipelines/p.yml
          = help: rename it to `p.yaml`
    "#]],
    );
    check(
        Case::new(&[("p.json", "{}")]).arguments(&["check", "p.json"]),
        expect![[r#"
        exit 2
        error: a pipeline file ends in `.toml` or `.yaml`
         --> p.json
    "#]],
    );
    check(
        Case::new(&[("pipelines/p.toml", "source:\n  memory:\nsink:\n  null:\n")]),
        expect![[r#"
            exit 2
            error: a key is followed by `=` and its value
             --> pipelines/p.toml:1:8
            1 | source:
              |        ^
              = help: this is YAML: let the file's name end in `.yaml`
        "#]],
    );
    check(
        Case::new(&[("pipelines/p.yaml", "[source.memory]\n[sink.null]\n")]),
        expect![[r#"
            exit 2
            error: this is no YAML
             --> pipelines/p.yaml:2:1
            2 | [sink.null]
              | ^
              = help: this is TOML: let the file's name end in `.toml`
        "#]],
    );
}

#[test]
fn two_files_of_one_name() {
    check(
        Case::toml("[source.memory]\n[sink.null]\n").and("pipelines/p.yaml", "source: {memory: }\nsink: {null: }\n"),
        expect![[r#"
        exit 2
        error: the pipeline `p` is described by `p.toml` as well
         --> pipelines/p.yaml
          = help: remove one of the files
    "#]],
    );
}

#[test]
fn names_that_are_no_pipelines() {
    check(
        Case::new(&[("pipelines/my pipeline.toml", "[source.memory]\n[sink.null]\n")]),
        expect![[r#"
        exit 2
        error: this name cannot be a pipeline's: it is part of URLs and a metric's label
         --> pipelines/my pipeline.toml
          = help: a name is at most 64 letters (a-z), digits, `-` and `_`, and begins with a letter or digit
    "#]],
    );
    check(
        Case::new(&[("pipelines/\u{1f980}.toml", "[source.memory]\n[sink.null]\n")]),
        expect![[r#"
        exit 2
        error: this name cannot be a pipeline's: it is part of URLs and a metric's label
         --> pipelines/🦀.toml
          = help: a name is at most 64 letters (a-z), digits, `-` and `_`, and begins with a letter or digit
    "#]],
    );
}

#[test]
fn a_file_of_a_hundred_megabytes() {
    check(
        Case::new(&[]).with(|root| large(&root.join("pipelines/p.toml"))),
        expect![[r#"
        exit 2
        error: the file is larger than 1 MiB
         --> pipelines/p.toml
    "#]],
    );
    check(
        Case::new(&[]).with(|root| large(&root.join("pipelines/p.yaml"))),
        expect![[r#"
        exit 2
        error: the file is larger than 1 MiB
         --> pipelines/p.yaml
    "#]],
    );
}

#[test]
fn deep_nesting() {
    check(
        Case::toml(&format!("a = {}1{}\n", "[".repeat(5_000), "]".repeat(5_000))),
        expect![[r#"
        exit 2
        error: this is deeper nested than any pipeline is
         --> pipelines/p.toml:1:85
        1 | … [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ …
          |                                                               ^
    "#]],
    );
    check(
        Case::yaml(&format!("a: {}1{}\n", "[".repeat(5_000), "]".repeat(5_000))),
        expect![[r#"
        exit 2
        error: this is deeper nested than any pipeline is
         --> pipelines/p.yaml:1:259
        1 | … [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ …
          |                                                               ^
    "#]],
    );
    check(
        Case::toml(&format!("{} = 1\n", vec!["a"; 5_000].join("."))),
        expect![[r#"
            exit 2
            error: this is deeper nested than any pipeline is
             --> pipelines/p.toml
        "#]],
    );
}

#[test]
fn quotes() {
    check(
        Case::toml("[source.json]\npath = “events.jsonl”\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: text stands in quotes
         --> pipelines/p.toml:2:8
        2 | path = “events.jsonl”
          |        ^^^^^^^^^^^^^^
          = help: these are typographic quotes: write `"`
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"events.jsonl\n[sink.null]\n"),
        expect![[r#"
            exit 2
            error: the text has no closing `"`
             --> pipelines/p.toml:2:21
            2 | path = "events.jsonl
              |                     ^
        "#]],
    );
    check(
        Case::toml("[source.json]\npath = events.jsonl\n[sink.null]\n"),
        expect![[r#"
        exit 2
        error: text stands in quotes
         --> pipelines/p.toml:2:8
        2 | path = events.jsonl
          |        ^^^^^^^^^^^^
    "#]],
    );
    check(
        Case::toml("[source.json]\npath = \"C:\\feeds\\Umsatz\"\n[sink.null]\n"),
        expect![[r#"
            exit 2
            error: this is no escape that TOML knows
             --> pipelines/p.toml:2:19
            2 | path = "C:\feeds\Umsatz"
              |                   ^
              = help: in `"…"` a `\` begins an escape: write `\\`, or put the text between `'…'`
        "#]],
    );
    check(
        Case::yaml("source: {json: {path: @events}}\n"),
        expect![[r#"
        exit 2
        error: text cannot begin with this character
         --> pipelines/p.yaml:1:23
        1 | source: {json: {path: @events}}
          |                       ^
          = help: put the text in quotes
    "#]],
    );
}

#[test]
fn punctuation() {
    check(
        Case::toml("[source.json\npath = \"events.jsonl\"\n"),
        expect![[r#"
            exit 2
            error: the name of the table has no closing `]`
             --> pipelines/p.toml:1:13
            1 | [source.json
              |             ^
        "#]],
    );
    check(
        Case::toml("[source.json]\npath: \"events.jsonl\"\n"),
        expect![[r#"
            exit 2
            error: a key is followed by `=` and its value
             --> pipelines/p.toml:2:7
            2 | path: "events.jsonl"
              |       ^
              = help: TOML writes `key = value`
        "#]],
    );
    check(
        Case::toml("[source.json] path = \"events.jsonl\"\n"),
        expect![[r#"
            exit 2
            error: the line should end here
             --> pipelines/p.toml:1:15
            1 | [source.json] path = "events.jsonl"
              |               ^
              = help: begin a new line
        "#]],
    );
    check(
        Case::yaml("source:memory\n"),
        expect![[r#"
            exit 2
            error: expected a table, found text
             --> pipelines/p.yaml:1:1
            1 | source:memory
              | ^^^^^^^^^^^^^
              = help: a `:` is followed by a space
        "#]],
    );
    check(
        Case::yaml("source:\n  json:\n    path: events.jsonl\n   batch: 5\n"),
        expect![[r#"
        exit 2
        error: this is indented like nothing above it
         --> pipelines/p.yaml:4:4
        4 |    batch: 5
          |    ^
          = help: keys of one table begin in the same column
    "#]],
    );
    check(
        Case::yaml("- source: {memory: }\n"),
        expect![[r#"
        exit 2
        error: expected a table, found a list
         --> pipelines/p.yaml:1:1
        1 | - source: {memory: }
          | ^
    "#]],
    );
    check(
        Case::yaml("source: {memory: }\nsink: {null: }\ngroup: a: b\n"),
        expect![[r#"
        exit 2
        error: a `:` cannot stand here
         --> pipelines/p.yaml:3:9
        3 | group: a: b
          |         ^
          = help: text that holds a `:` and a space stands in quotes
    "#]],
    );
    check(
        Case::yaml("sink: {null: \n"),
        expect![[r#"
            exit 2
            error: this `{` is never closed
             --> pipelines/p.yaml:1:7
            1 | sink: {null:
              |       ^
        "#]],
    );
    check(
        Case::yaml("group: *name\n"),
        expect![[r#"
        exit 2
        error: nothing has this anchor
         --> pipelines/p.yaml:1:8
        1 | group: *name
          |        ^
          = help: text that begins with `*` stands in quotes
    "#]],
    );
}

#[test]
fn endings_in_capitals() {
    check(
        Case::new(&[("pipelines/p.TOML", "[source.memory]\n[sink.null]\n")]),
        expect![[r#"
        exit 2
        error: a pipeline file ends in `.toml` or `.yaml`
         --> pipelines/p.TOML
          = help: rename it to `p.toml`
    "#]],
    );
}
