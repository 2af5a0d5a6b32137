//! The command line of a drill: that of `fleet` without a sentinel, and that of `fleet-drill` with one.

use super::{History, Store, Subject, Watch, drill, now};
use crate::failure::{Failure, Result};
use crate::homeserver::Binary;
use crate::verdict::Exit;
use crate::world::{self, Options};
use crate::{paths, setup, ui};
use clap::Args;
use std::path::{Path, PathBuf};

/// Which Conduit.
#[derive(Args)]
pub struct Server {
    /// The Conduit to rehearse; by default CONDUIT_BIN, `conduit` on PATH, the download cache, the pinned download,
    /// the official image
    #[arg(long, value_name = "PATH")]
    pub conduit: Option<PathBuf>,
}

impl Server {
    /// It, for something that cannot be done without.
    ///
    /// # Errors
    /// The environment's, when there is none.
    pub async fn needed(&self, what: &str) -> Result<Binary> {
        setup::provide_conduit(self.conduit.as_deref())
            .await?
            .ok_or_else(|| {
                Failure::environment(format!("{what}: there is no Conduit"))
                    .hint("give one with `--conduit PATH`")
            })
    }
}

/// What varies, and what is left.
#[derive(Args)]
pub struct Vary {
    /// Draw what varies from this, in hexadecimal; a failure prints it
    #[arg(long, value_name = "HEX", value_parser = parse_seed)]
    pub seed: Option<u64>,
    /// Leave everything standing at the end
    #[arg(long)]
    pub keep: bool,
}

/// Arguments of a drill.
#[derive(Args)]
pub struct Drill {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    vary: Vary,
    /// The restic repository, a directory (or FLEET_DRILL_STORE); without one a lab site is made and backed up for the
    /// drill
    #[arg(
        long,
        value_name = "DIR",
        env = "FLEET_DRILL_STORE",
        hide_env = true,
        requires = "password_file"
    )]
    store: Option<PathBuf>,
    /// The file with its password (or FLEET_DRILL_PASSWORD_FILE)
    #[arg(
        long,
        value_name = "FILE",
        env = "FLEET_DRILL_PASSWORD_FILE",
        hide_env = true
    )]
    password_file: Option<PathBuf>,
    /// The server name that the backup must have
    #[arg(long, default_value = "timmy.foundation", value_parser = parse_server_name)]
    server_name: String,
    /// The snapshot to restore
    #[arg(long, value_name = "ID", default_value = "latest", value_parser = parse_snapshot)]
    snapshot: String,
    /// The file that says in which encrypted room of whom something is said every day, which a new device must read with the
    /// recovery key: `user = "@..."`, `room = "!..."` and perhaps `hours = 48`
    #[arg(
        long,
        value_name = "FILE",
        requires = "store",
        requires = "recovery_key_file"
    )]
    sentinel: Option<PathBuf>,
    /// The file with that user's recovery key
    #[arg(long, value_name = "FILE", requires = "sentinel")]
    recovery_key_file: Option<PathBuf>,
    /// Where drills are noted (or FLEET_DRILL_HISTORY); by default in the cache of this user
    #[arg(long, value_name = "DIR", env = "FLEET_DRILL_HISTORY", hide_env = true)]
    history: Option<PathBuf>,
    /// Only say how drills stand: 0 where the last one was good, 11 where it was red, 14 where none has run for too long
    #[arg(long, conflicts_with_all = ["store", "snapshot", "keep", "seed", "conduit"])]
    status: bool,
    /// How many days a good drill is good for
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
}

impl Drill {
    /// The sentinel's file and that of its recovery key, where one is to be read.
    pub fn sentinel(&self) -> Option<(&Path, &Path)> {
        self.sentinel
            .as_deref()
            .zip(self.recovery_key_file.as_deref())
    }

    /// Drills, or says how drills stand.
    ///
    /// # Errors
    /// What keeps it from that.
    pub async fn run(&self, watch: Option<Watch>) -> Result<Exit> {
        let history = self.history.clone();
        let history = History::at(history.unwrap_or_else(|| paths::cache().join("drills")));
        if self.status {
            let (text, exit) = history.status(now(), self.days)?;
            ui::show(text)?;
            return Ok(exit);
        }
        // A store that cannot be opened is said before anything is made.
        let subject = match (&self.store, &self.password_file) {
            (Some(store), Some(password)) => Subject::Store {
                store: Store::open(store, password)?,
                server_name: self.server_name.clone(),
                snapshot: self.snapshot.clone(),
                watch,
            },
            _ => Subject::Lab,
        };
        let conduit = self.server.needed("drill").await?;
        ui::say(format!("drilling with {}", conduit.describe()));
        let run = world::new_run_directory()?;
        let options = Options {
            seed: self.vary.seed,
            keep: self.vary.keep,
            run: Some(run.clone()),
        };
        let (report, line) = drill(&conduit, subject, &history, options).await?;
        report.write(&run)?;
        ui::show(report.lines())?;
        ui::show(format!("{}\n", line.noted()))?;
        ui::say(format!("report: {}", run.display()));
        Ok(report.exit(false))
    }
}

fn parse_snapshot(text: &str) -> std::result::Result<String, String> {
    let id = (8..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if id || text == "latest" {
        return Ok(text.to_owned());
    }
    Err("a snapshot is `latest` or an id of 8 to 64 hexadecimal digits".to_owned())
}

/// A seed, from hexadecimal digits.
///
/// # Errors
/// What it should have been.
pub fn parse_seed(text: &str) -> std::result::Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| "a seed is a hexadecimal number".to_owned())
}

/// A server name without a port.
///
/// # Errors
/// What it should have been.
pub fn parse_server_name(text: &str) -> std::result::Result<String, String> {
    if world::is_server_name(text) {
        return Ok(text.to_owned());
    }
    Err("a server name is a domain name in lower case, without port".to_owned())
}
