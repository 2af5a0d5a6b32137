//! Who may do what, by the authorisation rules as ruma has them: not by code that could share a mistake with the servers.

use harness::client::Event;
use ruma::events::{StateEventType, TimelineEventType};
use ruma::room_version_rules::AuthorizationRules;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::HashMap;

/// An event with as much as the rules that depend on state look at.
#[derive(Clone, Debug)]
pub struct Pdu {
    id: OwnedEventId,
    room: OwnedRoomId,
    sender: OwnedUserId,
    kind: TimelineEventType,
    key: Option<String>,
    content: Box<RawValue>,
}

impl ruma_state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.id
    }

    fn room_id(&self) -> Option<&RoomId> {
        Some(&self.room)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch::now()
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        // Not the first event after the creation: that may be the creator's join without further ado.
        Box::new([&self.id, &self.id].into_iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(std::iter::empty())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        None
    }

    fn rejected(&self) -> bool {
        false
    }
}

/// The state of a room, as somebody may read it.
#[derive(Clone, Debug)]
pub struct Oracle {
    room: OwnedRoomId,
    state: HashMap<(String, String), Pdu>,
}

impl Oracle {
    /// Of what a server says.
    pub fn of(room: &RoomId, state: &[Event]) -> Self {
        let entry = |event: &Event| {
            let key = event.state_key.clone()?;
            let pdu = pdu(
                room,
                &event.sender,
                &event.kind,
                Some(&key),
                &event.content,
                &event.event_id,
            )?;
            Some(((event.kind.clone(), key), pdu))
        };
        Self {
            room: room.to_owned(),
            state: state.iter().filter_map(entry).collect(),
        }
    }

    /// A user's membership.
    pub fn membership(&self, user: &UserId) -> String {
        let content = self.content("m.room.member", user.as_str());
        content["membership"].as_str().unwrap_or("leave").to_owned()
    }

    /// The content of a piece of state.
    pub fn content(&self, kind: &str, key: &str) -> Value {
        let event = self.state.get(&(kind.to_owned(), key.to_owned()));
        event
            .and_then(|event| serde_json::from_str(event.content.get()).ok())
            .unwrap_or_default()
    }

    /// Whether an event is allowed, or why not.
    pub fn allows(
        &self,
        sender: &UserId,
        kind: &str,
        key: Option<&str>,
        content: &Value,
    ) -> Result<(), String> {
        let id = <&EventId>::try_from("$proposed:lab.test").map_err(|error| error.to_string())?;
        let event = pdu(&self.room, sender, kind, key, content, id).ok_or("it is no event")?;
        let state = |kind: &StateEventType, key: &str| {
            self.state.get(&(kind.to_string(), key.to_owned())).cloned()
        };
        ruma_state_res::check_state_dependent_auth_rules(&AuthorizationRules::V11, event, state)
    }
}

fn pdu(
    room: &RoomId,
    sender: &UserId,
    kind: &str,
    key: Option<&str>,
    content: &Value,
    id: &EventId,
) -> Option<Pdu> {
    Some(Pdu {
        id: id.to_owned(),
        room: room.to_owned(),
        sender: sender.to_owned(),
        kind: kind.into(),
        key: key.map(str::to_owned),
        content: to_raw_value(content).ok()?,
    })
}
