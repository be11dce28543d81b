//! The one loop that owns a pipeline's scheduler.
//!
//! Everything that can wake it is an [`Event`]; there is no `await` between reading state and changing it, and it never
//! waits for a send or a store (C25).

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::commit::{Committed, PlainCommit};
use super::deliver::Delivered;
use super::dispatch::Deciders;
use super::gate::Gate;
use super::life::{Ended, Pipeline};
use super::observe::Counts;
use super::parking::ToPark;
use super::questions::{Command, Listener, Shared};
use super::reader::Read;
use super::tranches::Tranches;
use super::transaction::InTransaction;
use super::workers::Called;
use super::{Identity, Options, Parts, Stop, watch};
use crate::checkpoint::{CheckpointError, CheckpointStore, Claimed, ParkedStore, ParkedStream};
use crate::clock::{Clock, Period, Timestamp};
use crate::config::filter::Filter;
use crate::event::Indexes;
use crate::handler::{Call, Decisions};
use crate::position::TrancheId;
use crate::runtime::supervise::{Group, TaskKind};
use crate::scheduler::{self, Scheduler};
use crate::sink::{AnySink, Decided};
use crate::source::{Changes, Source, SourceError, TrancheChange};
use crate::telemetry::health::State;
use crate::trace::Recorder;
use crate::work::{Streams, Work};

/// What wakes the driver.
pub(super) enum Event {
    /// The watch of the source failed, for this many times in a row, and is repeated after the delay.
    WatchFailed {
        error: SourceError,
        retry_in: Duration,
        failures: u32,
    },
    Read(Read),
    Claimed {
        tranche: TrancheId,
        result: Result<(Claimed, Vec<ParkedStream>), CheckpointError>,
    },
    /// Blocking calls that were made.
    Called(Called),
    /// An async call that had to wait. `None`: it took too long.
    Waited {
        call: Arc<Call>,
        decisions: Option<Decisions>,
        period: Period,
    },
    Delivered(Delivered),
    /// Events of parked streams were appended, or not.
    Appended {
        parks: Vec<ToPark>,
        result: Result<(), CheckpointError>,
    },
    /// The transaction's effects are written: the progress is wanted.
    Written(InTransaction),
    Committed(Committed),
}

/// A pipeline while it runs.
pub(super) struct Driver {
    pub(super) identity: Identity,
    pub(super) options: Options,
    pub(super) scheduler: Scheduler,
    pub(super) source: Arc<dyn Source>,
    changes: mpsc::Receiver<TrancheChange>,
    pub(super) ordinals: bool,
    pub(super) store: Arc<dyn CheckpointStore>,
    pub(super) parked: Option<Arc<dyn ParkedStore>>,
    pub(super) sink: AnySink,
    pub(super) deciders: Deciders,
    pub(super) filter: Arc<RwLock<Arc<Filter>>>,
    pub(super) tranches: Tranches,
    /// Every tranche that exists has been named.
    pub(super) settled: bool,
    pub(super) openings: u64,
    pub(super) gate: Gate,
    /// Decided, and waiting for the sink.
    pub(super) decided: Vec<Decided>,
    /// Decisions that the sink is writing.
    pub(super) writing: usize,
    /// Work of parked streams, waiting to be appended, and how much is being appended.
    pub(super) to_park: Vec<Work>,
    pub(super) appending: usize,
    /// Why streams were parked here; what queues behind repeats it.
    pub(super) why_parked: hashbrown::HashMap<Box<str>, Arc<str>>,
    pub(super) plain_commit: PlainCommit,
    /// When progress is next due to be stored.
    pub(super) commit_at: Timestamp,
    /// A transaction is under way.
    pub(super) in_transaction: bool,
    /// How many transactions are to carry one decision each.
    pub(super) alone: usize,
    pub(super) commit_failures: u32,
    /// Why progress cannot be stored, and since when.
    pub(super) commit_failing: Option<(String, Timestamp)>,
    pub(super) handled_at: Timestamp,
    pub(super) next_purge: Option<Timestamp>,
    pub(super) check_stuck_at: Timestamp,
    pub(super) paused: bool,
    /// What it drains for, and until when that may take.
    pub(super) draining: Option<(Ended, Timestamp)>,
    pub(super) released: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) counts: Counts,
    /// Takes spans, where traces are exported.
    pub(super) recorder: Option<Recorder>,
    pub(super) random: fastrand::Rng,
    pub(super) clock: Clock,
    pub(super) now: Timestamp,
    pub(super) started: Timestamp,
    pub(super) group: Group,
    pub(super) events_in: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    /// Reused by each dispatch.
    pub(super) run: Vec<Streams>,
}

