//! Ephemeral events that other servers may not send, or that are none.

use crate::devices::{is_told, upload_keys};
use crate::known::{BAD_SIGNING_KEYS_STOP_A_TRANSACTION, RECEIPTS_OF_STRANGERS};
use crate::{Cast, Table, demand, federation, soon, user};
use fleet_peer::{Ask, Reply};
use harness::client::{Listener, NewRoom, Seen};
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json};
use std::time::Duration;

/// Long enough for what came with a transaction that was answered.
const PROMPT: Duration = Duration::from_secs(10);

/// A room, and something that alice said there.
struct Spot {
    room: OwnedRoomId,
    said: OwnedEventId,
}

fn typing(spot: &Spot, who: &str) -> Value {
    let content = json!({"room_id": spot.room, "user_id": who, "typing": true});
    json!({"edu_type": "m.typing", "content": content})
}

fn receipt(spot: &Spot, who: &str) -> Value {
    let read = json!({who: {"data": {"ts": 1}, "event_ids": [spot.said]}});
    json!({"edu_type": "m.receipt", "content": {spot.room.as_str(): {"m.read": read}}})
}

type Ephemeral = (&'static str, &'static str, fn(&Spot, &str) -> Value);
const EPHEMERAL: &[Ephemeral] = &[
    ("typing", "m.typing", typing),
    ("a receipt", "m.receipt", receipt),
];

/// What of a room's ephemeral events names that user.
fn names(seen: &Seen, spot: &Spot, kind: &str, who: &str) -> bool {
    seen.room(&spot.room)
        .and_then(|room| room.ephemeral.get(kind))
        .is_some_and(|content| content.to_string().contains(who))
}

async fn spot(cast: &Cast, room: OwnedRoomId) -> Result<Spot> {
    let said = cast.alice.say(&room, "good morning").await?;
    Ok(Spot { room, said })
}

/// E16. delia's server says that somebody types or has read: alice's neighbour, alice herself, somebody on a third server, one
/// of its own who is not in the room; and delia, in a room of alice's where nobody of her server is. None of it reaches alice.
/// That delia types and has read in the room where she is comes behind it, and is seen. "Typing notifications", "Receipts".
#[tokio::test(flavor = "multi_thread")]
async fn who_types_or_has_read_is_believed_of_the_servers_own_members_only() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let (garden, _) = cast.shared_garden().await?;
        let inside = spot(cast, garden).await?;
        let outside = spot(cast, cast.alice.create_room("private garden").await?).await?;
        let delia = cast.delia();
        let bob = format!("@bob:{}", cast.site.name);
        let alice = cast.alice.user_id().to_string();
        let eve = cast.peer.user("eve");
        let forged = [
            ("alice's neighbour", &*bob, &inside),
            ("alice herself", &*alice, &inside),
            ("a third server's user", "@mallory:vale.test", &inside),
            ("one who is not in the room", &*eve, &inside),
            ("delia, where she is not", &*delia, &outside),
        ];
        let mut table = Table::default();
        for (what, kind, make) in EPHEMERAL {
            let mut listener = cast.alice.listen().await?;
            for (number, (whose, who, spot)) in forged.iter().enumerate() {
                // Of alice herself she may be shown what she has done: she has read what she said. Synapse looks only whether
                // the user's server is in the room.
                let own = *kind == "m.receipt" && *who == alice;
                if own || (*who == eve && !cast.site.server.is_conduit()) {
                    continue;
                }
                // The newest replaces what came before: each has its own sentinel behind it.
                let id = format!("{kind}-{number}");
                cast.peer
                    .deliver(&[], &[make(spot, who), note(cast, &id)])
                    .await?
                    .must()?;
                arrives(&mut listener, &id).await?;
                let seen = listener.seen();
                let last = seen.room(&spot.room).map(|room| &room.ephemeral);
                let outcome = demand(
                    !names(seen, spot, kind, who),
                    "drop what was sent in another's name",
                    format!("{last:?}"),
                );
                let stranger = *who == eve || *who == delia;
                let outcome = if stranger && *kind == "m.receipt" {
                    cast.known(&RECEIPTS_OF_STRANGERS, outcome)
                } else {
                    outcome
                };
                table.row(&format!("{what} of {whose}"), outcome);
            }
            cast.peer
                .deliver(&[], &[make(&inside, &delia)])
                .await?
                .must()?;
            listener
                .until(format!("alice sees {what} of delia"), soon(), |seen| {
                    if names(seen, &inside, kind, &delia) {
                        ProbeState::Ready(())
                    } else {
                        ProbeState::NotYet(format!("{:?}", seen.room(&inside.room)))
                    }
                })
                .await?;
        }
        table.verdict("believe a server of its own members only")
    })
    .await
}

