//! The contract of every source.
//!
//! Each case gets a harness whose feed holds events of several streams, in more batches than one.
//!
//! A new source adds its harness to `feeds`, and a line to the list at the end of this file. A source that cannot do a thing,
//! such as failing on demand, leaves the default of that method.
//!
//! Source `stdin` has no line here: a pipe cannot be read again, which most cases do. `tests/it/foreign.rs` runs it.

mod feeds;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use propulsiond::event::Event;
use propulsiond::position::{Position, StartAt, TrancheId};
use propulsiond::source::{Batch, Changes, Left, Next, Room, Source, SourceErrorKind, TrancheChange, TrancheReader};

use feeds::{Generated, Json, Memory};

/// A feed, and the changes that a case can make to it.
trait Harness {
    /// Makes a source over the feed, as a new process does.
    fn source(&mut self) -> Arc<dyn Source>;

    /// Returns the number of events in the feed.
    fn count(&self) -> usize;

    /// Removes all events from the feed before it is read.
    fn clear(&mut self);

    /// Appends `count` events; returns whether the feed supports that.
    fn append(&mut self, _count: usize) -> bool {
        false
    }

    /// Makes reads of a tranche fail until [`repair`](Self::repair); returns whether the feed supports that.
    fn break_down(&mut self, _tranche: &TrancheId) -> bool {
        false
    }

    fn repair(&mut self) {}

    /// Revokes a tranche and assigns it again, while a source watches; returns whether the feed supports that. A feed whose
    /// tranches come and go by themselves returns true.
    fn reassign(&mut self, _tranche: &TrancheId) -> bool {
        false
    }

    /// Removes a position behind the first batch from the feed, and returns that position. A feed that loses none returns
    /// a position that the source never made.
    fn lose(&mut self, _behind_first: Position) -> Position {
        Position::token("another source's")
    }
}

/// The batches of each tranche, up to its tail.
type Feed = BTreeMap<TrancheId, Vec<Batch>>;

/// Waits for a future, and fails after a limit.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("this should have come to an end long ago")
}

async fn tranches(source: &dyn Source) -> Vec<TrancheId> {
    assignments(source).await.into_iter().map(|(tranche, _)| tranche).collect()
}

/// Watches the source until it has reported every tranche. Returns them with the number of the assignment.
async fn assignments(source: &dyn Source) -> Vec<(TrancheId, u64)> {
    let (changes, mut reported) = Changes::channel();
    let mut found = Vec::new();
    let receive = async {
        while let Some(change) = reported.recv().await {
            match change {
                TrancheChange::Added { tranche, epoch, .. } => found.push((tranche, epoch)),
                TrancheChange::Settled => return,
                other => panic!("no tranche was revoked: {other:?}"),
            }
        }
    };
    let watch = async {
        source.watch(&changes).await.unwrap();
        std::future::pending::<()>().await;
    };
    soon(async {
        tokio::select! {
            () = receive => {}
            () = watch => unreachable!("it waits for ever"),
        }
    })
    .await;
    found
}

/// Reads up to the tail, including the batch that reports it.
async fn to_tail(reader: &mut Box<dyn TrancheReader>) -> Vec<Batch> {
    let mut batches = Vec::new();
    while batches.last().is_none_or(|batch: &Batch| !batch.at_tail) {
        match soon(reader.next(Room::UNLIMITED)).await.unwrap() {
            Next::Batch(batch) => batches.push(batch),
            Next::End => panic!("the tail was not reported before the end"),
        }
    }
    batches
}

async fn read_all(harness: &mut impl Harness) -> Feed {
    let source = harness.source();
    let mut feed = Feed::new();
    for tranche in tranches(&*source).await {
        let mut reader = source.open(&tranche, StartAt::Origin, None);
        feed.insert(tranche, to_tail(&mut reader).await);
    }
    feed
}

fn events(batches: &[Batch]) -> impl Iterator<Item = &Event> {
    batches.iter().flat_map(|batch| &batch.events)
}

/// The parts of an event that a case compares.
fn show(event: &Event) -> String {
    format!("{event:?} {} {}", event.event_type(), String::from_utf8_lossy(event.data()))
}

fn shown(batches: &[Batch]) -> Vec<String> {
    events(batches).map(show).collect()
}

async fn names_every_tranche_once_and_then_says_so(mut harness: impl Harness) {
    let source = harness.source();
    let mut found = tranches(&*source).await;
    assert!(!found.is_empty());
    let count = found.len();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), count);
}

async fn makes_no_second_assignment_when_it_is_watched_again(mut harness: impl Harness) {
    let source = harness.source();
    let first = assignments(&*source).await;
    let (changes, mut reported) = Changes::channel();
    // A second watch may repeat assignments under their numbers; it makes no new ones.
    let _ended = tokio::time::timeout(Duration::from_millis(100), source.watch(&changes)).await;
    while let Ok(change) = reported.try_recv() {
        match change {
            TrancheChange::Added { tranche, epoch, .. } => assert!(first.contains(&(tranche, epoch))),
            TrancheChange::Settled => {}
            other => panic!("no tranche was revoked: {other:?}"),
        }
    }
}

