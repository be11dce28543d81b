//! TOML to tree.

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
    // The parser sorts by name; problems are told in the order of the file.
    entries.sort_by_key(|entry| entry.key_span.start);
    Ok(Kind::Table(entries))
}

fn node(value: Spanned<DeValue<'_>>) -> Result<Node, SyntaxError> {
    let span = value.span();
    let kind = match value.into_inner() {
        DeValue::String(text) => Kind::Text(text.into()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Kind::Int(number),
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

fn too_large(span: Span) -> SyntaxError {
    SyntaxError { message: "the number is out of range".to_owned(), span: Some(span), help: None }
}

fn syntax_error(text: &str, error: &toml::de::Error) -> SyntaxError {
    let span = error.span();
    let marked = span.clone().and_then(|span| text.get(span)).unwrap_or_default();
    let (message, help) = match error.message() {
        "duplicate key" => (format!("`{marked}` is written twice"), Some("every key and every table is written once")),
        "string values must be quoted, expected literal string" => {
            let is_curly = marked.starts_with(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']);
            let help = is_curly.then_some("these are typographic quotes: write `\"`");
            ("text stands in quotes".to_owned(), help)
        }
        message if message.starts_with("cannot recurse") => {
            ("this is deeper nested than any pipeline is".to_owned(), None)
        }
        message => (message.to_owned(), None),
    };
    SyntaxError { message, span, help: help.map(str::to_owned) }
}
