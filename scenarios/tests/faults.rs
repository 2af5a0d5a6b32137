//! What backup and restore survive: faults put to real runs of the shipped scripts on one site, after each of which the six
//! invariants of the operations notes hold and the same command succeeds. Hundreds of them are put by
//! `cargo fleet measure faults`; here are some by name, a drawn sample, and what shows that the sweep can fail.

use harness::failure::OrBlame;
use harness::scenario::{Outcome, Stage, scenario};
use harness::shared::{Settled, Shared, inside};
use harness::sweep::{
    Bench, DISK, Family, Fault, Moment, RENAMES, SYNCS, Script, Sweep, Trial, services,
};
use harness::{Failure, Result};
use scenarios::{must, unchanged};
use std::sync::Arc;
use tokio::sync::Mutex;

/// One site for all of these claims, for one fault at a time.
static BENCH: Shared<Mutex<Bench>> = Shared::new();

async fn bench(stage: &Stage) -> Result<Arc<Settled<Mutex<Bench>>>> {
    let conduit = stage.conduit().await?;
    inside(BENCH.get(async |world| Ok(Mutex::new(Bench::set_up(world, &conduit).await?)))).await
}

/// The fault happens, the script ends as it may, and every invariant holds.
async fn survives(bench: &Bench, fault: &Fault) -> Result<()> {
    let trial = bench.put(fault).await?;
    must(
        trial.as_ref().is_some_and(|trial| trial.broken.is_empty()),
        &format!("keep every invariant: {fault}"),
        format!("{trial:?}"),
    )
}

/// A sample of the sweep, drawn from the world's seed.
#[tokio::test(flavor = "multi_thread")]
async fn drawn_faults_leave_the_six_invariants_standing() -> Outcome {
    const DRAWN: usize = 5;
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let sweep = Sweep::take(&bench, bench.draw(stage.world.seed()).mixed(), DRAWN).await?;
        must(
            sweep.trials.len() == DRAWN,
            "put as many faults as was asked",
            sweep.to_string(),
        )?;
        let cut = |trial: &Trial| trial.fault.family == Family::Power;
        must(
            sweep.trials.iter().any(cut) || bench.without_power.is_some(),
            "cut the power once, where that is possible",
            sweep.to_string(),
        )?;
        must(
            sweep.broken().next().is_none(),
            "keep every invariant",
            sweep.to_string(),
        )
    })
    .await
}

/// Killed between the two renames a restore has left no data at all, and no server starts; run again it goes on. A server
/// that does not start on the restored data makes the restore put the old data back, byte by byte, and say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_ends_with_the_old_data_or_the_new_and_nothing_between() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let mut refused = services();
        refused.retain(|fault| {
            fault.script == Script::Restore && fault.to_string().contains("a start that fails")
        });
        must(
            refused.len() == 2,
            "know a start that fails, without and with a drain",
            format!("{refused:?}"),
        )?;
        let killed = Fault::kill(Script::Restore, "swap-middle", true);
        for fault in refused.into_iter().chain([killed]) {
            survives(&bench, &fault).await?;
        }
        Ok(())
    })
    .await
}

/// The power goes where it hurts most: after the catalogue has a new snapshot and before the list of what a killed run may have
/// left has lost it, once the next run forgot that snapshot; and between journal and exchange, once an undo then found the
/// site's identity empty. Where no disk can be cut off from its power the machine is told not to do, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_between_two_renames_loses_nothing() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        if bench.without_power.is_some() {
            return Ok(());
        }
        for fault in [
            Fault::power(Script::Backup, "catalog", Moment::Call(SYNCS, 2)),
            Fault::power(Script::Restore, "swap", Moment::AtOnce).undone(),
            Fault::power(Script::Restore, "journal", Moment::Call(RENAMES, 4)),
        ] {
            survives(&bench, &fault).await?;
        }
        Ok(())
    })
    .await
}

/// The kernel kills restic where the backup's unit, or the restore's scope, has less memory than it needs: the script says so
/// and ends, and the site is what it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_a_restore_without_memory_end() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        for fault in [
            Fault::memory(Script::Backup, "archive", 8),
            Fault::memory(Script::Restore, "unpack", 8),
        ] {
            survives(&bench, &fault).await?;
        }
        Ok(())
    })
    .await
}

