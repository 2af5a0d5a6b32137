//! An application service that we play, to which the home delivers what happens in its rooms. Sections are those of the
//! Application Service API.

use crate::known::NO_RETRY_TIMER;
use crate::{Cast, demand, federation, soon};
use fleet_peer::{Answer, Ask, Call, Reply, zone};
use harness::authority::Validity;
use harness::client::{Client, NewRoom, Session};
use harness::fault::{Fault, Part};
use harness::probe::{self, ProbeState};
use harness::scenario::{Outcome, Stage};
use harness::{OrBlame, Result};
use ruma::{OwnedEventId, OwnedRoomId, UserId};
use scenarios::{login, room};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where the bridge is found.
const BRIDGE: &str = "bridge.test";
/// What it says to the home.
const AS_TOKEN: &str = "as-token-of-the-lab";
/// What the home says to it.
const HS_TOKEN: &str = "hs-token-of-the-lab";
/// A server that tries again by itself has done so by then.
const BY_ITSELF: Duration = Duration::from_secs(6);

/// A6. The bridge refuses what the home delivers, with a 500, and then takes it; later it refuses
/// again, and the home is killed. Whenever it is delivered again it is under its old id and with its old content; all that alice
/// said is there in the end, in order, once for each id. Conduit tries again only when it starts, or has something new half a
/// minute later. "Pushing events".
#[tokio::test(flavor = "multi_thread")]
async fn what_a_bridge_refuses_is_delivered_again_under_the_same_id_and_in_order() -> Outcome {
    federation(async |stage, cast| {
        let bridge = Bridge::open(stage, cast).await?;
        let garden = bridge.garden.clone();
        let before = cast.alice.say(&garden, "good morning, bridge").await?;
        bridge.takes(std::slice::from_ref(&before), soon()).await?;
        let mut said = vec![before];

        bridge.refuses(true);
        let some = says(cast, &garden, 3).await?;
        bridge.is_tried(some.first()).await?;
        bridge.refuses(false);
        let by_itself = bridge.takes(&some, BY_ITSELF).await;
        cast.known(&NO_RETRY_TIMER, by_itself)?;
        if cast.site.server.is_conduit() {
            let occasion = Fault::restarted(&cast.site, Part::Homeserver);
            stage.world.during(&occasion, async || Ok(())).await?;
        }
        bridge.takes(&some, soon()).await?;
        said.extend(some);

        bridge.refuses(true);
        let some = says(cast, &garden, 5).await?;
        bridge.is_tried(some.first()).await?;
        let killed = Fault::killed(&cast.site, Part::Homeserver);
        stage
            .world
            .during(&killed, async || {
                bridge.refuses(false);
                Ok(())
            })
            .await?;
        said.extend(some);
        said.push(cast.alice.say(&garden, "that was all").await?);
        bridge.takes(&said, soon() * 2).await?;
        bridge.has_taken_once_and_in_order(&said)
    })
    .await
}

async fn says(cast: &Cast, garden: &ruma::RoomId, count: usize) -> Result<Vec<OwnedEventId>> {
    let mut said = Vec::new();
    for number in 0..count {
        said.push(cast.alice.say(garden, &format!("number {number}")).await?);
    }
    Ok(said)
}

/// See the module.
struct Bridge<'a> {
    cast: &'a Cast,
    refuses: Arc<AtomicBool>,
    /// What it did not refuse.
    taken: Arc<Mutex<Vec<Call>>>,
    garden: OwnedRoomId,
}

impl<'a> Bridge<'a> {
    /// Registers it at the home, and has its bot join a room of alice's.
    async fn open(stage: &Stage, cast: &'a Cast) -> Result<Self> {
        let refuses = Arc::<AtomicBool>::default();
        let zones = [(BRIDGE.to_owned(), zone(BRIDGE, cast.door.address(), &[]))];
        stage.world.publish(zones).await?;
        let certificate = stage.world.certificate(&[BRIDGE], Validity::Current)?;
        cast.door.show(BRIDGE, &certificate)?;
        cast.door.inspect(BRIDGE, |call| {
            let query = format!("access_token={HS_TOKEN}");
            let header = format!("Bearer {HS_TOKEN}");
            let authorised =
                call.authorization.as_ref() == Some(&header) || call.path.contains(&query);
            match authorised {
                true => Ok(()),
                false => Err("it does not show the home's token".to_owned()),
            }
        });
        let taken = Arc::<Mutex<Vec<Call>>>::default();
        let (refusing, taking) = (refuses.clone(), taken.clone());
        cast.door.expect(BRIDGE, Ask::Unknown, move |call| {
            if call.method == "GET" {
                // Whether a user or an alias is the bridge's: none that is asked for.
                return Reply::refuse(404, "M_NOT_FOUND");
            }
            if refusing.load(Ordering::Relaxed) {
                return Reply::Now(Answer::json(500, &json!({})));
            }
            lock(&taking).push(call.clone());
            Reply::json(&json!({}))
        });
        register(stage, cast).await?;
        let bot = bot(stage, cast).await?;
        let garden = cast.alice.create_room(NewRoom::public("garden")).await?;
        bot.join(&garden).await?;
        Ok(Self {
            cast,
            refuses,
            taken,
            garden,
        })
    }

