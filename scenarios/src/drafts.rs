//! Drafts: configurations drawn from the linter's catalogue, sensible ones and ones that were broken in one place.
//!
//! A sensible draft sets a random part of the keys that a site may set, to values that a person might choose. What is
//! generated for a key follows from its type in the catalogue; only what decides where the server is found, or what a
//! careful person would not write, is drawn here. A broken draft is a sensible one and one [`Mutation`] of it.

use crate::trial::{Case, NAME, directory_of};
use fastrand::Rng;
use fleet_lint::catalogue::{self, Key, Status, Table, Type};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// A value where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The table's header as it is written, with its brackets; empty: above every table.
    pub header: String,
    /// The key.
    pub key: String,
    /// The value, as TOML.
    pub value: String,
}

/// A configuration, line by line. Lines of one table stand together; a header of an array of tables that occurs again
/// begins a new element, which is told by its `scope` line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Its lines, in the order in which they are written.
    pub lines: Vec<Line>,
    /// `CONDUIT_*` variables.
    pub env: BTreeMap<String, String>,
}

const GLOBAL: &str = "[global]";
const RETENTION: &str = "[[global.media.retention]]";

impl Draft {
    /// The value of a key of a table.
    pub fn get(&self, header: &str, key: &str) -> Option<&str> {
        self.lines
            .iter()
            .find(|line| line.header == header && line.key == key)
            .map(|line| line.value.as_str())
    }

    fn text(&self, header: &str, key: &str) -> Option<String> {
        self.get(header, key)
            .map(|value| value.trim_matches('"').to_owned())
    }

    fn set(&mut self, header: &str, key: &str, value: impl Into<String>) {
        let value = value.into();
        match self
            .lines
            .iter_mut()
            .find(|line| line.header == header && line.key == key)
        {
            Some(line) => line.value = value,
            None => self.insert(header, key, value),
        }
    }

    /// After the last line of its table, or at the end.
    fn insert(&mut self, header: &str, key: &str, value: String) {
        let line = Line {
            header: header.to_owned(),
            key: key.to_owned(),
            value,
        };
        let at = self.lines.iter().rposition(|line| line.header == header);
        match at {
            Some(at) if header != RETENTION => self.lines.insert(at + 1, line),
            _ => self.lines.push(line),
        }
    }

    fn remove(&mut self, header: &str, key: &str) -> bool {
        let before = self.lines.len();
        self.lines
            .retain(|line| !(line.header == header && line.key == key));
        self.lines.len() < before
    }

    /// As a file.
    pub fn toml(&self) -> String {
        let mut text = String::new();
        let mut header = "";
        for line in &self.lines {
            // The first line of an element of an array of tables repeats the header.
            if line.header != header || (line.header == RETENTION && line.key == "scope") {
                text.push_str(&format!("\n{}\n", line.header));
                header = &line.header;
            }
            text.push_str(&format!("{} = {}\n", line.key, line.value));
        }
        text.trim_start().to_owned()
    }

    /// As a trial of this id, whose directories the draft was drawn for.
    pub fn case(&self, id: &str) -> Case {
        let mut case = Case::new(id, |_| self.toml());
        // What the server refuses is asked at the usual place, in vain.
        let address = self
            .text(GLOBAL, "address")
            .and_then(|text| text.parse().ok());
        let address = match address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
            IpAddr::V6(_) => "[::1]".to_owned(),
            IpAddr::V4(address) if address.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V4(address) => address.to_string(),
        };
        let port: Option<u16> = self.text(GLOBAL, "port").and_then(|text| text.parse().ok());
        let port = port.unwrap_or(8000);
        let tls = self.lines.iter().any(|line| line.header == "[global.tls]");
        case.base = format!("{}://{address}:{port}", if tls { "https" } else { "http" });
        if self
            .text(GLOBAL, "server_name")
            .is_some_and(|name| name != NAME)
        {
            case.template = None;
        } else if self.text(GLOBAL, "database_backend").as_deref() == Some("sqlite") {
            case.template = Some("sqlite");
        }
        case.media_path = self.text("[global.media]", "path");
        case.emergency_password = self.text(GLOBAL, "emergency_password");
        case.env = self.env.clone();
        if tls {
            let (certificate, key) = self_signed();
            case.files
                .insert(format!("{}/cert.pem", directory_of(id)), certificate);
            case.files
                .insert(format!("{}/key.pem", directory_of(id)), key);
        }
        case
    }
}

