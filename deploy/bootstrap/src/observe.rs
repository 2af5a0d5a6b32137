//! Asks a homeserver what it has. Sends GET requests only, so `plan` can never change anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use crate::{
    client::{Answer, Client, escape},
    error::Error,
    manifest::{Manifest, PowerLevels, Room},
    plan::{MARKER, Observed, ObservedRoom, RoomState},
    secrets::Secrets,
};

/// The homeserver's software, and that it is the one the manifest is for.
///
/// # Errors
/// Refuses when no homeserver answers, when it serves another name, or when its signing key is not the one that the
/// installer wrote to `identity` (absent file: not compared).
pub fn check_server(client: &Client, manifest: &Manifest, identity: &Path) -> Result<(), Error> {
    let versions = client.get("/_matrix/client/versions", None)?;
    if !versions.ok() || versions.body.get("versions").is_none() {
        return Err(Error::refused(
            format!(
                "`{}` does not answer like a homeserver: {}",
                client.base(),
                versions.describe()
            ),
            "name the homeserver's own port with `--homeserver`",
        ));
    }
    let known: Option<Value> = fs::read(identity)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let declared = &manifest.server_name;
    let wrong = |says: &str, source: &str| {
        Error::refused(
            format!("the manifest is for `{declared}`, but {source} says `{says}`"),
            format!(
                "bootstrap the right server, or say `--server-name {says}` if this manifest is meant for it"
            ),
        )
    };
    if let Some(name) = known
        .as_ref()
        .and_then(|known| known["server_name"].as_str())
        && name != declared
    {
        return Err(wrong(name, &format!("`{}`", identity.display())));
    }
    // Matrix specification, server-server API, "Publishing keys".
    let keys = client.get("/_matrix/key/v2/server", None)?;
    if keys.ok() {
        let name = keys.text("server_name");
        if name != declared {
            return Err(wrong(name, "the homeserver"));
        }
        if let Some((id, key)) = known
            .as_ref()
            .and_then(|known| Some((known["key_id"].as_str()?, known["public_key"].as_str()?)))
        {
            let published = keys.body["verify_keys"][id]["key"].as_str();
            if published != Some(key) {
                return Err(Error::refused(
                    format!(
                        "the homeserver publishes another signing key than `{}` holds for `{id}`",
                        identity.display()
                    ),
                    "its database is another server's or a new one: restore a backup (restore.md) before anything else",
                ));
            }
        }
        return Ok(());
    }
    // Federation off: Conduit answers 500 there. Its own room has an alias under the right name only.
    let admins = format!(
        "/_matrix/client/v3/directory/room/{}",
        escape(&manifest.alias_id("admins"))
    );
    if client.get(&admins, None)?.ok() {
        return Ok(());
    }
    Err(Error::refused(
        format!(
            "cannot tell whether `{}` is `{declared}`: it publishes no keys ({})",
            client.base(),
            keys.describe()
        ),
        "set `allow_federation = true` in conduit.toml, or check `--server-name`",
    ))
}

