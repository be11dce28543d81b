//! The contract of a sink that holds the progress: it commits effects and progress together, or neither.

use propulsiond::checkpoint::{CheckpointErrorKind, Commit, Fence, Parked, ParkedStream, ParkedUpdate, QueuedId};
use propulsiond::connector::memory::store::{Fault, Operation};
use propulsiond::handler::HandlerErrorKind;
use propulsiond::position::{Ordinal, Progress, WritePosition};
use propulsiond::sink::{ParkedChange, TransactionError, TransactionalSink, Written};

use super::harness::*;

macro_rules! every_sink {
    ($($case:ident),* $(,)?) => {
        cases! {
            sqlite_sink: [$($case),*];
            memory_sink: [$($case),*];
        }
    };
}

every_sink! {
    effects_and_progress_are_stored_together,
    a_dropped_transaction_leaves_nothing,
    a_failed_commit_leaves_nothing,
    one_bad_decision_spoils_no_other,
    c10_one_fenced_tranche_takes_the_whole_transaction_with_it,
    c11_a_transaction_for_a_stored_commit_is_not_written_again,
    c11_a_transaction_that_breaks_the_chain_leaves_nothing,
    c13_write_positions_belong_to_the_transaction,
    c14_a_set_that_is_too_large_leaves_nothing_and_is_no_decisions_fault,
    c21_parked_events_belong_to_the_transaction,
    c21_effects_and_the_removal_of_their_parked_events_are_one_transaction,
    c10_one_fenced_change_of_parked_streams_undoes_the_others,
    progress_without_effects_can_be_committed,
    a_plain_write_reports_each_decision,
    only_reads_do_not_wait_for_the_end_of_a_transaction,
}

/// Writes one effect and commits it under the given number of the chain.
async fn write_and_commit(
    sink: &dyn TransactionalSink,
    commit: Commit<'_>,
    stream: &str,
    index: i64,
) -> Result<(), TransactionError> {
    let mut transaction = sink.begin().await.unwrap();
    let written = transaction.write(&[inserts(stream, index)]).await;
    assert_eq!(written, [Ok(Written::All)]);
    transaction.commit(&[commit], &[]).await
}

async fn effects_and_progress_are_stored_together(harness: Harness) {
    let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(4));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let mut transaction = sink.begin().await.unwrap();
    for index in 0..3 {
        let decided = [inserts("a-1", index), inserts("b-1", index)];
        assert_eq!(transaction.write(&decided).await, [Ok(Written::All), Ok(Written::All)]);
    }
    assert_eq!(harness.effects(), []);
    assert_eq!(sink.checkpoints().load(&key).await.unwrap(), None);
    transaction.commit(&[commit(&key, fence, 1, &progress)], &[]).await.unwrap();
    assert_eq!(harness.effects().len(), 6);
    assert_eq!(sink.checkpoints().load(&key).await.unwrap(), Some(at(4)));
    assert_eq!(sink.checkpoints().claim(&key, &owner("a")).await.unwrap().sequence, 1);
}

async fn a_dropped_transaction_leaves_nothing(harness: Harness) {
    let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(1));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let mut transaction = sink.begin().await.unwrap();
    transaction.write(&[inserts("a-1", 0)]).await;
    drop(transaction);
    // A transaction whose `begin` was dropped must not block others either.
    let mut beginning = Box::pin(sink.begin());
    drop(futures_util::poll!(&mut beginning));
    drop(beginning);
    write_and_commit(&*sink, commit(&key, fence, 1, &progress), "b-1", 0).await.unwrap();
    assert_eq!(harness.effects(), [("b-1".to_owned(), 0)]);
}

async fn a_failed_commit_leaves_nothing(harness: Harness) {
    let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(1));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    harness.fail_next_commit();
    let failed = if matches!(harness, Harness::SqliteSink(_)) {
        // A deferred constraint is checked at the commit only.
        let mut transaction = sink.begin().await.unwrap();
        let make = "CREATE TABLE child (parent TEXT REFERENCES effects (stream) DEFERRABLE INITIALLY DEFERRED)";
        let decisions = [
            inserts("a-1", 0),
            decided("c-1", 0, vec![statement("CREATE UNIQUE INDEX streams ON effects (stream)", vec![])]),
            decided("c-1", 1, vec![statement(make, vec![])]),
            decided("c-1", 2, vec![statement("INSERT INTO child VALUES ('nobody')", vec![])]),
        ];
        assert!(transaction.write(&decisions).await.iter().all(Result::is_ok));
        transaction.commit(&[commit(&key, fence, 1, &progress)], &[]).await
    } else {
        write_and_commit(&*sink, commit(&key, fence, 1, &progress), "a-1", 0).await
    };
    assert!(matches!(failed, Err(TransactionError::Failed(_))), "{failed:?}");
    assert_eq!((harness.effects(), sink.checkpoints().load(&key).await.unwrap()), (vec![], None));
    write_and_commit(&*sink, commit(&key, fence, 1, &progress), "a-1", 0).await.unwrap();
    assert_eq!((harness.effects().len(), sink.checkpoints().load(&key).await.unwrap()), (1, Some(at(1))));
}

