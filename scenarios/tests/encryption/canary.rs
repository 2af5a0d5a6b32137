//! What the operator's machine knows of what is said there.

mod measured;
mod said;

use crate::{Between, Cast, demand, encryption_alone};
use fleet_device::Device;
use harness::docker::Output;
use harness::examine::Cause;
use harness::scan::{Found, Wanted, Within};
use harness::scenario::{Outcome, Stage};
use harness::site::Site;
use harness::{Failure, OrBlame, Result};
use measured::Measured;
use said::{Done, HIDDEN, OPEN, Room};
use std::collections::BTreeMap;

/// A canary in the URLs of requests that fail.
const URL: &str = "address (URL) of a request that failed";
const RECOVERY_KEY: &str = "recovery key";
const OWN_NAME: &str = "name of the site";

/// Waits until the homeserver of a host answers.
const ANSWERS: &str = "n=0; until curl -sf -o /dev/null http://127.0.0.1:6167/_matrix/client/versions; do n=$((n+1)); \
                       [ $n -lt 300 ] || exit 1; sleep 0.1; done";

/// A place, the items that must be found there when they are not encrypted, and that they must not be found when they are.
struct Look {
    place: &'static str,
    /// What must be found there in clear; where there is nothing, the place says why.
    clear: &'static [&'static str],
}

