//! Values with the place that they were written at, wherever they come from: a TOML file, an environment file, a unit.
//!
//! Conduit reads its configuration through figment: the file's `[default]` and `[global]` tables and the environment
//! become one dictionary, in which the later wins key by key. [`Node`] is that dictionary with the places kept, so that
//! a verdict about the whole can point at the line that caused it.

use crate::diagnostic::Label;
use crate::source::{Kind, Source};
use std::ops::Range;

/// Bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub source: Source,
    /// Bytes of it.
    pub span: Range<usize>,
}

impl Place {
    /// A place in a file.
    pub fn new(source: &Source, span: Range<usize>) -> Self {
        Self {
            source: source.clone(),
            span,
        }
    }

    /// The place with something to say of it.
    pub fn label(&self, text: impl Into<String>) -> Label {
        Label {
            source: self.source.clone(),
            span: self.span.clone(),
            text: text.into(),
        }
    }

    /// The text that stands there.
    pub fn text(&self) -> &str {
        self.source.text().get(self.span.clone()).unwrap_or("")
    }

    /// Without its first bytes.
    pub(crate) fn skip(&self, bytes: usize) -> Self {
        let start = (self.span.start + bytes).min(self.span.end);
        Self::new(&self.source, start..self.span.end)
    }

    /// Without the quotes, where what stands between them is the value itself.
    pub(crate) fn unquoted(&self, value: &str) -> Self {
        let inner = self.span.start + 1..self.span.end.saturating_sub(1);
        if self.source.text().get(inner.clone()) == Some(value) {
            Self::new(&self.source, inner)
        } else {
            self.clone()
        }
    }

    /// Its first line.
    pub(crate) fn first_line(&self) -> Self {
        let text = self.text();
        let end = self.span.start + text.find(['\r', '\n']).unwrap_or(text.len());
        Self::new(&self.source, self.span.start..end)
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value is written.
    pub place: Place,
    /// What it is.
    pub data: Data,
}

/// What a value is, in the kinds that figment tells apart.
#[derive(Clone, Debug)]
pub enum Data {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i128),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// An array.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

/// A table. Its entries are in the order of the file; keys are distinct.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key as Conduit sees it: without quotes, from the environment in lower case.
    pub key: String,
    /// Where the key is written.
    pub key_place: Place,
    /// Its value.
    pub value: Node,
}

/// The key under which the TOML parser hands on a date, which Conduit then takes for a table.
pub const DATE: &str = "$__toml_private_datetime";

/// More than any variable of a configuration opens.
const MAX_BRACKETS: usize = 256;

impl Node {
    /// The table that this is.
    pub fn table(&self) -> Option<&Table> {
        match &self.data {
            Data::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The string that this is.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value that this is.
    pub fn bool(&self) -> Option<bool> {
        match self.data {
            Data::Bool(bool) => Some(bool),
            _ => None,
        }
    }

    /// The elements of the list that this is.
    pub fn list(&self) -> Option<&[Self]> {
        match &self.data {
            Data::List(list) => Some(list),
            _ => None,
        }
    }

    /// What a person calls this kind of value.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::Text(_) => "a string",
            Data::Integer(_) => "an integer",
            Data::Float(_) => "a float",
            Data::Bool(_) => "a boolean",
            Data::List(_) => "an array",
            Data::Table(table) if table.get(DATE).is_some() => "a date",
            Data::Table(_) => "a table",
        }
    }

    /// Whether it was read from the environment, where every number is unsigned if it can be.
    pub fn from_environment(&self) -> bool {
        matches!(self.place.source.kind(), Kind::Environment | Kind::Unit)
    }
}

impl Table {
    /// The entry of this key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value of this key.
    pub fn value(&self, key: &str) -> Option<&Node> {
        self.get(key).map(|entry| &entry.value)
    }

    /// The value that these keys lead to.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        let (last, before) = path.split_last()?;
        let mut table = self;
        for key in before {
            table = table.value(key)?.table()?;
        }
        table.value(last)
    }

    /// Puts `later` on top, key by key and table by table, as figment merges: what is no table on both sides is
    /// replaced as a whole. What lost its value is told, in pairs of the earlier entry and the later one.
    pub fn merge(&mut self, later: Self) -> Vec<(Entry, Entry)> {
        let mut replaced = Vec::new();
        for entry in later.entries {
            match self.entries.iter_mut().find(|mine| mine.key == entry.key) {
                None => self.entries.push(entry),
                Some(mine) => {
                    let tables = mine.value.table().is_some() && entry.value.table().is_some();
                    if tables {
                        if let (Data::Table(mine), Data::Table(theirs)) =
                            (&mut mine.value.data, entry.value.data)
                        {
                            replaced.extend(mine.merge(theirs));
                        }
                    } else {
                        replaced.push((mine.clone(), entry.clone()));
                        *mine = entry;
                    }
                }
            }
        }
        replaced
    }
}

