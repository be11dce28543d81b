//! The report of an inspection, as text and JSON.

use super::Diagnosis;
use crate::config::document::Style;
use crate::connector::diagnosis::{Finding, Remedy, Severity};

impl Diagnosis {
    /// Returns whether nothing remains to be done.
    pub fn is_fine(&self) -> bool {
        !self.findings.iter().any(Finding::remains)
    }

    /// Returns the findings, the gravest first, and a summary as text.
    pub fn render(&self, style: Style) -> String {
        let used = self.holder.as_ref().map_or("not in use".to_owned(), |holder| format!("in use by {holder}"));
        let mut out = format!("data directory `{}`: {used}\n", self.data.display());
        for finding in &self.findings {
            out.push('\n');
            out.push_str(&render(finding, style));
        }
        out + "\n" + self.summary().as_str() + "\n"
    }

    fn summary(&self) -> String {
        let count = |wanted: &dyn Fn(&Finding) -> bool| self.findings.iter().filter(|finding| wanted(finding)).count();
        let repaired = count(&|finding| matches!(finding.remedy, Remedy::Fixed(_)));
        let left = count(&Finding::remains);
        let repairable = count(&|finding| matches!(finding.remedy, Remedy::Fix(_)));
        let mut parts = Vec::new();
        if repaired > 0 {
            parts.push(format!("{repaired} repaired"));
        }
        parts.push(if left == 0 { "nothing left to do".to_owned() } else { format!("{left} left to do") });
        if repairable > 0 {
            parts.push(format!(
                "{repairable} that `propulsiond doctor --fix` repairs{}",
                if self.holder.is_some() { ", once the daemon is stopped" } else { "" }
            ));
        }
        parts.join(", ")
    }

    /// Returns the findings as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "data_dir": self.data.display().to_string(),
            "used_by": self.holder,
            "fine": self.is_fine(),
            "findings": self.findings.iter().map(to_json).collect::<Vec<_>>(),
        })
    }
}

fn words(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Note => ("note", "1;36"),
        Severity::Warning => ("warning", "1;33"),
        Severity::Error => ("error", "1;31"),
    }
}

fn render(finding: &Finding, style: Style) -> String {
    let paint = |code: &str, text: &str| match style {
        Style::Plain => text.to_owned(),
        Style::Colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
    };
    let (word, colour) = words(finding.severity);
    let mut lines = vec![
        format!("{}: {}", paint(colour, word), printable(&finding.what)),
        format!("  {} {}", paint("1;34", "-->"), printable(&finding.path.display().to_string())),
        format!("  = it means: {}", printable(&finding.means)),
    ];
    match &finding.remedy {
        Remedy::None => {}
        Remedy::Fix(what) => lines.push(format!("  = {}: {what}", paint("1;32", "--fix"))),
        Remedy::Fixed(what) => lines.push(format!("  = {}: {what}", paint("1;32", "repaired"))),
        Remedy::Operator(what) => lines.push(format!("  = to do: {}", printable(what))),
    }
    lines.join("\n") + "\n"
}

/// Replaces control characters: names from files may hold commands for a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn to_json(finding: &Finding) -> serde_json::Value {
    serde_json::json!({
        "severity": finding.severity,
        "path": finding.path.display().to_string(),
        "what": finding.what,
        "means": finding.means,
        "remedy": finding.remedy,
        "remains": finding.remains(),
    })
}
