//! A failure is a complete letter: who expected what, what was last seen, who is to blame, what to try.

use crate::verdict::{Blame, Verdict};
use std::fmt;

/// The result of everything that acts.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Something did not come out as it must. Displays as a letter of several lines.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Who has to act.
    pub blame: Blame,
    /// A lower-case fragment that names the operation and its object.
    pub what: String,
    /// What was last observed, where a state was waited for.
    pub last_seen: Option<String>,
    /// What to try.
    pub hint: Option<String>,
    /// The chain of causes, outermost first.
    pub causes: Vec<String>,
}

impl Failure {
    /// A failure with nothing but its sentence.
    pub fn new(blame: Blame, what: impl Into<String>) -> Self {
        Self {
            blame,
            what: what.into(),
            last_seen: None,
            hint: None,
            causes: Vec::new(),
        }
    }

    /// The environment's: docker, disk, network, missing tools.
    pub fn environment(what: impl Into<String>) -> Self {
        Self::new(Blame::Environment, what)
    }

    /// An artifact's or runbook's.
    pub fn deployment(what: impl Into<String>) -> Self {
        Self::new(Blame::Deployment, what)
    }

    /// A server's.
    pub fn product(what: impl Into<String>) -> Self {
        Self::new(Blame::Product, what)
    }

    /// Ours.
    pub fn harness(what: impl Into<String>) -> Self {
        Self::new(Blame::Harness, what)
    }

    /// What a claim comes to whose proof ends like this: a check that broke by our own fault or the machine's has
    /// observed nothing.
    pub fn verdict(&self) -> Verdict {
        match self.blame {
            Blame::Product | Blame::Deployment => Verdict::Fail,
            Blame::Environment | Blame::Harness => Verdict::Unknown,
        }
    }

    /// Adds what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what was last observed.
    #[must_use]
    pub fn last_seen(mut self, seen: impl Into<String>) -> Self {
        self.last_seen = Some(seen.into());
        self
    }

    /// Adds a cause, innermost last.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        for cause in &self.causes {
            write!(f, "\n  caused by: {}", indent(cause))?;
        }
        if let Some(seen) = &self.last_seen {
            write!(f, "\n  last seen: {}", indent(seen))?;
        }
        write!(f, "\n  blame: {}", self.blame)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

impl std::error::Error for Failure {}

/// Turns any error into a [`Failure`] with its cause chain kept.
pub trait OrBlame<T> {
    /// Blames `blame`, in the words of `what`.
    fn or_blame(self, blame: Blame, what: impl FnOnce() -> String) -> Result<T>;

    /// Blames the environment.
    fn or_environment(self, what: impl FnOnce() -> String) -> Result<T>
    where
        Self: Sized,
    {
        self.or_blame(Blame::Environment, what)
    }

    /// Blames the harness: what must not happen unless we made a mistake.
    fn or_harness(self, what: impl FnOnce() -> String) -> Result<T>
    where
        Self: Sized,
    {
        self.or_blame(Blame::Harness, what)
    }
}

impl<T, E: std::error::Error> OrBlame<T> for std::result::Result<T, E> {
    fn or_blame(self, blame: Blame, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let mut failure = Failure::new(blame, what());
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                let text = error.to_string();
                // Many libraries repeat the inner error in the outer one; say it once.
                if !failure
                    .causes
                    .last()
                    .is_some_and(|last| last.contains(&text))
                {
                    failure.causes.push(text);
                }
                cause = error.source();
            }
            failure
        })
    }
}

/// A verb that a client should have been granted: the server's doing until evidence says otherwise.
impl From<crate::client::Failure> for Failure {
    fn from(failure: crate::client::Failure) -> Self {
        Self::product(failure.to_string())
    }
}

/// A state that was waited for and did not come.
impl From<crate::probe::Unmet> for Failure {
    fn from(unmet: crate::probe::Unmet) -> Self {
        Self::product(unmet.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_a_letter() {
        let failure = Failure::environment("start container `vale.test`")
            .because("no such image")
            .last_seen("docker answered 404")
            .hint("run `cargo fleet setup`");
        assert_eq!(
            failure.to_string(),
            "start container `vale.test`\n  caused by: no such image\n  last seen: docker answered 404\n  \
             blame: environment\nhint: run `cargo fleet setup`"
        );
    }
}
