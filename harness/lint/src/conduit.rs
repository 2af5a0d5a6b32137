//! The rules of Conduit's configuration: what its file says, layer by layer, and what comes out of all layers together.
//!
//! The server deserializes one dictionary into one structure and stops at the first mistake. [`Judge`] walks the same
//! dictionary against the [`catalogue`](crate::catalogue) and goes on, so that all mistakes are said at once; then it
//! looks at what the values mean together.

use crate::catalogue::{self, Key, Status, Table as Spec, Type};
use crate::diagnostic::{Code, Diagnostic, Edit, Effect, Fix, Label, Severity};
use crate::source::{Kind, Source};
use crate::value::{self, Data, Entry, Node, Place, Table};
use std::collections::BTreeSet;

const FATAL: Effect = Effect::Fatal { exit: 1 };
const PANIC: Effect = Effect::Fatal { exit: 101 };
const REFUSED: &str = "refused: the server does not start (exit 1)";
const DROPPED: &str = "dropped without a word";

/// A file as Conduit's reader sees it: its two tables that count.
pub(crate) struct File {
    /// The file.
    pub source: Source,
    /// `[default]` with `[global]` on top of it; `None` if the file is not TOML.
    pub table: Option<Table>,
    /// Where a key that is missing would have to stand.
    pub header: Place,
    /// Whether there is a `[global]` header line, after which lines can be inserted.
    insert_at: Option<usize>,
}

