use std::num::NonZeroUsize;

use super::*;
use crate::event::{Assembler, Kind};
use crate::position::Ordinal;
use crate::source::Inbox as _;

fn event(number: u64) -> Event {
    Assembler::new("a-1", "T").build(Kind::Event, Ordinal::new(number, 0), number as i64).unwrap()
}

fn tranche() -> TrancheId {
    TrancheId::new("0")
}

async fn batch(reader: &mut Box<dyn TrancheReader>) -> Batch {
    match reader.next(Room::UNLIMITED).await.unwrap() {
        Next::Batch(batch) => batch,
        Next::End => panic!("the feed is not closed"),
    }
}

fn show(batch: &Batch) -> String {
    format!("{:?} {}{}", batch.events, batch.resume_at, if batch.at_tail { " tail" } else { "" })
}

#[tokio::test]
async fn events_of_one_push_are_one_batch() {
    let feed = MemoryFeed::dense();
    feed.push(&tranche(), vec![event(0), event(1)]);
    feed.push(&tranche(), vec![event(2)]);
    let mut reader = feed.source().open(&tranche(), StartAt::Position(Position::Number(1)), None);
    assert_eq!(show(&batch(&mut reader).await), "[a-1/e1@1.0] 2");
    assert_eq!(show(&batch(&mut reader).await), "[a-1/e2@2.0] 3 tail");
    feed.close(&tranche());
    assert!(matches!(reader.next(Room::UNLIMITED).await.unwrap(), Next::End));
}

/// Returns the next changes that a source reports.
async fn changes<const N: usize>(source: &MemorySource) -> [TrancheChange; N] {
    let (changes, mut reported) = Changes::channel();
    let mut seen = Vec::new();
    while seen.len() < N {
        tokio::select! {
            biased;
            Some(change) = reported.recv() => seen.push(change),
            ended = source.watch(&changes) => panic!("the watch ended with {ended:?}"),
        }
    }
    seen.try_into().unwrap()
}

#[tokio::test]
async fn a_source_reports_changes_in_order_and_a_later_source_the_held_tranches() {
    let feed = MemoryFeed::dense();
    let (a, b) = (TrancheId::new("a"), TrancheId::new("b"));
    feed.add(&b);
    let source = feed.source();
    feed.add(&a);
    feed.remove(&b, Duration::ZERO);
    feed.lose(&a);
    let seen = changes::<5>(&source).await.map(|change| match change {
        TrancheChange::Added { tranche, epoch, .. } => format!("+{tranche}.{epoch}"),
        TrancheChange::Settled => "settled".to_owned(),
        TrancheChange::Removed { tranche, .. } => format!("-{tranche}"),
        TrancheChange::Lost { tranche } => format!("lost {tranche}"),
    });
    assert_eq!(seen, ["+b.2", "settled", "+a.1", "-b", "lost a"]);
    source.left(&b, 1, Left::Fenced);
    source.left(&b, 2, Left::Released);
    assert_eq!(feed.left(&b).await, Left::Released, "an older assignment does not count");
    feed.add(&b);
    let [first] = changes(&feed.source()).await;
    assert!(matches!(first, TrancheChange::Added { tranche, .. } if tranche == b));
}

#[tokio::test]
async fn a_revoked_tranche_is_released_when_its_holder_has_ended() {
    let feed = MemoryFeed::dense();
    feed.add(&tranche());
    let crashed = feed.source();
    feed.remove(&tranche(), Duration::ZERO);
    drop(crashed);
    let _next = feed.source();
    assert_eq!(feed.left(&tranche()).await, Left::Released);
}

#[tokio::test]
async fn each_injected_fault_occurs_once() {
    let feed = MemoryFeed::dense();
    feed.push(&tranche(), vec![event(0)]);
    feed.fail_next_read(&tranche(), SourceErrorKind::Unavailable);
    let mut reader = feed.source().open(&tranche(), StartAt::Origin, None);
    assert_eq!(reader.next(Room::UNLIMITED).await.unwrap_err().kind, SourceErrorKind::Unavailable);
    feed.hold(&tranche());
    let mut read = Box::pin(reader.next(Room::UNLIMITED));
    assert!(futures_util::poll!(&mut read).is_pending());
    feed.release(&tranche());
    assert!(matches!(read.await.unwrap(), Next::Batch(batch) if batch.events.len() == 1));
    feed.fail_next_change(SourceErrorKind::Denied);
    let (changes, _reported) = Changes::channel();
    assert_eq!(feed.source().watch(&changes).await.unwrap_err().kind, SourceErrorKind::Denied);
}

fn inbox(settings: Settings) -> MemoryInbox {
    MemoryInbox::new(&settings, &"orders".into()).unwrap()
}

fn body(events: std::ops::Range<u64>) -> String {
    events.map(|index| format!("{{\"stream\":\"a-1\",\"index\":{index},\"type\":\"T\"}}\n")).collect()
}

