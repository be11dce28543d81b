//! The loop of a running pipeline. It owns the scheduler and the parts, and performs their actions.
//!
//! A message ([`Event`]) wakes it. There is no `await` between reading and changing state, and the driver never waits for a
//! send or a store (C25): tasks do, and send their results.

mod delivery;
mod ending;
mod intake;
mod outcomes;
mod parking;
mod progress;
mod viewing;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::after::{Follow, Lead, Links};
use super::breaker::Breaker;
use super::calls::{Calls, Decider, DecisionRules};
use super::commits::{Commits, Rules};
use super::counts::{Counts, Observer};
use super::drain::{Drain, Ended};
use super::failures::Failures;
use super::handle::{Listener, Shared};
use super::messages::{Command, Event, Question};
use super::options::{Identity, Options, Parts, Stop};
use super::parked::ParkQueue;
use super::parked_lane::{LaneRules, ParkedLane};
use super::rate::Rate;
use super::spans::Spans;
use super::tranches::{Limits, Tranches};
use super::watch;
use super::workers::Workers;
use super::writes::{WriteLimits, Writes};
use crate::checkpoint::{CheckpointStore, ParkedStore};
use crate::clock::{Clock, Timestamp};
use crate::config::filter::Filter;
use crate::event::Indexes;
use crate::handler::AnyHandler;
use crate::position::TrancheId;
use crate::runtime::supervise::{Group, TaskKind};
use crate::scheduler::{self, Scheduler};
use crate::sink::AnySink;
use crate::source::{Changes, Contract, Source, TrancheChange};
use crate::telemetry::health::State;
use crate::work::Streams;

use parking::Looks;

/// A pipeline while it runs.
pub(super) struct Driver {
    identity: Identity,
    options: Options,
    scheduler: Scheduler,
    source: Arc<dyn Source>,
    indexes: Indexes,
    changes: mpsc::Receiver<TrancheChange>,
    store: Arc<dyn CheckpointStore>,
    parked: Option<Arc<dyn ParkedStore>>,
    sink: AnySink,
    filter: Arc<RwLock<Arc<Filter>>>,

    tranches: Tranches,
    limits: Limits,
    calls: Calls,
    rules: DecisionRules,
    writes: Writes,
    parks: ParkQueue,
    lane: ParkedLane,
    looks: Looks,
    /// The last call was one of the lane.
    lane_had_its_turn: bool,
    /// The source identifies its events by ordinals, so that they can be parked (C21).
    can_park: bool,
    /// The version of the handler (C32).
    version: Arc<str>,
    commits: Commits,
    breaker: Breaker,
    drain: Drain,
    failures: Failures,
    counts: Counts,
    spans: Spans,
    lead: Lead,
    /// The pipeline that this one comes after, if there is one.
    follow: Option<Arc<Follow>>,

    /// Tranches that changed since the last pass: only these are granted credits, or found complete.
    changed: BTreeSet<TrancheId>,
    /// Every existing tranche was reported.
    settled: bool,
    /// The error that keeps the source from reporting its tranches, and its begin.
    source_failing: Option<(String, Timestamp)>,
    /// Releases of claims in flight.
    releases: usize,
    handled_at: Timestamp,
    rate: Rate,
    next_purge: Option<Timestamp>,
    check_stuck_at: Timestamp,
    probe_at: Timestamp,
    paused: bool,

    shared: Arc<Shared>,
    random: fastrand::Rng,
    clock: Clock,
    now: Timestamp,
    started: Timestamp,
    group: Group,
    events_in: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
}

/// The number of events that wait for the driver before a sender waits. The driver never waits for the senders.
const EVENTS: usize = 256;
/// The number of events that the driver takes before it looks at their consequences.
const EVENTS_AT_ONCE: usize = 64;
/// The number of calls of one pass. A handler that defers at once is offered the same events again and again; between two
/// passes the driver hears of a stop.
const CALLS_PER_PASS: usize = 4_096;
/// The number of parked streams that are offered again at a time.
const PARKED_STREAMS: usize = 256;
/// The interval at which tranches without room for reading are asked for their backlog.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// The facts of a run that the driver is made of.
pub(super) struct Run<'a> {
    pub(super) identity: &'a Identity,
    pub(super) options: &'a Options,
    pub(super) observer: &'a Observer,
    pub(super) listener: &'a Listener,
    pub(super) group: &'a Group,
    pub(super) random: fastrand::Rng,
    pub(super) links: Links,
}

