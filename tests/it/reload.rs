//! Hot reload and the operator's commands, through the program.
//!
//! `PROPULSIOND_RELOADS=1000 cargo test --test it reload -- --nocapture` sets the number of reloads under load: so many of a
//! handler, and a tenth as many of a pipeline file.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::Output;

use propulsiond::clock::Clock;
use serde_json::Value;

use crate::daemon::{Daemon, Place, check, run, signal};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// A pipeline that writes a line for each event, with the word that its script names.
fn pipeline(feed: &str) -> String {
    format!(
        "[source.json]\npath = \"{feed}\"\npoll = \"10ms\"\n[schedule]\ncommit_interval = \"50ms\"\n\
         [handler.rhai]\nscript = \"p.rhai\"\n[sink.file]\npath = \"out.jsonl\"\n"
    )
}

fn script(word: &str) -> String {
    format!(
        "fn handle_event(stream, event) {{ emit(#{{ word: \"{word}\", stream: stream.name, index: event.index }}); }}\n"
    )
}

fn event(stream: usize, index: usize) -> String {
    format!("{{\"stream\":\"s-{stream}\",\"index\":{index},\"type\":\"A\",\"data\":{{}}}}\n")
}

/// A daemon that looks for changes at this interval, over the pipeline `p` with one event.
fn started(watch: &str) -> (Place, Daemon) {
    let place =
        Place::new(&[("p.toml", &pipeline("feed.jsonl")), ("p.rhai", &script("one")), ("feed.jsonl", &event(1, 0))]);
    let daemon = start(&place, watch);
    until_rows(&place, &daemon, 1);
    (place, daemon)
}

fn start(place: &Place, watch: &str) -> Daemon {
    let mut command = place.command(&[]);
    command.env("PROPULSIOND__WATCH", watch);
    Daemon::start(command)
}

