//! `propulsiond rebuild`: the rows afterwards, and each way in which a rebuild can be interrupted or refused.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use propulsiond::clock::{Clock, Timestamp};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT, Place, check, handled, program, run, text};

/// A projection that counts the events of each stream: a repeated or a lost event changes a number.
const PIPELINE: &str = "checkpoint = \"sink\"\n[source.json]\npath = \"feed\"\npoll = \"10ms\"\n\
    [handler.rhai]\nscript = \"p.rhai\"\n[sink.sqlite]\npath = \"rows.db\"\n\
    init = [\"CREATE TABLE IF NOT EXISTS counts (stream TEXT PRIMARY KEY, n INTEGER, label TEXT)\"]\n";

/// Returns a script that writes this label.
fn script(label: &str) -> String {
    format!(
        "fn handle_event(stream, event) {{\n    emit(#{{ sql: \"INSERT INTO counts VALUES (?1, 1, '{label}') ON CONFLICT DO \
         UPDATE SET n = n + 1\", params: [stream.name] }});\n}}\n"
    )
}

/// Returns the lines of the events `from..to` of three streams.
fn lines(from: u64, to: u64) -> String {
    (from..to)
        .map(|n| format!("{{\"stream\":\"a-{}\",\"index\":{},\"type\":\"A\",\"data\":{{}}}}\n", n % 3, n / 3))
        .collect()
}

/// Returns a place with a feed of this many events.
fn place(events: u64) -> Place {
    let place = Place::new(&[("p.toml", PIPELINE), ("p.rhai", &script("wrong"))]);
    std::fs::create_dir(place.path("pipelines/feed")).unwrap();
    place.write("feed/1.jsonl", &lines(0, events));
    place
}

/// Returns a place whose pipeline has handled its feed with the wrong script, which is then corrected.
fn corrected(events: u64) -> Place {
    let place = place(events);
    check(&place.run(&["--until-tail"]), 0, &["finished: "]);
    check_rows(&place, events, "wrong");
    place.write("p.rhai", &script("right"));
    place
}

fn append(place: &Place, from: u64, to: u64) {
    let feed = place.path("pipelines/feed/1.jsonl");
    OpenOptions::new().append(true).open(feed).unwrap().write_all(lines(from, to).as_bytes()).unwrap();
}

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = program();
    command.arg("rebuild").args(arguments).current_dir(place.path("")).env_remove("RUST_BACKTRACE");
    command
}

fn rebuild(place: &Place, arguments: &[&str]) -> Output {
    run(&mut command(place, arguments))
}

fn doctor(place: &Place) -> Output {
    run(program().arg("doctor").current_dir(place.path("")))
}

