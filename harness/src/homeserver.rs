//! The homeserver that claims are proved on: where a Conduit comes from, what it says it is, and whether that is the
//! one we pin.

use crate::failure::{Failure, OrBlame, Result};
use crate::{paths, ui};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The release that this project is about.
pub const PINNED_VERSION: &str = "0.10.12";
/// SHA-256 of the official static x86_64 binary of [`PINNED_VERSION`] (GitLab job 12572491120, as packaged by
/// YunoHost's `conduit_ynh`).
pub const PINNED_SHA256: &str = "589867ce1a0fb07c104feae8f0d5e15aee8328983bdc4ebc488d46a86ea5f63b";
/// Where the official binary is published; job artifacts, because `master` moves.
pub const PINNED_URL: &str =
    "https://gitlab.com/famedly/conduit/-/jobs/12572491120/artifacts/raw/x86_64-unknown-linux-musl";
/// The official container image of the pinned release; it has no shell, so the binary is copied out of it.
pub const PINNED_IMAGE: &str = "matrixconduit/matrix-conduit:v0.10.12";

/// A homeserver implementation and its version, as reports name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Server {
    /// `conduit`, `synapse`, `conduit-standin`.
    pub name: String,
    /// What it reports as its version.
    pub version: String,
}

impl Server {
    /// Whether it is the product itself.
    pub fn is_conduit(&self) -> bool {
        self.name == "conduit"
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// A program that is installed under the name `conduit`: the real one, or the stand-in.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Where it lies on this machine.
    pub path: PathBuf,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// What it is.
    pub server: Server,
    /// Where we found it, for the report.
    pub origin: Origin,
}

/// Where a binary came from; the order is the order in which we look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `--conduit PATH` or `CONDUIT_BIN`.
    Given,
    /// `conduit` on `PATH`.
    Path,
    /// The download cache of an earlier run.
    Cache,
    /// The pinned official download.
    Download,
    /// The pinned official container image.
    Image,
    /// Built from this repository: not Conduit.
    StandIn,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "given",
            Self::Path => "found on PATH",
            Self::Cache => "from the download cache",
            Self::Download => "downloaded",
            Self::Image => "from the official image",
            Self::StandIn => "stand-in of this repository, not Conduit",
        })
    }
}

impl Binary {
    /// Reads a binary's digest and asks it for its version.
    ///
    /// # Errors
    /// The environment's: not there, not executable, not a Conduit, or another version than the pinned one. Each says
    /// what to do.
    pub async fn examine(path: &Path, origin: Origin) -> Result<Self> {
        let shown = path.display();
        let hint =
            format!("give a Conduit {PINNED_VERSION} with `--conduit PATH` or `CONDUIT_BIN`");
        let metadata = std::fs::metadata(path)
            .or_environment(|| format!("read the Conduit binary `{shown}`"))
            .map_err(|failure| failure.hint(hint.clone()))?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return Err(Failure::environment(format!(
                "use `{shown}` as Conduit: it is not an executable file"
            ))
            .hint(format!("`chmod +x {shown}`, or {hint}")));
        }
        let asked = Command::new(path)
            .arg("--version")
            .env_remove("CONDUIT_CONFIG")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let answer = tokio::time::timeout(Duration::from_secs(10), asked)
            .await
            .map_err(|_| {
                Failure::environment(format!("ask `{shown}` for its version: no answer in 10 s"))
                    .hint(hint.clone())
            })?
            .or_environment(|| format!("run `{shown} --version`"))
            .map_err(|failure| failure.hint(hint.clone()))?;
        let text = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        let Some(version) = text
            .strip_prefix("conduit ")
            .filter(|_| answer.status.success())
        else {
            return Err(Failure::environment(format!(
                "use `{shown}` as Conduit: it is another program"
            ))
            .last_seen(format!(
                "`--version` printed `{}`",
                text.lines().next().unwrap_or_default()
            ))
            .hint(hint));
        };
        if version != PINNED_VERSION {
            return Err(Failure::environment(format!(
                "use `{shown}` as Conduit: it is version {version}, this project pins {PINNED_VERSION}"
            ))
            .hint(hint));
        }
        let name = if origin == Origin::StandIn {
            "conduit-standin"
        } else {
            "conduit"
        };
        Ok(Self {
            path: std::fs::canonicalize(path).or_environment(|| format!("resolve `{shown}`"))?,
            sha256: sha256_of(path)?,
            server: Server {
                name: name.to_owned(),
                version: version.to_owned(),
            },
            origin,
        })
    }

    /// What to say aloud about it: whether it is the official artifact or another build of the same version.
    pub fn describe(&self) -> String {
        let official = if self.sha256 == PINNED_SHA256 {
            "the pinned official artifact".to_owned()
        } else {
            format!(
                "sha256 {}…, not the pinned official artifact",
                &self.sha256[..12]
            )
        };
        format!("{} ({}; {official})", self.server, self.origin)
    }
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file =
        std::fs::File::open(path).or_environment(|| format!("open `{}`", path.display()))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher)
        .or_environment(|| format!("read `{}`", path.display()))?;
    Ok(format!("{:x}", hasher.finalize()))
}

