//! Events from foreign JSON: pointers and templates say where a record has its stream, type, time and body.
//!
//! A [`Map`] is compiled once. Each record is then scanned once (twice within unrolled arrays), and nothing is re-encoded:
//! the body is the record, or a part of it, byte for byte. An event whose texts all stand in the record shares the
//! record's buffer. Otherwise its texts and its body are copied into one new buffer.
//!
//! A record that does not fit becomes a [`Misfit`], which names the pointer without a value. One misfit item of an unrolled
//! array leaves the other items alone.

mod locate;
mod syntax;
mod time;
mod value;

use std::ops::Range;

use bytes::Bytes;

use super::jsonlines::BadLine;
use super::jsonlines::parts::array_items;
use super::jsonlines::scan::{Shape, Token};
use super::records::{self, RecordFormat};
use crate::event::{Assembler, Event, EventBuilder, EventTime, Kind, Text};
use crate::position::Ordinal;
use locate::{Found, Locator};
use syntax::{Part, Place, Root};
use time::Time;
use value::{Piece, Scope, Slot, Slots, Test, TextField, TextPart, View, noun, shortened};

pub use syntax::{BadSyntax, Condition, Pointer, Selection, Template};

/// The parts of a mapping, parsed.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The array whose items are the records. `None`: each record is one.
    pub each: Option<Pointer>,
    /// The conditions that all must hold. Other records give no event.
    pub when: Vec<Condition>,
    pub stream: Template,
    pub event_type: Template,
    /// `None`: the source numbers the records.
    pub index: Option<Selection>,
    pub time: Option<Template>,
    pub id: Option<Template>,
    pub correlation: Option<Template>,
    pub causation: Option<Template>,
    /// `None`: the whole record.
    pub data: Option<Selection>,
    pub meta: Option<Selection>,
}

/// Returns whether a mapping could read a text as a time.
pub fn is_time(text: &str) -> bool {
    time::parse(text).is_some()
}

/// The place that a source gives to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventPlace {
    pub at: Ordinal,
    /// The index of the event, unless the record gives it.
    pub index: i64,
}

/// A record, or an item of it, that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The number of the item; 0 for the record itself.
    pub item: u32,
    /// The location of the item in the record.
    pub range: Range<usize>,
    pub why: BadLine,
}

/// A compiled mapping.
#[derive(Clone, Debug)]
pub struct Map {
    /// The wanted values of a record whose array is unrolled.
    around: Locator,
    /// The array, as text and as a node of `around`.
    each: Option<(Pointer, usize)>,
    /// The conditions on the record around the items. They are judged before the array is looked for.
    when_around: Vec<Test>,
    item: ItemMap,
}

/// The mapping of one item, or of the record if no array is unrolled.
#[derive(Clone, Debug)]
struct ItemMap {
    locator: Locator,
    when: Vec<Test>,
    /// Stream, type, id, correlation and causation, as far as they are given.
    texts: Vec<(Text, TextField)>,
    index: Option<Slots>,
    time: Option<TextField>,
    data: Option<Slots>,
    meta: Option<Slots>,
}

/// The items of a record.
struct Items {
    /// The values around them.
    found: Found,
    ranges: Vec<Range<usize>>,
}

/// Assigns nodes to pointers.
struct Compiler {
    around: Locator,
    item: Locator,
    unrolls: bool,
}

impl Compiler {
    fn slot(&mut self, pointer: &Pointer) -> Slot {
        match pointer.root {
            // Without an array, the record is around itself.
            Root::Around if self.unrolls => Slot::Around(self.around.add(&pointer.keys)),
            Root::Around | Root::Item => Slot::Item(self.item.add(&pointer.keys)),
        }
    }

    fn slots(&mut self, name: &'static str, pointers: Vec<Pointer>) -> Slots {
        Slots { name, slots: pointers.iter().map(|pointer| self.slot(pointer)).collect(), pointers }
    }

    fn selection(&mut self, name: &'static str, selection: Option<Selection>) -> Option<Slots> {
        selection.map(|selection| self.slots(name, selection.pointers))
    }

    fn text(&mut self, name: &'static str, template: Template) -> TextField {
        let parts = template.parts.into_iter().map(|part| match part {
            Part::Literal(text) => TextPart::Literal(text),
            Part::Place(Place { pointers, fallback }) => TextPart::Value { of: self.slots(name, pointers), fallback },
        });
        TextField { parts: parts.collect() }
    }

    fn test(&mut self, condition: Condition) -> Test {
        Test { slot: self.slot(&condition.pointer), values: condition.values, is_negated: condition.is_negated }
    }
}

