//! What devices send each other past all rooms: kept until it is acknowledged, and told once.

use crate::{Between, Cast, demand, encryption, encryption_alone, encryption_between};
use fleet_device::{Device, Mutant, soon};
use futures_util::future::try_join_all;
use harness::client::Client;
use harness::fault::{Fault, Part};
use harness::known::encryption::{TO_DEVICE_IS_LOST, TO_DEVICE_IS_TOLD_AGAIN};
use harness::probe::{self, ProbeState};
use harness::scenario::{Outcome, Stage};
use harness::{Failure, Result};
use reqwest::Method;
use scenarios::encoded;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

/// F9. alice's device sends notes to bob's, one of them twice under one transaction id. Whatever bob is told he is told again
/// when he asks again with the same token, and not any more once he has asked with the next; in all he is told each note
/// once, in the order in which they were sent. "Send-to-Device messaging", "Server behaviour".
#[tokio::test(flavor = "multi_thread")]
async fn a_to_device_message_is_told_until_it_is_acknowledged() -> Outcome {
    let noticed = [
        Mutant::DropsToDevice,
        Mutant::TellsToDeviceTwice,
        Mutant::TellsToDeviceBackwards,
        Mutant::TellsToDeviceOnce,
        Mutant::IgnoresTransactionIds,
    ];
    encryption(&noticed, async |_, cast| {
        let alice = cast.home_way.bare(&cast.alice).await?;
        let bob = cast.abroad_way.bare(&cast.bob).await?;
        let mut ear = Ear::of(&bob).await?;
        let words = ["one", "two", "three", "four", "five"];
        for word in words {
            send(&alice, &bob, word, word).await?;
            if word == "two" {
                send(&alice, &bob, word, "two, again").await?;
            }
        }
        ear.hears(&words).await?;
        // What was acknowledged long ago is not new either.
        send(&alice, &bob, "two", "two, much later").await?;
        send(&alice, &bob, "six", "six").await?;
        ear.hears(&["six"]).await
    })
    .await
}

/// F9. Four devices of alice's send bob's device notes without a pause while it syncs without a pause: it is told every note
/// once, and those of each device in their order. Conduit tells some of them again, and now and then one never. What is sent
/// when the streams are over marks the end. "Send-to-Device messaging".
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_to_device_messages_is_told_whole_and_once() -> Outcome {
    const EACH: usize = 50;
    const END: &str = "end";
    let between = [Between::Neighbours, Between::ToSynapse];
    let noticed = [Mutant::DropsToDevice];
    encryption_between(&between, &noticed, async |_, cast| {
        let bob = cast.abroad_way.bare(&cast.bob).await?;
        let mut ear = Ear::of(&bob).await?;
        let alices = try_join_all((0..4).map(|_| cast.home_way.bare(&cast.alice))).await?;
        let over = AtomicBool::new(false);
        let streams = async {
            let streams = alices.iter().enumerate().map(async |(stream, alice)| {
                for note in 0..EACH {
                    let word = format!("{stream}-{note:02}");
                    send(alice, &bob, &word, &word).await?;
                }
                Ok::<_, Failure>(())
            });
            let sent = try_join_all(streams).await;
            over.store(true, Ordering::Relaxed);
            sent
        };
        let mut ends = 0;
        let heard = async {
            let what = "bob is told what was sent last";
            let met = probe::until(what, soon(), async || {
                // One may be lost like any other.
                if over.load(Ordering::Relaxed) {
                    ends += 1;
                    let end = format!("{END}-{ends}");
                    if let Err(failure) = send(&alices[0], &bob, &end, &end).await {
                        return ProbeState::Failed(failure.to_string());
                    }
                }
                for _ in 0..20 {
                    match ear.told().await {
                        Ok((notes, next)) => ear.acknowledge(notes, next),
                        Err(failure) => return ProbeState::Failed(failure.to_string()),
                    }
                }
                match ear.heard.iter().any(|word| word.starts_with(END)) {
                    true => ProbeState::Ready(()),
                    false => ProbeState::NotYet(format!("{} notes", ear.heard.len())),
                }
            });
            Ok::<_, Failure>(met.await?)
        };
        let (sent, told) = futures_util::future::join(streams, heard).await;
        sent?;
        told?;
        let mut heard = ear.heard.clone();
        heard.retain(|word| !word.starts_with(END));
        // Stable: the order within a stream stays what it was.
        heard.sort_by_key(|word| word.chars().next());
        let mut sent: Vec<_> = (0..4)
            .flat_map(|stream| (0..EACH).map(move |note| format!("{stream}-{note:02}")))
            .collect();
        let lost: Vec<_> = sent.iter().filter(|word| !heard.contains(word)).collect();
        let whole = demand(
            lost.is_empty(),
            "tell every to-device message",
            format!("lost: {lost:?}"),
        );
        match cast.is_wrong() {
            true => whole?,
            false => cast.race(&cast.abroad, &TO_DEVICE_IS_LOST, whole)?,
        }
        let mut seen = HashSet::new();
        let doubled: Vec<_> = heard.iter().filter(|word| !seen.insert(*word)).collect();
        sent.retain(|word| heard.contains(word));
        let once = demand(
            heard == sent,
            "tell a stream of to-device messages once and in order",
            format!("told again: {doubled:?}"),
        );
        cast.race(&cast.abroad, &TO_DEVICE_IS_TOLD_AGAIN, once)
    })
    .await
}

