//! The world that outlives a process: the log, the contents of sinks and stores, and the fate of every event.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use propulsiond::checkpoint::{CheckpointKey, Owner};
use propulsiond::event::Event;
use propulsiond::handler::AnyHandler;
use propulsiond::pipeline::{Ended, ErrorPolicy, Identity, Options, ParkLimits, Parts, Stop, Then, View};
use propulsiond::position::Ordinal;
use propulsiond::runtime::retry::Backoff;
use propulsiond::sink::AnySink;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::feed::{Feed, Log, MAX_BATCH, place, stream_of};
use super::group::{Assignments, Broker};
use super::handler::SimHandler;
use super::plan::{Plan, parking, trials};
use super::store::{Kept, ParkedQueue, SimSink, SimStore};

/// The number of batches that a reader may have in flight.
const CREDITS: u64 = 4;

/// The world of one seed. Clones share it.
#[derive(Clone)]
pub(super) struct World {
    inner: Arc<Mutex<Inner>>,
    /// Wakes the sources and the broker of the group.
    changed: Arc<Notify>,
}

pub(super) struct Inner {
    pub(super) seed: u64,
    pub(super) random: fastrand::Rng,
    /// The random numbers of the trials.
    pub(super) trials: fastrand::Rng,
    /// The random numbers of parked streams.
    pub(super) parking: fastrand::Rng,
    pub(super) plan: Plan,
    pub(super) logs: BTreeMap<String, Log>,
    pub(super) kept: BTreeMap<CheckpointKey, Kept>,
    pub(super) assignments: Assignments,
    pub(super) broker: Broker,
    /// The contents of the sink, in order: the ordinal and the key of each event.
    pub(super) effects: Vec<(String, Ordinal, Item)>,
    /// Handled events: written to the sink, or decided without effects.
    pub(super) settled: BTreeSet<(String, Ordinal)>,
    /// Items that were handled or parked under any of their ordinals.
    pub(super) handled_items: BTreeSet<Item>,
    /// The largest next index of each stream that a handler jumped to.
    pub(super) jumped: BTreeMap<String, i64>,
    pub(super) parked: BTreeMap<(CheckpointKey, String), ParkedQueue>,
    /// Events that the operator discarded, by tranche.
    pub(super) discarded: BTreeSet<(String, Ordinal)>,
    /// The handler knows what to do with poison.
    pub(super) cured: bool,
    /// The version of the handler.
    pub(super) version: u32,
    /// The claim under which each stream was parked.
    pub(super) parked_under: BTreeMap<(CheckpointKey, String), u64>,
    /// Paused processes, once the pause has taken effect.
    pub(super) paused: BTreeSet<String>,
    /// The operator's stop of each process.
    pub(super) stops: BTreeMap<String, CancellationToken>,
    /// The calls of each process's spinning handler in this life.
    pub(super) spins: BTreeMap<String, u32>,
    /// The number of openings of a source without ordinals.
    pub(super) openings: u64,
    /// Events whose write failed once in this life.
    pub(super) refused: BTreeSet<(String, i64)>,
    /// Streams with a running call, by process.
    pub(super) active: BTreeSet<(String, String)>,
    pub(super) calls: usize,
    pub(super) most_calls: usize,
    pub(super) life: u32,
    pub(super) last: bool,
    /// The reason of the last life's halt.
    pub(super) halted: Option<String>,
    /// Violated invariants. They are kept, as a panic would only restart the pipeline.
    pub(super) violations: Vec<String>,
    trace: String,
}

/// The identity of an event in its stream. Unfolds can share an index, so their ordinal belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) stream: String,
    pub(super) index: i64,
    pub(super) unfold: Option<Ordinal>,
}

impl Item {
    pub(super) fn of(event: &Event) -> Self {
        let unfold = event.is_unfold().then(|| place(event));
        Self { stream: stream_of(event), index: event.index(), unfold }
    }
}

