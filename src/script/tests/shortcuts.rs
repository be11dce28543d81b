//! Comparison of the shortcuts with plain rhai.

use proptest::prelude::*;

use super::*;
use crate::script::shortcuts::plain;

/// Returns the decisions of one handler for several calls, as its state persists between calls.
fn outcome(source: &str, works: &[Work]) -> String {
    match compile(&[("main.rhai", source)], Options::default()) {
        Ok(script) => {
            let mut handler = script.factory().make();
            works.iter().map(|work| show(&call(&mut *handler, std::slice::from_ref(work)))).collect()
        }
        Err(error) => error.to_string(),
    }
}

/// The functions that every compared script has.
const FUNCTIONS: &str = "fn three() { 3 }\nfn e(events) { events[0].data }\nfn add(to, x) { to.push(x); to.len() }";

fn check_alike_over(body: &str, works: &[Work]) -> String {
    let source = format!("fn handle(stream, events) {{\nlet x = 1;\n{body}\n}}\n{FUNCTIONS}");
    let decisions = outcome(&source, works);
    assert_eq!(decisions, plain(|| outcome(&source, works)), "{source}\n{works:?}");
    decisions
}

fn check_alike(body: &str) -> String {
    check_alike_over(body, &[order(), order()])
}

/// Statements of known shapes, also with values that do not suit the shape.
const BODIES: &[&str] = &[
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
    "let a = []; for i in 0..4 { a.push(i); a.push(a); } emit(a); emit(a.len());",
    "let o = #{ items: [], n: 1 }; for i in 1..=3 { o.items.push(i * 2); o.n.push(i); } emit(o);",
    "let o = #{ items: [] }; for e in events { o.items.push(e.data.total); o.items.push(e); } emit(o);",
    "let a = []; let f = || a.len(); a.push(3); emit(f.call()); const c = [1]; c.push(2); emit(c);",
    "let a = []; for i in 0..3 { let b = a; b.push(i); a = b; i = \"x\"; a.push(i); } emit(a);",
    "let d = e(events); let items = d.items; items.push(2); emit(items); emit(d);",
    "let d = events[0].data; d.items.push(2); d[\"items\"].push(3); d.by.set(\"x\", 4); emit(d); emit(d.items.pop()); emit(d.items.len());",
    "events[0].data.items.push(1);",
    "let d = events[0].data; emit([d.items.len(), events[0].data.by.keys(), d.by.name.split(\"d\")]); d.items.push(2); emit(d);",
    "events[0].data.by.set(\"name\", 1);",
    "let p = params; p.nested.deep.push(3); emit(p.nested.deep.len()); params.nested.deep.push(4); emit(params.nested.deep);",
    "let m = #{}; m.set(\"a\", 1); m.set(\"a\", [2]); m.a.push(m.len()); emit(m); emit(m.get(\"a\")); emit(m.get(\"b\")); emit(m.is_empty());",
    "let a = [[]]; a[0].push(1); a[-1].push(2); let b = a.pop(); emit(b); emit(a.is_empty()); emit([].pop()); emit(a.len);",
    "let a = []; let f = |x| a.push(x); f.call(1); f.call(a.len()); [7, 8].for_each(|| a.push(this)); emit(a);",
    "let a = []; add(a, 1); emit(a); add_to.call(a, 1);",
    "let a = []; Fn(\"push\").call(a, 1); emit(a); let l = Fn(\"len\"); emit(l.call([1, 2]));",
    "const a = [1]; emit(a.len()); a.pop();",
    "const m = #{}; emit(m.len()); m.set(\"a\", 1);",
    "try { [1].push(); } catch (why) { emit(why.to_string()); } emit([1, 2].len());",
    "emit([3, 4].map(|v, i| v * i)); emit([[1], [2]].map(|| this.len())); emit([].map(three)); emit([1].map(Fn(\"three\")));",
    "emit([1, 2].map(|x| [x, x]).len()); [1].map(|x| throw x);",
    "let s = \"\"; s.push(\"a\"); s.push(3); emit(s); let t = [1]; t.push([2, t]); emit(t);",
    "for i in 3..x { emit(i); } for i in x..=x { emit(i); } for i in 0..2.5 { emit(i); }",
    "for i in 0..5 { if i == 1 { continue; } if i == 3 { break; } emit(i); } let i = 9; emit(i);",
    "for i in 0..3 { let f = || i; emit(f.call()); } for i in 0..x { emit(i); }",
    "while x < 5 { x += 1; if x == 3 { continue; } emit(x); } while x { }",
    "while true { x += 1; if x > 4 { break; } emit(x); }",
    "emit(while x < 3 { x += 1; if x == 2 { break \"b\"; } });",
    "let a = []; a.push(events); a.push(stream); a.push(events[0].data); emit(a.len()); emit(a[2]);",
    "let a = events[0]; let z = events[2]; emit(#{ z: a.index, a: z.index }); throw \"after\";",
    "let a = events[0]; for e in events { } emit(#{ a: a.index, b: !3 });",
    "let a = events[0]; for e in events { } if a.index == () || 3 { }",
    "for i in x + 1..=x { emit(i); } x = 9223372036854775807; for i in x - 1..=x { emit(i); }",
    "for i in x + 1..x { emit(i); } x = -9223372036854775807 - x; for i in x..x { emit(i); } for i in x..=x { emit(i); }",
];

