//! Whole pipelines beside their parts: `cargo bench --bench pipeline [-- NAME..]`.
//!
//! Every row is the median of five runs, beside its floor in the same run, with the CPU time per event. Machines differ
//! and are shared, so compare ratios only. `BENCH_ROUNDS=1` gives quick, rough figures.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures, and says what"
)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use propulsiond::checkpoint::{CheckpointStore, Owner};
use propulsiond::clock::Clock;
use propulsiond::config::filter::Filter;
use propulsiond::config::scalar::Text;
use propulsiond::connector::{Context, generate, json, memory, null, sqlite};
use propulsiond::handler::{AnyHandler, Call, Decision, Decisions, Handler, HandlerError, HandlerErrorKind};
use propulsiond::pipeline::counts::Observer;
use propulsiond::pipeline::{self, Assemble, Ended, ErrorPolicy, Identity, ParkLimits, Parts, Pipeline, Stop, Then};
use propulsiond::runtime::retry::Backoff;
use propulsiond::runtime::supervise::Group;
use propulsiond::scheduler::Order;
use propulsiond::script::{self, Script};
use propulsiond::sink::AnySink;
use propulsiond::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LINES: u64 = 1_000_000;
const STREAMS: u64 = 10_000;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str()));
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let rows = std::env::var("BENCH_ROWS").map(|rows| rows.split(',').map(str::to_owned).collect()).unwrap_or_default();
    let bench = Bench { rows, directory: tempfile::tempdir().unwrap(), rounds };
    println!("{} cores, load {}, median of {rounds}", std::thread::available_parallelism().unwrap(), load());
    if wants("throughput") {
        bench.throughput();
    }
    if wants("failing") {
        bench.failing();
    }
    if wants("waiting") {
        bench.waiting();
    }
    if wants("tranches") {
        bench.tranches();
    }
}

struct Bench {
    /// Rows to measure, by a part of their names; all if empty.
    rows: Vec<String>,
    directory: tempfile::TempDir,
    rounds: usize,
}

/// The times of a run.
#[derive(Clone, Copy, Debug)]
struct Took {
    wall: Duration,
    cpu: Duration,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn median(&self, mut run: impl FnMut() -> Took) -> Took {
        median((0..self.rounds).map(|_| run()).collect())
    }

    /// Measures JSON lines without a sink, through a script, and into SQLite, each beside the reader alone.
    fn throughput(&self) {
        write_lines(&self.path("events.jsonl"), LINES, STREAMS);
        let reader = self.median(|| {
            timed(|| {
                let (events, _) = json::read_alone(&json_settings("events.jsonl"), &self.context()).unwrap();
                assert_eq!(events, LINES);
            })
        });
        show("reader alone", reader, LINES, None);
        let row = |name: &str, work: &Work| {
            if !self.rows.is_empty() && !self.rows.iter().any(|wanted| name.contains(wanted.as_str())) {
                return;
            }
            let took = self.median(|| self.run(work));
            show(name, took, LINES, Some(reader));
        };
        row("lines -> null", &Work::default());
        row("lines -> script, every event a hit -> null", &Work { script: Some(HIT), ..Work::default() });
        row("lines -> script, every tenth a hit -> null", &Work { script: Some(TENTH), ..Work::default() });
        let sqlite = |synchronous| Work { script: Some(HIT), sqlite: Some(synchronous), ..Work::default() };
        row("lines -> script -> sqlite, exactly once, FULL", &sqlite(sqlite::Synchronous::Full));
        row("lines -> script -> sqlite, exactly once, NORMAL", &sqlite(sqlite::Synchronous::Normal));
    }

    /// Measures the cost of streams that always fail for the others. The rows alternate, so that other work of the machine,
    /// such as writing back the new file, affects both.
    fn failing(&self) {
        write_lines(&self.path("long.jsonl"), 5 * LINES, STREAMS);
        let mut runs = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..self.rounds {
            for (failing, runs) in [0, 1, 100].into_iter().zip(&mut runs) {
                runs.push(self.run_failing(failing));
            }
        }
        let [without, one, hundred] = runs.map(median);
        show("900,000 events, no stream fails", without, 900_000, None);
        show("900,000 events, one stream of 10,000 fails", one, 900_000, Some(without));
        show("900,000 events, a hundred fail", hundred, 900_000, Some(without));
    }

