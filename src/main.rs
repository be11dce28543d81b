//! The daemon: flags and settings in, an exit code out.

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use propulsiond::app::{App, NotStarted, verbs};
use propulsiond::cli::{
    self, CheckArgs, Cli, CommandLine, CommonArgs, DoctorArgs, ExitStatus, ExplainArgs, NewArgs, RunArgs, TestArgs,
    Verb,
};
use propulsiond::clock::Clock;
use propulsiond::commands::doctor::NotLooked;
use propulsiond::commands::scaffold::{self, NotMade};
use propulsiond::config::document::{Problem, Style};
use propulsiond::config::scalar;
use propulsiond::config::settings::{LogFormat, Settings};
use propulsiond::telemetry::health::Health;
use propulsiond::telemetry::logging;
use tokio::signal::unix::{SignalKind, signal};

/// Events are allocated by readers and freed by drivers and handlers: what the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let line = CommandLine::new(std::env::args_os().skip(1));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match cli::explain(&error, &line) {
            Some(problem) => return report(&[problem], line.wants_json()).into(),
            None => error.exit(),
        },
    };
    let json = cli.common.json;
    let status = match cli.verb() {
        Verb::Run(args) => with_settings(&cli, &line, |settings, advice| run(settings, &advice, args, json)),
        Verb::Check(args) => with_settings(&cli, &line, |settings, advice| check(settings, advice, args, json)),
        Verb::Explain(args) => with_settings(&cli, &line, |settings, _| explain(settings, args, json)),
        Verb::Test(args) => with_settings(&cli, &line, |settings, _| test(settings, args, &cli.common)),
        Verb::New(args) => new(args, json),
        Verb::Doctor(args) => with_settings(&cli, &line, |settings, _| doctor(settings, args, json)),
        Verb::Health => with_settings(&cli, &line, |settings, _| health(settings, json)),
        Verb::Schema(args) => print(&verbs::schema(args)),
        Verb::Completion(args) => print(&verbs::completion(args, json)),
        Verb::Man(args) => match verbs::man(args, json) {
            Ok(text) => print(&text),
            Err(error) => no_environment(&error, json),
        },
    };
    status.into()
}

/// Runs a verb with the settings, and what is to be said of where those come from.
fn with_settings(
    cli: &Cli,
    line: &CommandLine,
    verb: impl FnOnce(&Settings, Vec<Problem>) -> ExitStatus,
) -> ExitStatus {
    let file = cli.common.settings.as_deref();
    let load = || Settings::load(file, std::env::vars_os(), &cli.common.flags());
    let allows_missing = match cli.verb() {
        Verb::Check(args) => args.allow_missing_env,
        Verb::Explain(args) => args.allow_missing_env,
        _ => false,
    };
    match if allows_missing { scalar::allowing_missing(load) } else { load() } {
        Ok(settings) => verb(&settings, propulsiond::config::settings::advice(file, std::env::vars_os())),
        Err(problems) => {
            let problems: Vec<_> = problems.into_iter().map(|problem| line.locate(problem)).collect();
            report(&problems, cli.common.json)
        }
    }
}

fn run(settings: &Settings, advice: &[Problem], args: &RunArgs, json: bool) -> ExitStatus {
    let logs = match start_logs(settings) {
        Ok(logs) => logs,
        Err(status) => return status,
    };
    for problem in advice {
        tracing::warn!(help = problem.help.as_deref(), "{problem}");
    }
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
            Err(NotStarted::Environment(error)) => no_environment(&error, json),
        }
    });
    logs.summarise_all();
    // A pipe that nobody empties would keep its thread, and the process, for ever.
    runtime.shutdown_timeout(Duration::from_secs(1));
    status
}

fn start_logs(settings: &Settings) -> Result<logging::Logs, ExitStatus> {
    let format = match settings.log.format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::start(format, &settings.log.level, Clock::start()).map_err(|error| {
        eprintln!("error: {error}");
        ExitStatus::BadFiles
    })
}

/// Signals that come together are one.
const AT_ONCE: Duration = Duration::from_millis(20);

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
        // `timeout` and its like signal a process and then its group: to the process, that is twice.
        let _same = tokio::time::timeout(AT_ONCE, next()).await;
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

