//! Questions to name servers, with every way in which an answer can fail to come told apart.
//!
//! hickory's own client hides most of these differences behind a cache and a retry, and the C library's resolver all of
//! them. So the messages are hickory's, and the few lines that carry them are ours.

use crate::guard::Guard;
use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the tries of one question may take, one after the other. A lost datagram is asked again once.
const PATIENCE: [Duration; 2] = [Duration::from_millis(1000), Duration::from_millis(2000)];
/// A name server that let so many questions in a row go unanswered is not waited for again.
const GIVEN_UP_AFTER: u32 = 2;
/// Aliases that are followed before they are taken for a loop.
const ALIASES: usize = 8;

/// The kinds of records that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Who may issue certificates (RFC 8659).
    Caa,
    /// Where a service is (RFC 2782).
    Srv,
}

impl Kind {
    fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Caa => RecordType::CAA,
            Self::Srv => RecordType::SRV,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record_type().fmt(f)
    }
}

/// The data of one record. Names are without the final dot; the root is the empty name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Of an A or AAAA record.
    Address(IpAddr),
    /// Of a CAA record.
    Caa {
        /// Who does not understand the tag must not issue.
        critical: bool,
        /// `issue`, `issuewild`, `iodef`, or another.
        tag: String,
        /// As it stands in the record.
        value: String,
    },
    /// Of an SRV record.
    Srv {
        /// Lower first.
        priority: u16,
        /// The share among equals.
        weight: u16,
        /// Where the service listens.
        port: u16,
        /// On which host; empty: there decidedly is no such service.
        target: String,
    },
}

/// Records, and how they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// At least one.
    pub records: Vec<Data>,
    /// The aliases (CNAME) that led to them.
    pub aliases: Vec<String>,
    /// Answers that came before the right one and were none to our question.
    pub strays: u32,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// The addresses among the records.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.records
            .iter()
            .filter_map(|record| match record {
                Data::Address(address) => Some(*address),
                _ => None,
            })
            .collect()
    }
}

/// Why there are no records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// NXDOMAIN: the name does not exist, and nothing below it.
    NoName {
        /// The alias that led there, if one did.
        alias: Option<String>,
    },
    /// The name exists, but has no record of this kind.
    NoData {
        /// The alias that led there, if one did.
        alias: Option<String>,
    },
    /// SERVFAIL: the name server could not find out; the zone's servers do not answer, or its signatures are wrong.
    ServFail,
    /// REFUSED: the name server does not answer us, or not about this name.
    Refused,
    /// Another response code.
    Code(String),
    /// Nothing came in time. Nothing is known.
    Timeout,
    /// The name server cannot be reached.
    Unreachable(String),
    /// Only answers to other questions came: with another id, or about another name.
    Forged(u32),
    /// What came is no DNS message, or an endless chain of aliases.
    Malformed(String),
    /// We must not ask, see [`Guard`].
    Forbidden(String),
}

impl NoAnswer {
    /// Whether it is known that there is no such record, as opposed to nothing being known.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoName { .. } | Self::NoData { .. })
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName { alias: None } => f.write_str("no such name (NXDOMAIN)"),
            Self::NoName { alias: Some(alias) } => {
                write!(f, "an alias of `{alias}`, which does not exist (NXDOMAIN)")
            }
            Self::NoData { alias: None } => f.write_str("no such record (the name exists)"),
            Self::NoData { alias: Some(alias) } => {
                write!(f, "an alias of `{alias}`, which has no such record")
            }
            Self::ServFail => f.write_str("the name server failed to find out (SERVFAIL)"),
            Self::Refused => f.write_str("the name server refused to answer (REFUSED)"),
            Self::Code(code) => write!(f, "the name server answered {code}"),
            Self::Timeout => f.write_str("no answer in time from the name server"),
            Self::Unreachable(error) => write!(f, "the name server cannot be reached: {error}"),
            Self::Forged(count) => {
                write!(
                    f,
                    "{count} answers to other questions (wrong id or name), and none to ours"
                )
            }
            Self::Malformed(what) => write!(f, "the answer is no DNS answer: {what}"),
            Self::Forbidden(why) => f.write_str(why),
        }
    }
}

/// Whoever answers questions about names.
pub trait Names: Send + Sync {
    /// The records of a name, aliases followed.
    ///
    /// # Errors
    /// Why there are none.
    fn ask(&self, name: &str, kind: Kind) -> Result<Answer, NoAnswer>;

