//! The checks that take more than one value, or more than one file. They turn files into [`Checked`] pipelines.

mod after;
mod files;
mod identity;
mod numbers;
mod parts;
mod progress;

use std::path::Path;
use std::sync::Arc;

use super::scripts::compile_script;
use super::{Checked, Checkpoint, CheckpointSpec, Definition, Loaded, Order, Progress, Then};
use crate::config::document::{Problem, clear_secrets};
use crate::config::filter::{BadEntry, Filter};
use crate::connector::kind::{self, BadPart, BadSetting, Kind, KindFile, StoreFacts, Usage};
use crate::connector::prose::listed;
use crate::event::Indexes;
use crate::script::Script;

use identity::FileId;
pub(super) use identity::resolved;
use parts::Parts;

/// The pipelines that passed, and advice about them.
pub struct Outcome {
    /// The pipelines that can run.
    pub checked: Vec<Checked>,
    /// The pipelines whose script is a hole (`--allow-missing-env`): they passed as far as they are known.
    pub unknown_scripts: Vec<Definition>,
    pub advice: Vec<Problem>,
}

impl Outcome {
    /// Returns every pipeline that passed.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.checked.iter().map(|checked| &checked.definition).chain(&self.unknown_scripts)
    }

    /// Returns every pipeline that passed, with its script if that is known.
    pub fn scripts(&self) -> impl Iterator<Item = (&Definition, Option<&Script>)> {
        let known = self.checked.iter().map(|checked| (&checked.definition, checked.script.as_ref()));
        known.chain(self.unknown_scripts.iter().map(|definition| (definition, None)))
    }
}

