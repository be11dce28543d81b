//! Events as they travel through a pipeline.
//!
//! An [`Event`] is one shared buffer and the places of its fields in it: nothing is copied or re-encoded between
//! the source's read buffer and the sink, and moving an event moves little more than a cache line.

use std::fmt;

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::position::Ordinal;

/// What an [`Event`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something that happened, recorded in its stream.
    Event,
    /// State derived from the events below its index (a snapshot, a view) that travels with them. It has the ordinal
    /// of the document's last item (C3), and is superseded by newer events and newer unfolds.
    Unfold,
    /// An event that a filter excluded: never offered, counted as handled, kept so that a dense stream stays dense. Without
    /// a stream it stands for its ordinal alone.
    Placeholder,
    /// A record that its source could not read. `data` is the record as it was, `meta` says why.
    Malformed,
}

/// Returns the index that is of interest once something of this kind and index is handled.
#[inline]
pub fn next_index(kind: Kind, index: i64) -> i64 {
    if kind == Kind::Unfold { index } else { index.saturating_add(1) }
}

/// How the indexes of a stream's events follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexes {
    /// One after the other: a hole means that something has not arrived yet.
    Dense,
    /// Ascending with holes (offsets, line numbers): a hole means nothing. A stream is known by tranche and name.
    Sparse,
}

/// A part of an event's buffer that may be large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    start: u32,
    len: u32,
}

/// The places of an event's fields in its buffer. Absent fields are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    data: Range,
    meta: Range,
    starts: [u32; SHORT_FIELDS],
    lens: [u16; SHORT_FIELDS],
}

/// The fields that are short pieces of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    Stream,
    Type,
    Id,
    Correlation,
    Causation,
    /// RFC 3339, as its source wrote it.
    Timestamp,
}

const SHORT_FIELDS: usize = 6;

/// A field that cannot be part of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    #[error("the {0} is longer than 65,535 bytes")]
    TooLong(&'static str),
    #[error("the record is larger than 4 GiB")]
    TooLarge,
    #[error("the {0} is not UTF-8")]
    NotUtf8(&'static str),
    #[error("the stream name is empty")]
    NoStream,
    #[error("the index {0} is negative")]
    NegativeIndex(i64),
    #[error("the index {index} is too large: no index follows it", index = i64::MAX)]
    NoNextIndex,
}

/// One event (or unfold, or what became of one) of a stream.
#[derive(Clone)]
pub struct Event {
    record: Bytes,
    at: Ordinal,
    index: i64,
    layout: Layout,
    kind: Kind,
}

impl Event {
    /// Returns the place of the event in its tranche.
    pub fn at(&self) -> Ordinal {
        self.at
    }

    /// Returns the place of the event in its stream. For an unfold: the index of the event that comes next.
    pub fn index(&self) -> i64 {
        self.index
    }

    /// Returns the index that is of interest once this event is handled.
    pub fn next_index(&self) -> i64 {
        next_index(self.kind, self.index)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn is_unfold(&self) -> bool {
        self.kind == Kind::Unfold
    }

    /// Returns the name of the stream, `{category}-{id}`. Empty only for malformed records.
    pub fn stream(&self) -> &str {
        self.text(Text::Stream)
    }

    /// Returns the name of the case, such as `OrderPlaced`.
    pub fn event_type(&self) -> &str {
        self.text(Text::Type)
    }

    /// Returns a field's text, empty if the source gave none.
    pub fn text(&self, field: Text) -> &str {
        let bytes = self.text_bytes(field);
        std::str::from_utf8(bytes).expect("an event's texts were found to be UTF-8 when it was made")
    }

    fn text_bytes(&self, field: Text) -> &[u8] {
        let start = self.layout.starts[field as usize] as usize;
        &self.record[start..start + usize::from(self.layout.lens[field as usize])]
    }

    /// Returns the name of the stream as bytes: what the scheduler knows a stream by.
    pub fn stream_bytes(&self) -> &[u8] {
        self.text_bytes(Text::Stream)
    }

    /// Returns the body, as its source stored it (usually JSON). Empty if there is none.
    pub fn data(&self) -> &[u8] {
        self.slice(self.layout.data)
    }

    pub fn meta(&self) -> &[u8] {
        self.slice(self.layout.meta)
    }

    fn slice(&self, range: Range) -> &[u8] {
        &self.record[range.start as usize..][..range.len as usize]
    }

    /// Returns when the event was created, if its source said so in a form that can be read.
    pub fn timestamp(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.text(Text::Timestamp), &Rfc3339).ok()
    }

    /// Returns the stored size in bytes: type, data, meta, correlation and causation.
    pub fn size(&self) -> usize {
        let texts =
            [Text::Type, Text::Correlation, Text::Causation].map(|text| usize::from(self.layout.lens[text as usize]));
        texts.iter().sum::<usize>() + self.layout.data.len as usize + self.layout.meta.len as usize
    }

    /// Returns how many bytes of memory the event keeps alive by itself.
    pub fn held_bytes(&self) -> usize {
        self.record.len()
    }

    /// Turns the event into a placeholder (a filter excluded it), which keeps its stream, index and ordinal. What has no place
    /// in its stream, an unfold or a malformed record, keeps its ordinal only.
    pub fn exclude(&mut self) {
        if self.kind != Kind::Event {
            self.forget_record();
        }
        self.kind = Kind::Placeholder;
    }

    /// Turns the event into a placeholder that belongs to no stream: nothing of it is needed but its ordinal.
    pub fn forget(&mut self) {
        self.kind = Kind::Placeholder;
        self.forget_record();
    }

    /// Lets go of the buffer: of a placeholder nothing but its index and ordinal is needed once its stream is known.
    pub fn forget_record(&mut self) {
        self.record = Bytes::new();
        self.layout = Layout::default();
    }

    /// Takes the event out of a place that others still use; what stays there holds no buffer.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Self {
        Self { record: std::mem::take(&mut self.record), ..*self }
    }

    /// Copies the event out of the read buffer that it shares with its neighbours, so that it no longer keeps all of
    /// that alive.
    pub fn detach(&mut self) {
        self.record = Bytes::copy_from_slice(&self.record);
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.kind {
            Kind::Event => "e",
            Kind::Unfold => "u",
            Kind::Placeholder => "p",
            Kind::Malformed => "m",
        };
        write!(f, "{}/{mark}{}@{}", self.stream(), self.index, self.at)
    }
}

