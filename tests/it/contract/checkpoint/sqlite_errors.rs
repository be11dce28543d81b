//! Databases that cannot be used: said so, with the file's name, and used again once they can be.

use std::path::Path;
use std::time::Duration;

use propulsiond::checkpoint::{CheckpointError, CheckpointErrorKind, CheckpointStore, ParkedStream};
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

/// Checks what is said of a database, whatever is asked of it.
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
        let folder = TempDir::new().unwrap();
        assert_eq!(store(folder.path(), "p.db").load(&key("g", "s", "0")).await.unwrap(), None);
        Connection::open(folder.path().join("p.db")).unwrap().execute_batch(newer).unwrap();
        check(folder.path(), "p.db", &CheckpointErrorKind::Unreadable, "newer propulsiond").await;
    }
}

#[tokio::test]
async fn databases_of_older_versions_are_brought_up_to_date_with_what_is_in_them() {
    let write_positions =
        ["next INTEGER NOT NULL", "next INTEGER NOT NULL, first INTEGER NOT NULL DEFAULT 0, gaps TEXT"];
    for (version, columns) in (1..).zip(write_positions) {
        let folder = TempDir::new().unwrap();
        let old = format!(
            "PRAGMA application_id = 1886547824; PRAGMA user_version = {version};
            CREATE TABLE propulsiond_schema (version INTEGER NOT NULL);
            INSERT INTO propulsiond_schema VALUES ({version});
            CREATE TABLE propulsiond_write_positions (
                consumer_group TEXT NOT NULL, source TEXT NOT NULL, stream TEXT NOT NULL, {columns},
                PRIMARY KEY (consumer_group, source, stream)
            ) WITHOUT ROWID;
            INSERT INTO propulsiond_write_positions (consumer_group, source, stream, next) VALUES ('g', 's', 'a-1', 7);
            CREATE TABLE propulsiond_parked (
                consumer_group TEXT NOT NULL, source TEXT NOT NULL, tranche TEXT NOT NULL, stream TEXT NOT NULL,
                major INTEGER NOT NULL, minor INTEGER NOT NULL, idx INTEGER NOT NULL, kind INTEGER NOT NULL,
                type TEXT NOT NULL, id TEXT NOT NULL, correlation TEXT NOT NULL, causation TEXT NOT NULL,
                timestamp TEXT NOT NULL, data BLOB NOT NULL, meta BLOB NOT NULL, why TEXT NOT NULL,
                PRIMARY KEY (consumer_group, source, tranche, stream, major, minor, idx, kind)
            );
            INSERT INTO propulsiond_parked SELECT 'g', 's', '0', 'p-1', -9223372036854775808 + column1, column2,
                3, 0, 'Placed', '', '', '', '', x'7b7d', x'', 'failed' FROM (VALUES (12, 4), (11, 5));"
        );
        let open = || Connection::open(folder.path().join("p.db")).unwrap();
        open().execute_batch(&old).unwrap();
        let number = |sql| open().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("PRAGMA application_id"), i64::from_be_bytes([0, 0, 0, 0, b'p', b'r', b'o', b'p']));
        for _ in 0..2 {
            let (store, key) = (store(folder.path(), "p.db"), key("g", "s", "0"));
            let kept = store.write_positions(&key, &["a-1"]).await.unwrap();
            assert_eq!(kept, [Some(WritePosition::upto(7))]);
            let parked = store.parked().unwrap().load(&key).await.unwrap();
            let stream =
                ParkedStream { stream: "p-1".into(), first: Ordinal::new(11, 5), events: 2, why: "failed".into() };
            assert_eq!(parked, [stream]);
            assert_eq!(number("PRAGMA user_version"), 3);
            assert_eq!(number("SELECT max(version) FROM propulsiond_schema"), 3);
        }
    }
}

#[tokio::test]
async fn somebody_elses_database_keeps_its_numbers() {
    let folder = TempDir::new().unwrap();
    let theirs = Connection::open(folder.path().join("p.db")).unwrap();
    theirs.execute_batch("PRAGMA application_id = 7; PRAGMA user_version = 99; CREATE TABLE mine (a);").unwrap();
    let store = store(folder.path(), "p.db");
    assert_eq!(store.load(&key("g", "s", "0")).await.unwrap(), None);
    let number = |sql: &str| theirs.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((number("PRAGMA application_id"), number("PRAGMA user_version")), (7, 99));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_unreadable() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("p.db"), "this is a letter to my grandmother\n".repeat(100)).unwrap();
    check(folder.path(), "p.db", &CheckpointErrorKind::Unreadable, "not a database").await;
}

