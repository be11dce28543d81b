//! Positions that another program moves: the set and the write positions belong to the old position (C12).

use std::path::Path;

use propulsiond::checkpoint::{CheckpointKey, CheckpointStore, Commit, Fence};
use propulsiond::connector::memory::store::MemoryCheckpoints;
use propulsiond::connector::sqlite::{CheckpointSettings, SqliteCheckpoints};
use propulsiond::position::{Position, WritePosition};
use tempfile::TempDir;

use super::harness::{at, context, key, owner};

/// Claims a key and stores position 9 with the write position 3 of a stream.
async fn commit(store: &dyn CheckpointStore, key: &CheckpointKey, stream: &str) -> Fence {
    let claimed = store.claim(key, &owner("a")).await.unwrap();
    let write_positions = [(stream.into(), WritePosition::upto(3))];
    let progress = at(9);
    let sequence = claimed.sequence + 1;
    let commit = Commit { key, fence: claimed.fence, sequence, progress: &progress, write_positions: &write_positions };
    store.commit(&[commit]).await.remove(0).unwrap();
    claimed.fence
}

/// Asserts that a moved position voids the write positions of its tranche only.
async fn check(store: &dyn CheckpointStore, move_back: impl Fn()) {
    let keys = [key("g", "s", "0"), key("g", "s", "1"), key("other", "s", "0")];
    for (key, stream) in keys.iter().zip(["a-1", "b-1", "a-1"]) {
        commit(store, key, stream).await;
    }
    let stored = async |key: &CheckpointKey| store.write_positions(key, &["a-1", "b-1"]).await.unwrap();
    let kept = Some(WritePosition::upto(3));
    store.claim(&keys[0], &owner("b")).await.unwrap();
    assert_eq!(stored(&keys[0]).await, [kept.clone(), kept.clone()], "a claim alone voids nothing");
    move_back();
    let claimed = store.claim(&keys[0], &owner("b")).await.unwrap();
    assert_eq!(claimed.progress, Some(at(2)));
    assert_eq!(stored(&keys[0]).await, [None, kept.clone()]);
    assert_eq!(stored(&keys[2]).await, [kept.clone(), None]);
    commit(store, &keys[0], "a-1").await;
    store.claim(&keys[0], &owner("c")).await.unwrap();
    assert_eq!(stored(&keys[0]).await, [kept.clone(), kept], "the new position has write positions of its own");
}

fn sqlite(directory: &Path) -> SqliteCheckpoints {
    SqliteCheckpoints::new(&CheckpointSettings::default(), &context(directory))
}

fn execute(directory: &Path, sql: &str) {
    let changed = rusqlite::Connection::open(directory.join("propulsiond.db")).unwrap().execute(sql, []).unwrap();
    assert_eq!(changed, 1, "{sql}");
}

#[tokio::test]
async fn l11_c12_a_moved_position_voids_the_write_positions_of_its_tranche_in_memory() {
    let store = MemoryCheckpoints::default();
    check(&store, || store.move_position(&key("g", "s", "0"), Some(Position::Number(2)))).await;
}

#[tokio::test]
async fn l11_c12_a_moved_position_voids_the_write_positions_of_its_tranche_in_sqlite() {
    let directory = TempDir::new().unwrap();
    let move_back =
        "UPDATE propulsion_checkpoint SET position = 2 WHERE consumer_group = 'g' AND source = 's' AND tranche = '0'";
    check(&sqlite(directory.path()), || execute(directory.path(), move_back)).await;
}

#[tokio::test]
async fn l11_c12_a_moved_position_voids_write_positions_that_name_no_tranche() {
    let directory = TempDir::new().unwrap();
    let (store, key) = (sqlite(directory.path()), key("g", "s", "0"));
    commit(&store, &key, "a-1").await;
    execute(directory.path(), "UPDATE propulsiond_write_positions SET tranche = NULL");
    execute(directory.path(), "UPDATE propulsion_checkpoint SET position = 2");
    store.claim(&key, &owner("b")).await.unwrap();
    assert_eq!(store.write_positions(&key, &["a-1"]).await.unwrap(), [None]);
}
