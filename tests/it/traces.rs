//! Export of traces, from the events' metadata to the requests that a collector gets.
//!
//! The collector is a stand-in. It reads the tested fields with a protobuf reader of its own, by the published numbers and
//! types. It does not prove that a real collector accepts the requests, shows the spans as one trace, or works with TLS and
//! compression.

mod collector;
mod protobuf;

use expect_test::expect;

use crate::daemon::{Place, check, text};
use collector::{Collector, Span};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENDER: &str = "00f067aa0ba902b7";

/// Posts the total of each order.
const SCRIPT: &str = "fn handle(stream, events) {
    for e in events { emit(#{ body: #{ total: e.data.total } }); }
}";

fn pipeline(url: &str, events: &str) -> Place {
    let toml = format!(
        "stop = \"tail\"\n[source.json]\npath = \"orders.jsonl\"\n[handler.rhai]\nscript = \"orders.rhai\"\n\
         [sink.http]\nurl = \"{url}\"\n[errors]\nthen = \"skip\"\n"
    );
    Place::new(&[("orders.toml", &toml), ("orders.rhai", SCRIPT), ("orders.jsonl", events)])
}

fn settings(place: &Place, endpoint: &str, more: &str) -> String {
    let path = place.path("settings.toml");
    std::fs::write(&path, format!("[otlp]\nendpoint = \"{endpoint}\"\n{more}")).unwrap();
    path.to_string_lossy().into_owned()
}

fn event(stream: &str, meta: &str) -> String {
    format!(
        "{{\"stream\":\"{stream}\",\"index\":0,\"type\":\"OrderPlaced\",\"data\":{{\"total\":3}},\"meta\":{meta}}}\n"
    )
}

fn traced(stream: &str, flags: &str) -> String {
    event(stream, &format!("{{\"traceparent\":\"00-{TRACE}-{SENDER}-{flags}\",\"tracestate\":\"a=1\"}}"))
}

/// Writes spans as a tree, each below its parent, without the parts that differ between runs.
fn tree(spans: &[Span]) -> String {
    fn below(spans: &[Span], parent: &str, depth: usize, tree: &mut String) {
        let mut children: Vec<_> = spans.iter().filter(|span| span.parent == parent).collect();
        children.sort_by_key(|span| (span.began, span.name.clone()));
        for span in children {
            tree.push_str(&format!("{}{}\n", "  ".repeat(depth), span.show()));
            below(spans, &span.id, depth + 1, tree);
        }
    }
    let mut tree = String::new();
    let mut tops: Vec<_> =
        spans.iter().map(|span| &span.parent).filter(|parent| spans.iter().all(|span| span.id != **parent)).collect();
    tops.sort();
    tops.dedup();
    for top in tops {
        tree.push_str(&format!("below {}\n", if top.is_empty() { "nothing" } else { top }));
        below(spans, top, 1, &mut tree);
    }
    tree
}

#[test]
fn a_trace_goes_on_from_the_event_through_the_call_to_the_request() {
    let (collector, target) = (Collector::start(), Collector::start());
    let place = pipeline(&target.url, &format!("{}{}", traced("order-1", "01"), event("order-2", "{}")));
    let more = "sample = 0\nservice_name = \"shop\"\nheaders = { x-key = \"planted-secret\" }\n\
                attributes = { \"deployment.environment.name\" = \"test\" }";
    let output = place.run(&["--settings", &settings(&place, &collector.url, more)]);
    check(&output, 0, &["finished: 2 events handled"]);
    assert!(!text(&output).contains("planted-secret"));

    let sent = collector.requests();
    let request = &sent[0];
    assert_eq!((&*request.path, request.header("content-type")), ("/v1/traces", "application/x-protobuf"));
    assert_eq!(request.header("x-key"), "planted-secret");
    let (resource, spans) = collector::read(&sent);
    expect![[r#"
        deployment.environment.name="test" service.name="shop" service.version="VERSION""#]]
    .assert_eq(&resource.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    assert!(spans.iter().all(|span| span.trace == TRACE && span.state == "a=1" && span.began <= span.ended));
    expect![[r#"
        below 00f067aa0ba902b7
          call (consumer) propulsiond.attempt=1 propulsiond.event_type="OrderPlaced" propulsiond.first_index=0 propulsiond.next_index=1 propulsiond.outcome="done" propulsiond.pipeline="orders" propulsiond.stream="order-1" propulsiond.streams=1
            queue (internal)
            handle (internal)
            write (internal)
              request (client) http.request.method="POST" http.response.status_code=200 server.address="127.0.0.1" url.path="/"
    "#]].assert_eq(&tree(&spans));

    let span = spans.iter().find(|span| span.name == "request").unwrap();
    let headers: Vec<_> = target
        .requests()
        .iter()
        .map(|request| (request.header("traceparent").to_owned(), request.header("tracestate").to_owned()))
        .collect();
    let of_request = (format!("00-{TRACE}-{}-01", span.id), "a=1".to_owned());
    assert!(headers.contains(&of_request) && headers.contains(&(String::new(), String::new())), "{headers:?}");
}

#[test]
fn calls_without_a_trace_are_sampled_and_calls_of_unrecorded_traces_are_not_recorded() {
    let (collector, target) = (Collector::start(), Collector::start());
    target.answer(500);
    let place = pipeline(&target.url, &format!("{}{}", traced("order-1", "00"), event("order-2", "{}")));
    place.write(
        "orders.toml",
        &std::fs::read_to_string(place.path("pipelines/orders.toml"))
            .unwrap()
            .replace("\"skip\"", "\"skip\"\nretry = { initial = \"1ms\", attempts = 2 }"),
    );
    let output = place.run(&["--settings", &settings(&place, &collector.url, "sample = 1")]);
    check(&output, 0, &["finished: "]);
    let (_, spans) = collector::read(&collector.requests());
    assert!(spans.iter().all(|span| span.trace != TRACE));
    let calls: Vec<_> = spans.iter().filter(|span| span.name == "call").map(Span::show).collect();
    expect![[r#"
        call (consumer) error.type="exception" propulsiond.attempt=1 propulsiond.event_type="OrderPlaced" propulsiond.first_index=0 propulsiond.next_index=1 propulsiond.outcome="skipped" propulsiond.pipeline="orders" propulsiond.stream="order-2" propulsiond.streams=1 failed: POST : answered 500 Internal Server Error"#]].assert_eq(&calls.join("\n"));
    assert!(spans.iter().any(|span| span.name == "commit"), "{}", tree(&spans));
    // The context of an unrecorded trace is passed on too.
    let parents: Vec<_> = target.requests().iter().map(|request| request.header("traceparent").to_owned()).collect();
    assert!(parents.contains(&format!("00-{TRACE}-{SENDER}-00")), "{parents:?}");
}

#[test]
fn a_call_has_its_commit_if_the_sink_holds_the_progress() {
    let collector = Collector::start();
    let toml = "stop = \"tail\"\ncheckpoint = \"sink\"\n[source.json]\npath = \"orders.jsonl\"\n\
                [handler.rhai]\nscript = \"orders.rhai\"\n[sink.sqlite]\npath = \"orders.db\"\n\
                init = [\"create table if not exists orders (id text, total real)\"]\n";
    let script = "fn handle(stream, events) {
        for e in events { emit(#{ sql: \"insert into orders values (?, ?)\", params: [stream.id, e.data.total] }); }
    }";
    let events = traced("order-1", "01");
    let place = Place::new(&[("orders.toml", toml), ("orders.rhai", script), ("orders.jsonl", &events)]);
    let output = place.run(&["--settings", &settings(&place, &collector.url, "sample = 0")]);
    check(&output, 0, &["finished: 1 event handled"]);
    let (_, spans) = collector::read(&collector.requests());
    expect![[r#"
        below 00f067aa0ba902b7
          call (consumer) propulsiond.attempt=1 propulsiond.event_type="OrderPlaced" propulsiond.first_index=0 propulsiond.next_index=1 propulsiond.outcome="done" propulsiond.pipeline="orders" propulsiond.stream="order-1" propulsiond.streams=1
            queue (internal)
            handle (internal)
            write (internal)
            commit (internal)
    "#]].assert_eq(&tree(&spans));
}

#[test]
fn a_collector_that_is_away_holds_nothing_up_and_what_has_no_room_is_counted() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let toml = "[source.generate]\nstreams = 20000\ncount = 20000\n[sink.null]\n";
    let place = Place::new(&[("load.toml", toml)]);
    let settings = settings(&place, &format!("http://{closed}"), "sample = 1\ntimeout = \"1s\"");
    let daemon = place.start(&["--settings", &settings]);
    let count = |page: &str, name: &str| {
        page.lines().find_map(|line| line.strip_prefix(name)).map_or(0.0, |value| value.trim().parse::<f64>().unwrap())
    };
    daemon.until("/metrics", |_, page| {
        crate::daemon::handled(page, "load") == 20_000 && count(page, "propulsiond_spans_dropped_total ") > 0.0
    });
    daemon.wait_for("the collector is unavailable, retrying");
    let (code, _) = daemon.stop("TERM");
    assert_eq!(code, Some(0));
}

#[test]
fn spans_that_a_collector_refuses_are_dropped_and_said_once_without_secrets() {
    let (collector, target) = (Collector::start(), Collector::start());
    collector.answer(401);
    let place = pipeline(&target.url, &traced("order-1", "01"));
    let more = "headers = { authorization = \"planted-secret\" }";
    let output = place.run(&["--settings", &settings(&place, &collector.url, more)]);
    check(&output, 0, &["the collector rejected spans, dropping them status=401"]);
    assert!(!text(&output).contains("planted-secret"));
    assert_eq!(collector.requests().len(), 1);
}
