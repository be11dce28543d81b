//! The shipped files: each loads, or belongs to one that does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::daemon::{check, program, run};

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Returns all files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn ends_in(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one))
}

#[test]
fn check_finds_no_problem_in_the_shipped_pipelines() {
    // A run of the samples may have left a data directory here, and `check` compares pipelines with its progress.
    let data = tempfile::tempdir().unwrap();
    let mut command = program();
    command.arg("check").current_dir(root("")).arg("--data-dir").arg(data.path());
    check(&run(&mut command), 0, &["no problems found"]);
    let output = run(program().args(["check", "--json"]).arg(root("pipelines")));
    check(&output, 0, &["[]"]);
}

/// Returns the scripts that a script names.
fn imports(script: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(script).unwrap();
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("import \"")?.split('"').next());
    names.map(|name| script.with_file_name(format!("{name}.rhai"))).collect()
}

#[test]
fn every_file_below_pipelines_is_a_pipeline_that_loads_or_belongs_to_one() {
    let all = files(&root("pipelines").canonicalize().unwrap());
    let mut left: BTreeSet<_> = all.iter().cloned().collect();
    let data = tempfile::tempdir().unwrap();
    for tests in all.iter().filter(|path| propulsiond::commands::handler_tests::is_test(path)) {
        check(&run(program().arg("test").arg(tests)), 0, &[" passed"]);
        left.remove(tests);
    }
    for pipeline in left.clone().iter().filter(|path| ends_in(path, &["toml", "yaml", "yml"])) {
        let output = run(program().args(["check", "--allow-missing-env", "--data-dir"]).arg(data.path()).arg(pipeline));
        check(&output, 0, &["no problems found"]);
        left.remove(pipeline);
        let directory = pipeline.parent().unwrap();
        propulsiond::config::scalar::allowing_missing(|| {
            for loaded in propulsiond::spec::load(std::slice::from_ref(pipeline)).unwrap() {
                let mut owned = Vec::new();
                if let Some(rhai) = &loaded.spec.handler.rhai {
                    owned.push(directory.join(&*rhai.script));
                    owned.extend(imports(&directory.join(&*rhai.script)));
                }
                owned.extend(loaded.spec.source.json.as_ref().map(|json| directory.join(&*json.path)));
                for owned in owned {
                    let owned = owned.canonicalize().unwrap();
                    left.retain(|file| !file.starts_with(&owned));
                }
            }
        });
    }
    assert_eq!(left, BTreeSet::new(), "no pipeline refers to these");
}

#[test]
fn every_line_of_the_shop_is_json_with_a_stream_an_index_and_a_type() {
    let feeds: Vec<_> = files(&root("pipelines/shop")).into_iter().filter(|path| ends_in(path, &["jsonl"])).collect();
    assert!(!feeds.is_empty());
    for feed in feeds {
        for (at, line) in std::fs::read_to_string(&feed).unwrap().lines().enumerate() {
            let event: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{}:{}: {error}", feed.display(), at + 1));
            let whole = event["stream"].is_string() && event["index"].is_u64() && event["type"].is_string();
            assert!(whole, "{}:{}: {line}", feed.display(), at + 1);
        }
    }
}

#[test]
fn every_file_below_config_is_settings_that_load() {
    let all = files(&root("config"));
    assert!(all.contains(&root("config/propulsiond.toml")));
    let data = tempfile::tempdir().unwrap();
    for file in all {
        assert!(ends_in(&file, &["toml"]), "{} is no settings file", file.display());
        let output = run(program()
            .arg("check")
            .arg(root("pipelines"))
            .arg("--settings")
            .arg(&file)
            .arg("--data-dir")
            .arg(data.path()));
        check(&output, 0, &["no problems found"]);
    }
}
