//! The answers of store `file` about itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FileCheckpoints, Settings, inspect};
use crate::checkpoint::CheckpointStore;
use crate::connector::Context;
use crate::connector::diagnosis::Diagnosis;
use crate::connector::kind::{
    BadSetting, Kind, KindFile, Scope, StoreFacts, StoreKind, StorePhrases, StorePlace, Usage, required,
};
use crate::connector::prose::Prose;
use crate::connector::stored::{Kept, Repository};
use crate::position::Position;

impl Kind for Settings {
    fn check(&self) -> Vec<BadSetting> {
        required("path", &self.path).into_iter().collect()
    }

    fn files(&self, _pipeline: &str) -> Vec<KindFile> {
        vec![KindFile::named("path", &self.path, Usage::CheckpointDirectory)]
    }
}

impl StoreKind for Settings {
    fn facts(&self) -> StoreFacts {
        let place = StorePlace::Local(self.path.identity().to_owned());
        StoreFacts { place, write_positions: false, parked: false }
    }

    fn phrases(&self, _prose: &Prose<'_>) -> StorePhrases {
        let place = format!("in the directory `{}` of the data directory", self.path.written());
        StorePhrases { place, power_failure: None }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn CheckpointStore>> {
        Ok(Arc::new(FileCheckpoints::new(self, context)))
    }

    fn repository(&self, data: &Path) -> Option<Arc<dyn Repository>> {
        Some(Arc::new(Directory(data.join(&*self.path))))
    }

    fn discover(&self, data: &Path) -> Vec<Arc<dyn Repository>> {
        self.repository(data).into_iter().collect()
    }
}

/// A directory of checkpoints.
struct Directory(PathBuf);

impl Repository for Directory {
    fn path(&self) -> &Path {
        &self.0
    }

    fn inspect(&self, scope: Scope) -> Vec<Diagnosis> {
        inspect::inspect(&self.0, scope.in_use, scope.repair, &mut |_, _| {})
    }

    fn kept(&self) -> Vec<Kept> {
        let mut found = Vec::new();
        self.each(&mut |path, kept| {
            found.push(Kept {
                group: kept.key.group.to_string(),
                source: kept.key.source.to_string(),
                tranches: 1,
                tranche: kept.key.tranche.as_str().to_owned(),
                last_commit: kept.last_commit.clone(),
                path: path.to_owned(),
                removal: "by hand, while no daemon runs: remove the file".to_owned(),
            });
        });
        found
    }

    fn positions(&self, group: &str, source: &str, most: usize, f: &mut dyn FnMut(&str, &Position)) {
        let mut left = most;
        self.each(&mut |_, kept| {
            if left > 0 && *kept.key.group == *group && *kept.key.source == *source {
                left -= 1;
                kept.positions.iter().for_each(|position| f(kept.key.tranche.as_str(), position));
            }
        });
    }
}

impl Directory {
    /// Calls `f` with every readable checkpoint.
    fn each(&self, f: &mut dyn FnMut(&Path, &inspect::Kept)) {
        // The diagnoses are those of an inspection, which reports them.
        let _diagnoses = inspect::inspect(&self.0, true, false, f);
    }
}