/// Reads a file, and says what is wrong with its layers.
pub(crate) fn read(source: &Source, out: &mut Vec<Diagnostic>) -> File {
    let start = Place::new(source, first_line(source.text()));
    let mut file = File {
        source: source.clone(),
        table: None,
        header: start,
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

fn first_line(text: &str) -> std::ops::Range<usize> {
    let end = text.find(['\r', '\n']).unwrap_or(text.len());
    0..end
}

/// The start of the line after a table's header, where that is a header line.
fn after_header(text: &str, at: usize) -> Option<usize> {
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
        } else if below.is_none() {
            if let Some(located) = elsewhere(&inner.key, None) {
                out.push(
                    Diagnostic::new(
                        Code::MisplacedKey,
                        Severity::Error,
                        Effect::Ignored,
                        format!("`{}` does not belong to `[{name}]`", inner.key),
                        inner.key_place.label("dropped: without effect"),
                    )
                    .note(format!(
                        "it is `{}` ({})",
                        located.dotted(),
                        located.key.at
                    )),
                );
            }
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

/// Where else in the catalogue a key of this name stands.
fn elsewhere(name: &str, not_in: Option<&Spec>) -> Option<catalogue::Located> {
    catalogue::all().into_iter().find(|located| {
        located.key.name == name
            && located.key.status != Status::Next
            && not_in.is_none_or(|spec| spec.key(name).is_none())
    })
}

/// How alike two names are, from 0 to 1, without regard to case and to `-` against `_`.
fn likeness(a: &str, b: &str) -> f64 {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    strsim::normalized_damerau_levenshtein(&plain(a), &plain(b))
}

/// Judges one dictionary.
pub(crate) struct Judge<'a> {
    header: Place,
    insert_at: Option<usize>,
    /// Whether more is given elsewhere, so that nothing is known to be missing.
    partial: bool,
    out: &'a mut Vec<Diagnostic>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(
        header: &Place,
        insert_at: Option<usize>,
        out: &'a mut Vec<Diagnostic>,
    ) -> Self {
        Self {
            header: header.clone(),
            insert_at,
            partial: false,
            out,
        }
    }

    /// For variables whose file is not known: what is missing may stand there.
    pub(crate) fn partial(header: &Place, out: &'a mut Vec<Diagnostic>) -> Self {
        Self {
            partial: true,
            ..Self::new(header, None, out)
        }
    }

    pub(crate) fn of(file: &File, out: &'a mut Vec<Diagnostic>) -> Self {
        Self::new(&file.header, file.insert_at, out)
    }

    /// Everything that there is to say of what all layers come to.
    pub(crate) fn judge(&mut self, table: &Table) {
        self.table(&catalogue::GLOBAL, table, &self.header.clone());
        self.names(table);
        self.database(table);
        self.registration(table);
        self.listener(table);
        self.federation(table);
        self.well_known(table);
        self.limits(table);
        self.logs(table);
        self.turn_legacy(table);
        self.secrets(table);
        self.ignored_keys(table);
        self.retention(table);
    }

    fn say(
        &mut self,
        code: Code,
        severity: Severity,
        effect: Effect,
        message: impl Into<String>,
        label: Label,
    ) -> &mut Diagnostic {
        self.out
            .push(Diagnostic::new(code, severity, effect, message, label));
        self.out.last_mut().expect("it was just pushed")
    }

    fn warn(
        &mut self,
        code: Code,
        place: &Place,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> &mut Diagnostic {
        self.say(
            code,
            Severity::Warning,
            Effect::InForce,
            message,
            place.label(label),
        )
    }

    /// A correction that writes a line below `[global]`.
    fn insertion(&self, line: &str, safe: bool) -> Option<Fix> {
        let at = self.insert_at?;
        Some(Fix::replace(
            format!("write `{line}` in `[global]`"),
            safe,
            &Place::new(&self.header.source, at..at),
            format!("{line}\n"),
        ))
    }

    /// A table against its keys. `place` is where it is said that a key is missing.
    fn table(&mut self, spec: &'static Spec, table: &Table, place: &Place) {
        for entry in &table.entries {
            if entry.key == value::DATE {
                continue;
            }
            self.key_in(spec, entry);
        }
        for key in spec.keys.iter().filter(|key| key.required) {
            if table.get(key.name).is_none() {
                self.missing(spec, key, place);
            }
        }
    }

    fn missing(&mut self, spec: &'static Spec, key: &'static Key, place: &Place) {
        // Within an array nothing comes from elsewhere.
        let whole = ["ignored_keys", "retention", "by_domain"]
            .iter()
            .any(|list| spec.path.ends_with(list));
        if self.partial && !whole {
            return;
        }
        let (path, name) = (spec.path, key.name);
        let takes = key.takes.to_string();
        self.say(
            Code::MissingKey,
            Severity::Error,
            FATAL,
            format!("`{name}` is missing in `[{path}]`"),
            place.label(REFUSED),
        )
        .notes
        .extend([
            format!("it takes {takes} and has no default ({})", key.at),
            key.effect.to_owned(),
        ]);
    }

    /// One entry of a table.
    pub(crate) fn key_in(&mut self, spec: &'static Spec, entry: &Entry) {
        match spec.key(&entry.key) {
            Some(key) if key.status == Status::Next => self.future(spec, key, entry),
            Some(key) => self.value(spec, key, key.takes, &entry.value, &entry.key_place),
            None => self.unknown(spec, entry),
        };
    }

    fn future(&mut self, spec: &'static Spec, key: &'static Key, entry: &Entry) {
        self.say(
            Code::FutureKey,
            Severity::Error,
            Effect::Ignored,
            format!(
                "Conduit 0.10.12 has no `{}` in `[{}]` yet",
                key.name, spec.path
            ),
            entry.key_place.label(DROPPED),
        )
        .notes
        .push("upstream's branch `next` (0.11.0-alpha) has it".to_owned());
    }

    fn unknown(&mut self, spec: &'static Spec, entry: &Entry) {
        let name = entry.key.as_str();
        let place = &entry.key_place;
        let environment = entry.value.from_environment();
        if environment && self.unknown_variable(spec, entry) {
            return;
        }
        let of = format!("in `[{}]`", spec.path);
        let short = spec.path.rsplit('.').next().unwrap_or(spec.path);
        if let Some(stranger) = catalogue::known_stranger(short, name) {
            let so = stranger.so.unwrap_or("without effect");
            self.say(
                Code::ForeignKey,
                Severity::Error,
                Effect::Ignored,
                format!("Conduit has no `{name}`"),
                place.label(format!("ignored: {so}")),
            )
            .notes
            .extend([
                format!("instead: {}", stranger.instead),
                format!("known from: {}", stranger.from),
            ]);
            return;
        }
        if let Some(located) = elsewhere(name, Some(spec)) {
            self.say(
                Code::MisplacedKey,
                Severity::Error,
                Effect::Ignored,
                format!("`{name}` does not belong {of}"),
                place.label("ignored: without effect"),
            )
            .notes
            .push(format!("it is `{}` ({})", located.dotted(), located.key.at));
            return;
        }
        let near = spec
            .keys
            .iter()
            .map(|key| (likeness(name, key.name), key))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness >= 0.65)
            .map(|(_, key)| key);
        let mut fix = None;
        let mut notes = Vec::new();
        if let Some(key) = near {
            notes.push(format!("`{}` was probably meant ({})", key.name, key.at));
            let mut trial = Vec::new();
            Judge::new(&self.header, None, &mut trial).value(
                spec,
                key,
                key.takes,
                &entry.value,
                place,
            );
            let fits = trial.is_empty();
            let plain = |text: &str| text.to_lowercase().replace('-', "_");
            let distance = strsim::damerau_levenshtein(&plain(name), key.name);
            if !environment {
                fix = Some(Fix::replace(
                    format!("write `{}`", key.name),
                    fits && distance <= 1 && self.unset(spec, key.name),
                    place,
                    key.name,
                ));
            }
        } else if let Some(located) = catalogue::all()
            .into_iter()
            .filter(|located| likeness(name, located.key.name) >= 0.8)
            .max_by(|a, b| likeness(name, a.key.name).total_cmp(&likeness(name, b.key.name)))
        {
            notes.push(format!(
                "`{}` was perhaps meant ({})",
                located.dotted(),
                located.key.at
            ));
        }
        notes.push("Conduit swallows unknown keys (src/config/mod.rs:100)".to_owned());
        let finding = self.say(
            Code::UnknownKey,
            Severity::Error,
            Effect::Ignored,
            format!("there is no key `{name}` {of}"),
            place.label("ignored without a word"),
        );
        finding.notes = notes;
        finding.fix = fix;
    }

    /// Whether no key of this name is written in the file yet, so that renaming another one to it breaks nothing.
    fn unset(&self, spec: &Spec, name: &str) -> bool {
        // Judged by the text alone: a wrong "no" costs only an automatic correction.
        spec.key(name).is_some()
            && !self.header.source.text().lines().any(|line| {
                line.trim_start()
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.trim_start().starts_with('='))
            })
    }

    /// What only a variable can get wrong; answers whether it was that.
    fn unknown_variable(&mut self, spec: &'static Spec, entry: &Entry) -> bool {
        let variable = entry.key_place.text().to_owned();
        let place = &entry.key_place;
        if variable.contains("__") {
            let mut single = variable.clone();
            while single.contains("__") {
                single = single.replace("__", "_");
            }
            let reaches = catalogue::variable_path(&single).is_some_and(|path| is_known(&path));
            let finding = self.say(
                Code::DoubleUnderscore,
                Severity::Error,
                Effect::Ignored,
                format!("`{variable}` reaches no key"),
                place.label("ignored without a word"),
            );
            finding.notes.push(
                "Conduit separates tables by a single underscore (src/main.rs:49-97)".to_owned(),
            );
            if reaches {
                finding.notes.push(format!("`{single}` was probably meant"));
                finding.fix = Some(Fix::replace(
                    format!("write `{single}`"),
                    true,
                    place,
                    single,
                ));
            }
            return true;
        }
        if spec.path != "global" {
            return false;
        }
        let unreachable = ["turn", "proxy"].into_iter().find(|table| {
            entry
                .key
                .strip_prefix(table)
                .is_some_and(|rest| rest.starts_with('_'))
        });
        if let Some(table) = unreachable {
            let example = match table {
                "turn" => r#"'{uris=["turn:…"],secret="…"}'"#,
                _ => r#"'{global={url="socks5://…"}}'"#,
            };
            self.say(
                Code::UnreachableKey,
                Severity::Error,
                Effect::Ignored,
                format!("no variable reaches into `[global.{table}]`"),
                place.label("ignored without a word"),
            )
            .notes
            .extend([
                "only `tls`, `well_known` and `media` are reached with an underscore (src/main.rs:49)".to_owned(),
                format!("the whole table can be given: `CONDUIT_{}={example}`", table.to_ascii_uppercase()),
            ]);
            return true;
        }
        let near = spec
            .keys
            .iter()
            .any(|key| likeness(&entry.key, key.name) >= 0.65)
            || elsewhere(&entry.key, Some(spec)).is_some()
            || catalogue::known_stranger("global", &entry.key).is_some();
        if near {
            return false;
        }
        if !KIT_VARIABLES.contains(&variable.to_ascii_uppercase().as_str()) {
            // Scripts have variables of this prefix too, so this is no mistake for certain.
            self.say(
                Code::UnknownKey,
                Severity::Note,
                Effect::Ignored,
                format!("Conduit reads no `{variable}`"),
                place.label("ignored without a word"),
            );
        }
        true
    }

    /// A value against its type.
    fn value(
        &mut self,
        spec: &'static Spec,
        key: &'static Key,
        takes: Type,
        node: &Node,
        key_place: &Place,
    ) {
        let fits = |ok: bool| if ok { Fit::Fits } else { Fit::WrongType };
        let fit = match takes {
            Type::Bool => fits(node.bool().is_some()),
            Type::Integer { min, max } => match node.data {
                Data::Integer(number) if (min..=max).contains(&number) => Fit::Fits,
                Data::Integer(_) => Fit::OutOfRange,
                _ => Fit::WrongType,
            },
            Type::Float => fits(matches!(node.data, Data::Integer(_) | Data::Float(_))),
            Type::ByteSize => match &node.data {
                Data::Integer(number) if u64::try_from(*number).is_ok() => Fit::Fits,
                Data::Integer(_) => Fit::OutOfRange,
                Data::Text(text) => match text.parse::<bytesize::ByteSize>() {
                    Ok(_) => Fit::Fits,
                    Err(why) => Fit::Invalid(why),
                },
                _ => Fit::WrongType,
            },
            Type::OneOf(choices) if key.name == "database_backend" => match node.text() {
                Some(text) if !choices.contains(&text) => {
                    self.backend(node, text);
                    Fit::Fits
                }
                Some(_) => Fit::Fits,
                None => Fit::WrongType,
            },
            Type::List(of) => match &node.data {
                Data::List(list) => {
                    for element in list {
                        self.element(spec, key, *of, element);
                    }
                    Fit::Fits
                }
                _ => Fit::WrongType,
            },
            Type::Table(table) => {
                if !self.whole_table(table, node, key_place) {
                    Fit::WrongType
                } else {
                    Fit::Fits
                }
            }
            Type::Turn(table) => match node.table() {
                Some(inner) => {
                    self.turn(table, inner, key_place);
                    Fit::Fits
                }
                None => Fit::WrongType,
            },
            Type::Media(table) => match node.table() {
                Some(inner) => {
                    self.media(table, inner, key_place);
                    Fit::Fits
                }
                None => Fit::WrongType,
            },
            Type::DirectoryStructure(table) => self.directory_structure(table, node, key_place),
            Type::Proxy(table) => self.proxy(table, node),
            _ => match node.text() {
                Some(text) => match invalid_text(takes, text) {
                    Some(why) => Fit::Invalid(why),
                    None => Fit::Fits,
                },
                None => Fit::WrongType,
            },
        };
        self.misfit(key, takes, node, fit);
    }

    fn element(&mut self, spec: &'static Spec, key: &'static Key, of: Type, element: &Node) {
        self.value(spec, key, of, element, &element.place.clone());
    }

    fn misfit(&mut self, key: &'static Key, takes: Type, node: &Node, fit: Fit) {
        let (code, message) = match fit {
            Fit::Fits => return,
            Fit::WrongType => (
                Code::WrongType,
                format!("`{}` takes {takes}, not {}", key.name, node.kind()),
            ),
            Fit::OutOfRange => (Code::OutOfRange, format!("`{}` takes {takes}", key.name)),
            Fit::Invalid(ref why) => (
                Code::InvalidValue,
                format!("`{}` takes {takes}: {why}", key.name),
            ),
        };
        let fix = correction(key, takes, node);
        let finding = self.say(
            code,
            Severity::Error,
            FATAL,
            message,
            node.place.label(REFUSED),
        );
        finding.notes.push(format!("{} ({})", key.effect, key.at));
        if node.from_environment() && code == Code::WrongType {
            finding.notes.push(match node.data {
                Data::Text(_) => "a variable's value is a number or a boolean only if it is written as one: no `_` in numbers, `true` and `false` for booleans".to_owned(),
                _ => "a variable's value that reads as a number, a boolean, an array or a table is one; a string of that look needs quotes of its own".to_owned(),
            });
        }
        finding.fix = fix;
    }

    /// A table, or an array in its place.
    fn whole_table(&mut self, spec: &'static Spec, node: &Node, key_place: &Place) -> bool {
        match (&node.data, spec.positional) {
            (Data::Table(table), _) => {
                self.table(spec, table, key_place);
                true
            }
            (Data::List(list), Some(least)) if list.len() >= least => {
                for (key, element) in spec.keys.iter().zip(list) {
                    self.element(spec, key, key.takes, element);
                }
                self.positional(spec, node);
                true
            }
            _ => false,
        }
    }

    fn positional(&mut self, spec: &'static Spec, node: &Node) {
        let order: Vec<_> = spec
            .keys
            .iter()
            .map(|key| format!("`{}`", key.name))
            .collect();
        self.warn(
            Code::PositionalTable,
            &node.place,
            format!("an array stands where the table `{}` belongs", spec.path),
            format!("taken by position: {}", order.join(", ")),
        );
    }

    fn turn(&mut self, spec: &'static Spec, table: &Table, key_place: &Place) {
        let credentials = ["secret", "username", "password"];
        for entry in &table.entries {
            if !credentials.contains(&entry.key.as_str()) && entry.key != value::DATE {
                self.key_in(spec, entry);
            }
        }
        if table.get("uris").is_none() {
            if let Some(key) = spec.key("uris") {
                self.missing(spec, key, key_place);
            }
        }
        let is_text = |name: &str| table.value(name).is_some_and(|node| node.text().is_some());
        if is_text("username") && is_text("password") {
            if let Some(secret) = table.get("secret") {
                self.say(
                    Code::TurnCredentials,
                    Severity::Warning,
                    Effect::Ignored,
                    "`secret` beside `username` and `password`",
                    secret
                        .key_place
                        .label("ignored: the name and the password are taken"),
                )
                .notes
                .push("write one kind of credentials (src/config/mod.rs:331)".to_owned());
            }
        } else if is_text("secret") {
            for name in ["username", "password"] {
                if let Some(entry) = table.get(name) {
                    self.say(
                        Code::TurnCredentials,
                        Severity::Warning,
                        Effect::Ignored,
                        format!("`{name}` without the other half beside `secret`"),
                        entry.key_place.label("ignored: the secret is taken"),
                    );
                }
            }
        } else if !self.partial {
            let mut related = Vec::new();
            for name in credentials {
                if let Some(node) = table.value(name) {
                    if node.text().is_none() {
                        related.push(
                            node.place
                                .label(format!("this is {}, not a string", node.kind())),
                        );
                    }
                }
            }
            let finding = self.say(
                Code::TurnWithoutCredentials,
                Severity::Error,
                FATAL,
                "`[global.turn]` has no usable credentials",
                key_place.label(REFUSED),
            );
            finding.related = related;
            finding.notes.push("give `secret`, or both `username` and `password`, as strings (src/config/mod.rs:331)".to_owned());
        }
    }

    fn media(&mut self, spec: &'static Spec, table: &Table, key_place: &Place) {
        for entry in &table.entries {
            // The real server's reader takes an index here, but only from a variable.
            let index = entry.key == "backend"
                && entry.value.from_environment()
                && matches!(entry.value.data, Data::Integer(0))
                && !entry.value.place.text().contains('-');
            if entry.key != value::DATE && !index {
                self.key_in(spec, entry);
            }
        }
        if self.partial || table.get("backend").is_some() {
            return;
        }
        let mut fix = None;
        let first = table.entries.first();
        let in_file = key_place.source.kind() == Kind::Conduit;
        if in_file {
            let text = key_place.source.text();
            let plain = text[..key_place.span.start]
                .rfind('\n')
                .map_or(0, |at| at + 1);
            let line = text[plain..].lines().next().unwrap_or("");
            let edit = if line.trim_start().starts_with("[[") || line.contains("media.") {
                // The table exists only through what lies below it: it gets a header of its own.
                Some((plain, "[global.media]\nbackend = \"filesystem\"\n\n"))
            } else {
                after_header(text, key_place.span.end).map(|at| (at, "backend = \"filesystem\"\n"))
            };
            fix = edit.map(|(at, line)| {
                Fix::replace(
                    "write `backend = \"filesystem\"` in `[global.media]`",
                    true,
                    &Place::new(&key_place.source, at..at),
                    line,
                )
            });
        }
        let finding = self.say(
            Code::MediaWithoutBackend,
            Severity::Error,
            FATAL,
            "`[global.media]` without `backend`",
            key_place.label("refused: `missing field 'backend'` (exit 1)"),
        );
        finding.notes.push("`backend = \"filesystem\"` is required as soon as anything of `media` is given, although upstream's documentation calls it a default (src/config/mod.rs:348)".to_owned());
        if let (false, Some(entry)) = (in_file, first) {
            finding
                .notes
                .push(format!("`{}` makes the table", entry.key_place.text()));
        }
        finding.fix = fix;
    }

    fn directory_structure(&mut self, spec: &'static Spec, node: &Node, key_place: &Place) -> Fit {
        let number = |node: Option<&Node>| match node.map(|node| &node.data) {
            Some(Data::Integer(number)) if (1..=255).contains(number) => Some(*number),
            _ => None,
        };
        let (pair, given) = match &node.data {
            Data::Table(table) => {
                for entry in table
                    .entries
                    .iter()
                    .filter(|entry| spec.key(&entry.key).is_none())
                {
                    if entry.key != value::DATE {
                        self.unknown(spec, entry);
                    }
                }
                (
                    number(table.value("length")).zip(number(table.value("depth"))),
                    table
                        .entries
                        .iter()
                        .any(|entry| spec.key(&entry.key).is_some()),
                )
            }
            _ => return Fit::WrongType,
        };
        match pair {
            Some((length, depth)) if length * depth >= 64 => {
                self.say(
                    Code::DirectoryStructure,
                    Severity::Error,
                    FATAL,
                    format!("{length} times {depth} is {}, not below 64", length * depth),
                    key_place.label(REFUSED),
                )
                .notes
                .push("a file's name is 64 characters long, and each sub-directory takes `length` of them (src/config/mod.rs:545)".to_owned());
            }
            None if given => {
                self.say(
                    Code::FlatByMistake,
                    Severity::Error,
                    Effect::Ignored,
                    "`length` and `depth` are not both integers from 1 to 255",
                    key_place.label("taken for an empty table: all media in one directory"),
                )
                .notes
                .push("Conduit tries the two numbers, and where that fails, an empty table (src/config/mod.rs:529)".to_owned());
            }
            _ => {}
        }
        Fit::Fits
    }

    fn proxy(&mut self, spec: &'static Spec, node: &Node) -> Fit {
        let table = match &node.data {
            Data::Text(text) if text == "none" => return Fit::Fits,
            Data::Text(text) => return Fit::Invalid(format!("`{text}` is neither")),
            Data::Table(table) => table,
            _ => return Fit::WrongType,
        };
        // Conduit takes the first key in the order of the alphabet, and never looks at the others.
        let Some(first) = table.entries.iter().min_by(|a, b| a.key.cmp(&b.key)) else {
            return Fit::Invalid("it is empty".to_owned());
        };
        let Some(key) = spec.key(&first.key) else {
            return Fit::Invalid(format!("`{}` is neither", first.key));
        };
        for other in table.entries.iter().filter(|entry| entry.key != first.key) {
            let winner = first.key_place.label("this one is taken");
            self.say(
                Code::Overridden,
                Severity::Error,
                Effect::Ignored,
                format!("`{}` beside `{}` in `[global.proxy]`", other.key, first.key),
                other.key_place.label("ignored without a word"),
            )
            .related
            .push(winner);
        }
        self.value(spec, key, key.takes, &first.value, &first.key_place);
        if first.key == "global" {
            let url = first
                .value
                .table()
                .and_then(|table| table.value("url"))
                .or_else(|| first.value.list().and_then(|list| list.first()));
            if let Some((node, url)) =
                url.and_then(|node| Some((node, url::Url::parse(node.text()?).ok()?)))
            {
                let socks = ["socks5", "socks5h"].contains(&url.scheme());
                let nameless = socks && url.host_str().is_none_or(str::is_empty);
                if !(socks || ["http", "https"].contains(&url.scheme())) || nameless {
                    let what = if nameless {
                        format!("`{url}` names no host")
                    } else {
                        format!("`{}` is no scheme that a proxy has", url.scheme())
                    };
                    self.say(
                        Code::ProxyScheme,
                        Severity::Error,
                        FATAL,
                        what,
                        node.place
                            .label("refused after the database was made (exit 1)"),
                    )
                    .notes
                    .push(
                        "http, https, socks5 and socks5h work (src/config/proxy.rs:43, reqwest)"
                            .to_owned(),
                    );
                } else if let (true, Some(url::Host::Domain(name))) = (socks, url.host()) {
                    self.warn(
                        Code::ProxyHost,
                        &node.place,
                        format!("the proxy's name `{name}` is looked up at the start"),
                        "where that fails, the server does not start (exit 1); an address does not change later",
                    )
                    .notes
                    .push("the name of an http or https proxy is looked up for each request instead".to_owned());
                }
            }
        }
        Fit::Fits
    }

    fn backend(&mut self, node: &Node, text: &str) {
        let near = catalogue::BACKENDS
            .iter()
            .map(|backend| (likeness(text.trim(), backend), *backend))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness >= 0.6);
        let fix = near.map(|(likeness, backend)| {
            Fix::replace(
                format!("write `{backend}`"),
                likeness > 0.99,
                &node.place,
                written(node, &Data::Text(backend.to_owned())),
            )
        });
        let finding = self.say(
            Code::UnknownBackend,
            Severity::Error,
            FATAL,
            format!("there is no storage engine `{text}`"),
            node.place.label("refused: `Database backend not found.` (exit 1), after the data directory was made"),
        );
        finding
            .notes
            .push("`rocksdb` is recommended, `sqlite` exists (src/database/mod.rs:284)".to_owned());
        finding.fix = fix;
    }

    // What the values mean.

    fn names(&mut self, table: &Table) {
        let Some((node, name)) = text_at(table, &["server_name"]) else {
            return;
        };
        if invalid_text(Type::ServerName, name).is_some() {
            return;
        }
        if name.len() > 246 {
            self.say(
                Code::LongServerName,
                Severity::Error,
                PANIC,
                format!("a server name of {} bytes", name.len()),
                node.place.label("panics after the database was made (exit 101): `@conduit:…` may have 255 bytes"),
            )
            .notes
            .push("246 bytes are the most (src/service/globals/mod.rs:200)".to_owned());
        }
        let host = name
            .rsplit_once(':')
            .filter(|(host, _)| {
                !host.ends_with(':') && (!host.starts_with('[') || host.ends_with(']'))
            })
            .map_or(name, |(host, _)| host);
        let odd = if host.is_empty() {
            Some("it has no host, so that nobody can find it")
        } else if name.chars().any(|char| char.is_ascii_uppercase()) {
            Some("capital letters make it another name than the one that DNS and other servers use")
        } else if host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
            Some("an address cannot be delegated nor moved to another machine")
        } else {
            None
        };
        if let Some(odd) = odd {
            self.warn(
                Code::ServerName,
                &node.place,
                format!("`{name}` as a server name"),
                odd,
            )
            .notes
            .push(
                "it is part of every user id and can never be changed (src/database/mod.rs:445)"
                    .to_owned(),
            );
        }
    }

    fn database(&mut self, table: &Table) {
        let backend = text_at(table, &["database_backend"]);
        if let Some((node, "sqlite")) = backend {
            self.warn(
                Code::SqliteBackend,
                &node.place,
                "SQLite as the storage engine",
                "two servers can open this database at once, without a lock between them",
            )
            .notes
            .extend([
                "`rocksdb` is upstream's recommendation and locks its directory (docs/configuration.md)".to_owned(),
                "nothing converts one into the other later".to_owned(),
            ]);
        }
        if let Some((node, path)) = text_at(table, &["database_path"]) {
            let name = path
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or(path);
            if path.is_empty() {
                let rocksdb = matches!(backend, Some((_, "rocksdb")));
                let effect = if rocksdb { FATAL } else { Effect::InForce };
                self.say(
                    Code::DatabasePath,
                    Severity::Error,
                    effect,
                    "an empty database path",
                    node.place.label(if rocksdb {
                        "refused: RocksDB opens no nameless directory (exit 1)"
                    } else {
                        "the database lies where the server is started"
                    }),
                );
            } else if [".db", ".sqlite", ".sqlite3"]
                .iter()
                .any(|ending| name.ends_with(ending))
            {
                let shorter = path
                    .trim_end_matches('/')
                    .strip_suffix(name)
                    .unwrap_or("")
                    .trim_end_matches('/')
                    .to_owned();
                self.warn(
                    Code::DatabasePath,
                    &node.place,
                    format!("`database_path` is a directory, not a file like `{name}`"),
                    format!("a directory `{name}/` is made, with the database inside"),
                )
                .notes
                .extend([
                    format!("`{}` was probably meant, for a new server", if shorter.is_empty() { "/var/lib/matrix-conduit" } else { &shorter }),
                    format!("on an existing server do not shorten it: what is left there as `conduit.db` is taken for a SQLite database, and Conduit exits 1 (src/database/mod.rs:233); move the contents of `{name}/` up first"),
                ]);
            } else if path.starts_with('~') || path.contains('$') {
                self.warn(
                    Code::DatabasePath,
                    &node.place,
                    "a database path with a `~` or a `$`",
                    "taken literally: no shell reads it",
                );
            }
        }
        for path in [
            &["database_path"][..],
            &["media", "path"],
            &["tls", "certs"],
            &["tls", "key"],
        ] {
            if let Some((node, text)) = text_at(table, path) {
                if !text.is_empty() && !text.starts_with(['/', '~', '$']) {
                    let name = path.join(".");
                    self.warn(
                        Code::RelativePath,
                        &node.place,
                        format!("`{name}` is a relative path"),
                        "counted from where the server is started: another directory, another server",
                    );
                }
            }
        }
    }

    fn registration(&mut self, table: &Table) {
        let open = table
            .at(&["allow_registration"])
            .filter(|node| node.bool() == Some(true));
        let token = text_at(table, &["registration_token"]);
        match (open, token) {
            (_, Some((node, ""))) => {
                let open =
                    open.map(|node| node.place.label("without a token anybody could register"));
                let finding = self.say(
                    Code::EmptyToken,
                    Severity::Error,
                    FATAL,
                    "an empty registration token",
                    node.place.label("refused: `Registration token is empty` (exit 1), after the database was made"),
                );
                finding.related.extend(open);
                finding.notes.extend([
                    "write a long random token, or remove the line and close registration; upstream's example ships it empty (src/database/mod.rs:295)".to_owned(),
                    "what was made in the data directory stays; the next start uses it".to_owned(),
                ]);
            }
            (Some(open), None) if !self.partial => {
                self.warn(
                    Code::OpenRegistration,
                    &open.place,
                    "registration is open to anybody",
                    "no token is asked for, and guests need nothing at all",
                )
                .notes
                .extend([
                    "the first account that registers becomes the administrator (src/api/client_server/account.rs:273)".to_owned(),
                    "give a `registration_token`, or close registration".to_owned(),
                ]);
            }
            (None, Some((node, _))) if !self.partial => {
                self.say(
                    Code::TokenWithoutRegistration,
                    Severity::Warning,
                    Effect::Ignored,
                    "a registration token while registration is closed",
                    node.place.label("without effect: every registration is answered 403"),
                )
                .notes
                .push("it comes into force when an administrator says `allow-registration true` in `#admins`, until the next start".to_owned());
            }
            _ => {}
        }
    }

    fn listener(&mut self, table: &Table) {
        let tls = table.at(&["tls"]);
        let address = text_at(table, &["address"])
            .and_then(|(node, text)| Some((node, text.parse::<std::net::IpAddr>().ok()?)));
        let loopback = address
            .as_ref()
            .is_none_or(|(_, address)| address.is_loopback());
        let port = match table.at(&["port"]).map(|node| (node, &node.data)) {
            Some((node, Data::Integer(port))) => Some((node, *port)),
            _ => None,
        };
        if let (Some((node, _)), false, None, false) = (&address, loopback, tls, self.partial) {
            let finding = self.warn(
                Code::PlainHttpExposed,
                &node.place,
                "plain HTTP on an address that others reach",
                "passwords and tokens cross the network in clear",
            );
            finding.notes.push("listen on 127.0.0.1 behind a proxy that has TLS; in a container, publish the port to loopback only".to_owned());
        }
        if let Some((node, 0)) = port {
            self.warn(
                Code::RandomPort,
                &node.place,
                "port 0",
                "another free port at each start, which nobody is told",
            );
        }
        if let (Some((node, 8448)), true, false) = (port, loopback, self.partial) {
            self.warn(
                Code::FederationPort,
                &node.place,
                "the federation port on loopback",
                "no other server reaches it, and no proxy can take 8448 on all addresses",
            )
            .notes
            .push("Conduit has one port for everything; 6167 behind a proxy that owns 443 and 8448 is customary".to_owned());
        }
        let Some(tls) = tls else { return };
        if loopback && !self.partial {
            let place = tls.place.clone();
            let finding = self.warn(
                Code::TlsOnLoopback,
                &place,
                "HTTPS on loopback",
                "a proxy must speak HTTPS to it and trust the certificate; plain HTTP is not answered",
            );
            if let Some((node, _)) = &address {
                finding
                    .related
                    .push(node.place.label("only this machine reaches it"));
            }
            finding.notes.push(
                "certificates are read once, at the start: a renewal needs a restart".to_owned(),
            );
        }
        for name in ["certs", "key"] {
            if let Some((node, "")) = text_at(table, &["tls", name]) {
                self.say(
                    Code::TlsFiles,
                    Severity::Error,
                    PANIC,
                    format!("`tls.{name}` is empty"),
                    node.place
                        .label("panics after the database was opened (exit 101)"),
                );
            }
        }
    }

    fn federation(&mut self, table: &Table) {
        if !self.partial && table.get("allow_federation").is_none() {
            let fix = self.insertion("allow_federation = true", false);
            let place = self.header.clone();
            let finding = self.say(
                Code::ImplicitFederation,
                Severity::Warning,
                Effect::None,
                "nothing says whether the server federates",
                place.label("`allow_federation` is missing: federation is off"),
            );
            finding.notes.push("the default is `false` in the code, whatever docs/configuration.md:45 says (src/config/mod.rs:62)".to_owned());
            finding.fix = fix;
        }
        match table.get("allow_check_for_updates") {
            None if self.partial => {}
            None => {
                let fix = self.insertion("allow_check_for_updates = false", false);
                let place = self.header.clone();
                let finding = self.say(
                    Code::UpdateCheck,
                    Severity::Warning,
                    Effect::None,
                    "nothing says whether the server looks for updates",
                    place.label(
                        "`allow_check_for_updates` is missing: conduit.rs is asked every hour",
                    ),
                );
                finding.notes.push(UPDATE_CHECK.to_owned());
                finding.fix = fix;
            }
            Some(entry) if entry.value.bool() == Some(true) => {
                self.warn(
                    Code::UpdateCheck,
                    &entry.value.place,
                    "the server looks for updates",
                    "conduit.rs is asked at the start and every hour",
                )
                .notes
                .push(UPDATE_CHECK.to_owned());
            }
            Some(_) => {}
        }
    }

    fn well_known(&mut self, table: &Table) {
        // Without the server's name nothing can be compared; `text_at` then finds none.
        let name = text_at(table, &["server_name"]).map(|(_, name)| name);
        let server = text_at(table, &["well_known", "server"]);
        let client = text_at(table, &["well_known", "client"]);
        let url = client.and_then(|(node, text)| Some((node, url::Url::parse(text).ok()?)));
        if let Some((node, url)) = &url {
            if url.scheme() != "https" || url.host_str().is_none_or(str::is_empty) {
                self.warn(
                    Code::WellKnown,
                    &node.place,
                    "`well_known.client` is no address that a client can use",
                    format!("clients are told `{url}`"),
                )
                .notes
                .push("it is an `https://` URL with a host".to_owned());
            }
        }
        let host = |server: &str| {
            server
                .rsplit_once(':')
                .map_or(server, |(host, _)| host)
                .to_owned()
        };
        if let Some((node, server)) = server {
            if !server.contains(':') {
                self.say(
                    Code::WellKnown,
                    Severity::Note,
                    Effect::InForce,
                    "`well_known.server` without a port",
                    node.place
                        .label("other servers look for an SRV record, then use 8448"),
                )
                .notes
                .push("with `:443` they use the port of the client API".to_owned());
            }
            if client.is_none() && name.is_some_and(|name| host(name) != host(server)) {
                self.warn(
                    Code::WellKnown,
                    &node.place,
                    "`well_known.server` is given, `well_known.client` is not",
                    "clients are still told `https://<server_name>`, another host",
                );
            }
        }
        if let (Some((node, url)), None) = (&url, server) {
            if name.is_some_and(|name| url.host_str().is_some_and(|client| client != host(name))) {
                self.warn(
                    Code::WellKnown,
                    &node.place,
                    "`well_known.client` is given, `well_known.server` is not",
                    "other servers are still told `<server_name>:443`, another host",
                );
            }
        }
    }

    fn limits(&mut self, table: &Table) {
        let integer = |name: &str| match table
            .get(name)
            .map(|entry| (&entry.value, &entry.value.data))
        {
            Some((node, Data::Integer(number))) => Some((node, *number)),
            _ => None,
        };
        if let Some((node, size)) = integer("max_request_size") {
            if (0..1024).contains(&size) {
                self.warn(
                    Code::RequestSize,
                    &node.place,
                    "a request may have less than 1 KiB",
                    "the server logs an error and starts; hardly any request fits",
                )
                .notes
                .push("the unit is bytes (src/database/mod.rs:299)".to_owned());
            } else if (1024..1024 * 1024).contains(&size) {
                self.warn(
                    Code::RequestSize,
                    &node.place,
                    "a request may have less than 1 MiB",
                    "transactions of other servers and most uploads are refused",
                )
                .notes
                .push(
                    "the unit is bytes, and it limits every request, not uploads alone".to_owned(),
                );
            }
        }
        if let Some((node, 0)) = integer("max_concurrent_requests") {
            self.say(
                Code::NothingSent,
                Severity::Error,
                Effect::InForce,
                "no request may be sent at all",
                node.place.label("federation, bridges and push stand still"),
            )
            .notes
            .push("it counts the server's own requests, not those of clients (src/service/sending/mod.rs:110)".to_owned());
        }
        if let Some((node, 0)) = integer("cleanup_second_interval") {
            self.say(
                Code::CleanupPanics,
                Severity::Error,
                Effect::InForce,
                "a clean-up interval of 0",
                node.place.label(
                    "the clean-up task panics at the start, and a SIGHUP then ends the server",
                ),
            )
            .notes
            .push("a timer needs at least one second (src/database/mod.rs:1221)".to_owned());
        }
        for name in [
            "pdu_cache_capacity",
            "db_cache_capacity_mb",
            "conduit_cache_capacity_modifier",
        ] {
            let none = match table.at(&[name]).map(|node| &node.data) {
                Some(Data::Integer(number)) => *number <= 0 && *number >= i128::from(i64::MIN),
                Some(Data::Float(number)) => *number <= 0.0 || number.is_nan(),
                _ => false,
            };
            if let (true, Some(node)) = (none, table.value(name)) {
                self.warn(
                    Code::CacheOff,
                    &node.place,
                    format!("`{name}` leaves no cache"),
                    "everything is read from disk each time",
                );
            }
        }
        if let Some((node, version)) = text_at(table, &["default_room_version"]) {
            let unstable = catalogue::UNSTABLE_ROOM_VERSIONS.contains(&version);
            let allowed = table
                .at(&["allow_unstable_room_versions"])
                .is_none_or(|node| node.bool() == Some(true));
            if unstable && allowed {
                self.warn(
                    Code::RoomVersion,
                    &node.place,
                    format!("room version {version} for new rooms"),
                    "it has known weaknesses; 12 is the default",
                );
            } else if !catalogue::STABLE_ROOM_VERSIONS.contains(&version)
                && invalid_text(Type::RoomVersion, version).is_none()
            {
                self.say(
                    Code::RoomVersion,
                    Severity::Error,
                    Effect::Ignored,
                    format!("room version `{version}` is not supported"),
                    node.place.label("replaced: the server logs an error and takes 12"),
                )
                .notes
                .push("6 to 12 are, 3 to 5 with `allow_unstable_room_versions` (src/service/globals/mod.rs:183)".to_owned());
            }
        }
    }

    fn logs(&mut self, table: &Table) {
        let on = |name: &str| {
            table
                .get(name)
                .filter(|entry| entry.value.bool() == Some(true))
        };
        let (jaeger, flame) = (on("allow_jaeger"), on("tracing_flame"));
        if let Some(entry) = jaeger {
            self.warn(
                Code::LogsReplaced,
                &entry.value.place,
                "traces are sent instead of logs being written",
                "nothing appears in the journal any more",
            )
            .notes
            .push("the three are alternatives (src/main.rs:109-170)".to_owned());
        }
        match (jaeger, flame) {
            (Some(jaeger), Some(flame)) => {
                let winner = jaeger.value.place.label("this one is taken");
                self.say(
                    Code::Overridden,
                    Severity::Warning,
                    Effect::Ignored,
                    "`tracing_flame` beside `allow_jaeger`",
                    flame.value.place.label("ignored"),
                )
                .related
                .push(winner);
            }
            (None, Some(flame)) => {
                self.warn(
                    Code::LogsReplaced,
                    &flame.value.place,
                    "a flame graph's data are written instead of logs",
                    "nothing appears in the journal; `tracing.folded` grows where the server is started",
                )
                .notes
                .push("where that directory is read-only (`ProtectSystem=strict`), the server panics (src/main.rs:147)".to_owned());
            }
            _ => {}
        }
        let Some((node, log)) = text_at(table, &["log"]) else {
            return;
        };
        const LEVELS: [&str; 12] = [
            "off", "error", "warn", "info", "debug", "trace", "0", "1", "2", "3", "4", "5",
        ];
        let level = |text: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
        for directive in log
            .split(',')
            .map(str::trim)
            .filter(|directive| !directive.is_empty())
        {
            if directive.contains(['[', '{']) {
                continue;
            }
            match directive.split_once('=') {
                Some((_, of))
                    if !of.is_empty()
                        && of.bytes().all(|byte| byte.is_ascii_alphanumeric())
                        && !level(of) =>
                {
                    self.say(
                        Code::LogFilter,
                        Severity::Error,
                        Effect::Ignored,
                        format!("`{of}` is no log level"),
                        node.place.label("the whole filter is replaced by `warn`"),
                    )
                    .notes
                    .push("off, error, warn, info, debug and trace are".to_owned());
                }
                None if !level(directive)
                    && LEVELS[..6].iter().any(|level| {
                        likeness(directive, level) >= 0.6
                            || directive.to_lowercase().starts_with(level)
                    }) =>
                {
                    self.warn(
                        Code::LogFilter,
                        &node.place,
                        format!("`{directive}` is no log level"),
                        "taken for the name of a module, of which everything is logged",
                    )
                    .notes
                    .push("off, error, warn, info, debug and trace are".to_owned());
                }
                _ => {}
            }
        }
    }

    fn turn_legacy(&mut self, table: &Table) {
        let given: Vec<&Entry> = table
            .entries
            .iter()
            .filter(|entry| {
                catalogue::GLOBAL
                    .key(&entry.key)
                    .is_some_and(|key| matches!(key.status, Status::Deprecated { .. }))
            })
            .collect();
        let Some(first) = given.first() else { return };
        if let Some(turn) = table.get("turn") {
            for entry in given {
                self.say(
                    Code::Overridden,
                    Severity::Warning,
                    Effect::Ignored,
                    format!("`{}` beside `[global.turn]`", entry.key),
                    entry.key_place.label("ignored"),
                )
                .related
                .push(turn.key_place.label("this table is taken as a whole"));
            }
            return;
        }
        let is_text = |name: &str| text_at(table, &[name]).is_some();
        let secret = is_text("turn_secret");
        let pair = is_text("turn_username") && is_text("turn_password");
        let uris = table.get("turn_uris").is_some();
        if self.partial {
            return;
        }
        if !uris || !(secret || pair) {
            let lacks = if !uris {
                "`turn_uris`"
            } else {
                "`turn_secret`, or both `turn_username` and `turn_password`"
            };
            let place = first.key_place.clone();
            self.say(
                Code::IncompleteTurn,
                Severity::Error,
                Effect::Ignored,
                format!("the TURN settings lack {lacks}"),
                place.label("dropped: clients are told of no TURN server (404)"),
            )
            .notes
            .push("Conduit takes all of them or none (src/config/mod.rs:197)".to_owned());
        } else if secret {
            for name in ["turn_username", "turn_password"] {
                if let Some(entry) = table.get(name) {
                    self.say(
                        Code::TurnCredentials,
                        Severity::Warning,
                        Effect::Ignored,
                        format!("`{name}` beside `turn_secret`"),
                        entry.key_place.label("ignored: the secret is taken"),
                    );
                }
            }
        }
        for entry in given
            .into_iter()
            .filter(|entry| !entry.value.from_environment())
        {
            if let Some(Status::Deprecated { instead }) =
                catalogue::GLOBAL.key(&entry.key).map(|key| key.status)
            {
                self.warn(
                    Code::DeprecatedKey,
                    &entry.key_place,
                    format!("`{}` is deprecated", entry.key),
                    "works as yet; upstream means to warn and never does",
                )
                .notes
                .push(format!("write `{instead}` (src/config/mod.rs:557)"));
            }
        }
    }

    fn secrets(&mut self, table: &Table) {
        if let Some((node, password)) = text_at(table, &["emergency_password"]) {
            self.warn(
                Code::EmergencyPassword,
                &node.place,
                "the emergency password is set",
                "whoever knows it logs in as `@conduit`, who may do everything",
            )
            .notes
            .push("remove it once it was used, and log its sessions out: they outlive it (src/database/mod.rs:1456)".to_owned());
            self.weak(node, "emergency_password", password, 12);
        }
        if let Some((node, secret)) = text_at(table, &["jwt_secret"]) {
            self.weak(node, "jwt_secret", secret, 32);
        }
        if let Some((node, token)) = text_at(table, &["registration_token"]) {
            if !token.is_empty() {
                self.weak(node, "registration_token", token, 8);
            }
        }
        for path in [
            &["server_name"][..],
            &["registration_token"],
            &["turn", "secret"],
            &["turn_secret"],
            &["jwt_secret"],
            &["emergency_password"],
            &["well_known", "server"],
            &["well_known", "client"],
        ] {
            if let Some((node, text)) = text_at(table, path) {
                let plain = text.to_lowercase();
                if PLACEHOLDERS
                    .iter()
                    .any(|placeholder| plain.contains(placeholder))
                {
                    let name = path.join(".");
                    self.warn(
                        Code::Placeholder,
                        &node.place,
                        format!("`{name}` still has the text of an example"),
                        "put your own in its place",
                    );
                }
            }
        }
    }

    fn weak(&mut self, node: &Node, name: &str, secret: &str, least: usize) {
        if secret.len() >= least {
            return;
        }
        let why = match name {
            "jwt_secret" => {
                "whoever guesses it logs in as any account; nothing slows the guessing down"
            }
            "registration_token" => "can be guessed: Conduit limits no attempts",
            _ => "can be guessed: Conduit limits no logins",
        };
        self.warn(
            Code::WeakSecret,
            &node.place,
            format!("`{name}` has {} bytes", secret.len()),
            why,
        )
        .notes
        .push(format!(
            "take {least} or more random ones: `openssl rand -base64 32`"
        ));
    }

    fn ignored_keys(&mut self, table: &Table) {
        let Some(entry) = table.get("ignored_keys") else {
            return;
        };
        let Some(list) = entry.value.list() else {
            return;
        };
        let listed = list.iter().any(|node| {
            let key = node
                .table()
                .and_then(|table| table.value("key"))
                .or_else(|| node.list().and_then(|list| list.first()));
            key.and_then(Node::text)
                .is_some_and(|text| text.trim_end_matches('=') == COMPROMISED_KEY)
        });
        if !listed && !list.iter().any(|node| node.text().is_some()) {
            self.warn(
                Code::CompromisedKey,
                &entry.key_place,
                "`ignored_keys` replaces the default list",
                "the compromised key of Element Server Suite is not on it",
            )
            .notes
            .push(format!(
                "add `{{ key = \"{COMPROMISED_KEY}\" }}` (GHSA-qwcj-h6m8-vp6q)"
            ));
        }
    }

    fn retention(&mut self, table: &Table) {
        let Some(list) = table.at(&["media", "retention"]).and_then(Node::list) else {
            return;
        };
        let mut seen = BTreeSet::new();
        for node in list {
            let Some(entry) = node.table() else { continue };
            let scope = entry.get("scope");
            let scope_text = match scope.map(|scope| scope.value.text()) {
                Some(None) => continue,
                Some(Some(text)) => Some(text.to_owned()),
                None => None,
            };
            if !seen.insert(scope_text.clone()) {
                let place = scope
                    .map_or(&node.place, |scope| &scope.value.place)
                    .clone();
                let named = scope_text.as_ref().map_or("no scope".to_owned(), |scope| {
                    format!("the scope `{scope}`")
                });
                self.say(
                    Code::RepeatedScope,
                    Severity::Error,
                    Effect::Ignored,
                    format!("a second retention of {named}"),
                    place.label("ignored: the first one counts"),
                )
                .notes
                .push("Conduit keeps one entry per scope (src/config/mod.rs:449)".to_owned());
                continue;
            }
            if scope_text.is_none() {
                let space = entry.get("space").is_some();
                let finding = self.say(
                    Code::RetentionWithoutScope,
                    Severity::Error,
                    Effect::InForce,
                    "a media retention without `scope`",
                    node.place.label(if space {
                        "a bound on everything: what people here uploaded is deleted too"
                    } else {
                        "deletes what people here uploaded, and nothing else"
                    }),
                );
                finding.notes.extend([
                    "remote media and thumbnails have a default of their own, so that only `local` is left for it (src/config/mod.rs:404-441)".to_owned(),
                    "write `scope = \"remote\"`, `\"thumbnail\"` or `\"local\"`; local uploads exist nowhere else".to_owned(),
                ]);
            }
            for name in ["accessed", "created"] {
                if let Some((value, text)) = entry
                    .value(name)
                    .and_then(|node| Some((node, node.text()?)))
                {
                    if humantime::parse_duration(text).is_ok_and(|duration| duration.is_zero()) {
                        self.warn(
                            Code::RetentionAtOnce,
                            &value.place,
                            format!("`{name}` of no time at all"),
                            "media is deleted at the next clean-up, at most a minute later",
                        );
                    }
                }
            }
        }
    }
}

