use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use expect_test::{Expect, expect};
use tracing::subscriber::with_default;
use tracing::{debug, error, info, info_span, warn};

use super::*;
use crate::config::settings::LogLevels;
use crate::runtime::supervise::{Group, TaskKind};

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Returns what is written while `work` logs, its times replaced.
pub(crate) fn captured(format: LogFormat, colour: bool, levels: &str, work: impl FnOnce(&Logs)) -> String {
    let writer = Captured::default();
    let logs = Logs { limit: Limit::new(Clock::start()) };
    let subscriber = Registry::default()
        .with(LogLevels::parse(levels).unwrap().filter())
        .with(logs.limit.clone())
        .with(lines(format, colour, writer.clone()));
    with_default(subscriber, || work(&logs));
    let time = regex::Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z").unwrap();
    time.replace_all(&writer.text(), "TIME").into_owned()
}

fn check(format: LogFormat, levels: &str, work: impl FnOnce(&Logs), expected: &Expect) {
    expected.assert_eq(&captured(format, false, levels, work));
}

fn some_lines(_: &Logs) {
    info!(listen = "127.0.0.1:9464", "started");
    let _pipeline = info_span!("pipeline", pipeline = "orders").entered();
    debug!("not shown");
    let _reader = info_span!("reader", tranche = %"orders/0").entered();
    let error = io::Error::other("connection refused");
    warn!(attempt = 2, again = true, error = &error as &dyn std::error::Error, "read failed, retrying");
    error!(share = 0.5, "halted");
}

