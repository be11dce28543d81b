//! Events as lines of JSON, in files and in pushed bodies. `formats::encode` writes them.
//!
//! A line is one of two objects:
//! * an event, `{"stream", "index"?, "type", "data"?, "meta"?, "id"?, "timestamp"?, "correlation"?, "causation"?}`, with
//!   `"unfold": true` for an unfold. `data` and `meta` are kept verbatim, `null` included. In the others `null` means
//!   absent. Unknown keys are ignored; a repeated known key is an error.
//! * an Equinox document, `{"p", "i", "n", "e", "u"?}` (`document`), as in exports of CosmosDB.
//!
//! An event keeps its line and the locations of its fields. Only fields with escapes are copied. Every byte is checked,
//! so that a corrupt body is found here and not by the handler.
//!
//! **Ordinals.** The events of a line share the major, which their source derives from the line number. An event line has
//! minor 0. In a document event k has minor k, and all unfolds have the number of events as minor (C3).

mod body;
mod document;
pub mod parts;
pub(super) mod scan;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::event::{Assembler, BadEvent, Event, EventBuilder, Kind, Text};
use crate::position::Ordinal;
use scan::{Bad, Scanner, Shape, Strings, Token};

pub use body::{BadBody, is_blank_or_comment, parse_body, without_byte_order_mark};

/// The origin of event indexes, declared once per source. A line that breaks the declaration is an error (C2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// Every line has an index.
    Field,
    /// No line has an index. The line number, which is the major of its ordinal, replaces it.
    Line,
}

/// The origin of a line: the part of its events' identity that is not in its text.
#[derive(Clone, Copy, Debug)]
pub struct LineOrigin {
    /// The major of the ordinals of the events in the line.
    pub major: u64,
    pub indexing: Indexing,
}

/// The error of a line that does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    pub(super) why: Cow<'static, str>,
    at: Option<usize>,
    pub(super) stream: Option<Box<str>>,
}

impl BadLine {
    pub(crate) fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self { why: why.into(), at: None, stream: None }
    }

    pub(super) fn at(mut self, at: usize) -> Self {
        self.at = Some(at);
        self
    }

    /// Returns the stream of the line, if it was readable.
    pub fn stream(&self) -> Option<&str> {
        self.stream.as_deref()
    }
}

/// The expected syntax, and its byte in the line, counted from 1.
impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        self.at.map_or(Ok(()), |at| write!(f, " at byte {}", at + 1))
    }
}

impl std::error::Error for BadLine {}

impl From<Bad> for BadLine {
    fn from(bad: Bad) -> Self {
        Self::new(bad.why).at(bad.at)
    }
}

impl From<BadEvent> for BadLine {
    fn from(bad: BadEvent) -> Self {
        Self::new(bad.to_string())
    }
}

/// Appends the event of a line, or those of its document. A bad line appends nothing.
pub fn parse(line: Bytes, origin: LineOrigin, events: &mut Vec<Event>) -> Result<(), BadLine> {
    let mut fields = Fields::default();
    let scanned = fields.scan(&line, Scanner::fast(&line)).or_else(|_| {
        fields = Fields::default();
        fields.scan(&line, Scanner::new(&line))
    });
    let read = match scanned {
        Err(bad) => Err(bad),
        Ok(()) if fields.is_document() => document::parse(&line, &fields, origin, events),
        Ok(()) if fields.is_foreign_document() => Ok(()),
        Ok(()) => return parse_event(line, &fields, origin, events),
    };
    read.map_err(|bad| fields.named(&line, bad))
}

fn parse_event(line: Bytes, fields: &Fields, origin: LineOrigin, events: &mut Vec<Event>) -> Result<(), BadLine> {
    let (kind, index) = fields.check(&line, origin).map_err(|bad| fields.named(&line, bad))?;
    let at = Ordinal::new(origin.major, 0);
    if fields.has_escapes() {
        let assembled = fields.assemble(&line).map_err(|bad| fields.named(&line, bad))?;
        events.push(assembled.build(kind, at, index)?);
    } else {
        events.push(fields.in_place(line).build(kind, at, index)?);
    }
    Ok(())
}