const UPDATE_CHECK: &str = "it posts what it is told into `#admins`, and gives a restore drill away; there is no other call home (src/database/mod.rs:1162)";
const COMPROMISED_KEY: &str = "l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og";
const PLACEHOLDERS: [&str; 6] = [
    "your.server.name",
    "your.turn.url",
    "add secret here",
    "changeme",
    "change_me",
    "change-me",
];
/// Variables of this kit's own scripts, which have Conduit's prefix and are not meant for it.
const KIT_VARIABLES: [&str; 8] = [
    "CONDUIT_API",
    "CONDUIT_HEALTHY_WITHIN",
    "CONDUIT_IDENTITY",
    "CONDUIT_MIN_FREE_INODES",
    "CONDUIT_MIN_FREE_MB",
    "CONDUIT_ROOT",
    "CONDUIT_START_WAIT",
    "CONDUIT_VERSION",
];

enum Fit {
    Fits,
    WrongType,
    OutOfRange,
    Invalid(String),
}

/// Whether a path below `global` is in the catalogue.
pub(crate) fn is_known(path: &[String]) -> bool {
    let mut spec = &catalogue::GLOBAL;
    for (at, name) in path.iter().enumerate() {
        let Some(key) = spec.key(name) else {
            return false;
        };
        if at + 1 == path.len() {
            return key.status != Status::Next;
        }
        match key.takes.table() {
            Some(below) => spec = below,
            None => return false,
        }
    }
    false
}

