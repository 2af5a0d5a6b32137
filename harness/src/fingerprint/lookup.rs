//! The other ways to what a fingerprint holds.
//!
//! A server keeps indexes beside its data. Where one of their rows is lost, timeline, state and sync are what they were, but
//! who asks for one thing by its name gets another answer: a reply whose event cannot be found, a member who is not listed,
//! account data that a client does not get back. Conduit 0.10.12 (`src/database/mod.rs:70-215`):
//!
//! | request | table that only it reads |
//! |---|---|
//! | `/event/{id}`, `/context/{id}` | `eventid_pduid` |
//! | `/context/{id}`, its state | `eventid_shorteventid`, `shorteventid_shortstatehash`, `shortstatehash_statediff` |
//! | `/event/{id}` of somebody who is not a member | `eventid_shorteventid`: without it everybody may see the event |
//! | `/joined_members` | `roomuserid_joined` |
//! | `/state/{type}/{key}` | `statekey_shortstatekey` |
//! | `/account_data/{type}` | `roomusertype_roomuserdataid` |
//! | `/pushers` | `senderkey_pusher` |

use std::collections::BTreeMap;

use reqwest::Method;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::Value;

use super::{AT_A_TIME, Print, Reach, Room, hash, heard};
use crate::client::{Client, Event, Failure, Membership, Seen};
use futures_util::future::try_join_all;

/// How many events of a room each account asks for by their ids, the newest first.
const EVENTS: usize = 1000;
/// How many state events a room may tell in answers about its past.
const PAST: usize = 20_000;
/// How many state events of a room are asked for by type and key.
const STATE: usize = 500;

/// What an answer is when all is well.
const SAME: &str = "as in the whole";

/// Account data by type, what an invitation shows, and pushers.
pub(super) async fn account(
    client: &Client,
    seen: &Seen,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut answers = BTreeMap::new();
    let global = seen
        .account_data
        .iter()
        .map(|(kind, content)| (None, kind, content));
    let of_rooms = seen.rooms.iter().flat_map(|(id, room)| {
        let data = room.account_data.iter();
        data.map(move |(kind, content)| (Some(id), kind, content))
    });
    // Push rules are asked for as such.
    let data: Vec<_> = global
        .chain(of_rooms)
        .filter(|(_, kind, _)| *kind != "m.push_rules")
        .collect();
    for some in data.chunks(AT_A_TIME) {
        let asked = some.iter().map(|(room, kind, content)| async move {
            let (answer, name) = match room {
                None => (
                    client.try_account_data(kind).await?,
                    format!("account data `{kind}` by its type"),
                ),
                Some(room) => (
                    client.try_room_account_data(room, kind).await?,
                    format!("account data of room `{room}` `{kind}` by its type"),
                ),
            };
            Ok((name, compared(heard(answer)?, |told| told == *content)))
        });
        answers.extend(try_join_all(asked).await?);
    }
    for (id, room) in &seen.rooms {
        if room.membership == Membership::Invited {
            let shown = hash(&Value::Array(room.invite_state.clone()));
            answers.insert(format!("what the invitation to room `{id}` shows"), shown);
        }
    }
    let pushers = client
        .try_raw(Method::GET, "/_matrix/client/v3/pushers", None)
        .await?;
    let pushers = heard(pushers)?.map_or_else(|refused| refused, |told| hash(&told));
    answers.insert("the list of pushers".to_owned(), pushers);
    Ok(answers)
}

/// Members as they are listed, and state by type and key.
pub(super) async fn room(
    client: &Client,
    id: &OwnedRoomId,
    state: &[Event],
) -> Result<BTreeMap<String, String>, Failure> {
    let mut answers = BTreeMap::new();
    let listed = heard(client.try_joined_members(id).await?)?;
    let joined = state.iter().filter(|event| {
        event.kind == "m.room.member" && event.content["membership"].as_str() == Some("join")
    });
    for event in joined {
        let user = event.state_key.clone().unwrap_or_default();
        let told = match &listed {
            Ok(listed) => listed
                .get(user.as_str())
                .map_or("not listed".to_owned(), |member| {
                    format!("listed with {}", hash(member))
                }),
            Err(refused) => refused.clone(),
        };
        answers.insert(format!("member `{user}`"), told);
    }
    let state: Vec<_> = state.iter().take(STATE).collect();
    for some in state.chunks(AT_A_TIME) {
        let asked = some.iter().map(|event| async move {
            let key = event.state_key.as_deref().unwrap_or_default();
            let answer = client.try_state(id, &event.kind, key).await?;
            let name = format!("state `{}` `{key}` by its name", event.kind);
            Ok((
                name,
                compared(heard(answer)?, |told| *told == event.content),
            ))
        });
        answers.extend(try_join_all(asked).await?);
    }
    Ok(answers)
}

/// The events of a room by their ids, each by somebody who sees it; `stranger` is not a member.
pub(super) async fn events(
    speakers: &BTreeMap<OwnedUserId, &Client>,
    stranger: Option<&Client>,
    id: &OwnedRoomId,
    room: &Room,
) -> Result<BTreeMap<OwnedEventId, Reach>, Failure> {
    let in_state = room.state.values().map(BTreeMap::len).sum::<usize>().max(1);
    let mut asked = BTreeMap::new();
    for (user, timeline) in &room.timelines {
        for (rank, event) in timeline.iter().rev().take(EVENTS).enumerate() {
            asked
                .entry(event)
                .or_insert((speakers[user], rank < PAST / in_state));
        }
    }
    let asked: Vec<_> = asked.into_iter().collect();
    let mut reached = BTreeMap::new();
    for some in asked.chunks(AT_A_TIME) {
        let reach = some.iter().map(|(event, (member, past))| async move {
            let reach = reach(member, stranger, id, &room.events[*event], *past).await?;
            Ok(((*event).clone(), reach))
        });
        reached.extend(try_join_all(reach).await?);
    }
    Ok(reached)
}

async fn reach(
    member: &Client,
    stranger: Option<&Client>,
    room: &OwnedRoomId,
    print: &Print,
    past: bool,
) -> Result<Reach, Failure> {
    let id = &print.event_id;
    let by_member = async {
        if past {
            heard(member.try_context(room, id).await?)
        } else {
            let answer = member.try_event(room, id).await?;
            heard(answer.map(|event| (event, Vec::new())))
        }
    };
    let by_stranger = async {
        match stranger {
            Some(stranger) => heard(stranger.try_event(room, id).await?).map(Some),
            None => Ok(None),
        }
    };
    let (by_member, by_stranger) = tokio::try_join!(by_member, by_stranger)?;
    let state = by_member.as_ref().ok().filter(|_| past).map(|(_, state)| {
        // Ids only: content goes with a redaction, and is compared elsewhere.
        let ids: BTreeMap<_, _> = state
            .iter()
            .map(|event| ((&event.kind, &event.state_key), &event.event_id))
            .collect();
        hash(&serde_json::json!(ids.into_iter().collect::<Vec<_>>()))
    });
    Ok(Reach {
        answer: compared(by_member, |(event, _)| Print::of(event) == *print),
        state,
        stranger: by_stranger.map(|told| told.map_or_else(|refused| refused, |_| "shown".into())),
    })
}

fn compared<T>(answer: Result<T, String>, same: impl Fn(&T) -> bool) -> String {
    match answer {
        Ok(told) if same(&told) => SAME.to_owned(),
        Ok(_) => "another".to_owned(),
        Err(refused) => refused,
    }
}
