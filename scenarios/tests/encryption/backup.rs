//! Room keys on the server, for who has the recovery key.

use crate::{Between, Cast, demand, encryption, encryption_alone, encryption_between};
use fleet_device::matrix_sdk::encryption::backups::BackupState;
use fleet_device::matrix_sdk::encryption::recovery::RecoveryError;
use fleet_device::matrix_sdk_crypto::secret_storage::SecretStorageKey;
use fleet_device::{Device, Mutant, Shown, Way, sdk};
use harness::client::Client;
use harness::known::encryption::{
    BACKUP_ETAG_STAYS, BACKUP_KEEPS_THE_NEWEST, BACKUP_NEWEST_BY_LETTERS, BACKUP_OF_NOBODY,
    BACKUP_TAKES_ANY_CHANGE, BACKUP_WRONG_VERSION,
};
use harness::scenario::Outcome;
use harness::{Failure, Result};
use reqwest::Method;
use ruma::{OwnedEventId, OwnedRoomId};
use scenarios::encoded;
use serde_json::{Value, json};

/// F11. alice's phone makes a backup of the keys of two rooms. Later she has a new device and nothing but the recovery key:
/// without it the device reads nothing of what was said before its time; with it, everything, her own words and bob's.
/// "Server-side key backups", "Recovery key".
#[tokio::test(flavor = "multi_thread")]
async fn a_new_device_with_the_recovery_key_reads_what_was_said_before_its_time() -> Outcome {
    let noticed = [Mutant::LosesABackedUpSession];
    encryption(&noticed, async |_, cast| {
        let past = Past::of(cast, &cast.home_way).await?;
        let new = cast.alices("new phone").await?;
        past.is_read(&new, false).await?;
        new.recovers(&past.key).await?;
        past.is_read(&new, true).await
    })
    .await
}

/// F11. A wrong recovery key, be it nonsense or the key of something else, is refused by the client with an error that says
/// so: nothing is written to the server, no key comes into the store, and the right key works afterwards. "Secrets".
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_recovery_key_is_refused_and_changes_nothing() -> Outcome {
    let noticed = [Mutant::LosesABackedUpSession];
    encryption_between(
        &[Between::Neighbours, Between::FromSynapse],
        &noticed,
        async |_, cast| {
            let past = Past::of(cast, &cast.home_way).await?;
            let gate = cast.gate(&cast.home).await?;
            let new = Device::login(&gate.way()?, &cast.alice, "new phone").await?;
            past.is_read(&new, false).await?;
            let version = "/_matrix/client/v3/room_keys/version";
            let before = new.asks(version).await?;
            gate.forget();
            // The key of nobody, the right one with a slip and without its end, and no key at all.
            let nobodys = SecretStorageKey::new().to_base58();
            let mut slip = past.key.clone();
            let other = if slip[10..].starts_with('z') {
                "y"
            } else {
                "z"
            };
            slip.replace_range(10..11, other);
            let short = &past.key[..past.key.len() - 5];
            for (key, says) in [
                (&*nobodys, "Mac("),
                (&slip, "SecretStorageKey("),
                (short, "SecretStorageKey("),
                ("open sesame", "SecretStorageKey("),
                ("", "SecretStorageKey("),
            ] {
                let outcome = new.sdk().encryption().recovery().recover(key).await;
                let said = format!("{outcome:?}");
                demand(
                    outcome.is_err() && said.contains(says),
                    &format!("refuse the recovery key `{key}`"),
                    said,
                )?;
            }
            let mut writes = gate.passed();
            writes.retain(|passed| passed.question.method != Method::GET);
            demand(
                writes.is_empty() && before == new.asks(version).await?,
                "write nothing to the server with a wrong recovery key",
                format!("{writes:?}"),
            )?;
            past.is_read(&new, false).await?;
            new.recovers(&past.key).await?;
            past.is_read(&new, true).await
        },
    )
    .await
}