/// Asks for everything that the manifest declares.
///
/// # Errors
/// When the homeserver does not answer, or answers what cannot be understood.
pub fn observe(client: &Client, manifest: &Manifest, secrets: &Secrets) -> Result<Observed, Error> {
    let memory = secrets.memory();
    let mut observed = Observed {
        open_sessions: memory.open.clone(),
        ..Observed::default()
    };
    for account in &manifest.accounts {
        if let Some(display_name) = account_exists(client, manifest, &account.name)? {
            observed.accounts.insert(account.name.clone(), display_name);
        }
    }
    observed
        .open_sessions
        .retain(|account| observed.accounts.contains_key(account));

    let administrator = manifest.user_id(&manifest.administrator().name);
    let token = match memory.administrator {
        Some(session) if session.user_id == administrator => {
            let whoami = client.get(
                "/_matrix/client/v3/account/whoami",
                Some(&session.access_token),
            )?;
            (whoami.ok() && whoami.text("user_id") == administrator).then_some(session.access_token)
        }
        _ => None,
    };
    observed.session = token.is_some();
    if let (Some(canary), Some(session)) = (manifest.canary(), secrets.canary_session()) {
        let id = manifest.user_id(&canary.name);
        let whoami = client.get(
            "/_matrix/client/v3/account/whoami",
            Some(&session.access_token),
        )?;
        observed.canary_session = whoami.ok() && whoami.text("user_id") == id;
    }
    let token = token.as_deref();

    let joined: BTreeSet<String> = match token {
        None => BTreeSet::new(),
        Some(_) => must(
            client.get("/_matrix/client/v3/joined_rooms", token)?,
            "list the administrator's rooms",
        )?
        .body["joined_rooms"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    };
    let admin_room = resolve(client, manifest, "admins")?;
    match (&admin_room, token) {
        (Some(room), Some(_)) => observed.administers = Some(joined.contains(room)),
        (None, Some(_)) => observed.notes.push(format!(
            "this homeserver has no `{}` room (it is not Conduit): administrator rights are not checked",
            manifest.alias_id("admins")
        )),
        (_, None) => {}
    }

    // Read only when a room cannot be found by its alias.
    let mut states: Option<BTreeMap<String, Vec<Value>>> = None;
    for room in &manifest.rooms {
        let mut aliases = BTreeMap::new();
        for alias in std::iter::once(&room.alias).chain(&room.alt_aliases) {
            aliases.insert(alias.clone(), resolve(client, manifest, alias)?);
        }
        let mut room_id = aliases.get(&room.alias).cloned().flatten();
        if room_id.is_none() && token.is_some() {
            if states.is_none() {
                let mut all = BTreeMap::new();
                for id in joined.iter().filter(|id| Some(*id) != admin_room.as_ref()) {
                    all.insert(id.clone(), full_state(client, id, token)?);
                }
                states = Some(all);
            }
            room_id = states
                .as_ref()
                .and_then(|states| find_orphan(manifest, room, states));
        }
        let Some(room_id) = room_id else {
            continue;
        };
        let state = if joined.contains(&room_id) {
            let events = full_state(client, &room_id, token)?;
            let listed = must(
                client.get(
                    &format!(
                        "/_matrix/client/v3/directory/list/room/{}",
                        escape(&room_id)
                    ),
                    token,
                )?,
                "read the room directory",
            )?;
            Some(read_state(&events, listed.text("visibility") == "public"))
        } else {
            None
        };
        observed.rooms.insert(
            room.alias.clone(),
            ObservedRoom {
                room_id,
                state,
                aliases,
            },
        );
    }
    Ok(observed)
}

/// Turns an answer that was not granted into an error.
pub(crate) fn must(answer: Answer, what: &str) -> Result<Answer, Error> {
    if answer.ok() {
        Ok(answer)
    } else {
        Err(Error::failed(
            format!(
                "cannot {what}: the homeserver answered {}",
                answer.describe()
            ),
            "`journalctl -u conduit` may tell more; run this again afterwards, it continues where it stopped",
        ))
    }
}

/// `None`: no such account. `Some(None)`: it exists and has no display name.
fn account_exists(
    client: &Client,
    manifest: &Manifest,
    name: &str,
) -> Result<Option<Option<String>>, Error> {
    let profile = client.get(
        &format!(
            "/_matrix/client/v3/profile/{}",
            escape(&manifest.user_id(name))
        ),
        None,
    )?;
    if profile.ok() {
        let display_name = profile.text("displayname");
        return Ok(Some(
            (!display_name.is_empty()).then(|| display_name.to_owned()),
        ));
    }
    // An account that was made but has no profile yet: a run, or the homeserver, was killed in between. Conduit answers
    // this with registration closed too, Synapse then answers 403 and the profile has to do.
    let available = client.get(
        &format!(
            "/_matrix/client/v3/register/available?username={}",
            escape(name)
        ),
        None,
    )?;
    match (available.status, available.errcode()) {
        (400, "M_USER_IN_USE") => Ok(Some(None)),
        (200, _) => Ok(None),
        (403, _) if profile.status == 404 => Ok(None),
        _ => {
            must(
                available,
                &format!("see whether `{}` exists", manifest.user_id(name)),
            )?;
            Ok(None)
        }
    }
}

fn resolve(client: &Client, manifest: &Manifest, alias: &str) -> Result<Option<String>, Error> {
    let id = manifest.alias_id(alias);
    let answer = client.get(
        &format!("/_matrix/client/v3/directory/room/{}", escape(&id)),
        None,
    )?;
    if answer.status == 404 {
        return Ok(None);
    }
    let answer = must(answer, &format!("look up the alias `{id}`"))?;
    Ok(Some(answer.text("room_id").to_owned()))
}

fn full_state(client: &Client, room_id: &str, token: Option<&str>) -> Result<Vec<Value>, Error> {
    let answer = must(
        client.get(
            &format!("/_matrix/client/v3/rooms/{}/state", escape(room_id)),
            token,
        )?,
        &format!("read the state of `{room_id}`"),
    )?;
    match answer.body {
        Value::Array(events) => Ok(events),
        _ => Err(Error::failed(
            format!("the state of `{room_id}` is not a list of events"),
            "is this really a homeserver?",
        )),
    }
}

fn event<'a>(events: &'a [Value], event_type: &str) -> Option<&'a Value> {
    events
        .iter()
        .find(|event| event["type"] == event_type && event["state_key"] == "")
}

