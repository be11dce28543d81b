//! Builders of events, for sources that read whole records and for those that get fields one by one.

use bytes::Bytes;

use super::body::{Format, PackedFormat};
use super::{Event, EventTime, Kind, Layout, Range, SHORT_FIELDS, Text, headers};
use crate::position::Ordinal;

/// The reason why fields cannot form an event.
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

/// Builds an [`Event`] over a buffer that holds its fields.
///
/// A source that reads whole records gives the places of the fields in the record. A source that gets them one by one, or has
/// to decode some, appends them with an [`Assembler`].
#[derive(Clone, Debug)]
pub struct EventBuilder {
    record: Bytes,
    layout: Layout,
    time: EventTime,
    is_ascii: bool,
    bad: Option<BadEvent>,
}

impl EventBuilder {
    pub fn new(record: Bytes) -> Self {
        let bad = (u32::try_from(record.len()).is_err()).then_some(BadEvent::TooLarge);
        Self { record, layout: Layout::default(), time: EventTime::NONE, is_ascii: false, bad }
    }

    /// Starts with a record that is known to be ASCII, so that its texts need no check.
    pub(crate) fn ascii(record: Bytes) -> Self {
        Self { is_ascii: true, ..Self::new(record) }
    }

    /// Sets a text to the part of the buffer at `start` of `len` bytes.
    ///
    /// # Panics
    /// If the part lies outside of the buffer.
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

    /// Sets the headers: a part of the buffer that [`headers::encode`] wrote.
    fn headers(mut self, start: usize, len: usize) -> Self {
        self.layout.headers = self.range(start, len);
        self
    }

    #[inline]
    fn range(&self, start: usize, len: usize) -> Range {
        assert!(start + len <= self.record.len(), "an event's fields lie within its record");
        Range { start: start as u32, len: len as u32 }
    }

    /// Sets the time, for a source that has it as a number. One that has text sets [`Text::Timestamp`].
    pub fn time(mut self, time: EventTime) -> Self {
        self.time = time;
        self
    }

    pub fn data_format(mut self, format: Format) -> Self {
        self.layout.data_format = PackedFormat::new(format);
        self
    }

    pub fn meta_format(mut self, format: Format) -> Self {
        self.layout.meta_format = PackedFormat::new(format);
        self
    }

    /// Marks the record of a deleted key.
    pub fn tombstone(mut self) -> Self {
        self.layout.is_tombstone = true;
        self
    }

    /// Returns the event, or the reason why these fields cannot be one.
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
        let layout = Layout { kind, ..self.layout };
        Ok(Event { record: self.record, at, index, time: self.time, layout })
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

/// Builds an [`Event`] from fields that come one by one: lays them into one buffer.
#[derive(Clone, Debug)]
pub struct Assembler {
    buffer: Vec<u8>,
    texts: [(usize, usize); SHORT_FIELDS],
    data: (usize, usize),
    meta: (usize, usize),
    /// The headers, encoded apart: they may come between other fields.
    headers: Vec<u8>,
    formats: [Format; 2],
    time: EventTime,
    is_tombstone: bool,
    bad: Option<BadEvent>,
}

impl Default for Assembler {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            texts: Default::default(),
            data: (0, 0),
            meta: (0, 0),
            headers: Vec::new(),
            formats: Default::default(),
            time: EventTime::NONE,
            is_tombstone: false,
            bad: None,
        }
    }
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

    /// Sets the forms of data and metadata.
    pub fn formats(mut self, data: Format, meta: Format) -> Self {
        self.formats = [data, meta];
        self
    }

    /// Sets the time, for a source that has it as a number. One that has text sets [`Text::Timestamp`].
    pub fn time(mut self, time: EventTime) -> Self {
        self.time = time;
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &[u8]) -> Self {
        if let Err(bad) = headers::encode(name, value, &mut self.headers) {
            self.bad.get_or_insert(bad);
        }
        self
    }

    /// Marks the record of a deleted key.
    pub fn tombstone(mut self) -> Self {
        self.is_tombstone = true;
        self
    }

    fn append(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        (start, bytes.len())
    }

    /// Returns the event, or the reason why these fields cannot be one.
    pub fn build(mut self, kind: Kind, at: Ordinal, index: i64) -> Result<Event, BadEvent> {
        if let Some(bad) = self.bad {
            return Err(bad);
        }
        let encoded = std::mem::take(&mut self.headers);
        let headers = self.append(&encoded);
        let fields = [Text::Stream, Text::Type, Text::Id, Text::Correlation, Text::Causation, Text::Timestamp];
        let mut builder = EventBuilder::new(Bytes::from(self.buffer)).time(self.time);
        for (field, (start, len)) in fields.into_iter().zip(self.texts) {
            builder = builder.text(field, start, len);
        }
        let [data, meta] = self.formats;
        let builder = builder.data(self.data.0, self.data.1).meta(self.meta.0, self.meta.1);
        let builder = builder.headers(headers.0, headers.1).data_format(data).meta_format(meta);
        if self.is_tombstone { builder.tombstone() } else { builder }.build(kind, at, index)
    }
}

/// Returns a copy of an event with another body. A replaced part is plain JSON; `None` leaves a part as it is.
pub fn with_body(event: &Event, data: Option<&[u8]>, meta: Option<&[u8]>) -> Result<Event, BadEvent> {
    let mut assembler = Assembler::new(event.stream(), event.event_type());
    for field in [Text::Id, Text::Correlation, Text::Causation, Text::Timestamp] {
        assembler = assembler.text(field, event.text(field));
    }
    for (name, value) in event.headers() {
        assembler = assembler.header(name, value);
    }
    if event.is_tombstone() {
        assembler = assembler.tombstone();
    }
    let format = |is_new: bool, old| if is_new { Format::default() } else { old };
    assembler
        .time(event.time)
        .data(data.unwrap_or(event.data()))
        .meta(meta.unwrap_or(event.meta()))
        .formats(format(data.is_some(), event.data_format()), format(meta.is_some(), event.meta_format()))
        .build(event.kind(), event.at(), event.index())
}

/// Returns the event that stands for a record that its source could not read: at most 64 KiB of the record, and the reason.
pub fn malformed(at: Ordinal, stream: Option<&str>, raw: &[u8], why: &str) -> Event {
    const KEPT: usize = 64 * 1024;
    let stream = stream.filter(|name| name.len() <= usize::from(u16::MAX)).unwrap_or_default();
    Assembler::new(stream, "")
        .data(&raw[..raw.len().min(KEPT)])
        .meta(why.as_bytes())
        .build(Kind::Malformed, at, 0)
        .expect("a malformed record needs no stream and has short texts")
}
