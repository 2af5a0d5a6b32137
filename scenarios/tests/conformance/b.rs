//! B: rooms and rights.

use harness::client::{Answer, Client, NewRoom};
use harness::commons::claim;
use harness::faulty::Mutant;
use harness::known;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use reqwest::Method;
use ruma::{EventId, OwnedRoomAliasId, RoomId};
use scenarios::{encoded, product};
use serde_json::{Value, json};

/// It was refused, whatever the words; and nothing of a secret came with the refusal.
fn refused<T>(answer: &Answer<T>, secret: &str) -> Result<()> {
    let asked = &answer.asked;
    let what = format!("refuse to {} to {}", asked.what, asked.who);
    match answer.refusal() {
        None => Err(Failure::product(what).last_seen(format!("accepted with {}", answer.status))),
        Some(refusal) if !matches!(refusal.status, 403 | 404) => {
            Err(Failure::product(what).last_seen(refusal.to_string()))
        }
        Some(refusal) if String::from_utf8_lossy(&refusal.body).contains(secret) => {
            Err(Failure::product("keep the secret out of the refusal")
                .last_seen(refusal.to_string()))
        }
        Some(_) => Ok(()),
    }
}

/// Every way to read an event of a room.
async fn ways_to_read(who: &Client, room: &RoomId, event: &EventId) -> Result<Vec<Answer<Value>>> {
    let room = format!("/_matrix/client/v3/rooms/{}", encoded(room.as_str()));
    let event = encoded(event.as_str());
    let mut answers = Vec::new();
    for path in [
        format!("{room}/event/{event}"),
        format!("{room}/context/{event}?limit=10"),
        format!("{room}/messages?dir=b&limit=50"),
    ] {
        answers.push(who.try_raw(Method::GET, &path, None).await?);
    }
    Ok(answers)
}

/// B1. Bob knows the ids of alice's private room and of what was said there, and gets nowhere: not in, not a word, not
/// who is there. That he is told of nothing is known once he was told of a later room that he may see.
/// Client-Server API, "Room membership"; room version 12, "Authorization rules".
#[test]
fn who_is_not_invited_cannot_join_read_or_peek_into_a_private_room() -> Outcome {
    claim()
        .notices(&[Mutant::ForgivesForbidden])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let mut listener = bob.listen().await?;
            let garden = alice.create_room("garden").await?;
            let secret = scene.unique("secret");
            let said = alice.say(&garden, &secret).await?;
            let joined = bob.try_join(&garden).await?;
            product(
                !joined.accepted(),
                "refuse to let bob in",
                format!("{}", joined.status),
            )?;
            for answer in ways_to_read(&bob, &garden, &said).await? {
                match &answer.outcome {
                    // Whether pages are refused is the next claim; nothing that was said may be on them.
                    Ok(page) if answer.asked.request.ends_with("/messages") => {
                        let told = page.to_string();
                        product(
                            !told.contains(&secret) && !told.contains(said.as_str()),
                            "keep what was said from bob",
                            told,
                        )?;
                    }
                    _ => refused(&answer, &secret)?,
                }
            }
            let room = format!("/_matrix/client/v3/rooms/{}", encoded(garden.as_str()));
            for path in [
                "state",
                "state/m.room.name",
                "members",
                "joined_members",
                "aliases",
            ] {
                let answer = bob
                    .try_raw(Method::GET, &format!("{room}/{path}"), None)
                    .await?;
                refused(&answer, "garden")?;
            }
            for (method, path, body) in [
                (
                    Method::PUT,
                    "send/m.room.message/1",
                    json!({"msgtype": "m.text", "body": "knock knock"}),
                ),
                (Method::PUT, "state/m.room.topic", json!({"topic": "bob's"})),
                (Method::PUT, "redact/1/1", json!({})),
                (Method::POST, "invite", json!({"user_id": bob.user_id()})),
                (Method::POST, "kick", json!({"user_id": alice.user_id()})),
            ] {
                let path = path.replace("redact/1", &format!("redact/{}", encoded(said.as_str())));
                let answer = bob
                    .try_raw(method, &format!("{room}/{path}"), Some(&body))
                    .await?;
                refused(&answer, &secret)?;
            }
            let open = alice
                .create_room(NewRoom::from("open").invite(bob.user_id()))
                .await?;
            let what = "bob is told of the room that he is invited to";
            listener
                .until(what, scene.soon(), |seen| {
                    seen.membership(&open, harness::client::Membership::Invited)
                })
                .await?;
            let mentioned = listener.seen().room(&garden).is_some();
            product(
                !mentioned,
                "tell bob nothing of the private room",
                "sync mentions it",
            )?;
            let members = alice.members(&garden).await?;
            product(
                members.len() == 1,
                "leave the room as it was",
                format!("{members:?}"),
            )
        })
}

