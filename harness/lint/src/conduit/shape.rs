//! Keys and types: a dictionary against the catalogue, as strictly as the real server deserializes it.

use super::layers::{File, after_header};
use super::text::{correction, invalid_text, written};
use super::{DROPPED, FATAL, REFUSED, elsewhere, likeness};
use crate::catalogue::{self, Key, Status, Table as Spec, Type};
use crate::diagnostic::{Code, Diagnostic, Effect, Fix, Label, Severity};
use crate::source::Kind;
use crate::value::{self, Data, Entry, Node, Place, Table};

/// Judges one dictionary.
pub(crate) struct Judge<'a> {
    pub(super) header: Place,
    insert_at: Option<usize>,
    /// Whether more is given elsewhere, so that nothing is known to be missing.
    pub(super) partial: bool,
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

    pub(super) fn say(
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

    pub(super) fn warn(
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
    pub(super) fn insertion(&self, line: &str, safe: bool) -> Option<Fix> {
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
            key.effect.trim_end_matches('.').to_owned(),
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
            // Whoever gives it to the server expects something of it.
            self.say(
                Code::UnknownKey,
                Severity::Warning,
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
                Data::Text(text) => match byte_size(text) {
                    Ok(()) => Fit::Fits,
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
        let fix = correction(takes, node);
        let finding = self.say(
            code,
            Severity::Error,
            FATAL,
            message,
            node.place.label(REFUSED),
        );
        finding
            .notes
            .push(format!("{} ({})", key.effect.trim_end_matches('.'), key.at));
        if node.from_environment() && code == Code::WrongType {
            finding.notes.push(match (takes, &node.data) {
                (Type::Bool, Data::Text(_)) => "a variable is a boolean only if it is `true` or `false`".to_owned(),
                (Type::Integer { .. } | Type::Float, Data::Text(_)) => "a variable is a number only if it has nothing but digits, a sign and a point".to_owned(),
                (Type::List(_), _) => "a variable is an array only if it is written as one: `'[\"a\", \"b\"]'`".to_owned(),
                _ => "a variable that reads as a number, a boolean, an array or a table is one; a string of that look needs quotes of its own".to_owned(),
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
        if table.get("uris").is_none()
            && let Some(key) = spec.key("uris")
        {
            self.missing(spec, key, key_place);
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
                if let Some(node) = table.value(name)
                    && node.text().is_none()
                {
                    related.push(
                        node.place
                            .label(format!("this is {}, not a string", node.kind())),
                    );
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
                } else if let (true, Some(name)) = (socks, url.host_str())
                    // Of a scheme that the URL standard does not know, an address is a name like any other.
                    && name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err()
                {
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
}

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

pub(super) fn text_at<'a>(table: &'a Table, path: &[&str]) -> Option<(&'a Node, &'a str)> {
    let node = table.at(path)?;
    Some((node, node.text()?))
}

/// Whether bytesize 2.0.1, which Conduit 0.10.12 has, reads this as a number of bytes. The library here is 2.3.1. From
/// 2.0.1 to there its parser changed in two ways (`src/parse.rs`): exabytes became known, and letters that are not ASCII
/// are no longer made small, of which one, the sign of Kelvin, becomes a `k`.
fn byte_size(text: &str) -> Result<(), String> {
    let text = text.to_lowercase();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    if ["e", "eb", "ei", "eib"].contains(&unit.trim_start()) {
        return Err(format!("couldn't parse unit of {:?}", unit.trim_start()));
    }
    text.parse::<bytesize::ByteSize>().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::byte_size;

    #[test]
    fn sizes_are_those_of_the_library_that_conduit_has() {
        for size in ["5", "2GB", "1.5 GiB", "1 \u{212a}B", "3p"] {
            assert_eq!(byte_size(size), Ok(()), "{size}");
        }
        for none in ["1EB", "2 EiB", "1e", "GB", "-1", "1 furlong", ""] {
            assert!(byte_size(none).is_err(), "{none}");
        }
    }
}
