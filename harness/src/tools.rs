//! What an operator brings to a Host: the offline bundle, made of a Conduit and the tools. And what the linter takes from
//! one: its Caddy.
//!
//! The programs of ours that run on a Host are linked statically, because its libc is its own.

use crate::docker::{Docker, making};
use crate::failure::{Failure, OrBlame, Result};
use crate::homeserver::{Binary, Origin, sha256_of};
use crate::image::{Image, python_package};
use crate::{paths, ui};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The programs of this repository that run on a Host.
#[derive(Clone, Debug)]
pub struct Tools {
    /// `fleet-bootstrap`.
    pub bootstrap: PathBuf,
    /// `fleet-preflight`.
    pub preflight: PathBuf,
    /// `conduit-standin`.
    pub standin: PathBuf,
}

/// Builds the tools unless they are up to date; once in the life of this process.
///
/// # Errors
/// The harness's, with the compiler's last words.
pub async fn ensure() -> Result<&'static Tools> {
    static TOOLS: OnceCell<Tools> = OnceCell::const_new();
    TOOLS.get_or_try_init(build).await
}

async fn build() -> Result<Tools> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let what = || {
        "build the static tools `fleet-bootstrap`, `fleet-preflight` and `conduit-standin`"
            .to_owned()
    };
    let task = ui::Task::begin(1, "build the static tools");
    let mut child = Command::new(cargo)
        .current_dir(paths::repository())
        .args([
            "build",
            "--package",
            "fleet-bootstrap",
            "--package",
            "fleet-preflight",
            "--package",
            "conduit-standin",
            "--target",
            &triple,
        ])
        // Not RUSTFLAGS: with `--target` this reaches the programs but not the build scripts.
        // Stripped, for the installer copies and digests them, and half of each would be symbols.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Ctarget-feature=+crt-static\x1f-Cstrip=symbols",
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .or_environment(what)?;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            task.note(line.trim());
            said.push(line);
        }
    }
    let status = child.wait().await.or_environment(what)?;
    if !status.success() {
        let from = said.len().saturating_sub(30);
        return Err(Failure::harness(what()).last_seen(said[from..].join("\n")));
    }
    let directory = paths::target().join(&triple).join("debug");
    task.end("done");
    Ok(Tools {
        bootstrap: directory.join("fleet-bootstrap"),
        preflight: directory.join("fleet-preflight"),
        standin: directory.join("conduit-standin"),
    })
}

/// The stand-in as a binary to install; claims about scripts may be proved on it, nothing about Matrix.
pub async fn standin() -> Result<Binary> {
    Binary::examine(&ensure().await?.standin, Origin::StandIn).await
}

/// Makes the directory that install.sh takes as `--bundle`: the binary under the name `conduit`, the tools, and their
/// checksums. The same content is the same directory, made once, whole or not at all.
pub async fn bundle(conduit: &Binary) -> Result<PathBuf> {
    let tools = ensure().await?;
    let mut files = vec![("conduit", &conduit.path, conduit.sha256.clone())];
    for (name, path) in [
        ("fleet-bootstrap", &tools.bootstrap),
        ("fleet-preflight", &tools.preflight),
    ] {
        files.push((name, path, sha256_of(path)?));
    }
    let digests: Vec<_> = files.iter().map(|(_, _, digest)| &digest[..12]).collect();
    let bundles = paths::runs().join("bundles");
    let path = bundles.join(digests.join("-"));
    let what = || format!("make the offline bundle `{}`", path.display());
    if !path.exists() {
        std::fs::create_dir_all(&bundles).or_environment(what)?;
        let partial = tempfile::tempdir_in(&bundles).or_environment(what)?;
        let mut sums = String::new();
        for (name, from, digest) in &files {
            std::fs::copy(from, partial.path().join(name)).or_environment(what)?;
            sums.push_str(&format!("{digest}  {name}\n"));
        }
        std::fs::write(partial.path().join("SHA256SUMS"), sums).or_environment(what)?;
        readable(partial.path())?;
        // Another process may have been quicker; its content is the same.
        if std::fs::rename(partial.path(), &path).is_ok() {
            let _ = partial.keep();
        }
    }
    std::fs::canonicalize(&path).or_environment(what)
}

