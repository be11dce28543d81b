//! The `[filter]` of a pipeline: its selection of streams and events.
//!
//! A value passes if an entry of its inclusion list matches, or that list is empty, and no entry of its exclusion list
//! matches. Exclusion comes last (spec/core.md §4.3). An entry is the exact name, or `/regex/`, which matches anywhere
//! in the name.

use hashbrown::HashSet;
use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::scalar::Text;
use crate::event::{Event, Kind, category};

/// The maximum size of a compiled pattern.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// `[filter]`: selects the streams and events of the pipeline. Without it, all pass.
///
/// An entry is the exact name, or `/regex/`, which matches anywhere in the name. The `exclude_…` lists win over the
/// others. Excluded events count as handled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Filter")]
pub struct Settings {
    /// Includes only streams of these categories, such as `["order"]`. A category is the part of the name before the
    /// first `-`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<Text>,
    /// Excludes streams of these categories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_categories: Vec<Text>,
    /// Includes only streams of these names, such as `["order-17", "/^invoice-2026/"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Text>,
    /// Excludes streams of these names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_streams: Vec<Text>,
    /// Includes only events of these types. The others count as handled and leave no gap.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Text>,
    /// Excludes events of these types, such as `["/Viewed$/"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_events: Vec<Text>,
    /// Includes system streams (`$…`). Otherwise a system stream passes only if an entry names it with its `$`.
    pub system: bool,
}

/// The error of an invalid entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEntry {
    /// The key of its list.
    pub list: &'static str,
    pub index: usize,
    pub why: String,
    pub help: Option<String>,
}

/// The decision on an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterMatch {
    Keep,
    /// Its stream does not pass.
    DropStream,
    /// Its stream passes and its type does not: a placeholder keeps its index.
    DropType,
}

/// A compiled [`Settings`].
#[derive(Clone, Debug, Default)]
pub struct Filter {
    categories: Rule,
    streams: Rule,
    events: Rule,
    system: bool,
}

