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
            Self::GivesKeyTwice => "gives-key-twice",
            Self::TakesAnotherKey => "takes-another-key",
            Self::Miscounts => "miscounts",
            Self::NeverCounts => "never-counts",
        }
    }

    pub(crate) fn state(self) -> State {
        match self {
            Self::DropsToDevice => Box::new(|question| {
                question
                    .path
                    .contains("/sendToDevice/")
                    .then(|| Meddling::Answer(Answer::json(reqwest::StatusCode::OK, &json!({}))))
            }),
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
            Self::GivesKeyTwice => {
                let first = Arc::new(Mutex::new(None));
                Box::new(move |question| {
                    let first = first.clone();
                    told(question, "/keys/claim", move |body| {
                        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Changes the JSON that is answered to requests whose path contains this.
fn told(
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
