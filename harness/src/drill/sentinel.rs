//! The sentinel: what somebody says in an encrypted room of the real site, again and again, so that a drill can tell whether a
//! user who has lost every device reads it from the backup with nothing but the recovery key, and how old it was.

use crate::client::Session;
use crate::failure::{Failure, OrBlame, Result};
use crate::site::Site;
use futures_util::future::LocalBoxFuture;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use std::path::Path;

/// What a drill claims of it.
pub const READ: &str =
    "a new device reads the newest message of the sentinel's room with the recovery key";

/// Where a sentinel is, and what reads it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sentinel {
    /// A member of the room, with a key backup on the server.
    pub user: OwnedUserId,
    /// The encrypted room.
    pub room: OwnedRoomId,
    /// How old, in hours, its newest message may have been when the backup was made.
    #[serde(default = "two_days")]
    pub hours: u64,
    /// The recovery key: a secret.
    #[serde(skip)]
    pub recovery_key: String,
}

fn two_days() -> u64 {
    48
}

impl Sentinel {
    /// Reads where it is from a TOML file (`user`, `room`, perhaps `hours`), and the recovery key from another file.
    ///
    /// # Errors
    /// The environment's, which says what of the two is wrong.
    pub fn open(path: &Path, recovery_key: &Path) -> Result<Self> {
        const FORM: &str = "it has three lines: `user = \"@ezra:timmy.foundation\"`, `room = \"!room_id\"`, and, where 48 is not \
                            meant, `hours = 24`";
        let what = || format!("read the sentinel `{}`", path.display());
        let text = std::fs::read_to_string(path).or_environment(what)?;
        let mut sentinel: Self = toml::from_str(&text)
            .or_environment(what)
            .map_err(|failure| failure.hint(FORM))?;
        let what = || format!("read the recovery key `{}`", recovery_key.display());
        let key = std::fs::read_to_string(recovery_key).or_environment(what)?;
        key.trim().clone_into(&mut sentinel.recovery_key);
        if sentinel.recovery_key.is_empty() {
            return Err(Failure::environment(format!("{}: it is empty", what()))
                .hint("it holds the words that the client showed when the key backup was set up"));
        }
        Ok(sentinel)
    }

    /// Whether it was young enough, by when it was said and when the backup was made, in seconds since 1970. Returns its
    /// age then.
    ///
    /// # Errors
    /// The deployment's, where it was too old: what is said now does not come into backups, or nobody says anything.
    pub fn age(&self, said: u64, created: u64) -> Result<u64> {
        let age = created.saturating_sub(said);
        if age <= self.hours * 3600 {
            return Ok(age);
        }
        Err(Failure::deployment(format!(
            "read a message of the last {} hours before the backup in `{}`",
            self.hours, self.room
        ))
        .last_seen(format!("the newest was {:.1} hours old", age as f64 / 3600.0))
        .hint("say something there every day, by a bot for instance; if that is done, the backup lacks it"))
    }
}

/// Reads the newest message of a sentinel's room as a new device with the recovery key; tells when it was said, in seconds
/// since 1970. Encryption is none of this crate's; `fleet-device` has one.
pub type Read = for<'a> fn(&'a Site, &'a Session, &'a Sentinel) -> LocalBoxFuture<'a, Result<u64>>;

/// A sentinel, and who reads it.
#[derive(Clone)]
pub struct Watch {
    /// The sentinel.
    pub sentinel: Sentinel,
    /// Who reads it.
    pub read: Read,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_is_three_lines_and_a_key_and_grows_old() {
        let directory = tempfile::tempdir().unwrap();
        let (file, key) = (
            directory.path().join("sentinel"),
            directory.path().join("key"),
        );
        std::fs::write(&key, " EsTc words \n").unwrap();
        let open = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Sentinel::open(&file, &key)
        };
        let good = "user = \"@ezra:timmy.foundation\"\nroom = \"!abc\"\n";
        let sentinel = open(good).unwrap();
        assert_eq!(
            (sentinel.hours, &*sentinel.recovery_key),
            (48, "EsTc words")
        );
        assert_eq!(sentinel.age(1_000, 1_060).unwrap(), 60);
        assert_eq!(sentinel.age(1_060, 1_000).unwrap(), 0, "clocks differ");
        let old = sentinel.age(0, 49 * 3600).unwrap_err().to_string();
        assert!(old.contains("49.0 hours old"), "{old}");
        for (text, part) in [
            ("room = \"!abc\"", "user"),
            ("user = \"ezra\"\nroom = \"!abc\"", "user"),
            (&*format!("{good}key = 1\n"), "key"),
        ] {
            let said = open(text).err().unwrap().to_string();
            assert!(
                said.contains(part) && said.contains("three lines"),
                "{said}"
            );
        }
        std::fs::write(&key, "\n").unwrap();
        let said = open(good).err().unwrap().to_string();
        assert!(said.contains("empty"), "{said}");
    }
}
