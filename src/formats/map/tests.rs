use proptest::prelude::*;

use super::*;

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

/// Returns a mapping of streams and types; `settings` adds the rest.
fn map(settings: &[(&str, &str)]) -> Map {
    let get = |key: &str| settings.iter().find(|(name, _)| *name == key).map(|(_, text)| *text);
    let selection = |key| get(key).map(|text| Selection::parse(text).unwrap());
    let when = settings.iter().filter(|(key, _)| *key == "when").map(|(_, text)| Condition::parse(text).unwrap());
    Map::new(Parts {
        each: get("each").map(|text| Pointer::parse(text).unwrap()),
        when: when.collect(),
        stream: template(get("stream").unwrap_or("issue-{/repo}-{/n}")),
        event_type: template(get("type").unwrap_or("/action|unknown")),
        index: selection("index"),
        time: get("time").map(template),
        id: get("id").map(template),
        correlation: get("correlation").map(template),
        causation: get("causation").map(template),
        data: selection("data"),
        meta: selection("meta"),
    })
}

/// `stream/index type time data meta`, or the error and its item.
fn show(result: Result<Event, Misfit>) -> String {
    match result {
        Ok(event) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let parts = [
                format!("{}/{}@{}", event.stream(), event.index(), event.at()),
                event.event_type().to_owned(),
                event.time_text().into_owned(),
                event.text(Text::Id).to_owned(),
                text(event.data()),
                text(event.meta()),
            ];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        }
        Err(Misfit { item, range, why }) => {
            let stream = why.stream().map(|stream| format!(" of {stream}")).unwrap_or_default();
            format!("({item} {range:?}{stream}: {why})")
        }
    }
}

fn results(map: &Map, record: &str) -> Vec<Result<Event, Misfit>> {
    let mut results = Vec::new();
    let record = Bytes::copy_from_slice(record.as_bytes());
    let place = |item| Ok(EventPlace { at: Ordinal::new(5, item), index: 7 + i64::from(item) });
    map.apply(&record, place, |result| results.push(result));
    results
}

fn check(settings: &[(&str, &str)], record: &str, expected: &[&str]) {
    let shown: Vec<_> = results(&map(settings), record).into_iter().map(show).collect();
    assert_eq!(shown, expected, "{record}");
}

