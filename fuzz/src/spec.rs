//! Pipeline files: parsing, checks, and their error messages.

use std::path::Path;

use propulsiond::config::document::{Document, Format, Problem, Style};
use propulsiond::spec;

pub fn spec_toml(input: &[u8]) {
    explain(Path::new("fuzzed.toml"), input, Format::Toml);
}

pub fn spec_yaml(input: &[u8]) {
    explain(Path::new("fuzzed.yaml"), input, Format::Yaml);
}

fn explain(file: &Path, input: &[u8], format: Format) {
    let document = Document::from_bytes(file, input.to_vec(), format).map_err(|problem| vec![problem]);
    let problems = match document.and_then(|document| spec::parse("fuzzed".to_owned(), document)) {
        Ok(loaded) => {
            assert!(!loaded.normalised().is_empty());
            match spec::check(vec![loaded], Path::new("/nonexistent")) {
                Ok(outcome) => outcome.advice,
                Err(problems) => problems,
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "what cannot be loaded has a reason");
            problems
        }
    };
    let text = String::from_utf8_lossy(input);
    for problem in &problems {
        check_shown(problem, &text);
    }
}

/// Checks that a problem lies inside the file, and that its text has no control characters for a terminal.
fn check_shown(problem: &Problem, text: &str) {
    if let Some(location) = &problem.location {
        let line = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').nth(location.line - 1);
        let line = line.unwrap_or_else(|| panic!("there is no line {}", location.line));
        assert!(location.column <= line.chars().count() + 1, "there is no column {} in `{line}`", location.column);
        assert!(location.span_len > 0);
    }
    let shown = problem.render(Style::Plain);
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
    assert!(shown.lines().all(|line| line.chars().count() < 20_000), "nobody reads this much");
    assert!(problem.to_json().is_object());
}
