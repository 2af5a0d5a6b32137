//! The records of a zone, and the name server that tells of them.

use crate::check::Finding;
use crate::context::Context;
use crate::discovery::Host;
use crate::dns::{Answer, Data, Kind, Names, NoAnswer, Transport};
use crate::guard::is_own;
use crate::web::{ANSWER, Request, Web};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A name server that takes longer than this is a bad one.
const SLOW: Duration = Duration::from_secs(1);

impl Context {
    /// The domain name of the server name; none where that is an address.
    fn domain(&self) -> Option<&str> {
        match &self.settings.server_name.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        }
    }

    /// The domain name, and the name of the homeserver below it: what certificates are issued for.
    fn served(&self) -> Option<(String, String)> {
        let name = self.domain()?;
        Some((name.to_owned(), format!("matrix.{name}")))
    }
}

/// A record that is not there, or an answer that did not come.
fn absent(what: &str, error: &NoAnswer, expected: &str, hint: &str) -> Finding {
    let seen = format!("{what}: {error}");
    if error.is_absence() {
        Finding::failed(seen, expected, hint)
    } else {
        unanswered(seen)
    }
}

fn unanswered(seen: String) -> Finding {
    Finding::unknown(
        seen,
        "ask again with `--resolver` and another name server; where all of them fail, the zone's own servers do",
    )
}

/// A name that nobody registered, beside the server's own.
fn unheard_of(domain: &str) -> String {
    let mut bytes = [0; 10];
    // Where there is no randomness, the name is still one that nobody registers.
    let _ = SystemRandom::new().fill(&mut bytes);
    let mut name = String::from("fleet-");
    for byte in bytes {
        let _ = write!(name, "{byte:02x}");
    }
    let parent = domain
        .split_once('.')
        .map_or("invalid", |(_, parent)| parent);
    format!("{name}.{parent}")
}

/// Whether the name servers answer, in time, and what they were asked.
pub fn resolver(context: &Context) -> Option<Finding> {
    let domain = context.domain()?;
    let servers = context.resolver.servers();
    let several = servers.len() > 1;
    let expected = "an answer to our question, in time";
    let findings = servers.into_iter().map(|server| {
        let probe = || {
            let began = Instant::now();
            let name = unheard_of(domain);
            let resolver = &context.resolver;
            let probe = resolver.ask_server(server, &name, Kind::A, Transport::Datagram);
            (probe, began.elapsed())
        };
        let (probe, took) = {
            let first = probe();
            // A busy moment, of this machine or another, is not a slow name server.
            if first.1 > SLOW && first.0.as_ref().is_err_and(NoAnswer::is_absence) {
                let second = probe();
                if second.1 < first.1 { second } else { first }
            } else {
                first
            }
        };
        let strays = |answer: &Result<Answer, NoAnswer>| {
            answer.as_ref().map_or(0, |answer| answer.strays)
        };
        match &probe {
            Err(error) if !error.is_absence() => {
                let seen = format!("{server}: {error}");
                if several {
                    Finding::warning(seen, expected, "take it out of /etc/resolv.conf")
                } else if matches!(error, NoAnswer::Forbidden(_)) {
                    Finding::unknown(seen, "")
                } else {
                    Finding::failed(seen, expected, "name another one in /etc/resolv.conf")
                }
            }
            _ => {
                // A question that others may guess, too.
                let own = context
                    .resolver
                    .ask_server(server, domain, Kind::A, Transport::Datagram);
                let count = strays(&probe) + strays(&own);
                if count > 0 {
                    Finding::failed(
                        format!("{server}: {count} answers with a wrong id came before the right one"),
                        expected,
                        "somebody between here and the name server forges answers",
                    )
                } else if took > SLOW {
                    Finding::warning(
                        format!("{server} answers after {} ms", took.as_millis()),
                        format!("an answer within {} ms", SLOW.as_millis()),
                        "Conduit looks names up for every server it talks to: name a quicker one in /etc/resolv.conf",
                    )
                } else {
                    Finding::ok(format!("{server} answers after {} ms", took.as_millis()))
                }
            }
        }
    });
    Some(Finding::worst(findings))
}

