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
    // Most of them leave the Caddyfile as it is.
    let answers = tempfile::tempdir().expect("a directory");
    let caddy = caddy().remembering(answers.path());
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

/// The kit's whole set within what a pre-commit hook may take, once Caddy was asked. The quickest of many readings: what
/// else the machine does can only lengthen one.
#[test]
fn a_second_check_of_the_kit_is_not_felt() {
    let answers = tempfile::tempdir().expect("a directory");
    let caddy = caddy().remembering(answers.path());
    let time = || {
        let begun = Instant::now();
        // Reading is part of it.
        let sources = kit_with(&[]);
        assert!(cross::check_with(&caddy, &sources).is_empty());
        begun.elapsed()
    };
    let cold = time();
    let mut warm: Vec<Duration> = (0..50).map(|_| time()).collect();
    warm.sort();
    let (least, median) = (warm[0], warm[warm.len() / 2]);
    println!("cold {cold:?}, warm {least:?} at least, {median:?} in the middle");
    assert!(
        least < Duration::from_millis(50),
        "cold {cold:?}, warm {least:?}, {median:?}"
    );
}

/// What a source of the kit becomes with a text of its own.
fn source(name: &str, text: impl Into<String>) -> Source {
    Source::new(name, kind_of(name), text)
}

/// A program that stands for Caddy, where the real one cannot be made to misbehave.
fn script(directory: &Path, name: &str, body: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

/// The only diagnostic about a Caddyfile.
fn only(found: Vec<Diagnostic>) -> Diagnostic {
    match <[Diagnostic; 1]>::try_from(found) {
        Ok([only]) => only,
        Err(found) => panic!("{} diagnostics{}", found.len(), show(&found)),
    }
}

#[test]
fn a_caddyfile_that_does_not_adapt_is_refused_at_its_line() {
    for (text, line, underlined) in [
        ("a.test {\n\trespnd x\n}\n", 2, "respnd x"),
        ("a.test {\n\ttls {\n\t\t# nothing\n\t}\n}\n", 4, "}"),
        ("a.test {\n\tresponse\n", 2, "response"),
        (
            "import nowhere\n\na.test {\n\trespond x\n}\n",
            1,
            "import nowhere",
        ),
        (
            "a.test {\n\trequest_body {\n\t\tmax_size 20furlongs\n\t}\n}\n",
            3,
            "max_size 20furlongs",
        ),
    ] {
        let found = only(cross::check_with(&caddy(), &[source(CADDYFILE, text)]));
        assert_eq!(found.code, Code::CaddyfileRefused, "{}", found.message);
        assert_eq!(found.severity, Severity::Error);
        let place = &found.primary;
        assert_eq!(
            place.source.position(place.span.start).0,
            line,
            "{}",
            found.message
        );
        assert_eq!(&text[place.span.clone()], underlined, "{}", found.message);
        // Not where it was copied to: what a person reads is the name that they gave.
        assert!(!found.message.contains("/tmp"), "{}", found.message);
    }
}

#[test]
fn a_caddyfile_that_caddy_complains_of_is_judged_all_the_same() {
    let text = text_of(CADDYFILE).replace("\trequest_body {", "  request_body {");
    let mut changed = kit_with(&[(CONDUIT, "port = 6167", "port = 6168")]);
    changed[1] = source(CADDYFILE, text);
    let found = cross::check_with(&caddy(), &changed);
    let codes: Vec<Code> = found.iter().map(|found| found.code).collect();
    assert_eq!(
        codes,
        [Code::CaddyfileWarning, Code::UpstreamDisagrees],
        "{}",
        show(&found)
    );
    assert_eq!(found[0].severity, Severity::Note);
}

#[test]
fn without_a_caddy_the_caddyfile_does_not_count_as_clean() {
    let missing = Caddy::missing("no `caddy` is on `PATH`");
    let found = only(cross::check_with(&missing, &kit_with(&[])));
    assert_eq!(found.code, Code::CaddyfileNotJudged);
    assert_eq!(found.severity, Severity::Warning);
    assert!(
        found.message.contains("no `caddy` is on `PATH`"),
        "{}",
        found.message
    );
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.contains("cargo fleet setup"))
    );
    // The others are compared without it.
    let changes = [(
        MANIFEST,
        "server_name = \"timmy.foundation\"",
        "server_name = \"garden.test\"",
    )];
    let codes: Vec<Code> = cross::check_with(&missing, &kit_with(&changes))
        .iter()
        .map(|found| found.code)
        .collect();
    assert_eq!(codes, [Code::CaddyfileNotJudged, Code::ServerNameDisagrees]);
}

