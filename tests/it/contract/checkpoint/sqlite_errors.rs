//! Unusable databases: each error names the file, and the next request retries.

use std::path::Path;
use std::time::Duration;

use propulsiond::checkpoint::{
    CheckpointError, CheckpointErrorKind, CheckpointStore, ParkedMark, ParkedStream, QueueOrder, QueuePage,
};
use propulsiond::config::scalar::Text;
use propulsiond::connector::sqlite::{CheckpointSettings, SqliteCheckpoints};
use propulsiond::effect::Value;
use propulsiond::handler::HandlerErrorKind;
use propulsiond::position::{Ordinal, Position, Progress, WritePosition};
use propulsiond::sink::{Sink, TransactionalSink, Written};
use rusqlite::Connection;
use tempfile::TempDir;

use super::harness::*;

fn store(data: &Path, path: &str) -> SqliteCheckpoints {
    let settings = CheckpointSettings {
        path: Text::literal(path),
        busy_timeout: Duration::from_millis(20),
        ..CheckpointSettings::default()
    };
    SqliteCheckpoints::new(&settings, &context(data))
}

/// Checks the error of every request to a database.
async fn check(data: &Path, path: &str, kind: &CheckpointErrorKind, why: &str) {
    let store = store(data, path);
    let key = key("g", "s", "0");
    let progress = at(1);
    let errors: [CheckpointError; 3] = [
        store.load(&key).await.unwrap_err(),
        store.claim(&key, &owner("a")).await.unwrap_err(),
        store.commit(&[commit(&key, propulsiond::checkpoint::Fence(1), 1, &progress)]).await.remove(0).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(&error.kind, kind, "{error:?}");
        let shown = format!("{:#}", anyhow::Error::from(error));
        assert!(shown.contains(why) && shown.contains(path) && shown.contains("g/s/0"), "{shown}");
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    for newer in ["PRAGMA user_version = 99", "UPDATE propulsiond_schema SET version = 99"] {
        let directory = TempDir::new().unwrap();
        assert_eq!(store(directory.path(), "p.db").load(&key("g", "s", "0")).await.unwrap(), None);
        Connection::open(directory.path().join("p.db")).unwrap().execute_batch(newer).unwrap();
        check(directory.path(), "p.db", &CheckpointErrorKind::Unreadable, "newer propulsiond").await;
    }
}

#[tokio::test]
async fn a_database_of_an_older_version_is_upgraded_with_its_contents() {
    let gaps = "next INTEGER NOT NULL, first INTEGER NOT NULL DEFAULT 0, gaps TEXT";
    let from = "from_major INTEGER NOT NULL DEFAULT 0, from_minor INTEGER NOT NULL DEFAULT 0,";
    // The columns of a write position and of a parked event that version 1 did not have.
    let columns = [("next INTEGER NOT NULL", ""), (gaps, ""), (gaps, from), (&format!("{gaps}, tranche TEXT"), from)];
    for (version, (columns, from)) in (1..).zip(columns) {
        let directory = TempDir::new().unwrap();
        let old = format!(
            "PRAGMA application_id = 1886547824; PRAGMA user_version = {version};
            CREATE TABLE propulsiond_schema (version INTEGER NOT NULL);
            INSERT INTO propulsiond_schema VALUES ({version});
            CREATE TABLE propulsiond_write_positions (
                consumer_group TEXT NOT NULL, source TEXT NOT NULL, stream TEXT NOT NULL, {columns},
                PRIMARY KEY (consumer_group, source, stream)
            ) WITHOUT ROWID;
            INSERT INTO propulsiond_write_positions (consumer_group, source, stream, next) VALUES ('g', 's', 'a-1', 7);
            CREATE TABLE propulsion_checkpoint (
                source TEXT NOT NULL, tranche TEXT NOT NULL, consumer_group TEXT NOT NULL, position,
                PRIMARY KEY (source, tranche, consumer_group)
            );
            INSERT INTO propulsion_checkpoint VALUES ('s', '0', 'g', 4);
            CREATE TABLE propulsiond_progress (
                source TEXT NOT NULL, tranche TEXT NOT NULL, consumer_group TEXT NOT NULL, fence INTEGER NOT NULL,
                sequence INTEGER NOT NULL, owner TEXT, since TEXT NOT NULL, committed INTEGER NOT NULL, position,
                handled BLOB, updated_at TEXT NOT NULL, PRIMARY KEY (source, tranche, consumer_group)
            );
            INSERT INTO propulsiond_progress VALUES ('s', '0', 'g', 1, 1, NULL, '', 1, 4, x'0106000200', '');
            CREATE TABLE propulsiond_parked (
                consumer_group TEXT NOT NULL, source TEXT NOT NULL, tranche TEXT NOT NULL, stream TEXT NOT NULL,
                major INTEGER NOT NULL, minor INTEGER NOT NULL, idx INTEGER NOT NULL, kind INTEGER NOT NULL,
                type TEXT NOT NULL, id TEXT NOT NULL, correlation TEXT NOT NULL, causation TEXT NOT NULL,
                timestamp TEXT NOT NULL, data BLOB NOT NULL, meta BLOB NOT NULL, why TEXT NOT NULL, {from}
                PRIMARY KEY (consumer_group, source, tranche, stream, major, minor, idx, kind)
            );
            INSERT INTO propulsiond_parked (consumer_group, source, tranche, stream, major, minor, idx, kind, type, id,
                correlation, causation, timestamp, data, meta, why) SELECT 'g', 's', '0', 'p-1', -9223372036854775808 + column1, column2,
                3, 0, 'Placed', '', '', '', '', x'7b7d', x'', 'failed' FROM (VALUES (12, 4), (11, 5));"
        );
        let open = || Connection::open(directory.path().join("p.db")).unwrap();
        open().execute_batch(&old).unwrap();
        if version > 2 {
            open().execute_batch("UPDATE propulsiond_parked SET from_major = major, from_minor = minor").unwrap();
        }
        let number = |sql| open().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("PRAGMA application_id"), i64::from_be_bytes([0, 0, 0, 0, b'p', b'r', b'o', b'p']));
        for _ in 0..2 {
            let (store, key) = (store(directory.path(), "p.db"), key("g", "s", "0"));
            let kept = store.write_positions(&key, &["a-1"]).await.unwrap();
            assert_eq!(kept, [Some(WritePosition::upto(7))]);
            let parked = store.parked().unwrap().load(&key).await.unwrap();
            let [stream] = &parked[..] else { panic!("{parked:?}") };
            assert!(stream.mark.since > propulsiond::clock::wall() - time::Duration::minutes(10));
            // The first event by ordinal tells the reason. The time of the upgrade stands for the unknown one.
            let mark = ParkedMark {
                why: "failed".into(),
                index: 3,
                version: "".into(),
                since: stream.mark.since,
                ..mark("failed")
            };
            let first = Ordinal::new(11, 5);
            assert_eq!(*stream, ParkedStream { stream: "p-1".into(), first, events: 2, bytes: 4, mark });
            let page = QueuePage { order: QueueOrder::Ordinal, after: None, max_events: 9, max_bytes: usize::MAX };
            let events = store.parked().unwrap().read(&key, "p-1", &page).await.unwrap().events;
            let events: Vec<_> = events.iter().map(|queued| (queued.event.at(), queued.discarded)).collect();
            assert_eq!(events, [(Ordinal::new(11, 5), false), (Ordinal::new(12, 4), false)]);
            let progress = Progress { position: Some(Position::Number(4)), handled: set(&[(6, 8)]), read_to: None };
            assert_eq!(store.load(&key).await.unwrap(), Some(progress));
            assert_eq!(number("PRAGMA user_version"), 6);
            assert_eq!(number("SELECT max(version) FROM propulsiond_schema"), 6);
        }
    }
}

