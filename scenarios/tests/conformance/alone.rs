//! What breaks its world, and so has one of its own.

use fixtures::media;
use harness::client::{Client, NewRoom};
use harness::probe::ProbeState;
use harness::rehearse::{backed_up, restored};
use harness::scenario::{Outcome, scenario};
use harness::site::Site;
use harness::{Failure, OrBlame, Result};
use reqwest::Method;
use ruma::{OwnedEventId, RoomId};
use scenarios::{HOME, SOON, fleet_site, login, product, room};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Stops Conduit in one of two ways, and returns once it serves again.
async fn interrupted(site: &Site, how: &str) -> Result<()> {
    let stop = match how {
        "a restart" => "systemctl restart conduit.service",
        _ => "systemctl kill --signal=KILL conduit.service",
    };
    // After a kill systemd starts it again by itself, after the pause that the unit gives.
    let wait = "n=0; until curl -sf -o /dev/null http://127.0.0.1:6167/_matrix/client/versions; do n=$((n+1)); \
                [ $n -lt 600 ] || exit 1; sleep 0.1; done";
    site.host
        .shell(&format!("set -e; {stop}; {wait}"))
        .await
        .map(|_| ())
}

/// Says one thing after the other, counting aloud, until the server is known to be back, and hands back what was accepted,
/// in order. What got no answer may have been said or not: a timeout is not a refusal.
async fn talk(
    who: &Client,
    room: &RoomId,
    said: &watch::Sender<usize>,
    back: &watch::Receiver<bool>,
) -> Result<Vec<OwnedEventId>> {
    let mut accepted = Vec::new();
    while !*back.borrow() {
        let number = *said.borrow();
        // An error is that of the proxy, while nobody is behind it, of Conduit, while it stops, or of a broken connection.
        if let Ok(answer) = who.try_say(room, &format!("number {number}")).await {
            match answer.outcome {
                Ok(event) => accepted.push(event),
                Err(refusal) if refusal.status >= 500 => {}
                Err(refusal) => {
                    return Err(Failure::product("take a message or be away")
                        .last_seen(refusal.to_string()));
                }
            }
        }
        said.send_replace(number + 1);
    }
    accepted.push(who.say(room, "back").await?);
    Ok(accepted)
}

/// C4. Ezra has a token; alexander talks without pause while the server is restarted, then while it is killed with
/// `kill -9`. With the token from before, ezra hears everything that was accepted, once and in order, and nothing that
/// was told before the token. Client-Server API, "Syncing".
#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_before_a_restart_or_a_kill_loses_nothing_and_repeats_nothing() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let (alexander, ezra) = (
            login(stage, &site, "alexander").await?,
            login(stage, &site, "ezra").await?,
        );
        let social = room(&alexander, "fleet-social", HOME).await?;
        for how in ["a restart", "kill -9"] {
            let told = alexander.say(&social, &format!("before {how}")).await?;
            let mut listener = ezra.listen().await?;
            listener
                .until("ezra hears what was said before", SOON, |seen| {
                    seen.event(&social, &told)
                })
                .await?;
            let since = listener.since().map(str::to_owned);
            let (said, mut heard_of) = watch::channel(0);
            let (returns, back) = watch::channel(false);
            let (accepted, ()) =
                tokio::try_join!(talk(&alexander, &social, &said, &back), async {
                    // In the middle of it: once something was accepted.
                    heard_of
                        .wait_for(|said| *said >= 5)
                        .await
                        .or_harness(|| "hear of what was said".to_owned())?;
                    interrupted(&site, how).await?;
                    returns.send_replace(true);
                    Ok(())
                })?;
            let last = alexander.say(&social, &format!("after {how}")).await?;
            let mut listener = ezra.listen_from(since).await?;
            listener
                .until("ezra hears what was said last", SOON, |seen| {
                    seen.event(&social, &last)
                })
                .await?;
            let heard: Vec<_> = listener
                .seen()
                .room(&social)
                .into_iter()
                .flat_map(|room| &room.timeline)
                .map(|event| event.event_id.clone())
                .collect();
            // A gap is told as such, and lies behind a token; the pages then have what is in it.
            let limited = listener
                .seen()
                .room(&social)
                .is_some_and(|room| room.limited);
            let all: Vec<_> = if limited {
                let events: Vec<_> = ezra
                    .messages(&social)
                    .await?
                    .into_iter()
                    .map(|event| event.event_id)
                    .collect();
                let from = events
                    .iter()
                    .position(|event| *event == told)
                    .map_or(0, |index| index + 1);
                events[from..].to_vec()
            } else {
                heard.clone()
            };
            let mut kept = all.clone();
            kept.retain(|event| accepted.contains(event));
            product(
                kept == accepted,
                &format!("tell what was accepted around {how} once, in order"),
                format!("told {kept:?}\naccepted {accepted:?}"),
            )?;
            product(
                !heard.contains(&told),
                "repeat nothing from before the token",
                format!("{heard:?}"),
            )?;
            let mut once = heard.clone();
            once.sort();
            once.dedup();
            product(
                once.len() == heard.len(),
                "tell nothing twice",
                format!("{heard:?}"),
            )?;
        }
        Ok(())
    })
    .await
}

