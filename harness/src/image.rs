//! The images of the lab: a Debian machine with systemd, and the same with Synapse. Built once per recipe.
//!
//! Where an image registry answers, the base is pulled from it; where none does, it is made by `debootstrap` from the
//! Debian mirror that this machine itself uses. Either way the same recipe is applied, and its hash is the tag.

use crate::docker::Docker;
use crate::failure::{Failure, OrBlame, Result};
use crate::ui;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// The Debian release of a Host: what the operator's VPS runs.
const RELEASE: &str = "bookworm";
/// What a registry calls the base.
const BASE: &str = "debian:bookworm-slim";

/// What a Host has installed: systemd and what `install.md` asks an operator to install, plus `nsd` for the lab's own
/// name server and `python3` for Synapse.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "caddy",
    "curl",
    "dbus",
    "iproute2",
    "jq",
    "libstdc++6",
    "nsd",
    "openssl",
    "procps",
    "python3",
    "restic",
    "rsync",
    "strace",
    "systemd",
    "systemd-sysv",
    "util-linux",
    "zstd",
];

/// Applied to the root file system after the packages.
///
/// - Units that need hardware, a console or the network's clock only delay the boot of a container.
/// - An empty machine-id makes every container its own machine; the first boot then applies the presets, hence the
///   preset that enables nothing but Caddy, as Debian does on a VPS.
/// - `ACME_CA` is the one difference between the lab's Caddy and production's.
const CONFIGURE: &str = r#"set -eu
for unit in apt-daily-upgrade.timer apt-daily.timer console-getty.service dev-hugepages.mount dev-mqueue.mount \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer getty.target getty@tty1.service nsd.service \
    rsync.service sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    systemd-logind.service systemd-modules-load.service systemd-networkd.service systemd-remount-fs.service \
    systemd-resolved.service systemd-timesyncd.service systemd-udev-trigger.service systemd-udevd-control.socket \
    systemd-udevd-kernel.socket systemd-udevd.service systemd-update-utmp.service; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id
mkdir -p /etc/systemd/system-preset /etc/systemd/system/caddy.service.d /etc/systemd/journald.conf.d
printf 'enable caddy.service\ndisable *\n' > /etc/systemd/system-preset/00-lab.preset
printf '[Service]\nEnvironment=ACME_CA=https://acme.lab.test/acme/lab/directory\n' \
    > /etc/systemd/system/caddy.service.d/lab.conf
