//! What a pipeline file comes to, in plain words: what it reads, decides with and writes, where its progress is, what it
//! promises of each event, what a crash costs, what follows from each kind of failure, and every value with the place
//! that it comes from.
//!
//! Every claim here is one that the pipeline keeps ([`pipeline`](crate::pipeline), its error policy) or a connector makes
//! ([`Contract`](crate::source::Contract)). References are shown as they were written, never what they stand for (R63).

mod delivery;
mod errors;
mod flow;
mod limits;
mod progress;
mod subject;
mod values;

use serde::Serialize;

use crate::spec::Definition;

pub use delivery::{Delivery, Guarantee};
use subject::Subject;
pub use values::{Origin, Setting};

/// A pipeline, explained. Serialises to what `explain --json` answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    pub name: String,
    pub file: String,
    /// What it does, one part after the other, and how much of it at a time.
    pub words: Vec<Paragraph>,
    pub delivery: Delivery,
    /// Every value that has a say, in the order of the file's tables.
    pub values: Vec<Setting>,
}

/// Some sentences about one part of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Paragraph {
    pub about: &'static str,
    pub text: String,
}

/// Explains a pipeline that passed the checks.
pub fn explain(definition: &Definition) -> Explanation {
    let subject = Subject::new(definition);
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

/// How wide the text is for people, and how much of that the name of a paragraph takes.
const WIDTH: usize = 110;
const LABEL: usize = 16;

impl Explanation {
    /// Returns the explanation for machines.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an explanation is a tree of plain values")
    }

    /// Returns the explanation for people.
    pub fn render(&self) -> String {
        let mut out = format!("{} ({})\n", self.name, self.file);
        let part = |wanted: fn(&str) -> bool, label: bool| -> Vec<(&'static str, String)> {
            let parts = self.words.iter().filter(|paragraph| wanted(paragraph.about));
            parts.map(|paragraph| (if label { paragraph.about } else { "" }, paragraph.text.clone())).collect()
        };
        for (heading, paragraphs) in [
            ("What it does", part(|about| about != "limits", true)),
            ("What it promises", self.delivery.promises()),
            ("What follows from failures", self.delivery.failures()),
            ("How much at a time", part(|about| about == "limits", false)),
        ] {
            out.push_str(&format!("\n{heading}\n"));
            paragraphs.iter().for_each(|(about, text)| wrap(about, text, &mut out));
        }
        out.push_str("\nEvery value, and where it comes from\n");
        out.push_str(&values::table(&self.values));
        out
    }
}

/// Appends text in lines that fit, beside the name of what it is about.
fn wrap(about: &str, text: &str, out: &mut String) {
    let indent = if about.is_empty() { 2 } else { 2 + LABEL };
    let mut line = format!("  {about:LABEL$}").chars().take(indent).collect::<String>();
    let mut used = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used + length > WIDTH && used > indent {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(indent);
            used = indent;
        }
        line.push_str(word);
        line.push(' ');
        used += length + 1;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests;
