//! What we ask of the docker daemon beyond what testcontainers exposes: attached shells, networks with an address
//! plan, volumes, and the removal of everything that carries a label.

use crate::failure::{Failure, OrBlame, Result};
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{
    ContainerSummary, Ipam, IpamConfig, Network, NetworkCreateRequest, Volume, VolumeCreateRequest,
};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The label of everything that this project makes; its value is the run's name.
pub const RUN_LABEL: &str = "fleet.run";
/// The label that names the world within a run.
pub const WORLD_LABEL: &str = "fleet.world";
/// The label that names the process which made it, as `pid@boot-id`, so that leftovers of dead processes are found.
pub const OWNER_LABEL: &str = "fleet.owner";

/// Held shared while docker makes something for this process, alone once nothing may be made any more. What docker
/// makes for somebody who has left in the meantime would be found by nobody.
static MAKING: RwLock<()> = RwLock::const_new(());

/// To be held while docker makes something; waits for ever once the process is about to end. Never hold two: the
/// second would wait for who waits for the first.
pub(crate) async fn making() -> RwLockReadGuard<'static, ()> {
    MAKING.read().await
}

/// Returns once docker makes nothing for this process any more, and holds what is to be made next; `None` if docker
/// is still at it after a time that a person would not wait for.
pub(crate) async fn no_more_making() -> Option<RwLockWriteGuard<'static, ()>> {
    tokio::time::timeout(Duration::from_secs(20), MAKING.write())
        .await
        .ok()
}

/// A connection to the docker daemon of this machine.
#[derive(Clone)]
pub struct Docker {
    api: bollard::Docker,
}

/// What a command that ran in a container came to.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit status.
    pub exit: i64,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output without the last line feed, if the command succeeded.
    pub fn success(self, what: &str) -> Result<String> {
        if self.exit == 0 {
            return Ok(self.stdout.trim_end().to_owned());
        }
        let text = format!("{}{}", self.stdout, self.stderr);
        Err(
            Failure::environment(format!("{what}: exit status {}", self.exit))
                .last_seen(text.trim()),
        )
    }
}

/// The two ends of a process that stays attached.
pub struct Attached {
    /// Its standard output; standard error is read with it.
    pub output: Pin<Box<dyn AsyncRead + Send>>,
    /// Its standard input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// Copies a file or directory between this machine and a container, which is written `CONTAINER:PATH`.
///
/// # Errors
/// The environment's, with the last words of `docker`.
pub async fn copy(from: &str, to: &str) -> Result<()> {
    let what = || format!("copy `{from}` to `{to}`");
    let output = tokio::process::Command::new("docker")
        .args(["cp", from, to])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .or_environment(what)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::environment(what()).last_seen(String::from_utf8_lossy(&output.stderr).trim()))
}

impl Docker {
    /// Connects to the daemon named by `DOCKER_HOST`, or to the local socket, and asks it for a sign of life.
    ///
    /// # Errors
    /// The environment's, with what to do about it, if no daemon answers or we may not speak to it.
    pub async fn connect() -> Result<Self> {
        let hint = "start it with `cargo fleet setup --yes` as root, or add yourself to the group `docker`";
        let api = bollard::Docker::connect_with_local_defaults()
            .or_environment(|| "find the docker daemon".to_owned())
            .map_err(|failure| failure.hint(hint))?;
        api.ping()
            .await
            .or_environment(|| "reach the docker daemon".to_owned())
            .map_err(|failure| failure.hint(hint))?;
        Ok(Self { api })
    }

    /// The underlying connection.
    pub fn api(&self) -> &bollard::Docker {
        &self.api
    }

    /// The daemon's version, for the head of a report.
    pub async fn version(&self) -> Result<String> {
        let version = self
            .api
            .version()
            .await
            .or_environment(|| "ask docker for its version".to_owned())?;
        Ok(version.version.unwrap_or_default())
    }

    /// Whether an image of that name and tag is here.
    pub async fn has_image(&self, name: &str) -> bool {
        self.api.inspect_image(name).await.is_ok()
    }