/// Checks pipelines, each by itself and all together, and compiles their filters and scripts. `data` is the daemon's data
/// directory. A value that is a hole is not judged.
///
/// # Errors
/// Everything that is wrong with any of them, advice included.
pub fn check(pipelines: Vec<Loaded>, data: &Path) -> Result<Outcome, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut definitions = Vec::new();
    for loaded in pipelines {
        let (definition, found) = judge(loaded, data);
        problems.extend(found);
        definitions.extend(definition);
    }
    problems.extend(progress::shared_keys(&definitions, data));
    problems.extend(files::shared(&definitions, data));
    problems.extend(progress::renamed(&definitions, data));
    problems.extend(after::broken(&definitions));
    let mut outcome = Outcome { checked: Vec::new(), unknown_scripts: Vec::new(), advice: Vec::new() };
    for definition in definitions {
        if definition.loaded.spec.script().is_some_and(|script| script.is_hole()) {
            outcome.unknown_scripts.push(definition);
            continue;
        }
        match compile_script(&definition.loaded) {
            Ok((script, found)) => {
                problems.extend(found);
                outcome.checked.push(Checked { definition, script });
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.iter().any(Problem::is_error) {
        return Err(problems);
    }
    outcome.advice = problems;
    Ok(outcome)
}

/// Returns the parts of a pipeline, for commands that run none: other settings are not judged.
///
/// # Errors
/// The file does not choose one of each part, or its filter does not compile.
pub fn define(loaded: Loaded) -> Result<Definition, Vec<Problem>> {
    let (parts, mut problems) = parts::choose(&loaded);
    let (filter, found) = filter(&loaded);
    problems.extend(found.into_iter().filter(Problem::is_error));
    match Definition::new(loaded, parts, filter) {
        Some(definition) if problems.is_empty() => Ok(definition),
        _ => Err(problems),
    }
}

/// Returns the parts of a pipeline if it has one of each, and everything that is wrong with its file.
fn judge(loaded: Loaded, data: &Path) -> (Option<Definition>, Vec<Problem>) {
    let (parts, mut problems) = parts::choose(&loaded);
    let check = Check { pipeline: &loaded, data, parts: &parts };
    problems.extend(check.names());
    problems.extend(check.connectors());
    let (filter, found) = filter(&loaded);
    problems.extend(found);
    problems.extend(check.require_all());
    problems.extend(check.purge());
    problems.extend(check.numbers());
    problems.extend(check.park());
    problems.extend(check.script());
    problems.extend(check.own_output());
    problems.extend(check.absent_input());
    problems.extend(clear_secrets(&loaded.document));
    // An error makes advice about the same value superfluous.
    let wrong: Vec<_> =
        problems.iter().filter(|problem| problem.is_error()).map(|problem| problem.path.clone()).collect();
    problems.retain(|problem| problem.is_error() || !wrong.contains(&problem.path));
    problems.sort_by_key(|problem| problem.location.as_ref().map(|at| (at.line, at.column)));
    (Definition::new(loaded, parts, filter), problems)
}

impl Definition {
    fn new(loaded: Loaded, parts: Parts, filter: Option<Filter>) -> Option<Self> {
        let (source, sink, progress) = (parts.source?, parts.sink?, parts.progress?);
        Some(Self { loaded, source, sink, progress, filter: Arc::new(filter?) })
    }
}

/// The checks of one pipeline.
struct Check<'a> {
    pipeline: &'a Loaded,
    data: &'a Path,
    parts: &'a Parts,
}

impl Check<'_> {
    fn problem(&self, path: &[&str], message: impl Into<String>) -> Problem {
        self.pipeline.document.problem(path, message)
    }

    fn problem_of_key(&self, path: &[&str], message: impl Into<String>) -> Problem {
        self.pipeline.document.problem_of_key(path, message)
    }

    fn names(&self) -> Vec<Problem> {
        let spec = &self.pipeline.spec;
        let named = [("group", &spec.group), ("source_id", &spec.source_id)];
        let known =
            named.into_iter().filter_map(|(key, name)| Some((key, name.as_ref().filter(|name| !name.is_hole())?)));
        let is_bad = |name: &str| {
            name.trim() != name
                || name.is_empty()
                || name.len() > 255
                || name.contains('/')
                || name.contains(char::is_control)
        };
        let problem = |key: &str| {
            let why = format!("`{key}` must be 1 to 255 bytes, without `/`, control characters and outer spaces");
            self.problem(&[key], why)
        };
        known.filter(|(_, name)| is_bad(name)).map(|(key, _)| problem(key)).collect()
    }

    /// Checks the connectors' own settings.
    fn connectors(&self) -> Vec<Problem> {
        let spec = &self.pipeline.spec;
        let mut problems = Vec::new();
        for source in spec.source.given() {
            problems.extend(self.settings("source", source.key, &*source));
        }
        for sink in spec.sink.given() {
            problems.extend(self.settings("sink", sink.key, &*sink));
        }
        if let Checkpoint::Store(stores) = &spec.checkpoint {
            for store in stores.given() {
                problems.extend(self.settings("checkpoint", store.key, &*store));
            }
        }
        let script = spec.script().and_then(|script| kind::required("script", script));
        problems.extend(script.map(|missing| self.bad_setting("handler", "rhai", missing)));
        problems
    }

    fn settings<K: Kind + ?Sized>(&self, role: &str, key: &str, kind: &K) -> Vec<Problem> {
        let missing = kind.missing_feature().map(|feature| {
            let why = format!("this propulsiond was built without `{key}`");
            let help = format!("build it with `--features {feature}`, or use a binary that has it");
            self.problem_of_key(&[role, key], why).help(help)
        });
        let advice = kind.advise(self.pipeline.directory()).into_iter();
        let advice = advice.map(|bad| self.bad_setting(role, key, bad).as_warning());
        let bad = kind.check().into_iter().map(|bad| self.bad_setting(role, key, bad)).chain(advice);
        missing.into_iter().chain(bad).collect()
    }

    fn bad_setting(&self, role: &str, kind: &str, bad: BadSetting) -> Problem {
        bad_setting(self.pipeline, role, kind, bad)
    }

    fn require_all(&self) -> Vec<Problem> {
        let schedule = &self.pipeline.spec.schedule;
        let at = &["schedule", "require_all"];
        let mut problems = Vec::new();
        if !schedule.require_all {
            return problems;
        }
        if schedule.order == Order::None {
            let why = "`require_all` needs an order, and `order = \"none\"` keeps none";
            problems.push(self.problem(at, why).help("remove one of the two"));
        }
        if self.parts.source.as_ref().is_some_and(|source| source.contract().indexes == Indexes::Sparse) {
            let why = "`require_all` waits for every index, and the indexes of this source have gaps";
            let help = "remove it, or read indexes without gaps: `index = \"field\"`";
            problems.push(self.problem(at, why).help(help));
        }
        if self.pipeline.spec.waits_for_all() && self.keeps_write_positions() == Some(false) {
            problems.extend(self.forgets_streams());
        }
        problems
    }

    fn keeps_write_positions(&self) -> Option<bool> {
        let (source, progress) = (self.parts.source.as_ref()?, self.parts.progress.as_ref()?);
        Some(super::definition::keeps_write_positions(&self.pipeline.spec, &**source, progress))
    }

    /// Without write positions, a stream would wait after a restart for its index 0, which was handled before.
    fn forgets_streams(&self) -> Option<Problem> {
        let at = &["schedule", "require_all"];
        let needs = "`require_all` needs the position of each stream after a restart";
        Some(match self.parts.progress.as_ref()? {
            Progress::Sink(_) => self
                .problem(at, format!("{needs}, and `write_positions = false` stores none"))
                .help("remove one of the two"),
            Progress::Store(store) => {
                let able = stores(|facts| facts.write_positions, "`[checkpoint.", "]`");
                let why = format!("{needs}, and a `{store}` checkpoint store keeps none");
                self.problem(at, why).help(format!(
                    "keep the progress in {able}, or in the sink where it can hold it: `checkpoint = \"sink\"`"
                ))
            }
        })
    }

    fn purge(&self) -> Option<Problem> {
        let schedule = &self.pipeline.spec.schedule;
        schedule.purge?;
        let at = &["schedule", "purge"];
        if schedule.require_all {
            let why = "`purge` forgets the positions of idle streams, and `require_all` needs them";
            return Some(self.problem_of_key(at, why).help("remove one of the two"));
        }
        (self.keeps_write_positions() == Some(true)).then(|| {
            let why = "`purge` forgets the positions of idle streams, and `write_positions` keeps them";
            let help =
                "remove it, or write `write_positions = false`: a duplicate in the feed may then have its effect twice";
            self.problem_of_key(at, why).help(help)
        })
    }

    /// Refuses `then = "park"` over events without ordinals, and where nothing can hold parked events.
    fn park(&self) -> Option<Problem> {
        if self.pipeline.spec.errors.then != Some(Then::Park) {
            return None;
        }
        let at = &["errors", "then"];
        if let Some(source) = self.parts.source.as_ref().filter(|source| !source.contract().ordinals) {
            // The ordinal is part of a parked event's key (C21).
            let why = format!("events of a `{source}` source cannot be parked: it numbers them anew in each process");
            return Some(self.problem(at, why).help("write `then = \"halt\"` or `then = \"skip\"`"));
        }
        let progress = self.parts.progress.as_ref()?;
        if progress.facts().parked {
            return None;
        }
        let why = match progress {
            Progress::Sink(_) => "the sink that holds the progress cannot hold parked events yet".to_owned(),
            Progress::Store(store) => format!("a `{store}` checkpoint store cannot hold parked events yet"),
        };
        let able = stores(|facts| facts.parked, "`checkpoint.", "`");
        let help = format!("write `then = \"halt\"`; only {able} can park so far");
        Some(self.problem(at, why).help(help))
    }

    fn script(&self) -> Option<Problem> {
        let script = self.pipeline.spec.script().filter(|script| !script.is_hole() && !script.is_empty())?;
        let at = &["handler", "rhai", "script"];
        match std::fs::metadata(self.pipeline.directory().join(&**script)) {
            Ok(metadata) if metadata.is_file() => None,
            Ok(_) => Some(self.problem(at, "the script is not a file")),
            Err(_) => {
                let path = self.pipeline.directory().join(script.written());
                let help = format!("the path is relative to the pipeline's directory: `{}`", path.display());
                Some(self.problem(at, "there is no such script").help(help))
            }
        }
    }

    /// Returns the files that the source reads and the key that names each, unless that is unknown.
    fn inputs(&self) -> Vec<(Vec<&'static str>, KindFile)> {
        let Some(source) = &self.parts.source else { return Vec::new() };
        let inputs = source.files(&self.pipeline.name).into_iter().filter(|file| file.usage == Usage::Input);
        let known = inputs.filter(|file| !file.path.is_empty() && !file.is_hole);
        known.map(|file| (["source", source.key].into_iter().chain(file.key).collect(), file)).collect()
    }

    /// Advises about a feed that does not exist. It may be created later, but most often its name is wrong.
    fn absent_input(&self) -> Vec<Problem> {
        let problem = |(at, input): (Vec<&str>, KindFile)| {
            let feed = self.pipeline.directory().join(&input.path);
            // The output of another pipeline does not exist before that one has run.
            if feed.exists() || resolved(&feed).starts_with(resolved(self.data)) {
                return None;
            }
            let path = self.pipeline.directory().join(&input.written);
            let help = format!("the pipeline waits for `{}`: paths are relative to its directory", path.display());
            Some(self.problem(&at, "there is no such file or directory yet").help(help).as_warning())
        };
        self.inputs().into_iter().filter_map(problem).collect()
    }

    /// Refuses a pipeline that reads its own output, because it would never end.
    fn own_output(&self) -> Vec<Problem> {
        let Some(sink) = &self.parts.sink else { return Vec::new() };
        let outputs = sink.files(&self.pipeline.name).into_iter().filter(|file| file.usage == Usage::Lines);
        let mut problems = Vec::new();
        for output in outputs {
            let at: Vec<_> = ["sink", sink.key].into_iter().chain(output.key).collect();
            let written = self.data.join(&output.path);
            for (_, input) in self.inputs() {
                let read = self.pipeline.directory().join(&input.path);
                if FileId::of(&written) == FileId::of(&read) {
                    problems.push(self.problem(&at, "the sink writes the file that the source reads"));
                } else if resolved(&written).parent() == Some(&resolved(&read)) {
                    problems.push(self.problem(&at, "the sink writes into the directory that the source reads"));
                }
            }
        }
        problems
    }
}

