//! After a failure: were the machines of the world fit to have a claim put to them at all? A server that somebody killed
//! has not refused, a full disk is not a bug, and a wrong clock makes right answers look wrong. What is found goes into the
//! letter; where it leaves the claim undecided, the verdict becomes unknown and the blame goes to who has to act.

use crate::docker::Docker;
use crate::failure::{Failure, Result};
use crate::verdict::{Blame, Verdict};
use crate::world::World;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A machine that works answers at once.
const PATIENCE: Duration = Duration::from_secs(20);
/// No two clocks of one lab are apart by more, however busy it is.
const APART: i64 = 60;
/// A disk with less than this is full.
const FULL_KIB: i64 = 1024;

/// What can be wrong with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The machine itself is away.
    Host,
    /// The homeserver or the proxy died.
    Death,
    /// The disk is full.
    Disk,
    /// The homeserver's clock is wrong.
    Clock,
    /// Whom the homeserver depends on does not behave.
    Partner,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind.
    pub cause: Cause,
    /// Who has to act.
    pub blame: Blame,
    /// What is wrong, as the failure's sentence: a lower-case fragment that says what was not possible, and why.
    pub what: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Looks at every machine of a world, and at what happened there since.
pub async fn look(world: &World, since: SystemTime) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    for (name, container) in world.hosts() {
        match tokio::time::timeout(PATIENCE, ask(world.docker(), &container, since)).await {
            Ok(Ok(Some(told))) => troubles.extend(judge(&name, &told)),
            Ok(Ok(None)) => troubles.push(Trouble {
                cause: Cause::Host,
                blame: Blame::Environment,
                what: format!("keep the host of `{name}` running: it is gone"),
            }),
            Ok(Err(failure)) => troubles.push(silent(&name, &failure.to_string())),
            Err(_) => troubles.push(silent(&name, "it says nothing for 20 s")),
        }
    }
    troubles
}

fn silent(name: &str, why: &str) -> Trouble {
    Trouble {
        cause: Cause::Host,
        blame: Blame::Environment,
        what: format!("look after the host of `{name}`: {why}"),
    }
}

/// What a failure comes to in the light of what was found. What was done on purpose explains nothing.
pub fn explain(failure: Failure, troubles: &[Trouble], on_purpose: &[Cause]) -> Failure {
    let found = troubles
        .iter()
        .filter(|trouble| !on_purpose.contains(&trouble.cause));
    let decides = |trouble: &&Trouble| {
        // Only what is worse than the failure's own blame changes it: a broken check stays ours.
        failure.verdict() == Verdict::Fail
            && (trouble.blame == Blame::Product || verdict_of(trouble) == Verdict::Unknown)
    };
    let Some(trouble) = found.clone().find(decides) else {
        return found.fold(failure, |failure, trouble| {
            failure.because(format!("seen afterwards: {trouble}"))
        });
    };
    let mut explained = Failure::new(trouble.blame, &trouble.what)
        .because(format!("the claim failed: {}", failure.what));
    explained.causes.extend(failure.causes);
    explained.last_seen = failure.last_seen;
    if verdict_of(trouble) == Verdict::Unknown {
        explained.hint =
            Some("what the claim says is not decided: mend this and put it again".to_owned());
    }
    found
        .filter(|other| *other != trouble)
        .fold(explained, |failure, other| {
            failure.because(format!("seen afterwards: {other}"))
        })
}

fn verdict_of(trouble: &Trouble) -> Verdict {
    Failure::new(trouble.blame, "").verdict()
}

/// One line per finding: `log UNIT LINE`, `disk PATH KIB`, `clock SECONDS`. Nothing if the machine does not run.
async fn ask(docker: &Docker, container: &str, since: SystemTime) -> Result<Option<String>> {
    if !docker.runs(container).await? {
        return Ok(None);
    }
    let since = since
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let script = format!(
        "for unit in conduit synapse caddy; do journalctl --quiet --no-pager --output=cat --unit=$unit --since=@{since} | \
         grep -E 'Main process exited|on client request|OOM killer' | sed \"s/^/log $unit /\"; done; \
         df --output=target,avail /opt | sed -n 's/^\\//disk \\//p'; \
         date=$(curl --silent --max-time 10 --output /dev/null --dump-header - http://127.0.0.1:6167/_matrix/client/versions | \
         sed -n 's/\\r$//; s/^[Dd]ate: //p'); \
         [ -z \"$date\" ] || echo \"clock $(($(date --date=\"$date\" +%s) - $(date +%s)))\""
    );
    let output = docker
        .exec(container, &["bash", "-c", &script], None)
        .await?;
    Ok(Some(output.stdout))
}