/// Returns the rows of the sink's file.
fn rows(place: &Place) -> Vec<Value> {
    let text = std::fs::read_to_string(place.path("data/out.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn until_rows(place: &Place, daemon: &Daemon, count: usize) -> Vec<Value> {
    daemon.until("/livez", |_, _| rows(place).len() >= count);
    let rows = rows(place);
    assert_eq!(rows.len(), count, "{rows:?}");
    rows
}

fn append(place: &Place, text: &str) {
    let mut feed = std::fs::File::options().append(true).open(place.path("pipelines/feed.jsonl")).unwrap();
    feed.write_all(text.as_bytes()).unwrap();
}

fn reload(daemon: &Daemon, body: &str) -> (u16, Value) {
    let (status, body) = daemon.request("POST /reload", &JSON, body);
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// Returns the action for a pipeline.
fn action(report: &Value, pipeline: &str) -> String {
    let all = report["pipelines"].as_array().unwrap();
    let found = all.iter().find(|reloaded| reloaded["pipeline"] == pipeline);
    found.unwrap_or_else(|| panic!("{report}"))["action"].as_str().unwrap().to_owned()
}

/// Has a pipeline obey a command, and returns its state afterwards.
fn obey(daemon: &Daemon, command: &str) -> String {
    let (status, body) = daemon.request(&format!("POST /pipelines/p/{command}"), &JSON, "{\"wait\":true}");
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    answer["state"].as_str().unwrap().to_owned()
}

fn state(daemon: &Daemon) -> String {
    let (_, body) = daemon.request("GET /pipelines/p", &[], "");
    serde_json::from_str::<Value>(&body).unwrap()["state"].as_str().unwrap().to_owned()
}

/// Runs a command against a daemon.
fn command(daemon: &Daemon, arguments: &[&str]) -> Output {
    run(crate::daemon::program().args(["--listen", &daemon.address]).args(arguments))
}

#[test]
fn a_changed_script_is_exchanged_while_its_pipeline_runs() {
    let (place, daemon) = started("20ms");
    place.write("p.rhai", &script("two"));
    daemon.wait_for("pipeline changed while it runs changed=\"script\"");
    append(&place, &event(1, 1));
    let words: Vec<_> = until_rows(&place, &daemon, 2).iter().map(|row| row["word"].clone()).collect();
    assert_eq!(words, ["one", "two"]);
    // The new script outlives a restart of its pipeline.
    assert_eq!(obey(&daemon, "restart"), "running");
    append(&place, &event(1, 2));
    assert_eq!(until_rows(&place, &daemon, 3)[2]["word"], "two");
    assert!(!daemon.heard().contains("ERROR"), "{}", daemon.heard());
}

#[test]
fn a_script_that_begins_to_upcast_starts_its_pipeline_again_and_then_filters_by_type() {
    let (place, daemon) = started("off");
    let filtered = |kind: &str| format!("{}[filter]\nevents = [\"{kind}\"]\n", pipeline("feed.jsonl"));
    let typed = |index: usize, kind: &str| event(1, index).replace("\"A\"", &format!("\"{kind}\""));
    let upcast = format!(
        "fn upcast(event) {{ if event.type == \"A\" {{ #{{ type: \"B\" }} }} else {{ event }} }}\n{}",
        script("two")
    );
    place.write("p.toml", &filtered("B"));
    assert_eq!(action(&reload(&daemon, "").1, "p"), "in_place");
    place.write("p.rhai", &upcast);
    assert_eq!(action(&reload(&daemon, "").1, "p"), "restart");
    append(&place, &[typed(1, "A"), typed(2, "C")].concat());
    assert_eq!(until_rows(&place, &daemon, 2)[1]["index"], 1);
    // The script has the new filter as soon as the reader has its part.
    place.write("p.toml", &filtered("C"));
    assert_eq!(action(&reload(&daemon, "").1, "p"), "in_place");
    append(&place, &[typed(3, "A"), typed(4, "C")].concat());
    assert_eq!(until_rows(&place, &daemon, 3)[2]["index"], 4);
    place.write("p.rhai", &script("three"));
    assert_eq!(action(&reload(&daemon, "").1, "p"), "restart");
    append(&place, &[typed(5, "A"), typed(6, "C")].concat());
    assert_eq!(until_rows(&place, &daemon, 4)[3]["index"], 6);
}

#[test]
fn r47_r48_a_changed_file_drains_its_pipeline_alone_and_starts_it_again() {
    let (place, daemon) = started("off");
    place.write("p.toml", &pipeline("feed.jsonl").replace("50ms", "60ms"));
    place.write("q.toml", &pipeline("feed.jsonl").replace("out.jsonl", "q.jsonl"));
    let (status, plan) = reload(&daemon, "{\"dry_run\":true}");
    assert_eq!((status, action(&plan, "p"), action(&plan, "q")), (200, "restart".to_owned(), "start".to_owned()));
    assert_eq!(plan["pipelines"][0]["changed"], serde_json::json!(["schedule"]));
    let (status, report) = reload(&daemon, "");
    assert_eq!((status, action(&report, "p"), action(&report, "q")), (200, "restart".to_owned(), "start".to_owned()));
    let (_, again) = reload(&daemon, "{}");
    assert_eq!((action(&again, "p"), action(&again, "q")), ("keep".to_owned(), "keep".to_owned()));
    append(&place, &event(1, 1));
    until_rows(&place, &daemon, 2);
    // A file that is gone ends its pipeline, and its series.
    daemon.until("/metrics", |_, page| page.contains("propulsiond_handled_events_total{pipeline=\"q\"} 2"));
    std::fs::remove_file(place.path("pipelines/q.toml")).unwrap();
    let (_, report) = reload(&daemon, "");
    assert_eq!(action(&report, "q"), "stop");
    let (_, page) = daemon.request("GET /metrics", &[], "");
    assert!(!page.contains("pipeline=\"q\""), "{page}");
    assert!(page.contains("propulsiond_reloads_total{outcome=\"applied\"} 3"), "{page}");
}

#[test]
fn r52_a_refused_file_leaves_its_pipeline_running_and_says_so() {
    let (place, daemon) = started("20ms");
    place.write("p.rhai", "fn handle_event(stream, event) { emit(event.index; }\n");
    daemon.until("/health", |status, body| {
        status == 200 && body.contains("\"health\":\"degraded\"") && body.contains("p.rhai:1:50")
    });
    daemon.until("/metrics", |_, page| page.contains("propulsiond_refused_files 1"));
    append(&place, &event(1, 1));
    assert_eq!(until_rows(&place, &daemon, 2)[1]["word"], "one");
    check(&command(&daemon, &["reload"]), 2, &["p: refused, the running pipeline goes on", "p.rhai:1:50"]);
    check(&command(&daemon, &["health"]), 0, &["refused: ", "p.rhai:1:50", "degraded"]);
    place.write("p.rhai", &script("two"));
    daemon.until("/health", |_, body| !body.contains("refused"));
    daemon.until("/metrics", |_, page| page.contains("propulsiond_refused_files 0"));
}

#[test]
fn a_refusal_says_what_may_have_been_meant() {
    let (place, daemon) = started("off");
    place.write("p.toml", &pipeline("feed.jsonl").replace("[source.json]", "[source.jsno]"));
    check(&command(&daemon, &["reload"]), 2, &["unknown key `jsno`; did you mean `json`?"]);
    check(&command(&daemon, &["health"]), 0, &["refused: ", "did you mean `json`?"]);
}

#[test]
fn a_file_that_conflicts_with_another_one_is_refused_alone() {
    let (place, daemon) = started("off");
    // The same group and source as `p`: the two would fence each other (C27).
    place.write("q.toml", &format!("group = \"p\"\n{}", pipeline("feed.jsonl").replace("out.jsonl", "q.jsonl")));
    place.write("r.toml", &pipeline("feed.jsonl").replace("out.jsonl", "r.jsonl"));
    place.write("p.rhai", &script("two"));
    let (status, report) = reload(&daemon, "");
    assert_eq!(status, 422, "{report}");
    assert_eq!(["p", "q", "r"].map(|name| action(&report, name)), ["in_place", "refuse", "start"]);
    append(&place, &event(1, 1));
    assert_eq!(until_rows(&place, &daemon, 2)[1]["word"], "two");
}

#[test]
fn an_emptied_directory_stops_no_pipeline() {
    let (place, daemon) = started("20ms");
    std::fs::rename(place.path("pipelines/p.toml"), place.path("p.toml")).unwrap();
    daemon.until("/health", |_, body| body.contains("there is no pipeline in this directory"));
    assert_eq!(state(&daemon), "running");
    std::fs::rename(place.path("p.toml"), place.path("pipelines/p.toml")).unwrap();
    daemon.until("/health", |_, body| !body.contains("refused"));
    assert_eq!(state(&daemon), "running");
}

#[test]
fn r54_a_config_map_is_exchanged_as_the_kubelet_does_it() {
    let place = Place::new(&[]);
    let directory = place.path("pipelines");
    let write = |version: &str, word: &str| {
        let data = directory.join(version);
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("p.toml"), pipeline("../feed.jsonl")).unwrap();
        std::fs::write(data.join("p.rhai"), script(word)).unwrap();
    };
    std::fs::write(place.path("feed.jsonl"), event(1, 0)).unwrap();
    write("..2026_01", "one");
    symlink("..2026_01", directory.join("..data")).unwrap();
    for name in ["p.toml", "p.rhai"] {
        symlink(format!("..data/{name}"), directory.join(name)).unwrap();
    }
    let daemon = start(&place, "20ms");
    until_rows(&place, &daemon, 1);
    for (number, word) in ["two", "three"].iter().enumerate() {
        let version = format!("..2026_1{number}");
        write(&version, word);
        symlink(&version, directory.join("..data_tmp")).unwrap();
        std::fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
        daemon.wait_for("pipeline changed while it runs");
        let mut feed = std::fs::File::options().append(true).open(place.path("feed.jsonl")).unwrap();
        feed.write_all(event(1, number + 1).as_bytes()).unwrap();
        assert_eq!(until_rows(&place, &daemon, number + 2)[number + 1]["word"], *word);
    }
    assert!(!daemon.heard().contains("starts again"), "{}", daemon.heard());
}

#[test]
fn a_rotated_secret_rebuilds_the_connection_that_uses_it() {
    let file = pipeline("feed.jsonl").replace("out.jsonl", "${file:name}.jsonl");
    let place =
        Place::new(&[("p.toml", &file), ("p.rhai", &script("one")), ("feed.jsonl", &event(1, 0)), ("name", "out\n")]);
    let daemon = start(&place, "20ms");
    until_rows(&place, &daemon, 1);
    place.write("name", "other\n");
    daemon.wait_for("pipeline changed, it starts again changed=\"sink\"");
    append(&place, &event(1, 1));
    daemon.until("/livez", |_, _| {
        place.path("data/other.jsonl").exists() && place.read("data/other.jsonl").lines().count() == 1
    });
    assert_eq!(rows(&place).len(), 1);
}

#[test]
fn a_pause_outlives_a_reload_and_a_restart() {
    let (place, daemon) = started("off");
    assert_eq!(obey(&daemon, "pause"), "paused");
    place.write("p.toml", &pipeline("feed.jsonl").replace("50ms", "60ms"));
    place.write("p.rhai", &script("two"));
    assert_eq!(action(&reload(&daemon, "").1, "p"), "restart");
    daemon.until("/pipelines/p", |_, body| body.contains("\"paused\""));
    append(&place, &event(1, 1));
    place.write("p.rhai", &script("three"));
    assert_eq!(action(&reload(&daemon, "").1, "p"), "in_place");
    assert_eq!(obey(&daemon, "restart"), "paused");
    assert_eq!(rows(&place).len(), 1, "a paused pipeline handles nothing");
    assert_eq!(obey(&daemon, "resume"), "running");
    assert_eq!(until_rows(&place, &daemon, 2)[1]["word"], "three");
}

#[test]
fn c32_a_corrected_script_is_tried_at_once_and_starts_a_halted_pipeline() {
    let (place, daemon) = started("off");
    let fails = "fn handle_event(stream, event) { throw \"not yet\"; }\n";
    // It waits an hour between two attempts.
    place.write("p.toml", &(pipeline("feed.jsonl") + "[errors]\nretry = { initial = \"1h\", max = \"1h\" }\n"));
    place.write("p.rhai", fails);
    reload(&daemon, "");
    append(&place, &event(1, 1));
    daemon.until("/pipelines/p/streams?state=failing", |_, body| body.contains("not yet"));
    place.write("p.rhai", &script("two"));
    reload(&daemon, "");
    until_rows(&place, &daemon, 2);
    // The same after a halt.
    place.write("p.toml", &(pipeline("feed.jsonl") + "[errors]\nthen = \"halt\"\nretry = { attempts = 1 }\n"));
    place.write("p.rhai", fails);
    reload(&daemon, "");
    append(&place, &event(1, 2));
    daemon.until("/pipelines/p", |_, body| body.contains("\"halted\""));
    place.write("p.rhai", &script("three"));
    reload(&daemon, "");
    assert_eq!(until_rows(&place, &daemon, 3)[2]["word"], "three");
    daemon.until("/pipelines/p", |_, body| body.contains("\"running\""));
}

#[test]
fn r58_every_command_is_obeyed_in_every_state_that_a_service_rests_in() {
    let (place, daemon) = started("off");
    // Each begins in the state that the one before has led to.
    let commands = [
        ("start", "running"),
        ("pause", "paused"),
        ("pause", "paused"),
        ("start", "paused"),
        ("restart", "paused"),
        ("drain", "stopped"),
        ("drain", "stopped"),
        ("pause", "stopped"),
        // Only this ends the pause from before.
        ("resume", "stopped"),
        ("start", "running"),
        ("drain", "stopped"),
        ("restart", "running"),
        ("resume", "running"),
    ];
    for (number, (command, expected)) in commands.into_iter().enumerate() {
        assert_eq!(obey(&daemon, command), expected, "{number}: {command}");
    }
    append(&place, &event(1, 1));
    until_rows(&place, &daemon, 2);
    let (status, body) = daemon.request("POST /pipelines/none/pause", &JSON, "");
    assert!(status == 404 && body.contains("there is no pipeline `none`"), "{body}");
    let (status, body) = daemon.request("POST /pipelines/p/pause", &JSON, "{\"wiat\":true}");
    assert!(status == 400 && body.contains("unknown field `wiat`"), "{body}");
    let (status, _) = daemon.request("POST /pipelines/p/pause", &[("content-type", "text/plain")], "");
    assert_eq!(status, 415, "a web page of another site could send it");
}

#[test]
fn the_commands_of_the_operator_are_on_the_command_line() {
    let (place, daemon) = started("off");
    check(&command(&daemon, &["pause", "p", "--wait"]), 0, &["p: running -> paused (paused by the operator)"]);
    check(&command(&daemon, &["resume", "p", "--wait"]), 0, &["p: paused -> running"]);
    check(&command(&daemon, &["drain", "p", "--wait"]), 0, &["p: running -> stopped"]);
    check(&command(&daemon, &["start", "p", "--wait", "--json"]), 0, &["\"state\":\"running\"", "\"was\":\"stopped\""]);
    check(&command(&daemon, &["pause", "none"]), 1, &["there is no pipeline `none`"]);
    check(&command(&daemon, &["reload"]), 0, &["nothing changed"]);
    place.write("p.rhai", &script("two").replace("emit(", "if event.type == \"Placed\" { return; } emit("));
    let plan = command(&daemon, &["reload", "--dry-run"]);
    check(&plan, 0, &["p: changes while it runs (script)", "no event is handled again", "new in the script: `Placed`"]);
    check(&command(&daemon, &["reload", "--json"]), 0, &["\"action\":\"in_place\""]);
    signal(daemon.id(), "HUP");
    daemon.until("/metrics", |_, page| page.contains("propulsiond_reloads_total{outcome=\"applied\"} 3"));
}

#[test]
fn a_dry_run_counts_the_handled_events_of_new_types_since_their_first() {
    let (place, daemon) = started("off");
    let placed = |index: usize| event(2, index).replace("\"A\"", "\"Placed\"");
    append(&place, &[event(1, 1), placed(0), event(1, 2), placed(1)].concat());
    until_rows(&place, &daemon, 5);
    daemon.until("/pipelines/p", |_, body| body.contains(r#"\"line\":5"#));
    place.write("p.rhai", &script("two").replace("emit(", "if event.type == \"Placed\" { return; } emit("));
    let plan = command(&daemon, &["reload", "--dry-run"]);
    check(&plan, 0, &["`Placed`: 2 handled events in tranche 0 since origin, the first in `s-2` at index 0"]);
    place.write("p.rhai", &script("two").replace("emit(", "if event.type == \"Sent\" { return; } emit("));
    check(
        &command(&daemon, &["reload", "--dry-run"]),
        0,
        &["new in the script: `Sent`", "no handled event has such a type"],
    );
    // Events in other places cannot be counted.
    std::fs::rename(place.path("pipelines/feed.jsonl"), place.path("feed.jsonl")).unwrap();
    check(&command(&daemon, &["reload", "--dry-run"]), 0, &["the number of such events is unknown: ", "feed.jsonl"]);
    assert_eq!(action(&reload(&daemon, "{\"dry_run\":true}").1, "p"), "in_place");
}

#[test]
fn a_finite_job_reads_its_files_once() {
    let place = Place::new(&[("p.toml", "stop = { after = \"1h\" }\n[source.generate]\nrate = 1\n[sink.null]\n")]);
    let daemon = start(&place, "20ms");
    let (status, body) = daemon.request("POST /reload", &JSON, "");
    assert!(status == 409 && body.contains("a finite job"), "{body}");
    signal(daemon.id(), "HUP");
    daemon.wait_for("SIGHUP has no effect: a finite job reads its files once");
}

/// The number of reloads of a handler under load.
fn reloads() -> usize {
    std::env::var("PROPULSIOND_RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(100)
}

#[test]
fn r46_reloads_under_load_lose_no_event_and_keep_the_order_of_streams() {
    const STREAMS: usize = 20;
    let (place, daemon) = started("off");
    let mut written = 1;
    let mut next = [0; STREAMS];
    next[1] = 1;
    let (clock, mut took) = (Clock::start(), Vec::new());
    for number in 0..reloads() {
        let text: String = (0..STREAMS)
            .map(|stream| {
                next[stream] += 1;
                event(stream, next[stream] - 1)
            })
            .collect();
        append(&place, &text);
        written += STREAMS;
        place.write("p.rhai", &script(&format!("v{number}")));
        let is_spec = number % 10 == 9;
        if is_spec {
            place.write("p.toml", &pipeline("feed.jsonl").replace("50ms", &format!("{}ms", 50 + number)));
        }
        let began = clock.now();
        let (status, report) = reload(&daemon, "");
        if !is_spec {
            took.push(clock.now().since(began));
        }
        assert_eq!((status, &*action(&report, "p")), (200, if is_spec { "restart" } else { "in_place" }), "{report}");
    }
    let mut seen = vec![0; STREAMS];
    for row in until_rows(&place, &daemon, written) {
        let stream: usize = row["stream"].as_str().unwrap().strip_prefix("s-").unwrap().parse().unwrap();
        assert_eq!(row["index"], seen[stream], "stream {stream}");
        seen[stream] += 1;
    }
    assert_eq!(seen, next);
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    eprintln!("{} reloads, {written} events, each once and in order; a swap answered within {p99:?} (p99)", reloads());
    let heard = daemon.heard();
    assert!(!heard.contains("ERROR"), "{heard}");
}

/// Returns a random definition of the pipeline over the same feed.
fn random_pipeline(random: &mut fastrand::Rng) -> String {
    let mut pick = |choices: &[&str]| choices[random.usize(..choices.len())].to_owned();
    let top = pick(&["", "group = \"other\"\n", "source_id = \"other\"\n"]);
    let checkpoint =
        pick(&["", "[checkpoint.file]\n", "[checkpoint.memory]\n", "[checkpoint.sqlite]\npath = \"other.db\"\n"]);
    let batch = pick(&["", "batch = 1\n", "index = \"line\"\n"]);
    let schedule = pick(&[
        "",
        "order = \"tranche\"\n",
        "order = \"none\"\n",
        "concurrency = 1\n",
        "read_ahead = 1\n",
        "commit_interval = \"10ms\"\n",
        "streams_per_call = 1\nmax_events = 1\n",
    ]);
    let filter = pick(&["", "[filter]\ncategories = [\"s\"]\n", "[filter]\nexclude_events = [\"A\"]\n"]);
    let errors = pick(&["", "[errors]\nthen = \"skip\"\n", "[errors]\nretry = { attempts = 1 }\n"]);
    let handler =
        pick(&["", "[handler.rhai]\nscript = \"p.rhai\"\n", "[handler.rhai]\nscript = \"p.rhai\"\nthreads = 1\n"]);
    let sink = pick(&["[sink.file]\npath = \"out.jsonl\"\n", "[sink.null]\n", "[sink.stats]\n", "[sink.stdout]\n"]);
    format!(
        "{top}[source.json]\npath = \"feed.jsonl\"\npoll = \"10ms\"\n{batch}{checkpoint}[schedule]\n{schedule}{filter}{errors}\
         {handler}{sink}"
    )
}

/// `PROPULSIOND_RELOADS` sets four times their number.
#[test]
fn r49_random_definitions_replace_each_other_and_never_wedge() {
    let (place, daemon) = started("off");
    let mut random = fastrand::Rng::with_seed(11);
    let (mut taken, mut refused) = (0, 0);
    for number in 0..reloads() / 4 {
        place.write("p.toml", &random_pipeline(&mut random));
        place.write("p.rhai", &script(&format!("v{}", random.u8(..3))));
        append(&place, &event(2, number));
        let (status, report) = reload(&daemon, "");
        match status {
            200 => taken += 1,
            // Some combinations make no sense, and `check` says so.
            422 => refused += 1,
            other => panic!("{other}: {report}"),
        }
        assert_ne!(action(&report, "p"), "failed", "{report}");
        let command = ["pause", "resume", "restart", "drain", "start"][random.usize(..5)];
        obey(&daemon, command);
    }
    assert!(taken > refused, "{taken} taken, {refused} refused");
    // Whatever came before, the pipeline runs by its file afterwards, and handles what is new.
    place.write("p.toml", &(pipeline("feed.jsonl").replace("out.jsonl", "last.jsonl") + "[checkpoint.memory]\n"));
    assert_eq!(reload(&daemon, "").0, 200);
    obey(&daemon, "start");
    obey(&daemon, "resume");
    append(&place, &event(3, 0));
    daemon.until("/livez", |_, _| {
        place.path("data/last.jsonl").exists() && place.read("data/last.jsonl").contains("s-3")
    });
}

#[test]
fn c17_progress_follows_its_pipeline_into_another_store() {
    let (place, daemon) = started("off");
    let mut handled = 1;
    // Back in the first store, its old progress is replaced.
    for store in ["[checkpoint.file]\n", "[checkpoint.sqlite]\npath = \"other.db\"\n", ""] {
        place.write("p.toml", &(pipeline("feed.jsonl") + store));
        let (status, report) = reload(&daemon, "");
        assert_eq!((status, &*action(&report, "p")), (200, "restart"), "{report}");
        append(&place, &event(1, handled));
        handled += 1;
        until_rows(&place, &daemon, handled);
    }
    // Into a sink that holds the progress, and out of it.
    let projection = pipeline("feed.jsonl").replace(
        "[sink.file]\npath = \"out.jsonl\"\n",
        "[sink.sqlite]\npath = \"rows.db\"\ninit = [\"CREATE TABLE IF NOT EXISTS rows (stream)\"]\n",
    );
    place.write(
        "p.rhai",
        "fn handle_event(stream, event) { emit(#{ sql: \"INSERT INTO rows VALUES (?1)\", params: [stream.name] }); }\n",
    );
    for top in ["checkpoint = \"sink\"\n", ""] {
        place.write("p.toml", &format!("{top}{projection}"));
        assert_eq!(reload(&daemon, "").0, 200);
        append(&place, &event(1, handled));
        handled += 1;
        daemon.until("/pipelines/p", |_, body| body.contains(&format!(r#"\"line\":{handled}"#)));
    }
    let rows = rusqlite::Connection::open(place.path("data/rows.db")).unwrap();
    let count: i64 = rows.query_row("SELECT count(*) FROM rows", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2, "one row for each event since the sink is another one");
}
