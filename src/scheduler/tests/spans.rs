//! Spans from the events of a stream: the rows of the reference's merge tests, and the unfold rules (C3).

use expect_test::expect;
use proptest::prelude::*;

use super::super::{IngestBatch, Options, Outcome, Scheduler};
use super::script::{check, check_with, event, options};
use super::{invariants, script};
use crate::clock::Timestamp;
use crate::event::{Event, Kind};
use crate::position::{Ordinal, Position, TrancheId, WritePosition};

/// Reads, and shows the spans that are offered when each is handled.
fn check_spans(script: &str, expected: expect_test::Expect) {
    let mut steps = script.replace(" | ", "\n");
    for _ in 0..3 {
        steps.push_str("\ntake\nok a?");
    }
    check_spans_of(&steps, expected);
}

fn check_spans_of(steps: &str, expected: expect_test::Expect) {
    let mut runner = script::Runner::new(options());
    for step in steps.lines() {
        match step {
            "ok a?" => runner.finish_any("a"),
            "take" => _ = runner.take(),
            _ => runner.step(step),
        }
        invariants::check(&runner.scheduler);
    }
    expected.assert_eq(&runner.out);
}

#[test]
fn m1_and_m2_an_empty_or_passed_span_is_nothing() {
    check_spans("read t0:", expect![[""]]);
    check_spans("read t0 a=1: a/0", expect![[""]]);
}

