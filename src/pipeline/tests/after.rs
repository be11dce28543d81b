//! Two pipelines over one feed, the second of which comes after the first.

use std::sync::Mutex;

use super::parking::written;
use super::*;
use crate::config::filter;
use crate::config::scalar::Text;

/// A pipeline of the pair: its rig, and its links.
struct Member {
    rig: Rig,
    name: &'static str,
    links: Links,
}

const FEED: &str = "feed";

/// Returns a leader and its follower, over one feed and two stores.
fn pair(stop: Stop) -> (Leaders, Member, Member) {
    let leaders = Leaders::default();
    let first = Rig { options: Options { read_ahead: 10, ..Rig::new(stop).options }, ..Rig::new(stop) };
    let mut second = first.again();
    second.store = MemoryCheckpoints::default();
    let member = |rig: Rig, name, after| {
        leaders.attach(name, rig.handle.standings());
        Member { rig, name, links: leaders.links(name, FEED, after) }
    };
    let (first, second) = (member(first, "first", None), member(second, "second", Some("first")));
    (leaders, first, second)
}

struct Linked<F> {
    parts: F,
    links: Links,
}

impl<F: Fn() -> Parts + Send + Sync> Assemble for Linked<F> {
    fn assemble(&self) -> anyhow::Result<Parts> {
        Ok((self.parts)())
    }

    fn links(&self) -> Links {
        self.links.clone()
    }
}

impl Member {
    /// Returns another run of the pipeline, over the same feed and store.
    fn again(&self, leaders: &Leaders) -> Self {
        let rig = self.rig.again();
        leaders.attach(self.name, rig.handle.standings());
        Self { rig, name: self.name, links: self.links.clone() }
    }

    fn parts(&self, handler: impl Handler + 'static) -> Parts {
        self.rig.parts(handler)
    }

    async fn run(self, parts: Parts) -> Ended {
        let Self { rig, name, links } = self;
        let parts = Mutex::new(Some(parts));
        let parts = move || parts.lock().unwrap().take().expect("it is built once");
        let name: Arc<str> = name.into();
        let pipeline = Pipeline {
            identity: Identity {
                name: Arc::clone(&name),
                group: "p".into(),
                source: "p".into(),
                owner: Owner(Arc::clone(&name)),
            },
            options: rig.options,
            assemble: Arc::new(Linked { parts, links }),
            observer: Observer::new(Metrics::new(rig.handle.clock()).pipeline(&name, &name), name),
        };
        pipeline.run(rig.listener, &Group::daemon(), rig.stop).await
    }
}

/// A handler that takes its time for each call, and emits `stream/index` for each event.
struct Slow(Duration);

fn effects(work: &crate::work::Work) -> crate::effect::Emitted {
    let name = |event: &Event| Value::from(&*format!("{}/{}", event.stream(), event.index()));
    work.events.iter().map(name).collect::<Vec<_>>().into()
}

impl Handler for Slow {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        async move {
            tokio::time::sleep(self.0).await;
            let decide = |work: &crate::work::Work| Ok(Decision { effects: effects(work), ..Decision::handled() });
            call.streams.iter().map(decide).collect()
        }
        .boxed()
    }
}

/// The handler of a follower: judges each event when it sees it, and emits `stream/index` for it.
struct Sees<F>(F);

impl<F: Fn(&Event) + Send + Sync + 'static> Handler for Sees<F> {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        let decide = |work: &crate::work::Work| {
            work.events.iter().for_each(&self.0);
            Ok(Decision { effects: effects(work), ..Decision::handled() })
        };
        std::future::ready(call.streams.iter().map(decide).collect()).boxed()
    }
}

/// A handler that fails for good at the events of a stream.
struct Refuses(&'static str);

impl Handler for Refuses {
    fn handle(self: Arc<Self>, call: Arc<Call>) -> BoxFuture<'static, Decisions> {
        let decide = |work: &crate::work::Work| match work.events.iter().find(|event| event.stream() == self.0) {
            Some(event) => Err(HandlerError::new(HandlerErrorKind::Permanent, "refused").at_index(event.index())),
            None => Ok(Decision { effects: effects(work), ..Decision::handled() }),
        };
        std::future::ready(call.streams.iter().map(decide).collect()).boxed()
    }
}

fn anything() -> impl Handler {
    Sees(|_: &Event| {})
}

/// Pushes batches with events of two streams. The rig pushed the first two events of `a-1`.
fn push(feed: &MemoryFeed, batches: std::ops::Range<u64>) {
    for batch in batches {
        let at = 2 + 2 * batch;
        let index = i64::try_from(batch).unwrap();
        feed.push(&tranche(), vec![event_of("b-1", at, index), event_of("a-1", at + 1, index + 2)]);
    }
}

