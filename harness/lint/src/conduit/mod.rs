//! The rules of Conduit's configuration.
//!
//! The server deserializes one dictionary into one structure and stops at the first mistake. [`Judge`] walks the same
//! dictionary against the [`catalogue`](crate::catalogue) and goes on, so that all mistakes are said at once; then it
//! looks at what the values mean together.
//!
//! [`layers`] is what the file has of tables, [`shape`] the keys and types, [`text`] what texts mean, [`meaning`] what
//! is dangerous, contradictory or without effect although it is well-formed.

mod layers;
mod meaning;
mod shape;
mod text;

pub(crate) use layers::{File, read};
pub(crate) use shape::Judge;
pub use text::invalid_text;

use crate::catalogue::{self, Status, Table as Spec};
use crate::diagnostic::Effect;

const FATAL: Effect = Effect::Fatal { exit: 1 };
const PANIC: Effect = Effect::Fatal { exit: 101 };
const REFUSED: &str = "refused: the server does not start (exit 1)";
const DROPPED: &str = "dropped without a word";

/// Where else in the catalogue a key of this name stands.
fn elsewhere(name: &str, not_in: Option<&Spec>) -> Option<catalogue::Located> {
    catalogue::all().into_iter().find(|located| {
        located.key.name == name
            && located.key.status != Status::Next
            && not_in.is_none_or(|spec| spec.key(name).is_none())
    })
}

/// How alike two names are, from 0 to 1, without regard to case and to `-` against `_`.
fn likeness(a: &str, b: &str) -> f64 {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    strsim::normalized_damerau_levenshtein(&plain(a), &plain(b))
}
