//! What a backup costs: those who use the site while it is made, the disk that it is kept on, and the time until it is back.
//!
//! Two sites, a small one and a large one, take turns in one run, so that the machine's moods reach both alike.

use super::Series;
use crate::authority::PRODUCTION_NAME;
use crate::failure::{Failure, OrBlame, Result};
use crate::homeserver::Binary;
use crate::rehearse::{Fleet, backed_up};
use crate::site::Site;
use crate::ui;
use crate::visitors::{PACE, Visitors};
use crate::world::{Options, World};
use fastrand::Rng;
use ruma::{OwnedRoomAliasId, OwnedRoomId};
use std::fmt;
use std::time::{Duration, Instant};

/// Data of the smaller site, in mebibytes.
pub const SMALL: usize = 100;
/// The part of the data that is new in each incremental backup.
const CHANGE: f64 = 0.01;
/// How the design wanted it: the server is away for as long as the copy takes.
const STOP_COPY_START: &str = "systemctl stop conduit && cp -a /opt/conduit/data /opt/conduit/copied; kept=$?; \
     systemctl reset-failed conduit; systemctl start conduit && rm -rf /opt/conduit/copied && [ $kept = 0 ]";
/// Takes away every backup, as if none had ever been made.
const FORGET: &str = "rm -rf /opt/conduit/backups/restic /opt/conduit/backups/catalog.jsonl";

/// What was measured.
#[derive(Debug, Default)]
pub struct Costs {
    small: Usage,
    large: Usage,
    first: Kept,
    incremental: Kept,
    restore: Series,
    copy: Series,
}

/// What those who used a site noticed.
#[derive(Debug, Default)]
struct Usage {
    mib: u64,
    backup: Noticed,
    plain: Noticed,
}

/// What visitors noticed of the same thing, done again and again.
#[derive(Debug, Default)]
struct Noticed {
    pause: Series,
    requests: u64,
    failed: u64,
}

/// What backups took and stored.
#[derive(Debug, Default)]
struct Kept {
    took: Series,
    mib: Vec<f64>,
    percent: Vec<f64>,
}

/// A site with a data directory of some size.
struct Stock {
    world: World,
    site: Site,
    fleet: Fleet,
    room: OwnedRoomId,
    random: Rng,
}

impl Stock {
    async fn lay(conduit: &Binary, mib: usize) -> Result<Self> {
        let world = World::open(Options::default()).await?;
        let site = world.site(PRODUCTION_NAME, conduit).await?;
        site.follow("bootstrap.md", &[]).await?;
        let fleet = Fleet::settle(&site).await?;
        let alias = format!("#fleet-social:{PRODUCTION_NAME}");
        let alias =
            OwnedRoomAliasId::try_from(alias.as_str()).or_harness(|| format!("name `{alias}`"))?;
        let room = fleet.clients[0].resolve(&alias).await?;
        let mut stock = Self {
            world,
            site,
            fleet,
            room,
            random: Rng::with_seed(mib as u64),
        };
        let free = stock
            .number("df --output=avail -m /opt/conduit | tail -n 1")
            .await?;
        // The data, the repository, and twice what is restored or copied beside.
        if free < 4 * mib as u64 {
            return Err(Failure::environment(format!(
                "keep a site of {mib} MiB four times over: {free} MiB are free; ask for less by `--mib`, or free space where \
                 docker keeps its volumes"
            )));
        }
        stock.grow(mib << 20).await?;
        Ok(stock)
    }

    /// Uploads files until it has so many bytes more. Their sizes are those of pictures and films: from 10 kB to 12 MiB, as
    /// many from each power of two.
    async fn grow(&mut self, bytes: usize) -> Result<()> {
        const LEAST: f64 = 1e4;
        const MOST: f64 = (12 << 20) as f64;
        let task = ui::Task::begin(1, format!("upload {} MiB of media", bytes >> 20));
        let mut done = 0;
        while done < bytes {
            let length = (LEAST * (MOST / LEAST).powf(self.random.f64())) as usize;
            let length = length.min(bytes - done);
            let content = fixtures::media::pseudo_random(self.random.u64(..), length);
            self.fleet.clients[1]
                .upload(&content, "application/octet-stream")
                .await?;
            done += length;
            task.parts(done as u64, bytes as u64);
        }
        task.end("done");
        Ok(())
    }

    async fn number(&self, command: &str) -> Result<u64> {
        let said = self.site.host.shell(command).await?;
        said.trim()
            .parse()
            .or_harness(|| format!("read a number from `{command}`"))
    }

    async fn mib(&self, path: &str) -> Result<u64> {
        self.number(&format!("du -sm {path} | cut -f 1")).await
    }

    /// What those who use the site notice while something is done to it. They are there before, and see it come back.
    async fn used(&self, seen: &mut Noticed, done: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let word = format!("{}", seen.requests);
        let visitors = Visitors::come(&self.site, &self.fleet, &self.room, &word);
        let done = done().await;
        let what = visitors.leave().await;
        done?;
        seen.pause.push(what.pause);
        seen.failed += what.failed.len() as u64;
        seen.requests += what.failed.len() as u64 + what.polls + what.syncs + what.count() as u64;
        if let Some(failure) = what.failed.first() {
            ui::say(format!(
                "    {} failed, first: {failure}",
                what.failed.len()
            ));
        }
        Ok(())
    }

