//! Runs the broken inputs of `tests/broken`: each must fail with exactly the expected output and exit code.
//!
//! A case is a directory `tests/broken/GROUP/NAME`. It is copied, and its command runs in the copy:
//!
//! * `command`: lines for bash, `propulsiond check` by default. `propulsiond` is the binary under test, and the environment
//!   holds only the variables that the lines set.
//! * `expected`: the exit code, then standard output and standard error, without the path of the copy. A list of all
//!   connectors of a role is replaced, so that a new connector changes no case.
//! * All other files are the input. A directory `pipelines` always exists.
//!
//! `UPDATE_EXPECT=1` rewrites `expected`. A new case is a new directory without that file. `PROPULSIOND_MEASURE=1` prints the
//! time and the memory of each run, and fails above the limits of [`crate::measure`].

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use propulsiond::connector::prose::names;
use propulsiond::connector::{CheckpointSpec, SinkSpec, SourceSpec};
use similar::TextDiff;

use crate::daemon::copy_directory;
use crate::measure::run;

/// The least number of cases. Without it, a listing that finds nothing would pass.
const MIN_CASES: usize = 400;

#[test]
fn every_broken_input_gives_its_expected_output_and_exit_code() {
    let cases = cases();
    assert!(cases.len() >= MIN_CASES, "only {} cases were found", cases.len());
    // Simultaneous runs would disturb the measurements.
    let measured = std::env::var_os("PROPULSIOND_MEASURE").is_some();
    let threads = if measured { 1 } else { std::thread::available_parallelism().map_or(2, usize::from).min(8) };
    let (queue, failures) = (Mutex::new(VecDeque::from(cases)), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..threads {
            // `measure` holds runs of threads of this name to the limits for mistakes.
            let thread = std::thread::Builder::new().name(format!("broken::{number}"));
            let work = || {
                while let Some(case) = { queue.lock().unwrap().pop_front() } {
                    failures.lock().unwrap().extend(failure(&case));
                }
            };
            thread.spawn_scoped(scope, work).unwrap();
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} cases differ; `UPDATE_EXPECT=1` accepts the new output:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken")
}

/// Returns the directories of all cases.
fn cases() -> Vec<PathBuf> {
    let entries = |directory: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut cases: Vec<_> = entries(&corpus()).iter().flat_map(|group| entries(group)).collect();
    cases.sort();
    cases
}

/// Runs a case. Returns the difference from the expected output, unless there is none or the new output is accepted.
fn failure(case: &Path) -> Option<String> {
    let file = case.join("expected");
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    let actual = outcome(case);
    if actual == expected {
        return None;
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, actual).unwrap();
        return None;
    }
    let name = case.strip_prefix(corpus()).unwrap().display();
    let diff = TextDiff::from_lines(&expected, &actual);
    Some(format!("{name}:\n{}", diff.unified_diff().header("expected", "actual")))
}

/// Returns the exit code and the output of a case.
fn outcome(case: &Path) -> String {
    let copy = tempfile::tempdir().unwrap();
    copy_directory(case, copy.path());
    let script = std::fs::read_to_string(case.join("command")).unwrap_or_else(|_| "propulsiond check".to_owned());
    for ours in ["command", "expected"] {
        // The default command has no file, and a new case no expected output.
        let _absent = std::fs::remove_file(copy.path().join(ours)).is_err();
    }
    std::fs::create_dir_all(copy.path().join("pipelines")).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_propulsiond")).parent().unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", script.trim_end()]).current_dir(copy.path()).env_clear().stdin(Stdio::null());
    command.env("PATH", format!("{}:/usr/bin:/bin", binary.display()));
    let output = run(&mut command);
    let root = copy.path().display().to_string();
    let text = without_kinds(text(&output).replace(&format!("{root}/"), "").replace(&root, "."));
    assert!(!text.contains("panicked"), "{}: {text}", case.display());
    let code = output.status.code().unwrap_or_else(|| panic!("{}: a signal ended it: {text}", case.display()));
    format!("exit {code}\n{}\n", text.trim_end())
}

/// Replaces the lists of all connectors of a role.
fn without_kinds(text: String) -> String {
    let roles = [("source", SourceSpec::KINDS), ("checkpoint", CheckpointSpec::KINDS), ("sink", SinkSpec::KINDS)];
    roles.into_iter().fold(text, |text, (role, kinds)| {
        let tables: Vec<_> = kinds.iter().map(|kind| format!("`{role}.{kind}`")).collect();
        let text = text.replace(&tables.join(", "), &format!("<each table of `{role}`>"));
        text.replace(&names(kinds.iter().copied(), "and"), &format!("<each key of `{role}`>"))
    })
}

fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("all output is UTF-8");
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}
