//! What the units say that run Conduit, and who their user is. Read as systemd reads them: systemd.syntax(7),
//! systemd.exec(5), sysusers.d(5).

use super::fact::Fact;
use crate::source::Source;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

/// One `Key=value` of a unit, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The section that it stands in, such as `Service`.
    pub section: String,
    /// The key.
    pub key: String,
    /// The value: continuation lines joined by a space, comments between them left out.
    pub value: Text,
    /// The file.
    pub source: Source,
}

/// A text that remembers where each of its bytes stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    text: String,
    at: Vec<usize>,
}

impl Text {
    fn push(&mut self, piece: &str, start: usize) {
        self.text.push_str(piece);
        self.at.extend(start..start + piece.len());
    }

    /// As it is understood.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where a part of it stands; it may reach over a continuation.
    fn span(&self, range: Range<usize>) -> Range<usize> {
        match (self.at.get(range.start), range.end.checked_sub(1)) {
            (Some(&start), Some(last)) if last >= range.start => {
                start..self.at.get(last).map_or(start, |&end| end + 1)
            }
            (Some(&start), _) => start..start,
            (None, _) => self.at.last().map_or(0..0, |&end| end + 1..end + 1),
        }
    }
}

/// A line that systemd would skip with a remark in the journal that nobody reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The line.
    pub span: Range<usize>,
    /// Why it is skipped.
    pub why: String,
}

/// Reads the assignments of one file.
pub fn assignments(source: &Source) -> (Vec<Assignment>, Vec<Skipped>) {
    let mut found = Vec::new();
    let mut skipped = Vec::new();
    let mut section: Option<String> = None;
    let mut lines = lines(source.text()).peekable();
    while let Some((start, line)) = lines.next() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let mut logical = Text::default();
        let mut piece = (start, line);
        // A comment between continued lines is left out, and does not end them.
        loop {
            let (at, text) = piece;
            let Some(continued) = text.strip_suffix('\\') else {
                logical.push(text, at);
                break;
            };
            logical.push(continued, at);
            logical.push(" ", at + continued.len());
            while lines
                .peek()
                .is_some_and(|(_, next)| next.trim_start().starts_with(['#', ';']))
            {
                lines.next();
            }
            match lines.next() {
                Some(next) => piece = next,
                None => break,
            }
        }
        let text = logical.as_str().trim();
        if let Some(name) = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = Some(name.to_owned());
            continue;
        }
        let whole = start..start + line.len();
        let Some((key, _)) = text.split_once('=') else {
            skipped.push(Skipped {
                span: whole,
                why: "it is neither a section nor `Key=value`".to_owned(),
            });
            continue;
        };
        let Some(section) = &section else {
            skipped.push(Skipped {
                span: whole,
                why: "it stands before any section".to_owned(),
            });
            continue;
        };
        let from = logical.as_str().find('=').map_or(0, |at| at + 1);
        let rest = &logical.as_str()[from..];
        let lead = rest.len() - rest.trim_start().len();
        let range = from + lead..from + rest.trim_end().len().max(lead);
        let value = Text {
            text: logical.as_str()[range.clone()].to_owned(),
            at: if range.is_empty() {
                Vec::new()
            } else {
                logical.at[range].to_vec()
            },
        };
        found.push(Assignment {
            section: section.clone(),
            key: key.trim().to_owned(),
            value,
            source: source.clone(),
        });
    }
    (found, skipped)
}

/// Lines with where they begin, without their ends.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |next, line| {
        let start = *next;
        *next += line.len();
        Some((start, line.trim_end_matches('\n').trim_end_matches('\r')))
    })
}

