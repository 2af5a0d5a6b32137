//! Joins that are not quite as they should be: what the room's server adds to its answer, and what a joining server hands in.

use crate::bridge::lock;
use crate::invitations::written_for;
use crate::known::{
    JOIN_STOPS_AT_A_BAD_EVENT, JOIN_TRUSTS_THE_STATE, MOVES_ITS_OWN_USERS, REJOINED_AS_INVITED,
    SIGNS_FOR_ANYBODY,
};
use crate::rooms::server;
use crate::{Cast, Table, V1, V2, demand, federation, soon};
use fleet_peer::{Ask, Gate, Peer, Replied, Room, Sealed, Signing, Visit, forge};
use futures_util::future::{Either, select};
use harness::client::Membership;
use harness::known::Known;
use harness::probe::{self, ProbeState};
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::canonical_json::CanonicalJsonObject;
use ruma::{RoomId, RoomVersionId, ServerName};
use serde_json::{Value, json};
use std::pin::pin;
use std::sync::{Arc, Mutex};

/// What nobody should read who joins, unless it is properly signed and authorised.
const WORDS: &str = "the treasure lies under the oak";

/// An event that the room's server puts among the state which it gives to alice, and what must become of it.
type Added = (&'static str, Shown, fn(&Cast, &Room) -> Result<Value>);

/// Whether alice may see [`WORDS`].
#[derive(Clone, Copy)]
enum Shown {
    Yes,
    No,
    /// No, but this is what happens.
    Known(&'static Known),
}

fn note(peer: &Peer, room: &Room, sender: &str) -> Result<Sealed> {
    peer.event(room, sender, "test.note", Some(""), &json!({"note": WORDS}))
}

/// A note of delia's in which something is changed before it is sealed, with a signature that is right for it.
fn changed(cast: &Cast, room: &Room, change: fn(&mut Value)) -> Result<Value> {
    let content = json!({"note": WORDS});
    let draft = room.draft(
        &cast.peer.name,
        &cast.delia(),
        "test.note",
        Some(""),
        &content,
    )?;
    let mut draft = json!(draft);
    change(&mut draft);
    let draft: CanonicalJsonObject =
        serde_json::from_value(draft).map_err(|e| Failure::harness(e.to_string()))?;
    let sealed = room.seal(&cast.peer.name, &cast.peer.signing(), draft)?;
    Ok(json!(sealed.json))
}

/// The first is the control.
const ADDED: &[Added] = &[
    ("nothing is wrong", Shown::Yes, |cast, room| {
        Ok(json!(note(&cast.peer, room, &cast.delia())?.json))
    }),
    (
        "its sender's server cannot be asked for its key",
        Shown::No,
        |_, room| {
            let (server, mallory) = ("nowhere.test", "@mallory:nowhere.test");
            let content = json!({"membership": "join", "displayname": WORDS});
            let draft = room.draft(server, mallory, "m.room.member", Some(mallory), &content)?;
            let event = room.seal(server, &Signing::new("k_nowhere"), draft)?;
            Ok(json!(event.json))
        },
    ),
    ("another key signed", Shown::No, |cast, room| {
        let event = note(&cast.peer, room, &cast.delia())?;
        let event = forge::signature(room, &cast.peer.name, &cast.peer.signing(), &event)?;
        Ok(json!(event.json))
    }),
    ("nobody signed", Shown::No, |cast, room| {
        let event = note(&cast.peer, room, &cast.delia())?;
        Ok(json!(forge::unsigned(room, &event)?.json))
    }),
    (
        "the content was changed after it was signed",
        Shown::Known(&JOIN_TRUSTS_THE_STATE),
        |cast, room| {
            let content = json!({"note": "good morning"});
            let event = cast
                .peer
                .event(room, &cast.delia(), "test.note", Some(""), &content)?;
            let event = forge::content(room, &event, json!({"note": WORDS}))?;
            Ok(json!(event.json))
        },
    ),
    (
        "its sender has never been in the room",
        Shown::Known(&JOIN_TRUSTS_THE_STATE),
        |cast, room| Ok(json!(note(&cast.peer, room, &cast.peer.user("eve"))?.json)),
    ),
    (
        "it is another room's",
        Shown::Known(&JOIN_TRUSTS_THE_STATE),
        |cast, room| {
            let other = cast.peer.found(&cast.delia(), &room.version, "heath")?;
            Ok(json!(note(&cast.peer, &other, &cast.delia())?.json))
        },
    ),
];

/// What is no event at all, or none that follows the format. Synapse takes some of it, and refuses the whole join for the
/// rest; the section leaves both open.
const NO_EVENTS: &[Added] = &[
    ("it is no object", Shown::No, |_, _| Ok(json!(WORDS))),
    ("it has no time", Shown::No, |cast, room| {
        changed(cast, room, |event| {
            event
                .as_object_mut()
                .map(|event| event.remove("origin_server_ts"));
        })
    }),
    ("it has a negative depth", Shown::No, |cast, room| {
        changed(cast, room, |event| event["depth"] = json!(-1))
    }),
    (
        "it follows on what is no event's id",
        Shown::Known(&JOIN_STOPS_AT_A_BAD_EVENT),
        |cast, room| changed(cast, room, |event| event["prev_events"] = json!(["before"])),
    ),
];

/// E7. alice joins a room of delia's, whose server adds one event to the state that it gives her: one that cannot be
/// verified, that nobody was allowed to send, or that is none at all. She is in the room all the same, hears and is heard;
/// and of the added event she sees nothing. A proper event is the control: she sees it. "Joining rooms", "Checks performed on
/// receipt of a PDU".
#[tokio::test(flavor = "multi_thread")]
async fn a_join_survives_what_cannot_be_verified_and_leaves_it_out() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let mut table = Table::default();
        let malformed = if cast.site.server.is_conduit() {
            NO_EVENTS
        } else {
            &[]
        };
        for added in ADDED.iter().chain(malformed) {
            let outcome = joins_with(cast, added).await;
            table.row(
                added.0,
                match added.1 {
                    Shown::Known(known) => cast.known(known, outcome),
                    _ => outcome,
                },
            );
        }
        table.verdict("join, and leave out what is not verified")
    })
    .await
}

