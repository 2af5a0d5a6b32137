//! One logged-in device of one user, with its own keys.

use crate::Shown;
use futures_util::future::join_all;
use harness::accounts::Account;
use harness::probe::{self, ProbeState};
use harness::site::Site;
use harness::{Failure, OrBlame, Result};
use matrix_sdk::authentication::matrix::MatrixSession;
use matrix_sdk::config::{RequestConfig, SyncSettings, SyncToken};
use matrix_sdk::deserialized_responses::{
    ProcessedToDeviceEvent, TimelineEvent, TimelineEventKind,
};
use matrix_sdk::encryption::EncryptionSettings;
use matrix_sdk::ruma::api::client::keys::upload_keys;
use matrix_sdk::ruma::api::client::room::create_room;
use matrix_sdk::ruma::events::room::encrypted::OriginalSyncRoomEncryptedEvent;
use matrix_sdk::ruma::events::room::encryption::RoomEncryptionEventContent;
use matrix_sdk::ruma::events::room::message::RoomMessageEventContent;
use matrix_sdk::ruma::events::{EmptyStateKey, InitialStateEvent};
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{
    DeviceId, EventId, OneTimeKeyAlgorithm, OwnedEventId, OwnedRoomId, OwnedServerName,
    OwnedTransactionId, OwnedUserId, RoomId, RoomVersionId, ServerName, TransactionId, UInt,
    UserId,
};
use matrix_sdk::{Client, Room, RoomState, SessionMeta, SessionTokens};
use matrix_sdk_crypto::CollectStrategy;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for a key or a message to come from one server's user to another's, in a lab on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// How a device reaches its server.
#[derive(Clone, Debug)]
pub struct Way {
    base: String,
    http: reqwest::Client,
}

impl Way {
    /// Through a site's proxy, over TLS, as any client would.
    pub fn to(site: &Site) -> Self {
        Self {
            base: site.base_url(),
            http: site.http().clone(),
        }
    }

    /// Logs an account in by this way as a device without keys, for requests that a client library would not make.
    ///
    /// # Errors
    /// When the login is refused.
    pub async fn bare(&self, account: &Account) -> Result<harness::client::Client> {
        account.login(&self.http, &self.base).await
    }

    /// To a base URL on loopback, in clear text.
    pub(crate) fn in_clear_text(base: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(120))
            .build()
            .or_harness(|| format!("make an HTTP client for `{base}`"))?;
        Ok(Self {
            base: base.to_owned(),
            http,
        })
    }
}

/// What the library does by itself for a device, and to whom it gives room keys. Made of either; the other is then the
/// library's default.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// What it does by itself.
    pub settings: EncryptionSettings,
    /// To which devices it gives room keys; by default to all that it does not block.
    pub sharing: CollectStrategy,
}

impl From<EncryptionSettings> for Habits {
    fn from(settings: EncryptionSettings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }
}

impl From<CollectStrategy> for Habits {
    fn from(sharing: CollectStrategy) -> Self {
        Self {
            sharing,
            ..Self::default()
        }
    }
}

/// How a room is encrypted. Client-Server API, "m.room.encryption".
#[derive(Clone, Debug, Default)]
pub struct EncryptedRoom {
    /// Who is invited when it is made.
    pub invited: Vec<OwnedUserId>,
    /// After how many messages the room key is changed; the client's default when not given.
    pub messages: Option<u32>,
    /// After how long the room key is changed; the client's default when not given.
    pub period: Option<Duration>,
    /// The room's version; the server's default when not given.
    pub version: Option<String>,
    /// Its topic, which is state and so is not encrypted.
    pub topic: Option<String>,
}

/// See the module. It does nothing by itself: it is [stepped](Device::step).
pub struct Device {
    client: Client,
    /// What is left of it when its program ends.
    kept: Closed,
    seen: Mutex<Seen>,
}

