//! What the suite itself says when not the claim is wrong but the stage: a server dies in the middle, the disk fills, a
//! clock is wrong, a partner answers rubbish, the check crashes, somebody stops the run. The claims that are tried here hold
//! until the stage is broken under them; what counts is what then becomes of verdict, blame and letter.

use fleet_peer::{Answer, Ask, Door, Peer, Reply};
use harness::client::NewRoom;
use harness::examine::Cause;
use harness::homeserver::Server;
use harness::host::Needs;
use harness::probe::{self, ProbeState};
use harness::report::Claim;
use harness::scenario::{Outcome, Stage, scenario, tried};
use harness::{Blame, Exit, Failure, OrBlame, Result, Verdict, tools};
use ruma::UserId;
use scenarios::{HOME, SOON, any_site, fleet_site, impatient, login, must, product};
use serde_json::Value;
use std::future::pending;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Notes that the claim is about the lab itself.
async fn to_the_lab(stage: &Stage) -> Result<()> {
    stage.put_to(&Server {
        name: "lab".to_owned(),
        version: format!("docker {}", stage.world.docker().version().await?),
    });
    Ok(())
}

/// What a claim that was tried came to: verdict, blame, and a letter that says all of these, also with the evidence. The
/// evidence of what was broken on purpose is not kept.
fn comes_to(
    (claim, outcome): &(Claim, Outcome),
    verdict: Verdict,
    blame: Blame,
    words: &[&str],
) -> Result<()> {
    let letter = outcome
        .as_ref()
        .err()
        .map(|letter| format!("{letter:?}"))
        .unwrap_or_default();
    let kept = letter
        .lines()
        .find_map(|line| line.strip_prefix("evidence: "))
        .map(std::path::PathBuf::from)
        .unwrap_or_default();
    let with_it = std::fs::read_to_string(kept.join("letter.txt")).unwrap_or_default();
    let missing: Vec<_> = words
        .iter()
        .filter(|word| !letter.contains(**word))
        .collect();
    let right = (claim.verdict, claim.blame) == (verdict, Some(blame))
        && letter.contains(&format!("{verdict}  {}", claim.name))
        && letter.contains(&format!("blame: {blame}"));
    must(
        right && missing.is_empty() && with_it == letter,
        &format!("come to {verdict}, blame {blame}, and say why"),
        format!(
            "{:?} {:?}, not said: {missing:?}\n{letter}",
            claim.verdict, claim.blame
        ),
    )?;
    if let Some(run) = kept.parent().and_then(std::path::Path::parent) {
        std::fs::remove_dir_all(run).or_environment(|| format!("remove `{}`", run.display()))?;
    }
    Ok(())
}

/// The claim must hold as long as the stage is whole; that it does not is another matter.
fn whole<T>(outcome: Result<T>) -> Result<T> {
    outcome.map_err(|failure| Failure::harness("hold while nothing is broken").because(failure))
}

/// A homeserver that somebody kills from outside, or takes away with its machine, has not refused anything: the claim is
/// undecided, and the machine's owner has to look. One that ends itself by a signal has crashed: that is the product's, whatever the claim was about. One that a
/// scenario told systemd to kill explains nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_the_middle_is_told_from_one_that_answers_wrongly() -> Outcome {
    scenario(async |stage| {
        to_the_lab(stage).await?;
        let kill = |signal: &str| {
            format!("kill -s {signal} $(systemctl show --value --property=MainPID conduit)")
        };
        let asked = "systemctl kill --signal=KILL conduit".to_owned();
        let answer = "answer whenever it is asked";
        for (end, verdict, blame, words) in [
            (
                None,
                Verdict::Unknown,
                Blame::Environment,
                &[
                    "keep the host of `timmy.foundation` running: it is gone",
                    answer,
                ][..],
            ),
            (
                Some(kill("KILL")),
                Verdict::Unknown,
                Blame::Environment,
                &[
                    "keep `conduit` of `timmy.foundation` running: somebody killed it",
                    answer,
                ],
            ),
            (
                Some(kill("ABRT")),
                Verdict::Fail,
                Blame::Product,
                &[
                    "keep `conduit` of `timmy.foundation` running: it crashed",
                    answer,
                ],
            ),
            (Some(asked), Verdict::Fail, Blame::Product, &[answer, "502"]),
        ] {
            let tried = tried("a server answers", async |stage| {
                let (site, _) = any_site(stage).await?;
                let versions = format!("{}/_matrix/client/versions", site.base_url());
                let ask = async || -> Result<()> {
                    let what = || answer.to_owned();
                    let reply = site.http().get(&versions).send().await;
                    let status = reply.or_blame(Blame::Product, what)?.status();
                    product(status.is_success(), answer, status.to_string())
                };
                whole(ask().await)?;
                match &end {
                    Some(end) => {
                        impatient(&site).await?;
                        site.host.shell(end).await?;
                    }
                    None => {
                        let host = [site.host.container().to_owned()];
                        stage.world.docker().remove_containers(&host).await?;
                    }
                }
                // It is down for as long as systemd waits before it starts it again.
                let down = probe::until("an answer fails", SOON, async || match ask().await {
                    Ok(()) => ProbeState::NotYet("it answers".to_owned()),
                    Err(failure) => ProbeState::Ready(failure),
                });
                Err(down.await?)
            })
            .await;
            comes_to(&tried, verdict, blame, words)?;
        }
        Ok(())
    })
    .await
}