async fn joins_with(cast: &Cast, (_, shown, make): &Added) -> Result<()> {
    let room = cast
        .peer
        .found(&cast.delia(), &RoomVersionId::V12, "moor")?;
    let id = room.id.clone();
    let added = make(cast, &room)?;
    let room = Arc::new(Mutex::new(room));
    cast.peer.hosts_so(&room, move |answer| {
        for key in ["auth_chain", "state"] {
            if let Some(events) = answer[key].as_array_mut() {
                events.push(added.clone());
            }
        }
    });
    let via = ServerName::parse(&cast.peer.name).map_err(|e| Failure::harness(e.to_string()))?;
    cast.alice.join_via(id.as_str(), &[via]).await?;
    let state = cast.alice.room_state(&id).await?;
    let named = |event: &&harness::client::Event| event.kind == "m.room.name";
    demand(
        state
            .iter()
            .find(named)
            .is_some_and(|event| event.content["name"] == "moor"),
        "show the state that was verified",
        format!("{state:?}"),
    )?;
    let shown = matches!(shown, Shown::Yes);
    let words = state
        .iter()
        .find(|event| event.content.to_string().contains(WORDS));
    demand(
        words.is_some() == shown,
        if shown {
            "show a proper event of the room's state"
        } else {
            "leave out what was not verified"
        },
        format!("{words:?}"),
    )?;
    let hello = cast.alice.say(&id, "hello").await?;
    cast.peer.receives(&[hello], soon()).await
}

/// What must become of a join that is handed in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Becomes {
    /// It is granted.
    Granted,
    /// It is refused.
    Refused,
    /// It is refused or not; whoever it is about does not come in.
    Nothing,
}
use Becomes::{Granted, Nothing, Refused};

/// What is handed in: path and body.
type HandedIn = (
    &'static str,
    Becomes,
    fn(&Cast, &Ready) -> Result<(String, Value)>,
);

/// A room of alice's, and a proper join of eve's that was not handed in yet.
struct Ready {
    id: ruma::OwnedRoomId,
    room: Room,
    join: Sealed,
    /// The same of another room of alice's.
    elsewhere: Sealed,
    /// A proper join of bertha's, from before she was banned.
    banned: Sealed,
    /// The ban.
    ban: ruma::OwnedEventId,
}

impl Ready {
    fn handed_in(&self, event: &Sealed) -> (String, Value) {
        let path = format!("{V2}/send_join/{}/{}", self.id, event.id);
        (path, json!(event.json))
    }

