//! The worker that owns a database's connection.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Synchronous;
use super::batch::Batch;
use super::database::{Rest, Results, Tuning};
use super::errors::{Failure, FailureKind};
use super::idle::{Requests, Waited};
use super::open::{Open, Setup};
use super::parked::StoredChange;
use super::progress::{self, StoredCommit};
use super::writer;
use crate::checkpoint::{CheckpointError, CheckpointKey, CommitOrder};
use crate::sink::TransactionError;

/// The longest time for which the file of a busy database may lack a commit. Each write back costs two syncs.
const MAX_LOG_AGE: Duration = Duration::from_secs(60);

/// The most requests to commit that one transaction takes.
const MAX_COMMIT_GROUP: usize = 256;

/// The access that a job needs, which decides whether it waits for an open transaction.
///
/// Progress changes at a transaction's very end. A read before that end sees committed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Change,
}

/// Work on the connection. Returns whether the connection must be opened again.
pub(super) type Job = Box<dyn FnOnce(Result<&mut Open, Failure>) -> bool + Send>;

/// A request to the database's worker.
pub(super) enum Request {
    Job { access: Access, job: Job },
    Commit { commits: Vec<StoredCommit>, synchronous: Synchronous, reply: CommitReply },
    Begin { id: u64, setup: Arc<Setup>, synchronous: Synchronous, reply: oneshot::Sender<Result<(), Failure>> },
    Write { id: u64, batch: Batch, reply: oneshot::Sender<Results> },
    End { id: u64, ending: Ending },
}

type CommitReply = oneshot::Sender<Vec<Result<(), Failure>>>;

/// The end of a transaction.
pub(super) enum Ending {
    Commit {
        commits: Vec<StoredCommit>,
        parked: Vec<StoredChange>,
        reply: oneshot::Sender<Result<(), TransactionError>>,
    },
    Rollback,
}

/// Serves one database's requests, one at a time.
pub(super) struct Worker {
    path: PathBuf,
    tuning: Tuning,
    requests: Requests,
    /// The requests that arrived during a transaction and wait for its end.
    deferred: VecDeque<Request>,
    open: Option<Open>,
    transaction: Option<Transaction>,
    /// The last field, so that it is dropped after the connection.
    lifetime: Lifetime,
}

/// The order of the workers of a file: one connection at a time.
pub(super) struct Lifetime {
    /// Closes when the former worker of the file has ended.
    pub(super) former: Option<oneshot::Receiver<()>>,
    /// Its drop tells that this worker has ended.
    pub(super) _ended: oneshot::Sender<()>,
}

/// The open transaction.
struct Transaction {
    id: u64,
    setup: Arc<Setup>,
    wrote: bool,
    /// The reason for which it can no longer commit.
    over: Option<Failure>,
}

impl Worker {
    pub(super) fn new(path: PathBuf, tuning: Tuning, requests: mpsc::Receiver<Request>, lifetime: Lifetime) -> Self {
        let requests = Requests::new(requests);
        Self { path, tuning, requests, deferred: VecDeque::new(), open: None, transaction: None, lifetime }
    }

    /// Serves requests until every sender is dropped, or until the worker rests.
    pub(super) fn run(mut self, rest: &Rest) {
        if let Some(former) = self.lifetime.former.take() {
            // Two connections would do no harm. But the former one may still write its log back, which locks the file.
            // The channel carries no message: it closes.
            let _closed = former.blocking_recv();
        }
        loop {
            match self.next() {
                Waited::Request(request) => self.serve(request),
                Waited::Closed => return,
                Waited::Idle => {
                    self.requests.stop_timer();
                    if let Some(open) = &self.open {
                        open.release_memory();
                    }
                    let Some((worker, request)) = rest.take(self) else { return };
                    self = worker;
                    self.serve(request);
                }
            }
        }
    }

    /// Returns the next request, if one waits.
    pub(super) fn try_next(&mut self) -> Option<Request> {
        self.requests.try_next()
    }

    fn next(&mut self) -> Waited {
        if self.transaction.is_some() {
            // A transaction holds the write lock, so the log cannot be written back during one.
            return self.requests.next_in_transaction();
        }
        if let Some(open) = &mut self.open {
            open.write_back_old_log(MAX_LOG_AGE);
        }
        match self.deferred.pop_front() {
            Some(request) => Waited::Request(request),
            None => self.requests.next(self.open.as_mut()),
        }
    }

    pub(super) fn serve(&mut self, request: Request) {
        let running = self.transaction.as_ref().map(|transaction| transaction.id);
        match request {
            Request::Job { access: Access::Read, job } => self.run_job(job),
            Request::Write { id, batch, reply } if running == Some(id) => drop(reply.send(self.write(&batch))),
            Request::End { id, ending } if running == Some(id) => self.end(ending),
            waits if running.is_some() => self.deferred.push_back(waits),
            Request::Job { access: Access::Change, job } => self.run_job(job),
            Request::Commit { commits, synchronous, reply } => self.commit_group(commits, synchronous, reply),
            Request::Begin { id, setup, synchronous, reply } => {
                let begun = self.begin(id, setup, synchronous);
                // A caller that was cancelled sends the end of this transaction from its destructor.
                drop(reply.send(begun));
            }
            // The transaction did not begin, or its caller was cancelled before it began.
            Request::Write { .. } | Request::End { ending: Ending::Rollback, .. } => {}
            Request::End { ending: Ending::Commit { reply, .. }, .. } => {
                let over = Failure::unavailable("the transaction is over");
                drop(reply.send(Err(failed(&over, &self.path))));
            }
        }
    }

