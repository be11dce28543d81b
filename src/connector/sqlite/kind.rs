//! The answers of store and sink `sqlite` about themselves.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    CheckpointSettings, SinkSettings, SqliteCheckpoints, SqliteDryRun, SqliteSink, Synchronous, inspect, marker,
    rebuild,
};
use crate::checkpoint::CheckpointStore;
use crate::connector::Context;
use crate::connector::diagnosis::Diagnosis;
use crate::connector::kind::{
    BadSetting, DryRun, Kind, KindFile, Scope, SinkKind, SinkPhrases, StoreFacts, StoreKind, StorePhrases, StorePlace,
    TransactionalKind, Usage, required,
};
use crate::connector::prose::{Prose, lost_with_power};
use crate::connector::stored::{Kept, Repository};
use crate::effect::Value;
use crate::position::Position;
use crate::sink::{Sink, TransactionalSink};

/// The first bytes of every SQLite database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

impl Kind for CheckpointSettings {
    fn check(&self) -> Vec<BadSetting> {
        required("path", &self.path).into_iter().collect()
    }

    fn files(&self, _pipeline: &str) -> Vec<KindFile> {
        vec![KindFile::named("path", &self.path, Usage::Checkpoints)]
    }
}

impl StoreKind for CheckpointSettings {
    fn facts(&self) -> StoreFacts {
        StoreFacts { place: StorePlace::Local(self.path.identity().to_owned()), write_positions: true, parked: true }
    }

    fn phrases(&self, _prose: &Prose<'_>) -> StorePhrases {
        let power_failure = match self.synchronous {
            Synchronous::Full => None,
            Synchronous::Normal => Some(
                "A power failure may lose the last commits (`synchronous = \"normal\"`), and more events are repeated."
                    .to_owned(),
            ),
        };
        let place = format!("in the SQLite file `{}` of the data directory", self.path.written());
        StorePhrases { place, power_failure }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn CheckpointStore>> {
        Ok(Arc::new(SqliteCheckpoints::new(self, context)))
    }

    fn repository(&self, data: &Path) -> Option<Arc<dyn Repository>> {
        Some(Arc::new(DatabaseFile(data.join(&*self.path))))
    }

    fn discover(&self, data: &Path) -> Vec<Arc<dyn Repository>> {
        let entries = fs::read_dir(data).into_iter().flatten().flatten().map(|entry| entry.path());
        let ours = entries.filter(|path| is_database(path) && inspect::is_ours(path));
        let found = ours.map(|path| Arc::new(DatabaseFile(path)) as Arc<dyn Repository>);
        self.repository(data).into_iter().chain(found).collect()
    }
}

impl Kind for SinkSettings {
    fn check(&self) -> Vec<BadSetting> {
        required("path", &self.path).into_iter().chain(super::check(self)).collect()
    }

    fn files(&self, _pipeline: &str) -> Vec<KindFile> {
        vec![KindFile::named("path", &self.path, Usage::Projection)]
    }

