//! Drills: whether the newest backup is what the site was, and what would not be noticed if it were not.

use harness::corruption::{Bench, Catcher, Corruption, Place, Score, Trial};
use harness::drill::{self, History, SAME, Sample, Subject};
use harness::fingerprint::Print;
use harness::scenario::{Outcome, Stage, scenario};
use harness::shared::{Settled, Shared, inside};
use harness::verdict::Verdict;
use harness::world::Options;
use harness::{Exit, OrBlame, Result};
use scenarios::{HOME, any_site, must};
use std::path::Path;
use std::sync::Arc;

/// One backed-up site for all of these claims: its store is only read.
static SAMPLE: Shared<Sample> = Shared::new();

async fn sample(stage: &Stage) -> Result<Arc<Settled<Sample>>> {
    let conduit = stage.conduit().await?;
    inside(SAMPLE.get(async |world| {
        let sample = Sample::make(world, &conduit, &world.run().join("store")).await?;
        // The site that the backup is wanted for is gone.
        for (_, container) in world.hosts() {
            let stop = ["systemctl", "stop", "conduit.service", "caddy.service"];
            world.docker().exec(&container, &stop, None).await?;
        }
        Ok(sample)
    }))
    .await
}

/// Rows *Drill* of operations.md: alice is nobody here, the operator has nothing but a store and its password. The newest
/// backup comes up on a fresh machine, every account of the manifest gets in by what only the scratch server knows, no
/// packet leaves, the store stays as it is, and how old the backup was and how long it took is kept. Then one message more
/// stands in the record than in the backup: the next drill is red, names it, and alarms until one is good again.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_of_a_store_proves_it_remembers_it_and_is_red_when_a_message_is_missing() -> Outcome
{
    scenario(async |stage| {
        let sample = sample(stage).await?;
        let conduit = stage.conduit().await?;
        let directory = tempfile::tempdir().or_environment(|| "make a directory".to_owned())?;
        let history = History::at(directory.path());
        let before = sample.store.hash()?;
        let again = async || {
            let subject = Subject::Store {
                store: sample.store.clone(),
                server_name: HOME.to_owned(),
                snapshot: "latest".to_owned(),
            };
            drill::drill(&conduit, subject, &history, Options::default()).await
        };
        let (report, line) = again().await?;
        must(line.verdict == "pass", "be good", report.lines())?;
        must(
            line.snapshot.starts_with(&sample.record.snapshot),
            "take the newest snapshot",
            &line.snapshot,
        )?;
        for account in ["admin", "alexander", "canary", "ezra", "timmy"] {
            must(
                sample.record.census.accounts.contains(account),
                "know the fleet's accounts",
                account,
            )?;
        }
        must(
            line.rto_seconds.is_some_and(|took| took > 0.0) && line.rpo_seconds.is_some(),
            "say how much would be lost and how long it takes",
            line.noted(),
        )?;
        let (text, exit) = history.status(drill::now(), 8)?;
        must(
            exit == Exit::Ok && text.contains("RTO"),
            "be no cause for alarm",
            text,
        )?;
        must(
            before == sample.store.hash()?,
            "leave the store as it is",
            &before,
        )?;

        let lost = add_to_the_record(directory.path())?;
        let (report, line) = again().await?;
        let red = report.claims.iter().find(|claim| claim.name == SAME);
        let letter = red
            .and_then(|claim| claim.letter.clone())
            .unwrap_or_default();
        must(
            red.is_some_and(|claim| claim.verdict == Verdict::Fail) && line.verdict == "fail",
            "be red when a message is missing",
            report.lines(),
        )?;
        must(
            letter.contains(&lost),
            "name the message that is missing",
            letter,
        )?;
        must(
            report.exit(false) == Exit::Deployment,
            "end with a code that says so",
            report.lines(),
        )?;
        let (text, exit) = history.status(drill::now(), 8)?;
        must(
            exit == Exit::Deployment && text.contains("ALARM"),
            "raise the alarm",
            text,
        )?;
        let (text, exit) = history.status(drill::now() + 9 * 86_400, 8)?;
        must(exit != Exit::Ok, "stay alarmed", text)
    })
    .await
}

/// Writes one message more into the only record there is, as if the backup had lost it.
fn add_to_the_record(history: &Path) -> Result<String> {
    let what = || "change the record".to_owned();
    let entries = std::fs::read_dir(history.join("records")).or_harness(what)?;
    let path = entries
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .next();
    let path = path.unwrap_or_default();
    let text = std::fs::read_to_string(&path).or_harness(what)?;
    let mut record: drill::Record = serde_json::from_str(&text).or_harness(what)?;
    let room = record
        .fingerprint
        .rooms
        .values_mut()
        .find(|room| room.label.contains("garden"));
    let Some(room) = room else {
        return Err(harness::Failure::harness(format!(
            "{}: the garden is not in it",
            what()
        )));
    };
    let (_, print) = room
        .events
        .iter()
        .next_back()
        .map(|(id, print)| (id.clone(), print.clone()))
        .ok_or_else(|| harness::Failure::harness(format!("{}: nothing was said", what())))?;
    let id = ruma::EventId::parse("$a-message-that-the-backup-lost").or_harness(what)?;
    room.events.insert(
        id.clone(),
        Print {
            event_id: id.clone(),
            ..print
        },
    );
    for timeline in room.timelines.values_mut() {
        timeline.push(id.clone());
    }
    std::fs::write(&path, serde_json::to_string(&record).or_harness(what)?).or_harness(what)?;
    Ok(id.to_string())
}

