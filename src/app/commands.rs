//! The commands other than `run`: from parsed arguments to printed results.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::output::{Output, print};
use crate::cli::{
    self, CheckArgs, Cli, Command, CompletionArgs, DoctorArgs, ExitStatus, ExplainArgs, ManArgs, NewArgs, SchemaArgs,
    SchemaKind, TestArgs,
};
use crate::clock::Clock;
use crate::commands::doctor::NotLooked;
use crate::commands::explain::Explanation;
use crate::commands::scaffold::ScaffoldError;
use crate::commands::{doctor, explain, handler_tests, health, scaffold, schema};
use crate::config::document::{Format, Problem, closest};
use crate::config::scalar;
use crate::config::settings::{self, DaemonSettings, Listen};
use crate::spec::{self, Loaded};
use crate::telemetry::health::{Health, Judgement};
use crate::telemetry::logging;

/// Loads the daemon's settings, and the advice about them.
///
/// # Errors
/// The settings are wrong.
pub fn settings(cli: &Cli) -> Result<(DaemonSettings, Vec<Problem>), Vec<Problem>> {
    let file = cli.common.settings.as_deref();
    let load = || DaemonSettings::load(file, std::env::vars_os(), &cli.common.flags());
    let allows_missing = match cli.selected() {
        Command::Check(args) => args.allow_missing_env,
        Command::Explain(args) => args.allow_missing_env,
        _ => false,
    };
    let settings = if allows_missing { scalar::allowing_missing(load) } else { load() }?;
    Ok((settings, settings::advice(file, std::env::vars_os())))
}

/// Runs a command that needs no settings; `None` for the others.
pub fn run_without_settings(cli: &Cli, output: Output) -> Option<ExitStatus> {
    match cli.selected() {
        Command::New(args) => Some(new(args, output)),
        Command::Schema(args) => Some(print(&schema(args))),
        Command::Completion(args) => Some(print(&completion(args, output.json))),
        Command::Man(args) => Some(match manual(args, output.json) {
            Ok(text) => print(&text),
            Err(error) => output.environment(&error),
        }),
        _ => None,
    }
}

/// Runs a command that needs settings.
///
/// # Panics
/// The command is `run`, which `main` runs, or needs no settings.
pub fn run(cli: &Cli, settings: &DaemonSettings, advice: Vec<Problem>, output: Output) -> ExitStatus {
    match cli.selected() {
        Command::Check(args) => check(settings, advice, args, output),
        Command::Explain(args) => explain(settings, args, output),
        Command::Test(args) => test(settings, args, cli.common.log_level.is_some(), output),
        Command::Doctor(args) => doctor(settings, args, output),
        Command::Health => health(settings, output),
        other => panic!("`{other:?}` has another caller"),
    }
}

fn check(settings: &DaemonSettings, mut problems: Vec<Problem>, args: &CheckArgs, output: Output) -> ExitStatus {
    problems.extend(problems_of_paths(settings, args));
    if problems.is_empty() && !output.json {
        eprintln!("no problems found");
        return ExitStatus::Ok;
    }
    output.problems(&problems)
}

