//! Reads a runbook and names every mistake in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::hints::{distance, nearest};
use super::matching::Promise;
use super::plan::{Plan, PlanError};
use super::shell::{self, KNOWN_VARIABLES};

/// How long a probe is repeated when its remark names no limit.
pub const DEFAULT_PROBE_LIMIT: Duration = Duration::from_secs(60);

/// The fence whose content is executed.
const CONSOLE: &str = "console";
/// The fences that may stand in a runbook.
const FENCES: &[&str] = &[CONSOLE, "text", "toml", "caddyfile"];
const FENCE_HINT: &str = "commands that are executed stand in `console` with `$ ` before each; \
     `text`, `toml` and `caddyfile` are illustrations";
const VARIABLES: &str = "Variables";
const RESULTS: &str = "Results";
const VARIABLES_HEADER: &[&str] = &["name", "default", "meaning"];
const RESULTS_HEADER: &[&str] = &["name", "meaning"];

/// A document that a person follows by hand and that is executed; see the module for its format.
#[derive(Debug, Clone)]
pub struct Runbook {
    name: String,
    title: String,
    variables: Vec<Variable>,
    results: Vec<ResultVariable>,
    steps: Vec<Step>,
}

/// A variable that the table `Variables` declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its default; nothing when a value is required.
    pub default: Option<String>,
    /// What it means, without markup.
    pub meaning: String,
    /// The line of its row.
    pub line: usize,
}

/// A shell variable that is set when the runbook has ended, from the table `Results`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultVariable {
    /// Its name.
    pub name: String,
    /// What it means, without markup.
    pub meaning: String,
    /// The line of its row.
    pub line: usize,
}

/// A section of the document with the commands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1.
    pub number: usize,
    /// Its heading, without markup.
    pub title: String,
    /// The line of its heading.
    pub line: usize,
    /// What is run, in order. A section of prose has no commands.
    pub commands: Vec<Command>,
}

/// One command of a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Number of the step and number within it: `3.2`.
    pub number: String,
    /// The text for the shell, with its line breaks and without its remark.
    pub text: String,
    /// The exit code that the document promises.
    pub expected_exit: i32,
    /// The promised output; nothing when the output is not judged.
    pub promise: Option<Promise>,
    /// Set when the command is repeated until it does what is promised.
    pub probe: Option<Probe>,
    /// The line of its `$`.
    pub line: usize,
}

/// What a command is repeated for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The words of the remark after `until`.
    pub what: String,
    /// How long it is repeated at most.
    pub at_most: Duration,
}

impl Runbook {
    /// Reads the document `text`; `name` is its path or name in messages.
    ///
    /// # Errors
    ///
    /// [`RunbookError`] with every mistake of the document.
    pub fn parse(name: impl Into<String>, text: &str) -> Result<Self, RunbookError> {
        let name = name.into();
        let mut reader = Reader::new(&name, text);
        reader.read();
        reader.check_names();
        let Reader {
            title,
            variables,
            results,
            steps,
            mut problems,
            ..
        } = reader;
        if problems.is_empty() {
            let title = title.unwrap_or_default();
            return Ok(Self {
                name,
                title,
                variables,
                results,
                steps,
            });
        }
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(RunbookError { problems })
    }

    /// The path or name that [`Runbook::parse`] was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The heading of the document, without markup.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The declared variables, in the order of the document.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The declared results, in the order of the document.
    pub fn results(&self) -> &[ResultVariable] {
        &self.results
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Settles the variables with the values of `given`, and with the defaults of the document.
    ///
    /// # Errors
    ///
    /// [`PlanError`] with every required variable that is missing and every given name that the
    /// document does not declare.
    pub fn plan(&self, given: &BTreeMap<String, String>) -> Result<Plan, PlanError> {
        Plan::new(self, given)
    }
}

/// A mistake in a runbook; `Display` prints it with its place, its line and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path or name of the document.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The text that is wrong; empty when something is missing there.
    pub found: String,
    /// The whole line.
    pub source: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            found,
            source,
            message,
            hint,
        } = self;
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs stay tabs, so that the carets stand below what they mean.
        let indent: String = source
            .chars()
            .take(column - 1)
            .map(|c| if c == '\t' { c } else { ' ' })
            .collect();
        let width = found
            .lines()
            .next()
            .unwrap_or_default()
            .trim_end()
            .chars()
            .count()
            .max(1);
        writeln!(f, "error: {message}")?;
        writeln!(f, "{margin}--> {file}:{line}:{column}")?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {source}")?;
        writeln!(f, "{margin} | {indent}{}", "^".repeat(width))?;
        write!(f, "hint: {hint}")
    }
}

