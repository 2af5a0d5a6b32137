//! `CONDUIT_*` variables: environment files as systemd reads them, and what the variables come to for Conduit.

use crate::catalogue;
use crate::cross::fact::Fact;
use crate::diagnostic::{Code, Diagnostic, Effect, Severity};
use crate::source::Source;
use crate::systemd::Word;
use crate::value::{self, Data, Entry, Node, Place, Table};

/// A variable as the server's environment has it.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub name: String,
    pub name_place: Place,
    pub value: String,
    pub value_place: Place,
    /// Whether the value is known; what a unit's specifier (`%H`) comes to is not.
    pub certain: bool,
}

impl Variable {
    /// Its value, for a comparison with other files.
    pub fn fact(&self) -> Fact<String> {
        Fact::at(self.value.clone(), &self.value_place.unquoted(&self.value))
    }

    /// The variable of a word of a unit's `Environment=`, which may be quoted with its name.
    pub fn of_word(word: &Word) -> Option<Self> {
        let (name, value) = word.text.split_once('=')?;
        let Place { source, span } = &word.place;
        let raw = word.place.text();
        let quoted = raw.len() > 1 && raw.starts_with(['"', '\'']);
        let from = span.start + usize::from(quoted);
        let to = span.end - usize::from(quoted && raw.ends_with(['"', '\'']));
        let equals = span.start + raw.find('=')?;
        Some(Self {
            name: name.to_owned(),
            name_place: Place::new(source, from..equals.max(from)),
            certain: !value.replace("%%", "").contains('%'),
            value: value.replace("%%", "%"),
            value_place: Place::new(source, (equals + 1).min(to)..to.max(equals)),
        })
    }
}

/// Reads an environment file, in systemd's syntax (`src/basic/env-file.c` of systemd 252).
pub(crate) fn read(source: &Source, out: &mut Vec<Diagnostic>) -> Vec<Variable> {
    let text = source.text();
    let mut variables = Vec::new();
    let mut at = 0;
    while let Some(char) = text[at..].chars().next() {
        if char.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if char == '#' || char == ';' {
            at = end_of_comment(text, at);
            continue;
        }
        let line_end = text[at..]
            .find(['\n', '\r'])
            .map_or(text.len(), |offset| at + offset);
        let Some(equals) = text[at..line_end].find('=').map(|offset| at + offset) else {
            ignored(source, at..line_end, "a line without `=`", out);
            at = line_end;
            continue;
        };
        let name = text[at..equals].trim_end();
        let name_span = at..at + name.len();
        let (value, span, next) = read_value(text, equals + 1);
        at = next;
        if is_name(name) {
            variables.push(Variable {
                name: name.to_owned(),
                name_place: Place::new(source, name_span),
                value,
                value_place: Place::new(source, span),
                certain: true,
            });
        } else if let Some(inner) = name
            .strip_prefix("export ")
            .map(str::trim)
            .filter(|name| is_name(name))
        {
            let finding = ignored(
                source,
                name_span.clone(),
                "`export` belongs to a shell",
                out,
            );
            finding
                .notes
                .push(format!("`{inner}=…` was probably meant"));
            finding.fix = Some(crate::Fix::replace(
                "leave `export` out",
                true,
                &Place::new(source, name_span),
                inner,
            ));
        } else {
            ignored(
                source,
                name_span,
                &format!("`{name}` is no name of a variable"),
                out,
            );
        }
    }
    variables
}

fn ignored<'a>(
    source: &Source,
    span: std::ops::Range<usize>,
    what: &str,
    out: &'a mut Vec<Diagnostic>,
) -> &'a mut Diagnostic {
    out.push(
        Diagnostic::new(
            Code::EnvironmentSyntax,
            Severity::Error,
            Effect::Ignored,
            format!("{what} in an environment file"),
            Place::new(source, span).label("systemd ignores the line"),
        )
        .note("see systemd.exec(5), `EnvironmentFile=`"),
    );
    out.last_mut().expect("it was just pushed")
}

/// Whether systemd takes this for the name of a variable.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|char: char| char.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn end_of_comment(text: &str, mut at: usize) -> usize {
    // A backslash at the end of a comment continues it.
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'\n' | b'\r' => return at,
            _ => at += 1,
        }
    }
    text.len()
}

/// A value, the span of how it is written, and where reading goes on.
fn read_value(text: &str, from: usize) -> (String, std::ops::Range<usize>, usize) {
    #[derive(PartialEq)]
    enum State {
        Before,
        Plain,
        PlainEscape,
        Single,
        Double,
        DoubleEscape,
    }
    let mut state = State::Before;
    let mut value = String::new();
    // Trailing white space of a plain value does not count.
    let mut kept = 0;
    let (mut start, mut end) = (None, from);
    let mut next = text.len();
    for (offset, char) in text[from..].char_indices() {
        let at = from + offset;
        let newline = matches!(char, '\n' | '\r');
        let space = char.is_ascii_whitespace();
        let mut written = true;
        match state {
            State::Before if newline => {
                next = at;
                break;
            }
            State::Before if space => written = false,
            State::Before => match char {
                '\'' => state = State::Single,
                '"' => state = State::Double,
                '\\' => state = State::PlainEscape,
                char => {
                    value.push(char);
                    kept = value.len();
                    state = State::Plain;
                }
            },
            State::Plain if newline => {
                next = at;
                break;
            }
            State::Plain => match char {
                '\\' => {
                    state = State::PlainEscape;
                    kept = value.len();
                }
                char => {
                    value.push(char);
                    if space {
                        written = false;
                    } else {
                        kept = value.len();
                    }
                }
            },
            State::PlainEscape => {
                if !newline {
                    value.push(char);
                    kept = value.len();
                }
                state = State::Plain;
            }
            State::Single => {
                if char == '\'' {
                    state = State::Before;
                } else {
                    value.push(char);
                }
                kept = value.len();
            }
            State::Double => {
                match char {
                    '"' => state = State::Before,
                    '\\' => state = State::DoubleEscape,
                    char => value.push(char),
                }
                kept = value.len();
            }
            State::DoubleEscape => {
                match char {
                    '"' | '\\' | '`' | '$' => value.push(char),
                    '\n' => {}
                    char => {
                        value.push('\\');
                        value.push(char);
                    }
                }
                kept = value.len();
                state = State::Double;
            }
        }
        if written {
            start.get_or_insert(at);
            end = at + char.len_utf8();
        }
    }
    value.truncate(kept);
    let start = start.unwrap_or(from);
    (value, start..end.max(start), next)
}

/// What the variables come to: the dictionary that Conduit puts on top of its file.
pub(crate) fn layer(variables: &[Variable]) -> Table {
    let mut layer = Table::default();
    for variable in variables {
        let Some(path) = catalogue::variable_path(&variable.name) else {
            continue;
        };
        if path == ["config"] {
            continue;
        }
        let mut node = value::from_variable(&variable.value_place, &variable.value);
        for name in path.into_iter().rev() {
            node = Node {
                place: variable.value_place.clone(),
                data: Data::Table(Table {
                    entries: vec![Entry {
                        key: name,
                        key_place: variable.name_place.clone(),
                        value: node,
                    }],
                }),
            };
        }
        if let Data::Table(table) = node.data {
            layer.merge(table);
        }
    }
    layer
}

/// The value of `CONDUIT_CONFIG`, trimmed as Conduit does.
pub(crate) fn config_path(variables: &[Variable]) -> Option<&Variable> {
    variables
        .iter()
        .rev()
        .find(|variable| variable.name.eq_ignore_ascii_case("CONDUIT_CONFIG"))
}