/// Returns an invalid setting of a connector as a problem of the pipeline's file.
pub(crate) fn bad_setting(pipeline: &Loaded, role: &str, kind: &str, bad: BadSetting) -> Problem {
    let document = &pipeline.document;
    let path: Vec<_> = [role, kind].into_iter().chain(bad.path.iter().map(String::as_str)).collect();
    let (last, table) = path.split_last().map_or(("", &path[..]), |(last, table)| (*last, table));
    let problem = match (bad.at, last.parse::<usize>()) {
        (BadPart::Missing, _) if document.node(&path).is_some() => {
            document.problem(&path, format!("`{last}` must not be empty"))
        }
        (BadPart::Missing, _) => document.problem(table, format!("the key `{last}` is missing")),
        (BadPart::Key, _) => document.problem_of_key(&path, bad.why),
        (BadPart::Value, Ok(index)) => {
            let problem = document.problem_of_item(table, index, bad.why);
            Problem { path: format!("{}[{index}]", table.join(".")), ..problem }
        }
        (BadPart::Value, Err(_)) => document.problem(&path, bad.why),
    };
    Problem { help: bad.help, ..problem }
}

/// Compiles a filter, and judges its entries.
fn filter(loaded: &Loaded) -> (Option<Filter>, Vec<Problem>) {
    let settings = &loaded.spec.filter;
    let of_entry = |bad: BadEntry| {
        let problem = loaded.document.problem_of_item(&["filter", bad.list], bad.index, bad.why);
        Problem { help: bad.help, path: format!("filter.{}[{}]", bad.list, bad.index), ..problem }
    };
    let filter = match Filter::compile(settings) {
        Ok(filter) => filter,
        Err(bad) => return (None, bad.into_iter().map(of_entry).collect()),
    };
    let mut problems = Vec::new();
    for (_, dead) in filter.dead_entries(settings) {
        let nothing_passes = dead.iter().all(Option::is_some);
        for mut bad in dead.into_iter().flatten() {
            if nothing_passes {
                bad.why.push_str(": the pipeline would handle no event");
                problems.push(of_entry(bad));
            } else {
                problems.push(of_entry(bad).as_warning());
            }
        }
    }
    (Some(filter), problems)
}

