//! Two sites of real servers: the home of alice and bob, and a partner abroad where charlie and dora live.

use crate::{demand, home};
use harness::client::{Client, Event, NewRoom};
use harness::known::Known;
use harness::probe::{self, ProbeState};
use harness::scenario::{Flaws, Outcome, Stage, scenario};
use harness::site::Site;
use harness::{OrBlame, Result};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use scenarios::{ABROAD, login, register_abroad};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Long enough for servers to agree, in a lab on a busy machine, one of which has just begun to run again.
pub const SETTLED: Duration = Duration::from_secs(60);

/// What runs abroad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partner {
    /// A second site of the kit.
    Conduit,
    /// Synapse.
    Synapse,
}

/// Who is on stage.
pub struct Pair {
    /// The site that the claims are about.
    pub home: Arc<Site>,
    /// One of its users.
    pub alice: Client,
    /// Another one.
    pub bob: Client,
    /// The partner.
    pub abroad: Site,
    /// One of its users.
    pub charlie: Client,
    /// Another one.
    pub dora: Client,
    flaws: Flaws,
}

impl Pair {
    /// Puts a claim that is known not to hold on a Conduit at home: there it must fail in just the recorded way.
    pub fn known(&self, known: &Known, outcome: Result<()>) -> Result<()> {
        self.known_of(&self.home, known, outcome)
    }

    /// The same of what runs at a site.
    pub fn known_of(&self, site: &Site, known: &Known, outcome: Result<()>) -> Result<()> {
        self.flaws.known(known, &site.server, outcome)
    }

    /// A room of alice's, of that version, that everybody is in. Returns once both servers agree on it.
    pub async fn garden(&self, version: &str) -> Result<OwnedRoomId> {
        let room = NewRoom::public("garden").version(version);
        let garden = self.alice.create_room(room).await?;
        self.bob.join(&garden).await?;
        for guest in [&self.charlie, &self.dora] {
            enters(guest, &garden, &self.home).await?;
        }
        let hello = self.dora.say(&garden, "hello").await?;
        receives(&self.alice, &garden, std::slice::from_ref(&hello), SETTLED).await?;
        agree([&self.alice, &self.charlie], &garden, &hello).await?;
        Ok(garden)
    }
}

/// Runs a claim about two sites. Where there is no Conduit, the home is a Synapse, and a partner that must be a Conduit makes
/// the claim unknown.
pub async fn between(
    partner: Partner,
    body: impl AsyncFnOnce(&Stage, &Pair) -> Result<()>,
) -> Outcome {
    scenario(async |stage| {
        let ((home, alice), (abroad, charlie, dora)) =
            tokio::try_join!(home(stage), abroad(stage, partner))?;
        stage.put_to(&home.server);
        let bob = match home.server.is_conduit() {
            true => login(stage, &home, "ezra").await?,
            false => register_abroad(stage, &home, "bob").await?,
        };
        let pair = Pair {
            home,
            alice,
            bob,
            abroad,
            charlie,
            dora,
            flaws: stage.flaws.clone(),
        };
        body(stage, &pair).await
    })
    .await
}

async fn abroad(stage: &Stage, partner: Partner) -> Result<(Site, Client, Client)> {
    if partner == Partner::Synapse {
        let site = stage.world.synapse(ABROAD).await?;
        let charlie = register_abroad(stage, &site, "charlie").await?;
        let dora = register_abroad(stage, &site, "dora").await?;
        return Ok((site, charlie, dora));
    }
    let conduit = stage.conduit().await?;
    let site = stage.world.site(ABROAD, &conduit).await?;
    site.follow("bootstrap.md", &[]).await?;
    let charlie = login(stage, &site, "alexander").await?;
    let dora = login(stage, &site, "ezra").await?;
    Ok((site, charlie, dora))
}

/// Somebody of another server joins a room of `host`'s.
pub async fn enters(guest: &Client, room: &RoomId, host: &Site) -> Result<()> {
    guest.join_via(room.as_str(), &[server(host)?]).await?;
    Ok(())
}

fn server(site: &Site) -> Result<OwnedServerName> {
    ServerName::parse(&site.name).or_harness(|| format!("name the server `{}`", site.name))
}