    fn own_files(&self, _context: &Context) -> Vec<PathBuf> {
        let path = Path::new(&*self.path);
        vec![path.to_owned(), marker::path_of_marker(path)]
    }
}

impl SinkKind for SinkSettings {
    fn phrases(&self, prose: &Prose<'_>) -> SinkPhrases {
        let path = self.path.written();
        let (writes, repeat, permanent) = if prose.has_script {
            (
                format!("The SQL statements of the script run on the SQLite file `{path}` of the data directory."),
                "Write statements that may run twice, such as `INSERT … ON CONFLICT …` or `UPDATE … SET total = ?`.",
                "statements that can never succeed",
            )
        } else {
            let table = self.table.written();
            (
                format!(
                    "It stores the events in the table `{table}` of the SQLite file `{path}` of the data directory."
                ),
                "A repeated event overwrites its own row, which stream and index identify.",
                "rows that the table does not take",
            )
        };
        let power_failure = match self.synchronous {
            Synchronous::Full => None,
            Synchronous::Normal => Some(lost_with_power("`synchronous = \"normal\"`", "the last rows")),
        };
        SinkPhrases {
            writes,
            overlap: "One transaction at a time takes all waiting decisions.",
            repeat,
            permanent: Some(permanent),
            unavailable: Some("the sink's database cannot be written"),
            power_failure,
            ..SinkPhrases::default()
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Sink>> {
        Ok(Arc::new(SqliteSink::new(self, context)))
    }

    fn transactional(&self) -> Option<Arc<dyn TransactionalKind>> {
        Some(Arc::new(self.clone()))
    }

    fn dry_run(&self) -> Option<Box<dyn DryRun>> {
        Some(Box::new(SqliteDryRun::new(self)))
    }
}

impl TransactionalKind for SinkSettings {
    fn facts(&self) -> StoreFacts {
        StoreFacts { place: StorePlace::Local(self.path.identity().to_owned()), write_positions: true, parked: true }
    }

    fn phrases(&self, _prose: &Prose<'_>) -> StorePhrases {
        let power_failure = match self.synchronous {
            Synchronous::Full => None,
            Synchronous::Normal => Some(
                "A power failure may undo the last transactions (`synchronous = \"normal\"`), effects and progress together; \
                 their events are then redelivered."
                    .to_owned(),
            ),
        };
        StorePhrases {
            place: format!("by the sink, in `{}` of the data directory", self.path.written()),
            power_failure,
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn TransactionalSink>> {
        Ok(Arc::new(SqliteSink::new(self, context)))
    }

    fn repository(&self, data: &Path) -> Option<Arc<dyn Repository>> {
        Some(Arc::new(DatabaseFile(data.join(&*self.path))))
    }

    fn settle(&self, context: &Context) -> anyhow::Result<()> {
        rebuild::settle(&context.output(&self.path), self.busy_timeout)
    }

    fn missing(&self, present: &Context, rebuilt: &Context) -> anyhow::Result<Vec<String>> {
        rebuild::missing(&present.output(&self.path), &rebuilt.output(&self.path))
    }
}

impl DryRun for SqliteDryRun {
    fn check(&self, _stream: &str, effects: &[Value]) -> Result<(), String> {
        SqliteDryRun::check(self, effects)
    }
}

fn is_database(path: &Path) -> bool {
    let mut first = [0; MAGIC.len()];
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == *MAGIC
}

/// A database file.
struct DatabaseFile(PathBuf);

impl Repository for DatabaseFile {
    fn path(&self) -> &Path {
        &self.0
    }

    fn inspect(&self, scope: Scope) -> Vec<Diagnosis> {
        inspect::inspect(&self.0, scope.in_use, scope.repair).diagnoses
    }

    fn kept(&self) -> Vec<Kept> {
        let kept = inspect::kept_in(&self.0).into_iter();
        kept.map(|kept| {
            let removal = removal(&kept.group, &kept.source);
            let inspect::Kept { group, source, tranches, tranche, last_commit } = kept;
            Kept { group, source, tranches, tranche, last_commit, path: self.0.clone(), removal }
        })
        .collect()
    }

    fn positions(&self, group: &str, source: &str, most: usize, f: &mut dyn FnMut(&str, &Position)) {
        inspect::positions(&self.0, group, source, most, f);
    }
}

fn removal(group: &str, source: &str) -> String {
    const TABLES: [&str; 6] = [
        "propulsion_checkpoint",
        "propulsiond_progress",
        "propulsiond_write_positions",
        "propulsiond_parked",
        "propulsiond_parked_streams",
        "propulsiond_parked_jobs",
    ];
    let filter = format!("consumer_group = {} AND source = {}", inspect::quoted(group), inspect::quoted(source));
    let statements = TABLES.map(|table| format!("DELETE FROM {table} WHERE {filter}")).join("; ");
    format!("by hand, while no daemon uses the file: {statements}")
}
