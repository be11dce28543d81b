//! What a pipeline can be told and asked while it runs, and what is known of it when it does not answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::life::{Ended, HEALTHY_AFTER};
use super::tranches::{Phase, Tranche};
use crate::clock::{Clock, Timestamp};
use crate::config::filter::Filter;
use crate::handler::AnyHandler;
use crate::position::{Position, Progress};
use crate::scheduler::{Explanation, Snapshot, TrancheReport};
use crate::source::Lag;
use crate::telemetry::health::State;

/// How many streams that need attention a view lists.
const STREAMS_LISTED: usize = 100;
/// How often the view that answers for a pipeline that does not is renewed.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// How long a question to the loop may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Commands that may wait for the driver.
const COMMANDS: usize = 16;

/// What a pipeline is told.
pub(super) enum Command {
    Pause,
    Resume,
    /// Another handler of the same sort: calls under way end with the one they began with.
    Swap(AnyHandler),
    /// Another filter, from the next read on (C18).
    Filter(Arc<Filter>),
    Ask(Question),
}

/// What it is asked.
pub(super) enum Question {
    View(oneshot::Sender<View>),
    Explain { stream: String, answer: oneshot::Sender<Explanation> },
}

/// How a pipeline stands.
#[derive(Clone, Debug)]
pub struct View {
    /// When it was made.
    pub at: Timestamp,
    pub tranches: Vec<TrancheView>,
    pub streams: Snapshot,
    /// What the back end that everything waits for said, and since when it has been away.
    pub outage: Option<(String, Timestamp)>,
    /// Why progress cannot be stored, and since when.
    pub checkpoint_failing: Option<(String, Timestamp)>,
    /// When events were last handled.
    pub handled_at: Timestamp,
    pub calls: usize,
    pub writing: usize,
    /// Every tranche that exists has been named.
    pub settled: bool,
}

/// How one tranche of it stands.
#[derive(Clone, Debug)]
pub struct TrancheView {
    pub tranche: String,
    pub phase: &'static str,
    pub at_tail: bool,
    pub lag: Option<Lag>,
    /// Up to where it is read; `None` until something was.
    pub read: Option<Position>,
    /// What is stored.
    pub committed: Option<Progress>,
    pub committed_at: Option<Timestamp>,
    /// `None` before it is opened.
    pub report: Option<TrancheReport>,
    /// Why it cannot be claimed or read, and since when.
    pub trouble: Option<(String, Timestamp)>,
}

/// What a pipeline that starts is about.
pub(super) const CONNECTING: &str = "its source, store and sink are being connected";

/// The state a pipeline is in, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    pub reason: String,
    pub since: Timestamp,
    /// How often in a row it failed and started over.
    pub restarts: u32,
}

/// What the loop and those who ask about it share.
pub(super) struct Shared {
    clock: Clock,
    standing: watch::Sender<Standing>,
    last: Mutex<Option<View>>,
}

impl Shared {
    pub(super) fn enter(&self, state: State, reason: &str) {
        self.standing.send_modify(|standing| {
            *standing =
                Standing { state, reason: reason.to_owned(), since: self.clock.now(), restarts: standing.restarts };
        });
    }

    /// It failed, and is about to start over for this many times in a row.
    pub(super) fn restarts(&self, in_a_row: u32) {
        self.standing.send_modify(|standing| standing.restarts = in_a_row);
    }

    /// It has run well for so long that its failures are history.
    pub(super) fn recovered(&self) {
        self.standing.send_if_modified(|standing| std::mem::take(&mut standing.restarts) > 0);
    }

    pub(super) fn end(&self, ended: &Ended) {
        match ended {
            Ended::Finished => self.enter(State::Finished, "everything is handled"),
            Ended::Stopped => self.enter(State::Stopped, "told to stop"),
            Ended::Halted(why) => self.enter(State::Halted, why),
            Ended::Fenced(why) => self.enter(State::Fenced, why),
            Ended::Failed(why) => self.enter(State::Restarting, why),
            Ended::DeadlinePassed(still) => {
                self.enter(State::Stopped, &format!("the drain deadline passed: {}", still.join(", ")))
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<View>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Talks to a pipeline.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// The pipeline's end of a [`Handle`].
pub struct Listener {
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    clock: Clock,
    /// The latest pause is not resumed yet. A pause outlives the runs of a pipeline.
    paused: bool,
}

impl Handle {
    pub fn new(clock: Clock) -> (Self, Listener) {
        let (commands, received) = mpsc::channel(COMMANDS);
        let starting =
            Standing { state: State::Starting, reason: CONNECTING.to_owned(), since: clock.now(), restarts: 0 };
        let shared = Arc::new(Shared { clock, standing: watch::Sender::new(starting), last: Mutex::new(None) });
        let listener = Listener { commands: received, shared: Arc::clone(&shared), clock, paused: false };
        (Self { commands, shared }, listener)
    }

    /// Returns the state and its reason.
    pub fn standing(&self) -> Standing {
        self.shared.standing.borrow().clone()
    }

    /// Waits until the state is one that `wanted` accepts. Never returns if the pipeline is gone and it does not.
    pub async fn reaches(&self, mut wanted: impl FnMut(State) -> bool) -> Standing {
        let mut standing = self.shared.standing.subscribe();
        match standing.wait_for(|standing| wanted(standing.state)).await {
            Ok(standing) => standing.clone(),
            Err(_) => std::future::pending().await,
        }
    }

    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// Returns how the pipeline stands, or the last that was seen of it if it does not answer within a second.
    /// `None`: it has not run yet.
    pub async fn view(&self) -> Option<View> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.commands.send(Command::Ask(Question::View(answer))).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Some(view)) => Some(view),
            _ => self.last_view(),
        }
    }

    /// Returns the last that was seen of it, which is at most a second old while it runs well.
    pub fn last_view(&self) -> Option<View> {
        self.shared.last().clone()
    }

    /// Says why a stream is where it is. `None`: it does not answer.
    pub async fn explain(&self, stream: &str) -> Option<Explanation> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.commands.send(Command::Ask(Question::Explain { stream: stream.to_owned(), answer })).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(ANSWER_WITHIN, asked).await.ok().flatten()
    }

