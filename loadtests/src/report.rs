//! What is kept of a run as JSON. A figure that may not be quoted says so in itself.

use crate::compare::{Comparison, Ratio};
use crate::server::Kind;
use serde::Serialize;
use serde_json::{Value, json};

/// A number as the schema has it.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    name: String,
    unit: String,
    point: Option<f64>,
    ci_lo: Option<f64>,
    ci_hi: Option<f64>,
    n_runs: usize,
    n_samples: u64,
    method: String,
    valid: bool,
}

/// A comparison with what it was made of.
pub fn comparison(comparison: &Comparison) -> Value {
    let [a, b] = comparison.sides.map(|kind| kind.name());
    let mut figures = Vec::new();
    for row in &comparison.rows {
        let figure =
            |name: String, unit: String, ratio: Option<Ratio>, point: Option<f64>| Figure {
                name,
                unit,
                point: ratio.map(|ratio| ratio.point).or(point),
                ci_lo: ratio.and_then(|ratio| ratio.ci_lo),
                ci_hi: ratio.and_then(|ratio| ratio.ci_hi),
                n_runs: ratio.map_or(comparison.blocks.len() / 2, |ratio| ratio.n_runs),
                n_samples: row.n_samples,
                method: row.method.to_owned(),
                valid: row.valid,
            };
        for (side, median) in [a, b].iter().zip(row.medians) {
            figures.push(figure(
                format!("{side}: {}", row.name),
                row.unit.to_owned(),
                None,
                median,
            ));
        }
        figures.push(figure(
            format!("{a}/{b}: {}", row.name),
            "1".to_owned(),
            row.ratio,
            None,
        ));
        figures.push(figure(
            format!("control: {}", row.name),
            "1".to_owned(),
            row.control,
            None,
        ));
    }
    json!({
        "identity": identity(&comparison.shape),
        "valid": comparison.blocks.iter().all(|block| block.validity.costs()) && !comparison.blocks.is_empty(),
        "figures": figures,
        "blocks": comparison.blocks,
    })
}

/// What a run was: enough to do it again.
pub fn identity(shape: &crate::run::Shape) -> Value {
    let first = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let tiers =
        [Kind::Conduit, Kind::Synapse].map(|kind| json!({"server": kind, "tier": kind.tier()}));
    json!({
        "shape": shape,
        "seed": format!("{:x}", shape.plan.seed),
        "kernel": first("/proc/sys/kernel/osrelease"),
        "load_average": first("/proc/loadavg"),
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "generator": env!("CARGO_PKG_VERSION"),
        "tiers": tiers,
        "proxy": false,
    })
}
