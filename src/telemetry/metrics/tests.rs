use std::time::Duration;

use expect_test::{Expect, expect};
use time::OffsetDateTime;

use super::*;
use crate::clock::{Timestamp, wall};
use crate::position::{Ordinal, Position, TrancheId};
use crate::scheduler::{Snapshot, StateTotals, TrancheReport};
use crate::source::{Lag, LagUnit};
use crate::telemetry::health::State;

struct Fixture {
    metrics: Metrics,
    clock: Clock,
    orders: PipelineMetrics,
    tranche: TrancheMetrics,
}

impl Fixture {
    fn new() -> Self {
        let clock = Clock::start();
        let metrics = Metrics::new(clock);
        let orders = metrics.pipeline("orders", "orders-v1");
        let tranche = orders.tranche("shop", &TrancheId::new("0"));
        Self { metrics, clock, orders, tranche }
    }

    /// Returns the samples whose name begins so.
    fn samples(&self, prefix: &str) -> String {
        let text = self.metrics.encode();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(prefix)).collect();
        lines.join("\n")
    }

    fn check(&self, prefix: &str, expected: &Expect) {
        expected.assert_eq(&self.samples(prefix));
    }
}

fn page(events: usize) -> PageRead<'static> {
    PageRead { events, took: Duration::from_millis(3), resume_at: &Position::Number(41), newest: None, lag: None }
}

fn totals(streams: usize, oldest: u64) -> StateTotals {
    StateTotals {
        streams,
        events: streams * 10,
        bytes: streams * 1_000,
        categories: 1,
        oldest: Duration::from_secs(oldest),
        newest: Duration::from_millis(500),
    }
}