impl Driver {
    /// Makes the driver of a run, and begins to watch the source.
    pub(super) fn new(run: Run<'_>, parts: Parts) -> Self {
        let Run { identity, options, observer, listener, group, mut random, links } = run;
        let clock = listener.clock();
        let now = clock.now();
        let contract = parts.source.contract();
        let (events_in, events) = mpsc::channel(EVENTS);
        let store = parts.checkpoints;
        let parked = store.parked();
        listener.shared().show_parked(parked.as_ref());
        let (changes_in, changes) = Changes::channel();
        let watch = watch::watch(Arc::clone(&parts.source), changes_in, events_in.clone(), random.u64(..));
        group.spawn(TaskKind::Source, "source", watch);
        let decider = decider(parts.handler, options, clock, &events_in, group);
        let follow = Follow::begin(&links, &parts.source);
        let rules = commit_rules(options, &*store, &parts.sink, contract);
        Self {
            identity: identity.clone(),
            scheduler: scheduler_for(options, contract.indexes),
            source: parts.source,
            indexes: contract.indexes,
            changes,
            parked,
            filter: Arc::new(RwLock::new(parts.filter)),
            tranches: Tranches::default(),
            limits: Limits {
                batches: options.read_ahead,
                bytes: options.read_ahead_bytes,
                events: options.max_ahead_events,
                set_bytes: store.max_set_bytes(),
                finite: options.stop == Stop::Tail,
            },
            store,
            calls: Calls::new(decider),
            rules: DecisionRules {
                order: options.order,
                holds_progress: rules.with_effects,
                write_positions: options.write_positions,
            },
            writes: Writes::new(write_limits(&parts.sink)),
            sink: parts.sink,
            parks: ParkQueue::default(),
            lane: ParkedLane::new(lane_rules(options, contract.indexes)),
            looks: Looks::new(now),
            lane_had_its_turn: false,
            can_park: contract.ordinals,
            version: parts.version,
            commits: Commits::new(rules, now),
            breaker: Breaker::new(options.concurrency, options.errors.outage),
            drain: Drain::default(),
            failures: Failures::default(),
            counts: observer.start(),
            spans: Spans::new(observer.recorder(), Arc::clone(&identity.name), clock),
            lead: Lead::begin(&links),
            follow,
            changed: BTreeSet::new(),
            settled: false,
            source_failing: None,
            releases: 0,
            handled_at: now,
            rate: Rate::new(now),
            next_purge: options.purge.map(|every| now + every),
            check_stuck_at: now + Duration::from_secs(1),
            probe_at: now + PROBE_EVERY,
            paused: listener.is_paused(),
            shared: listener.shared(),
            random: random.fork(),
            clock,
            now,
            started: now,
            group: group.clone(),
            events_in,
            events,
            options: options.clone(),
        }
    }

    /// Runs until the pipeline ends or a part of it fails. Returns the end and its reason.
    pub(super) async fn run(&mut self, listener: &mut Listener, stop: &CancellationToken) -> (Ended, String) {
        if self.paused {
            self.shared.enter(State::Paused, "paused before the restart");
        } else {
            self.shared.enter(State::Running, "started");
        }
        loop {
            self.now = self.clock.now();
            let is_busy = self.pass();
            self.publish();
            self.counts.flush(&self.scheduler, self.now, self.drain.is_begun());
            if let Some((ended, reason)) = self.ended() {
                return (self.close(ended).await, reason);
            }
            let wake = if is_busy { self.now } else { self.next_wake() };
            tokio::select! {
                // A stop is heard first, however much there is to do.
                biased;
                () = stop.cancelled(), if !self.drain.is_begun() => self.begin_drain(Ended::Stopped, "told to stop"),
                failure = self.group.failed() => return (Ended::Failed(failure.to_string()), failure.to_string()),
                command = listener.next() => self.on_command(command),
                Some(event) = self.events.recv() => self.on_events(event),
                Some(change) = self.changes.recv() => self.on_change(change),
                () = tokio::time::sleep_until(self.clock.instant(wake)) => {}
            }
        }
    }

