//! The `Fingerprint`: what a site's users would notice if it changed.
//!
//! It is taken through the client API with the sessions of some accounts, and through the server API for the signing key; so it
//! says what a *user* gets, not what a database holds. Two fingerprints of one site are compared with
//! [`Fingerprint::differences`], which names each thing that changed in a sentence.
//!
//! Covered: server name, signing keys; of each account: whether its sessions are still valid, profile, devices, end-to-end
//! encryption keys, key backup, account data, push rules, memberships and invitations; of each room: whole current state,
//! aliases, whether it is published, and the whole timeline as each account sees it; the bytes of the site's own media that
//! occur in any of these, as well as those that the caller lists; and whether the same things are found by the other ways that
//! lead to them (`lookup`).
//!
//! Left out, because it changes while nobody does anything, or says nothing about what was kept: when and where a device was
//! last seen, sync and page tokens, `unsigned`, unread counts, receipts, typing, presence, one-time keys (they are used up),
//! and to-device messages.
//!
//! Taking one is not atomic: on a site where others talk meanwhile, two fingerprints differ by what they said.

mod lookup;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use futures_util::future::{join_all, try_join_all};
use reqwest::Method;
use ruma::{
    DeviceId, OwnedDeviceId, OwnedEventId, OwnedMxcUri, OwnedRoomAliasId, OwnedRoomId, OwnedUserId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::{
    Answer, Cause, Client, Event, Failure, Membership, Refusal, read_document, sha256,
};

/// How many rooms or files are asked for at a time.
const AT_A_TIME: usize = 32;

/// The form of a serialised fingerprint; another number is another meaning.
pub const FORMAT: u32 = 3;
/// The oldest form that can still be compared with: it lacks what was not asked for then, and that is left out.
pub const OLDEST: u32 = 2;

/// A hash of JSON: SHA-256 over its canonical form, in lower-case hexadecimal.
pub type Hash = String;

/// What a site's users would notice if it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// [`FORMAT`] of the program that took it.
    pub format: u32,
    /// The server name that the signing keys are published under.
    pub server_name: String,
    /// The published signing keys: key id to public key in unpadded base64. Server-Server API, "Publishing keys".
    pub signing_keys: BTreeMap<String, String>,
    /// The accounts whose sessions were used.
    pub accounts: BTreeMap<OwnedUserId, Account>,
    /// The rooms that these accounts are joined to.
    pub rooms: BTreeMap<OwnedRoomId, Room>,
    /// The media: the site's own that occur in rooms and profiles, and those that the caller listed.
    pub media: BTreeMap<OwnedMxcUri, Media>,
    /// What the server says of the files that it has: type and name. Since format 3.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub media_labels: BTreeMap<OwnedMxcUri, String>,
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The sessions that were tried, by device.
    pub sessions: BTreeMap<OwnedDeviceId, Session>,
    /// What a valid session shows; `None` if none was valid.
    pub view: Option<View>,
}

/// Whether a session's token is still taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Session {
    /// `whoami` names its user and device.
    Valid,
    /// The server refuses the token, or takes it for somebody else's. The text says how.
    Dead(String),
}

/// What a user sees of the own account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The display name.
    pub display_name: Option<String>,
    /// The avatar.
    pub avatar_url: Option<OwnedMxcUri>,
    /// The devices and their names.
    pub devices: BTreeMap<OwnedDeviceId, Option<String>>,
    /// End-to-end encryption identity: `device ID`, `master key`, `self-signing key`, `user-signing key`.
    pub keys: BTreeMap<String, Hash>,
    /// The current server-side key backup.
    pub key_backup: Option<KeyBackup>,
    /// Global account data by type; push rules apart.
    pub account_data: BTreeMap<String, Hash>,
    /// Account data of rooms by type: tags, the fully-read marker, and others.
    pub room_account_data: BTreeMap<OwnedRoomId, BTreeMap<String, Hash>>,
    /// Push rules: `kind/rule id`.
    pub push_rules: BTreeMap<String, Hash>,
    /// The rooms that the user is joined to.
    pub joined: BTreeSet<OwnedRoomId>,
    /// The rooms that the user is invited to.
    pub invited: BTreeSet<OwnedRoomId>,
    /// What single requests answer, by what was asked for. Since format 3.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, String>,
}

/// A server-side key backup. Client-Server API, "Server-side key backups".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyBackup {
    /// Its version.
    pub version: String,
    /// How many keys it holds.
    pub count: u64,
    /// Its algorithm and public key.
    pub auth: Hash,
    /// The keys themselves, as they are stored.
    pub keys: Hash,
}

/// One room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// What people call it: canonical alias, name, or id. For messages only, never compared.
    pub label: String,
    /// Whether it is listed in the room directory.
    pub published: bool,
    /// Its aliases on this site.
    pub aliases: BTreeSet<OwnedRoomAliasId>,
    /// The current state: type, state key.
    pub state: BTreeMap<String, BTreeMap<String, Print>>,
    /// Every event that at least one of the accounts sees.
    pub events: BTreeMap<OwnedEventId, Print>,
    /// What each account sees, oldest first.
    pub timelines: BTreeMap<OwnedUserId, Vec<OwnedEventId>>,
    /// What single requests answer, by what was asked for. Since format 3.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, String>,
    /// The newest events, asked for by their ids. Since format 3.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reached: BTreeMap<OwnedEventId, Reach>,
}