/// The known keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Stream,
    Type,
    Id,
    Correlation,
    Causation,
    Timestamp,
    Index,
    Data,
    Meta,
    Unfold,
    P,
    I,
    N,
    E,
    U,
    /// A key that every exported document of CosmosDB has.
    Rid,
}

const KEYS: usize = Key::Rid as usize + 1;

const TEXTS: [(Key, Text); 6] = [
    (Key::Stream, Text::Stream),
    (Key::Type, Text::Type),
    (Key::Id, Text::Id),
    (Key::Correlation, Text::Correlation),
    (Key::Causation, Text::Causation),
    (Key::Timestamp, Text::Timestamp),
];

impl Key {
    #[inline]
    fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"stream" => Self::Stream,
            b"type" => Self::Type,
            b"id" => Self::Id,
            b"correlation" => Self::Correlation,
            b"causation" => Self::Causation,
            b"timestamp" => Self::Timestamp,
            b"index" => Self::Index,
            b"data" => Self::Data,
            b"meta" => Self::Meta,
            b"unfold" => Self::Unfold,
            b"p" => Self::P,
            b"i" => Self::I,
            b"n" => Self::N,
            b"e" => Self::E,
            b"u" => Self::U,
            b"_rid" => Self::Rid,
            _ => return None,
        })
    }
}

/// The locations of the values of the known keys.
#[derive(Default)]
struct Fields {
    tokens: [Option<Token>; KEYS],
    is_ascii: bool,
}

impl Fields {
    fn scan<S: Strings>(&mut self, line: &[u8], scanner: Result<Scanner<'_, S>, Bad>) -> Result<(), BadLine> {
        let mut scanner = scanner?;
        scanner.space();
        scanner.expect(b'{', "expected `{`")?;
        scanner.space();
        if !scanner.eat(b'}') {
            while self.scan_field(line, &mut scanner)? {}
        }
        scanner.end()?;
        self.is_ascii = scanner.is_ascii();
        Ok(())
    }

    /// Passes one key, its value and the next separator. Returns whether that is a comma.
    #[inline]
    fn scan_field<S: Strings>(&mut self, line: &[u8], scanner: &mut Scanner<'_, S>) -> Result<bool, BadLine> {
        let (name, escaped) = scanner.key()?;
        let quote = name.start - 1;
        let key = if escaped {
            // A key that cannot be decoded is an unknown key.
            decode(&line[quote..=name.end]).ok().and_then(|name| Key::of(name.as_bytes()))
        } else {
            Key::of(&line[name])
        };
        let token = scanner.value(1)?;
        if let Some(key) = key
            && self.tokens[key as usize].replace(token).is_some()
        {
            return Err(BadLine::new("the same key came before").at(quote));
        }
        Ok(scanner.goes_on(b'}', "expected `,` or `}`")?)
    }

    #[inline]
    fn get(&self, key: Key) -> Option<Token> {
        self.tokens[key as usize]
    }

    /// Returns the value of a key, unless it is `null`.
    #[inline]
    fn present(&self, key: Key) -> Option<Token> {
        self.get(key).filter(|token| token.shape != Shape::Null)
    }

    fn is_document(&self) -> bool {
        self.get(Key::P).is_some_and(|p| matches!(p.shape, Shape::Plain | Shape::Escaped))
            && [Key::I, Key::N, Key::E].iter().all(|key| self.get(*key).is_some())
            && self.get(Key::Stream).is_none()
    }

    /// A lease or application document of a CosmosDB export. It yields no events.
    fn is_foreign_document(&self) -> bool {
        self.get(Key::Rid).is_some() && self.get(Key::Stream).is_none()
    }

    fn has_escapes(&self) -> bool {
        TEXTS.iter().any(|(key, _)| self.get(*key).is_some_and(|token| token.shape == Shape::Escaped))
    }