    /// Takes the events that are there, up to a limit, so that transactions and runs are large under load.
    fn on_events(&mut self, first: Event) {
        let began = self.clock.now();
        self.now = began;
        self.on_event(first);
        for _ in 1..EVENTS_AT_ONCE {
            let Ok(event) = self.events.try_recv() else { break };
            self.on_event(event);
        }
        self.counts.took_results(self.clock.now().since(began));
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::WatchFailed { error, failures, retry_in } => self.on_watch_failed(&error, failures, retry_in),
            Event::Claimed(results) => results.into_iter().for_each(|result| self.on_claimed(result)),
            Event::Read(read) => self.on_read(read),
            Event::Called(called) => self.on_called(called),
            Event::Waited { call, decisions, period } => self.on_waited(call, decisions, period),
            Event::Delivered(delivered) => self.on_delivered(delivered),
            Event::Appended { parks, result } => self.on_appended(parks, result),
            Event::Due(answers) => self.on_due(answers),
            Event::QueueRead { tranche, epoch, stream, result } => self.on_queue_read(&tranche, epoch, &stream, result),
            Event::ParkedUpdated { tranche, epoch, streams, result } => {
                self.on_parked_updated(&tranche, epoch, &streams, result);
            }
            Event::EffectsWritten(effects) => self.on_effects_written(effects),
            Event::Committed(committed) => self.on_committed(committed),
            Event::Released { tranche, assignment } => self.on_released(&tranche, assignment),
            Event::Lag { tranche, lag } => self.on_lag(&tranche, lag),
        }
    }

    fn on_change(&mut self, change: TrancheChange) {
        self.now = self.clock.now();
        self.source_failing = None;
        match change {
            // A run that drains begins nothing, but hears of the tranches that it loses (C10).
            TrancheChange::Added { .. } | TrancheChange::Settled if self.drain.is_begun() => {}
            TrancheChange::Added { tranche, origin, epoch } => self.add_tranche(tranche, origin, epoch),
            TrancheChange::Settled => self.settled = true,
            TrancheChange::Removed { tranche, within } => self.remove_tranche(&tranche, within),
            TrancheChange::Lost { tranche } => self.lose_tranche(&tranche),
        }
    }

    fn on_command(&mut self, command: Command) {
        self.now = self.clock.now();
        match command {
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::Swap(handler, version) => {
                self.calls.swap(handler);
                self.version = version;
                self.scheduler.forgive_failures(self.now);
                self.look_for_changed();
            }
            Command::LookAtParked => self.look_at_parked(),
            Command::Filter(filter) => *self.filter.write().unwrap_or_else(PoisonError::into_inner) = filter,
            Command::Ask(Question::View(answer)) => {
                // The caller may have stopped waiting.
                drop(answer.send(self.view()));
            }
            Command::Ask(Question::Explain { stream, answer }) => {
                drop(answer.send(self.scheduler.explain(&stream, self.now)));
            }
        }
    }

    fn pause(&mut self) {
        self.paused = true;
        self.take_back_calls();
        self.shared.enter(State::Paused, "paused by the operator");
    }

    fn resume(&mut self) {
        self.paused = false;
        self.shared.enter(State::Running, "resumed by the operator");
    }

    /// Does everything that can be done without waiting. Returns whether more is left to do at once.
    fn pass(&mut self) -> bool {
        self.scheduler.set_held(self.paused || self.breaker.is_open(self.now), self.now);
        if !self.breaker.is_probing() {
            self.writes.wake(usize::MAX, self.now);
        }
        self.look_for_due();
        self.read_queues();
        let mut budget = CALLS_PER_PASS;
        while self.dispatch(&mut budget) | self.deliver() && budget > 0 {}
        self.probe_by_retry();
        self.counts.dispatched(self.clock.now().since(self.now));
        self.append_parked();
        self.update_parked();
        self.look_for_stuck_streams();
        self.note_changes();
        // The end of a run has its progress stored in this very pass: no event might wake the driver for it.
        self.look_for_the_end();
        self.commit();
        self.claim_tranches();
        self.leave_tranches();
        self.complete_tranches();
        self.grant_credits();
        self.probe();
        if self.next_purge.is_some_and(|at| at <= self.now) {
            self.next_purge = self.options.purge.map(|every| self.now + every);
            let purged = self.scheduler.purge();
            tracing::debug!(streams = purged, "idle streams forgotten");
        }
        budget == 0
    }

    /// Makes a retry the probe of an outage if no other stream has work. Otherwise streams that always fail would be the only
    /// probes, and the others would wait behind them for ever.
    fn probe_by_retry(&mut self) {
        let is_free = self.calls.deciding() == 0 && self.writes.active() == 0;
        if self.breaker.is_probing() && !self.breaker.is_open(self.now) && is_free {
            self.writes.wake(1, self.now);
            self.deliver();
        }
    }

    /// Collects the tranches that changed, for the rest of the pass.
    fn note_changes(&mut self) {
        let changed = self.scheduler.take_changed();
        let scheduler = &self.scheduler;
        let all = || scheduler.tranches().into_iter().map(|report| report.tranche).collect();
        self.lead.show(&changed, all, |tranche| scheduler.handled_to(tranche));
        for tranche in changed {
            self.commits.changed(tranche.clone());
            self.counts.changed(tranche.clone());
            self.changed.insert(tranche);
        }
    }

    fn next_wake(&self) -> Timestamp {
        let due = [
            self.scheduler.next_wake(),
            self.breaker.next_wake(),
            self.drain.deadline(),
            self.commits.next_wake(),
            self.writes.next_wake(),
            self.tranches.next_wake(),
            self.lane.next_wake(),
            self.next_look(),
            match self.options.stop {
                Stop::After(limit) => Some(self.started + limit),
                Stop::Never | Stop::Tail => None,
            },
        ];
        // A time in the past was dealt with by this pass, or waits for an event.
        let due = due.into_iter().flatten().filter(|at| *at > self.now);
        due.fold(self.now + Duration::from_secs(1), Timestamp::min)
    }
}

