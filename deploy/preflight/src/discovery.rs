//! How another homeserver finds this one: server-server API, "Resolving server names", every step of it.
//!
//! It asks whoever answers [`Names`] and [`Web`], so that each branch can be tried without a network. What it did is
//! written down step by step under the specification's numbers.

use crate::certificate::Presented;
use crate::check::Step;
use crate::dns::{Data, Kind, Names, NoAnswer};
use crate::web::{NoPage, Page, Request, Web};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use url::Url;

/// Where a homeserver listens when nobody says otherwise.
pub const DEFAULT_PORT: u16 = 8448;
/// The largest `.well-known` that is read: Synapse's limit, the specification has none.
pub const WELL_KNOWN_LIMIT: u64 = 50 * 1024;
/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// How long a delegation is kept that does not say for how long.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long one is kept at most.
const LONGEST_LIFETIME: Duration = Duration::from_secs(48 * 3600);

/// The host of a server name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A literal address.
    Address(IpAddr),
    /// A domain name in lower case.
    Name(String),
}

/// A server name: appendices, "Server Name".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName {
    /// As it was given.
    pub text: String,
    /// Without the port.
    pub host: Host,
    /// The port, if it names one.
    pub port: Option<u16>,
}

impl FromStr for ServerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("`{text}` is no server name: {why}"));
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((address, port)) => match address.parse::<Ipv6Addr>() {
                    Ok(address) => (Host::Address(address.into()), port),
                    Err(_) => return bad("no IPv6 address between the brackets"),
                },
                None => return bad("the bracket is not closed"),
            },
            None => {
                let end = text.find(':').unwrap_or(text.len());
                let (host, port) = text.split_at(end);
                match host.parse::<std::net::Ipv4Addr>() {
                    Ok(address) => (Host::Address(address.into()), port),
                    Err(_) if is_domain_name(host) => (Host::Name(host.to_ascii_lowercase()), port),
                    Err(_) => return bad("the host is no domain name"),
                }
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(digits) if (1..=5).contains(&digits.len()) => match digits.parse() {
                Ok(port) if digits.bytes().all(|byte| byte.is_ascii_digit()) && port > 0 => {
                    Some(port)
                }
                _ => return bad("the port is no number up to 65535"),
            },
            _ => return bad("the port is no number up to 65535"),
        };
        Ok(Self {
            text: text.to_owned(),
            host,
            port,
        })
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_domain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// One host to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is called.
    pub name: String,
    /// The port.
    pub port: u16,
    /// Its addresses; at least one.
    pub addresses: Vec<IpAddr>,
}

/// Where to, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The step that found it.
    pub step: &'static str,
    /// The `Host` header.
    pub host: String,
    /// The name that the certificate must carry.
    pub certificate_name: String,
    /// In the order in which they are tried.
    pub targets: Vec<Target>,
}

impl Route {
    /// All addresses with their ports, in order, each once.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        let mut sockets = Vec::new();
        for target in &self.targets {
            for &address in &target.addresses {
                let socket = SocketAddr::new(address, target.port);
                if !sockets.contains(&socket) {
                    sockets.push(socket);
                }
            }
        }
        sockets
    }
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It is known that there is none.
    Nowhere(String),
    /// A name server did not say.
    Undecided(String),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere(why) | Self::Undecided(why) => f.write_str(why),
        }
    }
}

/// What came of `/.well-known/matrix/server`.
#[derive(Clone, Debug)]
pub enum WellKnown {
    /// The server name carries an address or a port: it is not asked for.
    NotAsked,
    /// It delegates.
    Delegates {
        /// The value of `m.server`.
        to: ServerName,
        /// How long others keep it.
        lifetime: Duration,
        /// The type that it came with.
        content_type: Option<String>,
        /// Of the host that answered in the end.
        certificate: Presented,
    },
    /// There is none, which is allowed.
    Absent(String),
    /// There is something, and it is as good as none.
    Broken {
        /// What is wrong.
        why: String,
        /// The certificate, if it came so far.
        certificate: Option<Presented>,
    },
}

/// What discovery found.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// What was done.
    pub steps: Vec<Step>,
    /// The delegation.
    pub well_known: WellKnown,
    /// Where to connect.
    pub route: Result<Route, Lost>,
}

