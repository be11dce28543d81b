//! The contract of a checkpoint store.

use std::sync::Arc;

use propulsiond::checkpoint::{
    CheckpointErrorKind, CheckpointKey, CheckpointStore, Commit, Fence, LogReason, NEVER_CLAIMED, Owner, RELEASED,
};
use propulsiond::config::scalar::Text;
use propulsiond::connector::file::store::{self, FileCheckpoints};
use propulsiond::connector::memory::store::{Fault, Operation};
use propulsiond::connector::sqlite::{CheckpointSettings, SqliteCheckpoints};
use propulsiond::position::{Position, Progress, WritePosition};
use tempfile::TempDir;

use super::harness::*;

macro_rules! every_store {
    ($($case:ident),* $(,)?) => {
        cases! {
            sqlite: [$($case),*];
            file: [$($case),*];
            memory: [$($case),*];
            sqlite_sink: [$($case),*];
            memory_sink: [$($case),*];
        }
    };
}

every_store! {
    an_unknown_key_is_none,
    a_committed_progress_loads,
    keys_do_not_collide_whatever_they_are_called,
    a_claim_returns_what_is_stored_and_a_greater_fence_each_time,
    c11_a_repeat_of_the_stored_commit_is_harmless,
    c11_a_gap_in_the_chain_is_refused,
    c15_an_older_claim_can_change_nothing,
    c15_two_writers_end_in_one_of_their_positions,
    c14_a_set_that_is_too_large_is_refused,
    a_released_key_keeps_its_progress_and_has_no_owner,
    one_refused_commit_does_not_hold_up_the_others,
    the_tranches_of_a_source_are_listed_by_name,
    an_operator_replaces_the_progress_and_finds_the_old_one_in_the_log,
    c15_only_the_owner_replaces_the_progress,
}

async fn the_tranches_of_a_source_are_listed_by_name(harness: Harness) {
    let store = harness.open();
    assert_eq!(store.list("g", "s").await.unwrap(), []);
    for (group, source, tranche) in [("g", "s", "b"), ("g", "s", "a"), ("g", "t", "c"), ("h", "s", "d")] {
        let key = key(group, source, tranche);
        let fence = store.claim(&key, &owner("me")).await.unwrap().fence;
        if tranche != "b" {
            commit_one(&*store, &key, fence, 1, &at(7)).await.unwrap();
        }
        if tranche == "a" {
            store.release(&key, fence).await.unwrap();
        }
    }
    let listed = harness.open().list("g", "s").await.unwrap();
    let shown: Vec<_> = listed
        .iter()
        .map(|listed| (listed.key.tranche.as_str(), listed.progress.clone(), listed.owner.is_some()))
        .collect();
    assert_eq!(shown, [("a", Some(at(7)), false), ("b", None, true)]);
}

async fn an_operator_replaces_the_progress_and_finds_the_old_one_in_the_log(harness: Harness) {
    let (store, key) = (harness.open(), key("g", "s", "0"));
    let claimed = store.claim(&key, &owner("a")).await.unwrap();
    let old =
        Progress { position: Some(Position::token("4")), handled: set(&[(6, 8)]), read_to: Some(Position::token("9")) };
    let moved = [(Box::from("a-1"), WritePosition::upto(3))];
    let commit = Commit { write_positions: &moved, ..commit(&key, claimed.fence, 1, &old) };
    store.commit(&[commit]).await.remove(0).unwrap();
    for (target, replaced) in [(Some(at(2)), Some(old.clone())), (None, Some(at(2))), (Some(old.clone()), None)] {
        store.set(&key, claimed.fence, target.as_ref()).await.unwrap();
        let again = harness.open();
        assert_eq!(again.load(&key).await.unwrap(), target);
        assert_eq!(
            again.write_positions(&key, &["a-1"]).await.unwrap(),
            [None],
            "they belong to the old position (C12)"
        );
        let log = again.log(&key).await.unwrap();
        assert_eq!((log[0].reason, log[0].progress.clone()), (LogReason::Replaced, replaced));
        assert!(log.windows(2).all(|pair| pair[0].number > pair[1].number), "{log:?}");
    }
    // The next owner goes on from there, and the chain of commits with it.
    let next = harness.open().claim(&key, &owner("b")).await.unwrap();
    assert_eq!(next.progress, Some(old));
    commit_one(&*harness.open(), &key, next.fence, next.sequence + 1, &at(9)).await.unwrap();
}

