//! The lab's own name server and certificate authority, in one small container.
//!
//! `nsd` serves the zone file that the operator publishes, and an empty root zone, so that every other name in the
//! world does not exist. Caddy's ACME server issues the certificates, from a root that lives as long as the world.

use crate::docker::Docker;
use crate::failure::{Failure, OrBlame, Result};
use crate::image::Image;
use crate::world::Inner;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use testcontainers::core::Mount;
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};

/// The name under which Hosts reach the ACME server.
pub const ACME_HOST: &str = "acme.lab.test";
/// The name under which the lab serves files over TLS, as a release page would.
pub const DOWNLOADS_HOST: &str = "downloads.lab.test";

/// Written for Caddy 2.6: `pki` makes the world's root the ACME server's.
const CADDYFILE: &str = r"{
    admin off
    skip_install_trust
    pki {
        ca lab {
            name Lab
            root {
                cert /lab/root.crt
                key /lab/root.key
            }
        }
    }
}
acme.lab.test {
    tls /lab/server.crt /lab/server.key
    acme_server {
        ca lab
    }
}
downloads.lab.test {
    tls /lab/server.crt /lab/server.key
    root * /srv
    file_server
}
";

/// Stands in for the gateway that does not exist.
const WATCH: &str = include_str!("watch.py");

/// Everything that is not ours does not exist.
const ROOT_ZONE: &str = "\
$ORIGIN .
$TTL 60
@ IN SOA lab.test. hostmaster.lab.test. 1 3600 600 86400 1
@ IN NS lab.test.
";

/// The root of a world's trust, made anew for each world.
pub struct Root {
    /// The certificate, PEM.
    pub certificate: String,
    key: String,
    params: CertificateParams,
    /// The certificate of the lab's own servers, signed by the root, and its key, PEM. Made here and not by Caddy's
    /// internal issuer, which once failed at its start and would have tried again only after a minute.
    server: (String, String),
}

impl Root {
    /// Makes a key and a self-signed certificate, and one for the lab's own servers.
    pub fn generate(world: &str) -> Result<Self> {
        let what = || "make the lab's root certificate".to_owned();
        let key = KeyPair::generate().or_harness(what)?;
        let mut params = CertificateParams::new(Vec::new()).or_harness(what)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Lab root of {world}"));
        let certificate = params.self_signed(&key).or_harness(what)?.pem();
        let server_key = KeyPair::generate().or_harness(what)?;
        let names = vec![ACME_HOST.to_owned(), DOWNLOADS_HOST.to_owned()];
        let server = CertificateParams::new(names)
            .or_harness(what)?
            .signed_by(&server_key, &Issuer::from_params(&params, &key))
            .or_harness(what)?;
        Ok(Self {
            certificate,
            server: (server.pem(), server_key.serialize_pem()),
            key: key.serialize_pem(),
            params,
        })
    }

    /// Issues a certificate for a server that a scenario plays. A name may be an IP address.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Result<Issued> {
        let what = || format!("issue a certificate for `{}`", names.join("`, `"));
        let root_key = KeyPair::from_pem(&self.key).or_harness(what)?;
        let issuer = Issuer::from_params(&self.params, root_key);
        let key = KeyPair::generate().or_harness(what)?;
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).or_harness(what)?;
        // Caddy takes the subject for one of the names, and the first.
        params.distinguished_name = DistinguishedName::new();
        for name in names.iter().take(1) {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        match validity {
            Validity::Current => {}
            Validity::Expired => params.not_after = rcgen::date_time_ymd(2020, 1, 1),
            Validity::NotYet => params.not_before = rcgen::date_time_ymd(2090, 1, 1),
            Validity::Between(from, until) => {
                params.not_before = from.into();
                params.not_after = until.into();
            }
        }
        let certificate = params.signed_by(&key, &issuer).or_harness(what)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Today.
    Current,
    /// It was, until 2020.
    Expired,
    /// It will be, from 2090 on.
    NotYet,
    /// From then until then.
    Between(std::time::SystemTime, std::time::SystemTime),
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// A packet that was meant for outside of the lab.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Escape {
    /// Who sent it.
    pub from: String,
    /// Where it was meant to go.
    pub to: String,
    /// `tcp`, `udp`, `icmp`, or the number of another protocol.
    pub protocol: String,
    /// The destination port; 0 where the protocol has none.
    pub port: u16,
}

