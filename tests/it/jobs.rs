//! Finite jobs, failing pipelines, and their log lines.

use crate::daemon::{Daemon, LIMIT, Place, check, handled, signal, text};

const EVENTS: &str = "{\"stream\":\"a-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n{\"stream\":\"b-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n";

fn copying(to: &str) -> String {
    format!("[source.json]\npath = \"events.jsonl\"\n[sink.file]\npath = \"{to}\"\n")
}

#[test]
fn a_pipeline_that_halts_makes_a_job_end_with_1_and_the_others_finish() {
    let place = Place::new(&[("events.jsonl", EVENTS), ("good.toml", &copying("good.jsonl"))]);
    place.write(
        "bad.toml",
        &copying("bad.jsonl")
            .replace("[sink", "[errors]\nthen = \"halt\"\n[handler.rhai]\nscript = \"bad.rhai\"\n[sink"),
    );
    place.write("bad.rhai", "fn handle(stream, events) { if stream.id == \"1\" { nonsense(); } }");
    let output = place.run(&["--until-tail"]);
    check(&output, 2, &["bad.rhai:1:51", "nonsense"]);
    place.write("bad.rhai", "fn handle(stream, events) { throw #{ class: \"permanent\", why: \"no\" }; }");
    let output = place.run(&["--until-tail"]);
    check(&output, 1, &["halted: event 0 (`A`) of stream", "bad.rhai:1:", "finished: 2 events handled"]);
    assert_eq!(place.read("data/good.jsonl").lines().count(), 2);
    // The halted pipeline resumes at the same event, and the finished one has nothing left to do.
    place.write("bad.rhai", "fn handle(stream, events) { for e in events { emit(stream.name); } }");
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &["finished: 2 events handled", "finished: 0 events handled"]);
    assert_eq!(place.read("data/bad.jsonl").lines().count(), 2);
    assert_eq!(place.read("data/good.jsonl").lines().count(), 2);
}

/// Starts the pipelines of `place` with a standard output whose reader has ended.
fn start_with_closed_stdout(place: &Place, arguments: &[&str]) -> Daemon {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Daemon::start_with_stdout(place.command(arguments), writer)
}

#[test]
fn s19_a_closed_stdout_halts_the_pipeline_and_blames_no_event() {
    let printing = copying("").replace("[sink.file]\npath = \"\"", "[errors]\nthen = \"skip\"\n[sink.stdout]");
    let place = Place::new(&[("events.jsonl", EVENTS), ("p.toml", &printing)]);
    let (code, said) = start_with_closed_stdout(&place, &["--until-tail"]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("halted: standard output was closed by its reader") && !said.contains("event skipped"),
        "{said}"
    );

    let mut service = start_with_closed_stdout(&place, &["--listen", "127.0.0.1:0"]);
    let line = service.wait_for("serving metrics and health");
    service.address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let health = service.until("/health", |status, _| status == 503);
    assert!(health.contains("\"state\":\"halted\"") && health.contains("closed by its reader"), "{health}");
    assert_eq!(service.stop("TERM").0, Some(1));

    // Both events are still unhandled.
    check(&place.run(&["--until-tail"]), 0, &["finished: 2 events handled"]);
}