#[tokio::test]
async fn a_damaged_database_is_unreadable() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("whole.db");
    {
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("CREATE TABLE propulsiond_schema (version); INSERT INTO propulsiond_schema VALUES (1);")
            .unwrap();
    }
    let mut bytes = std::fs::read(&path).unwrap();
    // The page of the schema, behind the file's header.
    bytes[100..400].fill(0xee);
    std::fs::write(folder.path().join("p.db"), bytes).unwrap();
    check(folder.path(), "p.db", &CheckpointErrorKind::Unreadable, "malformed").await;
}

#[tokio::test]
async fn a_damaged_set_is_unreadable() {
    let folder = TempDir::new().unwrap();
    let store = store(folder.path(), "p.db");
    let key = key("g", "s", "0");
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    let progress = Progress { position: Some(Position::Number(1)), handled: set(&[(2, 3)]) };
    commit_one(&store, &key, fence, 1, &progress).await.unwrap();
    let connection = Connection::open(folder.path().join("p.db")).unwrap();
    for (column, value) in [("handled", "x'09'"), ("sequence", "-1"), ("fence", "'x'")] {
        connection.execute(&format!("UPDATE propulsiond_progress SET {column} = {value}"), []).unwrap();
        assert_eq!(kind(store.load(&key).await), CheckpointErrorKind::Unreadable, "{column}");
        assert_eq!(kind(store.claim(&key, &owner("b")).await), CheckpointErrorKind::Unreadable, "{column}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_unavailable_until_it_can() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    check(folder.path(), "file/p.db", &CheckpointErrorKind::Unavailable, "cannot make the folder").await;
    let waiting = store(folder.path(), "file/p.db");
    assert!(waiting.load(&key("g", "s", "0")).await.is_err());
    std::fs::remove_file(folder.path().join("file")).unwrap();
    assert_eq!(waiting.load(&key("g", "s", "0")).await.unwrap(), None);
}

#[tokio::test]
async fn a_path_that_is_a_folder_is_unavailable() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("p.db")).unwrap();
    check(folder.path(), "p.db", &CheckpointErrorKind::Unavailable, "unable to open").await;
}

#[tokio::test]
async fn a_database_that_somebody_writes_to_is_unavailable_until_they_are_done() {
    let folder = TempDir::new().unwrap();
    let store = store(folder.path(), "p.db");
    let key = key("g", "s", "0");
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    let somebody = Connection::open(folder.path().join("p.db")).unwrap();
    somebody.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(kind(commit_one(&store, &key, fence, 1, &at(1)).await), CheckpointErrorKind::Unavailable);
    assert_eq!(store.load(&key).await.unwrap(), None, "readers do not wait for a writer");
    somebody.execute_batch("COMMIT").unwrap();
    commit_one(&store, &key, fence, 1, &at(1)).await.unwrap();
}

/// Fills a database whose size is limited. The limit is one of the connection, which `init` can set.
#[tokio::test]
async fn a_full_disk_is_unavailable_stores_nothing_and_is_got_over() {
    let folder = TempDir::new().unwrap();
    let sink = sqlite_sink(folder.path(), &["CREATE TABLE IF NOT EXISTS t (a)", "PRAGMA max_page_count = 40"]);
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

    let connection = Connection::open(folder.path().join("projections.db")).unwrap();
    let count = || connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 1);

    // The checkpoint store shares the connection, and meets the same end.
    let mut runs = Vec::new();
    runs.extend((0..15_000_u64).map(|run| (run * 3 + 2, run * 3 + 3)));
    let set = Progress { position: None, handled: set(&runs) };
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

    // Room again: what failed before goes through on the same connection.
    let room = decided("a-1", 9, vec![statement("DELETE FROM t", vec![])]);
    assert_eq!(sink.write(&[room]).await, [Ok(Written::All)]);
    commit_one(&*sink.checkpoints(), &key, fence, 1, &at(1)).await.unwrap();
    assert_eq!(sink.checkpoints().load(&key).await.unwrap(), Some(at(1)));
}
