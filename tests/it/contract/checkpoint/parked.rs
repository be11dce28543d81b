//! The contract of a store of parked streams.

use std::sync::Arc;

use propulsiond::checkpoint::{
    CheckpointKey, DueStream, Fence, KEPT_JOBS, NewBody, Parked, ParkedAction, ParkedMark, ParkedOrder, ParkedPage,
    ParkedQuery, ParkedRequest, ParkedSelection, ParkedState, ParkedStore, ParkedUpdate, QueueOrder, QueuePage,
    QueuedEvent, QueuedId,
};
use propulsiond::clock::Clock;
use propulsiond::event::{Assembler, ContentType, Encoding, Event, Format, Kind, Text as Field, malformed};
use propulsiond::position::Ordinal;

use super::harness::*;

macro_rules! stores_that_park {
    ($($case:ident),* $(,)?) => {
        cases! {
            sqlite: [$($case),*];
            memory: [$($case),*];
            sqlite_sink: [$($case),*];
            memory_sink: [$($case),*];
        }
    };
}

stores_that_park! {
    c21_an_event_that_is_parked_twice_is_stored_once_in_order,
    c21_the_first_mark_of_a_stream_stays,
    a_parked_event_is_read_as_it_was,
    c21_a_stream_is_parked_from_the_smallest_ordinal_that_was_not_handled,
    c21_an_older_claim_can_change_no_parked_stream,
    a_queue_is_read_by_index_with_unfolds_before_their_successors,
    pages_of_a_queue_end_at_their_limits_and_hold_one_event_at_least,
    handled_events_are_removed_and_the_totals_follow,
    a_mark_is_replaced_as_a_whole,
    c21_a_stream_with_events_stays_parked,
    streams_of_other_keys_are_untouched,
    due_streams_come_by_their_times_up_to_the_limit,
    lists_go_by_tranche_and_name_in_pages_with_totals,
    lists_by_due_time_end_with_the_streams_that_have_none,
    c32_each_field_of_a_selection_excludes_streams,
    a_retry_makes_the_selected_streams_due,
    a_discard_marks_the_event_at_fault,
    a_discard_of_the_only_event_takes_its_unfolds_along,
    a_discard_of_all_marks_the_events_that_are_parked_now,
    a_request_reaches_deferred_streams_only_by_their_state,
    jobs_count_the_streams_that_are_due_and_those_that_failed_again,
    the_last_jobs_are_kept_by_group_and_source,
    an_edit_replaces_parts_of_a_body,
}

/// A claimed key of a store.
struct Claimed {
    parked: Arc<dyn ParkedStore>,
    key: CheckpointKey,
    fence: Fence,
}

async fn claimed(harness: &Harness, tranche: &str) -> Claimed {
    let (store, key) = (harness.open(), key("g", "s", tranche));
    let fence = store.claim(&key, &owner("a")).await.unwrap().fence;
    Claimed { parked: store.parked().unwrap(), key, fence }
}

impl Claimed {
    async fn park(&self, events: &[&Event], mark: &ParkedMark) {
        let parked: Vec<_> = events.iter().map(|event| Parked { event, from: event.at(), mark }).collect();
        self.parked.append(&self.key, self.fence, &parked).await.unwrap();
    }

    /// Parks a stream with one event.
    async fn park_stream(&self, stream: &str, mark: &ParkedMark) {
        self.park(&[&event(stream, 0, 1)], mark).await;
    }

    async fn update(&self, updates: &[ParkedUpdate<'_>]) {
        self.parked.update(&self.key, self.fence, updates).await.unwrap();
    }

    async fn page(&self, stream: &str, page: &QueuePage) -> Vec<QueuedEvent> {
        let read = self.parked.read(&self.key, stream, page).await.unwrap();
        // The claim that nothing follows is what lets an owner unpark a stream.
        let after = read.events.last().map(|queued| QueuedId::of(&queued.event)).or(page.after);
        let next = QueuePage { after, max_events: 1, max_bytes: usize::MAX, ..*page };
        let next = self.parked.read(&self.key, stream, &next).await.unwrap();
        assert_eq!(read.more, !next.events.is_empty(), "{page:?}");
        read.events
    }

    async fn events(&self, stream: &str) -> Vec<Event> {
        self.page(stream, &all(QueueOrder::Ordinal)).await.into_iter().map(|queued| queued.event).collect()
    }

    /// Returns the discarded events of a stream.
    async fn discarded(&self, stream: &str) -> String {
        let queued = self.page(stream, &all(QueueOrder::Index)).await;
        shown(queued.iter().filter(|queued| queued.discarded))
    }

    /// Returns the names of the parked streams.
    async fn names(&self) -> Vec<String> {
        self.parked.load(&self.key).await.unwrap().iter().map(|stream| stream.stream.to_string()).collect()
    }

    async fn mark_of(&self, stream: &str) -> ParkedMark {
        let streams = self.parked.load(&self.key).await.unwrap();
        streams.into_iter().find(|parked| &*parked.stream == stream).unwrap().mark
    }

    async fn due(&self, seconds: i64, most: usize) -> Vec<String> {
        let due = self.parked.due(&self.key, time(seconds), most).await.unwrap();
        due.iter().map(|due| due.stream.to_string()).collect()
    }

    async fn list(&self, query: &ParkedQuery<'_>) -> ParkedPage {
        self.parked.list("g", "s", query).await.unwrap()
    }

    async fn request(&self, action: ParkedAction, job: &str, selection: ParkedSelection<'_>) -> u64 {
        let request = ParkedRequest { action, job, by: "me", at: time(50) };
        self.parked.request("g", "s", &selection, &request).await.unwrap()
    }

    /// Returns the id, streams, due and failed streams of each job.
    async fn jobs(&self) -> Vec<(String, u64, u64, u64)> {
        let jobs = self.parked.jobs("g", "s").await.unwrap();
        jobs.iter().map(|job| (job.id.to_string(), job.streams, job.left, job.failed)).collect()
    }
}

fn all(order: QueueOrder) -> QueuePage {
    QueuePage { order, after: None, max_events: usize::MAX, max_bytes: usize::MAX }
}

fn every() -> ParkedQuery<'static> {
    ParkedQuery { selection: ParkedSelection::default(), after: None, order: ParkedOrder::Name, most: usize::MAX }
}

