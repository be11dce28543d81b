//! The real binary, killed (SIGKILL) at random moments while it works.
//!
//! One daemon runs two pipelines over a growing directory. One writes a file and keeps its progress beside it. The other
//! keeps its progress in the database that it writes. After each kill the test compares the sinks' contents with the stored
//! progress. After the last kill it runs the job to its end.
//!
//! * Nothing is lost: each event that the progress covers is in the sink, and at the end every event is.
//! * In order: the first occurrences of a stream's events follow each other without a hole.
//! * The file repeats an event only if the previous kill found it written and not covered, and then once.
//! * The database repeats nothing: at each kill the progress covers exactly the written events.
//! * No truncated line stays. A kill seldom truncates one, so the test sometimes does.
//!
//! `PROPULSIOND_KILLS=200 cargo test --test it kill -- --nocapture` kills more often, `PROPULSIOND_KILL_SEED` draws other
//! moments.

mod feed;
mod left;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use propulsiond::clock::{Clock, Timestamp};

use crate::daemon::{LIMIT, Place, signal, text};
use feed::Feed;
use left::{Databases, Held, Progress};

/// Kills that CI makes.
const KILLS: u64 = 20;
/// The number of events at first, and the least number of unhandled events before each start.
const EVENTS: usize = 30_000;
const AHEAD: usize = 8_000;

const FILE: &str = r#"
[source.json]
path = "feed"
poll = "20ms"

[schedule]
commit_interval = "50ms"

[handler.rhai]
script = "copy.rhai"

[sink.file]
path = "file.jsonl"
"#;

/// Its log is small and often written back, so that kills meet that moment too.
const TABLE: &str = r#"
checkpoint = "sink"

[source.json]
path = "feed"
poll = "20ms"

[handler.rhai]
script = "copy.rhai"
params = { table = true }

[sink.sqlite]
path = "table.db"
log = "1MiB"
init = ["CREATE TABLE IF NOT EXISTS effects (stream TEXT NOT NULL, idx INTEGER NOT NULL)"]
"#;