#[test]
fn a_failing_source_is_retried_without_a_restart_and_the_other_pipelines_go_on() {
    let place = Place::new(&[
        ("inbox.toml", "[source.memory]\n[sink.null]\n"),
        ("feed.toml", "[source.json]\npath = \"feed\"\ntranche_per_file = true\npoll = \"10ms\"\n[sink.file]\n"),
    ]);
    std::fs::create_dir(place.path("pipelines/feed")).unwrap();
    place.write("feed/one.jsonl", EVENTS);
    let daemon = place.start(&[]);
    daemon.until("/metrics", |_, page| handled(page, "feed") == 2);

    // Without its directory, the source fails again and again, each time after a longer delay.
    std::fs::rename(place.path("pipelines/feed"), place.path("pipelines/gone")).unwrap();
    let line = daemon.wait_for("source failed, retrying");
    assert!(line.contains("pipeline=feed") && line.contains("pipelines/feed") && line.contains("retry_in="), "{line}");
    daemon.wait_for("source failed, retrying attempt=3");
    push(&daemon, EVENTS);
    let page = daemon.until("/metrics", |_, page| handled(page, "inbox") == 2);
    for pipeline in ["inbox", "feed"] {
        assert_eq!(count(&page, &format!("propulsiond_restarts_total{{pipeline=\"{pipeline}\"}}")), 0);
    }

    // S3: reading goes on once the file is back, even if its reader had ended, and nothing is reported as failing.
    std::fs::rename(place.path("pipelines/gone"), place.path("pipelines/feed")).unwrap();
    daemon.until("/health", |_, body| !body.contains("reading has failed"));
    place.write("feed/one.jsonl", &[EVENTS, &EVENTS.replace("\"index\":0", "\"index\":1")].concat());
    place.write("feed/two.jsonl", &EVENTS.replace("-1\"", "-2\""));
    daemon.until("/metrics", |_, page| handled(page, "feed") == 6);
    daemon.until("/pipelines/feed", |_, body| body.contains("\"state\":\"running\""));
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.read("data/feed.jsonl").lines().count(), 6, "handled events are not redelivered");
}

/// Returns the value of a series, 0 if there is none.
fn count(page: &str, series: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

#[test]
fn r33_c20_a_stream_whose_calls_return_at_once_without_progress_is_stuck_after_a_while() {
    let place =
        Place::new(&[("events.jsonl", EVENTS), ("some.rhai", "fn handle(stream, events) { upto(events[0].index) }")]);
    place.write(
        "p.toml",
        "[source.json]\npath = \"events.jsonl\"\n[handler.rhai]\nscript = \"some.rhai\"\n[errors]\nthen = \"halt\"\nstuck_after = \"1s\"\n",
    );
    let output = place.run(&["--until-tail"]);
    check(&output, 1, &["halted: stream `", "has made no progress for"]);
}

#[test]
fn require_all_goes_on_after_a_restart_whatever_moved_its_streams() {
    let common = "[source.json]\npath = \"events.jsonl\"\n[filter]\nexclude_events = [\"Viewed\"]\n\
                  [schedule]\nrequire_all = true\n[handler.rhai]\nscript = \"some.rhai\"\n";
    let exact =
        format!("checkpoint = \"sink\"\n{common}[sink.sqlite]\ninit = [\"CREATE TABLE IF NOT EXISTS rows (n)\"]\n");
    let place = Place::new(&[
        ("plain.toml", &format!("{common}[sink.file]\n")),
        ("exact.toml", &exact),
        (
            "some.rhai",
            "fn handle(stream, events) { for e in events { if e.data.n > 4 { emit(#{ sql: \"INSERT INTO rows VALUES (?)\", params: [e.data.n] }); } } }",
        ),
    ]);
    let line = |stream: &str, index: i64, kind: &str, n: i64| {
        format!("{{\"stream\":\"{stream}\",\"index\":{index},\"type\":\"{kind}\",\"data\":{{\"n\":{n}}}}}\n")
    };
    // The event that moves `a` has no effect, and the one that moves `b` is filtered.
    let first = [line("a-1", 0, "Placed", 1), line("b-1", 0, "Viewed", 2)].concat();
    let second = [line("a-1", 1, "Placed", 5), line("b-1", 1, "Viewed", 3), line("b-1", 2, "Placed", 6)].concat();
    place.write("events.jsonl", &first);
    check(&place.run(&["--until-tail"]), 0, &["finished: 2 events handled"]);
    place.write("events.jsonl", &(first + second.as_str()));
    check(&place.run(&["--until-tail"]), 0, &["finished: 3 events handled"]);
    assert_eq!(place.read("data/plain.jsonl").lines().count(), 2);
    let rows = rusqlite::Connection::open(place.path("data/projections.db")).unwrap();
    assert_eq!(rows.query_row("SELECT sum(n) FROM rows", [], |row| row.get(0)), Ok(11_i64));
}

#[test]
fn an_orderly_stop_leaves_databases_closed() {
    // With this number, a process that does not wait for them leaves some open.
    let pipelines = 12;
    let place = Place::new(&[]);
    for n in 0..pipelines {
        let own = format!("[checkpoint.sqlite]\npath = \"progress-{n}.db\"\n");
        let progress = if n % 2 == 0 { own.as_str() } else { "checkpoint = \"sink\"\n" };
        let source = "[source.json]\npath = \"events.jsonl\"\npoll = \"10ms\"\n";
        place.write(&format!("p{n}.toml"), &format!("{progress}{source}[sink.sqlite]\npath = \"rows-{n}.db\"\n"));
    }
    let feed = |indexes: i64| {
        let lines = (0..indexes).flat_map(|index| (0..300).map(move |n| (n, index)));
        let line = |(n, index)| format!("{{\"stream\":\"a-{n}\",\"index\":{index},\"type\":\"A\",\"data\":{{}}}}\n");
        place.write("events.jsonl", &lines.map(line).collect::<String>());
    };
    let check_closed = || {
        let files = std::fs::read_dir(place.path("data")).unwrap().map(|entry| entry.unwrap().path());
        // The marker file of a database stays.
        let is_database_file = |path: &std::path::PathBuf| {
            let path = path.to_string_lossy();
            path.contains(".db") && !path.ends_with("-held")
        };
        let files: Vec<_> = files.filter(is_database_file).collect();
        let open: Vec<_> = files.iter().filter(|path| path.extension().is_none_or(|ending| ending != "db")).collect();
        assert!(open.is_empty(), "{open:?} are left");
        assert_eq!(files.len(), pipelines * 3 / 2);
    };
    feed(1);
    check(&place.run(&["--until-tail"]), 0, &["finished: 300 events handled"]);
    check_closed();
    for (indexes, signal) in [(2, "INT"), (3, "TERM")] {
        feed(indexes);
        let daemon = place.start(&[]);
        daemon.until("/metrics", |_, page| (0..pipelines).all(|n| handled(page, &format!("p{n}")) == 300));
        let (code, said) = daemon.stop(signal);
        assert_eq!(code, Some(0), "{said}");
        check_closed();
    }
}

#[test]
fn a_directory_in_place_of_a_sinks_file_is_named_and_waited_for() {
    let place =
        Place::new(&[("feed.toml", "[source.json]\npath = \"feed.jsonl\"\n[sink.file]\n"), ("feed.jsonl", EVENTS)]);
    std::fs::create_dir_all(place.path("data/feed.jsonl")).unwrap();
    let daemon = place.start(&[]);
    let line = daemon.wait_for("circuit breaker opened");
    assert!(line.contains("pipeline=feed") && line.contains("data/feed.jsonl"), "{line}");
    daemon.until("/health", |_, body| body.contains("has been unavailable for"));
    std::fs::remove_dir(place.path("data/feed.jsonl")).unwrap();
    daemon.until("/metrics", |_, page| handled(page, "feed") == 2);
    daemon.until("/health", |status, body| status == 200 && !body.contains("has been unavailable for"));
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.read("data/feed.jsonl").lines().count(), 2);
}

