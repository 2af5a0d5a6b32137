//! What went over the clients' lines, as a history that [`fleet_history`] can judge.

use crate::client::{Log, Question};
use fleet_history::{Deed, Membership, Operation, Outcome, Record, RoomTold, Told};
use reqwest::Method;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Something that was broken on purpose: what, from when, until when.
pub type Broken = (String, Instant, Instant);

/// Everything that several lines carried about rooms. `patience` is how long what is known to one server may take to
/// be known to another that it can reach.
pub fn record(logs: &[&Log], broken: &[Broken], patience: Duration) -> Record {
    let mut deeds: Vec<(String, &Question, Outcome, Deed)> = Vec::new();
    let (exchanges, unanswered): (Vec<_>, Vec<_>) = logs
        .iter()
        .map(|log| (log.exchanges(), log.unanswered()))
        .unzip();
    for exchange in exchanges.iter().flatten() {
        let outcome = match exchange.status {
            200..300 => Outcome::Ok,
            // As for a client: a proxy's 502 says nothing of the server behind it.
            408 | 499 | 500.. => Outcome::Indefinite,
            _ => Outcome::Refused,
        };
        let answer = serde_json::from_slice(&exchange.body).unwrap_or_default();
        let asked = Asked::of(
            &exchange.who,
            &exchange.method,
            &exchange.path,
            &exchange.question,
        );
        if let Some(deed) = asked.deed(outcome, &answer) {
            deeds.push((exchange.who.clone(), &exchange.question, outcome, deed));
        }
    }
    for lost in unanswered.iter().flatten() {
        let outcome = if lost.definite {
            Outcome::Refused
        } else {
            Outcome::Indefinite
        };
        let asked = Asked::of(&lost.who, &lost.method, &lost.path, &lost.question);
        if let Some(deed) = asked.deed(outcome, &Value::Null) {
            deeds.push((lost.who.clone(), &lost.question, outcome, deed));
        }
    }
    let faults = broken.iter().map(|(_, began, _)| *began);
    let epoch = deeds.iter().map(|deed| deed.1.began).chain(faults).min();
    let since = |time: Instant| {
        let passed = epoch.map(|epoch| time.saturating_duration_since(epoch));
        passed.map_or(0, |passed| {
            u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
        })
    };
    let mut operations: Vec<_> = deeds
        .into_iter()
        .map(|(who, question, outcome, deed)| Operation {
            server: who
                .split_once(':')
                .map_or("", |(_, server)| server)
                .to_owned(),
            who,
            began: since(question.began),
            ended: since(question.ended),
            deed,
            outcome,
        })
        .collect();
    operations.extend(broken.iter().map(|(what, began, ended)| Operation {
        who: "the scenario".to_owned(),
        server: String::new(),
        began: since(*began),
        ended: since(*ended),
        deed: Deed::Fault { what: what.clone() },
        outcome: Outcome::Ok,
    }));
    operations.sort_by_key(|operation| operation.began);
    Record {
        patience: u64::try_from(patience.as_micros()).unwrap_or(u64::MAX),
        operations,
    }
}

/// A question about rooms.
struct Asked<'a> {
    who: &'a str,
    method: &'a Method,
    /// The parts of the path behind the version.
    path: Vec<String>,
    query: Vec<(String, String)>,
    body: Value,
}

impl<'a> Asked<'a> {
    fn of(who: &'a str, method: &'a Method, path: &str, question: &Question) -> Self {
        let url = reqwest::Url::parse(&format!("http://lab/?{}", question.query));
        let path = path.strip_prefix("/_matrix/client/v3/").unwrap_or_default();
        Self {
            who,
            method,
            path: path.split('/').map(decoded).collect(),
            query: url
                .iter()
                .flat_map(|url| url.query_pairs().into_owned())
                .collect(),
            body: serde_json::from_slice(&question.body).unwrap_or_default(),
        }
    }

    fn query(&self, name: &str) -> Option<&str> {
        let mut values = self.query.iter().filter(|(key, _)| key == name);
        values.next().map(|(_, value)| value.as_str())
    }