#[test]
fn a_caddy_that_misbehaves_is_one_clear_diagnostic() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, body, says) in [
        ("hangs", "exec sleep 60", "gave no answer within 0.5 s"),
        // The end of the pipe is held by a child that outlives it.
        ("lingers", "sleep 5 & exit 0", "without closing its output"),
        (
            "babbles",
            "echo 'Segmentation fault? Never heard of it.'",
            "is not JSON",
        ),
        ("floods", "exec yes", "wrote more than 32 MiB"),
        ("lists", "echo '[]'", "is no configuration"),
        ("dies", "kill -9 $$", "ended with a signal"),
        ("fails", "exit 7", "ended with exit status 7"),
    ] {
        let program = script(directory.path(), name, body);
        let begun = Instant::now();
        let caddy = Caddy::at(&program).within(Duration::from_millis(500));
        let found = only(cross::check_with(&caddy, &kit_with(&[])));
        assert_eq!(
            found.code,
            Code::CaddyfileNotJudged,
            "{name}: {}",
            found.message
        );
        assert_eq!(found.severity, Severity::Warning, "{name}");
        assert!(found.message.contains(says), "{name}: {}", found.message);
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{name} took {:?}",
            begun.elapsed()
        );
    }
    let gone = Caddy::at(directory.path().join("nowhere"));
    let found = only(cross::check_with(&gone, &kit_with(&[])));
    assert_eq!(found.code, Code::CaddyfileNotJudged);
    assert!(found.message.contains("No such file"), "{}", found.message);
}

#[test]
fn caddy_is_asked_once_and_again_when_anything_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let count = directory.path().join("count");
    let real = caddy();
    let real = real.program().expect("checked").display().to_string();
    let program = script(
        directory.path(),
        "caddy",
        &format!("echo asked >> {}\nexec {real} \"$@\"", count.display()),
    );
    let asked = || std::fs::read_to_string(&count).map_or(0, |text| text.lines().count());
    let caddy = Caddy::at(&program).remembering(directory.path().join("answers"));
    let check = |caddy: &Caddy, sources: &[Source]| cross::check_with(caddy, sources);

    assert!(check(&caddy, &kit_with(&[])).is_empty());
    assert_eq!(asked(), 1);
    assert!(check(&caddy, &kit_with(&[])).is_empty());
    assert_eq!(asked(), 1, "the same text is asked for once");
    let other = kit_with(&[(CADDYFILE, "max_size 20MB", "max_size 10MB")]);
    assert_eq!(only(check(&caddy, &other)).code, Code::BodyLimitDisagrees);
    assert_eq!(asked(), 2, "another text is asked for");
    assert_eq!(only(check(&caddy, &other)).code, Code::BodyLimitDisagrees);
    assert_eq!(asked(), 2);
    // A refusal is remembered like an answer.
    let refused = [source(CADDYFILE, "a.test {\n\trespnd x\n}\n")];
    for _ in 0..2 {
        assert_eq!(only(check(&caddy, &refused)).code, Code::CaddyfileRefused);
    }
    assert_eq!(asked(), 3);
    // Another program under the same name is another Caddy.
    script(
        directory.path(),
        "caddy",
        &format!("echo asked >> {}\nexec  {real} \"$@\"", count.display()),
    );
    assert!(check(&caddy, &kit_with(&[])).is_empty());
    assert_eq!(asked(), 4);
    // A damaged memory is no memory.
    for entry in std::fs::read_dir(directory.path().join("answers")).expect("a directory") {
        std::fs::write(entry.expect("an entry").path(), "{").expect("written");
    }
    assert!(check(&caddy, &kit_with(&[])).is_empty());
    assert_eq!(asked(), 5);
}

#[test]
fn an_operators_caddyfile_is_judged_with_what_it_imports() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    std::fs::create_dir(root.join("conf.d")).expect("a directory");
    let name = |file: &str| root.join(file).display().to_string();
    let site = name("conf.d/conduit.caddy");
    let absolute = format!("import {}\n", name("conf.d/*.caddy"));
    for import in ["import conf.d/*.caddy\n", absolute.as_str()] {
        let main =
            format!("gitea.timmy.foundation {{\n\treverse_proxy 127.0.0.1:3000\n}}\n\n{import}");
        let text = text_of(CADDYFILE).replace("127.0.0.1:6167", "127.0.0.1:6168");
        std::fs::write(&site, &text).expect("written");
        let main = Source::new(name("Caddyfile"), Kind::Caddyfile, main);
        let conduit = source(CONDUIT, text_of(CONDUIT));

        // From the disk.
        let found = only(cross::check_with(
            &caddy(),
            &[main.clone(), conduit.clone()],
        ));
        assert_eq!(found.code, Code::UpstreamDisagrees);
        assert!(
            files_of(&found).contains(site.as_str()),
            "{}",
            show(&[found])
        );

        // As it was given, which is judged once, though it is named and imported.
        let given = Source::new(&site, Kind::Caddyfile, text.replace("6168", "6169"));
        let sources = [main.clone(), given, conduit.clone()];
        let found = only(cross::check_with(&caddy(), &sources));
        assert!(show(&[found]).contains("127.0.0.1:6169"));

        // What is wrong with an imported file is said of that file.
        let given = Source::new(&site, Kind::Caddyfile, "a.test {\n\trespnd x\n}\n");
        let found = only(cross::check_with(&caddy(), &[main, given, conduit]));
        assert_eq!(found.code, Code::CaddyfileRefused);
        assert_eq!(found.primary.source.name(), site, "{}", found.message);
        assert_eq!(found.primary.source.position(found.primary.span.start).0, 2);
    }
}

