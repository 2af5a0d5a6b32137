//! Device lists follow over federation.

use crate::abroad::{Pair, Partner, between, enters, receives};
use crate::known::{DEVICE_CHANGES_ARE_UNTOLD, DEVICE_UPDATE_IS_LOST, EDUS_WAIT_FOR_AN_OCCASION};
use crate::{demand, soon};
use harness::Result;
use harness::client::{Client, Listener, NewRoom};
use harness::fault::{Fault, Part};
use harness::probe::ProbeState;
use harness::scenario::{Outcome, Stage};
use harness::site::Site;
use ruma::{OwnedRoomId, UserId};
use scenarios::{encoded, login};
use serde_json::json;
use std::time::Duration;

/// What a server tells by itself it has told by then: in a quiet lab it takes a fraction of a second.
const BY_ITSELF: Duration = Duration::from_secs(5);

/// Somebody whose devices change, and somebody who should hear of it.
struct Watch<'a> {
    at: &'a Site,
    owner: &'a Client,
    watcher: &'a Client,
    garden: OwnedRoomId,
}

/// E15. charlie takes up a second device, renames it and logs it out; alice, who shares an encrypted room with him, is told of
/// each change in sync, and when she asks for his keys, they are those of his devices. "Device management".
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_foreign_users_devices_are_told_at_home() -> Outcome {
    between(Partner::Synapse, async |stage, pair| {
        let garden = secret_garden(pair).await?;
        let watch = Watch {
            at: &pair.abroad,
            owner: &pair.charlie,
            watcher: &pair.alice,
            garden,
        };
        changes(stage, &watch).await
    })
    .await
}

/// E15. The same the other way round: alice's devices change, and charlie abroad is told. Conduit tells of a new device when
/// it has something else to say, and of a renamed or a gone one not at all.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_home_users_devices_are_told_abroad() -> Outcome {
    between(Partner::Synapse, async |stage, pair| {
        let garden = secret_garden(pair).await?;
        let watch = Watch {
            at: &pair.home,
            owner: &pair.alice,
            watcher: &pair.charlie,
            garden,
        };
        changes(stage, &watch).await
    })
    .await
}

/// E15. A partner is not to be reached while somebody's devices change, whichever side it is. When it can be reached again it
/// comes to know of the change. "Device management": `prev_id` and resynchronisation.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_devices_that_was_missed_is_made_up_for() -> Outcome {
    between(Partner::Synapse, async |stage, pair| {
        let garden = secret_garden(pair).await?;
        let watches = [
            (&pair.abroad, &pair.charlie, &pair.alice, &*pair.home),
            (&*pair.home, &pair.alice, &pair.charlie, &pair.abroad),
        ];
        for (at, owner, watcher, away) in watches {
            let watch = Watch {
                at,
                owner,
                watcher,
                garden: garden.clone(),
            };
            let mut listener = watcher.listen().await?;
            quiet(&watch, &mut listener).await?;
            let fault = Fault::stopped(away, Part::Proxy);
            let second = stage
                .world
                .during(&fault, async || {
                    let second = second_device(stage, &watch).await?;
                    reads(&watch).await?;
                    owner.say(&watch.garden, "I have a new device").await?;
                    Ok(second)
                })
                .await?;
            if at.server.is_conduit() {
                // It tries again when it starts.
                let restart = Fault::restarted(at, Part::Homeserver);
                stage.world.during(&restart, async || Ok(())).await?;
            }
            let said = owner.say(&watch.garden, "did you hear?").await?;
            receives(watcher, &watch.garden, &[said], soon()).await?;
            let outcome = follows(&watch, &mut listener, &second, true).await;
            pair.known_of(at, &DEVICE_UPDATE_IS_LOST, outcome)?;
            // The next change is told, and with it all that there is.
            let third = second_device(stage, &watch).await?;
            occasion(&watch).await?;
            follows(&watch, &mut listener, &third, true).await?;
            knows(&watch, &second, true).await?;
        }
        Ok(())
    })
    .await
}

/// A room whose members want to know each other's devices.
async fn secret_garden(pair: &Pair) -> Result<OwnedRoomId> {
    let room = NewRoom::public("garden").version("11").encrypted();
    let garden = pair.alice.create_room(room).await?;
    enters(&pair.charlie, &garden, &pair.home).await?;
    for who in [&pair.alice, &pair.charlie] {
        upload_keys(who).await?;
        let hello = who.say(&garden, "hello").await?;
        for other in [&pair.alice, &pair.charlie] {
            receives(other, &garden, std::slice::from_ref(&hello), soon()).await?;
        }
    }
    Ok(garden)
}