async fn one_bad_decision_spoils_no_other(harness: Harness) {
    let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(1));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let mut transaction = sink.begin().await.unwrap();
    assert_eq!(transaction.write(&[inserts("a-1", 0)]).await, [Ok(Written::All)]);
    // The bad effect comes with one that would succeed by itself.
    let bad = |index| decided("bad-1", index, vec![insert("good-1", index), insert("bad-1", index)]);
    let decisions = [inserts("a-2", 0), bad(0), inserts("a-3", 0), bad(1), inserts("a-4", 0)];
    let kinds: Vec<_> =
        transaction.write(&decisions).await.into_iter().map(|result| result.map_err(|error| error.kind())).collect();
    let (all, permanent) = (Ok(Written::All), Err(HandlerErrorKind::Permanent));
    assert_eq!(kinds, [all, permanent, all, permanent, all]);
    transaction.commit(&[commit(&key, fence, 1, &progress)], &[]).await.unwrap();
    assert_eq!(harness.effects(), ["a-1", "a-2", "a-3", "a-4"].map(|stream| (stream.to_owned(), 0)));
}

async fn c10_one_fenced_tranche_takes_the_whole_transaction_with_it(harness: Harness) {
    let (sink, progress) = (harness.open_sink(), at(1));
    let keys = [key("g", "s", "0"), key("g", "s", "1")];
    let mine = sink.checkpoints().claim(&keys[0], &owner("a")).await.unwrap().fence;
    let lost = sink.checkpoints().claim(&keys[1], &owner("a")).await.unwrap().fence;
    sink.checkpoints().claim(&keys[1], &owner("b")).await.unwrap();
    let mut transaction = sink.begin().await.unwrap();
    transaction.write(&[inserts("a-1", 0), inserts("b-1", 0)]).await;
    let commits = [commit(&keys[0], mine, 1, &progress), commit(&keys[1], lost, 1, &progress)];
    match transaction.commit(&commits, &[]).await {
        Err(TransactionError::Fenced(fenced)) => {
            let named: Vec<_> = fenced.into_iter().map(|(key, error)| (key, fenced_by::<()>(Err(error)))).collect();
            assert_eq!(named, [(keys[1].clone(), "b".to_owned())]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((harness.effects(), sink.checkpoints().load(&keys[0]).await.unwrap()), (vec![], None));
    write_and_commit(&*sink, commit(&keys[0], mine, 1, &progress), "a-1", 0).await.unwrap();
}

async fn c11_a_transaction_for_a_stored_commit_is_not_written_again(harness: Harness) {
    let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(1));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    write_and_commit(&*sink, commit(&key, fence, 1, &progress), "a-1", 0).await.unwrap();
    let again = write_and_commit(&*sink, commit(&key, fence, 1, &progress), "a-1", 1).await;
    assert!(matches!(again, Err(TransactionError::OutcomeUnknown(_))), "{again:?}");
    assert_eq!(harness.effects(), [("a-1".to_owned(), 0)]);
}

async fn c11_a_transaction_that_breaks_the_chain_leaves_nothing(harness: Harness) {
    let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(1));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let broken = write_and_commit(&*sink, commit(&key, fence, 2, &progress), "a-1", 0).await;
    assert!(matches!(broken, Err(TransactionError::OutcomeUnknown(_))), "{broken:?}");
    assert_eq!((harness.effects(), sink.checkpoints().load(&key).await.unwrap()), (vec![], None));
}

async fn c13_write_positions_belong_to_the_transaction(harness: Harness) {
    let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(1));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let moved = [("a-1".into(), WritePosition::upto(1))];
    let with_positions = |fence| Commit { write_positions: &moved, ..commit(&key, fence, 1, &progress) };
    write_and_commit(&*sink, with_positions(Fence(99)), "a-1", 0).await.unwrap_err();
    assert_eq!(sink.checkpoints().write_positions(&key, &["a-1"]).await.unwrap(), [None]);
    write_and_commit(&*sink, with_positions(fence), "a-1", 0).await.unwrap();
    assert_eq!(sink.checkpoints().write_positions(&key, &["a-1"]).await.unwrap(), [Some(WritePosition::upto(1))]);
}