    /// eve's join with something changed in it, and sealed by her server.
    fn changed(&self, cast: &Cast, change: impl FnOnce(&mut Value)) -> Result<(String, Value)> {
        let mut event = json!(self.join.json);
        for key in ["hashes", "signatures"] {
            event.as_object_mut().map(|event| event.remove(key));
        }
        change(&mut event);
        let event: CanonicalJsonObject =
            serde_json::from_value(event).map_err(|e| Failure::harness(e.to_string()))?;
        let sealed = self
            .room
            .seal(&cast.peer.name, &cast.peer.signing(), event)?;
        Ok(self.handed_in(&sealed))
    }
}

/// The last is the control: the same join as it was sealed first.
const HANDED_IN: &[HandedIn] = &[
    ("of whom alice banned", Refused, |cast, ready| {
        let bertha = cast.peer.user("bertha");
        ready.changed(cast, |event| {
            for key in ["sender", "state_key"] {
                event[key] = json!(bertha);
            }
            // Behind the ban, and with it among what authorises the join.
            if let Some(auth) = event["auth_events"].as_array_mut() {
                auth.push(json!(ready.ban));
            }
        })
    }),
    (
        "of whom alice banned, from before the ban",
        Nothing,
        |_, ready| Ok(ready.handed_in(&ready.banned)),
    ),
    ("signed by another key", Refused, |cast, ready| {
        let signing = cast.peer.signing();
        let event = forge::signature(&ready.room, &cast.peer.name, &signing, &ready.join)?;
        Ok(ready.handed_in(&event))
    }),
    ("without a signature", Refused, |_, ready| {
        Ok(ready.handed_in(&forge::unsigned(&ready.room, &ready.join)?))
    }),
    ("of another room", Refused, |_, ready| {
        Ok(ready.handed_in(&ready.elsewhere))
    }),
    ("of a room that nobody knows", Refused, |_, ready| {
        let (path, body) = ready.handed_in(&ready.join);
        Ok((
            path.replacen(ready.id.as_str(), "!nowhere:nowhere.test", 1),
            body,
        ))
    }),
    ("that is a message", Refused, |cast, ready| {
        ready.changed(cast, |event| event["type"] = json!("m.room.message"))
    }),
    ("that is an invitation", Refused, |cast, ready| {
        ready.changed(cast, |event| {
            event["content"]["membership"] = json!("invite");
        })
    }),
    ("that is a leave", Refused, |cast, ready| {
        ready.changed(cast, |event| {
            event["content"]["membership"] = json!("leave")
        })
    }),
    ("for somebody else", Refused, |cast, ready| {
        let dora = cast.peer.user("dora");
        ready.changed(cast, |event| event["state_key"] = json!(dora))
    }),
    ("without a state key", Refused, |cast, ready| {
        ready.changed(cast, |event| {
            event.as_object_mut().map(|event| event.remove("state_key"));
        })
    }),
    ("of a user of a third server", Refused, |cast, ready| {
        ready.changed(cast, |event| {
            for key in ["sender", "state_key"] {
                event[key] = json!("@mallory:vale.test");
            }
        })
    }),
    ("of alice's neighbour", Refused, |cast, ready| {
        let bob = format!("@bob:{}", cast.site.name);
        ready.changed(cast, |event| {
            for key in ["sender", "state_key"] {
                event[key] = json!(bob);
            }
        })
    }),
    (
        "that nothing in the room authorises",
        Refused,
        |cast, ready| ready.changed(cast, |event| event["auth_events"] = json!([])),
    ),
    ("that is no object", Refused, |_, ready| {
        Ok((ready.handed_in(&ready.join).0, json!("let me in")))
    }),
    ("as it should be", Granted, |_, ready| {
        Ok(ready.handed_in(&ready.join))
    }),
];

/// E7. delia's server hands in joins that are forged in one way each, or of somebody whom alice banned meanwhile. Each is
/// refused, and nobody comes in by it. The same join as it was sealed first is the control: it is granted. "Joining rooms".
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_or_banned_join_is_refused() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let ready = ready(cast).await?;
        let mut table = Table::default();
        for (what, becomes, make) in HANDED_IN {
            let before = cast.alice.members(&ready.id).await?;
            let (path, body) = make(cast, &ready)?;
            let answer = cast.peer.ask("PUT", &path, Some(&body)).await?;
            let after = cast.alice.members(&ready.id).await?;
            let answered = match becomes {
                Granted => demand(answer.status == 200, "grant it", answer.to_string()),
                Refused => refused(&answer),
                Nothing => Ok(()),
            };
            let came = demand(
                (after != before) == (*becomes == Granted),
                "let in who may come, and nobody else",
                format!("{after:?} after {answer}"),
            );
            table.row(what, came.and(answered));
        }
        table.verdict("refuse what is no proper join")
    })
    .await
}