impl Filter {
    /// Compiles the settings.
    /// # Errors
    /// Every invalid entry.
    pub fn compile(settings: &Settings) -> Result<Self, Vec<BadEntry>> {
        let mut bad = Vec::new();
        let mut rule = |lists: [(&'static str, &[Text]); 2]| {
            let [allow, deny] = lists.map(|(list, entries)| Patterns::compile(list, entries, &mut bad));
            Rule { allow, deny }
        };
        let filter = Self {
            categories: rule([
                ("categories", &settings.categories),
                ("exclude_categories", &settings.exclude_categories),
            ]),
            streams: rule([("streams", &settings.streams), ("exclude_streams", &settings.exclude_streams)]),
            events: rule([("events", &settings.events), ("exclude_events", &settings.exclude_events)]),
            system: settings.system,
        };
        if bad.is_empty() { Ok(filter) } else { Err(bad) }
    }

    /// Returns the entries of each inclusion list that can match nothing that passes. A regular expression is judged
    /// only by an identical excluded one.
    pub fn dead_entries(&self, settings: &Settings) -> Vec<(&'static str, Vec<Option<BadEntry>>)> {
        let lists: [(_, &[Text], &[Text], &Rule); 3] = [
            ("categories", &settings.categories, &settings.exclude_categories, &self.categories),
            ("streams", &settings.streams, &settings.exclude_streams, &self.streams),
            ("events", &settings.events, &settings.exclude_events, &self.events),
        ];
        let of_list = |(list, allowed, denied, rule): (&'static str, &[Text], &[Text], &Rule)| {
            let reason = |entry: &Text| match () {
                () if entry.is_hole() => None,
                () if denied.iter().any(|denied| **denied == **entry) => {
                    Some(format!("`exclude_{list}` excludes `{}` as well", entry.written()))
                }
                () if entry.starts_with('/') => None,
                () if rule.deny.matches(entry) => Some(format!("an entry of `exclude_{list}` excludes this name")),
                () if list == "streams" && !self.categories.passes(category(entry)) => {
                    let name = if entry.has_references() { entry.written() } else { category(entry) };
                    Some(format!("no stream of the category `{name}` passes"))
                }
                () => None,
            };
            let dead = allowed
                .iter()
                .enumerate()
                .map(|(index, entry)| reason(entry).map(|why| BadEntry { list, index, why, help: None }));
            (list, dead.collect())
        };
        lists.into_iter().filter(|(_, allowed, ..)| !allowed.is_empty()).map(of_list).collect()
    }

    /// Returns whether the stream passes.
    pub fn stream(&self, name: &str) -> bool {
        if self.is_hidden_system(name) {
            return false;
        }
        (self.categories.is_empty() || self.categories.passes(category(name))) && self.streams.passes(name)
    }

    fn is_hidden_system(&self, name: &str) -> bool {
        name.starts_with('$')
            && !self.system
            && !self.streams.allow.names_system(name)
            && !self.categories.allow.names_system(category(name))
    }

    fn names_nothing(&self) -> bool {
        [&self.categories, &self.streams, &self.events].into_iter().all(Rule::is_empty)
    }

    /// Returns the filter by stream and category alone.
    pub fn without_types(&self) -> Self {
        Self { events: Rule::default(), ..self.clone() }
    }

    /// Returns whether the event type passes.
    pub fn event(&self, event_type: &str) -> bool {
        self.events.passes(event_type)
    }

    /// Decides on an event. Malformed records pass: the error policy decides on them.
    pub fn decide(&self, event: &Event) -> FilterMatch {
        match event.kind() {
            Kind::Malformed => FilterMatch::Keep,
            _ if self.names_nothing() && !event.stream_bytes().starts_with(b"$") => FilterMatch::Keep,
            _ if !self.stream(event.stream()) => FilterMatch::DropStream,
            Kind::Placeholder => FilterMatch::Keep,
            Kind::Event | Kind::Unfold if self.event(event.event_type()) => FilterMatch::Keep,
            Kind::Event | Kind::Unfold => FilterMatch::DropType,
        }
    }
}

/// The inclusion and exclusion list of one dimension.
#[derive(Clone, Debug, Default)]
struct Rule {
    allow: Patterns,
    deny: Patterns,
}

impl Rule {
    fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    fn passes(&self, value: &str) -> bool {
        (self.allow.is_empty() || self.allow.matches(value)) && (self.deny.is_empty() || !self.deny.matches(value))
    }
}

/// One list of entries.
#[derive(Clone, Debug, Default)]
struct Patterns {
    exact: HashSet<Box<str>, foldhash::fast::FixedState>,
    regexes: Option<RegexSet>,
    /// The patterns that begin with a literal `$`.
    system: Vec<Regex>,
}

impl Patterns {
    fn compile(list: &'static str, entries: &[Text], bad: &mut Vec<BadEntry>) -> Self {
        let mut patterns = Self::default();
        let mut sources = Vec::new();
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.is_hole()) {
            match compile_entry(list, entry) {
                Ok(Entry::Exact) => {
                    patterns.exact.insert((**entry).into());
                }
                Ok(Entry::Regex(regex)) => {
                    sources.push(regex.as_str().to_owned());
                    if regex.as_str().trim_start_matches('^').starts_with(r"\$") {
                        patterns.system.push(regex);
                    }
                }
                Err((why, help)) => bad.push(BadEntry { list, index, why, help }),
            }
        }
        if !sources.is_empty() {
            match RegexSetBuilder::new(sources).size_limit(8 * MAX_PATTERN_BYTES).build() {
                Ok(set) => patterns.regexes = Some(set),
                Err(error) => bad.push(BadEntry { list, index: 0, why: reason(&error), help: None }),
            }
        }
        patterns
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.regexes.is_none()
    }

    fn matches(&self, value: &str) -> bool {
        (!self.exact.is_empty() && self.exact.contains(value))
            || self.regexes.as_ref().is_some_and(|set| set.is_match(value))
    }

