//! Waiting for what a client is told: sync, and what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ruma::{
    EventId, OwnedRoomId, RoomId,
    api::client::{
        filter::{FilterDefinition, RoomEventFilter},
        sync::sync_events::{
            self,
            v3::{Filter, State, Timeline},
        },
    },
    serde::Raw,
    uint,
};
use serde_json::Value;

use super::{Answer, Client, Event, Failure};
use crate::probe::{ProbeState, Unmet, Watch};

/// The longest single poll. Shorter than any proxy's idle timeout, and Conduit's own cap is 30 s.
const LONGEST_POLL: Duration = Duration::from_secs(10);
/// The longest poll of [`Client::sees_within`], which looks at the pages of `/messages` in between.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How much earlier than a wait's limit its last poll ends, so that it is answered within the limit.
const ANSWER_TIME: Duration = Duration::from_millis(200);
/// How much longer than its poll a sync request may take before it counts as unanswered.
const POLL_MARGIN: Duration = Duration::from_secs(20);

/// How many syncs arming may take; in a room where people talk without pause there would always be one more.
const MOST_CATCH_UPS: u32 = 5;

/// Everything that one [`Listener`] has been told since it was armed.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How many sync responses it took.
    pub syncs: u32,
    /// The rooms that were mentioned.
    pub rooms: BTreeMap<OwnedRoomId, RoomSeen>,
    /// Global account data, the newest content of each type.
    pub account_data: BTreeMap<String, Value>,
    /// To-device messages in the order of their arrival.
    pub to_device: Vec<Value>,
    /// The users whose device lists changed.
    pub device_lists_changed: BTreeSet<ruma::OwnedUserId>,
    /// Who is there, the newest content of each user.
    pub presence: BTreeMap<ruma::OwnedUserId, Value>,
}

/// What was told about one room.
#[derive(Clone, Debug)]
pub struct RoomSeen {
    /// The section that the room was in last.
    pub membership: Membership,
    /// The timeline events in the order of their arrival, exactly as delivered: an event that came twice is here twice.
    pub timeline: Vec<Event>,
    /// Whether a timeline was `limited`: there are events in between that only `/messages` shows.
    pub limited: bool,
    /// The state by type and key, from the state and timeline sections. Of a room that the user is invited to: none.
    pub state: BTreeMap<(String, String), Event>,
    /// What an invitation shows of the room.
    pub invite_state: Vec<Value>,
    /// Room account data, the newest content of each type.
    pub account_data: BTreeMap<String, Value>,
    /// Ephemeral events (typing, receipts), the newest content of each type.
    pub ephemeral: BTreeMap<String, Value>,
}

/// The sections of a sync response. Client-Server API, "Syncing".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Membership {
    /// `rooms.join`
    Joined,
    /// `rooms.invite`
    Invited,
    /// `rooms.knock`
    Knocked,
    /// `rooms.leave`: left, kicked, banned, or an invitation rejected.
    Left,
}

impl RoomSeen {
    fn new(membership: Membership) -> Self {
        Self {
            membership,
            timeline: Vec::new(),
            limited: false,
            state: BTreeMap::new(),
            invite_state: Vec::new(),
            account_data: BTreeMap::new(),
            ephemeral: BTreeMap::new(),
        }
    }

    /// Whether the timeline held this event.
    pub fn has(&self, event: &EventId) -> bool {
        self.timeline.iter().any(|seen| seen.event_id == event)
    }

    /// The newest state of that type and key.
    pub fn state(&self, kind: &str, key: &str) -> Option<&Event> {
        self.state.get(&(kind.to_owned(), key.to_owned()))
    }
}

impl Seen {
    /// A room, if it was mentioned.
    pub fn room(&self, room: &RoomId) -> Option<&RoomSeen> {
        self.rooms.get(room)
    }

    /// Whether the user is in that section of a room, as a probe's answer.
    pub fn membership(&self, room: &RoomId, expected: Membership) -> ProbeState<()> {
        match self.room(room).map(|room| room.membership) {
            Some(membership) if membership == expected => ProbeState::Ready(()),
            Some(membership) => ProbeState::NotYet(format!("sync has `{room}` as {membership:?}")),
            None => ProbeState::NotYet(format!("sync has not mentioned `{room}`")),
        }
    }

    /// Whether an event arrived in a room's timeline, as a probe's answer.
    pub fn event(&self, room: &RoomId, event: &EventId) -> ProbeState<Event> {
        let Some(seen) = self.room(room) else {
            return ProbeState::NotYet(format!(
                "{} sync responses have not mentioned `{room}`",
                self.syncs
            ));
        };
        match seen.timeline.iter().find(|seen| seen.event_id == event) {
            Some(event) => ProbeState::Ready(event.clone()),
            None => ProbeState::NotYet(format!("sync showed {}", tell(&seen.timeline))),
        }
    }

