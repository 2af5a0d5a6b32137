//! What the peer answers as the server of a room: to those who join, invite, decline, and ask for events.

use crate::door::{Answer, Ask, Call, Gate, Reply, lock};
use crate::peer::{Peer, list, parameters, segment};
use crate::room::{Room, canonical, now, value};
use harness::{Blame, Failure, OrBlame, Result};
use ruma::RoomVersionId;
use ruma::signatures::{Verified, sign_event, verify_event};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

impl Peer {
    /// Lets the home join a room that this peer founded: answers `make_join` and `send_join` for it.
    pub fn hosts(&self, room: &Arc<Mutex<Room>>) {
        self.hosts_so(room, |_| {});
    }

    /// The same, with something changed in the answer to `send_join`: `auth_chain` and `state`.
    pub fn hosts_so(
        &self,
        room: &Arc<Mutex<Room>>,
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) {
        self.hosts_with(room, move |mut answer| {
            change(&mut answer);
            Reply::json(&answer)
        });
    }

    /// The same, but who joins is answered only once the gate opens. The join is in the room at once.
    pub fn hosts_late(&self, room: &Arc<Mutex<Room>>, gate: &Gate) {
        let gate = gate.clone();
        self.hosts_with(room, move |answer| {
            Reply::After(gate.clone(), Answer::json(200, &answer))
        });
    }

    fn hosts_with(
        &self,
        room: &Arc<Mutex<Room>>,
        reply: impl Fn(Value) -> Reply + Send + Sync + 'static,
    ) {
        let (hosted, name) = (room.clone(), self.name.clone());
        self.expect(Ask::MakeJoin, move |call| {
            template(&lock(&hosted), &name, &segment(&call.path, 6), "join")
        });
        let (hosted, name) = (room.clone(), self.name.clone());
        self.expect(Ask::SendJoin, move |call| {
            let mut room = lock(&hosted);
            let state = room.state();
            let joined = canonical(call.json()).and_then(|event| room.named(event));
            let Ok(join) = joined else {
                return Reply::refuse(400, "M_BAD_JSON");
            };
            room.add(&join);
            reply(json!({
                "origin": name,
                "auth_chain": state,
                "state": state,
                "members_omitted": false,
            }))
        });
    }

    /// Answers for a room what the servers in it may ask: single events, state, history, and what lies between. What is
    /// withheld it does not know.
    pub fn serves(&self, room: &Arc<Mutex<Room>>) {
        let found = |name: &str, events: Vec<Value>| {
            if events.is_empty() {
                Reply::refuse(404, "M_NOT_FOUND")
            } else {
                Reply::json(&json!({"origin": name, "origin_server_ts": now(), "pdus": events}))
            }
        };
        let name = self.name.clone();
        self.answers(room, Ask::Event, move |room, call| {
            found(&name, room.some(&[segment(&call.path, 5)]))
        });
        let name = self.name.clone();
        self.answers(room, Ask::Backfill, move |room, call| {
            let from: Vec<_> = parameters(&call.path, "v").collect();
            found(&name, room.before(&from, &[], true))
        });
        self.answers(room, Ask::MissingEvents, |room, call| {
            let body = call.json();
            let ids = |key: &str| -> Vec<_> {
                let ids = list(&body, key).into_iter();
                ids.filter_map(|id| id.as_str().map(str::to_owned))
                    .collect()
            };
            let between = room.before(&ids("latest_events"), &ids("earliest_events"), false);
            Reply::json(&json!({ "events": between }))
        });
        self.answers(room, Ask::EventAuth, |room, call| {
            let chain = room.authority(&[segment(&call.path, 6)]);
            Reply::json(&json!({ "auth_chain": chain }))
        });
        let at_known = |room: &Room, call: &Call, answer: fn(&Room) -> Value| {
            let at: Vec<_> = parameters(&call.path, "event_id").collect();
            if room.some(&at).is_empty() {
                Reply::refuse(404, "M_NOT_FOUND")
            } else {
                Reply::json(&answer(room))
            }
        };
        self.answers(room, Ask::State, move |room, call| {
            at_known(
                room,
                call,
                |room| json!({"pdus": room.state(), "auth_chain": room.state()}),
            )
        });
        self.answers(room, Ask::StateIds, move |room, call| {
            at_known(
                room,
                call,
                |room| json!({"pdu_ids": room.state_ids(), "auth_chain_ids": room.state_ids()}),
            )
        });
    }

    fn answers(
        &self,
        room: &Arc<Mutex<Room>>,
        ask: Ask,
        answer: impl Fn(&Room, &Call) -> Reply + Send + Sync + 'static,
    ) {
        let room = room.clone();
        self.expect(ask, move |call| answer(&lock(&room), call));
    }

    /// Takes invitations for its users, with its signature on them. Server-Server API, "Inviting to a room".
    pub fn takes_invitations(&self) {
        let (name, signing) = (self.name.clone(), self.signing());
        self.expect(Ask::Invite, move |call| {
            let body = call.json();
            let version = body["room_version"].as_str().unwrap_or_default();
            let rules = RoomVersionId::try_from(version)
                .ok()
                .and_then(|v| v.rules());
            let (Some(rules), Ok(mut event)) = (rules, canonical(body["event"].clone())) else {
                return Reply::refuse(400, "M_BAD_JSON");
            };
            match sign_event(&name, signing.pair(), &mut event, &rules.redaction) {
                Ok(()) => Reply::json(&json!({ "event": value(&event) })),
                Err(_) => Reply::refuse(400, "M_BAD_JSON"),
            }
        });
    }

    /// An event of that room that the home made must carry its hash and its signature.
    pub async fn signed_by_home(&self, room: &Room, event: &Value) -> Result<()> {
        let keys = self.home_keys().await?;
        let what = || "sign its own event".to_owned();
        let verified = verify_event(&keys, &canonical(event.clone())?, room.rules());
        match verified.or_blame(Blame::Product, what)? {
            Verified::All => Ok(()),
            Verified::Signatures => {
                Err(Failure::product("hash its own event").last_seen(event.to_string()))
            }
        }
    }

    /// Lets the home's users leave a room that this peer founded, or decline its invitation: answers `make_leave` and
    /// `send_leave` for it.
    pub fn lets_leave(&self, room: &Arc<Mutex<Room>>) {
        let (left, name) = (room.clone(), self.name.clone());
        self.expect(Ask::MakeLeave, move |call| {
            template(&lock(&left), &name, &segment(&call.path, 6), "leave")
        });
        let left = room.clone();
        self.expect(Ask::SendLeave, move |call| {
            let mut room = lock(&left);
            match canonical(call.json()).and_then(|event| room.named(event)) {
                Ok(leave) => {
                    room.add(&leave);
                    Reply::json(&json!({}))
                }
                Err(_) => Reply::refuse(400, "M_BAD_JSON"),
            }
        });
    }
}

/// The template of a membership event for a user of another server.
fn template(room: &Room, server: &str, user: &str, membership: &str) -> Reply {
    let content = json!({ "membership": membership });
    match room.draft(server, user, "m.room.member", Some(user), &content) {
        Ok(draft) => {
            let version = room.version.as_str();
            Reply::json(&json!({"room_version": version, "event": value(&draft)}))
        }
        Err(_) => Reply::refuse(400, "M_BAD_JSON"),
    }
}
