//! Twenty pipelines of the real binary for as long as one likes, while feeds rotate, the sink fails and the store stalls.
//!
//! Time is divided into cycles of ten units. In each unit the feed grows and a new file begins. In one unit of each cycle
//! the HTTP sink answers 500, and in another one the checkpoint store is locked by another connection. At the end of a
//! cycle the feed rests until every sink holds every event; then the files that are read are deleted, and the resident memory
//! is noted.
//!
//! * Every event arrives at every sink. The tables that hold the progress contain it exactly once.
//! * No pipeline restarts, halts or is fenced: a sink that fails for every stream is an outage, which spends no attempts.
//! * Memory is flat once caches are warm: in the second half of the cycles it grows by an eighth (and 16 MiB) at most. Only
//!   a run of ten minutes or more is judged: in a shorter one the allocator and the pools of threads still grow, the more
//!   so the busier the machine is.
//!
//! `PROPULSIOND_SOAK=3600 cargo test --test it soak -- --nocapture` runs for that many seconds.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use propulsiond::clock::{Clock, Timestamp};
use rusqlite::Connection;

use crate::daemon::{Daemon, LIMIT, Place};

/// Seconds that CI spends.
const SECONDS: u64 = 30;
/// Seconds from which on the memory is judged.
const LONG_RUN: u64 = 600;
/// Cycles, and units of each.
const CYCLES: u32 = 6;
const UNITS: u32 = 10;
const PIPELINES: usize = 20;
/// Events that are written in a unit: few enough that a cycle's backlog is gone within a unit.
const EVENTS_PER_UNIT: usize = 200;
/// No two files of a cycle share a stream, as each file may be a tranche (C4).
const STREAMS: usize = EVENTS_PER_UNIT * UNITS as usize;
/// Growth of the resident memory that counts as flat, beside an eighth of it.
const SLACK_KIB: u64 = 16 * 1024;

/// The longest lock that another process is to hold: SQLite's users wait for it, and then fail.
const LONGEST_LOCK: Duration = Duration::from_secs(20);

#[test]
fn every_event_arrives_while_feeds_rotate_the_sink_fails_and_the_store_stalls() {
    let seconds = std::env::var("PROPULSIOND_SOAK").map_or(SECONDS, |text| text.parse().expect("it is a number"));
    let unit = Duration::from_secs(seconds) / (CYCLES * UNITS);
    let receiver = Receiver::start();
    let mut soak = Soak::start(&receiver, unit);
    let mut memory = Vec::new();
    for cycle in 0..CYCLES {
        for number in 0..UNITS {
            soak.feed.grow();
            match number {
                3 => receiver.fails(true),
                4 => receiver.fails(false),
                6 => soak.stall(unit),
                _ => {}
            }
            soak.wait(unit);
        }
        soak.settle(&receiver);
        soak.feed.delete_what_was_read();
        memory.push(soak.resident_kib());
        eprintln!(
            "cycle {cycle}: {} events a pipeline, {} KiB resident",
            soak.feed.events.len(),
            memory[memory.len() - 1]
        );
    }
    let (early, late) = (memory[memory.len() / 2], memory[memory.len() - 1]);
    let is_flat = late <= early + early / 8 + SLACK_KIB;
    assert!(is_flat || seconds < LONG_RUN, "memory grows: {memory:?} KiB");
    let (code, rest) = soak.daemon.stop("TERM");
    assert_eq!(code, Some(0), "{rest}");
}

/// The daemon, what it reads, and where its pipelines write.
struct Soak {
    place: Place,
    daemon: Daemon,
    feed: Feed,
    lock: Option<(Connection, Timestamp)>,
    clock: Clock,
}

/// The sinks of the pipelines, by turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Table,
    File,
    TranchePerFile,
}

fn kind(pipeline: usize) -> Kind {
    [Kind::Http, Kind::Table, Kind::File, Kind::TranchePerFile][pipeline % 4]
}

