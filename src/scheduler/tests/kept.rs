//! The write positions that a store keeps, and the events that a skip passes.

use expect_test::expect;

use super::super::{Options, Order};
use super::script::{Runner, check, check_with, options};
use crate::position::{TrancheId, WritePosition};

#[test]
fn c3_a_stored_write_position_ends_before_trailing_placeholders() {
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
            keep 0..1
            keep 0..3
            keep 0..1
        "#]],
    );
}

#[test]
fn c5_a_stored_write_position_keeps_the_gaps_of_late_events() {
    check(
        "read t0: a/2
         take; keep a 3; ok a
         read t0: a/5
         take; keep a 6; ok a
         read t0: a/6
         take; keep a 7; ok a
         read t0: a/4
         take; keep a 5; ok a
         read t0: a/1
         take; keep a 2; ok a
         read t0: a/3
         take; keep a 4; ok a
         read t0: a/u9
         take; keep a 9",
        expect![[r#"
            a 2
            keep 2..3
            a 5
            keep 2..6 3..5
            a 6
            keep 2..7 3..5
            a 4 late
            keep 2..7 3..4
            a 1 late
            keep 1..7 3..4
            a 3 late
            keep 1..7
            a u9@7
            keep nothing
        "#]],
    );
}

#[test]
fn c13_a_stored_write_position_tells_repeated_events_from_late_ones() {
    check(
        "read t0 a=2..6,3..5: a/0 a/2 a/3 a/4 a/5 a/6; explain a
         take; ok a; take; ok a; take; ok a; take; keep a 7; ok a; take; explain a; progress t0",
        expect![[r#"
            Ready head=Some(0) events=4 age=0 write=Some(6) gaps=[(3, 5)] blocks=1.0
            a 0 late
            a 3 late
            a 4 late
            a 6
            keep 0..7 1..2
            nothing
            Idle head=None events=0 age=0 write=Some(7) gaps=[(1, 2)]
            6
        "#]],
    );
}

#[test]
fn c5_a_stored_write_position_of_a_busy_stream_passes_only_covered_events() {
    check(
        "read t0: a/0; read t0 a=2..6: a/1 a/6; take; ok a; take; ok a; explain a",
        expect![[r#"
        a 0 1
        a 6
        Idle head=None events=0 age=0 write=Some(7) gaps=[(2, 6)]
    "#]],
    );
    check(
        "read t0: a/0; read t0 a=0..2: a/1 a/6; take",
        expect![[r#"
        a 6
    "#]],
    );
}

#[test]
fn require_all_stores_the_write_position_of_every_stream_that_moved() {
    let all = Options { require_all: true, ..options() };
    // By a call, a skip, placeholders alone, a park; and not by waiting events.
    check_with(
        all.clone(),
        "read t0: a/0 b/0 b/1 c/p0 c/p1 d/0 e/1
         take all; ok a; skip b; park d; take all; ok d
         moved t0; moved t0; progress t0",
        expect![[r#"
            b 0 1
            a 0
            d 0
            b 1
            park d 0
            moved a 0..1, b 0..1, c 0..2 0..2, d 0..1
            moved nothing
            origin 1-2 4-6
        "#]],
    );
    // The position kept with an unfinished call includes the placeholders that go with the call.
    check_with(
        all.clone(),
        "read t0: a/0 a/p1 a/2; read t0: a/p3; take; keep a 1; keep a 3; ok a 1; moved t0; take; ok a; moved t0; moved t1",
        expect![[r#"
            a 0 2 next=4
            keep 0..2 1..2
            keep 0..4 3..4
            moved a 0..2 1..2
            a 2 next=4
            moved a 0..4 3..4
            moved nothing
        "#]],
    );
    // Without `require_all`, no stream is noted.
    check(
        "read t0: a/0; take; ok a; moved t0",
        expect![[r#"
        a 0
        moved nothing
    "#]],
    );
}

#[test]
fn require_all_resumes_after_a_restart_from_the_stored_write_position() {
    let all = Options { require_all: true, ..options() };
    check_with(
        all.clone(),
        "read t0 a=0..3: a/4; take; explain a; read t0: a/3; take",
        expect![[r#"
            nothing
            Waiting head=Some(4) events=1 age=0 missing=3 write=Some(3) blocks=1.0
            a 3 4
        "#]],
    );
    // C3: an index that only placeholders passed supersedes no unfolds.
    check_with(
        all,
        "read t0 a=0..3,2..3: a/u2x1; take; ok a; read t0 b=0..3: b/u2x1; take",
        expect![[r#"
        a u2@1
        nothing
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

#[test]
fn require_all_returns_streams_by_tranche_and_again_if_they_were_not_stored() {
    let mut runner = Runner::new(Options { require_all: true, ..options() });
    for line in ["open t1", "read t0: a/0 b/0", "read t1: c/0", "take all", "ok a", "ok b", "ok c"] {
        runner.step(line);
    }
    let tranche = TrancheId::new("t0");
    let names = |taken: &[(Box<str>, WritePosition)]| {
        let mut names: Vec<_> = taken.iter().map(|(name, position)| (name.to_string(), position.next)).collect();
        names.sort();
        names
    };
    let taken = runner.scheduler.take_dirty_streams(&tranche);
    assert_eq!(names(&taken), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    assert!(runner.scheduler.take_dirty_streams(&tranche).is_empty());
    runner.scheduler.restore_dirty_streams(&tranche, &taken);
    for line in ["read t0: a/1", "take", "ok a"] {
        runner.step(line);
    }
    let again = runner.scheduler.take_dirty_streams(&tranche);
    assert_eq!(names(&again), [("a".to_owned(), 2), ("b".to_owned(), 1)], "the positions are those of now");
    assert_eq!(names(&runner.scheduler.take_dirty_streams(&TrancheId::new("t1"))), [("c".to_owned(), 1)]);
}

#[test]
fn c13_a_whole_stored_write_position_closes_the_gaps_below_it() {
    check(
        "read t0: a/0; take; ok a; read t0: a/6; take; ok a; explain a
         read t0 a=8: a/3; take; explain a; progress t0",
        expect![[r#"
            a 0
            a 6
            Idle head=None events=0 age=0 write=Some(7) gaps=[(1, 6)]
            nothing
            Idle head=None events=0 age=0 write=Some(8)
            3
        "#]],
    );
}

#[test]
fn require_all_offers_a_late_event_although_the_write_position_above_it_was_forgotten() {
    // `t1` takes the stream over and leaves, and the stream's write position with it (C7).
    check_with(
        Options { require_all: true, ..options() },
        "open t1; read t0 a=2..4: a/1; read t1: a/4; revoke t1; explain a; take; ok a; progress t0",
        expect![[r#"
            Ready head=Some(1) events=1 age=0 write=None blocks=1.0
            a 1 late
            1
        "#]],
    );
}
