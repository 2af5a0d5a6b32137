//! Device lists: who has which devices, and who is told so; also by a server that lies.

use crate::{Between, Cast, demand, encryption, encryption_alone, encryption_between};
use fleet_device::matrix_sdk::deserialized_responses::{UnableToDecryptReason, WithheldCode};
use fleet_device::matrix_sdk::encryption::LocalTrust;
use fleet_device::matrix_sdk_crypto::CollectStrategy;
use fleet_device::{Device, EncryptedRoom, Forged, Gate, Mutant, Shown, sdk, soon};
use harness::fault::{Fault, Part};
use harness::probe::{self, ProbeState};
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::{DeviceId, EventId, RoomId, UserId};
use scenarios::table::Table;
use serde_json::Value;
use std::collections::BTreeSet;

/// A device of which only the raw answers to sync are looked at: what they tell of device lists.
struct Ear {
    device: Device,
    since: String,
    changed: BTreeSet<String>,
    left: BTreeSet<String>,
}

impl Ear {
    async fn of(device: Device) -> Result<Self> {
        let mut ear = Self {
            device,
            since: String::new(),
            changed: BTreeSet::new(),
            left: BTreeSet::new(),
        };
        ear.listens().await?;
        Ok(ear)
    }

    async fn listens(&mut self) -> Result<()> {
        let since = match &*self.since {
            "" => String::new(),
            since => format!("&since={since}"),
        };
        let path = format!("/_matrix/client/v3/sync?timeout=0{since}");
        let told = self.device.asks(&path).await?;
        let users = |which: &str| {
            let users = told["device_lists"][which].as_array();
            let users = users.into_iter().flatten().filter_map(Value::as_str);
            users.map(str::to_owned).collect::<Vec<_>>()
        };
        self.changed.extend(users("changed"));
        self.left.extend(users("left"));
        let next = told["next_batch"].as_str().unwrap_or_default();
        next.clone_into(&mut self.since);
        Ok(())
    }

    /// Forgets what it heard up to now.
    async fn forgets(&mut self) -> Result<()> {
        self.listens().await?;
        self.changed.clear();
        self.left.clear();
        Ok(())
    }

    async fn hears(&mut self, of: &UserId, has: &str) -> Result<()> {
        let what = format!("sync tells that the devices of {of} have {has}");
        let met = probe::until(&what, soon(), async || {
            if let Err(failure) = self.listens().await {
                return ProbeState::NotYet(failure.to_string());
            }
            let heard = match has {
                "left" => &self.left,
                _ => &self.changed,
            };
            match heard.contains(of.as_str()) {
                true => ProbeState::Ready(()),
                false => ProbeState::NotYet(format!(
                    "changed: {:?}, left: {:?}",
                    self.changed, self.left
                )),
            }
        })
        .await;
        let seen = met.as_ref().err().map(ToString::to_string);
        demand(
            met.is_ok(),
            "tell who shares a room with somebody that their devices changed",
            seen.unwrap_or_default(),
        )
    }
}

/// Something else that is to be delivered; returns when it was. Conduit tells a change of devices abroad only together with
/// such.
async fn occasion(from: &Device, to: &Device, room: &RoomId) -> Result<()> {
    let said = from.say(room, "by the way").await?;
    let what = format!("{to} is shown what {from} says");
    to.until(what, async || match to.shown(room, &said).await {
        Ok(Shown::Nothing) => ProbeState::NotYet("nothing has come".to_owned()),
        Ok(_) => ProbeState::Ready(()),
        Err(failure) => ProbeState::NotYet(failure.to_string()),
    })
    .await
}

/// Waits until an event has come, and demands that it cannot be decrypted, and why.
async fn cannot_read(
    device: &Device,
    room: &RoomId,
    event: &EventId,
    because: Option<&WithheldCode>,
) -> Result<()> {
    let what = format!("{device} is shown that it cannot read `{event}`: {because:?}");
    device
        .until(what, async || match device.shown(room, event).await {
            Ok(Shown::Unreadable {
                reason: UnableToDecryptReason::MissingMegolmSession { withheld_code },
                ..
            }) if withheld_code.as_ref() == because => ProbeState::Ready(()),
            Ok(shown @ (Shown::Read { .. } | Shown::Plain { .. })) => {
                ProbeState::Failed(format!("it is shown {shown}"))
            }
            Ok(shown) => ProbeState::NotYet(format!("it is shown {shown}")),
            Err(failure) => ProbeState::NotYet(failure.to_string()),
        })
        .await
}