    /// Measures handlers that wait, beside the waits themselves.
    fn waiting(&self) {
        write_lines(&self.path("short.jsonl"), 10_000, 1_000);
        for concurrency in [16, 100] {
            let mut over: Vec<_> = (0..self.rounds).map(|_| self.run_waiting(concurrency)).collect();
            over.sort_by(f64::total_cmp);
            let median = over[over.len() / 2];
            println!(
                "10,000 events of 1,000 streams, 0-5 ms each, concurrency {concurrency:>3}: {:+.2} % over the waits",
                median * 100.0
            );
        }
    }

    /// The CPU time of the driver for many tranches with few events: it costs by the tranches that change.
    fn tranches(&self) {
        const SECONDS: u64 = 10;
        let stop = CancellationToken::new();
        let made = Arc::new(ManyTranches { context: self.context() });
        let running = std::thread::spawn({
            let stop = stop.clone();
            let options = pipeline::Options { stop: Stop::Never, ..options(&Work::default()) };
            move || drive(made, options, Some(stop))
        });
        // The claims and the first reads are over by then.
        std::thread::sleep(Duration::from_secs(8));
        let before = cpu_time();
        std::thread::sleep(Duration::from_secs(SECONDS));
        let spent = cpu_time() - before;
        stop.cancel();
        assert_eq!(running.join().unwrap(), Ended::Stopped);
        let share = spent.as_secs_f64() / SECONDS as f64 * 100.0;
        println!("5,000 tranches, 200 events/s: {share:.1} % of a core");
    }

    fn context(&self) -> Context {
        Context::new("bench", self.directory.path(), self.directory.path().join("data"))
    }

    fn run(&self, work: &Work) -> Took {
        let data = self.context().data;
        if data.exists() {
            std::fs::remove_dir_all(&data).unwrap();
        }
        std::fs::create_dir_all(&data).unwrap();
        let script = work.script.map(|text| {
            let path = self.path("bench.rhai");
            std::fs::write(&path, text).unwrap();
            Script::compile(&path, &serde_json::Map::new(), script::Options::default()).unwrap()
        });
        let made = Made { work: work.clone(), context: self.context(), script };
        timed(|| assert_eq!(drive(Arc::new(made), options(work), None), Ended::Finished))
    }

    fn run_failing(&self, failing: u64) -> Took {
        let stop = CancellationToken::new();
        let handler = Arc::new(Failing {
            failing,
            from: LINES / 100,
            handled: AtomicU64::new(0),
            began: Mutex::new(None),
            took: Mutex::new(None),
            stop: stop.clone(),
        });
        let work = Work {
            path: "long.jsonl",
            handler: Some(Arc::clone(&handler) as Arc<dyn Handler>),
            durable: true,
            ..Work::default()
        };
        let made = Made { work: work.clone(), context: self.context(), script: None };
        drop(std::fs::remove_dir_all(self.context().data));
        std::fs::create_dir_all(self.context().data).unwrap();
        drive(Arc::new(made), options(&work), Some(stop));
        let took = handler.took.lock().unwrap().take();
        took.expect("the events were handled")
    }

    fn run_waiting(&self, concurrency: usize) -> f64 {
        let handler = Arc::new(Waiting::default());
        let work = Work {
            path: "short.jsonl",
            handler: Some(Arc::clone(&handler) as Arc<dyn Handler>),
            concurrency,
            max_events: 1,
            ..Work::default()
        };
        let made = Made { work: work.clone(), context: self.context(), script: None };
        assert_eq!(drive(Arc::new(made), options(&work), None), Ended::Finished);
        let waits = handler.waits.lock().unwrap();
        let (first, last) = handler.span.lock().unwrap().expect("there were events");
        let total: Duration = waits.values().sum();
        let floor = waits.values().max().copied().unwrap_or_default().max(total / concurrency as u32);
        (last - first).as_secs_f64() / floor.as_secs_f64() - 1.0
    }
}

/// A measured pipeline.
#[derive(Clone)]
struct Work {
    path: &'static str,
    script: Option<&'static str>,
    handler: Option<Arc<dyn Handler>>,
    sqlite: Option<sqlite::Synchronous>,
    /// SQLite keeps the progress even if the sink writes nothing.
    durable: bool,
    concurrency: usize,
    max_events: usize,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            path: "events.jsonl",
            script: None,
            handler: None,
            sqlite: None,
            durable: false,
            concurrency: 64,
            max_events: 1_000,
        }
    }
}