    fn refuses(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Everything that was delivered, refused or not. Under one id it must be the same each time.
    fn transactions(&self) -> Result<Vec<Call>> {
        let calls = self.cast.door.calls(0, Ask::Unknown);
        let puts = |call: &Call| call.called() == BRIDGE && call.method == "PUT";
        let calls: Vec<_> = calls.into_iter().filter(puts).collect();
        let mut before = BTreeMap::new();
        for call in &calls {
            let content = content_of(call);
            let first = before.entry(id_of(call)).or_insert_with(|| content.clone());
            demand(
                *first == content,
                "deliver under the same id the same again",
                format!("{}: {first} and then {content}", id_of(call)),
            )?;
        }
        Ok(calls)
    }

    /// Waits until the home has tried to deliver an event.
    async fn is_tried(&self, event: Option<&OwnedEventId>) -> Result<()> {
        let event = event.map_or("", |event| event.as_str());
        probe::until(
            "the home has tried to deliver",
            soon(),
            async || match self.transactions() {
                Ok(calls) if calls.iter().any(|call| shows(call, event)) => ProbeState::Ready(()),
                Ok(calls) => ProbeState::NotYet(format!("{} transactions", calls.len())),
                Err(failure) => ProbeState::Failed(failure.to_string()),
            },
        )
        .await?;
        Ok(())
    }

    /// Waits until the bridge has taken all of these.
    async fn takes(&self, events: &[OwnedEventId], limit: Duration) -> Result<()> {
        let what = format!("the bridge has received {} events", events.len());
        let mut missing = events.len();
        let met = probe::until(&what, limit, async || {
            let taken = lock(&self.taken);
            let there =
                |event: &&OwnedEventId| taken.iter().any(|call| shows(call, event.as_str()));
            missing = events.iter().filter(|event| !there(event)).count();
            match missing {
                0 => ProbeState::Ready(()),
                _ => ProbeState::NotYet(format!("{missing} are missing")),
            }
        })
        .await;
        demand(
            met.is_ok(),
            &what,
            format!("{missing} of {} are missing", events.len()),
        )
    }

    /// A transaction that came again, because its answer was lost, is known by its id.
    fn has_taken_once_and_in_order(&self, said: &[OwnedEventId]) -> Result<()> {
        self.transactions()?;
        let mut known = BTreeSet::new();
        let taken: Vec<_> = lock(&self.taken)
            .iter()
            .filter(|call| known.insert(id_of(call)))
            .flat_map(events_of)
            .filter(|event| event["type"] == "m.room.message")
            .filter_map(|event| event["event_id"].as_str().map(str::to_owned))
            .collect();
        demand(
            taken
                .iter()
                .map(String::as_str)
                .eq(said.iter().map(|id| id.as_str())),
            "deliver to the bridge everything once and in order",
            format!("said {said:?}\ntaken {taken:?}"),
        )
    }
}

/// The id of a transaction.
fn id_of(call: &Call) -> String {
    let path = call.path.split('?').next().unwrap_or_default();
    let id = path.rsplit('/').next().unwrap_or_default();
    id.to_owned()
}

fn events_of(call: &Call) -> Vec<Value> {
    call.json()["events"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn shows(call: &Call, event: &str) -> bool {
    events_of(call)
        .iter()
        .any(|shown| shown["event_id"] == event)
}

/// What must not change between two tries: everything but the age of the events.
fn content_of(call: &Call) -> Value {
    let mut events = events_of(call);
    for event in events.iter_mut().filter_map(Value::as_object_mut) {
        event.remove("unsigned");
        event.remove("age");
    }
    events.into()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At Conduit by the administrator's command; at Synapse in its configuration.
async fn register(stage: &Stage, cast: &Cast) -> Result<()> {
    let registration = json!({
        "id": "bridge", "url": format!("https://{BRIDGE}"), "as_token": AS_TOKEN, "hs_token": HS_TOKEN,
        "sender_localpart": "bridge", "rate_limited": false,
        "namespaces": {"users": [{"exclusive": true, "regex": "@bridge.*"}], "aliases": [], "rooms": []},
    });
    let site = &cast.site;
    if !site.server.is_conduit() {
        site.host
            .write(
                "/opt/bridge.yaml",
                "644",
                registration.to_string().as_bytes(),
            )
            .await?;
        let configure = "sed -i 's/^{/{\"app_service_config_files\":[\"\\/opt\\/bridge.yaml\"],/' /opt/synapse.yaml";
        site.host.shell(configure).await?;
        let restart = Fault::restarted(site, Part::Homeserver);
        return stage.world.during(&restart, async || Ok(())).await;
    }
    let admin = login(stage, site, "admin").await?;
    let admins = room(&admin, "admins", &site.name).await?;
    let mut listener = admin.listen().await?;
    let command = format!(
        "@conduit:{}: register-appservice\n```\n{registration}\n```",
        site.name
    );
    listener.forget();
    admin.say(&admins, &command).await?;
    listener
        .until(
            "the server says that the bridge is registered",
            soon(),
            |seen| {
                let said = seen
                    .room(&admins)
                    .into_iter()
                    .flat_map(|room| &room.timeline);
                let mut said = said.filter_map(|event| event.body());
                match said.find(|body| body.contains("registered with ID: bridge")) {
                    Some(_) => ProbeState::Ready(()),
                    None => ProbeState::NotYet("it does not".to_owned()),
                }
            },
        )
        .await?;
    Ok(())
}

/// The bridge's own user, registered with its token as the specification has it.
async fn bot(stage: &Stage, cast: &Cast) -> Result<Client> {
    let name = format!("@bridge:{}", cast.site.name);
    let user_id = UserId::parse(name.as_str()).or_harness(|| format!("name the user `{name}`"))?;
    let session = Session {
        user_id,
        device_id: "BRIDGE".into(),
        access_token: AS_TOKEN.to_owned(),
    };
    let bot = Client::with_session(&stage.world.http()?, &cast.site.base_url(), session);
    let body = json!({
        "type": "m.login.application_service", "username": "bridge", "inhibit_login": true,
    });
    bot.try_raw(
        reqwest::Method::POST,
        "/_matrix/client/v3/register",
        Some(&body),
    )
    .await?
    .must()?;
    Ok(bot)
}
