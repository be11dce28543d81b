//! Texts that are no document.

use expect_test::expect;

use super::{check_file, check_toml, check_yaml};

#[test]
fn toml_that_does_not_parse() {
    check_toml(
        "[source.json\npath = 'a'\n",
        expect![[r#"
            error: the name of the table has no closing `]`
             --> pipelines/a.toml:1:13
            1 | [source.json
              |             ^
        "#]],
    );
    check_toml(
        "group = orders\n",
        expect![[r#"
            error: text stands in quotes
             --> pipelines/a.toml:1:9
            1 | group = orders
              |         ^^^^^^
        "#]],
    );
    check_toml(
        "group = 'a\n",
        expect![[r#"
            error: the text has no closing `'`
             --> pipelines/a.toml:1:11
            1 | group = 'a
              |           ^
        "#]],
    );
    check_toml(
        "group = 'a' stop = 'tail'\n",
        expect![[r#"
            error: the line should end here
             --> pipelines/a.toml:1:13
            1 | group = 'a' stop = 'tail'
              |             ^
              = help: begin a new line
        "#]],
    );
    check_toml(
        "group: orders\nsource:\n",
        expect![[r#"
            error: a key is followed by `=` and its value
             --> pipelines/a.toml:1:8
            1 | group: orders
              |        ^
              = help: this is YAML: let the file's name end in `.yaml`
        "#]],
    );
    check_toml(
        "group = “orders”\n",
        expect![[r#"
            error: text stands in quotes
             --> pipelines/a.toml:1:9
            1 | group = “orders”
              |         ^^^^^^^^
              = help: these are typographic quotes: write `"`
        "#]],
    );
    check_toml(
        "[schedule]\nmax_events = 99999999999999999999999999999999999999999\n",
        expect![[r#"
        error: the number is out of range
         --> pipelines/a.toml:2:14
        2 | max_events = 99999999999999999999999999999999999999999
          |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check_toml(
        "group = \"a\\qb\"\n",
        expect![[r#"
            error: this is no escape that TOML knows
             --> pipelines/a.toml:1:12
            1 | group = "a\qb"
              |            ^
              = help: in `"…"` a `\` begins an escape: write `\\`, or put the text between `'…'`
        "#]],
    );
    check_toml(
        "= 'a'\n",
        expect![[r#"
        error: unquoted keys cannot be empty, expected letters, numbers, `-`, `_`
         --> pipelines/a.toml:1:1
        1 | = 'a'
          | ^
    "#]],
    );
    check_toml(
        &format!("a = {}", "[".repeat(5_000)),
        expect![[r#"
            error: this is deeper nested than any pipeline is
             --> pipelines/a.toml:1:85
            1 | … [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ …
              |                                                               ^
        "#]],
    );
}

#[test]
fn keys_and_tables_written_twice() {
    check_toml(
        "group = 'a'\ngroup = 'b'\n",
        expect![[r#"
            error: `group` is written twice
             --> pipelines/a.toml:2:1
            2 | group = 'b'
              | ^^^^^
              = help: every key and every table is written once
        "#]],
    );
    check_toml(
        "[sink.stdout]\n[sink.stdout]\n",
        expect![[r#"
            error: `stdout` is written twice
             --> pipelines/a.toml:2:7
            2 | [sink.stdout]
              |       ^^^^^^
              = help: every key and every table is written once
        "#]],
    );
    check_yaml(
        "group: a\nstop: tail\ngroup: b\n",
        expect![[r#"
        error: the key `group` is written twice
         --> pipelines/a.yaml:3:1
        3 | group: b
          | ^^^^^
          = help: every key is written once; join the two
    "#]],
    );
}

#[test]
fn yaml_that_does_not_parse() {
    check_yaml(
        "source:\n\tjson:\n\t\tpath: a\n",
        expect![[r#"
            error: a tab cannot stand here
             --> pipelines/a.yaml:2:2
            2 | 	json:
              | 	^
              = help: YAML is indented by spaces, never by tabs
        "#]],
    );
    check_yaml(
        "source:\n  json:\n path: a\n",
        expect![[r#"
            error: this is indented like nothing above it
             --> pipelines/a.yaml:3:2
            3 |  path: a
              |  ^
              = help: keys of one table begin in the same column
        "#]],
    );
    check_yaml(
        "group: 'a\n",
        expect![[r#"
            error: unclosed quote
             --> pipelines/a.yaml:1:8
            1 | group: 'a
              |        ^
        "#]],
    );
    check_yaml(
        "sink: {stdout: {}\n",
        expect![[r#"
            error: this `{` is never closed
             --> pipelines/a.yaml:1:7
            1 | sink: {stdout: {}
              |       ^
        "#]],
    );
    check_yaml(
        "group: a\n---\ngroup: b\n",
        expect![[r#"
        error: a file holds one document
         --> pipelines/a.yaml:3:1
        3 | group: b
          | ^
          = help: write the other into a file of its own
    "#]],
    );
    check_yaml(
        "group: *orders\n",
        expect![[r#"
            error: nothing has this anchor
             --> pipelines/a.yaml:1:8
            1 | group: *orders
              |        ^
              = help: text that begins with `*` stands in quotes
        "#]],
    );
    check_yaml(
        "group: @orders\n",
        expect![[r#"
            error: text cannot begin with this character
             --> pipelines/a.yaml:1:8
            1 | group: @orders
              |        ^
              = help: put the text in quotes
        "#]],
    );
    check_yaml(
        "group: orders: v1\n",
        expect![[r#"
            error: a `:` cannot stand here
             --> pipelines/a.yaml:1:14
            1 | group: orders: v1
              |              ^
              = help: text that holds a `:` and a space stands in quotes
        "#]],
    );
    check_yaml(
        &format!("a: {}", "[".repeat(5_000)),
        expect![[r#"
            error: this is deeper nested than any pipeline is
             --> pipelines/a.yaml:1:259
            1 | … [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ …
              |                                                               ^
        "#]],
    );
}

#[test]
fn an_alias_bomb_is_defused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let alias = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(", ")));
    }
    check_yaml(
        &bomb,
        expect![[r#"
        error: the document is larger, or deeper nested, than any pipeline is once its aliases are followed
         --> pipelines/a.yaml:1:38
        1 | a0: &a0 [x, x, x, x, x, x, x, x, x, x]
          |                                      ^
    "#]],
    );
}

#[test]
fn bytes_that_are_not_utf8() {
    check_file(
        "a.toml",
        b"# caf\xe9\n[source.memory]\n",
        expect![[r#"
        error: the byte 0xe9 is not UTF-8
         --> pipelines/a.toml:1:6
        1 | # caf�
          |      ^
          = help: save the file as UTF-8
    "#]],
    );
    check_file(
        "a.yaml",
        b"group: a\nstop: t\xffil\n",
        expect![[r#"
        error: the byte 0xff is not UTF-8
         --> pipelines/a.yaml:2:8
        2 | stop: t�il
          |        ^
          = help: save the file as UTF-8
    "#]],
    );
    check_file(
        "a.toml",
        b"g\0r\0o\0u\0p\0",
        expect![[r#"
            error: a key is followed by `=` and its value
             --> pipelines/a.toml:1:11
            1 | g�r�o�u�p�
              |           ^
        "#]],
    );
}

#[test]
fn files_that_say_nothing() {
    check_toml(
        "",
        expect![[r#"
            error: the file is empty
             --> pipelines/a.toml
              = help: a pipeline has at least a source and a sink, such as `source.json` and `sink.stdout`
        "#]],
    );
    check_yaml(
        "",
        expect![[r#"
            error: the file is empty
             --> pipelines/a.yaml
              = help: a pipeline has at least a source and a sink, such as `source.json` and `sink.stdout`
        "#]],
    );
    check_yaml(
        "# nothing yet\n\n",
        expect![[r#"
            error: the file is empty
             --> pipelines/a.yaml
              = help: a pipeline has at least a source and a sink, such as `source.json` and `sink.stdout`
        "#]],
    );
    check_yaml(
        "---\n",
        expect![[r#"
            error: the file is empty
             --> pipelines/a.yaml
              = help: a pipeline has at least a source and a sink, such as `source.json` and `sink.stdout`
        "#]],
    );
    check_yaml(
        "just text\n",
        expect![[r#"
        error: expected a table, found text
         --> pipelines/a.yaml:1:1
        1 | just text
          | ^^^^^^^^^
    "#]],
    );
    check_yaml(
        "- a\n- b\n",
        expect![[r#"
        error: expected a table, found a list
         --> pipelines/a.yaml:1:1
        1 | - a
          | ^
    "#]],
    );
}

#[test]
fn what_a_terminal_would_obey_is_not_printed() {
    check_toml(
        "group = '\u{202e}x'\nred\u{1b}[31m = 1\n",
        expect![[r#"
            error: a key is followed by `=` and its value
             --> pipelines/a.toml:2:5
            2 | red�[31m = 1
              |     ^
        "#]],
    );
}
