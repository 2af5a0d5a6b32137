//! Servers to be loaded: each alone in a container of the lab on this machine's loopback, so that all stand on the same
//! ground and a cgroup tells what each costs.

use crate::guard::{Target, Word};
use crate::meter::Meter;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Which implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The product, as the kit configures it.
    Conduit,
    /// What it is compared with.
    Synapse,
}

impl Kind {
    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conduit => "conduit",
            Self::Synapse => "synapse",
        }
    }

    /// What it stores in, and when that is safe on the disk.
    pub fn tier(self) -> &'static str {
        match self {
            Self::Conduit => {
                "RocksDB, no fsync on commit; the kit's caches (128 MB block cache, modifier 0.5)"
            }
            Self::Synapse => {
                "SQLite in WAL mode, its defaults; caches of factor 0.5; rate limits off"
            }
        }
    }
}

/// Where servers come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The Conduit program.
    pub conduit: Option<PathBuf>,
    /// The image in which Conduit runs: a bare Debian.
    pub host_image: Option<String>,
    /// The image that has Synapse.
    pub synapse_image: Option<String>,
}

/// A server that runs; it goes with this.
#[derive(Debug)]
pub struct Server {
    /// Which one.
    pub kind: Kind,
    /// Where it answers.
    pub target: Target,
    /// What it costs.
    pub meter: Meter,
    /// From `docker run` to its first answer.
    pub started: Duration,
    // Before the data that it uses.
    container: Container,
    data: tempfile::TempDir,
}

/// The kit's configuration, as it stands in this repository.
const KIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/conduit/conduit.toml"
);
/// The name of the servers: there is no such domain.
pub const SERVER_NAME: &str = "load.test";

impl Server {
    /// Starts one with an empty database, and waits until it answers.
    ///
    /// # Errors
    /// What it needs is not there, or it does not come up; with its last words.
    pub async fn start(kind: Kind, source: &Source) -> Result<Self> {
        let data = tempfile::tempdir().context("make a directory for the server's data")?;
        Self::start_on(kind, source, data).await
    }

    /// Starts one on data that are there already.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_on(kind: Kind, source: &Source, data: tempfile::TempDir) -> Result<Self> {
        let port = free_port()?;
        let mut run = Command::new("docker");
        run.args([
            "run",
            "--detach",
            "--network",
            "host",
            "--label",
            "fleet.run=load",
            "--label",
        ]);
        run.arg(format!("fleet.owner={}", owner()?));
        run.arg("--volume")
            .arg(format!("{}:/data", data.path().display()));
        match kind {
            Kind::Conduit => conduit(&mut run, source, port)?,
            Kind::Synapse => synapse(&mut run, source, port, data.path())?,
        }
        let began = Instant::now();
        let container = docker(run)
            .await
            .with_context(|| format!("start {}", kind.name()))?;
        let container = Container(container);
        let target = Target::admit(&format!("http://127.0.0.1:{port}"), &Word::default()).await?;
        until_it_answers(&target, &container.0)
            .await
            .with_context(|| format!("wait for {}", kind.name()))?;
        let started = began.elapsed();
        let mut inspect = Command::new("docker");
        inspect.args(["inspect", "--format", "{{.State.Pid}}", &container.0]);
        let process = docker(inspect)
            .await?
            .parse()
            .context("read the server's process id")?;
        let meter = Meter::of(process, data.path())?;
        Ok(Self {
            kind,
            target,
            meter,
            started,
            container,
            data,
        })
    }
}

impl Server {
    /// Lets it end in peace, and hands over its data.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(self) -> Result<tempfile::TempDir> {
        let mut stop = Command::new("docker");
        stop.args(["stop", "--time", "60", &self.container.0]);
        docker(stop)
            .await
            .with_context(|| format!("stop {}", self.kind.name()))?;
        Ok(self.data)
    }
}

/// A container by its id, which is removed with this.
#[derive(Debug)]
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        let id = &self.0;
        let removed = std::process::Command::new("docker")
            .args(["rm", "--force", id])
            // What ends this process does not end its removal.
            .process_group(0)
            .output();
        let why = match removed {
            Ok(output) if output.status.success() => return,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("could not remove the container {id}: {why}; `cargo fleet clean` will");
    }
}

