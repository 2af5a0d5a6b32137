//! What other servers may not put before a user.

use crate::{Cast, Table, demand, federation, federation_noticing, soon};
use fleet_peer::{Mutant, Room, Sealed, Signing, forge};
use harness::client::Event;
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::RoomId;
use serde_json::json;

/// What may become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Everybody in the room sees it.
    Seen,
    /// Its content is taken away, or it is not shown at all.
    Stripped,
    /// No client ever sees it.
    Never,
}

/// What the forger says wherever it may say something.
pub(crate) const FORGED: &str = "the treasure lies under the oak";

type Forgery = (&'static str, Fate, fn(&Cast, &Room) -> Result<Sealed>);

/// Each is what a well-behaved server would send, with one thing wrong. The first is the control: nothing is wrong.
const FORGERIES: &[Forgery] = &[
    ("nothing is wrong", Fate::Seen, |cast, room| {
        cast.peer.message(room, &cast.delia(), FORGED)
    }),
    ("another key signed", Fate::Never, |cast, room| {
        let event = cast.peer.message(room, &cast.delia(), FORGED)?;
        forge::signature(room, &cast.peer.name, &cast.peer.signing(), &event)
    }),
    ("nobody signed", Fate::Never, |cast, room| {
        forge::unsigned(room, &cast.peer.message(room, &cast.delia(), FORGED)?)
    }),
    (
        "a key signed that nobody published",
        Fate::Never,
        |cast, room| {
            let draft = room.draft(
                &cast.peer.name,
                &cast.delia(),
                "m.room.message",
                None,
                &forge::message(FORGED),
            )?;
            room.seal(&cast.peer.name, &Signing::new("nobodys"), draft)
        },
    ),
    (
        "the content was changed after it was signed",
        Fate::Stripped,
        |cast, room| {
            let event = cast.peer.message(room, &cast.delia(), "good morning")?;
            forge::content(room, &event, forge::message(FORGED))
        },
    ),
    (
        "the hash is another event's",
        Fate::Stripped,
        |cast, room| {
            let event = cast.peer.message(room, &cast.delia(), FORGED)?;
            forge::hash(room, &cast.peer.name, &cast.peer.signing(), &event)
        },
    ),
    (
        "the sender lives on a third server",
        Fate::Never,
        |cast, room| cast.peer.message(room, "@mallory:vale.test", FORGED),
    ),
    ("the sender is alice", Fate::Never, |cast, room| {
        let alice = cast.alice.user_id().as_str();
        cast.peer.message(room, alice, FORGED)
    }),
    (
        "the sender is not in the room",
        Fate::Never,
        |cast, room| cast.peer.message(room, &cast.peer.user("eve"), FORGED),
    ),
    (
        "the sender may not set power levels",
        Fate::Never,
        |cast, room| {
            let content = json!({"users": {cast.delia(): 100}});
            let kind = "m.room.power_levels";
            cast.peer
                .event(room, &cast.delia(), kind, Some(""), &content)
        },
    ),
    ("the sender may not kick", Fate::Never, |cast, room| {
        let content = json!({"membership": "leave", "reason": FORGED});
        let alice = cast.alice.user_id().as_str();
        cast.peer
            .event(room, &cast.delia(), "m.room.member", Some(alice), &content)
    }),
    (
        "nothing in the room authorises it",
        Fate::Never,
        |cast, room| {
            let content = forge::message(FORGED);
            let mut draft = room.draft(
                &cast.peer.name,
                &cast.delia(),
                "m.room.message",
                None,
                &content,
            )?;
            draft.insert(
                "auth_events".to_owned(),
                ruma::CanonicalJsonValue::Array(Vec::new()),
            );
            room.seal(&cast.peer.name, &cast.peer.signing(), draft)
        },
    ),
];

/// G7. delia's server, or somebody with its name, pushes events that are forged in one way each: signature, hash, sender,
/// right. None may reach a client; of one whose content does not match its hash only what the redaction leaves may.
/// A correct event behind all of them is the sentinel: once alice sees it, whatever else was to come has come.
/// "Checks performed on receipt of a PDU".
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_event_never_reaches_a_client() -> Outcome {
    federation_noticing(&[Mutant::MendsEvents], async |_, cast| {
        cast.peer.takes_transactions();
        let (garden, mut room) = cast.shared_garden().await?;
        let mut listener = cast.alice.listen().await?;
        let mut sent = Vec::new();
        for (what, fate, make) in FORGERIES {
            let event = make(cast, &room)?;
            let answer = cast.peer.deliver(&[&event], &[]).await?;
            sent.push((*what, *fate, event, answer));
        }
        let sentinel = cast
            .peer
            .say(&mut room, &cast.delia(), "good night")
            .await?;
        listener
            .until("alice sees the sentinel", soon(), |seen| {
                seen.event(&garden, &sentinel.id)
            })
            .await?;
        let mut shown = cast.alice.messages(&garden).await?;
        if let Some(seen) = listener.seen().room(&garden) {
            shown.extend(seen.timeline.iter().cloned());
        }
        shown.extend(cast.alice.room_state(&garden).await?);
        let mut table = Table::default();
        for (what, fate, event, answer) in &sent {
            let outcome = judge(*fate, event, &shown)
                .and(by_id(cast, &garden, *fate, event).await)
                .map_err(|failure| failure.because(answer));
            table.row(what, outcome);
        }
        table.verdict("let no forged event reach a client")?;
        // The check itself: a correct event that were forbidden would be found.
        let (_, _, control, _) = &sent[0];
        demand(
            judge(Fate::Never, control, &shown).is_err()
                && judge(Fate::Stripped, control, &shown).is_err(),
            "find an event that reached a client",
            format!("{shown:?}"),
        )
    })
    .await
}

/// Whether an event's fate is what it must be, by what alice was shown.
pub(crate) fn judge(fate: Fate, event: &Sealed, shown: &[Event]) -> Result<()> {
    let mut copies = shown.iter().filter(|seen| seen.event_id == event.id);
    let words = |seen: &Event| seen.content.to_string().contains(FORGED);
    match fate {
        Fate::Seen => demand(
            copies.any(words),
            "show a correct event",
            format!("`{}` is not among {} events", event.id, shown.len()),
        ),
        Fate::Stripped => match copies.find(|seen| words(seen)) {
            None => Ok(()),
            Some(seen) => Err(Failure::product("strip what does not match its hash")
                .last_seen(format!("{seen:?}"))),
        },
        Fate::Never => {
            match copies.next() {
                None => Ok(()),
                Some(seen) => Err(Failure::product("keep a forged event from clients")
                    .last_seen(format!("{seen:?}"))),
            }
        }
    }
}

/// The same, asked for by its id.
pub(crate) async fn by_id(cast: &Cast, garden: &RoomId, fate: Fate, event: &Sealed) -> Result<()> {
    let answer = cast.alice.try_event(garden, &event.id).await?;
    let shown: Vec<_> = answer.outcome.into_iter().collect();
    judge(fate, event, &shown)
}

/// G7, E16 in part. delia's server sends what it may send only for its own users, in the name of somebody else: of mallory,
/// who lives on a third server, and of alice herself; and it writes that third server's name into the transaction as its
/// origin, though its signature says otherwise. None of it reaches alice. The same message from delia, in a transaction that
/// claims nothing, is the sentinel, and the control. "Transactions", "Send-to-device messaging".
#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_event_in_anothers_name_is_dropped_whatever_origin_is_claimed() -> Outcome {
    federation(async |_, cast| {
        let alice = cast.alice.user_id();
        let note = |sender: &str, id: &str| {
            json!({
                "edu_type": "m.direct_to_device",
                "content": {
                    "sender": sender,
                    "type": "test.note",
                    "message_id": id,
                    "messages": {alice: {"*": {"note": id}}},
                },
            })
        };
        let mut listener = cast.alice.listen().await?;
        for (number, (origin, sender)) in [
            (&*cast.peer.name, "@mallory:vale.test"),
            ("vale.test", "@mallory:vale.test"),
            (&*cast.peer.name, alice.as_str()),
            (&*cast.site.name, alice.as_str()),
        ]
        .into_iter()
        .enumerate()
        {
            let body = json!({
                "origin": origin,
                "origin_server_ts": 1,
                "pdus": [],
                "edus": [note(sender, &format!("forged-{number}"))],
            });
            let path = format!("/_matrix/federation/v1/send/forged-{number}");
            // Refused as a whole or taken without it: what counts is what alice gets.
            cast.peer.ask("PUT", &path, Some(&body)).await?;
        }
        cast.peer
            .deliver(&[], &[note(&cast.delia(), "genuine")])
            .await?
            .must()?;
        listener
            .until("alice has delia's message", soon(), |seen| {
                let has = |id: &str| {
                    seen.to_device
                        .iter()
                        .any(|note| note["content"]["note"] == id)
                };
                if has("genuine") {
                    ProbeState::Ready(())
                } else {
                    ProbeState::NotYet(format!("{:?}", seen.to_device))
                }
            })
            .await?;
        let notes = &listener.seen().to_device;
        demand(
            notes.len() == 1,
            "drop what was sent in another's name",
            format!("{notes:?}"),
        )
    })
    .await
}
