//! Holds the files of one site against each other: names, ports, limits, paths and users.
//!
//! Each file is read into what it says, with the place of every fact ([`fact`]): [`toml`] for what `conduit.toml` and
//! the variables come to and for the manifest, [`unit`] for systemd, both from the same readings that the files are
//! judged by themselves with; [`zone`], [`well_known`], [`firewall`]; the Caddyfile by Caddy itself ([`caddy`]),
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

use crate::conduit;
use crate::diagnostic::{Code, Diagnostic, Label, Severity};
use crate::environment::{self, Variable};
use crate::source::{Kind, Source};
use crate::systemd::Skipped;
use caddy::{Caddy, Closure};
use fact::{Fact, finding};
use std::ops::Range;
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

    let (units, skipped) = unit::read(&of(Kind::Unit));
    facts.units = units;
    for Skipped { place, why } in skipped {
        found.push(broken(
            Code::UnitSyntax,
            Severity::Warning,
            &place.source,
            place.span,
            format!("this line of a unit is skipped: {why}"),
            "systemd writes a line into its journal and goes on without it",
        ));
    }
    let variables = variables(&facts.units, &of(Kind::Environment));
    // Of several configurations the first is the site's; the others are judged by themselves only, as is one that is not
    // TOML.
    let conduit = of(Kind::Conduit).into_iter().find_map(|source| {
        toml::Conduit::read(&conduit::read(source, &mut Vec::new()), &variables)
    });
    facts.conduit = conduit.unwrap_or_else(|| toml::Conduit::of_variables(&variables));
    for source in of(Kind::Sysusers) {
        facts
            .accounts
            .push((source.clone(), unit::accounts(source)));
    }
    for source in of(Kind::Manifest) {
        match toml::manifest(source) {
            Ok(name) => facts.manifests.extend(name),
            Err(Label { span, text, .. }) => found.push(broken(
                Code::ManifestSyntax,
                Severity::Error,
                source,
                span,
                format!("the manifest is not TOML: {text}"),
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

/// The variables of the unit that is enabled, and of the files that it reads.
fn variables(units: &[unit::Unit], files: &[&Source]) -> Vec<Variable> {
    // What is wrong with a line is the single file's own diagnostic.
    let files: Vec<(&Source, Vec<Variable>)> = files
        .iter()
        .map(|source| (*source, environment::read(source, &mut Vec::new())))
        .collect();
    // A unit that nobody enables, such as the bootstrap's window, has its own port on purpose.
    // A drop-in whose unit is not at hand is taken for one of the unit that is enabled.
    let enabled = units
        .iter()
        .find(|unit| unit.installed || unit.program.is_none());
    match enabled {
        Some(unit) => unit.written.variables(&files).0,
        None if units.is_empty() => files.into_iter().flat_map(|(_, read)| read).collect(),
        None => Vec::new(),
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