fn shown<'a>(queued: impl IntoIterator<Item = &'a QueuedEvent>) -> String {
    queued.into_iter().map(|queued| format!("{:?}", queued.event)).collect::<Vec<_>>().join(" ")
}

/// Returns the tranches and names of a page.
fn listed(page: &ParkedPage) -> String {
    let names = page.streams.iter().map(|(tranche, stream)| format!("{tranche}/{}", stream.stream));
    names.collect::<Vec<_>>().join(" ")
}

fn unfold(stream: &str, index: i64, ordinal: u64) -> Event {
    Assembler::new(stream, "State").data(b"{}").build(Kind::Unfold, Ordinal::new(ordinal, 0), index).unwrap()
}

async fn c21_an_event_that_is_parked_twice_is_stored_once_in_order(harness: Harness) {
    let store = claimed(&harness, "0").await;
    let events = [event("a-1", 1, 11), event("a-1", 0, 10), event("b-1", 0, u64::MAX)];
    let broken = malformed(Ordinal::new(12, 3), None, b"{torn", "line 3 is torn");
    for _ in 0..2 {
        store.park(&[&events[0], &events[2], &broken], &mark("failed")).await;
    }
    store.park(&[&events[1], &events[0]], &mark("another")).await;
    let streams = harness.open().parked().unwrap().load(&store.key).await.unwrap();
    let found: Vec<_> =
        streams.iter().map(|parked| (&*parked.stream, parked.first.major, parked.events, parked.bytes)).collect();
    assert_eq!(found, [("", 12, 1, 19), ("a-1", 10, 2, 16), ("b-1", u64::MAX, 1, 8)]);
    let read = store.events("a-1").await;
    assert_eq!(format!("{read:?}"), "[a-1/e0@10.0, a-1/e1@11.0]");
    assert_eq!((read[0].data(), read[0].meta(), read[0].event_type()), (&b"{\"n\":1}"[..], &b"\xff"[..], "Placed"));
    let record = &store.events("").await[0];
    assert_eq!((record.kind(), record.data(), record.meta()), (Kind::Malformed, &b"{torn"[..], &b"line 3 is torn"[..]));
    assert!(store.events("never").await.is_empty());
}

async fn c21_the_first_mark_of_a_stream_stays(harness: Harness) {
    let store = claimed(&harness, "0").await;
    let first = ParkedMark { due: Some(time(9)), job: Some("j".into()), state: ParkedState::Deferred, ..mark("first") };
    store.park(&[&event("a-1", 1, 11)], &first).await;
    store.park(&[&event("a-1", 0, 10)], &mark("second")).await;
    assert_eq!(store.mark_of("a-1").await, first);
}

async fn a_parked_event_is_read_as_it_was(harness: Harness) {
    let store = claimed(&harness, "0").await;
    let gzip = Format { content: ContentType::Json, encoding: Encoding::Gzip };
    let text = Format { content: ContentType::Text, encoding: Encoding::Identity };
    let plain = Assembler::new("a-1", "T").text(Field::Timestamp, "2026-01-02T03:04:05Z").data(b"\0\xff").meta(b"m");
    let rich =
        plain.clone().formats(gzip, text).header("trace", b"\x01").header("", b"").header("trace", b"2").tombstone();
    for (index, assembler) in (0..).zip([plain, rich]) {
        let event = assembler.build(Kind::Event, Ordinal::new(7, index), i64::from(index)).unwrap();
        store.park(&[&event], &mark("failed")).await;
        let read = &store.events("a-1").await[index as usize];
        let shown = |event: &Event| {
            let headers: Vec<_> = event.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            let formats = [event.data_format(), event.meta_format()];
            (headers, formats, event.is_tombstone(), event.time(), event.data().to_vec(), event.meta().to_vec())
        };
        assert_eq!(shown(read), shown(&event));
    }
}

