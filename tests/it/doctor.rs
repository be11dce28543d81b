//! `propulsiond doctor`: each test damages files, and expects the repair or the report.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

use rusqlite::Connection;

use crate::daemon::{Place, check, handled, program, run, text};

const EVENTS: &str = "{\"stream\":\"a-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n{\"stream\":\"b-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n";
const MORE: &str = "{\"stream\":\"a-1\",\"index\":1,\"type\":\"A\",\"data\":{}}\n";

/// Lines in a file; the progress is in the default database.
const LINES: &str = "[source.json]\npath = \"events.jsonl\"\n[sink.file]\n";

/// Rows and progress in one database.
const ROWS: &str = "checkpoint = \"sink\"\n[source.json]\npath = \"events.jsonl\"\n[sink.sqlite]\npath = \"rows.db\"\n";

fn place(pipeline: &str) -> Place {
    Place::new(&[("p.toml", pipeline), ("events.jsonl", EVENTS)])
}

/// Returns a place where the pipeline has run to its tail.
fn after_a_run(pipeline: &str) -> Place {
    let place = place(pipeline);
    check(&place.run(&["--until-tail"]), 0, &["finished: 2 events handled"]);
    place
}

fn doctor(place: &Place, arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("doctor").arg("--config").arg(place.path("pipelines")).arg("--data-dir").arg(place.path("data"));
    run(command.args(arguments).current_dir(place.path("")))
}

fn sql(place: &Place, database: &str, statements: &str) {
    Connection::open(place.path(database)).unwrap().execute_batch(statements).unwrap();
}

fn count(place: &Place, sql: &str) -> i64 {
    Connection::open(place.path("data/rows.db")).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Adds an event, runs to the tail, and expects this number of lines in the sink.
fn check_goes_on(place: &Place, lines: usize) {
    append(&place.path("pipelines/events.jsonl"), MORE);
    check(&place.run(&["--until-tail"]), 0, &["finished: 1 event handled"]);
    assert_eq!(place.read("data/p.jsonl").lines().count(), lines);
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn undamaged_files_stay_unchanged() {
    for pipeline in [LINES, ROWS] {
        let place = after_a_run(pipeline);
        let before = names(&place.path("data"));
        check(&doctor(&place, &[]), 0, &["not in use", "nothing left to do"]);
        assert_eq!(names(&place.path("data")), before, "an inspection leaves no file behind");
        check(&doctor(&place, &["--fix"]), 0, &["nothing left to do"]);
    }
}

#[test]
fn a_missing_directory_is_a_note_and_an_unreadable_one_ends_with_3() {
    let place = place(LINES);
    check(&doctor(&place, &[]), 0, &["note: the data directory does not exist"]);
    assert!(!place.path("data").exists());
    std::fs::write(place.path("data"), "").unwrap();
    check(&doctor(&place, &[]), 3, &["cannot read the data directory"]);
}

#[test]
fn missing_pipelines_end_with_2() {
    let place = place(LINES);
    let output = run(program().args(["doctor", "--config", "nowhere"]).current_dir(place.path("")));
    check(&output, 2, &["nowhere", "there is no such file or directory"]);
}

#[test]
fn a_directory_in_use_is_inspected_and_not_repaired() {
    let place = place(LINES);
    let daemon = place.start(&[]);
    daemon.until("/metrics", |_, page| handled(page, "p") == 2);
    let holder = format!("in use by process {}", daemon.id());
    check(&doctor(&place, &[]), 0, &[&holder, "nothing left to do"]);
    let process = format!("process {}", daemon.id());
    check(&doctor(&place, &["--fix"]), 3, &["in use by another propulsiond", &process, "nothing was repaired"]);
    assert_eq!(daemon.stop("TERM").0, Some(0));
}

#[test]
fn r73_a_truncated_line_is_removed_and_no_event_is_lost() {
    let place = after_a_run(LINES);
    append(&place.path("data/p.jsonl"), "{\"stream\":\"a-1\",\"ind");
    check(&doctor(&place, &[]), 1, &["the last line is truncated: 20 bytes", "data/p.jsonl", "--fix: removes it"]);
    check(&doctor(&place, &["--fix"]), 0, &["repaired: it was removed", "nothing left to do"]);
    check(&doctor(&place, &[]), 0, &["nothing left to do"]);
    assert_eq!(place.read("data/p.jsonl").lines().count(), 2);
    check_goes_on(&place, 3);
}

#[test]
fn r73_truncated_lines_are_found_in_the_file_of_each_stream_and_in_no_others() {
    let place = after_a_run(&format!("{LINES}path = \"out/{{category}}.jsonl\"\n"));
    append(&place.path("data/out/b.jsonl"), "{\"cut");
    std::fs::write(place.path("data/out/mine.txt"), "{\"not ours").unwrap();
    check(&doctor(&place, &["--fix"]), 0, &["data/out/b.jsonl", "nothing left to do"]);
    assert_eq!(place.read("data/out/mine.txt"), "{\"not ours");
}

#[test]
fn r73_a_log_that_a_crash_left_is_written_back_and_no_row_is_lost() {
    let place = place(ROWS);
    let daemon = place.start(&[]);
    daemon.until("/metrics", |_, page| handled(page, "p") == 2);
    drop(daemon);
    assert!(place.path("data/rows.db-wal").metadata().unwrap().len() > 0);
    check(&doctor(&place, &[]), 0, &["note: a write-ahead log of", "rows.db-wal", "--fix: writes it back"]);
    check(&doctor(&place, &["--fix"]), 0, &["repaired: it was written back"]);
    assert!(!place.path("data/rows.db-wal").exists());
    append(&place.path("pipelines/events.jsonl"), MORE);
    check(&place.run(&["--until-tail"]), 0, &["finished: 1 event handled"]);
    assert_eq!(count(&place, "SELECT count(*) FROM events"), 3);
}

#[test]
fn r73_a_corrupt_page_is_reported_and_left_alone() {
    let place = after_a_run(ROWS);
    let path = place.path("data/rows.db");
    // The schema stays readable, so that the check of the pages reports the damage.
    let roots: Vec<u64> = {
        let connection = Connection::open(&path).unwrap();
        let mut statement = connection.prepare("SELECT rootpage FROM sqlite_schema WHERE rootpage > 1").unwrap();
        let rows = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        rows.map(|root| root.unwrap().unsigned_abs()).collect()
    };
    let bytes = std::fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for root in roots {
        file.write_all_at(&[0xa5; 4096], (root - 1) * 4096).unwrap();
    }
    let corrupt = std::fs::read(&path).unwrap();
    check(&doctor(&place, &["--fix"]), 1, &["error: the database is corrupt", "rows.db", "restore the file"]);
    assert_eq!(std::fs::read(&path).unwrap(), corrupt);
    std::fs::write(&path, vec![0x5a; bytes.len()]).unwrap();
    check(&doctor(&place, &[]), 1, &["error: the database cannot be read: file is not a database"]);
}

#[test]
fn a_database_of_a_newer_version_is_reported() {
    let place = after_a_run(LINES);
    sql(&place, "data/propulsiond.db", "UPDATE propulsiond_schema SET version = 99");
    check(&doctor(&place, &["--fix"]), 1, &["a newer propulsiond wrote it", "version 99", "propulsiond.db"]);
}

/// Returns the statement that a diagnosis advises, between two texts.
fn advised<'a>(said: &'a str, after: &str, before: &str) -> &'a str {
    said.split_once(after).unwrap().1.split_once(before).unwrap().0
}

