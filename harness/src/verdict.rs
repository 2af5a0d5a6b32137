//! What a claim came to, who is to blame where it failed, and the exit codes that say so.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::process::ExitCode;

/// The outcome of one claim. The order is the order of severity: composed verdicts take the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The claim was put to a real server and held.
    Pass,
    /// Nothing was observed that decides: the claim was not put to the server, or the check itself broke.
    /// Kept apart from [`Verdict::Fail`] because "not looked" must never read as "looked and found wrong",
    /// and from [`Verdict::Pass`] because it must never read as "looked and found right".
    Unknown,
    /// The claim was put to a real server and did not hold.
    Fail,
}

impl Verdict {
    /// The worst of several verdicts; of none at all nothing is known.
    pub fn worst(verdicts: impl IntoIterator<Item = Self>) -> Self {
        verdicts.into_iter().max().unwrap_or(Self::Unknown)
    }

    /// The word in a status line, aligned to four columns.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Unknown => "UNKN",
            Self::Fail => "FAIL",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who has to act on a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// Conduit, Caddy or Synapse did what it should not.
    Product,
    /// An artifact or a runbook under `deploy/` did not do what it promises.
    Deployment,
    /// Docker, the disk, the network or a missing tool of the machine that rehearses.
    Environment,
    /// A defect of this harness.
    Harness,
}

impl Blame {
    /// What blame is written as in reports and letters.
    pub fn word(self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Deployment => "deployment",
            Self::Environment => "environment",
            Self::Harness => "harness",
        }
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Exit codes of `fleet`: the one place where they are defined. `fleet --help` prints [`Exit::TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Every claim that was put held.
    Ok,
    /// The command line or an input file is wrong (clap uses the same number).
    Usage,
    /// A claim failed and the blame is the product's.
    Product,
    /// A claim failed and the blame is the deployment kit's.
    Deployment,
    /// The machine could not rehearse.
    Environment,
    /// A defect of the harness.
    Harness,
    /// A claim that `--require` demands is unknown.
    Unknown,
    /// Ended by Ctrl-C or SIGTERM; everything made was removed.
    Interrupted,
}

impl Exit {
    /// The table of exit codes for `--help` and the README.
    pub const TABLE: &'static str = "\
Exit codes:
    0  every claim that was put to a server held; `lint` found no error
    2  the command line is wrong, or an input file cannot be read
   10  a claim failed: product (Conduit, Caddy, Synapse)
   11  a claim failed: deployment (an artifact or a runbook under deploy/); `lint` found an error
   12  the environment failed (docker, disk, network, missing tools)
   13  the harness failed (our bug)
   14  a required claim is unknown (--require)
  130  interrupted; everything that was made is removed";

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 2,
            Self::Product => 10,
            Self::Deployment => 11,
            Self::Environment => 12,
            Self::Harness => 13,
            Self::Unknown => 14,
            Self::Interrupted => 130,
        }
    }
}

impl From<Blame> for Exit {
    fn from(blame: Blame) -> Self {
        match blame {
            Blame::Product => Self::Product,
            Blame::Deployment => Self::Deployment,
            Blame::Environment => Self::Environment,
            Blame::Harness => Self::Harness,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_verdicts_take_the_worst_and_nothing_is_unknown() {
        use Verdict::{Fail, Pass, Unknown};
        assert_eq!(Verdict::worst([Pass, Unknown, Pass]), Unknown);
        assert_eq!(Verdict::worst([Unknown, Fail, Pass]), Fail);
        assert_eq!(Verdict::worst([Pass]), Pass);
        assert_eq!(Verdict::worst([]), Unknown);
    }

    #[test]
    fn the_exit_table_names_every_code() {
        for exit in [
            Exit::Ok,
            Exit::Usage,
            Exit::Product,
            Exit::Deployment,
            Exit::Environment,
            Exit::Harness,
            Exit::Unknown,
            Exit::Interrupted,
        ] {
            let listed = Exit::TABLE
                .lines()
                .any(|line| line.split_whitespace().next() == Some(&exit.code().to_string()));
            assert!(listed, "exit code {} is not in the table", exit.code());
        }
    }
}
