//! A group of tasks that start, fail and stop together.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, error, error_span};

use super::{OnError, OnStop, TaskKind};

/// The first failed task of a group, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{task}` {reason}")]
pub struct Failure {
    pub task: Arc<str>,
    /// The predicate of a sentence: `ended early`, `panicked: …`, `failed: …`.
    pub reason: Arc<str>,
}

/// The tasks that still ran at the deadline of a stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("still running at the deadline: {}", .names.join(", "))]
pub struct StillRunning {
    /// Their names, in the order of their start.
    pub names: Vec<String>,
}

/// A handle on a group of tasks. Clones share the group, and dropping them stops nothing.
#[derive(Clone)]
pub struct Group {
    shared: Arc<Shared>,
}

struct Shared {
    parent: Option<Group>,
    span: Span,
    stop: CancellationToken,
    failure: watch::Sender<Option<Failure>>,
    running: watch::Sender<usize>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    started: u64,
    running: HashMap<u64, Running>,
}

struct Running {
    name: Arc<str>,
    /// `None` for a thread, and for a task during its spawn.
    abort: Option<AbortHandle>,
}

/// The stack size of a thread. Deeply nested scripts need it, and unused pages cost no memory.
const STACK_BYTES: usize = 16 << 20;

impl Group {
    /// Creates the daemon's group.
    pub fn daemon() -> Self {
        Self::make(None, Span::none(), CancellationToken::new())
    }

    /// Creates the group of one run of a pipeline. It stops with this group, and escalates a failure that stops the
    /// daemon. Log lines of its tasks carry the pipeline's name. Each restart creates a new group after the old one is
    /// joined (R37). Joining the daemon's group waits for the keeper that joins this group, not for this group itself.
    pub fn pipeline(&self, name: &str) -> Self {
        Self::make(Some(self.clone()), pipeline_span(name), self.shared.stop.child_token())
    }

    fn make(parent: Option<Self>, span: Span, stop: CancellationToken) -> Self {
        let shared = Shared {
            parent,
            span,
            stop,
            failure: watch::Sender::new(None),
            running: watch::Sender::new(0),
            tasks: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the token that a stop of the group cancels. Draining tasks watch it.
    pub fn token(&self) -> &CancellationToken {
        &self.shared.stop
    }

    /// Stops the group: aborts the tasks of [`OnStop::Abort`], and lets the others drain. Returns at once.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Spawns a future as a task of the group.
    pub fn spawn<F>(&self, kind: TaskKind, name: impl Into<Arc<str>>, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let entry = self.enter(name.into());
        let (group, id, stop) = (self.clone(), entry.id, self.shared.stop.clone());
        let guarded = async move {
            let run = AssertUnwindSafe(future).catch_unwind();
            let ended = match kind.on_stop() {
                OnStop::Drain => run.await,
                OnStop::Abort => tokio::select! {
                    biased;
                    ended = run => ended,
                    () = stop.cancelled() => Ok(Ok(())),
                },
            };
            entry.group.ended(kind, &entry.name, ended);
            // The entry lives up to here: a task counts as running until its failure is recorded.
            drop(entry);
        };
        #[expect(clippy::disallowed_methods, reason = "the rest of the crate spawns through this module")]
        let task = tokio::spawn(guarded.instrument(self.shared.span.clone()));
        if let Some(running) = group.tasks().running.get_mut(&id) {
            running.abort = Some(task.abort_handle());
        }
    }

    /// Spawns a closure on a thread of its own. A thread cannot be aborted: whatever its kind, it must watch the token
    /// or the end of its queue.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn spawn_thread<F>(&self, kind: TaskKind, name: impl Into<Arc<str>>, work: F) -> io::Result<()>
    where
        F: FnOnce() -> anyhow::Result<()> + Send + 'static,
    {
        let entry = self.enter(name.into());
        let span = self.shared.span.clone();
        std::thread::Builder::new().name(entry.name.to_string()).stack_size(STACK_BYTES).spawn(move || {
            let _entered = span.enter();
            let ended = catch_unwind(AssertUnwindSafe(work));
            entry.group.ended(kind, &entry.name, ended);
            drop(entry);
        })?;
        Ok(())
    }

    /// Waits for the first failure.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: each call returns the same failure.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(seen) => seen.clone().expect("it was waited for"),
            Err(_) => unreachable!("the group, which this borrows, keeps the sender"),
        }
    }

