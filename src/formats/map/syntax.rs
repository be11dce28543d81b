//! The text of a mapping: pointers, templates, selections and conditions.

use std::fmt;

/// The most keys of a pointer. Deeper values are rare, and the locator follows pointers by recursion.
const MAX_KEYS: usize = 32;

/// A JSON pointer (RFC 6901), such as `/issue/number`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    written: Box<str>,
    pub(super) root: Root,
    pub(super) keys: Vec<Box<str>>,
}

/// The value that a pointer starts at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// The item of an unrolled array, or else the record.
    Item,
    /// `^`: the record around an item.
    Around,
}

/// The error of an invalid pointer, template or condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSyntax {
    #[error("the value is empty")]
    Empty,
    #[error("expected a JSON pointer such as `/issue/number`, found `{0}`")]
    NoPointer(String),
    #[error("`{0}` has a stray `~`: write `~0` for `~` and `~1` for `/` in a key")]
    StrayTilde(String),
    #[error("`{0}` has more than {MAX_KEYS} keys")]
    TooDeep(String),
    #[error("`{0}` has an unmatched brace (write `{{{{` or `}}}}` for a literal one)")]
    UnmatchedBrace(String),
    #[error("the fallback `{0}` must come last")]
    EarlyFallback(String),
    #[error("expected ` = ` or ` != ` between a pointer and its values, found `{0}`")]
    NoOperator(String),
    #[error("a value is missing after `{0}`")]
    NoValue(String),
    #[error("`{0}` is not a JSON string")]
    BadString(String),
}

impl Pointer {
    /// Parses a pointer. The empty text is the whole record.
    pub fn parse(text: &str) -> Result<Self, BadSyntax> {
        let (root, path) = match text.strip_prefix('^') {
            Some(path) => (Root::Around, path),
            None => (Root::Item, text),
        };
        let mut keys = path.split('/');
        if keys.next() != Some("") {
            return Err(BadSyntax::NoPointer(text.to_owned()));
        }
        let keys: Option<Vec<Box<str>>> = keys.map(unescape).collect();
        let keys = keys.ok_or_else(|| BadSyntax::StrayTilde(text.to_owned()))?;
        if keys.len() > MAX_KEYS {
            return Err(BadSyntax::TooDeep(text.to_owned()));
        }
        Ok(Self { written: text.into(), root, keys })
    }

    /// Returns whether the pointer starts at the record around an item.
    pub fn is_around(&self) -> bool {
        self.root == Root::Around
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Decodes `~0` and `~1` in a key; `None` for any other `~`.
fn unescape(key: &str) -> Option<Box<str>> {
    let mut parts = key.split('~');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = part.split_at_checked(1)?;
        decoded.push(match escaped {
            "0" => '~',
            "1" => '/',
            _ => return None,
        });
        decoded.push_str(rest);
    }
    Some(decoded.into())
}

/// Returns whether a text begins like a pointer.
fn starts_pointer(text: &str) -> bool {
    text.starts_with('/') || text.starts_with("^/") || text == "^"
}

/// Text with values of the record: `issue-{/repository/full_name}-{/issue/number}`. A pointer alone needs no braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Box<str>),
    Place(Place),
}

/// A placeholder, `{/after/id|/before/id|unknown}`: the first pointer with a value counts, or else the fallback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pointers: Vec<Pointer>,
    pub(super) fallback: Option<Box<str>>,
}

impl Template {
    pub fn parse(text: &str) -> Result<Self, BadSyntax> {
        if text.is_empty() {
            return Err(BadSyntax::Empty);
        }
        if starts_pointer(text) {
            return Ok(Self { parts: vec![Part::Place(Place::parse(text)?)] });
        }
        let unmatched = || BadSyntax::UnmatchedBrace(text.to_owned());
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
                literal.push_str(&rest[..1]);
                rest = after;
                continue;
            }
            let (place, after) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).ok_or_else(unmatched)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Place(Place::parse(place)?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self { parts })
    }

    /// Returns whether a pointer starts at the record around an item.
    pub fn refers_around(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Literal(_) => false,
            Part::Place(place) => place.pointers.iter().any(Pointer::is_around),
        })
    }
}

impl Place {
    fn parse(text: &str) -> Result<Self, BadSyntax> {
        let mut pointers = Vec::new();
        let mut fallback: Option<&str> = None;
        for alternative in text.split('|') {
            if let Some(early) = fallback {
                return Err(BadSyntax::EarlyFallback(early.to_owned()));
            }
            if starts_pointer(alternative) || pointers.is_empty() {
                pointers.push(Pointer::parse(alternative)?);
                // The whole record is no text.
                if alternative.is_empty() {
                    return Err(BadSyntax::NoPointer(text.to_owned()));
                }
            } else {
                fallback = Some(alternative);
            }
        }
        Ok(Self { pointers, fallback: fallback.map(Into::into) })
    }
}

/// A part of the record as it is: `/data`, or the first of several that is there and not null: `/after|/before`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub(super) pointers: Vec<Pointer>,
}

impl Selection {
    pub fn parse(text: &str) -> Result<Self, BadSyntax> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let pointers = inner.split('|').map(Pointer::parse).collect::<Result<_, _>>()?;
        Ok(Self { pointers })
    }

    /// Returns whether a pointer starts at the record around an item.
    pub fn refers_around(&self) -> bool {
        self.pointers.iter().any(Pointer::is_around)
    }
}

/// A condition on a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub(super) pointer: Pointer,
    /// The values of which one is asked for. `None`: any value but null.
    pub(super) values: Option<Vec<Box<str>>>,
    pub(super) is_negated: bool,
}

