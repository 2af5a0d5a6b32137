//! A Site is what one server name serves: a Homeserver and a Proxy on a Host.

use crate::failure::{Failure, OrBlame, Result};
use crate::homeserver::{Binary, Server};
use crate::host::{BUNDLE, Host, Needs, Ports};
use crate::operator::Followed;
use crate::world::World;
use crate::{Blame, tools};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub struct Site {
    /// The machine.
    pub host: Host,
    /// The server name.
    pub name: String,
    /// What runs there, as it says itself.
    pub server: Server,
    http: reqwest::Client,
}

impl World {
    /// A bare host that has followed `install.md` with this program as its homeserver.
    pub async fn site(&self, server_name: &str, conduit: &Binary) -> Result<Site> {
        let bundle = tools::bundle(conduit).await?;
        let host = self
            .host_with(
                server_name,
                Needs {
                    bundle: Some(bundle),
                    ..Needs::default()
                },
            )
            .await?;
        self.install(host).await
    }

    /// Follows `install.md` on a host that has a bundle.
    pub async fn install(&self, host: Host) -> Result<Site> {
        host.follow(
            "install.md",
            &[("SERVER_NAME", &host.server_name), ("BUNDLE", BUNDLE)],
        )
        .await?;
        Site::on(self, host).await
    }

    /// A host that runs Synapse behind the same proxy: the partner in federation, and what claims about the protocol
    /// are proved on where no Conduit can be had. Its registration is open, on loopback only: Caddy answers 403.
    pub async fn synapse(&self, server_name: &str) -> Result<Site> {
        let bundle = tools::bundle(&tools::standin().await?).await?;
        let needs = Needs {
            synapse: true,
            bundle: Some(bundle),
            ..Needs::default()
        };
        let host = self.host_with(server_name, needs).await?;
        let step = self
            .recorder()
            .begin(format!("start Synapse on {server_name}"));
        host.write(
            "/opt/synapse.yaml",
            "644",
            synapse_yaml(server_name).as_bytes(),
        )
        .await?;
        host.write(
            "/etc/systemd/system/synapse.service",
            "644",
            SYNAPSE_UNIT.as_bytes(),
        )
        .await?;
        let caddyfile =
            std::fs::read_to_string(crate::paths::repository().join("deploy/conduit/Caddyfile"))
                .or_blame(Blame::Deployment, || {
                    "read `deploy/conduit/Caddyfile`".to_owned()
                })?
                .replace(crate::authority::PRODUCTION_NAME, server_name);
        host.write(
            "/etc/caddy/conf.d/synapse.caddy",
            "644",
            caddyfile.as_bytes(),
        )
        .await?;
        host.shell(
            "set -eu; mkdir -p /opt/synapse-data; echo 'import conf.d/*.caddy' >> /etc/caddy/Caddyfile; \
             systemctl daemon-reload; systemctl start synapse; systemctl reload caddy; \
             n=0; until curl -sf -o /dev/null http://127.0.0.1:6167/_matrix/client/versions; do n=$((n+1)); \
             [ $n -lt 600 ] && systemctl is-active --quiet synapse || { journalctl -u synapse -n 40 --no-pager; exit 1; }; \
             sleep 0.1; done",
        )
        .await?;
        step.done();
        Site::on(self, host).await
    }
}

/// Synapse listens where Conduit would, so that the Caddyfile is the same.
const SYNAPSE_UNIT: &str = "\
[Unit]
Description=Synapse
[Service]
Environment=PYTHONPATH=/usr/local/lib/synapse
Environment=SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ExecStart=/bin/sh -c 'python3 -m synapse.app.homeserver --config-path /opt/synapse.yaml --generate-keys && \
exec python3 -m synapse.app.homeserver --config-path /opt/synapse.yaml'
";

fn synapse_yaml(server_name: &str) -> String {
    // JSON is YAML, and cannot be mis-indented.
    let limit = serde_json::json!({"per_second": 1000, "burst_count": 1000});
    serde_json::json!({
        "server_name": server_name,
        "public_baseurl": format!("https://matrix.{server_name}/"),
        "signing_key_path": "/opt/synapse-data/signing.key",
        "media_store_path": "/opt/synapse-data/media",
        "pid_file": "/opt/synapse-data/pid",
        "database": {"name": "sqlite3", "args": {"database": "/opt/synapse-data/homeserver.db"}},
        "listeners": [{
            "port": 6167, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": false, "x_forwarded": true,
            "resources": [{"names": ["client", "federation"]}],
        }],
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "report_stats": false,
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        // The lab's addresses are of a range that Synapse takes for internal.
        "ip_range_blacklist": [],
        "federation_custom_ca_list": ["/etc/ssl/certs/ca-certificates.crt"],
        "rc_message": limit, "rc_registration": limit, "rc_login": {"address": limit, "account": limit, "failed_attempts": limit},
        // A partner that comes back is tried again within seconds, not within ten minutes.
        "federation": {
            "max_short_retry_delay": "1s", "max_long_retry_delay": "1s",
            "destination_min_retry_interval": "1s", "destination_max_retry_interval": "5s",
        },
        // Lab accounts are made by the dozen; their passwords protect nothing.
        "bcrypt_rounds": 4,
        "rc_joins": {"local": limit, "remote": limit}, "rc_invites": {"per_room": limit, "per_user": limit},
        "macaroon_secret_key": "lab", "form_secret": "lab", "registration_shared_secret": "lab",
    })
    .to_string()
}

