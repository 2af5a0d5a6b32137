//! Every key of Conduit 0.10.12's configuration, as data: where it lies, what it takes, what it is when it is not
//! given, what it does, since and until when it exists, how the environment reaches it; and the keys that people write
//! although no such key exists.
//!
//! Conduit's documentation is not the source of this, its code is: the two differ (`allow_federation`,
//! `default_room_version`, `ignored_keys`, `[global.media]`). Each key names its line.

use std::fmt;

/// What a key takes. Everything is as strict as the real server: a string is not a number.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds, both included.
    Integer {
        /// The least.
        min: i128,
        /// The greatest.
        max: i128,
    },
    /// A number; a whole one will do.
    Float,
    /// Any string.
    Text,
    /// An IPv4 or IPv6 address as a string, without port or brackets.
    IpAddress,
    /// A Matrix server name as a string: a host and perhaps a port.
    ServerName,
    /// An absolute URL as a string.
    Url,
    /// A room version as a string: 1 to 32 of `a-z`, `A-Z`, `0-9`, `.` and `-`.
    RoomVersion,
    /// A time span as a string, such as `"30d"`, `"1h 30min"`, `"2months"` (humantime 2.2).
    Duration,
    /// A number of bytes, as an integer or as a string such as `"2GB"`, `"1.5GiB"` (bytesize 2.0).
    ByteSize,
    /// Bytes in base64 as a string, with or without padding.
    Base64,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An array of these.
    List(&'static Self),
    /// A table with these keys.
    Table(&'static Table),
    /// `[global.turn]`: a table that also needs one of two kinds of credentials.
    Turn(&'static Table),
    /// `[global.media]`: a table that needs `backend` as soon as it exists.
    Media(&'static Table),
    /// `length` and `depth`, or an empty table for no sub-directories at all.
    DirectoryStructure(&'static Table),
    /// `"none"`, `{ global = { url } }` or `{ by_domain = [{ url, include, exclude }] }`.
    Proxy(&'static Table),
}

impl Type {
    /// The table that this type is, where it is one.
    pub fn table(self) -> Option<&'static Table> {
        match self {
            Self::Table(table)
            | Self::Turn(table)
            | Self::Media(table)
            | Self::DirectoryStructure(table)
            | Self::Proxy(table) => Some(table),
            _ => None,
        }
    }

    /// The table that lies below a key of this type, in an array of tables too.
    pub fn below(self) -> Option<&'static Table> {
        match self {
            Self::List(of) => of.table(),
            other => other.table(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("a boolean"),
            Self::Integer { min, max } => write!(f, "an integer from {min} to {max}"),
            Self::Float => f.write_str("a number"),
            Self::Text => f.write_str("a string"),
            Self::IpAddress => f.write_str("an IP address as a string"),
            Self::ServerName => f.write_str("a server name as a string"),
            Self::Url => f.write_str("a URL as a string"),
            Self::RoomVersion => f.write_str("a room version as a string"),
            Self::Duration => f.write_str("a time span as a string, such as `\"30d\"`"),
            Self::ByteSize => f.write_str("a number of bytes, such as `\"2GB\"`"),
            Self::Base64 => f.write_str("base64 as a string"),
            Self::OneOf(choices) => {
                for (at, choice) in choices.iter().enumerate() {
                    let before = match at {
                        0 => "",
                        at if at + 1 == choices.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{before}`\"{choice}\"`")?;
                }
                Ok(())
            }
            Self::List(of) => match of {
                Self::Table(_) => f.write_str("an array of tables"),
                Self::Text => f.write_str("an array of strings"),
                Self::ServerName => f.write_str("an array of server names"),
                other => write!(f, "an array, each element {other}"),
            },
            Self::Table(_) | Self::Turn(_) | Self::Media(_) | Self::DirectoryStructure(_) => {
                f.write_str("a table")
            }
            Self::Proxy(_) => {
                f.write_str("`\"none\"`, or a table with one of `global` and `by_domain`")
            }
        }
    }
}

/// Since when a key exists, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It exists in 0.10.12.
    Current,
    /// It exists, but upstream has another way for it.
    Deprecated {
        /// The key to use, from `global` down.
        instead: &'static str,
    },
    /// It exists only on upstream's branch `next` (0.11.0-alpha); 0.10.12 ignores it.
    Next,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name within its table.
    pub name: &'static str,
    /// What it takes.
    pub takes: Type,
    /// Whether its table is refused without it.
    pub required: bool,
    /// What it is when it is not given, as TOML; `None` where there is then nothing.
    pub default: Option<&'static str>,
    /// What it does, as one sentence.
    pub effect: &'static str,
    /// Since and until when.
    pub status: Status,
    /// Where Conduit reads it.
    pub at: &'static str,
}

/// A table of keys.
#[derive(Debug)]
pub struct Table {
    /// Its path from the top of the file, as it stands in the header.
    pub path: &'static str,
    /// Its keys, in the order of Conduit's structure.
    pub keys: &'static [Key],
    /// How many values an array in its place needs, for Conduit then takes the values by position. `None` where it
    /// refuses an array.
    pub positional: Option<usize>,
}

impl Table {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// Where Conduit looks for a key when it is set by an environment variable of its own.
pub fn variable_path(variable: &str) -> Option<Vec<String>> {
    // src/main.rs:49-97; figment's `Env` compares without regard to case, lowers the rest, and splits at dots.
    let name = variable.trim();
    if name.len() < PREFIX.len() || !name.is_char_boundary(PREFIX.len()) {
        return None;
    }
    let (prefix, rest) = name.split_at(PREFIX.len());
    if !prefix.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    let rest = rest.to_ascii_lowercase();
    let mut path = rest.clone();
    for table in VARIABLE_TABLES {
        let Some(below) = rest
            .strip_prefix(table)
            .and_then(|rest| rest.strip_prefix('_'))
        else {
            continue;
        };
        path = format!("{table}.{below}");
        for sub in VARIABLE_SUB_TABLES {
            if let Some(below) = below
                .strip_prefix(sub)
                .and_then(|rest| rest.strip_prefix('_'))
            {
                path = format!("{table}.{sub}.{below}");
            }
        }
        break;
    }
    let path: Vec<_> = path.trim().split('.').map(str::to_owned).collect();
    (!path.iter().any(String::is_empty)).then_some(path)
}

/// The variable that sets a key (a path below `global`), where one reaches it. `None` for what lies in `turn`,
/// `proxy` or an array: only the whole, written as `{…}` or `[…]`, can be given there.
pub fn variable_of(path: &[&str]) -> Option<String> {
    let variable = format!("{PREFIX}{}", path.join("_").to_ascii_uppercase());
    let reached = variable_path(&variable)?;
    reached
        .iter()
        .map(String::as_str)
        .eq(path.iter().copied())
        .then_some(variable)
}

/// What every variable of Conduit begins with.
pub const PREFIX: &str = "CONDUIT_";
const VARIABLE_TABLES: [&str; 3] = ["well_known", "tls", "media"];
const VARIABLE_SUB_TABLES: [&str; 2] = ["directory_structure", "retention"];

const fn unsigned(bits: u32) -> Type {
    Type::Integer {
        min: 0,
        max: (1 << bits) - 1,
    }
}

const fn key(
    name: &'static str,
    takes: Type,
    default: Option<&'static str>,
    at: &'static str,
    effect: &'static str,
) -> Key {
    Key {
        name,
        takes,
        required: false,
        default,
        effect,
        status: Status::Current,
        at,
    }
}

const fn required(name: &'static str, takes: Type, at: &'static str, effect: &'static str) -> Key {
    Key {
        required: true,
        ..key(name, takes, None, at, effect)
    }
}

const fn deprecated(
    name: &'static str,
    takes: Type,
    default: Option<&'static str>,
    at: &'static str,
    instead: &'static str,
    effect: &'static str,
) -> Key {
    Key {
        status: Status::Deprecated { instead },
        ..key(name, takes, default, at, effect)
    }
}

/// The storage engines that a release build has.
pub const BACKENDS: &[&str] = &["rocksdb", "sqlite"];

/// Room versions that Conduit can make and join (src/service/globals/mod.rs:183).
pub const STABLE_ROOM_VERSIONS: &[&str] = &["6", "7", "8", "9", "10", "11", "12"];

/// Those that `allow_unstable_room_versions` adds.
pub const UNSTABLE_ROOM_VERSIONS: &[&str] = &["3", "4", "5"];

/// `[global]`, the root of everything.
pub static GLOBAL: Table = Table {
    path: "global",
    positional: None,
    keys: &[
        key(
            "address",
            Type::IpAddress,
            Some("\"127.0.0.1\""),
            "src/config/mod.rs:27",
            "The one address that the server listens on.",
        ),
        key(
            "port",
            unsigned(16),
            Some("8000"),
            "src/config/mod.rs:29",
            "The one port for the client and the server API; plain HTTP unless `[global.tls]` is given.",
        ),
        key(
            "tls",
            Type::Table(&TLS),
            None,
            "src/config/mod.rs:30",
            "Switches the listener to HTTPS.",
        ),
        required(
            "server_name",
            Type::ServerName,
            "src/config/mod.rs:32",
            "The name that is part of every user id and of the signing identity; it can never be changed.",
        ),
        required(
            "database_backend",
            Type::OneOf(BACKENDS),
            "src/config/mod.rs:33",
            "The storage engine; nothing converts one into the other.",
        ),
        required(
            "database_path",
            Type::Text,
            "src/config/mod.rs:34",
            "The directory that holds the database, made if it is missing.",
        ),
        key(
            "db_cache_capacity_mb",
            Type::Float,
            Some("300.0"),
            "src/config/mod.rs:36",
            "RocksDB's shared block cache in MiB; with SQLite it is divided between connections.",
        ),
        key(
            "enable_lightning_bolt",
            Type::Bool,
            Some("true"),
            "src/config/mod.rs:38",
            "Appends a lightning bolt to the display name of every new account.",
        ),
        key(
            "allow_check_for_updates",
            Type::Bool,
            Some("true"),
            "src/config/mod.rs:40",
            "Asks conduit.rs at the start and every hour, and posts what it answers into the admin room.",
        ),
        key(
            "conduit_cache_capacity_modifier",
            Type::Float,
            Some("1.0"),
            "src/config/mod.rs:42",
            "Scales the in-memory caches except the one of events.",
        ),
        key(
            "rocksdb_max_open_files",
            Type::Integer {
                min: i32::MIN as i128,
                max: i32::MAX as i128,
            },
            Some("1000"),
            "src/config/mod.rs:44",
            "How many files RocksDB keeps open; -1 is all of them.",
        ),
        key(
            "pdu_cache_capacity",
            unsigned(32),
            Some("150000"),
            "src/config/mod.rs:46",
            "How many events are kept in memory.",
        ),
        key(
            "cleanup_second_interval",
            unsigned(32),
            Some("60"),
            "src/config/mod.rs:48",
            "How often SQLite's log is checkpointed, in seconds; RocksDB needs it not.",
        ),
        key(
            "max_request_size",
            unsigned(32),
            Some("20971520"),
            "src/config/mod.rs:50",
            "The largest request body in bytes, uploads included; clients are told it as the upload limit.",
        ),
        key(
            "max_concurrent_requests",
            unsigned(16),
            Some("100"),
            "src/config/mod.rs:52",
            "How many requests the server sends to others at the same time.",
        ),
        key(
            "max_fetch_prev_events",
            unsigned(16),
            Some("100"),
            "src/config/mod.rs:54",
            "How many missing earlier events are fetched for one incoming event.",
        ),
        key(
            "allow_registration",
            Type::Bool,
            Some("false"),
            "src/config/mod.rs:56",
            "Whether accounts can be registered.",
        ),
        key(
            "registration_token",
            Type::Text,
            None,
            "src/config/mod.rs:57",
            "What a person must present to register.",
        ),
        key(
            "openid_token_ttl",
            unsigned(64),
            Some("3600"),
            "src/config/mod.rs:59",
            "How long an OpenID token is valid, in seconds.",
        ),
        key(
            "allow_encryption",
            Type::Bool,
            Some("true"),
            "src/config/mod.rs:61",
            "Whether rooms may be encrypted.",
        ),
        key(
            "allow_federation",
            Type::Bool,
            Some("false"),
            "src/config/mod.rs:63",
            "Whether the server talks to other servers.",
        ),
        key(
            "allow_room_creation",
            Type::Bool,
            Some("true"),
            "src/config/mod.rs:65",
            "Whether people who are no administrators may make rooms.",
        ),
        key(
            "allow_unstable_room_versions",
            Type::Bool,
            Some("true"),
            "src/config/mod.rs:67",
            "Adds room versions 3, 4 and 5.",
        ),
        key(
            "default_room_version",
            Type::RoomVersion,
            Some("\"12\""),
            "src/config/mod.rs:69",
            "The version of new rooms.",
        ),
        key(
            "well_known",
            Type::Table(&WELL_KNOWN),
            None,
            "src/config/mod.rs:71",
            "What the server answers under `/.well-known/matrix/`.",
        ),
        key(
            "allow_jaeger",
            Type::Bool,
            Some("false"),
            "src/config/mod.rs:73",
            "Sends traces to an OpenTelemetry collector instead of logging.",
        ),
        key(
            "tracing_flame",
            Type::Bool,
            Some("false"),
            "src/config/mod.rs:75",
            "Writes `./tracing.folded` instead of logging.",
        ),
        key(
            "proxy",
            Type::Proxy(&PROXY),
            Some("\"none\""),
            "src/config/mod.rs:77",
            "Through which proxy the server's own requests go.",
        ),
        key(
            "jwt_secret",
            Type::Text,
            None,
            "src/config/mod.rs:78",
            "Lets whoever can sign with it log in as any account (HS256).",
        ),
        key(
            "trusted_servers",
            Type::List(&Type::ServerName),
            Some("[\"matrix.org\"]"),
            "src/config/mod.rs:80",
            "Servers that are asked for the keys of others.",
        ),
        key(
            "log",
            Type::Text,
            Some("\"warn,state_res=warn,_=off\""),
            "src/config/mod.rs:82",
            "What is logged, as directives of tracing-subscriber.",
        ),
        deprecated(
            "turn_username",
            Type::Text,
            None,
            "src/config/mod.rs:83",
            "global.turn.username",
            "The name at the TURN server; needs `turn_uris` and `turn_password`.",
        ),
        deprecated(
            "turn_password",
            Type::Text,
            None,
            "src/config/mod.rs:84",
            "global.turn.password",
            "The password at the TURN server; needs `turn_uris` and `turn_username`.",
        ),
        deprecated(
            "turn_uris",
            Type::List(&Type::Text),
            None,
            "src/config/mod.rs:85",
            "global.turn.uris",
            "The TURN servers that clients are told; needs `turn_secret`, or a name and a password.",
        ),
        deprecated(
            "turn_secret",
            Type::Text,
            None,
            "src/config/mod.rs:86",
            "global.turn.secret",
            "The secret shared with the TURN server; needs `turn_uris`.",
        ),
        deprecated(
            "turn_ttl",
            unsigned(64),
            Some("86400"),
            "src/config/mod.rs:88",
            "global.turn.ttl",
            "How long TURN credentials are valid, in seconds.",
        ),
        key(
            "turn",
            Type::Turn(&TURN),
            None,
            "src/config/mod.rs:90",
            "The TURN server that clients are told for calls.",
        ),
        key(
            "ignored_keys",
            Type::List(&Type::Table(&VERIFY_KEY)),
            Some("[{ key = \"l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og\" }]"),
            "src/config/mod.rs:93",
            "Signing keys of servers that are not accepted any more.",
        ),
        key(
            "media",
            Type::Media(&MEDIA),
            Some("{ backend = \"filesystem\" }"),
            "src/config/mod.rs:96",
            "How media is stored, and for how long.",
        ),
        key(
            "emergency_password",
            Type::Text,
            None,
            "src/config/mod.rs:98",
            "Lets whoever knows it log in as `@conduit`, who may do everything.",
        ),
    ],
};

static TLS: Table = Table {
    path: "global.tls",
    positional: Some(2),
    keys: &[
        required(
            "certs",
            Type::Text,
            "src/config/mod.rs:317",
            "The file with the certificate chain, PEM; read once, at the start.",
        ),
        required(
            "key",
            Type::Text,
            "src/config/mod.rs:318",
            "The file with the private key, PEM; read once, at the start.",
        ),
    ],
};

static WELL_KNOWN: Table = Table {
    path: "global.well_known",
    positional: Some(2),
    keys: &[
        key(
            "client",
            Type::Url,
            None,
            "src/config/mod.rs:341",
            "Where clients find the server; `https://<server_name>` when it is not given.",
        ),
        key(
            "server",
            Type::ServerName,
            None,
            "src/config/mod.rs:342",
            "Where other servers find it; `<server_name>:443` when it is not given.",
        ),
    ],
};

static TURN: Table = Table {
    path: "global.turn",
    positional: None,
    keys: &[
        required(
            "uris",
            Type::List(&Type::Text),
            "src/config/mod.rs:323",
            "The TURN servers that clients are told.",
        ),
        key(
            "ttl",
            unsigned(64),
            Some("86400"),
            "src/config/mod.rs:325",
            "How long credentials are valid, in seconds.",
        ),
        key(
            "secret",
            Type::Text,
            None,
            "src/config/mod.rs:334",
            "The secret shared with the TURN server.",
        ),
        key(
            "username",
            Type::Text,
            None,
            "src/config/mod.rs:333",
            "The name at the TURN server; goes before `secret`.",
        ),
        key(
            "password",
            Type::Text,
            None,
            "src/config/mod.rs:333",
            "The password at the TURN server; goes before `secret`.",
        ),
    ],
};

static VERIFY_KEY: Table = Table {
    path: "global.ignored_keys",
    positional: Some(1),
    keys: &[required(
        "key",
        Type::Base64,
        "ruma, VerifyKey",
        "The public key in base64.",
    )],
};

static PROXY: Table = Table {
    path: "global.proxy",
    positional: None,
    keys: &[
        key(
            "global",
            Type::Table(&PROXY_GLOBAL),
            None,
            "src/config/proxy.rs:36",
            "One proxy for every request.",
        ),
        key(
            "by_domain",
            Type::List(&Type::Table(&PROXY_DOMAIN)),
            None,
            "src/config/proxy.rs:40",
            "Proxies for some domains; the first that matches is taken.",
        ),
    ],
};

static PROXY_GLOBAL: Table = Table {
    path: "global.proxy.global",
    positional: Some(1),
    keys: &[required(
        "url",
        Type::Url,
        "src/config/proxy.rs:38",
        "The proxy: http, https, socks5 or socks5h.",
    )],
};

static PROXY_DOMAIN: Table = Table {
    path: "global.proxy.by_domain",
    positional: Some(1),
    keys: &[
        required(
            "url",
            Type::Url,
            "src/config/proxy.rs:57",
            "The proxy: http, https, socks5 or socks5h.",
        ),
        key(
            "include",
            Type::List(&Type::Text),
            Some("[]"),
            "src/config/proxy.rs:59",
            "The domains that go through it, `*.` for all below one; none given is all.",
        ),
        key(
            "exclude",
            Type::List(&Type::Text),
            Some("[]"),
            "src/config/proxy.rs:61",
            "The domains that do not.",
        ),
    ],
};

/// What S3 storage takes on upstream's branch `next`.
const NEXT: Status = Status::Next;

static MEDIA: Table = Table {
    path: "global.media",
    positional: None,
    keys: &[
        required(
            "backend",
            Type::OneOf(&["filesystem"]),
            "src/config/mod.rs:483",
            "Where media is stored; required as soon as the table exists.",
        ),
        key(
            "path",
            Type::Text,
            None,
            "src/config/mod.rs:486",
            "The directory of the media; `<database_path>/media` when it is not given.",
        ),
        key(
            "directory_structure",
            Type::DirectoryStructure(&DIRECTORY_STRUCTURE),
            Some("{ length = 2, depth = 2 }"),
            "src/config/mod.rs:488",
            "How media files are spread over sub-directories; files are not moved when it changes.",
        ),
        key(
            "retention",
            Type::List(&Type::Table(&RETENTION)),
            None,
            "src/config/mod.rs:356",
            "When media is deleted; remote media and thumbnails unread for 30 days when nothing is given for them.",
        ),
        Key {
            status: NEXT,
            ..key(
                "endpoint",
                Type::Url,
                None,
                "branch next",
                "The S3 endpoint.",
            )
        },
        Key {
            status: NEXT,
            ..key("bucket", Type::Text, None, "branch next", "The S3 bucket.")
        },
        Key {
            status: NEXT,
            ..key("region", Type::Text, None, "branch next", "The S3 region.")
        },
        Key {
            status: NEXT,
            ..key("key", Type::Text, None, "branch next", "The S3 access key.")
        },
        Key {
            status: NEXT,
            ..key(
                "secret",
                Type::Text,
                None,
                "branch next",
                "The S3 secret key.",
            )
        },
        Key {
            status: NEXT,
            ..key(
                "duration",
                unsigned(64),
                Some("30"),
                "branch next",
                "How long a signed S3 request is valid, in seconds.",
            )
        },
        Key {
            status: NEXT,
            ..key(
                "bucket_use_path",
                Type::Bool,
                Some("false"),
                "branch next",
                "Whether the S3 bucket stands in the path instead of the host name.",
            )
        },
    ],
};

static DIRECTORY_STRUCTURE: Table = Table {
    path: "global.media.directory_structure",
    positional: None,
    keys: &[
        key(
            "length",
            Type::Integer { min: 1, max: 255 },
            Some("2"),
            "src/config/mod.rs:532",
            "How many characters the name of a sub-directory has.",
        ),
        key(
            "depth",
            Type::Integer { min: 1, max: 255 },
            Some("2"),
            "src/config/mod.rs:532",
            "How many sub-directories lie above a file; times `length` it must stay below 64.",
        ),
    ],
};

static RETENTION: Table = Table {
    path: "global.media.retention",
    positional: Some(4),
    keys: &[
        key(
            "scope",
            Type::OneOf(&["remote", "local", "thumbnail"]),
            None,
            "src/config/mod.rs:389",
            "Which media it is for; without it, local media only.",
        ),
        key(
            "accessed",
            Type::Duration,
            None,
            "src/config/mod.rs:391",
            "Deletes what was not read for so long.",
        ),
        key(
            "created",
            Type::Duration,
            None,
            "src/config/mod.rs:393",
            "Deletes what is older than this.",
        ),
        key(
            "space",
            Type::ByteSize,
            None,
            "src/config/mod.rs:394",
            "Deletes what was read longest ago when more than this is stored.",
        ),
    ],
};

/// A key with its whole path.
#[derive(Clone, Debug)]
pub struct Located {
    /// The keys that lead to it, from below `global`; an element of an array has no step of its own.
    pub path: Vec<&'static str>,
    /// The key.
    pub key: &'static Key,
}

impl Located {
    /// The path as people write it, with `global` before it.
    pub fn dotted(&self) -> String {
        format!("global.{}", self.path.join("."))
    }
}

/// Every key, depth first in the order of Conduit's structure.
pub fn all() -> Vec<Located> {
    fn walk(table: &'static Table, above: &[&'static str], found: &mut Vec<Located>) {
        for key in table.keys {
            let mut path = above.to_vec();
            path.push(key.name);
            found.push(Located {
                path: path.clone(),
                key,
            });
            if let Some(below) = key.takes.below() {
                walk(below, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(&GLOBAL, &[], &mut found);
    found
}

/// A key that people write and Conduit does not have.
#[derive(Debug)]
pub struct Stranger {
    /// The table that it is written in (`*` for any), and its name; `registration.enabled`, `global.max_file_size`.
    pub path: &'static str,
    /// Where it comes from.
    pub from: &'static str,
    /// What to do instead.
    pub instead: &'static str,
    /// What happens at run time since it is dropped, where that is not plain.
    pub so: Option<&'static str>,
    /// The lines that say it in Conduit's words, to be put into `[global]`; none where nothing can.
    pub write: Option<&'static str>,
}

const fn stranger(path: &'static str, from: &'static str, instead: &'static str) -> Stranger {
    Stranger {
        path,
        from,
        instead,
        so: None,
        write: None,
    }
}

/// The strangers that are known. The first that matches is taken.
pub static STRANGERS: &[Stranger] = &[
    // What the first design of this fleet wrote.
    Stranger {
        so: Some("registration stays as `allow_registration` says, closed by default"),
        write: Some("allow_registration = false"),
        ..stranger(
            "registration.enabled",
            "the fleet's first design",
            "`allow_registration` in `[global]`; closed is the default",
        )
    },
    Stranger {
        so: Some("federation stays off"),
        write: Some("allow_federation = true"),
        ..stranger(
            "federation.enabled",
            "the fleet's first design",
            "`allow_federation = true` in `[global]`",
        )
    },
    stranger(
        "*.disabled_servers",
        "the fleet's first design",
        "Conduit has no deny list: use `m.room.server_acl` in the rooms, or the admin command `disable-room`",
    ),
    Stranger {
        so: Some("the limit stays `max_request_size`"),
        ..stranger(
            "*.max_file_size",
            "the fleet's first design",
            "`max_request_size` in `[global]` is the only limit of an upload",
        )
    },
    Stranger {
        so: Some("the media directory grows without this bound"),
        ..stranger(
            "*.max_media_size",
            "the fleet's first design",
            "`space` in a `[[global.media.retention]]` with a `scope` bounds what media takes on disk",
        )
    },
    Stranger {
        so: Some("no message ever expires"),
        ..stranger(
            "*.default_room_retention",
            "the fleet's first design",
            "Conduit has no message retention; only media can expire, by `[[global.media.retention]]`",
        )
    },
    Stranger {
        so: Some("nothing expires by it"),
        ..stranger(
            "retention.enabled",
            "the fleet's first design",
            "Conduit has no message retention; only media can expire, by `[[global.media.retention]]`",
        )
    },
    // The forks of Conduit (conduwuit, continuwuity, tuwunel) have many more keys.
    stranger(
        "*.database_backup_path",
        "conduwuit, tuwunel",
        "Conduit has no online backup: stop it and copy, as `backup.sh` does",
    ),
    stranger(
        "*.rocksdb_log_level",
        "conduwuit, tuwunel",
        "Conduit does not set RocksDB's log level",
    ),
    stranger(
        "*.rocksdb_read_only",
        "conduwuit, tuwunel",
        "Conduit cannot open a database read-only",
    ),
    stranger(
        "*.rocksdb_repair",
        "conduwuit, tuwunel",
        "Conduit cannot repair a database: restore a backup",
    ),
    stranger(
        "*.unix_socket_path",
        "conduwuit, tuwunel",
        "Conduit listens on TCP only: `address` and `port`",
    ),
    stranger(
        "*.unix_socket_perms",
        "conduwuit, tuwunel",
        "Conduit listens on TCP only: `address` and `port`",
    ),
    Stranger {
        so: Some("federation goes on with these servers"),
        ..stranger(
            "*.forbidden_remote_server_names",
            "conduwuit, tuwunel",
            "Conduit has no deny list: use `m.room.server_acl` in the rooms",
        )
    },
    Stranger {
        so: Some("federation goes on with every server"),
        ..stranger(
            "*.allowed_remote_server_names",
            "conduwuit, tuwunel",
            "Conduit has no allow list: restrict the network, or switch federation off",
        )
    },
    stranger(
        "*.forbidden_usernames",
        "conduwuit, tuwunel",
        "Conduit refuses no names",
    ),
    stranger(
        "*.forbidden_alias_names",
        "conduwuit, tuwunel",
        "Conduit refuses no aliases",
    ),
    stranger(
        "*.ip_range_denylist",
        "conduwuit, tuwunel, Synapse",
        "Conduit asks any address that it is pointed to: restrict its network",
    ),
    stranger(
        "*.ip_range_blacklist",
        "Synapse",
        "Conduit asks any address that it is pointed to: restrict its network",
    ),
    stranger(
        "*.new_user_displayname_suffix",
        "conduwuit, tuwunel",
        "`enable_lightning_bolt`",
    ),
    stranger(
        "*.registration_token_file",
        "conduwuit, tuwunel",
        "`registration_token`, or the variable `CONDUIT_REGISTRATION_TOKEN` from a file that only systemd reads",
    ),
    stranger(
        "*.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse",
        "conduwuit, tuwunel",
        "nothing: Conduit opens registration without asking",
    ),
    stranger(
        "*.allow_guest_registration",
        "conduwuit, tuwunel",
        "nothing: Conduit lets guests in wherever registration is open without a token",
    ),
    stranger(
        "*.allow_guest_access",
        "Synapse",
        "nothing: Conduit lets guests in wherever registration is open without a token",
    ),
    stranger(
        "*.allow_public_room_directory_over_federation",
        "conduwuit, tuwunel",
        "Conduit always answers other servers' questions for its public rooms",
    ),
    stranger(
        "*.allow_local_presence",
        "conduwuit, tuwunel",
        "Conduit delivers no presence at all",
    ),
    stranger(
        "*.allow_incoming_presence",
        "conduwuit, tuwunel",
        "Conduit delivers no presence at all",
    ),
    stranger(
        "*.allow_outgoing_presence",
        "conduwuit, tuwunel",
        "Conduit delivers no presence at all",
    ),
    stranger(
        "*.url_preview_domain_contains_allowlist",
        "conduwuit, tuwunel",
        "Conduit makes no URL previews",
    ),
    stranger(
        "*.url_preview_enabled",
        "Synapse",
        "Conduit makes no URL previews",
    ),
    stranger(
        "*.auto_join_rooms",
        "conduwuit, tuwunel, Synapse",
        "Conduit joins nobody to a room by itself: invite by the bootstrap's manifest",
    ),
    stranger(
        "*.query_trusted_key_servers_first",
        "conduwuit, tuwunel",
        "Conduit always asks the origin first",
    ),
    stranger(
        "*.sentry",
        "conduwuit, tuwunel",
        "Conduit reports to nobody",
    ),
    stranger(
        "*.admin_execute",
        "conduwuit, tuwunel",
        "Conduit runs no commands at its start: send them to `#admins`",
    ),
    stranger(
        "*.grant_admin_to_first_user",
        "conduwuit, tuwunel",
        "nothing: Conduit always makes the first account that registers an administrator",
    ),
    stranger(
        "*.emergency_password_file",
        "conduwuit, tuwunel",
        "`emergency_password`, or its variable",
    ),
    stranger(
        "*.identity_provider",
        "tuwunel",
        "Conduit has no single sign-on",
    ),
    stranger("*.ldap", "tuwunel", "Conduit has no LDAP"),
    // Synapse and Dendrite.
    stranger(
        "*.listeners",
        "Synapse",
        "`address` and `port` in `[global]`: Conduit has one listener",
    ),
    stranger(
        "*.database",
        "Synapse",
        "`database_backend` and `database_path` in `[global]`",
    ),
    stranger(
        "*.enable_registration",
        "Synapse",
        "`allow_registration` in `[global]`",
    ),
    stranger(
        "*.registration_shared_secret",
        "Synapse, Dendrite",
        "`registration_token`; Conduit has no registration by shared secret",
    ),
    stranger(
        "*.registration_requires_token",
        "Synapse",
        "`registration_token` in `[global]`: as soon as it is set, it is asked for",
    ),
    stranger(
        "*.macaroon_secret_key",
        "Synapse",
        "nothing: Conduit's tokens are random",
    ),
    stranger(
        "*.signing_key_path",
        "Synapse",
        "nothing: the signing key lives in the database",
    ),
    stranger(
        "*.private_key",
        "Dendrite",
        "nothing: the signing key lives in the database",
    ),
    stranger(
        "*.trusted_key_servers",
        "Synapse",
        "`trusted_servers` in `[global]`",
    ),
    stranger(
        "*.public_baseurl",
        "Synapse",
        "`client` in `[global.well_known]`",
    ),
    stranger(
        "*.serve_server_wellknown",
        "Synapse",
        "nothing: Conduit serves it whenever federation is on",
    ),
    stranger(
        "*.well_known_server_name",
        "Dendrite",
        "`server` in `[global.well_known]`",
    ),
    stranger(
        "*.well_known_client_name",
        "Dendrite",
        "`client` in `[global.well_known]`",
    ),
    stranger(
        "*.max_upload_size",
        "Synapse",
        "`max_request_size` in `[global]`",
    ),
    stranger(
        "*.media_store_path",
        "Synapse",
        "`path` in `[global.media]`, with `backend = \"filesystem\"`",
    ),
    stranger(
        "*.media_retention",
        "Synapse",
        "`[[global.media.retention]]`",
    ),
    stranger(
        "*.federation_domain_whitelist",
        "Synapse",
        "Conduit has no allow list: restrict the network",
    ),
    stranger(
        "*.disable_federation",
        "Dendrite",
        "`allow_federation` in `[global]`",
    ),
    stranger(
        "*.enable_metrics",
        "Synapse",
        "Conduit has no metrics endpoint",
    ),
    stranger(
        "*.report_stats",
        "Synapse",
        "`allow_check_for_updates` is the only call home",
    ),
    stranger("*.log_config", "Synapse", "`log` in `[global]`"),
    stranger(
        "*.turn_shared_secret",
        "Synapse",
        "`secret` in `[global.turn]`",
    ),
    stranger(
        "*.turn_user_lifetime",
        "Synapse",
        "`ttl` in `[global.turn]`, in seconds",
    ),
    stranger(
        "*.rc_message",
        "Synapse",
        "Conduit limits no rates: do it in the proxy",
    ),
    stranger(
        "*.rc_login",
        "Synapse",
        "Conduit limits no rates: do it in the proxy",
    ),
    stranger(
        "*.rate_limiting",
        "Dendrite, Conduit's branch `rate-limiting`",
        "Conduit 0.10.12 limits no rates: do it in the proxy",
    ),
    stranger(
        "*.app_service_config_files",
        "Synapse, Dendrite",
        "the admin command `register-appservice`: Conduit keeps bridges in its database",
    ),
    stranger(
        "*.appservice",
        "conduwuit, tuwunel",
        "the admin command `register-appservice`: Conduit keeps bridges in its database",
    ),
    stranger("*.workers", "Synapse", "Conduit is one process"),
    stranger(
        "*.allow_registration_without_token",
        "hearsay",
        "nothing: without `registration_token`, open registration asks for none",
    ),
    // Earlier Conduits.
    stranger(
        "*.cache_capacity",
        "Conduit before 0.3",
        "`db_cache_capacity_mb`",
    ),
    stranger(
        "*.sled_cache_capacity_bytes",
        "Conduit before 0.3",
        "`db_cache_capacity_mb`",
    ),
    stranger(
        "*.max_file_descriptors",
        "hearsay",
        "`LimitNOFILE=` in the unit",
    ),
    stranger("*.workers_limit", "hearsay", "`max_concurrent_requests`"),
];

/// The stranger of this name in this table, if it is known.
pub fn known_stranger(table: &str, name: &str) -> Option<&'static Stranger> {
    STRANGERS.iter().find(|stranger| {
        stranger.path.split_once('.').is_some_and(|(of, key)| {
            (of == "*" || of.eq_ignore_ascii_case(table.trim())) && key == name
        })
    })
}
