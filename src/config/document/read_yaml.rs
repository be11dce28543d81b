//! Parses YAML into a tree.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, MessageFormatter as _, Spanned, UserMessageFormatter};

use super::node::{Entry, Kind, Node, Span, SyntaxError};

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        // `no`, `on` and `off` are text in YAML 1.2.
        strict_booleans: true,
        with_snippet: false,
        // A pipeline file has tens of values. A file above these limits is an accident or an attack.
        budget: serde_saphyr::budget! { max_depth: 64, max_nodes: 20_000, max_events: 60_000, max_aliases: 1_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 20_000, max_replay_stack_depth: 8 },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => node(text, raw),
        Err(error) => Err(syntax_error(text, error.without_snippet())),
    }
}

/// A value from the parser.
enum Raw {
    Leaf(Kind),
    List(Vec<Spanned<Raw>>),
    Table(Vec<(Spanned<Key>, Spanned<Raw>)>),
}

fn node(text: &str, raw: Spanned<Raw>) -> Result<Node, SyntaxError> {
    let span = span_of(&raw.referenced);
    let kind = match raw.value {
        Raw::Leaf(kind @ (Kind::Int(_) | Kind::Float(_))) => number(text, span_of(&raw.defined), kind)?,
        Raw::Leaf(kind) => kind,
        Raw::List(items) => Kind::List(items.into_iter().map(|item| node(text, item)).collect::<Result<_, _>>()?),
        Raw::Table(entries) => Kind::Table(
            entries
                .into_iter()
                .map(|(key, value)| {
                    Ok(Entry { key_span: span_of(&key.referenced), key: key.value.0.into(), value: node(text, value)? })
                })
                .collect::<Result<_, _>>()?,
        ),
    };
    Ok(Node { span, kind })
}

/// Returns a number as YAML 1.2 defines it. The parser also takes `1_000` for a number, and `007` for the float 7.0.
fn number(text: &str, span: Span, kind: Kind) -> Result<Kind, SyntaxError> {
    let written = text.get(span.clone()).unwrap_or_default();
    if written.contains('_') {
        return Ok(Kind::Text(written.into()));
    }
    let digits = written.trim_start_matches(['+', '-']);
    let is_padded = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_padded {
        return Ok(kind);
    }
    // An integer in YAML 1.2, octal in YAML 1.1, and probably a code whose zeros matter, such as a postcode (X5).
    let plain = digits.trim_start_matches('0');
    let help = format!(
        "write `\"{written}\"` for text, or the number without leading zeros: `{}`",
        match plain {
            "" => "0",
            plain => plain,
        }
    );
    let message = "a number with leading zeros is ambiguous".to_owned();
    Err(SyntaxError { message, span: Some(span), help: Some(help) })
}

fn span_of(location: &Location) -> Span {
    let start = location.span().byte_offset().unwrap_or(0) as usize;
    start..start + location.span().byte_len().unwrap_or(0) as usize
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Leaf(Kind::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Leaf(Kind::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Leaf(Kind::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Kind::Int(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Kind::Int(value.into())))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Leaf(Kind::Int(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Kind::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Leaf(Kind::Text(value.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(Raw::Table(table))
    }
}

/// A key as text, also if YAML gives it another type: `null:` is the name of a sink.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_unit<E>(self) -> Result<Key, E> {
        Ok(Key("null".to_owned()))
    }

    fn visit_none<E>(self) -> Result<Key, E> {
        Ok(Key("null".to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Key, E> {
        Ok(Key(value.to_owned()))
    }
}

fn syntax_error(text: &str, error: &serde_saphyr::Error) -> SyntaxError {
    use serde_saphyr::Error;
    let (message, help) = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("duplicate key `{key}`"), Some("every key is written once; join the two"))
        }
        Error::MultipleDocuments { .. } => {
            ("the file has more than one document".to_owned(), Some("write the other into a file of its own"))
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            ("the document is too large or nested too deeply after its aliases are expanded".to_owned(), None)
        }
        Error::AliasError { error, .. } => return syntax_error(text, error),
        Error::UnknownAnchor { .. } => ("unknown anchor".to_owned(), Some("put text that begins with `*` in quotes")),
        error => reworded(UserMessageFormatter.format_message(error).into_owned()),
    };
    let span = error.location().map(|location| match location.span().byte_offset() {
        Some(_) => span_of(&location),
        None => offset_of(text, location.line(), location.column()),
    });
    let help = help.or_else(|| tab_help(text, span.as_ref()));
    SyntaxError { message, span, help: help.map(str::to_owned) }
}

/// Replaces messages of the parser that name productions of the grammar.
fn reworded(message: String) -> (String, Option<&'static str>) {
    let (ours, help) = match message.as_str() {
        m if m.starts_with("unexpected character") => {
            ("text cannot begin with this character", Some("put the text in quotes"))
        }
        m if m.starts_with("mapping values are not allowed") => {
            ("unexpected `:`", Some("put text that contains a `:` and a space in quotes"))
        }
        m if m.contains("did not find expected key") => {
            ("the indentation matches no line above", Some("start the keys of one table in the same column"))
        }
        m if m.starts_with("tabs disallowed") => ("unexpected tab", None),
        m if m.starts_with("did not find expected <document start>") => ("this is not YAML", None),
        m if m.starts_with("unclosed bracket '{'") => ("this `{` is never closed", None),
        m if m.starts_with("unclosed bracket '['") => ("this `[` is never closed", None),
        m if m.starts_with("recursion limit") => ("the document is nested too deeply", None),
        _ => return (message, None),
    };
    (ours.to_owned(), help)
}

/// Returns the byte offset of a line and column: errors of the scanner have no offset.
fn offset_of(text: &str, line: u64, column: u64) -> Span {
    let number = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let line_start: usize = text.split_inclusive('\n').take(number(line)).map(str::len).sum();
    let before = text[line_start..].chars().take_while(|c| *c != '\n').take(number(column));
    let start = line_start + before.map(char::len_utf8).sum::<usize>();
    start..start
}

fn tab_help(text: &str, span: Option<&Span>) -> Option<&'static str> {
    let start = span?.start.min(text.len());
    let line_start = text.get(..start)?.rfind('\n').map_or(0, |at| at + 1);
    let indentation = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let line = text[line_start..].lines().next()?;
    line[..indentation(line)].contains('\t').then_some("YAML is indented by spaces, never by tabs")
}
