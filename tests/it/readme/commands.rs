//! Checks the commands of a page: runs those of the program, and looks for the files that other commands name.

use std::cell::{Cell, OnceCell, RefCell};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser as _;
use propulsiond::cli::{self, CheckpointVerb, Cli};
use propulsiond::config::settings::{DaemonSettings, Listen};

use super::page::{Part, is_assignment, is_program, root};
use crate::daemon::{Daemon, Place, check, copy_directory, program, run};
use crate::deploy::{Image, manifest};

/// The scene of commands: a copy of the sample that ran to its tail, a daemon on it, and a root for installed files.
pub(crate) struct Scene {
    place: Place,
    daemon: OnceCell<Daemon>,
    runs: Cell<usize>,
    /// The names of earlier containers and images.
    named: RefCell<Vec<String>>,
}

type Judged = Result<(), String>;

/// The values for the placeholders of the pages.
const STAND_INS: [(&str, &str); 8] = [
    ("NAME", "orders"),
    ("PIPELINE", "orders"),
    ("PATH", "pipelines"),
    ("STREAM", "order-1003"),
    ("TOKEN", "unused"),
    ("FILE", "pipelines/foreign/forge/deliveries.jsonl"),
    ("webhooks.jsonl", "pipelines/foreign/forge/deliveries.jsonl"),
    ("TARGET", "spec_toml"),
];

impl Scene {
    pub(crate) fn new() -> Self {
        let place = Place::new(&[]);
        for directory in ["pipelines", "config"] {
            copy_directory(&root().join(directory), &place.path(directory));
        }
        for directory in ["root/usr/local/bin", "root/etc/systemd/system"] {
            std::fs::create_dir_all(place.path(directory)).unwrap();
        }
        check(&place.run(&["--until-tail"]), 0, &["finished: "]);
        copy_directory(&place.path("data"), &place.path("root/var/lib/propulsiond"));
        Self { place, daemon: OnceCell::new(), runs: Cell::new(0), named: RefCell::default() }
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.get_or_init(|| {
            let daemon = Daemon::start(self.anywhere(&["--config", "pipelines"]));
            daemon.until("/health", |_, body| body.matches("running: everything is handled").count() >= 2);
            daemon
        })
    }

    /// Returns the command with arguments, a free port and a data directory of its own.
    fn anywhere(&self, arguments: &[&str]) -> Command {
        self.runs.set(self.runs.get() + 1);
        let mut command = program();
        command.args(arguments).current_dir(self.place.path("")).env_remove("RUST_BACKTRACE");
        command.args(["--listen", "127.0.0.1:0", "--data-dir", &format!("data-{}", self.runs.get())]);
        command
    }

    /// Runs a command, or checks the files and names in it.
    ///
    /// # Errors
    /// A file or name does not exist.
    ///
    /// # Panics
    /// The command fails.
    pub(crate) fn judge(&self, command: &Part) -> Judged {
        let words = words(&command.text);
        let of_command = words.iter().position(|word| !is_assignment(word)).unwrap_or(words.len());
        for variable in &words[..of_command] {
            is_read(variable.split_once('=').map_or(variable, |(name, _)| name))?;
        }
        let words: Vec<_> = words[of_command..].iter().map(String::as_str).collect();
        if words.is_empty() { Ok(()) } else { self.judge_words(&words) }
    }

    fn judge_words(&self, words: &[&str]) -> Judged {
        match words {
            ["cargo", verb, rest @ ..] => self.cargo(verb, rest),
            ["propulsiond", arguments @ ..] => self.propulsiond(arguments),
            ["curl", arguments @ ..] => self.curl(arguments),
            ["docker", verb, rest @ ..] => self.docker(verb, rest),
            ["kubectl", rest @ ..] => self.kubectl(rest),
            ["systemctl", "enable", "--now", unit] => exists(&format!("deploy/{unit}.service")),
            ["sqlite3", database, backup] => self.sqlite3(database, backup),
            ["dpkg", "-i", "propulsiond.deb"] => self.dpkg(),
            ["install" | "cp" | "mkdir", ..] => self.for_real(words),
            ["mdbook", "build", book] => exists(&format!("{book}/book.toml")),
            ["fuzz/run", target] => exists(&format!("fuzz/fuzz_targets/{}.rs", stood_in(target))),
            [script] | [script, "--check"] if is_program(script) => is_a_script(script),
            _ => Err("the test does not know how to run this".to_owned()),
        }
    }

    fn cargo(&self, verb: &str, rest: &[&str]) -> Judged {
        let end = rest.iter().position(|word| *word == "--").unwrap_or(rest.len());
        let (of_cargo, of_program) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
        match (verb, of_cargo) {
            ("run", ["--no-default-features"] | ["--release"] | []) => self.propulsiond(of_program),
            ("test", ["--test", "it", filters @ ..]) => has_tests(filters, of_program),
            ("bench", ["--bench", name]) => exists(&format!("benches/{name}.rs")).and_then(|()| is_a_bench(name)),
            ("test", []) | ("build", ["--release", "--locked"]) | ("doc", ["--open"]) => Ok(()),
            ("install", ["--path", ".", "--locked"]) => Ok(()),
            _ => Err("the test does not know these arguments of cargo".to_owned()),
        }
    }

