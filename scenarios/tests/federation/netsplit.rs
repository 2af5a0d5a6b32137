//! The room goes on on both sides of a netsplit, and comes together again.

use crate::abroad::{Pair, Partner, SETTLED, between, receives, state};
use crate::{Table, demand};
use harness::client::{Client, Event};
use harness::fault::Fault;
use harness::probe::{self, ProbeState};
use harness::scenario::{Outcome, Stage};
use harness::{Failure, Result};
use ruma::{OwnedEventId, OwnedRoomId, RoomId, UserId};
use scenarios::encoded;
use serde_json::{Value, json};

/// E11. alice at home and charlie abroad, who is nearly as powerful, go on without each other: both set the topic and the
/// power levels, alice bans dora, who goes on to name the room abroad, and charlie kicks bob, who goes on to speak at home.
/// When the split is over, both servers have one and the same state, event by event, and it is the one that the rules of the
/// room's version make of it. "State resolution" of room versions 2 and 12.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_netsplit_home_and_synapse_agree_on_the_whole_state() -> Outcome {
    between(Partner::Synapse, async |stage, pair| {
        reunites(stage, pair).await
    })
    .await
}

/// The same between two sites of the kit.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_netsplit_two_conduits_agree_on_the_whole_state() -> Outcome {
    between(Partner::Conduit, async |stage, pair| {
        reunites(stage, pair).await
    })
    .await
}

/// Room version 11 resolves state by version 2 of the algorithm, 12 by version 2.1, and its creator stands above all levels.
const VERSIONS: [&str; 2] = ["11", "12"];

async fn reunites(stage: &Stage, pair: &Pair) -> Result<()> {
    let mut gardens = Vec::new();
    for version in VERSIONS {
        gardens.push(prepared(pair, version).await?);
    }
    let cut = Fault::cut(&pair.home, &pair.abroad);
    stage
        .world
        .during(&cut, async || {
            for garden in &gardens {
                at_home(pair, garden).await?;
                abroad(pair, garden).await?;
                let apart = (
                    state(&pair.alice, garden).await?,
                    state(&pair.charlie, garden).await?,
                );
                demand(
                    apart.0 != apart.1,
                    "go apart in a netsplit",
                    format!("{apart:?}"),
                )?;
            }
            Ok(())
        })
        .await?;
    let mut table = Table::default();
    for (version, garden) in VERSIONS.iter().zip(&gardens) {
        table.row(&format!("version {version}"), together(pair, garden).await);
    }
    table.verdict("come together after a netsplit")
}

/// Everybody is in, and charlie is nearly as powerful as alice.
async fn prepared(pair: &Pair, version: &str) -> Result<OwnedRoomId> {
    let garden = pair.garden(version).await?;
    let set = levels(&pair.alice, &garden, |users| {
        users.insert(pair.charlie.user_id().to_string(), json!(90));
        users.insert(pair.bob.user_id().to_string(), json!(50));
        users.insert(pair.dora.user_id().to_string(), json!(50));
    })
    .await?;
    receives(&pair.charlie, &garden, &[set], SETTLED).await?;
    Ok(garden)
}

async fn at_home(pair: &Pair, garden: &RoomId) -> Result<()> {
    let topic = json!({"topic": "as it is at home"});
    pair.alice
        .send_state(garden, "m.room.topic", "", &topic)
        .await?;
    levels(&pair.alice, garden, |users| {
        users.insert(pair.bob.user_id().to_string(), json!(60));
    })
    .await?;
    pair.alice.ban(garden, pair.dora.user_id()).await?;
    pair.bob.say(garden, "nobody abroad hears me").await?;
    Ok(())
}

async fn abroad(pair: &Pair, garden: &RoomId) -> Result<()> {
    let topic = json!({"topic": "as it is abroad"});
    pair.charlie
        .send_state(garden, "m.room.topic", "", &topic)
        .await?;
    levels(&pair.charlie, garden, |users| {
        users.insert(pair.dora.user_id().to_string(), json!(70));
        users.insert(pair.bob.user_id().to_string(), json!(10));
    })
    .await?;
    pair.charlie.kick(garden, pair.bob.user_id()).await?;
    let name = json!({"name": "dora's garden"});
    pair.dora
        .send_state(garden, "m.room.name", "", &name)
        .await?;
    Ok(())
}