const fn look(place: &'static str, clear: &'static [&'static str]) -> Look {
    Look { place, clear }
}

/// Everything but the content of files: it is in events, or describes them.
const TEXTS: &[&str] = &[
    "text of a message",
    "text of an answer",
    "name of a file",
    "type of a file",
    "name of a room",
    "topic of a room",
    "reaction to a message",
    "reason of a redaction",
];
/// The bytes of files are stored as files, not in the database.
const FILES: &[&str] = &["content of a file"];
/// The proxy passes everything on to the homeserver, and takes its answers, in plain HTTP.
const ALL: &[&str] = &[
    "text of a message",
    "text of an answer",
    "content of a file",
    "name of a file",
    "type of a file",
    "name of a room",
    "topic of a room",
    "reaction to a message",
    "reason of a redaction",
];
/// What goes out is within TLS, and what is backed up is encrypted by restic; logs tell of requests and not of what is in
/// them. That the look into these reaches anything at all is seen by other items: see `sees_what_is_there`.
const NOTHING: &[&str] = &[];

const HOME: &[Look] = &[
    look("database", TEXTS),
    // The write-ahead log is not compressed, the tables are: which of both has it now is RocksDB's affair.
    look("database, as it is", NOTHING),
    look("media", FILES),
    look("journal", NOTHING),
    look("proxy log", NOTHING),
    look("logs, as they are", NOTHING),
    // The process had it in its hands when it was stopped.
    look("core dump", &["text of a message"]),
    look("loopback", ALL),
    look("wire", NOTHING),
];
const BACKUP: &[Look] = &[
    look("backup's database", TEXTS),
    look("backup's media", FILES),
    look("backup, as it is", NOTHING),
];
/// The partner's operator learns the same.
const PARTNER: &[Look] = &[
    look("partner's database", TEXTS),
    look("partner's media", FILES),
    look("partner's journal", NOTHING),
    look("partner's loopback", ALL),
    look("partner's wire", NOTHING),
];

/// F15. alice at home and bob abroad talk in an encrypted room, and then in one that is not; each writes words that nothing
/// else writes, as text, as a file, as the file's name and type. Nothing of the first room is found wherever the operator of
/// either server keeps bytes: in the database, read key by key and value by value, in the media, in the journal and the logs
/// of the proxy, in a core dump of the running server, in the backup, encrypted and decrypted, and in all that the network
/// carried, between proxy and homeserver and between the servers; in no encoding. The words of the second room are found in
/// each of these places where such a thing is kept, so the look is one that finds.
///
/// What encryption does not hide is measured by the same look, and is what `docs/matrix-fleet-comms/encryption.md` says.
/// "End-to-End Encryption", "Sending encrypted attachments".
#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_stands_nowhere_in_clear_and_what_else_the_server_learns_is_documented()
-> Outcome {
    encryption_alone(&[Between::ToSynapse], &[], async |stage, cast| {
        // The servers are killed to get their core dumps.
        stage.on_purpose(Cause::Death);
        let (home, abroad) = (&cast.home.site, &cast.abroad.site);
        tokio::try_join!(may_dump(home), may_dump(abroad))?;
        tokio::try_join!(home.host.capture(), abroad.host.capture())?;
        let mut wanted = Wanted::default();
        let name = wanted.canary("name of a device");
        let (alice, bob) = tokio::try_join!(cast.alices(&name), cast.bobs("phone"))?;
        let shown = wanted.canary("name that a user shows");
        let renamed = alice.sdk().account().set_display_name(Some(&shown)).await;
        fleet_device::sdk(renamed, || format!("{alice} shows a name"))?;
        alice.makes_identity(&cast.alice).await?;
        let key = alice.enables_recovery().await?;
        wanted.literal(RECOVERY_KEY, key.replace(' ', ""));
        wanted.literal(RECOVERY_KEY, key);

        let done = said::live(cast, &alice, &bob, Room::Encrypted, &mut wanted).await?;
        said::live(cast, &alice, &bob, Room::Clear, &mut wanted).await?;
        traces(cast, (&alice, &bob), &done, &mut wanted)?;
        let url = format!("/_matrix/client/v3/{}", wanted.canary(URL));
        demand(
            asks(home, &url).await? == 404,
            "know no such path",
            url.clone(),
        )?;

        tokio::try_join!(dumps(home), dumps(abroad))?;
        let saved = saves(home).await?;
        tokio::try_join!(home.host.captured(), abroad.host.captured())?;
        tokio::try_join!(stops(home), stops(abroad))?;
        // This one the proxy cannot pass on.
        demand(
            asks(home, &url).await? == 502,
            "have the proxy say that the homeserver is away",
            url.clone(),
        )?;

        let (here, there) = (places(home, "", saved), places(abroad, "partner's ", false));
        let (at_home, abroad) = tokio::try_join!(
            home.host.scan(&wanted, &here),
            abroad.host.scan(&wanted, &there),
        )?;
        let found = at_home.into_iter().chain(abroad).collect();
        let backup = if saved { BACKUP } else { &[] };
        let looks: Vec<_> = HOME.iter().chain(backup).chain(PARTNER).collect();
        judge(stage, &looks, &found)?;
        sees_what_is_there(home, &found)?;
        if home.server.is_conduit() {
            Measured::of(&found).is_documented()?;
        }
        Ok(())
    })
    .await
}

/// Nothing that was encrypted is anywhere, and what was not is found where it must be.
fn judge(stage: &Stage, looks: &[&Look], found: &BTreeMap<String, Found>) -> Result<()> {
    let hidden: Vec<_> = HIDDEN
        .iter()
        .map(|item| Room::Encrypted.item(item))
        .chain([RECOVERY_KEY.to_owned()])
        .collect();
    for Look { place, clear } in looks {
        let there = found
            .get(*place)
            .filter(|there| there.bytes > 0)
            .ok_or_else(|| Failure::harness(format!("look through the {place}: it is empty")))?;
        nowhere(place, there, &hidden)?;
        let clear: Vec<_> = clear.iter().map(|item| Room::Clear.item(item)).collect();
        for item in &clear {
            if there.hit(item).is_none() {
                return Err(Failure::harness(format!(
                    "find the {item} in the {place}: such a look proves nothing"
                ))
                .last_seen(format!(
                    "{} bytes in {} pieces: {:?}",
                    there.bytes, there.parts, there.hits
                )));
            }
        }
        if clear.is_empty() {
            let all = HIDDEN
                .iter()
                .chain(&OPEN)
                .map(|item| Room::Clear.item(item));
            let all: Vec<_> = all.collect();
            if *place != "database, as it is" {
                nowhere(place, there, &all)?;
            }
        } else {
            // Taken for encrypted, it is noticed: each by itself, so that none covers for another.
            for item in &clear {
                let leaked = nowhere(place, there, std::slice::from_ref(item));
                stage.must_notice(&format!("{item}, in the {place}"), leaked)?;
            }
        }
    }
    Ok(())
}

fn nowhere(place: &str, there: &Found, items: &[String]) -> Result<()> {
    for item in items {
        if let Some(hit) = there.hit(item) {
            return Err(
                Failure::product(format!("keep the {item} out of the {place}"))
                    .last_seen(format!("written {}, in {}", hit.encoding, hit.within)),
            );
        }
    }
    Ok(())
}

/// Where nothing in clear is to be found, something else shows that the look reaches what is there.
fn sees_what_is_there(home: &Site, found: &BTreeMap<String, Found>) -> Result<()> {
    let mut witnesses = vec![
        // Who is called is said in clear when a connection within TLS is made.
        ("wire", measured::SERVERS),
        ("partner's wire", measured::SERVERS),
        // Of requests the proxy's log tells nothing, not even of those that fail; of certificates it does.
        ("proxy log", OWN_NAME),
    ];
    if home.server.is_conduit() {
        witnesses.push(("journal", URL));
    }
    for (place, item) in witnesses {
        let there = found.get(place);
        if there.and_then(|there| there.hit(item)).is_none() {
            return Err(Failure::harness(format!("find the {item} in the {place}"))
                .last_seen(format!("{there:?}")));
        }
    }
    Ok(())
}

/// What else there is to be learned of the encrypted room.
fn traces(
    cast: &Cast,
    (alice, bob): (&Device, &Device),
    done: &Done,
    wanted: &mut Wanted,
) -> Result<()> {
    let text = |pointer: &str| {
        let value = done.text.pointer(pointer);
        let value = value.ok_or_else(|| {
            Failure::product(format!("carry `{pointer}` with an encrypted message"))
                .last_seen(done.text.to_string())
        })?;
        Ok::<_, Failure>(
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned),
        )
    };
    let id = &done.text_id;
    wanted.literal(measured::MEMBERS, bob.user_id().as_str());
    wanted.literal(measured::ROOM, done.room.as_str());
    wanted.literal(measured::DEVICE, alice.device_id().as_str());
    let when = format!("\"origin_server_ts\":{}", text("/origin_server_ts")?);
    wanted.literal(measured::WHEN, when);
    let ciphertext = text("/content/ciphertext")?;
    wanted.literal(
        measured::CIPHERTEXT,
        ciphertext.get(..64).unwrap_or(&ciphertext),
    );
    wanted.literal(measured::SESSION, text("/content/session_id")?);
    wanted.literal(
        measured::ANSWERED,
        format!("\"m.in_reply_to\":{{\"event_id\":\"{id}\"}}"),
    );
    wanted.literal(measured::READ, format!("\"{id}\":{{\"m.read\""));
    wanted.literal(measured::SIZE, format!("ontent-length: {}", said::SIZE));
    wanted.literal(measured::SIZE, format!("ontent-Length: {}", said::SIZE));
    wanted.literal(measured::TOKEN, alice.token());
    wanted.literal(
        measured::SERVERS,
        format!("matrix.{}", cast.abroad.site.name),
    );
    wanted.literal(OWN_NAME, format!("matrix.{}", cast.home.site.name));
    // Clients come from the world's bridge.
    let host = &cast.home.site.host.address;
    let bridge = host
        .rsplit_once('.')
        .map(|(network, _)| format!("{network}.1"));
    let bridge = bridge.ok_or_else(|| Failure::harness(format!("read the address `{host}`")))?;
    wanted.literal(measured::ADDRESS, format!("X-Forwarded-For: {bridge}\r\n"));
    wanted.literal(measured::ADDRESS, format!("\"remote_ip\":\"{bridge}\""));
    Ok(())
}