/// Whether a name that does not exist does not exist.
pub fn resolver_nxdomain(context: &Context) -> Option<Finding> {
    let name = unheard_of(context.domain()?);
    let findings = context.resolver.servers().into_iter().map(|server| {
        let what = format!("{server} about `{name}`");
        match context
            .resolver
            .ask_server(server, &name, Kind::A, Transport::Datagram)
        {
            Err(NoAnswer::NoName { .. }) => {
                Finding::ok(format!("{server} says NXDOMAIN to a name that nobody has"))
            }
            Ok(answer) => Finding::failed(
                format!("{what}: {}", list(&answer.addresses())),
                "NXDOMAIN",
                "it answers for names that do not exist, so that a missing record is never seen: name an honest one in \
                 /etc/resolv.conf",
            ),
            Err(error @ NoAnswer::NoData { .. }) => Finding::failed(
                format!("{what}: {error}"),
                "NXDOMAIN",
                "name an honest one in /etc/resolv.conf",
            ),
            Err(error) => Finding::unknown(format!("{what}: {error}"), ""),
        }
    });
    Some(Finding::worst(findings))
}

/// Whether large answers can come.
pub fn resolver_tcp(context: &Context) -> Option<Finding> {
    let domain = context.domain()?;
    let findings = context.resolver.servers().into_iter().map(|server| {
        match context
            .resolver
            .ask_server(server, domain, Kind::A, Transport::Stream)
        {
            Ok(_) | Err(NoAnswer::NoName { .. } | NoAnswer::NoData { .. }) => {
                Finding::ok(format!("{server} answers over TCP"))
            }
            Err(error @ (NoAnswer::ServFail | NoAnswer::Refused | NoAnswer::Code(_))) => {
                Finding::ok(format!("{server} is heard over TCP: {error}"))
            }
            Err(error) => Finding::warning(
                format!("{server} over TCP: {error}"),
                "an answer",
                "answers that do not fit into a datagram are lost: let TCP to port 53 pass",
            ),
        }
    });
    Some(Finding::worst(findings))
}

fn list(addresses: &[IpAddr]) -> String {
    let words: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    words.join(", ")
}

/// What is wrong with these addresses, if anything.
fn misplaced(context: &Context, addresses: &[IpAddr]) -> Option<(Vec<IpAddr>, String)> {
    let expected = &context.settings.expect_addresses;
    let of_family: Vec<_> = expected
        .iter()
        .filter(|address| address.is_ipv4() == addresses.iter().all(IpAddr::is_ipv4))
        .copied()
        .collect();
    let (foreign, wanted): (Vec<_>, _) = if !expected.is_empty() {
        let foreign = addresses
            .iter()
            .filter(|address| !expected.contains(address))
            .copied()
            .collect();
        let wanted = if of_family.is_empty() {
            "none of this family".to_owned()
        } else {
            list(&of_family)
        };
        (foreign, wanted)
    } else if context.settings.host {
        let foreign = addresses
            .iter()
            .filter(|address| !is_own(**address))
            .copied()
            .collect();
        (foreign, "an address of this machine".to_owned())
    } else {
        return None;
    };
    (!foreign.is_empty()).then_some((foreign, wanted))
}

const MOVE: &str = "correct the record (deploy/dns); behind a translating router name the outer address with \
                    `--expect-address`";

/// `matrix.NAME` has an IPv4 address, and it is this host's.
pub fn address(context: &Context) -> Option<Finding> {
    let (_, matrix) = context.served()?;
    let what = format!("`{matrix}` A");
    let answer = match context.resolver.ask(&matrix, Kind::A) {
        Ok(answer) => answer,
        Err(error) => {
            return Some(absent(
                &what,
                &error,
                "the address of the host",
                "publish the record (deploy/dns): without it no certificate is issued",
            ));
        }
    };
    let addresses = answer.addresses();
    let seen = format!("{what}: {}", list(&addresses));
    if let Some((foreign, wanted)) = misplaced(context, &addresses) {
        return Some(Finding::failed(
            format!("{what}: {}", list(&foreign)),
            wanted,
            MOVE,
        ));
    }
    if answer.aliases.is_empty() {
        return Some(Finding::ok(seen));
    }
    Some(Finding::warning(
        format!(
            "{seen}, through the alias `{}`",
            answer.aliases.join("`, `")
        ),
        "an address record of its own",
        "with an alias (CNAME) the CAA records of its target decide who may issue certificates, and it cannot be the \
         target of an SRV record",
    ))
}

