//! A partner that answers rubbish to what the home asks it.

use crate::events::FORGED;
use crate::known::{BACKFILL_BYPASSES_THE_ROOM, FOLLOWS_WRONG_EVENTS, OTHER_EVENT_UNDER_AN_ID};
use crate::{Cast, Table, demand, federation, soon, user};
use fleet_peer::{Answer, Ask, Call, Gate, Reply, Room, Sealed, forge};
use harness::known::Known;
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::canonical_json::CanonicalJsonObject;
use ruma::{EventId, OwnedEventId, RoomVersionId, ServerName};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// More than this nobody should ask because of one event that it was sent. Conduit fetches up to a hundred that lie before it.
const BOUND: usize = 220;
/// What a huge answer is blown up with.
const HUGE: usize = 24 * 1024 * 1024;
/// What a server asks that misses something.
const ASKED: &[Ask] = &[
    Ask::Event,
    Ask::MissingEvents,
    Ask::State,
    Ask::StateIds,
    Ask::EventAuth,
    Ask::Backfill,
];

/// Answers whatever is asked about a room; the number says how often it was asked before.
type Answers = Arc<dyn Fn(&Call, usize) -> Reply + Send + Sync>;
type Rubbish = (
    &'static str,
    Option<&'static Known>,
    fn(&Cast, &Room) -> Result<Answers>,
);

/// Events in every shape in which they are asked for.
fn wrapped(ask: Ask, event: &Value, id: &str) -> Reply {
    let pdus = json!([event]);
    Reply::json(&match ask {
        Ask::MissingEvents => json!({"events": pdus}),
        Ask::State => json!({"pdus": pdus, "auth_chain": pdus}),
        Ask::StateIds => json!({"pdu_ids": [id], "auth_chain_ids": [id]}),
        Ask::EventAuth => json!({"auth_chain": pdus}),
        _ => json!({"origin": "moor.test", "origin_server_ts": 1, "pdus": pdus}),
    })
}

fn always(event: &Sealed) -> Answers {
    let (id, event) = (event.id.to_string(), json!(event.json));
    Arc::new(move |call, _| wrapped(call.ask, &event, &id))
}

/// An id that no event has: of this room, so that none is known from another.
fn no_id(room: &Room, number: usize) -> String {
    let mark: String = room.id.as_str().chars().skip(1).take(8).collect();
    format!("${mark}{number:0>35}")
}

/// Events without end: each answer is one that was not asked for, and names others that nobody knows.
fn endless(cast: &Cast, room: &Room, link: &'static str) -> Result<Answers> {
    let delia = cast.delia();
    let draft = room.draft(
        &cast.peer.name,
        &delia,
        "m.room.message",
        None,
        &forge::message(FORGED),
    )?;
    let (peer, room) = (cast.peer.clone(), room.clone());
    Ok(Arc::new(move |call, number| {
        // Nobody is kept busy for ever: the verdict is clear by then.
        if number > 2 * BOUND {
            return Reply::refuse(404, "M_NOT_FOUND");
        }
        let mut event = json!(draft);
        event[link] = json!([no_id(&room, number)]);
        let sealed = serde_json::from_value::<CanonicalJsonObject>(event)
            .ok()
            .and_then(|event| room.seal(&peer.name, &peer.signing(), event).ok());
        match sealed {
            Some(sealed) => wrapped(call.ask, &json!(sealed.json), &no_id(&room, number)),
            None => Reply::refuse(500, "M_UNKNOWN"),
        }
    }))
}

const RUBBISH: &[Rubbish] = &[
    ("that it knows nothing", None, |_, _| {
        Ok(Arc::new(|_, _| Reply::refuse(404, "M_NOT_FOUND")))
    }),
    ("an error", None, |_, _| {
        Ok(Arc::new(|_, _| Reply::Now(Answer::json(500, &json!({})))))
    }),
    ("bytes that are nothing", None, |_, _| {
        Ok(Arc::new(|_, _| Reply::garbage()))
    }),
    ("an empty object", None, |_, _| {
        Ok(Arc::new(|_, _| Reply::json(&json!({}))))
    }),
    (
        "another event than was asked for",
        Some(&OTHER_EVENT_UNDER_AN_ID),
        // It is a good one, and may be shown, under its own id.
        |cast, room| {
            Ok(always(&cast.peer.message(
                room,
                &cast.delia(),
                "by the way",
            )?))
        },
    ),
    ("another room's event", None, |cast, room| {
        let other = cast.peer.found(&cast.delia(), &room.version, "heath")?;
        Ok(always(&cast.peer.message(&other, &cast.delia(), FORGED)?))
    }),
    ("a forged event", None, |cast, room| {
        let event = cast.peer.message(room, &cast.delia(), FORGED)?;
        let event = forge::signature(room, &cast.peer.name, &cast.peer.signing(), &event)?;
        Ok(always(&event))
    }),
    (
        "events that follow on others without end",
        Some(&OTHER_EVENT_UNDER_AN_ID),
        |cast, room| endless(cast, room, "prev_events"),
    ),
    (
        "events that rest on others without end",
        Some(&FOLLOWS_WRONG_EVENTS),
        |cast, room| endless(cast, room, "auth_events"),
    ),
    ("far too much", None, |_, _| {
        Ok(Arc::new(|_, _| {
            Reply::json(&json!({"pdus": ["x".repeat(HUGE)]}))
        }))
    }),
];

