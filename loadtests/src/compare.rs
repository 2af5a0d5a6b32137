//! Two servers under the same work, in interleaved pairs: A B B A. The unit is the run, not the sample; a ratio has an
//! interval from the pairs; runs of the same server next to each other are the control, whose ratio must be 1.

use crate::page::{Plot, Scale, Series};
use crate::run::{Block, Cell, Shape};
use crate::server::Kind;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF as _, StudentsT};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A ratio with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The geometric mean of the pairs.
    pub point: f64,
    /// Its lower end; none from fewer than two pairs.
    pub ci_lo: Option<f64>,
    /// Its upper end.
    pub ci_hi: Option<f64>,
    /// How many pairs.
    pub n_runs: usize,
}

/// The two-sided 95 % point of Student's t.
///
/// # Panics
/// For no degree of freedom.
pub fn student(freedom: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of runs")]
    let student = StudentsT::new(0.0, 1.0, freedom as f64);
    student.expect("a degree of freedom").inverse_cdf(0.975)
}

impl Ratio {
    /// From pairs; those without a logarithm cannot be had.
    #[expect(clippy::cast_precision_loss, reason = "a count of pairs")]
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let ratios = pairs.iter().filter(|(a, b)| *a > 0.0 && *b > 0.0);
        let logs: Vec<f64> = ratios.map(|(a, b)| (a / b).ln()).collect();
        if logs.is_empty() || logs.len() < pairs.len() {
            return None;
        }
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let half = (logs.len() > 1).then(|| {
            let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
            student(logs.len() - 1) * (variance / count).sqrt()
        });
        Some(Self {
            point: mean.exp(),
            ci_lo: half.map(|half| (mean - half).exp()),
            ci_hi: half.map(|half| (mean + half).exp()),
            n_runs: logs.len(),
        })
    }

    /// The word of the decision record, by the rule that was set beforehand: from the upper end of the interval.
    pub fn word(&self) -> &'static str {
        match self.ci_hi {
            Some(upper) if upper <= 0.33 => "Low",
            Some(upper) if upper <= 0.8 => "Medium",
            Some(_) => "High",
            None => "unknown",
        }
    }

    /// With its interval, for a person.
    pub fn shown(&self) -> String {
        match (self.ci_lo, self.ci_hi) {
            (Some(lower), Some(upper)) => format!("{:.2} [{lower:.2}, {upper:.2}]", self.point),
            _ => format!("{:.2} [one pair, no interval]", self.point),
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is measured.
    pub name: &'static str,
    /// In what.
    pub unit: &'static str,
    /// How it was had.
    pub method: &'static str,
    /// Medians of the runs of each side.
    pub medians: [Option<f64>; 2],
    /// A to B.
    pub ratio: Option<Ratio>,
    /// A to A and B to B, neighbours: what a ratio says where there is nothing to say.
    pub control: Option<Ratio>,
    /// Samples of all runs.
    pub n_samples: u64,
    /// Whether every run allows to quote it.
    pub valid: bool,
    /// Whether the record's word is formed from it.
    pub decides: bool,
}

/// All of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The two sides.
    pub sides: [Kind; 2],
    /// What both were put to.
    pub shape: Shape,
    /// Every run, in order, for whoever doubts the rest.
    pub blocks: Vec<Block>,
    /// What was concluded.
    pub rows: Vec<Row>,
}

/// Which side is when, for so many rounds.
pub fn order(rounds: usize) -> Vec<usize> {
    [0, 1, 1, 0].repeat(rounds)
}

impl Comparison {
    /// From blocks in the order of [`order`]; it may have been cut short.
    pub fn of(sides: [Kind; 2], shape: Shape, blocks: Vec<Block>) -> Self {
        let cells: Vec<(usize, Vec<Cell>)> = order(blocks.len().div_ceil(4))
            .into_iter()
            .zip(&blocks)
            .map(|(side, block)| (side, block.cells()))
            .collect();
        let names = cells.first().map_or(0, |(_, cells)| cells.len());
        let rows = (0..names).map(|index| row(&cells, index)).collect();
        Self {
            sides,
            shape,
            blocks,
            rows,
        }
    }

