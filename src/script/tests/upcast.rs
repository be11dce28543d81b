//! Tests of `upcast`.

use expect_test::expect;

use super::*;
use crate::config::filter;

/// An `upcast` of orders placed: the total becomes cents. A viewed order throws if `strict` is set.
const UPCAST: &str = r#"
fn upcast(event) {
    if event.type == "OrderPlaced" {
        let data = event.data;
        data.cents = (data.total * 100.0).to_int();
        data.remove("total");
        return #{ type: "OrderPlacedV2", data: data };
    }
    event
}
"#;

/// An `upcast` that fails at event 6.
const STRICT: &str = r#"
fn upcast(event) {
    if event.index == 6 {
        throw #{ class: "permanent", why: "unknown form" };
    }
    #{ type: "New" }
}
"#;

fn filtered(source: &str, events: &str) -> Script {
    filtered_files(&[("main.rhai", source)], events)
}

/// Compiles files with a `[filter]` that is written in TOML.
fn filtered_files(files: &[(&str, &str)], filter: &str) -> Script {
    let settings: filter::Settings = toml::from_str(filter).unwrap();
    let filter = Arc::new(Filter::compile(&settings).unwrap());
    let (script, reader) = compile(files, Options::default()).unwrap().with_filter(&filter);
    assert!(reader.event("anything") || !script.upcasts(), "the reader does not filter by type");
    script
}

fn check_filtered(source: &str, filter: &str, streams: &[Work], expected: Expect) {
    expected.assert_eq(&run(&filtered(source, filter), streams));
}

