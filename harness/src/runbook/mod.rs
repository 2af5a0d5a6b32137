//! Runbooks: Markdown that a person follows by hand and that this module executes.
//!
//! The same file serves both readers, so that a command in a document is either executed by a
//! scenario or not there. One run passes through the files of this module in this order:
//!
//! 1. [`Runbook::parse`] reads the document and names *every* mistake in it at once, with file,
//!    line, column and a hint ([`RunbookError`]).
//! 2. [`Runbook::plan`] settles the variables. A [`Plan`] prints as a numbered list: what will be
//!    run, with which values, and what it promises. Nothing has happened so far.
//! 3. A [`Shell`] starts a [`Session`]: one `bash` in which all commands of the runbook run, so
//!    that variables and the working directory persist as they do for a person. [`BashSession`]
//!    speaks with a `bash` over any pair of streams; [`LocalShell`] starts one on this machine.
//! 4. [`follow()`] runs the plan in the session, tells an [`Observer`] about it, and returns a
//!    [`Transcript`]: every command with its times, its output and its [`Outcome`].
//!    [`Transcript::failure`] explains the first command that did not do what the document
//!    promises.
//!
//! # The format
//!
//! - `# Title`, then prose.
//! - `## Variables`: a table `| name | default | meaning |`; the name in backticks, the default in
//!   backticks or the bare word `required`.
//! - `## Results` (optional): a table `| name | meaning |` of the shell variables that are set when
//!   the runbook has ended.
//! - Every other `## Heading` is a [`Step`].
//! - A fence `console` is executed. The fences `text`, `toml` and `caddyfile` are illustrations.
//!   Every other fence is a mistake: whoever reads `bash` expects that it was tried.
//! - In `console`: `$ command`, continued by lines that begin with `> `; then optionally `? N`, the
//!   promised exit code (0 unless stated); then the promised output ([`Promise`]). No output
//!   promised means that the output is not judged.
//! - A remark after two spaces, `# until it answers` or `# until it answers, at most 30 s`, makes
//!   the command a [`Probe`].
//!
//! # What differs from a terminal
//!
//! Standard input is `/dev/null`, standard error is merged into the output, and `pipefail` is set.
//! Output of a process in the background appears in whichever command runs when it is written.

mod follow;
mod hints;
mod matching;
mod parse;
mod plan;
mod session;
mod shell;
mod transcript;

pub use follow::{Limits, Observer, Silent, follow};
pub use matching::{DiffLine, Difference, Promise};
pub use parse::{
    Command, DEFAULT_PROBE_LIMIT, Probe, Problem, ResultVariable, Runbook, RunbookError, Step,
    Variable,
};
pub use plan::{Plan, PlanError, PlanProblem, PlannedVariable, Source};
pub(crate) use session::nonce;
pub use session::{
    Answer, BASH, BashProcess, BashSession, KEPT_OUTPUT, LocalShell, Session, SessionError, Shell,
    Signal, Terminator, quote,
};
pub use shell::KNOWN_VARIABLES;
pub use transcript::{Entry, Failure, Mismatch, Outcome, Reason, Seen, Transcript};
