//! What Caddy would serve: the adapted configuration is walked with the requests that matter, as Caddy's router would
//! walk it, and what they meet is traced back to its words in the Caddyfile.

use super::caddy::{Adapted, Token, tokens};
use super::fact::Fact;
use super::toml::split_host;
use super::well_known::{self, Document};
use crate::source::Source;
use serde_json::Value;
use std::ops::Range;

/// All that Caddy serves.
#[derive(Clone, Debug, Default)]
pub struct Caddy {
    /// The Caddyfile.
    pub source: Option<Source>,
    /// Each name at each port.
    pub sites: Vec<Site>,
    /// Ports that it listens on beyond this machine, with the protocols that it speaks there.
    pub listeners: Vec<Fact<Listener>>,
}

/// A port that can be reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Whether HTTP/3 is spoken there, over UDP.
    pub http3: bool,
}

/// One name at one port.
#[derive(Clone, Debug)]
pub struct Site {
    /// The name, where it stands in the Caddyfile; `None` serves any name.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
    /// Where its address stands.
    pub place: Fact<()>,
    /// Whether Caddy gets a certificate for it.
    pub tls: bool,
    /// The directory of the certificate authority, if one is named.
    pub authority: Option<Fact<String>>,
    /// What the client API meets.
    pub client: Walk,
    /// What the server API meets.
    pub federation: Walk,
    /// What an upload meets.
    pub upload: Walk,
    /// What the delegation for servers meets, then that for clients.
    pub well_known: [Walk; 2],
}

impl Site {
    /// The name, or what stands for any.
    pub fn name(&self) -> &str {
        self.host.as_deref().unwrap_or("*")
    }

    /// Whether it serves a name.
    pub fn serves(&self, host: &str) -> bool {
        let Some(own) = &self.host else {
            return true;
        };
        match own.strip_prefix("*.") {
            // One label, as in a certificate.
            Some(parent) => host
                .split_once('.')
                .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
            None => own.eq_ignore_ascii_case(host),
        }
    }
}

/// What a request meets on its way.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// What answers it.
    pub answer: Answer,
    /// Whether something on the way depends on what is not known here.
    pub uncertain: bool,
    /// Whether its path is what chose the way.
    pub by_path: bool,
    /// The largest body.
    pub limit: Option<Fact<u64>>,
    /// The largest body that may be announced.
    pub announced: Option<Fact<u64>>,
    /// What its path is made into.
    pub rewrite: Option<Fact<String>>,
    /// A header of the `X-Forwarded` family that the Caddyfile changes.
    pub forwarded: Option<Fact<String>>,
}

/// What answers a request.
#[derive(Clone, Debug, Default)]
pub enum Answer {
    /// Nothing: Caddy answers 200 with nothing in it.
    #[default]
    Nothing,
    /// A text.
    Static {
        /// Its status.
        status: String,
        /// The text, where it stands.
        body: Fact<String>,
    },
    /// A server behind it.
    Proxy {
        /// `host:port` of each.
        upstreams: Vec<Fact<String>>,
        /// Whether TLS is spoken to it.
        tls: bool,
    },
    /// An error, by status.
    Error(String),
    /// Something else, by the name of its module.
    Other(String),
}

impl Answer {
    /// As a person would say it.
    pub fn describe(&self) -> String {
        match self {
            Self::Nothing => "an empty 200".to_owned(),
            Self::Static { status, .. } => format!("a fixed text with {status}"),
            Self::Proxy { .. } => "a server behind Caddy".to_owned(),
            Self::Error(status) => status.clone(),
            Self::Other(module) => format!("Caddy's `{module}`"),
        }
    }
}

/// A request to walk with.
struct Request<'a> {
    host: &'a str,
    path: &'a str,
    method: &'a str,
}

const HTTPS: u16 = 443;
const HTTP: u16 = 80;

