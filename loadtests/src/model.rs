//! Costs as sums of what is asked times what each of it costs: fitted by least squares, with an interval for each
//! coefficient, and doubted by runs that were not fitted.

use crate::compare::student;
use anyhow::{Context, Result, bail};
use linregress::fit_low_level_regression_model;
use serde::Serialize;

/// What one more of something costs, with its 95 % interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Coefficient {
    /// Of what.
    pub name: String,
    /// The estimate.
    pub point: f64,
    /// Its lower end.
    pub ci_lo: f64,
    /// Its upper end.
    pub ci_hi: f64,
}

impl Coefficient {
    /// Whether it is certainly above nothing.
    pub fn certain(&self) -> bool {
        self.ci_lo > 0.0
    }
}

/// A fitted sum.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// First what it costs whatever is asked.
    pub coefficients: Vec<Coefficient>,
    /// From so many runs.
    pub n_runs: usize,
}

/// One run: how much was asked of each, and what it cost.
pub type Row = (Vec<f64>, f64);

impl Fit {
    /// Fits.
    ///
    /// # Errors
    /// Too few runs, or runs that do not tell two causes apart.
    #[expect(clippy::cast_precision_loss, reason = "a number of runs")]
    pub fn of(names: &[&str], rows: &[Row]) -> Result<Self> {
        let columns = names.len() + 1;
        if rows.len() <= columns {
            bail!(
                "{} runs are too few for {columns} coefficients: make more",
                rows.len()
            );
        }
        // Of like size, so that none is lost in another's rounding.
        let scales: Vec<f64> = (0..names.len())
            .map(|index| {
                let most = rows
                    .iter()
                    .map(|(asked, _)| asked[index].abs())
                    .fold(0.0, f64::max);
                if most > 0.0 { most } else { 1.0 }
            })
            .collect();
        let data: Vec<f64> = rows
            .iter()
            .flat_map(|(asked, cost)| {
                let scaled = asked
                    .iter()
                    .zip(&scales)
                    .map(|(asked, scale)| asked / scale);
                [*cost, 1.0].into_iter().chain(scaled)
            })
            .collect();
        let model = fit_low_level_regression_model(&data, rows.len(), columns + 1)
            .context("fit the costs: do the runs differ in everything that is asked about?")?;
        let half = student(rows.len() - columns);
        let coefficients = std::iter::once(("whatever is asked", 1.0))
            .chain(names.iter().copied().zip(scales))
            .zip(model.parameters().iter().zip(model.se()))
            .map(|((name, scale), (point, error))| Coefficient {
                name: name.to_owned(),
                point: point / scale,
                ci_lo: (point - half * error) / scale,
                ci_hi: (point + half * error) / scale,
            })
            .collect::<Vec<_>>();
        // A pseudo-inverse shares out between causes that go together; that is no answer.
        let determined = |index: usize| {
            let mean = rows.iter().map(|(asked, _)| asked[index]).sum::<f64>() / rows.len() as f64;
            rows.iter()
                .any(|(asked, _)| (asked[index] - mean).abs() > mean.abs() * 1e-9)
        };
        if let Some(same) = (0..names.len()).find(|index| !determined(*index)) {
            bail!(
                "all runs have the same number of {}: what one costs cannot be told",
                names[same]
            );
        }
        Ok(Self {
            coefficients,
            n_runs: rows.len(),
        })
    }

    /// What that much should cost.
    pub fn predict(&self, asked: &[f64]) -> f64 {
        let each = std::iter::once(1.0).chain(asked.iter().copied());
        self.coefficients
            .iter()
            .zip(each)
            .map(|(coefficient, asked)| coefficient.point * asked)
            .sum()
    }

    /// The mean error on runs that were not fitted, as a share of what they cost; nothing of none.
    #[expect(clippy::cast_precision_loss, reason = "a number of runs")]
    pub fn error(&self, held_out: &[Row]) -> Option<f64> {
        let errors = held_out
            .iter()
            .map(|(asked, cost)| (self.predict(asked) / cost - 1.0).abs());
        (!held_out.is_empty()).then(|| errors.sum::<f64>() / held_out.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUE: [f64; 4] = [800.0, 120.0, 15.0, 90.0];

    fn rows(count: u32, noise: f64, seed: u64) -> Vec<Row> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..count)
            .map(|_| {
                let asked = vec![
                    random.f64() * 50.0,
                    random.f64() * 60.0,
                    random.f64() * 12.0,
                ];
                let cost: f64 = TRUE[0]
                    + TRUE[1..]
                        .iter()
                        .zip(&asked)
                        .map(|(cost, asked)| cost * asked)
                        .sum::<f64>();
                (asked, cost * (1.0 + noise * (random.f64() - 0.5)))
            })
            .collect()
    }

    #[test]
    fn what_each_costs_is_found_and_its_interval_covers_the_truth_as_often_as_it_says() {
        let exact = Fit::of(&["member", "word", "sync"], &rows(12, 0.0, 1)).expect("fitted");
        for (found, truth) in exact.coefficients.iter().zip(TRUE) {
            assert!((found.point / truth - 1.0).abs() < 1e-6, "{found:?}");
        }
        assert!(exact.error(&rows(5, 0.0, 2)).expect("held out") < 1e-6);
        let (mut covered, mut of) = (0, 0);
        for seed in 0..200 {
            let fit = Fit::of(&["member", "word", "sync"], &rows(14, 0.1, seed)).expect("fitted");
            for (found, truth) in fit.coefficients.iter().zip(TRUE) {
                covered += u32::from(found.ci_lo <= truth && truth <= found.ci_hi);
                of += 1;
            }
        }
        assert!(
            (0.92..=0.98).contains(&(f64::from(covered) / f64::from(of))),
            "{covered} of {of}"
        );
    }

    /// A cost that is no sum of what was asked shows in the runs that were kept apart.
    #[test]
    fn a_model_that_is_wrong_is_found_out_by_runs_that_were_not_fitted() {
        let square = |rows: Vec<Row>| {
            rows.into_iter()
                .map(|(asked, _)| {
                    let cost = asked[0] * asked[0] + 1.0;
                    (asked, cost)
                })
                .collect::<Vec<_>>()
        };
        let fit = Fit::of(&["member", "word", "sync"], &square(rows(14, 0.0, 3))).expect("fitted");
        assert!(fit.error(&square(rows(10, 0.0, 4))).expect("held out") > 0.2);
        assert_eq!(fit.error(&[]), None);
    }

    #[test]
    fn runs_that_cannot_tell_are_refused() {
        let few = Fit::of(&["member", "word", "sync"], &rows(4, 0.0, 1)).expect_err("refused");
        assert!(few.to_string().contains("too few"), "{few}");
        let mut same = rows(10, 0.0, 1);
        same.iter_mut().for_each(|(asked, _)| asked[1] = 7.0);
        let same = Fit::of(&["member", "word", "sync"], &same).expect_err("refused");
        assert!(
            same.to_string().contains("the same number of word"),
            "{same}"
        );
    }
}