/// Every mistake of a runbook, in the order of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunbookError {
    problems: Vec<Problem>,
}

impl RunbookError {
    /// Every mistake; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for RunbookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for RunbookError {}

/// The section that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// Before the first `##`.
    Introduction,
    Variables,
    Results,
    Step,
}

/// A line of a fence, and where it stands in the document.
#[derive(Debug)]
struct FenceLine {
    text: String,
    /// Byte offset of its first character.
    at: usize,
}

/// A cell of a table.
#[derive(Debug, Default)]
struct Cell {
    /// Without markup.
    text: String,
    /// Set when the cell is one code span and nothing else.
    code: Option<String>,
    pieces: usize,
    at: Range<usize>,
}

#[derive(Debug)]
struct Table {
    header: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
    at: Range<usize>,
}

/// A use of a variable, to be judged when the whole document was read.
struct Use {
    name: String,
    at: usize,
    /// What the commands until this one set, this one included.
    set_so_far: usize,
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    /// Byte offsets of the starts of the lines.
    line_starts: Vec<usize>,
    title: Option<String>,
    section: Section,
    seen_sections: BTreeMap<&'static str, usize>,
    section_has_table: bool,
    section_at: Range<usize>,
    variables: Vec<Variable>,
    results: Vec<ResultVariable>,
    steps: Vec<Step>,
    /// Names in the order in which commands set them.
    sets: Vec<String>,
    uses: Vec<Use>,
    /// The rest of the document cannot be judged after a fence that never ends.
    cut_short: bool,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str, text: &'a str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            file,
            text,
            line_starts: std::iter::once(0).chain(breaks).collect(),
            title: None,
            section: Section::Introduction,
            seen_sections: BTreeMap::new(),
            section_has_table: false,
            section_at: 0..0,
            variables: Vec::new(),
            results: Vec::new(),
            steps: Vec::new(),
            sets: Vec::new(),
            uses: Vec::new(),
            cut_short: false,
            problems: Vec::new(),
        }
    }

    /// Line of a byte offset, from 1.
    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    fn problem(&mut self, at: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        let mut start = at.start.min(self.text.len());
        // A cell of a table includes the blanks around its text.
        let inside = &self.text[start..at.end.clamp(start, self.text.len())];
        if !inside.trim().is_empty() {
            start += inside.len() - inside.trim_start_matches([' ', '\t']).len();
        }
        let line = self.line(start);
        let line_start = self.line_starts[line - 1];
        let source = self.text[line_start..].lines().next().unwrap_or_default();
        let found = self.text[start..at.end.clamp(start, self.text.len())].trim_end();
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            column: self.text[line_start..start].chars().count() + 1,
            found: found.to_owned(),
            source: source.to_owned(),
            message: message.into(),
            hint: hint.into(),
        });
    }

    fn read(&mut self) {
        let text = self.text;
        let mut events = Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter();
        while let Some((event, at)) = events.next() {
            match event {
                Event::Start(Tag::Heading { level, .. }) => {
                    let mut title = String::new();
                    for (event, _) in events.by_ref() {
                        match event {
                            Event::Text(piece) | Event::Code(piece) => title.push_str(&piece),
                            Event::End(TagEnd::Heading(_)) => break,
                            _ => {}
                        }
                    }
                    self.heading(level, title.trim(), at);
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let lines = fence_lines(&mut events);
                    self.code_block(&kind, &lines, at);
                }
                Event::Start(Tag::Table(_)) => {
                    let table = read_table(&mut events, at);
                    self.table(&table);
                }
                _ => {}
            }
        }
        self.section_ends();
        if self.title.is_none() {
            self.problem(
                0..0,
                "the runbook has no title",
                "begin it with a line `# Title`",
            );
        }
        if !self.cut_short && self.steps.iter().all(|step| step.commands.is_empty()) {
            let end = self.text.trim_end().len();
            self.problem(
                end..end,
                "the runbook runs no command",
                "write a section `## Step` with a `console` fence and `$ command` in it",
            );
        }
    }

    fn heading(&mut self, level: HeadingLevel, title: &str, at: Range<usize>) {
        match level {
            HeadingLevel::H1 if self.title.is_none() => {
                if self.section != Section::Introduction {
                    self.problem(
                        at.clone(),
                        "the title stands after the first section",
                        "begin the document with it",
                    );
                }
                self.title = Some(title.to_owned());
            }
            HeadingLevel::H1 => self.problem(
                at,
                format!("second title `{title}`"),
                "a runbook has one `# Title`; write `## ` for a step",
            ),
            HeadingLevel::H2 => {
                self.section_ends();
                self.section_has_table = false;
                self.section_at = at.clone();
                let known = [(VARIABLES, Section::Variables), (RESULTS, Section::Results)];
                for (name, section) in known {
                    if title == name {
                        self.section = section;
                        let line = self.line(at.start);
                        if let Some(first) = self.seen_sections.insert(name, line) {
                            self.problem(
                                at,
                                format!("second section `{name}`"),
                                format!("the first is in line {first}; make them one"),
                            );
                        }
                        return;
                    }
                    if distance(&title.to_lowercase(), &name.to_lowercase()) <= 2 {
                        self.problem(
                            at.clone(),
                            format!("unknown section `{title}`"),
                            format!("did you mean `{name}`?"),
                        );
                    }
                }
                if title.is_empty() {
                    self.problem(
                        at.clone(),
                        "a step has no title",
                        "name what the step achieves",
                    );
                }
                self.section = Section::Step;
                self.steps.push(Step {
                    number: self.steps.len() + 1,
                    title: title.to_owned(),
                    line: self.line(at.start),
                    commands: Vec::new(),
                });
            }
            _ => {}
        }
    }

    fn section_ends(&mut self) {
        let (name, header) = match self.section {
            Section::Variables => (VARIABLES, VARIABLES_HEADER),
            Section::Results => (RESULTS, RESULTS_HEADER),
            Section::Introduction | Section::Step => return,
        };
        if !self.section_has_table {
            let columns = header.join(" | ");
            let rule = vec!["---"; header.len()].join(" | ");
            self.problem(
                self.section_at.clone(),
                format!("the section `{name}` has no table"),
                format!("write the lines `| {columns} |` and `| {rule} |`, then a line for each"),
            );
        }
    }

    fn code_block(&mut self, kind: &CodeBlockKind<'_>, lines: &[FenceLine], at: Range<usize>) {
        let first_line = at.start..at.start + self.text[at.start..].find('\n').unwrap_or(0);
        let CodeBlockKind::Fenced(info) = kind else {
            self.problem(
                first_line,
                "a code block without a fence",
                format!("indent prose less, or write a fence: {FENCE_HINT}"),
            );
            return;
        };
        let info: &str = info;
        if !is_closed(&self.text[at.clone()]) {
            self.cut_short = true;
            self.problem(
                at.start..at.start + fence_length(&self.text[at.start..]),
                "a fence is never closed",
                "close it with a line of the same characters; everything after it was read as part \
                 of it",
            );
            return;
        }
        let label = at.start + fence_length(&self.text[at.start..]);
        let label_at = match self.text[label..].find(info) {
            Some(blanks) => label + blanks..label + blanks + info.len(),
            None => label..label,
        };
        if !FENCES.contains(&info) {
            let word = info.split_whitespace().next().unwrap_or_default();
            let (message, hint) = if info.is_empty() {
                ("a fence has no label".to_owned(), FENCE_HINT.to_owned())
            } else if FENCES.contains(&word) {
                let more = info[word.len()..].trim();
                let hint = format!("write `{word}` alone; a fence has no options");
                (format!("unknown option `{more}` of a fence"), hint)
            } else {
                let hint = nearest(word, FENCES.iter().copied()).map_or_else(
                    || FENCE_HINT.to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                (format!("unknown fence `{info}`"), hint)
            };
            let at = if info.is_empty() {
                at.start..label
            } else {
                label_at
            };
            self.problem(at, message, hint);
            // Whatever was meant: with prompts in it, it is read for the mistakes in it.
            let near = nearest(word, [CONSOLE]).is_some();
            if word != CONSOLE && !near {
                return;
            }
        } else if info != CONSOLE {
            return;
        }
        if self.section != Section::Step {
            self.problem(
                at.start..label,
                "commands outside of a step",
                "put the fence below a heading `## Step` that says what it achieves",
            );
            return;
        }
        self.console(lines, at.start);
    }

    fn console(&mut self, lines: &[FenceLine], fence: usize) {
        let mut index = 0;
        let mut commands = 0;
        let mut complained = false;
        while index < lines.len() {
            let line = &lines[index];
            if line.text.trim().is_empty() {
                index += 1;
                continue;
            }
            if prompt(&line.text, '$').is_some() {
                index = self.command(lines, index);
                commands += 1;
                continue;
            }
            if !complained {
                complained = true;
                let hint = if line.text.starts_with('$') {
                    "write a blank after the `$`"
                } else if prompt(&line.text, '>').is_some() {
                    "a line with `> ` continues a command; begin the command with `$ `"
                } else if prompt(&line.text, '?').is_some() {
                    "a line with `? ` follows its command; begin the command with `$ `"
                } else {
                    "commands begin with `$ `; what they print stands below them"
                };
                let at = line.at..line.at + line.text.len();
                self.problem(at, "output before any command", hint);
            }
            index += 1;
        }
        if commands == 0 && !complained {
            self.problem(
                fence..fence + fence_length(&self.text[fence..]),
                "a `console` fence without a command",
                "write `$ command` in it, or remove it",
            );
        }
    }

    /// Reads the command at `index` and returns the index of the line after its promised output.
    fn command(&mut self, lines: &[FenceLine], index: usize) -> usize {
        let first = &lines[index];
        let mut source = vec![index];
        let mut next = index + 1;
        while next < lines.len() && prompt(&lines[next].text, '>').is_some() {
            source.push(next);
            next += 1;
        }
        let text = source
            .iter()
            .map(|index| lines[*index].text.get(2..).unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n");
        // A byte of `text` in the document: every line has lost its two characters of prompt.
        let place = |at: usize| {
            let before = &text[..at.min(text.len())];
            let line = before.matches('\n').count();
            let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
            lines[source[line]].at + 2 + column
        };

        let mut expected_exit = 0;
        if let Some(code) = lines.get(next).and_then(|line| prompt(&line.text, '?')) {
            let at = lines[next].at + 2..lines[next].at + lines[next].text.len().max(2);
            match code.trim().parse::<u8>() {
                Ok(code) => expected_exit = i32::from(code),
                Err(_) => self.problem(
                    at,
                    format!("`{}` is no exit code", code.trim()),
                    "write a number from 0 to 255 after the `?`",
                ),
            }
            next += 1;
        }
        let output = next;
        while next < lines.len() && prompt(&lines[next].text, '$').is_none() {
            let line = &lines[next];
            let at = line.at..line.at + line.text.len();
            let code = prompt(&line.text, '?').map(str::trim);
            if code.is_some_and(|code| code.parse::<u8>().is_ok()) {
                self.problem(
                    at,
                    "an exit code below promised output",
                    "write it directly below the command",
                );
            } else if line.text.len() > 1
                && line.text.starts_with('$')
                && line.text[1..].starts_with(|c: char| c.is_ascii_lowercase() || c == '/')
            {
                self.problem(
                    at,
                    format!(
                        "`{}` is neither a command nor likely to be output",
                        line.text.trim()
                    ),
                    "write a blank after the `$`, or `[..]` in its place where it is output",
                );
            }
            next += 1;
        }
        let promised: Vec<&str> = lines[output..next]
            .iter()
            .map(|line| line.text.as_str())
            .collect();
        let promise = Promise::new(&promised.join("\n"));

        let scan = shell::scan(&text);
        let start = first.at..first.at + first.text.len();
        let mut code = text.as_str();
        let mut probe = None;
        for comment in scan.comments.iter().filter(|comment| !comment.alone) {
            let remark = &text[comment.start..comment.end];
            let at = place(comment.start)..place(comment.start) + remark.len();
            let body = remark.trim_start_matches('#').trim();
            if comment.blanks < 2 {
                self.problem(
                    at,
                    format!("a comment `{remark}` in a command"),
                    "a remark stands after two blanks; anything else belongs into the prose",
                );
            } else if comment.end != text.len() {
                self.problem(
                    at,
                    format!("a remark `{remark}` in the middle of a command"),
                    "put it at the end of the last line of the command",
                );
            } else {
                match remark_probe(body) {
                    Ok(found) => probe = Some(found),
                    Err((message, hint)) => self.problem(at, message, hint),
                }
            }
            if comment.end == text.len() {
                code = text[..comment.start].trim_end_matches([' ', '\t']);
            }
        }
        if code.trim().is_empty() {
            self.problem(
                start,
                "an empty command",
                "write the command after the `$ `",
            );
        } else if let Some((at, what)) = scan.open {
            self.problem(
                place(at)..place(at) + 1,
                format!("a {what} is never closed"),
                "close it; further lines of a command begin with `> `",
            );
        } else if ends_in_backslash(code) {
            self.problem(
                place(code.len() - 1)..place(code.len() - 1) + 1,
                "a command ends in a backslash",
                "continue it in a line that begins with `> `",
            );
        }

        self.sets.extend(scan.sets);
        for (name, at) in scan.uses {
            self.uses.push(Use {
                name,
                at: place(at),
                set_so_far: self.sets.len(),
            });
        }
        let line = self.line(first.at);
        let text = code.to_owned();
        if let Some(step) = self.steps.last_mut() {
            let number = format!("{}.{}", step.number, step.commands.len() + 1);
            step.commands.push(Command {
                number,
                text,
                expected_exit,
                promise,
                probe,
                line,
            });
        }
        next
    }

    fn table(&mut self, table: &Table) {
        let (name, header) = match self.section {
            Section::Variables => (VARIABLES, VARIABLES_HEADER),
            Section::Results => (RESULTS, RESULTS_HEADER),
            Section::Introduction | Section::Step => return,
        };
        if self.section_has_table {
            self.problem(
                table.at.clone(),
                format!("second table in the section `{name}`"),
                "make them one",
            );
            return;
        }
        self.section_has_table = true;
        let columns: Vec<&str> = table.header.iter().map(|cell| cell.text.trim()).collect();
        if columns != header {
            let end = table.at.start + self.text[table.at.start..].find('\n').unwrap_or(0);
            self.problem(
                table.at.start..end,
                format!(
                    "the table of `{name}` has the columns `{}`",
                    columns.join(" | ")
                ),
                format!("write `| {} |`", header.join(" | ")),
            );
            return;
        }
        for row in &table.rows {
            self.row(row);
        }
    }

    fn row(&mut self, row: &[Cell]) {
        let Some(first) = row.first() else {
            return;
        };
        let line = self.line(first.at.start);
        let row_start = self.line_starts[line - 1];
        let row_end = row_start
            + self.text[row_start..]
                .lines()
                .next()
                .unwrap_or_default()
                .len();
        // Cells that are not there are padded by the reader of Markdown, so ask for their text.
        let Some(name) = first.code.clone() else {
            let text = first.text.trim();
            let at = if text.is_empty() {
                row_start..row_end
            } else {
                first.at.clone()
            };
            self.problem(
                at,
                format!("the name `{text}` is not in backticks"),
                "write the name of the variable in backticks, and nothing beside it",
            );
            return;
        };
        if !shell::is_name(&name) {
            self.problem(
                first.at.clone(),
                format!("`{name}` is no name of a shell variable"),
                "a name has letters, digits and `_`, and does not begin with a digit",
            );
            return;
        }
        if KNOWN_VARIABLES.contains(&name.as_str()) {
            self.problem(
                first.at.clone(),
                format!("the variable `{name}` belongs to the shell"),
                "choose another name",
            );
            return;
        }
        let variables = self
            .variables
            .iter()
            .map(|variable| (&variable.name, variable.line));
        let results = self
            .results
            .iter()
            .map(|result| (&result.name, result.line));
        let earlier = if self.section == Section::Variables {
            variables.into_iter().find(|(known, _)| **known == name)
        } else {
            results.into_iter().find(|(known, _)| **known == name)
        };
        if let Some((_, earlier)) = earlier {
            self.problem(
                first.at.clone(),
                format!("duplicate variable `{name}`"),
                format!("it stands in line {earlier} already; remove one of them"),
            );
            return;
        }
        let meaning = row
            .last()
            .map(|cell| cell.text.trim().to_owned())
            .unwrap_or_default();
        if meaning.is_empty() {
            self.problem(
                row_start..row_end,
                format!("the variable `{name}` has no meaning"),
                "say in the last column what it is; a `|` within a cell is written `\\|`",
            );
        }
        if self.section == Section::Results {
            self.results.push(ResultVariable {
                name,
                meaning,
                line,
            });
            return;
        }
        let default = match row.get(1) {
            Some(Cell {
                code: Some(default),
                ..
            }) => Some(default.clone()),
            Some(cell) if cell.text.trim() == "required" => None,
            other => {
                let text = other
                    .map(|cell| cell.text.trim())
                    .unwrap_or_default()
                    .to_owned();
                let at = other
                    .map(|cell| cell.at.clone())
                    .unwrap_or(row_start..row_end);
                let hint = match nearest(&text, ["required"]) {
                    Some(near) => format!("did you mean `{near}`, without backticks?"),
                    None => "write the default in backticks, or the word `required`".to_owned(),
                };
                self.problem(
                    at,
                    format!("the default `{text}` of `{name}` is unclear"),
                    hint,
                );
                None
            }
        };
        self.variables.push(Variable {
            name,
            default,
            meaning,
            line,
        });
    }

    /// Judges the uses of variables, when all declarations and commands are known.
    fn check_names(&mut self) {
        let declared: BTreeSet<String> = self
            .variables
            .iter()
            .map(|variable| variable.name.clone())
            .collect();
        let mut reported = BTreeSet::new();
        for Use {
            name,
            at,
            set_so_far,
        } in std::mem::take(&mut self.uses)
        {
            let known = declared.contains(&name)
                || KNOWN_VARIABLES.contains(&name.as_str())
                || self.sets[..set_so_far].contains(&name);
            if known || !reported.insert(name.clone()) {
                continue;
            }
            let end = at + self.text[at..].find(&name).unwrap_or(0) + name.len();
            let names = declared
                .iter()
                .chain(&self.sets[..set_so_far])
                .map(String::as_str);
            let hint = if self.sets[set_so_far..].contains(&name) {
                "a later command sets it; set it before it is used".to_owned()
            } else if let Some(near) = nearest(&name, names) {
                format!("did you mean `{near}`?")
            } else {
                format!("declare `{name}` in the table `Variables`, or set it in a command before")
            };
            self.problem(at..end, format!("missing variable `{name}`"), hint);
        }
        if self.cut_short {
            return;
        }
        for result in self.results.clone() {
            if self.sets.contains(&result.name) || declared.contains(&result.name) {
                continue;
            }
            let start = self.line_starts[result.line - 1];
            let at = start + self.text[start..].find(&result.name).unwrap_or(0);
            let hint = match nearest(&result.name, self.sets.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("set it in a command: `$ {}=…`", result.name),
            };
            let end = at + result.name.len();
            self.problem(
                at..end,
                format!("no command sets the result `{}`", result.name),
                hint,
            );
        }
    }
}

/// What stands after the prompt `sign`: a sign and a blank, or the sign alone, because editors
/// remove blanks at the ends of lines.
fn prompt(line: &str, sign: char) -> Option<&str> {
    let rest = line.strip_prefix(sign)?;
    if rest.is_empty() {
        Some("")
    } else {
        rest.strip_prefix(' ')
    }
}

/// An odd number of backslashes at the end escapes the end of the line.
fn ends_in_backslash(text: &str) -> bool {
    (text.len() - text.trim_end_matches('\\').len()) % 2 == 1
}

/// Reads the words of a remark: `until it answers, at most 30 s`.
fn remark_probe(body: &str) -> Result<Probe, (String, String)> {
    let (verb, rest) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
    if verb != "until" {
        let hint = match nearest(verb, ["until"]) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                "the one remark is `# until …`; anything else belongs into the prose".to_owned()
            }
        };
        return Err((format!("unknown remark `{verb}`"), hint));
    }
    let rest = rest.trim();
    let limit_hint = "write it as `# until it answers, at most 30 s` (`ms`, `s` or `min`)";
    let (what, at_most) = match rest.rsplit_once(", at most ") {
        Some((what, limit)) => match parse_limit(limit.trim()) {
            Some(limit) => (what.trim(), limit),
            None => {
                let message = format!("unclear limit `{}` of a remark", limit.trim());
                return Err((message, limit_hint.to_owned()));
            }
        },
        None if rest.contains("at most") => {
            return Err((
                "a limit is not separated from its remark".into(),
                limit_hint.into(),
            ));
        }
        None => (rest, DEFAULT_PROBE_LIMIT),
    };
    if what.is_empty() {
        return Err(("a remark does not say what for".into(), limit_hint.into()));
    }
    Ok(Probe {
        what: what.to_owned(),
        at_most,
    })
}

