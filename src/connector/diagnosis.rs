//! The diagnoses of an inspection of files, with their remedies.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// The weight of a diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing needs to be done.
    Note,
    /// Something needs the operator, or a repair.
    Warning,
    /// A pipeline cannot continue, or something is lost.
    Error,
}

/// The remedy of a diagnosis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    None,
    /// The repair that `--fix` performs.
    Fix(String),
    /// The repair that was performed.
    Fixed(String),
    /// The decision or action that the operator must take.
    // Programs read this name in the JSON report.
    #[serde(rename = "person")]
    Operator(String),
}

/// A diagnosis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    pub severity: Severity,
    /// The file or directory.
    pub path: PathBuf,
    /// The fact: lowercase, no full stop, names in backticks.
    pub what: String,
    /// The consequence.
    pub means: String,
    pub remedy: Remedy,
}

impl Diagnosis {
    pub fn new(severity: Severity, path: &Path, what: impl Into<String>, means: impl Into<String>) -> Self {
        Self { severity, path: path.to_owned(), what: what.into(), means: means.into(), remedy: Remedy::None }
    }

    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = remedy;
        self
    }

    /// Sets the action that the operator must take.
    pub fn operator(self, what: impl Into<String>) -> Self {
        self.remedy(Remedy::Operator(what.into()))
    }

    /// Returns whether the diagnosis still needs an action.
    pub fn remains(&self) -> bool {
        self.severity > Severity::Note && !matches!(self.remedy, Remedy::Fixed(_))
    }
}

/// The most diagnoses of one kind that are listed singly.
pub const MAX_LISTED: usize = 20;

/// Collects diagnoses of one kind, the first [`MAX_LISTED`] of them.
#[derive(Debug, Default)]
pub struct Bounded {
    pub diagnoses: Vec<Diagnosis>,
    more: usize,
}

impl Bounded {
    /// Adds a diagnosis. Makes it only if it is one of the first.
    pub fn push(&mut self, diagnosis: impl FnOnce() -> Diagnosis) {
        if self.diagnoses.len() < MAX_LISTED { self.diagnoses.push(diagnosis()) } else { self.more += 1 }
    }

    /// Returns the diagnoses. The last one names the number of others.
    pub fn finish(mut self) -> Vec<Diagnosis> {
        if self.more > 0
            && let Some(last) = self.diagnoses.last_mut()
        {
            last.what.push_str(&format!(" (and {} more like this)", self.more));
        }
        self.diagnoses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(severity: Severity) -> Diagnosis {
        Diagnosis::new(severity, Path::new("file"), "what", "means")
    }

    #[test]
    fn notes_and_repaired_findings_leave_nothing_to_do() {
        assert!(!diagnosis(Severity::Note).operator("look").remains());
        assert!(diagnosis(Severity::Warning).remains() && diagnosis(Severity::Error).operator("decide").remains());
        assert!(!diagnosis(Severity::Error).remedy(Remedy::Fixed("done".to_owned())).remains());
    }

    #[test]
    fn the_first_of_many_findings_are_listed_and_the_others_counted() {
        let mut found = Bounded::default();
        (0..MAX_LISTED + 7).for_each(|_| found.push(|| diagnosis(Severity::Note)));
        let diagnoses = found.finish();
        assert_eq!((diagnoses.len(), &*diagnoses[MAX_LISTED - 1].what), (MAX_LISTED, "what (and 7 more like this)"));
        assert!(Bounded::default().finish().is_empty());
    }
}