/// F7. bob joins alice's encrypted room, takes up a device, leaves, takes up another one outside, comes back and logs one out.
/// Each time alice is told that his devices changed or that she has lost sight of him, in the answers to sync themselves, and
/// her phone comes to know exactly the devices that he has, and gives them what she says. "Tracking the device list for a
/// user".
#[tokio::test(flavor = "multi_thread")]
async fn device_lists_follow_who_comes_and_goes() -> Outcome {
    let noticed = [
        Mutant::HidesDeviceChanges,
        Mutant::SubstitutesKeys,
        Mutant::KeepsGoneDevices,
    ];
    encryption(&noticed, async |_, cast| {
        let (alice, phone) = cast.phones().await?;
        let bob = phone.user_id().to_owned();
        let how = EncryptedRoom {
            invited: vec![bob.clone()],
            ..EncryptedRoom::default()
        };
        let room = alice.make_room(&how).await?;
        let mut ear = Ear::of(cast.alices("ear").await?).await?;
        ear.forgets().await?;

        cast.follows(&alice, &phone, &room).await?;
        ear.hears(&bob, "changed").await?;

        ear.forgets().await?;
        let tablet = cast.bobs("tablet").await?;
        occasion(&phone, &alice, &room).await?;
        ear.hears(&bob, "changed").await?;
        alice.knows_device(&bob, tablet.device_id(), true).await?;
        let said = alice.say(&room, "to both").await?;
        phone.reads(&room, &said, "to both").await?;
        tablet.reads(&room, &said, "to both").await?;

        ear.forgets().await?;
        let left = phone.room(&room)?.leave().await;
        sdk(left, || format!("{phone} leaves"))?;
        alice.knows_membership(&room, &bob, "leave").await?;
        ear.hears(&bob, "left").await?;

        let laptop = cast.bobs("laptop").await?;
        ear.forgets().await?;
        let invited = alice.room(&room)?.invite_user_by_id(&bob).await;
        sdk(invited, || format!("{alice} invites bob again"))?;
        cast.follows(&alice, &phone, &room).await?;
        ear.hears(&bob, "changed").await?;
        alice.knows_device(&bob, laptop.device_id(), true).await?;
        let said = alice.say(&room, "welcome back").await?;
        for device in [&phone, &tablet, &laptop] {
            device.reads(&room, &said, "welcome back").await?;
        }

        ear.forgets().await?;
        tablet.logs_out().await?;
        // Conduit does not tell of that by itself; with the next device it comes out.
        let watch = cast.bobs("watch").await?;
        occasion(&phone, &alice, &room).await?;
        ear.hears(&bob, "changed").await?;
        alice.knows_device(&bob, watch.device_id(), true).await?;
        alice.knows_device(&bob, tablet.device_id(), false).await
    })
    .await
}

/// F8. bob takes up a device before his server and alice's cannot reach each other, one meanwhile, and one afterwards. What
/// alice says in the dark is read on those that she knew; when the way is free again she comes to know the others, and all of
/// them read what she says. A server that is known not to try again by itself is restarted. "Tracking the device list for a
/// user"; Server-Server API, "Device Management".
#[tokio::test(flavor = "multi_thread")]
async fn a_device_taken_up_in_a_partition_becomes_known_and_is_given_keys() -> Outcome {
    let abroad = [Between::Conduits, Between::ToSynapse, Between::FromSynapse];
    // They cut the same sites off from each other.
    let turn = tokio::sync::Mutex::new(());
    encryption_alone(
        &abroad,
        &[Mutant::HidesDeviceChanges],
        async |stage, cast| {
            let _turn = turn.lock().await;
            let (alice, phone) = cast.phones().await?;
            let room = cast.garden(&alice, &phone).await?;
            let before = cast.bobs("tablet").await?;
            occasion(&phone, &alice, &room).await?;
            let bob = phone.user_id();
            alice.knows_device(bob, before.device_id(), true).await?;
            let said = alice.say(&room, "before").await?;
            phone.reads(&room, &said, "before").await?;
            before.reads(&room, &said, "before").await?;

            let meanwhile = async || {
                let during = cast.bobs("laptop").await?;
                phone.say(&room, "I have a new device").await?;
                let dark = alice.say(&room, "in the dark").await?;
                Ok((during, dark))
            };
            // With a fault planted both live at one site, which is not to be cut off from itself.
            let (during, dark) = if cast.between == Between::Neighbours {
                meanwhile().await?
            } else {
                let cut = Fault::cut(&cast.home.site, &cast.abroad.site);
                let left = stage.world.during(&cut, meanwhile).await?;
                for place in [&cast.home, &cast.abroad] {
                    if place.site.server.is_conduit() {
                        // It tries again when it starts.
                        let restart = Fault::restarted(&place.site, Part::Homeserver);
                        stage.world.during(&restart, async || Ok(())).await?;
                    }
                }
                left
            };
            occasion(&alice, &phone, &room).await?;
            occasion(&phone, &alice, &room).await?;
            phone.reads(&room, &dark, "in the dark").await?;
            before.reads(&room, &dark, "in the dark").await?;
            cannot_read(&during, &room, &dark, None).await?;
            alice.knows_device(bob, during.device_id(), true).await?;
            let after = cast.bobs("watch").await?;
            occasion(&phone, &alice, &room).await?;
            alice.knows_device(bob, after.device_id(), true).await?;
            let said = alice.say(&room, "after").await?;
            for device in [&phone, &before, &during, &after] {
                device.reads(&room, &said, "after").await?;
            }
            Ok(())
        },
    )
    .await
}