async fn c15_only_the_owner_replaces_the_progress(harness: Harness) {
    let (store, key) = (harness.open(), key("g", "s", "0"));
    let old = store.claim(&key, &owner("a")).await.unwrap().fence;
    commit_one(&*store, &key, old, 1, &at(1)).await.unwrap();
    let new = store.claim(&key, &owner("b")).await.unwrap().fence;
    let refused = store.set(&key, old, None).await.unwrap_err();
    assert!(matches!(refused.kind, CheckpointErrorKind::Fenced { .. }), "{refused:?}");
    assert_eq!(store.load(&key).await.unwrap(), Some(at(1)));
    store.set(&key, new, None).await.unwrap();
    // A commit of the chain before the change is no repeat of it.
    assert!(commit_one(&*store, &key, new, 1, &at(3)).await.is_err());
    assert_eq!(store.load(&key).await.unwrap(), None);
}

async fn an_unknown_key_is_none(harness: Harness) {
    let store = harness.open();
    let key = key("g", "s", "0");
    assert_eq!(store.load(&key).await.unwrap(), None);
    let claimed = store.claim(&key, &owner("a")).await.unwrap();
    assert_eq!((claimed.progress, claimed.sequence), (None, 0));
    assert_eq!(store.load(&key).await.unwrap(), None, "a claim commits nothing");
}

async fn a_committed_progress_loads(harness: Harness) {
    let key = key("g", "s", "0");
    let fence = harness.open().claim(&key, &owner("a")).await.unwrap().fence;
    let sets = [set(&[]), set(&[(5, 5), (7, 9)])];
    let positions = [
        Some(Position::Number(0)),
        Some(Position::Number(i64::MAX)),
        Some(Position::Number(i64::MIN)),
        Some(Position::token("17")),
        Some(Position::token("")),
        Some(Position::token("a \"token\"\nwith 漢字 and \\ in it")),
        None,
    ];
    // Without a set, there is nothing whose end could be kept.
    let progress = positions.iter().zip(positions.iter().rev()).flat_map(|(position, end)| {
        sets.iter().map(|handled| Progress {
            position: position.clone(),
            handled: handled.clone(),
            read_to: end.clone().filter(|_| !handled.is_empty()),
        })
    });
    for (sequence, progress) in (1..).zip(progress) {
        // The store is opened again each time, so that nothing comes from its memory.
        commit_one(&*harness.open(), &key, fence, sequence, &progress).await.unwrap();
        assert_eq!(harness.open().load(&key).await.unwrap(), Some(progress));
    }
}

async fn keys_do_not_collide_whatever_they_are_called(harness: Harness) {
    let store = harness.open();
    let long = "long".repeat(100);
    let names = ["", "a", "A", "a/b", "..", "../a", "a~", "~a", "%61", "a\\b", "日本", "a b", "nul\0", ".lock", &long];
    let mut keys: Vec<CheckpointKey> = Vec::new();
    for name in names {
        keys.extend([key(name, "s", "t"), key("g", name, "t"), key("g", "s", name)]);
    }
    keys.extend([key("a", "", "b"), key("", "a", "b"), key("a", "b", ""), key("a~b", "", ""), key("", "a~b", "")]);
    for (number, key) in (0..).zip(&keys) {
        let fence = store.claim(key, &owner("a")).await.unwrap().fence;
        assert_eq!(fence, Fence(1), "{key:?} is nobody else's");
        commit_one(&*store, key, fence, 1, &at(number)).await.unwrap();
    }
    for (number, key) in (0..).zip(&keys) {
        assert_eq!(store.load(key).await.unwrap(), Some(at(number)), "{key:?}");
    }
}

async fn a_claim_returns_what_is_stored_and_a_greater_fence_each_time(harness: Harness) {
    let store = harness.open();
    let key = key("g", "s", "0");
    let first = store.claim(&key, &owner("a")).await.unwrap();
    let progress =
        Progress { position: Some(Position::Number(4)), handled: set(&[(6, 8)]), read_to: Some(Position::Number(9)) };
    commit_one(&*store, &key, first.fence, 1, &at(2)).await.unwrap();
    commit_one(&*store, &key, first.fence, 2, &progress).await.unwrap();
    let second = harness.open().claim(&key, &owner("b")).await.unwrap();
    assert!(second.fence > first.fence);
    assert_eq!((second.progress, second.sequence), (Some(progress), 2));
    commit_one(&*store, &key, second.fence, 3, &at(9)).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap(), Some(at(9)));
}

