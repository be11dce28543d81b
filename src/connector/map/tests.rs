use bytes::Bytes;

use super::*;
use crate::config::scalar::allowing_missing;
use crate::formats::map::EventPlace;
use crate::position::Ordinal;

fn settings(toml: &str) -> Settings {
    toml::from_str(toml).unwrap()
}

/// Returns the paths and reasons of invalid settings.
fn check(toml: &str) -> Vec<String> {
    let bad = settings(toml).check();
    bad.into_iter().map(|bad| format!("{}: {}", bad.path.join("."), bad.why)).collect()
}

#[test]
fn invalid_settings_are_named_by_their_paths() {
    assert_eq!(check("stream = \"a-{/a}\"\ntype = \"/t\""), [""; 0]);
    assert_eq!(check(""), ["map.stream: `stream` is empty", "map.type: `type` is empty"]);
    let toml = "each = \"^/a\"\nwhen = [\"/a\", \"/b=1\"]\nstream = \"{a}\"\ntype = \"x\"\nindex = \"3\"";
    assert_eq!(
        check(toml),
        [
            "map.each: `each` starts at the record: remove the `^`",
            "map.when.1: expected ` = ` or ` != ` between a pointer and its values, found `/b=1`",
            "map.stream: expected a JSON pointer such as `/issue/number`, found `a`",
            "map.index: expected a JSON pointer such as `/issue/number`, found `3`",
        ]
    );
    assert_eq!(
        check("stream = \"^/a\"\ntype = \"x\"\ndelimiter = \";\"\ncolumns = [\"a\"]"),
        [
            "map.delimiter: `delimiter` is for `format = \"csv\"`",
            "map.columns: `columns` is for `format = \"csv\"`",
            "map.stream: `^` is the record around an item of `each`, which is not set",
        ]
    );
    for (delimiter, is_valid) in [(";", true), ("\\t", true), (";;", false), ("\\\"", false), ("é", false), ("", false)]
    {
        let toml = format!("format = \"csv\"\nstream = \"/a\"\ntype = \"x\"\ndelimiter = \"{delimiter}\"");
        assert_eq!(check(&toml).is_empty(), is_valid, "{delimiter}");
    }
}

#[test]
fn r61_a_hole_is_not_judged_and_does_not_compile() {
    let toml = "stream = \"${PROPULSIOND_NOT_SET}\"\ntype = \"x\"\nwhen = [\"${PROPULSIOND_NOT_SET}\"]";
    let settings = allowing_missing(|| settings(toml));
    assert_eq!(settings.check(), []);
    assert!(settings.compile().is_err());
}

#[test]
fn the_records_of_a_text_are_mapped_with_their_lines() {
    let map = settings("format = \"csv\"\nstream = \"part-{/sku}\"\ntype = \"Listed\"").compile().unwrap();
    let text = Bytes::from("sku,count\na,1\n\nb\nc,3");
    let mut shown = Vec::new();
    let place = |item| Ok(EventPlace { at: Ordinal::new(0, item), index: 0 });
    map.each_event(&text, place, |line, result| {
        shown.push(match result {
            Ok(event) => format!("{line} {} {}", event.stream(), String::from_utf8_lossy(event.data())),
            Err(misfit) => format!("{line} {}", misfit.why),
        });
    });
    assert_eq!(
        shown,
        [
            r#"2 part-a {"sku":"a","count":"1"}"#,
            "4 expected 2 fields, as the header has, not 1",
            r#"5 part-c {"sku":"c","count":"3"}"#
        ]
    );
}