/// The words of a value as systemd takes them apart: quotes group, a backslash escapes. Escapes that stand for another
/// character are kept as they are written: no path or name of a site needs one.
fn words(value: &Text, source: &Source) -> Vec<Fact<String>> {
    let mut words = Vec::new();
    let mut word: Option<(String, usize)> = None;
    let mut quote = None;
    let mut escaped = false;
    let end_word =
        |word: &mut Option<(String, usize)>, end: usize, words: &mut Vec<Fact<String>>| {
            if let Some((text, start)) = word.take() {
                words.push(Fact::new(text, source, value.span(start..end)));
            }
        };
    for (at, character) in value.as_str().char_indices() {
        if !escaped && quote.is_none() && character.is_whitespace() {
            end_word(&mut word, at, &mut words);
            continue;
        }
        let (text, _) = word.get_or_insert_with(|| (String::new(), at));
        match (escaped, quote, character) {
            (true, ..) => {
                text.push(character);
                escaped = false;
            }
            (_, _, '\\') => escaped = true,
            (_, Some(open), close) if open == close => quote = None,
            (_, None, '"' | '\'') => quote = Some(character),
            _ => text.push(character),
        }
    }
    end_word(&mut word, value.as_str().len(), &mut words);
    words
}

/// What one unit says, its drop-ins applied.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The file's name, such as `conduit.service`.
    pub name: String,
    /// Whether somebody enables it: a unit without `[Install]` runs for a while only, when another asks for it.
    pub installed: bool,
    /// The program that it runs.
    pub program: Option<Fact<String>>,
    /// `User=`.
    pub user: Option<Fact<String>>,
    /// `Group=`.
    pub group: Option<Fact<String>>,
    /// `WorkingDirectory=`.
    pub working_directory: Option<Fact<String>>,
    /// `Environment=`, by name.
    pub environment: BTreeMap<String, Fact<String>>,
    /// `EnvironmentFile=`, without the `-` before it.
    pub environment_files: Vec<Fact<String>>,
    /// `ProtectSystem=`.
    pub protect_system: Option<Fact<String>>,
    /// What is writable, among it the directories that systemd makes.
    pub writable: Vec<Fact<String>>,
    /// What is not, whatever `writable` says.
    pub closed: Vec<Fact<String>>,
}

impl Unit {
    /// The value of `CONDUIT_CONFIG`.
    pub fn config(&self) -> Option<&Fact<String>> {
        self.environment.get("CONDUIT_CONFIG")
    }

    /// Whether Conduit is what it runs.
    pub fn runs_conduit(&self) -> bool {
        let named_so = |fact: &Fact<String>| {
            Path::new(&fact.value)
                .file_name()
                .is_some_and(|name| name == "conduit")
        };
        self.config().is_some() || self.program.as_ref().is_some_and(named_so)
    }

    /// An absolute form of a path that Conduit is given; `None` where nobody can know.
    pub fn resolve(&self, path: &str) -> Option<PathBuf> {
        if path.contains('%') {
            return None;
        }
        let path = Path::new(path);
        if path.is_absolute() {
            return Some(normal(path));
        }
        let directory = self.working_directory.as_ref()?.value.as_str();
        Path::new(directory)
            .is_absolute()
            .then(|| normal(&Path::new(directory).join(path)))
    }

    /// What keeps the server from writing below `path`: the place that says so; `None` if nothing does.
    pub fn forbids(&self, path: &Path) -> Option<Fact<String>> {
        let covers = |fact: &&Fact<String>| {
            let listed = fact.value.trim_start_matches(['-', '+']);
            listed.contains('%') || path.starts_with(normal(Path::new(listed)))
        };
        if let Some(closed) = self.closed.iter().find(covers) {
            return Some(closed.clone());
        }
        if self.writable.iter().any(|fact| covers(&fact)) {
            return None;
        }
        let protect = self.protect_system.as_ref()?;
        let below = |roots: &[&str]| roots.iter().any(|root| path.starts_with(root));
        let read_only = match protect.value.as_str() {
            "strict" => !below(&["/dev", "/proc", "/sys"]),
            "full" => below(&["/usr", "/boot", "/efi", "/etc"]),
            yes if is_true(yes) => below(&["/usr", "/boot", "/efi"]),
            _ => false,
        };
        // What was meant to be writable explains more than what makes the rest read-only.
        read_only.then(|| self.writable.first().unwrap_or(protect).clone())
    }
}