    /// Runs a command in a container as root and waits for its end.
    pub async fn exec(
        &self,
        container: &str,
        command: &[&str],
        stdin: Option<&[u8]>,
    ) -> Result<Output> {
        let what = || {
            format!(
                "run `{}` in container `{}`",
                command.join(" "),
                short(container)
            )
        };
        let (id, attached) = self.start(container, command, stdin.is_some()).await?;
        let StartExecResults::Attached {
            mut output,
            mut input,
        } = attached
        else {
            return Err(Failure::harness(format!(
                "{}: docker did not attach",
                what()
            )));
        };
        if let Some(bytes) = stdin {
            input.write_all(bytes).await.or_environment(what)?;
            input.shutdown().await.or_environment(what)?;
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = output.next().await {
            match chunk.or_environment(what)? {
                LogOutput::StdErr { message } => stderr.extend_from_slice(&message),
                other => stdout.extend_from_slice(&other.into_bytes()),
            }
        }
        let exit = self.exit_of(&id).await.or_environment(what)?;
        Ok(Output {
            exit,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    /// Starts a command in a container and leaves it attached.
    pub async fn attach(&self, container: &str, command: &[&str]) -> Result<Attached> {
        let (_, attached) = self.start(container, command, true).await?;
        let StartExecResults::Attached { output, input } = attached else {
            return Err(Failure::harness("attach a shell: docker did not attach"));
        };
        let output = output
            .map_ok(LogOutput::into_bytes)
            .map_err(std::io::Error::other);
        Ok(Attached {
            output: Box::pin(tokio_util::io::StreamReader::new(output)),
            input,
        })
    }

    async fn start(
        &self,
        container: &str,
        command: &[&str],
        stdin: bool,
    ) -> Result<(String, StartExecResults)> {
        let what = || {
            format!(
                "run `{}` in container `{}`",
                command.join(" "),
                short(container)
            )
        };
        let options = CreateExecOptions {
            attach_stdin: Some(stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..Default::default()
        };
        let created = self
            .api
            .create_exec(container, options)
            .await
            .or_environment(what)?;
        let started = self
            .api
            .start_exec(&created.id, None)
            .await
            .or_environment(what)?;
        Ok((created.id, started))
    }

    /// Docker closes the stream a moment before it records the exit status.
    async fn exit_of(&self, exec: &str) -> std::result::Result<i64, bollard::errors::Error> {
        loop {
            let state = self.api.inspect_exec(exec).await?;
            if let Some(exit) = state.exit_code
                && state.running != Some(true)
            {
                return Ok(exit);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Writes one file into a container, which need not run a shell.
    pub async fn write(
        &self,
        container: &str,
        path: &str,
        mode: &str,
        content: &[u8],
    ) -> Result<()> {
        let script = format!(
            "mkdir -p \"$(dirname {path})\" && (umask 077; cat > {path}) && chmod {mode} {path}"
        );
        self.exec(container, &["sh", "-c", &script], Some(content))
            .await?
            .success(&format!(
                "write `{path}` in container `{}`",
                short(container)
            ))?;
        Ok(())
    }

    /// Makes a closed bridge network on a free subnet of 198.18.0.0/15 (RFC 2544: never routed on the internet).
    ///
    /// Closed by construction: there is no masquerade, and the default gateway that containers are given is an
    /// address that nobody holds, so that a packet for anywhere else dies in the sender's own kernel. Ports published
    /// on loopback keep working because docker's proxy speaks to containers from the bridge's own address.
    /// The dead gateway uses the bridge driver's `DefaultGatewayIPv4` auxiliary address.
    pub async fn create_closed_network(
        &self,
        name: &str,
        labels: HashMap<String, String>,
    ) -> Result<Subnet> {
        let mut last = None;
        for attempt in 0..64_u16 {
            let subnet = Subnet::pick(name, attempt);
            let request = NetworkCreateRequest {
                name: name.to_owned(),
                driver: Some("bridge".to_owned()),
                ipam: Some(Ipam {
                    config: Some(vec![IpamConfig {
                        subnet: Some(format!("{}.0/24", subnet.prefix)),
                        gateway: Some(format!("{}.1", subnet.prefix)),
                        auxiliary_addresses: Some(HashMap::from([(
                            "DefaultGatewayIPv4".to_owned(),
                            subnet.dead_gateway(),
                        )])),
                        ..Default::default()
                    }]),
                    ..Default::default()
                }),
                options: Some(HashMap::from([(
                    "com.docker.network.bridge.enable_ip_masquerade".to_owned(),
                    "false".to_owned(),
                )])),
                labels: Some(labels.clone()),
                ..Default::default()
            };
            let making = making().await;
            let created = self.api.create_network(request).await;
            drop(making);
            match created {
                Ok(_) => return Ok(subnet),
                Err(error) if error.to_string().contains("overlaps") => last = Some(error),
                Err(error) => {
                    return Err(error).or_environment(|| format!("create network `{name}`"));
                }
            }
        }
        Err(Failure::environment(format!(
            "create network `{name}`: 64 subnets of 198.18.0.0/15 are taken"
        ))
        .because(last.map(|error| error.to_string()).unwrap_or_default())
        .hint("remove leftovers with `cargo fleet clean`"))
    }

    /// Makes a labelled volume.
    pub async fn create_volume(
        &self,
        name: &str,
        labels: HashMap<String, String>,
        options: HashMap<String, String>,
    ) -> Result<()> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels),
            driver_opts: (!options.is_empty()).then_some(options),
            ..Default::default()
        };
        let _making = making().await;
        self.api
            .create_volume(request)
            .await
            .or_environment(|| format!("create volume `{name}`"))?;
        Ok(())
    }

    /// Whether a container is there and runs.
    pub async fn runs(&self, container: &str) -> Result<bool> {
        let options = None::<bollard::query_parameters::InspectContainerOptions>;
        match self.api.inspect_container(container, options).await {
            Ok(seen) => Ok(seen.state.and_then(|state| state.running) == Some(true)),
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(false),
            Err(error) => Err(error).or_environment(|| format!("look at `{}`", short(container))),
        }
    }

    /// Removes these containers, and says how many there were.
    pub async fn remove_containers(&self, ids: &[String]) -> Result<usize> {
        let removals = ids.iter().map(|id| {
            let options = RemoveContainerOptionsBuilder::new()
                .force(true)
                .v(true)
                .build();
            async move { self.api.remove_container(id, Some(options)).await }
        });
        let mut removed = 0;
        for outcome in futures_util::future::join_all(removals).await {
            removed += gone(outcome).or_environment(|| "remove containers".to_owned())?;
        }
        Ok(removed)
    }

    /// Removes every container, network and volume with that label (`key` or `key=value`), and says how many.
    /// What somebody else removed meanwhile counts as removed.
    pub async fn remove_labelled(&self, label: &str) -> Result<Removed> {
        let what = || format!("remove everything labelled `{label}`");
        let mut removed = Removed::default();
        let containers = self.containers(label).await.or_environment(what)?;
        let ids: Vec<_> = containers
            .into_iter()
            .filter_map(|container| container.id)
            .collect();
        removed.containers = self.remove_containers(&ids).await?;
        for network in self.networks(label).await.or_environment(what)? {
            let id = network.id.unwrap_or_default();
            removed.networks += gone(self.api.remove_network(&id).await).or_environment(what)?;
        }
        for volume in self.volumes(label).await.or_environment(what)? {
            let options = RemoveVolumeOptionsBuilder::new().force(true).build();
            removed.volumes += gone(self.api.remove_volume(&volume.name, Some(options)).await)
                .or_environment(what)?;
        }
        Ok(removed)
    }

    /// The labels of every container, network and volume that carries `label`.
    pub async fn values_of(&self, label: &str) -> Result<Vec<HashMap<String, String>>> {
        let what = || format!("list what is labelled `{label}`");
        let containers = self.containers(label).await.or_environment(what)?;
        let networks = self.networks(label).await.or_environment(what)?;
        let volumes = self.volumes(label).await.or_environment(what)?;
        Ok(containers
            .into_iter()
            .filter_map(|container| container.labels)
            .chain(networks.into_iter().filter_map(|network| network.labels))
            .chain(volumes.into_iter().map(|volume| volume.labels))
            .collect())
    }

    async fn containers(&self, label: &str) -> Answer<Vec<ContainerSummary>> {
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&by(label))
            .build();
        self.api.list_containers(Some(options)).await
    }

    async fn networks(&self, label: &str) -> Answer<Vec<Network>> {
        let options = ListNetworksOptionsBuilder::new()
            .filters(&by(label))
            .build();
        self.api.list_networks(Some(options)).await
    }

    async fn volumes(&self, label: &str) -> Answer<Vec<Volume>> {
        let options = ListVolumesOptionsBuilder::new().filters(&by(label)).build();
        let listed = self.api.list_volumes(Some(options)).await?;
        Ok(listed.volumes.unwrap_or_default())
    }
}

/// What docker answers.
type Answer<T> = std::result::Result<T, bollard::errors::Error>;

/// The filter for what carries a label.
fn by(label: &str) -> HashMap<&'static str, Vec<&str>> {
    HashMap::from([("label", vec![label])])
}

/// How much was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Containers.
    pub containers: usize,
    /// Networks.
    pub networks: usize,
    /// Volumes.
    pub volumes: usize,
}

impl Removed {
    /// Whether there was nothing to remove.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Counts a removal; what is already gone, or being removed, is gone.
fn gone(outcome: Answer<()>) -> Answer<usize> {
    match outcome {
        Ok(()) => Ok(1),
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        }) => Ok(0),
        Err(error) => Err(error),
    }
}

/// The /24 of one world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    prefix: String,
}

impl Subnet {
    /// Spreads names over the 512 subnets; `attempt` moves on where one is taken.
    fn pick(name: &str, attempt: u16) -> Self {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (name, attempt).hash(&mut hasher);
        let number = (hasher.finish() % 512) as u16;
        Self {
            prefix: format!("198.{}.{}", 18 + number / 256, number % 256),
        }
    }

    /// The default gateway that containers are given: nobody answers there.
    pub fn dead_gateway(&self) -> String {
        format!("{}.254", self.prefix)
    }

    /// The subnet in CIDR notation.
    pub fn cidr(&self) -> String {
        format!("{}.0/24", self.prefix)
    }
}

/// The first twelve digits of a container's id, as docker prints it.
fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_stay_within_the_benchmarking_range() {
        for attempt in 0..600 {
            let cidr = Subnet::pick("fleet-x", attempt).cidr();
            assert!(
                cidr.starts_with("198.18.") || cidr.starts_with("198.19."),
                "{cidr}"
            );
        }
    }
}
