//! The verbs that answer and end: what they find out. Saying it is the program's.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::{CompletionArgs, ExplainArgs, ManArgs, SchemaArgs, SchemaKind};
use crate::commands::explain::Explanation;
use crate::commands::{explain, schema};
use crate::config::document::{Format, Problem, closest};
use crate::config::settings::Settings;
use crate::{cli, spec};

/// Returns what a pipeline comes to, in words.
///
/// # Errors
/// What is wrong with its file or its script, or that there is no such pipeline.
pub fn explain(settings: &Settings, args: &ExplainArgs) -> Result<Explanation, Vec<Problem>> {
    let explained = || {
        let file = find(&args.config, &args.pipeline).map_err(|problem| vec![problem])?;
        let loaded = spec::load_file(&file)?;
        let outcome = spec::check(vec![loaded], &settings.data_dir())?;
        let definition = outcome.definitions().next().filter(|_| outcome.advice.is_empty());
        definition.map(explain::explain).ok_or_else(|| outcome.advice.clone())
    };
    if args.allow_missing_env { crate::config::scalar::allowing_missing(explained) } else { explained() }
}

/// Finds the file of a pipeline that is called by its name, or by the path of its file.
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
    // What is wrong with another file of the folder does not matter here.
    let direct = ["toml", "yaml"].map(|ending| config.join(format!("{pipeline}.{ending}")));
    if let Some(file) = direct.into_iter().find(|file| file.is_file()) {
        return Ok(file);
    }
    let names: Vec<_> = files.iter().filter_map(named).collect();
    let known: Vec<_> = names.iter().map(String::as_str).collect();
    let help = match (closest(pipeline, &known), known.is_empty()) {
        (Some(name), _) => format!("did you mean `{name}`?"),
        (None, true) => "name the folder of the pipelines with `--config`, or give the path of a file".to_owned(),
        (None, false) => format!("there are `{}`", known.join("`, `")),
    };
    Err(Problem::new(config, format!("there is no pipeline `{pipeline}`")).help(help))
}

/// Returns a JSON Schema, as text.
pub fn schema(args: &SchemaArgs) -> String {
    let schema = match args.kind {
        SchemaKind::Pipeline => schema::pipeline(),
        SchemaKind::Settings => schema::settings(),
    };
    format!("{schema:#}\n")
}

/// Returns the script that completes the command line in a shell.
pub fn completion(args: &CompletionArgs, json: bool) -> String {
    let script = cli::completion(args.shell);
    if json { line(&json!({ "shell": args.shell.to_string(), "script": script })) } else { script }
}

/// Returns the main page of the manual, or writes all of its pages and returns where.
///
/// # Errors
/// The folder cannot be made or written.
pub fn man(args: &ManArgs, json: bool) -> anyhow::Result<String> {
    let pages = cli::manual();
    let Some(folder) = &args.folder else {
        let (name, text) = &pages[0];
        return Ok(if json { line(&json!({ "name": name, "text": text })) } else { text.clone() });
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    let mut written = Vec::new();
    for (name, text) in pages {
        let file = folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write `{}`", file.display()))?;
        written.push(file.display().to_string());
    }
    Ok(if json { line(&json!({ "written": written })) } else { written.join("\n") + "\n" })
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}
