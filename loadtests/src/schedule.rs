//! When what is sent: drawn from one seed before anything starts, so that every server is put to the same work and
//! latency can count from the moment that was meant.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// How arrivals follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Independent of each other, as many people together are.
    Poisson,
    /// Each sender like a clock with a phase of its own and a tenth of jitter, as telemetry bots are.
    Periodic,
}

/// What is drawn from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The same seed gives the same schedule, everywhere.
    pub seed: u64,
    /// Arrivals per second, of all senders together.
    pub rate: f64,
    /// How long arrivals go on.
    pub length: Duration,
    /// Who sends: numbers below this.
    pub senders: u32,
    /// How arrivals follow each other.
    pub arrivals: Arrivals,
    /// How many words each says; as people do if nothing is given.
    pub words: Option<u32>,
}

/// One thing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its place in the schedule, from 0.
    pub seq: u64,
    /// When, in nanoseconds from the start.
    pub at: u64,
    /// By whom.
    pub sender: u32,
    /// How many words it says.
    pub words: u32,
}

/// All arrivals in their order, with the hash by which two runs know that they did the same.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// In the order of their times.
    pub arrivals: Vec<Arrival>,
    /// SHA-256 over all of them, in hexadecimal.
    pub hash: String,
}

impl Plan {
    /// Draws the schedule.
    ///
    /// # Errors
    /// A plan that cannot be drawn, with the reason.
    pub fn draw(&self) -> Result<Schedule, String> {
        if !(self.rate.is_finite() && self.rate > 0.0) {
            return Err(format!(
                "a rate of {} per second cannot be kept: give one above 0",
                self.rate
            ));
        }
        if self.senders == 0 {
            return Err("a plan without senders sends nothing: give at least 1".to_owned());
        }
        let expected = self.rate * self.length.as_secs_f64();
        if expected > 20_000_000.0 {
            return Err(format!(
                "{expected:.0} arrivals do not fit into memory: lower the rate or the length"
            ));
        }
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut drawn = match self.arrivals {
            Arrivals::Poisson => self.poisson(&mut random),
            Arrivals::Periodic => self.periodic(&mut random),
        };
        drawn.sort_unstable();
        let mut hasher = Sha256::new();
        let arrivals: Vec<_> = (0..)
            .zip(drawn)
            .map(|(seq, (at, sender, words))| Arrival {
                seq,
                at,
                sender,
                words: self.words.unwrap_or(words),
            })
            .inspect(|arrival| {
                hasher.update(arrival.at.to_le_bytes());
                hasher.update(arrival.sender.to_le_bytes());
                hasher.update(arrival.words.to_le_bytes());
            })
            .collect();
        if arrivals.is_empty() {
            return Err(format!(
                "{expected:.2} arrivals are expected and none was drawn: raise the rate or the length"
            ));
        }
        Ok(Schedule {
            arrivals,
            hash: format!("{:x}", hasher.finalize()),
        })
    }

    fn poisson(&self, random: &mut fastrand::Rng) -> Vec<(u64, u32, u32)> {
        let end = self.length.as_secs_f64();
        let mut drawn = Vec::new();
        let mut at = 0.0;
        loop {
            // `f64` is below 1, so that the logarithm is of something above 0.
            at -= (1.0 - random.f64()).ln() / self.rate;
            if at >= end {
                return drawn;
            }
            drawn.push((nanoseconds(at), random.u32(..self.senders), words(random)));
        }
    }

    fn periodic(&self, random: &mut fastrand::Rng) -> Vec<(u64, u32, u32)> {
        let end = self.length.as_secs_f64();
        let period = f64::from(self.senders) / self.rate;
        let mut drawn = Vec::new();
        for sender in 0..self.senders {
            let mut tick = random.f64() * period;
            while tick < end {
                let at = tick + (random.f64() - 0.5) * 0.2 * period;
                if (0.0..end).contains(&at) {
                    drawn.push((nanoseconds(at), sender, words(random)));
                }
                tick += period;
            }
        }
        drawn
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time of a schedule is small and positive"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Lognormal(1, 1) by Box and Muller, at least 1 and at most 69: as people write.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped"
)]
fn words(random: &mut fastrand::Rng) -> u32 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
    (1.0 + normal).exp().clamp(1.0, 69.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64, arrivals: Arrivals) -> Plan {
        Plan {
            seed,
            rate: 200.0,
            length: Duration::from_secs(50),
            senders: 20,
            arrivals,
            words: None,
        }
    }

    #[test]
    fn one_seed_gives_one_schedule_and_another_seed_another() {
        for arrivals in [Arrivals::Poisson, Arrivals::Periodic] {
            let first = plan(7, arrivals).draw().expect("drawn");
            let again = plan(7, arrivals).draw().expect("drawn");
            assert_eq!(first.hash, again.hash);
            assert_eq!(first.arrivals, again.arrivals);
            assert_ne!(first.hash, plan(8, arrivals).draw().expect("drawn").hash);
        }
    }

    #[test]
    fn the_rate_is_the_planned_one_and_arrivals_are_in_order() {
        for arrivals in [Arrivals::Poisson, Arrivals::Periodic] {
            let schedule = plan(3, arrivals).draw().expect("drawn");
            // 10,000 expected; five standard deviations of a Poisson count are 500.
            assert!(
                (9_500..=10_500).contains(&schedule.arrivals.len()),
                "{}",
                schedule.arrivals.len()
            );
            assert!(schedule.arrivals.is_sorted_by_key(|arrival| arrival.at));
            assert!(
                schedule
                    .arrivals
                    .iter()
                    .all(|arrival| arrival.at < 50_000_000_000)
            );
        }
    }

    #[test]
    fn a_plan_that_cannot_be_kept_is_refused_with_the_reason() {
        let refused = |change: fn(&mut Plan)| {
            let mut plan = plan(1, Arrivals::Poisson);
            change(&mut plan);
            plan.draw().expect_err("refused")
        };
        assert!(refused(|plan| plan.rate = 0.0).contains("above 0"));
        assert!(refused(|plan| plan.rate = f64::NAN).contains("above 0"));
        assert!(refused(|plan| plan.senders = 0).contains("at least 1"));
        assert!(refused(|plan| plan.rate = 1e9).contains("do not fit"));
        assert!(refused(|plan| plan.length = Duration::ZERO).contains("none was drawn"));
    }
}
