use expect_test::expect;

use super::*;

fn check_batch(body: &str, expected: Expect) {
    let source = format!("fn handle_batch(spans) {{\n{body}\n}}");
    let options = Options { streams_per_call: 10, ..Options::default() };
    let script = compile(&[("main.rhai", &source)], options).unwrap();
    let other = work(&[event("order-2", 0, "OrderPlaced", r#"{"total":1}"#)]);
    let third = work(&[event("order-3", 3, "OrderViewed", "{}")]);
    expected.assert_eq(&run(&script, &[order(), other, third]));
}

#[test]
fn each_stream_of_a_batch_is_decided_for_itself() {
    check_batch(
        "for span in spans { span.emit(`${span.stream.name} ${span.events.len()}`) }",
        expect![[r#"
        all
          "order-1_a 3"
        all
          "order-2 1"
        all
          "order-3 1"
    "#]],
    );
    check_batch(
        "spans[0].upto(6, \"some\"); spans[1].defer(\"1s\"); spans[2].done(\"tag\");",
        expect![[r#"
        upto 6 #some
        defer 1s
        all #tag
    "#]],
    );
    check_batch(
        "spans[0].malformed(\"bad\", 6); spans[1].fail(\"later\");",
        expect![[r#"
            Malformed at 6
              main.rhai: malformed: bad (stream `order-1_a`, index 6, type `OrderViewed`)
            Transient
              main.rhai: later (stream `order-2`, index 0, type `OrderPlaced`)
            all
        "#]],
    );
    check_batch(
        "spans[1].fail(#{ class: \"throttled\", why: \"slow\", retry_after: 2 });",
        expect![[r#"
        all
        Throttled retry after 2s
          main.rhai: slow (stream `order-2`, index 0, type `OrderPlaced`)
        all
    "#]],
    );
    check_batch(
        "spans[1].fail(#{ class: \"permanent\", why: \"no\", index: 0 });",
        expect![[r#"
        all
        Permanent at 0
          main.rhai: no (stream `order-2`, index 0, type `OrderPlaced`)
        all
    "#]],
    );
    check_batch(
        "for span in spans { for e in span.events { if e.index == 6 { e.stream; } } } spans[1].upto(9);",
        expect![[r#"
            all
            upto 9
            all
        "#]],
    );
}

#[test]
fn c13_holds_for_each_stream_of_a_batch() {
    check_batch(
        "spans[0].emit(1); spans[0].defer(1); spans[1].emit(2);",
        expect![[r#"
            Permanent
              main.rhai: made no progress but emitted an effect, which each retry would repeat (stream `order-1_a`, index 5, type `OrderPlaced`)
            all
              2
            all
        "#]],
    );
}

#[test]
fn a_throw_fails_the_whole_batch_and_names_the_event_read_last() {
    check_batch(
        "for span in spans { for e in span.events { if e.data.total == 1 { throw \"no\" } } }",
        expect![[r#"
        Transient
          main.rhai:2:67: no (stream `order-2`, index 0, type `OrderPlaced`)
        Transient
          main.rhai:2:67: no (stream `order-2`, index 0, type `OrderPlaced`)
        Transient
          main.rhai:2:67: no (stream `order-2`, index 0, type `OrderPlaced`)
    "#]],
    );
}

#[test]
fn a_batch_refuses_results_without_a_span() {
    check_batch(
        "emit(1)",
        expect![[r#"
        Permanent
          main.rhai:2:1: name the stream: in `handle_batch` write `span.emit(..)` (stream `order-1_a`, index 5, type `OrderPlaced`)
        Permanent
          main.rhai:2:1: name the stream: in `handle_batch` write `span.emit(..)` (stream `order-1_a`, index 5, type `OrderPlaced`)
        Permanent
          main.rhai:2:1: name the stream: in `handle_batch` write `span.emit(..)` (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check_batch(
        "upto(3)",
        expect![[r#"
        Permanent
          main.rhai: `handle_batch` returns nothing: decide each span with `span.upto(n)` and the like (stream `order-1_a`, index 5, type `OrderPlaced`)
        Permanent
          main.rhai: `handle_batch` returns nothing: decide each span with `span.upto(n)` and the like (stream `order-1_a`, index 5, type `OrderPlaced`)
        Permanent
          main.rhai: `handle_batch` returns nothing: decide each span with `span.upto(n)` and the like (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check_batch(
        "3",
        expect![[r#"
        Permanent
          main.rhai: returned an integer: return nothing, or what `done(..)`, `upto(..)`, `defer(..)` or `malformed(..)` makes (a last expression is returned, also with a `;`: end with `return;`) (stream `order-1_a`, index 5, type `OrderPlaced`)
        Permanent
          main.rhai: returned an integer: return nothing, or what `done(..)`, `upto(..)`, `defer(..)` or `malformed(..)` makes (a last expression is returned, also with a `;`: end with `return;`) (stream `order-1_a`, index 5, type `OrderPlaced`)
        Permanent
          main.rhai: returned an integer: return nothing, or what `done(..)`, `upto(..)`, `defer(..)` or `malformed(..)` makes (a last expression is returned, also with a `;`: end with `return;`) (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
}
