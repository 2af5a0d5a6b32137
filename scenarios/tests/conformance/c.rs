//! C: sync and history.

use fleet_history::{Verdict, check};
use harness::client::{Client, Listener, Membership, NewRoom};
use harness::commons::claim;
use harness::entrance::Entrance;
use harness::faulty::Mutant;
use harness::known;
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use reqwest::Method;
use ruma::{OwnedEventId, RoomId};
use scenarios::ear::Ear;
use scenarios::{SOON, encoded, product};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// C1. What an initial sync shows of rooms that bob is in, is invited to, and has left, and what he is told when each
/// changes under his eyes. Client-Server API, "Syncing".
#[test]
fn initial_and_incremental_sync_show_joined_invited_and_left_rooms() -> Outcome {
    claim()
        .notices(&[Mutant::StripsState])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let room = async |name: &str| {
                alice
                    .create_room(NewRoom::from(name).invite(bob.user_id()))
                    .await
            };
            let (joined, invited, left) = (
                room("joined").await?,
                room("invited").await?,
                room("left").await?,
            );
            bob.join(&joined).await?;
            bob.join(&left).await?;
            let said = alice.say(&joined, "hello").await?;
            bob.leave(&left).await?;

            let mut listener = bob.listen().await?;
            listener
                .until(
                    "the initial sync has the room that bob is in",
                    scene.soon(),
                    |seen| seen.membership(&joined, Membership::Joined),
                )
                .await?;
            listener
                .until(
                    "the initial sync has the invitation",
                    scene.soon(),
                    |seen| seen.membership(&invited, Membership::Invited),
                )
                .await?;
            let seen = listener.seen().clone();
            let room = seen
                .room(&joined)
                .ok_or_else(|| Failure::product("show the joined room"))?;
            product(
                room.has(&said),
                "show what was said last",
                format!("{:?}", room.timeline),
            )?;
            for (kind, key) in [
                ("m.room.create", ""),
                ("m.room.power_levels", ""),
                ("m.room.name", ""),
                ("m.room.member", bob.user_id().as_str()),
                ("m.room.member", alice.user_id().as_str()),
            ] {
                product(
                    room.state(kind, key).is_some(),
                    "show the whole state of the joined room",
                    format!("no `{kind}` of `{key}`"),
                )?;
            }

            listener.forget();
            bob.join(&invited).await?;
            listener
                .until("bob is told that he joined", scene.soon(), |seen| {
                    seen.membership(&invited, Membership::Joined)
                })
                .await?;
            alice.kick(&joined, bob.user_id()).await?;
            listener
                .until("bob is told that he was removed", scene.soon(), |seen| {
                    seen.membership(&joined, Membership::Left)
                })
                .await?;
            bob.leave(&invited).await?;
            listener
                .until("bob is told that he left", scene.soon(), |seen| {
                    seen.membership(&invited, Membership::Left)
                })
                .await?;
            alice.invite(&left, bob.user_id()).await?;
            listener
                .until("bob is told of the new invitation", scene.soon(), |seen| {
                    seen.membership(&left, Membership::Invited)
                })
                .await?;
            bob.leave(&left).await?;
            listener
                .until(
                    "bob is told that the invitation is gone",
                    scene.soon(),
                    |seen| seen.membership(&left, Membership::Left),
                )
                .await?;
            Ok(())
        })
}

/// C1. Rooms that were left before are in an initial sync only where the filter asks for them.
/// Client-Server API, "Filtering", `include_leave`.
#[test]
fn an_initial_sync_leaves_out_the_rooms_that_were_left_before() -> Outcome {
    claim().flawed(&[&known::LEFT_ROOMS]).holds(async |scene| {
        let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
        let left = alice
            .create_room(NewRoom::from("left").invite(bob.user_id()))
            .await?;
        bob.join(&left).await?;
        bob.leave(&left).await?;
        let sync = bob
            .try_raw(Method::GET, "/_matrix/client/v3/sync?timeout=0", None)
            .await?
            .must()?;
        let told = &sync["rooms"]["leave"][left.as_str()];
        product(
            told.is_null(),
            "leave out the room that was left before",
            told.to_string(),
        )
    })
}

