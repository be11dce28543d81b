//! The commands other than `run`: from parsed arguments to printed results.

mod parked;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::DATABASES_TO_CLOSE;
use super::output::{Output, print, write};
use crate::cli::{
    self, CheckArgs, CheckpointArgs, CheckpointVerb, Cli, Command, CompletionArgs, ControlArgs, DiffArgs, DoctorArgs,
    ExitStatus, ExplainArgs, HowToChange, ListArgs, ManArgs, MapArgs, NewArgs, ReloadArgs, SchemaArgs, SchemaKind,
    StatusArgs, TestArgs,
};
use crate::clock::Clock;
use crate::commands::checkpoint::{Change, Changed, Checkpoints, Target};
use crate::commands::client::Client;
use crate::commands::diff::NotCompared;
use crate::commands::doctor::NotLooked;
use crate::commands::explain::Explanation;
use crate::commands::map::{Language, NotTried};
use crate::commands::scaffold::ScaffoldError;
use crate::commands::status::Pipelines;
use crate::commands::{
    checkpoint, control, diff as handlers, doctor, explain, handler_tests, list, map, scaffold, schema,
};
use crate::config::document::{Format, Problem, closest};
use crate::config::scalar;
use crate::config::settings::{self, DaemonSettings};
use crate::connector::prose::{counted, listed, names};
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
        Command::Map(args) => Some(map(args, output)),
        Command::List(args) => Some(list(args, output)),
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
/// The command is `run` or `rebuild`, which `main` runs, or needs no settings.
pub fn run(cli: &Cli, settings: &DaemonSettings, advice: Vec<Problem>, output: Output) -> ExitStatus {
    match cli.selected() {
        Command::Check(args) => check(settings, advice, args, output),
        Command::Explain(args) => explain(settings, args, output),
        Command::Test(args) => test(settings, args, cli.common.log_level.is_some(), output),
        Command::Doctor(args) => doctor(settings, args, output),
        Command::Diff(args) => diff(settings, args, output),
        Command::Status(args) => status(settings, args, output),
        Command::Health => health(settings, output),
        Command::Checkpoint(args) => checkpoint(settings, args, output),
        Command::Parked(args) => parked::run(settings, args, output),
        Command::Reload(args) => reload(settings, args, output),
        Command::Control(command, args) => control(settings, command, args, output),
        other => panic!("`{other:?}` has another caller"),
    }
}

fn check(settings: &DaemonSettings, mut problems: Vec<Problem>, args: &CheckArgs, output: Output) -> ExitStatus {
    let paths = args.paths.all();
    let files = check_paths(settings, &paths, args.allow_missing_env, &mut problems);
    if problems.is_empty() && !output.json {
        eprintln!("no problems found in {files}");
        let below: Vec<_> =
            paths.iter().filter(|path| path.is_dir()).flat_map(|path| spec::subdirectories(path)).collect();
        if !below.is_empty() {
            let below: Vec<_> = below.iter().map(|path| path.display().to_string()).collect();
            let below = names(below.iter().map(String::as_str), "and");
            eprintln!("note: subdirectories are not searched, and {below} hold pipelines, too");
        }
        return ExitStatus::Ok;
    }
    output.problems(&problems)
}