    /// What decides, run by run: a drift or an outlier is seen here.
    pub fn plots(&self) -> Vec<Plot> {
        let deciding = (0..).zip(&self.rows).filter(|(_, row)| row.decides);
        let plot = |(index, row): (usize, &Row)| {
            let of_side = |side: usize| Series {
                name: self.sides[side].name().to_owned(),
                points: (1..)
                    .zip(self.blocks.iter().zip(order(self.blocks.len().div_ceil(4))))
                    .filter(|(_, (_, of))| *of == side)
                    .filter_map(|(run, (block, _))| {
                        Some((f64::from(run), block.cells()[index].value?))
                    })
                    .collect(),
            };
            Plot {
                title: row.name.to_owned(),
                x: ("run".to_owned(), Scale::Linear),
                y: (row.unit.to_owned(), Scale::Linear),
                series: vec![of_side(0), of_side(1)],
            }
        };
        deciding.map(plot).collect()
    }

    /// The table for the decision record.
    pub fn markdown(&self) -> String {
        let [a, b] = self.sides.map(Kind::name);
        let runs = self.blocks.len();
        let mut text = format!(
            "| | {a} | {b} | {a}/{b} [95 %] | same against same | word |\n|---|---|---|---|---|---|\n"
        );
        for row in &self.rows {
            let median = |value: Option<f64>| {
                value.map_or("-".to_owned(), |value| format!("{value:.2} {}", row.unit))
            };
            let ratio = |ratio: Option<Ratio>| ratio.map_or("-".to_owned(), |ratio| ratio.shown());
            let word = match (row.decides, row.valid, row.ratio) {
                (_, false, _) => "INVALID",
                (true, true, Some(ratio)) => ratio.word(),
                _ => "",
            };
            let (of_a, of_b) = (median(row.medians[0]), median(row.medians[1]));
            let _ = writeln!(
                text,
                "| {} | {of_a} | {of_b} | {} | {} | {word} |",
                row.name,
                ratio(row.ratio),
                ratio(row.control)
            );
        }
        let _ = writeln!(
            text,
            "\n{runs} runs of {} s; {a}: {}; {b}: {}.",
            self.shape.plan.length.as_secs(),
            self.sides[0].tier(),
            self.sides[1].tier()
        );
        let loses: Vec<_> = self
            .rows
            .iter()
            .filter(|row| {
                row.valid
                    && row
                        .ratio
                        .is_some_and(|ratio| ratio.ci_lo.is_some_and(|lower| lower > 1.0))
            })
            .map(|row| row.name)
            .collect();
        let lost = if loses.is_empty() {
            "in no cell whose interval lies above 1".to_owned()
        } else {
            loses.join(", ")
        };
        let _ = writeln!(text, "{a} loses: {lost}.");
        text
    }
}

