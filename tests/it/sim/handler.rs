//! A handler with every permitted result, which checks its calls.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use propulsiond::effect::Value;
use propulsiond::event::{Event, Kind};
use propulsiond::handler::{
    BlockingHandler, BlockingHandlerFactory, Call, Decision, Decisions, Handler, HandlerError, HandlerErrorKind,
    NextIndex,
};
use propulsiond::scheduler::Order;
use propulsiond::work::{Work, WorkKind};

use super::feed::{is_poison, stream_of, tranche_of};
use super::world::{Inner, World};

pub(super) struct SimHandler {
    pub(super) world: World,
    pub(super) process: String,
}

/// A running call, with its streams or tranches.
struct Running {
    world: World,
    keys: Vec<(String, String)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut inner = self.world.lock();
        inner.calls = inner.calls.saturating_sub(1);
        for key in &self.keys {
            inner.active.remove(key);
        }
    }
}

impl Handler for SimHandler {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        if self.spins(&call.streams) {
            let at_once = || Decision { next: NextIndex::Defer(Duration::ZERO), effects: Vec::new().into(), tag: None };
            return std::future::ready(call.streams.iter().map(|_| Ok(at_once())).collect()).boxed();
        }
        let running = self.enter(&call.streams);
        let delay = {
            let mut inner = self.world.lock();
            let first = call.streams.iter().all(|work| work.failures == 0);
            let hangs = first && inner.strikes(60);
            match inner.random.u32(0..3) {
                _ if hangs => Some(100_000),
                0 => None,
                _ => Some(inner.random.u64(0..50)),
            }
        };
        async move {
            if let Some(delay) = delay {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            let mut inner = self.world.lock();
            if panics(&mut inner, &call.streams) {
                drop(inner);
                // Unlike `panic!`, this prints no message.
                std::panic::resume_unwind(Box::new("poison"));
            }
            let decisions = call.streams.iter().map(|work| decide(&mut inner, work)).collect();
            drop(inner);
            drop(running);
            decisions
        }
        .boxed()
    }
}

/// A handler on a thread computes, and never waits.
impl BlockingHandler for SimHandler {
    fn handle(&mut self, streams: &mut [Work], decisions: &mut Decisions) {
        let running = self.enter(streams);
        let turns = self.world.lock().random.u32(0..200);
        (0..turns).for_each(|_| std::thread::yield_now());
        let mut inner = self.world.lock();
        if panics(&mut inner, streams) {
            drop(inner);
            std::panic::resume_unwind(Box::new("poison"));
        }
        decisions.extend(streams.iter().map(|work| decide(&mut inner, work)));
        drop(inner);
        drop(running);
    }
}

impl BlockingHandlerFactory for SimHandler {
    fn make(&self) -> Box<dyn BlockingHandler> {
        Box::new(Self { world: self.world.clone(), process: self.process.clone() })
    }
}

/// The call of a spin that stops the process, and the number of further calls within which the driver must react.
const STOPPED_AT: u32 = 100;
const HEARD_AFTER: u32 = 10_000;

impl SimHandler {
    /// Returns whether the handler defers a call at once, over and over. The operator stops the process meanwhile, and the
    /// driver has to react between two calls (S9).
    fn spins(&self, streams: &[Work]) -> bool {
        let mut inner = self.world.lock();
        let is_tempted = streams.iter().flat_map(|work| &work.events).any(|event| event.index() == 4);
        if !inner.plan.feed.spins || inner.last || !is_tempted {
            return false;
        }
        let spins = inner.spins.entry(self.process.clone()).or_default();
        *spins += 1;
        let spins = *spins;
        if spins == STOPPED_AT {
            inner.note(&format!("{} is stopped in a spin", self.process));
            inner.stops[&self.process].cancel();
        }
        let is_heard = spins < STOPPED_AT + HEARD_AFTER;
        inner.demand(is_heard, || "the driver ignores a stop while the handler defers at once (S9)".to_owned());
        is_heard
    }

    fn enter(&self, streams: &[Work]) -> Running {
        let mut inner = self.world.lock();
        inner.calls += 1;
        inner.most_calls = inner.most_calls.max(inner.calls);
        let mut keys = Vec::new();
        for work in streams {
            check_offer(&mut inner, work);
            inner.check_parked_are_kept_back(&self.process, work);
            let paused = inner.paused.contains(&self.process);
            inner.demand(!paused, || format!("{:?} are offered while paused", work.events));
            let key = match inner.plan.order {
                Order::Stream => stream_of(&work.events[0]),
                // A tranche has one call at a time, which may hold several pieces of work.
                Order::Tranche => tranche_of(&work.events[0]).to_owned(),
                Order::None => continue,
            };
            let key = (self.process.clone(), key);
            let alone = inner.active.insert(key.clone()) || keys.contains(&key);
            inner.demand(alone, || format!("two calls at a time for {key:?}"));
            keys.push(key);
        }
        let line =
            format!("{} offered {:?}", self.process, streams.iter().map(|work| &work.events).collect::<Vec<_>>());
        inner.note(&line);
        drop(inner);
        Running { world: self.world.clone(), keys }
    }
}