async fn c14_a_set_that_is_too_large_leaves_nothing_and_is_no_decisions_fault(harness: Harness) {
    let (sink, key) = (harness.open_sink(), key("g", "s", "0"));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let runs: Vec<_> = (0..sink.checkpoints().max_set_bytes().unwrap() as u64).map(|run| (run * 3, run * 3)).collect();
    let progress = Progress { position: None, handled: set(&runs), read_to: None };
    let refused = write_and_commit(&*sink, commit(&key, fence, 1, &progress), "a-1", 0).await;
    match refused {
        Err(TransactionError::Failed(error)) => assert_eq!(error.kind(), HandlerErrorKind::Unusable, "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!((harness.effects(), sink.checkpoints().load(&key).await.unwrap()), (vec![], None));
}

async fn c21_parked_events_belong_to_the_transaction(harness: Harness) {
    let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(1));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let parked = sink.checkpoints().parked().unwrap();
    let event = event("p-1", 3, 7);
    // The event with a lower ordinal is appended last (C21).
    let from = Ordinal::new(5, 1);
    let mark = mark("it failed");
    let events = [Parked { event: &event, from, mark: &mark }];
    let change = |fence| ParkedChange { key: &key, fence, events: &events, updates: &[] };

    let mut transaction = sink.begin().await.unwrap();
    transaction.write(&[inserts("a-1", 0)]).await;
    let refused = transaction.commit(&[commit(&key, fence, 1, &progress)], &[change(Fence(99))]).await;
    assert!(matches!(refused, Err(TransactionError::Fenced(_))), "{refused:?}");
    assert_eq!((harness.effects(), parked.load(&key).await.unwrap()), (vec![], vec![]));

    let mut transaction = sink.begin().await.unwrap();
    transaction.write(&[inserts("a-1", 0)]).await;
    transaction.commit(&[commit(&key, fence, 1, &progress)], &[change(fence)]).await.unwrap();
    let kept = parked.load(&key).await.unwrap();
    let stream = ParkedStream { stream: "p-1".into(), first: from, events: 1, bytes: 8, mark };
    assert_eq!((harness.effects().len(), kept), (1, vec![stream]));
}

async fn c21_effects_and_the_removal_of_their_parked_events_are_one_transaction(harness: Harness) {
    let (sink, key) = (harness.open_sink(), key("g", "s", "0"));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let parked = sink.checkpoints().parked().unwrap();
    let (first, later, mark) = (event("p-1", 3, 7), event("p-1", 4, 8), mark("it failed"));
    let park = |event| Parked { event, from: Ordinal::new(7, 0), mark: &mark };
    parked.append(&key, fence, &[park(&first)]).await.unwrap();
    let removed = [QueuedId::of(&first), QueuedId::of(&later)];
    let updates = [ParkedUpdate::Remove { stream: "p-1", events: &removed }, ParkedUpdate::Unpark { stream: "p-1" }];
    // The later event is appended first, and is then removed as well.
    let events = [park(&later)];
    let change = |fence| ParkedChange { key: &key, fence, events: &events, updates: &updates };
    let is_parked = async || !parked.load(&key).await.unwrap().is_empty();

    let mut fenced = sink.begin().await.unwrap();
    fenced.write(&[inserts("p-1", 3)]).await;
    let refused = fenced.commit(&[], &[change(Fence(99))]).await;
    assert!(matches!(refused, Err(TransactionError::Fenced(_))), "{refused:?}");
    let mut dropped = sink.begin().await.unwrap();
    dropped.write(&[inserts("p-1", 3)]).await;
    drop(dropped);
    assert_eq!((harness.effects(), is_parked().await), (vec![], true));

    let mut transaction = sink.begin().await.unwrap();
    transaction.write(&[inserts("p-1", 3)]).await;
    transaction.commit(&[], &[change(fence)]).await.unwrap();
    assert_eq!((harness.effects(), is_parked().await), (vec![("p-1".to_owned(), 3)], false));
}

async fn c10_one_fenced_change_of_parked_streams_undoes_the_others(harness: Harness) {
    let (sink, one, two) = (harness.open_sink(), key("g", "s", "0"), key("g", "s", "1"));
    let store = sink.checkpoints();
    let mine = store.claim(&one, &owner("a")).await.unwrap().fence;
    let lost = store.claim(&two, &owner("a")).await.unwrap().fence;
    store.claim(&two, &owner("thief")).await.unwrap();
    let (event, mark) = (event("p-1", 3, 7), mark("it failed"));
    let events = [Parked { event: &event, from: event.at(), mark: &mark }];
    let change = |key, fence| ParkedChange { key, fence, events: &events, updates: &[] };
    let mut transaction = sink.begin().await.unwrap();
    transaction.write(&[inserts("a-1", 0)]).await;
    match transaction.commit(&[], &[change(&one, mine), change(&two, lost)]).await {
        Err(TransactionError::Fenced(fenced)) => {
            assert!(fenced.iter().map(|(key, _)| key).eq([&two]), "{fenced:?}");
        }
        other => panic!("{other:?}"),
    }
    let parked = store.parked().unwrap();
    assert_eq!((harness.effects(), parked.load(&one).await.unwrap()), (vec![], vec![]));
}

async fn progress_without_effects_can_be_committed(harness: Harness) {
    let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(1));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    let mut transaction = sink.begin().await.unwrap();
    assert_eq!(transaction.write(&[decided("a-1", 0, vec![])]).await, [Ok(Written::All)]);
    transaction.commit(&[commit(&key, fence, 1, &progress)], &[]).await.unwrap();
    assert_eq!(sink.checkpoints().load(&key).await.unwrap(), Some(at(1)));
}