impl Condition {
    /// Parses `/a`, `!/a`, `/a = x | y` or `/a != x | y`.
    pub fn parse(text: &str) -> Result<Self, BadSyntax> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BadSyntax::Empty);
        }
        let at = [" != ", " = "].iter().filter_map(|operator| Some((text.find(operator)?, operator))).min();
        let Some((at, operator)) = at else {
            let (is_negated, pointer) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
            let is_bare = !pointer.contains('=') && starts_pointer(pointer);
            return match is_bare {
                true => Ok(Self { pointer: Pointer::parse(pointer)?, values: None, is_negated }),
                false if pointer.contains('=') => Err(BadSyntax::NoOperator(text.to_owned())),
                false => Err(BadSyntax::NoPointer(pointer.to_owned())),
            };
        };
        let pointer = text[..at].trim_end();
        if !starts_pointer(pointer) {
            return Err(BadSyntax::NoPointer(pointer.to_owned()));
        }
        let values = values(&text[at + operator.len()..]).map_err(|bad| match bad {
            BadSyntax::Empty => BadSyntax::NoValue(text.to_owned()),
            other => other,
        })?;
        Ok(Self { pointer: Pointer::parse(pointer)?, values: Some(values), is_negated: *operator == " != " })
    }

    /// Returns whether the pointer starts at the record around an item.
    pub fn refers_around(&self) -> bool {
        self.pointer.is_around()
    }
}

/// Parses values separated by `|`. A value with special characters is a JSON string.
fn values(text: &str) -> Result<Vec<Box<str>>, BadSyntax> {
    let mut values: Vec<Box<str>> = Vec::new();
    let mut rest = text.trim();
    loop {
        if rest.starts_with('"') {
            let bad = || BadSyntax::BadString(rest.to_owned());
            let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            values.push(strings.next().and_then(Result::ok).ok_or_else(bad)?.into());
            let after = rest[strings.byte_offset()..].trim_start();
            if !after.is_empty() && !after.starts_with('|') {
                return Err(bad());
            }
            rest = after;
        } else {
            let end = rest.find('|').unwrap_or(rest.len());
            let value = rest[..end].trim();
            if value.is_empty() {
                return Err(BadSyntax::Empty);
            }
            values.push(value.into());
            rest = &rest[end..];
        }
        match rest.strip_prefix('|') {
            Some(after) => rest = after.trim_start(),
            None => return Ok(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_a_list_of_keys() {
        let keys = |text: &str| Pointer::parse(text).map(|pointer| pointer.keys.join(","));
        assert_eq!(keys("/a/0/b c"), Ok("a,0,b c".to_owned()));
        assert_eq!(keys("/a~1b/~0~01"), Ok("a/b,~~1".to_owned()));
        assert_eq!(keys(""), Ok(String::new()));
        assert!(Pointer::parse("^/a").unwrap().is_around() && Pointer::parse("^").unwrap().keys.is_empty());
        for bad in ["a", "a/b", "/a~", "/a~2", "/~é"] {
            assert!(keys(bad).is_err(), "{bad}");
        }
        assert!(keys(&"/a".repeat(33)).is_err());
    }

    #[test]
    fn a_template_is_literals_and_placeholders() {
        let place = |text: &str| Part::Place(Place::parse(text).unwrap());
        let literal = |text: &str| Part::Literal(text.into());
        let parts = |text: &str| Template::parse(text).unwrap().parts;
        assert_eq!(parts("issue-{/n}"), [literal("issue-"), place("/n")]);
        assert_eq!(parts("/a|/b|c"), [place("/a|/b|c")]);
        assert_eq!(parts("{{{/a|}}}"), [literal("{"), place("/a|"), literal("}")]);
        assert_eq!(parts("constant"), [literal("constant")]);
        for (bad, why) in [
            ("", "the value is empty"),
            ("{action}", "expected a JSON pointer such as `/issue/number`, found `action`"),
            ("{}", "expected a JSON pointer such as `/issue/number`, found ``"),
            ("a-{/b", "`a-{/b` has an unmatched brace (write `{{` or `}}` for a literal one)"),
            ("a}", "`a}` has an unmatched brace (write `{{` or `}}` for a literal one)"),
            ("{/a|x|/b}", "the fallback `x` must come last"),
        ] {
            assert_eq!(Template::parse(bad).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn a_condition_asks_for_presence_or_for_one_of_some_values() {
        let show = |text: &str| {
            Condition::parse(text).map(|condition| {
                let values = condition.values.map(|values| values.join(","));
                format!("{}{} {values:?}", if condition.is_negated { "!" } else { "" }, condition.pointer)
            })
        };
        assert_eq!(show("/a/b"), Ok("/a/b None".to_owned()));
        assert_eq!(show("!^/a"), Ok("!^/a None".to_owned()));
        assert_eq!(show("/a = x y | 2"), Ok(r#"/a Some("x y,2")"#.to_owned()));
        assert_eq!(show(r#"/a != "x|y" | "" "#), Ok(r#"!/a Some("x|y,")"#.to_owned()));
        for (bad, why) in [
            ("", "the value is empty"),
            ("a", "expected a JSON pointer such as `/issue/number`, found `a`"),
            ("a = b", "expected a JSON pointer such as `/issue/number`, found `a`"),
            ("/a=b", "expected ` = ` or ` != ` between a pointer and its values, found `/a=b`"),
            ("/a == b", "expected ` = ` or ` != ` between a pointer and its values, found `/a == b`"),
            ("/a = x |", "a value is missing after `/a = x |`"),
            ("/a = \"x", "`\"x` is not a JSON string"),
            ("/a = \"x\" y", "`\"x\" y` is not a JSON string"),
        ] {
            assert_eq!(show(bad).unwrap_err().to_string(), why);
        }
    }
}