/// Room for events on their way to the driver. Who sends waits when it is full; the driver never waits for them.
const EVENTS: usize = 256;
/// How many events are taken before the driver looks at what follows from them.
const EVENTS_AT_ONCE: usize = 64;

impl Driver {
    pub(super) fn new(
        pipeline: &Pipeline,
        parts: Parts,
        listener: &Listener,
        group: &Group,
        mut random: fastrand::Rng,
    ) -> Self {
        let options = pipeline.options.clone();
        let clock = listener.clock();
        let now = clock.now();
        let contract = parts.source.contract();
        let (events_in, events) = mpsc::channel(EVENTS);
        let store = progress_store(&parts);
        let scheduler = scheduler_for(&options, contract.indexes);
        let (changes_in, changes) = Changes::channel();
        let watch = watch::watch(Arc::clone(&parts.source), changes_in, events_in.clone(), random.u64(..));
        group.spawn(TaskKind::Source, "source", watch);
        let deciders = Deciders::start(parts.handler, options.threads, clock, &events_in, group);
        Self {
            identity: pipeline.identity.clone(),
            scheduler,
            source: parts.source,
            changes,
            ordinals: contract.ordinals,
            parked: store.parked(),
            store,
            sink: parts.sink,
            deciders,
            filter: Arc::new(RwLock::new(parts.filter)),
            tranches: Tranches::new(),
            settled: false,
            openings: 0,
            gate: Gate::new(options.concurrency),
            decided: Vec::new(),
            writing: 0,
            to_park: Vec::new(),
            appending: 0,
            why_parked: hashbrown::HashMap::new(),
            plain_commit: PlainCommit::default(),
            commit_at: now + options.commit_interval,
            in_transaction: false,
            alone: 0,
            commit_failures: 0,
            commit_failing: None,
            handled_at: now,
            next_purge: options.purge.map(|every| now + every),
            check_stuck_at: now + Duration::from_secs(1),
            paused: listener.is_paused(),
            draining: None,
            released: false,
            shared: listener.shared(),
            counts: pipeline.observer.start(),
            recorder: pipeline.observer.recorder(),
            random: random.fork(),
            clock,
            now,
            started: now,
            group: group.clone(),
            events_in,
            events,
            run: Vec::new(),
            options,
        }
    }

    /// Runs until the pipeline ends or breaks.
    pub(super) async fn run(&mut self, listener: &mut Listener, stop: &CancellationToken) -> Ended {
        if self.paused {
            self.shared.enter(State::Paused, "paused before the restart");
        } else {
            self.shared.enter(State::Running, "started");
        }
        loop {
            self.now = self.clock.now();
            self.pump();
            self.publish();
            self.flush_counts();
            if let Some(ended) = self.ended() {
                if matches!(self.draining, Some((Ended::Finished | Ended::Stopped, _))) {
                    close(&self.sink.clone()).await;
                }
                return ended;
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = stop.cancelled(), if self.draining.is_none() => self.drain(Ended::Stopped, "told to stop"),
                failure = self.group.failed() => return Ended::Failed(failure.to_string()),
                command = listener.next() => self.on_command(command),
                Some(event) = self.events.recv() => self.on_events(event),
                Some(change) = self.changes.recv(), if self.draining.is_none() => self.on_change(change),
                () = tokio::time::sleep_until(self.clock.instant(wake)) => {}
            }
        }
    }

