//! Homeservers that are wrong about encryption on purpose, in one way at a time. Every claim that such a server should
//! fool must fail: a claim that no fault fails has proved nothing.

use crate::gate::Meddling;
use harness::intercept::{Answer, Question};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// To-device messages are answered as accepted, and lost.
    DropsToDevice,
    /// What a device is told is told without the messages in rooms being encrypted: each becomes a message in clear text.
    TellsClearText,
    /// No device is told that anybody's devices changed.
    HidesDeviceChanges,
    /// In the place of every device's key for agreeing on secrets another's is told.
    SubstitutesKeys,
    /// What says why a room key was not given is answered as accepted, and lost.
    DropsWithheld,
    /// Keys are told without the signatures of their user's identity.
    DropsCrossSignatures,
    /// The keys of devices that are gone are told with the others'.
    KeepsGoneDevices,
    /// Who compares emojis is told another key than the other side sent.
    MeddlesWithEmojis,
}

/// What a mutant does with a request.
pub(crate) type State = Box<dyn Fn(&Question) -> Option<Meddling> + Send + Sync>;

impl Mutant {
    /// What it is called.
    pub fn word(self) -> &'static str {
        match self {
            Self::DropsToDevice => "drops-to-device",
            Self::TellsClearText => "tells-clear-text",
            Self::HidesDeviceChanges => "hides-device-changes",
            Self::SubstitutesKeys => "substitutes-keys",
            Self::DropsWithheld => "drops-withheld",
            Self::DropsCrossSignatures => "drops-cross-signatures",
            Self::KeepsGoneDevices => "keeps-gone-devices",
            Self::MeddlesWithEmojis => "meddles-with-emojis",
        }
    }

    pub(crate) fn state(self) -> State {
        match self {
            Self::DropsToDevice => Box::new(|question| lost(question, "/sendToDevice/")),
            Self::TellsClearText => Box::new(|question| {
                told(question, "/sync", |body| {
                    for event in timelines(body) {
                        if event["type"] == "m.room.encrypted" {
                            event["type"] = "m.room.message".into();
                            event["content"] = json!({"msgtype": "m.text", "body": "clear"});
                        }
                    }
                })
            }),
            Self::HidesDeviceChanges => Box::new(|question| {
                told(question, "/sync", |body| body["device_lists"] = json!({}))
            }),
            Self::SubstitutesKeys => Box::new(|question| {
                told(question, "/keys/query", |body| {
                    for device in devices(body) {
                        let keys = device["keys"].as_object_mut();
                        for (id, key) in keys.into_iter().flatten() {
                            if id.starts_with("curve25519:") {
                                *key = "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI".into();
                            }
                        }
                    }
                })
            }),
            Self::DropsWithheld => {
                Box::new(|question| lost(question, "/sendToDevice/m.room_key.withheld/"))
            }
            Self::DropsCrossSignatures => Box::new(|question| {
                told(question, "/keys/query", |body| {
                    for device in devices(body) {
                        let own = format!("ed25519:{}", device["device_id"].as_str().unwrap_or(""));
                        let signed = device["signatures"].as_object_mut();
                        for (_, signatures) in signed.into_iter().flatten() {
                            let signatures = signatures.as_object_mut();
                            if let Some(signatures) = signatures {
                                signatures.retain(|id, _| *id == own);
                            }
                        }
                    }
                })
            }),
            Self::KeepsGoneDevices => {
                let kept = Arc::new(Mutex::new(json!({})));
                Box::new(move |question| {
                    let kept = kept.clone();
                    told(question, "/keys/query", move |body| {
                        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        let users = body["device_keys"].as_object_mut();
                        for (user, devices) in users.into_iter().flatten() {
                            for (device, keys) in devices.as_object().into_iter().flatten() {
                                kept[user][device] = keys.clone();
                            }
                            *devices = kept[user].clone();
                        }
                    })
                })
            }
            Self::MeddlesWithEmojis => Box::new(|question| {
                told(question, "/sync", |body| {
                    let events = body.pointer_mut("/to_device/events");
                    let events = events.and_then(Value::as_array_mut);
                    for event in events.into_iter().flatten() {
                        if event["type"] == "m.key.verification.key" {
                            event["content"]["key"] =
                                "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI".into();
                        }
                    }
                })
            }),
        }
    }
}

/// Answers requests whose path contains this as accepted, and passes nothing on.
fn lost(question: &Question, path: &str) -> Option<Meddling> {
    let answer = || Answer::json(reqwest::StatusCode::OK, &json!({}));
    question
        .path
        .contains(path)
        .then(|| Meddling::Answer(answer()))
}

/// The keys of all devices in an answer to a question for keys.
fn devices(keys: &mut Value) -> impl Iterator<Item = &mut Value> {
    let users = keys["device_keys"].as_object_mut().into_iter().flatten();
    users.flat_map(|(_, devices)| {
        let devices = devices.as_object_mut().into_iter().flatten();
        devices.map(|(_, keys)| keys)
    })
}

/// Changes the JSON that is answered to requests whose path contains this.
pub(crate) fn told(
    question: &Question,
    path: &str,
    change: impl FnOnce(&mut Value) + Send + 'static,
) -> Option<Meddling> {
    question.path.contains(path).then(|| {
        Meddling::Tell(Box::new(move |answer: &mut Answer| {
            if let Ok(mut body) = serde_json::from_slice(&answer.body) {
                change(&mut body);
                answer.body = body.to_string().into();
            }
        }))
    })
}

/// The events of all timelines in an answer to sync.
fn timelines(sync: &mut Value) -> impl Iterator<Item = &mut Value> {
    let rooms = sync.pointer_mut("/rooms/join");
    let rooms = rooms.and_then(Value::as_object_mut).into_iter();
    rooms.flat_map(|rooms| rooms.values_mut()).flat_map(|room| {
        let events = room.pointer_mut("/timeline/events");
        events.and_then(Value::as_array_mut).into_iter().flatten()
    })
}