async fn changes(stage: &Stage, watch: &Watch<'_>) -> Result<()> {
    let Watch {
        owner, watcher, at, ..
    } = *watch;
    let mut listener = watcher.listen().await?;
    listener.forget();
    let second = second_device(stage, watch).await?;
    let told = is_told(&mut listener, owner.user_id(), BY_ITSELF).await;
    stage
        .flaws
        .known(&EDUS_WAIT_FOR_AN_OCCASION, &at.server, told)?;
    occasion(watch).await?;
    is_told(&mut listener, owner.user_id(), soon()).await?;
    knows(watch, &second, true).await?;

    quiet(watch, &mut listener).await?;
    owner.name_device(second.device_id(), "in the shed").await?;
    occasion(watch).await?;
    let told = is_told(&mut listener, owner.user_id(), BY_ITSELF).await;
    stage
        .flaws
        .known(&DEVICE_CHANGES_ARE_UNTOLD, &at.server, told)?;

    quiet(watch, &mut listener).await?;
    second.logout().await?;
    occasion(watch).await?;
    let outcome = follows(watch, &mut listener, &second, false).await;
    stage
        .flaws
        .known(&DEVICE_CHANGES_ARE_UNTOLD, &at.server, outcome)
}

/// The watcher is told of a change, and then asks and is told what there is. A server that was not told may answer with what
/// it knew before.
async fn follows(
    watch: &Watch<'_>,
    listener: &mut Listener,
    device: &Client,
    there: bool,
) -> Result<()> {
    is_told(listener, watch.owner.user_id(), BY_ITSELF).await?;
    knows(watch, device, there).await
}

/// Something else that is to be delivered; returns when it was.
async fn occasion(watch: &Watch<'_>) -> Result<()> {
    let said = watch.owner.say(&watch.garden, "by the way").await?;
    receives(watch.watcher, &watch.garden, &[said], soon()).await
}

/// Has the owner read what was said last. Only the end of the room is asked for: further back Synapse would ask the other
/// server for more, and where that is away it does not try to deliver anything there for up to a minute.
async fn reads(watch: &Watch<'_>) -> Result<()> {
    let room = format!(
        "/_matrix/client/v3/rooms/{}",
        encoded(watch.garden.as_str())
    );
    let end = format!("{room}/messages?dir=b&limit=1");
    let shown = watch.owner.try_raw(reqwest::Method::GET, &end, None);
    let shown = shown.await?.must()?;
    let last = shown["chunk"][0]["event_id"].as_str().unwrap_or_default();
    let path = format!("{room}/receipt/m.read/{}", encoded(last));
    watch
        .owner
        .try_raw(reqwest::Method::POST, &path, Some(&json!({})))
        .await?
        .must()?;
    Ok(())
}

/// Everything so far was told, and is not told again: Conduit repeats a change of devices with each transaction until a receipt
/// is newer (`src/service/sending/mod.rs:270-371`, where only receipts raise the mark).
async fn quiet(watch: &Watch<'_>, listener: &mut Listener) -> Result<()> {
    reads(watch).await?;
    for _ in 0..2 {
        occasion(watch).await?;
    }
    *listener = watch.watcher.listen().await?;
    listener.forget();
    Ok(())
}

/// A new device of the owner's, whose keys are uploaded.
async fn second_device(stage: &Stage, watch: &Watch<'_>) -> Result<Client> {
    let name = watch.owner.user_id().localpart();
    let second = if watch.at.server.is_conduit() {
        login(stage, watch.at, name).await?
    } else {
        let password = format!("{name} keeps a secret");
        Client::login(
            watch.at.http(),
            &watch.at.base_url(),
            name,
            &password,
            "second",
        )
        .await?
    };
    upload_keys(&second).await?;
    Ok(second)
}

pub async fn upload_keys(device: &Client) -> Result<()> {
    let id = device.device_id();
    let keys = json!({
        "user_id": device.user_id(),
        "device_id": id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("curve25519:{id}"): "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI",
            format!("ed25519:{id}"): "lEuiRJBit0IG6nUf5pUzWTUEsRVVe/HJkoKuEww9ULI",
        },
        "signatures": {},
    });
    Ok(device.upload_device_keys(&keys).await?)
}

pub async fn is_told(listener: &mut Listener, owner: &UserId, limit: Duration) -> Result<()> {
    let what = format!("sync tells that the devices of `{owner}` changed");
    let met = listener
        .until(what, limit, |seen| match &seen.device_lists_changed {
            changed if changed.contains(owner) => ProbeState::Ready(()),
            changed => ProbeState::NotYet(format!("of {changed:?}")),
        })
        .await;
    let seen = met.as_ref().err().map(ToString::to_string);
    demand(
        met.is_ok(),
        "tell who shares a room with somebody that their devices changed",
        seen.unwrap_or_default(),
    )
}

/// Whether the watcher is told the keys of a device when it asks.
async fn knows(watch: &Watch<'_>, device: &Client, there: bool) -> Result<()> {
    let keys = watch.watcher.keys_of(watch.owner.user_id()).await?;
    let has = keys.contains_key(&format!("device {}", device.device_id()));
    demand(
        has == there,
        "tell the keys of exactly the devices that there are",
        format!(
            "{} there: {there}, told: {:?}",
            device.device_id(),
            keys.keys()
        ),
    )
}
