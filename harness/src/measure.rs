//! The figures that the README names, each as a series of runs with its spread: a lone number is no reading.

mod backup;
pub use backup::{Costs, backup};

use crate::authority::PRODUCTION_NAME;
use crate::corruption::{Bench, Score};
use crate::drill::Sample;
use crate::failure::{Failure, OrBlame, Result};
use crate::homeserver::Binary;
use crate::host::Needs;
use crate::rehearse::{Fleet, backed_up};
use crate::site::Site;
use crate::sweep::{self, Family, Sweep};
use crate::world::{Options, World};
use crate::{tools, ui};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

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

/// Which of so many corruptions of a small site's backup are caught, and by what.
///
/// # Errors
/// Whatever keeps one of them from being judged.
pub async fn mutations(conduit: &Binary, seed: u64, count: usize) -> Result<Score> {
    let directory =
        tempfile::tempdir().or_environment(|| "make a directory for the store".to_owned())?;
    let home = World::open(Options::default()).await?;
    let sample = Sample::make(&home, conduit, directory.path()).await?;
    home.close().await?;
    let world = World::open(Options::default()).await?;
    let bench = Bench::set_up(&world, conduit, &sample).await?;
    let score = Score::take(&bench, seed, count).await?;
    world.close().await?;
    Ok(score)
}

/// Which of so many faults of these kinds backup and restore of a small site do not survive as they must.
///
/// # Errors
/// Whatever keeps one of them from being judged.
pub async fn faults(
    conduit: &Binary,
    seed: u64,
    count: usize,
    families: &[Family],
) -> Result<Sweep> {
    let world = World::open(Options::default()).await?;
    let bench = sweep::Bench::set_up(&world, conduit).await?;
    let draw = bench.draw(seed).of(families);
    let sweep = Sweep::take(&bench, draw, count).await?;
    world.close().await?;
    Ok(sweep)
}

/// What `health.sh` said, again and again, of a site that was well and busy.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Messages that the site took, and those that it refused or did not answer.
    sent: u64,
    lost: u64,
    /// How many the schedule had.
    planned: u64,
    /// Runs by their verdict.
    verdicts: BTreeMap<String, u64>,
    /// What was wrong, in the words of the check, with the minute in which it was.
    complaints: Vec<String>,
    canary: Vec<f64>,
    duration: Vec<f64>,
}

/// One object of `health.sh --json`, as far as it matters here.
#[derive(Deserialize)]
struct Health {
    status: String,
    seconds: f64,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    status: String,
    detail: String,
    values: Vec<Measured>,
}

#[derive(Deserialize)]
struct Measured {
    value: f64,
}

/// Messages a second, of the whole fleet.
const PACE: u32 = 5;
/// Time between two runs of `health.sh`.
const EVERY: Duration = Duration::from_secs(15);

