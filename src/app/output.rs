//! Results on standard output, errors on standard error; both as JSON on standard output if asked for.

use std::io::{ErrorKind, IsTerminal, Write};

use serde_json::{Value, json};

use crate::cli::ExitStatus;
use crate::config::document::{Problem, Style};

/// The form of a command's output.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// Prints a result.
    pub fn result(self, to_json: impl FnOnce() -> Value, render: impl FnOnce(Style) -> String) {
        let text = if self.json { format!("{}\n", to_json()) } else { render(style(&std::io::stdout())) };
        // The exit code follows from the result, also if a pipe was closed before its end.
        let _printed = print(&text);
    }

    /// Prints the problems of files, and returns the exit code. A warning alone is no failure.
    pub fn problems(self, problems: &[Problem]) -> ExitStatus {
        if self.json {
            self.result(|| problems.iter().map(Problem::to_json).collect(), |_| String::new());
        } else {
            let style = style(&std::io::stderr());
            for problem in problems {
                eprintln!("{}", problem.render(style));
            }
        }
        if problems.iter().any(Problem::is_error) { ExitStatus::BadFiles } else { ExitStatus::Ok }
    }

    /// Prints an error of the environment, and returns its exit code.
    pub fn environment(self, error: &anyhow::Error) -> ExitStatus {
        self.error(&format!("{error:#}"));
        ExitStatus::BadEnvironment
    }

    /// Prints the reason why a command failed, and returns the exit code.
    pub fn failure(self, why: &str) -> ExitStatus {
        self.error(why);
        ExitStatus::Failed
    }

    fn error(self, message: &str) {
        if self.json {
            self.result(|| json!([{ "severity": "error", "message": message }]), |_| String::new());
        } else {
            eprintln!("error: {message}");
        }
    }
}

fn style(stream: &impl IsTerminal) -> Style {
    if stream.is_terminal() { Style::Colour } else { Style::Plain }
}

/// Writes a text to standard output.
pub(super) fn write(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Prints a text. The reader may close the pipe before the end: that is no failure.
pub(super) fn print(text: &str) -> ExitStatus {
    match write(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output: {error}");
            ExitStatus::BadEnvironment
        }
        _ => ExitStatus::Ok,
    }
}
