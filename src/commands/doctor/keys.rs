//! Whose the checkpoints are, and whether their pipelines can go on from them.

use std::path::{Path, PathBuf};

use super::places::resolved;
use super::{Pipelines, context};
use crate::connector::diagnosis::{Bounded, Finding, Severity};
use crate::connector::{file, json, sqlite};
use crate::position::Position;
use crate::spec::Loaded;

/// Of how many tranches of a pipeline the positions are looked at.
const MOST_TRANCHES: usize = 1_000;

/// What is found out about checkpoints.
pub(super) struct Keys<'a> {
    data: &'a Path,
    pipelines: &'a Pipelines,
    owners: Vec<Owner<'a>>,
    orphans: Bounded,
    lost: Bounded,
}

/// A pipeline, and where it keeps its progress.
struct Owner<'a> {
    loaded: &'a Loaded,
    kind: &'static str,
    store: PathBuf,
}

impl<'a> Keys<'a> {
    pub(super) fn new(data: &'a Path, pipelines: &'a Pipelines) -> Self {
        let owners = pipelines.loaded.iter().filter_map(|loaded| {
            let (kind, path) = loaded.spec.shared_store()?;
            Some(Owner { loaded, kind, store: resolved(&data.join(path)) })
        });
        Self { data, pipelines, owners: owners.collect(), orphans: Bounded::default(), lost: Bounded::default() }
    }

    pub(super) fn in_database(&mut self, path: &Path, kept: Vec<sqlite::inspect::Kept>) {
        for kept in kept {
            let sqlite::inspect::Kept { group, source, tranches, tranche, last_commit } = &kept;
            let Some(loaded) = self.owner("sqlite", path, group, source) else {
                let filter = format!(
                    "consumer_group = {} AND source = {}",
                    sqlite::inspect::quoted(group),
                    sqlite::inspect::quoted(source)
                );
                let tables = [
                    "propulsion_checkpoint",
                    "propulsiond_progress",
                    "propulsiond_write_positions",
                    "propulsiond_parked",
                ];
                let statements = tables.map(|table| format!("DELETE FROM {table} WHERE {filter}")).join("; ");
                let tranche = if *tranches == 1 {
                    tranche.clone()
                } else {
                    format!("… ({tranches} tranches, {tranche} is one)")
                };
                let orphan = Orphan { path, group, source, tranche, last_commit: last_commit.as_deref() };
                self.orphan(&orphan, &format!("by hand, while no daemon uses the file: {statements}"));
                continue;
            };
            let mut positions = Vec::new();
            sqlite::inspect::positions(path, group, source, MOST_TRANCHES, |tranche, position| {
                positions.extend(self.why_lost(loaded, tranche, position));
            });
            for why in positions {
                self.lost(loaded, path, &why);
            }
        }
    }

    pub(super) fn in_file(&mut self, path: &Path, kept: &file::store::inspect::Kept) {
        let (group, source, tranche) = (&*kept.key.group, &*kept.key.source, kept.key.tranche.as_str());
        let folder = path.parent().unwrap_or(path);
        let Some(loaded) = self.owner("file", folder, group, source) else {
            let orphan =
                Orphan { path, group, source, tranche: tranche.to_owned(), last_commit: kept.last_commit.as_deref() };
            return self.orphan(&orphan, "by hand, while no daemon runs: remove the file");
        };
        if let Some(why) = kept.position.as_ref().and_then(|position| self.why_lost(loaded, tranche, position)) {
            self.lost(loaded, path, &why);
        }
    }

    pub(super) fn finish(self) -> Vec<Finding> {
        let mut findings = self.lost.finish();
        findings.extend(self.orphans.finish());
        findings
    }

    fn owner(&self, kind: &str, store: &Path, group: &str, source: &str) -> Option<&'a Loaded> {
        let store = resolved(store);
        let is_owner = |owner: &&Owner<'a>| {
            owner.kind == kind
                && owner.store == store
                && owner.loaded.group() == group
                && owner.loaded.source_id() == source
        };
        self.owners.iter().find(is_owner).map(|owner| owner.loaded)
    }

    fn why_lost(&self, loaded: &Loaded, tranche: &str, position: &Position) -> Option<String> {
        let settings = loaded.spec.source.json.as_ref()?;
        json::inspect::lost(settings, &context(loaded, self.data), tranche, position)
    }

    fn lost(&mut self, loaded: &Loaded, path: &Path, why: &str) {
        self.lost.push(|| {
            let what = format!("the pipeline `{}` cannot go on where it was: {why}", loaded.name);
            let means = "its position is in what is gone: reading on would pass over events, or repeat them under other numbers";
            Finding::new(Severity::Error, path, what, means).person(
                "put the file back as it was; or write `on_replaced = \"restart\"` in `[source.json]`, and what is there now is read from its start",
            )
        });
    }

    fn orphan(&mut self, orphan: &Orphan<'_>, removal: &str) {
        // What is not known to be all may not be called nobody's.
        if self.pipelines.unsure.is_some() {
            return;
        }
        let Orphan { path, group, source, tranche, last_commit } = orphan;
        let config = self.pipelines.config.display();
        let elsewhere =
            self.owners.iter().find(|owner| owner.loaded.group() == *group && owner.loaded.source_id() == *source);
        self.orphans.push(|| {
            let since = last_commit.map_or_else(|| "of unknown age".to_owned(), |at| format!("last written {at}"));
            let what =
                format!("the checkpoint `{group}/{source}/{tranche}`, {since}, belongs to no pipeline in `{config}`");
            let means = match elsewhere {
                Some(owner) => format!(
                    "the pipeline `{}` has this group and source, but keeps its progress in `{}`",
                    owner.loaded.name,
                    owner.store.display()
                ),
                None => {
                    "it harms nobody; a pipeline that comes back under this group and source goes on from it".to_owned()
                }
            };
            Finding::new(Severity::Warning, path, what, means)
                .person(format!("decide: leave it if the pipeline comes back; else remove it {removal}"))
        });
    }
}

/// A checkpoint that is nobody's.
struct Orphan<'a> {
    path: &'a Path,
    group: &'a str,
    source: &'a str,
    tranche: String,
    last_commit: Option<&'a str>,
}
