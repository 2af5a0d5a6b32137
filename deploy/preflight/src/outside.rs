//! What the host needs of the world: its certificate authority, a way out, and the time.

use crate::certificate::spell;
use crate::check::Finding;
use crate::context::Context;
use crate::dns::Names;
use crate::web::{NoPage, Page, Request, Web};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};
use url::Url;

/// Let's Encrypt, as the Caddyfile has it.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// What Let's Encrypt is called in CAA records, and the zone file under `deploy/dns`.
const DEFAULT_ISSUER: &str = "letsencrypt.org";
/// From here on federation begins to suffer.
const SKEW_WARN: Duration = Duration::from_secs(5);
/// From here on certificates and keys are misjudged.
const SKEW_FAILED: Duration = Duration::from_secs(60);

/// Why there is no directory.
#[derive(Clone, Debug)]
pub enum NoDirectory {
    /// It is known to be out of reach.
    Known(String),
    /// A name server did not say, or we may not ask.
    Unknown(String),
}

impl Context {
    /// The answer of the certificate authority, fetched once.
    fn directory(&self) -> &Result<Page, NoDirectory> {
        self.directory.get_or_init(|| {
            let text = &self.settings.acme_directory;
            let known = |why: String| NoDirectory::Known(format!("`{text}`: {why}"));
            let url = Url::parse(text).map_err(|error| known(error.to_string()))?;
            let (Some(host), true) = (url.host_str(), url.scheme() == "https") else {
                return Err(known("no HTTPS address".to_owned()));
            };
            let port = url.port().unwrap_or(443);
            let addresses = self.resolve(host)?;
            let mut failure = known("no address".to_owned());
            for address in addresses {
                let request = Request {
                    address: SocketAddr::new(address, port),
                    certificate_name: host.trim_matches(['[', ']']).to_owned(),
                    host: url
                        .port()
                        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
                    path: url[url::Position::BeforePath..url::Position::AfterQuery].to_owned(),
                    limit: 256 * 1024,
                };
                match self.web.get(&request) {
                    Ok(page) => return Ok(page),
                    Err(NoPage::Forbidden(why)) => failure = NoDirectory::Unknown(why),
                    Err(error) => failure = known(error.to_string()),
                }
            }
            Err(failure)
        })
    }

    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, NoDirectory> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        self.resolver.addresses(host).map_err(|error| {
            let why = format!("addresses of `{host}`: {error}");
            if error.is_absence() {
                NoDirectory::Known(why)
            } else {
                NoDirectory::Unknown(why)
            }
        })
    }

    /// What the authority is called in CAA records: as it says itself (RFC 8555, 7.1.1).
    pub fn issuers(&self) -> Vec<String> {
        if let Some(issuer) = &self.settings.caa_issuer {
            return vec![issuer.clone()];
        }
        let said: Vec<String> = self
            .directory()
            .as_ref()
            .ok()
            .and_then(|page| serde_json::from_slice::<serde_json::Value>(&page.body).ok())
            .and_then(|value| {
                let names = value.pointer("/meta/caaIdentities")?.as_array()?.clone();
                Some(
                    names
                        .iter()
                        .filter_map(|name| name.as_str().map(str::to_owned))
                        .collect(),
                )
            })
            .unwrap_or_default();
        if said.is_empty() {
            vec![DEFAULT_ISSUER.to_owned()]
        } else {
            said
        }
    }
}

/// The certificate authority answers as one.
pub fn acme(context: &Context) -> Option<Finding> {
    let expected = "an ACME directory";
    let hint = "without it no certificate is issued or renewed: look at the name, the firewall, and ACME_CA of caddy.service";
    let url = &context.settings.acme_directory;
    Some(match context.directory() {
        Err(NoDirectory::Known(why)) => Finding::failed(why, expected, hint),
        Err(NoDirectory::Unknown(why)) => Finding::unknown(why, hint),
        Ok(page) => {
            let directory = serde_json::from_slice::<serde_json::Value>(&page.body).ok();
            let lacks = ["newNonce", "newAccount", "newOrder"]
                .into_iter()
                .find(|key| {
                    !directory.as_ref().is_some_and(|value| {
                        value.get(key).is_some_and(serde_json::Value::is_string)
                    })
                });
            if let Some(refusal) = &page.certificate.refusal {
                Finding::failed(format!("`{url}`: {refusal}"), expected, hint)
            } else if page.status != 200 {
                Finding::failed(format!("`{url}`: status {}", page.status), expected, hint)
            } else if let Some(key) = lacks {
                Finding::failed(format!("`{url}` answers without `{key}`"), expected, hint)
            } else {
                Finding::ok(format!("`{url}` is an ACME directory"))
            }
        }
    })
}

/// The clock of this machine against the one of the certificate authority.
pub fn clock(context: &Context) -> Option<Finding> {
    let hint = "let systemd-timesyncd or chrony set the clock: `timedatectl`";
    let page = match context.directory() {
        Ok(page) => page,
        Err(NoDirectory::Known(why) | NoDirectory::Unknown(why)) => {
            return Some(Finding::unknown(
                format!("nobody to compare with: {why}"),
                hint,
            ));
        }
    };
    let Some(theirs) = page
        .header("date")
        .and_then(|date| httpdate::parse_http_date(date).ok())
    else {
        return Some(Finding::unknown(
            "the certificate authority tells no time",
            hint,
        ));
    };
    let seconds = |time: std::time::SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    };
    let (ours, theirs) = (seconds(page.arrived), seconds(theirs));
    let skew = Duration::from_secs(ours.abs_diff(theirs));
    let seen = format!(
        "{} {} the certificate authority's clock",
        spell(skew),
        if ours < theirs { "behind" } else { "ahead of" }
    );
    let expected = format!("at most {} s", SKEW_WARN.as_secs());
    Some(if skew > SKEW_FAILED {
        Finding::failed(seen, expected, hint)
    } else if skew > SKEW_WARN {
        Finding::warning(seen, expected, hint)
    } else {
        Finding::ok(seen)
    })
}

/// Connections to port 443 elsewhere come to stand.
pub fn outbound(context: &Context) -> Option<Finding> {
    let mut targets = context.settings.outbound.clone();
    if targets.is_empty() {
        let url = Url::parse(&context.settings.acme_directory).ok()?;
        targets.push(format!("{}:{}", url.host_str()?, url.port().unwrap_or(443)));
    }
    let hint = "other homeservers and the certificate authority are reached so: let TCP to port 443 pass outwards";
    let findings = targets.into_iter().map(|target| {
        let (host, port) = match target.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => match port.parse() {
                Ok(port) => (host.to_owned(), port),
                Err(_) => (target.clone(), 443),
            },
            _ => (target.clone(), 443),
        };
        let addresses = match context.resolve(&host) {
            Ok(addresses) => addresses,
            Err(NoDirectory::Known(why) | NoDirectory::Unknown(why)) => {
                return Finding::unknown(why, hint);
            }
        };
        let mut failure = Finding::unknown("no address", hint);
        for address in addresses {
            let socket = SocketAddr::new(address, port);
            match context.web.reach(socket) {
                Ok(_) => return Finding::ok(format!("{target} can be reached ({socket})")),
                Err(NoPage::Forbidden(why)) => failure = Finding::unknown(why, hint),
                Err(error) => {
                    failure = Finding::failed(format!("{target}: {error}"), "a connection", hint);
                }
            }
        }
        failure
    });
    Some(Finding::worst(findings))
}
