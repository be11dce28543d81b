//! A page in Markdown: its commands, blocks, tables and links.

use std::path::{Path, PathBuf};

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page of the repository.
pub(super) struct Page {
    name: &'static str,
    text: String,
}

/// A part of a page, and the line where it begins.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) line: usize,
    pub(super) text: String,
}

/// The text between fences.
pub(super) struct Block {
    pub(super) language: String,
    pub(super) lines: Vec<Part>,
}

impl Block {
    pub(super) fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{}\n", line.text)).collect()
    }
}

impl Page {
    pub(super) fn read(name: &'static str) -> Self {
        let text = std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, text }
    }

    pub(super) fn place(&self, part: &Part) -> String {
        format!("{}:{}: `{}`", self.name, part.line, part.text)
    }

    fn lines(&self) -> impl Iterator<Item = Part> {
        self.text.lines().zip(1..).map(|(text, line)| Part { line, text: text.to_owned() })
    }

    /// Returns the blocks, and the lines that are outside of any.
    fn parse(&self) -> (Vec<Block>, Vec<Part>) {
        let (mut blocks, mut prose, mut open) = (Vec::new(), Vec::new(), None::<Block>);
        for line in self.lines() {
            match (line.text.strip_prefix("```"), &mut open) {
                (Some(language), None) => open = Some(Block { language: language.to_owned(), lines: Vec::new() }),
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => block.lines.push(line),
                (None, None) => prose.push(line),
            }
        }
        assert!(open.is_none(), "{}: a block without an end", self.name);
        (blocks, prose)
    }

    pub(super) fn blocks(&self) -> Vec<Block> {
        self.parse().0
    }

    /// Returns the texts in backticks outside of blocks. One may continue on the next line.
    pub(super) fn spans(&self) -> Vec<Part> {
        let mut spans = Vec::new();
        let mut open = None::<Part>;
        for Part { line, text } in self.parse().1 {
            if text.trim().is_empty() {
                open = None;
                continue;
            }
            let mut pieces = text.split('`');
            let first = pieces.next().unwrap_or_default();
            if let Some(open) = &mut open {
                open.text = format!("{} {}", open.text, first.trim_start());
            }
            for piece in pieces {
                match open.take() {
                    Some(span) => spans.push(span),
                    None => open = Some(Part { line, text: piece.to_owned() }),
                }
            }
        }
        spans
    }

    /// Returns every command: the lines of shell blocks, and the texts in backticks that look like one.
    pub(super) fn commands(&self) -> Vec<Part> {
        let shell = |block: &Block| ["sh", "console"].contains(&block.language.as_str());
        let mut commands: Vec<Part> =
            self.blocks().iter().filter(|block| shell(block)).flat_map(|block| joined(&block.lines)).collect();
        commands.extend(self.spans().into_iter().filter(|span| is_command(&span.text)));
        commands
    }

    /// Returns the rows of the table whose header begins with these cells.
    pub(super) fn table(&self, header: &str) -> Vec<Vec<String>> {
        let cells = |line: &Part| -> Vec<String> {
            line.text.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let lines = self.lines().skip_while(|line| !line.text.starts_with(header)).skip(2);
        let rows: Vec<_> = lines.take_while(|line| line.text.starts_with('|')).map(|line| cells(&line)).collect();
        assert!(!rows.is_empty(), "{}: there is no table `{header}`", self.name);
        rows
    }

    /// Returns the targets of the page's links within the repository.
    pub(super) fn links(&self) -> Vec<(Part, PathBuf, Option<String>)> {
        let link = regex::Regex::new(r"\]\(([^)\s]+)\)").unwrap();
        let mut links = Vec::new();
        for line in self.parse().1 {
            for target in link.captures_iter(&line.text).map(|captures| captures[1].to_owned()) {
                if target.contains("://") {
                    continue;
                }
                let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
                let file =
                    if path.is_empty() { root().join(self.name) } else { root().join(self.name).with_file_name(path) };
                let anchor = (!anchor.is_empty()).then(|| anchor.to_owned());
                links.push((Part { line: line.line, text: target.clone() }, file, anchor));
            }
        }
        links
    }

    /// Returns the anchors of the headings.
    pub(super) fn anchors(text: &str) -> Vec<String> {
        let headings =
            text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
        let anchor = |heading: &str| -> String {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
        };
        headings.map(anchor).collect()
    }
}

/// Returns the commands of a shell's lines, without comments. A line that ends in `\` is joined with the next.
fn joined(lines: &[Part]) -> Vec<Part> {
    let mut commands = Vec::<Part>::new();
    let mut goes_on = false;
    for Part { line, text } in lines {
        let text = text.split(" #").next().unwrap_or_default().trim();
        let (text, more) = text.strip_suffix('\\').map_or((text, false), |text| (text.trim_end(), true));
        match commands.last_mut().filter(|_| goes_on) {
            Some(command) => command.text = format!("{} {text}", command.text),
            None if text.is_empty() || text.starts_with('#') => {}
            None => commands.push(Part { line: *line, text: text.to_owned() }),
        }
        goes_on = more;
    }
    commands
}

/// Returns whether a word sets a variable for a command.
pub(super) fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Programs that are commands if an argument follows.
const PROGRAMS: [&str; 10] =
    ["propulsiond", "cargo", "curl", "docker", "kubectl", "systemctl", "sqlite3", "rustup", "fuzz/run", "kill"];

fn is_command(span: &str) -> bool {
    let mut words = span.split_whitespace().peekable();
    let Some(first) = words.peek().copied() else { return false };
    let Some(program) = words.find(|word| !is_assignment(word)) else { return is_assignment(first) };
    PROGRAMS.contains(&program) && words.next().is_some() || is_program(program)
}

/// Returns whether a word names a program of the repository.
pub(super) fn is_program(word: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let file = root().join(word);
    word.contains('/') && file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
