//! Backups in an object store: a site whose repository is a bucket of a real S3-compatible server, and what becomes of its
//! backups when that server is overloaded, cuts off, loses what it took, says nothing or is not the right one.

use fleet_store::{Fault, ObjectStore, Trouble};
use harness::authority::zone_for;
use harness::probe::{self, ProbeState};
use harness::rehearse::{Fleet, same};
use harness::scenario::{Outcome, Stage, scenario};
use harness::shared::{Settled, Shared, inside};
use harness::site::Site;
use harness::{Failure, OrBlame, Result, paths};
use ruma::OwnedRoomId;
use scenarios::{HOME, bootstrapped, must, room, unchanged};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// One site for all of these claims, used by one at a time.
static BENCH: Shared<Mutex<Bench>> = Shared::new();

struct Bench {
    site: Site,
    store: ObjectStore,
    fleet: Fleet,
    room: OwnedRoomId,
}

/// The bucket that the site keeps its backups in.
const BUCKET: &str = "fleet";

async fn bench(stage: &Stage) -> Result<Arc<Settled<Mutex<Bench>>>> {
    let conduit = stage.conduit().await?;
    inside(BENCH.get(async |world| {
        let store = ObjectStore::open(world).await?;
        let site = bootstrapped(world, &conduit).await?;
        let fleet = Fleet::settle(&site).await?;
        let room = room(&fleet.clients[0], "fleet-intel", HOME).await?;
        let host = &site.host;
        host.write("/root/store-key", "600", ObjectStore::SECRET.as_bytes())
            .await?;
        let given = [
            ("STORE", &*store.repository(BUCKET)),
            ("KEY_ID", ObjectStore::KEY_ID),
        ];
        site.follow("object-store.md", &given).await?;
        Ok(Mutex::new(Bench {
            site,
            store,
            fleet,
            room,
        }))
    }))
    .await
}

/// How long a store may move nothing, in seconds, where it is to be seen that it does not. Minutes are right for a real one.
const PATIENCE: u32 = 6;
/// What a request to the store may take until it is there.
const SOON: Duration = Duration::from_secs(120);

/// Rows *Backup* and *Restore* of operations.md: the site's data is lost and comes back from the bucket; then the machine is
/// lost, and a new one that has nothing but the kit, `backup.env` and the password becomes the site. Even its programs come
/// from the store. Each time everybody finds what was there before.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_comes_back_from_an_object_store_on_its_own_machine_and_on_a_new_one() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let (world, bench) = (&bench.world, bench.lock().await);
        let Bench { site, fleet, .. } = &*bench;
        inside(async {
            let before = fleet.fingerprint(site).await?;
            site.host.shell(BACKUP).await?;
            let snapshot = site.host.shell(&format!("{BACKUP} latest")).await?;
            site.lose_data().await?;
            let given = |snapshot, existing| {
                [("SNAPSHOT", snapshot), ("EXISTING_DATA", existing), ("DRAIN", "0")]
            };
            site.follow("restore.md", &given(&*snapshot, "--refuse")).await?;
            same("the site", &before, &fleet.fingerprint(site).await?)?;

            site.host.shell("systemctl stop conduit.service caddy.service").await?;
            let host = world.host(HOME).await?;
            for (from, to) in [
                ("backup.env", "/root/backup.env"),
                ("secrets/restic-password", "/root/restic-password"),
            ] {
                let content = site.host.shell(&format!("cat /opt/conduit/{from}")).await?;
                host.write(to, "600", format!("{content}\n").as_bytes()).await?;
            }
            host.shell(&format!("set -euo pipefail\n{}", programs_from_the_store()?)).await?;
            let new = world.install(host).await?;
            new.host
                .shell("mv /root/backup.env /opt/conduit/; mkdir -p -m 700 /opt/conduit/secrets; mv /root/restic-password /opt/conduit/secrets/")
                .await?;
            new.follow("restore.md", &given("latest", "--replace")).await?;
            same("the site on a new machine", &before, &fleet.moved_to(&new).fingerprint(&new).await?)?;

            new.host.shell("systemctl stop conduit.service caddy.service").await?;
            world.publish([(HOME.to_owned(), zone_for(HOME, &site.host.address)?)]).await?;
            site.host.shell("systemctl start conduit.service caddy.service").await.map(|_| ())
        })
        .await
    })
    .await
}