async fn c21_a_stream_is_parked_from_the_smallest_ordinal_that_was_not_handled(harness: Harness) {
    let store = claimed(&harness, "0").await;
    let from = async || {
        let streams = harness.open().parked().unwrap().load(&store.key).await.unwrap();
        streams.iter().map(|parked| (parked.stream.to_string(), parked.first)).collect::<Vec<_>>()
    };
    // Event 1 was read before event 0, which failed. No kept event shows that yet.
    let (first, second, third, other) =
        (event("a-1", 0, 11), event("a-1", 1, 10), event("a-1", 2, 15), event("b-1", 0, 12));
    let (low, failed) = (Ordinal::new(10, 2), mark("failed"));
    let append = async |events: &[(&Event, Ordinal)]| {
        let parked: Vec<_> = events.iter().map(|&(event, from)| Parked { event, from, mark: &failed }).collect();
        store.parked.append(&store.key, store.fence, &parked).await.unwrap();
    };
    append(&[(&first, low), (&other, Ordinal::new(u64::MAX, 7))]).await;
    let kept = || vec![("a-1".to_owned(), low), ("b-1".to_owned(), Ordinal::new(u64::MAX, 7))];
    assert_eq!(from().await, kept());
    // Events appended later do not raise it.
    append(&[(&second, Ordinal::new(13, 0)), (&first, Ordinal::new(14, 0))]).await;
    assert_eq!(from().await, kept());
    append(&[(&third, Ordinal::new(10, 1))]).await;
    assert_eq!(from().await[0].1, Ordinal::new(10, 1));
    append(&[(&third, Ordinal::new(9, 5))]).await;
    assert_eq!(from().await[0].1, Ordinal::new(9, 5));
}

async fn c21_an_older_claim_can_change_no_parked_stream(harness: Harness) {
    let old = claimed(&harness, "0").await;
    let failed = mark("failed");
    old.park_stream("a-1", &failed).await;
    let new = harness.open().claim(&old.key, &owner("b")).await.unwrap().fence;
    let (kept, late) = (event("a-1", 0, 1), event("a-1", 1, 2));
    let append = |fence| old.parked.append(&old.key, fence, &[]);
    let parked = [Parked { event: &late, from: late.at(), mark: &failed }];
    assert_eq!(fenced_by(old.parked.append(&old.key, old.fence, &parked).await), "b");
    let removed = [QueuedId::of(&kept)];
    let updates = [
        ParkedUpdate::Remove { stream: "a-1", events: &removed },
        ParkedUpdate::Mark { stream: "a-1", mark: &mark("another") },
        ParkedUpdate::Unpark { stream: "a-1" },
    ];
    for update in updates {
        assert_eq!(fenced_by(old.parked.update(&old.key, old.fence, &[update]).await), "b");
    }
    assert_eq!((old.events("a-1").await.len(), old.mark_of("a-1").await), (1, failed.clone()));
    assert_eq!(fenced_by(append(old.fence).await), "b", "also without events");
    old.parked.update(&old.key, new, &updates).await.unwrap();
    assert_eq!(old.names().await, [""; 0]);
    let never = key("g", "s", "never");
    assert!(old.parked.append(&never, Fence(1), &parked).await.is_err());
}

async fn a_queue_is_read_by_index_with_unfolds_before_their_successors(harness: Harness) {
    let store = claimed(&harness, "0").await;
    // Read out of order: event 2 came before event 1. The unfold of index 2 belongs to the events below.
    let events =
        [event("a-1", 2, 10), event("a-1", 1, 11), unfold("a-1", 2, 11), unfold("a-1", 3, 12), event("a-1", 2, 12)];
    store.park(&events.iter().collect::<Vec<_>>(), &mark("failed")).await;
    let orders = [
        (QueueOrder::Ordinal, "a-1/e2@10.0 a-1/e1@11.0 a-1/u2@11.0 a-1/e2@12.0 a-1/u3@12.0"),
        (QueueOrder::Index, "a-1/e1@11.0 a-1/u2@11.0 a-1/e2@10.0 a-1/e2@12.0 a-1/u3@12.0"),
    ];
    for (order, expected) in orders {
        let whole = store.page("a-1", &all(order)).await;
        assert_eq!(shown(&whole), expected);
        // From every place, the rest follows.
        for (number, queued) in whole.iter().enumerate() {
            let page = QueuePage { after: Some(QueuedId::of(&queued.event)), ..all(order) };
            assert_eq!(shown(&store.page("a-1", &page).await), shown(&whole[number + 1..]));
        }
    }
}