/// The sample script of the design: five lines, one effect.
const HIT: &str = r#"
fn handle(stream, events) {
    for e in events {
        if e.type == "OrderPlaced" {
            emit(#{ sql: "INSERT INTO orders VALUES (?1, ?2)", params: [stream.id, e.data.total] });
        }
    }
}
"#;
const TENTH: &str = r#"
fn handle(stream, events) {
    for e in events {
        if e.data.total % 10 == 0 {
            emit(#{ sql: "INSERT INTO orders VALUES (?1, ?2)", params: [stream.id, e.data.total] });
        }
    }
}
"#;

struct Made {
    work: Work,
    context: Context,
    script: Option<Script>,
}

impl Assemble for Made {
    fn assemble(&self) -> anyhow::Result<Parts> {
        let source = json::source(&json_settings(self.work.path), &self.context, true)?;
        let handler = match (&self.script, &self.work.handler) {
            (Some(script), _) => Some(AnyHandler::Blocking(script.factory())),
            (None, Some(handler)) => Some(AnyHandler::Async(Arc::clone(handler))),
            (None, None) => None,
        };
        let sink = match self.work.sqlite {
            None => AnySink::Plain(Arc::new(null::NullSink::new(&null::Settings::default(), &self.context)?)),
            Some(synchronous) => {
                let init = vec![Text::literal("CREATE TABLE IF NOT EXISTS orders (id TEXT, total INTEGER)")];
                let settings = sqlite::SinkSettings { synchronous, init, ..sqlite::SinkSettings::default() };
                AnySink::Transactional(Arc::new(sqlite::SqliteSink::new(&settings, &self.context)))
            }
        };
        let checkpoints: Arc<dyn CheckpointStore> = match &sink {
            AnySink::Transactional(sink) => sink.checkpoints(),
            AnySink::Plain(_) if self.work.durable => {
                Arc::new(sqlite::SqliteCheckpoints::new(&sqlite::CheckpointSettings::default(), &self.context))
            }
            AnySink::Plain(_) => {
                Arc::new(memory::store::MemoryCheckpoints::new(&memory::store::Settings::default(), &self.context))
            }
        };
        Ok(Parts {
            source: Arc::new(source),
            checkpoints,
            handler,
            sink,
            filter: Arc::new(Filter::default()),
            version: "none".into(),
        })
    }
}

/// Generated events of many tranches, to nowhere.
struct ManyTranches {
    context: Context,
}

impl Assemble for ManyTranches {
    fn assemble(&self) -> anyhow::Result<Parts> {
        let settings = generate::Settings {
            tranches: NonZeroU32::new(5_000).unwrap(),
            streams: NonZeroU64::new(5_000).unwrap(),
            rate: NonZeroU64::new(200),
            ..generate::Settings::default()
        };
        let (null, store) = (null::Settings::default(), memory::store::Settings::default());
        Ok(Parts {
            source: Arc::new(generate::source(&settings, &self.context)?),
            checkpoints: Arc::new(memory::store::MemoryCheckpoints::new(&store, &self.context)),
            handler: None,
            sink: AnySink::Plain(Arc::new(null::NullSink::new(&null, &self.context)?)),
            filter: Arc::new(Filter::default()),
            version: "none".into(),
        })
    }
}

fn json_settings(path: &str) -> json::Settings {
    json::Settings { path: Text::literal(path), ..json::Settings::default() }
}

fn options(work: &Work) -> pipeline::Options {
    pipeline::Options {
        order: Order::Stream,
        require_all: false,
        streams_per_call: 1,
        concurrency: work.concurrency,
        read_ahead: 10,
        read_ahead_bytes: 64 << 20,
        max_ahead_events: 1_000_000,
        max_events: work.max_events,
        max_bytes: usize::MAX,
        commit_interval: Duration::from_secs(5),
        purge: None,
        write_positions: work.sqlite.is_some(),
        errors: ErrorPolicy {
            backoff: Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(30) },
            attempts: None,
            then: Then::Halt,
            stuck_after: Duration::from_secs(300),
            outage: Default::default(),
            parked: ParkLimits { events: 1_000_000, bytes: 1 << 30 },
        },
        handler_timeout: Duration::from_secs(30),
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        stop: Stop::Tail,
        drain: Duration::from_secs(25),
        seed: 1,
    }
}

fn drive(assemble: Arc<dyn Assemble>, options: pipeline::Options, stop: Option<CancellationToken>) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = Clock::start();
        let group = Group::daemon();
        let (_handle, listener) = pipeline::Handle::new(clock);
        let pipeline = Pipeline {
            identity: Identity {
                name: "bench".into(),
                group: "bench".into(),
                source: "json".into(),
                owner: Owner("bench".into()),
            },
            options,
            assemble,
            observer: Observer::new(Metrics::new(clock).pipeline("bench", "bench"), "json".into()),
        };
        pipeline.run(listener, &group, stop.unwrap_or_default()).await
    })
}

