//! What happened when a runbook was followed.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::hints::{abbreviate, count, excerpt, spoken};
use super::matching::Difference;
use super::parse::{Command, Step};
use super::plan::Plan;

/// How many lines of an output [`Transcript::to_markdown`] keeps.
const EVIDENCE_LINES: usize = 400;
/// How wide these lines may be, in characters.
const EVIDENCE_WIDTH: usize = 2_000;
/// How many lines of an output a [`Failure`] prints, and how wide they are.
const LETTER_LINES: usize = 20;
const LETTER_WIDTH: usize = 160;

/// How a command ended. The caller knows who is to blame: a failure speaks against the runbook or
/// the product, a lost session against the environment or the harness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did what the document promises.
    Passed,
    /// It ended, and not as promised: it certainly did not work.
    Failed(Reason),
    /// It did not end within its limit and was terminated: what it changed is not known. A timeout
    /// is not a refusal.
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The session ended under it, so nothing is known about its effect.
    SessionLost {
        /// What happened to the session.
        why: String,
    },
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Exit code or output are not as promised.
    Differs(Mismatch),
    /// A probe was never answered as promised.
    NotYet {
        /// What the document waits for: the words after `until`.
        what: String,
        /// For how long it was tried.
        limit: Duration,
        /// What differed in the last attempt that ended; what it printed is in [`Entry::seen`].
        last: Option<Mismatch>,
        /// Set when the last attempt still ran at the limit and was terminated: its output.
        cut_off: Option<String>,
    },
    /// The command ended the shell of the session, which is a mistake in the runbook: the commands
    /// after it would have had no shell, at a person's terminal as well.
    EndedSession {
        /// The exit code of the shell.
        exit: i32,
    },
    /// The runbook ended without setting one of its results.
    ResultNotSet {
        /// The name of the result.
        name: String,
    },
}

/// What is not as promised; at least one of the two is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The promised and the seen exit code.
    pub exit: Option<(i32, i32)>,
    /// How the output differs.
    pub output: Option<Difference>,
}

/// What was seen of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its exit code; nothing when it did not end.
    pub exit: Option<i32>,
    /// What it printed; nothing is removed from it (see [`super::Answer::output`]).
    pub output: String,
}

/// One command that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, `3.2`; `variables` or `results` for what is run around the document.
    pub number: String,
    /// Number and title of its step: `3 Put the data back`; empty for what belongs to no step.
    pub step: String,
    /// Its line in the document.
    pub line: usize,
    /// Its text.
    pub command: String,
    /// When it began, counted from the start of the run.
    pub started: Duration,
    /// How long it took, all attempts and pauses included.
    pub took: Duration,
    /// How often it was run: 1, or more for a probe.
    pub attempts: u32,
    /// What was seen, of the last attempt that ended for a probe; nothing when none ended.
    pub seen: Option<Seen>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Entry {
    pub(super) fn of(step: &Step, command: &Command) -> Self {
        Self {
            number: command.number.clone(),
            step: format!("{} {}", step.number, step.title),
            line: command.line,
            command: command.text.clone(),
            ..Self::outside("", 0)
        }
    }

    pub(super) fn outside(number: &str, line: usize) -> Self {
        Self {
            number: number.to_owned(),
            step: String::new(),
            line,
            command: String::new(),
            started: Duration::ZERO,
            took: Duration::ZERO,
            attempts: 0,
            seen: None,
            outcome: Outcome::Passed,
        }
    }

    /// The place of the command in the plan: `3 Put the data back > 3.1`.
    pub fn path(&self) -> String {
        if self.step.is_empty() {
            self.number.clone()
        } else {
            format!("{} > {}", self.step, self.number)
        }
    }
}

/// Everything that was run, with what came of it. `Display` prints a line for each command;
/// [`Transcript::to_markdown`] is for keeping.
#[derive(Debug, Clone)]
pub struct Transcript {
    plan: Plan,
    entries: Vec<Entry>,
    results: BTreeMap<String, String>,
    took: Duration,
}