/// B1. And he is told that it is not his to read, also when he asks for its pages; not who made it, nor when.
/// Client-Server API, "GET /_matrix/client/v3/rooms/{roomId}/messages": 403.
#[test]
fn asking_for_the_pages_of_a_room_that_one_is_not_in_is_refused() -> Outcome {
    claim()
        .flawed(&[&known::STRANGERS_PAGES])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice.create_room("garden").await?;
            let path = format!(
                "/_matrix/client/v3/rooms/{}/messages?dir=b",
                encoded(garden.as_str())
            );
            let answer = bob.try_raw(Method::GET, &path, None).await?;
            let seen = format!("{} {:?}", answer.status, answer.outcome);
            product(
                answer
                    .refusal()
                    .is_some_and(|refusal| refusal.status == 403),
                "refuse a stranger the pages of a room with 403, and show nothing on them",
                seen,
            )
        })
}

/// B2. Each step is what both members then have, and only what is allowed follows: who left is invited again, who is
/// banned can be neither invited nor join until the ban is lifted. Client-Server API, "Room membership".
#[test]
fn invitation_joining_leaving_and_banning_follow_each_other_as_specified() -> Outcome {
    claim()
        .notices(&[Mutant::ForgivesForbidden])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice.create_room("garden").await?;
            let is = async |expected: &str| -> Result<()> {
                let members = alice.members(&garden).await?;
                let seen = members.get(bob.user_id()).map_or("none", String::as_str);
                product(seen == expected, &format!("have bob as `{expected}`"), seen)
            };
            bob.try_join(&garden)
                .await?
                .must_be_refused(403, "M_FORBIDDEN")?;
            alice.invite(&garden, bob.user_id()).await?;
            is("invite").await?;
            bob.join(&garden).await?;
            is("join").await?;
            bob.say(&garden, "here I am").await?;
            let again = alice.try_invite(&garden, bob.user_id()).await?;
            product(
                !again.accepted(),
                "refuse to invite who is there",
                format!("{}", again.status),
            )?;
            is("join").await?;
            bob.leave(&garden).await?;
            is("leave").await?;
            bob.try_say(&garden, "am I still here?")
                .await?
                .must_be_refused(403, "M_FORBIDDEN")?;
            bob.try_join(&garden)
                .await?
                .must_be_refused(403, "M_FORBIDDEN")?;
            alice.invite(&garden, bob.user_id()).await?;
            bob.leave(&garden).await?;
            is("leave").await?;
            alice.invite(&garden, bob.user_id()).await?;
            bob.join(&garden).await?;
            alice.kick(&garden, bob.user_id()).await?;
            is("leave").await?;
            alice.invite(&garden, bob.user_id()).await?;
            bob.join(&garden).await?;
            alice.ban(&garden, bob.user_id()).await?;
            is("ban").await?;
            refused(&alice.try_invite(&garden, bob.user_id()).await?, "secret")?;
            refused(&bob.try_join(&garden).await?, "secret")?;
            is("ban").await?;
            let unban = format!(
                "/_matrix/client/v3/rooms/{}/unban",
                encoded(garden.as_str())
            );
            alice
                .try_raw(
                    Method::POST,
                    &unban,
                    Some(&json!({"user_id": bob.user_id()})),
                )
                .await?
                .must()?;
            is("leave").await?;
            alice.invite(&garden, bob.user_id()).await?;
            bob.join(&garden).await?;
            is("join").await
        })
}

