//! `propulsiond map --try FILE`: proposes a mapping for the records of a file, or tries the mapping of a pipeline on them,
//! and shows the events.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::config::document::Problem;
use crate::connector::map::{Settings, guess};
use crate::connector::prose::counted;
use crate::event::{Event, Text};
use crate::formats::map::{EventPlace, RecordMap};
use crate::formats::words::io_error;
use crate::position::Ordinal;
use crate::spec::{self, SourceSpec};

/// The most bytes that are read of a file.
const MAX_READ: u64 = 4 << 20;
/// The most events and the most misfits that are shown.
const MAX_SHOWN: usize = 10;
/// The most characters that are shown of a body.
const MAX_BODY: usize = 60;

/// The language of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Toml,
    Yaml,
}

/// The error of a trial that was not made.
#[derive(Debug)]
pub(crate) enum NotTried {
    /// The pipeline's file is wrong, or has no mapping.
    Files(Vec<Problem>),
    /// The records cannot be read.
    Environment(anyhow::Error),
}

/// A mapping, tried on some records.
#[derive(Debug)]
pub(crate) struct Trial {
    file: String,
    /// The proposed mapping; `None` if a pipeline has one.
    proposal: Option<Settings>,
    has_index: bool,
    is_partial: bool,
    events: Vec<Event>,
    event_count: usize,
    misfits: Vec<Misfit>,
    misfit_count: usize,
}

/// A record that does not fit.
#[derive(Debug)]
struct Misfit {
    line: usize,
    why: String,
}

impl Trial {
    pub(crate) fn has_misfits(&self) -> bool {
        self.misfit_count > 0
    }

    fn new(file: &Path, text: &Bytes, is_partial: bool, map: &RecordMap) -> Self {
        let mut trial = Self {
            file: file.display().to_string(),
            proposal: None,
            has_index: map.has_index,
            is_partial,
            events: Vec::new(),
            event_count: 0,
            misfits: Vec::new(),
            misfit_count: 0,
        };
        let place = |_| Ok(EventPlace { at: Ordinal::default(), index: 0 });
        map.each_event(text, place, |line, result| match result {
            Ok(event) => {
                trial.event_count += 1;
                if trial.events.len() < MAX_SHOWN {
                    trial.events.push(event);
                }
            }
            Err(misfit) => {
                trial.misfit_count += 1;
                if trial.misfits.len() < MAX_SHOWN {
                    trial.misfits.push(Misfit { line, why: misfit.why.to_string() });
                }
            }
        });
        trial
    }

    /// Returns the proposal, and the events as comments below it. The text is a part of a pipeline file.
    pub(crate) fn render(&self, language: Language) -> String {
        let mut out = String::new();
        if let Some(proposal) = &self.proposal {
            out.push_str(&table(proposal, language));
            out.push('\n');
        }
        let of = if self.is_partial { " of the start" } else { "" };
        let misfits = match self.misfit_count {
            0 => String::new(),
            1 => "; 1 record does not fit".to_owned(),
            count => format!("; {count} records do not fit"),
        };
        out.push_str(&format!("# {}{of} of `{}`{misfits}:\n", counted(self.event_count as u64, "event"), self.file));
        for event in &self.events {
            let index = if self.has_index { format!("/{}", event.index()) } else { String::new() };
            let (time, body) = (event.time_text(), shortened(event.data()));
            let parts = [event.event_type(), &time, &body].into_iter().filter(|part| !part.is_empty());
            let parts: Vec<_> = parts.collect();
            out.push_str(&format!("#   {}{index}  {}\n", event.stream(), parts.join("  ")));
        }
        if self.event_count > self.events.len() {
            out.push_str(&format!("#   … {} more\n", self.event_count - self.events.len()));
        }
        for Misfit { line, why } in &self.misfits {
            out.push_str(&format!("#   line {line}: {why}\n"));
        }
        if self.misfit_count > self.misfits.len() {
            out.push_str(&format!("#   … {} more that do not fit\n", self.misfit_count - self.misfits.len()));
        }
        out
    }

    pub(crate) fn to_json(&self, language: Language) -> Value {
        let events = self.events.iter().map(|event| {
            let body = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
            let index = if self.has_index { json!(event.index()) } else { Value::Null };
            json!({
                "stream": event.stream(),
                "index": index,
                "type": event.event_type(),
                "time": event.time_text(),
                "id": event.text(Text::Id),
                "data": body(event.data()),
                "meta": body(event.meta()),
            })
        });
        let misfits = self.misfits.iter().map(|Misfit { line, why }| json!({ "line": line, "why": why }));
        json!({
            "map": self.proposal,
            "text": self.proposal.as_ref().map(|proposal| table(proposal, language)),
            "events": events.collect::<Vec<_>>(),
            "event_count": self.event_count,
            "misfits": misfits.collect::<Vec<_>>(),
            "misfit_count": self.misfit_count,
        })
    }
}

/// Proposes a mapping for the records of a file, and tries it.
pub(crate) fn propose(file: &Path) -> Result<Trial, NotTried> {
    let (text, is_partial) = read(file).map_err(NotTried::Environment)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split('.').next().filter(|name| !name.is_empty()).unwrap_or("record");
    let proposal = guess::guess(&text, name);
    let map = proposal.compile().map_err(|bad| NotTried::Environment(bad.into()))?;
    Ok(Trial { proposal: Some(proposal), ..Trial::new(file, &text, is_partial, &map) })
}

