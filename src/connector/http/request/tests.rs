use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::clock::Timestamp;
use crate::effect::{Emitted, Ends};
use crate::event::Assembler;
use crate::handler::HandlerErrorKind;
use crate::position::Ordinal;
use crate::sink::Effects;
use crate::work::{Work, WorkId, WorkKind};

fn context() -> Context {
    Context { group: "g".into(), ..Context::new("p", ".", "data") }
}

fn maker(settings: &str) -> anyhow::Result<Maker> {
    let settings = toml::from_str(&format!("url = \"http://h\"\n{settings}")).unwrap();
    Maker::new(&settings, &context(), Target::new(&settings)?)
}

fn events(stream: &str, indexes: &[i64]) -> Vec<Event> {
    let event = |&index| Assembler::new(stream, "T").build(Kind::Event, Ordinal::default(), index).unwrap();
    indexes.iter().map(event).collect()
}

fn shown(outgoing: &Outgoing) -> String {
    let mut text = format!("{} {}\n", outgoing.method, outgoing.url);
    for (name, value) in &outgoing.headers {
        writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes())).unwrap();
    }
    text + &*String::from_utf8_lossy(&outgoing.body) + "\n"
}

fn check_events(settings: &str, stream: &str, indexes: &[i64], expected: Expect) {
    let maker = maker(settings).unwrap();
    let events = events(stream, indexes);
    let requests: String = pieces(maker.per(), &events).map(|piece| shown(&maker.piece(piece).unwrap())).collect();
    expected.assert_eq(&requests);
}

fn decided(events: Vec<Event>, next: i64, effects: Emitted) -> Decided {
    let (id, kind) = (WorkId { slot: 0, generation: 0 }, WorkKind::Handle);
    let (read_at, last) = (Timestamp::ZERO, events.last().map_or(0, Event::next_index));
    let work = Work { id, kind, events, next: last, failures: 0, read_at, late: false, trace: None };
    Decided { work, next, effects: Effects::Emitted(effects), accepted: 0 }
}

fn emitted(settings: &str, value: serde_json::Value) -> Result<Outgoing, HandlerError> {
    let decided = decided(events("order-1", &[5, 6]), 6, Emitted::default());
    maker(settings).unwrap().emitted(&decided, 2, &Value::from(value))
}

fn check_emitted(settings: &str, value: serde_json::Value, expected: Expect) {
    expected.assert_eq(&shown(&emitted(settings, value).unwrap()));
}

fn check_refused(value: serde_json::Value, expected: &str) {
    let error = emitted("max_body = \"4B\"", value).unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Permanent);
    assert_eq!(error.message(), format!("effect 2 of stream `order-1` is not a valid request: {expected}"));
}