fn parse_limit(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let limit = match text[digits..].trim() {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "min" => Duration::from_secs(number.checked_mul(60)?),
        _ => return None,
    };
    (!limit.is_zero()).then_some(limit)
}

/// Length of the run of fence characters at the start of `block`.
fn fence_length(block: &str) -> usize {
    let sign = block.chars().next().unwrap_or('`');
    block.chars().take_while(|c| *c == sign).count()
}

/// Whether a fenced block has its closing line; the Markdown reader closes it at the end of the
/// document without a word.
fn is_closed(block: &str) -> bool {
    let sign = block.chars().next().unwrap_or('`');
    let length = fence_length(block);
    let mut lines = block.trim_end().lines();
    let (Some(_), Some(last)) = (lines.next(), lines.next_back()) else {
        return false;
    };
    // Within a quotation or a list its lines are indented.
    let last = last.trim_start_matches(['>', ' ', '\t']);
    last.len() >= length && last.chars().all(|c| c == sign)
}

fn fence_lines<'a>(events: &mut impl Iterator<Item = (Event<'a>, Range<usize>)>) -> Vec<FenceLine> {
    let mut lines: Vec<FenceLine> = Vec::new();
    let mut complete = true;
    for (event, at) in events {
        match event {
            Event::Text(text) => {
                let mut offset = 0;
                for piece in text.split_inclusive('\n') {
                    if complete {
                        lines.push(FenceLine {
                            text: String::new(),
                            at: at.start + offset,
                        });
                    }
                    complete = piece.ends_with('\n');
                    if let Some(line) = lines.last_mut() {
                        line.text.push_str(piece.trim_end_matches('\n'));
                        if complete && line.text.ends_with('\r') {
                            line.text.pop();
                        }
                    }
                    offset += piece.len();
                }
            }
            Event::End(TagEnd::CodeBlock) => break,
            _ => {}
        }
    }
    lines
}

