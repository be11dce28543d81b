//! The pages of the book: `docs/src`. Their generated parts agree with the program, every block of theirs is run or
//! checked, and the table of contents lists each page.

mod blocks;
mod generated;
mod schema;
pub(crate) mod session;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::readme::page::{Page, root};
use session::Session;

/// The page that `tutorial` runs.
pub(crate) const TUTORIAL: &str = "docs/src/tutorial.md";

/// Returns the paths of all pages, from the root of the repository.
pub(crate) fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    let mut directories = vec![PathBuf::from("docs/src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if entry.path().is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                pages.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    pages.sort();
    pages
}

#[test]
fn the_generated_parts_agree_with_the_program() {
    for name in pages() {
        let text = Page::read(&name).text;
        let path = root().join(&name);
        // `UPDATE_EXPECT=1` rewrites the page.
        expect_test::expect_file![path].assert_eq(&generated::regenerate(&text));
    }
}

#[test]
fn every_block_of_every_page_is_run_or_checked() {
    // The tutorial is a test of its own.
    let pages = pages().into_iter().filter(|name| name != TUTORIAL);
    // A thread of its own lets a page fail without the others. Its panic says why.
    let fails = |name: &String| {
        let name = name.clone();
        std::thread::spawn(move || Session::new(&Page::read(&name)).run()).join().is_err()
    };
    let failed: Vec<_> = pages.filter(fails).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn the_table_of_contents_lists_every_page() {
    let summary = Page::read("docs/src/SUMMARY.md");
    let listed: BTreeSet<_> = summary.links().into_iter().map(|(_, file, _)| file).collect();
    let pages: BTreeSet<_> =
        pages().iter().filter(|name| !name.ends_with("SUMMARY.md")).map(|name| root().join(name)).collect();
    assert_eq!(listed, pages);
}

#[test]
fn the_pages_link_to_pages_only() {
    // The built book holds nothing else, and its links must work as well.
    for name in pages() {
        let page = Page::read(&name);
        for (link, file, _) in page.links() {
            let inside =
                !file.components().any(|part| part.as_os_str() == "..") && file.starts_with(root().join("docs/src"));
            let climbs = file.strip_prefix(root().join("docs/src")).is_ok_and(|path| {
                let mut depth = 0_i32;
                path.components().all(|part| {
                    depth += if part.as_os_str() == ".." { -1 } else { 1 };
                    depth >= 0
                })
            });
            assert!(inside || climbs, "{}", page.place(&link));
        }
    }
}
