//! The daemon: flags and settings in, an exit code out.

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use propulsiond::app::{App, NotStarted, verbs};
use propulsiond::cli::{CheckArgs, Cli, ExitStatus, ExplainArgs, RunArgs, Verb};
use propulsiond::clock::Clock;
use propulsiond::document::{Problem, Style};
use propulsiond::logging;
use propulsiond::settings::{LogFormat, Settings};
use tokio::signal::unix::{SignalKind, signal};

/// Events are allocated by readers and freed by drivers and handlers: what the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.common.json;
    match cli.verb() {
        Verb::Run(args) => with_settings(&cli, |settings| run(settings, args, json)),
        Verb::Check(args) => with_settings(&cli, |settings| check(settings, args, json)),
        Verb::Explain(args) => with_settings(&cli, |settings| explain(settings, args, json)),
        Verb::Schema(args) => print(&verbs::schema(args)),
        Verb::Completion(args) => print(&verbs::completion(args, json)),
        Verb::Man(args) => match verbs::man(args, json) {
            Ok(text) => print(&text),
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitStatus::BadEnvironment
            }
        },
    }
    .into()
}

fn with_settings(cli: &Cli, verb: impl FnOnce(&Settings) -> ExitStatus) -> ExitStatus {
    match Settings::load(cli.common.settings.as_deref(), std::env::vars_os(), &cli.common.flags()) {
        Ok(settings) => verb(&settings),
        Err(problems) => report(&problems, cli.common.json),
    }
}

fn run(settings: &Settings, args: &RunArgs, json: bool) -> ExitStatus {
    let format = match settings.log.format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    let logs = match logging::start(format, &settings.log.level, Clock::start()) {
        Ok(logs) => logs,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitStatus::BadFiles;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot be started: {error}");
            return ExitStatus::BadEnvironment;
        }
    };
    let status = runtime.block_on(async {
        // Before anything is said or taken: whoever sees the daemon may signal it.
        let signals = signals();
        match App::build(settings, args).await {
            Ok(app) => app.run(logs.clone(), signals).await,
            Err(NotStarted::Files(problems)) => report(&problems, json),
            Err(NotStarted::Environment(error)) => {
                eprintln!("error: {error:#}");
                ExitStatus::BadEnvironment
            }
        }
    });
    logs.summarise_all();
    // A pipe that nobody empties would keep its thread, and the process, for ever.
    runtime.shutdown_timeout(Duration::from_secs(1));
    status
}

/// Takes signals from here on. Resolves at the first one to stop; a second one ends the process there and then.
fn signals() -> impl Future<Output = u8> + Send {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM can be installed");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler for SIGINT can be installed");
    // Without a handler it would end the process, undrained.
    let mut hang_up = signal(SignalKind::hangup()).expect("a handler for SIGHUP can be installed");
    let mut next = async move || {
        let kind = loop {
            tokio::select! {
                _ = terminate.recv() => break SignalKind::terminate(),
                _ = interrupt.recv() => break SignalKind::interrupt(),
                _ = hang_up.recv() => {
                    tracing::warn!("SIGHUP changes nothing: files that changed are read at the next start");
                }
            }
        };
        u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX)
    };
    async move {
        let first = next().await;
        #[expect(
            clippy::disallowed_methods,
            reason = "it outlives everything that is supervised, and ends with the process"
        )]
        tokio::spawn(async move {
            let second = next().await;
            eprintln!("a second signal: ending at once");
            std::process::exit(ExitStatus::Signalled(second).code().into());
        });
        first
    }
}

fn check(settings: &Settings, args: &CheckArgs, json: bool) -> ExitStatus {
    let problems = propulsiond::app::check(settings, args);
    if !problems.is_empty() {
        return report(&problems, json);
    }
    if json {
        return print("[]\n");
    }
    eprintln!("no problems found");
    ExitStatus::Ok
}

fn explain(settings: &Settings, args: &ExplainArgs, json: bool) -> ExitStatus {
    match verbs::explain(settings, args) {
        Ok(explanation) if json => print(&(explanation.to_json() + "\n")),
        Ok(explanation) => print(&explanation.render()),
        Err(problems) => report(&problems, json),
    }
}

/// Shows what is wrong with files.
fn report(problems: &[Problem], json: bool) -> ExitStatus {
    if json {
        let problems = serde_json::Value::from_iter(problems.iter().map(Problem::to_json));
        print(&format!("{problems}\n"));
    } else {
        let style = if std::io::stderr().is_terminal() { Style::Colour } else { Style::Plain };
        for problem in problems {
            eprintln!("{}", problem.render(style));
        }
    }
    ExitStatus::BadFiles
}

/// Gives the answer that was asked for. Whoever has read enough of it may close the pipe.
fn print(text: &str) -> ExitStatus {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output: {error}");
            ExitStatus::BadEnvironment
        }
        _ => ExitStatus::Ok,
    }
}
