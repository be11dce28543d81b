//! Equinox documents of CosmosDB: consecutive events of a stream, and in the Tip its unfolds.
//!
//! `{"p": stream, "i": first index, "n": next index, "e": [{"c": type, "t": time, "d", "D", "m", "M", "correlationId",
//! "causationId"}], "u": [the same]}`. The index of an unfold is the `n` of the document; its own `i` is
//! ignored.
//!
//! Each event is copied into its own buffer. A document can have hundreds of events, and a held one must not keep the
//! bodies of the others alive.

use std::io::Read;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::scan::{Bad, Scanner, Shape, Token, one_value};
use super::{BadLine, Fields, Indexing, Key, LineOrigin, decode, integer};
use crate::event::{Assembler, Event, Kind, Text};
use crate::position::Ordinal;

/// The largest decompressed body. A few compressed bytes must not fill the memory.
const MAX_BODY: u64 = 64 << 20;

pub(super) fn parse(line: &Bytes, fields: &Fields, origin: LineOrigin, events: &mut Vec<Event>) -> Result<(), BadLine> {
    let before = events.len();
    let parsed = parse_all(line, fields, origin, events);
    if parsed.is_err() {
        events.truncate(before);
    }
    parsed
}

fn parse_all(line: &Bytes, fields: &Fields, origin: LineOrigin, events: &mut Vec<Event>) -> Result<(), BadLine> {
    if origin.indexing == Indexing::Line {
        return Err(BadLine::new("expected an event without an index, not a document, as the line's number is taken"));
    }
    let token = |key| fields.get(key).ok_or(BadLine::new("expected a document's fields"));
    let stream = decode(&line[token(Key::P)?.range()])?;
    let first = integer(line, token(Key::I)?, "expected an integer as `i`")?;
    let next = integer(line, token(Key::N)?, "expected an integer as `n`")?;
    let items = items(line, token(Key::E)?, "expected an array as `e`")?;
    let count = u32::try_from(items.len()).map_err(|_| BadLine::new("it holds too many events"))?;
    if first.checked_add(i64::from(count)) != Some(next) {
        return Err(BadLine::new(format!("expected as many events as there are from {first} to {next}, not {count}")));
    }
    for (minor, item) in (0..).zip(items) {
        let item = Item { line, stream: &stream, token: item, kind: Kind::Event };
        events.push(item.read(Ordinal::new(origin.major, minor), first + i64::from(minor))?);
    }
    let Some(unfolds) = fields.present(Key::U) else { return Ok(()) };
    for item in self::items(line, unfolds, "expected an array as `u`")? {
        let item = Item { line, stream: &stream, token: item, kind: Kind::Unfold };
        events.push(item.read(Ordinal::new(origin.major, count), next)?);
    }
    Ok(())
}

/// Returns the locations of the items of an array. The line was scanned before, so only the types can be wrong.
fn items(line: &[u8], array: Token, why: &'static str) -> Result<Vec<Token>, BadLine> {
    if array.shape != Shape::Array {
        return Err(BadLine::new(why).at(array.start as usize));
    }
    let mut items = Vec::new();
    let mut scanner = Part::new(line, array)?;
    if scanner.open(b']') {
        loop {
            items.push(scanner.value()?);
            if !scanner.comma() {
                break;
            }
        }
    }
    Ok(items)
}

/// An iterator over an object or array in a line that was scanned before.
struct Part<'a> {
    scanner: Scanner<'a>,
    start: u32,
}

impl<'a> Part<'a> {
    fn new(line: &'a [u8], token: Token) -> Result<Self, Bad> {
        Ok(Self { scanner: Scanner::new(&line[token.range()])?, start: token.start })
    }

    /// Passes the opening bracket. Returns whether an item follows.
    fn open(&mut self, closing: u8) -> bool {
        let opened = self.scanner.eat(b'{') || self.scanner.eat(b'[');
        self.scanner.space();
        opened && self.scanner.peek() != Some(closing)
    }

    fn value(&mut self) -> Result<Token, Bad> {
        let token = self.scanner.value(0)?;
        Ok(Token { start: token.start + self.start, end: token.end + self.start, shape: token.shape })
    }

    fn comma(&mut self) -> bool {
        self.scanner.eat_next(b',')
    }
}

/// An event or unfold of a document.
struct Item<'a> {
    line: &'a [u8],
    stream: &'a str,
    token: Token,
    kind: Kind,
}