    /// All addresses of a name, IPv6 first as clients try them. One family's absence is no error while the other has
    /// an address.
    ///
    /// # Errors
    /// Why there is none: what is not known before what is known to be absent.
    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NoAnswer> {
        let (six, four) = (self.ask(name, Kind::Aaaa), self.ask(name, Kind::A));
        let all: Vec<IpAddr> = [&six, &four]
            .into_iter()
            .flatten()
            .flat_map(Answer::addresses)
            .collect();
        if !all.is_empty() {
            return Ok(all);
        }
        match (six, four) {
            (Err(six), Err(four)) if four.is_absence() && !six.is_absence() => Err(six),
            (_, Err(four)) => Err(four),
            (Err(six), Ok(_)) => Err(six),
            (Ok(_), Ok(_)) => Err(NoAnswer::NoData { alias: None }),
        }
    }
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    silent: AtomicU32,
}

type Kept = Arc<OnceLock<Result<Answer, NoAnswer>>>;

/// Asks real name servers; each question once, however many checks want to know.
pub struct Resolver {
    servers: Vec<Server>,
    guard: Guard,
    kept: Mutex<HashMap<(String, Kind), Kept>>,
}

impl Resolver {
    /// For these servers, asked in this order.
    pub fn new(servers: &[SocketAddr], guard: Guard) -> Self {
        Self {
            servers: servers
                .iter()
                .map(|&address| Server {
                    address,
                    silent: AtomicU32::new(0),
                })
                .collect(),
            guard,
            kept: Mutex::default(),
        }
    }

    /// The servers.
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    /// Asks one server once and afresh.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn ask_server(
        &self,
        server: SocketAddr,
        name: &str,
        kind: Kind,
        transport: Transport,
    ) -> Result<Answer, NoAnswer> {
        self.guard
            .allows_name(name)
            .and_then(|()| self.guard.allows_address(server.ip()))
            .map_err(NoAnswer::Forbidden)?;
        let began = Instant::now();
        let mut aliases = Vec::new();
        let mut strays = 0;
        let mut current = name.to_owned();
        for _ in 0..ALIASES {
            let (reply, seen) = exchange(server, &current, kind, transport)?;
            strays += seen;
            let (records, chain) = read(&reply, &current, kind);
            let alias = chain.last().or(aliases.last()).cloned();
            match reply.metadata.response_code {
                ResponseCode::NoError if !records.is_empty() => {
                    aliases.extend(chain);
                    return Ok(Answer {
                        records,
                        aliases,
                        strays,
                        took: began.elapsed(),
                    });
                }
                ResponseCode::NoError => match chain.last() {
                    // The server knows the alias alone: an authoritative one of another zone.
                    Some(next) => {
                        current.clone_from(next);
                        aliases.extend(chain);
                    }
                    None => return Err(NoAnswer::NoData { alias }),
                },
                ResponseCode::NXDomain => return Err(NoAnswer::NoName { alias }),
                ResponseCode::ServFail => return Err(NoAnswer::ServFail),
                ResponseCode::Refused => return Err(NoAnswer::Refused),
                code => return Err(NoAnswer::Code(code.to_string())),
            }
        }
        Err(NoAnswer::Malformed(format!(
            "`{name}` is an alias of an alias, more than {ALIASES} times"
        )))
    }

    fn ask_all(&self, name: &str, kind: Kind) -> Result<Answer, NoAnswer> {
        let mut last = NoAnswer::Unreachable("there is no name server to ask".to_owned());
        for server in &self.servers {
            if server.silent.load(Ordering::Relaxed) >= GIVEN_UP_AFTER {
                last = NoAnswer::Timeout;
                continue;
            }
            let outcome = self.ask_server(server.address, name, kind, Transport::Datagram);
            match outcome {
                Err(NoAnswer::Timeout) => {
                    server.silent.fetch_add(1, Ordering::Relaxed);
                    last = NoAnswer::Timeout;
                }
                // Another server may know better.
                Err(
                    error @ (NoAnswer::ServFail
                    | NoAnswer::Refused
                    | NoAnswer::Code(_)
                    | NoAnswer::Unreachable(_)
                    | NoAnswer::Forged(_)
                    | NoAnswer::Malformed(_)),
                ) => last = error,
                decided => {
                    server.silent.store(0, Ordering::Relaxed);
                    return decided;
                }
            }
        }
        Err(last)
    }
}

impl Names for Resolver {
    fn ask(&self, name: &str, kind: Kind) -> Result<Answer, NoAnswer> {
        let key = (name.to_ascii_lowercase(), kind);
        let kept = Arc::clone(
            self.kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key)
                .or_default(),
        );
        kept.get_or_init(|| self.ask_all(name, kind)).clone()
    }
}

/// How a question travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP, and TCP when the answer does not fit.
    Datagram,
    /// TCP alone.
    Stream,
}

