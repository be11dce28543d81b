//! The command line as types, its completion scripts and its manual pages. `app` runs the commands.

mod diff;
mod exit;
mod manual;
mod mistake;
mod parked;
mod rebuild;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::commands::scaffold::Template;
use crate::config::document::Format;
use crate::config::settings::{Flags, LogFormat};

pub use diff::DiffArgs;
pub use exit::ExitStatus;
pub use manual::{completion, manual};
pub use mistake::{CommandLine, explain};
pub use parked::{ParkedArgs, ParkedVerb};
pub use rebuild::RebuildArgs;

/// Run declarative reaction pipelines over event stores
///
/// A pipeline is a file that names a source of events, a handler, and a sink for the results. Without a command, the
/// pipelines at PATH run, or those in `pipelines/`.
#[derive(Debug, Parser)]
#[command(name = "propulsiond", version, max_term_width = 100)]
#[command(after_help = ExitStatus::HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<CommandArgs>,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

impl Cli {
    /// Returns the command, which is `run` by default.
    pub fn selected(&self) -> Command<'_> {
        match &self.command {
            None => Command::Run(&self.run),
            Some(CommandArgs::Run(args)) => Command::Run(args),
            Some(CommandArgs::Check(args)) => Command::Check(args),
            Some(CommandArgs::Explain(args)) => Command::Explain(args),
            Some(CommandArgs::Test(args)) => Command::Test(args),
            Some(CommandArgs::New(args)) => Command::New(args),
            Some(CommandArgs::Map(args)) => Command::Map(args),
            Some(CommandArgs::Doctor(args)) => Command::Doctor(args),
            Some(CommandArgs::Rebuild(args)) => Command::Rebuild(args),
            Some(CommandArgs::Diff(args)) => Command::Diff(args),
            Some(CommandArgs::Status(args)) => Command::Status(args),
            Some(CommandArgs::Health) => Command::Health,
            Some(CommandArgs::Checkpoint(args)) => Command::Checkpoint(args),
            Some(CommandArgs::Parked(args)) => Command::Parked(args),
            Some(CommandArgs::Reload(args)) => Command::Reload(args),
            Some(CommandArgs::Pause(args)) => Command::Control("pause", args),
            Some(CommandArgs::Resume(args)) => Command::Control("resume", args),
            Some(CommandArgs::Restart(args)) => Command::Control("restart", args),
            Some(CommandArgs::Start(args)) => Command::Control("start", args),
            Some(CommandArgs::Drain(args)) => Command::Control("drain", args),
            Some(CommandArgs::List(args)) => Command::List(args),
            Some(CommandArgs::Schema(args)) => Command::Schema(args),
            Some(CommandArgs::Completion(args)) => Command::Completion(args),
            Some(CommandArgs::Man(args)) => Command::Man(args),
        }
    }
}