/// F11. Somebody makes another version of alice's backup, with a key that she does not have. Her phone's keys for the old version
/// are refused and do not come into the new one; a new device that recovers with her key is told that it does not belong to
/// the backup, and reads nothing from it. Once that version is gone, her own is in force again.
/// "Server-side key backups", "Backup algorithm".
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_another_version_is_refused() -> Outcome {
    let homes = [Between::Neighbours, Between::FromSynapse];
    encryption_between(&homes, &[Mutant::ConfusesBackups], async |_, cast| {
        keeps_its_digits(cast).await?;
        let past = Past::of(cast, &cast.home_way).await?;
        let bare = past.phone.bare();
        let shelf = Shelf(&bare);
        let own = shelf.current().await?;
        let count = shelf.count(&own).await?;
        let foreign = shelf
            .create("tGBOtpFjJCYbvtyVJCFOdFbgQZPrtqE0gXLmzvf4CFU")
            .await?;
        demand(
            shelf.keys(&foreign).await? == json!({}) && shelf.keys(&own).await? != json!({}),
            "keep the keys of two versions apart",
            format!("{} in the new one", shelf.keys(&foreign).await?),
        )?;
        let (room, _, _) = &past.said[0];
        let fresh = cast.garden(&past.phone, &past.bob).await?;
        past.phone.say(&fresh, "for the old backup").await?;
        let refused = past.phone.has_backed_up().await;
        demand(
            shelf.count(&foreign).await? == 0 && shelf.count(&own).await? == count,
            "take no keys for a version that is not the current one",
            format!("{refused:?}"),
        )?;
        let new = cast.alices("new phone").await?;
        let outcome = new.sdk().encryption().recovery().recover(&past.key).await;
        let said = format!("{outcome:?}");
        demand(
            matches!(outcome, Err(RecoveryError::SecretStorage(_)))
                && said.contains("InconsistentBackupDecryptionKey"),
            "refuse a backup that the recovery key does not belong to",
            said,
        )?;
        let state = new.sdk().encryption().backups().state();
        demand(
            state != BackupState::Enabled,
            "not use a backup that the recovery key does not belong to",
            format!("{state:?}"),
        )?;
        let download = new.sdk().encryption().backups();
        sdk(download.download_room_keys_for_room(room).await, || {
            "look for keys".to_owned()
        })?;
        past.is_read(&new, false).await?;
        shelf.delete(&foreign).await?;
        new.recovers(&past.key).await?;
        past.is_read(&new, true).await
    })
    .await
}

/// F11. What a backup promises, asked by hand: a new version is the current one and begins empty; keys go to the current version
/// only; of two copies of a key the better one is kept; keys of each version are told apart; what is deleted is gone, and
/// the etag tells of every change; a version that is not there is not there; and nobody sees another's.
/// "Server-side key backups", "API endpoints".
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_keeps_to_its_rules() -> Outcome {
    let homes = [Between::Neighbours, Between::FromSynapse];
    let noticed = [Mutant::ConfusesBackups, Mutant::LosesABackedUpSession];
    encryption_between(&homes, &noticed, async |_, cast| {
        keeps_its_digits(cast).await?;
        let alice = cast.home_way.bare(&cast.alice).await?;
        let shelf = Shelf(&alice);
        let first = shelf.create("first").await?;
        demand(
            shelf.current().await? == first && shelf.keys(&first).await? == json!({}),
            "begin a backup empty",
            shelf.keys(&first).await?.to_string(),
        )?;
        let empty = shelf.etag(&first).await?;
        shelf
            .put(&first, ROSES, "A", &key(5, 0, false))
            .await?
            .must()?;
        shelf
            .put(&first, ROSES, "B", &key(5, 0, false))
            .await?
            .must()?;
        shelf
            .put(&first, TULIPS, "C", &key(5, 0, false))
            .await?
            .must()?;
        let three = shelf.keys(&first).await?;
        demand(
            three[ROSES]["sessions"]["A"] == key(5, 0, false)
                && three[ROSES]["sessions"]["B"] == key(5, 0, false)
                && three[TULIPS]["sessions"]["C"] == key(5, 0, false)
                && shelf.count(&first).await? == 3
                && shelf.etag(&first).await? != empty,
            "keep three keys, count them and change the etag",
            three.to_string(),
        )?;
        better(cast, &shelf, &first).await?;
        let second = shelf.create("second").await?;
        shelf
            .put(&second, ROSES, "D", &key(1, 0, false))
            .await?
            .must()?;
        let (old, new) = (shelf.keys(&first).await?, shelf.keys(&second).await?);
        demand(
            new[ROSES]["sessions"] == json!({"D": key(1, 0, false)})
                && old[ROSES]["sessions"].get("D").is_none()
                && old[TULIPS]["sessions"].get("C").is_some(),
            "tell the keys of two versions apart",
            format!("{old} and {new}"),
        )?;
        cast.known(
            &cast.home,
            &BACKUP_WRONG_VERSION,
            stale(&shelf, &first).await,
        )?;
        cast.known(
            &cast.home,
            &BACKUP_TAKES_ANY_CHANGE,
            fixed(&shelf, &second).await,
        )?;
        forgets(cast, &shelf, &second).await?;
        shelf.delete(&second).await?;
        demand(
            shelf.current().await? == first,
            "fall back to the older version when the current one is deleted",
            shelf.current().await?,
        )?;
        cast.known(&cast.home, &BACKUP_OF_NOBODY, absent(&shelf, &second).await)?;
        let stranger = cast.abroad_way.bare(&cast.bob).await?;
        if cast.between == Between::Neighbours {
            let path = format!("{KEYS}?version={first}");
            let seen = stranger.try_raw(Method::GET, &path, None).await?;
            let told = seen
                .outcome
                .as_ref()
                .map(Value::to_string)
                .unwrap_or_default();
            demand(
                !told.contains("sessions"),
                "show nobody another's backup",
                told,
            )?;
        }
        Ok(())
    })
    .await
}