    /// Returns the first failure, if there is one.
    pub fn failure(&self) -> Option<Failure> {
        self.shared.failure.borrow().clone()
    }

    /// Stops the group, waits for its tasks, and aborts at the deadline those that still run. A task must not join its
    /// own group.
    ///
    /// # Errors
    /// The deadline passed. The named threads continue to run, because a thread cannot be aborted.
    pub async fn join(&self, within: Duration) -> Result<(), StillRunning> {
        self.stop();
        let mut running = self.shared.running.subscribe();
        let all_ended = running.wait_for(|count| *count == 0);
        if tokio::time::timeout(within, all_ended).await.is_ok() {
            return Ok(());
        }
        let names = self.abort_all();
        if names.is_empty() { Ok(()) } else { Err(StillRunning { names }) }
    }

    /// Returns the names of the running tasks, in the order of their start.
    pub fn running(&self) -> Vec<String> {
        let tasks = self.tasks();
        let mut named: Vec<_> = tasks.running.iter().map(|(id, task)| (*id, task.name.to_string())).collect();
        drop(tasks);
        named.sort_unstable();
        named.into_iter().map(|(_, name)| name).collect()
    }

    fn abort_all(&self) -> Vec<String> {
        let names = self.running();
        // An abort can drop a future at once, and with it its entry, which takes this lock.
        let handles: Vec<_> = self.tasks().running.values().filter_map(|task| task.abort.clone()).collect();
        handles.iter().for_each(AbortHandle::abort);
        names
    }

    fn enter(&self, name: Arc<str>) -> Entry {
        let mut tasks = self.tasks();
        tasks.started += 1;
        let id = tasks.started;
        tasks.running.insert(id, Running { name: Arc::clone(&name), abort: None });
        self.shared.running.send_replace(tasks.running.len());
        drop(tasks);
        Entry { group: self.clone(), id, name }
    }

    fn leave(&self, id: u64) {
        let mut tasks = self.tasks();
        tasks.running.remove(&id);
        self.shared.running.send_replace(tasks.running.len());
    }

    fn ended(&self, kind: TaskKind, name: &Arc<str>, ended: std::thread::Result<anyhow::Result<()>>) {
        let reason = match ended {
            Ok(Ok(())) if kind.may_finish() || self.shared.stop.is_cancelled() => return,
            Ok(Ok(())) => "ended early".to_owned(),
            Ok(Err(error)) => format!("failed: {error:#}"),
            Err(panic) => format!("panicked: {}", panic_message(&*panic)),
        };
        let failure = Failure { task: Arc::clone(name), reason: reason.into() };
        match kind.on_error() {
            OnError::Log => error!(task = %failure.task, reason = %failure.reason, "a task failed"),
            OnError::StopPipeline => self.fail(failure),
            OnError::StopDaemon => self.root().fail(failure),
        }
    }

    fn root(&self) -> &Self {
        self.shared.parent.as_ref().map_or(self, Self::root)
    }

    fn fail(&self, failure: Failure) {
        self.shared.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(failure);
            is_first
        });
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("running", &self.running()).field("failure", &self.failure()).finish()
    }
}

/// Returns the span of all log lines about a pipeline. Work on threads and tasks outside the group carries it along.
pub fn pipeline_span(name: &str) -> Span {
    // A span at this level is never filtered out, so that every line has the name.
    error_span!(parent: None, "pipeline", pipeline = %name)
}

/// A task's entry in its group. The drop removes it, however the task ends.
struct Entry {
    group: Group,
    id: u64,
    name: Arc<str>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.group.leave(self.id);
    }
}

/// Returns the message of a panic.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
