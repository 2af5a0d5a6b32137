//! What must agree. Here are the names of the site and where it sends its visitors; the rest is by what it is about.

mod firewall;
mod server;
mod zone;

use super::Facts;
use super::fact::{Fact, Verdict, Vote, agree, finding};
use super::site::{Answer, Site, Walk, is_loopback};
use super::toml::split_host;
use super::well_known::Document;
use crate::diagnostic::{Code, Diagnostic, Label, Severity};
use std::net::IpAddr;

/// Where servers look without a port (Matrix specification, server-server API, "Server discovery").
const FEDERATION: u16 = 8448;

/// Every contradiction, each once.
pub fn compare(facts: &Facts) -> Vec<Diagnostic> {
    let mut rules = Rules {
        facts,
        found: Vec::new(),
        explained: Vec::new(),
        hosts: Vec::new(),
    };
    let names = rules.names();
    rules.hosts = names.hosts();
    rules.upstreams();
    rules.limits();
    rules.paths();
    rules.units();
    rules.data();
    rules.delegation(&names);
    rules.zone(&names);
    rules.firewall();
    rules.found
}

/// The names that the files agreed upon; of a contradiction the side that won.
#[derive(Debug, Default)]
struct Names {
    server_name: Verdict,
    server: Verdict,
    client: Verdict,
}

impl Names {
    /// Every host that some file takes for one of the site's, in lower case.
    fn hosts(&self) -> Vec<String> {
        [&self.server_name, &self.server, &self.client]
            .into_iter()
            .flat_map(|verdict| verdict.winners.iter().chain(&verdict.losers))
            .map(|vote| host_of(&vote.key).to_ascii_lowercase())
            .collect()
    }
}

/// The host of a URL or of `host:port`.
fn host_of(place: &str) -> &str {
    let rest = place.split_once("://").map_or(place, |(_, rest)| rest);
    split_host(rest.split('/').next().unwrap_or(rest)).0
}

/// A URL or `host:port` as it is compared.
fn normal_place(value: &str) -> String {
    value.trim_end_matches('/').to_ascii_lowercase()
}

/// A place that must be reachable, and who says so.
struct Target<'a> {
    host: String,
    port: u16,
    votes: &'a [Vote],
    federation: bool,
}

struct Rules<'a> {
    facts: &'a Facts,
    found: Vec<Diagnostic>,
    /// Places that a diagnostic was made of already: what follows from them is no second one.
    explained: Vec<Fact<()>>,
    /// Hosts that some file takes for one of the site's.
    hosts: Vec<String>,
}

impl<'a> Rules<'a> {
    fn explained<T>(&self, fact: &Fact<T>) -> bool {
        self.explained.iter().any(|known| known.same_place(fact))
    }

    fn take(&mut self, verdict: &mut Verdict) {
        self.found.append(&mut verdict.findings);
        self.explained
            .extend(verdict.losers.iter().map(|vote| vote.place.clone()));
    }

    fn sites(&self) -> impl Iterator<Item = &'a Site> + use<'a> {
        self.facts.caddies.iter().flat_map(|caddy| &caddy.sites)
    }