/// Where a store lies, and what removes it.
struct Store {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

/// What syncs told.
#[derive(Default)]
struct Seen {
    timeline: Vec<(OwnedRoomId, TimelineEvent)>,
    to_device: Vec<ProcessedToDeviceEvent>,
}

/// Puts an error of the library into a failure. What the library refuses or was refused is the product's doing until
/// evidence says otherwise.
///
/// # Errors
/// The same, as a letter.
pub fn sdk<T, E: std::error::Error>(
    outcome: std::result::Result<T, E>,
    what: impl FnOnce() -> String,
) -> Result<T> {
    outcome.or_blame(harness::Blame::Product, what)
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kept.name)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.kept.name)
            .field("user_id", &self.kept.session.meta.user_id)
            .field("device_id", &self.kept.session.meta.device_id)
            .finish_non_exhaustive()
    }
}

impl Device {
    /// Logs an account in as a new device with an empty store. Returns once its keys are on the server.
    ///
    /// # Errors
    /// When the server refuses, or does not take the keys.
    pub async fn login(way: &Way, account: &Account, name: &str) -> Result<Self> {
        Self::login_with(way, account, name, Habits::default()).await
    }

    /// The same with other habits, such as to make a cross-signing identity or to fetch keys from the backup by itself, or
    /// to give room keys only to devices that are signed.
    ///
    /// # Errors
    /// When the server refuses, or does not take the keys.
    pub async fn login_with(
        way: &Way,
        account: &Account,
        name: &str,
        habits: impl Into<Habits>,
    ) -> Result<Self> {
        let habits = habits.into();
        let name = format!("{}'s {name}", account.name);
        let store = new_store(&name)?;
        let client = open(way, store.path(), &habits, &name).await?;
        let auth = client.matrix_auth();
        let login = auth
            .login_username(&account.name, &account.password)
            .initial_device_display_name(&name)
            .send()
            .await;
        sdk(login, || format!("log in as {name}"))?;
        let session = auth
            .session()
            .ok_or_else(|| Failure::harness(format!("know the session of {name}")))?;
        let kept = Closed {
            way: way.clone(),
            name,
            session,
            habits,
            store: Arc::new(Store {
                path: store.path().to_owned(),
                _temporary: Some(store),
            }),
        };
        let device = Self::of(client, kept);
        device.has_one_time_keys(1).await?;
        Ok(device)
    }

    /// A new device with an empty store, of a session that somebody else logged in and nobody has used for encryption.
    /// Returns once its keys are on the server.
    ///
    /// # Errors
    /// When the server does not take the session or the keys.
    pub async fn of_session(
        way: &Way,
        session: &harness::client::Session,
        name: &str,
    ) -> Result<Self> {
        let store = new_store(name)?;
        let kept = Closed {
            way: way.clone(),
            name: name.to_owned(),
            session: MatrixSession {
                meta: SessionMeta {
                    user_id: session.user_id.clone(),
                    device_id: session.device_id.clone(),
                },
                tokens: SessionTokens {
                    access_token: session.access_token.clone(),
                    refresh_token: None,
                },
            },
            habits: Habits::default(),
            store: Arc::new(Store {
                path: store.path().to_owned(),
                _temporary: Some(store),
            }),
        };
        let device = Self::reopened(kept).await?;
        device.has_one_time_keys(1).await?;
        Ok(device)
    }

    /// Takes this device up again from its store, as after a restart of its program: with all that the store has, and
    /// nothing else. What was taken up before should be dropped first, as [`close`](Self::close) does.
    ///
    /// # Errors
    /// When the store cannot be opened, or is another's.
    pub async fn reopened(closed: Closed) -> Result<Self> {
        let Closed {
            way,
            name,
            session,
            habits,
            store,
        } = &closed;
        let client = open(way, &store.path, habits, name).await?;
        sdk(client.restore_session(session.clone()).await, || {
            format!("take {name} up again from its store")
        })?;
        Ok(Self::of(client, closed))
    }

    fn of(client: Client, kept: Closed) -> Self {
        Self {
            client,
            kept,
            seen: Mutex::default(),
        }
    }