/// C2. A client that asks for few events is given few. Client-Server API, "Filtering", `limit`.
#[test]
fn a_filters_limit_of_the_timeline_is_kept() -> Outcome {
    claim()
        .flawed(&[&known::TIMELINE_LIMIT])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let garden = alice.create_room("garden").await?;
            for number in 0..12 {
                alice.say(&garden, &format!("number {number}")).await?;
            }
            let filter = encoded(&json!({"room": {"timeline": {"limit": 5}}}).to_string());
            let path = format!("/_matrix/client/v3/sync?timeout=0&filter={filter}");
            let sync = alice.try_raw(Method::GET, &path, None).await?.must()?;
            let told = ids(&sync["rooms"]["join"][garden.as_str()]["timeline"]["events"]);
            product(
                told.len() == 5,
                "give as many events as the filter asks for",
                format!("{} events", told.len()),
            )
        })
}

/// C2. While bob looks away more is said than his filter lets through. He is told that there is a gap, the token that
/// he is given leads back into it without a hole, and what changed of the state within it he is told although he sees
/// the event not. Client-Server API, "Syncing", `limited`, `prev_batch`, `state`.
#[test]
fn a_limited_timeline_says_so_and_loses_neither_events_nor_state() -> Outcome {
    claim()
        .notices(&[
            Mutant::StripsLimited,
            Mutant::StripsState,
            Mutant::ReordersTimelines,
        ])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice
                .create_room(NewRoom::from("garden").invite(bob.user_id()))
                .await?;
            bob.join(&garden).await?;
            let last_seen = alice.say(&garden, "bob still looks").await?;
            let since = up_to(&bob, &garden, &last_seen).await?;
            let mut sent = Vec::new();
            for number in 0..30 {
                sent.push(alice.say(&garden, &format!("number {number}")).await?);
                if number == 3 {
                    sent.push(
                        alice
                            .send_state(
                                &garden,
                                "m.room.topic",
                                "",
                                &json!({"topic": "in the gap"}),
                            )
                            .await?,
                    );
                }
            }
            let filter = encoded(&json!({"room": {"timeline": {"limit": 5}}}).to_string());
            let path = format!("/_matrix/client/v3/sync?since={since}&timeout=0&filter={filter}");
            let heard = synced(&bob, &path, &garden).await?;
            let timeline = &heard["timeline"];
            product(
                timeline["limited"] == true,
                "say that the timeline is limited",
                timeline.to_string(),
            )?;
            let told = ids(&timeline["events"]);
            product(
                !told.is_empty()
                    && told.len() < sent.len()
                    && told == sent[sent.len() - told.len()..],
                "show the newest events, in order",
                format!("{told:?} of {sent:?}"),
            )?;
            let topic =
                state_of(&heard, "m.room.topic").map(|event| event["content"]["topic"].clone());
            product(
                topic == Some(json!("in the gap")),
                "tell the state that changed within the gap",
                format!("{topic:?} in {heard}"),
            )?;
            // Back from the token, page by page, to what bob saw last.
            let mut from = timeline["prev_batch"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            product(
                !from.is_empty(),
                "give a token to go back",
                timeline.to_string(),
            )?;
            let mut gap = Vec::new();
            while !gap.contains(&last_seen) {
                let path = format!(
                    "/_matrix/client/v3/rooms/{}/messages?dir=b&limit=4&from={}",
                    encoded(garden.as_str()),
                    encoded(&from)
                );
                let page = bob.try_raw(Method::GET, &path, None).await?.must()?;
                let events = ids(&page["chunk"]);
                product(
                    !events.is_empty(),
                    "lead back to what was seen last",
                    format!("the pages end after {gap:?}"),
                )?;
                gap.extend(events);
                from = page["end"].as_str().unwrap_or_default().to_owned();
            }
            let before = gap
                .iter()
                .position(|event| *event == last_seen)
                .unwrap_or_default();
            let mut all: Vec<_> = gap[..before].iter().rev().cloned().collect();
            all.extend(told);
            product(
                all == sent,
                "leave no hole and tell nothing twice",
                format!("{all:?}\nsent {sent:?}"),
            )
        })
}

