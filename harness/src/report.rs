//! What a run found out: one line per claim for a person, `report.json` for programs, `junit.xml` for CI.

use crate::entrance::Entrance;
use crate::failure::{OrBlame, Result};
use crate::homeserver::Server;
use crate::verdict::{Blame, Exit, Verdict};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One claim and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// A sentence.
    pub name: String,
    /// What it came to.
    pub verdict: Verdict,
    /// What it was put to; `None` where it was put to nothing.
    pub server: Option<Server>,
    /// How long it took.
    pub seconds: f64,
    /// Who has to act, where it failed.
    pub blame: Option<Blame>,
    /// The whole letter, where it did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letter: Option<String>,
    /// By which way it was put to the server, where that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrance: Option<Entrance>,
    /// The [`known`](crate::known) failure that it came to, as recorded. Its verdict is then `fail`, without blame:
    /// the claim does not hold on this server, and nobody has to act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
    /// The [faults](crate::faulty) that the check was seen to notice in this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kills: Vec<String>,
}

impl Claim {
    /// A claim of which nothing is known yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            verdict: Verdict::Unknown,
            server: None,
            seconds: 0.0,
            blame: None,
            letter: None,
            entrance: None,
            known: None,
            kills: Vec::new(),
        }
    }

    /// Whether it failed, and in just the way that is recorded.
    pub fn is_known(&self) -> bool {
        self.verdict == Verdict::Fail && self.known.is_some() && self.blame.is_none()
    }

    /// The word in a status line: the verdict's, or `FLAW` for a failure that is known.
    pub fn word(&self) -> &'static str {
        if self.is_known() {
            "FLAW"
        } else {
            self.verdict.word()
        }
    }

    /// What it was put to, and by which way.
    pub fn put_to(&self) -> String {
        let server = self
            .server
            .as_ref()
            .map_or_else(|| "nothing".to_owned(), ToString::to_string);
        match self.entrance {
            Some(entrance) => format!("{server}, {entrance}"),
            None => server,
        }
    }
}

/// All claims of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// In the order in which they were put.
    pub claims: Vec<Claim>,
    /// The exit code.
    pub exit: u8,
    /// Names what varied; give it to `--seed`.
    #[serde(default)]
    pub seed: String,
    /// What was measured on the way, by name, with the unit in the name.
    #[serde(default)]
    pub figures: Vec<Figure>,
}

/// Something that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What.
    pub name: String,
    /// How much.
    pub value: f64,
    /// In what.
    pub unit: String,
}

impl Report {
    /// Puts a claim: runs `proof` and notes what came of it. The value is handed on if it held.
    pub async fn put<T>(
        &mut self,
        name: &str,
        server: &Server,
        proof: impl Future<Output = Result<T>>,
    ) -> std::result::Result<T, Reached> {
        let began = Instant::now();
        let outcome = proof.await;
        let mut claim = Claim {
            verdict: Verdict::Pass,
            server: Some(server.clone()),
            seconds: round(began.elapsed().as_secs_f64()),
            ..Claim::new(name)
        };
        let handed_on = match outcome {
            Ok(value) => Ok(value),
            Err(failure) => {
                claim.verdict = failure.verdict();
                claim.blame = Some(failure.blame);
                claim.letter = Some(failure.to_string());
                Err(Reached {
                    after: name.to_owned(),
                })
            }
        };
        self.claims.push(claim);
        handed_on
    }

    /// Notes that a claim was never put, and why.
    pub fn not_put(&mut self, name: &str, why: &str) {
        self.claims.push(Claim {
            letter: Some(why.to_owned()),
            ..Claim::new(name)
        });
    }

    /// Notes a figure.
    pub fn figure(&mut self, name: &str, value: f64, unit: &str) {
        self.figures.push(Figure {
            name: name.to_owned(),
            value: round(value),
            unit: unit.to_owned(),
        });
    }

