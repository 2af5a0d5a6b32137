//! What the zone says, against the names that the site goes by and the certificates that Caddy gets.

use super::{Names, Rules, host_of};
use crate::cross::fact::{Fact, Vote, finding};
use crate::cross::site::Answer;
use crate::cross::toml::split_host;
use crate::cross::zone::{Data, Found, Record, Zone, is_below};
use crate::diagnostic::{Code, Diagnostic, Label, Severity};
use std::collections::BTreeSet;

impl<'a> Rules<'a> {
    /// That the zone leads to the machine, under every name that the site needs.
    pub(super) fn zone(&mut self, names: &Names) {
        for zone in &self.facts.zones {
            if let Some(name) = names.server_name.winner()
                && !is_below(&name.key, &zone.apex.value)
            {
                let mut found = finding(
                    Code::ZoneForeign,
                    Severity::Error,
                    format!(
                        "this is the zone of `{}`, and the site is `{}`",
                        zone.apex.value, name.shown
                    ),
                    zone.apex.label("the names of the site do not lie in it"),
                );
                found.related.extend(
                    names
                        .server_name
                        .winners
                        .iter()
                        .map(|vote| vote.place.label(vote.says.clone())),
                );
                found
                    .notes
                    .push("no other server finds the site by this zone".to_owned());
                self.found.push(found);
                continue;
            }
            self.addresses(zone, names);
            self.same_machine(zone, names);
            self.authorities(zone);
            self.services(zone, names);
        }
    }

    fn addresses(&mut self, zone: &Zone, names: &Names) {
        let mut needed: Vec<(String, Label, Fact<()>)> = Vec::new();
        let mut need = |host: &str, text: &str, place: &Fact<()>| {
            needed.push((host.to_ascii_lowercase(), place.label(text), place.clone()));
        };
        for vote in &names.server_name.winners {
            need(split_host(&vote.key).0, "the site's own name", &vote.place);
        }
        for vote in &names.server.winners {
            need(
                split_host(&vote.key).0,
                "other servers are sent there",
                &vote.place,
            );
        }
        for vote in &names.client.winners {
            need(host_of(&vote.key), "clients are sent there", &vote.place);
        }
        for site in self.sites() {
            if let Some(host) = &site.host
                && site.tls
                && !host.contains(['*', '{'])
                && !self.explained(&site.place)
            {
                need(host, "Caddy gets a certificate for it", &site.place);
            }
        }
        for record in &zone.records {
            if let Data::Srv { target, .. } = &record.data
                && is_matrix(&record.owner)
                && !target.is_empty()
            {
                need(
                    target,
                    "an SRV record leads there",
                    &Fact::new((), &record.source, record.span.clone()),
                );
            }
        }
        let mut seen = BTreeSet::new();
        for (host, label, _) in &needed {
            if !zone.covers(host) || !seen.insert(host.clone()) {
                continue;
            }
            let Found::Addresses(addresses) = zone.addresses(host) else {
                continue;
            };
            if !addresses.is_empty() {
                continue;
            }
            let mut found = finding(
                Code::NameWithoutAddress,
                Severity::Error,
                format!("`{host}` has no address in the zone"),
                label.clone(),
            );
            for (other, label, _) in &needed {
                if other == host && *label != found.primary && !found.related.contains(label) {
                    found.related.push(label.clone());
                }
            }
            // What the record was renamed to, or the zone where one is missing.
            let near = zone
                .records
                .iter()
                .filter(|record| matches!(record.data, Data::A(_) | Data::Aaaa(_) | Data::Cname(_)))
                .max_by_key(|record| {
                    (strsim::normalized_levenshtein(&record.owner, host) * 1000.0) as u64
                });
            found.related.push(match near {
                Some(record) => label_of(
                    record,
                    format!("the nearest name with an address is `{}`", record.owner),
                ),
                None => zone.apex.label("no name here has an address"),
            });
            found
                .notes
                .push("it is not reached, and no certificate is issued for it".to_owned());
            self.found.push(found);
        }
    }

