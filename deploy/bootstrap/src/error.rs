//! What can go wrong, and how it is told to a person: a lower-case fragment, then a `hint:` line.

use std::fmt;

/// One fault of a manifest, with the place where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the manifest, counted from 1.
    pub line: usize,
    /// Column in the manifest, counted from 1 in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Every fault found in one manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// Name of the manifest as the person gave it.
    pub file: String,
    /// The faults, in the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(
                f,
                "{}:{}:{}: {}",
                self.file, problem.line, problem.column, problem.message
            )?;
            if let Some(hint) = &problem.hint {
                write!(f, "\nhint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Why a command did not do what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest is not valid. Nothing was sent.
    #[error("{0}")]
    Manifest(#[from] Problems),
    /// A precondition does not hold. Nothing was changed.
    #[error("{message}\nhint: {hint}")]
    Refused {
        /// What was refused.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Something failed on the way; running the command again continues.
    #[error("{message}\nhint: {hint}")]
    Failed {
        /// What failed.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Another run holds the lock on the secrets directory.
    #[error(
        "another `fleet-bootstrap apply` is at work on `{0}`\nhint: wait until it has ended and run this again"
    )]
    Locked(String),
}

impl Error {
    /// A precondition that does not hold.
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A step that failed.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// The exit code of the kit for this error: 1 failed, 3 refused (nothing changed), 75 locked.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Manifest(_) | Self::Refused { .. } => 3,
            Self::Failed { .. } => 1,
            Self::Locked(_) => 75,
        }
    }
}
