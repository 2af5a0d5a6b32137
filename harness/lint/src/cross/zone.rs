//! What a zone file says (RFC 1035, section 5; CAA: RFC 8659; SRV: RFC 2782), with the place of every record.
//!
//! The readers of the field's libraries keep no places, so this one is ours. It reads the syntax of any zone, and the
//! data of the records that a Matrix site is found by.

use super::fact::Fact;
use crate::source::Source;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// A record, with the place of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its owner: lower case, absolute, without the last dot.
    pub owner: String,
    /// Its data.
    pub data: Data,
    /// The file.
    pub source: Source,
    /// Where the data stands.
    pub span: Range<usize>,
}

/// The data of a record, as far as it is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Another name of the same.
    Cname(String),
    /// Who may issue certificates.
    Caa {
        /// Such as `issue`, in lower case.
        tag: String,
        /// Such as `letsencrypt.org`.
        value: String,
    },
    /// Where a service is.
    Srv {
        /// The port.
        port: u16,
        /// The host; empty where there is no such service.
        target: String,
    },
    /// Where another zone begins, unless it is at the apex.
    Ns,
    /// Where this zone begins.
    Soa,
    /// Anything else.
    Other,
}

/// A zone.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its own name, with the place that says so.
    pub apex: Fact<String>,
    /// Its records, in the order of the file.
    pub records: Vec<Record>,
}

/// What keeps a name server from loading the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where.
    pub span: Range<usize>,
    /// Why, as a fragment.
    pub why: String,
}

/// How a name was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Its addresses; none where it has none.
    Addresses(Vec<&'a Record>),
    /// Another zone knows.
    Elsewhere,
}

impl Zone {
    /// Whether this zone, and not another, answers for a name.
    pub fn covers(&self, name: &str) -> bool {
        is_below(name, &self.apex.value)
            && !self.records.iter().any(|record| {
                record.data == Data::Ns
                    && record.owner != self.apex.value
                    && is_below(name, &record.owner)
            })
    }

    /// The records of a name; those of a wildcard if it has none and no name lies below it.
    pub fn at(&self, name: &str) -> Vec<&Record> {
        let named = |owner: &str| -> Vec<&Record> {
            self.records
                .iter()
                .filter(|record| record.owner == owner)
                .collect()
        };
        if self
            .records
            .iter()
            .any(|record| is_below(&record.owner, name))
        {
            return named(name);
        }
        let mut parent = name;
        while let Some((_, rest)) = parent.split_once('.') {
            if !is_below(rest, &self.apex.value) {
                break;
            }
            // The closest name that exists is the only one whose wildcard counts (RFC 4592, section 3.3.1).
            if self
                .records
                .iter()
                .any(|record| is_below(&record.owner, rest))
            {
                return named(&format!("*.{rest}"));
            }
            parent = rest;
        }
        Vec::new()
    }

    /// Looks the addresses of a name up, through other names if need be.
    pub fn addresses(&self, name: &str) -> Found<'_> {
        let mut name = name.to_ascii_lowercase();
        // As many steps as a resolver would take; a circle has no address.
        for _ in 0..8 {
            if !self.covers(&name) {
                return Found::Elsewhere;
            }
            let records = self.at(&name);
            let alias = records.iter().find_map(|record| match &record.data {
                Data::Cname(target) => Some(target.clone()),
                _ => None,
            });
            match alias {
                Some(target) => name = target,
                None => {
                    let address =
                        |record: &&Record| matches!(record.data, Data::A(_) | Data::Aaaa(_));
                    return Found::Addresses(records.into_iter().filter(address).collect());
                }
            }
        }
        Found::Addresses(Vec::new())
    }

    /// The CAA records that govern a name: its own, or those of the closest name above it within this zone.
    pub fn certificate_authorities(&self, name: &str) -> Vec<&Record> {
        let mut name = name.to_ascii_lowercase();
        for _ in 0..8 {
            let alias = self.at(&name).iter().find_map(|record| match &record.data {
                Data::Cname(target) => Some(target.clone()),
                _ => None,
            });
            match alias {
                Some(target) if self.covers(&target) => name = target,
                // Whoever owns the other name decides.
                Some(_) => return Vec::new(),
                None => break,
            }
        }
        let mut name = name.as_str();
        while is_below(name, &self.apex.value) {
            let found: Vec<_> = self
                .at(name)
                .into_iter()
                .filter(|record| matches!(record.data, Data::Caa { .. }))
                .collect();
            if !found.is_empty() {
                return found;
            }
            let Some((_, parent)) = name.split_once('.') else {
                break;
            };
            name = parent;
        }
        Vec::new()
    }
}

