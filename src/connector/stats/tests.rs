use expect_test::expect;
use serde_json::json;

use super::*;
use crate::clock::Timestamp;
use crate::event::{Assembler, Event};
use crate::position::Ordinal;
use crate::work::{Work, WorkId, WorkKind};

fn event(stream: &str, event_type: &str, kind: Kind) -> Event {
    Assembler::new(stream, event_type).data(b"{\"a\":1}").build(kind, Ordinal::default(), 0).unwrap()
}

fn decided(events: Vec<Event>, effects: Effects) -> Decided {
    let id = WorkId { slot: 0, generation: 0 };
    let work = Work {
        id,
        kind: WorkKind::Handle,
        events,
        next: 1,
        failures: 0,
        read_at: Timestamp::ZERO,
        late: false,
        trace: None,
    };
    Decided { work, next: 1, effects, accepted: 0 }
}

fn one(stream: &str, event_type: &str) -> Decided {
    decided(vec![event(stream, event_type, Kind::Event)], Effects::Events)
}

fn counted(decided: &[Decided]) -> Counts {
    let mut counts = Counts::default();
    for (decided, second) in decided.iter().zip(1_795_514_400..) {
        counts.count(decided, OffsetDateTime::from_unix_timestamp(second).unwrap());
    }
    counts
}

#[test]
fn events_are_counted_by_category_and_type() {
    let with_unfold = vec![event("order-1", "Placed", Kind::Event), event("order-1", "State", Kind::Unfold)];
    let counts = counted(&[
        one("order-1", "Shipped"),
        decided(with_unfold, Effects::Events),
        one("order-2", "Shipped"),
        one("cart-\u{1b}[31m", "Added\n"),
    ]);
    expect![[r#"
        category  type           events            bytes  first seen           last seen
        order     Shipped             2               28  2026-11-24 10:00:00  2026-11-24 10:00:02
        cart      Added�              1               13  2026-11-24 10:00:03  2026-11-24 10:00:03
        order     Placed              1               13  2026-11-24 10:00:01  2026-11-24 10:00:01"#]]
    .assert_eq(&table::table(&counts.rows()));
    let first = serde_json::to_string(&counts.rows()[0]).unwrap();
    expect![[r#"{"category":"cart","type":"Added\n","events":1,"bytes":13,"first_seen":"2026-11-24T10:00:03Z","last_seen":"2026-11-24T10:00:03Z"}"#]]
        .assert_eq(&first);
}

#[test]
fn effects_are_counted_by_their_type_or_tag_or_kind() {
    let values =
        [json!({ "type": "mail", "to": "x" }), json!({ "tag": "sms" }), json!({ "type": 3 }), json!("hi"), json!(7)];
    let effects = Effects::Emitted(values.map(Value::from).into_iter().collect());
    let counts = counted(&[decided(vec![event("order-1", "Placed", Kind::Event)], effects)]);
    let rows: Vec<_> = counts.rows().into_iter().map(|row| (row.event_type, row.bytes)).collect();
    let expected = [("a map", 10), ("a string", 4), ("an integer", 1), ("mail", 24), ("sms", 13)];
    assert_eq!(rows, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
}

#[test]
fn r76_names_beyond_the_limit_are_counted_together() {
    let many: Vec<_> = (0..MAX_ROWS + 5).map(|number| one(&format!("c{number}-1"), "T")).collect();
    let mut counts = counted(&many);
    counts.count(&many[0], OffsetDateTime::UNIX_EPOCH);
    let rows = counts.rows();
    assert_eq!(rows.len(), MAX_ROWS + 1);
    let (first, last) = (&rows[0], &rows[MAX_ROWS]);
    assert_eq!((&*first.category, first.events), ("c0", 2));
    assert_eq!((&*last.category, &*last.event_type, last.events), (OTHER, OTHER, 5));
    assert!(table::table(&rows).ends_with("\n… and 9951 more"));
}

#[tokio::test]
async fn changed_counts_are_logged_at_the_interval() {
    let context = Context::new("p", ".", "data");
    let sink = StatsSink::new(&Settings { interval: Duration::from_millis(2) }, &context).unwrap();
    assert_eq!(sink.write(&[one("a-1", "T")]).await, [Ok(Written::All)]);
    let logged = async {
        while lock(&sink.counts).changed {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), logged).await.unwrap();
    assert_eq!(sink.snapshot()[0].events, 1);
    sink.close().await.unwrap();
}