fn refused(answer: &Replied) -> Result<()> {
    demand(
        (400..500).contains(&answer.status) && answer.body["state"].is_null(),
        "refuse it",
        answer.to_string(),
    )
}

async fn ready(cast: &Cast) -> Result<Ready> {
    let (eve, bertha) = (cast.peer.user("eve"), cast.peer.user("bertha"));
    let (id, room) = cast.shared_garden().await?;
    let other = cast.garden().await?;
    let (_, elsewhere) = cast.peer.join_event(&other, &eve).await?;
    let (_, banned) = cast.peer.join_event(&id, &bertha).await?;
    let ban = json!({"membership": "ban"});
    let ban = cast
        .alice
        .send_state(&id, "m.room.member", &bertha, &ban)
        .await?;
    let path = format!("{V1}/make_join/{id}/{bertha}?ver=12");
    refused(&cast.peer.ask("GET", &path, None).await?)?;
    let (_, join) = cast.peer.join_event(&id, &eve).await?;
    Ok(Ready {
        id,
        room,
        join,
        elsewhere,
        banned,
        ban,
    })
}

/// A kind of membership, whose event a server draws up for another, and the room's members after it was sent.
const DRAWN_UP: &[&str] = &["make_join", "make_leave", "make_knock"];

/// E7. delia's server asks alice's to draw up a membership for somebody who is not its own: for alice herself, for her
/// neighbour, for somebody on a third server. It is not given one that alice's server has signed, and what it was given
/// changes nothing when it is sent back: alice is in the room, and nobody has come. "Joining rooms", "Leaving rooms".
#[tokio::test(flavor = "multi_thread")]
async fn no_server_is_given_a_membership_of_anothers_user() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let mut table = Table::default();
        let bob = format!("@bob:{}", cast.site.name);
        for who in [cast.alice.user_id().as_str(), &bob, "@mallory:vale.test"] {
            for make in DRAWN_UP {
                let (garden, _) = cast.shared_garden().await?;
                let outcome = draws_up(cast, &garden, make, who).await;
                let own = who.ends_with(&cast.site.name);
                let alices = who == cast.alice.user_id().as_str();
                let outcome = match *make {
                    "make_leave" if alices => cast.known(&MOVES_ITS_OWN_USERS, outcome),
                    "make_join" if own && !alices => cast.known(&MOVES_ITS_OWN_USERS, outcome),
                    "make_join" => cast.known(&SIGNS_FOR_ANYBODY, outcome),
                    _ => outcome,
                };
                table.row(&format!("{make} for {who}"), outcome);
            }
        }
        table.verdict("draw up nothing for another server's user")
    })
    .await
}

async fn draws_up(cast: &Cast, garden: &RoomId, make: &str, who: &str) -> Result<()> {
    let before = cast.alice.members(garden).await?;
    let path = format!("{V1}/{make}/{garden}/{who}?ver=12");
    let answer = cast.peer.ask("GET", &path, None).await?;
    let signed = &answer.body["event"]["signatures"][&cast.site.name];
    if answer.status == 200 {
        // Whatever it is, it is sent back just as it came.
        let drawn_up = [answer.body["event"].clone()];
        cast.peer.deliver_raw(&drawn_up, &[]).await?;
    }
    let after = cast.alice.try_room_state(garden).await?;
    let after = if after.accepted() {
        cast.alice.members(garden).await?
    } else {
        Default::default()
    };
    demand(
        after == before,
        "leave everybody's membership to his own server",
        format!("{after:?} after {answer}"),
    )?;
    demand(
        !signed.is_object(),
        "sign no membership for another server",
        answer.to_string(),
    )?;
    refused(&answer)
}

/// How often alice goes and comes back. What can go wrong is a race, and a run is to meet it.
const RETURNS: usize = 3;

/// How many requests alice's server answers meanwhile.
const OTHER_THINGS: usize = 50;

