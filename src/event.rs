//! Events as they travel through a pipeline.
//!
//! An [`Event`] is one shared buffer and the places of its fields in that buffer. Nothing is copied or re-encoded between the
//! source's read buffer and the sink, and moving an event moves two cache lines.

mod body;
mod builder;
mod event_time;
mod headers;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::position::{Ordinal, TrancheId};

pub use body::{ContentType, Encoding, Format};
pub use builder::{Assembler, BadEvent, EventBuilder, malformed, with_body};
pub use event_time::EventTime;
pub use headers::Headers;

/// The kind of an [`Event`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A fact that was recorded in its stream.
    #[default]
    Event,
    /// State derived from the events below its index (a snapshot, a view) that travels with them. It has the ordinal
    /// of the document's last item (C3), and is superseded by newer events and newer unfolds.
    Unfold,
    /// An event that a filter excluded. It is never offered, counts as handled, and keeps a dense stream dense. Without a
    /// stream it stands for its ordinal alone.
    Placeholder,
    /// A record that its source could not read. `data` is the record as it was; `meta` is the reason.
    Malformed,
}

/// Returns the next index of interest once an event of this kind and index is handled.
#[inline]
pub fn next_index(kind: Kind, index: i64) -> i64 {
    if kind == Kind::Unfold { index } else { index.saturating_add(1) }
}

/// The rule by which the indexes of a stream's events follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexes {
    /// One after the other: a hole means that an event has not arrived yet.
    Dense,
    /// Ascending with holes (offsets, line numbers): a hole means nothing.
    Sparse,
}

impl Indexes {
    /// Returns whether the tranche is part of a stream's identity (C4): the same name in two tranches is then two streams. All
    /// state by stream, such as write positions, must then be kept by tranche and stream.
    pub const fn identify_by_tranche(self) -> bool {
        matches!(self, Self::Sparse)
    }

    /// Returns the name under which a store keeps the write position of a stream: the stream's own, after that of its tranche if
    /// the tranche identifies it.
    pub fn stored_name<'a>(self, tranche: &TrancheId, stream: &'a str) -> Cow<'a, str> {
        if self.identify_by_tranche() {
            // A control character, so that no two pairs of names look alike in practice.
            Cow::Owned(format!("{tranche}\u{1f}{stream}"))
        } else {
            Cow::Borrowed(stream)
        }
    }
}

/// The place of a part of the buffer that may be large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    start: u32,
    len: u32,
}

/// The places of an event's fields in its buffer, and what fits beside them. Absent fields are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    data: Range,
    meta: Range,
    headers: Range,
    starts: [u32; SHORT_FIELDS],
    lens: [u16; SHORT_FIELDS],
    data_format: body::PackedFormat,
    meta_format: body::PackedFormat,
    is_tombstone: bool,
    /// Here, because it takes the byte that alignment would waste.
    kind: Kind,
}

/// The fields that are short pieces of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    Stream,
    Type,
    Id,
    Correlation,
    Causation,
    /// RFC 3339, as its source wrote it. Empty if the source gave the time as a number: see [`Event::time_text`].
    Timestamp,
}

const SHORT_FIELDS: usize = 6;

/// One event, unfold, placeholder or malformed record of a stream.
#[derive(Clone)]
pub struct Event {
    record: Bytes,
    at: Ordinal,
    index: i64,
    time: EventTime,
    layout: Layout,
}

// Two cache lines: the bytes moved for each event bound the scheduler's speed.
const _: () = assert!(size_of::<Event>() <= 128);

impl Event {
    /// Returns the place of the event in its tranche.
    pub fn at(&self) -> Ordinal {
        self.at
    }

    /// Returns the place of the event in its stream. For an unfold: the index of the event that comes next.
    pub fn index(&self) -> i64 {
        self.index
    }

    /// Returns the next index of interest once this event is handled.
    pub fn next_index(&self) -> i64 {
        next_index(self.layout.kind, self.index)
    }

    pub fn kind(&self) -> Kind {
        self.layout.kind
    }