/// What is found by an event's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Whether it is the event of the timeline, or how the server refuses it.
    pub answer: String,
    /// The hash of the ids of the room's state before it, where that was asked for.
    pub state: Option<Hash>,
    /// What an account that is not a member is answered, where there is one.
    pub stranger: Option<String>,
}

/// The fingerprint of one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Print {
    /// The event id.
    pub event_id: OwnedEventId,
    /// The event type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// When, in milliseconds since the Unix epoch.
    pub origin_server_ts: u64,
    /// The hash of its content.
    pub content: Hash,
}

/// One file of the media repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Media {
    /// It can be downloaded.
    Held {
        /// SHA-256 of its bytes, in lower-case hexadecimal.
        sha256: String,
        /// Its size.
        bytes: u64,
    },
    /// The server refuses it; the text is status and code.
    Refused(String),
}

/// One thing that differs. `Display` is a sentence: "room `#fleet-ops:…`: event `$…` is missing (…)".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What kind of thing.
    pub facet: Facet,
    /// Whose, or which one: "room `#fleet-ops:timmy.foundation`".
    pub subject: String,
    /// What differs, as before -> after.
    pub detail: String,
}

/// What can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Facet {
    /// The form of the fingerprints: they cannot be compared.
    Format,
    /// The server name.
    ServerName,
    /// The signing keys: for the federation, another server.
    SigningKey,
    /// An account was looked at in one of the fingerprints only.
    Account,
    /// The validity of a session.
    Session,
    /// Display name or avatar.
    Profile,
    /// A device or its name.
    Device,
    /// An end-to-end encryption key.
    Key,
    /// The key backup.
    KeyBackup,
    /// Account data, global or of a room.
    AccountData,
    /// A push rule.
    PushRule,
    /// An account's membership of a room.
    Membership,
    /// An invitation.
    Invitation,
    /// A room that cannot be observed any more, or could not be before.
    Room,
    /// The room directory.
    Published,
    /// An alias.
    Alias,
    /// A piece of current room state.
    State,
    /// An event of a timeline.
    Event,
    /// Whether one account sees an event that others see.
    Visibility,
    /// The order of a timeline.
    Order,
    /// A file.
    Media,
    /// The answer to a request for one thing by its name.
    Lookup,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.detail)
    }
}

impl Fingerprint {
    /// Takes a fingerprint with the sessions of `clients`; several devices of one user are one account.
    ///
    /// `http` and `key_url` are where other servers ask for the signing key: the base URL of the server API
    /// (`https://matrix.vale.test:443`, or Conduit's own `http://127.0.0.1:6167`). `listed` are media to check beyond those that are
    /// found: attachments of encrypted rooms, whose addresses are in the ciphertext.
    ///
    /// A session that the server refuses and a file that it does not have are part of the fingerprint, not errors.
    ///
    /// # Errors
    /// When anything could not be observed: then there is no fingerprint, and nothing was proved.
    pub async fn take(
        clients: &[&Client],
        http: &reqwest::Client,
        key_url: &str,
        listed: &[OwnedMxcUri],
    ) -> Result<Self, Failure> {
        let (keys, sessions) = tokio::join!(
            published_keys(http, key_url),
            join_all(clients.iter().map(|client| session(client)))
        );
        let (server_name, signing_keys) = keys?;

        let mut accounts = BTreeMap::new();
        let mut speakers: BTreeMap<OwnedUserId, &Client> = BTreeMap::new();
        for (client, session) in clients.iter().zip(sessions) {
            let session = session?;
            let user = client.user_id().to_owned();
            if session == Session::Valid {
                speakers.entry(user.clone()).or_insert(client);
            }
            let account = accounts.entry(user).or_insert_with(|| Account {
                sessions: BTreeMap::new(),
                view: None,
            });
            account
                .sessions
                .insert(client.device_id().to_owned(), session);
        }

        let views = try_join_all(
            speakers
                .iter()
                .map(|(user, client)| async move { Ok((user, view(client).await?)) }),
        )
        .await?;
        let mut members: BTreeMap<OwnedRoomId, Vec<&Client>> = BTreeMap::new();
        for (user, view) in views {
            for room in &view.joined {
                members
                    .entry(room.clone())
                    .or_default()
                    .push(speakers[user]);
            }
            if let Some(account) = accounts.get_mut(user) {
                account.view = Some(view);
            }
        }

        let mut uris: BTreeSet<OwnedMxcUri> = listed.iter().cloned().collect();
        let own = |uri: &OwnedMxcUri| {
            uri.server_name()
                .is_ok_and(|name| name == server_name.as_str())
        };
        let avatars = accounts
            .values()
            .filter_map(|account| account.view.as_ref()?.avatar_url.clone());
        uris.extend(avatars.filter(own));

        let mut rooms = BTreeMap::new();
        for some in members.into_iter().collect::<Vec<_>>().chunks(AT_A_TIME) {
            for (id, room, found) in
                try_join_all(some.iter().map(|(id, members)| room(id, members))).await?
            {
                // Only the site's own media: a copy of another site's file is fetched again when it is lost, and asking for one
                // whose site is away would cost the whole limit of a download.
                uris.extend(found.into_iter().filter(own));
                rooms.insert(id, room);
            }
        }
        for (id, room) in &mut rooms {
            let outside = |client: &&&Client| !room.timelines.contains_key(client.user_id());
            let stranger = speakers.values().find(outside).copied();
            room.reached = lookup::events(&speakers, stranger, id, room).await?;
        }

        let (mut media, mut media_labels) = (BTreeMap::new(), BTreeMap::new());
        if let Some(client) = speakers.values().next() {
            for some in uris.into_iter().collect::<Vec<_>>().chunks(AT_A_TIME) {
                let files = some
                    .iter()
                    .map(|uri| async move { Ok((uri.clone(), file(client, uri).await?)) });
                for (uri, (file, label)) in try_join_all(files).await? {
                    media_labels.extend(label.map(|label| (uri.clone(), label)));
                    media.insert(uri, file);
                }
            }
        }
        Ok(Self {
            format: FORMAT,
            server_name,
            signing_keys,
            accounts,
            rooms,
            media,
            media_labels,
        })
    }

