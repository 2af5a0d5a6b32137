//! Load whose figures can be trusted: arrivals are scheduled beforehand ([`schedule`]) and sent when they are due
//! ([`open`]), so that [`latency`] counts from the schedule; every delivery is accounted for ([`ledger`]); what a
//! [`server`] costs is read from the kernel ([`meter`]); a run doubts itself ([`validity`]); and load goes only where
//! it may ([`guard`]). One [`run`] puts all of that to one server, [`compare`] puts two to the same in turns, and
//! [`report`] keeps it. A run that is too much for one generator is done in parts, each of which leaves its [`samples`];
//! [`shard`] puts them together, and [`threshold`] judges the whole. The generator itself is tested by a server that stalls ([`stall`]), beside a [`closed`] loop.

pub mod capacity;
pub mod closed;
pub mod compare;
pub mod guard;
pub mod latency;
pub mod laws;
pub mod ledger;
pub mod meter;
pub mod model;
pub mod open;
pub mod page;
pub mod report;
pub mod run;
pub mod samples;
pub mod schedule;
pub mod search;
pub mod server;
pub mod shard;
pub mod stall;
pub mod threshold;
pub mod validity;