    fn propulsiond(&self, arguments: &[&str]) -> Judged {
        // A redirection is the shell's.
        let arguments = arguments.split(|word| *word == ">").next().unwrap_or_default();
        let arguments: Vec<_> = arguments.iter().map(|word| self.installed(&stood_in(word))).collect();
        let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let line =
            Cli::try_parse_from([&["propulsiond"][..], &arguments].concat()).map_err(|error| error.to_string())?;
        match line.selected() {
            cli::Command::Run(args) if args.until_tail => {
                check(&run(&mut self.anywhere(&arguments)), 0, &["finished: "])
            }
            cli::Command::Run(_) => {
                let daemon = Daemon::start(self.anywhere(&arguments));
                daemon.until("/readyz", |status, _| status == 200);
                assert_eq!(daemon.stop("INT").0, Some(0));
            }
            cli::Command::Health | cli::Command::Status(_) => {
                let said = if arguments[0] == "health" { "healthy and ready" } else { "running" };
                // With it, `status` would not end by itself.
                arguments.retain(|argument| *argument != "--watch");
                arguments.extend(["--listen", &self.daemon().address]);
                check(&self.run_here(&arguments), 0, &[said]);
            }
            // The log of a new pipeline goes back to no such time, and holds no such position.
            cli::Command::Checkpoint(args)
                if matches!(args.verb, CheckpointVerb::Rewind { .. } | CheckpointVerb::Set { .. }) => {}
            // The pages name streams of their own pipelines, and a draft of the reader's.
            cli::Command::Parked(_) | cli::Command::Diff(_) => {}
            cli::Command::Reload(_) | cli::Command::Control(..) => {
                arguments.extend(["--listen", &self.daemon().address]);
                check(&self.run_here(&arguments), 0, &[]);
            }
            _ => check(&self.run_here(&arguments), 0, &[]),
        }
        Ok(())
    }

    fn run_here(&self, arguments: &[&str]) -> std::process::Output {
        run(program().args(arguments).current_dir(self.place.path("")).env_remove("RUST_BACKTRACE"))
    }

    /// Sends the request of a `curl` command to the daemon.
    fn curl(&self, arguments: &[&str]) -> Judged {
        let (headers, url) = match arguments {
            [url] => (Vec::new(), url),
            ["-H", header, url] => (header.split_once(": ").into_iter().collect(), url),
            _ => return Err("the test does not know these arguments of curl".to_owned()),
        };
        let (address, path) = url.split_once('/').ok_or("a path is missing")?;
        let Listen::At(default) = DaemonSettings::default().listen else { unreachable!("it listens by default") };
        if !address.ends_with(&format!(":{}", default.port())) {
            return Err(format!("the daemon listens on port {}", default.port()));
        }
        self.answers("GET", &format!("/{path}"), &headers)
    }