    /// Forgets a device of every account: the one that was only made to look.
    pub fn forget_device(&mut self, device: &DeviceId) {
        for account in self.accounts.values_mut() {
            account.sessions.remove(device);
            if let Some(view) = &mut account.view {
                view.devices.remove(device);
            }
        }
    }

    /// Forgets what was said at this time or later, in milliseconds since the Unix epoch: what a server says because it was
    /// looked at.
    pub fn forget_since(&mut self, time: u64) {
        for room in self.rooms.values_mut() {
            room.events.retain(|_, event| event.origin_server_ts < time);
            for timeline in room.timelines.values_mut() {
                timeline.retain(|event| room.events.contains_key(event));
            }
        }
    }

    /// Forgets whether sessions are valid: for a comparison with somebody who has no token of theirs.
    pub fn forget_sessions(&mut self) {
        for account in self.accounts.values_mut() {
            account.sessions.clear();
        }
    }

    /// What differs in `after` from this one, each in a sentence; empty if the site is the site that its users left.
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let mut list = List::default();
        let names = Names(self, after);
        let site = format!("site `{}`", self.server_name);
        let known = |site: &Self| (OLDEST..=FORMAT).contains(&site.format);
        if self.format != after.format && !(known(self) && known(after)) {
            let detail = format!(
                "fingerprints of format {} and {} cannot be compared",
                self.format, after.format
            );
            list.add(Facet::Format, &site, detail);
            return list.0;
        }
        if self.server_name != after.server_name {
            let detail = format!(
                "server name changed `{}` -> `{}`",
                self.server_name, after.server_name
            );
            list.add(Facet::ServerName, &site, detail);
        }
        if self.signing_keys != after.signing_keys {
            let tell = |keys: &BTreeMap<String, String>| match keys.len() {
                0 => "none".to_owned(),
                _ => keys
                    .iter()
                    .map(|(id, key)| format!("`{id}` {key}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            let detail = format!(
                "signing key changed {} -> {}",
                tell(&self.signing_keys),
                tell(&after.signing_keys)
            );
            list.add(Facet::SigningKey, &site, detail);
        }
        for (user, change) in changes(&self.accounts, &after.accounts) {
            let subject = format!("account `{user}`");
            match change {
                Change::Lost(_) => {
                    list.add(Facet::Account, &subject, "was not looked at this time")
                }
                Change::New(_) => list.add(Facet::Account, &subject, "was not looked at before"),
                Change::Kept(before, after) => {
                    account_differences(&subject, before, after, &names, &mut list)
                }
            }
        }
        for (id, change) in changes(&self.rooms, &after.rooms) {
            match change {
                Change::Lost(room) if explained(id, room, &self.accounts, &after.accounts) => {}
                Change::New(room) if explained(id, room, &after.accounts, &self.accounts) => {}
                Change::Lost(room) => {
                    list.add(Facet::Room, &room.subject(), "is not there any more")
                }
                Change::New(room) => list.add(Facet::Room, &room.subject(), "was not there before"),
                Change::Kept(before, after) => before.differences(after, &mut list),
            }
        }
        // Files are asked for by any live session; when there is none, that has been named above.
        let looked = |site: &Self| site.accounts.values().any(|account| account.view.is_some());
        if !(looked(self) && looked(after)) {
            return list.0;
        }
        for (uri, change) in changes(&self.media, &after.media) {
            let subject = format!("media `{uri}`");
            let detail = match change {
                Change::Lost(_) => "is not mentioned any more".to_owned(),
                Change::New(media) => format!("was not there before, now {media}"),
                Change::Kept(Media::Held { .. }, now @ Media::Held { .. }) if change.differs() => {
                    format!("bytes differ: {} -> {now}", self.media[uri])
                }
                Change::Kept(before, now) => format!("{before} -> {now}"),
            };
            list.add(Facet::Media, &subject, detail);
        }
        for (uri, old, new) in asked_twice(&self.media_labels, &after.media_labels) {
            let detail = format!("is called {new}, was {old}");
            list.add(Facet::Media, &format!("media `{uri}`"), detail);
        }
        list.0
    }
}

impl fmt::Display for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { sha256, bytes } => write!(f, "{bytes} bytes with SHA-256 {sha256}"),
            Self::Refused(answer) => write!(f, "refused with {answer}"),
        }
    }
}

