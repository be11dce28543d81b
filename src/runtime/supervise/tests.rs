use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{anyhow, bail};
use expect_test::{Expect, expect};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// Returns the failure of a group as a sentence, waiting for it.
async fn failure_of(group: &Group) -> String {
    timeout(SOON, group.failed()).await.expect("the group fails").to_string()
}

async fn check<F>(kind: TaskKind, future: F, expected: Expect)
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let pipeline = Group::daemon().pipeline("orders");
    pipeline.spawn(kind, "reader 0", future);
    expected.assert_eq(&failure_of(&pipeline).await);
    assert_eq!(pipeline.join(SOON).await, Ok(()));
}

#[tokio::test]
async fn r29_a_task_that_errs_fails_its_group_with_the_whole_chain() {
    let error = anyhow!("connection refused").context("read `orders`");
    check(TaskKind::Reader, async { Err(error) }, expect!["`reader 0` failed: read `orders`: connection refused"])
        .await;
}

#[tokio::test]
async fn r29_a_task_that_panics_fails_its_group_with_the_message() {
    check(
        TaskKind::Driver,
        async { panic!("index {} is out of bounds", 7) },
        expect!["`reader 0` panicked: index 7 is out of bounds"],
    )
    .await;
    check(TaskKind::Call, async { panic!("plainly") }, expect!["`reader 0` panicked: plainly"]).await;
}

#[tokio::test]
async fn r29_a_task_that_should_not_end_and_does_fails_its_group() {
    check(TaskKind::Source, async { Ok(()) }, expect!["`reader 0` ended early"]).await;
}

#[tokio::test]
async fn a_task_that_may_finish_fails_nothing() {
    let group = Group::daemon();
    group.spawn(TaskKind::Reader, "reader 0", async { Ok(()) });
    assert_eq!(group.join(SOON).await, Ok(()));
    assert_eq!(group.failure(), None);
}

#[tokio::test]
async fn a_task_that_ends_because_its_group_stops_fails_nothing() {
    let group = Group::daemon();
    let stop = group.token().clone();
    group.spawn(TaskKind::Http, "http", async move {
        stop.cancelled().await;
        Ok(())
    });
    assert_eq!(group.join(SOON).await, Ok(()));
    assert_eq!(group.failure(), None);
}

#[tokio::test]
async fn the_first_failure_is_the_one_that_counts() {
    let group = Group::daemon();
    group.spawn(TaskKind::Driver, "first", async { bail!("one") });
    failure_of(&group).await;
    group.spawn(TaskKind::Driver, "second", async { bail!("two") });
    assert_eq!(group.join(SOON).await, Ok(()));
    assert_eq!(failure_of(&group).await, "`first` failed: one");
}

#[tokio::test]
async fn a_pipelines_failure_is_not_the_daemons_and_not_its_neighbours() {
    let daemon = Group::daemon();
    let (orders, billing) = (daemon.pipeline("orders"), daemon.pipeline("billing"));
    orders.spawn(TaskKind::Writer, "sink", async { bail!("disk full") });
    failure_of(&orders).await;
    assert_eq!((daemon.failure(), billing.failure()), (None, None));
}

#[tokio::test]
async fn a_failure_that_stops_the_daemon_reaches_its_group_from_anywhere() {
    let daemon = Group::daemon();
    daemon.pipeline("orders").spawn(TaskKind::Keeper, "keeper of orders", async { panic!("lost") });
    assert_eq!(failure_of(&daemon).await, "`keeper of orders` panicked: lost");
}

#[tokio::test]
async fn a_failed_chore_is_only_logged() {
    let group = Group::daemon();
    group.spawn(TaskKind::Chore, "progress display", async { bail!("no terminal") });
    assert_eq!(group.join(SOON).await, Ok(()));
    assert_eq!(group.failure(), None);
}

#[tokio::test]
async fn stopping_the_daemon_stops_its_pipelines() {
    let daemon = Group::daemon();
    let orders = daemon.pipeline("orders");
    orders.spawn(TaskKind::Reader, "reader 0", pending());
    daemon.stop();
    assert_eq!(orders.join(SOON).await, Ok(()));
}

#[tokio::test]
async fn stopping_a_pipeline_stops_nothing_else() {
    let daemon = Group::daemon();
    daemon.pipeline("orders").stop();
    assert!(!daemon.token().is_cancelled());
    assert!(!daemon.pipeline("billing").token().is_cancelled());
}

