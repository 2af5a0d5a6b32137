//! A Host is a bare Debian machine with systemd as process 1 and a disk: a container that stands for the VPS.

use crate::docker::{Docker, Output};
use crate::failure::{Failure, OrBlame, Result};
use crate::image::Image;
use crate::paths;
use crate::world::Inner;
use bollard::models::PortBinding;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use testcontainers::core::{CgroupnsMode, ContainerPort, Mount};
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};
use tokio::sync::OnceCell;

/// Where the operator's checkout of this repository lies on a Host.
pub const CHECKOUT: &str = "/root/fleet";
/// Where the offline bundle lies on a Host.
pub const BUNDLE: &str = "/root/bundle";

/// Where a store of backups lies on a Host that was given one.
pub const STORE: &str = "/root/store";

/// Docker's own resolver asks the name servers of the machine outside, and what starts with it keeps asking it: so
/// systemd begins only when the lab's name server is known. `exec` keeps it process 1.
const WAIT_FOR_NAMES: &str = "until [ -e /etc/lab-names ]; do sleep 0.01; done; exec /sbin/init";

/// What a machine needs beyond being a Debian.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// A directory of this machine that the operator has brought as the offline bundle.
    pub bundle: Option<PathBuf>,
    /// A directory of this machine with a store of backups, which the Host can read and not change.
    pub store: Option<PathBuf>,
    /// The image to boot; a plain Host by default.
    pub synapse: bool,
    /// The size of the disk under `/opt` in mebibytes; as large as this machine's own by default.
    pub disk_mib: Option<u32>,
    /// Whether it may make and use loop devices, on which a disk can be cut off.
    pub loop_devices: bool,
}

/// What of the machine's devices a Host with [`Needs::loop_devices`] may make and use: `/dev/loop*` and `/dev/loop-control`.
const LOOP_DEVICES: [&str; 2] = ["b 7:* rwm", "c 10:237 rwm"];

/// The ports that a Host shows to this machine, on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// 80.
    pub http: u16,
    /// 443.
    pub https: u16,
    /// 8448.
    pub federation: u16,
    /// 3000: where Gitea answers.
    pub gitea: u16,
}

/// See the module.
pub struct Host {
    pub(crate) world: Arc<Inner>,
    container: String,
    /// The name whose zone points here.
    pub server_name: String,
    /// Its address in the lab.
    pub address: String,
    /// Its ports on this machine's loopback.
    pub ports: Ports,
    /// The container that disturbs its network, once a fault has asked for one.
    pub(crate) saboteur: OnceCell<String>,
}