#[test]
fn text_is_time_level_message_fields_and_the_fields_of_spans() {
    check(
        LogFormat::Text,
        "info",
        some_lines,
        &expect![[r#"
        TIME  INFO started listen="127.0.0.1:9464"
        TIME  WARN read failed, retrying attempt=2 again=true error=connection refused pipeline="orders" tranche=orders/0
        TIME ERROR halted share=0.5 pipeline="orders" tranche=orders/0
    "#]],
    );
}

#[test]
fn json_has_all_fields_side_by_side() {
    check(
        LogFormat::Json,
        "info",
        some_lines,
        &expect![[r#"
        {"level":"INFO","listen":"127.0.0.1:9464","message":"started","target":"propulsiond::telemetry::logging::tests","time":"TIME"}
        {"again":true,"attempt":2,"error":"connection refused","level":"WARN","message":"read failed, retrying","pipeline":"orders","target":"propulsiond::telemetry::logging::tests","time":"TIME","tranche":"orders/0"}
        {"level":"ERROR","message":"halted","pipeline":"orders","share":0.5,"target":"propulsiond::telemetry::logging::tests","time":"TIME","tranche":"orders/0"}
    "#]],
    );
}

#[test]
fn colour_is_for_terminals_and_text_only() {
    let line = |format, colour| captured(format, colour, "info", |_| warn!("careful"));
    assert!(line(LogFormat::Text, true).contains("\u{1b}[33m"));
    assert!(!line(LogFormat::Text, false).contains('\u{1b}'));
    assert!(!line(LogFormat::Json, true).contains('\u{1b}'));
}

#[test]
fn levels_are_set_per_target() {
    let work = |_: &Logs| {
        info!(target: "propulsiond::pipeline", "hidden");
        debug!(target: "propulsiond::script", "shown");
    };
    check(
        LogFormat::Text,
        "warn,propulsiond::script=debug",
        work,
        &expect![[r#"
        TIME DEBUG shown
    "#]],
    );
}

#[test]
fn repeated_warnings_and_errors_are_limited_and_counted() {
    let work = |logs: &Logs| {
        for attempt in 0..47 {
            let _span = crate::runtime::supervise::pipeline_span("orders").entered();
            warn!(attempt, "read failed, retrying");
        }
        let _span = crate::runtime::supervise::pipeline_span("billing").entered();
        warn!("read failed, retrying");
        logs.summarise_all();
    };
    check(
        LogFormat::Text,
        "info",
        work,
        &expect![[r#"
            TIME  WARN read failed, retrying attempt=0 pipeline=orders
            TIME  WARN read failed, retrying attempt=1 pipeline=orders
            TIME  WARN read failed, retrying attempt=2 pipeline=orders
            TIME  WARN read failed, retrying attempt=3 pipeline=orders
            TIME  WARN read failed, retrying attempt=4 pipeline=orders
            TIME  WARN read failed, retrying pipeline=billing
            TIME  WARN read failed, retrying (repeated 42 times) pipeline=orders
        "#]],
    );
}

#[test]
fn a_summary_in_json_carries_its_pipeline() {
    let work = |logs: &Logs| {
        for _ in 0..7 {
            error!(pipeline = "orders", "commit failed");
        }
        logs.summarise_all();
    };
    let written = captured(LogFormat::Json, false, "info", work);
    expect![[r#"{"level":"ERROR","message":"commit failed (repeated 2 times)","pipeline":"orders","target":"propulsiond::repeated","time":"TIME"}"#]].assert_eq(written.lines().last().unwrap());
}

#[test]
fn lines_below_warning_are_not_limited() {
    let written = captured(LogFormat::Text, false, "info", |_| (0..100).for_each(|number| info!(number, "read")));
    assert_eq!(written.lines().count(), 100);
}

#[test]
fn r43_the_outcome_of_an_unhandled_event_is_always_shown() {
    let skip = |index: i32| warn!(target: AUDIT, index, "event skipped");
    let written = captured(LogFormat::Text, false, "info", |_| (0..100).for_each(skip));
    assert!(written.ends_with("event skipped index=99\n"), "{written}");
    assert_eq!(written.lines().count(), 100);
}

#[tokio::test]
async fn lines_of_a_pipelines_tasks_name_the_pipeline_at_every_level() {
    let writer = Captured::default();
    let subscriber = Registry::default().with(LogLevels::parse("error").unwrap().filter()).with(lines(
        LogFormat::Text,
        false,
        writer.clone(),
    ));
    let _default = tracing::subscriber::set_default(subscriber);
    let orders = Group::daemon().pipeline("orders");
    orders.spawn(TaskKind::Chore, "summaries", async { anyhow::bail!("out of ideas") });
    assert_eq!(orders.join(WINDOW).await, Ok(()));
    let (_, line) = writer.text().split_once(' ').map(|(time, line)| (time.to_owned(), line.to_owned())).unwrap();
    expect![[r#"
        ERROR a task failed task=summaries reason=failed: out of ideas pipeline=orders
    "#]]
    .assert_eq(&line);
}

#[tokio::test(start_paused = true)]
async fn summaries_are_written_as_windows_end_and_at_the_stop() {
    let writer = Captured::default();
    let logs = Logs { limit: Limit::new(Clock::start()) };
    let subscriber = Registry::default().with(logs.limit.clone()).with(lines(LogFormat::Text, false, writer.clone()));
    let _default = tracing::subscriber::set_default(subscriber);
    let stop = CancellationToken::new();
    let mut summaries = Box::pin(logs.summarise_until(stop.clone()));
    let burst = || (0..10).for_each(|_| warn!("slow down"));

    burst();
    assert_eq!(writer.text().lines().count(), 5);
    assert!(tokio::time::timeout(WINDOW * 2, &mut summaries).await.is_err());
    assert!(writer.text().trim_end().ends_with("slow down (repeated 5 times)"), "{}", writer.text());

    burst();
    assert_eq!(writer.text().lines().count(), 11);
    stop.cancel();
    summaries.await;
    assert_eq!(writer.text().lines().count(), 12);
}

#[test]
fn x3_values_cannot_forge_lines_of_text() {
    let forged = "a\n2026-01-01T00:00:00.000Z ERROR forged\r\u{1b}[2J\u{202e}";
    let work = |_: &Logs| {
        let _span = info_span!("pipeline", pipeline = %forged).entered();
        info!(stream = forged, reason = %forged, "script: {forged}");
    };
    let written = captured(LogFormat::Text, false, "info", work);
    assert_eq!(written.lines().count(), 1, "{written}");
    assert!(!written.contains(['\r', '\u{1b}', '\u{202e}']), "{written}");
    assert_eq!(written.matches(r"a\n").count(), 4, "{written}");
}