impl Transcript {
    pub(super) fn new(
        plan: Plan,
        entries: Vec<Entry>,
        results: BTreeMap<String, String>,
        took: Duration,
    ) -> Self {
        Self {
            plan,
            entries,
            results,
            took,
        }
    }

    /// What was to be run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What was run, in order; the commands after a failure are missing.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The results that the runbook set, by name.
    pub fn results(&self) -> &BTreeMap<String, String> {
        &self.results
    }

    /// How long all of it took.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Whether every command of the plan was run and did what is promised, and every result is set.
    pub fn passed(&self) -> bool {
        self.failed().is_none() && self.not_run().next().is_none()
    }

    /// The first command that did not do what is promised, explained; nothing when all did.
    pub fn failure(&self) -> Option<Failure> {
        self.failed().map(|entry| Failure {
            file: self.plan.runbook().name().to_owned(),
            not_run: self.not_run().count(),
            entry: entry.clone(),
        })
    }

    fn failed(&self) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.outcome != Outcome::Passed)
    }

    /// The commands that were not reached.
    fn not_run(&self) -> impl Iterator<Item = &Command> {
        let run = self
            .entries
            .iter()
            .filter(|entry| !entry.step.is_empty())
            .count();
        self.plan
            .steps()
            .iter()
            .flat_map(|step| &step.commands)
            .skip(run)
    }

    /// The transcript as a Markdown document: every command with its times and its output. Of an
    /// output of more than 400 lines the first and the last 200 are kept; see [`Entry::seen`] for
    /// the whole.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        // Writing into a `String` cannot fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, text: &mut String) -> fmt::Result {
        let runbook = self.plan.runbook();
        let state = if self.passed() { "passed" } else { "failed" };
        writeln!(text, "# Transcript: {}\n", runbook.title())?;
        writeln!(
            text,
            "`{}` {state} after {}.",
            runbook.name(),
            seconds(self.took)
        )?;
        if let Some(failure) = self.failure() {
            writeln!(text, "\n{}", fenced("text", &failure.to_string()))?;
        }
        if !self.plan.variables().is_empty() {
            writeln!(text, "\n## Variables\n")?;
            let lines: Vec<String> = self
                .plan
                .variables()
                .iter()
                .map(|variable| format!("{}={}", variable.name, super::quote(&variable.value)))
                .collect();
            writeln!(text, "{}", fenced("text", &lines.join("\n")))?;
        }
        let mut step = None;
        for entry in &self.entries {
            if step != Some(&entry.step) {
                let heading = if entry.step.is_empty() {
                    &entry.number
                } else {
                    &entry.step
                };
                writeln!(text, "\n## {heading}")?;
                step = Some(&entry.step);
            }
            write!(text, "\n**{}** {}", entry.number, describe(&entry.outcome))?;
            write!(text, ", {} after {}", took(entry), seconds(entry.started))?;
            writeln!(text, " (`{}:{}`)\n", runbook.name(), entry.line)?;
            let mut block: Vec<String> = prompted(&entry.command);
            if let Some(seen) = &entry.seen {
                if let Some(exit) = seen.exit.filter(|exit| *exit != 0) {
                    block.push(format!("? {exit}"));
                }
                block.extend(excerpt(&seen.output, EVIDENCE_LINES, EVIDENCE_WIDTH));
            }
            writeln!(text, "{}", fenced("console", &block.join("\n")))?;
        }
        let missed: Vec<&str> = self
            .not_run()
            .map(|command| command.number.as_str())
            .collect();
        if !missed.is_empty() {
            writeln!(text, "\nNot run: {}.", missed.join(", "))?;
        }
        if !self.results.is_empty() {
            writeln!(text, "\n## Results\n")?;
            let lines: Vec<String> = self
                .results
                .iter()
                .map(|(name, value)| format!("{name}={}", super::quote(value)))
                .collect();
            writeln!(text, "{}", fenced("text", &lines.join("\n")))?;
        }
        Ok(())
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runbook = self.plan.runbook();
        writeln!(f, "{} ({})", runbook.title(), runbook.name())?;
        let all = || self.entries.iter().map(|entry| &entry.number);
        let commands = || self.plan.steps().iter().flat_map(|step| &step.commands);
        let numbers = all().chain(commands().map(|command| &command.number));
        let width = numbers.map(String::len).max().unwrap_or(0);
        for entry in &self.entries {
            let word = match entry.outcome {
                Outcome::Passed => "pass",
                Outcome::Failed(_) => "FAIL",
                Outcome::TimedOut { .. } => "TIME",
                Outcome::SessionLost { .. } => "LOST",
            };
            let time = seconds(entry.took);
            let line = abbreviate(entry.command.lines().next().unwrap_or_default(), 100);
            let mut line = format!("  {word}  {:width$}  {time:>7}  {line}", entry.number);
            if entry.attempts > 1 {
                write!(line, "  ({} attempts)", entry.attempts)?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        for command in self.not_run() {
            let line = abbreviate(command.text.lines().next().unwrap_or_default(), 100);
            writeln!(f, "  skip  {:width$}  {:>7}  {line}", command.number, "-")?;
        }
        Ok(())
    }
}