/// B3. What each act needs is in the room's power levels: bob, at a level below, is refused each; raised to it, he is
/// allowed each. Carol is who is acted upon. Client-Server API, "m.room.power_levels".
#[test]
fn power_levels_decide_who_speaks_sets_state_invites_kicks_bans_and_redacts() -> Outcome {
    claim().notices(&[Mutant::ForgivesForbidden]).holds(async |scene| {
        let (alice, bob, carol) = (scene.cast("alice").await?, scene.cast("bob").await?, scene.cast("carol").await?);
        let dave = scene.cast("dave").await?;
        let levels = |bob_has: u8| {
            json!({
                "users": {bob.user_id(): bob_has}, "users_default": 0, "events_default": 40, "state_default": 50,
                "invite": 41, "kick": 42, "ban": 43, "redact": 44, "events": {"m.room.topic": 45},
            })
        };
        let garden = alice
            .create_room(NewRoom { power_levels: Some(levels(39)), version: Some("11".to_owned()), ..NewRoom::from("garden").invite(bob.user_id()).invite(carol.user_id()) })
            .await;
        // The creator of a room of version 11 has the level that the content gives, so it must be in it.
        let garden = match garden {
            Ok(garden) => garden,
            Err(_) => alice
                .create_room(NewRoom { power_levels: Some(with(levels(39), &alice, 100)), version: Some("11".to_owned()), ..NewRoom::from("garden").invite(bob.user_id()).invite(carol.user_id()) })
                .await?,
        };
        bob.join(&garden).await?;
        carol.join(&garden).await?;
        let word = alice.say(&garden, "a word").await?;
        let room = format!("/_matrix/client/v3/rooms/{}", encoded(garden.as_str()));
        let carol_is = json!({"user_id": carol.user_id()});
        // Each act with the level that it needs.
        let acts = [
            (40, Method::PUT, format!("{room}/send/m.room.message/TXN"), json!({"msgtype": "m.text", "body": "bob speaks"})),
            (41, Method::POST, format!("{room}/invite"), json!({"user_id": dave.user_id()})),
            (42, Method::POST, format!("{room}/kick"), carol_is.clone()),
            (43, Method::POST, format!("{room}/ban"), carol_is),
            (44, Method::PUT, format!("{room}/redact/{}/TXN", encoded(word.as_str())), json!({})),
            (45, Method::PUT, format!("{room}/state/m.room.topic"), json!({"topic": "bob's"})),
            (50, Method::PUT, format!("{room}/state/test.other"), json!({"by": "bob"})),
        ];
        for (needed, method, path, body) in acts {
            for (level, allowed) in [(needed - 1, false), (needed, true)] {
                alice.send_state(&garden, "m.room.power_levels", "", &with(levels(level), &alice, 100)).await?;
                let path = path.replace("TXN", bob.next_txn().as_str());
                let answer = bob.try_raw(method.clone(), &path, Some(&body)).await?;
                let seen = format!("{path} answered {:?}", answer.outcome);
                let as_it_must = if allowed { answer.accepted() } else { answer.refusal().is_some_and(|refusal| refusal.is("M_FORBIDDEN") && refusal.status == 403) };
                product(as_it_must, &format!("{} with {level} what needs {needed}", if allowed { "allow" } else { "refuse" }), seen)?;
            }
        }
        Ok(())
    })
}

/// The levels with one more user in them.
fn with(mut levels: Value, user: &Client, level: u8) -> Value {
    levels["users"][user.user_id().as_str()] = level.into();
    levels
}

