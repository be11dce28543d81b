//! A random walk beside a naive model: feeds with everything that feeds do, calls that end in every way, tranches that come
//! and go. A failure names its seed.

mod checks;

use std::collections::{HashMap, HashSet};

use super::super::{IngestBatch, Options, Order, Outcome, Scheduler};
use super::{invariants, script};
use crate::clock::Timestamp;
use crate::event::{Event, Indexes, Kind, malformed};
use crate::position::{Ordinal, Position, Progress, TrancheId, WritePosition};
use crate::work::{Work, WorkKind};

/// One tranche's log, which outlives its assignments.
struct Log {
    id: TrancheId,
    events: Vec<Event>,
    /// Ends of batches that were read once: where reading may resume.
    read: usize,
    held: bool,
    opened: Progress,
    /// The events that were offered and handled since it was opened.
    handled: HashSet<Ordinal>,
    next_at: u64,
    /// Per stream: the next index, and those that were left out.
    streams: Vec<(i64, Vec<i64>)>,
}

#[derive(Default)]
struct Handled {
    indexes: HashSet<(String, i64)>,
    records: HashSet<(TrancheId, Ordinal)>,
    /// Ranges that a call passed.
    passed: Vec<(String, i64, i64)>,
    /// The index below which unfolds are handled or superseded, by stream.
    unfolds: HashMap<String, i64>,
}

struct Walk {
    random: fastrand::Rng,
    scheduler: Scheduler,
    options: Options,
    now: u64,
    logs: Vec<Log>,
    in_flight: Vec<Work>,
    handled: Handled,
    placeholders: HashSet<(String, i64)>,
    parked: HashMap<(TrancheId, String), Ordinal>,
}

impl Walk {
    fn new(seed: u64, options: Options) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut walk = Self {
            scheduler: Scheduler::new(options.clone()),
            options,
            now: 1,
            logs: Vec::new(),
            in_flight: Vec::new(),
            handled: Handled::default(),
            placeholders: HashSet::new(),
            parked: HashMap::new(),
            random: random.fork(),
        };
        for tranche in 0..random.usize(1..4) {
            walk.logs.push(Log {
                id: TrancheId::new(format!("t{tranche}")),
                events: Vec::new(),
                read: 0,
                held: false,
                opened: Progress { position: None, handled: Default::default(), read_to: None },
                handled: HashSet::new(),
                next_at: 0,
                streams: vec![(0, Vec::new()); random.usize(1..5)],
            });
            walk.open(tranche);
        }
        walk
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    fn step(&mut self) {
        match self.random.u32(0..100) {
            0..30 => {
                let tranche = self.random.usize(0..self.logs.len());
                if self.random.u32(0..4) > 0 {
                    self.write(tranche);
                }
                self.read(tranche);
            }
            30..60 => _ = self.take(),
            60..92 => self.finish(),
            92..96 => self.now += self.random.u64(1..20),
            96 => self.revoke(),
            97 => {
                let closed: Vec<_> = (0..self.logs.len()).filter(|&at| !self.logs[at].held).collect();
                closed.into_iter().for_each(|tranche| self.open(tranche));
            }
            98 => self.unpark(),
            _ => {
                if self.random.u32(0..4) == 0 && !self.options.require_all {
                    self.scheduler.purge();
                    // A purged stream may see duplicates again.
                    self.logs.iter_mut().for_each(|log| log.handled.clear());
                }
            }
        }
        invariants::check(&self.scheduler);
        self.check_progress();
    }

    /// Appends to a log: next events, left-out events, repeats, unfolds, placeholders.
    fn write(&mut self, tranche: usize) {
        for _ in 0..self.random.usize(0..8) {
            let log = &mut self.logs[tranche];
            let stream = self.random.usize(0..log.streams.len());
            let name = format!("s-{tranche}.{stream}");
            let (next, left_out) = &mut log.streams[stream];
            log.next_at += 1 + u64::from(self.random.u32(0..5) == 0);
            let at = Ordinal::new(log.next_at, 0);
            let dense = self.options.indexes == Indexes::Dense && self.options.order == Order::Stream;
            let (kind, index, count) = match self.random.u32(0..20) {
                0 if dense => {
                    left_out.push(*next);
                    *next += 2;
                    (Kind::Event, *next - 1, 1)
                }
                1 | 2 if !left_out.is_empty() => {
                    (Kind::Event, left_out.swap_remove(self.random.usize(0..left_out.len())), 1)
                }
                3 | 4 if dense && *next > 0 => {
                    let index = self.random.i64(0..*next);
                    (if left_out.contains(&index) { Kind::Unfold } else { Kind::Event }, index, 1)
                }
                5..8 => {
                    (Kind::Unfold, *next - i64::from(*next > 0 && self.random.u32(0..4) == 0), self.random.usize(1..3))
                }
                8 | 9 => {
                    *next += 1;
                    self.placeholders.insert((name.clone(), *next - 1));
                    (Kind::Placeholder, *next - 1, 1)
                }
                10 if self.random.bool() => {
                    log.events.push(malformed(at, Some(&name), b"?", "?"));
                    continue;
                }
                _ => {
                    *next += 1 + if dense { 0 } else { self.random.i64(0..3) };
                    (Kind::Event, *next - 1, 1)
                }
            };
            let kind = if self.placeholders.contains(&(name.clone(), index)) && kind == Kind::Event {
                Kind::Placeholder
            } else {
                kind
            };
            for _ in 0..count {
                log.events.push(script::event(&name, kind, at, index, 3));
            }
        }
    }

