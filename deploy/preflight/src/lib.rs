//! Looks whether a host and its names are fit for a Matrix homeserver, and whether other servers would find it.
//!
//! Every check is a value: what was seen, what was expected, what to do. What could not be looked at is `unknown`, with
//! the reason, and never passes. A name that does not exist, a name without that record, a name server that failed,
//! refused or kept silent, and one that answered another question are told apart all the way ([`dns`]).
//!
//! The federation self-test follows the specification's server discovery step by step ([`discovery`]) on its own
//! resolver, and then verifies what another homeserver would verify: the certificate for the name that the step
//! demands, and the published keys with their signatures ([`keys`]). It needs no outside service.
//!
//! Nothing is changed, nothing secret is read or sent. Production is not touched by accident ([`guard`]).

pub mod certificate;
pub mod check;
pub mod context;
pub mod discovery;
pub mod dns;
pub mod federation;
pub mod guard;
pub mod keys;
pub mod machine;
pub mod names;
pub mod outside;
pub mod run;
pub mod web;

pub use check::{Check, Finding, Report, Verdict};
pub use context::{Context, Settings};
