//! Calls that do not succeed: back-off, isolation, deferral (C19, C20), without effect on other streams.

use expect_test::expect;

use super::super::Options;
use super::script::{check, check_with, options};

#[test]
fn c19_events_that_failed_together_are_offered_one_by_one() {
    check(
        "read t0: a/0 a/1 a/2 a/u3; take; read t0: a/3; fail a; take; wake; tick 10; take; ok a; take; fail a; explain a; tick 10; take; ok a; take; ok a; take; ok a; progress t0",
        expect![[r#"
            a 0 1 2 u3@4
            nothing
            wake Some(10)
            a 0 failures=1
            a 1
            Failing head=Some(1) events=3 failures=1 age=0 until=20 write=Some(1) blocks=2.0
            a 1 failures=1
            a 2
            a 3
            5
        "#]],
    );
}

#[test]
fn c19_a_failure_that_names_its_event_lets_those_before_it_go() {
    check(
        "read t0: a/0 a/1 a/2 a/3; take; fail a @2; tick 10; take; ok a; take; fail a @2; tick 10; take; skip a; take; ok a; progress t0",
        expect![[r#"
            a 0 1 2 3
            a 0 1 failures=1
            a 2
            a 2 failures=1
            a 3
            4
        "#]],
    );
    check(
        "read t0: a/0 a/1 a/2; take; fail a @0; tick 10; take; ok a; take",
        expect![[r#"
        a 0 1 2
        a 0 failures=1
        a 1 2
    "#]],
    );
    check(
        "read t0: a/0 a/1; take; fail a @9; tick 10; take",
        expect![[r#"
        a 0 1
        a 0 failures=1
    "#]],
    );
}

#[test]
fn c19_skip_passes_one_event_alone() {
    check(
        "read t0: a/0 a/1 a/2 a/u3; take; skip a; take; skip a; take; skip a; progress t0",
        expect![[r#"
        a 0 1 2 u3@4
        a 1 2 u3@4
        a 2 u3@4
        4
    "#]],
    );
    check(
        "read t0: a/u3x2; take; skip a; progress t0",
        expect![[r#"
        a u3@1 u3@1
        1
    "#]],
    );
}

#[test]
fn d08_a_stream_in_back_off_is_not_ready_and_starves_no_other() {
    check(
        "read t0: a/0 b/0; take; fail a; read t0: a/1 a/2 a/3 c/0; take; take; take; wake; tick 9; take; tick 1; take; explain a",
        expect![[r#"
            a 0
            b 0
            c 0
            nothing
            wake Some(10)
            nothing
            a 0 failures=1
            Failing head=Some(1) events=4 failures=1 age=10 write=None blocks=1.0
        "#]],
    );
}

#[test]
fn r7_a_waiting_event_is_not_handled() {
    check(
        "read t0: a/0 b/0; read t0: b/1; take all; fail a; ok b; progress t0; tranche t0; explain a; tick 10; take; defer a; tranche t0; tick 10; take; ok a; progress t0; tranche t0",
        expect![[r#"
            b 0 1
            a 0
            origin 2-3
            batches=0/2 bytes=2 ahead=3 unhandled=1 runs=1 completed=0/2 blocked=Some(1)
            Failing head=Some(0) events=1 failures=1 age=0 until=10 write=None blocks=1.0
            a 0 failures=1
            batches=0/2 bytes=2 ahead=3 unhandled=1 runs=1 completed=0/2 blocked=Some(1)
            a 0 failures=1
            3
            batches=0/0 bytes=0 ahead=0 unhandled=0 runs=0 completed=2/3 blocked=None
        "#]],
    );
}

#[test]
fn a_call_without_progress_spends_no_attempt() {
    check(
        "read t0: a/0 a/1; take; wait a; explain a; tick 10; take; fail a; tick 10; take; wait a; explain a; tick 10; take; ok a; explain a",
        expect![[r#"
            a 0 1
            Stalled head=Some(0) events=2 age=0 until=10 write=None blocks=1.0
            a 0 1
            a 0 failures=1
            Stalled head=Some(0) events=2 failures=1 age=20 until=30 write=None blocks=1.0
            a 0 failures=1
            Ready head=Some(1) events=1 age=30 write=Some(1) blocks=2.0
        "#]],
    );
    check(
        "read t0: a/0; take; defer a; explain a; wake; tick 10; explain a; take; explain a; ok a; explain a",
        expect![[r#"
        a 0
        Deferred head=Some(0) events=1 age=0 until=10 write=None blocks=1.0
        wake Some(10)
        Deferred head=Some(0) events=1 age=10 until=10 write=None blocks=1.0
        a 0
        Active head=None events=1 age=0 write=None blocks=1.0
        Idle head=None events=0 age=0 write=Some(1)
    "#]],
    );
}

#[test]
fn returned_work_counts_as_never_offered() {
    check(
        "read t0: a/0 a/1; take; read t0: a/2; return a; explain a; take; fail a; tick 10; take; return a; take",
        expect![[r#"
        a 0 1
        Ready head=Some(0) events=3 age=0 write=None blocks=1.0
        a 0 1 2
        a 0 failures=1
        a 0 failures=1
    "#]],
    );
}

#[test]
fn c20_the_clock_runs_on_from_the_first_call_without_progress_however_short_the_calls_are() {
    check(
        "read t0: a/0 a/1; take; wait a; tick 30; stuck 30; stuck 31; take; wait a; tick 10; take; tick 5; stuck 45; wait a; stuck 45
         hold; tick 100; stuck 46; release; tick 10; stuck 55; take; tick 1; ok a 1; stuck 1; take; tick 2; stuck 2; stuck 3",
        expect![[r#"
            a 0 1
            stuck ["a running=false"]
            stuck []
            a 0 1
            a 0 1
            stuck ["a running=true"]
            stuck ["a running=false"]
            stuck []
            stuck ["a running=false"]
            a 0 1
            stuck []
            a 1
            stuck ["a running=true"]
            stuck []
        "#]],
    );
    // Deferral, and the back-off after a failure, do not count; later time does again.
    check(
        "read t0: a/0; take; wait a; tick 10; take; defer a 50; tick 50; stuck 10; stuck 11; take; wait a; tick 10; stuck 20
         take; tick 1; fail a; tick 40; stuck 21; stuck 22; take; wait a; tick 10; stuck 31",
        expect![[r#"
            a 0
            a 0
            stuck ["a running=false"]
            stuck []
            a 0
            stuck ["a running=false"]
            a 0
            stuck ["a running=false"]
            stuck []
            a 0 failures=1
            stuck ["a running=false"]
        "#]],
    );
    // Work that cannot be appended waits for the store.
    check(
        "read t0: a/0; take; park a; take; wait a; tick 100; stuck 1; take; wait a; tick 100; stuck 1",
        expect![[r#"
            a 0
            park a 0
            stuck []
            park a 0
            stuck []
        "#]],
    );
}

#[test]
fn c20_the_clock_runs_while_calls_run_and_stands_still_in_between() {
    check(
        "read t0: a/0 b/0; stuck 0; tick 5; stuck 1; take; tick 5; stuck 5; fail a; tick 100; stuck 6; take; take; tick 3; stuck 8; stuck 9
         hold; tick 50; stuck 9; release; tick 1; stuck 9; wait a; ok b; stuck 9; tick 10; take; ok a; stuck 0",
        expect![[r#"
            stuck []
            stuck []
            a 0
            stuck ["a running=true"]
            stuck []
            b 0
            a 0 failures=1
            stuck ["a running=true"]
            stuck []
            stuck []
            stuck ["a running=true"]
            stuck ["a running=false"]
            a 0 failures=1
            stuck []
        "#]],
    );
}

#[test]
fn d14_failing_and_stalling_in_turn_keeps_one_age() {
    check(
        "read t0: a/0 a/1; tick 1; take; tick 2; fail a; tick 10; take; tick 1; wait a; explain a; tick 10; take; fail a; explain a; tick 10; take; ok a; take; fail a; explain a",
        expect![[r#"
            a 0 1
            a 0 failures=1
            Stalled head=Some(0) events=2 failures=1 age=13 until=24 write=None blocks=1.0
            a 0 failures=1
            Failing head=Some(0) events=2 failures=2 age=23 until=34 write=None blocks=1.0
            a 0 failures=2
            a 1
            Failing head=Some(1) events=1 failures=1 age=0 until=44 write=Some(1) blocks=2.0
        "#]],
    );
}

#[test]
fn several_streams_of_one_call_end_each_for_itself() {
    let several = Options { streams_per_call: 3, ..options() };
    check_with(
        several,
        "read t0: a/0 b/0 c/0 d/0 a/1; take; fail b; ok a; park c; take; take; progress t0; tick 10; take; ok d; ok b; progress t0",
        expect![[r#"
            a 0 1 + b 0 + c 0
            d 0
            park c 0
            origin 1-1 5-5
            b 0 failures=1
            origin 1-2 4-5
        "#]],
    );
}

#[test]
fn the_oldest_batch_goes_first_and_within_it_the_longest_queue() {
    check(
        "read t0: a/0 b/0 c/0; read t0: d/0 d/1 d/2 b/1; take all",
        expect![[r#"
        b 0 1
        a 0
        c 0
        d 0 1 2
    "#]],
    );
}

#[test]
fn events_in_trouble_are_copied_out_of_their_buffer_once() {
    use super::super::{IngestBatch, Outcome, Scheduler};
    use crate::clock::Timestamp;
    use crate::event::{EventBuilder, Kind, Text};
    use crate::position::{Ordinal, Position, TrancheId};

    let buffer = bytes::Bytes::from(b"abc".repeat(100));
    let mut scheduler = Scheduler::new(options());
    let tranche = TrancheId::new("t0");
    scheduler.open(&tranche, None);
    let read = |scheduler: &mut Scheduler, index: i64| {
        let record = buffer.slice(0..3);
        let event = EventBuilder::new(record).text(Text::Stream, 0, 1);
        let event = event.build(Kind::Event, Ordinal::new(index.cast_unsigned() + 1, 0), index).unwrap();
        let batch = IngestBatch {
            tranche: tranche.clone(),
            events: vec![event],
            resume_at: Position::Number(index),
            write_positions: vec![],
        };
        scheduler.ingest(batch, Timestamp::ZERO).unwrap();
    };
    read(&mut scheduler, 0);
    read(&mut scheduler, 1);
    let mut call = scheduler.take_call(Timestamp::ZERO).unwrap();
    scheduler.finish(
        call.remove(0),
        Outcome::Failed { until: Timestamp::from_millis(1), at_index: None },
        Timestamp::ZERO,
    );
    read(&mut scheduler, 2);
    let shared = buffer.as_ptr_range();
    let mut seen = 0;
    while let Some(mut call) = scheduler.take_call(Timestamp::from_millis(1)) {
        let work = call.remove(0);
        assert!(work.events.iter().all(|event| !shared.contains(&event.stream_bytes().as_ptr())));
        seen += work.events.len();
        let next = work.next;
        scheduler.finish(work, Outcome::Done { next }, Timestamp::from_millis(1));
    }
    assert_eq!(seen, 3);
    assert_eq!(buffer.try_into_mut().map(|buffer| buffer.len()).ok(), Some(300), "nothing keeps the buffer alive");
}
