//! `propulsiond test`: its output and exit codes.

use std::path::Path;

use crate::daemon::{Place, check, program, run, text};

const PIPELINE: &str = "[source.json]\npath = \"nowhere\"\n[handler.rhai]\nscript = \"p.rhai\"\n[sink.file]\n";
const SCRIPT: &str = "fn handle(stream, events) { for e in events { log.info(\"seen\"); emit(e.type); } }";

fn place(test: &str) -> Place {
    Place::new(&[("p.toml", PIPELINE), ("p.rhai", SCRIPT), ("p.test.toml", test)])
}

fn case(name: &str, emits: &str) -> String {
    format!("[[test]]\nname = \"{name}\"\nstream = \"a-1\"\nevents = [{{ type = \"A\" }}]\nemits = {emits}\n")
}

fn test(place: &Place, arguments: &[&str]) -> std::process::Output {
    run(program().arg("test").arg(place.path("pipelines")).args(arguments).current_dir(place.path("")))
}

#[test]
fn the_shipped_tests_pass() {
    let output = run(program().args(["test", "--json"]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))));
    check(&output, 0, &[]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |pipeline| report["tests"].as_array().unwrap().iter().filter(|test| test["pipeline"] == pipeline).count();
    assert!(of("orders") >= 4 && of("notices") >= 2, "{report}");
}

#[test]
fn a_failing_test_names_its_place_and_ends_with_1() {
    let place = place(&[case("good", "[\"A\"]"), case("bad", "[\"B\"]")].concat());
    let output = test(&place, &[]);
    check(
        &output,
        1,
        &["ok      p: good", "FAILED  p: bad", "p.test.toml:7:8", "- \"B\"", "+ \"A\"", "1 passed, 1 failed"],
    );
    assert!(!place.path("data").exists(), "nothing is written");
    let output = test(&place, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["failed"], &report["tests"][1]["line"]), (&1.into(), &7.into()), "{report}");
}

#[test]
fn a_filter_selects_tests_and_is_an_error_if_it_selects_none() {
    let place = place(&[case("good", "[\"A\"]"), case("bad", "[\"B\"]")].concat());
    check(&test(&place, &["--filter", "good"]), 0, &["1 passed"]);
    check(&test(&place, &["--filter", "ugly"]), 2, &["no name of a test or a pipeline contains `ugly`"]);
}

#[test]
fn invalid_files_end_test_and_check_with_2() {
    let place = place(&case("good", "[\"A\"]").replace("events", "evnts"));
    check(&test(&place, &[]), 2, &["p.test.toml:4:1", "did you mean `events`?"]);
    place.write("p.toml", "[source.memory]\n[handler.rhai]\nscript = \"p.rhai\"\n[sink.null]\n");
    check(&run(program().arg("check").arg(place.path("pipelines"))), 2, &["p.test.toml:4:1", "did you mean `events`?"]);
    check(&run(program().arg("check").arg(place.path("pipelines/p.test.toml"))), 2, &["p.test.toml:4:1"]);
    // A failing test does not prevent a run.
    check(&place.run(&["--until-tail"]), 0, &["finished"]);
    place.write("q.test.toml", &case("a", "[]"));
    check(&test(&place, &[]), 2, &["there is no pipeline `q` beside"]);
}

#[test]
fn logs_of_scripts_are_shown_on_request() {
    let place = place(&case("good", "[\"A\"]"));
    assert!(!text(&test(&place, &[])).contains("seen"));
    check(&test(&place, &["--log-level", "info"]), 0, &["seen", "stream=a-1"]);
}