async fn pages_of_a_queue_end_at_their_limits_and_hold_one_event_at_least(harness: Harness) {
    let store = claimed(&harness, "0").await;
    let events: Vec<_> = (0..5).map(|index| event("a-1", index, index.unsigned_abs())).collect();
    store.park(&events.iter().collect::<Vec<_>>(), &mark("failed")).await;
    // Each event has 8 bytes.
    for (max_events, max_bytes, expected) in [(2, 99, 2), (9, 24, 3), (9, 23, 2), (0, 99, 1), (9, 0, 1), (9, 99, 5)] {
        for order in [QueueOrder::Index, QueueOrder::Ordinal] {
            let read = store.page("a-1", &QueuePage { order, after: None, max_events, max_bytes }).await;
            assert_eq!(read.len(), expected, "{max_events} {max_bytes}");
        }
    }
    // The place after which a page begins may be gone.
    store.update(&[ParkedUpdate::Remove { stream: "a-1", events: &[QueuedId::of(&events[1])] }]).await;
    let page = QueuePage { after: Some(QueuedId::of(&events[1])), ..all(QueueOrder::Index) };
    assert_eq!(shown(&store.page("a-1", &page).await), "a-1/e2@2.0 a-1/e3@3.0 a-1/e4@4.0");
}

async fn handled_events_are_removed_and_the_totals_follow(harness: Harness) {
    let store = claimed(&harness, "0").await;
    let (first, state, second) = (event("a-1", 0, 1), unfold("a-1", 1, 2), event("a-1", 1, 2));
    store.park(&[&first, &state, &second], &mark("failed")).await;
    let gone = [
        QueuedId::of(&first),
        QueuedId { is_unfold: true, ..QueuedId::of(&second) },
        QueuedId::of(&event("a-1", 9, 9)),
    ];
    for _ in 0..2 {
        store.update(&[ParkedUpdate::Remove { stream: "a-1", events: &gone }]).await;
        assert_eq!(format!("{:?}", store.events("a-1").await), "[a-1/e1@2.0]");
        let stream = store.parked.load(&store.key).await.unwrap().remove(0);
        assert_eq!((stream.events, stream.bytes, stream.first), (1, 8, Ordinal::new(1, 0)));
    }
}

async fn a_mark_is_replaced_as_a_whole(harness: Harness) {
    let store = claimed(&harness, "0").await;
    store.park_stream("a-1", &mark("failed")).await;
    let other = ParkedMark {
        state: ParkedState::Deferred,
        class: "deferred".into(),
        why: "not yet".into(),
        index: 7,
        event_type: "Paid".into(),
        since: time(-3),
        attempts: 4,
        version: "v2".into(),
        due: Some(time(8)),
        job: Some("j1".into()),
    };
    for mark in [&other, &mark("again"), &other] {
        let unknown = ParkedUpdate::Mark { stream: "never", mark };
        store.update(&[ParkedUpdate::Mark { stream: "a-1", mark }, unknown]).await;
        assert_eq!(store.mark_of("a-1").await, *mark);
    }
    assert_eq!(store.names().await, ["a-1"]);
}

async fn c21_a_stream_with_events_stays_parked(harness: Harness) {
    let store = claimed(&harness, "0").await;
    let kept = event("a-1", 0, 1);
    store.park(&[&kept], &mark("failed")).await;
    store.update(&[ParkedUpdate::Unpark { stream: "a-1" }, ParkedUpdate::Unpark { stream: "never" }]).await;
    assert_eq!(store.names().await, ["a-1"]);
    store.update(&[ParkedUpdate::Remove { stream: "a-1", events: &[QueuedId::of(&kept)] }]).await;
    let empty = store.parked.load(&store.key).await.unwrap().remove(0);
    assert_eq!((&*empty.stream, empty.events, empty.bytes, empty.mark), ("a-1", 0, 0, mark("failed")));
    store.update(&[ParkedUpdate::Unpark { stream: "a-1" }]).await;
    assert_eq!(claimed(&harness, "0").await.names().await, [""; 0]);
    // Parked again, it has a new mark and a new first ordinal.
    let store = claimed(&harness, "0").await;
    store.park(&[&event("a-1", 5, 9)], &mark("again")).await;
    let again = store.parked.load(&store.key).await.unwrap().remove(0);
    assert_eq!((again.first, &*again.mark.why), (Ordinal::new(9, 0), "again"));
}

async fn streams_of_other_keys_are_untouched(harness: Harness) {
    let (store, tranche) = (claimed(&harness, "0").await, claimed(&harness, "1").await);
    store.park_stream("a-1", &mark("failed")).await;
    tranche.park_stream("a-1", &mark("failed")).await;
    let other = key("other", "s", "0");
    let fence = harness.open().claim(&other, &owner("a")).await.unwrap().fence;
    let other = Claimed { parked: Arc::clone(&store.parked), key: other, fence };
    other.park_stream("a-1", &mark("failed")).await;
    let gone = [QueuedId::of(&event("a-1", 0, 1))];
    store
        .update(&[ParkedUpdate::Remove { stream: "a-1", events: &gone }, ParkedUpdate::Unpark { stream: "a-1" }])
        .await;
    assert_eq!(store.request(ParkedAction::DiscardAll, "j", ParkedSelection::default()).await, 1);
    assert_eq!((store.names().await.len(), tranche.names().await.len(), other.names().await.len()), (0, 1, 1));
    assert_eq!((tranche.discarded("a-1").await, other.discarded("a-1").await), ("a-1/e0@1.0".into(), String::new()));
}

