//! The directory with the passwords, the administrator's session and the canary's.
//!
//! Everything is written to a new file, synced, and renamed into place, *before* the homeserver hears of it: a run that
//! is killed at any moment leaves either the old or the new file, and never an account whose password nobody knows.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Length of a generated password in characters: 32 of 62 are 190 bits.
pub const PASSWORD_LENGTH: usize = 32;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A logged-in device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Whose it is.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// Its token.
    pub access_token: String,
}

impl std::fmt::Debug for Session {
    /// Leaves the token out, so that no message can carry it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

/// What the tool remembers between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The administrator's session, kept so that a second run logs nobody in.
    pub administrator: Option<Session>,
    /// Accounts that were about to be logged in and are not known to be logged out again.
    #[serde(default)]
    pub open: BTreeSet<String>,
}

/// The directory.
#[derive(Debug)]
pub struct Secrets {
    dir: PathBuf,
}

impl Secrets {
    /// Names the directory without touching it.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// The file that holds the password of an account.
    #[must_use]
    pub fn password_file(&self, account: &str) -> PathBuf {
        self.dir.join(format!("{account}.password"))
    }

    fn memory_file(&self) -> PathBuf {
        self.dir.join("bootstrap-session.json")
    }

    /// Makes the directory where it is missing, refuses one that others can read, and keeps other runs out until the
    /// returned file is dropped (also by `kill -9`).
    ///
    /// # Errors
    /// When the directory cannot be made, is open to others, or another run holds it.
    pub fn lock(&self) -> Result<File, Error> {
        let dir = self.dir.display();
        if let Err(error) = fs::DirBuilder::new().mode(0o700).create(&self.dir)
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(Error::refused(
                format!("cannot make the directory `{dir}`: {error}"),
                "run this as root after `install.sh`, or choose another directory with `--secrets`",
            ));
        }
        self.closed_to_others()?;
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join(".bootstrap.lock"))
            .map_err(|error| {
                Error::refused(
                    format!("cannot write in `{dir}`: {error}"),
                    "run this as root",
                )
            })?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(dir.to_string())),
            Err(TryLockError::Error(error)) => Err(Error::failed(
                format!("cannot lock `{dir}`: {error}"),
                "is the file system one that supports locks?",
            )),
        }
    }

    fn closed_to_others(&self) -> Result<(), Error> {
        let metadata = fs::metadata(&self.dir).map_err(|error| {
            Error::refused(
                format!(
                    "cannot read the directory `{}`: {error}",
                    self.dir.display()
                ),
                "run this as root",
            )
        })?;
        if !metadata.is_dir() || metadata.mode() & 0o077 != 0 {
            return Err(Error::refused(
                format!(
                    "`{}` is open to others (mode {:o})",
                    self.dir.display(),
                    metadata.mode() & 0o7777
                ),
                format!(
                    "`chmod 0700 {}`, and change the passwords in it if somebody may have read them",
                    self.dir.display()
                ),
            ));
        }
        Ok(())
    }

    /// The stored password of an account, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read or does not hold a password.
    pub fn password(&self, account: &str) -> Result<Option<String>, Error> {
        let file = self.password_file(account);
        match fs::read_to_string(&file) {
            Ok(text) => {
                let password = text.trim_end_matches(['\n', '\r']);
                if password.is_empty() {
                    return Err(Error::refused(
                        format!("`{}` is empty", file.display()),
                        "put the password of the account into it, or remove it when the account does not exist yet",
                    ));
                }
                Ok(Some(password.to_owned()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::refused(
                format!("cannot read `{}`: {error}", file.display()),
                "run this as root",
            )),
        }
    }

    /// The password that an account will be registered with: the stored one, or a new one that is stored first.
    ///
    /// # Errors
    /// When it cannot be stored safely.
    pub fn password_for_registration(&self, account: &str) -> Result<String, Error> {
        if let Some(password) = self.password(account)? {
            return Ok(password);
        }
        let password = random_text(PASSWORD_LENGTH)?;
        self.put(
            &self.password_file(account),
            format!("{password}\n").as_bytes(),
        )?;
        Ok(password)
    }

    /// What earlier runs remembered. A damaged file counts as nothing remembered: it can be made again.
    #[must_use]
    pub fn memory(&self) -> Memory {
        fs::read(self.memory_file())
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Remembers.
    ///
    /// # Errors
    /// When it cannot be stored safely.
    pub fn remember(&self, memory: &Memory) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec_pretty(memory).expect("plain data always becomes JSON");
        bytes.push(b'\n');
        self.put(&self.memory_file(), &bytes)
    }

    fn canary_file(&self) -> PathBuf {
        self.dir.join("canary-session.json")
    }

    /// The session of the canary, which `health.sh` reads too. A damaged file counts as none: it can be made again.
    #[must_use]
    pub fn canary_session(&self) -> Option<Session> {
        serde_json::from_slice(&fs::read(self.canary_file()).ok()?).ok()
    }

    /// Keeps the canary's session.
    ///
    /// # Errors
    /// When it cannot be stored safely.
    pub fn keep_canary_session(&self, session: &Session) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec_pretty(session).expect("plain data always becomes JSON");
        bytes.push(b'\n');
        self.put(&self.canary_file(), &bytes)
    }

    fn put(&self, file: &Path, bytes: &[u8]) -> Result<(), Error> {
        let new = file.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut out = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            out.write_all(bytes)?;
            out.sync_all()?;
            fs::rename(&new, file)?;
            // The name, too, must be on the disk before the homeserver stores what belongs to it.
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error| {
            Error::failed(
                format!("cannot store `{}`: {error}", file.display()),
                "is the disk full? nothing was registered with what could not be stored",
            )
        })
    }
}

