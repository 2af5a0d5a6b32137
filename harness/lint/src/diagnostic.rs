//! What is said about a file: where, what happens at run time, what was probably meant, and how to mend it.

use crate::source::Source;
use crate::value::Place;
use std::ops::Range;

/// How bad it is. The worst of a run decides its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; changes no exit code.
    Note,
    /// Works, but not as somebody who reads the file would think, or not safely.
    Warning,
    /// Does not start, or does not do what it says.
    Error,
}

/// What the server does about it, which is what the differential test holds against the real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// The server does not start, and exits with this code.
    Fatal {
        /// The exit code that the real server ends with.
        exit: u8,
    },
    /// The server starts as if it did not stand there.
    Ignored,
    /// The server starts and does it.
    InForce,
    /// Nothing that one server's start could show: two files contradict each other, or a person would be misled.
    None,
}

/// The class of a diagnostic. Its slug is stable: it stands in reports, in SARIF as the rule's id, and in tests.
///
/// Add variants freely; each has its slug in [`Code::slug`] and one sentence in [`Code::summary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The file is not TOML as Conduit's parser reads it.
    TomlSyntax,
    /// A key stands outside every table, which Conduit refuses.
    TopLevelKey,
    /// A table outside `[global]` is dropped without a word.
    DroppedTable,
    /// A table is written twice in different case; the earlier is dropped.
    RepeatedProfile,
    /// A value is replaced by another one that goes before it.
    Overridden,
    /// No such key exists; Conduit ignores it without a word.
    UnknownKey,
    /// The key exists, but in another table; here it is ignored.
    MisplacedKey,
    /// A key of another server, or one that never existed; Conduit ignores it.
    ForeignKey,
    /// A key of a later Conduit; 0.10.12 ignores it.
    FutureKey,
    /// The key works, but upstream has another way for it.
    DeprecatedKey,
    /// The value is of another type than the key takes.
    WrongType,
    /// The number is outside of what the key takes.
    OutOfRange,
    /// The text is not what the key takes: a name, an address, a URL, a time span.
    InvalidValue,
    /// A key is missing without which Conduit does not start.
    MissingKey,
    /// `[global.media]` without `backend`, which it needs as soon as it exists.
    MediaWithoutBackend,
    /// `length` times `depth` of the media directories must stay below 64.
    DirectoryStructure,
    /// An incomplete or mistyped directory structure is taken for none at all.
    FlatByMistake,
    /// An array stands in the place of a table; its values are taken by position.
    PositionalTable,
    /// No such storage engine is built in.
    UnknownBackend,
    /// SQLite lets two processes open one database, and nothing converts it later.
    SqliteBackend,
    /// The database path is not a directory that stays the same.
    DatabasePath,
    /// A relative path depends on where the server is started.
    RelativePath,
    /// An empty registration token, which Conduit refuses after it made the database.
    EmptyToken,
    /// Anybody can register.
    OpenRegistration,
    /// A registration token while registration is closed.
    TokenWithoutRegistration,
    /// A secret that can be guessed.
    WeakSecret,
    /// A value that was to be replaced.
    Placeholder,
    /// The emergency password is left in place.
    EmergencyPassword,
    /// The server calls conduit.rs every hour.
    UpdateCheck,
    /// Federation is off because nothing says that it is on.
    ImplicitFederation,
    /// Plain HTTP on an address that others reach.
    PlainHttpExposed,
    /// HTTPS on loopback, where only a proxy reaches it.
    TlsOnLoopback,
    /// The certificate or key cannot be read, which ends the server after it opened its database.
    TlsFiles,
    /// The federation port on loopback, where no other server reaches it.
    FederationPort,
    /// Port 0 is another port at each start.
    RandomPort,
    /// The limit of a request is too small to work with.
    RequestSize,
    /// No request may leave at all.
    NothingSent,
    /// An interval of 0 ends the clean-up task, and with it the handling of SIGHUP.
    CleanupPanics,
    /// A cache of no size.
    CacheOff,
    /// The default room version is not supported, or needs unstable ones.
    RoomVersion,
    /// Tracing replaces the log.
    LogsReplaced,
    /// A log directive that does not mean what it seems to.
    LogFilter,
    /// The server name is valid but unusual.
    ServerName,
    /// The server name leaves no room for `@conduit`, and Conduit panics.
    LongServerName,
    /// What the server says of where it is found does not work for others.
    WellKnown,
    /// The scheme of the proxy is none that Conduit can speak.
    ProxyScheme,
    /// A SOCKS proxy by name, which is looked up once, at the start.
    ProxyHost,
    /// A list of ignored keys without the one that is known to be compromised.
    CompromisedKey,
    /// The TURN settings lack a part, so that there is none.
    IncompleteTurn,
    /// Two kinds of TURN credentials, of which one is ignored.
    TurnCredentials,
    /// `[global.turn]` without usable credentials, which Conduit refuses.
    TurnWithoutCredentials,
    /// A media retention without `scope` deletes local uploads.
    RetentionWithoutScope,
    /// Media is deleted as soon as it is stored.
    RetentionAtOnce,
    /// Two media retentions of one scope, of which the second is ignored.
    RepeatedScope,
    /// A variable with two underscores, which reaches no table.
    DoubleUnderscore,
    /// A key that no variable of its own reaches.
    UnreachableKey,
    /// A line that systemd ignores in an environment file.
    EnvironmentSyntax,
    /// `CONDUIT_CONFIG` is not set, without which Conduit does not start.
    ConfigMissing,
    /// `CONDUIT_CONFIG` names no file that is certain to be found.
    ConfigPath,
    /// `Type=notify` with a server that reports ready before it listens, or cannot report.
    UnitNotify,
    /// A restart after exit 1 completes the loss of the signing key.
    UnitRestart,
    /// The server runs as root, or as a user that differs from host to host.
    UnitUser,
    /// The server is killed before it has finished its requests.
    UnitStopTimeout,
    /// The file cannot be read as text.
    Unreadable,
    // Between files, and what files other than Conduit's say.
    /// The Caddyfile was not judged, because Caddy could not be asked.
    CaddyfileNotJudged,
    /// Caddy does not load the Caddyfile.
    CaddyfileRefused,
    /// Caddy loads the Caddyfile and warns of it.
    CaddyfileWarning,
    /// A delegation file is not the JSON that servers and clients look for.
    WellKnownSyntax,
    /// A name server would not load the zone file.
    ZoneSyntax,
    /// ufw would not take the application profile.
    FirewallSyntax,
    /// systemd would skip a line of the unit.
    UnitSyntax,
    /// The fleet's manifest is not TOML.
    ManifestSyntax,
    /// Two files give the site different names.
    ServerNameDisagrees,
    /// Two files send other servers to different places.
    DelegationDisagrees,
    /// Two files send clients to different places.
    ClientUrlDisagrees,
    /// Caddy does not serve the Matrix API where the delegation sends its readers.
    DelegationUnserved,
    /// Caddy serves the site's name but not the delegation that is meant to stand there.
    DelegationUnanswered,
    /// Caddy passes requests on to where Conduit does not listen.
    UpstreamDisagrees,
    /// Caddy and Conduit limit the size of a request differently.
    BodyLimitDisagrees,
    /// Caddy changes the path of a request to the Matrix API.
    MatrixPathRewritten,
    /// The Caddyfile changes what Caddy says of the client.
    ForwardedHeaders,
    /// A unit has Conduit read another configuration than the one at hand.
    ConfigPathDisagrees,
    /// A unit runs as a user that is not the site's.
    UserDisagrees,
    /// Two units of one site run Conduit differently.
    UnitsDisagree,
    /// A unit's sandbox keeps Conduit from writing to its data.
    DataNotWritable,
    /// The zone is not the one that the site's name belongs to.
    ZoneForeign,
    /// A name that the site needs has no address in the zone.
    NameWithoutAddress,
    /// Names of one machine have different addresses in the zone.
    AddressesDisagree,
    /// The zone forbids the certificate authority that Caddy asks.
    CaaForbids,
    /// The zone holds the SRV record that the specification has deprecated.
    SrvDeprecated,
    /// An SRV record sends other servers to where Caddy does not answer for the site's name.
    SrvUnserved,
    /// The firewall lets nobody in to a port that Caddy listens on.
    FirewallBlocks,
    /// The firewall lets everybody in to a port that is this machine's own.
    FirewallExposes,
    /// The firewall lets in a port that nothing of the site listens on.
    FirewallIdle,
}

