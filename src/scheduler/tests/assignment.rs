//! Tranches that are revoked and opened again (C6, C7), and recovered progress.

use expect_test::expect;

use super::super::Options;
use super::script::{check, check_with, options};
use crate::event::Indexes;

#[test]
fn c6_work_of_a_revoked_tranche_keeps_its_stream_and_counts_for_nothing() {
    check(
        "read t0: a/0 a/1; take; revoke t0; explain a; progress t0; open t0; read t0: a/0 a/1 b/0; take; take; explain a; ok a; take; progress t0; ok a; ok b; progress t0",
        expect![[r#"
            a 0 1
            Active head=None events=2 age=0 write=None
            not held
            b 0
            nothing
            Active head=Some(0) events=4 age=0 write=None blocks=1.0
            a 0 1
            origin
            3
        "#]],
    );
    let sparse = Options { indexes: Indexes::Sparse, ..options() };
    check_with(
        sparse,
        "read t0: a/3; take; revoke t0; open t0; read t0: a/3; take; fail a; take; ok a; progress t0",
        expect![[r#"
        a 3
        nothing
        a 3
        1
    "#]],
    );
}

#[test]
fn c7_a_revoked_tranche_is_forgotten() {
    check(
        "read t0: a/0 a/1 a/u2; take; ok a; read t0: a/5; revoke t0; explain a; open t0; read t0: a/0 a/1 a/u2; take; counts; explain a",
        expect![[r#"
            a 0 1 u2@3
            Unknown write=None
            a 0 1 u2@3
            late 0 duplicates 0
            Active head=None events=3 age=0 write=None blocks=1.0
        "#]],
    );
}

#[test]
fn d04_a_stuck_stream_holds_back_its_own_tranche_only() {
    check(
        "open t1; read t0: a/0; read t1: b/0; read t0: c/0; read t1: d/0; take all; fail a; ok b; ok c; ok d; progress t0; progress t1",
        expect![[r#"
            a 0
            b 0
            c 0
            d 0
            origin 2-2
            2
        "#]],
    );
}

#[test]
fn c12_an_event_in_the_recovered_set_is_never_offered() {
    check(
        "open t0 position=2 set=4-5,8; progress t0; tranche t0; read t0: a/0 a/1; progress t0; read t0: a/2 a/3; progress t0; tranche t0; take; ok a; progress t0; read t0: b/0 c/0; progress t0; read t0: a/4; take all; ok a; ok b; progress t0",
        expect![[r#"
            2 4-5 8-8
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=2 completed=0/0 blocked=None
            2 4-5 8-8
            2 4-5 8-8
            batches=2/2 bytes=4 ahead=4 unhandled=2 runs=2 completed=0/2 blocked=Some(3)
            a 0 3
            6 8-8
            6 8-8
            b 0
            a 4
            9
        "#]],
    );
    let sparse = Options { indexes: Indexes::Sparse, ..options() };
    check_with(
        sparse,
        "open t0 position=0 set=2-3,6-9; read t0: a/10 a/11 a/12; progress t0; take; ok a; progress t0; read t0: a/14@5 b/1@7; take; progress t0; tranche t0",
        expect![[r#"
            0 2-3 6-9
            a 10
            3 6-9
            a 14
            3 7-9
            batches=1/1 bytes=2 ahead=2 unhandled=1 runs=1 completed=1/4 blocked=Some(5)
        "#]],
    );
}

#[test]
fn a_run_of_the_recovered_set_that_was_begun_stays_whole() {
    check(
        "open t0 position=0 set=2-9; read t0: a/0 a/1 a/2; progress t0; tranche t0; take; ok a; progress t0; tranche t0; read t0: a/9@20; progress t0; tranche t0",
        expect![[r#"
            0 2-9
            batches=1/1 bytes=2 ahead=3 unhandled=1 runs=1 completed=0/2 blocked=Some(1)
            a 0 next=3
            3 2-9
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=1 completed=1/3 blocked=None
            3
            batches=1/1 bytes=2 ahead=1 unhandled=1 runs=0 completed=1/3 blocked=Some(20)
        "#]],
    );
}

#[test]
fn ordinals_that_descend_are_a_broken_feed_and_no_progress_passes_it() {
    check(
        "read t0: a/0@5 a/1@4; progress t0; take; read t0: b/0@9; take; ok b; progress t0",
        expect![[r#"
        tranche `t0` went back from ordinal 5.0 to 4.0
        origin
        nothing
        b 0
        origin 9-9
    "#]],
    );
}

#[test]
fn a_batch_of_a_tranche_that_is_not_held_is_dropped() {
    check(
        "revoke t0; read t0: a/0; take; progress t0; read t9: a/0; take",
        expect![[r#"
        nothing
        not held
        nothing
    "#]],
    );
}

#[test]
fn streams_of_released_tranches_are_forgotten_step_by_step() {
    use super::super::{IngestBatch, Scheduler};
    use super::script::event;
    use crate::clock::Timestamp;
    use crate::event::Kind;
    use crate::position::{Ordinal, Position, TrancheId};

    let mut scheduler = Scheduler::new(options());
    let mut read = |tranche: &str, from: u64, count: u64| {
        let tranche = TrancheId::new(tranche);
        if scheduler.progress(&tranche).is_none() {
            scheduler.open(&tranche, None);
        }
        let events = (from..from + count)
            .map(|at| event(&format!("{tranche}-{at}"), Kind::Event, Ordinal::new(at, 0), 0, 1))
            .collect();
        let batch = IngestBatch { tranche, events, resume_at: Position::Number(0), write_positions: vec![] };
        scheduler.ingest(batch, Timestamp::ZERO).unwrap();
        while let Some(mut call) = scheduler.take_call(Timestamp::ZERO) {
            let work = call.remove(0);
            let next = work.next;
            scheduler.finish(work, super::super::Outcome::Done { next }, Timestamp::ZERO);
        }
    };
    read("t0", 1, 3000);
    read("t1", 1, 10);
    assert_eq!(scheduler.snapshot(0, Timestamp::ZERO).idle, 3010);
    scheduler.revoke(&TrancheId::new("t0"));
    assert_eq!(scheduler.snapshot(0, Timestamp::ZERO).idle, 10);
    let held =
        |scheduler: &Scheduler| (0..scheduler.streams.bound()).filter(|&id| !scheduler.streams.get(id).free).count();
    assert_eq!(held(&scheduler), 3010, "forgetting takes several steps");
    for at in 0..12 {
        let batch = IngestBatch {
            tranche: TrancheId::new("t1"),
            events: vec![],
            resume_at: Position::Number(at),
            write_positions: vec![],
        };
        scheduler.ingest(batch, Timestamp::ZERO).unwrap();
    }
    assert_eq!(held(&scheduler), 10);
}

#[test]
fn c7_a_stored_write_position_replaces_that_of_a_revoked_tranche() {
    // The call in flight keeps the stream known.
    check(
        "open t1; read t0: a/0 a/1; take; ok a; read t0: a/2; take; revoke t0
         read t1 a=1: a/0 a/1; explain a; ok a; take; counts",
        expect![[r#"
            a 0 1
            a 2
            Active head=Some(1) events=2 age=0 write=Some(1) blocks=2.0
            a 1
            late 0 duplicates 1
        "#]],
    );
}

#[test]
fn c6_a_placeholder_that_waits_for_a_revoked_call_completes_its_batch_with_the_call() {
    check(
        "open t1; read t0: a/0 a/1; take; ok a; read t0: a/2; take; revoke t0; read t1: a/p1; explain a; ok a; explain a; progress t1",
        expect![[r#"
            a 0 1
            a 2
            Active head=Some(1) events=2 age=0 write=None blocks=1.0
            Idle head=None events=0 age=0 write=Some(2)
            1
        "#]],
    );
}

#[test]
fn c7_a_write_position_stays_while_the_tranche_that_reached_it_is_held() {
    check(
        "open t1; read t0: a/0 a/1 a/2 a/3 a/4; take; ok a; read t1: a/p5; explain a; read t0: a/6; take; explain a",
        expect![[r#"
            a 0 1 2 3 4
            Idle head=None events=0 age=0 write=Some(6)
            a 6
            Active head=None events=1 age=0 write=Some(6) blocks=6.0
        "#]],
    );
}

#[test]
fn c7_a_late_event_stays_or_leaves_with_the_tranche_that_brought_it() {
    // The stream belongs to `t1` when `t0` brings a late event of it.
    let late = "open t1; read t0: a/0 a/2; take; ok a; take; ok a; read t1: a/3; take; ok a; read t0: a/1; explain a;";
    check(
        &format!("{late} revoke t0; take; explain a; progress t1"),
        expect![[r#"
        a 0
        a 2
        a 3
        Ready head=Some(1) events=1 age=0 write=Some(4) gaps=[(1, 2)] blocks=3.0
        nothing
        Idle head=None events=0 age=0 write=Some(4) gaps=[(1, 2)]
        1
    "#]],
    );
    check(
        &format!("{late} revoke t1; take; ok a; progress t0"),
        expect![[r#"
        a 0
        a 2
        a 3
        Ready head=Some(1) events=1 age=0 write=Some(4) gaps=[(1, 2)] blocks=3.0
        a 1 late
        3
    "#]],
    );
}
