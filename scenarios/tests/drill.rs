//! Drills: whether the newest backup is what the site was, and what would not be noticed if it were not.

use fleet_device::{Device, EncryptedRoom, Shown, Way, reads_sentinel};
use harness::accounts::Account;
use harness::client::{Client, NewRoom, Session};
use harness::corruption::{Bench, Catcher, Corruption, Place, Score, Trial};
use harness::drill::{self, History, READ, SAME, Sample, Subject, Watch};
use harness::fingerprint::Print;
use harness::scenario::{Outcome, Stage, scenario};
use harness::shared::{Settled, Shared, inside};
use harness::site::Site;
use harness::verdict::Verdict;
use harness::world::Options;
use harness::{Exit, Failure, OrBlame, Result};
use ruma::{OwnedEventId, OwnedRoomId};
use scenarios::{HOME, any_site, must};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Mutex;

/// One backed-up site for all of these claims: its store is only read.
static SAMPLE: Shared<(Sample, Sentinel)> = Shared::new();

/// What one person said in an encrypted room, and the recovery key that she wrote down: all that she has when her devices
/// are gone.
struct Sentinel {
    room: OwnedRoomId,
    event: OwnedEventId,
    text: String,
    key: String,
}

/// Whose sentinel it is.
const KEEPER: &str = "ezra";

impl Sentinel {
    async fn leave(site: &Site) -> Result<Self> {
        let password = format!("cat /opt/conduit/secrets/{KEEPER}.password");
        let account = Account {
            name: KEEPER.to_owned(),
            password: site.host.shell(&password).await?,
        };
        let phone = Device::login(&Way::to(site), &account, "phone").await?;
        phone.makes_identity(&account).await?;
        let key = phone.enables_recovery().await?;
        let room = phone.make_room(&EncryptedRoom::default()).await?;
        let text = format!("all is well at {}", drill::now());
        let event = phone.say(&room, &text).await?;
        phone.has_backed_up().await?;
        phone.shut().await?;
        Ok(Self {
            room,
            event,
            text,
            key,
        })
    }
}

async fn sample(stage: &Stage) -> Result<Arc<Settled<(Sample, Sentinel)>>> {
    let conduit = stage.conduit().await?;
    inside(SAMPLE.get(async |world| {
        let directory = world.run().join("store");
        let mut left = None;
        let sample = Sample::make_with(world, &conduit, &directory, async |site| {
            left = Some(Sentinel::leave(site).await?);
            Ok(())
        })
        .await?;
        let sentinel = left.ok_or_else(|| Failure::harness("leave a sentinel"))?;
        // The site that the backup is wanted for is gone.
        for (_, container) in world.hosts() {
            let stop = ["systemctl", "stop", "conduit.service", "caddy.service"];
            world.docker().exec(&container, &stop, None).await?;
        }
        Ok((sample, sentinel))
    }))
    .await
}

/// One machine on which its backup is corrupted, by one claim at a time.
static BENCH: Shared<Mutex<Bench>> = Shared::new();

async fn bench(stage: &Stage) -> Result<Arc<Settled<Mutex<Bench>>>> {
    let settled = sample(stage).await?;
    let conduit = stage.conduit().await?;
    inside(BENCH.get(async |world| {
        let bench = Bench::set_up(world, &conduit, &settled.0).await?;
        Ok(Mutex::new(bench))
    }))
    .await
}

