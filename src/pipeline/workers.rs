//! Dedicated threads for handlers that compute and never wait.
//!
//! A thread takes a run of calls at a time: handing over costs a wake-up, and taking results back a turn of the driver, but
//! a call by itself next to nothing. A thread that does not come back from a call is given up: what waits behind that
//! call goes to another thread, and a new thread takes its place (C6).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::driver::Event;
use crate::clock::{Clock, Period, Timestamp};
use crate::handler::{BlockingHandler, BlockingHandlerFactory, Decisions, HandlerError, HandlerErrorKind};
use crate::runtime::supervise::{Group, TaskKind};
use crate::work::Streams;

/// How many calls a thread takes at most at a time.
const RUN: usize = 64;
/// A run that takes no longer than this is not worth sharing.
const BRIEF: Duration = Duration::from_micros(100);
/// How long a thread keeps results to itself before it hands them back, if its run is not done by then.
const PATIENCE: Duration = Duration::from_millis(1);
/// Runs that may wait for each thread: enough that it never idles while the driver is busy.
const QUEUED_RUNS: usize = 2;

/// Calls that a thread has made.
#[derive(Debug, Default)]
pub(super) struct Called {
    pub(super) calls: Vec<Streams>,
    /// What was decided about all their streams, in order.
    pub(super) decisions: Decisions,
    /// When each call ran.
    pub(super) periods: Vec<Period>,
}

impl Called {
    fn with_room_for(calls: usize) -> Self {
        let (calls, decisions, periods) =
            (Vec::with_capacity(calls), Vec::with_capacity(calls), Vec::with_capacity(calls));
        Self { calls, decisions, periods }
    }
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
    calls: VecDeque<Streams>,
    /// Threads that share the calls, and those of them that wait for some.
    threads: usize,
    idle: usize,
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
        lock(&self.shared.queue).threads = self.threads.len();
    }

    /// Returns how many calls may be out at the same time.
    pub(super) fn capacity(&self) -> usize {
        self.threads.len() * RUN * (1 + QUEUED_RUNS)
    }

    /// Hands calls over. They are taken in the order given.
    pub(super) fn hand_over(&mut self, calls: &mut Vec<Streams>) {
        if calls.is_empty() {
            return;
        }
        let mut queue = lock(&self.shared.queue);
        let wake = queue.idle.min(calls.len());
        queue.calls.extend(calls.drain(..));
        drop(queue);
        // Those that are not idle look for calls by themselves before they wait.
        (0..wake).for_each(|_| self.shared.ready.notify_one());
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
            let mut behind = std::mem::take(&mut *lock(&seat.behind));
            if !behind.is_empty() {
                let mut queue = lock(&self.shared.queue);
                behind.append(&mut queue.calls);
                queue.calls = behind;
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
        let mut brief = 1;
        while let Some((run, generation)) = self.next_run(seat, brief) {
            if made.as_ref().is_none_or(|(made_for, _)| *made_for != generation) {
                made = Some((generation, lock(&self.factory).make()));
            }
            let Some((_, handler)) = &mut made else { return };
            let mut called = Called::with_room_for(run);
            let started = self.clock.now();
            let (mut began, mut told) = (started, started);
            loop {
                let Some(mut streams) = lock(&seat.behind).pop_front() else { break };
                seat.since.store(began.as_nanos().max(1), Ordering::Release);
                decide(&mut **handler, &mut streams, &mut called.decisions);
                let ended = self.clock.now();
                seat.since.store(0, Ordering::Release);
                called.calls.push(streams);
                called.periods.push(Period { began, ended });
                began = ended;
                if ended.since(told) > PATIENCE {
                    told = ended;
                    if self.events.blocking_send(Event::Called(std::mem::take(&mut called))).is_err() {
                        return;
                    }
                }
            }
            brief = calls_within(BRIEF, began.since(started), run);
            if self.events.blocking_send(Event::Called(called)).is_err() || seat.given_up.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Waits for calls and puts a run of them behind the seat; returns how many, and for which handler. Half of a fair share,
    /// so that a thread that has drawn the slower calls is helped by the others, unless `brief` calls are more.
    fn next_run(&self, seat: &Seat, brief: usize) -> Option<(usize, u64)> {
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
        let size = waiting.div_ceil(2 * queue.threads.max(1)).max(brief).min(RUN).min(waiting);
        lock(&seat.behind).extend(queue.calls.drain(..size));
        Some((size, queue.generation))
    }
}

/// Returns how many calls fit into `limit` if `calls` took `took`; at least one.
fn calls_within(limit: Duration, took: Duration, calls: usize) -> usize {
    let fit = limit.as_nanos() * calls as u128 / took.as_nanos().max(1);
    usize::try_from(fit).unwrap_or(usize::MAX).max(1)
}

/// Appends one decision, or failure, for each stream.
fn decide(handler: &mut dyn BlockingHandler, streams: &mut Streams, decisions: &mut Decisions) {
    let before = decisions.len();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| handler.handle(streams, decisions)));
    let decided = decisions.len() - before;
    let why = match caught {
        Ok(()) if decided == streams.len() => return,
        Ok(()) => format!("the handler decided about {decided} of {} streams", streams.len()),
        Err(panic) => format!("the handler panicked: {}", crate::runtime::supervise::panic_message(&*panic)),
    };
    // Which of them it was about is not known: none of them is decided (D-10).
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

    /// Is held up by the stream `a-0` until it is released.
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

    /// Takes results back until there are so many, and returns the streams, sorted.
    fn take_back(results: &mut mpsc::Receiver<Event>, calls: usize) -> Vec<String> {
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
    fn c6_what_waits_behind_a_call_that_does_not_come_back_goes_to_another_thread() {
        let ((arrives, arrived), (release, released)) = (channel(), channel());
        let factory = Arc::new(Factory(Mutex::new(arrives), Arc::new(Mutex::new(released))));
        let (clock, group) = (Clock::start(), Group::daemon().pipeline("p"));
        let (events, mut results) = mpsc::channel(16);
        let mut workers = Workers::start(factory, 1, clock, events, &group);
        workers.hand_over(&mut (0..9).map(call).collect());
        arrived.recv().unwrap();
        assert_eq!(workers.replace_stuck(Duration::from_secs(60), clock.now(), &group), 0, "it has its time");
        let later = clock.now() + Duration::from_secs(61);
        assert_eq!(workers.replace_stuck(Duration::from_secs(60), later, &group), 1);
        assert_eq!(take_back(&mut results, 8), (1..9).map(|number| format!("a-{number}")).collect::<Vec<_>>());
        release.send(()).unwrap();
        assert_eq!(take_back(&mut results, 1), ["a-0"], "the call itself counts once it comes back");
        workers.hand_over(&mut vec![call(9)]);
        assert_eq!(take_back(&mut results, 1), ["a-9"]);
    }

    #[test]
    fn quick_calls_are_taken_many_at_a_time_and_slow_ones_one_by_one() {
        let within = |took, calls| calls_within(Duration::from_micros(100), took, calls);
        assert_eq!(within(Duration::from_micros(20), 10), 50);
        assert_eq!(within(Duration::from_millis(5), 10), 1);
        assert_eq!(within(Duration::ZERO, 1), 100_000);
    }
}
