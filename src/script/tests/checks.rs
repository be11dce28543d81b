use expect_test::expect;

use super::*;

fn check_found(source: &str, expected: Expect) {
    let found = compile(&[("main.rhai", source), ("m.rhai", "fn one() { }\nfn two(a, b) { }")], Options::default());
    let shown = match found {
        Ok(script) => script.check().iter().map(|problem| format!("{problem}\n")).collect(),
        Err(error) => format!("error:\n{error}"),
    };
    expected.assert_eq(&shown);
}

#[test]
fn a_missing_entry_is_an_error() {
    check_found(
        "fn handel(stream, events) { }",
        expect![[r#"
            error:
            main.rhai:1:27: the script has neither `fn handle_event(stream, event)` nor `fn handle(stream, events)` (rename `handel` to `handle`)
               1 | fn handel(stream, events) { }
                 |                           ^"#]],
    );
    check_found(
        "fn handle(stream) {\n  1\n}",
        expect![[r#"
            error:
            main.rhai:1:19: `handle` is called as `fn handle(stream, events)`; this one has 1 parameter
               1 | fn handle(stream) {
                 |                   ^"#]],
    );
    check_found(
        "fn handle_batch(spans) { }",
        expect![[r#"
            error:
            main.rhai:1:24: the script has neither `fn handle_event(stream, event)` nor `fn handle(stream, events)` (`handle_batch` is for `streams_per_call` over 1)
               1 | fn handle_batch(spans) { }
                 |                        ^"#]],
    );
    let options = Options { streams_per_call: 2, ..Options::default() };
    let error = compile(&[("main.rhai", "fn handle(stream, events) { }")], options).unwrap_err();
    expect![[r#"
        main.rhai:1:27: the script has no `fn handle_batch(spans)` (`handle` is for `streams_per_call = 1`)
           1 | fn handle(stream, events) { }
             |                           ^"#]]
    .assert_eq(&error.to_string());
}

#[test]
fn a_script_that_does_not_parse_shows_the_line() {
    check_found(
        "fn handle(stream, events) {\n    let x = ;\n}",
        expect![[r#"
            error:
            main.rhai:2:13: unexpected `;`
               2 |     let x = ;
                 |             ^"#]],
    );
    check_found(
        "fn handle(stream, events) {\n    emit(total);\n}",
        expect![[r#"
        error:
        main.rhai:2:10: there is no variable `total`
           2 |     emit(total);
             |          ^"#]],
    );
    check_found(
        "fn handle(stream, events) {\n    emit(\"a);\n}",
        expect![[r#"
        error:
        main.rhai:2:10: open string is not terminated
           2 |     emit("a);
             |          ^"#]],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Script::compile(Path::new("/no/such/orders.rhai"), &serde_json::Map::new(), Options::default());
    expect!["orders.rhai: cannot read the script: no such file or directory"]
        .assert_eq(&error.unwrap_err().to_string());
}

#[test]
fn an_unknown_function_is_reported() {
    check_found(
        "fn handle(stream, events) {\n    emti(1);\n    let x = helpr(1) + 2;\n}\nfn helper(a) { }",
        expect![[r#"
            main.rhai:2:5: there is no function `emti` (did you mean `emit`?)
               2 |     emti(1);
                 |     ^
            main.rhai:3:13: there is no function `helpr` (did you mean `helper`?)
               3 |     let x = helpr(1) + 2;
                 |             ^
        "#]],
    );
    check_found(
        "fn handle(stream, events) {\n    emit(1, 2);\n    helper();\n    upto();\n}\nfn helper(a) { }",
        expect![[r#"
            main.rhai:2:5: `emit` takes 1 argument, not 2
               2 |     emit(1, 2);
                 |     ^
            main.rhai:3:5: `helper` takes 1 argument, not 0
               3 |     helper();
                 |     ^
            main.rhai:4:5: `upto` takes 1 or 2 arguments, not 0
               4 |     upto();
                 |     ^
        "#]],
    );
    check_found(
        "fn handle(stream, events) {\n    log.inof(1);\n    metric.inc();\n    time.today();\n    json.stringify(1);\n}",
        expect![[r#"
            main.rhai:2:9: `log`: there is no function `inof` (did you mean `info`?)
               2 |     log.inof(1);
                 |         ^
            main.rhai:3:12: `metric`: `inc` takes 1 or 2 arguments, not 0
               3 |     metric.inc();
                 |            ^
            main.rhai:4:10: `time`: there is no function `today`
               4 |     time.today();
                 |          ^
            main.rhai:5:10: `json`: there is no function `stringify`
               5 |     json.stringify(1);
                 |          ^
        "#]],
    );
    check_found(
        "import \"m\" as m;\nfn handle(stream, events) {\n    m::one();\n    m::won();\n    m::two(1);\n}",
        expect![[r#"
            main.rhai:4:8: there is no function `won` (in the module `m.rhai`)
               4 |     m::won();
                 |        ^
            main.rhai:5:8: `two` takes 2 arguments, not 1 (in the module `m.rhai`)
               5 |     m::two(1);
                 |        ^
        "#]],
    );
    check_found(
        "fn handle(stream, events) { sleep(1) }",
        expect![[r#"
            main.rhai:1:29: a script cannot sleep (write `return defer("5s");`)
               1 | fn handle(stream, events) { sleep(1) }
                 |                             ^
        "#]],
    );
}

#[test]
fn a_lost_result_is_reported() {
    check_found(
        "fn handle(stream, events) {\n    for e in events {\n        if e.index > 3 { upto(3); }\n    }\n    if events.len() > 1 { defer(\"1s\"); emit(1); }\n    if true { upto(3) } else { done() }\n}",
        expect![[r#"
            main.rhai:3:26: the result of `upto(..)` is lost here (write `return upto(..);`)
               3 |         if e.index > 3 { upto(3); }
                 |                          ^
            main.rhai:5:27: the result of `defer(..)` is lost here (write `return defer(..);`)
               5 |     if events.len() > 1 { defer("1s"); emit(1); }
                 |                           ^
        "#]],
    );
}

#[test]
fn a_call_that_might_work_is_not_reported() {
    check_found(
        "import \"m\" as m;\nconst N = 3;\nfn handle(stream, events) {\n    let f = |x| x + 1;\n    f.call(1);\n    let o = #{ double: |x| x };\n    o.double(1);\n    call(f, 2);\n    print(type_of(f));\n    let log2 = 1;\n    abs(-1);\n    \"a\".len();\n    let d = events[0].data; d.mixin(#{});\n    events.filter(|e| e.index > global::N);\n    m::two(1, 2);\n    let g = Fn(\"helper\");\n    g.call();\n    if is_def_fn(\"x\", 1) { }\n    stream.whatever();\n    min(1, 2); parse_int(\"1\"); max(1, 2);\n    return upto(3);\n}\nfn helper() { }",
        expect![""],
    );
}

#[test]
fn a_local_name_hides_the_hosts() {
    check_found("fn handle(stream, events) { let log = #{}; log.anything(1); }", expect![""]);
}

#[test]
fn a_repeated_entry_is_an_error() {
    let source = "fn handle(stream, events) { }\nfn int.handle(stream, events) { }";
    let error = compile(&[("main.rhai", source)], Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "main.rhai: `fn handle(stream, events)` is defined more than once");
}
