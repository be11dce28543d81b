use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::clock::Timestamp;
use crate::effect::Value;
use crate::event::{Assembler, Kind};
use crate::position::Ordinal;
use crate::work::{Work, WorkId, WorkKind};

fn decided(stream: &str, number: i64) -> Decided {
    let event = Assembler::new(stream, "T").build(Kind::Event, Ordinal::default(), number).unwrap();
    let work = Work {
        id: WorkId { slot: 0, generation: 0 },
        kind: WorkKind::Handle,
        events: vec![event],
        next: number + 1,
        failures: 0,
        read_at: Timestamp::ZERO,
        late: false,
        trace: None,
    };
    Decided { work, next: number + 1, effects: Effects::Emitted(vec![Value::Int(number)].into()), accepted: 0 }
}

fn sink(directory: &Path, settings: &str) -> FileSink {
    let context = Context::new("p", directory, directory.join("data"));
    FileSink::new(&toml::from_str(settings).unwrap(), &context).unwrap()
}

async fn write(sink: &FileSink, stream: &str, number: i64) -> Result<(), (HandlerErrorKind, String)> {
    let result = sink.write(&[decided(stream, number)]).await.remove(0);
    result.map(|written| assert_eq!(written, Written::All)).map_err(|error| (error.kind(), error.message().to_owned()))
}

fn read(directory: &TempDir, path: &str) -> String {
    fs::read_to_string(directory.path().join("data").join(path)).unwrap()
}

#[tokio::test]
async fn a_write_after_a_rename_or_removal_begins_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path(), "fsync = \"never\"");
    let path = directory.path().join("data/p.jsonl");
    write(&sink, "a-1", 1).await.unwrap();
    fs::rename(&path, directory.path().join("data/p.jsonl.1")).unwrap();
    write(&sink, "a-1", 2).await.unwrap();
    fs::remove_file(&path).unwrap();
    write(&sink, "a-1", 3).await.unwrap();
    // As logrotate's `copytruncate` does.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    write(&sink, "a-1", 4).await.unwrap();
    assert_eq!((read(&directory, "p.jsonl.1"), read(&directory, "p.jsonl")), ("1\n".into(), "4\n".into()));
}

#[tokio::test]
async fn r73_the_first_write_repairs_a_truncated_line() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("data")).unwrap();
    fs::write(directory.path().join("data/p.jsonl"), "1\n{\"a\":").unwrap();
    write(&sink(directory.path(), ""), "a-1", 2).await.unwrap();
    assert_eq!(read(&directory, "p.jsonl"), "1\n2\n");
}

#[tokio::test]
async fn two_sinks_do_not_write_one_file_until_the_first_has_closed() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["", ""].map(|settings| sink(directory.path(), settings));
    write(&first, "a-1", 1).await.unwrap();
    let (kind, message) = write(&second, "a-1", 2).await.unwrap_err();
    assert_eq!(kind, HandlerErrorKind::Unavailable);
    assert!(message.ends_with("data/p.jsonl`: another pipeline or process writes to it"), "{message}");
    first.close().await.unwrap();
    write(&second, "a-1", 2).await.unwrap();
    assert_eq!(read(&directory, "p.jsonl"), "1\n2\n");
}

#[tokio::test]
async fn r65_files_by_stream_stay_in_their_directory_and_few_are_open() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path(), "path = \"out/{category}/{id}\"\nmax_open = 2\nfsync = { every = \"1h\" }");
    for (stream, number) in [("a-1", 1), ("a-../x", 2), ("b-3", 3), ("a-1", 4)] {
        write(&sink, stream, number).await.unwrap();
    }
    assert_eq!(read(&directory, "out/a/1"), "1\n4\n");
    assert_eq!(read(&directory, "out/a/..%2Fx"), "2\n");
    assert_eq!(sink.files.lock().await.count(), 2);
    for stream in ["a-..", "a"] {
        assert_eq!(write(&sink, stream, 5).await.unwrap_err().0, HandlerErrorKind::Permanent, "{stream}");
    }
    sink.close().await.unwrap();
    assert_eq!(sink.files.lock().await.count(), 0);
}

#[tokio::test]
async fn a_decision_without_a_file_spoils_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path(), "path = \"out/{id}\"");
    let results = sink.write(&[decided("a-1", 1), decided("a-..", 2), decided("a-2", 3), decided("a-1", 4)]).await;
    let kinds: Vec<_> = results.iter().map(|result| result.as_ref().map_err(HandlerError::kind)).collect();
    let all = Ok(&Written::All);
    assert_eq!(kinds, [all, Err(HandlerErrorKind::Permanent), all, all]);
    assert_eq!((read(&directory, "out/1"), read(&directory, "out/2")), ("1\n4\n".into(), "3\n".into()));
}

#[tokio::test]
async fn a_full_disk_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path(), "path = \"/dev/full\"");
    let (kind, message) = write(&sink, "a-1", 1).await.unwrap_err();
    assert_eq!(kind, HandlerErrorKind::Unavailable);
    assert_eq!(message, "append to `/dev/full`: No space left on device (os error 28)");
}

#[tokio::test]
async fn a_directory_that_cannot_be_created_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("data"), "").unwrap();
    let (kind, message) = write(&sink(directory.path(), ""), "a-1", 1).await.unwrap_err();
    assert_eq!(kind, HandlerErrorKind::Unavailable);
    assert!(message.starts_with("open `") && message.contains("data/p.jsonl`: "), "{message}");
}

#[tokio::test]
async fn a_file_is_clean_after_a_sync_interval() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path(), "fsync = { every = \"5ms\" }");
    write(&sink, "a-1", 1).await.unwrap();
    let clean = async {
        while sink.files.lock().await.is_dirty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), clean).await.unwrap();
    tokio::task::spawn_blocking(move || drop(sink)).await.unwrap();
}

#[test]
fn fsync_is_written_as_it_is_read() {
    for text in ["fsync = \"batch\"", "fsync = \"never\"", "fsync = { every = \"1s\" }"] {
        let settings: Settings = toml::from_str(text).unwrap();
        let again: Settings = toml::from_str(&toml::to_string(&settings).unwrap()).unwrap();
        assert_eq!(settings, again, "{text}");
    }
    assert!(toml::from_str::<Settings>("fsync = \"always\"").is_err());
    assert!(toml::from_str::<Settings>("path = \"{stream}\"").is_err());
}

#[tokio::test]
async fn x6_a_stream_with_a_long_name_has_its_own_file() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path(), "path = \"out/{id}.jsonl\"");
    let names = ["ж".repeat(43), "ж".repeat(44), "x".repeat(1000)].map(|id| format!("a-{id}"));
    for (number, stream) in (0..).zip(&names) {
        write(&sink, stream, number).await.unwrap();
    }
    assert_eq!(fs::read_dir(directory.path().join("data/out")).unwrap().count(), 3);
}

#[tokio::test]
async fn l13_an_effect_with_nan_is_permanent_and_spoils_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink(directory.path(), "");
    let average = Value::Map(vec![("avg".into(), Value::Float(f64::NAN))]);
    let bad = Decided { effects: Effects::Emitted(vec![Value::Int(1), average].into()), ..decided("till-1", 1) };
    let results = sink.write(&[bad, decided("a-1", 2)]).await;
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Permanent);
    assert_eq!(error.message(), "cannot write an effect of stream `till-1`: `avg` is `NaN`, which JSON cannot hold");
    assert_eq!(read(&directory, "p.jsonl"), "2\n");
}
