//! The answers of source `json` about itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::endings as usual_endings;
use super::{Index, OnReplaced, Settings, Sort, format_of, inspect};
use crate::connector::Context;
use crate::connector::diagnosis::Diagnosis;
use crate::connector::kind::{
    BadSetting, Kind, KindFile, LostPosition, Malformed, Scope, SourceKind, SourcePhrases, Unset, Usage, required,
};
use crate::connector::map;
use crate::connector::prose::{Prose, counted, names, sentences};
use crate::formats::map::RecordMap;
use crate::formats::records::Format;
use crate::position::Position;
use crate::source::{Contract, Source};

impl Kind for Settings {
    fn check(&self) -> Vec<BadSetting> {
        required("path", &self.path).into_iter().chain(super::check(self)).collect()
    }

    fn files(&self, _pipeline: &str) -> Vec<KindFile> {
        let usage = if self.is_stdin() { Usage::Stdin } else { Usage::Input };
        vec![KindFile::named("path", &self.path, usage)]
    }

    fn own_files(&self, context: &Context) -> Vec<PathBuf> {
        vec![inspect::registries(Path::new("")).join(inspect::registry_name(&context.group))]
    }

    fn unset(&self, _pipeline: &str) -> Vec<Unset> {
        let names = match format_of(self.map.as_ref()) {
            Format::Json => "those that end in `.jsonl` or `.ndjson`, also with `.gz` behind",
            Format::Document => "those that end in `.json`, also with `.gz` behind",
            Format::Csv => "those that end in `.csv`, also with `.gz` behind",
            Format::Text => "those that end in `.log` or `.txt`, also with `.gz` behind",
        };
        vec![Unset::means("pattern", names)]
    }

    fn advise(&self, directory: &Path) -> Vec<BadSetting> {
        let advice = super::misordered(self, directory).map(|(first, second)| {
            let why = format!("`{first}` sorts before `{second}`, as names are compared as text");
            BadSetting::new(&["path"], why).help("`sort = \"natural\"` compares the numbers in names by their value")
        });
        advice.into_iter().collect()
    }

    fn inspect(&self, context: &Context, _scope: Scope) -> Vec<Diagnosis> {
        inspect::inspect(&inspect::registries(&context.data).join(inspect::registry_name(&context.group)))
    }

    fn inspect_leftovers(&self, data: &Path, is_owner: &dyn Fn(&str) -> bool) -> Vec<Diagnosis> {
        inspect::leftovers(&inspect::registries(data), is_owner)
    }
}

impl SourceKind for Settings {
    fn contract(&self) -> Contract {
        Settings::contract(self)
    }

    fn is_durable(&self) -> bool {
        !self.is_stdin()
    }

    fn vanished(&self, context: &Context) -> Vec<String> {
        inspect::vanished(self, context)
    }

    fn ends(&self) -> bool {
        self.is_stdin()
    }