/// A boolean as systemd reads it.
fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"]
        .iter()
        .any(|yes| yes.eq_ignore_ascii_case(value))
}

/// A path without `.` and `..`, by its letters alone.
pub fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts
}

/// The units among the sources, drop-ins applied to whom they belong to; and what systemd would skip in each.
pub fn read(sources: &[&Source]) -> (Vec<Unit>, Vec<(Source, Skipped)>) {
    let mut skipped = Vec::new();
    let mut units: Vec<(String, Vec<Assignment>)> = Vec::new();
    let mut drop_ins: Vec<(String, String, Vec<Assignment>)> = Vec::new();
    for source in sources {
        let (found, lost) = assignments(source);
        skipped.extend(lost.into_iter().map(|lost| ((*source).clone(), lost)));
        let path = Path::new(source.name());
        let file = |path: &Path| {
            path.file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        };
        let directory = path.parent().map(file).unwrap_or_default();
        match directory.strip_suffix(".d") {
            Some(owner) if file(path).ends_with(".conf") => {
                drop_ins.push((owner.to_owned(), file(path), found));
            }
            _ => units.push((file(path), found)),
        }
    }
    // systemd applies them in the order of their names, wherever they lie.
    drop_ins.sort_by(|one, other| one.1.cmp(&other.1));
    for (owner, _, found) in drop_ins {
        let mut applied = false;
        for (name, assignments) in &mut units {
            if *name == owner || (owner == "service" && name.ends_with(".service")) {
                assignments.extend(found.iter().cloned());
                applied = true;
            }
        }
        if !applied {
            units.push((owner, found));
        }
    }
    let units = units
        .into_iter()
        .map(|(name, assignments)| unit(name, &assignments))
        .filter(Unit::runs_conduit)
        .collect();
    (units, skipped)
}

fn unit(name: String, assignments: &[Assignment]) -> Unit {
    let mut unit = Unit {
        name,
        installed: false,
        program: None,
        user: None,
        group: None,
        working_directory: None,
        environment: BTreeMap::new(),
        environment_files: Vec::new(),
        protect_system: None,
        writable: Vec::new(),
        closed: Vec::new(),
    };
    // Each list by its own key, because an empty assignment empties that list alone.
    let mut lists: BTreeMap<&str, Vec<Fact<String>>> = BTreeMap::new();
    let mut dynamic: Option<Fact<String>> = None;
    for assignment in assignments {
        let Assignment {
            section,
            key,
            value,
            source,
        } = assignment;
        if section == "Install" {
            unit.installed = true;
        }
        if section != "Service" {
            continue;
        }
        let whole = || {
            let text = value.as_str();
            (!text.is_empty())
                .then(|| Fact::new(text.to_owned(), source, value.span(0..text.len())))
        };
        match key.as_str() {
            "User" => unit.user = whole(),
            "Group" => unit.group = whole(),
            "WorkingDirectory" => {
                unit.working_directory = whole().map(|fact| {
                    let path = fact.value.trim_start_matches('-').to_owned();
                    let skip = fact.value.len() - path.len();
                    let span = value.span(skip..fact.value.len());
                    Fact::new(path, source, span)
                });
            }
            "ProtectSystem" => unit.protect_system = whole(),
            "DynamicUser" => dynamic = whole().filter(|fact| is_true(&fact.value)),
            "ExecStart" => {
                // Of several the last that is not empty: a drop-in must empty the list first, and Type=exec takes one.
                unit.program = words(value, source).into_iter().next().map(|word| {
                    let path = word
                        .value
                        .trim_start_matches(['@', '-', ':', '+', '!', '|'])
                        .to_owned();
                    let start = word.span.start + (word.value.len() - path.len());
                    let span = start.min(word.span.end)..word.span.end;
                    Fact::new(path, source, span)
                });
            }
            "Environment" => {
                if value.as_str().is_empty() {
                    unit.environment.clear();
                }
                for word in words(value, source) {
                    let Some((name, text)) = word.value.split_once('=') else {
                        continue;
                    };
                    let span = last_occurrence(source, &word.span, text);
                    unit.environment
                        .insert(name.to_owned(), Fact::new(text.to_owned(), source, span));
                }
            }
            "EnvironmentFile" => {
                unit.environment_files.extend(whole());
                if value.as_str().is_empty() {
                    unit.environment_files.clear();
                }
            }
            "ReadWritePaths" | "ReadOnlyPaths" | "InaccessiblePaths" | "StateDirectory"
            | "CacheDirectory" | "LogsDirectory" | "RuntimeDirectory" => {
                let list = lists.entry(key).or_default();
                if value.as_str().is_empty() {
                    list.clear();
                }
                list.extend(words(value, source));
            }
            _ => {}
        }
    }
    // systemd.exec(5): a dynamic user implies it.
    if let Some(dynamic) = dynamic {
        let strict = dynamic.with("strict".to_owned());
        unit.protect_system = Some(strict);
    }
    for (key, facts) in lists {
        match key {
            "ReadWritePaths" => unit.writable.splice(0..0, facts).for_each(drop),
            "ReadOnlyPaths" | "InaccessiblePaths" => unit.closed.extend(facts),
            made => {
                let root = match made {
                    "StateDirectory" => "/var/lib",
                    "CacheDirectory" => "/var/cache",
                    "LogsDirectory" => "/var/log",
                    _ => "/run",
                };
                unit.writable.extend(facts.iter().map(|fact| {
                    let name = fact.value.split(':').next().unwrap_or_default();
                    fact.with(format!("{root}/{name}"))
                }));
            }
        }
    }
    unit
}

