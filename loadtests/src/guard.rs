//! Where load may go. Loopback always; anything else only on its owner's word; production never, unless the owner's
//! file says otherwise. What a name leads to is looked up once and kept, so that it cannot lead elsewhere later.

use anyhow::{Context, Result, bail};
use reqwest::Url;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where the live site stands.
const PRODUCTION_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(143, 198, 27, 163));
/// Names, with all below them, that are production: ours, and the one that is everybody's.
const PRODUCTION_NAMES: [&str; 2] = ["timmy.foundation", "matrix.org"];

/// A place that load may be sent to.
#[derive(Clone, Debug)]
pub struct Target {
    /// As it was given.
    pub url: Url,
    /// What its name leads to.
    pub addresses: Vec<SocketAddr>,
}

/// What the owner of a target has said.
#[derive(Clone, Debug, Default)]
pub struct Word {
    /// `--i-am-the-owner`.
    pub owner: bool,
    /// `--owner-file`.
    pub file: Option<PathBuf>,
}

/// The owner's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnersFile {
    /// Hosts of production that may be loaded all the same.
    production_may_be_loaded: Vec<String>,
}

impl Target {
    /// Judges a target, after looking up its name.
    ///
    /// # Errors
    /// Not an address of a web server, a name that leads nowhere, or a place that load must not go to.
    pub async fn admit(text: &str, word: &Word) -> Result<Self> {
        let url = parse(text)?;
        let (host, port) = (host_of(&url)?, url.port_or_known_default().unwrap_or(80));
        // Judged by name before anybody is asked what it leads to.
        if production_name(&host) {
            owners_file_allows(&host, word)?;
        }
        let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), port))
            .await
            .with_context(|| format!("look up `{host}`: check the name of `--target`"))?
            .collect();
        Self::judge(url, addresses, word)
    }

    fn judge(url: Url, addresses: Vec<SocketAddr>, word: &Word) -> Result<Self> {
        let host = host_of(&url)?;
        if addresses.is_empty() {
            bail!("`{host}` leads nowhere: check the name of `--target`");
        }
        let addressed = |address: &SocketAddr| address.ip().to_canonical();
        let production = addresses
            .iter()
            .any(|address| addressed(address) == PRODUCTION_ADDRESS);
        if production || production_name(&host) {
            owners_file_allows(&host, word)?;
        }
        if !addresses
            .iter()
            .all(|address| addressed(address).is_loopback())
            && !word.owner
        {
            bail!(
                "`{host}` is not on this machine: load goes to others only with `--i-am-the-owner`, which says that it \
                 is yours and that you want this"
            );
        }
        Ok(Self { url, addresses })
    }

    /// A client that reaches this target and nothing else: its name is pinned, redirects are not followed, and no proxy
    /// stands between.
    ///
    /// # Errors
    /// Of the library, about the certificates of this machine.
    pub fn client(&self) -> Result<reqwest::Client> {
        // Another part of the program may have chosen already; either choice serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(usize::MAX)
            .tcp_nodelay(true);
        if let Some(host) = self.url.host_str() {
            builder = builder.resolve_to_addrs(host, &self.addresses);
        }
        builder.build().context("make an HTTP client")
    }
}

fn parse(text: &str) -> Result<Url> {
    let url = Url::parse(text)
        .with_context(|| format!("read `{text}`: give a target such as `http://127.0.0.1:6167`"))?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!(
            "`{text}` is not of `http` or `https`: give a target such as `http://127.0.0.1:6167`"
        );
    }
    Ok(url)
}

fn host_of(url: &Url) -> Result<String> {
    let host = url
        .host_str()
        .with_context(|| format!("`{url}` names no host"))?;
    Ok(host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .trim_end_matches('.')
        .to_ascii_lowercase())
}

fn production_name(host: &str) -> bool {
    PRODUCTION_NAMES.iter().any(|name| {
        host == *name
            || host
                .strip_suffix(name)
                .is_some_and(|below| below.ends_with('.'))
    })
}

