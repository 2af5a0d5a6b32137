//! What must agree.

use super::Facts;
use super::fact::{Fact, Verdict, Vote, agree, finding, first_line};
use super::firewall::{Firewall, Protocol};
use super::site::{Answer, Caddy, Site, Walk, is_loopback};
use super::toml::split_host;
use super::unit::Unit;
use super::well_known::Document;
use super::zone::{Data, Found, Record, Zone};
use crate::diagnostic::{Code, Diagnostic, Label, Severity};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where servers look without a port (Matrix specification, server-server API, "Server discovery").
const FEDERATION: u16 = 8448;
/// Ports that were opened by designs before this one: Gitea's, and a proxy's.
const NEIGHBOURS: [(u16, &str); 3] = [
    (3000, "Gitea's own port, without TLS"),
    (8080, "no port of this site; an older design opened it"),
    (6167, "Conduit's plain HTTP"),
];

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
        self.sites().filter(move |site| {
            let named = site
                .host
                .as_ref()
                .is_some_and(|host| self.hosts.contains(&host.to_ascii_lowercase()));
            let Answer::Proxy { upstreams, .. } = &site.client.answer else {
                return named || site.client.by_path;
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
            named || site.client.by_path || leads_to_conduit
        })
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
            .sites()
            .filter(|site| matches!(site.well_known[0].answer, Answer::Static { .. }))
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
        let (fact, key, place) = match document {
            Document::Server => (&conduit.well_known_server, "well_known.server", 0),
            Document::Client => (&conduit.well_known_client, "well_known.client", 1),
        };
        let normal = |value: &str| value.trim_end_matches('/').to_ascii_lowercase();
        let vote =
            |fact: &Fact<String>, says: String| Vote::of(fact, says).under(normal(&fact.value));
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
        for site in self.sites() {
            let Answer::Static { body, .. } = &site.well_known[place].answer else {
                continue;
            };
            if let Ok(value) = document.value(&body.value) {
                votes.push(vote(
                    &body.with(value),
                    format!("what Caddy answers at `{}`", document.path()),
                ));
            }
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
                                Fact::new((), source, first_line(source))
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

    /// That Caddy passes on to where Conduit listens.
    fn upstreams(&mut self) {
        let conduit = &self.facts.conduit;
        let (Some(address), Some(port)) = (&conduit.address, &conduit.port) else {
            return;
        };
        let listens = if address.value.contains(':') {
            format!("[{}]:{}", address.value, port.value)
        } else {
            format!("{}:{}", address.value, port.value)
        };
        let mut upstreams: Vec<(Fact<String>, bool)> = Vec::new();
        let mut findings = Vec::new();
        for site in self.own_sites() {
            for walk in [&site.client, &site.federation, &site.upload] {
                if let Answer::Proxy { upstreams: to, tls } = &walk.answer {
                    upstreams.extend(to.iter().map(|fact| (fact.clone(), *tls)));
                }
                if let Some(rewrite) = &walk.rewrite {
                    let mut found = finding(
                        Code::MatrixPathRewritten,
                        Severity::Error,
                        "the path of the Matrix API is rewritten",
                        rewrite.label(
                            "Conduit gets another path than the client signed: federation requests fail their signature, and \
                             ids with `%2F` are not found",
                        ),
                    );
                    found
                        .notes
                        .push("pass `/_matrix/*` on as it came: `handle`, not `handle_path`, and no `uri`".to_owned());
                    findings.push(found);
                }
                if let Some(header) = &walk.forwarded {
                    let mut found = finding(
                        Code::ForwardedHeaders,
                        Severity::Warning,
                        format!("`{}` is changed on the way to Conduit", header.value),
                        header.label("whoever counts requests by client is told another one"),
                    );
                    found.notes.push(
                        "Caddy sets X-Forwarded-For, -Proto and -Host itself and discards what the client sent of them"
                            .to_owned(),
                    );
                    findings.push(found);
                }
            }
        }
        self.found.append(&mut findings);
        let upstreams: Vec<_> = upstreams
            .into_iter()
            // A placeholder is only known when a request comes.
            .filter(|(fact, _)| !fact.value.contains('{'))
            .collect();
        let Some(first) = upstreams.first() else {
            return;
        };
        let tls = conduit.tls.is_some();
        let reaches = |(dial, over_tls): &(Fact<String>, bool)| {
            let (host, to) = split_host(&dial.value);
            *over_tls == tls && to == Some(port.value) && reaches(&address.value, host)
        };
        let meant = upstreams.iter().find(|upstream| reaches(upstream));
        let scheme = |tls| if tls { "https" } else { "http" };
        let shown =
            |(dial, tls): &(Fact<String>, bool)| format!("{}://{}", scheme(*tls), dial.value);
        // The part of Conduit's configuration that differs.
        let (_, first_port) = split_host(&first.0.value);
        let place = match (&conduit.tls, meant) {
            (Some(tls), None) if !first.1 => tls.clone(),
            (_, None) if first_port == Some(port.value) => address.with(()),
            _ => port.with(()),
        };
        let own = Vote {
            key: meant.map_or_else(|| format!("{}://{listens}", scheme(tls)), shown),
            shown: format!("{}://{listens}", scheme(tls)),
            place,
            says: format!("Conduit listens on `{listens}`"),
            replaceable: false,
        };
        let mut votes: Vec<Vote> = upstreams
            .iter()
            .map(|upstream| Vote {
                key: if reaches(upstream) {
                    meant.map_or_else(String::new, shown)
                } else {
                    shown(upstream)
                },
                shown: shown(upstream),
                place: upstream.0.with(()),
                says: format!("Caddy passes on to `{}`", upstream.0.value),
                replaceable: false,
            })
            .collect();
        // What is written has more weight than a default.
        let written = port
            .written()
            .starts_with(|first: char| first.is_ascii_digit());
        votes.insert(if written { 0 } else { votes.len() }, own);
        let mut verdict = agree(
            Code::UpstreamDisagrees,
            Severity::Error,
            "where Conduit is reached",
            &["Caddy answers every request with 502".to_owned()],
            votes,
        );
        self.take(&mut verdict);
    }

    /// That Caddy lets through what Conduit says it takes, and no more.
    fn limits(&mut self) {
        let conduit = &self.facts.conduit;
        let mut votes: Vec<Vote> = conduit
            .max_request_size
            .iter()
            .map(|fact| {
                Vote::of(
                    fact,
                    "what Conduit takes, and tells clients in `/media/config`",
                )
            })
            .collect();
        let mut unlimited = Vec::new();
        for site in self.own_sites() {
            let walk = &site.upload;
            if !matches!(walk.answer, Answer::Proxy { .. }) {
                continue;
            }
            votes.extend(
                walk.announced
                    .iter()
                    .map(|fact| Vote::of(fact, "what Caddy lets a client announce")),
            );
            votes.extend(walk.limit.iter().map(|fact| {
                Vote {
                    replaceable: fact
                        .written()
                        .starts_with(|first: char| first.is_ascii_digit()),
                    ..Vote::of(fact, "where Caddy cuts a body off")
                }
            }));
            if walk.limit.is_none() && walk.announced.is_none() && !walk.uncertain {
                unlimited.push(site);
            }
        }
        if let (Some(site), Some(limit)) = (unlimited.first(), &conduit.max_request_size) {
            let mut found = finding(
                Code::BodyLimitDisagrees,
                Severity::Note,
                format!(
                    "Caddy limits no body here, Conduit takes {} bytes",
                    limit.value
                ),
                site.place.label(
                    "a larger one is answered by Conduit, with an error about a missing token",
                ),
            );
            found
                .related
                .push(limit.label("what Conduit takes, and tells clients in `/media/config`"));
            found.notes.push(format!(
                "`request_body {{ max_size {} }}` before `reverse_proxy` has Caddy answer 413",
                limit.value
            ));
            self.found.push(found);
        }
        if votes.len() < 2 {
            return;
        }
        let mut verdict = agree(
            Code::BodyLimitDisagrees,
            Severity::Warning,
            "the largest request, in bytes,",
            &[
                "where Caddy takes less, an upload that Conduit promised to take fails with 413; where it takes more, Conduit \
                 answers what is too large with an error about a missing token"
                    .to_owned(),
            ],
            votes,
        );
        self.take(&mut verdict);
    }

    /// That the units have Conduit read the configuration at hand.
    fn paths(&mut self) {
        let mut votes: Vec<Vote> = self
            .facts
            .units
            .iter()
            .filter_map(|unit| {
                // Empty is no file at all: everything comes from the environment.
                let config = unit.config().filter(|config| !config.value.is_empty())?;
                Some(Vote::of(
                    config,
                    format!("what `{}` has Conduit read", unit.name),
                ))
            })
            .collect();
        if let Some(source) = &self.facts.conduit.source
            && source.name() != "<stdin>"
            && !votes.is_empty()
        {
            let own = Path::new(source.name());
            let meant = votes.iter().find(|vote| {
                let path = Path::new(&vote.key);
                path == own || own.is_relative() && path.file_name() == own.file_name()
            });
            let key = meant.map_or_else(|| source.name().to_owned(), |vote| vote.key.clone());
            votes.push(Vote {
                key,
                shown: source.name().to_owned(),
                place: Fact::new((), source, first_line(source)),
                says: "the configuration at hand".to_owned(),
                replaceable: false,
            });
        }
        let mut verdict = agree(
            Code::ConfigPathDisagrees,
            Severity::Error,
            "the path of Conduit's configuration",
            &[
                "a file that does not exist is an empty configuration to Conduit: `missing field server_name`, exit 1"
                    .to_owned(),
            ],
            votes,
        );
        // A copy may have another name than the installed file, so that only a person can tell.
        let copied = self
            .facts
            .conduit
            .source
            .as_ref()
            .is_some_and(|source| Path::new(source.name()).is_relative());
        for found in &mut verdict.findings {
            let own = |label: &Label| Some(&label.source) == self.facts.conduit.source.as_ref();
            if copied
                && std::iter::once(&found.primary)
                    .chain(&found.related)
                    .any(own)
            {
                found.severity = Severity::Warning;
            }
        }
        self.take(&mut verdict);
    }

    /// That the units run the same program as the same user, and that the user is made.
    fn units(&mut self) {
        type Part = fn(&Unit) -> Option<&Fact<String>>;
        let parts: [(Code, Severity, &str, &str, Part); 4] = [
            (
                Code::UserDisagrees,
                Severity::Error,
                "the user that Conduit runs as",
                "a user that does not exist is 217/USER; another one cannot read the data that the first one wrote",
                |unit| unit.user.as_ref(),
            ),
            (
                Code::UserDisagrees,
                Severity::Error,
                "the group that Conduit runs as",
                "a group that does not exist is 216/GROUP; another one cannot read the configuration",
                |unit| unit.group.as_ref(),
            ),
            (
                Code::UnitsDisagree,
                Severity::Error,
                "the program that is run",
                "two versions of Conduit on one database: the older one refuses what the newer one migrated",
                |unit| unit.program.as_ref(),
            ),
            (
                Code::UnitsDisagree,
                Severity::Warning,
                "the working directory",
                "a relative path of the configuration means another place in each",
                |unit| unit.working_directory.as_ref(),
            ),
        ];
        for (at, (code, severity, what, note, part)) in parts.into_iter().enumerate() {
            let mut votes: Vec<Vote> = self
                .facts
                .units
                .iter()
                .filter_map(|unit| Some(Vote::of(part(unit)?, format!("in `{}`", unit.name))))
                .collect();
            if votes.is_empty() {
                continue;
            }
            if at < 2 {
                for (_, accounts) in &self.facts.accounts {
                    let made = if at == 0 {
                        &accounts.users
                    } else {
                        &accounts.groups
                    };
                    let meant = made
                        .iter()
                        .find(|name| votes.iter().any(|vote| vote.key == name.value))
                        .or(made.first());
                    votes.extend(meant.map(|name| Vote::of(name, "what systemd-sysusers makes")));
                }
            }
            let mut verdict = agree(code, severity, what, &[note.to_owned()], votes);
            // The name of a user is that of its group too: one word, one diagnostic.
            verdict.findings.retain(|found| {
                !self.explained(&Fact::new(
                    (),
                    &found.primary.source,
                    found.primary.span.clone(),
                ))
            });
            self.take(&mut verdict);
        }
    }

    /// That the sandbox of each unit lets Conduit write to its data.
    fn data(&mut self) {
        let conduit = &self.facts.conduit;
        let paths: Vec<(&str, &Fact<String>)> = [
            ("database_path", &conduit.database_path),
            ("media.path", &conduit.media_path),
        ]
        .into_iter()
        .filter_map(|(key, fact)| Some((key, fact.as_ref()?)))
        .collect();
        struct Gap<'a> {
            key: &'a str,
            path: &'a Fact<String>,
            unit: &'a Unit,
            place: Fact<String>,
            resolved: PathBuf,
        }
        let mut gaps = Vec::new();
        for (key, path) in &paths {
            for unit in &self.facts.units {
                if let Some(resolved) = unit.resolve(&path.value)
                    && let Some(place) = unit.forbids(&resolved)
                {
                    gaps.push(Gap {
                        key,
                        path,
                        unit,
                        place,
                        resolved,
                    });
                }
            }
        }
        // One side changed: either a path that no unit has, or a unit that has none of the paths.
        while !gaps.is_empty() {
            let of_unit = gaps
                .iter()
                .filter(|gap| gap.unit.name == gaps[0].unit.name)
                .count();
            let of_path = gaps.iter().filter(|gap| gap.key == gaps[0].key).count();
            let (name, key) = (gaps[0].unit.name.clone(), gaps[0].key);
            let by_unit = of_unit > of_path
                || of_unit == of_path && of_unit == 1 && self.facts.units.len() > 1;
            let (together, rest): (Vec<_>, Vec<_>) = gaps.into_iter().partition(|gap| {
                if of_unit > 1 && of_path > 1 {
                    true
                } else if by_unit {
                    gap.unit.name == name
                } else {
                    gap.key == key
                }
            });
            gaps = rest;
            let first = &together[0];
            let says_unit = |gap: &Gap<'_>| {
                gap.place
                    .label(format!("`{}` makes this writable, or not", gap.unit.name))
            };
            let says_path = |gap: &Gap<'_>| {
                gap.path
                    .label(format!("Conduit writes its `{}` here", gap.key))
            };
            let mut found = finding(
                Code::DataNotWritable,
                Severity::Error,
                format!(
                    "`{}` is not writable for Conduit under `{}`",
                    first.resolved.display(),
                    first.unit.name
                ),
                if by_unit {
                    says_unit(first)
                } else {
                    says_path(first)
                },
            );
            for gap in &together {
                for label in [says_unit(gap), says_path(gap)] {
                    if label != found.primary && !found.related.contains(&label) {
                        found.related.push(label);
                    }
                }
            }
            found.notes.push(
                "the database cannot be opened (read-only file system) and Conduit exits 1; media alone fails at each upload"
                    .to_owned(),
            );
            self.found.push(found);
        }
    }

    /// That the zone leads to the machine, under every name that the site needs.
    fn zone(&mut self, names: &Names) {
        for zone in &self.facts.zones {
            if let Some(name) = names.server_name.winner()
                && !super::zone::is_below(&name.key, &zone.apex.value)
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

    /// That the firewall lets in what Caddy serves, and nothing else.
    fn firewall(&mut self) {
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
            None => Fact::new((), source, first_line(source)).label(text),
        })
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

/// Names by which a CAA record allows an authority, by the URL of its directory or the name of Caddy's module; `None`
/// for one that is not known here, such as a lab's.
fn identities(authority: &str) -> Option<&'static [&'static str]> {
    let host = authority
        .split_once("://")
        .map_or(authority, |(_, rest)| rest)
        .split('/')
        .next()
        .unwrap_or("");
    let belongs = |domain: &str| super::zone::is_below(host, domain);
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
