//! Rows of comma-separated values (RFC 4180).

use crate::formats::jsonlines::BadLine;

/// The names of the columns, or the reason why they cannot be used.
#[derive(Clone, Debug)]
pub(super) struct Header(Result<Vec<Box<str>>, String>);

impl Header {
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut known: Vec<Box<str>> = Vec::new();
        for (number, name) in names.enumerate() {
            if name.is_empty() {
                return Self(Err(format!("column {} of the header has no name", number + 1)));
            }
            if known.iter().any(|known| **known == *name) {
                return Self(Err(format!("the header has the column `{name}` twice")));
            }
            known.push(name.into());
        }
        Self(Ok(known))
    }

    pub(super) fn bad(why: &str) -> Self {
        Self(Err(format!("the header cannot be read: {why}")))
    }

    /// Returns a row as a JSON object.
    pub(super) fn record(&self, fields: &[String]) -> Result<Vec<u8>, BadLine> {
        let names = self.0.as_ref().map_err(|why| BadLine::new(why.clone()))?;
        if names.len() != fields.len() {
            let why = format!("expected {} fields, as the header has, not {}", names.len(), fields.len());
            return Err(BadLine::new(why));
        }
        let mut json = vec![b'{'];
        for (number, (name, field)) in names.iter().zip(fields).enumerate() {
            if number > 0 {
                json.push(b',');
            }
            append(name, &mut json);
            json.push(b':');
            append(field, &mut json);
        }
        json.push(b'}');
        Ok(json)
    }
}

fn append(text: &str, json: &mut Vec<u8>) {
    serde_json::to_writer(json, text).expect("any text can be written into memory as JSON");
}

/// Splits a row into its fields. A quote within an unquoted field is text, as spreadsheets take it.
pub(super) fn fields(row: &str, delimiter: u8) -> Result<Vec<String>, BadLine> {
    let mut fields = Vec::new();
    let mut rest = row;
    loop {
        let field = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (field, after) = unquote(quoted).ok_or_else(|| BadLine::new("expected a closing quote"))?;
                rest = after;
                field
            }
            None => {
                let end = memchr::memchr(delimiter, rest.as_bytes()).unwrap_or(rest.len());
                let field = rest[..end].to_owned();
                rest = &rest[end..];
                field
            }
        };
        fields.push(field);
        match rest.as_bytes().first() {
            None => return Ok(fields),
            Some(byte) if *byte == delimiter => rest = &rest[1..],
            Some(_) => {
                return Err(BadLine::new("expected a separator behind the closing quote").at(row.len() - rest.len()));
            }
        }
    }
}

/// Returns a quoted field, from behind its first quote on, and the text behind its last quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        // Two quotes stand for one.
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, after)),
        }
    }
}