    /// Ends the program that this device is, and keeps what is needed to start it again.
    pub fn close(self) -> Closed {
        self.kept
    }

    /// The same, in order: returns once the library has written what it had to write, and nothing has the store open any
    /// more. Where a device is just [closed](Self::close) the library does that in the background, when it likes.
    ///
    /// # Errors
    /// When something keeps it open.
    pub async fn shut(self) -> Result<Closed> {
        sdk(self.client.pause().await, || {
            format!("shut the store of {self}")
        })?;
        let closed = self.close();
        closed.is_closed().await?;
        Ok(closed)
    }

    /// The library's client, for what has no verb here.
    pub fn sdk(&self) -> &Client {
        &self.client
    }

    /// The user.
    pub fn user_id(&self) -> &UserId {
        &self.kept.session.meta.user_id
    }

    /// The device.
    pub fn device_id(&self) -> &DeviceId {
        &self.kept.session.meta.device_id
    }

    /// The access token: a secret.
    pub fn token(&self) -> &str {
        &self.kept.session.tokens.access_token
    }

    /// Where its store lies.
    pub fn store(&self) -> &Path {
        &self.kept.store.path
    }

    /// This device past the library, for requests that the library would not make.
    pub fn bare(&self) -> harness::client::Client {
        let session = harness::client::Session {
            user_id: self.user_id().to_owned(),
            device_id: self.device_id().to_owned(),
            access_token: self.token().to_owned(),
        };
        harness::client::Client::with_session(&self.kept.way.http, &self.kept.way.base, session)
    }

    /// One step: a sync that does not wait, and whatever the client has to send before and after it.
    ///
    /// # Errors
    /// When the sync fails.
    pub async fn step(&self) -> Result<()> {
        self.sync(SyncSettings::new()).await
    }

    /// The same from the beginning, as a client whose cache was cleared: without the token of the last sync.
    ///
    /// # Errors
    /// When the sync fails.
    pub async fn step_anew(&self) -> Result<()> {
        self.sync(SyncSettings::new().token(SyncToken::NoToken))
            .await
    }

    async fn sync(&self, settings: SyncSettings) -> Result<()> {
        let settings = settings.timeout(Duration::ZERO);
        let response = sdk(self.client.sync_once(settings).await, || {
            format!("sync {self}")
        })?;
        let mut seen = self.seen();
        seen.to_device.extend(response.to_device);
        let rooms = response.rooms;
        let joined = rooms
            .joined
            .into_iter()
            .map(|(id, room)| (id, room.timeline));
        let left = rooms.left.into_iter().map(|(id, room)| (id, room.timeline));
        for (room, timeline) in joined.chain(left) {
            for event in timeline.events {
                seen.timeline.push((room.clone(), event));
            }
        }
        Ok(())
    }

    /// Steps until a state is reached.
    ///
    /// # Errors
    /// When it does not come within [`SOON`], or the question says that it cannot come.
    pub async fn until<T>(
        &self,
        what: impl Into<String>,
        ask: impl AsyncFnMut() -> ProbeState<T>,
    ) -> Result<T> {
        Self::all_until(&[self], what, ask).await
    }

    /// Steps several devices, each once before every question, until a state is reached.
    ///
    /// # Errors
    /// When it does not come within [`soon`], or the question says that it cannot come.
    pub async fn all_until<T>(
        devices: &[&Self],
        what: impl Into<String>,
        mut ask: impl AsyncFnMut() -> ProbeState<T>,
    ) -> Result<T> {
        let met = probe::until(&what.into(), soon(), async || {
            let steps = join_all(devices.iter().map(|device| device.step())).await;
            if let Some(failure) = steps.into_iter().find_map(Result::err) {
                return ProbeState::NotYet(failure.to_string());
            }
            ask().await
        })
        .await;
        Ok(met?)
    }

