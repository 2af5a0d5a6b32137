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
