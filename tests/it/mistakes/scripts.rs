//! Scripts that cannot work.

use expect_test::expect;

use super::{Case, check};

#[test]
fn scripts_that_do_not_parse() {
    check(
        Case::script("fn handle(stream, events) {\n    let x = ;\n}\n"),
        expect![[r#"
            exit 2
            error: unexpected `;`
             --> pipelines/p.rhai:2:13
            2 |     let x = ;
              |             ^
        "#]],
    );
    check(
        Case::script("fn handle(stream, events) {\n    emit(1)\n    emit(2);\n}\n"),
        expect![[r#"
            exit 2
            error: expecting `;` to terminate this statement
             --> pipelines/p.rhai:3:5
            3 |     emit(2);
              |     ^
        "#]],
    );
    check(
        Case::script("fn handle(stream, events) {\n    emit(\"a);\n}\n"),
        expect![[r#"
        exit 2
        error: open string is not terminated
         --> pipelines/p.rhai:2:10
        2 |     emit("a);
          |          ^
    "#]],
    );
    check(
        Case::script("def handle(stream, events):\n    pass\n"),
        expect![[r#"
        exit 2
        error: there is no variable `def`
         --> pipelines/p.rhai:1:1
        1 | def handle(stream, events):
          | ^
    "#]],
    );
    check(
        Case::script(""),
        expect![[r#"
        exit 2
        error: the script has no `fn handle(stream, events)`
         --> pipelines/p.rhai
          = help: write `fn handle(stream, events) { … }`: it is called with the events
    "#]],
    );
    check(
        Case::script("").and("pipelines/p.rhai", b"fn handle(a, b) { \xff }"),
        expect![[r#"
        exit 2
        error: cannot read the script: it is not UTF-8
         --> pipelines/p.rhai
    "#]],
    );
}

#[test]
fn functions_that_nobody_has() {
    check(
        Case::script("fn handle(stream, events) {\n    for e in events { emitt(e.type); }\n}\n"),
        expect![[r#"
        exit 2
        error: there is no function `emitt`
         --> pipelines/p.rhai:2:23
        2 |     for e in events { emitt(e.type); }
          |                       ^
          = help: did you mean `emit`?
    "#]],
    );
    check(
        Case::script("fn handle(stream, events) {\n    print(strem.id);\n}\n"),
        expect![[r#"
            exit 2
            error: there is no variable `strem`
             --> pipelines/p.rhai:2:11
            2 |     print(strem.id);
              |           ^
              = help: did you mean `stream`?
        "#]],
    );
    check(
        Case::script("fn handle(stream, events) {\n    log.inof(\"x\");\n    metric.inc();\n}\n"),
        expect![[r#"
        exit 2
        error: `log`: there is no function `inof`
         --> pipelines/p.rhai:2:9
        2 |     log.inof("x");
          |         ^
          = help: did you mean `info`?

        error: `metric`: `inc` takes 1 or 2 arguments, not 0
         --> pipelines/p.rhai:3:12
        3 |     metric.inc();
          |            ^
    "#]],
    );
    check(
        Case::script("fn handle(stream, events) {\n    sleep(5);\n}\n"),
        expect![[r#"
        exit 2
        error: a script cannot sleep
         --> pipelines/p.rhai:2:5
        2 |     sleep(5);
          |     ^
          = help: write `return defer("5s");`
    "#]],
    );
    check(
        Case::script("fn handle(stream, events) {\n    emit(1, 2, 3);\n}\n"),
        expect![[r#"
        exit 2
        error: `emit` takes 1 argument, not 3
         --> pipelines/p.rhai:2:5
        2 |     emit(1, 2, 3);
          |     ^
    "#]],
    );
    check(
        Case::script("fn handle(stream, events) {\n    eval(\"1\");\n}\n"),
        expect![[r#"
            exit 2
            error: reserved keyword `eval` is disabled
             --> pipelines/p.rhai:2:5
            2 |     eval("1");
              |     ^
        "#]],
    );
}

#[test]
fn decisions_that_are_lost() {
    check(
        Case::script("fn handle(stream, events) {\n    for e in events { upto(e.index); }\n}\n"),
        expect![[r#"
        exit 2
        error: what `upto(..)` says is lost here
         --> pipelines/p.rhai:2:23
        2 |     for e in events { upto(e.index); }
          |                       ^
          = help: write `return upto(..);`
    "#]],
    );
}

#[test]
fn the_function_that_is_called() {
    check(
        Case::script("fn handel(stream, events) { }\n"),
        expect![[r#"
        exit 2
        error: the script has no `fn handle(stream, events)`
         --> pipelines/p.rhai
          = help: was `handel` meant to be it?
    "#]],
    );
    check(
        Case::script("fn handle(event) { }\n"),
        expect![[r#"
            exit 2
            error: `handle` is called as `fn handle(stream, events)`; this one has 1 parameter
             --> pipelines/p.rhai:1:18
            1 | fn handle(event) { }
              |                  ^
        "#]],
    );
    check(
        Case::script("fn handle_batch(spans) { }\n"),
        expect![[r#"
        exit 2
        error: the script has no `fn handle(stream, events)`
         --> pipelines/p.rhai
          = help: `handle_batch` is for `streams_per_call` over 1
    "#]],
    );
    check(
        Case::script("let x = 1;\n"),
        expect![[r#"
        exit 2
        error: the script has no `fn handle(stream, events)`
         --> pipelines/p.rhai
          = help: write `fn handle(stream, events) { … }`: it is called with the events
    "#]],
    );
    check(
        Case::new(&[
            (
                "pipelines/p.toml",
                "[source.memory]\n[handler.rhai]\nscript = \"p.rhai\"\n[sink.stdout]\n[schedule]\nstreams_per_call = 8\n",
            ),
            ("pipelines/p.rhai", "fn handle(stream, events) { }\n"),
        ]),
        expect![[r#"
        exit 2
        error: the script has no `fn handle_batch(spans)`
         --> pipelines/p.rhai
          = help: `handle` is for `streams_per_call = 1`
    "#]],
    );
}

#[test]
fn modules() {
    check(
        Case::script("import \"missing\" as m;\nfn handle(stream, events) {\n}\n"),
        expect![[r#"
        exit 2
        error: there is no module `missing.rhai` beside the script
         --> pipelines/p.rhai:1:8
        1 | import "missing" as m;
          |        ^
    "#]],
    );
    check(
        Case::script("import \"a\" as a;\nfn handle(stream, events) {\n}\n")
            .and("pipelines/a.rhai", "import \"b\" as b;\n")
            .and("pipelines/b.rhai", "import \"a\" as a;\n"),
        expect![[r#"
        exit 2
        error: modules import each other in a circle: `a.rhai` → `b.rhai` → `a.rhai`
         --> pipelines/b.rhai:1:8
        1 | import "a" as a;
          |        ^
    "#]],
    );
    check(
        Case::script("import \"../secret\" as m;\nfn handle(stream, events) {\n}\n").and("secret.rhai", ""),
        expect![[r#"
        exit 2
        error: `../secret` cannot be imported: modules are named relative to the script's folder, without `..`
         --> pipelines/p.rhai:1:8
        1 | import "../secret" as m;
          |        ^
    "#]],
    );
    check(
        Case::script("import \"a\" as a;\nfn handle(stream, events) {\n    a::hepl(1);\n}\n")
            .and("pipelines/a.rhai", "fn help(x) { }\n"),
        expect![[r#"
        exit 2
        error: there is no function `hepl` (in the module `a.rhai`)
         --> pipelines/p.rhai:3:8
        3 |     a::hepl(1);
          |        ^
          = help: did you mean `help`?
    "#]],
    );
    check(
        Case::script("let name = \"a\";\nimport name as a;\nfn handle(stream, events) {\n}\n"),
        expect![[r#"
        exit 2
        error: a module is named by a plain string, so that it is known before the script runs
         --> pipelines/p.rhai:2:8
        2 | import name as a;
          |        ^
    "#]],
    );
    check(
        Case::script("import \"link\" as m;\nfn handle(stream, events) {\n}\n")
            .and("out.rhai", "")
            .with(|root| std::os::unix::fs::symlink("../out.rhai", root.join("pipelines/link.rhai")).unwrap()),
        expect![[r#"
        exit 2
        error: the module `link.rhai` lies outside of the script's folder
         --> pipelines/p.rhai:1:8
        1 | import "link" as m;
          |        ^
    "#]],
    );
    check(
        Case::script("fn handle(stream, events) {\n    b::help(1);\n}\n"),
        expect![[r#"
            exit 2
            error: no module is imported as `b` in this file
             --> pipelines/p.rhai:2:5
            2 |     b::help(1);
              |     ^
        "#]],
    );
}

#[test]
fn what_never_ends_or_grows_while_it_loads() {
    check(
        Case::script("loop { }\nfn handle(stream, events) {\n}\n"),
        expect![[r#"
            exit 2
            error: the top-level statements took more operations than `limits.operations` allows
             --> pipelines/p.rhai:1:6
            1 | loop { }
              |      ^
        "#]],
    );
    check(
        Case::script("fn deep(n) { deep(n + 1) }\ndeep(1);\nfn handle(stream, events) {\n}\n"),
        expect![[r#"
            exit 2
            error: the top-level statements fail: functions call each other deeper than `limits.call_depth` allows
             --> pipelines/p.rhai:2:1
            2 | deep(1);
              | ^
        "#]],
    );
    check(
        Case::script("let s = \"x\";\nloop { s += s; }\nfn handle(stream, events) {\n}\n"),
        expect![[r#"
            exit 2
            error: the top-level statements fail: length of string over what `limits` allow
             --> pipelines/p.rhai:2:10
            2 | loop { s += s; }
              |          ^
        "#]],
    );
    check(
        Case::script("let a = [];\nloop { a.push(a); }\nfn handle(stream, events) {\n}\n"),
        expect![[r#"
            exit 2
            error: the top-level statements fail: size of array/BLOB over what `limits` allow
             --> pipelines/p.rhai:2:10
            2 | loop { a.push(a); }
              |          ^
        "#]],
    );
    check(
        Case::script("throw \"no\";\nfn handle(stream, events) {\n}\n"),
        expect![[r#"
            exit 2
            error: the top-level statements fail: no
             --> pipelines/p.rhai:1:1
            1 | throw "no";
              | ^
        "#]],
    );
    check(
        Case::script(&format!("fn handle(stream, events) {{ {}{} }}", "{".repeat(20_000), "}".repeat(20_000))),
        expect![[r#"
            exit 2
            error: this is deeper nested than `limits.expression_depth` allows
             --> pipelines/p.rhai:1:60
            1 | fn handle(stream, events) { {{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{ …
              |                                                            ^
        "#]],
    );
    check(
        Case::script(&format!(
            "fn handle(stream, events) {{ let x = {}1{}; }}",
            "(".repeat(20_000),
            ")".repeat(20_000)
        )),
        expect![[r#"
            exit 2
            error: this is deeper nested than `limits.expression_depth` allows
             --> pipelines/p.rhai:1:67
            1 | … dle(stream, events) { let x = (((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((( …
              |                                                               ^
        "#]],
    );
    check(
        Case::script("")
            .with(|root| std::fs::File::create(root.join("pipelines/p.rhai")).unwrap().set_len(100_000_000).unwrap()),
        expect![[r#"
            exit 2
            error: cannot read the script: it is larger than 1MiB
             --> pipelines/p.rhai
        "#]],
    );
    check(
        Case::script("").with(|root| {
            std::fs::remove_file(root.join("pipelines/p.rhai")).unwrap();
            std::os::unix::fs::symlink("/dev/zero", root.join("pipelines/p.rhai")).unwrap();
        }),
        expect![[r#"
            exit 2
            error: the script is not a file
             --> pipelines/p.toml:3:10 (handler.rhai.script)
            3 | script = "p.rhai"
              |          ^^^^^^^^
        "#]],
    );
}
