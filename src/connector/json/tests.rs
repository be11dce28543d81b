use std::fs;
use std::io::Write as _;

use super::log::Step;
use super::place::Place;
use super::*;
use crate::event::{Event, Kind};
use crate::position::Position;
use crate::source::{Next, Room};

/// A folder with the log that reads it.
struct Fixture {
    folder: tempfile::TempDir,
    settings: Settings,
    finite: bool,
    log: Option<Log>,
    position: StartAt,
}

impl Fixture {
    fn new() -> Self {
        let settings = Settings { path: Text::literal("in"), ..Settings::default() };
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        Self { folder, settings, finite: false, log: None, position: StartAt::Origin }
    }

    fn restarting() -> Self {
        let mut fixture = Self::new();
        fixture.settings.on_replaced = OnReplaced::Restart;
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("in").join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = fs::File::options().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Puts another file in the place of one, as editors do.
    fn replace(&self, name: &str, text: &str) {
        fs::write(self.path("tmp"), text).unwrap();
        fs::rename(self.path("tmp"), self.path(name)).unwrap();
    }

    fn context(&self) -> Context {
        Context::new("p", self.folder.path(), self.folder.path().join("data"))
    }

    fn step(&mut self) -> Result<Step, SourceError> {
        if self.log.is_none() {
            let options = Arc::new(Options::new(&self.settings, &self.context(), self.finite));
            self.log = Some(Log::new(options, None, &self.position)?);
        }
        self.log.as_mut().unwrap().step()
    }

    /// Reads to the tail; returns the events, or the error that came instead.
    fn read(&mut self) -> Result<Vec<Event>, SourceError> {
        let mut events = Vec::new();
        loop {
            let step = self.step()?;
            for batch in step.batches {
                self.position = StartAt::Position(batch.resume_at);
                events.extend(batch.events);
            }
            if step.at_tail {
                return Ok(events);
            }
        }
    }

    fn check(&mut self, expected: &str) {
        let shown = match self.read() {
            Ok(events) => events.iter().map(show).collect::<Vec<_>>().join(" "),
            Err(error) => {
                let text = error.to_string().replace(&*self.folder.path().to_string_lossy(), "");
                format!("{:?}: {text}", error.kind)
            }
        };
        assert_eq!(shown, expected);
    }

    /// Starts again from the last position.
    fn reopen(&mut self) -> &mut Self {
        self.log = None;
        self
    }
}

/// `a-1/0@0.3`: stream, index, and the file's number and the line of its ordinal.
fn show(event: &Event) -> String {
    let (file, line) = (event.at().major >> 40, event.at().major & ((1 << 40) - 1));
    if event.kind() == Kind::Malformed {
        let why = String::from_utf8_lossy(event.meta());
        let minor = if event.at().minor > 0 { "+" } else { "" };
        return format!("({} @{file}.{line}{minor})", why.rsplit_once('/').unwrap().1);
    }
    format!("{}/{}@{file}.{line}", event.stream(), event.index())
}

fn line(stream: &str, index: i64) -> String {
    format!("{{\"stream\":\"{stream}\",\"index\":{index},\"type\":\"T\",\"data\":{{}}}}\n")
}

#[test]
fn a_folder_is_one_log_in_the_order_of_names() {
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
        let step = f.step().unwrap();
        for batch in step.batches {
            all.extend(batch.events.iter().map(show));
            positions.push((all.len(), batch.resume_at));
        }
        if step.at_tail {
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
fn a_torn_last_line_waits_for_its_rest() {
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
fn a_finite_run_takes_a_whole_last_line_and_reports_one_that_is_cut() {
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
fn c2_a_replaced_file_is_position_lost() {
    // Another file with as many bytes, with more, and with fewer.
    let others = [(line("b-1", 0), true), (line("b-1", 0) + &*line("b-1", 1), true), (String::new(), false)];
    for (other, as_long) in others {
        let mut f = Fixture::new();
        f.append("a.jsonl", &line("a-1", 0));
        f.check("a-1/0@0.1");
        f.replace("a.jsonl", &other);
        let lost = "PositionLost: go on with `/in/a.jsonl`: it was replaced by another file";
        f.check(lost);
        f.reopen().check(if as_long {
            lost
        } else {
            "PositionLost: go on with `/in/a.jsonl`: it is shorter than it was"
        });
    }
}

#[test]
fn c2_a_copy_in_the_place_of_a_file_is_that_file() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    // Restored while nobody reads.
    f.replace("a.jsonl", &line("a-1", 0));
    f.reopen().check("");
    f.append("a.jsonl", &line("a-1", 1));
    f.check("a-1/1@0.2");
    // Written anew while it is read, with more lines.
    f.replace("a.jsonl", &(line("a-1", 0) + &*line("a-1", 1) + &*line("a-1", 2)));
    f.check("a-1/2@0.3");
    f.append("a.jsonl", &line("a-1", 3));
    f.check("a-1/3@0.4");
    // Also where replaced files are to be read again.
    f.settings.on_replaced = OnReplaced::Restart;
    f.replace("a.jsonl", &(0..5).map(|index| line("a-1", index)).collect::<String>());
    f.reopen().check("a-1/4@0.5");
}

#[test]
fn c2_a_file_that_is_rotated_away_is_not_taken_for_the_one_in_its_place() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    fs::rename(f.path("a.jsonl"), f.path("a.old")).unwrap();
    f.append("a.jsonl", &line("a-2", 0));
    f.check("PositionLost: go on with `/in/a.jsonl`: it was replaced by another file");
    fs::rename(f.path("a.old"), f.path("a.jsonl")).unwrap();
    f.reopen().check("");
}

#[test]
fn c2_a_copied_folder_is_that_folder() {
    let mut f = Fixture::new();
    for (name, stream) in [("a.jsonl", "a-1"), ("b.jsonl", "b-1"), ("c.jsonl", "c-1")] {
        f.append(name, &line(stream, 0));
    }
    f.check("a-1/0@0.1 b-1/0@1.1 c-1/0@2.1");
    for name in ["a.jsonl", "b.jsonl", "c.jsonl"] {
        let text = fs::read_to_string(f.path(name)).unwrap();
        f.replace(name, &text);
    }
    f.reopen().check("");
    f.append("c.jsonl", &line("c-1", 1));
    f.append("d.jsonl", &line("d-1", 0));
    f.check("c-1/1@2.2 d-1/0@3.1");
    f.replace("b.jsonl", &line("x-1", 0));
    f.reopen().check("PositionLost: go on with `/in/b.jsonl`: it was replaced by another file after it was read");
}

#[test]
fn c2_a_replaced_file_that_is_to_be_read_again_gets_a_new_number() {
    let mut f = Fixture::restarting();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    f.replace("a.jsonl", &line("a-1", 7));
    f.check("a-1/7@1.1");
    f.replace("a.jsonl", &line("a-1", 8));
    f.reopen().check("a-1/8@2.1");
    f.reopen().check("");
}

#[test]
fn c2_a_truncated_file_is_position_lost() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &(line("a-1", 0) + &*line("a-1", 1)));
    f.check("a-1/0@0.1 a-1/1@0.2");
    fs::write(f.path("a.jsonl"), line("a-1", 0)).unwrap();
    f.check("PositionLost: go on with `/in/a.jsonl`: it is shorter than it was");
    f.reopen().check("PositionLost: go on with `/in/a.jsonl`: it is shorter than it was");
    fs::write(f.path("a.jsonl"), line("b-1", 0) + &*line("b-1", 1) + &*line("b-1", 2)).unwrap();
    f.check("PositionLost: go on with `/in/a.jsonl`: its first bytes are not what they were");
    f.reopen().check("PositionLost: go on with `/in/a.jsonl`: its first bytes are not what they were");
}

#[test]
fn c2_a_truncated_file_that_is_to_be_read_again_gets_a_new_number() {
    let mut f = Fixture::restarting();
    f.append("a.jsonl", &(line("a-1", 0) + &*line("a-1", 1)));
    f.check("a-1/0@0.1 a-1/1@0.2");
    fs::write(f.path("a.jsonl"), line("a-1", 5)).unwrap();
    f.check("a-1/5@1.1");
}

#[test]
fn c2_a_new_file_that_sorts_before_the_one_being_read_is_position_lost() {
    let mut f = Fixture::new();
    f.append("b.jsonl", &line("b-1", 0));
    f.check("b-1/0@0.1");
    f.append("a.jsonl", &line("a-1", 0));
    let lost = "PositionLost: go on with `/in/a.jsonl`: it is new, and sorts before `b.jsonl`, which is being read";
    f.check(lost);
    f.reopen().check(lost);
    f.settings.on_replaced = OnReplaced::Restart;
    f.reopen().check("a-1/0@1.1");
    f.append("b.jsonl", &line("b-1", 1));
    f.check("b-1/1@2.2");
    f.reopen().check("");
}

#[test]
fn c2_lines_added_to_a_file_that_was_left_are_not_lost_silently() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("b.jsonl", &line("b-1", 0));
    f.check("a-1/0@0.1 b-1/0@1.1");
    f.append("a.jsonl", &line("a-1", 1));
    f.check("PositionLost: go on with `/in/a.jsonl`: lines were added to it after the next file was begun");
    f.settings.on_replaced = OnReplaced::Restart;
    f.reopen().check("a-1/1@2.2");
}

