//! Which files are pipelines.

use expect_test::{Expect, expect};

use super::{Files, load, scan};

const GOOD: &[u8] = b"[source.memory]\n[sink.null]\n";

fn check_names(files: &[&str], expected: Expect) {
    let yaml: &[u8] = b"source: {memory: }\nsink: {null: }\n";
    let content = |name: &str| if name.ends_with(".yaml") { yaml } else { GOOD };
    let files: Vec<_> = files.iter().map(|name| (*name, content(name))).collect();
    let files = Files::new(&files);
    std::fs::create_dir(files.folder().join("kafka")).unwrap();
    std::fs::write(files.folder().join("kafka/inner.toml"), "broken").unwrap();
    expected.assert_eq(&match load(&files.folder()) {
        Ok(loaded) => loaded.iter().map(|pipeline| pipeline.name.clone()).collect::<Vec<_>>().join(" "),
        Err(problems) => files.render(&problems),
    });
}

#[test]
fn the_folder_alone_is_read_without_dot_files_and_tests() {
    check_names(
        &["b.toml", "a.yaml", ".hidden.toml", "a.test.toml", "a.test.yaml", "README.md", "a.rhai", "c.toml~", "toml"],
        expect!["a b"],
    );
    check_names(
        &[],
        expect![[r#"
        error: there is no pipeline in this folder
         --> pipelines
          = help: a pipeline is a file `NAME.toml` or `NAME.yaml`, directly in the folder
    "#]],
    );
}

#[test]
fn names_that_cannot_be_used() {
    check_names(
        &["a.toml", "a.yaml"],
        expect![[r#"
        error: the pipeline `a` is described by `a.toml` as well
         --> pipelines/a.yaml
          = help: remove one of the files
    "#]],
    );
    check_names(
        &["a.yml"],
        expect![[r#"
        error: a pipeline file ends in `.toml` or `.yaml`
         --> pipelines/a.yml
          = help: rename it to `a.yaml`
    "#]],
    );
    check_names(
        &["my orders.toml"],
        expect![[r#"
        error: this name cannot be a pipeline's: it is part of URLs and a metric's label
         --> pipelines/my orders.toml
          = help: a name is at most 64 letters (a-z), digits, `-` and `_`, and begins with a letter or digit
    "#]],
    );
    check_names(
        &["🔑.toml"],
        expect![[r#"
        error: this name cannot be a pipeline's: it is part of URLs and a metric's label
         --> pipelines/🔑.toml
          = help: a name is at most 64 letters (a-z), digits, `-` and `_`, and begins with a letter or digit
    "#]],
    );
    check_names(
        &["a.b.toml"],
        expect![[r#"
        error: this name cannot be a pipeline's: it is part of URLs and a metric's label
         --> pipelines/a.b.toml
          = help: a name is at most 64 letters (a-z), digits, `-` and `_`, and begins with a letter or digit
    "#]],
    );
    check_names(
        &["-a.toml"],
        expect![[r#"
        error: this name cannot be a pipeline's: it is part of URLs and a metric's label
         --> pipelines/-a.toml
          = help: a name is at most 64 letters (a-z), digits, `-` and `_`, and begins with a letter or digit
    "#]],
    );
}

#[test]
fn one_file_is_read_by_its_path() {
    let files = Files::new(&[("a.toml", GOOD), ("b.toml", b"broken"), ("c.yml", GOOD), ("d.json", GOOD)]);
    assert_eq!(load(&files.folder().join("a.toml")).unwrap()[0].name, "a");
    let problems = |name: &str| files.render(&files.problems(&files.folder().join(name)));
    expect![[r#"
        error: a pipeline file ends in `.toml` or `.yaml`
         --> pipelines/c.yml
          = help: rename it to `c.yaml`
    "#]]
    .assert_eq(&problems("c.yml"));
    expect![[r#"
        error: a pipeline file ends in `.toml` or `.yaml`
         --> pipelines/d.json
    "#]]
    .assert_eq(&problems("d.json"));
    expect![[r#"
        error: there is no such file or folder
         --> pipelines/no.toml
          = help: begin a pipeline with `propulsiond new NAME`, or name a file or a folder of them
    "#]]
    .assert_eq(&problems("no.toml"));
}

#[test]
fn folders_that_are_named_like_files_are_told() {
    let files = Files::new(&[("a.toml", GOOD)]);
    std::fs::create_dir(files.folder().join("x.toml")).unwrap();
    expect![[r#"
        error: expected a file, but this is a folder
         --> pipelines/x.toml
    "#]]
    .assert_eq(&files.render(&files.problems(&files.folder())));
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_or_round_are_told() {
    let files = Files::new(&[("a.toml", GOOD)]);
    std::os::unix::fs::symlink("round.toml", files.folder().join("round.toml")).unwrap();
    std::os::unix::fs::symlink("/no/such/file", files.folder().join("gone.toml")).unwrap();
    std::os::unix::fs::symlink("a.toml", files.folder().join("linked.toml")).unwrap();
    assert_eq!(scan(&files.folder()).unwrap().len(), 4);
    expect![[r#"
        error: cannot read the file: no such file or directory
         --> pipelines/gone.toml
        error: cannot read the file: too many levels of symbolic links
         --> pipelines/round.toml
    "#]]
    .assert_eq(&files.render(&files.problems(&files.folder())));
}

#[test]
fn large_files_are_not_read() {
    let files = Files::new(&[("a.toml", &vec![b'#'; (1 << 20) + 1])]);
    expect![[r#"
        error: the file is larger than 1 MiB
         --> pipelines/a.toml
    "#]]
    .assert_eq(&files.render(&files.problems(&files.folder())));
}

#[test]
fn all_files_are_judged() {
    let files = Files::new(&[("a.toml", b"x = 1"), ("b.yaml", b"y: 1"), ("c.toml", GOOD)]);
    expect![[r#"
        error: unknown key `x`
         --> pipelines/a.toml:1:1 (x)
        1 | x = 1
          | ^
          = help: the keys known here are `group`, `source_id`, `stop`, `source`, `checkpoint`, `filter`, `schedule`, `errors`, `handler` and `sink`
        error: unknown key `y`
         --> pipelines/b.yaml:1:1 (y)
        1 | y: 1
          | ^
          = help: the keys known here are `group`, `source_id`, `stop`, `source`, `checkpoint`, `filter`, `schedule`, `errors`, `handler` and `sink`
    "#]].assert_eq(&files.render(&files.problems(&files.folder())));
}