/// The disk of the home fills up while alice talks: that her words are refused then says nothing about the server. Where the
/// claim is about just that, it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_on_a_full_disk_is_undecided_unless_it_is_about_that() -> Outcome {
    scenario(async |stage| {
        stage.conduit().await?;
        for meant in [false, true] {
            let tried = tried("alice is heard", async |stage| {
                let conduit = stage.conduit().await?;
                if meant {
                    stage.on_purpose(Cause::Disk);
                }
                let needs = Needs {
                    bundle: Some(tools::bundle(&conduit).await?),
                    disk_mib: Some(1200),
                    ..Needs::default()
                };
                let site = stage
                    .world
                    .install(stage.world.host_with(HOME, needs).await?)
                    .await?;
                site.follow("bootstrap.md", &[]).await?;
                let alice = login(stage, &site, "alexander").await?;
                let garden = alice.create_room(NewRoom::public("garden")).await?;
                let much = "x".repeat(30_000);
                whole(alice.say(&garden, &much).await.map_err(Failure::from))?;
                site.host
                    .shell("dd if=/dev/zero of=/opt/ballast bs=1M status=none || true")
                    .await?;
                for _ in 0..100 {
                    alice.say(&garden, &much).await?;
                }
                Ok(())
            })
            .await;
            let (verdict, blame) = match meant {
                false => (Verdict::Unknown, Blame::Environment),
                true => (Verdict::Fail, Blame::Product),
            };
            let room = "have room on the disk of `timmy.foundation`";
            let words = [room, "the claim failed", "mend this and put it again"];
            let words = if meant { &[][..] } else { &words };
            comes_to(&tried, verdict, blame, words)?;
        }
        Ok(())
    })
    .await
}

/// The home's clock is two days slow, so that the keys that it publishes have expired for everybody else. A container cannot
/// set a clock of its own (there is one for the whole machine), so the server is made to see another one: Synapse, whose
/// Python can be told.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_by_a_wrong_clock_is_undecided() -> Outcome {
    scenario(async |stage| {
        to_the_lab(stage).await?;
        let tried = tried(
            "published keys can be believed for an hour",
            async |stage| {
                let site = stage.world.synapse("mere.test").await?;
                stage.put_to(&site.server);
                let keys = format!("{}/_matrix/key/v2/server", site.base_url());
                let ask = async || -> Result<()> {
                    let what = || format!("read `{keys}`");
                    let reply = site.http().get(&keys).send().await;
                    let reply = reply.or_blame(Blame::Product, what)?;
                    let document: Value = reply.json().await.or_blame(Blame::Product, what)?;
                    let until = document["valid_until_ts"].as_u64().unwrap_or_default();
                    let now = SystemTime::now().duration_since(UNIX_EPOCH);
                    let now = now.unwrap_or_default().as_millis();
                    product(
                        u128::from(until) > now + 3_600_000,
                        "publish keys that can be believed for an hour",
                        document.to_string(),
                    )
                };
                whole(ask().await)?;
                let slow = b"import time\n\
                             right, broken = time.time, time.gmtime\n\
                             time.time = lambda: right() - 172800\n\
                             time.gmtime = lambda *at: broken(*at or (time.time(),))\n";
                site.host
                    .write("/usr/local/lib/synapse/sitecustomize.py", "644", slow)
                    .await?;
                site.host.shell("systemctl restart synapse").await?;
                probe::until("synapse is back", SOON * 2, async || {
                    let up = "curl -sf -o /dev/null http://127.0.0.1:6167/_matrix/client/versions";
                    match site.host.try_shell(up).await {
                        Ok(output) if output.exit == 0 => ProbeState::Ready(()),
                        other => ProbeState::NotYet(format!("{other:?}")),
                    }
                })
                .await?;
                ask().await
            },
        )
        .await;
        let words = [
            "have a right clock on `mere.test`",
            "s behind",
            "publish keys that can",
        ];
        comes_to(&tried, Verdict::Unknown, Blame::Environment, &words)
    })
    .await
}

