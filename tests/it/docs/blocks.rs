//! Checks a block that is a part of a file.
//!
//! | mark | the block |
//! |---|---|
//! | `part of a pipeline` | passes `check` once the missing parts are added |
//! | `part of the settings` | is read by the daemon |
//! | `part of a script` | compiles, as the body of `handle_event` |
//! | `a script` | compiles |
//! | `part of a test file` | is a list of tests in TOML |
//! | none, and ```` ```json ```` | is JSON, or lines of it |

use propulsiond::config::settings::{DaemonSettings, Flags};

use crate::daemon::{Place, program, run};

/// Panics if the block is not as its mark says.
pub(super) fn check(language: &str, mark: &str, text: &str, place: &str) {
    match (language, mark) {
        ("toml", "part of a pipeline") => pipeline(text, "toml", place),
        ("yaml", "part of a pipeline") => pipeline(text, "yaml", place),
        ("toml", "part of the settings") => settings(text, place),
        ("rust", "part of a script") => {
            script(&format!("fn handle_event(stream, event) {{\n{text}\n}}\n"), place);
        }
        ("rust", "a script") => script(text, place),
        ("toml", "part of a test file") => {
            let tests: toml::Table = text.parse().unwrap_or_else(|error| panic!("{place}: {error}"));
            assert!(tests["test"].is_array(), "{place}: there is no list `test`");
        }
        ("json", "") => json(text, place),
        _ => panic!("{place}: the test does not know a block of `{language}` with the mark `{mark}`"),
    }
}

/// Adds the missing parts of a pipeline in TOML, and checks it.
fn pipeline(text: &str, ending: &str, place: &str) {
    let mut whole = text.to_owned();
    let has = |part: &str| text.contains(&format!("[{part}.")) || text.contains(&format!("\n{part}:"));
    if ending == "toml" {
        if !has("source") {
            whole.push_str("[source.json]\npath = \"shop\"\n");
        }
        if !has("sink") {
            let sink = if text.contains("checkpoint = \"sink\"") { "sqlite" } else { "stdout" };
            whole.push_str(&format!("[sink.{sink}]\n"));
        }
    }
    let script = if text.contains("streams_per_call") {
        "fn handle_batch(spans) {}"
    } else {
        "fn handle_event(stream, event) {}"
    };
    let name = regex::Regex::new(r#"script(?: =|:) "?([\w.-]+)"#).unwrap();
    let files: Vec<_> = name.captures_iter(text).map(|found| (found[1].to_owned(), script)).collect();
    let place_of_files = Place::new(&[(&format!("part.{ending}"), &whole)]);
    for (name, script) in files {
        place_of_files.write(&name, script);
    }
    let output = run(program().args(["check", "--allow-missing-env"]).current_dir(place_of_files.path("")));
    assert_eq!(output.status.code(), Some(0), "{place}:\n{}", crate::daemon::text(&output));
}

fn settings(text: &str, place: &str) {
    // The secrets of the page's machine are not here.
    let text = regex::Regex::new(r"\$\{file:[^}]*\}").unwrap().replace_all(text, "secret");
    let files = Place::new(&[("settings.toml", &text)]);
    let loaded = DaemonSettings::load(Some(&files.path("pipelines/settings.toml")), [], &Flags::default());
    assert!(loaded.is_ok(), "{place}: {:?}", loaded.err());
}

fn script(whole: &str, place: &str) {
    let files = Place::new(&[("part.rhai", whole), ("part.toml", PIPELINE)]);
    let output = run(program().arg("check").current_dir(files.path("")));
    assert_eq!(output.status.code(), Some(0), "{place}:\n{}", crate::daemon::text(&output));
}

const PIPELINE: &str = "[source.json]\npath = \"shop\"\n[handler.rhai]\nscript = \"part.rhai\"\n[sink.stdout]\n";

fn json(text: &str, place: &str) {
    let whole = serde_json::from_str::<serde_json::Value>(text).is_ok();
    let lines = || text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
    assert!(whole || lines(), "{place}: this is no JSON");
}

#[test]
fn a_wrong_part_is_reported() {
    let fails = |language: &str, mark: &str, text: &str| {
        let (language, mark, text) = (language.to_owned(), mark.to_owned(), text.to_owned());
        std::panic::catch_unwind(move || check(&language, &mark, &text, "here")).is_err()
    };
    check("toml", "part of a pipeline", "[errors]\nthen = \"skip\"\n", "here");
    assert!(fails("toml", "part of a pipeline", "[errors]\nthen = \"jump\"\n"));
    check("rust", "part of a script", "emit(event.data);", "here");
    assert!(fails("rust", "part of a script", "emot(event.data);"));
    check("toml", "part of the settings", "[log]\nlevel = \"debug\"\n", "here");
    assert!(fails("toml", "part of the settings", "[log]\nlevle = \"debug\"\n"));
    assert!(fails("json", "", "{"));
    assert!(fails("toml", "", "a = 1"));
}