#[test]
fn a_snapshot_shows_under_the_names_of_propulsions_states() {
    let fixture = Fixture::new();
    fixture.orders.show(&Snapshot {
        idle: 100,
        ready: totals(1, 0),
        waiting: totals(2, 0),
        active: totals(3, 9),
        failing: totals(4, 60),
        stalled: totals(5, 0),
        deferred: totals(6, 0),
        parked: totals(7, 0),
        ..Snapshot::default()
    });
    fixture.check(
        "propulsion_scheduler_streams",
        &expect![[r#"
        propulsion_scheduler_streams{pipeline="orders",group="orders-v1",state="active"} 3
        propulsion_scheduler_streams{pipeline="orders",group="orders-v1",state="buffering"} 2
        propulsion_scheduler_streams{pipeline="orders",group="orders-v1",state="deferred"} 6
        propulsion_scheduler_streams{pipeline="orders",group="orders-v1",state="failing"} 4
        propulsion_scheduler_streams{pipeline="orders",group="orders-v1",state="malformed"} 7
        propulsion_scheduler_streams{pipeline="orders",group="orders-v1",state="ready"} 1
        propulsion_scheduler_streams{pipeline="orders",group="orders-v1",state="stalled"} 5
        propulsion_scheduler_streams{pipeline="orders",group="orders-v1",state="synced"} 100"#]],
    );
    fixture.check(
        "propulsion_scheduler_busy",
        &expect![[r#"
            propulsion_scheduler_busy_count{pipeline="orders",group="orders-v1",state="active"} 3
            propulsion_scheduler_busy_count{pipeline="orders",group="orders-v1",state="failing"} 4
            propulsion_scheduler_busy_count{pipeline="orders",group="orders-v1",state="stalled"} 5
            propulsion_scheduler_busy_seconds{pipeline="orders",kind="newest",group="orders-v1",state="active"} 0.5
            propulsion_scheduler_busy_seconds{pipeline="orders",kind="newest",group="orders-v1",state="failing"} 0.5
            propulsion_scheduler_busy_seconds{pipeline="orders",kind="newest",group="orders-v1",state="stalled"} 0.5
            propulsion_scheduler_busy_seconds{pipeline="orders",kind="oldest",group="orders-v1",state="active"} 9
            propulsion_scheduler_busy_seconds{pipeline="orders",kind="oldest",group="orders-v1",state="failing"} 60"#]],
    );
}

#[test]
fn late_events_and_duplicates_are_counted_on_over_new_schedulers() {
    let fixture = Fixture::new();
    for (late_events, duplicates) in [(2, 10), (2, 10), (5, 11), (1, 0)] {
        fixture.orders.show(&Snapshot { late_events, duplicates, ..Snapshot::default() });
    }
    fixture.check("propulsiond_late", &expect![[r#"propulsiond_late_events_total{pipeline="orders"} 6"#]]);
    fixture.check("propulsiond_duplicates", &expect![[r#"propulsiond_duplicates_total{pipeline="orders"} 11"#]]);
}

#[test]
fn results_are_seen_once_they_are_flushed() {
    let fixture = Fixture::new();
    let mut local = fixture.orders.local();
    local.handled(OK, Duration::from_millis(3));
    local.handled(OK, Duration::from_secs(60));
    local.handled("timeout", Duration::from_secs(30));
    local.events_handled(12);
    local.spent(Stage::Queue, Duration::from_millis(2));
    local.worked(Activity::Merge, Duration::from_millis(250));
    local.worked(Activity::Merge, Duration::from_millis(250));
    fixture.check("propulsion_scheduler_handler_seconds_count", &expect![""]);
    local.flush();
    fixture.check(
        "propulsion_scheduler_handler_seconds_count",
        &expect![[r#"
        propulsion_scheduler_handler_seconds_count{pipeline="orders",group="orders-v1",kind="ok"} 2
        propulsion_scheduler_handler_seconds_count{pipeline="orders",group="orders-v1",kind="timeout"} 1"#]],
    );
    fixture.check("propulsion_scheduler_handler_summary_seconds", &expect![[r#"
        propulsion_scheduler_handler_summary_seconds{pipeline="orders",group="orders-v1",kind="ok",quantile="0.5"} 0.003007
        propulsion_scheduler_handler_summary_seconds{pipeline="orders",group="orders-v1",kind="ok",quantile="0.95"} 60.030975
        propulsion_scheduler_handler_summary_seconds{pipeline="orders",group="orders-v1",kind="ok",quantile="0.99"} 60.030975
        propulsion_scheduler_handler_summary_seconds_sum{pipeline="orders",group="orders-v1",kind="ok"} 60.003
        propulsion_scheduler_handler_summary_seconds_count{pipeline="orders",group="orders-v1",kind="ok"} 2
        propulsion_scheduler_handler_summary_seconds{pipeline="orders",group="orders-v1",kind="timeout",quantile="0.5"} 30.015487
        propulsion_scheduler_handler_summary_seconds{pipeline="orders",group="orders-v1",kind="timeout",quantile="0.95"} 30.015487
        propulsion_scheduler_handler_summary_seconds{pipeline="orders",group="orders-v1",kind="timeout",quantile="0.99"} 30.015487
        propulsion_scheduler_handler_summary_seconds_sum{pipeline="orders",group="orders-v1",kind="timeout"} 30
        propulsion_scheduler_handler_summary_seconds_count{pipeline="orders",group="orders-v1",kind="timeout"} 1"#]]);
    fixture.check("propulsiond_handled", &expect![[r#"propulsiond_handled_events_total{pipeline="orders"} 12"#]]);
    fixture.check(
        "propulsion_scheduler_cpu",
        &expect![[r#"propulsion_scheduler_cpu{pipeline="orders",group="orders-v1",activity="merge"} 0.5"#]],
    );
    fixture.check(
        "propulsiond_stage_seconds_sum",
        &expect![[r#"propulsiond_stage_seconds_sum{pipeline="orders",stage="queue"} 0.002"#]],
    );
    local.handled(OK, Duration::ZERO);
    drop(local);
    assert!(fixture.samples("propulsion_scheduler_handler_seconds_count").contains("kind=\"ok\"} 3"));
}

#[tokio::test(start_paused = true)]
async fn a_latency_is_left_out_of_scrapes_while_it_is_idle_and_returns_with_its_counts() {
    let fixture = Fixture::new();
    let count = || fixture.samples("propulsiond_stage_seconds_count");
    assert_eq!(count(), "");
    let once = r#"propulsiond_stage_seconds_count{pipeline="orders",stage="commit"} 1"#;
    fixture.orders.spent(Stage::Commit, Duration::from_millis(1));
    assert_eq!(count(), once);
    tokio::time::advance(Duration::from_secs(299)).await;
    assert_eq!(count(), once);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(count(), "");
    fixture.orders.spent(Stage::Commit, Duration::from_millis(1));
    assert_eq!(count(), once.replace("} 1", "} 2"));
    assert!(fixture.samples("propulsiond_restarts").ends_with(" 0"), "a counter is there from the start");
}

#[test]
fn a_state_of_streams_is_shown_from_its_first_stream_on() {
    let fixture = Fixture::new();
    let failing = |streams| fixture.orders.show(&Snapshot { failing: totals(streams, 0), ..Snapshot::default() });
    failing(0);
    assert_eq!(fixture.samples("propulsion_scheduler_streams"), "");
    failing(2);
    assert!(fixture.samples("propulsion_scheduler_streams").ends_with(r#"state="failing"} 2"#));
    failing(0);
    assert!(fixture.samples("propulsion_scheduler_streams").ends_with(r#"state="failing"} 0"#));
}

#[test]
fn tags_and_names_without_end_are_counted_together() {
    let fixture = Fixture::new();
    let mut local = fixture.orders.local();
    for tag in 0..1_000 {
        local.handled(&format!("tag {tag}"), Duration::ZERO);
    }
    local.flush();
    let counts = fixture.samples("propulsion_scheduler_handler_seconds_count");
    assert_eq!(counts.lines().count(), 33);
    assert!(counts.contains("kind=\"other\"} 968"), "{counts}");

    (0..1_000).for_each(|name| fixture.orders.script(&format!("name {name}"), 2));
    fixture.orders.script("name 7", 3);
    let counts = fixture.samples("propulsiond_script_total");
    assert_eq!(counts.lines().count(), 101);
    assert!(counts.contains("name=\"other\"} 1800") && counts.contains("name=\"name 7\"} 5"), "{counts}");
}

#[test]
fn pages_are_observed_one_by_one_and_empty_ones_only_move_the_position() {
    let fixture = Fixture::new();
    fixture.tranche.page_read(page(5));
    fixture.tranche.page_read(PageRead { resume_at: &Position::Number(50), ..page(0) });
    fixture.tranche.ingested(Duration::from_secs(1), 4);
    for prefix in ["pages", "items", "position", "ingest_queue", "read_seconds_count", "ingest_seconds_sum"] {
        fixture.check(
            &format!("propulsion_feed_{prefix}"),
            &match prefix {
                "pages" => expect![[r#"propulsion_feed_pages_total{pipeline="orders",source="shop",tranche="0"} 1"#]],
                "items" => expect![[r#"propulsion_feed_items_total{pipeline="orders",source="shop",tranche="0"} 5"#]],
                "position" => {
                    expect![[r#"propulsion_feed_position_token{pipeline="orders",source="shop",tranche="0"} 50"#]]
                }
                "ingest_queue" => {
                    expect![[r#"propulsion_feed_ingest_queue{pipeline="orders",source="shop",tranche="0"} 4"#]]
                }
                "read_seconds_count" => {
                    expect![[r#"propulsion_feed_read_seconds_count{pipeline="orders",source="shop",tranche="0"} 1"#]]
                }
                _ => expect![[r#"propulsion_feed_ingest_seconds_sum{pipeline="orders",source="shop",tranche="0"} 1"#]],
            },
        );
    }
    fixture.tranche.page_read(PageRead { resume_at: &Position::token("abc"), ..page(1) });
    assert_eq!(fixture.samples("propulsion_feed_position_token"), "");
}

#[tokio::test(start_paused = true)]
async fn r25_the_age_of_the_last_read_grows_while_a_source_is_silent() {
    let fixture = Fixture::new();
    let age = || fixture.samples("propulsiond_read_age").rsplit(' ').next().unwrap().to_owned();
    fixture.tranche.page_read(page(0));
    tokio::time::advance(Duration::from_secs(900)).await;
    fixture.tranche.read_failed();
    assert_eq!(age(), "900");
    fixture.tranche.page_read(page(0));
    assert_eq!(age(), "0");
    tokio::time::advance(Duration::from_secs(60)).await;
    fixture.tranche.closed();
    assert_eq!(age(), "0");
}

#[test]
fn r79_a_page_counts_for_the_stage_it_is() {
    let fixture = Fixture::new();
    fixture.tranche.page_read(page(5));
    fixture.orders.spent(Stage::Commit, Duration::from_millis(1));
    fixture.check(
        "propulsiond_stage_seconds_count",
        &expect![[r#"
            propulsiond_stage_seconds_count{pipeline="orders",stage="commit"} 1
            propulsiond_stage_seconds_count{pipeline="orders",stage="read"} 1"#]],
    );
}

#[test]
fn r69_lag_that_is_not_known_is_neither_zero_nor_what_it_was() {
    let fixture = Fixture::new();
    assert_eq!(fixture.samples("propulsiond_lag{"), "");
    let lag = Some(Lag { amount: 7, unit: LagUnit::Bytes });
    fixture.tranche.page_read(PageRead { lag, ..page(1) });
    fixture.check(
        "propulsiond_lag",
        &expect![[r#"
        propulsiond_lag{pipeline="orders",tranche="0",unit="bytes"} 7
        propulsiond_lag_valid{pipeline="orders",tranche="0"} 1"#]],
    );
    fixture.tranche.read_failed();
    fixture.check("propulsiond_lag", &expect![[r#"propulsiond_lag_valid{pipeline="orders",tranche="0"} 0"#]]);
    fixture.check(
        "propulsiond_read_failures",
        &expect![[r#"propulsiond_read_failures_total{pipeline="orders",tranche="0"} 1"#]],
    );
}

#[tokio::test(start_paused = true)]
async fn r11_a_position_that_is_held_back_shows_by_what_and_for_how_long() {
    let fixture = Fixture::new();
    let since = fixture.clock.now();
    let report = TrancheReport {
        tranche: TrancheId::new("0"),
        batches: 3,
        batches_held: 4,
        bytes: 9_000,
        ahead: 20_000,
        unhandled: 1,
        in_flight: 0,
        set_runs: 1,
        version: 7,
        completed_batches: 1,
        completed_events: 19_999,
        blocked_at: Some(Ordinal::new(4, 0)),
        blocked_since: Some(since),
    };
    fixture.tranche.show(&report);
    tokio::time::advance(Duration::from_secs(90)).await;
    fixture.check(
        "propulsiond_checkpoint_gap",
        &expect![[r#"propulsiond_checkpoint_gap_events{pipeline="orders",tranche="0"} 19999"#]],
    );
    fixture.check(
        "propulsiond_checkpoint_blocked",
        &expect![[r#"propulsiond_checkpoint_blocked_seconds{pipeline="orders",tranche="0"} 90"#]],
    );
    fixture.check(
        "propulsiond_ahead",
        &expect![[r#"
        propulsiond_ahead_bytes{pipeline="orders",tranche="0"} 9000
        propulsiond_ahead_events{pipeline="orders",tranche="0"} 20000"#]],
    );
    fixture.tranche.show(&TrancheReport { blocked_since: None, ..report });
    assert!(fixture.samples("propulsiond_checkpoint_blocked").ends_with(" 0"));
}

#[tokio::test(start_paused = true)]
async fn r68_a_checkpoint_ages_only_while_there_is_something_to_commit() {
    let fixture = Fixture::new();
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(fixture.samples("propulsiond_checkpoint_age").ends_with(" 0"));
    fixture.tranche.uncommitted_since(Some(fixture.clock.now()));
    fixture.tranche.commit_failed();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(fixture.samples("propulsiond_checkpoint_age").ends_with(" 5"));
    fixture.tranche.committed();
    fixture.tranche.uncommitted_since(None);
    fixture.check(
        "propulsiond_checkpoint",
        &expect![[r#"
        propulsiond_checkpoint_age_seconds{pipeline="orders",tranche="0"} 0
        propulsiond_checkpoint_blocked_seconds{pipeline="orders",tranche="0"} 0
        propulsiond_checkpoint_commits_total{pipeline="orders",tranche="0"} 1
        propulsiond_checkpoint_failures_total{pipeline="orders",tranche="0"} 1
        propulsiond_checkpoint_gap_events{pipeline="orders",tranche="0"} 0"#]],
    );
}

#[test]
fn the_newest_event_ages_by_the_time_of_day_and_never_below_zero() {
    let fixture = Fixture::new();
    assert_eq!(fixture.samples("propulsiond_event_age"), "");
    let at = |seconds: i64| wall() + time::Duration::seconds(seconds);
    let read = |newest: OffsetDateTime| fixture.tranche.page_read(PageRead { newest: Some(newest), ..page(1) });
    let age = || -> f64 { fixture.samples("propulsiond_event_age").rsplit(' ').next().unwrap().parse().unwrap() };
    read(at(-3_600));
    assert!((3_600.0..3_660.0).contains(&age()), "{}", age());
    read(at(-7_200));
    assert!(age() < 3_660.0, "an older event does not hide the newest");
    read(at(3_600));
    assert_eq!(age(), 0.0);
}

#[test]
fn a_pipeline_is_in_one_state_and_runs_by_one_hash() {
    let fixture = Fixture::new();
    fixture.orders.state(State::Starting);
    fixture.orders.state(State::Halted);
    fixture.orders.config_hash("aa11");
    fixture.orders.config_hash("bb22");
    fixture.check(
        "propulsiond_pipeline_state",
        &expect![[r#"
            propulsiond_pipeline_state{pipeline="orders",state="halted"} 1
            propulsiond_pipeline_state{pipeline="orders",state="starting"} 0"#]],
    );
    fixture.check("propulsiond_config_hash", &expect![[r#"propulsiond_config_hash{pipeline="orders",hash="bb22"} 1"#]]);
}

#[test]
fn labels_that_read_the_same_end_to_end_are_told_apart() {
    let metrics = Metrics::new(Clock::start());
    let tranche = |pipeline: &str, tranche: &str| {
        metrics.pipeline(pipeline, "group").tranche("s", &TrancheId::new(tranche)).commit_failed();
    };
    tranche("orders", "11");
    tranche("orders1", "1");
    let text = metrics.encode();
    assert_eq!(text.matches("propulsiond_checkpoint_failures_total{").count(), 2);
}

#[test]
fn r37_counters_outlive_a_restart_and_begin_anew_under_another_group() {
    let fixture = Fixture::new();
    fixture.orders.restarted();
    fixture.metrics.pipeline("orders", "orders-v1").restarted();
    assert!(fixture.samples("propulsiond_restarts").ends_with(" 2"));
    fixture.metrics.pipeline("orders", "orders-v2");
    assert!(fixture.samples("propulsiond_restarts").ends_with(" 0"));
    assert!(!fixture.metrics.encode().contains("orders-v1"));
}

#[test]
fn removed_series_are_gone_and_the_others_stay() {
    let fixture = Fixture::new();
    let billing = fixture.metrics.pipeline("billing", "billing");
    billing.tranche("shop", &TrancheId::new("0")).committed();
    fixture.orders.tranche("shop", &TrancheId::new("1")).committed();
    fixture.orders.remove_tranche(&TrancheId::new("1"));
    let text = fixture.metrics.encode();
    assert!(!text.contains("tranche=\"1\""));
    assert!(text.contains("pipeline=\"orders\",tranche=\"0\""));

    fixture.metrics.remove_pipeline("orders");
    let text = fixture.metrics.encode();
    assert!(!text.contains("orders") && text.contains("pipeline=\"billing\",tranche=\"0\""));
}

#[test]
fn ages_come_from_the_clock_that_moments_come_from() {
    let fixture = Fixture::new();
    fixture.tranche.uncommitted_since(Some(fixture.clock.now() + Duration::from_secs(10)));
    assert!(fixture.samples("propulsiond_checkpoint_age").ends_with(" 0"));
    fixture.tranche.uncommitted_since(Some(Timestamp::ZERO));
    assert!(!fixture.samples("propulsiond_checkpoint_age").ends_with(" 0"));
}
