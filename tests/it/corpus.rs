//! Replays the seed inputs of fuzzing (`fuzz/corpus`), each once, by the code that fuzzing runs.

use std::path::Path;

#[expect(unreachable_pub, reason = "it is a library where fuzzing uses it")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

fn check(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        // The daemon gives scripts a stack of this size, too.
        let thread = std::thread::Builder::new().stack_size(propulsiond::script::STACK_BYTES);
        let ran = thread.spawn(move || run(&input)).unwrap().join();
        assert!(ran.is_ok(), "{} is a finding", path.display());
        count += 1;
    }
    assert!(count >= 5, "{} holds {count} inputs only", directory.display());
}

#[test]
fn toml_pipelines_hold_the_invariants() {
    check("spec_toml", targets::spec_toml);
}

#[test]
fn yaml_pipelines_hold_the_invariants() {
    check("spec_yaml", targets::spec_yaml);
}

#[test]
fn json_lines_hold_the_invariants() {
    check("json_lines", targets::json_lines);
}

#[test]
fn script_calls_hold_the_invariants() {
    check("script_api", targets::script_api);
}