/// Reads what was adapted.
pub fn read(adapted: &Adapted) -> Caddy {
    let words = Words::of(&adapted.files);
    let http = &adapted.json["apps"]["http"];
    let https_port = port_of(&http["https_port"]).unwrap_or(HTTPS);
    let http_port = port_of(&http["http_port"]).unwrap_or(HTTP);
    let mut caddy = Caddy {
        source: adapted.files.first().cloned(),
        ..Caddy::default()
    };
    let mut redirected: Option<Fact<()>> = None;
    let mut servers: Vec<&Value> = http["servers"]
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::values)
        .collect();
    // The kit's own order: 443 before the others.
    servers.sort_by_key(|server| listen(server).first().map(|(_, port)| *port != https_port));
    for server in servers {
        let automatic = &server["automatic_https"];
        let plain = automatic["disable"] == true;
        let has_connection_policy = server["tls_connection_policies"]
            .as_array()
            .is_some_and(|policies| !policies.is_empty());
        let names = hosts(&server["routes"]);
        for (address, port) in listen(server) {
            let tls = port != http_port && (has_connection_policy || !plain && !names.is_empty());
            let names: Vec<Option<&str>> = if names.is_empty() {
                vec![None]
            } else {
                names.iter().map(|name| Some(*name)).collect()
            };
            let mut first = None;
            for host in names {
                let place = words.site(host, port, https_port);
                first.get_or_insert_with(|| place.clone());
                let walk = |path, method| {
                    words.walk(
                        &server["routes"],
                        &Request {
                            host: host.unwrap_or(""),
                            path,
                            method,
                        },
                    )
                };
                let skipped = ["skip", "skip_certificates"].iter().any(|list| {
                    automatic[*list]
                        .as_array()
                        .is_some_and(|names| names.iter().any(|name| name.as_str() == host))
                });
                caddy.sites.push(Site {
                    tls: tls && !skipped,
                    authority: words.authority(&adapted.json, host),
                    client: walk("/_matrix/client/versions", "GET"),
                    federation: walk("/_matrix/federation/v1/version", "GET"),
                    upload: walk("/_matrix/media/v3/upload", "POST"),
                    well_known: Document::ALL.map(|document| walk(document.path(), "GET")),
                    host: host.map(str::to_owned),
                    port,
                    place,
                });
            }
            let Some(place) = first else { continue };
            if is_loopback(&address) {
                continue;
            }
            let http3 = tls
                && match server["protocols"].as_array() {
                    Some(protocols) => protocols.iter().any(|protocol| protocol == "h3"),
                    None => true,
                };
            if tls && !plain && automatic["disable_redirects"] != true {
                redirected.get_or_insert_with(|| place.clone());
            }
            caddy.listeners.push(place.with(Listener { port, http3 }));
        }
    }
    if let Some(place) = redirected
        && !caddy
            .listeners
            .iter()
            .any(|listener| listener.value.port == http_port)
    {
        caddy.listeners.push(place.with(Listener {
            port: http_port,
            http3: false,
        }));
    }
    caddy
}

fn port_of(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| port.try_into().ok())
}

/// Host and port of each TCP address that a server listens on.
fn listen(server: &Value) -> Vec<(String, u16)> {
    let mut found = Vec::new();
    for address in server["listen"].as_array().into_iter().flatten() {
        let Some(address) = address.as_str() else {
            continue;
        };
        let address = match address.split_once('/') {
            Some(("tcp" | "tcp4" | "tcp6", rest)) => rest,
            // Sockets of this machine, and what is no HTTP over TCP.
            Some(_) => continue,
            None => address,
        };
        let Some((host, ports)) = address.rsplit_once(':') else {
            continue;
        };
        let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
        if let (Ok(low), Ok(high)) = (low.parse::<u16>(), high.parse::<u16>()) {
            // A range of more is no web server's.
            found.extend((low..=high).take(64).map(|port| (host.to_owned(), port)));
        }
    }
    found
}

/// Whether an address can be reached from this machine alone.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Every name that the routes of a server are about, in their order; those within a wildcard's site too.
fn hosts(routes: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    collect_hosts(routes, &mut found);
    found
}

fn collect_hosts<'v>(routes: &'v Value, found: &mut Vec<&'v str>) {
    for route in routes.as_array().into_iter().flatten() {
        for set in route["match"].as_array().into_iter().flatten() {
            for host in set["host"].as_array().into_iter().flatten() {
                if let Some(host) = host.as_str()
                    && !found.contains(&host)
                {
                    found.push(host);
                }
            }
        }
        for handler in route["handle"].as_array().into_iter().flatten() {
            collect_hosts(&handler["routes"], found);
        }
    }
}

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maybe {
    Yes,
    No,
    Unknown,
}

/// The words of the Caddyfile and of what it imports.
struct Words<'a> {
    files: Vec<(&'a Source, Vec<Token>)>,
}