/// A script that is broken, the fault that shows it, and what mends the site afterwards.
struct Mutant {
    what: &'static str,
    invariant: u8,
    file: &'static str,
    edit: &'static str,
    fault: fn() -> Fault,
    mend: &'static str,
}

const BACKUP: &str = "/opt/conduit/scripts/backup.sh";
const ARCHIVE: &str = "/opt/conduit/scripts/archive.sh";
const RESTORE: &str = "/opt/conduit/scripts/restore.sh";

/// The whole script goes on with what the broken one has begun.
const FINISH: &str =
    "systemctl stop conduit.service; scripts/restore.sh latest --replace --drain 0";

/// One for each invariant, and one for what only a power cut shows.
const MUTANTS: [Mutant; 7] = [
    Mutant {
        what: "nobody starts Conduit after a backup that was killed",
        invariant: 1,
        file: "/etc/systemd/system/conduit-backup.service",
        edit: "/^ExecStopPost=/d",
        fault: || Fault::kill(Script::Backup, "delta", false),
        mend: "true",
    },
    Mutant {
        what: "the new data is copied over the old before the exchange",
        invariant: 2,
        file: RESTORE,
        edit: r#"s|^  step swap$|  cp -a "$WORK/data/." "$DATA/"; step swap|"#,
        fault: || Fault::kill(Script::Restore, "swap", false),
        mend: FINISH,
    },
    Mutant {
        what: "a snapshot is listed before it is made",
        invariant: 3,
        file: BACKUP,
        edit: r#"s|^  step archive$|  jq -c '.snapshot = "00000000"' <<<"$(tail -n 1 "$CATALOG")" >>"$CATALOG"; step archive|"#,
        fault: || Fault::kill(Script::Backup, "archive", true),
        mend: "jq -c 'select(.snapshot != \"00000000\")' backups/catalog.jsonl >backups/kept && mv backups/kept backups/catalog.jsonl",
    },
    Mutant {
        what: "the newest backup makes the older ones forgotten",
        invariant: 4,
        file: BACKUP,
        edit: r#"s/{ cat "$CATALOG" 2>.dev.null || true; /{ /"#,
        fault: || Fault::kill(Script::Backup, "prune", false),
        mend: "true",
    },
    Mutant {
        what: "staging is never cleaned up",
        invariant: 5,
        file: BACKUP,
        edit: r#"s/ rm -rf "$STAGE" "$STAGE"/ rm -rf "$STAGE.none"/"#,
        fault: || Fault::kill(Script::Backup, "prelink", false),
        mend: "rm -rf staging/backup*",
    },
    Mutant {
        what: "a restore that was killed is not gone on with",
        invariant: 6,
        file: RESTORE,
        edit: r#"s/^resume() {$/resume() { fail 1 "there is a journal"/"#,
        fault: || Fault::kill(Script::Restore, "site", true),
        mend: FINISH,
    },
    Mutant {
        what: "a new catalogue takes the old one's place before it is on the disk",
        invariant: 3,
        file: ARCHIVE,
        edit: r#"s/^  sync "$partial"$/  :/"#,
        fault: || Fault::power(Script::Backup, "catalog", Moment::Call(SYNCS, 1)),
        mend: "true",
    },
];

