//! Sink `file`.

use std::fs;

use propulsiond::connector::file::sink::{FileSink, Settings};
use tempfile::TempDir;

use super::*;
use crate::daemon::LIMIT;

struct File {
    directory: TempDir,
    path: &'static str,
    sink: FileSink,
}

fn file(path: &'static str, settings: &str) -> File {
    let directory = tempfile::tempdir().unwrap();
    let settings: Settings = toml::from_str(settings).unwrap();
    let sink = FileSink::new(&settings, &context(directory.path())).unwrap();
    File { directory, path, sink }
}

fn one() -> File {
    file("shop.jsonl", "fsync = \"never\"")
}

fn durable() -> File {
    file("out/all.jsonl", "path = \"out/all.jsonl\"")
}

fn by_stream() -> File {
    file("out", "path = \"out/{id}.jsonl\"\nmax_open = 1\nfsync = { every = \"1h\" }")
}

impl Harness for File {
    fn sink(&self) -> &dyn Sink {
        &self.sink
    }

    fn seen(&self) -> Vec<(String, i64)> {
        let path = self.directory.path().join(self.path);
        let Ok(listed) = fs::read_dir(&path) else {
            return fs::read_to_string(&path).map(|text| read_lines(&text)).unwrap_or_default();
        };
        let mut files: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().flat_map(|file| read_lines(&fs::read_to_string(file).unwrap())).collect()
    }

    fn unfit(&self) -> Decided {
        // The name has no part for `{id}`.
        events("a", 0..1)
    }

    fn break_down(&self) {
        // A directory stands in the file's place.
        fs::create_dir_all(self.directory.path().join(self.path)).unwrap();
    }

    fn repair(&self) {
        fs::remove_dir(self.directory.path().join(self.path)).unwrap();
    }
}

mod to_one_file {
    super::super::sink_contract!(super::one());
}

mod durably {
    super::super::sink_contract!(super::durable());
}

mod by_id {
    super::super::sink_contract!(super::by_stream();
        a_decision_without_effects_is_written,
        unfolds_are_not_written,
        redelivered_events_are_written_again_in_order,
        r42_an_invalid_decision_is_permanent_and_spoils_no_other,
        a_cancelled_write_harms_nothing,
        a_closed_sink_keeps_its_writes_and_takes_more,
    );
}

#[tokio::test]
async fn r73_after_a_crash_in_the_middle_of_a_write_only_whole_lines_remain() {
    let file = one();
    write_all(file.sink(), &[events("a-1", 0..3)]).await;
    file.sink().close().await.unwrap();
    let path = file.directory.path().join(file.path);
    let text = fs::read(&path).unwrap();
    for length in 0..text.len() {
        fs::write(&path, &text[..length]).unwrap();
        let again = FileSink::new(&toml::from_str("").unwrap(), &context(file.directory.path())).unwrap();
        write_once_unlocked(&again, &[events("a-1", 0..3)]).await;
        let seen = file.seen();
        assert_eq!(seen[seen.len() - 3..], super::seen(&[("a-1", 0), ("a-1", 1), ("a-1", 2)]));
    }
}

/// Writes, and retries while the file is locked.
async fn write_once_unlocked(sink: &FileSink, decided: &[Decided]) {
    let is_locked = |result: &Result| matches!(result, Err(error) if error.kind() == HandlerErrorKind::Unavailable);
    let written = async {
        // The sink before released its lock when it was dropped. A process that another test starts at that moment holds a
        // copy of the descriptor, and with it the lock, between its fork and its exec.
        while write(sink, decided).await.iter().any(is_locked) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, written).await.unwrap();
}

#[tokio::test]
async fn a_rotation_between_writes_loses_nothing() {
    let file = durable();
    let path = file.directory.path().join(file.path);
    let mut rotated = Vec::new();
    for round in 0..10 {
        write_all(file.sink(), &[events("a-1", round..round + 1)]).await;
        if round % 3 == 0 {
            let moved = path.with_extension(round.to_string());
            fs::rename(&path, &moved).unwrap();
            rotated.push(moved);
        }
    }
    let rotated = rotated.iter().flat_map(|path| read_lines(&fs::read_to_string(path).unwrap()));
    let mut all: Vec<_> = rotated.chain(read_lines(&fs::read_to_string(&path).unwrap_or_default())).collect();
    all.sort();
    let expected: Vec<_> = (0..10).map(|index| ("a-1".to_owned(), index)).collect();
    assert_eq!(all, expected);
}