    /// The sites that are ours, beside those that Caddy serves for others: by what they match, by their name, or because
    /// Conduit is behind them.
    fn own_sites(&self) -> impl Iterator<Item = &'a Site> {
        let conduit = &self.facts.conduit;
        // Another homeserver may stand behind the same Caddy; who is ours only a name can tell.
        let unnamed = self.hosts.is_empty();
        self.sites().filter(move |site| {
            let named = site
                .host
                .as_ref()
                .is_some_and(|host| self.hosts.contains(&host.to_ascii_lowercase()));
            let Answer::Proxy { upstreams, .. } = &site.client.answer else {
                return named || unnamed && site.client.by_path;
            };
            let leads_to_conduit = upstreams.iter().any(|dial| {
                let (host, to) = split_host(&dial.value);
                conduit
                    .port
                    .as_ref()
                    .is_some_and(|port| to == Some(port.value))
                    && conduit
                        .address
                        .as_ref()
                        .is_some_and(|address| reaches(&address.value, host))
            });
            named || unnamed && site.client.by_path || leads_to_conduit
        })
    }

    /// The sites that answer one of our delegations, and what they say: by their name, or by what they say. Another
    /// homeserver behind the same Caddy has its own.
    fn delegating(&self, document: Document) -> Vec<(&'a Site, Fact<String>)> {
        let conduit = &self.facts.conduit;
        let names: Vec<&str> = conduit
            .server_name
            .iter()
            .chain(&self.facts.manifests)
            .map(|fact| fact.value.as_str())
            .collect();
        let (own, place) = match document {
            Document::Server => (&conduit.well_known_server, 0),
            Document::Client => (&conduit.well_known_client, 1),
        };
        let files = self.facts.well_known.iter();
        let said: Vec<String> = own
            .iter()
            .chain(
                files
                    .filter(|(kind, _)| *kind == document)
                    .map(|(_, fact)| fact),
            )
            .map(|fact| normal_place(&fact.value))
            .collect();
        self.sites()
            .filter_map(|site| {
                let Answer::Static { body, .. } = &site.well_known[place].answer else {
                    return None;
                };
                let value = document.value(&body.value).ok()?;
                let ours = names.contains(&site.name())
                    || said.contains(&normal_place(&value))
                    || names.is_empty() && said.is_empty();
                ours.then(|| (site, body.with(value)))
            })
            .collect()
    }

    /// Who the site is, and where it sends servers and clients.
    fn names(&mut self) -> Names {
        let conduit = &self.facts.conduit;
        let mut votes: Vec<Vote> = conduit
            .server_name
            .iter()
            .map(|fact| Vote::of(fact, "the name that Conduit has for good"))
            .collect();
        votes.extend(
            self.facts
                .manifests
                .iter()
                .map(|fact| Vote::of(fact, "the name that accounts and rooms are made under")),
        );
        // Caddy may answer the delegation under several names; one of them must be the site's.
        let answering: Vec<&Site> = self
            .delegating(Document::Server)
            .into_iter()
            .map(|(site, _)| site)
            .filter(|site| site.host.is_some() && site.port == 443)
            .collect();
        let chosen = answering
            .iter()
            .find(|site| votes.iter().any(|vote| vote.key == site.name()))
            .or(answering.first());
        if let Some(site) = chosen {
            let says = "the name under which Caddy answers the delegation";
            votes.push(Vote::of(&site.place.with(site.name().to_owned()), says));
        }
        let mut server_name = agree(
            Code::ServerNameDisagrees,
            Severity::Error,
            "the site's name",
            &[
                "every user id ends in the server name, and a database refuses to start under another: Conduit exits 1"
                    .to_owned(),
            ],
            votes,
        );
        self.take(&mut server_name);
        let server = self.delegations(Document::Server);
        let client = self.delegations(Document::Client);
        Names {
            server_name,
            server,
            client,
        }
    }

    fn delegations(&mut self, document: Document) -> Verdict {
        let conduit = &self.facts.conduit;
        let (fact, key) = match document {
            Document::Server => (&conduit.well_known_server, "well_known.server"),
            Document::Client => (&conduit.well_known_client, "well_known.client"),
        };
        let vote = |fact: &Fact<String>, says: String| {
            Vote::of(fact, says).under(normal_place(&fact.value))
        };
        let mut votes = Vec::new();
        if let Some(fact) = fact {
            let defaulted = conduit
                .server_name
                .as_ref()
                .is_some_and(|name| name.same_place(fact));
            votes.push(vote(
                fact,
                if defaulted {
                    format!("without `{key}` Conduit answers `{}`", fact.value)
                } else {
                    format!("what Conduit answers at `{}`", document.path())
                },
            ));
        }
        for (_, fact) in self.delegating(document) {
            votes.push(vote(
                &fact,
                format!("what Caddy answers at `{}`", document.path()),
            ));
        }
        for (kind, fact) in &self.facts.well_known {
            if *kind == document {
                votes.push(vote(
                    fact,
                    format!(
                        "what an apex hosted elsewhere answers at `{}`",
                        document.path()
                    ),
                ));
            }
        }
        let (code, what, note) = match document {
            Document::Server => (
                Code::DelegationDisagrees,
                "where other servers are sent",
                "servers keep what they were told for a day: some go one way and some the other, and requests to the wrong \
                 one fail",
            ),
            Document::Client => (
                Code::ClientUrlDisagrees,
                "where clients are sent",
                "a client that is sent elsewhere cannot log in",
            ),
        };
        let mut verdict = agree(code, Severity::Error, what, &[note.to_owned()], votes);
        self.take(&mut verdict);
        verdict
    }

    /// That the delegation leads to a site of Caddy's that passes on to Conduit, and that it is answered at all.
    fn delegation(&mut self, names: &Names) {
        if self.facts.caddies.is_empty() {
            return;
        }
        let mut targets = Vec::new();
        if let Some(vote) = names.server.winner() {
            let (host, port) = split_host(&vote.key);
            targets.push(Target {
                host: host.to_owned(),
                port: port.unwrap_or(FEDERATION),
                votes: &names.server.winners,
                federation: true,
            });
        }
        if let Some(vote) = names.client.winner()
            && let Some(rest) = vote.key.strip_prefix("https://")
        {
            let authority = rest.split('/').next().unwrap_or(rest);
            let (host, port) = split_host(authority);
            targets.push(Target {
                host: host.to_owned(),
                port: port.unwrap_or(443),
                votes: &names.client.winners,
                federation: false,
            });
        }
        for (at, target) in targets.iter().enumerate() {
            let same = |other: &&Target<'_>| other.host == target.host && other.port == target.port;
            // One site that is missing is one diagnostic, though servers and clients look for it.
            let before = targets[..at].iter().any(|other| same(&other));
            if !before && target.host.parse::<IpAddr>().is_err() && !target.host.starts_with('[') {
                let votes: Vec<&Vote> = targets
                    .iter()
                    .filter(same)
                    .flat_map(|target| target.votes)
                    .collect();
                self.target(target, &votes);
            }
        }
        self.answered(names);
    }

    fn target(&mut self, target: &Target<'_>, votes: &[&Vote]) {
        let walk = |site: &'a Site| -> &'a Walk {
            if target.federation {
                &site.federation
            } else {
                &site.client
            }
        };
        let serving: Vec<&Site> = self
            .sites()
            .filter(|site| site.port == target.port && site.serves(&target.host))
            .collect();
        // A name beats a wildcard, and that beats any name.
        let serving = serving
            .iter()
            .find(|site| site.name().eq_ignore_ascii_case(&target.host))
            .or_else(|| serving.iter().find(|site| site.host.is_some()))
            .or(serving.first());
        let place = format!("`{}` at port {}", target.host, target.port);
        let (message, primary, says) = match serving {
            Some(site) => {
                let met = walk(site);
                if met.uncertain || matches!(met.answer, Answer::Proxy { .. }) {
                    return;
                }
                (
                    format!("{place} does not pass the Matrix API on to Conduit"),
                    &site.place,
                    format!(
                        "a request to `/_matrix/` is answered here with {}",
                        met.answer.describe()
                    ),
                )
            }
            None => {
                let proxies = |site: &&Site| matches!(site.client.answer, Answer::Proxy { .. });
                // Whose port was changed, else whose name.
                let near = self
                    .own_sites()
                    .filter(proxies)
                    .filter(|site| !self.explained(&site.place))
                    .max_by_key(|site| {
                        let alike = strsim::normalized_levenshtein(site.name(), &target.host);
                        let score = alike + if site.port == target.port { 0.5 } else { 0.0 };
                        // Two of one name differ by the port alone; the one that nobody is sent to was meant.
                        let known = if site.name() == target.host && site.port == FEDERATION {
                            1
                        } else {
                            0
                        };
                        ((score * 1000.0) as u64).saturating_sub(known)
                    });
                match near {
                    Some(site) => (
                        format!("Caddy does not serve {place}"),
                        &site.place,
                        format!(
                            "the nearest that it serves is `{}` at port {}",
                            site.name(),
                            site.port
                        ),
                    ),
                    None => {
                        let Some(source) = self.facts.caddies[0].source.as_ref() else {
                            return;
                        };
                        self.found.push(
                            self.unserved(
                                format!("Caddy does not serve {place}"),
                                Fact::new((), source, source.first_line())
                                    .label("nothing here serves the Matrix API"),
                                votes,
                            ),
                        );
                        return;
                    }
                }
            }
        };
        self.found
            .push(self.unserved(message, primary.label(says), votes));
        self.explained.push(primary.clone());
    }

    fn unserved(&self, message: String, primary: Label, votes: &[&Vote]) -> Diagnostic {
        let mut found = finding(Code::DelegationUnserved, Severity::Error, message, primary);
        for vote in votes {
            let label = vote.place.label("the delegation sends its readers there");
            if !found.related.contains(&label) {
                found.related.push(label);
            }
        }
        found.notes.push(
            "whoever follows the delegation gets no TLS connection, or an error in place of Matrix"
                .to_owned(),
        );
        found
    }

    /// That a site of the server's name answers the delegation, where there is one to answer.
    fn answered(&mut self, names: &Names) {
        let Some(name) = names.server_name.winner() else {
            return;
        };
        let Some(apex) = self
            .sites()
            .find(|site| site.port == 443 && site.host.as_deref() == Some(name.shown.as_str()))
        else {
            return;
        };
        for (document, walk, verdict) in [
            (Document::Server, &apex.well_known[0], &names.server),
            (Document::Client, &apex.well_known[1], &names.client),
        ] {
            if verdict.winners.is_empty() {
                continue;
            }
            let problem = match &walk.answer {
                _ if walk.uncertain => continue,
                Answer::Proxy { .. } => continue,
                Answer::Static { status, body } => match document.value(&body.value) {
                    Ok(_) if status.starts_with('2') => continue,
                    Ok(_) => format!("status {status}"),
                    Err(why) => format!("what is no delegation: {why}"),
                },
                other => other.describe(),
            };
            let place = match &walk.answer {
                Answer::Static { body, .. } => body.with(()),
                _ => apex.place.clone(),
            };
            let mut found = finding(
                Code::DelegationUnanswered,
                Severity::Error,
                format!(
                    "`https://{}{}` is answered with {problem}",
                    name.shown,
                    document.path()
                ),
                place.label(match document {
                    Document::Server => "other servers try this name itself, at 8448",
                    Document::Client => "clients cannot find the homeserver by its name",
                }),
            );
            found.related.extend(verdict.winners.iter().map(|vote| {
                vote.place
                    .label(format!("`{}` is what it should say", vote.shown))
            }));
            if !self.explained(&place) {
                self.found.push(found);
            }
        }
    }
}

/// Whether a connection to `host` reaches who listens on `address`.
fn reaches(address: &str, host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let bare = if bare.is_empty() { "localhost" } else { bare };
    let Ok(address) = address.parse::<IpAddr>() else {
        return address.eq_ignore_ascii_case(bare);
    };
    match bare.parse::<IpAddr>() {
        Ok(to) if address.is_unspecified() => address.is_ipv6() || to.is_ipv4(),
        Ok(to) => to == address,
        // Go tries both addresses of localhost.
        Err(_) if is_loopback(bare) => address.is_loopback() || address.is_unspecified(),
        // Any other name is resolved when Caddy runs.
        Err(_) => !address.is_loopback(),
    }
}