/// Lets the fleet talk through the proxy at a steady pace for so many minutes, everybody reading along, while `health.sh`
/// looks at the site every 15 seconds.
///
/// # Errors
/// Whatever keeps the site from being made, or from being well before the load begins.
pub async fn health(conduit: &Binary, minutes: u32) -> Result<Watch> {
    let world = World::open(Options::default()).await?;
    let site = world.site(PRODUCTION_NAME, conduit).await?;
    site.follow("bootstrap.md", &[]).await?;
    backed_up(&site).await?;
    let fleet = Fleet::settle(&site).await?;
    let mut rooms = Vec::new();
    for alias in ["fleet-intel", "fleet-social"] {
        let alias = format!("#{alias}:{PRODUCTION_NAME}");
        let alias = ruma::OwnedRoomAliasId::try_from(alias.as_str())
            .or_harness(|| format!("name `{alias}`"))?;
        rooms.push(fleet.clients[0].resolve(&alias).await?);
    }
    let mut watch = Watch::default();
    watch.look(&site, Duration::ZERO).await?;
    if let Some(complaint) = watch.complaints.first() {
        return Err(
            Failure::environment("begin with a site that is well").last_seen(complaint.clone())
        );
    }
    let task = ui::Task::begin(1, format!("talk and look for {minutes} minutes"));
    let began = Instant::now();
    let end = began + Duration::from_secs(u64::from(minutes) * 60);
    let sent = Arc::new(AtomicU64::new(0));
    let lost = Arc::new(AtomicU64::new(0));
    let mut people = JoinSet::new();
    let cast = u32::try_from(fleet.clients.len()).unwrap_or(1);
    for (number, client) in (0_u32..).zip(&fleet.clients) {
        // Each speaks in turn, and waits for the answer before the next: there is never more than one request of each.
        let (talker, sent, lost, rooms) =
            (client.clone(), sent.clone(), lost.clone(), rooms.clone());
        people.spawn(async move {
            let first = tokio::time::Instant::now() + Duration::from_secs(1) * number / PACE;
            let mut pulse = tokio::time::interval_at(first, Duration::from_secs(1) * cast / PACE);
            pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut turn = 0_usize;
            while Instant::now() < end {
                pulse.tick().await;
                turn += 1;
                let room = &rooms[turn % rooms.len()];
                match talker.try_say(room, &format!("message {turn}")).await {
                    Ok(answer) if answer.accepted() => sent.fetch_add(1, Ordering::Relaxed),
                    _ => lost.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
        let reader = client.clone();
        people.spawn(async move {
            let mut since: Option<String> = None;
            while Instant::now() < end {
                let poll = reader.try_sync(since.as_deref(), Duration::from_secs(10), None);
                match poll.await.and_then(|answer| answer.must()) {
                    Ok(answer) => since = Some(answer.next_batch),
                    // Not in a tight circle; what is wrong with the site the health check must say.
                    Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            }
        });
    }
    let mut pulse = tokio::time::interval(EVERY);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while Instant::now() < end {
        pulse.tick().await;
        watch.look(&site, began.elapsed()).await?;
        task.parts(began.elapsed().as_secs() / 60, u64::from(minutes));
    }
    while people.join_next().await.is_some() {}
    task.end("done");
    watch.sent = sent.load(Ordering::Relaxed);
    watch.lost = lost.load(Ordering::Relaxed);
    watch.planned = u64::from(minutes) * 60 * u64::from(PACE);
    world.close().await?;
    Ok(watch)
}

impl Watch {
    async fn look(&mut self, site: &Site, at: Duration) -> Result<()> {
        let said = site
            .host
            .try_shell("/opt/conduit/scripts/health.sh --json")
            .await?;
        let health: Health = serde_json::from_str(&said.stdout).map_err(|error| {
            Failure::deployment("read what `health.sh --json` says")
                .last_seen(format!("{}{}", said.stdout, said.stderr))
                .because(error)
        })?;
        *self.verdicts.entry(health.status).or_default() += 1;
        self.duration.push(health.seconds);
        for check in health.checks {
            // On a bootstrapped site nothing may be skipped.
            if check.status != "ok" {
                self.complaints.push(format!(
                    "minute {}: {} {}: {}",
                    at.as_secs() / 60,
                    check.name,
                    check.status,
                    check.detail
                ));
            }
            if check.name == "canary" {
                self.canary.extend(check.values.iter().map(|of| of.value));
            }
        }
        Ok(())
    }

    /// Nothing ever turned, and there was something that could have made it turn.
    ///
    /// # Errors
    /// Every check that left ok; or that the load was not what it should have been, and nothing is known.
    pub fn judge(&self) -> Result<()> {
        if !self.complaints.is_empty() {
            return Err(Failure::deployment("leave a healthy site's health alone")
                .last_seen(self.complaints.join("\n")));
        }
        if self.verdicts.is_empty() || self.sent * 10 < self.planned * 9 {
            return Err(Failure::environment(format!(
                "load the site: {} of {} messages were sent",
                self.sent, self.planned
            ))
            .hint("this machine has other work; measure again when it has less"));
        }
        Ok(())
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdicts: Vec<_> = self
            .verdicts
            .iter()
            .map(|(verdict, count)| format!("{count} {verdict}"))
            .collect();
        writeln!(f, "health.sh under load: {}", verdicts.join(", "))?;
        for complaint in &self.complaints {
            writeln!(f, "  {complaint}")?;
        }
        writeln!(
            f,
            "messages: {} sent of {} planned, {} refused or unanswered",
            self.sent, self.planned, self.lost
        )?;
        writeln!(f, "canary: {}", spread(&self.canary, "ms"))?;
        write!(f, "one run: {}", spread(&self.duration, "s"))
    }
}

fn spread(readings: &[f64], unit: &str) -> String {
    let mut sorted = readings.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(most)) => format!("median {median} {unit}, at most {most} {unit}"),
        _ => "no readings".to_owned(),
    }
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

    #[test]
    fn a_watch_is_judged_by_every_complaint_and_by_the_load() {
        let quiet = Watch {
            sent: 300,
            planned: 300,
            verdicts: BTreeMap::from([("ok".to_owned(), 4)]),
            ..Watch::default()
        };
        quiet.judge().expect("nothing turned");
        let idle = Watch {
            sent: 200,
            ..quiet.clone()
        };
        idle.judge().expect_err("there was no load");
        let loud = Watch {
            complaints: vec!["minute 3: disk warning: full".to_owned()],
            ..quiet
        };
        let letter = loud.judge().expect_err("a check turned").to_string();
        assert!(letter.contains("minute 3: disk warning"), "{letter}");
    }
}