fn open(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

/// Checks that the rows count each of the first `events` events once, and have this label.
fn check_rows(place: &Place, events: u64, label: &str) {
    let connection = open(&place.path("data/rows.db"));
    let mut statement = connection.prepare("SELECT stream, n, label FROM counts ORDER BY stream").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let rows: Vec<(String, i64, String)> = rows.map(Result::unwrap).collect();
    let wanted: Vec<_> = (0..3).map(|n| (format!("a-{n}"), (events as i64 + 2 - n) / 3, label.to_owned())).collect();
    assert_eq!(rows, wanted);
}

/// Checks that a run handles the events that are appended now, and no other.
fn check_goes_on(place: &Place, events: u64, label: &str) {
    check(&place.run(&["--until-tail"]), 0, &["finished: 0 events handled"]);
    append(place, events, events + 5);
    check(&place.run(&["--until-tail"]), 0, &["finished: 5 events handled"]);
    check_rows(place, events + 5, label);
}

#[test]
fn a_rebuild_gives_the_rows_of_the_corrected_script_and_the_daemon_goes_on_behind_them() {
    let place = corrected(20);
    let output = rebuild(&place, &["p"]);
    check(&output, 0, &["`p` is built again in `data/rebuild/p/new`", "`p` is rebuilt: 20 events handled in"]);
    check(&output, 0, &["data/rows.db: ", "before ", "The former files are in `data/rebuild/p/old`", "--undo"]);
    check_rows(&place, 20, "right");
    check_goes_on(&place, 20, "right");
    check(
        &doctor(&place),
        0,
        &["note: the files before the rebuild of `p` are kept", "data/rebuild/p/old", "nothing left to do"],
    );
    std::fs::remove_dir_all(place.path("data/rebuild/p/old")).unwrap();
    assert!(!text(&doctor(&place)).contains("note:"), "{}", text(&doctor(&place)));
    check(&rebuild(&place, &["p", "--undo"]), 1, &["nothing to return to"]);
}

#[test]
fn a_rebuild_beside_a_daemon_that_cannot_be_asked_exchanges_the_files_once_it_is_stopped() {
    let place = corrected(20);
    // The daemon has the same definition, and its rows are those of the wrong script.
    let daemon = place.start(&[]);
    append(&place, 20, 30);
    daemon.until("/metrics", |_, page| handled(page, "p") == 10);
    let holder = format!("process {}", daemon.id());
    check(&rebuild(&place, &["p", "--dry-run"]), 0, &["A daemon uses these files", &holder]);
    let output = rebuild(&place, &["p", "--listen", "off"]);
    let said =
        ["finished: 30 events handled", "files in `data/rebuild/p/new` are complete", &holder, "stop it and run"];
    check(&output, 3, &said);
    append(&place, 30, 35);
    daemon.until("/metrics", |_, page| handled(page, "p") == 15);
    check(&doctor(&place), 0, &["note: a rebuild of `p` was not finished, or undone"]);
    assert_eq!(daemon.stop("TERM").0, Some(0));
    append(&place, 35, 37);
    check(&rebuild(&place, &["p"]), 0, &["is resumed", "`p` is rebuilt: 7 events handled"]);
    check_rows(&place, 37, "right");
    check_goes_on(&place, 37, "right");
}

#[test]
fn the_running_daemon_restarts_the_pipeline_to_exchange_its_files() {
    let place = corrected(20);
    place.write("q.toml", "[source.memory]\n[sink.null]\n");
    let daemon = place.start(&[]);
    let address = ["--listen", &daemon.address];
    let command = |arguments: &[&str]| rebuild(&place, &[arguments, &address].concat());
    append(&place, 20, 25);
    daemon.until("/metrics", |_, page| handled(page, "p") == 5);
    check(&command(&["p"]), 0, &["restarts the pipeline to replace them", "`p` is rebuilt: 25 events handled"]);
    check_rows(&place, 25, "right");
    assert!(place.path("data/rebuild/p/old/rows.db").exists() && !place.path("data/rebuild/p/new").exists());
    append(&place, 25, 30);
    daemon.until("/metrics", |_, page| handled(page, "p") == 10);
    check_rows(&place, 30, "right");

    check(&command(&["p", "--undo"]), 0, &["`p` is back at its files before the rebuild"]);
    daemon.until("/metrics", |_, page| handled(page, "p") == 15);
    check_rows(&place, 30, "wrong");
    let (_, page) = daemon.get("/metrics");
    assert!(page.contains("propulsiond_restarts_total{pipeline=\"p\"} 0"), "no start failed: {page}");
    assert_eq!(daemon.stop("TERM").0, Some(0));
    check(&place.run(&["--until-tail"]), 0, &["finished: 0 events handled"]);
}

#[test]
fn a_daemon_goes_on_with_the_present_files_while_another_program_has_one_open() {
    let place = corrected(20);
    let daemon = place.start(&[]);
    append(&place, 20, 22);
    daemon.until("/metrics", |_, page| handled(page, "p") == 2);
    let reader = open(&place.path("data/rows.db"));
    reader.query_row("SELECT count(*) FROM counts", [], |_| Ok(())).unwrap();
    let arguments = ["p", "--listen", &daemon.address];
    check(&rebuild(&place, &arguments), 3, &["the daemon goes on with the present files of `p`", "close it and run"]);
    let line = daemon.wait_for("the files of a rebuild were not taken over");
    assert!(line.contains("database is locked"), "{line}");
    append(&place, 22, 25);
    daemon.until("/metrics", |_, page| handled(page, "p") == 5);
    check_rows(&place, 25, "wrong");
    drop(reader);
    check(&rebuild(&place, &arguments), 0, &["is resumed", "`p` is rebuilt: 3 events handled"]);
    check_rows(&place, 25, "right");
}

#[test]
fn the_daemon_runs_the_definition_of_the_rebuild_before_the_exchange() {
    let place = corrected(20);
    place.write("p.rhai", &script("wrong"));
    let mut start = place.command(&[]);
    start.env("PROPULSIOND__WATCH", "off");
    let daemon = Daemon::start(start);
    place.write("p.rhai", &script("right"));
    check(&rebuild(&place, &["p", "--listen", &daemon.address]), 0, &["`p` is rebuilt: 20 events handled"]);
    append(&place, 20, 23);
    daemon.until("/metrics", |_, page| handled(page, "p") == 3);
    check_rows(&place, 23, "right");

    // A file that the daemon does not read.
    std::fs::create_dir(place.path("other")).unwrap();
    std::os::unix::fs::symlink("../pipelines/feed", place.path("other/feed")).unwrap();
    std::fs::write(place.path("other/p.toml"), PIPELINE).unwrap();
    std::fs::write(place.path("other/p.rhai"), script("other")).unwrap();
    let output = rebuild(&place, &["p", "--config", "other", "--listen", &daemon.address]);
    check(&output, 3, &["does not exchange them: it runs another definition", "does not read `other/p.toml`"]);
    check_rows(&place, 23, "right");
}

#[test]
fn a_daemon_without_the_pipeline_exchanges_nothing() {
    let place = corrected(20);
    let other = Place::new(&[("q.toml", "[source.memory]\n[sink.null]\n")]);
    let mut start = program();
    start.arg(other.path("pipelines")).arg("--data-dir").arg(place.path("data")).args(["--listen", "127.0.0.1:0"]);
    let daemon = Daemon::start(start);
    let output = rebuild(&place, &["p", "--listen", &daemon.address]);
    check(&output, 3, &["does not exchange them: it cannot be asked", "there is no pipeline `p`"]);
    assert!(!place.path("data/rebuild/p/exchange").exists());
    drop(daemon);
    check(&rebuild(&place, &["p"]), 0, &["is resumed", "`p` is rebuilt: 0 events handled"]);
}

#[test]
fn a_killed_rebuild_is_resumed() {
    let events = 60_000;
    let place = corrected(events);
    let killed = Daemon::start_unheard(command(&place, &["p"]));
    let rows = || {
        let path = place.path("data/rebuild/p/new/rows.db");
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        database.query_row("SELECT sum(n) FROM counts", [], |row| row.get::<_, i64>(0)).ok()
    };
    let clock = Clock::start();
    // The first transaction is committed, and by far not the last one.
    while rows().is_none() {
        assert!(clock.now().since(Timestamp::ZERO) < LIMIT, "no row is written");
        std::thread::yield_now();
    }
    drop(killed);
    check_rows(&place, events, "wrong");
    let unfinished = open(&place.path("data/rebuild/p/new/rows.db"));
    let done: i64 = unfinished.query_row("SELECT sum(n) FROM counts", [], |row| row.get(0)).unwrap();
    assert!(done > 0 && done < events as i64, "{done} events were handled before the kill");
    // A rebuild from the origin would make another file.
    unfinished.execute_batch("CREATE TABLE marker (a)").unwrap();
    drop(unfinished);
    check(&rebuild(&place, &["p"]), 0, &["is resumed", "`p` is rebuilt"]);
    check_rows(&place, events, "right");
    open(&place.path("data/rows.db")).execute_batch("DROP TABLE marker").unwrap();
    check_goes_on(&place, events, "right");
}

/// Makes a rebuild that is complete, but not exchanged: a daemon holds the data directory.
fn complete_but_not_exchanged(place: &Place) {
    let daemon = place.start(&[]);
    check(&rebuild(place, &["p", "--listen", "off"]), 3, &["stop it and run the command again"]);
    assert_eq!(daemon.stop("TERM").0, Some(0));
}

#[test]
fn a_rebuild_of_another_definition_is_discarded() {
    let place = corrected(20);
    complete_but_not_exchanged(&place);
    place.write("p.rhai", &script("better"));
    check(
        &rebuild(&place, &["p"]),
        0,
        &["is not of the present definition of `p`", "`p` is rebuilt: 20 events handled"],
    );
    check_rows(&place, 20, "better");
    complete_but_not_exchanged(&place);
    let said =
        ["is discarded", "`data/rebuild/p/old` then keeps the replaced files", "`p` is rebuilt: 20 events handled"];
    check(&rebuild(&place, &["p", "--fresh"]), 0, &said);
    check_rows(&place, 20, "better");
}

/// Makes an exchange that was interrupted after the database was replaced, and before the registry was.
fn interrupted(events: u64) -> Place {
    let place = corrected(events);
    complete_but_not_exchanged(&place);
    let root = place.path("data/rebuild/p");
    let file = |path: &str| json!({ "path": path, "is_replaced": true });
    let files = ["rows.db", "rows.db-held", "json/p"].map(file);
    std::fs::write(root.join("exchange"), json!({ "direction": "new", "files": files }).to_string()).unwrap();
    std::fs::create_dir(root.join("old")).unwrap();
    std::fs::rename(place.path("data/rows.db"), root.join("old/rows.db")).unwrap();
    std::fs::rename(root.join("new/rows.db"), place.path("data/rows.db")).unwrap();
    place
}

#[test]
fn an_interrupted_exchange_is_completed_by_the_daemon_or_by_the_command() {
    let place = interrupted(20);
    let said = "warning: the exchange of the files of `p` for those of a rebuild was interrupted";
    check(&doctor(&place), 1, &[said, "1 left to do"]);
    check(
        &place.run(&["--until-tail"]),
        0,
        &["the files were exchanged for those of a rebuild", "finished: 0 events handled"],
    );
    check_rows(&place, 20, "right");
    check_goes_on(&place, 20, "right");
    assert!(place.path("data/rebuild/p/old/json/p").exists() && !place.path("data/rebuild/p/new").exists());
    check(&doctor(&place), 0, &["nothing left to do"]);

    let place = interrupted(20);
    check(&rebuild(&place, &["p"]), 0, &["the exchange of its files, which was interrupted, is complete"]);
    check_rows(&place, 20, "right");
    check_goes_on(&place, 20, "right");
}

#[test]
fn an_undone_rebuild_has_the_former_rows_and_progress() {
    let place = corrected(20);
    check(&rebuild(&place, &["p"]), 0, &["`p` is rebuilt"]);
    append(&place, 20, 25);
    check(&place.run(&["--until-tail"]), 0, &["finished: 5 events handled"]);
    check(&rebuild(&place, &["p", "--undo"]), 0, &["`p` is back at its files before the rebuild"]);
    check_rows(&place, 20, "wrong");
    check(&place.run(&["--until-tail"]), 0, &["finished: 5 events handled"]);
    check_rows(&place, 25, "wrong");
    // The rebuilt files are kept in turn. The daemon had written to them, so that nothing resumes from them.
    check(&rebuild(&place, &["p"]), 0, &["is discarded", "`p` is rebuilt: 25 events handled"]);
    check_rows(&place, 25, "right");
}

#[test]
fn a_failing_event_leaves_everything_as_it_was() {
    let place = corrected(20);
    place.write("p.rhai", "fn handle_event(stream, event) { throw #{ class: \"permanent\", why: \"no\" }; }");
    check(&rebuild(&place, &["p"]), 1, &["halted: event 0", "is not finished, and nothing was exchanged"]);
    check_rows(&place, 20, "wrong");
}

#[test]
fn a_stopped_rebuild_is_no_success_and_is_resumed() {
    let slow = "checkpoint = \"sink\"\n[source.generate]\ncount = 40\nrate = 20\n[sink.sqlite]\npath = \"rows.db\"\n";
    let place = Place::new(&[("p.toml", slow)]);
    let running = Daemon::start_unheard(command(&place, &["p"]));
    running.wait_for("tranche opened");
    let (code, said) = running.stop("INT");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the rebuild of `p` is not finished, and nothing was exchanged"), "{said}");
    assert!(!place.path("data/rows.db").exists());
    check(&rebuild(&place, &["p"]), 0, &["is resumed", "`p` is rebuilt"]);
    let rows = open(&place.path("data/rows.db"));
    assert_eq!(rows.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)), Ok(40));
}

