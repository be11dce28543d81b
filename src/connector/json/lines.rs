//! Cuts the bytes of a file into lines, and gathers their events into batches, each with the position behind it.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::Options;
use super::gzip::Broken;
use super::mapped::{self, Mapped};
use super::position::FilePosition;
use super::proof::Proof;
use crate::event::{Event, malformed};
use crate::formats::jsonlines::{self, LineOrigin, is_blank_or_comment, without_byte_order_mark};
use crate::position::Ordinal;
use crate::source::{Batch, Lag, LagUnit};

/// The longest line that is read. A longer one becomes a malformed record.
const MAX_LINE: usize = 64 << 20;
/// The number of bytes kept of a longer line.
const KEPT: usize = 64 << 10;
/// The lines of one file.
#[derive(Debug)]
pub(super) struct Lines {
    options: Arc<Options>,
    /// The file's path in messages.
    shown: String,
    /// The position behind the last line that is part of a batch.
    pub(super) position: FilePosition,
    /// The proof of the bytes before the last batch's end.
    proof: Proof,
    /// The head in the position is that of the read bytes (those of a compressed file differ from the stored ones).
    is_plain: bool,
    /// The end of everything there is to read, counted from the start of this file, as far as it is known.
    pub(super) end: Option<u64>,
    /// The start of a line whose end was not read yet.
    partial: Vec<u8>,
    /// The number of its bytes that are known to hold no newline.
    searched: usize,
    /// The number of bytes of that line that were not kept.
    dropped: u64,
    /// The number of line breaks among them, if a record may span lines.
    dropped_lines: u64,
    /// The proof up to the end of what was read of a line that is not kept whole. It covers the kept bytes.
    ahead: Option<Proof>,
    /// The state of the mapping of foreign records, if there is one.
    mapped: Option<Mapped>,
}

/// Gathers events into batches.
#[derive(Debug, Default)]
pub(super) struct Batches {
    events: Vec<Event>,
    pub(super) complete: Vec<Batch>,
}

impl Lines {
    pub(super) fn new(
        options: Arc<Options>,
        shown: String,
        position: FilePosition,
        proof: Proof,
        is_plain: bool,
    ) -> Self {
        let mapped = options.map.as_ref().map(Mapped::new);
        Self {
            options,
            shown,
            position,
            proof,
            is_plain,
            end: None,
            partial: Vec::new(),
            searched: 0,
            dropped: 0,
            dropped_lines: 0,
            ahead: None,
            mapped,
        }
    }

