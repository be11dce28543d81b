//! The files of a directory that are pipelines. Broken directories are in `tests/broken/directory`.

use super::{Files, load};

#[test]
fn only_visible_pipeline_files_of_the_directory_itself_are_loaded() {
    let toml: &[u8] = b"[source.memory]\n[sink.null]\n";
    let yaml: &[u8] = b"source: {memory: }\nsink: {null: }\n";
    let files = Files::new(&[
        ("b.toml", toml),
        ("a.yaml", yaml),
        (".hidden.toml", b"broken"),
        ("a.test.toml", b"broken"),
        ("a.test.yaml", b"broken"),
        ("README.md", b"broken"),
        ("a.rhai", b"broken"),
        ("c.toml~", b"broken"),
        ("toml", b"broken"),
    ]);
    std::fs::create_dir(files.directory().join("kafka")).unwrap();
    std::fs::write(files.directory().join("kafka/inner.toml"), "broken").unwrap();
    std::os::unix::fs::symlink("b.toml", files.directory().join("linked.toml")).unwrap();
    let loaded = load(&[files.directory()]).unwrap();
    assert_eq!(loaded.iter().map(|pipeline| &*pipeline.name).collect::<Vec<_>>(), ["a", "b", "linked"]);
    assert_eq!(load(&[files.directory().join("b.toml")]).unwrap()[0].name, "b", "one file is loaded by its path");
}