/// Receives the changes of a tranche that follow an assignment, up to its next one. Returns the limit for its drain, if it
/// was revoked, and the number of the next assignment.
async fn next_assignment(source: &dyn Source, tranche: &TrancheId) -> (Option<Duration>, u64) {
    let (changes, mut reported) = Changes::channel();
    let receive = async {
        let mut revoked = None;
        while let Some(change) = reported.recv().await {
            match change {
                TrancheChange::Removed { tranche: of, within } if of == *tranche => revoked = Some(within),
                TrancheChange::Added { tranche: of, epoch, .. } if of == *tranche && revoked.is_some() => {
                    return (revoked, epoch);
                }
                _ => {}
            }
        }
        unreachable!("the sender lives as long as the receiver")
    };
    soon(async {
        tokio::select! {
            biased;
            assigned = receive => assigned,
            ended = source.watch(&changes) => panic!("changes are missing: {ended:?}"),
        }
    })
    .await
}

async fn r91_a_tranche_that_comes_back_has_a_greater_number_and_resumes(mut harness: impl Harness) {
    let feed = read_all(&mut harness).await;
    let source = harness.source();
    let (tranche, first) = assignments(&*source).await.remove(0);
    let mut reader = source.open(&tranche, StartAt::Origin, None);
    let Next::Batch(batch) = soon(reader.next(Room::UNLIMITED)).await.unwrap() else { panic!("no batch") };
    if !harness.reassign(&tranche) {
        return;
    }
    let (_, second) = next_assignment(&*source, &tranche).await;
    assert!(second > first, "{second} follows {first}");
    // The pipeline drops the reader and ends the first assignment while the source has reported the second one.
    drop(reader);
    source.left(&tranche, first, Left::Released);
    let from = StartAt::Position(batch.resume_at);
    let rest = to_tail(&mut source.open(&tranche, from, None)).await;
    assert_eq!(shown(&rest), shown(&feed[&tranche][1..]));
    source.left(&tranche, second, Left::Released);
    soon(source.close()).await;
}

async fn reads_all_there_is_and_reports_the_tail_behind_it(mut harness: impl Harness) {
    let feed = read_all(&mut harness).await;
    assert_eq!(feed.values().flat_map(|batches| events(batches)).count(), harness.count());
    for batches in feed.values() {
        assert!(batches.len() > 1, "the harness makes several batches");
        assert!(batches[..batches.len() - 1].iter().all(|batch| !batch.at_tail));
    }
}

async fn r30_reports_the_tail_of_an_empty_feed_at_once(mut harness: impl Harness) {
    harness.clear();
    let source = harness.source();
    let found = tranches(&*source).await;
    for tranche in found {
        let mut reader = source.open(&tranche, StartAt::Origin, None);
        let batches = to_tail(&mut reader).await;
        assert_eq!(events(&batches).count(), 0);
        // A reader can resume at that position.
        let resume_at = batches.last().unwrap().resume_at.clone();
        to_tail(&mut source.open(&tranche, StartAt::Position(resume_at), None)).await;
    }
}

async fn reads_what_comes_after_the_tail(mut harness: impl Harness) {
    let source = harness.source();
    let mut readers = Vec::new();
    for tranche in tranches(&*source).await {
        let mut reader = source.open(&tranche, StartAt::Origin, None);
        let last = to_tail(&mut reader).await.pop().unwrap();
        readers.push((tranche, reader, last.resume_at));
    }
    let before = harness.count();
    if !harness.append(3) {
        return;
    }
    let added = harness.count() - before;
    let (mut seen, mut seen_later) = (0, 0);
    let later = harness.source();
    tranches(&*later).await;
    soon(async {
        while seen < added {
            for (_, reader, _) in &mut readers {
                let next = tokio::time::timeout(Duration::from_millis(50), reader.next(Room::UNLIMITED)).await;
                if let Ok(Ok(Next::Batch(batch))) = next {
                    seen += batch.events.len();
                }
            }
        }
    })
    .await;
    for (tranche, _, resume_at) in readers {
        let mut reader = later.open(&tranche, StartAt::Position(resume_at), None);
        seen_later += events(&to_tail(&mut reader).await).count();
    }
    assert_eq!((seen, seen_later), (added, added));
}

async fn resumes_exactly_behind_every_batch(mut harness: impl Harness) {
    let feed = read_all(&mut harness).await;
    for (tranche, batches) in &feed {
        for read in 1..=batches.len() {
            let source = harness.source();
            tranches(&*source).await;
            let from = StartAt::Position(batches[read - 1].resume_at.clone());
            let rest = to_tail(&mut source.open(tranche, from, None)).await;
            assert_eq!(shown(&rest), shown(&batches[read..]));
        }
    }
}

async fn keeps_the_order_within_a_stream(mut harness: impl Harness) {
    for batches in read_all(&mut harness).await.into_values() {
        let mut next: HashMap<&str, i64> = HashMap::new();
        for event in events(&batches) {
            let expected = next.entry(event.stream()).or_default();
            assert!(event.index() <= *expected, "{event:?} came before {expected}");
            *expected = (*expected).max(event.next_index());
        }
    }
}