/// The lines of `restore.md` that make the bundle out of a backup.
fn programs_from_the_store() -> Result<String> {
    let path = paths::runbooks().join("restore.md");
    let text =
        std::fs::read_to_string(&path).or_harness(|| format!("read `{}`", path.display()))?;
    text.split("```text\n")
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block.to_owned())
        .find(|block| block.contains("restic"))
        .ok_or_else(|| {
            Failure::deployment("say in `restore.md` how the programs are taken from the store")
        })
}

/// What goes wrong while a backup is stored, and what the backup says of it.
struct Upload {
    what: &'static str,
    fault: fn() -> Fault,
    exit: i64,
    says: &'static str,
}

/// What everybody must find after a backup that could not be stored.
async fn is_refused(bench: &Bench, upload: &Upload) -> Result<()> {
    let Upload {
        what,
        fault,
        exit,
        says,
    } = upload;
    let (host, client) = (&bench.site.host, &bench.fleet.clients[0]);
    // Something that the store does not have yet.
    client.say(&bench.room, what).await?;
    let listed = host.shell("cat /opt/conduit/backups/catalog.jsonl").await?;
    bench.store.breaks(fault());
    let ended = AtomicBool::new(false);
    let backup = async {
        let said = host.try_shell(BACKUP).await;
        ended.store(true, Ordering::Relaxed);
        said
    };
    let meanwhile = async {
        has_struck(bench, &ended).await?;
        client.say(&bench.room, "is anybody there?").await?;
        Ok::<_, Failure>(())
    };
    let (said, heard) = tokio::join!(backup, meanwhile);
    bench.store.heals();
    let said = said?;
    let told = format!("exit {}\n{}{}", said.exit, said.stdout, said.stderr);
    eprintln!("a store that {what}: {told}");
    heard?;
    must(
        said.exit == *exit && told.contains(says) && told.contains("hint:"),
        &format!("say clearly that a backup failed into a store that {what}"),
        &told,
    )?;
    let after = host.shell("cat /opt/conduit/backups/catalog.jsonl").await?;
    unchanged("the catalogue", &listed, &after)?;
    host.shell("test -z \"$(ls -A /opt/conduit/staging)\"")
        .await
        .map(|_| ())
}

const BACKUP: &str = "/opt/conduit/scripts/backup.sh";
const VERIFY_LATEST: &str =
    "/opt/conduit/scripts/backup.sh verify \"$(/opt/conduit/scripts/backup.sh latest)\"";

