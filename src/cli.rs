//! The command line, as types. What the verbs do is `app`'s.

mod mistake;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::scaffold::Template;
use crate::settings::{Flags, LogFormat};

pub use mistake::{CommandLine, explain};

/// Runs declarative reaction pipelines over event stores.
#[derive(Debug, Parser)]
#[command(name = "propulsiond", version, about, max_term_width = 100)]
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
            Some(Command::Test(args)) => Verb::Test(args),
            Some(Command::New(args)) => Verb::New(args),
            Some(Command::Doctor(args)) => Verb::Doctor(args),
            Some(Command::Health) => Verb::Health,
        }
    }
}

/// What was asked for.
#[derive(Debug)]
pub enum Verb<'a> {
    Run(&'a RunArgs),
    Check(&'a CheckArgs),
    Test(&'a TestArgs),
    New(&'a NewArgs),
    Doctor(&'a DoctorArgs),
    Health,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the pipelines; what happens without a verb as well
    Run(RunArgs),
    /// Say what is wrong with pipeline files and their scripts; touches no network
    Check(CheckArgs),
    /// Run the tests of handlers that stand beside the pipelines, in `NAME.test.toml`; touches no network
    #[command(after_help = TestArgs::HELP)]
    Test(TestArgs),
    /// Begin a pipeline: make its file, its script, its tests and a few events, and overwrite nothing
    #[command(after_help = "Example: propulsiond new invoices --from projection")]
    New(NewArgs),
    /// Look over the data directory, the databases and the checkpoints, and mend what needs no decision
    #[command(after_help = DoctorArgs::HELP)]
    Doctor(DoctorArgs),
    /// Ask the daemon that runs by the same settings how it is; exits with 1 if it has failed or does not answer
    Health,
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
