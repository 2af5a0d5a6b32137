//! The laws of a server's costs, one experiment each: everything is held but one cause, and what one more of it costs is
//! fitted with its interval. Beside another server, each cell has a ratio, and the regimes where the word of the decision
//! record is not "Low" are named.

use crate::compare::Ratio;
use crate::model::{Coefficient, Fit, Row};
use crate::page::{Plot, Scale, Series};
use crate::run::{Block, Cast, Shape};
use crate::schedule::Plan;
use crate::server::{Kind, Server, Source};
use crate::shard::Shard;
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Members of the room: push rules are evaluated for each, in the request of the sender.
    Members,
    /// Rooms that readers are joined to: each sync looks at each, and writes a key for each.
    Rooms,
    /// Messages that are in the room before: a newcomer's first sync looks for who it is with.
    History,
    /// Words of a message: each is written to the index of the search.
    Words,
}

/// What it may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// Processor time for each accepted event, in microseconds.
    EventCpu,
    /// Bytes written towards the disk for each accepted event.
    EventWritten,
    /// Processor time for each answer to a long poll, in microseconds.
    SyncCpu,
    /// Bytes written towards the disk for each answer to a long poll: reading makes the disk grow.
    SyncWritten,
    /// Processor time for one first sync, in microseconds.
    FirstSyncCpu,
}

impl Cost {
    fn name(self) -> &'static str {
        match self {
            Self::EventCpu => "us of a processor for each event",
            Self::EventWritten => "bytes written for each event",
            Self::SyncCpu => "us of a processor for each sync",
            Self::SyncWritten => "bytes written for each sync",
            Self::FirstSyncCpu => "us of a processor for a first sync",
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a run")]
    fn of(self, block: &Block, first_sync: f64) -> Option<f64> {
        let (events, syncs) = (block.counts.accepted as f64, block.syncs as f64);
        let cost = match self {
            Self::EventCpu => block.cpu()? / events * 1e6,
            Self::EventWritten => block.written()? / events,
            Self::SyncCpu => block.cpu()? / syncs * 1e6,
            Self::SyncWritten => block.written()? / syncs,
            Self::FirstSyncCpu => first_sync,
        };
        cost.is_finite().then_some(cost)
    }
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Members, Self::Rooms, Self::History, Self::Words];

    fn one(self) -> &'static str {
        match self {
            Self::Members => "member",
            Self::Rooms => "room",
            Self::History => "message of history",
            Self::Words => "word",
        }
    }

    fn points(self) -> [u32; 4] {
        match self {
            Self::Members => [4, 15, 40, 80],
            Self::Rooms => [1, 20, 60, 120],
            Self::History => [0, 500, 2_000, 5_000],
            Self::Words => [1, 20, 45, 69],
        }
    }

    fn costs(self) -> &'static [Cost] {
        match self {
            Self::Members => &[Cost::EventCpu],
            Self::Rooms => &[Cost::SyncCpu, Cost::SyncWritten],
            Self::History => &[Cost::FirstSyncCpu],
            Self::Words => &[Cost::EventCpu, Cost::EventWritten],
        }
    }

    /// Few people, so that what is varied is not drowned by what is not.
    fn shape(self, base: &Shape, point: u32) -> Shape {
        let mut shape = Shape {
            plan: Plan {
                senders: 2,
                words: Some(8),
                ..base.plan.clone()
            },
            members: 4,
            readers: 2,
            rooms: 1,
            history: 0,
            warm: base.warm,
        };
        match self {
            Self::Members => shape.members = point,
            Self::Rooms => shape.rooms = point,
            Self::History => shape.history = point,
            Self::Words => shape.plan.words = Some(point),
        }
        shape
    }
}

/// First syncs that one figure is formed from.
const FIRST_SYNCS: u32 = 5;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Which server.
    pub kind: Kind,
    /// How much of the cause.
    pub point: u32,
    /// The costs of the cause, in their order.
    pub costs: Vec<Option<f64>>,
    /// Whether its costs may be quoted.
    pub valid: bool,
}