printf '[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n' > /etc/systemd/journald.conf.d/lab.conf
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/* /var/log/*.log /usr/share/doc /usr/share/locale
rm -rf /var/lib/caddy/.local /var/lib/caddy/.config
"#;

/// Which image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// A bare Debian machine.
    Host,
    /// The same with Synapse under `/usr/local/lib/synapse`.
    Synapse,
}

impl Image {
    /// All of them, each after what it is built on.
    pub const ALL: [Self; 2] = [Self::Host, Self::Synapse];

    /// Its name without the tag.
    pub fn repository(self) -> &'static str {
        match self {
            Self::Host => "fleet-host",
            Self::Synapse => "fleet-synapse",
        }
    }

    /// The hash of its recipe.
    pub fn tag(self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(RELEASE);
        hasher.update(PACKAGES.join(" "));
        hasher.update(CONFIGURE);
        if self == Self::Synapse {
            hasher.update(SYNAPSE_VERSION);
            hasher.update(SYNAPSE_PATH);
            hasher.update("compiled");
        }
        format!("{:x}", hasher.finalize())[..12].to_owned()
    }

    /// `repository:tag`.
    pub fn reference(self) -> String {
        format!("{}:{}", self.repository(), self.tag())
    }

    /// Whether it is here.
    pub async fn exists(self, docker: &Docker) -> bool {
        docker.has_image(&self.reference()).await
    }

    /// Fails with what to do if it is not here.
    pub async fn require(self, docker: &Docker) -> Result<()> {
        if self.exists(docker).await {
            return Ok(());
        }
        Err(
            Failure::environment(format!("find the image `{}`", self.reference()))
                .hint("build it with `cargo fleet setup --yes`"),
        )
    }

    /// Names the image in the failure to build it, and the way without a network.
    fn cannot_be_had(self, failure: Failure) -> Failure {
        let reference = self.reference();
        let mut named = Failure::new(failure.blame, format!("have the image `{reference}`"))
            .because(&failure.what);
        named.causes.extend(failure.causes);
        named.last_seen = failure.last_seen;
        named.hint(failure.hint.unwrap_or_else(|| {
            format!(
                "it is built from a Debian mirror and the Python registry; without a network, load it from a machine \
                 that has it: `docker save {reference} | ssh HERE docker load`"
            )
        }))
    }

    /// Builds it unless it is here.
    pub async fn ensure(self, docker: &Docker) -> Result<()> {
        if self.exists(docker).await {
            return Ok(());
        }
        let task = ui::Task::begin(1, format!("build image {}", self.reference()));
        let built = match self {
            Self::Host => build_host(&task).await,
            Self::Synapse => build_synapse(&task).await,
        };
        built.map_err(|failure| self.cannot_be_had(failure))?;
        self.require(docker).await?;
        task.end("built");
        Ok(())
    }
}

/// Synapse from the Python registry. Its wheels carry their binaries, so that nothing is compiled.
pub const SYNAPSE_VERSION: &str = "1.163.2";

/// Where it lies in the image: not under `/opt`, which is a Host's volume.
pub const SYNAPSE_PATH: &str = "/usr/local/lib/synapse";

async fn build_host(task: &ui::Task) -> Result<()> {
    if registry_has(BASE).await {
        pull_and_configure(task).await
    } else {
        debootstrap(task).await
    }
}

/// Whether a registry answers with that image within a time that a person does not mind waiting.
async fn registry_has(image: &str) -> bool {
    let pull = Command::new("docker")
        .args(["pull", "--quiet", image])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    matches!(tokio::time::timeout(Duration::from_secs(120), pull).await, Ok(Ok(status)) if status.success())
}

/// The container that this process builds an image in. It has no owner's label, which its image would inherit.
pub(crate) fn build_container() -> String {
    format!("fleet-build-{}", std::process::id())
}

async fn pull_and_configure(task: &ui::Task) -> Result<()> {
    let name = build_container();
    let script = format!(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update && apt-get install -y --no-install-recommends {} && \
         {CONFIGURE}",
        PACKAGES.join(" ")
    );
    let arguments = [
        "run",
        "--name",
        &name,
        "--label",
        "fleet.run=build",
        BASE,
        "sh",
        "-c",
        &script,
    ];
    let outcome = run(task, "docker", &arguments).await;
    let committed = match outcome {
        Ok(()) => {
            run(
                task,
                "docker",
                &[
                    "commit",
                    "--change",
                    "CMD [\"/sbin/init\"]",
                    &name,
                    &Image::Host.reference(),
                ],
            )
            .await
        }
        Err(failure) => Err(failure),
    };
    run(task, "docker", &["rm", "--force", &name]).await?;
    committed
}

async fn debootstrap(task: &ui::Task) -> Result<()> {
    let what = "build a Debian root with debootstrap";
    if !is_root() {
        return Err(Failure::environment(format!(
            "{what}: no image registry answers, and debootstrap needs root"
        ))
        .hint("run `cargo fleet setup --yes` once as root; afterwards nothing needs root"));
    }
    let mirror = mirror().await?;
    let directory = tempfile::Builder::new()
        .prefix("fleet-root-")
        .tempdir()
        .or_environment(|| format!("{what}: make a temporary directory"))?;
    let root = directory.path().join("root");
    let root_text = root.to_string_lossy().into_owned();
    let include = format!("--include={}", PACKAGES.join(","));
    run(
        task,
        "debootstrap",
        &["--variant=minbase", &include, RELEASE, &root_text, &mirror],
    )
    .await?;
    run(task, "chroot", &[&root_text, "sh", "-c", CONFIGURE]).await?;
    import(&root, &Image::Host.reference()).await
}

/// The Debian mirror that this machine's own apt uses; `FLEET_DEBIAN_MIRROR` overrides it.
async fn mirror() -> Result<String> {
    if let Ok(given) = std::env::var("FLEET_DEBIAN_MIRROR") {
        return Ok(given);
    }
    let what = || "ask apt for this machine's Debian mirror".to_owned();
    let listed = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(SITE) $(RELEASE)",
            "Created-By: Packages",
        ])
        .output()
        .await
        .or_environment(what)?;
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(_, release)| *release == RELEASE)
        .map(|(site, _)| site.to_owned())
        .ok_or_else(|| {
            Failure::environment(what())
                .last_seen(format!("apt knows no archive of `{RELEASE}`"))
                .hint("set `FLEET_DEBIAN_MIRROR` to the address of a Debian mirror")
        })
}

/// Pipes a root file system into `docker import`.
async fn import(root: &Path, reference: &str) -> Result<()> {
    let what = || format!("import the image `{reference}`");
    let mut tar = Command::new("tar")
        .arg("--directory")
        .arg(root)
        .args(["--create", "--numeric-owner", "."])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .or_environment(what)?;
    let stream: Stdio = tar
        .stdout
        .take()
        .ok_or_else(|| Failure::harness(what()))?
        .try_into()
        .or_environment(what)?;
    let imported = Command::new("docker")
        .args(["import", "--change", "CMD [\"/sbin/init\"]", "-", reference])
        .stdin(stream)
        .output()
        .await
        .or_environment(what)?;
    let packed = tar.wait().await.or_environment(what)?;
    if imported.status.success() && packed.success() {
        return Ok(());
    }
    Err(Failure::environment(what()).last_seen(String::from_utf8_lossy(&imported.stderr).trim()))
}

/// Takes a package of the Python registry, and what it needs, into a directory. The interpreter is Debian 12's, whatever
/// this machine's own is: hence the explicit version and platforms. Nothing is compiled.
pub(crate) async fn python_package(
    task: &ui::Task,
    requirement: &str,
    target: &Path,
) -> Result<()> {
    let platform = |glibc: &str| format!("--platform={glibc}_{}", std::env::consts::ARCH);
    let (new, old, older) = (
        platform("manylinux_2_28"),
        platform("manylinux_2_17"),
        platform("manylinux2014"),
    );
    let arguments = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--only-binary=:all:",
        "--python-version=3.11",
        "--implementation=cp",
        "--abi=cp311",
        "--abi=abi3",
        "--abi=none",
        &new,
        &old,
        &older,
        "--target",
        &target.to_string_lossy(),
        requirement,
    ];
    run(task, "python3", &arguments).await
}

async fn build_synapse(task: &ui::Task) -> Result<()> {
    let what = "build the Synapse image";
    let directory = tempfile::Builder::new()
        .prefix("fleet-synapse-")
        .tempdir()
        .or_environment(|| format!("{what}: make a temporary directory"))?;
    let target = directory.path().join("synapse");
    let target_text = target.to_string_lossy().into_owned();
    python_package(task, &format!("matrix-synapse=={SYNAPSE_VERSION}"), &target).await?;
    let name = build_container();
    let reference = Image::Host.reference();
    // Compiled here, by the interpreter that will run it: otherwise every start would do it again.
    let compile = ["python3", "-m", "compileall", "-q", "-j2", SYNAPSE_PATH];
    let create = [
        "create",
        "--name",
        &name,
        "--label",
        "fleet.run=build",
        "--network",
        "none",
        &reference,
    ];
    run(task, "docker", &[&create[..], &compile[..]].concat()).await?;
    let copied = async {
        run(
            task,
            "docker",
            &["cp", &target_text, &format!("{name}:{SYNAPSE_PATH}")],
        )
        .await?;
        run(task, "docker", &["start", "--attach", &name]).await?;
        let change = "CMD [\"/sbin/init\"]";
        run(
            task,
            "docker",
            &[
                "commit",
                "--change",
                change,
                &name,
                &Image::Synapse.reference(),
            ],
        )
        .await
    }
    .await;
    run(task, "docker", &["rm", "--force", &name]).await?;
    copied
}

/// Runs a program, shows its last line as it goes, and keeps the tail of its output for the failure.
async fn run(task: &ui::Task, program: &str, arguments: &[&str]) -> Result<()> {
    let what = || {
        format!(
            "run `{program} {}`",
            arguments.first().copied().unwrap_or_default()
        )
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .or_environment(what)
        .map_err(|failure| failure.hint("`cargo fleet setup --yes` installs what is missing"))?;
    let mut tail = std::collections::VecDeque::new();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(Failure::harness(what()));
    };
    let mut out = BufReader::new(stdout).lines();
    let mut err = BufReader::new(stderr).lines();
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let line = tokio::select! {
            line = out.next_line(), if out_open => { let line = line.ok().flatten(); out_open = line.is_some(); line }
            line = err.next_line(), if err_open => { let line = line.ok().flatten(); err_open = line.is_some(); line }
        };
        if let Some(line) = line {
            task.note(&line);
            if tail.len() == 12 {
                tail.pop_front();
            }
            tail.push_back(line);
        }
    }
    let status = child.wait().await.or_environment(what)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::environment(format!("{}: {status}", what())).last_seen(Vec::from(tail).join("\n")))
}

/// Whether we are root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self")
        .is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}
