//! The binary under test: places to run it in, and a handle of a running daemon.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use propulsiond::clock::{Clock, Timestamp};

/// The limit of every wait in these tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A directory with pipelines in it, and the data directory of the daemon that runs them.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.path("pipelines")).unwrap();
        for (name, text) in files {
            place.write(name, text);
        }
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file beside the pipelines.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("pipelines").join(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Returns the command that runs the pipelines of the place, on a free port unless an argument names one.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare_command(arguments);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command
    }

    /// Returns the command that runs the pipelines of the place, at the address of the settings.
    pub(crate) fn bare_command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.arg("--config").arg(self.path("pipelines"));
        command.arg("--data-dir").arg(self.path("data")).args(arguments);
        command.current_dir(self.directory.path()).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        command
    }

    /// Runs the pipelines to their end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Daemon {
        Daemon::start(self.command(arguments))
    }
}

/// Returns the command without arguments.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_propulsiond"))
}

pub(crate) use crate::measure::run;

/// Asserts the exit code, and parts of the output.
pub(crate) fn check(output: &Output, code: i32, said: &[&str]) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in said {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// Returns the whole output of a run.
pub(crate) fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn signal(id: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status().unwrap();
    assert!(status.success());
}

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: String,
    lines: mpsc::Receiver<String>,
    heard: RefCell<String>,
}

impl Daemon {
    /// Starts a daemon and waits until it serves.
    pub(crate) fn start(command: Command) -> Self {
        let mut daemon = Self::start_unheard(command);
        let line = daemon.wait_for("serving metrics and health");
        // `address=…` in text, `"address":"…"` in JSON.
        let address = line.split("address").nth(1).unwrap().trim_start_matches(['=', '"', ':']);
        daemon.address = address.split([' ', '"']).next().unwrap().to_owned();
        daemon
    }

    /// Starts a daemon that need not serve.
    pub(crate) fn start_unheard(command: Command) -> Self {
        Self::start_with_stdout(command, Stdio::piped())
    }

    /// Starts a daemon that need not serve, with this standard output.
    pub(crate) fn start_with_stdout(mut command: Command, stdout: impl Into<Stdio>) -> Self {
        let mut child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let (said, lines) = mpsc::channel();
        let stdout = child.stdout.take().map(|stdout| Box::new(stdout) as Box<dyn Read + Send>);
        for stream in stdout.into_iter().chain([Box::new(child.stderr.take().unwrap()) as Box<dyn Read + Send>]) {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if said.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Self { child, address: String::new(), lines, heard: RefCell::default() }
    }

    /// Sets the address, for a daemon whose log was not read.
    pub(crate) fn at(mut self, address: &str) -> Self {
        address.clone_into(&mut self.address);
        self
    }

    /// Waits for a line with the text.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let mut seen = String::new();
        let clock = Clock::start();
        while let Ok(line) = self.lines.recv_timeout(LIMIT.saturating_sub(clock.now().since(Timestamp::ZERO))) {
            self.heard.borrow_mut().push_str(&format!("{line}\n"));
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        panic!("`{text}` was not said; this was:\n{seen}");
    }

    /// Returns the lines that were waited for, and those before them.
    pub(crate) fn heard(&self) -> String {
        self.heard.borrow().clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request and returns the status and the body.
    pub(crate) fn request(&self, head: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        self.request_with(head, headers, body.as_bytes())
    }

    /// Like [`request`](Self::request), with a body of bytes. A `GET` is sent once more if its connection breaks without an
    /// answer, as clients do; a daemon that has ended refuses the second connection.
    pub(crate) fn request_with(&self, head: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let mut text = format!("{head} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            text.push_str(&format!("host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let answer = match self.exchange(&text, body) {
            Err(_) if head.starts_with("GET ") => self.exchange(&text, body),
            answer => answer,
        };
        let answer = answer.unwrap_or_else(|error| panic!("{head} has no answer: {error}"));
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, unchunk(&answer, body))
    }

    /// Sends a request over a connection of its own, and reads the answer.
    fn exchange(&self, head: &str, body: &[u8]) -> std::io::Result<String> {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(head.as_bytes())?;
        // The daemon may refuse a large body, and close, before it has read all of it.
        let _all_sent = stream.write_all(body).is_ok();
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.request(&format!("GET {path}"), &[], "")
    }

    /// Repeats a request until the answer is as wanted.
    pub(crate) fn until(&self, path: &str, mut wanted: impl FnMut(u16, &str) -> bool) -> String {
        let clock = Clock::start();
        loop {
            let (status, body) = self.get(path);
            if wanted(status, &body) {
                return body;
            }
            assert!(clock.now().since(Timestamp::ZERO) < LIMIT, "{path} stays at {status}: {body}");
            std::thread::yield_now();
        }
    }

    /// Sends a signal, waits for the end, and returns the exit code and the output.
    pub(crate) fn stop(self, name: &str) -> (Option<i32>, String) {
        signal(self.child.id(), name);
        self.end()
    }

    /// Waits for the end, and returns the exit code and the output.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let mut rest = String::new();
        while let Ok(line) = self.lines.recv_timeout(LIMIT) {
            rest.push_str(&line);
            rest.push('\n');
        }
        (status.code(), rest)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The process may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn unchunk(answer: &str, body: &str) -> String {
    if !answer.to_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let mut out = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        out.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    out
}

/// Returns the number of handled events of a pipeline on a metrics page.
pub(crate) fn handled(page: &str, pipeline: &str) -> u64 {
    let series = format!("propulsiond_handled_events_total{{pipeline=\"{pipeline}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |value| value.parse().unwrap())
}

/// Copies a directory with its subdirectories.
pub(crate) fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