/// The container that serves names and certificates.
pub struct Authority {
    container: String,
    docker: Docker,
    /// Its address in the lab.
    pub address: String,
}

impl Authority {
    /// Starts it; it answers once zones are published.
    pub(crate) async fn start(world: &Inner) -> Result<Self> {
        let Inner {
            docker,
            network,
            subnet,
            root,
            labels,
            ..
        } = world;
        let what = || "start the lab's name server and certificate authority".to_owned();
        let image = Image::Host;
        // One directory: each copy into a container costs docker a process of its own.
        let files = tempfile::tempdir().or_environment(what)?;
        for (name, content) in [
            ("watch.py", WATCH),
            ("root.crt", &root.certificate),
            ("root.key", &root.key),
            ("server.crt", &root.server.0),
            ("server.key", &root.server.1),
            ("Caddyfile", CADDYFILE),
            ("root.zone", ROOT_ZONE),
        ] {
            std::fs::write(files.path().join(name), content).or_environment(what)?;
        }
        let making = crate::docker::making().await;
        let container = GenericImage::new(image.repository(), &image.tag())
            .with_cmd([
                "sh",
                "-c",
                &format!(
                    "exec > /lab/log 2>&1; python3 /lab/watch.py {} {} & until [ -e /lab/ready ]; do sleep 0.02; done; \
                 nsd -c /lab/nsd.conf; exec caddy run --config /lab/Caddyfile --adapter caddyfile",
                    subnet.dead_gateway(),
                    subnet.cidr()
                ),
            ])
            .with_network(network)
            .with_hostname("lab.test")
            .with_labels(labels.pairs("authority"))
            .with_env_var("XDG_DATA_HOME", "/lab/data")
            .with_mount(Mount::tmpfs_mount("/run"))
            // What comes here on its way out of the lab ends here.
            .with_host_config_modifier(|config| {
                config.sysctls = Some(HashMap::from([(
                    "net.ipv4.ip_forward".to_owned(),
                    "0".to_owned(),
                )]));
            })
            // What runs here trusts the lab's root and nothing else, as every machine of the lab.
            .with_env_var("SSL_CERT_FILE", "/lab/root.crt")
            .with_copy_to("/lab", files.path())
            .start()
            .await
            .or_environment(what)?;
        drop(making);
        let (id, address) = world.adopt(container, what).await?;
        Ok(Self {
            container: id,
            docker: docker.clone(),
            address,
        })
    }