/// Follows the steps.
pub fn discover(server_name: &ServerName, names: &dyn Names, web: &dyn Web) -> Discovery {
    let mut walk = Walk {
        names,
        web,
        steps: Vec::new(),
    };
    let mut well_known = WellKnown::NotAsked;
    let route = walk.walk(server_name, &mut well_known);
    if let Ok(route) = &route {
        let sockets: Vec<_> = route.sockets().iter().map(ToString::to_string).collect();
        walk.note(
            route.step,
            format!(
                "connect to {}, certificate for `{}`, Host `{}`",
                sockets.join(", "),
                route.certificate_name,
                route.host
            ),
        );
    }
    Discovery {
        steps: walk.steps,
        well_known,
        route,
    }
}

struct Walk<'a> {
    names: &'a dyn Names,
    web: &'a dyn Web,
    steps: Vec<Step>,
}

/// The steps that a name without address and port goes through, by their numbers before and after delegation.
struct Numbers {
    service: &'static str,
    deprecated: &'static str,
    fallback: &'static str,
}

impl Walk<'_> {
    fn note(&mut self, number: &'static str, what: impl Into<String>) {
        self.steps.push(Step {
            number,
            what: what.into(),
        });
    }

    fn walk(
        &mut self,
        server_name: &ServerName,
        well_known: &mut WellKnown,
    ) -> Result<Route, Lost> {
        let name = match (&server_name.host, server_name.port) {
            (Host::Address(_), _) => return self.literal("1", server_name),
            (Host::Name(name), Some(port)) => return self.explicit("2", server_name, name, port),
            (Host::Name(name), None) => name,
        };
        *well_known = self.well_known(name);
        if let WellKnown::Delegates { to, .. } = &*well_known {
            return match (&to.host, to.port) {
                (Host::Address(_), _) => self.literal("3.1", to),
                (Host::Name(name), Some(port)) => self.explicit("3.2", to, name, port),
                (Host::Name(name), None) => self.by_name(
                    name,
                    &Numbers {
                        service: "3.3",
                        deprecated: "3.4",
                        fallback: "3.5",
                    },
                ),
            };
        }
        self.by_name(
            name,
            &Numbers {
                service: "4",
                deprecated: "5",
                fallback: "6",
            },
        )
    }

    /// Steps 1 and 3.1.
    fn literal(&mut self, step: &'static str, name: &ServerName) -> Result<Route, Lost> {
        let Host::Address(address) = name.host else {
            return Err(Lost::Nowhere(format!("`{name}` is no address")));
        };
        self.note(step, format!("`{name}` is an address"));
        Ok(Route {
            step,
            host: name.text.clone(),
            certificate_name: address.to_string(),
            targets: vec![Target {
                name: address.to_string(),
                port: name.port.unwrap_or(DEFAULT_PORT),
                addresses: vec![address],
            }],
        })
    }

    /// Steps 2 and 3.2.
    fn explicit(
        &mut self,
        step: &'static str,
        full: &ServerName,
        name: &str,
        port: u16,
    ) -> Result<Route, Lost> {
        self.note(step, format!("`{full}` names its port"));
        Ok(Route {
            step,
            host: full.text.clone(),
            certificate_name: name.to_owned(),
            targets: vec![self.target(step, name, port)?],
        })
    }

    /// Steps 3.3 to 3.5 and 4 to 6.
    fn by_name(&mut self, name: &str, numbers: &Numbers) -> Result<Route, Lost> {
        for (step, service) in [
            (numbers.service, "_matrix-fed._tcp"),
            (numbers.deprecated, "_matrix._tcp"),
        ] {
            if let Some(targets) = self.service(step, &format!("{service}.{name}"))? {
                return Ok(Route {
                    step,
                    host: name.to_owned(),
                    certificate_name: name.to_owned(),
                    targets,
                });
            }
        }
        Ok(Route {
            step: numbers.fallback,
            host: name.to_owned(),
            certificate_name: name.to_owned(),
            targets: vec![self.target(numbers.fallback, name, DEFAULT_PORT)?],
        })
    }

    fn target(&mut self, step: &'static str, name: &str, port: u16) -> Result<Target, Lost> {
        match self.names.addresses(name) {
            Ok(addresses) => {
                let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                self.note(step, format!("`{name}` has {}", list.join(", ")));
                Ok(Target {
                    name: name.to_owned(),
                    port,
                    addresses,
                })
            }
            Err(error) => {
                let why = format!("addresses of `{name}`: {error}");
                self.note(step, &why);
                Err(lost(&error, why))
            }
        }
    }

    /// The targets of an SRV record, or none where there is no such record.
    fn service(&mut self, step: &'static str, name: &str) -> Result<Option<Vec<Target>>, Lost> {
        let answer = match self.names.ask(name, Kind::Srv) {
            Ok(answer) => answer,
            Err(error) => {
                self.note(step, format!("SRV `{name}`: {error}"));
                return if error.is_absence() {
                    Ok(None)
                } else {
                    Err(Lost::Undecided(format!("SRV `{name}`: {error}")))
                };
            }
        };
        let mut services: Vec<_> = answer
            .records
            .into_iter()
            .filter_map(|record| match record {
                Data::Srv {
                    priority,
                    weight,
                    port,
                    target,
                } => Some((priority, std::cmp::Reverse(weight), port, target)),
                _ => None,
            })
            .collect();
        // RFC 2782 draws lots among equals; the heavier first is one of the orders that it may draw.
        services.sort();
        let list: Vec<_> = services
            .iter()
            .map(|(_, _, port, target)| format!("{target}:{port}"))
            .collect();
        self.note(step, format!("SRV `{name}`: {}", list.join(", ")));
        if services.iter().all(|(_, _, _, target)| target.is_empty()) {
            return Err(Lost::Nowhere(format!(
                "SRV `{name}` points to `.`: it says that there is no such service"
            )));
        }
        let mut targets = Vec::new();
        let mut lost = None;
        for (_, _, port, target) in services {
            match self.target(step, &target, port) {
                Ok(target) => targets.push(target),
                Err(why) => lost = Some(why),
            }
        }
        match lost {
            Some(why) if targets.is_empty() => Err(why),
            _ => Ok(Some(targets)),
        }
    }

    /// Step 3.
    fn well_known(&mut self, name: &str) -> WellKnown {
        let start = format!("https://{name}/.well-known/matrix/server");
        let found = self.fetch_well_known(&start);
        let what = match &found {
            WellKnown::NotAsked => "not asked".to_owned(),
            WellKnown::Delegates { to, lifetime, .. } => format!(
                "delegates to `{to}` for {}",
                crate::certificate::spell(*lifetime)
            ),
            WellKnown::Absent(why) => format!("none: {why}"),
            WellKnown::Broken { why, .. } => format!("as good as none: {why}"),
        };
        self.note("3", format!("GET {start}: {what}"));
        found
    }

    fn fetch_well_known(&mut self, start: &str) -> WellKnown {
        let broken = |why: String| WellKnown::Broken {
            why,
            certificate: None,
        };
        let mut url = match Url::parse(start) {
            Ok(url) => url,
            Err(error) => return broken(format!("`{start}`: {error}")),
        };
        let mut visited = BTreeSet::new();
        for _ in 0..=REDIRECTS {
            if !visited.insert(url.to_string()) {
                return broken(format!("redirects go round in a circle at {url}"));
            }
            let page = match self.get(&url) {
                Ok(page) => page,
                Err(found) => return *found,
            };
            let certificate = page.certificate.clone();
            let broken = |why: String| WellKnown::Broken {
                why,
                certificate: Some(certificate.clone()),
            };
            if let Some(refusal) = &page.certificate.refusal {
                return broken(format!("the certificate of {url} does not hold: {refusal}"));
            }
            match page.status {
                200 => {
                    return match read_well_known(&page) {
                        Ok(to) => WellKnown::Delegates {
                            to,
                            lifetime: lifetime(&page),
                            content_type: page.header("content-type").map(str::to_owned),
                            certificate,
                        },
                        Err(why) => broken(why),
                    };
                }
                301 | 302 | 303 | 307 | 308 => {
                    let location = page.header("location").unwrap_or_default();
                    url = match url.join(location) {
                        Ok(next) if next.scheme() == "https" && !location.is_empty() => next,
                        _ => {
                            return broken(format!(
                                "{url} redirects to `{location}`, which is no HTTPS address"
                            ));
                        }
                    };
                    self.note("3", format!("redirected ({}) to {url}", page.status));
                }
                404 => return WellKnown::Absent(format!("status 404 from {url}")),
                status => return broken(format!("status {status} from {url}")),
            }
        }
        broken(format!("more than {REDIRECTS} redirects"))
    }

    /// Fetches a page from the first address that answers at all.
    fn get(&self, url: &Url) -> Result<Page, Box<WellKnown>> {
        let broken = |why: String| {
            Box::new(WellKnown::Broken {
                why,
                certificate: None,
            })
        };
        let port = url.port_or_known_default().unwrap_or(443);
        let (name, addresses) = match url.host() {
            Some(url::Host::Ipv4(address)) => (address.to_string(), Ok(vec![address.into()])),
            Some(url::Host::Ipv6(address)) => (address.to_string(), Ok(vec![address.into()])),
            Some(url::Host::Domain(name)) => (name.to_owned(), self.names.addresses(name)),
            None => return Err(broken(format!("{url} has no host"))),
        };
        let addresses = addresses.map_err(|error| {
            let why = format!("addresses of `{name}`: {error}");
            if error.is_absence() {
                Box::new(WellKnown::Absent(why))
            } else {
                broken(why)
            }
        })?;
        let host = url.host_str().unwrap_or_default();
        let mut failure = NoPage::Http("no address".to_owned());
        for address in addresses {
            let request = Request {
                address: SocketAddr::new(address, port),
                certificate_name: name.clone(),
                host: url
                    .port()
                    .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
                path: url[url::Position::BeforePath..url::Position::AfterQuery].to_owned(),
                limit: WELL_KNOWN_LIMIT,
            };
            match self.web.get(&request) {
                Ok(page) => return Ok(page),
                Err(
                    error @ (NoPage::Refused(_)
                    | NoPage::Timeout(_)
                    | NoPage::Down(_)
                    | NoPage::NoRoute(_)),
                ) => {
                    failure = error;
                }
                Err(error) => return Err(broken(error.to_string())),
            }
        }
        Err(match failure {
            NoPage::Refused(_) => Box::new(WellKnown::Absent(failure.to_string())),
            other => broken(other.to_string()),
        })
    }
}