#[test]
fn c2_a_feed_that_becomes_a_directory_is_lost_and_halts_its_pipeline_alone() {
    let place = Place::new(&[
        ("feed.toml", "[source.json]\npath = \"feed.jsonl\"\npoll = \"10ms\"\n[sink.null]\n"),
        ("inbox.toml", "[source.memory]\n[sink.null]\n"),
        ("feed.jsonl", EVENTS),
    ]);
    let daemon = place.start(&[]);
    daemon.until("/metrics", |_, page| handled(page, "feed") == 2);
    std::fs::rename(place.path("pipelines/feed.jsonl"), place.path("pipelines/old")).unwrap();
    std::fs::create_dir(place.path("pipelines/feed.jsonl")).unwrap();
    daemon.until("/health", |status, body| {
        status == 503 && body.contains("halted: ") && body.contains("pipelines/feed.jsonl") && body.contains("replaced")
    });
    push(&daemon, EVENTS);
    daemon.until("/metrics", |_, page| handled(page, "inbox") == 2);
}

/// Sends events to the pipeline `inbox`.
fn push(daemon: &Daemon, events: &str) {
    let answer = daemon.request("POST /pipelines/inbox/events", &[("content-type", "application/json")], events);
    assert_eq!(answer.0, 202, "{}", answer.1);
}