#[test]
fn handlers_see_the_newest_form_of_each_event() {
    let body = "emit([event.index, event.type, event.data, event.raw.len(), event.id])";
    let by_event = format!("{UPCAST}fn handle_event(stream, event) {{ {body} }}");
    let by_span = format!("{UPCAST}fn handle(stream, events) {{ for event in events {{ {body} }} }}");
    let [by_event, by_span] = [by_event, by_span]
        .map(|source| run(&compile(&[("main.rhai", &source)], Options::default()).unwrap(), &[order()]));
    assert_eq!(by_event, by_span);
    expect![[r#"
        all
          [5,"OrderPlacedV2",{"by":{"name":"Ada"},"cents":1250,"items":[{"sku":"A"}]},56,"id-5"]
          [6,"OrderViewed",{},2,"id-6"]
          [7,"OrderPlacedV2",{"cents":300},11,"id-7"]
    "#]]
    .assert_eq(&by_event);
}

#[test]
fn shortcuts_read_the_newest_form() {
    let source = r#"
    fn upcast(event) { #{ type: "N" + event.index, data: #{ a: #{ b: event.index * 2 } }, meta: [1] } }
    fn handle(stream, events) {
        for e in events {
            if e.data.a.b > 10 { emit(#{ type: e.type, b: e.data.a.b, has: e.data.contains("a"), meta: e.meta }); }
            switch e.type { "N5" => emit(e), _ => {} }
        }
    }"#;
    let script = compile(&[("main.rhai", source)], Options::default()).unwrap();
    let quick = run(&script, &[order()]);
    assert_eq!(crate::script::shortcuts::plain(|| run(&script, &[order()])), quick);
    expect![[r#"
        all
          {"stream":"order-1_a","index":5,"type":"N5","id":"id-5","timestamp":"2026-11-24T10:00:00Z","data":{"a":{"b":10}},"meta":[1]}
          {"b":12,"has":true,"meta":[1],"type":"N6"}
          {"b":14,"has":true,"meta":[1],"type":"N7"}
    "#]]
    .assert_eq(&quick);
}

#[test]
fn the_filter_by_type_sees_the_newest_type() {
    let by_event = format!("{UPCAST}fn handle_event(stream, event) {{ emit(event.index) }}");
    check_filtered(
        &by_event,
        "events = [\"OrderPlacedV2\"]",
        &[order()],
        expect![[r#"
            all
              5
              7
        "#]],
    );
    let by_span = format!("{UPCAST}fn handle(stream, events) {{ emit(events.len()); emit(events[-1].index) }}");
    check_filtered(
        &by_span,
        "exclude_events = [\"OrderPlacedV2\"]",
        &[order()],
        expect![[r#"
            all
              1
              6
        "#]],
    );
    // The script is not called for a stream without an event that passes.
    check_filtered(&by_span, "events = [\"OrderPlaced\"]", &[order()], expect!["all\n"]);
    let in_batch = format!("{UPCAST}fn handle_batch(spans) {{ for s in spans {{ s.emit(s.events.len()) }} }}");
    let options = Options { streams_per_call: 2, ..Options::default() };
    let filter = Arc::new(Filter::compile(&toml::from_str("events = [\"OrderViewed\"]").unwrap()).unwrap());
    let (script, _) = compile(&[("main.rhai", &in_batch)], options).unwrap().with_filter(&filter);
    assert_eq!(run(&script, &[single(r#"{"total":1}"#), order()]), "all\nall\n  1\n");
}

#[test]
fn without_upcast_the_reader_keeps_the_filter() {
    let filter = Arc::new(Filter::compile(&toml::from_str("events = [\"A\"]").unwrap()).unwrap());
    let script = compile(&[("main.rhai", "fn handle(stream, events) { emit(1) }")], Options::default()).unwrap();
    let (script, reader) = script.with_filter(&filter);
    assert!(!script.upcasts() && Arc::ptr_eq(&reader, &filter));
    assert_eq!(run(&script, &[order()]), "all\n  1\n");
}

#[test]
fn c19_an_event_whose_upcast_fails_ends_the_call_before_it() {
    for handler in [
        "fn handle_event(stream, event) { emit(event.index) }",
        "fn handle(stream, events) { for e in events { emit(e.index) } }",
    ] {
        let source = format!("{STRICT}{handler}");
        check_script(&source, &[order()], expect!["upto 6\n  5\n"]);
        let rest = work(&[event("order-1_a", 6, "OrderViewed", "{}"), event("order-1_a", 7, "OrderPlaced", "{}")]);
        check_script(
            &source,
            &[rest],
            expect![[r#"
                Permanent at 6
                  main.rhai:4:9: unknown form (stream `order-1_a`, index 6, type `OrderViewed`)
            "#]],
        );
    }
    // A handler decides about the events before the failed one only.
    let source = format!("{STRICT}fn handle(stream, events) {{ done(\"t\") }}");
    check_script(&source, &[order()], expect!["upto 6 #t\n"]);
    let source = format!("{STRICT}fn handle(stream, events) {{ defer(\"5s\") }}");
    check_script(&source, &[order()], expect!["defer 5s\n"]);
}

#[test]
fn an_error_of_the_handler_names_no_event_that_only_upcast_read() {
    let source = "fn upcast(event) { #{ type: event.type } }\nfn handle(stream, events) { throw \"no\" }";
    let with_filter = filtered(source, "exclude_events = [\"OrderPlaced\"]");
    for (script, index) in [(compile(&[("main.rhai", source)], Options::default()).unwrap(), 5), (with_filter, 6)] {
        let said = run(&script, &[order()]);
        assert!(said.contains(&format!("index {index},")), "{said}");
    }
}

#[test]
fn c19_in_a_batch_a_failed_upcast_costs_its_own_stream_only() {
    let source = format!("{STRICT}fn handle_batch(spans) {{ for s in spans {{ s.emit(s.stream.name) }} }}");
    let script = compile(&[("main.rhai", &source)], Options { streams_per_call: 3, ..Options::default() }).unwrap();
    let bad = work(&[event("bad-1", 6, "A", "{}")]);
    expect![[r#"
        upto 6
          "order-1_a"
        Permanent at 6
          main.rhai:4:9: unknown form (stream `bad-1`, index 6, type `A`)
        all
          "order-1"
    "#]]
    .assert_eq(&run(&script, &[order(), bad, single("{}")]));
}

#[test]
fn a_failed_upcast_in_read_order_names_its_event() {
    // Indexes in read order say nothing about the events before.
    let events = work(&[event("a-1", 9, "A", "{}"), event("a-1", 6, "A", "{}")]);
    let source = format!("{STRICT}fn handle(stream, events) {{ emit(1) }}");
    check_script(
        &source,
        &[events],
        expect![[r#"
            Permanent at 6
              main.rhai:4:9: unknown form (stream `a-1`, index 6, type `A`)
        "#]],
    );
}

#[test]
fn a_module_defines_upcast_with_its_own_functions_and_imports() {
    let files = [
        (
            "main.rhai",
            "import \"forms\" as forms;\nfn handle_event(stream, event) { emit([event.type, event.data.n]) }",
        ),
        (
            "forms.rhai",
            "import \"deep\" as deep;\nconst BASE = 10;\nfn helper(n) { n + global::BASE + deep::one() }\n\
             fn upcast(event) {\n    if event.index == 7 { nonsense(1); }\n    #{ type: \"New\", data: #{ n: helper(event.index) } }\n}",
        ),
        ("deep.rhai", "fn one() { 1 }"),
    ];
    let script = compile(&files, Options::default()).unwrap();
    expect![[r#"
        upto 7
          ["New",16]
          ["New",17]
    "#]]
    .assert_eq(&run(&script, &[order()]));
    let last = work(&[event("order-1_a", 7, "OrderPlaced", "{}")]);
    expect![[r#"
        Permanent at 7
          forms.rhai:5:27: there is no function `nonsense(i64)` (stream `order-1_a`, index 7, type `OrderPlaced`)
    "#]]
    .assert_eq(&run(&script, &[last]));
    assert_eq!(script.check().len(), 1, "the unknown function is reported");
}

#[test]
fn a_wrong_result_of_upcast_names_its_event() {
    let cases = [
        ("", "`upcast` returned nothing: return the event, or a map of `type`, `data` and `meta`"),
        ("\"x\"", "`upcast` returned a string: return the event, or a map of `type`, `data` and `meta`"),
        ("#{ typ: \"x\" }", "`upcast` returned the unknown key `typ`, expected `type`, `data` or `meta`"),
        ("#{ type: 1 }", "the `type` that `upcast` returns is a string, not an integer"),
        ("#{ type: \"\" }", "`upcast` returned an empty `type`"),
        ("#{ data: [|x| x] }", "`upcast` returned a function within `data` or `meta`"),
        ("#{ data: event }", "`upcast` returned an event within `data` or `meta`"),
        ("emit(1)", "`upcast` decides nothing: call `emit(..)` in `handle` or `handle_event`"),
        ("event.data.x = 1", "events cannot be changed: copy the map first (`let data = e.data;`)"),
    ];
    for (body, why) in cases {
        let source = format!("fn upcast(event) {{ {body} }}\nfn handle_event(stream, event) {{ }}");
        let script = compile(&[("main.rhai", &source)], Options::default()).unwrap();
        let said = run(&script, &[order()]);
        assert!(said.starts_with("Permanent at 5\n  main.rhai:1:"), "{body}: {said}");
        assert!(said.contains(why), "{body}: {said}");
    }
}

#[test]
fn unreadable_data_fails_as_that_of_its_event() {
    let source = "fn upcast(event) { event.data.x; event }\nfn handle(stream, events) { emit(events.len()) }";
    let events = work(&[event("a-1", 0, "A", "{}"), event("a-1", 1, "A", "{")]);
    check_script(source, &[events], expect!["upto 1\n  1\n"]);
    let said =
        run(&compile(&[("main.rhai", source)], Options::default()).unwrap(), &[work(&[event("a-1", 1, "A", "{")])]);
    assert!(said.starts_with("Malformed at 1\n"), "{said}");
}

#[test]
fn values_of_an_event_do_not_depend_on_it() {
    // The new data holds the old data, whose place it takes.
    let source = r#"
    fn upcast(event) { #{ data: #{ old: event.data, at: time.parse("2026-11-24T10:00:00Z") }, meta: event.data } }
    fn handle(stream, events) { for e in events { emit([e.data, e.meta]) } }"#;
    check_script(
        source,
        &[single(r#"{"a":{"b":[1,2]}}"#)],
        expect![[r#"
            all
              [{"at":"2026-11-24T10:00:00Z","old":{"a":{"b":[1,2]}}},{"a":{"b":[1,2]}}]
        "#]],
    );
    // A removed document is absent.
    let source = "fn upcast(event) { #{ data: () } }\nfn handle(stream, events) { emit(events[0].data == ()) }";
    check_script(source, &[single("{\"a\":1}")], expect!["all\n  true\n"]);
}

#[test]
fn the_limits_of_a_call_hold_for_upcast() {
    let limits = Limits { memory_bytes: 1 << 20, ..Limits::default() };
    let source = "fn upcast(event) { let text = \"x\"; text.pad(300_000, \"x\"); #{ data: text } }\n\
                  fn handle(stream, events) { emit(events.len()) }";
    let events: Vec<_> = (0..6).map(|index| event("a-1", index, "A", "{}")).collect();
    let script = compile(&[("main.rhai", source)], Options { limits, ..Options::default() }).unwrap();
    assert_eq!(run(&script, &[work(&events)]), "upto 3\n  3\n", "the values of three events fit");
    let limits = Limits { operations: 1_000, ..Limits::default() };
    let source = "fn upcast(event) { let x = 0; for i in 0..100 { x += i; } event }\nfn handle_event(stream, event) { emit(event.index) }";
    let script = compile(&[("main.rhai", source)], Options { limits, ..Options::default() }).unwrap();
    let said = run(&script, &[work(&events)]);
    assert!(said.starts_with("upto ") && !said.starts_with("upto 6"), "{said}");
}

#[test]
fn unfolds_are_upcast_as_well() {
    let unfold = Assembler::new("a-1", "S").data(b"{}").build(Kind::Unfold, Ordinal::new(3, 0), 2).unwrap();
    let events = work(&[event("a-1", 1, "A", "{}"), unfold]);
    let source = "fn upcast(event) { #{ type: event.type + \"2\" } }\n\
                  fn handle(stream, events) { for e in events { emit(e.type) } }";
    check_filtered(source, "exclude_events = [\"A2\"]", &[events], expect!["all\n  \"S2\"\n"]);
}

#[test]
fn c19_an_unfold_whose_upcast_fails_keeps_the_event_before_it() {
    let unfold = || Assembler::new("a-1", "S").build(Kind::Unfold, Ordinal::new(8, 0), 7).unwrap();
    let source = "fn upcast(event) { if event.is_unfold { throw \"no\"; } event }\n\
                  fn handle(stream, events) { for e in events { emit(e.index) } }";
    let events = [event("a-1", 5, "A", "{}"), event("a-1", 6, "A", "{}"), unfold()];
    check_script(source, &[work(&events)], expect!["upto 6\n  5\n"]);
    check_script(
        source,
        &[work(&events[1..])],
        expect![[r#"
            Transient at 6
              main.rhai:1:41: no (stream `a-1`, index 7, type `S`)
        "#]],
    );
}

#[test]
fn excluded_events_and_the_first_failure_are_found_without_handling() {
    let source = format!("{STRICT}fn handle(stream, events) {{ throw \"not called\" }}");
    let script = filtered(&source, "exclude_events = [\"New\"]");
    let mut first = work(&[event("a-1", 5, "A", "{}")]);
    assert_eq!(script.excluded(&mut first).unwrap(), [(5, "New".to_owned())]);
    let error = script.excluded(&mut order()).unwrap_err();
    assert_eq!(error.index(), Some(6));
}

fn check_compile(files: &[(&str, &str)], expected: Expect) {
    expected.assert_eq(&compile(files, Options::default()).unwrap_err().to_string());
}

#[test]
fn a_wrong_signature_of_upcast_is_an_error() {
    check_compile(
        &[("main.rhai", "fn handle(stream, events) {}\nfn upcast(stream, event) {\n    event\n}")],
        expect![[r#"
            main.rhai:2:26: `upcast` is called as `fn upcast(event)`; this one has 2 parameters
               2 | fn upcast(stream, event) {
                 |                          ^"#]],
    );
    check_compile(
        &[("main.rhai", "import \"m\" as m;\nfn handle(stream, events) {}"), ("m.rhai", "fn upcast() { 1 }")],
        expect![[r#"
            m.rhai:1:13: `upcast` is called as `fn upcast(event)`; this one has 0 parameters
               1 | fn upcast() { 1 }
                 |             ^"#]],
    );
    check_compile(
        &[
            ("main.rhai", "import \"m\" as m;\nfn handle(stream, events) {}"),
            ("m.rhai", "private fn upcast(event) { event }"),
        ],
        expect![[r#"
            m.rhai:1:26: `upcast` is private to its module (remove `private`, or rename the function)
               1 | private fn upcast(event) { event }
                 |                          ^"#]],
    );
    check_compile(
        &[
            ("main.rhai", "import \"m\" as m;\nfn handle(stream, events) {}\nfn upcast(event) { event }"),
            ("m.rhai", "fn upcast(event) { event }"),
        ],
        expect![[r#"
            m.rhai:1:18: `upcast` with 1 parameter is defined in `main.rhai` too: the functions of a script with several files need distinct names
               1 | fn upcast(event) { event }
                 |                  ^"#]],
    );
    // A function of the same name with other parameters beside it is a helper.
    let helper =
        "fn handle(stream, events) {}\nfn upcast(event) { upcast(event, 1) }\nfn upcast(event, version) { event }";
    assert!(compile(&[("main.rhai", helper)], Options::default()).unwrap().upcasts());
}