/// "The expected `Content-Type` is `application/json`; however, servers should parse the response as JSON regardless."
fn read_well_known(page: &Page) -> Result<ServerName, String> {
    let value: serde_json::Value = serde_json::from_slice(&page.body)
        .map_err(|error| format!("what is served is no JSON: {error}"))?;
    value
        .get("m.server")
        .and_then(serde_json::Value::as_str)
        .ok_or_else(|| "what is served has no `m.server`".to_owned())?
        .parse()
        .map_err(|error| format!("`m.server`: {error}"))
}

/// How long others keep a delegation.
fn lifetime(page: &Page) -> Duration {
    let said = match page.header("cache-control") {
        Some(control) => {
            let mut directives = control
                .split(',')
                .map(|one| one.trim().to_ascii_lowercase());
            if directives
                .clone()
                .any(|one| one == "no-store" || one == "no-cache")
            {
                Some(Duration::ZERO)
            } else {
                directives
                    .find_map(|one| {
                        one.strip_prefix("max-age=")
                            .and_then(|age| age.parse().ok())
                    })
                    .map(Duration::from_secs)
            }
        }
        None => None,
    };
    let by_date = || {
        let expires = page.header("expires")?;
        // An invalid date, `0` above all, means that it has expired (RFC 9111, 5.3).
        let expires = httpdate::parse_http_date(expires).unwrap_or(SystemTime::UNIX_EPOCH);
        Some(
            expires
                .duration_since(page.arrived)
                .unwrap_or(Duration::ZERO),
        )
    };
    said.or_else(by_date)
        .unwrap_or(DEFAULT_LIFETIME)
        .min(LONGEST_LIFETIME)
}

/// What [`NoAnswer`] means to somebody who needs the records.
fn lost(error: &NoAnswer, why: String) -> Lost {
    if error.is_absence() {
        Lost::Nowhere(why)
    } else {
        Lost::Undecided(why)
    }
}