#[test]
fn m3_to_m6_spans_join_where_they_touch_or_overlap() {
    check_spans(
        "read t0: a/0 a/2 a/3",
        expect![[r#"
        a 0
        a 2 3
    "#]],
    );
    check_spans(
        "read t0: a/0 | read t0: a/0 a/1",
        expect![[r#"
        a 0 1
    "#]],
    );
    check_spans(
        "read t0 a=1: a/0 | read t0: a/0 a/1",
        expect![[r#"
        a 1
    "#]],
    );
    check_spans(
        "read t0: a/0 | read t0: a/1 a/2",
        expect![[r#"
        a 0 1 2
    "#]],
    );
}

#[test]
fn m7_to_m9_and_m12_to_m15_passed_events_go_and_events_supersede_unfolds() {
    check_spans("read t0 a=2: a/0", expect![""]);
    check_spans(
        "read t0 a=2: a/1 a/2",
        expect![[r#"
        a 2
    "#]],
    );
    check_spans("read t0 a=2: a/u1", expect![""]);
    check_spans(
        "read t0 a=2: a/u2x2",
        expect![[r#"
        a u2@1 u2@1
    "#]],
    );
    check_spans(
        "read t0 a=2: a/0 a/1 a/2 a/u2x2",
        expect![[r#"
        a 2
    "#]],
    );
    check_spans(
        "read t0 a=2: a/0 a/1 a/u2 | read t0: a/2",
        expect![[r#"
        a 2
    "#]],
    );
    check_spans(
        "read t0 a=1: a/0 a/1 a/u1 a/2 a/3 a/5",
        expect![[r#"
        a 1 2 3
        a 5
    "#]],
    );
    check_spans(
        "read t0 a=1: a/0 a/1 a/5 a/2 a/3 a/u2x2 a/u4x2",
        expect![[r#"
        a 1 2 3
        a 5
    "#]],
    );
    check_spans(
        "read t0 a=1: a/0 a/1 a/5 a/2 a/3 a/u4x2",
        expect![[r#"
        a 1 2 3
        a 5
    "#]],
    );
}

#[test]
fn m10_m11_and_m16_a_write_position_trims_the_first_span() {
    check_spans(
        "read t0 a=1: a/0 a/1 a/2 a/3",
        expect![[r#"
        a 1 2 3
    "#]],
    );
    check_spans(
        "read t0 a=1: a/2 a/3 a/u2x2",
        expect![[r#"
        a 2 3
    "#]],
    );
    check_spans(
        "read t0 a=11614: a/11614",
        expect![[r#"
        a 11614
    "#]],
    );
    check_spans(
        "read t0 a=11613: a/11614",
        expect![[r#"
        a 11614
    "#]],
    );
}

#[test]
fn m17_to_m20_unfolds_alone_and_the_newest_edition() {
    check_spans(
        "read t0: a/u0",
        expect![[r#"
        a u0@1
    "#]],
    );
    check_spans(
        "read t0: a/u0x2",
        expect![[r#"
        a u0@1 u0@1
    "#]],
    );
    check_spans(
        "read t0 a=1: a/0 a/u1",
        expect![[r#"
        a u1@2
    "#]],
    );
    check_spans(
        "read t0: a/u0 | read t0: a/u0x2",
        expect![[r#"
        a u0@2 u0@2
    "#]],
    );
    check_spans(
        "read t0: a/0 a/u1",
        expect![[r#"
        a 0 u1@2
    "#]],
    );
}

#[test]
fn c3_superseded_unfolds_are_handled_with_their_superseder() {
    check(
        "read t0: a/0 a/u1; progress t0
         read t0: a/1 a/u2; read t0: a/u2
         take; with a 1; with a 2; ok a 1; progress t0
         take; ok a; progress t0",
        expect![[r#"
            origin
            a 0 1 u2@5
            t0: origin 1-1
            t0: 5
            origin 1-1
            a 1 u2@5
            5
        "#]],
    );
}

#[test]
fn c3_the_unfolds_of_a_document_that_repeats_an_event_are_not_lost() {
    check(
        "read t0: a/0; take; ok a; progress t0
         read t0: a/0 a/u1; progress t0; take; progress t0; ok a; progress t0",
        expect![[r#"
            a 0
            1
            1 2-2
            a u1@3
            1 2-2
            3
        "#]],
    );
}

#[test]
fn c3_a_placeholder_never_supersedes_unfolds() {
    check(
        "read t0: a/0 a/1 a/u2; read t0: a/p2; take; ok a; progress t0
         read t0: a/p3 a/p4; read t0: a/u3; take; ok a; read t0: a/u2; take; progress t0; explain a",
        expect![[r#"
            a 0 1 u2@3 next=3
            4
            a u3@7
            nothing
            8
            Idle head=None events=0 age=0 write=Some(5)
        "#]],
    );
}

#[test]
fn c3_stale_unfolds_wait_for_newer_ones() {
    check(
        "read t0: a/3; read t0: a/u2 a/u3; progress t0; take; read t0: a/u2; ok a; progress t0
         read t0: a/u5; read t0: a/u4; take; read t0: a/u4 a/u5; progress t0; ok a; progress t0; take",
        expect![[r#"
            origin
            a 3
            4
            a u5@5
            4
            6 7-7
            a u5@8
        "#]],
    );
}

#[test]
fn d24_of_unfolds_with_equal_index_the_later_arrival_wins() {
    check(
        "read t0: a/13 a/14 a/15 a/16 a/u17; read t0: a/11 a/12 a/13 a/14 a/15 a/16 a/u17; take; ok a; progress t0",
        expect![[r#"
            a 11 12 13 14 15 16 u17@12
            12
        "#]],
    );
}

#[test]
fn d02_progress_short_of_the_unfolds_leaves_them() {
    check(
        "read t0: a/0 a/1 a/u2; take; ok a 1; progress t0; take; ok a; progress t0",
        expect![[r#"
            a 0 1 u2@3
            origin 1-1
            a 1 u2@3
            3
        "#]],
    );
}

#[test]
fn fresh_unfolds_that_arrive_during_a_call_are_offered_after_it() {
    check(
        "read t0: a/0 a/u1; take; read t0: a/0 a/u1; ok a; progress t0; take; progress t0; ok a; progress t0; take",
        expect![[r#"
            a 0 u1@2
            2 3-3
            a u1@4
            2 3-3
            4
            nothing
        "#]],
    );
    check(
        "read t0: a/0 a/u1; take; read t0: a/u1; fail a; progress t0; tick 10; take; progress t0; ok a; progress t0",
        expect![[r#"
            a 0 u1@2
            origin
            a 0 u1@3 failures=1
            origin
            3
        "#]],
    );
}

#[test]
fn a_slice_never_parts_unfolds_from_their_event() {
    let limited = |max_events, max_bytes| Options { max_events, max_bytes, ..options() };
    check_with(
        limited(2, usize::MAX),
        "read t0: a/0 a/1 a/2 a/u3x2; take; ok a; take; ok a; take",
        expect![[r#"
        a 0 1
        a 2 u3@4 u3@4
        nothing
    "#]],
    );
    check_with(
        limited(9, 100),
        "read t0: a/0#60 a/1#40 a/2#1 a/3#500 a/u4#500; take; ok a; take; ok a; take; ok a; take",
        expect![[r#"
            a 0 1
            a 2
            a 3 u4@5
            nothing
        "#]],
    );
    check_with(
        limited(0, 0),
        "read t0: a/0 a/1; take; ok a; take; ok a; take",
        expect![[r#"
        a 0
        a 1
        nothing
    "#]],
    );
}

#[test]
fn placeholders_keep_a_span_whole_and_are_never_offered() {
    check(
        "read t0: a/0 a/p1 a/2 a/p3; read t0: a/p4 a/p6 a/7; take; ok a 1; explain a
         take; ok a; progress t0; take; ok a; progress t0; explain a",
        expect![[r#"
            a 0 2 next=5
            Ready head=Some(2) events=5 age=0 write=Some(2) blocks=3.0
            a 2 next=5
            4 5-6
            a 7
            7
            Idle head=None events=0 age=0 write=Some(8) gaps=[(5, 6)]
        "#]],
    );
    check(
        "read t0: a/p0 b/p3; progress t0; explain a; read t0: a/1; take",
        expect![[r#"
        2
        Unknown write=None
        a 1
    "#]],
    );
}

#[test]
fn d23_sizes_beyond_32_bits_are_counted() {
    let mut scheduler = Scheduler::new(Options { max_bytes: usize::MAX, ..options() });
    let tranche = TrancheId::new("t0");
    scheduler.open(&tranche, None);
    let events = (0..5000).map(big);
    let batch = IngestBatch {
        tranche: tranche.clone(),
        events: events.collect(),
        resume_at: Position::Number(1),
        write_positions: vec![],
    };
    scheduler.ingest(batch, Timestamp::ZERO).unwrap();
    assert_eq!(scheduler.tranche(&tranche).unwrap().bytes, 5000 << 20);
    assert_eq!(scheduler.snapshot(1, Timestamp::ZERO).ready.bytes, 5000 << 20);
    let call = scheduler.take_call(Timestamp::ZERO).unwrap();
    assert_eq!(call[0].events.iter().map(Event::held_bytes).sum::<usize>(), 5000 << 20);
}

/// An event of 1 MiB, all of which share one buffer.
fn big(index: i64) -> Event {
    thread_local! {
        static RECORD: bytes::Bytes = bytes::Bytes::from(vec![b'a'; 1 << 20]);
    }
    let record = RECORD.with(Clone::clone);
    let builder = crate::event::EventBuilder::new(record).text(crate::event::Text::Stream, 0, 3).data(3, (1 << 20) - 3);
    builder.build(Kind::Event, Ordinal::new(index.cast_unsigned(), 0), index).unwrap()
}

/// Returns the merged spans by a naive rule: the events at or above `from`, once each, as runs; then the last unfolds,
/// unless there is an event at or above their index.
fn naive(from: i64, spans: &[(i64, i64, bool)]) -> Vec<String> {
    let mut indexes: Vec<_> =
        spans.iter().flat_map(|&(first, next, _)| first..next).filter(|&index| index >= from).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let highest = spans.iter().filter(|(_, next, unfold)| *unfold && *next >= from).map(|(_, next, _)| *next).max();
    let unfolds = highest.filter(|&at| indexes.last().is_none_or(|&last| last < at));
    let mut out: Vec<String> = Vec::new();
    let mut last = None;
    for index in indexes {
        match (last, out.last_mut()) {
            (Some(last), Some(span)) if last + 1 == index => span.push_str(&format!(" {index}")),
            _ => out.push(format!("{index}")),
        }
        last = Some(index);
    }
    if let Some(at) = unfolds {
        match out.last_mut() {
            Some(span) if last.is_some_and(|last| last + 1 == at) => span.push_str(&format!(" u{at}")),
            _ => out.push(format!("u{at}")),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn m21_merging_keeps_every_event_once_in_order_and_the_freshest_unfolds(
        from in 0..6_i64,
        spans in prop::collection::vec((0..12_i64, 0..5_i64, any::<bool>()), 0..8),
        batches in 1..4_usize,
    ) {
        let spans: Vec<_> = spans.into_iter().map(|(first, len, unfold)| (first, first + len, unfold)).collect();
        let mut scheduler = Scheduler::new(options());
        let tranche = TrancheId::new("t0");
        scheduler.open(&tranche, None);
        let mut at = 0;
        let mut events: Vec<_> = Vec::new();
        for &(first, next, unfold) in &spans {
            let mut add = |kind, index| {
                at += 1;
                events.push(event("a", kind, Ordinal::new(at, 0), index, 1));
            };
            (first..next).for_each(|index| add(Kind::Event, index));
            if unfold {
                add(Kind::Unfold, next);
            }
        }
        let last_unfold_at = |index: i64| {
            events.iter().filter(|event| event.is_unfold() && event.index() == index).map(Event::at).max()
        };
        let freshest: Vec<_> = (0..20).map(last_unfold_at).collect();
        let size = events.len().div_ceil(batches).max(1);
        for part in events.chunks(size) {
            let write_positions = vec![("a".into(), WritePosition::upto(from))];
            let batch = IngestBatch { tranche: tranche.clone(), events: part.to_vec(), resume_at: Position::Number(0), write_positions };
            scheduler.ingest(batch, Timestamp::ZERO).unwrap();
            invariants::check(&scheduler);
        }
        let mut seen = Vec::new();
        while let Some(mut call) = scheduler.take_call(Timestamp::ZERO) {
            let work = call.remove(0);
            let shown = work.events.iter().map(|event| match event.kind() {
                Kind::Unfold => {
                    assert_eq!(Some(event.at()), freshest[event.index() as usize], "the newest arrival wins");
                    format!("u{}", event.index())
                }
                _ => event.index().to_string(),
            });
            seen.push(shown.collect::<Vec<_>>().join(" "));
            let next = work.next;
            scheduler.finish(work, Outcome::Done { next }, Timestamp::ZERO);
            invariants::check(&scheduler);
        }
        prop_assert_eq!(seen, naive(from, &spans));
        prop_assert_eq!(scheduler.tranche(&tranche).unwrap().unhandled, 0);
    }
}
