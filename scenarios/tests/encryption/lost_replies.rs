//! Requests and replies that are lost on the way, and clients that die in between: nobody comes to harm.

use crate::{Between, Cast, demand, encryption, encryption_between};
use fleet_device::matrix_sdk::deserialized_responses::ProcessedToDeviceEvent;
use fleet_device::matrix_sdk_crypto::vodozemac::megolm::MegolmMessage;
use fleet_device::matrix_sdk_crypto::vodozemac::olm::OlmMessage;
use fleet_device::{Closed, Device, Gate, Meddling, Mutant, Passed, SOON, soon};
use harness::intercept::Question;
use harness::probe::{self, ProbeState};
use harness::scenario::Outcome;
use harness::{Failure, OrBlame, Result};
use ruma::{OwnedEventId, OwnedTransactionId, RoomId, TransactionId};
use serde_json::Value;
use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// F16. Of each kind of request that encryption rests on, one is lost on its way to alice's server, and later the reply to one
/// is lost on its way back; she tries again until it is done. bob reads every message once, is given
/// nothing that he cannot decrypt, every room key of hers is in her backup, and no state of Olm or Megolm was used for two
/// different messages. "Transaction identifiers", "End-to-End Encryption".
#[tokio::test(flavor = "multi_thread")]
async fn lost_requests_and_lost_replies_do_no_harm() -> Outcome {
    encryption(&[Mutant::IgnoresTransactionIds], async |_, cast| {
        for (what, meddling) in [
            (
                "a request is lost",
                (|| Meddling::LoseRequest) as fn() -> Meddling,
            ),
            ("a reply is lost", || Meddling::LoseReply),
        ] {
            harmless(cast, what, meddling).await?;
        }
        Ok(())
    })
    .await
}

async fn harmless(cast: &Cast, what: &str, meddling: fn() -> Meddling) -> Result<()> {
    let gate = cast.gate(&cast.home).await?;
    let lost = |path| once(path, meddling);
    let account = cast.home.account("alice").await?;
    let alice = gate
        .during(what, lost("/keys/upload"), async || {
            Device::login(&gate.way()?, &account, "phone").await
        })
        .await?;
    let bob = cast.bobs("phone").await?;
    alice.makes_identity(&account).await?;
    alice.enables_recovery().await?;
    let mut said = Vec::new();
    for path in ["/keys/claim", "/sendToDevice/", "/send/m.room.encrypted/"] {
        let room = cast.garden(&alice, &bob).await?;
        let text = format!("{what} around {path}");
        let says = async || insists(&alice, &room, &text, None).await;
        let event = gate.during(&text, lost(path), says).await?;
        said.push((room, event, text));
    }
    let text = format!("{what} around the backup");
    let room = cast.garden(&alice, &bob).await?;
    let backs_up = async || {
        let event = insists(&alice, &room, &text, None).await?;
        let what = "every room key is in the backup";
        let met = probe::until(what, soon(), async || match alice.has_backed_up().await {
            Ok(()) => ProbeState::Ready(()),
            Err(failure) => ProbeState::NotYet(failure.to_string()),
        });
        met.await?;
        Ok(event)
    };
    let event = gate
        .during(&text, lost("/room_keys/keys"), backs_up)
        .await?;
    said.push((room, event, text));
    let version = alice.asks("/_matrix/client/v3/room_keys/version").await?;
    let version = version["version"].as_str().unwrap_or_default();
    let keys = format!("/_matrix/client/v3/room_keys/keys?version={version}");
    let keys = alice.asks(&keys).await?;
    for (room, event, text) in &said {
        let shown = bob.reads(room, event, text).await?;
        is_said_once(&bob, room, text)?;
        let session = shown.session().unwrap_or_default();
        demand(
            keys["rooms"][room.as_str()]["sessions"]
                .get(session)
                .is_some(),
            &format!("keep the key of `{text}` in the backup"),
            format!("{session} is not in {keys}"),
        )?;
    }
    is_given_nothing_unreadable(&bob)?;
    reuses_nothing(&gate.passed())
}