#[test]
fn other_ways_to_write_the_same_site_are_no_contradiction() {
    let one_site = "matrix.timmy.foundation, matrix.timmy.foundation:8448 {\n\trequest_body {\n\t\tmax_size 20MB\n\t}\n\t\
                    reverse_proxy /_matrix/* localhost:6167\n}\n\ntimmy.foundation {\n\trespond /.well-known/matrix/server \
                    `{\"m.server\": \"matrix.timmy.foundation:443\"}`\n\trespond /.well-known/matrix/client \
                    \"{\\\"m.homeserver\\\": {\\\"base_url\\\": \\\"https://matrix.timmy.foundation/\\\"}}\"\n}\n";
    let wildcard = "{\n\tauto_https disable_redirects\n}\n\nhttp:// {\n\tredir https://{host}{uri}\n}\n\n*.timmy.foundation {\n\t\
                    @matrix host matrix.timmy.foundation\n\thandle @matrix {\n\t\trequest_body {\n\t\t\tmax_size 20MB\n\t\t}\n\t\t\
                    reverse_proxy 127.0.0.1:6167\n\t}\n\thandle {\n\t\treverse_proxy 127.0.0.1:3000\n\t}\n}\n\n\
                    timmy.foundation {\n\treverse_proxy /.well-known/matrix/* 127.0.0.1:6167\n}\n\n\
                    matrix.timmy.foundation:8448 {\n\trequest_body {\n\t\tmax_size 20000000\n\t}\n\treverse_proxy 127.0.0.1:6167\n}\n";
    let beside_others = format!(
        "git.timmy.org {{\n\treverse_proxy 127.0.0.1:3000\n\thandle_path /api/* {{\n\t\treverse_proxy 10.0.0.7:9000\n\t}}\n}}\n\n{one_site}"
    );
    for text in [one_site, wildcard, &beside_others] {
        let mut sources = kit_with(&[]);
        sources[1] = source(CADDYFILE, text);
        let found = cross::check_with(&caddy(), &sources);
        assert!(found.is_empty(), "{text}{}", show(&found));

        let mut sources = kit_with(&[(CONDUIT, "port = 6167", "port = 6168")]);
        sources[1] = source(CADDYFILE, text);
        let found = cross::check_with(&caddy(), &sources);
        let codes: BTreeSet<Code> = found.iter().map(|found| found.code).collect();
        assert_eq!(
            codes,
            BTreeSet::from([Code::UpstreamDisagrees]),
            "{text}{}",
            show(&found)
        );
    }
}

#[test]
fn another_homeserver_behind_the_same_caddy_is_not_ours() {
    let other = "matrix.other.test {\n\thandle /_matrix/* {\n\t\trequest_body {\n\t\t\tmax_size 50MB\n\t\t}\n\t\treverse_proxy \
                 127.0.0.1:8008\n\t}\n}\n\nother.test {\n\trespond /.well-known/matrix/server `{\"m.server\":\"matrix.other.test:443\"}`\n\t\
                 respond /.well-known/matrix/client `{\"m.homeserver\":{\"base_url\":\"https://matrix.other.test\"}}`\n}\n";
    let mut sources = kit_with(&[]);
    let (ours, _) = sources[1]
        .text()
        .split_once("# apex: begin")
        .expect("the kit marks its apex");
    for caddyfile in [
        format!("{other}\n{}", sources[1].text()),
        format!("{other}\n{}\n", ours.trim_end()),
    ] {
        sources[1] = source(CADDYFILE, caddyfile);
        let found = cross::check_with(&caddy(), &sources);
        assert!(found.is_empty(), "{}", show(&found));
    }
}