async fn c11_a_repeat_of_the_stored_commit_is_harmless(harness: Harness) {
    let store = harness.open();
    let key = key("g", "s", "0");
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    for sequence in 1..=3 {
        for _ in 0..3 {
            commit_one(&*store, &key, fence, sequence, &at(sequence.cast_signed())).await.unwrap();
        }
    }
    assert_eq!(store.load(&key).await.unwrap(), Some(at(3)));
    commit_one(&*store, &key, fence, 4, &at(4)).await.unwrap();
}

async fn c11_a_gap_in_the_chain_is_refused(harness: Harness) {
    let store = harness.open();
    let key = key("g", "s", "0");
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    for sequence in [0, 2, u64::MAX] {
        let refused = commit_one(&*store, &key, fence, sequence, &at(9)).await;
        assert_eq!(kind(refused), CheckpointErrorKind::OutcomeUnknown, "{sequence}");
    }
    assert_eq!(store.load(&key).await.unwrap(), None);
    commit_one(&*store, &key, fence, 1, &at(1)).await.unwrap();
    commit_one(&*store, &key, fence, 2, &at(2)).await.unwrap();
    for sequence in [0, 1, 4] {
        let refused = commit_one(&*store, &key, fence, sequence, &at(9)).await;
        assert_eq!(kind(refused), CheckpointErrorKind::OutcomeUnknown, "{sequence}");
    }
    assert_eq!(store.load(&key).await.unwrap(), Some(at(2)));
}

async fn c15_an_older_claim_can_change_nothing(harness: Harness) {
    let (store, key) = (harness.open(), key("g", "s", "0"));
    assert_eq!(fenced_by(commit_one(&*store, &key, Fence(1), 1, &at(1)).await), NEVER_CLAIMED);
    let old = store.claim(&key, &owner("a")).await.unwrap().fence;
    commit_one(&*store, &key, old, 1, &at(1)).await.unwrap();
    let new = store.claim(&key, &owner("b")).await.unwrap().fence;
    assert_eq!(fenced_by(commit_one(&*store, &key, old, 2, &at(9)).await), "b");
    assert_eq!(fenced_by(commit_one(&*store, &key, old, 1, &at(1)).await), "b", "also not again");
    assert_eq!(fenced_by(store.release(&key, old).await), "b");
    assert_eq!(store.load(&key).await.unwrap(), Some(at(1)));
    commit_one(&*store, &key, new, 2, &at(2)).await.unwrap();
}

async fn c15_two_writers_end_in_one_of_their_positions(harness: Harness) {
    let key = key("g", "s", "0");
    let writer = async |name: &str, start: i64| {
        let store = harness.open();
        let claimed = store.claim(&key, &owner(name)).await.unwrap();
        for step in 1..=20_u64 {
            let progress = at(start + step.cast_signed());
            let committed = commit_one(&*store, &key, claimed.fence, claimed.sequence + step, &progress).await;
            if let Err(error) = committed {
                assert!(matches!(error.kind, CheckpointErrorKind::Fenced { .. }), "{error:?}");
                return false;
            }
        }
        true
    };
    let (a, b) = tokio::join!(writer("a", 1_000), writer("b", 2_000));
    assert!(a || b, "no claim follows the newest one");
    let stored = harness.open().load(&key).await.unwrap();
    let ends = [a.then(|| at(1_020)), b.then(|| at(2_020))];
    assert!(ends.contains(&stored), "{stored:?} of {ends:?}");
}

async fn c14_a_set_that_is_too_large_is_refused(harness: Harness) {
    let (store, key) = (harness.open(), key("g", "s", "0"));
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    let limit = store.max_set_bytes().unwrap();
    // Four bytes a run: differences of 2 and 1, each with a minor. The first ordinal takes three bytes more, so that the
    // smaller set has exactly the size of the limit.
    let with_runs = |runs: usize| {
        let runs: Vec<_> = (0..runs as u64).map(|run| (1 << 22) + run * 3).map(|at| (at, at + 1)).collect();
        Progress { position: Some(Position::Number(1)), handled: set(&runs), read_to: None }
    };
    let (fits, larger) = (with_runs(limit / 4 - 1), with_runs(limit / 4));
    assert!(fits.handled.encode().len() == limit && larger.handled.encode().len() > limit);
    let refused = commit_one(&*store, &key, fence, 1, &larger).await;
    assert_eq!(kind(refused), CheckpointErrorKind::TooLarge, "a retry cannot succeed");
    assert_eq!(store.load(&key).await.unwrap(), None);
    commit_one(&*store, &key, fence, 1, &fits).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap(), Some(fits));
}

