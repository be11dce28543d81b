//! The command line, as types, and what shells and `man` are told of it. What the verbs do is `app`'s.

mod manual;

mod mistake;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::commands::scaffold::Template;
use crate::config::settings::{Flags, LogFormat};

pub use manual::{completion, manual};
pub use mistake::{CommandLine, explain};

/// Run declarative reaction pipelines over event stores
///
/// A pipeline is a file: where events come from, what is to be done about them, where the result goes. Without a verb, those
/// of `pipelines/` are run.
#[derive(Debug, Parser)]
#[command(name = "propulsiond", version, max_term_width = 100)]
#[command(after_help = ExitStatus::HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

impl Cli {
    /// Returns what was asked for: running, if no verb was given.
    pub fn verb(&self) -> Verb<'_> {
        match &self.command {
            None => Verb::Run(&self.run),
            Some(Command::Run(args)) => Verb::Run(args),
            Some(Command::Check(args)) => Verb::Check(args),
            Some(Command::Explain(args)) => Verb::Explain(args),
            Some(Command::Test(args)) => Verb::Test(args),
            Some(Command::New(args)) => Verb::New(args),
            Some(Command::Doctor(args)) => Verb::Doctor(args),
            Some(Command::Health) => Verb::Health,
            Some(Command::Schema(args)) => Verb::Schema(args),
            Some(Command::Completion(args)) => Verb::Completion(args),
            Some(Command::Man(args)) => Verb::Man(args),
        }
    }
}