/// Returns the problems of pipeline files, their scripts and their tests.
fn problems_of_paths(settings: &DaemonSettings, CheckArgs { paths, allow_missing_env }: &CheckArgs) -> Vec<Problem> {
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut problems = Vec::new();
    for path in paths.iter().filter(|path| !handler_tests::is_test(path)) {
        let load = || spec::load(path);
        match if *allow_missing_env { scalar::allowing_missing(load) } else { load() } {
            Ok(found) => loaded.extend(found),
            Err(wrong) => problems.extend(wrong),
        }
    }
    // The paths may name a file twice: itself and its directory.
    let mut seen = std::collections::BTreeSet::new();
    loaded.retain(|loaded| seen.insert(loaded.file().canonicalize().unwrap_or_else(|_| loaded.file().to_owned())));
    problems.extend(match spec::check(loaded, &settings.data_dir()) {
        Ok(outcome) => outcome.advice,
        Err(problems) => problems,
    });
    for problem in handler_tests::check(paths) {
        // A pipeline that cannot be read is a problem of its tests as well.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems
}

fn explain(settings: &DaemonSettings, args: &ExplainArgs, output: Output) -> ExitStatus {
    match explanation(settings, args) {
        Ok(explanation) if output.json => print(&(explanation.to_json() + "\n")),
        Ok(explanation) => print(&explanation.render()),
        Err(problems) => output.problems(&problems),
    }
}

/// Explains a pipeline. Advice about it is a matter for `check`.
fn explanation(settings: &DaemonSettings, args: &ExplainArgs) -> Result<Explanation, Vec<Problem>> {
    let file = find(&args.config, &args.pipeline).map_err(|problem| vec![problem])?;
    let load = || spec::load_file(&file);
    let loaded = if args.allow_missing_env { scalar::allowing_missing(load)? } else { load()? };
    let outcome = spec::check(vec![loaded], &settings.data_dir())?;
    let (definition, entry) = outcome.entries().next().expect("a pipeline without errors passes the checks");
    Ok(explain::explain(definition, entry))
}

/// Returns the file of a pipeline, given its name or the path of its file.
fn find(config: &Path, pipeline: &str) -> Result<PathBuf, Problem> {
    let path = Path::new(pipeline);
    if path.components().count() > 1 || Format::of(path).is_some() {
        return Ok(path.to_owned());
    }
    let files = spec::scan(config).unwrap_or_default();
    let named = |file: &PathBuf| file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    if let Some(file) = files.iter().find(|file| named(file).as_deref() == Some(pipeline)) {
        return Ok(file.clone());
    }
    // The scan fails on any bad file name in the directory, and this pipeline may be in order all the same.
    let direct = ["toml", "yaml"].map(|ending| config.join(format!("{pipeline}.{ending}")));
    if let Some(file) = direct.into_iter().find(|file| file.is_file()) {
        return Ok(file);
    }
    let names: Vec<_> = files.iter().filter_map(named).collect();
    let known: Vec<_> = names.iter().map(String::as_str).collect();
    let help = match (closest(pipeline, &known), known.is_empty()) {
        (Some(name), _) => format!("did you mean `{name}`?"),
        (None, true) => "name the directory of the pipelines with `--config`, or give the path of a file".to_owned(),
        (None, false) => format!("there are `{}`", known.join("`, `")),
    };
    Err(Problem::new(config, format!("there is no pipeline `{pipeline}`")).help(help))
}

fn test(settings: &DaemonSettings, args: &TestArgs, shows_logs: bool, output: Output) -> ExitStatus {
    // The log lines of scripts appear on request only: they would stand between the results.
    let logs = match shows_logs.then(|| logging::start(&settings.log, Clock::start())).transpose() {
        Ok(logs) => logs,
        Err(error) => return output.environment(&error.into()),
    };
    let report = match handler_tests::run(&args.paths, args.filter.as_deref()) {
        Ok(report) => report,
        Err(problems) => return output.problems(&problems),
    };
    if let Some(logs) = logs {
        logs.summarise_all();
    }
    if let Some(filter) = args.filter.as_ref().filter(|_| report.tests.is_empty()) {
        eprintln!("error: no name of a test or a pipeline contains `{filter}`");
        return ExitStatus::BadFiles;
    }
    output.result(|| report.to_json(), |style| report.render(style));
    if report.passed() { ExitStatus::Ok } else { ExitStatus::Failed }
}

fn new(args: &NewArgs, output: Output) -> ExitStatus {
    match scaffold::make(&args.name, &args.config, args.from, args.format()) {
        Ok(made) => {
            output.result(|| scaffold::to_json(&made), |_| scaffold::render(&made));
            ExitStatus::Ok
        }
        Err(ScaffoldError::Refused(problems)) => output.problems(&problems),
        Err(ScaffoldError::Failed(error)) => output.environment(&error),
    }
}

fn health(settings: &DaemonSettings, output: Output) -> ExitStatus {
    match judgement(settings) {
        Ok(judgement) => {
            output.result(|| json!(judgement), |_| judgement.to_string());
            if judgement.health == Health::Failed { ExitStatus::Failed } else { ExitStatus::Ok }
        }
        Err(error) => {
            let message = format!("{error:#}");
            if output.json {
                output.result(|| json!({ "error": message }), |_| String::new());
            } else {
                eprintln!("error: {message}");
            }
            ExitStatus::Failed
        }
    }
}

fn judgement(settings: &DaemonSettings) -> anyhow::Result<Judgement> {
    let Listen::At(address) = settings.listen else { anyhow::bail!("`listen` is \"off\": the daemon cannot answer") };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(health::ask(address))
}

fn doctor(settings: &DaemonSettings, args: &DoctorArgs, output: Output) -> ExitStatus {
    match doctor::examine(&settings.data_dir(), &args.config, args.fix) {
        Ok(diagnosis) => {
            output.result(|| diagnosis.to_json(), |style| diagnosis.render(style));
            if diagnosis.is_fine() { ExitStatus::Ok } else { ExitStatus::Failed }
        }
        Err(NotLooked::Files(problems)) => output.problems(&problems),
        Err(NotLooked::Environment(error)) => output.environment(&error),
    }
}

/// Returns a JSON Schema, as text.
fn schema(args: &SchemaArgs) -> String {
    let schema = match args.kind {
        SchemaKind::Pipeline => schema::pipeline(),
        SchemaKind::Settings => schema::settings(),
    };
    format!("{schema:#}\n")
}

/// Returns the completion script of a shell.
fn completion(args: &CompletionArgs, json: bool) -> String {
    let script = cli::completion(args.shell);
    if json { line(&json!({ "shell": args.shell.to_string(), "script": script })) } else { script }
}

/// Returns the main page of the manual, or writes all pages into a directory and returns their paths.
fn manual(args: &ManArgs, json: bool) -> anyhow::Result<String> {
    let pages = cli::manual();
    let Some(directory) = &args.directory else {
        let (name, text) = &pages[0];
        return Ok(if json { line(&json!({ "name": name, "text": text })) } else { text.clone() });
    };
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot create the directory `{}`", directory.display()))?;
    let mut written = Vec::new();
    for (name, text) in pages {
        let file = directory.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write `{}`", file.display()))?;
        written.push(file.display().to_string());
    }
    Ok(if json { line(&json!({ "written": written })) } else { written.join("\n") + "\n" })
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}
