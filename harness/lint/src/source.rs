//! Files as they were read, and what they are.

use std::ops::Range;
use std::sync::Arc;

/// What a file is to a site; decides which rules are put to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Conduit's own configuration, TOML.
    Conduit,
    /// `CONDUIT_*` variables as systemd's `EnvironmentFile=` reads them.
    Environment,
    /// A systemd unit that runs Conduit.
    Unit,
    /// Caddy's configuration.
    Caddyfile,
    /// A DNS zone in master file format (RFC 1035, section 5).
    Zone,
    /// `/.well-known/matrix/server`.
    WellKnownServer,
    /// `/.well-known/matrix/client`.
    WellKnownClient,
    /// A ufw application profile: the ports that the firewall lets in.
    Firewall,
    /// The fleet's manifest, TOML.
    Manifest,
    /// Users that systemd makes (sysusers.d).
    Sysusers,
}

impl Kind {
    /// Every kind, with the word that the command line has for it.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("conduit", Self::Conduit),
        ("environment", Self::Environment),
        ("unit", Self::Unit),
        ("caddyfile", Self::Caddyfile),
        ("zone", Self::Zone),
        ("well-known-server", Self::WellKnownServer),
        ("well-known-client", Self::WellKnownClient),
        ("firewall", Self::Firewall),
        ("manifest", Self::Manifest),
        ("sysusers", Self::Sysusers),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(word, _)| word)
    }

    /// What a file is, by its name, or where the name says nothing, by what stands in it.
    pub fn detect(name: &str, text: &str) -> Option<Self> {
        Self::by_name(name).or_else(|| Self::by_text(text))
    }

    /// What a file is by its name alone.
    pub fn by_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let mut parts = name.rsplit('/');
        let file = parts.next().unwrap_or("");
        let folder = parts.next().unwrap_or("");
        let ends = |endings: &[&str]| endings.iter().any(|ending| file.ends_with(ending));
        if ends(&[".service"]) || (folder.ends_with(".service.d") && ends(&[".conf"])) {
            return Some(Self::Unit);
        }
        if ends(&[".sysusers"]) || folder == "sysusers.d" {
            return Some(Self::Sysusers);
        }
        if file.starts_with("caddyfile") || ends(&[".caddy", ".caddyfile"]) {
            return Some(Self::Caddyfile);
        }
        if ends(&[".zone"]) {
            return Some(Self::Zone);
        }
        if folder == "matrix" && file == "server" {
            return Some(Self::WellKnownServer);
        }
        if folder == "matrix" && file == "client" {
            return Some(Self::WellKnownClient);
        }
        if ends(&[".ufw"]) || file == "ufw.profile" || folder == "applications.d" {
            return Some(Self::Firewall);
        }
        if file == "env" || file == "environment" || ends(&[".env", ".environment"]) {
            return Some(Self::Environment);
        }
        if file == "fleet.toml" {
            return Some(Self::Manifest);
        }
        if file.contains("conduit") && ends(&[".toml", ".toml.new"]) {
            return Some(Self::Conduit);
        }
        None
    }

    fn by_text(text: &str) -> Option<Self> {
        let lines = || {
            text.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
        };
        let has = |wanted: &str| lines().any(|line| line == wanted);
        if has("[Service]") || has("[Unit]") {
            return Some(Self::Unit);
        }
        if lines().any(|line| line.starts_with("[[account") || line.starts_with("[[room")) {
            return Some(Self::Manifest);
        }
        let header = |name: &str| {
            lines().any(|line| {
                let inner = line.trim_start_matches('[').trim_start();
                line.starts_with('[')
                    && inner.starts_with(name)
                    && inner[name.len()..].trim_start().starts_with([']', '.'])
            })
        };
        if header("global")
            || header("default")
            || lines().any(|line| line.starts_with("server_name"))
        {
            return Some(Self::Conduit);
        }
        if lines().any(|line| {
            line.starts_with("$ORIGIN") || line.starts_with("$TTL") || line.contains(" IN SOA ")
        }) {
            return Some(Self::Zone);
        }
        if text.trim_start().starts_with('{') {
            if text.contains("\"m.server\"") {
                return Some(Self::WellKnownServer);
            }
            if text.contains("\"m.homeserver\"") {
                return Some(Self::WellKnownClient);
            }
        }
        if lines().any(|line| line.starts_with("ports=")) && text.contains("title=") {
            return Some(Self::Firewall);
        }
        if lines().any(|line| line.contains("reverse_proxy")) {
            return Some(Self::Caddyfile);
        }
        let mut any = false;
        let all = lines().all(|line| {
            any = true;
            line.split_once('=').is_some_and(|(name, _)| {
                !name.is_empty()
                    && name.bytes().all(|byte| {
                        byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
                    })
            })
        });
        (any && all).then_some(Self::Environment)
    }
}

/// A file as it was read. Cheap to clone; two are the same if they are the same reading.
#[derive(Clone, Debug)]
pub struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    kind: Kind,
    text: String,
}

impl Source {
    /// A text under the name that messages give it.
    pub fn new(name: impl Into<String>, kind: Kind, text: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            kind,
            text: text.into(),
        }))
    }

    /// The name that messages give it: its path as it was given, or `<stdin>`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Line and column of a byte offset, both counted from 1, the column in characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text()[..self.text().floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    /// The span of its first line, for what a file says without saying it anywhere.
    pub fn first_line(&self) -> Range<usize> {
        0..self.text().find(['\r', '\n']).unwrap_or(self.text().len())
    }

    /// The span of the first occurrence of `needle`, for readers that keep no places of their own.
    pub fn find(&self, needle: &str) -> Option<Range<usize>> {
        let start = self.text().find(needle)?;
        Some(start..start + needle.len())
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Source {}