/// Issue 7, "upload errors and truncation at the object store": each time the store fails while a backup is on its way, alice
/// speaks on as if nothing were, the backup says what went wrong and what to do, and the catalogue lists nothing new; with the
/// store well again the same command succeeds, and what it lists is whole. A store that silently keeps half of what it took
/// is found out by reading back; a kit that does not read back lists the half, and the check sees that.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_during_an_upload_is_named_and_nothing_half_is_listed() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        inside(async {
            let Bench {
                site,
                store,
                fleet,
                room,
            } = &*bench;
            let host = &site.host;
            host.shell(&format!(
                "echo STORE_PATIENCE={PATIENCE} >>/opt/conduit/backup.env"
            ))
            .await?;
            let all = std::env::var("FLEET_STORE").is_ok_and(|which| which == "all");
            let drawn = stage.world.seed() as usize % UPLOADS.len();
            for (number, upload) in UPLOADS.iter().enumerate() {
                if number != drawn && !all {
                    continue;
                }
                is_refused(&bench, upload).await?;
                host.shell(BACKUP).await?;
            }
            fleet.clients[0].say(room, "once only").await?;
            store.breaks(Fault::of_puts(Trouble::CutsShort, "/data/").once_after(0));
            let tried = host.shell(BACKUP).await;
            let struck = store.heals();
            must(
                tried.is_ok() && struck == 1,
                "get over one upload that is cut short",
                format!("{tried:?}"),
            )?;
            host.shell(VERIFY_LATEST).await?;

            host.shell(&format!("cd /opt/conduit; {CARELESS}")).await?;
            let listed = is_refused(&bench, &LOSES_HALF).await;
            let ruin = host.try_shell(VERIFY_LATEST).await?;
            host.shell(&format!("cd /opt/conduit; {CAREFUL}")).await?;
            host.shell("sed -i /^STORE_PATIENCE=/d /opt/conduit/backup.env")
                .await?;
            must(
                ruin.exit == 5,
                "find the ruin when it is asked to verify it",
                ruin.stdout + &ruin.stderr,
            )?;
            stage.must_notice("a kit that does not read back", listed)?;
            // It removes the ruin, which a machine without the catalogue would take for the newest backup.
            host.shell(BACKUP).await?;
            Ok(())
        })
        .await
    })
    .await
}

/// One of them is drawn in each run; `FLEET_STORE=all` puts all.
const UPLOADS: [Upload; 3] = [
    Upload {
        what: "is overloaded",
        fault: || Fault::of_puts(Trouble::UNAVAILABLE, "/data/"),
        exit: 1,
        says: "could not store the backup",
    },
    Upload {
        what: "never answers",
        fault: || Fault::of_puts(Trouble::NeverAnswers, "/data/"),
        exit: 1,
        says: "gave up",
    },
    LOSES_HALF,
];

const LOSES_HALF: Upload = Upload {
    what: "keeps half of what was put",
    fault: || Fault::of_puts(Trouble::KeepsHalf, "/data/"),
    exit: 5,
    says: "was not catalogued",
};

/// A script that reads nothing back.
const CARELESS: &str = "cp -a scripts/backup.sh /root/careful.sh; cp -a backups/catalog.jsonl /root/; \
    sed -i '/^  verify \"$SNAPSHOT\"/d' scripts/backup.sh; ! cmp -s scripts/backup.sh /root/careful.sh";
/// The script as it was; the ruin is forgotten as a run that failed would have it forgotten.
const CAREFUL: &str = "printf 'snapshot %s\\n' \"$(scripts/backup.sh latest)\" >backups/forget.pending; \
    cp -a /root/careful.sh scripts/backup.sh; cp -a /root/catalog.jsonl backups/";