#[test]
fn a_file_of_variables_beats_the_configuration() {
    let mut sources = kit_with(&[(
        UNIT,
        "Environment=NO_COLOR=1",
        "EnvironmentFile=-/etc/default/conduit",
    )]);
    let variables = |text: &str| Source::new("etc/default/conduit", Kind::Environment, text);
    sources.push(variables("# port\nCONDUIT_PORT=\"7000\"\n"));
    let found = only(cross::check_with(&caddy(), &sources));
    assert_eq!(found.code, Code::UpstreamDisagrees);
    assert!(
        files_of(&found).contains("etc/default/conduit"),
        "{}",
        show(&[found])
    );
    // A file that no unit reads changes nothing.
    sources.pop();
    sources.push(Source::new(
        "etc/default/other",
        Kind::Environment,
        "CONDUIT_PORT=7000\n",
    ));
    assert!(cross::check_with(&caddy(), &sources).is_empty());
}

/// The comparison is about what the server would run with, as it is judged by itself too.
#[test]
fn files_are_compared_by_what_their_values_mean_to_conduit() {
    let caddy = caddy();
    let check = |changes: &[(&str, &str, &str)]| cross::check_with(&caddy, &kit_with(changes));
    // Names of tables are read without regard to case.
    let found = check(&[(CONDUIT, "[global", "[GLOBAL")]);
    assert!(found.is_empty(), "{}", show(&found));
    let variable = |text: &'static str| check(&[(UNIT, "NO_COLOR=1", text)]);
    // In quotes within quotes a number is a text, which no port is.
    for (text, disagrees) in [
        ("CONDUIT_PORT=6168", true),
        ("CONDUIT_PORT='6168'", true),
        ("'CONDUIT_PORT=\"6168\"'", false),
        // What systemd makes of a specifier is not known.
        ("CONDUIT_PORT=6168 CONDUIT_PORT=%i", false),
        ("CONDUIT_PORT=%i CONDUIT_PORT=6168", true),
        ("CONDUIT_SERVER_NAME=%H", false),
        ("CONDUIT_CONFIG=%E/conduit.toml", false),
    ] {
        let found = variable(text);
        assert_eq!(!found.is_empty(), disagrees, "{text}{}", show(&found));
    }
    // What follows from the name follows from the one that counts.
    let derived = [
        (CONDUIT, "\nserver = \"matrix.timmy.foundation:443\"", ""),
        (UNIT, "NO_COLOR=1", "CONDUIT_SERVER_NAME=garden.test"),
    ];
    let found = check(&derived);
    assert!(
        found
            .iter()
            .any(|found| found.code == Code::DelegationDisagrees
                && found.message.contains("garden.test:443")),
        "{}",
        show(&found)
    );
}

#[test]
fn a_path_of_the_matrix_api_must_not_be_rewritten() {
    for (from, to, underlined) in [
        (
            "handle /_matrix/* {",
            "handle_path /_matrix/* {",
            "/_matrix/*",
        ),
        (
            "\t\treverse_proxy @kept 127.0.0.1:6167 {",
            "\t\turi strip_prefix /_matrix\n\t\treverse_proxy @kept 127.0.0.1:6167 {",
            "/_matrix",
        ),
    ] {
        let found = only(cross::check_with(
            &caddy(),
            &kit_with(&[(CADDYFILE, from, to)]),
        ));
        assert_eq!(found.code, Code::MatrixPathRewritten);
        let text = &found.primary.source.text()[found.primary.span.clone()];
        assert_eq!(text, underlined);
    }
}

/// Requests reach Conduit by several ways in the kit: with a body that is kept, without, and after a refusal.
#[test]
fn every_way_to_conduit_is_looked_at() {
    for way in [
        "\t\treverse_proxy @kept 127.0.0.1:",
        "\t\t\t\treverse_proxy 127.0.0.1:",
    ] {
        let change = (CADDYFILE, &*format!("{way}6167"), &*format!("{way}6168"));
        let found = only(cross::check_with(&caddy(), &kit_with(&[change])));
        assert_eq!(found.code, Code::UpstreamDisagrees, "{way}");
        assert!(files_of(&found).contains(CADDYFILE), "{way}");
    }
}

#[test]
fn forwarded_headers_are_left_to_caddy() {
    let change = (
        CADDYFILE,
        "\t\t\theader_up Expect 100-continue",
        "\t\t\theader_up Expect 100-continue\n\t\t\theader_up X-Forwarded-For {http.request.header.X-Real-IP}",
    );
    let found = only(cross::check_with(&caddy(), &kit_with(&[change])));
    assert_eq!(found.code, Code::ForwardedHeaders);
    let text = &found.primary.source.text()[found.primary.span.clone()];
    assert_eq!(text, "X-Forwarded-For");
}

