//! Finds the line breaks that end records.

use super::{Format, RecordFormat};

/// A scan of a text for the ends of its records. It can be continued as the text grows.
#[derive(Clone, Debug)]
pub struct Cutter {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Every line break ends a record.
    Lines,
    Document(Document),
    Csv {
        delimiter: u8,
        field: Field,
    },
}

/// The place in a field of CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Start,
    Plain,
    Quoted,
    /// Behind a quote in a quoted field: its end, or the first of two quotes.
    Quote,
}

/// The place in a JSON value.
#[derive(Clone, Debug, Default)]
struct Document {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    in_comment: bool,
    /// Something other than white space was seen since the last end.
    has_content: bool,
}

impl Cutter {
    pub fn new(format: &RecordFormat) -> Self {
        let state = match format.format {
            Format::Json | Format::Text => State::Lines,
            Format::Document => State::Document(Document::default()),
            Format::Csv => State::Csv { delimiter: format.delimiter, field: Field::Start },
        };
        Self { state }
    }

    /// Returns whether every line break ends a record.
    pub fn is_simple(&self) -> bool {
        matches!(self.state, State::Lines)
    }

    /// Returns the next line break that ends a record, at or behind `from`. The bytes before `from` were scanned by earlier
    /// calls. `None`: all bytes are scanned.
    pub fn next_end(&mut self, text: &[u8], from: usize) -> Option<usize> {
        let rest = &text[from..];
        let end = match &mut self.state {
            State::Lines => memchr::memchr(b'\n', rest),
            State::Document(document) => rest.iter().position(|byte| document.ends_with(*byte)),
            State::Csv { delimiter, field } => rest.iter().position(|byte| field.ends_with(*byte, *delimiter)),
        };
        end.map(|end| from + end)
    }

    /// Returns whether the text so far is a whole document, which no further text on its line can extend.
    pub fn is_whole_document(&self) -> bool {
        matches!(&self.state, State::Document(document) if document.depth == 0 && document.has_content && !document.in_comment)
    }
}

impl Field {
    /// Passes a byte; returns whether it ends a row.
    fn ends_with(&mut self, byte: u8, delimiter: u8) -> bool {
        *self = match (*self, byte) {
            (Self::Quoted, b'"') => Self::Quote,
            (Self::Quoted, _) => Self::Quoted,
            (Self::Start | Self::Quote, b'"') => Self::Quoted,
            (_, b'\n') => {
                *self = Self::Start;
                return true;
            }
            (_, byte) if byte == delimiter => Self::Start,
            _ => Self::Plain,
        };
        false
    }
}

impl Document {
    /// Passes a byte; returns whether it ends a document.
    fn ends_with(&mut self, byte: u8) -> bool {
        if byte == b'\n' {
            // No string holds a line break: one that was not closed ends here, so that its error stays within its document.
            (self.in_string, self.is_escaped, self.in_comment) = (false, false, false);
            if self.depth == 0 {
                *self = Self::default();
                return true;
            }
        } else if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else if !self.in_comment && !byte.is_ascii_whitespace() {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b'#' if !self.has_content => self.in_comment = true,
                _ => {}
            }
            self.has_content = true;
        }
        false
    }
}
