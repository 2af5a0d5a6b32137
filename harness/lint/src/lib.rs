//! Judges the configuration of a Conduit site before anything is started: what would be dropped without a word, what
//! would keep the server from starting, what is dangerous, and where two files of the site contradict each other.
//!
//! [`source`] reads files and guesses what they are; [`diagnostic`] is what is said about them; [`cross`] holds the files
//! of one site against each other.

pub mod cross;
pub mod diagnostic;
pub mod source;

pub use diagnostic::{Code, Diagnostic, Effect, Fix, Label, Severity};
pub use source::{Kind, Source};
