//! What becomes of events that rest on others which were rejected, and of those that came too late.

use crate::events::{FORGED, Fate, by_id, judge};
use crate::known::{AUTHORITY_WITHOUT_A_STATE_KEY, SOFT_FAILED_BY_ID};
use crate::{Cast, Table, demand, federation, soon, user};
use fleet_peer::{Room, Sealed, forge};
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::canonical_json::CanonicalJsonObject;
use ruma::{OwnedRoomId, RoomId};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// An event of delia's server's, with what it follows on and what authorises it as given.
struct Draft<'a> {
    sender: &'a str,
    kind: &'a str,
    key: Option<&'a str>,
    content: Value,
    prev: Option<Vec<String>>,
    auth: Option<Vec<String>>,
}

impl<'a> Draft<'a> {
    fn message(sender: &'a str) -> Self {
        Self {
            sender,
            kind: "m.room.message",
            key: None,
            content: forge::message(FORGED),
            prev: None,
            auth: None,
        }
    }

    fn state(sender: &'a str, kind: &'a str, key: &'a str, content: Value) -> Self {
        Self {
            kind,
            key: Some(key),
            content,
            ..Self::message(sender)
        }
    }

    fn after(mut self, events: &[&Sealed]) -> Self {
        self.prev = Some(events.iter().map(|event| event.id.to_string()).collect());
        self
    }

    fn by(mut self, authority: impl IntoIterator<Item = String>) -> Self {
        self.auth = Some(authority.into_iter().collect());
        self
    }

    fn seal(self, cast: &Cast, room: &Room) -> Result<Sealed> {
        let draft = room.draft(
            &cast.peer.name,
            self.sender,
            self.kind,
            self.key,
            &self.content,
        )?;
        let mut draft = json!(draft);
        if let Some(prev) = self.prev {
            draft["prev_events"] = json!(prev);
        }
        if let Some(auth) = self.auth {
            draft["auth_events"] = json!(auth);
        }
        let draft: CanonicalJsonObject =
            serde_json::from_value(draft).map_err(|e| Failure::harness(e.to_string()))?;
        room.seal(&cast.peer.name, &cast.peer.signing(), draft)
    }
}

/// The ids of what authorises the senders' events in a room.
fn authority(room: &Room, states: &[(&str, &str)]) -> Vec<String> {
    states
        .iter()
        .filter_map(|(kind, key)| Some(room.state_event(kind, key)?.id.to_string()))
        .collect()
}

const LEVELS: (&str, &str) = ("m.room.power_levels", "");