async fn a_released_key_keeps_its_progress_and_has_no_owner(harness: Harness) {
    let (store, key) = (harness.open(), key("g", "s", "0"));
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    commit_one(&*store, &key, fence, 1, &at(1)).await.unwrap();
    store.release(&key, fence).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap(), Some(at(1)));
    let claimed = store.claim(&key, &owner("b")).await.unwrap();
    assert_eq!((claimed.progress, claimed.sequence), (Some(at(1)), 1));
    store.release(&key, claimed.fence).await.unwrap();
    let by = fenced_by(commit_one(&*store, &key, fence, 2, &at(2)).await);
    assert_eq!(by, RELEASED);
}

async fn one_refused_commit_does_not_hold_up_the_others(harness: Harness) {
    let store = harness.open();
    let keys = ["0", "1", "2"].map(|tranche| key("g", "s", tranche));
    let mut fences = Vec::new();
    for key in &keys {
        fences.push(store.claim(key, &owner("a")).await.unwrap().fence);
    }
    store.claim(&keys[1], &owner("b")).await.unwrap();
    let progress = at(5);
    let commits: Vec<_> = keys.iter().zip(&fences).map(|(key, fence)| commit(key, *fence, 1, &progress)).collect();
    let stored: Vec<_> = store.commit(&commits).await.iter().map(Result::is_ok).collect();
    assert_eq!(stored, [true, false, true]);
    assert_eq!(store.load(&keys[1]).await.unwrap(), None);
    assert_eq!(store.load(&keys[2]).await.unwrap(), Some(at(5)));
}

macro_rules! stores_that_keep_more {
    ($($case:ident),* $(,)?) => {
        cases! {
            sqlite: [$($case),*];
            memory: [$($case),*];
            sqlite_sink: [$($case),*];
            memory_sink: [$($case),*];
        }
    };
}

mod more {
    use super::*;

    stores_that_keep_more! {
        c13_write_positions_are_kept_with_the_commit,
    }

    async fn c13_write_positions_are_kept_with_the_commit(harness: Harness) {
        let (store, tranche, other) = (harness.open(), key("g", "s", "0"), key("other", "s", "0"));
        let fence = store.claim(&tranche, &owner("a")).await.unwrap().fence;
        let progress = at(1);
        let upto = WritePosition::upto;
        let holed = WritePosition { first: 2, next: 70, gaps: vec![(3, 5), (9, 60)] };
        let moved = [("a-1".into(), upto(3)), ("b-日".into(), holed.clone()), ("".into(), upto(1))];
        let first = Commit { write_positions: &moved, ..commit(&tranche, fence, 1, &progress) };
        let refused =
            Commit { write_positions: &[("a-1".into(), upto(99))], ..commit(&tranche, Fence(9), 2, &progress) };
        store.commit(&[first, refused]).await;
        let streams = ["b-日", "never", "a-1", ""];
        let kept = [Some(holed), None, Some(upto(3)), Some(upto(1))];
        assert_eq!(store.write_positions(&tranche, &streams).await.unwrap(), kept);
        assert_eq!(store.write_positions(&other, &streams).await.unwrap(), [const { None }; 4]);
        let second = Commit { write_positions: &[("a-1".into(), upto(4))], ..commit(&tranche, fence, 2, &progress) };
        store.commit(&[second]).await.remove(0).unwrap();
        assert_eq!(harness.open().write_positions(&tranche, &["a-1"]).await.unwrap(), [Some(upto(4))]);
    }
}