#[test]
fn r81_tables_that_the_rebuilt_database_lacks_are_named_and_need_consent() {
    let place = corrected(20);
    open(&place.path("data/rows.db")).execute_batch("CREATE VIEW mine AS SELECT * FROM counts").unwrap();
    let output = rebuild(&place, &["p"]);
    check(&output, 1, &["lack the view `mine`, and nothing was exchanged", "--yes"]);
    check_rows(&place, 20, "wrong");
    check(&rebuild(&place, &["p", "--yes"]), 0, &["`p` is rebuilt: 0 events handled"]);
    check_rows(&place, 20, "right");
}

#[test]
fn r81_files_that_were_read_and_are_gone_need_consent() {
    let place = corrected(20);
    place.write("feed/2.jsonl", &lines(20, 26));
    check(&place.run(&["--until-tail"]), 0, &["finished: 6 events handled"]);
    std::fs::remove_file(place.path("pipelines/feed/1.jsonl")).unwrap();
    for arguments in [&["p"][..], &["p", "--dry-run"]] {
        check(&rebuild(&place, arguments), 1, &["parts that were read earlier: the file `1.jsonl`", "--yes"]);
    }
    assert!(!place.path("data/rebuild/p/new").exists());
    check(&rebuild(&place, &["p", "--yes"]), 0, &["`p` is rebuilt: 6 events handled"]);
}