/// F9. Server of the recipient restarted or killed with `kill -9` between telling and acknowledgement: what was told and not
/// acknowledged is told again, and a room key that waits for a device still reaches it, once, so that the message is read.
/// Then the sender's server, which holds a room key for a site that is not to be reached: it delivers it when it is back.
/// "Send-to-Device messaging"; Server-Server API, "Transactions".
#[tokio::test(flavor = "multi_thread")]
async fn to_device_messages_outlive_a_restart_and_a_kill() -> Outcome {
    // One: planted faults are tried at once, and each attempt stops servers.
    encryption_alone(
        &[Between::Conduits],
        &[Mutant::TellsToDeviceOnce],
        async |stage, cast| outlive(stage, cast).await,
    )
    .await
}

async fn outlive(stage: &Stage, cast: &Cast) -> Result<()> {
    let (phone, bobs) = cast.phones().await?;
    let sender = phone.bare();
    let listener = cast.abroad_way.bare(&cast.bob).await?;
    let mut ear = Ear::of(&listener).await?;
    for fault in [Fault::restarted, Fault::killed] {
        let abroad = fault(&cast.abroad.site, Part::Homeserver);
        let first = cast.garden(&phone, &bobs).await?;
        let second = cast.garden(&phone, &bobs).await?;
        let word = abroad.to_string();
        send(&sender, &listener, &word, &word).await?;
        let told = ear.is_told().await?;
        let said = phone.say(&first, &word).await?;
        has_waiting(&bobs.bare(), 1).await?;
        stage.world.during(&abroad, async || Ok(())).await?;
        let again = ear.is_told().await?;
        demand(
            again == told,
            "tell again after a restart what was not acknowledged",
            format!("{told:?}, then {again:?}"),
        )?;
        ear.hears(&[&word]).await?;
        bobs.reads(&first, &said, &word).await?;
        has_one_key(&bobs, &first)?;
        if cast.between == Between::Neighbours {
            continue;
        }
        let home = fault(&cast.home.site, Part::Homeserver);
        let word = home.to_string();
        let away = Fault::stopped(&cast.abroad.site, Part::Proxy);
        let said = stage
            .world
            .during(&away, async || {
                let said = phone.say(&second, &word).await?;
                stage.world.during(&home, async || Ok(())).await?;
                Ok(said)
            })
            .await?;
        // Conduit tries again when it starts.
        let retry = Fault::restarted(&cast.home.site, Part::Homeserver);
        stage.world.during(&retry, async || Ok(())).await?;
        bobs.reads(&second, &said, &word).await?;
        has_one_key(&bobs, &second)?;
    }
    Ok(())
}

/// Waits until a device's server has this many messages for it, without acknowledging any.
async fn has_waiting(device: &Client, count: usize) -> Result<()> {
    let what = format!("{count} to-device messages wait for {device}");
    let met = probe::until(&what, soon(), async || match device.glimpse().await {
        Ok(seen) if seen.to_device.len() >= count => ProbeState::Ready(()),
        Ok(seen) => ProbeState::NotYet(format!("{:?}", seen.to_device)),
        Err(failure) => ProbeState::NotYet(failure.to_string()),
    });
    Ok(met.await?)
}