/// Whether a name is another or lies below it.
pub fn is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Reads a zone.
///
/// # Errors
/// The first thing that would keep a name server from loading it.
pub fn read(source: &Source) -> Result<Zone, Broken> {
    let mut reader = Reader {
        source,
        origin: origin_of_name(source.name())
            .map(|name| Fact::new(name, source, source.first_line())),
        owner: None,
        records: Vec::new(),
        apex: None,
    };
    for entry in entries(source.text())? {
        reader.entry(&entry)?;
    }
    let Some(apex) = reader.apex.or(reader.origin) else {
        return Err(Broken {
            span: source.first_line(),
            why: "it names no zone: neither `$ORIGIN` nor an SOA record with a full name"
                .to_owned(),
        });
    };
    for record in &reader.records {
        if !is_below(&record.owner, &apex.value) {
            return Err(Broken {
                span: record.span.clone(),
                why: format!("`{}` lies outside the zone `{}`", record.owner, apex.value),
            });
        }
    }
    for record in &reader.records {
        let alias = matches!(record.data, Data::Cname(_));
        let beside = |other: &Record| other.owner == record.owner && other.span != record.span;
        if alias && reader.records.iter().any(beside) {
            return Err(Broken {
                span: record.span.clone(),
                why: format!("`{}` has a CNAME and other records beside it", record.owner),
            });
        }
    }
    Ok(Zone {
        apex,
        records: reader.records,
    })
}

/// `timmy.foundation.zone` holds `timmy.foundation` by custom.
fn origin_of_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let name = file.strip_suffix(".zone")?;
    (name.contains('.') && !name.contains(char::is_whitespace)).then(|| name.to_ascii_lowercase())
}

/// A word of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    /// As it stands there, quotes taken off.
    text: String,
    span: Range<usize>,
    quoted: bool,
}

/// A logical line: parentheses join lines.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// Whether it begins with a blank, which repeats the owner of the record before.
    indented: bool,
    tokens: Vec<Token>,
}

fn entries(text: &str) -> Result<Vec<Entry>, Broken> {
    let mut entries = Vec::new();
    let mut entry = Entry::default();
    let mut open: Option<usize> = None;
    let mut characters = text.char_indices().peekable();
    let mut line_begins = true;
    let character_at = |at: usize, character: char| at..at + character.len_utf8();
    while let Some((at, character)) = characters.next() {
        let begins = std::mem::replace(&mut line_begins, false);
        match character {
            '\n' => {
                line_begins = true;
                if open.is_none() && !entry.tokens.is_empty() {
                    entries.push(std::mem::take(&mut entry));
                } else if open.is_none() {
                    entry = Entry::default();
                }
            }
            ';' => while characters.next_if(|(_, next)| *next != '\n').is_some() {},
            '(' if open.is_some() => {
                return Err(Broken {
                    span: character_at(at, character),
                    why: "a parenthesis within another".to_owned(),
                });
            }
            '(' => open = Some(at),
            ')' => {
                if open.take().is_none() {
                    return Err(Broken {
                        span: character_at(at, character),
                        why: "this parenthesis was never opened".to_owned(),
                    });
                }
            }
            blank if blank.is_whitespace() => {
                if begins && open.is_none() {
                    entry.indented = true;
                }
            }
            '"' => {
                let mut token = String::new();
                let mut end = None;
                while let Some((at, character)) = characters.next() {
                    match character {
                        '"' => {
                            end = Some(at);
                            break;
                        }
                        '\n' => break,
                        '\\' => {
                            token.push('\\');
                            if let Some((_, escaped)) =
                                characters.next_if(|(_, next)| *next != '\n')
                            {
                                token.push(escaped);
                            }
                        }
                        other => token.push(other),
                    }
                }
                let Some(end) = end else {
                    return Err(Broken {
                        span: character_at(at, character),
                        why: "this quote is not closed on its line".to_owned(),
                    });
                };
                entry.tokens.push(Token {
                    text: token,
                    span: at + 1..end,
                    quoted: true,
                });
            }
            first => {
                let mut token = String::from(first);
                let mut end = at + first.len_utf8();
                let mut escaped = first == '\\';
                while let Some((at, next)) = characters.next_if(|(_, next)| {
                    escaped && *next != '\n'
                        || !(next.is_whitespace() || matches!(next, ';' | '(' | ')' | '"'))
                }) {
                    token.push(next);
                    end = at + next.len_utf8();
                    escaped = !escaped && next == '\\';
                }
                entry.tokens.push(Token {
                    text: token,
                    span: at..end,
                    quoted: false,
                });
            }
        }
    }
    if let Some(at) = open {
        return Err(Broken {
            span: at..at + 1,
            why: "this parenthesis is never closed".to_owned(),
        });
    }
    if !entry.tokens.is_empty() {
        entries.push(entry);
    }
    Ok(entries)
}