/// delia's server makes itself some events, each with what must become of it, in the order in which they are sent; with `true`
/// an event is sent, without it is only given to whom asks for it.
type Made = Vec<(Fate, bool, Sealed)>;
type Row = (&'static str, fn(&Cast, &Room, &Room) -> Result<Made>);

/// delia helps herself to levels that she may not set.
fn helps_herself(cast: &Cast, room: &Room) -> Result<Sealed> {
    let delia = cast.delia();
    let content = json!({"users": {&delia: 100}});
    Draft::state(&delia, LEVELS.0, "", content).seal(cast, room)
}

/// A user of delia's server comes.
fn comes(cast: &Cast, room: &Room, who: &str) -> Result<Sealed> {
    let who = cast.peer.user(who);
    let content = json!({"membership": "join"});
    Draft::state(&who, "m.room.member", &who, content).seal(cast, room)
}

/// Who came says something that only that allows.
fn speaks(cast: &Cast, room: &Room, join: &Sealed) -> Result<Sealed> {
    let who = json!(join.json["sender"]);
    let auth = authority(room, &[LEVELS]).into_iter();
    Draft::message(who.as_str().unwrap_or_default())
        .after(&[join])
        .by(auth.chain([join.id.to_string()]))
        .seal(cast, room)
}

/// The one row that does not hold on Conduit. Every row ends with a message of delia's: it is the room's tip.
const A_MESSAGE: &str = "its authority is a message";

/// The first is the control.
const ROWS: &[Row] = &[
    ("its authority has to be fetched", |cast, room, _| {
        let join = comes(cast, room, "eve")?;
        let speaks = speaks(cast, room, &join)?;
        Ok(vec![
            (Fate::Seen, true, speaks),
            (Fate::Stripped, false, join),
        ])
    }),
    ("a chain rests on a rejected event", |cast, room, _| {
        let delia = cast.delia();
        let member = ("m.room.member", &*delia);
        let first = helps_herself(cast, room)?;
        let rests = |on: &Sealed| {
            let own = authority(room, &[member]).into_iter();
            own.chain([on.id.to_string()])
        };
        let content = json!({"users": {&delia: 100}, "events_default": 0});
        let second = Draft::state(&delia, LEVELS.0, "", content)
            .by(rests(&first))
            .seal(cast, room)?;
        let third = Draft::state(&delia, "m.room.name", "", json!({"name": FORGED}))
            .by(rests(&second))
            .seal(cast, room)?;
        let fourth = Draft::message(&delia).by(rests(&second)).seal(cast, room)?;
        let all = [first, second, third, fourth];
        Ok(all.map(|event| (Fate::Never, true, event)).into())
    }),
    (
        "a chain that was only fetched rests on a rejected event",
        |cast, room, _| {
            let frida = cast.peer.user("frida");
            let first = helps_herself(cast, room)?;
            let content = json!({"membership": "join"});
            let join = Draft::state(&frida, "m.room.member", &frida, content)
                .by(authority(room, &[("m.room.join_rules", "")])
                    .into_iter()
                    .chain([first.id.to_string()]))
                .seal(cast, room)?;
            let speaks = speaks(cast, room, &join)?;
            Ok(vec![
                (Fate::Never, false, first),
                (Fate::Never, false, join),
                (Fate::Never, true, speaks),
            ])
        },
    ),
    ("its authority is forged", |cast, room, _| {
        let join = comes(cast, room, "gerda")?;
        let join = forge::signature(room, &cast.peer.name, &cast.peer.signing(), &join)?;
        let speaks = speaks(cast, room, &join)?;
        Ok(vec![
            (Fate::Never, false, join),
            (Fate::Never, true, speaks),
        ])
    }),
    ("its authority cannot be had", |cast, room, _| {
        let join = comes(cast, room, "hilda")?;
        let speaks = speaks(cast, room, &join)?;
        Ok(vec![(Fate::Never, true, speaks)])
    }),
    ("its authority is another room's", |cast, room, other| {
        let delia = cast.delia();
        let member = ("m.room.member", &*delia);
        let auth = authority(room, &[LEVELS]).into_iter();
        let event = Draft::message(&delia)
            .by(auth.chain(authority(other, &[member])))
            .seal(cast, room)?;
        Ok(vec![(Fate::Never, true, event)])
    }),
    ("its authority stands twice", |cast, room, _| {
        let delia = cast.delia();
        let member = ("m.room.member", &*delia);
        let event = Draft::message(&delia)
            .by(authority(room, &[LEVELS, member, member]))
            .seal(cast, room)?;
        Ok(vec![(Fate::Never, true, event)])
    }),
    ("its authority authorises nothing", |cast, room, _| {
        let delia = cast.delia();
        let member = ("m.room.member", &*delia);
        let event = Draft::message(&delia)
            .by(authority(room, &[LEVELS, member, ("m.room.name", "")]))
            .seal(cast, room)?;
        Ok(vec![(Fate::Never, true, event)])
    }),
    (A_MESSAGE, |cast, room, _| {
        let delia = cast.delia();
        let member = ("m.room.member", &*delia);
        let said = room.tips().iter().map(ToString::to_string);
        let event = Draft::message(&delia)
            .by(authority(room, &[LEVELS, member]).into_iter().chain(said))
            .seal(cast, room)?;
        Ok(vec![(Fate::Never, true, event)])
    }),
    ("it has eleven authorities", |cast, room, _| {
        let delia = cast.delia();
        let member = ("m.room.member", &*delia);
        let event = Draft::message(&delia)
            .by(authority(room, &[member; 11]))
            .seal(cast, room)?;
        Ok(vec![(Fate::Never, true, event)])
    }),
    (
        "what follows on twenty events, and on one more",
        |cast, room, _| {
            let delia = cast.delia();
            let mut made = Vec::new();
            for number in 0..21 {
                let mut draft = Draft::message(&delia);
                draft.content = forge::message(&format!("{FORGED} {number}"));
                made.push((Fate::Seen, true, draft.seal(cast, room)?));
            }
            let before: Vec<_> = made.iter().map(|(_, _, event)| event.clone()).collect();
            let before: Vec<_> = before.iter().collect();
            for (fate, count) in [(Fate::Never, 21), (Fate::Seen, 20)] {
                let event = Draft::message(&delia)
                    .after(&before[..count])
                    .seal(cast, room)?;
                made.push((fate, true, event));
            }
            Ok(made)
        },
    ),
    ("what follows on a rejected event", |cast, room, _| {
        let delia = cast.delia();
        let rejected = helps_herself(cast, room)?;
        let event = Draft::message(&delia)
            .after(&[&rejected])
            .seal(cast, room)?;
        Ok(vec![
            (Fate::Never, true, rejected),
            (Fate::Seen, true, event),
        ])
    }),
];

/// E9. delia's server sends events that rest on what was rejected, forged, withheld, another room's or too much, and answers
/// truly whatever the home asks about them. None reaches alice, directly or as the authority of a later one; what merely
/// follows on a rejected event is taken, and so is an event whose authority the home has to fetch. Then the room goes on.
/// "Rejection", "Checks performed on receipt of a PDU", "Authorization rules".
#[tokio::test(flavor = "multi_thread")]
async fn what_rests_on_rejected_authority_stays_rejected() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let (_, other) = cast.shared_garden().await?;
        // One room for all: what is rejected leaves no trace in it, and Synapse does not let anybody make many.
        let (garden, mut room) = cast.shared_garden().await?;
        let mut table = Table::default();
        for (what, make) in ROWS {
            let made = make(cast, &room, &other)?;
            let outcome = stays_rejected(cast, &garden, &mut room, made).await;
            table.row(
                what,
                if *what == A_MESSAGE {
                    cast.known(&AUTHORITY_WITHOUT_A_STATE_KEY, outcome)
                } else {
                    outcome
                },
            );
        }
        table.verdict("reject what rests on rejected authority")
    })
    .await
}

