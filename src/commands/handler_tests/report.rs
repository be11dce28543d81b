//! The results of the tests, as text and JSON.

use std::path::PathBuf;

use crate::config::document::Style;

/// The results of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub tests: Vec<Tested>,
    /// The pipelines without tests.
    pub untested: Vec<String>,
}

/// The result of one test.
#[derive(Debug)]
pub struct Tested {
    pub pipeline: String,
    pub name: String,
    pub file: PathBuf,
    /// The place of its name, from 1.
    pub line: usize,
    pub column: usize,
    /// The events that the pipeline's filter excluded.
    pub excluded: Vec<String>,
    /// The differences from the expected result. Empty: the test passed.
    pub differences: Vec<String>,
}

impl Tested {
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

impl Report {
    pub fn passed(&self) -> bool {
        self.tests.iter().all(Tested::passed)
    }

    /// Returns a line for each test, the differences of failed ones, and a summary.
    pub fn render(&self, style: Style) -> String {
        let paint = |code: &str, text: &str| match style {
            Style::Plain => text.to_owned(),
            Style::Colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        };
        let mut out = String::new();
        for test in &self.tests {
            let mark = if test.passed() { paint("1;32", "ok    ") } else { paint("1;31", "FAILED") };
            out.push_str(&format!("{mark}  {}: {}\n", test.pipeline, test.name));
            let notes = test.excluded.iter().map(|what| format!("the pipeline's filter excludes {what}"));
            let place = format!("--> {}:{}:{}", test.file.display(), test.line, test.column);
            let place = (!test.passed()).then_some(place);
            for part in place.into_iter().chain(notes).chain(test.differences.iter().cloned()) {
                for line in part.lines() {
                    out.push_str(format!("        {line}").trim_end());
                    out.push('\n');
                }
            }
        }
        out + self.summary().as_str()
    }

    fn summary(&self) -> String {
        let failed = self.tests.iter().filter(|test| !test.passed()).count();
        let passed = self.tests.len() - failed;
        let mut summary = match (self.tests.len(), failed) {
            (0, _) => "no tests found".to_owned(),
            (_, 0) => format!("{passed} passed"),
            _ => format!("{passed} passed, {failed} failed"),
        };
        if !self.untested.is_empty() {
            summary.push_str(&format!("; without tests: {}", self.untested.join(", ")));
        }
        summary + "\n"
    }

    /// Returns the results as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let tests = self.tests.iter().map(|test| {
            serde_json::json!({
                "pipeline": test.pipeline,
                "name": test.name,
                "file": test.file.display().to_string(),
                "line": test.line,
                "column": test.column,
                "passed": test.passed(),
                "excluded": test.excluded,
                "differences": test.differences,
            })
        });
        let failed = self.tests.iter().filter(|test| !test.passed()).count();
        serde_json::json!({
            "passed": self.tests.len() - failed,
            "failed": failed,
            "tests": tests.collect::<Vec<_>>(),
            "without_tests": self.untested,
        })
    }
}