impl Soak {
    fn start(receiver: &Receiver, unit: Duration) -> Self {
        let place = Place::new(&[("copy.rhai", COPY)]);
        for pipeline in 0..PIPELINES {
            place.write(&format!("p{pipeline}.toml"), &pipeline_file(pipeline, receiver, unit));
        }
        let feed = Feed::new(place.path("pipelines/feed"));
        let daemon = place.start(&["--log-level", "warn,propulsiond::app=info"]);
        Self { place, daemon, feed, lock: None, clock: Clock::start() }
    }

    /// Locks the checkpoint store for half a unit.
    fn stall(&mut self, unit: Duration) {
        let store = Connection::open(self.place.path("data/propulsiond.db")).unwrap();
        store.busy_timeout(LIMIT).unwrap();
        store.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.lock = Some((store, self.clock.now() + (unit / 2).min(LONGEST_LOCK)));
    }

    fn wait(&mut self, unit: Duration) {
        let end = self.clock.now() + unit;
        while self.clock.now() < end {
            self.lock.take_if(|(_, until)| *until <= self.clock.now());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.lock = None;
    }

    /// Waits until every sink holds every event.
    fn settle(&self, receiver: &Receiver) {
        let clock = Clock::start();
        for pipeline in 0..PIPELINES {
            loop {
                let held = self.held(pipeline, receiver);
                let lacking = self.feed.events.iter().find(|event| !held.contains_key(*event));
                let Some(lacking) = lacking else {
                    let exactly_once = kind(pipeline) == Kind::Table;
                    let twice = held.iter().find(|(_, times)| exactly_once && **times > 1);
                    assert_eq!(twice, None, "p{pipeline} holds it more than once");
                    break;
                };
                let waited = clock.now().since(Timestamp::ZERO);
                assert!(waited < LIMIT, "p{pipeline} ({:?}) lacks {lacking:?}: {}", kind(pipeline), self.health());
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
        let health = self.health();
        for state in ["halted", "fenced", "restarting", "failed"] {
            assert!(!health.contains(&format!("\"state\":\"{state}\"")), "{health}");
        }
    }

    fn health(&self) -> String {
        self.daemon.get("/health").1
    }

    /// Returns the events that a pipeline's sink holds, and how often.
    fn held(&self, pipeline: usize, receiver: &Receiver) -> BTreeMap<Event, usize> {
        let mut held = BTreeMap::new();
        let mut add = |event| *held.entry(event).or_default() += 1;
        match kind(pipeline) {
            Kind::Http | Kind::TranchePerFile => receiver.received(pipeline).into_iter().for_each(add),
            Kind::File => {
                let path = self.place.path(&format!("data/p{pipeline}.jsonl"));
                for line in fs::read_to_string(path).unwrap_or_default().lines() {
                    let value: serde_json::Value = serde_json::from_str(line).unwrap();
                    let stream = value["stream"].as_str().unwrap().trim_start_matches("account-").parse().unwrap();
                    add((stream, value["index"].as_i64().unwrap()));
                }
            }
            Kind::Table => {
                let path = self.place.path(&format!("data/p{pipeline}.db"));
                let Ok(table) = Connection::open(path) else { return held };
                table.busy_timeout(LIMIT).unwrap();
                // The table is missing until the first event is handled.
                let Ok(mut rows) = table.prepare("SELECT stream, idx FROM got") else { return held };
                rows.query_map([], |row| Ok((row.get::<_, i64>(0)? as usize, row.get(1)?)))
                    .unwrap()
                    .for_each(|row| add(row.unwrap()));
            }
        }
        held
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

const COPY: &str = r#"
fn handle(stream, events) {
    for e in events {
        emit(#{ sql: "INSERT INTO got VALUES (?1, ?2)", params: [parse_int(stream.id), e.index] });
    }
}
"#;

fn pipeline_file(pipeline: usize, receiver: &Receiver, unit: Duration) -> String {
    let poll = format!("{}ms", (unit / 10).as_millis().clamp(20, 1_000));
    let source = format!("[source.json]\npath = \"feed\"\npoll = \"{poll}\"\n");
    let errors = "[errors]\nretry = { initial = \"50ms\", max = \"1s\" }\n";
    let http = format!("[sink.http]\nurl = \"{}/{pipeline}\"\n", receiver.url);
    match kind(pipeline) {
        Kind::Http => format!("{source}{errors}{http}"),
        Kind::TranchePerFile => format!("{source}tranche_per_file = true\n{errors}{http}"),
        Kind::File => format!("{source}[sink.file]\npath = \"p{pipeline}.jsonl\"\n"),
        Kind::Table => format!(
            "checkpoint = \"sink\"\n{source}[handler.rhai]\nscript = \"copy.rhai\"\n[sink.sqlite]\npath = \"p{pipeline}.db\"\n\
             init = [\"CREATE TABLE IF NOT EXISTS got (stream INTEGER NOT NULL, idx INTEGER NOT NULL)\"]\n"
        ),
    }
}

/// A stream's number and an event's index.
type Event = (usize, i64);

/// A directory of JSON lines that grows file by file.
struct Feed {
    directory: PathBuf,
    files: usize,
    events: Vec<Event>,
    next: Vec<i64>,
}

impl Feed {
    fn new(directory: PathBuf) -> Self {
        fs::create_dir(&directory).unwrap();
        Self { directory, files: 0, events: Vec::new(), next: vec![0; STREAMS] }
    }

    fn path(&self, file: usize) -> PathBuf {
        self.directory.join(format!("{file:06}.jsonl"))
    }

    /// Adds a file.
    fn grow(&mut self) {
        let mut text = Vec::new();
        for number in 0..EVENTS_PER_UNIT {
            let stream = (self.files * EVENTS_PER_UNIT + number) % STREAMS;
            let index = self.next[stream];
            self.next[stream] += 1;
            self.events.push((stream, index));
            writeln!(text, r#"{{"stream":"account-{stream}","index":{index},"type":"Moved","data":{{}}}}"#).unwrap();
        }
        let path = self.path(self.files);
        OpenOptions::new().create_new(true).append(true).open(path).unwrap().write_all(&text).unwrap();
        self.files += 1;
    }

    /// Deletes every file but the last one, which is still followed.
    fn delete_what_was_read(&self) {
        for file in 0..self.files - 1 {
            // Earlier cycles deleted theirs.
            drop(fs::remove_file(self.path(file)));
        }
    }
}

/// An HTTP server that keeps the keys of the requests that it accepts, and fails when told to.
struct Receiver {
    url: String,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Shared {
    fails: AtomicBool,
    /// By pipeline.
    received: Mutex<BTreeMap<String, HashSet<Event>>>,
}

impl Receiver {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Arc::new(Shared::default());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(accept).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, _runtime: runtime }
    }

    fn fails(&self, fails: bool) {
        self.shared.fails.store(fails, Ordering::Relaxed);
    }

    fn received(&self, pipeline: usize) -> Vec<Event> {
        let received = self.shared.received.lock().unwrap();
        received.get(&pipeline.to_string()).map_or_else(Vec::new, |events| events.iter().copied().collect())
    }
}

async fn accept(State(shared): State<Arc<Shared>>, request: Request) -> StatusCode {
    if shared.fails.load(Ordering::Relaxed) {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    // `GROUP/account-STREAM:INDEX`
    let key = request.headers()["idempotency-key"].to_str().unwrap();
    let (stream, index) = key.rsplit_once("account-").unwrap().1.split_once(':').unwrap();
    let event = (stream.parse().unwrap(), index.parse().unwrap());
    let pipeline = request.uri().path().trim_matches('/').to_owned();
    shared.received.lock().unwrap().entry(pipeline).or_default().insert(event);
    StatusCode::OK
}
