//! A room as the peer knows it: its events, its state, its tips; and the events that the peer adds to it.

use crate::peer::Signing;
use harness::{Failure, OrBlame, Result};
use ruma::canonical_json::{CanonicalJsonObject, CanonicalJsonValue};
use ruma::room_version_rules::RoomVersionRules;
use ruma::signatures::{hash_and_sign_event, reference_hash};
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// An event with its hash and signatures, and the id that follows from them.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its reference hash.
    pub id: OwnedEventId,
    /// What is sent.
    pub json: CanonicalJsonObject,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Room {
    /// Its id.
    pub id: OwnedRoomId,
    /// Its version.
    pub version: RoomVersionId,
    rules: RoomVersionRules,
    state: BTreeMap<(String, String), OwnedEventId>,
    events: BTreeMap<OwnedEventId, CanonicalJsonObject>,
    tips: Vec<OwnedEventId>,
    depth: i64,
    withheld: BTreeSet<OwnedEventId>,
}

impl Room {
    /// A room of which nothing is known yet.
    pub(crate) fn unknown(id: &RoomId, version: RoomVersionId) -> Result<Self> {
        let rules = version
            .rules()
            .ok_or_else(|| Failure::harness(format!("know the rules of room version {version}")))?;
        Ok(Self {
            id: id.to_owned(),
            version,
            rules,
            state: BTreeMap::new(),
            events: BTreeMap::new(),
            tips: Vec::new(),
            depth: 0,
            withheld: BTreeSet::new(),
        })
    }

    /// Makes a public room on the peer itself, with this creator and name.
    pub(crate) fn found(
        server: &str,
        signing: &Signing,
        creator: &str,
        version: RoomVersionId,
        name: &str,
    ) -> Result<Self> {
        let draw = format!("!{:x}:{server}", now());
        let placeholder = RoomId::parse(draw).or_harness(|| "name a room".to_owned())?;
        let mut room = Self::unknown(&placeholder, version)?;
        let creators_stand_above = room.rules.authorization.explicitly_privilege_room_creators;
        let content = json!({"room_version": room.version.as_str()});
        let mut create = room.draft(server, creator, "m.room.create", Some(""), &content)?;
        if room.rules.authorization.room_create_event_id_as_room_id {
            create.remove("room_id");
        }
        let create = room.seal(server, signing, create)?;
        if room.rules.authorization.room_create_event_id_as_room_id {
            room.id = RoomId::parse(create.id.as_str().replacen('$', "!", 1))
                .or_harness(|| "name a room by its creation".to_owned())?;
        }
        room.add(&create);
        let users = if creators_stand_above {
            json!({})
        } else {
            json!({creator: 100})
        };
        for (kind, key, content) in [
            ("m.room.member", creator, json!({"membership": "join"})),
            ("m.room.power_levels", "", json!({"users": users})),
            ("m.room.join_rules", "", json!({"join_rule": "public"})),
            (
                "m.room.history_visibility",
                "",
                json!({"history_visibility": "shared"}),
            ),
            ("m.room.name", "", json!({"name": name})),
        ] {
            let draft = room.draft(server, creator, kind, Some(key), &content)?;
            let event = room.seal(server, signing, draft)?;
            room.add(&event);
        }
        Ok(room)
    }