#[test]
fn statements_of_a_known_shape_with_other_values_decide_the_same() {
    let outcomes: String = BODIES.iter().map(|body| check_alike(body)).collect();
    assert!(outcomes.matches("all\n").count() > 10, "{outcomes}");
}

#[test]
fn upcast_events_decide_the_same() {
    // The second script replaces each type and each document by an equal one.
    let same = "fn upcast(event) { event }";
    let made = "fn upcast(event) { let data = event.data; if data != () { data.y = 1; data.remove(\"y\"); } #{ type: event.type, data: data } }";
    for body in BODIES {
        let source =
            |upcast: &str| format!("fn handle(stream, events) {{\nlet x = 1;\n{body}\n}}\n{FUNCTIONS}\n{upcast}");
        let works = [order(), order()];
        let read = outcome(&source(""), &works);
        assert_eq!(outcome(&source(same), &works), read, "{body}");
        let upcast = outcome(&source(made), &works);
        assert_eq!(upcast, plain(|| outcome(&source(made), &works)), "{body}");
        assert_eq!(upcast, read, "{body}");
    }
}

/// An error names the event that was read last. An operand that is not evaluated reads none.
#[test]
fn and_and_or_stop_early() {
    let body = |condition: &str| format!("let z = events[2]; let a = events[0]; if {condition} {{ }} throw \"after\";");
    for (condition, last) in [
        ("a.index == 1 && z.index == 7", 5),
        ("a.index == 5 && z.index == 7", 7),
        ("a.index == 5 || z.index == 7", 5),
        ("a.index == 1 || z.index == 7", 7),
    ] {
        let shown = check_alike(&body(condition));
        assert!(shown.contains(&format!("index {last}, ")), "{condition}: {shown}");
    }
}

#[test]
fn a_shortcut_that_fails_leaves_no_bytes_behind() {
    // The sum is none of the shortcuts' kinds, so that rhai converts the whole list again.
    let source = "fn handle(stream, events) { for e in events { emit([e.type, e.index + 0.5]); } }";
    let outcome = |emitted_bytes| {
        let limits = Limits { emitted_bytes, ..Limits::default() };
        run(&compile(&[("main.rhai", source)], Options { limits, ..Options::default() }).unwrap(), &[order()])
    };
    let exact = 3 * (3 * convert::VALUE_BYTES + "OrderPlaced".len());
    assert_eq!(outcome(exact).lines().count(), 4);
    assert!(outcome(exact - 1).contains("emitted more than"));
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

#[test]
fn statements_of_handle_event_decide_the_same() {
    let bodies = [
        "if event.type != \"OrderPlaced\" { return; } emit(event.data.total);",
        "switch event.type { \"OrderPlaced\" => emit(#{ a: stream.id, b: event.data.total }), \"OrderViewed\" => emit(2) }",
        "switch event.type { \"OrderPlaced\" => { let y = x + 1; emit(y); } _ => defer(\"5s\") }",
        "switch event.type { \"OrderPlaced\" if event.index > 5 => emit(1), \"OrderPlaced\" => emit(2), _ => emit(3) } emit(x);",
        "switch event.index { 5 => emit(\"five\"), 6..=7 => emit(\"more\"), _ => throw \"no\" }",
        "switch event.data.total { 12.5 => emit(1), 3 => emit(2), () => emit(3) }",
        "switch event.data.by { \"a\" => emit(1), _ => emit(2) }",
        "switch event.nothing { \"a\" => emit(1) }",
        "switch x { 1 => { event = 5; return; } _ => emit(x) }",
        "switch event.type { \"OrderPlaced\" | \"OrderViewed\" => return, _ => emit(1) } emit(2);",
        "loop { switch event.type { \"OrderPlaced\" => break, _ => { emit(1); break; } } } emit(2);",
        "if event.index == 6 { return malformed(\"m\", 9); } emit(event.index); done(\"tag\")",
        "if event.index == 6 { return upto(7); } emit(event.index);",
        "let f = || event.index; emit(f.call()); event = 1; emit(event);",
        "emit(event); emit(event.stream.id); emit(stream.ids); throw event.type;",
    ];
    let outcomes: String = bodies.iter().map(|body| check_events_alike(body, &[order(), order()])).collect();
    assert!(outcomes.matches("all\n").count() > 8, "{outcomes}");
}

fn check_events_alike(body: &str, works: &[Work]) -> String {
    let source = format!("fn handle_event(stream, event) {{\nlet x = 1;\n{body}\n}}\n{FUNCTIONS}");
    let decisions = outcome(&source, works);
    assert_eq!(decisions, plain(|| outcome(&source, works)), "{source}\n{works:?}");
    decisions
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
        "events[-1]",
        "events.len()",
        "e.raw",
        "e.is_unfold",
        "e.timestamp",
        "e.data.items[0]",
        "e.data.items[0].sku",
        "e.data[\"total\"]",
        "e.data?.by?.name",
        "e?.type",
        "`${e.type}-${x}`",
        "e.data.len()",
        "-1",
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
            "continue;", "break;", "return;", "switch e.type { \"OrderPlaced\" if x == 1 => emit(x), \"3\" | \"OrderViewed\" => return, _ => {} }",
            "switch e.data.total { 1 => emit(1), \"OrderPlaced\" => { x = e.type; } 2..=20 => emit(2), true => break, () => done(\"none\") }", "return upto(6);", "e = 5;", "stream = 1;", "let f = || e.index; emit(f.call());",
            "throw e.type;", "throw #{ class: \"permanent\", why: e.id, index: e.index };", "throw;",
            "return defer(\"5s\");", "return malformed(\"m\", e.index);", "return malformed(\"m\");", "return done(\"tag\");",
            "return upto(e.index, \"t\");", "return x;", "let data = e.data; data.total = 1; emit(data);",
            "for i in 0..3 { emit(i); }", "for i in x..=3 { emit(i); }", "let a = [x]; a.push(e); a.push(a); emit(a);",
            "let o = #{ a: [] }; o.a.push(e.data.total); o.a.push(x); emit(o);", "x = []; x.push(3); emit(x);", "while x < 3 { x += 1; emit(x); }",
            "switch e.type { \"OrderPlaced\" => emit(1), _ => emit(e.index) }", "events = [e];", "let stream = e;",
            "for item in e.data.items { emit(item); }", "emit(events.filter(|e| e.index > x));", "metric.inc(\"n\");",
            "let f = |y| x + y; emit(f.call(3));", "emit(json.text(e.data));", "malformed(\"m\", e.index);", "done(\"tag\")", "{ let e = x; emit(e); }",
        ]).prop_map(str::to_owned),
    ];
    plain.prop_recursive(3, 12, 3, |inner| {
        let block = prop::collection::vec(inner, 0..3).prop_map(|statements| statements.join(" "));
        prop_oneof![
            (leaf(), block.clone(), block.clone()).prop_map(|(value, a, b)| format!(
                "switch {value} {{ \"OrderPlaced\" | 3 => {{ {a} }} _ => {{ {b} }} }}"
            )),
            (expression(), block.clone(), block.clone())
                .prop_map(|(condition, then, other)| format!("if {condition} {{ {then} }} else {{ {other} }}")),
            block.clone().prop_map(|body| format!("for e in events {{ {body} }}")),
            block.prop_map(|body| format!("try {{ {body} }} catch {{ emit(\"caught\"); }}")),
        ]
    })
}

