use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;
use crate::checkpoint::Owner;
use crate::clock::Clock;
use crate::config::filter::Filter;
use crate::connector::memory::source::MemoryFeed;
use crate::connector::memory::store::MemoryCheckpoints;
use crate::connector::null::NullSink;
use crate::pipeline::ParkLimits;
use crate::pipeline::counts::Observer;
use crate::pipeline::{Assemble, ErrorPolicy, Identity, Options, Parts, Stop, Then};
use crate::runtime::retry::Backoff;
use crate::runtime::supervise::TaskKind;
use crate::scheduler::Order;
use crate::sink::AnySink;
use crate::telemetry::metrics::Metrics;

/// The reaction of an assembly to its next starts.
#[derive(Clone, Copy)]
enum Start {
    Succeeds,
    Fails,
    Panics,
}

struct Assembly {
    first: Start,
    /// Starts that react as `first` says; the later ones succeed.
    left: AtomicU32,
    feed: MemoryFeed,
}

impl Assemble for Assembly {
    fn assemble(&self) -> anyhow::Result<Parts> {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            match self.first {
                Start::Succeeds => {}
                Start::Fails => anyhow::bail!("out of luck"),
                Start::Panics => panic!("out of ideas"),
            }
        }
        Ok(Parts {
            source: Arc::new(self.feed.source()),
            checkpoints: Arc::new(MemoryCheckpoints::default()),
            handler: None,
            sink: AnySink::Plain(Arc::new(NullSink)),
            filter: Arc::new(Filter::default()),
            version: "none".into(),
        })
    }
}

fn options(stop: Stop) -> Options {
    Options {
        order: Order::Stream,
        require_all: false,
        streams_per_call: 1,
        concurrency: 1,
        read_ahead: 1,
        read_ahead_bytes: 1 << 20,
        max_ahead_events: 100,
        max_events: 10,
        max_bytes: 1 << 20,
        commit_interval: Duration::from_secs(1),
        purge: None,
        write_positions: false,
        errors: ErrorPolicy {
            backoff: Backoff { initial: Duration::from_millis(10), max: Duration::from_secs(1) },
            attempts: Some(3),
            then: Then::Halt,
            stuck_after: Duration::from_secs(60),
            outage: Default::default(),
            parked: ParkLimits { events: 1_000_000, bytes: 1 << 30 },
        },
        handler_timeout: Duration::from_secs(30),
        threads: 1,
        stop,
        drain: Duration::from_secs(30),
        seed: 7,
    }
}

/// A pipeline under its keeper.
struct Kept {
    handle: Handle,
    keeper: KeeperHandle,
    outcome: watch::Receiver<Option<Ended>>,
    daemon: Group,
}

fn redefinition(stop: Stop) -> Redefinition {
    Redefinition { pipeline: pipeline(stop, Start::Succeeds, 0), between: std::future::ready(Ok(())).boxed() }
}

fn pipeline(stop: Stop, first: Start, times: u32) -> Pipeline {
    let name: Arc<str> = "p".into();
    Pipeline {
        identity: Identity {
            name: Arc::clone(&name),
            group: Arc::clone(&name),
            source: Arc::clone(&name),
            owner: Owner(Arc::clone(&name)),
        },
        options: options(stop),
        assemble: Arc::new(Assembly { first, left: AtomicU32::new(times), feed: MemoryFeed::dense() }),
        observer: Observer::new(Metrics::new(Clock::start()).pipeline(&name, &name), name),
    }
}

impl Kept {
    fn start(stop: Stop, first: Start, times: u32) -> Self {
        let pipeline = pipeline(stop, first, times);
        let (handle, listener) = Handle::new(Clock::start());
        let (outcome, ended) = Outcome::new();
        let (keeper, own) = Keeper::new(pipeline, handle.clone(), listener, outcome);
        let daemon = Group::daemon();
        let group = daemon.clone();
        daemon.spawn(TaskKind::Keeper, "p", async move {
            keeper.keep(&group).await;
            Ok(())
        });
        Self { handle, keeper: own, outcome: ended, daemon }
    }

    async fn reaches(&self, state: State) -> String {
        let standing = tokio::time::timeout(Duration::from_secs(600), self.handle.reaches(|now| now == state)).await;
        standing.unwrap_or_else(|_| panic!("the state stays `{}`", self.handle.standing().state)).reason
    }

    async fn obey(&self, command: Command) -> Transition {
        self.keeper.obey(command).await.unwrap()
    }
}