impl<'a> Words<'a> {
    fn of(files: &'a [Source]) -> Self {
        Self {
            files: files
                .iter()
                .map(|source| (source, tokens(source.text())))
                .collect(),
        }
    }

    /// The first file's first line.
    fn nowhere(&self) -> Fact<()> {
        let source = self.files[0].0;
        Fact::new((), source, source.first_line())
    }

    /// The first word for which the answer is a part of it.
    fn find(&self, part: impl Fn(&[Token], usize) -> Option<Range<usize>>) -> Option<Fact<()>> {
        self.files.iter().find_map(|(source, tokens)| {
            (0..tokens.len()).find_map(|at| {
                let within = part(tokens, at)?;
                let start = tokens[at].span.start;
                Some(Fact::new(
                    (),
                    source,
                    start + within.start..start + within.end,
                ))
            })
        })
    }

    /// The address of a site as it is written above its block.
    fn site(&self, host: Option<&str>, port: u16, https_port: u16) -> Fact<()> {
        let wanted = |token: &Token| {
            let text = token.text.trim_end_matches(',');
            let (scheme, rest) = match text.split_once("://") {
                Some((scheme, rest)) => (Some(scheme), rest),
                None => (None, text),
            };
            let rest = rest.split('/').next().unwrap_or(rest);
            let (name, written) = match rest.strip_prefix(':') {
                Some(port) => ("", port.parse().ok()),
                None => split_host(rest),
            };
            let implied = if scheme == Some("http") {
                HTTP
            } else {
                https_port
            };
            name.eq_ignore_ascii_case(host.unwrap_or("")) && written.unwrap_or(implied) == port
        };
        let whole = |token: &Token| 0..token.text.trim_end_matches(',').len();
        self.find(|tokens, at| {
            // Before the block of its site: no word on its line before it is anything but an address.
            let token = &tokens[at];
            let begins = at == 0
                || tokens[at - 1].line != token.line
                || tokens[at - 1].text.ends_with(',')
                || tokens[at - 1].text != "import";
            (begins && wanted(token)).then(|| whole(token))
        })
        .or_else(|| {
            let host = host?;
            self.find(|tokens, at| {
                let start = tokens[at].text.find(host)?;
                (tokens[at].span.len() == tokens[at].text.len()).then(|| start..start + host.len())
            })
        })
        .unwrap_or_else(|| self.nowhere())
    }

    /// A literal: a word that is it, else a word that holds it.
    fn literal(&self, text: &str) -> Fact<()> {
        self.find(|tokens, at| (tokens[at].text == text).then(|| 0..tokens[at].span.len()))
            .or_else(|| {
                self.find(|tokens, at| {
                    let start = tokens[at].text.find(text)?;
                    // Only where nothing was escaped do the bytes of both agree.
                    (tokens[at].span.len() == tokens[at].text.len())
                        .then(|| start..start + text.len())
                })
            })
            .unwrap_or_else(|| self.nowhere())
    }

