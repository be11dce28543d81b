//! Progress: the handled events, and previews (C9, C14).

use expect_test::expect;

use super::super::{Options, Order};
use super::script::{check, check_with, options};

#[test]
fn c9_progress_covers_handled_events_and_nothing_else() {
    check(
        "read t0: a/0 a/1 a/2 a/3 a/4; take; with a 2; progress t0; ok a 2; progress t0; take; with a; fail a; progress t0; tranche t0",
        expect![[r#"
            a 0 1 2 3 4
            t0: origin 1-2
            origin
            origin 1-2
            a 2 3 4
            t0: 5
            origin 1-2
            batches=0/1 bytes=6 ahead=5 unhandled=3 runs=1 completed=0/2 blocked=Some(3)
        "#]],
    );
}

#[test]
fn c9_only_finished_calls_count_as_progress() {
    check(
        "open t1; read t0: a/0 b/0 a/1; read t1: c/0 d/0; take all; with a 1, c; with a, b; with d 1; ok a; fail b; progress t0; with c, d; progress t1",
        expect![[r#"
            a 0 1
            b 0
            c 0
            d 0
            t0: origin 1-1
            t1: origin 1-1
            t0: 3
            t1: origin 2-2
            origin 1-1 3-3
            t1: 2
            origin
        "#]],
    );
}

#[test]
fn runs_join_over_batches_and_over_ordinals_without_events() {
    check(
        "read t0: a/0 b/0 c/0; read t0: b/1@10 d/0@20; read t0: e/0@30; read t0: a/1; take all; ok d; progress t0; tranche t0; ok e; progress t0; tranche t0; ok b; progress t0; tranche t0; ok c; progress t0; tranche t0; ok a; progress t0; tranche t0",
        expect![[r#"
            b 0 1
            a 0 1
            c 0
            d 0
            e 0
            origin 20-20
            batches=4/4 bytes=12 ahead=7 unhandled=6 runs=1 completed=0/1 blocked=Some(1)
            origin 20-30
            batches=3/4 bytes=10 ahead=7 unhandled=5 runs=1 completed=0/2 blocked=Some(1)
            origin 2-2 10-30
            batches=2/4 bytes=6 ahead=7 unhandled=3 runs=2 completed=0/4 blocked=Some(1)
            origin 2-30
            batches=2/4 bytes=4 ahead=7 unhandled=2 runs=1 completed=0/5 blocked=Some(1)
            31
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=4/7 blocked=None
        "#]],
    );
}

#[test]
fn r10_filtered_and_empty_batches_move_the_position() {
    check(
        "read t0: a/p0 b/p0 a/p1; progress t0; read t0:; progress t0; tranche t0; read t0: c/0; read t0:; read t0: d/p0; progress t0; tranche t0; take; ok c; progress t0; tranche t0",
        expect![[r#"
            3
            3
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=2/3 blocked=None
            3 5-5
            batches=1/2 bytes=2 ahead=2 unhandled=1 runs=1 completed=2/4 blocked=Some(4)
            c 0
            5
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=5/5 blocked=None
        "#]],
    );
}

#[test]
fn d03_a_batch_completes_once_and_in_order() {
    check(
        "read t0: a/0; read t0: b/0; read t0: c/0; take all; ok c; ok b; tranche t0; ok a; tranche t0; read t0: a/0; tranche t0",
        expect![[r#"
            a 0
            b 0
            c 0
            batches=1/3 bytes=2 ahead=3 unhandled=1 runs=1 completed=0/2 blocked=Some(1)
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=3/3 blocked=None
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=4/4 blocked=None
        "#]],
    );
}

#[test]
fn c14_the_runs_of_the_set_are_counted_as_they_come_and_go() {
    check(
        "read t0: a/0 b/0 c/0 d/0 e/0 f/0; take all; ok b; ok d; ok f; tranche t0; ok c; tranche t0; ok e; tranche t0; read t0: g/0 h/0; take all; ok h; tranche t0; ok a; tranche t0; ok g; tranche t0",
        expect![[r#"
            a 0
            b 0
            c 0
            d 0
            e 0
            f 0
            batches=1/1 bytes=6 ahead=6 unhandled=3 runs=3 completed=0/3 blocked=Some(1)
            batches=1/1 bytes=4 ahead=6 unhandled=2 runs=2 completed=0/4 blocked=Some(1)
            batches=1/1 bytes=2 ahead=6 unhandled=1 runs=1 completed=0/5 blocked=Some(1)
            g 0
            h 0
            batches=2/2 bytes=4 ahead=8 unhandled=2 runs=2 completed=0/6 blocked=Some(1)
            batches=1/1 bytes=2 ahead=2 unhandled=1 runs=1 completed=1/7 blocked=Some(7)
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=2/8 blocked=None
        "#]],
    );
}

#[test]
fn batches_with_only_waiting_events_do_not_count() {
    check(
        "read t0: a/0 b/0; read t0: a/1; read t0: a/2 c/0; take; take; ok b; fail a; tranche t0; take; ok c; tranche t0; read t0: a/3; tranche t0; tick 10; take; tranche t0; ok a; tranche t0",
        expect![[r#"
            a 0 1 2
            b 0
            batches=1/3 bytes=8 ahead=5 unhandled=4 runs=1 completed=0/1 blocked=Some(1)
            c 0
            batches=0/3 bytes=6 ahead=5 unhandled=3 runs=2 completed=0/2 blocked=Some(1)
            batches=0/4 bytes=8 ahead=6 unhandled=4 runs=2 completed=0/2 blocked=Some(1)
            a 0 failures=1
            batches=0/4 bytes=8 ahead=6 unhandled=4 runs=2 completed=0/2 blocked=Some(1)
            batches=3/3 bytes=6 ahead=4 unhandled=3 runs=1 completed=1/3 blocked=Some(3)
        "#]],
    );
}

#[test]
fn a_preview_covers_exactly_the_events_that_go_with_a_call() {
    check(
        "read t0: a/0 a/p1 a/2 a/0 a/u2; take; read t0: a/3 a/p4 a/u4 a/5; with a 1; with a; with a 4; with a 5; ok a 4; progress t0",
        expect![[r#"
            a 0 2
            t0: origin 1-2 4-4
            t0: 5
            t0: 5 6-7
            t0: 5 6-7
            5 6-7
        "#]],
    );
    let limited = Options { max_events: 1, ..options() };
    check_with(
        limited,
        "read t0: a/0 a/p1 a/1 a/p2 a/3; take; with a; with a 1; ok a 1; progress t0",
        expect![[r#"
        a 0 next=3
        t0: origin 1-4
        t0: origin 1-4
        origin 1-4
    "#]],
    );
}

#[test]
fn c3_an_ordinal_of_three_unfolds_is_handled_with_the_last_of_them() {
    check_with(
        Options { order: Order::None, ..options() },
        "read t0: a/u2x3 b/0; take all; ok b; progress t0; ok a; progress t0; ok a; progress t0; ok a; progress t0",
        expect![[r#"
            a u2@1
            a u2@1
            a u2@1
            b 0
            origin 2-2
            origin 2-2
            origin 2-2
            2
        "#]],
    );
}

#[test]
fn a_broken_batch_leaves_the_recovered_ordinals_that_reading_has_passed() {
    check(
        "open t1 set=2; read t1: a/0@1 a/1@2 a/2@3; take; ok a; progress t1; read t1: b/0@3; progress t1",
        expect![[r#"
            a 0 2
            3
            tranche `t1` went back from ordinal 3.0 to 3.0
            3
        "#]],
    );
}

#[test]
fn c9_a_preview_leaves_out_a_late_event_that_is_queued_and_its_repeat() {
    check(
        "read t0: a/0 a/5; take; ok a; take; read t0: a/3 a/3; with a; ok a; progress t0; take; with a; ok a; progress t0",
        expect![[r#"
            a 0
            a 5
            t0: 2
            2
            a 3 late
            t0: 4
            4
        "#]],
    );
}

#[test]
fn c9_a_preview_without_progress_covers_nothing() {
    // The placeholder is passed once the unfold is handled, and not before.
    check(
        "read t0: a/u5; take; read t0: a/p0; with a 0; with a; ok a; progress t0",
        expect![[r#"
        a u5@1
        t0: 2
        2
    "#]],
    );
}