async fn a_plain_write_reports_each_decision(harness: Harness) {
    let sink = harness.open_sink();
    let decisions = [inserts("a-1", 0), inserts("bad-1", 0), inserts("a-2", 0)];
    let written: Vec<_> = sink.write(&decisions).await.iter().map(Result::is_ok).collect();
    assert_eq!(written, [true, false, true]);
    assert_eq!(harness.effects(), ["a-1", "a-2"].map(|stream| (stream.to_owned(), 0)));
    sink.close().await.unwrap();
}

async fn only_reads_do_not_wait_for_the_end_of_a_transaction(harness: Harness) {
    let (sink, one, two, progress) = (harness.open_sink(), key("g", "s", "0"), key("g", "s", "1"), at(1));
    let fence = sink.checkpoints().claim(&one, &owner("a")).await.unwrap().fence;
    let other = sink.checkpoints().claim(&two, &owner("a")).await.unwrap().fence;
    let mut transaction = sink.begin().await.unwrap();
    transaction.write(&[inserts("a-1", 0)]).await;
    let checkpoints = sink.checkpoints();
    let waits = commit_one(&*checkpoints, &two, other, 1, &progress);
    let ends = async {
        assert_eq!(sink.checkpoints().load(&one).await.unwrap(), None);
        assert_eq!(sink.checkpoints().write_positions(&one, &["a-1"]).await.unwrap(), [None]);
        transaction.commit(&[commit(&one, fence, 1, &progress)], &[]).await.unwrap();
    };
    let (committed, ()) = tokio::join!(waits, ends);
    committed.unwrap();
    assert_eq!(sink.checkpoints().load(&two).await.unwrap(), Some(at(1)));
}

#[tokio::test]
async fn c11_an_unknown_outcome_of_the_memory_sink_can_be_either() {
    for (fault, stored) in [(Fault::UnknownBeforeWrite, false), (Fault::FailAfterWrite, true)] {
        let harness = Harness::memory_sink();
        let Harness::MemorySink(memory) = &harness else { unreachable!() };
        let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(1));
        let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
        memory.checkpoints().inject(move |operation| matches!(operation, Operation::Transaction).then_some(fault));
        let unknown = write_and_commit(&*sink, commit(&key, fence, 1, &progress), "a-1", 0).await;
        assert!(matches!(unknown, Err(TransactionError::OutcomeUnknown(_))), "{unknown:?}");
        assert_eq!(harness.effects().len(), usize::from(stored));
        assert_eq!(sink.checkpoints().load(&key).await.unwrap(), stored.then(|| at(1)));
    }
}

#[tokio::test]
async fn a_fenced_error_names_the_key_and_the_file() {
    let harness = Harness::sqlite_sink();
    let (sink, key, progress) = (harness.open_sink(), key("g", "s", "0"), at(1));
    let fence = sink.checkpoints().claim(&key, &owner("a")).await.unwrap().fence;
    sink.checkpoints().claim(&key, &owner("b")).await.unwrap();
    let fenced = write_and_commit(&*sink, commit(&key, fence, 1, &progress), "a-1", 0).await;
    let Err(TransactionError::Fenced(mut fenced)) = fenced else { panic!("{fenced:?}") };
    let error = fenced.remove(0).1;
    assert!(matches!(&error.kind, CheckpointErrorKind::Fenced { by, since: Some(_) } if by == "b"), "{error:?}");
    assert!(error.to_string().starts_with("cannot commit g/s/0 to `"), "{error}");
    assert!(error.to_string().ends_with("projections.db`"), "{error}");
}