/// A certificate for the loopback, made once.
fn self_signed() -> (String, String) {
    static PAIR: std::sync::OnceLock<(String, String)> = std::sync::OnceLock::new();
    PAIR.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
            .expect("a certificate for a fixed name can be made");
        (made.cert.pem(), made.signing_key.serialize_pem())
    })
    .clone()
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn word(rng: &mut Rng) -> String {
    let length = rng.usize(5..12);
    std::iter::repeat_with(|| rng.lowercase())
        .take(length)
        .collect()
}

fn host(rng: &mut Rng) -> String {
    format!(
        "{}.{}",
        word(rng),
        ["test", "example", "invalid"][rng.usize(..3)]
    )
}

fn secret(rng: &mut Rng) -> String {
    // A letter in front: in the environment a value of digits would be a number.
    format!(
        "s{}",
        std::iter::repeat_with(|| rng.alphanumeric())
            .take(40)
            .collect::<String>()
    )
}

/// A value that its type permits and a person might choose.
fn value(rng: &mut Rng, of: Type) -> String {
    match of {
        Type::Bool => rng.bool().to_string(),
        Type::Integer { min, max } => {
            let low = min.max(1);
            let high = max.min(low + 100_000);
            (low + i128::from(rng.u64(0..=u64::try_from(high - low).unwrap_or(0)))).to_string()
        }
        Type::Float => match rng.u8(..3) {
            0 => rng.u16(1..500).to_string(),
            _ => format!("{:.1}", f64::from(rng.u16(2..5000)) / 10.0),
        },
        Type::Text => quoted(&secret(rng)),
        Type::IpAddress => quoted(["127.0.0.1", "127.0.0.2", "::1"][rng.usize(..3)]),
        Type::ServerName => quoted(&match rng.u8(..3) {
            0 => format!("{}:{}", host(rng), rng.u16(1024..)),
            _ => host(rng),
        }),
        Type::Url => quoted(&format!("https://{}", host(rng))),
        Type::RoomVersion => quoted(
            catalogue::STABLE_ROOM_VERSIONS[rng.usize(..catalogue::STABLE_ROOM_VERSIONS.len())],
        ),
        Type::Duration => quoted(&match rng.u8(..3) {
            0 => format!("{}d", rng.u8(1..)),
            1 => format!("{}h {}min", rng.u8(1..), rng.u8(1..60)),
            _ => format!("{} weeks", rng.u8(1..)),
        }),
        Type::ByteSize => quoted(&match rng.u8(..3) {
            0 => format!("{}GB", rng.u8(1..)),
            1 => format!("{} MiB", rng.u16(64..)),
            _ => format!("{}.5GiB", rng.u8(1..)),
        }),
        Type::Base64 => quoted("l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og"),
        Type::OneOf(choices) => quoted(choices[rng.usize(..choices.len())]),
        Type::List(of) => {
            let values: Vec<_> = (0..rng.usize(1..4)).map(|_| value(rng, *of)).collect();
            format!("[{}]", values.join(", "))
        }
        Type::Table(table)
        | Type::Turn(table)
        | Type::Media(table)
        | Type::DirectoryStructure(table)
        | Type::Proxy(table) => inline(rng, table),
    }
}

fn inline(rng: &mut Rng, table: &Table) -> String {
    let keys: Vec<_> = table
        .keys
        .iter()
        .filter(|key| key.status == Status::Current)
        .map(|key| format!("{} = {}", key.name, value(rng, key.takes)))
        .collect();
    format!("{{ {} }}", keys.join(", "))
}