fn conduit(run: &mut Command, source: &Source, port: u16) -> Result<()> {
    let program = source
        .conduit
        .as_ref()
        .context("there is no Conduit here: give one with `--conduit` or `CONDUIT_BIN`")?;
    let image = source.host_image.as_ref().context(NO_IMAGE)?;
    run.arg("--volume")
        .arg(format!("{}:/usr/local/bin/conduit:ro", program.display()));
    run.arg("--volume")
        .arg(format!("{KIT}:/etc/conduit.toml:ro"));
    let settings = [
        ("CONFIG", "/etc/conduit.toml"),
        ("SERVER_NAME", SERVER_NAME),
        ("DATABASE_PATH", "/data"),
        ("ALLOW_REGISTRATION", "true"),
        ("ALLOW_FEDERATION", "false"),
        ("TRUSTED_SERVERS", "[]"),
    ];
    for (name, value) in settings {
        run.arg("--env").arg(format!("CONDUIT_{name}={value}"));
    }
    run.arg("--env").arg(format!("CONDUIT_PORT={port}"));
    run.args([image, "/usr/local/bin/conduit"]);
    Ok(())
}

fn synapse(run: &mut Command, source: &Source, port: u16, data: &Path) -> Result<()> {
    let image = source.synapse_image.as_ref().context(NO_IMAGE)?;
    let unlimited = serde_json::json!({"per_second": 1_000_000, "burst_count": 1_000_000});
    let config = serde_json::json!({
        "server_name": SERVER_NAME,
        "signing_key_path": "/data/signing.key",
        "media_store_path": "/data/media",
        "pid_file": "/data/pid",
        "database": {"name": "sqlite3", "args": {"database": "/data/homeserver.db"}},
        "listeners": [{
            "port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": false, "resources": [{"names": ["client"]}],
        }],
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "report_stats": false,
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        "bcrypt_rounds": 4,
        "rc_message": unlimited, "rc_registration": unlimited,
        "rc_login": {"address": unlimited, "account": unlimited, "failed_attempts": unlimited},
        "rc_joins": {"local": unlimited, "remote": unlimited}, "rc_joins_per_room": unlimited,
        "rc_invites": {"per_room": unlimited, "per_user": unlimited},
        "macaroon_secret_key": "load", "form_secret": "load",
    });
    std::fs::write(data.join("homeserver.yaml"), config.to_string())
        .context("write Synapse's configuration")?;
    run.args([
        "--env",
        "PYTHONPATH=/usr/local/lib/synapse",
        image,
        "sh",
        "-c",
    ]);
    let server = "python3 -m synapse.app.homeserver --config-path /data/homeserver.yaml";
    // On data that are there already, the keys are, too.
    run.arg(format!(
        "{{ test -e /data/signing.key || {server} --generate-keys; }} && exec {server}"
    ));
    Ok(())
}

const NO_IMAGE: &str = "the lab's images are not known here: run this as `cargo fleet load`, after `cargo fleet setup --yes`";

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener =
        std::net::TcpListener::bind("127.0.0.1:0").context("find a free port on loopback")?;
    Ok(listener
        .local_addr()
        .context("find a free port on loopback")?
        .port())
}

/// This process as `fleet clean` knows it: its number and when it started.
fn owner() -> Result<String> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read `/proc/self/stat`")?;
    let start = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19));
    let start = start.context("find in `/proc/self/stat` when this process started")?;
    Ok(format!("{}.{start}", std::process::id()))
}

async fn docker(mut command: Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .context("run `docker`: `cargo fleet setup --yes` installs it")?;
    if !output.status.success() {
        bail!(
            "docker refused: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// How long a server may take to come up on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

async fn until_it_answers(target: &Target, container: &str) -> Result<()> {
    let client = target.client()?;
    let url = target.url.join("/_matrix/client/versions")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = client
            .get(url.clone())
            .timeout(Duration::from_secs(5))
            .send()
            .await;
        let seen = match answer {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => format!("it answers {}", answer.status()),
            Err(error) => crate::open::explain(&error),
        };
        let mut inspect = Command::new("docker");
        inspect.args(["inspect", "--format", "{{.State.Running}}", container]);
        if docker(inspect).await? != "true" || Instant::now() > deadline {
            let mut logs = Command::new("docker");
            logs.args(["logs", "--tail", "15", container]);
            let logs = logs.output().await.context("run `docker logs`")?;
            let words = [logs.stdout, logs.stderr].concat();
            bail!(
                "it does not come up ({seen}); its last words:\n{}",
                String::from_utf8_lossy(&words).trim()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