    fn take(&mut self, response: sync_events::v3::Response) -> serde_json::Result<()> {
        self.syncs += 1;
        let rooms = response.rooms;
        for (id, room) in rooms.join {
            let seen = self.enter(id, Membership::Joined);
            seen.take_timeline(&room.timeline, &room.state)?;
            note(&mut seen.account_data, &room.account_data.events)?;
            note(&mut seen.ephemeral, &room.ephemeral.events)?;
        }
        for (id, room) in rooms.leave {
            let seen = self.enter(id, Membership::Left);
            seen.take_timeline(&room.timeline, &room.state)?;
            note(&mut seen.account_data, &room.account_data.events)?;
        }
        for (id, room) in rooms.invite {
            let shown = room.invite_state.events.iter();
            self.enter(id, Membership::Invited).invite_state = shown
                .map(|event| serde_json::from_str(event.json().get()))
                .collect::<serde_json::Result<_>>()?;
        }
        rooms
            .knock
            .into_keys()
            .for_each(|id| _ = self.enter(id, Membership::Knocked));
        note(&mut self.account_data, &response.account_data.events)?;
        for message in &response.to_device.events {
            self.to_device
                .push(serde_json::from_str(message.json().get())?);
        }
        self.device_lists_changed
            .extend(response.device_lists.changed);
        for event in &response.presence.events {
            let event: Value = serde_json::from_str(event.json().get())?;
            let sender = event["sender"].as_str().map(ruma::OwnedUserId::try_from);
            if let Some(Ok(sender)) = sender {
                self.presence.insert(sender, event["content"].clone());
            }
        }
        Ok(())
    }

    fn enter(&mut self, id: OwnedRoomId, membership: Membership) -> &mut RoomSeen {
        let seen = self
            .rooms
            .entry(id)
            .or_insert_with(|| RoomSeen::new(membership));
        seen.membership = membership;
        seen
    }
}

impl RoomSeen {
    fn take_timeline(&mut self, timeline: &Timeline, state: &State) -> serde_json::Result<()> {
        let (before, after): (&[_], &[_]) = match state {
            State::Before(state) => (&state.events, &[]),
            State::After(state) => (&[], &state.events),
            _ => (&[], &[]),
        };
        self.limited |= timeline.limited;
        before
            .iter()
            .try_for_each(|event| Event::read(event).map(|event| self.note_state(&event)))?;
        for event in &timeline.events {
            let event = Event::read(event)?;
            self.note_state(&event);
            self.timeline.push(event);
        }
        after
            .iter()
            .try_for_each(|event| Event::read(event).map(|event| self.note_state(&event)))
    }

    fn note_state(&mut self, event: &Event) {
        if let Some(key) = &event.state_key {
            self.state
                .insert((event.kind.clone(), key.clone()), event.clone());
        }
    }
}

fn note<T>(contents: &mut BTreeMap<String, Value>, events: &[Raw<T>]) -> serde_json::Result<()> {
    for event in events {
        let mut event: Value = serde_json::from_str(event.json().get())?;
        if let Some(kind) = event["type"].as_str().map(str::to_owned) {
            contents.insert(kind, event["content"].take());
        }
    }
    Ok(())
}

/// Events in a few words: how many, and the newest.
fn tell(events: &[Event]) -> String {
    match events.last() {
        None => "no events".to_owned(),
        Some(newest) => format!(
            "{} events, newest `{}` `{}` of `{}`",
            events.len(),
            newest.kind,
            newest.event_id,
            newest.sender
        ),
    }
}

/// A wait that is armed: it knows everything up to now, and hears everything from now on.
///
/// Arm it before the cause, act, then await. Conduit's v3 sync, when something wakes a poll, answers with the *old, empty*
/// response and shows the event only in the next one (`src/api/client_server/sync.rs:623-638`); so nothing here expects data in
/// any particular response.
#[derive(Debug)]
pub struct Listener {
    client: Client,
    filter: Option<Filter>,
    since: Option<String>,
    seen: Seen,
}

impl Listener {
    /// What was heard so far, the initial sync included.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Forgets what was heard, so that only what comes from now on counts.
    pub fn forget(&mut self) {
        self.seen = Seen::default();
    }

    /// The token of the last response, for the next `since`.
    pub fn since(&self) -> Option<&str> {
        self.since.as_deref()
    }

