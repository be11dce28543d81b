//! Streams whose indexes have holes: write positions, late events, previews.

use expect_test::expect;

use super::super::Options;
use super::script::{check_with, options};
use crate::event::Indexes;

fn sparse() -> Options {
    Options { indexes: Indexes::Sparse, ..options() }
}

#[test]
fn c5_an_event_within_a_jump_is_late_and_a_repeat_of_successive_events_is_a_duplicate() {
    // A jump of one event, and a span that begins at the write position and jumps.
    for jump in ["a/20", "a/11 a/20"] {
        let script = format!(
            "read t0: a/10; take; ok a; read t0: {jump}; take; ok a; read t0: a/15; take; explain a; ok a; counts"
        );
        let mut runner = super::script::Runner::new(sparse());
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
fn c5_a_late_call_that_passes_the_write_position_forgets_no_offered_event() {
    check_with(
        sparse(),
        "read t0: a/19; take; ok a; read t0: a/20; take; ok a; read t0: a/15; take; ok a 21; read t0: a/19 a/20; take; counts",
        expect![[r#"
            a 19
            a 20
            a 15 late
            nothing
            late 1 duplicates 2
        "#]],
    );
}

#[test]
fn c5_a_stored_write_position_covers_the_last_event_of_a_span_only() {
    check_with(
        sparse(),
        "read t0: a/10 a/20; take; keep a 21; keep a 11; ok a; read t0: a/21; take; keep a 22; ok a; read t0: a/30; take; keep a 31",
        expect![[r#"
            a 10 20
            keep 20..21
            keep 10..11
            a 21
            keep 20..22
            a 30
            keep 30..31
        "#]],
    );
}
