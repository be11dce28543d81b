//! The commands that answer and end: `explain`, `list`, `schema`, `completion`, `man`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::daemon::{Place, check, program, run, text};

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Returns the standard output of a command.
fn answer(arguments: &[&str]) -> String {
    let output = run(program().args(arguments).current_dir(root("")));
    check(&output, 0, &[]);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command in a place.
fn in_place(place: &Place, arguments: &[&str]) -> Output {
    run(program().args(arguments).current_dir(place.path("")))
}

#[test]
fn explain_describes_a_pipeline_by_name_and_by_path() {
    let by_name = answer(&["explain", "orders"]);
    for part in ["orders (pipelines/orders.toml)", "Exactly once", "a crash", "source.json.path = \"shop\""] {
        assert!(by_name.contains(part), "`{part}` is missing in:\n{by_name}");
    }
    assert_eq!(answer(&["explain", "pipelines/orders.toml"]), by_name);
    let json: Value = serde_json::from_str(&answer(&["explain", "notices", "--json"])).unwrap();
    assert_eq!((&json["name"], &json["delivery"]["guarantee"]), (&"notices".into(), &"at_least_once".into()));
    assert!(json["values"].as_array().unwrap().len() > 30 && json["words"].as_array().unwrap().len() == 6, "{json}");
}

#[test]
fn explain_reports_errors_as_check_does() {
    let place = Place::new(&[
        ("bad.toml", "[source.json]\npath = 'a'\n[sink.stdot]\n"),
        ("good.toml", "[source.generate]\n[sink.null]\n"),
    ]);
    let checked = in_place(&place, &["check", "pipelines/bad.toml"]);
    let explained = in_place(&place, &["explain", "bad"]);
    check(&explained, 2, &["pipelines/bad.toml:3", "stdout"]);
    assert_eq!(text(&explained), text(&checked));
    check(&in_place(&place, &["explain", "bad", "--json"]), 2, &["\"line\":3"]);
    check(&in_place(&place, &["explain", "god"]), 2, &["there is no pipeline `god`", "did you mean `good`?"]);
    check(&in_place(&place, &["explain", "good", "--config", "elsewhere"]), 2, &["there is no pipeline `good`"]);
    check(&in_place(&place, &["explain", "good"]), 0, &["It generates events"]);
}

#[test]
fn advice_does_not_prevent_an_explanation() {
    let place = Place::new(&[("a.toml", "[source.json]\npath = 'absent.jsonl'\n[sink.null]\n")]);
    check(&in_place(&place, &["check"]), 0, &["there is no such file or directory yet"]);
    check(&in_place(&place, &["explain", "a"]), 0, &["It reads the file or directory `absent.jsonl`"]);
}

#[test]
fn r61_explain_accepts_missing_variables_on_request() {
    let place = Place::new(&[("a.toml", "[source.json]\npath = '${PROPULSIOND_TEST_UNSET}'\n[sink.null]\n")]);
    check(&in_place(&place, &["explain", "a"]), 2, &["`PROPULSIOND_TEST_UNSET` is not set"]);
    check(&in_place(&place, &["explain", "a", "--allow-missing-env"]), 0, &["`${PROPULSIOND_TEST_UNSET}`"]);
}

#[test]
fn bash_loads_the_completion_and_completes_a_command() {
    let script = answer(&["completion", "bash"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("propulsiond.bash");
    std::fs::write(&file, script).unwrap();
    let bash = |line: &str| Command::new("bash").args(["--norc", "-c", line, "bash"]).arg(&file).output().unwrap();
    let parsed = bash("bash -n \"$1\"");
    assert!(parsed.status.success(), "{}", text(&parsed));
    let completed = bash(
        "source \"$1\"; COMP_WORDS=(propulsiond expl); COMP_CWORD=1; _propulsiond propulsiond expl propulsiond; echo \"${COMPREPLY[@]}\"",
    );
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "explain", "{}", text(&completed));
    let json: Value = serde_json::from_str(&answer(&["completion", "fish", "--json"])).unwrap();
    assert!(json["script"].as_str().unwrap().contains("complete -c propulsiond"), "{json}");
}

#[test]
fn man_prints_the_main_page_and_writes_one_for_each_command() {
    let page = answer(&["man"]);
    assert!(page.starts_with(".ie") && page.contains(".TH propulsiond 1"), "{page}");
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    let output = run(program().arg("man").arg(&pages).arg("--json"));
    check(&output, 0, &[]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let written: Vec<_> =
        json["written"].as_array().unwrap().iter().map(|file| file.as_str().unwrap().to_owned()).collect();
    assert!(written.len() > 6 && written.iter().all(|file| Path::new(file).is_file()), "{written:?}");
    assert_eq!(std::fs::read_to_string(pages.join("propulsiond.1")).unwrap(), page);
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    check(&run(program().arg("man").arg(file.join("man1"))), 3, &["cannot create the directory"]);
}

#[test]
fn a_reader_that_closes_early_is_no_failure() {
    let program = env!("CARGO_BIN_EXE_propulsiond");
    let line = format!("set -o pipefail; '{program}' schema pipeline | head -c 1");
    let output = Command::new("bash").args(["-c", &line]).output().unwrap();
    assert!(output.status.success() && output.stdout == b"{", "{}", text(&output));
}

#[test]
fn a_command_without_settings_ignores_broken_ones() {
    let place = Place::new(&[]);
    place.write("../bad.toml", "listne = 1\n");
    let commands: [&[&str]; 3] = [&["schema", "settings"], &["completion", "zsh"], &["man"]];
    for command in commands {
        check(&in_place(&place, &[command, &["--settings", "bad.toml"]].concat()), 0, &[]);
    }
    check(&in_place(&place, &["explain", "a", "--settings", "bad.toml"]), 2, &["bad.toml:1:1"]);
}

/// An independent validator, and the schemas that it validates against.
struct Validator {
    program: std::ffi::OsString,
    directory: tempfile::TempDir,
}

impl Validator {
    /// Returns `None` if `PROPULSIOND_TEST_CHECK_JSONSCHEMA` is unset.
    fn new() -> Option<Self> {
        let Some(program) = std::env::var_os("PROPULSIOND_TEST_CHECK_JSONSCHEMA") else {
            let required = std::env::var("PROPULSIOND_TEST_REQUIRE").unwrap_or_default();
            let is_required = required.split(',').any(|name| name == "check-jsonschema");
            assert!(!is_required, "PROPULSIOND_TEST_CHECK_JSONSCHEMA is not set");
            eprintln!("skipped: PROPULSIOND_TEST_CHECK_JSONSCHEMA names no check-jsonschema");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        for kind in ["pipeline", "test", "settings"] {
            std::fs::write(directory.path().join(format!("{kind}.json")), answer(&["schema", kind])).unwrap();
        }
        Some(Self { program, directory })
    }

    fn run(&self, arguments: &[&str], files: &[PathBuf]) -> Output {
        run(Command::new(&self.program).args(arguments).args(files).current_dir(self.directory.path()))
    }

    /// Returns the names of the files that the schema rejects.
    fn rejected(&self, kind: &str, files: &[PathBuf]) -> (Vec<String>, String) {
        let output = self.run(&["-o", "json", "--schemafile", &format!("{kind}.json")], files);
        let said = text(&output);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert!(json["parse_errors"].as_array().is_none_or(Vec::is_empty), "{said}");
        let name = |error: &Value| {
            let file = Path::new(error["filename"].as_str().unwrap());
            file.file_name().unwrap().to_string_lossy().into_owned()
        };
        let mut names: Vec<_> = json["errors"].as_array().unwrap().iter().map(name).collect();
        names.sort();
        names.dedup();
        assert_eq!(output.status.code(), Some(i32::from(!names.is_empty())), "{said}");
        (names, said)
    }

    /// Writes files and returns their paths.
    fn write(&self, files: &[(&str, &str)]) -> Vec<PathBuf> {
        let write = |(name, text): &(&str, &str)| {
            let file = self.directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        files.iter().map(write).collect()
    }
}

/// Returns the TOML and YAML files below a directory whose names are wanted.
fn files_below(directory: &Path, is_wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files_below(&path, is_wanted));
        } else if (name.ends_with(".toml") || name.ends_with(".yaml")) && is_wanted(&name) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_validator_accepts_the_schemas_and_every_shipped_file() {
    let Some(validator) = Validator::new() else { return };
    let schemas = ["pipeline.json", "settings.json"].map(PathBuf::from);
    check(&validator.run(&["--check-metaschema"], &schemas), 0, &[]);
    let shipped = files_below(&root("pipelines"), &|name| !name.contains(".test."));
    assert!(shipped.len() >= 2);
    let (rejected, said) = validator.rejected("pipeline", &shipped);
    assert_eq!(rejected, Vec::<String>::new(), "{said}");
    // The shipped file comments out every setting: validate it as it is, and with all of them.
    let text = std::fs::read_to_string(root("config/propulsiond.toml")).unwrap();
    let all: String = text
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)))
        .collect();
    let mut settings = validator.write(&[("all.toml", &all)]);
    settings.push(root("config/propulsiond.toml"));
    let (rejected, said) = validator.rejected("settings", &settings);
    assert_eq!(rejected, Vec::<String>::new(), "{said}");
}

#[test]
fn a_validator_accepts_the_same_files_as_check_in_both_formats() {
    let Some(validator) = Validator::new() else { return };
    let files = validator.write(&[
        ("words.toml", "stop = 'tail'\ncheckpoint = 'sink'\n[source.memory]\n[sink.sqlite]\n[errors.retry]\nattempts = 'unlimited'\n"),
        ("tables.toml", "stop = { after = '1m 5s' }\n[checkpoint.file]\n[source.generate]\ncount = 1\n[handler.rhai]\nscript = 'a'\nparams = { a = [1, { b = 'x' }] }\n"),
        ("references.toml", "group = '${G}'\n[source.json]\npath = '${P}'\npoll = '${POLL:-5s}'\n[sink.file]\nfsync = { every = '${E}' }\n[schedule]\nread_ahead_bytes = '${B}'\n"),
        ("http.toml", "[source.memory]\n[sink.http]\nurl = 'http://h'\nauth = { bearer = '${T}' }\nsuccess = ['2xx', 409]\nheaders = { A = 'b' }\n"),
        ("empty.yaml", "source:\n  memory:\nsink:\n  stdout:\nfilter:\n"),
        ("merged.yaml", "source:\n  json: {path: a}\nsink:\n  file: {path: 'o/{id}.jsonl'}\nschedule: {max_bytes: 1 MiB, order: none}\n"),
    ]);
    // The program must accept them too, or the comparison proves nothing.
    for file in &files {
        let place = Place::new(&[("a", "fn handle(stream, events) {}")]);
        let target = place.path("pipelines").join(file.file_name().unwrap());
        std::fs::copy(file, &target).unwrap();
        check(&in_place(&place, &["check", "--allow-missing-env", target.to_str().unwrap()]), 0, &[]);
    }
    let (rejected, said) = validator.rejected("pipeline", &files);
    assert_eq!(rejected, Vec::<String>::new(), "{said}");
}

#[test]
fn a_validator_rejects_the_same_files_as_check() {
    let Some(validator) = Validator::new() else { return };
    let source = "[source.memory]\n";
    let with = |text: &str| format!("{source}[sink.null]\n{text}");
    let broken = [
        ("no-source", "[sink.null]\n".to_owned()),
        ("two-sources", format!("{source}[source.generate]\n[sink.null]\n")),
        ("two-sinks", with("[sink.stdout]\n")),
        ("two-stores", with("[checkpoint.file]\n[checkpoint.memory]\n")),
        ("nothing-to-do", source.to_owned()),
        ("unknown-kind", format!("{source}[sink.kafak]\n")),
        ("unknown-key", with("[schedule]\nconcurency = 1\n")),
        ("unknown-table", with("[scheduling]\n")),
        ("zero", with("[schedule]\nconcurrency = 0\n")),
        ("duration", with("[schedule]\ncommit_interval = '5 parsecs'\n")),
        ("number-for-a-duration", with("[schedule]\ncommit_interval = 5\n")),
        ("size", with("[schedule]\nread_ahead_bytes = '64 megs'\n")),
        ("word", with("[schedule]\norder = 'random'\n")),
        ("attempts", with("[errors.retry]\nattempts = 'forever'\n")),
        ("then", with("[errors]\nthen = 'drop'\n")),
        ("stop", format!("stop = 'now'\n{}", with(""))),
        ("stop-after", format!("stop = {{ before = '1m' }}\n{}", with(""))),
        ("checkpoint", format!("checkpoint = 'sinks'\n{}", with(""))),
        ("no-path", "[source.json]\n[sink.null]\n".to_owned()),
        ("no-script", format!("{source}[handler.rhai]\ntimeout = '1s'\n")),
        ("status", format!("{source}[sink.http]\nurl = 'http://h'\nsuccess = ['404']\n")),
        ("text-for-a-list", with("[filter]\ncategories = 'order'\n")),
    ];
    for (name, text) in &broken {
        let place = Place::new(&[(&format!("{name}.toml"), text)]);
        check(&in_place(&place, &["check"]), 2, &[]);
    }
    let named: Vec<_> = broken.iter().map(|(name, text)| (format!("{name}.toml"), text.as_str())).collect();
    let files = validator.write(&named.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>());
    let (rejected, said) = validator.rejected("pipeline", &files);
    let mut all: Vec<_> = named.iter().map(|(name, _)| name.clone()).collect();
    all.sort();
    assert_eq!(rejected, all, "{said}");
    let files = validator.write(&[
        ("key.toml", "listne = 'off'\n"),
        ("port.toml", "listen = '127.0.0.1'\n"),
        ("format.toml", "[log]\nformat = 'xml'\n"),
    ]);
    let (rejected, said) = validator.rejected("settings", &files);
    assert_eq!(rejected, ["format.toml", "key.toml", "port.toml"], "{said}");
}

#[test]
fn list_names_every_connector_with_its_roles() {
    let text = answer(&["list"]);
    let roles = |name: &str| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("{text}"));
        line.matches('✓').count()
    };
    assert_eq!([roles("sqlite"), roles("rhai"), roles("generate")], [2, 1, 1], "{text}");
    let json: Value = serde_json::from_str(&answer(&["list", "--json"])).unwrap();
    let listed: Vec<_> = json.as_array().unwrap().iter().map(|entry| entry["role"].as_str().unwrap()).collect();
    assert_eq!(listed.iter().filter(|role| **role == "checkpoint").count(), 3, "{json}");
    let sinks: Value = serde_json::from_str(&answer(&["list", "sink", "--json"])).unwrap();
    assert!(sinks.as_array().unwrap().iter().all(|entry| entry["role"] == "sink" && entry["settings"].is_null()));
}