/// The directory is mounted into Hosts, whose root need not be this machine's.
fn readable(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))
        .or_environment(|| format!("make `{}` readable", directory.display()))
}

/// Where the linter finds the lab's Caddy when this machine has none: `cargo fleet lint` asks it what a Caddyfile means.
pub fn caddy_path() -> PathBuf {
    paths::runs().join("tools/caddy")
}

/// Takes Caddy out of the image of a Host, once per recipe of that image: a program linked statically, the very one that
/// a Host serves with.
///
/// # Errors
/// The environment's, where the image is not here or its Caddy does not run on this machine.
pub async fn caddy() -> Result<PathBuf> {
    let path = caddy_path();
    let image = Image::Host;
    let copy = path.with_file_name(format!("caddy-{}", image.tag()));
    let what = || format!("take Caddy out of the image `{}`", image.reference());
    if std::fs::read_link(&path).is_ok_and(|link| Some(link.as_os_str()) == copy.file_name())
        && copy.is_file()
    {
        return Ok(path);
    }
    image.require(&Docker::connect().await?).await?;
    let tools = paths::runs().join("tools");
    std::fs::create_dir_all(&tools).or_environment(what)?;
    let scratch = tempfile::tempdir_in(&tools).or_environment(what)?;
    let partial = tempfile::NamedTempFile::new_in(&scratch).or_environment(what)?;
    let output = {
        let _making = making().await;
        Command::new("docker")
            .args([
                "run",
                "--rm",
                "--network",
                "none",
                "--entrypoint",
                "/bin/cat",
            ])
            .args([&image.reference(), "/usr/bin/caddy"])
            .stdin(Stdio::null())
            .stdout(partial.reopen().or_environment(what)?)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .or_environment(what)?
            // Not `output`, which would take standard output away from the file.
            .wait_with_output()
            .await
            .or_environment(what)?
    };
    if !output.status.success() {
        return Err(
            Failure::environment(format!("{}: {}", what(), output.status))
                .last_seen(String::from_utf8_lossy(&output.stderr).trim()),
        );
    }
    // Closed before it is run: a file that is open for writing is no program.
    let partial = partial.into_temp_path();
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o755))
            .or_environment(what)?;
    }
    let version = Command::new(&*partial)
        .arg("version")
        // Debian's Caddy makes a `.step` at home by being started.
        .env("HOME", scratch.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .or_environment(what)?;
    if !version.status.success() || version.stdout.is_empty() {
        return Err(
            Failure::environment(format!("{}: it does not run here", what()))
                .last_seen(String::from_utf8_lossy(&version.stderr).trim()),
        );
    }
    partial.persist(&copy).or_environment(what)?;
    let link = scratch.path().join("caddy");
    std::os::unix::fs::symlink(copy.file_name().unwrap_or_default(), &link).or_environment(what)?;
    std::fs::rename(&link, &path).or_environment(what)?;
    Ok(path)
}

/// A Python module that reads and writes RocksDB, from the Python registry: Debian's own tools are too old for what Conduit 0.10
/// writes. It carries a RocksDB that is newer than Conduit's.
const ROCKSDICT: &str = "rocksdict==0.3.29";

fn rocksdict_path() -> PathBuf {
    paths::runs().join("tools").join(ROCKSDICT)
}

/// Whether the module is here.
pub fn has_rocksdict() -> bool {
    rocksdict_path().is_dir()
}

/// The directory that has the module for RocksDB, for the Python of a Host; fetched once.
///
/// # Errors
/// The environment's, where the registry does not answer.
pub async fn rocksdict() -> Result<PathBuf> {
    let path = rocksdict_path();
    let what = || format!("have the Python module `{ROCKSDICT}`");
    if !has_rocksdict() {
        let tools = paths::runs().join("tools");
        std::fs::create_dir_all(&tools).or_environment(what)?;
        let partial = tempfile::tempdir_in(&tools).or_environment(what)?;
        let task = ui::Task::begin(1, what());
        python_package(&task, ROCKSDICT, partial.path()).await?;
        readable(partial.path())?;
        task.end("fetched");
        // Another process may have been quicker; its content is the same.
        if std::fs::rename(partial.path(), &path).is_ok() {
            let _ = partial.keep();
        }
    }
    Ok(path)
}
