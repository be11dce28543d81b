use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use super::super::rate::Rate;
use super::*;
use crate::config::settings::LogFormat;
use crate::position::{Position, Progress, TrancheId};
use crate::scheduler::TrancheReport;
use crate::source::Lag;
use crate::telemetry::health::State;
use crate::telemetry::logging::tests::captured;
use crate::telemetry::metrics::Recent;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn standing(state: State) -> Standing {
    Standing { state, reason: "because".to_owned(), since: at(0), restarts: 0 }
}

/// The counts after that many events, a tenth of them in failed calls.
fn totals(events: u64) -> Totals {
    let recent = Recent { min: 0.0001, mean: 0.0042, stddev: 0.0031, p50: 0.004, p95: 0.009, p99: 0.012, max: 0.0304 };
    let calls = |kind: &str, calls| KindTotals { kind: kind.into(), calls, recent: Some(recent) };
    let tranche = TrancheTotals {
        pages: events / 100,
        events,
        read_seconds: events as f64 / 10_000.0,
        waited_seconds: events as f64 / 20_000.0,
        read_failures: 0,
        commits: events / 200,
        commit_failures: 0,
    };
    Totals {
        events,
        skipped: 0,
        restarts: 0,
        calls: vec![calls(OK, events / 2), calls("exception", events / 10)],
        loop_seconds: vec![
            (Activity::Ingest, events as f64 / 1_000.0),
            (Activity::Dispatch, events as f64 / 2_000.0),
            (Activity::Results, events as f64 / 4_000.0),
        ],
        tranches: BTreeMap::from([(TrancheId::new("orders/0"), tranche)]),
    }
}

fn report(unhandled: u64) -> TrancheReport {
    TrancheReport {
        tranche: TrancheId::new("orders/0"),
        batches: 2,
        batches_held: 3,
        bytes: 34_000,
        ahead: 700,
        unhandled,
        in_flight: 4,
        set_runs: 9,
        version: 17,
        completed_batches: 40,
        completed_events: 4_000,
        blocked_at: None,
        blocked_since: (unhandled > 0).then(|| at(50)),
    }
}

/// A pipeline with so many events unhandled; without any it is at its tail, with everything stored.
fn view(unhandled: u64) -> View {
    let position = |number| Position::Number(number);
    let tranche = TrancheView {
        tranche: "orders/0".to_owned(),
        phase: "reading",
        at_tail: unhandled == 0,
        lag: (unhandled > 0).then_some(Lag { amount: 1_200, unit: LagUnit::Events }),
        read: Some(position(4_700)),
        committed: Some(Progress::at(position(if unhandled > 0 { 4_000 } else { 4_700 }))),
        stored_at: Some(if unhandled > 0 { "4000" } else { "4700" }.to_owned()),
        committed_at: Some(at(110)),
        report: Some(report(unhandled)),
        trouble: None,
        waits_for: None,
    };
    View {
        at: at(120),
        tranches: vec![tranche],
        streams: Snapshot { idle: 9_000, ..Snapshot::default() },
        outage: None,
        outage_answers: false,
        checkpoint_failing: None,
        source_failing: None,
        missing: None,
        failures: Vec::new(),
        skipped: 0,
        parked: 0,
        handled_at: at(119),
        rate: Rate::new(at(0)),
        calls: 0,
        writing: 0,
        settled: true,
    }
}

fn stream(name: &str, state: StreamState, head: i64, failures: u32, age: u64) -> StreamReport {
    StreamReport {
        missing: None,
        stream: name.to_owned(),
        tranche: TrancheId::new("orders/0"),
        state,
        running: state == StreamState::Active,
        head: Some(head),
        events: 3,
        bytes: 300,
        failures,
        age: Duration::from_secs(age),
        until: None,
    }
}

fn state(streams: usize, oldest: u64, newest: u64) -> StateTotals {
    StateTotals {
        streams,
        events: 3 * streams,
        bytes: 300 * streams,
        categories: 1,
        oldest: Duration::from_secs(oldest),
        newest: Duration::from_secs(newest),
    }
}

/// A pipeline that has a bit of everything.
fn busy() -> View {
    let streams = Snapshot {
        idle: 9_000,
        ready: state(12, 3, 1),
        active: state(1, 9, 9),
        failing: state(2, 63, 4),
        stalled: state(1, 300, 300),
        parked: state(1, 7_200, 7_200),
        late_events: 2,
        streams: vec![
            stream("order-9", StreamState::Parked, 5, 3, 7_200),
            stream("order-7", StreamState::Stalled, 0, 0, 300),
            stream("order-1", StreamState::Failing, 17, 4, 63),
            stream("order-4", StreamState::Active, 2, 0, 9),
            stream("order-2", StreamState::Failing, 8, 1, 4),
        ],
        largest: vec![stream("order-5", StreamState::Ready, 1, 0, 3)],
        ..Snapshot::default()
    };
    View { streams, calls: 1, writing: 3, outage: Some(("connection refused".to_owned(), at(100))), ..view(340) }
}

