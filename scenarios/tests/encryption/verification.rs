//! Identities across devices, and people who make sure of each other.

use crate::{Between, Cast, demand, encryption, encryption_between};
use fleet_device::matrix_sdk::deserialized_responses::VerificationState;
use fleet_device::matrix_sdk::encryption::verification::{
    CancelInfo, QrVerificationData, SasVerification, VerificationRequest,
};
use fleet_device::matrix_sdk::ruma::events::key::verification::VerificationMethod;
use fleet_device::matrix_sdk::ruma::events::key::verification::cancel::CancelCode;
use fleet_device::{Device, EncryptedRoom, Mutant, sdk};
use harness::accounts::Account;
use harness::known::encryption::FIRST_IDENTITY_ASKS;
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::OwnedRoomId;

/// F10. alice makes her first cross-signing identity, for which no password is needed. bob, who knew her phone before, comes to
/// know the identity and that it has signed the phone, on either side of the federation. A laptop of hers that has nothing of
/// it does not get another one in its place with a wrong password, and does with hers; bob comes to know that one too.
/// "Cross-signing", "User-Interactive Authentication API".
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_replaced_with_the_password_only_and_seen_abroad() -> Outcome {
    encryption(&[Mutant::DropsCrossSignatures], async |_, cast| {
        let (alice, bob) = cast.phones().await?;
        let room = cast.garden(&alice, &bob).await?;
        let (user, device) = (alice.user_id(), alice.device_id());
        bob.knows_device(user, device, true).await?;
        let first = alice.sdk().encryption().bootstrap_cross_signing(None).await;
        let first = first.map_err(|error| {
            let asked = error.as_uiaa_response().is_some();
            Failure::product("take the first identity without a password").last_seen(match asked {
                true => "answered 401, to ask for it".to_owned(),
                false => error.to_string(),
            })
        });
        cast.known(&cast.home, &FIRST_IDENTITY_ASKS, first)?;
        alice.makes_identity(&cast.alice).await?;
        let said = alice.say(&room, "this is I").await?;
        bob.reads(&room, &said, "this is I").await?;
        bob.knows_signed(user, device).await?;

        let laptop = cast.alices("laptop").await?;
        let wrong = Account {
            password: "not hers".to_owned(),
            ..cast.alice.clone()
        };
        let refused = laptop.makes_identity(&wrong).await;
        demand(
            refused.is_err(),
            "refuse another identity without the password",
            "it was taken",
        )?;
        laptop.makes_identity(&cast.alice).await?;
        let said = alice.say(&room, "this is I, too").await?;
        bob.reads(&room, &said, "this is I, too").await?;
        bob.knows_signed(user, laptop.device_id()).await.map(|_| ())
    })
    .await
}

/// F10. alice takes up a laptop, and makes sure by emojis that it and her phone see the same keys. Both show the same seven;
/// then the phone has signed the laptop, the laptop has the secrets of the identity, and bob, who shares a room with them, sees
/// that it is hers. A server that meddles with the keys is found out. "Short Authentication String (SAS) verification".
#[tokio::test(flavor = "multi_thread")]
async fn two_devices_of_one_user_verify_each_other_by_emoji() -> Outcome {
    let noticed = [Mutant::MeddlesWithEmojis, Mutant::DropsCrossSignatures];
    encryption(&noticed, async |_, cast| {
        let (phone, bob) = cast.phones().await?;
        phone.makes_identity(&cast.alice).await?;
        let room = cast.garden(&phone, &bob).await?;
        let laptop = cast.alices("laptop").await?;
        let asked = asks(&laptop, &phone, None).await?;
        let (ours, theirs) = compares(&laptop, &phone, &asked).await?;
        confirm(&laptop, &phone, &ours, &theirs).await?;
        has_secrets(&laptop, &phone).await?;
        let said = laptop.say(&room, "it is still I").await?;
        bob.reads(&room, &said, "it is still I").await?;
        let user = laptop.user_id();
        bob.knows_signed(user, laptop.device_id()).await.map(|_| ())
    })
    .await
}

/// F10. alice takes up a laptop, and scans with it the code that her phone shows. A code with another key in it is refused; the
/// true one makes the laptop hers. "QR code verification".
#[tokio::test(flavor = "multi_thread")]
async fn two_devices_of_one_user_verify_each_other_by_code() -> Outcome {
    let between = [Between::Neighbours, Between::FromSynapse];
    encryption_between(&between, &[Mutant::DropsToDevice], async |_, cast| {
        let phone = cast.alices("phone").await?;
        phone.makes_identity(&cast.alice).await?;
        let laptop = cast.alices("laptop").await?;
        scans(&laptop, &phone).await?;
        has_secrets(&laptop, &phone).await
    })
    .await
}