#[tokio::test]
async fn draining_tasks_are_awaited_and_aborting_tasks_dropped() {
    let group = Group::daemon();
    let (finish, finished) = oneshot::channel::<()>();
    let (held, dropped) = oneshot::channel::<()>();
    group.spawn(TaskKind::Call, "call", async move { Ok(finished.await?) });
    group.spawn(TaskKind::Reader, "reader 0", async move {
        let _held = held;
        pending().await
    });
    group.stop();
    assert!(dropped.await.is_err(), "the reader is dropped");
    assert_eq!(group.running(), ["call"]);
    finish.send(()).unwrap();
    assert_eq!(group.join(SOON).await, Ok(()));
    assert_eq!(group.failure(), None);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_still_runs_is_named_in_order_of_start_and_aborted() {
    let group = Group::daemon();
    let (held, dropped) = oneshot::channel::<()>();
    for call in 0..3 {
        group.spawn(TaskKind::Call, format!("call {call}"), pending());
    }
    group.spawn(TaskKind::Writer, "sink", async move {
        let _held = held;
        pending().await
    });
    let still = group.join(Duration::from_secs(25)).await.unwrap_err();
    assert_eq!(still.to_string(), "still running at the deadline: call 0, call 1, call 2, sink");
    assert!(dropped.await.is_err());
    assert_eq!(group.join(SOON).await, Ok(()));
}

#[tokio::test]
async fn r35_an_empty_group_joins_at_once() {
    assert_eq!(Group::daemon().join(Duration::ZERO).await, Ok(()));
}

#[tokio::test]
async fn a_thread_that_panics_or_errs_fails_its_group() {
    let group = Group::daemon();
    group.spawn_thread(TaskKind::Worker, "script 3", || panic!("stack exhausted")).unwrap();
    assert_eq!(failure_of(&group).await, "`script 3` panicked: stack exhausted");

    let group = Group::daemon();
    group.spawn_thread(TaskKind::Writer, "sqlite", || bail!("disk full")).unwrap();
    assert_eq!(failure_of(&group).await, "`sqlite` failed: disk full");
}

#[tokio::test]
async fn a_thread_has_its_name_and_is_waited_for() {
    let group = Group::daemon();
    let (open, queue) = std::sync::mpsc::channel::<()>();
    let (said, name) = oneshot::channel();
    group
        .spawn_thread(TaskKind::Worker, "script 0", move || {
            said.send(std::thread::current().name().map(str::to_owned)).unwrap();
            while queue.recv().is_ok() {}
            Ok(())
        })
        .unwrap();
    assert_eq!(name.await.unwrap().as_deref(), Some("script 0"));
    let still = group.join(Duration::ZERO).await.unwrap_err();
    assert_eq!(still.names, ["script 0"]);
    drop(open);
    assert_eq!(group.join(SOON).await, Ok(()));
}

#[tokio::test]
async fn thousands_of_tasks_are_cancelled_without_overflow_or_deadlock() {
    let daemon = Group::daemon();
    let pipeline = daemon.pipeline("orders");
    let ended = Arc::new(AtomicUsize::new(0));
    for task in 0..10_000 {
        let (ended, stop) = (Arc::clone(&ended), pipeline.token().child_token());
        let kind = if task % 2 == 0 { TaskKind::Call } else { TaskKind::Reader };
        pipeline.spawn(kind, "one of many", async move {
            let _counts = CountsOnDrop(ended);
            stop.cancelled().await;
            Ok(())
        });
    }
    daemon.stop();
    assert_eq!(timeout(SOON, pipeline.join(SOON)).await, Ok(Ok(())));
    // Those that were aborted before their first poll never began.
    assert!(ended.load(Ordering::Relaxed) >= 5_000);
    assert_eq!(pipeline.failure(), None);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_tasks_are_aborted_at_the_deadline() {
    let group = Group::daemon();
    for _ in 0..10_000 {
        group.spawn(TaskKind::Call, "one of many", pending());
    }
    assert_eq!(group.join(Duration::from_secs(1)).await.unwrap_err().names.len(), 10_000);
    assert_eq!(group.join(SOON).await, Ok(()));
}

struct CountsOnDrop(Arc<AtomicUsize>);

impl Drop for CountsOnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn every_kind_of_task_has_its_row() {
    let table: Vec<_> = TaskKind::ALL
        .map(|kind| {
            let end = if kind.may_finish() { "may finish" } else { "runs till the stop" };
            format!("{kind:?}: {:?}, {:?}, {end}", kind.on_error(), kind.on_stop())
        })
        .into();
    expect![[r#"
        Http: StopDaemon, Drain, runs till the stop
        Watcher: StopDaemon, Abort, runs till the stop
        Chore: Log, Abort, runs till the stop
        Exporter: Log, Drain, runs till the stop
        Keeper: StopDaemon, Drain, may finish
        Driver: StopPipeline, Drain, may finish
        Source: StopPipeline, Abort, runs till the stop
        Reader: StopPipeline, Abort, may finish
        Worker: StopPipeline, Drain, may finish
        Call: StopPipeline, Drain, may finish
        Writer: StopPipeline, Drain, may finish
        Committer: StopPipeline, Drain, may finish"#]]
    .assert_eq(&table.join("\n"));
}
