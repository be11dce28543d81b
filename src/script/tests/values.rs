use expect_test::expect;
use proptest::prelude::*;

use super::*;

#[test]
fn a_stream_has_its_parts() {
    check(
        "emit([stream.name, stream.category, stream.id, stream.ids, `${stream}`])",
        expect![[r#"
            all
              ["order-1_a","order","1_a",["1","a"],"order-1_a"]
        "#]],
    );
}

#[test]
fn an_absent_field_of_an_event_is_nothing() {
    check(
        "let e = events[0]; emit([e.index, e.type, e.timestamp, e.id, e.correlation, e.causation, e.is_unfold, e.meta, \
         e.raw, e.stream.name]);",
        expect![[r#"
            all
              [5,"OrderPlaced","2026-11-24T10:00:00Z","id-5",null,null,false,null,"{\"total\":12.5,\"items\":[{\"sku\":\"A\"}],\"by\":{\"name\":\"Ada\"}}","order-1_a"]
        "#]],
    );
}

#[test]
fn the_fields_of_an_event_are_asked_for_by_name() {
    check(
        "let e = events[0]; emit([e.data.contains(\"total\"), e.data.contains(\"x\")]); e.data.total = 1;",
        expect![[r#"
            Permanent
              main.rhai:2:78: events cannot be changed: copy the map first (`let data = e.data;`) (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "let e = events[0]; emit([e.data.contains(\"total\"), e.data.contains(\"x\")]);",
        expect![[r#"
        all
          [true,false]
    "#]],
    );
}

#[test]
fn methods_of_values_in_an_event_change_nothing() {
    let source = "fn handle(stream, events) { let e = events[0]; let d = e.data; let p = params; emit([
        e.data.items.len(), e.data.items.map(|i| i.sku), e.data.by.keys(), e.data.by.name.split(\"d\"), e.data.keys(),
        e.data.by.contains(\"name\"), e.data.items[0].sku.to_lower(), e.data.total.to_int(), d.items.is_empty(), d.by.len(),
        p.nested.deep.len(), p.name.to_upper(),
    ]); d.by = (); d.none = (); emit(d); }";
    check_script(
        source,
        &[order()],
        expect![[r#"
            all
              [1,["A"],["name"],["A","a"],["by","items","total"],true,"a",12,false,1,2,"SHOP"]
              {"by":null,"items":[{"sku":"A"}],"none":null,"total":12.5}
        "#]],
    );
    for change in
        ["items.push(1)", "by.name = 1", "items[0].sku += \"x\"", "by.set(\"x\", 1)", "total = 13", "none = ()"]
    {
        let source = format!("fn handle(stream, events) {{ events[0].data.{change}; }}");
        let said = run(&compile(&[("main.rhai", &source)], Options::default()).unwrap(), &[order()]);
        assert!(said.contains("events cannot be changed"), "{change}: {said}");
    }
}

#[test]
fn events_are_like_an_array() {
    check(
        "emit([events.len(), events.len, events[0].index, events[-1].index, events.is_empty()])",
        expect![[r#"
            all
              [3,3,5,7,false]
        "#]],
    );
    check(
        "emit(events.filter(|e| e.type == \"OrderPlaced\").map(|e| e.index))",
        expect![[r#"
            all
              [5,7]
        "#]],
    );
    check(
        "for (e, i) in events { emit([i, e.index]) }",
        expect![[r#"
            all
              [0,5]
              [1,6]
              [2,7]
        "#]],
    );
    check(
        "emit(events.some(|e| e.index == 6)); emit(events.extract(1).len())",
        expect![[r#"
            all
              true
              2
        "#]],
    );
}

#[test]
fn data_is_like_a_map() {
    check(
        "let d = events[0].data; emit([d.total, d[\"total\"], d.by.name, d.items[0].sku, d.none, d?.none?.x])",
        expect![[r#"
            all
              [12.5,12.5,"Ada","A",null,null]
        "#]],
    );
    check(
        "let d = events[0].data; emit([\"total\" in d, d.contains(\"x\"), d.keys(), d.len(), type_of(d)])",
        expect![[r#"
            all
              [true,false,["by","items","total"],3,"map"]
        "#]],
    );
    check(
        "let d = events[0].data; d.total = 1; d.more = true; emit(d); emit(events[0].data.total)",
        expect![[r#"
            all
              {"by":{"name":"Ada"},"items":[{"sku":"A"}],"more":true,"total":1}
              12.5
        "#]],
    );
    check(
        "let d = events[0].data; d.total += 1; d[\"x\"] = 2; d.remove(\"items\"); emit(d)",
        expect![[r#"
            all
              {"by":{"name":"Ada"},"total":13.5,"x":2}
        "#]],
    );
    check(
        "let d = events[0].data; d.by.name = \"Eve\"; emit(d.by); emit(events[0].data.by)",
        expect![[r#"
            all
              {"name":"Eve"}
              {"name":"Ada"}
        "#]],
    );
    check(
        "emit(events[0].data + #{ total: 0 }); emit(events[0].data == events[0].data)",
        expect![[r#"
            all
              {"by":{"name":"Ada"},"items":[{"sku":"A"}],"total":0}
              true
        "#]],
    );
    check(
        "emit(events[1].data); emit(events[2].data.total + 1)",
        expect![[r#"
            all
              {}
              4
        "#]],
    );
    check(
        "emit(`${events[2].data}`); emit(events[0].data.to_json())",
        expect![[r##"
            all
              "#{\"total\": 3}"
              "{\"by\":{\"name\":\"Ada\"},\"items\":[{\"sku\":\"A\"}],\"total\":12.5}"
        "##]],
    );
}

#[test]
fn an_event_cannot_be_changed() {
    check(
        "events[0].data.total = 1;",
        expect![[r#"
            Permanent
              main.rhai:2:11: events cannot be changed: copy the map first (`let data = e.data;`) (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check(
        "let e = events[0]; e.type = \"X\";",
        expect![[r#"
            Permanent
              main.rhai:2:22: the property `type` of a value of type `event` cannot be set (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn parameters_cannot_be_changed() {
    let mut handler = handler(
        "fn handle(stream, events) { emit([params.vat, params.nested.deep[1], params.none, \"vat\" in params]); \
         let mine = params; mine.vat = 9; emit(mine.vat); events.for_each(|| emit(params.name)); }",
    );
    let twice: String = (0..2).map(|_| show(&call(&mut *handler, &[single("{}")]))).collect();
    expect![[r#"
        all
          [0.2,2,null,true]
          9
          "shop"
        all
          [0.2,2,null,true]
          9
          "shop"
    "#]]
    .assert_eq(&twice);
    let change = compile(&[("main.rhai", "fn handle(s, e) { params.vat = 3; }")], Options::default());
    match change {
        Ok(script) => expect![[r#"
            Permanent
              main.rhai:1:26: cannot modify property 'vat' of constant (stream `order-1`, index 0, type `OrderPlaced`)
        "#]]
        .assert_eq(&run(&script, &[single("{}")])),
        Err(error) => expect![""].assert_eq(&error.to_string()),
    }
}

#[test]
fn r32_data_that_is_not_json_names_its_event() {
    let run = |data: &str| {
        let events = [event("order-1", 3, "A", "{}"), event("order-1", 4, "B", data)];
        let script = compile(
            &[("main.rhai", "fn handle(stream, events) { for e in events { emit(e.data.x) } }")],
            Options::default(),
        );
        run(&script.unwrap(), &[work(&events)])
    };
    expect![[r#"
        Malformed at 4
          main.rhai:1:54: its `data` is not usable JSON: expected a key in quotes at byte 8 (stream `order-1`, index 4, type `B`)
    "#]]
    .assert_eq(&run("{\"x\":1,"));
    expect![[r#"
        Malformed at 4
          main.rhai:1:54: its `data` is not usable JSON: expected nothing more at byte 9 (stream `order-1`, index 4, type `B`)
    "#]]
    .assert_eq(&run("{\"x\":1} {}"));
    expect![[r#"
        Malformed at 4
          main.rhai:1:54: its `data` is not usable JSON: expected a value at byte 1 (stream `order-1`, index 4, type `B`)
    "#]]
    .assert_eq(&run("nothing"));
    expect![[r#"
        Malformed at 4
          main.rhai:1:54: its `data` is not usable JSON: expected a value at byte 15 (stream `order-1`, index 4, type `B`)
    "#]]
    .assert_eq(&run("{\"x\":1,\"y\":[1,}"));
}

#[test]
fn data_that_is_not_an_object_is_its_value() {
    let show = |data: &str| {
        let script = compile(
            &[("main.rhai", "fn handle(stream, events) { emit([events[0].data, events[0].raw]) }")],
            Options::default(),
        );
        run(&script.unwrap(), &[single(data)])
    };
    expect![[r#"
        all
          [null,""]
        all
          [[1,{"a":2}],"[1,{\"a\":2}]"]
        all
          ["a\nb","\"a\\nb\""]
        all
          [null,"null"]
        all
          [-3,"-3"]
        all
          [{"a":1}," {\"a\":1}"]
    "#]]
    .assert_eq(&["", "[1,{\"a\":2}]", "\"a\\nb\"", "null", "-3", " {\"a\":1}"].map(show).concat());
}

#[test]
fn numbers_do_not_change_silently() {
    check_script(
        "fn handle(stream, events) { let d = events[0].data; emit(d); emit([d.big, d.exact, d.precise, d.list[0], d.whole]) }",
        &[single(
            r#"{"big":12345678901234567890,"exact":9223372036854775807,"precise":0.1234567890123456789,"list":[1e400],"whole":1.0}"#,
        )],
        expect![[r#"
            all
              {"big":"12345678901234567890","exact":9223372036854775807,"list":["1e400"],"precise":"0.1234567890123456789","whole":1.0}
              ["12345678901234567890",9223372036854775807,"0.1234567890123456789","1e400",1.0]
        "#]],
    );
}

#[test]
fn keys_may_be_anything_and_the_last_of_equal_ones_counts() {
    check_script(
        "fn handle(stream, events) { let d = events[0].data; emit([d[\"a b\"], d[\"a\\\"b\"], d.twice, d[\"ü\"]]); emit(d) }",
        &[single(r#"{"a b":1,"a\"b":2,"twice":1,"twice":2,"ü":"\u00fc"}"#)],
        expect![[r#"
            all
              [1,2,2,"ü"]
              {"a b":1,"a\"b":2,"twice":2,"ü":"ü"}
        "#]],
    );
}

#[test]
fn every_kind_of_value_can_be_emitted() {
    check(
        "emit(#{ b: true, n: (), f: 1.5, c: 'x', l: [1, [2]], m: #{ k: \"v\" } })",
        expect![[r#"
            all
              {"b":true,"c":"x","f":1.5,"l":[1,[2]],"m":{"k":"v"},"n":null}
        "#]],
    );
    check(
        "emit(events[2]); emit(events)",
        expect![[r#"
            all
              {"stream":"order-1_a","index":7,"type":"OrderPlaced","id":"id-7","timestamp":"2026-11-24T10:00:00Z","data":{"total":3}}
              [{"stream":"order-1_a","index":5,"type":"OrderPlaced","id":"id-5","timestamp":"2026-11-24T10:00:00Z","data":{"by":{"name":"Ada"},"items":[{"sku":"A"}],"total":12.5}},{"stream":"order-1_a","index":6,"type":"OrderViewed","id":"id-6","timestamp":"2026-11-24T10:00:00Z","data":{}},{"stream":"order-1_a","index":7,"type":"OrderPlaced","id":"id-7","timestamp":"2026-11-24T10:00:00Z","data":{"total":3}}]
        "#]],
    );
    check(
        "emit(blob(2, 7))",
        expect![[r#"
            all
              [7,7]
        "#]],
    );
    check(
        "emit(0..3)",
        expect![[r#"
            Permanent
              main.rhai:2:1: a value of this type cannot be emitted (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn equal_texts_are_shared() {
    let mut handler = handler("fn handle(stream, events) { emit(#{ sql: \"INSERT INTO a VALUES (1)\", n: 1 }) }");
    let mut texts = Vec::new();
    for _ in 0..4 {
        let decisions = call(&mut *handler, &[single("{}")]);
        let effect = &decisions[0].as_ref().unwrap().effects[0];
        let crate::effect::Value::Map(entries) = effect else { panic!("{effect:?}") };
        let Some(crate::effect::Value::Text(sql)) = effect.get("sql") else { panic!("{effect:?}") };
        texts.push((Arc::clone(&entries[0].0), Arc::clone(sql)));
    }
    let [.., a, b] = &texts[..] else { panic!() };
    assert!(Arc::ptr_eq(&a.0, &b.0) && Arc::ptr_eq(&a.1, &b.1));
}

#[test]
fn an_unfold_is_marked() {
    let unfold = Assembler::new("order-1", "Snapshot").data(b"{\"v\":1}").build(Kind::Unfold, Ordinal::new(1, 0), 1);
    check_script(
        "fn handle(stream, events) { emit(events.map(|e| [e.type, e.index, e.is_unfold, e.data.v])) }",
        &[work(&[event("order-1", 0, "A", "{}"), unfold.unwrap()])],
        expect![[r#"
            all
              [["A",0,false,null],["Snapshot",1,true,1]]
        "#]],
    );
}

fn json_tree() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Into::into),
        ".{0,30}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(".{0,8}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A document passes through a script unchanged, field by field and as a whole.
    #[test]
    fn any_json_passes_through_a_script_unchanged(tree in json_tree()) {
        thread_local! {
            static HANDLER: std::cell::RefCell<Box<dyn BlockingHandler>> = std::cell::RefCell::new(handler(
                "fn handle(stream, events) { let d = events[0].data; emit(d); \
                 if type_of(d) == \"map\" { let c = #{}; for k in d.keys() { c[k] = d[k]; } emit(c); } else { emit(d); } }",
            ));
        }
        let decisions = HANDLER.with_borrow_mut(|handler| call(&mut **handler, &[single(&tree.to_string())]));
        // serde_json reads some floats inexactly, so it reads both sides of the comparison.
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        for effect in &decisions[0].as_ref().unwrap().effects {
            prop_assert_eq!(read(&serde_json::to_string(effect).unwrap()), read(&tree.to_string()));
        }
    }
}

#[test]
fn x6_a_lone_surrogate_fails_only_the_call_that_touches_it() {
    let data = r#"{"t":"cut \ud83d here","other":"fine","\udc00":1}"#;
    let script = "fn handle(stream, events) { for e in events { emit(e.data.FIELD); } }";
    check_script(
        &script.replace("FIELD", "other"),
        &[single(data)],
        expect![[r#"
            all
              "fine"
        "#]],
    );
    check_script(
        &script.replace("FIELD", "t"),
        &[single(data)],
        expect![[r#"
            Malformed at 0
              main.rhai:1:59: its `data` is not usable JSON: a string in it holds one half of a surrogate pair (stream `order-1`, index 0, type `OrderPlaced`)
        "#]],
    );
    check_script(
        "fn handle(stream, events) { emit(events[0].data); }",
        &[single(data)],
        expect![[r#"
            Malformed at 0
              main.rhai:1:29: its `data` is not usable JSON: a string in it holds one half of a surrogate pair (stream `order-1`, index 0, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn x6_a_script_and_its_modules_may_begin_with_a_byte_order_mark() {
    let main = "\u{feff}import \"m\" as m;\nfn handle(stream, events) { emit(m::one()); }";
    let script = compile(&[("main.rhai", main), ("m.rhai", "\u{feff}fn one() { 1 }")], Options::default()).unwrap();
    assert_eq!(run(&script, &[order()]), "all\n  1\n");
}

#[test]
fn l13_a_number_that_no_sink_can_hold_is_an_error_that_names_it() {
    check(
        "emit(#{ avg: 0.0 / 0.0 });",
        expect![[r#"
        Permanent
          main.rhai:2:1: NaN cannot be emitted: it is not a finite number (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check(
        "emit([1.0 / 0.0]);",
        expect![[r#"
        Permanent
          main.rhai:2:1: inf cannot be emitted: it is not a finite number (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check(
        "emit(json.text(-1.0 / 0.0));",
        expect![[r#"
        Permanent
          main.rhai:2:11: -inf cannot be emitted: it is not a finite number (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
}

#[test]
fn l13_an_integer_beyond_64_bits_keeps_its_digits_or_is_an_error() {
    let big = r#"{"n":12345678901234567890,"low":-9223372036854775809,"most":9223372036854775807}"#;
    let emitted = |body: &str| {
        let source = format!("fn handle(stream, events) {{ let d = events[0].data; {body} }}");
        run(&compile(&[("main.rhai", &source)], Options::default()).unwrap(), &[single(big)])
    };
    assert_eq!(
        emitted("emit(d);"),
        "all\n  {\"low\":\"-9223372036854775809\",\"most\":9223372036854775807,\"n\":\"12345678901234567890\"}\n"
    );
    assert_eq!(
        emitted("emit([d.n, d.low, d.most]);"),
        "all\n  [\"12345678901234567890\",\"-9223372036854775809\",9223372036854775807]\n"
    );
    assert_eq!(emitted("emit(json.text(d.n));"), "all\n  \"\\\"12345678901234567890\\\"\"\n");
    for calculation in
        ["emit(d.most + 1);", "emit(d.n * 2);", "emit(d.n - 1);", "emit(d.most * 2);", "emit(parse_int(d.n));"]
    {
        let shown = emitted(calculation);
        assert!(shown.starts_with("Permanent\n"), "{calculation}: {shown}");
    }
}
