//! A directory of JSON lines that grows, and where each event stands in it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use propulsiond::position::Ordinal;

const STREAMS: usize = 300;
/// About what a line takes in the file that is written, in bytes.
pub(super) const SINK_LINE: u64 = 130;

/// One line of the directory.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) stream: usize,
    pub(super) index: i64,
    pub(super) at: Ordinal,
    /// The event was there before.
    pub(super) repeats: bool,
}

/// The events and the files they are in, which are read as one log.
pub(super) struct Feed {
    directory: PathBuf,
    random: fastrand::Rng,
    lines: Vec<Line>,
    /// The repeated lines, each repeated once.
    repeated: std::collections::HashSet<usize>,
    next: Vec<i64>,
    /// The number of the file that grows, and how many lines it has.
    file: u64,
    file_lines: u64,
}

impl Feed {
    pub(super) fn new(directory: PathBuf, random: fastrand::Rng) -> Self {
        fs::create_dir(&directory).unwrap();
        Self {
            directory,
            random,
            lines: Vec::new(),
            repeated: std::collections::HashSet::new(),
            next: vec![0; STREAMS],
            file: 0,
            file_lines: 0,
        }
    }

    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Returns how many different events there are.
    pub(super) fn events(&self) -> i64 {
        self.next.iter().sum()
    }

    /// Appends so many lines to the last file, or to a new one, but for the rest that it returns, which begins anywhere.
    pub(super) fn append(&mut self, count: usize) -> Vec<u8> {
        if count == 0 {
            return Vec::new();
        }
        if self.random.bool() && self.file_lines > 0 {
            self.file += 1;
            self.file_lines = 0;
        }
        let mut text = Vec::new();
        for _ in 0..count {
            let (stream, index, repeats) = self.draw();
            self.file_lines += 1;
            let at = ordinal(self.file, self.file_lines);
            self.lines.push(Line { stream, index, at, repeats });
            let (stream, pad) = (name(stream), pad(stream, index));
            writeln!(text, r#"{{"stream":"{stream}","index":{index},"type":"Moved","data":{{"pad":"{pad}"}}}}"#)
                .unwrap();
        }
        let rest = text.split_off(self.random.usize(..text.len()));
        self.append_rest(&text);
        rest
    }

    pub(super) fn append_rest(&mut self, rest: &[u8]) {
        let path = self.directory.join(format!("{:05}.jsonl", self.file));
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(rest).unwrap();
    }

    /// Draws what comes next: now and then an event again, soon after it was there or much later.
    fn draw(&mut self) -> (usize, i64, bool) {
        let back = match self.random.u32(..200) {
            0 => self.random.usize(1..30_000),
            1..4 => self.random.usize(1..50),
            _ => 0,
        };
        if let Some(again) = self.lines.len().checked_sub(back.max(1))
            && back > 0
            && !self.lines[again].repeats
            && self.repeated.insert(again)
        {
            return (self.lines[again].stream, self.lines[again].index, true);
        }
        let stream = self.random.usize(..STREAMS);
        self.next[stream] += 1;
        (stream, self.next[stream] - 1, false)
    }
}

/// Returns the ordinal of a line, by the numbers of its file and of itself.
pub(super) fn ordinal(file: u64, line: u64) -> Ordinal {
    Ordinal::new(file << 40 | line, 0)
}

fn name(stream: usize) -> String {
    format!("account-{stream}")
}

/// Returns which stream has this name.
pub(super) fn stream(name: &str) -> Option<usize> {
    name.strip_prefix("account-")?.parse().ok()
}

/// Filler that makes each event unique.
pub(super) fn pad(stream: usize, index: i64) -> String {
    format!("{stream}.{index},").repeat(1 + (stream + index as usize) % 20)
}
