//! The checkpoint store.

use std::sync::Arc;

use async_trait::async_trait;

use super::database::{Database, Tuning};
use super::errors::Failure;
use super::log;
use super::parked::SqliteParked;
use super::progress::{self, StoredCommit};
use super::worker::Access;
use super::{CheckpointSettings, Synchronous};
use crate::checkpoint::{
    CheckpointError, CheckpointKey, CheckpointStore, Claimed, Commit, Fence, Listed, LogEntry, MAX_SET_BYTES, Owner,
    ParkedStore,
};
use crate::connector::Context;
use crate::position::{Progress, WritePosition};

/// Keeps progress in an SQLite database.
///
/// A commit that breaks the chain (C11) has an unknown outcome: the driver reads the key before it commits again.
#[derive(Debug)]
pub struct SqliteCheckpoints {
    database: Arc<Database>,
    synchronous: Synchronous,
}

impl SqliteCheckpoints {
    /// Opens no file yet. A file that cannot be used fails the requests that need it.
    pub fn new(settings: &CheckpointSettings, context: &Context) -> Self {
        // Progress takes few pages, so that a small cache and log do.
        let tuning = Tuning { busy_timeout: settings.busy_timeout, cache: 8 << 20, log: 16 << 20 };
        Self::over(Database::at(&context.output(&settings.path), tuning), settings.synchronous)
    }

    pub(super) fn over(database: Arc<Database>, synchronous: Synchronous) -> Self {
        Self { database, synchronous }
    }

    fn error(&self, failure: Failure, doing: std::fmt::Arguments<'_>) -> CheckpointError {
        failure.into_checkpoint_error(doing, self.database.path())
    }
}

#[async_trait]
impl CheckpointStore for SqliteCheckpoints {
    fn max_set_bytes(&self) -> Option<usize> {
        Some(MAX_SET_BYTES)
    }

    async fn load(&self, key: &CheckpointKey) -> Result<Option<Progress>, CheckpointError> {
        let wanted = key.clone();
        let loaded =
            self.database.ask(Access::Read, move |open| progress::load(&open.with_schema()?.connection, &wanted));
        loaded.await.map_err(|failure| self.error(failure, format_args!("cannot load {key} from")))
    }

    async fn claim_all(&self, keys: &[CheckpointKey], owner: &Owner) -> Vec<Result<Claimed, CheckpointError>> {
        let (wanted, claimant) = (keys.to_vec(), owner.clone());
        // One transaction claims all keys, so that a thousand tranches cost one sync of the disk.
        let claimed = self.database.ask(Access::Change, move |open| {
            open.with_schema()?.transaction(Synchronous::Full, |connection| {
                wanted.iter().map(|key| progress::claim(connection, key, &claimant)).collect::<Result<Vec<_>, _>>()
            })
        });
        match claimed.await {
            Ok(claimed) => claimed.into_iter().map(Ok).collect(),
            Err(failure) if keys.len() == 1 => {
                vec![Err(self.error(failure, format_args!("cannot claim {} in", keys[0])))]
            }
            // One unreadable row must not keep the other keys from being claimed.
            Err(_) => {
                let mut results = Vec::with_capacity(keys.len());
                for key in keys {
                    results.extend(self.claim_all(std::slice::from_ref(key), owner).await);
                }
                results
            }
        }
    }

    async fn commit(&self, commits: &[Commit<'_>]) -> Vec<Result<(), CheckpointError>> {
        let stored: Vec<_> = commits.iter().map(StoredCommit::new).collect();
        let results = match self.database.commit(stored, self.synchronous).await {
            Ok(results) => results,
            Err(failure) => commits.iter().map(|_| Err(failure.clone())).collect(),
        };
        let named = results.into_iter().zip(commits).map(|(result, commit)| {
            result.map_err(|failure| self.error(failure, format_args!("cannot commit {} to", commit.key)))
        });
        named.collect()
    }

    async fn last_commit(&self, key: &CheckpointKey) -> Result<Option<(Fence, u64)>, CheckpointError> {
        let wanted = key.clone();
        let found = self
            .database
            .ask(Access::Read, move |open| progress::last_commit(&open.with_schema()?.connection, &wanted));
        found.await.map_err(|failure| self.error(failure, format_args!("cannot look up {key} in")))
    }

    async fn list(&self, group: &str, source: &str) -> Result<Vec<Listed>, CheckpointError> {
        let (wanted, from) = (group.to_owned(), source.to_owned());
        let listed = self
            .database
            .ask(Access::Read, move |open| progress::list(&open.with_schema()?.connection, &wanted, &from));
        listed
            .await
            .map_err(|failure| self.error(failure, format_args!("cannot list the progress of {group}/{source} in")))
    }

    async fn set(&self, key: &CheckpointKey, fence: Fence, progress: Option<&Progress>) -> Result<(), CheckpointError> {
        let (wanted, progress) = (key.clone(), progress.cloned());
        let set = self.database.ask(Access::Change, move |open| {
            open.with_schema()?.transaction(Synchronous::Full, |connection| {
                progress::set(connection, &wanted, fence, progress.as_ref())
            })
        });
        set.await.map_err(|failure| self.error(failure, format_args!("cannot set {key} in")))
    }

    async fn log(&self, key: &CheckpointKey) -> Result<Vec<LogEntry>, CheckpointError> {
        let wanted = key.clone();
        let entries =
            self.database.ask(Access::Read, move |open| log::entries(&open.with_schema()?.connection, &wanted));
        entries.await.map_err(|failure| self.error(failure, format_args!("cannot read the log of {key} in")))
    }

    async fn release(&self, key: &CheckpointKey, fence: Fence) -> Result<(), CheckpointError> {
        let wanted = key.clone();
        let released = self.database.ask(Access::Change, move |open| {
            open.with_schema()?
                .transaction(Synchronous::Normal, |connection| progress::release(connection, &wanted, fence))
        });
        released.await.map_err(|failure| self.error(failure, format_args!("cannot release {key} in")))
    }

    async fn write_positions(
        &self,
        key: &CheckpointKey,
        streams: &[&str],
    ) -> Result<Vec<Option<WritePosition>>, CheckpointError> {
        let wanted = key.clone();
        let streams: Vec<Box<str>> = streams.iter().map(|&stream| stream.into()).collect();
        let found = self.database.ask(Access::Read, move |open| {
            progress::write_positions(&open.with_schema()?.connection, &wanted, &streams)
        });
        found.await.map_err(|failure| self.error(failure, format_args!("cannot look up streams of {key} in")))
    }

    fn parked(&self) -> Option<Arc<dyn ParkedStore>> {
        Some(Arc::new(SqliteParked { database: Arc::clone(&self.database), synchronous: self.synchronous }))
    }
}
