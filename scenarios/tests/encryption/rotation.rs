//! Room keys change when somebody is not to read on.

use crate::{Between, carried, demand, encryption, encryption_between};
use fleet_device::{Device, EncryptedRoom, HASTE, Mutant, Shown, sdk};
use harness::known::federation::DEVICE_CHANGES_ARE_UNTOLD;
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::{OwnedEventId, RoomId};
use std::time::Duration;

/// Something that was said, and the Megolm session that it was encrypted with.
struct Said {
    event: OwnedEventId,
    session: String,
}

/// Says something, and has whoever said it look at it.
async fn says(who: &Device, room: &RoomId, text: &str) -> Result<Said> {
    let event = who.say(room, text).await?;
    let shown = who.reads(room, &event, text).await?;
    let session = shown
        .session()
        .ok_or_else(|| Failure::harness(format!("know the session of `{event}`")))?
        .to_owned();
    Ok(Said { event, session })
}

/// Who is gone is handed what was said, from hand to hand: what went out while he was there he can read, what was said after
/// he cannot.
async fn is_shut_out(
    alice: &Device,
    gone: &Device,
    room: &RoomId,
    before: &Said,
    after: &Said,
) -> Result<()> {
    demand(
        before.session != after.session,
        "change the room key when somebody is gone",
        format!("both were encrypted with `{}`", after.session),
    )?;
    for (said, readable) in [(before, true), (after, false)] {
        let carried = carried(alice, room, &said.event).await?;
        let shown = gone.handed(room, &carried).await?;
        demand(
            match shown {
                Shown::Read { .. } => readable,
                Shown::Unreadable { .. } => !readable,
                Shown::Nothing | Shown::Plain { .. } => false,
            },
            "let who is gone read what was said before, and nothing after",
            format!("{gone} is handed `{}`: {shown}", said.event),
        )?;
    }
    Ok(())
}

/// F12. bob leaves one room and is banned from another. What alice says after that is encrypted with another room key, and bob
/// cannot read it, also when he is handed the ciphertext; the controls are two messages under the same key before, which he
/// reads. "m.megolm.v1.aes-sha2".
#[tokio::test(flavor = "multi_thread")]
async fn who_left_or_was_banned_cannot_read_on() -> Outcome {
    encryption(&[Mutant::DropsToDevice], async |_, cast| {
        let (alice, bob) = cast.phones().await?;
        let user = bob.user_id();
        for gone in ["leave", "ban"] {
            let room = cast.garden(&alice, &bob).await?;
            let first = says(&alice, &room, "come in").await?;
            let second = says(&alice, &room, "sit down").await?;
            demand(
                first.session == second.session,
                "keep the room key while nobody is gone",
                format!("`{}` and `{}`", first.session, second.session),
            )?;
            bob.reads(&room, &second.event, "sit down").await?;
            let outcome = match gone {
                "leave" => bob.room(&room)?.leave().await,
                _ => alice.room(&room)?.ban_user(user, None).await,
            };
            sdk(outcome, || format!("{bob} is gone: {gone}"))?;
            alice.knows_membership(&room, user, gone).await?;
            let after = says(&alice, &room, "we are alone").await?;
            is_shut_out(&alice, &bob, &room, &second, &after).await?;
        }
        Ok(())
    })
    .await
}