/// A room that was made for this alias, by its creator, and lost the alias or never got it. The oldest one, if there
/// are several; one that was replaced by an upgrade is none.
fn find_orphan(
    manifest: &Manifest,
    room: &Room,
    states: &BTreeMap<String, Vec<Value>>,
) -> Option<String> {
    let alias = manifest.alias_id(&room.alias);
    let creator = manifest.user_id(&room.creator);
    states
        .iter()
        .filter_map(|(id, events)| {
            let create = event(events, "m.room.create")?;
            let made_for_it = create["content"][MARKER] == alias.as_str()
                || event(events, "m.room.canonical_alias")
                    .is_some_and(|event| event["content"]["alias"] == alias.as_str());
            (create["sender"] == creator.as_str()
                && made_for_it
                && event(events, "m.room.tombstone").is_none())
            .then(|| {
                (
                    create["origin_server_ts"].as_i64().unwrap_or(i64::MAX),
                    id.clone(),
                )
            })
        })
        .min()
        .map(|(_, id)| id)
}

/// Reads what a manifest can declare out of a room's state events.
#[must_use]
pub fn read_state(events: &[Value], published: bool) -> RoomState {
    let content = |event_type: &str| event(events, event_type).map(|event| &event["content"]);
    let text = |event_type: &str, key: &str| -> Option<String> {
        content(event_type)?.get(key)?.as_str().map(str::to_owned)
    };
    let texts = |value: Option<&Value>| -> BTreeSet<String> {
        value
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let create = event(events, "m.room.create").unwrap_or(&Value::Null);
    RoomState {
        made_for: create["content"][MARKER].as_str().map(str::to_owned),
        creator: create["sender"].as_str().unwrap_or_default().to_owned(),
        additional_creators: texts(create["content"].get("additional_creators")),
        version: create["content"]["room_version"]
            .as_str()
            .unwrap_or("1")
            .to_owned(),
        federate: create["content"]["m.federate"].as_bool().unwrap_or(true),
        name: text("m.room.name", "name"),
        topic: text("m.room.topic", "topic"),
        canonical_alias: text("m.room.canonical_alias", "alias"),
        alt_aliases: texts(
            content("m.room.canonical_alias").and_then(|content| content.get("alt_aliases")),
        ),
        join_rule: text("m.room.join_rules", "join_rule"),
        history_visibility: text("m.room.history_visibility", "history_visibility"),
        guest_access: text("m.room.guest_access", "guest_access"),
        encryption: text("m.room.encryption", "algorithm"),
        power_levels: PowerLevels::from_content(
            content("m.room.power_levels").unwrap_or(&Value::Null),
        ),
        members: events
            .iter()
            .filter(|event| event["type"] == "m.room.member")
            .filter_map(|event| {
                Some((
                    event["state_key"].as_str()?.to_owned(),
                    event["content"]["membership"].as_str()?.to_owned(),
                ))
            })
            .collect(),
        published,
    }
}
