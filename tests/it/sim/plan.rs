//! The seed's decisions about a pipeline.

use propulsiond::event::Indexes;
use propulsiond::pipeline::Then;
use propulsiond::scheduler::Order;

/// The seed's decisions about the pipeline.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) order: Order,
    pub(super) indexes: Indexes,
    pub(super) transactional: bool,
    pub(super) write_positions: bool,
    pub(super) then: Then,
    pub(super) concurrency: usize,
    pub(super) streams_per_call: usize,
    pub(super) read_ahead: usize,
    pub(super) max_events: usize,
    pub(super) faults: bool,
    pub(super) filtered: bool,
    pub(super) lives: u32,
    pub(super) moving: bool,
    pub(super) require_all: bool,
    pub(super) is_operated: bool,
    /// The size limit of a stored set (C14).
    pub(super) max_set_bytes: usize,
    /// The limit of events read ahead of the position.
    pub(super) max_ahead: u64,
    pub(super) trials: Trials,
    pub(super) feed: FeedTrials,
    pub(super) parking: ParkingTrials,
}

/// The trials of parked streams. Drawn apart, so that older seeds keep their meaning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ParkingTrials {
    /// The operator retries parked streams.
    pub(super) retries: bool,
    /// Another version of the handler knows what to do with poison.
    pub(super) cures: bool,
    /// The operator discards events.
    pub(super) discards: bool,
    /// The handler defers for a minute or more.
    pub(super) defers_long: bool,
}

impl ParkingTrials {
    fn draw(seed: u64, plan: &Plan) -> Self {
        let mut random = parking(seed);
        let mut one_in = |chance: u32| random.u32(0..chance) == 0;
        let parks = plan.then == Then::Park;
        Self {
            retries: one_in(2) && parks,
            cures: one_in(2) && parks,
            discards: one_in(6) && parks,
            defers_long: one_in(3) && !plan.feed.without_ordinals && !plan.require_all,
        }
    }
}

/// Properties of the feed, and sorts of handlers. They are drawn apart, so that older seeds keep their meaning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FeedTrials {
    /// The source has no ordinals: each opening numbers the events anew, and progress is a plain position.
    pub(super) without_ordinals: bool,
    /// The streams of a sparse source repeat their newest events.
    pub(super) repeats: bool,
    /// The tranches of a sparse source have streams of the same names.
    pub(super) same_names: bool,
    /// One tranche brings an event of another one's stream (C4).
    pub(super) broken: bool,
    /// The handler defers an event with a delay of zero, over and over, until the operator stops the process.
    pub(super) spins: bool,
    /// The handler blocks: it runs on threads.
    pub(super) blocking: bool,
}

impl FeedTrials {
    fn draw(seed: u64, plan: &Plan) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5851_f42d_4c95_7f2d);
        let mut one_in = |chance: u32| random.u32(0..chance) == 0;
        let (is_sparse, by_stream) = (plan.indexes == Indexes::Sparse, plan.order == Order::Stream);
        let without_ordinals = one_in(6) && plan.then != Then::Park;
        Self {
            // An ordinal identifies a parked event, so such a source cannot park.
            without_ordinals,
            repeats: is_sparse && one_in(2),
            same_names: is_sparse && one_in(2),
            // A later life may not remember the event of the other tranche.
            broken: one_in(8)
                && !is_sparse
                && by_stream
                && !without_ordinals
                && plan.then != Then::Halt
                && plan.lives == 1,
            spins: one_in(8) && by_stream && !plan.trials.stops,
            blocking: false,
        }
    }
}