fn row(cells: &[(usize, Vec<Cell>)], index: usize) -> Row {
    let first = &cells[0].1[index];
    let of = |block: usize| cells[block].1[index].value;
    let mut values: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (block, (side, _)) in cells.iter().enumerate() {
        values.entry(*side).or_default().extend(of(block));
    }
    let pair = |(a, b)| Some((of(a)?, of(b)?));
    let blocks = cells.len();
    let pairs: Vec<_> = (0..blocks / 2)
        .map(|pair| (2 * pair, 2 * pair + 1))
        .map(|(one, other)| {
            if cells[one].0 == 0 {
                (one, other)
            } else {
                (other, one)
            }
        })
        .collect();
    let neighbours: Vec<_> = (1..blocks.saturating_sub(1))
        .step_by(2)
        .map(|block| (block, block + 1))
        .collect();
    let ratio = |of: &[(usize, usize)]| {
        let pairs: Option<Vec<_>> = of.iter().copied().map(pair).collect();
        Ratio::of(&pairs?)
    };
    Row {
        name: first.name,
        unit: first.unit,
        method: first.method,
        medians: [0, 1].map(|side| median(values.remove(&side).unwrap_or_default())),
        ratio: ratio(&pairs),
        control: ratio(&neighbours),
        n_samples: cells.iter().map(|(_, cells)| cells[index].samples).sum(),
        valid: cells.iter().all(|(_, cells)| cells[index].valid),
        decides: first.decides,
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(values: &[f64]) -> Vec<(usize, Vec<Cell>)> {
        let cell = |value: &f64| Cell {
            name: "cost",
            unit: "us",
            value: Some(*value),
            samples: 10,
            method: "planted",
            valid: true,
            decides: true,
        };
        order(values.len() / 4)
            .into_iter()
            .zip(values)
            .map(|(side, value)| (side, vec![cell(value)]))
            .collect()
    }

    #[test]
    fn pairs_are_of_neighbours_and_the_control_is_of_the_same_server() {
        let row = row(&cells(&[1.0, 4.0, 8.0, 2.0, 1.0, 4.0, 4.0, 1.0]), 0);
        let ratio = row.ratio.expect("pairs");
        assert!(
            (ratio.point - 0.25).abs() < 1e-12 && ratio.n_runs == 4,
            "{ratio:?}"
        );
        // 4/8, 2/1 and 4/4.
        let control = row.control.expect("pairs");
        assert!(
            (control.point - 1.0).abs() < 1e-12 && control.n_runs == 3,
            "{control:?}"
        );
        assert_eq!(row.medians, [Some(1.0), Some(4.0)]);
    }

    /// A difference that was planted is found, and none is found where none was, as often as 95 % promises.
    #[test]
    fn an_interval_covers_the_truth_as_often_as_it_says() {
        let mut random = fastrand::Rng::with_seed(9);
        let mut noisy =
            |value: f64| value * (0.02 * ((0..12).map(|_| random.f64()).sum::<f64>() - 6.0)).exp();
        let (mut covered, mut found) = (0, 0);
        for _ in 0..400 {
            let same: Vec<_> = (0..12).map(|_| (noisy(5.0), noisy(5.0))).collect();
            let slower: Vec<_> = (0..12).map(|_| (noisy(5.25), noisy(5.0))).collect();
            let (same, slower) = (
                Ratio::of(&same).expect("pairs"),
                Ratio::of(&slower).expect("pairs"),
            );
            covered += u32::from(same.ci_lo < Some(1.0) && Some(1.0) < same.ci_hi);
            found += u32::from(slower.ci_lo > Some(1.0));
        }
        assert!((368..=392).contains(&covered), "{covered} of 400");
        assert!(found >= 390, "{found} of 400");
    }

    #[test]
    fn the_word_goes_by_the_upper_end_and_one_pair_has_none() {
        let word = |upper| {
            Ratio {
                point: 0.2,
                ci_lo: upper,
                ci_hi: upper,
                n_runs: 4,
            }
            .word()
        };
        assert_eq!(
            [
                word(Some(0.33)),
                word(Some(0.34)),
                word(Some(0.81)),
                word(None)
            ],
            ["Low", "Medium", "High", "unknown"]
        );
        assert_eq!(Ratio::of(&[(1.0, 2.0)]).expect("a pair").word(), "unknown");
    }

    /// By a printed table.
    #[test]
    fn students_points_are_those_of_the_table() {
        for (freedom, point) in [(1, 12.706), (2, 4.303), (10, 2.228), (30, 2.042)] {
            assert!(
                (student(freedom) - point).abs() < 0.001,
                "{freedom}: {}",
                student(freedom)
            );
        }
    }

    #[test]
    fn a_figure_that_has_no_ratio_gets_none() {
        assert_eq!(Ratio::of(&[]), None);
        assert_eq!(Ratio::of(&[(1.0, 2.0), (0.0, 2.0)]), None);
    }
}
