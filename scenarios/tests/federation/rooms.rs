//! Rooms that lie on several servers: coming in, and being kept out.

use crate::known::{ACL_SPARES_EPHEMERAL_EVENTS, BACKFILL_FORGETS_CREATORS};
use crate::{Cast, Table, V1, V2, demand, federation, federation_noticing, soon, user};
use fleet_peer::{Answer, Ask, Mutant, Reply, Room, zone};
use harness::authority::Validity;
use harness::probe::ProbeState;
use harness::scenario::{Outcome, Stage};
use harness::{Failure, Result};
use ruma::{OwnedRoomId, OwnedServerName, RoomVersionId, ServerName};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// What the first server of the list does when it is asked for help with a join. One that never answers is not among them:
/// Conduit waits three minutes for it.
type Bad = (
    &'static str,
    &'static str,
    fn(&str) -> String,
    Option<fn() -> Reply>,
);

const BAD: &[Bad] = &[
    (
        "refuses connections",
        "refuses.test",
        |door| {
            // The discard port: the machine is there, nothing listens.
            zone(
                "refuses.test",
                door,
                &["_matrix-fed._tcp IN SRV 10 0 9 refuses.test.".to_owned()],
            )
        },
        None,
    ),
    (
        "is no machine",
        "gone.test",
        |door| {
            // The last address of the lab's network that a machine may have.
            let network = door.rsplit_once('.').map_or(door, |(network, _)| network);
            zone("gone.test", &format!("{network}.250"), &[])
        },
        None,
    ),
    (
        "shows no certificate",
        "bare.test",
        |door| zone("bare.test", door, &[]),
        None,
    ),
    (
        "answers 500",
        "broken.test",
        |door| zone("broken.test", door, &[]),
        Some(|| Reply::Now(Answer::json(500, &json!({})))),
    ),
    (
        "answers garbage",
        "garbled.test",
        |door| zone("garbled.test", door, &[]),
        Some(Reply::garbage),
    ),
    (
        "does not know the room",
        "stranger.test",
        |door| zone("stranger.test", door, &[]),
        Some(|| Reply::refuse(404, "M_NOT_FOUND")),
    ),
];

/// E6. alice is given two servers that should be able to help her into a room. The first cannot, in one way or another; she
/// is in the room all the same, sees who is there, and is heard there. By the first server alone she does not come in: it is
/// the second that helps. "Joining rooms".
#[tokio::test(flavor = "multi_thread")]
async fn a_join_goes_on_to_the_second_server_when_the_first_fails() -> Outcome {
    federation_noticing(&[Mutant::LosesEvents], async |stage, cast| {
        cast.peer.takes_transactions();
        let zones = BAD
            .iter()
            .map(|(_, name, zone, _)| ((*name).to_owned(), zone(cast.door.address())));
        stage.world.publish(zones).await?;
        let mut table = Table::default();
        for (number, bad) in BAD.iter().enumerate() {
            // Rooms are made alternately in the fleet's version and in the one before.
            let version = [RoomVersionId::V12, RoomVersionId::V11][number % 2].clone();
            table.row(bad.0, fails_over(stage, cast, bad, &version).await);
        }
        table.verdict("join through the second server")
    })
    .await
}

async fn fails_over(stage: &Stage, cast: &Cast, bad: &Bad, version: &RoomVersionId) -> Result<()> {
    let (_, name, _, answers) = bad;
    let first = server(name)?;
    if let Some(reply) = answers {
        cast.door
            .show(name, &stage.world.certificate(&[name], Validity::Current)?)?;
        cast.door
            .expect(name, Ask::WellKnown, |_| Reply::refuse(404, "M_NOT_FOUND"));
        let reply = *reply;
        cast.door.expect(name, Ask::MakeJoin, move |_| reply());
    }
    let delia = cast.delia();
    let room = cast.peer.found(&delia, version, "moor")?;
    let id = room.id.clone();
    let room = Arc::new(Mutex::new(room));
    cast.peer.hosts(&room);
    // The id of an older room names a server that can be asked without being listed.
    if id.server_name().is_none() {
        let alone = cast
            .alice
            .try_join_via(id.as_str(), std::slice::from_ref(&first))
            .await?;
        demand(
            !alone.accepted(),
            "need the second server",
            format!("{alone:?}"),
        )?;
    }
    let mark = cast.door.mark();
    cast.alice
        .join_via(id.as_str(), &[first, server(&cast.peer.name)?])
        .await?;
    demand(
        cast.door.calls(mark, Ask::SendJoin).len() == 1,
        "join once, at the second server",
        format!("{:?}", cast.door.since(mark)),
    )?;
    let members = cast.alice.members(&id).await?;
    let joined = |who: &ruma::UserId| members.get(who).is_some_and(|state| state == "join");
    demand(
        joined(&user(&delia)?) && joined(cast.alice.user_id()),
        "show who is in the room",
        format!("{members:?}"),
    )?;
    let hello = cast.alice.say(&id, "hello").await?;
    cast.peer.receives(&[hello], soon()).await
}