#[test]
fn c24_an_event_has_the_key_of_its_index() {
    check_events(
        "path = \"/o/{id}\"",
        "order-1",
        &[5, 6],
        expect![[r#"
        POST http://h/o/1
        idempotency-key: g/order-1:5
        content-type: application/json
        {"stream":"order-1","index":5,"type":"T"}
        POST http://h/o/1
        idempotency-key: g/order-1:6
        content-type: application/json
        {"stream":"order-1","index":6,"type":"T"}
    "#]],
    );
}

#[test]
fn c24_a_span_has_the_key_of_its_first_and_next_index() {
    check_events(
        "per = \"span\"\nmethod = \"PUT\"",
        "order-1",
        &[5, 6, 8],
        expect![[r#"
        PUT http://h/
        idempotency-key: g/order-1:5-7
        content-type: application/json
        {"s":"order-1","i":5,"e":[{"c":"T","d":null},{"c":"T","d":null}]}
        PUT http://h/
        idempotency-key: g/order-1:8-9
        content-type: application/json
        {"s":"order-1","i":8,"e":[{"c":"T","d":null}]}
    "#]],
    );
}

#[test]
fn c24_different_streams_have_different_keys() {
    let keys = ["a-é", "a-%C3%A9", "a-\u{1}", "a b"].map(|stream| key_value(&format!("g/{stream}:1")));
    assert_eq!(keys, ["g/a-%C3%A9:1", "g/a-%25C3%25A9:1", "g/a-%01:1", "g/a b:1"]);
}

#[test]
fn headers_and_credentials_go_with_every_request() {
    let settings = "headers = { X-Key = \"k\", content-type = \"application/cloudevents+json\" }\n\
                    auth = { basic = { user = \"Aladdin\", password = \"open sesame\" } }";
    check_events(
        settings,
        "order-1",
        &[5],
        expect![[r#"
        POST http://h/
        x-key: k
        content-type: application/cloudevents+json
        authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==
        idempotency-key: g/order-1:5
        {"stream":"order-1","index":5,"type":"T"}
    "#]],
    );
    let maker = maker(settings).unwrap();
    assert!(!format!("{maker:?}").contains("QWxhZG"), "{maker:?}");
}

#[test]
fn headers_that_cannot_be_sent_are_refused_without_showing_them() {
    for (settings, why) in [
        ("headers = { \"a b\" = \"x\" }", "`a b` is not a valid header name"),
        (
            "headers = { a = \"secret\\n\" }",
            "the value of `a` has characters that a header cannot hold, such as a line end",
        ),
        ("headers = { Host = \"x\" }", "the header `host` cannot be set by a pipeline"),
        ("auth = { bearer = \"secret\\n\" }", "`auth` has characters that a header cannot hold, such as a line end"),
        (
            "auth = { bearer = \"x\" }\nheaders = { Authorization = \"y\" }",
            "both `auth` and `headers` set `Authorization`",
        ),
        ("method = \"A B\"", "`method` must be a word in capital letters, such as \"POST\""),
    ] {
        let error = maker(settings).unwrap_err();
        assert_eq!(error.to_string(), why);
        assert!(!format!("{error:#}").contains("secret"));
    }
}

#[test]
fn an_effect_sets_the_parts_of_its_request() {
    check_emitted(
        "",
        serde_json::json!({ "body": { "b": 1, "a": [null] } }),
        expect![[r#"
        POST http://h/
        idempotency-key: g/order-1:5-6#2
        content-type: application/json
        {"a":[null],"b":1}
    "#]],
    );
    check_emitted(
        "headers = { x = \"1\" }\npath = \"/o/{id}\"",
        serde_json::json!({ "body": "hi", "path": "/p?q=1", "method": "PATCH", "headers": { "X": 2, "Idempotency-Key": "own" } }),
        expect![[r#"
            PATCH http://h/p?q=1
            x: 2
            idempotency-key: own
            content-type: text/plain; charset=utf-8
            hi
        "#]],
    );
    check_emitted(
        "path = \"/o/{id}\"",
        serde_json::json!({ "method": "DELETE" }),
        expect![[r#"
        DELETE http://h/o/1
        idempotency-key: g/order-1:5-6#2

    "#]],
    );
}

#[test]
fn c24_the_key_of_an_effect_of_one_event_names_that_event() {
    let mut events = events("order-1", &[5, 6]);
    for minor in [1, 2] {
        let unfold = Assembler::new("order-1", "Snapshot").build(Kind::Unfold, Ordinal::new(9, minor), 7);
        events.push(unfold.unwrap());
    }
    let request = || Value::Map(Vec::new());
    let effects = Emitted::by_event((0..6).map(|_| request()).collect(), Ends::from_slice(&[2, 3, 4, 6]));
    let decided = decided(events, 7, effects);
    let maker = maker("").unwrap();
    let keys: Vec<_> = (0..6)
        .map(|number| {
            let made = maker.emitted(&decided, number, &request()).unwrap();
            made.headers["idempotency-key"].to_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(keys, ["5#0", "5#1", "6#0", "7u9.1#0", "7u9.2#1", "7u9.2#2"].map(|key| format!("g/order-1:{key}")));
    let error = maker.emitted(&decided, 2, &Value::Null).unwrap_err();
    assert_eq!(error.index(), Some(6), "{error}");
    let error = maker.emitted(&decided, 3, &Value::Null).unwrap_err();
    assert_eq!(error.index(), None, "an unfold has no index of its own: {error}");
}

#[test]
fn an_effect_that_is_not_a_valid_request_is_permanent() {
    use serde_json::json;
    check_refused(json!("hi"), "it is a string, not a map with `body`, `path`, `method`, `headers`");
    check_refused(json!({ "bdy": 1 }), "unknown key `bdy`, expected `body`, `path`, `method` or `headers`");
    check_refused(json!({ "path": 1 }), "its `path` is an integer");
    check_refused(json!({ "path": "x" }), "the path `x` does not begin with a slash");
    check_refused(
        json!({ "headers": { "a": "\n" } }),
        "the value of `a` has characters that a header cannot hold, such as a line end",
    );
    check_refused(
        json!({ "headers": { "Content-Length": 1 } }),
        "the header `content-length` cannot be set by a pipeline",
    );
    check_refused(json!({ "body": "12345" }), "POST h: the body of 5 bytes is larger than `max_body`, 4 bytes");
}

#[test]
fn x6_an_emitted_method_is_in_capital_letters_like_the_configured_one() {
    use serde_json::json;
    for method in ["post", "A B", ""] {
        let why = format!("its `method` is `{method}`, not a word in capital letters such as \"POST\"");
        check_refused(json!({ "method": method }), &why);
        let refused = maker(&format!("method = \"{method}\"")).unwrap_err();
        assert_eq!(refused.to_string(), "`method` must be a word in capital letters, such as \"POST\"");
    }
}

#[test]
fn l13_a_number_that_json_cannot_hold_is_refused_and_named() {
    let nested = Value::List(vec![Value::Int(1), Value::Map(vec![("avg".into(), Value::Float(f64::NAN))])]);
    let body = Value::Map(vec![("body".into(), nested)]);
    let error = check_effects("till-1", &[body]).unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Permanent);
    assert_eq!(
        error.message(),
        "effect 0 of stream `till-1` is not a valid request: `body.1.avg` is `NaN`, which JSON cannot hold"
    );
    let header = Value::Map(vec![("headers".into(), Value::Map(vec![("X".into(), Value::Float(f64::INFINITY))]))]);
    assert!(
        check_effects("till-1", &[header])
            .unwrap_err()
            .message()
            .ends_with("`headers.X` is `inf`, which JSON cannot hold")
    );
}
