//! The diagnoses of an inspection of stored data, in words for the operator.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// The severity of a diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing needs to be done.
    Note,
    /// The operator has to decide, or `--fix` has to repair it.
    Warning,
    /// A pipeline cannot go on, or data is lost.
    Error,
}

/// The remedy of a diagnosis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    None,
    /// The repair that `--fix` would make.
    Fix(String),
    /// The repair that was made.
    Fixed(String),
    /// The decision or action of the operator.
    Person(String),
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

    /// Sets the action of the operator.
    pub fn person(self, what: impl Into<String>) -> Self {
        self.remedy(Remedy::Person(what.into()))
    }

    /// Returns whether something remains to be done.
    pub fn remains(&self) -> bool {
        self.severity > Severity::Note && !matches!(self.remedy, Remedy::Fixed(_))
    }
}

/// The most diagnoses of one kind that are reported one by one.
pub const MOST: usize = 20;

/// The first [`MOST`] diagnoses of one kind, and the number of the others.
#[derive(Debug, Default)]
pub struct Bounded {
    pub diagnoses: Vec<Diagnosis>,
    more: usize,
}

impl Bounded {
    /// Adds a diagnosis. It is made only if it is one of the first.
    pub fn push(&mut self, diagnosis: impl FnOnce() -> Diagnosis) {
        if self.diagnoses.len() < MOST { self.diagnoses.push(diagnosis()) } else { self.more += 1 }
    }

    /// Returns the diagnoses. The last one gives the number of the others.
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
    fn notes_and_repaired_diagnoses_leave_nothing_to_do() {
        assert!(!diagnosis(Severity::Note).person("look").remains());
        assert!(diagnosis(Severity::Warning).remains() && diagnosis(Severity::Error).person("decide").remains());
        assert!(!diagnosis(Severity::Error).remedy(Remedy::Fixed("done".to_owned())).remains());
    }

    #[test]
    fn the_first_of_many_diagnoses_are_reported_and_the_others_counted() {
        let mut found = Bounded::default();
        (0..MOST + 7).for_each(|_| found.push(|| diagnosis(Severity::Note)));
        let diagnoses = found.finish();
        assert_eq!((diagnoses.len(), &*diagnoses[MOST - 1].what), (MOST, "what (and 7 more like this)"));
        assert!(Bounded::default().finish().is_empty());
    }
}
