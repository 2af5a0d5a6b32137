//! Doubt: whether the generator, or the machine, has distorted what it measured. Rules were set beforehand; a figure
//! that one of them strikes is not valid, and says why.

use crate::open::Driven;
use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// The most that 99 of 100 sends may go out late, in milliseconds.
pub const SLIP_P99: f64 = 1.0;
/// The most that 999 of 1,000 may.
pub const SLIP_P999: f64 = 5.0;
/// The least of the offered rate that must be achieved.
pub const ACHIEVED: f64 = 0.99;
/// The most of one core that the generator may need: beyond, its own queues begin to show.
pub const BUSY: f64 = 0.5;
/// The most of the machine that others may steal.
pub const STEAL: f64 = 0.05;

/// The clocks by which a run is doubted.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    at: Instant,
    own: f64,
    ticks: Ticks,
    waiting: Option<f64>,
    waiting_for_disk: Option<f64>,
}

/// Of all processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    all: u64,
    idle: u64,
    stolen: u64,
}

impl Clocks {
    /// Reads them now.
    ///
    /// # Errors
    /// `/proc/stat` cannot be read.
    pub fn read() -> Result<Self> {
        let ticks = ticks(&std::fs::read_to_string("/proc/stat").context("read `/proc/stat`")?)
            .context("find the processors' times in `/proc/stat`")?;
        let own = clock_gettime(ClockId::ProcessCPUTime);
        #[expect(clippy::cast_precision_loss, reason = "a time of a run")]
        let own = own.tv_sec as f64 + own.tv_nsec as f64 / 1e9;
        let pressure = |of: &str| {
            let text = std::fs::read_to_string(Path::new("/proc/pressure").join(of)).ok()?;
            waiting(&text)
        };
        Ok(Self {
            at: Instant::now(),
            own,
            ticks,
            waiting: pressure("cpu"),
            waiting_for_disk: pressure("io"),
        })
    }
}

/// What the clocks of a run, or of each shard of one, came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doubt {
    /// How long it went on.
    pub seconds: f64,
    /// Processor time of all generators, in seconds.
    pub own: f64,
    /// The share of one core that the busiest of them needed.
    pub busy: f64,
    /// The share of its machine that was stolen, where it was the most.
    pub steal: f64,
    /// The share of the time in which somebody waited for a processor, where it was the most.
    pub pressure: Option<f64>,
    /// The share of the time in which somebody waited for a disk, where it was the most.
    pub disk: Option<f64>,
    /// The share of its processors that a machine had left, where it was the least.
    pub idle: f64,
}

/// The greater of two, where there is one.
fn greater(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

impl Doubt {
    /// From the clocks before and after.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run")]
    pub fn between(from: &Clocks, to: &Clocks) -> Self {
        let seconds = (to.at - from.at).as_secs_f64();
        let own = to.own - from.own;
        let ticks = |of: fn(&Ticks) -> u64| (of(&to.ticks) - of(&from.ticks)) as f64;
        let all = ticks(|ticks| ticks.all).max(1.0);
        let share = |to: Option<f64>, from: Option<f64>| Some((to? - from?) / seconds);
        Self {
            seconds,
            own,
            busy: own / seconds,
            steal: ticks(|ticks| ticks.stolen) / all,
            pressure: share(to.waiting, from.waiting),
            disk: share(to.waiting_for_disk, from.waiting_for_disk),
            idle: ticks(|ticks| ticks.idle) / all,
        }
    }

    /// Adds another generator of the same run: no share is averaged away.
    pub fn merge(&mut self, other: &Self) {
        self.seconds = self.seconds.max(other.seconds);
        self.own += other.own;
        self.busy = self.busy.max(other.busy);
        self.steal = self.steal.max(other.steal);
        self.pressure = greater(self.pressure, other.pressure);
        self.disk = greater(self.disk, other.disk);
        self.idle = self.idle.min(other.idle);
    }
}

/// All ticks of all processors, with those of idleness and those that were stolen.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    Some(Ticks {
        all: ticks.iter().take(8).sum(),
        // Waiting for a disk is idleness of a processor.
        idle: ticks.get(3)? + ticks.get(4)?,
        stolen: *ticks.get(7)?,
    })
}

/// Seconds in which somebody waited for a processor.
fn waiting(pressure: &str) -> Option<f64> {
    let total = pressure
        .lines()
        .next()?
        .strip_prefix("some ")?
        .rsplit_once("total=")?
        .1;
    Some(total.trim().parse::<f64>().ok()? / 1e6)
}

/// What a run says about itself.
#[derive(Clone, Debug, Serialize)]
pub struct Validity {
    /// How late sends went out, in milliseconds: p50, p99 and p99.9 whatever their number, for they judge us.
    pub slip_ms: [f64; 3],
    /// Sends per second that were scheduled.
    pub offered: f64,
    /// Of these, the share that was sent and answered in the time of the schedule.
    pub achieved: f64,
    /// Processor time of the generator, as a share of one core.
    pub generator_busy: f64,
    /// The same as a share of what the server needed, if that is known.
    pub generator_of_server: Option<f64>,
    /// The share of the machine that its host took away.
    pub steal: f64,
    /// The share of the time in which somebody on this machine waited for a processor.
    pub pressure: Option<f64>,
    /// Why no figure of the run may be quoted; empty is good.
    pub against_all: Vec<String>,
    /// Why its latencies may not be quoted, besides.
    pub against_latency: Vec<String>,
}

