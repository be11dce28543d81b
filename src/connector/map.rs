//! `map`: the settings by which a source makes events of foreign records. Every source of JSON takes the same ones.

pub mod guess;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::{BadPart, BadSetting};
use super::prose::{names, sentences};
use crate::config::scalar::Text;
use crate::event::Indexes;
use crate::formats::map::{BadSyntax, Condition, Map, Parts, Pointer, RecordMap, Selection, Template};
use crate::formats::records::{Format, RecordFormat};

/// `map`: makes events of foreign records.
///
/// A value is a JSON pointer (`/issue/number`), a template (`issue-{/issue/number}`) or a constant. `{/a|/b|other}` takes
/// the first pointer with a value, or else the text `other`. A record that lacks a value is malformed. `^/a` points into
/// the record around an item of `each`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Map", extend("required" = ["stream", "type"]))]
pub struct Settings {
    /// The form of the records.
    pub format: Format,
    /// The separator of CSV, one character. Left out: a comma.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<Text>,
    /// The names of the columns of CSV whose files have no header.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Text>,
    /// The pointer of an array whose items are the records, such as `/items`; the empty text for a record that is an array.
    /// Left out: each record is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<Text>,
    /// The conditions that must all hold, such as `["/issue", "!/draft", "/action = opened | closed", "/level != debug"]`:
    /// present, absent, equal, not equal. Other records give no event.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Text>,
    /// The name of the stream, such as `issue-{/repository/full_name}-{/issue/number}`.
    pub stream: Text,
    /// The event type, such as `{/action|unknown}`.
    #[serde(rename = "type")]
    pub event_type: Text,
    /// The pointer of the index in the stream, an integer. Left out: the source numbers the records, with gaps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<Text>,
    /// The time: RFC 3339, a common variant of it, or a number since 1970, whose size tells its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Text>,
    /// The event id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// The correlation id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Text>,
    /// The causation id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation: Option<Text>,
    /// The pointer of the body, which is taken as it is; of several, `/after|/before`, the first that is not null. Left out:
    /// the whole record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Text>,
    /// The pointer of the metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Text>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: Format::Json,
            delimiter: None,
            columns: Vec::new(),
            each: None,
            when: Vec::new(),
            stream: Text::literal(""),
            event_type: Text::literal(""),
            index: None,
            time: None,
            id: None,
            correlation: None,
            causation: None,
            data: None,
            meta: None,
        }
    }
}

impl Settings {
    /// Returns the invalid settings, with their paths in the table of the source. Values that are holes are not judged.
    pub fn check(&self) -> Vec<BadSetting> {
        let mut compiler = Compiler::default();
        compiler.compile(self);
        compiler.bad
    }

    /// Compiles the settings.
    ///
    /// # Errors
    /// The first setting that is invalid, or refers to a missing variable.
    pub fn compile(&self) -> Result<RecordMap, BadSetting> {
        let mut compiler = Compiler::default();
        let compiled = compiler.compile(self);
        match compiler.bad.into_iter().next() {
            Some(bad) => Err(bad),
            None => compiled.ok_or_else(|| BadSetting::new(&["map"], "the mapping refers to a missing variable")),
        }
    }

    /// Returns the rule of the indexes. Records that `when` leaves out would be holes in a dense stream.
    pub fn indexes(&self) -> Indexes {
        if self.index.is_some() && self.when.is_empty() { Indexes::Dense } else { Indexes::Sparse }
    }

    /// Returns the form of the records, to follow "read".
    pub fn records(&self) -> &'static str {
        match self.format {
            Format::Json => "as JSON values, one a line",
            Format::Document => "as JSON values over any number of lines",
            Format::Csv => "as rows of CSV",
            Format::Text => "as lines of text",
        }
    }

    /// Returns sentences about the mapping, for `explain`. `numbers`: a sentence about the indexes if no record gives them.
    pub fn explained(&self, numbers: &str) -> String {
        let each = self.each.as_ref().map(|each| match each.written() {
            "" => "A record is an array, and each of its items is an event.".to_owned(),
            each => format!("Each item of the array `{each}` of a record is an event."),
        });
        let when = (!self.when.is_empty()).then(|| {
            let conditions = names(self.when.iter().map(Text::written), "and");
            format!("Only records with {conditions} are taken; the others count as handled.")
        });
        let made =
            format!("The stream is `{}` and the type is `{}`.", self.stream.written(), self.event_type.written());
        let index = match &self.index {
            Some(index) => format!("The record gives the index at `{}`.", index.written()),
            None => numbers.to_owned(),
        };
        let body = match (&self.data, self.format) {
            (Some(data), _) => {
                format!("The body of an event is the part of its record at `{}`, as it was read.", data.written())
            }
            (None, Format::Json | Format::Document) => {
                "The body of an event is its whole record, as it was read.".to_owned()
            }
            (None, Format::Csv) => "The body of an event is an object with the columns of its row.".to_owned(),
            (None, Format::Text) => "The body of an event is an object with its `line`.".to_owned(),
        };
        sentences([&*each.unwrap_or_default(), &*when.unwrap_or_default(), &*made, &*index, &*body])
    }
}

#[derive(Default)]
struct Compiler {
    bad: Vec<BadSetting>,
    unrolls: bool,
}

