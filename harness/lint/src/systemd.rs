//! What systemd reads, as it reads it: units with their drop-ins, and the words of a value (systemd.syntax(7),
//! systemd.exec(5)). What a unit says is judged by itself in [`unit`](crate::unit), and against the other files of the
//! site in [`cross::unit`](crate::cross::unit).

use crate::environment::Variable;
use crate::file_name;
use crate::source::Source;
use crate::value::Place;
use std::ops::Range;

/// One `Key=value` of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The section that it stands in, such as `Service`.
    pub section: String,
    /// The key.
    pub key: String,
    /// The value: continued lines joined by a space, comments between them left out.
    pub value: Text,
    /// The key and its value, as they are written.
    pub place: Place,
}

impl Assignment {
    /// Its value as systemd understands it.
    pub fn text(&self) -> &str {
        self.value.as_str()
    }

    /// The words of its value.
    pub fn words(&self) -> Vec<Word> {
        words(&self.place.source, &self.value)
    }
}

/// A text that remembers where each of its bytes stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    text: String,
    at: Vec<usize>,
}

impl Text {
    fn push(&mut self, piece: &str, start: usize) {
        self.text.push_str(piece);
        self.at.extend(start..start + piece.len());
    }

    fn slice(&self, range: Range<usize>) -> Self {
        Self {
            text: self.text[range.clone()].to_owned(),
            at: self.at[range].to_vec(),
        }
    }

    /// As it is understood.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where a part of it stands; it may reach over a continuation.
    pub fn span(&self, range: Range<usize>) -> Range<usize> {
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
    pub place: Place,
    /// Why it is skipped.
    pub why: &'static str,
}

/// Reads the assignments of one file.
fn assignments(source: &Source, skipped: &mut Vec<Skipped>) -> Vec<Assignment> {
    let mut found = Vec::new();
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
            let Some(continued) = text.strip_suffix('\\').filter(|before| {
                // A backslash that is escaped itself ends the value.
                (before.len() - before.trim_end_matches('\\').len()).is_multiple_of(2)
            }) else {
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
        let whole = trimmed_range(logical.as_str(), 0);
        let text = &logical.as_str()[whole.clone()];
        if let Some(name) = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = Some(name.to_owned());
            continue;
        }
        let mut skip = |why| {
            skipped.push(Skipped {
                place: Place::new(source, start..start + line.len()),
                why,
            });
        };
        let Some(equals) = text.find('=').map(|at| whole.start + at) else {
            skip("it is neither a section nor `Key=value`");
            continue;
        };
        let Some(section) = &section else {
            skip("it stands before any section");
            continue;
        };
        let value = trimmed_range(logical.as_str(), equals + 1);
        found.push(Assignment {
            section: section.clone(),
            key: logical.as_str()[whole.start..equals].trim().to_owned(),
            value: logical.slice(value),
            place: Place::new(source, logical.span(whole)),
        });
    }
    found
}

/// The part of a text from `from` on that is left without white space around it.
fn trimmed_range(text: &str, from: usize) -> Range<usize> {
    let rest = &text[from..];
    let start = from + (rest.len() - rest.trim_start().len());
    start..(from + rest.trim_end().len()).max(start)
}

/// Lines with where they begin, without their ends.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |next, line| {
        let start = *next;
        *next += line.len();
        Some((start, line.trim_end_matches('\n').trim_end_matches('\r')))
    })
}

/// A word of a value: quotes are gone from its text and not from its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// As it is understood.
    pub text: String,
    /// As it is written.
    pub place: Place,
}

/// The words of a text as systemd takes them apart: quotes group, a backslash escapes. Of the escapes that stand for
/// another character, those of white space are known; no path or name of a site needs the others, which stay as they
/// are written.
fn words(source: &Source, value: &Text) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<(String, usize)> = None;
    let mut quote = None;
    let mut chars = value.as_str().char_indices();
    let mut end_word = |word: &mut Option<(String, usize)>, end: usize| {
        if let Some((text, start)) = word.take() {
            words.push(Word {
                text,
                place: Place::new(source, value.span(start..end)),
            });
        }
    };
    while let Some((at, character)) = chars.next() {
        if quote.is_none() && character.is_whitespace() {
            end_word(&mut word, at);
            continue;
        }
        let (text, _) = word.get_or_insert_with(|| (String::new(), at));
        match (quote, character) {
            (_, '\\') => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 's')) => text.push(' '),
                Some((_, other)) => {
                    if other.is_ascii_alphanumeric() {
                        text.push('\\');
                    }
                    text.push(other);
                }
                None => {}
            },
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            _ => text.push(character),
        }
    }
    end_word(&mut word, value.as_str().len());
    words
}

/// The words of each line that is not empty and no comment, as sysusers.d(5) has them.
pub(crate) fn fields(source: &Source) -> impl Iterator<Item = Vec<Word>> {
    lines(source.text())
        .filter(|(_, line)| !line.trim_start().starts_with('#'))
        .map(|(start, line)| {
            let mut text = Text::default();
            text.push(line, start);
            words(source, &text)
        })
        .filter(|words| !words.is_empty())
}