impl Site {
    /// Meets the site: finds out what serves it.
    pub async fn on(world: &World, host: Host) -> Result<Self> {
        let http = client(world.root_certificate(), &[(&host.server_name, host.ports)])?;
        let mut site = Self {
            name: host.server_name.clone(),
            server: Server {
                name: "unknown".to_owned(),
                version: String::new(),
            },
            host,
            http,
        };
        site.server = site.ask_for_server().await?;
        Ok(site)
    }

    /// `https://matrix.NAME`: what clients are configured with.
    pub fn base_url(&self) -> String {
        format!("https://matrix.{}", self.name)
    }

    /// An HTTP client that reaches this site's names through the ports on loopback, trusts the lab's authority and
    /// nothing else, and refuses every other name.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Follows a runbook on the host, with `SERVER_NAME` given if the runbook has it.
    pub async fn follow(&self, runbook: &str, given: &[(&str, &str)]) -> Result<Followed> {
        let mut all = given.to_vec();
        let declared = crate::operator::read_runbook(&crate::paths::runbooks().join(runbook))?;
        if declared
            .variables()
            .iter()
            .any(|variable| variable.name == "SERVER_NAME")
        {
            all.push(("SERVER_NAME", &self.name));
        }
        self.host.follow(runbook, &all).await
    }

    /// What `/_matrix/federation/v1/version` says (Server-Server API, "Server implementation").
    pub async fn ask_for_server(&self) -> Result<Server> {
        let url = format!("{}/_matrix/federation/v1/version", self.base_url());
        let what = || format!("ask `{url}` what serves it");
        // Right after the proxy was told of the site, its certificate is still on its way.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let answer = loop {
            let failure = match self.http.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => break answer,
                Ok(answer) => {
                    Failure::product(what()).last_seen(format!("status {}", answer.status()))
                }
                Err(error) => Err::<(), _>(error)
                    .or_blame(Blame::Deployment, what)
                    .err()
                    .unwrap_or_else(|| Failure::product(what())),
            };
            if tokio::time::Instant::now() > deadline {
                return Err(failure
                    .hint("see the evidence: caddy.log tells whether a certificate was issued"));
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        };
        let body: serde_json::Value = answer.json().await.or_blame(Blame::Product, what)?;
        let text = |key: &str| body["server"][key].as_str().unwrap_or("unknown").to_owned();
        let name = text("name").to_lowercase();
        let version = text("version")
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        Ok(Server { name, version })
    }

    /// Loses the data as a disk would: the server is killed and its database gone.
    pub async fn lose_data(&self) -> Result<()> {
        let step = self
            .host
            .world
            .recorder
            .begin(format!("lose the data of {}", self.name));
        self.host
            .shell("systemctl kill --signal=KILL conduit.service; systemctl stop conduit.service; rm -rf /opt/conduit/data/* /opt/conduit/data/.[!.]*; test -z \"$(ls -A /opt/conduit/data)\"")
            .await?;
        step.done();
        Ok(())
    }
}

/// One crypto provider for the process, before the first TLS client is made. A second installation is the same one.
pub(crate) fn use_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client for the sites of one world.
pub fn client(root_certificate: &str, sites: &[(&str, Ports)]) -> Result<reqwest::Client> {
    builder(root_certificate, sites)?
        .build()
        .or_harness(|| "make an HTTP client for the lab".to_owned())
}

/// The same, before it is made: for a client that differs in one thing.
pub fn builder(root_certificate: &str, sites: &[(&str, Ports)]) -> Result<reqwest::ClientBuilder> {
    use_crypto();
    let what = || "make an HTTP client for the lab".to_owned();
    let mut names = BTreeMap::new();
    for &(name, ports) in sites {
        names.insert(name.to_owned(), ports.https);
        names.insert(format!("matrix.{name}"), ports.https);
    }
    let certificate =
        reqwest::Certificate::from_pem(root_certificate.as_bytes()).or_harness(what)?;
    Ok(reqwest::Client::builder()
        .tls_certs_only([certificate])
        .dns_resolver(Arc::new(LabNames { names }))
        // Whether another crate has reqwest unpack answers must not change what is asked.
        .no_gzip()
        .no_proxy()
        .connect_timeout(Duration::from_secs(10))
        .timeout(Duration::from_secs(120)))
}

/// Knows the lab's names and no others, so that no request of a scenario can leave the machine by its name.
struct LabNames {
    names: BTreeMap<String, u16>,
}

impl Resolve for LabNames {
    fn resolve(&self, name: Name) -> Resolving {
        let port = self.names.get(name.as_str()).copied();
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let port =
                port.ok_or_else(|| format!("`{name}` is not a name of this lab: refused"))?;
            let addresses: Addrs = Box::new(std::iter::once(SocketAddr::from((
                Ipv4Addr::LOCALHOST,
                port,
            ))));
            Ok(addresses)
        })
    }
}
