//! Runs a [`Plan`] in a [`Session`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::parse::{Command, Step};
use super::plan::Plan;
use super::session::{Answer, Session, SessionError, quote};
use super::transcript::{Entry, Mismatch, Outcome, Reason, Seen, Transcript};

/// How long things may take while a runbook is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A command that is no probe.
    pub command: Duration,
    /// From one attempt of a probe to the next, at first; each pause is half as long again as the
    /// one before.
    pub first_pause: Duration,
    /// From one attempt of a probe to the next, at most.
    pub longest_pause: Duration,
}

impl Default for Limits {
    /// 10 minutes for a command: enough to copy a large data directory, and an end to one that
    /// hangs. Pauses from 50 ms to 500 ms: a person should not wait longer for the harness than for
    /// the server, and a server that starts should not be busy with answering.
    fn default() -> Self {
        Self {
            command: Duration::from_secs(600),
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_millis(500),
        }
    }
}

/// Is told what happens while it happens, to show progress. Every method does nothing unless it is
/// written out.
pub trait Observer: Send {
    /// The first command of `step` is about to run; a step without commands is told as well.
    fn step_begins(&mut self, step: &Step) {
        let _ = step;
    }

    /// `command` is about to run.
    fn command_begins(&mut self, step: &Step, command: &Command) {
        let _ = (step, command);
    }

    /// The attempt `number` (from 1) of the probe `command` ended without what is promised, and it
    /// will be tried again.
    fn not_yet(&mut self, command: &Command, number: u32, seen: &Seen) {
        let _ = (command, number, seen);
    }

    /// A command has its outcome. Also told when exporting the variables or reading the results
    /// failed: the number of the entry is `variables` or `results` then.
    fn command_ends(&mut self, entry: &Entry) {
        let _ = entry;
    }
}

/// An [`Observer`] that shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Runs the commands of `plan` one after the other in `session`, until one of them does not do what
/// the document promises or all have.
///
/// The variables of the plan are exported first; the results of the runbook are read last, so a
/// runbook that does not set one has failed. The session is left open, whatever happened: the
/// caller closes it.
pub async fn follow(
    plan: &Plan,
    session: &mut dyn Session,
    observer: &mut dyn Observer,
    limits: Limits,
) -> Transcript {
    let begun = Instant::now();
    let mut follower = Follower {
        session,
        observer,
        limits,
        begun,
    };
    let mut entries = Vec::new();
    let mut results = BTreeMap::new();
    follower.all(plan, &mut entries, &mut results).await;
    Transcript::new(plan.clone(), entries, results, begun.elapsed())
}

struct Follower<'a> {
    session: &'a mut dyn Session,
    observer: &'a mut dyn Observer,
    limits: Limits,
    begun: Instant,
}

/// How the run of one command ended.
struct Run {
    attempts: u32,
    seen: Option<Seen>,
    outcome: Outcome,
}

