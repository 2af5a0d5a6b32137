//! What a file has of tables: the two that count, and those that are dropped.

use super::{DROPPED, FATAL, Judge, REFUSED, elsewhere};
use crate::catalogue;
use crate::diagnostic::{Code, Diagnostic, Edit, Effect, Fix, Label, Severity};
use crate::source::Source;
use crate::value::{self, Data, Entry, Place, Table};

/// A file as Conduit's reader sees it: its two tables that count.
pub(crate) struct File {
    /// The file.
    pub source: Source,
    /// `[default]` with `[global]` on top of it; `None` if the file is not TOML.
    pub table: Option<Table>,
    /// Where a key that is missing would have to stand.
    pub header: Place,
    /// The same with its brackets.
    pub header_line: Place,
    /// Whether there is a `[global]` header line, after which lines can be inserted.
    pub(super) insert_at: Option<usize>,
}

impl File {
    /// What the server would run with: the file, with these variables on top; `None` if the file is not TOML.
    pub fn with(&self, variables: Table) -> Option<Table> {
        let mut table = self.table.clone()?;
        table.merge(variables);
        Some(table)
    }
}

/// Reads a file, and says what is wrong with its layers.
pub(crate) fn read(source: &Source, out: &mut Vec<Diagnostic>) -> File {
    let start = Place::new(source, source.first_line());
    let mut file = File {
        source: source.clone(),
        table: None,
        header: start.clone(),
        header_line: start,
        insert_at: None,
    };
    let document = match value::from_toml(source) {
        Ok(document) => document,
        Err(label) => {
            let message = format!("this is not TOML: {}", label.text);
            let label = Label {
                text: REFUSED.to_owned(),
                ..label
            };
            out.push(Diagnostic::new(
                Code::TomlSyntax,
                Severity::Error,
                FATAL,
                message,
                label,
            ));
            return file;
        }
    };
    let mut profiles: [Option<Entry>; 2] = [None, None];
    let mut bare = Vec::new();
    for entry in &document.entries {
        let profile = ["default", "global"]
            .iter()
            .position(|profile| entry.key.eq_ignore_ascii_case(profile));
        match (profile, &entry.value.data) {
            (Some(at), Data::Table(_)) => {
                if let Some(earlier) = profiles[at].replace(entry.clone()) {
                    out.push(
                        Diagnostic::new(
                            Code::RepeatedProfile,
                            Severity::Error,
                            Effect::Ignored,
                            format!("`[{}]` is written again as `[{}]`", earlier.key, entry.key),
                            earlier.key_place.label(format!("{DROPPED}, with everything below it")),
                        )
                        .related(entry.key_place.label("this one is read"))
                        .note("the names of these tables are compared without regard to case, and the last one replaces the others"),
                    );
                }
            }
            (None, Data::Table(_)) => {}
            _ => bare.push(entry),
        }
    }
    let [default, global] = profiles;
    bare_keys(source, &bare, global.as_ref(), out);
    if let Some(global) = &global {
        file.header = global.key_place.clone();
        file.insert_at = after_header(source.text(), global.key_place.span.end);
    } else if let Some(default) = &default {
        file.header = default.key_place.clone();
    }
    if let Some(table) = global.as_ref().or(default.as_ref()) {
        file.header_line = table.value.place.first_line();
    }
    let has_global = global.is_some();
    let tables = |entry: Option<Entry>| match entry.map(|entry| entry.value.data) {
        Some(Data::Table(table)) => table,
        _ => Table::default(),
    };
    let mut merged = tables(default);
    for (earlier, later) in merged.merge(tables(global)) {
        out.push(
            Diagnostic::new(
                Code::Overridden,
                Severity::Warning,
                Effect::Ignored,
                format!("`{}` of `[default]` is replaced by `[global]`", earlier.key),
                earlier.key_place.label("without effect"),
            )
            .related(later.key_place.label("this one counts"))
            .note("Conduit reads both tables, and `[global]` goes before `[default]` (src/main.rs:60)"),
        );
    }
    for entry in &document.entries {
        let known = ["default", "global"]
            .iter()
            .any(|profile| entry.key.eq_ignore_ascii_case(profile));
        if let (false, Some(table)) = (known, entry.value.table()) {
            dropped_table(&file, entry, table, has_global, &merged, out);
        }
    }
    file.table = Some(merged);
    file
}

/// The start of the line after a table's header, where that is a header line.
pub(super) fn after_header(text: &str, at: usize) -> Option<usize> {
    let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let end = text[at..].find('\n').map(|offset| at + offset + 1)?;
    text[start..at].trim_start().starts_with('[').then_some(end)
}

fn bare_keys(source: &Source, bare: &[&Entry], global: Option<&Entry>, out: &mut Vec<Diagnostic>) {
    for (at, entry) in bare.iter().enumerate() {
        let known = catalogue::GLOBAL.key(&entry.key).is_some();
        let is_list = matches!(entry.value.data, Data::List(_))
            && source.text()[..entry.key_place.span.start].ends_with('[');
        let message = if is_list {
            format!("`[[{}]]` stands where only a table may", entry.key)
        } else {
            format!("`{}` stands outside every table", entry.key)
        };
        let mut finding = Diagnostic::new(
            Code::TopLevelKey,
            Severity::Error,
            FATAL,
            message,
            entry.key_place.label(REFUSED),
        )
        .note("every key must stand below `[global]` (src/main.rs:67, `.nested()`)");
        if known && !is_list {
            finding = finding.note(format!("`{}` is a key of `[global]`", entry.key));
        }
        if let Some(global) = global {
            finding = finding.related(global.key_place.label("it belongs below this line"));
        } else if at == 0
            && !is_list
            && bare
                .iter()
                .all(|entry| catalogue::GLOBAL.key(&entry.key).is_some())
        {
            let start = source.text()[..entry.key_place.span.start]
                .rfind('\n')
                .map_or(0, |at| at + 1);
            finding = finding.fix(Fix::replace(
                "put `[global]` above it",
                true,
                &Place::new(source, start..start),
                "[global]\n",
            ));
        }
        out.push(finding);
    }
}