#[tokio::test]
async fn a_database_of_another_program_keeps_its_numbers() {
    let directory = TempDir::new().unwrap();
    let theirs = Connection::open(directory.path().join("p.db")).unwrap();
    theirs.execute_batch("PRAGMA application_id = 7; PRAGMA user_version = 99; CREATE TABLE mine (a);").unwrap();
    let store = store(directory.path(), "p.db");
    assert_eq!(store.load(&key("g", "s", "0")).await.unwrap(), None);
    let number = |sql: &str| theirs.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((number("PRAGMA application_id"), number("PRAGMA user_version")), (7, 99));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_unreadable() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("p.db"), "this is a letter to my grandmother\n".repeat(100)).unwrap();
    check(directory.path(), "p.db", &CheckpointErrorKind::Unreadable, "not a database").await;
}

#[tokio::test]
async fn a_corrupt_database_is_unreadable() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("whole.db");
    {
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("CREATE TABLE propulsiond_schema (version); INSERT INTO propulsiond_schema VALUES (1);")
            .unwrap();
    }
    let mut bytes = std::fs::read(&path).unwrap();
    // The page of the schema, behind the file's header.
    bytes[100..400].fill(0xee);
    std::fs::write(directory.path().join("p.db"), bytes).unwrap();
    check(directory.path(), "p.db", &CheckpointErrorKind::Unreadable, "malformed").await;
}