impl Follower<'_> {
    /// Returns at the first outcome that is not `Passed`; it is the last of `entries` then.
    async fn all(
        &mut self,
        plan: &Plan,
        entries: &mut Vec<Entry>,
        results: &mut BTreeMap<String, String>,
    ) {
        let begun = Instant::now();
        if let Err(run) = self.export(plan).await {
            let first = plan.runbook().variables().first();
            let place = Entry::outside("variables", first.map_or(1, |variable| variable.line));
            self.push(entries, self.entry(place, begun, run));
            return;
        }
        for step in plan.steps() {
            self.observer.step_begins(step);
            for command in &step.commands {
                self.observer.command_begins(step, command);
                let begun = Instant::now();
                let run = match &command.probe {
                    Some(probe) => self.probe(command, &probe.what, probe.at_most).await,
                    None => self.once(command).await,
                };
                let entry = self.entry(Entry::of(step, command), begun, run);
                let passed = entry.outcome == Outcome::Passed;
                self.push(entries, entry);
                if !passed {
                    return;
                }
            }
        }
        for result in plan.runbook().results() {
            let begun = Instant::now();
            match self.read(&result.name).await {
                Ok(value) => {
                    results.insert(result.name.clone(), value);
                }
                Err(run) => {
                    let place = Entry::outside("results", result.line);
                    self.push(entries, self.entry(place, begun, run));
                    return;
                }
            }
        }
    }

    fn push(&mut self, entries: &mut Vec<Entry>, entry: Entry) {
        self.observer.command_ends(&entry);
        entries.push(entry);
    }

    fn entry(&self, place: Entry, begun: Instant, run: Run) -> Entry {
        Entry {
            started: begun.duration_since(self.begun),
            took: begun.elapsed(),
            attempts: run.attempts,
            seen: run.seen,
            outcome: run.outcome,
            ..place
        }
    }

    async fn export(&mut self, plan: &Plan) -> Result<(), Run> {
        if plan.variables().is_empty() {
            return Ok(());
        }
        let words: Vec<String> = plan
            .variables()
            .iter()
            .map(|variable| format!("{}={}", variable.name, quote(&variable.value)))
            .collect();
        let command = format!("export {}", words.join(" "));
        match self.session.run(&command, self.limits.command).await {
            Ok(answer) if answer.exit == 0 => Ok(()),
            Ok(answer) => Err(judged(answer, 0, None)),
            Err(error) => Err(interrupted(error, 1)),
        }
    }

    async fn read(&mut self, name: &str) -> Result<String, Run> {
        let command = format!("[[ -v {name} ]] && builtin printf '%s' \"${name}\"");
        match self.session.run(&command, self.limits.command).await {
            Ok(answer) if answer.exit == 0 => Ok(answer.output),
            Ok(answer) => Err(Run {
                attempts: 1,
                seen: Some(answer.into()),
                outcome: Outcome::Failed(Reason::ResultNotSet {
                    name: name.to_owned(),
                }),
            }),
            Err(error) => Err(interrupted(error, 1)),
        }
    }

    async fn once(&mut self, command: &Command) -> Run {
        match self.session.run(&command.text, self.limits.command).await {
            Ok(answer) => judged(answer, command.expected_exit, Some(command)),
            Err(error) => interrupted(error, 1),
        }
    }

    /// Repeats the command until it does what is promised. An attempt may take what is left of the
    /// limit and no more, since a connection that hangs must not hold up the answer "not yet".
    async fn probe(&mut self, command: &Command, what: &str, limit: Duration) -> Run {
        let deadline = Instant::now() + limit;
        let mut pause = self.limits.first_pause;
        let mut attempts = 0;
        let mut last: Option<(Seen, Mismatch)> = None;
        let mut cut_off = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && attempts > 0 {
                break;
            }
            attempts += 1;
            match self.session.run(&command.text, left).await {
                Ok(answer) => {
                    let run = judged(answer, command.expected_exit, Some(command));
                    match (run.seen, run.outcome) {
                        (Some(seen), Outcome::Failed(Reason::Differs(mismatch))) => {
                            let again = Instant::now() + pause < deadline;
                            if again {
                                self.observer.not_yet(command, attempts, &seen);
                            }
                            last = Some((seen, mismatch));
                            if !again {
                                break;
                            }
                        }
                        (seen, outcome) => {
                            return Run {
                                attempts,
                                seen,
                                outcome,
                            };
                        }
                    }
                }
                Err(SessionError::TimedOut { output, .. }) => {
                    cut_off = Some(output);
                    break;
                }
                Err(error) => return interrupted(error, attempts),
            }
            sleep(pause).await;
            pause = (pause + pause / 2).min(self.limits.longest_pause);
        }
        let (seen, mismatch) = last.unzip();
        let outcome = Outcome::Failed(Reason::NotYet {
            what: what.to_owned(),
            limit,
            last: mismatch,
            cut_off,
        });
        Run {
            attempts,
            seen,
            outcome,
        }
    }
}

impl From<Answer> for Seen {
    fn from(Answer { exit, output }: Answer) -> Self {
        Self {
            exit: Some(exit),
            output,
        }
    }
}

/// Judges the answer to a command; without `command` only its exit code.
fn judged(answer: Answer, promised: i32, command: Option<&Command>) -> Run {
    let promise = command.and_then(|command| command.promise.as_ref());
    let mismatch = Mismatch {
        exit: (answer.exit != promised).then_some((promised, answer.exit)),
        output: promise.and_then(|promise| promise.difference(&answer.output)),
    };
    let passed = mismatch.exit.is_none() && mismatch.output.is_none();
    let outcome = if passed {
        Outcome::Passed
    } else {
        Outcome::Failed(Reason::Differs(mismatch))
    };
    Run {
        attempts: 1,
        seen: Some(answer.into()),
        outcome,
    }
}

fn interrupted(error: SessionError, attempts: u32) -> Run {
    let (seen, outcome) = match error {
        SessionError::TimedOut { limit, output } => (
            Some(Seen { exit: None, output }),
            Outcome::TimedOut { limit },
        ),
        SessionError::Ended { exit, output } => (
            Some(Seen {
                exit: Some(exit),
                output,
            }),
            Outcome::Failed(Reason::EndedSession { exit }),
        ),
        SessionError::Lost { why, output } => (
            Some(Seen { exit: None, output }),
            Outcome::SessionLost { why },
        ),
        SessionError::Unsendable => (
            None,
            Outcome::SessionLost {
                why: SessionError::Unsendable.to_string(),
            },
        ),
    };
    Run {
        attempts,
        seen,
        outcome,
    }
}
