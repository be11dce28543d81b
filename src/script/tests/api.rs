use std::io;
use std::sync::Mutex;

use expect_test::expect;

use super::*;

#[test]
fn effects_keep_their_order() {
    check(
        "for e in events { emit(e.index); helper(e) }\n}\nfn helper(e) { emit([e.index])",
        expect![[r#"
            all
              5
              [5]
              6
              [6]
              7
              [7]
        "#]],
    );
}

#[test]
fn json_is_parsed_and_written() {
    check(
        "emit(json.parse(\"[1, {\\\"a\\\": 12345678901234567890}]\")); emit(json.text(#{ a: [1, 2.5, ()] }))",
        expect![[r#"
            all
              [1,{"a":"12345678901234567890"}]
              "{\"a\":[1,2.5,null]}"
        "#]],
    );
    check(
        "emit(json.text(events[0].data))",
        expect![[r#"
            all
              "{\"by\":{\"name\":\"Ada\"},\"items\":[{\"sku\":\"A\"}],\"total\":12.5}"
        "#]],
    );
    check(
        "json.parse(\"[1,\")",
        expect![[r#"
            Permanent
              main.rhai:2:6: this is not JSON: expected a value at byte 4 (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn times_can_be_read_and_compared() {
    check(
        "let t = time.parse(\"2026-11-24T10:00:10.5Z\"); \
         emit([t.unix(), t.unix_ms(), t.to_string(), t.seconds_since(events[0].timestamp), t > time.parse(events[0].timestamp)]); \
         emit(t)",
        expect![[r#"
            all
              [1795514410,1795514410500,"2026-11-24T10:00:10.5Z",10.5,true]
              "2026-11-24T10:00:10.5Z"
        "#]],
    );
    check(
        "emit(time.now().seconds_since(\"2020-01-01T00:00:00Z\") > 0.0); emit(time.now().unix() > 1600000000)",
        expect![[r#"
            all
              true
              true
        "#]],
    );
    check(
        "time.parse(\"yesterday\")",
        expect![[r#"
            Permanent
              main.rhai:2:6: `yesterday` is not a time such as "2026-11-24T10:00:00Z" (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn a_script_does_not_sleep_nor_evaluate_text() {
    check(
        "sleep(1)",
        expect![[r#"
            Permanent
              main.rhai:2:1: a script cannot sleep: return `defer("5s")` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    let problem = compile(&[("main.rhai", "fn handle(s, e) { eval(\"1\") }")], Options::default());
    expect![[r#"
        main.rhai:1:19: reserved keyword `eval` is disabled
           1 | fn handle(s, e) { eval("1") }
             |                   ^"#]]
    .assert_eq(&problem.unwrap_err().to_string());
}

#[test]
fn metrics_are_counted_over_all_threads_under_bounded_names() {
    let source = "fn handle(stream, events) { metric.inc(\"placed\"); metric.inc(\"total\", events.len()); }";
    let script = compile(&[("main.rhai", source)], Options::default()).unwrap();
    run(&script, &[order()]);
    run(&script, &[order(), single("{}")]);
    assert_eq!(script.metrics().snapshot(), [("placed".to_owned(), 3), ("total".to_owned(), 7)]);

    check(
        "metric.inc(\"order-1 seen\")",
        expect![[r#"
        Permanent
          main.rhai:2:8: `order-1 seen` cannot name a metric: use 1 to 64 of the letters a-z, A-Z, 0-9, `_`, `.`, `-` (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
    check(
        "metric.inc(\"seen\", -1)",
        expect![[r#"
        Permanent
          main.rhai:2:8: a counter cannot grow by -1 (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]],
    );
}

#[test]
fn r76_metric_names_made_of_data_do_not_grow_without_bound() {
    let metrics = ScriptMetrics::default();
    for number in 0..ScriptMetrics::MOST + 50 {
        metrics.add(&format!("name{number:05}"), 1).unwrap();
    }
    metrics.add("name00000", 1).unwrap();
    let counted = metrics.snapshot();
    assert_eq!(counted.len(), ScriptMetrics::MOST + 1);
    assert_eq!((&counted[0], &counted[1]), (&("_other".to_owned(), 50), &("name00000".to_owned(), 2)));
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_line_names_pipeline_and_stream() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_max_level(tracing::Level::DEBUG)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        check(
            "log.debug(1); log.info(\"two\"); log.warn([3]); log.error(`four ${events[0].index}`); print(5); debug(\"six\"); \
             log.info(events[2].data); log.info(events[0]); log.info(stream);",
            expect![[r#"
                all
            "#]],
        );
    });
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    expect![[r#"
        DEBUG 1 stream=order-1_a
         INFO two stream=order-1_a
         WARN [3] stream=order-1_a
        ERROR four 5 stream=order-1_a
         INFO 5 stream=order-1_a
        DEBUG "six" stream=order-1_a
         INFO #{"total": 3} stream=order-1_a
         INFO order-1_a/e5@5.0 stream=order-1_a
         INFO order-1_a stream=order-1_a
    "#]]
    .assert_eq(&logged);
}

#[test]
fn the_host_can_be_used_in_closures_and_functions() {
    check(
        "[1, 2].for_each(|| { log.info(this); metric.inc(\"x\"); emit(this + params.vat); }); helper()\n}\n\
         fn helper() { emit(params.name)",
        expect![[r#"
            all
              1.2
              2.2
              "shop"
        "#]],
    );
}