/// What is no proper ephemeral event.
const MALFORMED: &[(&str, &str)] = &[
    ("nothing", "null"),
    ("a text", "\"nonsense\""),
    ("a list", "[]"),
    ("an empty object", "{}"),
    ("no content", r#"{"edu_type": "m.typing"}"#),
    ("no type", r#"{"content": {}}"#),
    (
        "a type that is a number",
        r#"{"edu_type": 7, "content": {}}"#,
    ),
    (
        "an unknown type",
        r#"{"edu_type": "test.unknown", "content": {}}"#,
    ),
    (
        "content that is a text",
        r#"{"edu_type": "m.typing", "content": "nonsense"}"#,
    ),
    (
        "a user who is none",
        r#"{"edu_type": "m.typing", "content": {"room_id": "!a:b.test", "user_id": "nobody", "typing": true}}"#,
    ),
    (
        "a room that is none",
        r#"{"edu_type": "m.receipt", "content": {"nowhere": {"m.read": {}}}}"#,
    ),
    (
        "receipts that are a list",
        r#"{"edu_type": "m.receipt", "content": []}"#,
    ),
    (
        "a device list of nobody",
        r#"{"edu_type": "m.device_list_update", "content": {"stream_id": "one"}}"#,
    ),
    (
        "messages that are a list",
        r#"{"edu_type": "m.direct_to_device", "content": {"sender": "@delia:PEER", "type": "test.note", "message_id": "m", "messages": []}}"#,
    ),
    (
        "a message to nobody's device",
        r#"{"edu_type": "m.direct_to_device", "content": {"sender": "@delia:PEER", "type": "test.note", "message_id": "n", "messages": {"@nobody:HOME": {"*": {}, "D": "text"}}}}"#,
    ),
    (
        "presence of nobody",
        r#"{"edu_type": "m.presence", "content": {"push": [{"user_id": "nobody"}]}}"#,
    ),
    (
        "cross-signing keys that are none",
        r#"{"edu_type": "m.signing_key_update", "content": {"user_id": "@delia:PEER", "master_key": {"user_id": "@delia:PEER", "usage": ["master"], "keys": {}}}}"#,
    ),
];

/// E16. delia's server sends ephemeral events that are none, each in a transaction with a good to-device message behind it.
/// Whatever becomes of the bad one, the good one reaches alice. "Transactions".
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ephemeral_event_does_not_stop_the_good_ones() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let mut listener = cast.alice.listen().await?;
        let mut sent = Vec::new();
        for (number, (what, text)) in MALFORMED.iter().enumerate() {
            let text = text
                .replace("PEER", &cast.peer.name)
                .replace("HOME", &cast.site.name);
            let bad: Value = serde_json::from_str(&text)
                .map_err(|e| Failure::harness(format!("{what}: {e}")))?;
            let id = format!("behind-{number}");
            let answer = cast.peer.deliver(&[], &[bad, note(cast, &id)]).await?;
            sent.push((*what, id, answer));
        }
        cast.peer
            .deliver(&[], &[note(cast, "sentinel")])
            .await?
            .must()?;
        arrives(&mut listener, "sentinel").await?;
        let mut table = Table::default();
        for (what, id, answer) in sent {
            let outcome = demand(
                has(listener.seen(), &id),
                "take the good event behind a bad one",
                answer.to_string(),
            );
            table.row(
                what,
                if what == "cross-signing keys that are none" {
                    cast.known(&BAD_SIGNING_KEYS_STOP_A_TRANSACTION, outcome)
                } else {
                    outcome
                },
            );
        }
        table.verdict("take what is good of a transaction")
    })
    .await
}

fn note(cast: &Cast, id: &str) -> Value {
    json!({
        "edu_type": "m.direct_to_device",
        "content": {
            "sender": cast.delia(),
            "type": "test.note",
            "message_id": id,
            "messages": {cast.alice.user_id(): {"*": {"note": id}}},
        },
    })
}

async fn arrives(listener: &mut Listener, id: &str) -> Result<()> {
    listener
        .until(format!("alice has the message `{id}`"), soon(), |seen| {
            if has(seen, id) {
                ProbeState::Ready(())
            } else {
                ProbeState::NotYet(format!("{:?}", seen.to_device))
            }
        })
        .await?;
    Ok(())
}

