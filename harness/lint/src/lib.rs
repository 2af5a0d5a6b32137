//! Judges the configuration of a Conduit site before anything is started: what would be dropped without a word, what
//! would keep the server from starting, what is dangerous, and where two files of the site contradict each other.
//!
//! One run, module by module: [`read`] takes files in and [`source`] guesses what they are; `conduit`, `environment`
//! and `systemd` turn them into [`value`]s that remember their places; `conduit` holds these against the [`catalogue`]
//! of keys, and `unit` the units against what has cost somebody a server; [`cross`] holds the files of one site against
//! each other, by the same readings; [`diagnostic`] is what is said about them, [`render`] how,
//! and [`fix`] writes down what has one safe meaning.
//!
//! The verdict is about what the server would really run with: the file, with the variables of its unit and of its
//! environment files on top.

pub mod catalogue;
mod conduit;
pub mod cross;
pub mod diagnostic;
mod environment;
pub mod example;
pub mod fix;
pub mod read;
pub mod render;
pub mod source;
mod systemd;
mod unit;
pub mod value;

pub use conduit::invalid_text;
pub use diagnostic::{Code, Diagnostic, Effect, Fix, Label, Severity, predicted_exit};
pub use source::{Kind, Source};

use conduit::{File, Judge};
use environment::Variable;
use systemd::Unit;
use value::Place;

/// Judges files, each by itself and together. The answer is sorted by file and place, and the same for the same files.
pub fn lint(sources: &[Source]) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let of = |kind| sources.iter().filter(move |source| source.kind() == kind);
    let files: Vec<File> = of(Kind::Conduit)
        .map(|source| conduit::read(source, &mut findings))
        .collect();
    let environments: Vec<(&Source, Vec<Variable>)> = of(Kind::Environment)
        .map(|source| (source, environment::read(source, &mut findings)))
        .collect();
    // What systemd skips is said where the units are held against the other files.
    let mut units = systemd::units(of(Kind::Unit), &mut Vec::new());
    units.retain(Unit::starts_conduit);
    let mut starts = Starts {
        files: &files,
        judged: vec![false; files.len()],
        partial: false,
        findings: &mut findings,
    };
    // What no unit names was given to be put on top of every start.
    let named = |source: &Source| units.iter().any(|unit| unit.names(source));
    let loose: Vec<Variable> = environments
        .iter()
        .filter(|(source, _)| !named(source))
        .flat_map(|(_, variables)| variables.iter().cloned())
        .collect();
    for unit in &units {
        unit.judge(starts.findings);
        starts.unit(unit, &environments, &loose);
    }
    starts.rest(&loose, !units.is_empty());
    findings.extend(cross::check(sources));
    let order = |finding: &Diagnostic| {
        let name = finding.primary.source.name().to_owned();
        let span = &finding.primary.span;
        (
            name,
            span.start,
            span.end,
            finding.code,
            finding.message.clone(),
        )
    };
    findings.sort_by_cached_key(order);
    let mut once: Vec<Diagnostic> = Vec::new();
    for finding in findings {
        let mut here = once
            .iter()
            .rev()
            .take_while(|earlier| earlier.primary.span == finding.primary.span);
        if !here.any(|earlier| *earlier == finding) {
            once.push(finding);
        }
    }
    once
}

/// The ways in which the server is started, each judged as a whole.
struct Starts<'a> {
    files: &'a [File],
    judged: Vec<bool>,
    /// Whether the start at hand has values that are not known.
    partial: bool,
    findings: &'a mut Vec<Diagnostic>,
}