/// A configuration that a careful person might write, for the trial of this id.
pub fn sensible(rng: &mut Rng, id: &str) -> Draft {
    let mut draft = Draft::default();
    let directory = directory_of(id);
    for key in catalogue::GLOBAL.keys {
        if let Some(value) = sensible_value(rng, key, &directory) {
            draft.set(GLOBAL, key.name, value);
        }
    }
    // An open server asks for a token.
    if draft.get(GLOBAL, "allow_registration") == Some("true") {
        draft.set(GLOBAL, "registration_token", quoted(&secret(rng)));
    }
    if rng.u8(..3) == 0 {
        let well_known = catalogue::GLOBAL
            .key("well_known")
            .and_then(|key| key.takes.table());
        for key in well_known.into_iter().flat_map(|table| table.keys) {
            draft.set("[global.well_known]", key.name, value(rng, key.takes));
        }
    }
    // Whoever has the certificate serves the network; behind a proxy on the same machine it would be of no use.
    if rng.u8(..8) == 0 {
        draft.set(GLOBAL, "address", "\"0.0.0.0\"");
        draft.set(
            "[global.tls]",
            "certs",
            quoted(&format!("{directory}/cert.pem")),
        );
        draft.set(
            "[global.tls]",
            "key",
            quoted(&format!("{directory}/key.pem")),
        );
    }
    if rng.u8(..4) == 0 {
        let uris = format!("[\"turn:{}?transport=udp\"]", host(rng));
        draft.set("[global.turn]", "uris", uris);
        if rng.bool() {
            draft.set("[global.turn]", "ttl", rng.u32(600..200_000).to_string());
        }
        if rng.bool() {
            draft.set("[global.turn]", "secret", quoted(&secret(rng)));
        } else {
            draft.set("[global.turn]", "username", quoted(&word(rng)));
            draft.set("[global.turn]", "password", quoted(&secret(rng)));
        }
    }
    if rng.bool() {
        draft.set("[global.media]", "backend", "\"filesystem\"");
        if rng.bool() {
            draft.set(
                "[global.media]",
                "path",
                quoted(&format!("{directory}/data/{}", word(rng))),
            );
        }
        if rng.u8(..4) == 0 {
            draft.set(
                "[global.media.directory_structure]",
                "length",
                rng.u8(1..8).to_string(),
            );
            draft.set(
                "[global.media.directory_structure]",
                "depth",
                rng.u8(1..8).to_string(),
            );
        }
        for scope in ["remote", "thumbnail", "local"] {
            // Nobody deletes what their own people uploaded by default.
            if scope == "local" || rng.bool() {
                continue;
            }
            draft.insert(RETENTION, "scope", quoted(scope));
            draft.insert(RETENTION, "accessed", value(rng, Type::Duration));
            if rng.bool() {
                draft.insert(RETENTION, "space", value(rng, Type::ByteSize));
            }
        }
    }
    draft
}

/// What a careful person may write for a key of `[global]`; `None`: nothing, this time.
fn sensible_value(rng: &mut Rng, key: &Key, directory: &str) -> Option<String> {
    if key.status != Status::Current {
        return None;
    }
    let often = rng.u8(..10) < 4;
    Some(match key.name {
        // Without these it does not start, or not as anybody would expect.
        "server_name" if rng.u8(..40) == 0 => quoted(&host(rng)),
        "server_name" => quoted(NAME),
        "database_backend" => quoted("rocksdb"),
        "database_path" => quoted(&format!("{directory}/data")),
        "allow_federation" => rng.bool().to_string(),
        "allow_check_for_updates" => "false".to_owned(),
        // Tables are drawn as a whole.
        "tls" | "well_known" | "turn" | "media" | "proxy" => return None,
        // What opens a back door, or takes the logs away, is not what a careful person leaves in place.
        "emergency_password" | "allow_jaeger" | "tracing_flame" | "jwt_secret"
        | "registration_token" => return None,
        _ if !often => return None,
        // Below the ports that the kernel gives to outgoing connections, of which one may be on its way out.
        "port" => rng.u16(1024..32_768).to_string(),
        "max_request_size" => rng.u32(1_000_000..200_000_000).to_string(),
        "log" => quoted(
            [
                "warn",
                "info",
                "warn,state_res=warn,_=off",
                "error,conduit=debug",
            ][rng.usize(..4)],
        ),
        "conduit_cache_capacity_modifier" => format!("{:.2}", f64::from(rng.u8(10..)) / 100.0),
        "rocksdb_max_open_files" => rng.u16(64..4096).to_string(),
        "max_concurrent_requests" | "max_fetch_prev_events" => rng.u16(10..1000).to_string(),
        _ => value(rng, key.takes),
    })
}