/// F13. alice blocks bob's tablet, and carol's client gives room keys only to devices that are verified. What they say is read
/// by whom it is for; who is left out is told so, and why. "Reporting that decryption keys are withheld".
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_left_out_is_told_why() -> Outcome {
    encryption(&[Mutant::DropsWithheld], async |_, cast| {
        let (alice, phone) = cast.phones().await?;
        let tablet = cast.bobs("tablet").await?;
        let room = cast.garden(&alice, &phone).await?;
        let bob = phone.user_id();
        alice.knows_device(bob, tablet.device_id(), true).await?;
        let said = alice.say(&room, "to everybody").await?;
        tablet.reads(&room, &said, "to everybody").await?;
        let encryption = alice.sdk().encryption();
        let blocked = encryption.get_device(bob, tablet.device_id()).await;
        let blocked = sdk(blocked, || format!("{alice} looks up {tablet}"))?
            .ok_or_else(|| Failure::product(format!("{alice} knows {tablet}")))?;
        let outcome = blocked.set_local_trust(LocalTrust::BlackListed).await;
        sdk(outcome, || format!("{alice} blocks {tablet}"))?;
        let said = alice.say(&room, "not to the tablet").await?;
        phone.reads(&room, &said, "not to the tablet").await?;
        cannot_read(&tablet, &room, &said, Some(&WithheldCode::Blacklisted)).await?;

        let carol = cast.home.account("carol").await?;
        let trust = CollectStrategy::OnlyTrustedDevices;
        let carol = Device::login_with(&cast.home_way, &carol, "phone", trust).await?;
        let room = cast.garden(&carol, &phone).await?;
        carol.knows_device(bob, phone.device_id(), true).await?;
        let said = carol.say(&room, "to those whom I trust").await?;
        cannot_read(&phone, &room, &said, Some(&WithheldCode::Unverified)).await
    })
    .await
}

/// What is to become of what alice says while her server lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    /// It is said, and the made-up device is given the room key.
    Leaked,
    /// It is said, and the made-up device gets nothing.
    Kept,
    /// The client refuses to say it, in these words.
    Refused(&'static str),
}

/// Bad input. alice, who has verified bob, is told by her server of a device of his that he does not have. Nothing in the
/// protocol forbids to give it room keys, and a client that gives them to every device, which is the library's default, does.
/// One that asks for signatures gives it none, and one that minds its verified users refuses to speak. "Cross-signing",
/// "End-to-End Encryption".
#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_device_gets_no_room_key_from_who_asks_for_signatures() -> Outcome {
    encryption_between(&[Between::Neighbours], &[], async |_, cast| {
        let unsigned = "one or more verified users have unsigned devices";
        let rows = [
            (CollectStrategy::AllDevices, Becomes::Leaked),
            (
                CollectStrategy::ErrorOnVerifiedUserProblem,
                Becomes::Refused(unsigned),
            ),
            (CollectStrategy::IdentityBasedStrategy, Becomes::Kept),
            (CollectStrategy::OnlyTrustedDevices, Becomes::Kept),
        ];
        under_lies(cast, false, &rows).await
    })
    .await
}

