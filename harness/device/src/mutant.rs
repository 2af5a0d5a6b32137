//! Homeservers that are wrong about encryption on purpose, in one way at a time. Every claim that such a server should
//! fool must fail: a claim that no fault fails has proved nothing.

use crate::gate::{Meddling, lock};
use harness::intercept::{Answer, Question};
use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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
    /// To-device messages are told twice.
    TellsToDeviceTwice,
    /// To-device messages are told in the wrong order.
    TellsToDeviceBackwards,
    /// To-device messages are told once, whether that was acknowledged or not.
    TellsToDeviceOnce,
    /// What is sent again under the same transaction id is taken for something else.
    IgnoresTransactionIds,
    /// Keys of a backup's version are answered with those of the version that was asked for first.
    ConfusesBackups,
    /// Of the sessions in a backup one is not told.
    LosesABackedUpSession,
    /// A byte of a file is changed when it is downloaded.
    ChangesFiles,
    /// Every claim after the first is answered as the first was: one key is handed out again and again.
    GivesKeyTwice,
    /// A one-time key under an id that is taken is answered as accepted.
    TakesAnotherKey,
    /// One one-time key more is counted than there is.
    Miscounts,
    /// Syncs do not tell how many one-time keys there are.
    NeverCounts,
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
            Self::TellsToDeviceTwice => "tells-to-device-twice",
            Self::TellsToDeviceBackwards => "tells-to-device-backwards",
            Self::TellsToDeviceOnce => "tells-to-device-once",
            Self::IgnoresTransactionIds => "ignores-transaction-ids",
            Self::ConfusesBackups => "confuses-backups",
            Self::LosesABackedUpSession => "loses-a-backed-up-session",
            Self::ChangesFiles => "changes-files",
            Self::GivesKeyTwice => "gives-key-twice",
            Self::TakesAnotherKey => "takes-another-key",
            Self::Miscounts => "miscounts",
            Self::NeverCounts => "never-counts",
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
                        let mut kept = lock(&kept);
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
            Self::TellsToDeviceTwice => Box::new(|question| {
                told_to_device(question, |notes| {
                    *notes = notes
                        .iter()
                        .flat_map(|note| [note.clone(), note.clone()])
                        .collect();
                })
            }),
            Self::TellsToDeviceBackwards => {
                Box::new(|question| told_to_device(question, |notes| notes.reverse()))
            }
            Self::TellsToDeviceOnce => {
                let before = Arc::new(Mutex::new(HashSet::new()));
                Box::new(move |question| {
                    let (who, before) = (token(question), before.clone());
                    told_to_device(question, move |notes| {
                        let mut before = lock(&before);
                        notes.retain(|note| before.insert((who.clone(), note.to_string())));
                    })
                })
            }
            Self::IgnoresTransactionIds => {
                let next = AtomicU64::new(0);
                Box::new(move |question| {
                    let sent = ["/sendToDevice/", "/send/m.room."];
                    let sent = sent.iter().any(|path| question.path.contains(path));
                    sent.then(|| {
                        let mut other = question.clone();
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        other.path = format!("{}-{number}", other.path);
                        Meddling::Ask(other)
                    })
                })
            }
            Self::ConfusesBackups => {
                let first = Mutex::new(HashMap::new());
                Box::new(move |question| {
                    let (path, version) = question.path.split_once("?version=")?;
                    if question.method != Method::GET || !path.contains("/room_keys/keys") {
                        return None;
                    }
                    let mut first = lock(&first);
                    let first = first.entry(token(question)).or_insert(version.to_owned());
                    let mut other = question.clone();
                    other.path = format!("{path}?version={first}");
                    Some(Meddling::Ask(other))
                })
            }
            Self::LosesABackedUpSession => Box::new(|question| {
                if question.method != Method::GET {
                    return None;
                }
                told(question, "/room_keys/keys", |body| {
                    let sessions = match body.get_mut("rooms").and_then(Value::as_object_mut) {
                        Some(rooms) => rooms.values_mut().next(),
                        None => Some(body),
                    };
                    let sessions = sessions.and_then(|room| room.get_mut("sessions"));
                    if let Some(sessions) = sessions.and_then(Value::as_object_mut)
                        && let Some(session) = sessions.keys().next().cloned()
                    {
                        sessions.remove(&session);
                    }
                })
            }),
            Self::ChangesFiles => Box::new(|question| {
                question.path.contains("/media/download/").then(|| {
                    Meddling::Tell(Box::new(|answer: &mut Answer| {
                        let mut bytes = answer.body.to_vec();
                        if let Some(byte) = bytes.first_mut() {
                            *byte ^= 1;
                        }
                        answer.body = bytes.into();
                    }))
                })
            }),
            Self::GivesKeyTwice => {
                let first = Arc::new(Mutex::new(None));
                Box::new(move |question| {
                    let first = first.clone();
                    told(question, "/keys/claim", move |body| {
                        let mut first = lock(&first);
                        *body = first.get_or_insert_with(|| body.clone()).clone();
                    })
                })
            }
            Self::TakesAnotherKey => Box::new(|question| {
                question.path.contains("/keys/upload").then(|| {
                    Meddling::Tell(Box::new(|answer: &mut Answer| {
                        if answer.status == reqwest::StatusCode::BAD_REQUEST {
                            *answer = Answer::json(
                                reqwest::StatusCode::OK,
                                &json!({"one_time_key_counts": {}}),
                            );
                        }
                    }))
                })
            }),
            Self::Miscounts => Box::new(|question| {
                told(question, "/keys/upload", |body| {
                    let counts = body["one_time_key_counts"].as_object_mut().into_iter();
                    for count in counts.flat_map(|counts| counts.values_mut()) {
                        *count = (count.as_u64().unwrap_or_default() + 1).into();
                    }
                })
            }),
            Self::NeverCounts => Box::new(|question| {
                told(question, "/sync", |body| {
                    if let Some(body) = body.as_object_mut() {
                        body.remove("device_one_time_keys_count");
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

/// Changes what is told of to-device messages.
fn told_to_device(
    question: &Question,
    change: impl FnOnce(&mut Vec<Value>) + Send + 'static,
) -> Option<Meddling> {
    told(question, "/sync", |body| {
        if let Some(notes) = body.pointer_mut("/to_device/events")
            && let Some(notes) = notes.as_array_mut()
        {
            change(notes);
        }
    })
}

/// Whose question it is.
fn token(question: &Question) -> String {
    let token = question.headers.get(AUTHORIZATION);
    let token = token.and_then(|token| token.to_str().ok());
    token.unwrap_or_default().to_owned()
}
