//! Verbs about rooms: making, joining, speaking, reading.

use std::collections::BTreeMap;

use ruma::{
    OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, OwnedUserId,
    RoomAliasId, RoomId, UserId,
    api::client::{
        alias::{create_alias, delete_alias, get_alias},
        context::get_context,
        directory::{get_room_visibility, set_room_visibility},
        membership::{
            ban_user, forget_room, get_member_events, invite_user, join_room_by_id_or_alias,
            joined_members, joined_rooms, kick_user, leave_room, unban_user,
        },
        message::{get_message_events, send_message_event},
        redact::redact_event,
        room::{Visibility, aliases, create_room, get_room_event},
        state::{get_state_event_for_key, get_state_events, send_state_event},
    },
    serde::Raw,
    uint,
};
use serde::Deserialize;
use serde_json::{Value, json, value::to_raw_value};

use super::{Answer, Cause, Client, Failure};

/// A room that is to be made. `NewRoom::from("garden")` is a private room of that name.
#[derive(Clone, Debug, Default)]
pub struct NewRoom {
    /// `m.room.name`.
    pub name: Option<String>,
    /// `m.room.topic`.
    pub topic: Option<String>,
    /// The localpart of an alias on the own server, which becomes the canonical alias too.
    pub alias: Option<String>,
    /// Anyone may join (`public_chat`); otherwise only the invited (`private_chat`).
    pub public: bool,
    /// Whether the room is listed in the published room directory.
    pub published: bool,
    /// Who is invited at once.
    pub invite: Vec<OwnedUserId>,
    /// The room version; the server's default if `None` (Conduit 0.10.12: "12").
    pub version: Option<String>,
    /// Whether messages are to be encrypted (`m.megolm.v1.aes-sha2`).
    pub encrypted: bool,
    /// `history_visibility`; the preset's (`shared`) if `None`.
    pub history_visibility: Option<String>,
    /// Overrides of the default `m.room.power_levels` content.
    pub power_levels: Option<Value>,
    /// More state events: type, state key, content.
    pub state: Vec<(String, String, Value)>,
}

impl From<&str> for NewRoom {
    fn from(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::default()
        }
    }
}

impl NewRoom {
    /// A room that anyone may join.
    pub fn public(name: &str) -> Self {
        Self {
            public: true,
            ..Self::from(name)
        }
    }

    /// With an alias on the own server.
    #[must_use]
    pub fn alias(self, localpart: &str) -> Self {
        Self {
            alias: Some(localpart.to_owned()),
            ..self
        }
    }

    /// With a topic.
    #[must_use]
    pub fn topic(self, topic: &str) -> Self {
        Self {
            topic: Some(topic.to_owned()),
            ..self
        }
    }

    /// Inviting somebody.
    #[must_use]
    pub fn invite(mut self, user: &UserId) -> Self {
        self.invite.push(user.to_owned());
        self
    }

    /// Of a certain room version.
    #[must_use]
    pub fn version(self, version: &str) -> Self {
        Self {
            version: Some(version.to_owned()),
            ..self
        }
    }

    /// With encrypted messages.
    #[must_use]
    pub fn encrypted(self) -> Self {
        Self {
            encrypted: true,
            ..self
        }
    }

    fn request(&self) -> serde_json::Result<create_room::v3::Request> {
        let mut request = create_room::v3::Request::new();
        request.name.clone_from(&self.name);
        request.topic.clone_from(&self.topic);
        request.room_alias_name.clone_from(&self.alias);
        request.preset = Some(match self.public {
            true => create_room::v3::RoomPreset::PublicChat,
            false => create_room::v3::RoomPreset::PrivateChat,
        });
        request.visibility = visibility(self.published);
        request.invite.clone_from(&self.invite);
        request.room_version = self
            .version
            .as_deref()
            .and_then(|version| version.try_into().ok());
        if let Some(levels) = &self.power_levels {
            request.power_level_content_override = Some(Raw::from_json(to_raw_value(levels)?));
        }
        let mut state = self.state.clone();
        if self.encrypted {
            state.push((
                "m.room.encryption".into(),
                String::new(),
                json!({ "algorithm": "m.megolm.v1.aes-sha2" }),
            ));
        }
        if let Some(visibility) = &self.history_visibility {
            let content = json!({ "history_visibility": visibility });
            state.push(("m.room.history_visibility".into(), String::new(), content));
        }
        for (kind, state_key, content) in state {
            let event = json!({ "type": kind, "state_key": state_key, "content": content });
            request
                .initial_state
                .push(Raw::from_json(to_raw_value(&event)?));
        }
        Ok(request)
    }
}