/// Puts an [`Event`] together over a buffer that holds its fields.
///
/// A source that reads whole records gives the places of the fields in the record; one that gets them one by one, or
/// has to decode some, appends them with an [`Assembler`].
#[derive(Clone, Debug)]
pub struct EventBuilder {
    record: Bytes,
    layout: Layout,
    is_ascii: bool,
    bad: Option<BadEvent>,
}

impl EventBuilder {
    pub fn new(record: Bytes) -> Self {
        let bad = (u32::try_from(record.len()).is_err()).then_some(BadEvent::TooLarge);
        Self { record, layout: Layout::default(), is_ascii: false, bad }
    }

    /// Of a record that is known to be ASCII: its texts need not be looked at.
    pub(crate) fn ascii(record: Bytes) -> Self {
        Self { is_ascii: true, ..Self::new(record) }
    }

    /// Sets a text to the part of the buffer at `start` of `len` bytes.
    ///
    /// # Panics
    /// If that lies outside of the buffer.
    #[inline]
    pub fn text(mut self, field: Text, start: usize, len: usize) -> Self {
        assert!(start + len <= self.record.len(), "an event's fields lie within its record");
        match u16::try_from(len) {
            Ok(len) => {
                self.layout.starts[field as usize] = start as u32;
                self.layout.lens[field as usize] = len;
                let bytes = &self.record[start..start + usize::from(len)];
                debug_assert!(!self.is_ascii || bytes.is_ascii(), "the record was found to be ASCII");
                if !self.is_ascii && std::str::from_utf8(bytes).is_err() {
                    self.bad.get_or_insert(BadEvent::NotUtf8(name_of(field)));
                }
            }
            Err(_) => {
                self.bad.get_or_insert(BadEvent::TooLong(name_of(field)));
            }
        }
        self
    }

    /// Sets the body.
    ///
    /// # Panics
    /// If it lies outside of the buffer.
    #[inline]
    pub fn data(mut self, start: usize, len: usize) -> Self {
        self.layout.data = self.range(start, len);
        self
    }

    /// Sets the metadata.
    ///
    /// # Panics
    /// If it lies outside of the buffer.
    #[inline]
    pub fn meta(mut self, start: usize, len: usize) -> Self {
        self.layout.meta = self.range(start, len);
        self
    }

    #[inline]
    fn range(&self, start: usize, len: usize) -> Range {
        assert!(start + len <= self.record.len(), "an event's fields lie within its record");
        Range { start: start as u32, len: len as u32 }
    }

    /// Returns the event, or why these fields cannot be one.
    #[inline]
    pub fn build(self, kind: Kind, at: Ordinal, index: i64) -> Result<Event, BadEvent> {
        if let Some(bad) = self.bad {
            return Err(bad);
        }
        if index < 0 {
            return Err(BadEvent::NegativeIndex(index));
        }
        if index == i64::MAX {
            return Err(BadEvent::NoNextIndex);
        }
        if self.layout.lens[Text::Stream as usize] == 0 && kind != Kind::Malformed {
            return Err(BadEvent::NoStream);
        }
        Ok(Event { record: self.record, at, index, layout: self.layout, kind })
    }
}

fn name_of(field: Text) -> &'static str {
    match field {
        Text::Stream => "stream name",
        Text::Type => "event type",
        Text::Id => "event id",
        Text::Correlation => "correlation id",
        Text::Causation => "causation id",
        Text::Timestamp => "timestamp",
    }
}

/// Lays fields that come one by one into one buffer.
#[derive(Debug, Default)]
pub struct Assembler {
    buffer: Vec<u8>,
    texts: [(usize, usize); SHORT_FIELDS],
    data: (usize, usize),
    meta: (usize, usize),
}

