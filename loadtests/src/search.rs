//! The search for a knee: the highest rate that a server keeps, found from tries that now and then lie. What is believed
//! of the knee is kept as a probability for each rate (Horstein's probabilistic bisection): each try is made in the
//! middle of what is believed, but never at more than twice what was kept so far, so that the search brackets first and
//! halves then, and one try that lies is outvoted by those after it.

use serde::Serialize;

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The rate was kept.
    Kept,
    /// It was too much for the server.
    Beyond,
    /// It was not kept, and not by the server's fault alone: nothing was learnt.
    Distorted,
}

/// The rates between which a knee is looked for, per second.
const LEAST: f64 = 1.0;
const MOST: f64 = 20_000.0;
/// Rates that are told apart: neighbours are 2 % from each other.
const STEP: f64 = 0.02;
/// How often a try is taken to lie, wherever the knee is.
const LIES: f64 = 0.05;
/// Over which part of a rate, as a logarithm, its keeping goes from almost always to almost never.
const BLUR: f64 = 0.03;
/// What must be believed of the interval that is answered.
const SURE: f64 = 0.98;
/// After so many distorted tries, the lowest of which is this near to what was kept, the generator is taken to be at its end;
/// and after so many in any case.
const DISTORTED: u32 = 3;
const NEAR: f64 = 1.25;
const ENOUGH: u32 = 10;

/// A search that goes on.
#[derive(Clone, Debug)]
pub struct Search {
    /// The probability of each rate that it is the knee.
    belief: Vec<f64>,
    first: f64,
    precision: f64,
    kept: Option<f64>,
    /// Tries since the last that was too much for the server.
    distorted: u32,
    /// The lowest of them.
    lowest: Option<f64>,
}

/// The answer so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Knee {
    /// In the middle of what is believed.
    pub rate: f64,
    /// It is hardly below this.
    pub ci_lo: f64,
    /// Nor above this.
    pub ci_hi: f64,
    /// The most that was kept in a try.
    pub kept: Option<f64>,
    /// Whether the generator came to its end before the server.
    pub generator: bool,
}

fn rate_of(index: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let steps = index as f64;
    LEAST * (steps * STEP).exp()
}

impl Search {
    /// From a first try at this rate, until the knee is known to this part of it.
    pub fn new(first: f64, precision: f64) -> Self {
        let rates = (0..).take_while(|index| rate_of(*index) <= MOST).count();
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let each = 1.0 / rates as f64;
        Self {
            belief: vec![each; rates],
            first: first.clamp(LEAST, MOST),
            precision,
            kept: None,
            distorted: 0,
            lowest: None,
        }
    }

    /// The rate below which the knee is with this probability.
    fn quantile(&self, share: f64) -> f64 {
        let mut sum = 0.0;
        let beyond = |belief: &f64| {
            sum += belief;
            sum >= share
        };
        let index = self.belief.iter().position(beyond);
        rate_of(index.unwrap_or(self.belief.len() - 1))
    }

    /// What is to be tried next; nothing once the knee is known or cannot be.
    pub fn next(&self) -> Option<f64> {
        let knee = self.knee();
        if knee.generator || knee.ci_hi / knee.ci_lo <= 1.0 + self.precision {
            return None;
        }
        let most = match (self.kept, self.lowest) {
            // Where it was distorted nothing is learnt: halfway to there may be enough for the server.
            (Some(kept), Some(lowest)) => (kept * lowest).sqrt(),
            (Some(kept), None) => kept * 2.0,
            (None, Some(lowest)) => lowest / 2.0,
            (None, None) => self.first,
        };
        Some(self.quantile(0.5).min(most).max(LEAST))
    }