/// The differences found so far.
#[derive(Default)]
struct List(Vec<Difference>);

impl List {
    fn add(&mut self, facet: Facet, subject: &str, detail: impl Into<String>) {
        self.0.push(Difference {
            facet,
            subject: subject.to_owned(),
            detail: detail.into(),
        });
    }
}

/// What became of one entry of a map.
enum Change<'a, V> {
    Lost(&'a V),
    New(&'a V),
    Kept(&'a V, &'a V),
}

impl<V: PartialEq> Change<'_, V> {
    fn differs(&self) -> bool {
        !matches!(self, Self::Kept(before, after) if before == after)
    }
}

/// The entries of two maps that are not the same in both.
fn changes<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> Vec<(&'a K, Change<'a, V>)> {
    let kept_or_lost = before.iter().map(|(key, value)| match after.get(key) {
        Some(now) => (key, Change::Kept(value, now)),
        None => (key, Change::Lost(value)),
    });
    let new = after
        .iter()
        .filter(|(key, _)| !before.contains_key(key))
        .map(|(key, value)| (key, Change::New(value)));
    kept_or_lost
        .chain(new)
        .filter(|(_, change)| change.differs())
        .collect()
}

/// What was asked for both times and answered in two ways. What was asked for once only is named where it comes from, or was
/// asked for by a newer program.
fn asked_twice<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V, &'a V)> {
    let changes = changes(before, after).into_iter();
    changes.filter_map(|(key, change)| match change {
        Change::Kept(old, new) => Some((key, old, new)),
        Change::Lost(_) | Change::New(_) => None,
    })
}

/// Whether a room is missing only because nobody who saw it can look any more, which is named elsewhere: the account's session is
/// dead, it was not looked at, or it is not a member.
fn explained(
    id: &OwnedRoomId,
    room: &Room,
    here: &BTreeMap<OwnedUserId, Account>,
    there: &BTreeMap<OwnedUserId, Account>,
) -> bool {
    let view = |accounts: &'_ BTreeMap<OwnedUserId, Account>, user: &OwnedUserId| {
        Some(accounts.get(user)?.view.as_ref()?.joined.contains(id))
    };
    room.timelines
        .keys()
        .all(|user| view(here, user) == Some(true) && view(there, user) != Some(true))
}

fn account_differences(
    subject: &str,
    before: &Account,
    after: &Account,
    names: &Names<'_>,
    list: &mut List,
) {
    for (device, change) in changes(&before.sessions, &after.sessions) {
        let detail = match change {
            Change::Lost(_) => format!("session of device `{device}` was not tried this time"),
            Change::New(_) => format!("session of device `{device}` was not tried before"),
            Change::Kept(_, Session::Dead(answer)) => {
                format!("session of device `{device}` is not valid any more: {answer}")
            }
            Change::Kept(Session::Dead(answer), Session::Valid) => {
                format!("session of device `{device}` is valid again (before: {answer})")
            }
            Change::Kept(Session::Valid, Session::Valid) => continue,
        };
        list.add(Facet::Session, subject, detail);
    }
    // Without a valid session on one side there is nothing to compare, and the session itself has been named above.
    let (Some(before), Some(after)) = (&before.view, &after.view) else {
        return;
    };

    let text = |text: Option<&str>| text.map_or("none".to_owned(), |text| format!("`{text}`"));
    if before.display_name != after.display_name {
        let (old, new) = (
            text(before.display_name.as_deref()),
            text(after.display_name.as_deref()),
        );
        list.add(
            Facet::Profile,
            subject,
            format!("display name changed {old} -> {new}"),
        );
    }
    if before.avatar_url != after.avatar_url {
        let uri = |uri: &Option<OwnedMxcUri>| text(uri.as_ref().map(|uri| uri.as_str()));
        let (old, new) = (uri(&before.avatar_url), uri(&after.avatar_url));
        list.add(
            Facet::Profile,
            subject,
            format!("avatar changed {old} -> {new}"),
        );
    }
    for (device, change) in changes(&before.devices, &after.devices) {
        let detail = match change {
            Change::Lost(name) => {
                format!("device `{device}` ({}) is missing", text(name.as_deref()))
            }
            Change::New(name) => format!("device `{device}` ({}) is new", text(name.as_deref())),
            Change::Kept(old, new) => {
                format!(
                    "device `{device}` changed its name {} -> {}",
                    text(old.as_deref()),
                    text(new.as_deref())
                )
            }
        };
        list.add(Facet::Device, subject, detail);
    }
    hashes(&before.keys, &after.keys, Facet::Key, subject, "", list);
    if before.key_backup != after.key_backup {
        let tell = |backup: &Option<KeyBackup>| match backup {
            Some(KeyBackup {
                version,
                count,
                auth,
                keys,
            }) => format!(
                "version {version} with {count} keys ({} {})",
                &auth[..auth.len().min(8)],
                &keys[..keys.len().min(8)]
            ),
            None => "none".to_owned(),
        };
        let detail = format!(
            "key backup changed {} -> {}",
            tell(&before.key_backup),
            tell(&after.key_backup)
        );
        list.add(Facet::KeyBackup, subject, detail);
    }
    hashes(
        &before.account_data,
        &after.account_data,
        Facet::AccountData,
        subject,
        "account data ",
        list,
    );
    let nothing = BTreeMap::new();
    for (room, change) in changes(&before.room_account_data, &after.room_account_data) {
        let (old, new) = match change {
            Change::Lost(old) => (old, &nothing),
            Change::New(new) => (&nothing, new),
            Change::Kept(old, new) => (old, new),
        };
        let prefix = format!("account data of room {} ", names.of(room));
        hashes(old, new, Facet::AccountData, subject, &prefix, list);
    }
    hashes(
        &before.push_rules,
        &after.push_rules,
        Facet::PushRule,
        subject,
        "push rule ",
        list,
    );
    for (facet, old, new, is) in [
        (Facet::Membership, &before.joined, &after.joined, "joined"),
        (
            Facet::Invitation,
            &before.invited,
            &after.invited,
            "invited",
        ),
    ] {
        for room in old.difference(new) {
            list.add(
                facet,
                subject,
                format!("is no longer {is} to room {}", names.of(room)),
            );
        }
        for room in new.difference(old) {
            list.add(
                facet,
                subject,
                format!("was not {is} to room {} before", names.of(room)),
            );
        }
    }
    answer_differences(&before.answers, &after.answers, subject, list);
}

