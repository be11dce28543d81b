//! A page in Markdown, as far as its commands, blocks, marks, tables and links go.
//!
//! A mark is an HTML comment on a line of its own, which no reader sees. Directly above a block it says how the block is
//! checked (`docs::blocks`, `docs::session`); elsewhere it is an item of its own.

use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page of the repository.
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A part of a page, and the line where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// The text between fences.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) language: String,
    /// The opening fence.
    pub(crate) fence: Part,
    /// The mark above the fence, without its brackets.
    pub(crate) mark: String,
    pub(crate) lines: Vec<Part>,
}

/// A part of a page that a test acts on, in the order of the page.
pub(crate) enum Item {
    Block(Block),
    /// A mark that stands alone.
    Mark(Part),
}

impl Block {
    pub(crate) fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{}\n", line.text)).collect()
    }

    /// Returns the commands of a block for a shell, unless a mark gives the block to a session.
    fn commands(&self) -> Vec<Part> {
        let is_shell = ["sh", "console"].contains(&self.language.as_str());
        if is_shell && self.mark.is_empty() { joined(&self.lines) } else { Vec::new() }
    }
}

impl Page {
    /// Reads a page of the repository by its path.
    pub(crate) fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), text }
    }

    pub(crate) fn place(&self, part: &Part) -> String {
        format!("{}:{}: `{}`", self.name, part.line, part.text)
    }

    fn lines(&self) -> impl Iterator<Item = Part> {
        self.text.lines().zip(1..).map(|(text, line)| Part { line, text: text.to_owned() })
    }

    /// Returns the items, and the prose lines between them.
    fn parse(&self) -> (Vec<Item>, Vec<Part>) {
        let (mut items, mut prose) = (Vec::new(), Vec::new());
        let (mut open, mut mark) = (None::<Block>, None::<Part>);
        for line in self.lines() {
            if let Some(block) = &mut open {
                if line.text.starts_with("```") {
                    items.extend(open.take().map(Item::Block));
                } else {
                    block.lines.push(line);
                }
                continue;
            }
            if let Some(language) = line.text.strip_prefix("```") {
                let mark = mark.take().map_or_else(String::new, |mark| mark.text);
                open = Some(Block { language: language.to_owned(), fence: line, mark, lines: Vec::new() });
                continue;
            }
            items.extend(mark.take().map(Item::Mark));
            match line.text.strip_prefix("<!-- ").and_then(|text| text.strip_suffix(" -->")) {
                Some(text) => mark = Some(Part { line: line.line, text: text.to_owned() }),
                None => prose.push(line),
            }
        }
        items.extend(mark.map(Item::Mark));
        assert!(open.is_none(), "{}: a block without an end", self.name);
        (items, prose)
    }

    pub(crate) fn items(&self) -> Vec<Item> {
        self.parse().0
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let block = |item| if let Item::Block(block) = item { Some(block) } else { None };
        self.items().into_iter().filter_map(block).collect()
    }

    /// Returns the code spans outside of blocks. A span can continue on the next line.
    pub(crate) fn spans(&self) -> Vec<Part> {
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

    /// Returns every command: the lines of blocks for a shell, and the code spans that look like one.
    /// A block that a session runs counts as checked there.
    pub(crate) fn commands(&self) -> Vec<Part> {
        let mut commands: Vec<Part> = self.blocks().iter().flat_map(Block::commands).collect();
        commands.extend(self.spans().into_iter().filter(|span| is_command(&span.text)));
        commands
    }

    /// Returns the rows of the table whose header begins with these cells.
    pub(crate) fn table(&self, header: &str) -> Vec<Vec<String>> {
        let cells = |line: &Part| -> Vec<String> {
            line.text.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let lines = self.lines().skip_while(|line| !line.text.starts_with(header)).skip(2);
        let rows: Vec<_> = lines.take_while(|line| line.text.starts_with('|')).map(|line| cells(&line)).collect();
        assert!(!rows.is_empty(), "{}: there is no table `{header}`", self.name);
        rows
    }

    /// Returns the targets of the page's links to files: the link, the file and the anchor.
    pub(crate) fn links(&self) -> Vec<(Part, PathBuf, Option<String>)> {
        let link = regex::Regex::new(r"\]\(([^)\s]+)\)").unwrap();
        let mut links = Vec::new();
        for line in self.parse().1 {
            for target in link.captures_iter(&line.text).map(|captures| captures[1].to_owned()) {
                if target.contains("://") {
                    continue;
                }
                let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
                let file = if path.is_empty() {
                    root().join(&self.name)
                } else {
                    root().join(&self.name).with_file_name(path)
                };
                let anchor = (!anchor.is_empty()).then(|| anchor.to_owned());
                links.push((Part { line: line.line, text: target.clone() }, file, anchor));
            }
        }
        links
    }

    /// Returns the anchors of a text's headings.
    pub(crate) fn anchors(text: &str) -> Vec<String> {
        let headings =
            text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
        let anchor = |heading: &str| -> String {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
        };
        headings.map(anchor).collect()
    }
}

/// Returns the commands of a shell's lines, without comments. A line that ends in `\` continues on the next.
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
pub(crate) fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Programs whose name is a command if an argument follows.
const PROGRAMS: [&str; 11] = [
    "mdbook",
    "propulsiond",
    "cargo",
    "curl",
    "docker",
    "kubectl",
    "systemctl",
    "sqlite3",
    "rustup",
    "fuzz/run",
    "kill",
];

fn is_command(span: &str) -> bool {
    let mut words = span.split_whitespace().peekable();
    let Some(first) = words.peek().copied() else { return false };
    let Some(program) = words.find(|word| !is_assignment(word)) else { return is_assignment(first) };
    PROGRAMS.contains(&program) && words.next().is_some() || is_program(program)
}

/// Returns whether a word names a program of the repository.
pub(crate) fn is_program(word: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let file = root().join(word);
    word.contains('/') && file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