/// A unit, its drop-ins applied.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// The file's name, such as `conduit.service`.
    pub name: String,
    /// The file; where only a drop-in is at hand, that one.
    pub source: Source,
    /// All that it says, in the order in which systemd reads it.
    pub assignments: Vec<Assignment>,
}

/// The units among the sources, drop-ins applied to whom they belong to.
pub(crate) fn units<'a>(
    sources: impl IntoIterator<Item = &'a Source>,
    skipped: &mut Vec<Skipped>,
) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut drop_ins: Vec<(&str, Unit)> = Vec::new();
    for source in sources {
        let mut unit = Unit {
            name: file_name(source.name()).to_owned(),
            source: source.clone(),
            assignments: assignments(source, skipped),
        };
        let file = file_name(source.name());
        let directory = source.name().strip_suffix(file).unwrap_or("");
        match file_name(directory.trim_end_matches('/')).strip_suffix(".d") {
            Some(owner) if file.ends_with(".conf") => {
                owner.clone_into(&mut unit.name);
                drop_ins.push((file, unit));
            }
            _ => units.push(unit),
        }
    }
    // systemd applies them in the order of their names, wherever they lie.
    drop_ins.sort_by_key(|(file, _)| *file);
    for (_, drop_in) in drop_ins {
        let mut applied = false;
        for unit in &mut units {
            let every_service = drop_in.name == "service" && unit.name.ends_with(".service");
            if unit.name == drop_in.name || every_service {
                unit.assignments.extend(drop_in.assignments.iter().cloned());
                applied = true;
            }
        }
        if !applied {
            units.push(drop_in);
        }
    }
    units
}

impl Unit {
    /// The assignments of a key of `[Service]`.
    pub fn all(&self, key: &str) -> impl DoubleEndedIterator<Item = &Assignment> {
        self.assignments
            .iter()
            .filter(move |assignment| assignment.section == "Service" && assignment.key == key)
    }

    /// The assignment that counts where a key takes one value.
    pub fn last(&self, key: &str) -> Option<&Assignment> {
        self.all(key).next_back()
    }

    /// The assignments that count where a key takes a list: an empty one forgets those before it.
    pub fn list(&self, key: &str) -> Vec<&Assignment> {
        let mut list = Vec::new();
        for assignment in self.all(key) {
            if assignment.text().is_empty() {
                list.clear();
            } else {
                list.push(assignment);
            }
        }
        list
    }

    /// The words of a list.
    pub fn list_words(&self, key: &str) -> Vec<Word> {
        self.list(key)
            .into_iter()
            .flat_map(Assignment::words)
            .collect()
    }

    /// The program that it runs, without the characters before it that say how. Of several the last: a drop-in must
    /// empty the list first, and `Type=exec` takes one.
    pub fn program(&self) -> Option<Word> {
        let word = self.list("ExecStart").last()?.words().into_iter().next()?;
        let text = word.text.trim_start_matches(['@', '-', ':', '+', '!', '|']);
        Some(Word {
            place: word.place.skip(word.text.len() - text.len()),
            text: text.to_owned(),
        })
    }

    /// Whether its program is Conduit.
    pub fn starts_conduit(&self) -> bool {
        self.program()
            .is_some_and(|word| ["conduit", "matrix-conduit"].contains(&file_name(&word.text)))
    }

    /// The variables of its `Environment=` lines.
    pub fn environment(&self) -> Vec<Variable> {
        self.list_words("Environment")
            .iter()
            .filter_map(Variable::of_word)
            .collect()
    }

    /// The files that it takes further variables from, which go before its own. `-` only says that one may be missing.
    pub fn environment_files(&self) -> Vec<&str> {
        self.list("EnvironmentFile")
            .into_iter()
            .map(|assignment| assignment.text().trim_start_matches('-'))
            .collect()
    }

    /// Whether it takes variables from a file of this name, wherever that lies.
    pub fn names(&self, file: &Source) -> bool {
        self.environment_files()
            .iter()
            .any(|path| file_name(path) == file_name(file.name()))
    }

    /// Its variables, those of its files on top, in the order in which the later wins; and whether all of these files
    /// are at hand.
    pub fn variables(&self, files: &[(&Source, Vec<Variable>)]) -> (Vec<Variable>, bool) {
        let mut variables = self.environment();
        let mut all_known = true;
        for path in self.environment_files() {
            let mut found = false;
            for (source, more) in files {
                if file_name(source.name()) == file_name(path) {
                    found = true;
                    variables.extend(more.iter().cloned());
                }
            }
            all_known &= found;
        }
        (variables, all_known)
    }

    /// Where it is said that something is missing: its `ExecStart=`.
    pub fn start_place(&self) -> Place {
        self.last("ExecStart").map_or_else(
            || Place::new(&self.source, 0..0),
            |assignment| assignment.place.clone(),
        )
    }
}

/// A boolean as systemd reads it.
pub(crate) fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"]
        .iter()
        .any(|yes| yes.eq_ignore_ascii_case(value))
}
