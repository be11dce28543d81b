//! The report of an inspection, as text and JSON.

use super::Inspection;
use crate::config::document::Style;
use crate::connector::diagnosis::{Diagnosis, Remedy, Severity};

impl Inspection {
    /// Returns whether nothing remains to be done.
    pub(crate) fn is_fine(&self) -> bool {
        !self.diagnoses.iter().any(Diagnosis::remains)
    }

    /// Returns the diagnoses, the gravest first, and a summary as text.
    pub(crate) fn render(&self, style: Style) -> String {
        let used = self.holder.as_ref().map_or("not in use".to_owned(), |holder| format!("in use by {holder}"));
        let mut out = format!("data directory `{}`: {used}\n", self.data.display());
        for diagnosis in &self.diagnoses {
            out.push('\n');
            out.push_str(&render(diagnosis, style));
        }
        out + "\n" + self.summary().as_str() + "\n"
    }

    fn summary(&self) -> String {
        let count =
            |wanted: &dyn Fn(&Diagnosis) -> bool| self.diagnoses.iter().filter(|diagnosis| wanted(diagnosis)).count();
        let repaired = count(&|diagnosis| matches!(diagnosis.remedy, Remedy::Fixed(_)));
        let left = count(&Diagnosis::remains);
        let repairable = count(&|diagnosis| matches!(diagnosis.remedy, Remedy::Fix(_)));
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

    /// Returns the diagnoses as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "data_dir": self.data.display().to_string(),
            "used_by": self.holder,
            "fine": self.is_fine(),
            "findings": self.diagnoses.iter().map(to_json).collect::<Vec<_>>(),
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

fn render(diagnosis: &Diagnosis, style: Style) -> String {
    let paint = |code: &str, text: &str| match style {
        Style::Plain => text.to_owned(),
        Style::Colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
    };
    let (word, colour) = words(diagnosis.severity);
    let mut lines = vec![
        format!("{}: {}", paint(colour, word), printable(&diagnosis.what)),
        format!("  {} {}", paint("1;34", "-->"), printable(&diagnosis.path.display().to_string())),
        format!("  = it means: {}", printable(&diagnosis.means)),
    ];
    match &diagnosis.remedy {
        Remedy::None => {}
        Remedy::Fix(what) => lines.push(format!("  = {}: {what}", paint("1;32", "--fix"))),
        Remedy::Fixed(what) => lines.push(format!("  = {}: {what}", paint("1;32", "repaired"))),
        Remedy::Operator(what) => {
            let label = if diagnosis.remains() { "to do" } else { "optional" };
            lines.push(format!("  = {label}: {}", printable(what)));
        }
    }
    lines.join("\n") + "\n"
}

/// Replaces control characters: names from files may hold commands for a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn to_json(diagnosis: &Diagnosis) -> serde_json::Value {
    serde_json::json!({
        "severity": diagnosis.severity,
        "path": diagnosis.path.display().to_string(),
        "what": diagnosis.what,
        "means": diagnosis.means,
        "remedy": diagnosis.remedy,
        "remains": diagnosis.remains(),
    })
}