/// The most looks of a test for a condition.
const LOOKS: usize = 1_000;

async fn until(mut reached: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it is not reached");
}

/// Waits until a pipeline waits for the other one, for this reason.
async fn until_waiting(handle: &Handle, why: &str) -> View {
    let mut last = None;
    for _ in 0..LOOKS {
        last = handle.view().await;
        if let Some(view) = &last
            && view.waits_for().is_some_and(|waits_for| waits_for.contains(why))
        {
            return view.clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it waits for nothing, or for another reason: {:?}", last.as_ref().map(View::waits_for));
}

#[tokio::test(start_paused = true)]
async fn a_follower_sees_no_event_before_a_slow_leader_has_handled_it() {
    let (_, first, second) = pair(Stop::Tail);
    push(&first.rig.feed, 0..20);
    let (leader, follower) = (first.rig.store.clone(), second.rig.store.clone());
    let slow = first.parts(Slow(Duration::from_secs(1)));
    let handled = leader.clone();
    let sees = second.parts(Sees(move |event: &Event| {
        let name = format!("{}/{}", event.stream(), event.index());
        assert!(written(&handled).contains(&name), "{name} is not handled by the leader");
    }));
    let (first, second) = tokio::join!(first.run(slow), second.run(sees));
    assert_eq!((first, second), (Ended::Finished, Ended::Finished));
    assert_eq!((written(&leader).len(), written(&follower).len()), (42, 42));
}

#[tokio::test(start_paused = true)]
async fn parked_and_filtered_events_of_the_leader_do_not_hold_its_follower() {
    let (_, mut first, second) = pair(Stop::Tail);
    push(&first.rig.feed, 0..5);
    first.rig.options.errors.then = Then::Park;
    let follower = second.rig.store.clone();
    let excludes = filter::Settings { exclude_streams: vec![Text::literal("b-1")], ..filter::Settings::default() };
    let filter = Arc::new(Filter::compile(&excludes).unwrap());
    let refuses = Parts { filter, ..first.parts(Refuses("a-1")) };
    let sees = second.parts(anything());
    let (first, second) = tokio::join!(first.run(refuses), second.run(sees));
    assert_eq!((first, second), (Ended::Finished, Ended::Finished));
    assert_eq!(written(&follower).len(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_while_its_leader_is_paused_and_shows_so_without_trouble() {
    let (_, first, second) = pair(Stop::Never);
    let (follower, leader) = (second.rig.handle.clone(), first.rig.handle.clone());
    let (stops, store) = ([first.rig.stop.clone(), second.rig.stop.clone()], second.rig.store.clone());
    leader.pause().await;
    let (parts, sees) = (first.parts(anything()), second.parts(anything()));
    let meddle = async {
        // Longer than `stuck_after`.
        tokio::time::sleep(Duration::from_secs(600)).await;
        let view = until_waiting(&follower, "is paused").await;
        let why = view.waits_for().unwrap();
        assert_eq!(
            why,
            "tranche `0` waits for the pipeline `first`, which is at the origin of this tranche; it is paused: paused by the \
             operator"
        );
        assert!(view.tranches.iter().all(|tranche| tranche.trouble.is_none() && !tranche.at_tail));
        assert_eq!((view.unhandled(), written(&store).len()), (0, 0));
        assert_eq!(follower.standing().state, State::Running);
        leader.resume().await;
        until(|| written(&store).len() == 2).await;
        assert_eq!(follower.view().await.unwrap().waits_for(), None);
        stops.iter().for_each(CancellationToken::cancel);
    };
    let (first, second, ()) = tokio::join!(first.run(parts), second.run(sees), meddle);
    assert_eq!((first, second), (Ended::Stopped, Ended::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_for_a_stopped_leader_and_goes_on_with_its_next_run() {
    let (leaders, first, second) = pair(Stop::Never);
    let (next, feed) = (first.again(&leaders), first.rig.feed.clone());
    leaders.attach("first", first.rig.handle.standings());
    let (follower, stop, store) = (second.rig.handle.clone(), second.rig.stop.clone(), second.rig.store.clone());
    // A leader without a handle does not exist any more.
    let _kept = first.rig.handle.clone();
    let (leader_stop, next_stop) = (first.rig.stop.clone(), next.rig.stop.clone());
    let (parts, sees) = (first.parts(anything()), second.parts(anything()));
    let meddle = async {
        until(|| written(&store).len() == 2).await;
        leader_stop.cancel();
        tokio::time::sleep(Duration::from_secs(5)).await;
        push(&feed, 0..3);
        until_waiting(&follower, "it is stopped: told to stop").await;
        assert_eq!(written(&store).len(), 2);
        leaders.attach("first", next.rig.handle.standings());
        let parts = next.parts(anything());
        let rest = async {
            until(|| written(&store).len() == 8).await;
            next_stop.cancel();
            stop.cancel();
        };
        tokio::join!(next.run(parts), rest).0
    };
    let (first, second, next) = tokio::join!(first.run(parts), second.run(sees), meddle);
    assert_eq!([first, second, next], [Ended::Stopped, Ended::Stopped, Ended::Stopped]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_resumes_at_its_tail_lets_a_new_follower_read_everything() {
    let (leaders, mut first, second) = pair(Stop::Never);
    push(&first.rig.feed, 0..3);
    let resumed = first.again(&leaders);
    first.rig.options.stop = Stop::Tail;
    let parts = first.parts(anything());
    assert_eq!(first.run(parts).await, Ended::Finished);
    let (stops, store) = ([resumed.rig.stop.clone(), second.rig.stop.clone()], second.rig.store.clone());
    let (parts, sees) = (resumed.parts(anything()), second.parts(anything()));
    let meddle = async {
        until(|| written(&store).len() == 8).await;
        stops.iter().for_each(CancellationToken::cancel);
    };
    let (first, second, ()) = tokio::join!(resumed.run(parts), second.run(sees), meddle);
    assert_eq!((first, second), (Ended::Stopped, Ended::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_while_its_leader_restarts() {
    let (_, first, second) = pair(Stop::Tail);
    push(&first.rig.feed, 0..5);
    let Member { rig, links, .. } = first;
    let (feed, store, left) = (rig.feed.clone(), rig.store.clone(), Arc::new(AtomicU32::new(1)));
    let handled = store.clone();
    let parts = move || Parts {
        version: "v1".into(),
        source: Arc::new(Panics { source: feed.source(), left: Arc::clone(&left) }),
        checkpoints: Arc::new(store.clone()),
        handler: Some(AnyHandler::Async(Arc::new(Slow(Duration::from_secs(1))))),
        sink: AnySink::Plain(Arc::new(store.sink())),
        filter: Arc::new(Filter::default()),
    };
    let name: Arc<str> = "first".into();
    let restarts = rig.handle.clone();
    let pipeline = Pipeline {
        identity: Identity {
            name: Arc::clone(&name),
            group: "p".into(),
            source: "p".into(),
            owner: Owner(Arc::clone(&name)),
        },
        options: rig.options,
        assemble: Arc::new(Linked { parts, links }),
        observer: Observer::new(Metrics::new(rig.handle.clock()).pipeline(&name, &name), name),
    };
    let follower = second.rig.store.clone();
    let sees = second.parts(Sees(move |event: &Event| {
        let name = format!("{}/{}", event.stream(), event.index());
        assert!(written(&handled).contains(&name), "{name} is not handled by the leader");
    }));
    let daemon = Group::daemon();
    let running = pipeline.run(rig.listener, &daemon, rig.stop);
    let restarting = restarts.reaches(|state| state == State::Restarting);
    let (first, second, _) = tokio::join!(running, second.run(sees), restarting);
    assert_eq!((first, second), (Ended::Finished, Ended::Finished));
    assert_eq!(written(&follower).len(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_with_a_reason_if_its_leader_halts_before_the_end() {
    let (_, mut first, second) = pair(Stop::Tail);
    push(&first.rig.feed, 0..5);
    first.rig.options.errors.then = Then::Halt;
    let _kept = first.rig.handle.clone();
    let (refuses, sees) = (first.parts(Refuses("b-1")), second.parts(anything()));
    let (first, second) = tokio::join!(first.run(refuses), second.run(sees));
    assert!(matches!(first, Ended::Halted(_)), "{first:?}");
    let Ended::Unavailable(why) = second else { panic!("{second:?}") };
    let begins = "tranche `0` waits for the pipeline `first`, which has handled this tranche up to 2; it is halted: ";
    assert!(why.starts_with(begins), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_with_a_reason_if_its_leader_does_not_run_here_or_reads_another_feed() {
    let (leaders, first, mut second) = pair(Stop::Tail);
    let (elsewhere, sees) = (second.again(&leaders), second.parts(anything()));
    second.links = leaders.links("second", FEED, Some("nowhere"));
    let why = "tranche `0` waits for the pipeline `nowhere`, which does not run in this daemon".to_owned();
    assert_eq!(second.run(sees).await, Ended::Unavailable(why));
    let (parts, sees, _kept) = (first.parts(anything()), elsewhere.parts(anything()), first.rig.handle.clone());
    let elsewhere = Member { links: leaders.links("second", "another", Some("first")), ..elsewhere };
    let (_, ended) = tokio::join!(first.run(parts), elsewhere.run(sees));
    let why = "tranche `0` waits for the pipeline `first`, which now reads another source".to_owned();
    assert_eq!(ended, Ended::Unavailable(why));
}
