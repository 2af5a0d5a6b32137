//! The files of the kit agree; one that is changed in one place is one diagnostic that names both sides. Judged with a
//! real Caddy: `caddy` on `PATH`, `FLEET_CADDY`, or the copy that `cargo fleet setup` takes out of the lab's image.

use fleet_lint::cross::{self, caddy::Caddy};
use fleet_lint::{Code, Diagnostic, Kind, Severity, Source};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

const CONDUIT: &str = "deploy/conduit/conduit.toml";
const CADDYFILE: &str = "deploy/conduit/Caddyfile";
const UNIT: &str = "deploy/conduit/conduit.service";
const WINDOW: &str = "deploy/conduit/conduit-bootstrap.service";
const SYSUSERS: &str = "deploy/conduit/conduit.sysusers";
const FIREWALL: &str = "deploy/conduit/ufw.profile";
const ZONE: &str = "deploy/dns/timmy.foundation.zone";
const SERVER: &str = "deploy/well-known/matrix/server";
const CLIENT: &str = "deploy/well-known/matrix/client";
const MANIFEST: &str = "fixtures/fleet.toml";

const KIT: [(&str, Kind); 10] = [
    (CONDUIT, Kind::Conduit),
    (CADDYFILE, Kind::Caddyfile),
    (UNIT, Kind::Unit),
    (WINDOW, Kind::Unit),
    (SYSUSERS, Kind::Sysusers),
    (FIREWALL, Kind::Firewall),
    (ZONE, Kind::Zone),
    (SERVER, Kind::WellKnownServer),
    (CLIENT, Kind::WellKnownClient),
    (MANIFEST, Kind::Manifest),
];

/// The Caddy to ask; a machine without one cannot prove anything of this.
fn caddy() -> Caddy {
    static FOUND: LazyLock<Caddy> = LazyLock::new(|| {
        let found = Caddy::find();
        let program = found.program().unwrap_or_else(|why| {
            panic!(
                "{why}: these tests ask a real Caddy; run `cargo fleet setup --yes`, install Debian's `caddy`, or name one in \
                 `FLEET_CADDY`"
            )
        });
        // Nothing remembered, so that it is this Caddy that answers.
        Caddy::at(program)
    });
    FOUND.clone()
}