/// What one law came to.
#[derive(Clone, Debug, Serialize)]
pub struct Law {
    /// What was varied.
    pub cause: Cause,
    /// What was looked at.
    pub cost: Cost,
    /// Of each server, what one more costs, after what it costs with none.
    pub lines: Vec<(Kind, [Coefficient; 2])>,
    /// The first server to the second, where there is one.
    pub ratios: Vec<(u32, Ratio)>,
    /// Whether every run allows to quote it.
    pub valid: bool,
}

/// The upper end of a ratio up to which the record says "Low".
const LOW: f64 = 0.33;

impl Law {
    /// From the runs of its cause, in their order.
    ///
    /// # Errors
    /// Too few of them.
    pub fn of(cause: Cause, index: usize, kinds: &[Kind], cells: &[Cell]) -> Result<Self> {
        let of = |kind: Kind| {
            cells
                .iter()
                .filter(move |cell| cell.kind == kind)
                .filter_map(move |cell| Some((cell.point, cell.costs[index]?)))
        };
        let lines = kinds
            .iter()
            .map(|&kind| {
                let rows: Vec<Row> = of(kind)
                    .map(|(point, cost)| (vec![f64::from(point)], cost))
                    .collect();
                let fit = Fit::of(&[cause.one()], &rows)
                    .with_context(|| format!("fit the law of {cause:?} for {}", kind.name()))?;
                let [none, more] = &fit.coefficients[..] else {
                    unreachable!("one cause has two coefficients")
                };
                Ok((kind, [none.clone(), more.clone()]))
            })
            .collect::<Result<_>>()?;
        let mut ratios = Vec::new();
        if let [one, other] = *kinds {
            for point in cause.points() {
                let at = |kind| {
                    of(kind)
                        .filter(move |(at, _)| *at == point)
                        .map(|(_, cost)| cost)
                };
                let pairs: Vec<_> = at(one).zip(at(other)).collect();
                ratios.extend(Ratio::of(&pairs).map(|ratio| (point, ratio)));
            }
        }
        Ok(Self {
            cause,
            cost: cause.costs()[index],
            lines,
            ratios,
            valid: cells.iter().all(|cell| cell.valid),
        })
    }

    /// How much of the cause brings the ratio to where "Low" ends, by the fitted lines; nothing unless it certainly grows
    /// that far.
    fn ends(&self) -> Option<f64> {
        let [(_, [none, more]), (_, [other_none, other_more])] = &self.lines[..] else {
            return None;
        };
        let certain = more.ci_lo > LOW * other_more.ci_hi;
        let slope = more.point - LOW * other_more.point;
        certain.then(|| ((LOW * other_none.point - none.point) / slope).max(0.0))
    }

    /// For a person, and for a document.
    pub fn markdown(&self) -> String {
        let one = self.cause.one();
        let mut text = format!("### {one}: {}\n\n", self.cost.name());
        if !self.valid {
            text.push_str("INVALID: a run of it may not be quoted.\n\n");
        }
        for (kind, [none, more]) in &self.lines {
            let word = if more.certain() {
                "grows"
            } else if more.ci_hi < 0.0 {
                "falls"
            } else {
                "no growth is certain"
            };
            let _ = writeln!(
                text,
                "- {}: {word}: {:.2} [{:.2}, {:.2}] for each {one}, beside {:.0} [{:.0}, {:.0}]",
                kind.name(),
                more.point,
                more.ci_lo,
                more.ci_hi,
                none.point,
                none.ci_lo,
                none.ci_hi
            );
        }
        for (point, ratio) in &self.ratios {
            let word = match (ratio.ci_lo, ratio.ci_hi) {
                (Some(lower), _) if lower > LOW => "Low fails here",
                (_, Some(upper)) if upper <= LOW => "Low",
                _ => "undecided",
            };
            let _ = writeln!(text, "- at {point}: ratio {}: {word}", ratio.shown());
        }
        if self.lines.len() == 2 {
            let ends = self.ends().map_or(
                "by the fitted lines no end of \"Low\" is certain".to_owned(),
                |at| format!("by the fitted lines \"Low\" ends at {at:.0} of {one}"),
            );
            let _ = writeln!(text, "- {ends}");
        }
        text.push('\n');
        text
    }

