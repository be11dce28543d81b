//! Events above the position that were handled before a restart, and are read again.

use expect_test::expect;

use super::super::Options;
use super::script::{check, check_with, options};

#[test]
fn c9_a_handled_event_stays_covered_while_an_earlier_one_of_its_stream_waits() {
    check(
        "open t0 position=0 set=2
         read t0: a/3 a/5 b/0
         progress t0
         take all
         with b
         ok b; progress t0
         ok a; progress t0",
        expect![[r#"
            0 2-2
            a 3
            b 0
            t0: 0 2-3
            0 2-3
            3
        "#]],
    );
}

#[test]
fn c9_a_run_that_was_read_in_part_covers_nothing_before_it() {
    check(
        "open t0 position=0 set=1,4-6
         read t0: b/0 c/0 a/3 a/5
         progress t0
         take all
         ok a; progress t0
         read t0: a/6 d/0
         progress t0
         ok c; progress t0",
        expect![[r#"
            0 1-1 4-6
            a 3
            c 0
            0 1-1 3-6
            0 1-1 3-6
            6
        "#]],
    );
}

#[test]
fn c3_unfolds_that_were_handled_stay_covered() {
    check(
        "open t0 position=0 set=2-3
         read t0: a/3 a/4 a/u5x2 b/0
         progress t0
         take all
         ok b; progress t0
         ok a; progress t0",
        expect![[r#"
            0 2-3
            a 3 next=5
            b 0
            0 2-4
            4
        "#]],
    );
}

#[test]
fn c9_a_recovered_event_marks_nothing_of_the_batch_that_reuses_its_place() {
    let whole = Options { require_all: true, ..options() };
    check_with(
        whole,
        "open t0 position=0 set=2-3
         read t0: b/0 a/1 a/2; take; ok b; progress t0
         read t0: c/0 d/0 e/0; tranche t0; take; ok c; explain a; tranche t0
         read t0: a/0 a/3; take all; ok a; progress t0; explain a
         ok d; ok e; tranche t0; progress t0",
        expect![[r#"
            b 0
            3
            batches=1/1 bytes=6 ahead=3 unhandled=3 runs=0 completed=1/3 blocked=Some(4)
            c 0
            Waiting head=Some(1) events=2 age=0 missing=0 write=None
            batches=1/1 bytes=4 ahead=3 unhandled=2 runs=1 completed=1/4 blocked=Some(5)
            d 0
            e 0
            a 0 3
            3 4-4 7-8
            Idle head=None events=0 age=0 write=Some(4)
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=3/8 blocked=None
            8
        "#]],
    );
}

#[test]
fn c9_a_recovered_event_stays_with_its_stream_of_two_tranches() {
    check(
        "open t1; open t0 position=0 set=2
         read t0: a/0 a/1 b/0; take; take; ok b; progress t0
         read t1: a/2; explain a; ok a; take; ok a; progress t0; progress t1; tranche t0; tranche t1",
        expect![[r#"
            a 0 next=2
            b 0
            0 2-3
            Active head=Some(2) events=2 age=0 write=None blocks=1.0
            a 2
            3
            1
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=1/3 blocked=None
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=1/1 blocked=None
        "#]],
    );
}