    /// The container's id.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Serves these zones from now on: zone name to zone file. Returns once the name server answers for the fresh ones.
    pub async fn publish(&self, zones: &BTreeMap<String, String>, fresh: &[String]) -> Result<()> {
        let what = "publish the lab's zones";
        let mut all = zones.clone();
        all.insert("lab.test".to_owned(), lab_zone(&self.address));
        let mut config = String::from(
            "server:\n ip-address: 0.0.0.0\n username: \"\"\n chroot: \"\"\n zonesdir: /lab/zones\n \
             pidfile: /lab/nsd.pid\n xfrdfile: \"\"\n database: \"\"\n logfile: /lab/nsd.log\n \
             zonelistfile: /lab/zone.list\n\
             remote-control:\n control-enable: yes\n control-interface: /lab/nsd.ctl\n\
             zone:\n name: \".\"\n zonefile: ../root.zone\n",
        );
        let mut script = String::from("set -eu; cd /lab; mkdir -p zones srv;\n");
        for (name, text) in &all {
            config.push_str(&format!(
                "zone:\n name: \"{name}\"\n zonefile: {name}.zone\n"
            ));
            script.push_str(&format!(
                "cat > zones/{name}.zone <<'ZONE'\n{}\nZONE\n",
                text.trim_end()
            ));
        }
        script.push_str(&format!("cat > nsd.conf <<'CONF'\n{config}CONF\n"));
        script.push_str(&format!(
            "echo nameserver {} > /etc/resolv.conf\n",
            self.address
        ));
        // A running server is told to read its configuration and its zones again; the first time this starts it.
        script.push_str(
            "if [ -e ready ]; then nsd-control -c nsd.conf reconfig && nsd-control -c nsd.conf reload; else : > ready; fi\n",
        );
        let names = fresh.join(" ");
        script.push_str(&format!(
            "for zone in lab.test {names}; do n=0; until getent -s dns ahostsv4 \"$zone\" >/dev/null; do \
             n=$((n+1)); [ $n -lt 250 ] || {{ echo \"no answer for $zone\"; cat nsd.log; exit 1; }}; sleep 0.02; done; done\n"
        ));
        script.push_str(
            "n=0; until [ -e watching ] && curl -s -o /dev/null --max-time 5 https://acme.lab.test/acme/lab/directory; do \
             n=$((n+1)); [ $n -lt 200 ] || { echo no ACME server; ls watching; tail -n 20 log; exit 1; }; sleep 0.02; done\n",
        );
        self.docker
            .exec(self.container(), &["sh"], Some(script.as_bytes()))
            .await?
            .success(what)?;
        Ok(())
    }

    /// Every packet that somebody in the lab sent towards the outside. None of them left: see `watch.py`.
    pub async fn escapes(&self) -> Result<Vec<Escape>> {
        let text = self
            .docker
            .exec(self.container(), &["cat", "/lab/escapes.jsonl"], None)
            .await?
            .success("read what tried to leave the lab")?;
        text.lines()
            .map(|line| {
                serde_json::from_str(line)
                    .or_harness(|| format!("read the watcher's line `{line}`"))
            })
            .collect()
    }

    /// Forgets what tried to leave: for the scenario that tries it on purpose.
    pub async fn forget_escapes(&self) -> Result<()> {
        let forget = ["sh", "-c", ": > /lab/escapes.jsonl"];
        self.docker
            .exec(self.container(), &forget, None)
            .await?
            .success("forget what tried to leave")
            .map(|_| ())
    }

    /// Offers a file on `https://downloads.lab.test/NAME`.
    pub async fn offer(&self, name: &str, content: &[u8]) -> Result<String> {
        self.docker
            .write(self.container(), &format!("/srv/{name}"), "644", content)
            .await?;
        Ok(format!("https://{DOWNLOADS_HOST}/{name}"))
    }
}

/// The zone of the lab's own servers.
fn lab_zone(address: &str) -> String {
    format!(
        "$ORIGIN lab.test.\n$TTL 60\n@ IN SOA lab.test. hostmaster.lab.test. 1 3600 600 86400 1\n@ IN NS lab.test.\n\
         @ IN A {address}\nacme IN A {address}\ndownloads IN A {address}\n"
    )
}

/// The zone file that the operator of `timmy.foundation` publishes, for another name and address.
///
/// # Errors
/// The deployment's, if the published file does not name what it must.
pub fn zone_for(server_name: &str, address: &str) -> Result<String> {
    let path = crate::paths::repository().join("deploy/dns/timmy.foundation.zone");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::deployment(format!("read `{}`", path.display())).because(error)
    })?;
    if !text.contains(PRODUCTION_ADDRESS) {
        return Err(Failure::deployment(format!(
            "take the zone from `{}`: it has no record for {PRODUCTION_ADDRESS}",
            path.display()
        )));
    }
    Ok(text
        .replace(PRODUCTION_ADDRESS, address)
        .replace(PRODUCTION_NAME, server_name))
}

/// The server name that the artifacts under `deploy/` are written for.
pub const PRODUCTION_NAME: &str = "timmy.foundation";
/// The address of the production host: data in a zone file, never contacted.
pub const PRODUCTION_ADDRESS: &str = "143.198.27.163";