    /// Reads the header of a file that is resumed behind it.
    pub(super) fn restore_header(&mut self, path: &Path) -> io::Result<()> {
        match (&mut self.mapped, &self.options.map) {
            (Some(mapped), Some(map)) if self.position.offset > 0 => {
                mapped.restore_header(map, path, self.options.skip)
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the unfinished line is a whole document, so that it needs no line break.
    pub(super) fn has_whole_document(&self) -> bool {
        !self.partial.is_empty() && self.mapped.as_ref().is_some_and(|mapped| mapped.cutter.is_whole_document())
    }

    /// Returns the buffer to read into. It begins with the unfinished line.
    pub(super) fn take_partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// Takes the buffer back after a failed read, with the bytes that were read before the failure.
    pub(super) fn put_back(&mut self, buffer: Vec<u8>) {
        self.partial = buffer;
    }

    /// Takes the buffer back after a read, and appends the complete lines.
    pub(super) fn absorb(&mut self, buffer: Vec<u8>, batches: &mut Batches) {
        if let Some(mapped) = self.mapped.as_mut().filter(|mapped| !mapped.cutter.is_simple()) {
            let ends = mapped.ends(&buffer, self.searched);
            let Some(last) = ends.last().copied() else { return self.keep(buffer) };
            let buffer = self.split(buffer, last);
            return self.take(&buffer, ends.into_iter(), batches);
        }
        let Some(last) = memchr::memrchr(b'\n', &buffer[self.searched..]).map(|at| at + self.searched) else {
            return self.keep(buffer);
        };
        let buffer = self.split(buffer, last);
        self.take(&buffer, memchr::memchr_iter(b'\n', &buffer[..=last]), batches);
    }

    /// Keeps the bytes behind the last end for the next read.
    fn split(&mut self, buffer: Vec<u8>, last: usize) -> Bytes {
        self.partial = buffer[last + 1..].to_vec();
        self.searched = self.partial.len();
        Bytes::from(buffer)
    }

    /// Appends the lines that end at `ends`.
    fn take(&mut self, buffer: &Bytes, ends: impl Iterator<Item = usize>, batches: &mut Batches) {
        let mut proven = self.take_ahead();
        let mut start = 0;
        for end in ends {
            self.line(buffer, start, end, batches);
            start = end + 1;
            if batches.events.len() >= self.options.batch {
                self.proof.extend(&buffer[proven..start]);
                proven = start;
                self.flush(batches);
            }
        }
        self.proof.extend(&buffer[proven..start]);
        self.flush(batches);
    }

    /// Takes the proof of a line that was not kept whole, now that it is complete; returns the number of bytes at the
    /// start of the buffer that the proof covers.
    fn take_ahead(&mut self) -> usize {
        self.ahead.take().map_or(0, |ahead| {
            self.proof = ahead;
            KEPT
        })
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        if buffer.len() > MAX_LINE {
            let proven = if self.ahead.is_some() { KEPT } else { 0 };
            self.ahead.get_or_insert_with(|| self.proof.clone()).extend(&buffer[proven..]);
            self.dropped += (buffer.len() - KEPT) as u64;
            if self.mapped.is_some() {
                self.dropped_lines += mapped::line_breaks(&buffer[KEPT..]);
            }
            buffer.truncate(KEPT);
        }
        self.searched = buffer.len();
        self.partial = buffer;
    }

    /// Takes a line that ends with a newline at `end`.
    fn line(&mut self, buffer: &Bytes, start: usize, end: usize, batches: &mut Batches) {
        let continues = std::mem::take(&mut self.position.open);
        self.advance(end + 1 - start);
        let bare = if end > start && buffer[end - 1] == b'\r' { end - 1 } else { end };
        self.event(buffer, start..bare, continues, batches);
    }

    fn advance(&mut self, bytes: usize) {
        self.position.offset += bytes as u64 + self.dropped;
    }

    /// Reads a line, or a record of several. `continues`: it is the rest of one that was taken before it had its newline.
    fn event(&mut self, buffer: &Bytes, mut range: Range<usize>, continues: bool, batches: &mut Batches) {
        let (dropped, dropped_lines) = (std::mem::take(&mut self.dropped), std::mem::take(&mut self.dropped_lines));
        if continues {
            let line = &buffer[range];
            if !line.trim_ascii().is_empty() {
                let why = "the line was taken without this, as it had no newline then";
                self.malformed(u32::MAX, None, line, why, batches);
            }
            return;
        }
        self.position.line += 1;
        if self.position.line == 1 {
            range.start = range.end - without_byte_order_mark(&buffer[range.clone()]).len();
        }
        let line = &buffer[range.clone()];
        if dropped > 0 {
            self.malformed(0, None, line, "the line is longer than 64 MiB", batches);
        } else if self.mapped.is_some() {
            self.record(buffer.slice(range.clone()), batches);
        } else if self.position.line > self.options.skip && !is_blank_or_comment(line) {
            let origin = LineOrigin { major: self.major(), indexing: self.options.indexing };
            if let Err(bad) = jsonlines::parse(buffer.slice(range), origin, &mut batches.events) {
                self.malformed(0, bad.stream(), line, &bad.to_string(), batches);
            }
            return;
        }
        if self.mapped.is_some() {
            // The position counts every line. The record itself has the number of its first one.
            self.position.line += mapped::line_breaks(&buffer[range]) + dropped_lines;
        }
    }

    /// Maps a foreign record.
    fn record(&mut self, text: Bytes, batches: &mut Batches) {
        let Self { options, mapped, position, shown, .. } = self;
        let (Some(map), Some(mapped)) = (&options.map, mapped) else { return };
        if position.line <= options.skip {
            return;
        }
        mapped.record(map, text, position, |minor, event| {
            batches.events.push(event.unwrap_or_else(|(raw, bad)| {
                let why = format!("{shown}:{}: {bad}", position.line);
                malformed(Ordinal::new(mapped::major(position), minor), bad.stream(), &raw, &why)
            }));
        });
    }

    fn major(&self) -> u64 {
        mapped::major(&self.position)
    }

    fn malformed(&self, minor: u32, stream: Option<&str>, raw: &[u8], why: &str, batches: &mut Batches) {
        let why = format!("{}:{}: {why}", self.shown, self.position.line);
        batches.events.push(malformed(Ordinal::new(self.major(), minor), stream, raw, &why));
    }

    /// Takes the rest of a file that is not expected to grow: a line without a newline counts if it is complete. If the
    /// file grows all the same, the bytes behind that line are malformed.
    pub(super) fn finish(&mut self, broken: Option<&Broken>, batches: &mut Batches) {
        if !self.partial.is_empty() {
            let line = Bytes::from(self.take_partial());
            self.searched = 0;
            let proven = self.take_ahead();
            self.proof.extend(&line[proven..]);
            self.advance(line.len());
            self.event(&line, 0..line.len(), self.position.open, batches);
            self.position.open = true;
            if let (Some(mapped), Some(map)) = (&mut self.mapped, &self.options.map) {
                mapped.restart(map);
            }
        } else if let Some(broken) = broken
            && !self.position.open
        {
            self.position.line += 1;
            let why = match broken {
                Broken::Truncated => "the compressed file is truncated".to_owned(),
                Broken::Corrupt(why) => format!("the rest of the file cannot be decompressed: {why}"),
            };
            self.malformed(0, None, &[], &why, batches);
            self.position.open = true;
        }
        self.flush(batches);
    }

    /// Ends a batch here, if there is anything in it.
    fn flush(&mut self, batches: &mut Batches) {
        if self.is_plain {
            self.position.head = self.proof.head();
        }
        (self.position.sum, self.position.tail) = (Some(self.proof.sum()), Some(self.proof.tail()));
        let lag = self.lag();
        let events = std::mem::take(&mut batches.events);
        let resume_at = self.position.encode();
        if let Some(last) = batches.complete.last_mut()
            && events.is_empty()
        {
            (last.resume_at, last.lag) = (resume_at, lag);
            return;
        }
        batches.complete.push(Batch { events, resume_at, at_tail: false, lag });
    }

    pub(super) fn lag(&self) -> Option<Lag> {
        let end = self.end?;
        Some(Lag { amount: end.saturating_sub(self.position.offset), unit: LagUnit::Bytes })
    }
}