async fn due_streams_come_by_their_times_up_to_the_limit(harness: Harness) {
    let store = claimed(&harness, "0").await;
    for (stream, due) in [("a-1", Some(9)), ("b-1", Some(3)), ("c-1", None), ("d-1", Some(3))] {
        store.park_stream(stream, &ParkedMark { due: due.map(time), ..mark("failed") }).await;
    }
    claimed(&harness, "1").await.park_stream("e-1", &ParkedMark { due: Some(time(1)), ..mark("failed") }).await;
    assert_eq!(store.due(2, 9).await, [""; 0]);
    assert_eq!(store.due(3, 9).await, ["b-1", "d-1"]);
    assert_eq!(store.due(9, 9).await, ["b-1", "d-1", "a-1"]);
    assert_eq!(store.due(9, 1).await, ["b-1"]);
    store.update(&[ParkedUpdate::Mark { stream: "b-1", mark: &mark("again") }]).await;
    let due = store.parked.due(&store.key, time(8), 9).await.unwrap();
    let marked = ParkedMark { due: Some(time(3)), ..mark("failed") };
    assert_eq!(due, [DueStream { stream: "d-1".into(), mark: marked }]);
}

async fn lists_go_by_tranche_and_name_in_pages_with_totals(harness: Harness) {
    for tranche in ["1", "0", "10"] {
        let store = claimed(&harness, tranche).await;
        for stream in ["b-1", "a-1", "b"] {
            store.park(&[&event(stream, 0, 1), &event(stream, 1, 2)], &mark("failed")).await;
        }
    }
    let store = claimed(&harness, "2").await;
    let names = "0/a-1 0/b 0/b-1 1/a-1 1/b 1/b-1 10/a-1 10/b 10/b-1";
    let whole = store.list(&every()).await;
    assert_eq!((&*listed(&whole), whole.more), (names, false));
    let first = &whole.streams[0].1;
    assert_eq!((first.events, first.bytes, &first.mark), (2, 16, &mark("failed")));
    let (mut pages, mut after) = (Vec::new(), None::<(String, String)>);
    loop {
        let place = after.as_ref().map(|(tranche, stream)| (&**tranche, &**stream));
        let page = store.list(&ParkedQuery { after: place, most: 4, ..every() }).await;
        assert_eq!((page.total_streams, page.total_events, page.total_bytes), (9, 18, 144));
        pages.push(listed(&page));
        let (tranche, stream) = page.streams.last().unwrap();
        after = Some((tranche.to_string(), stream.stream.to_string()));
        if !page.more {
            break;
        }
    }
    assert_eq!(pages.iter().map(|page| page.split(' ').count()).collect::<Vec<_>>(), [4, 4, 1]);
    assert_eq!(pages.join(" "), names);
    let exact = store.list(&ParkedQuery { most: 9, ..every() }).await;
    assert!(!exact.more);
    assert_eq!(store.parked.list("other", "s", &every()).await.unwrap().total_streams, 0);
}

async fn lists_by_due_time_end_with_the_streams_that_have_none(harness: Harness) {
    let store = claimed(&harness, "0").await;
    for (stream, due) in [("a-1", Some(9)), ("b-1", None), ("c-1", Some(3)), ("d-1", Some(3))] {
        store.park_stream(stream, &ParkedMark { due: due.map(time), ..mark("failed") }).await;
    }
    let page = store.list(&ParkedQuery { order: ParkedOrder::Due, ..every() }).await;
    assert_eq!(listed(&page), "0/c-1 0/d-1 0/a-1 0/b-1");
    let page = store.list(&ParkedQuery { order: ParkedOrder::Due, most: 2, ..every() }).await;
    assert_eq!((listed(&page), page.more, page.total_streams), ("0/c-1 0/d-1".to_owned(), true, 4));
}