/// Lists the stores with an ability, each between `before` and `after`.
fn stores(has: impl Fn(&StoreFacts) -> bool, before: &str, after: &str) -> String {
    let able = CheckpointSpec::defaults().into_iter().filter(|store| has(&store.facts()));
    listed(&able.map(|store| format!("{before}{store}{after}")).collect::<Vec<_>>(), "or")
}

#[cfg(test)]
mod tests {
    use crate::config::document::{Document, Format, Style};
    use crate::connector::Context;
    use crate::connector::kind::{NotBuilt, SinkKind, SinkPhrases};
    use crate::connector::prose::Prose;
    use crate::sink::Sink;

    use super::*;

    /// The settings of a sink whose client is behind a feature that this binary lacks.
    #[derive(Debug)]
    struct Featured;

    impl Kind for Featured {
        fn check(&self) -> Vec<BadSetting> {
            vec![BadSetting::new(&["path"], "`path` is wrong")]
        }

        fn missing_feature(&self) -> Option<&'static str> {
            Some("featured")
        }
    }

    impl SinkKind for Featured {
        fn phrases(&self, _prose: &Prose<'_>) -> SinkPhrases {
            SinkPhrases::default()
        }

        fn build(&self, _context: &Context) -> anyhow::Result<Arc<dyn Sink>> {
            Err(NotBuilt("featured").into())
        }
    }

    #[test]
    fn a_connector_without_its_feature_is_named_and_its_settings_are_still_checked() {
        let text = "[sink.file]\npath = 'a'\n".to_owned();
        let document = Document::parse(Path::new("a.toml"), text, Format::Toml).unwrap();
        let pipeline = super::super::parse("a".to_owned(), document).unwrap();
        let (parts, _) = parts::choose(&pipeline);
        let check = Check { pipeline: &pipeline, data: Path::new("data"), parts: &parts };
        let problems = check.settings("sink", "file", &Featured);
        let shown: String = problems.iter().map(|problem| problem.render(Style::Plain)).collect();
        expect_test::expect![[r#"
            error: this propulsiond was built without `file`
             --> a.toml:1:7
              |
            1 | [sink.file]
              |       ^^^^ sink.file
              |
              = help: build it with `--features featured`, or use a binary that has it
            error: `path` is wrong
             --> a.toml:2:8
              |
            2 | path = 'a'
              |        ^^^ sink.file.path
        "#]]
        .assert_eq(&shown);
        let error = Featured.build(&Context::new("a", "", "")).err().unwrap();
        assert!(error.to_string().starts_with("this propulsiond was built without `featured`"), "{error}");
    }
}
