//! Faults that an audit found, each named after its row.

use expect_test::expect;

use super::super::{IngestBatch, Options, Order, Scheduler};
use super::script::{Runner, check, check_with, event, options};
use crate::clock::Timestamp;
use crate::event::{Indexes, Kind};
use crate::position::{Ordinal, Position, TrancheId};

fn sparse() -> Options {
    Options { indexes: Indexes::Sparse, ..options() }
}

fn all() -> Options {
    Options { require_all: true, ..options() }
}

#[test]
fn l1_progress_never_covers_an_event_that_a_broken_feed_left_unadmitted() {
    // The batch of t0 has ordinals 1 to 6, of which 1, 3 and 5 to 6 were handled earlier. Event b/0 breaks it.
    check(
        "open t1; read t1: b/0; take; ok b
         open t0 position=0 set=1,3,5-9; read t0: a/0 a/1 a/2 b/0 c/0 c/1; progress t0; tranche t0; take; ok a; progress t0",
        expect![[r#"
            b 0
            event 0 of stream `b` came from tranche `t0` after tranche `t1` had brought this event or a later one
            0 1-1 3-3 5-9
            batches=1/1 bytes=2 ahead=6 unhandled=4 runs=3 completed=0/2 blocked=Some(2)
            a 1 next=3
            0 1-3 5-9
        "#]],
    );
    // The run that was begun by admitted events stays whole.
    check(
        "open t1; read t1: b/0; take; ok b
         open t0 position=0 set=2-9; read t0: a/0 a/1 a/2 b/0@20 c/0; take; ok a; progress t0",
        expect![[r#"
            b 0
            event 0 of stream `b` came from tranche `t0` after tranche `t1` had brought this event or a later one
            a 0 next=3
            0 1-9
        "#]],
    );
    // No event of the batch was admitted, because its ordinals are out of order.
    check(
        "open t0 position=0 set=2-9; read t0: a/0 a/1 a/2@1; progress t0",
        expect![[r#"
        tranche `t0` went back from ordinal 2.0 to 1.0
        0 2-9
    "#]],
    );
}

#[test]
fn l2_only_a_tried_event_is_skipped() {
    check(
        "read t0: a/0 a/1 a/2; take; wait a; tick 30; take; fail a; stuck 30
         take-stuck 30; skip a; take-stuck 1; tick 100; take-stuck 1; take; ok a; progress t0",
        expect![[r#"
            a 0 1 2
            a 0 1 2
            stuck ["a running=false"]
            stuck a 0 failures=1
            a 1
            origin 1-2
        "#]],
    );
    // An untried event is not stuck, however short the limit.
    check(
        "read t0: a/0 a/1; take-stuck 0; stuck 0; take",
        expect![[r#"
            stuck []
            a 0 1
        "#]],
    );
    // A late event and one that is queued in front are new victims: each is tried before it can be skipped.
    check(
        "read t0: a/5; take; wait a; tick 30; read t0: a/3; take-stuck 1; take; wait a; tick 10; take-stuck 11; take-stuck 10",
        expect![[r#"
            a 5
            a 3
            stuck a 3
        "#]],
    );
    // A store that takes no parked events is no fault of the stream.
    check(
        "read t0: a/0; take; park a; take; tick 50; stuck 1; wait a; take-stuck 1",
        expect![[r#"
        a 0
        park a 0
        stuck []
    "#]],
    );
}

#[test]
fn l3_a_stuck_stream_is_identified_by_tranche_and_name() {
    check_with(
        sparse(),
        "open t1; read t0: a/1; read t1: a/1; take; defer a; take; wait a; tick 5; tick 30; take-stuck 30; skip a; progress t0; progress t1",
        expect![[r#"
            a 1
            a 1
            stuck a 1
            origin
            1
        "#]],
    );
}

#[test]
fn s8_stuck_after_acts_in_read_order_and_without_order() {
    let read_order = Options { order: Order::Tranche, ..options() };
    check_with(
        read_order.clone(),
        "read t0: a/0 b/0 c/0; take; wait a; tick 30; stuck 30; take-stuck 30; skip a; take-stuck 1; take; ok b; progress t0",
        expect![[r#"
            a 0
            stuck ["a running=false"]
            stuck a 0
            b 0
            origin 1-2
        "#]],
    );
    check_with(
        Options { streams_per_call: 2, ..read_order },
        "read t0: a/0 b/0 c/0; take; wait b; wait a; tick 10; take; wait b; wait a; tick 10; stuck 20; stuck 21
         take-stuck 20; skip a; take-stuck 1; take; ok b; progress t0",
        expect![[r#"
            a 0 + b 0
            a 0 + b 0
            stuck ["a running=false"]
            stuck []
            stuck a 0
            b 0 + c 0
            origin 1-2
        "#]],
    );
    // Progress of another stream of the same call does not restart the clock.
    check_with(
        Options { order: Order::Tranche, streams_per_call: 2, ..options() },
        "read t0: a/0 b/0 c/0; take; wait a; ok b; tick 10; take; ok c; wait a; tick 10; stuck 20; take-stuck 20; skip a; progress t0",
        expect![[r#"
            a 0 + b 0
            a 0 + c 0
            stuck ["a running=false"]
            stuck a 0
            3
        "#]],
    );
    check_with(
        Options { order: Order::None, ..options() },
        "read t0: a/0 a/1; take; wait a; take; ok a; tick 30; stuck 30; take-stuck 30; skip a; progress t0",
        expect![[r#"
            a 0
            a 1
            stuck ["a running=false"]
            stuck a 0
            2
        "#]],
    );
}

#[test]
fn l10_a_repeat_with_another_body_is_counted_and_named_once() {
    check(
        "read t0: a/0#3 a/0#3 a/0#4; conflict; conflict; read t0: a/0#5; conflict; counts; take; read t0: a/0#9; counts; ok a; progress t0",
        expect![[r#"
            event 0 of stream `a` has two contents: ordinal 1.0 of tranche `t0` is handled, and ordinal 3.0 of tranche `t0` is dropped as its repeat
            no conflict
            no conflict
            late 0 duplicates 3
            a 0
            late 0 duplicates 4
            5
        "#]],
    );
    check(
        "read t0: a/0 a/5; take all; ok a; take; ok a; read t0: a/3#1 a/3#2; conflict",
        expect![[r#"
        a 0
        a 5
        event 3 of stream `a` has two contents: ordinal 3.0 of tranche `t0` is handled, and ordinal 4.0 of tranche `t0` is dropped as its repeat
    "#]],
    );
}

#[test]
fn s13_a_repeat_within_a_call_of_a_sparse_source_depends_on_its_original() {
    check_with(
        sparse(),
        "read t0: a/5 a/8 a/9; take; read t0: a/5 a/8; fail a; progress t0; tick 10; take; ok a; progress t0; take; take; ok a; take; ok a; progress t0; counts",
        expect![[r#"
            a 5 8 9
            origin
            a 5 failures=1
            origin 1-1 4-4
            a 8
            nothing
            a 9
            5
            late 0 duplicates 2
        "#]],
    );
    // The stream waited before its call.
    check_with(
        sparse(),
        "read t0: a/5 a/8; take; wait a; tick 10; take; read t0: a/5; wait a; tranche t0; tick 10; take; ok a; progress t0; tranche t0",
        expect![[r#"
            a 5 8
            a 5 8
            batches=0/2 bytes=4 ahead=3 unhandled=3 runs=0 completed=0/0 blocked=Some(1)
            a 5 8
            3
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=2/3 blocked=None
        "#]],
    );
}

#[test]
fn s14_the_greatest_indexes_and_ordinals_do_no_harm() {
    let max = i64::MAX - 1;
    check(
        &format!(
            "read t0: a/{max} a/{max} a/p{max}; take; ok a; read t0: b/p{max} b/u{max}; read t0: c/1 c/p{max}; take all; ok b; ok c; progress t0"
        ),
        expect![[r#"
            a 9223372036854775806
            b u9223372036854775806@5
            c 1
            7
        "#]],
    );
    check_with(
        all(),
        &format!("read t0 a=0..{max}: a/p{max}; progress t0; explain a"),
        expect![[r#"
        1
        Idle head=None events=0 age=0 write=Some(9223372036854775807)
    "#]],
    );
    let mut scheduler = Scheduler::new(options());
    let tranche = TrancheId::new("t0");
    scheduler.open(&tranche, None);
    let last =
        [Ordinal::new(u64::MAX - 1, u32::MAX), Ordinal::new(u64::MAX, u32::MAX - 1), Ordinal::new(u64::MAX, u32::MAX)];
    let events = last.into_iter().zip(0..).map(|(at, index)| event("a", Kind::Event, at, index, 1)).collect();
    let batch =
        IngestBatch { tranche: tranche.clone(), events, resume_at: Position::Number(1), write_positions: vec![] };
    scheduler.ingest(batch, Timestamp::ZERO).unwrap();
    assert_eq!(scheduler.tranche(&tranche).unwrap().blocked_at, Some(last[0]));
}

#[test]
fn s15_tranches_that_end_leave_nothing_behind() {
    for order in [Order::Stream, Order::Tranche, Order::None] {
        for indexes in [Indexes::Dense, Indexes::Sparse] {
            let mut runner = Runner::new(Options { order, indexes, ..options() });
            for number in 0..40 {
                // One call ends after its tranche, one before.
                runner.step(&format!("open e{number}"));
                runner.step(&format!("read e{number}: a{number}/0 b{number}/0 !"));
                runner.step("take all");
                if order != Order::Tranche {
                    runner.step("skip !");
                }
                runner.finish_any(&format!("a{number}"));
                runner.step(&format!("revoke e{number}"));
                runner.finish_any(&format!("b{number}"));
                runner.step("read t0:");
            }
            let ledger = &runner.scheduler.ledger;
            assert!(
                ledger.tranches.len() < 6 && ledger.epochs.len() < 6,
                "{order:?} {indexes:?}: {}",
                ledger.epochs.len()
            );
        }
    }
}

#[test]
fn s18_batches_of_streams_with_a_missing_event_do_not_fill_the_read_ahead() {
    check_with(
        all(),
        "read t0: a/1 b/0; tranche t0; take; ok b; tranche t0; explain a; missing; snapshot
         read t0: a/3; tranche t0; read t0: a/0; tranche t0; take; ok a; missing; explain a; tranche t0
         read t0: a/2; tranche t0; take; ok a; progress t0; tranche t0; missing",
        expect![[r#"
            batches=1/1 bytes=4 ahead=2 unhandled=2 runs=0 completed=0/0 blocked=Some(1)
            b 0
            batches=0/1 bytes=2 ahead=2 unhandled=1 runs=1 completed=0/1 blocked=Some(1)
            Waiting head=Some(1) events=1 age=0 missing=0 write=None blocks=1.0
            missing a/0
            idle=1 waiting=1s/1e/1c ages=0..0 listed=["a"]
            batches=0/2 bytes=4 ahead=3 unhandled=2 runs=1 completed=0/1 blocked=Some(1)
            batches=3/3 bytes=6 ahead=4 unhandled=3 runs=1 completed=0/1 blocked=Some(1)
            a 0 1
            missing a/2
            Waiting head=Some(3) events=1 age=0 missing=2 write=Some(2) blocks=3.0
            batches=0/2 bytes=2 ahead=2 unhandled=1 runs=1 completed=1/3 blocked=Some(3)
            batches=2/3 bytes=4 ahead=3 unhandled=2 runs=1 completed=1/3 blocked=Some(3)
            a 2 3
            5
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=4/5 blocked=None
            missing 
        "#]],
    );
    // A repeat of a waiting event, and a failing stream, keep their counts.
    check_with(
        all(),
        "read t0: a/1 a/1; tranche t0; read t0: a/0; tranche t0; take; fail a; tranche t0; missing; tick 10; take; ok a; take; ok a; progress t0",
        expect![[r#"
            batches=0/1 bytes=2 ahead=2 unhandled=2 runs=0 completed=0/0 blocked=Some(1)
            batches=2/2 bytes=4 ahead=3 unhandled=3 runs=0 completed=0/0 blocked=Some(1)
            a 0 1
            batches=0/2 bytes=4 ahead=3 unhandled=3 runs=0 completed=0/0 blocked=Some(1)
            missing 
            a 0 failures=1
            a 1
            3
        "#]],
    );
}

#[test]
fn s24_covered_events_are_those_that_a_restart_would_not_replay() {
    check(
        "read t0: a/0 b/0; read t0: c/0 c/1 a/1; read t0: d/0 d/u1x2; covered t0
         take all; ok b; ok c; covered t0; ok d; covered t0; ok a; covered t0",
        expect![[r#"
            handled 0 covered 0, without the set 0
            a 0 1
            b 0
            c 0 1
            d 0 u1@7 u1@7
            handled 3 covered 3, without the set 0
            handled 6 covered 6, without the set 0
            handled 8 covered 8, without the set 8
        "#]],
    );
    // Events that an earlier process handled count as handled once they are read again.
    check(
        "open t0 position=0 set=2-3; read t0: a/0 a/1 a/2 a/3; covered t0; take; ok a; covered t0",
        expect![[r#"
        handled 2 covered 2, without the set 0
        a 0 3
        handled 4 covered 4, without the set 4
    "#]],
    );
}

#[test]
fn c5_a_repeat_of_a_late_event_settles_with_it() {
    check(
        "read t0: a/0 a/5; take; ok a; take; ok a; read t0: a/3 a/3; progress t0; take; read t0: a/3; progress t0; with a 4
         fail a; progress t0; tick 10; take; ok a; progress t0",
        expect![[r#"
            a 0
            a 5
            2
            a 3 late
            2
            t0: 5
            2
            a 3 failures=1 late
            5
        "#]],
    );
}

#[test]
fn c3_unfolds_that_come_back_after_a_newer_event_stay_superseded() {
    check(
        "read t0: a/u2; take; read t0: a/2; fail a; progress t0; tick 10; take; progress t0; ok a; progress t0; take",
        expect![[r#"
            a u2@1
            origin
            a 2
            origin
            2
            nothing
        "#]],
    );
    check(
        "read t0: a/0 a/u1; take; read t0: a/u2; fail a; tick 10; take; ok a; progress t0; take; ok a; progress t0",
        expect![[r#"
            a 0 u1@2
            a 0 failures=1
            origin 1-1
            a u2@3
            3
        "#]],
    );
}

#[test]
fn c10_an_answer_under_an_old_claim_counts_for_nothing_under_the_new_one() {
    check(
        "read t0: a/0 b/0; take all; held; revoke t0; held; open t0; read t0: a/0 b/0; held; with a 1; from a
         ok a; progress t0; tranche t0; take; held; fail b; progress t0; take; ok a; ok b; progress t0",
        expect![[r#"
            a 0
            b 0
            held a (true, true, true), b (true, true, true)
            held a (false, false, false), b (false, false, false)
            held a (false, false, false), b (false, false, false)
            from None
            origin
            batches=1/1 bytes=4 ahead=2 unhandled=2 runs=0 completed=0/0 blocked=Some(1)
            a 0
            held b (false, false, false), a (true, true, true)
            origin
            b 0
            2
        "#]],
    );
}

#[test]
fn c20_the_clock_of_stuck_after_stands_still_while_a_decision_waits() {
    // Alone, and after calls without progress, when the clock covers the call in flight, too.
    check(
        "read t0: a/0; take; tick 2; stop-clock a; tick 100; stuck 2; stuck 3; start-clock a; tick 3; stuck 5; stuck 6
         fail a; take-stuck 6; take-stuck 5; return a; tick 10; take; tick 1; wait a; tick 10; take; tick 1; stop-clock a; tick 100
         stop-clock a; stuck 17; stuck 18; start-clock a; tick 1; fail a; take-stuck 19; take-stuck 18",
        expect![[r#"
            a 0
            stuck ["a running=true"]
            stuck []
            stuck ["a running=true"]
            stuck []
            stuck a 0 failures=1
            a 0 failures=1
            a 0 failures=1
            stuck ["a running=true"]
            stuck []
            stuck a 0 failures=2
        "#]],
    );
    // The time of a write that failed for another reason is forgotten. A new call counts its own time only.
    check(
        "read t0: a/0 a/1; take; tick 1; stop-clock a; start-clock a; tick 100; cancel-clock a; stuck 1; stuck 2; singly a; take-stuck 1; take; tick 9; fail a; take-stuck 9",
        expect![[r#"
            a 0 1
            stuck ["a running=true"]
            stuck []
            a 0
            stuck a 0 failures=1
        "#]],
    );
}

#[test]
fn c20_the_clock_of_stuck_after_stands_still_while_it_is_held() {
    check(
        "read t0: a/0; take; hold; tick 100; stuck 1; release; tick 3; stuck 3; stuck 4; hold; wait a; tick 50; take-stuck 4; release; tick 2; take-stuck 5",
        expect![[r#"
            a 0
            stuck []
            stuck ["a running=true"]
            stuck []
            stuck a 0
        "#]],
    );
}

#[test]
fn c14_work_without_room_is_offered_singly_and_spends_no_attempt() {
    check(
        "read t0: a/0 a/1; take; singly a; explain a; take; ok a; take; fail a; tick 10; take; explain a",
        expect![[r#"
            a 0 1
            Ready head=Some(0) events=2 age=0 write=None blocks=1.0
            a 0
            a 1
            a 1 failures=1
            Failing head=None events=1 failures=1 age=10 write=Some(1) blocks=2.0
        "#]],
    );
}