#[test]
fn c1_files_that_are_deleted_change_no_number() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("b.jsonl", &line("b-1", 0));
    f.check("a-1/0@0.1 b-1/0@1.1");
    fs::remove_file(f.path("a.jsonl")).unwrap();
    f.append("b.jsonl", &line("b-1", 1));
    f.reopen().check("b-1/1@1.2");
    fs::remove_file(f.path("b.jsonl")).unwrap();
    f.append("c.jsonl", &line("c-1", 0));
    f.check("c-1/0@2.1");
}

#[test]
fn c1_a_number_is_not_used_again_when_its_file_is_deleted_before_the_position_reached_it() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    let behind_a = f.position.clone();
    f.append("b.jsonl", &line("b-1", 0));
    f.check("b-1/0@1.1");
    f.position = behind_a.clone();
    f.reopen().check("b-1/0@1.1");
    fs::remove_file(f.path("b.jsonl")).unwrap();
    f.append("c.jsonl", &line("c-1", 0));
    f.position = behind_a;
    f.reopen().check("c-1/0@2.1");
    f.position = StartAt::Origin;
    f.reopen().check("a-1/0@0.1 c-1/0@2.1");
}

#[test]
fn a_file_that_is_missing_when_reading_resumes_is_told_from_one_that_was_deleted() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.check("a-1/0@0.1");
    fs::rename(f.path("a.jsonl"), f.path("tmp")).unwrap();
    f.reopen().check("Unavailable: open `/in/a.jsonl`");
    f.append("b.jsonl", &line("b-1", 0));
    f.reopen().check("PositionLost: go on with `/in/a.jsonl`: it was deleted; byte 48 is as far as it was read");
    fs::rename(f.path("tmp"), f.path("a.jsonl")).unwrap();
    f.check("b-1/0@1.1");
}

