mod ahead;
mod foreign;
mod forms;
mod numbers;
mod order;
mod replaced;

use std::fs;
use std::io::Write as _;

use super::log::LogRead;
use super::position::FilePosition;
use super::*;
use crate::event::{Event, Kind};
use crate::position::{Ordinal, Position};
use crate::source::{Next, Room};

const REMEDY: &str = "; `on_replaced = \"restart\"` in `[source.json]` reads it from its start";

/// A directory with the log that reads it.
struct Fixture {
    directory: tempfile::TempDir,
    settings: Settings,
    finite: bool,
    log: Option<Log>,
    position: StartAt,
    ahead: Option<Ahead>,
    pipeline: &'static str,
}

impl Fixture {
    fn new() -> Self {
        let settings = Settings { path: Text::literal("in"), ..Settings::default() };
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("in")).unwrap();
        Self { directory, settings, finite: false, log: None, position: StartAt::Origin, ahead: None, pipeline: "p" }
    }

    fn restarting() -> Self {
        let mut fixture = Self::new();
        fixture.settings.on_replaced = OnReplaced::Restart;
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("in").join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = fs::File::options().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Replaces a file by another one, as editors do.
    fn replace(&self, name: &str, text: &str) {
        fs::write(self.path("tmp"), text).unwrap();
        fs::rename(self.path("tmp"), self.path(name)).unwrap();
    }

    fn context(&self) -> Context {
        let mut context = Context::new(self.pipeline, self.directory.path(), self.directory.path().join("data"));
        context.group = "g".into();
        context
    }

    fn read_once(&mut self) -> Result<LogRead, SourceError> {
        if self.log.is_none() {
            let options = Arc::new(Options::new(&self.settings, &self.context(), self.finite).unwrap());
            self.log = Some(Log::new(options, None, &self.position, self.ahead.as_ref())?);
        }
        self.log.as_mut().unwrap().read()
    }

    /// Reads to the tail; returns the events, or the error that came instead.
    fn read(&mut self) -> Result<Vec<Event>, SourceError> {
        let mut events = Vec::new();
        loop {
            let read = self.read_once()?;
            for batch in read.batches {
                self.position = StartAt::Position(batch.resume_at);
                events.extend(batch.events);
            }
            if read.end != LogEnd::More {
                return Ok(events);
            }
        }
    }

    fn check(&mut self, expected: &str) {
        let shown = match self.read() {
            Ok(events) => events.iter().map(show).collect::<Vec<_>>().join(" "),
            Err(error) => {
                let text = error.to_string().replace(&*self.directory.path().to_string_lossy(), "");
                let text = text.replace(REMEDY, " (remedy)");
                format!("{:?}: {text}", error.kind)
            }
        };
        assert_eq!(shown, expected);
    }

    /// Restarts at the last position.
    fn reopen(&mut self) -> &mut Self {
        self.log = None;
        self
    }
}

/// `a-1/0@0.3`: stream, index, and the file's number and line in its ordinal.
fn show(event: &Event) -> String {
    let (file, line) = (event.at().major >> 40, event.at().major & ((1 << 40) - 1));
    if event.kind() == Kind::Malformed {
        let why = String::from_utf8_lossy(event.meta());
        let minor = if event.at().minor > 0 { "+" } else { "" };
        return format!("({} @{file}.{line}{minor})", why.split_once("/in/").unwrap().1);
    }
    format!("{}/{}@{file}.{line}", event.stream(), event.index())
}

fn line(stream: &str, index: i64) -> String {
    format!("{{\"stream\":\"{stream}\",\"index\":{index},\"type\":\"T\",\"data\":{{}}}}\n")
}

#[test]
fn a_directory_is_one_log_in_the_order_of_names() {
    let mut f = Fixture::new();
    f.check("");
    f.append("b.jsonl", &line("b-1", 0));
    f.append("a.jsonl", &(line("a-1", 0) + "\n  # comment\n" + &*line("a-1", 1)));
    f.append("ignored.txt", "x");
    f.check("a-1/0@0.1 a-1/1@0.4 b-1/0@1.1");
    f.append("b.jsonl", &line("b-1", 1));
    f.append("c.jsonl", &line("c-1", 0));
    f.check("b-1/1@1.2 c-1/0@2.1");
    f.reopen().check("");
    f.append("c.jsonl", &line("c-1", 1));
    f.check("c-1/1@2.2");
}