    /// The exit code of the run: the first failure's blame; where nothing failed, `Unknown` counts only if a Conduit
    /// is required, and a broken check always.
    pub fn exit(&self, require_conduit: bool) -> Exit {
        let failed = |verdict| {
            self.claims
                .iter()
                .find(move |claim| claim.verdict == verdict && claim.blame.is_some())
        };
        if let Some(blame) = failed(Verdict::Fail)
            .or_else(|| failed(Verdict::Unknown))
            .and_then(|claim| claim.blame)
        {
            return blame.into();
        }
        // Of no claims at all nothing is known.
        let unproved = self.claims.is_empty() || self.elsewhere() > 0;
        if require_conduit && unproved {
            return Exit::Unknown;
        }
        Exit::Ok
    }

    /// How many claims nothing was found out about on Conduit. A claim that was put by several ways or to several
    /// servers is decided by one of them on Conduit.
    fn elsewhere(&self) -> usize {
        let decided = |claim: &Claim| {
            (claim.verdict == Verdict::Pass || claim.is_known())
                && claim.server.as_ref().is_some_and(Server::is_conduit)
        };
        self.by_name()
            .values()
            .filter(|claims| {
                claims
                    .iter()
                    .all(|claim| claim.verdict != Verdict::Fail || claim.is_known())
            })
            .filter(|claims| !claims.iter().any(|claim| decided(claim)))
            .count()
    }

    fn by_name(&self) -> BTreeMap<&str, Vec<&Claim>> {
        let mut claims = BTreeMap::<_, Vec<_>>::new();
        for claim in &self.claims {
            claims.entry(claim.name.as_str()).or_default().push(claim);
        }
        claims
    }

    /// Claim by server: what came of every claim that was put by more than one way. Empty where there is none.
    pub fn table(&self) -> String {
        let claims: BTreeMap<_, _> = self
            .by_name()
            .into_iter()
            .filter(|(_, claims)| claims.iter().any(|claim| claim.entrance.is_some()))
            .collect();
        // By server, and for each server from its own port outwards.
        let columns: BTreeMap<_, _> = claims
            .values()
            .flatten()
            .map(|claim| {
                let server = claim.server.as_ref().map(|server| server.name.as_str());
                ((server, claim.entrance), claim.put_to())
            })
            .collect();
        let width = claims
            .keys()
            .map(|name| name.chars().count())
            .max()
            .unwrap_or_default();
        let mut text = String::new();
        // A column is as narrow as its words; what it stands for is said above, in the order of the columns.
        for (index, column) in columns.values().enumerate() {
            let _ = writeln!(text, "{:width$}  {}┌ {column}", "", "│    ".repeat(index));
        }
        for (name, claims) in &claims {
            let _ = write!(text, "{name:width$}  ");
            for column in columns.values() {
                let word = claims
                    .iter()
                    .find(|claim| claim.put_to() == *column)
                    .map_or("-", |claim| claim.word());
                let _ = write!(text, "{word:<5}");
            }
            let mut known: Vec<_> = claims
                .iter()
                .filter_map(|claim| claim.known.as_deref())
                .collect();
            known.dedup();
            let line = format!("{text}{}", known.join(", "));
            text = line.trim_end().to_owned() + "\n";
        }
        text
    }

    /// The kill matrix: which fault, planted on purpose, which check has noticed in this run. Empty where none was.
    pub fn kill_matrix(&self) -> String {
        let mut faults = BTreeMap::<&str, Vec<&str>>::new();
        for claim in &self.claims {
            for fault in &claim.kills {
                faults.entry(fault).or_default().push(&claim.name);
            }
        }
        if faults.is_empty() {
            return String::new();
        }
        let width = faults
            .keys()
            .map(|fault| fault.len())
            .max()
            .unwrap_or_default();
        let mut text = String::new();
        for (fault, claims) in &faults {
            for (index, claim) in claims.iter().enumerate() {
                let fault = if index == 0 { fault } else { "" };
                let _ = writeln!(text, "{fault:width$}  {claim}");
            }
        }
        let kills: usize = faults.values().map(Vec::len).sum();
        let checks = self
            .claims
            .iter()
            .filter(|claim| !claim.kills.is_empty())
            .count();
        let _ = writeln!(
            text,
            "{} faults planted, noticed {kills} times by {checks} checks",
            faults.len()
        );
        text
    }