    /// Awaits a state. `what` says which, as a sentence: "`@bob:vale.test` is invited to `!room`". `judge` looks at everything
    /// heard so far and is asked after every response (and once before).
    ///
    /// A sync that gets no answer is not the end: the server may be restarting. A sync that is refused (4xx) is.
    ///
    /// # Errors
    /// When the limit passes or the state cannot come any more, with what was last seen.
    pub async fn until<T>(
        &mut self,
        what: impl Into<String>,
        limit: Duration,
        mut judge: impl FnMut(&Seen) -> ProbeState<T>,
    ) -> Result<T, Unmet> {
        let mut watch = Watch::start(what, limit);
        if let Some(end) = watch.settle(judge(&self.seen)) {
            return end;
        }
        let mut quiet = 0;
        loop {
            // Leaves the server time to answer the last poll within the limit.
            let poll = LONGEST_POLL.min(watch.left().saturating_sub(ANSWER_TIME));
            let Some(heard) = watch.ask(self.hear(poll)).await else {
                return Err(watch.timed_out());
            };
            let told = matches!(heard, Ok(true));
            let state = match heard {
                Ok(_) => judge(&self.seen),
                Err(failure) if failure.definite() && failure.status().is_some() => {
                    ProbeState::Failed(failure.to_string())
                }
                Err(failure) => ProbeState::NotYet(failure.to_string()),
            };
            if let Some(end) = watch.settle(state) {
                return end;
            }
            // The first empty response may be Conduit's waking one, and what woke it is in the next: ask again at once. A server
            // that goes on answering emptily, or not at all, is not asked in a tight loop.
            quiet = if told { 0 } else { quiet + 1 };
            if told {
                watch.hurry();
            }
            if watch.left().is_zero() || (quiet > 1 && !watch.pause().await) {
                return Err(watch.timed_out());
            }
        }
    }

    /// One sync; whether it told anything.
    async fn hear(&mut self, poll: Duration) -> Result<bool, Failure> {
        let poll = if self.since.is_none() {
            Duration::ZERO
        } else {
            poll
        };
        let answer = self
            .client
            .try_sync(self.since.as_deref(), poll, self.filter.clone())
            .await?;
        let mut told = false;
        let client = self.client.clone();
        let answer = client.read(answer, |response| {
            told = !response.rooms.is_empty()
                || !response.rooms.knock.is_empty()
                || !response.to_device.is_empty()
                || !response.account_data.is_empty()
                || !response.device_lists.is_empty();
            let next = response.next_batch.clone();
            self.seen.take(response)?;
            Ok(next)
        })?;
        self.since = Some(answer.must()?);
        Ok(told)
    }
}