/// F11. However many versions of a backup there were, the current one is that which was made last.
/// "GET /_matrix/client/v3/room_keys/version".
#[tokio::test(flavor = "multi_thread")]
async fn the_current_backup_is_the_one_that_was_made_last() -> Outcome {
    encryption_alone(&[Between::Neighbours], &[], async |_, cast| {
        let alice = cast.home_way.bare(&cast.alice).await?;
        let shelf = Shelf(&alice);
        let first = shelf.create("first").await?;
        let mut last = first.clone();
        // Until the numbers have a digit more; where versions are not counted by all users together, eleven do.
        while last.len() == first.len() {
            last = shelf.create("next").await?;
        }
        let outcome = async {
            let current = shelf.current().await?;
            demand(
                current == last,
                "take the version made last for the current one",
                format!("made {last} last, and was told {current}"),
            )?;
            shelf
                .put(&last, ROSES, "A", &key(1, 0, false))
                .await?
                .must()?;
            Ok(())
        };
        cast.known(&cast.home, &BACKUP_NEWEST_BY_LETTERS, outcome.await)
    })
    .await
}

/// Has a Conduit whose versions are about to have a digit more get over it, for it takes the older ones for newer ones then: see
/// [`BACKUP_NEWEST_BY_LETTERS`].
async fn keeps_its_digits(cast: &Cast) -> Result<()> {
    const AHEAD: u64 = 300;
    if !cast.home.site.server.is_conduit() {
        return Ok(());
    }
    let somebody = cast.home.account("somebody").await?;
    let somebody = cast.home_way.bare(&somebody).await?;
    loop {
        let version = Shelf(&somebody).create("counts").await?;
        let ahead = version.parse::<u64>().map(|count| count + AHEAD);
        if ahead.is_ok_and(|ahead| ahead.to_string().len() == version.len()) {
            return Ok(());
        }
    }
}

const VERSION: &str = "/_matrix/client/v3/room_keys/version";
const KEYS: &str = "/_matrix/client/v3/room_keys/keys";
const ROSES: &str = "!roses:example.org";
const TULIPS: &str = "!tulips:example.org";

/// A key that reads a conversation from some message on.
fn key(from: u32, forwarded: u32, verified: bool) -> Value {
    json!({
        "first_message_index": from,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ciphertext": format!("{from}-{forwarded}"), "ephemeral": "e", "mac": "m"},
    })
}

