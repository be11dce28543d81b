//! The other orders (C8).

use expect_test::expect;

use super::super::{Options, Order};
use super::script::{check_with, options};

fn none() -> Options {
    Options { order: Order::None, ..options() }
}

fn tranche(streams_per_call: usize) -> Options {
    Options { order: Order::Tranche, streams_per_call, ..options() }
}

#[test]
fn c8_without_order_every_event_is_a_unit() {
    check_with(
        none(),
        "read t0: a/5 a/5 a/3 a/p4 a/u9x2; take all; fail a; tranche t0; ok a; ok a; ok a; progress t0; tick 10; take; ok a; ok a; progress t0; counts",
        expect![[r#"
            a 5
            a 5
            a 3
            a u9@5
            a u9@5
            batches=1/1 bytes=10 ahead=6 unhandled=5 runs=1 completed=0/1 blocked=Some(1)
            origin 2-4
            a 5 failures=1
            5
            late 0 duplicates 0
        "#]],
    );
}

#[test]
fn c8_without_order_a_failing_event_waits_and_parks_by_itself() {
    check_with(
        none(),
        "read t0: a/0 a/1; take; fail a; take; ok a; take; tick 10; take; park a; take; ok a; progress t0; read t0: a/2; take",
        expect![[r#"
            a 0
            a 1
            nothing
            a 0 failures=1
            park a 0
            2
            a 2
        "#]],
    );
}

#[test]
fn c8_in_read_order_there_is_one_call_at_a_time() {
    check_with(
        tranche(1),
        "open t1; read t0: a/0 a/1 b/7 a/2; read t1: c/0; take; take; take; read t0: b/8; ok a; take; ok b; take; ok a; take; ok b; progress t0",
        expect![[r#"
            a 0 1
            c 0
            nothing
            b 7
            a 2
            b 8
            5
        "#]],
    );
}

#[test]
fn c8_in_read_order_a_head_in_trouble_holds_the_tranche() {
    check_with(
        tranche(1),
        "read t0: a/0 a/1 b/0; take; fail a; take; tranche t0; tick 10; take; ok a; take; defer a; take; tick 10; take; ok a; take; ok b; progress t0",
        expect![[r#"
            a 0 1
            nothing
            batches=1/1 bytes=6 ahead=3 unhandled=3 runs=0 completed=0/0 blocked=Some(1)
            a 0 failures=1
            a 1
            nothing
            a 1
            b 0
            3
        "#]],
    );
}

#[test]
fn c8_in_read_order_a_call_holds_neighbours_each_stream_once() {
    check_with(
        tranche(3),
        "read t0: a/0 a/p9 a/1 b/0 c/0 d/0 a/2 d/1; take; ok b; ok a; take; ok c; take; fail a; ok d; take; tick 10; take; progress t0",
        expect![[r#"
            a 0 1 + b 0 + c 0
            nothing
            d 0 + a 2
            nothing
            a 2 failures=1
            origin 1-6
        "#]],
    );
    check_with(
        tranche(4),
        "read t0: a/0 b/0 a/1; take; ok a; fail b; tick 10; take; ok b; take",
        expect![[r#"
        a 0 + b 0
        b 0 failures=1
        a 1
    "#]],
    );
    check_with(
        tranche(4),
        "read t0: a/0 b/0 c/0; take; fail c; fail a; ok b; tick 10; take; ok a; take; progress t0",
        expect![[r#"
        a 0 + b 0 + c 0
        a 0 failures=1
        c 0
        origin 1-2
    "#]],
    );
}

#[test]
fn c8_in_read_order_duplicates_late_events_and_unfolds_are_just_next() {
    check_with(
        tranche(1),
        "read t0: a/5 a/u6 a/3 a/3; take; with a 6; ok a; progress t0; counts",
        expect![[r#"
        a 5 u6@2 3 3
        t0: 4
        4
        late 0 duplicates 0
    "#]],
    );
}

#[test]
fn c8_in_read_order_streams_park_and_unreadable_records_wait_their_turn() {
    check_with(
        tranche(2),
        "read t0: a/0 ! b/0 a/1; take; ok a; take; fail !; take; tick 10; take; park !; take; ok !; take; park b; take; ok a; take; ok b; read t0: b/1 c/0; take; ok b; unpark b; read t0: b/2; take; progress t0",
        expect![[r#"
            a 0
            malformed ! @2
            nothing
            malformed ! @2 failures=1
            park ! @2
            b 0 + a 1
            nothing
            park b 0
            park b 1
            c 0 + b 2
            4 5-5
        "#]],
    );
    check_with(
        tranche(1),
        "restore t0 a 2; read t0: a/0 a/1 b/0; take; ok a; take; progress t0",
        expect![[r#"
        park a 1
        b 0
        origin 1-2
    "#]],
    );
}

#[test]
fn c6_in_read_order_a_tranche_that_comes_back_waits_for_its_call() {
    check_with(
        tranche(1),
        "read t0: a/0; take; revoke t0; open t0; read t0: a/0 b/0; take; ok a; take; ok a; progress t0",
        expect![[r#"
            a 0
            nothing
            a 0
            origin 1-1
        "#]],
    );
}

#[test]
fn c19_in_read_order_a_later_event_does_not_join_one_that_failed() {
    check_with(
        tranche(1),
        "read t0: a/0; take; fail a; read t0: a/1; tick 10; take; ok a; take",
        expect![[r#"
            a 0
            a 0 failures=1
            a 1
        "#]],
    );
}