impl Compiler {
    /// Returns the mapping; `None` if a setting is invalid or unknown.
    fn compile(&mut self, settings: &Settings) -> Option<RecordMap> {
        self.unrolls = settings.each.is_some();
        let format = self.format(settings);
        let each = self.optional("each", &settings.each, Pointer::parse, |each| {
            each.is_around().then_some("`each` starts at the record: remove the `^`")
        });
        let mut when = Some(Vec::new());
        for (number, text) in settings.when.iter().enumerate() {
            let condition =
                self.parsed(&["when", &number.to_string()], text, Condition::parse, Condition::refers_around);
            when = when.zip(condition).map(|(mut when, condition)| {
                when.push(condition);
                when
            });
        }
        let stream = self.required("stream", &settings.stream);
        let event_type = self.required("type", &settings.event_type);
        let index = self.selection("index", &settings.index);
        let [time, id, correlation, causation] = [
            ("time", &settings.time),
            ("id", &settings.id),
            ("correlation", &settings.correlation),
            ("causation", &settings.causation),
        ]
        .map(|(key, text)| self.template(key, text));
        let [data, meta] =
            [("data", &settings.data), ("meta", &settings.meta)].map(|(key, text)| self.selection(key, text));
        let has_index = settings.index.is_some();
        let parts = Parts {
            each: each?,
            when: when?,
            stream: stream?,
            event_type: event_type?,
            index: index?,
            time: time?,
            id: id?,
            correlation: correlation?,
            causation: causation?,
            data: data?,
            meta: meta?,
        };
        Some(RecordMap { format: format?, map: Map::new(parts), has_index })
    }

    fn bad(&mut self, path: &[&str], why: impl Into<String>) -> &mut BadSetting {
        let path: Vec<_> = ["map"].iter().chain(path).copied().collect();
        self.bad.push(BadSetting::new(&path, why));
        self.bad.last_mut().expect("it was pushed just now")
    }

    fn format(&mut self, settings: &Settings) -> Option<RecordFormat> {
        let given = [("delimiter", settings.delimiter.is_some()), ("columns", !settings.columns.is_empty())];
        for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given && settings.format != Format::Csv) {
            let bad = self.bad(&[key], format!("`{key}` is for `format = \"csv\"`"));
            (bad.at, bad.help) = (BadPart::Key, Some("remove it, or write the format".to_owned()));
        }
        if let Some(number) = settings.columns.iter().position(|name| name.is_empty() && !name.is_hole()) {
            self.bad(&["columns", &number.to_string()], "a column needs a name");
        }
        let is_known = !settings.columns.iter().chain(&settings.delimiter).any(Text::is_hole);
        let delimiter =
            settings.delimiter.as_ref().filter(|text| !text.is_hole()).map_or(&b","[..], |text| text.as_bytes());
        let &[delimiter @ (b'\t' | b' '..=b'~')] = delimiter else {
            self.bad(&["delimiter"], "a separator is one ASCII character, such as `;` or a tab");
            return None;
        };
        if delimiter == b'"' {
            self.bad(&["delimiter"], "a quote cannot be the separator");
        }
        let columns = settings.columns.iter().map(|name| (**name).into()).collect();
        is_known.then_some(RecordFormat { format: settings.format, delimiter, columns })
    }

    /// Parses a text. `objection` finds reasons that its syntax does not show.
    fn parse<T>(
        &mut self,
        path: &[&str],
        text: &Text,
        parse: impl FnOnce(&str) -> Result<T, BadSyntax>,
        objection: impl FnOnce(&T) -> Option<&'static str>,
    ) -> Option<T> {
        if text.is_hole() {
            return None;
        }
        let parsed = parse(text).map_err(|bad| match text.has_references() {
            // The value of a reference can be a secret.
            true => format!("the value of `{}` is not valid here", text.written()),
            false => bad.to_string(),
        });
        match parsed {
            Ok(parsed) => match objection(&parsed) {
                Some(why) => {
                    self.bad(path, why);
                    None
                }
                None => Some(parsed),
            },
            Err(why) => {
                self.bad(path, why);
                None
            }
        }
    }

    fn parsed<T>(
        &mut self,
        path: &[&str],
        text: &Text,
        parse: impl FnOnce(&str) -> Result<T, BadSyntax>,
        refers_around: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let unrolls = self.unrolls;
        self.parse(path, text, parse, |parsed| {
            (!unrolls && refers_around(parsed))
                .then_some("`^` is the record around an item of `each`, which is not set")
        })
    }

    /// Parses a setting that may be left out. The outer `None`: it is invalid or unknown.
    fn optional<T>(
        &mut self,
        key: &str,
        text: &Option<Text>,
        parse: impl FnOnce(&str) -> Result<T, BadSyntax>,
        objection: impl FnOnce(&T) -> Option<&'static str>,
    ) -> Option<Option<T>> {
        match text {
            None => Some(None),
            Some(text) => self.parse(&[key], text, parse, objection).map(Some),
        }
    }

    fn template(&mut self, key: &str, text: &Option<Text>) -> Option<Option<Template>> {
        match text {
            None => Some(None),
            Some(text) => self.parsed(&[key], text, Template::parse, Template::refers_around).map(Some),
        }
    }

    fn selection(&mut self, key: &str, text: &Option<Text>) -> Option<Option<Selection>> {
        match text {
            None => Some(None),
            Some(text) => self.parsed(&[key], text, Selection::parse, Selection::refers_around).map(Some),
        }
    }

    fn required(&mut self, key: &str, text: &Text) -> Option<Template> {
        if text.is_empty() && !text.is_hole() {
            self.bad(&[key], format!("`{key}` is empty")).at = BadPart::Missing;
            return None;
        }
        self.parsed(&[key], text, Template::parse, Template::refers_around)
    }
}

#[cfg(test)]
mod tests;