pub(crate) fn server(name: &str) -> Result<OwnedServerName> {
    use harness::OrBlame;
    ServerName::parse(name).or_harness(|| format!("name the server `{name}`"))
}

/// Where something is asked of: a room and what is known of it.
struct Place {
    id: OwnedRoomId,
    room: Room,
    /// A join and a leave that were sealed while it was still allowed.
    join: (String, Value),
    leave: (String, Value),
}

type Endpoint = (
    &'static str,
    fn(&Cast, &Place) -> Result<(&'static str, String, Option<Value>)>,
);

fn create(place: &Place) -> Result<fleet_peer::Sealed> {
    place
        .room
        .state_event("m.room.create", "")
        .ok_or_else(|| Failure::harness("know the room's creation"))
}

fn tip(place: &Place) -> Result<&ruma::EventId> {
    let tip = place.room.tips().first();
    tip.map(|id| &**id)
        .ok_or_else(|| Failure::harness("know the room's newest event"))
}

/// The endpoints that the section lists, in an order in which each is allowed without an ACL. Knocking is not among them:
/// in a room that anybody may join it is never allowed.
const ENDPOINTS: &[Endpoint] = &[
    ("make_join", |cast, place| {
        let path = format!(
            "{V1}/make_join/{}/{}?ver=12",
            place.id,
            cast.peer.user("new")
        );
        Ok(("GET", path, None))
    }),
    ("make_leave", |cast, place| {
        Ok((
            "GET",
            format!("{V1}/make_leave/{}/{}", place.id, cast.peer.user("dora")),
            None,
        ))
    }),
    ("state", |_, place| {
        Ok((
            "GET",
            format!("{V1}/state/{}?event_id={}", place.id, tip(place)?),
            None,
        ))
    }),
    ("state_ids", |_, place| {
        Ok((
            "GET",
            format!("{V1}/state_ids/{}?event_id={}", place.id, tip(place)?),
            None,
        ))
    }),
    ("event_auth", |_, place| {
        Ok((
            "GET",
            format!("{V1}/event_auth/{}/{}", place.id, tip(place)?),
            None,
        ))
    }),
    ("backfill", |_, place| {
        Ok((
            "GET",
            format!("{V1}/backfill/{}?v={}&limit=5", place.id, tip(place)?),
            None,
        ))
    }),
    ("get_missing_events", |_, place| {
        let body = json!({
            "earliest_events": [create(place)?.id],
            "latest_events": [tip(place)?],
            "limit": 5,
        });
        Ok((
            "POST",
            format!("{V1}/get_missing_events/{}", place.id),
            Some(body),
        ))
    }),
    ("invite", |cast, place| {
        let bob = format!("@ezra:{}", cast.site.name);
        let content = json!({"membership": "invite"});
        let delia = cast.delia();
        let event = cast
            .peer
            .event(&place.room, &delia, "m.room.member", Some(&bob), &content)?;
        let body = json!({
            "room_version": place.room.version.as_str(),
            "event": event.json,
            "invite_room_state": [create(place)?.json],
        });
        Ok((
            "PUT",
            format!("{V2}/invite/{}/{}", place.id, event.id),
            Some(body),
        ))
    }),
    ("send_join", |_, place| {
        let (id, event) = &place.join;
        Ok((
            "PUT",
            format!("{V2}/send_join/{}/{id}", place.id),
            Some(event.clone()),
        ))
    }),
    ("send_join, first version", |_, place| {
        let (id, event) = &place.join;
        Ok((
            "PUT",
            format!("{V1}/send_join/{}/{id}", place.id),
            Some(event.clone()),
        ))
    }),
    ("send_leave", |_, place| {
        let (id, event) = &place.leave;
        Ok((
            "PUT",
            format!("{V2}/send_leave/{}/{id}", place.id),
            Some(event.clone()),
        ))
    }),
];

/// E14. alice bans delia's server from a room in which it already is. From then on nothing of it is taken there and nothing
/// of the room is told to it: not by any endpoint, not in a transaction. The same routine runs in a second room without the
/// ban, where everything is granted. "Server Access Control Lists (ACLs)".
#[tokio::test(flavor = "multi_thread")]
async fn a_banned_server_is_kept_out_at_every_endpoint() -> Outcome {
    federation_noticing(&[Mutant::GrantsEverything], async |_, cast| {
        cast.peer.takes_transactions();
        let mut open = place(cast).await?;
        let mut closed = place(cast).await?;
        let mut listener = cast.alice.listen().await?;
        ban(cast, &closed.id).await?;
        let mut table = Table::default();
        for (what, make) in ENDPOINTS {
            let (method, path, body) = make(cast, &open)?;
            let granted = cast.peer.ask(method, &path, body.as_ref()).await?;
            table.row(
                &format!("{what} without a ban"),
                demand(granted.status == 200, "grant it", granted.to_string()),
            );
            let (method, path, body) = make(cast, &closed)?;
            let refused = cast.peer.ask(method, &path, body.as_ref()).await?;
            table.row(
                what,
                demand(
                    refused.status == 403
                        && refused.errcode() == "M_FORBIDDEN"
                        && refused.body.as_object().is_some_and(|body| body.len() == 2),
                    "refuse it with 403 and nothing else",
                    refused.to_string(),
                ),
            );
        }
        // In one transaction: the banned room first, so that whoever sees the second event has been through the first.
        let delia = cast.delia();
        let banned = cast.peer.message(&closed.room, &delia, "let me in")?;
        let allowed = cast.peer.message(&open.room, &delia, "good morning")?;
        let typing = |place: &Place| {
            let content = json!({"room_id": place.id, "user_id": delia, "typing": true});
            json!({"edu_type": "m.typing", "content": content})
        };
        let edus = [typing(&closed), typing(&open)];
        let answer = cast
            .peer
            .deliver(&[&banned, &allowed], &edus)
            .await?
            .must()?;
        listener
            .until("alice sees what came to the open room", soon(), |seen| {
                seen.event(&open.id, &allowed.id)
            })
            .await?;
        let kept_out = cast.alice.try_event(&closed.id, &banned.id).await?;
        let shown = cast.alice.messages(&closed.id).await?;
        table.row(
            "an event in a transaction",
            demand(
                !kept_out.accepted() && shown.iter().all(|event| event.event_id != banned.id),
                "keep the banned server's event out",
                answer.to_string(),
            ),
        );
        let types = |place: &Place| {
            let (id, delia) = (place.id.clone(), delia.clone());
            move |seen: &harness::client::Seen| {
                let typing = seen
                    .room(&id)
                    .and_then(|room| room.ephemeral.get("m.typing"));
                match typing {
                    Some(content) if content.to_string().contains(&delia) => ProbeState::Ready(()),
                    other => ProbeState::NotYet(format!("{other:?}")),
                }
            }
        };
        listener
            .until(
                "alice sees delia typing in the open room",
                soon(),
                types(&open),
            )
            .await?;
        let typed = types(&closed)(listener.seen());
        let outcome = demand(
            !matches!(typed, ProbeState::Ready(())),
            "keep the banned server's typing out",
            "alice saw delia typing in the closed room",
        );
        table.row(
            "an ephemeral event in a transaction",
            cast.known(&ACL_SPARES_EPHEMERAL_EVENTS, outcome),
        );
        open.room.add(&allowed);
        closed.room.add(&banned);
        table.verdict("keep a banned server out")
    })
    .await
}

/// A room of alice's with delia and dora in it, and what they may do there later.
async fn place(cast: &Cast) -> Result<Place> {
    let (id, room) = cast.shared_garden().await?;
    let dora = cast.peer.user("dora");
    cast.joins(&id, &dora).await?;
    let (_, join) = cast.peer.join_event(&id, &cast.peer.user("new")).await?;
    let path = format!("{V1}/make_leave/{id}/{dora}");
    let template = cast.peer.ask("GET", &path, None).await?.must()?;
    let leave = cast.peer.seal_template(&room, &template["event"])?;
    // delia may invite: rooms differ in whether everybody does.
    let mut levels = cast
        .alice
        .room_state(&id)
        .await?
        .into_iter()
        .find(|event| event.kind == "m.room.power_levels")
        .map(|event| event.content)
        .ok_or_else(|| Failure::product("give a room power levels"))?;
    levels["invite"] = json!(0);
    let set = cast
        .alice
        .send_state(&id, "m.room.power_levels", "", &levels)
        .await?;
    cast.peer
        .receives(std::slice::from_ref(&set), soon())
        .await?;
    let mut place = Place {
        id,
        room,
        join: (join.id.to_string(), json!(join.json)),
        leave: (leave.id.to_string(), json!(leave.json)),
    };
    // What alice set is the newest event that delia's server knows.
    for pdu in cast
        .peer
        .transactions()
        .into_iter()
        .flat_map(|transaction| transaction.pdus)
    {
        if pdu
            .json
            .get("room_id")
            .and_then(ruma::CanonicalJsonValue::as_str)
            == Some(place.id.as_str())
        {
            place.room.add(&pdu);
        }
    }
    Ok(place)
}

async fn ban(cast: &Cast, room: &ruma::RoomId) -> Result<()> {
    let content = json!({"allow": ["*"], "deny": [cast.peer.name], "allow_ip_literals": false});
    let acl = cast
        .alice
        .send_state(room, "m.room.server_acl", "", &content)
        .await?;
    cast.alice.sees(room, &acl).await?;
    Ok(())
}

/// E5, in part. alice invites delia into a room that only the invited may enter; delia's server puts its signature on the
/// invitation, and delia comes in and is heard. "Inviting to a room".
#[tokio::test(flavor = "multi_thread")]
async fn an_invited_user_of_another_server_comes_in_and_is_heard() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        cast.peer.takes_invitations();
        // Some servers look up the profile of whom they invite.
        cast.peer.expect(Ask::Profile, |_| {
            Reply::json(&json!({"displayname": "Delia"}))
        });
        let garden = cast.alice.create_room("private garden").await?;
        let delia = cast.delia();
        let path = format!("{V1}/make_join/{garden}/{delia}?ver=12");
        let uninvited = cast.peer.ask("GET", &path, None).await?;
        demand(
            uninvited.status == 403,
            "keep out who is not invited",
            uninvited.to_string(),
        )?;
        cast.alice.invite(&garden, &user(&delia)?).await?;
        let mut room = cast.joins(&garden, &delia).await?;
        let hello = cast.peer.say(&mut room, &delia, "hello").await?;
        cast.alice.sees(&garden, &hello.id).await?;
        Ok(())
    })
    .await
}