/// The apex has an address; where it is not on this host, who has it must serve the delegation.
pub fn address_apex(context: &Context) -> Option<Finding> {
    let name = context.domain()?;
    match context.resolver.addresses(name) {
        Ok(addresses) => Some(Finding::ok(format!("`{name}`: {}", list(&addresses)))),
        Err(error) => Some(absent(
            &format!("`{name}` A and AAAA"),
            &error,
            "an address",
            "publish the record (deploy/dns): other servers and clients begin at the apex, with /.well-known/matrix",
        )),
    }
}

/// An IPv6 address is published only where the host has it.
pub fn aaaa(context: &Context) -> Option<Finding> {
    let (name, matrix) = context.served()?;
    // The apex is judged where it is on the same host.
    let four = |name: &str| {
        context
            .resolver
            .ask(name, Kind::A)
            .map(|answer| answer.addresses())
            .unwrap_or_default()
    };
    let beside = four(&matrix);
    let mut whose = vec![matrix];
    if four(&name).iter().any(|address| beside.contains(address)) {
        whose.push(name);
    }
    let findings = whose.into_iter().map(|name| {
        let what = format!("`{name}` AAAA");
        match context.resolver.ask(&name, Kind::Aaaa) {
            Err(error) if error.is_absence() => Finding::ok(format!("{what}: none")),
            Err(error) => unanswered(format!("{what}: {error}")),
            Ok(answer) => match misplaced(context, &answer.addresses()) {
                None => Finding::ok(format!("{what}: {}", list(&answer.addresses()))),
                Some((foreign, wanted)) => Finding::failed(
                    format!("{what}: {}", list(&foreign)),
                    wanted,
                    "remove the record until the host answers on IPv6: others try it first, and so does the \
                     certificate authority",
                ),
            },
        }
    });
    Some(Finding::worst(findings))
}

/// The certificate authority that Caddy uses may issue for both names (RFC 8659).
pub fn caa(context: &Context) -> Option<Finding> {
    let (name, matrix) = context.served()?;
    let issuers = context.issuers();
    Some(Finding::worst(
        [name, matrix].map(|name| may_issue(&context.resolver, &name, &issuers)),
    ))
}

/// Looks for the records that count, from the name upwards, and for the authority in them.
pub fn may_issue(names: &dyn Names, domain: &str, issuers: &[String]) -> Finding {
    let mut at = domain;
    let records = loop {
        match names.ask(at, Kind::Caa) {
            Ok(answer) => break answer.records,
            Err(error) if error.is_absence() => match at.split_once('.') {
                Some((_, parent)) => at = parent,
                None => return Finding::ok(format!("`{domain}`: no CAA record, any may issue")),
            },
            // Authorities do not issue when they cannot look.
            Err(error) => return unanswered(format!("CAA `{at}`: {error}")),
        }
    };
    let expected = format!("`issue \"{}\"`", issuers.join("\"` or `issue \""));
    let hint = "correct the CAA record (deploy/dns), or name Caddy's authority with `--caa-issuer`";
    let mut allowed = Vec::new();
    for record in &records {
        let Data::Caa {
            critical,
            tag,
            value,
        } = record
        else {
            continue;
        };
        match tag.as_str() {
            "issue" => allowed.push(value.split(';').next().unwrap_or_default().trim()),
            "issuewild" | "iodef" | "contactemail" | "contactphone" | "issuemail" | "issuevmc" => {}
            other if *critical => {
                return Finding::failed(
                    format!("CAA `{at}`: the critical tag `{other}`, which no authority knows"),
                    expected,
                    hint,
                );
            }
            _ => {}
        }
    }
    if allowed.is_empty()
        || allowed.iter().any(|allowed| {
            issuers
                .iter()
                .any(|issuer| issuer.eq_ignore_ascii_case(allowed))
        })
    {
        return Finding::ok(format!(
            "CAA `{at}`: `{}` may issue for `{domain}`",
            issuers.join("`, `")
        ));
    }
    let words: Vec<_> = allowed
        .iter()
        .map(|allowed| {
            if allowed.is_empty() {
                "nobody".to_owned()
            } else {
                format!("`{allowed}`")
            }
        })
        .collect();
    Finding::failed(
        format!("CAA `{at}`: {} may issue for `{domain}`", words.join(", ")),
        expected,
        hint,
    )
}

