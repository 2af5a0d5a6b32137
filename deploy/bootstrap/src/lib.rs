//! Brings a homeserver's accounts and rooms to what a manifest declares.
//!
//! One run, in the order it meets the modules: [`manifest`] reads what should be, [`observe`] asks the homeserver what
//! is (with GET requests only), [`plan`] compares the two without any input or output of its own, and [`apply`] sends
//! the difference, remembering in [`secrets`] what a killed run would have to know. [`client`] speaks HTTP to loopback
//! and counts every request.

pub mod apply;
pub mod client;
mod error;
pub mod manifest;
pub mod observe;
pub mod plan;
pub mod secrets;

pub use error::{Error, Problem, Problems};
pub use manifest::Manifest;