fn text_at<'a>(table: &'a Table, path: &[&str]) -> Option<(&'a Node, &'a str)> {
    let node = table.at(path)?;
    Some((node, node.text()?))
}

/// Why a text is not what a type takes; `None` if it is.
pub fn invalid_text(takes: Type, text: &str) -> Option<String> {
    match takes {
        Type::IpAddress => text.parse::<std::net::IpAddr>().err().map(|_| {
            if text == "localhost"
                || text.chars().any(|char| char.is_ascii_alphabetic()) && !text.contains(':')
            {
                "a name is not looked up".to_owned()
            } else if text.starts_with('[') {
                "brackets do not belong to it".to_owned()
            } else {
                "this is none".to_owned()
            }
        }),
        Type::ServerName => server_name(text).err().map(str::to_owned),
        Type::Url => url::Url::parse(text).err().map(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => {
                "the scheme is missing, such as `https://`".to_owned()
            }
            error => error.to_string(),
        }),
        Type::RoomVersion => {
            let valid = !text.is_empty()
                && text.chars().count() <= 32
                && text
                    .chars()
                    .all(|char| char.is_ascii_alphanumeric() || ".-".contains(char));
            (!valid).then(|| "1 to 32 of letters, digits, `.` and `-`".to_owned())
        }
        Type::Duration => humantime::parse_duration(text)
            .err()
            .map(|error| error.to_string()),
        Type::Base64 => {
            use base64::Engine;
            use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
            let config = GeneralPurposeConfig::new()
                .with_decode_allow_trailing_bits(true)
                .with_decode_padding_mode(DecodePaddingMode::Indifferent);
            GeneralPurpose::new(&base64::alphabet::STANDARD, config)
                .decode(text)
                .err()
                .map(|error| error.to_string())
        }
        Type::OneOf(choices) => (!choices.contains(&text)).then(|| format!("`{text}` is none")),
        _ => None,
    }
}

