//! What was handled before a restart, and comes again because it lies above the position.

use expect_test::expect;

use super::script::check;

#[test]
fn c9_what_was_handled_stays_covered_while_an_earlier_event_of_its_stream_waits() {
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
