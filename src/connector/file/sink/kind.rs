//! The answers of sink `file` about itself.

use std::sync::Arc;

use super::{FileSink, Fsync, Settings, inspect};
use crate::connector::Context;
use crate::connector::diagnosis::Diagnosis;
use crate::connector::kind::{Kind, KindFile, Scope, SinkKind, SinkPhrases, Unset, Usage};
use crate::connector::prose::{Prose, lost_with_power};
use crate::sink::Sink;

/// Returns the file of a pipeline that names none.
fn default_path(pipeline: &str) -> String {
    format!("{pipeline}.jsonl")
}

impl Kind for Settings {
    fn files(&self, pipeline: &str) -> Vec<KindFile> {
        let path = default_path(pipeline);
        vec![match &self.path {
            Some(path) => KindFile::named("path", path.text(), Usage::Lines),
            None => KindFile { key: None, path: path.clone(), written: path, is_hole: false, usage: Usage::Lines },
        }]
    }

    fn unset(&self, pipeline: &str) -> Vec<Unset> {
        vec![Unset { key: "path", value: Some(default_path(pipeline).into()), because: "the pipeline's name" }]
    }

    fn inspect(&self, context: &Context, scope: Scope) -> Vec<Diagnosis> {
        // A running sink may be in the middle of a line.
        if scope.in_use { Vec::new() } else { inspect::inspect(self, context, scope.repair) }
    }
}

impl SinkKind for Settings {
    fn phrases(&self, prose: &Prose<'_>) -> SinkPhrases {
        SinkPhrases {
            writes: writes(self, prose),
            overlap: "One write at a time takes all waiting decisions.",
            repeat: "A repeated event writes its line again.",
            permanent: (!prose.has_script).then_some("stream names that make no path"),
            unavailable: Some("the sink's file cannot be written"),
            power_failure: power_failure(self, prose),
            ..SinkPhrases::default()
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Sink>> {
        Ok(Arc::new(FileSink::new(self, context)?))
    }
}

fn writes(settings: &Settings, prose: &Prose<'_>) -> String {
    let path = match &settings.path {
        Some(path) => path.written().to_owned(),
        None => default_path(prose.pipeline),
    };
    let per = match settings.path.as_ref().is_some_and(|path| !path.is_literal()) {
        true => " There is a file for each value of the placeholders.",
        false => "",
    };
    let to = format!("at the end of the file `{path}` of the data directory");
    format!("{}{per}", prose.lines(&to, settings.format))
}

fn power_failure(settings: &Settings, prose: &Prose<'_>) -> Option<String> {
    match settings.fsync {
        Fsync::Batch => None,
        Fsync::Never => Some(lost_with_power("`fsync = \"never\"`", "acknowledged lines")),
        Fsync::Every(interval) => {
            let interval = prose.duration(&["fsync", "every"], interval);
            Some(lost_with_power("`fsync = { every = … }`", &format!("the lines of {interval}")))
        }
    }
}