/// Each of the six is broken once on purpose, in the scripts as they lie on the machine: the sweep names it. Two of the mutants
/// take their turn by the world's seed, or as many as `FLEET_MUTANTS` says.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_script_is_named_by_the_invariant_that_it_breaks() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let host = &bench.site.host;
        let count = std::env::var("FLEET_MUTANTS").map_or(Ok(2), |count| count.parse());
        let count = count.or_harness(|| "read `FLEET_MUTANTS` as a number".to_owned())?;
        let first = usize::try_from(stage.world.seed() % MUTANTS.len() as u64).unwrap_or_default();
        let turns = MUTANTS.iter().cycle().skip(first).take(count);
        for Mutant { what, invariant, file, edit, fault, mend } in turns {
            let fault = fault();
            if let (Family::Power, Some(why)) = (fault.family, &bench.without_power) {
                eprintln!("left out: {what}: {why}");
                continue;
            }
            let plant = format!(
                "cp -a {file} /root/whole && sed -i -e '{}' {file} && ! cmp -s {file} /root/whole && systemctl daemon-reload",
                edit.replace('\'', "'\\''")
            );
            host.shell(&plant).await?;
            let trial = bench.put(&fault).await;
            host.shell(&format!(
                "cd /opt/conduit && cp -a /root/whole {file} && systemctl daemon-reload && {{ {mend}; }} && systemctl start conduit.service"
            ))
            .await?;
            let seen = trial?.ok_or_else(|| Failure::harness(format!("break a script: {what}")))?;
            eprintln!("{what}: {seen}");
            must(
                seen.broken.iter().any(|(number, _)| number == invariant),
                &format!("name invariant {invariant} where {what}"),
                seen.to_string(),
            )?;
        }
        Ok(())
    })
    .await
}

/// What a stranger may have put into an unpacked backup is refused before anything is touched: links and pipes that lead
/// out of it, names that climb, and giants of holes that would take days to read, also where the manifest agrees with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_archive_is_refused_before_anything_is_touched() -> Outcome {
    const WHOLE: &str = "cd /opt/conduit && rm -rf /opt/whole && restic --no-cache --no-lock --quiet --repo backups/restic \
        --password-file secrets/restic-password restore \"$(scripts/backup.sh latest)\" --target /opt/whole";
    // The manifest's digest is no secret: who changes one can make the other fit.
    const SIGN: &str = "jq --arg digest \"$(jq -cS 'del(.digest)' <changed | sha256sum | cut -c -64)\" '. + {digest: $digest}' changed >manifest.json; rm changed";
    const LOOK: &str = "cd /opt/conduit; find data site.identity backups secrets staging /root/outside -type f ! -name 'LOG*' ! -name LOCK -print0 | \
        sort -z | xargs -0 sha256sum; ls -d data* staging/*";
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let host = &bench.site.host;
        host.shell(WHOLE).await?;
        host.shell("systemctl stop conduit.service; mkdir -p /root/outside; echo untouched >/root/outside/file").await?;
        let untouched = host.try_shell(LOOK).await?.stdout;
        let promise = |name: &str, bytes: &str, total: &str| {
            format!("jq '.files[\"{name}\"] = {{bytes: {bytes}, sha256: (\"0\" * 64)}} | .total_bytes = {total}' manifest.json >changed; {SIGN}")
        };
        let giant = "truncate -s 1T data/giant.sst";
        let hidden_giant = format!("{giant}; {}", promise("data/giant.sst", "1099511627776", "1"));
        for (what, hostile) in [
            ("a link to a file outside", "ln -sfn /root/outside/file data/CURRENT"),
            ("a link to a directory outside", "rm -r site/secrets; ln -s /root/outside site/secrets"),
            ("a pipe among the data", "mkfifo data/000001.sst"),
            ("a pipe as the manifest", "rm manifest.json; mkfifo manifest.json"),
            ("a name that climbs", &promise("../../../root/outside/planted", "1", "1")),
            ("a name from the root", &promise("/root/outside/planted", "1", "1")),
            ("a giant of holes", giant),
            ("a giant of holes that the manifest promises", &hidden_giant),
        ] {
            host.shell(&format!("rm -rf /opt/hostile; cp -a /opt/whole /opt/hostile; cd /opt/hostile; {hostile}")).await?;
            let refused = host
                .try_shell("timeout 60 /opt/conduit/scripts/restore.sh --from /opt/hostile --replace --drain 0")
                .await?;
            let said = format!("{what}: exit {}\n{}{}", refused.exit, refused.stdout, refused.stderr);
            must(
                matches!(refused.exit, 3 | 5) && said.contains("hint:"),
                &format!("refuse {what}, with a reason and a way out"),
                &said,
            )?;
            unchanged(&format!("the site by {what}"), &untouched, &host.try_shell(LOOK).await?.stdout)?;
        }
        host.shell("rm -rf /opt/hostile /opt/whole; systemctl start conduit.service").await?;
        Ok(())
    })
    .await
}