/// A command that did not do what the document promises. `Display` prints all that is needed to
/// understand it: where, what was promised, what was seen, what to do.
#[derive(Debug, Clone)]
pub struct Failure {
    file: String,
    entry: Entry,
    not_run: usize,
}

impl Failure {
    /// Path or name of the document.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The command.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// How it ended; never [`Outcome::Passed`].
    pub fn outcome(&self) -> &Outcome {
        &self.entry.outcome
    }

    /// The failure in one line: `runbook.md:41: 3 Put the data back > 3.1: promised exit 0, …`.
    pub fn summary(&self) -> String {
        let entry = &self.entry;
        format!(
            "{}:{}: {}: {}",
            self.file,
            entry.line,
            entry.path(),
            describe(&entry.outcome)
        )
    }

    fn hint(&self) -> String {
        let rest = match self.not_run {
            0 => String::new(),
            number => format!("; {} after it did not run", count(number, "command")),
        };
        let advice = match &self.entry.outcome {
            Outcome::Passed => String::new(),
            Outcome::Failed(Reason::Differs(_)) => {
                "run the command by hand there; where the document is wrong, mend its promise \
                 (`[..]` matches anything in a line, `...` any lines)"
                    .to_owned()
            }
            Outcome::Failed(Reason::NotYet { .. }) => {
                "look at the journal of what it waits for; where it is only slow, write \
                 `, at most …` after the remark"
                    .to_owned()
            }
            Outcome::Failed(Reason::EndedSession { .. }) => {
                "all commands of a runbook share one shell: write `( exit 3 )` or `bash -c …` \
                 instead of `exit`, and no `set -e`"
                    .to_owned()
            }
            Outcome::Failed(Reason::ResultNotSet { name }) => {
                format!("let a command set it: `$ {name}=…`, outside of `( … )` and of pipes")
            }
            Outcome::TimedOut { .. } => {
                "find out what it waits for (its standard input is `/dev/null`); whether it took \
                 effect is not known"
                    .to_owned()
            }
            Outcome::SessionLost { .. } => {
                "see whether the host still runs; whether the command took effect is not known"
                    .to_owned()
            }
        };
        format!("{advice}{rest}")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = &self.entry;
        writeln!(f, "following `{}` failed at {}", self.file, entry.path())?;
        writeln!(f, "  at {}:{}", self.file, entry.line)?;
        for line in excerpt(
            &prompted(&entry.command).join("\n"),
            LETTER_LINES,
            LETTER_WIDTH,
        ) {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "{}", describe(&entry.outcome))?;
        let mismatch = match &entry.outcome {
            Outcome::Failed(Reason::Differs(mismatch)) => Some(mismatch),
            Outcome::Failed(Reason::NotYet { last, .. }) => last.as_ref(),
            _ => None,
        };
        let difference = mismatch.and_then(|mismatch| mismatch.output.as_ref());
        if let Some(difference) = difference {
            writeln!(f, "promised (-) and seen (+):")?;
            for line in difference.to_string().lines() {
                writeln!(f, "  {line}")?;
            }
        }
        // A wrong exit code is explained by what was printed, so that is shown whole.
        let wrong_exit = mismatch.is_none_or(|mismatch| mismatch.exit.is_some());
        if let Some(seen) = entry
            .seen
            .as_ref()
            .filter(|_| wrong_exit && difference.is_none())
        {
            print_output(f, "it printed", &seen.output)?;
        }
        if let Outcome::Failed(Reason::NotYet {
            cut_off: Some(output),
            ..
        }) = &entry.outcome
        {
            print_output(
                f,
                "the last attempt, until it was terminated, printed",
                output,
            )?;
        }
        write!(f, "hint: {}", self.hint())
    }
}