/// Issue 7, "bad input": the store cannot be used, and that is found out before Conduit is stopped. The message says why and
/// what to do, nothing is listed, and the next backup, when all is well again, succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_used_is_refused_before_conduit_is_stopped() -> Outcome {
    const ENV: &str = "/opt/conduit/backup.env";
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let host = &bench.site.host;
        inside(async {
            host.shell(&format!("cp -a {ENV} /root/whole.env")).await?;
            host.shell(&format!("{SETTINGS}{OF_ANOTHER_SITE}")).await?;
            for (what, harm, exit, says) in [
                (
                    "wrong credentials",
                    "sed -i s/ACCESS_KEY=.*/ACCESS_KEY=wrong/",
                    3,
                    "signature",
                ),
                (
                    "an address where nobody answers",
                    "sed -i s/:9000/:9001/",
                    3,
                    "connection refused",
                ),
                (
                    "settings that others can read",
                    "chmod 644",
                    3,
                    "can be read by others",
                ),
                (
                    "a repository of another site",
                    "sed -i s,/fleet$,/vale,",
                    3,
                    "holds backups of `vale.test`",
                ),
            ] {
                host.shell(&format!("{harm} {ENV}")).await?;
                let refused = is_untouched(&bench, what, exit, says).await;
                host.shell(&format!("cp -a /root/whole.env {ENV}")).await?;
                refused?;
            }
            // Killed once Conduit is stopped: that it goes so far is what is to be seen.
            host.shell(&format!(
                "cd /opt/conduit/scripts; cp -a backup.sh /root/careful.sh; sed -i '/^  check_repository$/d' backup.sh; \
                 ! cmp -s backup.sh /root/careful.sh; echo delta >/run/conduit-backup.failpoint; sed -i s,/fleet$,/vale, {ENV}"
            ))
            .await?;
            let careless = is_untouched(&bench, "a repository of another site", 3, "holds backups").await;
            host.shell(&format!(
                "cp -a /root/careful.sh {BACKUP}; cp -a /root/whole.env {ENV}; rm /run/conduit-backup.failpoint"
            ))
            .await?;
            stage.must_notice("a kit that does not look whose repository it is", careless)?;

            host.shell(&format!("echo STORE_PATIENCE={PATIENCE} >>{ENV}"))
                .await?;
            for (what, fault, says) in [
                (
                    "a store that answers a byte in a second",
                    Fault::of(Trouble::Trickles),
                    "gave up",
                ),
                (
                    "credentials that may not write",
                    Fault::of_puts(Trouble::FORBIDDEN, "/locks/"),
                    "AccessDenied",
                ),
            ] {
                bench.store.breaks(fault);
                let refused = is_untouched(&bench, what, 3, says).await;
                bench.store.heals();
                refused?;
            }
            host.shell(&format!("cp -a /root/whole.env {ENV}")).await?;
            dies_with_a_lock(
                &bench,
                "unshare --uts sh -c 'hostname elsewhere; exec restic check'",
            )
            .await?;
            is_untouched(
                &bench,
                "a store that another machine locked",
                75,
                "is already locked",
            )
            .await?;
            host.shell("/opt/conduit/scripts/backup.sh unlock").await?;
            // One of this machine's own is no obstacle.
            dies_with_a_lock(&bench, "restic check").await?;
            host.shell(BACKUP).await.map(|_| ())
        })
        .await
    })
    .await
}

/// The settings of the site for restic, in a shell.
const SETTINGS: &str = "set -euo pipefail; set -a; . /opt/conduit/backup.env; set +a; \
    export RESTIC_PASSWORD_FILE=/opt/conduit/secrets/restic-password; ";

const OF_ANOTHER_SITE: &str = "RESTIC_REPOSITORY=${RESTIC_REPOSITORY%/*}/vale; restic init --quiet; \
    echo vale | restic backup --quiet --stdin --host vale.test --tag conduit";

/// `check` locks the repository for itself alone; it is killed while it waits for the store.
async fn dies_with_a_lock(bench: &Bench, check: &str) -> Result<()> {
    let host = &bench.site.host;
    bench
        .store
        .breaks(Fault::of_gets(Trouble::NeverAnswers, "/data/"));
    host.shell(&format!(
        "{SETTINGS} {check} >/dev/null 2>&1 & echo $! >/root/check.pid"
    ))
    .await?;
    let stuck = has_struck(bench, &AtomicBool::new(false)).await;
    host.shell("kill -KILL $(cat /root/check.pid)").await?;
    bench.store.heals();
    stuck?;
    let locks = std::fs::read_dir(bench.store.bucket(BUCKET).join("locks"))
        .or_harness(|| "see a lock".to_owned())?;
    match locks.count() {
        0 => Err(Failure::harness(
            "leave a lock of a dead process in the store",
        )),
        _ => Ok(()),
    }
}

/// Waits until the fault has struck a request of something that has not ended.
async fn has_struck(bench: &Bench, ended: &AtomicBool) -> Result<()> {
    let struck = async || match (bench.store.struck(), ended.load(Ordering::Relaxed)) {
        (1.., _) => ProbeState::Ready(()),
        (0, true) => ProbeState::Failed("what should have been struck has ended".to_owned()),
        (0, false) => ProbeState::NotYet("no request was struck".to_owned()),
    };
    probe::until("the store fails", SOON, struck)
        .await
        .or_harness(|| "have the store fail".to_owned())
}