    /// Waits until the server has at least so many one-time keys of this device. The first ones are uploaded together with its
    /// identity keys.
    ///
    /// # Errors
    /// When it does not get them.
    pub async fn has_one_time_keys(&self, least: u64) -> Result<u64> {
        let what = format!("{least} one-time keys of {self} are on the server");
        self.until(what, async || match self.one_time_keys().await {
            Ok(count) if count >= least => ProbeState::Ready(count),
            Ok(count) => ProbeState::NotYet(format!("there are {count}")),
            Err(failure) => ProbeState::NotYet(failure.to_string()),
        })
        .await
    }

    /// How many one-time keys the server has of this device: what it answers to an upload of nothing.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn one_time_keys(&self) -> Result<u64> {
        let answer = self.client.send(upload_keys::v3::Request::new()).await;
        let answer = sdk(answer, || format!("ask how many one-time keys {self} has"))?;
        let counts = &answer.one_time_key_counts;
        let count = counts.get(&OneTimeKeyAlgorithm::SignedCurve25519);
        Ok(count.map_or(0, |&count| count.into()))
    }

    /// A room as this device knows it.
    ///
    /// # Errors
    /// When no sync told of it yet.
    pub fn room(&self, room: &RoomId) -> Result<Room> {
        self.client.get_room(room).ok_or_else(|| {
            Failure::harness(format!("{self} knows of no room `{room}`"))
                .hint("let the device join it, and wait for it, first")
        })
    }

    /// Makes an encrypted private room. Returns once this device knows that it is encrypted.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn make_room(&self, how: &EncryptedRoom) -> Result<OwnedRoomId> {
        let mut encryption = RoomEncryptionEventContent::with_recommended_defaults();
        encryption.rotation_period_msgs = how
            .messages
            .map(UInt::from)
            .or(encryption.rotation_period_msgs);
        let millis = |period: Duration| UInt::try_from(period.as_millis()).unwrap_or(UInt::MAX);
        encryption.rotation_period_ms = how.period.map(millis).or(encryption.rotation_period_ms);
        let mut request = create_room::v3::Request::new();
        request.preset = Some(create_room::v3::RoomPreset::PrivateChat);
        request.invite.clone_from(&how.invited);
        request.topic.clone_from(&how.topic);
        if let Some(version) = &how.version {
            let version = RoomVersionId::try_from(version.as_str());
            request.room_version = Some(version.or_harness(|| "name a room version".to_owned())?);
        }
        request.initial_state =
            vec![InitialStateEvent::new(EmptyStateKey, encryption).to_raw_any()];
        let made = self.client.create_room(request).await;
        let room = sdk(made, || format!("{self} makes a room"))?;
        let room = room.room_id().to_owned();
        self.knows_encrypted(&room).await?;
        Ok(room)
    }

    /// Joins a room by way of these servers. Returns once this device knows that the room is encrypted.
    ///
    /// # Errors
    /// When the server refuses, or tells afterwards that the user is merely invited.
    pub async fn join(&self, room: &RoomId, via: &[&ServerName]) -> Result<()> {
        let via: Vec<OwnedServerName> = via.iter().map(|&server| server.to_owned()).collect();
        let joined = self
            .client
            .join_room_by_id_or_alias(room.into(), &via)
            .await;
        sdk(joined, || format!("{self} joins `{room}`"))?;
        self.knows_encrypted(room).await
    }

    async fn knows_encrypted(&self, room: &RoomId) -> Result<()> {
        let what = format!("{self} knows that `{room}` is encrypted");
        let state = self
            .until(what, async || match self.client.get_room(room) {
                Some(there) if there.state() == RoomState::Joined => {
                    match there.latest_encryption_state().await {
                        Ok(state) if state.is_encrypted() => ProbeState::Ready(there.state()),
                        Ok(state) => ProbeState::NotYet(format!("it takes it for {state:?}")),
                        Err(error) => ProbeState::NotYet(error.to_string()),
                    }
                }
                // The join made it a joined one here, so a sync has told otherwise since.
                Some(there) if there.state() == RoomState::Invited => {
                    ProbeState::Ready(there.state())
                }
                Some(there) => ProbeState::NotYet(format!("it is {:?} there", there.state())),
                None => ProbeState::NotYet("it does not know the room".to_owned()),
            })
            .await?;
        if state == RoomState::Joined {
            return Ok(());
        }
        Err(
            Failure::product("be in a room after a join that was granted")
                .last_seen(format!("{self} is told that it is {state:?}")),
        )
    }

    /// Waits until this device knows that somebody is a member of a room.
    ///
    /// # Errors
    /// When it does not come to know it.
    pub async fn knows_member(&self, room: &RoomId, user: &UserId) -> Result<()> {
        self.knows_membership(room, user, "join").await
    }

    /// Waits until this device knows that this has become of somebody in a room: `join`, `leave`, `ban`.
    ///
    /// # Errors
    /// When it does not come to know it.
    pub async fn knows_membership(
        &self,
        room: &RoomId,
        user: &UserId,
        membership: &str,
    ) -> Result<()> {
        let what = format!("{self} knows of {user} in `{room}`: {membership}");
        self.until(what, async || {
            let member = match self.room(room) {
                Ok(room) => room.get_member_no_sync(user).await,
                Err(failure) => return ProbeState::NotYet(failure.to_string()),
            };
            match member {
                Ok(Some(member)) if member.membership().as_str() == membership => {
                    ProbeState::Ready(())
                }
                Ok(Some(member)) => ProbeState::NotYet(format!("{:?}", member.membership())),
                Ok(None) => ProbeState::NotYet("it knows no such member".to_owned()),
                Err(error) => ProbeState::NotYet(error.to_string()),
            }
        })
        .await
    }

    /// Waits until this device knows a device of somebody's, and so shares room keys with it, or knows that it is gone.
    ///
    /// # Errors
    /// When it does not come to know it.
    pub async fn knows_device(&self, user: &UserId, device: &DeviceId, there: bool) -> Result<()> {
        let how = if there { "has" } else { "has not" };
        let what = format!("{self} knows that {user} {how} the device `{device}`");
        self.until(what, async || {
            match self.client.encryption().get_user_devices(user).await {
                Ok(devices) if devices.get(device).is_some() == there => ProbeState::Ready(()),
                Ok(devices) => {
                    let known: Vec<_> = devices.keys().map(ToString::to_string).collect();
                    ProbeState::NotYet(format!("it knows {known:?}"))
                }
                Err(error) => ProbeState::NotYet(error.to_string()),
            }
        })
        .await
    }

    /// Says something in an encrypted room: shares the room key with every device that is to have it, and sends. Returns
    /// once the server has taken it.
    ///
    /// # Errors
    /// When the room is not encrypted, or the server refuses.
    pub async fn say(&self, room: &RoomId, text: &str) -> Result<OwnedEventId> {
        self.say_as(room, text, TransactionId::new()).await
    }

    /// The same under a transaction id, so that who does not know whether it arrived can say it again.
    ///
    /// # Errors
    /// When the room is not encrypted, or the server refuses.
    pub async fn say_as(
        &self,
        room: &RoomId,
        text: &str,
        txn: OwnedTransactionId,
    ) -> Result<OwnedEventId> {
        let there = self.room(room)?;
        let state = sdk(there.latest_encryption_state().await, || {
            format!("ask whether `{room}` is encrypted")
        })?;
        if !state.is_encrypted() {
            return Err(Failure::product(format!(
                "keep `{room}` encrypted: {self} is told that it is not"
            )));
        }
        let content = RoomMessageEventContent::text_plain(text);
        let sent = there.send(content).with_transaction_id(txn).await;
        let sent = sdk(sent, || format!("{self} says `{text}`"))?;
        if sent.encryption_info.is_none() {
            return Err(Failure::product(format!(
                "encrypt what {self} says: it went out in clear text"
            )));
        }
        Ok(sent.response.event_id)
    }

    /// What this device shows of an event that syncs told of; what could not be decrypted when it came is tried again with
    /// the keys that are there now.
    ///
    /// # Errors
    /// When the library breaks down over it.
    pub async fn shown(&self, room: &RoomId, event: &EventId) -> Result<Shown> {
        let is_it =
            |(_, seen): &&(OwnedRoomId, TimelineEvent)| seen.event_id().as_deref() == Some(event);
        let found = self.seen().timeline.iter().rfind(is_it).cloned();
        let Some((_, seen)) = found else {
            return Ok(Shown::Nothing);
        };
        let TimelineEventKind::UnableToDecrypt { event: raw, .. } = &seen.kind else {
            return Ok(Shown::of(&seen));
        };
        let again = self
            .room(room)?
            .decrypt_event(raw.cast_ref_unchecked(), None)
            .await;
        let again = sdk(again, || format!("{self} decrypts `{event}`"))?;
        Ok(Shown::of(&again))
    }

    /// What this device shows of an event that it fetches from the server, such as one from before its time.
    ///
    /// # Errors
    /// When the server does not hand it out.
    pub async fn fetched(&self, room: &RoomId, event: &EventId) -> Result<Shown> {
        let fetched = self.room(room)?.event(event, None).await;
        let fetched = sdk(fetched, || format!("{self} fetches `{event}`"))?;
        Ok(Shown::of(&fetched))
    }

    /// Waits until an event has come, whatever this device makes of it.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn gets(&self, room: &RoomId, event: &EventId) -> Result<Shown> {
        let what = format!("`{event}` comes to {self}");
        self.until(what, async || match self.shown(room, event).await {
            Ok(Shown::Nothing) => ProbeState::NotYet("it has not come".to_owned()),
            Ok(shown) => ProbeState::Ready(shown),
            Err(failure) => ProbeState::NotYet(failure.to_string()),
        })
        .await
    }

    /// What this device makes of an event that somebody hands it, past its own server: it has nothing but its keys.
    ///
    /// # Errors
    /// When the library breaks down over it.
    pub async fn handed(&self, room: &RoomId, event: &serde_json::Value) -> Result<Shown> {
        let raw = Raw::<OriginalSyncRoomEncryptedEvent>::from_json_string(event.to_string());
        let raw = sdk(raw, || format!("hand {self} an event"))?;
        let made = self.room(room)?.decrypt_event(&raw, None).await;
        let made = sdk(made, || format!("{self} decrypts what it was handed"))?;
        Ok(Shown::of(&made))
    }

    /// Ends its session on the server. Its store keeps what it has.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn logs_out(&self) -> Result<()> {
        let left = self.client.matrix_auth().logout().await;
        sdk(left, || format!("log {self} out")).map(|_| ())
    }

    /// Waits until this device has decrypted a message, and it is this one.
    ///
    /// # Errors
    /// When it is not shown, cannot be decrypted, came in clear text, or says something else.
    pub async fn reads(&self, room: &RoomId, event: &EventId, text: &str) -> Result<Shown> {
        let what = format!("{self} reads `{text}`");
        self.until(what, async || match self.shown(room, event).await {
            Ok(shown) if shown.text() == Some(text) => ProbeState::Ready(shown),
            Ok(shown @ (Shown::Read { .. } | Shown::Plain { .. })) => {
                ProbeState::Failed(format!("it is shown `{event}` {shown}"))
            }
            Ok(shown) => ProbeState::NotYet(format!("it is shown `{event}`: {shown}")),
            Err(failure) => ProbeState::NotYet(failure.to_string()),
        })
        .await
    }

    /// Asks the server for a JSON document as this device, past the library: what the server itself has.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub async fn asks(&self, path: &str) -> Result<serde_json::Value> {
        let what = || format!("{self} asks for `{path}`");
        let asked = self
            .kept
            .way
            .http
            .get(format!("{}{path}", self.kept.way.base));
        let answer = sdk(asked.bearer_auth(self.token()).send().await, what)?;
        let answer = sdk(answer.error_for_status(), what)?;
        sdk(answer.json().await, what)
    }

    /// Every room event that syncs told of, in their order, as they came.
    pub fn timeline(&self, room: &RoomId) -> Vec<Shown> {
        let seen = self.seen();
        let here = seen.timeline.iter().filter(|(at, _)| at == room);
        here.map(|(_, event)| Shown::of(event)).collect()
    }

    /// The to-device messages that syncs told of, in their order.
    pub fn to_device(&self) -> Vec<ProcessedToDeviceEvent> {
        self.seen().to_device.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device whose program does not run. Its store lies on disk.
#[derive(Clone)]
pub struct Closed {
    way: Way,
    /// Its user and its name, for reports.
    name: String,
    session: MatrixSession,
    habits: Habits,
    /// Where its store lies; gone when the last device that was opened on it is dropped.
    store: Arc<Store>,
}

impl Closed {
    /// Where its store lies.
    pub fn store(&self) -> PathBuf {
        self.store.path.clone()
    }

    /// The same device with another way to its server.
    #[must_use]
    pub fn by(mut self, way: &Way) -> Self {
        self.way = way.clone();
        self
    }

    /// The same session on the store that lies there, which is not ours to remove.
    #[must_use]
    pub fn on_the_store_at(mut self, path: &Path) -> Self {
        self.store = Arc::new(Store {
            path: path.to_owned(),
            _temporary: None,
        });
        self
    }

    /// Waits until nothing has the store open any more.
    async fn is_closed(&self) -> Result<()> {
        let what = format!("the store of {} is closed", self.name);
        let met = probe::until(&what, soon(), async || {
            let files = std::fs::read_dir(&self.store.path).into_iter().flatten();
            let names = files.flatten().map(|file| file.file_name());
            let names: Vec<_> = names
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            // SQLite removes what belongs to a connection when the last one is closed.
            match names.iter().find(|name| !name.ends_with(".sqlite3")) {
                Some(name) => ProbeState::NotYet(format!("there is `{name}`")),
                None => ProbeState::Ready(()),
            }
        });
        Ok(met.await?)
    }

    /// What another process needs to run this device by a way in clear text, until it ends or is killed: a secret. The store
    /// stays ours.
    pub fn packed(&self) -> String {
        let packed = (&self.way.base, &self.name, &self.session, &self.store.path);
        serde_json::json!(packed).to_string()
    }

    /// The device that was [packed](Self::packed).
    ///
    /// # Errors
    /// When there is none.
    pub fn unpacked(packed: &str) -> Result<Self> {
        let unpacked = serde_json::from_str(packed);
        let (base, name, session, path): (String, _, _, _) =
            unpacked.or_harness(|| "unpack a device".to_owned())?;
        Ok(Self {
            way: Way::in_clear_text(&base)?,
            name,
            session,
            habits: Habits::default(),
            store: Arc::new(Store {
                path,
                _temporary: None,
            }),
        })
    }
}

tokio::task_local! {
    /// How long a wait may last, where that is not [`SOON`]: with a fault planted a claim waits in vain.
    pub static HASTE: Duration;
}

/// How long a wait may last here.
pub fn soon() -> Duration {
    HASTE.try_with(|haste| *haste).unwrap_or(SOON)
}

fn new_store(name: &str) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("fleet-device-")
        .tempdir()
        .or_environment(|| format!("make a directory for the store of {name}"))
}

async fn open(way: &Way, store: &Path, habits: &Habits, name: &str) -> Result<Client> {
    let client = Client::builder()
        .homeserver_url(&way.base)
        .http_client(way.http.clone())
        // What a server says of itself must not lead around who stands in between.
        .respect_login_well_known(false)
        .sqlite_store(store, None)
        .with_encryption_settings(habits.settings)
        .with_room_key_recipient_strategy(habits.sharing.clone())
        // A request that fails is to be seen to fail; the next step tries again.
        .request_config(RequestConfig::new().disable_retry())
        .build()
        .await;
    sdk(client, || format!("open the store of {name}"))
}
