//! Foreign records in files: their places, their positions, their errors.

use super::forms::gzip;
use super::*;

fn fixture(map: &str) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.settings.map = Some(toml::from_str(map).unwrap());
    fixture
}

const WEBHOOKS: &str = "stream = \"issue-{/n}\"\ntype = \"/action\"\nwhen = [\"/action\"]";
const TABLE: &str = "format = \"csv\"\nstream = \"part-{/sku}\"\ntype = \"Listed\"";

#[test]
fn c2_a_record_without_an_index_gets_that_of_its_line() {
    let mut f = fixture(WEBHOOKS);
    f.append("a.jsonl", "# comment\n{\"n\":1,\"action\":\"opened\"}\n{\"n\":2}\n\n{\"action\":\"closed\"}\n");
    f.append("b.jsonl", "{\"n\":3,\"action\":\"opened\"}\n");
    f.check(&format!(
        "issue-1/2@0.2 (a.jsonl:5: `stream` needs `/n`, which the record lacks @0.5) issue-3/{}@1.1",
        (1_i64 << 40) + 1
    ));
    f.reopen().check("");
}

#[test]
fn c1_the_items_of_a_record_have_ordinals_and_indexes_of_their_own() {
    let mut f = fixture("each = \"/list\"\nstream = \"{^/name}-{/n}\"\ntype = \"T\"");
    f.append("a.jsonl", "{\"name\":\"a\",\"list\":[{\"n\":1},{},{\"n\":1}]}\n{\"name\":\"a\",\"list\":[{\"n\":1}]}\n");
    let events = f.read().unwrap();
    let places: Vec<_> = events.iter().map(|event| (event.at(), event.index(), event.kind())).collect();
    let at = Ordinal::new;
    assert_eq!(
        places,
        [
            (at(1, 0), 1 << 16, Kind::Event),
            (at(1, 1), 0, Kind::Malformed),
            (at(1, 2), (1 << 16) + 2, Kind::Event),
            (at(2, 0), 2 << 16, Kind::Event)
        ]
    );
    assert!(
        String::from_utf8_lossy(events[1].meta())
            .ends_with("a.jsonl:1: item 2 of `/list`: `stream` needs `/n`, which the record lacks")
    );
    assert_eq!(events[1].data(), b"{}", "the item is kept as it was");
}

#[test]
fn a_table_resumes_behind_any_row_with_its_header() {
    for (name, is_compressed) in [("a.csv", false), ("a.csv.gz", true)] {
        let mut f = fixture(TABLE);
        f.settings.skip = 1;
        f.settings.batch = NonZeroUsize::MIN;
        let text = "an export\r\nsku,\"the\nname\"\r\na,1\r\n\"b\n\",2\r\nc\r\nd,3\r\n";
        fs::write(f.path(name), if is_compressed { gzip(text) } else { text.into() }).unwrap();
        let mut shown = Vec::new();
        for _ in 0..4 {
            let batch = f.reopen().read_once().unwrap().batches.swap_remove(0);
            f.position = StartAt::Position(batch.resume_at);
            shown.extend(batch.events.iter().map(show));
        }
        let expected = [
            "part-a/4@0.4".to_owned(),
            "part-b\n/5@0.5".to_owned(),
            format!("({name}:7: expected 2 fields, as the header has, not 1 @0.7)"),
            "part-d/8@0.8".to_owned(),
        ];
        assert_eq!(shown, expected, "{name}");
    }
}

#[test]
fn a_row_is_read_once_its_quote_is_closed() {
    let mut f = fixture(TABLE);
    f.append("a.csv", "sku\n\"a");
    f.check("");
    f.append("a.csv", "\nb\"");
    f.check("");
    f.append("a.csv", "\nc\n");
    f.check("part-a\nb/2@0.2 part-c/4@0.4");
}

#[test]
fn a_bad_header_makes_every_row_malformed() {
    let mut f = fixture(TABLE);
    f.append("a.csv", "sku,sku\n1,2\n");
    f.check("(a.csv:2: the header has the column `sku` twice @0.2)");
    f.append("a.csv", "3,4\n");
    f.reopen().check("(a.csv:3: the header has the column `sku` twice @0.3)");
}

#[test]
fn a_document_needs_no_line_break_at_its_end() {
    let mut f = fixture("format = \"document\"\nstream = \"issue-{/n}\"\ntype = \"T\"");
    f.append("1.json", "{\n  \"n\": 1\n");
    f.check("");
    f.append("1.json", "}");
    f.check("issue-1/1@0.1");
    f.reopen().check("");
    f.append("1.json", "\n{\"n\":\n2}");
    f.check("issue-2/4@0.4");
    f.append("2.json", "{\"n\": 3");
    f.append("3.json", "{\"n\": 4}");
    f.check(&format!("(2.json:1: expected `,` or `}}` at byte 8 @1.1) issue-4/{}@2.1", (2_i64 << 40) + 1));
}

#[test]
fn a_directory_is_read_by_the_usual_endings_of_its_records() {
    let mut f = fixture("format = \"text\"\nstream = \"log\"\ntype = \"Line\"");
    for name in ["a.log", "b.txt", "c.jsonl", "d.csv"] {
        f.append(name, &format!("{name}\n"));
    }
    let bodies =
        f.read().unwrap().iter().map(|event| String::from_utf8_lossy(event.data()).into_owned()).collect::<Vec<_>>();
    assert_eq!(bodies, [r#"{"line":"a.log"}"#, r#"{"line":"b.txt"}"#]);
}

#[test]
fn a_record_that_is_too_long_is_malformed_and_its_lines_count() {
    let mut f = fixture(TABLE);
    let long = "x\n".repeat(33 << 20);
    f.append("a.csv", &format!("sku\n\"{long}\"\nb\n"));
    let lines = 33 << 20;
    f.check(&format!("(a.csv:2: the line is longer than 64 MiB @0.2) part-b/{0}@0.{0}", lines + 3));
}
