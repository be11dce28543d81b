//! The locations of the parts of a JSON value, for readers that convert a value piece by piece.

use std::ops::Range;

use super::BadLine;
use super::scan::{self, Bad, Scanner, Strings};

/// The location of a field in the text of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPlace {
    key: (u32, u32),
    value: (u32, u32),
    escaped: bool,
}

impl FieldPlace {
    /// Returns the location of the key, without its quotes.
    pub fn key(self) -> Range<usize> {
        self.key.0 as usize..self.key.1 as usize
    }

    /// Returns whether the key has escapes.
    pub fn has_escapes(self) -> bool {
        self.escaped
    }

    /// Returns the location of the value.
    pub fn value(self) -> Range<usize> {
        self.value.0 as usize..self.value.1 as usize
    }
}

/// Returns the location of the only value of a text, without the white space around it.
///
/// # Errors
/// The text is not exactly one JSON value.
pub fn value(text: &[u8]) -> Result<Range<usize>, BadLine> {
    Ok(scan::one_value(text)?.range())
}

/// Replaces `fields` with those of an object, in their order. Repeated keys stay.
///
/// # Errors
/// The text is not a JSON object. Nested values are checked too, and the text is then valid UTF-8.
pub fn object_fields(text: &[u8], fields: &mut Vec<FieldPlace>) -> Result<(), BadLine> {
    let field = |place| fields.push(place);
    let fast = Scanner::fast(text).and_then(|scanner| scan_object(scanner, field));
    if fast.is_ok() {
        return Ok(());
    }
    fields.clear();
    Ok(scan_object(Scanner::new(text)?, |place| fields.push(place))?)
}

/// Returns the locations of the items of an array.
///
/// # Errors
/// Same as [`object_fields`].
pub fn array_items(text: &[u8]) -> Result<Vec<Range<usize>>, BadLine> {
    let mut items = Vec::new();
    let mut scanner = Scanner::new(text)?;
    open(&mut scanner, b'[', "expected `[`")?;
    let mut more = !scanner.eat(b']');
    while more {
        items.push(scanner.value(1)?.range());
        more = scanner.goes_on(b']', "expected `,` or `]`")?;
    }
    scanner.end()?;
    Ok(items)
}

#[inline(always)]
fn scan_object<S: Strings>(mut scanner: Scanner<'_, S>, mut field: impl FnMut(FieldPlace)) -> Result<(), Bad> {
    open(&mut scanner, b'{', "expected `{`")?;
    let mut more = !scanner.eat(b'}');
    while more {
        let (key, escaped) = scanner.key()?;
        let value = scanner.value(1)?;
        field(FieldPlace { key: (key.start as u32, key.end as u32), value: (value.start, value.end), escaped });
        more = scanner.goes_on(b'}', "expected `,` or `}`")?;
    }
    scanner.end()
}

fn open<S: Strings>(scanner: &mut Scanner<'_, S>, bracket: u8, why: &'static str) -> Result<(), Bad> {
    scanner.space();
    scanner.expect(bracket, why)?;
    scanner.space();
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<&[(&str, &str)], &str>) {
        let mut fields = Vec::new();
        let found = object_fields(text.as_bytes(), &mut fields).map_err(|bad| bad.to_string());
        let parts: Vec<_> = fields.iter().map(|field| (&text[field.key()], &text[field.value()])).collect();
        assert_eq!(found.as_ref().map(|()| &*parts).map_err(String::as_str), expected, "{text}");
    }

    #[test]
    fn an_object_is_its_fields_in_their_order() {
        check("{}", Ok(&[]));
        check(r#" { "a" : 1 , "b":[{"c":2}], "a":"x" } "#, Ok(&[("a", "1"), ("b", r#"[{"c":2}]"#), ("a", r#""x""#)]));
        check(r#"{"a":"\n","b\u00e9":null}"#, Ok(&[("a", r#""\n""#), (r"b\u00e9", "null")]));
        check(r#"{"a":1"#, Err("expected `,` or `}` at byte 7"));
        check(r#"{"a":1,}"#, Err("expected a key in quotes at byte 8"));
        check(r#"{"a":[}}"#, Err("expected a value at byte 7"));
        check(r#"{"a":1} {"#, Err("expected nothing more at byte 9"));
        check("[]", Err("expected `{` at byte 1"));
    }

    #[test]
    fn an_array_is_its_items_in_their_order() {
        let items = |text: &str| {
            let items = array_items(text.as_bytes()).map_err(|bad| bad.to_string());
            items.map(|items| items.into_iter().map(|item| text[item].to_owned()).collect::<Vec<_>>().join("|"))
        };
        assert_eq!(items(" [ ] "), Ok(String::new()));
        assert_eq!(items(r#"[1, "a\"]" ,[2,3]]"#), Ok(r#"1|"a\"]"|[2,3]"#.to_owned()));
        assert_eq!(items("[1,]"), Err("expected a value at byte 4".to_owned()));
        assert_eq!(items("[1"), Err("expected `,` or `]` at byte 3".to_owned()));
    }

    proptest! {
        #[test]
        fn an_object_is_read_as_serde_json_reads_it(text in r#"\{("[a-c\\n]{0,2}":("[x\\"é]{0,3}"|[0-9.e]{1,3}|\[1?\]|null|\{\}),?){0,3}\}"#) {
            let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
            let mut fields = Vec::new();
            let ours = object_fields(text.as_bytes(), &mut fields);
            if theirs.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")) {
                return Ok(());
            }
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}", text);
            for (key, value) in theirs.iter().flatten() {
                let unquoted = |field: &FieldPlace| serde_json::from_str::<String>(&text[field.key().start - 1..=field.key().end]).unwrap();
                let field = fields.iter().rev().find(|field| unquoted(field) == *key).unwrap();
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&text[field.value()]).unwrap(), value);
            }
        }
    }
}