fn answer_differences(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    subject: &str,
    list: &mut List,
) {
    for (name, old, new) in asked_twice(before, after) {
        list.add(Facet::Lookup, subject, format!("{name}: {old} -> {new}"));
    }
}

fn hashes(
    before: &BTreeMap<String, Hash>,
    after: &BTreeMap<String, Hash>,
    facet: Facet,
    subject: &str,
    prefix: &str,
    list: &mut List,
) {
    for (name, change) in changes(before, after) {
        let what = match change {
            Change::Lost(_) => "is missing",
            Change::New(_) => "is new",
            Change::Kept(..) => "changed",
        };
        list.add(facet, subject, format!("{prefix}`{name}` {what}"));
    }
}

/// What rooms are called, in either fingerprint.
struct Names<'a>(&'a Fingerprint, &'a Fingerprint);

impl Names<'_> {
    fn of(&self, room: &OwnedRoomId) -> String {
        let known = self.0.rooms.get(room).or_else(|| self.1.rooms.get(room));
        format!("`{}`", known.map_or(room.as_str(), |room| &room.label))
    }
}

impl Print {
    fn of(event: &Event) -> Self {
        Self {
            event_id: event.event_id.clone(),
            kind: event.kind.clone(),
            sender: event.sender.clone(),
            origin_server_ts: event.origin_server_ts,
            content: hash(&event.content),
        }
    }

    fn tell(&self) -> String {
        format!("`{}`, sent by `{}`", self.kind, self.sender)
    }
}

impl Reach {
    fn differences(&self, after: &Self) -> Vec<String> {
        let mut list = Vec::new();
        if self.answer != after.answer {
            list.push(format!("by its id: {} -> {}", self.answer, after.answer));
        }
        if let (Some(old), Some(new)) = (&self.stranger, &after.stranger)
            && old != new
        {
            list.push(format!("for an account outside the room: {old} -> {new}"));
        }
        if let (Some(old), Some(new)) = (&self.state, &after.state)
            && old != new
        {
            list.push("has another state of the room before it".to_owned());
        }
        list
    }
}

impl Room {
    fn subject(&self) -> String {
        format!("room `{}`", self.label)
    }

    fn differences(&self, after: &Self, list: &mut List) {
        let subject = self.subject();
        if self.published != after.published {
            let detail = if after.published {
                "is published in the room directory now"
            } else {
                "is not published any more"
            };
            list.add(Facet::Published, &subject, detail);
        }
        for alias in self.aliases.difference(&after.aliases) {
            list.add(
                Facet::Alias,
                &subject,
                format!("alias `{alias}` is missing"),
            );
        }
        for alias in after.aliases.difference(&self.aliases) {
            list.add(Facet::Alias, &subject, format!("alias `{alias}` is new"));
        }
        self.state_differences(after, &subject, list);
        self.event_differences(after, &subject, list);
        answer_differences(&self.answers, &after.answers, &subject, list);
        for (id, old, new) in asked_twice(&self.reached, &after.reached) {
            for detail in old.differences(new) {
                list.add(Facet::Lookup, &subject, format!("event `{id}` {detail}"));
            }
        }
        // Accounts that see the room in both. One that lost or gained it is named as a difference of that account.
        for (user, old) in &self.timelines {
            if let Some(new) = after.timelines.get(user) {
                self.timeline_differences(after, user, old, new, &subject, list);
            }
        }
    }