/// What was asked for.
#[derive(Debug)]
pub enum Verb<'a> {
    Run(&'a RunArgs),
    Check(&'a CheckArgs),
    Explain(&'a ExplainArgs),
    Test(&'a TestArgs),
    New(&'a NewArgs),
    Doctor(&'a DoctorArgs),
    Health,
    Schema(&'a SchemaArgs),
    Completion(&'a CompletionArgs),
    Man(&'a ManArgs),
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the pipelines; what happens without a verb as well
    ///
    /// Runs until it is told to stop, or until every pipeline has ended by itself. SIGTERM and SIGINT finish what is under way
    /// first; a second one ends at once.
    #[command(after_help = "Example: propulsiond run --config pipelines/orders.toml --until-tail")]
    Run(RunArgs),
    /// Say what is wrong with pipeline files and their scripts; touches no network
    ///
    /// Shows every mistake with its file, line and column, and what was probably meant. Exits with 2 if there is any.
    #[command(after_help = "Example: propulsiond check pipelines/ --allow-missing-env")]
    Check(CheckArgs),
    /// Say in plain words what a pipeline does, what it promises, and where every value comes from
    ///
    /// Explains the delivery contract, what a crash costs and what follows from failures. References such as `${NAME}` are shown
    /// as they were written, never what they stand for.
    #[command(after_help = "Example: propulsiond explain orders --config pipelines/")]
    Explain(ExplainArgs),
    /// Run the tests of handlers that stand beside the pipelines, in `NAME.test.toml`; touches no network
    #[command(after_help = TestArgs::HELP)]
    Test(TestArgs),
    /// Begin a pipeline: make its file, its script, its tests and a few events, and overwrite nothing
    #[command(after_help = "Example: propulsiond new invoices --from projection")]
    New(NewArgs),
    /// Look over the data directory, the databases and the checkpoints, and mend what needs no decision
    #[command(after_help = DoctorArgs::HELP)]
    Doctor(DoctorArgs),
    /// Ask the daemon that runs by the same settings how it is
    ///
    /// Prints a line for each pipeline and each thing that is wrong. Exits with 1 if a pipeline has failed, or nobody answers.
    #[command(after_help = "Example: propulsiond health --settings config/propulsiond.toml")]
    Health,
    /// Print the JSON Schema of pipeline files, or of the settings, for editors
    ///
    /// An editor finds it by a comment in the first line of a file: `#:schema ./pipeline.schema.json` in TOML (Taplo),
    /// `# yaml-language-server: $schema=./pipeline.schema.json` in YAML.
    #[command(after_help = "Example: propulsiond schema pipeline > pipelines/pipeline.schema.json")]
    Schema(SchemaArgs),
    /// Print a script that completes this command line in a shell
    ///
    /// Each shell has a place of its own for it; it may also be read by the shell's start file.
    #[command(
        after_help = "Example: propulsiond completion bash > ~/.local/share/bash-completion/completions/propulsiond"
    )]
    Completion(CompletionArgs),
    /// Print the manual page, or write one for each verb into a folder
    ///
    /// The pages are for `man`, in its section 1.
    #[command(after_help = "Example: propulsiond man ~/.local/share/man/man1")]
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// A pipeline file, or a folder of them
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// End every pipeline at its tail: a finite job
    #[arg(long)]
    pub until_tail: bool,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Pipeline files, or folders of them
    #[arg(value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub paths: Vec<PathBuf>,
    /// Take variables and files that do not exist as empty
    #[arg(long)]
    pub allow_missing_env: bool,
}

#[derive(Debug, Args)]
pub struct TestArgs {
    /// Pipeline files, test files, or folders of them
    #[arg(value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub paths: Vec<PathBuf>,
    /// Run those tests only that have the text in their name or their pipeline's
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
}

impl TestArgs {
    const HELP: &str = "Example: propulsiond test pipelines/ --filter \"placed order\"\n\
        With `--log-level info` it shows what the scripts log.";
}

#[derive(Debug, Args)]
pub struct NewArgs {
    /// What it is to be called: at most 64 letters (a-z), digits, `-` and `_`
    pub name: String,
    /// The folder of the pipelines
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// What it is to be like
    #[arg(long, value_enum, default_value_t)]
    pub from: Template,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The pipelines whose checkpoints and results these are: a file, or a folder
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Mend what can be mended; no daemon may use the data directory meanwhile
    #[arg(long)]
    pub fix: bool,
}

impl DoctorArgs {
    const HELP: &str = "Example: propulsiond doctor --config pipelines/ --data-dir /var/lib/propulsiond --fix\n\
        Exit status: 0 nothing left to do, 1 something is, 2 there are no such pipelines, 3 the data directory cannot be \
        read, or is in use and was to be mended";
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The pipeline's name, or the path of its file
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// The folder that a name is looked for in
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Take variables and files that do not exist as empty
    #[arg(long)]
    pub allow_missing_env: bool,
}

#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Of what
    #[arg(value_name = "KIND")]
    pub kind: SchemaKind,
}

/// What has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// A pipeline file, TOML or YAML
    Pipeline,
    /// The daemon's own settings, `config/propulsiond.toml`
    Settings,
}

#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// For which shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where to write `propulsiond.1` and a page for each verb; without it, the main page is printed
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// What every verb takes.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// The daemon's own settings; `config/propulsiond.toml` if that exists
    #[arg(long, global = true, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Where to serve metrics, health and the admin API, or `off`
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where checkpoints and results are kept
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// How long handlers may take to finish when the daemon stops
    #[arg(long, global = true, value_name = "DURATION")]
    pub drain: Option<String>,
    /// How log lines are written
    #[arg(long, global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// What is logged: `info`, or by target as in `warn,propulsiond::pipeline=debug`
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl CommonArgs {
    /// Returns the flags that override settings.
    pub fn flags(&self) -> Flags {
        Flags {
            listen: self.listen.clone(),
            data_dir: self.data_dir.clone(),
            drain: self.drain.clone(),
            log_format: self.log_format,
            log_level: self.log_level.clone(),
        }
    }
}

/// Where pipelines are looked for.
const DEFAULT_CONFIG: &str = "pipelines";

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// All is well: a finite job is done, a daemon was told to stop and did.
    Ok,
    /// It failed, or a pipeline of a finite job was halted by its policy.
    Failed,
    /// The files, or the command line, are wrong.
    BadFiles,
    /// The environment is wrong: port taken, data directory locked or unwritable; for one-shot verbs also a store that
    /// cannot be reached.
    BadEnvironment,
    /// It stopped, but the drain deadline passed.
    DrainTimedOut,
    /// A second signal ended it.
    Signalled(u8),
}

impl ExitStatus {
    const HELP: &str = "Exit status: 0 ok, 1 failed, 2 the files or the command line are wrong, 3 the environment is \
        wrong, 4 stopped but not drained in time, 128+n ended by signal n";

    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::BadFiles => 2,
            Self::BadEnvironment => 3,
            Self::DrainTimedOut => 4,
            Self::Signalled(signal) => 128_u8.saturating_add(signal),
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn running_is_what_happens_without_a_verb() {
        for line in ["propulsiond --config a.toml --until-tail", "propulsiond run --config a.toml --until-tail"] {
            let cli = parse(line);
            let Verb::Run(run) = cli.verb() else { panic!("{line}") };
            assert_eq!((run.config.to_str(), run.until_tail), (Some("a.toml"), true));
        }
        let cli = parse("propulsiond");
        let Verb::Run(run) = cli.verb() else { panic!() };
        assert_eq!((run.config.to_str(), run.until_tail), (Some("pipelines"), false));
    }

    #[test]
    fn check_takes_paths_and_what_every_verb_takes() {
        let cli = parse("propulsiond check a b.toml --allow-missing-env --json --settings s.toml --log-level debug");
        let Verb::Check(check) = cli.verb() else { panic!() };
        assert_eq!(check.paths, [PathBuf::from("a"), PathBuf::from("b.toml")]);
        assert!(check.allow_missing_env && cli.common.json);
        assert_eq!(cli.common.flags().log_level.as_deref(), Some("debug"));
        assert_eq!(cli.common.settings, Some(PathBuf::from("s.toml")));
    }

    #[test]
    fn health_goes_by_the_settings_and_takes_nothing_of_its_own() {
        let cli = parse("propulsiond health --json --listen 127.0.0.1:9000");
        assert!(matches!(cli.verb(), Verb::Health) && cli.common.json);
        assert_eq!(cli.common.flags().listen.as_deref(), Some("127.0.0.1:9000"));
        assert!(Cli::try_parse_from(["propulsiond", "health", "orders"]).is_err());
    }

    #[test]
    fn every_verb_has_an_example_and_says_in_a_line_what_it_is_for() {
        let command = Cli::command();
        let mut verbs = Vec::new();
        for verb in command.get_subcommands() {
            let name = verb.get_name();
            let about = verb.get_about().unwrap_or_else(|| panic!("`{name}` says nothing")).to_string();
            assert!(about.len() > 20 && about.len() < 100 && !about.ends_with('.'), "`{name}`: {about}");
            let example = verb.get_after_help().unwrap_or_else(|| panic!("`{name}` has no example")).to_string();
            let line = example.strip_prefix("Example: ").unwrap_or_else(|| panic!("`{name}`: {example}"));
            let line = line.lines().next().unwrap().split(" > ").next().unwrap();
            Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(line.starts_with(&format!("propulsiond {name}")), "`{name}`: {line}");
            verbs.push(name);
        }
        assert_eq!(verbs[..3], ["run", "check", "explain"], "what is needed first comes first");
    }

    #[test]
    fn explain_takes_a_name_or_a_path() {
        let cli = parse("propulsiond explain orders --config some --json");
        let Verb::Explain(explain) = cli.verb() else { panic!() };
        assert_eq!((&*explain.pipeline, explain.config.to_str(), cli.common.json), ("orders", Some("some"), true));
    }

    #[test]
    fn a_wrong_command_line_exits_as_wrong_files_do() {
        let error = Cli::try_parse_from(["propulsiond", "--confg"]).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(ExitStatus::BadFiles.code()));
    }

    #[test]
    fn every_end_has_a_code_of_its_own() {
        use ExitStatus::{BadEnvironment, BadFiles, DrainTimedOut, Failed, Ok, Signalled};
        let codes = [Ok, Failed, BadFiles, BadEnvironment, DrainTimedOut, Signalled(2), Signalled(15)];
        assert_eq!(codes.map(ExitStatus::code), [0, 1, 2, 3, 4, 130, 143]);
    }
}