/// F10. alice and bob, each with an identity, make sure of each other by emojis in their room, on either side of the
/// federation: both see the same seven, and then each shows the other's messages as coming from whom they verified. "SAS
/// verification", "Key verification framework" in rooms.
#[tokio::test(flavor = "multi_thread")]
async fn alice_and_bob_verify_each_other_by_emoji() -> Outcome {
    encryption(&[Mutant::DropsCrossSignatures], async |_, cast| {
        let (alice, bob, room) = acquainted(cast).await?;
        let asked = asks(&alice, &bob, None).await?;
        let (ours, theirs) = compares(&alice, &bob, &asked).await?;
        confirm(&alice, &bob, &ours, &theirs).await?;
        for (from, to) in [(&alice, &bob), (&bob, &alice)] {
            trusts(to, from).await?;
            let said = from.say(&room, "you know me").await?;
            let shown = to.reads(&room, &said, "you know me").await?;
            demand(
                matches!(
                    shown,
                    fleet_device::Shown::Read {
                        trust: VerificationState::Verified,
                        ..
                    }
                ),
                "show that a message comes from who was verified",
                format!("{shown:?}"),
            )?;
        }
        Ok(())
    })
    .await
}

/// F10. bob scans the code that alice shows him, on either side of the federation. "QR code verification".
#[tokio::test(flavor = "multi_thread")]
async fn alice_and_bob_verify_each_other_by_code() -> Outcome {
    encryption(&[Mutant::DropsToDevice], async |_, cast| {
        let (alice, bob, _) = acquainted(cast).await?;
        scans(&bob, &alice).await?;
        trusts(&alice, &bob).await?;
        trusts(&bob, &alice).await
    })
    .await
}

/// F10. alice says that bob's emojis are not hers: both sides end it for that reason, and nobody trusts anybody. "SAS
/// verification": `m.mismatched_sas`.
#[tokio::test(flavor = "multi_thread")]
async fn emojis_that_do_not_match_end_it() -> Outcome {
    encryption(&[Mutant::DropsToDevice], async |_, cast| {
        let (alice, bob, _) = acquainted(cast).await?;
        let asked = asks(&alice, &bob, None).await?;
        let (ours, theirs) = compares(&alice, &bob, &asked).await?;
        sdk(ours.mismatch().await, || format!("{alice} sees others"))?;
        let what = "both sides have ended it";
        Device::all_until(&[&alice, &bob], what, async || {
            match (ours.cancel_info(), theirs.cancel_info()) {
                (Some(ours), Some(theirs)) => ProbeState::Ready(vec![ours, theirs]),
                other => ProbeState::NotYet(format!("{other:?}")),
            }
        })
        .await?
        .iter()
        .try_for_each(|ended: &CancelInfo| {
            demand(
                *ended.cancel_code() == CancelCode::MismatchedSas,
                "end it because the emojis do not match",
                format!("{ended:?}"),
            )
        })?;
        for (one, other) in [(&alice, &bob), (&bob, &alice)] {
            demand(
                !is_trusted(one, other).await?,
                "trust nobody who was not verified",
                format!("{one} trusts {other}"),
            )?;
        }
        Ok(())
    })
    .await
}

/// alice and bob, each with an identity that the other knows, in a room that both take for the one in which they talk.
async fn acquainted(cast: &Cast) -> Result<(Device, Device, OwnedRoomId)> {
    let (alice, bob) = cast.phones().await?;
    tokio::try_join!(
        alice.makes_identity(&cast.alice),
        bob.makes_identity(&cast.bob),
    )?;
    // What is known of a sender is known of a room key: each message has its own.
    let how = EncryptedRoom {
        messages: Some(1),
        ..EncryptedRoom::default()
    };
    let room = cast.garden_with(&alice, &bob, how).await?;
    for (one, other) in [(&alice, &bob), (&bob, &alice)] {
        one.knows_signed(other.user_id(), other.device_id()).await?;
        let direct = one.room(&room)?.set_is_direct(true).await;
        sdk(direct, || format!("{one} takes the room for a direct one"))?;
        let what = format!("{one} knows where to talk to {other}");
        one.until(what, async || {
            match one.sdk().get_dm_room(other.user_id()) {
                Some(there) if there.room_id() == room => ProbeState::Ready(()),
                other => {
                    ProbeState::NotYet(format!("{:?}", other.map(|room| room.room_id().to_owned())))
                }
            }
        })
        .await?;
    }
    Ok((alice, bob, room))
}

