//! Holds the files of one site against each other: names, ports, limits, paths and users.
//!
//! Each file is read into what it says, with the place of every fact ([`fact`]): [`toml`] for `conduit.toml` and the
//! manifest, [`unit`] for systemd, [`zone`], [`well_known`], [`firewall`]; the Caddyfile by Caddy itself ([`caddy`]),
//! whose answer [`site`] walks. [`rules`] compare. What is not there is not compared: a missing file is no contradiction.

pub mod caddy;
pub mod fact;
pub mod firewall;
mod rules;
pub mod site;
pub mod toml;
pub mod unit;
pub mod well_known;
pub mod zone;

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::source::{Kind, Source};
use caddy::{Caddy, Closure};
use fact::{Fact, finding};
use std::ops::Range;
use std::path::Path;
use well_known::Document;

/// What the files of a site say.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `conduit.toml`, with what the unit's environment changes of it.
    pub conduit: toml::Conduit,
    /// What Caddy would serve; several where several Caddyfiles were given that do not import each other.
    pub caddies: Vec<site::Caddy>,
    /// The units that run Conduit.
    pub units: Vec<unit::Unit>,
    /// Users and groups that are made.
    pub accounts: Vec<(Source, unit::Accounts)>,
    /// Zones.
    pub zones: Vec<zone::Zone>,
    /// Delegation files.
    pub well_known: Vec<(Document, Fact<String>)>,
    /// What the firewall lets in.
    pub firewalls: Vec<firewall::Firewall>,
    /// The manifest's server name.
    pub manifests: Vec<Fact<String>>,
}

/// Compares the files of a site, with the Caddy that [`Caddy::find`] finds.
pub fn check(sources: &[Source]) -> Vec<Diagnostic> {
    check_with(&Caddy::find(), sources)
}

/// Compares the files of a site.
pub fn check_with(caddy: &Caddy, sources: &[Source]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let facts = read(caddy, sources, &mut found);
    found.extend(rules::compare(&facts));
    fact::merge(found)
}

/// Reads what the files say; what cannot be read becomes a diagnostic and says nothing.
pub fn read(caddy: &Caddy, sources: &[Source], found: &mut Vec<Diagnostic>) -> Facts {
    let of = |kind: Kind| -> Vec<&Source> {
        sources
            .iter()
            .filter(|source| source.kind() == kind)
            .collect()
    };
    let mut facts = Facts::default();

    // Of several configurations the first is the site's; the others are judged by themselves only.
    if let Some(conduit) = of(Kind::Conduit).into_iter().find_map(toml::Conduit::read) {
        facts.conduit = conduit;
    }
    let (units, skipped) = unit::read(&of(Kind::Unit));
    facts.units = units;
    for (source, skipped) in skipped {
        found.push(broken(
            Code::UnitSyntax,
            Severity::Warning,
            &source,
            skipped.span,
            format!("this line of a unit is skipped: {}", skipped.why),
            "systemd writes a line into its journal and goes on without it",
        ));
    }
    overrides(&mut facts, &of(Kind::Environment));
    for source in of(Kind::Sysusers) {
        facts
            .accounts
            .push((source.clone(), unit::accounts(source)));
    }
    for source in of(Kind::Manifest) {
        match toml::manifest(source) {
            Ok(name) => facts.manifests.extend(name),
            Err((span, why)) => found.push(broken(
                Code::ManifestSyntax,
                Severity::Error,
                source,
                span,
                format!("the manifest is not TOML: {why}"),
                "`fleet-bootstrap` refuses it",
            )),
        }
    }
    for source in of(Kind::Zone) {
        match zone::read(source) {
            Ok(zone) => facts.zones.push(zone),
            Err(zone::Broken { span, why }) => found.push(broken(
                Code::ZoneSyntax,
                Severity::Error,
                source,
                span,
                format!("the zone does not load: {why}"),
                "a name server refuses the whole zone, and keeps the one before or serves none",
            )),
        }
    }
    for (kind, document) in [
        (Kind::WellKnownServer, Document::Server),
        (Kind::WellKnownClient, Document::Client),
    ] {
        for source in of(kind) {
            match well_known::read(source, document) {
                Ok(fact) => facts.well_known.push((document, fact)),
                Err((span, why)) => found.push(broken(
                    Code::WellKnownSyntax,
                    Severity::Error,
                    source,
                    span,
                    format!("`{}` delegates nothing: {why}", document.path()),
                    match document {
                        Document::Server => "other servers try the site's name itself, at 8448",
                        Document::Client => {
                            "clients stop with an error, or try the site's name itself"
                        }
                    },
                )),
            }
        }
    }
    for source in of(Kind::Firewall) {
        match firewall::read(source) {
            Ok(firewall) => facts.firewalls.push(firewall),
            Err(firewall::Broken { span, why }) => found.push(broken(
                Code::FirewallSyntax,
                Severity::Error,
                source,
                span,
                format!("ufw does not take this profile: {why}"),
                "`ufw allow` does not find it, and nothing is let in",
            )),
        }
    }
    let caddyfiles = of(Kind::Caddyfile);
    let closures: Vec<Closure> = caddyfiles
        .iter()
        .map(|source| Closure::of(source, &caddyfiles))
        .collect();
    for (at, closure) in closures.iter().enumerate() {
        let root = caddyfiles[at];
        // What another of them imports is judged there, where Caddy reads it.
        let imported = closures.iter().enumerate().any(|(other, closure)| {
            other != at && closure.files[1..].iter().any(|(_, source)| source == root)
        });
        if imported {
            continue;
        }
        match caddy::adapt(caddy, closure) {
            Ok((adapted, warnings)) => {
                found.extend(warnings);
                facts.caddies.push(site::read(&adapted));
            }
            Err(refused) => found.push(*refused),
        }
    }
    facts
}

/// The variables of the unit that is enabled, and of the files that it reads, beat `conduit.toml`.
fn overrides(facts: &mut Facts, files: &[&Source]) {
    // A unit that nobody enables, such as the bootstrap's window, has its own port on purpose.
    // A drop-in whose unit is not at hand is taken for one of the unit that is enabled.
    let unit = facts
        .units
        .iter()
        .find(|unit| unit.installed || unit.program.is_none());
    let mut variables = unit
        .map(|unit| unit.environment.clone())
        .unwrap_or_default();
    for source in files {
        let name = Path::new(source.name()).file_name();
        let read = match unit {
            Some(unit) => unit
                .environment_files
                .iter()
                .any(|file| Path::new(file.value.trim_start_matches('-')).file_name() == name),
            None => facts.units.is_empty(),
        };
        if read {
            variables.extend(unit::environment_file(source));
        }
    }
    for (name, value) in variables {
        let name = name.to_ascii_uppercase();
        if let Some(key) = name.strip_prefix("CONDUIT_") {
            facts.conduit.override_with(key, &value);
        }
    }
}

fn broken(
    code: Code,
    severity: Severity,
    source: &Source,
    span: Range<usize>,
    message: String,
    effect: &str,
) -> Diagnostic {
    finding(
        code,
        severity,
        message,
        Fact::new((), source, span).label(effect),
    )
}