/// Changes the levels of some users; the new event.
async fn levels(
    who: &Client,
    garden: &RoomId,
    change: impl FnOnce(&mut serde_json::Map<String, Value>),
) -> Result<OwnedEventId> {
    let mut levels = content(who, garden, "m.room.power_levels", "").await?;
    for part in ["users", "events"] {
        if !levels[part].is_object() {
            levels[part] = json!({});
        }
    }
    // By default only the creator may.
    levels["events"]["m.room.power_levels"] = json!(80);
    levels["users"].as_object_mut().map(change);
    Ok(who
        .send_state(garden, "m.room.power_levels", "", &levels)
        .await?)
}

async fn content(who: &Client, garden: &RoomId, kind: &str, key: &str) -> Result<Value> {
    let state = who.room_state(garden).await?;
    let wanted = |event: &Event| event.kind == kind && event.state_key.as_deref() == Some(key);
    let found = state.into_iter().find(wanted);
    Ok(found.map_or(Value::Null, |event| event.content))
}

/// What each side says brings it the other's part of the room; what both then say joins the parts.
async fn together(pair: &Pair, garden: &RoomId) -> Result<()> {
    for round in ["are you there?", "so am I"] {
        let said = [
            pair.alice.say(garden, round).await?,
            pair.charlie.say(garden, round).await?,
        ];
        for who in [&pair.alice, &pair.charlie] {
            receives(who, garden, &said, SETTLED).await?;
        }
    }
    let mut seen = String::new();
    let met = probe::until("the servers agree on the state", SETTLED / 4, async || {
        let states = (
            state(&pair.alice, garden).await,
            state(&pair.charlie, garden).await,
        );
        match states {
            (Ok(home), Ok(abroad)) if home == abroad => ProbeState::Ready(()),
            (Ok(home), Ok(abroad)) => {
                let only = |these: &[String], those: &[String]| {
                    let only = these.iter().filter(|event| !those.contains(event));
                    only.map(|event| format!("\n  {event}")).collect::<String>()
                };
                seen = format!(
                    "only at home:{}\nonly abroad:{}",
                    only(&home, &abroad),
                    only(&abroad, &home)
                );
                ProbeState::NotYet(seen.clone())
            }
            (home, abroad) => ProbeState::NotYet(format!("{home:?} {abroad:?}")),
        }
    })
    .await;
    demand(
        met.is_ok(),
        "agree on the whole state after a netsplit",
        seen,
    )?;
    // alice's power events come first, because she is more powerful; charlie's levels are allowed after them and are the
    // last. The topics rest on the same levels, and charlie's is later. dora is banned and names nothing.
    let membership = async |who: &UserId| -> Result<Value> {
        Ok(content(&pair.alice, garden, "m.room.member", who.as_str()).await?["membership"].take())
    };
    let levels = content(&pair.alice, garden, "m.room.power_levels", "").await?;
    let level = |who: &UserId| levels["users"][who.as_str()].clone();
    let found = json!({
        "topic": content(&pair.alice, garden, "m.room.topic", "").await?["topic"],
        "name": content(&pair.alice, garden, "m.room.name", "").await?["name"],
        "bob": [membership(pair.bob.user_id()).await?, level(pair.bob.user_id())],
        "dora": [membership(pair.dora.user_id()).await?, level(pair.dora.user_id())],
    });
    let due = json!({
        "topic": "as it is abroad",
        "name": "garden",
        "bob": ["leave", 10],
        "dora": ["ban", 70],
    });
    demand(
        found == due,
        "resolve the state as the room's version has it",
        format!("{found} instead of {due}"),
    )
}

/// C3. charlie speaks abroad while alice goes on at home, cut off from him. When the split is over, what he said arrives late,
/// behind what alice has seen since. It comes once in sync; the pages of the room show it once, whether they are large or
/// small, read forwards or backwards, and nothing else is missing or there twice. "Syncing".
#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_late_is_shown_once_and_leaves_no_gap() -> Outcome {
    between(Partner::Synapse, async |stage, pair| {
        comes_late(stage, pair).await
    })
    .await
}