#[test]
fn pointers_and_templates_make_an_event() {
    check(
        &[],
        r#" {"repo":"a/b","n":17,"action":"opened"} "#,
        &[r#"issue-a/b-17/7@5.0 opened {"repo":"a/b","n":17,"action":"opened"}"#],
    );
    check(
        &[("stream", "/s"), ("type", "Fixed"), ("index", "/v"), ("id", "/i|"), ("data", "/d"), ("meta", "/m|/x")],
        r#"{"s":"\u0061-1","v":"4","d":{ "x" : 1.50 },"m":null,"x":[true]}"#,
        &[r#"a-1/4@5.0 Fixed { "x" : 1.50 } [true]"#],
    );
    check(
        &[("stream", "{/a}{/b}{/c}x")],
        r#"{"a":true,"b":-1.0e5,"c":"é"}"#,
        &[r#"true-1.0e5éx/7@5.0 unknown {"a":true,"b":-1.0e5,"c":"é"}"#],
    );
}

#[test]
fn an_event_whose_texts_stand_in_the_record_shares_its_buffer() {
    let record = Bytes::from(r#"{"s":"a-1","t":"T","at":"2026-01-31T12:00:00Z","d":{"x":1}}"#);
    let shares = |settings: &[(&str, &str)]| {
        let mut shares = false;
        let place = |_| Ok(EventPlace { at: Ordinal::default(), index: 0 });
        map(settings).apply(&record, place, |event| {
            shares = record.as_ptr_range().contains(&event.unwrap().data().as_ptr());
        });
        shares
    };
    assert!(shares(&[("stream", "/s"), ("type", "/t"), ("time", "/at"), ("data", "/d")]));
    assert!(!shares(&[("stream", "x-{/s}"), ("type", "/t")]));
    assert!(!shares(&[("stream", "/s"), ("type", "constant")]));
}

#[test]
fn a_record_that_does_not_fit_names_the_pointer() {
    check(&[], r#"{"repo":"a"}"#, &["(0 0..12: `stream` needs `/n`, which the record lacks)"]);
    check(&[], r#"{"repo":null,"n":1}"#, &["(0 0..19: `stream` needs `/repo`, which is null)"]);
    check(&[], r#"{"repo":"","n":1}"#, &["(0 0..17: `stream` needs `/repo`, which is empty)"]);
    check(&[], r#"{"repo":{},"n":1}"#, &["(0 0..17: `stream` needs text at `/repo`, which is an object at byte 9)"]);
    check(&[], r#"{"repo":"a","n":1"#, &["(0 0..17: expected `,` or `}` at byte 18)"]);
    check(
        &[],
        "[]",
        &[
            "(0 0..2: `stream` needs `/repo`, which the record lacks (the record is an array: `each = \"\"` takes its items))",
        ],
    );
    let fits = r#"{"repo":"a","n":1,"v":-1,"at":"noon"}"#;
    check(
        &[("data", "/d|/e")],
        fits,
        &["(0 0..37 of issue-a-1: `data` needs `/d` or `/e`, and the record has none of them)"],
    );
    check(&[("type", "/t")], fits, &["(0 0..37 of issue-a-1: `type` needs `/t`, which the record lacks)"]);
    check(&[("index", "/v")], fits, &["(0 0..37 of issue-a-1: `index` needs an integer of at least 0, not `-1`)"]);
    check(&[("time", "/at")], fits, &["(0 0..37 of issue-a-1: `time` cannot be read: `noon`)"]);
    check(
        &[("stream", "/s")],
        r#"{"s":"\ud800"}"#,
        &["(0 0..14: `stream` needs text at `/s`, which is a string that cannot be decoded at byte 6)"],
    );
}

#[test]
fn times_are_read_from_text_and_numbers() {
    let time = |value: &str, expected: &str| {
        let record = format!(r#"{{"at":{value}}}"#);
        let expected = format!("s/7@5.0 unknown {expected} {record}");
        check(&[("stream", "s"), ("time", "/at")], &record, &[&expected]);
    };
    time("1769860800250", "2026-01-31T12:00:00.25Z");
    time("\"2026-01-31 12:00:00\"", "2026-01-31T12:00:00Z");
    time("\"2026-01-31T12:00:00+01:00\"", "2026-01-31T12:00:00+01:00");
    check(&[("stream", "s"), ("time", "{/at|}")], "{}", &["s/7@5.0 unknown {}"]);
    check(
        &[("stream", "s"), ("time", "{/d}T{/t}Z")],
        r#"{"d":"2026-01-31","t":"12:00:00"}"#,
        &[r#"s/7@5.0 unknown 2026-01-31T12:00:00Z {"d":"2026-01-31","t":"12:00:00"}"#],
    );
}

#[test]
fn conditions_choose_records() {
    let holds = |condition: &str, record: &str| {
        !results(&map(&[("stream", "s"), ("when", condition), ("when", "/on")]), record).is_empty()
    };
    assert!(holds("/a", r#"{"on":1,"a":false}"#) && !holds("/a", r#"{"on":1,"a":null}"#));
    assert!(!holds("!/a", r#"{"on":1,"a":{}}"#) && holds("!/a", r#"{"on":1}"#));
    assert!(holds("/a = x | 2", r#"{"on":1,"a":2}"#) && !holds("/a = x", r#"{"on":1,"a":"y"}"#));
    assert!(holds("/a = true", r#"{"on":1,"a":true}"#) && !holds("/a = x", r#"{"on":1}"#));
    assert!(holds("/a != x", r#"{"on":1,"a":"y"}"#) && !holds("/a != x", r#"{"on":1,"a":"x"}"#));
    assert!(holds("/a != x", r#"{"on":1}"#) && holds("/a != x", r#"{"on":1,"a":[]}"#));
    assert!(!holds("/a", r#"{"a":1}"#), "every condition must hold");
}

#[test]
fn each_item_of_an_array_is_an_event_of_its_own() {
    let settings = [("each", "/list"), ("stream", "{^/name}-{/n}"), ("type", "T"), ("when", "/n != 9")];
    check(
        &settings,
        r#"{"list":[{"n":1},{"n":9},{"m":1}, {"n":2}],"name":"a"}"#,
        &[
            r#"a-1/7@5.0 T {"n":1}"#,
            "(2 25..32: item 3 of `/list`: `stream` needs `/n`, which the record lacks)",
            r#"a-2/10@5.3 T {"n":2}"#,
        ],
    );
    check(&settings, r#"{"name":"a"}"#, &["(0 0..12: `each` needs `/list`, which the record lacks)"]);
    check(&settings, r#"{"list":{}}"#, &["(0 0..11: `each` needs an array at `/list`, which is an object at byte 9)"]);
    check(&[("each", "/list"), ("stream", "s"), ("when", "^/list")], r#"{"other":1}"#, &[]);
    check(
        &[("each", ""), ("stream", "/s")],
        r#"[{"s":"a"},{"s":"b"}]"#,
        &[r#"a/7@5.0 unknown {"s":"a"}"#, r#"b/8@5.1 unknown {"s":"b"}"#],
    );
    check(
        &[("each", ""), ("stream", "s-{/}"), ("data", "^/1")],
        "[[],2]",
        &[
            "(0 1..3: item 1: `stream` needs `/`, which the record lacks (the record is an array: `each = \"\"` takes its items))",
            "(1 4..5: item 2: `stream` needs `/`, which the record lacks)",
        ],
    );
}

proptest! {
    /// Whatever a record is, an event is made of it or a misfit, and no event differs from the record.
    #[test]
    fn the_body_is_the_record_byte_for_byte(text in r#"\{("[st\\u00e9]{1,2}":("[a\\"é]{0,3}"|[0-9]{1,2}|\[1?\]|null|\{\}),?){0,4}\}"#) {
        let valid = serde_json::from_str::<serde_json::Value>(&text);
        for result in results(&map(&[("stream", "/s|x"), ("type", "/t|y")]), &text) {
            match result {
                Ok(event) => prop_assert_eq!(event.data(), text.as_bytes()),
                Err(misfit) => {
                    let why = misfit.why.to_string();
                    prop_assert!(valid.is_err() || why.contains("needs text") || why.contains("same key"), "{}: {}", text, why);
                }
            }
        }
    }
}