impl Assembler {
    pub fn new(stream: &str, event_type: &str) -> Self {
        Self::default().text(Text::Stream, stream).text(Text::Type, event_type)
    }

    pub fn text(mut self, field: Text, text: &str) -> Self {
        self.texts[field as usize] = self.append(text.as_bytes());
        self
    }

    pub fn data(mut self, data: &[u8]) -> Self {
        self.data = self.append(data);
        self
    }

    pub fn meta(mut self, meta: &[u8]) -> Self {
        self.meta = self.append(meta);
        self
    }

    fn append(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        (start, bytes.len())
    }

    /// Returns the event, or why these fields cannot be one.
    pub fn build(self, kind: Kind, at: Ordinal, index: i64) -> Result<Event, BadEvent> {
        let fields = [Text::Stream, Text::Type, Text::Id, Text::Correlation, Text::Causation, Text::Timestamp];
        let mut builder = EventBuilder::new(Bytes::from(self.buffer));
        for (field, (start, len)) in fields.into_iter().zip(self.texts) {
            builder = builder.text(field, start, len);
        }
        builder.data(self.data.0, self.data.1).meta(self.meta.0, self.meta.1).build(kind, at, index)
    }
}

/// Makes the record of something that a source could not read: `raw` as it was (at most 64 KiB of it), and why.
pub fn malformed(at: Ordinal, stream: Option<&str>, raw: &[u8], why: &str) -> Event {
    const KEPT: usize = 64 * 1024;
    let stream = stream.filter(|name| name.len() <= usize::from(u16::MAX)).unwrap_or_default();
    Assembler::new(stream, "")
        .data(&raw[..raw.len().min(KEPT)])
        .meta(why.as_bytes())
        .build(Kind::Malformed, at, 0)
        .expect("a malformed record needs no stream and has short texts")
}

/// Returns the category of a stream name: what stands before the first `-`. A name that starts with `-` belongs to the
/// category after it (spec/core.md §1.1).
pub fn category(stream: &str) -> &str {
    match stream.split_once('-') {
        Some(("", rest)) => rest,
        Some((category, _)) => category,
        None => stream,
    }
}

/// Returns the id of a stream name: everything after the first `-`; empty if there is none.
pub fn stream_id(stream: &str) -> &str {
    stream.split_once('-').map_or("", |(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_fits_two_cache_lines() {
        assert!(size_of::<Event>() <= 112, "{}", size_of::<Event>());
    }

    #[test]
    fn assembled_fields_come_back_as_they_were() {
        let event = Assembler::new("order-1", "OrderPlaced")
            .data(b"{\"total\":3}")
            .meta(b"{}")
            .text(Text::Id, "e1")
            .text(Text::Timestamp, "2026-11-24T10:00:00Z")
            .build(Kind::Event, Ordinal::new(1, 2), 7)
            .unwrap();
        assert_eq!(
            (event.stream(), event.event_type(), event.index(), event.next_index()),
            ("order-1", "OrderPlaced", 7, 8)
        );
        assert_eq!((event.data(), event.meta(), event.text(Text::Id)), (&b"{\"total\":3}"[..], &b"{}"[..], "e1"));
        assert_eq!(event.text(Text::Correlation), "");
        assert_eq!(event.timestamp().unwrap().unix_timestamp(), 1_795_514_400);
        assert_eq!(event.size(), 11 + 11 + 2);
    }

    #[test]
    fn what_cannot_be_an_event_says_why() {
        let event = |stream: &str, index| {
            Assembler::new(stream, "T").build(Kind::Event, Ordinal::default(), index).unwrap_err()
        };
        assert_eq!(event("", 0), BadEvent::NoStream);
        assert_eq!(event("a-1", -1), BadEvent::NegativeIndex(-1));
        assert_eq!(event("a-1", i64::MAX), BadEvent::NoNextIndex);
        assert_eq!(event(&"a".repeat(65_536), 0), BadEvent::TooLong("stream name"));
        let not_utf8 = EventBuilder::new(Bytes::from_static(b"a-\xff")).text(Text::Stream, 0, 3);
        assert_eq!(not_utf8.build(Kind::Event, Ordinal::default(), 0).unwrap_err(), BadEvent::NotUtf8("stream name"));
    }

    #[test]
    fn what_is_excluded_keeps_its_place_if_it_had_one() {
        let excluded = [Kind::Event, Kind::Unfold, Kind::Malformed].map(|kind| {
            let mut event = Assembler::new("order-1", "T").build(kind, Ordinal::new(3, 0), 7).unwrap();
            event.exclude();
            (event.kind(), event.stream().to_owned(), event.at().major)
        });
        assert_eq!(excluded, ["order-1", "", ""].map(|stream| (Kind::Placeholder, stream.to_owned(), 3)));
    }

    #[test]
    fn names_split_at_the_first_dash() {
        let split: Vec<_> = ["order-1-2", "-x-1", "order", ""].map(|name| (category(name), stream_id(name))).into();
        assert_eq!(split, [("order", "1-2"), ("x-1", "x-1"), ("order", ""), ("", "")]);
    }
}
