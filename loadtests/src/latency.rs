//! Latencies in a histogram that can be merged without loss.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// Nanoseconds, to three digits, from a microsecond to an hour.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// What is printed of them, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// The middle one.
    pub p50: f64,
    /// One in ten is slower.
    pub p90: f64,
    /// One in a hundred; known only from 1,000 on.
    pub p99: Option<f64>,
    /// One in a thousand; known only from 10,000 on.
    pub p999: Option<f64>,
    /// The slowest.
    pub max: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3)
                .expect("the bounds are constants that fit"),
        )
    }
}

impl Latencies {
    /// Adds one, in nanoseconds.
    pub fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency in milliseconds that this share of them does not exceed; nothing of nothing.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        let latency = || Duration::from_nanos(self.0.value_at_quantile(share));
        (self.count() > 0).then(|| latency().as_secs_f64() * 1e3)
    }

    /// What is printed; nothing of nothing.
    pub fn quantiles(&self) -> Option<Quantiles> {
        let at = |share| self.quantile_ms(share);
        let count = self.count();
        Some(Quantiles {
            count,
            p50: at(0.5)?,
            p90: at(0.9)?,
            p99: at(0.99).filter(|_| count >= 1_000),
            p999: at(0.999).filter(|_| count >= 10_000),
            max: at(1.0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_parts_are_the_whole() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut whole, mut parts) = (
            Latencies::default(),
            [Latencies::default(), Latencies::default()],
        );
        for index in 0..20_000 {
            let latency = random.u64(1_000..5_000_000_000);
            whole.record(latency);
            parts[index % 2].record(latency);
        }
        let [mut merged, other] = parts;
        merged.merge(&other);
        assert_eq!(merged.0, whole.0);
    }

    #[test]
    fn a_tail_is_not_told_from_too_few() {
        let mut latencies = Latencies::default();
        assert!(latencies.quantiles().is_none());
        (0..999).for_each(|_| latencies.record(1_000_000));
        assert_eq!(latencies.quantiles().expect("some").p99, None);
        latencies.record(1_000_000);
        let quantiles = latencies.quantiles().expect("some");
        assert!(quantiles.p99.is_some() && quantiles.p999.is_none());
    }
}