async fn c32_each_field_of_a_selection_excludes_streams(harness: Harness) {
    let store = claimed(&harness, "0").await;
    store.park_stream("order-1", &mark("no such customer")).await;
    store.park_stream("order-2", &ParkedMark { event_type: "Paid".into(), ..mark("torn 100%") }).await;
    store.park_stream("order", &ParkedMark { class: "exception".into(), version: "v2".into(), ..mark("x") }).await;
    store.park_stream("-order-3", &ParkedMark { since: time(5), ..mark("y") }).await;
    store.park_stream("cart-1", &ParkedMark { state: ParkedState::Deferred, version: "".into(), ..mark("z") }).await;
    let record = malformed(Ordinal::new(12, 3), None, b"{torn", "line 3 is torn");
    claimed(&harness, "1").await.park(&[&record], &ParkedMark { since: time(9), ..mark("'quoted'") }).await;
    let every = ParkedSelection::default();
    type Selection = ParkedSelection<'static>;
    let selections: [(Selection, &str); 17] = [
        (every, "0/-order-3 0/cart-1 0/order 0/order-1 0/order-2 1/"),
        (Selection { state: Some(ParkedState::Deferred), ..every }, "0/cart-1"),
        (Selection { tranche: Some("1"), ..every }, "1/"),
        (Selection { stream: Some("order"), ..every }, "0/order"),
        (Selection { stream: Some(""), ..every }, "1/"),
        (Selection { category: Some("order"), ..every }, "0/order 0/order-1 0/order-2"),
        (Selection { category: Some("order-3"), ..every }, "0/-order-3"),
        (Selection { category: Some(""), ..every }, "1/"),
        (Selection { event_type: Some("Paid"), ..every }, "0/order-2"),
        (Selection { error: Some("customer"), ..every }, "0/order-1"),
        (Selection { error: Some("100%"), ..every }, "0/order-2"),
        (Selection { error: Some("exception"), ..every }, "0/order"),
        (Selection { error: Some("excep"), ..every }, ""),
        (Selection { error: Some("'"), ..every }, "1/"),
        (
            Selection { until: Some(time(5)), tranche: None, state: Some(ParkedState::Failed), ..every },
            "0/-order-3 0/order 0/order-1 0/order-2",
        ),
        (Selection { other_version_than: Some("v1"), ..every }, "0/cart-1 0/order"),
        (
            Selection { category: Some("order"), event_type: Some("Placed"), other_version_than: Some("v2"), ..every },
            "0/order-1",
        ),
    ];
    for (selection, expected) in selections {
        let page = store.list(&ParkedQuery { selection, ..self::every() }).await;
        assert_eq!(listed(&page), expected, "{selection:?}");
        let streams = expected.split(' ').filter(|name| !name.is_empty()).count() as u64;
        assert_eq!((page.total_streams, page.total_events), (streams, streams), "{selection:?}");
    }
}

async fn a_retry_makes_the_selected_streams_due(harness: Harness) {
    let store = claimed(&harness, "0").await;
    for stream in ["a-1", "a-2", "b-1"] {
        store.park_stream(stream, &ParkedMark { due: Some(time(99)), ..mark("failed") }).await;
    }
    let selection = ParkedSelection { category: Some("a"), ..ParkedSelection::default() };
    assert_eq!(store.request(ParkedAction::Retry, "j1", selection).await, 2);
    assert_eq!(store.due(50, 9).await, ["a-1", "a-2"]);
    let marked = ParkedMark { due: Some(time(50)), job: Some("j1".into()), ..mark("failed") };
    assert_eq!(store.mark_of("a-1").await, marked);
    assert_eq!(store.discarded("a-1").await, "");
    assert_eq!(store.request(ParkedAction::Retry, "j2", ParkedSelection { stream: Some("c-1"), ..selection }).await, 0);
}

async fn a_discard_marks_the_event_at_fault(harness: Harness) {
    let store = claimed(&harness, "0").await;
    // By ordinal, event 1 is the first. By index it is event 0, and its unfold is none.
    let events =
        [event("a-1", 1, 10), unfold("a-1", 0, 9), event("a-1", 0, 11), event("a-2", 0, 1), event("a-2", 1, 2)];
    store.park(&events.iter().collect::<Vec<_>>(), &mark("failed")).await;
    let selection = ParkedSelection { stream: Some("a-1"), ..ParkedSelection::default() };
    for job in ["j1", "j2"] {
        // A repeat before the owner has removed the event takes no second one.
        assert_eq!(store.request(ParkedAction::DiscardFirst, job, selection).await, 1);
        assert_eq!(store.discarded("a-1").await, "a-1/e0@11.0");
    }
    assert_eq!((store.discarded("a-2").await, store.due(50, 9).await), (String::new(), vec!["a-1".to_owned()]));
}

async fn a_discard_of_the_only_event_takes_its_unfolds_along(harness: Harness) {
    let store = claimed(&harness, "0").await;
    store.park(&[&event("a-1", 0, 1), &unfold("a-1", 1, 1), &unfold("b-1", 4, 2)], &mark("failed")).await;
    assert_eq!(store.request(ParkedAction::DiscardFirst, "j1", ParkedSelection::default()).await, 2);
    assert_eq!(store.discarded("a-1").await, "a-1/e0@1.0 a-1/u1@1.0");
    assert_eq!(store.discarded("b-1").await, "b-1/u4@2.0");
}

async fn a_discard_of_all_marks_the_events_that_are_parked_now(harness: Harness) {
    let store = claimed(&harness, "0").await;
    store.park(&[&event("a-1", 0, 1), &event("a-1", 1, 2), &event("b-1", 0, 3)], &mark("failed")).await;
    let selection = ParkedSelection { stream: Some("a-1"), ..ParkedSelection::default() };
    assert_eq!(store.request(ParkedAction::DiscardAll, "j1", selection).await, 1);
    // An event that is parked later, and one that is parked again.
    store.park(&[&event("a-1", 2, 4), &event("a-1", 0, 1)], &mark("failed")).await;
    assert_eq!(store.discarded("a-1").await, "a-1/e0@1.0 a-1/e1@2.0");
    assert_eq!((store.discarded("b-1").await, store.events("a-1").await.len()), (String::new(), 3));
}