    /// An event that follows on everything known, without hash and signature. It is the drafter's to change.
    ///
    /// # Errors
    /// If the content is no canonical JSON.
    pub fn draft(
        &self,
        server: &str,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> Result<CanonicalJsonObject> {
        let ids =
            |ids: Vec<&OwnedEventId>| -> Value { ids.into_iter().map(|id| id.as_str()).collect() };
        let mut event = json!({
            "type": kind,
            "sender": sender,
            "room_id": self.id.as_str(),
            "content": content,
            "origin": server,
            "origin_server_ts": now(),
            "depth": self.depth + 1,
            "prev_events": ids(self.tips.iter().collect()),
            "auth_events": ids(self.authorised_by(sender, kind, state_key)),
        });
        if let Some(key) = state_key {
            event["state_key"] = key.into();
        }
        canonical(event)
    }

    /// The state that authorises an event. Server-Server API, "Auth events selection".
    fn authorised_by(
        &self,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
    ) -> Vec<&OwnedEventId> {
        if kind == "m.room.create" {
            return Vec::new();
        }
        let mut keys = vec![("m.room.power_levels", ""), ("m.room.member", sender)];
        // From version 12 on the creation is known by the room's id.
        if !self.rules.authorization.room_create_event_id_as_room_id {
            keys.insert(0, ("m.room.create", ""));
        }
        if kind == "m.room.member" {
            keys.push(("m.room.join_rules", ""));
            if let Some(target) = state_key.filter(|&target| target != sender) {
                keys.push(("m.room.member", target));
            }
        }
        keys.into_iter()
            .filter_map(|(kind, key)| self.state.get(&(kind.to_owned(), key.to_owned())))
            .collect()
    }

    /// Hashes and signs an event.
    pub fn seal(
        &self,
        server: &str,
        signing: &Signing,
        mut event: CanonicalJsonObject,
    ) -> Result<Sealed> {
        let what = || "seal an event".to_owned();
        hash_and_sign_event(server, signing.pair(), &mut event, &self.rules.redaction)
            .or_harness(what)?;
        self.named(event)
    }

    /// Names an event as it stands, whether its hash and signatures are right or not.
    pub fn named(&self, event: CanonicalJsonObject) -> Result<Sealed> {
        let id = event_id(&event, &self.rules)?;
        Ok(Sealed { id, json: event })
    }

    /// Takes an event up: it is a tip of the room from now on, and state if it is a state event.
    pub fn add(&mut self, event: &Sealed) {
        let text = |key: &str| event.json.get(key).and_then(CanonicalJsonValue::as_str);
        if let (Some(kind), Some(key)) = (text("type"), text("state_key")) {
            self.state
                .insert((kind.to_owned(), key.to_owned()), event.id.clone());
        }
        let before: Vec<_> = event
            .json
            .get("prev_events")
            .and_then(CanonicalJsonValue::as_array)
            .into_iter()
            .flatten()
            .filter_map(CanonicalJsonValue::as_str)
            .collect();
        self.tips
            .retain(|tip| !before.contains(&tip.as_str()) && *tip != event.id);
        self.tips.push(event.id.clone());
        if let Some(CanonicalJsonValue::Integer(depth)) = event.json.get("depth") {
            self.depth = self.depth.max(i64::from(*depth));
        }
        self.events.insert(event.id.clone(), event.json.clone());
    }

    /// Keeps an event to give it out, without making it a tip or state: the room goes on as if there were none.
    pub fn keep(&mut self, event: &Sealed) {
        self.events.insert(event.id.clone(), event.json.clone());
    }

    /// Learns an event of the room's state, without making it a tip.
    pub(crate) fn learn(&mut self, event: CanonicalJsonObject) -> Result<()> {
        let event = self.named(event)?;
        let (tips, depth) = (self.tips.clone(), self.depth);
        self.add(&event);
        self.tips = tips;
        self.depth = depth;
        Ok(())
    }

    /// One event.
    pub fn event(&self, id: &EventId) -> Option<&CanonicalJsonObject> {
        self.events.get(id)
    }

    /// The event that is the state of that type and key.
    pub fn state_event(&self, kind: &str, key: &str) -> Option<Sealed> {
        let id = self.state.get(&(kind.to_owned(), key.to_owned()))?;
        let json = self.events.get(id)?.clone();
        Some(Sealed {
            id: id.clone(),
            json,
        })
    }

    /// Does not give an event out from now on.
    pub fn withhold(&mut self, id: &EventId) {
        self.withheld.insert(id.to_owned());
    }

    /// Gives everything out again.
    pub fn withhold_nothing(&mut self) {
        self.withheld.clear();
    }

    /// The events of these ids that are known and given out.
    pub(crate) fn some(&self, ids: &[String]) -> Vec<Value> {
        let given = |(id, event): (&OwnedEventId, &CanonicalJsonObject)| {
            (!self.withheld.contains(id)).then(|| value(event))
        };
        ids.iter()
            .filter_map(|id| self.events.get_key_value(<&EventId>::try_from(&**id).ok()?))
            .filter_map(given)
            .collect()
    }

    /// What leads to these events, newest first, not beyond `until`, with them or without.
    pub(crate) fn before(&self, from: &[String], until: &[String], with: bool) -> Vec<Value> {
        self.behind("prev_events", from, until, with)
    }

    /// What authorises these events, and what authorises that.
    pub(crate) fn authority(&self, of: &[String]) -> Vec<Value> {
        self.behind("auth_events", of, &[], false)
    }

    fn behind(&self, link: &str, from: &[String], until: &[String], with: bool) -> Vec<Value> {
        let mut ids = Vec::<String>::new();
        let mut next = from.to_vec();
        while !next.is_empty() {
            let events = self.some(&next);
            ids.append(&mut next);
            for event in &events {
                for id in event[link].as_array().into_iter().flatten() {
                    let id = id.as_str().unwrap_or_default().to_owned();
                    if !ids.contains(&id) && !until.contains(&id) && !next.contains(&id) {
                        next.push(id);
                    }
                }
            }
        }
        if !with {
            ids.retain(|id| !from.contains(id));
        }
        self.some(&ids)
    }

    /// The ids of the whole state.
    pub(crate) fn state_ids(&self) -> Vec<&EventId> {
        self.state.values().map(|id| &**id).collect()
    }

    /// The newest events: what the next one follows on.
    pub fn tips(&self) -> &[OwnedEventId] {
        &self.tips
    }

    /// The rules of its version.
    pub fn rules(&self) -> &RoomVersionRules {
        &self.rules
    }

    /// The whole state, as events.
    pub fn state(&self) -> Vec<Value> {
        self.state
            .values()
            .filter_map(|id| self.events.get(id))
            .map(value)
            .collect()
    }
}

/// Ways to spoil a sealed event. Each returns the event under the id that follows from what it has become.
pub mod forge {
    use super::{CanonicalJsonObject, CanonicalJsonValue, Room, Sealed, Signing, Value, canonical};
    use harness::{OrBlame, Result};
    use ruma::signatures::{add_content_hash_to_event, sign_event};
    use serde_json::json;

