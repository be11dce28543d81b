//! The differences of two lists of lines.

/// The equal lines that are shown around a difference.
const CONTEXT: usize = 3;

/// Longer lists are not aligned line by line: the result would be unreadable.
const MOST: usize = 2_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Same,
    Gone,
    New,
}

/// Returns the lines of both: `-` marks those of `before` only, `+` those of `after` only. Long runs of equal lines
/// are cut.
pub(super) fn of(before: &[String], after: &[String]) -> String {
    let marked = align(before, after);
    let near = |at: usize| {
        let from = at.saturating_sub(CONTEXT);
        marked[from..marked.len().min(at + CONTEXT + 1)].iter().any(|(mark, _)| *mark != Mark::Same)
    };
    let mut out: Vec<String> = Vec::new();
    for (at, (mark, line)) in marked.iter().enumerate() {
        if near(at) {
            let sign = match mark {
                Mark::Same => ' ',
                Mark::Gone => '-',
                Mark::New => '+',
            };
            out.push(format!("{sign} {line}"));
        } else if out.last().is_none_or(|last| last != "  …") {
            out.push("  …".to_owned());
        }
    }
    out.join("\n")
}

fn align<'a>(before: &'a [String], after: &'a [String]) -> Vec<(Mark, &'a str)> {
    let start = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (rest, others) = (&before[start..], &after[start..]);
    let end = rest.iter().rev().zip(others.iter().rev()).take_while(|(a, b)| a == b).count();
    let (rest, others) = (&rest[..rest.len() - end], &others[..others.len() - end]);
    let same = |lines: &'a [String]| lines.iter().map(|line| (Mark::Same, line.as_str()));
    let mut out: Vec<_> = same(&before[..start]).collect();
    if rest.len() > MOST || others.len() > MOST {
        out.extend(rest.iter().map(|line| (Mark::Gone, line.as_str())));
        out.extend(others.iter().map(|line| (Mark::New, line.as_str())));
    } else {
        align_middle(rest, others, &mut out);
    }
    out.extend(same(&before[before.len() - end..]));
    out
}

/// Aligns the lines by their longest common subsequence.
fn align_middle<'a>(before: &'a [String], after: &'a [String], out: &mut Vec<(Mark, &'a str)>) {
    let mut common = vec![vec![0_u16; after.len() + 1]; before.len() + 1];
    for i in (0..before.len()).rev() {
        for j in (0..after.len()).rev() {
            common[i][j] =
                if before[i] == after[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < before.len() || j < after.len() {
        if i < before.len() && j < after.len() && before[i] == after[j] {
            out.push((Mark::Same, &before[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == after.len() || (i < before.len() && common[i + 1][j] >= common[i][j + 1]) {
            out.push((Mark::Gone, &before[i]));
            i += 1;
        } else {
            out.push((Mark::New, &after[j]));
            j += 1;
        }
    }
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
    fn what_differs_is_shown_with_a_little_of_what_does_not() {
        check("abc", "axc", expect!["  a,- b,+ x,  c"]);
        check("", "ab", expect!["+ a,+ b"]);
        check("ab", "", expect!["- a,- b"]);
        check("0123456789", "0123x56789", expect!["  …,  1,  2,  3,- 4,+ x,  5,  6,  7,  …"]);
        check("abcabba", "cbabac", expect!["- a,- b,  c,- a,  b,+ a,  b,  a,+ c"]);
    }

    proptest! {
        #[test]
        fn either_side_can_be_read_off_the_alignment(before in "[abc]{0,12}", after in "[abc]{0,12}") {
            let (before, after) = (lines(&before), lines(&after));
            let aligned = align(&before, &after);
            let side = |other: Mark| -> Vec<String> {
                aligned.iter().filter(|(mark, _)| *mark != other).map(|(_, line)| (*line).to_owned()).collect()
            };
            prop_assert_eq!(&side(Mark::New), &before);
            prop_assert_eq!(&side(Mark::Gone), &after);
        }
    }
}
