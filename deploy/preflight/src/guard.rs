//! What this program never touches by accident: the production host.
//!
//! The artifacts of this repository are written for production's name, so that a person who tries the program at a
//! desk would ask the public name server about production and knock at its door. Both need a word that says it is
//! meant, spoken on the host itself. In the lab the name is served by the lab's own name server; there it is free.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The server name that the artifacts under `deploy/` are written for.
pub const PRODUCTION_NAME: &str = "timmy.foundation";
/// The address of the production host: data in a zone file, never contacted without consent.
pub const PRODUCTION_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(143, 198, 27, 163));

/// What may be contacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    name: bool,
    address: bool,
}

impl Guard {
    /// Decides once for a run. Consent must come from the production host itself, see [`is_production_host`].
    pub fn new(consent: bool, resolvers: &[SocketAddr]) -> Self {
        let in_the_lab =
            !resolvers.is_empty() && resolvers.iter().all(|resolver| is_lab(resolver.ip()));
        Self {
            name: consent || in_the_lab,
            address: consent,
        }
    }

    /// May this name be asked for?
    ///
    /// # Errors
    /// The refusal, in words.
    pub fn allows_name(&self, name: &str) -> Result<(), String> {
        if self.name || !is_production_name(name) {
            return Ok(());
        }
        Err(format!(
            "`{name}` is production's name and the name server is not the lab's: refused"
        ))
    }

    /// May this address be contacted?
    ///
    /// # Errors
    /// The refusal, in words.
    pub fn allows_address(&self, address: IpAddr) -> Result<(), String> {
        if self.address || address.to_canonical() != PRODUCTION_ADDRESS {
            return Ok(());
        }
        Err(format!("{address} is the production host: refused"))
    }
}

/// Production's name, or one below it.
pub fn is_production_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == PRODUCTION_NAME
        || name
            .strip_suffix(PRODUCTION_NAME)
            .is_some_and(|rest| rest.ends_with('.'))
}

/// The lab's networks are cut out of 198.18.0.0/15, which is routed nowhere (RFC 2544).
pub fn is_lab(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V4(v4) if v4.octets()[0] == 198 && (v4.octets()[1] & 0xfe) == 18)
}

/// Whether this machine is the production host: its site is installed here, or its address is this machine's.
pub fn is_production_host(installed: Option<&str>) -> bool {
    installed == Some(PRODUCTION_NAME) || is_own(PRODUCTION_ADDRESS)
}

/// Whether this machine has the address: the kernel lets nobody bind to another's.
pub fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: &str = "198.18.0.2:53";
    const STUB: &str = "127.0.0.53:53";

    fn at(resolver: &str) -> Vec<SocketAddr> {
        vec![resolver.parse().expect("an address")]
    }

    #[test]
    fn production_is_refused_by_name_and_by_address_where_nobody_consents() {
        let guard = Guard::new(false, &at(STUB));
        for name in [
            "timmy.foundation",
            "matrix.timmy.foundation",
            "_matrix-fed._tcp.TIMMY.foundation.",
        ] {
            assert!(guard.allows_name(name).is_err(), "{name}");
        }
        for name in ["nottimmy.foundation", "vale.test", "foundation"] {
            assert!(guard.allows_name(name).is_ok(), "{name}");
        }
        assert!(guard.allows_address(PRODUCTION_ADDRESS).is_err());
        let mapped = "::ffff:143.198.27.163".parse().expect("an address");
        assert!(guard.allows_address(mapped).is_err());
        assert!(
            guard
                .allows_address("198.18.0.2".parse().expect("an address"))
                .is_ok()
        );
    }

    #[test]
    fn the_lab_frees_the_name_but_not_the_address() {
        let guard = Guard::new(false, &at(LAB));
        assert!(guard.allows_name("matrix.timmy.foundation").is_ok());
        assert!(guard.allows_address(PRODUCTION_ADDRESS).is_err());
        let mut both = at(LAB);
        both.extend(at(STUB));
        let guard = Guard::new(false, &both);
        assert!(guard.allows_name("timmy.foundation").is_err());
        assert!(
            Guard::new(false, &[])
                .allows_name("timmy.foundation")
                .is_err()
        );
    }

    #[test]
    fn consent_frees_both_and_this_machine_is_not_the_production_host() {
        let guard = Guard::new(true, &at(STUB));
        assert!(guard.allows_name("timmy.foundation").is_ok());
        assert!(guard.allows_address(PRODUCTION_ADDRESS).is_ok());
        assert!(!is_production_host(None));
        assert!(!is_production_host(Some("vale.test")));
        assert!(is_production_host(Some("timmy.foundation")));
        assert!(is_own(std::net::Ipv4Addr::LOCALHOST.into()));
    }
}