fn check(settings: &Settings, mut problems: Vec<Problem>, args: &CheckArgs, json: bool) -> ExitStatus {
    problems.extend(propulsiond::app::check(settings, args));
    if problems.is_empty() && !json {
        eprintln!("no problems found");
        return ExitStatus::Ok;
    }
    report(&problems, json)
}

fn explain(settings: &Settings, args: &ExplainArgs, json: bool) -> ExitStatus {
    match verbs::explain(settings, args) {
        Ok(explanation) if json => print(&(explanation.to_json() + "\n")),
        Ok(explanation) => print(&explanation.render()),
        Err(problems) => report(&problems, json),
    }
}

fn test(settings: &Settings, args: &TestArgs, common: &CommonArgs) -> ExitStatus {
    // Otherwise what scripts log would stand between the results.
    let logs = match common.log_level.is_some().then(|| start_logs(settings)).transpose() {
        Ok(logs) => logs,
        Err(status) => return status,
    };
    let report = match propulsiond::commands::handler_tests::run(&args.paths, args.filter.as_deref()) {
        Ok(report) => report,
        Err(problems) => return report(&problems, common.json),
    };
    if let Some(logs) = logs {
        logs.summarise_all();
    }
    if let Some(filter) = args.filter.as_ref().filter(|_| report.tests.is_empty()) {
        eprintln!("error: no test has `{filter}` in its name or its pipeline's");
        return ExitStatus::BadFiles;
    }
    answer(common.json, || report.to_json(), |style| report.render(style));
    if report.passed() { ExitStatus::Ok } else { ExitStatus::Failed }
}

fn new(args: &NewArgs, json: bool) -> ExitStatus {
    match scaffold::make(&args.name, &args.config, args.from) {
        Ok(made) => {
            answer(json, || scaffold::to_json(&made), |_| scaffold::render(&made));
            ExitStatus::Ok
        }
        Err(NotMade::Refused(problems)) => report(&problems, json),
        Err(NotMade::Failed(error)) => no_environment(&error, json),
    }
}

fn health(settings: &Settings, json: bool) -> ExitStatus {
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(propulsiond::app::health(settings)));
    match asked {
        Ok(judgement) => {
            answer(json, || serde_json::json!(judgement), |_| judgement.to_string());
            if judgement.health == Health::Failed { ExitStatus::Failed } else { ExitStatus::Ok }
        }
        Err(error) => {
            let message = format!("{error:#}");
            if json {
                answer(true, || serde_json::json!({ "error": message }), |_| String::new());
            } else {
                eprintln!("error: {message}");
            }
            ExitStatus::Failed
        }
    }
}

fn doctor(settings: &Settings, args: &DoctorArgs, json: bool) -> ExitStatus {
    match propulsiond::commands::doctor::examine(&settings.data_dir(), &args.config, args.fix) {
        Ok(diagnosis) => {
            answer(json, || diagnosis.to_json(), |style| diagnosis.render(style));
            if diagnosis.is_fine() { ExitStatus::Ok } else { ExitStatus::Failed }
        }
        Err(NotLooked::Files(problems)) => report(&problems, json),
        Err(NotLooked::Environment(error)) => no_environment(&error, json),
    }
}

/// Gives an answer in the form that was asked for.
fn answer(json: bool, to_json: impl FnOnce() -> serde_json::Value, render: impl FnOnce(Style) -> String) {
    if json {
        print_json(to_json());
    } else {
        let _printed = print(&render(if std::io::stdout().is_terminal() { Style::Colour } else { Style::Plain }));
    }
}

/// Shows what is wrong with files. Advice alone is no reason to fail.
fn report(problems: &[Problem], json: bool) -> ExitStatus {
    if json {
        print_json(problems.iter().map(Problem::to_json).collect());
    } else {
        let style = if std::io::stderr().is_terminal() { Style::Colour } else { Style::Plain };
        for problem in problems {
            eprintln!("{}", problem.render(style));
        }
    }
    if problems.iter().any(Problem::is_error) { ExitStatus::BadFiles } else { ExitStatus::Ok }
}

/// Says why nothing can be done here.
fn no_environment(error: &anyhow::Error, json: bool) -> ExitStatus {
    if json {
        print_json(serde_json::json!([{ "severity": "error", "message": format!("{error:#}") }]));
    } else {
        eprintln!("error: {error:#}");
    }
    ExitStatus::BadEnvironment
}

fn print_json(answer: serde_json::Value) {
    let _printed = print(&format!("{answer}\n"));
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