fn print_output(f: &mut fmt::Formatter<'_>, what: &str, output: &str) -> fmt::Result {
    if output.trim().is_empty() {
        return writeln!(f, "{what} nothing");
    }
    writeln!(f, "{what}:")?;
    for line in excerpt(output, LETTER_LINES, LETTER_WIDTH) {
        writeln!(f, "  {line}")?;
    }
    Ok(())
}

/// An outcome in words, on one line.
fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Passed => "passed".to_owned(),
        Outcome::Failed(Reason::Differs(mismatch)) => describe_mismatch(mismatch),
        Outcome::Failed(Reason::NotYet {
            what,
            limit,
            last,
            cut_off,
        }) => {
            let mut text = format!("not yet after {} (until {what})", spoken(*limit));
            if let Some(mismatch) = last {
                let _ = write!(text, ": last seen: {}", describe_mismatch(mismatch));
            }
            if cut_off.is_some() {
                let which = if last.is_some() {
                    "; the last attempt"
                } else {
                    ": the attempt"
                };
                let _ = write!(text, "{which} had not ended and was terminated");
            }
            text
        }
        Outcome::Failed(Reason::EndedSession { exit }) => {
            format!("it ended the shell of the runbook with exit {exit}")
        }
        Outcome::Failed(Reason::ResultNotSet { name }) => {
            format!("the runbook ended without setting its result `{name}`")
        }
        Outcome::TimedOut { limit } => {
            format!(
                "it had not ended after {} and was terminated",
                spoken(*limit)
            )
        }
        Outcome::SessionLost { why } => format!("the session was lost: {why}"),
    }
}

fn describe_mismatch(mismatch: &Mismatch) -> String {
    let exit = mismatch
        .exit
        .map(|(promised, seen)| format!("promised exit {promised}, seen {seen}"));
    let output = mismatch
        .output
        .as_ref()
        .map(|_| "the output differs".to_owned());
    let parts: Vec<String> = [exit, output].into_iter().flatten().collect();
    parts.join(", and ")
}

/// The lines of a command as they stand in a document.
fn prompted(command: &str) -> Vec<String> {
    let mark = |(index, line): (usize, &str)| {
        let prompt = if index == 0 { "$" } else { ">" };
        format!("{prompt} {line}").trim_end().to_owned()
    };
    command.lines().enumerate().map(mark).collect()
}

fn took(entry: &Entry) -> String {
    match entry.attempts {
        0 | 1 => seconds(entry.took),
        number => format!("{} in {number} attempts", seconds(entry.took)),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2}s", duration.as_secs_f64())
}

/// `text` in a fence that is longer than any run of backticks in it.
fn fenced(label: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    let text = text.trim_end_matches('\n');
    format!("{fence}{label}\n{text}\n{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_longer_than_any_within_it() {
        assert_eq!(fenced("text", "a\n"), "```text\na\n```");
        assert_eq!(fenced("text", "````\n"), "`````text\n````\n`````");
    }
}