impl Host {
    /// Makes it; it boots once it knows its name server, see [`Host::boot`].
    pub(crate) async fn make(world: Arc<Inner>, server_name: &str, needs: Needs) -> Result<Self> {
        let what = || format!("boot a host for `{server_name}`");
        let image = if needs.synapse {
            Image::Synapse
        } else {
            Image::Host
        };
        image.require(&world.docker).await?;
        let part = format!("host-{server_name}");
        // A machine that takes the name of another one has a disk of its own.
        let volume = format!("{}-{server_name}-{}", world.name, crate::world::next());
        let options = needs.disk_mib.map_or_else(HashMap::new, |mib| {
            HashMap::from([
                ("type".to_owned(), "tmpfs".to_owned()),
                ("device".to_owned(), "tmpfs".to_owned()),
                ("o".to_owned(), format!("size={mib}m,mode=755")),
            ])
        });
        world
            .docker
            .create_volume(
                &volume,
                world.labels.pairs(&part).into_iter().collect(),
                options,
            )
            .await?;
        let repository = std::fs::canonicalize(paths::repository()).or_harness(what)?;
        let ports = [80, 443, 8448, 3000];
        let machine = ports.iter().fold(
            GenericImage::new(image.repository(), &image.tag()),
            |machine, &port| machine.with_exposed_port(ContainerPort::Tcp(port)),
        );
        let mut request = machine
            .with_cmd(["sh", "-c", WAIT_FOR_NAMES])
            .with_network(&world.network)
            .with_hostname(format!("matrix.{server_name}"))
            .with_labels(world.labels.pairs(&part))
            .with_env_var("container", "docker")
            .with_cap_add("SYS_ADMIN")
            .with_security_opt("seccomp=unconfined")
            .with_mount(Mount::tmpfs_mount("/run"))
            .with_mount(Mount::tmpfs_mount("/run/lock"))
            .with_mount(Mount::bind_mount("/sys/fs/cgroup", "/sys/fs/cgroup"))
            // Everything under /opt on one volume: hard links and renames of directories work there, which they do
            // not across the layers of overlay2.
            .with_mount(Mount::volume_mount(&volume, "/opt"))
            .with_mount(read_only(
                &repository.join("deploy"),
                &format!("{CHECKOUT}/deploy"),
            ))
            .with_mount(read_only(
                &repository.join("fixtures"),
                &format!("{CHECKOUT}/fixtures"),
            ))
            // The whole trust of this machine is the lab's root.
            .with_copy_to(
                "/etc/ssl/certs/ca-certificates.crt",
                world.root.certificate.clone().into_bytes(),
            )
            .with_host_config_modifier(move |config| {
                // Docker would publish on all addresses; ours are for this machine only.
                config.publish_all_ports = Some(false);
                if needs.loop_devices {
                    config.device_cgroup_rules = Some(LOOP_DEVICES.map(str::to_owned).into());
                }
                config.port_bindings = Some(
                    ports
                        .iter()
                        .map(|port| {
                            let binding = PortBinding {
                                host_ip: Some("127.0.0.1".to_owned()),
                                host_port: Some(String::new()),
                            };
                            (format!("{port}/tcp"), Some(vec![binding]))
                        })
                        .collect(),
                );
            });
        if cgroup_mode() == CgroupMode::V2 {
            request = request.with_cgroupns_mode(CgroupnsMode::Host);
        }
        if let Some(bundle) = &needs.bundle {
            request = request.with_mount(read_only(bundle, BUNDLE));
        }
        if let Some(store) = &needs.store {
            request = request.with_mount(read_only(store, STORE));
        }
        let making = crate::docker::making().await;
        let container = request.start().await.or_environment(what)?;
        drop(making);
        let all = container.ports().await.or_environment(what)?;
        let published = |port: u16| {
            all.map_to_host_port_ipv4(ContainerPort::Tcp(port))
                .ok_or_else(|| {
                    Failure::environment(format!("{}: port {port} is not published", what()))
                })
        };
        let ports = Ports {
            http: published(80)?,
            https: published(443)?,
            federation: published(8448)?,
            gitea: published(3000)?,
        };
        let (id, address) = world.adopt(container, what).await?;
        Ok(Self {
            world,
            container: id,
            server_name: server_name.to_owned(),
            address,
            ports,
            saboteur: OnceCell::new(),
        })
    }

    /// Boots with this name server; returns once systemd says `running`. `resolv.conf` is written in place, because
    /// docker mounts the file.
    pub(crate) async fn boot(&self, name_server: &str) -> Result<()> {
        // Until the bus is there `systemctl` fails at once; then it waits by itself.
        let script = format!(
            "echo nameserver {name_server} > /etc/resolv.conf && : > /etc/lab-names || exit 1; \
             n=0; while :; do state=$(systemctl is-system-running --wait 2>&1); case $state in running) exit 0;; \
             degraded|maintenance|stopping) break;; esac; n=$((n+1)); [ $n -lt 300 ] || break; sleep 0.02; done; \
             echo \"systemd says: $state\"; systemctl --failed --no-legend; cat /proc/1/cgroup; exit 1"
        );
        let command = ["sh", "-c", &script];
        let run = self.exec(&command);
        let output = tokio::time::timeout(Duration::from_secs(60), run)
            .await
            .map_err(|_| {
                Failure::environment(format!(
                    "boot a host for `{}`: systemd is not up after 60 s",
                    self.server_name
                ))
            })??;
        if output.exit == 0 {
            return Ok(());
        }
        Err(Failure::environment(format!(
            "boot a host for `{}`: systemd does not reach `running`",
            self.server_name
        ))
        .last_seen(format!("{}{}", output.stdout, output.stderr))
        .because(format!(
            "cgroups of this machine: {:?}\n{}",
            cgroup_mode(),
            cgroup_mounts()
        )))
    }