/// The token of a sync that told of this event, without anything after it.
async fn up_to(who: &Client, room: &RoomId, event: &OwnedEventId) -> Result<String> {
    let mut listener = who.listen().await?;
    listener
        .until("the last event before the gap is told", SOON, |seen| {
            seen.event(room, event)
        })
        .await?;
    since(&listener)
}

fn since(listener: &Listener) -> Result<String> {
    listener
        .since()
        .map(str::to_owned)
        .ok_or_else(|| Failure::product("name the place in the stream"))
}

/// What a sync says of a room; asked again with the same token while it says nothing, as Conduit keeps an empty answer.
async fn synced(who: &Client, path: &str, room: &RoomId) -> Result<Value> {
    let heard = who.try_raw(Method::GET, path, None).await?.must()?;
    let told = heard["rooms"]["join"][room.as_str()].clone();
    product(
        told.is_object(),
        "tell of the room that something happened in",
        heard.to_string(),
    )?;
    Ok(told)
}

fn ids(events: &Value) -> Vec<OwnedEventId> {
    let events = events.as_array().into_iter().flatten();
    events
        .filter_map(|event| OwnedEventId::try_from(event["event_id"].as_str()?).ok())
        .collect()
}

fn state_of<'a>(room: &'a Value, kind: &str) -> Option<&'a Value> {
    let sections = [&room["timeline"]["events"], &room["state"]["events"]];
    sections
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .find(|event| event["type"] == kind && event["state_key"].is_string())
}

/// C5. Alice and bob talk at the same time, more than a timeline holds. All three sync to the end and fill each gap by going
/// back from its token: all of that together is exactly what was accepted, each once, and each speaker's words in the order
/// in which they were answered, as `fleet-history` judges it. Client-Server API, "Syncing".
#[test]
fn all_syncs_and_the_pages_behind_their_gaps_are_exactly_the_accepted_events() -> Outcome {
    claim()
        .notices(&[
            Mutant::DropsMessages,
            Mutant::DuplicatesMessages,
            Mutant::StripsLimited,
        ])
        .holds(async |scene| {
            let (alice, bob, carol) = (
                scene.cast("alice").await?,
                scene.cast("bob").await?,
                scene.cast("carol").await?,
            );
            // Timelines that are shorter than what is said, so that there are gaps for certain.
            let mut ears = [&alice, &bob, &carol].map(|who| Ear::of(who, Some(3)));
            for ear in &mut ears {
                ear.hear(None).await?;
            }
            let guests = NewRoom::from("garden").invite(bob.user_id());
            let garden = alice.create_room(guests.invite(carol.user_id())).await?;
            bob.join(&garden).await?;
            carol.join(&garden).await?;
            for ear in &mut ears {
                ear.hear(Some(&garden)).await?;
            }
            let talk = async |who: &Client| -> Result<()> {
                for number in 0..25 {
                    who.say(&garden, &format!("{number} of {who}")).await?;
                }
                Ok(())
            };
            tokio::try_join!(talk(&alice), talk(&bob))?;
            for ear in &mut ears {
                ear.hear(Some(&garden)).await?;
            }
            let judgement = check(&scene.history());
            let told = judgement.to_string();
            match judgement.verdict() {
                Verdict::Pass => Ok(()),
                Verdict::Fail => product(false, "tell what was accepted, once and in order", told),
                Verdict::Unknown => {
                    Err(Failure::harness("decide what carol was told").last_seen(told))
                }
            }
        })
}

