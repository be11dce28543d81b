//! A database file and the worker that owns its connection. All stores and sinks of the file share both.
//!
//! The worker runs on a thread of its own while there are requests. After a few idle seconds the thread ends, and the
//! worker rests with its open connection until the next request starts a thread for it.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::oneshot;

use super::Synchronous;
use super::batch::Batch;
use super::errors::{Failure, FailureKind};
use super::open::{Open, Setup};
use super::parked::StoredChange;
use super::progress::StoredCommit;
use super::worker::{Access, Ending, Lifetime, Request, Worker};
use crate::handler::HandlerError;
use crate::sink::{TransactionError, Written};

/// The capacity of a worker's queue. Callers wait for room in a full one.
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

/// The handle of a database's worker.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    requests: mpsc::Sender<Request>,
    transactions: AtomicU64,
    rest: Arc<Rest>,
}

/// The place of a worker without a thread.
pub(super) struct Rest(Mutex<Resting>);

enum Resting {
    /// A thread runs the worker, or it ended unexpectedly.
    Running,
    Worker(Box<Worker>),
    /// The database is not used any more.
    Unused,
}

impl Rest {
    /// Takes a worker without requests. Returns a worker that has to go on, with its next request.
    pub(super) fn take(&self, mut worker: Worker) -> Option<(Worker, Request)> {
        let mut resting = self.lock();
        // A sender looks for a resting worker after it has sent its request, under the same lock. Either it finds this
        // worker, or the worker finds its request here.
        if let Some(request) = worker.try_next() {
            return Some((worker, request));
        }
        match *resting {
            // The connection closes here, on the worker's own thread.
            Resting::Unused => {
                drop(resting);
                drop(worker);
            }
            Resting::Running | Resting::Worker(_) => *resting = Resting::Worker(Box::new(worker)),
        }
        None
    }

    fn wake(&self, next: Resting) -> Option<Box<Worker>> {
        match std::mem::replace(&mut *self.lock(), next) {
            Resting::Worker(worker) => Some(worker),
            Resting::Running | Resting::Unused => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Resting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

/// A worker that was started, whether or not it has ended.
struct Known {
    database: Weak<Database>,
    /// Closes with the worker, after the connection.
    end: oneshot::Receiver<()>,
}

static DATABASES: LazyLock<Mutex<HashMap<PathBuf, Known>>> = LazyLock::new(Mutex::default);

impl Database {
    /// Returns the database of a file, shared with its other users. Opens no file and starts no thread.
    pub(super) fn at(path: &Path, tuning: Tuning) -> Arc<Self> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut databases = DATABASES.lock().unwrap_or_else(PoisonError::into_inner);
        let former = match databases.remove(&path) {
            Some(known) => match known.database.upgrade() {
                Some(database) if !database.requests.is_closed() => {
                    databases.insert(path, known);
                    return database;
                }
                Some(_) => {
                    tracing::error!(path = %path.display(), "the database's thread ended unexpectedly, a new one replaces it");
                    Some(known.end)
                }
                None => Some(known.end),
            },
            None => None,
        };
        let (requests, waiting) = mpsc::channel(MAX_QUEUED_REQUESTS);
        let (ended, end) = oneshot::channel();
        let worker = Worker::new(path.clone(), tuning, waiting, Lifetime { former, _ended: ended });
        let rest = Arc::new(Rest(Mutex::new(Resting::Worker(Box::new(worker)))));
        let database = Arc::new(Self { path: path.clone(), requests, transactions: AtomicU64::new(0), rest });
        databases.insert(path, Known { database: Arc::downgrade(&database), end });
        database
    }

    /// Starts a thread for the worker, if it rests.
    fn wake(&self, next: Resting) {
        let Some(worker) = self.rest.wake(next) else { return };
        let rest = Arc::clone(&self.rest);
        let span = tracing::error_span!(parent: None, "database", path = %self.path.display());
        let thread = std::thread::Builder::new().name(thread_name(&self.path)).spawn(move || {
            let _entered = span.enter();
            worker.run(&rest);
        });
        if let Err(error) = thread {
            // The worker was dropped with its closure, so that every request fails as unavailable.
            tracing::error!(%error, path = %self.path.display(), "cannot start the database's thread");
        }
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
        // A full queue has a running worker, so that waiting for room ends.
        self.requests.send(request).await.map_err(|_| self.ended())?;
        self.wake(Resting::Running);
        Ok(())
    }

    fn ended(&self) -> Failure {
        Failure::unavailable("the thread that owns the database has ended")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The close of the connection writes the log back. That must not block the thread of the last user.
        self.wake(Resting::Unused);
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
        // The channel carries no message. It closes when the worker ends and drops its sender.
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
        parked: Vec<StoredChange>,
    ) -> Result<(), TransactionError> {
        let (reply, answer) = oneshot::channel();
        let permit = self.end.take().expect("a transaction ends once");
        // The thread runs as long as the transaction is open. The returned sender is not needed any more.
        drop(permit.send(Request::End { id: self.id, ending: Ending::Commit { commits, parked, reply } }));
        answer
            .await
            .unwrap_or_else(|_| Err(TransactionError::OutcomeUnknown(anyhow::Error::msg(self.database.ended().why))))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(permit) = self.end.take() {
            drop(permit.send(Request::End { id: self.id, ending: Ending::Rollback }));
            // If the transaction never began, its worker may rest.
            self.database.wake(Resting::Running);
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
    use crate::connector::sqlite::open::path_of_log;
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
    async fn rested(database: &Database) {
        let rested = async {
            while !matches!(*database.rest.lock(), Resting::Worker(_)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), rested).await.expect("the worker rests");
    }

    #[tokio::test]
    async fn an_idle_worker_rests_with_its_connection_until_the_next_request() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(directory.path());
        assert!(matches!(*database.rest.lock(), Resting::Worker(_)), "no thread without a request");
        let create = |open: &mut Open| {
            open.transaction(Synchronous::Full, |connection| {
                Ok(connection.execute_batch("CREATE TABLE t (a); CREATE TEMP TABLE of_connection (a)")?)
            })
        };
        database.ask(Access::Change, create).await.unwrap();
        rested(&database).await;

        let count = "SELECT count(*) FROM of_connection";
        let rows =
            database.ask(Access::Read, |open| Ok(open.connection.query_row(count, [], |row| row.get::<_, i64>(0))?));
        assert_eq!(rows.await, Ok(0), "the connection is the same");
        let log = path_of_log(database.path());
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 0, "the file holds everything");

        rested(&database).await;
        drop(database);
        assert_eq!(closed(Duration::from_secs(60)).await, Vec::<PathBuf>::new());
        assert!(!log.exists(), "the connection of a resting worker is closed");
    }

    #[tokio::test]
    async fn a_worker_that_goes_to_rest_serves_the_request_that_arrives_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(directory.path());
        let worker = database.rest.wake(Resting::Running).expect("a new worker rests");
        let (reply, mut answer) = oneshot::channel();
        let job = Box::new(move |open: Result<&mut Open, Failure>| {
            reply.send(open.is_ok()).unwrap();
            false
        });
        // Sent, but its sender has not looked for a resting worker yet.
        assert!(database.requests.try_send(Request::Job { access: Access::Read, job }).is_ok());
        let (mut worker, request) = database.rest.take(*worker).expect("the request is found");
        worker.serve(request);
        assert_eq!(answer.try_recv(), Ok(true));
        assert!(database.rest.take(worker).is_none());
        database.ask(Access::Read, |_| Ok(())).await.unwrap();
    }
}