#[test]
fn every_batch_ends_at_a_position_from_which_the_rest_is_read() {
    let mut f = Fixture::new();
    f.settings.batch = NonZeroUsize::new(3).unwrap();
    f.append("a.jsonl", &(0..10).map(|index| line("a-1", index)).collect::<String>());
    f.append("b.jsonl", &(10..20).map(|index| line("a-1", index)).collect::<String>());
    let mut positions = Vec::new();
    let mut all = Vec::new();
    loop {
        let read = f.read_once().unwrap();
        for batch in read.batches {
            all.extend(batch.events.iter().map(show));
            positions.push((all.len(), batch.resume_at));
        }
        if read.end != LogEnd::More {
            break;
        }
    }
    assert_eq!(all.len(), 20);
    for (read, position) in positions {
        f.position = StartAt::Position(position);
        assert_eq!(f.reopen().read().unwrap().iter().map(show).collect::<Vec<_>>(), all[read..]);
    }
}

#[test]
fn d13_a_corrupt_line_is_a_malformed_record_that_names_file_and_line_and_is_read_once() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &(line("a-1", 0) + "{\"stream\":\"a-1\",\"index\":1,\"ty\n" + &*line("a-1", 2)));
    f.check("a-1/0@0.1 (a.jsonl:2: expected `\"` at the end of a string at byte 30 @0.2) a-1/2@0.3");
    f.check("");
    f.reopen().check("");
}

#[test]
fn a_truncated_last_line_waits_for_its_rest() {
    let mut f = Fixture::new();
    let text = line("a-1", 0);
    let (start, rest) = text.split_at(20);
    f.append("a.jsonl", start);
    f.check("");
    f.reopen().check("");
    f.append("a.jsonl", &rest[..rest.len() - 1]);
    f.check("");
    f.append("a.jsonl", "\n");
    f.check("a-1/0@0.1");
}

#[test]
fn a_finite_run_takes_a_complete_last_line_and_reports_a_truncated_one() {
    let mut f = Fixture::new();
    f.finite = true;
    f.append("a.jsonl", line("a-1", 0).trim_end());
    f.check("a-1/0@0.1");
    f.append("a.jsonl", &("\r\n".to_owned() + &*line("a-1", 1) + "{\"stream\":"));
    f.reopen().check("a-1/1@0.2 (a.jsonl:3: expected a value at byte 11 @0.3)");
    f.reopen().check("");
    f.append("a.jsonl", &("\"a-1\"}\n".to_owned() + &*line("a-1", 3)));
    f.reopen().check("(a.jsonl:3: the line was taken without this, as it had no newline then @0.3+) a-1/3@0.4");
}

#[test]
fn c2_the_index_of_a_line_without_one_is_the_files_number_and_the_lines() {
    let mut f = Fixture::new();
    f.settings.index = Index::Line;
    f.append("a.jsonl", "{\"stream\":\"a-1\",\"type\":\"T\"}\n");
    f.append("b.jsonl", "\n{\"stream\":\"a-1\",\"type\":\"T\"}\n{\"stream\":\"a-1\",\"index\":1,\"type\":\"T\"}\n");
    f.check(&format!(
        "a-1/1@0.1 a-1/{}@1.2 (b.jsonl:3: expected no `index`, because the line's number is the index at byte 25 @1.3)",
        (1_i64 << 40) + 2
    ));
}

#[test]
fn the_first_lines_of_each_file_can_be_skipped() {
    let mut f = Fixture::new();
    f.settings.skip = 10;
    f.append("a.jsonl", &(0..12).map(|index| line("a-1", index)).collect::<String>());
    f.check("a-1/10@0.11 a-1/11@0.12");
}

/// The source of a fixture whose files are tranches.
fn per_file(f: &Fixture) -> JsonSource {
    let settings = Settings { tranche_per_file: true, poll: Duration::from_millis(1), ..f.settings.clone() };
    source(&settings, &f.context(), false).unwrap()
}

/// The changes that a source reports while a test goes on.
struct Watched {
    changes: tokio::sync::mpsc::Receiver<TrancheChange>,
    watch: tokio::task::AbortHandle,
}

impl Watched {
    #[expect(clippy::disallowed_methods, reason = "a test has no group of tasks")]
    fn new(source: &Arc<JsonSource>) -> Self {
        let (reports, changes) = Changes::channel();
        let source = Arc::clone(source);
        let watch = tokio::spawn(async move { source.watch(&reports).await }).abort_handle();
        Self { changes, watch }
    }

