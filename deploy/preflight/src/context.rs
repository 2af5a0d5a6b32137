//! What all checks share: what was asked for, who answers, and what was found out once for all.

use crate::discovery::{Discovery, ServerName};
use crate::dns::Resolver;
use crate::federation::Door;
use crate::machine::Listener;
use crate::outside::NoDirectory;
use crate::web::{Https, Page};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The homeserver.
    pub server_name: ServerName,
    /// Also look at this machine, and take it for the host.
    pub host: bool,
    /// Nothing is served yet: do not look for it.
    pub before_install: bool,
    /// The certificate authority.
    pub acme_directory: String,
    /// What it is called in CAA records.
    pub caa_issuer: Option<String>,
    /// The addresses that the names must have.
    pub expect_addresses: Vec<IpAddr>,
    /// Who must be reachable, `HOST[:PORT]`; none: the certificate authority.
    pub outbound: Vec<String>,
    /// The tree of the kit.
    pub root: PathBuf,
    /// Mebibytes that an installation needs.
    pub min_free_mb: u64,
    /// Files that an installation needs.
    pub min_free_inodes: u64,
}

/// See the module.
pub struct Context {
    /// What was asked for.
    pub settings: Settings,
    /// Who knows names.
    pub resolver: Resolver,
    /// Who fetches pages.
    pub web: Https,
    pub(crate) discovery: OnceLock<Discovery>,
    pub(crate) doors: OnceLock<Vec<Door>>,
    pub(crate) directory: OnceLock<Result<Page, NoDirectory>>,
    pub(crate) listeners: OnceLock<Result<Vec<Listener>, String>>,
}

impl Context {
    /// Nothing is found out yet.
    pub fn new(settings: Settings, resolver: Resolver, web: Https) -> Self {
        Self {
            settings,
            resolver,
            web,
            discovery: OnceLock::new(),
            doors: OnceLock::new(),
            directory: OnceLock::new(),
            listeners: OnceLock::new(),
        }
    }
}
