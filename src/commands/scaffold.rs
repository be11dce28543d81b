//! `propulsiond new`: creates a pipeline from a template, with its script, its tests and sample events.
//!
//! The templates are in `scaffold/`; `{{name}}` in them is the pipeline's name.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::document::{Format, Problem};
use crate::formats::words::io_error;
use crate::spec;

/// The placeholder of the pipeline's name in a template.
const NAME: &str = "{{name}}";

/// The template of a new pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Template {
    /// Write a line to a file for each matching event
    #[default]
    Events,
    /// Maintain a read model in SQLite, exactly once
    Projection,
    /// Send a request to a web service for each matching event
    Webhook,
}

/// The texts of a template.
struct Texts {
    /// The pipeline in the chosen format.
    pipeline: &'static str,
    script: &'static str,
    tests: &'static str,
}

impl Template {
    fn texts(self, format: Format) -> Texts {
        macro_rules! texts {
            ($name:literal) => {
                match format {
                    Format::Toml => texts!($name, "toml"),
                    Format::Yaml => texts!($name, "yaml"),
                }
            };
            ($name:literal, $ending:literal) => {
                Texts {
                    pipeline: include_str!(concat!("scaffold/", $name, ".", $ending)),
                    script: include_str!(concat!("scaffold/", $name, ".rhai")),
                    tests: include_str!(concat!("scaffold/", $name, ".test.", $ending)),
                }
            };
        }
        match self {
            Self::Events => texts!("events"),
            Self::Projection => texts!("projection"),
            Self::Webhook => texts!("webhook"),
        }
    }
}

const SAMPLE: &str = include_str!("scaffold/sample.jsonl");

/// A created file and its purpose.
#[derive(Debug)]
pub(crate) struct CreatedFile {
    pub path: PathBuf,
    pub purpose: &'static str,
}

/// The error of a scaffold that was not created.
#[derive(Debug)]
pub(crate) enum ScaffoldError {
    /// The name is invalid, or files exist already.
    Refused(Vec<Problem>),
    /// A file could not be written.
    Failed(anyhow::Error),
}

/// Creates the files of a pipeline in a directory, and the directory if necessary. Overwrites nothing, and creates
/// either all files or none.
///
/// # Errors
/// The name is invalid, files exist already (each is named), or a file cannot be written.
pub(crate) fn make(
    name: &str,
    directory: &Path,
    template: Template,
    format: Format,
) -> Result<Vec<CreatedFile>, ScaffoldError> {
    let ending = if format == Format::Yaml { "yaml" } else { "toml" };
    let pipeline = directory.join(format!("{name}.{ending}"));
    if !spec::is_name(name) {
        let problem = Problem::new(
            &pipeline,
            format!("`{name}` cannot be the name of a pipeline: it is part of URLs and a metric's label"),
        );
        return Err(ScaffoldError::Refused(vec![problem.help(spec::NAMES)]));
    }
    let conflicts = conflicts(name, directory);
    if !conflicts.is_empty() {
        return Err(ScaffoldError::Refused(conflicts));
    }
    let Texts { pipeline: spec, script, tests } = template.texts(format);
    let files = [
        (pipeline, "the pipeline: source, handler and sink", spec),
        (directory.join(format!("{name}.rhai")), "its script", script),
        (directory.join(format!("{name}.test.{ending}")), "tests of the script", tests),
        (directory.join(name).join("sample.jsonl"), "sample events", SAMPLE),
    ];
    let mut made: Vec<CreatedFile> = Vec::new();
    for (path, purpose, text) in files {
        if let Err(error) = write_new(&path, &text.replace(NAME, name)) {
            // The user cannot have changed these files yet.
            made.iter().for_each(|made| drop(fs::remove_file(&made.path)));
            drop(fs::remove_dir(directory.join(name)));
            let error = anyhow::Error::msg(io_error(&error)).context(format!("cannot create `{}`", path.display()));
            return Err(ScaffoldError::Failed(error));
        }
        made.push(CreatedFile { path, purpose });
    }
    Ok(made)
}

