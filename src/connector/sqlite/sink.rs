//! The sink, alone or as the holder of the progress.

use std::sync::Arc;

use async_trait::async_trait;

use super::batch::Batch;
use super::database::{Database, Running, Tuning};
use super::errors::Failure;
use super::open::Setup;
use super::parked::StoredChange;
use super::progress::StoredCommit;
use super::store::SqliteCheckpoints;
use super::worker::Access;
use super::writer;
use super::{SinkSettings, Synchronous};
use crate::checkpoint::{CheckpointStore, Commit};
use crate::connector::Context;
use crate::handler::HandlerError;
use crate::sink::{Decided, ParkedChange, Sink, Transaction, TransactionError, TransactionalSink, Written};

/// The most decisions of one write, and so of one transaction. The statements of a thousand decisions take far longer than
/// a sync, so that larger transactions gain nothing, and one that fails costs more to repeat.
const MAX_BATCH: usize = 1_000;

/// Writes projections into an SQLite database.
#[derive(Debug)]
pub struct SqliteSink {
    database: Arc<Database>,
    synchronous: Synchronous,
    setup: Arc<Setup>,
    checkpoints: Arc<SqliteCheckpoints>,
}

impl SqliteSink {
    /// Opens no file yet. A file that cannot be used, or an `init` that fails, makes the writes unavailable.
    pub fn new(settings: &SinkSettings, context: &Context) -> Self {
        let tuning = Tuning { busy_timeout: settings.busy_timeout, cache: settings.cache, log: settings.log };
        let database = Database::at(&context.output(&settings.path), tuning);
        let init = settings.init.iter().map(|sql| sql.to_string()).collect();
        Self {
            checkpoints: Arc::new(SqliteCheckpoints::over(Arc::clone(&database), settings.synchronous)),
            synchronous: settings.synchronous,
            setup: Arc::new(writer::setup(init, &settings.table)),
            database,
        }
    }
}

#[async_trait]
impl Sink for SqliteSink {
    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        let batch = Batch::new(decided);
        let (setup, synchronous) = (Arc::clone(&self.setup), self.synchronous);
        let written =
            self.database.ask(Access::Change, move |open| writer::write_alone(open, &setup, synchronous, &batch)).await;
        written.unwrap_or_else(|failure| {
            decided.iter().map(|_| Err(failure.to_handler_error(self.database.path()))).collect()
        })
    }

    async fn close(&self) -> Result<(), HandlerError> {
        let flushed = self.database.ask(Access::Change, |open| {
            // Writing the log back makes it durable first, whatever `synchronous` says.
            open.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(Failure::from)
        });
        flushed.await.map_err(|failure| failure.to_handler_error(self.database.path()))
    }
}

#[async_trait]
impl TransactionalSink for SqliteSink {
    fn checkpoints(&self) -> Arc<dyn CheckpointStore> {
        Arc::clone(&self.checkpoints) as Arc<dyn CheckpointStore>
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, HandlerError> {
        let begun = self.database.begin(Arc::clone(&self.setup), self.synchronous).await;
        let running = begun.map_err(|failure| failure.to_handler_error(self.database.path()))?;
        Ok(Box::new(SqliteTransaction { running, database: Arc::clone(&self.database) }))
    }
}

struct SqliteTransaction {
    running: Running,
    database: Arc<Database>,
}

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn write(&mut self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        self.running.write(Batch::new(decided)).await.unwrap_or_else(|failure| {
            decided.iter().map(|_| Err(failure.to_handler_error(self.database.path()))).collect()
        })
    }

    async fn commit(
        self: Box<Self>,
        commits: &[Commit<'_>],
        parked: &[ParkedChange<'_>],
    ) -> Result<(), TransactionError> {
        let commits = commits.iter().map(StoredCommit::new).collect();
        let parked = parked.iter().map(StoredChange::new).collect();
        self.running.commit(commits, parked).await
    }
}