async fn a_request_reaches_deferred_streams_only_by_their_state(harness: Harness) {
    let store = claimed(&harness, "0").await;
    store.park_stream("a-1", &mark("failed")).await;
    store.park_stream("b-1", &ParkedMark { state: ParkedState::Deferred, due: Some(time(99)), ..mark("later") }).await;
    let every = ParkedSelection::default();
    assert_eq!(store.request(ParkedAction::DiscardAll, "j1", every).await, 1);
    assert_eq!((store.due(50, 9).await, store.discarded("b-1").await), (vec!["a-1".to_owned()], String::new()));
    let deferred = ParkedSelection { state: Some(ParkedState::Deferred), ..every };
    assert_eq!(store.request(ParkedAction::Retry, "j2", deferred).await, 1);
    assert_eq!(store.due(50, 9).await, ["a-1", "b-1"]);
    assert_eq!(&*store.mark_of("a-1").await.job.unwrap(), "j1");
}

async fn jobs_count_the_streams_that_are_due_and_those_that_failed_again(harness: Harness) {
    let store = claimed(&harness, "0").await;
    for stream in ["a-1", "a-2", "a-3"] {
        store.park_stream(stream, &mark("failed")).await;
    }
    assert_eq!(store.jobs().await, []);
    store.request(ParkedAction::Retry, "j1", ParkedSelection::default()).await;
    assert_eq!(store.jobs().await, [("j1".to_owned(), 3, 3, 0)]);
    // One is handled, and one fails again.
    let gone = [QueuedId::of(&event("a-1", 0, 1))];
    let again = ParkedMark { job: Some("j1".into()), ..mark("again") };
    store
        .update(&[
            ParkedUpdate::Remove { stream: "a-1", events: &gone },
            ParkedUpdate::Unpark { stream: "a-1" },
            ParkedUpdate::Mark { stream: "a-2", mark: &again },
        ])
        .await;
    assert_eq!(store.jobs().await, [("j1".to_owned(), 3, 1, 1)]);
    // A later job takes the stream that failed again over.
    let selection = ParkedSelection { error: Some("again"), ..ParkedSelection::default() };
    store.request(ParkedAction::DiscardFirst, "j2", selection).await;
    assert_eq!(store.jobs().await, [("j2".to_owned(), 1, 1, 0), ("j1".to_owned(), 3, 1, 0)]);
    let job = claimed(&harness, "0").await.parked.jobs("g", "s").await.unwrap().remove(0);
    assert_eq!((job.action, &*job.by, job.at), (ParkedAction::DiscardFirst, "me", time(50)));
}

async fn the_last_jobs_are_kept_by_group_and_source(harness: Harness) {
    let store = claimed(&harness, "0").await;
    // A request that selects nothing leaves no job.
    assert_eq!(store.request(ParkedAction::Retry, "nothing", ParkedSelection::default()).await, 0);
    store.park(&[&event("a-1", 0, 1)], &mark("failed")).await;
    for number in 0..KEPT_JOBS + 3 {
        store.request(ParkedAction::Retry, &format!("j{number}"), ParkedSelection::default()).await;
    }
    let jobs = store.jobs().await;
    assert_eq!(jobs.len(), KEPT_JOBS);
    assert_eq!([&*jobs[0].0, &*jobs[KEPT_JOBS - 1].0], [&*format!("j{}", KEPT_JOBS + 2), "j3"]);
    assert_eq!(store.parked.jobs("other", "s").await.unwrap().len(), 0);
}

async fn an_edit_replaces_parts_of_a_body(harness: Harness) {
    let store = claimed(&harness, "0").await;
    let gzip = Format { content: ContentType::Json, encoding: Encoding::Gzip };
    let fields = Assembler::new("a-1", "Placed").text(Field::Id, "i").text(Field::Timestamp, "2026-01-02T03:04:05Z");
    let fields = fields.data(b"\x1f\x8b").meta(b"m").formats(gzip, gzip).header("h", b"1");
    let kept = fields.build(Kind::Event, Ordinal::new(7, 2), 4).unwrap();
    store.park(&[&kept, &event("a-1", 5, 8)], &mark("failed")).await;
    let id = QueuedId::of(&kept);
    let edit = async |id: QueuedId, data: Option<&[u8]>, meta: Option<&[u8]>| {
        store.parked.edit(&store.key, "a-1", &id, NewBody { data, meta }).await.unwrap()
    };
    assert!(!edit(QueuedId { is_unfold: true, ..id }, Some(b"{}"), None).await);
    assert!(!edit(QueuedId { index: 9, ..id }, Some(b"{}"), None).await);
    assert!(edit(id, None, None).await);
    assert_eq!(store.events("a-1").await[0].data_format(), gzip);
    assert!(edit(id, Some(b"{\"n\":22}"), None).await);
    let read = store.events("a-1").await.remove(0);
    assert_eq!((read.data(), read.meta()), (&b"{\"n\":22}"[..], &b"m"[..]));
    assert_eq!([read.data_format(), read.meta_format()], [Format::default(), gzip]);
    assert_eq!((read.event_type(), read.text(Field::Id), read.time()), ("Placed", "i", kept.time()));
    assert_eq!(read.headers().collect::<Vec<_>>(), [("h", &b"1"[..])]);
    assert!(edit(id, None, Some(b"")).await);
    let read = store.events("a-1").await.remove(0);
    assert_eq!((read.meta(), read.meta_format()), (&b""[..], Format::default()));
    let stream = store.parked.load(&store.key).await.unwrap().remove(0);
    assert_eq!((stream.events, stream.bytes), (2, 8 + 8 + kept.headers().encoded().len() as u64));
    // The replaced body survives a repeated append (C21).
    store.park(&[&kept], &mark("failed")).await;
    assert_eq!(store.events("a-1").await[0].data(), b"{\"n\":22}");
}

