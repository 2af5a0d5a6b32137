//! The figures that the README names, each as a series of runs with its spread: a lone number is no reading.

use crate::authority::PRODUCTION_NAME;
use crate::failure::{Failure, Result};
use crate::homeserver::Binary;
use crate::host::Needs;
use crate::rehearse::{Fleet, Judge, backed_up};
use crate::world::{Options, World};
use crate::{tools, ui};
use std::fmt;
use std::time::{Duration, Instant};

/// Readings of one quantity.
#[derive(Clone, Debug, Default)]
pub struct Series {
    name: String,
    seconds: Vec<f64>,
}

impl Series {
    /// No readings yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            seconds: Vec::new(),
        }
    }

    /// Adds a reading.
    pub fn push(&mut self, reading: Duration) {
        ui::say(format!("  {}: {:.3} s", self.name, reading.as_secs_f64()));
        self.seconds.push(reading.as_secs_f64());
    }

    /// The middle reading, in seconds; of an even number the mean of the two in the middle.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            length if length % 2 == 1 => Some(sorted[middle]),
            _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(median) = self.median() else {
            return write!(f, "{}: no readings", self.name);
        };
        let least = self.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self
            .seconds
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let count = self.seconds.len();
        write!(
            f,
            "{}: median {median:.2} s, from {least:.2} to {most:.2} s, {count} runs",
            self.name
        )?;
        if count < 5 {
            write!(f, " (fewer than 5 runs: do not rely on it)")?;
        }
        Ok(())
    }
}

/// From nothing (images and binaries being there) to the first answer of the client API over TLS, while `install.md`
/// is followed. The bundle is made before the clock starts.
///
/// # Errors
/// Whatever keeps a site from being installed.
pub async fn site(conduit: &Binary, times: u32) -> Result<Vec<Series>> {
    let bundle = tools::bundle(conduit).await?;
    let mut booted = Series::new("world to booted host");
    let mut answered = Series::new("world to first answer over TLS");
    let mut followed = Series::new("world to the end of install.md");
    for _ in 0..times {
        let began = Instant::now();
        let world = World::open(Options::default()).await?;
        let needs = Needs {
            bundle: Some(bundle.clone()),
            ..Needs::default()
        };
        let host = world.host_with(PRODUCTION_NAME, needs).await?;
        let boot = began.elapsed();
        let http = world.http()?;
        let poll = async {
            let url = format!("https://matrix.{PRODUCTION_NAME}/_matrix/client/versions");
            loop {
                if http
                    .get(&url)
                    .send()
                    .await
                    .is_ok_and(|answer| answer.status().is_success())
                {
                    return began.elapsed();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let install = async {
            let site = world.install(host).await?;
            Ok::<_, Failure>((site, began.elapsed()))
        };
        // The runbook ends only after the API has answered over TLS, so that the poll cannot outlive it.
        let (first, installed) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(120), poll),
            install
        );
        let (_, end) = installed?;
        let first = first
            .map_err(|_| Failure::harness("measure the first answer: there was none in 120 s"))?;
        booted.push(boot);
        answered.push(first);
        followed.push(end);
        world.close().await?;
    }
    Ok(vec![booted, answered, followed])
}

/// How long clients are without the API during a backup of a data directory of at least `mib` mebibytes, next to how
/// long a plain restart of the same server takes: both judged by a client that asks every 10 ms, in turn.
///
/// # Errors
/// Whatever keeps a backup from being made.
pub async fn backup(conduit: &Binary, mib: usize, times: u32) -> Result<Vec<Series>> {
    const FILE_MIB: usize = 12;
    let world = World::open(Options::default()).await?;
    let site = world.site(PRODUCTION_NAME, conduit).await?;
    site.follow("bootstrap.md", &[]).await?;
    let fleet = Fleet::settle(&site).await?;
    let task = ui::Task::begin(1, format!("upload {mib} MiB of media"));
    let files = mib.div_ceil(FILE_MIB);
    for number in 0..files {
        let content = fixtures::media::pseudo_random(number as u64 + 1, FILE_MIB << 20);
        fleet.clients[1]
            .upload(&content, "application/octet-stream")
            .await?;
        task.parts(number as u64 + 1, files as u64);
    }
    task.end("done");
    let size = site
        .host
        .shell("du -sm /opt/conduit/data | cut -f1")
        .await?;
    ui::say(format!("  data directory: {size} MiB"));
    let mut restart = Series::new("client API away during `systemctl restart conduit`");
    let mut away = Series::new(format!("client API away during a backup of {size} MiB"));
    let mut whole = Series::new("backup.md from beginning to end");
    // The first backup copies everything into the repository, later ones what is new: both stop the server alike.
    for _ in 0..times {
        let judge = Judge::start(&site);
        site.host.shell("systemctl restart conduit").await?;
        restart.push(judge.stop().await);
        let began = Instant::now();
        away.push(backed_up(&site).await?.away);
        whole.push(began.elapsed());
    }
    world.close().await?;
    Ok(vec![restart, away, whole])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_says_its_median_its_spread_and_its_doubt() {
        let mut series = Series::new("start");
        assert_eq!(series.to_string(), "start: no readings");
        for seconds in [3.0, 1.0, 2.0, 10.0] {
            series.push(Duration::from_secs_f64(seconds));
        }
        assert_eq!(
            series.to_string(),
            "start: median 2.50 s, from 1.00 to 10.00 s, 4 runs (fewer than 5 runs: do not rely on it)"
        );
    }
}