/// A handler that handles all events at once, except those of some streams, which always fail.
struct Failing {
    failing: u64,
    /// The number of events before it begins to count, so that both runs are warm.
    from: u64,
    handled: AtomicU64,
    began: Mutex<Option<(Instant, Duration)>>,
    took: Mutex<Option<Took>>,
    stop: CancellationToken,
}

impl Handler for Failing {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        let work = call.single();
        let number: u64 = work.stream_id().parse().expect("the streams are numbered");
        let seen = self.handled.load(Ordering::Relaxed);
        if seen >= self.from && number < self.failing {
            let error = HandlerError::new(HandlerErrorKind::Transient, "it always fails");
            return std::future::ready(vec![Err(error)]).boxed();
        }
        let before = self.handled.fetch_add(work.events.len() as u64, Ordering::Relaxed);
        let after = before + work.events.len() as u64;
        if before < self.from && after >= self.from {
            *self.began.lock().unwrap() = Some((Instant::now(), cpu_time()));
        }
        let end = self.from + 900_000;
        if before < end && after >= end {
            let (wall, cpu) = self.began.lock().unwrap().expect("it began");
            *self.took.lock().unwrap() = Some(Took { wall: wall.elapsed(), cpu: cpu_time() - cpu });
            self.stop.cancel();
        }
        std::future::ready(vec![Ok(Decision::handled())]).boxed()
    }
}

/// A handler that waits up to 5 ms for each event, and measures the actual wait.
#[derive(Default)]
struct Waiting {
    waits: Mutex<std::collections::HashMap<String, Duration>>,
    span: Mutex<Option<(Instant, Instant)>>,
}

impl Handler for Waiting {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        async move {
            let began = Instant::now();
            let work = call.single();
            // Derived from stream and index, so that every run waits for the same times.
            let hash = work
                .stream_id()
                .bytes()
                .fold(work.first() as u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
            let micros = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            tokio::time::sleep(Duration::from_micros(micros % 5_000)).await;
            let ended = Instant::now();
            *self.waits.lock().unwrap().entry(work.stream().to_owned()).or_default() += ended - began;
            let mut span = self.span.lock().unwrap();
            let first = span.map_or(began, |(first, _)| first.min(began));
            *span = Some((first, ended));
            vec![Ok(Decision::handled())]
        }
        .boxed()
    }
}

/// Writes lines of about 300 bytes with shuffled streams.
fn write_lines(path: &Path, lines: u64, streams: u64) {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut next = vec![0_u64; streams as usize];
    let mut random = fastrand::Rng::with_seed(7);
    let mut line = String::new();
    for number in 0..lines {
        let stream = random.u64(0..streams);
        let index = next[stream as usize];
        next[stream as usize] += 1;
        line.clear();
        writeln!(
            line,
            r#"{{"stream":"order-{stream:06}","index":{index},"type":"OrderPlaced","timestamp":"2026-11-24T10:{:02}:{:02}Z","data":{{"total":{number},"customer":"customer-{:05}","lines":[{{"sku":"chair-oak","quantity":2,"price":18900}},{{"sku":"lamp-desk","quantity":1,"price":4900}}],"note":"leave it with the neighbour"}},"meta":{{"user":"web"}}}}"#,
            number / 60 % 60,
            number % 60,
            number % 50_000,
        )
        .unwrap();
        out.write_all(line.as_bytes()).unwrap();
    }
    out.flush().unwrap();
}

fn median(mut runs: Vec<Took>) -> Took {
    runs.sort_by_key(|took| took.wall);
    runs[runs.len() / 2]
}

fn timed(run: impl FnOnce()) -> Took {
    let (began, cpu) = (Instant::now(), cpu_time());
    run();
    Took { wall: began.elapsed(), cpu: cpu_time() - cpu }
}

/// Returns the CPU time of the process so far, in clock ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("?").to_owned()
}

fn show(name: &str, took: Took, events: u64, floor: Option<Took>) {
    let rate = events as f64 / took.wall.as_secs_f64();
    let cpu = took.cpu.as_nanos() as f64 / events as f64;
    let ratio = floor.map_or_else(String::new, |floor| {
        format!("  {:.2} of the floor", floor.wall.as_secs_f64() / took.wall.as_secs_f64())
    });
    println!("{name:<52} {rate:>10.0} events/s {cpu:>6.0} ns CPU{ratio}");
}
