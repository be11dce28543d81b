//! The feeds that the cases run on.

use std::fs;
use std::io::Write as _;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use propulsiond::config::scalar::Text;
use propulsiond::connector::{Context, generate, json, memory};
use propulsiond::event::{Assembler, Event, Kind};
use propulsiond::formats::encode;
use propulsiond::position::{Ordinal, Position, TrancheId};
use propulsiond::source::{Source, SourceErrorKind};

use super::Harness;

/// The number of events in a batch.
const BATCH: NonZeroUsize = NonZeroUsize::new(7).unwrap();
/// The number of events in a file or tranche at first.
const EVENTS: usize = 40;

/// Event `n` of a part of a feed. Each part has three streams of its own.
fn event(part: usize, number: usize) -> Event {
    Assembler::new(&format!("part{part}-{}", number % 3), "Happened")
        .data(format!("{{\"number\":{number}}}").as_bytes())
        .build(Kind::Event, Ordinal::new(number as u64, 0), (number / 3) as i64)
        .unwrap()
}

fn context(folder: PathBuf) -> Context {
    Context::new("p", folder.clone(), folder)
}

/// Files of JSON lines.
pub(super) struct Json {
    folder: tempfile::TempDir,
    settings: json::Settings,
    files: Vec<(&'static str, usize)>,
}

impl Json {
    pub(super) fn file() -> Self {
        Self::new("feed/a.jsonl", &["a.jsonl"], false)
    }

    pub(super) fn folder() -> Self {
        Self::new("feed", &["a.jsonl", "b.jsonl"], false)
    }

    pub(super) fn tranche_per_file() -> Self {
        Self::new("feed", &["a.jsonl", "b.jsonl"], true)
    }

    pub(super) fn gzip() -> Self {
        Self::new("feed", &["a.jsonl.gz", "b.jsonl.gz"], false)
    }

    /// The same events as rows of CSV, by a mapping.
    pub(super) fn table() -> Self {
        let map = "format = \"csv\"\nstream = \"/stream\"\ntype = \"/type\"\nindex = \"/index\"";
        let settings = |settings: &mut json::Settings| settings.map = Some(toml::from_str(map).unwrap());
        Self::with("feed", &["a.csv", "b.csv"], settings)
    }

    fn new(path: &str, files: &[&'static str], tranche_per_file: bool) -> Self {
        Self::with(path, files, |settings| settings.tranche_per_file = tranche_per_file)
    }

    fn with(path: &str, files: &[&'static str], set: impl FnOnce(&mut json::Settings)) -> Self {
        let mut settings = json::Settings {
            path: Text::literal(path),
            batch: BATCH,
            poll: Duration::from_millis(5),
            ..json::Settings::default()
        };
        set(&mut settings);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("feed")).unwrap();
        let mut feed = Self { folder, settings, files: files.iter().map(|name| (*name, 0)).collect() };
        for file in 0..files.len() {
            feed.add(file, EVENTS);
        }
        feed
    }

    fn path(&self, file: usize) -> PathBuf {
        self.folder.path().join("feed").join(self.files[file].0)
    }

    fn add(&mut self, file: usize, count: usize) {
        let before = self.files[file].1;
        let mut lines = Vec::new();
        let is_table = self.settings.map.is_some();
        if is_table && before == 0 {
            lines.extend_from_slice(b"index,type,stream,number\n");
        }
        for number in before..before + count {
            let event = event(file, number);
            if is_table {
                // A field over two lines, so that no line alone is a record.
                write!(lines, "{},Happened,{},\"{number}\n\"", event.index(), event.stream()).unwrap();
            } else {
                encode::event_line(&event, &mut lines);
            }
            lines.push(b'\n');
        }
        if self.files[file].0.ends_with(".gz") {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&lines).unwrap();
            lines = encoder.finish().unwrap();
        }
        fs::File::options().append(true).create(true).open(self.path(file)).unwrap().write_all(&lines).unwrap();
        self.files[file].1 += count;
    }
}

impl Harness for Json {
    fn source(&mut self) -> Arc<dyn Source> {
        let context = context(self.folder.path().to_owned());
        Arc::new(json::source(&self.settings, &context, false).unwrap())
    }

