//! Homeservers that are wrong about encryption on purpose, in one way at a time. Every claim that such a server should
//! fool must fail: a claim that no fault fails has proved nothing.

use crate::gate::Meddling;
use harness::intercept::{Answer, Question};
use serde_json::{Value, json};

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// To-device messages are answered as accepted, and lost.
    DropsToDevice,
    /// What a device is told is told without the messages in rooms being encrypted: each becomes a message in clear text.
    TellsClearText,
}

/// What a mutant does with a request.
pub(crate) type State = Box<dyn Fn(&Question) -> Option<Meddling> + Send + Sync>;

impl Mutant {
    /// What it is called.
    pub fn word(self) -> &'static str {
        match self {
            Self::DropsToDevice => "drops-to-device",
            Self::TellsClearText => "tells-clear-text",
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