/// A backup that is refused: what it says, and that nothing happened to the site.
async fn is_untouched(bench: &Bench, what: &str, exit: i64, says: &str) -> Result<()> {
    const LOOK: &str =
        "cat /opt/conduit/backups/catalog.jsonl; systemctl show -P InvocationID conduit.service";
    let host = &bench.site.host;
    let before = host.shell(LOOK).await?;
    let said = host.try_shell(BACKUP).await?;
    let told = format!("exit {}\n{}{}", said.exit, said.stdout, said.stderr);
    eprintln!("{what}: {told}");
    must(
        said.exit == exit && told.contains(says) && told.contains("hint:"),
        &format!("refuse {what} with {exit}, a reason and a way out"),
        &told,
    )?;
    unchanged(
        &format!("the site by {what}"),
        &before,
        &host.shell(LOOK).await?,
    )
}

/// A snapshot, unpacked on the host without any script of the kit.
const SNAPSHOT: &str = "/root/snapshot";

async fn unpacked(bench: &Bench) -> Result<()> {
    let unpack = format!(
        "{SETTINGS} test -d {SNAPSHOT} || restic restore --no-lock --quiet \"$({BACKUP} latest)\" --target {SNAPSHOT}"
    );
    bench.site.host.shell(&unpack).await.map(|_| ())
}

/// Row *Backup, manifest* of operations.md: it names every file with size and hash, the server and its key; all of it is
/// compared here with what is there, by other means than the kit's. Then every field is changed or taken away in turn, a file's
/// too, and the kit says each time that the snapshot is damaged. A kit that does not look at the digest is seen to miss some.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_names_everything_and_no_field_of_it_changes_unnoticed() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let host = &bench.site.host;
        inside(async {
            unpacked(&bench).await?;
            let promised = host.shell(&format!("cd {SNAPSHOT}; {PROMISED}")).await?;
            unchanged("what the manifest promises", &promised, &host.shell(&format!("cd {SNAPSHOT}; {FOUND}")).await?)?;

            let whole = "/opt/conduit/scripts/archive.sh";
            let looked = host.shell(&tampered(whole, FIELDS)).await?;
            let (fields, missed) = looked.split_once('\n').unwrap_or((&looked, ""));
            must(
                fields.parse::<u32>().is_ok_and(|fields| fields > 40) && missed.is_empty(),
                "notice every change of a manifest",
                &looked,
            )?;
            host.shell(&format!("sed '/jq -r .digest/s/|| \\[\\[.*$/|| true \\\\/' {whole} >/root/careless.sh; ! cmp -s {whole} /root/careless.sh")).await?;
            let careless = host.shell(&tampered("/root/careless.sh", r#"["created"]"#)).await?;
            stage.must_notice(
                "a kit that does not look at the digest",
                must(!careless.contains("[\"created\"]"), "notice every change of a manifest", careless),
            )
        })
        .await
    })
    .await
}

const PROMISED: &str = r#"jq -r '.files | to_entries[] | "\(.value.sha256) \(.value.bytes) \(.key)"' manifest.json | LC_ALL=C sort; \
    jq -r '.conduit.version, .conduit.sha256, .server_name, .key_id, .public_key' manifest.json"#;
const FOUND: &str = r#"find . -type f ! -path ./manifest.json -printf '%P\n' | while read -r file; do
        echo "$(sha256sum <"$file" | cut -c -64) $(stat -c %s "$file") $file"; done | LC_ALL=C sort; \
    /opt/conduit/conduit --version | cut -d ' ' -f 2; sha256sum </opt/conduit/conduit | cut -c -64; \
    curl -sf http://127.0.0.1:6167/_matrix/key/v2/server | jq -r '.server_name, (.verify_keys | to_entries[0] | .key, .value.key)'"#;