    fn incomparable(&self) -> Option<&'static str> {
        if self.is_stdin() {
            return Some("standard input is read once");
        }
        let restarts = self.on_replaced == OnReplaced::Restart;
        restarts.then_some("`on_replaced = \"restart\"` lets each of them read a file again at its own time")
    }

    fn record_map(&self) -> Option<Result<RecordMap, BadSetting>> {
        self.map.as_ref().map(map::Settings::compile)
    }

    fn phrases(&self, prose: &Prose<'_>) -> SourcePhrases {
        let once = match self.on_replaced {
            OnReplaced::Restart => {
                "Each line is an event of its own, even if another line is equal. A file that is read again, as `on_replaced` \
                 asks for, is new events, which have their effect again."
            }
            OnReplaced::Fail => "Each line is an event of its own, even if another line is equal.",
        };
        SourcePhrases {
            reads: reads(self, prose),
            once,
            malformed: malformed(self.map.as_ref()),
            unavailable: Some("the files cannot be read"),
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Source>> {
        Ok(Arc::new(super::source(self, context, context.finite)?))
    }

    fn build_apart(&self, context: &Context) -> Option<anyhow::Result<Arc<dyn Source>>> {
        // A missing file is an error of the read, and not a pipe.
        let is_pipe = context.input(&self.path).metadata().is_ok_and(|found| !found.is_file() && !found.is_dir());
        let build = || -> anyhow::Result<Arc<dyn Source>> { Ok(Arc::new(super::source_apart(self, context)?)) };
        (!self.is_stdin() && !is_pipe).then(build)
    }

    fn lost(&self, context: &Context, tranche: &str, position: &Position) -> Option<LostPosition> {
        let why = inspect::lost(self, context, tranche, position)?;
        let remedy = "restore the file; or write `on_replaced = \"restart\"` in `[source.json]`, which reads the present file from \
            its start";
        Some(LostPosition { why, remedy })
    }
}

/// Returns the phrases about records that cannot be read.
pub(super) fn malformed(map: Option<&map::Settings>) -> Malformed {
    let record = if map.is_some() {
        "An unreadable record, or one that does not fit the mapping,"
    } else {
        "An unreadable line"
    };
    Malformed::Delivered { record, place: "its file and line" }
}

/// Returns sentences about the lines of a file.
pub(super) fn lines(skip: u64, index: Index, map: Option<&map::Settings>) -> String {
    let skip = match skip {
        0 => String::new(),
        1 => "It skips the first line of each file.".to_owned(),
        lines => format!("It skips the first {} of each file.", counted(lines, "line")),
    };
    let by_line = "Indexes are made of the number of the file and that of the line, so they grow but leave gaps.";
    let by_item = "Indexes are made of the numbers of the file, the line and the item, so they grow but leave gaps.";
    let index = match (map, index) {
        (Some(map), _) => map.explained(if map.each.is_some() { by_item } else { by_line }),
        (None, Index::Field) => "Each line gives the index of its event in its stream.".to_owned(),
        (None, Index::Line) => by_line.to_owned(),
    };
    sentences([&*skip, &*index])
}

/// The consequence of an end of the process for events that a pipe delivered.
pub(super) const OF_A_PIPE: &str = "A pipe keeps no events: a restart begins with the line that comes next. Events that were \
    read and not handled when the process ends are lost; `schedule.read_ahead` limits their number.";

fn reads(settings: &Settings, prose: &Prose<'_>) -> String {
    let pattern = settings
        .pattern
        .as_ref()
        .map(|pattern| format!("In a directory, it reads the files named like `{}`.", pattern.written()));
    let lines = lines(settings.skip, settings.index, settings.map.as_ref());
    let path = prose.directory.join(&*settings.path);
    let is_pipe = settings.is_stdin() || path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir());
    let replaced = match settings.on_replaced {
        _ if is_pipe => OF_A_PIPE,
        OnReplaced::Fail => {
            "The pipeline halts if the file being read is replaced or truncated, or if one is added before it. If \
             that file is missing at a start, reading is retried until it is back."
        }
        OnReplaced::Restart => {
            "A file that is replaced, truncated or added before the one being read is read from its start, as new events."
        }
    };
    sentences([&*files(settings, prose), &*pattern.unwrap_or_default(), &*lines, replaced])
}

fn files(settings: &Settings, prose: &Prose<'_>) -> String {
    let written = settings.path.written();
    let beside = !Path::new(written).is_absolute() && !settings.path.has_references();
    let place = if beside { format!("`{written}` beside the pipeline's file") } else { format!("`{written}`") };
    let path = prose.directory.join(&*settings.path);
    let records = settings.map.as_ref().map_or("a JSON object a line", map::Settings::records);
    let log = match settings.tranche_per_file {
        true => "each by itself and all at the same time",
        false if settings.sort == Sort::Natural => {
            "as one log, in the order of their names with numbers compared by value"
        }
        false => "as one log, in the order of their names",
    };
    let endings = match (&settings.map, &settings.pattern) {
        (Some(_), None) => {
            let endings = names(usual_endings(format_of(settings.map.as_ref())).iter().copied(), "or");
            format!(" whose names end in {endings}")
        }
        _ => String::new(),
    };
    if settings.path.is_hole() || !path.exists() {
        format!("It reads the file or directory {place}, {records}. The files of a directory{endings} are read {log}.")
    } else if path.is_dir() {
        format!("It reads the files{endings} of the directory {place}: {log}, {records}.")
    } else {
        format!("It reads the file {place}, {records}.")
    }
}
