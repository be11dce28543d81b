//! Sink `stats`. It has no back end, and keeps no order.

use propulsiond::connector::stats::{Settings, StatsSink};

use super::*;

#[tokio::test]
async fn it_counts_what_passes_and_what_passes_again() {
    let sink = StatsSink::new(&Settings::default(), &context(".".as_ref())).unwrap();
    takes_everything(&sink).await;
    let rows: Vec<_> = sink.snapshot().into_iter().map(|row| (row.category, row.event_type, row.events)).collect();
    let expected = [("cart", "mail", 2), ("order", "Placed", 6)];
    assert_eq!(rows, expected.map(|(category, name, count)| (category.to_owned(), name.to_owned(), count)));
}
