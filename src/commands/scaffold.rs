//! Beginning a pipeline: its file, its script, its tests and a few events to try it with, made from templates.
//!
//! The templates stand in `scaffold/`; `{{name}}` in them is the pipeline's name.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::document::Problem;
use crate::formats::words::io_error;
use crate::spec;

/// The placeholder of the pipeline's name in a template.
const NAME: &str = "{{name}}";

/// The template of a new pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Template {
    /// A line in a file for each event that matters
    #[default]
    Events,
    /// A read model in SQLite, kept exactly once
    Projection,
    /// A request to a web service for each event that matters
    Webhook,
}

impl Template {
    /// Returns the pipeline, its script and its tests.
    fn texts(self) -> [&'static str; 3] {
        match self {
            Self::Events => [
                include_str!("scaffold/events.toml"),
                include_str!("scaffold/events.rhai"),
                include_str!("scaffold/events.test.toml"),
            ],
            Self::Projection => [
                include_str!("scaffold/projection.toml"),
                include_str!("scaffold/projection.rhai"),
                include_str!("scaffold/projection.test.toml"),
            ],
            Self::Webhook => [
                include_str!("scaffold/webhook.toml"),
                include_str!("scaffold/webhook.rhai"),
                include_str!("scaffold/webhook.test.toml"),
            ],
        }
    }
}

const SAMPLE: &str = include_str!("scaffold/sample.jsonl");

/// A file that was made, and what it is.
#[derive(Debug)]
pub struct Made {
    pub path: PathBuf,
    pub what: &'static str,
}

/// Why nothing was made.
#[derive(Debug)]
pub enum NotMade {
    /// The name cannot be one, or something is in the way.
    Refused(Vec<Problem>),
    /// A file could not be written.
    Failed(anyhow::Error),
}

/// Makes the files of a pipeline in a folder, which is made as well if it is not there. Overwrites nothing; makes all
/// or nothing.
///
/// # Errors
/// The name cannot be a pipeline's, files are in the way (each is named), or one cannot be written.
pub fn make(name: &str, folder: &Path, template: Template) -> Result<Vec<Made>, NotMade> {
    let pipeline = folder.join(format!("{name}.toml"));
    if !spec::is_name(name) {
        let problem = Problem::new(
            &pipeline,
            format!("`{name}` cannot be the name of a pipeline: it is part of URLs and a metric's label"),
        );
        return Err(NotMade::Refused(vec![problem.help(spec::NAMES)]));
    }
    let in_the_way = in_the_way(name, folder);
    if !in_the_way.is_empty() {
        return Err(NotMade::Refused(in_the_way));
    }
    let [spec, script, tests] = template.texts();
    let files = [
        (pipeline, "the pipeline: where events come from, what becomes of them", spec),
        (folder.join(format!("{name}.rhai")), "its script", script),
        (folder.join(format!("{name}.test.toml")), "tests of the script", tests),
        (folder.join(name).join("sample.jsonl"), "a few events to try it with", SAMPLE),
    ];
    let mut made: Vec<Made> = Vec::new();
    for (path, what, text) in files {
        if let Err(error) = write_new(&path, &text.replace(NAME, name)) {
            // The user cannot have changed these files yet.
            made.iter().for_each(|made| drop(fs::remove_file(&made.path)));
            drop(fs::remove_dir(folder.join(name)));
            let error = anyhow::Error::msg(io_error(&error)).context(format!("cannot make `{}`", path.display()));
            return Err(NotMade::Failed(error));
        }
        made.push(Made { path, what });
    }
    Ok(made)
}