#[test]
fn c2_the_index_of_a_line_without_one_is_the_files_number_and_the_lines() {
    let mut f = Fixture::new();
    f.settings.index = Index::Line;
    f.append("a.jsonl", "{\"stream\":\"a-1\",\"type\":\"T\"}\n");
    f.append("b.jsonl", "\n{\"stream\":\"a-1\",\"type\":\"T\"}\n{\"stream\":\"a-1\",\"index\":1,\"type\":\"T\"}\n");
    f.check(&format!(
        "a-1/1@0.1 a-1/{}@1.2 (b.jsonl:3: expected no `index`, as the line's number is taken for it at byte 25 @1.3)",
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

#[test]
fn a_single_file_is_read_with_its_byte_order_mark_and_other_line_ends() {
    let mut f = Fixture::new();
    f.settings.path = Text::literal("in/orders.json");
    f.check("Unavailable: open `/in/orders.json`");
    f.append("orders.json", &format!("\u{feff}{}\r\n", line("a-1", 0).trim_end()));
    f.check("a-1/0@0.1");
    fs::remove_file(f.path("orders.json")).unwrap();
    f.check("Unavailable: read `/in/orders.json`");
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_files_are_read_like_others() {
    let mut f = Fixture::new();
    let text: String = (0..9).map(|index| line("a-1", index)).collect();
    fs::write(f.path("a.jsonl.gz"), gzip(&text)).unwrap();
    f.settings.batch = NonZeroUsize::new(7).unwrap();
    let first = f.step().unwrap().batches.swap_remove(0);
    assert_eq!((first.events.len(), first.lag), (7, None));
    f.position = StartAt::Position(first.resume_at);
    f.reopen().check("a-1/7@0.8 a-1/8@0.9");
    f.append("b.jsonl", &line("b-1", 0));
    f.check("b-1/0@1.1");
}

#[test]
fn a_compressed_file_that_is_cut_waits_for_its_rest_or_is_reported() {
    let mut f = Fixture::new();
    let whole = gzip(&line("a-1", 0));
    fs::write(f.path("a.jsonl.gz"), &whole[..whole.len() - 9]).unwrap();
    f.read().unwrap();
    fs::File::options().append(true).open(f.path("a.jsonl.gz")).unwrap().write_all(&whole[whole.len() - 9..]).unwrap();
    f.check("a-1/0@0.1");
    fs::write(f.path("b.jsonl.gz"), b"this is no gzip").unwrap();
    f.check("(b.jsonl.gz:1: the rest of the file cannot be decompressed: invalid gzip header @1.1)");
    f.reopen().check("");
}

#[test]
fn r69_lag_is_what_is_left_of_all_files_and_unknown_where_one_is_compressed() {
    let mut f = Fixture::new();
    f.settings.batch = NonZeroUsize::new(1).unwrap();
    f.append("a.jsonl", &(line("a-1", 0) + &*line("a-1", 1)));
    f.append("b.jsonl", &line("b-1", 0));
    let size = line("a-1", 0).len() as u64;
    let lags = |step: Step| step.batches.iter().map(|batch| batch.lag.map(|lag| lag.amount)).collect::<Vec<_>>();
    assert_eq!(lags(f.step().unwrap()), [Some(2 * size), Some(size)]);
    assert_eq!(lags(f.step().unwrap()), [Some(0)]);
    assert_eq!(lags(f.step().unwrap()), [Some(0)]);
    fs::write(f.path("c.jsonl.gz"), gzip(&line("c-1", 0))).unwrap();
    assert_eq!(lags(f.step().unwrap()), [None]);
}

#[test]
fn a_position_is_text_that_a_person_can_read_and_others_are_refused() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("b.jsonl", &line("b-1", 0));
    f.read().unwrap();
    let StartAt::Position(position) = &f.position else { panic!("something was read") };
    let text = position.to_string();
    assert!(text.starts_with(r#"{"file":"b.jsonl","number":1,"offset":48,"line":1,"inode":"#), "{text}");
    let place = Place::parse(position).unwrap();
    assert_eq!((place.past.len(), place.past[0].file.as_str()), (1, "a.jsonl"));
    assert_eq!(place.position(), *position);
    for bad in [Position::Number(3), Position::token("x"), Position::token("{\"files\":1}")] {
        f.position = StartAt::Position(bad);
        assert_eq!(f.reopen().read().unwrap_err().kind, SourceErrorKind::PositionLost);
    }
}

#[test]
fn a_line_that_is_too_long_is_a_malformed_record_and_reading_goes_on_behind_it() {
    let mut f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    f.append("a.jsonl", &"x".repeat(65 << 20));
    f.check("a-1/0@0.1");
    f.append("a.jsonl", &("x".repeat(100) + "\n" + &*line("a-1", 2)));
    f.check("(a.jsonl:2: the line is longer than 64 MiB @0.2) a-1/2@0.3");
    f.append("a.jsonl", &line("a-1", 3));
    f.reopen().check("a-1/3@0.4");
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
async fn a_new_file_is_a_new_tranche_and_a_deleted_one_comes_to_its_end() {
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
    let mut gone = source.open(&TrancheId::new("b.jsonl"), StartAt::Origin);
    assert!(matches!(gone.next(Room::UNLIMITED).await.unwrap(), Next::End));
    f.append("b.jsonl", &line("b-1", 7));
    assert_eq!(watched.added().await.as_deref(), Some("b.jsonl"), "a name that comes back is a new tranche");
}

#[tokio::test]
async fn a_file_that_is_deleted_while_it_is_read_is_read_to_its_end() {
    let f = Fixture::new();
    f.append("a.jsonl", &line("a-1", 0));
    let source = per_file(&f);
    let mut reader = source.open(&TrancheId::new("a.jsonl"), StartAt::Origin);
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
    assert_eq!(nowhere.to_string(), "`path` is missing: name a file of JSON lines, or a folder of such files");
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