/// Where a text stands within a span, from its end; the whole span where it does not.
fn last_occurrence(source: &Source, span: &Range<usize>, text: &str) -> Range<usize> {
    let within = source.text().get(span.clone()).unwrap_or("");
    match within.rfind(text) {
        Some(at) if !text.is_empty() => span.start + at..span.start + at + text.len(),
        _ => span.clone(),
    }
}

/// `NAME=value` lines as `EnvironmentFile=` reads them.
pub fn environment_file(source: &Source) -> BTreeMap<String, Fact<String>> {
    let mut found = BTreeMap::new();
    for (start, line) in lines(source.text()) {
        let trimmed = line.trim_start();
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        let Some((name, value)) = trimmed.split_once('=') else {
            continue;
        };
        let at = start + (line.len() - value.len());
        let lead = value.len() - value.trim_start().len();
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|quote| {
            value
                .strip_prefix(quote)
                .and_then(|rest| rest.strip_suffix(quote))
        });
        let (text, from) = match quoted {
            Some(inner) => (inner, at + lead + 1),
            None => (value, at + lead),
        };
        found.insert(
            name.trim().to_owned(),
            Fact::new(text.to_owned(), source, from..from + text.len()),
        );
    }
    found
}

/// Users and groups that a sysusers.d file makes.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Names of users.
    pub users: Vec<Fact<String>>,
    /// Names of groups; every user's own is among them.
    pub groups: Vec<Fact<String>>,
}

/// Reads a sysusers.d file.
pub fn accounts(source: &Source) -> Accounts {
    let mut accounts = Accounts::default();
    for (start, line) in lines(source.text()) {
        if line.trim_start().starts_with('#') {
            continue;
        }
        let mut value = Text::default();
        value.push(line, start);
        let mut fields = words(&value, source).into_iter();
        let (Some(kind), Some(name)) = (fields.next(), fields.next()) else {
            continue;
        };
        match kind.value.trim_end_matches('!') {
            "u" => {
                accounts.users.push(name.clone());
                accounts.groups.push(name);
            }
            "g" => accounts.groups.push(name),
            _ => {}
        }
    }
    accounts
}