/// Some streams are deferred and some are handled in part, so that the progress has a large set.
const COPY: &str = r#"
fn copy(stream, e) {
    if params.table == true {
        emit(#{ sql: "INSERT INTO effects VALUES (?1, ?2)", params: [stream.name, e.index] });
    } else {
        emit(#{ stream: stream.name, index: e.index, pad: e.data.pad });
    }
}

fn handle(stream, events) {
    if stream.id.ends_with("7") && time.now().unix_ms() % 4 != 0 {
        return defer("20ms");
    }
    if stream.id.ends_with("3") {
        copy(stream, events[0]);
        return upto(events[0].index + 1);
    }
    for e in events {
        copy(stream, e);
    }
}
"#;

#[test]
fn c9_c13_r1_r73_killed_at_any_moment_it_loses_nothing_and_repeats_only_what_was_not_stored() {
    let kills = number("PROPULSIOND_KILLS").unwrap_or(KILLS);
    let seed = number("PROPULSIOND_KILL_SEED").unwrap_or(1);
    let mut trial = Trial::new(seed);
    for kill in 1..=kills {
        let moment = Moment::draw(&mut trial.random);
        // Shown if the test fails.
        eprintln!("kill {kill} with seed {seed}: {moment:?}");
        trial.kill(&moment);
        trial.check();
        trial.cut_a_line();
    }
    trial.finish();
    eprintln!("{kills} kills, seed {seed}: {trial}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("it is a number"))
}

/// The moment of a kill.
#[derive(Debug)]
struct Moment {
    /// After so many lines were added to the file.
    lines: u64,
    /// The delay after that.
    delay: Duration,
    /// The daemon was told to stop just before.
    stopping: bool,
}

impl Moment {
    fn draw(random: &mut fastrand::Rng) -> Self {
        let lines = match random.u32(..10) {
            0 | 1 => 0,
            2..6 => 1 << random.u32(..12),
            _ => random.u64(1..4_000),
        };
        // A start takes a while, and so does a stop.
        let delay = Duration::from_micros(random.u64(..if lines == 0 { 300_000 } else { 30_000 }));
        Self { lines, delay, stopping: lines > 0 && random.u32(..8) == 0 }
    }
}

/// A place with its two pipelines, and the test's knowledge of it.
struct Trial {
    random: fastrand::Rng,
    place: Place,
    feed: Feed,
    file: Side,
    table: Side,
    /// The number of events that the file sink could have repeated, over all kills.
    could_repeat: u64,
    cut: u64,
}

/// One pipeline: the contents of its sink, and its stored progress.
#[derive(Default)]
struct Side {
    held: Held,
    progress: Progress,
}

impl Side {
    fn uncovered(&self, feed: &Feed) -> usize {
        feed.lines().iter().filter(|line| !self.progress.covers(line)).count()
    }

    /// Notes newer progress, which covers at least as much.
    fn advance(&mut self, feed: &Feed, progress: Progress) {
        let back = feed.lines().iter().find(|line| self.progress.covers(line) && !progress.covers(line));
        assert_eq!(back, None, "it was covered, and is not any more");
        self.progress = progress;
    }
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let place = Place::new(&[("file.toml", FILE), ("table.toml", TABLE), ("copy.rhai", COPY)]);
        let mut feed = Feed::new(place.path("pipelines/feed"), random.fork());
        let rest = feed.append(EVENTS);
        feed.append_rest(&rest);
        Self { random, place, feed, file: Side::default(), table: Side::default(), could_repeat: 0, cut: 0 }
    }

    /// Starts the daemon, waits for the moment, and kills it.
    fn kill(&mut self, moment: &Moment) {
        let ahead = self.file.uncovered(&self.feed).min(self.table.uncovered(&self.feed));
        let rest = self.feed.append(AHEAD.saturating_sub(ahead));
        let enough = self.file_size() + moment.lines * feed::SINK_LINE;
        let log = File::create(self.place.path("log")).unwrap();
        let mut child = self.place.command(&[]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        // A line may still lack its rest.
        self.feed.append_rest(&rest);
        self.wait_until(|| {
            assert_eq!(child.try_wait().unwrap(), None, "it ended by itself: {}", self.log());
            self.file_size() >= enough
        });
        if moment.stopping {
            signal(child.id(), "TERM");
        }
        let clock = Clock::start();
        self.wait_until(|| clock.now().since(Timestamp::ZERO) >= moment.delay);
        child.kill().unwrap();
        let code = child.wait().unwrap().code();
        assert!(code.is_none() || (code == Some(0) && moment.stopping), "it ended with {code:?}: {}", self.log());
        assert!(!self.log().contains(" ERROR "), "{}", self.log());
    }

    fn wait_until(&self, mut reached: impl FnMut() -> bool) {
        let clock = Clock::start();
        while !reached() {
            assert!(clock.now().since(Timestamp::ZERO) < LIMIT, "the moment does not come: {}", self.log());
            std::thread::park_timeout(Duration::from_micros(500));
        }
    }

    fn log(&self) -> String {
        self.place.read("log")
    }

    fn file_path(&self) -> PathBuf {
        self.place.path("data/file.jsonl")
    }

    fn file_size(&self) -> u64 {
        fs::metadata(self.file_path()).map_or(0, |metadata| metadata.len())
    }

    /// Compares the sinks' contents with the stored progress.
    fn check(&mut self) {
        let Self { feed, file, table, .. } = self;
        let databases = Databases::copy(&self.place.path("data"));
        file.held.take_lines(&self.place.path("data/file.jsonl"));
        file.advance(feed, Progress::load(&databases, "file", "propulsiond.db"));
        let not_covered = file.held.not_covered(feed, &file.progress);
        file.held.may_repeat(&not_covered);
        self.could_repeat += file.held.at_risk();

        table.held.take_rows(&databases);
        table.advance(feed, Progress::load(&databases, "table", "table.db"));
        // A line that the feed repeats is not written again: the write position was stored with the event (C13).
        let not_covered = table.held.not_covered(feed, &table.progress);
        assert_eq!(not_covered.into_iter().find(|line| !line.repeats), None, "it is there, but not covered");
    }

    /// Leaves half a line at the file's end, as a kill during a write does.
    fn cut_a_line(&mut self) {
        if self.file_size() == 0 || !self.file.held.ends_with_a_line() || self.random.u32(..4) > 0 {
            return;
        }
        let half = &br#"{"index":12345,"pad":"torn"#[..self.random.usize(1..26)];
        OpenOptions::new().append(true).open(self.file_path()).unwrap().write_all(half).unwrap();
        self.cut += 1;
    }

    /// Runs the job to its end, after which every event is written and covered.
    fn finish(&mut self) {
        // Progress was stored during the whole run, so that the last kill exposed a part of the events only.
        let (events, at_risk) = (self.file.held.events(), self.file.held.at_risk());
        assert!(at_risk < events / 2 || events < 10_000, "of {events} events, {at_risk} would come again");
        let output = self.place.run(&["--until-tail"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        self.check();
        for (name, side) in [("file", &self.file), ("table", &self.table)] {
            let missing = self.feed.lines().iter().find(|line| !side.held.holds(line) || !side.progress.covers(line));
            assert_eq!(missing, None, "it is not in the {name}, or not covered");
            assert!(side.held.ends_with_a_line(), "the last line has no end");
        }
        assert_eq!(self.table.held.repeated, 0);
        let (repeated, most) = (self.file.held.repeated, self.could_repeat);
        assert!(repeated <= most, "the file repeats {repeated} events, {most} at most were not covered at a kill");
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, lines) = (self.feed.events(), self.feed.lines().len());
        let (file, table) = (self.file.held.repeated, self.table.held.repeated);
        let Self { could_repeat, cut, .. } = self;
        write!(f, "{events} events in {lines} lines; the file repeats {file} of at most {could_repeat}, ")?;
        write!(f, "the table {table}; {cut} lines were cut and mended")
    }
}