fn owners_file_allows(host: &str, word: &Word) -> Result<()> {
    let refused = format!(
        "`{host}` is production: load on it is refused. Its owner may allow it with `--i-am-the-owner` and \
         `--owner-file FILE`, where FILE says `production_may_be_loaded = [\"{host}\"]`"
    );
    let Some(path) = word.file.as_deref().filter(|_| word.owner) else {
        bail!(refused)
    };
    if read(path)?
        .production_may_be_loaded
        .iter()
        .any(|allowed| allowed == host)
    {
        return Ok(());
    }
    bail!("{refused}; `{}` does not", path.display())
}

fn read(path: &Path) -> Result<OwnersFile> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the owner's file `{}`", path.display()))?;
    toml::from_str(&text).with_context(|| format!("read the owner's file `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(target: &str, address: &str, word: &Word) -> Result<Target> {
        Target::judge(
            parse(target)?,
            vec![SocketAddr::new(address.parse().expect("an address"), 80)],
            word,
        )
    }

    fn owner() -> Word {
        Word {
            owner: true,
            file: None,
        }
    }

    #[tokio::test]
    async fn loopback_is_admitted_without_a_word() {
        for target in [
            "http://127.0.0.1:6167",
            "http://127.8.9.1:1",
            "http://[::1]:6167",
            "http://localhost:6167/",
        ] {
            Target::admit(target, &Word::default())
                .await
                .unwrap_or_else(|refused| panic!("{target}: {refused:#}"));
        }
    }

    #[test]
    fn another_machine_needs_its_owners_word() {
        for (target, address) in [
            ("http://10.0.0.5", "10.0.0.5"),
            ("http://0.0.0.0", "0.0.0.0"),
            ("https://vale.example", "192.0.2.7"),
        ] {
            let refused = judged(target, address, &Word::default())
                .expect_err(target)
                .to_string();
            assert!(refused.contains("--i-am-the-owner"), "{refused}");
            judged(target, address, &owner())
                .unwrap_or_else(|refused| panic!("{target}: {refused:#}"));
        }
        // A name is judged by what it leads to, not by what it sounds like.
        assert!(judged("http://localhost", "192.0.2.7", &Word::default()).is_err());
    }

    #[test]
    fn production_is_refused_however_it_is_written_unless_the_owners_file_names_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("owner.toml");
        std::fs::write(
            &file,
            "production_may_be_loaded = [\"matrix.timmy.foundation\"]",
        )
        .expect("written");
        let with_file = |owner| Word {
            owner,
            file: Some(file.clone()),
        };
        for (target, address) in [
            ("http://143.198.27.163", "143.198.27.163"),
            ("http://2412125091", "143.198.27.163"),
            ("http://[::ffff:143.198.27.163]", "::ffff:143.198.27.163"),
            ("https://timmy.foundation", "127.0.0.1"),
            ("https://MATRIX.Timmy.Foundation.", "192.0.2.7"),
            ("https://user@matrix.org", "192.0.2.7"),
            ("https://alias.example", "143.198.27.163"),
        ] {
            let refused = judged(target, address, &owner())
                .expect_err(target)
                .to_string();
            assert!(refused.contains("is production"), "{target}: {refused}");
        }
        judged(
            "https://matrix.timmy.foundation",
            "143.198.27.163",
            &with_file(true),
        )
        .expect("the file names it");
        assert!(
            judged(
                "https://matrix.timmy.foundation",
                "143.198.27.163",
                &with_file(false)
            )
            .is_err()
        );
        assert!(
            judged(
                "https://timmy.foundation",
                "143.198.27.163",
                &with_file(true)
            )
            .is_err()
        );
        // The neighbour's name is not ours.
        judged("https://nottimmy.foundation", "192.0.2.7", &owner()).expect("another's");
    }

    #[tokio::test]
    async fn production_is_refused_before_its_name_is_looked_up() {
        let refused = Target::admit("https://matrix.org", &owner())
            .await
            .expect_err("refused")
            .to_string();
        assert!(refused.contains("is production"), "{refused}");
    }

    #[tokio::test]
    async fn what_is_no_target_is_refused_with_an_example() {
        for target in ["", "127.0.0.1:6167", "ftp://127.0.0.1"] {
            let refused = format!(
                "{:#}",
                Target::admit(target, &Word::default())
                    .await
                    .expect_err(target)
            );
            assert!(refused.contains("http://127.0.0.1:6167"), "{refused}");
        }
    }
}
