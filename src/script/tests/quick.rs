//! What is run without rhai comes to the same as with it.

use proptest::prelude::*;

use super::*;
use crate::script::quick::plain;

/// Says what two calls of a script in a row come to: of the same events, as variables stay from call to call.
fn outcome(source: &str) -> String {
    match compile(&[("main.rhai", source)], Options::default()) {
        Ok(script) => {
            let mut handler = script.factory().make();
            (0..2).map(|_| show(&call(&mut *handler, &[order()]))).collect()
        }
        Err(error) => error.to_string(),
    }
}

fn check_alike(body: &str) -> String {
    let source = format!("fn handle(stream, events) {{\nlet x = 1;\n{body}\n}}\nfn three() {{ 3 }}");
    let quick = outcome(&source);
    assert_eq!(quick, plain(|| outcome(&source)), "{source}");
    quick
}

#[test]
fn what_looks_like_events_may_be_something_else() {
    let bodies = [
        "events = [1, 2]; for e in events { emit(e); }",
        "for e in stream { }",
        "for e in x { emit(e.type); }",
        "for e in events { e = 3; emit(e.type); }",
        "for e in events { let stream = #{ id: 7 }; emit(stream.id); } emit(stream.id);",
        "for e in events { if e.type { emit(1); } }",
        "for e in events { if e.index == 6 { break; } emit(e.index); }",
        "for e in events { if e.index != 6 { continue; } emit(e.index); }",
        "for e in events { if e.index == 6 { return upto(6); } emit(e.index); }",
        "for e in events { if e.index == 6 { exit(upto(6)); } emit(e.index); }",
        "for e in events { let f = || e.index; emit(f.call()); } for e in events { emit(e.index); }",
        "let f = || stream.id; stream = 4; emit(f.call());",
        "let f = || events.len(); events = []; f.call(); for e in events { emit(1); }",
        "if events.len() == 3 { done(\"three\") } else { done(\"other\") }",
        "for e in events { emit(#{ b: x, a: [e.data.by.name, e.data.items, e.data, e.nothing] }); }",
        "for e in events { emit(#{ b: three(), a: e }); }",
        "for e in events { emit(e.data.total.name); }",
        "for e in events { emit(e.data?.total); emit(e?.type); }",
        "for e in events { const y = 2; let z = y + 1; emit(z); } emit(y);",
        "for e in events { x += e.index; } emit(x);",
        "for e in events { emit(9223372036854775807 + e.index); }",
        "for e in events { emit(e.index % 0); }",
        "emit(three); emit(log); emit(params.vat);",
    ];
    let outcomes: String = bodies.iter().map(|body| check_alike(body)).collect();
    assert!(outcomes.matches("all\n").count() > 10, "{outcomes}");
}

#[test]
fn an_own_emit_is_called() {
    check_script(
        "fn handle(stream, events) { emit(1); emit(2, 3); }\nfn emit(value, other) { emit(value + other); }",
        &[order()],
        expect_test::expect![[r#"
            all
              1
              5
        "#]],
    );
}

fn leaf() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "e.type",
        "e.index",
        "e.data.total",
        "e.data.items",
        "e.data.by.name",
        "e.data.none.x",
        "e.data.none",
        "e.data",
        "e.id",
        "e.meta.x",
        "e.stream.id",
        "e.correlation",
        "e",
        "stream.id",
        "stream",
        "events",
        "x",
        "\"OrderPlaced\"",
        "3",
        "6",
        "12.5",
        "true",
        "()",
        "params.vat",
        "events[0].index",
        "three()",
    ])
    .prop_map(str::to_owned)
}

fn expression() -> impl Strategy<Value = String> {
    leaf().prop_recursive(2, 6, 2, |inner| {
        let operator = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "%", "&&", "||"]);
        prop_oneof![
            4 => (inner.clone(), operator, inner.clone()).prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            1 => inner.prop_map(|of| format!("(!{of})")),
        ]
    })
}

fn literal() -> impl Strategy<Value = String> {
    expression().prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
            (inner.clone(), inner).prop_map(|(a, b)| format!("#{{ b: {a}, a: {b} }}")),
        ]
    })
}

fn statements() -> impl Strategy<Value = String> {
    let plain = prop_oneof![
        4 => literal().prop_map(|value| format!("emit({value});")),
        1 => expression().prop_map(|value| format!("let x = {value};")),
        1 => expression().prop_map(|value| format!("x = {value};")),
        1 => expression().prop_map(|value| format!("{value};")),
        1 => prop::sample::select(vec![
            "continue;", "break;", "return;", "return upto(6);", "e = 5;", "stream = 1;", "let f = || e.index; emit(f.call());",
            "throw e.type;", "malformed(\"m\", e.index);", "done(\"tag\")", "{ let e = x; emit(e); }",
        ]).prop_map(str::to_owned),
    ];
    plain.prop_recursive(3, 12, 3, |inner| {
        let block = prop::collection::vec(inner, 0..3).prop_map(|statements| statements.join(" "));
        prop_oneof![
            (expression(), block.clone(), block.clone())
                .prop_map(|(condition, then, other)| format!("if {condition} {{ {then} }} else {{ {other} }}")),
            block.clone().prop_map(|body| format!("for e in events {{ {body} }}")),
            block.prop_map(|body| format!("try {{ {body} }} catch {{ emit(\"caught\"); }}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_script_comes_to_the_same_without_rhai(before in statements(), inside in statements(), more in statements()) {
        check_alike(&format!("let e = events[0];\n{before}\nfor e in events {{\n{inside} {more}\n}}"));
    }
}