/// Random letters and digits from the kernel, with at least one of each: a value of digits alone would be taken for a
/// number where Conduit reads its environment.
///
/// # Errors
/// When the kernel gives no randomness.
pub fn random_text(length: usize) -> Result<String, Error> {
    let failed = |error: std::io::Error| {
        Error::failed(
            format!("cannot read `/dev/urandom`: {error}"),
            "the machine must offer it; without it no password can be made",
        )
    };
    let mut source = File::open("/dev/urandom").map_err(failed)?;
    loop {
        let mut text = String::with_capacity(length);
        while text.len() < length {
            let mut byte = [0_u8];
            source.read_exact(&mut byte).map_err(failed)?;
            // 248 is the largest multiple of 62 in a byte: beyond it some characters would be likelier than others.
            if byte[0] < 248 {
                text.push(char::from(ALPHABET[usize::from(byte[0] % 62)]));
            }
        }
        if text.bytes().any(|b| b.is_ascii_digit()) && text.bytes().any(|b| b.is_ascii_alphabetic())
        {
            return Ok(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn secrets() -> (tempfile::TempDir, Secrets) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let secrets = Secrets::at(&dir.path().join("secrets"));
        (dir, secrets)
    }

    #[test]
    fn a_password_is_made_once_and_only_its_owner_may_read_it() {
        let (_dir, secrets) = secrets();
        let _lock = secrets.lock().expect("a lock");
        let password = secrets
            .password_for_registration("ezra")
            .expect("a password");
        assert_eq!(password.len(), PASSWORD_LENGTH);
        assert_eq!(
            secrets.password_for_registration("ezra").expect("again"),
            password
        );
        let mode = fs::metadata(secrets.password_file("ezra"))
            .expect("a file")
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = fs::metadata(&secrets.dir).expect("a directory").mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_others_can_read_is_refused() {
        let (_dir, secrets) = secrets();
        drop(secrets.lock().expect("a lock"));
        fs::set_permissions(&secrets.dir, fs::Permissions::from_mode(0o750)).expect("chmod");
        let error = secrets.lock().expect_err("open to the group");
        assert!(error.to_string().contains("open to others"), "{error}");
    }

    #[test]
    fn a_second_run_is_kept_out() {
        let (_dir, secrets) = secrets();
        let first = secrets.lock().expect("a lock");
        assert_eq!(secrets.lock().expect_err("held").exit_code(), 75);
        drop(first);
        secrets.lock().expect("free again");
    }

    #[test]
    fn a_session_in_a_debug_message_does_not_show_its_token() {
        let session = Session {
            user_id: "@admin:garden.test".into(),
            device_id: "D".into(),
            access_token: "t0psecret".into(),
        };
        assert!(!format!("{session:?}").contains("t0psecret"));
    }
}