    /// Takes in what came of a try.
    pub fn tell(&mut self, rate: f64, verdict: Verdict) {
        match verdict {
            Verdict::Distorted => {
                self.distorted += 1;
                self.lowest = Some(self.lowest.map_or(rate, |lowest| lowest.min(rate)));
                return;
            }
            Verdict::Kept => {
                self.kept = Some(self.kept.map_or(rate, |kept| kept.max(rate)));
                // It had stumbled, and goes on.
                self.lowest = self.lowest.filter(|lowest| rate < 0.8 * lowest);
            }
            Verdict::Beyond => (self.distorted, self.lowest) = (0, None),
        }
        for (index, belief) in self.belief.iter_mut().enumerate() {
            let over = (rate / rate_of(index)).ln() / BLUR;
            let beyond = LIES + (1.0 - 2.0 * LIES) / (1.0 + (-over).exp());
            *belief *= if verdict == Verdict::Beyond {
                beyond
            } else {
                1.0 - beyond
            };
        }
        let sum: f64 = self.belief.iter().sum();
        self.belief.iter_mut().for_each(|belief| *belief /= sum);
    }

    /// The answer so far.
    pub fn knee(&self) -> Knee {
        Knee {
            rate: self.quantile(0.5),
            ci_lo: self.quantile((1.0 - SURE) / 2.0),
            ci_hi: self.quantile(f64::midpoint(1.0, SURE)),
            kept: self.kept,
            generator: self.distorted >= ENOUGH
                || self.distorted >= DISTORTED
                    && self
                        .lowest
                        .is_some_and(|lowest| lowest <= self.kept.unwrap_or(LEAST) * NEAR),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Searches a knee that is planted, with tries by `verdict`; the answer and how many tries it took.
    fn searched(first: f64, mut verdict: impl FnMut(f64) -> Verdict) -> (Knee, usize) {
        let mut search = Search::new(first, 0.1);
        let mut tries = 0;
        while let Some(rate) = search.next().filter(|_| tries < 100) {
            assert!((LEAST..=MOST).contains(&rate));
            search.tell(rate, verdict(rate));
            tries += 1;
        }
        (search.knee(), tries)
    }

    proptest! {
        /// Each rate is kept less and less surely towards the knee and beyond it, and two tries lie outright.
        #[test]
        fn a_knee_is_found_though_tries_are_noisy_and_two_of_them_lie(
            knee in 2f64..5_000.0, first in 1f64..50.0, seed in any::<u64>(), lies in prop::collection::btree_set(0usize..20, 2),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut number = 0;
            let (found, tries) = searched(first, |rate| {
                let blurred = rate * ((random.f64() - 0.5) * 0.08).exp();
                let beyond = (blurred > knee) != lies.contains(&number);
                number += 1;
                if beyond { Verdict::Beyond } else { Verdict::Kept }
            });
            prop_assert!((found.rate / knee).ln().abs() < 0.15, "{found:?} for {knee}");
            prop_assert!(tries <= 45, "{tries} tries");
        }

        /// While nothing lies, no try is at more than twice what was kept, and the interval has the knee in it.
        #[test]
        fn a_server_is_not_overrun_to_find_what_it_takes(knee in 2f64..5_000.0, first in 1f64..50.0) {
            let mut kept = None::<f64>;
            let (found, tries) = searched(first, |rate| {
                assert!(rate <= kept.map_or(first, |kept| kept * 2.0) * 1.001);
                if rate > knee { Verdict::Beyond } else { kept = Some(kept.map_or(rate, |kept| kept.max(rate))); Verdict::Kept }
            });
            prop_assert!(found.ci_lo / 1.03 <= knee && knee <= found.ci_hi * 1.03, "{found:?} for {knee}");
            prop_assert!(tries <= 30, "{tries} tries");
        }
    }

    #[test]
    fn a_generator_at_its_end_ends_the_search_and_one_that_stumbles_does_not() {
        let (found, _) = searched(10.0, |rate| {
            if rate < 300.0 {
                Verdict::Kept
            } else {
                Verdict::Distorted
            }
        });
        assert!(
            found.generator && found.kept < Some(300.0) && found.kept > Some(230.0),
            "{found:?}"
        );
        let mut stumbles = 0;
        let (found, _) = searched(10.0, |rate| {
            stumbles += 1;
            match rate {
                _ if stumbles % 3 == 0 => Verdict::Distorted,
                ..300.0 => Verdict::Kept,
                _ => Verdict::Beyond,
            }
        });
        assert!(
            !found.generator && (found.rate / 300.0).ln().abs() < 0.1,
            "{found:?}"
        );
    }
}
