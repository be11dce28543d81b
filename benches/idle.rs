//! The weight of idle pipelines: `cargo bench --bench idle [-- PIPELINES]`.
//!
//! Runs the daemon over many pipelines of one feed each, with the default checkpoint store. Each row shows the daemon's
//! resident memory, the lines of its metrics and its threads: once after every pipeline has handled one event, and once
//! after a restart, when none has anything to do.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures, and says what"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The time for idle threads to end. The runtime keeps a thread for ten seconds after its last blocking work.
const SETTLE: Duration = Duration::from_secs(20);
const START_LIMIT: Duration = Duration::from_secs(120);

fn main() {
    let pipelines = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(200);
    println!("{pipelines} pipelines: memory, metric lines, threads");
    println!("`null` sink");
    measure(pipelines, |_| "[sink.null]\n".to_owned());
    println!("a SQLite file each");
    measure(pipelines, |number| format!("[sink.sqlite]\npath = \"shop{number}.db\"\n"));
}

fn measure(pipelines: usize, sink: impl Fn(usize) -> String) {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("pipelines");
    fs::create_dir(&files).unwrap();
    for number in 0..pipelines {
        let event = r#"{"stream":"a-1","index":0,"type":"Placed","data":{"total":1}}"#;
        fs::write(files.join(format!("feed{number}.jsonl")), format!("{event}\n")).unwrap();
        let text = format!("[source.json]\npath = \"feed{number}.jsonl\"\n\n{}", sink(number));
        fs::write(files.join(format!("p{number}.toml")), text).unwrap();
    }
    for (what, handled) in [("  after one event each", pipelines), ("  after a restart", 0)] {
        let daemon = Daemon::start(directory.path());
        daemon.settle(pipelines, handled);
        let (lines, memory, threads) =
            (daemon.get("/metrics").lines().count(), daemon.status("VmRSS:") / 1_024, daemon.status("Threads:"));
        println!("{what:40}{memory:>7} MB{lines:>8}{threads:>5}");
        daemon.stop();
    }
}

struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_propulsiond"))
            .args(["run", "--config", "pipelines"])
            .current_dir(directory)
            .envs([("PROPULSIOND__LISTEN", "127.0.0.1:0"), ("PROPULSIOND__LOG__FORMAT", "json")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let serving = log.find(|line| line.contains("serving metrics")).expect("the daemon serves metrics");
        let serving: serde_json::Value = serde_json::from_str(&serving).unwrap();
        let address = serving["address"].as_str().unwrap().to_owned();
        // The daemon must not wait for room in the pipe.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, address }
    }

    /// Waits until every pipeline is at its tail, then until idle threads have ended.
    fn settle(&self, pipelines: usize, handled: usize) {
        let limit = Instant::now() + START_LIMIT;
        loop {
            let page = self.get("/metrics");
            let at_tail = page.lines().filter(|line| line.starts_with("propulsiond_lag{") && line.ends_with(" 0"));
            let events = page.lines().filter(|line| line.starts_with("propulsiond_handled_events_total{"));
            if at_tail.count() == pipelines && events.filter(|line| line.ends_with(" 1")).count() == handled {
                break;
            }
            assert!(Instant::now() < limit, "the pipelines did not reach their tails");
            std::thread::sleep(Duration::from_millis(200));
        }
        std::thread::sleep(SETTLE);
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").expect("an HTTP answer").1.to_owned()
    }

    /// Returns a number of `/proc/PID/status`.
    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}