fn visibility(published: bool) -> Visibility {
    if published {
        Visibility::Public
    } else {
        Visibility::Private
    }
}

/// An event as a client sees it. Client-Server API, "Room event format". `unsigned` is left out: it differs from request to
/// request (`age`) and from reader to reader (`transaction_id`).
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Event {
    /// The event id.
    pub event_id: OwnedEventId,
    /// The event type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The state key, if it is a state event.
    #[serde(default)]
    pub state_key: Option<String>,
    /// When the sender's server made it, in milliseconds since the Unix epoch, by that server's clock.
    pub origin_server_ts: u64,
    /// The content; `{}` of a redacted message.
    pub content: Value,
}

impl Event {
    /// The text of a message.
    pub fn body(&self) -> Option<&str> {
        self.content["body"].as_str()
    }

    pub(crate) fn read<T>(raw: &Raw<T>) -> serde_json::Result<Self> {
        serde_json::from_str(raw.json().get())
    }
}

/// One page of a room's timeline.
struct Page {
    events: Vec<Event>,
    end: Option<String>,
}

impl Client {
    /// Makes a room. Client-Server API, "Creation". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn create_room(&self, room: impl Into<NewRoom>) -> Result<OwnedRoomId, Failure> {
        self.try_create_room(room).await?.must()
    }

    /// Makes a room, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_create_room(
        &self,
        room: impl Into<NewRoom>,
    ) -> Result<Answer<OwnedRoomId>, Failure> {
        let room = room.into();
        let name = room
            .name
            .as_deref()
            .or(room.alias.as_deref())
            .unwrap_or("without a name");
        let what = format!("create the room `{name}`");
        let request = room.request().map_err(|error| self.invalid(&what, error))?;
        if let Some(version) = room
            .version
            .as_deref()
            .filter(|_| request.room_version.is_none())
        {
            return Err(self.invalid(&what, format!("`{version}` is not a room version")));
        }
        // Federated: inviting somebody from elsewhere asks their server.
        Ok(self
            .try_call(what, request, self.limits().federated)
            .await?
            .map(|response| response.room_id))
    }

    /// Joins a room by its id or alias. Returns once the server says that the user is joined; for a room of another server that
    /// takes seconds. Client-Server API, "Joining rooms". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer. A timeout leaves open whether the user is joined.
    pub async fn join(&self, room: impl AsRef<str>) -> Result<OwnedRoomId, Failure> {
        self.try_join(room).await?.must()
    }

    /// Joins a room by its id or alias, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_join(&self, room: impl AsRef<str>) -> Result<Answer<OwnedRoomId>, Failure> {
        self.try_join_via(room, &[]).await
    }

    /// Joins a room of other servers through one of `via`. A room id of version 12 names no server, and Conduit answers 500 to a
    /// join by such an id without `via`, if it does not take part in the room yet. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer. A timeout leaves open whether the user is joined.
    pub async fn join_via(
        &self,
        room: impl AsRef<str>,
        via: &[OwnedServerName],
    ) -> Result<OwnedRoomId, Failure> {
        self.try_join_via(room, via).await?.must()
    }

    /// Joins a room of other servers through one of `via`, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_join_via(
        &self,
        room: impl AsRef<str>,
        via: &[OwnedServerName],
    ) -> Result<Answer<OwnedRoomId>, Failure> {
        let room = room.as_ref();
        let what = format!("join `{room}`");
        let id = OwnedRoomOrAliasId::try_from(room).map_err(|error| self.invalid(&what, error))?;
        let mut request = join_room_by_id_or_alias::v3::Request::new(id);
        request.via = via.to_vec();
        Ok(self
            .try_call(what, request, self.limits().federated)
            .await?
            .map(|response| response.room_id))
    }

    /// Leaves a room, or rejects the invitation to it. Client-Server API, "Leaving rooms". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn leave(&self, room: &RoomId) -> Result<(), Failure> {
        self.try_leave(room).await?.must()
    }

    /// Leaves a room, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_leave(&self, room: &RoomId) -> Result<Answer<()>, Failure> {
        let request = leave_room::v3::Request::new(room.to_owned());
        Ok(self
            .try_call(format!("leave `{room}`"), request, self.limits().federated)
            .await?
            .map(|_| ()))
    }

    /// Forgets a room that was left: its history is not readable any more. Client-Server API, "Leaving rooms". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn forget(&self, room: &RoomId) -> Result<(), Failure> {
        let request = forget_room::v3::Request::new(room.to_owned());
        self.try_call(format!("forget `{room}`"), request, self.limits().call)
            .await?
            .map(|_| ())
            .must()
    }

    /// Invites a user. Client-Server API, "Joining rooms". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn invite(&self, room: &RoomId, user: &UserId) -> Result<(), Failure> {
        self.try_invite(room, user).await?.must()
    }

    /// Invites a user, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_invite(&self, room: &RoomId, user: &UserId) -> Result<Answer<()>, Failure> {
        let guest = invite_user::v3::InvitationRecipient::UserId(
            invite_user::v3::InviteUserId::new(user.to_owned()),
        );
        let request = invite_user::v3::Request::new(room.to_owned(), guest);
        Ok(self
            .try_call(
                format!("invite `{user}` to `{room}`"),
                request,
                self.limits().federated,
            )
            .await?
            .map(|_| ()))
    }

    /// Removes a user from a room. Client-Server API, "Kicking users". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn kick(&self, room: &RoomId, user: &UserId) -> Result<(), Failure> {
        self.try_kick(room, user).await?.must()
    }

    /// Removes a user from a room, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_kick(&self, room: &RoomId, user: &UserId) -> Result<Answer<()>, Failure> {
        let request = kick_user::v3::Request::new(room.to_owned(), user.to_owned());
        Ok(self
            .try_call(
                format!("kick `{user}` from `{room}`"),
                request,
                self.limits().call,
            )
            .await?
            .map(|_| ()))
    }

    /// Bans a user from a room. Client-Server API, "Banning users in a room". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn ban(&self, room: &RoomId, user: &UserId) -> Result<(), Failure> {
        self.try_ban(room, user).await?.must()
    }

    /// Bans a user from a room, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_ban(&self, room: &RoomId, user: &UserId) -> Result<Answer<()>, Failure> {
        let request = ban_user::v3::Request::new(room.to_owned(), user.to_owned());
        Ok(self
            .try_call(
                format!("ban `{user}` from `{room}`"),
                request,
                self.limits().call,
            )
            .await?
            .map(|_| ()))
    }

    /// Lifts a ban, and hands back the answer. Client-Server API, "Banning users in a room".
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_unban(&self, room: &RoomId, user: &UserId) -> Result<Answer<()>, Failure> {
        let request = unban_user::v3::Request::new(room.to_owned(), user.to_owned());
        let what = format!("lift the ban of `{user}` from `{room}`");
        Ok(self
            .try_call(what, request, self.limits().call)
            .await?
            .map(|_| ()))
    }

    /// Says something in a room (`m.text`). Returns once the server has accepted the event. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer. A timeout leaves open whether the message was sent.
    pub async fn say(&self, room: &RoomId, text: &str) -> Result<OwnedEventId, Failure> {
        self.try_say(room, text).await?.must()
    }

    /// Says something in a room, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_say(
        &self,
        room: &RoomId,
        text: &str,
    ) -> Result<Answer<OwnedEventId>, Failure> {
        self.try_send(
            room,
            "m.room.message",
            &json!({ "msgtype": "m.text", "body": text }),
        )
        .await
    }

    /// Sends a message event of any type under a fresh [transaction id](Self::next_txn). Client-Server API, "Sending events to a
    /// room". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer. A timeout leaves open whether the event was sent.
    pub async fn send(
        &self,
        room: &RoomId,
        kind: &str,
        content: &Value,
    ) -> Result<OwnedEventId, Failure> {
        self.try_send(room, kind, content).await?.must()
    }

    /// Sends a message event of any type, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_send(
        &self,
        room: &RoomId,
        kind: &str,
        content: &Value,
    ) -> Result<Answer<OwnedEventId>, Failure> {
        self.try_send_again(room, kind, content, &self.next_txn())
            .await
    }

    /// Sends a message event under a given transaction id: the same id again is a retry of the same event. On Conduit 0.10.12 an
    /// id that was used in *another* room answers 200 with that room's event id, and this message is lost.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_send_again(
        &self,
        room: &RoomId,
        kind: &str,
        content: &Value,
        txn: &ruma::TransactionId,
    ) -> Result<Answer<OwnedEventId>, Failure> {
        let what = format!("send `{kind}` to `{room}`");
        let body =
            Raw::from_json(to_raw_value(content).map_err(|error| self.invalid(&what, error))?);
        let request = send_message_event::v3::Request::new_raw(
            room.to_owned(),
            txn.to_owned(),
            kind.into(),
            body,
        );
        Ok(self
            .try_call(what, request, self.limits().call)
            .await?
            .map(|response| response.event_id))
    }

    /// Sets a piece of room state. Client-Server API, "Sending events to a room". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn send_state(
        &self,
        room: &RoomId,
        kind: &str,
        key: &str,
        content: &Value,
    ) -> Result<OwnedEventId, Failure> {
        self.try_send_state(room, kind, key, content).await?.must()
    }

    /// Sets a piece of room state, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_send_state(
        &self,
        room: &RoomId,
        kind: &str,
        key: &str,
        content: &Value,
    ) -> Result<Answer<OwnedEventId>, Failure> {
        let what = format!("set the state `{kind}` of `{room}`");
        let body =
            Raw::from_json(to_raw_value(content).map_err(|error| self.invalid(&what, error))?);
        let request = send_state_event::v3::Request::new_raw(
            room.to_owned(),
            kind.into(),
            key.to_owned(),
            body,
        );
        Ok(self
            .try_call(what, request, self.limits().call)
            .await?
            .map(|response| response.event_id))
    }

    /// Redacts an event. Client-Server API, "Redactions". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn redact(
        &self,
        room: &RoomId,
        event: &ruma::EventId,
        reason: &str,
    ) -> Result<OwnedEventId, Failure> {
        self.try_redact(room, event, reason).await?.must()
    }

    /// Redacts an event, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_redact(
        &self,
        room: &RoomId,
        event: &ruma::EventId,
        reason: &str,
    ) -> Result<Answer<OwnedEventId>, Failure> {
        let mut request =
            redact_event::v3::Request::new(room.to_owned(), event.to_owned(), self.next_txn());
        request.reason = Some(reason.to_owned());
        let what = format!("redact `{event}` in `{room}`");
        Ok(self
            .try_call(what, request, self.limits().call)
            .await?
            .map(|response| response.event_id))
    }

    /// One event of a room. Client-Server API, "Getting events for a room". Hands back the answer.
    ///
    /// # Errors
    /// When there is no answer, or it holds no event.
    pub async fn try_event(
        &self,
        room: &RoomId,
        event: &ruma::EventId,
    ) -> Result<Answer<Event>, Failure> {
        let request = get_room_event::v3::Request::new(room.to_owned(), event.to_owned());
        let answer = self
            .try_call(
                format!("read `{event}` of `{room}`"),
                request,
                self.limits().call,
            )
            .await?;
        self.read(answer, |response| Event::read(&response.event))
    }

    /// One event of a room and the state of the room before it. Client-Server API, "Event context". Hands back the answer.
    ///
    /// # Errors
    /// When there is no answer, or it holds no event.
    pub async fn try_context(
        &self,
        room: &RoomId,
        event: &ruma::EventId,
    ) -> Result<Answer<(Event, Vec<Event>)>, Failure> {
        let mut request = get_context::v3::Request::new(room.to_owned(), event.to_owned());
        request.limit = uint!(0);
        let what = format!("read `{event}` of `{room}` in its context");
        let answer = self.try_call(what, request, self.limits().call).await?;
        self.read(answer, |response| {
            let event = response.event.as_ref().map(Event::read).transpose()?;
            let event = event.ok_or_else(|| serde::de::Error::missing_field("event"))?;
            let state: serde_json::Result<_> = response.state.iter().map(Event::read).collect();
            Ok((event, state?))
        })
    }

    /// The content of one piece of a room's state. Client-Server API, "Getting events for a room". Hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_state(
        &self,
        room: &RoomId,
        kind: &str,
        key: &str,
    ) -> Result<Answer<Value>, Failure> {
        let request =
            get_state_event_for_key::v3::Request::new(room.to_owned(), kind.into(), key.to_owned());
        let what = format!("read the state `{kind}` `{key}` of `{room}`");
        let answer = self.try_call(what, request, self.limits().call).await?;
        self.read(answer, |response| {
            serde_json::from_str(response.event_or_content.get())
        })
    }

    /// Who is joined to a room, each with what is shown of them. Client-Server API, "Room membership". Hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_joined_members(
        &self,
        room: &RoomId,
    ) -> Result<Answer<BTreeMap<String, Value>>, Failure> {
        let request = joined_members::v3::Request::new(room.to_owned());
        let what = format!("list who is joined to `{room}`");
        let answer = self.try_call(what, request, self.limits().call).await?;
        self.read(answer, |response| {
            let members = response.joined.into_iter();
            members
                .map(|(user, member)| Ok((user.to_string(), serde_json::to_value(member)?)))
                .collect()
        })
    }

    /// The whole current state of a room. Client-Server API, "Getting events for a room". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn room_state(&self, room: &RoomId) -> Result<Vec<Event>, Failure> {
        self.try_room_state(room).await?.must()
    }

    /// The whole current state of a room, or the refusal.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_room_state(&self, room: &RoomId) -> Result<Answer<Vec<Event>>, Failure> {
        let request = get_state_events::v3::Request::new(room.to_owned());
        let answer = self
            .try_call(
                format!("read the state of `{room}`"),
                request,
                self.limits().call,
            )
            .await?;
        self.read(answer, |response| {
            response.room_state.iter().map(Event::read).collect()
        })
    }

    /// The members of a room with their membership (`join`, `invite`, `leave`, `ban`, `knock`). Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn members(&self, room: &RoomId) -> Result<BTreeMap<OwnedUserId, String>, Failure> {
        let request = get_member_events::v3::Request::new(room.to_owned());
        let answer = self
            .try_call(
                format!("read the members of `{room}`"),
                request,
                self.limits().call,
            )
            .await?;
        let events = self
            .read(answer, |response| {
                response
                    .chunk
                    .iter()
                    .map(Event::read)
                    .collect::<Result<Vec<_>, _>>()
            })?
            .must()?;
        let membership = |event: Event| {
            let user = UserId::parse(event.state_key.as_deref()?).ok()?;
            Some((user, event.content["membership"].as_str()?.to_owned()))
        };
        Ok(events.into_iter().filter_map(membership).collect())
    }

    /// All events of a room that this user may see, oldest first. Reads backwards, page by page, to the beginning of the room.
    /// Client-Server API, "Getting events for a room". Must succeed.
    ///
    /// # Errors
    /// When the server refuses, does not answer, or hands out the same page token again and again.
    pub async fn messages(&self, room: &RoomId) -> Result<Vec<Event>, Failure> {
        let (mut events, _) = self.messages_back_to(room, usize::MAX, |_| false).await?;
        events.reverse();
        Ok(events)
    }

    /// Reads backwards, newest first, until an event satisfies `found`, the room begins, or `most` events are read. Whether it
    /// was found is the second value.
    pub(super) async fn messages_back_to(
        &self,
        room: &RoomId,
        most: usize,
        found: impl Fn(&Event) -> bool,
    ) -> Result<(Vec<Event>, bool), Failure> {
        let mut events = Vec::new();
        let mut from = None;
        loop {
            let Page { events: page, end } = self.page(room, from.clone()).await?;
            let empty = page.is_empty();
            let hit = page.iter().any(&found);
            events.extend(page);
            // The beginning of the room: `end` is absent by specification; servers were seen to send an empty page or the same
            // token instead.
            if hit || empty || end.is_none() || end == from || events.len() >= most {
                return Ok((events, hit));
            }
            from = end;
        }
    }

    async fn page(&self, room: &RoomId, from: Option<String>) -> Result<Page, Failure> {
        let mut request = get_message_events::v3::Request::backward(room.to_owned()).from(from);
        // As much as a server will give: Conduit caps a page at 100, Synapse at 1000.
        request.limit = uint!(1000);
        let answer = self
            .try_call(
                format!("read the messages of `{room}`"),
                request,
                self.limits().call,
            )
            .await?;
        let page = self.read(answer, |response| {
            let events = response
                .chunk
                .iter()
                .map(Event::read)
                .collect::<Result<_, _>>()?;
            Ok(Page {
                events,
                end: response.end,
            })
        })?;
        page.must()
    }

    /// The rooms that this user is joined to. Client-Server API, "Listing rooms". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn joined_rooms(&self) -> Result<Vec<OwnedRoomId>, Failure> {
        let answer = self
            .try_call(
                "list the joined rooms",
                joined_rooms::v3::Request::new(),
                self.limits().call,
            )
            .await?;
        let mut rooms = answer.must()?.joined_rooms;
        rooms.sort();
        Ok(rooms)
    }

    /// The aliases that a room has on this server, sorted. Client-Server API, "Room aliases". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn aliases(&self, room: &RoomId) -> Result<Vec<OwnedRoomAliasId>, Failure> {
        let request = aliases::v3::Request::new(room.to_owned());
        let answer = self
            .try_call(
                format!("list the aliases of `{room}`"),
                request,
                self.limits().call,
            )
            .await?;
        let mut aliases = answer.must()?.aliases;
        aliases.sort();
        Ok(aliases)
    }

    /// The room that an alias stands for, or the refusal (404 `M_NOT_FOUND` where there is none).
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_resolve(&self, alias: &RoomAliasId) -> Result<Answer<OwnedRoomId>, Failure> {
        let request = get_alias::v3::Request::new(alias.to_owned());
        Ok(self
            .try_call(
                format!("resolve `{alias}`"),
                request,
                self.limits().federated,
            )
            .await?
            .map(|response| response.room_id))
    }

    /// The room that an alias stands for. Client-Server API, "Room aliases". Must succeed.
    ///
    /// # Errors
    /// When there is none, or the server does not answer.
    pub async fn resolve(&self, alias: &RoomAliasId) -> Result<OwnedRoomId, Failure> {
        self.try_resolve(alias).await?.must()
    }

    /// Gives a room an alias, and hands back the answer. Client-Server API, "Room aliases".
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_add_alias(
        &self,
        room: &RoomId,
        alias: &RoomAliasId,
    ) -> Result<Answer<()>, Failure> {
        let request = create_alias::v3::Request::new(alias.to_owned(), room.to_owned());
        Ok(self
            .try_call(
                format!("give `{room}` the alias `{alias}`"),
                request,
                self.limits().call,
            )
            .await?
            .map(|_| ()))
    }

    /// Gives a room an alias. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn add_alias(&self, room: &RoomId, alias: &RoomAliasId) -> Result<(), Failure> {
        self.try_add_alias(room, alias).await?.must()
    }

    /// Removes an alias, and hands back the answer. Client-Server API, "Room aliases".
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_remove_alias(&self, alias: &RoomAliasId) -> Result<Answer<()>, Failure> {
        let request = delete_alias::v3::Request::new(alias.to_owned());
        Ok(self
            .try_call(
                format!("remove the alias `{alias}`"),
                request,
                self.limits().call,
            )
            .await?
            .map(|_| ()))
    }

    /// Removes an alias. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn remove_alias(&self, alias: &RoomAliasId) -> Result<(), Failure> {
        self.try_remove_alias(alias).await?.must()
    }

    /// Whether a room is listed in the published room directory. Client-Server API, "Published room directory". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn is_published(&self, room: &RoomId) -> Result<bool, Failure> {
        let request = get_room_visibility::v3::Request::new(room.to_owned());
        let answer = self
            .try_call(
                format!("ask whether `{room}` is published"),
                request,
                self.limits().call,
            )
            .await?;
        Ok(answer.must()?.visibility == Visibility::Public)
    }

    /// Lists a room in the published room directory, or takes it out. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn publish(&self, room: &RoomId, published: bool) -> Result<(), Failure> {
        let request = set_room_visibility::v3::Request::new(room.to_owned(), visibility(published));
        let what = format!(
            "{} `{room}` in the room directory",
            if published { "list" } else { "unlist" }
        );
        self.try_call(what, request, self.limits().call)
            .await?
            .map(|_| ())
            .must()
    }

    /// Reads the value of an accepted answer more closely; what cannot be read is a failure of the server.
    pub(super) fn read<T, U>(
        &self,
        answer: Answer<T>,
        read: impl FnOnce(T) -> serde_json::Result<U>,
    ) -> Result<Answer<U>, Failure> {
        let Answer {
            asked,
            status,
            took,
            throttled,
            outcome,
        } = answer;
        match outcome.map(read) {
            Ok(Ok(value)) => Ok(Answer {
                asked,
                status,
                took,
                throttled,
                outcome: Ok(value),
            }),
            Err(refusal) => Ok(Answer {
                asked,
                status,
                took,
                throttled,
                outcome: Err(refusal),
            }),
            Ok(Err(error)) => {
                let reason = format!("an event in it cannot be read: {error}");
                Err(Failure::new(
                    asked,
                    Cause::Unreadable {
                        status,
                        reason,
                        body: bytes::Bytes::new(),
                    },
                    took,
                ))
            }
        }
    }
}
