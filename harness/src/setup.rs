//! Is this machine fit to rehearse, and what would it take: asked by `doctor`, done by `setup`.

use crate::docker::Docker;
use crate::failure::{Failure, OrBlame, Result};
use crate::homeserver::{fetch_conduit, find_conduit};
use crate::host::cgroup_mode;
use crate::image::{Image, is_root};
use crate::{paths, tools, ui};
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Something that a rehearsal needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Debian packages of this machine.
    Packages,
    /// A running docker daemon that we may speak to.
    Daemon,
    /// An image of the lab.
    Image(Image),
    /// The programs of ours that run on a Host, and the Caddy that the linter asks.
    Tools,
}

/// Programs and the Debian package that has each. `debootstrap` and `python3 -m pip` are needed only to build images.
const PROGRAMS: [(&str, &str); 2] = [("docker", "docker.io"), ("tar", "tar")];
const IMAGE_PROGRAMS: [(&str, &str); 2] = [("debootstrap", "debootstrap"), ("pip3", "python3-pip")];

/// Brings the machine to where it can rehearse. Says first what it would install or start, and asks unless `yes`.
///
/// # Errors
/// The environment's: refused by the person, no permission, no network, or what a build said.
pub async fn setup(yes: bool) -> Result<()> {
    let missing = missing().await;
    if missing.is_empty() {
        return Ok(());
    }
    ui::say("this machine needs, to rehearse:");
    for &need in &missing {
        ui::say(format!("  - {}", describe(need).await));
    }
    if !yes && !agreed().await? {
        return Err(Failure::environment("set this machine up: not agreed to")
            .hint("pass `--yes`, or do the above by hand"));
    }
    if missing.contains(&Need::Daemon) {
        may_start_a_daemon()?;
    }
    for need in missing {
        meet(need).await?;
    }
    Ok(())
}

async fn missing() -> Vec<Need> {
    let mut missing = Vec::new();
    if !packages().await.is_empty() {
        missing.push(Need::Packages);
    }
    match Docker::connect().await {
        Ok(docker) => {
            for image in Image::ALL {
                if !image.exists(&docker).await {
                    missing.push(Need::Image(image));
                }
            }
        }
        Err(_) => {
            missing.push(Need::Daemon);
            missing.extend(Image::ALL.map(Need::Image));
        }
    }
    // Whether they are up to date only cargo knows; it is quick where they are, and so is the copy of Caddy.
    missing.push(Need::Tools);
    if missing == [Need::Tools]
        && tools::ensure().await.is_ok()
        && tools::caddy().await.is_ok()
        && tools::has_rocksdict()
    {
        missing.clear();
    }
    missing
}

async fn packages() -> Vec<&'static str> {
    let mut packages: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(_, package)| package)
        .collect();
    let images_here = match Docker::connect().await {
        Ok(docker) => Image::Host.exists(&docker).await && Image::Synapse.exists(&docker).await,
        Err(_) => false,
    };
    if !images_here {
        packages.extend(
            IMAGE_PROGRAMS
                .into_iter()
                .filter(|(program, _)| !on_path(program))
                .map(|(_, package)| package),
        );
    }
    // The client can be here without the daemon.
    if !packages.contains(&"docker.io") && Docker::connect().await.is_err() && !on_path("dockerd") {
        packages.push("docker.io");
    }
    packages
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(program).is_file())
}

async fn describe(need: Need) -> String {
    match need {
        Need::Packages => format!(
            "the Debian packages {} (apt-get, as root)",
            packages().await.join(", ")
        ),
        Need::Daemon => "a running docker daemon (started and left running, as root)".to_owned(),
        Need::Image(image) => format!(
            "the docker image {} (built from Debian and Python packages)",
            image.reference()
        ),
        Need::Tools => "the programs of this repository that run on a host (compiled), the Caddy of one (copied), and a reader of RocksDB (a Python package)".to_owned(),
    }
}

/// Asked in a thread of its own, so that Ctrl-C is heard meanwhile.
async fn agreed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("go on? [y/N] ");
    let what = || "ask on the terminal".to_owned();
    std::io::stderr().flush().or_environment(what)?;
    let reading = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut answer)
            .map(|_| answer)
    });
    let answer = reading.await.or_harness(what)?.or_environment(what)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn meet(need: Need) -> Result<()> {
    match need {
        Need::Packages => install(&packages().await).await,
        Need::Daemon => start_daemon().await,
        Need::Image(image) => image.ensure(&Docker::connect().await?).await,
        Need::Tools => {
            tools::ensure().await?;
            tools::caddy().await?;
            // One scenario needs it; a machine without a network can do without.
            if let Err(failure) = tools::rocksdict().await {
                ui::say(format!("databases of Conduit cannot be read: {failure}"));
            }
            Ok(())
        }
    }
}