/// B4. Bob, at 60, can give others up to 60 and no more, not to himself either, and cannot take from who has as much.
/// Room version 11, "Authorization rules", rule on m.room.power_levels.
#[test]
fn nobody_raises_a_level_above_their_own() -> Outcome {
    claim()
        .notices(&[Mutant::ForgivesForbidden])
        .holds(async |scene| {
            let (alice, bob, carol) = (
                scene.cast("alice").await?,
                scene.cast("bob").await?,
                scene.cast("carol").await?,
            );
            let levels = |bob_has: u8, carol_has: u8, more: &[(&str, u8)]| {
                let mut levels = with(
                    with(
                        with(
                            json!({"users": {}, "state_default": 50, "events": {}}),
                            &alice,
                            100,
                        ),
                        &bob,
                        bob_has,
                    ),
                    &carol,
                    carol_has,
                );
                for (key, level) in more {
                    levels[key] = (*level).into();
                }
                levels
            };
            let room = NewRoom {
                power_levels: Some(levels(60, 0, &[])),
                version: Some("11".to_owned()),
                ..NewRoom::from("garden")
                    .invite(bob.user_id())
                    .invite(carol.user_id())
            };
            let garden = alice.create_room(room).await?;
            bob.join(&garden).await?;
            carol.join(&garden).await?;
            let tries = async |content: Value| {
                bob.try_send_state(&garden, "m.room.power_levels", "", &content)
                    .await
            };
            for (what, content) in [
                ("himself", levels(61, 0, &[])),
                ("carol", levels(60, 61, &[])),
                ("what a ban needs", levels(60, 0, &[("ban", 61)])),
                ("alice down", with(levels(60, 0, &[]), &alice, 50)),
            ] {
                let answer = tries(content).await?;
                product(
                    !answer.accepted(),
                    &format!("refuse bob to set {what} beyond 60"),
                    format!("accepted with {}", answer.status),
                )?;
            }
            tries(levels(60, 60, &[])).await?.must()?;
            // Of who has as much as he, he takes nothing away.
            let down = tries(levels(60, 10, &[])).await?;
            product(
                !down.accepted(),
                "refuse to lower who has as much",
                format!("accepted with {}", down.status),
            )?;
            tries(levels(20, 60, &[])).await?.must()?;
            let back = tries(levels(60, 60, &[])).await?;
            product(
                !back.accepted(),
                "refuse to take back what was given up",
                format!("accepted with {}", back.status),
            )
        })
}

/// B4. In room version 12 who made the room stands above every level: the highest of all levels neither kicks nor bans
/// nor demotes her, and she cannot even be written into the levels. Room version 12, "Authorization rules".
#[test]
fn the_creator_of_a_version_12_room_stands_above_every_level() -> Outcome {
    claim()
        .notices(&[Mutant::ForgivesForbidden])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let most = 9_007_199_254_740_991_u64;
            let room = NewRoom {
                power_levels: Some(json!({"users": {bob.user_id(): most}})),
                ..NewRoom::from("garden").version("12").invite(bob.user_id())
            };
            let garden = alice.create_room(room).await?;
            bob.join(&garden).await?;
            bob.try_kick(&garden, alice.user_id())
                .await?
                .must_be_refused(403, "M_FORBIDDEN")?;
            bob.try_ban(&garden, alice.user_id())
                .await?
                .must_be_refused(403, "M_FORBIDDEN")?;
            let named = json!({"users": {bob.user_id(): most, alice.user_id(): 0}});
            for who in [&bob, &alice] {
                let answer = who
                    .try_send_state(&garden, "m.room.power_levels", "", &named)
                    .await?;
                product(
                    !answer.accepted(),
                    &format!("refuse {who} to write the creator into the levels"),
                    format!("accepted with {}", answer.status),
                )?;
            }
            alice
                .send_state(
                    &garden,
                    "m.room.power_levels",
                    "",
                    &json!({"users": {bob.user_id(): 0}}),
                )
                .await?;
            alice.kick(&garden, bob.user_id()).await?;
            Ok(())
        })
}

