use proptest::prelude::*;

use super::*;

fn check(text: &str, expected: Result<Shape, (usize, &str)>) {
    let found = one_value(text.as_bytes()).map(|token| token.shape).map_err(|bad| (bad.at, bad.why));
    assert_eq!(found, expected, "{text}");
}

#[test]
fn a_value_has_its_shape() {
    check("\"a\"", Ok(Shape::Plain));
    check("\"é and much more text\"", Ok(Shape::Plain));
    check("\"\\u00e9\\n\\ud83d\\ude00\"", Ok(Shape::Escaped));
    check(" -0.5e+7 ", Ok(Shape::Number));
    check("[]", Ok(Shape::Array));
    check("[ 1 , [ ] , {} , { \"a\" : [ true , false , null ] } ]", Ok(Shape::Array));
    check("{\"a\":{\"b\":[{\"c\":{}}]},\"d\":1}", Ok(Shape::Object));
}

#[test]
fn x6_a_lone_surrogate_is_part_of_a_string() {
    for text in [r#""\ud83d""#, r#""\ud83d \ude00""#, r#"{"\udc00":["\ud83d\ud83d"]}"#] {
        assert!(one_value(text.as_bytes()).is_ok(), "{text}");
    }
}

#[test]
fn an_error_names_its_byte() {
    check("", Err((0, "expected a value")));
    check("nul", Err((0, "expected a value")));
    check("01", Err((1, "expected nothing more")));
    check("1.", Err((2, "expected a digit after the decimal point")));
    check("[1,]", Err((3, "expected a value")));
    check("[1}", Err((2, "expected `,` or `]`")));
    check("{\"a\":1,}", Err((7, "expected a key in quotes")));
    check("{\"a\" 1}", Err((5, "expected `:` after a key")));
    check("{\"a\":1]", Err((6, "expected `,` or `}`")));
    check("{\"a\":1", Err((6, "expected `,` or `}`")));
    check("\"abc", Err((4, "expected `\"` at the end of a string")));
    check("\"a\tb\"", Err((2, "expected no control character in a string")));
    check("\"\\x\"", Err((2, "expected an escape that JSON has")));
    check("\"\\ud80\"", Err((6, "expected four hexadecimal digits")));
    let not_utf8 = one_value(b"\"ab\xff\"").unwrap_err();
    assert_eq!((not_utf8.at, not_utf8.why), (3, "expected UTF-8"));
}

#[test]
fn nesting_is_bounded_where_serde_json_still_decodes() {
    let nested = |depth: usize| "[".repeat(depth) + &*"]".repeat(depth);
    assert!(one_value(nested(127).as_bytes()).is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(&nested(127)).is_ok());
    assert!(one_value(nested(128).as_bytes()).is_err());
    assert!(one_value("[".repeat(1_000_000).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn every_text_is_judged_as_serde_json_judges_it(text in r#"[\[\]{}",:0-9a-b\\ue.+\- \t]{0,12}|[\[{"]\PC{0,24}[\]}"]"#) {
        let theirs = match serde_json::from_str::<serde_json::Value>(&text) {
            Err(error) if error.to_string().starts_with("number out of range") => return Ok(()),
            theirs => theirs,
        };
        prop_assert_eq!(one_value(text.as_bytes()).is_ok(), theirs.is_ok(), "{}", text);
    }

    #[test]
    fn every_byte_of_a_value_matters_as_much_as_it_does_to_serde_json(at in 0_usize..90, byte: u8) {
        let mut text = br#"{"a":[1,-2.5e3,true,null,"long enough to be passed by words"],"b":{"c":"\u00e9\n"},"d":{}} "#.to_vec();
        text[at] = byte;
        let theirs = serde_json::from_slice::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(one_value(&text).is_ok(), theirs, "{}", String::from_utf8_lossy(&text));
    }
}
