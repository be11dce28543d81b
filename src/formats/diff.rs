//! The difference between two lists of lines.

use std::time::Duration;

use similar::{ChangeTag, TextDiff};

/// Equal lines shown around each difference.
const CONTEXT: usize = 3;

/// The time for a minimal difference. Later the rest is a replacement as a whole: nobody reads one of that size.
const MAX_TIME: Duration = Duration::from_millis(500);

/// Returns the lines of both lists: `-` marks those of `before` only, `+` those of `after` only. Long equal runs are cut.
pub(crate) fn of(before: &[String], after: &[String]) -> String {
    let marked = align(before, after);
    let near = |at: usize| {
        let from = at.saturating_sub(CONTEXT);
        marked[from..marked.len().min(at + CONTEXT + 1)].iter().any(|(tag, _)| *tag != ChangeTag::Equal)
    };
    let mut out: Vec<String> = Vec::new();
    for (at, (tag, line)) in marked.iter().enumerate() {
        if near(at) {
            out.push(format!("{tag} {line}"));
        } else if out.last().is_none_or(|last| last != "  …") {
            out.push("  …".to_owned());
        }
    }
    out.join("\n")
}

/// Returns the lines of both lists in one order, each with the list that it belongs to.
pub(crate) fn align(before: &[String], after: &[String]) -> Vec<(ChangeTag, String)> {
    let before: Vec<_> = before.iter().map(String::as_str).collect();
    let after: Vec<_> = after.iter().map(String::as_str).collect();
    let diff = TextDiff::configure().timeout(MAX_TIME).diff_slices(&before, &after);
    diff.iter_all_changes().map(|change| (change.tag(), change.value().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    fn check(before: &str, after: &str, expected: Expect) {
        expected.assert_eq(&of(&lines(before), &lines(after)).replace('\n', ","));
    }

    #[test]
    fn a_difference_is_shown_with_the_lines_around_it() {
        check("abc", "axc", expect!["  a,- b,+ x,  c"]);
        check("", "ab", expect!["+ a,+ b"]);
        check("ab", "", expect!["- a,- b"]);
        check("0123456789", "0123x56789", expect!["  …,  1,  2,  3,- 4,+ x,  5,  6,  7,  …"]);
        check("abcabba", "cbabac", expect!["- a,- b,  c,- a,  b,+ a,  b,  a,+ c"]);
    }

    proptest! {
        #[test]
        fn an_alignment_contains_both_sides(before in "[abc]{0,12}", after in "[abc]{0,12}") {
            let (before, after) = (lines(&before), lines(&after));
            let aligned = align(&before, &after);
            let side = |other: ChangeTag| -> Vec<String> {
                aligned.iter().filter(|(tag, _)| *tag != other).map(|(_, line)| line.clone()).collect()
            };
            prop_assert_eq!(&side(ChangeTag::Insert), &before);
            prop_assert_eq!(&side(ChangeTag::Delete), &after);
        }
    }
}