/// F12. bob logs a device out. As soon as alice is told so, what she says is encrypted with another room key, and the device
/// cannot read it, also when it is handed the ciphertext. Conduit does not tell by itself; with the next device that bob takes
/// up it comes out. "m.megolm.v1.aes-sha2".
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_logged_out_cannot_read_on() -> Outcome {
    encryption(&[Mutant::KeepsGoneDevices], async |_, cast| {
        let (alice, phone) = cast.phones().await?;
        let tablet = cast.bobs("tablet").await?;
        let room = cast.garden(&alice, &phone).await?;
        let user = phone.user_id();
        alice.knows_device(user, tablet.device_id(), true).await?;
        let before = says(&alice, &room, "to all of you").await?;
        tablet.reads(&room, &before.event, "to all of you").await?;
        tablet.logs_out().await?;
        let said = phone.say(&room, "I lost my tablet").await?;
        alice.reads(&room, &said, "I lost my tablet").await?;
        let gone = alice.knows_device(user, tablet.device_id(), false);
        let gone = match cast.abroad.site.server.is_conduit() {
            // What it tells together with something else it has told when that has come.
            true => HASTE.scope(Duration::from_secs(5), gone).await,
            false => gone.await,
        };
        let gone = gone.map_err(|failure| {
            Failure::product("tell who shares a room with somebody that their devices changed")
                .last_seen(failure.to_string())
        });
        cast.known(&cast.abroad, &DEVICE_CHANGES_ARE_UNTOLD, gone)?;

        let watch = cast.bobs("watch").await?;
        let said = phone.say(&room, "I have a watch").await?;
        alice.reads(&room, &said, "I have a watch").await?;
        alice.knows_device(user, watch.device_id(), true).await?;
        alice.knows_device(user, tablet.device_id(), false).await?;
        let after = says(&alice, &room, "to those who are left").await?;
        phone
            .reads(&room, &after.event, "to those who are left")
            .await?;
        watch
            .reads(&room, &after.event, "to those who are left")
            .await?;
        is_shut_out(&alice, &tablet, &room, &before, &after).await
    })
    .await
}

/// F12. A room asks for another room key after three messages: the first three are encrypted with one, the next with another,
/// and bob reads them all. "m.room.encryption": `rotation_period_msgs`.
#[tokio::test(flavor = "multi_thread")]
async fn the_room_key_changes_after_as_many_messages_as_the_room_says() -> Outcome {
    encryption(&[Mutant::DropsToDevice], async |_, cast| {
        let (alice, bob) = cast.phones().await?;
        let how = EncryptedRoom {
            messages: Some(3),
            ..EncryptedRoom::default()
        };
        let room = cast.garden_with(&alice, &bob, how).await?;
        let mut sessions = Vec::new();
        for text in ["one", "two", "three", "four"] {
            let said = says(&alice, &room, text).await?;
            bob.reads(&room, &said.event, text).await?;
            sessions.push(said.session);
        }
        demand(
            sessions[..3].iter().all(|session| *session == sessions[0])
                && sessions[3] != sessions[0],
            "change the room key after three messages",
            format!("{sessions:?}"),
        )
    })
    .await
}

/// F12. A room asks for another room key after two seconds: what alice says some time later is encrypted with another one, and
/// bob reads it, while a room that asks for nothing keeps its key. "m.room.encryption": `rotation_period_ms`.
#[tokio::test(flavor = "multi_thread")]
async fn the_room_key_changes_after_as_long_as_the_room_says() -> Outcome {
    let between = [Between::Neighbours, Between::Conduits];
    encryption_between(&between, &[Mutant::DropsToDevice], async |_, cast| {
        let (alice, bob) = cast.phones().await?;
        let how = EncryptedRoom {
            period: Some(Duration::from_secs(2)),
            ..EncryptedRoom::default()
        };
        let short = cast.garden_with(&alice, &bob, how).await?;
        let long = cast.garden(&alice, &bob).await?;
        let first = says(&alice, &short, "tick").await?;
        let kept = says(&alice, &long, "tick").await?;
        let what = "the room key has changed";
        let changed = alice
            .until(what, async || match says(&alice, &short, "tock").await {
                Ok(said) if said.session != first.session => ProbeState::Ready(said),
                Ok(said) => ProbeState::NotYet(format!("it is still `{}`", said.session)),
                Err(failure) => ProbeState::NotYet(failure.to_string()),
            })
            .await?;
        bob.reads(&short, &changed.event, "tock").await?;
        let still = says(&alice, &long, "tock").await?;
        demand(
            kept.session == still.session,
            "keep the room key for as long as the room says",
            format!("`{}` and `{}`", kept.session, still.session),
        )
    })
    .await
}