fn reading(seconds: u64, events: u64, state: State, view: View) -> Reading {
    Reading { at: at(seconds), totals: totals(events), standing: standing(state), view: Some(view) }
}

/// Asserts what is logged at each of these readings.
fn check(format: LogFormat, readings: &[Reading], expected: &Expect) {
    let mut stats = Stats::new(readings[0].clone());
    let logged = captured(format, false, "debug", |_| {
        let span = crate::runtime::supervise::pipeline_span("orders");
        span.in_scope(|| readings[1..].iter().for_each(|reading| stats.log(reading.clone())));
    });
    expected.assert_eq(&logged);
}

#[test]
fn text_stats_are_lines_of_fields() {
    let readings = [reading(60, 4_000, State::Running, view(0)), reading(120, 16_000, State::Running, busy())];
    check(
        LogFormat::Text,
        &readings,
        &expect![[r#"
            TIME  INFO stats state=running handled=12000 per_second=200 calls=7200 not_ok=1200 running=1 writing=3 unhandled=340 lag_events=1200 parked=1 stored_at="4000" waits_for="connection refused" pipeline=orders
            TIME DEBUG stats: calls kind="ok" calls=6000 max=0.0304 p99=0.012 p95=0.009 p50=0.004 min=0.0001 mean=0.0042 stddev=0.0031 pipeline=orders
            TIME DEBUG stats: calls kind="exception" calls=1200 max=0.0304 p99=0.012 p95=0.009 p50=0.004 min=0.0001 mean=0.0042 stddev=0.0031 pipeline=orders
            TIME DEBUG stats: loop ingest=12.0 dispatch=6.0 results=3.0 busy_percent=35 pipeline=orders
            TIME DEBUG stats: streams idle=9000 ready=12 active=1 failing=2 stalled=1 parked=1 late=2 events=45 bytes=4500 largest="order-5@1×3 300 bytes" pipeline=orders
            TIME ERROR stats: stalled streams=1 events=3 oldest_seconds=300 newest_seconds=300 longest="order-7@0×3 300s" pipeline=orders
            TIME  WARN stats: failing streams=2 events=6 oldest_seconds=63 newest_seconds=4 attempts=4 longest="order-1@17×3 63s, order-2@8×3 4s" pipeline=orders
            TIME DEBUG stats: active streams=1 events=3 oldest_seconds=9 newest_seconds=9 longest="order-4@2×3 9s" pipeline=orders
            TIME DEBUG stats: parked streams=1 events=3 oldest_seconds=7200 newest_seconds=7200 attempts=3 longest="order-9@5×3 7200s" pipeline=orders
            TIME DEBUG stats: tranche tranche="orders/0" state="busy" read=4700 stored="4000" lag_events=1200 pages=120 events=12000 read_seconds=1.2 waited_seconds=0.6 unhandled=340 ahead=700 batches=3 bytes=34000 blocked_seconds=70 commits=60 pipeline=orders
        "#]],
    );
}

#[test]
fn a_running_pipeline_logs_one_line_at_the_default_level() {
    let mut stats = Stats::new(reading(60, 4_000, State::Running, view(0)));
    let next = reading(120, 16_000, State::Running, view(0));
    let logged = captured(LogFormat::Text, false, "info", |_| stats.log(next));
    expect![[r#"
        TIME  INFO stats state=running handled=12000 per_second=200 calls=7200 not_ok=1200 stored_at="4700"
    "#]]
    .assert_eq(&logged);
}

#[test]
fn json_stats_are_fields() {
    let readings = [reading(60, 4_000, State::Running, view(0)), reading(120, 16_000, State::Running, busy())];
    check(
        LogFormat::Json,
        &readings,
        &expect![[r#"
            {"calls":7200,"handled":12000,"lag_events":1200,"level":"INFO","message":"stats","not_ok":1200,"parked":1,"per_second":200,"pipeline":"orders","running":1,"state":"running","stored_at":"4000","target":"propulsiond::stats","time":"TIME","unhandled":340,"waits_for":"connection refused","writing":3}
            {"calls":6000,"kind":"ok","level":"DEBUG","max":0.0304,"mean":0.0042,"message":"stats: calls","min":0.0001,"p50":0.004,"p95":0.009,"p99":0.012,"pipeline":"orders","stddev":0.0031,"target":"propulsiond::stats","time":"TIME"}
            {"calls":1200,"kind":"exception","level":"DEBUG","max":0.0304,"mean":0.0042,"message":"stats: calls","min":0.0001,"p50":0.004,"p95":0.009,"p99":0.012,"pipeline":"orders","stddev":0.0031,"target":"propulsiond::stats","time":"TIME"}
            {"busy_percent":35,"dispatch":6.0,"ingest":12.0,"level":"DEBUG","message":"stats: loop","pipeline":"orders","results":3.0,"target":"propulsiond::stats","time":"TIME"}
            {"active":1,"bytes":4500,"events":45,"failing":2,"idle":9000,"largest":"order-5@1×3 300 bytes","late":2,"level":"DEBUG","message":"stats: streams","parked":1,"pipeline":"orders","ready":12,"stalled":1,"target":"propulsiond::stats","time":"TIME"}
            {"events":3,"level":"ERROR","longest":"order-7@0×3 300s","message":"stats: stalled","newest_seconds":300,"oldest_seconds":300,"pipeline":"orders","streams":1,"target":"propulsiond::stats","time":"TIME"}
            {"attempts":4,"events":6,"level":"WARN","longest":"order-1@17×3 63s, order-2@8×3 4s","message":"stats: failing","newest_seconds":4,"oldest_seconds":63,"pipeline":"orders","streams":2,"target":"propulsiond::stats","time":"TIME"}
            {"events":3,"level":"DEBUG","longest":"order-4@2×3 9s","message":"stats: active","newest_seconds":9,"oldest_seconds":9,"pipeline":"orders","streams":1,"target":"propulsiond::stats","time":"TIME"}
            {"attempts":3,"events":3,"level":"DEBUG","longest":"order-9@5×3 7200s","message":"stats: parked","newest_seconds":7200,"oldest_seconds":7200,"pipeline":"orders","streams":1,"target":"propulsiond::stats","time":"TIME"}
            {"ahead":700,"batches":3,"blocked_seconds":70,"bytes":34000,"commits":60,"events":12000,"lag_events":1200,"level":"DEBUG","message":"stats: tranche","pages":120,"pipeline":"orders","read":"4700","read_seconds":1.2,"state":"busy","stored":"4000","target":"propulsiond::stats","time":"TIME","tranche":"orders/0","unhandled":340,"waited_seconds":0.6}
        "#]],
    );
}

#[test]
fn r68_an_idle_pipeline_logs_nothing() {
    let idle = |seconds| reading(seconds, 4_000, State::Running, view(0));
    check(LogFormat::Text, &[idle(60), idle(120), idle(180)], &expect![""]);
}

#[test]
fn a_lasting_failure_is_logged_again_although_nothing_happens() {
    let stuck = |seconds| {
        let streams = Snapshot {
            failing: state(1, seconds, seconds),
            streams: vec![stream("order-1", StreamState::Failing, 17, 4, seconds)],
            ..Snapshot::default()
        };
        reading(seconds, 4_000, State::Running, View { streams, ..view(0) })
    };
    check(
        LogFormat::Text,
        &[stuck(60), stuck(120)],
        &expect![[r#"
            TIME  INFO stats state=running handled=0 per_second=0 calls=0 stored_at="4700" pipeline=orders
            TIME DEBUG stats: loop ingest=0.0 dispatch=0.0 results=0.0 busy_percent=0 pipeline=orders
            TIME DEBUG stats: streams idle=0 ready=0 active=0 failing=1 events=3 bytes=300 pipeline=orders
            TIME  WARN stats: failing streams=1 events=3 oldest_seconds=120 newest_seconds=120 attempts=4 longest="order-1@17×3 120s" pipeline=orders
        "#]],
    );
}

#[test]
fn a_change_of_state_is_logged_although_nothing_was_counted() {
    let readings = [reading(60, 4_000, State::Running, view(0)), reading(120, 4_000, State::Paused, view(0))];
    check(
        LogFormat::Text,
        &readings,
        &expect![[r#"
            TIME  INFO stats state=paused handled=0 per_second=0 calls=0 stored_at="4700" pipeline=orders
            TIME DEBUG stats: loop ingest=0.0 dispatch=0.0 results=0.0 busy_percent=0 pipeline=orders
            TIME DEBUG stats: streams idle=9000 ready=0 active=0 events=0 bytes=0 pipeline=orders
        "#]],
    );
}

#[test]
fn the_tranches_farthest_ahead_are_shown_and_the_others_counted() {
    let mut view = view(0);
    let one = view.tranches.remove(0);
    view.tranches = (0..20)
        .map(|number| TrancheView {
            tranche: format!("{number:02}"),
            report: Some(TrancheReport { ahead: number, ..report(1) }),
            ..one.clone()
        })
        .collect();
    let mut stats = Stats::new(reading(60, 4_000, State::Running, view.clone()));
    let logged = captured(LogFormat::Text, false, "debug", |_| stats.log(reading(120, 8_000, State::Running, view)));
    let shown: Vec<_> = logged.lines().filter(|line| line.contains("stats: tranche ")).collect();
    assert_eq!(shown.len(), TRANCHES);
    assert!(shown[0].contains("tranche=\"19\"") && shown[15].contains("tranche=\"04\""), "{logged}");
    assert!(logged.trim_end().ends_with("stats: other tranches tranches=4"), "{logged}");
}
