//! A database file and the thread that owns its connection. All stores and sinks of the file share both.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::oneshot;

use super::Synchronous;
use super::batch::Batch;
use super::errors::{Failure, FailureKind};
use super::open::{Open, Setup};
use super::parked::ParkedRow;
use super::progress::StoredCommit;
use super::worker::{Access, Ending, Request, Worker};
use crate::handler::HandlerError;
use crate::sink::{TransactionError, Written};

/// The capacity of a thread's queue. Callers wait for room in a full one.
const MAX_QUEUED_REQUESTS: usize = 1_024;

/// The settings of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    pub(super) busy_timeout: Duration,
    /// The size of the page cache, in bytes.
    pub(super) cache: u64,
    /// The size at which the log is written back, in bytes.
    pub(super) log: u64,
}

/// The handle of a database's thread.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    requests: mpsc::Sender<Request>,
    transactions: AtomicU64,
}

/// A thread that was started, whether or not it has ended.
struct Known {
    database: Weak<Database>,
    thread: JoinHandle<()>,
    /// Closes with the thread, after the connection.
    end: oneshot::Receiver<()>,
}

static DATABASES: LazyLock<Mutex<HashMap<PathBuf, Known>>> = LazyLock::new(Mutex::default);

impl Database {
    /// Returns the database of a file, shared with its other users. Opens no file.
    pub(super) fn at(path: &Path, tuning: Tuning) -> Arc<Self> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut databases = DATABASES.lock().unwrap_or_else(PoisonError::into_inner);
        let former = match databases.remove(&path) {
            Some(known) => match known.database.upgrade().filter(|database| !database.requests.is_closed()) {
                Some(alive) => {
                    databases.insert(path, known);
                    return alive;
                }
                None => Some(known.thread),
            },
            None => None,
        };
        let (requests, waiting) = mpsc::channel(MAX_QUEUED_REQUESTS);
        let database = Arc::new(Self { path: path.clone(), requests, transactions: AtomicU64::new(0) });
        let worker = Worker::new(path.clone(), tuning, waiting);
        let (ended, end) = oneshot::channel::<()>();
        let span = tracing::error_span!(parent: None, "database", path = %path.display());
        let thread = std::thread::Builder::new().name(thread_name(&path)).spawn(move || {
            // Dropped last, after the worker and its connection.
            let _ended = ended;
            let _entered = span.enter();
            // Two connections would do no harm. But the former one may still write its log back, which locks the file.
            if former.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the thread of the database panicked, a new one replaces it");
            }
            worker.run();
        });
        match thread {
            Ok(thread) => {
                databases.insert(path, Known { database: Arc::downgrade(&database), thread, end });
            }
            // The worker was dropped with its closure, so that every request fails as unavailable.
            Err(error) => tracing::error!(%error, path = %path.display(), "cannot start the database's thread"),
        }
        database
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on the database's thread.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        access: Access,
        work: impl FnOnce(&mut Open) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |open: Result<&mut Open, Failure>| {
            let result = open.and_then(work);
            let reopen = result.as_ref().is_err_and(|failure| failure.reopen);
            // A cancelled caller drops its receiver. The work is done all the same.
            drop(reply.send(result));
            reopen
        });
        self.send(Request::Job { access, job }).await?;
        answer.await.map_err(|_| self.ended())?
    }

    /// Commits progress, in one transaction with the other commits that wait.
    pub(super) async fn commit(
        &self,
        commits: Vec<StoredCommit>,
        synchronous: Synchronous,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Commit { commits, synchronous, reply }).await?;
        answer.await.map_err(|_| Failure { kind: FailureKind::OutcomeUnknown, ..self.ended() })
    }

    /// Begins a transaction after the earlier ones have ended.
    pub(super) async fn begin(
        self: &Arc<Self>,
        setup: Arc<Setup>,
        synchronous: Synchronous,
    ) -> Result<Running, Failure> {
        // The slot of the end is reserved before the transaction begins, so that a destructor can send it without waiting.
        let permit = self.requests.clone().reserve_owned().await.map_err(|_| self.ended())?;
        let id = self.transactions.fetch_add(1, Ordering::Relaxed);
        let running = Running { id, database: Arc::clone(self), end: Some(permit) };
        let (reply, answer) = oneshot::channel();
        self.send(Request::Begin { id, setup, synchronous, reply }).await?;
        answer.await.map_err(|_| self.ended())??;
        Ok(running)
    }

    async fn send(&self, request: Request) -> Result<(), Failure> {
        self.requests.send(request).await.map_err(|_| self.ended())
    }

    fn ended(&self) -> Failure {
        Failure::unavailable("the thread that owns the database has ended")
    }
}

