//! Events as lines of JSON: parsed, written, and parsed again.

use bytes::Bytes;
use propulsiond::event::{Event, Kind, Text};
use propulsiond::formats::encode;
use propulsiond::formats::jsonlines::{self, Indexing, LineOrigin};

const TEXTS: [Text; 6] = [Text::Stream, Text::Type, Text::Id, Text::Timestamp, Text::Correlation, Text::Causation];

pub fn json_lines(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    for indexing in [Indexing::Field, Indexing::Line] {
        let (mut events, mut start) = (Vec::new(), 0);
        for (number, line) in input.split(|byte| *byte == b'\n').enumerate() {
            let before = events.len();
            let origin = LineOrigin { major: number as u64 + 1, indexing };
            if let Err(bad) = jsonlines::parse(body.slice(start..start + line.len()), origin, &mut events) {
                assert_eq!(events.len(), before, "a bad line appends nothing");
                assert!(!bad.to_string().is_empty());
            }
            start += line.len() + 1;
        }
        events.iter().for_each(check_event);
        let before = events.len();
        if jsonlines::parse_body(&body, 1, indexing, &mut events).is_err() {
            assert_eq!(events.len(), before, "a bad body appends nothing");
        }
        let mut out = Vec::new();
        encode::event_lines(&events, &mut out);
        for run in encode::runs(&events) {
            encode::span(run, &mut out);
        }
    }
}

/// Checks that a parsed event can be written, and that the result parses as the same event.
fn check_event(event: &Event) {
    let texts = TEXTS.map(|field| event.text(field).to_owned());
    let _whether_it_can_be_read = event.timestamp();
    assert!(event.size() <= event.held_bytes());
    if event.kind() != Kind::Event {
        return;
    }
    let mut line = Vec::new();
    encode::event_line(event, &mut line);
    assert!(!line.contains(&b'\n'), "a line is one line");
    let mut again = Vec::new();
    let origin = LineOrigin { major: 1, indexing: Indexing::Field };
    let shown = String::from_utf8_lossy(&line).into_owned();
    jsonlines::parse(line.into(), origin, &mut again).unwrap_or_else(|bad| panic!("{bad}: {shown}"));
    let [again] = &again[..] else { panic!("one event became {}: {shown}", again.len()) };
    assert_eq!((again.index(), TEXTS.map(|field| again.text(field).to_owned())), (event.index(), texts), "{shown}");
    assert_eq!(joined(again.data()), joined(event.data()), "{shown}");
    assert_eq!(joined(again.meta()), joined(event.meta()), "{shown}");
}

/// Replaces line ends between the tokens of a body by spaces, which mean the same.
fn joined(body: &[u8]) -> Vec<u8> {
    body.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}
