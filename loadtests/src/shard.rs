//! A run that is too much for one generator, in parts: each shard is a process that does its share of one schedule and
//! keeps what it measured in a file. Nothing is lost in [`merge`], for buckets of histograms are added and ledgers are
//! joined; what belongs to different runs is refused.

use crate::run::Shape;
use crate::samples::Samples;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The form of the file; it grows when a field changes.
const FORMAT: u32 = 1;
/// The most that the clocks of two machines may certainly differ, in milliseconds: beyond, a delivery from one to the
/// other cannot be timed.
const CLOCKS: f64 = 5.0;

/// Which part: this number, from 0, of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard {
    /// From 0, as Kubernetes counts.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl Shard {
    /// A run in one part.
    pub const WHOLE: Self = Self { number: 0, of: 1 };

    /// Whether this shard plays that person.
    pub fn has(self, person: u32) -> bool {
        person % self.of == self.number
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if number < of => Ok(Self { number, of }),
            Some((_, of @ 1..)) => Err(format!("{of} shards are numbered from 0 to {}", of - 1)),
            _ => Err(
                "a shard is given as `0/4`: its number from 0, and how many there are".to_owned(),
            ),
        }
    }
}

/// What a shard leaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Of this form.
    pub format: u32,
    /// Of the generator.
    pub version: String,
    /// In hexadecimal.
    pub seed: String,
    /// The hash of all that was planned.
    pub plan: String,
    /// The hash of the whole schedule.
    pub schedule: String,
    /// Which part.
    pub shard: Shard,
    /// What was planned.
    pub shape: Shape,
    /// What the run is called on its target.
    pub name: String,
    /// Where the load went.
    pub target: String,
    /// When all shards began, in milliseconds since 1970.
    pub began: u64,
    /// How far the target's clock is ahead of this machine's, at least and at most, in milliseconds.
    pub clock: [f64; 2],
    /// What was measured.
    pub samples: Samples,
}

impl Shape {
    /// By which two shards know that they are of the same plan.
    ///
    /// # Panics
    /// Never: a shape has a form in JSON.
    pub fn hash(&self) -> String {
        let text = serde_json::to_vec(self).expect("a shape has a form in JSON");
        format!("{:x}", Sha256::digest(text))
    }
}

impl Part {
    /// Of a run that has ended.
    pub fn new(shape: Shape, schedule: String, shard: Shard, samples: Samples) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: format!("{:x}", shape.plan.seed),
            plan: shape.hash(),
            schedule,
            shard,
            shape,
            name: String::new(),
            target: String::new(),
            began: 0,
            clock: [0.0; 2],
            samples,
        }
    }

    /// Reads one back.
    ///
    /// # Errors
    /// It is not there, not whole, or of another version.
    pub fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            version: String,
        }
        let name = path.display();
        let text = std::fs::read(path).with_context(|| format!("read the shard `{name}`"))?;
        // Its version first: what another version means by the rest is not known.
        let head: Head = serde_json::from_slice(&text).with_context(|| {
            format!("read the shard `{name}`: is it what `run --shard` wrote, and was that run to its end?")
        })?;
        if (head.format, head.version.as_str()) != (FORMAT, env!("CARGO_PKG_VERSION")) {
            bail!(
                "`{name}` was written by version {} (form {}) and this is {} (form {FORMAT}): run and merge all shards with one",
                head.version,
                head.format,
                env!("CARGO_PKG_VERSION")
            );
        }
        let part: Self =
            serde_json::from_slice(&text).with_context(|| format!("read the shard `{name}`"))?;
        if part.shape.hash() != part.plan || part.shard.number >= part.shard.of {
            bail!(
                "`{name}` was changed after it was written: its plan is not the one that its hash is of"
            );
        }
        Ok(part)
    }
}

/// A run that was put together again.
#[derive(Clone, Debug)]
pub struct Merged {
    /// What was planned.
    pub shape: Shape,
    /// The hash of its schedule.
    pub schedule: String,
    /// Of all shards.
    pub samples: Samples,
    /// Why latencies of the whole may not be quoted, besides what its samples say.
    pub doubts: Vec<String>,
}

