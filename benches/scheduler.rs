//! The cost of the scheduler by itself, beside a floor measured in the same run.
//!
//! `cargo bench --bench scheduler`. Seeds are fixed, and figures are medians of five. Times count only while the thread is
//! on a core, without the creation of the events. The scheduler is new and cold, a tranche reads ten batches of 1,000
//! events ahead (or all of them), and 64 calls are in flight at a time. The ordinary case is "1M events on 100k streams":
//! ten events a stream, interleaved.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use propulsiond::clock::Timestamp;
use propulsiond::event::{Event, EventBuilder, Indexes, Kind, Text};
use propulsiond::position::{Ordinal, Position, TrancheId};
use propulsiond::scheduler::{IngestBatch, Options, Order, Outcome, Scheduler};

const BATCH: usize = 1000;
const OUT: usize = 64;
const RUNS: usize = 5;
const NOW: Timestamp = Timestamp::from_millis(1);

fn main() {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let wanted = |what: &str| only.as_ref().is_none_or(|only| what.contains(only.as_str()));
    let streams: Vec<_> = (0..100_000).map(|number| (name(number), 0)).collect();
    if wanted("idle") {
        idle();
    }
    let measure = |what: &str, events: &[(String, i64)], tranches, read_ahead| {
        if wanted(what) {
            compare(what, &streams, events.len(), || run(events, tranches, read_ahead));
        }
    };
    measure("100k streams, one event each, 1 tranche", &streams, 1, 10);
    measure("100k streams, one event each, 4 tranches", &streams, 4, 10);
    measure("100k streams, one event each, 64 tranches", &streams, 64, 10);
    measure("100k streams, one event each, 1 tranche, all read first", &streams, 1, usize::MAX);
    measure("100k streams, one event each, 64 tranches, all read first", &streams, 64, usize::MAX);
    let uniform = uniform(100_000, 1_000_000);
    measure("1M events on 100k streams, 1 tranche", &uniform, 1, 10);
    drop(uniform);
    let one: Vec<_> = (0..1_000_000).map(|index| (name(0), index)).collect();
    measure("1M events on one stream", &one, 1, 10);
    measure("1M events on one stream, all read first", &one, 1, usize::MAX);
}

/// Returns a stream name of 24 bytes.
fn name(number: u64) -> String {
    format!("order-{:018}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 1_000_000_000_000_000_000)
}

fn uniform(streams: u64, events: usize) -> Vec<(String, i64)> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut next = vec![0; streams as usize];
    let mut event = || {
        let stream = random.u64(0..streams);
        next[stream as usize] += 1;
        (name(stream), next[stream as usize] - 1)
    };
    (0..events).map(|_| event()).collect()
}

fn options() -> Options {
    Options {
        order: Order::Stream,
        indexes: Indexes::Dense,
        require_all: false,
        streams_per_call: 1,
        max_events: 1000,
        max_bytes: usize::MAX,
        hash_seed: 1,
    }
}

/// Makes batches, one tranche after the other. The events of a batch share a buffer, as those of a source do.
fn batches(events: &[(String, i64)], tranches: usize) -> Vec<IngestBatch> {
    let mut numbers = vec![0; tranches];
    let make = |(at, events): (usize, &[(String, i64)])| {
        let tranche = at % tranches;
        let from = numbers[tranche];
        numbers[tranche] += events.len() as u64;
        IngestBatch {
            tranche: tranche_id(tranche),
            events: records(events, from),
            resume_at: Position::Number(numbers[tranche].cast_signed()),
            write_positions: Vec::new(),
        }
    };
    events.chunks(BATCH).enumerate().map(make).collect()
}

fn tranche_id(tranche: usize) -> TrancheId {
    TrancheId::new(tranche.to_string())
}

/// Makes events without bodies. The scheduler never reads a body, so its cache misses belong to the reader.
fn records(events: &[(String, i64)], from: u64) -> Vec<Event> {
    let buffer: Vec<u8> = events.iter().flat_map(|(name, _)| name.bytes()).collect();
    let (buffer, mut start) = (Bytes::from(buffer), 0);
    let mut record = |(number, (name, index)): (u64, &(String, i64))| {
        let record = buffer.slice(start..start + name.len());
        start += name.len();
        let event = EventBuilder::new(record).text(Text::Stream, 0, name.len());
        event.build(Kind::Event, Ordinal::new(number, 0), *index).expect("a record of the benchmark is an event")
    };
    (from..).zip(events).map(&mut record).collect()
}

