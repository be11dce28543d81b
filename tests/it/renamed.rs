//! A renamed pipeline file: its default group changes with the name, so that every event would be handled again.

use std::path::Path;

use expect_test::expect;

use crate::daemon::{program, run, text};

const EVENT: &str = "{\"stream\":\"order-1\",\"index\":0,\"type\":\"Placed\",\"data\":{}}\n";

/// Writes a pipeline that reads the feed beside the directory of pipelines.
fn write(root: &Path, name: &str, settings: &str) {
    let text = format!("{settings}[source.json]\npath = \"../feed.jsonl\"\n[sink.null]\n");
    std::fs::write(root.join(format!("pipelines/{name}.toml")), text).unwrap();
}

/// Makes a directory in which the pipeline `notify` has run to the end of its feed.
fn after_a_run(settings: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("pipelines")).unwrap();
    std::fs::write(root.path().join("feed.jsonl"), EVENT).unwrap();
    write(root.path(), "notify", settings);
    job(root.path());
    root
}

/// Runs all pipelines to the ends of their feeds, and returns the log.
fn job(root: &Path) -> String {
    let output = run(program().current_dir(root).args(["--until-tail", "--listen", "off"]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    text(&output)
}

fn check(root: &Path, path: &str) -> String {
    let output = run(program().current_dir(root).args(["check", path]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    text(&output).trim_start().to_owned()
}

fn rename(root: &Path, from: &str, to: &str) {
    let at = |name: &str| root.join(format!("pipelines/{name}.toml"));
    std::fs::rename(at(from), at(to)).unwrap();
}

#[test]
fn l9_a_renamed_pipeline_is_advised_to_keep_its_group() {
    for settings in ["", "checkpoint.file = {}\n"] {
        let root = after_a_run(settings);
        rename(root.path(), "notify", "alerts");
        expect![[r#"
            warning: the group `alerts` has no progress, so every event is handled again; the store holds progress of the source `json` under the group `notify`, which no pipeline uses
            --> pipelines/alerts.toml (group)
             = help: if the pipeline was renamed, write `group = "notify"` at the top of the file

        "#]]
        .assert_eq(&check(root.path(), "pipelines"));
        let log = job(root.path());
        assert!(log.contains("WARN pipelines/alerts.toml: the group `alerts` has no progress"), "{log}");
        assert_eq!(
            check(root.path(), "pipelines"),
            "no problems found in 1 pipeline\n",
            "the pipeline has progress of its own now"
        );
    }
}

#[test]
fn l9_the_group_of_another_pipeline_is_no_former_one() {
    let root = after_a_run("");
    write(root.path(), "alerts", "");
    for path in ["pipelines", "pipelines/alerts.toml"] {
        assert!(check(root.path(), path).starts_with("no problems found"), "{path}");
    }
    rename(root.path(), "notify", "notices");
    write(root.path(), "notices", "group = \"notify\"\n");
    assert_eq!(check(root.path(), "pipelines"), "no problems found in 2 pipelines\n");
}
