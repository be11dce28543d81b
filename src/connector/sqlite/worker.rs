//! The thread that owns a database's connection.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Synchronous;
use super::batch::Batch;
use super::database::{Results, Tuning};
use super::failure::{Failure, Trouble};
use super::open::{Open, Setup};
use super::parked::{self, ParkedRow};
use super::progress::{self, Step, StoredCommit};
use super::writer;
use crate::checkpoint::{CheckpointError, CheckpointKey};
use crate::sink::TransactionError;

/// How many requests to commit are taken into one transaction.
const GROUP: usize = 256;

/// Whether a request can be served while somebody's transaction is open.
///
/// What is kept here changes only at a transaction's very end, so that until then a read sees what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Change,
}

/// Returns whether the connection must be opened anew.
pub(super) type Job = Box<dyn FnOnce(Result<&mut Open, Failure>) -> bool + Send>;

pub(super) enum Request {
    Job { access: Access, job: Job },
    Commit { commits: Vec<StoredCommit>, synchronous: Synchronous, reply: CommitReply },
    Begin { id: u64, setup: Arc<Setup>, synchronous: Synchronous, reply: oneshot::Sender<Result<(), Failure>> },
    Write { id: u64, batch: Batch, reply: oneshot::Sender<Results> },
    End { id: u64, ending: Ending },
}

type CommitReply = oneshot::Sender<Vec<Result<(), Failure>>>;

pub(super) enum Ending {
    Commit { commits: Vec<StoredCommit>, parked: Vec<ParkedRow>, reply: oneshot::Sender<Result<(), TransactionError>> },
    Rollback,
}

pub(super) struct Worker {
    path: PathBuf,
    tuning: Tuning,
    requests: mpsc::Receiver<Request>,
    /// What came while a transaction was open, and waits for its end.
    deferred: VecDeque<Request>,
    open: Option<Open>,
    transaction: Option<Transaction>,
}

/// The transaction that is open.
struct Transaction {
    id: u64,
    setup: Arc<Setup>,
    wrote: bool,
    /// Why it cannot be committed any more.
    over: Option<Failure>,
}

impl Worker {
    pub(super) fn new(path: PathBuf, tuning: Tuning, requests: mpsc::Receiver<Request>) -> Self {
        Self { path, tuning, requests, deferred: VecDeque::new(), open: None, transaction: None }
    }

    /// Serves requests until nobody is left who could send one.
    pub(super) fn run(mut self) {
        while let Some(request) = self.next() {
            self.serve(request);
        }
    }

    fn next(&mut self) -> Option<Request> {
        if self.transaction.is_none()
            && let Some(request) = self.deferred.pop_front()
        {
            return Some(request);
        }
        self.requests.blocking_recv()
    }

    fn serve(&mut self, request: Request) {
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
                // If nobody waits for it any more, its end is on its way.
                drop(reply.send(begun));
            }
            // Its beginning failed, or was never waited for.
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
        Ok(self.open.as_mut().expect("it was opened just now"))
    }

    fn close(&mut self) {
        self.open = None;
        if let Some(transaction) = &mut self.transaction {
            transaction.over.get_or_insert_with(|| Failure::unavailable("the database had to be opened again"));
        }
    }

    /// Commits what was asked for, and what else waits to be committed.
    fn commit_group(&mut self, commits: Vec<StoredCommit>, synchronous: Synchronous, reply: CommitReply) {
        let mut group = vec![(commits, reply)];
        let mut strictest = synchronous;
        while group.len() < GROUP {
            match self.deferred.pop_front().or_else(|| self.requests.try_recv().ok()) {
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
        let transaction = self.transaction.as_mut().expect("it was found to be open");
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
        let transaction = self.transaction.take().expect("it was found to be open");
        match (ending, &mut self.open) {
            (Ending::Rollback, None) => {}
            (Ending::Rollback, Some(open)) => open.rollback(),
            (Ending::Commit { commits, parked, reply }, Some(open)) if transaction.over.is_none() => {
                let done = commit_transaction(open, &commits, &parked);
                if done.is_err() {
                    open.rollback();
                }
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

/// Stores what may be stored of several requests in one transaction. What is refused is refused by itself.
fn commit_all<'a>(
    open: &mut Open,
    synchronous: Synchronous,
    requests: impl Iterator<Item = &'a Vec<StoredCommit>>,
) -> Result<Vec<Vec<Result<(), Failure>>>, Failure> {
    open.with_schema()?.transaction(synchronous, |connection| {
        let commit = |commit: &StoredCommit| match progress::check(connection, commit) {
            Ok(Step::Repeat) => Ok(Ok(())),
            Ok(Step::Next) => progress::store(connection, commit).map(Ok),
            // Refused, or unreadable: nothing was written for it. A database that does not work ends them all.
            Err(failure) if failure.reopen => Err(failure),
            Err(failure) => Ok(Err(failure)),
        };
        requests.map(|commits| commits.iter().map(commit).collect()).collect()
    })
}

/// Checks every fence, stores the progress and what is parked, and commits.
fn commit_transaction(open: &mut Open, commits: &[StoredCommit], parked: &[ParkedRow]) -> Result<(), TransactionError> {
    let path = open.path().to_owned();
    let mut fenced = Vec::new();
    for commit in commits {
        match progress::check(&open.connection, commit) {
            Ok(Step::Next) => progress::store(&open.connection, commit).map_err(|failure| failed(&failure, &path))?,
            Ok(Step::Repeat) => {
                // The effects of the stored commit are there; whether they are these, only its owner can say.
                let why = format!("the commit of {} is stored already", commit.key);
                return Err(TransactionError::OutcomeUnknown(anyhow::Error::msg(why)));
            }
            Err(failure) => fenced.push(fenced_or(failure, &commit.key, &path)?),
        }
    }
    for row in parked {
        match parked::append(&open.connection, row) {
            Ok(()) => {}
            Err(failure) => fenced.push(fenced_or(failure, &row.key, &path)?),
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
    if matches!(failure.trouble, Trouble::Fenced { .. }) {
        let error = failure.into_checkpoint_error(format_args!("cannot commit {key} to"), path);
        return Ok((key.clone(), error));
    }
    Err(failed(&failure, path))
}

fn failed(failure: &Failure, path: &Path) -> TransactionError {
    match failure.trouble {
        Trouble::OutcomeUnknown => TransactionError::OutcomeUnknown(anyhow::Error::msg(failure.why.clone())),
        _ => TransactionError::Failed(failure.to_handler_error(path)),
    }
}