fn run(events: &[(String, i64)], tranches: usize, read_ahead: usize) -> Duration {
    let batches = batches(events, tranches);
    let mut scheduler = Scheduler::new(options());
    for tranche in 0..tranches {
        scheduler.open(&tranche_id(tranche), None);
    }
    let started = cpu();
    let (mut handled, mut read) = (0, 0);
    for batch in batches {
        scheduler.ingest(batch, NOW).expect("the feed is sound");
        read += 1;
        if read == read_ahead.saturating_mul(tranches) {
            handled += finish_all(&mut scheduler);
            read = 0;
        }
    }
    handled += finish_all(&mut scheduler);
    let took = Duration::from_nanos(cpu() - started);
    assert_eq!(handled, events.len());
    assert!(scheduler.tranches().iter().all(|tranche| tranche.unhandled == 0));
    took
}

fn finish_all(scheduler: &mut Scheduler) -> usize {
    let (mut out, mut handled) = (Vec::with_capacity(OUT), 0);
    loop {
        while out.len() < OUT {
            let Some(mut call) = scheduler.take_call(NOW) else { break };
            out.push(call.pop().expect("a call has work"));
        }
        if out.is_empty() {
            return handled;
        }
        for work in out.drain(..) {
            handled += work.events.len();
            let next = work.next;
            scheduler.finish(black_box(work), Outcome::Done { next }, NOW);
        }
    }
}

fn hash_map(events: &[(String, i64)]) -> Duration {
    let started = cpu();
    let mut map = HashMap::new();
    for (name, index) in events {
        map.insert(name.clone(), *index);
    }
    let took = Duration::from_nanos(cpu() - started);
    black_box(map);
    took
}

/// Measures the memory of a million known streams without pending events.
fn idle() {
    const STREAMS: u64 = 1_000_000;
    let mut scheduler = Scheduler::new(options());
    scheduler.open(&tranche_id(0), None);
    let before = resident();
    let (mut longest, mut took, mut number) = (0, 0, 0);
    while number < STREAMS {
        let events: Vec<_> = (number..number + BATCH as u64).map(|number| (name(number), 0)).collect();
        let batch = IngestBatch {
            tranche: tranche_id(0),
            events: records(&events, number),
            resume_at: Position::Number(number.cast_signed()),
            write_positions: Vec::new(),
        };
        drop(events);
        number += BATCH as u64;
        let started = cpu();
        scheduler.ingest(batch, NOW).expect("the feed is sound");
        let ingested = cpu() - started;
        (longest, took) = (longest.max(ingested), took + ingested);
        finish_all(&mut scheduler);
    }
    let grown = resident().saturating_sub(before);
    report(&format!("1M idle streams: {:.1} MB, {:.1} B each", grown as f64 / 1e6, grown as f64 / STREAMS as f64));
    report(&format!(
        "ingest of 1,000 events of new streams, thread CPU: longest {:.2} ms, mean {:.3} ms",
        longest as f64 / 1e6,
        took as f64 / 1e6 / (STREAMS as f64 / BATCH as f64)
    ));
    assert_eq!(scheduler.snapshot(0, NOW).idle as u64, STREAMS);
}

fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux tells how much memory is used");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("statm has numbers");
    pages * 4096
}

/// Returns the nanoseconds that this thread has run. The kernel updates the figure at its ticks and when a thread yields.
fn cpu() -> u64 {
    std::thread::yield_now();
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells how long a thread has run");
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("schedstat has numbers")
}

/// Measures a case and its floor alternately, so that other work of the machine affects both.
fn compare(what: &str, names: &[(String, i64)], events: usize, mut run: impl FnMut() -> Duration) {
    let each = |took: Duration, count: usize| took.as_nanos() as f64 / count as f64;
    let mut runs: Vec<_> = (0..RUNS).map(|_| (each(run(), events), each(hash_map(names), names.len()))).collect();
    let mut median = |of: fn(&(f64, f64)) -> f64| {
        runs.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&runs[RUNS / 2])
    };
    let (took, floor, ratio) = (median(|run| run.0), median(|run| run.1), median(|run| run.0 / run.1));
    report(&format!("{what:<58} {took:>6.0} ns an event, HashMap<String, i64> {floor:>4.0}: {ratio:.2} of it"));
}

#[expect(clippy::print_stdout, reason = "a benchmark says what it found")]
fn report(line: &str) {
    println!("{line}");
}