/// E8. delia's server sends an event that follows on one which the home does not have, and answers rubbish to all that the
/// home asks about it. The home asks a bounded number of times, shows nothing of the rubbish, and the room goes on: what
/// delia says next is seen, what alice says arrives. "Backfilling and retrieving missing events".
#[tokio::test(flavor = "multi_thread")]
async fn a_partner_that_answers_rubbish_does_not_stop_the_room() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let mut table = Table::default();
        for (what, known, make) in RUBBISH {
            let outcome = answers_rubbish(cast, *make).await;
            table.row(
                what,
                match known {
                    Some(known) => cast.known(known, outcome),
                    None => outcome,
                },
            );
        }
        table.verdict("go on with a partner that answers rubbish")
    })
    .await
}

/// The peer answers so whatever is asked about events. Returns how often it was.
fn answer_with(cast: &Cast, answers: &Answers) -> Arc<AtomicUsize> {
    let count = Arc::<AtomicUsize>::default();
    for ask in ASKED {
        let (answers, count) = (answers.clone(), count.clone());
        cast.peer.expect(*ask, move |call| {
            answers(call, count.fetch_add(1, Ordering::SeqCst))
        });
    }
    count
}

/// An event of delia's that follows on one that only its id is known of.
fn after_a_gap(cast: &Cast, room: &Room, lost: &EventId) -> Result<Sealed> {
    let draft = room.draft(
        &cast.peer.name,
        &cast.delia(),
        "m.room.message",
        None,
        &forge::message("after the gap"),
    )?;
    let mut draft = json!(draft);
    draft["prev_events"] = json!([lost]);
    let draft: CanonicalJsonObject =
        serde_json::from_value(draft).map_err(|e| Failure::harness(e.to_string()))?;
    room.seal(&cast.peer.name, &cast.peer.signing(), draft)
}

async fn answers_rubbish(cast: &Cast, make: fn(&Cast, &Room) -> Result<Answers>) -> Result<()> {
    let (garden, mut room) = cast.shared_garden().await?;
    let delia = cast.delia();
    let lost = cast.peer.message(&room, &delia, "lost on the way")?;
    let after = after_a_gap(cast, &room, &lost.id)?;
    let count = answer_with(cast, &make(cast, &room)?);
    // Taken or not: what counts is what comes of it.
    let answer = cast.peer.deliver(&[&after], &[]).await?;
    // Some servers ask only after they have answered.
    harness::probe::until(
        "the home asks for what lies between",
        soon(),
        async || match count.load(Ordering::SeqCst) {
            0 => ProbeState::NotYet(answer.to_string()),
            _ => ProbeState::Ready(()),
        },
    )
    .await?;
    let next = cast.peer.say(&mut room, &delia, "good night").await?;
    cast.alice.sees(&garden, &next.id).await?;
    let asked = count.load(Ordering::SeqCst);
    demand(
        asked <= BOUND,
        "ask a bounded number of times",
        format!("it asked {asked} times because of one event"),
    )?;
    let by_id = cast.alice.try_event(&garden, &lost.id).await?;
    demand(
        !by_id.accepted(),
        "show nothing under the id of what it never had",
        format!("{by_id:?}"),
    )?;
    let shown = cast.alice.messages(&garden).await?;
    let forged = |event: &&harness::client::Event| event.content.to_string().contains(FORGED);
    demand(
        !shown.iter().any(|event| forged(&event)),
        "show nothing but what was asked for",
        format!("{:?}", shown.iter().find(forged)),
    )?;
    let hello = cast.alice.say(&garden, "still here").await?;
    cast.peer.receives(&[hello], soon()).await
}

/// E8. delia's server takes its time to answer what the home asks about a gap. Meanwhile alice is heard in the room, and
/// delia in another one; once it has answered, both sides of the gap are there. "Backfilling and retrieving missing events".
#[tokio::test(flavor = "multi_thread")]
async fn a_partner_that_answers_slowly_holds_up_nobody_else() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let (garden, mut room) = cast.shared_garden().await?;
        let (other, mut elsewhere) = cast.shared_garden().await?;
        let delia = cast.delia();
        let lost = cast.peer.message(&room, &delia, "lost on the way")?;
        room.add(&lost);
        let after = cast.peer.message(&room, &delia, "after the gap")?;
        room.add(&after);
        cast.peer.serves(&Arc::new(Mutex::new(room)));
        let late = Gate::closed();
        cast.door.holds(&late);
        let mark = cast.door.mark();
        let peer = cast.peer.clone();
        let sent = after.clone();
        let under_way = tokio::spawn(async move { peer.deliver(&[&sent], &[]).await });
        cast.door
            .until(
                "the home asks about the gap",
                soon(),
                mark,
                |visits| match visits.len() {
                    0 => ProbeState::NotYet("it asked nothing".to_owned()),
                    _ => ProbeState::Ready(()),
                },
            )
            .await?;
        let hello = cast.alice.say(&garden, "meanwhile").await?;
        cast.alice.sees(&garden, &hello).await?;
        let there = cast
            .peer
            .say(&mut elsewhere, &delia, "in another room")
            .await?;
        cast.alice.sees(&other, &there.id).await?;
        let early = cast.alice.try_event(&garden, &lost.id).await?;
        demand(
            !early.accepted(),
            "wait for what it asked for",
            format!("{early:?}"),
        )?;
        late.open();
        let answer = under_way
            .await
            .map_err(|e| Failure::harness(e.to_string()))??;
        demand(
            answer.status == 200,
            "take what came late",
            answer.to_string(),
        )?;
        for event in [&lost, &after] {
            cast.alice.sees(&garden, &event.id).await?;
        }
        Ok(())
    })
    .await
}