/// There is no SRV record, or a present one that holds what it demands.
pub fn srv(context: &Context) -> Option<Finding> {
    let name = context.domain()?;
    let mut findings = Vec::new();
    let deprecated = format!("_matrix._tcp.{name}");
    match context.resolver.ask(&deprecated, Kind::Srv) {
        Ok(_) => findings.push(Finding::warning(
            format!("SRV `{deprecated}` is published"),
            "none",
            "it is deprecated since Matrix 1.8: remove it, `.well-known` delegates; or rename it to `_matrix-fed._tcp`",
        )),
        Err(error) if error.is_absence() => {}
        Err(error) => findings.push(unanswered(format!("SRV `{deprecated}`: {error}"))),
    }
    let present = format!("_matrix-fed._tcp.{name}");
    match context.resolver.ask(&present, Kind::Srv) {
        Ok(answer) => findings.extend(
            answer
                .records
                .iter()
                .map(|record| service(context, &present, name, record)),
        ),
        Err(error) if error.is_absence() => {}
        Err(error) => findings.push(unanswered(format!("SRV `{present}`: {error}"))),
    }
    if findings.is_empty() {
        return Some(Finding::ok("no SRV record; `.well-known` delegates"));
    }
    Some(Finding::worst(findings))
}

fn service(context: &Context, record: &str, name: &str, data: &Data) -> Finding {
    let Data::Srv { port, target, .. } = data else {
        return Finding::unknown(format!("SRV `{record}`: no SRV record"), "");
    };
    if target.is_empty() {
        return Finding::failed(
            format!("SRV `{record}` points to `.`"),
            "a host, or no record",
            "it says that there is no homeserver here: remove it",
        );
    }
    let what = format!("SRV `{record}` points to `{target}:{port}`");
    let aliased = [Kind::A, Kind::Aaaa].into_iter().any(|kind| {
        context
            .resolver
            .ask(target, kind)
            .is_ok_and(|answer| !answer.aliases.is_empty())
    });
    if aliased {
        return Finding::failed(
            format!("{what}, which is an alias"),
            "a name with address records of its own",
            "RFC 2782 forbids an alias (CNAME) as target",
        );
    }
    let addresses = match context.resolver.addresses(target) {
        Ok(addresses) => addresses,
        Err(error) => {
            return absent(
                &what,
                &error,
                "a name that has an address",
                "correct the record",
            );
        }
    };
    if context.settings.before_install {
        return Finding::ok(what);
    }
    let mut worst = Vec::new();
    for address in addresses {
        let socket = SocketAddr::new(address, *port);
        let request = Request {
            address: socket,
            certificate_name: name.to_owned(),
            host: name.to_owned(),
            path: "/_matrix/federation/v1/version".to_owned(),
            limit: 64 * 1024,
        };
        worst.push(match context.web.get(&request) {
            Ok(page) => match &page.certificate.refusal {
                None => Finding::ok(what.clone()),
                Some(refusal) => Finding::failed(
                    format!("{what}: {refusal}"),
                    format!("a certificate for `{name}`"),
                    "an SRV record does not change the name that the certificate must carry: add a site \
                     `NAME:8448` to Caddy, or remove the record",
                ),
            },
            Err(error) => Finding::failed(
                format!("{what}: {error}"),
                format!("an answer within {} s", ANSWER.as_secs()),
                "correct the port or the target, or remove the record",
            ),
        });
    }
    Finding::worst(worst)
}
