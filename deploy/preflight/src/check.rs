//! A check as a value, and the report that they make.

use serde::Serialize;
use std::fmt::{self, Write as _};

/// What came of a check, in the order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Looked at, and as it should be.
    Ok,
    /// It works, and yet somebody should look at it.
    Warning,
    /// Nothing was observed that decides. Above a warning, because what nobody saw may be the worst; below a failure,
    /// because it must not hide what is known to be wrong.
    Unknown,
    /// Looked at, and wrong.
    Failed,
}

impl Verdict {
    /// The exit code of a run whose worst check this is: those of a monitoring plugin, as `health.sh` has them.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Failed => 2,
            Self::Unknown => 3,
        }
    }

    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, the same in every run.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
    /// What was seen, or why nothing was.
    pub seen: String,
    /// What should have been seen; empty when it was.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expected: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// What a check says, before it is given its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What came of it.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What should have been seen.
    pub expected: String,
    /// What to do.
    pub hint: String,
}

impl Finding {
    /// All is well.
    pub fn ok(seen: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, seen, "", "")
    }

    /// It works, but.
    pub fn warning(
        seen: impl Into<String>,
        expected: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(Verdict::Warning, seen, expected, hint)
    }

    /// It is wrong.
    pub fn failed(
        seen: impl Into<String>,
        expected: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(Verdict::Failed, seen, expected, hint)
    }

    /// It could not be looked at.
    pub fn unknown(seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Verdict::Unknown, seen, "", hint)
    }

    fn new(
        verdict: Verdict,
        seen: impl Into<String>,
        expected: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            verdict,
            seen: seen.into(),
            expected: expected.into(),
            hint: hint.into(),
        }
    }

    /// The worst of several, and the words of all that are as bad; of none at all nothing is known.
    pub fn worst(findings: impl IntoIterator<Item = Self>) -> Self {
        let mut all: Vec<Self> = findings.into_iter().collect();
        let Some(verdict) = all.iter().map(|finding| finding.verdict).max() else {
            return Self::unknown("nothing was looked at", "");
        };
        all.retain(|finding| finding.verdict == verdict);
        let join = |part: fn(&Self) -> &str| {
            let mut words: Vec<&str> = Vec::new();
            for text in all.iter().map(part).filter(|text| !text.is_empty()) {
                if !words.contains(&text) {
                    words.push(text);
                }
            }
            words.join("; ")
        };
        Self::new(
            verdict,
            join(|finding| &finding.seen),
            join(|finding| &finding.expected),
            join(|finding| &finding.hint),
        )
    }

    /// With the check's name.
    pub fn named(self, name: impl Into<String>) -> Check {
        Check {
            name: name.into(),
            verdict: self.verdict,
            seen: self.seen,
            expected: self.expected,
            hint: self.hint,
        }
    }
}

/// One step of server discovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its number in the specification: `3`, `3.2`, `6`.
    pub number: &'static str,
    /// What was asked, and what was seen.
    pub what: String,
}

/// What a run found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The server name that was looked at.
    pub server_name: String,
    /// The name servers that were asked.
    pub resolvers: Vec<String>,
    /// The worst of the checks; unknown when there are none.
    pub verdict: Verdict,
    /// The checks.
    pub checks: Vec<Check>,
    /// The way that another homeserver would go; empty when it was not tried.
    pub discovery: Vec<Step>,
}

impl Report {
    /// Composes one.
    pub fn new(
        server_name: String,
        resolvers: Vec<String>,
        checks: Vec<Check>,
        discovery: Vec<Step>,
    ) -> Self {
        Self {
            server_name,
            resolvers,
            verdict: checks
                .iter()
                .map(|check| check.verdict)
                .max()
                .unwrap_or(Verdict::Unknown),
            checks,
            discovery,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "preflight of {}, asking {}",
            self.server_name,
            self.resolvers.join(", ")
        )?;
        let width = self
            .checks
            .iter()
            .map(|check| check.name.len())
            .max()
            .unwrap_or(0);
        for check in &self.checks {
            let word = if check.verdict == Verdict::Failed {
                "FAILED"
            } else {
                check.verdict.word()
            };
            writeln!(f, "{word:<8} {:<width$}  {}", check.name, check.seen)?;
            for (label, text) in [("expected", &check.expected), ("hint", &check.hint)] {
                if !text.is_empty() {
                    writeln!(f, "{:9}{label}: {text}", "")?;
                }
            }
        }
        if !self.discovery.is_empty() {
            writeln!(
                f,
                "server discovery, by the steps of the specification (server-server API, \"Resolving server names\"):"
            )?;
        }
        for step in &self.discovery {
            writeln!(f, "  {:<4} {}", step.number, step.what)?;
        }
        let mut counts = String::new();
        let mut named = Vec::new();
        for verdict in [
            Verdict::Failed,
            Verdict::Unknown,
            Verdict::Warning,
            Verdict::Ok,
        ] {
            let all: Vec<_> = self
                .checks
                .iter()
                .filter(|check| check.verdict == verdict)
                .collect();
            if all.is_empty() {
                continue;
            }
            write!(
                counts,
                "{}{} {}",
                if counts.is_empty() { "" } else { ", " },
                all.len(),
                verdict.word()
            )?;
            if verdict != Verdict::Ok {
                named.extend(all.iter().map(|check| check.name.as_str()));
            }
        }
        write!(
            f,
            "{}: {} ({})",
            self.server_name,
            self.verdict.word(),
            counts
        )?;
        if named.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", named.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_decides_and_not_knowing_hides_no_failure() {
        let report = |verdicts: &[Verdict]| {
            let checks = verdicts
                .iter()
                .map(|&verdict| Finding::new(verdict, "", "", "").named("a"))
                .collect();
            Report::new("vale.test".to_owned(), Vec::new(), checks, Vec::new())
                .verdict
                .exit_code()
        };
        assert_eq!(report(&[]), 3, "nothing observed is unknown");
        assert_eq!(report(&[Verdict::Ok, Verdict::Ok]), 0);
        assert_eq!(report(&[Verdict::Ok, Verdict::Warning]), 1);
        assert_eq!(report(&[Verdict::Warning, Verdict::Unknown]), 3);
        assert_eq!(report(&[Verdict::Failed, Verdict::Unknown, Verdict::Ok]), 2);
    }

    #[test]
    fn composed_findings_keep_the_words_of_the_worst() {
        let worst = Finding::worst([
            Finding::ok("one"),
            Finding::failed("two", "x", "do"),
            Finding::failed("three", "x", "do"),
        ]);
        assert_eq!(worst, Finding::failed("two; three", "x", "do"));
        assert_eq!(Finding::worst([]).verdict, Verdict::Unknown);
    }
}