    fn state_differences(&self, after: &Self, subject: &str, list: &mut List) {
        let flat = |room: &'_ Self| -> BTreeMap<(String, String), Print> {
            let keys = |(kind, keys): (&String, &BTreeMap<String, Print>)| {
                let kind = kind.clone();
                keys.iter()
                    .map(|(key, print)| ((kind.clone(), key.clone()), print.clone()))
                    .collect::<Vec<_>>()
            };
            room.state.iter().flat_map(keys).collect()
        };
        for ((kind, key), change) in changes(&flat(self), &flat(after)) {
            let name = if key.is_empty() {
                format!("state `{kind}`")
            } else {
                format!("state `{kind}` of `{key}`")
            };
            let detail = match change {
                Change::Lost(print) => format!(
                    "{name} is missing (was `{}`, set by `{}`)",
                    print.event_id, print.sender
                ),
                Change::New(print) => format!(
                    "{name} is new (`{}`, set by `{}`)",
                    print.event_id, print.sender
                ),
                Change::Kept(old, new) if old.event_id != new.event_id => {
                    format!(
                        "{name} changed `{}` -> `{}` (set by `{}`)",
                        old.event_id, new.event_id, new.sender
                    )
                }
                Change::Kept(old, new) => format!(
                    "{name}: event `{}` {}",
                    old.event_id,
                    print_change(old, new)
                ),
            };
            list.add(Facet::State, subject, detail);
        }
    }

    fn event_differences(&self, after: &Self, subject: &str, list: &mut List) {
        // Only events that somebody who looks at the room in both could have seen.
        let shared = |room: &'_ Self, other: &'_ Self| -> BTreeSet<OwnedEventId> {
            let timelines = room
                .timelines
                .iter()
                .filter(|(user, _)| other.timelines.contains_key(*user));
            timelines
                .flat_map(|(_, timeline)| timeline.iter().cloned())
                .collect()
        };
        let (seen_before, seen_after) = (shared(self, after), shared(after, self));
        for (id, change) in changes(&self.events, &after.events) {
            let detail = match change {
                Change::Lost(print) if seen_before.contains(id) => {
                    format!("event `{id}` is missing ({})", print.tell())
                }
                Change::New(print) if seen_after.contains(id) => {
                    format!("event `{id}` is new ({})", print.tell())
                }
                Change::Lost(_) | Change::New(_) => continue,
                Change::Kept(old, new) => format!("event `{id}` {}", print_change(old, new)),
            };
            list.add(Facet::Event, subject, detail);
        }
    }

    fn timeline_differences(
        &self,
        after: &Self,
        user: &OwnedUserId,
        old: &[OwnedEventId],
        new: &[OwnedEventId],
        subject: &str,
        list: &mut List,
    ) {
        let (in_old, in_new): (BTreeSet<_>, BTreeSet<_>) =
            (old.iter().collect(), new.iter().collect());
        for id in in_old
            .difference(&in_new)
            .filter(|id| after.events.contains_key(**id))
        {
            list.add(
                Facet::Visibility,
                subject,
                format!("event `{id}` is not shown to `{user}` any more"),
            );
        }
        for id in in_new
            .difference(&in_old)
            .filter(|id| self.events.contains_key(**id))
        {
            list.add(
                Facet::Visibility,
                subject,
                format!("event `{id}` was not shown to `{user}` before"),
            );
        }
        let common = |ids: &[OwnedEventId], other: &BTreeSet<&OwnedEventId>| -> Vec<OwnedEventId> {
            ids.iter()
                .filter(|id| other.contains(id))
                .cloned()
                .collect()
        };
        let (old, new) = (common(old, &in_new), common(new, &in_old));
        if let Some(at) = (0..old.len().max(new.len())).find(|at| old.get(*at) != new.get(*at)) {
            let tell = |ids: &[OwnedEventId]| {
                ids.get(at)
                    .map_or("the end".to_owned(), |id| format!("`{id}`"))
            };
            let detail = format!(
                "order of events changed for `{user}`, first {} -> {}",
                tell(&old),
                tell(&new)
            );
            list.add(Facet::Order, subject, detail);
        }
    }
}

/// What changed in an event that kept its id, which no honest server does except for a redaction.
fn print_change(old: &Print, new: &Print) -> String {
    let mut changed = Vec::new();
    if old.kind != new.kind {
        changed.push(format!("type changed `{}` -> `{}`", old.kind, new.kind));
    }
    if old.sender != new.sender {
        changed.push(format!(
            "sender changed `{}` -> `{}`",
            old.sender, new.sender
        ));
    }
    if old.origin_server_ts != new.origin_server_ts {
        changed.push(format!(
            "time changed {} -> {}",
            old.origin_server_ts, new.origin_server_ts
        ));
    }
    if old.content != new.content {
        changed.push(format!(
            "content changed (`{}`, sent by `{}`)",
            old.kind, old.sender
        ));
    }
    if old.event_id != new.event_id {
        changed.push(format!(
            "id changed `{}` -> `{}`",
            old.event_id, new.event_id
        ));
    }
    changed.join(", ")
}