impl Code {
    /// Every class, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::TomlSyntax,
        Self::TopLevelKey,
        Self::DroppedTable,
        Self::RepeatedProfile,
        Self::Overridden,
        Self::UnknownKey,
        Self::MisplacedKey,
        Self::ForeignKey,
        Self::FutureKey,
        Self::DeprecatedKey,
        Self::WrongType,
        Self::OutOfRange,
        Self::InvalidValue,
        Self::MissingKey,
        Self::MediaWithoutBackend,
        Self::DirectoryStructure,
        Self::FlatByMistake,
        Self::PositionalTable,
        Self::UnknownBackend,
        Self::SqliteBackend,
        Self::DatabasePath,
        Self::RelativePath,
        Self::EmptyToken,
        Self::OpenRegistration,
        Self::TokenWithoutRegistration,
        Self::WeakSecret,
        Self::Placeholder,
        Self::EmergencyPassword,
        Self::UpdateCheck,
        Self::ImplicitFederation,
        Self::PlainHttpExposed,
        Self::TlsOnLoopback,
        Self::TlsFiles,
        Self::FederationPort,
        Self::RandomPort,
        Self::RequestSize,
        Self::NothingSent,
        Self::CleanupPanics,
        Self::CacheOff,
        Self::RoomVersion,
        Self::LogsReplaced,
        Self::LogFilter,
        Self::ServerName,
        Self::LongServerName,
        Self::WellKnown,
        Self::ProxyScheme,
        Self::ProxyHost,
        Self::CompromisedKey,
        Self::IncompleteTurn,
        Self::TurnCredentials,
        Self::TurnWithoutCredentials,
        Self::RetentionWithoutScope,
        Self::RetentionAtOnce,
        Self::RepeatedScope,
        Self::DoubleUnderscore,
        Self::UnreachableKey,
        Self::EnvironmentSyntax,
        Self::ConfigMissing,
        Self::ConfigPath,
        Self::UnitNotify,
        Self::UnitRestart,
        Self::UnitUser,
        Self::UnitStopTimeout,
        Self::Unreadable,
        Self::CaddyfileNotJudged,
        Self::CaddyfileRefused,
        Self::CaddyfileWarning,
        Self::WellKnownSyntax,
        Self::ZoneSyntax,
        Self::FirewallSyntax,
        Self::UnitSyntax,
        Self::ManifestSyntax,
        Self::ServerNameDisagrees,
        Self::DelegationDisagrees,
        Self::ClientUrlDisagrees,
        Self::DelegationUnserved,
        Self::DelegationUnanswered,
        Self::UpstreamDisagrees,
        Self::BodyLimitDisagrees,
        Self::MatrixPathRewritten,
        Self::ForwardedHeaders,
        Self::ConfigPathDisagrees,
        Self::UserDisagrees,
        Self::UnitsDisagree,
        Self::DataNotWritable,
        Self::ZoneForeign,
        Self::NameWithoutAddress,
        Self::AddressesDisagree,
        Self::CaaForbids,
        Self::SrvDeprecated,
        Self::SrvUnserved,
        Self::FirewallBlocks,
        Self::FirewallExposes,
        Self::FirewallIdle,
    ];

    /// Its stable name, in kebab case.
    pub fn slug(self) -> &'static str {
        match self {
            Self::TomlSyntax => "toml-syntax",
            Self::TopLevelKey => "top-level-key",
            Self::DroppedTable => "dropped-table",
            Self::RepeatedProfile => "repeated-profile",
            Self::Overridden => "overridden",
            Self::UnknownKey => "unknown-key",
            Self::MisplacedKey => "misplaced-key",
            Self::ForeignKey => "foreign-key",
            Self::FutureKey => "future-key",
            Self::DeprecatedKey => "deprecated-key",
            Self::WrongType => "wrong-type",
            Self::OutOfRange => "out-of-range",
            Self::InvalidValue => "invalid-value",
            Self::MissingKey => "missing-key",
            Self::MediaWithoutBackend => "media-without-backend",
            Self::DirectoryStructure => "directory-structure",
            Self::FlatByMistake => "flat-by-mistake",
            Self::PositionalTable => "positional-table",
            Self::UnknownBackend => "unknown-backend",
            Self::SqliteBackend => "sqlite-backend",
            Self::DatabasePath => "database-path",
            Self::RelativePath => "relative-path",
            Self::EmptyToken => "empty-token",
            Self::OpenRegistration => "open-registration",
            Self::TokenWithoutRegistration => "token-without-registration",
            Self::WeakSecret => "weak-secret",
            Self::Placeholder => "placeholder",
            Self::EmergencyPassword => "emergency-password",
            Self::UpdateCheck => "update-check",
            Self::ImplicitFederation => "implicit-federation",
            Self::PlainHttpExposed => "plain-http-exposed",
            Self::TlsOnLoopback => "tls-on-loopback",
            Self::TlsFiles => "tls-files",
            Self::FederationPort => "federation-port",
            Self::RandomPort => "random-port",
            Self::RequestSize => "request-size",
            Self::NothingSent => "nothing-sent",
            Self::CleanupPanics => "cleanup-panics",
            Self::CacheOff => "cache-off",
            Self::RoomVersion => "room-version",
            Self::LogsReplaced => "logs-replaced",
            Self::LogFilter => "log-filter",
            Self::ServerName => "server-name",
            Self::LongServerName => "long-server-name",
            Self::WellKnown => "well-known",
            Self::ProxyScheme => "proxy-scheme",
            Self::ProxyHost => "proxy-host",
            Self::CompromisedKey => "compromised-key",
            Self::IncompleteTurn => "incomplete-turn",
            Self::TurnCredentials => "turn-credentials",
            Self::TurnWithoutCredentials => "turn-without-credentials",
            Self::RetentionWithoutScope => "retention-without-scope",
            Self::RetentionAtOnce => "retention-at-once",
            Self::RepeatedScope => "repeated-scope",
            Self::DoubleUnderscore => "double-underscore",
            Self::UnreachableKey => "unreachable-key",
            Self::EnvironmentSyntax => "environment-syntax",
            Self::ConfigMissing => "config-missing",
            Self::ConfigPath => "config-path",
            Self::UnitNotify => "unit-notify",
            Self::UnitRestart => "unit-restart",
            Self::UnitUser => "unit-user",
            Self::UnitStopTimeout => "unit-stop-timeout",
            Self::Unreadable => "unreadable",
            Self::CaddyfileNotJudged => "caddyfile-not-judged",
            Self::CaddyfileRefused => "caddyfile-refused",
            Self::CaddyfileWarning => "caddyfile-warning",
            Self::WellKnownSyntax => "well-known-syntax",
            Self::ZoneSyntax => "zone-syntax",
            Self::FirewallSyntax => "firewall-syntax",
            Self::UnitSyntax => "unit-syntax",
            Self::ManifestSyntax => "manifest-syntax",
            Self::ServerNameDisagrees => "server-name-disagrees",
            Self::DelegationDisagrees => "delegation-disagrees",
            Self::ClientUrlDisagrees => "client-url-disagrees",
            Self::DelegationUnserved => "delegation-unserved",
            Self::DelegationUnanswered => "delegation-unanswered",
            Self::UpstreamDisagrees => "upstream-disagrees",
            Self::BodyLimitDisagrees => "body-limit-disagrees",
            Self::MatrixPathRewritten => "matrix-path-rewritten",
            Self::ForwardedHeaders => "forwarded-headers",
            Self::ConfigPathDisagrees => "config-path-disagrees",
            Self::UserDisagrees => "user-disagrees",
            Self::UnitsDisagree => "units-disagree",
            Self::DataNotWritable => "data-not-writable",
            Self::ZoneForeign => "zone-foreign",
            Self::NameWithoutAddress => "name-without-address",
            Self::AddressesDisagree => "addresses-disagree",
            Self::CaaForbids => "caa-forbids",
            Self::SrvDeprecated => "srv-deprecated",
            Self::SrvUnserved => "srv-unserved",
            Self::FirewallBlocks => "firewall-blocks",
            Self::FirewallExposes => "firewall-exposes",
            Self::FirewallIdle => "firewall-idle",
        }
    }

    /// What this class is about, as one sentence for a list of rules.
    pub fn summary(self) -> &'static str {
        match self {
            Self::TomlSyntax => "The file is not TOML as Conduit's parser reads it.",
            Self::TopLevelKey => "A key stands outside every table, which Conduit refuses.",
            Self::DroppedTable => "A table outside `[global]` is dropped without a word.",
            Self::RepeatedProfile => {
                "A table is written twice in different case; the earlier is dropped."
            }
            Self::Overridden => "A value is replaced by another one that goes before it.",
            Self::UnknownKey => "No such key exists; Conduit ignores it without a word.",
            Self::MisplacedKey => "The key exists, but in another table; here it is ignored.",
            Self::ForeignKey => {
                "A key of another server, or one that never existed; Conduit ignores it."
            }
            Self::FutureKey => "A key of a later Conduit; 0.10.12 ignores it.",
            Self::DeprecatedKey => "The key works, but upstream has another way for it.",
            Self::WrongType => "The value is of another type than the key takes.",
            Self::OutOfRange => "The number is outside of what the key takes.",
            Self::InvalidValue => {
                "The text is not what the key takes: a name, an address, a URL, a time span."
            }
            Self::MissingKey => "A key is missing without which Conduit does not start.",
            Self::MediaWithoutBackend => {
                "`[global.media]` without `backend`, which it needs as soon as it exists."
            }
            Self::DirectoryStructure => {
                "`length` times `depth` of the media directories must stay below 64."
            }
            Self::FlatByMistake => {
                "An incomplete or mistyped directory structure is taken for none at all."
            }
            Self::PositionalTable => {
                "An array stands in the place of a table; its values are taken by position."
            }
            Self::UnknownBackend => "No such storage engine is built in.",
            Self::SqliteBackend => {
                "SQLite lets two processes open one database, and nothing converts it later."
            }
            Self::DatabasePath => "The database path is not a directory that stays the same.",
            Self::RelativePath => "A relative path depends on where the server is started.",
            Self::EmptyToken => {
                "An empty registration token, which Conduit refuses after it made the database."
            }
            Self::OpenRegistration => "Anybody can register.",
            Self::TokenWithoutRegistration => "A registration token while registration is closed.",
            Self::WeakSecret => "A secret that can be guessed.",
            Self::Placeholder => "A value that was to be replaced.",
            Self::EmergencyPassword => "The emergency password is left in place.",
            Self::UpdateCheck => "The server calls conduit.rs every hour.",
            Self::ImplicitFederation => "Federation is off because nothing says that it is on.",
            Self::PlainHttpExposed => "Plain HTTP on an address that others reach.",
            Self::TlsOnLoopback => "HTTPS on loopback, where only a proxy reaches it.",
            Self::TlsFiles => {
                "The certificate or key cannot be read, which ends the server after it opened its database."
            }
            Self::FederationPort => {
                "The federation port on loopback, where no other server reaches it."
            }
            Self::RandomPort => "Port 0 is another port at each start.",
            Self::RequestSize => "The limit of a request is too small to work with.",
            Self::NothingSent => "No request may leave at all.",
            Self::CleanupPanics => {
                "An interval of 0 ends the clean-up task, and with it the handling of SIGHUP."
            }
            Self::CacheOff => "A cache of no size.",
            Self::RoomVersion => {
                "The default room version is not supported, or needs unstable ones."
            }
            Self::LogsReplaced => "Tracing replaces the log.",
            Self::LogFilter => "A log directive that does not mean what it seems to.",
            Self::ServerName => "The server name is valid but unusual.",
            Self::LongServerName => {
                "The server name leaves no room for `@conduit`, and Conduit panics."
            }
            Self::WellKnown => {
                "What the server says of where it is found does not work for others."
            }
            Self::ProxyScheme => "The scheme of the proxy is none that Conduit can speak.",
            Self::ProxyHost => "A SOCKS proxy by name, which is looked up once, at the start.",
            Self::CompromisedKey => {
                "A list of ignored keys without the one that is known to be compromised."
            }
            Self::IncompleteTurn => "The TURN settings lack a part, so that there is none.",
            Self::TurnCredentials => "Two kinds of TURN credentials, of which one is ignored.",
            Self::TurnWithoutCredentials => {
                "`[global.turn]` without usable credentials, which Conduit refuses."
            }
            Self::RetentionWithoutScope => {
                "A media retention without `scope` deletes local uploads."
            }
            Self::RetentionAtOnce => "Media is deleted as soon as it is stored.",
            Self::RepeatedScope => {
                "Two media retentions of one scope, of which the second is ignored."
            }
            Self::DoubleUnderscore => "A variable with two underscores, which reaches no table.",
            Self::UnreachableKey => "A key that no variable of its own reaches.",
            Self::EnvironmentSyntax => "A line that systemd ignores in an environment file.",
            Self::ConfigMissing => {
                "`CONDUIT_CONFIG` is not set, without which Conduit does not start."
            }
            Self::ConfigPath => "`CONDUIT_CONFIG` names no file that is certain to be found.",
            Self::UnitNotify => {
                "`Type=notify` with a server that reports ready before it listens, or cannot report."
            }
            Self::UnitRestart => "A restart after exit 1 completes the loss of the signing key.",
            Self::UnitUser => {
                "The server runs as root, or as a user that differs from host to host."
            }
            Self::UnitStopTimeout => "The server is killed before it has finished its requests.",
            Self::Unreadable => "The file cannot be read as text.",
            Self::CaddyfileNotJudged => {
                "The Caddyfile was not judged, because Caddy could not be asked."
            }
            Self::CaddyfileRefused => "Caddy does not load the Caddyfile.",
            Self::CaddyfileWarning => "Caddy loads the Caddyfile and warns of it.",
            Self::WellKnownSyntax => {
                "A delegation file is not the JSON that servers and clients look for."
            }
            Self::ZoneSyntax => "A name server would not load the zone file.",
            Self::FirewallSyntax => "ufw would not take the application profile.",
            Self::UnitSyntax => "systemd would skip a line of the unit.",
            Self::ManifestSyntax => "The fleet's manifest is not TOML.",
            Self::ServerNameDisagrees => "Two files give the site different names.",
            Self::DelegationDisagrees => "Two files send other servers to different places.",
            Self::ClientUrlDisagrees => "Two files send clients to different places.",
            Self::DelegationUnserved => {
                "Caddy does not serve the Matrix API where the delegation sends its readers."
            }
            Self::DelegationUnanswered => {
                "Caddy serves the site's name but not the delegation that is meant to stand there."
            }
            Self::UpstreamDisagrees => "Caddy passes requests on to where Conduit does not listen.",
            Self::BodyLimitDisagrees => {
                "Caddy and Conduit limit the size of a request differently."
            }
            Self::MatrixPathRewritten => "Caddy changes the path of a request to the Matrix API.",
            Self::ForwardedHeaders => "The Caddyfile changes what Caddy says of the client.",
            Self::ConfigPathDisagrees => {
                "A unit has Conduit read another configuration than the one at hand."
            }
            Self::UserDisagrees => "A unit runs as a user that is not the site's.",
            Self::UnitsDisagree => "Two units of one site run Conduit differently.",
            Self::DataNotWritable => "A unit's sandbox keeps Conduit from writing to its data.",
            Self::ZoneForeign => "The zone is not the one that the site's name belongs to.",
            Self::NameWithoutAddress => "A name that the site needs has no address in the zone.",
            Self::AddressesDisagree => "Names of one machine have different addresses in the zone.",
            Self::CaaForbids => "The zone forbids the certificate authority that Caddy asks.",
            Self::SrvDeprecated => {
                "The zone holds the SRV record that the specification has deprecated."
            }
            Self::SrvUnserved => {
                "An SRV record sends other servers to where Caddy does not answer for the site's name."
            }
            Self::FirewallBlocks => "The firewall lets nobody in to a port that Caddy listens on.",
            Self::FirewallExposes => {
                "The firewall lets everybody in to a port that is this machine's own."
            }
            Self::FirewallIdle => {
                "The firewall lets in a port that nothing of the site listens on."
            }
        }
    }
}