    async fn added(&mut self) -> Option<String> {
        match tokio::time::timeout(Duration::from_secs(30), self.changes.recv()).await.unwrap().unwrap() {
            TrancheChange::Added { tranche, .. } => Some(tranche.as_str().to_owned()),
            _ => None,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

#[tokio::test]
async fn a_new_file_is_a_new_tranche_and_the_tranche_of_a_deleted_file_ends() {
    let f = Fixture::new();
    f.append("b.jsonl", &line("b-1", 0));
    let source = Arc::new(per_file(&f));
    let mut watched = Watched::new(&source);
    assert_eq!(watched.added().await.as_deref(), Some("b.jsonl"));
    assert_eq!(watched.added().await, None);
    f.append("a.jsonl", &line("a-1", 0));
    assert_eq!(watched.added().await.as_deref(), Some("a.jsonl"));
    fs::remove_file(f.path("b.jsonl")).unwrap();
    f.append("c.jsonl", "");
    assert_eq!(watched.added().await.as_deref(), Some("c.jsonl"));
    let mut gone = source.open(&TrancheId::new("b.jsonl"), StartAt::Origin, None);
    assert!(matches!(gone.next(Room::UNLIMITED).await.unwrap(), Next::End));
    f.append("b.jsonl", &line("b-1", 7));
    assert_eq!(watched.added().await.as_deref(), Some("b.jsonl"), "a name that comes back is a new tranche");
}

#[tokio::test]
async fn s3_a_file_that_is_back_before_a_look_misses_it_is_reported_again_once_its_reader_has_ended() {
    let f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    let source = Arc::new(per_file(&f));
    let tranche = TrancheId::new("a.jsonl");
    let mut watched = Watched::new(&source);
    assert_eq!(watched.added().await.as_deref(), Some("a.jsonl"));
    assert_eq!(watched.added().await, None);
    source.left(&tranche, 99, Left::Completed);
    source.left(&tranche, 0, Left::Released);
    f.append("b.jsonl", "");
    assert_eq!(watched.added().await.as_deref(), Some("b.jsonl"), "another assignment, or one that did not end");
    source.left(&tranche, 0, Left::Completed);
    assert_eq!(watched.added().await.as_deref(), Some("a.jsonl"));
}

#[tokio::test]
async fn s3_a_watch_that_reaches_the_directory_again_settles_again() {
    let f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    let source = Arc::new(per_file(&f));
    let mut watched = Watched::new(&source);
    assert_eq!(watched.added().await.as_deref(), Some("a.jsonl"));
    assert_eq!(watched.added().await, None);
    fs::rename(f.path(""), f.directory.path().join("away")).unwrap();
    assert!(source.watch(&Changes::channel().0).await.is_err());
    fs::rename(f.directory.path().join("away"), f.path("")).unwrap();
    let mut again = Watched::new(&source);
    assert_eq!(again.added().await, None, "nothing has changed");
}

#[tokio::test]
async fn a_file_that_is_deleted_while_it_is_read_is_read_to_its_end() {
    let f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    let source = per_file(&f);
    let mut reader = source.open(&TrancheId::new("a.jsonl"), StartAt::Origin, None);
    let Next::Batch(first) = reader.next(Room::UNLIMITED).await.unwrap() else { panic!("there is an event") };
    assert_eq!(first.events.len(), 1);
    f.append("a.jsonl", &(line("a-1", 1) + line("a-1", 2).trim_end()));
    fs::remove_file(f.path("a.jsonl")).unwrap();
    let mut seen = Vec::new();
    while let Next::Batch(batch) = reader.next(Room::UNLIMITED).await.unwrap() {
        seen.extend(batch.events.iter().map(show));
    }
    assert_eq!(seen, ["a-1/1@0.2", "a-1/2@0.3"]);
}

#[test]
fn a_missing_path_and_unknown_settings_are_errors() {
    let f = Fixture::new();
    let nowhere = source(&Settings::default(), &f.context(), false).unwrap_err();
    assert_eq!(nowhere.to_string(), "`path` is missing: name a file of JSON lines, or a directory of such files");
    let settings = |text: &str| toml::from_str::<Settings>(text).map_err(|error| error.message().to_owned());
    let read = settings("path = \"x\"\nindex = \"line\"\npoll = \"1s\"\non_replaced = \"restart\"").unwrap();
    assert_eq!((read.index, read.on_replaced, read.poll.as_secs()), (Index::Line, OnReplaced::Restart, 1));
    assert!(settings("file = \"x\"").unwrap_err().starts_with("unknown field `file`, expected one of `path`"));
}

#[test]
fn the_reader_alone_counts_what_it_reads() {
    let mut f = Fixture::new();
    let text = line("a-1", 0) + &*line("a-1", 1);
    f.append("a.jsonl", &text);
    f.settings.path = Text::literal("in/a.jsonl");
    assert_eq!(read_alone(&f.settings, &f.context()).unwrap(), (2, text.len() as u64));
}
