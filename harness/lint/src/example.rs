//! The shortest texts in which each class of findings is found, and near to each one in which it is not: what
//! `--explain` shows, and what the tests hold every rule to.

use crate::diagnostic::{Code, Diagnostic, Effect};
use crate::source::{Kind, Source};
use Effect::{Fatal, Ignored, InForce, None as Nothing};

/// A configuration with nothing to say of it.
pub const BASE: &str = r#"[global]
server_name = "vale.test"
database_backend = "rocksdb"
database_path = "/srv/conduit"
allow_federation = true
allow_check_for_updates = false
"#;

/// A unit with nothing to say of it.
pub const UNIT: &str = "[Service]\nType=exec\nUser=conduit\nEnvironment=CONDUIT_CONFIG=/opt/conduit/conduit.toml\nExecStart=/opt/conduit/conduit\n";

/// [`BASE`] and these lines.
pub fn with(lines: &str) -> String {
    format!("{BASE}{lines}\n")
}

/// [`BASE`] without the line that begins so, and with these lines.
pub fn instead(of: &str, lines: &str) -> String {
    let kept: Vec<_> = BASE.lines().filter(|line| !line.starts_with(of)).collect();
    format!("{}\n{lines}\n", kept.join("\n"))
}

fn unit(lines: &str) -> String {
    format!("{UNIT}{lines}\n")
}

const REFUSED: Effect = Fatal { exit: 1 };
const PANIC: Effect = Fatal { exit: 101 };

