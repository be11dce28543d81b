//! Errors of the command line, shown as errors of a file are.

use std::ffi::OsString;
use std::path::Path;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Cli, DEFAULT_CONFIG};
use crate::config::document::{Format, Location, Problem, closest};
use crate::connector::prose::names;

/// The name of the command line in place of a file's.
const NAME: &str = "command line";

/// The help that fits every error outside the commands.
const LISTED: &str = "`propulsiond --help` lists the commands and flags";

/// Names that other programs give to a command, each with its name here.
const ALIASES: [(&str, &str); 16] = [
    ("create", "new"),
    ("describe", "explain"),
    ("dry-run", "test"),
    ("fix", "doctor"),
    ("generate", "new"),
    ("info", "explain"),
    ("init", "new"),
    ("lint", "check"),
    ("ps", "status"),
    ("serve", "run"),
    ("tap", "status"),
    ("top", "status"),
    ("unit-test", "test"),
    ("validate", "check"),
    ("verify", "check"),
    ("version", "--version"),
];

/// The command line, nearly as typed: words that need quotes have them again.
#[derive(Clone, Debug)]
pub struct CommandLine {
    words: Vec<String>,
}

impl CommandLine {
    /// Makes a command line of the arguments, without the program's name.
    pub fn new(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let words = arguments.into_iter().map(|word| quoted(&word.to_string_lossy())).collect();
        Self { words: [vec!["propulsiond".to_owned()], words].concat() }
    }

    /// Returns whether `--json` was given, for a command line that clap could not parse.
    pub fn wants_json(&self) -> bool {
        self.words.iter().any(|word| word == "--json")
    }

    /// Returns the problem of a command line that clap parses, but not as it was meant.
    pub fn misuse(&self, cli: &Cli) -> Option<Problem> {
        match cli.command {
            None => cli.run.paths.paths.first().and_then(|path| self.unknown_command(path)),
            Some(_) => self.misplaced(cli),
        }
    }

    /// Returns the problem of a path that was probably meant as a command: without a command, each word is a path.
    fn unknown_command(&self, path: &Path) -> Option<Problem> {
        let word = path.to_str()?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if word.starts_with('-') || !word.chars().all(is_plain) || path.exists() {
            return None;
        }
        let command = Cli::command();
        let known: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        if known.contains(&word) {
            return None;
        }
        let alias = ALIASES.iter().find(|(alias, _)| *alias == word).map(|(_, name)| *name);
        let near = alias.or_else(|| closest(word, &known)).map(str::to_owned);
        let file = || Format::find(Path::new(DEFAULT_CONFIG), word).map(|file| file.display().to_string());
        let help = near.or_else(file).map_or_else(|| LISTED.to_owned(), |near| format!("did you mean `{near}`?"));
        Some(self.problem_at(word, format!("unknown command `{word}`")).help(help))
    }

    /// Returns the problem of an argument before a command. It would be one of `run`, and have no effect.
    fn misplaced(&self, cli: &Cli) -> Option<Problem> {
        let given = [("--until-tail", cli.run.until_tail), ("--config", !cli.run.paths.config.is_empty())];
        let (flag, _) = given.into_iter().find(|(_, is_given)| *is_given)?;
        let problem = self.problem_at(flag, format!("`{flag}` stands before the command"));
        Some(problem.help("write it after the command"))
    }

    fn problem_at(&self, word: &str, message: String) -> Problem {
        let problem = Problem::new(Path::new(NAME), message);
        match self.find(word) {
            Some(number) => problem.at(self.location(number)),
            None => problem,
        }
    }

    /// Adds the location of the flag to a problem of a flag. Other problems stay unchanged.
    pub fn locate(&self, problem: Problem) -> Problem {
        let flag = problem.file.to_string_lossy().into_owned();
        let Some(number) = self.find(&flag).filter(|_| flag.starts_with("--") && problem.location.is_none()) else {
            return problem;
        };
        // The value is wrong, and it may be a separate word.
        let is_alone = self.words[number] == flag;
        let number = if is_alone && number + 1 < self.words.len() { number + 1 } else { number };
        Problem { file: NAME.into(), path: flag, ..problem.at(self.location(number)) }
    }

