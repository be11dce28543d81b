//! The task that owns a pipeline's definition. Runs come and go under it (design.md §3.7).
//!
//! The keeper alone starts and ends runs. It obeys a [`Command`] by the table of [`State::after`] and by nothing else.
//! A run that fails is restarted by the pipeline itself, with back-off; a run that finished, halted, was fenced or was
//! stopped leaves the keeper at rest, and a command can start the pipeline again.

use std::sync::Arc;

use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::pipeline::{Ended, Handle, Listener, Pipeline};
use crate::runtime::supervise::Group;
use crate::telemetry::health::{Command, State, Transition};

/// Commands that may wait for a keeper. A keeper takes each at once, whatever its pipeline does.
const COMMANDS: usize = 16;

/// A command, and the address for its answer.
struct Request {
    command: Command,
    answer: oneshot::Sender<Transition>,
}

/// Sends commands to a keeper.
#[derive(Clone)]
pub(crate) struct KeeperHandle {
    requests: mpsc::Sender<Request>,
}

impl KeeperHandle {
    /// Has a command obeyed. Returns its effect in the state that the pipeline was in; `None` if the keeper is gone.
    ///
    /// The state changes afterwards: [`Handle::reaches`] waits for that.
    pub(crate) async fn obey(&self, command: Command) -> Option<Transition> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { command, answer }).await.ok()?;
        answered.await.ok()
    }
}

/// The end of a pipeline's latest run; none while a run is under way or to come.
pub(super) struct Outcome(watch::Sender<Option<Ended>>);

impl Outcome {
    pub(super) fn new() -> (Self, watch::Receiver<Option<Ended>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }
}

/// The owner of a pipeline.
pub(crate) struct Keeper {
    pipeline: Pipeline,
    handle: Handle,
    listener: Listener,
    requests: mpsc::Receiver<Request>,
    outcome: Outcome,
}

/// The keeper's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Start a run.
    Run,
    /// Wait for a command. The pipeline's state is that of its latest run's end.
    Rest,
    /// Wait for a command. A pause ended the latest run.
    Pause,
}

impl Keeper {
    pub(super) fn new(
        pipeline: Pipeline,
        handle: Handle,
        listener: Listener,
        outcome: Outcome,
    ) -> (Self, KeeperHandle) {
        let (sender, requests) = mpsc::channel(COMMANDS);
        (Self { pipeline, handle, listener, requests, outcome }, KeeperHandle { requests: sender })
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.pipeline.identity.name)
    }

    /// Keeps the pipeline until the daemon's group stops.
    pub(super) async fn keep(mut self, daemon: &Group) {
        let stop = daemon.token().clone();
        let mut next = Next::Run;
        while !stop.is_cancelled() {
            next = match next {
                Next::Run => self.run(daemon, &stop).await,
                Next::Rest | Next::Pause => self.rest(next, &stop).await,
            };
        }
    }

    /// Runs the pipeline until it ends, and obeys commands meanwhile.
    async fn run(&mut self, daemon: &Group, stop: &CancellationToken) -> Next {
        self.outcome.0.send_replace(None);
        let Self { pipeline, handle, listener, requests, outcome } = self;
        let ending = stop.child_token();
        let (mut next, mut resumed) = (Next::Rest, false);
        // Pauses and resumes on their way to the driver. The driver runs in this very task, so waiting here for room in
        // its queue would wait for ever.
        let mut told = FuturesOrdered::new();
        let ended = {
            let mut running = std::pin::pin!(pipeline.run_again(listener, daemon, ending.clone()));
            loop {
                tokio::select! {
                    biased;
                    ended = &mut running => break ended,
                    Some(request) = requests.recv() => {
                        let state = handle.standing().state;
                        let transition = state.after(request.command);
                        resumed = request.command == Command::Resume || (resumed && request.command != Command::Pause);
                        match during_a_run(state, request.command) {
                            Reaction::Pause => told.push_back(handle.pause().boxed()),
                            Reaction::Resume => told.push_back(handle.resume().boxed()),
                            Reaction::End(then) => {
                                next = then;
                                ending.cancel();
                            }
                            Reaction::None => {}
                        }
                        // The caller may have stopped waiting.
                        let _caller_waits = request.answer.send(transition).is_ok();
                    }
                    Some(_) = told.next() => {}
                }
            }
        };
        match next {
            // A resume that ended the back-off before a restart ends the pause, too.
            Next::Run if resumed => listener.set_paused(false),
            Next::Run => {}
            Next::Pause => {
                listener.set_paused(true);
                handle.enter(State::Paused, PAUSED);
            }
            Next::Rest => drop(outcome.0.send_replace(Some(ended))),
        }
        next
    }

    /// Waits for a command that starts the pipeline, or for the daemon's end. Nothing runs meanwhile.
    async fn rest(&mut self, resting: Next, stop: &CancellationToken) -> Next {
        let request = tokio::select! {
            biased;
            () = stop.cancelled() => return resting,
            Some(request) = self.requests.recv() => request,
            // Without a driver, a question is answered by the latest view: its sender is dropped.
            never = self.listener.decline() => match never {},
        };
        let standing = self.handle.standing();
        let transition = standing.state.after(request.command);
        let next = match transition {
            Transition::Becomes(State::Starting | State::Running | State::Restarting) | Transition::Hurries => {
                Next::Run
            }
            Transition::Becomes(State::Paused) => {
                self.listener.set_paused(true);
                self.handle.enter(State::Paused, PAUSED);
                Next::Pause
            }
            Transition::Becomes(_) => {
                if resting == Next::Pause {
                    self.handle.enter(State::Draining, "nothing runs");
                    self.outcome.0.send_replace(Some(Ended::Stopped));
                }
                // The reason of a halt or a fence stays visible. The outcome keeps it, too: the exit code depends on it.
                let reason = format!("told to stop while {}: {}", standing.state, standing.reason);
                self.handle.enter(State::Stopped, &reason);
                Next::Rest
            }
            Transition::Stays => resting,
        };
        if next == Next::Run {
            // The caller of `obey` may look at the outcome next.
            self.outcome.0.send_replace(None);
            if request.command == Command::Resume {
                self.listener.set_paused(false);
            }
        }
        let _caller_waits = request.answer.send(transition).is_ok();
        next
    }
}

/// The reason of a pause.
const PAUSED: &str = "paused by the operator";

/// The effect of a command on a run that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    None,
    Pause,
    Resume,
    /// The run drains and ends.
    End(Next),
}

fn during_a_run(state: State, command: Command) -> Reaction {
    match state.after(command) {
        // A driver runs, or is about to.
        Transition::Becomes(State::Paused) if matches!(state, State::Starting | State::Running) => Reaction::Pause,
        // The pipeline waits between two runs.
        Transition::Becomes(State::Paused) => Reaction::End(Next::Pause),
        Transition::Becomes(State::Running) => Reaction::Resume,
        Transition::Becomes(State::Restarting | State::Starting) | Transition::Hurries => Reaction::End(Next::Run),
        Transition::Becomes(_) => Reaction::End(Next::Rest),
        // A drain goes on; the latest command decides the step after it.
        Transition::Stays => match (state, command) {
            (State::Draining, Command::Stop) => Reaction::End(Next::Rest),
            (State::Draining, Command::Restart) => Reaction::End(Next::Run),
            _ => Reaction::None,
        },
    }
}

#[cfg(test)]
mod tests;