/// Returns whether the handler panics, which is a permanent failure of its call. Only poison makes it panic.
fn panics(inner: &mut Inner, streams: &[Work]) -> bool {
    !inner.cured && streams.len() == 1 && streams[0].events.iter().any(is_poison) && inner.random.u32(0..4) == 0
}

fn check_offer(inner: &mut Inner, work: &Work) {
    let events = &work.events;
    let most = inner.plan.max_events + 1;
    inner.demand(!events.is_empty() && events.len() <= most, || format!("{} events in a call", events.len()));
    let by_index = inner.plan.order == Order::Stream;
    let in_order = events.windows(2).all(|pair| {
        let ascends = if by_index {
            pair[0].index() < pair[1].index() || pair[1].is_unfold()
        } else {
            pair[0].at() < pair[1].at()
        };
        ascends && pair[1].stream() == pair[0].stream()
    });
    inner.demand(in_order, || format!("{events:?} are out of order"));
    if inner.plan.require_all {
        let missing = inner.missing_before(work);
        inner.demand(missing.is_none(), || format!("{events:?} are offered without {missing:?}"));
    }
    if by_index && work.kind == WorkKind::Retry {
        let before = inner.parked_before(work);
        inner.demand(before.is_none(), || format!("{events:?} are retried before {before:?} (R39)"));
    } else if by_index && !work.late {
        let overtaken = inner.overtaken_by(work);
        inner.demand(overtaken.is_none(), || format!("{events:?} are offered before {overtaken:?}"));
    }
    let real = events.iter().all(|event| matches!(event.kind(), Kind::Event | Kind::Unfold));
    inner.demand(real, || format!("{events:?} are not all events"));
}

fn decide(inner: &mut Inner, work: &Work) -> Result<Decision, HandlerError> {
    let poison = work.events.iter().find(|event| !inner.cured && is_poison(event));
    if let Some(poison) = poison {
        let error = HandlerError::new(HandlerErrorKind::Permanent, "poison");
        return Err(if inner.random.bool() && inner.plan.order == Order::Stream {
            error.at_index(poison.index())
        } else {
            error
        });
    }
    if let Some(stalling) = work.events.iter().find(|event| inner.stalls(event)).filter(|_| !work.late) {
        // The events before it are handled.
        let next = stalling.index();
        let effects = work.events.iter().take_while(|event| event.index() < next);
        let effects = effects.map(|event| Value::from(format!("{event:?}").as_str())).collect();
        return Ok(Decision { next: NextIndex::Upto(next), effects, tag: None });
    }
    // `then` acts after three failures. Only poison may fail that often.
    if work.failures < 2 && inner.strikes(12) {
        return Err(HandlerError::new(HandlerErrorKind::Transient, "bad luck"));
    }
    if inner.strikes(40) {
        let kind = if inner.random.bool() { HandlerErrorKind::Unavailable } else { HandlerErrorKind::Throttled };
        return Err(HandlerError::new(kind, "no answer"));
    }
    if inner.strikes(25) {
        let delay = inner.random.u64(1..200);
        let delay = if inner.plan.trials.defers_at_once { 0 } else { delay };
        return Ok(Decision {
            next: NextIndex::Defer(Duration::from_millis(delay)),
            effects: Vec::new().into(),
            tag: None,
        });
    }
    if inner.plan.parking.defers_long && !inner.last && inner.parking.u32(0..60) == 0 {
        let delay = Duration::from_secs(inner.parking.u64(60..120));
        return Ok(Decision { next: NextIndex::Defer(delay), effects: Vec::new().into(), tag: None });
    }
    let next = next(inner, work);
    // In read order, indexes may go back. A decision about all of the work covers all its events.
    let is_covered = |event: &&Event| next >= work.next || event.next_index() <= next && !event.is_unfold();
    let covered = work.events.iter().filter(is_covered);
    let mut effects = Vec::new();
    if inner.random.u32(0..5) == 0 {
        inner.settle(work, next, covered);
    } else {
        effects.extend(covered.map(|event| Value::from(format!("{event:?}").as_str())));
    }
    Ok(Decision {
        next: if next == work.next { NextIndex::All } else { NextIndex::Upto(next) },
        effects: effects.into(),
        tag: None,
    })
}

fn next(inner: &mut Inner, work: &Work) -> i64 {
    if inner.plan.order != Order::Stream || work.late {
        return work.next;
    }
    match inner.random.u32(0..12) {
        0 if work.events.len() > 1 && !work.events[1].is_unfold() => work.events[1].index(),
        1 if !inner.plan.transactional || inner.plan.write_positions => work.next + inner.random.i64(1..3),
        _ => work.next,
    }
}