fn text_of(name: &str) -> String {
    let path = Path::new(REPOSITORY).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn kind_of(name: &str) -> Kind {
    KIT.iter()
        .find(|(known, _)| *known == name)
        .map_or_else(|| panic!("{name} is not of the kit"), |(_, kind)| *kind)
}

/// The kit, with some texts replaced by others; each must stand there.
fn kit_with(changes: &[(&str, &str, &str)]) -> Vec<Source> {
    KIT.iter()
        .map(|(name, kind)| {
            let mut text = text_of(name);
            for (file, from, to) in changes {
                if file == name {
                    assert!(text.contains(from), "{name} does not say `{from}`");
                    text = text.replace(from, to);
                }
            }
            Source::new(*name, *kind, text)
        })
        .collect()
}

fn show(found: &[Diagnostic]) -> String {
    found
        .iter()
        .map(|found| {
            let place = |label: &fleet_lint::Label| {
                let (line, column) = label.source.position(label.span.start);
                let text = &label.source.text()[label.span.clone()];
                format!(
                    "{}:{line}:{column} `{text}` ({})",
                    label.source.name(),
                    label.text
                )
            };
            let related: String = found
                .related
                .iter()
                .map(|label| format!("\n      {}", place(label)))
                .collect();
            format!(
                "\n  {}: {}\n    {}{related}",
                found.code.slug(),
                found.message,
                place(&found.primary)
            )
        })
        .collect()
}

fn files_of(found: &Diagnostic) -> BTreeSet<&str> {
    std::iter::once(&found.primary)
        .chain(&found.related)
        .map(|label| label.source.name())
        .collect()
}

#[test]
fn the_kit_agrees_with_itself() {
    let found = cross::check_with(&caddy(), &kit_with(&[]));
    assert!(found.is_empty(), "{}", show(&found));
}

/// A file changed in one place, what that is, and the other file that it contradicts.
struct Mutation {
    file: &'static str,
    from: &'static str,
    to: &'static str,
    code: Code,
    other: &'static str,
    /// The bytes that one of the labels in the changed file must underline.
    underlined: &'static str,
}

const fn mutation(
    file: &'static str,
    from: &'static str,
    to: &'static str,
    code: Code,
    other: &'static str,
    underlined: &'static str,
) -> Mutation {
    Mutation {
        file,
        from,
        to,
        code,
        other,
        underlined,
    }
}

const MUTATIONS: &[Mutation] = &[
    // conduit.toml
    mutation(
        CONDUIT,
        "server_name = \"timmy.foundation\"",
        "server_name = \"tommy.foundation\"",
        Code::ServerNameDisagrees,
        MANIFEST,
        "tommy.foundation",
    ),
    mutation(
        CONDUIT,
        "port = 6167",
        "port = 6168",
        Code::UpstreamDisagrees,
        CADDYFILE,
        "6168",
    ),
    mutation(
        CONDUIT,
        "port = 6167\n",
        "",
        Code::UpstreamDisagrees,
        CADDYFILE,
        "[global]",
    ),
    mutation(
        CONDUIT,
        "address = \"127.0.0.1\"",
        "address = \"10.0.0.5\"",
        Code::UpstreamDisagrees,
        CADDYFILE,
        "10.0.0.5",
    ),
    mutation(
        CONDUIT,
        "[global.well_known]",
        "[global.tls]\ncerts = \"/a\"\nkey = \"/b\"\n[global.well_known]",
        Code::UpstreamDisagrees,
        CADDYFILE,
        "[global.tls]",
    ),
    mutation(
        CONDUIT,
        "max_request_size = 20_000_000",
        "max_request_size = 50_000_000",
        Code::BodyLimitDisagrees,
        CADDYFILE,
        "50_000_000",
    ),
    mutation(
        CONDUIT,
        "server = \"matrix.timmy.foundation:443\"",
        "server = \"matrix.timmy.foundation:8448\"",
        Code::DelegationDisagrees,
        SERVER,
        "matrix.timmy.foundation:8448",
    ),
    mutation(
        CONDUIT,
        "server = \"matrix.timmy.foundation:443\"",
        "",
        Code::DelegationDisagrees,
        SERVER,
        "timmy.foundation",
    ),
    mutation(
        CONDUIT,
        "client = \"https://matrix.timmy.foundation\"",
        "client = \"https://timmy.foundation\"",
        Code::ClientUrlDisagrees,
        CLIENT,
        "https://timmy.foundation",
    ),
    mutation(
        CONDUIT,
        "database_path = \"/opt/conduit/data\"",
        "database_path = \"/var/lib/conduit\"",
        Code::DataNotWritable,
        UNIT,
        "/var/lib/conduit",
    ),
    mutation(
        CONDUIT,
        "path = \"/opt/conduit/data/media\"",
        "path = \"/srv/media\"",
        Code::DataNotWritable,
        UNIT,
        "/srv/media",
    ),
    // Caddyfile
    mutation(
        CADDYFILE,
        "reverse_proxy 127.0.0.1:6167",
        "reverse_proxy 127.0.0.1:8008",
        Code::UpstreamDisagrees,
        CONDUIT,
        "127.0.0.1:8008",
    ),
    mutation(
        CADDYFILE,
        "reverse_proxy 127.0.0.1:6167",
        "reverse_proxy https://127.0.0.1:6167",
        Code::UpstreamDisagrees,
        CONDUIT,
        "127.0.0.1:6167",
    ),
    mutation(
        CADDYFILE,
        "reverse_proxy 127.0.0.1:6167",
        "reverse_proxy [::1]:6167",
        Code::UpstreamDisagrees,
        CONDUIT,
        "[::1]:6167",
    ),
    mutation(
        CADDYFILE,
        "max_size 20MB",
        "max_size 20MiB",
        Code::BodyLimitDisagrees,
        CONDUIT,
        "20MiB",
    ),
    mutation(
        CADDYFILE,
        "> 20000000`",
        "> 10000000`",
        Code::BodyLimitDisagrees,
        CONDUIT,
        "10000000",
    ),
    mutation(
        CADDYFILE,
        "{\"m.server\":\"matrix.timmy.foundation:443\"}",
        "{\"m.server\":\"timmy.foundation:443\"}",
        Code::DelegationDisagrees,
        CONDUIT,
        "timmy.foundation:443",
    ),
    mutation(
        CADDYFILE,
        "{\"base_url\":\"https://matrix.timmy.foundation\"}",
        "{\"base_url\":\"https://chat.timmy.foundation\"}",
        Code::ClientUrlDisagrees,
        CLIENT,
        "https://chat.timmy.foundation",
    ),
    mutation(
        CADDYFILE,
        "\nmatrix.timmy.foundation {",
        "\nchat.timmy.foundation {",
        Code::DelegationUnserved,
        CONDUIT,
        "chat.timmy.foundation",
    ),
    mutation(
        CADDYFILE,
        "\nmatrix.timmy.foundation {",
        "\nmatrix.timmy.foundation:4443 {",
        Code::DelegationUnserved,
        SERVER,
        "matrix.timmy.foundation:4443",
    ),
    mutation(
        CADDYFILE,
        "\nmatrix.timmy.foundation:8448 {",
        "\nmatrix.timmy.foundation:8449 {",
        Code::FirewallBlocks,
        FIREWALL,
        "matrix.timmy.foundation:8449",
    ),
    mutation(
        CADDYFILE,
        "\nmatrix.timmy.foundation:8448 {",
        "\nchat.timmy.foundation:8448 {",
        Code::NameWithoutAddress,
        ZONE,
        "chat.timmy.foundation:8448",
    ),
    mutation(
        CADDYFILE,
        "matrix.timmy.foundation:8448 {\n\timport conduit-api\n}",
        "",
        Code::FirewallIdle,
        FIREWALL,
        "matrix.timmy.foundation",
    ),
    mutation(
        CADDYFILE,
        "\ntimmy.foundation {",
        "\ntommy.foundation {",
        Code::ServerNameDisagrees,
        CONDUIT,
        "tommy.foundation",
    ),
    mutation(
        CADDYFILE,
        "handle /_matrix/* {",
        "handle /_matrx/* {",
        Code::DelegationUnserved,
        CONDUIT,
        "matrix.timmy.foundation",
    ),
    mutation(
        CADDYFILE,
        "path /.well-known/matrix/client",
        "path /.well-known/matrix/clients",
        Code::DelegationUnanswered,
        CONDUIT,
        "timmy.foundation",
    ),
    mutation(
        CADDYFILE,
        "\"m.homeserver\":",
        "\"m.homeservr\":",
        Code::DelegationUnanswered,
        CLIENT,
        "{\"m.homeservr\":{\"base_url\":\"https://matrix.timmy.foundation\"}}",
    ),
    mutation(
        CADDYFILE,
        "https://acme-v02.api.letsencrypt.org/directory",
        "https://acme.zerossl.com/v2/DV90",
        Code::CaaForbids,
        ZONE,
        "https://acme.zerossl.com/v2/DV90",
    ),
    // Units
    mutation(
        UNIT,
        "CONDUIT_CONFIG=/opt/conduit/conduit.toml",
        "CONDUIT_CONFIG=/etc/conduit.toml",
        Code::ConfigPathDisagrees,
        WINDOW,
        "/etc/conduit.toml",
    ),
    mutation(
        UNIT,
        "CONDUIT_CONFIG=/opt/conduit/conduit.toml",
        "CONDUIT_CONFIG=/opt/conduit/server.toml",
        Code::ConfigPathDisagrees,
        CONDUIT,
        "/opt/conduit/server.toml",
    ),
    mutation(
        UNIT,
        "Environment=NO_COLOR=1",
        "Environment=NO_COLOR=1 CONDUIT_PORT=6170",
        Code::UpstreamDisagrees,
        CADDYFILE,
        "6170",
    ),
    mutation(
        UNIT,
        "Environment=NO_COLOR=1",
        "Environment=NO_COLOR=1 \\\n# a comment between\n  \"CONDUIT_MAX_REQUEST_SIZE=1000000\"",
        Code::BodyLimitDisagrees,
        CADDYFILE,
        "1000000",
    ),
    mutation(
        UNIT,
        "User=conduit",
        "User=matrix",
        Code::UserDisagrees,
        SYSUSERS,
        "matrix",
    ),
    mutation(
        UNIT,
        "Group=conduit",
        "Group=matrix",
        Code::UserDisagrees,
        SYSUSERS,
        "matrix",
    ),
    mutation(
        UNIT,
        "ReadWritePaths=-/opt/conduit/data",
        "ReadWritePaths=-/opt/conduit/logs",
        Code::DataNotWritable,
        CONDUIT,
        "-/opt/conduit/logs",
    ),
    mutation(
        UNIT,
        "ReadWritePaths=-/opt/conduit/data",
        "ReadWritePaths=-/opt/conduit/data\nReadWritePaths=",
        Code::DataNotWritable,
        CONDUIT,
        "strict",
    ),
    mutation(
        UNIT,
        "InaccessiblePaths=-/opt/conduit/secrets",
        "InaccessiblePaths=/opt/conduit/data",
        Code::DataNotWritable,
        CONDUIT,
        "/opt/conduit/data",
    ),
    mutation(
        UNIT,
        "ExecStart=/opt/conduit/conduit",
        "ExecStart=/usr/local/bin/conduit",
        Code::UnitsDisagree,
        WINDOW,
        "/usr/local/bin/conduit",
    ),
    mutation(
        UNIT,
        "WorkingDirectory=/opt/conduit",
        "WorkingDirectory=/srv",
        Code::UnitsDisagree,
        WINDOW,
        "/srv",
    ),
    mutation(
        WINDOW,
        "User=conduit",
        "User=root",
        Code::UserDisagrees,
        UNIT,
        "root",
    ),
    mutation(
        WINDOW,
        "CONDUIT_CONFIG=/opt/conduit/conduit.toml",
        "CONDUIT_CONFIG=/opt/conduit.toml",
        Code::ConfigPathDisagrees,
        UNIT,
        "/opt/conduit.toml",
    ),
    mutation(
        WINDOW,
        "ReadWritePaths=-/opt/conduit/data",
        "ReadWritePaths=-/opt/conduit/dat",
        Code::DataNotWritable,
        CONDUIT,
        "-/opt/conduit/dat",
    ),
    mutation(
        SYSUSERS,
        "u conduit -",
        "u matrix -",
        Code::UserDisagrees,
        UNIT,
        "matrix",
    ),
    // Zone
    mutation(
        ZONE,
        "matrix\tIN A",
        "chat\tIN A",
        Code::NameWithoutAddress,
        CONDUIT,
        "143.198.27.163",
    ),
    mutation(
        ZONE,
        "$ORIGIN timmy.foundation.",
        "$ORIGIN tommy.foundation.",
        Code::ZoneForeign,
        CONDUIT,
        "tommy.foundation",
    ),
    mutation(
        ZONE,
        "matrix\tIN A   143.198.27.163",
        "matrix\tIN A   198.51.100.7",
        Code::AddressesDisagree,
        CADDYFILE,
        "198.51.100.7",
    ),
    mutation(
        ZONE,
        "@\tIN A   143.198.27.163",
        "@\tIN A   198.51.100.7",
        Code::AddressesDisagree,
        CADDYFILE,
        "198.51.100.7",
    ),
    mutation(
        ZONE,
        "; matrix IN AAAA 2001:db8::1",
        "matrix IN AAAA 2001:db8::1",
        Code::AddressesDisagree,
        CONDUIT,
        "2001:db8::1",
    ),
    mutation(
        ZONE,
        "; @      IN AAAA 2001:db8::1",
        "@      IN AAAA 2001:db8::1",
        Code::AddressesDisagree,
        CONDUIT,
        "2001:db8::1",
    ),
    mutation(
        ZONE,
        "matrix\tIN A   143.198.27.163",
        "matrix\tIN CNAME gone",
        Code::NameWithoutAddress,
        CONDUIT,
        "gone",
    ),
    mutation(
        ZONE,
        "issue \"letsencrypt.org\"",
        "issue \"sectigo.com\"",
        Code::CaaForbids,
        CADDYFILE,
        "sectigo.com",
    ),
    mutation(
        ZONE,
        "@\tIN CAA 0 iodef",
        "matrix IN CAA 0 issue \";\"\n@\tIN CAA 0 iodef",
        Code::CaaForbids,
        CADDYFILE,
        ";",
    ),
    mutation(
        ZONE,
        "; _matrix-fed._tcp IN SRV",
        "_matrix-fed._tcp IN SRV",
        Code::SrvUnserved,
        CADDYFILE,
        "10 0 8448 matrix.timmy.foundation.",
    ),
    mutation(
        ZONE,
        "; _matrix-fed._tcp IN SRV",
        "_matrix._tcp IN SRV",
        Code::SrvDeprecated,
        CONDUIT,
        "10 0 8448 matrix.timmy.foundation.",
    ),
    // Delegation files
    mutation(
        SERVER,
        "matrix.timmy.foundation:443",
        "matrix.timmy.foundation",
        Code::DelegationDisagrees,
        CONDUIT,
        "matrix.timmy.foundation",
    ),
    mutation(
        CLIENT,
        "https://matrix.timmy.foundation",
        "http://matrix.timmy.foundation",
        Code::ClientUrlDisagrees,
        CONDUIT,
        "http://matrix.timmy.foundation",
    ),
    // Firewall
    mutation(
        FIREWALL,
        "ports=80,443,8448/tcp|443/udp",
        "ports=443,8448/tcp|443/udp",
        Code::FirewallBlocks,
        CADDYFILE,
        "443,8448/tcp|443/udp",
    ),
    mutation(
        FIREWALL,
        "ports=80,443,8448/tcp|443/udp",
        "ports=80,443/tcp|443/udp",
        Code::FirewallBlocks,
        CADDYFILE,
        "80,443/tcp|443/udp",
    ),
    mutation(
        FIREWALL,
        "ports=80,443,8448/tcp|443/udp",
        "ports=80,443,8448/tcp",
        Code::FirewallBlocks,
        CADDYFILE,
        "80,443,8448/tcp",
    ),
    mutation(
        FIREWALL,
        "ports=80,443,8448/tcp|443/udp",
        "ports=80,443,8448,6167/tcp|443/udp",
        Code::FirewallExposes,
        CONDUIT,
        "6167",
    ),
    mutation(
        FIREWALL,
        "ports=80,443,8448/tcp|443/udp",
        "ports=80,443,8448,3000/tcp|443/udp",
        Code::FirewallExposes,
        CADDYFILE,
        "3000",
    ),
    mutation(
        FIREWALL,
        "ports=80,443,8448/tcp|443/udp",
        "ports=80,443,6000:7000,8448/tcp|443/udp",
        Code::FirewallExposes,
        CONDUIT,
        "6000:7000",
    ),
    mutation(
        FIREWALL,
        "ports=80,443,8448/tcp|443/udp",
        "ports=80,443,8080/tcp|443/udp",
        Code::FirewallExposes,
        CADDYFILE,
        "8080",
    ),
    mutation(
        FIREWALL,
        "ports=80,443,8448/tcp|443/udp",
        "ports=80,443,8448,9000/tcp|443/udp",
        Code::FirewallIdle,
        CADDYFILE,
        "9000",
    ),
    // Manifest
    mutation(
        MANIFEST,
        "server_name = \"timmy.foundation\"",
        "server_name = \"garden.test\"",
        Code::ServerNameDisagrees,
        CONDUIT,
        "garden.test",
    ),
];

#[test]
fn one_changed_side_is_one_diagnostic_that_names_both() {
    let caddy = caddy();
    let mut wrong = Vec::new();
    for Mutation {
        file,
        from,
        to,
        code,
        other,
        underlined,
    } in MUTATIONS
    {
        let found = cross::check_with(&caddy, &kit_with(&[(file, from, to)]));
        let what = format!("{file}: `{from}` to `{to}`");
        let [only] = found.as_slice() else {
            wrong.push(format!(
                "{what}: {} diagnostics{}",
                found.len(),
                show(&found)
            ));
            continue;
        };
        let mut problems = Vec::new();
        if only.code != *code {
            problems.push(format!("not `{}`", code.slug()));
        }
        let files = files_of(only);
        for name in [file, other] {
            if !files.contains(name) {
                problems.push(format!("does not name {name}"));
            }
        }
        let underlines = std::iter::once(&only.primary)
            .chain(&only.related)
            .filter(|label| label.source.name() == *file)
            .any(|label| &label.source.text()[label.span.clone()] == *underlined);
        if !underlines {
            problems.push(format!("does not underline `{underlined}`"));
        }
        if !problems.is_empty() {
            wrong.push(format!("{what}: {}{}", problems.join(", "), show(&found)));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        MUTATIONS.len(),
        wrong.join("\n")
    );
}
