//! The owners of checkpoints, and whether their pipelines can resume from them.

use std::path::{Path, PathBuf};

use super::Pipelines;
use super::places::resolved;
use crate::connector::Context;
use crate::connector::diagnosis::{Bounded, Diagnosis, Severity};
use crate::connector::kind::LostPosition;
use crate::connector::stored::{Kept, Repository};
use crate::daemon::exchange::context;
use crate::spec::Definition;

/// The most tranches of a pipeline whose positions are inspected.
const MOST_TRANCHES: usize = 1_000;

/// The diagnoses about checkpoints.
pub(super) struct Keys<'a> {
    pipelines: &'a Pipelines,
    owners: Vec<Owner<'a>>,
    orphans: Bounded,
    lost: Bounded,
}

/// A pipeline, and the repository of its progress.
struct Owner<'a> {
    definition: &'a Definition,
    context: Context,
    store: PathBuf,
}

impl<'a> Keys<'a> {
    pub(super) fn new(data: &'a Path, pipelines: &'a Pipelines) -> Self {
        let owners = pipelines.defined.iter().filter_map(|definition| {
            let store = resolved(&definition.local_store(data)?);
            Some(Owner { definition, context: context(definition, data), store })
        });
        Self { pipelines, owners: owners.collect(), orphans: Bounded::default(), lost: Bounded::default() }
    }

    /// Judges the progress in a repository.
    pub(super) fn judge(&mut self, repository: &dyn Repository) {
        let store = resolved(repository.path());
        for kept in repository.kept() {
            let owner = self.owners.iter().find(|owner| owner.store == store && owner.has(&kept));
            let Some(owner) = owner else {
                self.orphan(&kept);
                continue;
            };
            let mut lost = Vec::new();
            repository.positions(&kept.group, &kept.source, MOST_TRANCHES, &mut |tranche, position| {
                lost.extend(owner.definition.source.lost(&owner.context, tranche, position));
            });
            let name = owner.definition.name();
            for position in lost {
                self.lost.push(|| lost_position(name, &kept.path, &position));
            }
        }
    }

    pub(super) fn finish(self) -> Vec<Diagnosis> {
        let mut diagnoses = self.lost.finish();
        diagnoses.extend(self.orphans.finish());
        diagnoses
    }

    fn orphan(&mut self, kept: &Kept) {
        // If some pipelines are unknown, one of them may own it.
        if self.pipelines.unsure.is_some() {
            return;
        }
        let config = self.pipelines.config.display();
        let elsewhere = self.owners.iter().find(|owner| owner.has(kept));
        self.orphans.push(|| {
            let Kept { group, source, tranche, .. } = kept;
            let tranche = match kept.tranches {
                1 => tranche.clone(),
                tranches => format!("… ({tranches} tranches, {tranche} is one)"),
            };
            let since = match &kept.last_commit {
                Some(at) => format!("last written {at}"),
                None => "of unknown age".to_owned(),
            };
            let what =
                format!("the checkpoint `{group}/{source}/{tranche}`, {since}, belongs to no pipeline in `{config}`");
            // The progress of a removed pipeline is no defect. That of a pipeline whose file names another store may be.
            let (severity, means) = match elsewhere {
                Some(owner) => {
                    let (name, store) = (owner.definition.name(), owner.store.display());
                    let means =
                        format!("the pipeline `{name}` has this group and source, but keeps its progress in `{store}`");
                    (Severity::Warning, means)
                }
                None => {
                    let means = "it does no harm; a new pipeline with this group and source resumes from it";
                    (Severity::Note, means.to_owned())
                }
            };
            let removal = &kept.removal;
            Diagnosis::new(severity, &kept.path, what, means)
                .operator(format!("decide: leave it if the pipeline will return; else remove it {removal}"))
        });
    }
}

impl Owner<'_> {
    fn has(&self, kept: &Kept) -> bool {
        self.definition.group() == kept.group && self.definition.source_id() == kept.source
    }
}

fn lost_position(pipeline: &str, path: &Path, LostPosition { why, remedy }: &LostPosition) -> Diagnosis {
    let what = format!("the pipeline `{pipeline}` cannot resume at its position: {why}");
    let means = "the data at its position is lost: reading on would skip events, or repeat them under other numbers";
    Diagnosis::new(Severity::Error, path, what, means).operator(*remedy)
}
