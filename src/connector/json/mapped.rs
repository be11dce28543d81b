//! Foreign records in a file: their ends, their header, and the places of their events.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::input::{self, Input};
use super::position::FilePosition;
use crate::event::Event;
use crate::formats::jsonlines::{BadLine, without_byte_order_mark};
use crate::formats::map::{EventPlace, Misfit, RecordMap};
use crate::formats::records::{Converter, Cutter, MAX_HEADER};
use crate::position::Ordinal;

/// The number of bits that an ordinal's major has for the line; those above hold the number of the file.
pub(super) const LINE_BITS: u32 = 40;

/// The bits of an index that is made for an item of an unrolled array: 19 for the file, 28 for the line, 16 for the item.
/// Without an array, the index is the major of the ordinal (C2).
const ITEM_BITS: u32 = 16;
const ITEM_LINE_BITS: u32 = 28;
const ITEM_FILE_BITS: u32 = 63 - ITEM_LINE_BITS - ITEM_BITS;

/// The state of the mapping of one file.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) cutter: Cutter,
    converter: Converter,
}

impl Mapped {
    pub(super) fn new(map: &RecordMap) -> Self {
        Self { cutter: Cutter::new(&map.format), converter: Converter::new(&map.format) }
    }

    /// Begins a new record, after a file was read to its end without a line break.
    pub(super) fn restart(&mut self, map: &RecordMap) {
        self.cutter = Cutter::new(&map.format);
    }

    /// Returns the line breaks that end records. The bytes before `searched` were scanned before.
    pub(super) fn ends(&mut self, text: &[u8], searched: usize) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut from = searched;
        while let Some(end) = self.cutter.next_end(text, from) {
            ends.push(end);
            from = end + 1;
        }
        ends
    }

    /// Maps a record that begins in the position's line. `take` gets the minor of each ordinal with its event, or with the
    /// malformed text and the reason.
    pub(super) fn record(
        &mut self,
        map: &RecordMap,
        text: Bytes,
        position: &FilePosition,
        mut take: impl FnMut(u32, Result<Event, (Bytes, BadLine)>),
    ) {
        let json = match self.converter.convert(text.clone()) {
            Ok(Some(json)) => json,
            Ok(None) => return,
            Err(bad) => return take(0, Err((text, bad))),
        };
        map.map.apply(
            &json,
            |item| place(map, position, item),
            |result| match result {
                Ok(event) => take(event.at().minor, Ok(event)),
                Err(Misfit { item, range, why }) => {
                    let raw = if map.format.is_verbatim() { json.slice(range) } else { text.clone() };
                    take(item, Err((raw, why)));
                }
            },
        );
    }

    /// Reads the header of a file again, to resume behind it.
    pub(super) fn restore_header(&mut self, map: &RecordMap, path: &Path, skip: u64) -> io::Result<()> {
        if !self.converter.awaits_header() {
            return Ok(());
        }
        let mut text = Vec::new();
        if let Some(mut input) = Input::open(path, 0)? {
            // A header that does not end within the limit is refused, as it was when it was read first.
            while text.len() <= MAX_HEADER && matches!(input.read(&mut text)?, input::Bytes::Read(_)) {}
        }
        let mut rest = Bytes::from(text);
        rest = rest.slice_ref(without_byte_order_mark(&rest));
        let mut cutter = Cutter::new(&map.format);
        let mut line = 1;
        while self.converter.awaits_header() && !rest.is_empty() {
            let end = cutter.next_end(&rest, 0).unwrap_or(rest.len());
            let row = rest.split_to(end);
            if line > skip {
                // The header cannot be malformed: a bad one makes the rows malformed.
                let _row = self.converter.convert(row.slice(..row.strip_suffix(b"\r").unwrap_or(&row).len()));
            }
            line += 1 + line_breaks(&row);
            rest = rest.slice(rest.len().min(1)..);
        }
        Ok(())
    }
}

/// Returns the major of the ordinals of the position's line.
pub(super) fn major(position: &FilePosition) -> u64 {
    position.number << LINE_BITS | position.line
}

/// Returns the number of line breaks in a text.
pub(super) fn line_breaks(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// Returns the place of an event.
fn place(map: &RecordMap, position: &FilePosition, item: u32) -> Result<EventPlace, BadLine> {
    let at = Ordinal::new(major(position), item);
    let (file, line, part) = (position.number, position.line, u64::from(item));
    let index = match (map.has_index, map.map.unrolls()) {
        (true, _) => Some(0),
        (false, false) => i64::try_from(at.major).ok(),
        (false, true) if file >> ITEM_FILE_BITS != 0 || line >> ITEM_LINE_BITS != 0 || part >> ITEM_BITS != 0 => None,
        (false, true) => i64::try_from((file << ITEM_LINE_BITS | line) << ITEM_BITS | part).ok(),
    };
    let index =
        index.ok_or_else(|| BadLine::new("no index can be made of so high a file, line or item: set `map.index`"))?;
    Ok(EventPlace { at, index })
}