fn exchange(
    server: SocketAddr,
    name: &str,
    kind: Kind,
    transport: Transport,
) -> Result<(Message, u32), NoAnswer> {
    let malformed = |error: &dyn fmt::Display| NoAnswer::Malformed(error.to_string());
    let mut question =
        Name::from_ascii(name).map_err(|error| malformed(&format!("`{name}`: {error}")))?;
    question.set_fqdn(true);
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(question, kind.record_type()));
    message.set_edns(Edns::new().set_max_payload(1232).clone());
    let bytes = message.to_vec().map_err(|error| malformed(&error))?;
    if transport == Transport::Datagram {
        let (reply, strays) = by_datagram(server, &message, &bytes)?;
        if !reply.metadata.truncation {
            return Ok((reply, strays));
        }
    }
    by_stream(server, &message, &bytes).map(|reply| (reply, 0))
}

/// Whether this is the answer to that question.
fn answers(reply: &Message, question: &Message) -> bool {
    reply.metadata.id == question.metadata.id
        && reply.metadata.message_type == MessageType::Response
        // REFUSED and FORMERR may come without the question.
        && (reply.queries.is_empty() || reply.queries == question.queries)
}

fn unreachable(error: &io::Error) -> NoAnswer {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => NoAnswer::Timeout,
        _ => NoAnswer::Unreachable(error.to_string()),
    }
}

fn by_datagram(
    server: SocketAddr,
    question: &Message,
    bytes: &[u8],
) -> Result<(Message, u32), NoAnswer> {
    let any: IpAddr = if server.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    // Connected: the kernel drops what comes from elsewhere.
    let socket = UdpSocket::bind((any, 0)).map_err(|error| unreachable(&error))?;
    socket
        .connect(server)
        .map_err(|error| unreachable(&error))?;
    let mut buffer = [0; 4096];
    let mut strays = 0;
    let mut malformed = None;
    for patience in PATIENCE {
        let deadline = Instant::now() + patience;
        socket.send(bytes).map_err(|error| unreachable(&error))?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket
                .set_read_timeout(Some(left))
                .map_err(|error| unreachable(&error))?;
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) => match unreachable(&error) {
                    NoAnswer::Timeout => break,
                    refused => return Err(refused),
                },
            };
            match Message::from_vec(&buffer[..length]) {
                Ok(reply) if answers(&reply, question) => return Ok((reply, strays)),
                Ok(_) => strays += 1,
                Err(error) => malformed = Some(error.to_string()),
            }
        }
        if strays > 0 || malformed.is_some() {
            break;
        }
    }
    Err(match malformed {
        Some(what) => NoAnswer::Malformed(what),
        None if strays > 0 => NoAnswer::Forged(strays),
        None => NoAnswer::Timeout,
    })
}

fn by_stream(server: SocketAddr, question: &Message, bytes: &[u8]) -> Result<Message, NoAnswer> {
    let read_all = || -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE[1])?;
        stream.set_read_timeout(Some(PATIENCE[1]))?;
        stream.set_write_timeout(Some(PATIENCE[1]))?;
        let length = u16::try_from(bytes.len())
            .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        stream.write_all(&[&length.to_be_bytes(), bytes].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply)?;
        Ok(reply)
    };
    let reply = read_all().map_err(|error| unreachable(&error))?;
    let reply =
        Message::from_vec(&reply).map_err(|error| NoAnswer::Malformed(error.to_string()))?;
    if answers(&reply, question) {
        Ok(reply)
    } else {
        Err(NoAnswer::Forged(1))
    }
}

fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// The records of the kind at the end of the chain of aliases that begins at `name`, and that chain.
fn read(reply: &Message, name: &str, kind: Kind) -> (Vec<Data>, Vec<String>) {
    let mut owner = name.trim_end_matches('.').to_ascii_lowercase();
    let mut chain = Vec::new();
    while chain.len() < ALIASES {
        let next = reply.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if text(&record.name) == owner => Some(text(&target.0)),
            _ => None,
        });
        let Some(next) = next else { break };
        owner.clone_from(&next);
        chain.push(next);
    }
    let records = reply
        .answers
        .iter()
        .filter(|record| text(&record.name) == owner)
        .filter_map(|record| match (&record.data, kind) {
            (RData::A(address), Kind::A) => Some(Data::Address(IpAddr::V4(address.0))),
            (RData::AAAA(address), Kind::Aaaa) => Some(Data::Address(IpAddr::V6(address.0))),
            (RData::CAA(caa), Kind::Caa) => Some(Data::Caa {
                critical: caa.issuer_critical,
                tag: caa.tag.to_ascii_lowercase(),
                value: String::from_utf8_lossy(&caa.value).into_owned(),
            }),
            (RData::SRV(srv), Kind::Srv) => Some(Data::Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: text(&srv.target),
            }),
            _ => None,
        })
        .collect();
    (records, chain)
}

/// The name servers of a `resolv.conf`, as resolv.conf(5) has them.
///
/// # Errors
/// It cannot be read, or names none.
pub fn read_resolv_conf(path: &Path) -> Result<Vec<SocketAddr>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then(|| words.next())?
        })
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .collect();
    if servers.is_empty() {
        return Err(format!("`{}` names no name server", path.display()));
    }
    Ok(servers)
}
