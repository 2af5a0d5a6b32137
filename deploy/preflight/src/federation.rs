//! The federation self-test: we come as another homeserver would, and look at everything that it would look at.

use crate::certificate::{Presented, spell};
use crate::check::Finding;
use crate::context::Context;
use crate::discovery::{Discovery, Lost, Route, WellKnown, discover};
use crate::keys;
use crate::web::{NoPage, Page, Request, Web};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// "Servers MUST use the lesser of this field and 7 days into the future": more is in vain.
const KEYS_VALID_AT_MOST: Duration = Duration::from_secs(7 * 86_400);
/// The clock of the server and ours may differ by this.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// A delegation that is kept for less costs every other server a request each time.
const SHORT_LIFETIME: Duration = Duration::from_secs(60);

/// One address of the homeserver, and its key document.
#[derive(Debug)]
pub struct Door {
    /// Where.
    pub socket: SocketAddr,
    /// `/_matrix/key/v2/server`.
    pub keys: Result<Page, NoPage>,
}

impl Context {
    /// The way to the homeserver, walked once.
    pub fn discovery(&self) -> &Discovery {
        self.discovery
            .get_or_init(|| discover(&self.settings.server_name, &self.resolver, &self.web))
    }

    fn request(route: &Route, address: SocketAddr, path: &str) -> Request {
        Request {
            address,
            certificate_name: route.certificate_name.clone(),
            host: route.host.clone(),
            path: path.to_owned(),
            limit: 256 * 1024,
        }
    }

    /// Every address of the homeserver, knocked at once and at the same time.
    fn doors(&self) -> &[Door] {
        self.doors.get_or_init(|| {
            let Ok(route) = &self.discovery().route else {
                return Vec::new();
            };
            std::thread::scope(|scope| {
                let knocks: Vec<_> = route
                    .sockets()
                    .into_iter()
                    .map(|socket| {
                        scope.spawn(move || Door {
                            socket,
                            keys: self.web.get(&Self::request(
                                route,
                                socket,
                                "/_matrix/key/v2/server",
                            )),
                        })
                    })
                    .collect();
                knocks
                    .into_iter()
                    .filter_map(|knock| knock.join().ok())
                    .collect()
            })
        })
    }

    /// The first address that answers, with its answer.
    fn open_door(&self) -> Result<(&Door, &Page), Finding> {
        if let Err(lost) = &self.discovery().route {
            return Err(Finding::unknown(
                format!("nowhere to ask: {lost}"),
                "mend `discovery` first",
            ));
        }
        self.doors()
            .iter()
            .find_map(|door| door.keys.as_ref().ok().map(|page| (door, page)))
            .ok_or_else(|| {
                Finding::unknown(
                    "no address of the homeserver answers",
                    "mend `addresses` first",
                )
            })
    }
}

/// Discovery comes to an end.
pub fn discovery(context: &Context) -> Option<Finding> {
    Some(match &context.discovery().route {
        Ok(route) => {
            let sockets: Vec<_> = route.sockets().iter().map(ToString::to_string).collect();
            let seen = format!(
                "step {} leads to {}, certificate for `{}`",
                route.step,
                sockets.join(", "),
                route.certificate_name
            );
            if matches!(route.step, "3.4" | "5") {
                Finding::warning(
                    seen,
                    "a way that is not deprecated",
                    "delegate with `.well-known`, or rename the record to `_matrix-fed._tcp`",
                )
            } else {
                Finding::ok(seen)
            }
        }
        Err(Lost::Nowhere(why)) => Finding::failed(
            why,
            "an address of the homeserver",
            "see the steps below; other servers end there, too",
        ),
        Err(Lost::Undecided(why)) => {
            Finding::unknown(why, "see the steps below; mend `resolver` first")
        }
    })
}

/// The delegation is served as it should be.
pub fn well_known(context: &Context) -> Option<Finding> {
    let discovery = context.discovery();
    let hint = "the apex must serve the two files of deploy/well-known/ over TLS";
    Some(match &discovery.well_known {
        WellKnown::NotAsked => return None,
        WellKnown::Delegates {
            to,
            lifetime,
            content_type,
            ..
        } => {
            let seen = format!("delegates to `{to}` for {}", spell(*lifetime));
            let json = content_type
                .as_deref()
                .is_some_and(|kind| kind.starts_with("application/json"));
            if !json {
                Finding::warning(
                    format!(
                        "{seen}, as `{}`",
                        content_type.as_deref().unwrap_or("no type at all")
                    ),
                    "type `application/json`",
                    hint,
                )
            } else if *lifetime < SHORT_LIFETIME {
                Finding::warning(
                    seen,
                    format!("kept for at least {}", spell(SHORT_LIFETIME)),
                    "raise `max-age` of `Cache-Control`",
                )
            } else {
                Finding::ok(seen)
            }
        }
        WellKnown::Absent(why) if matches!(&discovery.route, Ok(route) if route.step == "4") => {
            Finding::ok(format!("none ({why}); an SRV record stands for it"))
        }
        WellKnown::Absent(why) => Finding::warning(
            format!("none: {why}"),
            "a delegation to the homeserver",
            hint,
        ),
        WellKnown::Broken { why, .. } => {
            Finding::failed(why.clone(), "a delegation to the homeserver", hint)
        }
    })
}

fn judged(certificate: &Presented) -> Finding {
    certificate.judge(SystemTime::now())
}

/// The certificate of whoever serves the delegation.
pub fn certificate_well_known(context: &Context) -> Option<Finding> {
    match &context.discovery().well_known {
        WellKnown::Delegates { certificate, .. }
        | WellKnown::Broken {
            certificate: Some(certificate),
            ..
        } => Some(judged(certificate)),
        _ => None,
    }
}