    fn open(&mut self, tranche: usize) {
        let log = &mut self.logs[tranche];
        log.read = match &log.opened.position {
            Some(Position::Number(read)) => usize::try_from(*read).unwrap(),
            _ => 0,
        };
        log.held = true;
        log.handled.clear();
        self.scheduler.open(&log.id, Some(log.opened.clone()));
        for ((of, stream), &first) in self.parked.iter().filter(|((of, _), _)| *of == log.id) {
            self.scheduler.restore_parked(of, stream, first);
        }
    }

    fn revoke(&mut self) {
        let tranche = self.random.usize(0..self.logs.len());
        let log = &mut self.logs[tranche];
        if log.held {
            log.opened = self.scheduler.progress(&log.id).unwrap();
            log.held = false;
            self.scheduler.revoke(&log.id);
        }
    }

    fn read(&mut self, tranche: usize) {
        let log = &self.logs[tranche];
        if !log.held {
            return;
        }
        let mut end = (log.read + self.random.usize(0..10)).min(log.events.len());
        // The unfolds of a document are never torn apart.
        while end > log.read && end < log.events.len() && log.events[end].at() == log.events[end - 1].at() {
            end += 1;
        }
        let events = log.events[log.read..end].to_vec();
        let mut write_positions: Vec<(Box<str>, WritePosition)> = Vec::new();
        if self.options.require_all {
            let names: HashSet<_> = events.iter().map(Event::stream).collect();
            write_positions =
                names.into_iter().map(|name| (name.into(), WritePosition::upto(self.next_of(name)))).collect();
            for (name, position) in &write_positions {
                let name: &str = name;
                let supersedes = self.handled.unfolds.entry(name.to_owned()).or_insert(i64::MIN);
                *supersedes = (*supersedes).max(position.next);
            }
        }
        let (id, resume_at) = (log.id.clone(), Position::Number(end as i64));
        self.logs[tranche].read = end;
        let batch = IngestBatch { tranche: id, events, resume_at, write_positions };
        self.scheduler.ingest(batch, self.now()).unwrap();
    }

    fn take(&mut self) -> bool {
        let Some(call) = self.scheduler.take_call(self.now()) else { return false };
        assert!(call.len() <= self.options.streams_per_call);
        for work in call {
            self.check_work(&work);
            self.in_flight.push(work);
        }
        true
    }

    fn finish(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let work = self.in_flight.swap_remove(self.random.usize(0..self.in_flight.len()));
        let until = Timestamp::from_millis(self.now + self.random.u64(0..30));
        let outcome = match self.random.u32(0..20) {
            0 => Outcome::Defer { until },
            1 => Outcome::Wait { until },
            2 => Outcome::Failed { until, at_index: None },
            3 => Outcome::Failed { until, at_index: Some(work.first() + self.random.i64(0..4)) },
            4 => Outcome::Skip,
            5 if self.random.bool() => Outcome::Park,
            6 if self.random.bool() => Outcome::Return,
            6 => Outcome::Singly,
            7 | 8 => {
                let next = self.random.i64(work.first()..=work.next.max(work.first()));
                let next = if next <= work.first() { work.next } else { next };
                Outcome::Done { next }
            }
            9 if self.options.order == Order::Stream && work.kind == WorkKind::Handle && self.random.bool() => {
                Outcome::Done { next: work.next + self.random.i64(0..4) }
            }
            _ => Outcome::Done { next: work.next },
        };
        self.finish_with(work, outcome);
    }

    fn finish_with(&mut self, work: Work, outcome: Outcome) {
        let next = match outcome {
            Outcome::Done { next } => Some(next),
            Outcome::Skip if work.is_single() => Some(work.next),
            Outcome::Skip => Some(work.events[0].next_index()),
            _ => None,
        };
        let log = self
            .logs
            .iter()
            .position(|log| work.stream().starts_with(&format!("s-{}.", &log.id.as_str()[1..])))
            .unwrap();
        let id = self.logs[log].id.clone();
        let is_held = self.scheduler.is_held(work.id);
        let preview = next.map(|next| self.preview(&id, &work, next));
        if let (Some(next), true) = (next, is_held) {
            self.note(log, &work, next);
        }
        let (stream, kind, shown) = (work.stream().to_owned(), work.kind, format!("{work:?}"));
        let siblings = self.options.order == Order::Tranche && self.options.streams_per_call > 1;
        self.scheduler.finish(work, outcome, self.now());
        if let Some(Some(preview)) = preview.filter(|_| !siblings) {
            assert_eq!(Some(preview), self.scheduler.progress(&id), "{shown} {outcome:?}");
        }
        if is_held && next.is_some() && kind == WorkKind::Park {
            self.note_parked(&id, &stream);
        }
    }

