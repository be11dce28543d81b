//! The inputs that fuzzing begins with (`fuzz/corpus`), each run once by the code that fuzzing runs.

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
        // Scripts have as large a stack where the daemon runs them.
        let thread = std::thread::Builder::new().stack_size(propulsiond::script::STACK_BYTES);
        let ran = thread.spawn(move || run(&input)).unwrap().join();
        assert!(ran.is_ok(), "{} is a finding", path.display());
        count += 1;
    }
    assert!(count >= 5, "{} holds {count} inputs only", directory.display());
}

#[test]
fn pipelines_in_toml() {
    check("spec_toml", targets::spec_toml);
}

#[test]
fn pipelines_in_yaml() {
    check("spec_yaml", targets::spec_yaml);
}

#[test]
fn lines_of_json() {
    check("json_lines", targets::json_lines);
}

#[test]
fn calls_of_scripts() {
    check("script_api", targets::script_api);
}
