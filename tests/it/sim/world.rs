//! The world that outlives a process: the log, the contents of sinks and stores, and the fate of every event.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use propulsiond::checkpoint::{CheckpointKey, Owner};
use propulsiond::event::{Event, Indexes, Kind};
use propulsiond::handler::AnyHandler;
use propulsiond::pipeline::{Ended, ErrorPolicy, Identity, Options, Parts, Stop, Then, View};
use propulsiond::position::{Ordinal, Progress};
use propulsiond::runtime::retry::Backoff;
use propulsiond::scheduler::Order;
use propulsiond::sink::AnySink;
use propulsiond::work::Work;

use super::feed::{Feed, Log, is_poison, is_spoiling};
use super::handler::SimHandler;
use super::store::{Kept, SimSink, SimStore};

/// The limit of reading ahead of the position.
const MAX_AHEAD: u64 = 500;

/// One seed's world, shared by everything that runs in it.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<Inner>>);

pub(super) struct Inner {
    pub(super) seed: u64,
    pub(super) random: fastrand::Rng,
    pub(super) plan: Plan,
    pub(super) logs: BTreeMap<String, Log>,
    pub(super) kept: BTreeMap<CheckpointKey, Kept>,
    /// The contents of the sink, in order: the ordinal and the key of each event.
    pub(super) effects: Vec<(String, Ordinal, Item)>,
    /// Events of which a decision without effects was made, was skipped or jumped.
    pub(super) settled: BTreeSet<(String, Ordinal)>,
    /// Items (stream, index) that some ordinal of theirs was settled or written for.
    pub(super) handled_items: BTreeSet<Item>,
    /// Next index of interest that handlers jumped to.
    pub(super) jumped: BTreeMap<String, i64>,
    pub(super) parked: BTreeMap<(CheckpointKey, String), Vec<Event>>,
    /// From which ordinal on (C21).
    pub(super) parked_from: BTreeMap<(CheckpointKey, String), Ordinal>,
    /// Processes that are told to pause, and know it.
    pub(super) paused: BTreeSet<String>,
    /// Events whose write failed once in this life.
    pub(super) refused: BTreeSet<(String, i64)>,
    /// Streams of which a call runs, by process.
    pub(super) active: BTreeSet<(String, String)>,
    pub(super) calls: usize,
    pub(super) most_calls: usize,
    pub(super) life: u32,
    pub(super) last: bool,
    /// The last life ended as its policy said it should.
    halted: bool,
    /// Broken invariants. A panic would only make the pipeline restart.
    pub(super) violations: Vec<String>,
    trace: String,
}

/// An event as its stream knows it; unfolds are told apart by their ordinal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) stream: String,
    pub(super) index: i64,
    pub(super) unfold: Option<Ordinal>,
}

impl Item {
    pub(super) fn of(event: &Event) -> Self {
        Self { stream: event.stream().to_owned(), index: event.index(), unfold: event.is_unfold().then(|| event.at()) }
    }
}

