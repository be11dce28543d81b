//! Blocking work on files and pipes, on threads of its own.
//!
//! The runtime starts a thread for each piece of blocking work that finds no idle one, and keeps it for ten seconds. Two
//! hundred sources that look at their files twice a second would thus keep hundreds of threads, each with memory of its
//! own. Short work on files therefore shares a few [`LANES`].

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::sync::oneshot::{self, Receiver};
use tokio::task::JoinError;

/// The least number of lanes. Most work only looks at a file and takes microseconds, so that a few threads serve hundreds
/// of files.
const MIN_LANES: usize = 4;

/// The wait after which a caller adds a lane. A file system that hangs may keep all lanes, and must not stop the work of
/// other pipelines.
const MAX_WAIT: Duration = Duration::from_secs(1);

static LANES: LazyLock<Lanes> = LazyLock::new(|| {
    // Busy readers mostly parse, which takes a core.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Lanes { most: cores.max(MIN_LANES), state: Lock::default() }
});

/// Threads that work off a queue. A lane ends with the queue.
struct Lanes {
    most: usize,
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    running: usize,
}

type Job = Box<dyn FnOnce() + Send>;

impl Lanes {
    fn start(&'static self, job: Job) {
        let mut state = self.state();
        if state.running >= self.most {
            state.queue.push_back(job);
        } else {
            self.add(state, job);
        }
    }

    /// Starts a lane for the oldest work that waits, whatever the number of lanes.
    fn relieve(&'static self) {
        let mut state = self.state();
        if let Some(job) = state.queue.pop_front() {
            self.add(state, job);
        }
    }

    fn add(&'static self, mut state: MutexGuard<'_, State>, first: Job) {
        state.running += 1;
        drop(state);
        let mut place = Place { lanes: self, is_free: false };
        drop(tokio::task::spawn_blocking(move || {
            let mut next = Some(first);
            while let Some(job) = next {
                // Work that panics drops its sender, which tells its caller. The lane goes on.
                let _panic = catch_unwind(AssertUnwindSafe(job));
                next = place.next();
            }
        }));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a running lane.
struct Place {
    lanes: &'static Lanes,
    is_free: bool,
}

impl Place {
    /// Returns the next work, or frees the place. Both happen under one lock, so that no work waits for a lane that ends.
    fn next(&mut self) -> Option<Job> {
        let mut state = self.lanes.state();
        let next = state.queue.pop_front();
        if next.is_none() {
            state.running -= 1;
            self.is_free = true;
        }
        next
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A runtime that shuts down drops a lane that has not begun.
        if !self.is_free {
            self.lanes.state().running -= 1;
        }
    }
}

/// Work that was started. It runs to its end even if this is dropped.
#[derive(Debug)]
pub(crate) struct Started<R>(Receiver<R>);

/// The error of work that panicked, or whose runtime shut down.
#[derive(Debug, thiserror::Error)]
#[error("its thread panicked, or the daemon ends")]
pub(crate) struct Lost;

/// Starts short `work` on a lane.
pub(crate) fn start<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Started<R> {
    let (reply, result) = oneshot::channel();
    // A caller that was cancelled has dropped the receiver.
    LANES.start(Box::new(move || drop(reply.send(work()))));
    Started(result)
}

impl<R> Started<R> {
    pub(crate) fn is_finished(&self) -> bool {
        !self.0.is_empty()
    }

    /// Waits for the result, which is returned once.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub(crate) async fn result(&mut self) -> Result<R, Lost> {
        loop {
            match tokio::time::timeout(MAX_WAIT, &mut self.0).await {
                Ok(result) => return result.map_err(|_| Lost),
                Err(_) => LANES.relieve(),
            }
        }
    }
}

/// Runs `work` on a blocking thread, with exclusive access to `shared`, in the caller's span.
///
/// Fails if `work` panics or the runtime shuts down.
///
/// # Cancel safety
/// If the future is dropped before `work` begins, `work` never begins. Otherwise `work` runs to its end, and the next
/// caller waits for it. An abandoned attempt therefore never overlaps with its retry, and never follows it.
pub(crate) async fn with<T, R>(
    shared: &Arc<Mutex<T>>,
    work: impl FnOnce(&mut T) -> R + Send + 'static,
) -> Result<R, JoinError>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let mut owned = Arc::clone(shared).lock_owned().await;
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(|| work(&mut owned))).await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_while_other_work_hangs_in_every_lane() {
        let (gates, mut hanging): (Vec<_>, Vec<_>) = (0..LANES.most)
            .map(|_| {
                let (gate, closed) = channel::<()>();
                (gate, start(move || closed.recv().is_err()))
            })
            .unzip();
        let mut others: Vec<_> = (0..100).map(|number| start(move || number)).collect();
        for (number, other) in others.iter_mut().enumerate() {
            assert_eq!(other.result().await.unwrap(), number);
        }
        assert!(hanging.iter().all(|hung| !hung.is_finished()));
        drop(gates);
        for hung in &mut hanging {
            assert!(hung.result().await.unwrap());
        }
    }

    #[tokio::test]
    async fn work_that_panics_is_lost_and_its_lane_goes_on() {
        let mut lost: Vec<_> = (0..LANES.most * 2).map(|_| start(|| panic!("on purpose"))).collect();
        for lost in &mut lost {
            let result: Result<(), Lost> = lost.result().await;
            assert!(result.is_err());
        }
        assert_eq!(start(|| 7).result().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn abandoned_work_ends_before_the_next_begins() {
        let shared = Arc::new(Mutex::new(Vec::new()));
        let (go, wait) = channel::<()>();
        let mut held = Box::pin(with(&shared, move |done: &mut Vec<i32>| {
            wait.recv().unwrap();
            done.push(1);
        }));
        assert!(futures_util::poll!(&mut held).is_pending());
        drop(held);
        let mut queued = Box::pin(with(&shared, |done: &mut Vec<i32>| done.push(2)));
        assert!(futures_util::poll!(&mut queued).is_pending());
        drop(queued);
        go.send(()).unwrap();
        let done = with(&shared, |done| {
            done.push(3);
            done.clone()
        });
        assert_eq!(done.await.unwrap(), [1, 3]);
    }

    #[tokio::test]
    async fn work_after_a_panic_runs() {
        let shared = Arc::new(Mutex::new(0));
        assert!(with(&shared, |_| panic!("on purpose")).await.is_err());
        assert_eq!(with(&shared, |number| *number).await.unwrap(), 0);
    }
}