    /// Checks the types of the fields. Returns the kind of the line, and its index.
    #[inline]
    fn check(&self, line: &[u8], origin: LineOrigin) -> Result<(Kind, i64), BadLine> {
        for (key, _) in TEXTS {
            match self.present(key) {
                Some(Token { shape: Shape::Plain | Shape::Escaped, .. }) => {}
                Some(token) => {
                    return Err(BadLine::new(format!("expected a string as {}", name_of(key))).at(token.start as usize));
                }
                None if matches!(key, Key::Stream | Key::Type) => {
                    return Err(BadLine::new(format!("expected {}", name_of(key))));
                }
                None => {}
            }
        }
        let kind = match self.present(Key::Unfold) {
            None | Some(Token { shape: Shape::False, .. }) => Kind::Event,
            Some(Token { shape: Shape::True, .. }) => Kind::Unfold,
            Some(token) => {
                return Err(BadLine::new("expected true or false as `unfold`").at(token.start as usize));
            }
        };
        Ok((kind, self.index(line, origin)?))
    }

    fn index(&self, line: &[u8], origin: LineOrigin) -> Result<i64, BadLine> {
        match (origin.indexing, self.present(Key::Index)) {
            (Indexing::Field, Some(token)) => match integer(line, token, "expected an integer as `index`")? {
                index @ 0.. => Ok(index),
                ..0 => Err(BadLine::new("expected an `index` of at least 0").at(token.start as usize)),
            },
            (Indexing::Field, None) => Err(BadLine::new("expected `index`")),
            (Indexing::Line, None) => {
                i64::try_from(origin.major).map_err(|_| BadLine::new("the line's number is too large"))
            }
            (Indexing::Line, Some(token)) => {
                let why = "expected no `index`, because the line's number is the index";
                Err(BadLine::new(why).at(token.start as usize))
            }
        }
    }

    /// Builds the event of a line whose fields stay in place.
    #[inline]
    fn in_place(&self, line: Bytes) -> EventBuilder {
        let mut builder = if self.is_ascii { EventBuilder::ascii(line) } else { EventBuilder::new(line) };
        for (key, text) in TEXTS {
            if let Some(token) = self.present(key) {
                builder = builder.text(text, token.start as usize + 1, token.range().len() - 2);
            }
        }
        if let Some(data) = self.get(Key::Data) {
            builder = builder.data(data.start as usize, data.range().len());
        }
        if let Some(meta) = self.get(Key::Meta) {
            builder = builder.meta(meta.start as usize, meta.range().len());
        }
        builder
    }

    /// Builds the event of a line with escaped texts, which are decoded into a copy.
    fn assemble(&self, line: &[u8]) -> Result<Assembler, BadLine> {
        let mut assembler = Assembler::default();
        for (key, text) in TEXTS {
            if let Some(token) = self.present(key) {
                assembler = assembler.text(text, &decode(&line[token.range()])?);
            }
        }
        if let Some(data) = self.get(Key::Data) {
            assembler = assembler.data(&line[data.range()]);
        }
        if let Some(meta) = self.get(Key::Meta) {
            assembler = assembler.meta(&line[meta.range()]);
        }
        Ok(assembler)
    }

    /// Adds the stream to an error, if the line names it before the error.
    #[cold]
    fn named(&self, line: &[u8], mut bad: BadLine) -> BadLine {
        let token = self.get(Key::Stream).or(self.get(Key::P));
        let name = token.and_then(|token| decode(&line[token.range()]).ok());
        bad.stream = name.filter(|name| !name.is_empty() && name.len() <= usize::from(u16::MAX)).map(Into::into);
        bad
    }
}

fn name_of(key: Key) -> &'static str {
    match key {
        Key::Stream => "`stream`",
        Key::Type => "`type`",
        Key::Id => "`id`",
        Key::Correlation => "`correlation`",
        Key::Causation => "`causation`",
        _ => "`timestamp`",
    }
}

fn integer(line: &[u8], token: Token, why: &'static str) -> Result<i64, BadLine> {
    let digits = &line[token.range()];
    let number = match token.shape {
        Shape::Number => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
        _ => None,
    };
    number.ok_or_else(|| BadLine::new(why).at(token.start as usize))
}

/// Decodes a string, including its quotes.
fn decode(string: &[u8]) -> Result<String, BadLine> {
    serde_json::from_slice(string).map_err(|_| BadLine::new("expected a string"))
}

#[cfg(test)]
mod tests;
