//! Histories: what clients did and were told, and a checker that says whether that can be.
//!
//! A [`Record`] holds what every client did, with the time of each beginning and end. [`check`] is a function of the record
//! alone. Rooms are not linearizable across servers, so it asks for less, but for all that a fleet relies on: on one server an
//! accepted event is there at once, on every other one within the record's patience, counted from the end of every
//! [fault](Deed::Fault) in between; each member is told each event once, in its sender's order, and nobody is told anything
//! else; and in the end all servers hold the same state.
//!
//! What the record does not decide is a doubt and no finding: an operation without an answer whose effect nobody saw, a member
//! who stopped listening too early. A record with doubts and without findings is [unknown](Verdict::Unknown).

mod book;
mod check;
mod record;
mod view;

pub use check::{Anomaly, Doubt, Finding, Judgement, Verdict, check};
pub use record::{Deed, Membership, Operation, Outcome, Record, RoomTold, Told};
