//! What is kept of a run: JSON, and for people a page and Markdown beside it. A figure that may not be quoted says so in
//! itself.

use crate::compare::{Comparison, Ratio};
use crate::page::{Plot, html};
use crate::run::{Block, Shape};
use crate::server::Kind;
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What is kept.
#[derive(Clone, Debug)]
pub struct Report {
    /// Above the page.
    pub title: String,
    /// Everything.
    pub json: Value,
    /// What a person reads.
    pub markdown: String,
    /// And sees.
    pub plots: Vec<Plot>,
}

impl Report {
    /// Writes `path`, and beside it the same name with `.md` and `.html`.
    ///
    /// # Errors
    /// It cannot be written; what was there before is there still.
    pub fn keep(&self, path: &Path) -> Result<()> {
        keep(path, &self.json)?;
        if !is_file(path) {
            return Ok(());
        }
        let markdown = format!("# {}\n\n{}", self.title, self.markdown);
        replace(&path.with_extension("md"), &markdown)?;
        let page = html(&self.title, &self.markdown, &self.plots)?;
        replace(&path.with_extension("html"), &page)
    }
}

/// Writes JSON.
///
/// # Errors
/// It cannot be written; what was there before is there still.
pub fn keep(path: &Path, json: &Value) -> Result<()> {
    replace(path, &format!("{json:#}\n"))
}

/// Not a pipe or a device.
fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file())
}

/// Puts a file in the place of another once all of it is on the disk.
fn replace(path: &Path, text: &str) -> Result<()> {
    let write = || {
        if path.exists() && !is_file(path) {
            return std::fs::write(path, text);
        }
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let mut file = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(directory.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| {
        format!(
            "write the report `{}`: is the disk full? What was measured is told above",
            path.display()
        )
    })
}

/// A run, with how its thresholds were judged.
pub fn run(shape: &Shape, block: &Block, judged: &[crate::threshold::Judged]) -> Report {
    let told: String = judged
        .iter()
        .map(|judged| format!("- {judged}\n"))
        .collect();
    let kind = block.kind.map_or("a target", Kind::name);
    Report {
        title: format!(
            "Load on {kind}: {} messages/s for {} s",
            shape.plan.rate,
            shape.plan.length.as_secs()
        ),
        json: json!({
            "identity": identity(shape), "valid": block.validity.costs(), "thresholds": judged, "block": block,
        }),
        markdown: format!("{}\n{told}", block.markdown()),
        plots: block.plots.clone(),
    }
}

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

/// A search for a knee.
pub fn capacity(found: &crate::capacity::Capacity) -> Report {
    let shape = &found.question.shape;
    Report {
        title: format!("Capacity of {}", found.question.kind.name()),
        json: json!({"identity": identity(shape), "valid": found.against.is_empty(), "capacity": found}),
        markdown: found.markdown(),
        plots: found.plots(),
    }
}

/// The laws of costs.
pub fn laws(found: &crate::laws::Laws) -> Report {
    Report {
        title: "Laws of costs".to_owned(),
        json: json!({"identity": identity(&found.shape), "valid": found.valid(), "laws": found}),
        markdown: found.markdown(),
        plots: found.plots(),
    }
}

/// A comparison with what it was made of.
pub fn comparison(comparison: &Comparison) -> Report {
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
    let json = json!({
        "identity": identity(&comparison.shape),
        "valid": comparison.blocks.iter().all(|block| block.validity.costs()) && !comparison.blocks.is_empty(),
        "figures": figures,
        "blocks": comparison.blocks,
    });
    Report {
        title: format!("{a} beside {b}"),
        json,
        markdown: comparison.markdown(),
        plots: comparison.plots(),
    }
}

/// What a run was: enough to do it again.
pub fn identity(shape: &Shape) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(word: &str) -> Report {
        Report {
            title: "a run".to_owned(),
            json: json!({"word": word}),
            markdown: word.to_owned(),
            plots: Vec::new(),
        }
    }

    #[test]
    fn a_report_lies_beside_its_page_and_its_markdown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("report.json");
        std::fs::write(&path, "").expect("made beforehand");
        report("garden").keep(&path).expect("kept");
        for (extension, with) in [
            ("json", "\"word\": \"garden\""),
            ("md", "# a run\n\ngarden"),
            ("html", "<p>garden</p>"),
        ] {
            let text = std::fs::read_to_string(path.with_extension(extension)).expect("a file");
            assert!(text.contains(with), "{text}");
        }
        assert_eq!(
            std::fs::read_dir(directory.path())
                .expect("a directory")
                .count(),
            3
        );
    }

    /// A device that is always full, and nothing is put in its place.
    #[test]
    fn a_full_disk_is_named() {
        let full = format!(
            "{:#}",
            report("garden")
                .keep(Path::new("/dev/full"))
                .expect_err("refused")
        );
        assert!(
            full.contains("is the disk full?") && full.contains("No space left"),
            "{full}"
        );
        assert!(!is_file(Path::new("/dev/full")) && !Path::new("/dev/full.html").exists());
    }
}
