//! Order within streams: duplicates, gaps, late and missing events (C4, C5).

use expect_test::expect;

use super::super::Options;
use super::script::{Runner, check, check_with, options};
use crate::event::Indexes;
use crate::position::{Ordinal, TrancheId};

#[test]
fn c5_an_offered_or_passed_index_is_a_duplicate() {
    check(
        "read t0: a/5 a/6; take; ok a; read t0: a/5 a/6; take; counts; progress t0
         read t0: a/7; take; ok a 12; read t0: a/9; take; counts; progress t0; explain a",
        expect![[r#"
            a 5 6
            nothing
            late 0 duplicates 2
            4
            a 7
            nothing
            late 0 duplicates 3
            6
            Idle head=None events=0 age=0 write=Some(12)
        "#]],
    );
}

#[test]
fn c5_a_late_event_is_offered_alone_counted_and_moves_nothing_back() {
    check(
        "read t0: a/0 a/4 a/5; take; ok a; take; ok a; explain a; progress t0
         read t0: a/2 a/3 a/6; take; take; ok a; take; ok a; take; ok a; counts; explain a; progress t0
         read t0: a/3 a/2; take; counts",
        expect![[r#"
            a 0
            a 4 5
            Idle head=None events=0 age=0 write=Some(6) gaps=[(1, 4)]
            3
            a 2 late
            nothing
            a 3 late
            a 6
            late 2 duplicates 0
            Idle head=None events=0 age=0 write=Some(7) gaps=[(1, 2)]
            6
            nothing
            late 2 duplicates 2
        "#]],
    );
    check(
        "read t0: a/5; take; ok a; read t0: a/3; take; ok a; explain a; read t0: a/3; take; counts",
        expect![[r#"
        a 5
        a 3 late
        Idle head=None events=0 age=0 write=Some(6) gaps=[(4, 5)]
        nothing
        late 1 duplicates 1
    "#]],
    );
}

#[test]
fn c5_an_event_below_a_running_call_is_late_and_never_dropped() {
    check(
        "read t0: a/0; take; ok a; read t0: a/4; take; read t0: a/2; ok a; explain a; take; ok a; progress t0; explain a",
        expect![[r#"
            a 0
            a 4
            Ready head=Some(2) events=1 age=0 write=Some(5) gaps=[(1, 4)] blocks=3.0
            a 2 late
            3
            Idle head=None events=0 age=0 write=Some(5) gaps=[(1, 2), (3, 4)]
        "#]],
    );
    check(
        "read t0: a/u5; take; read t0: a/2; ok a; take; ok a; progress t0",
        expect![[r#"
            a u5@1
            a 2 late
            2
        "#]],
    );
}

#[test]
fn c5_an_event_below_a_failed_call_is_not_late() {
    check(
        "read t0: a/u6; take; read t0: a/4; defer a; read t0: a/3; take; tick 10; take; ok a; take; ok a; counts; progress t0",
        expect![[r#"
            a u6@1
            nothing
            a 3 4
            a u6@1
            late 0 duplicates 0
            3
        "#]],
    );
}

#[test]
fn c5_a_duplicate_of_an_unhandled_event_waits_for_it() {
    check(
        "read t0: a/0 a/1; read t0: a/1; take; read t0: a/0; progress t0; with a 1; with a 2; ok a 1; progress t0; take; ok a; progress t0; counts",
        expect![[r#"
            a 0 1
            origin
            t0: origin 1-1 4-4
            t0: 4
            origin 1-1 4-4
            a 1
            4
            late 0 duplicates 2
        "#]],
    );
    check(
        "read t0: a/0 a/4; take; ok a; take; ok a; read t0: a/2; read t0: a/2; take; read t0: a/2; progress t0; ok a; progress t0",
        expect![[r#"
            a 0
            a 4
            a 2 late
            2
            5
        "#]],
    );
}

#[test]
fn c4_a_stream_in_two_tranches_is_a_broken_feed_that_names_both() {
    check(
        "open t1; read t0: a/0 a/1; take; ok a; read t1: b/0 a/1 b/1; progress t1; take; ok b; progress t1",
        expect![[r#"
        a 0 1
        event 1 of stream `a` came from tranche `t1` after tranche `t0` had brought this event or a later one
        origin
        b 0
        origin 1-1
    "#]],
    );
    check(
        "open t1; read t0: a/0 a/1; read t1: a/1",
        expect![[r#"
        event 1 of stream `a` came from tranche `t1` after tranche `t0` had brought this event or a later one
    "#]],
    );
    check(
        "open t1; read t0: a/0; take; read t1: a/0",
        expect![[r#"
        a 0
        event 0 of stream `a` came from tranche `t1` after tranche `t0` had brought this event or a later one
    "#]],
    );
}

#[test]
fn c4_a_stray_event_that_comes_first_does_not_hide_those_of_the_owner() {
    // The owner brings a later event, and then the event itself or an earlier one.
    for owner in ["a/6 a/5", "a/6 a/4", "a/p6 a/5", "a/u6 a/5"] {
        for handled in ["take; ok a", "take", ""] {
            let script = format!("open t1; read t1: a/5; {handled}; read t0: {owner}");
            let mut runner = Runner::new(options());
            runner.run(&script);
            let index = owner.rsplit('/').next().unwrap();
            let broken = format!(
                "event {index} of stream `a` came from tranche `t0` after tranche `t1` had brought this event or a later one\n"
            );
            assert!(runner.out.ends_with(&broken), "{script}: {}", runner.out);
            let progress = runner.scheduler.progress(&TrancheId::new("t0")).unwrap();
            assert!(progress.position.is_none() && !progress.handled.contains(Ordinal::new(2, 0)), "{progress:?}");
        }
    }
}

#[test]
fn c4_a_tranche_that_takes_a_stream_over_cannot_bring_its_earlier_events() {
    for first in ["a/1", "a/p1", "a/u1"] {
        let script = format!("open t1; read t0: a/0; take; ok a; read t1: {first}; take; read t1: a/0");
        let mut runner = Runner::new(options());
        runner.run(&script);
        let broken =
            "event 0 of stream `a` came from tranche `t1` after tranche `t0` had brought this event or a later one\n";
        assert!(runner.out.ends_with(broken), "{script}: {}", runner.out);
    }
}

#[test]
fn c4_each_tranche_may_bring_its_own_events_of_a_stream_again() {
    check(
        "open t1; read t0: a/0 a/2; take; ok a; take; ok a; read t1: a/3; take; ok a; read t0: a/0 a/1; read t1: a/3 a/4; take all; ok a; take; counts; read t1: a/1",
        expect![[r#"
            a 0
            a 2
            a 3
            a 1 late
            a 4
            late 1 duplicates 2
            event 1 of stream `a` came from tranche `t1` after tranche `t0` had brought this event or a later one
        "#]],
    );
}

#[test]
fn c4_a_stream_that_alternates_between_tranches_hides_no_event() {
    let mut runner = Runner::new(options());
    runner.run("open t1");
    for index in (0..200).step_by(2) {
        runner.run(&format!("read t0: a/{index}; take; ok a; read t1: a/{}; take; ok a", index + 1));
    }
    let all = runner.scheduler.former.kept();
    assert!(all <= 64, "{all} former tranches are kept");
    runner.out.clear();
    runner.run("read t0: a/198; read t1: a/199; read t1: a/0");
    assert_eq!(
        runner.out,
        "event 0 of stream `a` came from tranche `t1` after tranche `t0` had brought this event or a later one\n"
    );
    runner.run("revoke t0; revoke t1");
    assert_eq!(runner.scheduler.former.kept(), 0);
}

#[test]
fn c6_a_placeholder_among_events_of_another_tranche_leaves_with_its_own() {
    check(
        "open t1; read t0: a/0 a/1 a/2; read t1: a/p3 b/0; revoke t1; open t1; take; ok a; explain a; progress t0; read t1: a/3; take",
        expect![[r#"
            a 0 1 2
            Idle head=None events=0 age=0 write=Some(3)
            3
            a 3
        "#]],
    );
    check(
        "open t1; read t0: a/0 a/1; take; read t1: a/u1; revoke t1; ok a; explain a; progress t0",
        expect![[r#"
            a 0 1
            Idle head=None events=0 age=0 write=Some(2)
            2
        "#]],
    );
}

#[test]
fn c4_a_stream_may_move_on_to_another_tranche() {
    check(
        "open t1; read t0: a/0; take; ok a; read t1: a/1; take; ok a; revoke t0; read t1: a/1 a/2; take; explain a; counts",
        expect![[r#"
            a 0
            a 1
            a 2
            Active head=None events=1 age=0 write=Some(2) blocks=3.0
            late 0 duplicates 1
        "#]],
    );
    check(
        "open t1; read t0: a/0; read t1: a/1 a/2; take; revoke t0; take; ok a; take; ok a; progress t1; explain a",
        expect![[r#"
            a 0
            nothing
            a 1 2
            2
            Idle head=None events=0 age=0 write=Some(3)
        "#]],
    );
    check(
        "open t1; read t0: a/0; read t1: a/1; take; revoke t1; ok a; progress t0; take; explain a",
        expect![[r#"
            a 0
            1
            nothing
            Idle head=None events=0 age=0 write=Some(1)
        "#]],
    );
}

#[test]
fn c4_tranche_and_name_identify_a_stream_of_a_sparse_source() {
    let sparse = Options { indexes: Indexes::Sparse, ..options() };
    check_with(
        sparse,
        "open t1; read t0: a/7 a/9; read t1: a/3; take all; explain a",
        expect![[r#"
        a 7 9
        a 3
        Active head=None events=1 age=0 write=None blocks=1.0
    "#]],
    );
}

#[test]
fn holes_split_spans_where_indexes_are_dense_only() {
    check(
        "read t0: a/0 a/2; take",
        expect![[r#"
        a 0
    "#]],
    );
    let sparse = Options { indexes: Indexes::Sparse, ..options() };
    check_with(
        sparse,
        "read t0: a/10 a/20 a/21; take; ok a; read t0: a/21 a/15; take; counts",
        expect![[r#"
        a 10 20 21
        a 15 late
        late 1 duplicates 1
    "#]],
    );
}

#[test]
fn require_all_waits_for_missing_events() {
    let all = Options { require_all: true, ..options() };
    check_with(
        all.clone(),
        "read t0: a/1 b/0; take; take; ok b; explain a; snapshot; tranche t0; read t0: a/0; take; ok a; read t0: a/3 a/u4; take; read t0: a/2; take",
        expect![[r#"
            b 0
            nothing
            Waiting head=Some(1) events=1 age=0 missing=0 write=None blocks=1.0
            idle=1 waiting=1s/1e/1c ages=0..0 listed=["a"]
            batches=0/1 bytes=2 ahead=2 unhandled=1 runs=1 completed=0/1 blocked=Some(1)
            a 0 1
            nothing
            a 2 3 u4@5
        "#]],
    );
    check_with(
        all,
        "read t0: a/p0 a/1 c/p1 c/2; take; ok a; take; read t0: c/p0; take; read t0 d=7: d/7; take; read t0: e/u1; take; read t0: e/0; take",
        expect![[r#"
            a 1
            nothing
            c 2
            d 7
            nothing
            e 0 u1@7
        "#]],
    );
}

#[test]
fn a_result_beyond_the_span_passes_queued_events_and_later_ones() {
    check(
        "read t0: a/0 a/1 a/4 a/5 a/u6; take; with a 5; ok a 5; progress t0; take; ok a; read t0: a/3; take; progress t0; counts",
        expect![[r#"
            a 0 1
            t0: origin 1-3
            origin 1-3
            a 5 u6@5
            nothing
            6
            late 0 duplicates 1
        "#]],
    );
    check(
        "read t0: a/0 a/1 a/u2; take; read t0: a/2 a/u3; ok a 9; take; progress t0; read t0: a/u8; take; progress t0; read t0: a/u9; take",
        expect![[r#"
        a 0 1 u2@3
        nothing
        5
        nothing
        6
        a u9@7
    "#]],
    );
}

#[test]
fn a_write_position_never_moves_back() {
    check(
        "read t0: a/0 a/1 a/2; take; ok a; read t0 a=2: a/2; take; explain a; read t0 a=5: a/4 a/5; take; explain a",
        expect![[r#"
            a 0 1 2
            nothing
            Idle head=None events=0 age=0 write=Some(3)
            a 5
            Active head=None events=1 age=0 write=Some(5) blocks=6.0
        "#]],
    );
}

#[test]
fn stored_write_positions_pass_queued_events() {
    check(
        "read t0: a/0 a/1 a/2; read t0 a=2: b/0; progress t0; take; ok a; take; explain a",
        expect![[r#"
        origin 1-2
        a 2
        b 0
        Idle head=None events=0 age=0 write=Some(3)
    "#]],
    );
}

#[test]
fn r15_a_purged_stream_is_not_taken_for_handled() {
    check(
        "read t0: a/0 a/1; take; ok a; read t0: b/0; purge; explain a; read t0: a/0 a/1 a/2; take; take; ok a; purge; ok b; purge; take; progress t0",
        expect![[r#"
            a 0 1
            purged 1
            Unknown write=None
            b 0
            a 0 1 2
            purged 1
            purged 1
            nothing
            6
        "#]],
    );
    check(
        "read t0: a/0 a/9; take; ok a; take; ok a; explain a; purge; explain a; read t0: a/4; take",
        expect![[r#"
        a 0
        a 9
        Idle head=None events=0 age=0 write=Some(10) gaps=[(1, 9)]
        purged 1
        Unknown write=None
        a 4
    "#]],
    );
}

#[test]
fn p1_to_p5_batches_complete_as_their_streams_advance() {
    check(
        "take; progress t0; tranche t0",
        expect![[r#"
        nothing
        origin
        batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=0/0 blocked=None
    "#]],
    );
    check(
        "read t0: a/0; read t0: a/1; progress t0; tranche t0",
        expect![[r#"
        origin
        batches=2/2 bytes=4 ahead=2 unhandled=2 runs=0 completed=0/0 blocked=Some(1)
    "#]],
    );
    check(
        "read t0: a/0 b/0 b/1; read t0: b/2; take all; ok a; ok b; tranche t0; progress t0",
        expect![[r#"
        b 0 1 2
        a 0
        batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=2/4 blocked=None
        4
    "#]],
    );
    check(
        "read t0:; read t0:; tranche t0; progress t0",
        expect![[r#"
        batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=2/0 blocked=None
        0
    "#]],
    );
    check(
        "read t0: a/0 a/1; take; ok a; read t0: a/2 b/0 b/1; tranche t0; progress t0",
        expect![[r#"
        a 0 1
        batches=1/1 bytes=6 ahead=3 unhandled=3 runs=0 completed=1/2 blocked=Some(3)
        2
    "#]],
    );
}

#[test]
fn c5_on_a_sparse_source_a_repeat_within_a_call_is_handled_with_the_call() {
    check_with(
        Options { indexes: Indexes::Sparse, ..options() },
        "read t0: a/10 a/15 a/19; take; read t0: a/15; ok a; explain a; take; progress t0; purge",
        expect![[r#"
            a 10 15 19
            Idle head=None events=0 age=0 write=Some(20)
            nothing
            4
            purged 1
        "#]],
    );
}

#[test]
fn c5_a_repeat_of_a_late_event_in_flight_is_handled_with_it() {
    check(
        "read t0: a/2; take; ok a; read t0: a/1; take; read t0: a/1; read t0 a=9: b/0; progress t0; ok a; progress t0; counts",
        expect![[r#"
            a 2
            a 1 late
            1
            3
            late 1 duplicates 1
        "#]],
    );
}
