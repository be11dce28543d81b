//! The contract of every sink.
//!
//! A new sink adds a file with its harness, a `mod` line here, and its cases by [`sink_contract`]. A sink that keeps no order, or
//! no events, has no such harness: its file calls [`takes_everything`] instead, and compares the results of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod file;
mod http;
mod null;
pub(crate) mod server;
mod settings;
mod stats;
mod stdout;

use async_trait::async_trait;
use propulsiond::clock::Timestamp;
use propulsiond::connector::Context;
use propulsiond::effect::Value;
use propulsiond::event::{Assembler, Event, Kind};
use propulsiond::handler::{HandlerError, HandlerErrorKind};
use propulsiond::position::Ordinal;
use propulsiond::sink::{Decided, Effects, Sink, Written};
use propulsiond::work::{Work, WorkId, WorkKind};

/// A sink and its back end.
#[async_trait]
pub(super) trait Harness: Sync {
    fn sink(&self) -> &dyn Sink;

    /// Returns the streams and indexes that the back end has received, in order of arrival.
    fn seen(&self) -> Vec<(String, i64)>;

    /// Returns an effect that `seen` lists as that stream and index.
    fn effect(&self, stream: &str, index: i64) -> Value {
        Value::Map(vec![("stream".into(), stream.into()), ("index".into(), Value::Int(index))])
    }

    /// Returns a decision that the sink can never write.
    fn unfit(&self) -> Decided {
        unreachable!("this sink can write anything")
    }

    /// Makes the back end fail until `repair`.
    fn break_down(&self);

    fn repair(&self);
}

type Result = std::result::Result<Written, HandlerError>;

fn context(directory: &std::path::Path) -> Context {
    Context { group: "shop-v1".into(), ..Context::new("shop", directory, directory) }
}

fn event(stream: &str, index: i64, kind: Kind) -> Event {
    let event = Assembler::new(stream, "Placed").data(b"{\"total\":1}");
    event.build(kind, Ordinal::default(), index).unwrap()
}

fn work(events: Vec<Event>) -> Work {
    let next = events.last().unwrap().next_index();
    let id = WorkId { slot: 0, generation: 0 };
    Work { id, kind: WorkKind::Handle, events, next, failures: 0, read_at: Timestamp::ZERO, late: false, trace: None }
}

fn of_events(events: Vec<Event>) -> Decided {
    let work = work(events);
    Decided { next: work.next, work, effects: Effects::Events, accepted: 0 }
}

/// Events of a stream, in the decision of a pipeline without a handler.
fn events(stream: &str, indexes: std::ops::Range<i64>) -> Decided {
    of_events(indexes.map(|index| event(stream, index, Kind::Event)).collect())
}

/// One event with the effects that a handler emitted for it.
fn emitted(stream: &str, index: i64, values: Vec<Value>) -> Decided {
    let work = work(vec![event(stream, index, Kind::Event)]);
    Decided { next: work.next, work, effects: Effects::Emitted(values.into()), accepted: 0 }
}

/// Writes in batches of the sink's size.
async fn write(sink: &dyn Sink, decided: &[Decided]) -> Vec<Result> {
    let mut results = Vec::new();
    for group in decided.chunks(sink.max_batch()) {
        results.extend(sink.write(group).await);
    }
    assert_eq!(results.len(), decided.len(), "one result for each decision");
    results
}

async fn write_all(sink: &dyn Sink, decided: &[Decided]) {
    for result in write(sink, decided).await {
        assert_eq!(result, Ok(Written::All));
    }
}

fn seen(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|&(stream, index)| (stream.to_owned(), index)).collect()
}

async fn events_of_a_stream_arrive_in_order(harness: impl Harness) {
    write_all(harness.sink(), &[events("a-1", 0..2), events("b-1", 5..6), events("a-1", 2..4)]).await;
    assert_eq!(harness.seen(), seen(&[("a-1", 0), ("a-1", 1), ("b-1", 5), ("a-1", 2), ("a-1", 3)]));
}

async fn emitted_effects_arrive_in_order(harness: impl Harness) {
    let effects = |numbers: [i64; 3]| numbers.map(|number| harness.effect("x-1", number)).into();
    write_all(harness.sink(), &[emitted("a-1", 0, effects([3, 1, 2])), emitted("b-1", 0, effects([6, 5, 4]))]).await;
    let numbers: Vec<_> = harness.seen().into_iter().map(|(_, number)| number).collect();
    assert_eq!(numbers, [3, 1, 2, 6, 5, 4]);
}

async fn a_decision_without_effects_is_written(harness: impl Harness) {
    let unfold = of_events(vec![event("a-1", 1, Kind::Unfold)]);
    write_all(harness.sink(), &[emitted("a-1", 0, vec![]), unfold, events("b-1", 0..1)]).await;
    assert_eq!(harness.seen(), seen(&[("b-1", 0)]));
    assert_eq!(harness.sink().write(&[]).await, []);
}

