use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::event::Assembler;
use crate::formats::jsonlines::{self, Indexing, LineOrigin};
use crate::position::Ordinal;

fn event(index: i64, data: &[u8]) -> Event {
    build(Assembler::new("order-1", "Placed").data(data), index)
}

fn build(assembler: Assembler, index: i64) -> Event {
    assembler.build(Kind::Event, Ordinal::default(), index).unwrap()
}

fn rendered(render: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    render(&mut out);
    String::from_utf8(out).unwrap()
}

fn check_line(event: &Event, expected: Expect) {
    let line = rendered(|out| event_line(event, out));
    serde_json::from_str::<serde_json::Value>(&line).unwrap();
    expected.assert_eq(&line);
}

fn check_span(run: &[Event], expected: Expect) {
    let text = rendered(|out| span(run, out));
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
    expected.assert_eq(&text);
}

#[test]
fn an_event_line_has_the_fields_that_the_event_has() {
    check_line(&event(3, b""), expect![[r#"{"stream":"order-1","index":3,"type":"Placed"}"#]]);
    let full = Assembler::new("ord\"er-ü", "T")
        .data(b"{\"a\": [1,2.50]}")
        .meta(b"null")
        .text(Text::Id, "e1")
        .text(Text::Correlation, "c")
        .text(Text::Causation, "d")
        .text(Text::Timestamp, "2026-11-24T10:00:00Z");
    check_line(
        &build(full, 0),
        expect![[
            r#"{"stream":"ord\"er-ü","index":0,"type":"T","data":{"a": [1,2.50]},"meta":null,"id":"e1","correlation":"c","causation":"d","timestamp":"2026-11-24T10:00:00Z"}"#
        ]],
    );
}

#[test]
fn a_body_that_is_no_json_is_embedded_as_text() {
    check_line(&event(0, b"{oops"), expect![[r#"{"stream":"order-1","index":0,"type":"Placed","data":"{oops"}"#]]);
    check_line(
        &event(0, &[0, 255, 16, 1]),
        expect![[r#"{"stream":"order-1","index":0,"type":"Placed","data":"data:;base64,AP8QAQ=="}"#]],
    );
}

#[test]
fn a_body_of_several_lines_stays_on_one() {
    check_line(
        &event(0, b"{\r\n  \"a\": \"x\\ny\"\n}"),
        expect![[r#"{"stream":"order-1","index":0,"type":"Placed","data":{    "a": "x\ny" }}"#]],
    );
}

#[test]
fn a_span_is_rendered_as_the_dotnet_codec_does() {
    let events: Vec<_> = [
        ("2024-03-01T10:20:30.1234567Z", &b"{\"a\":1}"[..]),
        ("2024-03-01T10:20:30.12Z", b""),
        ("2024-03-01T10:20:30+02:00", b"[ ]"),
        ("2024-03-01T10:20:30.000000099-03:30", b"7"),
        ("yesterday", b"{}"),
    ]
    .into_iter()
    .zip(7..)
    .map(|((timestamp, data), index)| {
        build(Assembler::new("Order-42", "Shipped").data(data).text(Text::Timestamp, timestamp), index)
    })
    .collect();
    check_span(
        &events,
        expect![[
            r#"{"s":"Order-42","i":7,"e":[{"c":"Shipped","t":"2024-03-01T10:20:30.1234567+00:00","d":{"a":1}},{"c":"Shipped","t":"2024-03-01T10:20:30.12+00:00","d":null},{"c":"Shipped","t":"2024-03-01T10:20:30+02:00","d":[ ]},{"c":"Shipped","t":"2024-03-01T10:20:30-03:30","d":7},{"c":"Shipped","d":{}}]}"#
        ]],
    );
    let odd = Assembler::new("a-\u{2028}b\u{85}\u{2029}", "\u{85}\"\n").meta(b"{\"u\":1}");
    check_span(
        &[build(odd, 0)],
        expect![[r#"{"s":"a-\u2028b\u0085\u2029","i":0,"e":[{"c":"\u0085\"\n","d":null,"m":{"u":1}}]}"#]],
    );
}

#[test]
fn runs_end_at_holes_and_leave_out_what_is_no_event() {
    let unfold = Assembler::new("order-1", "S").build(Kind::Unfold, Ordinal::default(), 9).unwrap();
    let mut placeholder = event(3, b"");
    placeholder.exclude();
    let mut events: Vec<_> = [1, 2, 4, 5, 8, 8].map(|index| event(index, b"")).into();
    events.insert(2, placeholder);
    events.push(unfold);
    let runs: Vec<Vec<_>> = runs(&events).map(|run| run.iter().map(Event::index).collect()).collect();
    assert_eq!(runs, [vec![1, 2], vec![4, 5], vec![8], vec![8]]);
    let lines = rendered(|out| event_lines(&events, out));
    assert_eq!(lines.lines().count(), 6);
}

#[test]
fn values_become_lines_in_the_format_asked_for() {
    let values = [
        Value::from("a \"b\""),
        Value::Int(-3),
        Value::Map(vec![("z".into(), Value::Bool(true)), ("a".into(), Value::List(vec![Value::Null]))]),
    ];
    let lines = |format| rendered(|out| value_lines(&values, format, out).unwrap());
    expect![[r#"
        "a \"b\""
        -3
        {"z":true,"a":[null]}
    "#]]
    .assert_eq(&lines(Format::Json));
    expect![[r#"
        a "b"
        -3
        {"z":true,"a":[null]}
    "#]]
    .assert_eq(&lines(Format::Text));
}

#[test]
fn l13_a_number_that_json_cannot_hold_is_an_error_and_appends_nothing() {
    let values = [Value::Int(1), Value::List(vec![Value::Float(1.0), Value::Float(f64::NEG_INFINITY)])];
    for format in [Format::Json, Format::Text] {
        let mut out = Vec::new();
        assert_eq!(value_lines(&values, format, &mut out), Err("`1` is `-inf`, which JSON cannot hold".to_owned()));
        assert!(out.is_empty());
    }
    assert_eq!(Value::Float(f64::NAN).check_numbers(), Err("it is `NaN`, which JSON cannot hold".to_owned()));
}

proptest! {
    #[test]
    fn any_body_renders_as_one_line_of_json_that_keeps_it(data in prop::collection::vec(any::<u8>(), 1..80), meta: String) {
        let event = build(Assembler::new("a-1", &meta).data(&data).meta(meta.as_bytes()), 1);
        let line = rendered(|out| event_line(&event, out));
        prop_assert!(!line.contains(['\n', '\r']));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(&read["type"], &serde_json::Value::from(meta));
        match (std::str::from_utf8(&data), &read["data"]) {
            (Ok(text), serde_json::Value::String(written)) if !is_json(text) => prop_assert_eq!(text, written),
            (Ok(text), value) => prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(text).unwrap(), value),
            (Err(_), value) => prop_assert!(value.as_str().unwrap().starts_with("data:;base64,")),
        }
        let text = rendered(|out| span(std::slice::from_ref(&event), out));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
}

/// Returns all that an event holds.
fn fields(event: &Event) -> (i64, Vec<Vec<u8>>) {
    let texts = [Text::Stream, Text::Type, Text::Id, Text::Correlation, Text::Causation, Text::Timestamp];
    let mut fields: Vec<_> = texts.map(|text| event.text(text).as_bytes().to_vec()).into();
    fields.extend([event.data().to_vec(), event.meta().to_vec()]);
    (event.index(), fields)
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..3)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
    .prop_map(|value| value.to_string())
}

proptest! {
    #[test]
    fn a_written_event_reads_as_the_same_event(
        texts in prop::array::uniform6(any::<String>()),
        (data, meta) in (prop::option::of(any_json()), prop::option::of(any_json())),
        index in 0..i64::MAX,
    ) {
        let mut assembler = Assembler::new(&format!("s{}", texts[0]), &texts[1])
            .data(data.unwrap_or_default().as_bytes())
            .meta(meta.unwrap_or_default().as_bytes());
        for (field, text) in [Text::Id, Text::Correlation, Text::Causation, Text::Timestamp].into_iter().zip(&texts[2..]) {
            assembler = assembler.text(field, text);
        }
        let event = assembler.build(Kind::Event, Ordinal::new(7, 0), index).unwrap();
        let mut line = Vec::new();
        event_line(&event, &mut line);
        prop_assert!(!line.contains(&b'\n'));
        let mut read = Vec::new();
        jsonlines::parse(line.into(), LineOrigin { major: 7, indexing: Indexing::Field }, &mut read).unwrap();
        prop_assert_eq!(read.iter().map(fields).collect::<Vec<_>>(), [fields(&event)]);
    }
}
