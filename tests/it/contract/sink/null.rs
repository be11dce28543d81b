//! Sink `null`.

use propulsiond::connector::null::{NullSink, Settings};

use super::*;

#[tokio::test]
async fn it_takes_everything() {
    let sink = NullSink::new(&Settings::default(), &context(".".as_ref())).unwrap();
    takes_everything(&sink).await;
}