    fn plot(&self, cells: &[Cell]) -> Plot {
        let index = self
            .cause
            .costs()
            .iter()
            .position(|cost| *cost == self.cost);
        let of = |kind: Kind| {
            let mut points: Vec<_> = cells
                .iter()
                .filter(|cell| cell.kind == kind)
                .filter_map(|cell| Some((f64::from(cell.point), cell.costs[index?]?)))
                .collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            Series {
                name: kind.name().to_owned(),
                points,
            }
        };
        Plot {
            title: format!("{}, {}", self.cause.one(), self.cost.name()),
            x: (format!("{:?}", self.cause).to_lowercase(), Scale::Linear),
            y: (self.cost.name().to_owned(), Scale::Linear),
            series: self.lines.iter().map(|(kind, _)| of(*kind)).collect(),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Laws {
    /// What the experiments are made from.
    pub shape: Shape,
    /// Every run, by its cause.
    pub cells: Vec<(Cause, Vec<Cell>)>,
    /// What it came to.
    pub laws: Vec<Law>,
    /// Ended by hand.
    pub interrupted: bool,
}

impl Laws {
    /// For a person, and for a document.
    pub fn markdown(&self) -> String {
        self.laws.iter().map(Law::markdown).collect()
    }

    /// Each law as it is drawn.
    pub fn plots(&self) -> Vec<Plot> {
        let cells = |law: &Law| self.cells.iter().find(|(cause, _)| *cause == law.cause);
        self.laws
            .iter()
            .filter_map(|law| Some(law.plot(&cells(law)?.1)))
            .collect()
    }

    /// Whether all of it may be quoted.
    pub fn valid(&self) -> bool {
        !self.interrupted && !self.laws.is_empty() && self.laws.iter().all(|law| law.valid)
    }
}

/// In which order points and servers take their turns, so that a drift of the machine is nobody's.
fn turns(cause: Cause, kinds: &[Kind], repeats: u32) -> Vec<(u32, Kind)> {
    (0..repeats)
        .flat_map(|repeat| {
            let turn: Vec<_> = cause
                .points()
                .into_iter()
                .flat_map(|point| kinds.iter().map(move |kind| (point, *kind)))
                .collect();
            if repeat % 2 == 0 {
                turn
            } else {
                turn.into_iter().rev().collect()
            }
        })
        .collect()
}

/// Makes the experiments.
///
/// # Errors
/// A server does not come up, or too little came of it.
pub async fn experiment(
    causes: &[Cause],
    kinds: &[Kind],
    shape: &Shape,
    repeats: u32,
    source: &Source,
    mut told: impl FnMut(&str),
    stop: impl Future<Output = ()>,
) -> Result<Laws> {
    let mut stop = std::pin::pin!(stop);
    let mut found = Laws {
        shape: shape.clone(),
        cells: Vec::new(),
        laws: Vec::new(),
        interrupted: false,
    };
    'causes: for &cause in causes {
        let mut cells = Vec::new();
        for (point, kind) in turns(cause, kinds, repeats) {
            let cell = tokio::select! {
                cell = cell(cause, kind, point, shape, source) => cell?,
                () = &mut stop => { found.interrupted = true; break 'causes }
            };
            let costs = cause.costs().iter().zip(&cell.costs);
            let costs: Vec<_> = costs
                .map(|(cost, value)| {
                    let value = value.map_or("-".to_owned(), |value| format!("{value:.0}"));
                    format!("{value} {}", cost.name())
                })
                .collect();
            told(&format!(
                "{} at {point} {}: {}",
                kind.name(),
                cause.one(),
                costs.join(", ")
            ));
            cells.push(cell);
        }
        for index in 0..cause.costs().len() {
            found.laws.push(Law::of(cause, index, kinds, &cells)?);
        }
        found.cells.push((cause, cells));
    }
    Ok(found)
}

async fn cell(cause: Cause, kind: Kind, point: u32, base: &Shape, source: &Source) -> Result<Cell> {
    let shape = cause.shape(base, point);
    let server = Server::start(kind, source).await?;
    let cast = Cast::make(&server.target, &shape, "load", Shard::WHOLE).await?;
    // What the making has left to do is no cost of what is measured.
    let traffic = if cause == Cause::History {
        Shape {
            plan: Plan {
                length: Duration::from_secs(1),
                ..shape.plan.clone()
            },
            ..shape.clone()
        }
    } else {
        shape
    };
    let measured = cast
        .perform(&traffic, Some(&server.meter), None, std::future::pending())
        .await?;
    let block = Block::of(measured.samples, measured.schedule, measured.looks);
    let first_sync = if cause == Cause::History {
        cast.newcomer(&server.meter, FIRST_SYNCS).await?
    } else {
        0.0
    };
    Ok(Cell {
        kind,
        point,
        costs: cause
            .costs()
            .iter()
            .map(|cost| cost.of(&block, first_sync))
            .collect(),
        valid: block.validity.costs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(cost: impl Fn(Kind, f64, &mut fastrand::Rng) -> f64) -> Vec<Cell> {
        let mut random = fastrand::Rng::with_seed(4);
        turns(Cause::Members, &[Kind::Conduit, Kind::Synapse], 3)
            .into_iter()
            .map(|(point, kind)| Cell {
                kind,
                point,
                costs: vec![Some(cost(kind, f64::from(point), &mut random))],
                valid: true,
            })
            .collect()
    }

    fn law(cells: &[Cell]) -> Law {
        Law::of(Cause::Members, 0, &[Kind::Conduit, Kind::Synapse], cells).expect("a law")
    }

    /// A planted law: Conduit at first a tenth of Synapse, and steeper than it.
    #[test]
    fn a_planted_law_is_found_and_the_regime_where_low_fails_is_named() {
        let law = law(&cells(|kind, members, random| {
            let noise = 1.0 + 0.02 * (random.f64() - 0.5);
            noise
                * if kind == Kind::Conduit {
                    1_000.0 + 200.0 * members
                } else {
                    10_000.0 + 300.0 * members
                }
        }));
        let (_, [_, slope]) = &law.lines[0];
        assert!(
            slope.certain() && slope.ci_lo <= 200.0 && 200.0 <= slope.ci_hi,
            "{slope:?}"
        );
        // 1,000 + 200 n is a third of 10,000 + 300 n at n = 2,300 / 101.
        assert!(
            (law.ends().expect("it ends") - 22.8).abs() < 2.0,
            "{:?}",
            law.ends()
        );
        let text = law.markdown();
        assert!(
            text.contains("- conduit: grows: ") && text.contains("\"Low\" ends at"),
            "{text}"
        );
        let failing: Vec<_> = text
            .lines()
            .filter(|line| line.contains("Low fails"))
            .collect();
        assert!(
            failing.len() == 2
                && failing[0].starts_with("- at 40")
                && failing[1].starts_with("- at 80"),
            "{text}"
        );
    }

    #[test]
    fn where_there_is_no_law_none_is_claimed() {
        let law = law(&cells(|kind, _, random| {
            (1.0 + 0.1 * (random.f64() - 0.5))
                * if kind == Kind::Conduit {
                    1_000.0
                } else {
                    10_000.0
                }
        }));
        let text = law.markdown();
        assert_eq!(text.matches("no growth is certain").count(), 2, "{text}");
        assert!(
            !text.contains("Low fails") && text.contains("no end of \"Low\" is certain"),
            "{text}"
        );
    }

    #[test]
    fn each_server_and_each_point_has_as_many_turns() {
        let turns = turns(Cause::Words, &[Kind::Conduit, Kind::Synapse], 3);
        for point in Cause::Words.points() {
            for kind in [Kind::Conduit, Kind::Synapse] {
                assert_eq!(
                    turns.iter().filter(|turn| **turn == (point, kind)).count(),
                    3
                );
            }
        }
    }
}