#[test]
fn list_shows_the_settings_of_a_connector_with_types_defaults_and_choices() {
    let text = answer(&["list", "sink.http"]);
    for part in [
        "    [sink.http]\n    url = \"https://api.example.com/orders\"\n",
        "\nurl (text, required)\n",
        "\nmethod (text, default \"POST\")\n",
        "\nper (\"event\" or \"span\", default \"event\")\n",
        "\nsuccess (list of status values, default [\"2xx\"])\n",
    ] {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let both = answer(&["list", "sqlite"]);
    assert!(both.contains("[checkpoint.sqlite]") && both.contains("[sink.sqlite]"), "{both}");
    check(
        &run(program().args(["list", "sink.htpp"])),
        2,
        &["there is no connector `sink.htpp`", "did you mean `sink.http`?"],
    );
    check(&run(program().args(["list", "kafka-topic"])), 2, &["there are `file`, `generate`"]);
}

#[test]
fn every_example_of_list_passes_check() {
    let json: Value = serde_json::from_str(&answer(&["list", "--json"])).unwrap();
    let keys = json.as_array().unwrap().iter();
    let keys: Vec<_> =
        keys.map(|entry| ["role", "connector"].map(|key| entry[key].as_str().unwrap()).join(".")).collect();
    assert!(keys.len() > 10, "{keys:?}");
    for key in keys {
        let settings: Value = serde_json::from_str(&answer(&["list", &key, "--json"])).unwrap();
        let example = settings[0]["example"].as_str().unwrap();
        let mut pipeline = example.to_owned();
        for (role, rest) in [("source", "[source.memory]\n"), ("sink", "[sink.null]\n")] {
            if !key.starts_with(role) {
                pipeline.push_str(rest);
            }
        }
        let place = Place::new(&[("p.toml", &pipeline), ("orders.rhai", "fn handle(stream, events) {}")]);
        let checked = in_place(&place, &["check"]);
        assert_eq!(checked.status.code(), Some(0), "{pipeline}\n{}", text(&checked));
        let names_a_setting = settings[0]["settings"].as_array().unwrap();
        let described = |setting: &Value| setting["description"].as_str().is_some_and(|text| text.len() > 10);
        assert!(names_a_setting.iter().all(described), "{key}: {settings}");
    }
}

#[test]
fn the_schema_of_tests_is_that_of_the_shipped_ones() {
    let schema: Value = serde_json::from_str(&answer(&["schema", "test"])).unwrap();
    let defined = |name: &str, key: &str| schema["$defs"][name]["properties"][key]["description"].is_string();
    assert!(defined("Test", "emits") && defined("TestEvent", "type") && defined("TestStream", "events"), "{schema}");
    let Some(validator) = Validator::new() else { return };
    let tests = files_below(&root("pipelines"), &|name| name.contains(".test."));
    assert!(tests.len() > 3, "{tests:?}");
    let (rejected, said) = validator.rejected("test", &tests);
    assert_eq!(rejected, Vec::<String>::new(), "{said}");
    let files = validator.write(&[
        ("key.toml", "[[test]]\nname = 'a'\nstrem = 'a-1'\nevents = []\n"),
        ("returns.toml", "[[test]]\nname = 'a'\nreturns = 'some'\n"),
    ]);
    let (rejected, said) = validator.rejected("test", &files);
    assert_eq!(rejected, ["key.toml", "returns.toml"], "{said}");
}

#[test]
fn check_counts_its_files_and_names_subdirectories_with_pipelines() {
    let place = Place::new(&[("a.yml", "source:\n  memory:\nsink:\n  stdout:\n")]);
    std::fs::create_dir_all(place.path("pipelines/more/deep")).unwrap();
    place.write("more/deep/b.toml", "[source.memory]\n[sink.stdout]\n");
    place.write("more/other.toml", "[package]\nname = 'no pipeline'\n");
    let found =
        "no problems found in 1 pipeline\nnote: subdirectories are not searched, and `pipelines/more/deep` hold";
    check(&in_place(&place, &["check"]), 0, &[found]);
    check(
        &in_place(&place, &["check", "pipelines/a.yml", "--config", "pipelines/more/deep"]),
        0,
        &["in 2 pipelines\n"],
    );
    let output = in_place(&place, &["check", "--json"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "[]\n");
}

#[test]
fn a_file_of_a_reference_is_looked_for_beside_the_pipeline() {
    let place = Place::new(&[
        ("a.toml", "group = '${file:group.txt}'\n[source.memory]\n[sink.stdout]\n"),
        ("group.txt", "shop\n"),
    ]);
    check(&in_place(&place, &["check"]), 0, &["no problems found"]);
    std::fs::rename(place.path("pipelines/group.txt"), place.path("group.txt")).unwrap();
    check(&in_place(&place, &["check"]), 2, &["cannot read the file `pipelines/group.txt`: no such file or directory"]);
}