#[test]
fn an_open_database_is_not_exchanged() {
    let place = corrected(20);
    let reader = open(&place.path("data/rows.db"));
    reader.execute_batch("PRAGMA journal_mode = WAL; BEGIN; SELECT * FROM counts").unwrap();
    check(&rebuild(&place, &["p"]), 3, &["cannot close the database `data/rows.db`", "close the programs"]);
    drop(reader);
    check(&rebuild(&place, &["p"]), 0, &["is resumed", "`p` is rebuilt: 0 events handled"]);
    check_rows(&place, 20, "right");
}

#[test]
fn a_corrupt_database_is_moved_away_and_rebuilt() {
    let place = corrected(20);
    std::fs::write(place.path("data/rows.db"), vec![0x5a; 8_192]).unwrap();
    check(&rebuild(&place, &["p"]), 3, &["`data/rows.db`: file is not a database (move it away"]);
    std::fs::remove_file(place.path("data/rows.db")).unwrap();
    let output = rebuild(&place, &["p", "--json"]);
    check(&output, 0, &[]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["state"], &said["completed"], &said["events"]), (&"rebuilt".into(), &false.into(), &0.into()));
    let file = &said["files"][0];
    assert_eq!((&file["path"], &file["before_bytes"]), (&"data/rows.db".into(), &0.into()), "{said}");
    assert!(file["after_bytes"].as_u64().unwrap() > 0 && said["former_files"] == "data/rebuild/p/old", "{said}");
    check_rows(&place, 20, "right");
}

#[test]
fn a_dry_run_changes_nothing() {
    let place = corrected(20);
    check(&rebuild(&place, &["p", "--dry-run"]), 0, &["`p` is built again", "it replaces `data/rows.db`"]);
    assert!(!place.path("data/rebuild").exists());
    let output = rebuild(&place, &["p", "--dry-run", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["state"], &said["earlier"]), (&"planned".into(), &"absent".into()), "{said}");
    assert_eq!(said["files"][0], "data/rows.db", "{said}");
}

#[test]
fn two_rebuilds_of_a_pipeline_do_not_run_at_once() {
    let place = corrected(20);
    let root = place.path("data/rebuild/p");
    std::fs::create_dir_all(&root).unwrap();
    let lock = std::fs::File::create(root.join("propulsiond.lock")).unwrap();
    lock.lock().unwrap();
    check(&rebuild(&place, &["p"]), 3, &["cannot begin the rebuild", "data/rebuild/p` is in use"]);
}