/// Reports each file that would be overwritten, or would give two pipelines the same name.
fn conflicts(name: &str, directory: &Path) -> Vec<Problem> {
    if fs::symlink_metadata(directory).is_ok() && !directory.is_dir() {
        let problem = Problem::new(directory, "this is not a directory");
        return vec![problem.help("name the directory of the pipelines with `--config`")];
    }
    let endings = ["toml", "yaml", "yml", "rhai", "test.toml", "test.yaml", "test.yml"];
    let files = endings.map(|ending| directory.join(format!("{name}.{ending}")));
    files
        .into_iter()
        .chain([directory.join(name)])
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .map(|path| Problem::new(&path, "the file exists and is not overwritten").help("choose another name"))
        .collect()
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

/// Lists the created files and the next commands.
pub(crate) fn render(made: &[CreatedFile]) -> String {
    let width = made.iter().map(|made| made.path.display().to_string().len()).max().unwrap_or_default();
    let mut out = String::new();
    for CreatedFile { path, purpose } in made {
        out.push_str(&format!("created {:width$}  {purpose}\n", path.display().to_string()));
    }
    if let [run, test] = &next(made)[..] {
        out.push_str(&format!("\nNext:\n  {test}\n  {run}\n"));
    }
    out
}

/// Returns the commands to run the pipeline and to test it.
fn next(made: &[CreatedFile]) -> Vec<String> {
    let pipeline = made.first().map(|made| made.path.display());
    let commands = pipeline
        .map(|path| vec![format!("propulsiond --config {path} --until-tail"), format!("propulsiond test {path}")]);
    commands.unwrap_or_default()
}

/// Returns the same as JSON.
pub(crate) fn to_json(made: &[CreatedFile]) -> serde_json::Value {
    let files =
        made.iter().map(|made| serde_json::json!({ "path": made.path.display().to_string(), "what": made.purpose }));
    serde_json::json!({ "made": files.collect::<Vec<_>>(), "next": next(made) })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::config::document::Style;

    fn check_refused(name: &str, present: &[&str], expected: Expect) {
        let directory = tempfile::tempdir().unwrap();
        for file in present {
            fs::write(directory.path().join(file), "mine").unwrap();
        }
        let before = fs::read_dir(directory.path()).unwrap().count();
        let Err(ScaffoldError::Refused(problems)) = make(name, directory.path(), Template::Events, Format::Toml) else {
            panic!("{name}")
        };
        let said: String = problems.iter().map(|problem| problem.render(Style::Plain)).collect();
        expected.assert_eq(&said.replace(&format!("{}/", directory.path().display()), ""));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), before, "no file was created");
    }

    #[test]
    fn an_invalid_name_is_refused() {
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
                error: the file exists and is not overwritten
                --> shop.yaml
                 = help: choose another name
                error: the file exists and is not overwritten
                --> shop.rhai
                 = help: choose another name
                error: the file exists and is not overwritten
                --> shop
                 = help: choose another name
            "#]],
        );
    }

    #[test]
    fn a_directory_that_is_a_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(make("shop", &file, Template::Events, Format::Toml), Err(ScaffoldError::Refused(_))));
    }

    #[test]
    fn a_failed_creation_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        // A directory cannot be created below a file.
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            make("shop", &file.join("below"), Template::Events, Format::Toml),
            Err(ScaffoldError::Failed(_))
        ));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    const TEMPLATES: [Template; 3] = [Template::Events, Template::Projection, Template::Webhook];

    #[test]
    fn every_placeholder_of_a_template_is_replaced() {
        for (template, format) in TEMPLATES.into_iter().flat_map(|t| [(t, Format::Toml), (t, Format::Yaml)]) {
            let directory = tempfile::tempdir().unwrap();
            for made in make("some-name_1", directory.path(), template, format).unwrap() {
                let text = fs::read_to_string(&made.path).unwrap();
                assert!(!text.contains("{{"), "{}", made.path.display());
            }
        }
    }

    #[test]
    fn a_template_is_the_same_pipeline_in_toml_and_yaml() {
        for template in TEMPLATES {
            let directory = tempfile::tempdir().unwrap();
            let [toml, yaml] = [Format::Toml, Format::Yaml].map(|format| {
                let made = make("shop", &directory.path().join(format!("{format:?}")), template, format).unwrap();
                spec::load_file(&made[0].path).unwrap().spec
            });
            assert_eq!(toml, yaml);
        }
    }

    /// Returns the lines that show defaults, without the marks of either format.
    fn defaults(text: &str) -> Vec<String> {
        let is_sentence = |line: &str| line.starts_with("# ") && !line.starts_with("#  ");
        let lines = text.lines().map(str::trim_start).filter(|line| line.starts_with('#') && !is_sentence(line));
        lines.map(|line| line.replace([' ', ':', '=', '#', '[', ']'], "")).collect()
    }

    #[test]
    fn a_template_shows_the_same_defaults_in_toml_and_yaml() {
        for template in TEMPLATES {
            let [toml, yaml] = [Format::Toml, Format::Yaml].map(|format| defaults(template.texts(format).pipeline));
            assert_eq!(toml, yaml);
        }
    }
}
