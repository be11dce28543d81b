//! The pipelines that pass the checks, and the files that two settings name.

use std::os::unix::fs::symlink;

use expect_test::{Expect, expect};

use super::{Files, Loaded, check, load, load_file};
use crate::config::scalar::allowing_missing;
use crate::spec::{Checked, Outcome};

/// Checks the pipelines in a directory that has them all in order.
fn outcome(files: &Files) -> Outcome {
    let data = files.root.path().join("data");
    check(load(&[files.directory()]).unwrap(), &data).unwrap_or_else(|problems| panic!("{}", files.render(&problems)))
}

fn checked(files: &Files) -> Checked {
    outcome(files).checked.pop().unwrap()
}

const SCRIPT: (&str, &[u8]) = ("s.rhai", b"import \"m\" as m; fn handle(stream, events) { m::f() }");

fn with_token(token: &str) -> Files {
    let files = Files::new(&[SCRIPT, ("m.rhai", b"fn f() {}"), ("token", token.as_bytes())]);
    let reference = format!("${{file:{}}}", files.directory().join("token").display());
    let text = format!(
        "[source.generate]\n[handler.rhai]\nscript = 's.rhai'\nparams = {{ t = '{reference}' }}\n\
         [sink.http]\nurl = 'http://h'\nauth = {{ bearer = '{reference}' }}\n"
    );
    std::fs::write(files.directory().join("a.toml"), text).unwrap();
    files
}

#[test]
fn a_rotated_secret_is_a_change_and_stays_masked() {
    let files = with_token("first-secret");
    let before = checked(&files);
    assert!(before == checked(&files), "nothing changed");
    let shown = before.definition.loaded.normalised();
    assert!(!shown.contains("first-secret") && !format!("{:?}", before.definition).contains("first-secret"));
    std::fs::write(files.directory().join("token"), "second-secret\n").unwrap();
    assert!(before != checked(&files), "the token changed");
    assert_eq!(shown, checked(&files).definition.loaded.normalised(), "a display shows the reference");
}

#[test]
fn a_changed_module_of_a_script_is_a_change() {
    let files = with_token("t");
    let before = checked(&files);
    std::fs::write(files.directory().join("m.rhai"), "fn f() { 1 }").unwrap();
    assert!(before != checked(&files));
}

#[test]
fn a_value_and_a_reference_to_it_are_no_change() {
    let spelled = |path: &str| {
        let text = format!("[source.generate]\n[sink.file]\npath = '{path}'\n");
        let files = Files::new(&[("a.toml", text.as_bytes())]);
        checked(&files).definition.loaded.spec
    };
    assert_eq!(spelled("out.jsonl"), spelled("${PROPULSIOND_TEST_UNSET:-out}.jsonl"));
    assert_ne!(spelled("out.jsonl"), spelled("${PROPULSIOND_TEST_UNSET:-in}.jsonl"));
}

#[test]
fn a_handler_alone_writes_nothing_and_the_default_store_keeps_its_progress() {
    let files = Files::new(&[
        ("s.rhai", b"fn handle(stream, events) {}"),
        ("a.toml", b"[source.generate]\n[handler.rhai]\nscript = 's.rhai'\n"),
    ]);
    let Checked { definition, script } = checked(&files);
    assert!(!definition.names_sink() && script.is_some());
    assert!(definition.progress.facts().is_durable() && !definition.progress.is_sink());
}

