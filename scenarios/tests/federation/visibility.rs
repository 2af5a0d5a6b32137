//! What the home tells another server about a room, and what not.

use crate::known::{CREATION_STOPS_MISSING_EVENTS, OTHER_ROOMS_AUTHORITY};
use crate::{Cast, Table, V1, demand, federation, soon, user};
use fleet_peer::{Ask, Replied, Reply};
use harness::client::NewRoom;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde_json::{Value, json};

/// What was said before delia came.
const BEFORE: &str = "the treasure lies under the oak";
/// What was said when she was there.
const AFTER: &str = "good morning";

/// How a room shows its history, whether delia was invited when it was said, and whether her server may read it.
const VISIBILITIES: &[(&str, bool, bool)] = &[
    ("world_readable", false, true),
    ("shared", false, true),
    ("invited", true, true),
    ("invited", false, false),
    ("joined", true, false),
    ("joined", false, false),
];

/// A way to ask for an event, and all that leads to another.
type Way = (
    &'static str,
    fn(&RoomId, &OwnedEventId, &OwnedEventId) -> (&'static str, String, Option<Value>),
);

const WAYS: &[Way] = &[
    ("event", |_, before, _| {
        ("GET", format!("{V1}/event/{before}"), None)
    }),
    ("backfill", |room, _, tip| {
        let path = format!("{V1}/backfill/{room}?v={tip}&limit=20");
        ("GET", path, None)
    }),
    ("get_missing_events", |room, _, tip| {
        // Not so many that it leads to the room's creation.
        let body = json!({"earliest_events": [], "latest_events": [tip], "limit": 4});
        let path = format!("{V1}/get_missing_events/{room}");
        ("POST", path, Some(body))
    }),
];

/// E8. alice says something before delia comes, in rooms that show their history to everybody, to members, to who was
/// invited and to who was there. delia's server then asks for it by its id, as part of the room's history, and as what lies
/// between. It reads it where it may, which is the control, and nowhere else: what counts is what the answer says, whatever
/// its code. What was said when delia was there it always reads. "Backfilling and retrieving missing events", "Room history
/// visibility".
#[tokio::test(flavor = "multi_thread")]
async fn what_a_room_does_not_show_is_not_told_to_a_server_that_came_later() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        cast.peer.takes_invitations();
        cast.peer.expect(Ask::Profile, |_| {
            Reply::json(&json!({"displayname": "Delia"}))
        });
        let mut table = Table::default();
        for (visibility, invited, may_read) in VISIBILITIES {
            let (garden, before, after) = told_before(cast, visibility, *invited).await?;
            for (way, make) in WAYS {
                let (method, path, body) = make(&garden, &before, &after);
                let answer = cast.peer.ask(method, &path, body.as_ref()).await?;
                let name = format!("{way}, {visibility}, invited: {invited}");
                table.row(&name, reads(&answer, way, *may_read));
            }
        }
        table.verdict("tell a server what the room shows it")
    })
    .await
}

async fn told_before(
    cast: &Cast,
    visibility: &str,
    invited: bool,
) -> Result<(OwnedRoomId, OwnedEventId, OwnedEventId)> {
    let garden = cast.garden().await?;
    let content = json!({ "history_visibility": visibility });
    cast.alice
        .send_state(&garden, "m.room.history_visibility", "", &content)
        .await?;
    if invited {
        cast.alice.invite(&garden, &user(&cast.delia())?).await?;
    }
    let before = cast.alice.say(&garden, BEFORE).await?;
    cast.joins(&garden, &cast.delia()).await?;
    let after = cast.alice.say(&garden, AFTER).await?;
    let tip = cast.alice.say(&garden, AFTER).await?;
    cast.peer.receives(&[after, tip.clone()], soon()).await?;
    Ok((garden, before, tip))
}

fn reads(answer: &Replied, way: &str, may_read: bool) -> Result<()> {
    let text = answer.body.to_string();
    demand(
        way == "event" || (answer.status == 200 && text.contains(AFTER)),
        "tell what was said when delia was there",
        answer.to_string(),
    )?;
    demand(
        text.contains(BEFORE) == may_read,
        if may_read {
            "tell what the room shows"
        } else {
            "not tell what the room does not show"
        },
        answer.to_string(),
    )
}

/// Everything that a server may ask about a room, of this room and this event.
const QUESTIONS: &[Way] = &[
    WAYS[0],
    WAYS[1],
    WAYS[2],
    ("state", |room, event, _| {
        let path = format!("{V1}/state/{room}?event_id={event}");
        ("GET", path, None)
    }),
    ("state_ids", |room, event, _| {
        let path = format!("{V1}/state_ids/{room}?event_id={event}");
        ("GET", path, None)
    }),
    ("event_auth", |room, event, _| {
        ("GET", format!("{V1}/event_auth/{room}/{event}"), None)
    }),
];