async fn install(packages: &[&str]) -> Result<()> {
    let what = || format!("install {}", packages.join(", "));
    if !is_root() {
        return Err(
            Failure::environment(format!("{}: this needs root", what())).hint(format!(
                "run `sudo apt-get install {}`, or this command as root",
                packages.join(" ")
            )),
        );
    }
    let task = ui::Task::begin(1, what());
    for arguments in [
        vec!["update"],
        [&["install", "--yes", "--no-install-recommends"], packages].concat(),
    ] {
        let output = Command::new("apt-get")
            .args(&arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .or_environment(what)
            .map_err(|failure| {
                failure.hint("this machine has no apt: install the packages' equivalents by hand")
            })?;
        if !output.status.success() {
            return Err(
                Failure::environment(format!("run `apt-get {}`", arguments.join(" ")))
                    .last_seen(String::from_utf8_lossy(&output.stderr).trim())
                    .hint("is the network up, and does apt know a mirror?"),
            );
        }
    }
    task.end("done");
    Ok(())
}

/// A daemon that we start is not the one that `DOCKER_HOST` names.
fn may_start_a_daemon() -> Result<()> {
    match std::env::var("DOCKER_HOST") {
        Ok(named) if !named.is_empty() && named != "unix:///var/run/docker.sock" => {
            let what = format!(
                "reach the docker daemon: none answers at `{named}`, which DOCKER_HOST names"
            );
            Err(Failure::environment(what)
                .hint("start that one, or unset DOCKER_HOST to use this machine's own"))
        }
        _ => Ok(()),
    }
}

/// Starts the daemon the way this machine starts services, or as a process of its own where no systemd runs.
async fn start_daemon() -> Result<()> {
    let what = || "start the docker daemon".to_owned();
    if !is_root() {
        return Err(Failure::environment(format!("{}: this needs root", what()))
            .hint("run `sudo systemctl start docker`, and add yourself to the group `docker`"));
    }
    let task = ui::Task::begin(1, what());
    let log = paths::runs().join("dockerd.log");
    if Path::new("/run/systemd/system").exists() {
        Command::new("systemctl")
            .args(["start", "docker"])
            .status()
            .await
            .or_environment(what)?;
    } else {
        std::fs::create_dir_all(paths::runs()).or_environment(what)?;
        let file = std::fs::File::create(&log).or_environment(what)?;
        let errors = file.try_clone().or_environment(what)?;
        forget_dead_daemon();
        Command::new("setsid")
            .arg("dockerd")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .or_environment(what)?;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while let Err(failure) = Docker::connect().await {
        if tokio::time::Instant::now() > deadline {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<_> = said.lines().rev().take(10).collect();
            return Err(failure.last_seen(tail.into_iter().rev().collect::<Vec<_>>().join("\n")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    task.end("runs");
    Ok(())
}

/// A daemon that was killed leaves its pid file, and the next one refuses to start while a process has that number,
/// be it a dead one that nobody has collected.
fn forget_dead_daemon() {
    let file = Path::new("/var/run/docker.pid");
    let Ok(pid) = std::fs::read_to_string(file) else {
        return;
    };
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let lives = stat.contains("(dockerd)") && !stat.contains("(dockerd) Z");
    if !lives {
        // If it cannot be removed, the daemon says so itself.
        let _ = std::fs::remove_file(file);
    }
}

/// One line of `doctor`.
pub struct Finding {
    /// Whether a rehearsal can do with it.
    pub fit: bool,
    /// What was looked at.
    pub subject: &'static str,
    /// What was seen.
    pub seen: String,
    /// What to do, where it is not fit.
    pub hint: Option<String>,
}

/// Looks at everything that a rehearsal depends on. Changes nothing.
pub async fn examine(conduit: Option<&Path>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |fit: bool, subject: &'static str, seen: String, hint: Option<&str>| {
        findings.push(Finding {
            fit,
            subject,
            seen,
            hint: hint.filter(|_| !fit).map(str::to_owned),
        });
    };
    let setup = "run `cargo fleet setup --yes`";
    match Docker::connect().await {
        Ok(docker) => {
            found(
                true,
                "docker",
                docker
                    .version()
                    .await
                    .unwrap_or_else(|failure| failure.to_string()),
                None,
            );
            for image in Image::ALL {
                let here = image.exists(&docker).await;
                found(
                    here,
                    "image",
                    image.reference() + if here { "" } else { " is not built" },
                    Some(setup),
                );
            }
        }
        Err(failure) => found(
            false,
            "docker",
            failure.to_string().replace('\n', "; "),
            Some(setup),
        ),
    }
    found(true, "cgroups", format!("{:?}", cgroup_mode()), None);
    let bytes_free = free_space(&paths::target());
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    found(
        bytes_free.is_none_or(|free| free > 5 << 30),
        "disk",
        bytes_free.map_or_else(
            || "unknown".to_owned(),
            |free| format!("{:.0} GiB free", gib(free)),
        ),
        Some("5 GiB are needed for images, builds and one run"),
    );
    let memory = available_memory();
    found(
        memory.is_none_or(|free| free > 2 << 30),
        "memory",
        memory.map_or_else(
            || "unknown".to_owned(),
            |free| format!("{:.1} GiB available", gib(free)),
        ),
        Some("2 GiB are needed; end something"),
    );
    match find_conduit(conduit).await {
        Ok(Some(binary)) => found(true, "conduit", binary.describe(), None),
        // Fit all the same: the report says what was not proved.
        Ok(None) => found(
            true,
            "conduit",
            "none: claims are proved on Synapse and the stand-in, and unknown for Conduit"
                .to_owned(),
            None,
        ),
        Err(failure) => found(
            false,
            "conduit",
            failure.to_string().replace('\n', "; "),
            failure.hint.as_deref(),
        ),
    }
    findings
}

/// Free bytes of the file system that holds `path`, as `df` sees them.
fn free_space(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let output = std::process::Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(existing)
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .nth(1)?
        .trim()
        .parse()
        .ok()
}

/// `MemAvailable` of `/proc/meminfo`, in bytes (proc(5)).
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// Fetches the pinned Conduit if none is here. None being reachable is no error.
pub async fn provide_conduit(given: Option<&Path>) -> Result<Option<crate::homeserver::Binary>> {
    match find_conduit(given).await? {
        Some(found) => Ok(Some(found)),
        None => fetch_conduit().await,
    }
}