/// Rows *Drill* of operations.md: alice is nobody here, the operator has nothing but a store and its password. The newest
/// backup comes up on a fresh machine, every account of the manifest gets in by what only the scratch server knows, no
/// packet leaves, the store stays as it is, and how old the backup was and how long it took is kept. A new device reads the
/// sentinel with the recovery key, and tells how old it was. Then one message more stands in the record than in the backup:
/// the next drill is red, names it, and alarms until one is good again.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_of_a_store_proves_it_remembers_it_and_is_red_when_a_message_is_missing() -> Outcome
{
    scenario(async |stage| {
        let settled = sample(stage).await?;
        let (sample, sentinel) = &**settled;
        let conduit = stage.conduit().await?;
        let watch = Watch {
            sentinel: drill::Sentinel {
                user: format!("@{KEEPER}:{HOME}")
                    .try_into()
                    .or_harness(|| "name the keeper".to_owned())?,
                room: sentinel.room.clone(),
                hours: 1,
                recovery_key: sentinel.key.clone(),
            },
            read: reads_sentinel,
        };
        let directory = tempfile::tempdir().or_environment(|| "make a directory".to_owned())?;
        let history = History::at(directory.path());
        let before = sample.store.hash()?;
        let again = async || {
            let subject = Subject::Store {
                store: sample.store.clone(),
                server_name: HOME.to_owned(),
                snapshot: "latest".to_owned(),
                watch: Some(watch.clone()),
            };
            drill::drill(&conduit, subject, &history, Options::default()).await
        };
        let (report, line) = again().await?;
        must(line.verdict == "pass", "be good", report.lines())?;
        must(
            report.claims.iter().any(|claim| claim.name == READ),
            "read the sentinel",
            report.lines(),
        )?;
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
        return Err(Failure::harness(format!(
            "{}: the garden is not in it",
            what()
        )));
    };
    let (_, print) = room
        .events
        .iter()
        .next_back()
        .map(|(id, print)| (id.clone(), print.clone()))
        .ok_or_else(|| Failure::harness(format!("{}: nothing was said", what())))?;
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
/// only who compares can know. The drill names it, in the words of who misses it. Some of what is lost is a row of an index:
/// timeline, state and sync are what they were, and only who asks for the one thing by its name finds it missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_names_the_one_thing_that_a_backup_lost() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let untouched = inside(bench.put(&Corruption::nothing())).await?;
        must(
            untouched
                .as_ref()
                .is_some_and(|trial| trial.caught.is_empty() && trial.harmless),
            "find nothing wrong with a backup that is whole",
            format!("{untouched:?}"),
        )?;
        let Said { event, avatar } = said(bench.record())?;
        let mut files = bench.inventory.tree.iter();
        let file = files.find(|name| name.starts_with("data/media/"));
        let file = Corruption::file_lost(file.map_or("", String::as_str));
        let row = |family, holding| Corruption::row_lost(family, holding, stage.world.seed() >> 12);
        for (lost, names) in [
            (row("pduid_pdu", &event), "event `$"),
            (row("eventid_pduid", &event), "by its id"),
            (
                row("eventid_shorteventid", &event),
                "for an account outside the room: ",
            ),
            (row("roomuserid_joined", "@timmy"), "member `@timmy"),
            (
                row("roomuserdataid_accountdata", "org.example.colour"),
                "account data `org.example.colour` is missing",
            ),
            (
                row("roomusertype_roomuserdataid", "org.example.song"),
                "account data `org.example.song` by its type",
            ),
            (row("servernamemediaid_metadata", &avatar), "media `mxc://"),
            (file, "media `mxc://"),
            (
                row("userroomid_invitestate", "@timmy"),
                "is no longer invited to",
            ),
            (
                row("userid_displayname", "@alexander"),
                "display name changed",
            ),
            (
                row("userid_masterkeyid", "@alexander"),
                "`master key` is missing",
            ),
            (row("userdeviceid_metadata", "@alexander"), "device `"),
            (
                row("token_userdeviceid", "@alexander"),
                "session of device `",
            ),
            (
                row("backupkeyid_backup", "@alexander"),
                "key backup changed version",
            ),
            (
                row("id_appserviceregistrations", "bridge"),
                "appservice `bridge` is missing",
            ),
            (row("alias_roomid", "garden"), "alias `#garden"),
        ] {
            let lost = inside(bench.put(&lost)).await?;
            // Where it was needed to look at all, whoever looked says what could not be done, and to what.
            let named = lost.as_ref().is_some_and(|trial| {
                let mut told = trial.seen.iter().chain([&trial.said]);
                trial.caught == [Catcher::Drill]
                    && told.any(|line| line.contains(names) || line.contains("` could not "))
            });
            must(
                named,
                &format!("name what is lost: {names}"),
                format!("{lost:?}"),
            )?;
        }
        Ok(())
    })
    .await
}

/// What was said in the garden, and alexander's avatar: the part of its address that the database knows it by.
struct Said {
    event: String,
    avatar: String,
}

fn said(record: &drill::Record) -> Result<Said> {
    let rooms = &mut record.fingerprint.rooms.values();
    let garden = rooms.find(|room| room.label.contains("garden"));
    let event = garden.and_then(|room| {
        let mut events = room.events.values();
        let event = events.find(|event| event.kind == "m.room.message")?;
        Some(event.event_id.to_string())
    });
    let accounts = &mut record.fingerprint.accounts.values();
    let avatar = accounts.find_map(|account| {
        let avatar = account.view.as_ref()?.avatar_url.as_ref()?;
        Some(avatar.media_id().ok()?.to_owned())
    });
    match (event, avatar) {
        (Some(event), Some(avatar)) => Ok(Said { event, avatar }),
        found => Err(Failure::harness(format!(
            "find what was said in the garden, and an avatar: {found:?}"
        ))),
    }
}