/// Later additions: faults and operations. They are drawn apart, so that older seeds keep their meaning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trials {
    /// Two members of a group take tranches from each other.
    pub(super) members: bool,
    /// Another process claims one of several tranches.
    pub(super) outsider: bool,
    /// Earlier lives end at the tail, like the last one.
    pub(super) jobs: bool,
    /// The operator stops a process.
    pub(super) stops: bool,
    /// The drain deadline is short.
    pub(super) short_drain: bool,
    /// The start and the readers fail, and the pipeline restarts.
    pub(super) restarts: bool,
    /// Some events make no progress, until `stuck_after`.
    pub(super) stalls: bool,
    /// The handler defers with a delay of zero.
    pub(super) defers_at_once: bool,
}

impl Trials {
    fn draw(random: &mut fastrand::Rng, order: Order) -> Self {
        let mut one_in = |chance: u32| random.u32(0..chance) == 0;
        let stops = one_in(4);
        Self {
            members: one_in(4),
            outsider: one_in(4),
            jobs: one_in(4),
            stops,
            short_drain: stops && one_in(2),
            restarts: !stops && one_in(4),
            stalls: one_in(5) && order == Order::Stream,
            defers_at_once: one_in(5),
        }
    }
}

/// Returns the limit of reading ahead. Logs are longer than the small limits and shorter than the large one.
fn max_ahead(seed: u64, require_all: bool) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x2545_f491_4f6c_dd1d);
    // Beyond a small limit, a missing event would never be read.
    let is_small = random.u32(0..4) == 0 && !require_all;
    if is_small { random.u64(1..40) } else { 500 }
}

/// Returns the random numbers of the trials.
pub(super) fn trials(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15)
}

/// Returns the random numbers of parked streams.
pub(super) fn parking(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed ^ 0xd6e8_feb8_6659_fd93)
}

impl Plan {
    pub(super) fn draw(random: &mut fastrand::Rng, seed: u64) -> Self {
        let transactional = random.bool();
        let order = match random.u32(0..10) {
            0 => Order::None,
            1 => Order::Tranche,
            _ => Order::Stream,
        };
        let indexes = if random.u32(0..4) == 0 { Indexes::Sparse } else { Indexes::Dense };
        let require_all = order == Order::Stream && indexes == Indexes::Dense && random.u32(0..6) == 0;
        let mut plan = Self {
            order,
            indexes,
            transactional,
            write_positions: transactional && order == Order::Stream && random.bool() || require_all,
            then: [Then::Skip, Then::Park, Then::Skip, Then::Park, Then::Halt][random.usize(0..5)],
            concurrency: random.usize(1..12),
            streams_per_call: if random.u32(0..4) == 0 { random.usize(2..5) } else { 1 },
            read_ahead: if require_all { random.usize(4..8) } else { random.usize(1..6) },
            max_events: random.usize(1..20),
            faults: random.u32(0..5) > 0,
            filtered: random.bool(),
            lives: random.u32(1..5),
            moving: random.u32(0..3) == 0,
            require_all,
            is_operated: random.u32(0..3) == 0,
            // A transaction keeps 48 bytes free for the run of the oldest event.
            max_set_bytes: match random.u32(0..4) {
                0 if transactional => random.usize(64..200),
                0 => random.usize(8..100),
                _ => 64 * 1024,
            },
            max_ahead: max_ahead(seed, require_all),
            trials: Trials::draw(&mut trials(seed), order),
            feed: FeedTrials::default(),
            parking: ParkingTrials::default(),
        };
        plan.feed = FeedTrials::draw(seed, &plan);
        plan.parking = ParkingTrials::draw(seed, &plan);
        plan
    }

    /// Changes the plan for a blocking handler. Its threads run in real time, so the run is not reproducible. The checks
    /// of immediate reactions would fail: changes of the group and other trials are off.
    pub(super) fn block(&mut self) {
        (self.moving, self.is_operated, self.lives) = (false, false, self.lives.min(2));
        self.trials = Trials::default();
        self.parking = ParkingTrials { cures: self.parking.cures, ..ParkingTrials::default() };
        self.feed = FeedTrials { blocking: true, broken: false, spins: false, ..self.feed };
    }
}