    /// The word after another on its line.
    fn argument(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Option<Fact<()>> {
        self.find(|tokens, at| {
            let (before, token) = (tokens.get(at.checked_sub(1)?)?, &tokens[at]);
            (before.text == name && before.line == token.line && wanted(&token.text))
                .then(|| 0..token.span.len())
        })
    }

    fn size(&self, bytes: u64) -> Fact<u64> {
        self.argument("max_size", |word| size_in_bytes(word) == Some(bytes))
            .or_else(|| self.argument("max_size", |_| true))
            .unwrap_or_else(|| self.nowhere())
            .with(bytes)
    }

    fn upstream(&self, dial: &str) -> Fact<String> {
        let wanted = |word: &str| {
            let bare = word
                .split_once("://")
                .map_or(word, |(_, rest)| rest)
                .trim_end_matches('/');
            bare == dial || dial.strip_suffix(":80").is_some_and(|host| bare == host)
        };
        self.find(|tokens, at| {
            let token = &tokens[at];
            let directive = tokens[..at]
                .iter()
                .rev()
                .take_while(|before| before.line == token.line)
                .any(|before| matches!(before.text.as_str(), "reverse_proxy" | "to"));
            if !(directive && wanted(&token.text)) {
                return None;
            }
            let start = token.text.find(dial).unwrap_or(0);
            Some(start..token.span.len().min(start + dial.len()))
        })
        .unwrap_or_else(|| self.literal(dial))
        .with(dial.to_owned())
    }

    /// The authority that issues for a name: of the first policy about it, else of the one about all.
    fn authority(&self, json: &Value, host: Option<&str>) -> Option<Fact<String>> {
        let policies = json["apps"]["tls"]["automation"]["policies"].as_array()?;
        let about = |policy: &&Value| match policy["subjects"].as_array() {
            Some(subjects) => subjects.iter().any(|subject| subject.as_str() == host),
            None => true,
        };
        let issuer = policies.iter().find(about)?["issuers"].get(0)?;
        let url = match (issuer["module"].as_str(), issuer["ca"].as_str()) {
            (_, Some(url)) => url,
            (Some(module @ ("internal" | "zerossl")), None) => {
                let place = self.literal(module);
                return Some(place.with(module.to_owned()));
            }
            _ => return None,
        };
        Some(self.literal(url).with(url.to_owned()))
    }

    fn walk(&self, routes: &Value, request: &Request<'_>) -> Walk {
        let mut walk = Walk::default();
        self.routes(routes, request, &mut walk);
        walk
    }

    /// Goes through routes; true once the request is answered.
    fn routes(&self, routes: &Value, request: &Request<'_>, walk: &mut Walk) -> bool {
        let mut taken: Vec<&str> = Vec::new();
        for route in routes.as_array().into_iter().flatten() {
            let group = route["group"].as_str().filter(|group| !group.is_empty());
            if group.is_some_and(|group| taken.contains(&group)) {
                continue;
            }
            match matches_any(&route["match"], request) {
                Maybe::No => continue,
                Maybe::Unknown => {
                    if let Some(announced) = self.announced(&route["match"], &route["handle"]) {
                        walk.announced.get_or_insert(announced);
                    } else if only_passed_on(&route["handle"]) {
                        // Whoever it is about goes to a server like the others, and so its upstreams count with theirs.
                        for handler in route["handle"].as_array().into_iter().flatten() {
                            self.handler(handler, request, walk);
                        }
                    } else {
                        walk.uncertain = true;
                    }
                    continue;
                }
                Maybe::Yes => {}
            }
            taken.extend(group);
            walk.by_path |= names_matrix(&route["match"]);
            for handler in route["handle"].as_array().into_iter().flatten() {
                if self.handler(handler, request, walk) {
                    return true;
                }
            }
            if route["terminal"] == true {
                return true;
            }
        }
        false
    }

    fn handler(&self, handler: &Value, request: &Request<'_>, walk: &mut Walk) -> bool {
        let status = |value: &Value| match value {
            Value::Null => "200".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match handler["handler"].as_str().unwrap_or("") {
            "subroute" => return self.routes(&handler["routes"], request, walk),
            "request_body" => {
                if let Some(bytes) = handler["max_size"].as_u64() {
                    walk.limit = Some(self.size(bytes));
                }
            }
            "rewrite" => {
                for (key, word) in [
                    ("strip_path_prefix", "strip_prefix"),
                    ("strip_path_suffix", "strip_suffix"),
                    ("uri", "rewrite"),
                    ("uri_substring", "replace"),
                    ("path_regexp", "path_regexp"),
                ] {
                    if handler[key].is_null() {
                        continue;
                    }
                    let place = match handler[key].as_str() {
                        Some(text) if key == "strip_path_prefix" => self
                            .argument(word, |_| true)
                            .or_else(|| self.argument("handle_path", |path| path.starts_with(text)))
                            .unwrap_or_else(|| self.literal(text)),
                        Some(text) => self.literal(text),
                        None => self
                            .argument("uri", |_| true)
                            .unwrap_or_else(|| self.nowhere()),
                    };
                    let what = match handler[key].as_str() {
                        Some(text) => text.to_owned(),
                        None => word.to_owned(),
                    };
                    walk.rewrite.get_or_insert(place.with(what));
                }
            }
            "headers" => self.forwarded(&handler["request"], walk),
            "reverse_proxy" => {
                self.forwarded(&handler["headers"]["request"], walk);
                if !handler["rewrite"].is_null() {
                    let place = self
                        .argument("rewrite", |_| true)
                        .unwrap_or_else(|| self.nowhere());
                    walk.rewrite
                        .get_or_insert(place.with(place.written().to_owned()));
                }
                // Where a failed answer is passed on to, and what has come before under a condition that is not known.
                for response in handler["handle_response"].as_array().into_iter().flatten() {
                    self.routes(&response["routes"], request, walk);
                }
                let mut upstreams = match std::mem::take(&mut walk.answer) {
                    Answer::Proxy { upstreams, .. } => upstreams,
                    _ => Vec::new(),
                };
                for upstream in handler["upstreams"].as_array().into_iter().flatten() {
                    if let Some(dial) = upstream["dial"].as_str()
                        && !upstreams.iter().any(|known| known.value == dial)
                    {
                        upstreams.push(self.upstream(dial));
                    }
                }
                walk.answer = Answer::Proxy {
                    upstreams,
                    tls: !handler["transport"]["tls"].is_null(),
                };
                return true;
            }
            "static_response" => {
                // A response that only closes the connection or passes on is rare enough to count as one.
                let body = handler["body"].as_str().unwrap_or("");
                let place = Document::ALL
                    .into_iter()
                    .filter(|document| document.path() == request.path)
                    .find_map(|document| {
                        let value = document.value(body).ok()?;
                        self.files.iter().find_map(|(source, tokens)| {
                            let token = tokens.iter().find(|token| token.text == body)?;
                            let written = &source.text()[token.span.clone()];
                            let within = well_known::literal(written, document, &value)?;
                            let start = token.span.start;
                            Some(Fact::new(
                                (),
                                source,
                                start + within.start..start + within.end,
                            ))
                        })
                    })
                    .unwrap_or_else(|| self.literal(body));
                walk.answer = Answer::Static {
                    status: status(&handler["status_code"]),
                    body: place.with(body.to_owned()),
                };
                return true;
            }
            "error" => {
                walk.answer = Answer::Error(match &handler["status_code"] {
                    Value::Null => "500".to_owned(),
                    other => status(other),
                });
                return true;
            }
            "file_server" | "acme_server" | "metrics" | "invoke" => {
                walk.answer = Answer::Other(handler["handler"].as_str().unwrap_or("").to_owned());
                walk.uncertain = true;
                return true;
            }
            "encode"
            | "vars"
            | "headers_regexp"
            | "map"
            | "templates"
            | "tracing"
            | "push"
            | "copy_response"
            | "copy_response_headers"
            | "log_append" => {}
            // A module that is not known here, `authentication` among them, may answer or not.
            _ => walk.uncertain = true,
        }
        false
    }

    /// Notes a change to what Caddy itself says of the client.
    fn forwarded(&self, operations: &Value, walk: &mut Walk) {
        let changed = ["set", "add", "replace"]
            .iter()
            .filter_map(|operation| operations[*operation].as_object())
            .flat_map(serde_json::Map::keys)
            .map(String::as_str)
            .chain(
                operations["delete"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str),
            )
            .find(|name| name.to_ascii_lowercase().starts_with("x-forwarded-"));
        let Some(name) = changed else { return };
        let place = self
            .find(|tokens, at| {
                let token = &tokens[at];
                let bare = token.text.trim_start_matches(['-', '+', '?', '>']);
                bare.eq_ignore_ascii_case(name).then(|| 0..token.span.len())
            })
            .unwrap_or_else(|| self.nowhere());
        walk.forwarded.get_or_insert(place.with(name.to_owned()));
    }

    /// The number of an expression that refuses a body by its announced size.
    fn announced(&self, matches: &Value, handle: &Value) -> Option<Fact<u64>> {
        let refuses = handle.as_array()?.iter().any(|handler| {
            matches!(
                handler["handler"].as_str(),
                Some("error" | "static_response")
            )
        });
        if !refuses {
            return None;
        }
        let set = matches.as_array()?.first()?;
        let expression = set["expression"]
            .as_str()
            .or_else(|| set["expression"]["expr"].as_str())?;
        if !expression.to_ascii_lowercase().contains("content-length") {
            return None;
        }
        let (at, operator) = expression
            .rfind(">=")
            .map(|at| (at, ">="))
            .or_else(|| expression.rfind('>').map(|at| (at, ">")))?;
        let after = expression[at + operator.len()..].trim_start();
        let end = after
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(after.len());
        let digits = &after[..end];
        let bytes: u64 = digits.parse().ok()?;
        // Caddy's shorthand `{header.X}` is written out in what it adapted, so the number alone leads back.
        let place = self
            .find(|tokens, at| {
                let token = &tokens[at];
                if !token.text.to_ascii_lowercase().contains("content-length")
                    || token.text.len() != token.span.len()
                {
                    return None;
                }
                let start = token.text.rfind(digits)?;
                Some(start..start + digits.len())
            })
            .unwrap_or_else(|| self.literal(digits));
        Some(place.with(if operator == ">=" {
            bytes.saturating_sub(1)
        } else {
            bytes
        }))
    }
}

/// Whether a path of Matrix's own stands among the matchers.
fn names_matrix(sets: &Value) -> bool {
    sets.as_array().into_iter().flatten().any(|set| {
        set["path"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|path| path.starts_with("/_matrix"))
    })
}

/// Whether a route does nothing but pass requests on to a server.
fn only_passed_on(handlers: &Value) -> bool {
    let handlers = handlers.as_array().map_or(&[][..], Vec::as_slice);
    let proxy = |handler: &Value| handler["handler"] == "reverse_proxy";
    !handlers.is_empty() && handlers.iter().all(proxy)
}

/// Whether one of the sets matches; none of them is a match.
fn matches_any(sets: &Value, request: &Request<'_>) -> Maybe {
    let Some(sets) = sets.as_array().filter(|sets| !sets.is_empty()) else {
        return Maybe::Yes;
    };
    let mut result = Maybe::No;
    for set in sets {
        match matches_all(set, request) {
            Maybe::Yes => return Maybe::Yes,
            Maybe::Unknown => result = Maybe::Unknown,
            Maybe::No => {}
        }
    }
    result
}

fn matches_all(set: &Value, request: &Request<'_>) -> Maybe {
    let mut result = Maybe::Yes;
    for (name, value) in set.as_object().into_iter().flatten() {
        let texts = || {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
        };
        let one = |found: bool| if found { Maybe::Yes } else { Maybe::No };
        let matched = match name.as_str() {
            "host" => one(texts().any(|host| host_matches(host, request.host))),
            "path" => one(texts().any(|path| path_matches(path, request.path))),
            "method" => one(texts().any(|method| method == request.method)),
            "not" => match matches_any(value, request) {
                Maybe::Yes => Maybe::No,
                Maybe::No => Maybe::Yes,
                Maybe::Unknown => Maybe::Unknown,
            },
            _ => Maybe::Unknown,
        };
        match matched {
            Maybe::No => return Maybe::No,
            Maybe::Unknown => result = Maybe::Unknown,
            Maybe::Yes => {}
        }
    }
    result
}

fn host_matches(pattern: &str, host: &str) -> bool {
    let (mut pattern, mut host) = (pattern.split('.'), host.split('.'));
    loop {
        match (pattern.next(), host.next()) {
            (None, None) => return true,
            (Some(label), Some(own)) if label == "*" || label.eq_ignore_ascii_case(own) => {}
            _ => return false,
        }
    }
}

/// Caddy's path matcher: without regard to case; a star at an end is quick, within it matches like a file name.
fn path_matches(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.to_ascii_lowercase(), path.to_ascii_lowercase());
    if pattern == "*" {
        return true;
    }
    let inner = pattern.trim_start_matches('*').trim_end_matches('*');
    if !inner.contains('*') {
        return match (pattern.starts_with('*'), pattern.ends_with('*')) {
            (true, true) => path.contains(inner),
            (true, false) => path.ends_with(inner),
            (false, true) => path.starts_with(inner),
            (false, false) => path == pattern,
        };
    }
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::default()
    };
    glob::Pattern::new(&pattern).is_ok_and(|glob| glob.matches_with(&path, options))
}

/// A size as Caddy reads it (go-humanize): `20MB` is 20,000,000, `20MiB` is 20 × 1024 × 1024.
fn size_in_bytes(word: &str) -> Option<u64> {
    let split = word
        .find(|character: char| !(character.is_ascii_digit() || matches!(character, '.' | ',')))
        .unwrap_or(word.len());
    let number: f64 = word[..split].replace(',', "").parse().ok()?;
    let unit = word[split..].trim().to_ascii_lowercase();
    let (letter, base) = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('i')) {
        Some(letter) => (letter.to_owned(), 1024_f64),
        None => (unit.strip_suffix('b').unwrap_or(&unit).to_owned(), 1000.0),
    };
    let power = ["", "k", "m", "g", "t", "p", "e"]
        .iter()
        .position(|known| *known == letter)?;
    Some((number * base.powi(i32::try_from(power).ok()?)) as u64)
}
