//! What goes wrong, and what is said then: a table of broken things, each with the very words that its user reads.
//!
//! `PROPULSIOND_MEASURE=1 cargo test --test it mistakes -- --nocapture --test-threads 1` says how long each case takes
//! and how much memory, and fails where that is more than a second or 100 MB. Without `mistakes` it measures what other tests run,
//! too.

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
use std::process::{Command, Output, Stdio};

use expect_test::Expect;

use crate::daemon::{program, run};

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
        let output = run(&mut self.command());
        let folder = self.folder.path().display().to_string();
        let said = said(&output).replace(&format!("{folder}/"), "").replace(&folder, ".");
        assert!(!said.contains("panicked"), "{said}");
        // A process that a signal ended has none.
        let code = output.status.code().expect("it ended by itself");
        format!("exit {code}\n{}\n", said.trim_end())
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("what is said is UTF-8");
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// What [`Case::toml`] may read.
const FEED: (&str, &str) = ("pipelines/events.jsonl", "{\"stream\":\"a-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n");

/// Asserts how it ends, and what is said, word by word.
fn check(case: Case, expected: Expect) {
    expected.assert_eq(&case.run());
}