/// Finds a Conduit in the order that [`Origin`] lists. A binary that was *given* and does not fit is an error; one
/// that merely lies on `PATH` and does not fit is passed over aloud.
///
/// # Errors
/// Only about a given binary. That there is none at all is `Ok(None)`.
pub async fn find_conduit(given: Option<&Path>) -> Result<Option<Binary>> {
    let from_environment = std::env::var_os("CONDUIT_BIN")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    if let Some(path) = given.map(Path::to_owned).or(from_environment) {
        return Binary::examine(&path, Origin::Given).await.map(Some);
    }
    for directory in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        let path = directory.join("conduit");
        if path.is_file() {
            match Binary::examine(&path, Origin::Path).await {
                Ok(binary) => return Ok(Some(binary)),
                Err(failure) => ui::say(format!("passed over: {failure}")),
            }
        }
    }
    let cached = cached_path();
    if cached.is_file() {
        match Binary::examine(&cached, Origin::Cache).await {
            Ok(binary) if binary.sha256 == PINNED_SHA256 || !cached_from_download(&cached) => {
                return Ok(Some(binary));
            }
            Ok(_) => ui::say(format!(
                "passed over: `{}` is not the pinned artifact",
                cached.display()
            )),
            Err(failure) => ui::say(format!("passed over: {failure}")),
        }
    }
    Ok(None)
}

/// Fetches the pinned release into the download cache: the official artifact, else out of the official image.
/// Neither being reachable is no error: the answer is then `None`, and the reasons are said aloud.
pub async fn fetch_conduit() -> Result<Option<Binary>> {
    match download().await {
        Ok(path) => return Binary::examine(&path, Origin::Download).await.map(Some),
        Err(failure) => ui::say(format!("no download: {failure}")),
    }
    match from_image().await {
        Ok(path) => Binary::examine(&path, Origin::Image).await.map(Some),
        Err(failure) => {
            ui::say(format!("no image: {failure}"));
            Ok(None)
        }
    }
}

fn cached_path() -> PathBuf {
    paths::cache().join(format!("conduit-{PINNED_VERSION}/conduit"))
}

/// A file beside the binary remembers that it came from an image, whose build has another digest.
fn cached_from_download(cached: &Path) -> bool {
    !cached.with_file_name("from-image").exists()
}

async fn download() -> Result<PathBuf> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(Failure::environment(
            "download Conduit: the pinned artifact is for x86_64",
        ));
    }
    let task = ui::Task::begin(1, format!("download Conduit {PINNED_VERSION}"));
    let what = || format!("download Conduit {PINNED_VERSION}");
    crate::site::use_crypto();
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .timeout(Duration::from_secs(600))
        .build()
        .or_environment(what)?;
    let mut answer = client
        .get(PINNED_URL)
        .send()
        .await
        .or_environment(what)?
        .error_for_status()
        .or_environment(what)?;
    let total = answer.content_length().unwrap_or_default();
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.or_environment(what)? {
        bytes.extend_from_slice(&chunk);
        task.parts(bytes.len() as u64, total.max(bytes.len() as u64));
    }
    let digest = format!("{:x}", Sha256::digest(&bytes));
    if digest != PINNED_SHA256 {
        return Err(
            Failure::environment("download Conduit: the artifact is not the pinned one")
                .last_seen(format!("SHA-256 {digest}, {} bytes", bytes.len())),
        );
    }
    let path = store(&bytes)?;
    task.end("done");
    Ok(path)
}

