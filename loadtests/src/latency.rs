//! Latencies in a histogram that can be merged without loss.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Reader, Serializer as _, V2Serializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::collections::BTreeMap;
use std::time::Duration;

/// Nanoseconds, to three digits, from a microsecond to an hour. Written as the V2 form of HdrHistogram in base64.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies(Histogram<u64>);

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&self.0, &mut bytes)
            .map_err(ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD
            .decode(text)
            .map_err(|error| de::Error::custom(format!("a histogram is not base64: {error}")))?;
        let read: Histogram<u64> = Reader::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| de::Error::custom(format!("a histogram cannot be read: {error}")))?;
        let mut latencies = Self::default();
        latencies.0.add(&read).map_err(|error| {
            de::Error::custom(format!("a histogram is not one of latencies: {error}"))
        })?;
        Ok(latencies)
    }
}

/// Latencies by the time at which they were meant to begin, in at most so many parts as a plot has room for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverTime {
    /// Seconds that one part is long.
    pub width: u64,
    /// Each part that something began in, by its number.
    pub parts: BTreeMap<u64, Latencies>,
}

impl OverTime {
    /// For a run of this length.
    pub fn of(length: Duration) -> Self {
        Self {
            width: length.as_secs().div_ceil(120).max(1),
            parts: BTreeMap::new(),
        }
    }

    /// Adds one that was meant to begin then, both in nanoseconds.
    pub fn record(&mut self, at: u64, nanoseconds: u64) {
        let part = at / 1_000_000_000 / self.width;
        self.parts.entry(part).or_default().record(nanoseconds);
    }

    /// Adds all of another run of the same length.
    pub fn merge(&mut self, other: &Self) {
        for (part, latencies) in &other.parts {
            self.parts.entry(*part).or_default().merge(latencies);
        }
    }
}

/// What is printed of them, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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

    /// The curve of its percentiles: of each so many, one is slower than so many milliseconds. As far as there are enough.
    #[expect(clippy::cast_precision_loss, reason = "a count of a run")]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let shares = (0..).map(|step| 10f64.powf(f64::from(step) / 5.0));
        shares
            .take_while(|of| *of <= self.count() as f64)
            .filter_map(|of| Some((of, self.quantile_ms(1.0 - 1.0 / of)?)))
            .collect()
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
