//! What is said about a file: where, what happens at run time, what was probably meant, and how to mend it.

use crate::source::Source;
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