/// A device was given the key of a room, and was given it once.
fn has_one_key(device: &Device, room: &ruma::RoomId) -> Result<()> {
    let told = device.to_device();
    let keys: Vec<Value> = told
        .iter()
        .filter_map(|note| serde_json::from_str(note.to_raw().json().get()).ok())
        .filter(|note: &Value| note["content"]["room_id"] == room.as_str())
        .collect();
    demand(
        keys.len() == 1,
        "tell a room key once",
        format!("{} keys of `{room}`", keys.len()),
    )
}

/// Sends a note to one device.
async fn send(from: &Client, to: &Client, txn: &str, word: &str) -> Result<()> {
    let path = format!(
        "/_matrix/client/v3/sendToDevice/fleet.note/{}",
        encoded(txn)
    );
    let note = json!({"messages": {to.user_id(): {to.device_id(): {"word": word}}}});
    from.try_raw(Method::PUT, &path, Some(&note))
        .await?
        .must()?;
    Ok(())
}

/// A device that acknowledges nothing by itself.
struct Ear<'a> {
    device: &'a Client,
    since: String,
    /// The notes that were acknowledged.
    heard: Vec<String>,
}

impl<'a> Ear<'a> {
    async fn of(device: &'a Client) -> Result<Self> {
        let listener = device.listen().await?;
        Ok(Self {
            device,
            since: listener.since().unwrap_or_default().to_owned(),
            heard: Vec::new(),
        })
    }

    /// One sync: the notes in it, and the next token.
    async fn told(&self) -> Result<(Vec<String>, String)> {
        let path = format!(
            "/_matrix/client/v3/sync?timeout=0&since={}",
            encoded(&self.since)
        );
        let answer = self
            .device
            .try_raw(Method::GET, &path, None)
            .await?
            .must()?;
        let notes = answer["to_device"]["events"].as_array();
        let words = notes.into_iter().flatten().map(|note| {
            let word = note["content"]["word"].as_str();
            word.map_or(note.to_string(), str::to_owned)
        });
        let next = answer["next_batch"].as_str().unwrap_or_default();
        Ok((words.collect(), next.to_owned()))
    }

    fn acknowledge(&mut self, notes: Vec<String>, next: String) {
        self.heard.extend(notes);
        self.since = next;
    }

    /// Waits until there is a note, without acknowledging it.
    async fn is_told(&self) -> Result<Vec<String>> {
        has_waiting(self.device, 1).await?;
        let met = probe::until("there is a note", soon(), async || {
            match self.told().await {
                Ok((notes, _)) if notes.is_empty() => {
                    ProbeState::NotYet("there is none".to_owned())
                }
                Ok((notes, _)) => ProbeState::Ready(notes),
                Err(failure) => ProbeState::NotYet(failure.to_string()),
            }
        });
        Ok(met.await?)
    }

    /// Asks twice with each token, until there were this many notes: they must be these, and nothing comes after them.
    async fn hears(&mut self, expected: &[&str]) -> Result<()> {
        self.heard.clear();
        // When all are there, because Conduit tells again what comes while it answers: see `TO_DEVICE_IS_TOLD_AGAIN`.
        has_waiting(self.device, expected.len()).await?;
        let met = probe::until("every note is told", soon(), async || {
            let once = match self.told().await {
                Ok((once, _)) => once,
                Err(failure) => return ProbeState::NotYet(failure.to_string()),
            };
            match self.told().await {
                Ok((again, _)) if !again.starts_with(&once) => {
                    ProbeState::Failed(format!("it is told {once:?}, and asked again {again:?}"))
                }
                Ok((again, next)) => {
                    let quiet = again.is_empty();
                    self.acknowledge(again, next);
                    match quiet && self.heard.len() >= expected.len() {
                        true => ProbeState::Ready(()),
                        false => ProbeState::NotYet(format!("{:?}", self.heard)),
                    }
                }
                Err(failure) => ProbeState::NotYet(failure.to_string()),
            }
        });
        met.await?;
        demand(
            self.heard == expected,
            "tell each to-device message once and in order",
            format!("{:?}", self.heard),
        )
    }
}
