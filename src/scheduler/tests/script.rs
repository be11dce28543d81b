//! A small language for feeds and calls, so that a case is a few lines.
//!
//! `read t0: a/0 a/1` brings events; `a/u2` is an unfold (`a/u2x3`: three of one document), `a/p2` a placeholder, `!` a
//! malformed record; `@7` sets the ordinal, `#40` the size of the body. `take` takes one call, `take all` every ready
//! call. `from a` is the ordinal from which the stream of work in flight is parked. `keep a 3` is the write position to
//! store once the stream's work is done up to that index. `take-stuck 30` takes the work that is stuck for 30 ms. `ok
//! a`, `ok a 3`, `fail a`, `fail a @2`, `wait a`, `defer a`, `skip a`, `park a`, `return a`, `singly a` finish work:
//! `fail`, `wait` and `defer` wait 10 ms. `stop-clock a`, `cancel-clock a` and
//! `start-clock a` act on the clock of `stuck_after`.

use std::fmt::Write;
use std::time::Duration;

use expect_test::Expect;

use super::super::{IngestBatch, Options, Order, Outcome, Scheduler};
use super::invariants;
use crate::clock::Timestamp;
use crate::event::{Assembler, Event, Indexes, Kind, malformed};
use crate::position::{Ordinal, OrdinalSet, Position, Progress, TrancheId, WritePosition};
use crate::work::{Work, WorkKind};

pub(super) fn options() -> Options {
    Options {
        order: Order::Stream,
        indexes: Indexes::Dense,
        require_all: false,
        streams_per_call: 1,
        max_events: usize::MAX,
        max_bytes: usize::MAX,
        hash_seed: 7,
    }
}

pub(super) fn check(script: &str, expected: Expect) {
    check_with(options(), script, expected);
}

pub(super) fn check_with(options: Options, script: &str, expected: Expect) {
    let mut runner = Runner::new(options);
    runner.run(script);
    expected.assert_eq(&runner.out);
}

pub(super) struct Runner {
    pub(super) scheduler: Scheduler,
    now: u64,
    /// Ordinals given out, by tranche.
    last: Vec<(String, u64)>,
    works: Vec<Work>,
    pub(super) out: String,
    /// A feed was broken: the later events of its batch are nowhere.
    broken: bool,
}