async fn stays_rejected(cast: &Cast, garden: &RoomId, room: &mut Room, made: Made) -> Result<()> {
    let mut served = room.clone();
    for (_, _, event) in &made {
        served.keep(event);
    }
    cast.peer.serves(&Arc::new(Mutex::new(served)));
    let mut listener = cast.alice.listen().await?;
    let mut answers = Vec::new();
    for (_, sent, event) in &made {
        if *sent {
            answers.push(cast.peer.deliver(&[event], &[]).await?);
        }
    }
    let letters: Vec<_> = answers.iter().map(ToString::to_string).collect();
    let letters = letters.join("\n");
    let sentinel = cast.peer.say(room, &cast.delia(), "good night").await?;
    listener
        .until("alice sees the sentinel", soon(), |seen| {
            seen.event(garden, &sentinel.id)
        })
        .await?;
    let mut shown = cast.alice.messages(garden).await?;
    if let Some(seen) = listener.seen().room(garden) {
        shown.extend(seen.timeline.iter().cloned());
    }
    shown.extend(cast.alice.room_state(garden).await?);
    for (fate, _, event) in &made {
        judge(*fate, event, &shown)
            .and(by_id(cast, garden, *fate, event).await)
            .map_err(|failure| failure.because(&letters))?;
    }
    demand(
        answers.iter().all(|answer| answer.status == 200),
        "answer a transaction whatever is in it",
        letters,
    )
}