/// F16. alice's client is a process of its own, and is killed with `kill -9` when her server has done what it was asked and its
/// reply is still on the way: around a claim of one-time keys, a to-device message, a message, and an upload of one-time
/// keys. It is started again with the store that it left, and says again what it does not know to be said: bob reads it
/// once, they go on talking, and no state of Olm or Megolm was used for two different messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_before_it_is_answered_goes_on_where_it_was() -> Outcome {
    let homes = [Between::Neighbours, Between::FromSynapse];
    encryption_between(&homes, &[Mutant::IgnoresTransactionIds], async |_, cast| {
        let gate = cast.gate(&cast.home).await?;
        let mut alice = Device::login(&gate.way()?, &cast.alice, "phone").await?;
        let bob = cast.bobs("phone").await?;
        let mut last = None;
        for path in ["/keys/claim", "/sendToDevice/", "/send/m.room.encrypted/"] {
            let room = cast.garden(&alice, &bob).await?;
            let text = format!("killed around {path}");
            let txn = TransactionId::new();
            let task = Task::Say(room.to_string(), text.clone(), txn.clone());
            let closed = is_killed(&gate, path, alice.close(), &task).await?;
            alice = Device::reopened(closed).await?;
            let event = insists(&alice, &room, &text, Some(txn)).await?;
            bob.reads(&room, &event, &text).await?;
            is_said_once(&bob, &room, &text)?;
            talk(&alice, &bob, &room).await?;
            last = Some(room);
        }
        let room = last.ok_or_else(|| Failure::harness("have a room"))?;
        let closed = alice.close();
        // Takes one of her one-time keys, so that she has to make another.
        let tablet = cast.bobs("tablet").await?;
        let text = "I have a tablet";
        let said = tablet.say(&room, text).await?;
        let closed = is_killed(&gate, "/keys/upload", closed, &Task::Step).await?;
        alice = Device::reopened(closed).await?;
        // Fetched, because her client may have had it already when it was killed.
        let what = format!("{alice} reads `{text}`");
        let reads = async || match alice.fetched(&room, &said).await {
            Ok(shown) if shown.text() == Some(text) => ProbeState::Ready(()),
            Ok(shown) => ProbeState::NotYet(shown.to_string()),
            Err(failure) => ProbeState::NotYet(failure.to_string()),
        };
        alice.until(what, reads).await?;
        for name in ["laptop", "watch"] {
            let other = cast.bobs(name).await?;
            is_heard(&other, &alice, &room).await?;
            alice
                .knows_device(bob.user_id(), other.device_id(), true)
                .await?;
            is_heard(&alice, &other, &room).await?;
        }
        is_given_nothing_unreadable(&bob)?;
        is_given_nothing_unreadable(&alice)?;
        reuses_nothing(&gate.passed())
    })
    .await
}

/// What a process is told to do with a device.
#[derive(serde::Serialize, serde::Deserialize)]
enum Task {
    Say(String, String, OwnedTransactionId),
    /// Sync until it ends.
    Step,
}

const DEVICE: &str = "FLEET_DEVICE";
const TASK: &str = "FLEET_DEVICE_TASK";

/// The client that other claims start and kill: this program, run anew. By itself it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_runs_as_a_process_of_its_own() -> Result<()> {
    let (Ok(device), Ok(task)) = (std::env::var(DEVICE), std::env::var(TASK)) else {
        return Ok(());
    };
    let task = serde_json::from_str(&task).or_harness(|| "read a task".to_owned())?;
    let device = Device::reopened(Closed::unpacked(&device)?).await?;
    match task {
        Task::Say(room, text, txn) => {
            let room = <&RoomId>::try_from(&*room).or_harness(|| format!("name `{room}`"))?;
            device.say_as(room, &text, txn).await.map(|_| ())
        }
        Task::Step => loop {
            device.step().await?;
        },
    }
}

/// Starts a device as a process, has the reply to its first request to this path kept back, and kills it.
async fn is_killed(gate: &Gate, path: &'static str, closed: Closed, task: &Task) -> Result<Closed> {
    let what = || format!("kill a client around `{path}`");
    let answered = Arc::new(Notify::new());
    let keeps = answered.clone();
    let rule = move |question: &Question| {
        concerns(question, path).then(|| Meddling::KeepReply(keeps.clone()))
    };
    gate.during(&what(), rule, async || {
        let mut child = tokio::process::Command::new(std::env::current_exe().or_harness(what)?)
            .args(["--exact", "lost_replies::a_device_runs_as_a_process_of_its_own"])
            .env(DEVICE, closed.packed())
            .env(TASK, serde_json::to_string(task).or_harness(what)?)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .or_harness(what)?;
        tokio::select! {
            () = answered.notified() => {}
            ended = child.wait() => {
                return Err(Failure::harness(what()).last_seen(format!("it ended by itself: {ended:?}")));
            }
            () = tokio::time::sleep(SOON) => {
                return Err(Failure::harness(what()).last_seen("it never asked"));
            }
        }
        child.kill().await.or_harness(what)
    })
    .await?;
    Ok(closed)
}