/// E8. delia's server has heard the ids of an event of a room in which it is not. Whatever it asks about it, of that room or
/// by way of another in which it is, the answer tells nothing of the room: no event, and no id. Once delia is there, the same
/// questions are answered; that is the control. "Retrieving events", "Backfilling and retrieving missing events".
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_in_a_room_is_told_nothing_of_it() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        cast.peer.takes_invitations();
        cast.peer.expect(Ask::Profile, |_| {
            Reply::json(&json!({"displayname": "Delia"}))
        });
        let (other, _) = cast.shared_garden().await?;
        let garden = cast
            .alice
            .create_room(NewRoom::from("private garden").topic(BEFORE))
            .await?;
        let event = cast.alice.say(&garden, BEFORE).await?;
        let state = cast.alice.room_state(&garden).await?;
        let mut secrets: Vec<_> = state
            .iter()
            .map(|event| event.event_id.to_string())
            .collect();
        secrets.extend([BEFORE.to_owned(), garden.to_string()]);
        let ask = async |room: &RoomId, make: &Way| {
            let (method, path, body) = make.1(room, &event, &event);
            cast.peer.ask(method, &path, body.as_ref()).await
        };
        let mut table = Table::default();
        for question in QUESTIONS {
            let answer = ask(&garden, question).await?;
            let tells = tells(&secrets, &answer);
            table.row(question.0, not_told(tells, &answer));
            let answer = ask(&other, question).await?;
            let tells = self::tells(&secrets, &answer);
            let outcome = not_told(tells, &answer);
            table.row(
                &format!("{} by way of another room", question.0),
                if question.0 == "event_auth" {
                    cast.known(&OTHER_ROOMS_AUTHORITY, outcome)
                } else {
                    outcome
                },
            );
        }
        cast.alice.invite(&garden, &user(&cast.delia())?).await?;
        cast.joins(&garden, &cast.delia()).await?;
        for question in QUESTIONS {
            let answer = ask(&garden, question).await?;
            table.row(
                &format!("{} from within", question.0),
                demand(
                    tells(&secrets, &answer),
                    "answer who is in the room",
                    answer.to_string(),
                ),
            );
        }
        table.verdict("tell nothing to a server that is not in the room")
    })
    .await
}

fn tells(secrets: &[String], answer: &Replied) -> bool {
    let text = answer.body.to_string();
    answer.status == 200 && secrets.iter().any(|secret| text.contains(secret))
}

fn not_told(tells: bool, answer: &Replied) -> Result<()> {
    demand(
        !tells,
        "tell nothing of a room to a server that is not in it",
        answer.to_string(),
    )
}

/// E8. delia's server asks for all that lies before a message in a small room of alice's, back to its creation, and gets it,
/// in the fleet's room version and in the one before. "Backfilling and retrieving missing events".
#[tokio::test(flavor = "multi_thread")]
async fn what_lies_between_reaches_back_to_the_rooms_creation() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let mut table = Table::default();
        for version in ["11", "12"] {
            let outcome = reaches_back(cast, version).await;
            table.row(
                version,
                if version == "12" {
                    cast.known(&CREATION_STOPS_MISSING_EVENTS, outcome)
                } else {
                    outcome
                },
            );
        }
        table.verdict("tell what lies before a message")
    })
    .await
}

async fn reaches_back(cast: &Cast, version: &str) -> Result<()> {
    let garden = cast
        .alice
        .create_room(NewRoom::public("garden").version(version))
        .await?;
    let room = cast.joins(&garden, &cast.delia()).await?;
    let said = cast.alice.say(&garden, AFTER).await?;
    cast.peer
        .receives(std::slice::from_ref(&said), soon())
        .await?;
    let create = room
        .state_event("m.room.create", "")
        .ok_or_else(|| Failure::harness("know the room's creation"))?;
    let path = format!("{V1}/get_missing_events/{garden}");
    let body = json!({"earliest_events": [], "latest_events": [said], "limit": 50});
    let missing = cast.peer.ask("POST", &path, Some(&body)).await?;
    let path = format!("{V1}/event/{}", create.id);
    let by_id = cast.peer.ask("GET", &path, None).await?;
    let told = |answer: &Replied| {
        answer.status == 200 && answer.body.to_string().contains("m.room.create")
    };
    demand(
        told(&missing) && told(&by_id),
        "tell of a room's creation",
        format!(
            "what lies between answered {}, the creation itself {}",
            missing.status, by_id.status
        ),
    )
}
