//! Records in a text: JSON values, rows of CSV, lines. Each becomes one JSON text, which a [`Map`](super::map::Map) reads.
//!
//! A record ends at the end of a line. A line break within a quoted field of CSV, or within a document, ends no record.

mod csv;
mod cutter;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::jsonlines::{BadLine, is_blank_or_comment, without_byte_order_mark};
use csv::Header;

pub use cutter::Cutter;

/// The form of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "RecordFormat")]
pub enum Format {
    /// A JSON value on each line. Blank lines and lines that start with `#` are passed.
    #[default]
    Json,
    /// JSON values over any number of lines, each on a new line: a file that is one object, or one array.
    Document,
    /// Rows of comma-separated values. The first row has the names of the columns. A row is the record
    /// `{"column": "value", …}`.
    Csv,
    /// Lines of text. A line is the record `{"line": "…"}`.
    Text,
}

/// The form of the records, with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFormat {
    pub format: Format,
    /// The separator of CSV.
    pub delimiter: u8,
    /// The columns of CSV without a header.
    pub columns: Vec<Box<str>>,
}

impl RecordFormat {
    /// Returns whether a record is the text of its lines, byte for byte.
    pub fn is_verbatim(&self) -> bool {
        matches!(self.format, Format::Json | Format::Document)
    }
}

/// The longest header of CSV. A reader that resumes in a file reads no more than this of its start.
pub const MAX_HEADER: usize = 1 << 20;

/// Turns the lines of one file into records.
#[derive(Clone, Debug)]
pub struct Converter {
    format: Format,
    delimiter: u8,
    header: Option<Header>,
}

impl Converter {
    pub fn new(format: &RecordFormat) -> Self {
        let header = (!format.columns.is_empty()).then(|| Header::new(format.columns.iter().map(|name| &**name)));
        Self { format: format.format, delimiter: format.delimiter, header }
    }

    /// Returns whether the next row is the header.
    pub fn awaits_header(&self) -> bool {
        self.format == Format::Csv && self.header.is_none()
    }

    /// Returns the record of some text between two ends of records; `None` if it is blank, a comment, or the header.
    pub fn convert(&mut self, text: Bytes) -> Result<Option<Bytes>, BadLine> {
        match self.format {
            Format::Json | Format::Document => Ok((!is_blank_or_comment(&text)).then_some(text)),
            _ if text.trim_ascii().is_empty() => Ok(None),
            Format::Text => {
                let line = serde_json::json!({ "line": utf8(&text)? });
                Ok(Some(line.to_string().into()))
            }
            Format::Csv => {
                let Some(header) = &self.header else {
                    // A bad header makes every row of the file malformed, because none has a meaning.
                    self.header = Some(self.read_header(&text).unwrap_or_else(|bad| Header::bad(&bad.to_string())));
                    return Ok(None);
                };
                Ok(Some(header.record(&csv::fields(utf8(&text)?, self.delimiter)?)?.into()))
            }
        }
    }

    fn read_header(&self, text: &[u8]) -> Result<Header, BadLine> {
        if text.len() > MAX_HEADER {
            return Err(BadLine::new("it is longer than 1 MiB"));
        }
        let names = csv::fields(utf8(text)?, self.delimiter)?;
        Ok(Header::new(names.iter().map(|name| name.trim())))
    }
}

fn utf8(text: &[u8]) -> Result<&str, BadLine> {
    std::str::from_utf8(text).map_err(|error| BadLine::new("expected UTF-8").at(error.valid_up_to()))
}

/// A record of a whole text.
#[derive(Debug)]
pub struct Record {
    /// The number of its first line, from 1 on.
    pub line: usize,
    /// The text as it was.
    pub raw: Bytes,
    /// The record as JSON, or the reason why there is none.
    pub json: Result<Bytes, BadLine>,
}

/// Returns the records of a whole text. A last line without a line break counts.
pub fn records(text: &Bytes, format: &RecordFormat) -> Vec<Record> {
    let text = text.slice_ref(without_byte_order_mark(text));
    let mut cutter = Cutter::new(format);
    let mut converter = Converter::new(format);
    let (mut start, mut line) = (0, 1);
    let mut records = Vec::new();
    while start < text.len() {
        let end = cutter.next_end(&text, start).unwrap_or(text.len());
        let raw = text.slice(start..end);
        let raw = raw.slice(..raw.strip_suffix(b"\r").unwrap_or(&raw).len());
        match converter.convert(raw.clone()) {
            Ok(Some(json)) => records.push(Record { line, raw, json: Ok(json) }),
            Ok(None) => {}
            Err(why) => records.push(Record { line, raw, json: Err(why) }),
        }
        line += 1 + memchr::memchr_iter(b'\n', &text[start..end]).count();
        start = end + 1;
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: Format, text: &str, expected: &[&str]) {
        let format = RecordFormat { format, delimiter: b',', columns: Vec::new() };
        let shown = records(&Bytes::copy_from_slice(text.as_bytes()), &format).into_iter().map(|record| {
            let json = record.json.map(|json| String::from_utf8(json.to_vec()).unwrap());
            format!("{} {}", record.line, json.unwrap_or_else(|bad| format!("({bad})")))
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn json_lines_are_records() {
        check(Format::Json, "\u{feff}{}\n\n# no\n [1]\r\n{", &["1 {}", "4  [1]", "5 {"]);
    }

    #[test]
    fn a_document_ends_where_its_brackets_are_closed() {
        let text = "{\n \"a\": \"}\\\"\",\n\n# within\n}\n# between }\n[\n1]\n{}";
        check(Format::Document, text, &["1 {\n \"a\": \"}\\\"\",\n\n# within\n}", "7 [\n1]", "9 {}"]);
        check(Format::Document, "{\"a: 1,\n\"b\": 2}\n{}\n", &["1 {\"a: 1,\n\"b\": 2}", "3 {}"]);
    }

    #[test]
    fn rows_of_csv_take_their_names_from_the_header() {
        let text = "id, name\r\n1,\"a \"\"b\"\",\nc\"\r\n\n2,\n3\n\"x\"y,1\n#4,ü\n";
        check(
            Format::Csv,
            text,
            &[
                r#"2 {"id":"1","name":"a \"b\",\nc"}"#,
                r#"5 {"id":"2","name":""}"#,
                "6 (expected 2 fields, as the header has, not 1)",
                "7 (expected a separator behind the closing quote at byte 4)",
                r##"8 {"id":"#4","name":"ü"}"##,
            ],
        );
        check(Format::Csv, "a,a\n1,2\n", &["2 (the header has the column `a` twice)"]);
        check(Format::Csv, "a,\n1,2\n", &["2 (column 2 of the header has no name)"]);
        check(Format::Csv, "a\n\"1\n2", &["2 (expected a closing quote)"]);
        check(Format::Csv, "a,b\n1\",2\n", &[r#"2 {"a":"1\"","b":"2"}"#]);
    }

    #[test]
    fn lines_of_text_are_records() {
        check(Format::Text, "# a \"b\"\n \nc", &[r##"1 {"line":"# a \"b\""}"##, r#"3 {"line":"c"}"#]);
    }
}
