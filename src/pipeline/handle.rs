//! The handle of a pipeline: commands, questions, and the last view of a pipeline that does not answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::drain::Ended;
use super::messages::{Command, Question};
use super::view::{Standing, View};
use crate::checkpoint::ParkedStore;
use crate::clock::Clock;
use crate::config::filter::Filter;
use crate::handler::AnyHandler;
use crate::scheduler::Explanation;
use crate::telemetry::health::State;

/// The limit of an answer of the driver.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The number of commands that wait for the driver before a sender waits.
const COMMANDS: usize = 16;

/// The reason of the state of a pipeline that starts.
pub(super) const CONNECTING: &str = "its source, store and sink are being connected";

/// The facts that the driver shares with the handles.
pub(super) struct Shared {
    clock: Clock,
    standing: watch::Sender<Standing>,
    last: Mutex<Option<View>>,
    /// The parked store of the present run. The run alone keeps it open.
    parked: Mutex<Option<Weak<dyn ParkedStore>>>,
    /// The run that is told to stop makes room for another one.
    makes_room: AtomicBool,
}

impl Shared {
    pub(super) fn enter(&self, state: State, reason: &str) {
        self.standing.send_modify(|standing| {
            *standing =
                Standing { state, reason: reason.to_owned(), since: self.clock.now(), restarts: standing.restarts };
        });
    }

    /// Notes the number of failures in a row, each followed by a restart.
    pub(super) fn restarts(&self, in_a_row: u32) {
        self.standing.send_modify(|standing| standing.restarts = in_a_row);
    }

    /// Forgets the failures: the pipeline has run well for long enough.
    pub(super) fn recovered(&self) {
        self.standing.send_if_modified(|standing| std::mem::take(&mut standing.restarts) > 0);
    }

    pub(super) fn end(&self, ended: &Ended, reason: &str) {
        match ended {
            Ended::Finished => self.enter(State::Finished, reason),
            Ended::Stopped if self.makes_room.load(Ordering::Relaxed) => self.enter(State::Restarting, reason),
            Ended::Stopped => self.enter(State::Stopped, reason),
            Ended::Halted(why) | Ended::Unavailable(why) => self.enter(State::Halted, why),
            Ended::Fenced(why) => self.enter(State::Fenced, why),
            Ended::Failed(why) => self.enter(State::Restarting, why),
            Ended::DeadlinePassed(names) => {
                self.enter(State::Stopped, &format!("the drain deadline passed: {}", names.join(", ")));
            }
        }
    }

    /// Shows the parked store of a run.
    pub(super) fn show_parked(&self, store: Option<&Arc<dyn ParkedStore>>) {
        *self.parked.lock().unwrap_or_else(PoisonError::into_inner) = store.map(Arc::downgrade);
    }

    pub(super) fn last(&self) -> MutexGuard<'_, Option<View>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sender of commands and questions to a pipeline.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// The receiver of a [`Handle`]'s commands.
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
        let shared = Arc::new(Shared {
            clock,
            standing: watch::Sender::new(starting),
            last: Mutex::new(None),
            parked: Mutex::new(None),
            makes_room: AtomicBool::new(false),
        });
        let listener = Listener { commands: received, shared: Arc::clone(&shared), clock, paused: false };
        (Self { commands, shared }, listener)
    }

    /// Returns the state and its reason.
    pub fn standing(&self) -> Standing {
        self.shared.standing.borrow().clone()
    }

    /// Returns the present and later states. The sender is gone with the pipeline.
    pub(crate) fn standings(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// Waits until `wanted` accepts the state. Never returns if the pipeline is gone and its state is not accepted.
    pub async fn reaches(&self, mut wanted: impl FnMut(State) -> bool) -> Standing {
        self.stands(|standing| wanted(standing.state)).await
    }

    /// Waits until `wanted` accepts the state with its reason. Never returns if the pipeline is gone before.
    pub async fn stands(&self, wanted: impl FnMut(&Standing) -> bool) -> Standing {
        let mut standing = self.shared.standing.subscribe();
        // The borrowed value must not live on in the wait without end.
        let reached = standing.wait_for(wanted).await.map(|standing| standing.clone());
        match reached {
            Ok(standing) => standing,
            Err(_) => std::future::pending().await,
        }
    }

    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// Returns the view of the pipeline, or its last view if it does not answer within a second. `None`: it has not run yet.
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

    /// Returns the last view, at most a second old while the pipeline runs well.
    pub fn last_view(&self) -> Option<View> {
        self.shared.last().clone()
    }

    /// Explains the state of a stream. `None`: the pipeline does not answer.
    pub async fn explain(&self, stream: &str) -> Option<Explanation> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.commands.send(Command::Ask(Question::Explain { stream: stream.to_owned(), answer })).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(ANSWER_WITHIN, asked).await.ok().flatten()
    }

    /// Tells whether another run follows the one that is told to stop. The pipeline then restarts, and never shows as stopped.
    pub(crate) fn makes_room(&self, makes_room: bool) {
        self.shared.makes_room.store(makes_room, Ordering::Relaxed);
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

    /// Uses another handler of the same sort. Streams that another version parked are retried first (C32).
    pub async fn swap(&self, handler: AnyHandler, version: Arc<str>) -> bool {
        self.commands.send(Command::Swap(handler, version)).await.is_ok()
    }

    /// Returns the parked store of the present run, if there are both.
    pub fn parked_store(&self) -> Option<Arc<dyn ParkedStore>> {
        self.shared.parked.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.upgrade()
    }

    /// Has the pipeline look for requests that an operator left in the parked store. It also looks by itself now and then.
    pub async fn look_at_parked(&self) -> bool {
        self.commands.send(Command::LookAtParked).await.is_ok()
    }

    /// Uses another filter from the next read on. It judges events as they are read: of a script with `upcast`, the reader's part
    /// alone ([`Script::with_filter`](crate::script::Script::with_filter)).
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

    /// Waits for a command. Never returns once all handles are gone.
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

    /// Waits between two runs. Returns `false` if the pipeline is to stop.
    pub(super) async fn wait(&mut self, delay: Duration, stop: &CancellationToken) -> bool {
        let over = tokio::time::sleep(delay);
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = &mut over => return true,
                // A dropped question is answered from the last view. No other command concerns a pipeline that does not run.
                command = self.next() => drop(command),
            }
        }
    }
}