#[test]
fn a_drop_in_is_part_of_its_unit() {
    let mut sources = kit_with(&[]);
    let drop_in = |text: &str| {
        Source::new(
            "/etc/systemd/system/conduit.service.d/port.conf",
            Kind::Unit,
            text,
        )
    };
    sources.push(drop_in("[Service]\nEnvironment=CONDUIT_PORT=7000\n"));
    let found = only(cross::check_with(&caddy(), &sources));
    assert_eq!(found.code, Code::UpstreamDisagrees);
    let files = files_of(&found);
    assert!(files.contains(sources[sources.len() - 1].name()) && files.contains(CADDYFILE));

    // An empty assignment empties the list before it, and what follows begins anew.
    sources.pop();
    sources.push(drop_in("[Service]\nReadWritePaths=\nReadWritePaths=/srv\n"));
    assert_eq!(
        only(cross::check_with(&caddy(), &sources)).code,
        Code::DataNotWritable
    );
    sources.pop();
    sources.push(drop_in(
        "[Service]\nReadWritePaths=\nReadWritePaths=/srv /opt/conduit\n",
    ));
    assert!(cross::check_with(&caddy(), &sources).is_empty());
}

#[test]
fn broken_files_are_one_clear_diagnostic_each() {
    // The last but one is how the line begins that the diagnostic is about.
    let cases: &[(&str, &str, &str, Code, &str, &str)] = &[
        (
            SERVER,
            "matrix.timmy.foundation:443\"}",
            "matrix.timmy.foundation:443\"",
            Code::WellKnownSyntax,
            "",
            "EOF",
        ),
        (
            SERVER,
            "\"m.server\":\"matrix.timmy.foundation:443\"",
            "\"m.server\":443",
            Code::WellKnownSyntax,
            "{\"m.server\"",
            "is not a string",
        ),
        (
            CLIENT,
            "\"base_url\"",
            "\"baseurl\"",
            Code::WellKnownSyntax,
            "{\"m.home",
            "`m.homeserver.base_url` is missing",
        ),
        (
            CLIENT,
            "{\"m.homeserver\":",
            "{'m.homeserver':",
            Code::WellKnownSyntax,
            "{'m.home",
            "key must be a string",
        ),
        (
            ZONE,
            "300 )      ; negative answers",
            "300        ; negative answers",
            Code::ZoneSyntax,
            "@\tIN SOA",
            "never closed",
        ),
        (
            ZONE,
            "matrix\tIN A   143.198.27.163",
            "matrix\tIN A   143.198.27.1633",
            Code::ZoneSyntax,
            "matrix\tIN A",
            "no IPv4 address",
        ),
        (
            ZONE,
            "; @      IN AAAA 2001:db8::1",
            "@      IN AAAA 2001:db8:::1",
            Code::ZoneSyntax,
            "@      IN AAAA",
            "no IPv6 address",
        ),
        (
            ZONE,
            "0 issue \"letsencrypt.org\"",
            "0 issue \"letsencrypt.org",
            Code::ZoneSyntax,
            "@\tIN CAA 0 issue",
            "not closed",
        ),
        (
            ZONE,
            "matrix\tIN A   143",
            "matrix\tIN AA   143",
            Code::ZoneSyntax,
            "matrix\tIN AA",
            "unknown record type `AA`",
        ),
        (
            ZONE,
            "; _matrix-fed._tcp IN SRV 10 0 8448",
            "_matrix-fed._tcp IN SRV 10 8448",
            Code::ZoneSyntax,
            "_matrix-fed",
            "priority, weight, port and target",
        ),
        (
            ZONE,
            "; _matrix-fed._tcp IN SRV 10 0 8448",
            "matrix IN CNAME elsewhere\n; ",
            Code::ZoneSyntax,
            "matrix IN CNAME",
            "has a CNAME and other records",
        ),
        (
            ZONE,
            "matrix\tIN A   143",
            "matrix.example.org.\tIN A   143",
            Code::ZoneSyntax,
            "matrix.example.org",
            "lies outside the zone",
        ),
        (
            ZONE,
            "$TTL 300",
            "$TTL soon",
            Code::ZoneSyntax,
            "$TTL",
            "is no time",
        ),
        (
            FIREWALL,
            "ports=80,443,8448/tcp|443/udp",
            "ports=80,443,8448|443/udp",
            Code::FirewallSyntax,
            "ports=",
            "need a protocol",
        ),
        (
            FIREWALL,
            "ports=80,443,8448/tcp|443/udp",
            "ports=80,443,84480/tcp",
            Code::FirewallSyntax,
            "ports=",
            "`84480` is no port",
        ),
        (
            FIREWALL,
            "title=Matrix homeserver behind Caddy\n",
            "",
            Code::FirewallSyntax,
            "[Conduit]",
            "has no `title`",
        ),
        (
            FIREWALL,
            "[Conduit]",
            "",
            Code::FirewallSyntax,
            "title=",
            "before any section",
        ),
        (
            UNIT,
            "Type=exec",
            "Type exec",
            Code::UnitSyntax,
            "Type exec",
            "neither a section nor",
        ),
        (
            MANIFEST,
            "server_name = \"timmy.foundation\"",
            "server_name = timmy.foundation",
            Code::ManifestSyntax,
            "server_name",
            "not TOML",
        ),
    ];
    let caddy = caddy();
    for (file, from, to, code, line, says) in cases {
        let found = cross::check_with(&caddy, &kit_with(&[(file, from, to)]));
        let [only] = found.as_slice() else {
            panic!(
                "{file}: `{to}`: {} diagnostics{}",
                found.len(),
                show(&found)
            );
        };
        assert_eq!(only.code, *code, "{file}: `{to}`");
        assert!(
            only.message.contains(says),
            "{file}: `{to}`: {}",
            only.message
        );
        let place = &only.primary;
        let text = place.source.text();
        let begins = text[..place.span.start].rfind('\n').map_or(0, |at| at + 1);
        assert!(
            text[begins..].starts_with(line),
            "{file}: `{to}`: at `{}`",
            &text[begins..]
        );
    }
    for (name, kind) in KIT {
        for text in [
            "", "\n", "\u{feff}", "\0", "\"", "(", "[", "\\", "=\\\n", "{",
        ] {
            // No panic is all that is asked of it.
            cross::check_with(
                &Caddy::missing("not asked"),
                &[Source::new(name, kind, text)],
            );
        }
    }
}

