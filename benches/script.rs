//! The events a second of the documentation's sample script, as `handle` and as `handle_event`: with one event a call and
//! with ten, on one and two threads.
//!
//! `cargo bench --bench script` prints them beside those of scripts that do nothing. Other work can run on the machine, so
//! the processor time of an event is measured apart from the elapsed time.

use std::fmt::Write as _;
use std::sync::{Arc, Barrier};

use bytes::Bytes;
use propulsiond::clock::Clock;
use propulsiond::event::{Event, EventBuilder, Kind, Text};
use propulsiond::handler::{BlockingHandlerFactory, Decisions};
use propulsiond::position::Ordinal;
use propulsiond::script::{Options, STACK_BYTES, Script};
use propulsiond::work::{Work, WorkId, WorkKind};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SAMPLE: &str = r#"
fn handle(stream, events) {
    for e in events {
        if e.type == "OrderPlaced" {
            emit(#{ sql: "INSERT INTO orders (id, total) VALUES (?1, ?2)", params: [stream.id, e.data.total] });
        }
    }
}
"#;
const SAMPLE_EVENT: &str = r#"
fn handle_event(stream, event) {
    if event.type == "OrderPlaced" {
        emit(#{ sql: "INSERT INTO orders (id, total) VALUES (?1, ?2)", params: [stream.id, event.data.total] });
    }
}
"#;
const SWITCH_EVENT: &str = r#"
fn handle_event(stream, event) {
    switch event.type {
        "OrderPlaced" => emit(#{ sql: "INSERT INTO orders (id, total) VALUES (?1, ?2)", params: [stream.id, event.data.total] }),
        "OrderShipped" => emit(#{ sql: "UPDATE orders SET shipped = 1 WHERE id = ?1", params: [stream.id] }),
    }
}
"#;
const RETURN_EVENT: &str = r#"
fn handle_event(stream, event) {
    if event.type != "OrderPlaced" { return; }
    emit(#{ sql: "INSERT INTO orders (id, total) VALUES (?1, ?2)", params: [stream.id, event.data.total] });
}
"#;
const UPCAST_EVENT: &str = r#"
fn upcast(event) {
    if event.type != "OrderPlaced" { return event; }
    #{ type: "OrderPlacedV2", data: #{ total: event.data.total } }
}
fn handle_event(stream, event) {
    if event.type == "OrderPlacedV2" {
        emit(#{ sql: "INSERT INTO orders (id, total) VALUES (?1, ?2)", params: [stream.id, event.data.total] });
    }
}
"#;
const NOTHING: &str = "fn handle(stream, events) { () }";
const NOTHING_EVENT: &str = "fn handle_event(stream, event) { () }";

/// A script, and the events that it gets.
struct Row {
    name: &'static str,
    source: &'static str,
    /// One of this many events has the type that the script looks for.
    every: usize,
    /// Events of one call.
    span: usize,
}

const ROWS: [Row; 13] = [
    row("nothing", NOTHING, 1, 1),
    row("nothing, handle_event", NOTHING_EVENT, 1, 1),
    row("sample, every event a hit", SAMPLE, 1, 1),
    row("the same, handle_event", SAMPLE_EVENT, 1, 1),
    row("sample, every tenth a hit", SAMPLE, 10, 1),
    row("the same, handle_event", SAMPLE_EVENT, 10, 1),
    row("the same with `return`", RETURN_EVENT, 10, 1),
    row("the same with `upcast`", UPCAST_EVENT, 10, 1),
    row("sample, 10 events a call", SAMPLE, 1, 10),
    row("the same, handle_event", SAMPLE_EVENT, 1, 10),
    row("the same with `return`", RETURN_EVENT, 1, 10),
    row("the same with `switch`", SWITCH_EVENT, 1, 10),
    row("the same with `upcast`", UPCAST_EVENT, 1, 10),
];

const fn row(name: &'static str, source: &'static str, every: usize, span: usize) -> Row {
    Row { name, source, every, span }
}

/// The number of events. Those of a batch share its buffer, as those of a reader do.
const EVENTS: usize = 10_000;
const BATCH: usize = 500;
const ROUNDS: usize = 60;

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn main() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, {} events (about 300 bytes) a thread", EVENTS * ROUNDS);
    println!("{:<28} {:>9} {:>14} {:>14}", "script", "threads", "events/s", "CPU ns/event");
    for row in &ROWS {
        let script = compile(row.source);
        for threads in [1, 2] {
            let (rate, cost) = measure(&script.factory(), threads, row);
            println!("{:<28} {threads:>9} {rate:>14.0} {cost:>14.0}", row.name);
        }
    }
}

fn compile(source: &str) -> Script {
    let path = std::env::temp_dir().join(format!("propulsiond-bench-{}.rhai", std::process::id()));
    std::fs::write(&path, source).expect("the temporary directory is writable");
    let script = Script::compile(&path, &serde_json::Map::new(), Options::default()).expect("the script is valid");
    std::fs::remove_file(&path).expect("it was just written");
    script
}

/// Returns events a second of all threads, and the processor time of an event in nanoseconds.
fn measure(factory: &Arc<dyn BlockingHandlerFactory>, threads: usize, row: &Row) -> (f64, f64) {
    let barrier = Arc::new(Barrier::new(threads + 1));
    let clock = Clock::start();
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let (factory, barrier, mut works) = (Arc::clone(factory), Arc::clone(&barrier), works(row));
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let run = move || {
                let mut handler = factory.make();
                let mut decisions = Decisions::with_capacity(64);
                handler.handle(&mut works[..1], &mut decisions);
                decisions.clear();
                barrier.wait();
                let started = processor_time();
                let mut effects = 0;
                for _ in 0..ROUNDS {
                    for run in works.chunks_mut(64) {
                        run.iter_mut().for_each(|work| handler.handle(std::slice::from_mut(work), &mut decisions));
                        effects += decisions
                            .drain(..)
                            .map(|decision| decision.expect("the script works").effects.len())
                            .sum::<usize>();
                    }
                }
                (effects, processor_time() - started)
            };
            thread.spawn(run).expect("a thread can be started")
        })
        .collect();
    barrier.wait();
    let started = clock.now();
    let (mut effects, mut used) = (0, 0);
    for thread in running {
        let (its_effects, its_time) = thread.join().expect("no thread panics");
        effects += its_effects;
        used += its_time;
    }
    let passed = clock.now().since(started).as_secs_f64();
    assert!(effects == 0 || effects == EVENTS / row.every * ROUNDS * threads, "every hit has its effect");
    let events = (EVENTS * ROUNDS * threads) as f64;
    (events / passed, used as f64 / events)
}

/// Returns the processor time of this thread in nanoseconds, or 0 if the system does not report it.
fn processor_time() -> u64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    statistics.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default()
}

fn works(row: &Row) -> Vec<Work> {
    (0..EVENTS).step_by(BATCH).flat_map(|first| batch(first, row)).collect()
}

/// The location of a field in the buffer of its batch: start and length.
type Location = (usize, usize);

fn batch(first: usize, row: &Row) -> Vec<Work> {
    let (mut buffer, mut locations) = (String::new(), Vec::new());
    for number in first..first + BATCH {
        let stream = append(&mut buffer, &format!("order-{:08}", number / row.span));
        let name = append(&mut buffer, if number % row.every == 0 { "OrderPlaced" } else { "OrderViewed" });
        locations.push([stream, name, append(&mut buffer, &body(number))]);
    }
    let buffer = Bytes::from(buffer);
    let numbered = (first..).zip(locations);
    let events: Vec<_> =
        numbered.map(|(number, locations)| event(&buffer, number, number % row.span, locations)).collect();
    events.chunks(row.span).map(|events| work(events.to_vec())).collect()
}

fn event(buffer: &Bytes, number: usize, index: usize, [stream, name, data]: [Location; 3]) -> Event {
    EventBuilder::new(buffer.clone())
        .text(Text::Stream, stream.0, stream.1)
        .text(Text::Type, name.0, name.1)
        .data(data.0, data.1)
        .build(Kind::Event, Ordinal::new(number as u64, 0), index as i64)
        .expect("the event is valid")
}

fn work(events: Vec<Event>) -> Work {
    Work {
        id: WorkId { slot: 0, generation: 0 },
        kind: WorkKind::Handle,
        next: events.len() as i64,
        events,
        failures: 0,
        read_at: propulsiond::clock::Timestamp::ZERO,
        late: false,
        trace: None,
    }
}

fn append(buffer: &mut String, text: &str) -> Location {
    let start = buffer.len();
    buffer.push_str(text);
    (start, text.len())
}

fn body(number: usize) -> String {
    let mut body = String::new();
    let cents = number % 100;
    write!(
        body,
        r#"{{"orderId":"{number:08}","customer":{{"id":"c{cents}","name":"Ada Example","vip":true}},"placedAt":"2026-11-24T10:00:00Z","items":[{{"sku":"A-1","quantity":2,"price":4.5}},{{"sku":"B-7","quantity":1,"price":19.99}}],"currency":"EUR","total":28.{cents:02},"note":"leave it at the door"}}"#
    )
    .expect("a string takes any text");
    body
}