/// C5. Bob asks again and again while alice speaks, so that her words come while he is being answered. Each is told to him
/// once: a sync goes on from where the one before ended. Client-Server API, "Syncing", `since`.
#[test]
fn an_event_that_comes_while_a_sync_is_answered_is_told_once() -> Outcome {
    claim()
        .flawed(&[&known::SYNC_REPEATS])
        .by(&[Entrance::Direct])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice
                .create_room(NewRoom::from("garden").invite(bob.user_id()))
                .await?;
            bob.join(&garden).await?;
            let mut token = since(&bob.listen().await?)?;
            let done = AtomicBool::new(false);
            // A server that repeats one event in a hundred has done so by then.
            let most = if scene.server().is_conduit() {
                3000
            } else {
                200
            };
            let speak = async {
                for number in 0..most {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    alice.say(&garden, &format!("number {number}")).await?;
                }
                done.store(true, Ordering::Relaxed);
                Ok::<_, Failure>(())
            };
            let hear = async {
                let mut told = HashSet::new();
                loop {
                    let last = done.load(Ordering::Relaxed);
                    let path = format!("/_matrix/client/v3/sync?since={token}&timeout=0");
                    let answer = bob.try_raw(Method::GET, &path, None).await?.must()?;
                    token = answer["next_batch"].as_str().unwrap_or_default().to_owned();
                    let room = &answer["rooms"]["join"][garden.as_str()];
                    for event in ids(&room["timeline"]["events"]) {
                        if !told.insert(event.clone()) {
                            done.store(true, Ordering::Relaxed);
                            return Err(Failure::product("tell an event once")
                                .last_seen(format!("`{event}` was told twice")));
                        }
                    }
                    if last {
                        return Ok(told.len());
                    }
                }
            };
            let (said, heard) = tokio::join!(speak, hear);
            said?;
            let heard = heard?;
            // Whoever hears nothing hears nothing twice.
            product(
                heard > most / 2,
                "tell what is said",
                format!("{heard} events"),
            )
        })
}

/// What a long poll is to be woken by.
async fn wakes(
    bob: &Client,
    cause: impl AsyncFnOnce() -> Result<()>,
    told: impl Fn(&Value) -> bool,
) -> Result<(Duration, Value, String)> {
    let token = since(&bob.listen().await?)?;
    let path = format!("/_matrix/client/v3/sync?since={token}&timeout=15000");
    let poll = async {
        let answer = bob.try_raw(Method::GET, &path, None).await?.must()?;
        Ok::<_, Failure>((Instant::now(), answer))
    };
    // The poll must stand before the cause. Nothing tells when the server has taken it up, so the cause waits until the
    // server has answered two questions that were asked after it.
    let cause = async {
        for _ in 0..2 {
            bob.whoami().await?;
        }
        cause().await?;
        Ok(Instant::now())
    };
    let ((answered, answer), caused) = tokio::try_join!(poll, cause)?;
    let next = answer["next_batch"].as_str().unwrap_or_default().to_owned();
    product(
        !told(&answer) || !next.is_empty(),
        "go on from the answer",
        answer.to_string(),
    )?;
    Ok((answered.saturating_duration_since(caused), answer, token))
}

/// C6. Bob's poll stands, and nothing happens, until something does: a message, an invitation, a to-device message.
/// Each wakes it long before its time, and he is told at the latest by the poll after that.
/// Client-Server API, "Syncing", `timeout`.
#[test]
fn a_long_poll_wakes_for_a_message_an_invitation_and_a_to_device_message() -> Outcome {
    claim()
        .notices(&[Mutant::DropsToDevice, Mutant::SleepsThroughPolls])
        .holds(async |scene| {
            for cause in ["message", "invitation", "to-device"] {
                let (took, answer, token, told) = woken(scene, cause).await?;
                product(
                    took < Duration::from_secs(10),
                    &format!("wake a poll of 15 s for a {cause}"),
                    format!("it took {took:?}: {answer}"),
                )?;
                if told.holds(&answer) {
                    continue;
                }
                let next = answer["next_batch"].as_str().unwrap_or(&token);
                let path = format!("/_matrix/client/v3/sync?since={next}&timeout=10000");
                let next = told.bob.try_raw(Method::GET, &path, None).await?.must()?;
                product(
                    told.holds(&next),
                    &format!("tell of the {cause} at the latest in the next answer"),
                    format!("{next}"),
                )?;
            }
            Ok(())
        })
}

