//! Parked streams (C21), and records that could not be read.

use expect_test::expect;

use super::super::{Options, Order};
use super::script::{check, check_with, options};

#[test]
fn park_starts_with_one_event_and_everything_after_it_follows() {
    check(
        "read t0: a/0 a/1 a/2 b/0; take; ok a 1; take; park a; tranche t0; read t0: a/3 a/p4 a/u5; take; ok a; progress t0; explain a; take; ok b; read t0: a/5; take; ok a; progress t0; snapshot",
        expect![[r#"
            a 0 1 2
            a 1 2
            batches=1/1 bytes=6 ahead=4 unhandled=3 runs=1 completed=0/1 blocked=Some(2)
            park a 1 2 3 u5@7
            origin 1-3 5-7
            Parked head=None events=0 age=0 write=Some(5)
            b 0
            park a 5
            8
            idle=1 parked=1s/0e/1c ages=0..0 listed=["a"]
        "#]],
    );
}

#[test]
fn work_that_cannot_be_appended_is_offered_again_unchanged() {
    check(
        "read t0: a/0 a/1; take; park a; take; fail a; take; tick 10; take; wait a; tick 10; take; ok a; take; progress t0",
        expect![[r#"
        a 0 1
        park a 0 1
        nothing
        park a 0 1 failures=1
        park a 0 1 failures=1
        nothing
        2
    "#]],
    );
}

#[test]
fn c21_a_parked_stream_that_is_read_again_drops_its_handled_events() {
    check(
        "restore t0 a 3; read t0: a/0 a/1 b/0 a/2 a/3; explain a; take; ok a; take; ok b; progress t0",
        expect![[r#"
            Parked head=Some(2) events=2 age=0 write=Some(2)
            park a 2 3
            b 0
            5
        "#]],
    );
    // Events handled earlier count with `require_all`, too.
    check_with(
        Options { require_all: true, ..options() },
        "restore t0 a 3; read t0: a/0 a/1 b/0 a/2 a/3; take; ok a; take; ok b; progress t0",
        expect![[r#"
            park a 2 3
            b 0
            5
        "#]],
    );
}

#[test]
fn c21_a_handled_event_of_a_parked_stream_is_never_offered_again() {
    // Event 1 is read before event 0 and waits for it. Both were handled before the stream was parked.
    check_with(
        Options { require_all: true, ..options() },
        "restore t0 a 3; read t0: a/1 a/0; take; read t0: a/2 a/3; take; ok a; progress t0; explain a",
        expect![[r#"
            nothing
            park a 2 3
            4
            Parked head=None events=0 age=0 write=Some(4)
        "#]],
    );
}

#[test]
fn c3_a_stream_is_parked_from_unfolds_that_a_parked_event_supersedes() {
    check(
        "read t0: a/u2 a/0 a/1 a/2; take; park a; take; from a",
        expect![[r#"
        a 0 1 2
        park a 0 1 2
        from Some(1)
    "#]],
    );
}

#[test]
fn an_unparked_stream_resumes_at_the_first_event_not_handed_out() {
    check(
        "read t0: a/0 a/1; take; park a; take; read t0: a/2; unpark a; take; ok a; take; ok a; progress t0; explain a",
        expect![[r#"
            a 0 1
            park a 0 1
            nothing
            a 2
            3
            Idle head=None events=0 age=0 write=Some(3)
        "#]],
    );
    check(
        "restore t0 a 1; unpark a; explain a; read t0: a/0; take",
        expect![[r#"
        Idle head=None events=0 age=0 write=None
        a 0
    "#]],
    );
}

#[test]
fn c7_a_parked_mark_leaves_with_its_tranche() {
    check(
        "read t0: a/0; take; park a; revoke t0; open t0; read t0: a/0; take",
        expect![[r#"
        a 0
        a 0
    "#]],
    );
}

#[test]
fn d01_a_malformed_record_is_work_of_its_own_and_holds_its_batch() {
    check(
        "read t0: a/0 ! b/0 a/!; take; take; take; take; take; ok a; ok b; progress t0; fail !; progress t0; tick 10; take; skip !; progress t0; park a; take; ok a; progress t0",
        expect![[r#"
            a 0
            malformed ! @2
            b 0
            malformed a @4
            nothing
            origin 1-1 3-3
            origin 1-1 3-3
            malformed ! @2 failures=1
            origin 1-3
            park a @4
            4
        "#]],
    );
    check(
        "read t0: a/0 a/! a/1; take; ok a; take; wait a; tick 10; take; skip a; progress t0",
        expect![[r#"
        a 0 1
        malformed a @2
        malformed a @2
        3
    "#]],
    );
}

#[test]
fn parked_streams_among_several_of_a_call_come_alone() {
    let several = Options { streams_per_call: 4, ..options() };
    check_with(
        several,
        "read t0: a/0 b/0 ! c/0; take; park b; take; take; take",
        expect![[r#"
        a 0 + b 0
        malformed ! @3
        c 0
        park b 0
    "#]],
    );
}

#[test]
fn c21_a_stream_is_parked_from_its_smallest_unhandled_ordinal() {
    // The first event to be parked was read last: the stored ordinal must not pass the event before.
    check(
        "read t0: a/5; read t0: a/4; take; fail a; tick 10; take; from a; park a; take; from a; ok a; progress t0
         open t0 position=0 set=2; restore t0 a 1; read t0: a/5 a/4; take; ok a; progress t0",
        expect![[r#"
            a 4 5
            a 4 failures=1
            from None
            park a 4
            from Some(1)
            origin 2-2
            park a 5
            2
        "#]],
    );
    let by_tranche = Options { order: Order::Tranche, ..options() };
    check_with(
        by_tranche,
        "read t0: a/0 b/0 a/1; take; park a; take; from a",
        expect![[r#"
        a 0
        park a 0
        from Some(1)
    "#]],
    );
}
