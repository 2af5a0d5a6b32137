//! Invitations that nobody accepts: declined, refused, withdrawn, in both directions.

use crate::known::WITHDRAWN_INVITATION_STAYS;
use crate::{Cast, Table, V1, V2, demand, federation, soon, user};
use fleet_peer::{Ask, Reply, Room, Signed};
use harness::client::{Listener, Membership};
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::{OwnedRoomId, RoomId, RoomVersionId};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// A room of delia's server, and her invitation to alice, not sent yet.
pub(crate) struct Invitation {
    pub(crate) room: Room,
    pub(crate) request: Signed,
}

/// delia makes a room and writes an invitation for alice.
pub(crate) fn written(cast: &Cast) -> Result<Invitation> {
    let mut room = cast
        .peer
        .found(&cast.delia(), &RoomVersionId::V12, "moor")?;
    let request = written_for(cast, &mut room)?;
    Ok(Invitation { room, request })
}

/// delia writes an invitation for alice to a room of hers. It is in the room at once.
pub(crate) fn written_for(cast: &Cast, room: &mut Room) -> Result<Signed> {
    let alice = cast.alice.user_id().as_str();
    let content = json!({"membership": "invite"});
    let event = cast
        .peer
        .event(room, &cast.delia(), "m.room.member", Some(alice), &content)?;
    let body = json!({
        "room_version": room.version.as_str(),
        "event": event.json,
        "invite_room_state": room.state(),
    });
    let path = format!("{V2}/invite/{}/{}", room.id, event.id);
    let request = cast.peer.sign("PUT", &path, Some(&body))?;
    room.add(&event);
    Ok(request)
}

/// alice is in that section of a room.
pub(crate) async fn is(
    listener: &mut Listener,
    room: &RoomId,
    membership: Membership,
) -> Result<()> {
    listener
        .until(format!("alice is {membership:?}"), soon(), |seen| {
            seen.membership(room, membership)
        })
        .await?;
    Ok(())
}

/// E5. alice invites delia, and it comes to nothing: delia declines, her server will not have it, or alice takes it back, of
/// which delia's server is told. In each case alice sees it, and delia cannot come in. An invitation that stands is the
/// control: with it she could. "Inviting to a room", "Leaving rooms (rejecting invites)".
#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_to_another_server_is_declined_refused_or_withdrawn() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        // Some servers look up the profile of whom they invite.
        cast.peer.expect(Ask::Profile, |_| {
            Reply::json(&json!({"displayname": "Delia"}))
        });
        let mut table = Table::default();
        table.row("it stands", stands(cast).await);
        table.row("delia declines", declines(cast).await);
        table.row("alice withdraws", withdraws(cast).await);
        table.row("her server refuses", refuses(cast).await);
        table.verdict("let an invitation come to nothing")
    })
    .await
}

async fn invites(cast: &Cast) -> Result<OwnedRoomId> {
    cast.peer.takes_invitations();
    let garden = cast.alice.create_room("private garden").await?;
    cast.alice.invite(&garden, &user(&cast.delia())?).await?;
    is_with(cast, &garden, Some("invite")).await?;
    Ok(garden)
}

/// What delia is in a room, as alice sees it.
async fn is_with(cast: &Cast, garden: &RoomId, expected: Option<&str>) -> Result<()> {
    let delia = user(&cast.delia())?;
    let what = format!("alice sees delia as {expected:?}");
    harness::probe::until(&what, soon(), async || {
        match cast.alice.members(garden).await {
            Ok(members) => match members.get(&delia) {
                member if member.map(String::as_str) == expected => ProbeState::Ready(()),
                other => ProbeState::NotYet(format!("{other:?}")),
            },
            Err(failure) => ProbeState::NotYet(failure.to_string()),
        }
    })
    .await?;
    Ok(())
}

async fn comes_in(cast: &Cast, garden: &RoomId) -> Result<bool> {
    let path = format!("{V1}/make_join/{garden}/{}?ver=12", cast.delia());
    Ok(cast.peer.ask("GET", &path, None).await?.status == 200)
}

async fn kept_out(cast: &Cast, garden: &RoomId) -> Result<()> {
    demand(
        !comes_in(cast, garden).await?,
        "keep out who is not invited any more",
        "delia's server is given a join for her",
    )
}

async fn stands(cast: &Cast) -> Result<()> {
    let garden = invites(cast).await?;
    demand(
        comes_in(cast, &garden).await?,
        "let in who is invited",
        "delia's server is given no join for her",
    )
}

async fn declines(cast: &Cast) -> Result<()> {
    let garden = invites(cast).await?;
    let path = format!("{V1}/make_leave/{garden}/{}", cast.delia());
    let template = cast.peer.ask("GET", &path, None).await?.must()?;
    let (known, _) = cast.peer.join_event(&garden, &cast.delia()).await?;
    let leave = cast.peer.seal_template(&known, &template["event"])?;
    let path = format!("{V2}/send_leave/{garden}/{}", leave.id);
    cast.peer
        .ask("PUT", &path, Some(&json!(leave.json)))
        .await?
        .must()?;
    is_with(cast, &garden, Some("leave")).await?;
    kept_out(cast, &garden).await
}