/// One way to break a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// A value of another type.
    WrongType,
    /// A number outside of what its type holds.
    OutOfRange,
    /// A key that must be there is gone.
    RequiredMissing,
    /// One letter of a key is wrong.
    Typo,
    /// A table stands at the top instead of below `[global]`.
    TableNotBelowGlobal,
    /// A key stands above every table.
    KeyAboveTables,
    /// A key of other software, or one that never was.
    Stranger,
    /// A top-level table of an imagined configuration.
    StrangeTable,
    /// `[global.media]` without its `backend`.
    MediaWithoutBackend,
    /// A registration token of no characters.
    EmptyToken,
    /// A storage engine that does not exist.
    UnknownBackend,
    /// A key twice in one table.
    DuplicateKey,
    /// A string that is not closed.
    OpenString,
    /// A room version that Conduit cannot make.
    UnsupportedRoomVersion,
    /// A log filter that cannot be parsed.
    BadLogFilter,
    /// More sub-directories than a hash has characters.
    DeepStructure,
    /// A span of time that cannot be parsed.
    BadDuration,
    /// A scope that does not exist.
    UnknownScope,
    /// A retention that reaches everybody's own uploads.
    RetentionWithoutScope,
    /// `[global.turn]` without credentials.
    TurnWithoutCredentials,
    /// Deprecated `turn_*` keys of which one is missing.
    TurnInPieces,
    /// Anybody may register.
    OpenRegistration,
    /// The password of the server's own account is left in place.
    EmergencyPassword,
    /// It calls home.
    UpdateCheck,
    /// Plain HTTP on every address.
    EveryAddress,
    /// Nothing says whether it federates.
    FederationNotSaid,
    /// Logging is replaced by tracing.
    NoLog,
    /// A variable whose value reads as a number where a string is wanted.
    NumericVariable,
    /// A variable with a double underscore.
    DoubleUnderscore,
    /// A variable of no key.
    StrangeVariable,
}