#[derive(Default)]
struct ItemFields {
    case: Option<Token>,
    time: Option<Token>,
    correlation: Option<Token>,
    causation: Option<Token>,
    data: Option<Token>,
    data_encoding: Option<Token>,
    meta: Option<Token>,
    meta_encoding: Option<Token>,
}

impl Item<'_> {
    fn read(&self, at: Ordinal, index: i64) -> Result<Event, BadLine> {
        let fields = self.fields()?;
        let case = fields.case.ok_or_else(|| self.bad("expected the type `c` of an event"))?;
        let mut assembler = Assembler::new(self.stream, &self.string(case)?);
        for (text, token) in [
            (Text::Timestamp, fields.time),
            (Text::Correlation, fields.correlation),
            (Text::Causation, fields.causation),
        ] {
            if let Some(token) = token.filter(|token| token.shape != Shape::Null) {
                assembler = assembler.text(text, &self.string(token)?);
            }
        }
        if let Some(data) = fields.data {
            assembler = assembler.data(&self.body(data, fields.data_encoding)?);
        }
        if let Some(meta) = fields.meta {
            assembler = assembler.meta(&self.body(meta, fields.meta_encoding)?);
        }
        Ok(assembler.build(self.kind, at, index)?)
    }

    fn bad(&self, why: &'static str) -> BadLine {
        BadLine::new(why).at(self.token.start as usize)
    }

    fn fields(&self) -> Result<ItemFields, BadLine> {
        if self.token.shape != Shape::Object {
            return Err(self.bad("expected an event as an object"));
        }
        let mut fields = ItemFields::default();
        let mut part = Part::new(self.line, self.token)?;
        if part.open(b'}') {
            loop {
                let (name, _) = part.scanner.key()?;
                let name = &self.line[self.token.range()][name];
                let token = part.value()?;
                if let Some(field) = fields.of(name)
                    && field.replace(token).is_some()
                {
                    return Err(BadLine::new("the same key came before").at(token.start as usize));
                }
                if !part.comma() {
                    break;
                }
            }
        }
        Ok(fields)
    }

    fn string(&self, token: Token) -> Result<String, BadLine> {
        decode(&self.line[token.range()]).map_err(|bad| bad.at(token.start as usize))
    }

    /// Returns a body as JSON. Old documents do not name the encoding of a body that is a string. It is Deflate for an
    /// unfold, and a plain string for an event.
    fn body(&self, body: Token, encoding: Option<Token>) -> Result<Vec<u8>, BadLine> {
        let raw = &self.line[body.range()];
        let encoding = match encoding.filter(|token| token.shape != Shape::Null) {
            Some(token) => integer(self.line, token, "expected an integer as the encoding of a body")?,
            None => 0,
        };
        let is_text = matches!(body.shape, Shape::Plain | Shape::Escaped);
        let decoded = match encoding {
            1 if is_text => inflate(&self.string(body)?),
            0 if is_text && self.kind == Kind::Unfold => inflate(&self.string(body)?),
            2 if is_text => Err("expected a body that is not compressed with Brotli, which cannot be read yet"),
            _ => return Ok(raw.to_vec()),
        };
        let decoded = decoded.and_then(|json| one_value(&json).map(|_| json).map_err(|_| "expected JSON in a body"));
        decoded.map_err(|why| BadLine::new(why).at(body.start as usize))
    }
}

impl ItemFields {
    fn of(&mut self, name: &[u8]) -> Option<&mut Option<Token>> {
        Some(match name {
            b"c" => &mut self.case,
            b"t" => &mut self.time,
            b"correlationId" => &mut self.correlation,
            b"causationId" => &mut self.causation,
            b"d" => &mut self.data,
            b"D" => &mut self.data_encoding,
            b"m" => &mut self.meta,
            b"M" => &mut self.meta_encoding,
            _ => return None,
        })
    }
}

/// Decodes raw Deflate in base64. Old writers flushed their streams without ending them, so a missing end is accepted.
fn inflate(text: &str) -> Result<Vec<u8>, &'static str> {
    let compressed = base64(text).ok_or("expected base64 in a compressed body")?;
    let mut decoder = flate2::read::DeflateDecoder::new(&compressed[..]).take(MAX_BODY + 1);
    let mut json = Vec::new();
    match decoder.read_to_end(&mut json) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !json.is_empty() => {}
        Err(_) => return Err("expected Deflate in a compressed body"),
    }
    if json.len() as u64 > MAX_BODY { Err("expected a compressed body of at most 64 MiB") } else { Ok(json) }
}

/// Decodes the base64 of any writer: with or without padding, and with any bits after the last byte.
fn base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
    ENGINE.decode(text.trim_end_matches('=')).ok()
}
