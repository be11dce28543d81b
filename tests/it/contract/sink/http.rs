//! Sink `http`, against a server with scripted answers.

use std::sync::Arc;
use std::time::Duration;

use propulsiond::connector::http::HttpSink;
use tokio::sync::Notify;

use super::server::{Reply, Server};
use super::*;

struct Http {
    server: Server,
    sink: HttpSink,
}

async fn http(settings: &str) -> Http {
    let server = Server::start().await;
    let sink = sink(&server.url, settings);
    Http { server, sink }
}

fn sink(url: &str, settings: &str) -> HttpSink {
    let settings = toml::from_str(&format!("url = \"{url}\"\n{settings}")).unwrap();
    HttpSink::new(&settings, &context(".".as_ref())).unwrap()
}

impl Http {
    async fn write(&self, decided: Decided) -> Result {
        self.sink.write(&[decided]).await.remove(0)
    }

    fn keys(&self) -> Vec<String> {
        self.server.arrived().iter().map(|arrived| arrived.header("idempotency-key").to_owned()).collect()
    }
}

impl Harness for Http {
    fn sink(&self) -> &dyn Sink {
        &self.sink
    }

    fn seen(&self) -> Vec<(String, i64)> {
        self.server.arrived().iter().flat_map(|arrived| read_body(&arrived.body)).collect()
    }

    fn effect(&self, stream: &str, index: i64) -> Value {
        let body = Value::Map(vec![("stream".into(), stream.into()), ("index".into(), Value::Int(index))]);
        Value::Map(vec![("body".into(), body)])
    }

    fn unfit(&self) -> Decided {
        emitted("a-1", 0, vec![self.effect("a-1", 0), Value::Int(1)])
    }

    fn break_down(&self) {
        self.server.otherwise(Reply::Status(503));
    }

    fn repair(&self) {
        self.server.otherwise(Reply::Status(200));
    }
}

/// Reads the events of a request, in either form.
fn read_body(body: &str) -> Vec<(String, i64)> {
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    let Some(events) = json["e"].as_array() else { return vec![read_line(body)] };
    let stream = json["s"].as_str().unwrap();
    (json["i"].as_i64().unwrap()..).zip(events).map(|(index, _)| (stream.to_owned(), index)).collect()
}

mod per_event {
    super::super::sink_contract!(super::http("").await;
        events_of_a_stream_arrive_in_order,
        emitted_effects_arrive_in_order,
        a_decision_without_effects_is_written,
        unfolds_are_not_written,
        redelivered_events_are_written_again_in_order,
        r42_an_invalid_decision_is_permanent_and_spoils_no_other,
        r42_an_outage_is_unavailable_until_it_ends,
        a_closed_sink_keeps_its_writes_and_takes_more,
    );
}

mod per_span {
    super::super::sink_contract!(super::http("per = \"span\"").await;
        events_of_a_stream_arrive_in_order,
        a_decision_without_effects_is_written,
        unfolds_are_not_written,
        redelivered_events_are_written_again_in_order,
        r42_an_outage_is_unavailable_until_it_ends,
        a_closed_sink_keeps_its_writes_and_takes_more,
    );
}