/// What delia's server makes up as history: of its own room, and of alice's garden, from which delia was banned.
type History = (
    &'static str,
    Option<&'static Known>,
    fn(&Cast, &Room, &Room) -> Result<Value>,
);

fn page(events: &[Sealed]) -> Value {
    let pdus: Vec<_> = events.iter().map(|event| json!(event.json)).collect();
    json!({"origin": "moor.test", "origin_server_ts": 1, "pdus": pdus})
}

const HISTORY: &[History] = &[
    ("nothing", None, |_, _, _| Ok(page(&[]))),
    ("no list", None, |_, _, _| Ok(json!({"pdus": FORGED}))),
    ("what is no event", None, |_, _, _| {
        Ok(json!({"origin": "moor.test", "origin_server_ts": 1, "pdus": [FORGED, null, 7, {}, []]}))
    }),
    ("a forged event", None, |cast, room, _| {
        let event = cast.peer.message(room, &cast.delia(), FORGED)?;
        let signing = cast.peer.signing();
        Ok(page(&[forge::signature(
            room,
            &cast.peer.name,
            &signing,
            &event,
        )?]))
    }),
    ("an event of who never was there", None, |cast, room, _| {
        Ok(page(&[cast.peer.message(
            room,
            &cast.peer.user("eve"),
            FORGED,
        )?]))
    }),
    (
        "an event of a room that she was banned from",
        Some(&BACKFILL_BYPASSES_THE_ROOM),
        |cast, _, garden| Ok(page(&[cast.peer.message(garden, &cast.delia(), FORGED)?])),
    ),
];

/// E8. alice joins a room of delia's and scrolls back; delia's server makes up the history that it is asked for. Nothing of
/// it is shown, in that room or in alice's garden, from which delia is banned; and the room goes on. "Backfilling and
/// retrieving missing events".
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_made_up_is_not_shown() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let (garden, banned) = cast.shared_garden().await?;
        cast.alice.ban(&garden, &user(&cast.delia())?).await?;
        let mut table = Table::default();
        for (what, known, make) in HISTORY {
            let outcome = makes_up(cast, &banned, *make).await;
            table.row(
                what,
                match known {
                    Some(known) => cast.known(known, outcome),
                    None => outcome,
                },
            );
        }
        table.verdict("show no history that was made up")
    })
    .await
}

async fn makes_up(
    cast: &Cast,
    banned: &Room,
    make: fn(&Cast, &Room, &Room) -> Result<Value>,
) -> Result<()> {
    // In version 12 Conduit asks nobody for a room's history (`backfill-forgets-creators`).
    let room = cast
        .peer
        .found(&cast.delia(), &RoomVersionId::V11, "moor")?;
    let id = room.id.clone();
    let answer = make(cast, &room, banned)?;
    cast.peer.hosts(&Arc::new(Mutex::new(room)));
    let via = ServerName::parse(&cast.peer.name).map_err(|e| Failure::harness(e.to_string()))?;
    cast.alice.join_via(id.as_str(), &[via]).await?;
    let empty =
        json!({"events": [], "auth_chain": [], "pdus": [], "pdu_ids": [], "auth_chain_ids": []});
    let answers: Answers = Arc::new(move |call, _| match call.ask {
        Ask::Backfill => Reply::json(&answer),
        _ => Reply::json(&empty),
    });
    let mark = cast.door.mark();
    answer_with(cast, &answers);
    for room in [&id, &banned.id] {
        // Twice: what the first look has fetched, the second shows.
        for _ in 0..2 {
            let shown = cast.alice.messages(room).await?;
            let words: Vec<_> = shown
                .iter()
                .filter(|event| event.content.to_string().contains(FORGED))
                .collect();
            demand(
                words.is_empty(),
                "show nothing that was made up",
                format!("in {room}: {words:?}"),
            )?;
        }
    }
    let asked = cast.door.calls(mark, Ask::Backfill).len();
    demand(
        (1..=10).contains(&asked),
        "ask for history a few times",
        format!("it asked {asked} times"),
    )?;
    let hello: OwnedEventId = cast.alice.say(&id, "hello").await?;
    cast.peer.receives(&[hello], soon()).await
}