impl Validity {
    /// Judges a run of so many scheduled sends by its clocks.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run")]
    pub fn judge(driven: &Driven, scheduled: u64, doubt: &Doubt, server_cpu: Option<f64>) -> Self {
        let slip = |share| driven.slip.quantile_ms(share).unwrap_or_default();
        let mut validity = Self {
            slip_ms: [slip(0.5), slip(0.99), slip(0.999)],
            offered: scheduled as f64 / doubt.seconds,
            achieved: driven.accepted as f64 / scheduled as f64,
            generator_busy: doubt.busy,
            generator_of_server: server_cpu
                .filter(|cpu| *cpu > 0.0)
                .map(|cpu| doubt.own / cpu),
            steal: doubt.steal,
            pressure: doubt.pressure,
            against_all: Vec::new(),
            against_latency: Vec::new(),
        };
        validity.apply_rules(driven.answered);
        validity
    }

    fn apply_rules(&mut self, answered: u64) {
        if answered == 0 {
            self.against_all
                .push("nothing was answered: there is nothing to quote".to_owned());
        }
        if self.achieved < ACHIEVED {
            let percent = self.achieved * 100.0;
            self.against_all.push(format!(
                "{percent:.1} % of the scheduled sends were accepted, less than 99 %"
            ));
        }
        for (slip, limit, name) in [
            (self.slip_ms[1], SLIP_P99, "p99"),
            (self.slip_ms[2], SLIP_P999, "p99.9"),
        ] {
            if slip > limit {
                self.against_latency.push(format!(
                    "send slip {name} is {slip:.2} ms, more than {limit} ms"
                ));
            }
        }
        if self.generator_busy > BUSY {
            let percent = self.generator_busy * 100.0;
            self.against_latency.push(format!(
                "the generator needed {percent:.0} % of a core, more than 50 %"
            ));
        }
        if self.steal > STEAL {
            self.against_latency.push(format!(
                "{:.1} % of the machine was stolen, more than 5 %",
                self.steal * 100.0
            ));
        }
    }

    /// Whether its costs may be quoted.
    pub fn costs(&self) -> bool {
        self.against_all.is_empty()
    }

    /// Whether its latencies may be quoted.
    pub fn latencies(&self) -> bool {
        self.costs() && self.against_latency.is_empty()
    }

    /// For a person: the word, then the figures behind it.
    pub fn lines(&self) -> String {
        let word = match (self.costs(), self.latencies()) {
            (true, true) => "valid".to_owned(),
            (true, false) => format!("INVALID for latencies: {}", self.against_latency.join("; ")),
            (false, _) => {
                let against: Vec<_> = self
                    .against_all
                    .iter()
                    .chain(&self.against_latency)
                    .cloned()
                    .collect();
                format!("INVALID: {}", against.join("; "))
            }
        };
        let percent = |share: Option<f64>| {
            share.map_or("unknown".to_owned(), |share| {
                format!("{:.0} %", share * 100.0)
            })
        };
        format!(
            "{word}\n  slip p50 {:.3} p99 {:.3} p99.9 {:.3} ms; offered {:.1}/s, accepted {:.1} %; generator {:.0} % of a \
             core, {} of the server's CPU; steal {:.1} %, pressure {}",
            self.slip_ms[0],
            self.slip_ms[1],
            self.slip_ms[2],
            self.offered,
            self.achieved * 100.0,
            self.generator_busy * 100.0,
            percent(self.generator_of_server),
            self.steal * 100.0,
            percent(self.pressure),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Validity {
        Validity {
            slip_ms: [0.06, 0.4, 2.0],
            offered: 100.0,
            achieved: 1.0,
            generator_busy: 0.1,
            generator_of_server: Some(0.2),
            steal: 0.0,
            pressure: Some(0.3),
            against_all: Vec::new(),
            against_latency: Vec::new(),
        }
    }

    fn judged(change: impl Fn(&mut Validity)) -> Validity {
        let mut validity = clean();
        change(&mut validity);
        validity.apply_rules(1_000);
        validity
    }

    #[test]
    fn a_clean_run_is_valid() {
        assert!(judged(|_| ()).latencies());
    }

    #[test]
    fn each_rule_strikes_what_it_is_about() {
        let late = judged(|run| run.slip_ms[1] = 1.2);
        assert!(
            late.costs()
                && !late.latencies()
                && late
                    .lines()
                    .starts_with("INVALID for latencies: send slip p99")
        );
        assert!(!judged(|run| run.slip_ms[2] = 5.1).latencies());
        assert!(!judged(|run| run.generator_busy = 0.6).latencies());
        assert!(!judged(|run| run.steal = 0.06).latencies());
        let short = judged(|run| run.achieved = 0.98);
        assert!(
            !short.costs() && !short.latencies() && short.lines().starts_with("INVALID: 98.0 %")
        );
        let mut silent = clean();
        silent.apply_rules(0);
        assert!(!silent.costs());
    }

    #[test]
    fn the_clocks_of_the_kernel_are_read() {
        let read = ticks("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1").expect("ticks");
        assert_eq!((read.all, read.idle, read.stolen), (36, 9, 8));
        assert_eq!(
            waiting("some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull"),
            Some(2.5)
        );
        Clocks::read().expect("this machine has them");
    }
}
