//! Whole pipelines under seeded faults. One seed decides everything: the feed, the settings, the results of handlers, sinks
//! and stores, the crashes of a process, and the claims of other processes.
//!
//! A world lasts for several lives. A life is the time from the start of the processes to their crash or end. The last life
//! must handle everything that is left.
//!
//! Runs are reproducible: one thread, paused time, and no randomness but the seed's. A failure prints its seed.
//! `PROPULSIOND_SIM_SEED=<seed> cargo test --test it sim -- --nocapture` replays it, and `PROPULSIOND_SIM_SEEDS=100000` runs
//! more seeds.

mod fate;
mod feed;
mod group;
mod handler;
mod operator;
mod plan;
mod store;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use propulsiond::clock::Clock;
use propulsiond::pipeline::counts::Observer;
use propulsiond::pipeline::{Assemble, Ended, Handle, Parts, Pipeline, Stop};
use propulsiond::runtime::supervise::Group;
use propulsiond::telemetry::health::State;
use propulsiond::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use world::World;

/// The number of seeds in CI.
const SEEDS: u64 = 2_000;
/// The number of seeds that run twice.
const TRACED: u64 = 60;
/// The time limit of the last life.
const LAST_LIFE: Duration = Duration::from_secs(200);
/// The number of seeds with a blocking handler, and of those that run at the same time. They mostly wait, in real time.
const BLOCKING: u64 = 32;
const BLOCKING_AT_ONCE: u64 = 16;

#[test]
fn c1_to_c21_the_invariants_hold_for_every_seed() {
    if let Some(seed) = number("PROPULSIOND_SIM_SEED") {
        eprintln!("{}", run(seed, false));
        return;
    }
    let seeds = number("PROPULSIOND_SIM_SEEDS").unwrap_or(SEEDS);
    std::thread::scope(|scope| {
        let half = |first: u64| move || (first..seeds).step_by(2).for_each(check);
        scope.spawn(half(0));
        scope.spawn(half(1));
    });
}

/// The driver waits for threads here, so that two runs of a seed differ.
#[test]
fn c1_to_c21_the_invariants_hold_with_blocking_handlers() {
    std::thread::scope(|scope| {
        for first in 0..BLOCKING_AT_ONCE {
            let seeds = (first..BLOCKING).step_by(BLOCKING_AT_ONCE as usize);
            scope.spawn(move || seeds.for_each(|seed| drop(run(seed, true))));
        }
    });
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in 0..TRACED {
        assert_eq!(run(seed, false), run(seed, false), "two runs of seed {seed} differ");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a seed is a number"))
}

fn check(seed: u64) {
    if let Err(panic) = std::panic::catch_unwind(|| run(seed, false)) {
        eprintln!("simulation failed: replay with PROPULSIOND_SIM_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
}

/// Runs one seed to its end. Returns the trace of its events.
fn run(seed: u64, blocking: bool) -> String {
    let world = World::new(seed, blocking);
    let lives = world.lock().lives();
    for life in 0..lives {
        let last = life + 1 == lives;
        world.lock().begin_life(last);
        // The drop of the runtime is the crash: it ends each task at an `await`.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(!blocking).build().unwrap();
        let ended = runtime.block_on(live(&world, last));
        if ended.is_some() {
            world.lock().note("every process ended");
        }
        drop(runtime);
        world.lock().end_life();
        let mut inner = world.lock();
        if last {
            inner.check_the_end();
        }
        assert!(inner.violations.is_empty(), "seed {seed}: {}\n{}", inner.violations[0], inner.trace());
    }
    world.lock().trace()
}

/// Runs the processes of one life. Returns the end of the first one, or `None` after a crash.
async fn live(world: &World, last: bool) -> Option<Ended> {
    let crash_after = if last { LAST_LIFE } else { world.lock().lifetime() };
    let rival = (!last).then(|| world.lock().rival_after()).flatten();
    let rival = if world.lock().shares_tranches() { Some(Duration::ZERO) } else { rival };
    let both = async {
        let first = one_process(world, "first", last);
        match rival {
            None => first.await,
            Some(after) => {
                let second = async {
                    tokio::time::sleep(after).await;
                    one_process(world, "second", last).await
                };
                let (first, _second) = futures_util::future::join(first, second).await;
                first
            }
        }
    };
    let world_acts = async {
        futures_util::future::join(group::rebalance(world), group::claim_by_outsider(world)).await;
        std::future::pending::<()>().await;
    };
    let both = async {
        tokio::select! {
            biased;
            ended = both => ended,
            () = world_acts => unreachable!("the world never ends"),
        }
    };
    match tokio::time::timeout(crash_after, Box::pin(both)).await {
        Ok(ended) => Some(ended),
        Err(_) => {
            let world = world.lock();
            assert!(!last, "the last life did not end in time: {}\n{}", world.unhandled_events(), world.trace());
            None
        }
    }
}

async fn one_process(world: &World, name: &str, last: bool) -> Ended {
    // Deferrals of one life are due in a later one.
    let lives = i64::from(world.lock().life);
    let clock = Clock::start_at(time::OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(lives * 50));
    let group = Group::daemon();
    let (handle, listener) = Handle::new(clock);
    let mut options = world.lock().options();
    options.stop = if last || world.lock().plan.trials.jobs { Stop::Tail } else { Stop::Never };
    let pipeline = Pipeline {
        identity: world.lock().identity(name),
        options,
        assemble: Arc::new(Assembler { world: world.clone(), name: name.to_owned() }),
        observer: Observer::new(Metrics::new(clock).pipeline("sim", "sim"), "log".into()),
    };
    let watch = async {
        loop {
            tokio::time::sleep(Duration::from_millis(97)).await;
            if let Some(view) = handle.view().await {
                let mut inner = world.lock();
                inner.check_limits(&view);
                // A pipeline that restarts has no tranches.
                if handle.standing().state == State::Running {
                    inner.check_fenced_are_visible(name, &view);
                }
            }
        }
    };
    let operator = async {
        let parked = operator::look_after_parked(world, &handle, name, clock);
        futures_util::future::join(operator::operate(world, &handle, name), parked).await;
        std::future::pending::<()>().await;
    };
    let stop = CancellationToken::new();
    world.lock().stops.insert(name.to_owned(), stop.clone());
    let stopping = async {
        let after = world.lock().stopped_after();
        if let Some(after) = after {
            tokio::time::sleep(after).await;
            stop.cancel();
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        biased;
        ended = pipeline.run(listener, &group, stop.clone()) => ended,
        () = watch => unreachable!("the watch never ends"),
        () = stopping => unreachable!("the stop has no successor"),
        () = operator => unreachable!("the operator never leaves"),
    };
    world.lock().on_ended(name, &ended);
    ended
}

struct Assembler {
    world: World,
    name: String,
}

impl Assemble for Assembler {
    fn assemble(&self) -> anyhow::Result<Parts> {
        anyhow::ensure!(!self.world.lock().breaks(4), "a part of the pipeline is missing");
        let caught = std::panic::catch_unwind(AssertUnwindSafe(|| self.world.parts(&self.name)));
        caught.map_err(|_| anyhow::anyhow!("the assembly panicked"))
    }
}
