//! The house rules that no compiler and no lint checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the Rust files below a directory.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the module that a file belongs to, and that below it where that matters (`connector::json`).
fn module_of(file: &Path) -> (String, Option<String>) {
    let path = file.strip_prefix(root().join("src")).unwrap().with_extension("");
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    (parts.next().unwrap(), parts.next())
}

/// Returns the modules that a text names as `crate::module` or `propulsiond::module`, and that below each.
fn uses(text: &str) -> Vec<(String, Option<String>)> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let mut uses = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let module = word(&code[at + 7..]);
        let rest = &code[at + 7 + module.len()..];
        let below = rest.strip_prefix("::").map(|rest| match rest.strip_prefix('{') {
            // The first name of a list stands for all of it: no list here mixes connectors.
            Some(list) => word(list.trim_start()),
            None => word(rest),
        });
        uses.push((module, below));
    }
    uses
}

/// Modules in the order of `lib.rs`.
fn layers() -> Vec<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    lib.lines().filter_map(module).collect()
}

/// Returns the module that a line declares for others.
fn module(line: &str) -> Option<String> {
    let line = line.strip_prefix("pub(crate) mod ").or_else(|| line.strip_prefix("pub mod "))?;
    Some(line.strip_suffix(';')?.to_owned())
}

#[test]
fn a_module_uses_only_what_stands_above_it_in_lib_rs() {
    let layers = layers();
    let rank: BTreeMap<_, _> = layers.iter().enumerate().map(|(rank, name)| (name.as_str(), rank)).collect();
    let mut wrong = Vec::new();
    for file in rust_files(&root().join("src")) {
        let (module, _) = module_of(&file);
        if module == "main" || module == "lib" {
            continue;
        }
        let Some(own) = rank.get(module.as_str()) else { panic!("`{module}` is not in lib.rs") };
        for (used, _) in uses(&fs::read_to_string(&file).unwrap()) {
            if rank.get(used.as_str()).is_some_and(|rank| rank > own) {
                wrong.push(format!("{}: `{module}` uses `{used}`, which stands below it", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn connectors_do_not_use_each_other_and_pipelines_name_none() {
    let kinds = kinds();
    let mut wrong = Vec::new();
    for file in rust_files(&root().join("src")) {
        let (module, below) = module_of(&file);
        let text = fs::read_to_string(&file).unwrap();
        for (used, part) in uses(&text) {
            let part = part.unwrap_or_default();
            let is_connector = used == "connector" && kinds.contains(&part);
            if module == "connector" && is_connector && below.as_ref().is_some_and(|below| *below != part) {
                wrong.push(format!(
                    "{}: connector `{}` uses connector `{part}`",
                    file.display(),
                    below.as_deref().unwrap_or_default()
                ));
            }
            // The tests of a pipeline run on the connectors in memory.
            if module == "pipeline"
                && !file.ends_with("tests.rs")
                && ["connector", "script", "spec"].contains(&used.as_str())
            {
                wrong.push(format!("{}: a pipeline names `{used}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the keys of all kinds, from the list in `connector.rs`.
fn kinds() -> BTreeSet<String> {
    let list = fs::read_to_string(root().join("src/connector.rs")).unwrap();
    let line = regex::Regex::new(r#"(?m)^ +(\w+): [\w:]+ = ""#).unwrap();
    line.captures_iter(&list).map(|found| found[1].to_owned()).collect()
}

/// Returns the code of a file: without its unit tests, and without comment lines.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// Returns the mentions of kinds in code: their modules, their tables, and their keys as text.
fn mentions(kinds: &BTreeSet<String>, code: &str) -> Vec<String> {
    let keys = kinds.iter().map(String::as_str).collect::<Vec<_>>().join("|");
    let modules = format!(r"connector::(?:\{{[^}}]*\b)?(?:{keys})\b");
    let tables = format!(r"\b(?:source|sink|sinks|checkpoint|store|stores)\.(?:{keys})\b");
    let fields = format!(r"(?:Source|Sink|Checkpoint)Spec \{{ *(?:{keys})\b");
    // `json` and `null` are also words for values.
    let keys = kinds.iter().filter(|key| !["json", "null"].contains(&key.as_str())).map(String::as_str);
    let keys = keys.collect::<Vec<_>>().join("|");
    let texts = format!(r#"Some\("(?:{keys})"|"(?:{keys})"\)? =>|[!=]= "(?:{keys})""#);
    let mention = regex::Regex::new(&format!("{modules}|{tables}|{fields}|{texts}")).unwrap();
    mention.find_iter(code).map(|found| found.as_str().to_owned()).collect()
}

#[test]
fn no_module_outside_a_connector_names_its_kind() {
    let kinds = kinds();
    assert!(kinds.len() >= 9, "the list of connectors was read: {kinds:?}");
    let mut wrong = Vec::new();
    for file in rust_files(&root().join("src")) {
        let (module, below) = module_of(&file);
        let is_connector = module == "connector" && below.is_none_or(|below| kinds.contains(&below));
        let is_test = file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
        if is_connector || is_test {
            continue;
        }
        for mention in mentions(&kinds, &code(&fs::read_to_string(&file).unwrap())) {
            wrong.push(format!("{}: `{mention}` names a kind", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mentions_of_kinds_are_found_in_every_form() {
    let kinds = BTreeSet::from(["http".to_owned(), "sqlite".to_owned()]);
    for code in [
        "use crate::connector::sqlite;",
        "use crate::connector::{Context, http, json};",
        "let path = &spec.sink.sqlite;",
        "help(\"write `checkpoint.sqlite`\")",
        "SinkSpec { http: Some(_), .. } => 1,",
        "Some(\"sqlite\") => 1,",
        "\"http\" => 1,",
        "kind == \"sqlite\"",
    ] {
        assert_eq!(mentions(&kinds, code).len(), 1, "{code}");
    }
    for code in ["use crate::http;", "spawn(TaskKind::Http, \"http\", task)", "use crate::connector::Context;"] {
        assert_eq!(mentions(&kinds, code), Vec::<String>::new(), "{code}");
    }
}

#[test]
fn the_scheduler_uses_data_structures_only() {
    for file in rust_files(&root().join("src")) {
        if module_of(&file).0 != "scheduler" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for outside in ["tokio", "serde::", "tracing", "std::time::Instant", "std::fs", "std::thread", "fastrand"] {
            let tested = file.to_string_lossy().contains("tests");
            assert!(tested || !text.contains(outside), "{}: the scheduler uses `{outside}`", file.display());
        }
        let allowed = ["event", "position", "clock", "work", "scheduler"];
        for (used, _) in uses(text) {
            assert!(allowed.contains(&used.as_str()), "{}: the scheduler uses `{used}`", file.display());
        }
    }
}

/// Directories whose modules are declared in the order of their dependencies.
const ORDERED: [&str; 8] = ["app", "commands", "config", "connector", "daemon", "formats", "runtime", "telemetry"];

#[test]
fn the_modules_of_a_directory_use_only_those_declared_above() {
    let mut wrong = Vec::new();
    for directory in ORDERED {
        let text = fs::read_to_string(root().join(format!("src/{directory}.rs"))).unwrap();
        let declared: Vec<_> = text.lines().filter_map(module).collect();
        let rank = |name: &str| declared.iter().position(|known| known == name);
        for file in rust_files(&root().join("src").join(directory)) {
            let path = file.strip_prefix(root().join("src").join(directory)).unwrap().with_extension("");
            let own = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
            let Some(own_rank) = rank(&own) else { continue };
            for (used, part) in uses(&fs::read_to_string(&file).unwrap()) {
                let part = part.unwrap_or_default();
                if used == directory && rank(&part).is_some_and(|rank| rank > own_rank) {
                    wrong.push(format!("{}: `{own}` uses `{part}`, which is declared below it", file.display()));
                }
                if used == directory && directory == "commands" && rank(&part).is_some() && part != own {
                    wrong.push(format!("{}: the command `{own}` uses the command `{part}`", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the parts of the pipeline that a file of `src/pipeline` imports.
fn imported_parts(file: &Path, parts: &[String]) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    // A file in a subdirectory reaches the parts by one more `super`.
    let depth = file.strip_prefix(root().join("src/pipeline")).unwrap().components().count();
    let prefix = format!("use {}", "super::".repeat(depth));
    let mut found = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(prefix.as_str()) else { continue };
        let names = rest.trim_start_matches('{').split([',', ';', '}', ':', ' ', '{']);
        found.extend(names.filter(|name| parts.iter().any(|part| part == name)).map(str::to_owned));
    }
    found
}

#[test]
fn a_part_of_the_pipeline_imports_only_the_parts_above_it() {
    let text = fs::read_to_string(root().join("src/pipeline.rs")).unwrap();
    let name = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    };
    let parts: Vec<String> = text.lines().filter_map(name).collect();
    let rank = |name: &str| parts.iter().position(|part| part == name);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in rust_files(&root().join("src/pipeline")) {
        let path = file.strip_prefix(root().join("src/pipeline")).unwrap().with_extension("");
        let own = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        for used in imported_parts(&file, &parts) {
            seen += 1;
            if used != own && rank(&used) >= rank(&own) {
                wrong.push(format!("{}: `{own}` imports `{used}`, which is declared below it", file.display()));
            }
        }
    }
    assert!(seen > 40, "only {seen} imports were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Words that open no comment and no name of a test: they announce a clause in place of a name.
const OPENINGS: [&str; 8] = ["What", "Which", "How", "Where", "Who", "Whose", "Nobody", "Whoever"];

/// Returns the name of a test without the numbers of its rules, such as `c9_r73_`.
fn without_numbers(name: &str) -> &str {
    let is_number = |word: &str| word.len() > 1 && word[1..].bytes().all(|byte| byte.is_ascii_digit());
    match name.split_once('_') {
        Some((word, rest)) if is_number(word) => without_numbers(rest),
        _ => name,
    }
}

/// Returns the lines of a Rust file that open a comment, or name a function, with one of the [`OPENINGS`].
fn bad_openings(text: &str) -> Vec<usize> {
    let opens = |text: &str, word: &str| {
        text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    let mut found = Vec::new();
    let mut within_comment = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let comment = line.strip_prefix("//").map(|rest| rest.trim_start_matches(['/', '!']).trim());
        let is_bad = match comment {
            Some(comment) => !within_comment && OPENINGS.iter().any(|word| opens(comment, word)),
            None => line.split_once("fn ").is_some_and(|(before, name)| {
                let is_function = before.split_whitespace().all(|word| word.starts_with("pub") || word == "async");
                let name = without_numbers(name);
                is_function && OPENINGS.iter().any(|word| name.starts_with(&format!("{}_", word.to_lowercase())))
            }),
        };
        if is_bad {
            found.push(number + 1);
        }
        // An empty comment line ends a paragraph.
        within_comment = comment.is_some_and(|comment| !comment.is_empty());
    }
    found
}

#[test]
fn no_comment_and_no_name_opens_with_a_question_word() {
    assert_eq!(bad_openings("/// What it does.\n/// How.\n\n// Where\nfn who_is_it() {}\n"), [1, 4, 5]);
    assert_eq!(bad_openings("async fn c9_r73_what_is_lost() {}\nfn r73_nothing_is_lost() {}\n"), [1]);
    assert_eq!(bad_openings("/// Whatever it does.\nfn whole() {}\n/// A fact.\n///\n/// Who asks?\n"), [5]);
    let mut wrong = Vec::new();
    for file in
        ["src", "tests", "benches", "examples", "fuzz/src"].iter().flat_map(|part| rust_files(&root().join(part)))
    {
        let path = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let lines = bad_openings(&fs::read_to_string(&file).unwrap());
        wrong.extend(lines.into_iter().map(|line| format!("{path}:{line}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Licences of code that may be part of the binary.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Zlib",
    "0BSD",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
    "MIT-0",
    // smartstring, through rhai: file-level copyleft, used unchanged.
    "MPL-2.0",
    "MPL-2.0+",
    // The trust anchors of webpki-root-certs.
    "CDLA-Permissive-2.0",
];

#[test]
fn every_dependency_has_an_allowed_licence() {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "cargo lists {} packages only", packages.len());
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        let one_will_do = licence
            .split(" OR ")
            .any(|choice| choice.split(" AND ").all(|part| LICENCES.contains(&part.trim().trim_matches(['(', ')']))));
        assert!(one_will_do, "`{}` is under `{licence}`", package["name"]);
    }
}
