//! Dedicated threads for handlers that compute and never wait.
//!
//! A thread takes a run of calls at a time. A hand-over costs a wake-up, and taking results costs a turn of the driver; a call
//! by itself costs next to nothing. A thread that is stuck in a call is replaced (C6): the calls of its run that have not
//! begun go to another thread, and the results that it has made are taken from it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::messages::{Called, Event};
use crate::clock::{Clock, Period, Timestamp};
use crate::handler::{BlockingHandler, BlockingHandlerFactory, Decisions, HandlerError, HandlerErrorKind};
use crate::runtime::supervise::{Group, TaskKind};
use crate::work::Streams;

/// The largest number of calls in a run.
const RUN: usize = 64;
/// A run that takes no longer is not shared with other threads.
const MIN_SHARED_RUN_TIME: Duration = Duration::from_micros(100);
/// The longest time that a thread keeps the results of an unfinished run.
const RESULT_HOLD_TIME: Duration = Duration::from_millis(1);
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
    calls: VecDeque<Streams>,
    /// Threads, and those of them that wait for calls.
    threads: usize,
    idle: usize,
    closed: bool,
    /// Grows with each swap of the handler, so that threads make theirs anew.
    generation: u64,
}

/// The part of a thread that the driver can reach.
#[derive(Default)]
struct Seat {
    /// The begin of the running call, in nanoseconds; 0 if none runs.
    since: AtomicU64,
    /// The calls of its run that have not begun.
    waiting: Mutex<VecDeque<Streams>>,
    /// The finished calls of its run.
    finished: Mutex<Called>,
    /// The thread was replaced, and ends when its call returns.
    replaced: AtomicBool,
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
            // The other threads go on. Without any, the calls wait and count as stuck.
            tracing::error!(%error, "handler thread not started");
            return;
        }
        self.threads.push(seat);
        lock(&self.shared.queue).threads = self.threads.len();
    }

    /// Hands calls over, in order.
    pub(super) fn hand_over(&mut self, calls: &mut Vec<Streams>) {
        if calls.is_empty() {
            return;
        }
        let mut queue = lock(&self.shared.queue);
        let wake = queue.idle.min(calls.len());
        queue.calls.extend(calls.drain(..));
        drop(queue);
        // A thread that is not idle looks for calls by itself before it waits.
        (0..wake).for_each(|_| self.shared.ready.notify_one());
    }

    /// Takes back the calls that no thread has begun.
    pub(super) fn take_back(&mut self) -> Vec<Streams> {
        let mut calls: Vec<_> = lock(&self.shared.queue).calls.drain(..).collect();
        for seat in &self.threads {
            calls.extend(lock(&seat.waiting).drain(..));
        }
        calls
    }

    /// Takes the results of threads whose running call has lasted too long for them to keep any.
    pub(super) fn take_held_results(&self, now: Timestamp) -> Vec<Called> {
        let held = self.threads.iter().filter(|seat| seat.has_run_for(RESULT_HOLD_TIME, now));
        held.map(|seat| std::mem::take(&mut *lock(&seat.finished))).filter(|called| !called.calls.is_empty()).collect()
    }

    /// Uses another handler from the next call on. Running calls end with the old one.
    pub(super) fn swap(&self, factory: Arc<dyn BlockingHandlerFactory>) {
        *lock(&self.shared.factory) = factory;
        lock(&self.shared.queue).generation += 1;
    }

    /// Replaces threads that have been in one call for longer than `limit`. Returns their number, and the results that they
    /// held.
    pub(super) fn replace_stuck(&mut self, limit: Duration, now: Timestamp, group: &Group) -> (usize, Vec<Called>) {
        let stuck = |seat: &Arc<Seat>| seat.has_run_for(limit, now);
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.threads).into_iter().partition(stuck);
        self.threads = kept;
        let mut results = Vec::new();
        for seat in &gone {
            seat.replaced.store(true, Ordering::Release);
            results.push(std::mem::take(&mut *lock(&seat.finished)));
            let mut waiting = std::mem::take(&mut *lock(&seat.waiting));
            if !waiting.is_empty() {
                let mut queue = lock(&self.shared.queue);
                waiting.append(&mut queue.calls);
                queue.calls = waiting;
                self.shared.ready.notify_one();
            }
            self.add(group);
        }
        results.retain(|called| !called.calls.is_empty());
        (gone.len(), results)
    }

    /// Lets the threads end once their queue is empty.
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