fn read_table<'a>(
    events: &mut impl Iterator<Item = (Event<'a>, Range<usize>)>,
    at: Range<usize>,
) -> Table {
    let mut table = Table {
        header: Vec::new(),
        rows: Vec::new(),
        at,
    };
    let mut row = Vec::new();
    let mut cell = Cell::default();
    for (event, at) in events {
        match event {
            Event::Start(Tag::TableCell) => {
                cell = Cell {
                    at,
                    ..Cell::default()
                }
            }
            Event::Code(text) => {
                cell.text.push_str(&text);
                cell.pieces += 1;
                cell.code = (cell.pieces == 1).then(|| text.to_string());
            }
            Event::Text(text) => {
                cell.text.push_str(&text);
                cell.pieces += 1;
                cell.code = None;
            }
            Event::SoftBreak | Event::HardBreak => cell.text.push(' '),
            Event::End(TagEnd::TableCell) => row.push(std::mem::take(&mut cell)),
            Event::End(TagEnd::TableHead) => table.header = std::mem::take(&mut row),
            Event::End(TagEnd::TableRow) => table.rows.push(std::mem::take(&mut row)),
            Event::End(TagEnd::Table) => break,
            _ => {}
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_says_what_for_and_for_how_long() {
        let probe = |body| remark_probe(body).map(|probe| (probe.what, probe.at_most));
        let seconds = Duration::from_secs;
        assert_eq!(
            probe("until it answers"),
            Ok(("it answers".into(), seconds(60)))
        );
        assert_eq!(
            probe("until it is up, at most 90 s"),
            Ok(("it is up".into(), seconds(90)))
        );
        assert_eq!(
            probe("until a, b, at most 2min"),
            Ok(("a, b".into(), seconds(120)))
        );
        for bad in [
            "until",
            "until x at most 3 s",
            "until x, at most soon",
            "until x, at most 0 s",
        ] {
            assert!(probe(bad).is_err(), "{bad}");
        }
        let (message, hint) = probe("untill it answers").expect_err("another verb");
        assert_eq!(message, "unknown remark `untill`");
        assert_eq!(hint, "did you mean `until`?");
    }

    #[test]
    fn a_fence_is_closed_by_its_own_characters_only() {
        assert!(is_closed("```console\n$ a\n```\n"));
        assert!(is_closed("~~~~text\n~~~\n~~~~"));
        assert!(!is_closed("```console\n$ a\n"));
        assert!(!is_closed("````text\n```\n"));
        assert!(!is_closed("```"));
        assert!(is_closed("```text\n```"));
    }
}