/// Every field of a manifest, and three files of it, as paths in jq.
const FIELDS: &str = r#"(paths(scalars) | select(.[0] != "files")), ["damaged_media"], ["conduit"], ["files"],
    (.files | keys | .[0], .[length / 2 | floor], .[-1] | ["files", .], ["files", ., "bytes"], ["files", ., "sha256"])"#;

/// A script that prints how many changes it made to the manifest, one after the other, and each that this `archive.sh` misses.
fn tampered(archive: &str, fields: &str) -> String {
    format!(
        r#"set -u; cd {SNAPSHOT}; . /opt/conduit/scripts/common.sh; . {archive}
        cp manifest.json /root/manifest.json; n=0; missed=
        look() {{ n=$((n + 1)); if (check_snapshot_tree {SNAPSHOT}) >/dev/null 2>&1; then missed+="$*"$'\n'; fi; }}
        while read -r path; do
          for change in 'setpath($p; getpath($p) | if type == "number" then . + 1 elif type == "array" then . + ["x"] else tostring + "0" end)' 'delpaths([$p])'; do
            jq --argjson p "$path" "$change" /root/manifest.json >manifest.json
            look "$path" "$change"
          done
        done < <(jq -c '{fields}' manifest.json)
        for change in '.format = 1' '.files["data/more"] = {{bytes: 0, sha256: "0"}}' '.more = 1'; do
          jq "$change" /root/manifest.json >manifest.json
          look "$change"
        done
        cp /root/manifest.json manifest.json; echo "$n"; printf %s "$missed""#
    )
}

/// Whatever installation and bootstrap made on the host is in the snapshot, byte for byte: configuration, units, proxy,
/// certificates, secrets, programs. That is looked for by its content, among all files that are newer than the machine;
/// left out is what every machine makes by itself. A file that came after the backup is found missing.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_new_machine_needs_is_in_the_snapshot() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let bench = bench.lock().await;
        let host = &bench.site.host;
        inside(async {
            unpacked(&bench).await?;
            let missing = host.shell(&lacking()).await?;
            must(
                missing.is_empty(),
                "have everything in the snapshot",
                missing,
            )?;
            for part in [
                "conduit.toml",
                "conduit.service",
                "Caddyfile",
                ".crt",
                ".key",
                "/conduit",
                "fleet-bootstrap",
                "admin.password",
            ] {
                let found = host.shell(&format!("{MADE} | grep -c -F '{part}'")).await;
                must(
                    found.is_ok(),
                    &format!("look for `{part}`"),
                    "it was not made",
                )?;
            }
            host.shell("echo '# another site' >/etc/caddy/conf.d/other.caddy")
                .await?;
            let missing = host.shell(&lacking()).await?;
            host.shell("rm /etc/caddy/conf.d/other.caddy").await?;
            stage.must_notice(
                "a file that the snapshot does not have",
                must(
                    missing.is_empty(),
                    "have everything in the snapshot",
                    missing,
                ),
            )
        })
        .await
    })
    .await
}

/// What was made since the machine booted, but logs, caches, the backups themselves, what their reader must bring, the
/// machine's own accounts and identity, and what the installer and Caddy note for themselves.
const MADE: &str = r"find / /opt -xdev -type f -size +0 -cnewer /etc/lab-names -regextype posix-extended ! -regex \
    '/(proc|sys|run|tmp|root|var/log|var/cache|var/lib/(systemd|dpkg)|opt/conduit/(data|backups|staging))/.*' ! -regex \
    '/etc/(passwd|group|shadow|gshadow)-?|/etc/(machine-id|resolv.conf|hosts|hostname|.pwd.lock)|/opt/conduit/(backup.env|install.state|secrets/restic-password)|.*/autosave.json'";

/// Those of it that the snapshot does not have.
fn lacking() -> String {
    format!(
        "{MADE} | while read -r file; do \
         grep -q \"$(sha256sum <\"$file\" | cut -c -64)\" {SNAPSHOT}/manifest.json || echo \"$file\"; done"
    )
}