#[tokio::test]
async fn c12_a_program_that_moves_the_position_voids_the_set_and_fences_its_owner() {
    let directory = TempDir::new().unwrap();
    let store = SqliteCheckpoints::new(&CheckpointSettings::default(), &context(directory.path()));
    let key = key("g", "s", "0");
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    let progress =
        Progress { position: Some(Position::Number(4)), handled: set(&[(6, 8)]), read_to: Some(Position::Number(9)) };
    commit_one(&store, &key, fence, 1, &progress).await.unwrap();

    let stranger = rusqlite::Connection::open(file_in(directory.path(), "propulsiond.db")).unwrap();
    let mut moves = Vec::new();
    for position in ["7", "NULL", "'4'"] {
        let moved = stranger.execute(&format!("UPDATE propulsion_checkpoint SET position = {position}"), []).unwrap();
        assert_eq!(moved, 1);
        moves.push(store.load(&key).await.unwrap().unwrap());
        assert!(fenced_by(commit_one(&store, &key, fence, 2, &at(9)).await).contains("moved the position"));
    }
    let nowhere = Progress { position: None, handled: set(&[]), read_to: None };
    assert_eq!(moves, [at(7), nowhere, Progress::at(Position::token("4"))]);

    // A new claim takes the moved position over, and its commits follow it.
    let claimed = store.claim(&key, &owner("a")).await.unwrap();
    assert_eq!((claimed.progress, claimed.sequence), (Some(Progress::at(Position::token("4"))), 1));
    commit_one(&store, &key, claimed.fence, 2, &progress).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap(), Some(progress));

    stranger.execute("DELETE FROM propulsion_checkpoint", []).unwrap();
    assert_eq!(store.load(&key).await.unwrap(), None, "a row that was taken away is a position that was reset");
    assert!(fenced_by(commit_one(&store, &key, claimed.fence, 3, &at(9)).await).contains("moved the position"));
}

#[tokio::test]
async fn c12_a_claim_begins_at_the_row_of_another_program() {
    let directory = TempDir::new().unwrap();
    let store = SqliteCheckpoints::new(&CheckpointSettings::default(), &context(directory.path()));
    let key = key("g", "s", "0");
    assert_eq!(store.load(&key).await.unwrap(), None);
    let stranger = rusqlite::Connection::open(file_in(directory.path(), "propulsiond.db")).unwrap();
    stranger.execute("INSERT INTO propulsion_checkpoint VALUES ('s', '0', 'g', 12)", []).unwrap();
    assert_eq!(store.load(&key).await.unwrap(), Some(at(12)));
    let claimed = store.claim(&key, &owner("a")).await.unwrap();
    assert_eq!((claimed.progress, claimed.sequence), (Some(at(12)), 0));
    commit_one(&store, &key, claimed.fence, 1, &at(13)).await.unwrap();
}

#[tokio::test]
async fn c15_two_connections_to_one_database_fence_each_other() {
    let directory = TempDir::new().unwrap();
    let store = |path: &str| {
        let settings = CheckpointSettings { path: Text::literal(path), ..CheckpointSettings::default() };
        SqliteCheckpoints::new(&settings, &context(directory.path()))
    };
    // Another spelling of the path gives another thread and connection, as another process has.
    let (one, two) = (store("p.db"), store("x/../p.db"));
    std::fs::create_dir(directory.path().join("x")).unwrap();
    let key = key("g", "s", "0");
    let owners = [owner("a"), owner("b")];
    let (a, b) = tokio::join!(claim_at_last(&one, &key, &owners[0]), claim_at_last(&two, &key, &owners[1]));
    assert_ne!(a, b);
    let (progress_a, progress_b) = (at(1), at(2));
    let (first, second) =
        tokio::join!(commit_one(&one, &key, a, 1, &progress_a), commit_one(&two, &key, b, 1, &progress_b));
    assert_eq!((first.is_ok(), second.is_ok()), (a > b, b > a));
    assert_eq!(one.load(&key).await.unwrap(), Some(if a > b { progress_a } else { progress_b }));
}

/// Claims as a pipeline does, and retries while the file is locked. Two processes that create the file do not wait for each other.
async fn claim_at_last(store: &SqliteCheckpoints, key: &CheckpointKey, owner: &Owner) -> Fence {
    for _ in 0..1_000 {
        match store.claim(key, owner).await {
            Ok(claimed) => return claimed.fence,
            Err(error) => assert_eq!(error.kind, CheckpointErrorKind::Unavailable, "{error:?}"),
        }
    }
    panic!("the key could not be claimed");
}

#[tokio::test]
async fn commits_of_one_group_are_all_stored() {
    let harness = Harness::sqlite();
    let store = harness.open();
    let keys: Vec<_> = (0..300).map(|tranche| key("g", "s", &tranche.to_string())).collect();
    let committed = keys.iter().map(async |key| {
        let fence = store.claim(key, &owner("a")).await.unwrap().fence;
        for sequence in 1..=3 {
            commit_one(&*store, key, fence, sequence, &at(sequence.cast_signed())).await.unwrap();
        }
    });
    futures_util::future::join_all(committed).await;
    for key in &keys {
        assert_eq!(store.load(key).await.unwrap(), Some(at(3)), "{key}");
    }
}

