//! The calls a second of the documentation's sample script: one event a call, on one and two threads.
//!
//! `cargo bench --bench script` prints them beside those of a script that does nothing. Other work can run on the machine,
//! so the processor time of a call is measured apart from the elapsed time.

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
const NOTHING: &str = "fn handle(stream, events) { () }";

/// The number of works, of one event each. The events of a batch share its buffer, as those of a reader do.
const WORKS: usize = 10_000;
const BATCH: usize = 500;
const ROUNDS: usize = 60;

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn main() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, {} calls of one event (about 300 bytes) a thread", WORKS * ROUNDS);
    println!("{:<28} {:>9} {:>14} {:>14}", "script", "threads", "calls/s", "CPU ns/call");
    for (name, source, every) in
        [("nothing", NOTHING, 1), ("sample, every event a hit", SAMPLE, 1), ("sample, every tenth a hit", SAMPLE, 10)]
    {
        let script = compile(source);
        for threads in [1, 2] {
            let (rate, cost) = measure(&script.factory(), threads, every);
            println!("{name:<28} {threads:>9} {rate:>14.0} {cost:>14.0}");
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

/// Returns calls a second of all threads, and the processor time of a call in nanoseconds.
fn measure(factory: &Arc<dyn BlockingHandlerFactory>, threads: usize, every: usize) -> (f64, f64) {
    let barrier = Arc::new(Barrier::new(threads + 1));
    let clock = Clock::start();
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let (factory, barrier, mut works) = (Arc::clone(factory), Arc::clone(&barrier), works(every));
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
    assert!(effects == 0 || effects == WORKS / every * ROUNDS * threads, "every hit has its effect");
    let calls = (WORKS * ROUNDS * threads) as f64;
    (calls / passed, used as f64 / calls)
}

/// Returns the processor time of this thread in nanoseconds, or 0 if the system does not report it.
fn processor_time() -> u64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    statistics.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default()
}

fn works(every: usize) -> Vec<Work> {
    (0..WORKS).step_by(BATCH).flat_map(|first| batch(first, every)).collect()
}

/// The location of a field in the buffer of its batch: start and length.
type Location = (usize, usize);

fn batch(first: usize, every: usize) -> Vec<Work> {
    let (mut buffer, mut locations) = (String::new(), Vec::new());
    for number in first..first + BATCH {
        let stream = append(&mut buffer, &format!("order-{number:08}"));
        let name = append(&mut buffer, if number % every == 0 { "OrderPlaced" } else { "OrderViewed" });
        locations.push([stream, name, append(&mut buffer, &body(number))]);
    }
    let buffer = Bytes::from(buffer);
    (first..).zip(locations).map(|(number, locations)| work(event(&buffer, number, locations))).collect()
}

fn event(buffer: &Bytes, number: usize, [stream, name, data]: [Location; 3]) -> Event {
    EventBuilder::new(buffer.clone())
        .text(Text::Stream, stream.0, stream.1)
        .text(Text::Type, name.0, name.1)
        .data(data.0, data.1)
        .build(Kind::Event, Ordinal::new(number as u64, 0), 0)
        .expect("the event is valid")
}

fn work(event: Event) -> Work {
    Work {
        id: WorkId { slot: 0, generation: 0 },
        kind: WorkKind::Handle,
        events: vec![event],
        next: 1,
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