async fn from_image() -> Result<PathBuf> {
    let docker = |arguments: Vec<String>| async move {
        let output = Command::new("docker")
            .args(&arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .or_environment(|| format!("run `docker {}`", arguments.join(" ")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(
            Failure::environment(format!("run `docker {}`", arguments.join(" ")))
                .last_seen(String::from_utf8_lossy(&output.stderr).trim()),
        )
    };
    let arguments = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    docker(arguments(&["pull", "--quiet", PINNED_IMAGE])).await?;
    let id = docker(arguments(&["create", PINNED_IMAGE])).await?;
    let directory =
        tempfile::tempdir().or_environment(|| "make a temporary directory".to_owned())?;
    let exported = directory.path().join("root.tar");
    let exported_text = exported.to_string_lossy().into_owned();
    let outcome = docker(arguments(&["export", "--output", &exported_text, &id])).await;
    docker(arguments(&["rm", &id])).await?;
    outcome?;
    let listing = Command::new("tar")
        .args([
            "--extract",
            "--to-stdout",
            "--wildcards",
            "--file",
            &exported_text,
            "*/bin/conduit",
        ])
        .output()
        .await
        .or_environment(|| "unpack the official image".to_owned())?;
    if listing.stdout.is_empty() {
        return Err(Failure::environment("find `conduit` in the official image"));
    }
    let path = store(&listing.stdout)?;
    std::fs::write(path.with_file_name("from-image"), PINNED_IMAGE)
        .or_environment(|| "write to the download cache".to_owned())?;
    Ok(path)
}

/// Puts a binary into the download cache, whole or not at all.
fn store(bytes: &[u8]) -> Result<PathBuf> {
    let path = cached_path();
    let what = || format!("write `{}`", path.display());
    let directory = path.parent().unwrap_or(&path);
    std::fs::create_dir_all(directory).or_environment(what)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).or_environment(what)?;
    std::io::Write::write_all(&mut file, bytes).or_environment(what)?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o755))
        .or_environment(what)?;
    file.persist(&path).or_environment(what)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(directory: &Path, text: &str, mode: u32) -> PathBuf {
        let path = directory.join("conduit");
        std::fs::write(&path, text).expect("write the script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
            .expect("set its mode");
        path
    }

    async fn refusal(text: &str, mode: u32) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let path = script(directory.path(), text, mode);
        Binary::examine(&path, Origin::Given)
            .await
            .expect_err("it must be refused")
            .to_string()
    }

    #[tokio::test]
    async fn the_pinned_version_is_accepted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = script(directory.path(), "#!/bin/sh\necho conduit 0.10.12\n", 0o755);
        let binary = Binary::examine(&path, Origin::Given)
            .await
            .expect("it fits");
        assert_eq!(binary.server.to_string(), "conduit 0.10.12");
        assert!(
            binary
                .describe()
                .contains("not the pinned official artifact"),
            "{}",
            binary.describe()
        );
    }

    #[tokio::test]
    async fn another_version_another_program_and_a_plain_file_are_refused() {
        let other = refusal("#!/bin/sh\necho conduit 0.9.0\n", 0o755).await;
        assert!(
            other.contains("it is version 0.9.0, this project pins 0.10.12"),
            "{other}"
        );
        let foreign = refusal("#!/bin/sh\necho GNU ls 9\n", 0o755).await;
        assert!(
            foreign.contains("it is another program") && foreign.contains("GNU ls 9"),
            "{foreign}"
        );
        let plain = refusal("not a program", 0o644).await;
        assert!(
            plain.contains("not an executable file") && plain.contains("hint: `chmod +x"),
            "{plain}"
        );
    }
}