#[test]
fn what_is_not_there_contradicts_nothing() {
    let kit = kit_with(&[]);
    let caddy = caddy();
    for left_out in 0..kit.len() {
        let mut without = kit.clone();
        let gone = without.remove(left_out);
        let found = cross::check_with(&caddy, &without);
        assert!(found.is_empty(), "without {}:{}", gone.name(), show(&found));
        let found = cross::check_with(&caddy, &[gone]);
        assert!(found.is_empty(), "alone:{}", show(&found));
    }
}

#[test]
fn a_fix_makes_the_files_agree() {
    // Most of them leave the Caddyfile as it is.
    let answers = tempfile::tempdir().expect("a directory");
    let caddy = caddy().remembering(answers.path());
    let mut fixed = 0;
    for Mutation { file, from, to, .. } in MUTATIONS {
        let sources = kit_with(&[(file, from, to)]);
        let Some(fix) = only(cross::check_with(&caddy, &sources)).fix else {
            continue;
        };
        assert!(!fix.safe, "which side is meant only a person knows");
        let mended: Vec<Source> = sources
            .iter()
            .map(|source| {
                let mut edits: Vec<_> = fix
                    .edits
                    .iter()
                    .filter(|edit| edit.source == *source)
                    .collect();
                edits.sort_by_key(|edit| std::cmp::Reverse(edit.span.start));
                let mut text = source.text().to_owned();
                for edit in edits {
                    text.replace_range(edit.span.clone(), &edit.replacement);
                }
                Source::new(source.name(), source.kind(), text)
            })
            .collect();
        let left = cross::check_with(&caddy, &mended);
        assert!(
            left.is_empty(),
            "{file}: `{to}`, then {}:{}",
            fix.title,
            show(&left)
        );
        fixed += 1;
    }
    assert!(fixed >= 15, "only {fixed} have a fix");
}

mod anything {
    //! No input makes a reader panic, and every place that it names lies in its file.

    use super::*;
    use fleet_lint::cross::{firewall, unit, well_known, zone};
    use proptest::prelude::*;