/// Tries the mapping of a pipeline on the records of a file.
pub(crate) fn try_pipeline(pipeline: &Path, file: &Path) -> Result<Trial, NotTried> {
    let definition = spec::load_file(pipeline).and_then(spec::define).map_err(NotTried::Files)?;
    let source = &definition.source;
    let problem = |why: String| definition.loaded.document.problem(&["source", source.key], why);
    let map = match source.record_map() {
        None => {
            let problem = problem("the source has no `map` that could be tried".to_owned());
            let help = format!("`propulsiond map --try {}` proposes one", file.display());
            return Err(NotTried::Files(vec![problem.help(help)]));
        }
        Some(map) => map.map_err(|bad| {
            let path: Vec<_> = ["source", source.key].into_iter().chain(bad.path.iter().map(String::as_str)).collect();
            NotTried::Files(vec![definition.loaded.document.problem(&path, bad.why.clone())])
        })?,
    };
    let (text, is_partial) = read(file).map_err(NotTried::Environment)?;
    Ok(Trial::new(file, &text, is_partial, &map))
}

/// Returns the start of a file, up to the last line break if the file is longer.
fn read(file: &Path) -> anyhow::Result<(Bytes, bool)> {
    let failed = |error| anyhow::Error::msg(io_error(&error)).context(format!("cannot read `{}`", file.display()));
    let open = std::fs::File::open(file).map_err(failed)?;
    let mut text = Vec::new();
    let is_compressed = file.extension().is_some_and(|ending| ending == "gz");
    let read = match is_compressed {
        true => flate2::read::MultiGzDecoder::new(open).take(MAX_READ + 1).read_to_end(&mut text),
        false => open.take(MAX_READ + 1).read_to_end(&mut text),
    };
    read.map_err(failed)?;
    let is_partial = text.len() as u64 > MAX_READ;
    if is_partial && let Some(end) = memchr::memrchr(b'\n', &text) {
        text.truncate(end + 1);
    }
    anyhow::ensure!(!text.trim_ascii().is_empty(), "`{}` is empty", file.display());
    Ok((text.into(), is_partial))
}

/// The keys of a mapping, in the order in which a file should have them.
const KEYS: [&str; 14] = [
    "format",
    "delimiter",
    "columns",
    "each",
    "when",
    "stream",
    "type",
    "index",
    "time",
    "id",
    "correlation",
    "causation",
    "data",
    "meta",
];

/// Returns the table of a mapping. A JSON value is a value of TOML and YAML.
fn table(map: &Settings, language: Language) -> String {
    let kind = SourceSpec::KINDS[0];
    let values = json!(map);
    let entries = KEYS.iter().filter_map(|key| Some((key, values.get(key)?)));
    // The default needs no line.
    let entries = entries.filter(|(key, value)| **key != "format" || *value != "json");
    let (head, indent, sign) = match language {
        Language::Toml => (format!("[source.{kind}.map]\n"), "", " ="),
        Language::Yaml => (format!("source:\n  {kind}:\n    map:\n"), "      ", ":"),
    };
    let lines = entries.map(|(key, value)| format!("{indent}{key}{sign} {value}\n"));
    format!("{head}{}", lines.collect::<String>())
}

/// Returns the start of a body on one line.
fn shortened(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: Vec<_> = text.split_whitespace().collect();
    let text = text.join(" ");
    match text.char_indices().nth(MAX_BODY) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(name: &str, text: &str, language: Language, expected: Expect) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        let shown = propose(&file).unwrap().render(language);
        expected.assert_eq(&shown.replace(&format!("{}/", directory.path().display()), ""));
    }

    #[test]
    fn a_proposal_is_a_table_with_its_events_as_comments() {
        check(
            "hooks.jsonl",
            "{\"action\":\"opened\",\"issue\":{\"number\":7}}\n{\"action\":\"ping\"}\n{\"action\":\"closed\",\"issue\":{\"number\":7}}\n",
            Language::Toml,
            expect![[r##"
                [source.json.map]
                stream = "issue-{/issue/number}"
                type = "/action"

                # 2 events of `hooks.jsonl`; 1 record does not fit:
                #   issue-7  opened  {"action":"opened","issue":{"number":7}}
                #   issue-7  closed  {"action":"closed","issue":{"number":7}}
                #   line 2: `stream` needs `/issue/number`, which the record lacks
            "##]],
        );
        check(
            "parts.csv",
            "part_id;made\n1;2026-01-31\n",
            Language::Yaml,
            expect![[r##"
                source:
                  json:
                    map:
                      format: "csv"
                      delimiter: ";"
                      stream: "part-{/part_id}"
                      type: "RowRead"

                # 1 event of `parts.csv`:
                #   part-1  RowRead  {"part_id":"1","made":"2026-01-31"}
            "##]],
        );
    }

    #[test]
    fn a_proposed_table_is_valid_in_both_languages() {
        let map = guess::guess(&Bytes::from("a\tid\n\"x\"\t1\n"), "quo\"te");
        let toml: toml::Table = toml::from_str(&table(&map, Language::Toml)).unwrap();
        let read: Settings = toml["source"]["json"]["map"].clone().try_into().unwrap();
        assert_eq!(read, map);
        let yaml: Value = serde_saphyr::from_str(&table(&map, Language::Yaml)).unwrap();
        assert_eq!(serde_json::from_value::<Settings>(yaml["source"]["json"]["map"].clone()).unwrap(), map);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_of_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("empty.jsonl");
        assert!(matches!(propose(&file), Err(NotTried::Environment(_))));
        std::fs::write(&file, "\n").unwrap();
        assert!(matches!(propose(&file), Err(NotTried::Environment(_))));
    }
}
