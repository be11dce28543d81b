//! Runs a page as its reader would: in an empty directory, block by block.
//!
//! | mark above a block | the block |
//! |---|---|
//! | `file: NAME` | is written to the file |
//! | `run` | is run by bash and must succeed; `run: exits with 1` names another code |
//! | `start` | starts a daemon, which serves until the mark `stop` sends Ctrl-C; `stop: exits with 1` |
//! | none, or `in any order`, and ```` ```text ```` | is the output of the block before it |
//! | any other | is judged by `blocks`, or by the commands of the sample's scene |
//!
//! A command with an output is repeated while a daemon runs, until it is done: only one without effects may have an output.
//! In an output `…` stands for anything, and a line of `…` alone for any lines. Times of log lines are not compared.

use std::path::PathBuf;
use std::process::{Command, Output};

use propulsiond::clock::{Clock, Timestamp};

use crate::daemon::{Daemon, LIMIT, copy_directory};
use crate::readme::page::{Block, Item, Page, root};

use super::blocks;

/// The port of the pages. A session replaces it by a free one.
const PORT: &str = "9464";

pub(crate) struct Session<'a> {
    page: &'a Page,
    directory: tempfile::TempDir,
    port: String,
    daemon: Option<Daemon>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(page: &'a Page) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["work", "bin", "home"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let program = directory.path().join("bin/propulsiond");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_propulsiond"), program).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        Self { page, directory, port, daemon: None }
    }

    /// Runs every item of the page.
    pub(crate) fn run(mut self) {
        let mut items = self.page.items().into_iter().peekable();
        while let Some(item) = items.next() {
            match item {
                Item::Mark(mark) => self.mark(&mark.text),
                Item::Block(block) => {
                    let output = items.next_if(|next| matches!(next, Item::Block(next) if next.language == "text"));
                    let output = output.and_then(|item| if let Item::Block(block) = item { Some(block) } else { None });
                    self.block(&block, output.as_ref());
                }
            }
        }
        assert!(self.daemon.is_none(), "{}: the daemon is not stopped", self.page.name);
    }

    fn mark(&mut self, mark: &str) {
        match mark {
            _ if mark == "stop" || mark.starts_with("stop: ") => {
                let daemon = self.daemon.take().unwrap_or_else(|| panic!("{}: nothing to stop", self.page.name));
                let (code, said) = daemon.stop("INT");
                assert_eq!(code, Some(exit_code(mark, "stop")), "{said}");
            }
            "sample" => copy_directory(&root().join("pipelines"), &self.work().join("pipelines")),
            // A generated part of the page: `generated` compares it.
            _ if mark.starts_with("generated") || mark == "end" => {}
            _ => panic!("{}: unknown mark `{mark}`", self.page.name),
        }
    }

    fn block(&mut self, block: &Block, output: Option<&Block>) {
        let place = self.page.place(&block.fence);
        let text = block.text().replace(PORT, &self.port);
        match (block.language.as_str(), block.mark.as_str()) {
            ("sh", "start") => return self.start(&text, output),
            ("sh", mark) if mark.starts_with("run") => {
                return self.run_block(&text, exit_code(mark, "run"), output, &place);
            }
            (_, mark) if mark.starts_with("file: ") => self.write(&mark[6..], &text, &place),
            // The commands without a mark are judged with those of the other pages.
            ("sh", "") => {}
            (language, mark) => blocks::check(language, mark, &text, &place),
        }
        assert!(output.is_none(), "{place}: nothing runs before this output");
    }

    fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    fn write(&self, name: &str, text: &str, place: &str) {
        let is_named = self.page.text.contains(&format!("`{name}`")) || text.lines().next().unwrap().ends_with(name);
        assert!(is_named, "{place}: the reader does not see the name `{name}`");
        let path = self.work().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Returns a command in the reader's environment.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap();
        command.current_dir(self.work()).env("PATH", format!("{}:{path}", self.directory.path().join("bin").display()));
        command.env("HOME", self.directory.path().join("home")).env_remove("RUST_BACKTRACE");
        command.env("PROPULSIOND__LISTEN", format!("127.0.0.1:{}", self.port));
        command
    }

    fn bash(&self, text: &str) -> Output {
        let mut command = self.command("timeout");
        command.arg(LIMIT.as_secs().to_string()).args(["bash", "-euo", "pipefail", "-c"]);
        command.arg(format!("exec 2>&1\n{text}")).output().unwrap()
    }

    fn run_block(&mut self, text: &str, code: i32, wanted: Option<&Block>, place: &str) {
        let clock = Clock::start();
        loop {
            let output = self.bash(text);
            let said = self.shown(&String::from_utf8_lossy(&output.stdout));
            if output.status.code() == Some(code) && wanted.is_none_or(|wanted| is_shown(wanted, &said)) {
                return;
            }
            // A command with an output has no effect. The reader repeats it until the daemon is done.
            let is_over = clock.now().since(Timestamp::ZERO) > LIMIT;
            assert!(
                wanted.is_some() && self.daemon.is_some() && !is_over,
                "{place}: `{text}` ends with {}, wanted\n{}\nbut it says\n{said}",
                output.status,
                wanted.map(Block::text).unwrap_or_default(),
            );
        }
    }

    fn start(&mut self, text: &str, wanted: Option<&Block>) {
        let mut command = self.command("bash");
        command.arg("-c").arg(format!("exec {text}"));
        let daemon = Daemon::start(command);
        if let Some(wanted) = wanted {
            hears(&daemon, &wanted.text());
        }
        self.daemon = Some(daemon);
    }

    /// Returns an output as the page shows it.
    fn shown(&self, said: &str) -> String {
        said.replace(&self.port, PORT).replace(&*self.work().to_string_lossy(), "/home/ada/work")
    }
}

