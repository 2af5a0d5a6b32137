//! The ledger of deliveries: every accepted event reaches every device that waits for it, once and in order.
//!
//! Order is judged where it is certain: if one event was acknowledged before another was sent, nobody may see the
//! other one first. Between sends that overlap the server may choose. A send that was never answered may or may not
//! have happened (a timeout is no refusal): its event may be seen, and is not missed.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What came of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The server has taken it.
    Accepted,
    /// The server has certainly not taken it.
    Refused,
    /// Nobody knows.
    Unanswered,
}

/// A send: when it went out and when its answer came, in nanoseconds from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    sent: u64,
    answered: u64,
    outcome: Outcome,
}

/// Something that must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "finding", rename_all = "lowercase")]
pub enum Finding {
    /// Accepted, and never seen by the device.
    Lost {
        /// Which device.
        device: u32,
        /// Which event.
        seq: u64,
    },
    /// Seen by the device more than once.
    Duplicated {
        /// Which device.
        device: u32,
        /// Which event.
        seq: u64,
        /// How often, above one.
        times: u32,
    },
    /// Seen after an event that was sent only once this one had been acknowledged.
    Reordered {
        /// Which device.
        device: u32,
        /// The event that came too late.
        seq: u64,
        /// The event that it came after.
        after: u64,
    },
    /// Seen, though it was never sent or was refused.
    Alien {
        /// Which device.
        device: u32,
        /// Which event.
        seq: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { device, seq } => {
                write!(f, "lost: event {seq} never reached device {device}")
            }
            Self::Duplicated { device, seq, times } => {
                write!(
                    f,
                    "duplicated: event {seq} reached device {device} {times} times"
                )
            }
            Self::Reordered { device, seq, after } => write!(
                f,
                "reordered: event {seq} reached device {device} after event {after}, which was sent later"
            ),
            Self::Alien { device, seq } => {
                write!(
                    f,
                    "alien: event {seq} reached device {device} and was never accepted"
                )
            }
        }
    }
}

/// What was sent and who saw what, in the order in which they saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    sends: BTreeMap<u64, Send>,
    seen: BTreeMap<u32, Vec<u64>>,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Events that the server took.
    pub accepted: u64,
    /// Events that it refused.
    pub refused: u64,
    /// Sends whose outcome nobody knows.
    pub unanswered: u64,
    /// Events seen, each counted once per device.
    pub delivered: u64,
    /// [`Finding::Lost`].
    pub lost: u64,
    /// [`Finding::Duplicated`].
    pub duplicated: u64,
    /// [`Finding::Reordered`].
    pub reordered: u64,
    /// [`Finding::Alien`].
    pub alien: u64,
}

impl Ledger {
    /// For these devices, each of which is to see every event.
    pub fn new(devices: impl IntoIterator<Item = u32>) -> Self {
        Self {
            sends: BTreeMap::new(),
            seen: devices
                .into_iter()
                .map(|device| (device, Vec::new()))
                .collect(),
        }
    }

    /// Adds what another shard of the same run has sent, and what its devices saw.
    ///
    /// # Errors
    /// Both have sent the same event, or both have the same device.
    pub fn merge(&mut self, other: Self) -> Result<(), String> {
        for (seq, send) in other.sends {
            if self.sends.insert(seq, send).is_some() {
                return Err(format!("event {seq} was sent by two of them"));
            }
        }
        for (device, seen) in other.seen {
            if self.seen.insert(device, seen).is_some() {
                return Err(format!("device {device} reads in two of them"));
            }
        }
        Ok(())
    }

    /// Notes a send and what came of it. Each event is sent once.
    pub fn sent(&mut self, seq: u64, sent: u64, answered: u64, outcome: Outcome) {
        self.sends.insert(
            seq,
            Send {
                sent,
                answered,
                outcome,
            },
        );
    }