    /// Returns whether an entry that begins with `$` matches.
    fn names_system(&self, value: &str) -> bool {
        (value.starts_with('$') && self.exact.contains(value)) || self.system.iter().any(|regex| regex.is_match(value))
    }
}

enum Entry {
    Exact,
    Regex(Regex),
}

fn compile_entry(list: &str, entry: &Text) -> Result<Entry, (String, Option<String>)> {
    // Help for an entry with a reference would show its value, which can be a secret.
    compile_text(list, entry).map_err(|(why, help)| (why, help.filter(|_| !entry.has_references())))
}

fn compile_text(list: &str, entry: &str) -> Result<Entry, (String, Option<String>)> {
    let is_category = list.ends_with("categories");
    let Some(rest) = entry.strip_prefix('/') else {
        return match entry {
            "" => Err(("an empty name matches nothing".to_owned(), None)),
            name if [".*", ".+", "^", "\\", "(?"].iter().any(|sign| name.contains(sign)) => {
                let help = format!("put a regular expression between slashes: `/{name}/`");
                Err(("this exact name looks like a regular expression".to_owned(), Some(help)))
            }
            name if is_category && name.trim_start_matches('-').contains('-') => {
                let help = format!("the category of `{name}` is `{}`", category(name));
                Err((
                    "a category ends before the first `-` of a stream's name, so this matches nothing".to_owned(),
                    Some(help),
                ))
            }
            _ => Ok(Entry::Exact),
        };
    };
    let pattern = match rest.strip_suffix('/') {
        Some("") | None => {
            let help = "a regular expression stands between two slashes: `/regex/`".to_owned();
            return Err(("the regular expression has no closing `/`".to_owned(), Some(help)));
        }
        Some(pattern) => pattern,
    };
    RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_BYTES)
        .build()
        .map(Entry::Regex)
        .map_err(|error| (format!("the regular expression does not compile: {}", reason(&error)), None))
}