    fn unpark(&mut self) {
        let streams: HashSet<_> =
            self.logs.iter().flat_map(|log| &log.events).map(|event| event.stream().to_owned()).collect();
        let mut streams: Vec<_> = streams.into_iter().collect();
        streams.sort();
        if !streams.is_empty() {
            let stream = streams.swap_remove(self.random.usize(0..streams.len()));
            for log in &self.logs {
                self.scheduler.unpark(&log.id, &stream);
            }
            self.parked.retain(|(_, parked), _| *parked != stream);
        }
    }

    /// Lets everything that can go, go; then nothing may be left.
    fn end(&mut self) {
        self.scheduler.set_held(false, self.now());
        for tranche in 0..self.logs.len() {
            if self.options.require_all {
                self.fill(tranche);
            }
            if !self.logs[tranche].held {
                self.open(tranche);
            }
            while self.logs[tranche].read < self.logs[tranche].events.len() {
                self.read(tranche);
            }
        }
        loop {
            self.now += 100;
            while self.take() {}
            if self.in_flight.is_empty() {
                break;
            }
            while let Some(work) = self.in_flight.pop() {
                let next = work.next;
                self.finish_with(work, Outcome::Done { next });
                invariants::check(&self.scheduler);
            }
        }
        self.check_progress();
        for log in &self.logs {
            let report = self.scheduler.tranche(&log.id).unwrap();
            assert_eq!((report.unhandled, report.batches_held, report.set_runs), (0, 0, 0), "{report:?}");
            assert_eq!(report.bytes, 0);
            let progress = self.scheduler.progress(&log.id).unwrap();
            assert!(log.events.is_empty() || progress.position == Some(Position::Number(log.events.len() as i64)));
            assert!(log.events.iter().all(|event| self.may_be_covered(&log.id, event)));
        }
        assert_eq!(self.scheduler.nodes.used(), 0);
        assert_eq!(self.scheduler.next_wake(), None);
    }

    /// Appends the left-out events.
    fn fill(&mut self, tranche: usize) {
        let log = &mut self.logs[tranche];
        for (stream, (_, left_out)) in log.streams.iter_mut().enumerate() {
            for index in left_out.drain(..) {
                log.next_at += 1;
                let name = format!("s-{tranche}.{stream}");
                let at = Ordinal::new(log.next_at, 0);
                log.events.push(script::event(&name, Kind::Event, at, index, 3));
            }
        }
    }
}

/// `PROPULSIOND_SEED=7` repeats one walk, `PROPULSIOND_SEEDS=5000` makes as many of each kind.
fn walk(options: &Options) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match (number("PROPULSIOND_SEED"), number("PROPULSIOND_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, seeds) => 0..seeds.unwrap_or(SEEDS),
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| {
            let mut walk = Walk::new(seed, options.clone());
            for _ in 0..250 {
                walk.step();
            }
            walk.end();
        });
        assert!(result.is_ok(), "the walk fails with PROPULSIOND_SEED={seed}");
    }
}

const SEEDS: u64 = 25;

#[test]
fn a_walk_over_dense_streams_handles_everything_and_covers_nothing_else() {
    walk(&script::options());
    walk(&Options { max_events: 2, ..script::options() });
}

#[test]
fn a_walk_with_several_streams_a_call() {
    walk(&Options { streams_per_call: 3, max_bytes: 7, ..script::options() });
}

#[test]
fn a_walk_over_sparse_streams() {
    walk(&Options { indexes: Indexes::Sparse, ..script::options() });
}

#[test]
fn a_walk_with_require_all() {
    walk(&Options { require_all: true, ..script::options() });
}

#[test]
fn a_walk_without_order() {
    walk(&Options { order: Order::None, streams_per_call: 2, ..script::options() });
}

#[test]
fn a_walk_in_read_order() {
    walk(&Options { order: Order::Tranche, ..script::options() });
    walk(&Options { order: Order::Tranche, streams_per_call: 3, ..script::options() });
}

#[test]
fn one_seed_gives_one_walk() {
    let trace = |seed| {
        let mut walk = Walk::new(seed, script::options());
        (0..200).for_each(|_| walk.step());
        (
            format!("{:?}", walk.in_flight),
            format!("{:?}", walk.scheduler.tranches()),
            walk.scheduler.snapshot(9, walk.now()),
        )
    };
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3).1, trace(4).1);
}