/// E6. alice leaves a room of delia's and comes back by an invitation, several times. As the servers of a room do, delia's
/// tells hers of the join as of any other event, and that comes before the join itself is answered: so that her server is
/// told of the invitation once more, when she is about to be in. She is in the room each time, and where she is taken for
/// merely invited, joining again brings her in. "Joining rooms", "Checks performed on receipt of a PDU".
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_by_an_invitation_is_in_the_room() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let room = cast
            .peer
            .found(&cast.delia(), &RoomVersionId::V12, "moor")?;
        let id = room.id.clone();
        let room = Arc::new(Mutex::new(room));
        cast.peer.serves(&room);
        joins_again(cast, &room).await?;
        for _ in 0..RETURNS {
            goes(cast, &room).await?;
            let invitation = written_for(cast, &mut lock(&room))?;
            cast.peer.send(&invitation).await?.must()?;
            let came = comes_back(cast, &room).await;
            let taken_for_invited = came.is_err();
            cast.flaws
                .race(&REJOINED_AS_INVITED, &cast.site.server, came)?;
            if taken_for_invited {
                joins_again(cast, &room).await?;
            }
            let hello = cast.alice.say(&id, "hello").await?;
            cast.peer.receives(&[hello], soon()).await?;
        }
        Ok(())
    })
    .await
}

/// alice joins, and is in the room.
async fn joins_again(cast: &Cast, room: &Arc<Mutex<Room>>) -> Result<()> {
    let id = lock(room).id.clone();
    cast.peer.hosts(room);
    cast.alice
        .join_via(id.as_str(), &[server(&cast.peer.name)?])
        .await?;
    is_in(cast, &id).await
}

async fn is_in(cast: &Cast, room: &RoomId) -> Result<()> {
    let seen = cast.alice.glimpse().await?;
    let membership = seen.room(room).map(|room| room.membership);
    demand(
        membership == Some(Membership::Joined),
        "be in a room after a join that was granted",
        format!("{membership:?}"),
    )
}

/// alice leaves, and delia's server knows it.
async fn goes(cast: &Cast, room: &Arc<Mutex<Room>>) -> Result<()> {
    let id = lock(room).id.clone();
    let before = cast.peer.transactions().len();
    cast.alice.leave(&id).await?;
    let left = probe::until(
        "delia's server is told that alice left",
        soon(),
        async || {
            let transactions = cast.peer.transactions();
            let pdus = transactions.iter().skip(before).flat_map(|sent| &sent.pdus);
            let mut leaves = pdus.filter(|pdu| json!(pdu.json)["content"]["membership"] == "leave");
            match leaves.next() {
                Some(leave) => ProbeState::Ready(leave.clone()),
                None => ProbeState::NotYet("no leave has come".to_owned()),
            }
        },
    )
    .await?;
    lock(room).add(&left);
    Ok(())
}

/// alice joins; her server is told of her join before it is answered.
async fn comes_back(cast: &Cast, room: &Arc<Mutex<Room>>) -> Result<()> {
    let id = lock(room).id.clone();
    let gate = Gate::closed();
    cast.peer.hosts_late(room, &gate);
    let mark = cast.door.mark();
    let via = [server(&cast.peer.name)?];
    let tells = async {
        let what = "alice's server hands in her join";
        cast.door
            .until(what, soon(), mark, |visits| asked(visits, &[Ask::SendJoin]))
            .await?;
        let join = lock(room)
            .state_event("m.room.member", cast.alice.user_id().as_str())
            .ok_or_else(|| Failure::harness("know the join that was handed in"))?;
        let told = async {
            let told = cast.peer.deliver(&[&join], &[]).await;
            gate.open();
            told?.must()
        };
        let goes_on = async {
            let what = "alice's server asks for what came before her join";
            cast.door
                .until(what, soon(), mark, |visits| {
                    asked(visits, &[Ask::Event, Ask::EventAuth, Ask::StateIds])
                })
                .await?;
            // Nothing shows when it has judged what it was told. It is asked other things for as long as that may take.
            for _ in 0..OTHER_THINGS {
                cast.alice.whoami().await?;
            }
            gate.open();
            Ok::<_, Failure>(())
        };
        let (told, goes_on) = (pin!(told), pin!(goes_on));
        match select(told, goes_on).await {
            // It has taken it without asking.
            Either::Left((told, _)) => told,
            Either::Right((gone_on, told)) => {
                gone_on?;
                told.await
            }
        }
    };
    let joins = cast.alice.join_via(id.as_str(), &via);
    let (joined, told) = tokio::join!(joins, tells);
    joined?;
    told?;
    is_in(cast, &id).await
}

fn asked(visits: &[Visit], asks: &[Ask]) -> ProbeState<()> {
    let comes = |visit: &Visit| matches!(visit, Visit::Expected(call) if asks.contains(&call.ask));
    match visits.iter().any(comes) {
        true => ProbeState::Ready(()),
        false => ProbeState::NotYet(format!("{visits:?}")),
    }
}