impl Seat {
    fn has_run_for(&self, limit: Duration, now: Timestamp) -> bool {
        match self.since.load(Ordering::Acquire) {
            0 => false,
            since => now.since(Timestamp::from_nanos(since)) > limit,
        }
    }
}

impl Shared {
    fn work(&self, seat: &Seat) {
        let mut made: Option<(u64, Box<dyn BlockingHandler>)> = None;
        let mut min_run = 1;
        while let Some((run, generation)) = self.next_run(seat, min_run) {
            if made.as_ref().is_none_or(|(made_for, _)| *made_for != generation) {
                made = Some((generation, lock(&self.factory).make()));
            }
            let Some((_, handler)) = &mut made else { return };
            let started = self.clock.now();
            let Some(ended) = self.run(seat, &mut **handler, started) else { return };
            min_run = calls_within(MIN_SHARED_RUN_TIME, ended.since(started), run);
            if !self.send_finished(seat) || seat.replaced.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Makes the calls of a run. Returns the time of its end, or `None` if no one wants the results.
    fn run(&self, seat: &Seat, handler: &mut dyn BlockingHandler, started: Timestamp) -> Option<Timestamp> {
        let (mut began, mut sent) = (started, started);
        loop {
            let Some(mut streams) = lock(&seat.waiting).pop_front() else { return Some(began) };
            seat.since.store(began.as_nanos().max(1), Ordering::Release);
            let mut decisions = Decisions::with_capacity(streams.len());
            decide(handler, &mut streams, &mut decisions);
            let ended = self.clock.now();
            seat.since.store(0, Ordering::Release);
            let mut finished = lock(&seat.finished);
            finished.calls.push(streams);
            finished.decisions.append(&mut decisions);
            finished.periods.push(Period { began, ended });
            // The lock is free before the send, which may wait for the driver: the driver takes it, too.
            drop(finished);
            began = ended;
            if ended.since(sent) > RESULT_HOLD_TIME {
                sent = ended;
                if !self.send_finished(seat) {
                    return None;
                }
            }
        }
    }

    /// Sends the results of the run so far. Returns whether the driver still listens.
    fn send_finished(&self, seat: &Seat) -> bool {
        let called = std::mem::take(&mut *lock(&seat.finished));
        called.calls.is_empty() || self.events.blocking_send(Event::Called(called)).is_ok()
    }

    /// Waits for calls, and takes a run of them. Returns its length and the generation of the handler. Half of a fair share
    /// leaves work for threads whose calls are quicker, unless `min_run` calls are more.
    fn next_run(&self, seat: &Seat, min_run: usize) -> Option<(usize, u64)> {
        let mut queue = lock(&self.queue);
        while queue.calls.is_empty() {
            if queue.closed {
                return None;
            }
            queue.idle += 1;
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
        let waiting = queue.calls.len();
        let size = waiting.div_ceil(2 * queue.threads.max(1)).max(min_run).min(RUN).min(waiting);
        lock(&seat.waiting).extend(queue.calls.drain(..size));
        Some((size, queue.generation))
    }
}

/// Returns the number of calls that fit into `limit` if `calls` took `took`; at least one.
fn calls_within(limit: Duration, took: Duration, calls: usize) -> usize {
    let fit = limit.as_nanos() * calls as u128 / took.as_nanos().max(1);
    usize::try_from(fit).unwrap_or(usize::MAX).max(1)
}

/// Appends one decision, or error, for each stream.
fn decide(handler: &mut dyn BlockingHandler, streams: &mut Streams, decisions: &mut Decisions) {
    let before = decisions.len();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| handler.handle(streams, decisions)));
    let decided = decisions.len() - before;
    let why = match caught {
        Ok(()) if decided == streams.len() => return,
        Ok(()) => format!("the handler decided about {decided} of {} streams", streams.len()),
        Err(panic) => format!("the handler panicked: {}", crate::runtime::supervise::panic_message(&*panic)),
    };
    // The decisions cannot be matched with the streams, so that none of them counts (D-10).
    decisions.truncate(before);
    decisions.extend(streams.iter().map(|_| Err(HandlerError::new(HandlerErrorKind::Permanent, why.as_str()))));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::event::{Assembler, Kind};
    use crate::handler::Decision;
    use crate::position::Ordinal;
    use crate::work::{Work, WorkId, WorkKind};

    /// A handler that hangs in stream `a-0` until it is released.
    struct HeldUp {
        arrived: Sender<()>,
        released: Arc<Mutex<Receiver<()>>>,
    }

    impl BlockingHandler for HeldUp {
        fn handle(&mut self, streams: &mut [Work], decisions: &mut Decisions) {
            if streams[0].stream() == "a-0" {
                self.arrived.send(()).unwrap();
                lock(&self.released).recv().unwrap();
            }
            decisions.extend(streams.iter().map(|_| Ok(Decision::handled())));
        }
    }

    struct Factory(Mutex<Sender<()>>, Arc<Mutex<Receiver<()>>>);

    impl BlockingHandlerFactory for Factory {
        fn make(&self) -> Box<dyn BlockingHandler> {
            Box::new(HeldUp { arrived: lock(&self.0).clone(), released: Arc::clone(&self.1) })
        }
    }

    fn call(number: usize) -> Streams {
        let event = Assembler::new(&format!("a-{number}"), "T").build(Kind::Event, Ordinal::default(), 0).unwrap();
        let (id, kind, read_at) = (WorkId { slot: 0, generation: 0 }, WorkKind::Handle, Timestamp::ZERO);
        Streams::from_iter([Work {
            id,
            kind,
            events: vec![event],
            next: 1,
            failures: 0,
            read_at,
            late: false,
            trace: None,
        }])
    }

    /// Receives that many results, and returns their streams, sorted.
    fn receive(results: &mut mpsc::Receiver<Event>, calls: usize) -> Vec<String> {
        let mut streams = Vec::new();
        while streams.len() < calls {
            let Some(Event::Called(called)) = results.blocking_recv() else { panic!("there are results") };
            assert_eq!((called.calls.len(), called.periods.len()), (called.decisions.len(), called.decisions.len()));
            streams.extend(called.calls.iter().map(|streams| streams[0].stream().to_owned()));
        }
        streams.sort();
        streams
    }

    #[test]
    fn c6_calls_behind_a_stuck_call_go_to_another_thread() {
        let ((arrives, arrived), (release, released)) = (channel(), channel());
        let factory = Arc::new(Factory(Mutex::new(arrives), Arc::new(Mutex::new(released))));
        let (clock, group) = (Clock::start(), Group::daemon().pipeline("p"));
        let (events, mut results) = mpsc::channel(16);
        let mut workers = Workers::start(factory, 1, clock, events, &group);
        workers.hand_over(&mut (0..9).map(call).collect());
        arrived.recv().unwrap();
        assert_eq!(workers.replace_stuck(Duration::from_secs(60), clock.now(), &group).0, 0, "its time is not up");
        let later = clock.now() + Duration::from_secs(61);
        assert_eq!(workers.replace_stuck(Duration::from_secs(60), later, &group).0, 1);
        assert_eq!(receive(&mut results, 8), (1..9).map(|number| format!("a-{number}")).collect::<Vec<_>>());
        release.send(()).unwrap();
        assert_eq!(receive(&mut results, 1), ["a-0"], "the stuck call counts when it returns");
        workers.hand_over(&mut vec![call(9)]);
        assert_eq!(receive(&mut results, 1), ["a-9"]);
    }

    #[test]
    fn a_thread_takes_quick_calls_in_long_runs_and_slow_calls_singly() {
        let within = |took, calls| calls_within(Duration::from_micros(100), took, calls);
        assert_eq!(within(Duration::from_micros(20), 10), 50);
        assert_eq!(within(Duration::from_millis(5), 10), 1);
        assert_eq!(within(Duration::ZERO, 1), 100_000);
    }

    #[test]
    fn s12_results_made_before_a_stuck_call_do_not_wait_for_it() {
        let ((arrives, arrived), (release, released)) = (channel(), channel());
        let factory = Arc::new(Factory(Mutex::new(arrives), Arc::new(Mutex::new(released))));
        let (clock, group) = (Clock::start(), Group::daemon().pipeline("p"));
        let (events, _results) = mpsc::channel(16);
        let mut workers = Workers::start(factory, 1, clock, events, &group);
        // Half of the queue is one run: the quick call and the stuck one behind it.
        workers.hand_over(&mut [1, 0, 2, 3].into_iter().map(call).collect());
        arrived.recv().unwrap();
        let later = clock.now() + Duration::from_secs(1);
        let held = workers.take_held_results(later);
        let streams: Vec<_> = held.iter().flat_map(|called| &called.calls).map(|call| call[0].stream()).collect();
        assert_eq!(streams, ["a-1"]);
        let taken: Vec<_> = workers.take_back().iter().map(|call| call[0].stream().to_owned()).collect();
        assert_eq!(taken, ["a-2", "a-3"], "calls that have not begun are taken back");
        release.send(()).unwrap();
    }
}