    fn run_job(&mut self, job: Job) {
        let reopen = match self.open() {
            Ok(open) => job(Ok(open)),
            Err(failure) => job(Err(failure)),
        };
        if reopen {
            self.close();
        }
    }

    fn open(&mut self) -> Result<&mut Open, Failure> {
        if self.open.is_none() {
            self.open = Some(Open::new(&self.path, self.tuning)?);
        }
        Ok(self.open.as_mut().expect("the connection was opened above"))
    }

    fn close(&mut self) {
        self.open = None;
        if let Some(transaction) = &mut self.transaction {
            transaction.over.get_or_insert_with(|| Failure::unavailable("the database had to be opened again"));
        }
    }

    /// Commits this request together with the requests to commit that wait behind it.
    fn commit_group(&mut self, commits: Vec<StoredCommit>, synchronous: Synchronous, reply: CommitReply) {
        let mut group = vec![(commits, reply)];
        // The whole group is as durable as its strictest member asks for.
        let mut strictest = synchronous;
        while group.len() < MAX_COMMIT_GROUP {
            match self.deferred.pop_front().or_else(|| self.requests.try_next()) {
                Some(Request::Commit { commits, synchronous, reply }) => {
                    strictest = strictest.max(synchronous);
                    group.push((commits, reply));
                }
                Some(other) => {
                    self.deferred.push_front(other);
                    break;
                }
                None => break,
            }
        }
        let results =
            self.open().and_then(|open| commit_all(open, strictest, group.iter().map(|(commits, _)| commits)));
        if results.as_ref().is_err_and(|failure| failure.reopen) {
            self.close();
        }
        let mut results = results.map(Vec::into_iter);
        for (commits, reply) in group {
            let mine = match &mut results {
                Ok(results) => results.next().unwrap_or_default(),
                Err(failure) => commits.iter().map(|_| Err(failure.clone())).collect(),
            };
            // A caller that was cancelled needs no answer; the commit stands.
            drop(reply.send(mine));
        }
    }

    fn begin(&mut self, id: u64, setup: Arc<Setup>, synchronous: Synchronous) -> Result<(), Failure> {
        let begun = self.open().and_then(|open| {
            let open = open.with_schema()?;
            open.set_up(&setup)?;
            open.begin(synchronous)
        });
        match &begun {
            Ok(()) => self.transaction = Some(Transaction { id, setup, wrote: false, over: None }),
            Err(failure) if failure.reopen => self.close(),
            Err(_) => {}
        }
        begun
    }

    fn write(&mut self, batch: &Batch) -> Results {
        let transaction = self.transaction.as_mut().expect("the caller checked that the transaction is open");
        let written = match (&transaction.over, &self.open) {
            (Some(over), _) => Err(over.clone()),
            (None, None) => Err(Failure::unavailable("the database was closed")),
            (None, Some(open)) => {
                writer::write(open, &transaction.setup, batch, 0..batch.decisions.len(), !transaction.wrote)
            }
        };
        transaction.wrote = true;
        match written {
            Ok(results) => results,
            Err(failure) => {
                transaction.over.get_or_insert_with(|| failure.clone());
                if let Some(open) = &mut self.open {
                    open.rollback();
                }
                if failure.reopen {
                    self.close();
                }
                batch.decisions.iter().map(|_| Err(failure.to_handler_error(&self.path))).collect()
            }
        }
    }

    fn end(&mut self, ending: Ending) {
        let transaction = self.transaction.take().expect("the caller checked that the transaction is open");
        match (ending, &mut self.open) {
            (Ending::Rollback, None) => {}
            (Ending::Rollback, Some(open)) => open.rollback(),
            (Ending::Commit { commits, parked, reply }, Some(open)) if transaction.over.is_none() => {
                let done = commit_transaction(open, &commits, &parked);
                if done.is_err() {
                    open.rollback();
                }
                // After an I/O error at COMMIT only recovery tells whether the commit counts (C11). Recovery needs a
                // new connection.
                if matches!(done, Err(TransactionError::OutcomeUnknown(_))) {
                    self.close();
                }
                drop(reply.send(done));
            }
            (Ending::Commit { reply, .. }, _) => {
                let over = transaction.over.unwrap_or_else(|| Failure::unavailable("the database was closed"));
                drop(reply.send(Err(failed(&over, &self.path))));
            }
        }
    }
}

