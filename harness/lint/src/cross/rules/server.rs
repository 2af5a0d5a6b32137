//! What Conduit and its units say, against each other and against Caddy.

use super::{Rules, reaches};
use crate::cross::fact::{Fact, Vote, agree, finding};
use crate::cross::site::Answer;
use crate::cross::toml::split_host;
use crate::cross::unit::Unit;
use crate::diagnostic::{Code, Label, Severity};
use std::path::{Path, PathBuf};

/// Where systemd reads units (systemd.unit(5)).
const UNIT_DIRECTORIES: [&str; 4] = [
    "/etc/systemd/system/",
    "/run/systemd/system/",
    "/usr/lib/systemd/system/",
    "/lib/systemd/system/",
];

impl Rules<'_> {
    /// That Caddy passes on to where Conduit listens.
    pub(super) fn upstreams(&mut self) {
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
    pub(super) fn limits(&mut self) {
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
    pub(super) fn paths(&mut self) {
        let mut votes: Vec<Vote> = self
            .facts
            .units
            .iter()
            .filter_map(|unit| {
                // Empty is no file at all: everything comes from the environment. What a specifier comes to is not known.
                let config = unit
                    .config()
                    .filter(|config| !config.value.is_empty() && !config.value.contains('%'))?;
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
            // On the host itself the file lies where it is read; in a checkout only its name says anything.
            let installed = self
                .facts
                .units
                .iter()
                .filter_map(|unit| unit.config())
                .any(|config| {
                    UNIT_DIRECTORIES
                        .iter()
                        .any(|directory| config.source.name().starts_with(directory))
                });
            let meant = votes.iter().find(|vote| {
                let path = Path::new(&vote.key);
                path == own || !installed && path.file_name() == own.file_name()
            });
            let key = meant.map_or_else(|| source.name().to_owned(), |vote| vote.key.clone());
            votes.push(Vote {
                key,
                shown: source.name().to_owned(),
                place: Fact::new((), source, source.first_line()),
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
    pub(super) fn units(&mut self) {
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
    pub(super) fn data(&mut self) {
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
}