    /// One aligned line per claim, letters beneath, a summary at the end.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        let width = self
            .claims
            .iter()
            .map(|claim| claim.name.chars().count())
            .max()
            .unwrap_or_default();
        for claim in &self.claims {
            let _ = write!(
                text,
                "{} [{:>6.1}s] {:width$}  on {}",
                claim.word(),
                claim.seconds,
                claim.name,
                claim.put_to()
            );
            if let Some(known) = claim.known.as_deref().filter(|_| claim.is_known()) {
                let _ = write!(text, "  (known: {known})");
            }
            if let (Verdict::Fail | Verdict::Unknown, Some(blame)) = (claim.verdict, claim.blame) {
                let _ = write!(text, "  ({blame})");
            }
            text.push('\n');
        }
        for claim in self
            .claims
            .iter()
            .filter(|claim| claim.verdict != Verdict::Pass && !claim.is_known())
        {
            if let Some(letter) = &claim.letter {
                let _ = write!(
                    text,
                    "\n{} {}\n{}\n",
                    claim.verdict,
                    claim.name,
                    letter.trim_end()
                );
            }
        }
        for figure in &self.figures {
            let _ = writeln!(
                text,
                "     {}: {} {}",
                figure.name, figure.value, figure.unit
            );
        }
        let count = |verdict| {
            self.claims
                .iter()
                .filter(|claim| claim.verdict == verdict && !claim.is_known())
                .count()
        };
        let _ = write!(
            text,
            "{} passed, {} failed, {} unknown",
            count(Verdict::Pass),
            count(Verdict::Fail),
            count(Verdict::Unknown)
        );
        let known = self.claims.iter().filter(|claim| claim.is_known()).count();
        if known > 0 {
            let _ = write!(text, ", {known} flawed as known");
        }
        text.push('\n');
        let elsewhere = self.elsewhere();
        if elsewhere > 0 {
            let _ = writeln!(
                text,
                "not proved on Conduit: {elsewhere} of {} claims (unknown for Conduit)",
                self.by_name().len()
            );
        }
        text
    }

    /// Writes `report.json` and `junit.xml` into a directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let what = || format!("write the report to `{}`", directory.display());
        std::fs::create_dir_all(directory).or_environment(what)?;
        let json = serde_json::to_string_pretty(self).or_harness(what)?;
        std::fs::write(directory.join("report.json"), json + "\n").or_environment(what)?;
        std::fs::write(directory.join("junit.xml"), self.junit()?).or_environment(what)
    }

    /// Reads what [`Report::write`] wrote.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("report.json");
        let text = std::fs::read_to_string(&path)
            .or_environment(|| format!("read `{}`", path.display()))
            .map_err(|failure| {
                failure
                    .hint("`cargo fleet rehearse` writes one; `--report-dir` names another place")
            })?;
        serde_json::from_str(&text).or_environment(|| format!("understand `{}`", path.display()))
    }

    fn junit(&self) -> Result<String> {
        let mut suite = TestSuite::new("fleet");
        for claim in &self.claims {
            let mut status = match claim.verdict {
                // Neither a success nor something to act on; what it is stands in its message.
                _ if claim.is_known() => TestCaseStatus::skipped(),
                Verdict::Pass => TestCaseStatus::success(),
                Verdict::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Verdict::Unknown if claim.blame.is_some() => {
                    TestCaseStatus::non_success(NonSuccessKind::Error)
                }
                Verdict::Unknown => TestCaseStatus::skipped(),
            };
            if let Some(letter) = &claim.letter {
                let first = letter.lines().next().unwrap_or_default();
                match &claim.known {
                    Some(known) if claim.is_known() => {
                        status.set_message(format!("known failure `{known}`: {first}"))
                    }
                    _ => status.set_message(first),
                };
                status.set_description(letter.clone());
            }
            let mut case = TestCase::new(&claim.name, status);
            case.set_classname(claim.put_to());
            case.set_time(Duration::from_secs_f64(claim.seconds.max(0.0)));
            suite.add_test_case(case);
        }
        let mut report = quick_junit::Report::new("fleet");
        report.add_test_suite(suite);
        report
            .to_string()
            .or_harness(|| "write junit.xml".to_owned())
    }
}