    /// The container's id.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Runs a command as root and waits for its end.
    pub async fn exec(&self, command: &[&str]) -> Result<Output> {
        self.world
            .docker
            .exec(self.container(), command, None)
            .await
    }

    /// Runs a line of shell that must succeed, and hands back what it printed.
    pub async fn shell(&self, line: &str) -> Result<String> {
        self.exec(&["bash", "-c", line])
            .await?
            .success(&format!("run `{line}` on `{}`", self.server_name))
    }

    /// Runs a line of shell and hands back what came of it.
    pub async fn try_shell(&self, line: &str) -> Result<Output> {
        self.exec(&["bash", "-c", line]).await
    }

    /// Writes a file.
    pub async fn write(&self, path: &str, mode: &str, content: &[u8]) -> Result<()> {
        self.world
            .docker
            .write(self.container(), path, mode, content)
            .await
    }

    /// Copies a file of this machine, with its mode.
    pub async fn copy(&self, from: &Path, to: &str, mode: &str) -> Result<()> {
        let content =
            std::fs::read(from).or_environment(|| format!("read `{}`", from.display()))?;
        self.write(to, mode, &content).await
    }
}

/// Keeps what helps to understand a failure of a machine: the journal, the proxy's configuration, listeners, the tree.
pub async fn collect_evidence(docker: &Docker, container: &str, directory: &Path) -> Result<()> {
    let what = || format!("keep evidence in `{}`", directory.display());
    std::fs::create_dir_all(directory).or_environment(what)?;
    for (file, line) in [
        (
            "journal.log",
            "journalctl --no-pager --output=short-precise",
        ),
        (
            "conduit.log",
            "journalctl --no-pager --output=short-precise --unit=conduit.service",
        ),
        (
            "caddy.log",
            "journalctl --no-pager --output=short-precise --unit=caddy.service",
        ),
        (
            "units.txt",
            "systemctl --no-pager list-units --all; systemctl --no-pager --failed",
        ),
        ("listeners.txt", "ss -ltnp"),
        (
            "tree.txt",
            "ls -laR /opt/conduit | head -400; df -h /opt; head -50 /etc/caddy/Caddyfile /etc/caddy/conf.d/*",
        ),
    ] {
        let output = docker.exec(container, &["bash", "-c", line], None).await?;
        std::fs::write(directory.join(file), output.stdout + &output.stderr)
            .or_environment(what)?;
    }
    Ok(())
}

fn read_only(from: &Path, to: &str) -> Mount {
    Mount::bind_mount(from.to_string_lossy(), to)
        .with_access_mode(testcontainers::core::AccessMode::ReadOnly)
}

/// How the kernel of this machine groups processes. Probed, never assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupMode {
    /// One hierarchy per controller.
    V1,
    /// The same, with an empty unified hierarchy beside it for systemd.
    Hybrid,
    /// One unified hierarchy.
    V2,
}

/// Reads [`CgroupMode`] from the mount points, as systemd does (`cg_unified_cached`).
pub fn cgroup_mode() -> CgroupMode {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        CgroupMode::V2
    } else if Path::new("/sys/fs/cgroup/unified").exists() {
        CgroupMode::Hybrid
    } else {
        CgroupMode::V1
    }
}

fn cgroup_mounts() -> String {
    std::fs::read_to_string("/proc/self/mounts")
        .unwrap_or_default()
        .lines()
        .filter(|line| line.contains("cgroup"))
        .collect::<Vec<_>>()
        .join("\n")
}