/// C6. The answer that a poll is woken with tells what woke it: a client that shows what an answer holds needs no
/// second question. Client-Server API, "Syncing".
#[test]
fn the_answer_that_wakes_a_long_poll_tells_what_woke_it() -> Outcome {
    claim().flawed(&[&known::WAKES_EMPTY]).holds(async |scene| {
        // Every one of several: where a message is quicker than the poll, there is nothing to wake. All of them before one is
        // judged, so that as much is asked through the proxy as without it.
        let mut empty = Vec::new();
        for _ in 0..4 {
            let (_, answer, _, told) = woken(scene, "message").await?;
            if !told.holds(&answer) {
                empty.push(answer.to_string());
            }
        }
        product(
            empty.is_empty(),
            "tell in the answer that wakes a poll what woke it",
            format!("woken with {}", empty.join("\n")),
        )
    })
}

/// Who was woken, and what he is to be told.
struct Told {
    bob: Client,
    looks: Box<dyn Fn(&Value) -> bool>,
}

impl Told {
    fn holds(&self, answer: &Value) -> bool {
        (self.looks)(answer)
    }
}

async fn woken(
    scene: &harness::commons::Scene<'_>,
    cause: &str,
) -> Result<(Duration, Value, String, Told)> {
    let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
    let garden = alice
        .create_room(NewRoom::from("garden").invite(bob.user_id()))
        .await?;
    bob.join(&garden).await?;
    let word = scene.unique("word");
    let act = async || {
        match cause {
            "message" => _ = alice.say(&garden, &word).await?,
            "invitation" => {
                _ = alice
                    .create_room(NewRoom::from(word.as_str()).invite(bob.user_id()))
                    .await?
            }
            _ => {
                let body = json!({"messages": {bob.user_id(): {bob.device_id(): {"note": word}}}});
                let path = format!(
                    "/_matrix/client/v3/sendToDevice/test.note/{}",
                    alice.next_txn()
                );
                alice
                    .try_raw(Method::PUT, &path, Some(&body))
                    .await?
                    .must()?;
            }
        }
        Ok(())
    };
    let sought = word.clone();
    let looks = Box::new(move |answer: &Value| answer.to_string().contains(&sought));
    let (took, answer, token) = wakes(&bob, act, &looks).await?;
    Ok((took, answer, token, Told { bob, looks }))
}

/// C6. A poll that nothing wakes is answered when its time is over, by the server and not by the proxy in between:
/// with 200, empty, and a token that goes on. Client-Server API, "Syncing".
#[test]
fn a_long_poll_that_nothing_wakes_outlasts_the_proxy() -> Outcome {
    claim().notices(&[Mutant::CutsPolls]).holds(async |scene| {
        let bob = scene.cast("bob").await?;
        let token = since(&bob.listen().await?)?;
        let began = Instant::now();
        let path = format!("/_matrix/client/v3/sync?since={token}&timeout=12000");
        let answer = bob.try_raw(Method::GET, &path, None).await?.must()?;
        let took = began.elapsed();
        product(
            took >= Duration::from_millis(11_500),
            "wait as long as it was asked to",
            format!("answered after {took:?}: {answer}"),
        )?;
        product(
            answer["next_batch"].is_string()
                && answer["rooms"]["join"]
                    .as_object()
                    .is_none_or(serde_json::Map::is_empty),
            "answer emptily, with a token",
            answer.to_string(),
        )?;
        // And the session goes on behind it.
        let mut listener = bob
            .listen_from(answer["next_batch"].as_str().map(str::to_owned))
            .await?;
        let garden = bob.create_room("garden").await?;
        listener
            .until(
                "bob is told of his own room",
                scene.soon(),
                |seen| match seen.room(&garden) {
                    Some(_) => ProbeState::Ready(()),
                    None => ProbeState::NotYet("no".to_owned()),
                },
            )
            .await?;
        Ok(())
    })
}