/// Each time one thing is gone from the data before the backup is made, so that its manifest fits and the server starts:
/// only who compares can know. The drill names it, in the words of who misses it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "open: issue 7: seen to name five of six families, and never yet to come to its end"]
async fn a_drill_names_the_one_thing_that_a_backup_lost() -> Outcome {
    scenario(async |stage| {
        let sample = sample(stage).await?;
        let conduit = stage.conduit().await?;
        let bench = Bench::set_up(&stage.world, &conduit, &sample).await?;
        let untouched = bench.put(&Corruption::nothing()).await?;
        must(
            untouched
                .as_ref()
                .is_some_and(|trial| trial.caught.is_empty() && trial.harmless),
            "find nothing wrong with a backup that is whole",
            format!("{untouched:?}"),
        )?;
        for (family, names) in [
            ("pduid_pdu", "event `$"),
            ("userdeviceid_metadata", "device `"),
            ("token_userdeviceid", "session of device `"),
            ("backupkeyid_backup", "key backup changed version"),
            (
                "id_appserviceregistrations",
                "appservice `bridge` is missing",
            ),
            ("alias_roomid", "alias `#"),
        ] {
            let lost = bench
                .put(&Corruption::row_lost(family, stage.world.seed() >> 12))
                .await?;
            // Where it was needed to look at all, whoever looked says what could not be done, and to what.
            let named = lost.as_ref().is_some_and(|trial| {
                let mut told = trial.seen.iter().chain([&trial.said]);
                trial.caught == [Catcher::Drill]
                    && told.any(|line| line.contains(names) || line.contains("` could not "))
            });
            must(
                named,
                &format!("name what is lost with a row of `{family}`: {names}"),
                format!("{lost:?}"),
            )?;
        }
        Ok(())
    })
    .await
}

/// A sample of what `cargo fleet measure mutations` does by the hundred, drawn from the world's seed. Whatever corrupts the
/// store or the unpacked snapshot is refused before anything changes, or leaves the site what it was. What was gone before
/// the backup was made only a drill can know; how much of that it notices is measured, and printed here.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_drawn_to_corrupt_a_backup_is_refused() -> Outcome {
    const DRAWN: usize = 16;
    scenario(async |stage| {
        let sample = sample(stage).await?;
        let conduit = stage.conduit().await?;
        let bench = Bench::set_up(&stage.world, &conduit, &sample).await?;
        let score = Score::take(&bench, stage.world.seed(), DRAWN).await?;
        eprintln!("{score}");
        must(
            score.trials.len() == DRAWN,
            "corrupt it as often as was asked",
            score.to_string(),
        )?;
        let missed = |trial: &&Trial| {
            trial.place != Place::Source && trial.caught.is_empty() && !trial.harmless
        };
        must(
            score.trials.iter().find(missed).is_none(),
            "refuse a corrupted backup",
            score.to_string(),
        )
    })
    .await
}

/// Nine backups of one day, the second of which a drill has proved: the first goes, the second stays.
#[tokio::test(flavor = "multi_thread")]
async fn retention_never_removes_the_newest_backup_that_a_drill_has_proved() -> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        let backup = "/opt/conduit/scripts/backup.sh 2>/dev/null | tail -n 1 | cut -d ' ' -f 2";
        let first = site.host.shell(backup).await?;
        let second = site.host.shell(backup).await?;
        // A drill knows the snapshot by its full id, the catalogue by a short one.
        let drill = format!(
            "{{\"time\": {}, \"verdict\": \"pass\", \"snapshot\": \"{second:0<64}\"}}",
            drill::now()
        );
        site.follow("drill.md", &[("DRILL", &drill)]).await?;
        let rest = format!("for n in $(seq 7); do {backup}; done");
        site.host.shell(&rest).await?;
        let listed = site
            .host
            .shell("/opt/conduit/scripts/backup.sh list")
            .await?;
        must(
            !listed.contains(&first),
            "remove the oldest that nobody needs",
            &listed,
        )?;
        must(
            listed.contains(&second) && listed.lines().count() == 8,
            "keep what a drill has proved",
            &listed,
        )?;
        site.host
            .shell(&format!("/opt/conduit/scripts/backup.sh verify {second}"))
            .await
            .map(|_| ())
    })
    .await
}

/// The runbook notes a red drill on the site and does not come to its end: health is critical. A good one sets it right.
#[tokio::test(flavor = "multi_thread")]
async fn a_red_drill_that_is_noted_on_the_site_turns_its_health_critical() -> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        let noted = |verdict: &str| {
            format!(
                "{{\"time\": {}, \"verdict\": \"{verdict}\", \"snapshot\": \"1a2b3c4d\"}}",
                drill::now()
            )
        };
        let health = "/opt/conduit/scripts/health.sh --only drill";
        site.follow("drill.md", &[("DRILL", &noted("pass"))])
            .await?;
        let red = site.follow("drill.md", &[("DRILL", &noted("fail"))]).await;
        let letter = red
            .err()
            .map(|failure| failure.to_string())
            .unwrap_or_default();
        must(
            letter.contains("the last drill did not pass"),
            "stop at what health says of a red drill",
            letter,
        )?;
        let critical = site.host.try_shell(health).await?;
        must(critical.exit == 2, "be critical", critical.stdout)?;
        site.follow("drill.md", &[("DRILL", &noted("pass"))])
            .await?;
        let well = site.host.try_shell(health).await?;
        must(
            well.exit == 0,
            "be well again after a good one",
            well.stdout,
        )
    })
    .await
}