async fn withdraws(cast: &Cast) -> Result<()> {
    let garden = invites(cast).await?;
    cast.alice.kick(&garden, &user(&cast.delia())?).await?;
    is_with(cast, &garden, Some("leave")).await?;
    kept_out(cast, &garden).await?;
    let what = "delia's server is told that she is not invited any more";
    harness::probe::until(what, soon(), async || {
        let told = cast.peer.transactions().into_iter().any(|transaction| {
            transaction.pdus.iter().any(|pdu| {
                let pdu = json!(pdu.json);
                pdu["room_id"] == garden.as_str()
                    && pdu["state_key"] == cast.delia()
                    && pdu["content"]["membership"] == "leave"
            })
        });
        if told {
            ProbeState::Ready(())
        } else {
            ProbeState::NotYet(format!("{} events came", cast.peer.received().len()))
        }
    })
    .await?;
    Ok(())
}

async fn refuses(cast: &Cast) -> Result<()> {
    cast.peer
        .expect(Ask::Invite, |_| Reply::refuse(403, "M_FORBIDDEN"));
    let garden = cast.alice.create_room("private garden").await?;
    let invited = cast
        .alice
        .try_invite(&garden, &user(&cast.delia())?)
        .await?;
    demand(
        !invited.accepted(),
        "tell alice that her invitation was refused",
        format!("{invited:?}"),
    )?;
    is_with(cast, &garden, None).await?;
    kept_out(cast, &garden).await
}

/// E5. delia invites alice, who declines: delia's server is asked for a leave and handed one that alice's server signed. She
/// declines as well while that server is down, or when it will not hear of it: for her the invitation is gone all the same.
/// "Leaving rooms (rejecting invites)".
#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_from_another_server_is_declined_also_while_that_is_down() -> Outcome {
    federation(async |_, cast| {
        let mut table = Table::default();
        table.row("delia's server is there", is_declined(cast).await);
        table.row(
            "it refuses",
            is_declined_in_vain(cast, || Reply::refuse(403, "M_FORBIDDEN")).await,
        );
        table.row(
            "it answers garbage",
            is_declined_in_vain(cast, Reply::garbage).await,
        );
        table.row("it is down", is_declined_when_down(cast).await);
        table.verdict("decline an invitation")
    })
    .await
}

async fn invited(cast: &Cast) -> Result<(Listener, Invitation)> {
    let mut listener = cast.alice.listen().await?;
    let invitation = written(cast)?;
    cast.peer.send(&invitation.request).await?.must()?;
    is(&mut listener, &invitation.room.id, Membership::Invited).await?;
    Ok((listener, invitation))
}

async fn is_declined(cast: &Cast) -> Result<()> {
    let (mut listener, invitation) = invited(cast).await?;
    let room = &invitation.room;
    cast.peer.lets_leave(&Arc::new(Mutex::new(room.clone())));
    let mark = cast.door.mark();
    cast.alice.leave(&room.id).await?;
    is(&mut listener, &room.id, Membership::Left).await?;
    let handed_in = cast.door.calls(mark, Ask::SendLeave);
    let [call] = &handed_in[..] else {
        return Err(
            Failure::product("hand in one leave").last_seen(format!("{:?}", cast.door.since(mark)))
        );
    };
    let leave = call.json();
    demand(
        leave["content"]["membership"] == "leave"
            && leave["state_key"] == cast.alice.user_id().as_str()
            && leave["sender"] == cast.alice.user_id().as_str()
            && leave["room_id"] == room.id.as_str(),
        "hand in alice's leave",
        leave.to_string(),
    )?;
    cast.peer.signed_by_home(room, &leave).await
}

async fn is_declined_in_vain(
    cast: &Cast,
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> Result<()> {
    let (mut listener, invitation) = invited(cast).await?;
    cast.peer.expect(Ask::MakeLeave, move |_| reply());
    cast.alice.leave(&invitation.room.id).await?;
    is(&mut listener, &invitation.room.id, Membership::Left).await
}

async fn is_declined_when_down(cast: &Cast) -> Result<()> {
    let (mut listener, invitation) = invited(cast).await?;
    cast.door.slam(true);
    let left = cast.alice.leave(&invitation.room.id).await;
    cast.door.slam(false);
    left?;
    is(&mut listener, &invitation.room.id, Membership::Left).await
}

/// E5. delia invites alice and takes the invitation back before she has answered: her server sends the leave that says so.
/// The invitation goes away. A leave that somebody else signed, or of a room to which alice was not invited, is the control:
/// another invitation stays. "Inviting to a room".
#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_is_withdrawn_goes_away() -> Outcome {
    federation(async |_, cast| {
        let (mut listener, invitation) = invited(cast).await?;
        let alice = cast.alice.user_id().as_str();
        let content: Value = json!({"membership": "leave"});
        let eve = cast.peer.user("eve");
        let kind = "m.room.member";
        let forged = cast
            .peer
            .event(&invitation.room, &eve, kind, Some(alice), &content)?;
        cast.peer.deliver(&[&forged], &[]).await?;
        // Something later that certainly shows.
        let garden = cast.garden().await?;
        is(&mut listener, &garden, Membership::Joined).await?;
        is(&mut listener, &invitation.room.id, Membership::Invited).await?;
        let withdrawn =
            cast.peer
                .event(&invitation.room, &cast.delia(), kind, Some(alice), &content)?;
        let answer = cast.peer.deliver(&[&withdrawn], &[]).await?;
        let gone = listener
            .until(
                "the withdrawn invitation is gone",
                std::time::Duration::from_secs(5),
                |seen| seen.membership(&invitation.room.id, Membership::Left),
            )
            .await
            .map_err(|unmet| Failure::from(unmet).because(answer));
        cast.known(&WITHDRAWN_INVITATION_STAYS, gone)
    })
    .await
}