impl Runner {
    pub(super) fn new(options: Options) -> Self {
        let mut runner = Self {
            scheduler: Scheduler::new(options),
            now: 0,
            last: Vec::new(),
            works: Vec::new(),
            out: String::new(),
            broken: false,
        };
        runner.step("open t0");
        runner
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    /// Runs a script, and checks the invariants after each step.
    pub(super) fn run(&mut self, script: &str) {
        for line in script.lines().flat_map(|line| line.split(';')).map(str::trim).filter(|line| !line.is_empty()) {
            self.step(line);
            if !self.broken {
                invariants::check(&self.scheduler);
            }
        }
    }

    pub(super) fn step(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split_whitespace();
        match verb {
            "open" => self.open(rest),
            "read" => self.read(rest),
            "take" if rest == "all" => while self.take() {},
            "take" => {
                if !self.take() {
                    self.say("nothing");
                }
            }
            "progress" => {
                let progress = self.scheduler.progress(&TrancheId::new(rest));
                self.say(&progress.map_or("not held".to_owned(), |progress| shown(&progress)));
            }
            "with" => self.with(rest),
            "keep" => {
                let (stream, next) = rest.split_once(' ').unwrap();
                let work = self.works.iter().find(|work| work.stream() == stream).unwrap();
                let kept = self.scheduler.write_position_with(work.id, next.parse().unwrap());
                self.say(&format!("keep {}", kept.map_or("nothing".to_owned(), |kept| shown_position(&kept))));
            }
            "moved" => {
                let moved = self.scheduler.take_dirty_streams(&TrancheId::new(rest));
                let mut moved: Vec<_> =
                    moved.iter().map(|(stream, position)| format!("{stream} {}", shown_position(position))).collect();
                moved.sort();
                self.say(&format!("moved {}", if moved.is_empty() { "nothing".to_owned() } else { moved.join(", ") }));
            }
            "from" => {
                let work = self.works.iter().find(|work| work.stream() == rest).unwrap();
                let from = self.scheduler.parked_from(work).map(|at| at.major);
                self.say(&format!("from {from:?}"));
            }
            "revoke" => self.scheduler.revoke(&TrancheId::new(rest)),
            "restore" => {
                let [tranche, stream, at] = [(); 3].map(|()| words.next().unwrap());
                self.scheduler.restore_parked(&TrancheId::new(tranche), stream, ordinal(at));
            }
            "unpark" => {
                for report in self.scheduler.tranches() {
                    self.scheduler.unpark(&report.tranche, rest);
                }
            }
            "tick" => self.now += rest.parse::<u64>().unwrap(),
            "purge" => {
                let purged = self.scheduler.purge();
                self.say(&format!("purged {purged}"));
            }
            "hold" => self.scheduler.set_held(true, self.now()),
            "release" => self.scheduler.set_held(false, self.now()),
            "stop-clock" | "start-clock" | "cancel-clock" => {
                let work = self.works.iter().find(|work| work.stream() == rest).unwrap().id;
                match verb {
                    "stop-clock" => self.scheduler.stop_clock(work, self.now()),
                    "cancel-clock" => self.scheduler.cancel_clock(work),
                    _ => self.scheduler.start_clock(work, self.now()),
                }
            }
            "wake" => {
                let wake = self.scheduler.next_wake().map(|at| at.as_nanos() / 1_000_000);
                self.say(&format!("wake {wake:?}"));
            }
            "stuck" => {
                let stuck = self.scheduler.stuck(Duration::from_millis(rest.parse().unwrap()), self.now());
                let names: Vec<_> =
                    stuck.iter().map(|report| format!("{} running={}", report.stream, report.running)).collect();
                self.say(&format!("stuck {names:?}"));
            }
            "take-stuck" => {
                let limit = Duration::from_millis(rest.parse().unwrap());
                for (_, work) in self.scheduler.take_stuck(limit, self.now()) {
                    self.say(&format!("stuck {}", described(&work)));
                    self.works.push(work);
                }
            }
            "missing" => {
                let missing = self.scheduler.missing(self.now());
                let names = missing.iter().map(|report| format!("{}/{}", report.stream, report.missing.unwrap()));
                let names: Vec<_> = names.collect();
                self.say(&format!("missing {}", names.join(" ")));
            }
            "covered" => {
                let tranche = TrancheId::new(rest);
                let progress = self.scheduler.progress(&tranche).unwrap();
                let handled = self.scheduler.tranche(&tranche).unwrap().completed_events;
                let whole = self.scheduler.covered_events(&tranche, &progress);
                let position = Progress { handled: OrdinalSet::new(), ..progress };
                let cut = self.scheduler.covered_events(&tranche, &position);
                self.say(&format!("handled {handled} covered {whole}, without the set {cut}"));
            }
            "conflict" => {
                let conflict = self.scheduler.take_conflict();
                self.say(&conflict.map_or("no conflict".to_owned(), |conflict| conflict.to_string()));
            }
            "held" => {
                let works = self.works.iter().map(|work| {
                    let asked = (
                        self.scheduler.is_held(work.id),
                        self.scheduler.tranche_of(work.id).is_some(),
                        self.scheduler.write_position_with(work.id, work.next).is_some(),
                    );
                    format!("{} {asked:?}", work.stream())
                });
                let works: Vec<_> = works.collect();
                self.say(&format!("held {}", works.join(", ")));
            }
            "explain" => self.explain(rest),
            "tranche" => self.tranche(rest),
            "counts" => {
                let snapshot = self.scheduler.snapshot(0, self.now());
                self.say(&format!("late {} duplicates {}", snapshot.late_events, snapshot.duplicates));
            }
            "snapshot" => self.snapshot(),
            "ok" | "fail" | "wait" | "defer" | "skip" | "park" | "return" | "singly" => self.finish(verb, &mut words),
            _ => panic!("unknown verb in `{line}`"),
        }
    }

    fn say(&mut self, what: &str) {
        writeln!(self.out, "{what}").unwrap();
    }

    /// `open t0`, `open t0 position=3 set=4-6,8`
    fn open(&mut self, rest: &str) {
        let mut words = rest.split_whitespace();
        let tranche = words.next().unwrap();
        let mut progress = Progress { position: None, handled: OrdinalSet::new(), read_to: None };
        for word in words {
            match word.split_once('=').unwrap() {
                ("position", number) => progress.position = Some(Position::Number(number.parse().unwrap())),
                ("set", runs) => {
                    for run in runs.split(',') {
                        let (first, last) = run.split_once('-').unwrap_or((run, run));
                        progress.handled.push(ordinal(first), ordinal(last));
                    }
                }
                _ => panic!("unknown word in `open {rest}`"),
            }
        }
        let last = match &progress.position {
            Some(Position::Number(number)) => number.cast_unsigned(),
            _ => 0,
        };
        self.last.retain(|(of, _)| of != tranche);
        self.last.push((tranche.to_owned(), last));
        self.scheduler.open(&TrancheId::new(tranche), Some(progress));
    }

    /// `read t0: a/0 b/1`, `read t0 a=5: a/4`, `read t0 a=2..5,3..4: a/4`
    fn read(&mut self, rest: &str) {
        let (head, events) = rest.split_once(':').unwrap();
        let mut head = head.split_whitespace();
        let tranche = head.next().unwrap();
        let positions = head.map(|word| word.split_once('=').unwrap());
        let write_positions = positions.map(|(name, next)| (name.into(), write_position(next))).collect();
        let mut last = self.last.iter().find(|(of, _)| of == tranche).map_or(0, |(_, last)| *last);
        let mut read = Vec::new();
        for word in events.split_whitespace() {
            events_of(word, &mut last, &mut read);
        }
        self.last.retain(|(of, _)| of != tranche);
        self.last.push((tranche.to_owned(), last));
        let resume_at = Position::Number(last.cast_signed());
        let batch = IngestBatch { tranche: TrancheId::new(tranche), events: read, resume_at, write_positions };
        if let Err(broken) = self.scheduler.ingest(batch, self.now()) {
            self.broken = true;
            self.say(&broken.to_string());
        }
    }

    pub(super) fn take(&mut self) -> bool {
        let Some(call) = self.scheduler.take_call(self.now()) else { return false };
        let works: Vec<_> = call.iter().map(described).collect();
        self.say(&works.join(" + "));
        self.works.extend(call);
        true
    }

    fn finish(&mut self, verb: &str, words: &mut std::str::SplitWhitespace<'_>) {
        let stream = words.next().unwrap();
        let at =
            self.works.iter().position(|work| work.stream() == stream || stream == "!" && work.stream().is_empty());
        let work = self.works.remove(at.unwrap_or_else(|| panic!("no work of `{stream}` is in flight")));
        let until = self.now() + Duration::from_millis(10);
        let argument = words.next();
        let outcome = match verb {
            "ok" => Outcome::Done { next: argument.map_or(work.next, |next| next.parse().unwrap()) },
            "fail" => Outcome::Failed { until, at_index: argument.map(|at| at[1..].parse().unwrap()) },
            "wait" => Outcome::Wait { until },
            "defer" => Outcome::Defer { until },
            "skip" => Outcome::Skip,
            "park" => Outcome::Park,
            "singly" => Outcome::Singly,
            _ => Outcome::Return,
        };
        self.scheduler.finish(work, outcome, self.now());
    }

    /// Finishes the call of a stream, if one is in flight.
    pub(super) fn finish_any(&mut self, stream: &str) {
        if self.works.iter().any(|work| work.stream() == stream) {
            self.step(&format!("ok {stream}"));
        }
    }

    /// `with a 3, b 2`: the progress as if these were done.
    fn with(&mut self, rest: &str) {
        let mut done = Vec::new();
        for part in rest.split(',') {
            let mut words = part.split_whitespace();
            let stream = words.next().unwrap();
            let work = self.works.iter().find(|work| work.stream() == stream).unwrap();
            done.push((work.id, words.next().map_or(work.next, |next| next.parse().unwrap())));
        }
        for (tranche, progress) in self.scheduler.progress_with(&done) {
            self.say(&format!("{tranche}: {}", shown(&progress)));
        }
    }

    fn explain(&mut self, stream: &str) {
        let explained = self.scheduler.explain(stream, self.now());
        let mut out = format!("{:?}", explained.state);
        if let Some(report) = &explained.report {
            write!(out, " head={:?} events={}", report.head, report.events).unwrap();
            if report.failures > 0 {
                write!(out, " failures={}", report.failures).unwrap();
            }
            write!(out, " age={}", report.age.as_millis()).unwrap();
            if let Some(until) = report.until {
                write!(out, " until={}", until.as_nanos() / 1_000_000).unwrap();
            }
            if let Some(missing) = report.missing {
                write!(out, " missing={missing}").unwrap();
            }
        }
        write!(out, " write={:?}", explained.write_position).unwrap();
        if !explained.gaps.is_empty() {
            write!(out, " gaps={:?}", explained.gaps).unwrap();
        }
        if let Some(blocks) = explained.blocks {
            write!(out, " blocks={blocks}").unwrap();
        }
        self.say(&out);
    }

    fn tranche(&mut self, tranche: &str) {
        let report = self.scheduler.tranche(&TrancheId::new(tranche)).unwrap();
        let line = format!(
            "batches={}/{} bytes={} ahead={} unhandled={} runs={} completed={}/{} blocked={:?}",
            report.batches,
            report.batches_held,
            report.bytes,
            report.ahead,
            report.unhandled,
            report.set_runs,
            report.completed_batches,
            report.completed_events,
            report.blocked_at.map(|at| at.major)
        );
        self.say(&line);
    }

    fn snapshot(&mut self) {
        let snapshot = self.scheduler.snapshot(2, self.now());
        let mut out = format!("idle={}", snapshot.idle);
        for (name, totals) in [
            ("ready", snapshot.ready),
            ("waiting", snapshot.waiting),
            ("active", snapshot.active),
            ("failing", snapshot.failing),
            ("stalled", snapshot.stalled),
            ("deferred", snapshot.deferred),
            ("parked", snapshot.parked),
        ] {
            if totals.streams > 0 {
                let ages = (totals.newest.as_millis(), totals.oldest.as_millis());
                write!(
                    out,
                    " {name}={}s/{}e/{}c ages={}..{}",
                    totals.streams, totals.events, totals.categories, ages.0, ages.1
                )
                .unwrap();
            }
        }
        let listed: Vec<_> = snapshot.streams.iter().map(|report| report.stream.as_str()).collect();
        self.say(&format!("{out} listed={listed:?}"));
    }
}

fn ordinal(text: &str) -> Ordinal {
    Ordinal::new(text.parse().unwrap(), 0)
}

fn events_of(word: &str, last: &mut u64, read: &mut Vec<Event>) {
    let (word, size) = word.split_once('#').map_or((word, 1), |(word, size)| (word, size.parse().unwrap()));
    let (word, at) = word.split_once('@').map_or((word, None), |(word, at)| (word, Some(at.parse().unwrap())));
    *last = at.unwrap_or(*last + 1);
    let at = Ordinal::new(*last, 0);
    if word == "!" {
        return read.push(malformed(at, None, b"??", "it is not JSON"));
    }
    let (stream, index) = word.split_once('/').unwrap();
    let (kind, index) = match index.split_at(1) {
        ("u", index) => (Kind::Unfold, index),
        ("p", index) => (Kind::Placeholder, index),
        ("!", _) => return read.push(malformed(at, Some(stream), b"??", "it is not JSON")),
        _ => (Kind::Event, index),
    };
    let (index, count) = index.split_once('x').map_or((index, 1), |(index, count)| (index, count.parse().unwrap()));
    for _ in 0..count {
        read.push(event(stream, kind, at, index.parse().unwrap(), size));
    }
}

pub(super) fn event(stream: &str, kind: Kind, at: Ordinal, index: i64, size: usize) -> Event {
    Assembler::new(stream, "").data(&vec![b'x'; size]).build(kind, at, index).unwrap()
}

pub(super) fn described(work: &Work) -> String {
    let mut out = match work.kind {
        WorkKind::Handle => String::new(),
        WorkKind::Park => "park ".to_owned(),
        WorkKind::Malformed => "malformed ".to_owned(),
        WorkKind::Retry => unreachable!("the scheduler hands out no retries of parked events"),
    };
    out.push_str(if work.stream().is_empty() { "!" } else { work.stream() });
    for event in &work.events {
        match event.kind() {
            Kind::Unfold => write!(out, " u{}@{}", event.index(), event.at().major).unwrap(),
            Kind::Malformed => write!(out, " @{}", event.at().major).unwrap(),
            _ => write!(out, " {}", event.index()).unwrap(),
        }
    }
    if work.next != work.events.last().unwrap().next_index() {
        write!(out, " next={}", work.next).unwrap();
    }
    if work.failures > 0 {
        write!(out, " failures={}", work.failures).unwrap();
    }
    if work.late {
        out.push_str(" late");
    }
    out
}

pub(super) fn shown(progress: &Progress) -> String {
    let mut out = progress.position.as_ref().map_or("origin".to_owned(), Position::to_string);
    for (first, last) in progress.handled.runs() {
        write!(out, " {}-{}", first.major, last.major).unwrap();
    }
    out
}

/// `5`: all below it; `2..5,3..4`: from 2 on, but for 3.
fn write_position(word: &str) -> WritePosition {
    let (kept, gaps) = word.split_once(',').unwrap_or((word, ""));
    let Some((first, next)) = kept.split_once("..") else { return WritePosition::upto(word.parse().unwrap()) };
    let gaps = WritePosition::gaps_from_text(&gaps.replace(',', " ")).unwrap();
    WritePosition { first: first.parse().unwrap(), next: next.parse().unwrap(), gaps }
}

fn shown_position(kept: &WritePosition) -> String {
    format!("{}..{} {}", kept.first, kept.next, kept.gaps_as_text()).trim_end().to_owned()
}