/// Both ends of a request to verify each other.
struct Asked {
    ours: VerificationRequest,
    theirs: VerificationRequest,
}

/// One device asks another whether they verify each other, by these methods or by emojis; the other agrees.
async fn asks(
    from: &Device,
    to: &Device,
    methods: Option<[Vec<VerificationMethod>; 2]>,
) -> Result<Asked> {
    let emojis = || vec![VerificationMethod::SasV1];
    // Who is asked by a device that it does not know takes no notice.
    for (one, other) in [(from, to), (to, from)] {
        one.knows_device(other.user_id(), other.device_id(), true)
            .await?;
    }
    let [our_methods, their_methods] = methods.unwrap_or_else(|| [emojis(), emojis()]);
    let encryption = from.sdk().encryption();
    let what = format!("{from} knows the identity of {}", to.user_id());
    let identity = from
        .until(what, async || {
            match encryption.get_user_identity(to.user_id()).await {
                Ok(Some(identity)) => ProbeState::Ready(identity),
                Ok(None) => ProbeState::NotYet("it knows none".to_owned()),
                Err(error) => ProbeState::NotYet(error.to_string()),
            }
        })
        .await?;
    let ours = identity.request_verification_with_methods(our_methods);
    let ours = sdk(ours.await, || format!("{from} asks {to} for verification"))?;
    let (encryption, flow) = (to.sdk().encryption(), ours.flow_id().to_owned());
    let what = format!("{to} is asked for verification");
    let theirs = Device::all_until(&[from, to], what, async || {
        match encryption
            .get_verification_request(from.user_id(), &flow)
            .await
        {
            Some(request) => ProbeState::Ready(request),
            None => ProbeState::NotYet("it is not".to_owned()),
        }
    })
    .await?;
    let agreed = theirs.accept_with_methods(their_methods).await;
    sdk(agreed, || format!("{to} agrees to verification"))?;
    let what = format!("{from} and {to} are ready to verify each other");
    Device::all_until(&[from, to], what, async || {
        match ours.is_ready() && theirs.is_ready() {
            true => ProbeState::Ready(()),
            false => ProbeState::NotYet(format!("{:?}, {:?}", ours.state(), theirs.state())),
        }
    })
    .await?;
    Ok(Asked { ours, theirs })
}

/// They look at their emojis, which must be the same.
async fn compares(
    from: &Device,
    to: &Device,
    asked: &Asked,
) -> Result<(SasVerification, SasVerification)> {
    let ours = sdk(asked.ours.start_sas().await, || format!("{from} begins"))?;
    let ours = ours.ok_or_else(|| Failure::product(format!("{from} begins: it does not")))?;
    let (encryption, flow) = (to.sdk().encryption(), asked.theirs.flow_id().to_owned());
    let what = format!("{to} sees that {from} has begun");
    let theirs = Device::all_until(&[from, to], what, async || {
        let begun = encryption.get_verification(from.user_id(), &flow).await;
        match begun.and_then(|begun| begun.sas()) {
            Some(sas) => ProbeState::Ready(sas),
            None => ProbeState::NotYet("it has not".to_owned()),
        }
    })
    .await?;
    sdk(theirs.accept().await, || format!("{to} goes along"))?;
    let what = format!("{from} and {to} see emojis");
    let (one, other) = Device::all_until(&[from, to], what, async || {
        match (ours.emoji(), theirs.emoji()) {
            (Some(one), Some(other)) => ProbeState::Ready((one, other)),
            _ if ours.is_cancelled() || theirs.is_cancelled() => {
                ProbeState::Failed(format!("{:?}, {:?}", ours.state(), theirs.state()))
            }
            _ => ProbeState::NotYet(format!("{:?}, {:?}", ours.state(), theirs.state())),
        }
    })
    .await?;
    let (one, other) = (
        one.map(|emoji| emoji.symbol),
        other.map(|emoji| emoji.symbol),
    );
    demand(
        one == other,
        "show both the same emojis",
        format!("{one:?} and {other:?}"),
    )?;
    Ok((ours, theirs))
}