/// Puts shards together again, in whatever order they come.
///
/// # Errors
/// They are not the shards of one run, each once.
pub fn merge(files: &[PathBuf]) -> Result<Merged> {
    let mut parts = Vec::new();
    for file in files {
        parts.push((file.display().to_string(), Part::read(file)?));
    }
    join(parts)
}

fn join(mut parts: Vec<(String, Part)>) -> Result<Merged> {
    parts.sort_by_key(|(_, part)| part.shard);
    let Some((first_name, first)) = parts.first().cloned() else {
        bail!("there is nothing to merge: give the files that `run --shard` wrote");
    };
    let mut there = BTreeSet::new();
    for (name, part) in &parts {
        let same = |what: &str, ours: &dyn fmt::Display, theirs: &dyn fmt::Display| {
            if ours.to_string() == theirs.to_string() {
                return Ok(());
            }
            bail!(
                "`{first_name}` and `{name}` are not of one run: their {what} differ, {ours} and {theirs}"
            )
        };
        same("seeds", &first.seed, &part.seed)?;
        same("plans", &&first.plan[..12], &&part.plan[..12])?;
        same("schedules", &first.schedule, &part.schedule)?;
        same("numbers of shards", &first.shard.of, &part.shard.of)?;
        same("names", &first.name, &part.name)?;
        same("targets", &first.target, &part.target)?;
        same("beginnings", &first.began, &part.began)?;
        if !there.insert(part.shard.number) {
            bail!(
                "shard {} is given twice, the second time as `{name}`: give each once",
                part.shard
            );
        }
    }
    let missing: Vec<_> = (0..first.shard.of)
        .filter(|number| !there.contains(number))
        .map(|number| format!("{number}/{}", first.shard.of))
        .collect();
    if !missing.is_empty() {
        bail!(
            "shard {} is missing: a part is not the run",
            missing.join(", ")
        );
    }
    let mut doubts = Vec::new();
    for (index, (one, ours)) in parts.iter().enumerate() {
        for (other, theirs) in &parts[index + 1..] {
            let apart = (ours.clock[0] - theirs.clock[1]).max(theirs.clock[0] - ours.clock[1]);
            if apart > CLOCKS {
                doubts.push(format!(
                    "the clocks of `{one}` and `{other}` differ by at least {apart:.0} ms, more than {CLOCKS} ms"
                ));
            }
        }
    }
    let mut samples = None::<Samples>;
    for (name, part) in parts {
        match &mut samples {
            None => samples = Some(part.samples),
            Some(samples) => samples
                .merge(part.samples)
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("merge `{name}`"))?,
        }
    }
    let samples = samples.context("there is nothing to merge")?;
    let planned = first.shape.plan.draw().map_err(anyhow::Error::msg)?;
    let meant = planned.arrivals.len() as u64;
    if planned.hash != first.schedule || samples.scheduled != meant {
        bail!(
            "the shards were to send {} of the plan's {meant} events: they were not made by this generator; run all with one",
            samples.scheduled
        );
    }
    Ok(Merged {
        shape: first.shape,
        schedule: first.schedule,
        samples,
        doubts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::{Latencies, OverTime};
    use crate::ledger::{Ledger, Outcome};
    use crate::open::{Came, Driven, Sent};
    use crate::run::Block;
    use crate::schedule::{Arrivals, Plan};
    use crate::validity::Doubt;
    use std::time::Duration;

    const READERS: u32 = 5;

    fn shape(seed: u64) -> Shape {
        let plan = Plan {
            seed,
            rate: 60.0,
            length: Duration::from_secs(40),
            senders: 7,
            arrivals: Arrivals::Poisson,
            words: None,
        };
        Shape {
            plan,
            members: 12,
            readers: READERS,
            rooms: 1,
            history: 0,
            warm: Duration::ZERO,
        }
    }

    /// What a generator measures that plays this part of the people. What the server does to an event is drawn from the
    /// event's number and the device's, so that it is the same whoever looks.
    fn measured(shard: Shard, doubt: Doubt) -> Part {
        let shape = shape(6);
        let schedule = shape.plan.draw().expect("drawn");
        let own = |reader: &u32| shard.has(shape.plan.senders + reader);
        let mut samples = Samples {
            scheduled: 0,
            driven: Driven::default(),
            delivered: Latencies::default(),
            over_time: OverTime::of(shape.plan.length),
            ledger: Ledger::new((0..READERS).filter(own)),
            troubles: [(
                "sync: 500".to_owned(),
                u64::from(shard.of == 1) * 4 + u64::from(shard.of > 1),
            )]
            .into(),
            syncs: 0,
            gaps: 0,
            doubt,
            interrupted: false,
        };
        for arrival in schedule.arrivals {
            let mut random = fastrand::Rng::with_seed(arrival.seq);
            let sent = arrival.at + random.u64(..400_000);
            let answered = sent + random.u64(100_000..30_000_000);
            let outcome = match random.u32(..100) {
                0 => Outcome::Refused,
                1 => Outcome::Unanswered,
                _ => Outcome::Accepted,
            };
            if shard.has(arrival.sender) {
                samples.scheduled += 1;
                let trouble = (outcome == Outcome::Refused).then(|| "429".to_owned());
                let came = Came { outcome, trouble };
                samples.driven.note(&Sent {
                    arrival,
                    sent,
                    answered,
                    came,
                });
                samples.ledger.sent(arrival.seq, sent, answered, outcome);
            }
            for device in (0..READERS).filter(own) {
                let mut random = fastrand::Rng::with_seed(arrival.seq << 8 | u64::from(device));
                // Some are lost, and some come twice.
                let times = match random.u32(..200) {
                    0 => 0,
                    1 => 2,
                    _ => 1,
                };
                for _ in 0..times {
                    let latency = random.u64(1_000_000..3_000_000_000);
                    samples.ledger.saw(device, arrival.seq);
                    samples.delivered.record(latency);
                    samples.over_time.record(arrival.at, latency);
                    samples.syncs += 2;
                }
            }
        }
        Part::new(shape, schedule.hash, shard, samples)
    }

    const DOUBT: Doubt = Doubt {
        seconds: 40.0,
        own: 2.0,
        busy: 0.25,
        steal: 0.01,
        pressure: Some(0.5),
        disk: None,
        idle: 0.4,
    };

    fn parts(of: u32) -> Vec<Part> {
        (0..of)
            .map(|number| measured(Shard { number, of }, DOUBT))
            .collect()
    }

    fn merged(parts: &[Part]) -> Result<Merged> {
        let directory = tempfile::tempdir().expect("a directory");
        let mut files = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            let file = directory.path().join(format!("{number}.json"));
            std::fs::write(&file, serde_json::to_string(part).expect("JSON")).expect("written");
            files.push(file);
        }
        merge(&files)
    }

    fn refused(parts: &[Part]) -> String {
        format!("{:#}", merged(parts).expect_err("refused"))
    }

    /// Through the files and in another order, four shards are the run in one part: each bucket, each send, each sight,
    /// and so each figure and each finding.
    #[test]
    fn merged_shards_are_the_run_in_one_part_exactly() {
        let whole = measured(Shard::WHOLE, Doubt { own: 8.0, ..DOUBT });
        let mut shards = parts(4);
        shards.reverse();
        let merged = merged(&shards).expect("merged");
        assert_eq!(merged.samples, whole.samples);
        assert!(merged.doubts.is_empty());
        let block = |samples, schedule| {
            serde_json::to_value(Block::of(samples, schedule, Default::default())).expect("JSON")
        };
        let told = block(merged.samples, merged.schedule);
        assert!(told["counts"]["lost"].as_u64() > Some(30), "{told:#}");
        // Each second of the run is drawn.
        let drawn = told["plots"][0]["series"][0]["points"].as_array();
        assert_eq!(drawn.map(Vec::len), Some(40));
        assert_eq!(told, block(whole.samples, whole.schedule));
    }

    #[test]
    fn what_is_not_one_run_is_not_merged_and_the_reason_is_told() {
        let shards = parts(3);
        let changed = |change: fn(&mut Part)| {
            let mut shards = shards.clone();
            change(&mut shards[1]);
            refused(&shards)
        };
        let missing = refused(&[shards[0].clone(), shards[2].clone()]);
        assert!(missing.contains("shard 1/3 is missing"), "{missing}");
        let doubled = refused(&[
            shards[0].clone(),
            shards[1].clone(),
            shards[1].clone(),
            shards[2].clone(),
        ]);
        assert!(doubled.contains("shard 1/3 is given twice"), "{doubled}");
        let version = changed(|part| "0.0.9".clone_into(&mut part.version));
        assert!(
            version.contains("was written by version 0.0.9"),
            "{version}"
        );
        let form = changed(|part| part.format = 0);
        assert!(form.contains("(form 0)"), "{form}");
        let seed = changed(|part| {
            *part = Part::new(
                shape(7),
                part.schedule.clone(),
                part.shard,
                part.samples.clone(),
            )
        });
        assert!(seed.contains("their seeds differ, 6 and 7"), "{seed}");
        let plan = changed(|part| {
            let shape = Shape {
                members: 13,
                ..shape(6)
            };
            *part = Part::new(
                shape,
                part.schedule.clone(),
                part.shard,
                part.samples.clone(),
            );
        });
        assert!(plan.contains("their plans differ"), "{plan}");
        let edited = changed(|part| part.shape.members = 13);
        assert!(
            edited.contains("was changed after it was written"),
            "{edited}"
        );
        let another = changed(|part| part.began = 5);
        assert!(
            another.contains("their beginnings differ, 0 and 5"),
            "{another}"
        );
        let of = changed(|part| part.shard.of = 4);
        assert!(
            of.contains("their numbers of shards differ, 3 and 4"),
            "{of}"
        );
        let twice = changed(|part| {
            let other = measured(Shard { number: 0, of: 3 }, DOUBT);
            part.samples = other.samples;
        });
        assert!(twice.contains("was sent by two of them"), "{twice}");
        let less = changed(|part| part.samples.scheduled -= 1);
        assert!(less.contains("of the plan's"), "{less}");
        let directory = tempfile::tempdir().expect("a directory");
        let cut = directory.path().join("cut.json");
        let text = serde_json::to_string(&shards[0]).expect("JSON");
        std::fs::write(&cut, &text[..text.len() / 2]).expect("written");
        let cut = format!("{:#}", merge(&[cut]).expect_err("refused"));
        assert!(cut.contains("was that run to its end?"), "{cut}");
    }

    #[test]
    fn clocks_that_certainly_differ_strike_the_latencies() {
        let mut shards = parts(2);
        shards[0].clock = [-1.0, 2.0];
        shards[1].clock = [1.5, 4.0];
        assert!(merged(&shards).expect("merged").doubts.is_empty());
        shards[1].clock = [9.0, 12.0];
        let doubts = merged(&shards).expect("merged").doubts;
        assert!(
            doubts.len() == 1 && doubts[0].contains("at least 7 ms"),
            "{doubts:?}"
        );
    }

    #[test]
    fn a_shard_is_read_as_it_is_written_and_nonsense_is_refused() {
        let shard: Shard = "3/4".parse().expect("a shard");
        assert_eq!(shard.to_string(), "3/4");
        assert!(shard.has(7) && !shard.has(6));
        for (nonsense, why) in [
            ("4/4", "from 0 to 3"),
            ("0/0", "`0/4`"),
            ("1", "`0/4`"),
            ("a/b", "`0/4`"),
        ] {
            let refused = nonsense.parse::<Shard>().expect_err("refused");
            assert!(refused.contains(why), "{refused}");
        }
    }
}