/// Says something until it is said, each time under the same transaction id.
async fn insists(
    alice: &Device,
    room: &RoomId,
    text: &str,
    txn: Option<OwnedTransactionId>,
) -> Result<OwnedEventId> {
    let txn = txn.unwrap_or_else(TransactionId::new);
    let what = format!("{alice} has said `{text}`");
    let met = probe::until(&what, soon(), async || {
        match alice.say_as(room, text, txn.clone()).await {
            Ok(event) => ProbeState::Ready(event),
            Err(failure) => ProbeState::NotYet(failure.to_string()),
        }
    });
    Ok(met.await?)
}

/// Each says something and is read.
async fn talk(alice: &Device, bob: &Device, room: &RoomId) -> Result<()> {
    is_heard(alice, bob, room).await?;
    is_heard(bob, alice, room).await
}

async fn is_heard(from: &Device, to: &Device, room: &RoomId) -> Result<()> {
    let text = format!("{from} is still there");
    let event = from.say(room, &text).await?;
    to.reads(room, &event, &text).await.map(|_| ())
}

/// Meddles with the first request to a path.
fn once(
    path: &'static str,
    meddling: fn() -> Meddling,
) -> impl Fn(&Question) -> Option<Meddling> + Send + Sync + 'static {
    let first = AtomicBool::new(true);
    move |question| {
        (concerns(question, path) && first.swap(false, Ordering::Relaxed)).then(meddling)
    }
}

/// Whether a request is one that changes something at this path: an upload of no keys only asks how many there are.
fn concerns(question: &Question, path: &str) -> bool {
    let asks_only = path == "/keys/upload"
        && serde_json::from_slice(&question.body).is_ok_and(|body: Value| {
            body.get("device_keys").is_none_or(Value::is_null)
                && body["one_time_keys"]
                    .as_object()
                    .is_none_or(|keys| keys.is_empty())
        });
    question.path.contains(path) && question.method != reqwest::Method::GET && !asks_only
}

fn is_said_once(bob: &Device, room: &RoomId, text: &str) -> Result<()> {
    let shown = bob.timeline(room);
    let times = shown
        .iter()
        .filter(|shown| shown.text() == Some(text))
        .count();
    demand(
        times == 1,
        "tell a message once",
        format!("`{text}` {times} times"),
    )
}

fn is_given_nothing_unreadable(device: &Device) -> Result<()> {
    let mut given = device.to_device();
    given.retain(|note| matches!(note, ProcessedToDeviceEvent::UnableToDecrypt { .. }));
    demand(
        given.is_empty(),
        &format!("give {device} no to-device message that it cannot decrypt"),
        format!("{given:?}"),
    )
}

/// No two different ciphertexts stand at the same place of a ratchet.
fn reuses_nothing(passed: &[Passed]) -> Result<()> {
    let mut places = HashMap::new();
    let mut put = |place: String, ciphertext: &str| match places
        .insert(place.clone(), ciphertext.to_owned())
    {
        Some(other) if other != ciphertext => Err(Failure::product(
            "use no state of a ratchet for two messages",
        )
        .last_seen(format!("at {place}: `{other}` and `{ciphertext}`"))),
        _ => Ok(()),
    };
    for Passed { question, .. } in passed {
        let body: Value = serde_json::from_slice(&question.body).unwrap_or_default();
        if question.path.contains("/send/m.room.encrypted/") {
            let ciphertext = body["ciphertext"].as_str().unwrap_or_default();
            let message = MegolmMessage::from_base64(ciphertext);
            let message = message.or_harness(|| format!("read `{ciphertext}`"))?;
            put(
                format!("{} {}", body["session_id"], message.message_index()),
                ciphertext,
            )?;
        }
        if !question.path.contains("/sendToDevice/m.room.encrypted/") {
            continue;
        }
        let devices = body["messages"]
            .as_object()
            .into_iter()
            .flat_map(|users| users.values());
        let contents = devices
            .filter_map(Value::as_object)
            .flat_map(|devices| devices.values());
        for (to, olm) in contents
            .filter_map(|content| content["ciphertext"].as_object())
            .flatten()
        {
            let what = || format!("read `{olm}`");
            let message: OlmMessage = serde_json::from_value(olm.clone()).or_harness(what)?;
            let inner = match &message {
                OlmMessage::Normal(message) => message,
                OlmMessage::PreKey(message) => message.message(),
            };
            let ratchet = inner.ratchet_key().to_base64();
            put(
                format!("{to} {ratchet} {}", inner.chain_index()),
                &olm.to_string(),
            )?;
        }
    }
    match places.is_empty() {
        true => Err(Failure::harness("see what alice's client encrypted")),
        false => Ok(()),
    }
}
