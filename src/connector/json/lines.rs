//! Turns the bytes of a file into batches of events, each with the place behind it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Options;
use super::input::Broken;
use super::place::{Head, Place};
use crate::event::{Event, malformed};
use crate::formats::jsonlines::{self, is_blank_or_comment};
use crate::position::Ordinal;
use crate::source::{Batch, Lag, LagUnit};

/// The longest line that is read. What is longer becomes a malformed record.
const MAX_LINE: usize = 64 << 20;
/// How much of such a line is kept.
const KEPT: usize = 64 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How far the number of a file is shifted to make room for that of a line.
const LINE_BITS: u32 = 40;

/// The lines of one file.
#[derive(Debug)]
pub(super) struct Lines {
    options: Arc<Options>,
    /// What messages call the file.
    shown: String,
    /// Behind the last line that was taken.
    pub(super) place: Place,
    /// The file's head is that of the bytes taken (those of a compressed file are not what is stored).
    pub(super) is_plain: bool,
    /// Where everything there is to read ends, counted from the start of this file, as far as that is known.
    pub(super) end: Option<u64>,
    /// The start of a line whose end was not read yet.
    partial: Vec<u8>,
    /// How many bytes of that are known to hold no newline.
    searched: usize,
    /// How much of that line was not kept.
    dropped: u64,
}

/// Gathers events into batches.
#[derive(Debug, Default)]
pub(super) struct Batches {
    events: Vec<Event>,
    pub(super) whole: Vec<Batch>,
}

impl Lines {
    pub(super) fn new(options: Arc<Options>, shown: String, place: Place, is_plain: bool) -> Self {
        Self { options, shown, place, is_plain, end: None, partial: Vec::new(), searched: 0, dropped: 0 }
    }

    /// Returns what is to be read into: the start of the line that comes next.
    pub(super) fn take_partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// Gives the buffer back after a read that failed, with what that had read before.
    pub(super) fn put_back(&mut self, buffer: Vec<u8>) {
        self.partial = buffer;
    }

    /// Gives the buffer back, with what was read.
    pub(super) fn absorb(&mut self, buffer: Vec<u8>, batches: &mut Batches) {
        let Some(last) = memchr::memrchr(b'\n', &buffer[self.searched..]).map(|at| at + self.searched) else {
            return self.keep(buffer);
        };
        self.partial = buffer[last + 1..].to_vec();
        self.searched = self.partial.len();
        let buffer = Bytes::from(buffer);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &buffer[..=last]) {
            self.line(&buffer, start, end, batches);
            start = end + 1;
        }
        self.flush(batches);
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        if buffer.len() > MAX_LINE {
            self.dropped += (buffer.len() - KEPT) as u64;
            buffer.truncate(KEPT);
        }
        self.searched = buffer.len();
        self.partial = buffer;
    }

    /// Takes a line that ends with a newline at `end`.
    fn line(&mut self, buffer: &Bytes, start: usize, end: usize, batches: &mut Batches) {
        let continues = std::mem::take(&mut self.place.open);
        self.advance(&buffer[start..=end]);
        let bare = if end > start && buffer[end - 1] == b'\r' { end - 1 } else { end };
        self.event(buffer, start..bare, continues, batches);
        if batches.events.len() >= self.options.batch {
            self.flush(batches);
        }
    }

    fn advance(&mut self, bytes: &[u8]) {
        if self.is_plain && self.place.offset < Head::WINDOW {
            self.place.head.extend(bytes);
        }
        self.place.offset += bytes.len() as u64 + self.dropped;
    }

    /// Reads a line, `continues`: the rest of one that was taken before it had its newline.
    fn event(&mut self, buffer: &Bytes, range: Range<usize>, continues: bool, batches: &mut Batches) {
        let dropped = std::mem::take(&mut self.dropped);
        let line = &buffer[range.clone()];
        if continues {
            if !line.trim_ascii().is_empty() {
                let why = "the line was taken without this, as it had no newline then";
                self.malformed(u32::MAX, None, line, why, batches);
            }
            return;
        }
        self.place.line += 1;
        if self.place.line <= self.options.skip || is_blank_or_comment(line) {
            return;
        }
        if dropped > 0 {
            return self.malformed(0, None, line, "the line is longer than 64 MiB", batches);
        }
        let place = jsonlines::Place { major: self.major(), indexing: self.options.indexing };
        let has_mark = self.place.line == 1 && line.starts_with(BYTE_ORDER_MARK);
        let start = range.start + if has_mark { BYTE_ORDER_MARK.len() } else { 0 };
        if let Err(bad) = jsonlines::parse(buffer.slice(start..range.end), place, &mut batches.events) {
            self.malformed(0, bad.stream(), line, &bad.to_string(), batches);
        }
    }

    fn major(&self) -> u64 {
        self.place.number << LINE_BITS | self.place.line
    }

    fn malformed(&self, minor: u32, stream: Option<&str>, raw: &[u8], why: &str, batches: &mut Batches) {
        let why = format!("{}:{}: {why}", self.shown, self.place.line);
        batches.events.push(malformed(Ordinal::new(self.major(), minor), stream, raw, &why));
    }

    /// Takes what is left at the end of a file that is not expected to grow: a line without a newline counts if it is
    /// whole. If it grows all the same, what follows that line is malformed.
    pub(super) fn finish(&mut self, broken: Option<&Broken>, batches: &mut Batches) {
        if !self.partial.is_empty() {
            let line = Bytes::from(self.take_partial());
            self.searched = 0;
            self.advance(&line);
            self.event(&line, 0..line.len(), self.place.open, batches);
            self.place.open = true;
        } else if let Some(broken) = broken
            && !self.place.open
        {
            self.place.line += 1;
            let why = match broken {
                Broken::Cut => "the compressed file is cut short".to_owned(),
                Broken::Corrupt(why) => format!("the rest of the file cannot be decompressed: {why}"),
            };
            self.malformed(0, None, &[], &why, batches);
            self.place.open = true;
        }
        self.flush(batches);
    }

    /// Ends a batch here, if there is anything in it.
    fn flush(&mut self, batches: &mut Batches) {
        let lag = self.lag();
        let events = std::mem::take(&mut batches.events);
        if let Some(last) = batches.whole.last_mut()
            && events.is_empty()
        {
            last.resume_at = self.place.position();
            last.lag = lag;
            return;
        }
        batches.whole.push(Batch { events, resume_at: self.place.position(), at_tail: false, lag });
    }

    pub(super) fn lag(&self) -> Option<Lag> {
        let end = self.end?;
        Some(Lag { amount: end.saturating_sub(self.place.offset), unit: LagUnit::Bytes })
    }
}