/// Waits until users of two servers are shown the same of a room: the same state, event by event, and the same timeline from
/// an event on. What was before somebody's server came in it fetches only when it likes.
pub async fn agree(who: [&Client; 2], room: &RoomId, since: &EventId) -> Result<()> {
    let mut seen = String::new();
    let what = format!("{} and {} are shown the same of `{room}`", who[0], who[1]);
    let met = probe::until(&what, SETTLED, async || {
        match differences(who, room, since).await {
            Ok(none) if none.is_empty() => return ProbeState::Ready(()),
            Ok(some) => seen = some.join("\n"),
            Err(failure) => seen = failure.to_string(),
        }
        ProbeState::NotYet(seen.clone())
    })
    .await;
    demand(met.is_ok(), "agree on a room with the other server", seen)
}

/// What users of two servers are shown differently of a room. Whatever stands on the pages twice is a difference, too.
async fn differences(
    [one, other]: [&Client; 2],
    room: &RoomId,
    since: &EventId,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let states = (state(one, room).await?, state(other, room).await?);
    compare("state", one, &states.0, &states.1, &mut found);
    compare("state", other, &states.1, &states.0, &mut found);
    let timelines = (
        timeline(one, room, since).await?,
        timeline(other, room, since).await?,
    );
    for (who, timeline) in [(one, &timelines.0), (other, &timelines.1)] {
        for pair in timeline.windows(2).filter(|pair| pair[0] == pair[1]) {
            found.push(format!("{who} is shown {} twice", pair[0]));
        }
    }
    compare("timeline", one, &timelines.0, &timelines.1, &mut found);
    compare("timeline", other, &timelines.1, &timelines.0, &mut found);
    Ok(found)
}

fn compare(
    what: &str,
    who: &Client,
    theirs: &[String],
    others: &[String],
    found: &mut Vec<String>,
) {
    let alone = theirs.iter().filter(|event| !others.contains(event));
    found.extend(alone.map(|event| format!("{what}, {who} alone: {event}")));
}

/// The whole state of a room, a line for each event.
pub async fn state(client: &Client, room: &RoomId) -> Result<Vec<String>> {
    let mut state: Vec<_> = client.room_state(room).await?.iter().map(line).collect();
    state.sort();
    Ok(state)
}

/// A room's events from one on, sorted, a line for each.
async fn timeline(client: &Client, room: &RoomId, since: &EventId) -> Result<Vec<String>> {
    let events = client.messages(room).await?;
    let events = events.iter().skip_while(|event| event.event_id != since);
    let mut timeline: Vec<_> = events.map(line).collect();
    timeline.sort();
    Ok(timeline)
}

fn line(event: &Event) -> String {
    let Event {
        event_id,
        kind,
        sender,
        state_key,
        content,
        ..
    } = event;
    let key = state_key.as_deref().unwrap_or("-");
    format!("{event_id} {kind} [{key}] by {sender}: {content}")
}

/// Sends a message to one device, beside all rooms.
pub async fn whisper(from: &Client, to: &Client, what: &str) -> Result<()> {
    let content = json!({"messages": {to.user_id(): {to.device_id(): {"body": what}}}});
    let path = format!(
        "/_matrix/client/v3/sendToDevice/fleet.whisper/{}",
        from.next_txn()
    );
    from.try_raw(reqwest::Method::PUT, &path, Some(&content))
        .await?
        .must()?;
    Ok(())
}

/// What was whispered, in the order of its arrival.
pub fn whispers(seen: &harness::client::Seen) -> Vec<&str> {
    let whisper = |message: &'_ Value| message["type"] == "fleet.whisper";
    seen.to_device
        .iter()
        .filter(|message| whisper(message))
        .filter_map(|message| message["content"]["body"].as_str())
        .collect()
}

/// Somebody receives events: all of them, in a room's timeline of sync or behind it.
pub async fn receives(
    who: &Client,
    room: &RoomId,
    said: &[OwnedEventId],
    limit: Duration,
) -> Result<()> {
    let mut missing = said.len();
    let what = format!("{who} has received {} events", said.len());
    let met = probe::until(&what, limit, async || match who.messages(room).await {
        Ok(shown) => {
            let there = |id: &&OwnedEventId| !shown.iter().any(|event| event.event_id == **id);
            missing = said.iter().filter(there).count();
            match missing {
                0 => ProbeState::Ready(()),
                _ => ProbeState::NotYet(format!("{missing} are missing")),
            }
        }
        Err(failure) => ProbeState::NotYet(failure.to_string()),
    })
    .await;
    demand(
        met.is_ok(),
        &what,
        format!("{missing} of {} are missing", said.len()),
    )
}