/// A class, seen in a text and missed in another.
pub struct Example {
    /// The class.
    pub code: Code,
    /// What the texts are.
    pub kind: Kind,
    /// What the server does about it.
    pub effect: Effect,
    /// A text in which it fires, and what is then underlined.
    pub fires: (String, &'static str),
    /// A text that is near to it, in which it is silent.
    pub silent: String,
}

impl Example {
    /// The finding that it is the example of.
    pub fn finding(&self) -> Option<Diagnostic> {
        let name = match self.kind {
            Kind::Environment => "conduit.env",
            Kind::Unit => "conduit.service",
            _ => "conduit.toml",
        };
        let (text, at) = &self.fires;
        let findings = crate::lint(&[Source::new(name, self.kind, text.as_str())]);
        findings.into_iter().find(|finding| {
            let text = finding.primary.source.text();
            finding.code == self.code
                && finding.effect == self.effect
                && (at.is_empty() || text.get(finding.primary.span.clone()) == Some(*at))
        })
    }
}

fn rule(code: Code, effect: Effect, fires: String, at: &'static str, silent: String) -> Example {
    Example {
        code,
        kind: Kind::Conduit,
        effect,
        fires: (fires, at),
        silent,
    }
}

fn of(kind: Kind, rule: Example) -> Example {
    Example { kind, ..rule }
}

/// Every class that one file alone can show, some of them in more than one way.
#[rustfmt::skip]
pub fn all() -> Vec<Example> {
    use Kind::{Environment, Unit};
    vec![
        rule(Code::TomlSyntax, REFUSED, with("port = = 1"), "", with("port = 1")),
        rule(Code::TopLevelKey, REFUSED, format!("port = 1\n{BASE}"), "port", with("port = 1")),
        rule(Code::DroppedTable, Ignored, with("[registration]\nenabled = true"), "registration", with("[default]\nlog = \"warn\"")),
        rule(Code::RepeatedProfile, Ignored, with("[GLOBAL]\nport = 1"), "global", with("[Default]\nport = 1")),
        rule(Code::Overridden, Ignored, with("port = 1\n[default]\nport = 2"), "port", with("[default]\nport = 2")),
        rule(Code::UnknownKey, Ignored, with("allow_federaton = true"), "allow_federaton", with("allow_encryption = true")),
        rule(Code::MisplacedKey, Ignored, with("client = \"https://vale.test\""), "client", with("[global.well_known]\nclient = \"https://vale.test\"")),
        rule(Code::ForeignKey, Ignored, with("max_file_size = 5"), "max_file_size", with("max_request_size = 5_000_000")),
        rule(Code::FutureKey, Ignored, with("[global.media]\nbackend = \"filesystem\"\nbucket = \"b\""), "bucket", with("[global.media]\nbackend = \"filesystem\"")),
        rule(Code::DeprecatedKey, InForce, with("turn_uris = [\"turn:x\"]\nturn_secret = \"s\""), "turn_uris", with("[global.turn]\nuris = [\"turn:x\"]\nsecret = \"s\"")),
        rule(Code::WrongType, REFUSED, with("port = \"6167\""), "\"6167\"", with("port = 6167")),
        rule(Code::OutOfRange, REFUSED, with("port = 65536"), "65536", with("port = 65535")),
        rule(Code::InvalidValue, REFUSED, with("address = \"localhost\""), "\"localhost\"", with("address = \"::1\"")),
        rule(Code::MissingKey, REFUSED, instead("server_name", ""), "global", BASE.to_owned()),
        rule(Code::MediaWithoutBackend, REFUSED, with("[[global.media.retention]]\nscope = \"local\""), "media", with("[global.media]\nbackend = \"filesystem\"")),
        rule(Code::DirectoryStructure, REFUSED, with("[global.media]\nbackend = \"filesystem\"\ndirectory_structure = { length = 8, depth = 8 }"), "directory_structure", with("[global.media]\nbackend = \"filesystem\"\ndirectory_structure = { length = 7, depth = 9 }")),
        rule(Code::FlatByMistake, Ignored, with("[global.media]\nbackend = \"filesystem\"\ndirectory_structure = { length = 2 }"), "directory_structure", with("[global.media]\nbackend = \"filesystem\"\ndirectory_structure = {}")),
        rule(Code::PositionalTable, InForce, with("address = \"0.0.0.0\"\ntls = [\"/a\", \"/b\"]"), "[\"/a\", \"/b\"]", with("address = \"0.0.0.0\"\ntls = { certs = \"/a\", key = \"/b\" }")),
        rule(Code::UnknownBackend, REFUSED, instead("database_backend", "database_backend = \"sled\""), "\"sled\"", BASE.to_owned()),
        rule(Code::SqliteBackend, InForce, instead("database_backend", "database_backend = \"sqlite\""), "\"sqlite\"", BASE.to_owned()),
        rule(Code::DatabasePath, InForce, instead("database_path", "database_path = \"/srv/conduit.db\""), "\"/srv/conduit.db\"", BASE.to_owned()),
        rule(Code::RelativePath, InForce, instead("database_path", "database_path = \"data\""), "\"data\"", BASE.to_owned()),
        rule(Code::RelativePath, InForce, with("[global.media]\nbackend = \"filesystem\"\npath = \"media\""), "\"media\"", with("[global.media]\nbackend = \"filesystem\"\npath = \"/media\"")),
        rule(Code::EmptyToken, REFUSED, with("allow_registration = true\nregistration_token = \"\""), "\"\"", with("allow_registration = true\nregistration_token = \"a-long-token\"")),
        rule(Code::OpenRegistration, InForce, with("allow_registration = true"), "true", with("allow_registration = false")),
        rule(Code::TokenWithoutRegistration, Ignored, with("registration_token = \"a-long-token\""), "\"a-long-token\"", with("allow_registration = true\nregistration_token = \"a-long-token\"")),
        rule(Code::WeakSecret, InForce, with("jwt_secret = \"short\""), "\"short\"", with("jwt_secret = \"0123456789abcdef0123456789abcdef\"")),
        rule(Code::Placeholder, InForce, instead("server_name", "server_name = \"your.server.name\""), "\"your.server.name\"", BASE.to_owned()),
        rule(Code::EmergencyPassword, InForce, with("emergency_password = \"a-long-password\""), "\"a-long-password\"", BASE.to_owned()),
        rule(Code::UpdateCheck, InForce, instead("allow_check_for_updates", "allow_check_for_updates = true"), "true", BASE.to_owned()),
        rule(Code::UpdateCheck, Nothing, instead("allow_check_for_updates", ""), "global", BASE.to_owned()),
        rule(Code::ImplicitFederation, Nothing, instead("allow_federation", ""), "global", instead("allow_federation", "allow_federation = false")),
        rule(Code::PlainHttpExposed, InForce, with("address = \"0.0.0.0\""), "\"0.0.0.0\"", with("address = \"0.0.0.0\"\ntls = { certs = \"/a\", key = \"/b\" }")),
        rule(Code::TlsOnLoopback, InForce, with("tls = { certs = \"/a\", key = \"/b\" }"), "{ certs = \"/a\", key = \"/b\" }", with("address = \"0.0.0.0\"\ntls = { certs = \"/a\", key = \"/b\" }")),
        rule(Code::TlsFiles, PANIC, with("tls = { certs = \"\", key = \"/b\" }"), "\"\"", with("tls = { certs = \"/a\", key = \"/b\" }")),
        rule(Code::FederationPort, InForce, with("port = 8448"), "8448", with("port = 6167")),
        rule(Code::RandomPort, InForce, with("port = 0"), "0", with("port = 1")),
        rule(Code::RequestSize, InForce, with("max_request_size = 20"), "20", with("max_request_size = 20_000_000")),
        rule(Code::NothingSent, InForce, with("max_concurrent_requests = 0"), "0", with("max_concurrent_requests = 1")),
        rule(Code::CleanupPanics, InForce, with("cleanup_second_interval = 0"), "0", with("cleanup_second_interval = 1")),
        rule(Code::CacheOff, InForce, with("db_cache_capacity_mb = 0"), "0", with("db_cache_capacity_mb = 0.5")),
        rule(Code::RoomVersion, Ignored, with("default_room_version = \"13\""), "\"13\"", with("default_room_version = \"6\"")),
        rule(Code::RoomVersion, InForce, with("default_room_version = \"5\""), "\"5\"", with("default_room_version = \"11\"")),
        rule(Code::LogsReplaced, InForce, with("tracing_flame = true"), "true", with("tracing_flame = false")),
        rule(Code::LogFilter, Ignored, with("log = \"warn,conduit=verbose\""), "\"warn,conduit=verbose\"", with("log = \"warn,conduit=debug,_=off,state_res=0\"")),
        rule(Code::LogFilter, InForce, with("log = \"warning\""), "\"warning\"", with("log = \"WARN\"")),
        rule(Code::ServerName, InForce, instead("server_name", "server_name = \"Vale.test\""), "\"Vale.test\"", instead("server_name", "server_name = \"vale.test:8448\"")),
        rule(Code::WellKnown, InForce, with("[global.well_known]\nserver = \"matrix.vale.test:443\""), "\"matrix.vale.test:443\"", with("[global.well_known]\nserver = \"matrix.vale.test:443\"\nclient = \"https://matrix.vale.test\"")),
        rule(Code::ProxyScheme, REFUSED, with("proxy = { global = { url = \"ftp://a\" } }"), "\"ftp://a\"", with("proxy = { global = { url = \"http://a\" } }")),
        rule(Code::ProxyHost, InForce, with("proxy = { global = { url = \"socks5h://tor:9050\" } }"), "\"socks5h://tor:9050\"", with("proxy = { global = { url = \"socks5h://127.0.0.1:9050\" } }")),
        rule(Code::CompromisedKey, InForce, with("ignored_keys = []"), "ignored_keys", with("ignored_keys = [{ key = \"l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og\" }]")),
        rule(Code::IncompleteTurn, Ignored, with("turn_secret = \"s\""), "turn_secret", with("turn_secret = \"s\"\nturn_uris = [\"turn:x\"]")),
        rule(Code::TurnCredentials, Ignored, with("[global.turn]\nuris = [\"turn:x\"]\nsecret = \"s\"\nusername = \"u\"\npassword = \"p\""), "secret", with("[global.turn]\nuris = [\"turn:x\"]\nusername = \"u\"\npassword = \"p\"")),
        rule(Code::TurnWithoutCredentials, REFUSED, with("[global.turn]\nuris = [\"turn:x\"]\nusername = \"u\""), "turn", with("[global.turn]\nuris = [\"turn:x\"]\nsecret = \"s\"")),
        rule(Code::RetentionWithoutScope, InForce, with("media = { backend = \"filesystem\", retention = [{ accessed = \"30d\" }] }"), "{ accessed = \"30d\" }", with("media = { backend = \"filesystem\", retention = [{ scope = \"remote\", accessed = \"30d\" }] }")),
        rule(Code::RetentionAtOnce, InForce, with("media = { backend = \"filesystem\", retention = [{ scope = \"remote\", accessed = \"0s\" }] }"), "\"0s\"", with("media = { backend = \"filesystem\", retention = [{ scope = \"remote\", accessed = \"1s\" }] }")),
        rule(Code::RepeatedScope, Ignored, with("media = { backend = \"filesystem\", retention = [{ scope = \"remote\" }, { scope = 'remote' }] }"), "'remote'", with("media = { backend = \"filesystem\", retention = [{ scope = \"remote\" }, { scope = \"local\" }] }")),
        of(Environment, rule(Code::DoubleUnderscore, Ignored, "CONDUIT_WELL_KNOWN__CLIENT=https://vale.test".to_owned(), "CONDUIT_WELL_KNOWN__CLIENT", "CONDUIT_WELL_KNOWN_CLIENT=https://vale.test".to_owned())),
        of(Environment, rule(Code::UnreachableKey, Ignored, "CONDUIT_PROXY_GLOBAL_URL=http://a".to_owned(), "CONDUIT_PROXY_GLOBAL_URL", "CONDUIT_PROXY='{global={url=\"http://a\"}}'".to_owned())),
        of(Environment, rule(Code::EnvironmentSyntax, Ignored, "export CONDUIT_PORT=1".to_owned(), "export CONDUIT_PORT", "# export\n; CONDUIT\nCONDUIT_PORT=1".to_owned())),
        of(Environment, rule(Code::WrongType, REFUSED, "CONDUIT_REGISTRATION_TOKEN=12345678".to_owned(), "12345678", "CONDUIT_REGISTRATION_TOKEN='\"12345678\"'".to_owned())),
        of(Unit, rule(Code::ConfigMissing, PANIC, UNIT.replace("CONDUIT_CONFIG", "CONFIG"), "ExecStart=/opt/conduit/conduit", UNIT.to_owned())),
        of(Unit, rule(Code::ConfigPath, Nothing, UNIT.replace("=/opt/conduit/conduit.toml", "=conduit.toml"), "conduit.toml", UNIT.to_owned())),
        of(Unit, rule(Code::UnitNotify, Nothing, UNIT.replace("exec", "notify") + "RestrictAddressFamilies=AF_INET AF_INET6", "RestrictAddressFamilies=AF_INET AF_INET6", unit("RestrictAddressFamilies=AF_INET AF_INET6"))),
        of(Unit, rule(Code::UnitNotify, Nothing, UNIT.replace("exec", "notify") + "RestrictAddressFamilies=AF_INET AF_UNIX", "Type=notify", UNIT.to_owned())),
        of(Unit, rule(Code::UnitRestart, Nothing, unit("Restart=on-failure"), "Restart=on-failure", unit("Restart=on-failure\nRestartPreventExitStatus=1"))),
        of(Unit, rule(Code::UnitRestart, Nothing, unit("Restart=on-abnormal\nRestartForceExitStatus=1 101"), "RestartForceExitStatus=1 101", unit("Restart=on-abnormal\nRestartForceExitStatus=101"))),
        of(Unit, rule(Code::UnitUser, Nothing, unit("DynamicUser=yes"), "DynamicUser=yes", unit("DynamicUser=no"))),
        of(Unit, rule(Code::UnitUser, Nothing, UNIT.replace("User=conduit\n", ""), "ExecStart=/opt/conduit/conduit", UNIT.to_owned())),
        of(Unit, rule(Code::UnitStopTimeout, Nothing, unit("TimeoutStopSec=10"), "TimeoutStopSec=10", unit("TimeoutStopSec=31s"))),
    ]
}
