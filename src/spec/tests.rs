pub(crate) mod accepted;
mod checked;
mod directory;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::config::document::{Problem, Style};

/// A directory of pipelines beside a data directory.
struct Files {
    root: TempDir,
}

impl Files {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["pipelines", "data"] {
            std::fs::create_dir(root.path().join(directory)).unwrap();
        }
        for (name, content) in files {
            std::fs::write(root.path().join("pipelines").join(name), content).unwrap();
        }
        Self { root }
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("pipelines")
    }

    fn problems(&self, path: &Path) -> Vec<Problem> {
        match load(&[path.to_owned()]) {
            Ok(loaded) => match check(loaded, &self.root.path().join("data")) {
                Ok(outcome) => outcome.advice,
                Err(problems) => problems,
            },
            Err(problems) => problems,
        }
    }

    /// Renders problems with paths relative to the root.
    fn render(&self, problems: &[Problem]) -> String {
        let root = format!("{}/", self.root.path().display());
        problems.iter().map(|problem| problem.render(Style::Plain).replace(&root, "")).collect()
    }
}
