//! Every class of findings, seen to fire and seen to be silent.
//!
//! The effect is the real server's; what is held here against the expectation is also what the differential scenarios
//! hold against Conduit itself.

use Effect::{Fatal, Ignored, InForce, None as Nothing};
use fleet_lint::{Code, Diagnostic, Effect, Kind, Source, lint};

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
fn instead(of: &str, lines: &str) -> String {
    let kept: Vec<_> = BASE.lines().filter(|line| !line.starts_with(of)).collect();
    format!("{}\n{lines}\n", kept.join("\n"))
}

fn unit(lines: &str) -> String {
    format!("{UNIT}{lines}\n")
}

const REFUSED: Effect = Fatal { exit: 1 };
const PANIC: Effect = Fatal { exit: 101 };

struct Rule {
    code: Code,
    kind: Kind,
    effect: Effect,
    /// A text in which it fires, and what is then underlined.
    fires: (String, &'static str),
    /// A text that is near to it, in which it is silent.
    silent: String,
}

fn rule(code: Code, effect: Effect, fires: String, at: &'static str, silent: String) -> Rule {
    Rule {
        code,
        kind: Kind::Conduit,
        effect,
        fires: (fires, at),
        silent,
    }
}

fn of(kind: Kind, rule: Rule) -> Rule {
    Rule { kind, ..rule }
}

/// Where the classes of what two files say are seen to fire and to be silent.
const BETWEEN_FILES: &str = include_str!("../cross.rs");

/// Classes that are seen to fire and to be silent in other tests.
const ELSEWHERE: &[Code] = &[
    Code::Unreadable,     // files
    Code::LongServerName, // below
];

#[rustfmt::skip]
fn rules() -> Vec<Rule> {
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

pub fn judged(kind: Kind, text: &str) -> Vec<Diagnostic> {
    lint(&[Source::new("a file", kind, text)])
}

fn said(findings: &[Diagnostic]) -> String {
    fleet_lint::render::human(findings, false)
}

#[test]
fn every_rule_fires_where_it_must_and_names_the_place_and_the_effect() {
    for rule in rules() {
        let (text, at) = &rule.fires;
        let findings = judged(rule.kind, text);
        let found = findings.iter().any(|finding| {
            let span = finding.primary.span.clone();
            finding.code == rule.code
                && finding.effect == rule.effect
                && (at.is_empty() || finding.primary.source.text()[span] == **at)
        });
        assert!(
            found,
            "`{}` with {:?} at `{at}` is not said of\n{text}\n{}",
            rule.code.slug(),
            rule.effect,
            said(&findings)
        );
    }
}

#[test]
fn every_rule_is_silent_where_it_must_be() {
    for rule in rules() {
        let findings = judged(rule.kind, &rule.silent);
        let found = findings.iter().any(|finding| finding.code == rule.code);
        assert!(
            !found,
            "`{}` is said of\n{}\n{}",
            rule.code.slug(),
            rule.silent,
            said(&findings)
        );
    }
}

#[test]
fn every_class_has_such_a_rule() {
    let rules = rules();
    for code in Code::ALL {
        assert!(
            ELSEWHERE.contains(code)
                || rules.iter().any(|rule| rule.code == *code)
                || BETWEEN_FILES.contains(&format!("Code::{code:?}")),
            "`{}` is never seen to fire",
            code.slug()
        );
    }
}

#[test]
fn the_names_of_the_classes_are_distinct_and_in_kebab_case() {
    let mut seen = std::collections::BTreeSet::new();
    for code in Code::ALL {
        let slug = code.slug();
        assert!(seen.insert(slug), "`{slug}` stands for two classes");
        assert!(
            slug.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "{slug}"
        );
        assert_eq!(Code::from_slug(slug), Some(*code));
        assert!(code.summary().ends_with('.'), "{slug}");
    }
}

#[test]
fn there_is_nothing_to_say_of_the_base() {
    assert_eq!(said(&judged(Kind::Conduit, BASE)), "");
    assert_eq!(said(&judged(Kind::Unit, UNIT)), "");
}

/// `@conduit:` and a name of 246 bytes are 255, the most that an account's name may have.
#[test]
fn a_server_name_of_247_bytes_panics_and_one_of_246_does_not() {
    let named = |length| {
        let name = "a".repeat(length);
        judged(
            Kind::Conduit,
            &instead("server_name", &format!("server_name = \"{name}\"")),
        )
    };
    assert_eq!(said(&named(246)), "");
    let findings = named(247);
    assert_eq!(findings.len(), 1, "{}", said(&findings));
    assert_eq!(findings[0].code, Code::LongServerName);
    assert_eq!(findings[0].effect, PANIC);
}

/// The server stops at the first step that fails, whatever else is wrong.
#[test]
fn of_several_fatal_findings_the_earliest_step_decides_the_exit_code() {
    let exit = |text: &str| fleet_lint::predicted_exit(&judged(Kind::Conduit, text));
    let panics = "tls = { certs = \"\", key = \"\" }";
    assert_eq!(exit(BASE), None);
    assert_eq!(exit(&with(panics)), Some(101));
    assert_eq!(exit(&with(&format!("{panics}\nport = true"))), Some(1));
    assert_eq!(
        exit(&with(&format!("{panics}\nregistration_token = \"\""))),
        Some(1)
    );
}

#[test]
fn a_value_of_default_that_global_replaces_is_not_judged() {
    let text = with("port = 6167\n[default]\nport = \"nonsense\"");
    assert_eq!(
        fleet_lint::predicted_exit(&judged(Kind::Conduit, &text)),
        None
    );
}

#[test]
fn tables_of_default_and_global_are_one_table() {
    let text = with("[global.media]\npath = \"/m\"\n[default.media]\nbackend = \"filesystem\"");
    assert_eq!(said(&judged(Kind::Conduit, &text)), "");
}