/// B5. Alice says one thing before bob is invited, one between invitation and joining, one after. Which of them bob
/// reads is what the room's history visibility says, by every way to read: page, single event, context.
/// Client-Server API, "Room History Visibility".
#[test]
fn history_visibility_holds_for_pages_single_events_and_their_context() -> Outcome {
    claim()
        .notices(&[Mutant::DropsMessages])
        .holds(async |scene| {
            for (visibility, reads) in [
                ("joined", [false, false, true]),
                ("invited", [false, true, true]),
                ("shared", [true, true, true]),
            ] {
                let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
                let room = NewRoom {
                    history_visibility: Some(visibility.to_owned()),
                    ..NewRoom::from("garden")
                };
                let garden = alice.create_room(room).await?;
                let words = ["before", "between", "after"].map(|word| scene.unique(word));
                let before = alice.say(&garden, &words[0]).await?;
                alice.invite(&garden, bob.user_id()).await?;
                let between = alice.say(&garden, &words[1]).await?;
                bob.join(&garden).await?;
                let after = alice.say(&garden, &words[2]).await?;
                for ((word, event), may) in words.iter().zip([&before, &between, &after]).zip(reads)
                {
                    for answer in ways_to_read(&bob, &garden, event).await? {
                        let told = answer
                            .outcome
                            .as_ref()
                            .is_ok_and(|body| body.to_string().contains(word));
                        product(
                            told == may,
                            &format!(
                                "{} `{word}` in a room of visibility `{visibility}`",
                                if may { "show" } else { "hide" }
                            ),
                            format!(
                                "{} answered {}: {:?}",
                                answer.asked.request, answer.status, answer.outcome
                            ),
                        )?;
                    }
                }
            }
            Ok(())
        })
}

/// B5. What is said after bob left is not his to read, by no way, though the room is `shared`.
/// Client-Server API, "Room History Visibility".
#[test]
fn who_left_reads_nothing_of_what_is_said_afterwards() -> Outcome {
    claim()
        .notices(&[Mutant::KeepsWhoLeft])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice
                .create_room(NewRoom::from("garden").invite(bob.user_id()))
                .await?;
            bob.join(&garden).await?;
            let before = alice.say(&garden, "ours").await?;
            bob.sees(&garden, &before).await?;
            bob.leave(&garden).await?;
            let theirs = scene.unique("theirs");
            let after = alice.say(&garden, &theirs).await?;
            for answer in ways_to_read(&bob, &garden, &after).await? {
                let told = match &answer.outcome {
                    Ok(body) => body.to_string(),
                    Err(refusal) => String::from_utf8_lossy(&refusal.body).into_owned(),
                };
                product(
                    !told.contains(&theirs),
                    "hide what was said after bob left",
                    format!("{}: {told}", answer.asked.request),
                )?;
            }
            Ok(())
        })
}

/// B5. What was said while he was there is not taken from him when he leaves.
/// Client-Server API, "Room History Visibility", `shared`.
#[test]
fn who_left_still_reads_what_was_said_while_he_was_there() -> Outcome {
    claim()
        .flawed(&[&known::HISTORY_AFTER_LEAVING])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice
                .create_room(NewRoom::from("garden").invite(bob.user_id()))
                .await?;
            bob.join(&garden).await?;
            let before = alice.say(&garden, "ours").await?;
            bob.leave(&garden).await?;
            let answer = bob.try_event(&garden, &before).await?;
            product(
                answer.accepted(),
                "show what was said while bob was there",
                format!("{:?}", answer.outcome),
            )
        })
}