struct Reader<'a> {
    source: &'a Source,
    origin: Option<Fact<String>>,
    owner: Option<String>,
    records: Vec<Record>,
    apex: Option<Fact<String>>,
}

impl Reader<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Broken> {
        let broken = |token: &Token, why: String| Broken {
            span: token.span.clone(),
            why,
        };
        let first = &entry.tokens[0];
        if !first.quoted && first.text.starts_with('$') && !entry.indented {
            let argument = entry.tokens.get(1);
            return match (first.text.to_ascii_uppercase().as_str(), argument) {
                ("$ORIGIN", Some(argument)) => {
                    let name = self.name(argument)?;
                    self.origin = Some(Fact::new(name, self.source, place(argument)));
                    Ok(())
                }
                ("$TTL", Some(argument)) if is_ttl(&argument.text) => Ok(()),
                ("$TTL", Some(argument)) => {
                    Err(broken(argument, format!("`{}` is no time", argument.text)))
                }
                ("$INCLUDE" | "$GENERATE", _) => Err(broken(
                    first,
                    format!(
                        "`{}` is not followed here; give its records written out in one file",
                        first.text
                    ),
                )),
                ("$ORIGIN" | "$TTL", None) => {
                    Err(broken(first, format!("`{}` of what?", first.text)))
                }
                _ => Err(broken(first, format!("unknown directive `{}`", first.text))),
            };
        }
        let mut rest = entry.tokens.iter();
        let owner = if entry.indented {
            self.owner
                .clone()
                .ok_or_else(|| broken(first, "the first record needs a name".to_owned()))?
        } else {
            rest.next();
            self.name(first)?
        };
        self.owner = Some(owner.clone());
        let mut kind = None;
        for token in rest.by_ref() {
            let word = token.text.to_ascii_uppercase();
            // Class and time may come in either order.
            if matches!(word.as_str(), "IN" | "CH" | "HS" | "CS") || is_ttl(&word) {
                continue;
            }
            kind = Some((word, token));
            break;
        }
        let Some((kind, token)) = kind else {
            return Err(broken(first, "a record needs a type and data".to_owned()));
        };
        let data: Vec<&Token> = rest.collect();
        let (Some(begin), Some(end)) = (data.first(), data.last()) else {
            return Err(broken(
                token,
                format!("a record of type `{kind}` needs data"),
            ));
        };
        let span = begin.span.start..end.span.end;
        let number = |at: usize| -> Result<u16, Broken> {
            let token: &Token = data.get(at).copied().unwrap_or(end);
            token
                .text
                .parse()
                .map_err(|_| broken(token, format!("`{}` is no number up to 65535", token.text)))
        };
        let count = |wanted: usize, shape: &str| {
            if data.len() == wanted {
                Ok(())
            } else {
                Err(Broken {
                    span: span.clone(),
                    why: format!("the data of `{kind}` is {shape}"),
                })
            }
        };
        let data =
            match kind.as_str() {
                "A" => {
                    count(1, "one IPv4 address")?;
                    Data::A(begin.text.parse().map_err(|_| {
                        broken(begin, format!("`{}` is no IPv4 address", begin.text))
                    })?)
                }
                "AAAA" => {
                    count(1, "one IPv6 address")?;
                    Data::Aaaa(begin.text.parse().map_err(|_| {
                        broken(begin, format!("`{}` is no IPv6 address", begin.text))
                    })?)
                }
                "CNAME" => {
                    count(1, "one name")?;
                    Data::Cname(self.name(begin)?)
                }
                "NS" => {
                    count(1, "one name")?;
                    self.name(begin)?;
                    Data::Ns
                }
                "SRV" => {
                    count(4, "priority, weight, port and target")?;
                    number(0)?;
                    number(1)?;
                    Data::Srv {
                        port: number(2)?,
                        target: self.name(data[3])?,
                    }
                }
                "CAA" => {
                    count(3, "flags, tag and value")?;
                    number(0)?;
                    Data::Caa {
                        tag: data[1].text.to_ascii_lowercase(),
                        value: data[2].text.clone(),
                    }
                }
                "SOA" => {
                    count(7, "two names and five numbers")?;
                    if let Some(before) = &self.apex {
                        return Err(broken(
                            token,
                            format!("a second SOA record; the zone is `{}`", before.value),
                        ));
                    }
                    // The origin's own text, where the record only points to it.
                    let place = match &self.origin {
                        Some(origin) if origin.value == owner => origin.span.clone(),
                        _ => place(first),
                    };
                    self.apex = Some(Fact::new(owner.clone(), self.source, place));
                    Data::Soa
                }
                known if is_type(known) => Data::Other,
                _ => return Err(broken(token, format!("unknown record type `{kind}`"))),
            };
        // Of the data that are compared, the part that says it.
        let span = match &data {
            Data::Caa { .. } => entry.tokens.last().map_or(span, |token| token.span.clone()),
            _ => span,
        };
        self.records.push(Record {
            owner,
            data,
            source: self.source.clone(),
            span,
        });
        Ok(())
    }

    fn name(&self, token: &Token) -> Result<String, Broken> {
        let text = token.text.to_ascii_lowercase();
        let broken = |why: String| {
            Err(Broken {
                span: token.span.clone(),
                why,
            })
        };
        if text == "." {
            return Ok(String::new());
        }
        let full = match text.strip_suffix('.') {
            Some(absolute) => absolute.to_owned(),
            None => {
                let Some(origin) = &self.origin else {
                    return broken(format!(
                        "`{}` is relative, and there is no `$ORIGIN`",
                        token.text
                    ));
                };
                match (text.as_str(), origin.value.as_str()) {
                    ("@", origin) => origin.to_owned(),
                    (name, "") => name.to_owned(),
                    (name, origin) => format!("{name}.{origin}"),
                }
            }
        };
        if full.is_empty() && text != "@"
            || full.len() > 253
            || full
                .split('.')
                .any(|label| label.len() > 63 || label.is_empty() && !full.is_empty())
        {
            return broken(format!("`{}` is no name", token.text));
        }
        Ok(full)
    }
}