/// E8, in part. delia says two things, and the first is lost on the way: when the second arrives, the home asks for what lies
/// between and alice sees both. Where delia's server has lost the first one too, the room goes on all the same. "Backfilling
/// and retrieving missing events".
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_filled_and_what_is_withheld_does_not_stop_the_room() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let (garden, mut room) = cast.shared_garden().await?;
        let delia = cast.delia();
        let lost = cast.peer.message(&room, &delia, "lost on the way")?;
        room.add(&lost);
        let second = cast.peer.message(&room, &delia, "and found")?;
        room.add(&second);
        let shared = Arc::new(Mutex::new(room));
        cast.peer.serves(&shared);
        cast.peer.deliver(&[&second], &[]).await?.must()?;
        for event in [&lost, &second] {
            cast.alice.sees_within(&garden, &event.id, soon()).await?;
        }
        // The same once more, and nobody has it any longer.
        let (gone, after) = {
            let mut room = shared
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let gone = cast.peer.message(&room, &delia, "gone for good")?;
            room.add(&gone);
            room.withhold(&gone.id);
            let after = cast.peer.message(&room, &delia, "after it")?;
            room.add(&after);
            (gone, after)
        };
        let answer = cast.peer.deliver(&[&after], &[]).await?;
        demand(
            answer.status == 200,
            "answer a transaction with a gap",
            answer.to_string(),
        )?;
        let goes_on = cast.alice.say(&garden, "still here").await?;
        cast.alice.sees(&garden, &goes_on).await?;
        cast.peer.receives(&[goes_on], soon()).await?;
        let shown = cast.alice.try_event(&garden, &gone.id).await?;
        demand(
            !shown.accepted(),
            "not show what it never had",
            format!("{shown:?}"),
        )
    })
    .await
}