    pub fn is_unfold(&self) -> bool {
        self.layout.kind == Kind::Unfold
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

    /// Returns the name of the stream as bytes, by which the scheduler identifies it.
    pub fn stream_bytes(&self) -> &[u8] {
        self.text_bytes(Text::Stream)
    }

    /// Returns the body, as its source stored it (usually JSON). Empty if there is none.
    pub fn data(&self) -> &[u8] {
        self.slice(self.layout.data)
    }

    /// Returns the metadata, as its source stored it. Empty if there is none.
    pub fn meta(&self) -> &[u8] {
        self.slice(self.layout.meta)
    }

    /// Returns the form of [`data`](Self::data).
    pub fn data_format(&self) -> Format {
        self.layout.data_format.get()
    }

    /// Returns the form of [`meta`](Self::meta).
    pub fn meta_format(&self) -> Format {
        self.layout.meta_format.get()
    }

    /// Returns the headers that the source keeps beside the event.
    pub fn headers(&self) -> Headers<'_> {
        Headers::new(self.slice(self.layout.headers))
    }

    /// Returns whether the record says that its key was deleted.
    pub fn is_tombstone(&self) -> bool {
        self.layout.is_tombstone
    }

    fn slice(&self, range: Range) -> &[u8] {
        &self.record[range.start as usize..][..range.len as usize]
    }

    /// Returns the time at which the event was created: the source's number, or else its text if that can be read.
    pub fn time(&self) -> Option<EventTime> {
        // Text is parsed on request: most events pass without a look at their time.
        if self.time == EventTime::NONE { self.parse_timestamp().map(EventTime::from) } else { Some(self.time) }
    }

    /// Returns [`time`](Self::time) as a date and a time of day.
    pub fn timestamp(&self) -> Option<OffsetDateTime> {
        if self.time == EventTime::NONE { self.parse_timestamp() } else { self.time.to_date_time() }
    }

    fn parse_timestamp(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.text(Text::Timestamp), &Rfc3339).ok()
    }

    /// Returns the time as text: as its source wrote it, or else as RFC 3339. Empty if the source gave no time.
    pub fn time_text(&self) -> Cow<'_, str> {
        let text = self.text(Text::Timestamp);
        if !text.is_empty() || self.time == EventTime::NONE {
            return Cow::Borrowed(text);
        }
        let formatted = self.time.to_date_time().and_then(|time| time.format(&Rfc3339).ok());
        formatted.unwrap_or_default().into()
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

    /// Turns the event into a placeholder, because a filter excluded it. An event keeps its stream, index and ordinal; an unfold
    /// or a malformed record has no place in its stream, and keeps its ordinal only.
    pub fn exclude(&mut self) {
        if self.layout.kind != Kind::Event {
            self.forget_record();
        }
        self.layout.kind = Kind::Placeholder;
    }

    /// Turns the event into a placeholder that keeps its ordinal only.
    pub fn forget(&mut self) {
        self.layout.kind = Kind::Placeholder;
        self.forget_record();
    }

    /// Releases the buffer. Of a placeholder, only the index and the ordinal are needed once its stream is known.
    pub fn forget_record(&mut self) {
        let layout = Layout { kind: self.layout.kind, ..Layout::default() };
        (self.record, self.layout, self.time) = (Bytes::new(), layout, EventTime::NONE);
    }

    /// Takes the event out of a place that still exists afterwards, and leaves an event without a buffer there.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Self {
        Self { record: std::mem::take(&mut self.record), ..*self }
    }

    /// Copies the event out of the read buffer that it shares with its neighbours, so that it no longer keeps all of that buffer
    /// alive.
    pub fn detach(&mut self) {
        self.record = Bytes::copy_from_slice(&self.record);
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.layout.kind {
            Kind::Event => "e",
            Kind::Unfold => "u",
            Kind::Placeholder => "p",
            Kind::Malformed => "m",
        };
        write!(f, "{}/{mark}{}@{}", self.stream(), self.index, self.at)
    }
}

/// Returns the category of a stream name: the part before the first `-`. A name that starts with `-` belongs to the
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