/// ezra has lost every device, and the site is a backup on a machine that never was the site. A new device gets in by what
/// only the scratch server knows, and with the recovery key reads what was said before the backup was made; the text says
/// when that was, and so how much would be lost. Without the key the same device reads nothing: encryption is what it was,
/// too. Client-Server API, "Secrets", "Server-side key backups".
#[tokio::test(flavor = "multi_thread")]
async fn a_new_device_reads_the_sentinel_of_a_drilled_backup_with_the_recovery_key() -> Outcome {
    scenario(async |stage| {
        let settled = sample(stage).await?;
        let (_, sentinel) = &**settled;
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        inside(async {
            bench.put(&Corruption::nothing()).await?;
            let scratch = bench.scratch();
            let entered = scratch.enter([KEEPER]).await?;
            let session = entered
                .first()
                .ok_or_else(|| Failure::harness("enter the restored site"))?;
            let way = Way::to(&scratch.site);
            let device = Device::of_session(&way, session.session(), "ezra's new phone").await?;
            let fetched = async || device.fetched(&sentinel.room, &sentinel.event).await;
            let before = fetched().await?;
            must(
                matches!(before, Shown::Unreadable { .. }),
                "read nothing without the recovery key",
                before.to_string(),
            )?;
            device.recovers(&sentinel.key).await?;
            let backups = device.sdk().encryption().backups();
            let keys = backups.download_room_keys_for_room(&sentinel.room).await;
            fleet_device::sdk(keys, || "get the sentinel's key from the backup".to_owned())?;
            let shown = fetched().await?;
            must(
                shown.text() == Some(&sentinel.text),
                "read the sentinel with the recovery key",
                shown.to_string(),
            )?;
            let sent = shown.event().and_then(|event| event["origin_server_ts"].as_u64());
            let said = sentinel.text.rsplit(' ').next().and_then(|time| time.parse::<u64>().ok());
            must(
                matches!((sent, said), (Some(sent), Some(said)) if (sent / 1000).abs_diff(said) < 60),
                "tell when it was said",
                shown.to_string(),
            )?;
            no_other_sentinel_is_read(scratch, session.session(), sentinel).await
        })
        .await
    })
    .await
}

/// A drill whose sentinel names another room, or comes with another key, is red and says why.
async fn no_other_sentinel_is_read(
    scratch: &drill::Scratch,
    session: &Session,
    sentinel: &Sentinel,
) -> Result<()> {
    let right = drill::Sentinel {
        user: session.user_id.clone(),
        room: sentinel.room.clone(),
        hours: 1,
        recovery_key: sentinel.key.clone(),
    };
    let client = Client::with_session(
        scratch.site.http(),
        &scratch.site.base_url(),
        session.clone(),
    );
    let clear = client.create_room(NewRoom::from("in the clear")).await?;
    for (wrong, named) in [
        (
            drill::Sentinel {
                room: clear,
                ..right.clone()
            },
            "find an encrypted message",
        ),
        (
            drill::Sentinel {
                room: "!nowhere"
                    .try_into()
                    .or_harness(|| "name a room".to_owned())?,
                ..right.clone()
            },
            "no member of such a room",
        ),
        (
            drill::Sentinel {
                recovery_key: "EsTc LW2K PGiF wKEA 3As5 g5c4 BXwk qeeJ ZJV8 Q9fu gUMN UE4d"
                    .to_owned(),
                ..right.clone()
            },
            "that user's recovery key",
        ),
    ] {
        let entered = scratch.enter([KEEPER]).await?;
        let session = entered
            .first()
            .ok_or_else(|| Failure::harness("enter the restored site"))?;
        let read = reads_sentinel(&scratch.site, session.session(), &wrong).await;
        let said = read.map_or_else(|failure| failure.to_string(), |said| format!("said {said}"));
        must(said.contains(named), &format!("say `{named}`"), said)?;
    }
    Ok(())
}

/// A sample of what `cargo fleet measure mutations` does by the hundred, drawn from the world's seed. Whatever corrupts the
/// store or the unpacked snapshot is refused before anything changes, or leaves the site what it was. What was gone before
/// the backup was made only a drill can know; how much of that it notices is measured, and printed here.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_drawn_to_corrupt_a_backup_is_refused() -> Outcome {
    const DRAWN: usize = 8;
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let score = inside(Score::take(&bench, stage.world.seed(), DRAWN)).await?;
        eprintln!("{score}");
        must(
            score.trials.len() == DRAWN && score.undecided.is_empty(),
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