/// Of two copies of a key the better one is kept, in whatever order they come.
async fn better(cast: &Cast, shelf: &Shelf<'_>, version: &str) -> Result<()> {
    let best = key(2, 0, true);
    shelf.put(version, ROSES, "A", &best).await?.must()?;
    let now = shelf.keys(version).await?;
    demand(
        now[ROSES]["sessions"]["A"] == best,
        "take a better copy of a key",
        now.to_string(),
    )?;
    let mut worse = Vec::new();
    for copy in [key(9, 0, true), key(2, 3, true), key(9, 0, false)] {
        shelf.put(version, ROSES, "A", &copy).await?.must()?;
        let now = shelf.keys(version).await?;
        if now[ROSES]["sessions"]["A"] != best {
            worse.push(copy);
        }
    }
    let outcome = demand(
        worse.is_empty(),
        "keep the better one of two copies of a key",
        format!("replaced by {worse:?}"),
    );
    cast.known(&cast.home, &BACKUP_KEEPS_THE_NEWEST, outcome)
}

/// Keys for another version than the current one are refused, and the client is told that there is one.
async fn stale(shelf: &Shelf<'_>, old: &str) -> Result<()> {
    let before = shelf.keys(old).await?;
    let answer = shelf.put(old, ROSES, "E", &key(1, 0, false)).await?;
    let refusal = answer.must_be_refused(403, "M_WRONG_ROOM_KEYS_VERSION");
    let unchanged = before == shelf.keys(old).await?;
    demand(unchanged, "leave an older version as it was", "it changed")?;
    let refusal = refusal.map_err(|failure| {
        Failure::product("refuse keys for an older version with 403 `M_WRONG_ROOM_KEYS_VERSION`")
            .last_seen(failure.to_string())
    })?;
    let body = format!("{refusal:?}");
    demand(
        body.contains("current_version"),
        "name a current version",
        body,
    )
}

/// A version keeps its algorithm and its number.
async fn fixed(shelf: &Shelf<'_>, version: &str) -> Result<()> {
    let path = format!("{VERSION}/{version}");
    let mut seen = Vec::new();
    for change in [
        json!({"algorithm": "org.example.other", "auth_data": {}, "version": version}),
        json!({"algorithm": ALGORITHM, "auth_data": auth("second"), "version": "4711"}),
    ] {
        let answer = shelf.0.try_raw(Method::PUT, &path, Some(&change)).await?;
        seen.push(answer.status);
    }
    demand(
        seen == [400, 400],
        "refuse to give a version another algorithm or number",
        format!("{seen:?}"),
    )
}

/// What is deleted is gone, and the etag tells.
async fn forgets(cast: &Cast, shelf: &Shelf<'_>, version: &str) -> Result<()> {
    for room in [ROSES, TULIPS] {
        shelf
            .put(version, room, "F", &key(1, 0, false))
            .await?
            .must()?;
    }
    let one = format!("{KEYS}/{}/D?version={version}", encoded(ROSES));
    shelf.0.try_raw(Method::DELETE, &one, None).await?.must()?;
    let left = shelf.keys(version).await?;
    demand(
        left[ROSES]["sessions"].get("D").is_none() && left[ROSES]["sessions"].get("F").is_some(),
        "forget a key that is deleted from a backup",
        left.to_string(),
    )?;
    let before = shelf.etag(version).await?;
    let room = format!("{KEYS}/{}?version={version}", encoded(ROSES));
    shelf.0.try_raw(Method::DELETE, &room, None).await?.must()?;
    let left = shelf.keys(version).await?;
    demand(
        left[ROSES]["sessions"].get("F").is_none() && left[TULIPS]["sessions"].get("F").is_some(),
        "forget the keys of a room that are deleted from a backup",
        left.to_string(),
    )?;
    let etag = shelf.etag(version).await?;
    let outcome = demand(
        etag != before,
        "change the etag when keys are deleted",
        etag,
    );
    cast.known(&cast.home, &BACKUP_ETAG_STAYS, outcome)?;
    let all = format!("{KEYS}?version={version}");
    shelf.0.try_raw(Method::DELETE, &all, None).await?.must()?;
    let left = shelf.keys(version).await?;
    demand(
        left == json!({}) && shelf.count(version).await? == 0,
        "forget all keys that are deleted from a backup",
        left.to_string(),
    )
}