/// Returns the exit code that a mark names, such as `run: exits with 1`; 0 by default.
fn exit_code(mark: &str, verb: &str) -> i32 {
    let named = mark.strip_prefix(verb).and_then(|rest| rest.strip_prefix(": exits with "));
    named.map_or(0, |code| code.parse().unwrap())
}

/// Waits until the daemon has said each line.
fn hears(daemon: &Daemon, wanted: &str) {
    let mut missing: Vec<_> = wanted.lines().filter(|line| *line != "…").map(pattern).collect();
    let heard = daemon.heard();
    missing.retain(|pattern| !heard.lines().any(|line| pattern.is_match(line)));
    while let Some(first) = missing.first() {
        assert!(daemon.heard().lines().count() < 1_000, "nothing said matches `{first}`");
        let line = daemon.wait_for("");
        missing.retain(|pattern| !pattern.is_match(&line));
    }
}

/// Returns the pattern of one line of an output.
fn pattern(line: &str) -> regex::Regex {
    regex::Regex::new(&format!("^{}$", expression(line))).unwrap()
}

fn expression(line: &str) -> String {
    let time = regex::Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ").unwrap();
    let line = time.replace(line, "TIME ");
    regex::escape(&line).replace('…', ".*").replace("TIME ", r"\S+Z ")
}

/// Returns whether an output is the wanted one.
fn is_shown(wanted: &Block, said: &str) -> bool {
    let text = wanted.text();
    if wanted.mark == "in any order" {
        let mut said: Vec<_> = said.lines().collect();
        let mut wanted = text.lines().filter(|line| *line != "…");
        let all_there = wanted.all(|line| {
            let at = said.iter().position(|said| pattern(line).is_match(said));
            at.map(|at| said.remove(at)).is_some()
        });
        return all_there && (said.is_empty() || text.lines().any(|line| line == "…"));
    }
    let lines = text.trim_end().lines().map(|line| match line {
        "…" => "(?:.*\n)*".to_owned(),
        line => format!("{}\n", expression(line)),
    });
    let whole = regex::Regex::new(&format!("^{}$", lines.collect::<String>())).unwrap();
    whole.is_match(&format!("{}\n", said.trim_end()))
}

#[test]
fn an_output_is_compared_line_by_line() {
    let is_shown = |wanted: &str, said: &str, is_unordered: bool| {
        let mark = if is_unordered { "<!-- in any order -->\n" } else { "" };
        let page = Page { name: "here".to_owned(), text: format!("{mark}```text\n{wanted}```\n") };
        is_shown(&page.blocks()[0], said)
    };
    let log = "2026-11-28T03:00:00.123Z  INFO ready in 12ms\n";
    assert!(is_shown("2026-01-01T00:00:00.000Z  INFO ready in …\n", log, false));
    assert!(!is_shown("2026-01-01T00:00:00.000Z  INFO ready\n", log, false));
    assert!(is_shown("a\n…\nd\n", "a\nb\nc\nd\n", false) && is_shown("a\n…\n", "a\n", false));
    assert!(!is_shown("a\nb\n", "a\nb\nc\n", false) && !is_shown("a\nb\n", "b\na\n", false));
    assert!(
        is_shown("a\nb\n", "b\na\n", true) && !is_shown("a\n", "b\na\n", true) && !is_shown("a\na\n", "b\na\n", true)
    );
}
