//! Streams whose indexes have holes: write positions, late events, previews.

use expect_test::expect;

use super::super::Options;
use super::script::{Runner, check_with, options};
use crate::event::Indexes;

fn sparse() -> Options {
    Options { indexes: Indexes::Sparse, ..options() }
}

#[test]
fn c5_an_event_within_a_jump_is_late_and_a_repeat_of_successive_events_is_a_duplicate() {
    // A jump of one event, and a span that begins at the write position and jumps.
    for jump in ["a/20", "a/11 a/20"] {
        let script =
            format!("read t0: a/10; take; ok a; read t0: {jump}; take; ok a; read t0: a/15; take; ok a; counts");
        let mut runner = Runner::new(sparse());
        runner.run(&script);
        assert!(runner.out.contains("a 15 late\n"), "{script}: {}", runner.out);
        assert!(runner.out.ends_with("late 1 duplicates 0\n"), "{script}: {}", runner.out);
    }
    check_with(
        sparse(),
        "read t0: a/10; take; ok a; read t0: a/11; take; ok a; read t0: a/10 a/11; take; counts",
        expect![[r#"
            a 10
            a 11
            nothing
            late 0 duplicates 2
        "#]],
    );
}

#[test]
fn c5_a_stored_write_position_covers_the_last_event_of_a_span_only() {
    check_with(
        sparse(),
        "read t0: a/10 a/20; take; keep a 21; keep a 11; ok a; read t0: a/21; take; keep a 22; ok a; read t0: a/30; take; keep a 31; keep a 35; ok a
         read t0: b/10 b/p20; take; keep b 21; ok b; read t0: c/1 c/2 c/u5; take; keep c 5; keep c 7",
        expect![[r#"
            a 10 20
            keep 20..21
            keep 10..11
            a 21
            keep 20..22
            a 30
            keep 30..31
            keep 30..35
            b 10 next=21
            keep 10..11
            c 1 2 u5@9
            keep 2..3
            keep 2..7
        "#]],
    );
}

#[test]
fn c5_unfolds_ahead_of_the_events_hide_none_of_them() {
    // The unfolds follow an event, or come alone.
    check_with(
        sparse(),
        "read t0: a/1 a/u4; take; read t0: a/2; ok a; progress t0; read t0: a/1 a/3; explain a; take; ok a; progress t0; counts",
        expect![[r#"
            a 1 u4@2
            2
            Ready head=Some(2) events=2 age=0 write=Some(2) blocks=3.0
            a 2 3
            5
            late 0 duplicates 1
        "#]],
    );
    check_with(
        sparse(),
        "read t0: a/1; take; ok a; read t0: a/u9; take; ok a; read t0: a/1 a/u8 a/2 a/9; explain a; take; ok a; progress t0; counts",
        expect![[r#"
            a 1
            a u9@2
            Ready head=Some(2) events=2 age=0 write=Some(2) blocks=5.0
            a 2 9
            6
            late 0 duplicates 1
        "#]],
    );
    // Unfolds ahead by more than the distance that is kept are redelivered.
    check_with(
        sparse(),
        "read t0: a/1; take; ok a; read t0: a/u900; take; ok a; read t0: a/u129 a/u130; take; ok a; progress t0",
        expect![[r#"
            a 1
            a u900@2
            a u130@4
            4
        "#]],
    );
}

#[test]
fn c3_a_filtered_event_supersedes_no_unfolds() {
    check_with(
        sparse(),
        "read t0: a/10; take; ok a; read t0: a/p20 a/u5; progress t0; read t0: a/u15; take; ok a; progress t0",
        expect![[r#"
            a 10
            3
            a u15@4
            4
        "#]],
    );
}

#[test]
fn a_stream_with_work_is_explained_before_another_of_its_name() {
    check_with(
        sparse(),
        "open t1; read t0: a/1; take; ok a; read t1: a/3; explain a; take; ok a; read t0: a/2; explain a; take; explain a",
        expect![[r#"
            a 1
            Ready head=Some(3) events=1 age=0 write=None blocks=1.0
            a 3
            Ready head=Some(2) events=1 age=0 write=Some(2) blocks=2.0
            a 2
            Active head=None events=1 age=0 write=Some(2) blocks=2.0
        "#]],
    );
}