async fn c1_ordinals_ascend_and_denote_the_same_event_when_read_again(mut harness: impl Harness) {
    if !harness.source().contract().ordinals {
        return;
    }
    let first = read_all(&mut harness).await;
    let again = read_all(&mut harness).await;
    for (tranche, batches) in &first {
        let ordinals: Vec<_> = events(batches).map(Event::at).collect();
        assert!(ordinals.is_sorted_by(|a, b| a < b), "{ordinals:?}");
        assert_eq!(shown(batches), shown(&again[tranche]));
    }
}

/// Polls a future a few times, lets other tasks run in between, then drops it.
async fn interrupted<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = std::pin::pin!(future);
    for _ in 0..=polls {
        if let std::task::Poll::Ready(done) = futures_util::poll!(&mut future) {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn loses_no_event_when_a_read_is_dropped(mut harness: impl Harness) {
    let expected = read_all(&mut harness).await;
    let mut random = fastrand::Rng::with_seed(7);
    let source = harness.source();
    for tranche in tranches(&*source).await {
        let mut reader = source.open(&tranche, StartAt::Origin, None);
        let mut batches: Vec<Batch> = Vec::new();
        soon(async {
            while batches.last().is_none_or(|batch| !batch.at_tail) {
                if let Some(next) = interrupted(reader.next(Room::UNLIMITED), random.usize(0..4)).await {
                    match next.unwrap() {
                        Next::Batch(batch) => batches.push(batch),
                        Next::End => break,
                    }
                }
            }
        })
        .await;
        assert_eq!(shown(&batches), shown(&expected[&tranche]));
    }
}

async fn goes_on_after_an_error(mut harness: impl Harness) {
    let expected = read_all(&mut harness).await;
    let source = harness.source();
    for tranche in tranches(&*source).await {
        if !harness.break_down(&tranche) {
            return;
        }
        let mut reader = source.open(&tranche, StartAt::Origin, None);
        let error = soon(reader.next(Room::UNLIMITED)).await.expect_err("it broke down");
        assert_eq!(error.kind, SourceErrorKind::Unavailable);
        assert!(!error.to_string().is_empty());
        harness.repair();
        assert_eq!(shown(&to_tail(&mut reader).await), shown(&expected[&tranche]));
    }
}

async fn r82_a_position_that_no_longer_exists_is_an_error_and_stays_one(mut harness: impl Harness) {
    let feed = read_all(&mut harness).await;
    let (tranche, batches) = feed.first_key_value().unwrap();
    let lost = harness.lose(batches[0].resume_at.clone());
    let source = harness.source();
    tranches(&*source).await;
    let mut reader = source.open(tranche, StartAt::Position(lost), None);
    for _ in 0..3 {
        let error = soon(reader.next(Room::UNLIMITED)).await.expect_err("the position is gone");
        assert_eq!(error.kind, SourceErrorKind::PositionLost, "{error}");
    }
}

async fn ends_promptly_while_it_waits(mut harness: impl Harness) {
    let source = harness.source();
    let mut readers = Vec::new();
    for tranche in tranches(&*source).await {
        let mut reader = source.open(&tranche, StartAt::Origin, None);
        to_tail(&mut reader).await;
        let _waiting = interrupted(reader.next(Room::UNLIMITED), 3).await;
        readers.push(reader);
    }
    let (changes, _reported) = Changes::channel();
    let _waiting = interrupted(source.watch(&changes), 3).await;
    soon(source.close()).await;
    drop((readers, source));
}

/// Makes a test of every case, for each feed.
macro_rules! contract {
    ($($feed:ident: $harness:expr;)*) => {
        $(mod $feed {
            use super::*;
            contract!(@cases $harness,
                names_every_tranche_once_and_then_says_so,
                makes_no_second_assignment_when_it_is_watched_again,
                r91_a_tranche_that_comes_back_has_a_greater_number_and_resumes,
                reads_all_there_is_and_reports_the_tail_behind_it,
                r30_reports_the_tail_of_an_empty_feed_at_once,
                reads_what_comes_after_the_tail,
                resumes_exactly_behind_every_batch,
                keeps_the_order_within_a_stream,
                c1_ordinals_ascend_and_denote_the_same_event_when_read_again,
                loses_no_event_when_a_read_is_dropped,
                goes_on_after_an_error,
                r82_a_position_that_no_longer_exists_is_an_error_and_stays_one,
                ends_promptly_while_it_waits,
            );
        })*
    };
    (@cases $harness:expr, $($case:ident,)*) => {
        $(#[tokio::test]
        async fn $case() {
            super::$case($harness).await;
        })*
    };
}

contract! {
    json_file: Json::file();
    json_folder: Json::folder();
    json_tranche_per_file: Json::tranche_per_file();
    json_gzip: Json::gzip();
    json_table: Json::table();
    generate: Generated::new();
    memory: Memory::new();
}