impl World {
    pub(super) fn new(seed: u64, blocking: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut plan = Plan::draw(&mut random, seed);
        if blocking {
            plan.block();
        }
        let logs = super::feed::logs(&mut random, &plan);
        let inner = Inner {
            seed,
            random,
            trials: trials(seed),
            parking: parking(seed),
            plan,
            logs,
            kept: BTreeMap::new(),
            assignments: Assignments::default(),
            broker: Broker::default(),
            effects: Vec::new(),
            settled: BTreeSet::new(),
            handled_items: BTreeSet::new(),
            jumped: BTreeMap::new(),
            parked: BTreeMap::new(),
            discarded: BTreeSet::new(),
            cured: false,
            version: 1,
            parked_under: BTreeMap::new(),
            paused: BTreeSet::new(),
            stops: BTreeMap::new(),
            spins: BTreeMap::new(),
            openings: 0,
            refused: BTreeSet::new(),
            active: BTreeSet::new(),
            calls: 0,
            most_calls: 0,
            life: 0,
            last: false,
            halted: None,
            violations: Vec::new(),
            trace: String::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), changed: Arc::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the sources and the broker after a change of the group.
    pub(super) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Waits for a change of the group, or for 50 ms. Callers check their condition again in either case.
    pub(super) async fn changed(&self) {
        // A change just before this call wakes no one, so the wait has a limit.
        drop(tokio::time::timeout(Duration::from_millis(50), self.changed.notified()).await);
    }

    pub(super) fn handler(&self, process: &str) -> AnyHandler {
        let handler = Arc::new(SimHandler { world: self.clone(), process: process.to_owned() });
        match self.lock().plan.feed.blocking {
            true => AnyHandler::Blocking(handler),
            false => AnyHandler::Async(handler),
        }
    }

    /// Returns the version of the handler.
    pub(super) fn version(&self) -> Arc<str> {
        format!("v{}", self.lock().version).into()
    }

    pub(super) fn parts(&self, process: &str) -> Parts {
        let plan = self.lock().plan.clone();
        let store = Arc::new(SimStore { world: self.clone() });
        let sink = Arc::new(SimSink { world: self.clone(), process: process.to_owned() });
        Parts {
            source: Arc::new(Feed::new(self.clone(), process)),
            checkpoints: store,
            handler: Some(self.handler(process)),
            sink: if plan.transactional { AnySink::Transactional(sink) } else { AnySink::Plain(sink) },
            filter: Arc::new(super::feed::filter(plan.filtered)),
            version: self.version(),
        }
    }
}

impl Inner {
    pub(super) fn lives(&self) -> u32 {
        self.plan.lives
    }

    pub(super) fn lifetime(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(1..3_000))
    }

    /// Returns the time at which a second process claims the tranches of the first, if one does.
    pub(super) fn rival_after(&mut self) -> Option<Duration> {
        (self.random.u32(0..4) == 0).then(|| Duration::from_millis(self.random.u64(1..1_000)))
    }

    pub(super) fn identity(&self, process: &str) -> Identity {
        Identity {
            name: "sim".into(),
            group: "sim".into(),
            source: "log".into(),
            owner: Owner(format!("{process}-{}", self.life).into()),
        }
    }

    pub(super) fn options(&mut self) -> Options {
        let short_drain = self.plan.trials.short_drain && !self.last;
        let plan = &self.plan;
        Options {
            order: plan.order,
            require_all: plan.require_all,
            streams_per_call: plan.streams_per_call,
            concurrency: plan.concurrency,
            read_ahead: plan.read_ahead,
            read_ahead_bytes: 1 << 20,
            max_ahead_events: plan.max_ahead,
            max_events: plan.max_events,
            max_bytes: 1 << 20,
            commit_interval: Duration::from_millis(self.random.u64(1..500)),
            purge: None,
            write_positions: plan.write_positions,
            errors: ErrorPolicy {
                backoff: Backoff { initial: Duration::from_millis(10), max: Duration::from_secs(1) },
                attempts: Some(3),
                then: plan.then,
                stuck_after: if plan.trials.stalls { Duration::from_millis(500) } else { Duration::from_secs(60) },
                outage: Default::default(),
                parked: ParkLimits { events: 1_000_000, bytes: 1 << 30 },
            },
            handler_timeout: Duration::from_millis(200),
            threads: 1,
            stop: Stop::Never,
            drain: if short_drain { Duration::from_millis(self.trials.u64(0..300)) } else { Duration::from_secs(30) },
            seed: self.seed,
        }
    }