#[tokio::test]
async fn a_corrupt_set_is_unreadable() {
    let directory = TempDir::new().unwrap();
    let store = store(directory.path(), "p.db");
    let key = key("g", "s", "0");
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    let progress = Progress { position: Some(Position::Number(1)), handled: set(&[(2, 3)]), read_to: None };
    commit_one(&store, &key, fence, 1, &progress).await.unwrap();
    let connection = Connection::open(directory.path().join("p.db")).unwrap();
    for (column, value) in [("handled", "x'09'"), ("sequence", "-1"), ("fence", "'x'")] {
        connection.execute(&format!("UPDATE propulsiond_progress SET {column} = {value}"), []).unwrap();
        assert_eq!(kind(store.load(&key).await), CheckpointErrorKind::Unreadable, "{column}");
        assert_eq!(kind(store.claim(&key, &owner("b")).await), CheckpointErrorKind::Unreadable, "{column}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_created_is_unavailable_until_it_can() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    check(directory.path(), "file/p.db", &CheckpointErrorKind::Unavailable, "cannot create the directory").await;
    let waiting = store(directory.path(), "file/p.db");
    assert!(waiting.load(&key("g", "s", "0")).await.is_err());
    std::fs::remove_file(directory.path().join("file")).unwrap();
    assert_eq!(waiting.load(&key("g", "s", "0")).await.unwrap(), None);
}

#[tokio::test]
async fn a_path_that_is_a_directory_is_unavailable() {
    let directory = TempDir::new().unwrap();
    std::fs::create_dir(directory.path().join("p.db")).unwrap();
    check(directory.path(), "p.db", &CheckpointErrorKind::Unavailable, "unable to open").await;
}

#[tokio::test]
async fn a_database_is_unavailable_while_another_process_writes_to_it() {
    let directory = TempDir::new().unwrap();
    let store = store(directory.path(), "p.db");
    let key = key("g", "s", "0");
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    let other = Connection::open(directory.path().join("p.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(kind(commit_one(&store, &key, fence, 1, &at(1)).await), CheckpointErrorKind::Unavailable);
    assert_eq!(store.load(&key).await.unwrap(), None, "readers do not wait for a writer");
    other.execute_batch("COMMIT").unwrap();
    commit_one(&store, &key, fence, 1, &at(1)).await.unwrap();
}

/// Fills a database whose size is limited. The limit is one of the connection, which `init` can set.
#[tokio::test]
async fn a_full_disk_is_unavailable_and_stores_nothing_until_it_has_room() {
    let directory = TempDir::new().unwrap();
    let sink = sqlite_sink(directory.path(), &["CREATE TABLE IF NOT EXISTS t (a)", "PRAGMA max_page_count = 40"]);
    let key = key("g", "s", "0");
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let large = |index| {
        let blob = Value::Bytes(vec![1; 50_000].into());
        decided("a-1", index, vec![statement("INSERT INTO t VALUES (?)", vec![blob])])
    };
    assert_eq!(sink.write(&[large(0)]).await, [Ok(Written::All)]);
    let full = sink.write(&[large(1), large(2), large(3)]).await;
    for result in &full {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.kind(), HandlerErrorKind::Unavailable);
        assert!(error.message().contains("projections.db") && error.message().contains("full"), "{error}");
    }

    let mut transaction = sink.begin().await.unwrap();
    assert!(transaction.write(&[large(1), large(2), large(3)]).await.iter().all(Result::is_err));
    let progress = at(1);
    assert!(transaction.commit(&[commit(&key, fence, 1, &progress)], &[]).await.is_err());
    assert_eq!(sink.checkpoints().load(&key).await.unwrap(), None);

    let connection = Connection::open(directory.path().join("projections.db")).unwrap();
    let count = || connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 1);

    // The checkpoint store shares the connection, and gets the same error.
    let mut runs = Vec::new();
    runs.extend((0..15_000_u64).map(|run| (run * 3 + 2, run * 3 + 3)));
    let set = Progress { position: None, handled: set(&runs), read_to: None };
    let mut failed = None;
    for tranche in 0..5 {
        let key = super::harness::key("g", "s", &format!("t{tranche}"));
        let Ok(claimed) = sink.checkpoints().claim(&key, &owner("a")).await else { continue };
        if let Err(error) = commit_one(&*sink.checkpoints(), &key, claimed.fence, 1, &set).await {
            failed = Some((key, error));
        }
    }
    let (unstored, error) = failed.unwrap();
    assert_eq!(error.kind, CheckpointErrorKind::Unavailable, "{error:?}");
    assert_eq!(sink.checkpoints().load(&unstored).await.unwrap(), None);

    // With room again, the same connection accepts the failed write.
    let room = decided("a-1", 9, vec![statement("DELETE FROM t", vec![])]);
    assert_eq!(sink.write(&[room]).await, [Ok(Written::All)]);
    commit_one(&*sink.checkpoints(), &key, fence, 1, &at(1)).await.unwrap();
    assert_eq!(sink.checkpoints().load(&key).await.unwrap(), Some(at(1)));
}

/// Waits until no connection to a file in `directory` is open.
async fn wait_until_closed(directory: &Path) {
    let open = propulsiond::connector::sqlite::closed(Duration::from_secs(30)).await;
    assert!(!open.iter().any(|path| path.starts_with(directory)), "{open:?}");
}

/// Commits one position, and closes the database.
async fn with_progress(data: &Path) -> propulsiond::checkpoint::Fence {
    let store = store(data, "p.db");
    let key = key("g", "s", "0");
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    commit_one(&store, &key, fence, 1, &at(1)).await.unwrap();
    drop(store);
    wait_until_closed(data).await;
    fence
}

#[tokio::test]
async fn l12_c17_an_empty_file_that_held_progress_is_refused_with_the_remedy() {
    let directory = TempDir::new().unwrap();
    with_progress(directory.path()).await;
    std::fs::write(directory.path().join("p.db"), "").unwrap();
    check(directory.path(), "p.db", &CheckpointErrorKind::Unreadable, "held progress before").await;
    check(directory.path(), "p.db", &CheckpointErrorKind::Unreadable, "delete it together with").await;
    wait_until_closed(directory.path()).await;
    assert_eq!(std::fs::metadata(directory.path().join("p.db")).unwrap().len(), 0, "a refused file stays as it is");

    let remedy = ["p.db", "p.db-held"].map(|name| directory.path().join(name));
    remedy.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    assert_eq!(store(directory.path(), "p.db").load(&key("g", "s", "0")).await.unwrap(), None);
}

#[tokio::test]
async fn l12_an_empty_file_that_never_held_progress_becomes_a_database() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("p.db"), "").unwrap();
    assert_eq!(store(directory.path(), "p.db").load(&key("g", "s", "0")).await.unwrap(), None);
}

