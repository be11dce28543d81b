//! The state that a killed daemon leaves: the contents of its sinks, and the stored progress.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use propulsiond::checkpoint::{CheckpointKey, CheckpointStore};
use propulsiond::config::scalar::Text;
use propulsiond::connector::Context;
use propulsiond::connector::sqlite::{CheckpointSettings, SqliteCheckpoints};
use propulsiond::position::{Ordinal, OrdinalSet, TrancheId};
use rusqlite::Connection;

use super::feed::{self, Feed, Line};

/// The stored progress of a pipeline.
#[derive(Default)]
pub(super) struct Progress {
    upto: Ordinal,
    handled: OrdinalSet,
}

impl Progress {
    /// Reads what a pipeline stored in a database.
    pub(super) fn load(databases: &Databases, pipeline: &str, database: &str) -> Self {
        let context = Context::new(pipeline, databases.0.path(), databases.0.path());
        let settings = CheckpointSettings { path: Text::literal(database), ..CheckpointSettings::default() };
        let store = SqliteCheckpoints::new(&settings, &context);
        let key = CheckpointKey { group: pipeline.into(), source: "json".into(), tranche: TrancheId::new("0") };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let Some(stored) = runtime.block_on(store.load(&key)).unwrap() else { return Self::default() };
        // A position in JSON lines has the file's number and the number of its read lines.
        let upto = stored.position.map_or(Ordinal::default(), |position| {
            let place: serde_json::Value = serde_json::from_str(&position.to_string()).unwrap();
            let number = |name: &str| place.get(name).map_or(0, |number| number.as_u64().unwrap());
            feed::ordinal(number("number"), number("line"))
        });
        Self { upto, handled: stored.handled }
    }

    pub(super) fn covers(&self, line: &Line) -> bool {
        line.at <= self.upto || self.handled.contains(line.at)
    }
}

/// Copies of the databases. The next daemon recovers the originals.
pub(super) struct Databases(tempfile::TempDir);

impl Databases {
    pub(super) fn copy(data: &Path) -> Self {
        let copies = tempfile::tempdir().unwrap();
        for name in ["propulsiond.db", "propulsiond.db-wal", "table.db", "table.db-wal"] {
            if data.join(name).exists() {
                fs::copy(data.join(name), copies.path().join(name)).unwrap();
            }
        }
        Self(copies)
    }
}

/// The contents of a sink up to the last look. Each look adds the lines since the one before.
#[derive(Default)]
pub(super) struct Held {
    /// The next index of each stream. All events before it are written.
    next: HashMap<usize, i64>,
    /// The bytes of the file, or the rows of the table, that were read so far.
    taken: u64,
    /// A file's last line lacks its newline only.
    open: bool,
    /// A file's last line is truncated.
    is_cut: bool,
    /// The lines that may be written again until the next look, each once.
    may_repeat: HashSet<(usize, i64)>,
    pub(super) repeated: u64,
}

impl Held {
    pub(super) fn holds(&self, line: &Line) -> bool {
        self.next.get(&line.stream).is_some_and(|next| line.index < *next)
    }

    /// Returns the number of different events.
    pub(super) fn events(&self) -> u64 {
        self.next.values().map(|next| next.cast_unsigned()).sum()
    }

    /// Returns the number of events that may be written again until the next look.
    pub(super) fn at_risk(&self) -> u64 {
        self.may_repeat.len() as u64
    }

    /// Returns whether a file's last line has its end.
    pub(super) fn ends_with_a_line(&self) -> bool {
        !self.is_cut && !self.open
    }

    /// Reads the lines that were added to a file.
    pub(super) fn take_lines(&mut self, path: &Path) {
        let Ok(mut file) = File::open(path) else { return };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.taken)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let mut rest = &text[..];
        if std::mem::take(&mut self.open) {
            rest = rest.strip_prefix('\n').unwrap_or_else(|| panic!("the last line did not get its newline: {rest}"));
        }
        while let Some((line, after)) = rest.split_once('\n') {
            let (stream, index) = parse(line).unwrap_or_else(|| panic!("this is no line of ours: {line}"));
            self.take(stream, index);
            rest = after;
        }
        // The sink completes a line that lacks its newline only, and cuts any other rest off.
        if let Some((stream, index)) = parse(rest) {
            self.take(stream, index);
            self.open = true;
            rest = "";
        }
        self.is_cut = !rest.is_empty();
        self.taken += (text.len() - rest.len()) as u64;
    }

    /// Reads the rows that were added to a table.
    pub(super) fn take_rows(&mut self, databases: &Databases) {
        let connection = Connection::open(databases.0.path().join("table.db")).unwrap();
        if !connection.table_exists(None, "effects").unwrap() {
            return;
        }
        let mut rows =
            connection.prepare("SELECT rowid, stream, idx FROM effects WHERE rowid > ?1 ORDER BY rowid").unwrap();
        let mut rows = rows.query([self.taken as i64]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            self.taken += 1;
            assert_eq!(row.get::<_, i64>(0).unwrap(), self.taken as i64, "rows are numbered without a hole");
            let stream = feed::stream(row.get_ref(1).unwrap().as_str().unwrap()).unwrap();
            self.take(stream, row.get(2).unwrap());
        }
    }

    /// Adds an event: the next one of its stream, or an expected repetition.
    fn take(&mut self, stream: usize, index: i64) {
        let next = self.next.entry(stream).or_insert(0);
        if index == *next {
            *next += 1;
            return;
        }
        assert!(index < *next, "event {index} of {stream} is there, event {next} is not");
        assert!(self.may_repeat.remove(&(stream, index)), "event {index} of {stream} was written again");
        self.repeated += 1;
    }

    /// Asserts that every covered event is written. Returns the written events that are not covered.
    pub(super) fn not_covered<'f>(&self, feed: &'f Feed, progress: &Progress) -> Vec<&'f Line> {
        let (covered, not_covered): (Vec<_>, Vec<_>) = feed.lines().iter().partition(|line| progress.covers(line));
        let lost = covered.into_iter().find(|line| !self.holds(line));
        assert_eq!(lost, None, "it is covered, but not there");
        not_covered.into_iter().filter(|line| self.holds(line)).collect()
    }

    /// Lets these be written again until the next look, each once.
    pub(super) fn may_repeat(&mut self, lines: &[&Line]) {
        self.may_repeat = lines.iter().map(|line| (line.stream, line.index)).collect();
    }
}

/// Returns stream and index of a line of the file, if it is whole.
fn parse(line: &str) -> Option<(usize, i64)> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let (stream, index) = (feed::stream(value.get("stream")?.as_str()?)?, value.get("index")?.as_i64()?);
    (value.get("pad")?.as_str()? == feed::pad(stream, index)).then_some((stream, index))
}
