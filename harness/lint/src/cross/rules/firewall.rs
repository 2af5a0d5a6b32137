//! What the firewall lets in, against what Caddy and Conduit listen on.

use super::Rules;
use crate::cross::fact::{Fact, finding};
use crate::cross::firewall::{Firewall, Protocol};
use crate::cross::site::Caddy;
use crate::diagnostic::{Code, Diagnostic, Label, Severity};

/// Ports that were opened by designs before this one: Gitea's, and a proxy's.
const NEIGHBOURS: [(u16, &str); 3] = [
    (3000, "Gitea's own port, without TLS"),
    (8080, "no port of this site; an older design opened it"),
    (6167, "Conduit's plain HTTP"),
];

impl Rules<'_> {
    /// That the firewall lets in what Caddy serves, and nothing else.
    pub(super) fn firewall(&mut self) {
        for firewall in &self.facts.firewalls {
            let blocked = self.blocked(firewall);
            let needless = self.needless(firewall);
            // A changed port is one that is missing and one too many.
            let mut needless = needless.into_iter();
            let mut blocked = blocked.into_iter();
            loop {
                match (blocked.next(), needless.next()) {
                    (None, None) => break,
                    (Some(mut found), Some(other)) => {
                        // The worse of both is what it is about.
                        let (mut first, second) = if other.code == Code::FirewallExposes {
                            (other, found)
                        } else {
                            found.notes.push(other.message.clone());
                            (found, other)
                        };
                        if first.code == Code::FirewallExposes {
                            first.notes.push(second.message.clone());
                        }
                        for label in std::iter::once(second.primary).chain(second.related) {
                            if label != first.primary && !first.related.contains(&label) {
                                first.related.push(label);
                            }
                        }
                        self.found.push(first);
                    }
                    (Some(found), None) | (None, Some(found)) => self.found.push(found),
                }
            }
        }
    }

    fn listeners(&self) -> Vec<(u16, Protocol, Fact<()>)> {
        let mut found: Vec<(u16, Protocol, Fact<()>)> = Vec::new();
        for caddy in &self.facts.caddies {
            let Caddy { listeners, .. } = caddy;
            for listener in listeners {
                let port = listener.value.port;
                let mut add = |protocol| {
                    if !found
                        .iter()
                        .any(|(known, with, _)| *known == port && *with == protocol)
                    {
                        found.push((port, protocol, listener.with(())));
                    }
                };
                add(Protocol::Tcp);
                if listener.value.http3 {
                    add(Protocol::Udp);
                }
            }
        }
        found
    }

    fn blocked(&self, firewall: &Firewall) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        for (port, protocol, place) in self.listeners() {
            let let_in = |protocol| {
                firewall
                    .openings
                    .iter()
                    .any(|opening| opening.lets_in(port, protocol))
            };
            // Only browsers and clients speak HTTP/3; servers at 8448 do not, and a port that is closed altogether is
            // closed for UDP too.
            let skipped = protocol == Protocol::Udp && (port != 443 || !let_in(Protocol::Tcp));
            if let_in(protocol) || skipped || self.explained(&place) {
                continue;
            }
            let mut found = finding(
                Code::FirewallBlocks,
                if protocol == Protocol::Udp {
                    Severity::Warning
                } else {
                    Severity::Error
                },
                format!("the firewall does not let in {port}/{}, where Caddy listens", protocol.name()),
                Label {
                    source: firewall.source.clone(),
                    span: firewall.span.clone(),
                    text: match (port, protocol) {
                        (_, Protocol::Udp) => {
                            "HTTP/3 is offered to every client and reaches nobody; each falls back after a while".to_owned()
                        }
                        (80, _) => "neither the redirect nor the certificate authority's question arrives".to_owned(),
                        (8448, _) => "servers that come without the delegation time out".to_owned(),
                        _ => "every connection to it times out".to_owned(),
                    },
                },
            );
            found
                .related
                .push(place.label(format!("Caddy listens on {port} for this")));
            findings.push(found);
        }
        findings
    }

    fn needless(&self, firewall: &Firewall) -> Vec<Diagnostic> {
        let conduit = &self.facts.conduit;
        let listeners = self.listeners();
        let mut findings = Vec::new();
        for opening in &firewall.openings {
            let own = Label {
                source: firewall.source.clone(),
                span: opening.span.clone(),
                text: String::new(),
            };
            let conduits = conduit
                .port
                .as_ref()
                .filter(|fact| opening.ports.contains(&fact.value))
                .filter(|fact| !listeners.iter().any(|(port, ..)| *port == fact.value));
            let neighbour = NEIGHBOURS.iter().find(|(port, _)| {
                opening.ports.contains(port) && !listeners.iter().any(|(known, ..)| known == port)
            });
            if conduits.is_some() || neighbour.is_some() {
                let (port, what) = match (conduits, neighbour) {
                    (Some(fact), _) => (fact.value, "Conduit's plain HTTP"),
                    (None, Some((port, what))) => (*port, *what),
                    (None, None) => continue,
                };
                let mut found = finding(
                    Code::FirewallExposes,
                    Severity::Error,
                    format!("the firewall lets in {port}: {what}"),
                    Label {
                        text:
                            "open to everybody as soon as something listens on it beyond loopback"
                                .to_owned(),
                        ..own
                    },
                );
                found
                    .related
                    .extend(conduits.map(|fact| fact.label("Conduit listens on it, behind Caddy")));
                if conduits.is_none() {
                    found
                        .related
                        .extend(self.caddy_place("Caddy does not listen on it"));
                }
                findings.push(found);
                continue;
            }
            if self.facts.caddies.is_empty() {
                continue;
            }
            // A range, or both protocols at once, needs one that listens.
            let used = |protocol: Protocol| {
                listeners
                    .iter()
                    .any(|(port, with, _)| *with == protocol && opening.lets_in(*port, protocol))
            };
            if !used(Protocol::Tcp) && !used(Protocol::Udp) {
                let ports = if opening.ports.start() == opening.ports.end() {
                    opening.ports.start().to_string()
                } else {
                    format!("{}:{}", opening.ports.start(), opening.ports.end())
                };
                let mut found = finding(
                    Code::FirewallIdle,
                    Severity::Warning,
                    format!("the firewall lets in {ports}, where Caddy does not listen"),
                    Label {
                        text: "whatever listens there one day is open to everybody".to_owned(),
                        ..own
                    },
                );
                found
                    .related
                    .extend(self.caddy_place("Caddy listens on other ports"));
                findings.push(found);
            }
        }
        findings
    }

    /// The Caddyfile, for what it does not say.
    fn caddy_place(&self, text: &str) -> Option<Label> {
        let source = self.facts.caddies.first()?.source.as_ref()?;
        Some(match self.sites().next() {
            Some(site) => site.place.label(text),
            None => Fact::new((), source, source.first_line()).label(text),
        })
    }
}