    /// A backup of which nobody is to notice anything, then the design's way.
    async fn usage(&self, usage: &mut Usage) -> Result<()> {
        self.used(&mut usage.backup, async || {
            backed_up(&self.site).await.map(|_| ())
        })
        .await?;
        self.used(&mut usage.plain, async || {
            self.site.host.shell(STOP_COPY_START).await.map(|_| ())
        })
        .await
    }

    async fn keep(&self, kept: &mut Kept) -> Result<()> {
        const STORE: &str = "/opt/conduit/backups/restic";
        let before = self
            .number(&format!(
                "du -sb {STORE} 2>/dev/null | cut -f 1 | grep . || echo 0"
            ))
            .await?;
        let began = Instant::now();
        self.site
            .host
            .shell("/opt/conduit/scripts/backup.sh")
            .await?;
        kept.took.push(began.elapsed());
        let stored = self
            .number(&format!("du -sb {STORE} | cut -f 1"))
            .await?
            .saturating_sub(before);
        let all = self.number("du -sb /opt/conduit/data | cut -f 1").await?;
        kept.mib.push(stored as f64 / f64::from(1 << 20));
        kept.percent.push(stored as f64 * 100.0 / all as f64);
        Ok(())
    }

    /// A restore to the same host, and a plain copy of the same data onto the same disk.
    async fn restore(&self, restore: &mut Series, copy: &mut Series) -> Result<()> {
        let host = &self.site.host;
        host.shell("systemctl stop conduit").await?;
        restore.push(
            self.timed("/opt/conduit/scripts/restore.sh latest --replace --drain 0")
                .await?,
        );
        host.shell("rm -rf /opt/conduit/data.before-*; sync -f /opt/conduit")
            .await?;
        copy.push(
            self.timed("cp -a /opt/conduit/data /opt/conduit/copied && sync -f /opt/conduit")
                .await?,
        );
        host.shell("rm -rf /opt/conduit/copied; sync -f /opt/conduit")
            .await
            .map(|_| ())
    }

    async fn timed(&self, command: &str) -> Result<Duration> {
        let began = Instant::now();
        self.site.host.shell(command).await?;
        Ok(began.elapsed())
    }
}

/// What a backup costs on a site of [`SMALL`] and on one of at least `mib` mebibytes; `times` readings of each.
///
/// # Errors
/// Whatever keeps a backup, a copy or a restore from being made.
pub async fn backup(conduit: &Binary, mib: usize, times: u32) -> Result<Costs> {
    let small = Stock::lay(conduit, SMALL).await?;
    let mut large = Stock::lay(conduit, mib).await?;
    let mut costs = Costs::default();
    costs.name(
        small.mib("/opt/conduit/data").await?,
        large.mib("/opt/conduit/data").await?,
    );
    for _ in 0..times {
        large.site.host.shell(FORGET).await?;
        large.keep(&mut costs.first).await?;
        large.grow(((mib << 20) as f64 * CHANGE) as usize).await?;
        large.keep(&mut costs.incremental).await?;
        small.usage(&mut costs.small).await?;
        large.usage(&mut costs.large).await?;
        large.restore(&mut costs.restore, &mut costs.copy).await?;
    }
    small.world.close().await?;
    large.world.close().await?;
    Ok(costs)
}

impl Costs {
    fn name(&mut self, small: u64, large: u64) {
        for (usage, mib) in [(&mut self.small, small), (&mut self.large, large)] {
            usage.mib = mib;
            usage.backup.pause = Series::new(format!("longest pause during a backup of {mib} MiB"));
            usage.plain.pause = Series::new(format!(
                "longest pause during stop, copy, start of {mib} MiB"
            ));
        }
        self.first.took = Series::new(format!("first backup of {large} MiB"));
        self.incremental.took =
            Series::new(format!("backup after a change of {} %", CHANGE * 100.0));
        self.restore = Series::new(format!(
            "restore of {large} MiB, until it has proved itself"
        ));
        self.copy = Series::new("copy of the same data on the same disk".to_owned());
    }
}

/// The quotient of two medians.
fn quotient(one: &Series, other: &Series) -> f64 {
    one.median().unwrap_or(f64::NAN) / other.median().unwrap_or(f64::NAN)
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{PACE} messages/s and a question every 10 ms through the proxy:"
        )?;
        for usage in [&self.small, &self.large] {
            for seen in [&usage.backup, &usage.plain] {
                writeln!(
                    f,
                    "  {}; {} of {} requests failed",
                    seen.pause, seen.failed, seen.requests
                )?;
            }
        }
        writeln!(
            f,
            "  pauses during a backup, {} MiB to {} MiB: {:.2} of the medians",
            self.large.mib,
            self.small.mib,
            quotient(&self.large.backup.pause, &self.small.backup.pause)
        )?;
        for kept in [&self.first, &self.incremental] {
            writeln!(f, "{}", kept.took)?;
            for (mib, percent) in kept.mib.iter().zip(&kept.percent) {
                writeln!(f, "  stored {mib:.1} MiB, {percent:.2} % of the data")?;
            }
        }
        writeln!(
            f,
            "  {:.2} of the first one's time",
            quotient(&self.incremental.took, &self.first.took)
        )?;
        writeln!(f, "{}\n{}", self.restore, self.copy)?;
        writeln!(
            f,
            "  restored at {:.2} of the copy's speed",
            quotient(&self.copy, &self.restore)
        )
    }
}