    /// Takes what has come, up to a limit, so that transactions and runs are large when much is going on.
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
            Event::WatchFailed { error, retry_in, failures } => self.on_watch_failed(&error, retry_in, failures),
            Event::Read(read) => self.on_read(read),
            Event::Claimed { tranche, result } => self.on_claimed(&tranche, result),
            Event::Called(called) => self.on_called(called),
            Event::Waited { call, decisions, period } => self.on_waited(call, decisions, period),
            Event::Delivered(delivered) => self.on_delivered(delivered),
            Event::Appended { parks, result } => self.on_appended(parks, result),
            Event::Written(transaction) => self.on_written(transaction),
            Event::Committed(committed) => self.on_committed(committed),
        }
    }

    /// Does everything that can be done without waiting.
    fn pump(&mut self) {
        let held = self.paused || self.gate.is_closed(self.now);
        self.scheduler.set_held(held, self.now);
        while self.dispatch() | self.deliver() {}
        self.counts.dispatched(self.clock.now().since(self.now));
        self.append_parked();
        self.look_for_stuck_streams();
        // What ends here has its progress stored in this very pass: nothing else might wake the driver for it.
        self.look_for_the_end();
        self.commit();
        self.claim_again();
        self.let_go_of_tranches();
        self.grant_credits();
        if self.next_purge.is_some_and(|at| at <= self.now) {
            self.next_purge = self.options.purge.map(|every| self.now + every);
            let purged = self.scheduler.purge();
            tracing::debug!(streams = purged, "idle streams forgotten");
        }
    }

    fn next_wake(&self) -> Timestamp {
        let mut wake = self.now + Duration::from_secs(1);
        let tranches = self.tranches.values().filter_map(|tranche| tranche.next_wake());
        let due = [
            self.scheduler.next_wake(),
            self.gate.next_wake(),
            self.draining.as_ref().map(|(_, deadline)| *deadline),
            (self.commit_is_wanted()).then_some(self.commit_at),
            match self.options.stop {
                Stop::After(limit) => Some(self.started + limit),
                _ => None,
            },
        ];
        for at in due.into_iter().flatten().chain(tranches) {
            // What lies in the past was dealt with by this pass, or waits for an event.
            if at > self.now {
                wake = wake.min(at);
            }
        }
        wake
    }

    fn on_change(&mut self, change: TrancheChange) {
        self.now = self.clock.now();
        match change {
            TrancheChange::Added { tranche, origin, epoch } => self.add_tranche(tranche, origin, epoch),
            TrancheChange::Settled => self.settled = true,
            TrancheChange::Removed { tranche, within } => self.remove_tranche(&tranche, within),
            TrancheChange::Lost { tranche } => self.lose_tranche(&tranche),
        }
    }

    fn on_command(&mut self, command: Command) {
        self.now = self.clock.now();
        match command {
            Command::Pause => {
                self.paused = true;
                self.shared.enter(State::Paused, "paused by the operator");
            }
            Command::Resume => {
                self.paused = false;
                self.shared.enter(State::Running, "resumed by the operator");
            }
            Command::Swap(handler) => self.deciders.swap(handler),
            Command::Filter(filter) => *self.filter.write().unwrap_or_else(std::sync::PoisonError::into_inner) = filter,
            Command::Ask(question) => self.answer(question),
        }
    }
}

fn progress_store(parts: &Parts) -> Arc<dyn CheckpointStore> {
    match (&parts.checkpoints, &parts.sink) {
        (Some(store), _) => Arc::clone(store),
        (None, AnySink::Transactional(sink)) => sink.checkpoints(),
        (None, AnySink::Plain(_)) => {
            unreachable!("a pipeline whose sink cannot hold the progress has a checkpoint store")
        }
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

async fn close(sink: &AnySink) {
    let result = match sink {
        AnySink::Plain(sink) => sink.close().await,
        AnySink::Transactional(sink) => sink.close().await,
    };
    if let Err(error) = result {
        tracing::error!(%error, "the sink could not be closed");
    }
}