/// A backup that cannot be read back, because there is no room to compare, ends and says so. It once waited for ever for
/// the program that shows its progress, which waited for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_cannot_be_read_back_ends() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let fault = Fault::disk(Script::Backup, "verify", false, 4).ending("5");
        survives(&bench, &fault).await
    })
    .await
}

/// What is asked for cannot work: the script refuses by name and says what to do, Conduit is not even restarted, and data
/// and catalogue stay byte by byte. A lock that a dead process left in the repository is no obstacle.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_before_anything_is_touched() -> Outcome {
    const LOOK: &str = "cd /opt/conduit; systemctl is-active --quiet conduit.service || find data -type f ! -name 'LOG*' ! -name LOCK -print0 | sort -z | xargs -0 sha256sum; \
        sha256sum backups/catalog.jsonl site.identity; ls -d data*; systemctl show -P InvocationID conduit.service";
    const NO_PASSWORD: &str =
        "cp -a secrets/restic-password /root/password; echo wrong >secrets/restic-password";
    const PASSWORD: &str = "cp -a /root/password secrets/restic-password";
    const STOP: &str = "systemctl stop conduit.service; ";
    const FULL: &str =
        "mount -o remount,size=$(($(df --output=used -k /opt | tail -n 1) + 512))k /opt";
    const OLDER: &str = "readlink conduit >/root/link; mkdir /root/older; \
        printf '#!/bin/sh\\necho conduit 0.10.3\\n' >/root/older/conduit; chmod 755 /root/older/conduit; ln -sfn /root/older/conduit conduit";
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let host = &bench.site.host;
        let restore = "restore.sh latest --replace --drain 0";
        let room = format!("mount -o remount,size={DISK}m /opt");
        for (what, stopped, before, command, named, after) in [
            ("a backup with a wrong password", "", NO_PASSWORD, "backup.sh", "wrong password", PASSWORD),
            ("a restore with a wrong password", STOP, NO_PASSWORD, restore, "wrong password", PASSWORD),
            ("a backup without room", "", FULL, "backup.sh", "free", &*room),
            ("a restore without room", STOP, FULL, restore, "free", &*room),
            ("a restore under an older server", STOP, OLDER, restore, "0.10.3", "ln -sfn \"$(cat /root/link)\" conduit"),
            ("a restore of another site", STOP, "true", "restore.sh latest --replace --server-name vale.test", "vale.test", "true"),
            ("a restore over data", STOP, "true", "restore.sh latest", "not empty", "true"),
            ("a restore under a running server", "", "true", restore, "running", "true"),
            ("an undo of nothing", STOP, "true", "restore.sh undo", "no restore is unfinished", "true"),
        ] {
            host.shell(&format!("cd /opt/conduit; {stopped}{before}")).await?;
            let whole = host.shell(LOOK).await?;
            let refused = host.try_shell(&format!("/opt/conduit/scripts/{command}")).await?;
            host.shell(&format!("cd /opt/conduit; {after}")).await?;
            let said = format!("{what}: exit {}\n{}{}", refused.exit, refused.stdout, refused.stderr);
            must(
                refused.exit == 3 && said.contains(named) && said.contains("hint:"),
                &format!("refuse {what} with 3, a reason and a way out"),
                &said,
            )?;
            unchanged(&format!("the site by {what}"), &whole, &host.shell(LOOK).await?)?;
            host.shell("systemctl start conduit.service").await?;
        }
        // `check` locks the repository for itself alone; it is killed while it does.
        host.shell(
            "cd /opt/conduit; restic --no-cache --repo backups/restic --password-file secrets/restic-password check --read-data >/dev/null 2>&1 & \
             check=$!; until [ -n \"$(ls backups/restic/locks)\" ]; do kill -0 $check || exit 1; done; kill -KILL $check; ls backups/restic/locks | grep -q .",
        )
        .await?;
        host.shell("/opt/conduit/scripts/backup.sh").await?;
        let locks = host.shell("ls /opt/conduit/backups/restic/locks").await?;
        must(locks.is_empty(), "leave no lock of a dead process", locks)
    })
    .await
}