    fn count(&self) -> usize {
        self.files.iter().map(|(_, count)| count).sum()
    }

    fn clear(&mut self) {
        for file in 0..self.files.len() {
            fs::write(self.path(file), "").unwrap();
            self.files[file].1 = 0;
        }
    }

    fn append(&mut self, count: usize) -> bool {
        self.add(self.files.len() - 1, count);
        true
    }

    fn break_down(&mut self, _tranche: &TrancheId) -> bool {
        fs::rename(self.folder.path().join("feed"), self.folder.path().join("away")).unwrap();
        true
    }

    fn repair(&mut self) {
        fs::rename(self.folder.path().join("away"), self.folder.path().join("feed")).unwrap();
    }

    fn lose(&mut self, behind_first: Position) -> Position {
        // Other files take their places, and begin with later events.
        for file in 0..self.files.len() {
            fs::rename(self.path(file), self.folder.path().join(format!("old-{file}"))).unwrap();
            self.add(file, EVENTS);
        }
        behind_first
    }
}

/// Generated events.
pub(super) struct Generated(generate::Settings);

impl Generated {
    pub(super) fn new() -> Self {
        Self(generate::Settings {
            streams: NonZeroU64::new(9).unwrap(),
            tranches: NonZeroU32::new(2).unwrap(),
            count: Some(2 * EVENTS as u64),
            duplicates: 0.2,
            batch: BATCH,
            ..generate::Settings::default()
        })
    }
}

impl Harness for Generated {
    fn source(&mut self) -> Arc<dyn Source> {
        Arc::new(generate::source(&self.0, &context(PathBuf::new())).unwrap())
    }

    fn count(&self) -> usize {
        self.0.count.unwrap() as usize
    }

    fn clear(&mut self) {
        self.0.count = Some(0);
    }
}

/// A feed in memory.
pub(super) struct Memory {
    feed: memory::source::MemoryFeed,
    counts: [usize; 2],
}

impl Memory {
    pub(super) fn new() -> Self {
        let mut harness = Self::empty();
        for part in 0..2 {
            for _ in 0..EVENTS / BATCH {
                harness.push(part, BATCH.get());
            }
        }
        harness
    }

    fn empty() -> Self {
        let feed = memory::source::MemoryFeed::dense();
        for part in 0..2 {
            feed.add(&Self::tranche(part));
        }
        Self { feed, counts: [0; 2] }
    }

    fn tranche(part: usize) -> TrancheId {
        TrancheId::new(part.to_string())
    }

    fn push(&mut self, part: usize, count: usize) {
        let before = self.counts[part];
        self.feed.push(&Self::tranche(part), (before..before + count).map(|number| event(part, number)).collect());
        self.counts[part] += count;
    }
}

impl Harness for Memory {
    fn source(&mut self) -> Arc<dyn Source> {
        Arc::new(self.feed.source())
    }

    fn count(&self) -> usize {
        self.counts.iter().sum()
    }

    fn clear(&mut self) {
        *self = Self::empty();
    }

    fn append(&mut self, count: usize) -> bool {
        self.push(1, count);
        true
    }

    fn break_down(&mut self, tranche: &TrancheId) -> bool {
        self.feed.fail_next_read(tranche, SourceErrorKind::Unavailable);
        true
    }

    fn reassign(&mut self, tranche: &TrancheId) -> bool {
        self.feed.remove(tranche, Duration::from_secs(1));
        self.feed.add(tranche);
        true
    }

    fn lose(&mut self, behind_first: Position) -> Position {
        for part in 0..2 {
            self.feed.forget_before(&Self::tranche(part), 2 * BATCH.get() as u64);
        }
        behind_first
    }
}