#[test]
fn r61_variables_that_are_set_are_judged_while_others_are_missing() {
    let text = "[source.json]\npath = '${PROPULSIOND_TEST_UNSET}'\npattern = '${PROPULSIOND_TEST_UNSET:-a/b}'\n\
        [handler.rhai]\nscript = '${PROPULSIOND_TEST_UNSET}'\n[schedule]\ncommit_interval = '${PROPULSIOND_TEST_UNSET:-0s}'\n";
    let files = Files::new(&[("a.toml", text.as_bytes())]);
    let loaded = allowing_missing(|| load_file(&files.directory().join("a.toml"))).unwrap();
    let problems = check(vec![loaded], files.root.path()).err().unwrap_or_default();
    expect![[r#"
        error: `pattern` matches file names, and no file name contains `/`
         --> pipelines/a.toml:3:11
          |
        3 | pattern = '${PROPULSIOND_TEST_UNSET:-a/b}'
          |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ source.json.pattern
          |
          = help: name the directory with `path`; files in directories below it are not read
        error: `commit_interval` must be greater than 0
         --> pipelines/a.toml:7:19
          |
        7 | commit_interval = '${PROPULSIOND_TEST_UNSET:-0s}'
          |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ schedule.commit_interval
    "#]]
    .assert_eq(&files.render(&problems));
}

#[test]
fn a_pipeline_whose_script_is_a_hole_passes_as_far_as_it_is_known() {
    let text = b"[source.generate]\n[handler.rhai]\nscript = '${PROPULSIOND_TEST_UNSET}'\n";
    let files = Files::new(&[("a.toml", text)]);
    let loaded: Loaded = allowing_missing(|| load_file(&files.directory().join("a.toml"))).unwrap();
    let outcome = check(vec![loaded], files.root.path()).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!((outcome.checked.len(), outcome.unknown_scripts.len(), outcome.definitions().count()), (0, 1, 1));
}

/// Checks one pipeline beside a feed `events.jsonl`, a script `s.rhai` and links to the feed.
fn check_files(settings: &str, expected: Expect) {
    let text = format!("[source.json]\npath = 'events.jsonl'\n{settings}");
    let files =
        Files::new(&[("events.jsonl", b""), ("s.rhai", b"fn handle(stream, events) {}"), ("a.toml", text.as_bytes())]);
    symlink(files.directory().join("events.jsonl"), files.root.path().join("data/link.db")).unwrap();
    std::fs::hard_link(files.directory().join("events.jsonl"), files.root.path().join("data/hard.db")).unwrap();
    expected.assert_eq(&files.render(&files.problems(&files.directory())));
}

#[test]
fn s22_the_checkpoints_are_not_the_feed_however_it_is_spelled() {
    for path in ["../pipelines/events.jsonl", "link.db", "hard.db", "x/../link.db"] {
        let [found] = &problems_of(path)[..] else { panic!("{path}: one problem is expected") };
        assert!(
            found.contains("this path is the feed of the source, so it cannot be the checkpoint database"),
            "{found}"
        );
    }
    assert_eq!(problems_of("other.db"), Vec::<String>::new());
}

/// Returns the problems of a pipeline whose checkpoints are at a path.
fn problems_of(path: &str) -> Vec<String> {
    let text = format!("[source.json]\npath = 'events.jsonl'\n[checkpoint.sqlite]\npath = '{path}'\n[sink.null]\n");
    let files = Files::new(&[("events.jsonl", b""), ("a.toml", text.as_bytes())]);
    symlink(files.directory().join("events.jsonl"), files.root.path().join("data/link.db")).unwrap();
    std::fs::hard_link(files.directory().join("events.jsonl"), files.root.path().join("data/hard.db")).unwrap();
    let problems = files.problems(&files.directory());
    problems.iter().map(|problem| problem.message.clone()).collect()
}

#[test]
fn s22_no_setting_names_a_file_of_another_use() {
    check_files(
        "[sink.sqlite]\npath = 'link.db'\n",
        expect![[r#"
            error: this path is the feed of the source, so it cannot be the database
             --> pipelines/a.toml:4:8
              |
            4 | path = 'link.db'
              |        ^^^^^^^^^ sink.sqlite.path
              |
              = help: name another path
        "#]],
    );
    check_files(
        "[checkpoint.file]\npath = 'same'\n[sink.sqlite]\npath = 'y/../same'\n",
        expect![[r#"
            error: this is the checkpoint directory of the pipeline `a`, not a database
             --> pipelines/a.toml:6:8
              |
            6 | path = 'y/../same'
              |        ^^^^^^^^^^^ sink.sqlite.path
        "#]],
    );
    check_files(
        "[handler.rhai]\nscript = 's.rhai'\n[sink.file]\npath = '../pipelines/s.rhai'\n",
        expect![[r#"
            error: this file is the script of the pipeline `a`, and a write would destroy it
             --> pipelines/a.toml:6:8
              |
            6 | path = '../pipelines/s.rhai'
              |        ^^^^^^^^^^^^^^^^^^^^^ sink.file.path
        "#]],
    );
    check_files(
        "[sink.file]\npath = '../pipelines/a.toml'\n",
        expect![[r#"
            error: this file declares the pipeline `a`, and a write would destroy it
             --> pipelines/a.toml:4:8
              |
            4 | path = '../pipelines/a.toml'
              |        ^^^^^^^^^^^^^^^^^^^^^ sink.file.path
        "#]],
    );
}