#[test]
fn r82_unreadable_progress_is_named_and_the_advice_helps() {
    let place = after_a_run(LINES);
    sql(&place, "data/propulsiond.db", "UPDATE propulsiond_progress SET handled = x'ff'");
    let output = doctor(&place, &["--fix"]);
    check(&output, 1, &["the progress of `p/json/0` cannot be read: the set of handled ordinals is corrupt"]);
    let said = text(&output);
    sql(&place, "data/propulsiond.db", advised(&said, "handled events above it: ", ";"));
    check(&doctor(&place, &[]), 0, &["nothing left to do"]);
    check_goes_on(&place, 3);

    sql(&place, "data/propulsiond.db", "UPDATE propulsiond_progress SET fence = -1");
    let said = text(&doctor(&place, &[]));
    sql(&place, "data/propulsiond.db", advised(&said, "start at the origin: ", "\n"));
    check(&doctor(&place, &[]), 0, &["nothing left to do"]);
    check(&place.run(&["--until-tail"]), 0, &["finished: 3 events handled"]);
}

#[test]
fn unreadable_write_positions_are_named_and_the_advice_helps() {
    let place = after_a_run(ROWS);
    sql(&place, "data/rows.db", "UPDATE propulsiond_write_positions SET next = 'x' WHERE stream = 'a-1'");
    let output = doctor(&place, &[]);
    check(&output, 1, &["the write position of stream `a-1` of `p/json` cannot be read"]);
    sql(&place, "data/rows.db", advised(&text(&output), "take effect twice: ", "\n"));
    check(&doctor(&place, &[]), 0, &["nothing left to do"]);
}