/// A server name as the Ruma that Conduit 0.10.12 is built with takes it (later ones refuse an empty host).
fn server_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let end = if let Some(rest) = text.strip_prefix('[') {
        let (address, _) = rest.split_once(']').ok_or("the bracket is not closed")?;
        address
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| "no IPv6 address between the brackets")?;
        address.len() + 2
    } else {
        let end = text.find(':').unwrap_or(text.len());
        if text.starts_with("http:") || text.starts_with("https:") {
            return Err("a URL is not a server name: leave the scheme out");
        }
        if !text[..end]
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
        {
            return Err("a host has only letters, digits, `-` and `.`");
        }
        end
    };
    match text[end..].strip_prefix(':') {
        Some(port) if port.parse::<u16>().is_ok() => Ok(()),
        None if text.len() == end => Ok(()),
        _ => Err("only a port may follow the host"),
    }
}

/// A value as it is written in its kind of file.
fn written(node: &Node, data: &Data) -> String {
    let environment = node.place.source.kind() == Kind::Environment;
    match data {
        Data::Text(text) if environment => {
            // Inner quotes keep figment from reading a number, outer ones keep systemd from taking the inner ones.
            format!("'\"{text}\"'")
        }
        Data::Text(text) => toml_edit::Value::from(text.as_str()).to_string(),
        Data::Integer(number) => number.to_string(),
        Data::Bool(bool) => bool.to_string(),
        _ => node.place.text().to_owned(),
    }
}