async fn unfolds_are_not_written(harness: impl Harness) {
    write_all(harness.sink(), &[of_events(vec![event("a-1", 0, Kind::Event), event("a-1", 1, Kind::Unfold)])]).await;
    assert_eq!(harness.seen(), seen(&[("a-1", 0)]));
}

async fn redelivered_events_are_written_again_in_order(harness: impl Harness) {
    for _ in 0..2 {
        write_all(harness.sink(), &[events("a-1", 0..2)]).await;
    }
    assert_eq!(harness.seen(), seen(&[("a-1", 0), ("a-1", 1), ("a-1", 0), ("a-1", 1)]));
}

async fn r42_an_invalid_decision_is_permanent_and_spoils_no_other(harness: impl Harness) {
    let results = write(harness.sink(), &[events("a-1", 0..1), harness.unfit(), events("b-1", 0..1)]).await;
    let kinds: Vec<_> = results.iter().map(|result| result.as_ref().map_err(HandlerError::kind)).collect();
    assert_eq!(kinds, [Ok(&Written::All), Err(HandlerErrorKind::Permanent), Ok(&Written::All)]);
    assert_eq!(harness.seen(), seen(&[("a-1", 0), ("b-1", 0)]));
}

async fn r42_an_outage_is_unavailable_until_it_ends(harness: impl Harness) {
    harness.break_down();
    for result in write(harness.sink(), &[events("a-1", 0..1), events("b-1", 0..1)]).await {
        assert_eq!(result.unwrap_err().kind(), HandlerErrorKind::Unavailable);
    }
    harness.repair();
    let before = harness.seen().len();
    write_all(harness.sink(), &[events("a-1", 0..1), events("b-1", 0..1)]).await;
    assert_eq!(harness.seen()[before..], seen(&[("a-1", 0), ("b-1", 0)]));
}

async fn a_cancelled_write_harms_nothing(harness: impl Harness) {
    for polls in 0..4 {
        let group = [events("a-1", 0..2)];
        let before = harness.seen().len();
        let mut given_up = harness.sink().write(&group);
        for _ in 0..polls {
            // A complete write cannot be cancelled.
            if futures_util::poll!(&mut given_up).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(given_up);
        write_all(harness.sink(), &group).await;
        let after = harness.seen()[before..].to_vec();
        let once = seen(&[("a-1", 0), ("a-1", 1)]);
        let (given_up, again) = after.split_at(after.len() - 2);
        assert!(once.starts_with(given_up) && again == once, "{after:?}");
    }
}

async fn a_closed_sink_keeps_its_writes_and_takes_more(harness: impl Harness) {
    write_all(harness.sink(), &[events("a-1", 0..1)]).await;
    harness.sink().close().await.unwrap();
    assert_eq!(harness.seen(), seen(&[("a-1", 0)]));
    write_all(harness.sink(), &[events("a-1", 1..2)]).await;
    harness.sink().close().await.unwrap();
    assert_eq!(harness.seen(), seen(&[("a-1", 0), ("a-1", 1)]));
}

/// Writes events, unfolds, effects, decisions without effects and no decision to a sink that keeps no order and cannot fail.
/// Closes it, then writes all of them again.
async fn takes_everything(sink: &dyn Sink) {
    for _ in 0..2 {
        let unfold = of_events(vec![event("order-1", 3, Kind::Unfold)]);
        let mail = Value::Map(vec![("type".into(), "mail".into())]);
        let effects = [emitted("cart-1", 0, vec![mail]), emitted("cart-1", 1, vec![])];
        write_all(sink, &[events("order-1", 0..3), unfold]).await;
        write_all(sink, &effects).await;
        assert_eq!(sink.write(&[]).await, []);
        sink.close().await.unwrap();
    }
}

/// Makes a test of each case for a sink.
macro_rules! sink_contract {
    ($harness:expr; $($case:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $case() {
                super::$case($harness).await;
            }
        )*
    };
    ($harness:expr) => {
        super::sink_contract!($harness;
            events_of_a_stream_arrive_in_order,
            emitted_effects_arrive_in_order,
            a_decision_without_effects_is_written,
            unfolds_are_not_written,
            redelivered_events_are_written_again_in_order,
            r42_an_outage_is_unavailable_until_it_ends,
            a_cancelled_write_harms_nothing,
            a_closed_sink_keeps_its_writes_and_takes_more,
        );
    };
}
use sink_contract;

/// Returns stream and index of each line. Asserts that no line is truncated.
fn read_lines(text: &str) -> Vec<(String, i64)> {
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {text}");
    text.lines().map(read_line).collect()
}

fn read_line(line: &str) -> (String, i64) {
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    (json["stream"].as_str().unwrap().to_owned(), json["index"].as_i64().unwrap())
}