/// E8, in part. alice joins a room of delia's in which something was said before, and which shows its history to its
/// members: she scrolls back and reads it. In a room of version 12 nobody but the creator stands above the others, and the
/// creator's level is not written down. "Backfilling and retrieving missing events", "Room history visibility".
#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_a_join_is_fetched_from_the_rooms_server() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let mut table = Table::default();
        for version in [RoomVersionId::V11, RoomVersionId::V12] {
            let outcome = scrolls_back(cast, &version).await;
            let outcome = if version == RoomVersionId::V12 {
                cast.known(&BACKFILL_FORGETS_CREATORS, outcome)
            } else {
                outcome
            };
            table.row(version.as_str(), outcome);
        }
        table.verdict("fetch a room's history")
    })
    .await
}

async fn scrolls_back(cast: &Cast, version: &RoomVersionId) -> Result<()> {
    let delia = cast.delia();
    let mut room = cast.peer.found(&delia, version, "moor")?;
    let before = cast.peer.message(&room, &delia, "before you came")?;
    room.add(&before);
    let id = room.id.clone();
    let room = Arc::new(Mutex::new(room));
    cast.peer.hosts(&room);
    cast.peer.serves(&room);
    cast.alice
        .join_via(id.as_str(), &[server(&cast.peer.name)?])
        .await?;
    let mark = cast.door.mark();
    cast.alice
        .sees_within(&id, &before.id, std::time::Duration::from_secs(10))
        .await
        .map_err(|unmet| {
            let asked = cast.door.calls(mark, Ask::Backfill).len();
            Failure::from(unmet).because(format!("it asked for history {asked} times"))
        })?;
    Ok(())
}
