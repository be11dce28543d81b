//! What an inspection of files finds, in words for who has to do something about it.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing has to be done.
    Note,
    /// Something waits for a person, or to be mended.
    Warning,
    /// A pipeline cannot go on, or something is lost.
    Error,
}

/// What is done about it, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    None,
    /// What mending would do.
    Fix(String),
    /// What was done to mend it.
    Fixed(String),
    /// What a person has to decide or to do.
    Person(String),
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// The file or folder.
    pub path: PathBuf,
    /// Lowercase, no full stop, names in backticks.
    pub what: String,
    /// What follows from it.
    pub means: String,
    pub remedy: Remedy,
}

impl Finding {
    pub fn new(severity: Severity, path: &Path, what: impl Into<String>, means: impl Into<String>) -> Self {
        Self { severity, path: path.to_owned(), what: what.into(), means: means.into(), remedy: Remedy::None }
    }

    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = remedy;
        self
    }

    /// Says what a person has to do.
    pub fn person(self, what: impl Into<String>) -> Self {
        self.remedy(Remedy::Person(what.into()))
    }

    /// Returns whether something is left to be done.
    pub fn remains(&self) -> bool {
        self.severity > Severity::Note && !matches!(self.remedy, Remedy::Fixed(_))
    }
}

/// How many findings of one kind are told one by one.
pub const MOST: usize = 20;

/// Collects findings of one kind, the first [`MOST`] of them.
#[derive(Debug, Default)]
pub struct Bounded {
    pub findings: Vec<Finding>,
    more: usize,
}

impl Bounded {
    /// Takes a finding in, which is made only if it is one of the first.
    pub fn push(&mut self, finding: impl FnOnce() -> Finding) {
        if self.findings.len() < MOST { self.findings.push(finding()) } else { self.more += 1 }
    }

    /// Returns the findings; the last one says how many there are beyond them.
    pub fn finish(mut self) -> Vec<Finding> {
        if self.more > 0
            && let Some(last) = self.findings.last_mut()
        {
            last.what.push_str(&format!(" (and {} more like this)", self.more));
        }
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding::new(severity, Path::new("file"), "what", "means")
    }

    #[test]
    fn notes_and_what_was_mended_leave_nothing_to_do() {
        assert!(!finding(Severity::Note).person("look").remains());
        assert!(finding(Severity::Warning).remains() && finding(Severity::Error).person("decide").remains());
        assert!(!finding(Severity::Error).remedy(Remedy::Fixed("done".to_owned())).remains());
    }

    #[test]
    fn of_many_findings_the_first_are_told_and_the_rest_counted() {
        let mut found = Bounded::default();
        (0..MOST + 7).for_each(|_| found.push(|| finding(Severity::Note)));
        let findings = found.finish();
        assert_eq!((findings.len(), &*findings[MOST - 1].what), (MOST, "what (and 7 more like this)"));
        assert!(Bounded::default().finish().is_empty());
    }
}