    /// Text that is likely to get past the first line of a reader.
    fn text(words: &'static [&'static str]) -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            6 => proptest::sample::select(words).prop_map(str::to_owned),
            2 => proptest::sample::select(&[" ", "\t", "\n", "\\\n", "\r\n"][..]).prop_map(str::to_owned),
            1 => any::<char>().prop_map(String::from),
        ];
        proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    const ZONE_WORDS: &[&str] = &[
        "$ORIGIN ",
        "$TTL ",
        "$INCLUDE ",
        "a.test. ",
        "@ ",
        "* ",
        "matrix ",
        "IN ",
        "300 ",
        "1h ",
        "A ",
        "AAAA ",
        "CAA ",
        "SRV ",
        "CNAME ",
        "NS ",
        "SOA ",
        "1.2.3.4",
        "::1",
        "0 issue \"x\"",
        "10 0 8448 m",
        "(",
        ")",
        ";",
        "\"",
        "\\",
        ".",
        "a.test. IN SOA a. b. 1 2 3 4 5\n",
        "é",
    ];
    const UNIT_WORDS: &[&str] = &[
        "[Service]\n",
        "[Install]\n",
        "[",
        "]",
        "Environment=",
        "CONDUIT_CONFIG=/a",
        "CONDUIT_PORT=1",
        "ExecStart=",
        "/conduit",
        "ReadWritePaths=",
        "User=",
        "ProtectSystem=strict",
        "\"",
        "'",
        "\\",
        "=",
        "#",
        ";",
        "-",
        "+",
        "%h",
        "é",
        " ",
    ];
    const FIREWALL_WORDS: &[&str] = &[
        "[Conduit]\n",
        "title=x\n",
        "description=x\n",
        "ports=",
        "80",
        ",",
        "|",
        "/tcp",
        "/udp",
        ":",
        "99999",
        "#",
        "é",
        "[",
        "]",
    ];
    const JSON_WORDS: &[&str] = &[
        "{",
        "}",
        "\"m.server\"",
        "\"base_url\"",
        ":",
        "\"a\"",
        ",",
        "é",
        "\\",
        "\"",
        "m.server",
    ];

    fn lies_in(source: &Source, span: &std::ops::Range<usize>) -> bool {
        source.text().get(span.clone()).is_some()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn is_read_as_a_zone_or_refused(text in text(ZONE_WORDS)) {
            let source = Source::new("a.test.zone", Kind::Zone, text);
            match zone::read(&source) {
                Ok(zone) => {
                    prop_assert!(lies_in(&source, &zone.apex.span));
                    for record in &zone.records {
                        prop_assert!(lies_in(&source, &record.span), "{record:?}");
                        zone.addresses(&record.owner);
                        zone.certificate_authorities(&record.owner);
                    }
                }
                Err(broken) => prop_assert!(lies_in(&source, &broken.span), "{broken:?}"),
            }
        }

        #[test]
        fn is_read_as_a_unit(text in text(UNIT_WORDS)) {
            let source = Source::new("conduit.service", Kind::Unit, text);
            let (units, skipped) = unit::read(&[&source]);
            for skipped in skipped {
                prop_assert!(lies_in(&source, &skipped.place.span), "{skipped:?}");
            }
            for unit in units {
                let environment = unit.environment();
                let facts = environment.iter().chain(&unit.writable).chain(&unit.program).chain(&unit.user);
                for fact in facts {
                    prop_assert!(lies_in(&source, &fact.span), "{fact:?}");
                }
            }
            unit::accounts(&source);
            let variables = Source::new("conduit.env", Kind::Environment, source.text());
            cross::check_with(&Caddy::missing("not asked"), &[source, variables]);
        }

        #[test]
        fn is_read_as_a_firewall_or_refused(text in text(FIREWALL_WORDS)) {
            let source = Source::new("ufw.profile", Kind::Firewall, text);
            match firewall::read(&source) {
                Ok(firewall) => {
                    for opening in &firewall.openings {
                        prop_assert!(lies_in(&source, &opening.span), "{opening:?}");
                    }
                }
                Err(broken) => prop_assert!(lies_in(&source, &broken.span), "{broken:?}"),
            }
        }

        #[test]
        fn is_read_as_a_delegation_or_refused(text in text(JSON_WORDS)) {
            let source = Source::new("server", Kind::WellKnownServer, text);
            for document in well_known::Document::ALL {
                match well_known::read(&source, document) {
                    Ok(fact) => prop_assert!(lies_in(&source, &fact.span)),
                    Err((span, _)) => prop_assert!(lies_in(&source, &span)),
                }
            }
        }

        #[test]
        fn is_taken_apart_like_a_caddyfile(text in text(&["import ", "a.test ", "{", "}", "\"", "`", "#", "\\", "(x)", "é"])) {
            let source = Source::new("Caddyfile", Kind::Caddyfile, text);
            for token in cross::caddy::tokens(source.text()) {
                prop_assert!(lies_in(&source, &token.span), "{token:?}");
            }
            cross::check_with(&Caddy::missing("not asked"), &[source]);
        }
    }
}

mod zones {
    //! What a zone says of names that stand nowhere in it by themselves.

    use super::*;
    use fleet_lint::cross::zone::{Found, Zone, read};

    fn zone(records: &str) -> Zone {
        let text = format!(
            "$ORIGIN a.test.\n@ 3600 IN SOA ns hostmaster ( 1 1h 15m\n  2w 300 )\n{records}"
        );
        read(&Source::new("a.zone", Kind::Zone, text)).expect("a zone that loads")
    }

    fn addresses(zone: &Zone, name: &str) -> Option<usize> {
        match zone.addresses(name) {
            Found::Addresses(found) => Some(found.len()),
            Found::Elsewhere => None,
        }
    }