/// B5. Who comes back to a room of shared history reads all of it again, also what he had asked for in vain while he
/// was away. Client-Server API, "Room History Visibility", `shared`.
#[test]
fn who_comes_back_reads_what_he_could_not_read_while_away() -> Outcome {
    claim()
        .flawed(&[&known::VISIBILITY_REMEMBERED])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice
                .create_room(NewRoom::from("garden").invite(bob.user_id()))
                .await?;
            bob.join(&garden).await?;
            bob.leave(&garden).await?;
            let away = alice.say(&garden, "while he is away").await?;
            refused(&bob.try_event(&garden, &away).await?, "while he is away")?;
            alice.invite(&garden, bob.user_id()).await?;
            bob.join(&garden).await?;
            let answer = bob.try_event(&garden, &away).await?;
            product(
                answer.accepted(),
                "show who came back what was said meanwhile",
                format!("{:?}", answer.outcome),
            )
        })
}

/// B6. What alice takes back is gone for everybody who reads, by every way; that something was there, and that it was
/// taken back, stays. Client-Server API, "Redactions".
#[test]
fn a_redaction_strips_the_content_for_everybody() -> Outcome {
    claim()
        .notices(&[Mutant::IgnoresRedactions])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice
                .create_room(NewRoom::from("garden").invite(bob.user_id()))
                .await?;
            bob.join(&garden).await?;
            let mut listener = bob.listen().await?;
            let regret = scene.unique("regret");
            let said = alice.say(&garden, &regret).await?;
            let kept = alice.say(&garden, "something else").await?;
            bob.sees(&garden, &said).await?;
            let taken = bob
                .try_raw(
                    Method::PUT,
                    &format!(
                        "/_matrix/client/v3/rooms/{}/redact/{}/{}",
                        encoded(garden.as_str()),
                        encoded(said.as_str()),
                        bob.next_txn()
                    ),
                    Some(&json!({})),
                )
                .await?;
            product(
                !taken.accepted(),
                "refuse bob to take alice's words back",
                format!("{}", taken.status),
            )?;
            let redaction = alice.redact(&garden, &said, "a slip").await?;
            listener
                .until("bob is told of the redaction", scene.soon(), |seen| {
                    seen.event(&garden, &redaction)
                })
                .await?;
            for who in [&alice, &bob] {
                for answer in ways_to_read(who, &garden, &said).await? {
                    let told = match answer.outcome {
                        Ok(body) => body.to_string(),
                        Err(refusal) => {
                            return Err(Failure::product(format!(
                                "show that something was redacted: {refusal}"
                            )));
                        }
                    };
                    product(
                        told.contains(said.as_str()) && !told.contains(&regret),
                        "show the event without its content",
                        format!("{}: {told}", answer.asked.request),
                    )?;
                }
                let event = who.try_event(&garden, &said).await?.must()?;
                product(
                    event.content == json!({}),
                    "leave no content",
                    event.content.to_string(),
                )?;
                let other = who.try_event(&garden, &kept).await?.must()?;
                product(
                    other.body() == Some("something else"),
                    "leave the other message",
                    other.content.to_string(),
                )?;
            }
            Ok(())
        })
}

/// B6. Also on the partner's server, which had the content already. Server-Server API; Client-Server API, "Redactions".
#[test]
fn a_redaction_strips_the_content_on_the_partners_server_too() -> Outcome {
    claim()
        .notices(&[Mutant::IgnoresRedactions])
        .at_home_only()
        .holds(async |scene| {
            let (alice, abroad) = (scene.cast("alice").await?, scene.abroad());
            let charlie = abroad.cast("charlie").await?;
            let garden = alice
                .create_room(NewRoom::from("garden").invite(charlie.user_id()))
                .await?;
            charlie
                .join_via(garden.as_str(), &[alice.user_id().server_name().to_owned()])
                .await?;
            let regret = scene.unique("regret");
            let said = alice.say(&garden, &regret).await?;
            let seen = charlie.sees(&garden, &said).await?;
            product(
                seen.body() == Some(&regret),
                "federate the message",
                format!("{seen:?}"),
            )?;
            let redaction = alice.redact(&garden, &said, "a slip").await?;
            charlie
                .sees_within(&garden, &redaction, scene.soon())
                .await?;
            for answer in ways_to_read(&charlie, &garden, &said).await? {
                let told = format!("{:?}", answer.outcome);
                product(
                    answer.accepted() && !told.contains(&regret),
                    "strip the content abroad",
                    format!("{}: {told}", answer.asked.request),
                )?;
            }
            Ok(())
        })
}

