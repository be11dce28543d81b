//! The functions for scripts, called with values of all types. A fixed script makes the calls that the input encodes.

use std::cell::RefCell;
use std::path::Path;

use propulsiond::clock::Timestamp;
use propulsiond::event::{Assembler, Kind, Text};
use propulsiond::handler::{BlockingHandler, Decisions, NextIndex};
use propulsiond::position::Ordinal;
use propulsiond::script::{Options, Script};
use propulsiond::work::{Work, WorkId, WorkKind};

/// The maximum number of calls and the maximum depth of values per input. More would find nothing new.
const MOST_CALLS: usize = 24;
const DEEPEST: usize = 6;

thread_local! {
    static HANDLERS: RefCell<[Box<dyn BlockingHandler>; 2]> = RefCell::new([handler("api.rhai", 1), handler("batch.rhai", 2)]);
}

fn handler(name: &str, streams_per_call: usize) -> Box<dyn BlockingHandler> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/src"));
    let path = if path.exists() { path } else { Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")) };
    let params = serde_json::json!({ "vat": 0.2, "name": "shop", "nested": { "deep": [1, 2] } });
    let mut options = Options { streams_per_call, ..Options::default() };
    options.limits.operations = 100_000;
    options.limits.string_bytes = 1 << 20;
    let params = params.as_object().expect("it is an object");
    match Script::compile(&path.join(name), params, options) {
        Ok(script) => script.factory().make(),
        Err(error) => panic!("{error}"),
    }
}

pub fn script_api(input: &[u8]) {
    let mut input = Input(input);
    let is_batch = input.byte() & 1 == 1;
    let mut streams: Vec<_> = if is_batch {
        vec![input.work("order-1_a", 3), input.work("cart-2", 1)]
    } else {
        vec![input.work("order-1_a", 3)]
    };
    let mut decisions = Decisions::new();
    HANDLERS.with_borrow_mut(|handlers| handlers[usize::from(is_batch)].handle(&mut streams, &mut decisions));
    assert_eq!(decisions.len(), streams.len(), "there is one decision for each stream");
    for (work, decision) in streams.iter().zip(&decisions) {
        match decision {
            Ok(decision) => match decision.next {
                NextIndex::All => {}
                NextIndex::Defer(_) => assert!(decision.effects.is_empty(), "no progress carries no effects"),
                NextIndex::Upto(next) => {
                    assert!(next >= work.first(), "progress goes forward");
                    assert!(next > work.first() || decision.effects.is_empty(), "no progress carries no effects");
                }
            },
            Err(error) => assert!(!error.message().is_empty()),
        }
    }
}

/// The bytes of an input as choices. After its end every choice is the first.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn work(&mut self, stream: &str, events: i64) -> Work {
        let events: Vec<_> = (5..5 + events)
            .map(|index| {
                let data = self.calls().to_string();
                Assembler::new(stream, "Fuzzed")
                    .data(data.as_bytes())
                    .text(Text::Timestamp, "2026-11-24T10:00:00Z")
                    .build(Kind::Event, Ordinal::new(index.unsigned_abs(), 0), index)
                    .expect("its texts are short")
            })
            .collect();
        Work {
            id: WorkId { slot: 0, generation: 0 },
            kind: WorkKind::Handle,
            next: events.last().map_or(0, |event| event.next_index()),
            events,
            failures: 0,
            read_at: Timestamp::ZERO,
            late: false,
            trace: None,
        }
    }

    fn calls(&mut self) -> serde_json::Value {
        let mut calls = Vec::new();
        while calls.len() < MOST_CALLS && !self.0.is_empty() {
            let function = self.byte();
            if function == u8::MAX {
                break;
            }
            calls.push(serde_json::json!([function, self.value(0), self.value(0)]));
        }
        calls.into()
    }

    fn value(&mut self, depth: usize) -> serde_json::Value {
        let choice = self.byte();
        match choice % 16 {
            0 => serde_json::Value::Null,
            1 => (choice & 16 == 0).into(),
            2 | 3 => i64::from(self.byte() as i8).into(),
            4 => i64::from_le_bytes(self.bytes()).into(),
            5 => f64::from_le_bytes(self.bytes()).into(),
            6 => u64::from_le_bytes(self.bytes()).into(),
            7 | 8 => self.text().into(),
            9 => NAMES[usize::from(self.byte()) % NAMES.len()].into(),
            10 if depth < DEEPEST => (0..self.byte() % 5).map(|_| self.value(depth + 1)).collect(),
            11 if depth < DEEPEST => {
                let entries = (0..self.byte() % 5).map(|_| (self.text(), self.value(depth + 1)));
                entries.collect::<serde_json::Map<_, _>>().into()
            }
            _ => serde_json::json!({ "$": self.byte() % 26 }),
        }
    }

    fn text(&mut self) -> String {
        let len = usize::from(self.byte() % 24).min(self.0.len());
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }
}

/// Texts that functions parse.
const NAMES: [&str; 16] = [
    "5s",
    "1h 30m",
    "99999999999999999999s",
    "permanent",
    "throttled",
    "malformed",
    "2026-11-24T10:00:00Z",
    "9999-12-31T23:59:59.9999999+23:59",
    "{\"a\":[1,2.5e300,\"\\ud83d\\ude00\"]}",
    "[[[[[[[[1]]]]]]]]",
    "9223372036854775808",
    "1e999",
    "total",
    "a.b-c_d",
    "../../etc",
    "-0.0",
];