/// What was never there, or is not any more.
async fn absent(shelf: &Shelf<'_>, gone: &str) -> Result<()> {
    let mut seen = Vec::new();
    for (method, path) in [
        (Method::GET, format!("{VERSION}/{gone}")),
        (Method::GET, format!("{VERSION}/4711")),
        (Method::GET, format!("{KEYS}?version={gone}")),
        (Method::GET, format!("{KEYS}?version=4711")),
        // Not that which is gone: who repeats a deletion need not be told.
        (Method::DELETE, format!("{VERSION}/4711")),
    ] {
        let answer = shelf.0.try_raw(method, &path, None).await?;
        seen.push(answer.status);
    }
    demand(
        seen.iter().all(|status| *status == 404),
        "answer 404 to whatever is asked of a version that does not exist",
        format!("{seen:?}"),
    )
}

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

fn auth(public_key: &str) -> Value {
    json!({"public_key": public_key, "signatures": {}})
}

/// Somebody's backups, asked for by hand.
struct Shelf<'a>(&'a Client);

impl Shelf<'_> {
    async fn create(&self, public_key: &str) -> Result<String> {
        let body = json!({"algorithm": ALGORITHM, "auth_data": auth(public_key)});
        let made = self
            .0
            .try_raw(Method::POST, VERSION, Some(&body))
            .await?
            .must()?;
        Ok(made["version"].as_str().unwrap_or_default().to_owned())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.0.try_raw(Method::GET, path, None).await?.must()?)
    }

    async fn current(&self) -> Result<String> {
        let told = self.get(VERSION).await?;
        Ok(told["version"].as_str().unwrap_or_default().to_owned())
    }

    async fn count(&self, version: &str) -> Result<u64> {
        let told = self.get(&format!("{VERSION}/{version}")).await?;
        Ok(told["count"].as_u64().unwrap_or_default())
    }

    async fn etag(&self, version: &str) -> Result<String> {
        let told = self.get(&format!("{VERSION}/{version}")).await?;
        Ok(told["etag"].to_string())
    }

    async fn keys(&self, version: &str) -> Result<Value> {
        let told = self.get(&format!("{KEYS}?version={version}")).await?;
        Ok(told["rooms"].clone())
    }

    async fn put(
        &self,
        version: &str,
        room: &str,
        session: &str,
        key: &Value,
    ) -> Result<harness::client::Answer<Value>> {
        let path = format!("{KEYS}/{}/{session}?version={version}", encoded(room));
        Ok(self.0.try_raw(Method::PUT, &path, Some(key)).await?)
    }

    async fn delete(&self, version: &str) -> Result<()> {
        let path = format!("{VERSION}/{version}");
        self.0.try_raw(Method::DELETE, &path, None).await?.must()?;
        Ok(())
    }
}

/// What was said before there was another device, and the key to it.
struct Past {
    phone: Device,
    bob: Device,
    key: String,
    said: Vec<(OwnedRoomId, OwnedEventId, String)>,
}

impl Past {
    async fn of(cast: &Cast, way: &Way) -> Result<Self> {
        let phone = Device::login(way, &cast.alice, "phone").await?;
        let bob = cast.bobs("phone").await?;
        phone.makes_identity(&cast.alice).await?;
        let key = phone.enables_recovery().await?;
        let mut said = Vec::new();
        for garden in ["roses", "tulips"] {
            let room = cast.garden(&phone, &bob).await?;
            for (from, to, who) in [(&phone, &bob, "alice"), (&bob, &phone, "bob")] {
                let text = format!("{who} waters the {garden}");
                let event = from.say(&room, &text).await?;
                to.reads(&room, &event, &text).await?;
                said.push((room.clone(), event, text));
            }
        }
        phone.has_backed_up().await?;
        Ok(Self {
            phone,
            bob,
            key,
            said,
        })
    }

    /// What a device that came later makes of it, when it has asked the backup for keys that it can read.
    async fn is_read(&self, device: &Device, readable: bool) -> Result<()> {
        for (room, event, text) in &self.said {
            if readable {
                let backups = device.sdk().encryption().backups();
                sdk(backups.download_room_keys_for_room(room).await, || {
                    format!("{device} gets the keys of `{room}` from the backup")
                })?;
            }
            let shown = device.fetched(room, event).await?;
            let as_it_should = match &shown {
                Shown::Read { .. } => readable && shown.text() == Some(text),
                Shown::Unreadable { .. } => !readable,
                _ => false,
            };
            let can = if readable { "read" } else { "not read" };
            demand(
                as_it_should,
                &format!("let {device} {can} `{text}`"),
                shown.to_string(),
            )?;
        }
        Ok(())
    }
}
