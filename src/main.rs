//! The program: flags and settings in, an exit code out.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use propulsiond::app::output::Output;
use propulsiond::app::{App, NotStarted, commands, rebuild, signals};
use propulsiond::cli::{self, Cli, Command, CommandLine, ExitStatus};
use propulsiond::clock::Clock;
use propulsiond::config::document::Problem;
use propulsiond::config::settings::DaemonSettings;
use propulsiond::telemetry::logging;
use tokio::sync::Notify;

/// Readers allocate events, and drivers and handlers free them in other threads. The system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The time for threads to end. One may hang in a write to a full pipe.
const THREADS_TO_END: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let line = CommandLine::new(std::env::args_os().skip(1));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match cli::explain(&error, &line) {
            Some(problem) => return Output { json: line.wants_json() }.problems(&[problem]).into(),
            // Help and version: clap prints them.
            None => error.exit(),
        },
    };
    let output = Output { json: cli.common.json };
    if let Some(problem) = line.misuse(&cli) {
        return output.problems(&[problem]).into();
    }
    if let Some(status) = commands::run_without_settings(&cli, output) {
        return status.into();
    }
    let (settings, advice) = match commands::settings(&cli) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let problems: Vec<_> = problems.into_iter().map(|problem| line.locate(problem)).collect();
            return output.problems(&problems).into();
        }
    };
    let status = match cli.selected() {
        command @ (Command::Run(_) | Command::Rebuild(_)) => run(&settings, &advice, &command, output),
        _ => commands::run(&cli, &settings, advice, output),
    };
    status.into()
}

/// Runs a command that runs pipelines.
fn run(settings: &DaemonSettings, advice: &[Problem], command: &Command<'_>, output: Output) -> ExitStatus {
    let logs = match logging::start(&settings.log, Clock::start()) {
        Ok(logs) => logs,
        Err(error) => return output.environment(&error.into()),
    };
    for problem in advice {
        tracing::warn!(help = problem.help.as_deref(), "{problem}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.environment(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let status = runtime.block_on(async {
        // The handlers are installed before the first log line: a reader of that line may send a signal at once.
        let reload = Arc::new(Notify::new());
        let signals = signals::stop_signals(Arc::clone(&reload));
        match command {
            Command::Rebuild(args) => rebuild(settings, args, output, logs.clone(), signals).await,
            Command::Run(args) => match App::build(settings, args).await {
                Ok(app) => app.run(logs.clone(), reload, signals).await,
                Err(NotStarted::Files(problems)) => output.problems(&problems),
                Err(NotStarted::Environment(error)) => output.environment(&error),
            },
            other => panic!("`{other:?}` runs no pipelines"),
        }
    });
    logs.summarise_all();
    runtime.shutdown_timeout(THREADS_TO_END);
    status
}