/// A table that is dropped: what it was meant to be, and each of its keys that Conduit has elsewhere.
fn dropped_table(
    file: &File,
    entry: &Entry,
    table: &Table,
    has_global: bool,
    merged: &Table,
    out: &mut Vec<Diagnostic>,
) {
    let name = &entry.key;
    let mut finding = Diagnostic::new(
        Code::DroppedTable,
        Severity::Error,
        Effect::Ignored,
        format!("`[{name}]` is no table that Conduit reads"),
        entry
            .key_place
            .label(format!("{DROPPED}, with everything below it")),
    );
    let below = catalogue::GLOBAL
        .key(name)
        .and_then(|key| key.takes.below());
    if below.is_some() {
        finding = finding.note(format!("`[global.{name}]` was probably meant"));
        let free = merged.get(name).is_none();
        if let Some((edits, meant)) = rename_headers(file, name, &format!("global.{name}")) {
            // Safe only if what then comes into force is whole: every key known, nothing missing, nothing mistyped.
            let mut trial = Vec::new();
            if let Some(Data::Table(global)) = meant.value("global").map(|node| node.data.clone()) {
                if let Some(node) = global.get(name) {
                    let mut judge = Judge::new(&file.header, None, &mut trial);
                    judge.key_in(&catalogue::GLOBAL, node);
                }
                finding = finding.fix(Fix {
                    title: format!("write `[global.{name}]`"),
                    safe: free
                        && trial
                            .iter()
                            .all(|finding| finding.severity == Severity::Note),
                    edits,
                });
            }
        }
    } else if strsim::damerau_levenshtein(&name.to_lowercase(), "global") <= 2 {
        finding = finding.note("`[global]` was probably meant");
        if let Some((edits, _)) = rename_headers(file, name, "global") {
            finding = finding.fix(Fix {
                title: "write `[global]`".to_owned(),
                safe: !has_global
                    && strsim::damerau_levenshtein(&name.to_lowercase(), "global") == 1,
                edits,
            });
        }
    } else {
        finding = finding.note("Conduit's keys stand in `[global]` and in the tables below it");
    }
    out.push(finding.note("every table beside `[global]` and `[default]` is a figment profile that nobody selects (src/main.rs:60-69)"));
    for inner in &table.entries {
        let stranger = catalogue::known_stranger(name, &inner.key);
        if let Some(stranger) = stranger {
            let so = stranger.so.unwrap_or("without effect");
            let mut finding = Diagnostic::new(
                Code::ForeignKey,
                Severity::Error,
                Effect::Ignored,
                format!("Conduit has no `{}.{}`", name, inner.key),
                inner.key_place.label(format!("dropped: {so}")),
            )
            .note(format!("instead: {}", stranger.instead))
            .note(format!("known from: {}", stranger.from));
            if let (Some(write), Some(at)) = (stranger.write, file.insert_at) {
                let key = write.split(' ').next().unwrap_or(write);
                if merged.get(key).is_none() {
                    finding = finding.fix(Fix::replace(
                        format!("write `{write}` in `[global]`"),
                        false,
                        &Place::new(&file.source, at..at),
                        format!("{write}\n"),
                    ));
                }
            }
            out.push(finding);
        } else if below.is_none()
            && let Some(located) = elsewhere(&inner.key, None)
        {
            out.push(
                Diagnostic::new(
                    Code::MisplacedKey,
                    Severity::Error,
                    Effect::Ignored,
                    format!("`{}` does not belong to `[{name}]`", inner.key),
                    inner.key_place.label("dropped: without effect"),
                )
                .note(format!("it is `{}` ({})", located.dotted(), located.key.at)),
            );
        }
    }
}

/// Replaces the first part of every header that begins with `name`; told only if the document then has it so.
fn rename_headers(file: &File, name: &str, replacement: &str) -> Option<(Vec<Edit>, Table)> {
    let text = file.source.text();
    let mut edits = Vec::new();
    let mut renamed = String::new();
    let mut done = 0;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        let header = line.trim_start();
        let inner = header.trim_start_matches('[');
        let brackets = header.len() - inner.len();
        let part = inner.trim_start();
        let here = part
            .strip_prefix(name)
            .is_some_and(|rest| rest.trim_start().starts_with(['.', ']']));
        if (1..=2).contains(&brackets) && here {
            let at = start + line.len() - part.len();
            edits.push(Edit {
                source: file.source.clone(),
                span: at..at + name.len(),
                replacement: replacement.to_owned(),
            });
            renamed.push_str(&text[done..at]);
            renamed.push_str(replacement);
            done = at + name.len();
        }
    }
    renamed.push_str(&text[done..]);
    if edits.is_empty() {
        return None;
    }
    let trial = Source::new(file.source.name(), file.source.kind(), renamed);
    let document = value::from_toml(&trial).ok()?;
    (document.get(name).is_none()).then_some((edits, document))
}