    /// What it is in a history; `None` where it changes and tells nothing that matters to one.
    fn deed(&self, outcome: Outcome, answer: &Value) -> Option<Deed> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let event = text(&answer["event_id"]);
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        let mine = || Value::from(self.who);
        let member = |room: &str, user: &Value, membership| {
            let (room, user) = (room.to_owned(), text(user)?);
            Some(Deed::Member {
                room,
                user,
                membership,
            })
        };
        match (self.method.as_str(), &path[..]) {
            ("POST", ["createRoom"]) => Some(Deed::Create {
                room: text(&answer["room_id"])?,
            }),
            ("POST", ["join", room] | ["rooms", room, "join"]) => {
                let room = text(&answer["room_id"]).unwrap_or_else(|| (*room).to_owned());
                member(&room, &mine(), Membership::Join)
            }
            ("POST", ["rooms", room, "leave"]) => member(room, &mine(), Membership::Leave),
            ("POST", ["rooms", room, verb @ ("invite" | "kick" | "ban" | "unban")]) => {
                let membership = match *verb {
                    "invite" => Membership::Invite,
                    "ban" => Membership::Ban,
                    _ => Membership::Leave,
                };
                member(room, &self.body["user_id"], membership)
            }
            ("PUT", ["rooms", room, "send", kind, txn]) => Some(Deed::Send {
                room: (*room).to_owned(),
                kind: (*kind).to_owned(),
                txn: (*txn).to_owned(),
                marker: self.body.to_string(),
                event,
            }),
            ("PUT", ["rooms", room, "redact", redacted, txn]) => Some(Deed::Send {
                room: (*room).to_owned(),
                kind: "m.room.redaction".to_owned(),
                txn: (*txn).to_owned(),
                marker: (*redacted).to_owned(),
                event,
            }),
            ("PUT", ["rooms", room, "state", kind, key @ ..]) => Some(Deed::State {
                room: (*room).to_owned(),
                kind: (*kind).to_owned(),
                key: key.join("/"),
                marker: self.body.to_string(),
                event,
            }),
            ("GET", ["rooms", room, "event", event]) => {
                let (room, event) = ((*room).to_owned(), (*event).to_owned());
                Some(Deed::Read { room, event })
            }
            ("GET", _) if outcome != Outcome::Ok => None,
            ("GET", ["sync"]) => Some(Deed::Sync {
                since: self.query("since").map(str::to_owned),
                next: text(&answer["next_batch"]),
                filtered: self.query("filter").is_some_and(leaves_out),
                rooms: rooms(&answer["rooms"]),
            }),
            ("GET", ["rooms", room, "messages"]) if self.query("dir") == Some("b") => {
                Some(Deed::Page {
                    room: (*room).to_owned(),
                    from: self.query("from").map(str::to_owned),
                    end: text(&answer["end"]),
                    events: events(&answer["chunk"]),
                })
            }
            ("GET", ["rooms", room, "state"]) => {
                let (room, state) = ((*room).to_owned(), events(answer));
                Some(Deed::ReadState { room, state })
            }
            _ => None,
        }
    }
}

/// A part of a path, without percent signs.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        let byte = tail.get(..2).and_then(|hex| {
            let hex = std::str::from_utf8(hex).ok().filter(|_| *first == b'%')?;
            u8::from_str_radix(hex, 16).ok()
        });
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a filter lets less than everything through. A limit of the timeline does not: it is told of as a gap.
fn leaves_out(filter: &str) -> bool {
    let only = |value: &Value, key: &str| {
        value
            .as_object()
            .is_some_and(|object| object.keys().all(|other| other == key))
    };
    match serde_json::from_str::<Value>(filter) {
        Ok(filter) => {
            let timeline = &filter["room"]["timeline"];
            !(only(&filter, "room") && only(&filter["room"], "timeline") && only(timeline, "limit"))
        }
        Err(_) => true,
    }
}

fn rooms(rooms: &Value) -> Vec<RoomTold> {
    let section = |name: &str, joined: bool| {
        let section = rooms[name].as_object().into_iter().flatten();
        let told = move |(room, told): (&String, &Value)| RoomTold {
            room: room.clone(),
            joined,
            timeline: events(&told["timeline"]["events"]),
            limited: told["timeline"]["limited"] == true,
            prev_batch: told["timeline"]["prev_batch"].as_str().map(str::to_owned),
            state: events(&told["state"]["events"]),
        };
        section.map(told).collect::<Vec<_>>()
    };
    [section("join", true), section("leave", false)].concat()
}

fn events(events: &Value) -> Vec<Told> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let told = |event: &Value| {
        let kind = text(&event["type"])?;
        let content = &event["content"];
        let redacted = event["unsigned"]["redacted_because"].is_object()
            || content.as_object().is_none_or(serde_json::Map::is_empty);
        let marker = match kind.as_str() {
            "m.room.member" => text(&content["membership"]),
            "m.room.redaction" => text(&content["redacts"]).or_else(|| text(&event["redacts"])),
            _ => Some(content.to_string()).filter(|_| !redacted),
        };
        Some(Told {
            id: text(&event["event_id"])?,
            sender: text(&event["sender"])?,
            key: text(&event["state_key"]),
            kind,
            marker,
        })
    };
    events
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(told)
        .collect()
}