/// A command with its arguments.
#[derive(Debug)]
pub enum Command<'a> {
    Run(&'a RunArgs),
    Check(&'a CheckArgs),
    Explain(&'a ExplainArgs),
    Test(&'a TestArgs),
    New(&'a NewArgs),
    Map(&'a MapArgs),
    Doctor(&'a DoctorArgs),
    Rebuild(&'a RebuildArgs),
    Diff(&'a DiffArgs),
    Status(&'a StatusArgs),
    Health,
    Checkpoint(&'a CheckpointArgs),
    Parked(&'a ParkedArgs),
    Reload(&'a ReloadArgs),
    /// A command to pipelines, by its name in the API.
    Control(&'static str, &'a ControlArgs),
    List(&'a ListArgs),
    Schema(&'a SchemaArgs),
    Completion(&'a CompletionArgs),
    Man(&'a ManArgs),
}

/// The commands, as clap parses them.
#[derive(Debug, Subcommand)]
pub enum CommandArgs {
    /// Run the pipelines (default command)
    ///
    /// Runs until a signal, or until every pipeline has ended by itself. SIGTERM and SIGINT drain the pipelines: calls in
    /// flight finish, and progress is committed. A second signal ends the process at once.
    #[command(after_help = "Example: propulsiond run pipelines/orders.toml --until-tail")]
    Run(RunArgs),
    /// Check pipeline files and their scripts, without the network
    ///
    /// Shows every error with its file, line and column, and a suggestion. Exits with 2 if there is an error.
    #[command(after_help = "Example: propulsiond check pipelines/ --allow-missing-env")]
    Check(CheckArgs),
    /// Explain a pipeline in plain words: its flow, its delivery contract, the origin of each value
    ///
    /// Explains the delivery contract, the cost of a crash and the consequences of failures. References such as `${NAME}`
    /// are shown as written, never resolved.
    #[command(after_help = "Example: propulsiond explain orders")]
    Explain(ExplainArgs),
    /// Run the handler tests beside the pipelines (`NAME.test.toml`), without the network
    #[command(after_help = TestArgs::HELP)]
    Test(TestArgs),
    /// Create a pipeline: its file, script, tests and sample events; overwrites nothing
    #[command(after_help = "Example: propulsiond new invoices --from projection")]
    New(NewArgs),
    /// Propose a mapping for foreign records, or try the mapping of a pipeline
    ///
    /// Prints a table for a pipeline file, and the events of the records as comments below it. With a pipeline, prints the
    /// events by the pipeline's own mapping, and exits with 1 if a record does not fit.
    #[command(after_help = "Example: propulsiond map --try webhooks.jsonl")]
    Map(MapArgs),
    /// Check the data directory, the databases and the checkpoints, and repair them if asked to
    #[command(after_help = DoctorArgs::HELP)]
    Doctor(DoctorArgs),
    /// Build a projection again from the origin of its source, and exchange the files at the end
    ///
    /// Needs `checkpoint = "sink"`, a sink that writes a local file, and a source that still has its events. Works in
    /// `rebuild/PIPELINE` of the data directory, so that the daemon may run meanwhile. An interrupted rebuild is resumed.
    /// For the exchange, the daemon restarts the pipeline. If it cannot be asked (`listen = "off"`), the command exits with
    /// 3: once the daemon is stopped, the same command catches up and exchanges the files. The former files are kept.
    #[command(after_help = RebuildArgs::HELP)]
    Rebuild(RebuildArgs),
    /// Compare the effects of a handler with those of another one, over the last events of the source
    ///
    /// Runs the script of PIPELINE and that of FILE over the same events, without sink and checkpoint, and prints the lines
    /// that only one of them emits, the new errors, and those that are gone. FILE is a pipeline file, or a script that takes
    /// the place of the pipeline's own. The daemon may run meanwhile. A source is read forward, from a logged position near its
    /// tail if there is one, for at most 30 seconds.
    #[command(after_help = DiffArgs::HELP)]
    Diff(DiffArgs),
    /// Show the pipelines of the running daemon: state, lag, rate, the oldest failing stream
    ///
    /// Asks the daemon that runs with the same settings, which must listen. The rate is the mean of the last ten seconds.
    /// Exits with 1 if the daemon does not answer.
    #[command(after_help = "Example: propulsiond status --watch")]
    Status(StatusArgs),
    /// Show the health of the running daemon
    ///
    /// Asks the daemon that runs with the same settings. Prints a line for each pipeline and each complaint. Exits with 1 if
    /// a pipeline has failed, or the daemon does not answer.
    #[command(after_help = "Example: propulsiond health --settings config/propulsiond.toml")]
    Health,
    /// Show the stored progress of a pipeline, or move it: show, log, set, reset, rewind
    ///
    /// The pipeline must not run while its progress moves: drain it first, and start it afterwards.
    #[command(after_help = "Example: propulsiond checkpoint rewind orders --to 2h --dry-run")]
    Checkpoint(CheckpointArgs),
    /// Show the parked streams of a pipeline, and retry, discard or edit them
    ///
    /// A stream is parked when an event of it cannot be handled (`then = "park"`), or when its handler defers it for a
    /// minute or more. Later events of the stream wait behind it, and the rest goes on. Works with and without a running
    /// daemon: the pipeline acts on a request at once, or at its next start.
    #[command(after_help = "Example: propulsiond parked retry orders --type OrderPlaced --wait")]
    Parked(ParkedArgs),
    /// Reload the pipeline files of the running daemon, and show what changed
    ///
    /// The daemon also reloads when files change, and on SIGHUP. A changed handler or filter is exchanged while its pipeline
    /// runs; other changes drain the pipeline and start it again. A wrong file is refused: its pipeline goes on. Exits with
    /// 2 if a file is refused.
    #[command(after_help = "Example: propulsiond reload --dry-run")]
    Reload(ReloadArgs),
    /// Pause pipelines of the running daemon: nothing is read or handled
    ///
    /// A pause outlives reloads and restarts of the pipeline, and ends with `resume`. A restart of the daemon ends it, too.
    #[command(after_help = "Example: propulsiond pause orders --wait")]
    Pause(ControlArgs),
    /// Resume paused pipelines; start halted and fenced ones
    #[command(after_help = "Example: propulsiond resume orders")]
    Resume(ControlArgs),
    /// Drain pipelines and start them again, whatever their state
    #[command(after_help = "Example: propulsiond restart orders --wait")]
    Restart(ControlArgs),
    /// Start pipelines that are halted, fenced, finished or stopped; the others go on
    #[command(after_help = "Example: propulsiond start orders")]
    Start(ControlArgs),
    /// Drain pipelines and stop them, until `start`, `restart` or a change of their files
    #[command(after_help = "Example: propulsiond drain orders --wait")]
    Drain(ControlArgs),
    /// List the connectors of this binary, or the settings of one
    ///
    /// Prints a line for each connector. Given a name such as `sink.http`, prints its settings with their types, defaults
    /// and meanings, and an example.
    #[command(after_help = "Example: propulsiond list sqlite")]
    List(ListArgs),
    /// Print the JSON Schema of pipeline files, handler tests or the settings, for editors
    ///
    /// An editor finds the schema by a comment in the first line of a file: `#:schema ./pipeline.schema.json` in TOML
    /// (Taplo), `# yaml-language-server: $schema=./pipeline.schema.json` in YAML.
    #[command(after_help = "Example: propulsiond schema pipeline > pipelines/pipeline.schema.json")]
    Schema(SchemaArgs),
    /// Print the script that completes this command line in a shell
    ///
    /// Each shell has its own directory for such scripts. The shell's start file can load the script, too.
    #[command(
        after_help = "Example: propulsiond completion bash > ~/.local/share/bash-completion/completions/propulsiond"
    )]
    Completion(CompletionArgs),
    /// Print the manual page, or write one for each command into a directory
    ///
    /// The pages belong in section 1 of the manual.
    #[command(after_help = "Example: propulsiond man ~/.local/share/man/man1")]
    Man(ManArgs),
}

/// The paths of pipelines. Every command that reads pipelines takes them in both forms.
#[derive(Debug, Args)]
pub struct PathArgs {
    /// Read these pipeline files, or directories of them [default: pipelines]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Read this pipeline file or directory, too; may be repeated
    #[arg(long, value_name = "PATH")]
    config: Vec<PathBuf>,
}

impl PathArgs {
    /// Returns all given paths, or the default directory.
    pub fn all(&self) -> Vec<PathBuf> {
        or_default([&self.paths[..], &self.config].concat())
    }
}

fn or_default(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    if paths.is_empty() { vec![PathBuf::from(DEFAULT_CONFIG)] } else { paths }
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    /// End every pipeline at its tail: a finite job
    #[arg(long)]
    pub until_tail: bool,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    /// Treat missing variables and files as empty
    #[arg(long)]
    pub allow_missing_env: bool,
}

#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    /// Run only the tests with this text in their name or their pipeline's
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
}

impl TestArgs {
    const HELP: &str = "Example: propulsiond test pipelines/ --filter \"placed order\"\n\
        `--log-level info` shows the log lines of the scripts.";
}

#[derive(Debug, Args)]
pub struct NewArgs {
    /// Name the pipeline: at most 64 letters (a-z), digits, `-` and `_`
    pub name: String,
    /// Create the files in this directory
    #[arg(long, value_name = "DIR", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Start from this template
    #[arg(long, value_enum, default_value_t)]
    pub from: Template,
    /// Write YAML files instead of TOML
    #[arg(long)]
    pub yaml: bool,
}

impl NewArgs {
    /// Returns the format of the files to create.
    pub fn format(&self) -> Format {
        if self.yaml { Format::Yaml } else { Format::Toml }
    }
}

#[derive(Debug, Args)]
pub struct MapArgs {
    /// Try the mapping of the pipeline with this name, or in this file
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<String>,
    /// Read the records of this file: JSON, CSV or text
    #[arg(long = "try", value_name = "FILE")]
    pub file: PathBuf,
    /// Look for the name in this directory
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Propose the table in YAML instead of TOML
    #[arg(long)]
    pub yaml: bool,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    /// Repair all that needs no decision; no daemon may use the data directory meanwhile
    #[arg(long)]
    pub fix: bool,
}

impl DoctorArgs {
    const HELP: &str = "Example: propulsiond doctor pipelines/ --data-dir /var/lib/propulsiond --fix\n\
        Exit status: 0 nothing is left to do, 1 something is, 2 the pipelines do not exist, 3 the data directory cannot be \
        read, or is in use and `--fix` was given";
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Explain the pipeline with this name, or in this file
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// Look for the name in this directory; may be repeated [default: pipelines]
    #[arg(long, value_name = "DIR")]
    config: Vec<PathBuf>,
    /// Treat missing variables and files as empty
    #[arg(long)]
    pub allow_missing_env: bool,
}

impl ExplainArgs {
    /// Returns the directories in which the name is looked for.
    pub fn directories(&self) -> Vec<PathBuf> {
        or_default(self.config.clone())
    }
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Refresh the answer every two seconds, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct CheckpointArgs {
    #[command(subcommand)]
    pub verb: CheckpointVerb,
}

#[derive(Debug, Subcommand)]
pub enum CheckpointVerb {
    /// Show the position of each tranche, the time of its latest commit and its owner
    #[command(after_help = "Example: propulsiond checkpoint show orders")]
    Show(OfPipeline),
    /// Show the log of commits: a position a minute, and the progress that commands replaced
    #[command(after_help = "Example: propulsiond checkpoint log orders --last 5")]
    Log {
        #[command(flatten)]
        of: OfPipeline,
        /// Show at most this many entries of each tranche
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: usize,
    },
    /// Set the position of a tranche, as `show --json` prints it
    #[command(after_help = "Example: propulsiond checkpoint set orders 1200 --tranche 0")]
    Set {
        #[command(flatten)]
        of: OfPipeline,
        /// A number, or the text of a position
        #[arg(value_name = "POSITION", allow_hyphen_values = true)]
        position: String,
        #[command(flatten)]
        how: HowToChange,
    },
    /// Forget the progress: the pipeline begins at the origin of its source
    #[command(after_help = "Example: propulsiond checkpoint reset orders --dry-run")]
    Reset {
        #[command(flatten)]
        of: OfPipeline,
        #[command(flatten)]
        how: HowToChange,
    },
    /// Go back to a position of the log
    #[command(after_help = "Example: propulsiond checkpoint rewind orders --to 2026-11-28T07:00:00Z")]
    Rewind {
        #[command(flatten)]
        of: OfPipeline,
        /// Go back to the latest commit before this time, or before this duration (`2h`)
        #[arg(long, value_name = "TIME", required_unless_present_any = ["entry", "undo"])]
        to: Option<String>,
        /// Go back to this entry of the log
        #[arg(long, value_name = "N", conflicts_with_all = ["to", "undo"])]
        entry: Option<u64>,
        /// Restore the progress that the latest `set`, `reset` or `rewind` replaced
        #[arg(long, conflicts_with = "to")]
        undo: bool,
        #[command(flatten)]
        how: HowToChange,
    },
}

/// The pipeline whose progress is meant.
#[derive(Debug, Args)]
pub struct OfPipeline {
    /// Name the pipeline, or its file
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// Look for the name in this directory; may be repeated [default: pipelines]
    #[arg(long, value_name = "DIR")]
    config: Vec<PathBuf>,
    /// Only this tranche
    #[arg(long, value_name = "TRANCHE")]
    pub tranche: Option<String>,
}

impl OfPipeline {
    /// Returns the directories in which the name is looked for.
    pub fn directories(&self) -> Vec<PathBuf> {
        or_default(self.config.clone())
    }
}

#[derive(Debug, Args)]
pub struct HowToChange {
    /// Change nothing, and show the change
    #[arg(long)]
    pub dry_run: bool,
    /// Change the progress although the pipeline runs, which fences it until `propulsiond start`
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Change nothing, and show the plan
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ControlArgs {
    /// Name the pipelines
    #[arg(value_name = "PIPELINE", required = true)]
    pub pipelines: Vec<String>,
    /// Wait until each pipeline has reached the state
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// List the settings of this connector, such as `sink.http`, or of every role of a name, such as `sqlite`
    #[arg(value_name = "CONNECTOR")]
    pub connector: Option<String>,
}

#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Print the schema of this kind of file
    #[arg(value_name = "KIND")]
    pub kind: SchemaKind,
}

/// A kind of file that has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// A pipeline file, TOML or YAML
    Pipeline,
    /// A file of handler tests, `NAME.test.toml`
    Test,
    /// The daemon's own settings, `config/propulsiond.toml`
    Settings,
}

#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// Print the script of this shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write `propulsiond.1` and a page for each command into this directory
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// The flags of every command.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Read the daemon's settings from this file (default: `config/propulsiond.toml`, if it exists)
    #[arg(long, global = true, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Print results and errors as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Serve metrics, health and the admin API at this address, or nowhere (`off`)
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Keep checkpoints and results in this directory
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Limit the time for calls in flight when the daemon stops
    #[arg(long, global = true, value_name = "DURATION")]
    pub drain: Option<String>,
    /// Write log lines in this form
    #[arg(long, global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Log from this level on: `info`, or by target as in `warn,propulsiond::pipeline=debug`
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

/// The default directory of pipelines.
const DEFAULT_CONFIG: &str = "pipelines";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn the_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_command() {
        for line in [
            "propulsiond --config a.toml --until-tail",
            "propulsiond run --config a.toml --until-tail",
            "propulsiond a.toml --until-tail",
            "propulsiond run --until-tail a.toml",
        ] {
            let cli = parse(line);
            let Command::Run(run) = cli.selected() else { panic!("{line}") };
            assert_eq!((run.paths.all(), run.until_tail), (vec![PathBuf::from("a.toml")], true));
        }
        let cli = parse("propulsiond");
        let Command::Run(run) = cli.selected() else { panic!() };
        assert_eq!((run.paths.all(), run.until_tail), (vec![PathBuf::from("pipelines")], false));
    }

    #[test]
    fn check_takes_paths_and_the_common_flags() {
        let cli = parse("propulsiond check a b.toml --allow-missing-env --json --settings s.toml --log-level debug");
        let Command::Check(check) = cli.selected() else { panic!() };
        assert_eq!(check.paths.all(), [PathBuf::from("a"), PathBuf::from("b.toml")]);
        assert!(check.allow_missing_env && cli.common.json);
        assert_eq!(cli.common.flags().log_level.as_deref(), Some("debug"));
        assert_eq!(cli.common.settings, Some(PathBuf::from("s.toml")));
    }

    #[test]
    fn every_command_that_reads_pipelines_takes_several_paths_in_both_forms() {
        for command in ["", "run", "check", "test", "doctor"] {
            let cli = parse(&format!("propulsiond {command} a --config b --config c/p.yml"));
            let paths = match cli.selected() {
                Command::Run(args) => &args.paths,
                Command::Check(args) => &args.paths,
                Command::Test(args) => &args.paths,
                Command::Doctor(args) => &args.paths,
                other => panic!("{other:?}"),
            };
            assert_eq!(paths.all(), ["a", "b", "c/p.yml"].map(PathBuf::from), "{command}");
        }
    }

    #[test]
    fn health_takes_the_common_flags_only() {
        let cli = parse("propulsiond health --json --listen 127.0.0.1:9000");
        assert!(matches!(cli.selected(), Command::Health) && cli.common.json);
        assert_eq!(cli.common.flags().listen.as_deref(), Some("127.0.0.1:9000"));
        assert!(Cli::try_parse_from(["propulsiond", "health", "orders"]).is_err());
    }

    #[test]
    fn every_command_has_an_example_and_a_line_of_help() {
        let command = Cli::command();
        let mut names = Vec::new();
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name();
            let about = subcommand.get_about().unwrap_or_else(|| panic!("`{name}` has no help")).to_string();
            assert!(about.len() > 20 && about.len() < 100 && !about.ends_with('.'), "`{name}`: {about}");
            let example = subcommand.get_after_help().unwrap_or_else(|| panic!("`{name}` has no example")).to_string();
            let line = example.strip_prefix("Example: ").unwrap_or_else(|| panic!("`{name}`: {example}"));
            let line = line.lines().next().unwrap().split(" > ").next().unwrap();
            Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(line.starts_with(&format!("propulsiond {name}")), "`{name}`: {line}");
            names.push(name);
        }
        assert_eq!(names[..3], ["run", "check", "explain"], "the first commands to need come first");
    }

    #[test]
    fn explain_takes_a_name_or_a_path() {
        let cli = parse("propulsiond explain orders --config some --json");
        let Command::Explain(explain) = cli.selected() else { panic!() };
        assert_eq!((&*explain.pipeline, cli.common.json), ("orders", true));
        assert_eq!(explain.directories(), [PathBuf::from("some")]);
    }

    #[test]
    fn a_wrong_command_line_has_the_exit_code_of_wrong_files() {
        let error = Cli::try_parse_from(["propulsiond", "--confg"]).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(ExitStatus::BadFiles.code()));
    }
}
