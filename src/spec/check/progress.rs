//! The progress of several pipelines in one store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::{Definition, load_file, scan};
use super::identity::FileId;
use crate::config::document::Problem;
use crate::connector::prose::names;
use crate::connector::stored::Kept;

/// Refuses two pipelines that keep their progress under one key (C27): they would fence each other, or skip the events that
/// the other handled.
pub(super) fn shared_keys(pipelines: &[Definition], data: &Path) -> Vec<Problem> {
    let mut seen: BTreeMap<(FileId, String, String), &Definition> = BTreeMap::new();
    let mut problems = Vec::new();
    for pipeline in pipelines {
        let Some(store) = pipeline.local_store(data) else { continue };
        let key = (FileId::of(&store), pipeline.group().to_owned(), pipeline.source_id());
        let Some(first) = seen.get(&key) else {
            seen.insert(key, pipeline);
            continue;
        };
        let path: &[&str] = if pipeline.spec().group.is_some() { &["group"] } else { &["source"] };
        let why = format!(
            "the pipeline `{}` keeps its progress under the same group and source, in the same store",
            first.name()
        );
        let help =
            format!("give one of them another `group`, or a `source_id` other than `{}`", pipeline.written_source_id());
        problems.push(pipeline.loaded.document.problem(path, why).help(help));
    }
    problems
}

/// The most former groups that an advice names.
const MAX_NAMED: usize = 3;

/// Advises about a pipeline that has no progress, while its store holds progress of the same source under a group that no
/// pipeline has. The file was probably renamed, and the pipeline would handle every event again.
pub(super) fn renamed(pipelines: &[Definition], data: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    for pipeline in pipelines {
        let Some(repository) = pipeline.progress.repository(data) else { continue };
        let source = pipeline.source_id();
        let kept: Vec<Kept> = repository.kept().into_iter().filter(|kept| kept.source == source).collect();
        if kept.is_empty() || kept.iter().any(|kept| kept.group == pipeline.group()) {
            continue;
        }
        let Some(groups) = known_groups(pipelines, pipeline) else { continue };
        let former: BTreeSet<&str> =
            kept.iter().map(|kept| &*kept.group).filter(|group| !groups.contains(*group)).collect();
        let Some(first) = former.first() else { continue };
        let listed = names(former.iter().copied().take(MAX_NAMED), "or");
        let why = format!(
            "the group `{}` has no progress, so every event is handled again; the store holds progress of the source \
             `{source}` under the group {listed}, which no pipeline uses",
            pipeline.group()
        );
        let help = format!("if the pipeline was renamed, write `group = \"{first}\"` at the top of the file");
        problems.push(pipeline.loaded.document.problem(&["group"], why).help(help).as_warning());
    }
    problems
}

/// Returns the groups of all pipelines of the directory, those that are not checked now included. `None`: one of the files
/// cannot be read, so its group is unknown.
fn known_groups(pipelines: &[Definition], of: &Definition) -> Option<BTreeSet<String>> {
    let mut groups: BTreeSet<_> = pipelines.iter().map(|pipeline| pipeline.group().to_owned()).collect();
    let checked: BTreeSet<_> = pipelines.iter().map(|pipeline| FileId::of(pipeline.loaded.file())).collect();
    for file in scan(of.loaded.directory()).ok()? {
        if !checked.contains(&FileId::of(&file)) {
            groups.insert(load_file(&file).ok()?.group().to_owned());
        }
    }
    Some(groups)
}