/// Gives commands one after the other, each once the state of the one before is reached.
async fn check(kept: Kept, commands: &[(Command, State)], expected: Expect) {
    let mut log = String::new();
    for (command, state) in commands {
        let before = kept.handle.standing().state;
        let transition = kept.obey(*command).await;
        let reason = kept.reaches(*state).await;
        log += &format!("{before} + {command:?} ({transition:?}) -> {state}: {reason}\n");
    }
    expected.assert_eq(&log);
    assert_eq!(kept.daemon.failure(), None);
}

#[tokio::test(start_paused = true)]
async fn r58_a_running_pipeline_obeys_every_command() {
    let kept = Kept::start(Stop::Never, Start::Succeeds, 0);
    kept.reaches(State::Running).await;
    check(
        kept,
        &[
            (Command::Resume, State::Running),
            (Command::Pause, State::Paused),
            (Command::Pause, State::Paused),
            (Command::Resume, State::Running),
            (Command::Stop, State::Stopped),
            (Command::Pause, State::Stopped),
            (Command::Stop, State::Stopped),
            (Command::Restart, State::Running),
        ],
        expect![[r#"
            running + Resume (Stays) -> running: started
            running + Pause (Becomes(Paused)) -> paused: paused by the operator
            paused + Pause (Stays) -> paused: paused by the operator
            paused + Resume (Becomes(Running)) -> running: resumed by the operator
            running + Stop (Becomes(Draining)) -> stopped: told to stop
            stopped + Pause (Stays) -> stopped: told to stop
            stopped + Stop (Stays) -> stopped: told to stop
            stopped + Restart (Becomes(Starting)) -> running: started
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_outlives_a_restart() {
    let kept = Kept::start(Stop::Never, Start::Succeeds, 0);
    kept.reaches(State::Running).await;
    kept.obey(Command::Pause).await;
    kept.reaches(State::Paused).await;
    assert_eq!(kept.obey(Command::Restart).await, Transition::Becomes(State::Restarting));
    // The state is `paused` before and after: the reason tells the runs apart.
    while kept.reaches(State::Paused).await != "paused before the restart" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kept.obey(Command::Resume).await;
    kept.reaches(State::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_waits_for_its_restart_can_be_paused_and_resumed() {
    let kept = Kept::start(Stop::Never, Start::Fails, 3);
    assert_eq!(kept.reaches(State::Restarting).await, "out of luck");
    assert_eq!(kept.obey(Command::Pause).await, Transition::Becomes(State::Paused));
    assert_eq!(kept.reaches(State::Paused).await, PAUSED);
    assert_eq!(*kept.outcome.borrow(), None, "a paused pipeline has not ended");
    assert_eq!(kept.obey(Command::Resume).await, Transition::Becomes(State::Running));
    kept.reaches(State::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_resume_ends_the_delay_before_a_restart() {
    let kept = Kept::start(Stop::Never, Start::Fails, 9);
    while kept.handle.standing().restarts < 8 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kept.reaches(State::Restarting).await;
    let began = kept.handle.clock().now();
    assert_eq!(kept.obey(Command::Resume).await, Transition::Hurries);
    // The ninth failure, and after it the shortest delay: the operator's start forgets the failures before it.
    kept.reaches(State::Running).await;
    let waited = kept.handle.clock().now().since(began);
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn s14_a_panic_restarts_its_pipeline_only() {
    let kept = Kept::start(Stop::Never, Start::Panics, 1);
    assert_eq!(kept.reaches(State::Restarting).await, "the start panicked: out of ideas");
    kept.reaches(State::Running).await;
    assert_eq!(kept.daemon.failure(), None);
}

#[tokio::test(start_paused = true)]
async fn a_finished_pipeline_keeps_its_outcome_and_can_start_again() {
    let mut kept = Kept::start(Stop::Tail, Start::Succeeds, 0);
    kept.reaches(State::Finished).await;
    kept.outcome.wait_for(Option::is_some).await.unwrap();
    assert_eq!(*kept.outcome.borrow(), Some(Ended::Finished));
    assert_eq!(kept.obey(Command::Restart).await, Transition::Becomes(State::Starting));
    kept.outcome.wait_for(Option::is_some).await.unwrap();
    assert_eq!(kept.obey(Command::Stop).await, Transition::Becomes(State::Stopped));
    let reason = kept.reaches(State::Stopped).await;
    assert!(reason.starts_with("told to stop while finished: "), "{reason}");
    assert_eq!(*kept.outcome.borrow(), Some(Ended::Finished), "the exit code depends on the run's end");
}

#[tokio::test(start_paused = true)]
async fn the_latest_command_during_a_drain_decides_the_step_after_it() {
    for (commands, last) in
        [([Command::Stop, Command::Restart], State::Running), ([Command::Restart, Command::Stop], State::Stopped)]
    {
        let kept = Kept::start(Stop::Never, Start::Succeeds, 0);
        kept.reaches(State::Running).await;
        // Both commands are sent before the driver sees the first one.
        let (first, second) = tokio::join!(kept.obey(commands[0]), kept.obey(commands[1]));
        assert!(matches!(first, Transition::Becomes(_)), "{first:?} {second:?}");
        // The state goes through `stopped` in any case.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(kept.handle.standing().state, last);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_definition_drains_the_run_of_the_old_one() {
    let kept = Kept::start(Stop::Never, Start::Succeeds, 0);
    kept.reaches(State::Running).await;
    assert_eq!(kept.keeper.redefine(redefinition(Stop::Tail)).await, Some(Redefined::Starts));
    // The new one ends at its tail. Another definition starts it again.
    kept.reaches(State::Finished).await;
    assert_eq!(kept.keeper.redefine(redefinition(Stop::Never)).await, Some(Redefined::Starts));
    assert_eq!(*kept.outcome.borrow(), None);
    kept.reaches(State::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_definition_starts_no_pipeline_that_is_paused_or_told_to_stop() {
    let kept = Kept::start(Stop::Never, Start::Fails, 3);
    kept.reaches(State::Restarting).await;
    kept.obey(Command::Pause).await;
    kept.reaches(State::Paused).await;
    assert_eq!(kept.keeper.redefine(redefinition(Stop::Tail)).await, Some(Redefined::Rests));
    assert_eq!(kept.handle.standing().state, State::Paused);
    // The next start uses it.
    kept.obey(Command::Resume).await;
    kept.reaches(State::Finished).await;

    let kept = Kept::start(Stop::Never, Start::Succeeds, 0);
    kept.reaches(State::Running).await;
    let (stopped, redefined) = tokio::join!(kept.obey(Command::Stop), kept.keeper.redefine(redefinition(Stop::Tail)));
    assert_eq!((stopped, redefined), (Transition::Becomes(State::Draining), Some(Redefined::Rests)));
    kept.reaches(State::Stopped).await;
    kept.obey(Command::Start).await;
    kept.reaches(State::Finished).await;
}

#[tokio::test(start_paused = true)]
async fn the_old_definition_stays_if_the_work_between_the_two_fails() {
    let kept = Kept::start(Stop::Never, Start::Succeeds, 0);
    let fails = || {
        let failed = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err("no room".to_owned())
        };
        Redefinition { between: failed.boxed(), ..redefinition(Stop::Tail) }
    };
    kept.reaches(State::Running).await;
    assert_eq!(kept.keeper.redefine(fails()).await, Some(Redefined::Failed("no room".to_owned())));
    kept.reaches(State::Running).await;
    kept.obey(Command::Stop).await;
    kept.reaches(State::Stopped).await;
    assert_eq!(kept.keeper.redefine(fails()).await, Some(Redefined::Failed("no room".to_owned())));
    assert_eq!(kept.handle.standing().state, State::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_retired_pipeline_drains_and_takes_no_command() {
    for is_running in [true, false] {
        let kept = Kept::start(if is_running { Stop::Never } else { Stop::Tail }, Start::Succeeds, 0);
        kept.reaches(if is_running { State::Running } else { State::Finished }).await;
        assert_eq!(kept.keeper.retire().await, is_running.then_some(Ended::Stopped));
        assert_eq!(kept.keeper.obey(Command::Start).await, None);
        assert_eq!(kept.daemon.failure(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_daemons_end_ends_the_keeper_and_its_pipeline() {
    let kept = Kept::start(Stop::Never, Start::Succeeds, 0);
    kept.reaches(State::Running).await;
    assert_eq!(kept.daemon.join(Duration::from_secs(60)).await, Ok(()));
    assert_eq!(kept.handle.standing().state, State::Stopped);
    assert_eq!(*kept.outcome.borrow(), Some(Ended::Stopped));
    assert_eq!(kept.keeper.obey(Command::Restart).await, None);
}

#[test]
fn every_transition_has_a_reaction_during_a_run() {
    for state in State::ALL {
        for command in
            [Command::Pause, Command::Resume, Command::Restart, Command::Start, Command::Reload, Command::Stop]
        {
            let reaction = during_a_run(state, command);
            let expected = match state.after(command) {
                Transition::Stays => state == State::Draining || reaction == Reaction::None,
                Transition::Hurries => reaction == Reaction::End(Next::Run),
                Transition::Becomes(_) => reaction != Reaction::None,
            };
            assert!(expected, "{state} + {command:?}: {reaction:?}");
        }
    }
}
