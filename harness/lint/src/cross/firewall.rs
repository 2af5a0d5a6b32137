//! What a ufw application profile lets in: an INI file as Python's configparser reads it, whose `ports` are as in
//! ufw(8), "APPLICATION INTEGRATION".

use crate::source::Source;
use std::ops::{Range, RangeInclusive};

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As ufw writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Ports that are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The ports.
    pub ports: RangeInclusive<u16>,
    /// The protocol; both where none is written.
    pub protocol: Option<Protocol>,
    /// Where it stands.
    pub span: Range<usize>,
}

impl Opening {
    /// Whether it lets this in.
    pub fn lets_in(&self, port: u16, protocol: Protocol) -> bool {
        self.ports.contains(&port) && self.protocol.is_none_or(|only| only == protocol)
    }
}

/// A profile.
#[derive(Clone, Debug)]
pub struct Firewall {
    /// The file.
    pub source: Source,
    /// Where the list of ports stands, of the first section.
    pub span: Range<usize>,
    /// What it lets in, all sections together.
    pub openings: Vec<Opening>,
}

/// What ufw would refuse or leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where.
    pub span: Range<usize>,
    /// Why, as a fragment.
    pub why: String,
}

/// Reads a profile.
///
/// # Errors
/// The first thing for which ufw would not take it.
pub fn read(source: &Source) -> Result<Firewall, Broken> {
    let mut firewall = Firewall {
        source: source.clone(),
        span: source.first_line(),
        openings: Vec::new(),
    };
    let mut section: Option<(String, Range<usize>)> = None;
    let mut names: Vec<&str> = Vec::new();
    let mut keys: Vec<String> = Vec::new();
    let mut start = 0;
    let mut any_ports = false;
    for line in source.text().split_inclusive('\n') {
        let at = start;
        start += line.len();
        let line = line.trim_end();
        let span = at..at + line.len();
        let broken = |why: String| {
            Err(Broken {
                span: span.clone(),
                why,
            })
        };
        if line.trim_start().is_empty() || line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            return broken(
                "an indented line continues the one before; ufw's lists stand on one line"
                    .to_owned(),
            );
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            complete(section.as_ref(), &keys)?;
            if names.contains(&name) {
                return broken(format!("the profile `{name}` was there already"));
            }
            names.push(name);
            section = Some((name.to_owned(), span));
            keys.clear();
            continue;
        }
        let Some(separator) = line.find(['=', ':']) else {
            return broken("it is neither a section nor `key=value`".to_owned());
        };
        if section.is_none() {
            return broken("it stands before any section".to_owned());
        }
        let key = line[..separator].trim().to_ascii_lowercase();
        if keys.contains(&key) {
            return broken(format!("`{key}` was given already"));
        }
        if key == "ports" {
            let raw = &line[separator + 1..];
            let lead = raw.len() - raw.trim_start().len();
            let from = at + separator + 1 + lead;
            let value = raw.trim();
            if !any_ports {
                firewall.span = from..from + value.len();
                any_ports = true;
            }
            openings(value, from, &mut firewall.openings)?;
        }
        keys.push(key);
    }
    complete(section.as_ref(), &keys)?;
    if section.is_none() {
        return Err(Broken {
            span: source.first_line(),
            why: "it holds no profile: a `[Name]` with `title`, `description` and `ports`"
                .to_owned(),
        });
    }
    Ok(firewall)
}

/// ufw leaves a profile out that lacks one of the three.
fn complete(section: Option<&(String, Range<usize>)>, keys: &[String]) -> Result<(), Broken> {
    let Some((name, span)) = section else {
        return Ok(());
    };
    for needed in ["title", "description", "ports"] {
        if !keys.iter().any(|key| key == needed) {
            return Err(Broken {
                span: span.clone(),
                why: format!("the profile `{name}` has no `{needed}`, so ufw leaves it out"),
            });
        }
    }
    Ok(())
}

fn openings(value: &str, from: usize, openings: &mut Vec<Opening>) -> Result<(), Broken> {
    let mut at = from;
    for group in value.split('|') {
        let (ports, protocol) = match group.split_once('/') {
            None => (group, None),
            Some((ports, "tcp")) => (ports, Some(Protocol::Tcp)),
            Some((ports, "udp")) => (ports, Some(Protocol::Udp)),
            Some((ports, other)) => {
                let start = at + ports.len() + 1;
                return Err(Broken {
                    span: start..start + other.len(),
                    why: format!("`{other}` is neither `tcp` nor `udp`"),
                });
            }
        };
        if protocol.is_none() && ports.contains([',', ':']) {
            return Err(Broken {
                span: at..at + group.len(),
                why: format!("several ports need a protocol: `{ports}/tcp`"),
            });
        }
        let mut port_at = at;
        for port in ports.split(',') {
            let span = port_at..port_at + port.len();
            port_at += port.len() + 1;
            let (low, high) = port.split_once(':').unwrap_or((port, port));
            let range = match (low.parse::<u16>(), high.parse::<u16>()) {
                (Ok(low), Ok(high)) if 0 < low && low <= high => low..=high,
                _ => {
                    return Err(Broken {
                        span,
                        why: format!("`{port}` is no port"),
                    });
                }
            };
            openings.push(Opening {
                ports: range,
                protocol,
                span,
            });
        }
        at += group.len() + 1;
    }
    Ok(())
}