impl Mutation {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::WrongType,
        Self::OutOfRange,
        Self::RequiredMissing,
        Self::Typo,
        Self::TableNotBelowGlobal,
        Self::KeyAboveTables,
        Self::Stranger,
        Self::StrangeTable,
        Self::MediaWithoutBackend,
        Self::EmptyToken,
        Self::UnknownBackend,
        Self::DuplicateKey,
        Self::OpenString,
        Self::UnsupportedRoomVersion,
        Self::BadLogFilter,
        Self::DeepStructure,
        Self::BadDuration,
        Self::UnknownScope,
        Self::RetentionWithoutScope,
        Self::TurnWithoutCredentials,
        Self::TurnInPieces,
        Self::OpenRegistration,
        Self::EmergencyPassword,
        Self::UpdateCheck,
        Self::EveryAddress,
        Self::FederationNotSaid,
        Self::NoLog,
        Self::NumericVariable,
        Self::DoubleUnderscore,
        Self::StrangeVariable,
    ];

    /// Whether the server does what stands there; most break something that it refuses or drops.
    pub fn is_in_force(self) -> bool {
        matches!(
            self,
            Self::RetentionWithoutScope
                | Self::OpenRegistration
                | Self::EmergencyPassword
                | Self::UpdateCheck
                | Self::EveryAddress
                | Self::FederationNotSaid
                | Self::NoLog
        )
    }

    /// The draft, broken in this way; `None` where it has nothing that could be broken so.
    pub fn apply(self, rng: &mut Rng, whole: &Draft) -> Option<Broken> {
        let mut draft = whole.clone();
        match self {
            Self::WrongType => {
                let line = any_line(rng, &mut draft, |_| true)?;
                let wrong = [
                    "[[1]]",
                    "{ a = { b = 1 } }",
                    "1979-05-27T07:32:00Z",
                    "true",
                    "\"word\"",
                    "-1.5",
                ];
                let of = type_of(&line.header, &line.key)?;
                line.value = wrong
                    .into_iter()
                    .cycle()
                    .skip(rng.usize(..wrong.len()))
                    .take(wrong.len())
                    .find(|value| !fits(of, value))?
                    .to_owned();
            }
            Self::OutOfRange => {
                let line = any_line(rng, &mut draft, |line| {
                    matches!(type_of(&line.header, &line.key), Some(Type::Integer { .. }))
                })?;
                let Some(Type::Integer { min, max }) = type_of(&line.header, &line.key) else {
                    return None;
                };
                let beyond = [min - 1, max + 1].map(|value| i64::try_from(value).ok());
                line.value = beyond
                    .into_iter()
                    .flatten()
                    .nth(rng.usize(..2))
                    .or(beyond[0])?
                    .to_string();
            }
            Self::RequiredMissing => {
                let required = ["server_name", "database_backend", "database_path"];
                draft
                    .remove(GLOBAL, required[rng.usize(..3)])
                    .then_some(())?;
            }
            Self::Typo => {
                let line = any_line(rng, &mut draft, |line| {
                    line.header == GLOBAL
                        && catalogue::GLOBAL
                            .key(&line.key)
                            .is_some_and(|key| !key.required)
                })?;
                line.key = typo(rng, &line.key)?;
            }
            Self::TableNotBelowGlobal => {
                let headers: Vec<_> = draft
                    .lines
                    .iter()
                    .map(|line| line.header.clone())
                    .filter(|header| header.contains("global.") && !header.contains("tls"))
                    .collect();
                let chosen = rng.choice(headers)?;
                // With what lies below it: `[media]` and `[global.media.retention]` would be two tables.
                let name = chosen
                    .trim_matches(['[', ']'])
                    .split('.')
                    .nth(1)?
                    .to_owned();
                for line in &mut draft.lines {
                    let below = line.header.trim_matches(['[', ']']).split('.').nth(1)
                        == Some(name.as_str());
                    if below {
                        line.header = line.header.replace("global.", "");
                    }
                }
            }
            Self::KeyAboveTables => {
                let key = ["log", "port", "allow_federation"][rng.usize(..3)];
                let value = draft.get(GLOBAL, key).unwrap_or("\"warn\"").to_owned();
                draft.remove(GLOBAL, key);
                draft.lines.insert(
                    0,
                    Line {
                        header: String::new(),
                        key: key.to_owned(),
                        value,
                    },
                );
            }
            Self::Stranger => {
                let names = [
                    "disabled_servers",
                    "max_file_size",
                    "enable_registration",
                    "trusted_key_servers",
                    "rc_message",
                    "database_backup_path",
                    "macaroon_secret_key",
                    "cache_capacity",
                    "turn_shared_secret",
                ];
                draft.insert(
                    GLOBAL,
                    names[rng.usize(..names.len())],
                    ["[]", "true", "50000000", "\"x\""][rng.usize(..4)].to_owned(),
                );
            }
            Self::StrangeTable => {
                let (header, key) = [
                    ("[registration]", "enabled"),
                    ("[federation]", "enabled"),
                    ("[retention]", "enabled"),
                    ("[logging]", "level"),
                    ("[database]", "name"),
                    ("[release]", "port"),
                ][rng.usize(..6)];
                draft.insert(
                    header,
                    key,
                    ["true", "\"x\"", "1"][rng.usize(..3)].to_owned(),
                );
            }
            Self::MediaWithoutBackend => draft
                .remove("[global.media]", "backend")
                .then_some(())
                .filter(|()| {
                    draft
                        .lines
                        .iter()
                        .any(|line| line.header.contains("global.media"))
                })?,
            Self::EmptyToken => {
                draft.set(GLOBAL, "registration_token", "\"\"");
            }
            Self::UnknownBackend => {
                let names = ["\"sled\"", "\"postgres\"", "\"RocksDB\"", "\"\""];
                draft.set(GLOBAL, "database_backend", names[rng.usize(..4)]);
            }
            Self::DuplicateKey => {
                let line = any_line(rng, &mut draft, |line| line.header == GLOBAL)?.clone();
                draft.insert(GLOBAL, &line.key, line.value);
            }
            Self::OpenString => {
                let line = any_line(rng, &mut draft, |line| line.value.starts_with('"'))?;
                line.value.pop();
            }
            Self::UnsupportedRoomVersion => {
                draft.set(
                    GLOBAL,
                    "default_room_version",
                    ["\"1\"", "\"2\"", "\"13\"", "\"org.example.v1\""][rng.usize(..4)],
                );
            }
            Self::BadLogFilter => draft.set(
                GLOBAL,
                "log",
                ["\"conduit=loud\"", "\"warn,[\"", "\"a=b=c\""][rng.usize(..3)],
            ),
            Self::DeepStructure => {
                let (length, depth) =
                    [(8, 8), (64, 1), (2, 32), (16, 16), (255, 255)][rng.usize(..5)];
                draft.set("[global.media]", "backend", "\"filesystem\"");
                draft.set(
                    "[global.media.directory_structure]",
                    "length",
                    length.to_string(),
                );
                draft.set(
                    "[global.media.directory_structure]",
                    "depth",
                    depth.to_string(),
                );
            }
            Self::BadDuration => {
                let line = any_line(rng, &mut draft, |line| line.key == "accessed")?;
                line.value =
                    ["\"30\"", "\"a month\"", "30", "\"\"", "\"-1d\""][rng.usize(..5)].to_owned();
            }
            Self::UnknownScope => {
                let line = any_line(rng, &mut draft, |line| line.key == "scope")?;
                line.value =
                    ["\"all\"", "\"Remote\"", "\"\"", "\"remote \""][rng.usize(..4)].to_owned();
            }
            Self::RetentionWithoutScope => {
                draft.lines.retain(|line| line.header != RETENTION);
                draft.set("[global.media]", "backend", "\"filesystem\"");
                draft.insert(RETENTION, "accessed", value(rng, Type::Duration));
            }
            Self::TurnWithoutCredentials => {
                let had = draft.lines.len();
                draft.lines.retain(|line| {
                    line.header != "[global.turn]"
                        || !matches!(line.key.as_str(), "secret" | "password")
                });
                (draft.lines.len() < had).then_some(())?;
            }
            Self::TurnInPieces => {
                draft.lines.retain(|line| line.header != "[global.turn]");
                let (key, value) = [
                    ("turn_secret", "\"s3cret-and-long-enough\""),
                    ("turn_uris", "[\"turn:turn.example\"]"),
                    ("turn_username", "\"u\""),
                ][rng.usize(..3)];
                draft.insert(GLOBAL, key, value.to_owned());
            }
            Self::OpenRegistration => {
                draft.set(GLOBAL, "allow_registration", "true");
                draft.remove(GLOBAL, "registration_token");
            }
            Self::EmergencyPassword => {
                draft.set(GLOBAL, "emergency_password", quoted(&secret(rng)))
            }
            Self::UpdateCheck => {
                if rng.bool() {
                    draft.set(GLOBAL, "allow_check_for_updates", "true");
                } else {
                    draft.remove(GLOBAL, "allow_check_for_updates");
                }
            }
            Self::EveryAddress => {
                draft.lines.retain(|line| line.header != "[global.tls]");
                draft.set(GLOBAL, "address", ["\"0.0.0.0\"", "\"::\""][rng.usize(..2)]);
            }
            Self::FederationNotSaid => draft.remove(GLOBAL, "allow_federation").then_some(())?,
            Self::NoLog => {
                let key = ["allow_jaeger", "tracing_flame"][rng.usize(..2)];
                draft.set(GLOBAL, key, "true");
            }
            Self::NumericVariable => {
                let variable = [
                    "CONDUIT_REGISTRATION_TOKEN",
                    "CONDUIT_DATABASE_PATH",
                    "CONDUIT_LOG",
                ][rng.usize(..3)];
                draft.env.insert(
                    variable.to_owned(),
                    ["12345", "true", "[1]", "{a=1}"][rng.usize(..4)].to_owned(),
                );
            }
            Self::DoubleUnderscore => {
                let (variable, value) = [
                    ("CONDUIT_WELL_KNOWN__CLIENT", "https://matrix.example"),
                    ("CONDUIT_MEDIA__BACKEND", "filesystem"),
                    ("CONDUIT__PORT", "9000"),
                    ("CONDUIT_TLS__CERTS", "/nowhere"),
                ][rng.usize(..4)];
                draft.env.insert(variable.to_owned(), value.to_owned());
            }
            Self::StrangeVariable => {
                let (variable, value) = [
                    ("CONDUIT_TURN_URI", "[\"turn:x.example\"]"),
                    ("CONDUIT_ALLOW_REGISTRATIONS", "true"),
                    ("CONDUIT_FEDERATION", "true"),
                    ("CONDUIT_PROXY_GLOBAL_URL", "http://127.0.0.1:9"),
                ][rng.usize(..4)];
                draft.env.insert(variable.to_owned(), value.to_owned());
            }
        }
        if draft == *whole {
            return None;
        }
        // What both have, without what was changed: the configuration of a server that drops the change.
        let without = Draft {
            lines: draft
                .lines
                .iter()
                .filter(|line| whole.lines.contains(line))
                .cloned()
                .collect(),
            env: whole.env.clone(),
        };
        Some(Broken { draft, without })
    }
}

