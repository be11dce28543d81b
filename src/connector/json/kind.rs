//! The answers of source `json` about itself.

use std::path::Path;
use std::sync::Arc;

use super::{Index, OnReplaced, Settings, Sort, inspect};
use crate::connector::Context;
use crate::connector::diagnosis::Diagnosis;
use crate::connector::kind::{
    BadSetting, Kind, KindFile, LostPosition, Malformed, Scope, SourceKind, SourcePhrases, Unset, Usage, required,
};
use crate::connector::prose::{Prose, counted, sentences};
use crate::position::Position;
use crate::source::{Contract, Source};

impl Kind for Settings {
    fn check(&self) -> Vec<BadSetting> {
        required("path", &self.path).into_iter().chain(super::check(self)).collect()
    }

    fn files(&self, _pipeline: &str) -> Vec<KindFile> {
        vec![KindFile::named("path", &self.path, Usage::Input)]
    }

    fn unset(&self, _pipeline: &str) -> Vec<Unset> {
        vec![Unset::means("pattern", "those that end in `.jsonl` or `.ndjson`, also with `.gz` behind")]
    }

    fn advise(&self, folder: &Path) -> Vec<BadSetting> {
        let advice = super::misordered(self, folder).map(|(first, second)| {
            let why = format!("`{first}` sorts before `{second}`, as names are compared as text");
            BadSetting::new(&["path"], why).help("`sort = \"natural\"` compares the numbers in names by their value")
        });
        advice.into_iter().collect()
    }

    fn inspect(&self, context: &Context, _scope: Scope) -> Vec<Diagnosis> {
        inspect::inspect(&inspect::numbers_folder(&context.data).join(inspect::registry_name(&context.group)))
    }

    fn inspect_leftovers(&self, data: &Path, is_owner: &dyn Fn(&str) -> bool) -> Vec<Diagnosis> {
        inspect::leftovers(data, is_owner)
    }
}

impl SourceKind for Settings {
    fn contract(&self) -> Contract {
        Settings::contract(self)
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
            malformed: Malformed::Delivered { record: "An unreadable line", place: "its file and line" },
            unavailable: Some("the files cannot be read"),
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Source>> {
        Ok(Arc::new(super::source(self, context, context.finite)?))
    }

    fn lost(&self, context: &Context, tranche: &str, position: &Position) -> Option<LostPosition> {
        let why = inspect::lost(self, context, tranche, position)?;
        let remedy = "restore the file; or write `on_replaced = \"restart\"` in `[source.json]`, which reads the present file from \
            its start";
        Some(LostPosition { why, remedy })
    }
}

fn reads(settings: &Settings, prose: &Prose<'_>) -> String {
    let pattern = settings
        .pattern
        .as_ref()
        .map(|pattern| format!("In a directory, it reads the files named like `{}`.", pattern.written()));
    let skip = match settings.skip {
        0 => String::new(),
        1 => "It skips the first line of each file.".to_owned(),
        lines => format!("It skips the first {} of each file.", counted(lines, "line")),
    };
    let index = match settings.index {
        Index::Field => "Each line gives the index of its event in its stream.",
        Index::Line => "Indexes are made of the number of the file and that of the line, so they grow but leave gaps.",
    };
    let replaced = match settings.on_replaced {
        OnReplaced::Fail => {
            "The pipeline halts if the file being read is replaced, truncated or removed, or if one is added before it."
        }
        OnReplaced::Restart => {
            "A file that is replaced, truncated or added before the one being read is read from its start, as new events."
        }
    };
    sentences([&*files(settings, prose), &*pattern.unwrap_or_default(), &*skip, index, replaced])
}

fn files(settings: &Settings, prose: &Prose<'_>) -> String {
    let written = settings.path.written();
    let beside = !Path::new(written).is_absolute() && !settings.path.has_references();
    let place = if beside { format!("`{written}` beside the pipeline's file") } else { format!("`{written}`") };
    let path = prose.directory.join(&*settings.path);
    let log = match settings.tranche_per_file {
        true => "each by itself and all at the same time",
        false if settings.sort == Sort::Natural => {
            "as one log, in the order of their names with numbers compared by value"
        }
        false => "as one log, in the order of their names",
    };
    if settings.path.is_hole() || !path.exists() {
        format!(
            "It reads the file or directory {place}, a JSON object a line. The files of a directory are read {log}."
        )
    } else if path.is_dir() {
        format!("It reads the files of the directory {place}: {log}, a JSON object a line.")
    } else {
        format!("It reads the file {place}, a JSON object a line.")
    }
}