/// The certificate of the homeserver, for the name that the step demands.
pub fn certificate(context: &Context) -> Option<Finding> {
    Some(match context.open_door() {
        Ok((_, page)) => judged(&page.certificate),
        Err(finding) => finding,
    })
}

/// The keys are the server's own, and it signed them.
pub fn keys(context: &Context) -> Option<Finding> {
    let (door, page) = match context.open_door() {
        Ok(found) => found,
        Err(finding) => return Some(finding),
    };
    let expected = "its keys, signed by each of them";
    let hint = "others reject every event of a server whose keys they cannot verify";
    if page.status != 200 {
        return Some(Finding::failed(
            format!("status {} from {}", page.status, door.socket),
            expected,
            "is federation switched on (`allow_federation`), and does Caddy pass /_matrix on for this name and port?",
        ));
    }
    Some(
        match keys::verify(&page.body, &context.settings.server_name.text) {
            Ok(keys) => {
                let ids: Vec<_> = keys.verify_keys.keys().map(String::as_str).collect();
                Finding::ok(format!("signed by `{}`", ids.join("`, `")))
            }
            Err(why) => Finding::failed(why, expected, hint),
        },
    )
}

/// The keys are valid now, and not for ever.
pub fn keys_validity(context: &Context) -> Option<Finding> {
    let page = match context.open_door() {
        Ok((_, page)) => page,
        Err(finding) => return Some(finding),
    };
    let until = serde_json::from_slice::<serde_json::Value>(&page.body)
        .ok()
        .and_then(|value| value.get("valid_until_ts")?.as_i64());
    let Some(until) = until else {
        return Some(Finding::unknown(
            "no `valid_until_ts` to judge",
            "mend `keys` first",
        ));
    };
    let now = i64::try_from(
        page.arrived
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis(),
    )
    .unwrap_or(i64::MAX);
    let ahead = Duration::from_millis(u64::try_from(until.saturating_sub(now)).unwrap_or(0));
    Some(if until <= now {
        Finding::failed(
            format!(
                "ended {} ago",
                spell(Duration::from_millis(now.abs_diff(until)))
            ),
            "a time to come",
            "look at the clock of the homeserver, and whether something caches its keys",
        )
    } else if ahead > KEYS_VALID_AT_MOST + CLOCKS_DIFFER {
        Finding::warning(
            format!("valid for another {}", spell(ahead)),
            format!("at most {}", spell(KEYS_VALID_AT_MOST)),
            "others take no more than 7 days; a longer time hides a wrong clock",
        )
    } else {
        Finding::ok(format!("valid for another {}", spell(ahead)))
    })
}

/// The server says what it is.
pub fn version(context: &Context) -> Option<Finding> {
    let door = match context.open_door() {
        Ok((door, _)) => door,
        Err(finding) => return Some(finding),
    };
    let Ok(route) = &context.discovery().route else {
        return None;
    };
    let path = "/_matrix/federation/v1/version";
    let expected = "name and version of the server";
    let hint = "is federation switched on (`allow_federation`)?";
    let answer = context.web.get(&Context::request(route, door.socket, path));
    Some(match answer {
        Err(error) => Finding::failed(error.to_string(), expected, hint),
        Ok(page) if page.status != 200 => {
            Finding::failed(format!("status {}", page.status), expected, hint)
        }
        Ok(page) => {
            let value: serde_json::Value = serde_json::from_slice(&page.body).unwrap_or_default();
            match (
                value.pointer("/server/name").and_then(|name| name.as_str()),
                value
                    .pointer("/server/version")
                    .and_then(|version| version.as_str()),
            ) {
                (Some(name), Some(version)) => Finding::ok(format!("{name} {version}")),
                _ => Finding::failed("an answer without `server`", expected, hint),
            }
        }
    })
}

/// Each address serves the same homeserver: others may try any of them first.
pub fn addresses(context: &Context) -> Option<Finding> {
    if let Err(lost) = &context.discovery().route {
        return Some(Finding::unknown(
            format!("nowhere to ask: {lost}"),
            "mend `discovery` first",
        ));
    }
    let first = context.open_door().ok();
    let findings = context.doors().iter().map(|door| {
        let socket = door.socket;
        let expected = "an answer on every address";
        match &door.keys {
            // Where this machine has no IPv6 at all, nothing is known about the address.
            Err(error @ (NoPage::NoRoute(_) | NoPage::Forbidden(_))) => {
                Finding::unknown(error.to_string(), "try it from a machine that has such a network")
            }
            Err(error) => Finding::failed(
                error.to_string(),
                expected,
                "open the port in the firewall, see that Caddy listens there, or remove the address from the zone",
            ),
            Ok(page) => {
                let Some((_, main)) = first else {
                    return Finding::unknown("no address answers", "");
                };
                let keys = |page: &Page| {
                    serde_json::from_slice::<serde_json::Value>(&page.body)
                        .ok()
                        .and_then(|value| value.get("verify_keys").cloned())
                };
                if page.status != main.status || keys(page) != keys(main) {
                    Finding::failed(
                        format!("{socket} is another server than the first address"),
                        "the same server on every address",
                        "two hosts must not serve one name: remove one of the addresses",
                    )
                } else if page.certificate.is_valid() != main.certificate.is_valid() {
                    Finding::failed(
                        format!("{socket} has another certificate: {}", judged(&page.certificate).seen),
                        "a valid certificate on every address",
                        "see which program serves that address",
                    )
                } else {
                    Finding::ok(format!("{socket} answers"))
                }
            }
        }
    });
    Some(Finding::worst(findings))
}
