//! The operator of a running pipeline, who pauses and resumes it, and replaces its filter and its handler.

use std::sync::Arc;
use std::time::Duration;

use propulsiond::checkpoint::{ParkedAction, ParkedRequest, ParkedSelection, ParkedStore};
use propulsiond::clock::Clock;
use propulsiond::pipeline::Handle;

use super::feed;
use super::store::SimStore;
use super::world::World;

/// Performs a few operations at random times, and leaves the pipeline running.
pub(super) async fn operate(world: &World, handle: &Handle, process: &str) {
    let (plan, times) = {
        let mut inner = world.lock();
        let times = if inner.plan.is_operated { inner.random.u32(1..5) } else { 0 };
        (inner.plan.clone(), times)
    };
    for _ in 0..times {
        let (wait, operation) = {
            let mut inner = world.lock();
            (inner.random.u64(1..400), inner.random.u32(0..3))
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        match operation {
            0 => pause(world, handle, process).await,
            1 => {
                let excludes = world.lock().random.bool();
                handle.filter(Arc::new(feed::filter(excludes && plan.filtered))).await;
            }
            _ => {
                handle.swap(world.handler(process), world.version()).await;
            }
        }
    }
}

/// Looks after parked streams at random times: requests retries, discards events, and brings a better handler.
pub(super) async fn look_after_parked(world: &World, handle: &Handle, process: &str, clock: Clock) {
    let times = {
        let mut inner = world.lock();
        inner.parking.u32(0..6)
    };
    for number in 0..times {
        let (wait, choice, plan) = {
            let mut inner = world.lock();
            (inner.parking.u64(1..800), inner.parking.u32(0..6), inner.plan.parking)
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let action = match choice {
            0 if plan.cures => {
                world.lock().cure();
                handle.swap(world.handler(process), world.version()).await;
                continue;
            }
            1 if plan.discards => ParkedAction::DiscardAll,
            _ if plan.retries => ParkedAction::Retry,
            _ => continue,
        };
        let store = SimStore { world: world.clone() };
        let job = format!("{process}-{number}");
        let request = ParkedRequest { action, job: &job, by: "operator", at: clock.wall() };
        let requested = ParkedStore::request(&store, "sim", "log", &ParkedSelection::default(), &request).await;
        requested.expect("requests never fail here");
        handle.look_at_parked().await;
    }
}

async fn pause(world: &World, handle: &Handle, process: &str) {
    handle.pause().await;
    // A call can begin until the driver has received the command.
    tokio::time::sleep(Duration::from_millis(2)).await;
    world.lock().paused.insert(process.to_owned());
    let pause = {
        let mut inner = world.lock();
        let pause = inner.random.u64(1..300);
        // The clock of `stuck_after` stands still meanwhile (C20).
        if inner.plan.trials.stalls { pause + 600 } else { pause }
    };
    tokio::time::sleep(Duration::from_millis(pause)).await;
    world.lock().paused.remove(process);
    handle.resume().await;
}