    /// Enters a state that no driver enters: the keeper's, between two runs.
    pub(crate) fn enter(&self, state: State, reason: &str) {
        self.shared.enter(state, reason);
    }

    pub async fn pause(&self) -> bool {
        self.commands.send(Command::Pause).await.is_ok()
    }

    pub async fn resume(&self) -> bool {
        self.commands.send(Command::Resume).await.is_ok()
    }

    /// Uses another handler of the same sort.
    pub async fn swap(&self, handler: AnyHandler) -> bool {
        self.commands.send(Command::Swap(handler)).await.is_ok()
    }

    /// Uses another filter from the next read on.
    pub async fn filter(&self, filter: Arc<Filter>) -> bool {
        self.commands.send(Command::Filter(filter)).await.is_ok()
    }
}

impl Listener {
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Waits for a command. Never returns once nobody is left to give one.
    pub(super) async fn next(&mut self) -> Command {
        let Some(command) = self.commands.recv().await else { std::future::pending().await };
        match &command {
            Command::Pause => self.paused = true,
            Command::Resume => self.paused = false,
            _ => {}
        }
        command
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Decides whether the next run starts paused.
    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Leaves questions unanswered, so that each caller takes the latest view. Never returns.
    pub(crate) async fn decline(&mut self) -> std::convert::Infallible {
        loop {
            drop(self.next().await);
        }
    }

    /// Waits between two runs, answering from what was last seen. Returns `false` if it is to stop.
    pub(super) async fn wait(&mut self, delay: Duration, stop: &CancellationToken) -> bool {
        let over = tokio::time::sleep(delay);
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = &mut over => return true,
                // Dropping a question says that there is no answer; the rest does not concern a pipeline that does not run.
                command = self.next() => drop(command),
            }
        }
    }
}

impl Driver {
    pub(super) fn answer(&mut self, question: Question) {
        // Who asked may have stopped waiting.
        match question {
            Question::View(answer) => drop(answer.send(self.view())),
            Question::Explain { stream, answer } => drop(answer.send(self.scheduler.explain(&stream, self.now))),
        }
    }

    /// Leaves a view behind for when the loop does not answer.
    pub(super) fn publish(&mut self) {
        let due = self.shared.last().as_ref().is_none_or(|view| self.now.since(view.at) >= PUBLISH_EVERY);
        if due || self.draining.is_some() {
            let view = self.view();
            *self.shared.last() = Some(view);
            if self.now.since(self.started) >= HEALTHY_AFTER {
                self.shared.recovered();
            }
        }
    }

    fn view(&self) -> View {
        View {
            at: self.now,
            tranches: self.tranches.iter().map(|(tranche, state)| self.tranche_view(tranche, state)).collect(),
            streams: self.scheduler.snapshot(STREAMS_LISTED, self.now),
            outage: self.gate.outage().cloned(),
            checkpoint_failing: self.commit_failing.clone(),
            handled_at: self.handled_at,
            calls: self.deciders.deciding(),
            writing: self.decided.len() + self.writing,
            settled: self.settled,
        }
    }

    fn tranche_view(&self, tranche: &crate::position::TrancheId, state: &Tranche) -> TrancheView {
        TrancheView {
            tranche: tranche.to_string(),
            phase: match state.phase {
                Phase::Claiming { .. } => "claiming",
                Phase::Reading { .. } => "reading",
                Phase::Ended => "ended",
                Phase::Leaving { .. } => "leaving",
            },
            at_tail: state.at_tail,
            lag: state.lag,
            read: state.read.clone(),
            committed: state.claim.committed.clone(),
            committed_at: state.claim.committed_at,
            report: self.scheduler.tranche(tranche),
            trouble: state.trouble.clone(),
        }
    }
}