impl Client {
    /// Arms a wait: returns once the initial sync is there. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn listen(&self) -> Result<Listener, Failure> {
        self.listen_from(None).await
    }

    /// Arms a wait that goes on where another one, or the same before a restart, had stopped ([`Listener::since`]).
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn listen_from(&self, since: Option<String>) -> Result<Listener, Failure> {
        let mut listener = Listener {
            client: self.clone(),
            filter: None,
            since,
            seen: Seen::default(),
        };
        // Until nothing is left to tell. One response is not enough: Conduit keeps the response to a `since` that made progress and
        // hands it out again to whoever of this device asks with the same `since`, even to an initial sync much later
        // (`src/api/client_server/sync.rs:97-116` and `:638`), so the first one may be
        // old. Synapse keeps initial syncs for two minutes.
        for _ in 0..MOST_CATCH_UPS {
            if !listener.hear(Duration::ZERO).await? {
                break;
            }
        }
        Ok(listener)
    }

    /// What an initial sync tells, without acknowledging anything: to-device messages stay where they are.
    pub async fn glimpse(&self) -> Result<Seen, Failure> {
        // Servers keep responses: a plain initial sync may be an old one, see `listen_from`. Both ways to a fresh one are harmless.
        // Conduit keeps one response per device and `since`, takes any `since` that is not a number for the beginning
        // (`src/api/client_server/sync.rs:207-211`), and has no kept response for one that was never used; other servers refuse it.
        // Synapse keeps initial syncs for two minutes by user and filter (`sync_response_cache_duration`); a filter that excludes the
        // presence of somebody who does not exist is one that was never used.
        let unused = self.next_txn().to_string();
        let mut filter = FilterDefinition::default();
        filter.room.timeline.limit = Some(uint!(1));
        filter.room.ephemeral = RoomEventFilter::ignore_all();
        let nobody = format!("@{unused}:{}", self.user_id().server_name());
        filter
            .presence
            .not_senders
            .extend(ruma::OwnedUserId::try_from(nobody));
        let filter = Some(Filter::FilterDefinition(filter));
        let mut answer = self
            .try_sync(Some(&unused), Duration::ZERO, filter.clone())
            .await?;
        if answer
            .refusal()
            .is_some_and(|refusal| refusal.status != 401)
        {
            answer = self.try_sync(None, Duration::ZERO, filter).await?;
        }
        let mut seen = Seen::default();
        self.read(answer, |response| seen.take(response))?.must()?;
        Ok(seen)
    }

    /// One sync request, and the answer as it is. Beware: on Conduit 0.10.12 the response that a new event wakes is empty; to wait
    /// for something use [`Client::listen`]. Duplicate polls of one device with the same `since` share one response there.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_sync(
        &self,
        since: Option<&str>,
        poll: Duration,
        filter: Option<Filter>,
    ) -> Result<Answer<sync_events::v3::Response>, Failure> {
        let mut request = sync_events::v3::Request::new();
        request.since = since.map(str::to_owned);
        request.timeout = Some(poll);
        request.filter = filter;
        self.try_call("sync", request, poll + POLL_MARGIN.max(self.limits().call))
            .await
    }

    /// Syncs from the beginning until a state holds; see [`Listener::until`]. To wait for the effect of an action, arm a
    /// [listener](Client::listen) before it.
    ///
    /// # Errors
    /// When the limit passes or the state cannot come any more, with what was last seen.
    pub async fn sync_until<T>(
        &self,
        what: impl Into<String>,
        limit: Duration,
        judge: impl FnMut(&Seen) -> ProbeState<T>,
    ) -> Result<T, Unmet> {
        let mut listener = Listener {
            client: self.clone(),
            filter: None,
            since: None,
            seen: Seen::default(),
        };
        listener.until(what, limit, judge).await
    }

    /// Waits until this user sees an event in a room, in the way of a person who opens the room and scrolls: in the timeline of
    /// sync, or on the pages of `/messages` behind it.
    ///
    /// # Errors
    /// When the limit passes, with what both showed last; at once when the session is dead.
    pub async fn sees_within(
        &self,
        room: &RoomId,
        event: &EventId,
        limit: Duration,
    ) -> Result<Event, Unmet> {
        let mut watch = Watch::start(format!("`{self}` sees `{event}` in `{room}`"), limit);
        let mut filter = FilterDefinition::default();
        filter.room.rooms = Some(vec![room.to_owned()]);
        let filter = Some(Filter::FilterDefinition(filter));
        let mut listener = Listener {
            client: self.clone(),
            filter,
            since: None,
            seen: Seen::default(),
        };
        loop {
            // A long poll wakes us as soon as something happens; it is short enough to look at the pages again in between,
            // where an event can appear that sync will not show (one that arrived late, behind others).
            let poll = LOOK_AGAIN.min(watch.left().saturating_sub(ANSWER_TIME));
            let Some(state) = watch
                .ask(self.look_for(&mut listener, room, event, poll))
                .await
            else {
                return Err(watch.timed_out());
            };
            if let Some(end) = watch.settle(state) {
                return end;
            }
            if !watch.pause().await {
                return Err(watch.timed_out());
            }
            watch.hurry();
        }
    }

    /// [`Client::sees_within`] half a minute: long enough for an event of another server, in a lab.
    ///
    /// # Errors
    /// As there.
    pub async fn sees(&self, room: &RoomId, event: &EventId) -> Result<Event, Unmet> {
        self.sees_within(room, event, Duration::from_secs(30)).await
    }

    async fn look_for(
        &self,
        listener: &mut Listener,
        room: &RoomId,
        event: &EventId,
        poll: Duration,
    ) -> ProbeState<Event> {
        let by_sync = match listener.hear(poll).await {
            Ok(_) => match listener.seen.event(room, event) {
                ProbeState::NotYet(reason) => reason,
                answer => return answer,
            },
            Err(failure) if failure.status() == Some(401) => {
                return ProbeState::Failed(failure.to_string());
            }
            Err(failure) => failure.to_string(),
        };
        let by_page = match self
            .messages_back_to(room, usize::MAX, |seen| seen.event_id == event)
            .await
        {
            Ok((events, true)) => {
                let found = events.into_iter().rfind(|seen| seen.event_id == event);
                return found.map_or_else(
                    || ProbeState::NotYet("the page changed".to_owned()),
                    ProbeState::Ready,
                );
            }
            Ok((mut events, false)) => {
                events.reverse();
                format!("`/messages` showed {}", tell(&events))
            }
            Err(failure) => failure.to_string(),
        };
        ProbeState::NotYet(format!("{by_sync}; {by_page}"))
    }
}