#[tokio::test]
async fn a_truncated_file_is_unreadable_and_named() {
    let directory = TempDir::new().unwrap();
    let store = FileCheckpoints::new(&store::Settings::default(), &context(directory.path()));
    let key = key("g", "s", "0");
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    commit_one(&store, &key, fence, 1, &Progress { position: None, handled: set(&[(1, 2)]), read_to: None })
        .await
        .unwrap();
    let path = directory.path().join("checkpoints/g~s~0.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    let damaged = [
        whole[..whole.len() / 2].to_owned(),
        String::new(),
        whole.replace("\"handled\": \"01", "\"handled\": \"09"),
        whole.replace("\"handled\": \"01", "\"handled\": \"x"),
        whole.replace("\"version\": 1", "\"version\": 2"),
        whole.replace("\"group\": \"g\"", "\"group\": \"h\""),
    ];
    for text in damaged {
        assert_ne!(text, whole);
        std::fs::write(&path, text).unwrap();
        for error in [
            store.load(&key).await.unwrap_err(),
            store.claim(&key, &owner("b")).await.unwrap_err(),
            commit_one(&store, &key, fence, 2, &at(1)).await.unwrap_err(),
        ] {
            assert_eq!(error.kind, CheckpointErrorKind::Unreadable);
            assert!(error.to_string().contains("g~s~0.json"), "{error}");
        }
    }
    std::fs::write(&path, whole).unwrap();
    commit_one(&store, &key, fence, 2, &at(1)).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_created_is_unavailable_and_named() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let settings = store::Settings { path: Text::literal("file/below") };
    let store = FileCheckpoints::new(&settings, &context(directory.path()));
    let error = store.claim(&key("g", "s", "0"), &owner("a")).await.unwrap_err();
    assert_eq!(error.kind, CheckpointErrorKind::Unavailable);
    assert!(format!("{:#}", anyhow::Error::from(error)).contains("file/below"));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_holds_the_lock_is_waited_for_and_then_named() {
    let harness = Harness::file();
    let Harness::File(directory) = &harness else { unreachable!() };
    let (store, key) = (harness.open(), key("g", "s", "0"));
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    let lock = std::fs::File::open(directory.path().join("checkpoints/.lock")).unwrap();
    lock.lock().unwrap();
    let error = commit_one(&*store, &key, fence, 1, &at(1)).await.unwrap_err();
    assert_eq!(error.kind, CheckpointErrorKind::Unavailable);
    assert!(format!("{:#}", anyhow::Error::from(error)).contains("another process holds"));
    assert_eq!(store.load(&key).await.unwrap(), None, "looking needs no lock");
    lock.unlock().unwrap();
    commit_one(&*store, &key, fence, 1, &at(1)).await.unwrap();
}

#[tokio::test]
async fn each_fault_of_the_memory_store_does_as_documented() {
    let store = propulsiond::connector::memory::store::MemoryCheckpoints::default();
    let key = key("g", "s", "0");
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    let inject = |fault| store.inject(move |operation| matches!(operation, Operation::Commit(_)).then_some(fault));
    let mut seen = Vec::new();
    for fault in [Fault::Reject, Fault::UnknownBeforeWrite, Fault::FailAfterWrite] {
        inject(fault);
        let error = commit_one(&store, &key, fence, 1, &at(1)).await.unwrap_err();
        seen.push((error.kind, store.load(&key).await.unwrap()));
    }
    assert_eq!(
        seen,
        [
            (CheckpointErrorKind::Unavailable, None),
            (CheckpointErrorKind::OutcomeUnknown, None),
            (CheckpointErrorKind::OutcomeUnknown, Some(at(1))),
        ]
    );

    inject(Fault::Hold);
    let progress = at(2);
    let shared = Arc::new(store.clone());
    let mut held = Box::pin(commit_one(&*shared, &key, fence, 2, &progress));
    assert!(futures_util::poll!(&mut held).is_pending());
    store.release_held();
    held.await.unwrap();

    store.move_position(&key, Some(Position::Number(5)));
    store.inject(|_| None);
    assert!(fenced_by(commit_one(&store, &key, fence, 3, &at(3)).await).contains("moved the position"));
}
