//! What the server learns all the same, as it was measured, and as the operator's page says.

use super::said::{HIDDEN, OPEN};
use super::{RECOVERY_KEY, URL};
use harness::scan::Found;
use harness::{Failure, OrBlame, Result};
use std::collections::BTreeMap;
use std::fmt;

pub const MEMBERS: &str = "who is in a room (user ids)";
pub const ROOM: &str = "which room (id)";
pub const DEVICE: &str = "which device (id)";
pub const WHEN: &str = "when something was sent";
pub const CIPHERTEXT: &str = "the encrypted text, and so its length";
pub const SESSION: &str = "which room key it is encrypted with (id)";
pub const ANSWERED: &str = "which message is answered";
pub const READ: &str = "how far somebody has read";
pub const SIZE: &str = "size of a file";
pub const TOKEN: &str = "access token of a device";
pub const SERVERS: &str = "which server is spoken to";
pub const ADDRESS: &str = "address (IP) of a device";

/// The page that says it.
const PAGE: &str = "docs/matrix-fleet-comms/encryption.md";

/// The columns of its table, and the places that each is about.
const COLUMNS: &[(&str, &[&str])] = &[
    ("database", &["database"]),
    ("media", &["media"]),
    ("journal", &["journal"]),
    ("proxy log", &["proxy log"]),
    ("backup", &["backup's database", "backup's media"]),
    ("loopback", &["loopback"]),
    ("wire", &["wire"]),
    (
        "partner",
        &[
            "partner's database",
            "partner's media",
            "partner's loopback",
        ],
    ),
];

/// A table of what was found where.
pub struct Measured(Vec<(String, Vec<bool>)>);

impl Measured {
    /// Of everything that was looked for in the encrypted room.
    pub fn of(found: &BTreeMap<String, Found>) -> Self {
        let hidden = HIDDEN.iter().chain([&RECOVERY_KEY]);
        let open = OPEN.iter().chain(&[
            "name that a user shows",
            "name of a device",
            MEMBERS,
            ROOM,
            DEVICE,
            WHEN,
            CIPHERTEXT,
            SESSION,
            ANSWERED,
            READ,
            SIZE,
            SERVERS,
            ADDRESS,
            URL,
            TOKEN,
        ]);
        let row = |item: &&str| {
            let there = |place: &&str| {
                found.get(*place).is_some_and(|there| {
                    let by_size =
                        *item == SIZE && there.sizes.contains(&(super::said::SIZE as u64));
                    by_size || there.hit(item).is_some()
                })
            };
            let cells = COLUMNS.iter().map(|(_, places)| places.iter().any(there));
            ((*item).to_owned(), cells.collect())
        };
        Self(hidden.chain(open).map(row).collect())
    }

    /// The page must have this very table.
    ///
    /// # Errors
    /// When it says something else.
    pub fn is_documented(&self) -> Result<()> {
        let page = harness::paths::repository().join(PAGE);
        let text = std::fs::read_to_string(page).or_harness(|| format!("read `{PAGE}`"))?;
        let table = self.to_string();
        if text.contains(&table) {
            return Ok(());
        }
        Err(
            Failure::deployment(format!("say in `{PAGE}` what the server learns"))
                .last_seen(format!("measured:\n{table}"))
                .hint("put the table into the page, once you know why it changed"),
        )
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads: Vec<_> = COLUMNS.iter().map(|(head, _)| *head).collect();
        writeln!(f, "| | {} |", heads.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(heads.len()))?;
        for (item, cells) in &self.0 {
            let cells: Vec<_> = cells
                .iter()
                .map(|&yes| if yes { "yes" } else { "" })
                .collect();
            writeln!(f, "| {item} | {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}
