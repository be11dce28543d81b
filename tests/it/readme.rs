//! The pages for users: every command in them is run or checked, and their tables agree with the program.

pub(crate) mod commands;
pub(crate) mod page;

use std::collections::BTreeSet;

use propulsiond::cli::ExitStatus;
use serde_json::Value;

use crate::daemon::{Place, check, copy_directory, program, run};
use crate::docs;
use commands::Scene;
use page::{Page, root};

const README: &str = "README.md";
const OPERATING: &str = "docs/src/how-to/operate.md";

/// Returns every page of the repository.
fn pages() -> Vec<Page> {
    let others = [README, "deploy/README.md", "fuzz/README.md"].map(str::to_owned);
    others.into_iter().chain(docs::pages()).map(|name| Page::read(&name)).collect()
}

fn readme() -> Page {
    Page::read(README)
}

/// Returns the code spans of a cell.
fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_command_runs_or_names_what_there_is() {
    let (mut wrong, mut found) = (Vec::new(), 0);
    let scene = Scene::new();
    for page in pages() {
        for command in page.commands() {
            found += 1;
            if let Err(why) = scene.judge(&command) {
                wrong.push(format!("{}: {why}", page.place(&command)));
            }
        }
    }
    assert!(found > 60, "only {found} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_link_has_a_target() {
    for page in pages() {
        for (link, file, anchor) in page.links() {
            assert!(file.exists(), "{}: there is no {}", page.place(&link), file.display());
            if let Some(anchor) = anchor {
                let anchors = Page::anchors(&std::fs::read_to_string(&file).unwrap());
                assert!(anchors.contains(&anchor), "{}: {anchors:?}", page.place(&link));
            }
        }
    }
}

#[test]
fn the_readme_stays_two_screens_long() {
    let page = readme();
    // Each connector has a row of its own.
    let lines = page.text.lines().count() - page.table("| | source |").len();
    assert!(lines <= 122, "{lines} lines without the connectors: details belong in docs/");
}

#[test]
fn the_pipeline_of_the_readme_checks_and_runs_on_the_sample_feed() {
    let place = Place::new(&[]);
    copy_directory(&root().join("pipelines/shop"), &place.path("pipelines/shop"));
    let mut names = Vec::new();
    for block in readme().blocks().iter().filter(|block| ["toml", "rust"].contains(&block.language.as_str())) {
        // The first line is a comment that begins with the name.
        let first = block.lines[0].text.trim_start_matches(['#', '/', ' ']);
        let name = first.split([':', ' ']).next().unwrap();
        place.write(name, &block.text());
        names.push(name.to_owned());
    }
    assert_eq!(names, ["shipped.toml", "shipped.rhai"]);
    check(&run(program().arg("check").current_dir(place.path(""))), 0, &["no problems found"]);
    check(&place.run(&["--until-tail"]), 0, &["finished: "]);
    let feed: String =
        ["2026-11-16", "2026-11-20"].map(|day| place.read(&format!("pipelines/shop/{day}.jsonl"))).concat();
    let shipped = feed.lines().filter(|line| line.contains("\"OrderShipped\"")).count();
    let database = rusqlite::Connection::open(place.path("data/shipped.db")).unwrap();
    let rows: i64 = database.query_row("SELECT count(*) FROM shipped", [], |row| row.get(0)).unwrap();
    assert!(shipped > 10 && rows == shipped as i64, "{rows} of {shipped}");
}

#[test]
fn the_pages_outside_of_the_book_hold_commands_only() {
    // The blocks of the book are checked with it, those of the README by the tests around this one.
    for name in ["deploy/README.md", "fuzz/README.md"] {
        for block in Page::read(name).blocks() {
            assert!(["sh", "console"].contains(&block.language.as_str()), "{name}: {}", block.language);
        }
    }
}

#[test]
fn the_first_command_shows_the_documented_output() {
    let place = Place::new(&[]);
    copy_directory(&root().join("pipelines"), &place.path("pipelines"));
    let output = place.run(&["--until-tail"]);
    let said = crate::daemon::text(&output);
    let blocks = readme().blocks();
    let shown = blocks.iter().find(|block| block.language == "text").unwrap();
    let mut more = String::from_utf8_lossy(&output.stdout).lines().count();
    for line in &shown.lines {
        if line.text.starts_with('…') {
            assert_eq!(line.text, format!("… {more} more"));
        } else if line.text.starts_with("20") {
            let (_, words) = line.text.split_once("  ").unwrap();
            let words = words.split("address=").next().unwrap();
            assert!(said.contains(words), "{words}");
        } else {
            assert!(said.contains(&line.text), "{}", line.text);
            more -= 1;
        }
    }
}

#[test]
fn the_exit_codes_of_the_operators_page_are_those_of_the_program() {
    use ExitStatus::{BadEnvironment, BadFiles, DrainTimedOut, Failed, Ok, Signalled};
    let mut codes = [Ok, Failed, BadFiles, BadEnvironment, DrainTimedOut].map(|end| end.code().to_string()).to_vec();
    codes.push(format!("{}+n", Signalled(1).code() - 1));
    let listed: Vec<_> = Page::read(OPERATING).table("| code |").iter().map(|row| row[0].clone()).collect();
    assert_eq!(listed, codes);
}

#[test]
fn the_endpoints_are_those_that_answer() {
    let routes = regex::Regex::new(r#"\.route\("([^"]+)", (get|post|control::obeying)\("#).unwrap();
    let source = std::fs::read_to_string(root().join("src/http.rs")).unwrap();
    let routes: BTreeSet<_> = routes
        .captures_iter(&source)
        .map(|found| {
            let path = found[1].replace("{name}", "NAME").replace("{stream}", "STREAM");
            if &found[2] != "get" { format!("POST {path}") } else { path }
        })
        .collect();
    assert!(routes.len() > 5, "{routes:?}");
    let scene = Scene::new();
    for (page, is_whole) in [("docs/src/reference/http.md", true), (OPERATING, false)] {
        let mut listed = BTreeSet::new();
        for endpoint in Page::read(page).table("| endpoint |").iter().flat_map(|row| spans(&row[0])) {
            listed.insert(endpoint.split('?').next().unwrap().to_owned());
            // The scene has no parked stream to show.
            if let (Some(_), Err(why)) = (endpoint.strip_prefix('/'), scene.answers("GET", endpoint, &[]))
                && !why.contains("is not parked")
            {
                panic!("{page}: {why}");
            }
        }
        assert!(if is_whole { listed == routes } else { listed.is_subset(&routes) }, "{page}: {listed:?} {routes:?}");
    }
}

#[test]
fn the_connectors_are_those_of_the_schema() {
    let output = run(program().args(["schema", "pipeline"]));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let table = readme().table("| | source |");
    for (column, part) in [(1, "SourceSpec"), (2, "CheckpointSpec"), (3, "SinkSpec")] {
        let rows = table.iter().filter(|row| row.get(column).is_some_and(|cell| !cell.is_empty()));
        let listed: BTreeSet<_> = rows.flat_map(|row| spans(&row[0])).collect();
        let known = schema["$defs"][part]["properties"].as_object().unwrap();
        assert_eq!(listed, known.keys().map(String::as_str).collect(), "{part}");
    }
}