/// Where a name stands, without the dot at its end.
fn place(token: &Token) -> Range<usize> {
    let dot = usize::from(token.text.ends_with('.') && token.text.len() > 1);
    token.span.start..token.span.end - dot
}

/// Seconds, or BIND's `1h30m`.
fn is_ttl(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word.starts_with(|first: char| first.is_ascii_digit())
        && word
            .chars()
            .all(|character| character.is_ascii_digit() || "smhdw".contains(character))
}

/// The types that name servers know by name (IANA's registry, those still in use), and RFC 3597's way to write any.
fn is_type(word: &str) -> bool {
    const KNOWN: &[&str] = &[
        "AFSDB",
        "APL",
        "CAA",
        "CDNSKEY",
        "CDS",
        "CERT",
        "CSYNC",
        "DHCID",
        "DNAME",
        "DNSKEY",
        "DS",
        "EUI48",
        "EUI64",
        "HINFO",
        "HIP",
        "HTTPS",
        "IPSECKEY",
        "KEY",
        "KX",
        "LOC",
        "MX",
        "NAPTR",
        "NSEC",
        "NSEC3",
        "NSEC3PARAM",
        "OPENPGPKEY",
        "PTR",
        "RP",
        "RRSIG",
        "SMIMEA",
        "SPF",
        "SSHFP",
        "SVCB",
        "TLSA",
        "TXT",
        "URI",
        "ZONEMD",
    ];
    KNOWN.contains(&word)
        || word
            .strip_prefix("TYPE")
            .is_some_and(|number| number.parse::<u16>().is_ok())
}
