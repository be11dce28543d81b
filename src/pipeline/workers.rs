//! Dedicated threads for handlers that compute and never wait.
//!
//! A thread is fed runs of calls: handing over a run costs a wake-up, a call by itself next to nothing. A thread that does
//! not come back from a call is given up: what waits behind that call goes to another thread, and a new thread takes its
//! place (C6).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::driver::Event;
use crate::clock::{Clock, Period, Timestamp};
use crate::handler::{BlockingHandler, BlockingHandlerFactory, Decisions, HandlerError, HandlerErrorKind};
use crate::supervise::{Group, TaskKind};
use crate::work::Streams;

/// How many calls one hand-over may carry.
const RUN: usize = 64;
/// How long a thread keeps results to itself before it hands them back, if its run is not done by then.
const PATIENCE: Duration = Duration::from_millis(1);
/// Runs that may wait for each thread: enough that it never idles while the driver is busy.
const QUEUED_RUNS: usize = 2;

/// A call that a thread has made.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) streams: Streams,
    pub(super) decisions: Decisions,
    pub(super) period: Period,
}

/// The threads of one pipeline.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<Arc<Seat>>,
    started: usize,
}

struct Shared {
    factory: Mutex<Arc<dyn BlockingHandlerFactory>>,
    queue: Mutex<Queue>,
    ready: Condvar,
    clock: Clock,
    events: mpsc::Sender<Event>,
}

#[derive(Default)]
struct Queue {
    runs: VecDeque<Vec<Streams>>,
    closed: bool,
    /// Grows when the handler is swapped, so that threads know to make theirs anew.
    generation: u64,
}

/// What the driver sees of a thread.
#[derive(Default)]
struct Seat {
    /// When the call that runs was begun, in nanoseconds; 0 if none runs.
    since: AtomicU64,
    /// The calls of its run that it has not begun.
    behind: Mutex<VecDeque<Streams>>,
    /// It was given up and ends once it comes back.
    given_up: std::sync::atomic::AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers {
    pub(super) fn start(
        factory: Arc<dyn BlockingHandlerFactory>,
        threads: usize,
        clock: Clock,
        events: mpsc::Sender<Event>,
        group: &Group,
    ) -> Self {
        let shared =
            Shared { factory: Mutex::new(factory), queue: Mutex::default(), ready: Condvar::new(), clock, events };
        let mut workers = Self { shared: Arc::new(shared), threads: Vec::new(), started: 0 };
        for _ in 0..threads {
            workers.add(group);
        }
        workers
    }

    fn add(&mut self, group: &Group) {
        let seat = Arc::new(Seat::default());
        let (shared, mine) = (Arc::clone(&self.shared), Arc::clone(&seat));
        self.started += 1;
        let started = group.spawn_thread(TaskKind::Worker, format!("handler-{}", self.started), move || {
            shared.work(&mine);
            Ok(())
        });
        if let Err(error) = started {
            // Those that are there go on; without any, what is handed over waits and is seen to be stuck.
            tracing::error!(%error, "no thread could be started for a handler");
            return;
        }
        self.threads.push(seat);
    }

    /// Returns how many calls may be out at the same time.
    pub(super) fn capacity(&self) -> usize {
        self.threads.len() * RUN * (1 + QUEUED_RUNS)
    }

    /// Hands calls over, split evenly over the threads. They are taken in the order given.
    pub(super) fn hand_over(&mut self, calls: &mut Vec<Streams>) {
        if calls.is_empty() {
            return;
        }
        // Two runs for each thread: one that has drawn the slower calls is helped by the others.
        let size = calls.len().div_ceil(2 * self.threads.len()).clamp(1, RUN);
        let mut queue = lock(&self.shared.queue);
        while !calls.is_empty() {
            let rest = calls.split_off(size.min(calls.len()));
            queue.runs.push_back(std::mem::replace(calls, rest));
            self.shared.ready.notify_one();
        }
    }

    /// Uses another handler from the next call on; calls under way end with the one they began with.
    pub(super) fn swap(&self, factory: Arc<dyn BlockingHandlerFactory>) {
        *lock(&self.shared.factory) = factory;
        lock(&self.shared.queue).generation += 1;
    }

    /// Gives up threads that have been in one call for longer than `limit`, and puts others in their place. Returns how many.
    pub(super) fn replace_stuck(&mut self, limit: Duration, now: Timestamp, group: &Group) -> usize {
        let stuck = |seat: &Arc<Seat>| match seat.since.load(Ordering::Acquire) {
            0 => false,
            since => now.since(Timestamp::from_nanos(since)) > limit,
        };
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.threads).into_iter().partition(stuck);
        self.threads = kept;
        for seat in &gone {
            seat.given_up.store(true, Ordering::Release);
            let behind: Vec<_> = lock(&seat.behind).drain(..).collect();
            if !behind.is_empty() {
                lock(&self.shared.queue).runs.push_front(behind);
                self.shared.ready.notify_one();
            }
            self.add(group);
        }
        gone.len()
    }

    /// Lets the threads end once they have made the calls they were given.
    pub(super) fn close(&self) {
        lock(&self.shared.queue).closed = true;
        self.shared.ready.notify_all();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn work(&self, seat: &Seat) {
        let mut made: Option<(u64, Box<dyn BlockingHandler>)> = None;
        while let Some((run, generation)) = self.next_run() {
            if made.as_ref().is_none_or(|(made_for, _)| *made_for != generation) {
                made = Some((generation, lock(&self.factory).make()));
            }
            let Some((_, handler)) = &mut made else { return };
            *lock(&seat.behind) = run.into();
            let mut called = Vec::with_capacity(lock(&seat.behind).len());
            let mut began = self.clock.now();
            let mut told = began;
            loop {
                let Some(streams) = lock(&seat.behind).pop_front() else { break };
                seat.since.store(began.as_nanos().max(1), Ordering::Release);
                let decisions = decide(&mut **handler, &streams);
                let ended = self.clock.now();
                seat.since.store(0, Ordering::Release);
                called.push(Called { streams, decisions, period: Period { began, ended } });
                began = ended;
                if ended.since(told) > PATIENCE {
                    told = ended;
                    if self.events.blocking_send(Event::Called(std::mem::take(&mut called))).is_err() {
                        return;
                    }
                }
            }
            if self.events.blocking_send(Event::Called(called)).is_err() || seat.given_up.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn next_run(&self) -> Option<(Vec<Streams>, u64)> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(run) = queue.runs.pop_front() {
                return Some((run, queue.generation));
            }
            if queue.closed {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn decide(handler: &mut dyn BlockingHandler, streams: &Streams) -> Decisions {
    let mut decisions = Vec::with_capacity(streams.len());
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| handler.handle(streams, &mut decisions)));
    let why = match caught {
        Ok(()) if decisions.len() == streams.len() => return decisions,
        Ok(()) => format!("the handler decided about {} of {} streams", decisions.len(), streams.len()),
        Err(panic) => format!("the handler panicked: {}", crate::supervise::panic_message(&*panic)),
    };
    // Which of them it was about is not known: none of them is decided (D-10).
    decisions.clear();
    decisions.extend(streams.iter().map(|_| Err(HandlerError::new(HandlerErrorKind::Permanent, why.as_str()))));
    decisions
}