/// A claim did not hold, so that what builds on it was not reached.
#[derive(Debug)]
pub struct Reached {
    /// The claim that did not hold.
    pub after: String,
}

/// Points `target/fleet/latest` to a run. Replaced in one step, so that it always points somewhere.
pub fn point_latest_to(run: &Path) -> Result<()> {
    let runs = crate::paths::runs();
    let what = || format!("point `{}` to this run", runs.join("latest").display());
    let temporary = runs.join(format!("latest.{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let target = run
        .file_name()
        .map_or_else(|| run.to_owned(), PathBuf::from);
    std::os::unix::fs::symlink(target, &temporary).or_environment(what)?;
    std::fs::rename(&temporary, runs.join("latest")).or_environment(what)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    fn server(name: &str) -> Server {
        Server {
            name: name.to_owned(),
            version: "1".to_owned(),
        }
    }

    async fn report() -> Report {
        let mut report = Report::default();
        report
            .put("the sky is up", &server("conduit"), async { Ok(()) })
            .await
            .expect("it holds");
        report
    }

    #[tokio::test]
    async fn what_was_never_put_is_unknown_and_fails_only_where_conduit_is_required() {
        let mut report = report().await;
        assert_eq!(report.exit(true), Exit::Ok);
        report.not_put("the sky is blue", "no window");
        assert_eq!(report.exit(false), Exit::Ok);
        assert_eq!(report.exit(true), Exit::Unknown);
        assert!(
            report
                .lines()
                .contains("not proved on Conduit: 1 of 2 claims"),
            "{}",
            report.lines()
        );
    }

    #[test]
    fn a_report_without_claims_has_proved_nothing() {
        assert_eq!(Report::default().exit(true), Exit::Unknown);
    }

    #[tokio::test]
    async fn a_claim_that_held_elsewhere_is_not_proved_on_conduit() {
        let mut report = report().await;
        report
            .put("scripts work", &server("conduit-standin"), async { Ok(()) })
            .await
            .expect("it holds");
        assert_eq!(report.exit(false), Exit::Ok);
        assert_eq!(report.exit(true), Exit::Unknown);
    }

    #[tokio::test]
    async fn the_first_failure_decides_and_a_broken_check_is_unknown() {
        let mut report = report().await;
        let broken = report
            .put("c", &server("conduit"), async {
                Err::<(), _>(Failure::environment("no disk"))
            })
            .await;
        assert!(broken.is_err());
        assert_eq!(report.claims[1].verdict, Verdict::Unknown);
        assert_eq!(report.exit(false), Exit::Environment);
        let failed = report
            .put("d", &server("conduit"), async {
                Err::<(), _>(Failure::deployment("no backup"))
            })
            .await;
        assert_eq!(failed.expect_err("it fails").after, "d");
        assert_eq!(report.exit(false), Exit::Deployment);
    }

    fn put(name: &str, server: &str, entrance: Entrance, verdict: Verdict) -> Claim {
        Claim {
            verdict,
            server: Some(self::server(server)),
            entrance: Some(entrance),
            ..Claim::new(name)
        }
    }

    fn known(claim: Claim) -> Claim {
        Claim {
            verdict: Verdict::Fail,
            known: Some("too-dark".to_owned()),
            letter: Some("see the stars".to_owned()),
            ..claim
        }
    }

    #[test]
    fn a_known_failure_is_neither_a_pass_nor_a_failure_to_act_on() {
        let flawed = known(put(
            "the stars are out",
            "conduit",
            Entrance::Direct,
            Verdict::Fail,
        ));
        let mut report = Report {
            claims: vec![flawed],
            ..Report::default()
        };
        let lines = report.lines();
        assert!(
            lines.starts_with("FLAW [   0.0s] the stars are out"),
            "{lines}"
        );
        assert!(
            lines.contains("0 passed, 0 failed, 0 unknown, 1 flawed as known"),
            "{lines}"
        );
        assert!(!lines.contains("not proved on Conduit"), "{lines}");
        assert_eq!(report.exit(true), Exit::Ok);
        assert!(
            report
                .junit()
                .expect("junit")
                .contains("known failure `too-dark`")
        );
        // Who is blamed has to act, whatever the record says.
        report.claims[0].blame = Some(Blame::Product);
        assert_eq!(report.exit(false), Exit::Product);
        assert!(report.lines().starts_with("FAIL"), "{}", report.lines());
    }

    #[test]
    fn the_table_shows_each_claim_by_server_and_entrance() {
        let moon = "the moon is up";
        let report = Report {
            claims: vec![
                put(moon, "conduit", Entrance::Http2, Verdict::Pass),
                known(put(moon, "conduit", Entrance::Direct, Verdict::Fail)),
                put("the sun is up", "synapse", Entrance::Http2, Verdict::Pass),
                known(put(
                    "others see it",
                    "conduit",
                    Entrance::Federation,
                    Verdict::Fail,
                )),
                put(
                    "others see it",
                    "synapse",
                    Entrance::Federation,
                    Verdict::Pass,
                ),
                Claim::new("not put by any way"),
            ],
            ..Report::default()
        };
        assert_eq!(
            report.table(),
            "                ┌ conduit 1, direct\n\
             \u{20}               │    ┌ conduit 1, Caddy HTTP/2\n\
             \u{20}               │    │    ┌ conduit 1, federation\n\
             \u{20}               │    │    │    ┌ synapse 1, Caddy HTTP/2\n\
             \u{20}               │    │    │    │    ┌ synapse 1, federation\n\
             others see it   -    -    FLAW -    PASS too-dark\n\
             the moon is up  FLAW PASS -    -    -    too-dark\n\
             the sun is up   -    -    -    PASS -\n"
        );
    }

    #[test]
    fn the_kill_matrix_says_which_check_noticed_which_fault() {
        let mut claim = put("a", "conduit", Entrance::Direct, Verdict::Pass);
        claim.kills = vec!["drops".to_owned(), "adds".to_owned()];
        let mut other = put("b", "conduit", Entrance::Direct, Verdict::Pass);
        other.kills = vec!["drops".to_owned()];
        let report = Report {
            claims: vec![claim, other, Claim::new("c")],
            ..Report::default()
        };
        assert_eq!(
            report.kill_matrix(),
            "adds   a\ndrops  a\n       b\n2 faults planted, noticed 3 times by 2 checks\n"
        );
        assert_eq!(Report::default().kill_matrix(), "");
    }

    #[test]
    fn a_report_of_before_there_were_entrances_is_understood() {
        let old = r#"{"name":"a","verdict":"pass","server":{"name":"conduit","version":"1"},"seconds":1.0,"blame":null}"#;
        let claim: Claim = serde_json::from_str(old).expect("it is understood");
        assert_eq!(serde_json::to_string(&claim).expect("JSON"), old);
    }

    #[tokio::test]
    async fn a_report_is_read_back_as_it_was_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut report = report().await;
        report.not_put("the sky is blue", "no window");
        report.write(directory.path()).expect("write it");
        let back = Report::read(directory.path()).expect("read it");
        assert_eq!(back.lines(), report.lines());
        let junit = std::fs::read_to_string(directory.path().join("junit.xml")).expect("junit.xml");
        assert!(
            junit.contains("tests=\"2\"") && junit.contains("the sky is blue"),
            "{junit}"
        );
    }
}