/// Both say that the emojis match. Returns when both have done with it.
async fn confirm(
    from: &Device,
    to: &Device,
    ours: &SasVerification,
    theirs: &SasVerification,
) -> Result<()> {
    sdk(ours.confirm().await, || format!("{from} confirms"))?;
    sdk(theirs.confirm().await, || format!("{to} confirms"))?;
    let what = format!("{from} and {to} have verified each other");
    Device::all_until(&[from, to], what, async || {
        match (ours.is_done() && theirs.is_done(), ours.is_cancelled()) {
            (true, _) => ProbeState::Ready(()),
            (_, true) => ProbeState::Failed(format!("it was ended: {:?}", ours.cancel_info())),
            _ => ProbeState::NotYet(format!("{:?}, {:?}", ours.state(), theirs.state())),
        }
    })
    .await
}

/// One device scans the code that another shows: first a false one, which must be refused, then the true one.
async fn scans(scanner: &Device, shower: &Device) -> Result<()> {
    let back = VerificationMethod::ReciprocateV1;
    let methods = [
        vec![VerificationMethod::QrCodeScanV1, back.clone()],
        vec![VerificationMethod::QrCodeShowV1, back],
    ];
    let Asked { ours, theirs } = asks(scanner, shower, Some(methods)).await?;
    let shown = sdk(theirs.generate_qr_code().await, || {
        format!("{shower} shows a code")
    })?;
    let shown = shown.ok_or_else(|| Failure::product(format!("{shower} shows a code: none")))?;
    let bytes = sdk(shown.to_bytes(), || "write the code".to_owned())?;
    let read = |bytes: &[u8]| {
        sdk(QrVerificationData::from_bytes(bytes), || {
            "read the code".to_owned()
        })
    };
    let mut wrong = bytes.clone();
    // After the head, the length of the flow's name and the name itself come two keys of 32 bytes.
    let key = b"MATRIX".len() + 4 + theirs.flow_id().len();
    wrong.copy_within(key + 32..key + 64, key);
    let refused = ours.scan_qr_code(read(&wrong)?).await;
    demand(
        refused.is_err(),
        "refuse a code with another key in it",
        "it was taken",
    )?;
    let scanned = sdk(ours.scan_qr_code(read(&bytes)?).await, || {
        format!("{scanner} scans")
    })?;
    let scanned = scanned.ok_or_else(|| Failure::product(format!("{scanner} scans: nothing")))?;
    let what = format!("{shower} knows that its code was scanned");
    Device::all_until(&[scanner, shower], what, async || {
        match shown.has_been_scanned() {
            true => ProbeState::Ready(()),
            false => ProbeState::NotYet(format!("{:?}", shown.state())),
        }
    })
    .await?;
    sdk(shown.confirm().await, || format!("{shower} confirms"))?;
    let what = format!("{scanner} and {shower} have verified each other");
    Device::all_until(&[scanner, shower], what, async || {
        match shown.is_done() && scanned.is_done() {
            true => ProbeState::Ready(()),
            false => ProbeState::NotYet(format!("{:?}, {:?}", shown.state(), scanned.state())),
        }
    })
    .await
}

/// Waits until a new device has the secrets of its user's identity from the old one, and the old one knows it for its own.
async fn has_secrets(new: &Device, old: &Device) -> Result<()> {
    let what = format!("{new} has the secrets of its user's identity");
    Device::all_until(&[new, old], what, async || {
        match new.sdk().encryption().cross_signing_status().await {
            Some(status) if status.is_complete() => ProbeState::Ready(()),
            other => ProbeState::NotYet(format!("{other:?}")),
        }
    })
    .await?;
    let known = old
        .sdk()
        .encryption()
        .get_device(new.user_id(), new.device_id())
        .await;
    let known = sdk(known, || format!("{old} looks up {new}"))?;
    demand(
        known.is_some_and(|known| known.is_verified_with_cross_signing()),
        "take a device for verified that was verified",
        format!("{new}, by {old}"),
    )
}

/// Waits until somebody takes somebody else's identity for verified: their signature counts once it has come back from the
/// server.
async fn trusts(who: &Device, whom: &Device) -> Result<()> {
    let what = format!("{who} takes {} for verified", whom.user_id());
    who.until(what, async || match is_trusted(who, whom).await {
        Ok(true) => ProbeState::Ready(()),
        Ok(false) => ProbeState::NotYet("it does not".to_owned()),
        Err(failure) => ProbeState::NotYet(failure.to_string()),
    })
    .await
}

async fn is_trusted(who: &Device, whom: &Device) -> Result<bool> {
    let encryption = who.sdk().encryption();
    let identity = encryption.get_user_identity(whom.user_id()).await;
    let identity = sdk(identity, || format!("{who} looks at an identity"))?;
    Ok(identity.is_some_and(|identity| identity.is_verified()))
}