#[test]
fn r82_a_feed_that_was_replaced_halts_its_pipeline_which_says_what_can_be_done() {
    let other =
        "{\"stream\":\"other-1\",\"index\":0,\"type\":\"A\",\"data\":{\"and\":\"as long as before\"}}\n".repeat(2);
    let halted = |place: &Place| {
        let output = place.run(&["--until-tail"]);
        check(&output, 1, &["halted: resume in `", "restore the data that was read", "another `group`"]);
    };
    let replaced = || {
        let place = Place::new(&[("p.toml", &copying("p.jsonl")), ("events.jsonl", EVENTS)]);
        check(&place.run(&["--until-tail"]), 0, &["finished: 2 events handled"]);
        place.write("events.jsonl", &other);
        halted(&place);
        place
    };
    // A copy replaces the feed: only its new lines are delivered.
    let place = replaced();
    std::fs::remove_file(place.path("pipelines/events.jsonl")).unwrap();
    place.write("events.jsonl", &(EVENTS.to_owned() + EVENTS.replace("-1\"", "-2\"").as_str()));
    check(&place.run(&["--until-tail"]), 0, &["finished: 2 events handled"]);
    // Another group starts at the origin.
    let place = replaced();
    place.write("p.toml", &format!("group = \"again\"\n{}", copying("p.jsonl")));
    check(&place.run(&["--until-tail"]), 0, &["finished: 2 events handled"]);
    // With `on_replaced = "restart"`, the feed is read again.
    let place = replaced();
    place.write("p.toml", &copying("p.jsonl").replace("[sink", "on_replaced = \"restart\"\n[sink"));
    check(&place.run(&["--until-tail"]), 0, &["finished: 2 events handled"]);
}

/// A pipeline that writes a row for each line, exactly once. Stream `s-2` fails while the script says so.
const COUNTED: &str = "checkpoint = \"sink\"\n[source.json]\npath = \"events.jsonl\"\nindex = \"line\"\n[errors]\nthen = \"halt\"\nretry = { attempts = 1 }\n\
    [handler.rhai]\nscript = \"rows.rhai\"\n[sink.sqlite]\npath = \"rows.db\"\n\
    init = [\"CREATE TABLE IF NOT EXISTS rows (stream)\"]\n";
const ROW: &str = "emit(#{ sql: \"INSERT INTO rows VALUES (?1)\", params: [stream.name] });";

/// Runs it until it halts over the second of five lines, whose stream fails. The other four are handled.
fn halted_behind_its_handled_lines() -> (Place, String) {
    let lines: String = (1..=5).map(|n| format!("{{\"stream\":\"s-{n}\",\"type\":\"A\",\"data\":{{}}}}\n")).collect();
    let fails = format!("fn handle_event(stream, event) {{ if stream.name == \"s-2\" {{ throw \"no\" }} {ROW} }}");
    let place = Place::new(&[("p.toml", COUNTED), ("rows.rhai", &fails), ("events.jsonl", &lines)]);
    check(&place.run(&["--until-tail"]), 1, &["halted: ", "no"]);
    assert_eq!(streams(&place), ["s-1", "s-3", "s-4", "s-5"]);
    place.write("rows.rhai", &format!("fn handle_event(stream, event) {{ {ROW} }}"));
    (place, lines)
}

