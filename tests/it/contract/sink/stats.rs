//! Sink `stats`. It has no back end, and keeps no order.

use propulsiond::connector::stats::{Settings, StatsSink};

use super::*;

#[tokio::test]
async fn it_counts_what_passes_and_what_passes_again() {
    let sink = StatsSink::new(&Settings::default(), &context(".".as_ref())).unwrap();
    let unfold = of_events(vec![event("order-1", 3, Kind::Unfold)]);
    let mail = Value::Map(vec![("type".into(), "mail".into())]);
    let group = [events("order-1", 0..3), unfold, emitted("cart-1", 0, vec![mail]), emitted("cart-1", 1, vec![])];
    for times in 1..3 {
        write_all(&sink, &group).await;
        sink.close().await.unwrap();
        let rows: Vec<_> = sink.snapshot().into_iter().map(|row| (row.category, row.event_type, row.events)).collect();
        let expected = [("cart", "mail", times), ("order", "Placed", 3 * times)];
        assert_eq!(rows, expected.map(|(category, name, count)| (category.to_owned(), name.to_owned(), count)));
    }
}