/// The seed's decisions about the pipeline.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) order: Order,
    pub(super) indexes: Indexes,
    pub(super) transactional: bool,
    pub(super) write_positions: bool,
    pub(super) then: Then,
    pub(super) concurrency: usize,
    pub(super) streams_per_call: usize,
    pub(super) read_ahead: usize,
    pub(super) max_events: usize,
    pub(super) faults: bool,
    pub(super) filtered: bool,
    pub(super) lives: u32,
    pub(super) moving: bool,
    pub(super) require_all: bool,
    pub(super) meddling: bool,
    /// The size of a stored set before reading waits (C14).
    pub(super) max_set_bytes: usize,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let transactional = random.bool();
        let order = match random.u32(0..10) {
            0 => Order::None,
            1 => Order::Tranche,
            _ => Order::Stream,
        };
        let indexes = if random.u32(0..4) == 0 { Indexes::Sparse } else { Indexes::Dense };
        let require_all = order == Order::Stream && indexes == Indexes::Dense && random.u32(0..6) == 0;
        let plan = Plan {
            order,
            indexes,
            transactional,
            write_positions: transactional && order == Order::Stream && random.bool() || require_all,
            then: [Then::Skip, Then::Park, Then::Skip, Then::Park, Then::Halt][random.usize(0..5)],
            concurrency: random.usize(1..12),
            streams_per_call: if random.u32(0..4) == 0 { random.usize(2..5) } else { 1 },
            read_ahead: if require_all { random.usize(4..8) } else { random.usize(1..6) },
            max_events: random.usize(1..20),
            faults: random.u32(0..5) > 0,
            filtered: random.bool(),
            lives: random.u32(1..5),
            moving: random.u32(0..3) == 0,
            require_all,
            meddling: random.u32(0..3) == 0,
            // A transaction keeps 48 bytes free for the run of the oldest event.
            max_set_bytes: match random.u32(0..4) {
                0 if transactional => random.usize(64..200),
                0 => random.usize(8..100),
                _ => 64 * 1024,
            },
        };
        let logs = super::feed::logs(&mut random, &plan);
        let inner = Inner {
            seed,
            random,
            plan,
            logs,
            kept: BTreeMap::new(),
            effects: Vec::new(),
            settled: BTreeSet::new(),
            handled_items: BTreeSet::new(),
            jumped: BTreeMap::new(),
            parked: BTreeMap::new(),
            parked_from: BTreeMap::new(),
            paused: BTreeSet::new(),
            refused: BTreeSet::new(),
            active: BTreeSet::new(),
            calls: 0,
            most_calls: 0,
            life: 0,
            last: false,
            halted: false,
            violations: Vec::new(),
            trace: String::new(),
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn parts(&self, process: &str) -> Parts {
        let plan = self.lock().plan.clone();
        let store = Arc::new(SimStore { world: self.clone() });
        let sink = Arc::new(SimSink { world: self.clone() });
        Parts {
            source: Arc::new(Feed::new(self.clone())),
            checkpoints: (!plan.transactional).then_some(store),
            handler: Some(AnyHandler::Async(Arc::new(SimHandler { world: self.clone(), process: process.to_owned() }))),
            sink: if plan.transactional { AnySink::Transactional(sink) } else { AnySink::Plain(sink) },
            filter: Arc::new(super::feed::filter(plan.filtered)),
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

    /// A second process that takes the group over while the first still believes that it has it.
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
        let plan = &self.plan;
        Options {
            order: plan.order,
            require_all: plan.require_all,
            streams_per_call: plan.streams_per_call,
            concurrency: plan.concurrency,
            read_ahead: plan.read_ahead,
            read_ahead_bytes: 1 << 20,
            max_ahead_events: MAX_AHEAD,
            max_events: plan.max_events,
            max_bytes: 1 << 20,
            commit_interval: Duration::from_millis(self.random.u64(1..500)),
            purge: None,
            write_positions: plan.write_positions,
            errors: ErrorPolicy {
                backoff: Backoff { initial: Duration::from_millis(10), max: Duration::from_secs(1) },
                attempts: Some(3),
                then: plan.then,
                stuck_after: Duration::from_secs(60),
                outage: Default::default(),
            },
            handler_timeout: Duration::from_millis(200),
            threads: 1,
            stop: Stop::Never,
            drain: Duration::from_secs(30),
            seed: self.seed,
        }
    }

    pub(super) fn begin_life(&mut self, last: bool) {
        self.life += 1;
        self.last = last;
        let line = format!("life {} {:?}", self.life, self.plan);
        self.note(&line);
    }

    /// The process is gone, and its calls with it.
    pub(super) fn end_life(&mut self) {
        self.active.clear();
        self.refused.clear();
        self.paused.clear();
        self.calls = 0;
    }

    pub(super) fn on_ended(&mut self, ended: &Ended, last: bool) {
        let line = format!("ended {ended:?}");
        self.note(&line);
        self.halted = matches!(ended, Ended::Halted(_));
        match ended {
            Ended::Finished => assert!(last, "only the last life ends at the tail"),
            Ended::Halted(_) => assert_eq!(self.plan.then, Then::Halt, "it halts where its policy says so"),
            Ended::Fenced(_) => assert!(!last, "nobody is left to fence the last life"),
            other => panic!("a life ended with {other:?}"),
        }
    }

    /// Notes that something that must hold does not.
    pub(super) fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            let what = what();
            self.note(&format!("VIOLATION {what}"));
            self.violations.push(what);
        }
    }

    pub(super) fn note(&mut self, line: &str) {
        writeln!(self.trace, "{line}").expect("strings take all");
    }

    pub(super) fn trace(&self) -> String {
        self.trace.clone()
    }

    /// Returns whether a fault of this chance (one in `chance`) strikes. The last life is spared most of them.
    pub(super) fn strikes(&mut self, chance: u32) -> bool {
        let chance = if self.last { chance * 4 } else { chance };
        self.plan.faults && self.random.u32(0..chance) == 0
    }

    pub(super) fn check_limits(&mut self, view: &View) {
        for tranche in &view.tranches {
            let ahead = tranche.report.as_ref().map_or(0, |report| report.ahead);
            // Batches that are on their way when the limit is reached still come.
            self.demand(ahead <= MAX_AHEAD + 2 * 30, || format!("{ahead} events are read ahead"));
        }
        let (most, limit) = (self.most_calls, 2 * self.plan.concurrency);
        self.demand(most <= limit, || format!("{most} calls at the same time"));
    }

    /// Checks stored progress: every event that it covers is handled, filtered, skipped or parked (C9).
    pub(super) fn check_progress(&mut self, key: &CheckpointKey, progress: &Progress) {
        let tranche = key.tranche.as_str();
        let unsettled = self.logs[tranche].covered(progress).find(|event| !self.is_settled(tranche, event)).cloned();
        let Some(event) = unsettled else { return };
        let stream: Vec<_> = self.logs[tranche].events().filter(|other| other.stream() == event.stream()).collect();
        let what = format!("progress {progress:?} of `{tranche}` covers {event:?} of {stream:?}");
        self.demand(false, || what);
    }

    /// A handler was done with these events, and had nothing to write.
    pub(super) fn settle<'a>(&mut self, work: &Work, next: i64, events: impl Iterator<Item = &'a Event>) {
        let tranche = work.stream()[..2].to_owned();
        for event in events {
            self.settled.insert((tranche.clone(), event.at()));
            self.handled_items.insert(Item::of(event));
        }
        if next > work.next {
            let jumped = self.jumped.entry(work.stream().to_owned()).or_insert(0);
            *jumped = (*jumped).max(next);
        }
    }

    /// Returns an event of the work's stream that lies before it and is not done, if there is one.
    pub(super) fn missing_before(&self, work: &Work) -> Option<Event> {
        let tranche = &work.stream()[..2];
        let before = |event: &&Event| {
            event.stream() == work.stream() && event.kind() == Kind::Event && event.index() < work.first()
        };
        self.logs[tranche].events().filter(before).find(|event| !self.is_settled(tranche, event)).cloned()
    }

    fn is_settled(&self, tranche: &str, event: &Event) -> bool {
        let item = Item::of(event);
        if self.plan.then == Then::Skip && (event.kind() == Kind::Malformed || self.is_poisoned(tranche, event)) {
            return true;
        }
        if event.kind() == Kind::Malformed {
            return self.parked.iter().any(|((key, stream), events)| {
                key.tranche.as_str() == tranche
                    && stream.is_empty()
                    && events.iter().any(|parked| parked.at() == event.at())
            });
        }
        event.kind() == Kind::Placeholder
            || super::feed::is_filtered(&self.plan, event)
            || self.settled.contains(&(tranche.to_owned(), event.at()))
            || self.handled_items.contains(&item)
            || self
                .jumped
                .get(&item.stream)
                .is_some_and(|next| event.next_index() <= *next && !(event.is_unfold() && event.index() == *next))
            || (event.is_unfold() && self.is_superseded(tranche, event))
            || self.parked.iter().any(|((key, stream), events)| {
                key.tranche.as_str() == tranche
                    && *stream == item.stream
                    && events.iter().any(|parked| parked.at() == event.at())
            })
    }

    /// Returns whether an event can never be handled, or its effect never be committed.
    fn may_be_skipped(&self, event: &Event) -> bool {
        let spoils = self.plan.transactional && event.kind() == Kind::Event && is_spoiling(event.index());
        is_poison(event) || spoils
    }

    /// Returns whether the event is poison, or an unfold that travels with it: with the last event before it that was not
    /// filtered, and filters come and go.
    fn is_poisoned(&self, tranche: &str, event: &Event) -> bool {
        let before =
            |other: &&Event| other.stream() == event.stream() && !other.is_unfold() && other.index() < event.index();
        let carried = || {
            let mut before: Vec<_> = self.logs[tranche].events().filter(before).collect();
            before.sort_by_key(|other| std::cmp::Reverse(other.index()));
            let last = before.iter().position(|other| !super::feed::is_filtered(&self.plan, other));
            before[..last.map_or(before.len(), |last| last + 1)].iter().any(|carrier| self.may_be_skipped(carrier))
        };
        self.may_be_skipped(event) || event.is_unfold() && carried()
    }

    /// An unfold is done when newer state of its stream was handled (C3).
    fn is_superseded(&self, tranche: &str, unfold: &Event) -> bool {
        let stream = unfold.stream();
        let newer = |item: &Item| item.stream == stream && (item.index >= unfold.index());
        let skipped = |event: &Event| {
            self.plan.then == Then::Skip
                && self.may_be_skipped(event)
                && event.stream() == stream
                && event.index() >= unfold.index()
        };
        self.handled_items.iter().any(newer)
            || self.jumped.get(stream).is_some_and(|next| *next > unfold.index())
            || self.logs[tranche].events().any(skipped)
    }

    pub(super) fn unhandled_events(&self) -> String {
        let mut left = String::new();
        for (tranche, log) in &self.logs {
            for event in log.events().filter(|event| !self.is_settled(tranche, event)) {
                write!(left, " {tranche}:{event:?}").expect("strings take all");
            }
        }
        format!("seed {}, plan {:?}, not handled:{left}\nkept: {:?}", self.seed, self.plan, self.kept)
    }

    /// At the end everything is handled at least once, and exactly once where the sink holds the progress (C13).
    pub(super) fn check_the_end(&self) {
        let all = || self.logs.iter().flat_map(|(tranche, log)| log.events().map(move |event| (tranche, event)));
        let mut lost = all().filter(|(tranche, event)| !self.is_settled(tranche, event));
        if self.halted {
            let victim = lost.find(|(_, event)| self.may_be_skipped(event) || event.kind() == Kind::Malformed);
            assert!(victim.is_some(), "seed {}: it halted over nothing", self.seed);
        } else {
            let lost = lost.next();
            assert!(lost.is_none(), "seed {}: {lost:?} was lost", self.seed);
        }
        if !self.plan.transactional {
            return;
        }
        let mut ordinals = BTreeMap::new();
        let mut items = BTreeMap::new();
        for (tranche, at, item) in &self.effects {
            *ordinals.entry((tranche, at, item.index, item.unfold.is_some())).or_insert(0) += 1;
            *items.entry(item).or_insert(0) += 1;
        }
        for (ordinal, times) in ordinals {
            assert_eq!(times, 1, "seed {}: {ordinal:?} was written {times} times", self.seed);
        }
        if self.plan.write_positions && self.plan.indexes == Indexes::Dense {
            for (item, times) in items.iter().filter(|(item, _)| item.unfold.is_none()) {
                assert_eq!(*times, 1, "seed {}: {item:?} was written {times} times", self.seed);
            }
        }
    }
}
