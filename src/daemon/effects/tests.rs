use expect_test::{Expect, expect};

use super::*;
use crate::clock;
use crate::event::{Assembler, Indexes, Kind};
use crate::position::Ordinal;
use crate::script;

fn side(text: &str, max_events: usize) -> Side {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.rhai");
    std::fs::write(&path, text).unwrap();
    let script = Script::compile(&path, &serde_json::Map::new(), script::Options::default()).unwrap();
    Side { script, filter: Arc::default(), max_events, streams_per_call: 1 }
}

/// Makes the events of a text such as `a/0 b/0`. `u` before an index marks an unfold.
fn sample(events: &str) -> Sample {
    let event = |(number, text): (usize, &str)| {
        let (stream, index) = text.split_once('/').unwrap();
        let kind = if index.starts_with('u') { Kind::Unfold } else { Kind::Event };
        let index = index.trim_start_matches('u').parse().unwrap();
        let event = Assembler::new(stream, "T").build(kind, Ordinal::new(number as u64, 0), index).unwrap();
        (TrancheId::new("0"), event)
    };
    let events: Vec<_> = events.split_whitespace().enumerate().map(event).collect();
    Sample { read: events.len() as u64, events, indexes: Indexes::Dense, is_partial: false }
}

async fn check_calls(old: &str, new: &str, max_events: usize, events: &str, expected: Expect) {
    let now = OffsetDateTime::UNIX_EPOCH;
    let compared = compare(side(old, max_events), side(new, max_events), sample(events), now).await.unwrap();
    let shown: String = compared.differences.iter().map(Difference::render).collect();
    expected.assert_eq(&format!("{shown}{}\n", compared.totals()));
}

async fn check(old: &str, new: &str, events: &str, expected: Expect) {
    check_calls(old, new, 100, events, expected).await;
}

const BY_EVENT: &str = "fn handle_event(stream, event) { emit(event.index); }";

#[tokio::test]
async fn equal_effects_have_no_differences() {
    let other = "fn handle_event(stream, event) { let index = event.index; emit(index); }";
    check(
        BY_EVENT,
        other,
        "a/0 b/0 a/1",
        expect!["differences in 0 streams: 0 lines removed, 0 added, 0 new errors, 0 gone\n"],
    )
    .await;
}

#[tokio::test]
async fn a_changed_effect_is_shown_with_its_event() {
    let other = "fn handle_event(stream, event) { if event.index == 1 { emit(\"x\"); emit(\"y\"); } else { emit(event.index); } }";
    check(
        BY_EVENT,
        other,
        "a/0 b/0 a/1 a/2",
        expect![[r#"
            a
                0: 0
              - 1: 1
              + 1: "x"
              + 1: "y"
                2: 2
            differences in 1 stream: 1 line removed, 2 added, 0 new errors, 0 gone
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_failing_event_is_found_and_the_others_are_compared() {
    let old = "fn handle(stream, events) { for e in events { emit(e.index); } }";
    let new = "fn handle(stream, events) { for e in events { if e.index == 1 { throw \"no\"; } emit(e.index); } }";
    let expected = expect![[r#"
        a
            0
          - 1
            2
          new error at index 1 (transient): p.rhai:1:65: no (stream `a`, index 1, type `T`)
        differences in 1 stream: 1 line removed, 0 added, 1 new error, 0 gone
    "#]];
    check(old, new, "a/0 a/1 a/2 b/0", expected).await;
    let expected = expect![[r#"
        a
            0
          + 1
            2
          gone error at index 1 (transient): p.rhai:1:65: no (stream `a`, index 1, type `T`)
        differences in 1 stream: 0 lines removed, 1 added, 0 new errors, 1 gone
    "#]];
    check(new, old, "a/0 a/1 a/2 b/0", expected).await;
}

#[tokio::test]
async fn a_stream_whose_handler_waits_ends_there() {
    let new = "fn handle_event(stream, event) { if event.index == 1 { return defer(\"1h\"); } emit(event.index); }";
    check(
        BY_EVENT,
        new,
        "a/0 a/1 a/2",
        expect![[r#"
            a
                0: 0
              - 1: 1
              - 2: 2
              + 1: waits for 1h
            differences in 1 stream: 2 lines removed, 1 added, 0 new errors, 0 gone
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_call_has_at_most_max_events_without_repeats_and_superseded_unfolds() {
    let new = "fn handle(stream, events) { emit(events.len()); }";
    let old = "fn handle(stream, events) {}";
    check_calls(
        old,
        new,
        2,
        "a/0 a/u1 a/1 a/0 a/2 a/3 a/4 a/u5",
        expect![[r#"
            a
              + 2
              + 2
              + 2
            differences in 1 stream: 0 lines removed, 3 added, 0 new errors, 0 gone
        "#]],
    )
    .await;
}

#[tokio::test]
async fn scripts_run_without_the_counters_of_their_pipeline_and_at_one_time() {
    let counting = side("fn handle_event(stream, event) { metric.inc(\"seen\"); emit(time.now().unix()); }", 100);
    let compared = compare(counting.clone(), counting.clone(), sample("a/0"), clock::wall()).await.unwrap();
    assert!(compared.is_equal());
    assert_eq!(counting.script.metrics().snapshot(), []);
}