#[test]
fn r73_a_checkpoint_without_a_pipeline_is_named_and_never_removed() {
    let place = after_a_run(LINES);
    std::fs::rename(place.path("pipelines/p.toml"), place.path("pipelines/q.toml")).unwrap();
    let output = doctor(&place, &["--fix"]);
    check(
        &output,
        0,
        &[
            "note: the checkpoint `p/json/0`, last written 20",
            "belongs to no pipeline",
            "optional: decide: leave it if the pipeline will return",
            "nothing left to do",
            "note: file numbers are kept for `p`",
        ],
    );
    assert_eq!(text(&doctor(&place, &["--fix"])), text(&output), "it is still there");
    let said = text(&output);
    sql(&place, "data/propulsiond.db", advised(&said, "no daemon uses the file: ", "\n"));
    check(&doctor(&place, &[]), 0, &["nothing left to do"]);
    // The same pipeline with another store is named.
    let place = after_a_run(LINES);
    place.write("p.toml", &format!("{LINES}[checkpoint.file]\n"));
    check(&doctor(&place, &[]), 1, &["the pipeline `p` has this group and source, but keeps its progress in"]);
    // With an unreadable pipeline, no checkpoint is certain to have no owner.
    place.write("p.toml", "[source.json]\npth = 1\n");
    check(&doctor(&place, &[]), 0, &["some pipelines have errors", "were not judged"]);
    place.write("p.toml", "group = \"${PROPULSIOND_TEST_UNSET}\"\n[source.memory]\n[sink.null]\n");
    check(&doctor(&place, &[]), 0, &["refer to variables that are not set", "were not judged"]);
}

#[test]
fn c2_a_lost_position_is_reported_without_running() {
    for (store, kept_in) in [("", "propulsiond.db"), ("[checkpoint.file]\n", "p~json~0.json")] {
        let place = after_a_run(&format!("{LINES}{store}"));
        place.write("events.jsonl", "");
        check(
            &doctor(&place, &[]),
            1,
            &["the pipeline `p` cannot resume at its position", "it is shorter than it was", kept_in],
        );
        std::fs::remove_file(place.path("pipelines/events.jsonl")).unwrap();
        check(&doctor(&place, &[]), 1, &["the pipeline `p` cannot resume at its position: open `"]);
        place.write("p.toml", &format!("{LINES}{store}").replace("[sink", "on_replaced = \"restart\"\n[sink"));
        check(&doctor(&place, &[]), 0, &["nothing left to do"]);
    }
}

#[test]
fn parked_events_are_counted_by_stream() {
    let place = after_a_run(LINES);
    let row = |stream, events, state| {
        format!(
            "INSERT INTO propulsiond_parked_streams VALUES
             ('p','json','0','{stream}',0,0,{events},9,'{state}','permanent','no',0,'A',0,1,'',NULL,NULL);"
        )
    };
    let rows = [row("a-1", 2, "parked"), row("b-1", 1, "parked"), row("c-1", 5, "deferred")];
    sql(&place, "data/propulsiond.db", &rows.concat());
    check(
        &doctor(&place, &[]),
        1,
        &[
            "3 events of 2 streams are parked: 2 of stream `a-1` (p/json), 1 of stream `b-1` (p/json)",
            "`propulsiond parked list NAME`",
        ],
    );
}

#[test]
fn r73_corrupt_and_left_over_checkpoint_files_are_found() {
    let place = after_a_run(&format!("{LINES}[checkpoint.file]\n"));
    let file = place.path("data/checkpoints/p~json~0.json");
    std::fs::write(file.with_extension("tmp"), "{").unwrap();
    check(&doctor(&place, &[]), 1, &["an interrupted write left this file", "p~json~0.tmp", "--fix: deletes it"]);
    check(&doctor(&place, &["--fix"]), 0, &["repaired: it was deleted"]);
    assert!(!file.with_extension("tmp").exists());
    check_goes_on(&place, 3);

    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    check(
        &doctor(&place, &["--fix"]),
        1,
        &["the checkpoint cannot be read: it is truncated", "p~json~0.json", "decide: "],
    );
    std::fs::write(&file, whole.replace("\"p\"", "\"other\"")).unwrap();
    check(&doctor(&place, &[]), 1, &["it belongs to other/json/0, whose file is `other~json~0.json`"]);
    std::fs::rename(&file, place.path("data/checkpoints/other~json~0.json")).unwrap();
    check(
        &doctor(&place, &[]),
        0,
        &["note: the checkpoint `other/json/0`, last written 20", "belongs to no pipeline", "remove the file"],
    );
}

#[test]
fn c1_corrupt_numbers_of_files_are_found() {
    let place = after_a_run(LINES);
    let numbers = place.path("data/json/p/0");
    let whole = std::fs::read_to_string(&numbers).unwrap();
    append(&numbers, "\n{\"number\":1,\"fi");
    check(&doctor(&place, &[]), 0, &["note: line 4, the last one, is truncated"]);
    append(&numbers, &whole);
    check(&doctor(&place, &[]), 1, &["the registry of the source's files is corrupt: line 4 cannot be read"]);
    std::fs::write(&numbers, whole.repeat(2)).unwrap();
    check(&doctor(&place, &[]), 1, &["the number in line 4 is not above those before it"]);
}

#[test]
fn json_output_lists_the_diagnoses() {
    let place = after_a_run(LINES);
    append(&place.path("data/p.jsonl"), "{");
    let output = doctor(&place, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &said["findings"][0];
    assert_eq!((&finding["severity"], &finding["remains"]), (&"warning".into(), &true.into()), "{said}");
    assert!(finding["remedy"]["fix"].is_string() && said["used_by"].is_null() && said["fine"] == false, "{said}");
}
