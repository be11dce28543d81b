//! A pipeline in plain words: its source, handler, sink and progress, its promises for each event, the cost of a crash, the
//! reaction to each kind of failure, and every value with its origin.
//!
//! Every claim is one that the pipeline keeps ([`pipeline`](crate::pipeline), its error policy) or that a connector makes in
//! its phrases ([`kind`](crate::connector::kind)). References are shown as the file writes them, never their values (R63).

mod delivery;
mod errors;
mod flow;
mod limits;
mod progress;
mod subject;
mod values;

use serde::Serialize;

use crate::connector::prose::lines;
use crate::script::Script;
use crate::spec::Definition;

pub(crate) use delivery::Delivery;
use subject::Subject;
pub(crate) use values::Setting;

/// The explanation of a pipeline. It serialises to the output of `explain --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Explanation {
    pub name: String,
    pub file: String,
    /// The parts, one after the other, and the limits.
    pub words: Vec<Paragraph>,
    pub delivery: Delivery,
    /// Every effective value, in the order of the file's tables.
    pub values: Vec<Setting>,
}

/// Sentences about one part of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Paragraph {
    pub about: &'static str,
    pub text: String,
}

/// Explains a pipeline that passed the checks, with its script if that is known.
pub(crate) fn explain(definition: &Definition, script: Option<&Script>) -> Explanation {
    let subject = Subject::new(definition, script);
    let paragraph = |about, text| Paragraph { about, text };
    Explanation {
        name: definition.name().to_owned(),
        file: definition.loaded.file().display().to_string(),
        words: vec![
            paragraph("source", flow::source(&subject)),
            paragraph("filter", flow::filter(&subject)),
            paragraph("handler", flow::handler(&subject)),
            paragraph("sink", flow::sink(&subject)),
            paragraph("progress", progress::progress(&subject)),
            paragraph("limits", limits::limits(&subject)),
        ],
        delivery: delivery::delivery(&subject),
        values: values::values(&subject),
    }
}

/// The width of rendered text, in characters.
const WIDTH: usize = 110;
/// The part of the width that the name of a paragraph takes.
const LABEL: usize = 16;

impl Explanation {
    /// Returns the explanation as JSON.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an explanation is a tree of plain values")
    }

    /// Returns the explanation as text.
    pub(crate) fn render(&self) -> String {
        let mut out = format!("{} ({})\n", self.name, self.file);
        let part = |wanted: fn(&str) -> bool, label: bool| -> Vec<(&'static str, String)> {
            let parts = self.words.iter().filter(|paragraph| wanted(paragraph.about));
            parts.map(|paragraph| (if label { paragraph.about } else { "" }, paragraph.text.clone())).collect()
        };
        for (heading, paragraphs) in [
            ("Parts", part(|about| about != "limits", true)),
            ("Promises", self.delivery.promises()),
            ("Failures", self.delivery.failures()),
            ("Limits", part(|about| about == "limits", false)),
        ] {
            out.push_str(&format!("\n{heading}\n"));
            paragraphs.iter().for_each(|(about, text)| wrap(about, text, &mut out));
        }
        out.push_str("\nValues and their origin\n");
        out.push_str(&values::table(&self.values));
        out
    }
}

/// Appends text in lines that fit the width. The name of the paragraph stands beside the first one.
fn wrap(about: &str, text: &str, out: &mut String) {
    let indent = if about.is_empty() { 0 } else { LABEL };
    for (number, line) in lines(text, WIDTH - 2 - indent).iter().enumerate() {
        let label = if number == 0 { about } else { "" };
        out.push_str(&format!("  {label:indent$}{line}\n"));
    }
}

#[cfg(test)]
mod tests;