/// The value that was meant, where it is mistyped in a way that has one meaning.
fn correction(key: &Key, takes: Type, node: &Node) -> Option<Fix> {
    // A word of a unit's `Environment=` may be quoted with its name; that is left to a person.
    if node.place.source.kind() == Kind::Unit {
        return None;
    }
    let plain_text = |text: &str| !text.contains(['\'', '"', '\\', '\n', '$', '`']);
    let raw = node.place.text().trim();
    let meant = match (takes, &node.data) {
        (Type::Bool, Data::Text(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Data::Bool(true),
            "false" | "no" | "off" => Data::Bool(false),
            _ => return None,
        },
        (Type::Bool, Data::Integer(number @ (0 | 1))) if node.from_environment() => {
            Data::Bool(*number == 1)
        }
        (Type::Integer { min, max }, Data::Text(text)) => {
            let number = text.trim().replace('_', "").parse::<i128>().ok()?;
            if !(min..=max).contains(&number) {
                return None;
            }
            Data::Integer(number)
        }
        (Type::Float, Data::Text(text)) => {
            Data::Integer(text.trim().replace('_', "").parse::<i64>().ok()?.into())
        }
        (Type::Text, Data::Integer(_) | Data::Bool(_) | Data::Float(_))
            if node.from_environment() && plain_text(raw) =>
        {
            Data::Text(raw.to_owned())
        }
        (Type::RoomVersion, Data::Integer(number)) => Data::Text(number.to_string()),
        (Type::List(Type::Text | Type::ServerName), Data::Text(text))
            if plain_text(text) && !text.contains(',') =>
        {
            let list = format!("[\"{text}\"]");
            let replacement = if node.from_environment() {
                format!("'{list}'")
            } else {
                list
            };
            return Some(Fix::replace(
                "write it as an array",
                !text.is_empty(),
                &node.place,
                replacement,
            ));
        }
        (Type::Table(spec), Data::Text(text)) if spec.path == "global.ignored_keys" => {
            let replacement = format!("{{ key = {} }}", toml_edit::Value::from(text.as_str()));
            let safe = invalid_text(Type::Base64, text).is_none() && !node.from_environment();
            return Some(Fix::replace(
                "write it as a table",
                safe,
                &node.place,
                replacement,
            ));
        }
        (Type::Url, Data::Text(text))
            if url::Url::parse(&format!("https://{text}")).is_ok()
                && plain_text(text)
                && text.contains('.') =>
        {
            return Some(Fix::replace(
                "write the scheme",
                false,
                &node.place,
                written(node, &Data::Text(format!("https://{text}"))),
            ));
        }
        (Type::OneOf(choices), Data::Text(text)) => {
            let choice = choices
                .iter()
                .find(|choice| choice.eq_ignore_ascii_case(text.trim()))?;
            Data::Text((*choice).to_owned())
        }
        _ => return None,
    };
    let replacement = written(node, &meant);
    Some(Fix::replace(
        format!("write `{} = {replacement}`", key.name),
        true,
        &node.place,
        replacement,
    ))
}
