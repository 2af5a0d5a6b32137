//! A site whose database went back in time.

use crate::{Between, demand, encryption_alone};
use fleet_device::matrix_sdk::deserialized_responses::ProcessedToDeviceEvent;
use fleet_device::{Device, Gate, HASTE, Way};
use harness::accounts::Account;
use harness::rehearse::backed_up;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::OwnedRoomId;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// Somebody who writes to alice, and the room in which they do.
struct Writer {
    device: Device,
    room: OwnedRoomId,
}

/// F4. Before a backup three people share rooms with alice's phone, and nobody has written to it yet. After it bob writes, for
/// which he is given one of its one-time keys, and the phone uses it up. Then the home server goes back in time. Its data
/// copied back, it gives the same key to carol, and the phone cannot decrypt what she says. Restored by `restore.md`, which
/// takes keys out before the doors open, it gives dave another, the phone reads him, and makes up for the keys that are gone.
/// "One-time and fallback keys": a one-time key is used once.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_server_gives_out_no_used_key() -> Outcome {
    encryption_alone(&[Between::Neighbours], &[], async |stage, cast| {
        let site = &cast.home.site;
        if !site.server.is_conduit() {
            return Err(
                stage.unproved("follow the kit's runbooks: there is no Conduit on this machine")
            );
        }
        let (carol, dave) =
            tokio::try_join!(cast.home.account("carol"), cast.home.account("dave"))?;
        let gate = Gate::before(site).await?;
        let way = gate.way()?;
        let phone = cast.alices("phone").await?;
        let bob = writer(&phone, &way, &cast.bob, cast).await?;
        let carol = writer(&phone, &way, &carol, cast).await?;
        let dave = writer(&phone, &way, &dave, cast).await?;
        let had = phone.one_time_keys().await?;
        demand(
            claimed(&gate, &phone).is_empty(),
            "claim nothing before somebody writes",
            format!("{:?}", claimed(&gate, &phone)),
        )?;

        let snapshot = backed_up(site).await?;
        let data = "/opt/conduit/data";
        let back_and_forth = |what: &str| {
            format!("systemctl stop conduit.service && {what} && systemctl start conduit.service")
        };
        let copy = format!("cp -a {data} {data}.copied");
        site.host.shell(&back_and_forth(&copy)).await?;

        bob.says_to(&phone, "hello from bob").await?;
        let used = claimed(&gate, &phone);
        gate.forget();

        // Without a drain.
        let turn = format!("rm -rf {data} && mv {data}.copied {data}");
        site.host.shell(&back_and_forth(&turn)).await?;
        phone.step_anew().await?;
        carol.device.step_anew().await?;
        let haste = Duration::from_secs(5);
        let read = HASTE.scope(haste, carol.says_to(&phone, "hello from carol"));
        stage.must_notice("turned back without a drain", read.await)?;
        let again = claimed(&gate, &phone);
        demand(
            again == used && used.len() == 1,
            "show the cause: the key that was given to bob is given to carol",
            format!("bob: {used:?}, carol: {again:?}"),
        )?;
        let lost = phone
            .to_device()
            .into_iter()
            .any(|message| matches!(message, ProcessedToDeviceEvent::UnableToDecrypt { .. }));
        demand(
            lost,
            "show the damage: the phone cannot decrypt the message that brought the room key",
            "it decrypted everything",
        )?;
        gate.forget();

        // By the runbook.
        site.follow(
            "restore.md",
            &[("SNAPSHOT", &snapshot.id), ("EXISTING_DATA", "--replace")],
        )
        .await?;
        let left = phone.one_time_keys().await?;
        demand(
            left > 1 && left < had,
            "drain one-time keys, but not all",
            format!("{had} before, {left} after"),
        )?;
        phone.step_anew().await?;
        dave.device.step_anew().await?;
        dave.says_to(&phone, "hello from dave").await?;
        let fresh = claimed(&gate, &phone);
        demand(
            fresh.len() == 1 && fresh.is_disjoint(&used),
            "give dave a key that nobody was given before",
            format!("bob: {used:?}, dave: {fresh:?}"),
        )?;
        phone.has_one_time_keys(had).await.map(|_| ())
    })
    .await
}

/// A device by this way, in a room of its own with the phone. Nobody has said anything there.
async fn writer(
    phone: &Device,
    way: &Way,
    account: &Account,
    cast: &crate::Cast,
) -> Result<Writer> {
    let device = Device::login(way, account, "phone").await?;
    let room = cast.garden(phone, &device).await?;
    device
        .knows_device(phone.user_id(), phone.device_id(), true)
        .await?;
    Ok(Writer { device, room })
}

impl Writer {
    /// Says something, which the phone must be shown, and read.
    async fn says_to(&self, phone: &Device, text: &str) -> Result<()> {
        let Self { device, room } = self;
        let said = device.say(room, text).await?;
        // What does not come at all says nothing about keys.
        let came = phone.gets(room, &said).await;
        came.map_err(|failure| Failure::harness(failure.to_string()))?;
        phone.reads(room, &said, text).await.map(|_| ())
    }
}

/// The one-time keys of a device that were given out through a gate.
fn claimed(gate: &Gate, owner: &Device) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for passed in gate.passed() {
        let Some(answer) = passed.answer else {
            continue;
        };
        if !passed.question.path.contains("/keys/claim") {
            continue;
        }
        let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let given = &answer["one_time_keys"][owner.user_id().as_str()][owner.device_id().as_str()];
        keys.extend(
            given
                .as_object()
                .into_iter()
                .flatten()
                .map(|(id, _)| id.clone()),
        );
    }
    keys
}
