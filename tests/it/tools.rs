//! Foreign programs that check the shipped files. `tests/run` installs them and names them by variables.

use std::process::{Command, Output, Stdio};

/// Returns the command of a tool that `PROPULSIOND_TEST_…` names. Without that variable the test is skipped with a
/// message, or fails if `PROPULSIOND_TEST_REQUIRE` lists the tool.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let variable = format!("PROPULSIOND_TEST_{}", name.to_uppercase().replace('-', "_"));
    if let Some(program) = std::env::var_os(&variable) {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
        return Some(command);
    }
    let required = std::env::var("PROPULSIOND_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|one| one == name), "{variable} is not set");
    eprintln!("skipped: {variable} names no {name}");
    None
}

/// Asserts that a tool finds no fault, and returns its output.
pub(crate) fn accepts(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{said}");
    said
}