fn alias(scene: &harness::commons::Scene<'_>, word: &str) -> Result<OwnedRoomAliasId> {
    let alias = format!("#{}:{}", scene.unique(word), scene.server_name());
    OwnedRoomAliasId::try_from(alias.as_str())
        .map_err(|error| Failure::harness(format!("name `{alias}`")).because(error))
}

/// B7. The alias that alice made is taken: nobody makes it again, and bob, who has no power in the room, cannot remove
/// it; she can. Client-Server API, "Room Aliases".
#[test]
fn an_alias_belongs_to_who_made_it() -> Outcome {
    claim()
        .notices(&[Mutant::ForgivesForbidden])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice
                .create_room(NewRoom::from("garden").invite(bob.user_id()))
                .await?;
            bob.join(&garden).await?;
            let shed = bob.create_room("shed").await?;
            let name = alias(scene, "garden")?;
            alice
                .try_resolve(&name)
                .await?
                .must_be_refused(404, "M_NOT_FOUND")?;
            alice.add_alias(&garden, &name).await?;
            let listed = alice.aliases(&garden).await?;
            product(
                listed == [name.clone()],
                "list the alias",
                format!("{listed:?}"),
            )?;
            let again = bob.try_add_alias(&shed, &name).await?;
            product(
                again.status == 409,
                "answer 409 to an alias that is taken",
                format!("{:?}", again.outcome),
            )?;
            let removed = bob.try_remove_alias(&name).await?;
            product(
                !removed.accepted(),
                "refuse bob to remove alice's alias",
                format!("{}", removed.status),
            )?;
            let leads = bob.resolve(&name).await?;
            product(
                leads == garden,
                "lead to alice's room still",
                leads.to_string(),
            )?;
            alice.remove_alias(&name).await?;
            alice
                .try_resolve(&name)
                .await?
                .must_be_refused(404, "M_NOT_FOUND")?;
            bob.add_alias(&shed, &name).await?;
            Ok(())
        })
}

/// B7. A room's canonical alias must lead to it: one that leads nowhere or elsewhere is refused and not set.
/// Client-Server API, "m.room.canonical_alias"; "Sending events to a room", `M_BAD_ALIAS`.
#[test]
fn a_canonical_alias_leads_to_its_room() -> Outcome {
    claim()
        .notices(&[Mutant::ForgivesForbidden])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let (garden, shed) = (
                alice.create_room("garden").await?,
                alice.create_room("shed").await?,
            );
            let (ours, other, none) = (
                alias(scene, "ours")?,
                alias(scene, "other")?,
                alias(scene, "none")?,
            );
            alice.add_alias(&garden, &ours).await?;
            alice.add_alias(&shed, &other).await?;
            alice
                .send_state(
                    &garden,
                    "m.room.canonical_alias",
                    "",
                    &json!({"alias": ours}),
                )
                .await?;
            for bad in [&other, &none] {
                for content in [
                    json!({"alias": bad}),
                    json!({"alias": ours, "alt_aliases": [bad]}),
                ] {
                    let answer = alice
                        .try_send_state(&garden, "m.room.canonical_alias", "", &content)
                        .await?;
                    product(
                        !answer.accepted(),
                        &format!("refuse the canonical alias {content}"),
                        format!("accepted with {}", answer.status),
                    )?;
                }
            }
            let state = alice.room_state(&garden).await?;
            let set = state
                .iter()
                .find(|event| event.kind == "m.room.canonical_alias")
                .map(|event| event.content["alias"].clone());
            product(
                set == Some(json!(ours)),
                "keep the good alias",
                format!("{set:?}"),
            )
        })
}