/// Reads a TOML document. The error is what the parser says, with its place.
pub fn from_toml(source: &Source) -> Result<Table, Label> {
    let document = toml_edit::ImDocument::parse(source.text()).map_err(|error| {
        let length = source.text().len();
        let span = error.span().unwrap_or(0..0);
        let start = source.text().floor_char_boundary(span.start.min(length));
        let end = source
            .text()
            .ceil_char_boundary(span.end.clamp(start, length));
        Label {
            source: source.clone(),
            span: start..end,
            text: error.message().replace('\n', ", "),
        }
    })?;
    Ok(table(source, document.as_table(), &(0..0)))
}

fn table(source: &Source, table: &dyn toml_edit::TableLike, around: &Range<usize>) -> Table {
    let entries = table
        .iter()
        .map(|(name, item)| {
            let key_span = table
                .key(name)
                .and_then(toml_edit::Key::span)
                .or_else(|| item.span())
                .unwrap_or_else(|| around.clone());
            Entry {
                key: name.to_owned(),
                key_place: Place::new(source, key_span.clone()),
                value: item_node(source, item, &key_span),
            }
        })
        .collect();
    Table { entries }
}

fn item_node(source: &Source, item: &toml_edit::Item, around: &Range<usize>) -> Node {
    let span = item.span().unwrap_or_else(|| around.clone());
    let data = match item {
        toml_edit::Item::Value(value) => return value_node(source, value, around),
        toml_edit::Item::Table(inner) => Data::Table(table(source, inner, &span)),
        toml_edit::Item::ArrayOfTables(tables) => Data::List(
            tables
                .iter()
                .map(|inner| {
                    let span = inner.span().unwrap_or_else(|| span.clone());
                    Node {
                        data: Data::Table(table(source, inner, &span)),
                        place: Place::new(source, span),
                    }
                })
                .collect(),
        ),
        toml_edit::Item::None => Data::Table(Table::default()),
    };
    Node {
        place: Place::new(source, span),
        data,
    }
}

fn value_node(source: &Source, value: &toml_edit::Value, around: &Range<usize>) -> Node {
    use toml_edit::Value;
    let span = value.span().unwrap_or_else(|| around.clone());
    let data = match value {
        Value::String(text) => Data::Text(text.value().clone()),
        Value::Integer(integer) => Data::Integer((*integer.value()).into()),
        Value::Float(float) => Data::Float(*float.value()),
        Value::Boolean(bool) => Data::Bool(*bool.value()),
        Value::Datetime(date) => Data::Table(Table {
            entries: vec![Entry {
                key: DATE.to_owned(),
                key_place: Place::new(source, span.clone()),
                value: Node {
                    place: Place::new(source, span.clone()),
                    data: Data::Text(date.value().to_string()),
                },
            }],
        }),
        Value::Array(array) => Data::List(
            array
                .iter()
                .map(|element| value_node(source, element, &span))
                .collect(),
        ),
        Value::InlineTable(inner) => Data::Table(table(source, inner, &span)),
    };
    Node {
        place: Place::new(source, span),
        data,
    }
}

/// Reads the value of an environment variable as figment does: `12` is a number, `true` a boolean, `[a, b]` a list,
/// `{ a = 1 }` a table, `"12"` with its quotes a string, and whatever is none of these a string as it stands.
pub fn from_variable(place: &Place, value: &str) -> Node {
    // figment's parser calls itself for each of them, until the stack is exhausted.
    let opened = value.bytes().filter(|byte| b"[{".contains(byte)).count();
    if opened > MAX_BRACKETS {
        return Node {
            place: place.clone(),
            data: Data::Text(value.to_owned()),
        };
    }
    let Ok(value) = value.parse::<figment::value::Value>();
    figment_node(place, &value)
}

fn figment_node(place: &Place, value: &figment::value::Value) -> Node {
    use figment::value::{Num, Value};
    let data = match value {
        Value::String(_, text) => Data::Text(text.clone()),
        Value::Char(_, char) => Data::Text(char.to_string()),
        Value::Bool(_, bool) => Data::Bool(*bool),
        Value::Num(_, Num::F32(float)) => Data::Float((*float).into()),
        Value::Num(_, Num::F64(float)) => Data::Float(*float),
        Value::Num(_, number) => Data::Integer(
            number
                .to_i128()
                .or_else(|| number.to_u128().and_then(|number| number.try_into().ok()))
                .unwrap_or(i128::MAX),
        ),
        // Only serializers make these; no text does.
        Value::Empty(..) => Data::Text(String::new()),
        Value::Array(_, list) => Data::List(
            list.iter()
                .map(|value| figment_node(place, value))
                .collect(),
        ),
        Value::Dict(_, dict) => Data::Table(Table {
            entries: dict
                .iter()
                .map(|(key, value)| Entry {
                    key: key.clone(),
                    key_place: place.clone(),
                    value: figment_node(place, value),
                })
                .collect(),
        }),
    };
    Node {
        place: place.clone(),
        data,
    }
}