async fn asks(site: &Site, path: &str) -> Result<u16> {
    let asked = site.http().get(format!("{}{path}", site.base_url()));
    let answer = asked.send().await;
    let answer = answer.or_blame(harness::Blame::Deployment, || format!("ask for `{path}`"))?;
    Ok(answer.status().as_u16())
}

/// The unit of the homeserver, and where its data is.
fn homeserver(site: &Site) -> (&'static str, &'static str) {
    if site.server.is_conduit() {
        ("conduit", "/opt/conduit/data")
    } else {
        ("synapse", "/opt/synapse-data")
    }
}

/// Lets the homeserver leave a core dump where it may write: the kit's unit lets it write none.
async fn may_dump(site: &Site) -> Result<()> {
    let (unit, data) = homeserver(site);
    site.host
        .shell(&format!(
            "set -eu; mkdir -p /etc/systemd/system/{unit}.service.d; \
             printf '[Service]\\nLimitCORE=infinity\\nWorkingDirectory={data}\\n' > /etc/systemd/system/{unit}.service.d/dump.conf; \
             systemctl daemon-reload; systemctl restart {unit}; {ANSWERS}"
        ))
        .await
        .map(|_| ())
}

/// The homeserver breaks down, leaves a core dump, and comes back.
async fn dumps(site: &Site) -> Result<()> {
    let (unit, data) = homeserver(site);
    let Output { exit, stdout, stderr } = site
        .host
        .try_shell(&format!(
            "set -eu; pid=$(systemctl show --property=MainPID --value {unit}); kill -ABRT $pid; \
             n=0; while [ -e /proc/$pid ]; do n=$((n+1)); [ $n -lt 600 ] || exit 1; sleep 0.1; done; \
             mkdir -p /lab/core; ls -la {data}; mv {data}/core* /lab/core/; systemctl start {unit}; {ANSWERS}"
        ))
        .await?;
    if exit == 0 {
        return Ok(());
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    Err(
        Failure::environment(format!("take a core dump of `{unit}` on `{}`", site.name))
            .last_seen(format!("{stdout}{stderr}"))
            .because(format!(
                "core dumps of this machine are named `{}`",
                pattern.trim()
            ))
            .hint("it must be a name without a directory: `sysctl kernel.core_pattern=core`"),
    )
}

/// Takes a backup by the runbook, and reads it back. There is one of a Conduit only.
async fn saves(site: &Site) -> Result<bool> {
    if !site.server.is_conduit() {
        return Ok(false);
    }
    let snapshot = site.follow("backup.md", &[]).await?.result("SNAPSHOT")?;
    site.host
        .shell(&format!(
            "set -eu; export RESTIC_REPOSITORY=/opt/conduit/backups/restic \
             RESTIC_PASSWORD_FILE=/opt/conduit/secrets/restic-password; \
             restic --quiet restore {snapshot} --target /lab/restored; \
             cp -a $(dirname $(find /lab/restored -name CURRENT)) /lab/saved-database; \
             mv $(find /lab/restored -type d -name media) /lab/saved-media; rm -rf /lab/saved-database/media"
        ))
        .await?;
    Ok(true)
}

/// Stops the homeserver, and copies what it has: a database is not opened where it is.
async fn stops(site: &Site) -> Result<()> {
    let (unit, data) = homeserver(site);
    let media = media(site);
    site.host
        .shell(&format!(
            "set -eu; systemctl stop {unit}; cp -a {data} /lab/database; rm -rf /lab/database/media; cp -a {media} /lab/media"
        ))
        .await
        .map(|_| ())
}

fn media(site: &Site) -> String {
    format!("{}/media", homeserver(site).1)
}

/// Where to look on a host, each place by its name.
fn places(site: &Site, whose: &str, saved: bool) -> Vec<(String, Within)> {
    let (unit, _) = homeserver(site);
    let database = |at: &str| {
        if site.server.is_conduit() {
            Within::RocksDb(at.to_owned())
        } else {
            Within::Sqlite(format!("{at}/homeserver.db"))
        }
    };
    let files = |at: &str| Within::Files(at.to_owned());
    let printed = |unit: &str| {
        Within::Printed(format!(
            "journalctl --no-pager --output=export --unit={unit}.service"
        ))
    };
    let mut places = vec![
        ("database", database("/lab/database")),
        ("database, as it is", files("/lab/database")),
        ("media", files("/lab/media")),
        ("journal", printed(unit)),
        ("proxy log", printed("caddy")),
        ("logs, as they are", files("/var/log")),
        ("core dump", files("/lab/core")),
        ("loopback", Within::Captured("lo")),
        ("wire", Within::Captured("eth0")),
    ];
    if saved {
        places.extend([
            ("backup's database", database("/lab/saved-database")),
            ("backup's media", files("/lab/saved-media")),
            ("backup, as it is", files("/opt/conduit/backups")),
        ]);
    }
    let named = places.into_iter();
    named
        .map(|(name, within)| (format!("{whose}{name}"), within))
        .collect()
}