/// Returns the reason alone, without the drawing that the parser adds.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large once compiled".to_owned(),
        error => {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::event::Assembler;
    use crate::position::Ordinal;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    /// Asserts which of the streams and types pass.
    fn check(filter: &str, streams: &[&str], types: &[&str], expected: &str) {
        let filter = Filter::compile(&settings(filter)).unwrap();
        let streams = streams.iter().filter(|name| filter.stream(name));
        let types = types.iter().filter(|name| filter.event(name));
        assert_eq!(streams.chain(types).copied().collect::<Vec<_>>().join(" "), expected);
    }

    const STREAMS: [&str; 5] = ["order-1", "order-2", "orderItem-1", "cart-1", "plain"];
    const TYPES: [&str; 3] = ["Placed", "Viewed", "Paid"];

    #[test]
    fn an_empty_filter_passes_all_but_system_streams() {
        check("", &["order-1", "plain", "$all", "$ce-order", "-x-1"], &TYPES, "order-1 plain -x-1 Placed Viewed Paid");
    }

    #[test]
    fn names_match_exactly_and_regexes_anywhere() {
        check("categories = ['order']", &STREAMS, &[], "order-1 order-2");
        check("categories = ['/order/']", &STREAMS, &[], "order-1 order-2 orderItem-1");
        check("streams = ['order-1', '/^c.*-1$/']", &STREAMS, &[], "order-1 cart-1");
        check("streams = ['/ORDER/']", &STREAMS, &[], "");
        check("events = ['Placed', '/^Pa/']", &[], &TYPES, "Placed Paid");
    }

    #[test]
    fn exclusion_wins_over_inclusion() {
        check("categories = ['order']\nexclude_categories = ['order']", &STREAMS, &[], "");
        check("categories = ['/^order/']\nexclude_streams = ['order-2']", &STREAMS, &[], "order-1 orderItem-1");
        check("exclude_categories = ['/^order/']", &STREAMS, &[], "cart-1 plain");
        check("exclude_events = ['Viewed']", &[], &TYPES, "Placed Paid");
    }

    #[test]
    fn a_stream_passes_by_category_and_by_name() {
        check("categories = ['order']\nstreams = ['/-1$/']", &STREAMS, &[], "order-1");
    }

    #[test]
    fn system_streams_pass_when_named_or_enabled() {
        let streams = ["$all", "$ce-order", "order-1"];
        check("system = true", &streams, &[], "$all $ce-order order-1");
        check("streams = ['$all']", &streams, &[], "$all");
        check("categories = ['$ce', 'order']", &streams, &[], "$ce-order order-1");
        check(r"streams = ['/^\$ce/']", &streams, &[], "$ce-order");
        check("streams = ['/e/', '/all/']", &streams, &[], "order-1");
        check("system = true\nexclude_streams = ['/^.all/']", &streams, &[], "$ce-order order-1");
    }

    #[test]
    fn a_decision_names_the_stream_or_the_type_and_keeps_malformed_records() {
        let filter = Filter::compile(&settings("categories = ['order']\nexclude_events = ['Viewed']")).unwrap();
        let event = |stream: &str, event_type: &str, kind| {
            Assembler::new(stream, event_type).build(kind, Ordinal::default(), 0).unwrap()
        };
        let verdicts = [
            event("order-1", "Placed", Kind::Event),
            event("order-1", "Viewed", Kind::Event),
            event("order-1", "Viewed", Kind::Unfold),
            event("order-1", "Viewed", Kind::Placeholder),
            event("cart-1", "Placed", Kind::Event),
            event("", "", Kind::Malformed),
        ]
        .map(|event| filter.decide(&event));
        use FilterMatch::{DropStream, DropType, Keep};
        assert_eq!(verdicts, [Keep, DropType, DropType, Keep, DropStream, Keep]);
    }

    fn check_dead(filter: &str, expected: &str) {
        let settings = settings(filter);
        let dead = Filter::compile(&settings).unwrap().dead_entries(&settings);
        let dead = dead.into_iter().flat_map(|(_, entries)| entries.into_iter().flatten());
        assert_eq!(dead.map(|bad| format!("{}[{}]", bad.list, bad.index)).collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn an_entry_that_can_match_nothing_is_reported() {
        check_dead("categories = ['order', 'cart']\nexclude_categories = ['/^ord/']", "categories[0]");
        check_dead("categories = ['/a/', '/b/']\nexclude_categories = ['/b/']", "categories[1]");
        check_dead("categories = ['order']\nstreams = ['cart-1', 'order-1', '/^x/']", "streams[0]");
        check_dead("exclude_categories = ['order']\nstreams = ['order-1', 'cart-1']", "streams[0]");
        check_dead("events = ['A']\nexclude_events = ['A']", "events[0]");
        check_dead("categories = ['order']\nexclude_categories = ['cart']\nexclude_streams = ['order-1']", "");
    }

    fn check_bad(filter: &str, expected: Expect) {
        let bad = Filter::compile(&settings(filter)).unwrap_err();
        let lines: Vec<_> = bad
            .iter()
            .map(|bad| format!("{}[{}]: {} ({})", bad.list, bad.index, bad.why, bad.help.as_deref().unwrap_or("-")))
            .collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn every_invalid_entry_gives_its_reason() {
        check_bad(
            r"categories = ['order-1', '']
              streams = ['/[/', 'ok', '/', '//', '/a(?=b)/']
              events = ['Order.*', '/(\w{1000}){1000}/']",
            expect![[r#"
                categories[0]: a category ends before the first `-` of a stream's name, so this matches nothing (the category of `order-1` is `order`)
                categories[1]: an empty name matches nothing (-)
                streams[0]: the regular expression does not compile: unclosed character class (-)
                streams[2]: the regular expression has no closing `/` (a regular expression stands between two slashes: `/regex/`)
                streams[3]: the regular expression has no closing `/` (a regular expression stands between two slashes: `/regex/`)
                streams[4]: the regular expression does not compile: look-around, including look-ahead and look-behind, is not supported (-)
                events[0]: this exact name looks like a regular expression (put a regular expression between slashes: `/Order.*/`)
                events[1]: the regular expression does not compile: it is too large once compiled (-)"#]],
        );
    }
}