#[tokio::test]
async fn a_request_is_what_the_settings_say() {
    let http = http(
        "path = \"/orders/{id}?x\"\nmethod = \"PUT\"\nheaders = { X-Tenant = \"blue\" }\nauth = { bearer = \"sesame\" }",
    )
    .await;
    // A question mark in a template begins a query; one in a name is part of the path.
    write_all(&http.sink, &[events("order-1?/é", 7..8)]).await;
    let arrived = &http.server.arrived()[0];
    assert_eq!((&*arrived.method, &*arrived.path), ("PUT", "/orders/1%3F%2F%C3%A9?x"));
    let headers = ["x-tenant", "authorization", "content-type", "idempotency-key"].map(|name| arrived.header(name));
    assert_eq!(headers, ["blue", "Bearer sesame", "application/json", "shop-v1/order-1?/%C3%A9:7"]);
    assert_eq!(arrived.body, r#"{"stream":"order-1?/é","index":7,"type":"Placed","data":{"total":1}}"#);
}

#[tokio::test]
async fn c24_a_retry_keeps_its_key_and_a_longer_span_has_another() {
    let spans = http("per = \"span\"").await;
    spans.server.reply([Reply::Status(500), Reply::Status(500)]);
    for decided in [events("a-1", 5..6), events("a-1", 5..6), events("a-1", 5..7)] {
        // Other tests check the results.
        drop(spans.write(decided).await);
    }
    assert_eq!(spans.keys(), ["shop-v1/a-1:5-6", "shop-v1/a-1:5-6", "shop-v1/a-1:5-7"]);

    let effects = http("").await;
    effects.server.reply([Reply::Status(200), Reply::Status(500)]);
    let two = || emitted("a-1", 5, vec![effects.effect("x", 1), effects.effect("x", 2)]);
    assert_eq!(effects.write(two()).await.unwrap_err().kind(), HandlerErrorKind::Transient);
    assert_eq!(effects.write(two()).await, Ok(Written::All));
    let keys = ["shop-v1/a-1:5-6#0", "shop-v1/a-1:5-6#1", "shop-v1/a-1:5-6#0", "shop-v1/a-1:5-6#1"];
    assert_eq!(effects.keys(), keys);
}

#[tokio::test]
async fn l8_c28_a_failed_decision_continues_after_its_accepted_effects_with_the_same_keys() {
    let http = http("").await;
    let effects = || (0..3).map(|number| http.effect("x", number)).collect();
    http.server.reply([Reply::Status(200), Reply::Status(500), Reply::Status(500)]);
    let error = http.write(emitted("a-1", 5, effects())).await.unwrap_err();
    assert_eq!(error.accepted_effects(), 1);
    let error = http.write(Decided { accepted: 1, ..emitted("a-1", 5, effects()) }).await.unwrap_err();
    assert_eq!(error.accepted_effects(), 1, "earlier writes count");
    assert_eq!(http.write(Decided { accepted: 1, ..emitted("a-1", 5, effects()) }).await, Ok(Written::All));
    let keys = [0, 1, 1, 1, 2].map(|number| format!("shop-v1/a-1:5-6#{number}"));
    assert_eq!(http.keys(), keys);
    assert_eq!(http.seen().into_iter().map(|(_, index)| index).collect::<Vec<_>>(), [0, 1, 1, 1, 2]);
}

#[tokio::test]
async fn events_accepted_before_a_failure_are_written() {
    let http = http("").await;
    http.server.reply([Reply::Status(200), Reply::Status(200), Reply::Status(422)]);
    assert_eq!(http.write(events("a-1", 5..9)).await, Ok(Written::Upto(7)));
    assert_eq!(http.keys(), ["shop-v1/a-1:5", "shop-v1/a-1:6", "shop-v1/a-1:7"]);
    http.server.reply([Reply::Status(422)]);
    let error = http.write(events("a-1", 7..9)).await.unwrap_err();
    assert_eq!((error.kind(), error.index()), (HandlerErrorKind::Permanent, Some(7)));
}

#[tokio::test]
async fn a_span_with_a_filtered_event_is_written_up_to_it() {
    let http = http("per = \"span\"").await;
    let holed = || of_events([5, 6, 8, 9].map(|index| event("a-1", index, Kind::Event)).into());
    http.server.reply([Reply::Status(200), Reply::Status(500)]);
    assert_eq!(http.write(holed()).await, Ok(Written::Upto(7)));
    http.server.reply([Reply::Status(500)]);
    let error = http.write(holed()).await.unwrap_err();
    assert_eq!((error.kind(), error.index()), (HandlerErrorKind::Transient, None));
}

#[tokio::test]
async fn events_in_read_order_are_written_together_or_not_at_all() {
    let http = http("").await;
    http.server.reply([Reply::Status(200), Reply::Status(500)]);
    let mixed = of_events([6, 5].map(|index| event("a-1", index, Kind::Event)).into());
    let error = http.write(mixed).await.unwrap_err();
    assert_eq!((error.kind(), error.index()), (HandlerErrorKind::Transient, Some(5)));
}

#[tokio::test]
async fn r45_a_throttling_answer_names_its_delay() {
    let http = http("").await;
    http.server.reply([
        Reply::With(429, &[("retry-after", "7")], ""),
        Reply::With(503, &[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")], "closed for repairs"),
    ]);
    let error = http.write(events("a-1", 0..1)).await.unwrap_err();
    assert_eq!((error.kind(), error.delay()), (HandlerErrorKind::Throttled, Some(Duration::from_secs(7))));
    let error = http.write(events("a-1", 0..1)).await.unwrap_err();
    assert_eq!((error.kind(), error.delay()), (HandlerErrorKind::Unavailable, Some(Duration::from_secs(3600))));
    let host = http.server.url.trim_start_matches("http://");
    assert_eq!(error.message(), format!("POST {host}: answered 503 Service Unavailable: closed for repairs"));
}

#[tokio::test]
async fn r63_a_message_names_the_request_and_no_secret() {
    let server = Server::start().await;
    let url = format!("{}/hook?code=query-secret", server.url);
    let settings = "path = \"/o/{id}\"\nheaders = { X-Key = \"header-secret\" }\nauth = { bearer = \"token-secret\" }";
    let sink = sink(&url, settings);
    server.reply([Reply::Echo(400), Reply::BreakOff(200)]);
    let host = server.url.trim_start_matches("http://");
    for kind in [HandlerErrorKind::Permanent, HandlerErrorKind::Transient] {
        let error = sink.write(&[events("order-1", 0..1)]).await.remove(0).unwrap_err();
        let (shown, message) = (format!("{sink:?} {error:?}"), error.message());
        assert_eq!(error.kind(), kind, "{message}");
        assert!(message.starts_with(&format!("POST {host}/hook/o/1: ")), "{message}");
        for secret in ["header-secret", "token-secret", "query-secret"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    assert_eq!(server.arrived()[0].path, "/hook/o/1?code=query-secret");
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_time_timed_out() {
    let http = http("timeout = \"100ms\"").await;
    http.server.reply([Reply::Hold]);
    let error = http.write(events("a-1", 0..1)).await.unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::TimedOut);
}

#[tokio::test]
async fn c24_a_cancelled_write_is_repeated_under_its_key() {
    let http = http("").await;
    http.server.reply([Reply::Hold]);
    let group = [events("a-1", 0..2)];
    let mut given_up = http.sink.write(&group);
    tokio::select! {
        biased;
        _ = &mut given_up => panic!("it is never answered"),
        () = http.server.wait_for(1) => {}
    }
    drop(given_up);
    write_all(&http.sink, &group).await;
    assert_eq!(http.keys(), ["shop-v1/a-1:0", "shop-v1/a-1:0", "shop-v1/a-1:1"]);
}

#[tokio::test]
async fn a_proxy_is_used_if_it_is_set() {
    let proxy = Server::start().await;
    let sink = sink("http://nowhere.invalid/x", &format!("proxy = \"{}\"", proxy.url));
    write_all(&sink, &[events("a-1", 0..1)]).await;
    assert_eq!(proxy.arrived()[0].path, "http://nowhere.invalid/x");
}

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let http = http("").await;
    let go = Arc::new(Notify::new());
    http.server.reply([Reply::Slow(Arc::clone(&go))]);
    let group = [events("a-1", 0..2)];
    let mut writing = http.sink.write(&group);
    tokio::select! {
        biased;
        _ = &mut writing => panic!("it was not answered yet"),
        () = http.server.wait_for(1) => {}
    }
    assert_eq!(http.keys(), ["shop-v1/a-1:0"], "the next waits for the first");
    go.notify_one();
    assert_eq!(writing.await, [Ok(Written::All)]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_transient() {
    let http = http("").await;
    http.server.reply([Reply::BreakOff(200), Reply::BreakOff(422)]);
    let error = http.write(events("a-1", 0..1)).await.unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Transient);
    assert!(error.message().contains("the answer, 200 OK, broke off: "), "{}", error.message());
    let error = http.write(events("a-1", 0..1)).await.unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Permanent, "that was known before it broke off");
    assert_eq!(http.write(events("a-1", 0..1)).await, Ok(Written::All));
}

#[tokio::test]
async fn an_answer_without_end_is_read_up_to_the_limit() {
    let http = http("").await;
    http.server.reply([Reply::Endless(200), Reply::Endless(500)]);
    assert_eq!(http.write(events("a-1", 0..1)).await, Ok(Written::All));
    let error = http.write(events("a-1", 0..1)).await.unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Transient);
    assert!(error.message().ends_with("xxx…") && error.message().len() < 1000, "{}", error.message());
}

#[tokio::test]
async fn x6_an_answer_with_many_headers_is_accepted() {
    let http = http("").await;
    http.server.reply([Reply::Headers(200, 150), Reply::Headers(200, 900)]);
    for _ in 0..2 {
        assert_eq!(http.write(events("a-1", 0..1)).await, Ok(Written::All));
    }
}

#[tokio::test]
async fn x6_the_text_of_a_compressed_error_is_shown() {
    let http = http("").await;
    http.server.reply([Reply::Gzip(422, "{\"error\":\"the parcel is unknown\"}")]);
    let error = http.write(events("a-1", 0..1)).await.unwrap_err();
    assert!(error.message().ends_with("422 Unprocessable Entity: {\"error\":\"the parcel is unknown\"}"), "{error}");
}

#[tokio::test]
async fn l13_an_effect_with_nan_sends_none_of_its_decision() {
    let http = http("").await;
    let body = |value| Value::Map(vec![("body".into(), Value::Map(vec![("avg".into(), value)]))]);
    let error = http.write(emitted("till-1", 0, vec![body(Value::Int(1)), body(Value::Float(f64::NAN))])).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Permanent);
    assert!(error.message().ends_with("`body.avg` is `NaN`, which JSON cannot hold"), "{error}");
    assert!(http.server.arrived().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let http = http("").await;
    http.server.reply([Reply::With(307, &[("location", "/elsewhere")], "")]);
    let error = http.write(events("a-1", 0..1)).await.unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Permanent);
    assert!(error.message().ends_with("answered 307 Temporary Redirect, and redirects are not followed"));
    assert_eq!(http.server.arrived().len(), 1);
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_unavailable() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (url, about) in [(format!("http://{gone}"), "refused"), ("http://nowhere.invalid".to_owned(), "")] {
        let error = sink(&url, "path = \"/o/{id}\"").write(&[events("a-1", 0..1)]).await.remove(0).unwrap_err();
        assert_eq!(error.kind(), HandlerErrorKind::Unavailable, "{error}");
        let request = format!("POST {}/o/1: ", url.trim_start_matches("http://"));
        assert!(error.message().starts_with(&request) && error.message().contains(about), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_unavailable() {
    let server = Server::start().await;
    let sink = sink(&server.url.replace("http:", "https:"), "");
    let error = sink.write(&[events("a-1", 0..1)]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Unavailable, "{error}");
    assert!(server.arrived().is_empty());
}

#[tokio::test]
async fn r65_an_emitted_path_cannot_leave_the_url() {
    let server = Server::start().await;
    let sink = sink(&format!("{}/hooks", server.url), "");
    for path in ["/../admin", "/%2e%2e/admin", "//../../admin", "@evil.example/"] {
        let value = Value::Map(vec![("path".into(), path.into())]);
        let error = sink.write(&[emitted("a-1", 0, vec![value])]).await.remove(0).unwrap_err();
        assert_eq!(error.kind(), HandlerErrorKind::Permanent, "{path}");
    }
    assert!(server.arrived().is_empty());
}

/// An event with this metadata.
fn with_meta(index: i64, meta: &str) -> Event {
    let event = Assembler::new("a-1", "Placed").data(b"{}").meta(meta.as_bytes());
    event.build(Kind::Event, Ordinal::default(), index).unwrap()
}

const PARENTS: [&str; 2] = [
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
];

fn with_trace(index: i64, parent: usize, state: &str) -> Event {
    with_meta(index, &serde_json::json!({ "traceparent": PARENTS[parent], "tracestate": state }).to_string())
}

/// Asserts the `traceparent` and `tracestate` of each request of these decisions.
async fn check_traces(settings: &str, decided: Vec<Decided>, expected: &[(&str, &str)]) {
    let http = http(settings).await;
    write_all(&http.sink, &decided).await;
    let arrived = http.server.arrived();
    let headers: Vec<_> =
        arrived.iter().map(|arrived| (arrived.header("traceparent"), arrived.header("tracestate"))).collect();
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn a_request_carries_the_trace_of_the_first_of_its_events_that_has_one() {
    let events = || vec![with_meta(0, "{}"), with_trace(1, 0, "a=1"), with_trace(2, 1, "b=2,c=3")];
    let [first, second] = PARENTS;
    check_traces("", vec![of_events(events())], &[("", ""), (first, "a=1"), (second, "b=2,c=3")]).await;
    check_traces("per = \"span\"", vec![of_events(events())], &[(first, "a=1")]).await;
    let body = || Value::Map(vec![("body".into(), Value::Int(1))]);
    let emitted = Decided { effects: Effects::Emitted(vec![body(), body()].into()), ..of_events(events()) };
    check_traces("", vec![emitted], &[(first, "a=1"), (first, "a=1")]).await;
}

#[tokio::test]
async fn an_invalid_trace_context_is_not_passed_on() {
    let invalid = PARENTS[0].replacen("00", "ff", 1);
    let events = vec![
        with_meta(0, &format!("{{\"traceparent\":\"{invalid}\",\"tracestate\":\"a=1\"}}")),
        with_trace(1, 0, "no state"),
        with_meta(2, "{\"tracestate\":\"a=1\"}"),
        with_meta(3, "no JSON"),
    ];
    check_traces("", vec![of_events(events)], &[("", ""), (PARENTS[0], ""), ("", ""), ("", "")]).await;
}

#[tokio::test]
async fn a_trace_context_is_not_passed_on_if_disabled_or_set_elsewhere() {
    let events = || of_events(vec![with_trace(0, 0, "a=1")]);
    check_traces("trace_context = false", vec![events()], &[("", "")]).await;
    check_traces("headers = { traceparent = \"mine\" }", vec![events()], &[("mine", "")]).await;
    let own = Value::Map(vec![("TraceParent".into(), "from the handler".into())]);
    let effect = Value::Map(vec![("headers".into(), own)]);
    let emitted = Decided { effects: Effects::Emitted(vec![effect].into()), ..events() };
    check_traces("", vec![emitted], &[("from the handler", "")]).await;
}