    /// Returns the help that fits every error: it names the page that lists the arguments.
    fn listed(&self) -> String {
        let command = self.words.get(1).filter(|word| Cli::command().find_subcommand(word).is_some());
        command.map_or_else(
            || LISTED.to_owned(),
            |command| format!("`propulsiond {command} --help` lists the arguments and flags"),
        )
    }

    fn find(&self, word: &str) -> Option<usize> {
        let word = quoted(word);
        let is_it =
            |known: &String| *known == word || known.strip_prefix(&word).is_some_and(|rest| rest.starts_with('='));
        self.words.iter().position(is_it)
    }

    fn find_last(&self, word: &str) -> Option<usize> {
        self.words.iter().rposition(|known| *known == word || known.starts_with(&format!("{word}=")))
    }

    /// Returns the index of the word that is the value, or ends with it.
    fn find_value(&self, value: &str) -> Option<usize> {
        let value = quoted(value);
        let is_it = |known: &String| *known == value || known.ends_with(&format!("={value}"));
        self.words.iter().skip(1).position(is_it).map(|number| number + 1)
    }

    fn location(&self, number: usize) -> Location {
        let start = self.words[..number].iter().map(|word| word.len() + 1).sum();
        Location::new(&self.words.join(" "), start..start + self.words[number].len())
    }
}

fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\'');
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace(|c: char| c.is_control(), "\u{fffd}")) }
}

/// Explains an error of the command line; `None` if there is none, as with `--help`.
pub fn explain(error: &clap::Error, line: &CommandLine) -> Option<Problem> {
    if !error.use_stderr() {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        // clap lists the likeliest last.
        Some(ContextValue::Strings(texts)) => texts.last().cloned(),
        _ => None,
    };
    // A wrong command comes first: its flags are unknown for that reason alone.
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(problem) = line.words.get(1).and_then(|word| line.unknown_command(Path::new(word)))
    {
        return Some(problem);
    }
    let flag = text(ContextKind::InvalidArg).unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let (message, at) = match error.kind() {
        ErrorKind::UnknownArgument if flag.starts_with('-') => (format!("unknown flag `{flag}`"), line.find(&flag)),
        ErrorKind::UnknownArgument => (format!("unexpected argument `{flag}`"), line.find(&flag)),
        ErrorKind::InvalidValue if value.is_empty() => {
            (format!("`{}` takes a value", name_of(&flag)), line.find(name_of(&flag)))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            (format!("unknown value `{value}` for `{}`", name_of(&flag)), line.find_value(&value))
        }
        ErrorKind::TooManyValues => (format!("`{}` takes no value", name_of(&flag)), line.find(name_of(&flag))),
        ErrorKind::ArgumentConflict => {
            let name = name_of(&flag);
            // A flag that is given twice conflicts with itself.
            let other = text(ContextKind::PriorArg).filter(|other| *other != flag);
            let message = match &other {
                Some(other) => format!("`{name}` cannot be combined with `{}`", name_of(other)),
                None => format!("`{name}` is given twice"),
            };
            (message, line.find_last(name))
        }
        ErrorKind::MissingRequiredArgument => (format!("`{flag}` is missing"), None),
        // Only `help NAME` meets this: other unknown names are paths.
        ErrorKind::InvalidSubcommand => {
            let name = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            (format!("unknown command `{name}`"), line.find(&name))
        }
        _ => (plain(error), None),
    };
    let suggested = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let help = match (suggested.into_iter().find_map(text), error.get(ContextKind::ValidValue)) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, Some(ContextValue::Strings(known))) if !known.is_empty() => {
            format!("expected {}", names(known.iter().map(String::as_str), "or"))
        }
        _ => line.listed(),
    };
    let problem = Problem::new(Path::new(NAME), message).help(help);
    Some(match at {
        Some(number) => problem.at(line.location(number)),
        None => problem,
    })
}

/// Returns the flag of an argument as clap names it: `--config <PATH>`.
fn name_of(argument: &str) -> &str {
    argument.split(' ').next().unwrap_or(argument)
}

fn plain(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
