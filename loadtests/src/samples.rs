//! What one generator has measured, in a form that can be added to what others measured of the same run, without loss.

use crate::latency::{Latencies, OverTime};
use crate::ledger::Ledger;
use crate::open::{self, Driven};
use crate::validity::Doubt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that figures are formed from, but what a server says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// How many sends were meant.
    pub scheduled: u64,
    /// What came of them.
    pub driven: Driven,
    /// From the schedule to a reader that sees it.
    pub delivered: Latencies,
    /// The same, by the time at which it was scheduled.
    pub over_time: OverTime,
    /// Who sent and saw what.
    pub ledger: Ledger,
    /// What went wrong with readers, how often.
    pub troubles: BTreeMap<String, u64>,
    /// Answers to long polls.
    pub syncs: u64,
    /// Times that a reader had to ask for what a sync had left out.
    pub gaps: u64,
    /// What the clocks came to.
    pub doubt: Doubt,
    /// Ended by hand.
    pub interrupted: bool,
}

impl Samples {
    /// Adds what another shard has measured.
    ///
    /// # Errors
    /// Both have done the same.
    pub fn merge(&mut self, other: Self) -> Result<(), String> {
        self.ledger.merge(other.ledger)?;
        self.scheduled += other.scheduled;
        self.driven.merge(&other.driven);
        self.delivered.merge(&other.delivered);
        self.over_time.merge(&other.over_time);
        open::add(&mut self.troubles, &other.troubles);
        self.syncs += other.syncs;
        self.gaps += other.gaps;
        self.doubt.merge(&other.doubt);
        self.interrupted |= other.interrupted;
        Ok(())
    }
}
