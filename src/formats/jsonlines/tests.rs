use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn read(line: &[u8], indexing: Indexing) -> Result<Vec<Event>, BadLine> {
    let mut events = Vec::new();
    parse(Bytes::copy_from_slice(line), LineOrigin { major: 7, indexing }, &mut events).map(|()| events)
}

/// Formats all parts of an event.
fn show(event: &Event) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut shown = format!("{event:?} {} data={} meta={}", event.event_type(), text(event.data()), text(event.meta()));
    for field in [Text::Id, Text::Correlation, Text::Causation, Text::Timestamp] {
        let value = event.text(field);
        if !value.is_empty() {
            shown += &format!(" {field:?}={value}");
        }
    }
    shown
}

fn check(line: &str, expected: Expect) {
    let shown = match read(line.as_bytes(), Indexing::Field) {
        Ok(events) => events.iter().map(show).collect::<Vec<_>>().join("\n"),
        Err(bad) => match bad.stream() {
            Some(stream) => format!("{stream}: {bad}"),
            None => bad.to_string(),
        },
    };
    expected.assert_eq(&shown);
}

#[test]
fn an_event_line_is_read_in_place() {
    check(
        r#"{"stream":"order-1","index":3,"type":"Placed","data":{"total": 3},"meta":null,"id":"a","timestamp":"2026-11-24T10:00:00Z","correlation":"c","causation":null,"other":[1]}"#,
        expect![[
            r#"order-1/e3@7.0 Placed data={"total": 3} meta=null Id=a Correlation=c Timestamp=2026-11-24T10:00:00Z"#
        ]],
    );
    check("  { \"index\" : 0 , \"type\" : \"\" , \"stream\" : \"order\" }\r", expect!["order/e0@7.0  data= meta="]);
    check(
        r#"{"stream":"order-1","index":4,"type":"Snapshot","unfold":true}"#,
        expect!["order-1/u4@7.0 Snapshot data= meta="],
    );
    let line = Bytes::from_static(br#"{"stream":"a-1","index":3,"type":"T","data":{"total":3}}"#);
    let mut events = Vec::new();
    parse(line.clone(), LineOrigin { major: 0, indexing: Indexing::Field }, &mut events).unwrap();
    assert!(line.as_ptr_range().contains(&events[0].data().as_ptr()), "the event is a slice of the line");
}

#[test]
fn escapes_are_decoded_in_keys_and_texts_but_not_in_bodies() {
    check(
        r#"{"str\u0065am":"caf\u00e9-\"1\"","index":0,"type":"T\\","data":"\u00e9"}"#,
        expect![[r#"café-"1"/e0@7.0 T\ data="\u00e9" meta="#]],
    );
}

#[test]
fn an_error_names_the_byte_and_the_stream() {
    check("", expect!["expected `{` at byte 1"]);
    check("[1]", expect!["expected `{` at byte 1"]);
    check("{}", expect!["expected `stream`"]);
    check(r#"{"stream":"a-1","index":0}"#, expect!["a-1: expected `type`"]);
    check(r#"{"stream":1,"index":0,"type":"T"}"#, expect!["expected a string as `stream` at byte 11"]);
    check(r#"{"stream":"","index":0,"type":"T"}"#, expect!["the stream name is empty"]);
    check(r#"{"stream":"a-1","type":"T"}"#, expect!["a-1: expected `index`"]);
    check(r#"{"stream":"a-1","index":1.0,"type":"T"}"#, expect!["a-1: expected an integer as `index` at byte 25"]);
    check(r#"{"stream":"a-1","index":-1,"type":"T"}"#, expect!["a-1: expected an `index` of at least 0 at byte 25"]);
    check(
        r#"{"stream":"a-1","index":0,"type":"T","unfold":1}"#,
        expect!["a-1: expected true or false as `unfold` at byte 47"],
    );
    check(r#"{"stream":"a-1","stream":"b-1"}"#, expect!["b-1: the same key came before at byte 17"]);
    check(r#"{"stream":"a-1","index":0,"type":"T","data":{"a":nul}}"#, expect!["a-1: expected a value at byte 50"]);
    check(r#"{"stream":"a-1","index":0,"type":"T"} {}"#, expect!["a-1: expected nothing more at byte 39"]);
    check(r#"{"stream":"a-1","index":0,"type":"T""#, expect!["a-1: expected `,` or `}` at byte 37"]);
}

#[test]
fn c2_a_line_that_breaks_the_declared_indexing_is_an_error() {
    let line = |text: &str| read(text.as_bytes(), Indexing::Line);
    assert_eq!(line(r#"{"stream":"a-1","type":"T"}"#).unwrap()[0].index(), 7);
    let bad = line(r#"{"stream":"a-1","index":1,"type":"T"}"#).unwrap_err();
    assert_eq!(bad.to_string(), "expected no `index`, because the line's number is the index at byte 25");
    assert!(line(r#"{"p":"a-1","i":0,"n":0,"e":[]}"#).is_err());
    assert!(read(br#"{"stream":"a-1","type":"T"}"#, Indexing::Field).is_err());
}

#[test]
fn c3_a_document_is_read_as_its_events_and_then_its_unfolds_under_one_ordinal() {
    check(
        r#"{"id":"-1","p":"Order-7f1c","i":5,"n":7,"e":[
            {"t":"2026-03-02T10:00:00+00:00","c":"Shipped","d":{"carrier":"X"},"correlationId":"c","causationId":null},
            {"t":"2026-03-02T10:00:00+00:00","c":"Named","d":"hello","m":{"by":1}}],
           "u":[{"i":5,"c":"Snapshotted","d":{"state":"shipped"}},{"i":6,"c":"Old","d":"q1ZKSsxJzEtOVbIyMaoFAA=="}],"_etag":"\"x\""}"#,
        expect![[r#"
            Order-7f1c/e5@7.0 Shipped data={"carrier":"X"} meta= Correlation=c Timestamp=2026-03-02T10:00:00+00:00
            Order-7f1c/e6@7.1 Named data="hello" meta={"by":1} Timestamp=2026-03-02T10:00:00+00:00
            Order-7f1c/u7@7.2 Snapshotted data={"state":"shipped"} meta=
            Order-7f1c/u7@7.2 Old data={"balance":42} meta="#]],
    );
    check(r#"{"p":"a-1","i":3,"n":3,"e":[],"u":null}"#, expect![""]);
}

#[test]
fn documents_that_hold_no_events_yield_nothing() {
    check(r#"{"id":"lease","p":5,"_rid":"x"}"#, expect![""]);
    check(r#"{"id":"app","_rid":"x","type":"t"}"#, expect![""]);
    check(r#"{"id":"not from an export"}"#, expect!["expected `stream`"]);
}

#[test]
fn a_bad_document_yields_nothing_and_names_its_stream() {
    check(
        r#"{"p":"a-1","i":0,"n":1,"e":[{"c":"A"},{"c":"B"}]}"#,
        expect!["a-1: expected as many events as there are from 0 to 1, not 2"],
    );
    check(
        r#"{"p":"a-1","i":0,"n":2,"e":[{"c":"A"},{"d":1}]}"#,
        expect!["a-1: expected the type `c` of an event at byte 39"],
    );
    check(r#"{"p":"a-1","i":0,"n":1,"e":[7]}"#, expect!["a-1: expected an event as an object at byte 29"]);
    check(r#"{"p":"a-1","i":0,"n":1,"e":{}}"#, expect!["a-1: expected an array as `e` at byte 28"]);
    check(
        r#"{"p":"a-1","i":0,"n":1,"e":[{"c":"A","d":"GwsA","D":2}]}"#,
        expect!["a-1: expected a body that is not compressed with Brotli, which cannot be read yet at byte 42"],
    );
    check(
        r#"{"p":"a-1","i":0,"n":0,"e":[],"u":[{"c":"A","d":"?"}]}"#,
        expect!["a-1: expected base64 in a compressed body at byte 49"],
    );
}

fn body(text: &str) -> Result<Vec<String>, String> {
    let mut events = Vec::new();
    match parse_body(&Bytes::copy_from_slice(text.as_bytes()), 10, Indexing::Line, &mut events) {
        Ok(_) => Ok(events.iter().map(|event| format!("{event:?}")).collect()),
        Err(bad) => {
            assert!(events.is_empty());
            Err(bad.to_string())
        }
    }
}

#[test]
fn a_pushed_body_is_lines_or_one_array() {
    let lines = "\n# comment\n{\"stream\":\"a-1\",\"type\":\"A\"}\r\n\n{\"stream\":\"a-2\",\"type\":\"B\"}";
    let array = "\n[{\"stream\":\"a-1\",\n\"type\":\"A\"},{\"stream\":\"a-2\",\"type\":\"B\"}]\n";
    for text in [lines, array] {
        assert_eq!(body(text).unwrap(), ["a-1/e10@10.0", "a-2/e11@11.0"]);
    }
    assert_eq!(body("[]").unwrap(), [""; 0]);
    assert_eq!(body("").unwrap(), [""; 0]);
}

#[test]
fn a_bad_body_names_the_line_and_yields_nothing() {
    let good = "{\"stream\":\"a-1\",\"type\":\"A\"}";
    assert_eq!(body(&format!("{good}\n\n{{\"stream\":\"a-1\"}}")).unwrap_err(), "line 3: expected `type`");
    assert_eq!(body(&format!("[{good},\n{{\"stream\":\"a-1\"}}]")).unwrap_err(), "item 2: expected `type`");
    assert_eq!(
        body(&format!("[{good},]")).unwrap_err(),
        format!("item 2: expected a value at byte {}", good.len() + 3)
    );
    assert_eq!(
        body(&format!("[{good}")).unwrap_err(),
        format!("the array: expected `,` or `]` at byte {}", good.len() + 2)
    );
    assert_eq!(
        body(&format!("{good}{good}")).unwrap_err(),
        format!("line 1: expected nothing more at byte {}", good.len() + 1)
    );
}

#[test]
fn x6_a_pushed_body_may_begin_with_a_byte_order_mark() {
    let event = "{\"stream\":\"a-1\",\"type\":\"A\"}";
    for body in [format!("{event}\n"), format!("# exported on Monday\n{event}"), format!("[{event}]")] {
        let mut events = Vec::new();
        let taken = parse_body(&Bytes::from(format!("\u{feff}{body}")), 1, Indexing::Line, &mut events);
        assert_eq!((taken, events.len()), (Ok(1), 1), "{body}");
    }
}

#[test]
fn x6_a_lone_surrogate_in_a_body_or_an_unknown_key_is_kept() {
    let line = br#"{"stream":"a-1","index":0,"type":"A","data":{"\ud83d":"\udc00"},"\ud83d":1}"#;
    assert_eq!(read(line, Indexing::Field).unwrap()[0].data(), br#"{"\ud83d":"\udc00"}"#);
    let line = br#"{"stream":"a-\ud83d","index":0,"type":"A"}"#;
    assert_eq!(read(line, Indexing::Field).unwrap_err().to_string(), "expected a string");
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ignored = read(&bytes, Indexing::Field);
        let _ignored = parse_body(&Bytes::from(bytes), 0, Indexing::Line, &mut Vec::new());
    }

    #[test]
    fn serde_json_accepts_every_line_that_is_accepted(edits in prop::collection::vec((0_usize..150, any::<u8>(), 0_usize..3), 1..4)) {
        let mut line = br#"{"p":"a-1","i":0,"n":1,"e":[{"c":"A","d":{"x":[1,"\u00e9"]},"t":"2"}],"u":[{"c":"B","d":"q1ZKSsxJzEtOVbIyMaoFAA=="}],"_rid":"\"z\""}"#.to_vec();
        for (at, byte, edit) in edits {
            let at = at % line.len();
            match edit {
                0 => line[at] = byte,
                1 => { line.remove(at); }
                _ => line.insert(at, byte),
            }
        }
        // A lone surrogate is accepted here, and by serde_json only if nothing decodes it.
        let has_surrogate = line.windows(3).any(|part| part.eq_ignore_ascii_case(br"\ud"));
        if !has_surrogate && read(&line, Indexing::Field).is_ok() {
            let theirs = serde_json::from_slice::<serde_json::Value>(&line);
            prop_assert!(theirs.is_ok_and(|json| json.is_object()), "{}", String::from_utf8_lossy(&line));
        }
    }
}
