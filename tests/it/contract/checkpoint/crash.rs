//! The database after a crash at many points: it never has effects without their progress, nor the reverse.

use std::path::Path;

use propulsiond::position::Position;
use propulsiond::sink::{Sink, TransactionalSink};
use tempfile::TempDir;

use super::harness::*;

const TRANSACTIONS: i64 = 40;
const EFFECTS_EACH: i64 = 7;

/// Commits transactions with some effects each, position by position, and begins one that never ends.
async fn write_transactions(directory: &Path) {
    let sink = sqlite_sink(directory, &[EFFECTS]);
    let key = key("g", "s", "0");
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    for transaction in 0..TRANSACTIONS {
        let decisions: Vec<_> = (0..EFFECTS_EACH).map(|n| inserts("a-1", transaction * EFFECTS_EACH + n)).collect();
        let mut open = sink.begin().await.unwrap();
        assert!(open.write(&decisions).await.iter().all(Result::is_ok));
        let progress = at(transaction + 1);
        let sequence = transaction.unsigned_abs() + 1;
        open.commit(&[commit(&key, fence, sequence, &progress)], &[]).await.unwrap();
    }
    let mut unfinished = sink.begin().await.unwrap();
    assert!(unfinished.write(&[inserts("a-1", 1_000_000)]).await[0].is_ok());
    // The copy is made while the transaction is open, and before the log is written back.
    for file in ["projections.db", "projections.db-wal"] {
        std::fs::copy(directory.join(file), directory.join("copy").join(file)).unwrap();
    }
}

/// Opens the copy, with its log truncated to `length`, and returns the position and the number of effects.
async fn recover(copy: &Path, length: usize, log: &[u8]) -> (i64, i64) {
    let directory = TempDir::new().unwrap();
    std::fs::copy(copy.join("projections.db"), directory.path().join("projections.db")).unwrap();
    std::fs::write(directory.path().join("projections.db-wal"), &log[..length]).unwrap();
    let sink = sqlite_sink(directory.path(), &[EFFECTS]);
    let position =
        match sink.checkpoints().load(&key("g", "s", "0")).await.unwrap().and_then(|progress| progress.position) {
            None => 0,
            Some(Position::Number(number)) => number,
            Some(other) => panic!("{other}"),
        };
    // The creation of the table may be lost too.
    assert!(sink.write(&[]).await.is_empty());
    let effects = effects_in(&directory.path().join("projections.db"));
    assert!(effects.iter().all(|(_, n)| *n < position * EFFECTS_EACH), "no effect of what was not committed");
    (position, effects.len().try_into().unwrap())
}

#[tokio::test]
async fn c11_a_crash_at_any_point_of_the_log_leaves_effects_and_progress_of_the_same_commit() {
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    write_transactions(directory.path()).await;
    let log = std::fs::read(copy.join("projections.db-wal")).unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let mut cuts: Vec<_> = (0..60).map(|_| random.usize(0..=log.len())).chain([0, log.len()]).collect();
    cuts.sort_unstable();
    let mut reached = 0;
    for length in cuts {
        let (position, effects) = recover(&copy, length, &log).await;
        assert_eq!(effects, position * EFFECTS_EACH, "with {length} of {} bytes of the log", log.len());
        assert!(position >= reached, "more of the log is never less progress");
        reached = position;
    }
    assert_eq!(reached, TRANSACTIONS, "the whole log holds all that was committed");
}

#[tokio::test]
async fn c11_a_log_with_a_damaged_page_counts_up_to_that_page() {
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    write_transactions(directory.path()).await;
    let log = std::fs::read(copy.join("projections.db-wal")).unwrap();
    let mut random = fastrand::Rng::with_seed(12);
    for _ in 0..20 {
        let mut damaged = log.clone();
        let at = random.usize(32..log.len());
        damaged[at] ^= 1 << random.u8(0..8);
        let (position, effects) = recover(&copy, log.len(), &damaged).await;
        assert_eq!(effects, position * EFFECTS_EACH, "with byte {at} damaged");
    }
}