impl Code {
    /// When the real server comes across it; of several fatal findings the earliest decides the exit code.
    pub fn stage(self) -> Stage {
        match self {
            Self::UnknownBackend | Self::DatabasePath => Stage::Database,
            Self::EmptyToken => Stage::Registration,
            Self::TlsFiles => Stage::Listener,
            Self::LongServerName => Stage::Names,
            Self::ProxyScheme => Stage::Clients,
            Self::ConfigMissing => Stage::Start,
            _ => Stage::Parse,
        }
    }

    /// The class of this name.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.slug() == slug)
    }
}

/// The steps of the real server's start, in its order (src/main.rs:60-290, src/database/mod.rs:277-470).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// It looks for `CONDUIT_CONFIG`.
    Start,
    /// It reads file and environment into its structure.
    Parse,
    /// It opens the database.
    Database,
    /// It looks at the registration token.
    Registration,
    /// It builds its HTTP clients, with the proxy.
    Clients,
    /// It makes the names of its own account and room.
    Names,
    /// It reads the certificate and listens.
    Listener,
}

/// The exit code that the server ends with by these findings; `None` if none of them keeps it from starting.
pub fn predicted_exit<'a>(findings: impl IntoIterator<Item = &'a Diagnostic>) -> Option<u8> {
    findings
        .into_iter()
        .filter_map(|finding| match finding.effect {
            Effect::Fatal { exit } => Some((finding.code.stage(), exit)),
            _ => None,
        })
        .min()
        .map(|(_, exit)| exit)
}

