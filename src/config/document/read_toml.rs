//! Parses TOML into a tree.

use std::num::IntErrorKind;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::node::{Entry, Kind, Node, Span, SyntaxError};

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let table = DeTable::parse(text).map_err(|error| syntax_error(text, &error))?;
    let span = table.span();
    Ok(Node { span, kind: table_of(table.into_inner())? })
}

fn table_of(table: DeTable<'_>) -> Result<Kind, SyntaxError> {
    let mut entries = table
        .into_iter()
        .map(|(key, value)| {
            let key_span = key.span();
            Ok(Entry { key: key.into_inner().into(), key_span, value: node(value)? })
        })
        .collect::<Result<Vec<_>, SyntaxError>>()?;
    // The parser sorts by name. Problems are reported in the order of the file.
    entries.sort_by_key(|entry| entry.key_span.start);
    Ok(Kind::Table(entries))
}

fn node(value: Spanned<DeValue<'_>>) -> Result<Node, SyntaxError> {
    let span = value.span();
    let kind = match value.into_inner() {
        DeValue::String(text) => Kind::Text(text.into()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Kind::Int(number),
            Err(error) if *error.kind() == IntErrorKind::Empty => return Err(no_number(span)),
            Err(_) => return Err(too_large(span)),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Kind::Float(number),
            Err(_) => return Err(too_large(span)),
        },
        DeValue::Boolean(value) => Kind::Bool(value),
        DeValue::Datetime(date) => Kind::Date(date.to_string().into()),
        DeValue::Array(items) => Kind::List(items.into_iter().map(node).collect::<Result<_, _>>()?),
        DeValue::Table(table) => table_of(table)?,
    };
    Ok(Node { span, kind })
}

fn no_number(span: Span) -> SyntaxError {
    SyntaxError { message: "the number has no digits".to_owned(), span: Some(span), help: None }
}

fn too_large(span: Span) -> SyntaxError {
    SyntaxError { message: "the number is out of range".to_owned(), span: Some(span), help: None }
}

fn syntax_error(text: &str, error: &toml::de::Error) -> SyntaxError {
    let span = error.span();
    let marked = span.clone().and_then(|span| text.get(span)).unwrap_or_default();
    let (message, help) = match error.message() {
        "duplicate key" => (format!("duplicate key `{marked}`"), Some("every key and every table is written once")),
        message => reworded(message, marked),
    };
    SyntaxError { message, span, help: help.map(str::to_owned) }
}

/// Replaces messages of the parser that speak of the grammar. `marked` is the text that the message is about.
fn reworded(message: &str, marked: &str) -> (String, Option<&'static str>) {
    let (ours, help) = match message {
        "string values must be quoted, expected literal string" => {
            let is_curly = marked.starts_with(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']);
            ("text needs quotes", is_curly.then_some("these are typographic quotes: write `\"`"))
        }
        "key with no value, expected `=`" => ("expected `=` and a value after the key", None),
        m if m.starts_with("invalid basic string, expected `\"`") => ("the text has no closing `\"`", None),
        m if m.starts_with("invalid literal string, expected `'`") => ("the text has no closing `'`", None),
        m if m.contains("unicode") || m.contains("escape") => (
            "TOML has no such escape",
            Some("in `\"…\"` a `\\` begins an escape: write `\\\\`, or put the text between `'…'`"),
        ),
        m if m.starts_with("unexpected key or value") => ("expected the end of the line", Some("begin a new line")),
        m if m.starts_with("unclosed table") => ("the name of the table has no closing `]`", None),
        m if m.starts_with("cannot recurse") || m.starts_with("recursion limit") => {
            ("the document is nested too deeply", None)
        }
        message => return (message.to_owned(), None),
    };
    (ours.to_owned(), help)
}