impl Starts<'_> {
    /// The start that a unit describes.
    fn unit(&mut self, unit: &Unit, environments: &[(&Source, Vec<Variable>)], loose: &[Variable]) {
        let (mut variables, all_known) = unit.variables(environments);
        variables.extend(loose.iter().cloned());
        let config = environment::config_path(&variables).cloned();
        // What a specifier comes to is known only to systemd: it may be what the file lacks.
        self.partial = variables.iter().any(|variable| {
            !variable.certain
                && catalogue::variable_path(&variable.name).is_some_and(|path| path != ["config"])
        });
        variables.retain(|variable| variable.certain);
        let Some(config) = config else {
            if all_known {
                self.findings.push(
                    Diagnostic::new(
                        Code::ConfigMissing,
                        Severity::Error,
                        Effect::Fatal { exit: 101 },
                        "`CONDUIT_CONFIG` is not set",
                        unit.start_place()
                            .label("Conduit panics at once (exit 101)"),
                    )
                    .note("add `Environment=CONDUIT_CONFIG=/opt/conduit/conduit.toml`; empty, it means that there is no file (Conduit src/main.rs:60)"),
                );
            }
            Judge::partial(&unit.start_place(), self.findings)
                .judge(&environment::layer(&variables));
            return;
        };
        self.start(config, &variables);
        self.partial = false;
    }

    /// A start with this `CONDUIT_CONFIG`.
    fn start(&mut self, config: Variable, variables: &[Variable]) {
        let layer = environment::layer(variables);
        let path = config.value.trim();
        if path.is_empty() {
            Judge::new(&config.value_place_or_name(), None, self.findings).judge(&layer);
            return;
        }
        if path.ends_with('/') {
            self.findings.push(config_path(
                &config,
                Severity::Error,
                "`CONDUIT_CONFIG` names a directory",
                "read as an empty configuration: nothing is taken from a file",
            ));
            Judge::new(&config.value_place, None, self.findings).judge(&layer);
            return;
        }
        if !path.starts_with('/') && config.certain {
            self.findings.push(config_path(
                &config,
                Severity::Warning,
                "`CONDUIT_CONFIG` is a relative path",
                "searched from where the server is started, and in every directory above it",
            ));
        }
        let named = self
            .files
            .iter()
            .position(|file| file_name(file.source.name()) == file_name(path));
        match named {
            Some(at) => {
                self.judged[at] = true;
                self.file(at, &layer);
            }
            None => {
                if !self.files.is_empty() {
                    self.findings.push(config_path(
                        &config,
                        Severity::Warning,
                        format!("`CONDUIT_CONFIG` names none of the files given here: `{path}`"),
                        "where nothing lies, Conduit reads an empty configuration",
                    ));
                }
                Judge::partial(&config.value_place, self.findings).judge(&layer);
            }
        }
    }

    /// The starts that no unit describes.
    fn rest(&mut self, loose: &[Variable], units: bool) {
        self.partial = false;
        let config = environment::config_path(loose).cloned();
        let layer = environment::layer(loose);
        if let Some(config) = config.filter(|config| {
            let path = config.value.trim();
            path.is_empty()
                || path.ends_with('/')
                || !path.starts_with('/')
                || self.files.is_empty()
        }) {
            self.start(config, loose);
            return;
        }
        // Where a unit starts something, the variables were judged with it.
        let mut alone = !units;
        for at in 0..self.files.len() {
            if !self.judged[at] {
                self.file(at, &layer);
                alone = false;
            }
        }
        if let (true, Some(first)) = (alone, loose.first()) {
            Judge::partial(&first.name_place, self.findings).judge(&layer);
        }
    }

    fn file(&mut self, at: usize, layer: &value::Table) {
        let file = &self.files[at];
        if let Some(table) = file.with(layer.clone()) {
            if self.partial {
                Judge::partial(&file.header, self.findings).judge(&table);
            } else {
                Judge::of(file, self.findings).judge(&table);
            }
        }
    }
}

impl Variable {
    /// An empty value has no place of its own that could be underlined.
    fn value_place_or_name(&self) -> Place {
        if self.value_place.span.is_empty() {
            self.name_place.clone()
        } else {
            self.value_place.clone()
        }
    }
}

fn config_path(
    config: &Variable,
    severity: Severity,
    message: impl Into<String>,
    label: &str,
) -> Diagnostic {
    Diagnostic::new(
        Code::ConfigPath,
        severity,
        Effect::None,
        message,
        config.value_place.label(label),
    )
    .note("a path that leads nowhere is not reported: what Conduit says is `missing field 'server_name'` (exit 1)")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