    /// That the names which Caddy serves together lead to one machine.
    fn same_machine(&mut self, zone: &'a Zone, names: &Names) {
        let Some(name) = names.server_name.winner() else {
            return;
        };
        let apex = split_host(&name.key).0.to_owned();
        let mut others: Vec<(String, &Vote)> = Vec::new();
        if let Some(vote) = names.server.winner() {
            others.push((split_host(&vote.key).0.to_owned(), vote));
        }
        if let Some(vote) = names.client.winner() {
            others.push((host_of(&vote.key).to_owned(), vote));
        }
        let (Found::Addresses(own), true) = (zone.addresses(&apex), zone.covers(&apex)) else {
            return;
        };
        others.dedup_by(|one, other| one.0 == other.0);
        for (host, vote) in others {
            if host == apex {
                continue;
            }
            let Found::Addresses(theirs) = zone.addresses(&host) else {
                continue;
            };
            let v4 = |records: &[&Record]| -> BTreeSet<String> {
                records
                    .iter()
                    .filter_map(|record| match record.data {
                        Data::A(address) => Some(address.to_string()),
                        _ => None,
                    })
                    .collect()
            };
            let v6 = |records: &[&'a Record]| -> Option<&'a Record> {
                records
                    .iter()
                    .find(|record| matches!(record.data, Data::Aaaa(_)))
                    .copied()
            };
            let (own_v4, their_v4) = (v4(&own), v4(&theirs));
            if own_v4.is_empty() || their_v4.is_empty() {
                continue;
            }
            if own_v4.is_disjoint(&their_v4) {
                let site = |host: &str| {
                    self.sites()
                        .find(|site| site.port == 443 && site.host.as_deref() == Some(host))
                };
                // An apex that is hosted elsewhere has another address, and then Caddy does not serve it.
                let (Some(one), Some(other)) = (site(&apex), site(&host)) else {
                    continue;
                };
                let mut found = finding(
                    Code::AddressesDisagree,
                    Severity::Error,
                    format!("`{host}` and `{apex}` lead to different machines"),
                    label_of(theirs[0], format!("`{host}`")),
                );
                found.related.push(label_of(own[0], format!("`{apex}`")));
                found
                    .related
                    .push(other.place.label("one Caddy serves both, on one machine"));
                found.related.push(one.place.label(""));
                found
                    .notes
                    .push("under one of the names nobody finds the site, and no certificate is issued for it".to_owned());
                self.found.push(found);
                continue;
            }
            let (with, without, named, bare) = match (v6(&own), v6(&theirs)) {
                (Some(record), None) => (record, theirs[0], &apex, &host),
                (None, Some(record)) => (record, own[0], &host, &apex),
                _ => continue,
            };
            let mut found = finding(
                Code::AddressesDisagree,
                Severity::Warning,
                format!("`{named}` has an IPv6 address and `{bare}` on the same machine has none"),
                label_of(
                    with,
                    "IPv6 is tried first: a stale address breaks certificates and federation",
                ),
            );
            found
                .related
                .push(label_of(without, format!("`{bare}` has only this")));
            found
                .related
                .push(vote.place.label(format!("`{host}` is where the site is")));
            self.found.push(found);
        }
    }

    /// That the authority which Caddy asks may issue.
    fn authorities(&mut self, zone: &Zone) {
        let mut findings: Vec<Diagnostic> = Vec::new();
        for site in self.sites() {
            let Some(host) = site.host.as_deref().filter(|_| site.tls) else {
                continue;
            };
            let bare = host.trim_start_matches("*.");
            if !zone.covers(bare) || self.explained(&site.place) {
                continue;
            }
            let authorities: &[&str] = match &site.authority {
                None => &["letsencrypt.org", "zerossl.com", "sectigo.com"],
                Some(fact) => match identities(&fact.value) {
                    Some(known) => known,
                    None => continue,
                },
            };
            let governing = zone.certificate_authorities(bare);
            let wild = host.starts_with("*.");
            let issue = |wanted: &str| -> Vec<(&&Record, String)> {
                governing
                    .iter()
                    .filter_map(|record| match &record.data {
                        Data::Caa { tag, value } if tag == wanted => {
                            let domain = value.split(';').next().unwrap_or("").trim();
                            Some((record, domain.to_ascii_lowercase()))
                        }
                        _ => None,
                    })
                    .collect()
            };
            let mut rules = if wild { issue("issuewild") } else { Vec::new() };
            if rules.is_empty() {
                rules = issue("issue");
            }
            let allowed = |(_, domain): &(_, String)| authorities.contains(&domain.as_str());
            let Some((record, _)) = rules.first() else {
                continue;
            };
            if rules.iter().any(allowed) {
                continue;
            }
            let place = site
                .authority
                .as_ref()
                .map_or_else(|| site.place.clone(), |fact| fact.with(()));
            let mut found = finding(
                Code::CaaForbids,
                Severity::Error,
                format!(
                    "the zone does not let `{}` issue certificates for `{host}`",
                    authorities[0]
                ),
                label_of(record, "who may issue"),
            );
            found.related.push(place.label(if site.authority.is_some() {
                "who Caddy asks"
            } else {
                "Caddy asks Let's Encrypt, then ZeroSSL, where no other authority is named"
            }));
            found
                .notes
                .push("Caddy gets no certificate, and nobody reaches the site over TLS".to_owned());
            // The same pair for another name is the same contradiction.
            let same = |other: &Diagnostic| {
                other.primary == found.primary && other.related[0] == found.related[0]
            };
            if !findings.iter().any(same) {
                findings.push(found);
            }
        }
        self.found.append(&mut findings);
    }

    /// That an SRV record leads to a site with the certificate which it demands.
    fn services(&mut self, zone: &Zone, names: &Names) {
        for record in &zone.records {
            let Data::Srv { port, target } = &record.data else {
                continue;
            };
            let (deprecated, name) = match (
                record.owner.strip_prefix("_matrix._tcp."),
                record.owner.strip_prefix("_matrix-fed._tcp."),
            ) {
                (Some(name), _) => (true, name),
                (None, Some(name)) => (false, name),
                (None, None) => continue,
            };
            let site = self
                .sites()
                .find(|site| site.port == *port && site.host.as_deref() == Some(name));
            let proxied = site.is_some_and(|site| {
                site.federation.uncertain || matches!(site.federation.answer, Answer::Proxy { .. })
            });
            let judged = !self.facts.caddies.is_empty() && !target.is_empty();
            let unserved = judged && !proxied;
            if !deprecated && !unserved {
                continue;
            }
            let demand = format!(
                "whoever follows it demands a certificate for `{name}`, not for `{target}`: Caddy needs a site `{name}:{port}`"
            );
            let mut found = if deprecated {
                finding(
                    Code::SrvDeprecated,
                    Severity::Warning,
                    "`_matrix._tcp` is deprecated since Matrix 1.8; its present form is `_matrix-fed._tcp`",
                    label_of(record, "servers ask for it last, and some no longer do"),
                )
            } else {
                finding(
                    Code::SrvUnserved,
                    Severity::Error,
                    format!(
                        "Caddy does not serve `{name}` at port {port}, where this SRV record leads"
                    ),
                    label_of(
                        record,
                        "other servers that follow it fail at the certificate",
                    ),
                )
            };
            if unserved {
                found.notes.push(demand);
                let near = self
                    .sites()
                    .filter(|near| near.port == *port)
                    .chain(self.sites())
                    .next();
                found.related.extend(near.map(|near| {
                    near.place.label(format!(
                        "the nearest that it serves is `{}` at port {}",
                        near.name(),
                        near.port
                    ))
                }));
            }
            if let Some(vote) = names.server.winner() {
                found.related.push(
                    vote.place
                        .label("servers that read `.well-known` do not ask for it"),
                );
            }
            self.found.push(found);
        }
    }
}

/// Names by which a CAA record allows an authority, by the URL of its directory or the name of Caddy's module; `None`
/// for one that is not known here, such as a lab's.
fn identities(authority: &str) -> Option<&'static [&'static str]> {
    let host = authority
        .split_once("://")
        .map_or(authority, |(_, rest)| rest)
        .split('/')
        .next()
        .unwrap_or("");
    let belongs = |domain: &str| is_below(host, domain);
    if belongs("api.letsencrypt.org") {
        Some(&["letsencrypt.org"])
    } else if host == "zerossl" || belongs("zerossl.com") {
        // ZeroSSL's certificates are Sectigo's, and it names either.
        Some(&["zerossl.com", "sectigo.com"])
    } else if belongs("pki.goog") {
        Some(&["pki.goog"])
    } else if belongs("buypass.com") {
        Some(&["buypass.com"])
    } else if belongs("ssl.com") {
        Some(&["ssl.com"])
    } else {
        None
    }
}

fn is_matrix(owner: &str) -> bool {
    owner.starts_with("_matrix._tcp.") || owner.starts_with("_matrix-fed._tcp.")
}

fn label_of(record: &Record, text: impl Into<String>) -> Label {
    Label {
        source: record.source.clone(),
        span: record.span.clone(),
        text: text.into(),
    }
}
