//! What a run must keep to, as its caller says it: `delivered.p99<500` and the like, judged on the whole of it.

use crate::run::Block;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// A figure and what it must be below.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Threshold {
    figure: String,
    below: f64,
}

/// How a threshold came out.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// What was asked.
    pub threshold: Threshold,
    /// What the figure is; nothing where there are too few samples to know it.
    pub value: Option<f64>,
    /// Whether it is kept. Nothing known is not kept.
    pub kept: bool,
}

/// What may be asked.
const FIGURES: [&str; 14] = [
    "delivered.p50",
    "delivered.p90",
    "delivered.p99",
    "delivered.p999",
    "delivered.max",
    "acknowledged.p50",
    "acknowledged.p90",
    "acknowledged.p99",
    "acknowledged.p999",
    "acknowledged.max",
    "lost",
    "duplicated",
    "reordered",
    "refused",
];

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('<')
            .and_then(|(figure, below)| Some((figure.trim(), below.trim().parse::<f64>().ok()?)));
        match parsed {
            Some((figure, below)) if FIGURES.contains(&figure) && below.is_finite() => Ok(Self {
                figure: figure.to_owned(),
                below,
            }),
            _ => Err(format!(
                "a threshold is a figure and what it must be below, such as `delivered.p99<500` (milliseconds) or `lost<1`; \
                 figures are {}",
                FIGURES.join(", ")
            )),
        }
    }
}

impl Threshold {
    /// Judges it.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run")]
    pub fn judge(&self, block: &Block) -> Judged {
        let count = |count: u64| Some(count as f64);
        let value = match self.figure.split_once('.') {
            Some((of, share)) => {
                let quantiles = if of == "delivered" {
                    block.delivered
                } else {
                    block.acknowledged
                };
                quantiles.and_then(|of| match share {
                    "p50" => Some(of.p50),
                    "p90" => Some(of.p90),
                    "p99" => of.p99,
                    "p999" => of.p999,
                    _ => Some(of.max),
                })
            }
            None => match self.figure.as_str() {
                "lost" => count(block.counts.lost),
                "duplicated" => count(block.counts.duplicated),
                "reordered" => count(block.counts.reordered),
                _ => count(block.counts.refused + block.counts.unanswered),
            },
        };
        Judged {
            threshold: self.clone(),
            value,
            kept: value.is_some_and(|value| value < self.below),
        }
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Threshold { figure, below } = &self.threshold;
        let word = if self.kept { "kept" } else { "NOT kept" };
        match self.value {
            Some(value) => write!(f, "{word}: {figure} is {value:.2}, to be below {below}"),
            None => write!(
                f,
                "{word}: {figure} is unknown from so few samples, to be below {below}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_read_and_nonsense_is_refused_with_what_may_be_asked() {
        let read: Threshold = "delivered.p99 < 500".parse().expect("a threshold");
        assert_eq!((read.figure.as_str(), read.below), ("delivered.p99", 500.0));
        for nonsense in ["delivered.p95<3", "lost", "lost<many", "lost<inf"] {
            let refused = nonsense.parse::<Threshold>().expect_err("refused");
            assert!(refused.contains("acknowledged.p99"), "{refused}");
        }
    }
}