/// A draft after a mutation.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The draft.
    pub draft: Draft,
    /// The same without what was changed: what a server has that drops the change.
    pub without: Draft,
}

fn any_line<'a>(
    rng: &mut Rng,
    draft: &'a mut Draft,
    fit: impl Fn(&Line) -> bool,
) -> Option<&'a mut Line> {
    let fitting: Vec<_> = draft
        .lines
        .iter()
        .enumerate()
        .filter(|(_, line)| fit(line))
        .map(|(at, _)| at)
        .collect();
    let at = rng.choice(fitting)?;
    draft.lines.get_mut(at)
}

/// The type of a key by the header of its table.
fn type_of(header: &str, key: &str) -> Option<Type> {
    let mut table = &catalogue::GLOBAL;
    for name in header.trim_matches(['[', ']']).split('.').skip(1) {
        table = table.key(name)?.takes.below()?;
    }
    table.key(key).map(|key| key.takes)
}

/// Whether a value of another type is one that this type takes all the same.
fn fits(of: Type, value: &str) -> bool {
    match of {
        Type::Bool => value == "true",
        Type::Float => value == "-1.5",
        Type::Text | Type::OneOf(_) | Type::ServerName | Type::RoomVersion | Type::Base64 => {
            value.starts_with('"')
        }
        _ => false,
    }
}

/// The key with one letter wrong, unless that is another key.
fn typo(rng: &mut Rng, key: &str) -> Option<String> {
    let mut letters: Vec<char> = key.chars().collect();
    let at = rng.usize(..letters.len());
    match rng.u8(..4) {
        0 => {
            letters.remove(at);
        }
        1 => letters.insert(at, letters[at]),
        2 if at + 1 < letters.len() => letters.swap(at, at + 1),
        _ => letters[at] = if letters[at] == 'x' { 'y' } else { 'x' },
    }
    let wrong: String = letters.into_iter().collect();
    (wrong != key && !wrong.is_empty() && catalogue::GLOBAL.key(&wrong).is_none()).then_some(wrong)
}
