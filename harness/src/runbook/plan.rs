//! A runbook with its variables settled: what will be run, readable before it is run.

use std::collections::BTreeMap;
use std::fmt;

use super::hints::{abbreviate, count, nearest, spoken};
use super::parse::{Runbook, Step};

/// How wide a printed line of a command or an output may be, in characters.
const WIDTH: usize = 120;
/// How many lines of a promised output are printed.
const PROMISE_LINES: usize = 3;

/// Where the value of a variable comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The caller gave it.
    Given,
    /// The default that stands in the document.
    Default,
}

/// A variable with the value that it will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where the value comes from.
    pub source: Source,
}

/// A [`Runbook`] and a value for each of its variables; `Display` prints the numbered plan.
#[derive(Debug, Clone)]
pub struct Plan {
    runbook: Runbook,
    variables: Vec<PlannedVariable>,
}

impl Plan {
    pub(super) fn new(
        runbook: &Runbook,
        given: &BTreeMap<String, String>,
    ) -> Result<Self, PlanError> {
        let mut problems = Vec::new();
        let known = runbook
            .variables()
            .iter()
            .map(|variable| variable.name.as_str());
        for (name, value) in given {
            if !known.clone().any(|known| known == name) {
                problems.push(PlanProblem::Unknown {
                    name: name.clone(),
                    suggestion: nearest(name, known.clone()).map(str::to_owned),
                });
            } else if value.contains('\0') {
                problems.push(PlanProblem::Unusable { name: name.clone() });
            }
        }
        let mut variables = Vec::new();
        for variable in runbook.variables() {
            let (value, source) = match (given.get(&variable.name), &variable.default) {
                (Some(value), _) => (value, Source::Given),
                (None, Some(default)) => (default, Source::Default),
                (None, None) => {
                    problems.push(PlanProblem::Missing {
                        name: variable.name.clone(),
                        meaning: variable.meaning.clone(),
                    });
                    continue;
                }
            };
            variables.push(PlannedVariable {
                name: variable.name.clone(),
                value: value.clone(),
                source,
            });
        }
        if problems.is_empty() {
            Ok(Self {
                runbook: runbook.clone(),
                variables,
            })
        } else {
            Err(PlanError {
                runbook: runbook.name().to_owned(),
                known: known.map(str::to_owned).collect(),
                problems,
            })
        }
    }

    /// The document.
    pub fn runbook(&self) -> &Runbook {
        &self.runbook
    }

    /// The variables with their values, in the order of the document.
    pub fn variables(&self) -> &[PlannedVariable] {
        &self.variables
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        self.runbook.steps()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runbook = &self.runbook;
        writeln!(f, "{} ({})", runbook.title(), runbook.name())?;
        if !self.variables.is_empty() {
            writeln!(f, "\nvariables")?;
            let width = |length: fn(&PlannedVariable) -> usize| {
                self.variables.iter().map(length).max().unwrap_or(0)
            };
            let names = width(|variable| variable.name.chars().count());
            let values = width(|variable| shown_value(variable).chars().count());
            for variable in &self.variables {
                let source = match variable.source {
                    Source::Given => "given",
                    Source::Default => "default",
                };
                let value = shown_value(variable);
                writeln!(f, "  {:names$}  {value:values$}  {source}", variable.name)?;
            }
        }
        let commands = || runbook.steps().iter().flat_map(|step| &step.commands);
        let numbers = commands()
            .map(|command| command.number.len())
            .max()
            .unwrap_or(0);
        for step in runbook.steps() {
            writeln!(f, "\n{} {}", step.number, step.title)?;
            if step.commands.is_empty() {
                writeln!(f, "  nothing to run")?;
            }
            for command in &step.commands {
                for (index, line) in command.text.lines().enumerate() {
                    let line = abbreviate(line, WIDTH);
                    let (number, prompt) = if index == 0 {
                        (command.number.as_str(), '$')
                    } else {
                        ("", '>')
                    };
                    let line = format!("  {number:numbers$}  {prompt} {line}");
                    writeln!(f, "{}", line.trim_end())?;
                }
                let mut detail = |word: &str, text: &str| {
                    writeln!(
                        f,
                        "  {:numbers$}    {}",
                        "",
                        format!("{word} {text}").trim_end()
                    )
                };
                if let Some(probe) = &command.probe {
                    let limit = spoken(probe.at_most);
                    detail("until", &format!("{}, at most {limit}", probe.what))?;
                }
                if command.expected_exit != 0 {
                    detail("exit", &command.expected_exit.to_string())?;
                }
                if let Some(promise) = &command.promise {
                    for (index, line) in promise.lines().iter().take(PROMISE_LINES).enumerate() {
                        let word = if index == 0 { "prints" } else { "      " };
                        detail(word, &abbreviate(line, WIDTH))?;
                    }
                    let more = promise.lines().len().saturating_sub(PROMISE_LINES);
                    if more > 0 {
                        detail("      ", &format!("(and {})", count(more, "more line")))?;
                    }
                }
            }
        }
        if !runbook.results().is_empty() {
            writeln!(f, "\nresults")?;
            let names = runbook
                .results()
                .iter()
                .map(|result| result.name.len())
                .max()
                .unwrap_or(0);
            for result in runbook.results() {
                let line = format!("  {:names$}  {}", result.name, result.meaning);
                writeln!(f, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }
}

fn shown_value(variable: &PlannedVariable) -> String {
    if variable.value.is_empty() {
        "''".to_owned()
    } else {
        abbreviate(&variable.value, WIDTH)
    }
}

/// Why a [`Runbook`] cannot be followed with the values that were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    runbook: String,
    known: Vec<String>,
    problems: Vec<PlanProblem>,
}

/// One reason of a [`PlanError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanProblem {
    /// The runbook requires the variable and nobody gave it.
    Missing {
        /// Its name.
        name: String,
        /// What the document says that it means.
        meaning: String,
    },
    /// A value was given for a variable that the runbook does not have.
    Unknown {
        /// The name that was given.
        name: String,
        /// The variable that was probably meant.
        suggestion: Option<String>,
    },
    /// The value that was given holds a NUL byte, which no shell variable can hold.
    Unusable {
        /// The name of the variable.
        name: String,
    },
}

impl PlanError {
    /// Every reason.
    pub fn problems(&self) -> &[PlanProblem] {
        &self.problems
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.runbook;
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match problem {
                PlanProblem::Missing { name, meaning } => {
                    writeln!(f, "missing variable `{name}` of `{file}`")?;
                    write!(f, "hint: give it as `{name}=VALUE`")?;
                    if !meaning.is_empty() {
                        write!(f, "; it means: {meaning}")?;
                    }
                }
                PlanProblem::Unknown { name, suggestion } => {
                    writeln!(f, "unknown variable `{name}` for `{file}`")?;
                    let known: Vec<String> = self
                        .known
                        .iter()
                        .map(|known| format!("`{known}`"))
                        .collect();
                    match suggestion {
                        Some(suggestion) => write!(f, "hint: did you mean `{suggestion}`?")?,
                        None if known.is_empty() => write!(f, "hint: it takes no variables")?,
                        None => write!(f, "hint: it takes {}", known.join(", "))?,
                    }
                }
                PlanProblem::Unusable { name } => {
                    writeln!(f, "unusable value of the variable `{name}` of `{file}`")?;
                    write!(
                        f,
                        "hint: remove the NUL byte, which no shell variable can hold"
                    )?;
                }
            }
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}