/// A4. A bot that got no answer, because the server was restarted or killed, sends again under the same transaction id:
/// it is the same event still. Client-Server API, "Transaction identifiers".
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_id_outlives_a_restart_and_a_kill() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let ezra = login(stage, &site, "ezra").await?;
        let social = room(&ezra, "fleet-social", HOME).await?;
        let hello = json!({"msgtype": "m.text", "body": "did you hear me?"});
        let txn = ezra.next_txn();
        let first = ezra
            .try_send_again(&social, "m.room.message", &hello, &txn)
            .await?
            .must()?;
        for how in ["a restart", "kill -9"] {
            interrupted(&site, how).await?;
            let again = ezra
                .try_send_again(&social, "m.room.message", &hello, &txn)
                .await?
                .must()?;
            product(
                again == first,
                &format!("answer with the same event after {how}"),
                format!("{again}, first {first}"),
            )?;
        }
        let heard: Vec<_> = ezra
            .messages(&social)
            .await?
            .into_iter()
            .filter(|event| event.body() == Some("did you hear me?"))
            .collect();
        product(heard.len() == 1, "have said it once", format!("{heard:?}"))
    })
    .await
}

/// D5. After a restore every file that was uploaded before the backup is there, byte by byte, also those that nobody
/// looked at in between. Client-Server API, "Content repository"; `restore.md`.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_every_uploaded_file_is_there_with_its_hash() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let alexander = login(stage, &site, "alexander").await?;
        let mut uploaded = Vec::new();
        for seed in 0..20_u64 {
            // From nothing to some hundred kilobytes.
            let bytes = media::pseudo_random(
                seed,
                usize::try_from(seed * seed * 997).or_harness(|| "choose a length".to_owned())?,
            );
            uploaded.push((
                alexander.upload(&bytes, "application/octet-stream").await?,
                bytes,
            ));
        }
        let snapshot = backed_up(&site).await?;
        let late = alexander.upload(b"after the backup", "text/plain").await?;
        site.lose_data().await?;
        restored(&site, &snapshot.id).await?;
        for (uri, bytes) in &uploaded {
            alexander.downloads(uri, bytes).await?;
        }
        // Were nothing lost, nothing would have been restored.
        let late = alexander.try_download(&late).await?;
        product(
            !late.accepted(),
            "have lost what was uploaded after the backup",
            format!("{}", late.status),
        )
    })
    .await
}

/// C7. alexander has listened until after the backup; what he heard then is lost. What ezra says on the restored site, before
/// alexander asks again from where he was, is told to him, or that there is a gap, or he is refused and begins anew; and what
/// ezra says afterwards is told to him.
/// Client-Server API, "Syncing", `since`; `restore.md`.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_newer_than_a_restored_database_loses_nothing_silently() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let alexander = login(stage, &site, "alexander").await?;
        let ezra = login(stage, &site, "ezra").await?;
        let garden = alexander.create_room(NewRoom::public("garden")).await?;
        ezra.join(&garden).await?;
        let snapshot = backed_up(&site).await?;
        let mut last = None;
        // So many that the restored database does not come to the token while it starts.
        for number in 0..300 {
            last = Some(ezra.say(&garden, &format!("lost {number}")).await?);
        }
        let mut listener = alexander.listen().await?;
        if let Some(last) = &last {
            listener
                .until("alexander has heard it", SOON, |seen| {
                    seen.event(&garden, last)
                })
                .await?;
        }
        site.lose_data().await?;
        restored(&site, &snapshot.id).await?;
        let first = ezra.say(&garden, "first on the restored site").await?;
        let token = listener.since().unwrap_or_default();
        let path = format!("/_matrix/client/v3/sync?since={token}&timeout=0");
        let answer = alexander.try_raw(Method::GET, &path, None).await?;
        // Who is refused begins anew, and misses nothing.
        let Ok(mut answer) = answer.outcome else {
            return Ok(());
        };
        let next = answer["next_batch"].as_str().map(str::to_owned);
        let mut listener = alexander.listen_from(next).await?;
        let second = ezra.say(&garden, "second").await?;
        listener
            .until("alexander hears what is said now", SOON, |seen| {
                seen.event(&garden, &second)
            })
            .await?;
        let later = matches!(listener.seen().event(&garden, &first), ProbeState::Ready(_));
        let pages = alexander.messages(&garden).await?;
        let there = pages.iter().any(|event| event.event_id == first);
        // Told in either sync, or said to lie in a gap, which a client then looks into.
        let silent = |answer: &Value| {
            let timeline = &answer["rooms"]["join"][garden.as_str()]["timeline"];
            let gap = timeline["limited"] == true && there;
            !later && !gap && !timeline.to_string().contains(first.as_str())
        };
        product(
            !silent(&answer),
            "lose nothing silently after a restore",
            answer.to_string(),
        )?;
        answer["rooms"]["join"] = json!({});
        match silent(&answer) || later {
            true => Ok(()),
            false => Err(Failure::harness("notice an answer without the room")),
        }
    })
    .await
}
