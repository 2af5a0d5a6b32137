//! Where things lie.

use std::path::{Path, PathBuf};

/// The root of the repository that this harness was built from: the deploy artifacts lie there.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// `deploy/runbooks/`.
pub fn runbooks() -> PathBuf {
    repository().join("deploy/runbooks")
}

/// The build directory: `CARGO_TARGET_DIR`, or `target/` in the repository.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// Where reports and evidence of runs are kept.
pub fn runs() -> PathBuf {
    target().join("fleet")
}

/// Where downloads are kept between runs: `$XDG_CACHE_HOME/fleet` or `~/.cache/fleet`.
pub fn cache() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("fleet")
}
