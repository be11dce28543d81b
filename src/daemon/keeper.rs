//! The task that owns a pipeline's definition. Runs come and go under it (design.md §3.7).
//!
//! The keeper alone starts and ends runs. It obeys a [`Command`] by the table of [`State::after`] and by nothing else.
//! A run that fails is restarted by the pipeline itself, with back-off; a run that finished, halted, was fenced or was
//! stopped leaves the keeper at rest, and a command can start the pipeline again.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::pipeline::{Ended, Handle, Listener, Pipeline};
use crate::runtime::supervise::Group;
use crate::telemetry::health::{Command, State, Transition};

/// Commands that may wait for a keeper. A keeper takes each at once, whatever its pipeline does.
const COMMANDS: usize = 16;

/// A request to a keeper, and the address for its answer.
enum Request {
    Obey { command: Command, answer: oneshot::Sender<Transition> },
    Redefine { new: Box<Redefinition>, answer: oneshot::Sender<Redefined> },
    Retire { answer: oneshot::Sender<Option<Ended>> },
}

/// A new definition of a pipeline.
pub(crate) struct Redefinition {
    pub pipeline: Pipeline,
    /// The work between the last run of the old definition and the first one of the new. If it fails, the old one stays.
    pub between: BoxFuture<'static, Result<(), String>>,
}

/// The outcome of a new definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redefined {
    /// The old definition has drained, and the new one starts.
    Starts,
    /// Nothing runs, and nothing starts by itself: the next start uses the new definition.
    Rests,
    /// These tasks of the old definition did not end within the drain's limit. The old definition starts again from its
    /// checkpoint.
    DrainTimedOut(Vec<String>),
    /// The work between the definitions failed for this reason. The old definition goes on.
    Failed(String),
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
        self.ask(|answer| Request::Obey { command, answer }).await
    }

    /// Has a pipeline run by another definition from now on. A run under way drains first. A pause stays. Returns `None` if the
    /// keeper is gone.
    pub(crate) async fn redefine(&self, new: Redefinition) -> Option<Redefined> {
        self.ask(|answer| Request::Redefine { new: Box::new(new), answer }).await
    }

    /// Drains the pipeline and ends its keeper. Returns how its run ended, if one was under way.
    pub(crate) async fn retire(&self) -> Option<Ended> {
        self.ask(|answer| Request::Retire { answer }).await.flatten()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.ok()?;
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
    /// End: the pipeline's file was removed.
    Retire,
}

/// A change that a run has to end for.
enum Pending {
    Definition { new: Box<Redefinition>, answer: oneshot::Sender<Redefined> },
    Retirement(oneshot::Sender<Option<Ended>>),
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

    /// Keeps the pipeline until it is retired, or the daemon's group stops.
    pub(super) async fn keep(mut self, daemon: &Group) {
        let stop = daemon.token().clone();
        let mut next = Next::Run;
        while !stop.is_cancelled() {
            next = match next {
                Next::Run => self.run(daemon, &stop).await,
                Next::Rest | Next::Pause => self.rest(next, &stop).await,
                Next::Retire => return,
            };
        }
    }

    /// Runs the pipeline until it ends, and obeys commands meanwhile.
    async fn run(&mut self, daemon: &Group, stop: &CancellationToken) -> Next {
        self.outcome.0.send_replace(None);
        let Self { pipeline, handle, listener, requests, outcome } = self;
        handle.makes_room(false);
        let ending = stop.child_token();
        let (mut next, mut resumed) = (Next::Rest, false);
        let mut pending = None;
        // Pauses and resumes on their way to the driver. The driver runs in this very task, so waiting here for room in
        // its queue would wait for ever.
        let mut told = FuturesOrdered::new();
        let ended = {
            let mut running = std::pin::pin!(pipeline.run_again(listener, daemon, ending.clone()));
            loop {
                tokio::select! {
                    biased;
                    ended = &mut running => break ended,
                    // A definition that waits for the end of the run is taken before the next request.
                    Some(request) = requests.recv(), if pending.is_none() => {
                        let (command, answer) = match request {
                            Request::Obey { command, answer } => (command, answer),
                            Request::Redefine { new, answer } => {
                                // A drain that was under way ends as it was told to.
                                if !ending.is_cancelled() {
                                    next = Next::Run;
                                    handle.makes_room(true);
                                    ending.cancel();
                                }
                                pending = Some(Pending::Definition { new, answer });
                                continue;
                            }
                            Request::Retire { answer } => {
                                (next, pending) = (Next::Retire, Some(Pending::Retirement(answer)));
                                handle.makes_room(false);
                                ending.cancel();
                                continue;
                            }
                        };
                        let state = handle.standing().state;
                        let transition = state.after(command);
                        resumed = command == Command::Resume || (resumed && command != Command::Pause);
                        match during_a_run(state, command) {
                            Reaction::Pause => told.push_back(handle.pause().boxed()),
                            Reaction::Resume => told.push_back(handle.resume().boxed()),
                            Reaction::End(then) => {
                                next = then;
                                handle.makes_room(then == Next::Run);
                                ending.cancel();
                            }
                            Reaction::None => {}
                        }
                        // The caller may have stopped waiting.
                        let _caller_waits = answer.send(transition).is_ok();
                    }
                    Some(_) = told.next() => {}
                }
            }
        };
        match pending {
            None => {}
            Some(Pending::Definition { new, answer }) => {
                let redefined = match &ended {
                    Ended::DeadlinePassed(tasks) => Redefined::DrainTimedOut(tasks.clone()),
                    _ => self.pipeline.redefine(*new, next == Next::Run).await,
                };
                let _caller_waits = answer.send(redefined).is_ok();
            }
            Some(Pending::Retirement(answer)) => {
                outcome.0.send_replace(Some(ended.clone()));
                let _caller_waits = answer.send(Some(ended.clone())).is_ok();
            }
        }
        match next {
            Next::Retire => {}
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
        let (command, answer) = match request {
            Request::Obey { command, answer } => (command, answer),
            Request::Redefine { new, answer } => return self.redefine_at_rest(resting, *new, answer).await,
            Request::Retire { answer } => {
                let _caller_waits = answer.send(None).is_ok();
                return Next::Retire;
            }
        };
        let standing = self.handle.standing();
        let transition = standing.state.after(command);
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
        }
        if command == Command::Resume {
            // A pipeline that was paused before it was stopped starts running again.
            self.listener.set_paused(false);
        }
        let _caller_waits = answer.send(transition).is_ok();
        next
    }

    /// Takes another definition while nothing runs. A pipeline that has ended starts, as after a change in place.
    async fn redefine_at_rest(&mut self, resting: Next, new: Redefinition, answer: oneshot::Sender<Redefined>) -> Next {
        let starts = matches!(self.handle.standing().state.after(Command::Reload), Transition::Becomes(_));
        let redefined = self.pipeline.redefine(new, starts).await;
        let starts = redefined == Redefined::Starts;
        if starts {
            self.outcome.0.send_replace(None);
        }
        let _caller_waits = answer.send(redefined).is_ok();
        if starts { Next::Run } else { resting }
    }
}

impl Pipeline {
    /// Takes the place of another definition, once the work between the two is done.
    async fn redefine(&mut self, new: Redefinition, starts: bool) -> Redefined {
        let Redefinition { pipeline, between } = new;
        if let Err(why) = between.await {
            return Redefined::Failed(why);
        }
        *self = pipeline;
        if starts { Redefined::Starts } else { Redefined::Rests }
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