/// Adds the problems of pipeline files, their scripts and their tests. Returns the number of files of each sort, in words.
fn check_paths(
    settings: &DaemonSettings,
    paths: &[PathBuf],
    allow_missing: bool,
    problems: &mut Vec<Problem>,
) -> String {
    let pipelines: Vec<_> = paths.iter().filter(|path| !handler_tests::is_test(path)).cloned().collect();
    let load = || spec::load(&pipelines);
    let loaded: Vec<Loaded> = match if allow_missing { scalar::allowing_missing(load) } else { load() } {
        Ok(loaded) => loaded,
        Err(wrong) => {
            problems.extend(wrong);
            Vec::new()
        }
    };
    let (count, scripts) = (loaded.len(), loaded.iter().filter(|loaded| loaded.spec.script().is_some()).count());
    problems.extend(match spec::check(loaded, &settings.data_dir()) {
        Ok(outcome) => outcome.advice,
        Err(problems) => problems,
    });
    let (tests, wrong) = handler_tests::check(paths);
    for problem in wrong {
        // A pipeline that cannot be read is a problem of its tests as well.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    let sorts = [(count, "pipeline"), (scripts, "script"), (tests, "test file")];
    let sorts = sorts.into_iter().filter(|(count, _)| *count > 0).map(|(count, noun)| counted(count as u64, noun));
    listed(&sorts.collect::<Vec<_>>(), "and")
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
    let file = find(&args.directories(), &args.pipeline).map_err(|problem| vec![problem])?;
    let load = || spec::load_file(&file);
    let loaded = if args.allow_missing_env { scalar::allowing_missing(load)? } else { load()? };
    let outcome = spec::check(vec![loaded], &settings.data_dir())?;
    let (definition, script) = outcome.scripts().next().expect("a pipeline without errors passes the checks");
    Ok(explain::explain(definition, script))
}

/// Returns the file of a pipeline, given its name or the path of its file.
pub(super) fn find(directories: &[PathBuf], pipeline: &str) -> Result<PathBuf, Problem> {
    let path = Path::new(pipeline);
    if path.components().count() > 1 || Format::of(path).is_some() {
        return Ok(path.to_owned());
    }
    // A directory may be given as the file itself, as other commands take it.
    let files: Vec<_> = directories.iter().flat_map(|directory| spec::scan(directory).unwrap_or_default()).collect();
    let named = |file: &PathBuf| file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    if let Some(file) = files.iter().find(|file| named(file).as_deref() == Some(pipeline)) {
        return Ok(file.clone());
    }
    // The scan fails on any bad file name in the directory, and this pipeline may be in order all the same.
    if let Some(file) = directories.iter().find_map(|directory| Format::find(directory, pipeline)) {
        return Ok(file);
    }
    let names: Vec<_> = files.iter().filter_map(named).collect();
    let known: Vec<_> = names.iter().map(String::as_str).collect();
    let help = match (closest(pipeline, &known), known.is_empty()) {
        (Some(name), _) => format!("did you mean `{name}`?"),
        (None, true) => "name the directory of the pipelines with `--config`, or give the path of a file".to_owned(),
        (None, false) => format!("there are `{}`", known.join("`, `")),
    };
    Err(Problem::new(&directories[0], format!("there is no pipeline `{pipeline}`")).help(help))
}

fn test(settings: &DaemonSettings, args: &TestArgs, shows_logs: bool, output: Output) -> ExitStatus {
    // The log lines of scripts appear on request only: they would stand between the results.
    let logs = match shows_logs.then(|| logging::start(&settings.log, Clock::start())).transpose() {
        Ok(logs) => logs,
        Err(error) => return output.environment(&error.into()),
    };
    let report = match handler_tests::run(&args.paths.all(), args.filter.as_deref()) {
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

fn map(args: &MapArgs, output: Output) -> ExitStatus {
    let tried = match &args.pipeline {
        None => map::propose(&args.file),
        Some(pipeline) => find(std::slice::from_ref(&args.config), pipeline)
            .map_err(|problem| NotTried::Files(vec![problem]))
            .and_then(|pipeline| map::try_pipeline(&pipeline, &args.file)),
    };
    match tried {
        Ok(trial) => {
            let language = if args.yaml { Language::Yaml } else { Language::Toml };
            output.result(|| trial.to_json(language), |_| trial.render(language));
            // A proposal need not fit every record. The mapping of a pipeline should.
            if trial.has_misfits() && args.pipeline.is_some() { ExitStatus::Failed } else { ExitStatus::Ok }
        }
        Err(NotTried::Files(problems)) => output.problems(&problems),
        Err(NotTried::Environment(error)) => output.environment(&error),
    }
}

fn health(settings: &DaemonSettings, output: Output) -> ExitStatus {
    match asked(async || Client::new(settings)?.get::<Judgement>("/health").await) {
        Ok(judgement) => {
            output.result(|| json!(judgement), |_| judgement.to_string());
            if judgement.health == Health::Failed { ExitStatus::Failed } else { ExitStatus::Ok }
        }
        Err(error) => no_answer(&error, output),
    }
}

/// Runs requests to the daemon.
fn asked<T>(requests: impl AsyncFnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(requests())
}

fn no_answer(error: &anyhow::Error, output: Output) -> ExitStatus {
    let message = format!("{error:#}");
    if output.json {
        output.result(|| json!({ "error": message }), |_| String::new());
    } else {
        eprintln!("error: {message}");
    }
    ExitStatus::Failed
}

/// The interval of `status --watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Moves the cursor to the top left corner of a terminal and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J";

fn status(settings: &DaemonSettings, args: &StatusArgs, output: Output) -> ExitStatus {
    let clear = if args.watch && !output.json && std::io::stdout().is_terminal() { CLEAR } else { "" };
    let render = |answer: Value| match output.json {
        true => Ok(line(&answer)),
        false => serde_json::from_value::<Pipelines>(answer).map(|pipelines| pipelines.render()),
    };
    let show = async || {
        let client = Client::new(settings)?;
        let mut text = render(client.get("/pipelines").await?)?;
        // A closed pipe ends the watch: nothing reads the next answer.
        while write(&format!("{clear}{text}")).is_ok() && args.watch {
            tokio::time::sleep(WATCH_EVERY).await;
            // A daemon that restarts answers again later.
            text = match client.get("/pipelines").await {
                Ok(answer) => render(answer)?,
                Err(error) if output.json => line(&json!({ "error": format!("{error:#}") })),
                Err(error) => format!("error: {error:#}\n"),
            };
        }
        Ok(())
    };
    match asked(show) {
        Ok(()) => ExitStatus::Ok,
        Err(error) => no_answer(&error, output),
    }
}

fn checkpoint(settings: &DaemonSettings, args: &CheckpointArgs, output: Output) -> ExitStatus {
    let (CheckpointVerb::Show(of)
    | CheckpointVerb::Log { of, .. }
    | CheckpointVerb::Set { of, .. }
    | CheckpointVerb::Reset { of, .. }
    | CheckpointVerb::Rewind { of, .. }) = &args.verb;
    let definition = find(&of.directories(), &of.pipeline).map_err(|problem| vec![problem]);
    let definition = match definition.and_then(|file| checkpoint::definition(&file)) {
        Ok(definition) => definition,
        Err(problems) => return output.problems(&problems),
    };
    let tranche = of.tranche.as_deref();
    let act = async || {
        let checkpoints = Checkpoints::open(settings, definition)?;
        let change = async |target, how: &HowToChange| {
            let HowToChange { dry_run, force } = *how;
            let changed = checkpoints.change(&Change { target, tranche, dry_run, force }).await?;
            output.result(|| Changed::to_json(&changed), |_| Changed::render(&changed, dry_run));
            anyhow::Ok(())
        };
        match &args.verb {
            CheckpointVerb::Show(_) => {
                let listed = checkpoints.list().await?;
                output.result(|| checkpoints.to_json(&listed), |_| checkpoints.render(&listed));
            }
            CheckpointVerb::Log { last, .. } => {
                let logs = checkpoints.log(tranche, *last).await?;
                output.result(|| checkpoint::log_to_json(&logs), |_| checkpoints.render_log(&logs));
            }
            CheckpointVerb::Set { position, how, .. } => change(Target::position(position), how).await?,
            CheckpointVerb::Reset { how, .. } => change(Target::Origin, how).await?,
            CheckpointVerb::Rewind { to, entry, how, .. } => {
                let target = match (to, entry) {
                    (Some(to), _) => Target::time(to)?,
                    (None, Some(entry)) => Target::Entry(*entry),
                    (None, None) => Target::Undo,
                };
                change(target, how).await?;
            }
        }
        // An open file is written back by its next user.
        let _open = checkpoint::close(checkpoints).await;
        Ok(())
    };
    match asked(act) {
        Ok(()) => ExitStatus::Ok,
        Err(error) => no_answer(&error, output),
    }
}

fn diff(settings: &DaemonSettings, args: &DiffArgs, output: Output) -> ExitStatus {
    let data = settings.data_dir();
    let compare = async || match find(&args.directories(), &args.pipeline) {
        Ok(file) => {
            let compared = handlers::run(&data, &file, &args.against, args.last).await;
            // The log of progress may be in a database, which is closed again.
            let _open = crate::connector::closed(DATABASES_TO_CLOSE).await;
            compared
        }
        Err(problem) => Err(NotCompared::Files(vec![problem])),
    };
    match asked(async || Ok(compare().await)) {
        Ok(Ok(diff)) => {
            output.result(|| diff.to_json(), |_| diff.render());
            if diff.comparison.is_equal() { ExitStatus::Ok } else { ExitStatus::Failed }
        }
        Ok(Err(NotCompared::Files(problems))) => output.problems(&problems),
        Ok(Err(NotCompared::Unreadable(error))) | Err(error) => output.environment(&error),
    }
}

fn reload(settings: &DaemonSettings, args: &ReloadArgs, output: Output) -> ExitStatus {
    match asked(async || control::reload(&Client::new(settings)?, args.dry_run).await) {
        Ok(report) => {
            output.result(|| json!(report), |_| control::render_reload(&report));
            if report.has_failures() { ExitStatus::BadFiles } else { ExitStatus::Ok }
        }
        Err(error) => no_answer(&error, output),
    }
}

/// Has pipelines obey a command, one after the other.
fn control(settings: &DaemonSettings, command: &str, args: &ControlArgs, output: Output) -> ExitStatus {
    let obey = async || {
        let client = Client::new(settings)?;
        let mut all_reached = true;
        for pipeline in &args.pipelines {
            let answer = control::command(&client, pipeline, command, args.wait).await?;
            let (text, reached) = control::render(&answer)?;
            output.result(|| answer, |_| text);
            all_reached &= reached;
        }
        Ok(all_reached)
    };
    match asked(obey) {
        Ok(true) => ExitStatus::Ok,
        Ok(false) => ExitStatus::Failed,
        Err(error) => no_answer(&error, output),
    }
}

/// Lists connectors, or the settings of one.
fn list(args: &ListArgs, output: Output) -> ExitStatus {
    let schema = schema::pipeline();
    match list::list(&schema, args.connector.as_deref()) {
        Ok(list) => {
            output.result(|| list.to_json(), |_| list.render());
            ExitStatus::Ok
        }
        Err((message, help)) => output.problems(&[Problem::new(Path::new("command line"), message).help(help)]),
    }
}

fn doctor(settings: &DaemonSettings, args: &DoctorArgs, output: Output) -> ExitStatus {
    match doctor::examine(&settings.data_dir(), &args.paths.all(), args.fix) {
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
        SchemaKind::Test => schema::of::<handler_tests::TestFile>(),
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