/// delia's server answers with a page for people where a name was asked for. That alice does not see the name is not the
/// home's fault, and who plays that server has to mend it. Garbage that a scenario sends on purpose is no excuse.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_with_a_partner_that_answers_rubbish_is_undecided_and_ours_to_mend() -> Outcome {
    scenario(async |stage| {
        stage.conduit().await?;
        for meant in [false, true] {
            let tried = tried("alice sees delia's name", async |stage| {
                let site = fleet_site(stage).await?;
                let alice = login(stage, &site, "alexander").await?;
                let door = Door::open(&stage.world, 1, &[443, 8448]).await?;
                let witness = door.clone();
                stage.witness(move || witness.rubbish());
                let peer = Peer::open(&stage.world, &door, "moor.test", &site).await?;
                let delia =
                    UserId::parse(peer.user("delia")).or_harness(|| "name delia".to_owned())?;
                let ask = async || -> Result<()> {
                    let shown = alice.try_profile(&delia).await?;
                    let name = shown
                        .outcome
                        .as_ref()
                        .ok()
                        .and_then(|p| p.display_name.clone());
                    product(
                        name.as_deref() == Some("Delia"),
                        "show delia's name",
                        format!("{shown:?}"),
                    )
                };
                peer.expect(Ask::Profile, |_| {
                    Reply::json(&serde_json::json!({"displayname": "Delia"}))
                });
                whole(ask().await)?;
                peer.expect(Ask::Profile, move |_| match meant {
                    true => Reply::garbage(),
                    false => Reply::Now(Answer {
                        status: 200,
                        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
                        body: "<html>It works!</html>".into(),
                    }),
                });
                ask().await
            })
            .await;
            let words = [
                "the peer answered with no JSON",
                "/_matrix/federation/v1/query/profile",
                "the claim failed: show delia's name",
            ];
            match meant {
                false => comes_to(&tried, Verdict::Unknown, Blame::Harness, &words)?,
                true => comes_to(
                    &tried,
                    Verdict::Fail,
                    Blame::Product,
                    &["show delia's name"],
                )?,
            }
        }
        Ok(())
    })
    .await
}

/// A check that panics has observed nothing, and is ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_panics_is_unknown_with_a_letter() -> Outcome {
    scenario(async |stage| {
        to_the_lab(stage).await?;
        let tried = tried("nobody knows", async |stage| {
            to_the_lab(stage).await?;
            stage.world.host("vale.test").await?;
            panic!("counted {} and found none", 3)
        })
        .await;
        let words = [
            "the check panicked",
            "counted 3 and found none",
            "boot a bare host for vale.test",
        ];
        comes_to(&tried, Verdict::Unknown, Blame::Harness, &words)
    })
    .await
}

/// Tells the process that is stopped from the one that stops it.
const WAITS: &str = "VERDICTS_WAIT";

/// Somebody stops a run in the middle of a claim that held the last time: what was known then does not stand any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_interrupted_is_noted_as_unknown() -> Outcome {
    if std::env::var_os(WAITS).is_some() {
        return scenario(async |stage| {
            to_the_lab(stage).await?;
            pending().await
        })
        .await;
    }
    scenario(async |stage| {
        to_the_lab(stage).await?;
        let what = || "run a claim to interrupt it".to_owned();
        let target = tempfile::tempdir().or_environment(what)?;
        let test = "a_claim_that_is_interrupted_is_noted_as_unknown";
        let note = target.path().join(format!("fleet/scenarios/{test}.json"));
        let earlier = Claim {
            verdict: Verdict::Pass,
            ..Claim::new(test)
        };
        let text = serde_json::to_string(&earlier).or_harness(what)?;
        std::fs::create_dir_all(target.path().join("fleet/scenarios"))
            .and_then(|()| std::fs::write(&note, text))
            .or_environment(what)?;
        let noted = || -> Result<Claim> {
            let text = std::fs::read_to_string(&note).or_harness(what)?;
            serde_json::from_str(&text).or_harness(what)
        };
        let mut child = tokio::process::Command::new(std::env::current_exe().or_harness(what)?)
            .args(["--exact", test])
            .env(WAITS, "1")
            .env("CARGO_TARGET_DIR", target.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .or_harness(what)?;
        probe::until(
            "the claim is put to the lab",
            Duration::from_secs(120),
            async || match noted() {
                Ok(Claim {
                    server: Some(_), ..
                }) => ProbeState::Ready(()),
                other => ProbeState::NotYet(format!("{other:?}")),
            },
        )
        .await?;
        let pid = child.id().unwrap_or_default().to_string();
        tokio::process::Command::new("kill")
            .args(["-s", "INT", &pid])
            .status()
            .await
            .or_harness(what)?;
        let ended = child.wait().await.or_harness(what)?;
        let claim = noted()?;
        let said = claim.letter.clone().unwrap_or_default();
        must(
            ended.code() == Some(i32::from(Exit::Interrupted.code()))
                && claim.verdict == Verdict::Unknown
                && claim.blame.is_none()
                && said.contains("did not come to its end"),
            "note an interrupted claim as unknown",
            format!("{ended}: {claim:?}"),
        )
    })
    .await
}