fn judge(name: &str, told: &str) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    // systemd says before a death that it was asked to kill: then it was a scenario's or an operator's.
    let mut asked = false;
    let mut out_of_memory = false;
    for line in told.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(kind), Some(subject), rest) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let rest = rest.unwrap_or_default();
        let number = |text: &str| text.trim().parse::<i64>().ok();
        match kind {
            "log" if rest.contains("on client request") => asked = true,
            "log" if rest.contains("OOM killer") => out_of_memory = true,
            "log" => {
                let how = rest.split_once("exited, ").map_or(rest, |(_, how)| how);
                if let Some((blame, why)) = death(how, out_of_memory)
                    && !std::mem::take(&mut asked)
                {
                    troubles.push(Trouble {
                        cause: Cause::Death,
                        blame,
                        what: format!("keep `{subject}` of `{name}` running: {why} ({how})"),
                    });
                }
                (asked, out_of_memory) = (false, false);
            }
            "disk" if number(rest).is_some_and(|left| left < FULL_KIB) => troubles.push(Trouble {
                cause: Cause::Disk,
                blame: Blame::Environment,
                what: format!(
                    "have room on the disk of `{name}`: {} KiB are left under `{subject}`",
                    rest.trim()
                ),
            }),
            "clock" => {
                if let Some(apart) = number(subject).filter(|apart| apart.abs() > APART) {
                    let side = if apart < 0 { "behind" } else { "ahead" };
                    troubles.push(Trouble {
                        cause: Cause::Clock,
                        blame: Blame::Environment,
                        what: format!(
                            "have a right clock on `{name}`: the homeserver's is {} s {side}",
                            apart.abs()
                        ),
                    });
                }
            }
            _ => {}
        }
    }
    troubles
}

/// Who has to act on a death, by what systemd says of it. An exit is the program's own word and belongs to the claim.
fn death(how: &str, out_of_memory: bool) -> Option<(Blame, &'static str)> {
    let signal = how.split_once("status=").map_or("", |(_, status)| status);
    if out_of_memory {
        return Some((Blame::Environment, "the machine ran out of memory"));
    }
    match () {
        () if how.starts_with("code=exited") || signal.starts_with("15/") => None,
        () if signal.starts_with("9/") => Some((Blame::Environment, "somebody killed it")),
        () => Some((Blame::Product, "it crashed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blamed(told: &str) -> Vec<(Cause, Blame)> {
        let troubles = judge("vale.test", told);
        troubles.iter().map(|t| (t.cause, t.blame)).collect()
    }

    #[test]
    fn a_death_is_told_from_a_stop_that_somebody_asked_for() {
        let killed =
            "log conduit conduit.service: Main process exited, code=killed, status=9/KILL\n";
        assert_eq!(blamed(killed), [(Cause::Death, Blame::Environment)]);
        let asked = "log conduit conduit.service: Sent signal SIGKILL to main process 7 (conduit) on client request.\n";
        assert_eq!(blamed(&format!("{asked}{killed}")), []);
        // That it was asked for once excuses one death.
        assert_eq!(blamed(&format!("{asked}{killed}{killed}")).len(), 1);
        let crashed =
            "log conduit conduit.service: Main process exited, code=dumped, status=6/ABRT\n";
        assert_eq!(blamed(crashed), [(Cause::Death, Blame::Product)]);
        let refused =
            "log conduit conduit.service: Main process exited, code=exited, status=1/FAILURE\n";
        assert_eq!(blamed(refused), []);
    }

    #[test]
    fn a_full_disk_and_a_wrong_clock_are_found_and_others_are_not() {
        assert_eq!(blamed("disk /opt     123456\nclock -2"), []);
        assert_eq!(
            blamed("disk /opt 12\nclock -7200"),
            [
                (Cause::Disk, Blame::Environment),
                (Cause::Clock, Blame::Environment)
            ]
        );
    }

    #[test]
    fn what_was_done_on_purpose_or_to_a_broken_check_explains_nothing() {
        let troubles = judge("vale.test", "disk /opt 12");
        let failed = || Failure::product("take a message").last_seen("500");
        let explained = explain(failed(), &troubles, &[]);
        assert_eq!(explained.verdict(), Verdict::Unknown, "{explained}");
        let text = explained.to_string();
        assert!(text.contains("12 KiB") && text.contains("take a message") && text.contains("500"));
        let meant = explain(failed(), &troubles, &[Cause::Disk]);
        assert_eq!(meant.to_string(), failed().to_string());
        let ours = explain(Failure::harness("count"), &troubles, &[]);
        assert_eq!(ours.blame, Blame::Harness);
        assert!(ours.to_string().contains("seen afterwards: have room"));
    }
}