/// E9. eve speaks before the home knows that she came, and nobody can tell it: what she says is not taken. Once her join has
/// come, the same words are sent again, and now they are. "Rejection".
#[tokio::test(flavor = "multi_thread")]
async fn what_lacked_its_authority_is_taken_once_that_has_come() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let (garden, mut room) = cast.shared_garden().await?;
        let join = comes(cast, &room, "eve")?;
        let speaks = speaks(cast, &room, &join)?;
        cast.peer.serves(&Arc::new(Mutex::new(room.clone())));
        cast.peer.deliver(&[&speaks], &[]).await?;
        let sentinel = cast.peer.say(&mut room, &cast.delia(), "anybody?").await?;
        cast.alice.sees(&garden, &sentinel.id).await?;
        let early = cast.alice.try_event(&garden, &speaks.id).await?;
        demand(
            !early.accepted(),
            "not take what nothing authorises yet",
            format!("{early:?}"),
        )?;
        cast.peer.deliver(&[&join], &[]).await?.must()?;
        cast.alice.sees(&garden, &join.id).await?;
        let answer = cast.peer.deliver(&[&speaks], &[]).await?;
        cast.alice
            .sees(&garden, &speaks.id)
            .await
            .map_err(|unmet| Failure::from(unmet).because(answer))?;
        Ok(())
    })
    .await
}

/// A state event of alice's: its type, and its content by delia's id and the levels that hold.
type Decision = (&'static str, fn(&str, &Value) -> Value);

/// What alice decides about delia, if anything, and whether what delia's server sends from before it reaches alice.
type Late = (&'static str, Fate, Option<Decision>);

/// The first is the control.
const LATE: &[Late] = &[
    ("alice did nothing", Fate::Seen, None),
    (
        "alice banned her",
        Fate::Never,
        Some(("m.room.member", |_, _| json!({"membership": "ban"}))),
    ),
    (
        "alice removed her",
        Fate::Never,
        Some(("m.room.member", |_, _| json!({"membership": "leave"}))),
    ),
    (
        "alice took her level and lets only some speak",
        Fate::Never,
        Some((LEVELS.0, |delia, levels| {
            let mut levels = levels.clone();
            levels["users"][delia] = json!(0);
            levels["users"][delia.replacen("delia", "dora", 1)] = json!(10);
            levels["events_default"] = json!(10);
            levels
        })),
    ),
];

/// E10. alice bans delia, removes her, or takes her right to speak; delia's server goes on as if it had not heard of it, and
/// sends what follows on the time before: a message and a state event, each right where it stands. Neither is shown to
/// alice, nothing that she says follows on them, and they change no state. dora of the same server follows on them as well as
/// on what alice said: she is heard, and alice's decision stands. "Soft failure".
#[tokio::test(flavor = "multi_thread")]
async fn a_soft_failed_event_is_hidden_and_the_room_goes_on() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let mut table = Table::default();
        for (what, fate, decides) in LATE {
            table.row(what, comes_late(cast, *fate, *decides).await);
        }
        table.verdict("hide what came too late")
    })
    .await
}