impl Map {
    pub fn new(parts: Parts) -> Self {
        let unrolls = parts.each.is_some();
        let mut compiler = Compiler { around: Locator::default(), item: Locator::default(), unrolls };
        let each = parts.each.map(|each| {
            let node = compiler.around.add(&each.keys);
            (each, node)
        });
        let (when_around, when) = parts.when.into_iter().partition(|test| unrolls && test.pointer.is_around());
        let mut tests = |conditions: Vec<Condition>| conditions.into_iter().map(|test| compiler.test(test)).collect();
        let (when_around, when) = (tests(when_around), tests(when));
        // The stream comes first, so that errors in the others can name it.
        let texts = [
            (Text::Stream, "stream", Some(parts.stream)),
            (Text::Type, "type", Some(parts.event_type)),
            (Text::Id, "id", parts.id),
            (Text::Correlation, "correlation", parts.correlation),
            (Text::Causation, "causation", parts.causation),
        ];
        let texts = texts.into_iter().filter_map(|(text, name, template)| Some((text, compiler.text(name, template?))));
        let texts = texts.collect();
        let time = parts.time.map(|template| compiler.text("time", template));
        let index = compiler.selection("index", parts.index);
        let data = compiler.selection("data", parts.data);
        let meta = compiler.selection("meta", parts.meta);
        let item = ItemMap { locator: compiler.item, when, texts, index, time, data, meta };
        Self { around: compiler.around, each, when_around, item }
    }

    /// Returns whether one record can give several events.
    pub fn unrolls(&self) -> bool {
        self.each.is_some()
    }

    /// Maps a record. `place` gives the event of an item its place, and `take` takes the results in their order.
    pub fn apply(
        &self,
        record: &Bytes,
        mut place: impl FnMut(u32) -> Result<EventPlace, BadLine>,
        mut take: impl FnMut(Result<Event, Misfit>),
    ) {
        let whole = 0..record.len();
        let Some((pointer, array)) = &self.each else {
            let none = View { text: &[], found: &Found::default() };
            let mapped = self.item.apply(record, none, || place(0));
            if let Some(result) = mapped.transpose() {
                take(result.map_err(|why| Misfit { item: 0, range: whole, why }));
            }
            return;
        };
        match self.items(record, pointer, *array) {
            Err(why) => take(Err(Misfit { item: 0, range: whole, why })),
            Ok(None) => {}
            Ok(Some(Items { found, ranges })) => {
                for (number, range) in (0..).zip(ranges) {
                    let around = View { text: record, found: &found };
                    let mapped = self.item.apply(&record.slice(range.clone()), around, || place(number));
                    if let Some(result) = mapped.transpose() {
                        take(result.map_err(|why| Misfit { item: number, range, why: why.in_item(number, pointer) }));
                    }
                }
            }
        }
    }

    /// Returns the locations of the items of a record, with the values around them. `None`: a condition does not hold.
    fn items(&self, record: &Bytes, each: &Pointer, array: usize) -> Result<Option<Items>, BadLine> {
        let mut found = Found::default();
        self.around.locate(record, &mut found)?;
        let view = View { text: record, found: &found };
        let scope = Scope { item: view, around: view };
        if !self.when_around.iter().all(|test| test.holds(&scope)) {
            return Ok(None);
        }
        let array = match found.get(array) {
            Some(token) if token.shape == Shape::Array => token.range(),
            Some(token) => {
                let why = format!("`each` needs an array at `{each}`, which is {}", noun(token.shape));
                return Err(BadLine::new(why).at(token.start as usize));
            }
            None => return Err(BadLine::new(format!("`each` needs `{each}`, which the record lacks"))),
        };
        let start = array.start;
        let items = array_items(&record[array])?;
        let ranges = items.into_iter().map(|item| item.start + start..item.end + start).collect();
        Ok(Some(Items { found, ranges }))
    }
}

impl ItemMap {
    /// Maps an item; `None` if a condition does not hold.
    fn apply(
        &self,
        item: &Bytes,
        around: View<'_>,
        place: impl FnOnce() -> Result<EventPlace, BadLine>,
    ) -> Result<Option<Event>, BadLine> {
        let mut found = Found::default();
        self.locator.locate(item, &mut found)?;
        let scope = Scope { item: View { text: item, found: &found }, around };
        if !self.when.iter().all(|test| test.holds(&scope)) {
            return Ok(None);
        }
        let mut pieces = Vec::with_capacity(self.texts.len() + 1);
        for (text, field) in &self.texts {
            let piece = field.resolve(&scope).map_err(|bad| named(bad, pieces.first(), item).of_array(&found))?;
            pieces.push((*text, piece));
        }
        let event = self.build(item, &scope, &mut pieces, place);
        event.map(Some).map_err(|bad| named(bad, pieces.first(), item))
    }

