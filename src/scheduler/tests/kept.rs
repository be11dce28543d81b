//! What a store may keep of streams, and what is passed by a skip.

use expect_test::expect;

use super::super::{Options, Order};
use super::script::{check, check_with, options};

#[test]
fn c3_what_a_store_keeps_of_a_stream_ends_before_its_trailing_placeholders() {
    // Were `2` kept, unfolds at 1 would look superseded to the next process.
    check(
        "read t0: a/0 a/p1 b/0 b/p1 b/2
         take all
         keep a 2
         keep b 3
         keep b 1",
        expect![[r#"
            b 0 2
            a 0 next=2
            keep Some(1)
            keep Some(3)
            keep Some(1)
        "#]],
    );
}

#[test]
fn c5_nothing_is_kept_of_a_stream_whose_events_may_still_come_late() {
    check(
        "read t0: a/0
         take; keep a 1; ok a
         read t0: a/2
         take; keep a 3; ok a
         read t0: a/3
         take; keep a 4; ok a
         read t0: a/1
         take; keep a 2; ok a
         read t0: a/u6
         take; keep a 6",
        expect![[r#"
            a 0
            keep Some(1)
            a 2
            keep None
            a 3
            keep None
            a 1 late
            keep Some(4)
            a u6@5
            keep None
        "#]],
    );
}

#[test]
fn c19_skip_in_read_order_passes_one_event_though_unfolds_follow_it() {
    check_with(
        Options { order: Order::Tranche, ..options() },
        "read t0: a/0 a/u1 a/1; take; skip a; progress t0; take",
        expect![[r#"
            a 0 u1@2 1
            origin 1-2
            a 1
        "#]],
    );
}