/// Bad input. alice has verified bob, and then her server tells her of another identity of his, which has signed a device that
/// he does not have. Her client warns her that whom she verified has changed, whatever it does with room keys: by the library's
/// default it gives them to the made-up device all the same; one that goes by identities refuses to speak. "Cross-signing".
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_swapped_after_verification_is_noticed() -> Outcome {
    encryption_between(&[Between::Neighbours], &[], async |_, cast| {
        let changed = "one or more users that were verified have changed their identity";
        let rows = [
            (CollectStrategy::AllDevices, Becomes::Leaked),
            (
                CollectStrategy::ErrorOnVerifiedUserProblem,
                Becomes::Refused(changed),
            ),
            (
                CollectStrategy::IdentityBasedStrategy,
                Becomes::Refused(changed),
            ),
            (CollectStrategy::OnlyTrustedDevices, Becomes::Kept),
        ];
        under_lies(cast, true, &rows).await
    })
    .await
}

async fn under_lies(cast: &Cast, swapped: bool, rows: &[(CollectStrategy, Becomes)]) -> Result<()> {
    let mut table = Table::default();
    for (strategy, becomes) in rows {
        let outcome = Box::pin(under_a_lie(cast, swapped, strategy, *becomes)).await;
        table.row(&format!("{strategy:?}: {becomes:?}"), outcome);
    }
    table.verdict("treat what the server made up as the client's habits have it")
}

async fn under_a_lie(
    cast: &Cast,
    swapped: bool,
    strategy: &CollectStrategy,
    becomes: Becomes,
) -> Result<()> {
    let gate = Gate::before(&cast.home.site).await?;
    let (of_alice, of_bob) =
        tokio::try_join!(cast.home.account("alice"), cast.abroad.account("bob"))?;
    let way = gate.way()?;
    let (alice, bob) = tokio::try_join!(
        Device::login_with(&way, &of_alice, "phone", strategy.clone()),
        Device::login(&cast.abroad_way, &of_bob, "phone"),
    )?;
    alice.makes_identity(&of_alice).await?;
    bob.makes_identity(&of_bob).await?;
    let room = cast.garden(&alice, &bob).await?;
    let identity = alice.knows_signed(bob.user_id(), bob.device_id()).await?;
    sdk(identity.verify().await, || format!("{alice} verifies bob"))?;
    let encryption = alice.sdk().encryption();
    // The signature counts once it has come back from the server.
    let what = format!("{alice} takes bob for verified");
    alice
        .until(what, async || {
            match encryption.get_user_identity(bob.user_id()).await {
                Ok(Some(identity)) if identity.is_verified() => ProbeState::Ready(()),
                Ok(identity) => ProbeState::NotYet(format!("known: {}", identity.is_some())),
                Err(error) => ProbeState::NotYet(error.to_string()),
            }
        })
        .await?;
    let said = alice.say(&room, "before the lie").await?;
    bob.reads(&room, &said, "before the lie").await?;

    let made_up = <&DeviceId>::from("MADEUP");
    let forged = match swapped {
        true => Forged::identity(bob.user_id(), made_up).await?,
        false => Forged::device(bob.user_id(), made_up).await?,
    };
    gate.during("the server lies", forged.lie(), async || {
        alice.knows_device(bob.user_id(), made_up, true).await?;
        let identity = encryption.get_user_identity(bob.user_id()).await;
        let identity = sdk(identity, || format!("{alice} looks at bob's identity"))?;
        demand(
            identity.is_some_and(|identity| identity.has_verification_violation() == swapped),
            "warn exactly of a verified identity that changed",
            format!("swapped: {swapped}"),
        )?;
        gate.forget();
        let said = alice.say(&room, "under the lie").await;
        let keyed = gate.addressed("m.room.encrypted");
        let seen = match &said {
            Ok(_) => format!("room keys to {keyed:?}"),
            Err(failure) => format!("room keys to {keyed:?}, and: {failure}"),
        };
        let leaked = keyed.contains(&forged.address());
        let holds = match (becomes, &said) {
            (Becomes::Leaked, Ok(_)) => leaked,
            (Becomes::Kept, Ok(_)) => !leaked,
            (Becomes::Refused(why), Err(failure)) => {
                keyed.is_empty()
                    && gate.count("/send/m.room.encrypted/") == 0
                    && failure.to_string().contains(why)
            }
            _ => false,
        };
        demand(holds, "do with what is said as the habits have it", seen)?;
        match said {
            // With his identity swapped his own device is signed by nobody whom she trusts.
            Ok(said) if !swapped => bob.reads(&room, &said, "under the lie").await.map(|_| ()),
            _ => Ok(()),
        }
    })
    .await
}