/// Lists, retries and discards many parked streams of 10 events.
/// `PROPULSIOND_MEASURE=1 cargo test --release --test it many_parked -- --nocapture` takes 10,000 streams and prints the times.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are for a person")]
async fn many_parked_streams_are_listed_retried_and_discarded_in_sqlite() {
    let streams = if std::env::var_os("PROPULSIOND_MEASURE").is_some() { 10_000 } else { 200 };
    let clock = Clock::start();
    let store = claimed(&Harness::sqlite(), "0").await;
    let failed = mark("no such customer: 404 of https://example.org/customers/17 after 5 attempts");
    let body = [b'x'; 1_000];
    let elapsed = async |doing: &str, work: &mut (dyn Future<Output = usize> + Unpin)| {
        let begun = clock.now();
        let count = work.await;
        println!("{doing}: {count} in {:?}", clock.now().since(begun));
    };
    let build = |stream: usize, index: i64| {
        let event = Assembler::new(&format!("order-{stream:05}"), "Placed").data(&body);
        event.build(Kind::Event, Ordinal::new(stream as u64 * 10 + index.unsigned_abs(), 0), index).unwrap()
    };
    let append = async {
        for hundred in 0..streams / 100 {
            let events: Vec<_> =
                (0..1_000).map(|number| build(hundred * 100 + number / 10, number as i64 % 10)).collect();
            store.park(&events.iter().collect::<Vec<_>>(), &failed).await;
        }
        streams * 10
    };
    elapsed("append", &mut Box::pin(append)).await;
    let every = ParkedQuery { most: 100, ..every() };
    let of = |selection| ParkedQuery { selection, ..every };
    let selection = ParkedSelection::default();
    let queries = [
        ("first page", every),
        ("middle page", ParkedQuery { after: Some(("0", "order-05000")), ..every }),
        ("page by due time", ParkedQuery { order: ParkedOrder::Due, ..every }),
        ("page of a category", of(ParkedSelection { category: Some("order"), ..selection })),
        ("page of an error", of(ParkedSelection { error: Some("404"), ..selection })),
        ("page of no error", of(ParkedSelection { error: Some("never"), ..selection })),
        ("page of a stream", of(ParkedSelection { stream: Some("order-07777"), ..selection })),
    ];
    for (doing, query) in queries {
        for _ in 0..2 {
            elapsed(doing, &mut Box::pin(async { store.list(&query).await.streams.len() })).await;
        }
    }
    elapsed("load", &mut Box::pin(async { store.names().await.len() })).await;
    for (action, job) in
        [(ParkedAction::Retry, "j1"), (ParkedAction::DiscardFirst, "j2"), (ParkedAction::DiscardAll, "j3")]
    {
        let request = async {
            let selected = store.request(action, job, ParkedSelection::default()).await;
            assert_eq!(selected, streams as u64, "{job}");
            streams
        };
        elapsed(job, &mut Box::pin(request)).await;
        elapsed("jobs", &mut Box::pin(async { store.jobs().await.len() })).await;
    }
    elapsed("due", &mut Box::pin(async { store.due(99, 100).await.len() })).await;
    let large: Vec<_> = (10..1_010).map(|index| build(0, index)).collect();
    store.park(&large.iter().collect::<Vec<_>>(), &failed).await;
    let page = QueuePage { order: QueueOrder::Index, after: None, max_events: 100, max_bytes: usize::MAX };
    elapsed("read", &mut Box::pin(async { store.page("order-00000", &page).await.len() })).await;
    let ids: Vec<_> = large.iter().map(QueuedId::of).collect();
    let remove = async {
        store.update(&[ParkedUpdate::Remove { stream: "order-00000", events: &ids }]).await;
        ids.len()
    };
    elapsed("remove", &mut Box::pin(remove)).await;
    assert_eq!(store.list(&every).await.total_events, streams as u64 * 10);
}