/// The server name and signing keys that the server publishes. Server-Server API, "Publishing keys".
async fn published_keys(
    http: &reqwest::Client,
    base: &str,
) -> Result<(String, BTreeMap<String, String>), Failure> {
    let url = format!("{}/_matrix/key/v2/server", base.trim_end_matches('/'));
    let answer = read_document(http, &url, "another server", "read the site's signing key").await?;
    let (asked, took) = (answer.asked.clone(), answer.took);
    let keys = answer.must()?;
    let signing: BTreeMap<_, _> = keys["verify_keys"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(id, key)| Some((id.clone(), key["key"].as_str()?.to_owned())))
        .collect();
    match keys["server_name"].as_str() {
        Some(name) if !signing.is_empty() => Ok((name.to_owned(), signing)),
        _ => Err(Failure::new(
            asked,
            Cause::Unexpected("the document names no server or no key".to_owned()),
            took,
        )),
    }
}

/// Whether a session is valid. A refusal is an answer; that nobody answered, or 5xx, is not.
async fn session(client: &Client) -> Result<Session, Failure> {
    let answer = client.try_whoami().await?;
    let asked = answer.asked.clone();
    match answer.outcome {
        Ok(me)
            if me.user_id == client.user_id()
                && me.device_id.as_deref() == Some(client.device_id()) =>
        {
            Ok(Session::Valid)
        }
        Ok(me) => Ok(Session::Dead(format!(
            "it is taken for one of `{}`",
            me.user_id
        ))),
        Err(refusal) if matches!(refusal.status, 401 | 403) => Ok(Session::Dead(short(&refusal))),
        Err(refusal) => Err(Failure::new(asked, Cause::Refused(refusal), answer.took)),
    }
}

async fn view(client: &Client) -> Result<View, Failure> {
    let me = client.user_id();
    let (profile, devices, keys, key_backup, (seen, answers), push_rules, joined) = tokio::try_join!(
        async { found(client.try_profile(me).await?) },
        client.devices(),
        client.keys_of(me),
        key_backup(client),
        async {
            let seen = client.glimpse().await?;
            let answers = lookup::account(client, &seen).await?;
            Ok((seen, answers))
        },
        push_rules(client),
        client.joined_rooms(),
    )?;
    let profile = profile.unwrap_or_default();
    let hash_all = |contents: &BTreeMap<String, Value>| -> BTreeMap<String, Hash> {
        // Push rules are a type of account data too; they are compared rule by rule.
        let contents = contents.iter().filter(|(kind, _)| *kind != "m.push_rules");
        contents
            .map(|(kind, content)| (kind.clone(), hash(content)))
            .collect()
    };
    let of_rooms = seen
        .rooms
        .iter()
        .map(|(id, room)| (id.clone(), hash_all(&room.account_data)));
    let invited = seen
        .rooms
        .iter()
        .filter(|(_, room)| room.membership == Membership::Invited);
    Ok(View {
        display_name: profile.display_name,
        avatar_url: profile.avatar_url,
        devices: devices
            .into_iter()
            .map(|device| (device.id, device.name))
            .collect(),
        keys: keys
            .into_iter()
            .map(|(name, key)| (name, hash(&without_unsigned(key))))
            .collect(),
        key_backup,
        account_data: hash_all(&seen.account_data),
        room_account_data: of_rooms
            .filter(|(_, contents)| !contents.is_empty())
            .collect(),
        push_rules,
        joined: joined.into_iter().collect(),
        invited: invited.map(|(id, _)| id.clone()).collect(),
        answers,
    })
}

/// The current key backup. Client-Server API, "Server-side key backups". 404 where there is none.
async fn key_backup(client: &Client) -> Result<Option<KeyBackup>, Failure> {
    let answer = client
        .try_raw(Method::GET, "/_matrix/client/v3/room_keys/version", None)
        .await?;
    let Some(backup) = found(answer)? else {
        return Ok(None);
    };
    let version = backup["version"].as_str().unwrap_or_default().to_owned();
    let keys = format!("/_matrix/client/v3/room_keys/keys?version={version}");
    let keys = client.try_raw(Method::GET, &keys, None).await?.must()?;
    Ok(Some(KeyBackup {
        version,
        count: backup["count"].as_u64().unwrap_or_default(),
        auth: hash(&serde_json::json!([
            backup["algorithm"],
            backup["auth_data"]
        ])),
        keys: hash(&keys),
    }))
}

/// The push rules, one by one. Client-Server API, "Push rules". Their order within a kind is left out.
async fn push_rules(client: &Client) -> Result<BTreeMap<String, Hash>, Failure> {
    let rules = client
        .try_raw(Method::GET, "/_matrix/client/v3/pushrules/", None)
        .await?
        .must()?;
    let kinds = rules["global"].as_object().into_iter().flatten();
    let rules = kinds.flat_map(|(kind, rules)| {
        let rules = rules.as_array().into_iter().flatten();
        rules.map(move |rule| {
            (
                format!("{kind}/{}", rule["rule_id"].as_str().unwrap_or_default()),
                hash(rule),
            )
        })
    });
    Ok(rules.collect())
}

