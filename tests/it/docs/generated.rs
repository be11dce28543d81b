//! The parts of the pages that are made from the program: between `<!-- generated: … -->` and `<!-- end -->`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::{Arg, CommandFactory as _};
use propulsiond::cli::{Cli, ExitStatus};

use super::schema::Schema;
use crate::readme::page::root;

/// The file that documents the exit codes.
const EXIT_STATUS: &str = "src/cli/exit.rs";

/// Returns a page with its generated parts made anew.
pub(super) fn regenerate(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!-- generated: ") {
        let (name, body) = after.split_once(" -->\n").unwrap();
        let (_, end) = body.split_once("<!-- end -->").unwrap_or_else(|| panic!("`{name}` has no end"));
        write!(out, "{before}<!-- generated: {name} -->\n\n{}\n\n<!-- end -->", part(name).trim()).unwrap();
        rest = end;
    }
    out + rest
}

fn part(name: &str) -> String {
    let words: Vec<_> = name.split(' ').collect();
    match words[..] {
        ["settings", "of", "the", "daemon"] => Schema::of("settings").all(),
        ["settings", "of", "a", "pipeline"] => Schema::of("pipeline").top(),
        ["settings", "of", "each", part] => Schema::of("pipeline").kinds(part),
        ["settings", "of", "the", "table", name] => Schema::of("pipeline").definition(name),
        ["settings", "of", part] => Schema::of("pipeline").part(part),
        ["commands"] => commands(),
        ["flags"] => flags(),
        ["exit", "codes"] => exit_codes(),
        ["metrics", prefix] => metrics(prefix),
        ["documentation", "of", file] => documentation(file),
        _ => panic!("nothing makes `{name}`"),
    }
}

/// Returns a section for each command.
fn commands() -> String {
    let mut all = Cli::command();
    all.build();
    let mut out = String::new();
    for command in all.get_subcommands().filter(|command| command.get_name() != "help") {
        let about = command.get_long_about().or(command.get_about()).unwrap().to_string();
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").lines().next().unwrap_or_default().to_owned();
        write!(out, "## {}\n\n{}\n\n", command.get_name(), about.trim_end()).unwrap();
        write!(out, "Usage: <code>{}</code>\n\n", usage.replace('<', "&lt;").replace('>', "&gt;")).unwrap();
        let own: Vec<_> = command.get_arguments().filter(|arg| !arg.is_global_set() && is_own(arg)).collect();
        if !own.is_empty() {
            writeln!(out, "{}", table(&own)).unwrap();
        }
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in after.lines() {
            match line.strip_prefix("Example: ") {
                Some(example) => write!(out, "Example: `{example}`\n\n").unwrap(),
                None => write!(out, "{line}\n\n").unwrap(),
            }
        }
    }
    out
}

/// Returns the table of the flags that every command takes.
fn flags() -> String {
    let command = Cli::command();
    let global: Vec<_> = command.get_arguments().filter(|arg| arg.is_global_set()).collect();
    table(&global)
}

fn is_own(arg: &Arg) -> bool {
    !["help", "version"].contains(&arg.get_id().as_str()) && !arg.is_hide_set()
}

fn table(arguments: &[&Arg]) -> String {
    let mut out = "| argument | default | |\n|---|---|---|\n".to_owned();
    for arg in arguments {
        let value = arg.get_value_names().map(|names| names[0].to_string()).filter(|_| arg.get_action().takes_values());
        let name = match (arg.get_long(), value) {
            (Some(long), Some(value)) => format!("`--{long} {value}`"),
            (Some(long), None) => format!("`--{long}`"),
            (None, value) => format!("`{}`", value.unwrap_or_default()),
        };
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = if defaults.is_empty() || !arg.get_action().takes_values() {
            String::new()
        } else {
            format!("`{}`", defaults.join(" "))
        };
        let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        for value in
            arg.get_possible_values().iter().filter(|value| !value.is_hide_set() && arg.get_action().takes_values())
        {
            let about = value.get_help().map(|help| format!(": {help}")).unwrap_or_default();
            write!(help, "<br>`{}`{about}", value.get_name()).unwrap();
        }
        writeln!(out, "| {name} | {default} | {} |", help.replace('|', "\\|")).unwrap();
    }
    out
}

/// Returns the table of the exit codes, from the documentation of their type.
fn exit_codes() -> String {
    let source = std::fs::read_to_string(root().join(EXIT_STATUS)).unwrap();
    let body = source.split_once("pub enum ExitStatus {").unwrap().1.split_once("\n}").unwrap().0;
    let mut out = "| code | |\n|---|---|\n".to_owned();
    let mut doc = String::new();
    for line in body.lines().map(str::trim) {
        match line.strip_prefix("///") {
            Some(words) => doc.push_str(words),
            None if line.is_empty() => {}
            None => {
                let code = match line.split(['(', ',']).next().unwrap() {
                    "Ok" => ExitStatus::Ok.code().to_string(),
                    "Failed" => ExitStatus::Failed.code().to_string(),
                    "BadFiles" => ExitStatus::BadFiles.code().to_string(),
                    "BadEnvironment" => ExitStatus::BadEnvironment.code().to_string(),
                    "DrainTimedOut" => ExitStatus::DrainTimedOut.code().to_string(),
                    "Signalled" => format!("{}+n", ExitStatus::Signalled(0).code()),
                    other => panic!("`{other}` has no code here"),
                };
                writeln!(out, "| {code} | {} |", std::mem::take(&mut doc).trim()).unwrap();
            }
        }
    }
    out
}

/// Returns the table of the metrics whose names begin with `prefix`, from the golden file.
fn metrics(prefix: &str) -> String {
    let golden = std::fs::read_to_string(root().join("tests/it/metrics.golden")).unwrap();
    let mut out = "| metric | type | labels | |\n|---|---|---|---|\n".to_owned();
    let label = regex::Regex::new(r#"[{,](\w+)=""#).unwrap();
    for family in golden.split("# HELP ").skip(1) {
        let mut lines = family.lines();
        let (name, help) = lines.next().unwrap().split_once(' ').unwrap();
        if !name.starts_with(prefix) {
            continue;
        }
        let kind = lines.next().unwrap().rsplit(' ').next().unwrap();
        let labels: BTreeSet<_> =
            lines.flat_map(|line| label.captures_iter(line)).map(|found| found[1].to_owned()).collect();
        let labels: Vec<_> = labels.iter().filter(|label| *label != "le").map(|label| format!("`{label}`")).collect();
        writeln!(out, "| `{name}` | {kind} | {} | {} |", labels.join(" "), help.replace('|', "\\|")).unwrap();
    }
    out
}

/// Returns the documentation of a source file, as a page shows it.
fn documentation(file: &str) -> String {
    let source = std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let text: String = lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
    // The page has a title of its own.
    let text = text.replace("\n# ", "\n## ");
    // The rules' numbers and the links to items are for readers of the code.
    let number = regex::Regex::new(r"\s\([CR]\d+(?:, [CR]\d+)*\)").unwrap();
    let link = regex::Regex::new(r"\[(`[^`]+`)\](?:\([^)]*\))?").unwrap();
    let text = link.replace_all(&number.replace_all(&text, ""), "$1").into_owned();
    text.replace("```rhai\n", "<!-- a script -->\n```rust\n")
        .replace("```toml\n[[test]]", "<!-- part of a test file -->\n```toml\n[[test]]")
}
