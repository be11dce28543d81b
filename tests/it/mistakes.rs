//! What goes wrong, and what is said then: a table of broken things, each with the very words that its user reads.
//!
//! `PROPULSIOND_MEASURE=1 cargo test --test it mistakes -- --nocapture --test-threads 1` says how long each case takes
//! and how much memory, and fails where that is more than a second or 100 MB.

mod across;
mod command_line;
mod environment;
mod references;
mod running;
mod scripts;
mod secrets;
mod settings;
mod syntax;
mod values;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use expect_test::Expect;
use propulsiond::clock::{Clock, Timestamp};

use crate::daemon::{LIMIT, program, signal};

/// What a user has before them.
struct Case {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, std::ffi::OsString)>,
}

impl Case {
    /// Files by their paths. Without [`arguments`](Self::arguments), all pipelines are checked.
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pipelines")).unwrap();
        let case = Self { folder, arguments: vec!["check".to_owned()], variables: Vec::new() };
        for (name, text) in files {
            case.write(name, text.as_bytes());
        }
        case
    }

    /// A pipeline of that text, `pipelines/p.toml`, with a feed and a script that could be its.
    fn toml(text: &str) -> Self {
        Self::new(&[("pipelines/p.toml", text), ("pipelines/ok.rhai", "fn handle(stream, events) {}\n"), FEED])
    }

    /// As [`toml`](Self::toml), `pipelines/p.yaml`.
    fn yaml(text: &str) -> Self {
        Self::new(&[("pipelines/p.yaml", text), ("pipelines/ok.rhai", "fn handle(stream, events) {}\n"), FEED])
    }

    /// A pipeline whose script, `pipelines/p.rhai`, is that text.
    fn script(text: &str) -> Self {
        Self::new(&[
            ("pipelines/p.toml", "[source.memory]\n[handler.rhai]\nscript = \"p.rhai\"\n[sink.stdout]\n"),
            ("pipelines/p.rhai", text),
        ])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn and(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.write(name, bytes.as_ref());
        self
    }

    /// Does something to the folder.
    fn with(self, change: impl FnOnce(&Path)) -> Self {
        change(self.folder.path());
        self
    }

    fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    fn variable(mut self, name: &str, value: impl Into<std::ffi::OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    fn command(&self) -> Command {
        let mut command = program();
        command.args(&self.arguments).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end; returns the code, and all that was said, without the path of the folder.
    fn run(&self) -> String {
        let ended = run(&mut self.command());
        let folder = self.folder.path().display().to_string();
        let said = format!("{}{}", ended.stdout, ended.stderr).replace(&format!("{folder}/"), "").replace(&folder, ".");
        assert!(!said.contains("panicked"), "{said}");
        // A process that a signal ended has none.
        let code = ended.code.expect("it ended by itself");
        if std::env::var_os("PROPULSIOND_MEASURE").is_some() {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            eprintln!("{:>6} ms {:>6} KiB  {name}: {}", ended.took.as_millis(), ended.peak, self.arguments.join(" "));
            assert!(ended.took < Duration::from_secs(1), "it took {:?}:\n{said}", ended.took);
            assert!(ended.peak < 100 * 1_000, "it took {} KiB:\n{said}", ended.peak);
        }
        format!("exit {code}\n{}\n", said.trim_end())
    }
}

/// What [`Case::toml`] may read.
const FEED: (&str, &str) = ("pipelines/events.jsonl", "{\"stream\":\"a-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n");

/// Asserts how it ends, and what is said, word by word.
fn check(case: Case, expected: Expect) {
    expected.assert_eq(&case.run());
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
    /// The most memory that it was seen to hold, in KiB. It is looked at until the end, not after it.
    peak: u64,
}

fn run(command: &mut Command) -> Ended {
    let clock = Clock::start();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let readers = [read_all(child.stdout.take().unwrap()), read_all(child.stderr.take().unwrap())];
    let (tick, ticks) = mpsc::channel::<()>();
    let mut peak = 0;
    let status = loop {
        peak = peak.max(peak_memory(id));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if clock.now().since(Timestamp::ZERO) > LIMIT {
            signal(id, "KILL");
        }
        // Nobody sends: this waits a moment.
        assert!(ticks.recv_timeout(Duration::from_millis(1)).is_err());
    };
    drop(tick);
    let took = clock.now().since(Timestamp::ZERO);
    let [stdout, stderr] = readers.map(|reader| reader.join().unwrap());
    Ended { code: status.code(), stdout, stderr, took, peak }
}

fn read_all(mut stream: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).expect("what is said is UTF-8")
    })
}

fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}