async fn room(
    id: &OwnedRoomId,
    members: &[&Client],
) -> Result<(OwnedRoomId, Room, BTreeSet<OwnedMxcUri>), Failure> {
    // All members of one site see the same current state.
    let one = members[0];
    let timelines = try_join_all(members.iter().map(|client| async move {
        Ok((client.user_id().to_owned(), client.messages(id).await?))
    }));
    let (state, aliases, published, timelines) = tokio::try_join!(
        one.room_state(id),
        one.aliases(id),
        one.is_published(id),
        timelines
    )?;

    // A server may list an alias that leads nowhere: what a user has of it is where it leads.
    let mut leading_here = BTreeSet::new();
    for alias in aliases {
        if found(one.try_resolve(&alias).await?)?.as_ref() == Some(id) {
            leading_here.insert(alias);
        }
    }

    let answers = lookup::room(one, id, &state).await?;
    let mut media = BTreeSet::new();
    let label = label(id, &state);
    let mut room = Room {
        label,
        published,
        aliases: leading_here,
        state: BTreeMap::new(),
        events: BTreeMap::new(),
        timelines: BTreeMap::new(),
        answers,
        reached: BTreeMap::new(),
    };
    for event in &state {
        find_media(&event.content, &mut media);
        let keys = room.state.entry(event.kind.clone()).or_default();
        keys.insert(
            event.state_key.clone().unwrap_or_default(),
            Print::of(event),
        );
    }
    for (user, events) in timelines {
        for event in &events {
            if !room.events.contains_key(&event.event_id) {
                find_media(&event.content, &mut media);
                room.events.insert(event.event_id.clone(), Print::of(event));
            }
        }
        room.timelines.insert(
            user,
            events.into_iter().map(|event| event.event_id).collect(),
        );
    }
    Ok((id.clone(), room, media))
}

fn label(id: &OwnedRoomId, state: &[Event]) -> String {
    let text = |kind: &str, field: &str| {
        let event = state
            .iter()
            .find(|event| event.kind == kind && event.state_key.as_deref() == Some(""))?;
        event.content[field]
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    text("m.room.canonical_alias", "alias")
        .or_else(|| text("m.room.name", "name"))
        .unwrap_or_else(|| id.to_string())
}

/// A file, and what the server calls it.
async fn file(client: &Client, uri: &OwnedMxcUri) -> Result<(Media, Option<String>), Failure> {
    Ok(match heard(client.try_download(uri).await?)? {
        Ok(media) => {
            let kind = media.content_type.as_deref().unwrap_or("nothing");
            let name = media.disposition.as_deref().unwrap_or("nothing");
            let label = format!("`{kind}` and `{name}`");
            let held = Media::Held {
                sha256: sha256(&media.bytes),
                bytes: media.bytes.len() as u64,
            };
            (held, Some(label))
        }
        Err(refused) => (Media::Refused(refused), None),
    })
}

/// The value, or how the server refuses it. A 5xx in Matrix's own form is the homeserver's word on what was asked for: it cannot
/// read it. One of a proxy says nothing.
fn heard<T>(answer: Answer<T>) -> Result<Result<T, String>, Failure> {
    let asked = answer.asked.clone();
    match answer.outcome {
        Ok(value) => Ok(Ok(value)),
        Err(refusal) if refusal.status < 500 || refusal.errcode.is_some() => {
            Ok(Err(short(&refusal)))
        }
        Err(refusal) => Err(Failure::new(asked, Cause::Refused(refusal), answer.took)),
    }
}

/// The value, or `None` where the server says that there is none (404).
fn found<T>(answer: Answer<T>) -> Result<Option<T>, Failure> {
    if answer
        .refusal()
        .is_some_and(|refusal| refusal.status == 404 && refusal.is("M_NOT_FOUND"))
    {
        return Ok(None);
    }
    answer.must().map(Some)
}

fn short(refusal: &Refusal) -> String {
    match &refusal.errcode {
        Some(errcode) => format!("{} `{errcode}`", refusal.status),
        None => refusal.status.to_string(),
    }
}

/// Every content URI in a piece of JSON, wherever it stands: in `url` and `avatar_url`, in thumbnails, inside HTML.
fn find_media(content: &Value, found: &mut BTreeSet<OwnedMxcUri>) {
    match content {
        Value::String(text) => {
            for (at, _) in text.match_indices("mxc://") {
                // Server name (Appendices, "Server Name"), slash, media id (Client-Server API, "Matrix Content URIs").
                let allowed =
                    |char: char| char.is_ascii_alphanumeric() || "-._~:[]/".contains(char);
                let rest = &text[at + "mxc://".len()..];
                let end = rest.find(|char| !allowed(char)).unwrap_or(rest.len());
                let uri = OwnedMxcUri::from(format!("mxc://{}", &rest[..end]));
                if uri.is_valid() {
                    found.insert(uri);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| find_media(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| find_media(field, found)),
        _ => {}
    }
}

/// Keys carry the device's name under `unsigned`, which is compared as a name.
fn without_unsigned(mut key: Value) -> Value {
    if let Some(fields) = key.as_object_mut() {
        fields.remove("unsigned");
    }
    key
}

/// Hashes JSON regardless of the order in which a server writes an object's members (Appendices, "Canonical JSON"). Unlike there,
/// numbers that are no integers are allowed: account data may hold them.
fn hash(value: &Value) -> Hash {
    let mut text = String::new();
    write_canonical(value, &mut text);
    sha256(text.as_bytes())
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            // Sorted here: `serde_json` keeps the order of insertion when any crate of the build asks it to.
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            text.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests;
