//! What passes: who types, who has read, who is there.

use crate::abroad::{Pair, Partner, between, enters, receives};
use crate::known::{
    EDUS_WAIT_FOR_AN_OCCASION, PRESENCE_IS_IGNORED, PRESENCE_IS_NOT_SENT, TYPING_IS_NOT_SENT,
};
use crate::{Table, demand, soon};
use harness::Result;
use harness::client::{Client, Listener, NewRoom, Seen};
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::site::Site;
use reqwest::Method;
use ruma::RoomId;
use scenarios::encoded;
use serde_json::{Value, json};
use std::time::Duration;

/// What a server sends by itself has come after so many turns of so long: in a quiet lab it takes a fraction of a second.
const TURNS: u32 = 7;
const TURN: Duration = Duration::from_millis(700);

/// E16. charlie types in a room that he shares with alice, stops, reads what she said, and says that he is there: she sees
/// all of it. And the other way round. "Typing notifications"; "Presence"; "Receipts".
#[tokio::test(flavor = "multi_thread")]
async fn typing_receipts_and_presence_are_seen_on_the_other_server() -> Outcome {
    between(Partner::Synapse, async |_, pair| {
        let room = NewRoom::public("garden").version("11");
        let garden = pair.alice.create_room(room).await?;
        enters(&pair.charlie, &garden, &pair.home).await?;
        let mut table = Table::default();
        shown(
            pair,
            &garden,
            &pair.abroad,
            [&pair.charlie, &pair.alice],
            &mut table,
        )
        .await?;
        shown(
            pair,
            &garden,
            &pair.home,
            [&pair.alice, &pair.charlie],
            &mut table,
        )
        .await?;
        table.verdict("show what passes on the other server")
    })
    .await
}

async fn shown(
    pair: &Pair,
    garden: &RoomId,
    at: &Site,
    [doer, seer]: [&Client; 2],
    table: &mut Table,
) -> Result<()> {
    let said = seer.say(garden, "good morning").await?;
    receives(doer, garden, std::slice::from_ref(&said), soon()).await?;
    let mut listener = seer.listen().await?;
    listener.forget();
    let who = doer.user_id().as_str();
    let room = encoded(garden.as_str());

    let typing = format!("/_matrix/client/v3/rooms/{room}/typing/{}", encoded(who));
    let types = json!({"typing": true, "timeout": 30_000});
    put(doer, Method::PUT, &typing, &types).await?;
    let outcome = comes(&mut listener, "typing", |seen| {
        ephemeral(seen, garden, "m.typing")
            .is_some_and(|content| content["user_ids"] == json!([who]))
    })
    .await;
    let sent = outcome.is_ok();
    table.row(
        &format!("{who} types"),
        pair.known_of(at, &TYPING_IS_NOT_SENT, outcome),
    );
    put(doer, Method::PUT, &typing, &json!({"typing": false})).await?;
    if sent {
        let outcome = comes(&mut listener, "no more typing", |seen| {
            ephemeral(seen, garden, "m.typing")
                .is_some_and(|content| content["user_ids"] == json!([]))
        })
        .await;
        table.row(&format!("{who} stops typing"), outcome);
    }

    let receipt = format!(
        "/_matrix/client/v3/rooms/{room}/receipt/m.read/{}",
        encoded(said.as_str())
    );
    put(doer, Method::POST, &receipt, &json!({})).await?;
    let read = |seen: &Seen| {
        ephemeral(seen, garden, "m.receipt")
            .is_some_and(|content| content[said.as_str()]["m.read"][who].is_object())
    };
    let outcome = comes(&mut listener, "receipt", read).await;
    table.row(
        &format!("{who} has read"),
        pair.known_of(at, &EDUS_WAIT_FOR_AN_OCCASION, outcome),
    );
    let by_the_way = doer.say(garden, "by the way").await?;
    receives(seer, garden, &[by_the_way], soon()).await?;
    table.row(
        &format!("{who} has read, with something else to say"),
        comes(&mut listener, "receipt", read).await,
    );

    let presence = format!("/_matrix/client/v3/presence/{}/status", encoded(who));
    let busy = json!({"presence": "online", "status_msg": "in the garden"});
    put(doer, Method::PUT, &presence, &busy).await?;
    let outcome = comes(&mut listener, "presence", |seen| {
        let presence = seen.presence.get(doer.user_id());
        presence.is_some_and(|content| content["status_msg"] == "in the garden")
    })
    .await;
    // Whoever looks last is at fault: what Conduit is not told it cannot show.
    let outcome = pair.known_of(at, &PRESENCE_IS_NOT_SENT, outcome);
    let outcome = match std::ptr::eq(at, &*pair.home) {
        true => outcome,
        false => pair.known(&PRESENCE_IS_IGNORED, outcome),
    };
    table.row(&format!("{who} is there"), outcome);
    Ok(())
}

fn ephemeral<'a>(seen: &'a Seen, room: &RoomId, kind: &str) -> Option<&'a Value> {
    seen.room(room)?.ephemeral.get(kind)
}

async fn put(who: &Client, method: Method, path: &str, body: &Value) -> Result<()> {
    who.try_raw(method, path, Some(body)).await?.must()?;
    Ok(())
}

/// Asks in short turns: Conduit shows for three seconds that somebody abroad types, and does not wake a poll for what comes
/// while it begins to wait.
async fn comes(listener: &mut Listener, what: &str, there: impl Fn(&Seen) -> bool) -> Result<()> {
    let mut seen = String::new();
    for _ in 0..TURNS {
        let met = listener
            .until(format!("sync shows {what}"), TURN, |seen| {
                if there(seen) {
                    return ProbeState::Ready(());
                }
                let passing: Vec<_> = seen.rooms.values().map(|room| &room.ephemeral).collect();
                ProbeState::NotYet(format!("{passing:?}, {:?}", seen.presence))
            })
            .await;
        match met {
            Ok(()) => return Ok(()),
            Err(unmet) => seen = unmet.to_string(),
        }
    }
    demand(false, &format!("show another server's {what}"), seen)
}