/// Returns the rows of the table, sorted.
fn streams(place: &Place) -> Vec<String> {
    let database = rusqlite::Connection::open(place.path("data/rows.db")).unwrap();
    let mut rows = database.prepare("SELECT stream FROM rows ORDER BY stream").unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn c2_a_copy_of_a_feed_repeats_no_line_that_was_handled_ahead_of_the_position() {
    let (place, lines) = halted_behind_its_handled_lines();
    place.write("copy", &lines);
    std::fs::rename(place.path("pipelines/copy"), place.path("pipelines/events.jsonl")).unwrap();
    check(&place.run(&["--until-tail"]), 0, &["finished: "]);
    assert_eq!(streams(&place), ["s-1", "s-2", "s-3", "s-4", "s-5"]);
}

#[test]
fn c2_a_line_that_is_removed_ahead_of_the_position_loses_no_other_one() {
    let (place, lines) = halted_behind_its_handled_lines();
    let failing = lines.split_inclusive('\n').nth(1).unwrap();
    place.write("events.jsonl", &(lines.replace(failing, "") + &*failing.replace("s-2", "s-6")));
    let lost = "lines up to `events.jsonl` line 5 were handled ahead of the position";
    check(&place.run(&["--until-tail"]), 1, &["halted: resume in `", lost]);
    place.write("events.jsonl", &lines);
    check(&place.run(&["--until-tail"]), 0, &["finished: "]);
    assert_eq!(streams(&place), ["s-1", "s-2", "s-3", "s-4", "s-5"]);
}

#[test]
fn c19_effects_that_fail_at_the_commit_are_found_by_giving_each_decision_a_transaction() {
    // The bundled SQLite enforces foreign keys, and checks a deferred one at the commit.
    let init = "init = [\"CREATE TABLE IF NOT EXISTS parents (id INTEGER PRIMARY KEY)\", \
                \"CREATE TABLE IF NOT EXISTS kids (n, parent REFERENCES parents DEFERRABLE INITIALLY DEFERRED)\", \
                \"INSERT OR IGNORE INTO parents VALUES (1)\"]\n";
    let rest = "[source.json]\npath = \"events.jsonl\"\n[errors]\nthen = \"skip\"\n[handler.rhai]\nscript = \"kids.rhai\"\n[sink.sqlite]\n";
    let line = |n: i64| {
        let parent = if n == 13 { 2 } else { 1 };
        format!("{{\"stream\":\"a-{n}\",\"index\":0,\"type\":\"A\",\"data\":{{\"n\":{n},\"parent\":{parent}}}}}\n")
    };
    let place = Place::new(&[
        ("exact.toml", &format!("checkpoint = \"sink\"\n{rest}path = \"exact.db\"\n{init}")),
        ("plain.toml", &format!("{rest}path = \"plain.db\"\n{init}")),
        (
            "kids.rhai",
            "fn handle(stream, events) { for e in events { emit(#{ sql: \"INSERT INTO kids VALUES (?, ?)\", params: [e.data.n, e.data.parent] }); } }",
        ),
        ("events.jsonl", &(0..40).map(line).collect::<String>()),
    ]);
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &["finished: 39 events handled in", ", 1 skipped", "FOREIGN KEY constraint failed", "a-13"]);
    assert_eq!(text(&output).matches("event skipped").count(), 2, "one in each pipeline:\n{}", text(&output));
    for database in ["exact.db", "plain.db"] {
        let kids = rusqlite::Connection::open(place.path("data").join(database)).unwrap();
        let found = kids.query_row("SELECT count(*), sum(n) FROM kids", [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(found, Ok((39_i64, 780 - 13_i64)), "{database}");
    }
}

#[test]
fn a_yaml_pipeline_runs_like_any_other() {
    let yaml = "source:\n  json:\n    path: events.jsonl\nsink:\n  file:\n    path: out.jsonl\nstop: tail\n";
    let place = Place::new(&[("p.yaml", yaml), ("events.jsonl", EVENTS)]);
    // Every pipeline ends, and so does the daemon.
    check(&place.run(&[]), 0, &["finished: 2 events handled"]);
    assert_eq!(place.read("data/out.jsonl").lines().count(), 2);
    place.write("p.yaml", &yaml.replace("path: events", "pth: events"));
    check(&place.run(&[]), 2, &["p.yaml:3:5", "`path`"]);
}

#[test]
fn a_daemon_that_does_not_listen_stops_on_a_signal() {
    let place = Place::new(&[("p.toml", &copying("out.jsonl")), ("events.jsonl", EVENTS)]);
    let output = place.run(&["--until-tail", "--listen", "off"]);
    check(&output, 0, &["finished: 2 events handled"]);
    assert!(!text(&output).contains("serving"), "{}", text(&output));

    let daemon = Daemon::start_unheard(place.command(&["--listen", "off"]));
    daemon.wait_for("tranche opened");
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_variable_sets_the_address_and_a_flag_overrides_it() {
    let place = Place::new(&[("p.toml", "[source.memory]\n[sink.null]\n")]);
    let mut command = place.bare_command(&[]);
    command.env("PROPULSIOND__LISTEN", "127.0.0.2:0").env("PROPULSIOND_SERVICE_HOST", "10.0.0.1");
    let daemon = Daemon::start(command);
    assert!(daemon.address.starts_with("127.0.0.2:"), "{}", daemon.address);
    assert_eq!(daemon.get("/livez").0, 200);
    drop(daemon);
    let mut command = place.command(&[]);
    let daemon = Daemon::start({
        command.env("PROPULSIOND__LISTEN", "127.0.0.2:0");
        command
    });
    assert!(daemon.address.starts_with("127.0.0.1:"), "{}", daemon.address);
    let mut command = place.bare_command(&["--until-tail"]);
    command.env("PROPULSIOND__LISTN", "off");
    check(&crate::daemon::run(&mut command), 2, &["PROPULSIOND__LISTN", "did you mean `PROPULSIOND__LISTEN`?"]);
}

#[test]
fn a_piped_job_prints_plain_lines_of_progress_and_a_summary() {
    // These events take three seconds at that rate, so that the first line of progress precedes the end.
    let source = "[source.generate]\ncount = 3000\nrate = 1000\nbatch = 100\n";
    let place = Place::new(&[("p.toml", &format!("{source}[sink.null]\n"))]);
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &[" events handled, ", "/s, ", " events behind", "finished: 3,000 events handled in ", "/s)"]);
    assert!(output.stdout.is_empty() && !text(&output).contains('\u{1b}'), "{}", text(&output));
}

#[test]
fn a_short_job_waits_for_no_interval() {
    // A wait for a commit interval or a poll would take an hour.
    let pipeline = "[source.json]\npath = \"events.jsonl\"\npoll = \"1h\"\n[schedule]\ncommit_interval = \"1h\"\n";
    let place = Place::new(&[("events.jsonl", EVENTS)]);
    for (name, rest) in [("file.toml", "[sink.file]\n"), ("null.toml", "[sink.null]\n")] {
        place.write(name, &format!("{pipeline}{rest}"));
    }
    place.write("rows.toml", &format!("checkpoint = \"sink\"\n{pipeline}[handler.rhai]\nscript = \"r.rhai\"\n[sink.sqlite]\npath = \"rows.db\"\ninit = [\"CREATE TABLE IF NOT EXISTS t (a)\"]\n"));
    place.write(
        "r.rhai",
        "fn handle(stream, events) { for e in events { emit(#{ sql: \"INSERT INTO t VALUES (1)\" }); } }",
    );
    let output = place.run(&["--until-tail"]);
    check(&output, 0, &["finished: 2 events handled"]);
    for line in text(&output).lines().filter(|line| line.contains("finished: ")) {
        let took = line.split("handled in ").nth(1).unwrap().split(" (").next().unwrap();
        assert!(humantime(took) < LIMIT / 10, "{line}");
    }
}

/// Reads `1s 45ms`.
fn humantime(text: &str) -> std::time::Duration {
    humantime::parse_duration(text).unwrap()
}

#[test]
fn json_logs_include_the_errors_of_a_job() {
    let place = Place::new(&[
        ("p.toml", &format!("{}[errors]\nthen = \"halt\"\n", copying("out.jsonl"))),
        ("events.jsonl", &format!("{EVENTS}nonsense\n")),
    ]);
    let output = place.run(&["--until-tail", "--log-format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stderr.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for field in ["time", "level", "target", "message"] {
            assert!(line[field].is_string(), "{field} is missing in {line}");
        }
    }
    let halts = lines.iter().find(|line| line["message"] == "pipeline halts").unwrap();
    assert_eq!((&halts["level"], &halts["pipeline"]), (&"ERROR".into(), &"p".into()));
    assert!(halts["reason"].as_str().unwrap().contains("events.jsonl:3"), "{halts}");
}

#[test]
fn sighup_does_not_end_the_daemon() {
    let place = Place::new(&[("inbox.toml", "[source.memory]\n[sink.file]\npath = \"out.jsonl\"\n")]);
    let daemon = place.start(&[]);
    signal(daemon.id(), "HUP");
    daemon.until("/metrics", |_, page| page.contains("propulsiond_reloads_total{outcome=\"applied\"} 1"));
    push(&daemon, EVENTS);
    daemon.until("/metrics", |_, page| handled(page, "inbox") == 2);
    let (code, said) = daemon.stop("INT");
    assert_eq!(code, Some(0), "{said}");
}