#[tokio::test]
async fn a_body_is_accepted_whole_or_not_at_all() {
    let inbox = inbox(Settings::default());
    assert_eq!(inbox.push(body(0..3).as_bytes()).await.unwrap(), 3);
    let refused = inbox.push((body(3..4) + "{\"stream\":\"a-1\"}").as_bytes()).await.unwrap_err();
    assert_eq!(refused.kind, SourceErrorKind::Refused);
    assert_eq!(refused.to_string(), "accept events for pipeline `orders`: line 2: expected `type`");
    let mut reader = inbox.source().open(&tranche(), StartAt::Origin, None);
    assert_eq!(batch(&mut reader).await.events.len(), 3);
    assert_eq!(inbox.push(b"[]").await.unwrap(), 0);
}

#[tokio::test]
async fn a_full_inbox_refuses_events_and_deletes_read_ones_for_room() {
    let inbox = inbox(Settings { max_events: NonZeroUsize::new(4).unwrap(), ..Settings::default() });
    let too_many = inbox.push(body(0..5).as_bytes()).await.unwrap_err();
    assert_eq!(too_many.kind, SourceErrorKind::Refused);
    inbox.push(body(0..3).as_bytes()).await.unwrap();
    assert_eq!(inbox.push(body(3..5).as_bytes()).await.unwrap_err().kind, SourceErrorKind::Unavailable);
    let mut reader = inbox.source().open(&tranche(), StartAt::Origin, None);
    batch(&mut reader).await;
    inbox.push(body(3..5).as_bytes()).await.unwrap();
    assert_eq!(batch(&mut reader).await.events[0].index(), 3);
    // The first event was deleted. A kept event is read again, and the position of a deleted one is lost.
    let mut again = inbox.source().open(&tranche(), StartAt::Position(Position::Number(1)), None);
    assert_eq!(batch(&mut again).await.events[0].index(), 1);
    let mut lost = inbox.source().open(&tranche(), StartAt::Position(Position::Number(0)), None);
    assert_eq!(lost.next(Room::UNLIMITED).await.unwrap_err().kind, SourceErrorKind::PositionLost);
}

#[tokio::test]
async fn a_new_process_continues_from_the_stored_position() {
    let inbox = inbox(Settings::default());
    inbox.push(body(7..9).as_bytes()).await.unwrap();
    let mut reader = inbox.source().open(&tranche(), StartAt::Position(Position::Number(100)), None);
    let read = batch(&mut reader).await;
    assert_eq!((read.events.len(), read.resume_at), (2, Position::Number(102)));
    inbox.push(body(9..10).as_bytes()).await.unwrap();
    assert_eq!(batch(&mut reader).await.resume_at, Position::Number(103));
}

#[tokio::test]
async fn indexes_of_arrival_ascend() {
    let inbox = inbox(Settings { index: Index::Arrival, ..Settings::default() });
    let line = "{\"stream\":\"a-1\",\"type\":\"T\"}\n";
    inbox.push(line.repeat(3).as_bytes()).await.unwrap();
    inbox.push(line.as_bytes()).await.unwrap();
    assert_eq!(inbox.push(body(0..1).as_bytes()).await.unwrap_err().kind, SourceErrorKind::Refused);
    let mut reader = inbox.source().open(&tranche(), StartAt::Origin, None);
    let mut indexes: Vec<_> = batch(&mut reader).await.events.iter().map(Event::index).collect();
    indexes.extend(batch(&mut reader).await.events.iter().map(Event::index));
    assert!(indexes.len() == 4 && indexes.is_sorted_by(|a, b| a < b), "{indexes:?}");
}

#[tokio::test]
async fn a_mapped_body_is_accepted_whole_or_not_at_all() {
    let map = toml::from_str("format = \"document\"\neach = \"\"\nstream = \"/s\"\ntype = \"T\"").unwrap();
    let inbox = inbox(Settings { map: Some(map), ..Settings::default() });
    assert_eq!(inbox.push(b"[{\"s\": \"a-1\"},\n {\"s\": \"a-1\"}]").await.unwrap(), 2);
    let refused = inbox.push(b"[{\"s\": \"a-1\"}]\n[{}]").await.unwrap_err();
    let why = "accept events for pipeline `orders`: line 2: item 1: `stream` needs `/s`, which the record lacks";
    assert_eq!((refused.kind, &*refused.to_string()), (SourceErrorKind::Refused, why));
    assert_eq!(inbox.push(b"[{\"s\": \"a-1\"}]").await.unwrap(), 1);
    let mut reader = inbox.source().open(&tranche(), StartAt::Origin, None);
    let mut indexes: Vec<_> = batch(&mut reader).await.events.iter().map(Event::index).collect();
    indexes.extend(batch(&mut reader).await.events.iter().map(Event::index));
    assert!(indexes.len() == 3 && indexes.is_sorted_by(|a, b| a < b), "{indexes:?}");
}