    /// Sends a request with the placeholders replaced, and expects success.
    pub(crate) fn answers(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Judged {
        let path = path.split('/').map(stood_in).collect::<Vec<_>>().join("/");
        let (status, body) = self.daemon().request(&format!("{method} {path}"), headers, "");
        if (200..300).contains(&status) {
            Ok(())
        } else {
            Err(format!("{method} {path} is answered by {status}: {body}"))
        }
    }

    fn docker(&self, verb: &str, rest: &[&str]) -> Judged {
        match (verb, rest) {
            ("build", ["-t", image, context]) => {
                self.named.borrow_mut().push((*image).to_owned());
                exists(&format!("{context}/Dockerfile"))
            }
            ("run", [options @ .., image]) => {
                self.is_named(image)?;
                self.docker_run(options)
            }
            ("exec", [container, command @ ..]) => {
                self.is_named(container)?;
                self.judge_words(command)
            }
            ("compose", ["-f", file, "up" | "down", "--build" | "--volumes"]) => exists(file),
            _ => Err("the test does not know these arguments of docker".to_owned()),
        }
    }

    fn docker_run(&self, mut options: &[&str]) -> Judged {
        let image = Image::read();
        while let [option, rest @ ..] = options {
            let value = rest.first().copied().unwrap_or_default();
            let takes_value = match *option {
                "-d" | "--read-only" => false,
                "--tmpfs" | "--cap-drop" | "--security-opt" => true,
                "--name" => {
                    self.named.borrow_mut().push(value.to_owned());
                    true
                }
                "--stop-timeout" => {
                    let patience: u64 = value.parse().map_err(|_| "the time is no number")?;
                    assert!(patience > DaemonSettings::default().drain.as_secs(), "it is killed while it drains");
                    true
                }
                "-p" => {
                    assert!(value.ends_with(&format!(":{}", image.last("EXPOSE"))), "{value} is not the image's port");
                    true
                }
                "-v" => {
                    assert!(
                        value.ends_with(&format!(":{}", image.last("VOLUME"))),
                        "{value} is not the image's volume"
                    );
                    true
                }
                _ => return Err(format!("the test does not know `{option}`")),
            };
            options = &rest[usize::from(takes_value)..];
        }
        Ok(())
    }

    fn is_named(&self, name: &str) -> Judged {
        let known = self.named.borrow().iter().any(|known| known == name);
        if known { Ok(()) } else { Err(format!("no command before this one made `{name}`")) }
    }

    fn kubectl(&self, words: &[&str]) -> Judged {
        let deployment = |object: &str| {
            let name = object.strip_prefix("deployment/").ok_or(format!("`{object}` is no deployment"))?;
            manifest("Deployment", name);
            Ok(())
        };
        match words {
            ["apply", "-f", path] => exists(path),
            ["rollout", "status" | "restart", object] => deployment(object),
            ["exec", object, "--", command @ ..] => deployment(object).and_then(|()| self.judge_words(command)),
            _ => Err("the test does not know these arguments of kubectl".to_owned()),
        }
    }

    /// Runs a command of SQLite's shell on the sample's data.
    fn sqlite3(&self, database: &str, command: &str) -> Judged {
        let target = command.strip_prefix(".backup ").ok_or("the test knows `.backup` alone")?;
        let database = self.place.path(database);
        if !database.is_file() {
            return Err(format!("the sample left no `{}`", database.display()));
        }
        let target = self.place.path(target).to_str().map(str::to_owned);
        let copied = rusqlite::Connection::open(database).unwrap().execute("VACUUM INTO ?1", [target]);
        copied.map(drop).map_err(|error| error.to_string())
    }

    /// Puts the files of the Debian package that later commands name into their places. `deploy/package --check` installs the
    /// real package.
    fn dpkg(&self) -> Judged {
        self.for_real(&["mkdir", "-p", "/usr/share/doc/propulsiond/examples", "/etc/propulsiond/pipelines"])?;
        self.for_real(&["cp", "-r", "pipelines", "/usr/share/doc/propulsiond/examples/"])?;
        self.for_real(&["cp", "config/propulsiond.toml", "/etc/propulsiond/"])
    }

    /// Runs a command that copies files of the repository below the scene's root, or of the sample's data.
    fn for_real(&self, words: &[&str]) -> Judged {
        let of_data =
            words[1..].iter().any(|word| ["data", "backup"].contains(&word.split('/').next().unwrap_or_default()));
        let words = words
            .iter()
            .map(|word| self.installed(word).replace("target/release/propulsiond", env!("CARGO_BIN_EXE_propulsiond")));
        let words: Vec<_> = words.collect();
        let directory = if of_data { self.place.path("") } else { root().to_owned() };
        let output = Command::new(&words[0]).args(&words[1..]).current_dir(directory).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Moves a path below `/etc`, `/usr` or `/var` to the scene's root.
    fn installed(&self, word: &str) -> String {
        let below_root = |path: &str| self.place.path("root").join(path).to_str().unwrap().to_owned();
        match word.strip_prefix('/') {
            Some(path) if ["etc/", "usr/", "var/"].iter().any(|start| path.starts_with(start)) => below_root(path),
            _ => word.to_owned(),
        }
    }
}

/// Splits a line into words as a shell does, with quotes only.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match c {
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            _ if quote == Some(c) => quote = None,
            ' ' if quote.is_none() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn stood_in(word: &str) -> String {
    STAND_INS.iter().find(|(name, _)| *name == word).map_or(word, |(_, value)| value).to_owned()
}

fn exists(path: &str) -> Judged {
    if root().join(path).exists() { Ok(()) } else { Err(format!("there is no `{path}`")) }
}

fn is_a_bench(name: &str) -> Judged {
    let package: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let benches = package["bench"].as_array().unwrap();
    let is_there = benches.iter().any(|bench| bench["name"].as_str() == Some(name));
    if is_there { Ok(()) } else { Err(format!("Cargo.toml has no bench `{name}`")) }
}

/// Expects the test binary to list tests that match a filter.
fn has_tests(filters: &[&str], of_program: &[&str]) -> Judged {
    if !of_program.iter().all(|word| ["--nocapture", "--test-threads", "1"].contains(word)) {
        return Err("the test does not know these arguments of a test".to_owned());
    }
    let listed = run(Command::new(std::env::current_exe().unwrap()).args(filters).arg("--list"));
    let listed = String::from_utf8_lossy(&listed.stdout).matches(": test").count();
    if listed > 0 { Ok(()) } else { Err(format!("no test has {filters:?} in its name")) }
}

fn is_a_script(path: &str) -> Judged {
    let output = Command::new("bash").arg("-n").arg(root().join(path)).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Expects that code of the repository reads a variable.
fn is_read(variable: &str) -> Judged {
    let asked_for = format!("(\"{variable}\")");
    let mut directories: Vec<PathBuf> = ["src", "tests", "benches"].map(|directory| root().join(directory)).into();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && asks(&path, &asked_for) {
                return Ok(());
            }
        }
    }
    Err(format!("nothing reads the variable `{variable}`"))
}

fn asks(file: &Path, text: &str) -> bool {
    std::fs::read_to_string(file).unwrap().contains(text)
}