/// Stores the commits of several requests in one transaction. A refused commit stops no other.
fn commit_all<'a>(
    open: &mut Open,
    synchronous: Synchronous,
    requests: impl Iterator<Item = &'a Vec<StoredCommit>>,
) -> Result<Vec<Vec<Result<(), Failure>>>, Failure> {
    open.with_schema()?.transaction(synchronous, |connection| {
        let commit = |commit: &StoredCommit| match progress::check(connection, commit) {
            Ok(CommitOrder::Repeat) => Ok(Ok(())),
            Ok(CommitOrder::Next) => progress::store(connection, commit).map(Ok),
            // A failure of the database ends the transaction for all. A refused commit wrote nothing.
            Err(failure) if failure.reopen => Err(failure),
            Err(failure) => Ok(Err(failure)),
        };
        requests.map(|commits| commits.iter().map(commit).collect()).collect()
    })
}

/// Checks every fence, stores progress and the changes of parked streams, and commits.
fn commit_transaction(
    open: &mut Open,
    commits: &[StoredCommit],
    parked: &[StoredChange],
) -> Result<(), TransactionError> {
    let path = open.path().to_owned();
    let mut fenced = Vec::new();
    for commit in commits {
        match progress::check(&open.connection, commit) {
            Ok(CommitOrder::Next) => {
                progress::store(&open.connection, commit).map_err(|failure| failed(&failure, &path))?;
            }
            Ok(CommitOrder::Repeat) => {
                // The effects of the stored commit are present. Only the owner can tell whether they equal these.
                let why = format!("the commit of {} is already stored", commit.key);
                return Err(TransactionError::OutcomeUnknown(anyhow::Error::msg(why)));
            }
            Err(failure) => fenced.push(fenced_or(failure, &commit.key, &path)?),
        }
    }
    for change in parked {
        match change.apply(&open.connection) {
            Ok(()) => {}
            Err(failure) => fenced.push(fenced_or(failure, &change.key, &path)?),
        }
    }
    if !fenced.is_empty() {
        fenced.dedup_by(|a, b| a.0 == b.0);
        return Err(TransactionError::Fenced(fenced));
    }
    open.commit().map_err(|failure| failed(&failure, &path))
}

type FencedKey = (CheckpointKey, CheckpointError);

fn fenced_or(failure: Failure, key: &CheckpointKey, path: &Path) -> Result<FencedKey, TransactionError> {
    if matches!(failure.kind, FailureKind::Fenced { .. }) {
        let error = failure.into_checkpoint_error(format_args!("cannot commit {key} to"), path);
        return Ok((key.clone(), error));
    }
    Err(failed(&failure, path))
}

fn failed(failure: &Failure, path: &Path) -> TransactionError {
    match failure.kind {
        FailureKind::OutcomeUnknown => TransactionError::OutcomeUnknown(anyhow::Error::msg(failure.why.clone())),
        _ => TransactionError::Failed(failure.to_handler_error(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Commit, Fence, Owner};
    use crate::position::{Position, Progress, TrancheId};

    fn key(tranche: &str) -> CheckpointKey {
        CheckpointKey { group: "g".into(), source: "s".into(), tranche: TrancheId::new(tranche) }
    }

    fn first_commit(key: &CheckpointKey) -> StoredCommit {
        let progress = Progress::at(Position::Number(1));
        StoredCommit::new(&Commit { key, fence: Fence(1), sequence: 1, progress: &progress, write_positions: &[] })
    }

    /// Commits a group with one request for each level. Returns SQLite's level of that transaction.
    fn commit_as_group(levels: &[Synchronous]) -> i64 {
        let directory = tempfile::tempdir().unwrap();
        let (requests, waiting) = mpsc::channel(8);
        let tuning = Tuning { busy_timeout: Duration::from_secs(1), cache: 0, log: 0 };
        let lifetime = Lifetime { former: None, _ended: oneshot::channel().0 };
        let mut worker = Worker::new(directory.path().join("p.db"), tuning, waiting, lifetime);
        let keys: Vec<_> = (0..levels.len()).map(|number| key(&number.to_string())).collect();
        let open = worker.open().unwrap().with_schema().unwrap();
        for key in &keys {
            let claimed = open
                .transaction(Synchronous::Normal, |connection| progress::claim(connection, key, &Owner("a".into())));
            assert_eq!(claimed.unwrap().fence, Fence(1));
        }
        let mut answers = Vec::new();
        for (key, synchronous) in keys.iter().zip(levels) {
            let (reply, answer) = oneshot::channel();
            let commit = Request::Commit { commits: vec![first_commit(key)], synchronous: *synchronous, reply };
            assert!(requests.try_send(commit).is_ok());
            answers.push(answer);
        }
        // Serving the first request takes the others into its transaction.
        let first = worker.try_next().unwrap();
        worker.serve(first);
        for mut answer in answers {
            assert_eq!(answer.try_recv().unwrap(), [Ok(())]);
        }
        worker.open().unwrap().connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_group_commit_is_as_durable_as_its_strictest_member() {
        const NORMAL: i64 = 1;
        const FULL: i64 = 2;
        use Synchronous::{Full, Normal};
        assert_eq!(commit_as_group(&[Normal, Normal]), NORMAL);
        assert_eq!(commit_as_group(&[Normal, Full, Normal]), FULL);
        assert_eq!(commit_as_group(&[Full, Normal]), FULL);
    }
}
