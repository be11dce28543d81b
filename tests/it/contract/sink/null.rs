//! Sink `null`.

use propulsiond::connector::null::{NullSink, Settings};

use super::*;

#[tokio::test]
async fn it_takes_everything() {
    let sink = NullSink::new(&Settings::default(), &context(".".as_ref())).unwrap();
    let group = [events("a-1", 0..3), emitted("a-1", 3, vec![Value::Null]), emitted("a-1", 4, vec![])];
    for _ in 0..2 {
        write_all(&sink, &group).await;
    }
    assert_eq!(sink.write(&[]).await, []);
    sink.close().await.unwrap();
}
