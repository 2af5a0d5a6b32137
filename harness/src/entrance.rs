//! An Entrance is the way by which one comes to a homeserver: its own port, the proxy over one of two protocols, or from
//! another server. What a client is told must not depend on it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entrance {
    /// The homeserver's own port on its host's loopback, which nobody but the proxy reaches in production. The lab
    /// carries the connection there byte by byte.
    Direct,
    /// Caddy over TLS, HTTP/1.1: bots, scripts and old clients.
    Http1,
    /// Caddy over TLS, HTTP/2: browsers and most clients.
    Http2,
    /// Another server, which finds the site by its name and signs what it asks. Not a client's way.
    Federation,
}

impl Entrance {
    /// Those of clients; the first is what the others are compared with.
    pub const ALL: [Self; 3] = [Self::Direct, Self::Http1, Self::Http2];

    /// What it is called in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Http1 => "Caddy HTTP/1.1",
            Self::Http2 => "Caddy HTTP/2",
            Self::Federation => "federation",
        }
    }

    /// Whether Caddy stands between.
    pub fn is_proxied(self) -> bool {
        self != Self::Direct
    }
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