fn has(seen: &Seen, id: &str) -> bool {
    seen.to_device
        .iter()
        .any(|note| note["content"]["note"] == id)
}

/// What is no event, or none of a room that anybody knows.
const NO_EVENTS: &[(&str, &str)] = &[
    ("nothing", "null"),
    ("a text", "\"nonsense\""),
    ("a list", "[]"),
    ("an empty object", "{}"),
    (
        "an event of an unknown room",
        r#"{"room_id": "!nowhere:nowhere.test"}"#,
    ),
    (
        "an event of a room with nothing in it",
        r#"{"room_id": "ROOM"}"#,
    ),
    (
        "an event whose signatures are a text",
        r#"{"room_id": "ROOM", "type": "m.room.message", "sender": "@delia:PEER", "content": {}, "depth": 1, "origin_server_ts": 1, "prev_events": [], "auth_events": [], "hashes": {"sha256": "aaa"}, "signatures": "mine"}"#,
    ),
];

/// E16. The same of events: behind each that is none there is a good one, which alice sees. Synapse refuses a transaction as a
/// whole in which something is no object, which the section leaves open. "Transactions".
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_does_not_stop_the_good_ones() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let (garden, mut room) = cast.shared_garden().await?;
        let mut table = Table::default();
        for (what, text) in NO_EVENTS {
            let text = text
                .replace("PEER", &cast.peer.name)
                .replace("ROOM", garden.as_str());
            let bad: Value = serde_json::from_str(&text)
                .map_err(|e| Failure::harness(format!("{what}: {e}")))?;
            if !bad.is_object() && !cast.site.server.is_conduit() {
                continue;
            }
            let good = cast.peer.message(&room, &cast.delia(), what)?;
            let pdus = [bad, json!(good.json)];
            let answer = cast.peer.deliver_raw(&pdus, &[]).await?;
            let seen = cast.alice.sees_within(&garden, &good.id, PROMPT).await;
            if seen.is_ok() {
                room.add(&good);
            }
            table.row(
                what,
                seen.map(|_| ())
                    .map_err(|unmet| Failure::from(unmet).because(answer)),
            );
        }
        table.verdict("take what is good of a transaction")
    })
    .await
}

/// E16, E15. delia's server says that the devices of alice changed and that alice is away: neither is its to say, and alice, who
/// shares an encrypted room with delia, is told of neither. That delia's own devices changed is the sentinel; and when
/// alice's devices do change, she is told, so that it would have been seen. "Device management"; "Presence".
#[tokio::test(flavor = "multi_thread")]
async fn devices_and_presence_of_others_are_not_believed() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let delias = json!({"user_id": cast.delia(), "stream_id": 7, "devices": [{
            "device_id": "GENUINE",
            "keys": {
                "user_id": cast.delia(), "device_id": "GENUINE", "algorithms": [], "keys": {}, "signatures": {},
            },
        }]});
        cast.peer.expect(Ask::Devices, move |_| Reply::json(&delias));
        let garden = cast
            .alice
            .create_room(NewRoom::public("garden").encrypted())
            .await?;
        cast.joins(&garden, &cast.delia()).await?;
        let alice = cast.alice.user_id();
        let update = |who: &str| {
            json!({"edu_type": "m.device_list_update", "content": {
                "user_id": who, "device_id": "FORGED", "stream_id": 7, "prev_id": [], "deleted": false,
            }})
        };
        let away = json!({"edu_type": "m.presence", "content": {"push": [{
            "user_id": alice, "presence": "offline", "status_msg": "forged", "last_active_ago": 1,
        }]}});
        let mut listener = cast.alice.listen().await?;
        listener.forget();
        cast.peer
            .deliver(&[], &[update(alice.as_str()), away])
            .await?
            .must()?;
        cast.peer
            .deliver(&[], &[update(&cast.delia())])
            .await?
            .must()?;
        let delia = user(&cast.delia())?;
        is_told(&mut listener, &delia, soon()).await?;
        let seen = listener.seen();
        demand(
            !seen.device_lists_changed.contains(alice),
            "believe a server about its own users' devices only",
            format!("{:?}", seen.device_lists_changed),
        )?;
        let status = seen.presence.get(alice).map(|told| &told["status_msg"]);
        demand(
            status.is_none_or(|status| status != "forged"),
            "believe a server about its own users' presence only",
            format!("{status:?}"),
        )?;
        upload_keys(&cast.alice).await?;
        is_told(&mut listener, alice, soon()).await
    })
    .await
}