#[tokio::test]
async fn l12_a_deleted_file_begins_at_the_origin_and_loses_its_marker() {
    let directory = TempDir::new().unwrap();
    with_progress(directory.path()).await;
    // A later marker differs from this one in its contents.
    let marker = directory.path().join("p.db-held");
    std::fs::write(&marker, "of the deleted file").unwrap();
    std::fs::remove_file(directory.path().join("p.db")).unwrap();
    assert_eq!(store(directory.path(), "p.db").load(&key("g", "s", "0")).await.unwrap(), None);
    assert!(std::fs::read_to_string(&marker).unwrap().contains("holds progress"), "the new file has its own marker");
}

/// Runs a test of this file in a process whose files cannot grow beyond 200 KiB. The kernel refuses a longer write with an
/// error that SQLite takes for one of the device. Returns whether this is that process.
#[cfg(unix)]
fn with_limited_files(test: &str) -> bool {
    const LIMITED: &str = "PROPULSIOND_TEST_LIMITED_FILES";
    if std::env::var_os(LIMITED).is_some() {
        return true;
    }
    // An ignored signal stays ignored after `exec`, so that a long write fails and does not end the process.
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 400; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("contract::checkpoint::sqlite_errors::{test}")])
        .env(LIMITED, "1")
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && shown.contains("1 passed"),
        "{shown}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// The `init` statements that count the connections of a sink, as `init` runs once per connection.