fn scheduler_for(options: &Options, indexes: Indexes) -> Scheduler {
    Scheduler::new(scheduler::Options {
        order: options.order,
        indexes,
        require_all: options.require_all,
        streams_per_call: options.streams_per_call,
        max_events: options.max_events,
        max_bytes: options.max_bytes,
        hash_seed: options.seed,
    })
}

fn decider(
    handler: Option<AnyHandler>,
    options: &Options,
    clock: Clock,
    events: &mpsc::Sender<Event>,
    group: &Group,
) -> Decider {
    match handler {
        None => Decider::Events,
        Some(AnyHandler::Async(handler)) => Decider::Async(handler),
        Some(AnyHandler::Blocking(factory)) => {
            Decider::Blocking(Workers::start(factory, options.threads, clock, events.clone(), group))
        }
    }
}

fn write_limits(sink: &AnySink) -> WriteLimits {
    let max_batch = sink.as_sink().max_batch().max(1);
    match sink {
        AnySink::Plain(sink) => WriteLimits { max_batch, window: sink.window().max(1) },
        // One transaction at a time.
        AnySink::Transactional(_) => WriteLimits { max_batch, window: 1 },
    }
}

fn lane_rules(options: &Options, indexes: Indexes) -> LaneRules {
    LaneRules {
        order: options.order,
        indexes,
        max_events: options.max_events,
        max_bytes: options.max_bytes,
        // All pages together stay within the limit of reading ahead. One event is always read.
        page_bytes: options.max_bytes.min(options.read_ahead_bytes / PARKED_STREAMS),
        streams: PARKED_STREAMS,
        // The other half is for new events.
        calls: (options.concurrency / 2).max(1),
    }
}

fn commit_rules(options: &Options, store: &dyn CheckpointStore, sink: &AnySink, contract: Contract) -> Rules {
    Rules {
        plain_positions: store.max_set_bytes().is_none() || !contract.ordinals,
        max_set: store.max_set_bytes(),
        with_effects: matches!(sink, AnySink::Transactional(_)),
        write_positions: options.write_positions,
        require_all: options.require_all,
        indexes: contract.indexes,
        interval: options.commit_interval,
    }
}

/// Returns the work of calls, one piece after the other.
fn pieces(calls: Vec<Streams>) -> impl Iterator<Item = crate::work::Work> {
    calls.into_iter().flatten()
}
