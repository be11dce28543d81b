//! Completion scripts and manual pages, made from the definition of the command line.

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

/// The name of the program.
const NAME: &str = "propulsiond";

/// Returns the completion script of a shell.
pub fn completion(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Returns the manual pages by the names of their files: the main page, then one for each command.
pub fn manual() -> Vec<(String, String)> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let subcommands = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    let mut pages = vec![page(command.clone())];
    pages.extend(subcommands.cloned().map(page));
    pages
}

fn page(command: Command) -> (String, String) {
    let man = Man::new(command).manual("propulsiond");
    let mut text = Vec::new();
    man.render(&mut text).expect("memory can be written to");
    (man.get_filename(), String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn the_manual_names_every_command_and_the_exit_codes() {
        let pages = manual();
        let (name, main) = &pages[0];
        assert_eq!(name, "propulsiond.1");
        for subcommand in Cli::command().get_subcommands() {
            let page = format!("propulsiond-{}.1", subcommand.get_name());
            assert!(pages.iter().any(|(name, _)| *name == page), "{page} is missing");
            let entry = format!("propulsiond\\-{}(1)", subcommand.get_name());
            assert!(main.contains(&entry), "{entry} is missing in:\n{main}");
        }
        for part in ["Exit status: 0 ok", "4 stopped but not drained in time", "128+n"] {
            assert!(main.contains(part), "`{part}` is missing in:\n{main}");
        }
        assert!(pages.iter().all(|(_, text)| text.contains("Example: ") || text == main));
    }

    #[test]
    fn every_completion_script_has_the_commands() {
        for shell in Shell::value_variants() {
            let script = completion(*shell);
            for word in ["explain", "completion", "until-tail"] {
                assert!(script.contains(word), "{shell}: `{word}` is missing");
            }
        }
    }
}