/// A place, and what there is to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The file.
    pub source: Source,
    /// Bytes of it.
    pub span: Range<usize>,
    /// A lower-case fragment that is printed under the underlined text; may be empty.
    pub text: String,
}

/// A replacement of bytes by others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The file.
    pub source: Source,
    /// The bytes that go.
    pub span: Range<usize>,
    /// What comes instead.
    pub replacement: String,
}

/// A correction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// What it does, in the imperative.
    pub title: String,
    /// Whether it has one safe meaning, so that `--fix` may apply it without a person.
    pub safe: bool,
    /// All of them or none.
    pub edits: Vec<Edit>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its class.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What the server does about it.
    pub effect: Effect,
    /// The finding: a lower-case fragment that names the key or value in backticks.
    pub message: String,
    /// Where it is; the text says what happens at run time.
    pub primary: Label,
    /// Other places that belong to it, such as the other side of a contradiction.
    pub related: Vec<Label>,
    /// Remarks that need no place: what was probably meant, why it matters, where it is documented.
    pub notes: Vec<String>,
    /// The correction, where one can be written down.
    pub fix: Option<Fix>,
}

impl Diagnostic {
    /// A finding without remarks or correction.
    pub fn new(
        code: Code,
        severity: Severity,
        effect: Effect,
        message: impl Into<String>,
        primary: Label,
    ) -> Self {
        Self {
            code,
            severity,
            effect,
            message: message.into(),
            primary,
            related: Vec::new(),
            notes: Vec::new(),
            fix: None,
        }
    }

    /// With another place that belongs to it.
    #[must_use]
    pub fn related(mut self, label: Label) -> Self {
        self.related.push(label);
        self
    }

    /// With a remark.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// With a correction.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<Option<Fix>>) -> Self {
        self.fix = fix.into();
        self
    }
}

impl Fix {
    /// A correction by one replacement.
    pub fn replace(
        title: impl Into<String>,
        safe: bool,
        place: &Place,
        replacement: impl Into<String>,
    ) -> Self {
        Self {
            title: title.into(),
            safe,
            edits: vec![Edit {
                source: place.source.clone(),
                span: place.span.clone(),
                replacement: replacement.into(),
            }],
        }
    }
}