async fn comes_late(cast: &Cast, fate: Fate, decides: Option<Decision>) -> Result<()> {
    let delia = cast.delia();
    let (garden, dora, mut room) = two_guests(cast).await?;
    let mut listener = cast.alice.listen().await?;
    let old = room.clone();
    if let Some((kind, content)) = decides {
        let key = if kind == LEVELS.0 { "" } else { &delia };
        let levels = content_of(&room, LEVELS)?;
        let decision = content(&delia, &levels);
        let decision = cast.alice.send_state(&garden, kind, key, &decision).await?;
        take(cast, &mut room, &[decision]).await?;
    }
    let message = Draft::message(&delia).seal(cast, &old)?;
    let note = json!({"note": FORGED});
    let note = Draft::state(&delia, "test.note", "", note)
        .after(&[&message])
        .seal(cast, &old)?;
    let answer = cast.peer.deliver(&[&message, &note], &[]).await?;
    let says = cast.alice.say(&garden, "good morning").await?;
    take(cast, &mut room, std::slice::from_ref(&says)).await?;
    let said = room
        .event(&says)
        .ok_or_else(|| Failure::harness("keep what alice said"))?;
    let follows = json!(said["prev_events"]).to_string();
    if fate == Fate::Never {
        demand(
            !follows.contains(message.id.as_str()) && !follows.contains(note.id.as_str()),
            "let nothing follow on a soft-failed event",
            &follows,
        )?;
    }
    // dora knows both sides.
    let tips: Vec<_> = [&note.id, &says].map(ToString::to_string).into();
    let mut both = Draft::message(&dora);
    both.prev = Some(tips);
    both.content = forge::message("good night");
    let both = both.seal(cast, &room)?;
    let mut served = room.clone();
    for event in [&message, &note, &both] {
        served.keep(event);
    }
    cast.peer.serves(&Arc::new(Mutex::new(served)));
    let goes_on = cast.peer.deliver(&[&both], &[]).await?;
    listener
        .until("alice sees what dora said", soon(), |seen| {
            seen.event(&garden, &both.id)
        })
        .await
        .map_err(|unmet| Failure::from(unmet).because(goes_on))?;
    let mut shown = cast.alice.messages(&garden).await?;
    if let Some(seen) = listener.seen().room(&garden) {
        shown.extend(seen.timeline.iter().cloned());
    }
    let state = cast.alice.room_state(&garden).await?;
    shown.extend(state.iter().cloned());
    for event in [&message, &note] {
        judge(fate, event, &shown).map_err(|failure| failure.because(&answer))?;
        let asked_for = by_id(cast, &garden, fate, event)
            .await
            .map_err(|failure| failure.because("it was asked for by its id"));
        if fate == Fate::Never {
            cast.known(&SOFT_FAILED_BY_ID, asked_for)?;
        } else {
            asked_for?;
        }
    }
    let members = cast.alice.members(&garden).await?;
    let levels = state.iter().find(|event| event.kind == LEVELS.0);
    let stands = match decides {
        Some(("m.room.member", content)) => {
            json!(members.get(&user(&delia)?)) == content("", &Value::Null)["membership"]
        }
        Some(_) => levels.is_some_and(|levels| levels.content["events_default"] == 10),
        None => true,
    };
    demand(
        stands,
        "let alice's decision stand",
        format!("{members:?} {levels:?}"),
    )
}

/// A room of alice's in which delia may set state and dora is too.
async fn two_guests(cast: &Cast) -> Result<(OwnedRoomId, String, Room)> {
    let (garden, mut room) = cast.shared_garden().await?;
    let dora = cast.peer.user("dora");
    let came = cast.joins(&garden, &dora).await?;
    if let Some(join) = came.state_event("m.room.member", &dora) {
        room.add(&join);
    }
    let mut levels = content_of(&room, LEVELS)?;
    levels["users"][cast.delia()] = json!(50);
    let set = cast
        .alice
        .send_state(&garden, LEVELS.0, "", &levels)
        .await?;
    take(cast, &mut room, &[set]).await?;
    Ok((garden, dora, room))
}

fn content_of(room: &Room, (kind, key): (&str, &str)) -> Result<Value> {
    let event = room.state_event(kind, key);
    let event = event.ok_or_else(|| Failure::harness(format!("know the room's `{kind}`")))?;
    Ok(json!(event.json["content"]))
}

/// The peer's room takes up what its server was sent.
async fn take(cast: &Cast, room: &mut Room, events: &[ruma::OwnedEventId]) -> Result<()> {
    cast.peer.receives(events, soon()).await?;
    let transactions = cast.peer.transactions().into_iter();
    for pdu in transactions.flat_map(|transaction| transaction.pdus) {
        if events.contains(&pdu.id) {
            room.add(&pdu);
        }
    }
    Ok(())
}