    fn build<'a>(
        &self,
        item: &Bytes,
        scope: &Scope<'a>,
        pieces: &mut Vec<(Text, Piece<'a>)>,
        place: impl FnOnce() -> Result<EventPlace, BadLine>,
    ) -> Result<Event, BadLine> {
        let mut number = None;
        if let Some(field) = &self.time {
            let piece = field.resolve(scope)?;
            let text = piece.as_str(item);
            match time::parse(text) {
                // An empty fallback: the event has no time.
                None if text.is_empty() => {}
                None => return Err(BadLine::new(format!("`time` cannot be read: `{}`", shortened(text)))),
                Some(Time::Number(time)) => number = Some(time),
                Some(Time::Text) => pieces.push((Text::Timestamp, piece)),
            }
        }
        let data = match &self.data {
            None => (scope.item.found.whole(), scope.item.text),
            Some(slots) => slots.part(scope)?,
        };
        let meta = self.meta.as_ref().map(|slots| slots.part(scope)).transpose()?;
        let EventPlace { at, index } = place()?;
        let index = self.index.as_ref().map_or(Ok(index), |slots| slots.integer(scope))?;
        let is_in_item = |part: (Token, &[u8])| std::ptr::eq(part.1, scope.item.text);
        let is_in_place = pieces.iter().all(|(_, piece)| matches!(piece, Piece::InPlace(_)))
            && is_in_item(data)
            && meta.is_none_or(is_in_item)
            // A record with several events must not stay in memory for one of them.
            && scope.around.text.is_empty();
        let event = if is_in_place {
            in_place(item, scope.item.found.is_ascii, pieces, data.0, meta.map(|meta| meta.0), number).build(
                Kind::Event,
                at,
                index,
            )
        } else {
            assemble(item, pieces, data, meta, number).build(Kind::Event, at, index)
        };
        Ok(event?)
    }
}

fn in_place(
    item: &Bytes,
    is_ascii: bool,
    pieces: &[(Text, Piece<'_>)],
    data: Token,
    meta: Option<Token>,
    time: Option<EventTime>,
) -> EventBuilder {
    let mut builder = if is_ascii { EventBuilder::ascii(item.clone()) } else { EventBuilder::new(item.clone()) };
    for (text, piece) in pieces {
        if let Piece::InPlace(range) = piece {
            builder = builder.text(*text, range.start, range.len());
        }
    }
    builder = builder.data(data.start as usize, data.range().len());
    if let Some(meta) = meta {
        builder = builder.meta(meta.start as usize, meta.range().len());
    }
    time.map_or(builder.clone(), |time| builder.time(time))
}

fn assemble(
    item: &[u8],
    pieces: &[(Text, Piece<'_>)],
    (data, text): (Token, &[u8]),
    meta: Option<(Token, &[u8])>,
    time: Option<EventTime>,
) -> Assembler {
    let mut assembler = Assembler::default();
    for (field, piece) in pieces {
        assembler = assembler.text(*field, piece.as_str(item));
    }
    assembler = assembler.data(&text[data.range()]);
    if let Some((meta, text)) = meta {
        assembler = assembler.meta(&text[meta.range()]);
    }
    if let Some(time) = time { assembler.time(time) } else { assembler }
}

/// Adds the stream to an error, if it is known.
fn named(bad: BadLine, stream: Option<&(Text, Piece<'_>)>, item: &[u8]) -> BadLine {
    match stream {
        Some((Text::Stream, piece)) => bad.of_stream(piece.as_str(item)),
        _ => bad,
    }
}

/// A mapping, and the form of the records that it reads.
#[derive(Clone, Debug)]
pub struct RecordMap {
    pub format: RecordFormat,
    pub map: Map,
    /// The records give the indexes of their events.
    pub has_index: bool,
}

impl RecordMap {
    /// Maps the records of a whole text. `place` gives the event of an item its place. `take` gets each result with the
    /// number of the first line of its record.
    pub fn each_event(
        &self,
        text: &Bytes,
        mut place: impl FnMut(u32) -> Result<EventPlace, BadLine>,
        mut take: impl FnMut(usize, Result<Event, Misfit>),
    ) {
        for record in records::records(text, &self.format) {
            match record.json {
                Ok(json) => self.map.apply(&json, &mut place, |result| take(record.line, result)),
                Err(why) => take(record.line, Err(Misfit { item: 0, range: 0..record.raw.len(), why })),
            }
        }
    }
}

impl BadLine {
    fn of_stream(mut self, stream: &str) -> Self {
        let stream = Some(stream).filter(|name| !name.is_empty() && name.len() <= usize::from(u16::MAX));
        self.stream = stream.map(Into::into);
        self
    }

    /// Adds the remedy if the record is an array that nothing unrolls.
    fn of_array(mut self, found: &Found) -> Self {
        if found.whole().shape == Shape::Array {
            self.why = format!("{} (the record is an array: `each = \"\"` takes its items)", self.why).into();
        }
        self
    }

    /// Adds the number of an item, counted from 1. Bytes count from the start of the item.
    fn in_item(mut self, number: u32, each: &Pointer) -> Self {
        let array = each.to_string();
        let array = if array.is_empty() { String::new() } else { format!(" of `{array}`") };
        self.why = format!("item {}{array}: {}", number + 1, self.why).into();
        self
    }
}

#[cfg(test)]
mod tests;