/// Returns everything that would be overwritten, or would make two pipelines of one name.
fn in_the_way(name: &str, folder: &Path) -> Vec<Problem> {
    if fs::symlink_metadata(folder).is_ok() && !folder.is_dir() {
        let problem = Problem::new(folder, "this is no folder");
        return vec![problem.help("name the folder of the pipelines with `--config`")];
    }
    let endings = ["toml", "yaml", "rhai", "test.toml", "test.yaml"];
    let files = endings.map(|ending| folder.join(format!("{name}.{ending}")));
    files
        .into_iter()
        .chain([folder.join(name)])
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .map(|path| Problem::new(&path, "this is there already, and is not overwritten").help("choose another name"))
        .collect()
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

/// Says what was made, and how to go on.
pub fn render(made: &[Made]) -> String {
    let width = made.iter().map(|made| made.path.display().to_string().len()).max().unwrap_or_default();
    let mut out = String::new();
    for Made { path, what } in made {
        out.push_str(&format!("made {:width$}  {what}\n", path.display().to_string()));
    }
    if let [run, test] = &next(made)[..] {
        out.push_str(&format!("\nNext:\n  {test}\n  {run}\n"));
    }
    out
}

/// Returns the commands to go on with: running it, testing it.
fn next(made: &[Made]) -> Vec<String> {
    let pipeline = made.first().map(|made| made.path.display());
    let commands = pipeline
        .map(|path| vec![format!("propulsiond --config {path} --until-tail"), format!("propulsiond test {path}")]);
    commands.unwrap_or_default()
}

/// Returns the same for machines.
pub fn to_json(made: &[Made]) -> serde_json::Value {
    let files =
        made.iter().map(|made| serde_json::json!({ "path": made.path.display().to_string(), "what": made.what }));
    serde_json::json!({ "made": files.collect::<Vec<_>>(), "next": next(made) })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::config::document::Style;

    fn check_refused(name: &str, present: &[&str], expected: Expect) {
        let folder = tempfile::tempdir().unwrap();
        for file in present {
            fs::write(folder.path().join(file), "mine").unwrap();
        }
        let before = fs::read_dir(folder.path()).unwrap().count();
        let Err(NotMade::Refused(problems)) = make(name, folder.path(), Template::Events) else { panic!("{name}") };
        let said: String = problems.iter().map(|problem| problem.render(Style::Plain)).collect();
        expected.assert_eq(&said.replace(&format!("{}/", folder.path().display()), ""));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before, "nothing was made");
    }

    #[test]
    fn names_that_cannot_be_a_pipelines_are_refused() {
        check_refused(
            "../x",
            &[],
            expect![[r#"
                error: `../x` cannot be the name of a pipeline: it is part of URLs and a metric's label
                --> ../x.toml
                 = help: a name is at most 64 letters (a-z), digits, `-` and `_`, and begins with a letter or digit
            "#]],
        );
        check_refused(
            "",
            &[],
            expect![[r#"
                error: `` cannot be the name of a pipeline: it is part of URLs and a metric's label
                --> .toml
                 = help: a name is at most 64 letters (a-z), digits, `-` and `_`, and begins with a letter or digit
            "#]],
        );
        check_refused(
            "a.test",
            &[],
            expect![[r#"
                error: `a.test` cannot be the name of a pipeline: it is part of URLs and a metric's label
                --> a.test.toml
                 = help: a name is at most 64 letters (a-z), digits, `-` and `_`, and begins with a letter or digit
            "#]],
        );
    }

    #[test]
    fn existing_files_are_named_and_stay_unchanged() {
        check_refused(
            "shop",
            &["shop.yaml", "shop.rhai", "shop"],
            expect![[r#"
                error: this is there already, and is not overwritten
                --> shop.yaml
                 = help: choose another name
                error: this is there already, and is not overwritten
                --> shop.rhai
                 = help: choose another name
                error: this is there already, and is not overwritten
                --> shop
                 = help: choose another name
            "#]],
        );
    }

    #[test]
    fn a_folder_that_is_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(make("shop", &file, Template::Events), Err(NotMade::Refused(_))));
    }

    #[test]
    fn a_failed_creation_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        // The folder of a new pipeline cannot be made below a file.
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(make("shop", &file.join("below"), Template::Events), Err(NotMade::Failed(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_template_stands_for_its_name_only_where_it_says_so() {
        for template in [Template::Events, Template::Projection, Template::Webhook] {
            let folder = tempfile::tempdir().unwrap();
            for made in make("some-name_1", folder.path(), template).unwrap() {
                let text = fs::read_to_string(&made.path).unwrap();
                assert!(!text.contains("{{"), "{}", made.path.display());
            }
        }
    }
}