/// Generates a JSON body of an event.
fn body() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "-0",
        "12.5",
        "9223372036854775807",
        "9223372036854775808",
        "0.1000000000000000055511151231257827",
        "1e400",
        "true",
        "null",
        "\"OrderPlaced\"",
        "\"\"",
        r#""\u00e9\n""#,
        r#""cut \ud83d""#,
        "[]",
        "{}",
    ])
    .prop_map(str::to_owned);
    let value = leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((key(), inner), 0..3).prop_map(object),
        ]
    });
    prop_oneof![
        6 => prop::collection::vec((key(), value.clone()), 0..5).prop_map(object),
        1 => value,
        1 => Just(String::new()),
    ]
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["total", "items", "by", "name", "sku", "none", r"t\u006ftal"])
}

fn object(fields: Vec<(&'static str, String)>) -> String {
    let fields: Vec<_> = fields.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn works() -> impl Strategy<Value = Vec<Work>> {
    let name = prop::sample::select(vec!["OrderPlaced", "OrderViewed", "3"]);
    let events = prop::collection::vec((name, body()), 1..4);
    let calls = prop::collection::vec((0_i64..9, events), 1..3);
    calls.prop_map(|calls| {
        let call = |(first, events): (i64, Vec<(&str, String)>)| {
            let events = events.iter().zip(first..);
            work(&events.map(|((name, data), index)| event("order-1_a", index, name, data)).collect::<Vec<_>>())
        };
        calls.into_iter().map(call).collect()
    })
}

/// The number of generated pairs of scripts and events. `PROPULSIOND_TEST_SCRIPT_PAIRS` replaces the default.
fn pairs() -> u32 {
    std::env::var("PROPULSIOND_TEST_SCRIPT_PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(pairs()))]

    #[test]
    fn x0_every_script_decides_the_same_without_shortcuts(
        before in statements(),
        inside in statements(),
        more in statements(),
        works in works(),
    ) {
        check_alike_over(&format!("let e = events[0];\n{before}\nfor e in events {{\n{inside} {more}\n}}"), &works);
    }

    #[test]
    fn x0_every_script_of_handle_event_decides_the_same_without_shortcuts(
        before in statements(),
        after in statements(),
        works in works(),
    ) {
        check_events_alike(&format!("let e = event;\nlet events = [event];\n{before}\n{after}"), &works);
    }
}