/// The same between two sites of the kit.
#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_late_from_a_conduit_is_shown_once_and_leaves_no_gap() -> Outcome {
    between(Partner::Conduit, async |stage, pair| {
        comes_late(stage, pair).await
    })
    .await
}

async fn comes_late(stage: &Stage, pair: &Pair) -> Result<()> {
    let garden = pair.garden("11").await?;
    let mut listener = pair.alice.listen().await?;
    listener.forget();
    let (mut here, mut there) = (Vec::new(), Vec::new());
    let cut = Fault::cut(&pair.home, &pair.abroad);
    stage
        .world
        .during(&cut, async || {
            for number in 0..7 {
                there.push(
                    pair.charlie
                        .say(&garden, &format!("there {number}"))
                        .await?,
                );
                here.push(pair.alice.say(&garden, &format!("here {number}")).await?);
                here.push(pair.alice.say(&garden, "and again").await?);
                listener
                    .until("alice has seen what she said", SETTLED, |seen| {
                        seen.event(&garden, &here[here.len() - 1])
                    })
                    .await?;
            }
            // The check below can fail: now nothing of what charlie says is there.
            let shown = pages(&pair.alice, &garden, "b", 1000).await?;
            let missing = once("during the split", &[&here[..], &there[..]], &shown).is_err();
            demand(missing, "go apart in a netsplit", format!("{shown:?}"))
        })
        .await?;
    // An occasion, for a server that waits for one.
    there.push(pair.charlie.say(&garden, "there again").await?);
    receives(&pair.alice, &garden, &there, SETTLED).await?;
    listener
        .until("alice has seen what charlie said last", SETTLED, |seen| {
            seen.event(&garden, &there[there.len() - 1])
        })
        .await?;
    let all = [&here, &there].map(Vec::as_slice);
    let room = listener.seen().room(&garden);
    let room = room.ok_or_else(|| Failure::product("mention the room in sync"))?;
    demand(!room.limited, "leave no gap in sync", "a limited timeline")?;
    let synced: Vec<_> = room
        .timeline
        .iter()
        .map(|event| event.event_id.to_string())
        .collect();
    let mut table = Table::default();
    table.row("sync", once("in sync", &all, &synced));
    for (direction, limit) in [("b", 1000), ("b", 3), ("f", 1000), ("f", 3)] {
        let pages = pages(&pair.alice, &garden, direction, limit).await?;
        table.row(
            &format!("pages of {limit}, {direction}"),
            once(
                &format!("on pages of {limit} read {direction}"),
                &all,
                &pages,
            ),
        );
    }
    table.verdict("show once what arrives late")
}

/// Each of these is shown, and not twice.
fn once(what: &str, all: &[&[OwnedEventId]], shown: &[String]) -> Result<()> {
    let off: Vec<_> = all
        .concat()
        .iter()
        .filter_map(|id| {
            let times = shown.iter().filter(|seen| *seen == id.as_str()).count();
            (times != 1).then(|| format!("{id} {times} times"))
        })
        .collect();
    demand(
        off.is_empty(),
        &format!("show what arrived late, and the rest, once {what}"),
        format!("{off:?} among {} events", shown.len()),
    )
}

/// The ids on all pages of a room, read in one direction.
async fn pages(who: &Client, room: &RoomId, direction: &str, limit: u32) -> Result<Vec<String>> {
    let (mut ids, mut from) = (Vec::new(), String::new());
    loop {
        let path = format!(
            "/_matrix/client/v3/rooms/{}/messages?dir={direction}&limit={limit}{from}",
            encoded(room.as_str())
        );
        let page = who
            .try_raw(reqwest::Method::GET, &path, None)
            .await?
            .must()?;
        let events = page["chunk"].as_array().map_or(&[][..], Vec::as_slice);
        ids.extend(
            events
                .iter()
                .filter_map(|event| event["event_id"].as_str())
                .map(str::to_owned),
        );
        let Some(end) = page["end"].as_str().filter(|_| !events.is_empty()) else {
            return Ok(ids);
        };
        let next = format!("&from={}", encoded(end));
        if next == from {
            return Ok(ids);
        }
        from = next;
    }
}