/// Bad input. alice's server puts other keys in the place of those of bob's phone, signed by themselves. Her phone, which knows
/// the phone, keeps to what it knew, and bob reads what it says. A tablet of hers that never saw the true keys has nothing to
/// compare with: it takes the false ones, and only a verification would tell. "Device keys".
#[tokio::test(flavor = "multi_thread")]
async fn keys_put_in_a_known_devices_place_are_not_believed() -> Outcome {
    encryption_between(&[Between::Neighbours], &[], async |_, cast| {
        let gate = Gate::before(&cast.home.site).await?;
        let way = gate.way()?;
        let alice = Device::login(&way, &cast.alice, "phone").await?;
        let bob = cast.bobs("phone").await?;
        // Each message needs a key of its own, and so the devices' keys.
        let how = EncryptedRoom {
            messages: Some(1),
            ..EncryptedRoom::default()
        };
        let room = cast.garden_with(&alice, &bob, how).await?;
        let (user, device) = (bob.user_id(), bob.device_id());
        alice.knows_device(user, device, true).await?;
        let said = alice.say(&room, "before the lie").await?;
        bob.reads(&room, &said, "before the lie").await?;
        let truth = bob.sdk().encryption().curve25519_key().await;
        let truth = truth.map(|key| key.to_base64());

        let forged = Forged::device(user, device).await?;
        gate.during("other keys are told", forged.lie(), async || {
            gate.forget();
            let what = format!("{alice} is told the false keys");
            let told = |gate: &Gate| {
                let passed = gate.passed();
                let answers = passed.iter().filter_map(|passed| passed.answer.as_ref());
                let mut bodies = answers.map(|answer| String::from_utf8_lossy(&answer.body));
                let false_key = forged.curve25519().unwrap_or_default();
                bodies.any(|body| body.contains(false_key))
            };
            alice
                .until(what, async || match told(&gate) {
                    true => ProbeState::Ready(()),
                    false => ProbeState::NotYet("she has not asked".to_owned()),
                })
                .await?;
            let tablet = Device::login(&way, &cast.alice, "tablet").await?;
            tablet.knows_device(user, device, true).await?;
            for (who, key) in [(&alice, truth.as_deref()), (&tablet, forged.curve25519())] {
                let there = who.sdk().encryption().get_device(user, device).await;
                let there = sdk(there, || format!("{who} looks up {bob}"))?;
                let believed = there.and_then(|there| there.curve25519_key());
                let believed = believed.map(|key| key.to_base64());
                demand(
                    believed.as_deref() == key && key.is_some(),
                    "keep to the keys that were seen first",
                    format!("{who} believes {believed:?}, expected {key:?}"),
                )?;
            }
            let said = alice.say(&room, "to the one I know").await?;
            bob.reads(&room, &said, "to the one I know").await?;
            let said = tablet.say(&room, "to the one I was told of").await?;
            cannot_read(&bob, &room, &said, None).await
        })
        .await
    })
    .await
}

/// Bad input. alice's server hides from her that bob has taken up a device. She cannot know, so the device is given nothing,
/// and shows that it cannot read. When the server is honest again, the next change that it tells brings her all of them.
/// "Tracking the device list for a user".
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_hidden_is_given_nothing_and_shows_it() -> Outcome {
    encryption_between(&[Between::Neighbours], &[], async |_, cast| {
        let gate = Gate::wrong(&cast.home.site, Mutant::HidesDeviceChanges).await?;
        let alice = Device::login(&gate.way()?, &cast.alice, "phone").await?;
        let bob = cast.bobs("phone").await?;
        let room = cast.garden(&alice, &bob).await?;
        let said = alice.say(&room, "to the phone").await?;
        bob.reads(&room, &said, "to the phone").await?;

        let tablet = cast.bobs("tablet").await?;
        occasion(&bob, &alice, &room).await?;
        gate.forget();
        let said = alice.say(&room, "she does not know").await?;
        bob.reads(&room, &said, "she does not know").await?;
        cannot_read(&tablet, &room, &said, None).await?;
        let keyed = gate.addressed("m.room.encrypted");
        let address = (bob.user_id().to_string(), tablet.device_id().to_string());
        demand(
            !keyed.contains(&address),
            "give nothing to a device that is not known",
            format!("room keys to {keyed:?}"),
        )?;

        let alice = Device::reopened(alice.close().by(&cast.home_way)).await?;
        let watch = cast.bobs("watch").await?;
        occasion(&bob, &alice, &room).await?;
        for device in [&tablet, &watch] {
            alice
                .knows_device(bob.user_id(), device.device_id(), true)
                .await?;
        }
        let said = alice.say(&room, "now she knows").await?;
        for device in [&bob, &tablet, &watch] {
            device.reads(&room, &said, "now she knows").await?;
        }
        Ok(())
    })
    .await
}