    /// Notes that a device saw an event.
    ///
    /// # Panics
    /// For a device that the ledger was not made for.
    pub fn saw(&mut self, device: u32, seq: u64) {
        self.seen
            .get_mut(&device)
            .expect("a device of this ledger")
            .push(seq);
    }

    /// How many devices it is about.
    pub fn devices(&self) -> usize {
        self.seen.len()
    }

    /// Deliveries so far, duplicates included.
    pub fn deliveries(&self) -> u64 {
        self.seen.values().map(|seen| seen.len() as u64).sum()
    }

    /// Deliveries so far, each event counted once per device.
    fn distinct(&self) -> u64 {
        let distinct = |seen: &Vec<u64>| seen.iter().collect::<BTreeSet<_>>().len() as u64;
        self.seen.values().map(distinct).sum()
    }

    /// Everything that must not be, sorted.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (&device, seen) in &self.seen {
            let mut times = BTreeMap::<u64, u32>::new();
            // The latest-sent event among those already seen.
            let mut latest: Option<(u64, u64)> = None;
            for &seq in seen {
                let count = times.entry(seq).or_default();
                *count += 1;
                if *count > 1 {
                    continue;
                }
                let Some(send) = self
                    .sends
                    .get(&seq)
                    .filter(|send| send.outcome != Outcome::Refused)
                else {
                    findings.push(Finding::Alien { device, seq });
                    continue;
                };
                let settled = send.outcome == Outcome::Accepted;
                if let Some((_, after)) =
                    latest.filter(|(sent, _)| settled && *sent > send.answered)
                {
                    findings.push(Finding::Reordered { device, seq, after });
                }
                latest = latest.max(Some((send.sent, seq)));
            }
            let accepted = self
                .sends
                .iter()
                .filter(|(_, send)| send.outcome == Outcome::Accepted);
            findings.extend(
                accepted
                    .filter(|(seq, _)| !times.contains_key(seq))
                    .map(|(&seq, _)| Finding::Lost { device, seq }),
            );
            findings.extend(
                times
                    .into_iter()
                    .filter(|&(_, times)| times > 1)
                    .map(|(seq, times)| Finding::Duplicated { device, seq, times }),
            );
        }
        findings.sort_unstable();
        findings
    }

    /// Whether every accepted event has reached every device: what the end of a run waits for.
    pub fn complete(&self) -> bool {
        !self
            .findings()
            .iter()
            .any(|finding| matches!(finding, Finding::Lost { .. }))
    }

    /// How often what happened.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            delivered: self.distinct(),
            ..Counts::default()
        };
        for send in self.sends.values() {
            match send.outcome {
                Outcome::Accepted => counts.accepted += 1,
                Outcome::Refused => counts.refused += 1,
                Outcome::Unanswered => counts.unanswered += 1,
            }
        }
        for finding in self.findings() {
            match finding {
                Finding::Lost { .. } => counts.lost += 1,
                Finding::Duplicated { .. } => counts.duplicated += 1,
                Finding::Reordered { .. } => counts.reordered += 1,
                Finding::Alien { .. } => counts.alien += 1,
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEVICES: u32 = 10;
    const EVENTS: u64 = 10_000;

    /// Ten thousand events, each acknowledged before the next is sent, and what each of ten devices saw.
    fn clean() -> (Ledger, Vec<Vec<u64>>) {
        let mut ledger = Ledger::new(0..DEVICES);
        for seq in 0..EVENTS {
            ledger.sent(seq, seq * 10, seq * 10 + 5, Outcome::Accepted);
        }
        (ledger, vec![(0..EVENTS).collect(); DEVICES as usize])
    }

    fn with(mut ledger: Ledger, seen: &[Vec<u64>]) -> Ledger {
        for (device, seen) in (0..).zip(seen) {
            seen.iter().for_each(|&seq| ledger.saw(device, seq));
        }
        ledger
    }

    #[test]
    fn a_hundred_thousand_clean_deliveries_leave_nothing_unexplained() {
        let (ledger, seen) = clean();
        let ledger = with(ledger, &seen);
        assert_eq!(ledger.deliveries(), 100_000);
        assert_eq!(ledger.findings(), []);
        assert!(ledger.complete());
    }

    #[test]
    fn each_of_a_thousand_planted_faults_is_named_and_nothing_else() {
        let (ledger, mut seen) = clean();
        let mut random = fastrand::Rng::with_seed(6);
        let mut planted = Vec::new();
        for (device, seen) in (0..).zip(&mut seen) {
            // A hundred places per device, apart from each other, worked on from the end so that places stay put.
            for place in (0..100).rev() {
                let at = place * 100 + random.usize(..90);
                let seq = seen[at];
                planted.push(match random.u8(..3) {
                    0 => {
                        seen.remove(at);
                        Finding::Lost { device, seq }
                    }
                    1 => {
                        seen.insert(at + random.usize(1..9), seq);
                        Finding::Duplicated {
                            device,
                            seq,
                            times: 2,
                        }
                    }
                    _ => {
                        seen.swap(at, at + 1);
                        Finding::Reordered {
                            device,
                            seq,
                            after: seq + 1,
                        }
                    }
                });
            }
        }
        planted.sort_unstable();
        assert_eq!(planted.len(), 1_000);
        assert_eq!(with(ledger, &seen).findings(), planted);
    }

    #[test]
    fn a_send_without_an_answer_is_neither_missed_nor_alien_and_a_refused_one_must_not_be_seen() {
        let mut ledger = Ledger::new([0]);
        ledger.sent(0, 0, 5, Outcome::Unanswered);
        ledger.sent(1, 10, 15, Outcome::Unanswered);
        ledger.sent(2, 20, 25, Outcome::Refused);
        ledger.saw(0, 1);
        assert_eq!(ledger.findings(), []);
        ledger.saw(0, 2);
        ledger.saw(0, 3);
        assert_eq!(
            ledger.findings(),
            [
                Finding::Alien { device: 0, seq: 2 },
                Finding::Alien { device: 0, seq: 3 }
            ]
        );
    }

    #[test]
    fn sends_that_overlap_may_be_seen_in_either_order() {
        let mut ledger = Ledger::new(0..2);
        ledger.sent(0, 0, 15, Outcome::Accepted);
        ledger.sent(1, 10, 25, Outcome::Accepted);
        [(0, 0), (0, 1), (1, 1), (1, 0)]
            .into_iter()
            .for_each(|(device, seq)| ledger.saw(device, seq));
        assert_eq!(ledger.findings(), []);
    }

    proptest! {
        /// Against the definition, pair by pair.
        #[test]
        fn the_ledger_finds_what_the_definition_names(
            sends in prop::collection::vec((0u64..60, 0u64..20), 1..12),
            seen in prop::collection::vec(0u64..12, 0..24),
        ) {
            let mut ledger = Ledger::new([0]);
            for (seq, &(sent, took)) in (0..).zip(&sends) {
                ledger.sent(seq, sent, sent + took, Outcome::Accepted);
            }
            seen.iter().for_each(|&seq| ledger.saw(0, seq));
            let first = |seq: u64| seen.iter().position(|&other| other == seq);
            let counts = ledger.counts();
            let (mut lost, mut duplicated, mut reordered, mut alien) = (0, 0, 0, 0);
            for seq in 0..12 {
                let times = seen.iter().filter(|&&other| other == seq).count();
                duplicated += u64::from(times > 1);
                let Some(&(sent, took)) = usize::try_from(seq).ok().and_then(|seq| sends.get(seq)) else {
                    alien += u64::from(times > 0);
                    continue;
                };
                lost += u64::from(times == 0);
                let late = (0..).zip(&sends).any(|(other, &(later, _))| {
                    first(seq) > first(other) && first(other).is_some() && later > sent + took
                });
                reordered += u64::from(late);
            }
            prop_assert_eq!(
                (counts.lost, counts.duplicated, counts.reordered, counts.alien),
                (lost, duplicated, reordered, alien)
            );
        }
    }
}
