//! Tests of `handle_event`.

use expect_test::expect;

use super::*;

/// Runs the body of `handle_event` over the three events of an order.
fn check_event(body: &str, expected: Expect) {
    check_event_over(body, &order(), expected);
}

fn check_event_over(body: &str, work: &Work, expected: Expect) {
    let source = format!("fn handle_event(stream, event) {{\n{body}\n}}");
    check_script(&source, &[Work { events: work.events.clone(), trace: None, ..*work }], expected);
}

#[test]
fn c24_effects_belong_to_their_event() {
    let source =
        "fn handle_event(stream, event) { if event.type == \"OrderPlaced\" { emit(event.index); emit(stream.id); } }";
    let script = compile(&[("main.rhai", source)], Options::default()).unwrap();
    assert_eq!(script.entry(), Entry::HandleEvent);
    let decision = call(&mut *script.factory().make(), &[order()]).remove(0).unwrap();
    expect![[r#"
        all
          5
          "1_a"
          7
          "1_a""#]]
    .assert_eq(&show_decision(&decision));
    let events: Vec<_> = (0..5).map(|number| decision.effects.event_of(number)).collect();
    assert_eq!(events, [Some(0), Some(0), Some(2), Some(2), None]);
    assert_eq!([0, 1, 2].map(|position| decision.effects.start_of(position)), [0, 2, 2]);
}

#[test]
fn c19_an_event_that_fails_ends_the_call_before_it() {
    check_event(
        "emit(event.index); if event.index == 6 { throw \"no\" }",
        expect![[r#"
            upto 6
              5
        "#]],
    );
    check_event(
        "emit(event.index); if event.index == 7 { return defer(\"5s\"); }",
        expect![[r#"
            upto 7
              5
              6
        "#]],
    );
    check_event(
        "emit(event.index); if event.type == \"OrderViewed\" { malformed(\"no total\") }",
        expect![[r#"
            upto 6
              5
        "#]],
    );
}

#[test]
fn c19_the_first_event_of_a_call_fails_as_itself() {
    check_event(
        "emit(1); throw \"no\"",
        expect![[r#"
        Transient at 5
          main.rhai:2:10: no (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check_event(
        "throw #{ class: \"permanent\", why: \"never\", index: 99 }",
        expect![[r#"
        Permanent at 5
          main.rhai:2:1: never (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check_event(
        "malformed(\"no total\")",
        expect![[r#"
        Malformed at 5
          main.rhai: malformed: no total (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check_event(
        "event.data.total + event.data",
        expect![[r#"
            Permanent at 5
              main.rhai:2:18: `+` cannot add a map to a float (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check_event(
        "loop { }",
        expect![[r#"
        Permanent at 5
          main.rhai:2:6: the call took more operations than `limits.operations` allows (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
}

#[test]
fn an_event_can_be_deferred_without_effects() {
    check_event(
        "defer(\"5s\")",
        expect![[r#"
        defer 5s
    "#]],
    );
    check_event(
        "emit(1); defer(\"5s\")",
        expect![[r#"
        Permanent at 5
          main.rhai: made no progress but emitted an effect, which each retry would repeat (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
}

#[test]
fn other_results_than_those_of_one_event_are_permanent_errors() {
    check_event(
        "upto(6)",
        expect![[r#"
        Permanent at 5
          main.rhai: returned `upto(..)`, which decides about several events: `handle_event` returns nothing, or what `done(..)`, `defer(..)` or `malformed(..)` makes (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check_event(
        "event.index",
        expect![[r#"
            Permanent at 5
              main.rhai: returned an integer: return nothing, or what `done(..)`, `defer(..)` or `malformed(..)` makes (a last expression is returned, also with a `;`: end with `return;`) (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn the_last_tag_counts() {
    check_event(
        "if event.index < 7 { done(`tag-${event.index}`) }",
        expect![[r#"
        all #tag-6
    "#]],
    );
}

#[test]
fn an_unfold_shares_the_fate_of_the_event_before_it() {
    let unfold = |index| {
        Assembler::new("order-1_a", "Snapshot").data(b"{}").build(Kind::Unfold, Ordinal::new(9, 1), index).unwrap()
    };
    let body = "emit(event.index); if event.is_unfold { throw \"no\" }";
    let [a, b, _] = order().events.try_into().unwrap();
    check_event_over(
        body,
        &work(&[a.clone(), b, unfold(7)]),
        expect![[r#"
        upto 6
          5
    "#]],
    );
    check_event_over(
        body,
        &work(&[a, unfold(6)]),
        expect![[r#"
        Transient at 5
          main.rhai:2:41: no (stream `order-1_a`, index 6, type `Snapshot`)
    "#]],
    );
    check_event_over(
        body,
        &work(&[unfold(6)]),
        expect![[r#"
        Transient at 6
          main.rhai:2:41: no (stream `order-1_a`, index 6, type `Snapshot`)
    "#]],
    );
}

#[test]
fn indexes_that_go_back_cut_no_call() {
    let events = [event("order-1_a", 7, "A", "{}"), event("order-1_a", 3, "B", "{}")];
    check_event_over(
        "emit(event.index); if event.index == 3 { throw \"no\" }",
        &work(&events),
        expect![[r#"
        Transient at 3
          main.rhai:2:42: no (stream `order-1_a`, index 3, type `B`)
    "#]],
    );
}

#[test]
fn limits_hold_for_the_call_and_spare_the_events_before() {
    let limited = |change: fn(&mut Options), body: &str| {
        let mut options = Options::default();
        change(&mut options);
        let source = format!("fn handle_event(stream, event) {{ {body} }}");
        run(&compile(&[("main.rhai", &source)], options).unwrap(), &[order()])
    };
    let operations = |options: &mut Options| options.limits.operations = 200;
    expect![[r#"
        upto 7
          5
          6
    "#]]
    .assert_eq(&limited(operations, "let n = 0; while n < 15 { n += 1; } emit(event.index);"));
    let emitted = |options: &mut Options| options.limits.emitted_bytes = 250;
    expect![[r#"
        upto 6
          [5,"OrderPlaced"]
    "#]]
    .assert_eq(&limited(emitted, "emit([event.index, event.type]);"));
    let time = |options: &mut Options| options.timeout = Duration::from_millis(20);
    expect![[r#"
        upto 7
          5
          6
    "#]]
    .assert_eq(&limited(time, "emit(event.index); if event.index == 7 { loop { } }"));
}

#[test]
fn a_panic_spares_the_events_before() {
    let source = "fn handle_event(stream, event) { emit(event.index); if event.index == 6 { panic_for_a_test(); } }";
    let mut handler = handler(source);
    let outcomes = [order(), work(&order().events[1..]), order()].map(|work| show(&call(&mut *handler, &[work])));
    expect![[r#"
        upto 6
          5
        Permanent at 6
          main.rhai: the script engine failed: as the test asked (stream `order-1_a`, index 6, type `OrderViewed`)
        upto 6
          5
    "#]]
    .assert_eq(&outcomes.concat());
}

#[test]
fn each_event_has_its_own_variables() {
    check_event(
        "let seen = 0; seen += 1; emit(seen); event = 3; stream = 4; emit(event);",
        expect![[r#"
            all
              1
              3
              1
              3
              1
              3
        "#]],
    );
}

#[test]
fn a_stream_of_a_call_does_not_spoil_the_next() {
    let mut handler =
        handler("fn handle_event(stream, event) { if event.index == 6 { throw \"no\" } emit(stream.id); }");
    let other = work(&[event("order-2", 0, "A", "{}")]);
    expect![[r#"
        upto 6
          "1_a"
        all
          "2"
    "#]]
    .assert_eq(&show(&call(&mut *handler, &[order(), other])));
}

#[test]
fn a_script_has_one_entry() {
    let problem = |files: &str| compile(&[("main.rhai", files)], Options::default()).unwrap_err().to_string();
    expect![[r#"
        main.rhai:3:27: the script has both `handle_event` and `handle` (keep one: `handle_event` gets one event at a time, `handle` all the next ones)
           3 | fn handle(stream, events) { }
             |                           ^"#]].assert_eq(&problem("fn handle_event(stream, event) { }\n\nfn handle(stream, events) { }"));
    expect!["main.rhai: the script has neither `fn handle_event(stream, event)` nor `fn handle(stream, events)` (write `fn handle_event(stream, event) { … }`: it is called with the events)"].assert_eq(&problem("fn helper() { }"));
    expect![[r#"
        main.rhai:1:24: `handle_event` is called as `fn handle_event(stream, event)`; this one has 1 parameter
           1 | fn handle_event(event) { }
             |                        ^"#]]
    .assert_eq(&problem("fn handle_event(event) { }"));
    expect![[r#"
        main.rhai:1:33: the script has neither `fn handle_event(stream, event)` nor `fn handle(stream, events)` (rename `handle_events` to `handle_event`)
           1 | fn handle_events(stream, event) { emit(1); }
             |                                 ^"#]].assert_eq(&problem("fn handle_events(stream, event) { emit(1); }"));
    expect![[r#"
        main.rhai:1:24: the script has neither `fn handle_event(stream, event)` nor `fn handle(stream, events)` (`handle_batch` is for `streams_per_call` over 1)
           1 | fn handle_batch(spans) { }
             |                        ^"#]].assert_eq(&problem("fn handle_batch(spans) { }"));
    let batch = Options { streams_per_call: 2, ..Options::default() };
    let source = "fn handle_event(stream, event) { }";
    expect![[r#"
        main.rhai:1:32: the script has no `fn handle_batch(spans)` (`handle_event` is for `streams_per_call = 1`)
           1 | fn handle_event(stream, event) { }
             |                                ^"#]]
    .assert_eq(&compile(&[("main.rhai", source)], batch).unwrap_err().to_string());
}

#[test]
fn upto_in_a_script_of_handle_event_is_reported_before_it_runs() {
    let source = "fn handle_event(stream, event) {\n  if event.index == 3 { return upto(4); }\n  upto();\n}";
    let script = compile(&[("main.rhai", source)], Options::default()).unwrap();
    let problems: Vec<_> = script.check().iter().map(ToString::to_string).collect();
    expect![[r#"
        main.rhai:2:32: `upto(..)` decides about several events, and `handle_event` gets one (return nothing once the event is handled, or write `fn handle(stream, events)`)
           2 |   if event.index == 3 { return upto(4); }
             |                                ^
        main.rhai:3:3: `upto` takes 1 or 2 arguments, not 0
           3 |   upto();
             |   ^"#]].assert_eq(&problems.join("\n"));
}