    #[test]
    fn names_are_followed_as_a_resolver_would() {
        let zone = zone(
            "@ A 192.0.2.1\n  AAAA 2001:db8::1\nmatrix CNAME @\nchat 60 IN CNAME matrix.a.test.\nround CNAME about\nabout CNAME \
             round\naway CNAME host.b.test.\n*.dyn A 192.0.2.2\nkept.dyn TXT \"no; address\"\nsub NS ns.sub\nNS.sub A 192.0.2.3\n\
             MiXed IN 60 A 192.0.2.4\n",
        );
        assert_eq!(zone.apex.value, "a.test");
        assert_eq!(addresses(&zone, "matrix.a.test"), Some(2));
        assert_eq!(addresses(&zone, "chat.a.test"), Some(2));
        assert_eq!(
            addresses(&zone, "round.a.test"),
            Some(0),
            "a circle leads nowhere"
        );
        assert_eq!(addresses(&zone, "away.a.test"), None, "another zone knows");
        assert_eq!(addresses(&zone, "any.dyn.a.test"), Some(1));
        assert_eq!(
            addresses(&zone, "kept.dyn.a.test"),
            Some(0),
            "a name that exists is not the wildcard's"
        );
        assert_eq!(addresses(&zone, "host.sub.a.test"), None, "delegated away");
        assert_eq!(addresses(&zone, "mixed.a.test"), Some(1));
        assert_eq!(addresses(&zone, "nowhere.a.test"), Some(0));
        assert_eq!(addresses(&zone, "a.test.org"), None);
        assert_eq!(
            addresses(&zone, "notinga.test"),
            None,
            "no label ends there"
        );
    }

    #[test]
    fn the_closest_authorities_are_the_ones_that_count() {
        let zone = zone(
            "@ CAA 0 issue \"a.example\"\nlow.matrix A 192.0.2.1\nmatrix CAA 0 iodef \"mailto:a@b\"\n",
        );
        let count = |name| zone.certificate_authorities(name).len();
        assert_eq!((count("a.test"), count("other.a.test")), (1, 1));
        // Records of the name itself end the search, whatever their tag is.
        let found = zone.certificate_authorities("low.matrix.a.test");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].owner, "matrix.a.test");
    }
}

#[test]
fn a_proxy_without_a_limit_is_worth_a_note() {
    let change = (
        CADDYFILE,
        "\t\trequest_body {\n\t\t\tmax_size 20MB\n\t\t}\n",
        "",
    );
    let both = [
        change,
        (
            CADDYFILE,
            "\t\terror @announced \"request body too large\" 413\n",
            "",
        ),
    ];
    let found = only(cross::check_with(&caddy(), &kit_with(&both)));
    assert_eq!(
        (found.code, found.severity),
        (Code::BodyLimitDisagrees, Severity::Note)
    );
    assert!(files_of(&found).contains(CONDUIT));
}

#[test]
fn a_wildcards_certificate_asks_for_its_own_permission() {
    let site = (
        CADDYFILE,
        "\nmatrix.timmy.foundation:8448 {",
        "\n*.timmy.foundation:8448 {",
    );
    assert!(cross::check_with(&caddy(), &kit_with(&[site])).is_empty());
    let forbidden = (
        ZONE,
        "@\tIN CAA 0 iodef",
        "@\tIN CAA 0 issuewild \";\"\n@\tIN CAA 0 iodef",
    );
    let found = only(cross::check_with(&caddy(), &kit_with(&[site, forbidden])));
    assert_eq!(found.code, Code::CaaForbids);
    assert!(
        found.message.contains("*.timmy.foundation"),
        "{}",
        found.message
    );
}

/// In a checkout only a file's name says where it will lie; on the host itself its path does.
#[test]
fn a_configuration_has_a_place_only_where_units_are_installed() {
    let unit = "[Service]\nUser=conduit\nEnvironment=CONDUIT_CONFIG=/opt/conduit/conduit.toml\nExecStart=/opt/conduit/conduit\n";
    let toml = "[global]\nserver_name = \"vale.test\"\ndatabase_backend = \"rocksdb\"\ndatabase_path = \"/opt/conduit/data\"\n";
    for (config, unit_path, clean) in [
        (
            "/home/x/fleet/deploy/conduit/conduit.toml",
            "/home/x/fleet/deploy/conduit/conduit.service",
            true,
        ),
        (
            "/opt/conduit/conduit.toml",
            "/etc/systemd/system/conduit.service",
            true,
        ),
        (
            "/etc/conduit/conduit.toml",
            "/etc/systemd/system/conduit.service",
            false,
        ),
    ] {
        let found = cross::check_with(
            &caddy(),
            &[
                Source::new(config, Kind::Conduit, toml),
                Source::new(unit_path, Kind::Unit, unit),
            ],
        );
        let told = found
            .iter()
            .any(|finding| finding.code == Code::ConfigPathDisagrees);
        assert_eq!(told, !clean, "{config} with {unit_path}: {found:?}");
    }
}