#[cfg(unix)]
const COUNTED: &str = "CREATE TABLE IF NOT EXISTS opened (a)";
#[cfg(unix)]
const COUNT: &str = "INSERT INTO opened VALUES (1)";

#[cfg(unix)]
fn connections(directory: &Path) -> u32 {
    let connection = Connection::open(directory.join("projections.db")).unwrap();
    connection.query_row("SELECT count(*) FROM opened", [], |row| row.get(0)).unwrap()
}

/// A decision whose pages do not fit a limited log. They stay in the cache until the commit.
#[cfg(unix)]
fn inserts_much() -> propulsiond::sink::Decided {
    let blob = Value::Bytes(vec![1; 300_000].into());
    decided("a-1", 0, vec![statement("INSERT INTO t VALUES (?)", vec![blob])])
}

#[cfg(unix)]
#[tokio::test]
async fn c11_an_io_error_at_the_commit_of_a_transaction_leaves_the_outcome_unknown() {
    if !with_limited_files("c11_an_io_error_at_the_commit_of_a_transaction_leaves_the_outcome_unknown") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let sink = sqlite_sink(directory.path(), &["CREATE TABLE IF NOT EXISTS t (a)", COUNTED, COUNT]);
    let (key, progress) = (key("g", "s", "0"), at(1));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let mut transaction = sink.begin().await.unwrap();
    assert_eq!(transaction.write(&[inserts_much()]).await, [Ok(Written::All)]);
    let failed = transaction.commit(&[commit(&key, fence, 1, &progress)], &[]).await;
    assert!(matches!(failed, Err(propulsiond::sink::TransactionError::OutcomeUnknown(_))), "{failed:?}");
    // Only the recovery of a new connection tells whether the commit counts. Here nothing was committed.
    assert_eq!(sink.checkpoints().load(&key).await.unwrap(), None);
    let mut transaction = sink.begin().await.unwrap();
    assert_eq!(transaction.write(&[decided("a-1", 0, vec![])]).await, [Ok(Written::All)]);
    transaction.commit(&[commit(&key, fence, 1, &progress)], &[]).await.unwrap();
    assert_eq!(connections(directory.path()), 2, "the connection was opened again");
}

#[cfg(unix)]
#[tokio::test]
async fn c11_an_io_error_at_the_commit_of_progress_leaves_the_outcome_unknown() {
    if !with_limited_files("c11_an_io_error_at_the_commit_of_progress_leaves_the_outcome_unknown") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let sink = sqlite_sink(directory.path(), &[COUNTED, COUNT]);
    let (store, key) = (sink.checkpoints(), key("g", "s", "0"));
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    assert!(sink.write(&[]).await.is_empty());
    // Commits grow the log up to its limit; the first one beyond fails.
    let runs: Vec<_> = (0..15_000_u64).map(|run| (run * 3 + 2, run * 3 + 3)).collect();
    let progress = Progress { position: None, handled: set(&runs), read_to: None };
    for sequence in 1..100 {
        match commit_one(&*store, &key, fence, sequence, &progress).await {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind, CheckpointErrorKind::OutcomeUnknown, "{error:?}");
                let stored = store.last_commit(&key).await.unwrap().unwrap();
                assert_eq!(stored, (fence, sequence - 1), "the recovery tells");
                assert!(sink.write(&[]).await.is_empty());
                assert_eq!(connections(directory.path()), 2, "the connection was opened again");
                return;
            }
        }
    }
    panic!("the log never reached its limit");
}