/// Waits until the connections of unused databases are closed. The last connection to a file writes the log back and
/// deletes it. Returns the files whose connections did not close in time.
pub async fn closed(within: Duration) -> Vec<PathBuf> {
    let unused: Vec<_> = {
        let mut databases = DATABASES.lock().unwrap_or_else(PoisonError::into_inner);
        databases.extract_if(|_, known| known.database.strong_count() == 0).collect()
    };
    let still = unused.into_iter().map(|(path, known)| async move {
        // The channel carries no message. It closes when the database's thread exits and drops its sender.
        tokio::time::timeout(within, known.end).await.is_err().then_some(path)
    });
    futures_util::future::join_all(still).await.into_iter().flatten().collect()
}

/// An open transaction on the database's thread. Rolls back if it is dropped without a commit.
pub(super) struct Running {
    id: u64,
    database: Arc<Database>,
    end: Option<OwnedPermit<Request>>,
}

/// One result per decision, in order.
pub(super) type Results = Vec<Result<Written, HandlerError>>;

impl Running {
    pub(super) async fn write(&self, batch: Batch) -> Result<Results, Failure> {
        let (reply, answer) = oneshot::channel();
        self.database.send(Request::Write { id: self.id, batch, reply }).await?;
        answer.await.map_err(|_| self.database.ended())
    }

    pub(super) async fn commit(
        mut self,
        commits: Vec<StoredCommit>,
        parked: Vec<ParkedRow>,
    ) -> Result<(), TransactionError> {
        let (reply, answer) = oneshot::channel();
        let permit = self.end.take().expect("a transaction ends once");
        drop(permit.send(Request::End { id: self.id, ending: Ending::Commit { commits, parked, reply } }));
        answer
            .await
            .unwrap_or_else(|_| Err(TransactionError::OutcomeUnknown(anyhow::Error::msg(self.database.ended().why))))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(permit) = self.end.take() {
            // The returned sender is not needed any more.
            drop(permit.send(Request::End { id: self.id, ending: Ending::Rollback }));
        }
    }
}

fn thread_name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    format!("sqlite {}", file.chars().filter(|c| *c != '\0').collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{CheckpointKey, Commit, Fence};
    use crate::position::{Position, Progress, TrancheId};

    fn database(directory: &Path) -> Arc<Database> {
        let tuning = Tuning { busy_timeout: Duration::from_secs(1), cache: 0, log: 0 };
        Database::at(&directory.join("p.db"), tuning)
    }

    #[tokio::test]
    async fn a_thread_that_ends_fails_its_waiting_requests_and_the_next_request_starts_another() {
        let directory = tempfile::tempdir().unwrap();
        let first = database(directory.path());
        assert!(Arc::ptr_eq(&first, &database(directory.path())), "one thread for each file");

        let key = CheckpointKey { group: "g".into(), source: "s".into(), tranche: TrancheId::new("0") };
        let progress = Progress::at(Position::Number(1));
        let commit = Commit { key: &key, fence: Fence(1), sequence: 1, progress: &progress, write_positions: &[] };
        let panics = first.ask(Access::Change, |_| -> Result<(), Failure> { panic!("on purpose") });
        let commits = first.commit(vec![StoredCommit::new(&commit)], Synchronous::Full);
        let (panicked, committed) = tokio::join!(panics, commits);
        assert_eq!(panicked.unwrap_err().kind, FailureKind::Unavailable);
        assert_eq!(committed.unwrap_err().kind, FailureKind::OutcomeUnknown, "it was on its way");
        let later = first.ask(Access::Read, |_| Ok(())).await;
        assert_eq!(later.unwrap_err().kind, FailureKind::Unavailable);
        let setup = Arc::new(Setup::default());
        assert!(first.begin(setup, Synchronous::Full).await.is_err());

        database(directory.path()).ask(Access::Read, |_| Ok(())).await.unwrap();
    }
}
