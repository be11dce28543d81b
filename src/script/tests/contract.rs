use expect_test::expect;

use super::*;

#[test]
fn no_result_means_all_handled() {
    check(
        "",
        expect![[r#"
        all
    "#]],
    );
    check(
        "let x = 1;",
        expect![[r#"
        all
    "#]],
    );
    check(
        "for e in events { if e.index == 6 { break; } }",
        expect![[r#"
            all
        "#]],
    );
    check(
        "return;",
        expect![[r#"
        all
    "#]],
    );
    check(
        "exit();",
        expect![[r#"
        all
    "#]],
    );
}

#[test]
fn done_tags_the_call_for_statistics() {
    check(
        "done()",
        expect![[r#"
        all
    "#]],
    );
    check(
        "done(\"completed\")",
        expect![[r#"
        all #completed
    "#]],
    );
    check(
        "done(\"no spaces\")",
        expect![[r#"
            Permanent
              main.rhai:2:1: `no spaces` cannot be a tag: use 1 to 64 of the letters a-z, A-Z, 0-9, `_`, `.`, `-` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn upto_is_progress_inside_or_beyond_the_offered_events() {
    check(
        "emit(1); upto(6)",
        expect![[r#"
            upto 6
              1
        "#]],
    );
    check(
        "return upto(20, \"ahead\");",
        expect![[r#"
        upto 20 #ahead
    "#]],
    );
    check(
        "upto(5)",
        expect![[r#"
        upto 5
    "#]],
    );
    check(
        "upto(4)",
        expect![[r#"
        Permanent
          main.rhai: `upto(4)` lies before the first event offered, index 5 (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
}

#[test]
fn defer_takes_a_duration_or_seconds() {
    check(
        "defer(\"250ms\")",
        expect![[r#"
        defer 250ms
    "#]],
    );
    check(
        "defer(5)",
        expect![[r#"
        defer 5s
    "#]],
    );
    check(
        "defer(0.5)",
        expect![[r#"
        defer 500ms
    "#]],
    );
    check(
        "defer(-1)",
        expect![[r#"
            Permanent
              main.rhai:2:1: -1 seconds is not a valid delay: cannot convert float seconds to Duration: value is negative (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "defer(\"soon\")",
        expect![[r#"
            Permanent
              main.rhai:2:1: `soon` is not a duration such as "5s", "250ms" or "1h 30m" (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "defer([])",
        expect![[r#"
            Permanent
              main.rhai:2:1: a delay is a string such as "5s", or a number of seconds, not an array (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn malformed_may_name_its_event() {
    check(
        "malformed(\"no total\")",
        expect![[r#"
        Malformed
          main.rhai: malformed: no total (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check(
        "malformed(\"no total\", events[1].index)",
        expect![[r#"
            Malformed at 6
              main.rhai: malformed: no total (stream `order-1_a`, index 6, type `OrderViewed`)
        "#]],
    );
}

#[test]
fn any_other_value_is_a_permanent_error() {
    check(
        "events.len()",
        expect![[r#"
            Permanent
              main.rhai: returned an integer: return nothing, or what `done(..)`, `upto(..)`, `defer(..)` or `malformed(..)` makes (a last expression is returned, also with a `;`: end with `return;`) (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "let x = [1]; x.pop();",
        expect![[r#"
            Permanent
              main.rhai: returned an integer: return nothing, or what `done(..)`, `upto(..)`, `defer(..)` or `malformed(..)` makes (a last expression is returned, also with a `;`: end with `return;`) (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "#{}",
        expect![[r#"
            Permanent
              main.rhai: returned a map: return nothing, or what `done(..)`, `upto(..)`, `defer(..)` or `malformed(..)` makes (a last expression is returned, also with a `;`: end with `return;`) (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "events[0]",
        expect![[r#"
            Permanent
              main.rhai: returned an event: return nothing, or what `done(..)`, `upto(..)`, `defer(..)` or `malformed(..)` makes (a last expression is returned, also with a `;`: end with `return;`) (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn c13_no_progress_carries_no_effects() {
    check(
        "emit(1); defer(\"1s\")",
        expect![[r#"
            Permanent
              main.rhai: made no progress but emitted an effect, which each retry would repeat (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "emit(1); emit(2); upto(5)",
        expect![[r#"
            Permanent
              main.rhai: made no progress but emitted 2 effects, which each retry would repeat (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn r42_a_throw_chooses_its_class() {
    check(
        "throw \"out of stock\"",
        expect![[r#"
            Transient
              main.rhai:2:1: out of stock (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "throw",
        expect![[r#"
            Transient
              main.rhai:2:1: thrown without a reason (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "throw #{ class: \"permanent\", why: \"never\", index: 6 }",
        expect![[r#"
            Permanent at 6
              main.rhai:2:1: never (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "throw #{ class: \"throttled\", why: \"slowly\", retry_after: \"5s\" }",
        expect![[r#"
            Throttled retry after 5s
              main.rhai:2:1: slowly (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "throw #{ class: \"unavailable\" }",
        expect![[r#"
            Unavailable
              main.rhai:2:1: thrown without a reason (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "throw #{ class: \"malformed\", why: 7 }",
        expect![[r#"
            Malformed
              main.rhai:2:1: 7 (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "throw #{ why: \"later\" }",
        expect![[r#"
            Transient
              main.rhai:2:1: later (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "throw #{ class: \"fatal\" }",
        expect![[r#"
            Permanent
              main.rhai:2:1: cannot use the thrown value: unknown class `fatal`, expected `transient`, `permanent`, `malformed`, `throttled` or `unavailable` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "throw #{ clas: \"permanent\" }",
        expect![[r#"
            Permanent
              main.rhai:2:1: cannot use the thrown value: unknown key `clas`, expected `class`, `why`, `index` or `retry_after` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "throw #{ index: \"x\" }",
        expect![[r#"
            Permanent
              main.rhai:2:1: cannot use the thrown value: `index` is an integer, not a string (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn c19_only_an_index_that_the_script_names_is_passed_on() {
    check(
        "for e in events { if e.index == 6 { throw #{ why: \"it\", index: e.index } } }",
        expect![[r#"
            Transient at 6
              main.rhai:2:37: it (stream `order-1_a`, index 6, type `OrderViewed`)
        "#]],
    );
    check(
        "for e in events { if e.index == 6 { throw \"it\" } }",
        expect![[r#"
            Transient
              main.rhai:2:37: it (stream `order-1_a`, index 6, type `OrderViewed`)
        "#]],
    );
}

#[test]
fn an_error_in_the_script_is_permanent_and_names_its_position() {
    check(
        "emit(1);\n  nothing_of_the_sort(1, \"a\");",
        expect![[r#"
            Permanent
              main.rhai:3:3: there is no function `nothing_of_the_sort(i64, string)` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "for e in events {\n  let x = e.tpye;\n}",
        expect![[r#"
            Permanent
              main.rhai:3:13: there is no property `tpye` in a value of type `event` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "1 + events[0].data",
        expect![[r#"
            Permanent
              main.rhai:2:3: `+` cannot add a map to an integer (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    // Each operator names its operands.
    let operations = [
        ("\"a\" / 2", "`/` cannot divide a string by an integer"),
        ("\"a\" % 2", "`%` cannot divide a string by an integer"),
        ("() - 1", "`-` cannot subtract an integer from an absent value"),
        ("1.5 * \"a\"", "`*` cannot multiply a float by a string"),
        ("[] ** 2", "`**` cannot raise an array to the power of an integer"),
        ("-\"a\"", "`-` cannot negate a string"),
        ("!1", "`!` cannot invert an integer"),
        ("events[0] + 1", "`+` cannot add an integer to an event"),
        ("#{} << 1", "`<<` cannot shift a map by an integer"),
        ("1 & ()", "`&` cannot combine an integer with an absent value"),
        ("let x = #{}; x += 1; ()", "`+` cannot add an integer to a map"),
        ("let x = 1; x -= \"a\"; ()", "`-` cannot subtract a string from an integer"),
        ("time.now() - 1", "`-` cannot subtract an integer from a time"),
        ("(1..\"a\").len()", "`..` cannot make a range from an integer to a string"),
    ];
    for (operation, why) in operations {
        let source = format!("fn handle(stream, events) {{\n{operation}\n}}");
        let said = run(&compile(&[("main.rhai", &source)], Options::default()).unwrap(), &[order()]);
        assert!(said.contains(why) && said.contains("main.rhai:2:"), "{operation}: {said}");
    }
    check(
        "1 / 0",
        expect![[r#"
            Permanent
              main.rhai:2:3: division by zero: 1 / 0 (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "events[3]",
        expect![[r#"
            Permanent
              main.rhai:2:7: there is no event at `events[3]` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "if events.len() { }",
        expect![[r#"
        all
    "#]],
    );
    check(
        "emit(|x| x)",
        expect![[r#"
        Permanent
          main.rhai:2:1: a function cannot be emitted (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check(
        "let f = 5; f.call(1);",
        expect![[r#"
        Permanent
          main.rhai:2:19: expected a value of type `Fn`, found `i64` (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
}

#[test]
fn r44_a_failed_call_has_no_effects() {
    let mut handler =
        handler("fn handle(stream, events) { emit(stream.name); if events[0].index == 5 { throw \"no\" } }");
    let other = work(&[event("order-2", 0, "A", "{}")]);
    expect![[r#"
        Transient
          main.rhai:1:74: no (stream `order-1_a`, index 5, type `OrderPlaced`)
        all
          "order-2"
    "#]]
    .assert_eq(&show(&call(&mut *handler, &[order(), other])));
}

#[test]
fn a_caught_error_does_not_fail_the_call() {
    check(
        "try { throw \"x\" } catch (e) { emit(e) }",
        expect![[r#"
            all
              "x"
        "#]],
    );
    check(
        "try { nope(1) } catch (e) { throw e }",
        expect![[r#"
            Permanent
              main.rhai:2:29: function not found: nope (i64) (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "try { nope(1) } catch { throw }",
        expect![[r#"
            Permanent
              main.rhai:2:25: there is no function `nope(i64)` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "try { emit(|x| x) } catch (e) { throw e }",
        expect![[r#"
            Permanent
              main.rhai:2:33: a function cannot be emitted (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn a_caught_error_has_a_message() {
    check(
        "try { emit(|x| x) } catch (e) { emit([e.message, `${e}`, type_of(e)]) }",
        expect![[r#"
        all
          ["a function cannot be emitted","a function cannot be emitted","error"]
    "#]],
    );
    check(
        "try { nope(1) } catch (e) { emit(e.message) }",
        expect![[r#"
        all
          "Function not found: nope (i64)"
    "#]],
    );
    check(
        "throw events[2].data",
        expect![[r#"
        Transient
          main.rhai:2:1: #{"total": 3} (stream `order-1_a`, index 7, type `OrderPlaced`)
    "#]],
    );
}

#[test]
fn a_function_sees_constants_as_global_and_no_variables() {
    check_script(
        "const RATE = 3;\nfn handle(stream, events) { emit(global::RATE) }",
        &[order()],
        expect![[r#"
            all
              3
        "#]],
    );
    let problem = compile(&[("main.rhai", "let rate = 3;\nfn handle(s, e) { emit(rate) }")], Options::default());
    expect![[r#"
        main.rhai:2:24: there is no variable `rate`
           2 | fn handle(s, e) { emit(rate) }
             |                        ^"#]]
    .assert_eq(&problem.unwrap_err().to_string());
}

#[test]
fn a_call_leaves_no_state_for_the_next() {
    let mut handler = handler("fn handle(stream, events) { let seen = 1; for e in events { seen += 1; } emit(seen) }");
    let three: String = (0..3).map(|_| show(&call(&mut *handler, &[order()]))).collect();
    expect![[r#"
        all
          4
        all
          4
        all
          4
    "#]]
    .assert_eq(&three);
}