    pub(super) fn begin_life(&mut self, last: bool) {
        self.life += 1;
        self.last = last;
        self.begin_group();
        if last && self.plan.parking.cures {
            self.cure();
        }
        let line = format!("life {} {:?}", self.life, self.plan);
        self.note(&line);
    }

    /// Replaces the handler by a version that knows what to do with poison.
    pub(super) fn cure(&mut self) {
        self.cured = true;
        self.version += 1;
        self.note("poison is cured");
    }

    /// Forgets the state of the processes, which have ended with their calls.
    pub(super) fn end_life(&mut self) {
        self.stops.clear();
        self.spins.clear();
        self.active.clear();
        self.refused.clear();
        self.paused.clear();
        self.calls = 0;
    }

    pub(super) fn on_ended(&mut self, process: &str, ended: &Ended) {
        self.check_end_of(process, ended);
        let last = self.last;
        let line = format!("ended {ended:?}");
        self.note(&line);
        self.halted = match ended {
            Ended::Halted(why) => Some(why.clone()),
            _ => None,
        };
        match ended {
            Ended::Finished => assert!(last || self.plan.trials.jobs, "only a job ends at the tail"),
            Ended::Halted(why) => {
                let is_broken = self.plan.feed.broken && why.contains("had brought this event or a later one");
                assert!(is_broken || self.plan.then == Then::Halt, "no policy made the pipeline halt: {why}")
            }
            // The readers of the last life do not fail often enough for that.
            Ended::Unavailable(_) => {
                assert!(self.plan.trials.jobs && self.plan.faults && !last, "only an earlier job gives up its source")
            }
            Ended::Stopped => {
                assert!((self.plan.trials.stops || self.plan.feed.spins) && !last, "no operator stopped the process")
            }
            Ended::DeadlinePassed(_) => {
                assert!(self.plan.trials.short_drain && !last, "a long drain passed its deadline")
            }
            Ended::Fenced(_) => assert!(!last, "no other process runs in the last life"),
            other => panic!("a life ended with {other:?}"),
        }
    }

    /// Records a violation unless a condition holds.
    pub(super) fn demand(&mut self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            let violation = violation();
            self.note(&format!("VIOLATION {violation}"));
            self.violations.push(violation);
        }
    }

    pub(super) fn note(&mut self, line: &str) {
        writeln!(self.trace, "{line}").expect("strings take all");
    }

    pub(super) fn trace(&self) -> String {
        self.trace.clone()
    }

    /// Returns whether a fault with a chance of one in `chance` occurs. It is four times rarer in the last life.
    pub(super) fn strikes(&mut self, chance: u32) -> bool {
        // A blocking handler runs in real time, where the back-off of an outage takes long.
        let is_spared = self.last && self.plan.feed.blocking;
        let chance = if self.last { chance * 4 } else { chance };
        self.plan.faults && !is_spared && self.random.u32(0..chance) == 0
    }

    /// Returns the time at which the operator stops a process in this life, if that happens.
    pub(super) fn stopped_after(&mut self) -> Option<Duration> {
        let is_stopped = self.plan.trials.stops && !self.last && self.trials.bool();
        is_stopped.then(|| Duration::from_millis(self.trials.u64(1..1_500)))
    }

    /// Returns whether a part fails with a chance of one in `chance`, so that the pipeline restarts.
    pub(super) fn breaks(&mut self, chance: u32) -> bool {
        self.plan.trials.restarts && !self.last && self.trials.u32(0..chance) == 0
    }

    pub(super) fn check_limits(&mut self, view: &View) {
        for tranche in &view.tranches {
            let ahead = tranche.report.as_ref().map_or(0, |report| report.ahead);
            // The driver grants credits below the limit. Each brings a batch, which may pass it.
            let most = self.plan.max_ahead + CREDITS * MAX_BATCH.min(self.plan.max_ahead);
            self.demand(ahead < most, || format!("{ahead} events are read ahead, the limit is {most}"));
        }
        let (most, limit) = (self.most_calls, 2 * self.plan.concurrency);
        self.demand(most <= limit, || format!("{most} calls at the same time"));
    }
}