    /// Signed by another key than the one that the signature names.
    pub fn signature(room: &Room, server: &str, named: &Signing, event: &Sealed) -> Result<Sealed> {
        let mut json = event.json.clone();
        json.remove("signatures");
        let impostor = Signing::new(named.name());
        room.seal(server, &impostor, json)
    }

    /// Without any signature.
    pub fn unsigned(room: &Room, event: &Sealed) -> Result<Sealed> {
        let mut json = event.json.clone();
        json.insert(
            "signatures".to_owned(),
            CanonicalJsonValue::Object(Default::default()),
        );
        room.named(json)
    }

    /// With other content than was hashed; the signature is right for what is left of it when it is redacted.
    pub fn content(room: &Room, event: &Sealed, content: Value) -> Result<Sealed> {
        let mut json = event.json.clone();
        let content: CanonicalJsonObject = canonical(content)?;
        json.insert("content".to_owned(), content.into());
        room.named(json)
    }

    /// With the hash of something else, signed as it stands.
    pub fn hash(room: &Room, server: &str, signing: &Signing, event: &Sealed) -> Result<Sealed> {
        let what = || "sign a wrong hash".to_owned();
        let mut other = event.json.clone();
        other.insert(
            "depth".to_owned(),
            CanonicalJsonValue::Integer(ruma::int!(7)),
        );
        add_content_hash_to_event(&mut other).or_harness(what)?;
        let mut json = event.json.clone();
        json.remove("signatures");
        if let Some(hashes) = other.remove("hashes") {
            json.insert("hashes".to_owned(), hashes);
        }
        sign_event(server, signing.pair(), &mut json, &room.rules.redaction).or_harness(what)?;
        room.named(json)
    }

    /// What a forger would have everybody read.
    pub fn message(text: &str) -> Value {
        json!({"msgtype": "m.text", "body": text})
    }
}

/// The id of an event: its reference hash. Room versions 4 and later.
pub(crate) fn event_id(
    event: &CanonicalJsonObject,
    rules: &RoomVersionRules,
) -> Result<OwnedEventId> {
    let what = || "name an event by its hash".to_owned();
    let hash = reference_hash(event, rules).or_harness(what)?;
    EventId::parse(format!("${hash}")).or_harness(what)
}

pub(crate) fn canonical(value: Value) -> Result<CanonicalJsonObject> {
    serde_json::from_value(value).or_harness(|| "write canonical JSON".to_owned())
}

pub(crate) fn value(event: &CanonicalJsonObject) -> Value {
    CanonicalJsonValue::Object(event.clone()).into()
}

pub(crate) fn now() -> u64 {
    MilliSecondsSinceUnixEpoch::now().0.into()
}
